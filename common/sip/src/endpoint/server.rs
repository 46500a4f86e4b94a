//! The server side: requests that come in, and our answers to them.

use super::identity::Identity;
use super::via::{self, Ways};
use super::{ClientFailure, Endpoint, Key, Leg, ServerTx, SipEvent, tag_of};
use crate::headers::To;
use crate::transaction::{InviteServer, Server, ServerDue, invite_server};
use crate::{Message, Method, Name};
use bytes::Bytes;
use ims_core::{ConnId, Ctx, Flow, FlowError, Time, Transport};
use smallvec::SmallVec;
use std::time::Duration;

/// For how long the node may take to answer. Both are far beyond what a client waits.
const PATIENCE: Duration = Duration::from_secs(300);
const INVITE_PATIENCE: Duration = Duration::from_secs(600);
/// Transactions that may share a branch: a request, its CANCEL, and clients that repeat themselves.
const MAX_SAME_BRANCH: usize = 8;

enum Machine {
    Invite(InviteServer),
    Other(Server),
}

/// A server transaction with all that belongs to it.
pub(super) struct ServerSlot {
    machine: Machine,
    identity: Identity,
    ways: Ways,
    /// The connection that is gone.
    gone: Option<ConnId>,
    /// The last answer.
    last: Option<Bytes>,
    /// The INVITE, as long as we may have to say 100.
    invite: Option<Box<Message>>,
    /// The To tag of our answers.
    to_tag: Option<String>,
    /// A CANCEL: the node does not know it.
    internal: bool,
    lingers: bool,
    armed: Option<Time>,
}

impl ServerSlot {
    fn is_invite(&self) -> bool {
        matches!(self.machine, Machine::Invite(_))
    }

    fn deadline(&self) -> Option<Time> {
        match &self.machine {
            Machine::Invite(m) => m.deadline(),
            Machine::Other(m) => m.deadline(),
        }
    }

    fn on_repeated(&self) -> bool {
        match &self.machine {
            Machine::Invite(m) => m.on_repeated(),
            Machine::Other(m) => m.on_repeated(),
        }
    }

    /// A final answer has been given.
    fn is_answered(&self) -> bool {
        match &self.machine {
            Machine::Invite(m) => m.state() != invite_server::State::Proceeding,
            Machine::Other(m) => m.state() == crate::transaction::server::State::Completed,
        }
    }
}

impl Endpoint {
    /// `outward`: where answers leave when the request came in over an SA.
    pub(super) fn on_request(&mut self, mut message: Message, flow: Flow, outward: Option<Flow>, ctx: &mut Ctx<'_>) {
        self.counters.received(&message);
        let checked = message.check();
        let Some(mut ways) = via::note_received(&mut message, &flow) else {
            return self.refuse(flow, 400, "the topmost Via cannot be read: no answer is possible".into());
        };
        ways.fallback = ways.fallback.filter(|_| self.leg_of(&flow) == Leg::Core);
        if let Some(outward) = outward {
            ways.turn(outward);
        }
        if let Err(error) = checked {
            self.answer_statelessly(&message, error.status(), 0, ways.reply, ctx);
            return self.refuse(flow, error.status(), error.to_string());
        }
        let Some(identity) = self.prints.identity(&message) else {
            return self.refuse(flow, 400, "the transaction cannot be told from Via, From and CSeq".into());
        };
        if message.method() == Method::Ack {
            return self.on_ack(message, flow, &identity, ctx);
        }
        if let Some(id) = self.find(&identity) {
            return self.on_repeated(id, &flow, ctx);
        }
        if let Some(id) = self.finished.find(identity.print()) {
            return self.on_repeated_late(id, ctx);
        }
        if self.is_full(&identity) {
            let wait = 5 + ctx.rng.below(10);
            self.answer_statelessly(&message, 503, wait, ways.reply, ctx);
            let reason = "too many transactions are open: raise max_transactions or add a node";
            return self.refuse(flow, 503, reason.into());
        }
        if message.method() == Method::Cancel {
            return self.on_cancel(message, ways, identity, ctx);
        }
        let tx = ServerTx(self.open(&message, ways, identity, ctx.now));
        self.events.push_back(SipEvent::Request { tx, message, flow });
    }

    fn is_full(&self, identity: &Identity) -> bool {
        let same = self.branches.get(&identity.branch).map_or(0, SmallVec::len);
        same >= MAX_SAME_BRANCH || self.servers.len() - self.lingering.servers >= self.config.max_transactions
    }

