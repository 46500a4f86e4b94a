//! Our own requests: where they go, who else can have them, and what becomes of them.

use crate::endpoint::{DiameterEvent, Endpoint, RequestFailure, To};
use crate::message::{Message, result};
use crate::peer::{Peer, State};
use crate::{base, dict};
use ims_core::metrics::Histogram;
use ims_core::{Ctx, LinkId, RequestId, Time};
use std::collections::BTreeMap;

struct Pending {
    message: Message,
    to: To,
    expires: Time,
    /// Where copies are under way. Empty: all connections were lost, and it waits for another.
    copies: Vec<(LinkId, u32)>,
    /// Peers that have had it.
    tried: Vec<u32>,
}

/// Requests without an answer.
#[derive(Default)]
pub(crate) struct Requests {
    pending: BTreeMap<RequestId, Pending>,
    by_hop: BTreeMap<u32, (LinkId, RequestId)>,
    last_id: u64,
    /// From request to answer, by command.
    took: BTreeMap<&'static str, Histogram>,
}

impl Requests {
    pub(crate) fn len(&self) -> usize {
        self.pending.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.by_hop.is_empty()
    }

    pub(crate) fn times(&self) -> impl Iterator<Item = (&'static str, &Histogram)> {
        self.took.iter().map(|(command, took)| (*command, took))
    }

    pub(crate) fn on_link(&self, link: LinkId) -> usize {
        self.by_hop.values().filter(|(l, _)| *l == link).count()
    }

    pub(crate) fn next_expiry(&self) -> Option<Time> {
        self.pending.first_key_value().map(|(_, p)| p.expires)
    }

    fn take(&mut self, id: RequestId) -> Option<Pending> {
        let pending = self.pending.remove(&id)?;
        pending.copies.iter().for_each(|(_, hop)| {
            self.by_hop.remove(hop);
        });
        Some(pending)
    }
}

impl Endpoint {
    /// Sends to the best open peer; on its loss resends with the T bit to the next (RFC 6733 5.5.4). `message` is built
    /// by `cx::*::to_message`. What becomes of it is always told by an event, never before this returns.
    pub fn send_request(&mut self, message: Message, to: &To, ctx: &mut Ctx<'_>) -> RequestId {
        self.requests.last_id += 1;
        let id = RequestId(self.requests.last_id);
        let failure = if self.requests.len() >= self.local.config.max_pending {
            Some(RequestFailure::Busy)
        } else if self.choose(to, message.application(), &[]).is_none() {
            Some(RequestFailure::NoPeer)
        } else {
            None
        };
        if let Some(cause) = failure {
            self.events.push_back(DiameterEvent::Failed { id, cause });
            return id;
        }
        let expires = ctx.now + self.local.config.request_timeout;
        let message = self.addressed(&message, to, ctx);
        let pending = Pending { message, to: to.clone(), expires, copies: Vec::new(), tried: Vec::new() };
        self.requests.pending.insert(id, pending);
        self.send_copy(id, ctx);
        id
    }

    /// With Session-Id, our name, and where it goes (RFC 6733 6.1).
    fn addressed(&mut self, message: &Message, to: &To, ctx: &mut Ctx<'_>) -> Message {
        let session = match message.avps().first(&dict::SESSION_ID) {
            Some(_) => None,
            None => Some(self.local.next_session(ctx)),
        };
        let config = &self.local.config;
        let mut message = message.with_routing(|w| {
            if let Some(session) = session {
                w.utf8(&dict::SESSION_ID, &session);
            }
            base::origin(w, config);
            w.utf8(&dict::DESTINATION_REALM, &to.realm);
            if let Some(host) = &to.host {
                w.utf8(&dict::DESTINATION_HOST, host);
            }
        });
        message.end_to_end = self.local.next_end_to_end(ctx);
        message
    }

    /// The best peer for it: one that is well, the host itself, one of the realm, a relay, in the configured order.
    fn choose(&self, to: &To, application: u32, tried: &[u32]) -> Option<(u32, LinkId)> {
        let usable = |peer: &&Peer| {
            let reaches = to.host.as_ref().is_none_or(|host| peer.is_host(host) || peer.is_relay());
            peer.state == State::Open && peer.speaks(application) && reaches && !tried.contains(&peer.key)
        };
        let distance = |peer: &Peer| match &to.host {
            Some(host) if peer.is_host(host) => 0,
            _ if peer.is_realm(&to.realm) => 1,
            _ if peer.is_relay() => 2,
            _ => 3,
        };
        let best = self.peers.values().filter(usable).min_by_key(|peer| (peer.watchdog, distance(peer), peer.key))?;
        Some((best.key, best.link()?))
    }

