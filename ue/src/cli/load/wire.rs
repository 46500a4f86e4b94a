//! The sockets of all handsets: a few for UDP, one connection for each handset that speaks TCP, and one place that waits.

use super::place::{Places, addressee};
use bytes::{Bytes, BytesMut};
use ims_core::{ConnId, Flow, FlowError, SendTag};
use ims_sip::stream::{Frame, Framer};
use mio::net::{TcpStream, UdpSocket};
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, MsgHdr, Protocol, SockAddr, SockRef, Socket, Type};
use std::collections::HashMap;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// Messages taken from one socket before the others have their turn.
const TURN: usize = 128;
/// Largest SIP message on a connection.
const MESSAGE: usize = 65_536;

/// What came in, and for whom.
pub(super) enum Arrived {
    Message {
        owner: u32,
        flow: Flow,
        bytes: Bytes,
    },
    /// For nobody we know.
    Stray,
    /// What was sent with this tag did not arrive, as far as TCP can tell.
    Failed {
        owner: u32,
        flow: Flow,
        tag: SendTag,
        error: FlowError,
    },
    Closed {
        owner: u32,
        conn: ConnId,
    },
}

struct Connection {
    owner: u32,
    flow: Flow,
    stream: TcpStream,
    connected: bool,
    framer: Framer,
    incoming: BytesMut,
    outgoing: BytesMut,
    /// Of what was sent last and is not answered yet.
    tag: Option<SendTag>,
}

pub(super) struct Wire {
    poll: Poll,
    events: Events,
    places: Places,
    udp: Vec<(u16, UdpSocket)>,
    by_port: HashMap<u16, usize>,
    /// UDP sockets that may hold more.
    ready: Vec<usize>,
    connections: HashMap<usize, Connection>,
    by_owner: HashMap<u32, usize>,
    next: usize,
    buffer: Vec<u8>,
}

impl Wire {
    /// Opens the UDP sockets of all places, and of `more` ports.
    pub(super) fn open(places: &Places, more: &[u16], udp: bool) -> Result<Self, String> {
        let poll = Poll::new().map_err(|e| e.to_string())?;
        let v6 = places.address(0).is_ipv6();
        let ports = places.ports().filter(|_| udp).chain(more.iter().copied());
        let mut sockets = Vec::new();
        for port in ports {
            let mut socket = open_udp(port, v6).map_err(|e| match e.raw_os_error() {
                Some(24) => format!("port {port}: {e}: raise `ulimit -n`, or give more --addresses"),
                _ => format!("port {port}: {e}"),
            })?;
            let token = Token(sockets.len());
            poll.registry().register(&mut socket, token, Interest::READABLE).map_err(|e| e.to_string())?;
            sockets.push((port, socket));
        }
        Ok(Self {
            poll,
            events: Events::with_capacity(1024),
            places: places.clone(),
            by_port: sockets.iter().enumerate().map(|(at, (port, _))| (*port, at)).collect(),
            ready: Vec::new(),
            connections: HashMap::new(),
            by_owner: HashMap::new(),
            next: sockets.len(),
            udp: sockets,
            buffer: vec![0; MESSAGE],
        })
    }

    /// False when the socket did not take it: as good as lost, the transaction repeats it.
    pub(super) fn send_udp(&self, flow: &Flow, bytes: &[u8]) -> bool {
        let Some((_, socket)) = self.by_port.get(&flow.local.port()).and_then(|at| self.udp.get(*at)) else {
            return false;
        };
        let to = SockAddr::from(flow.remote);
        let control = packet_info(flow.local.ip());
        let parts = [IoSlice::new(bytes)];
        let message = MsgHdr::new().with_addr(&to).with_buffers(&parts).with_control(control.bytes());
        SockRef::from(socket).sendmsg(&message, 0).is_ok()
    }

