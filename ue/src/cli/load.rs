//! `ue load`: thousands of [`Ue`] nodes behind one UDP socket.
//!
//! The shell gives every node a task and its own sockets; ten thousand handsets would be ten thousand of each, and the
//! measurement would be of the shell. Here one thread owns one socket bound to all addresses, sends each datagram from
//! its handset's own loopback address (IP_PKTINFO), and finds the handset of what arrives by the sent-by of the Via. The
//! registration logic is the node's, unchanged.

// This is a rim of the program, as the shell is: it reads the clock.
#![allow(clippy::disallowed_methods)]

use super::stats::Stats;
use super::{Subscription, loopback_net};
use bytes::Bytes;
use clap::Args;
use ims_core::config::Span;
use ims_core::sa::SaError;
use ims_core::{Action, Ctx, Event, Flow, Node, Packet, Rng, Time};
use serde_json::{Value, json};
use socket2::{Domain, MsgHdr, Protocol, SockAddr, Socket, Type};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io::{ErrorKind, IoSlice};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use ue::{Config, Procedure, Report, Ue};

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    subscription: Subscription,
    /// Registrations begun per second.
    #[arg(long, default_value_t = 10.0)]
    rate: f64,
    /// Seconds during which registrations are begun.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Number of handsets, with consecutive IMSIs and the same keys; they register in turn (default: rate times seconds).
    #[arg(long)]
    count: Option<u32>,
    /// First handset address; each handset has the next one.
    #[arg(long, default_value_t = loopback_net())]
    ue_net: Ipv4Addr,
    /// Port of all handsets.
    #[arg(long, default_value_t = 5090)]
    port: u16,
    /// Timer T1: first retransmission; an attempt is given up after 64 times that.
    #[arg(long, default_value = "500ms")]
    t1: String,
    /// Seconds to wait for the last answers.
    #[arg(long, default_value_t = 10.0)]
    drain: f64,
    /// De-register each handset as soon as it has registered.
    #[arg(long)]
    deregister: bool,
    /// Also offer security associations, as a phone does; answers then go on in clear (load runs have no ESP).
    #[arg(long)]
    sec_agree: bool,
}

/// What a handset is made to do.
enum Do {
    Handle(Event),
    /// From scratch, as a phone that was switched on.
    Register,
    Deregister,
}

/// One handset of the fleet.
struct Handset {
    node: Ue,
    rng: Rng,
    /// What it sent last: the same again is a retransmission.
    last: Bytes,
    /// When it is in the queue to be woken.
    queued: Option<Time>,
}

struct Fleet<'a> {
    options: &'a Options,
    config: Config,
    first_imsi: u64,
    imsi_digits: usize,
    count: u32,
    socket: Socket,
    handsets: Vec<Option<Box<Handset>>>,
    wake: BinaryHeap<Reverse<(Time, u32)>>,
    open: u64,
    began: Instant,
    began_at: Time,
    seeds: Rng,
    stats: Stats,
}

pub(crate) fn run(options: &Options) -> Result<bool, String> {
    let within = |value: f64, most: f64| value > 0.0 && value <= most;
    if !within(options.rate, 1e6) || !within(options.seconds, 86_400.0) {
        return Err("--rate must be above 0 and at most 1000000, --seconds above 0 and at most 86400".into());
    }
    let mut fleet = Fleet::new(options)?;
    let summary = fleet.run().map_err(|e| format!("socket: {e}"))?;
    println!("{}", serde_json::to_string_pretty(&summary).unwrap_or_default());
    Ok(fleet.stats.attempts > 0 && fleet.stats.ok == fleet.stats.attempts)
}