    /// To the best peer that has not had it yet; if there is none, to one that has, but only when no copy is under way.
    fn send_copy(&mut self, id: RequestId, ctx: &mut Ctx<'_>) -> bool {
        let Some(pending) = self.requests.pending.get(&id) else {
            return false;
        };
        let application = pending.message.application();
        let fresh = self.choose(&pending.to, application, &pending.tried);
        let chosen = match fresh {
            None if pending.copies.is_empty() => self.choose(&pending.to, application, &[]),
            other => other,
        };
        let Some((key, link)) = chosen else { return false };
        let hop_by_hop = self.local.next_hop_by_hop(ctx);
        let Some(pending) = self.requests.pending.get_mut(&id) else {
            return false;
        };
        pending.message.hop_by_hop = hop_by_hop;
        pending.copies.push((link, hop_by_hop));
        pending.tried.push(key);
        self.requests.by_hop.insert(hop_by_hop, (link, id));
        self.local.send(link, &pending.message, ctx);
        true
    }

    /// The peer on this link is suspect, or the link is gone: its requests go elsewhere with the T bit (RFC 6733 5.5.4).
    pub(crate) fn fail_over(&mut self, link: LinkId, gone: bool, ctx: &mut Ctx<'_>) {
        let on_link = |p: &Pending| p.copies.iter().any(|(l, _)| *l == link);
        let moved: Vec<RequestId> =
            self.requests.pending.iter().filter(|(_, p)| on_link(p)).map(|(id, _)| *id).collect();
        if !moved.is_empty() {
            tracing::info!(requests = moved.len(), "Diameter requests go to another peer");
        }
        for id in moved {
            if let Some(pending) = self.requests.pending.get_mut(&id) {
                pending.message.set_retransmitted();
                if gone {
                    for (_, hop) in pending.copies.extract_if(.., |(l, _)| *l == link) {
                        self.requests.by_hop.remove(&hop);
                    }
                }
            }
            self.send_copy(id, ctx);
        }
    }

    /// A peer can be used again: what lost its connection goes there.
    pub(crate) fn send_stranded(&mut self, ctx: &mut Ctx<'_>) {
        let stranded = self.requests.pending.iter().filter(|(_, p)| p.copies.is_empty()).map(|(id, _)| *id);
        for id in stranded.collect::<Vec<_>>() {
            self.send_copy(id, ctx);
        }
    }

    /// An answer to a request of ours; anything else is counted and dropped.
    pub(crate) fn on_answer(&mut self, link: LinkId, message: Message, ctx: &mut Ctx<'_>) {
        let Some((_, id)) = self.requests.by_hop.get(&message.hop_by_hop).copied().filter(|(l, _)| *l == link) else {
            return self.local.counters.refuse("late-answer");
        };
        let asked = self.requests.pending.get(&id).map(|p| (p.message.command(), p.message.end_to_end));
        if asked != Some((message.command(), message.end_to_end)) {
            return self.local.counters.refuse("wrong-answer");
        }
        if self.try_elsewhere(link, id, &message, ctx) {
            return;
        }
        if let Some(asked) = self.requests.take(id) {
            let command = dict::command_name(asked.message.command(), true).unwrap_or("other");
            let begun = asked.expires - self.local.config.request_timeout;
            self.requests.took.entry(command).or_insert_with(Histogram::long).observe(ctx.now.since(begun));
        }
        self.events.push_back(DiameterEvent::Answer { id, message });
    }

    /// A peer that cannot deliver or is too busy is not the last word while another has not been asked (RFC 6733 7.1.3).
    fn try_elsewhere(&mut self, link: LinkId, id: RequestId, answer: &Message, ctx: &mut Ctx<'_>) -> bool {
        let code = answer.avps().first(&dict::RESULT_CODE).and_then(|a| a.u32().ok());
        if !answer.is_error() || !matches!(code, Some(result::UNABLE_TO_DELIVER | result::TOO_BUSY)) {
            return false;
        }
        let Some(pending) = self.requests.pending.get_mut(&id) else {
            return false;
        };
        let others = self.peers.values().filter(|p| !pending.tried.contains(&p.key)).count();
        if others == 0 || !self.send_copy(id, ctx) {
            return false;
        }
        if let Some(pending) = self.requests.pending.get_mut(&id) {
            pending.copies.retain(|(l, hop)| *l != link || *hop != answer.hop_by_hop);
            self.requests.by_hop.remove(&answer.hop_by_hop);
        }
        true
    }

    /// An answer that does not parse ends the request at once: no better one will come.
    pub(crate) fn on_broken_answer(&mut self, link: LinkId, hop_by_hop: u32) {
        if let Some((_, id)) = self.requests.by_hop.get(&hop_by_hop).copied().filter(|(l, _)| *l == link) {
            self.requests.take(id);
            self.events.push_back(DiameterEvent::Failed { id, cause: RequestFailure::Timeout });
        }
    }

    pub(crate) fn expire_requests(&mut self, now: Time) {
        while let Some((id, _)) = self.requests.pending.first_key_value().filter(|(_, p)| p.expires <= now) {
            let id = *id;
            self.requests.take(id);
            self.local.counters.refuse("no-answer-in-time");
            self.events.push_back(DiameterEvent::Failed { id, cause: RequestFailure::Timeout });
        }
    }
}
