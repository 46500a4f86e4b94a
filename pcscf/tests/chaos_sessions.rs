//! Sessions of attached handsets, with a core and handsets that do whatever they like, in an order drawn from a seed. Whatever
//! happens: nothing leaves outside an SA, nothing of charging reaches a handset, each INVITE has its final answer in the end, and when
//! all registrations are over, nothing is left of any session.

mod common;

use common::{Bench, DOMAIN, Handset, Out};
use ims_core::sa::{SaExpiry, SaSet};
use ims_core::{ConnId, Event, Flow, FlowError, Node, Packet, Rng, Transport};
use ims_sip::{Message, Method, Name};
use std::collections::BTreeMap;
use std::time::Duration;

const METHODS: [&str; 10] =
    ["INVITE", "BYE", "ACK", "UPDATE", "PRACK", "INFO", "MESSAGE", "SUBSCRIBE", "OPTIONS", "FROBNICATE"];

fn branch_of(text: &str) -> &str {
    text.split("branch=").nth(1).unwrap().split([';', '\r']).next().unwrap()
}

fn mw() -> Flow {
    Flow::udp("127.0.0.1:5070".parse().unwrap(), "127.0.0.1:6060".parse().unwrap())
}

/// What somebody has seen of a session, to send more within it.
#[derive(Clone)]
struct Seen {
    ue: usize,
    call: String,
    ue_party: String,
    core_party: String,
    /// Our Record-Route as each side has it.
    for_ue: String,
    for_core: String,
}

