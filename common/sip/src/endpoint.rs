//! Bytes to transactions to events: the SIP side of a node. SKELETON: the signatures are the agreement.

use crate::Message;
use ims_core::{ConnId, Ctx, Flow, FlowError, Packet, RequestId, SendTag, Time};
use ims_core::dns::{DnsError, DnsRecord};
use std::net::SocketAddr;
use std::time::Duration;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ServerTx(pub u64);
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClientTx(pub u64);

/// RFC 3261 17 timers; TS 24.229 7.7 gives other values towards the UE.
#[derive(Clone, Copy, Debug)]
pub struct SipTimers { pub t1: Duration, pub t2: Duration, pub t4: Duration }
impl SipTimers {
    /// RFC 3261: T1 500 ms, T2 4 s, T4 5 s.
    pub const CORE: Self = Self { t1: Duration::from_millis(500), t2: Duration::from_secs(4), t4: Duration::from_secs(5) };
    /// TS 24.229 7.7 towards a UE: T1 2 s, T2 16 s, T4 17 s.
    pub const UE: Self = Self { t1: Duration::from_secs(2), t2: Duration::from_secs(16), t4: Duration::from_secs(17) };
}

/// Which side a transaction is on: decides the timers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leg { Core, Ue }

pub struct EndpointConfig {
    pub core: SipTimers,
    pub ue: SipTimers,
    /// Where requests to URIs (the core side) leave from, e.g. 127.0.0.1:4060, UDP and TCP.
    pub local: SocketAddr,
    /// Via sent-by on the core side, e.g. `icscf.ims.mnc001...:4060` or `127.0.0.1:4060`.
    pub sent_by: String,
    /// Requests larger than this go by TCP (RFC 3261 18.1.1: 1300 unless the path MTU is known).
    pub udp_limit: usize,
    /// Static next hops: host (or host:port) of a URI -> targets in order; looked at before DNS.
    pub hops: crate::locate::StaticHops,
    pub max_transactions: usize,
    pub server_location: LocateConfig,
}
#[derive(Clone, Debug, Default)]
pub struct LocateConfig { /* owner: DNS timeouts, blacklist time, prefer_udp ... */ }

/// Where a request goes.
#[derive(Clone, Debug)]
pub enum Destination {
    /// Static table first, then RFC 3263, with failover between targets (503, transport error, timeout).
    Uri(String),
    /// Exactly this flow, with this sent-by in Via (the P-CSCF towards a UE). `fallback_tcp`: an oversize request may switch to TCP on the same addresses.
    Flow { flow: Flow, sent_by: String, leg: Leg },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientFailure { Timeout, Transport(FlowError), NoTarget(DnsError), Overloaded }

#[derive(Debug)]
pub enum SipEvent {
    /// A new server transaction (never ACK, never a retransmission). Already passed `Message::check`; top Via has received/rport set (RFC 3261 18.2.1, RFC 3581).
    Request { tx: ServerTx, message: Message, flow: Flow },
    /// An ACK to a 2xx, or that matches nothing: to be proxied.
    Ack { message: Message, flow: Flow },
    /// A CANCEL; the endpoint has answered it 200 (or 481). `invite` is the transaction it cancels.
    Cancel { invite: ServerTx, message: Message, flow: Flow },
    /// Our Via is already taken off.
    Response { tx: ClientTx, message: Message, flow: Flow },
    /// A response that matches no transaction (late 2xx): our Via taken off if it was ours.
    Stray { message: Message, flow: Flow },
    Failed { tx: ClientTx, cause: ClientFailure },
    /// A final INVITE response was never acknowledged (timer H), or the response could not be delivered.
    Undelivered { tx: ServerTx, cause: ClientFailure },
    /// Refused before it became a transaction: already answered where possible. For counters and the log.
    Refused { flow: Flow, status: u16, reason: String },
}

pub struct Endpoint { _private: () }

impl Endpoint {
    pub fn new(_config: EndpointConfig) -> Self { todo!() }
    pub fn on_packet(&mut self, _packet: Packet, _ctx: &mut Ctx<'_>) { todo!() }
    pub fn on_send_failed(&mut self, _tag: SendTag, _flow: Flow, _error: FlowError, _ctx: &mut Ctx<'_>) { todo!() }
    pub fn on_flow_closed(&mut self, _conn: ConnId, _ctx: &mut Ctx<'_>) { todo!() }
    /// False when the id is not one of ours (ids are drawn from the top half: RequestId(1<<63 | n)).
    pub fn on_dns(&mut self, _id: RequestId, _answer: Result<Vec<DnsRecord>, DnsError>, _ctx: &mut Ctx<'_>) -> bool { todo!() }
    pub fn on_timeout(&mut self, _ctx: &mut Ctx<'_>) { todo!() }
    pub fn deadline(&self) -> Option<Time> { todo!() }
    /// What happened, one at a time; call until None after every on_*.
    pub fn next_event(&mut self) -> Option<SipEvent> { todo!() }

    /// Starts a client transaction: pushes our Via with a fresh branch, retransmits, times out. ACK for 2xx: use `send_ack`.
    pub fn send_request(&mut self, _message: Message, _to: Destination, _ctx: &mut Ctx<'_>) -> ClientTx { todo!() }
    /// Sends an ACK to a 2xx onward: no transaction.
    pub fn send_ack(&mut self, _message: Message, _to: Destination, _ctx: &mut Ctx<'_>) { todo!() }
    /// Sends CANCEL for an INVITE client transaction (waits for the first provisional by itself).
    pub fn cancel(&mut self, _tx: ClientTx, _ctx: &mut Ctx<'_>) { todo!() }
    /// Answers: provisional or final. Goes where RFC 3261 18.2.2 and RFC 3581 say, or by `set_reply_flow`.
    pub fn respond(&mut self, _tx: ServerTx, _response: Message, _ctx: &mut Ctx<'_>) { todo!() }
    /// All answers of this transaction, retransmissions too, leave on this flow (the P-CSCF inside an SA: UDP answers go port_pc -> port_us).
    pub fn set_reply_flow(&mut self, _tx: ServerTx, _flow: Flow) { todo!() }
    /// Sends a response that belongs to no transaction (stray 2xx retransmissions) by its top Via.
    pub fn forward_stray(&mut self, _response: Message, _ctx: &mut Ctx<'_>) { todo!() }
    /// No transaction, no location in progress.
    pub fn is_quiet(&self) -> bool { todo!() }
    pub fn snapshot(&self) -> serde_json::Value { todo!() }
}
