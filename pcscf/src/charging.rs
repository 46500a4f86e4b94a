//! Charging headers: an IMS charging identifier for each request, and one for all of a session (TS 24.229 5.2.2, 5.2.6,
//! TS 32.260, RFC 7315 4.6).

use ims_core::Rng;
use ims_sip::headers::PChargingVector;
use ims_sip::{Message, Name};
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};

/// An IMS charging identifier with where it was made: the same in every message of a session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Icid(Box<str>);

impl Icid {
    /// One that nobody else has, made here.
    pub(crate) fn fresh(host: &str, rng: &mut Rng) -> Self {
        Self::made_here(&rng.token(32), host)
    }

    /// That of a dialog, from what never changes in it: whoever asks gets the same, also after a restart. The token of
    /// the registration is known to nobody else, and Call-ID and tag are the UE's for one dialog only.
    pub(crate) fn of_dialog(token: &str, call_id: &str, tag: &str, host: &str) -> Self {
        let half = |n: u8| {
            let mut hasher = DefaultHasher::new();
            (n, token, call_id, tag).hash(&mut hasher);
            hasher.finish()
        };
        Self::made_here(&format!("{:016x}{:016x}", half(0), half(1)), host)
    }

    /// What came with a request from the core.
    pub(crate) fn read(message: &Message) -> Option<(Self, Option<Box<str>>)> {
        let vector = message.first::<PChargingVector<'_>>().ok().flatten()?;
        // What stood in quotes still has its escapes.
        let mut text = format!("icid-value=\"{}\"", vector.icid_value);
        if let Some(host) = vector.icid_generated_at {
            let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'[' | b']' | b':');
            let _ = match !host.is_empty() && host.bytes().all(plain) {
                true => write!(text, ";icid-generated-at={host}"),
                false => write!(text, ";icid-generated-at=\"{host}\""),
            };
        }
        Some((Self(text.into()), vector.orig_ioi.map(Into::into)))
    }

    fn made_here(icid: &str, host: &str) -> Self {
        Self(format!("icid-value=\"{icid}\";icid-generated-at={host}").into())
    }
}

/// Charging headers belong to the network: whatever came with them from outside, or would leave with them, goes.
pub(crate) fn strip(message: &mut Message) {
    message.remove(Name::PChargingVector);
    message.remove(Name::PChargingFunctionAddresses);
}

/// A P-Charging-Vector of our own, with an ICID that nobody else has.
/// `network`: our type 1 orig-ioi, the network that sends it (TS 24.229 5.2.2.1, 4.5.4.1).
pub(crate) fn stamp(message: &mut Message, host: &str, network: &str, rng: &mut Rng) {
    stamp_with(message, &Icid::fresh(host, rng), network);
}

/// The same with the ICID of a session.
pub(crate) fn stamp_with(message: &mut Message, icid: &Icid, network: &str) {
    strip(message);
    message.push_back(Name::PChargingVector, format_args!("{};orig-ioi=\"{network}\"", icid.0));
}

/// In an answer of a UE: the vector of the request, and our type 1 term-ioi.
pub(crate) fn stamp_answer(message: &mut Message, icid: &Icid, orig_ioi: Option<&str>, network: &str) {
    strip(message);
    match orig_ioi {
        Some(ioi) => message
            .push_back(Name::PChargingVector, format_args!("{};orig-ioi=\"{ioi}\";term-ioi=\"{network}\"", icid.0)),
        None => message.push_back(Name::PChargingVector, format_args!("{};term-ioi=\"{network}\"", icid.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn the_icid_of_a_dialog_is_always_the_same_and_that_of_another_is_another() {
        let icid = |token, call, tag| Icid::of_dialog(token, call, tag, "p.example");
        assert_eq!(icid("t", "c", "1"), icid("t", "c", "1"));
        for other in [icid("u", "c", "1"), icid("t", "d", "1"), icid("t", "c", "2")] {
            assert_ne!(icid("t", "c", "1"), other);
        }
    }

    #[test]
    fn what_the_core_wrote_comes_back_in_the_answer() {
        let text = "INVITE sip:b@x SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bKx\r\nFrom: <sip:a@x>;tag=1\r\nTo: <sip:b@x>\r\n\
                    Call-ID: c\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\
                    P-Charging-Vector: icid-value=\"a;b\";icid-generated-at=192.0.2.1;orig-ioi=home.example;x=y\r\n\r\n";
        let mut m = Message::parse(Bytes::from_static(text.as_bytes())).unwrap();
        let (icid, ioi) = Icid::read(&m).unwrap();
        stamp_answer(&mut m, &icid, ioi.as_deref(), "visited.example");
        assert_eq!(
            m.text(Name::PChargingVector),
            Some(
                "icid-value=\"a;b\";icid-generated-at=192.0.2.1;orig-ioi=\"home.example\";term-ioi=\"visited.example\""
            )
        );
    }
}
