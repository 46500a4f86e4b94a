//! What a node is: events in, actions out.

use crate::command::{Command, CommandId, Problem};
use crate::dns::{DnsError, DnsQuery, DnsRecord};
use crate::sa::{SaChange, SaError, SaExpiry};
use crate::store::{StoreError, StoreReply, StoreRequest};
use crate::{Rng, Time};
use bytes::Bytes;
use std::fmt;
use std::net::SocketAddr;

/// A network element as a value: pure, and the same under the shell and under the simulator.
pub trait Node {
    /// Takes one event. Everything it wants done is appended to `ctx.actions`, and performed in that order.
    fn handle(&mut self, event: Event, ctx: &mut Ctx<'_>);

    /// When the node wants [`Event::Timeout`], if nothing else happens before.
    fn deadline(&self) -> Option<Time>;

    /// The state as an operator may see it: no keys.
    fn snapshot(&self) -> serde_json::Value;
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
#[derive(Clone, Debug)]
pub struct Packet {
    pub flow: Flow,
    pub bytes: Bytes,
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

/// What happens to a node.
#[derive(Debug)]
pub enum Event {
    /// The first event of every node.
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
    SaExpired(SaExpiry),
    Stored {
        id: RequestId,
        result: Result<StoreReply, StoreError>,
    },
    /// From the REST API or the console; answered by [`Action::Reply`].
    Command(Command),
    /// The deadline has come.
    Timeout,
}

/// What a node wants done. Actions are performed in order.
#[derive(Debug)]
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
    Store {
        id: RequestId,
        request: StoreRequest,
    },
    Reply {
        id: CommandId,
        result: Result<serde_json::Value, Problem>,
    },
}
