//! Bytes to transactions to events: the SIP side of a node.
//!
//! The [`Endpoint`] keeps the transactions of RFC 3261 17 (machines in [`crate::transaction`]), finds servers
//! ([`crate::locate`]), and knows where answers go (RFC 3261 18.2.2, RFC 3581). The node calls `on_*`, then takes
//! [`SipEvent`]s until there are none.
//!
//! Every entry in every table has a deadline: left alone, an endpoint becomes quiet.

mod client;
mod counters;
mod finished;
mod identity;
mod server;
mod via;

pub use crate::locate::LocateConfig;
pub use crate::transaction::SipTimers;

use crate::Message;
use crate::locate::Locator;
use crate::message::ParseError;
use bytes::Bytes;
use client::{Attempt, Request};
use counters::Counters;
use finished::{FEW, Finished};
use identity::{Print, Prints};
use ims_core::dns::{DnsError, DnsRecord};
use ims_core::hash::{IdMap, give_back};
use ims_core::metrics::{Samples, catalogue};
use ims_core::time::earliest;
use ims_core::{Action, ConnId, Ctx, Flow, FlowError, Packet, RequestId, SendTag, Time};
use server::ServerSlot;
use smallvec::SmallVec;
use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ServerTx(pub u64);
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClientTx(pub u64);

/// Which side a transaction is on: decides the timers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leg {
    Core,
    Ue,
}

pub struct EndpointConfig {
    pub core: SipTimers,
    pub ue: SipTimers,
    /// Where requests to URIs (the core side) leave from, e.g. 127.0.0.1:4060, UDP and TCP. What arrives on any
    /// other address is on the UE's leg.
    pub local: SocketAddr,
    /// Via sent-by on the core side, e.g. `icscf.ims.mnc001...:4060` or `127.0.0.1:4060`.
    pub sent_by: String,
    /// Requests larger than this go by TCP (RFC 3261 18.1.1: 1300 unless the path MTU is known).
    pub udp_limit: usize,
    /// Static next hops: host (or host:port) of a URI -> targets in order; looked at before DNS.
    pub hops: crate::locate::StaticHops,
    /// How many transactions may be open, for each of both sides: more is refused with 503. As many that are over are
    /// kept to absorb what is repeated; beyond that the oldest go before their time.
    pub max_transactions: usize,
    pub server_location: LocateConfig,
}

/// Where a request goes.
#[derive(Clone, Debug)]
pub enum Destination {
    /// Static table first, then RFC 3263, with failover between targets (503, transport error, timeout).
    Uri(String),
    /// Exactly this flow, with this sent-by in Via (the P-CSCF towards a UE). An oversize request may switch to TCP
    /// on the same addresses.
    Flow { flow: Flow, sent_by: String, leg: Leg },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ClientFailure {
    #[error("no answer in time")]
    Timeout,
    #[error("not delivered: {0}")]
    Transport(FlowError),
    #[error("no server found: {0}")]
    NoTarget(DnsError),
    #[error("too many transactions are open")]
    Overloaded,
}

#[derive(Debug)]
pub enum SipEvent {
    /// A new server transaction (never ACK, never a retransmission). Already passed `Message::check`; top Via has
    /// received/rport set (RFC 3261 18.2.1, RFC 3581).
    Request {
        tx: ServerTx,
        message: Message,
        flow: Flow,
    },
    /// An ACK to a 2xx, or that matches nothing: to be proxied.
    Ack {
        message: Message,
        flow: Flow,
    },
    /// A CANCEL of an INVITE that has no final answer yet; the endpoint has answered the CANCEL (200, or 481 and then
    /// there is no event). `invite` is the transaction it cancels: end it with 487.
    Cancel {
        invite: ServerTx,
        message: Message,
        flow: Flow,
    },
    /// Our Via is already taken off.
    Response {
        tx: ClientTx,
        message: Message,
        flow: Flow,
    },
    /// A late 2xx to an INVITE of ours that is forgotten: our Via taken off. Anything else that matches no
    /// transaction is dropped and counted (RFC 3261 18.1.2).
    Stray {
        message: Message,
        flow: Flow,
    },
    Failed {
        tx: ClientTx,
        cause: ClientFailure,
    },
    /// A final INVITE response was never acknowledged (timer H), or the response could not be delivered.
    Undelivered {
        tx: ServerTx,
        cause: ClientFailure,
    },
    /// Refused before it became a transaction: already answered where possible. For counters and the log: no more
    /// than a few a second are told, all are counted.
    Refused {
        flow: Flow,
        status: u16,
        reason: String,
    },
}

/// What a timer is for, and what a send tag names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Key {
    Server(u64),
    Attempt(u64),
    Request(u64),
}