    fn open(&mut self, message: &Message, ways: Ways, identity: Identity, now: Time) -> u64 {
        let (id, timers) = (self.fresh_id(), self.timers_of(self.leg_of(&ways.flow)));
        let (reliable, method) = (ways.flow.transport.is_reliable(), message.method());
        let is_invite = method == Method::Invite;
        let machine = if is_invite {
            Machine::Invite(InviteServer::start(timers, reliable, INVITE_PATIENCE, now))
        } else {
            Machine::Other(Server::start(timers, reliable, PATIENCE, now))
        };
        self.branches.entry(identity.branch).or_default().push(id);
        let slot = ServerSlot {
            machine,
            identity,
            ways,
            gone: None,
            last: None,
            invite: is_invite.then(|| Box::new(message.clone())),
            to_tag: None,
            internal: method == Method::Cancel,
            lingers: false,
            armed: None,
        };
        self.servers.insert(id, slot);
        self.bind(&ways.reply, Key::Server(id));
        self.settle_server(id);
        id
    }

    fn find(&self, identity: &Identity) -> Option<u64> {
        let same = self.branches.get(&identity.branch)?;
        let fits = |slot: &ServerSlot| slot.identity == *identity;
        same.iter().copied().find(|id| self.servers.get(id).is_some_and(fits))
    }

    /// The INVITE that an ACK or CANCEL belongs to. Phones change sent-by between the two: then the branch, unique
    /// by itself, and the address that it comes from are enough.
    fn find_invite(&self, identity: &Identity, flow: &Flow) -> Option<u64> {
        if let Some(id) = self.find(&self.prints.with_method(identity, Method::Invite)) {
            return Some(id);
        }
        let same = self.branches.get(&identity.branch).filter(|_| identity.modern)?;
        let fits = |slot: &ServerSlot| slot.is_invite() && slot.ways.flow.remote.ip() == flow.remote.ip();
        same.iter().copied().find(|id| self.servers.get(id).is_some_and(fits))
    }

    /// Open, or answered a while ago.
    pub(super) fn find_transaction(&self, request: &Message) -> Option<u64> {
        let identity = self.prints.identity(request)?;
        self.find(&identity).or_else(|| self.finished.find(identity.print()))
    }

    fn on_repeated(&mut self, id: u64, flow: &Flow, ctx: &mut Ctx<'_>) {
        self.counters.repeated += 1;
        let Some(slot) = self.servers.get_mut(&id) else { return };
        // The client lost its connection and asks again on a new one: answers go there now.
        let moved = slot.ways.reply.transport == Transport::Tcp
            && flow.transport == Transport::Tcp
            && flow.remote.ip() == slot.ways.flow.remote.ip()
            && flow.conn != slot.ways.reply.conn;
        if moved {
            let old = std::mem::replace(&mut slot.ways.reply, *flow);
            slot.gone = old.conn;
            self.unbind(&old, Key::Server(id));
            self.bind(flow, Key::Server(id));
        }
        if self.servers.get(&id).is_some_and(ServerSlot::on_repeated) {
            self.repeat_answer(id, ctx);
        }
    }

    /// The same request again after its final answer, over UDP.
    fn on_repeated_late(&mut self, id: u64, ctx: &mut Ctx<'_>) {
        self.counters.repeated += 1;
        self.repeat_answer(id, ctx);
    }

    fn repeat_answer(&mut self, id: u64, ctx: &mut Ctx<'_>) {
        let open = self.servers.get(&id).and_then(|s| Some((s.ways.reply, s.last.clone()?)));
        let Some((reply, last)) = open.or_else(|| self.finished.answer(id)) else { return };
        self.counters.resent += 1;
        self.send(reply, last, tag_of(Key::Server(id)), ctx);
    }

    fn on_ack(&mut self, message: Message, flow: Flow, identity: &Identity, ctx: &mut Ctx<'_>) {
        if let Some(id) = self.find_invite(identity, &flow) {
            let Some(Machine::Invite(machine)) = self.servers.get_mut(&id).map(|slot| &mut slot.machine) else {
                return;
            };
            let for_the_node = machine.on_ack(ctx.now);
            self.settle_server(id);
            if !for_the_node {
                return;
            }
        }
        self.events.push_back(SipEvent::Ack { message, flow });
    }

