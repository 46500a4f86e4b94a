//! What a node is: events in, actions out.

use crate::command::{Command, CommandId, Problem};
use crate::dns::{DnsError, DnsQuery, DnsRecord};
use crate::metrics::Samples;
use crate::sa::{SaAudit, SaChange, SaError, SaExpiry, SaSet, SaSide};
use crate::store::{StoreError, StoreReply, StoreRequest};
use crate::{Rng, Time};
use bytes::Bytes;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// A network element as a value: pure, and the same under the shell and under the simulator.
pub trait Node {
    /// Takes one event. Everything it wants done is appended to `ctx.actions`, and performed in that order.
    fn handle(&mut self, event: Event, ctx: &mut Ctx<'_>);

    /// When the node wants [`Event::Timeout`], if nothing else happens before.
    fn deadline(&self) -> Option<Time>;

    /// The state as an operator may see it: no keys.
    fn snapshot(&self) -> serde_json::Value;

    /// What was counted and measured, for whoever watches many nodes.
    fn metrics(&self, _out: &mut Samples) {}

    /// Told before requests from outside that have waited: the oldest of them so long. A node that may refuse work judges by it
    /// whether it keeps up.
    fn waited(&mut self, _oldest: Duration, _now: Time) {}
}

/// All of the outside world that a node sees while it handles an event.
pub struct Ctx<'a> {
    pub now: Time,
    pub rng: &'a mut Rng,
    pub actions: &'a mut Vec<Action>,
}

impl Ctx<'_> {
    pub fn act(&mut self, action: Action) {
        self.actions.push(action);
    }
}

/// Names a request that waits for an answer; unique within a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(pub u64);

/// A TCP connection that carries SIP; unique within a run of the shell.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnId(pub u64);

/// A connection that carries Diameter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkId(pub u64);

/// A configured Diameter peer: its place in the configured list.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PeerId(pub u32);

/// Given by a node with what it sends, and returned in [`Event::SipFailed`]. 0 means: do not tell.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SendTag(pub u64);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Transport {
    Udp,
    Tcp,
}

impl Transport {
    /// As it stands in a Via: `UDP`, `TCP`.
    pub fn token(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
        }
    }

    pub fn is_reliable(self) -> bool {
        self != Self::Udp
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        })
    }
}

/// Where a SIP message came from, or goes to.
///
/// `local` is never a wildcard: the shell binds one socket per address. For TCP, `conn` names the connection; a send
/// with `conn: None` uses an open connection between the same two addresses, or opens one from `local`
/// (port 0: any port).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Flow {
    pub transport: Transport,
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub conn: Option<ConnId>,
}

impl Flow {
    pub fn udp(local: SocketAddr, remote: SocketAddr) -> Self {
        Self { transport: Transport::Udp, local, remote, conn: None }
    }

    pub fn tcp(local: SocketAddr, remote: SocketAddr) -> Self {
        Self { transport: Transport::Tcp, local, remote, conn: None }
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} -> {}", self.transport, self.remote, self.local)
    }
}

/// One SIP message: a datagram, or what the stream framing cut out of a connection.
#[derive(Clone)]
pub struct Packet {
    pub flow: Flow,
    pub bytes: Bytes,
}

/// Without the bytes: CK and IK may be among them, in SIP as in Diameter.
impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Packet {{ {:?}, {:?} }}", self.flow, Unread(&self.bytes))
    }
}

/// How many bytes, and not which.
pub(crate) struct Unread<'a>(pub(crate) &'a [u8]);

impl fmt::Debug for Unread<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// Why something could not be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FlowError {
    #[error("connection refused")]
    Refused,
    #[error("host or network unreachable")]
    Unreachable,
    #[error("connection timed out")]
    TimedOut,
    #[error("connection closed")]
    Closed,
    #[error("no socket is bound to that local address")]
    NoSocket,
    #[error("message too large for a datagram")]
    TooLarge,
    #[error("send queue full")]
    QueueFull,
}

/// Something that a node keeps across restarts: its own name for it, and its own bytes.
///
/// Not for what must be found by several keys or changed under a version check: that is [`StoreRequest`].
#[derive(Clone, PartialEq, Eq)]
pub struct Kept {
    pub key: String,
    pub value: Bytes,
}

/// Without the value: what a node keeps may hold secrets.
impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kept {{ {:?}, {:?} }}", self.key, Unread(&self.value))
    }
}

