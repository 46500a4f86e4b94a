//! Temporary GRUUs (RFC 5627 3.1.2, TS 24.229 5.4.7A.3): one device of a user, without saying which user that is. Nothing is kept of
//! them: what one stands for is in itself, unreadable without our key. It holds as long as its registration keeps its Call-ID.

use crate::registrar::{Binding, Id};
use hmac::{Hmac, KeyInit, Mac};
use ims_core::uri::Uri;
use ims_core::{Kept, Rng, Secret, hex};
use sha2::Sha256;

/// Where the key is kept.
const KEY: &str = "temporary-gruu-key";
const USER: &str = "tgruu.";
const PART: usize = 8;

/// The key, made when the first device asks for one.
#[derive(Default)]
pub(crate) struct TemporaryGruus(Option<Secret<32>>);

/// What a temporary GRUU says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Named {
    /// The registration; believed when its binding fits.
    pub(crate) id: Id,
    nonce: [u8; PART],
    proof: [u8; PART],
}

pub(crate) fn is_key(key: &str) -> bool {
    key == KEY
}

impl TemporaryGruus {
    pub(crate) fn restore(&mut self, value: &[u8]) -> bool {
        self.0 = value.try_into().ok().map(Secret::new);
        self.0.is_some()
    }

    /// To be kept: None when it was.
    pub(crate) fn prepare(&mut self, rng: &mut Rng) -> Option<Kept> {
        if self.0.is_some() {
            return None;
        }
        let key: [u8; 32] = rng.bytes();
        self.0 = Some(Secret::new(key));
        Some(Kept { key: KEY.into(), value: key.to_vec().into() })
    }

    /// The user part for a binding of the registration with this number.
    pub(crate) fn user(&self, id: Id, binding: &Binding, rng: &mut Rng) -> Option<String> {
        let nonce: [u8; PART] = rng.bytes();
        let hidden = xor(id.to_be_bytes(), self.mac("mask", &[&nonce])?);
        let proof = self.proof(nonce, hidden, binding)?;
        Some(format!("{USER}{}{}{}", hex::encode(&nonce), hex::encode(&hidden), hex::encode(&proof)))
    }

    /// Of a Request-URI, if it is one of ours.
    pub(crate) fn read(&self, uri: &str) -> Option<Named> {
        let bytes = hex::decode(digits(uri)?)?;
        let part = |n: usize| bytes.get(n * PART..(n + 1) * PART)?.try_into().ok();
        let (nonce, hidden, proof) = (part(0)?, part(1)?, part(2)?);
        let id = u64::from_be_bytes(xor(hidden, self.mac("mask", &[&nonce])?));
        Some(Named { id, nonce, proof })
    }

    pub(crate) fn is_of(&self, named: &Named, binding: &Binding) -> bool {
        let hidden = self.mac("mask", &[&named.nonce]).map(|mask| xor(named.id.to_be_bytes(), mask));
        hidden.is_some_and(|hidden| self.proof(named.nonce, hidden, binding) == Some(named.proof))
    }

    fn proof(&self, nonce: [u8; PART], hidden: [u8; PART], binding: &Binding) -> Option<[u8; PART]> {
        let instance = binding.contact.instance()?;
        self.mac("proof", &[&nonce, &hidden, binding.call_id.as_bytes(), b"\n", instance.as_bytes()])
    }

    fn mac(&self, label: &str, parts: &[&[u8]]) -> Option<[u8; PART]> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.as_ref()?.expose()).ok()?;
        mac.update(label.as_bytes());
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes().get(..PART)?.try_into().ok()
    }
}

/// Whether a URI has the form of one.
pub(crate) fn is_one(uri: &str) -> bool {
    digits(uri).is_some()
}

fn digits(uri: &str) -> Option<&str> {
    let uri = Uri::parse(uri).ok().filter(|uri| uri.has_param("gr"))?;
    uri.user()?.strip_prefix(USER).filter(|digits| digits.len() == 6 * PART)
}

fn xor(mut a: [u8; PART], b: [u8; PART]) -> [u8; PART] {
    a.iter_mut().zip(b).for_each(|(a, b)| *a ^= b);
    a
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wish::ContactAddress;
    use ims_core::Time;
    use std::sync::Arc;

    #[test]
    fn it_stands_for_one_binding_and_for_nobody_without_the_key() {
        let binding = |call_id: &str, instance: &str| Binding {
            contact: ContactAddress {
                uri: "sip:a@1".into(),
                params: format!(";+sip.instance=\"<{instance}>\"").into(),
                reg_id: None,
            },
            path: Arc::from([]),
            call_id: call_id.into(),
            cseq: 1,
            expires_at: Time::EPOCH,
        };
        let (mut gruus, mut rng) = (TemporaryGruus::default(), Rng::from_u64(1));
        assert_eq!(gruus.user(7, &binding("c", "urn:x"), &mut rng), None, "no key yet");
        let kept = gruus.prepare(&mut rng).unwrap();
        assert!(is_key(&kept.key) && gruus.prepare(&mut rng).is_none());
        let uris: Vec<String> =
            (0..2).map(|_| format!("sip:{}@s;gr", gruus.user(7, &binding("c", "urn:x"), &mut rng).unwrap())).collect();
        assert_ne!(uris[0], uris[1]);
        let mut restarted = TemporaryGruus::default();
        assert!(restarted.read(&uris[0]).is_none() && restarted.restore(&kept.value) && !restarted.restore(b"short"));
        assert!(restarted.restore(&kept.value));
        for uri in &uris {
            let named = restarted.read(uri).unwrap();
            assert_eq!(named.id, 7);
            assert!(restarted.is_of(&named, &binding("c", "urn:x")));
            assert!(
                !restarted.is_of(&named, &binding("c", "urn:y")) && !restarted.is_of(&named, &binding("d", "urn:x"))
            );
            assert!(!restarted.is_of(&Named { id: 8, ..named }, &binding("c", "urn:x")));
        }
        assert!(is_one(&uris[0]) && !is_one("sip:tgruu.00@s;gr") && !is_one(&uris[0].replace(";gr", "")));
    }
}
