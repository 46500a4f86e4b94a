//! The world: virtual time, the nodes, and the loop that gives each event to its node and performs what comes back.

mod kernel;
mod links;
mod tcp;

use crate::clock::HostClock;
use crate::invariants::{Hop, Invariants};
use crate::ipsec::{Esp, SaTable};
use crate::net::{Conditions, Conn, End, Link, Queued};
use crate::trace::{Entry, Ladder, What};
use bytes::Bytes;
use ims_aka::Algorithm;
use ims_core::dns::{DnsError, DnsQuery, DnsRecord};
use ims_core::store::{MemoryStore, StoreError};
use ims_core::{
    Action, Command, CommandId, ConnId, Ctx, Event, Flow, FlowError, Kept, LinkId, Node, Packet, PeerId, Problem, Rng,
    SendTag, Time, Transport, Wiring,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// A node of the world, by its place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeId(pub usize);

/// 2026-01-01 00:00 UTC: scenarios begin here.
const START: Time = Time::from_secs(1_767_225_600);
/// A connection whose packets do not come through is given up after this.
const TCP_PATIENCE: Duration = Duration::from_secs(30);
/// As few as this, so that nodes meet more than one portion.
const RESTORED_AT_ONCE: usize = 4;
const LOCAL: Duration = Duration::from_micros(200);

/// A test's word on a SIP packet that is about to travel.
pub enum Verdict {
    Pass,
    Lose,
    Replace(Bytes),
}

/// What a filter sees.
pub struct Sent<'a> {
    pub from: &'a str,
    pub to: &'a str,
    pub bytes: &'a Bytes,
    pub esp: bool,
}