/// Transactions other than INVITE that have their final answer and only absorb repetitions: those that are not in
/// [`Finished`]. They can be spared.
#[derive(Default)]
struct Lingering {
    /// In the order in which they ended; what is freed since is still in here.
    order: VecDeque<Key>,
    servers: usize,
    attempts: usize,
}

pub struct Endpoint {
    config: EndpointConfig,
    /// Starts every branch of ours, so that an answer to us is known by its Via. Drawn at first use.
    mark: String,
    next: u64,
    servers: IdMap<u64, ServerSlot>,
    prints: Prints,
    /// The branch (or its RFC 2543 substitute) of every server transaction.
    branches: IdMap<Print, SmallVec<[u64; 2]>>,
    requests: IdMap<u64, Request>,
    /// Boxed: the table is as large as the largest storm made it.
    attempts: IdMap<u64, Box<Attempt>>,
    conns: IdMap<ConnId, BTreeSet<Key>>,
    timers: BTreeSet<(Time, Key)>,
    lingering: Lingering,
    finished: Finished,
    locator: Locator,
    events: VecDeque<SipEvent>,
    counters: Counters,
    now: Time,
}

impl Endpoint {
    pub fn new(config: EndpointConfig) -> Self {
        let locator = Locator::new(config.server_location.clone(), config.hops.clone(), config.local.ip());
        Self {
            config,
            mark: String::new(),
            next: 1,
            servers: IdMap::default(),
            prints: Prints::default(),
            branches: IdMap::default(),
            requests: IdMap::default(),
            attempts: IdMap::default(),
            conns: IdMap::default(),
            timers: BTreeSet::new(),
            lingering: Lingering::default(),
            finished: Finished::new(),
            locator,
            events: VecDeque::new(),
            counters: Counters::default(),
            now: Time::EPOCH,
        }
    }

    pub fn on_packet(&mut self, packet: Packet, ctx: &mut Ctx<'_>) {
        self.take(packet, None, ctx);
    }

    /// A packet that came in over an SA: every answer leaves on `outward` (port_pc -> port_us), as if `set_reply_flow`
    /// had been called in time for those that the endpoint gives by itself (200 and 481 to CANCEL, 400, 503).
    pub fn on_protected_packet(&mut self, packet: Packet, outward: Flow, ctx: &mut Ctx<'_>) {
        self.take(packet, Some(outward), ctx);
    }

    /// What a node has parsed itself, to look at it first. False when it was no message that could be used.
    pub fn on_parsed(&mut self, parsed: Result<Message, ParseError>, flow: Flow, ctx: &mut Ctx<'_>) -> bool {
        let before = self.counters.malformed();
        self.take_parsed(parsed, flow, None, ctx);
        self.counters.malformed() == before
    }

    /// Refuses a request with 503 before it becomes a transaction: for a node that has more to do than it can. The answer
    /// asks for `wait` seconds of patience.
    pub fn decline(&mut self, mut request: Message, flow: Flow, wait: u64, ctx: &mut Ctx<'_>) {
        self.wake(ctx);
        self.counters.received(&request);
        if let Some(ways) = via::note_received(&mut request, &flow) {
            self.answer_statelessly(&request, 503, wait, ways.reply, ctx);
        }
    }

    /// Whether this request belongs to a transaction: a repetition.
    pub fn is_known(&self, request: &Message) -> bool {
        self.find_transaction(request).is_some()
    }

    fn take(&mut self, packet: Packet, outward: Option<Flow>, ctx: &mut Ctx<'_>) {
        let Packet { flow, bytes } = packet;
        self.take_parsed(Message::parse(bytes), flow, outward, ctx);
    }

