//! How a subscription lies in the store: one record, found by each of its identities; what is provisioned in the body, what
//! traffic changes in the state, both as JSON.

use crate::error::Refusal;
use crate::service;
use crate::subscriber::{State, Subscription};
use ims_core::command::Problem;
use ims_core::store::Record;
use ims_core::{Impi, Impu, Imsi};

pub fn impi_key(impi: &Impi) -> String {
    format!("impi:{impi}")
}

pub fn impu_key(impu: &Impu) -> String {
    format!("impu:{impu}")
}

pub fn imsi_key(imsi: &Imsi) -> String {
    format!("imsi:{imsi}")
}

/// Everything that finds the record, and must be no other record's.
pub fn keys(subscription: &Subscription) -> Vec<String> {
    let mut keys: Vec<String> = subscription.imsi.iter().map(imsi_key).collect();
    if let Some(service) = &subscription.service {
        keys.extend([service::key(&service.identity), impi_key(&service.impi)]);
    }
    keys.extend(subscription.msisdn.iter().map(|msisdn| format!("msisdn:{msisdn}")));
    keys.extend(subscription.private_identities.iter().map(|p| impi_key(&p.impi)));
    keys.extend(subscription.impus().map(|p| impu_key(&p.impu)));
    keys
}

/// Whether `key` is one of [`keys`].
pub(crate) fn is_key_of(key: &str, subscription: &Subscription) -> bool {
    match key.split_once(':') {
        Some(("imsi", imsi)) => subscription.imsi.as_ref().is_some_and(|known| known.as_str() == imsi),
        Some(("psi", identity)) => subscription.service.as_ref().is_some_and(|s| s.identity == identity),
        Some(("msisdn", msisdn)) => subscription.msisdn.as_ref().is_some_and(|m| m.as_str() == msisdn),
        Some(("impi", impi)) => {
            let service = subscription.service.iter().map(|service| &service.impi);
            subscription.private_identities.iter().map(|p| &p.impi).chain(service).any(|known| known.as_str() == impi)
        }
        Some(("impu", impu)) => subscription.impus().any(|p| p.impu.as_str() == impu),
        _ => false,
    }
}

pub fn body(subscription: &Subscription) -> Vec<u8> {
    json(subscription)
}

pub fn state(state: &State) -> Vec<u8> {
    json(state)
}

/// These types always have a JSON form: their maps have strings as keys.
fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

pub fn read(record: &Record) -> Result<(Subscription, State), Refusal> {
    let corrupt = |what, e| Refusal::Corrupt(format!("{what} of record {}: {e}", record.id));
    let mut subscription: Subscription = serde_json::from_slice(&record.body).map_err(|e| corrupt("body", e))?;
    subscription.shrink();
    let mut state: State = match record.state.as_slice() {
        [] => State::default(),
        bytes => serde_json::from_slice(bytes).map_err(|e| corrupt("state", e))?,
    };
    state.sets.shrink_to_fit();
    Ok((subscription, state))
}

/// The problem when `key` is another subscriber's.
pub fn duplicate(key: &str) -> Problem {
    let (kind, value) = key.split_once(':').unwrap_or(("imsi", key));
    let (field, name) = match kind {
        "impi" => ("impi", "private identity"),
        "impu" => ("impus", "public identity"),
        "msisdn" => ("msisdn", "MSISDN"),
        "psi" => ("identity", "public service identity"),
        _ => ("imsi", "IMSI"),
    };
    Problem::conflict(Some(field), format!("the {name} {value} is another's already"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cx::fixture::Fixture;

    #[test]
    fn a_record_gives_back_what_was_stored_and_holds_no_key_in_clear() {
        let mut f = Fixture::new();
        f.register(1);
        let record = Record { id: 1, version: 1, body: body(&f.subscription), state: state(&f.state) };
        assert_eq!(read(&record).unwrap(), (f.subscription.clone(), f.state.clone()));
        let text = String::from_utf8(record.body.clone()).unwrap();
        assert!(!text.contains("465b5ce8") && !text.contains("cd63cb71"), "{text}");
        let broken = Record { body: b"{".to_vec(), ..record };
        assert_eq!(read(&broken).unwrap_err().name(), "corrupt-record");
    }

    #[test]
    fn every_identity_is_a_key() {
        let f = Fixture::new();
        assert!(keys(&f.subscription).iter().all(|key| is_key_of(key, &f.subscription)));
        for other in ["", "imsi", "imsi:", "msisdn:1", "impi:001010000000001", "impu:tel:+1", "001010000000001"] {
            assert!(!is_key_of(other, &f.subscription), "{other}");
        }
        assert_eq!(
            keys(&f.subscription),
            [
                "imsi:001010000000001",
                "msisdn:4915112345678",
                "impi:001010000000001@ims.example",
                "impu:sip:+4915112345678@ims.example",
                "impu:tel:+4915112345678",
                "impu:sip:001010000000001@ims.example",
            ]
        );
    }

    #[test]
    fn a_duplicate_names_the_field() {
        for (key, field, value) in [
            ("001010000000001", "imsi", "001010000000001"),
            ("imsi:001010000000001", "imsi", "001010000000001"),
            ("impu:tel:+491", "impus", "tel:+491"),
            ("msisdn:491", "msisdn", "491"),
            ("impi:a@b", "impi", "a@b"),
        ] {
            let problem = duplicate(key);
            assert_eq!((problem.status, problem.field.as_deref()), (409, Some(field)));
            assert!(problem.detail.contains(&format!(" {value} ")), "{}", problem.detail);
        }
    }
}
