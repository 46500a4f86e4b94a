//! What all connections of an endpoint share: who we are, fresh identifiers, and the counters.

use crate::Message;
use crate::base;
use crate::config::EndpointConfig;
use crate::cx::ResultCode;
use crate::dict;
use ims_core::metrics::{Samples, catalogue};
use ims_core::{Action, Ctx, LinkId, Time};
use std::collections::BTreeMap;

pub(crate) struct Local {
    pub(crate) config: EndpointConfig,
    /// Origin-State-Id: when we started, so it rises with every start (RFC 6733 8.16).
    pub(crate) state_id: u32,
    ids: Option<Ids>,
    pub(crate) counters: Counters,
}

struct Ids {
    hop_by_hop: u32,
    end_to_end: u32,
    session: u64,
}

impl Ids {
    /// End-to-end identifiers begin with 12 bits of the time, then 20 random ones (RFC 6733 3).
    fn new(ctx: &mut Ctx<'_>) -> Self {
        let start = low_half(ctx.now.secs());
        let (hop_by_hop, random) = (ctx.rng.u32(), ctx.rng.u32());
        Self { hop_by_hop, end_to_end: start << 20 | random >> 12, session: u64::from(start) << 32 }
    }
}

fn low_half(n: u64) -> u32 {
    u32::try_from(n & 0xffff_ffff).unwrap_or(0)
}

impl Local {
    pub(crate) fn new(config: EndpointConfig) -> Self {
        Self { config, state_id: 0, ids: None, counters: Counters::default() }
    }

    /// Once, before the first message.
    pub(crate) fn started(&mut self, now: Time) {
        if self.state_id == 0 {
            self.state_id = low_half(now.secs()).max(1);
        }
    }

    fn ids(&mut self, ctx: &mut Ctx<'_>) -> &mut Ids {
        self.ids.get_or_insert_with(|| Ids::new(ctx))
    }

    pub(crate) fn next_hop_by_hop(&mut self, ctx: &mut Ctx<'_>) -> u32 {
        let ids = self.ids(ctx);
        ids.hop_by_hop = ids.hop_by_hop.wrapping_add(1);
        ids.hop_by_hop
    }

    pub(crate) fn next_end_to_end(&mut self, ctx: &mut Ctx<'_>) -> u32 {
        let ids = self.ids(ctx);
        ids.end_to_end = ids.end_to_end.wrapping_add(1);
        ids.end_to_end
    }

    /// `host;high;low` (RFC 6733 8.8).
    pub(crate) fn next_session(&mut self, ctx: &mut Ctx<'_>) -> String {
        let ids = self.ids(ctx);
        ids.session = ids.session.wrapping_add(1);
        let (high, low) = (ids.session >> 32, low_half(ids.session));
        format!("{};{high};{low}", self.config.origin_host)
    }

    /// Sends a request of the base protocol under fresh identifiers.
    pub(crate) fn ask(&mut self, link: LinkId, mut request: Message, ctx: &mut Ctx<'_>) {
        request.hop_by_hop = self.next_hop_by_hop(ctx);
        request.end_to_end = self.next_end_to_end(ctx);
        self.send(link, &request, ctx);
    }

    pub(crate) fn send(&mut self, link: LinkId, message: &Message, ctx: &mut Ctx<'_>) {
        self.counters.count(Direction::Sent, message);
        ctx.act(Action::SendDiameter { link, bytes: message.to_bytes() });
    }

    /// An answer made from a request, with our name in it.
    pub(crate) fn signed(&self, answer: Message) -> Message {
        if answer.avps().first(&dict::ORIGIN_HOST).is_some() {
            return answer;
        }
        answer.with_routing(|w| base::origin(w, &self.config))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Direction {
    Sent,
    Received,
}

/// Messages by direction, command and result; bounded, since peers choose results.
#[derive(Default)]
pub(crate) struct Counters {
    messages: BTreeMap<(Direction, &'static str, Option<ResultCode>), u64>,
    refusals: BTreeMap<&'static str, u64>,
}

const MAX_COUNTERS: usize = 256;

impl Counters {
    pub(crate) fn count(&mut self, direction: Direction, m: &Message) {
        let name = dict::command_name(m.command(), m.is_request()).unwrap_or("other");
        let result = if m.is_request() { None } else { ResultCode::from_message(m).ok() };
        let key = (direction, name, result);
        let full = self.messages.len() >= MAX_COUNTERS && !self.messages.contains_key(&key);
        let key = if full { (direction, "other", None) } else { key };
        *self.messages.entry(key).or_default() += 1;
    }

    /// Something that a peer sent was not accepted; `what` is one of our own fixed names.
    pub(crate) fn refuse(&mut self, what: &'static str) {
        *self.refusals.entry(what).or_default() += 1;
    }

    pub(crate) fn metrics(&self, out: &mut Samples) {
        for ((direction, command, result), n) in &self.messages {
            let direction = match direction {
                Direction::Sent => "sent",
                Direction::Received => "received",
            };
            let result = match result {
                Some(ResultCode::Base(code)) => code.to_string(),
                Some(ResultCode::Experimental(code)) => format!("experimental-{code}"),
                None if command.ends_with('R') => "request".into(),
                None => "none".into(),
            };
            out.count(&catalogue::DIAMETER_MESSAGES, &[direction, command, &result], *n);
        }
        out.counts(&catalogue::DIAMETER_REFUSALS, &self.refusals);
    }

    /// `{"sent": {"MAR": 1, ...}, "received": {"MAA 2001": 1, ...}, "refusals": {...}}`
    pub(crate) fn snapshot(&self) -> serde_json::Value {
        let side = |wanted: Direction| {
            let of_side = self.messages.iter().filter(|((direction, ..), _)| *direction == wanted);
            of_side.map(|((_, name, result), n)| (label(name, *result), (*n).into())).collect::<serde_json::Map<_, _>>()
        };
        serde_json::json!({
            "sent": side(Direction::Sent), "received": side(Direction::Received), "refusals": self.refusals,
        })
    }
}

fn label(name: &str, result: Option<ResultCode>) -> String {
    match result {
        None => name.into(),
        Some(ResultCode::Base(code)) => format!("{name} {code}"),
        Some(ResultCode::Experimental(code)) => format!("{name} experimental {code}"),
    }
}
