//! SIP over TCP (RFC 3261 18): connections that are reused, framed, limited, and closed when idle.
//!
//! Between nodes of one process a connection is an entry in a table, with an identity at either end.

use crate::pace;
use crate::sip_udp::flow_error;
use crate::tcp::{self, Limit, Place};
use crate::world::{NodeIndex, World, lock};
use bytes::{Bytes, BytesMut};
use ims_core::{ConnId, Event, Flow, FlowError, Packet, SendTag, Transport};
use ims_sip::stream::{Frame, Framer, is_response};
use socket2::SockRef;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::debug;

/// How long a connection that is being closed may take to send what waits.
const LINGER: Duration = Duration::from_secs(1);
/// Requests remembered, to tell whose answer will not come when the connection ends.
const REMEMBERED: usize = 1_024;
/// The answer to a keep-alive ping (RFC 5626 4.4.1).
const PONG: Bytes = Bytes::from_static(b"\r\n");

struct Outgoing {
    bytes: Bytes,
    tag: SendTag,
}

/// An open connection, or one being opened.
enum Connection {
    Socket {
        node: NodeIndex,
        queue: mpsc::Sender<Outgoing>,
        close: Arc<Notify>,
        flow: Flow,
    },
    /// To a node of this process, which knows it as `peer`.
    Inside {
        node: NodeIndex,
        peer: ConnId,
        peer_flow: Flow,
        owner: NodeIndex,
    },
}

#[derive(Default)]
struct Table {
    by_id: HashMap<ConnId, Connection>,
    /// By owner, local address as the node names it, and remote address.
    by_pair: HashMap<(NodeIndex, SocketAddr, SocketAddr), ConnId>,
}

#[derive(Default)]
pub(crate) struct Connections(Mutex<Table>);

impl Connections {
    /// Closes after what waits has been sent. The node is told by `FlowClosed`.
    pub(crate) fn close(&self, world: &World, conn: ConnId) {
        let mut table = lock(&self.0);
        match table.by_id.get(&conn) {
            None => {}
            Some(Connection::Socket { close, .. }) => close.notify_one(),
            Some(Connection::Inside { node, peer, owner, .. }) => {
                let (node, peer, owner) = (*node, *peer, *owner);
                for id in [conn, peer] {
                    table.by_id.remove(&id);
                }
                table.by_pair.retain(|_, id| *id != conn && *id != peer);
                world.inbox(owner).push(Event::FlowClosed(conn));
                world.inbox(node).push(Event::FlowClosed(peer));
            }
        }
    }

    /// Of a node: open connections with others, and messages that wait on them.
    pub(crate) fn load(&self, of: NodeIndex) -> (usize, usize) {
        let table = lock(&self.0);
        let queues = table.by_id.values().filter_map(|connection| match connection {
            Connection::Socket { node, queue, .. } if *node == of => Some(queue.max_capacity() - queue.capacity()),
            _ => None,
        });
        queues.fold((0, 0), |(open, waiting), queue| (open + 1, waiting + queue))
    }

    fn forget(&self, conn: ConnId, keys: &[(NodeIndex, SocketAddr, SocketAddr)]) {
        let mut table = lock(&self.0);
        table.by_id.remove(&conn);
        for key in keys {
            if table.by_pair.get(key) == Some(&conn) {
                table.by_pair.remove(key);
            }
        }
    }
}

/// Sends on the connection that the flow names, or on one between its addresses, opened if need be.
pub(crate) fn send(
    world: &Arc<World>,
    node: NodeIndex,
    flow: Flow,
    bytes: Bytes,
    tag: SendTag,
) -> Result<(), FlowError> {
    let mut table = lock(&world.connections.0);
    let conn = match flow.conn {
        Some(conn) => conn,
        None => match table.by_pair.get(&(node, flow.local, flow.remote)) {
            Some(conn) => *conn,
            None if flow.remote.port() == 0 => return Err(FlowError::Unreachable),
            None => match world.neighbour(&flow) {
                Some(there) => table.open_inside(world, node, there, flow),
                None => table.open(world, node, flow),
            },
        },
    };
    match table.by_id.get(&conn) {
        None => Err(FlowError::Closed),
        Some(Connection::Socket { queue, .. }) => queue.try_send(Outgoing { bytes, tag }).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => {
                world.nodes[node].meters.sip.queue_full.fetch_add(1, Ordering::Relaxed);
                FlowError::QueueFull
            }
            mpsc::error::TrySendError::Closed(_) => FlowError::Closed,
        }),
        Some(Connection::Inside { node, peer_flow, .. }) => {
            let packet = Packet { flow: *peer_flow, bytes };
            if world.inbox(*node).offer_reserved(Event::Sip(packet)) { Ok(()) } else { Err(FlowError::QueueFull) }
        }
    }
}

