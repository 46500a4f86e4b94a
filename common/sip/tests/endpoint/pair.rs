//! Two endpoints with a bad network between them: whatever is lost, doubled or late, each request becomes one
//! transaction, gets one final answer or fails, and everything is forgotten in the end.

use crate::lab::{config, text, uri};
use bytes::Bytes;
use ims_core::{Action, Ctx, Flow, Packet, Rng, Time, Transport};
use ims_sip::endpoint::{ClientTx, ServerTx};
use ims_sip::{Endpoint, Message, Method, SipEvent};
use std::collections::BTreeMap;
use std::time::Duration;

struct World {
    now: Time,
    rng: Rng,
    /// Per cent.
    loss: u64,
    ends: [Endpoint; 2],
    wire: BTreeMap<(Time, u64), (usize, Packet)>,
    sent: u64,
    /// What the server end does next, by time.
    todo: BTreeMap<(Time, u64), (ServerTx, Message)>,
    requests: BTreeMap<u64, u32>,
    finals: BTreeMap<u64, Vec<u16>>,
    acks: u32,
}

impl World {
    fn new(seed: u64, loss: u64) -> Self {
        let end = |local: &str| {
            let mut config = config();
            config.local = local.parse().unwrap();
            config.sent_by = local.into();
            Endpoint::new(config)
        };
        Self {
            now: Time::from_secs(1),
            rng: Rng::from_u64(seed),
            loss,
            ends: [end("127.0.0.1:5060"), end("127.0.0.2:5060")],
            wire: BTreeMap::new(),
            sent: 0,
            todo: BTreeMap::new(),
            requests: BTreeMap::new(),
            finals: BTreeMap::new(),
            acks: 0,
        }
    }

    fn go<R>(&mut self, end: usize, work: impl FnOnce(&mut Endpoint, &mut Ctx<'_>) -> R) -> R {
        let mut actions = Vec::new();
        let mut ctx = Ctx { now: self.now, rng: &mut self.rng, actions: &mut actions };
        let result = work(&mut self.ends[end], &mut ctx);
        for action in actions {
            let Action::SendSip { flow, bytes, .. } = action else { panic!("{action:?}") };
            self.carry(end, flow, bytes);
        }
        while let Some(event) = self.ends[end].next_event() {
            self.on_event(end, event);
        }
        result
    }

    fn carry(&mut self, end: usize, flow: Flow, bytes: Bytes) {
        let flow = Flow { local: flow.remote, remote: flow.local, ..flow };
        let copies = if flow.transport == Transport::Tcp { 1 } else { 1 + u64::from(self.rng.below(10) == 0) };
        for _ in 0..copies {
            if flow.transport == Transport::Udp && self.rng.below(100) < self.loss {
                continue;
            }
            self.sent += 1;
            let at = self.now + Duration::from_millis(1 + self.rng.below(300));
            self.wire.insert((at, self.sent), (1 - end, Packet { flow, bytes: bytes.clone() }));
        }
    }

    fn on_event(&mut self, end: usize, event: SipEvent) {
        match event {
            SipEvent::Request { tx, message, .. } => {
                assert_eq!(end, 1);
                let mut at = self.now;
                *self.requests.entry(cseq(&message)).or_default() += 1;
                let statuses: &[u16] = match (message.method(), self.rng.below(3)) {
                    (Method::Invite, 0) => &[180, 200],
                    (Method::Invite, 1) => &[183, 180, 486],
                    (Method::Invite, _) => &[600],
                    (_, 0) => &[100, 200],
                    _ => &[404],
                };
                for status in statuses {
                    at = at + Duration::from_millis(self.rng.below(800));
                    self.sent += 1;
                    self.todo.insert((at, self.sent), (tx, Message::response(&message, *status, Some("t"))));
                }
            }
            SipEvent::Response { tx: ClientTx(_), message, .. } if message.status() >= 200 => {
                self.finals.entry(cseq(&message)).or_default().push(message.status());
            }
            SipEvent::Failed { .. } => self.finals.entry(0).or_default().push(0),
            SipEvent::Response { .. } | SipEvent::Undelivered { .. } | SipEvent::Stray { .. } => {}
            SipEvent::Ack { .. } => self.acks += 1,
            other => panic!("{other:?}"),
        }
    }

    fn run(&mut self) {
        loop {
            let next = [
                self.wire.keys().next().map(|(at, _)| *at),
                self.todo.keys().next().map(|(at, _)| *at),
                self.ends[0].deadline(),
                self.ends[1].deadline(),
            ];
            let Some(at) = next.into_iter().flatten().min() else {
                return;
            };
            self.now = self.now.max(at);
            if let Some(entry) = self.wire.first_entry().filter(|e| e.key().0 <= self.now) {
                let (end, packet) = entry.remove();
                self.go(end, |endpoint, ctx| endpoint.on_packet(packet, ctx));
            } else if let Some(entry) = self.todo.first_entry().filter(|e| e.key().0 <= self.now) {
                let (tx, response) = entry.remove();
                self.go(1, |endpoint, ctx| endpoint.respond(tx, response, ctx));
            } else {
                for end in 0..2 {
                    self.go(end, |endpoint, ctx| endpoint.on_timeout(ctx));
                }
            }
        }
    }
}

fn cseq(message: &Message) -> u64 {
    message.text(ims_sip::Name::CSeq).unwrap().split(' ').next().unwrap().parse().unwrap()
}

fn play(method: &str, transport: &str, seed: u64, loss: u64) -> World {
    let mut world = World::new(seed, loss);
    for n in 1..=20 {
        let text = text(method, "", "").replace("CSeq: 7", &format!("CSeq: {n}"));
        let message = Message::parse(text.into()).unwrap();
        let to = uri(&format!("sip:127.0.0.2:5060;transport={transport}"));
        world.go(0, |endpoint, ctx| endpoint.send_request(message, to, ctx));
    }
    world.run();
    for end in &world.ends {
        assert!(end.is_quiet(), "{} seed {seed}: {}", method, end.snapshot());
    }
    world
}

#[test]
fn requests_survive_a_lossy_network_exactly_once() {
    for seed in 0..40 {
        for method in ["REGISTER", "INVITE"] {
            let world = play(method, "udp", seed, 30);
            assert!(world.requests.values().all(|n| *n == 1), "{method} seed {seed}: {:?}", world.requests);
            for (n, finals) in &world.finals {
                let once = finals.len() == 1 || finals.iter().all(|s| *s == 200) && method == "INVITE";
                assert!(*n == 0 || once, "{method} seed {seed}: {finals:?}");
            }
            let done = world.finals.iter().filter(|(n, _)| **n > 0).count();
            assert!(done >= 10, "{method} seed {seed}: {done} of 20");
        }
    }
}

#[test]
fn without_loss_everything_is_answered_and_errors_are_acknowledged_below_the_node() {
    for transport in ["udp", "tcp"] {
        for method in ["REGISTER", "INVITE"] {
            let world = play(method, transport, 7, 0);
            assert_eq!(world.finals.len(), 20, "{method} {transport}");
            assert!(!world.finals.contains_key(&0));
            assert_eq!(world.acks, 0);
        }
    }
}
