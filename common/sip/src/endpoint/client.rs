//! The client side: requests that we send, target after target, and the answers to them.
//!
//! A [`Request`] is what the node asked for, until its final answer. Each try at a target is an [`Attempt`] with a
//! branch and a transaction machine of its own; it outlives the request to absorb repeated answers.

use super::{ClientFailure, ClientTx, Destination, Endpoint, Key, Leg, MARK_LEN, SipEvent, tag_of, via};
use crate::headers::{CSeq, RetryAfter, Via};
use crate::locate::{Answer, Hop, Known, Located};
use crate::transaction::{Client, ClientDue, InviteClient, Reaction, client, invite_client};
use crate::{Message, Method, Name};
use bytes::Bytes;
use ims_core::dns::{DnsError, DnsQuery};
use ims_core::{Ctx, Flow, FlowError, SendTag, Time, Transport};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::net::SocketAddr;

enum Machine {
    Invite(InviteClient),
    Other(Client),
}

/// One target.
#[derive(Clone, Copy)]
struct Step {
    flow: Flow,
    /// Too large for UDP: TCP may be tried instead.
    may_grow: bool,
}

/// What the node asked for.
pub(super) struct Request {
    /// Without our Via.
    message: Message,
    /// Empty for a flow.
    uri: String,
    known: Known,
    /// None: that of the configuration.
    sent_by: Option<String>,
    leg: Leg,
    steps: VecDeque<Step>,
    attempt: Option<u64>,
    /// An ACK to a 2xx: sent once, without a transaction.
    is_ack: bool,
    cancelled: bool,
    /// Why it was cancelled: Reason of the CANCEL.
    reason: Box<str>,
    armed: Option<Time>,
}

/// One try.
pub(super) struct Attempt {
    machine: Machine,
    /// None: a CANCEL, or an INVITE whose request went on to another target.
    owner: Option<u64>,
    branch: String,
    method: Box<str>,
    flow: Flow,
    /// UDP to the same address, when TCP was only tried for the size.
    instead: Option<Flow>,
    /// Found by server location: its failures are remembered.
    located: bool,
    leg: Leg,
    bytes: Bytes,
    /// The INVITE as sent: ACK and CANCEL are made from it.
    invite: Option<Box<Message>>,
    ack: Option<Bytes>,
    /// The attempt that carries our CANCEL.
    cancel: Option<u64>,
    lingers: bool,
    /// Sent once more, for the connection had closed under it.
    sent_again: bool,
    armed: Option<Time>,
}

impl Attempt {
    fn deadline(&self) -> Option<Time> {
        match &self.machine {
            Machine::Invite(m) => m.deadline(),
            Machine::Other(m) => m.deadline(),
        }
    }

    fn is_answered(&self) -> bool {
        match &self.machine {
            Machine::Invite(m) => {
                matches!(m.state(), invite_client::State::Accepted | invite_client::State::Completed)
            }
            Machine::Other(m) => m.state() == client::State::Completed,
        }
    }

    /// Not even a provisional answer yet.
    fn is_unheard(&self) -> bool {
        match &self.machine {
            Machine::Invite(m) => m.state() == invite_client::State::Calling,
            Machine::Other(m) => m.state() == client::State::Trying,
        }
    }
}

impl Endpoint {
    /// Starts a client transaction: pushes our Via with a fresh branch, retransmits, times out. ACK for 2xx: use
    /// `send_ack`.
    pub fn send_request(&mut self, message: Message, to: Destination, ctx: &mut Ctx<'_>) -> ClientTx {
        self.submit(message, to, false, ctx)
    }

    /// Sends an ACK to a 2xx onward: no transaction.
    pub fn send_ack(&mut self, message: Message, to: Destination, ctx: &mut Ctx<'_>) {
        self.submit(message, to, true, ctx);
    }

