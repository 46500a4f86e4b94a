//! A whole IMS in a world: P-, I- and S-CSCF, HSS, and handsets whose SIMs are provisioned.

use crate::invariants::quiet;
use crate::server::{Part, Server};
use crate::world::{NodeId, World};
use ims_aka::Algorithm;
use ims_core::command::{CommandId, Problem};
use ims_core::config::parse;
use ims_core::sa::Suite;
use ims_core::{Node, Secret};
use ims_diameter::PeerConfig;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use ue::config::GmTransport;
use ue::{Key, Ue};

pub const DOMAIN: &str = "ims.mnc001.mcc001.3gppnetwork.org";
pub const K: &str = "465b5ce8b199b49faa5f0a2ee238a6bc";
pub const OPC: &str = "cd63cb71954a9f4e48a5994e37a02baf";

const PCSCF_MW: &str = "10.0.1.1:5070";
const ICSCF: &str = "10.0.1.2:4060";
const SCSCF: &str = "10.0.1.3:6060";
const SCSCF2: &str = "10.0.1.5:6060";
const HSS: &str = "10.0.1.4:3868";

/// What a laboratory is made of. The role configurations come wired to one another; a test changes what it is about.
#[derive(Clone)]
pub struct LabConfig {
    pub seed: u64,
    pub handsets: usize,
    /// Handsets and the P-CSCF's side of them speak IPv6.
    pub v6: bool,
    /// How many S-CSCFs there are: one or two.
    pub scscfs: usize,
    /// Provision the SIMs of the handsets.
    pub provision: bool,
    pub pcscf: pcscf::Config,
    pub icscf: icscf::Config,
    pub scscf: scscf::Config,
    pub hss: hss::Config,
    /// What the handsets have in common; addresses and IMSI are set for each.
    pub ue: ue::Config,
}

impl Default for LabConfig {
    fn default() -> Self {
        let hops = |pairs: &[(&str, &str)]| -> BTreeMap<String, Vec<String>> {
            let full = |host: &str| if host.is_empty() { DOMAIN.to_owned() } else { format!("{host}.{DOMAIN}") };
            pairs.iter().map(|(host, to)| (full(host), vec![format!("udp:{to}")])).collect()
        };
        let addr = |text: &str| -> SocketAddr { text.parse().expect("an address") };
        let peer = |host: &str, connect: bool| PeerConfig {
            host: Some(format!("{host}.{DOMAIN}")),
            realm: Some(DOMAIN.into()),
            connect: connect.then(|| HSS.to_owned()),
        };
        let mut pcscf = pcscf::Config {
            next_hops: hops(&[("", ICSCF), ("scscf", SCSCF), ("scscf2", SCSCF2)]),
            ..Default::default()
        };
        pcscf.mw.listen = addr(PCSCF_MW);
        pcscf.mw.udp_limit = 60_000;
        pcscf.security.policy = pcscf::config::Policy::Require;
        let mut icscf = icscf::Config {
            listen: addr(ICSCF),
            udp_limit: 60_000,
            next_hops: hops(&[("scscf", SCSCF), ("scscf2", SCSCF2)]),
            ..Default::default()
        };
        icscf.diameter.peers = vec![peer("hss", true)];
        let mut scscf = scscf::Config {
            listen: addr(SCSCF),
            udp_limit: 60_000,
            next_hops: hops(&[("", ICSCF), ("pcscf", PCSCF_MW), ("scscf", SCSCF), ("scscf2", SCSCF2)]),
            ..Default::default()
        };
        scscf.diameter.peers = vec![peer("hss", true)];
        let mut hss =
            hss::Config { listen: vec![addr(HSS)], master_key: Some(Secret::new([7; 32])), ..Default::default() };
        hss.diameter.peers = ["icscf", "scscf", "scscf2"].map(|host| peer(host, false)).to_vec();
        let (k, opc) = (Key::from_hex(K).expect("a key"), Key::from_hex(OPC));
        let ue = ue::Config { k, opc, seal: true, ..Default::default() };
        let (pcscf, icscf) = (pcscf, icscf);
        Self { seed: 1, handsets: 1, v6: false, scscfs: 1, provision: true, pcscf, icscf, scscf, hss, ue }
    }
}

impl LabConfig {
    /// Handsets offer this pair alone, and the P-CSCF takes it.
    pub fn with_suite(mut self, suite: Suite) -> Self {
        self.ue.offers = vec![suite];
        self.pcscf.security.preference = vec![pcscf::config::SuiteName(suite)];
        self
    }

    pub fn with_tcp(mut self) -> Self {
        self.ue.transport = GmTransport::Tcp;
        self
    }

    /// Keys of the S-CSCF's `[registration]` table.
    pub fn with_registration(mut self, toml: &str) -> Self {
        self.scscf.registration = parse("registration", toml).expect("a registration table");
        self
    }