    fn take_parsed(
        &mut self,
        parsed: Result<Message, ParseError>,
        flow: Flow,
        outward: Option<Flow>,
        ctx: &mut Ctx<'_>,
    ) {
        self.wake(ctx);
        match parsed {
            Ok(message) if message.is_request() => self.on_request(message, flow, outward, ctx),
            Ok(message) => self.on_response(message, flow, ctx),
            Err(error) => self.refuse(flow, error.status(), error.to_string()),
        }
    }

    pub fn on_send_failed(&mut self, tag: SendTag, flow: Flow, error: FlowError, ctx: &mut Ctx<'_>) {
        self.wake(ctx);
        match key_of(tag) {
            Key::Server(id) => self.on_answer_failed(id, flow, error, ctx),
            Key::Attempt(id) | Key::Request(id) => self.on_attempt_failed(id, flow, error, ctx),
        }
    }

    pub fn on_flow_closed(&mut self, conn: ConnId, ctx: &mut Ctx<'_>) {
        self.wake(ctx);
        for key in self.conns.remove(&conn).unwrap_or_default() {
            match key {
                Key::Server(id) => self.on_connection_lost(id),
                Key::Attempt(id) | Key::Request(id) => self.on_attempt_cut(id, ctx),
            }
        }
    }

    /// False when the id is not one of ours (ids are drawn from the top half: `RequestId(1<<63 | n)`).
    pub fn on_dns(&mut self, id: RequestId, answer: Result<Vec<DnsRecord>, DnsError>, ctx: &mut Ctx<'_>) -> bool {
        self.wake(ctx);
        if !Locator::owns(id) {
            return false;
        }
        if let Some((query, answer, waiters)) = self.locator.on_answer(id, answer, ctx.now) {
            for request in waiters {
                self.on_located(request, query.clone(), answer.clone(), ctx);
            }
        }
        true
    }

    pub fn on_timeout(&mut self, ctx: &mut Ctx<'_>) {
        self.wake(ctx);
        while let Some(&(at, key)) = self.timers.first() {
            if at > ctx.now {
                break;
            }
            self.timers.pop_first();
            match key {
                Key::Server(id) => self.on_server_due(id, ctx),
                Key::Attempt(id) => self.on_attempt_due(id, ctx),
                Key::Request(id) => self.on_locate_due(id, ctx),
            }
        }
        self.finished.expire(ctx.now, self.most_finished());
        self.shrink();
    }

    fn most_finished(&self) -> usize {
        self.config.max_transactions.saturating_mul(2)
    }

    pub fn deadline(&self) -> Option<Time> {
        earliest(self.timers.first().map(|(at, _)| *at), self.finished.deadline())
    }

    /// What happened, one at a time; call until None after every on_*.
    pub fn next_event(&mut self) -> Option<SipEvent> {
        self.events.pop_front()
    }

    /// Sends a response that belongs to no transaction (stray 2xx retransmissions) by its top Via.
    pub fn forward_stray(&mut self, response: Message, ctx: &mut Ctx<'_>) {
        self.wake(ctx);
        match via::response_flow(&response, self.config.local) {
            Some(flow) => {
                self.counters.sent(&response);
                self.send(flow, response.to_bytes(), SendTag(0), ctx);
            }
            None => self.counters.dropped("no-way-back"),
        }
    }

    /// No transaction, no location in progress.
    pub fn is_quiet(&self) -> bool {
        self.servers.is_empty()
            && self.branches.is_empty()
            && self.requests.is_empty()
            && self.attempts.is_empty()
            && self.conns.is_empty()
            && self.timers.is_empty()
            && self.finished.len() == 0
            && self.locator.is_quiet()
    }

    pub fn snapshot(&self) -> serde_json::Value {
        let mut all = self.counters.snapshot();
        all["transactions"] = serde_json::json!({
            "server": self.servers.len() + self.finished.len(), "client": self.attempts.len(), "requests": self.requests.len(),
            "lingering": self.lingering(),
        });
        all["location"] = self.locator.snapshot(self.now);
        all
    }

