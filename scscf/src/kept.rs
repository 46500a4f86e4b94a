//! What the S-CSCF finds again after a restart: its registrations, one entry each.
//!
//! An entry holds the identities, the profile with its criteria and charging functions, the contacts with Path, Call-ID, CSeq and
//! expiry, and when the UE last proved who it is: all that a refresh or a de-registration over an unbroken security association
//! needs. No key and no vector: a challenge that was open ends with the process, and the UE gets another one.

use crate::profile::Profile;
use crate::registrar::{Binding, Registration};
use crate::wish::ContactAddress;
use ims_core::{Impi, Impu, Time};
use ims_diameter::cx::ChargingInformation;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::sync::Arc;
use xml_ifc::ImsSubscription;

/// The first byte of each value.
const VERSION: u8 = 2;
const PREFIX: &str = "registration/";

/// Why an entry is of no use; it is counted under the name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unusable {
    Version,
    Damaged,
}

impl Unusable {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Version => "kept-by-another-version",
            Self::Damaged => "kept-damaged",
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Entry<'a> {
    impi: Cow<'a, str>,
    impu: Cow<'a, str>,
    /// Microseconds of the node's clock, as all times here.
    authenticated_at: u64,
    subscription: ImsSubscription,
    /// Primary and secondary CCF, primary and secondary ECF.
    charging: Option<[Option<Cow<'a, str>>; 4]>,
    bindings: Vec<Contact<'a>>,
}

#[derive(Serialize, Deserialize)]
struct Contact<'a> {
    uri: Cow<'a, str>,
    params: Cow<'a, str>,
    reg_id: Option<u32>,
    path: Vec<Cow<'a, str>>,
    call_id: Cow<'a, str>,
    cseq: u32,
    expires_at: u64,
}

pub(crate) fn key(id: u64) -> String {
    format!("{PREFIX}{id}")
}

/// The number of a registration, from its key.
pub(crate) fn id(key: &str) -> Option<u64> {
    key.strip_prefix(PREFIX)?.parse().ok()
}

pub(crate) fn write(registration: &Registration) -> Vec<u8> {
    let charging = registration.profile.charging.as_ref().map(|c| {
        [&c.primary_ccf, &c.secondary_ccf, &c.primary_ecf, &c.secondary_ecf].map(|f| f.as_deref().map(Cow::Borrowed))
    });
    let bindings = registration.bindings.iter().map(|b| Contact {
        uri: Cow::Borrowed(&b.contact.uri),
        params: Cow::Borrowed(&b.contact.params),
        reg_id: b.contact.reg_id,
        path: b.path.iter().map(|uri| Cow::Borrowed(&**uri)).collect(),
        call_id: Cow::Borrowed(&b.call_id),
        cseq: b.cseq,
        expires_at: b.expires_at.micros(),
    });
    let entry = Entry {
        impi: Cow::Borrowed(registration.impi.as_str()),
        impu: Cow::Borrowed(registration.impu.as_str()),
        authenticated_at: registration.authenticated_at.micros(),
        subscription: registration.profile.subscription(&registration.impi),
        charging,
        bindings: bindings.collect(),
    };
    // Strings and numbers into memory: nothing of it can fail.
    postcard::to_extend(&entry, vec![VERSION]).unwrap_or_default()
}

pub(crate) fn read(value: &[u8]) -> Result<Registration, Unusable> {
    let body = match value.split_first() {
        Some((&VERSION, body)) => body,
        Some(_) => return Err(Unusable::Version),
        None => return Err(Unusable::Damaged),
    };
    let entry: Entry<'_> = postcard::from_bytes(body).map_err(|_| Unusable::Damaged)?;
    let impi = Impi::parse(&entry.impi).map_err(|_| Unusable::Damaged)?;
    let impu = Impu::parse(&entry.impu).map_err(|_| Unusable::Damaged)?;
    let charging = entry.charging.map(|functions| {
        let [primary_ccf, secondary_ccf, primary_ecf, secondary_ecf] = functions.map(|f| f.map(Cow::into_owned));
        ChargingInformation { primary_ccf, secondary_ccf, primary_ecf, secondary_ecf }
    });
    let bindings = entry.bindings.into_iter().map(|c| Binding {
        contact: ContactAddress { uri: c.uri.into(), params: c.params.into(), reg_id: c.reg_id },
        path: c.path.into_iter().map(Box::from).collect(),
        call_id: c.call_id.into(),
        cseq: c.cseq,
        expires_at: Time::from_micros(c.expires_at),
    });
    let profile = Profile::of(entry.subscription, charging.map(Arc::new));
    let authenticated_at = Time::from_micros(entry.authenticated_at);
    Ok(Registration { impi, impu, profile, bindings: bindings.collect(), authenticated_at })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wish::tests::wish;

    fn registration() -> Registration {
        let xml = "<IMSSubscription><PrivateID>a@b</PrivateID><ServiceProfile><PublicIdentity><Identity>sip:a@b</Identity></PublicIdentity>\
                   <PublicIdentity><BarringIndication>1</BarringIndication><Identity>tel:+1555</Identity></PublicIdentity>\
                   <InitialFilterCriteria><Priority>3</Priority><TriggerPoint><ConditionTypeCNF>0</ConditionTypeCNF><SPT>\
                   <ConditionNegated>0</ConditionNegated><Group>0</Group><Method>REGISTER</Method></SPT></TriggerPoint><ApplicationServer>\
                   <ServerName>sip:as@b</ServerName><DefaultHandling>0</DefaultHandling></ApplicationServer></InitialFilterCriteria>\
                   </ServiceProfile></IMSSubscription>";
        let charging = ChargingInformation { primary_ccf: Some("aaa://ccf".into()), ..Default::default() };
        let profile = Profile::parse(xml.as_bytes(), Some(charging)).unwrap();
        let at = Time::from_micros(1_700_000_000_123_456);
        let mut made = Registration::new(Impi::parse("a@b").unwrap(), Impu::parse("sip:a@b").unwrap(), profile, at);
        let headers = "Path: <sip:p1;lr>,<sip:p2;lr>\r\nContact: <sip:a@[2001:db8::1]:5>;q=0.5;+sip.instance=\"<urn:x>\";reg-id=2;\
                       +g.x=\"a\\\"b\u{e9}\";expires=600\r\n";
        made.bindings = made.after(&wish(headers).unwrap(), at, &crate::config::Registration::default()).unwrap();
        made
    }

    #[test]
    fn a_registration_comes_back_as_it_was() {
        let made = registration();
        assert_eq!(made.bindings.len(), 1);
        let value = write(&made);
        assert_eq!(read(&value).unwrap(), made);
        assert!(value.len() < 1500, "{}", value.len());
        assert_eq!(id(&key(77)), Some(77));
        assert!(id("registration/x").is_none() && id("7").is_none());
    }

    #[test]
    fn what_cannot_be_read_is_named_and_nothing_panics() {
        let value = write(&registration());
        let mut later = value.clone();
        later[0] = VERSION + 1;
        assert_eq!(read(&later).err(), Some(Unusable::Version));
        for cut in 0..value.len() {
            assert_eq!(read(&value[..cut]).err(), Some(Unusable::Damaged), "{cut}");
        }
        for at in 1..value.len() {
            let mut bent = value.clone();
            bent[at] ^= 0x15;
            let _ = read(&bent);
        }
    }
}