    fn submit(&mut self, message: Message, to: Destination, is_ack: bool, ctx: &mut Ctx<'_>) -> ClientTx {
        self.wake(ctx);
        let id = self.fresh_id();
        let mut request = Request {
            message,
            uri: String::new(),
            known: Known::new(),
            sent_by: None,
            leg: Leg::Core,
            steps: VecDeque::new(),
            attempt: None,
            is_ack,
            cancelled: false,
            reason: Box::default(),
            armed: None,
        };
        let flow = match to {
            Destination::Uri(uri) => {
                request.uri = uri;
                None
            }
            Destination::Flow { flow, sent_by, leg } => {
                (request.sent_by, request.leg) = (Some(sent_by), leg);
                request.steps.push_back(Step { flow, may_grow: flow.transport == Transport::Udp });
                Some(flow)
            }
        };
        let busy = self.requests.len().max(self.attempts.len() - self.lingering.attempts);
        let full = busy >= self.config.max_transactions;
        self.requests.insert(id, request);
        if full {
            self.fail(id, ClientFailure::Overloaded);
        } else if flow.is_some() {
            self.try_next(id, ClientFailure::Timeout, ctx);
        } else {
            self.locate(id, ctx);
        }
        ClientTx(id)
    }

    fn locate(&mut self, id: u64, ctx: &mut Ctx<'_>) {
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        match self.locator.locate(id, &request.uri, &mut request.known, ctx) {
            Located::Waiting => {
                let at = request.armed.unwrap_or(ctx.now + self.config.server_location.dns_timeout.0);
                Self::arm(&mut self.timers, &mut request.armed, Some(at), Key::Request(id));
            }
            Located::Failed(error) => self.fail(id, ClientFailure::NoTarget(error)),
            Located::Ready(hops) => {
                Self::arm(&mut self.timers, &mut request.armed, None, Key::Request(id));
                let local = self.config.local;
                request.known = Known::new();
                request.steps = hops.into_iter().map(|hop| step(hop, local)).collect();
                self.try_next(id, ClientFailure::Timeout, ctx);
            }
        }
    }

    pub(super) fn on_located(&mut self, id: u64, query: DnsQuery, answer: Answer, ctx: &mut Ctx<'_>) {
        if let Some(request) = self.requests.get_mut(&id) {
            request.known.insert(query, answer);
            self.locate(id, ctx);
        }
    }

    pub(super) fn on_locate_due(&mut self, id: u64, _ctx: &mut Ctx<'_>) {
        if let Some(request) = self.requests.get_mut(&id) {
            request.armed = None;
            self.locator.forget(id);
            self.fail(id, ClientFailure::NoTarget(DnsError::Unavailable));
        }
    }

    /// The next target, or the end with what went wrong at the last one.
    fn try_next(&mut self, id: u64, cause: ClientFailure, ctx: &mut Ctx<'_>) {
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        match request.steps.pop_front().filter(|_| !request.cancelled) {
            Some(step) => self.attempt(id, step, ctx),
            None => self.fail(id, cause),
        }
    }

    fn attempt(&mut self, id: u64, step: Step, ctx: &mut Ctx<'_>) {
        let attempt_id = self.fresh_id();
        let branch = self.branch(attempt_id, ctx);
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        let (leg, located, is_ack) = (request.leg, !request.uri.is_empty(), request.is_ack);
        request.attempt = Some(attempt_id);
        let Some((message, bytes, flow)) = self.write(id, step, &branch) else {
            return;
        };
        self.counters.sent(&message);
        if is_ack {
            self.requests.remove(&id);
            return self.send(flow, bytes, SendTag(0), ctx);
        }
        let (timers, reliable) = (self.timers_of(leg), flow.transport.is_reliable());
        let is_invite = message.method() == Method::Invite;
        let timer_c = self.config.server_location.timer_c.0;
        let attempt = Attempt {
            machine: if is_invite {
                Machine::Invite(InviteClient::start(timers, reliable, timer_c, ctx.now))
            } else {
                Machine::Other(Client::start(timers, reliable, ctx.now))
            },
            owner: Some(id),
            branch,
            method: message.method().as_str().into(),
            flow,
            instead: (flow.transport != step.flow.transport).then_some(step.flow),
            located,
            leg,
            bytes: bytes.clone(),
            invite: is_invite.then(|| Box::new(message)),
            ack: None,
            cancel: None,
            lingers: false,
            sent_again: false,
            armed: None,
        };
        self.launch(attempt_id, attempt, bytes, ctx);
    }

    /// Tells us the attempt when it comes back in an answer, and nobody which one comes next.
    fn branch(&self, attempt: u64, ctx: &mut Ctx<'_>) -> String {
        let mut branch = String::with_capacity(48);
        branch.push_str(via::COOKIE);
        branch.push_str(&self.mark);
        let _ = write!(branch, "{attempt:x}.");
        branch.push_str(&ctx.rng.token(10));
        branch
    }

