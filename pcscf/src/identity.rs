//! Who speaks: P-Asserted-Identity from the registered identities and from nothing else (TS 24.229 5.2.6.3.1, RFC 3325).

use crate::contacts::{Binding, Registration};
use ims_core::Impu;
use ims_core::uri::Uri;
use ims_sip::headers::PPreferredIdentity;
use ims_sip::{Message, Name};

/// Whom a UE speaks as.
pub(crate) struct Speaker<'r> {
    /// Under which that identity is registered: its Service-Route is the route.
    pub(crate) binding: &'r Binding,
    /// What P-Asserted-Identity says: at most one SIP URI and one tel URI.
    pub(crate) identities: Vec<&'r str>,
    /// The UE preferred an identity that it has not registered.
    pub(crate) was_refused: bool,
}

/// The identity that the UE prefers, when it is registered; otherwise the default one, which is the first of
/// P-Associated-URI. An alias is for the S-CSCF to add: it alone knows which identities are one (TS 24.229 5.4.3.2).
pub(crate) fn speaker<'r>(message: &Message, registration: &'r Registration) -> Option<Speaker<'r>> {
    let preferred: Vec<String> = message
        .each::<PPreferredIdentity<'_>>()
        .filter_map(|p| Uri::parse(p.ok()?.uri).ok()?.canonical_identity())
        .take(2)
        .collect();
    for (impu, binding) in &registration.bindings {
        let matching = |wish: &String| identities(impu, binding).find(|own| is_same(own, wish));
        let mut found: Vec<&str> = preferred.iter().filter_map(matching).collect();
        found.dedup_by_key(|identity| is_tel(identity));
        if !found.is_empty() {
            return Some(Speaker { binding, identities: found, was_refused: false });
        }
    }
    let (impu, binding) = registration.bindings.iter().next()?;
    let default = identities(impu, binding).next()?;
    Some(Speaker { binding, identities: vec![default], was_refused: !preferred.is_empty() })
}

/// Takes off what the UE says about itself, and writes what we know.
pub(crate) fn assert(message: &mut Message, identities: &[&str]) {
    disown(message);
    for identity in identities {
        message.push_back(Name::PAssertedIdentity, format_args!("<{identity}>"));
    }
}

/// What a UE says about who it is counts for nothing.
pub(crate) fn disown(message: &mut Message) {
    message.remove(Name::PPreferredIdentity);
    message.remove(Name::PAssertedIdentity);
}

/// In an answer of a UE: it was called by this identity, so that is who answers (TS 24.229 5.2.6.4.4).
pub(crate) fn assert_called(message: &mut Message, called: Option<&str>) {
    disown(message);
    if let Some(called) = called {
        message.push_back(Name::PAssertedIdentity, format_args!("<{called}>"));
    }
}

/// Whether one of the asserted identities of the network is that of a UE here.
pub(crate) fn is_of(registration: &Registration, uri: &str) -> bool {
    let Some(wish) = Uri::parse(uri).ok().and_then(|uri| uri.canonical_identity()) else { return false };
    registration.bindings.iter().any(|(impu, binding)| identities(impu, binding).any(|own| is_same(own, &wish)))
}

/// Those that the S-CSCF said are registered; barred ones are not among them. Without any, the one that was asked for.
fn identities<'r>(impu: &'r Impu, binding: &'r Binding) -> impl Iterator<Item = &'r str> {
    let own = binding.associated.is_empty().then(|| impu.as_str());
    binding.associated.iter().map(|identity| &**identity).chain(own)
}

fn is_same(own: &str, wish: &str) -> bool {
    Uri::parse(own).ok().and_then(|uri| uri.canonical_identity()).is_some_and(|own| own == wish)
}

fn is_tel(identity: &str) -> bool {
    identity.get(..4).is_some_and(|scheme| scheme.eq_ignore_ascii_case("tel:"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contacts::Access;
    use bytes::Bytes;
    use ims_core::{FewSet, Impi, Time, Transport};
    use ims_sip::headers::PAssertedIdentity;
    use std::sync::Arc;

    fn registration(sets: &[(&str, &[&str])]) -> Registration {
        let access = Access::Protected { sets: FewSet::default(), transport: Transport::Udp, conn: None };
        let ue = "192.0.2.7".parse().unwrap();
        let mut r = Registration::attempt(Impi::parse("a@x").unwrap(), "t".into(), ue, access);
        for (impu, associated) in sets {
            let binding = Binding {
                contact: "sip:192.0.2.7".into(),
                reg_id: None,
                service_route: Arc::from([]),
                associated: associated.iter().map(|a| Box::from(*a)).collect(),
                expires: Time::from_secs(1),
            };
            r.bindings.insert(Impu::parse(impu).unwrap(), binding);
        }
        r
    }

    fn says(headers: &str) -> Message {
        let text = format!(
            "INVITE sip:b@x SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bKx\r\n{headers}From: <sip:c@x>;tag=1\r\n\
             To: <sip:b@x>\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n"
        );
        Message::parse(Bytes::from(text)).unwrap()
    }

    #[test]
    fn only_a_registered_identity_is_asserted() {
        let r = registration(&[("sip:a@x", &["sip:a@x", "sip:b@X", "tel:+49301"])]);
        for (said, asserted) in [
            ("", vec!["sip:a@x"]),
            ("P-Preferred-Identity: \"B\" <sip:b@x;user=phone>\r\n", vec!["sip:b@X"]),
            ("P-Preferred-Identity: <tel:+49-30-1>\r\n", vec!["tel:+49301"]),
            ("P-Preferred-Identity: <sip:b@x>, <tel:+49301>\r\n", vec!["sip:b@X", "tel:+49301"]),
            ("P-Preferred-Identity: <sip:b@x>, <sip:a@x>\r\n", vec!["sip:b@X"]),
            ("P-Preferred-Identity: <sip:president@x>\r\n", vec!["sip:a@x"]),
            ("P-Preferred-Identity: <sip:president@x>, <tel:+49301>\r\n", vec!["tel:+49301"]),
            ("P-Asserted-Identity: <sip:b@x>\r\n", vec!["sip:a@x"]),
            ("P-Preferred-Identity: rubbish\r\n", vec!["sip:a@x"]),
        ] {
            let mut m = says(said);
            let speaker = speaker(&m, &r).unwrap();
            assert_eq!(speaker.identities, asserted, "{said}");
            assert_eq!(speaker.was_refused, said.contains("president") && !said.contains("tel"));
            let identities = speaker.identities.clone();
            assert(&mut m, &identities);
            assert!(!m.has(Name::PPreferredIdentity));
            let written: Vec<String> = m.all::<PAssertedIdentity>().unwrap().iter().map(|p| p.uri.into()).collect();
            assert_eq!(written, asserted);
        }
    }

    #[test]
    fn the_binding_of_the_identity_gives_the_route_and_a_barred_identity_is_nobody() {
        let r = registration(&[("sip:001@x", &["sip:a@x"]), ("sip:work@x", &["sip:work@x"])]);
        let m = says("P-Preferred-Identity: <sip:work@x>\r\n");
        assert_eq!(speaker(&m, &r).unwrap().identities, ["sip:work@x"]);
        let m = says("P-Preferred-Identity: <sip:001@x>\r\n");
        assert_eq!(speaker(&m, &r).unwrap().identities, ["sip:a@x"], "the temporary one is barred");
        assert!(is_of(&r, "sip:work@X;x=1") && !is_of(&r, "sip:001@x"));
        let unsaid = registration(&[("sip:a@x", &[])]);
        assert_eq!(speaker(&m, &unsaid).unwrap().identities, ["sip:a@x"]);
    }
}
