//! The four roles in one thread, without sockets, tasks or a disk: what they cost before the shell adds its part.

pub(crate) mod heap;

use bytes::Bytes;
use ims_core::store::MemoryStore;
use ims_core::{Action, Command, CommandId, Ctx, Event, Flow, LinkId, Node, Packet, PeerId, Rng, Time, Wiring};
use ims_tests::LabConfig;
use ims_tests::lab::{K, OPC, imsi};
use serde_json::json;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use ue::{Procedure, Ue};

const ROLES: [&str; 4] = ["P-CSCF", "I-CSCF", "S-CSCF", "HSS"];
const HSS: usize = 3;
/// Between two registrations: 1,000 a second.
pub(crate) const PACE: Duration = Duration::from_millis(1);
/// After this every transaction is over (timer J towards a handset: 64 times 2 s).
pub(crate) const REST: Duration = Duration::from_secs(140);

struct Role {
    node: Box<dyn Node>,
    rng: Rng,
    time: Duration,
    events: u64,
    allocations: u64,
}

/// The four roles, and what is under way between them.
pub(crate) struct Core {
    now: Time,
    roles: Vec<Role>,
    sip: HashMap<SocketAddr, usize>,
    diameter: HashMap<SocketAddr, usize>,
    links: HashMap<LinkId, (usize, LinkId)>,
    under_way: VecDeque<(usize, Event)>,
    store: MemoryStore,
    pub(crate) to_handset: VecDeque<Packet>,
    pub(crate) refused: u64,
    /// That of the last packet of a handset, from where it stands.
    pub(crate) handset: Option<Flow>,
}

impl Core {
    pub(crate) fn new(config: &LabConfig) -> Self {
        let mut core = Self {
            now: Time::from_secs(1_767_225_600),
            roles: Vec::new(),
            sip: HashMap::new(),
            diameter: HashMap::new(),
            links: HashMap::new(),
            under_way: VecDeque::new(),
            store: MemoryStore::default(),
            to_handset: VecDeque::new(),
            refused: 0,
            handset: None,
        };
        let LabConfig { pcscf, icscf, scscf, hss, .. } = config.clone();
        core.add(pcscf.wiring(), Box::new(pcscf::Pcscf::new(pcscf).expect("a P-CSCF")));
        core.add(icscf.wiring(), Box::new(icscf::Icscf::new(icscf).expect("an I-CSCF")));
        core.add(scscf.wiring(), Box::new(scscf::Scscf::new(scscf).expect("an S-CSCF")));
        core.add(hss.wiring(), Box::new(hss::Hss::new(hss).expect("an HSS")));
        core.run();
        core
    }

    fn add(&mut self, wiring: Wiring, node: Box<dyn Node>) {
        let index = self.roles.len();
        self.sip.extend(wiring.sip.iter().map(|listener| (listener.addr, index)));
        self.diameter.extend(wiring.diameter.iter().map(|addr| (*addr, index)));
        let rng = Rng::from_u64(index as u64);
        self.roles.push(Role { node, rng, time: Duration::ZERO, events: 0, allocations: 0 });
        self.under_way.push_back((index, Event::Start));
    }

    fn run(&mut self) {
        while let Some((to, event)) = self.under_way.pop_front() {
            let role = &mut self.roles[to];
            let mut actions = Vec::with_capacity(16);
            let mut ctx = Ctx { now: self.now, rng: &mut role.rng, actions: &mut actions };
            let (allocations, begin) = (heap::allocations(), Instant::now());
            role.node.handle(event, &mut ctx);
            role.time += begin.elapsed();
            role.allocations += heap::allocations() - allocations;
            role.events += 1;
            actions.into_iter().for_each(|action| self.perform(to, action));
        }
    }

    fn perform(&mut self, from: usize, action: Action) {
        match action {
            Action::SendSip { flow, bytes, .. } => {
                let flow = Flow { local: flow.remote, remote: flow.local, ..flow };
                match self.sip.get(&flow.local) {
                    Some(to) => self.under_way.push_back((*to, Event::Sip(Packet { flow, bytes }))),
                    None => self.to_handset.push_back(Packet { flow, bytes }),
                }
            }
            Action::Connect { peer, target } => self.connect(from, peer, target.parse().expect("an address")),
            Action::SendDiameter { link, bytes } => {
                let (to, link) = self.links[&link];
                self.under_way.push_back((to, Event::Diameter { link, bytes }));
            }
            Action::Store { id, request } => {
                let result = self.store.perform(request);
                self.under_way.push_back((from, Event::Stored { id, result }));
            }
            Action::Reply { result, .. } => self.refused += u64::from(result.is_err()),
            _ => {}
        }
    }

