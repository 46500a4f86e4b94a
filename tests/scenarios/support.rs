//! What several scenarios need.

use ims_core::command::Problem;
use ims_sip::{Message, Name};
use ims_tests::{Sent, Verdict};
use serde_json::Value;

/// The cause that a handset gives for a failed procedure.
pub(crate) fn cause(answer: &Result<Value, Problem>) -> &str {
    answer.as_ref().err().map_or("none", |p| p.kind.as_str())
}

/// A filter that loses the datagram with this number (from 0) among those that a handset sends or gets.
pub(crate) fn lose_gm_packet(number: usize) -> impl FnMut(&Sent<'_>) -> Verdict {
    let mut seen = 0;
    move |sent| {
        if !sent.from.starts_with("ue") && !sent.to.starts_with("ue") {
            return Verdict::Pass;
        }
        seen += 1;
        if seen - 1 == number { Verdict::Lose } else { Verdict::Pass }
    }
}

/// A filter that lets a test rewrite messages on one hop.
pub(crate) fn rewrite(
    from: &'static str,
    to: &'static str,
    change: impl Fn(&mut Message),
) -> impl FnMut(&Sent<'_>) -> Verdict {
    move |sent| {
        if sent.from != from || sent.to != to {
            return Verdict::Pass;
        }
        let Ok(mut message) = Message::parse(sent.bytes.clone()) else { return Verdict::Pass };
        change(&mut message);
        Verdict::Replace(message.to_bytes())
    }
}

/// Status of every response on the way to handsets, in order.
pub(crate) fn statuses_to_handsets(lab: &ims_tests::Lab) -> Vec<u16> {
    let handset = |id| lab.world.is_handset(id);
    let entries = lab.world.trace.iter().filter(|e| e.to.is_some_and(handset));
    let sip = entries.filter_map(|e| match &e.what {
        ims_tests::What::Sip { bytes, .. } => Message::parse(bytes.clone()).ok(),
        _ => None,
    });
    sip.filter(|m| !m.is_request()).map(|m| m.status()).collect()
}

/// Text of a header in the last message from one node to another.
pub(crate) fn last_header(lab: &ims_tests::Lab, from: &str, to: &str, name: Name) -> Option<String> {
    let sent = |e: &&ims_tests::Entry| lab.world.name(e.from) == from && e.to.is_some_and(|t| lab.world.name(t) == to);
    lab.world.trace.iter().rev().filter(sent).find_map(|e| match &e.what {
        ims_tests::What::Sip { bytes, .. } => Message::parse(bytes.clone()).ok()?.text(name).map(str::to_owned),
        _ => None,
    })
}