type Filter = Box<dyn FnMut(&Sent<'_>) -> Verdict>;

struct Host {
    node: Option<Box<dyn Node>>,
    rng: Rng,
    /// A handset, or an element of the network.
    handset: bool,
    /// In the time of the world.
    deadline: Option<Time>,
    clock: HostClock,
    sas: SaTable,
    store: MemoryStore,
    /// What the node keeps across restarts.
    kept: BTreeMap<String, Bytes>,
    /// The database does not answer.
    store_down: bool,
}

impl Host {
    fn next_sa_expiry(&self) -> Option<Time> {
        self.sas.next_expiry().map(|at| self.clock.in_the_world(at))
    }
}

/// What the world does at a set time.
enum Due {
    Tell(NodeId, Event),
    Datagram { entry: usize, src: SocketAddr, dst: SocketAddr, bytes: Bytes, esp: Option<Esp> },
    Syn { conn: u64 },
    Segment { entry: usize, conn: u64, to: usize, bytes: Bytes, esp: Option<Esp> },
    Fin { conn: u64, to: usize },
    LinkOpen { from: NodeId, peer: PeerId, target: Option<SocketAddr> },
    LinkData { link: u64, to: usize, bytes: Bytes },
    LinkFin { link: u64, to: usize },
}

pub struct World {
    pub now: Time,
    pub seed: u64,
    pub rng: Rng,
    /// Between handsets and the network.
    pub gm: Conditions,
    /// Inside the network.
    pub core: Conditions,
    /// Names to addresses and services. Absent names do not exist.
    pub dns: BTreeMap<String, Vec<DnsRecord>>,
    pub trace: Vec<Entry>,
    /// What was lost, by reason.
    pub lost: BTreeMap<&'static str, u64>,
    names: Vec<String>,
    hosts: Vec<Host>,
    listeners: BTreeMap<SocketAddr, (NodeId, bool)>,
    diameter: BTreeMap<SocketAddr, NodeId>,
    agenda: BTreeMap<(Time, u64), Due>,
    sequence: u64,
    conns: BTreeMap<u64, Conn>,
    links: BTreeMap<u64, Link>,
    replies: BTreeMap<CommandId, Result<Value, Problem>>,
    /// Pairs of nodes that do not reach each other.
    cut: Vec<(NodeId, NodeId)>,
    filter: Option<Filter>,
    invariants: Invariants,
    steps_at_once: u32,
}

impl World {
    pub fn new(seed: u64) -> Self {
        Self {
            now: START,
            seed,
            rng: Rng::from_u64(seed),
            gm: Conditions::calm(Duration::from_millis(20)),
            core: Conditions::calm(Duration::from_millis(1)),
            dns: BTreeMap::new(),
            trace: Vec::new(),
            lost: BTreeMap::new(),
            names: Vec::new(),
            hosts: Vec::new(),
            listeners: BTreeMap::new(),
            diameter: BTreeMap::new(),
            agenda: BTreeMap::new(),
            sequence: 0,
            conns: BTreeMap::new(),
            links: BTreeMap::new(),
            replies: BTreeMap::new(),
            cut: Vec::new(),
            filter: None,
            invariants: Invariants::default(),
            steps_at_once: 0,
        }
    }

    /// Adds a node and starts it.
    pub fn add(&mut self, name: &str, node: Box<dyn Node>, wiring: Wiring) -> NodeId {
        self.add_host(name, node, wiring, false)
    }

    /// Adds a handset: it lives behind the Gm conditions, and must never see what is for the network only.
    pub fn add_handset(&mut self, name: &str, node: Box<dyn Node>, wiring: Wiring) -> NodeId {
        self.add_host(name, node, wiring, true)
    }

    fn add_host(&mut self, name: &str, node: Box<dyn Node>, wiring: Wiring, handset: bool) -> NodeId {
        let id = NodeId(self.hosts.len());
        for listener in &wiring.sip {
            let taken = self.listeners.insert(listener.addr, (id, listener.protected));
            assert!(taken.is_none(), "{name}: {} is bound already", listener.addr);
        }
        for addr in &wiring.diameter {
            assert!(self.diameter.insert(*addr, id).is_none(), "{name}: {addr} is bound already");
        }
        self.names.push(name.into());
        self.hosts.push(Host {
            node: Some(node),
            rng: Rng::from_u64(self.rng.u64()),
            handset,
            deadline: None,
            clock: HostClock::default(),
            sas: SaTable::default(),
            store: MemoryStore::default(),
            kept: BTreeMap::new(),
            store_down: false,
        });
        self.tell(id, Event::Start);
        id
    }

    /// Ends a node as a crash does: what it had in memory is gone, connections break, its database, what it keeps, and its kernel stay.
    pub fn crash(&mut self, node: NodeId) {
        self.hosts[node.0].node = None;
        self.hosts[node.0].deadline = None;
        // Answers to what it had asked of its surroundings are for nobody.
        self.agenda.retain(|_, due| {
            !matches!(due, Due::Tell(to, Event::Stored { .. } | Event::Dns { .. } | Event::Sa { .. } | Event::SaAudited { .. })
                if *to == node)
        });
        self.hosts[node.0].sas.orphan();
        self.invariants.on_crash(node);
        self.note(node, "crashes");
        self.drop_links(node);
        self.close_connections(node);
        // Whoever comes next in this place has sent nothing on them.
        for conn in self.conns.values_mut() {
            for (end, sent) in conn.ends.iter().zip(&mut conn.sent) {
                if end.node == node {
                    sent.clear();
                }
            }
        }
    }

    /// A node closes all its TCP connections that carry SIP.
    pub fn close_connections(&mut self, node: NodeId) {
        let conns: Vec<u64> =
            self.conns.iter().filter(|(_, c)| c.ends.iter().any(|e| e.node == node)).map(|(id, _)| *id).collect();
        for conn in conns {
            self.close_conn(conn, Some(node), LOCAL);
        }
    }

    /// Puts a new node in the place of one that crashed (or of a running one).
    pub fn restart(&mut self, id: NodeId, node: Box<dyn Node>) {
        if self.hosts[id.0].node.is_some() {
            self.crash(id);
        }
        self.note(id, "starts again");
        self.hosts[id.0].node = Some(node);
        let kept = self.hosts[id.0].kept.iter().map(|(key, value)| Kept { key: key.clone(), value: value.clone() });
        let kept: Vec<Kept> = kept.collect();
        for portion in kept.chunks(RESTORED_AT_ONCE) {
            self.tell(id, Event::Restored(portion.to_vec()));
        }
        self.tell(id, Event::Start);
    }

    /// The clock of this host goes ahead of the world's by so much from now on, as after a pause of its machine, or when it
    /// was set. (Within one run a node's clock never goes back: set it back only between `crash` and `restart`.)
    pub fn set_clock(&mut self, node: NodeId, ahead: Duration) {
        let host = &mut self.hosts[node.0];
        let deadline = host.deadline.map(|at| host.clock.read(at));
        host.clock.ahead = ahead;
        host.deadline = deadline.map(|at| host.clock.in_the_world(at));
        self.note(node, format!("its clock is {} s ahead", ahead.as_secs()));
    }

    /// Whether a node runs in this place.
    pub fn is_up(&self, node: NodeId) -> bool {
        self.hosts[node.0].node.is_some()
    }

    /// Breaks all Diameter connections of a node.
    pub fn drop_links(&mut self, node: NodeId) {
        let links: Vec<u64> =
            self.links.iter().filter(|(_, l)| l.ends.iter().any(|e| e.node == node)).map(|(id, _)| *id).collect();
        for link in links {
            for to in 0..2 {
                self.after(LOCAL, Due::LinkFin { link, to });
            }
        }
    }

    /// The node hears that its process ends.
    pub fn stop(&mut self, node: NodeId) {
        self.tell(node, Event::Stop);
    }

    /// Nothing passes between these two any more.
    pub fn partition(&mut self, a: NodeId, b: NodeId) {
        self.cut.push((a, b));
        let between = |ends: &[End; 2]| ends.iter().any(|e| e.node == a) && ends.iter().any(|e| e.node == b);
        let links: Vec<u64> = self.links.iter().filter(|(_, l)| between(&l.ends)).map(|(id, _)| *id).collect();
        for link in links {
            for to in 0..2 {
                self.after(LOCAL, Due::LinkFin { link, to });
            }
        }
    }

    pub fn heal(&mut self) {
        self.cut.clear();
    }

    pub fn set_store_down(&mut self, node: NodeId, down: bool) {
        self.hosts[node.0].store_down = down;
    }

    /// Asked about every SIP packet that is sent from now on.
    pub fn filter(&mut self, filter: impl FnMut(&Sent<'_>) -> Verdict + 'static) {
        self.filter = Some(Box::new(filter));
    }

    /// The filter changes packets: each is still seen by who sends it as it was.
    pub fn expect_garbled(&mut self) {
        self.invariants.garbled = true;
    }

    pub fn no_filter(&mut self) {
        self.filter = None;
    }

    /// Lets the invariants read sequence numbers out of this subscriber's vectors.
    pub fn know_sim(&mut self, impi: &str, algorithm: Algorithm) {
        self.invariants.know_sim(impi, algorithm);
    }

    pub fn snapshot(&self, node: NodeId) -> Value {
        self.hosts[node.0].node.as_ref().map_or(Value::Null, |n| n.snapshot())
    }

    pub fn name(&self, node: NodeId) -> &str {
        &self.names[node.0]
    }

    pub fn is_handset(&self, node: NodeId) -> bool {
        self.hosts[node.0].handset
    }

    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + use<> {
        (0..self.hosts.len()).map(NodeId)
    }

    pub fn note(&mut self, node: NodeId, text: impl Into<String>) {
        let what = What::Note(text.into());
        self.trace.push(Entry { at: self.now, from: node, to: None, what, lost: None });
    }

    /// Gives a command to a node; see [`World::reply`].
    pub fn command(&mut self, node: NodeId, call: &str, args: Value) -> CommandId {
        self.sequence += 1;
        let id = CommandId(self.sequence);
        self.tell(node, Event::Command(Command { id, call: call.into(), args }));
        id
    }

    pub fn reply(&mut self, id: CommandId) -> Option<Result<Value, Problem>> {
        self.replies.remove(&id)
    }

    /// Gives a command and runs the world until it is answered.
    ///
    /// # Panics
    /// When there is no answer within ten minutes.
    pub fn ask(&mut self, node: NodeId, call: &str, args: Value) -> Result<Value, Problem> {
        let id = self.command(node, call, args);
        let patience = self.now + Duration::from_secs(600);
        loop {
            if let Some(reply) = self.reply(id) {
                return reply;
            }
            let next = self.next_time();
            assert!(next.is_some_and(|t| t <= patience), "{}: no answer to {call}", self.name(node));
            self.step();
        }
    }

    /// A datagram of a stranger's making, from an address that may be nobody's, in clear.
    pub fn inject(&mut self, src: SocketAddr, dst: SocketAddr, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        let from = self.listeners.get(&src).map_or(NodeId(0), |l| l.0);
        let entry = self.push_sip(from, &bytes, "udp(forged)", src, dst, None);
        self.after(self.gm.latency, Due::Datagram { entry, src, dst, bytes, esp: None });
    }

    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.next_time().is_some_and(|t| t <= end) {
            self.step();
        }
        self.now = end;
    }

    /// Runs until nothing is under way in the network and no node waits for anything, at most `most` long; says
    /// whether it became quiet.
    pub fn settle(&mut self, most: Duration) -> bool {
        let end = self.now + most;
        loop {
            // Asking all nodes is dear, and in the middle of things in vain.
            let pause = self.next_time().is_none_or(|t| t.since(self.now) > Duration::from_millis(100));
            if pause && !self.sip_under_way() && self.nodes().all(|n| self.is_quiet(n)) {
                return true;
            }
            match self.next_time() {
                Some(next) if next <= end => self.step(),
                _ => return false,
            }
        }
    }

    /// Anything still on the way but a Diameter watchdog.
    fn sip_under_way(&self) -> bool {
        self.agenda.values().any(|due| !matches!(due, Due::LinkData { .. } | Due::LinkOpen { .. }))
    }

    /// What a node's snapshot says about open transactions and pending requests.
    pub fn is_quiet(&self, node: NodeId) -> bool {
        crate::invariants::quiet(&self.snapshot(node))
    }

    /// Everything so far, as people read it.
    pub fn ladder(&self) -> String {
        Ladder { names: &self.names, times: true, start: START }.print(&self.trace)
    }

    /// SIP and Cx without times, without the peer machine's own messages: for goldens.
    pub fn golden_ladder(&self) -> String {
        let shown = |e: &&Entry| match &e.what {
            What::Diameter(bytes) => bytes.get(5..8).is_some_and(|c| u32::from_be_bytes([0, c[0], c[1], c[2]]) >= 300),
            _ => true,
        };
        let entries: Vec<Entry> = self.trace.iter().filter(shown).cloned().collect();
        Ladder { names: &self.names, times: false, start: START }.print(&entries)
    }

    /// Takes the earliest thing that happens.
    pub fn step(&mut self) {
        let Some(at) = self.next_time() else { return };
        if at > self.now {
            self.now = at;
            self.steps_at_once = 0;
        }
        self.steps_at_once += 1;
        assert!(self.steps_at_once < 200_000, "the world runs in circles");
        if let Some(entry) = self.agenda.first_entry().filter(|e| e.key().0 <= self.now) {
            let due = entry.remove();
            self.perform_due(due);
            return;
        }
        for id in 0..self.hosts.len() {
            if self.hosts[id].deadline.is_some_and(|d| d <= self.now) {
                return self.tell(NodeId(id), Event::Timeout);
            }
            if self.hosts[id].next_sa_expiry().is_some_and(|d| d <= self.now) {
                let there = self.hosts[id].clock.read(self.now);
                for expiry in self.hosts[id].sas.expire(there) {
                    self.tell(NodeId(id), Event::SaExpired(expiry));
                }
                return;
            }
        }
    }

    fn next_time(&self) -> Option<Time> {
        let agenda = self.agenda.keys().next().map(|(at, _)| *at);
        let hosts = self.hosts.iter().flat_map(|h| [h.deadline, h.next_sa_expiry()]).flatten();
        hosts.chain(agenda).min()
    }

    /// Gives an event to a node, performs its actions, and checks the invariants.
    fn tell(&mut self, id: NodeId, event: Event) {
        let host = &mut self.hosts[id.0];
        let Some(node) = &mut host.node else { return };
        let mut actions = Vec::new();
        node.handle(event, &mut Ctx { now: host.clock.read(self.now), rng: &mut host.rng, actions: &mut actions });
        host.deadline = node.deadline().map(|at| host.clock.in_the_world(at));
        for action in actions {
            self.perform(id, action);
        }
    }

    fn after(&mut self, delay: Duration, due: Due) {
        self.at(self.now + delay, due);
    }

    fn at(&mut self, at: Time, due: Due) {
        self.sequence += 1;
        self.agenda.insert((at, self.sequence), due);
    }

    fn perform(&mut self, id: NodeId, action: Action) {
        match action {
            Action::SendSip { flow, bytes, tag } => match flow.transport {
                Transport::Udp => self.send_udp(id, flow, bytes, tag),
                Transport::Tcp => self.send_tcp(id, flow, bytes, tag),
            },
            Action::CloseFlow(conn) => self.close_conn(conn.0 / 2, Some(id), LOCAL),
            Action::Connect { peer, target } => {
                let target = target.parse().ok();
                self.after(self.core.latency * 2, Due::LinkOpen { from: id, peer, target });
            }
            Action::SendDiameter { link, bytes } => self.send_diameter(id, link, bytes),
            Action::CloseLink(link) => {
                for to in 0..2 {
                    self.after(self.core.latency, Due::LinkFin { link: link.0 / 2, to });
                }
            }
            Action::Dns { id: request, query } => {
                let answer = self.resolve(&query);
                self.after(self.core.latency, Due::Tell(id, Event::Dns { id: request, answer }));
            }
            Action::Sa { id: request, change } => {
                let host = &mut self.hosts[id.0];
                let result = host.sas.change(change, host.clock.read(self.now));
                if let Err(error) = &result {
                    self.note(id, format!("kernel: {error}"));
                }
                self.after(LOCAL, Due::Tell(id, Event::Sa { id: request, result }));
            }
            Action::SaAudit { id: request, adopt, .. } => {
                let result = self.hosts[id.0].sas.audit(adopt);
                if let Err(error) = &result {
                    self.note(id, format!("kernel, asked for all it has: {error}"));
                }
                self.after(LOCAL, Due::Tell(id, Event::SaAudited { id: request, result }));
            }
            Action::Store { id: request, request: what } => {
                let host = &mut self.hosts[id.0];
                let result = if host.store_down {
                    Err(StoreError::Unavailable("the simulator says so".into()))
                } else {
                    host.store.perform(what)
                };
                self.after(LOCAL, Due::Tell(id, Event::Stored { id: request, result }));
            }
            Action::Put(Kept { key, value }) => {
                self.hosts[id.0].kept.insert(key, value);
            }
            Action::Delete { key } => {
                self.hosts[id.0].kept.remove(&key);
            }
            Action::Reply { id: command, result } => {
                let twice = self.replies.insert(command, result);
                assert!(twice.is_none(), "{}: a command was answered twice", self.name(id));
            }
        }
    }

    fn resolve(&self, query: &DnsQuery) -> Result<Vec<DnsRecord>, DnsError> {
        let (name, fits): (&str, fn(&DnsRecord) -> bool) = match query {
            DnsQuery::Address(name) => (name, |r| matches!(r, DnsRecord::Address(_))),
            DnsQuery::Srv(name) => (name, |r| matches!(r, DnsRecord::Srv { .. })),
            DnsQuery::Naptr(name) => (name, |r| matches!(r, DnsRecord::Naptr { .. })),
        };
        let records = self.dns.get(&name.to_ascii_lowercase()).ok_or(DnsError::NoSuchName)?;
        let fitting: Vec<DnsRecord> = records.iter().filter(|r| fits(r)).cloned().collect();
        if fitting.is_empty() { Err(DnsError::NoRecord) } else { Ok(fitting) }
    }

    fn conditions(&self, a: NodeId, b: Option<NodeId>) -> Conditions {
        let handset = |n: NodeId| self.hosts[n.0].handset;
        if handset(a) || b.is_some_and(handset) { self.gm } else { self.core }
    }

    fn is_cut(&self, a: NodeId, b: NodeId) -> bool {
        self.cut.iter().any(|pair| *pair == (a, b) || *pair == (b, a))
    }

    fn fail(&mut self, id: NodeId, tag: SendTag, flow: Flow, error: FlowError, delay: Duration) {
        if tag.0 != 0 {
            self.after(delay, Due::Tell(id, Event::SipFailed { tag, flow, error }));
        }
    }

    fn lose(&mut self, entry: usize, why: &'static str) {
        if let Some(entry) = self.trace.get_mut(entry) {
            entry.lost = Some(why);
        }
        *self.lost.entry(why).or_default() += 1;
    }

    fn push_sip(
        &mut self,
        from: NodeId,
        bytes: &Bytes,
        transport: &'static str,
        src: SocketAddr,
        dst: SocketAddr,
        esp: Option<&Esp>,
    ) -> usize {
        let to = self.listeners.get(&dst).map(|l| l.0).or_else(|| self.conn_end(dst));
        let esp = esp.map(|e| (e.spi, e.leg));
        let what = What::Sip { bytes: bytes.clone(), transport, src, dst, esp };
        self.trace.push(Entry { at: self.now, from, to, what, lost: None });
        self.trace.len() - 1
    }

    fn conn_end(&self, addr: SocketAddr) -> Option<NodeId> {
        self.conns.values().flat_map(|c| &c.ends).find(|e| e.addr == addr).map(|e| e.node)
    }

    /// What leaves: as ESP when an association covers it; never in clear from a protected port.
    fn outgoing(
        &mut self,
        id: NodeId,
        transport: &'static str,
        src: SocketAddr,
        dst: SocketAddr,
        bytes: Bytes,
    ) -> Option<(usize, Bytes, Option<Esp>)> {
        let esp = self.hosts[id.0].sas.outward(src, dst);
        self.count_esp(id, esp.as_ref(), dst, &bytes);
        let entry = self.push_sip(id, &bytes, transport, src, dst, esp.as_ref());
        let to = self.trace[entry].to;
        if esp.is_none() && self.listeners.get(&src).is_some_and(|l| l.1) {
            self.lose(entry, "in clear from a protected port");
            return None;
        }
        let hop = Hop {
            from: id,
            to,
            from_handset: self.hosts[id.0].handset,
            to_handset: to.is_some_and(|t| self.hosts[t.0].handset),
            esp: esp.is_some(),
            has_sa: self.hosts[id.0].sas.towards(dst.ip()),
        };
        self.invariants.on_sip(&hop, &bytes);
        let mut filter = self.filter.take();
        let verdict = filter.as_mut().map_or(Verdict::Pass, |f| {
            let to = to.map_or("nobody", |t| self.names[t.0].as_str());
            f(&Sent { from: &self.names[id.0], to, bytes: &bytes, esp: esp.is_some() })
        });
        self.filter = filter;
        let bytes = match verdict {
            Verdict::Pass => bytes,
            Verdict::Replace(other) => other,
            Verdict::Lose => {
                self.lose(entry, "lost");
                return None;
            }
        };
        if to.is_some_and(|to| self.is_cut(id, to)) {
            self.lose(entry, "no way there");
            return None;
        }
        Some((entry, bytes, esp))
    }

    fn send_udp(&mut self, id: NodeId, flow: Flow, bytes: Bytes, tag: SendTag) {
        if self.listeners.get(&flow.local).is_none_or(|l| l.0 != id) {
            self.note(id, format!("sends from {}, which it has not bound", flow.local));
            return self.fail(id, tag, flow, FlowError::NoSocket, LOCAL);
        }
        if bytes.len() > 65_507 {
            return self.fail(id, tag, flow, FlowError::TooLarge, LOCAL);
        }
        let (src, dst) = (flow.local, flow.remote);
        let Some((entry, bytes, esp)) = self.outgoing(id, "udp", src, dst, bytes) else {
            return;
        };
        let conditions = self.conditions(id, self.trace[entry].to);
        if conditions.happens(conditions.loss, &mut self.rng) {
            return self.lose(entry, "lost");
        }
        let copies = 1 + usize::from(conditions.happens(conditions.duplication, &mut self.rng));
        for _ in 0..copies {
            let delay = conditions.delay(&mut self.rng);
            self.after(delay, Due::Datagram { entry, src, dst, bytes: bytes.clone(), esp: esp.clone() });
        }
    }

    fn perform_due(&mut self, due: Due) {
        match due {
            Due::Tell(id, event) => self.tell(id, event),
            Due::Datagram { entry, src, dst, bytes, esp } => self.on_datagram(entry, src, dst, bytes, esp),
            Due::Syn { conn } => self.on_syn(conn),
            Due::Segment { entry, conn, to, bytes, esp } => self.on_segment(entry, conn, to, bytes, esp),
            Due::Fin { conn, to } => self.on_fin(conn, to),
            Due::LinkOpen { from, peer, target } => self.on_link_open(from, peer, target),
            Due::LinkData { link, to, bytes } => {
                if let Some(end) = self.links.get(&link).map(|l| l.ends[to]) {
                    self.tell(end.node, Event::Diameter { link: LinkId(end.id), bytes });
                }
            }
            Due::LinkFin { link, to } => self.on_link_fin(link, to),
        }
    }

    fn on_datagram(&mut self, entry: usize, src: SocketAddr, dst: SocketAddr, bytes: Bytes, esp: Option<Esp>) {
        let Some(&(id, protected)) = self.listeners.get(&dst) else {
            return self.lose(entry, "nobody listens there");
        };
        if self.hosts[id.0].node.is_none() {
            return self.lose(entry, "the node is down");
        }
        let verdict = match &esp {
            Some(esp) => self.hosts[id.0].sas.inward(esp, src, dst),
            None if protected => Err("in clear to a protected port"),
            None => Ok(()),
        };
        if let Err(why) = verdict {
            return self.lose(entry, why);
        }
        self.count_esp(id, esp.as_ref(), dst, &bytes);
        self.tell(id, Event::Sip(Packet { flow: Flow::udp(dst, src), bytes }));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let ladder = self.ladder();
            let lines: Vec<&str> = ladder.lines().collect();
            let tail = lines[lines.len().saturating_sub(120)..].join("\n");
            eprintln!("seed {}\n{tail}\nlost: {:?}", self.seed, self.lost);
            for id in self.nodes() {
                eprintln!("{}: {}", self.name(id), self.snapshot(id));
            }
        }
    }
}