    fn gm(&self) -> IpAddr {
        if self.v6 {
            IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x10))
        } else {
            IpAddr::V4(Ipv4Addr::new(10, 0, 0, 10))
        }
    }

    /// The configuration of the handset with this number.
    pub fn handset(&self, number: usize) -> ue::Config {
        let low = u16::try_from(number + 1).expect("not so many handsets");
        let address = if self.v6 {
            IpAddr::V6(Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, low))
        } else {
            let [high, low] = low.to_be_bytes();
            IpAddr::V4(Ipv4Addr::new(10, 1, high, low))
        };
        let pcscf = SocketAddr::new(self.gm(), self.pcscf.gm.port);
        ue::Config { imsi: imsi(number), address, pcscf, ..self.ue.clone() }
    }
}

/// The IMSI of the handset with this number.
pub fn imsi(number: usize) -> String {
    format!("00101{:010}", number + 1)
}

pub fn impi(number: usize) -> String {
    format!("{}@{DOMAIN}", imsi(number))
}

/// The telephone number of the handset with this number.
pub fn msisdn(number: usize) -> String {
    format!("+4915100{:05}", number + 1)
}

pub fn algorithm() -> Algorithm {
    Algorithm::milenage(Secret::from_hex(K).expect("a key"), Secret::from_hex(OPC).expect("a key"))
}

/// A running laboratory.
pub struct Lab {
    pub world: World,
    pub config: LabConfig,
    pub pcscf: NodeId,
    pub icscf: NodeId,
    pub scscf: NodeId,
    pub scscf2: Option<NodeId>,
    pub hss: NodeId,
    pub ues: Vec<NodeId>,
    servers: u8,
}

impl Lab {
    pub fn new(config: LabConfig) -> Self {
        let mut world = World::new(config.seed);
        let mut config = config;
        config.pcscf.gm.addresses = vec![config.gm()];
        if config.scscfs > 1 {
            let second = icscf::Scscf { name: format!("sip:scscf2.{DOMAIN}:6060"), capabilities: Vec::new() };
            config.icscf.scscf.push(second);
        }
        let hss = world.add("hss", node(hss::Hss::new(config.hss.clone())), config.hss.wiring());
        let scscf = world.add("scscf", node(scscf::Scscf::new(config.scscf.clone())), config.scscf.wiring());
        let scscf2 = (config.scscfs > 1).then(|| {
            let second = second_scscf(&config.scscf);
            world.add("scscf2", node(scscf::Scscf::new(second.clone())), second.wiring())
        });
        let icscf = world.add("icscf", node(icscf::Icscf::new(config.icscf.clone())), config.icscf.wiring());
        let pcscf = world.add("pcscf", node(pcscf::Pcscf::new(config.pcscf.clone())), config.pcscf.wiring());
        let mut lab = Self { world, config, pcscf, icscf, scscf, scscf2, hss, ues: Vec::new(), servers: 0 };
        lab.world.run_for(Duration::from_secs(1));
        for number in 0..lab.config.handsets {
            lab.add_handset(number, lab.config.handset(number));
        }
        lab.world.trace.clear();
        lab
    }

    /// Adds a handset, and its subscription when the laboratory provisions.
    pub fn add_handset(&mut self, number: usize, config: ue::Config) -> NodeId {
        let wiring = config.wiring();
        let name = format!("ue{}", number + 1);
        let id = self.world.add_handset(&name, node(Ue::new(config)), wiring);
        self.ues.push(id);
        if self.config.provision {
            self.provision(number, json!({}));
        }
        id
    }

    /// Provisions the SIM of a handset as a reader of the manual would; `more` adds or replaces fields.
    pub fn provision(&mut self, number: usize, more: Value) {
        let mut subscriber = json!({
            "imsi": imsi(number), "k": K, "opc": OPC, "msisdn": msisdn(number).trim_start_matches('+'),
        });
        for (name, value) in more.as_object().into_iter().flatten() {
            subscriber[name.as_str()] = value.clone();
        }
        let made = self.world.ask(self.hss, "subscriber.create", subscriber);
        assert!(made.is_ok(), "{made:?}");
        self.world.know_sim(&impi(number), algorithm());
    }

    /// Adds an application server; gives its SIP URI.
    pub fn add_server(&mut self, part: Part) -> (NodeId, String) {
        let number = self.servers + 1;
        self.servers = number;
        let addr = SocketAddr::from(([10, 0, 2, number], 5060));
        let server = Server::new(addr, part);
        let wiring = server.wiring();
        (self.world.add(&format!("as{number}"), Box::new(server), wiring), format!("sip:{addr}"))
    }

    /// What an application server was given: requests that begin something, oldest first.
    pub fn heard(&self, server: NodeId) -> Vec<Value> {
        self.world.snapshot(server)["heard"].as_array().cloned().unwrap_or_default()
    }

    pub fn register(&mut self, number: usize) -> Result<Value, Problem> {
        self.world.ask(self.ues[number], "register", Value::Null)
    }

    pub fn refresh(&mut self, number: usize) -> Result<Value, Problem> {
        self.world.ask(self.ues[number], "refresh", Value::Null)
    }