struct World {
    bench: Bench,
    rng: Rng,
    ues: Vec<(Handset, SaSet, String)>,
    at_core: Vec<Message>,
    at_ues: Vec<(Flow, Message)>,
    seen: Vec<Seen>,
    n: u32,
    /// INVITEs of the core, and whether they have their final answer.
    asked: BTreeMap<String, bool>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut bench = Bench::with(|config| {
            config.next_hops.insert("scscf.ims.example:6060".into(), vec!["udp:127.0.0.1:6060".into()]);
            config.next_hops.insert("ecscf.example".into(), vec!["udp:127.0.0.1:6060".into()]);
            config.emergency.route = "sip:ecscf.example;lr".into();
        });
        let ues = (0..3u16).map(|n| Self::attach(&mut bench, n)).collect();
        Self {
            bench,
            rng: Rng::from_u64(seed),
            ues,
            at_core: Vec::new(),
            at_ues: Vec::new(),
            seen: Vec::new(),
            n: 0,
            asked: BTreeMap::new(),
        }
    }

    fn attach(bench: &mut Bench, n: u16) -> (Handset, SaSet, String) {
        let mut ue = Handset::new(n == 1, if n == 2 { Transport::Tcp } else { Transport::Udp });
        ue.imsi = format!("00101000000000{n}");
        (ue.port, ue.us, ue.uc) = (5060 + n, 50_000 + n, 40_000 + 100 * n);
        (ue.spi, ue.call, ue.conn) = (7000 + 1000 * u32::from(n), format!("reg{n}"), ConnId(u64::from(n) + 1));
        let set = ue.attach(bench, 3600);
        let request = ue.protected(bench, 600_000).forwarded();
        let path = request.text(Name::Path).unwrap().to_owned();
        let out = bench.accept(&request, 3600);
        bench.kernel_agrees(&out);
        (ue, set, path)
    }

    fn pick(&mut self, len: usize) -> usize {
        usize::try_from(self.rng.below(len as u64)).unwrap()
    }

    fn chance(&mut self, of: u64) -> bool {
        self.rng.below(of) == 0
    }

    fn note(&mut self, out: Out) {
        self.bench.kernel_agrees(&out);
        for message in out.core {
            self.note_final(&message);
            if message.is_request() {
                self.at_core.push(message);
            } else {
                self.learn(&message, None);
            }
        }
        for (flow, message) in out.ue {
            if flow.local.port() != 5060 {
                let holds = &self.bench.holds;
                let over = |s: &SaSet| s.legs().iter().any(|leg| (leg.src, leg.dst) == (flow.local, flow.remote));
                assert!(holds.iter().any(|(set, _)| over(set)), "outside every SA: {flow}");
            }
            match message.is_request() {
                true => self.at_ues.push((flow, message)),
                false => self.learn(&message, Some(flow)),
            }
        }
        // Nobody has endless memory.
        for _ in 40..self.seen.len() {
            self.seen.remove(0);
        }
    }

    fn note_final(&mut self, message: &Message) {
        if message.status() >= 200 && message.method() == Method::Invite {
            let answered = self.asked.get_mut(branch_of(message.text(Name::Via).unwrap()));
            *answered.expect("an INVITE of the core") = true;
        }
    }

    /// An answer that makes a dialog, seen by the caller.
    fn learn(&mut self, answer: &Message, at: Option<Flow>) {
        let (Some(recorded), true) = (answer.text(Name::RecordRoute), (101..300).contains(&answer.status())) else {
            return;
        };
        let text = |name| answer.text(name).unwrap_or_default().to_owned();
        let ue = match at {
            Some(flow) => self.ues.iter().position(|(ue, ..)| ue.ip == flow.remote.ip()),
            None => self.ues.iter().position(|(.., path)| recorded.contains(&path[5..20])),
        };
        let Some(ue) = ue else { return };
        let (from, to) = (text(Name::From), text(Name::To));
        let token = self.ues[ue].2.clone();
        let (ue_party, core_party) = if at.is_some() { (from, to) } else { (to, from) };
        self.seen.push(Seen {
            ue,
            call: text(Name::CallId),
            ue_party,
            core_party,
            for_ue: recorded.to_owned(),
            for_core: token,
        });
    }

    fn branch(&mut self) -> String {
        self.n += 1;
        format!("z9hG4bKx{}", self.n)
    }

    fn own(&self, n: usize) -> String {
        let (ue, set, _) = &self.ues[n];
        format!("{}:{}", ims_core::uri::host_of(ue.ip), set.port_us)
    }

    fn text(
        &mut self,
        head: &str,
        via: &str,
        routes: &str,
        (from, to, call): (&str, &str, &str),
        contact: &str,
    ) -> String {
        let method = head.split(' ').next().unwrap().to_owned();
        let (branch, cseq) = (self.branch(), self.n);
        format!(
            "{head} SIP/2.0\r\nVia: {via};branch={branch}\r\nMax-Forwards: 70\r\n{routes}From: {from}\r\nTo: {to}\r\nCall-ID: {call}\r\n\
             CSeq: {cseq} {method}\r\nContact: <sip:{contact}>\r\nP-Charging-Vector: icid-value=i{cseq}\r\nContent-Length: 0\r\n\r\n"
        )
    }

    fn ue_flow(&mut self, n: usize) -> Flow {
        let (ue, set, _) = &self.ues[n];
        let mut flow = ue.flow_of(set);
        // Samsung.
        if self.chance(4) {
            (flow.transport, flow.conn) = (Transport::Tcp, Some(ConnId(50 + n as u64)));
        }
        flow
    }

    fn begin(&mut self) {
        let n = self.pick(self.ues.len());
        let method = METHODS[if self.chance(2) { 0 } else { self.pick(METHODS.len()) }];
        let call = format!("call{}", self.n);
        let (own, path) = (self.own(n), self.ues[n].2.clone());
        let uri = ["tel:+49301", "sip:b@x", "urn:service:sos"][self.pick(3)];
        let (flow, text) = if self.chance(2) {
            let from = format!("<sip:u{n}@{DOMAIN}>;tag=u{}", self.n);
            let text = self.text(
                &format!("{method} {uri}"),
                &format!("SIP/2.0/UDP {own}"),
                "",
                (&from, "<sip:b@x>", &call),
                &own,
            );
            (self.ue_flow(n), text)
        } else {
            let from = format!("<sip:far@x>;tag=f{}", self.n);
            let routes = format!("Route: {path}\r\nRecord-Route: <sip:mt@scscf.ims.example:6060;lr>\r\n");
            let head = format!("{method} sip:u@{own}");
            (
                mw(),
                self.text(&head, "SIP/2.0/UDP 127.0.0.1:6060", &routes, (&from, "<sip:u@x>", &call), "far@203.0.113.9"),
            )
        };
        self.send(flow, &text);
    }

    fn within(&mut self) {
        if self.seen.is_empty() {
            return;
        }
        let at = self.pick(self.seen.len());
        let seen = self.seen[at].clone();
        let method = METHODS[self.pick(METHODS.len())];
        let own = self.own(seen.ue);
        let (flow, text) = if self.chance(2) {
            let routes = match self.rng.below(3) {
                0 => String::new(),
                1 => format!("Route: {}\r\n", seen.for_ue),
                _ => "Route: <sip:evil.example;lr>\r\n".into(),
            };
            let parties = (seen.ue_party.as_str(), seen.core_party.as_str(), seen.call.as_str());
            let text = self.text(
                &format!("{method} sip:far@203.0.113.9"),
                &format!("SIP/2.0/UDP {own}"),
                &routes,
                parties,
                &own,
            );
            (self.ue_flow(seen.ue), text)
        } else {
            let routes = format!("Route: {}\r\n", seen.for_core);
            let parties = (seen.core_party.as_str(), seen.ue_party.as_str(), seen.call.as_str());
            let head = format!("{method} sip:u@{own}");
            (mw(), self.text(&head, "SIP/2.0/UDP 127.0.0.1:6060", &routes, parties, "far@203.0.113.9"))
        };
        self.send(flow, &text);
    }

    fn send(&mut self, flow: Flow, text: &str) {
        if text.starts_with("INVITE") && flow == mw() {
            self.asked.insert(branch_of(text).to_owned(), false);
        }
        let out = self.bench.packet(flow, text);
        self.note(out);
        if text.starts_with("INVITE") && self.chance(3) {
            let cancel = text.replacen("INVITE", "CANCEL", 1).replace(" INVITE\r\n", " CANCEL\r\n");
            let out = self.bench.packet(flow, &cancel);
            self.note(out);
        }
        if self.chance(6) {
            let out = self.bench.packet(flow, text);
            self.note(out);
        }
    }

    fn status(&mut self) -> u16 {
        [180, 183, 200, 200, 202, 302, 404, 486, 487, 500, 503, 603][self.pick(12)]
    }

    fn core_answers(&mut self) {
        if self.at_core.is_empty() {
            return;
        }
        let at = self.pick(self.at_core.len());
        let request = self.at_core[at].clone();
        let status = self.status();
        if status >= 200 || request.method() == Method::Ack || self.chance(5) {
            self.at_core.remove(at);
        }
        if request.method() == Method::Ack {
            return;
        }
        let recorded = request.text(Name::RecordRoute).unwrap_or("<sip:x@y;lr>").to_owned();
        let lines = [
            ("Record-Route", "<sip:mo@scscf.ims.example:6060;lr>"),
            ("Record-Route", recorded.as_str()),
            ("Contact", "<sip:b@203.0.113.9>"),
            ("P-Charging-Vector", "icid-value=secret"),
        ];
        let out = self.bench.answer(&request, status, &lines);
        self.note(out);
    }

    fn ue_answers(&mut self) {
        if self.at_ues.is_empty() {
            return;
        }
        let at = self.pick(self.at_ues.len());
        let (flow, request) = self.at_ues[at].clone();
        let status = self.status();
        if status >= 200 || request.method() == Method::Ack || self.chance(5) {
            self.at_ues.remove(at);
        }
        if request.method() == Method::Ack {
            return;
        }
        let Some(n) = self.ues.iter().position(|(ue, ..)| ue.ip == flow.remote.ip()) else { return };
        let mut answer = Message::response(&request, status, Some("callee"));
        if self.chance(2) {
            answer.copy(Name::RecordRoute, &request);
        }
        answer.push_named("Contact", format!("<sip:u@{}>", self.own(n)));
        answer.push_named("P-Asserted-Identity", "<sip:president@x>");
        let back = match flow.transport {
            Transport::Udp => self.ues[n].0.flow_of(&self.ues[n].1),
            Transport::Tcp => Flow { conn: Some(flow.conn.unwrap_or(ConnId(99))), ..flow },
        };
        let out = self.bench.handle(Event::Sip(Packet { flow: back, bytes: answer.to_bytes() }));
        for message in &out.core {
            let told = message.text(Name::PAssertedIdentity).unwrap_or_default();
            assert!(!told.contains("president"), "what a UE says about itself reached the core");
        }
        self.note(out);
    }

    fn mishap(&mut self) {
        let out = match self.rng.below(6) {
            0 => self.bench.handle(Event::FlowClosed(ConnId(50 + self.n as u64 % 3))),
            1 => self.bench.handle(Event::FlowClosed(ConnId(3))),
            2 if !self.at_ues.is_empty() => self.bench.fail_last(FlowError::Refused),
            3 if self.chance(4) => {
                let set = self.ues[self.n as usize % 3].1;
                self.bench.handle(Event::SaExpired(SaExpiry { dst: set.ue, spi: set.spi_us, hard: true }))
            }
            4 if self.chance(3) => {
                let n = self.pick(3);
                let (mut ue, set, _) = self.ues[n].clone();
                ue.set = Some(set);
                let out = ue.protected(&mut self.bench, 0);
                self.ues[n].0 = ue;
                let Some(request) = out.core.first().filter(|m| m.method() == Method::Register).cloned() else {
                    return;
                };
                let out = self.bench.accept(&request, 0);
                self.note(out);
                return;
            }
            5 if self.chance(3) => {
                // Registers anew from where it was.
                let n = self.pick(3);
                let (mut ue, _, _) = self.ues[n].clone();
                ue.renew();
                ue.call = format!("again{}", self.n);
                self.n += 1;
                let hello = ue.hello(&mut self.bench);
                let Some(request) = hello.core.first().cloned() else { return };
                let asked = self.bench.challenge(&request, "bm9uY2U=");
                let (id, set) = asked.install();
                let out = self.bench.kernel(id, Ok(()));
                self.note(out);
                (ue.set, ue.nonce) = (Some(set), "bm9uY2U=".into());
                let request = ue.protected(&mut self.bench, 600_000).forwarded();
                let path = request.text(Name::Path).unwrap().to_owned();
                let out = self.bench.accept(&request, 3600);
                self.note(out);
                self.ues[n] = (ue, set, path);
                return;
            }
            _ => {
                let seconds = [1, 1, 5, 40, 200][self.pick(5)];
                return self.pass(seconds);
            }
        };
        self.note(out);
    }

    fn pass(&mut self, seconds: u64) {
        let end = self.bench.now + Duration::from_secs(seconds);
        while let Some(at) = self.bench.node.deadline().filter(|at| *at <= end) {
            self.bench.now = self.bench.now.max(at);
            let out = self.bench.handle(Event::Timeout);
            // A retransmission is no new request.
            let (at_core, at_ues) = (self.at_core.len(), self.at_ues.len());
            self.note(out);
            self.at_core.truncate(at_core);
            self.at_ues.truncate(at_ues);
        }
        self.bench.now = end;
    }

    fn step(&mut self) {
        match self.rng.below(20) {
            0..=3 => self.begin(),
            4..=8 => self.within(),
            9..=13 => self.core_answers(),
            14..=18 => self.ue_answers(),
            _ => self.mishap(),
        }
    }
}

#[test]
fn whatever_a_session_does_nothing_leaks_and_nothing_of_it_stays() {
    let (mut answered, mut released) = (0, 0);
    for seed in 0..40 {
        let mut world = World::new(seed);
        for _ in 0..500 {
            world.step();
        }
        let s = world.bench.node.snapshot();
        answered += s["sessions"]["answered_total"].as_u64().unwrap();
        released += s["refusals"]["session-released"].as_u64().unwrap_or(0);
        // Registrations run out, and with them everything.
        world.pass(8000);
        let unanswered: Vec<_> = world.asked.iter().filter(|(_, answered)| !**answered).collect();
        assert!(unanswered.is_empty(), "seed {seed}: {unanswered:?}");
        let s = world.bench.node.snapshot();
        assert_eq!(
            (&s["sessions"]["answered"], &s["sessions"]["ringing"]),
            (&0.into(), &0.into()),
            "seed {seed}: {s:#}"
        );
        world.bench.assert_empty();
    }
    assert!(answered > 200 && released > 20, "the world was too quiet: {answered} answered, {released} released");
}