impl Table {
    fn open_inside(&mut self, world: &World, here: NodeIndex, there: NodeIndex, flow: Flow) -> ConnId {
        let (near, far) = (ConnId(world.ids.next()), ConnId(world.ids.next()));
        let mut source = flow.local;
        if source.port() == 0 {
            source.set_port(world.ids.pseudo_port());
        }
        let near_flow = Flow { transport: Transport::Tcp, local: source, remote: flow.remote, conn: Some(near) };
        let far_flow = Flow { transport: Transport::Tcp, local: flow.remote, remote: source, conn: Some(far) };
        self.by_id.insert(near, Connection::Inside { node: there, peer: far, peer_flow: far_flow, owner: here });
        self.by_id.insert(far, Connection::Inside { node: here, peer: near, peer_flow: near_flow, owner: there });
        self.by_pair.insert((here, flow.local, flow.remote), near);
        self.by_pair.insert((there, flow.remote, source), far);
        near
    }

    /// The connection is there at once, for what is sent meanwhile to wait in its queue.
    fn open(&mut self, world: &Arc<World>, node: NodeIndex, flow: Flow) -> ConnId {
        let (task, conn) = self.enter(world, node, flow);
        let limit = world.settings.tcp_connect.0;
        let world_here = world.clone();
        world.tasks.spawn(async move {
            let opened = tcp::connect(Some(flow.local), flow.remote, limit).await;
            let opened = opened.and_then(|stream| stream.local_addr().map(|local| (stream, local)));
            match opened {
                Ok((stream, local)) => task.run(world_here, stream, local, None).await,
                Err(error) => {
                    debug!(%flow, %error, "cannot connect");
                    task.fail(&world_here, flow_error(&error));
                }
            }
        });
        conn
    }

    fn enter(&mut self, world: &World, node: NodeIndex, flow: Flow) -> (ConnectionTask, ConnId) {
        let conn = ConnId(world.ids.next());
        let (queue, waiting) = mpsc::channel(world.settings.tcp_queue.max(1));
        let close = Arc::new(Notify::new());
        let flow = Flow { conn: Some(conn), ..flow };
        let entry = Connection::Socket { node, queue: queue.clone(), close: close.clone(), flow };
        self.by_id.insert(conn, entry);
        self.by_pair.insert((node, flow.local, flow.remote), conn);
        (ConnectionTask { node, conn, asked: flow, queue: queue.downgrade(), waiting, close }, conn)
    }
}

/// Accepts until the shell ends.
pub(crate) async fn serve(world: Arc<World>, node: NodeIndex, listener: TcpListener, local: SocketAddr) {
    let limit = Limit::new(&world.settings);
    let meters = world.nodes[node].meters.clone();
    while let Some((stream, remote, place)) = tcp::accept(&listener, &limit, &meters.sip).await {
        let (task, _) = lock(&world.connections.0).enter(&world, node, Flow::tcp(local, remote));
        let world_here = world.clone();
        world.tasks.spawn(async move { task.run(world_here, stream, local, Some(place)).await });
    }
}

struct ConnectionTask {
    node: NodeIndex,
    conn: ConnId,
    asked: Flow,
    queue: mpsc::WeakSender<Outgoing>,
    waiting: mpsc::Receiver<Outgoing>,
    close: Arc<Notify>,
}

impl ConnectionTask {
    async fn run(mut self, world: Arc<World>, stream: TcpStream, local: SocketAddr, place: Option<Place>) {
        let flow = Flow { local, ..self.asked };
        let keys = [(self.node, self.asked.local, flow.remote), (self.node, local, flow.remote)];
        {
            let mut table = lock(&world.connections.0);
            table.by_pair.entry(keys[1]).or_insert(self.conn);
            if let Some(Connection::Socket { flow: known, .. }) = table.by_id.get_mut(&self.conn) {
                *known = flow;
            }
        }
        let ours = place.is_none() && self.asked.local.port() != 0;
        let (read_half, mut write_half) = stream.into_split();
        let activity = Activity::new();
        let mut closed_by_us = true;
        let mut sent = Sent::default();
        let ended = {
            let reader = read_messages(&world, self.node, flow, read_half, &self.queue, &activity);
            let writer = write_messages(&mut self.waiting, &mut write_half, &activity, &mut sent);
            tokio::select! {
                why = reader => { closed_by_us = why.is_some(); why }
                error = writer => { closed_by_us = false; Some(error) }
                () = self.close.notified() => Some("the node closed it".into()),
            }
        };
        debug!(%flow, reason = ended.as_deref().unwrap_or("the peer closed it"), "connection closed");
        world.connections.forget(self.conn, &keys);
        // Nothing can be queued any more; what is, is sent if the peer takes it soon.
        self.waiting.close();
        let _ = timeout(LINGER, write_messages(&mut self.waiting, &mut write_half, &activity, &mut sent)).await;
        for tag in sent.0 {
            world.sip_failed(self.node, tag, flow, FlowError::Closed);
        }
        self.refuse_waiting(&world, flow, FlowError::Closed);
        if closed_by_us && ours {
            // Closing first from a fixed port would keep the pair of addresses in TIME_WAIT, and the next connection could not
            // be opened for a minute. What was sent has had its time to arrive.
            tokio::time::sleep(LINGER / 4).await;
            let _ = SockRef::from(write_half.as_ref()).set_linger(Some(Duration::ZERO));
        } else {
            let _ = write_half.shutdown().await;
        }
        drop(place);
        world.inbox(self.node).push(Event::FlowClosed(self.conn));
    }