impl<'a> Fleet<'a> {
    fn new(options: &'a Options) -> Result<Self, String> {
        let total = (options.rate * options.seconds).ceil().max(1.0);
        let count = options.count.unwrap_or(total.min(16e6) as u32).max(1);
        let t1 = Span::parse(&options.t1).ok_or("--t1: write 500ms or 2s")?;
        let config = Config {
            sec_agree: options.sec_agree,
            allow_unprotected: true,
            port: options.port,
            t1,
            t2: Span(t1.0 * 8),
            t4: Span(t1.0 * 10),
            journal: false,
            ..options.subscription.config()?
        };
        if !config.pcscf.is_ipv4() {
            return Err("--pcscf: load runs are IPv4".into());
        }
        let first_imsi = config.imsi.parse().map_err(|_| "--imsi: digits are needed")?;
        let seed = ims_shell::entropy::random().map_err(|e| e.to_string())?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self {
            options,
            first_imsi,
            imsi_digits: config.imsi.len(),
            config,
            count,
            socket: open_socket(options.port).map_err(|e| format!("port {}: {e}", options.port))?,
            handsets: (0..count).map(|_| None).collect(),
            wake: BinaryHeap::new(),
            open: 0,
            began: Instant::now(),
            began_at: Time::EPOCH + now,
            seeds: Rng::from_seed(seed),
            stats: Stats::default(),
        })
    }

    fn now(&self) -> Time {
        self.began_at + self.began.elapsed()
    }

    fn run(&mut self) -> std::io::Result<Value> {
        let total = (self.options.rate * self.options.seconds).ceil().max(1.0) as u64;
        let receiver: UdpSocket = self.socket.try_clone()?.into();
        let mut buffer = vec![0; 65_536];
        self.began = Instant::now();
        let mut last_start = Duration::ZERO;
        let mut begun = 0;
        loop {
            let due = (self.began.elapsed().as_secs_f64() * self.options.rate) as u64 + 1;
            while begun < total.min(due) {
                self.begin(u32::try_from(begun % u64::from(self.count)).unwrap_or(0));
                begun += 1;
                last_start = self.began.elapsed();
            }
            self.wake_due();
            let over = begun == total
                && (self.open == 0 || (self.began.elapsed() - last_start).as_secs_f64() > self.options.drain);
            if over {
                break;
            }
            self.receive(&receiver, &mut buffer, begun < total)?;
        }
        for _ in 0..self.open {
            self.stats.fail("unfinished".into());
        }
        Ok(self.summary(last_start))
    }

    /// Takes all that has arrived; waits for the first as long as there is nothing else to do.
    fn receive(&mut self, receiver: &UdpSocket, buffer: &mut [u8], starting: bool) -> std::io::Result<()> {
        let mut patience = Duration::from_millis(20);
        if starting {
            patience = patience.min(Duration::from_secs_f64(1.0 / self.options.rate));
        }
        if let Some(Reverse((at, _))) = self.wake.peek() {
            patience = patience.min(at.since(self.now()));
        }
        receiver.set_read_timeout(Some(patience.max(Duration::from_micros(500))))?;
        for _ in 0..64 {
            match receiver.recv_from(buffer) {
                Ok((length, from)) => self.on_datagram(&buffer[..length], from),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {
                    break;
                }
                // An ICMP error of some earlier datagram: the handset's timers notice.
                Err(e) if e.kind() == ErrorKind::ConnectionRefused => {}
                Err(e) => return Err(e),
            }
            if self.wake.peek().is_some_and(|Reverse((at, _))| *at <= self.now()) {
                break;
            }
        }
        Ok(())
    }

    fn address(&self, index: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.options.ue_net).wrapping_add(index))
    }

    fn begin(&mut self, index: u32) {
        let Some(mut handset) = self.take(index) else { return };
        self.stats.attempts += 1;
        if handset.node.is_busy() {
            self.stats.fail("still-busy".into());
        } else {
            self.open += 1;
            self.act(index, &mut handset, Do::Register);
        }
        self.put(index, handset);
    }

    fn take(&mut self, index: u32) -> Option<Box<Handset>> {
        let slot = self.handsets.get_mut(usize::try_from(index).ok()?)?;
        if let Some(handset) = slot.take() {
            return Some(handset);
        }
        let config = Config {
            imsi: format!("{:0w$}", self.first_imsi + u64::from(index), w = self.imsi_digits),
            address: self.address(index).into(),
            ..self.config.clone()
        };
        match Ue::new(config) {
            Ok(node) => {
                let mut seed = [0; 32];
                self.seeds.fill(&mut seed);
                Some(Box::new(Handset { node, rng: Rng::from_seed(seed), last: Bytes::new(), queued: None }))
            }
            Err(e) => {
                self.stats.attempts += 1;
                self.stats.fail(e.to_string());
                None
            }
        }
    }

    fn put(&mut self, index: u32, handset: Box<Handset>) {
        if let Some(slot) = self.handsets.get_mut(index as usize) {
            *slot = Some(handset);
        }
    }

    /// Lets the node do something, performs its actions, takes its reports, and queues its deadline.
    fn act(&mut self, index: u32, handset: &mut Handset, first: Do) {
        let mut open = vec![first];
        while let Some(next) = open.pop() {
            let mut actions = Vec::new();
            let now = self.now();
            let ctx = &mut Ctx { now, rng: &mut handset.rng, actions: &mut actions };
            match next {
                Do::Handle(event) => handset.node.handle(event, ctx),
                Do::Register => {
                    handset.node.power_off(ctx);
                    handset.node.start(Procedure::Register, ctx);
                }
                Do::Deregister => {
                    handset.node.start(Procedure::Deregister, ctx);
                }
            }
            for action in actions {
                match action {
                    Action::SendSip { flow, bytes, .. } => self.send(handset, flow, bytes),
                    // No ESP in a load run: the handset goes on in clear.
                    Action::Sa { id, .. } => open.push(Do::Handle(Event::Sa { id, result: Err(SaError::NoEsp) })),
                    _ => {}
                }
            }
            while let Some(report) = handset.node.next_report() {
                open.extend(self.on_report(report));
            }
        }
        let deadline = handset.node.deadline();
        if let Some(at) = deadline.filter(|at| handset.queued.is_none_or(|queued| *at < queued)) {
            handset.queued = Some(at);
            self.wake.push(Reverse((at, index)));
        }
    }

    /// Counts the end of a registration; gives back what the handset does next.
    fn on_report(&mut self, report: Report) -> Option<Do> {
        if report.procedure != Procedure::Register {
            return None;
        }
        self.open = self.open.saturating_sub(1);
        if let Err(failure) = report.result {
            self.stats.fail(failure.name());
            return None;
        }
        self.stats.ok += 1;
        let took = report.finished.since(report.started).as_micros();
        self.stats.latencies.push(u64::try_from(took).unwrap_or(u64::MAX));
        self.options.deregister.then_some(Do::Deregister)
    }

    fn send(&mut self, handset: &mut Handset, flow: Flow, bytes: Bytes) {
        if handset.last == bytes {
            self.stats.retransmissions += 1;
        }
        let SocketAddr::V4(source) = flow.local else { return };
        let to = SockAddr::from(flow.remote);
        let control = packet_info(*source.ip());
        let parts = [IoSlice::new(&bytes)];
        let message = MsgHdr::new().with_addr(&to).with_buffers(&parts).with_control(&control);
        if self.socket.sendmsg(&message, 0).is_err() {
            // As good as lost: the transaction repeats it.
            self.stats.unsent += 1;
        }
        handset.last = bytes;
    }

    fn wake_due(&mut self) {
        let now = self.now();
        while let Some(Reverse((at, index))) = self.wake.peek().copied().filter(|Reverse((at, _))| *at <= now) {
            self.wake.pop();
            let Some(mut handset) = self.take(index) else { continue };
            if handset.queued == Some(at) {
                handset.queued = None;
                self.act(index, &mut handset, Do::Handle(Event::Timeout));
            }
            self.put(index, handset);
        }
    }

    fn on_datagram(&mut self, bytes: &[u8], from: SocketAddr) {
        self.stats.received += 1;
        let first = u32::from(self.options.ue_net);
        let index = addressee(bytes).and_then(|a| u32::from(a).checked_sub(first)).filter(|i| *i < self.count);
        let known = index.filter(|i| self.handsets.get(*i as usize).is_some_and(Option::is_some));
        let Some(index) = known else {
            self.stats.strays += 1;
            return;
        };
        let Some(mut handset) = self.take(index) else { return };
        let local = SocketAddr::from((self.address(index), self.options.port));
        let packet = Packet { flow: Flow::udp(local, from), bytes: Bytes::copy_from_slice(bytes) };
        self.act(index, &mut handset, Do::Handle(Event::Sip(packet)));
        self.put(index, handset);
    }

    fn summary(&mut self, offered: Duration) -> Value {
        let mut faults: BTreeMap<&str, u64> = BTreeMap::new();
        for handset in self.handsets.iter().flatten() {
            for (name, times) in handset.node.faults() {
                *faults.entry(name).or_default() += times;
            }
        }
        let whole = self.began.elapsed();
        let mut summary = self.stats.summary(offered, whole);
        summary["handsets"] = json!(self.count);
        summary["rate"] = json!(self.options.rate);
        summary["pcscf"] = json!(self.config.pcscf.to_string());
        summary["faults"] = json!(faults);
        summary
    }
}

