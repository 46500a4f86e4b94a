//! Diameter over TCP (RFC 6733 2.1): links, their framing, and links between nodes of one process.

use crate::pace;
use crate::tcp::{self, Limit};
use crate::world::{NodeIndex, World, lock};
use bytes::{Bytes, BytesMut};
use ims_core::{Event, LinkId, PeerId};
use ims_diameter::stream::frame_length;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;
use tracing::{debug, warn};

/// Time for what waits when a link is closed: the DPA above all.
const LINGER: Duration = Duration::from_secs(1);
/// Room for one read.
const READ: usize = 16_384;
/// Messages gathered into one write.
const GATHER: usize = 64;

enum Link {
    Socket {
        node: NodeIndex,
        queue: mpsc::Sender<Bytes>,
        close: Arc<Notify>,
    },
    /// To a node of this process.
    Inside {
        owner: NodeIndex,
        peer: Option<PeerId>,
        node: NodeIndex,
        far: LinkId,
    },
}

#[derive(Default)]
pub(crate) struct Links {
    open: Mutex<HashMap<LinkId, Link>>,
    /// Connections that may still have something to send, though their link is gone.
    sockets: AtomicUsize,
}

impl Links {
    pub(crate) fn send(&self, world: &World, link: LinkId, bytes: Bytes) {
        let mut links = lock(&self.open);
        match links.get(&link) {
            None => debug!(link = link.0, "message for a link that is gone"),
            Some(Link::Inside { node, far, .. }) => {
                if !world.inbox(*node).offer_reserved(Event::Diameter { link: *far, bytes }) {
                    warn!(to = world.nodes[*node].name, "overload: a Diameter message was dropped");
                }
            }
            Some(Link::Socket { node, queue, close }) => {
                if let Err(mpsc::error::TrySendError::Full(_)) = queue.try_send(bytes) {
                    world.nodes[*node].meters.diameter.queue_full.fetch_add(1, Ordering::Relaxed);
                    warn!(link = link.0, "the Diameter peer does not read: link closed");
                    close.notify_one();
                    links.remove(&link);
                }
            }
        }
    }

    /// Closes after what waits has been sent. The node is told by `LinkDown`.
    pub(crate) fn close(&self, world: &World, link: LinkId) {
        let mut links = lock(&self.open);
        match links.get(&link) {
            None => {}
            Some(Link::Socket { close, .. }) => close.notify_one(),
            Some(Link::Inside { .. }) => {
                let Some(Link::Inside { owner, peer, node, far }) = links.remove(&link) else { return };
                let far_peer = match links.remove(&far) {
                    Some(Link::Inside { peer, .. }) => peer,
                    _ => None,
                };
                world.inbox(owner).push(Event::LinkDown { link: Some(link), peer });
                world.inbox(node).push(Event::LinkDown { link: Some(far), peer: far_peer });
            }
        }
    }

    /// Whether every link is closed, and what was sent has left.
    pub(crate) fn all_closed(&self) -> bool {
        lock(&self.open).is_empty() && self.sockets.load(Ordering::Acquire) == 0
    }

    /// Of a node: open connections with others, and messages that wait on them.
    pub(crate) fn load(&self, of: NodeIndex) -> (usize, usize) {
        let links = lock(&self.open);
        let queues = links.values().filter_map(|link| match link {
            Link::Socket { node, queue, .. } if *node == of => Some(queue.max_capacity() - queue.capacity()),
            _ => None,
        });
        queues.fold((0, 0), |(open, waiting), queue| (open + 1, waiting + queue))
    }

    fn insert(&self, id: LinkId, link: Link) {
        lock(&self.open).insert(id, link);
    }
}

/// Opens a link to `target` (`host:port`), and tells the node by `LinkUp` or `LinkDown`.
pub(crate) fn connect(world: &Arc<World>, node: NodeIndex, peer: PeerId, target: String) {
    if let Some(there) = target.parse().ok().and_then(|addr| neighbour(world, node, addr)) {
        connect_inside(world, node, peer, there.0, there.1);
        return;
    }
    let world_here = world.clone();
    world.tasks.spawn(async move {
        let world = world_here;
        match open(&world, node, &target).await {
            Ok(Opened::Inside(addr, there)) => connect_inside(&world, node, peer, addr, there),
            Ok(Opened::Stream(stream, remote)) => run_link(world, node, Some(peer), stream, remote).await,
            Err(error) => {
                debug!(target, %error, "cannot open a Diameter link");
                world.inbox(node).push(Event::LinkDown { link: None, peer: Some(peer) });
            }
        }
    });
}

fn neighbour(world: &World, node: NodeIndex, addr: SocketAddr) -> Option<(SocketAddr, NodeIndex)> {
    world.diameter.get(&addr).filter(|there| **there != node).map(|there| (addr, *there))
}

fn connect_inside(world: &World, node: NodeIndex, peer: PeerId, addr: SocketAddr, there: NodeIndex) {
    let (near, far) = (LinkId(world.ids.next()), LinkId(world.ids.next()));
    world.links.insert(near, Link::Inside { owner: node, peer: Some(peer), node: there, far });
    world.links.insert(far, Link::Inside { owner: there, peer: None, node, far: near });
    let loopback = if addr.is_ipv4() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { IpAddr::V6(Ipv6Addr::LOCALHOST) };
    let source = SocketAddr::new(loopback, world.ids.pseudo_port());
    world.inbox(there).push(Event::LinkUp { link: far, peer: None, remote: source });
    world.inbox(node).push(Event::LinkUp { link: near, peer: Some(peer), remote: addr });
}

enum Opened {
    Inside(SocketAddr, NodeIndex),
    Stream(TcpStream, SocketAddr),
}

