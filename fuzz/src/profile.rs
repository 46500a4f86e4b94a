//! The Cx User-Data: what was read, written anew, reads the same; and nothing panics.

use bytes::Bytes;
use ims_sip::Message;
use xml_ifc::trigger::{CompiledCriteria, RegistrationType, RequestView, SessionCase, explain};
use xml_ifc::{ImsSubscription, MAX_BYTES, SharedSets, SptKind, parse, write};

pub(crate) fn xml(data: &[u8]) {
    let profile = match parse(data) {
        Ok(profile) => profile,
        Err(error) => return assert!(!error.0.is_empty() && error.0.len() < 1000, "{error}"),
    };
    assert!(data.len() <= MAX_BYTES);
    let text = write(&profile);
    // Escaping makes a document longer: one at the limit may pass it.
    if text.len() <= MAX_BYTES && is_usable(&profile) {
        assert_eq!(parse(text.as_bytes()), Ok(profile), "{text}");
    }
}

/// What could not be read is not written either.
fn is_usable(profile: &ImsSubscription) -> bool {
    let criteria = profile.service_profiles.iter().flat_map(|p| &p.criteria);
    let mut spts = criteria.flat_map(|c| &c.trigger).flat_map(|t| &t.spts);
    !spts.any(|spt| matches!(spt.kind, SptKind::Unusable(_)))
}

/// Between a profile and a request, on a line by itself.
const BETWEEN: &[u8] = b"\n====\n";
/// A line of an explanation for each condition, and what it shows of a request is cut.
const LONGEST_LINE: usize = 2000;

/// A profile and a request: what matches and what is explained agree, and both end.
pub(crate) fn trigger(data: &[u8]) {
    let at = data.windows(BETWEEN.len()).position(|w| w == BETWEEN).unwrap_or(data.len());
    let (xml, request) = data.split_at(at);
    let Ok(profile) = parse(xml) else { return };
    let request = Bytes::copy_from_slice(request.get(BETWEEN.len()..).unwrap_or_default());
    let Ok(message) = Message::parse(request) else { return };
    for profile in &profile.service_profiles {
        let criteria = CompiledCriteria::new(profile, &SharedSets::default());
        let cases = [
            RequestView::new(&message, SessionCase::Originating),
            RequestView::new(&message, SessionCase::TerminatingUnregistered),
            RequestView::new(&message, SessionCase::OriginatingCdiv { is_registered: true }),
            RequestView::register(&message, RegistrationType::Deregistration),
        ];
        for view in &cases {
            let matching: Vec<usize> = criteria.matches(view).map(|(at, _)| at).collect();
            let explained = explain(&criteria, view);
            let verdicts = explained.criteria.iter().enumerate();
            let told: Vec<usize> = verdicts.filter(|(_, verdict)| verdict.matches).map(|(at, _)| at).collect();
            assert_eq!(matching, told, "{explained}");
            let text = explained.to_string();
            let known = [explained.uri.len()].into_iter().chain(explained.criteria.iter().map(|c| c.server.len()));
            let longest = LONGEST_LINE + known.sum::<usize>();
            assert!(text.lines().all(|line| line.len() <= longest), "{text}");
        }
    }
}
