//! The Cx User-Data: what was read, written anew, reads the same; and nothing panics.

use xml_ifc::{MAX_BYTES, parse, write};

pub(crate) fn xml(data: &[u8]) {
    let profile = match parse(data) {
        Ok(profile) => profile,
        Err(error) => return assert!(!error.0.is_empty() && error.0.len() < 1000, "{error}"),
    };
    assert!(data.len() <= MAX_BYTES);
    let text = write(&profile);
    // Escaping makes a document longer: one at the limit may pass it.
    if text.len() <= MAX_BYTES {
        assert_eq!(parse(text.as_bytes()), Ok(profile), "{text}");
    }
}