    /// RFC 3261 9.2 and 16.10: the CANCEL is answered at once, what becomes of the INVITE is up to the node.
    fn on_cancel(&mut self, message: Message, ways: Ways, identity: Identity, ctx: &mut Ctx<'_>) {
        let flow = ways.flow;
        let invite = self.find_invite(&identity, &flow);
        let id = self.open(&message, ways, identity, ctx.now);
        let Some(slot) = invite.and_then(|id| self.servers.get_mut(&id)) else {
            let tag = ctx.rng.token(12);
            self.respond(ServerTx(id), Message::response(&message, 481, Some(&tag)), ctx);
            return;
        };
        // RFC 3261 9.2: the To tag is that of the answers to the INVITE.
        let tag = slot.to_tag.get_or_insert_with(|| ctx.rng.token(12)).clone();
        let (pending, forced) = (!slot.is_answered(), slot.ways.forced.then_some(slot.ways.reply));
        if let Some(forced) = forced.filter(|f| f.transport == flow.transport && !f.transport.is_reliable()) {
            self.set_reply_flow(ServerTx(id), forced);
        }
        self.respond(ServerTx(id), Message::response(&message, 200, Some(&tag)), ctx);
        if let Some(invite) = invite.filter(|_| pending) {
            self.events.push_back(SipEvent::Cancel { invite: ServerTx(invite), message, flow });
        }
    }

    /// Answers: provisional or final. Goes where RFC 3261 18.2.2 and RFC 3581 say, or by `set_reply_flow`.
    pub fn respond(&mut self, tx: ServerTx, response: Message, ctx: &mut Ctx<'_>) {
        self.wake(ctx);
        let (key, status) = (Key::Server(tx.0), response.status());
        let Some(slot) = self.servers.get_mut(&tx.0) else {
            return self.counters.dropped("late-answer");
        };
        let wanted = match &mut slot.machine {
            Machine::Invite(m) => m.on_answer(status, ctx.now),
            Machine::Other(m) => m.on_answer(status, ctx.now),
        };
        if !wanted {
            return self.counters.dropped("late-answer");
        }
        if slot.is_invite() && status > 100 && slot.to_tag.is_none() {
            slot.to_tag = response.first::<To<'_>>().ok().flatten().and_then(|to| to.tag().map(str::to_owned));
        }
        if slot.is_answered() || status > 100 {
            slot.invite = None;
        }
        let (reply, bytes) = (slot.ways.reply, response.to_bytes());
        // A 2xx to INVITE is repeated by whoever gave it (RFC 6026): ours is kept for another way back only.
        let is_over = slot.is_invite() && slot.is_answered() && (200..300).contains(&status);
        slot.last = (!is_over || slot.ways.fallback.is_some()).then(|| bytes.clone());
        self.counters.sent(&response);
        self.send(reply, bytes, tag_of(key), ctx);
        self.settle_server(tx.0);
    }

    /// All answers of this transaction, retransmissions too, leave on this flow (the P-CSCF inside an SA: UDP answers
    /// go port_pc -> port_us). For a request that came by TCP, a TCP flow without `conn` is where the answers go once
    /// its connection is gone (port_pc -> port_us); until then they return on the connection (RFC 3261 18.2.2).
    pub fn set_reply_flow(&mut self, tx: ServerTx, flow: Flow) {
        let Some(slot) = self.servers.get_mut(&tx.0) else {
            return;
        };
        let old = slot.ways.turn(flow);
        let new = slot.ways.reply;
        self.unbind(&old, Key::Server(tx.0));
        self.bind(&new, Key::Server(tx.0));
    }

    /// Without a transaction: the same request gets the same answer, tag included (RFC 3261 8.2.7).
    pub(super) fn answer_statelessly(
        &mut self,
        request: &Message,
        status: u16,
        wait: u64,
        reply: Flow,
        ctx: &mut Ctx<'_>,
    ) {
        let present = [Name::From, Name::To, Name::CallId, Name::CSeq].iter().all(|name| request.has(*name));
        if request.method() == Method::Ack || !present {
            return;
        }
        let tag = format!("{}{:x}", self.mark, fnv(request.raw(Name::Via).next().unwrap_or_default()));
        let mut response = Message::response(request, status, Some(&tag));
        if status == 503 {
            response.set(Name::RetryAfter, wait);
        }
        self.counters.sent(&response);
        self.send(reply, response.to_bytes(), ims_core::SendTag(0), ctx);
    }

