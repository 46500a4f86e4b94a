//! Public GRUUs (RFC 5627 5.4, TS 24.229 5.4.7A.2): one device of a user, by the identity and `gr` with its instance-id.

use crate::wish::ContactAddress;
use ims_core::Impu;
use ims_core::uri::Uri;
use md5::{Digest, Md5};
use std::fmt::Write as _;

/// The name space of device numbers here: any will do, so long as it never changes (RFC 9562 6.5).
const NAMESPACE: [u8; 16] = *b"imsbox gruu imei";

/// `sip:alice@ims.example;gr=urn:uuid:...`; None for a tel URI, which can have none. An IMEI never shows in it: whoever is
/// called would learn it (RFC 7255 9), so a UUID made of it by name (version 3) stands there.
pub(crate) fn public(aor: &Impu, instance: &str) -> Option<String> {
    if !aor.as_str().starts_with("sip:") {
        return None;
    }
    number(instance).map(|number| format!("{aor};gr={number}"))
}

/// What stands in `gr` for a device.
fn number(instance: &str) -> Option<String> {
    let urn = instance.trim().trim_start_matches('<').trim_end_matches('>');
    let is_device_number = urn.get(..9).is_some_and(|start| start.eq_ignore_ascii_case("urn:gsma:"));
    let mut number = String::new();
    match is_device_number {
        true => number.push_str(&uuid(&urn.to_ascii_lowercase())),
        false => urn.bytes().for_each(|b| match b {
            b if b.is_ascii_alphanumeric() || b"-_.!~*'()[]/:&+$".contains(&b) => number.push(char::from(b)),
            b => drop(write!(number, "%{b:02x}")),
        }),
    }
    (!urn.is_empty()).then_some(number)
}

/// The device that a request is for by its Request-URI; None: it is for all that the user has.
pub(crate) fn device(uri: &str) -> Option<&str> {
    Uri::parse(uri).ok()?.param("gr").flatten().filter(|device| !device.is_empty())
}

pub(crate) fn is_of(device: &str, contact: &ContactAddress) -> bool {
    contact.instance().and_then(number).is_some_and(|number| number.eq_ignore_ascii_case(device))
}

fn uuid(name: &str) -> String {
    let mut hash = Md5::new();
    hash.update(NAMESPACE);
    hash.update(name.as_bytes());
    let mut id: [u8; 16] = hash.finalize().into();
    id[6] = id[6] & 0x0f | 0x30;
    id[8] = id[8] & 0x3f | 0x80;
    let hex: String = id.iter().fold(String::new(), |mut hex, b| {
        let _ = write!(hex, "{b:02x}");
        hex
    });
    format!("urn:uuid:{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public_of(aor: &str, instance: &str) -> Option<String> {
        public(&Impu::parse(aor).unwrap(), instance)
    }

    #[test]
    fn a_uuid_stands_as_it_is_and_an_imei_does_not() {
        let plain = public_of("sip:a@b", "<urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6>");
        assert_eq!(plain.as_deref(), Some("sip:a@b;gr=urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6"));
        let hidden = public_of("sip:a@b", "<urn:gsma:imei:90420156-025763-0>").unwrap();
        assert!(!hidden.contains("90420156") && hidden.starts_with("sip:a@b;gr=urn:uuid:"), "{hidden}");
        assert_eq!(hidden.len(), "sip:a@b;gr=urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6".len());
        assert_eq!(
            public_of("sip:a@b", "<URN:gsma:IMEI:90420156-025763-0>"),
            Some(hidden.clone()),
            "case is no matter"
        );
        assert_ne!(public_of("sip:a@b", "<urn:gsma:imei:90420156-025763-1>"), Some(hidden));
    }

    #[test]
    fn what_could_end_the_parameter_is_escaped() {
        assert_eq!(public_of("sip:a@b", "<urn:x;y=\u{e9}>").as_deref(), Some("sip:a@b;gr=urn:x%3by%3d%c3%a9"));
        assert_eq!((public_of("tel:+1555", "<urn:x>"), public_of("sip:a@b", "<>")), (None, None));
    }
}