fn open_socket(port: u16) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    // The kernel may grant less.
    let _ = socket.set_recv_buffer_size(16 << 20);
    let _ = socket.set_send_buffer_size(4 << 20);
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
    Ok(socket)
}

/// The control message that sets the source address: `struct cmsghdr` (IPPROTO_IP, IP_PKTINFO) and `struct in_pktinfo`
/// as Linux lays them out (ip(7)), padded to the alignment of `size_t`.
fn packet_info(source: Ipv4Addr) -> Vec<u8> {
    const IPPROTO_IP: i32 = 0;
    const IP_PKTINFO: i32 = 8;
    let header = size_of::<usize>() + 8;
    let mut out = Vec::with_capacity(32);
    out.extend((header + 12).to_ne_bytes());
    out.extend(IPPROTO_IP.to_ne_bytes());
    out.extend(IP_PKTINFO.to_ne_bytes());
    out.extend(0i32.to_ne_bytes());
    out.extend(source.octets());
    out.extend([0; 4]);
    out.resize(out.len().next_multiple_of(size_of::<usize>()), 0);
    out
}

/// Whose message this is: a response by the sent-by of its top Via, a request by the host of its Request-URI.
fn addressee(bytes: &[u8]) -> Option<Ipv4Addr> {
    let text = std::str::from_utf8(bytes.get(..bytes.len().min(2048))?).ok().or_else(|| {
        let valid = std::str::from_utf8(bytes).err()?.valid_up_to();
        std::str::from_utf8(bytes.get(..valid)?).ok()
    })?;
    let place = if text.starts_with("SIP/2.0 ") {
        let mut lines = text.split("\r\n").skip(1);
        let via = lines.find_map(|l| {
            let (name, value) = l.split_once(':')?;
            let name = name.trim();
            (name.eq_ignore_ascii_case("via") || name.eq_ignore_ascii_case("v")).then_some(value)
        })?;
        via.trim_start().split_once(' ')?.1.trim_start()
    } else {
        text.split_once('@')?.1
    };
    let end = place.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(place.len());
    place[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_finds_its_handset() {
        let response =
            b"SIP/2.0 401 Unauthorized\r\nFrom: <sip:a@1.2.3.4>\r\nv: SIP/2.0/UDP 127.64.3.9:5090;branch=z\r\n\r\n";
        assert_eq!(addressee(response), Some(Ipv4Addr::new(127, 64, 3, 9)));
        let request = b"OPTIONS sip:x@127.64.0.7:5090 SIP/2.0\r\n\r\n";
        assert_eq!(addressee(request), Some(Ipv4Addr::new(127, 64, 0, 7)));
        assert_eq!(addressee(b"SIP/2.0 200 OK\r\n\r\n"), None);
        assert_eq!(addressee(&[0xff; 40]), None);
    }

    #[test]
    fn a_datagram_leaves_from_the_address_it_was_given() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into()).unwrap();
        let to = SockAddr::from(receiver.local_addr().unwrap());
        let control = packet_info(Ipv4Addr::new(127, 64, 1, 2));
        let parts = [IoSlice::new(b"x")];
        socket.sendmsg(&MsgHdr::new().with_addr(&to).with_buffers(&parts).with_control(&control), 0).unwrap();
        let (_, from) = receiver.recv_from(&mut [0; 8]).unwrap();
        assert_eq!(from.ip().to_string(), "127.64.1.2");
    }
}