/// What happens to a node.
pub enum Event {
    /// What the node had kept when it ended, in portions, before [`Event::Start`]; never when nothing was kept.
    Restored(Vec<Kept>),
    /// The first event of every node, but for [`Event::Restored`].
    Start,
    Sip(Packet),
    /// What was sent with this tag (not 0) could not be delivered, as far as the transport can tell.
    SipFailed {
        tag: SendTag,
        flow: Flow,
        error: FlowError,
    },
    /// A SIP connection is gone.
    FlowClosed(ConnId),
    /// A Diameter connection is open: `peer` is set when we asked for it.
    LinkUp {
        link: LinkId,
        peer: Option<PeerId>,
        remote: SocketAddr,
    },
    /// A Diameter connection closed, or could not be opened (`link` is None then).
    LinkDown {
        link: Option<LinkId>,
        peer: Option<PeerId>,
    },
    /// One whole Diameter message.
    Diameter {
        link: LinkId,
        bytes: Bytes,
    },
    Dns {
        id: RequestId,
        answer: Result<Vec<DnsRecord>, DnsError>,
    },
    Sa {
        id: RequestId,
        result: Result<(), SaError>,
    },
    /// The answer to [`Action::SaAudit`].
    SaAudited {
        id: RequestId,
        result: Result<SaAudit, SaError>,
    },
    SaExpired(SaExpiry),
    Stored {
        id: RequestId,
        result: Result<StoreReply, StoreError>,
    },
    /// From the REST API or the console; answered by [`Action::Reply`].
    Command(Command),
    /// The deadline has come.
    Timeout,
    /// The process ends: say goodbye to peers. The shell waits a moment for the Diameter links to close.
    Stop,
}