    /// The request as it goes to `step`: with our Via, and by TCP when it is too large for UDP (RFC 3261 18.1.1).
    fn write(&self, id: u64, step: Step, branch: &str) -> Option<(Message, Bytes, Flow)> {
        let request = self.requests.get(&id)?;
        let sent_by = request.sent_by.as_deref().unwrap_or(&self.config.sent_by);
        let limit = match request.leg {
            Leg::Core => self.config.udp_limit,
            Leg::Ue => self.config.server_location.ue_udp_limit,
        };
        let mut message = request.message.clone();
        message.push_front(Name::Via, via::ours(step.flow.transport, sent_by, branch));
        let bytes = message.to_bytes();
        if !step.may_grow || bytes.len() <= limit {
            return Some((message, bytes, step.flow));
        }
        let flow = by_tcp(step.flow, !request.uri.is_empty());
        message.replace_first(Name::Via, via::ours(flow.transport, sent_by, branch));
        let bytes = message.to_bytes();
        Some((message, bytes, flow))
    }

    fn launch(&mut self, id: u64, attempt: Attempt, bytes: Bytes, ctx: &mut Ctx<'_>) {
        let flow = attempt.flow;
        self.attempts.insert(id, Box::new(attempt));
        self.bind(&flow, Key::Attempt(id));
        self.send(flow, bytes, tag_of(Key::Attempt(id)), ctx);
        self.settle_attempt(id);
    }

    /// Sends CANCEL for an INVITE client transaction (waits for the first provisional by itself), with this Reason
    /// (RFC 3326) unless it is empty. Nothing happens when there is a final answer already.
    pub fn cancel(&mut self, tx: ClientTx, reason: &str, ctx: &mut Ctx<'_>) {
        self.wake(ctx);
        let Some(request) = self.requests.get_mut(&tx.0) else {
            return;
        };
        if request.message.method() != Method::Invite {
            return;
        }
        if !request.cancelled {
            request.cancelled = true;
            request.reason = reason.into();
        }
        match request.attempt {
            Some(attempt) => self.cancel_attempt(attempt, ctx),
            // Not sent to anyone yet: nothing to cancel, nothing to wait for.
            None => {
                self.locator.forget(tx.0);
                self.fail(tx.0, ClientFailure::Timeout);
            }
        }
    }

    fn cancel_attempt(&mut self, id: u64, ctx: &mut Ctx<'_>) {
        let cancel_id = self.fresh_id();
        let Some(attempt) = self.attempts.get_mut(&id) else {
            return;
        };
        let Machine::Invite(machine) = &mut attempt.machine else {
            return;
        };
        // RFC 3261 9.1: not before a provisional answer, and only once.
        if machine.state() != invite_client::State::Proceeding || attempt.cancel.is_some() {
            return;
        }
        let Some(invite) = &attempt.invite else { return };
        machine.on_cancel(ctx.now);
        attempt.cancel = Some(cancel_id);
        let mut message = same_hop(invite, "CANCEL");
        message.copy(Name::To, invite);
        let reason = attempt.owner.and_then(|owner| self.requests.get(&owner)).map_or("", |request| &request.reason);
        if !reason.is_empty() {
            message.set(Name::Reason, reason);
        }
        let (flow, leg, branch) = (attempt.flow, attempt.leg, attempt.branch.clone());
        let bytes = message.to_bytes();
        self.settle_attempt(id);
        self.counters.sent(&message);
        let attempt = Attempt {
            machine: Machine::Other(Client::start(self.timers_of(leg), flow.transport.is_reliable(), ctx.now)),
            owner: None,
            branch,
            method: "CANCEL".into(),
            flow,
            instead: None,
            located: false,
            leg,
            bytes: bytes.clone(),
            invite: None,
            ack: None,
            cancel: None,
            lingers: false,
            sent_again: false,
            armed: None,
        };
        self.launch(cancel_id, attempt, bytes, ctx);
    }

