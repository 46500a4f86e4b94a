//! Whatever comes in whatever order, with bytes changed on the way: nothing panics, and when the world is quiet
//! nothing is left.

mod bench;
mod play;

use bench::DOMAIN;
use bytes::Bytes;
use ims_core::{Action, Ctx, Event, Flow, Node, Packet, Rng, Time};
use ims_sip::headers::Route;
use ims_sip::{Message, Name};
use play::{Play, profile};
use scscf::Scscf;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

const LOCAL: &str = "127.0.0.1:6060";
const REMOTES: [&str; 3] = ["127.0.0.1:5070", "127.0.0.1:4060", "127.0.0.1:9001"];
/// Events of one run.
const STEPS: usize = 1500;

/// Two users, one with an application server on each side and several devices.
fn registered() -> Play {
    let criterion = |priority: u32, port: u32, handling: u32| {
        format!(
            "<InitialFilterCriteria><Priority>{priority}</Priority><ApplicationServer><ServerName>sip:127.0.0.1:{port}</ServerName>\
             <DefaultHandling>{handling}</DefaultHandling></ApplicationServer></InitialFilterCriteria>"
        )
    };
    let mut play = Play::new(|config| config.udp_limit = 60_000);
    let services = [criterion(0, 9001, 0), criterion(1, 9001, 1)].concat();
    play.register("1", "<sip:1@192.0.2.1>;expires=7000", &profile("1", &services));
    for (at, params) in ["", ";q=0.5;audio", ";q=0.5;+g.3gpp.smsip"].iter().enumerate() {
        let contact = format!("<sip:2@192.0.2.{at}>;+sip.instance=\"<urn:uuid:{at}>\";expires=7000{params}");
        play.register_as(&format!("2-{at}"), "2", &contact, "Supported: gruu\n", &profile("2", ""));
    }
    play
}

struct Storm {
    node: Scscf,
    now: Time,
    rng: Rng,
    node_rng: Rng,
    /// Requests of the node that may still be answered or passed on.
    sent: VecDeque<(SocketAddr, Message)>,
    /// What was sent to it.
    given: VecDeque<(SocketAddr, String)>,
    calls: u32,
}

impl Storm {
    /// The HSS is not heard of any more.
    fn new(seed: u64, play: Play) -> Self {
        Self {
            now: play.bench.now,
            node: play.bench.node,
            rng: Rng::from_u64(seed),
            node_rng: Rng::from_u64(seed + 1),
            sent: VecDeque::new(),
            given: VecDeque::new(),
            calls: 0,
        }
    }