/// What a node wants done. Actions are performed in order.
pub enum Action {
    SendSip {
        flow: Flow,
        bytes: Bytes,
        tag: SendTag,
    },
    CloseFlow(ConnId),
    /// Open a Diameter connection to `target` (`host:port`).
    Connect {
        peer: PeerId,
        target: String,
    },
    SendDiameter {
        link: LinkId,
        bytes: Bytes,
    },
    CloseLink(LinkId),
    Dns {
        id: RequestId,
        query: DnsQuery,
    },
    Sa {
        id: RequestId,
        change: SaChange,
    },
    /// Compares what the kernel has for this node's protected listeners with what the node has asked for since its start and
    /// what it adopts here: sets of an earlier run that it knows again. Policies that are missing are put back; what is marked
    /// as ours and unknown is removed; what is not ours is left alone. Answered by [`Event::SaAudited`], in turn with the
    /// answers to [`Action::Sa`].
    SaAudit {
        id: RequestId,
        side: SaSide,
        adopt: Vec<SaSet>,
    },
    Store {
        id: RequestId,
        request: StoreRequest,
    },
    /// Keep this; a later one with the same key takes its place. It is written before the actions after it are performed:
    /// a message that was sent after a Put never outlives it when the process is killed. There is no answer.
    Put(Kept),
    /// Forget what is kept under this key, if anything is.
    Delete {
        key: String,
    },
    Reply {
        id: CommandId,
        result: Result<serde_json::Value, Problem>,
    },
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Restored(kept) => f.debug_tuple("Restored").field(kept).finish(),
            Self::Start => f.write_str("Start"),
            Self::Sip(packet) => f.debug_tuple("Sip").field(packet).finish(),
            Self::SipFailed { tag, flow, error } => {
                f.debug_tuple("SipFailed").field(tag).field(flow).field(error).finish()
            }
            Self::FlowClosed(conn) => f.debug_tuple("FlowClosed").field(conn).finish(),
            Self::LinkUp { link, peer, remote } => {
                f.debug_tuple("LinkUp").field(link).field(peer).field(remote).finish()
            }
            Self::LinkDown { link, peer } => f.debug_tuple("LinkDown").field(link).field(peer).finish(),
            Self::Diameter { link, bytes } => f.debug_tuple("Diameter").field(link).field(&Unread(bytes)).finish(),
            Self::Dns { id, answer } => f.debug_tuple("Dns").field(id).field(answer).finish(),
            Self::Sa { id, result } => f.debug_tuple("Sa").field(id).field(result).finish(),
            Self::SaAudited { id, result } => f.debug_tuple("SaAudited").field(id).field(result).finish(),
            Self::SaExpired(expiry) => f.debug_tuple("SaExpired").field(expiry).finish(),
            Self::Stored { id, result } => f.debug_tuple("Stored").field(id).field(result).finish(),
            Self::Command(command) => command.fmt(f),
            Self::Timeout => f.write_str("Timeout"),
            Self::Stop => f.write_str("Stop"),
        }
    }
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SendSip { flow, bytes, tag } => {
                f.debug_tuple("SendSip").field(flow).field(&Unread(bytes)).field(tag).finish()
            }
            Self::CloseFlow(conn) => f.debug_tuple("CloseFlow").field(conn).finish(),
            Self::Connect { peer, target } => f.debug_tuple("Connect").field(peer).field(target).finish(),
            Self::SendDiameter { link, bytes } => {
                f.debug_tuple("SendDiameter").field(link).field(&Unread(bytes)).finish()
            }
            Self::CloseLink(link) => f.debug_tuple("CloseLink").field(link).finish(),
            Self::Dns { id, query } => f.debug_tuple("Dns").field(id).field(query).finish(),
            Self::Sa { id, change } => f.debug_tuple("Sa").field(id).field(change).finish(),
            Self::SaAudit { id, side, adopt } => f.debug_tuple("SaAudit").field(id).field(side).field(adopt).finish(),
            Self::Store { id, request } => f.debug_tuple("Store").field(id).field(request).finish(),
            Self::Put(kept) => f.debug_tuple("Put").field(kept).finish(),
            Self::Delete { key } => f.debug_tuple("Delete").field(key).finish(),
            Self::Reply { id, result } => f.debug_tuple("Reply").field(id).field(&result.as_ref().map(|_| ())).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CommandId;
    use crate::sa::{AuthAlg, EncAlg, SaKeys, Suite};
    use crate::store::Record;

    const KEY: &[u8; 16] = b"Zq7Xw9Kv3Jy5Hu1G";

    fn text() -> String {
        String::from_utf8_lossy(KEY).into_owned()
    }

    /// The key as text, in hexadecimal, or as the list of numbers that a derived Debug makes of bytes, on one line or many.
    fn shows_the_key(printed: &str) -> bool {
        let flat: String = printed.to_lowercase().split_whitespace().collect();
        let hex: String = KEY.iter().map(|b| format!("{b:02x}")).collect();
        let list = KEY.map(|b| b.to_string()).join(",");
        [text().to_lowercase(), hex, list].iter().any(|form| flat.contains(form))
    }

    fn install() -> SaChange {
        let ip = "127.0.0.1".parse().unwrap();
        let suite = Suite { alg: AuthAlg::HmacSha1_96, ealg: EncAlg::Null };
        let (port_uc, port_us, port_pc, port_ps) = (5, 6, 7, 8);
        let set = SaSet {
            ue: ip,
            pcscf: ip,
            spi_uc: 1,
            spi_us: 2,
            spi_pc: 3,
            spi_ps: 4,
            port_uc,
            port_us,
            port_pc,
            port_ps,
            suite,
        };
        let keys = SaKeys { ck: (*KEY).into(), ik: (*KEY).into() };
        SaChange::Install { set, keys, side: SaSide::Ue, expires: Time::EPOCH }
    }

    #[test]
    fn a_key_does_not_come_out_of_any_event() {
        let flow = Flow::udp("127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap());
        let (id, bytes) = (RequestId(1), Bytes::from_static(KEY));
        let record = || Record { id: 1, version: 2, body: KEY.to_vec(), state: KEY.to_vec() };
        let stored = |reply| Event::Stored { id, result: Ok(reply) };
        let args = serde_json::json!({ "k": text() });
        for event in [
            Event::Sip(Packet { flow, bytes: bytes.clone() }),
            Event::Diameter { link: LinkId(1), bytes },
            stored(StoreReply::Loaded(Some(record()))),
            stored(StoreReply::Listed(vec![record()])),
            Event::Restored(vec![Kept { key: "k".into(), value: Bytes::from_static(KEY) }]),
            Event::Command(Command { id: CommandId(1), call: "subscriber.create".into(), args }),
        ] {
            let shown = format!("{event:?} {event:#?}");
            assert!(!shows_the_key(&shown), "{shown}");
        }
    }

    #[test]
    fn a_key_does_not_come_out_of_any_action() {
        let flow = Flow::udp("127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap());
        let (id, bytes) = (RequestId(1), Bytes::from_static(KEY));
        let (sort, keys, part) = (String::new, Vec::new, || KEY.to_vec());
        let store = |request| Action::Store { id, request };
        for action in [
            Action::SendSip { flow, bytes: bytes.clone(), tag: SendTag(1) },
            Action::SendDiameter { link: LinkId(1), bytes },
            Action::Sa { id, change: install() },
            store(StoreRequest::Insert { sort: sort(), keys: keys(), body: part(), state: part() }),
            store(StoreRequest::Replace { id: 1, version: 2, sort: sort(), keys: keys(), body: part(), state: part() }),
            store(StoreRequest::Commit { id: 1, version: 2, state: part() }),
            Action::Put(Kept { key: "k".into(), value: Bytes::from_static(KEY) }),
            Action::Reply { id: CommandId(1), result: Ok(serde_json::json!({ "k": text() })) },
        ] {
            let shown = format!("{action:?} {action:#?}");
            assert!(!shows_the_key(&shown), "{shown}");
        }
    }

    #[test]
    fn the_test_itself_knows_a_key_when_it_sees_one() {
        assert!(shows_the_key(&format!("{KEY:#?}")) && shows_the_key(&format!("{:?}", text())));
    }
}