    pub(super) fn on_response(&mut self, message: Message, flow: Flow, ctx: &mut Ctx<'_>) {
        self.counters.received(&message);
        if let Err(error) = message.check() {
            return self.refuse(flow, 0, format!("a response is dropped: {error}"));
        }
        let Some(id) = self.match_response(&message) else {
            return self.on_stray(message, flow);
        };
        let Some(attempt) = self.attempts.get_mut(&id) else {
            return;
        };
        let status = message.status();
        let reaction = match &mut attempt.machine {
            Machine::Invite(m) => m.on_response(status, ctx.now),
            Machine::Other(m) => m.on_response(status, ctx.now),
        };
        let owner = attempt.owner;
        if attempt.is_answered() {
            attempt.bytes = Bytes::new();
        }
        match reaction {
            Reaction::Absorb => self.counters.repeated += 1,
            Reaction::Ack => {
                self.counters.repeated += 1;
                self.repeat_ack(id, ctx);
            }
            Reaction::AckAndDeliver => {
                self.acknowledge(id, &message, ctx);
                self.deliver(owner, id, message, flow, ctx);
            }
            Reaction::Deliver => {
                if attempt.is_answered() {
                    attempt.invite = None;
                }
                self.deliver(owner, id, message, flow, ctx);
            }
        }
        self.settle_attempt(id);
    }

    /// By branch, and by the method of CSeq because a CANCEL has the branch of its INVITE (RFC 3261 17.1.3).
    fn match_response(&self, message: &Message) -> Option<u64> {
        let via: Via<'_> = message.first().ok().flatten()?;
        let branch = via.params.value("branch")?;
        let id = self.id_in(branch)?;
        let attempt = self.attempts.get(&id).filter(|attempt| attempt.branch == branch)?;
        match message.method().as_str() {
            method if *attempt.method == *method => Some(id),
            "CANCEL" => attempt.cancel.filter(|cancel| self.attempts.contains_key(cancel)),
            _ => None,
        }
    }

    fn id_in(&self, branch: &str) -> Option<u64> {
        let ours = branch.strip_prefix(via::COOKIE)?.strip_prefix(self.mark.as_str())?;
        debug_assert!(self.mark.len() == MARK_LEN);
        u64::from_str_radix(ours.split_once('.')?.0, 16).ok()
    }

    fn on_stray(&mut self, mut message: Message, flow: Flow) {
        let of = message.first::<Via<'_>>().ok().flatten().and_then(|via| self.id_in(via.params.value("branch")?));
        let forgotten = of.is_some_and(|id| !self.attempts.contains_key(&id));
        let late = message.method() == Method::Invite && (200..300).contains(&message.status());
        if !forgotten || !late {
            return self.counters.dropped("stray-response");
        }
        message.pop_first(Name::Via);
        self.events.push_back(SipEvent::Stray { message, flow });
    }

    fn deliver(&mut self, owner: Option<u64>, attempt: u64, mut message: Message, flow: Flow, ctx: &mut Ctx<'_>) {
        let Some(owner) = owner else { return };
        let status = message.status();
        if let Some(request) = self.requests.get_mut(&owner) {
            if status < 200 {
                if request.cancelled {
                    self.cancel_attempt(attempt, ctx);
                }
            } else if status == 503 && self.fail_over_busy(owner, attempt, &message, ctx) {
                return;
            } else {
                self.requests.remove(&owner);
                if status != 503 {
                    self.note_success(attempt);
                }
            }
        }
        message.pop_first(Name::Via);
        self.events.push_back(SipEvent::Response { tx: ClientTx(owner), message, flow });
    }

    fn note_success(&mut self, attempt: u64) {
        if let Some(attempt) = self.attempts.get(&attempt).filter(|attempt| attempt.located) {
            self.locator.on_success(attempt.flow.remote, attempt.flow.transport);
        }
    }

    /// 503: the next target, if there is one (RFC 3263 4.3). The attempt stays to absorb what is repeated.
    fn fail_over_busy(&mut self, owner: u64, id: u64, response: &Message, ctx: &mut Ctx<'_>) -> bool {
        let Some(attempt) = self.attempts.get_mut(&id) else {
            return false;
        };
        if attempt.located {
            let wait = response.first::<RetryAfter<'_>>().ok().flatten().map(|after| after.seconds);
            self.locator.on_busy(attempt.flow.remote, attempt.flow.transport, wait, ctx.now);
        }
        let Some(request) = self.requests.get(&owner) else {
            return false;
        };
        if request.steps.is_empty() || request.cancelled {
            return false;
        }
        attempt.owner = None;
        self.counters.failed_over += 1;
        self.try_next(owner, ClientFailure::Timeout, ctx);
        true
    }

