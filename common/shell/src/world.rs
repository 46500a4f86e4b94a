//! What all tasks of one shell share: who listens where, open connections, and the services.

use crate::Settings;
use crate::diameter_tcp::Links;
use crate::dns::Dns;
use crate::inbox::Inbox;
use crate::node_task::Tap;
use crate::sip_tcp::Connections;
use crate::sip_udp::UdpPort;
use crate::store::StoreJob;
use crate::xfrm::SaJob;
use ims_core::{Event, Flow, FlowError, Packet, SendTag, Time, Transport};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// A node's number within its shell.
pub(crate) type NodeIndex = usize;

pub(crate) struct World {
    pub(crate) settings: Settings,
    pub(crate) clock: Clock,
    pub(crate) nodes: Vec<Seat>,
    pub(crate) udp: HashMap<SocketAddr, UdpPort>,
    /// Addresses bound for SIP, and by whom.
    pub(crate) sip: HashMap<SocketAddr, Bound>,
    /// Addresses bound for Diameter, and by whom.
    pub(crate) diameter: HashMap<SocketAddr, NodeIndex>,
    pub(crate) connections: Connections,
    pub(crate) links: Links,
    pub(crate) dns: Dns,
    pub(crate) stores: HashMap<NodeIndex, mpsc::Sender<StoreJob>>,
    pub(crate) sa: mpsc::Sender<SaJob>,
    pub(crate) sa_refused: AtomicU64,
    pub(crate) tasks: Tasks,
    pub(crate) ids: Ids,
    pub(crate) tap: Option<Tap>,
}

pub(crate) struct Seat {
    pub(crate) name: String,
    pub(crate) inbox: Inbox,
    pub(crate) meters: Arc<Meters>,
}

/// What the tasks around a node count.
#[derive(Default)]
pub(crate) struct Meters {
    pub(crate) sip: TcpMeters,
    pub(crate) diameter: TcpMeters,
    pub(crate) store_refused: AtomicU64,
}

#[derive(Default)]
pub(crate) struct TcpMeters {
    /// Connections beyond the limit.
    pub(crate) refused: AtomicU64,
    /// Messages beyond what may wait.
    pub(crate) queue_full: AtomicU64,
}

#[derive(Clone, Copy)]
pub(crate) struct Bound {
    pub(crate) node: NodeIndex,
    pub(crate) protected: bool,
}

impl World {
    pub(crate) fn inbox(&self, node: NodeIndex) -> &Inbox {
        &self.nodes[node].inbox
    }

    /// The node that `flow` reaches without leaving the process. What belongs inside IPsec always takes the kernel's way, or the
    /// protection would be a fiction.
    pub(crate) fn neighbour(&self, flow: &Flow) -> Option<NodeIndex> {
        let there = self.sip.get(&flow.remote)?;
        let here_protected = self.sip.get(&flow.local).is_some_and(|bound| bound.protected);
        (!there.protected && !here_protected).then_some(there.node)
    }

    /// Hands a datagram to the node that has bound `flow.remote`.
    pub(crate) fn deliver_datagram(&self, to: NodeIndex, flow: &Flow, bytes: bytes::Bytes) {
        let flow = Flow { transport: Transport::Udp, local: flow.remote, remote: flow.local, conn: None };
        self.inbox(to).offer(Event::Sip(Packet { flow, bytes }), None);
    }

    /// Tells the sender that a message went nowhere, if it wants to know.
    pub(crate) fn sip_failed(&self, node: NodeIndex, tag: SendTag, flow: Flow, error: FlowError) {
        if tag.0 != 0 {
            self.inbox(node).push(Event::SipFailed { tag, flow, error });
        }
    }
}

/// Time that never jumps: the wall clock at start, then the monotonic clock.
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    start: Time,
    at: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { start: Time::EPOCH + since_epoch, at: Instant::now() }
    }

    pub(crate) fn now(&self) -> Time {
        self.start + self.at.elapsed()
    }

    pub(crate) fn instant(&self, time: Time) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.at + time.since(self.start))
    }
}

/// Numbers for connections and links, unique within the process's life.
#[derive(Default)]
pub(crate) struct Ids(AtomicU64);

impl Ids {
    pub(crate) fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A port number to stand for the ephemeral port of a connection that is none.
    pub(crate) fn pseudo_port(&self) -> u16 {
        49_152 + u16::try_from(self.next() % 16_384).unwrap_or(0)
    }
}

/// Every task of the shell, so that all end with it.
#[derive(Default)]
pub(crate) struct Tasks(Mutex<JoinSet<()>>);

impl Tasks {
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut set = lock(&self.0);
        while set.try_join_next().is_some() {}
        set.spawn(task);
    }

    pub(crate) fn abort_all(&self) {
        lock(&self.0).abort_all();
    }
}

/// A lock whose holder never panics half-way through a change: a poisoned one is still good.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