    /// Sends on the handset's connection, opened first where there is none.
    pub(super) fn send_tcp(&mut self, owner: u32, flow: &Flow, bytes: &[u8], tag: SendTag) -> Result<(), FlowError> {
        let token = match self.by_owner.get(&owner) {
            Some(token) => *token,
            None => self.connect(owner, flow).map_err(|e| flow_error(&e))?,
        };
        let Some(connection) = self.connections.get_mut(&token) else { return Err(FlowError::Closed) };
        connection.tag = Some(tag);
        connection.outgoing.extend_from_slice(bytes);
        if connection.connected {
            connection.flush().map_err(|e| flow_error(&e))?;
        }
        Ok(())
    }

    /// Closes the handset's connection, as a handset does that goes off.
    pub(super) fn hang_up(&mut self, owner: u32) {
        if let Some(token) = self.by_owner.remove(&owner) {
            self.connections.remove(&token);
        }
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.len()
    }

    fn connect(&mut self, owner: u32, flow: &Flow) -> io::Result<usize> {
        let socket = Socket::new(Domain::for_address(flow.remote), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        socket.bind(&SocketAddr::new(flow.local.ip(), 0).into())?;
        match socket.connect(&flow.remote.into()) {
            Ok(()) => {}
            // EINPROGRESS: the connection is being opened.
            Err(e) if e.raw_os_error() == Some(115) || e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
        let mut stream = TcpStream::from_std(socket.into());
        let token = self.next;
        self.next += 1;
        self.poll.registry().register(&mut stream, Token(token), Interest::READABLE | Interest::WRITABLE)?;
        let connection = Connection {
            owner,
            flow: Flow { conn: Some(ConnId(token as u64)), ..*flow },
            stream,
            connected: false,
            framer: Framer::new(MESSAGE),
            incoming: BytesMut::new(),
            outgoing: BytesMut::new(),
            tag: None,
        };
        self.connections.insert(token, connection);
        self.by_owner.insert(owner, token);
        Ok(token)
    }

    /// Waits for something to arrive, and gives what did.
    pub(super) fn wait(&mut self, patience: Duration, arrived: &mut Vec<Arrived>) -> io::Result<()> {
        let patience = if self.ready.is_empty() { patience } else { Duration::ZERO };
        match self.poll.poll(&mut self.events, Some(patience)) {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            other => other?,
        }
        let mut connections = Vec::new();
        for event in &self.events {
            let Token(token) = event.token();
            if token >= self.udp.len() {
                connections.push((token, event.is_writable()));
            } else if !self.ready.contains(&token) {
                self.ready.push(token);
            }
        }
        for at in std::mem::take(&mut self.ready) {
            if self.read_udp(at, arrived)? {
                self.ready.push(at);
            }
        }
        for (token, writable) in connections {
            self.serve(token, writable, arrived);
        }
        Ok(())
    }

    /// Whether there may be more.
    fn read_udp(&mut self, at: usize, arrived: &mut Vec<Arrived>) -> io::Result<bool> {
        let Some((port, socket)) = self.udp.get(at) else { return Ok(false) };
        for _ in 0..TURN {
            match socket.recv_from(&mut self.buffer) {
                Ok((length, from)) => {
                    let bytes = self.buffer.get(..length).unwrap_or_default();
                    let owner = addressee(bytes).and_then(|at| self.places.whose(at));
                    arrived.push(owner.map_or(Arrived::Stray, |owner| {
                        let local = SocketAddr::new(self.places.address(owner), *port);
                        Arrived::Message { owner, flow: Flow::udp(local, from), bytes: Bytes::copy_from_slice(bytes) }
                    }));
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                // An ICMP error of some earlier datagram: the handset's timers notice.
                Err(e) if matches!(e.kind(), ErrorKind::ConnectionRefused | ErrorKind::Interrupted) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }

    fn serve(&mut self, token: usize, writable: bool, arrived: &mut Vec<Arrived>) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        let result = connection.serve(writable, &mut self.buffer, arrived);
        let Err(error) = result else { return };
        let Some(connection) = self.connections.remove(&token) else { return };
        let Connection { owner, flow, tag, .. } = connection;
        if self.by_owner.get(&owner) == Some(&token) {
            self.by_owner.remove(&owner);
        }
        if let Some(tag) = tag {
            arrived.push(Arrived::Failed { owner, flow, tag, error: flow_error(&error) });
        }
        arrived.push(Arrived::Closed { owner, conn: ConnId(token as u64) });
    }
}

impl Connection {
    /// An error, also the end of the stream, is the end of the connection.
    fn serve(&mut self, writable: bool, buffer: &mut [u8], arrived: &mut Vec<Arrived>) -> io::Result<()> {
        if writable {
            if !self.connected {
                if let Some(error) = self.stream.take_error()? {
                    return Err(error);
                }
                self.connected = true;
                self.flow.local = self.stream.local_addr()?;
            }
            self.flush()?;
        }
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Err(ErrorKind::ConnectionReset.into()),
                Ok(length) => self.incoming.extend_from_slice(buffer.get(..length).unwrap_or_default()),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        while let Some(frame) = self.framer.next(&mut self.incoming).map_err(|_| ErrorKind::InvalidData)? {
            if let Frame::Message(bytes) = frame {
                self.tag = None;
                arrived.push(Arrived::Message { owner: self.owner, flow: self.flow, bytes });
            }
        }
        if self.incoming.is_empty() {
            self.incoming = BytesMut::new();
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        while !self.outgoing.is_empty() {
            match self.stream.write(&self.outgoing) {
                Ok(length) => drop(self.outgoing.split_to(length)),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.outgoing = BytesMut::new();
        Ok(())
    }
}

fn flow_error(error: &io::Error) -> FlowError {
    match error.kind() {
        ErrorKind::ConnectionRefused => FlowError::Refused,
        ErrorKind::TimedOut => FlowError::TimedOut,
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::AddrNotAvailable => {
            FlowError::Unreachable
        }
        _ => FlowError::Closed,
    }
}

fn open_udp(port: u16, v6: bool) -> io::Result<UdpSocket> {
    let (domain, any) = if v6 {
        (Domain::IPV6, IpAddr::V6(Ipv6Addr::UNSPECIFIED))
    } else {
        (Domain::IPV4, IpAddr::V4(Ipv4Addr::UNSPECIFIED))
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if v6 {
        socket.set_only_v6(true)?;
    }
    // The kernel may grant less.
    let _ = socket.set_recv_buffer_size(16 << 20);
    let _ = socket.set_send_buffer_size(4 << 20);
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::new(any, port).into())?;
    Ok(UdpSocket::from_std(socket.into()))
}

/// A control message: `struct cmsghdr` and its data as Linux lays them out, padded to the alignment of `size_t`.
struct Control {
    bytes: [u8; 64],
    length: usize,
}

impl Control {
    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    fn new(level: i32, kind: i32, data: &[&[u8]]) -> Self {
        let size: usize = size_of::<usize>() + 8 + data.iter().map(|d| d.len()).sum::<usize>();
        let mut control = Self { bytes: [0; 64], length: size.next_multiple_of(size_of::<usize>()).min(64) };
        let head = [&size.to_ne_bytes()[..], &level.to_ne_bytes(), &kind.to_ne_bytes()];
        let all = head.iter().chain(data).flat_map(|part| part.iter());
        for (to, from) in control.bytes.iter_mut().zip(all) {
            *to = *from;
        }
        control
    }
}

/// Sets the source address of a datagram: IP_PKTINFO with `struct in_pktinfo` (ip(7)), IPV6_PKTINFO with
/// `struct in6_pktinfo` (ipv6(7)).
fn packet_info(source: IpAddr) -> Control {
    const IPPROTO_IP: i32 = 0;
    const IP_PKTINFO: i32 = 8;
    const IPPROTO_IPV6: i32 = 41;
    const IPV6_PKTINFO: i32 = 50;
    match source {
        IpAddr::V4(a) => Control::new(IPPROTO_IP, IP_PKTINFO, &[&[0; 4], &a.octets(), &[0; 4]]),
        IpAddr::V6(a) => Control::new(IPPROTO_IPV6, IPV6_PKTINFO, &[&a.octets(), &[0; 4]]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(first: &str, handsets: u32, port: u16, udp: bool) -> Wire {
        let places = Places::new(first.parse().unwrap(), handsets, handsets, port, false).unwrap();
        Wire::open(&places, &[], udp).unwrap()
    }

    /// A port that nothing had a moment ago.
    fn free_port(any: &str) -> u16 {
        std::net::UdpSocket::bind(any).unwrap().local_addr().unwrap().port()
    }

    fn wait_for(wire: &mut Wire) -> Vec<Arrived> {
        let mut arrived = Vec::new();
        for _ in 0..100 {
            wire.wait(Duration::from_millis(100), &mut arrived).unwrap();
            if !arrived.is_empty() {
                break;
            }
        }
        arrived
    }

    #[test]
    fn a_datagram_leaves_from_the_address_of_its_handset_and_the_answer_finds_it() {
        for (first, peer, any) in [("127.64.1.2", "127.0.0.1:0", "0.0.0.0:0"), ("::1", "[::1]:0", "[::]:0")] {
            let handsets = if first == "::1" { 1 } else { 3 };
            let port = free_port(any);
            let mut wire = wire(first, handsets, port, true);
            let peer = std::net::UdpSocket::bind(peer).unwrap();
            let owner = handsets - 1;
            let local = SocketAddr::new(wire.places.address(owner), port);
            assert!(wire.send_udp(&Flow::udp(local, peer.local_addr().unwrap()), b"x"));
            let (_, from) = peer.recv_from(&mut [0; 8]).unwrap();
            assert_eq!(from, local);
            let answer = format!("SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP {local};branch=z\r\n\r\n");
            peer.send_to(answer.as_bytes(), from).unwrap();
            let arrived = wait_for(&mut wire);
            assert!(
                matches!(&arrived[..], [Arrived::Message { owner: o, flow, .. }] if *o == owner && flow.local == local)
            );
        }
    }

    #[test]
    fn a_connection_is_opened_once_used_again_and_its_end_is_told() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut wire = wire("127.64.1.2", 1, 5090, false);
        let local = SocketAddr::new(wire.places.address(0), 0);
        let flow = Flow::tcp(local, listener.local_addr().unwrap());
        wire.send_tcp(0, &flow, b"one", SendTag(1)).unwrap();
        wire.send_tcp(0, &flow, b"two", SendTag(2)).unwrap();
        let (mut peer, from) = listener.accept().unwrap();
        assert_eq!(from.ip(), local.ip());
        let mut arrived = Vec::new();
        wire.wait(Duration::from_secs(5), &mut arrived).unwrap();
        let mut got = [0; 6];
        peer.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"onetwo");
        peer.write_all(b"SIP/2.0 200 OK\r\nContent-Length: 0\r\n\r\nSIP/2.0").unwrap();
        let arrived = wait_for(&mut wire);
        assert!(matches!(&arrived[..], [Arrived::Message { owner: 0, .. }]));
        wire.send_tcp(0, &flow, b"three", SendTag(3)).unwrap();
        drop(peer);
        let arrived = wait_for(&mut wire);
        assert!(
            matches!(&arrived[..], [Arrived::Failed { tag: SendTag(3), .. }, Arrived::Closed { owner: 0, .. }]),
            "what was not answered is told as lost"
        );
        assert_eq!(wire.connections(), 0);
    }

    #[test]
    fn nobody_at_the_other_end_is_told() {
        let mut wire = wire("127.64.1.2", 1, 5090, false);
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let flow = Flow::tcp(SocketAddr::new(wire.places.address(0), 0), nobody);
        if wire.send_tcp(0, &flow, b"one", SendTag(1)).is_ok() {
            let arrived = wait_for(&mut wire);
            assert!(matches!(
                &arrived[..],
                [Arrived::Failed { error: FlowError::Refused, .. }, Arrived::Closed { .. }]
            ));
        }
    }
}