    fn event(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let mut actions = Vec::new();
            self.node.handle(event, &mut Ctx { now: self.now, rng: &mut self.node_rng, actions: &mut actions });
            for action in actions {
                match action {
                    Action::SendSip { flow, bytes, .. } => self.on_sent(flow.remote, bytes),
                    Action::Connect { peer, .. } => events.push_back(Event::LinkDown { link: None, peer: Some(peer) }),
                    Action::Dns { id, .. } => {
                        events.push_back(Event::Dns { id, answer: Err(ims_core::dns::DnsError::NoSuchName) });
                    }
                    _ => {}
                }
            }
        }
    }

    fn on_sent(&mut self, to: SocketAddr, bytes: Bytes) {
        let message = Message::parse(bytes).expect("what we send can be read");
        if message.is_request() {
            self.sent.push_back((to, message));
            self.sent.truncate(64);
        }
    }

    fn any<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.rng.below(list.len() as u64) as usize]
    }

    fn request(&mut self) -> String {
        self.calls += 1;
        let call = self.calls;
        let method = self.any(&["INVITE", "INVITE", "MESSAGE", "SUBSCRIBE", "OPTIONS", "BYE", "UPDATE", "FOO"]);
        let user = format!("sip:2@{DOMAIN}");
        let gruu = format!("sip:2@{DOMAIN};gr=urn:uuid:1");
        let uri = self
            .any(&[&user, &gruu, "tel:+15551", "sip:2@192.0.2.1", "sip:x@far.example", "urn:service:sos", LOCAL])
            .to_owned();
        let own = |user: &str| format!("<sip:{user}scscf.{DOMAIN}:6060;lr>");
        let odi = self.sent.iter().rev().find_map(|(_, m)| {
            let routes: Vec<Route<'_>> = m.all().ok()?;
            routes.iter().find(|r| r.uri.contains("odi-")).map(|r| format!("<{}>", r.uri))
        });
        let marks = [
            own("orig@"),
            own(""),
            own("mo@"),
            own("").replace(";lr", ";lr;orig"),
            odi.unwrap_or_else(|| own("odi-x@")),
        ];
        let marks: Vec<&str> = marks.iter().map(String::as_str).collect();
        let route = self.any(&marks).to_owned();
        let tag = self.any(&["", "", "", ";tag=t"]);
        let more = self.any(&[
            "",
            "",
            "Accept-Contact: *;audio;require\r\n",
            "Reject-Contact: *;+g.3gpp.smsip=\"!a\"\r\n",
            "Request-Disposition: sequential, no-fork\r\n",
            "Max-Breadth: 1\r\n",
            "Supported: timer\r\nSession-Expires: 80\r\n",
            "P-Preferred-Service: urn:x\r\nPrivacy: id\r\n",
            "Proxy-Require: bar\r\n",
            "Route: <sip:a@192.0.2.9>\r\n",
        ]);
        format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5070;branch=z9hG4bK-{call}\r\nFrom: <sip:1@{DOMAIN}>;tag=f\r\n\
             To: <{uri}>{tag}\r\nCall-ID: {call}\r\nCSeq: 1 {method}\r\nMax-Forwards: 20\r\nContact: <sip:1@192.0.2.1>\r\n\
             Route: {route}\r\nP-Asserted-Identity: <sip:1@{DOMAIN}>\r\n{more}Content-Length: 0\r\n\r\n"
        )
    }

    /// The answer of somebody, or the request that an application server gives back.
    fn reaction(&mut self) -> Option<(SocketAddr, Message)> {
        let at = self.rng.below(self.sent.len().max(1) as u64) as usize;
        let (to, request) = self.sent.get(at).cloned()?;
        if self.rng.below(4) == 0 {
            let mut back = request;
            back.pop_first(Name::Route);
            self.calls += 1;
            back.push_front(Name::Via, format!("SIP/2.0/UDP {to};branch=z9hG4bK-{}", self.calls));
            return Some((to, back));
        }
        let statuses =
            ["100", "180", "183", "200", "200", "202", "302", "404", "408", "486", "487", "500", "503", "580", "603"];
        let status = self.any(&statuses).parse().unwrap();
        let mut answer = Message::response(&request, status, Some("r"));
        answer.copy(Name::RecordRoute, &request);
        answer.set(Name::Contact, "<sip:r@192.0.2.77>");
        Some((to, answer))
    }

    fn changed(&mut self, text: &[u8]) -> Vec<u8> {
        let mut bytes = text.to_vec();
        for _ in 0..self.rng.below(4) {
            let at = self.rng.below(bytes.len().max(1) as u64) as usize;
            match self.rng.below(5) {
                0 => bytes[at] = self.rng.below(256) as u8,
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, *b";,<>@:%\"= \r\n0".get(self.rng.below(13) as usize).unwrap_or(&0)),
                3 => {
                    let end = (at + 20).min(bytes.len());
                    let part = bytes[at..end].to_vec();
                    bytes.splice(at..at, part);
                }
                _ => drop(bytes.drain(at..(at + 7).min(bytes.len()))),
            }
            if bytes.is_empty() {
                bytes.push(b'x');
            }
        }
        bytes
    }

    fn receive(&mut self, from: SocketAddr, bytes: &[u8]) {
        let bytes = if self.rng.below(3) == 0 { self.changed(bytes) } else { bytes.to_vec() };
        let flow = Flow::udp(LOCAL.parse().unwrap(), from);
        self.event(Event::Sip(Packet { flow, bytes: bytes.into() }));
    }

    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        for turn in 0.. {
            let Some(at) = self.node.deadline().filter(|at| *at <= end) else { break };
            assert!(turn < 100_000, "the node never comes to rest");
            self.now = at.max(self.now);
            self.event(Event::Timeout);
        }
        self.now = end;
    }

    fn step(&mut self) {
        match self.rng.below(10) {
            0..4 => {
                let text = self.request();
                let from: SocketAddr = self.any(&REMOTES).parse().unwrap();
                self.given.push_front((from, text.clone()));
                self.given.truncate(32);
                self.receive(from, text.as_bytes());
            }
            4..8 => {
                if let Some((from, message)) = self.reaction() {
                    self.receive(from, &message.to_bytes());
                }
            }
            8 => {
                let at = self.rng.below(self.given.len().max(1) as u64) as usize;
                let Some((from, text)) = self.given.get(at).cloned() else { return };
                let method = text.split(' ').next().unwrap_or_default().to_owned();
                let other = self.any(&["CANCEL", "ACK", &method]).to_owned();
                self.receive(from, text.replace(&method, &other).as_bytes());
            }
            _ => {
                let millis = self.rng.below(6000);
                self.wait(Duration::from_millis(millis));
            }
        }
    }
}

#[test]
fn nothing_panics_and_nothing_is_left() {
    let (mut relayed, mut at_servers) = (0, 0);
    for seed in 0..12 {
        let mut storm = Storm::new(seed, registered());
        for _ in 0..STEPS {
            storm.step();
        }
        let snapshot = storm.node.snapshot();
        relayed += snapshot["relay"].as_u64().unwrap();
        let servers = snapshot["application_servers"].as_object().unwrap().values();
        at_servers += servers.filter_map(serde_json::Value::as_u64).sum::<u64>();
        storm.wait(Duration::from_secs(1200));
        let snapshot = storm.node.snapshot();
        assert!(storm.node.is_quiet(), "seed {seed}: {snapshot}");
        assert_eq!((&snapshot["relay"], &snapshot["chains"]), (&0.into(), &0.into()), "seed {seed}");
        assert_eq!(snapshot["registered"], 4, "seed {seed}: nobody has lost a registration");
    }
    assert!(relayed > 20 && at_servers > 500, "the storm does reach sessions: {relayed} {at_servers}");
}
