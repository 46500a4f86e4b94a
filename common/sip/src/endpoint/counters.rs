//! What the endpoint counts, for the snapshot.

use crate::{Message, Method};
use ims_core::Time;
use ims_core::metrics::{Samples, catalogue};
use ims_core::time::PerSecond;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// How many refusals a second are told as events.
const TOLD_A_SECOND: u32 = 10;

pub(super) struct Counters {
    received: BTreeMap<(&'static str, u16), u64>,
    sent: BTreeMap<(&'static str, u16), u64>,
    /// Messages that we sent again.
    pub(super) resent: u64,
    /// Repetitions that we received.
    pub(super) repeated: u64,
    /// Requests sent to another target, because the one before failed.
    pub(super) failed_over: u64,
    refused: BTreeMap<u16, u64>,
    malformed: u64,
    dropped: BTreeMap<&'static str, u64>,
    told: PerSecond,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            received: BTreeMap::new(),
            sent: BTreeMap::new(),
            resent: 0,
            repeated: 0,
            failed_over: 0,
            refused: BTreeMap::new(),
            malformed: 0,
            dropped: BTreeMap::new(),
            told: PerSecond::new(TOLD_A_SECOND),
        }
    }
}

impl Counters {
    pub(super) fn received(&mut self, message: &Message) {
        count(&mut self.received, kind(message));
    }

    pub(super) fn sent(&mut self, message: &Message) {
        count(&mut self.sent, kind(message));
    }

    pub(super) fn dropped(&mut self, why: &'static str) {
        *self.dropped.entry(why).or_default() += 1;
    }

    pub(super) fn malformed(&self) -> u64 {
        self.malformed
    }

    /// Whether the node is to be told.
    pub(super) fn refused(&mut self, status: u16, now: Time) -> bool {
        *self.refused.entry(status).or_default() += 1;
        // What is refused for want of room is not its sender's fault.
        self.malformed += u64::from(status != 503);
        self.told.lets(now)
    }

    pub(super) fn metrics(&self, out: &mut Samples) {
        for (direction, counts) in [("received", &self.received), ("sent", &self.sent)] {
            for ((method, status), n) in counts {
                let status = match status {
                    0 => "request".to_owned(),
                    700.. => "other".to_owned(),
                    status => status.to_string(),
                };
                out.count(&catalogue::SIP_MESSAGES, &[direction, method, &status], *n);
            }
        }
        out.count(&catalogue::SIP_RETRANSMISSIONS, &["sent"], self.resent);
        out.count(&catalogue::SIP_RETRANSMISSIONS, &["received"], self.repeated);
        out.count(&catalogue::SIP_FAILOVERS, &[], self.failed_over);
        for (status, n) in &self.refused {
            let status = if *status == 0 { "none".to_owned() } else { status.to_string() };
            out.count(&catalogue::SIP_REFUSED, &[&status], *n);
        }
        out.counts(&catalogue::SIP_DROPPED, &self.dropped);
    }

    pub(super) fn snapshot(&self) -> Value {
        let spell = |counts: &BTreeMap<(&'static str, u16), u64>| -> Map<String, Value> {
            let name = |(method, status): &(&str, u16)| match status {
                0 => (*method).to_owned(),
                _ => format!("{method} {status}"),
            };
            counts.iter().map(|(k, n)| (name(k), json!(n))).collect()
        };
        let refused: Map<String, Value> = self.refused.iter().map(|(k, n)| (k.to_string(), json!(n))).collect();
        json!({
            "received": spell(&self.received),
            "sent": spell(&self.sent),
            "retransmissions": { "sent": self.resent, "received": self.repeated },
            "failovers": self.failed_over,
            "refused": refused,
            "dropped": self.dropped,
        })
    }
}

/// So many kinds are told apart; peers may invent six hundred statuses for each method.
const MOST_KINDS: usize = 256;

fn count(counts: &mut BTreeMap<(&'static str, u16), u64>, kind: (&'static str, u16)) {
    let full = counts.len() >= MOST_KINDS && !counts.contains_key(&kind);
    *counts.entry(if full { ("other", 700) } else { kind }).or_default() += 1;
}

/// Methods and statuses make a small closed set here, whatever peers invent.
fn kind(message: &Message) -> (&'static str, u16) {
    let method = match message.method() {
        Method::Register => "REGISTER",
        Method::Invite => "INVITE",
        Method::Ack => "ACK",
        Method::Cancel => "CANCEL",
        Method::Bye => "BYE",
        Method::Options => "OPTIONS",
        Method::Prack => "PRACK",
        Method::Update => "UPDATE",
        Method::Info => "INFO",
        Method::Message => "MESSAGE",
        Method::Subscribe => "SUBSCRIBE",
        Method::Notify => "NOTIFY",
        Method::Publish => "PUBLISH",
        Method::Refer => "REFER",
        Method::Other(_) => "other",
    };
    (method, message.status().min(700))
}
