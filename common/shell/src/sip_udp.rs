//! SIP over UDP: one socket for each address, so that a datagram's local address is known and answers leave from it.

use crate::pace;
use crate::raw_socket::{self, AT_ONCE};
use crate::world::{NodeIndex, World, lock};
use bytes::Bytes;
use ims_core::{Event, Flow, FlowError, Packet, SendTag};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket as StdSocket};
use std::sync::{Arc, Mutex};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tracing::{debug, warn};

/// Datagrams read before other tasks get their turn: more than a node takes in one, so that what waits does so in its inbox, where
/// some of it comes first, and not in the kernel, which drops whatever comes last.
const BURST: usize = 512;
/// A datagram cannot be larger.
const LARGEST: usize = 65_535;
/// Sends remembered, to tell which one an ICMP error is about.
const REMEMBERED: usize = 2_048;

/// A bound socket, as the node's task uses it.
pub(crate) struct UdpPort {
    socket: Arc<StdSocket>,
    sent: Arc<Mutex<VecDeque<(SocketAddr, SendTag)>>>,
}

/// Binds `addr` (port 0: any). The second value goes to [`receive`].
pub(crate) fn bind(addr: SocketAddr, receive_buffer: usize, send_buffer: usize) -> io::Result<(UdpPort, UdpSocket)> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Without the privilege the kernel cuts these to its limits; what it grants is enough to run.
    if raw_socket::force_receive_buffer(&socket, receive_buffer).is_err() {
        let _ = socket.set_recv_buffer_size(receive_buffer);
    }
    let _ = socket.set_send_buffer_size(send_buffer);
    raw_socket::enable_error_queue(&socket, addr.is_ipv6())?;
    raw_socket::enable_arrival_times(&socket)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    let socket: StdSocket = socket.into();
    let receiver = UdpSocket::from_std(socket.try_clone()?)?;
    Ok((UdpPort { socket: Arc::new(socket), sent: Arc::default() }, receiver))
}

impl UdpPort {
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    pub(crate) fn send(&self, bytes: &[u8], to: SocketAddr, tag: SendTag) -> Result<(), FlowError> {
        if to.port() == 0 {
            return Err(FlowError::Unreachable);
        }
        if tag.0 != 0 {
            let mut sent = lock(&self.sent);
            if sent.len() >= REMEMBERED {
                sent.pop_front();
            }
            sent.push_back((to, tag));
        }
        // A socket reports the ICMP error of an earlier datagram at the next call: that is not about this one, which
        // goes out when tried again. The error itself is read from the error queue.
        let mut result = self.socket.send_to(bytes, to);
        for _ in 0..2 {
            match &result {
                Err(e) if matches!(e.kind(), ErrorKind::ConnectionRefused | ErrorKind::HostUnreachable) => {
                    result = self.socket.send_to(bytes, to);
                }
                _ => break,
            }
        }
        result.map(|_| ()).map_err(|e| flow_error(&e))
    }

    pub(crate) fn receiver(&self, node: NodeIndex, socket: UdpSocket, local: SocketAddr) -> Receiver {
        Receiver { node, socket, local, sent: self.sent.clone(), dropped: 0 }
    }
}

pub(crate) struct Receiver {
    node: NodeIndex,
    socket: UdpSocket,
    local: SocketAddr,
    sent: Arc<Mutex<VecDeque<(SocketAddr, SendTag)>>>,
    /// Datagrams that found the node's inbox full.
    dropped: u64,
}

impl Receiver {
    /// Until the shell ends.
    pub(crate) async fn run(mut self, world: Arc<World>) {
        // Only what datagrams fill of it becomes memory.
        let mut room = vec![0; AT_ONCE * LARGEST];
        loop {
            let Ok(ready) = self.socket.ready(Interest::READABLE | Interest::ERROR).await else { return };
            if ready.is_error() {
                self.read_errors(&world);
            }
            if !self.read_burst(&world, &mut room) {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Takes what has arrived; says whether that was all.
    fn read_burst(&mut self, world: &World, room: &mut [u8]) -> bool {
        for _ in 0..BURST / AT_ONCE {
            let (node, local, dropped) = (self.node, self.local, &mut self.dropped);
            let read = self.socket.try_io(Interest::READABLE, || {
                let count = raw_socket::receive_many(&self.socket, room, |bytes, remote, waited| {
                    let packet = Packet { flow: Flow::udp(local, remote), bytes: Bytes::copy_from_slice(bytes) };
                    if !world.inbox(node).offer(Event::Sip(packet), Some(waited)) {
                        *dropped += 1;
                        if dropped.is_power_of_two() {
                            warn!(%local, dropped, "overload: datagrams dropped, the node's inbox is full");
                        }
                    }
                })?;
                pace::arrived(count);
                // Fewer than there was room for: to say so here spares the call that would find nothing.
                if count < AT_ONCE { Err(ErrorKind::WouldBlock.into()) } else { Ok(()) }
            });
            match read {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return true,
                Err(_) => self.read_errors(world),
            }
        }
        false
    }

    /// Reads what ICMP said about datagrams of ours.
    fn read_errors(&self, world: &World) {
        let mut limit = BURST;
        let _ = self.socket.try_io(Interest::ERROR, || {
            while limit > 0 {
                limit -= 1;
                match raw_socket::read_error(&self.socket)? {
                    None => return Err(ErrorKind::WouldBlock.into()),
                    Some((remote, errno)) => self.failed(world, remote, &io::Error::from_raw_os_error(errno)),
                }
            }
            Ok(())
        });
    }

    fn failed(&self, world: &World, remote: SocketAddr, error: &io::Error) {
        let error = flow_error(error);
        debug!(local = %self.local, %remote, %error, "ICMP");
        let mut tags = Vec::new();
        lock(&self.sent).retain(|(to, tag)| {
            let hit = *to == remote;
            if hit && !tags.contains(tag) {
                tags.push(*tag);
            }
            !hit
        });
        for tag in tags {
            world.sip_failed(self.node, tag, Flow::udp(self.local, remote), error);
        }
    }
}

/// What an error of the socket API means to a node.
pub(crate) fn flow_error(error: &io::Error) -> FlowError {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => FlowError::Refused,
        Some(libc::ETIMEDOUT) => FlowError::TimedOut,
        Some(libc::EMSGSIZE) => FlowError::TooLarge,
        Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => FlowError::QueueFull,
        Some(libc::EADDRNOTAVAIL | libc::EADDRINUSE) => FlowError::NoSocket,
        Some(libc::ECONNRESET | libc::EPIPE | libc::ECONNABORTED | libc::ENOTCONN) => FlowError::Closed,
        _ => match error.kind() {
            ErrorKind::TimedOut => FlowError::TimedOut,
            ErrorKind::UnexpectedEof => FlowError::Closed,
            _ => FlowError::Unreachable,
        },
    }
}
