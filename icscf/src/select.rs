//! The choice of an S-CSCF (TS 23.228 5.1.2, TS 29.228 6.7): one that has every mandatory capability, and among those the
//! one with the most optional ones.

use crate::Scscf;
use ims_diameter::cx::ServerCapabilities;

/// The name of the best S-CSCF that is not in `tried`. Names that the HSS itself prefers go first, in its order; between
/// equals the order of the configuration decides.
pub(crate) fn scscf(list: &[Scscf], wanted: &ServerCapabilities, tried: &[String]) -> Option<String> {
    let is_new = |name: &str| !tried.iter().any(|t| t.eq_ignore_ascii_case(name));
    if let Some(preferred) = wanted.server_names.iter().find(|name| is_new(name)) {
        return Some(preferred.clone());
    }
    let able = |s: &&Scscf| is_new(&s.name) && wanted.mandatory.iter().all(|c| s.capabilities.contains(c));
    let extras = |s: &Scscf| wanted.optional.iter().filter(|c| s.capabilities.contains(c)).count();
    // max_by_key takes the last of equals: go through the list from its end.
    list.iter().filter(able).rev().max_by_key(|s| extras(s)).map(|s| s.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> Vec<Scscf> {
        [("sip:a", &[1, 2][..]), ("sip:b", &[1, 2, 3]), ("sip:c", &[1, 3, 4]), ("sip:d", &[1, 3, 4])]
            .map(|(name, c)| Scscf { name: name.into(), capabilities: c.to_vec() })
            .to_vec()
    }

    fn pick(mandatory: &[u32], optional: &[u32], tried: &[&str]) -> Option<String> {
        let wanted =
            ServerCapabilities { mandatory: mandatory.to_vec(), optional: optional.to_vec(), server_names: Vec::new() };
        scscf(&list(), &wanted, &tried.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn all_mandatory_then_most_optional_then_first() {
        assert_eq!(pick(&[], &[], &[]).as_deref(), Some("sip:a"));
        assert_eq!(pick(&[3], &[], &[]).as_deref(), Some("sip:b"));
        assert_eq!(pick(&[1], &[3, 4], &[]).as_deref(), Some("sip:c"));
        assert_eq!(pick(&[1], &[3, 4], &["sip:C"]).as_deref(), Some("sip:d"));
        assert_eq!(pick(&[1, 9], &[], &[]), None);
        assert_eq!(pick(&[2], &[], &["sip:a", "sip:b"]), None);
    }

    #[test]
    fn the_names_of_the_hss_go_first() {
        let wanted = ServerCapabilities { server_names: vec!["sip:x".into(), "sip:y".into()], ..Default::default() };
        assert_eq!(scscf(&list(), &wanted, &["sip:x".into()]).as_deref(), Some("sip:y"));
        assert_eq!(scscf(&list(), &wanted, &["sip:x".into(), "sip:y".into()]).as_deref(), Some("sip:a"));
    }
}