    /// The ACK to a final error (RFC 3261 17.1.1.3).
    fn acknowledge(&mut self, id: u64, response: &Message, ctx: &mut Ctx<'_>) {
        let Some(attempt) = self.attempts.get_mut(&id) else {
            return;
        };
        let Some(invite) = attempt.invite.take() else { return };
        let mut ack = same_hop(&invite, "ACK");
        ack.copy(Name::To, response);
        attempt.ack = Some(ack.to_bytes());
        self.counters.sent(&ack);
        self.send_the_ack(id, ctx);
    }

    fn repeat_ack(&mut self, id: u64, ctx: &mut Ctx<'_>) {
        self.counters.resent += 1;
        self.send_the_ack(id, ctx);
    }

    fn send_the_ack(&mut self, id: u64, ctx: &mut Ctx<'_>) {
        if let Some((flow, ack)) = self.attempts.get(&id).and_then(|a| Some((a.flow, a.ack.clone()?))) {
            self.send(flow, ack, SendTag(0), ctx);
        }
    }

    pub(super) fn on_attempt_due(&mut self, id: u64, ctx: &mut Ctx<'_>) {
        let Some(attempt) = self.attempts.get_mut(&id) else {
            return;
        };
        attempt.armed = None;
        let due = match &mut attempt.machine {
            Machine::Invite(m) => m.on_timer(ctx.now),
            Machine::Other(m) => m.on_timer(ctx.now),
        };
        match due {
            ClientDue::Resend => {
                let (flow, bytes) = (attempt.flow, attempt.bytes.clone());
                self.counters.resent += 1;
                self.send(flow, bytes, tag_of(Key::Attempt(id)), ctx);
            }
            ClientDue::TimedOut => {
                // A server that said something is there: another one would do the same work again.
                if !attempt.is_unheard()
                    && let Some(request) = attempt.owner.and_then(|owner| self.requests.get_mut(&owner))
                {
                    request.steps.clear();
                }
                self.give_up(id, ClientFailure::Timeout, ctx);
            }
            ClientDue::Overdue => {
                if let Some(request) = attempt.owner.and_then(|owner| self.requests.get_mut(&owner)) {
                    request.cancelled = true;
                }
                self.cancel_attempt(id, ctx);
            }
            ClientDue::Ended => {
                self.free_attempt(id);
            }
            ClientDue::Nothing => {}
        }
        self.settle_attempt(id);
    }

    pub(super) fn on_attempt_failed(&mut self, id: u64, flow: Flow, error: FlowError, ctx: &mut Ctx<'_>) {
        let Some(attempt) = self.attempts.get_mut(&id) else { return };
        // A full queue is a lost datagram; and whoever has answered has the request.
        let lost = error == FlowError::QueueFull && !flow.transport.is_reliable();
        if lost || !attempt.is_unheard() {
            return;
        }
        // A connection that both sides keep may close while a request is on its way (RFC 5923 4). On a new one the same
        // branch is taken for what it is, should the first have arrived.
        let may_reconnect = error == FlowError::Closed && attempt.flow.conn.is_none() && !attempt.sent_again;
        if may_reconnect && attempt.flow.transport == Transport::Tcp {
            attempt.sent_again = true;
            let (flow, bytes) = (attempt.flow, attempt.bytes.clone());
            self.counters.resent += 1;
            return self.send(flow, bytes, tag_of(Key::Attempt(id)), ctx);
        }
        if error == FlowError::TooLarge && attempt.flow.transport == Transport::Udp {
            self.grow(id);
        }
        self.give_up(id, ClientFailure::Transport(error), ctx);
    }

    /// The datagram was too large for the path after all: the same address again, by TCP.
    fn grow(&mut self, id: u64) {
        let Some(attempt) = self.attempts.get(&id) else { return };
        let flow = by_tcp(attempt.flow, attempt.located);
        if let Some(request) = attempt.owner.and_then(|owner| self.requests.get_mut(&owner)) {
            request.steps.push_front(Step { flow, may_grow: false });
        }
    }