    pub(super) fn on_server_due(&mut self, id: u64, ctx: &mut Ctx<'_>) {
        let Some(slot) = self.servers.get_mut(&id) else { return };
        slot.armed = None;
        let due = match &mut slot.machine {
            Machine::Invite(m) => m.on_timer(ctx.now),
            Machine::Other(m) => m.on_timer(ctx.now),
        };
        match due {
            ServerDue::Trying => {
                if let Some(invite) = slot.invite.take() {
                    self.respond(ServerTx(id), Message::response(&invite, 100, None), ctx);
                }
            }
            ServerDue::Resend => self.repeat_answer(id, ctx),
            ServerDue::Unacknowledged | ServerDue::Unanswered => self.lose(id, ClientFailure::Timeout),
            ServerDue::Ended => self.free_server(id),
            ServerDue::Nothing => {}
        }
        self.settle_server(id);
    }

    pub(super) fn on_answer_failed(&mut self, id: u64, flow: Flow, error: FlowError, ctx: &mut Ctx<'_>) {
        let Some(slot) = self.servers.get_mut(&id) else {
            if error != FlowError::QueueFull && self.finished.remove(id) {
                let cause = ClientFailure::Transport(error);
                self.events.push_back(SipEvent::Undelivered { tx: ServerTx(id), cause });
            }
            return;
        };
        // A full queue is a lost datagram; an answer that has since moved on to another connection is not lost.
        let stale = flow.transport != slot.ways.reply.transport || flow.conn.is_some() && flow.conn == slot.gone;
        if stale || error == FlowError::QueueFull && !flow.transport.is_reliable() {
            return;
        }
        if let Some(fallback) = slot.ways.fallback.take() {
            let old = std::mem::replace(&mut slot.ways.reply, fallback);
            slot.gone = old.conn;
            self.unbind(&old, Key::Server(id));
            self.repeat_answer(id, ctx);
        } else if slot.is_answered() {
            self.lose(id, ClientFailure::Transport(error));
        }
    }

    pub(super) fn on_connection_lost(&mut self, id: u64) {
        if let Some(slot) = self.servers.get_mut(&id)
            && let Some(fallback) = slot.ways.fallback.take()
        {
            slot.gone = slot.ways.reply.conn;
            slot.ways.reply = fallback;
        }
    }

    fn lose(&mut self, id: u64, cause: ClientFailure) {
        if self.servers.get(&id).is_some_and(|slot| !slot.internal) {
            self.events.push_back(SipEvent::Undelivered { tx: ServerTx(id), cause });
        }
        self.free_server(id);
    }

    fn settle_server(&mut self, id: u64) {
        let now = self.now;
        let Some(slot) = self.servers.get_mut(&id) else { return };
        let deadline = slot.deadline();
        // Timer I is zero on a reliable transport.
        if slot.is_answered() && deadline.is_some_and(|at| at <= now) {
            return self.free_server(id);
        }
        if slot.is_answered() && !slot.is_invite() {
            if !slot.ways.reply.transport.is_reliable() && !slot.internal {
                return self.finish(id);
            }
            if !slot.lingers {
                slot.lingers = true;
                self.linger(Key::Server(id));
            }
        }
        if let Some(slot) = self.servers.get_mut(&id) {
            Self::arm(&mut self.timers, &mut slot.armed, deadline, Key::Server(id));
        }
    }

    /// From now on it only repeats its answer.
    fn finish(&mut self, id: u64) {
        let Some(slot) = self.take_server(id) else { return };
        let (Some(end_at), Some(answer)) = (slot.deadline(), &slot.last) else { return };
        let leg = self.leg_of(&slot.ways.flow);
        self.finished.insert(id, slot.identity.print(), (leg, slot.ways.reply), answer, end_at);
        self.finished.expire(self.now, self.most_finished());
    }

    pub(super) fn free_server(&mut self, id: u64) {
        self.take_server(id);
    }

    fn take_server(&mut self, id: u64) -> Option<ServerSlot> {
        let mut slot = self.servers.remove(&id)?;
        Self::arm(&mut self.timers, &mut slot.armed, None, Key::Server(id));
        self.lingering.servers -= usize::from(slot.lingers);
        self.unbind(&slot.ways.reply, Key::Server(id));
        if let Some(same) = self.branches.get_mut(&slot.identity.branch) {
            same.retain(|other| *other != id);
            if same.is_empty() {
                self.branches.remove(&slot.identity.branch);
            }
        }
        Some(slot)
    }
}

/// FNV-1a.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}