    fn fail(mut self, world: &World, error: FlowError) {
        world.connections.forget(self.conn, &[(self.node, self.asked.local, self.asked.remote)]);
        self.waiting.close();
        let flow = self.asked;
        self.refuse_waiting(world, flow, error);
        world.inbox(self.node).push(Event::FlowClosed(self.conn));
    }

    fn refuse_waiting(&mut self, world: &World, flow: Flow, error: FlowError) {
        while let Ok(unsent) = self.waiting.try_recv() {
            world.sip_failed(self.node, unsent.tag, flow, error);
        }
    }
}

/// The requests that were written last, whose node wants to know what becomes of them. It knows which were answered.
#[derive(Default)]
struct Sent(VecDeque<SendTag>);

impl Sent {
    fn note(&mut self, outgoing: &Outgoing) {
        if outgoing.tag.0 == 0 || is_response(&outgoing.bytes) {
            return;
        }
        if self.0.len() >= REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(outgoing.tag);
    }
}

/// When something last went through, in milliseconds since the connection began.
struct Activity {
    began: Instant,
    last: AtomicU64,
}

impl Activity {
    fn new() -> Self {
        Self { began: Instant::now(), last: AtomicU64::new(0) }
    }

    fn touch(&self) {
        let ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(ms, Ordering::Relaxed);
    }

    fn idle_at(&self, idle: Duration) -> Instant {
        self.began + Duration::from_millis(self.last.load(Ordering::Relaxed)) + idle
    }
}

/// Reads until the connection ends: None when the peer closed it, else why we do.
async fn read_messages(
    world: &World,
    node: NodeIndex,
    flow: Flow,
    mut half: OwnedReadHalf,
    queue: &mpsc::WeakSender<Outgoing>,
    activity: &Activity,
) -> Option<String> {
    let settings = &world.settings;
    let mut framer = Framer::new(settings.sip_message_limit);
    let mut buffer = BytesMut::with_capacity(8192);
    let mut complete_by: Option<Instant> = None;
    loop {
        loop {
            match framer.next(&mut buffer) {
                Ok(Some(Frame::Message(bytes))) => {
                    complete_by = None;
                    pace::arrived(1);
                    if !world.inbox(node).send(Event::Sip(Packet { flow, bytes })).await {
                        return Some("the node is gone".into());
                    }
                }
                Ok(Some(Frame::Ping)) => {
                    complete_by = None;
                    if let Some(queue) = queue.upgrade() {
                        // A peer that pings faster than it reads gets fewer answers.
                        let _ = queue.try_send(Outgoing { bytes: PONG, tag: SendTag(0) });
                    }
                }
                Ok(None) => break,
                Err(error) => return Some(error.to_string()),
            }
        }
        if buffer.is_empty() {
            complete_by = None;
        } else if complete_by.is_none() {
            complete_by = Some(Instant::now() + settings.tcp_message_time.0);
        }
        let deadline = complete_by.unwrap_or_else(|| activity.idle_at(settings.tcp_idle.0));
        match timeout_at(deadline, half.read_buf(&mut buffer)).await {
            Ok(Ok(0)) => return None,
            Ok(Ok(_)) => activity.touch(),
            Ok(Err(error)) => return if is_reset(&error) { None } else { Some(error.to_string()) },
            Err(_) if complete_by.is_some() => return Some("a message did not become complete in time".into()),
            Err(_) if activity.idle_at(settings.tcp_idle.0) > Instant::now() => {}
            Err(_) => return Some("idle".into()),
        }
    }
}

fn is_reset(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionReset
}

/// Writes what is queued; returns only on an error, or when the queue was closed and is empty.
async fn write_messages(
    waiting: &mut mpsc::Receiver<Outgoing>,
    half: &mut OwnedWriteHalf,
    activity: &Activity,
    sent: &mut Sent,
) -> String {
    while let Some(outgoing) = waiting.recv().await {
        sent.note(&outgoing);
        if let Err(error) = half.write_all(&outgoing.bytes).await {
            return error.to_string();
        }
        activity.touch();
    }
    "nothing is left to send".into()
}