    /// The connection closed under an attempt.
    pub(super) fn on_attempt_cut(&mut self, id: u64, ctx: &mut Ctx<'_>) {
        if self.attempts.get(&id).is_some_and(|attempt| attempt.is_unheard()) {
            self.give_up(id, ClientFailure::Transport(FlowError::Closed), ctx);
        }
    }

    /// This attempt is over without an answer: on to the next target.
    fn give_up(&mut self, id: u64, cause: ClientFailure, ctx: &mut Ctx<'_>) {
        let Some(attempt) = self.free_attempt(id) else { return };
        let Some(request) = attempt.owner.and_then(|owner| self.requests.get_mut(&owner)) else {
            return;
        };
        request.attempt = None;
        let too_large = cause == ClientFailure::Transport(FlowError::TooLarge);
        match (cause, attempt.instead) {
            (ClientFailure::Transport(_), Some(flow)) => request.steps.push_front(Step { flow, may_grow: false }),
            _ if attempt.located && !too_large => {
                self.locator.on_failure(attempt.flow.remote, attempt.flow.transport, ctx);
            }
            _ => {}
        }
        self.counters.failed_over += u64::from(!request.steps.is_empty() && !request.cancelled);
        if let Some(owner) = attempt.owner {
            self.try_next(owner, cause, ctx);
        }
    }

    fn fail(&mut self, id: u64, cause: ClientFailure) {
        let Some(mut request) = self.requests.remove(&id) else {
            return;
        };
        Self::arm(&mut self.timers, &mut request.armed, None, Key::Request(id));
        if request.is_ack {
            self.counters.dropped("ack-without-target");
        } else {
            self.events.push_back(SipEvent::Failed { tx: ClientTx(id), cause });
        }
    }

    fn settle_attempt(&mut self, id: u64) {
        let now = self.now;
        let Some(attempt) = self.attempts.get_mut(&id) else {
            return;
        };
        let deadline = attempt.deadline();
        // Timers D and K are zero on a reliable transport.
        if attempt.is_answered() && deadline.is_some_and(|at| at <= now) {
            self.free_attempt(id);
            return;
        }
        Self::arm(&mut self.timers, &mut attempt.armed, deadline, Key::Attempt(id));
        if attempt.is_answered() && matches!(attempt.machine, Machine::Other(_)) && !attempt.lingers {
            attempt.lingers = true;
            self.linger(Key::Attempt(id));
        }
    }

    pub(super) fn free_attempt(&mut self, id: u64) -> Option<Box<Attempt>> {
        let mut attempt = self.attempts.remove(&id)?;
        Self::arm(&mut self.timers, &mut attempt.armed, None, Key::Attempt(id));
        self.lingering.attempts -= usize::from(attempt.lingers);
        self.unbind(&attempt.flow, Key::Attempt(id));
        Some(attempt)
    }
}

fn step(hop: Hop, local: SocketAddr) -> Step {
    match hop.transport {
        Some(Transport::Tcp) => Step { flow: Flow::tcp(SocketAddr::new(local.ip(), 0), hop.addr), may_grow: false },
        _ => Step { flow: Flow::udp(local, hop.addr), may_grow: true },
    }
}

/// The same addresses by TCP. Towards a server found by location any port of ours will do; towards a UE the port is
/// that of the SA.
fn by_tcp(flow: Flow, located: bool) -> Flow {
    let port = if located { 0 } else { flow.local.port() };
    Flow::tcp(SocketAddr::new(flow.local.ip(), port), flow.remote)
}

/// A request of the same hop as `invite`: ACK (RFC 3261 17.1.1.3) or CANCEL (9.1). To is still missing.
fn same_hop(invite: &Message, method: &str) -> Message {
    let mut message = Message::request(method, invite.uri());
    if let Some(via) = invite.raw(Name::Via).next() {
        message.push_back(Name::Via, String::from_utf8_lossy(via).trim());
    }
    for name in [Name::Route, Name::From, Name::CallId] {
        message.copy(name, invite);
    }
    message.set(Name::MaxForwards, 70);
    if let Ok(Some(cseq)) = invite.first::<CSeq<'_>>() {
        message.set(Name::CSeq, format_args!("{} {method}", cseq.number));
    }
    message
}