    pub fn metrics(&self, out: &mut Samples) {
        self.counters.metrics(out);
        let Lingering { servers, attempts, .. } = self.lingering;
        for (state, n) in [
            ("server", self.servers.len() - servers),
            ("client", self.attempts.len() - attempts),
            ("request", self.requests.len()),
            ("lingering", self.lingering()),
        ] {
            out.size(&catalogue::SIP_TRANSACTIONS, &[state], n);
        }
    }

    /// Transactions that only absorb repetitions.
    fn lingering(&self) -> usize {
        self.lingering.servers + self.lingering.attempts + self.finished.len()
    }

    fn wake(&mut self, ctx: &mut Ctx<'_>) {
        self.now = ctx.now;
        if self.mark.is_empty() {
            self.mark = ctx.rng.token(MARK_LEN);
        }
    }

    fn fresh_id(&mut self) -> u64 {
        let id = self.next;
        self.next += 1;
        id
    }

    fn timers_of(&self, leg: Leg) -> SipTimers {
        match leg {
            Leg::Core => self.config.core,
            Leg::Ue => self.config.ue,
        }
    }

    fn leg_of(&self, flow: &Flow) -> Leg {
        if flow.local == self.config.local { Leg::Core } else { Leg::Ue }
    }

    /// Moves the one timer that a table entry has; `armed` is where it stands now.
    fn arm(timers: &mut BTreeSet<(Time, Key)>, armed: &mut Option<Time>, at: Option<Time>, key: Key) {
        if *armed != at {
            if let Some(old) = armed.take() {
                timers.remove(&(old, key));
            }
            if let Some(at) = at {
                timers.insert((at, key));
            }
            *armed = at;
        }
    }

    fn linger(&mut self, key: Key) {
        self.lingering.order.push_back(key);
        match key {
            Key::Server(_) => self.lingering.servers += 1,
            Key::Attempt(_) | Key::Request(_) => self.lingering.attempts += 1,
        }
        while self.lingering.order.len() > self.most_finished() {
            match self.lingering.order.pop_front() {
                Some(Key::Server(id)) => self.free_server(id),
                Some(Key::Attempt(id) | Key::Request(id)) => drop(self.free_attempt(id)),
                None => return,
            }
        }
    }

    /// What a storm has filled is given back.
    fn shrink(&mut self) {
        give_back(&mut self.servers);
        give_back(&mut self.branches);
        give_back(&mut self.requests);
        give_back(&mut self.attempts);
        let (servers, attempts, order) = (&self.servers, &self.attempts, &mut self.lingering.order);
        let is_gone = |key: &Key| match key {
            Key::Server(id) => !servers.contains_key(id),
            Key::Attempt(id) | Key::Request(id) => !attempts.contains_key(id),
        };
        while order.front().is_some_and(is_gone) {
            order.pop_front();
        }
        if order.capacity() > 4 * order.len().max(FEW) {
            order.shrink_to(2 * order.len());
        }
    }

    fn bind(&mut self, flow: &Flow, key: Key) {
        if let Some(conn) = flow.conn {
            self.conns.entry(conn).or_default().insert(key);
        }
    }

    fn unbind(&mut self, flow: &Flow, key: Key) {
        let Some(conn) = flow.conn else { return };
        if let Some(keys) = self.conns.get_mut(&conn) {
            keys.remove(&key);
            if keys.is_empty() {
                self.conns.remove(&conn);
            }
        }
    }

    fn send(&mut self, flow: Flow, bytes: Bytes, tag: SendTag, ctx: &mut Ctx<'_>) {
        ctx.act(Action::SendSip { flow, bytes, tag });
    }

    /// Counts, and tells the node unless it has been told a lot within this second.
    fn refuse(&mut self, flow: Flow, status: u16, reason: String) {
        if self.counters.refused(status, self.now) {
            self.events.push_back(SipEvent::Refused { flow, status, reason });
        }
    }
}

const MARK_LEN: usize = 6;

fn tag_of(key: Key) -> SendTag {
    match key {
        Key::Server(id) => SendTag(id << 1),
        Key::Attempt(id) | Key::Request(id) => SendTag(id << 1 | 1),
    }
}

fn key_of(tag: SendTag) -> Key {
    if tag.0 & 1 == 0 { Key::Server(tag.0 >> 1) } else { Key::Attempt(tag.0 >> 1) }
}