/// Tries each address of the target in turn.
async fn open(world: &World, node: NodeIndex, target: &str) -> io::Result<Opened> {
    let limit = world.settings.tcp_connect.0;
    let addresses = timeout(limit, tokio::net::lookup_host(target)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for addr in addresses.take(8) {
        if let Some((addr, there)) = neighbour(world, node, addr) {
            return Ok(Opened::Inside(addr, there));
        }
        match tcp::connect(None, addr, limit).await {
            Ok(stream) => return Ok(Opened::Stream(stream, addr)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Accepts until the shell ends.
pub(crate) async fn serve(world: Arc<World>, node: NodeIndex, listener: TcpListener) {
    let limit = Limit::new(&world.settings);
    let meters = world.nodes[node].meters.clone();
    while let Some((stream, remote, place)) = tcp::accept(&listener, &limit, &meters.diameter).await {
        let world_here = world.clone();
        world.tasks.spawn(async move {
            run_link(world_here, node, None, stream, remote).await;
            drop(place);
        });
    }
}

async fn run_link(world: Arc<World>, node: NodeIndex, peer: Option<PeerId>, stream: TcpStream, remote: SocketAddr) {
    let link = LinkId(world.ids.next());
    let _counted = Counted::new(&world);
    let (queue, mut waiting) = mpsc::channel(world.settings.tcp_queue.max(GATHER) * 4);
    let close = Arc::new(Notify::new());
    world.links.insert(link, Link::Socket { node, queue, close: close.clone() });
    world.inbox(node).push(Event::LinkUp { link, peer, remote });
    let (read_half, mut write_half) = stream.into_split();
    let ended = tokio::select! {
        error = read_messages(&world, node, link, read_half) => error,
        error = write_messages(&mut waiting, &mut write_half) => error,
        () = close.notified() => "the node closed it".into(),
    };
    debug!(%remote, reason = ended, "Diameter link closed");
    lock(&world.links.open).remove(&link);
    waiting.close();
    let _ = timeout(LINGER, write_messages(&mut waiting, &mut write_half)).await;
    let _ = write_half.shutdown().await;
    world.inbox(node).push(Event::LinkDown { link: Some(link), peer });
}

/// Counts a connection as long as its task lives.
struct Counted(Arc<World>);

impl Counted {
    fn new(world: &Arc<World>) -> Self {
        world.links.sockets.fetch_add(1, Ordering::AcqRel);
        Self(world.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.links.sockets.fetch_sub(1, Ordering::AcqRel);
    }
}

async fn read_messages(world: &World, node: NodeIndex, link: LinkId, mut half: OwnedReadHalf) -> String {
    let mut buffer = BytesMut::with_capacity(READ);
    loop {
        match next_message(&mut buffer, world.settings.diameter_message_limit) {
            Ok(Some(bytes)) => {
                pace::arrived(1);
                if !world.inbox(node).send(Event::Diameter { link, bytes }).await {
                    return "the node is gone".into();
                }
            }
            Ok(None) => match half.read_buf(&mut buffer).await {
                Ok(0) => return "the peer closed it".into(),
                Ok(_) => {}
                Err(error) => return error.to_string(),
            },
            Err(reason) => return reason,
        }
    }
}

/// Cuts one message off the stream. One that cannot be followed any further is an error.
fn next_message(buffer: &mut BytesMut, limit: usize) -> Result<Option<Bytes>, String> {
    match frame_length(buffer).map_err(|error| error.to_string())? {
        Some(length) if length <= limit => Ok(Some(buffer.split_to(length).freeze())),
        None if buffer.len() <= limit => {
            // What a peer announces is only believed as it arrives.
            buffer.reserve(READ);
            Ok(None)
        }
        _ => Err(format!("a Diameter message is larger than diameter_message_limit, {limit} bytes")),
    }
}

/// Several messages that wait go out in one write. Ends on an error, or when the queue was closed and is empty.
async fn write_messages(waiting: &mut mpsc::Receiver<Bytes>, half: &mut OwnedWriteHalf) -> String {
    let mut batch = Vec::with_capacity(GATHER);
    let mut joined = Vec::new();
    while waiting.recv_many(&mut batch, GATHER).await > 0 {
        let written = match &batch[..] {
            [one] => half.write_all(one).await,
            many => {
                joined.clear();
                many.iter().for_each(|bytes| joined.extend_from_slice(bytes));
                half.write_all(&joined).await
            }
        };
        batch.clear();
        if let Err(error) = written {
            return error.to_string();
        }
    }
    "nothing is left to send".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(bytes: &[u8]) -> Result<Option<usize>, String> {
        next_message(&mut BytesMut::from(bytes), 1000).map(|m| m.map(|b| b.len()))
    }

    #[test]
    fn only_whole_messages_of_believable_length_come_out() {
        let mut message = vec![1, 0, 0, 24];
        message.resize(30, 0);
        assert_eq!(cut(&message), Ok(Some(24)));
        assert_eq!(cut(&message[..23]), Ok(None));
        assert_eq!(cut(&[]), Ok(None));
        assert!(cut(&[1, 0, 0, 0]).is_err());
        assert!(cut(&[1, 0, 0, 19]).is_err());
        assert!(cut(&[1, 0, 0, 21]).is_err());
        assert!(cut(&[1, 0xff, 0xff, 0xfc]).is_err());
        assert!(cut(b"GET / HTTP/1.1\r\n").is_err());
        assert!(cut(b"G").is_err(), "as soon as it is seen");
        let mut large = vec![1, 0, 8, 0];
        assert_eq!(cut(&large), Ok(None));
        large.resize(1001, 0);
        assert!(cut(&large).is_err(), "no more than the limit is held for a message that announces more");
        large.resize(2048, 0);
        assert!(cut(&large).is_err());
    }
}