    pub fn deregister(&mut self, number: usize) -> Result<Value, Problem> {
        self.world.ask(self.ues[number], "deregister", Value::Null)
    }

    /// A handset is given a script (docs/handset.md).
    ///
    /// # Panics
    /// When it is none.
    pub fn script(&mut self, number: usize, toml: &str) {
        let given = self.world.ask(self.ues[number], "script", json!({ "script": toml }));
        assert!(given.is_ok(), "{given:?}");
    }

    /// One handset calls another by its number, and hears how it ends: up, or why not.
    pub fn call(&mut self, from: usize, to: usize) -> Result<Value, Problem> {
        self.tell(from, "call", json!({ "to": msisdn(to) }))
    }

    /// The same, and goes on at once.
    pub fn dial(&mut self, from: usize, to: &str) -> CommandId {
        self.world.command(self.ues[from], "call", json!({ "to": to }))
    }

    /// Gives a handset a command and waits for its end: `answer`, `hangup`, `hold`, `message`, ... (docs/handset.md).
    pub fn tell(&mut self, number: usize, command: &str, args: Value) -> Result<Value, Problem> {
        self.world.ask(self.ues[number], command, args)
    }

    /// The calls that a handset has.
    pub fn calls(&self, number: usize) -> Value {
        self.ue(number)["calls"].clone()
    }

    /// How the calls of a handset ended, oldest first.
    pub fn ended(&self, number: usize) -> Vec<String> {
        let ended = self.ue(number)["ended"].clone();
        let outcome = |e: &Value| e["outcome"].as_str().unwrap_or_default().to_owned();
        ended.as_array().map_or_else(Vec::new, |all| all.iter().map(outcome).collect())
    }

    pub fn ue(&self, number: usize) -> Value {
        self.world.snapshot(self.ues[number])
    }

    /// A new node for this place, from the configuration that it began with.
    ///
    /// # Panics
    /// When the place is none of the laboratory's.
    pub fn rebuild(&mut self, id: NodeId) {
        let config = &self.config;
        let made: Box<dyn Node> = if id == self.hss {
            node(hss::Hss::new(config.hss.clone()))
        } else if id == self.scscf {
            node(scscf::Scscf::new(config.scscf.clone()))
        } else if Some(id) == self.scscf2 {
            node(scscf::Scscf::new(second_scscf(&config.scscf)))
        } else if id == self.icscf {
            node(icscf::Icscf::new(config.icscf.clone()))
        } else if id == self.pcscf {
            node(pcscf::Pcscf::new(config.pcscf.clone()))
        } else {
            let number = self.ues.iter().position(|ue| *ue == id).expect("a node of this laboratory");
            node(Ue::new(config.handset(number)))
        };
        self.world.restart(id, made);
    }

    /// What the HSS says of a subscriber.
    pub fn subscriber(&mut self, number: usize) -> Value {
        let shown = self.world.ask(self.hss, "subscriber.show", json!({ "imsi": imsi(number) }));
        shown.expect("the subscriber is there")
    }

    pub fn registered_at_pcscf(&self) -> usize {
        self.world.snapshot(self.pcscf)["registrations"].as_array().map_or(0, Vec::len)
    }

    pub fn registered_at_scscf(&self) -> usize {
        self.world.snapshot(self.scscf)["registrations"].as_array().map_or(0, Vec::len)
    }

    /// How often a role refused something under this name.
    pub fn refusals(&self, node: NodeId, name: &str) -> u64 {
        self.world.snapshot(node)["refusals"][name].as_u64().unwrap_or(0)
    }

    /// No handset has anything to say against the network.
    ///
    /// # Panics
    /// When one has.
    pub fn assert_no_faults(&self) {
        for ue in &self.ues {
            let faults = &self.world.snapshot(*ue)["faults"];
            assert!(faults.as_object().is_some_and(serde_json::Map::is_empty), "{}: {faults}", self.world.name(*ue));
        }
    }

    /// Lets everything come to rest, and sees that it has.
    ///
    /// # Panics
    /// When a node still waits for something after ten minutes.
    pub fn rest(&mut self) {
        let rested = self.world.settle(Duration::from_secs(600));
        let busy: Vec<String> = self
            .world
            .nodes()
            .filter(|n| !quiet(&self.world.snapshot(*n)))
            .map(|n| self.world.name(n).to_owned())
            .collect();
        assert!(rested, "no rest: {busy:?}");
    }
}

/// The second S-CSCF: another name and address, otherwise the same.
fn second_scscf(first: &scscf::Config) -> scscf::Config {
    let mut second = scscf::Config {
        host: format!("scscf2.{DOMAIN}"),
        listen: SCSCF2.parse().expect("an address"),
        ..first.clone()
    };
    second.diameter.origin_host = second.host.clone();
    second
}

fn node<N: Node + 'static, E: std::fmt::Display>(made: Result<N, E>) -> Box<dyn Node> {
    match made {
        Ok(node) => Box::new(node),
        Err(e) => panic!("{e}"),
    }
}