    fn connect(&mut self, from: usize, peer: PeerId, target: SocketAddr) {
        let to = self.diameter[&target];
        let near = LinkId(self.links.len() as u64 + 1);
        let far = LinkId(near.0 + 1);
        self.links.insert(near, (to, far));
        self.links.insert(far, (from, near));
        self.under_way.push_back((to, Event::LinkUp { link: far, peer: None, remote: target }));
        self.under_way.push_back((from, Event::LinkUp { link: near, peer: Some(peer), remote: target }));
    }

    /// Lets time pass; the roles' deadlines are kept.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let due =
                self.roles.iter().enumerate().filter_map(|(index, role)| Some((role.node.deadline()?, index))).min();
            let Some((at, index)) = due.filter(|(at, _)| *at <= end) else { break };
            self.now = self.now.max(at);
            self.under_way.push_back((index, Event::Timeout));
            self.run();
        }
        self.now = end;
    }

    pub(crate) fn provision(&mut self, number: usize) {
        let args = json!({ "imsi": imsi(number), "k": K, "opc": OPC, "msisdn": format!("4915100{number:05}") });
        let command = Command { id: CommandId(number as u64), call: "subscriber.create".into(), args };
        self.under_way.push_back((HSS, Event::Command(command)));
        self.run();
    }

    /// From a handset to the P-CSCF, and all that follows from it until a handset is asked again.
    pub(crate) fn sends(&mut self, flow: Flow, bytes: Bytes) {
        self.handset = Some(flow);
        let flow = Flow { local: flow.remote, remote: flow.local, ..flow };
        self.under_way.push_back((0, Event::Sip(Packet { flow, bytes })));
        self.run();
    }

    /// Whether the handset got its 200.
    pub(crate) fn register(&mut self, handset: &mut Ue, rng: &mut Rng) -> bool {
        let mut actions = Vec::new();
        handset.start(Procedure::Register, &mut Ctx { now: self.now, rng, actions: &mut actions });
        loop {
            for action in actions.drain(..) {
                if let Action::SendSip { flow, bytes, .. } = action {
                    self.sends(flow, bytes);
                }
            }
            let Some(packet) = self.to_handset.pop_front() else { return false };
            handset.handle(Event::Sip(packet), &mut Ctx { now: self.now, rng, actions: &mut actions });
            if let Some(report) = handset.next_report() {
                return report.result.is_ok();
            }
        }
    }

    #[allow(dead_code, reason = "what a benchmark says that fails")]
    pub(crate) fn describe(&self) -> String {
        self.roles.iter().map(|role| role.node.snapshot()["refusals"].to_string()).collect::<Vec<_>>().join(" ")
    }

    pub(crate) fn forget_costs(&mut self) {
        for role in &mut self.roles {
            (role.time, role.events, role.allocations) = (Duration::ZERO, 0, 0);
        }
    }
}

pub(crate) fn config() -> LabConfig {
    let mut config = LabConfig::default();
    config.pcscf.security.policy = pcscf::config::Policy::Never;
    config.pcscf.gm.addresses = vec![config.handset(0).pcscf.ip()];
    config.ue = ue::Config { sec_agree: false, allow_unprotected: true, journal: false, ..config.ue };
    config
}

/// What one of `many` cost each role since the costs were forgotten.
pub(crate) fn report(what: &str, one: &str, core: &Core, many: usize) {
    let each = |value: f64| value / many as f64;
    println!("{what}, {many} {one}s:");
    for (name, role) in ROLES.iter().zip(&core.roles) {
        let (time, events) = (each(role.time.as_secs_f64() * 1e6), each(role.events as f64));
        println!("  {name}: {time:6.1} us in {events:4.1} events, {:5.0} allocations", each(role.allocations as f64));
    }
    let all: f64 = core.roles.iter().map(|role| role.time.as_secs_f64()).sum();
    println!("  together: {:.1} us, that is {:.3} CPU s per 1,000 {one}s", each(all * 1e6), each(all * 1e3));
}
