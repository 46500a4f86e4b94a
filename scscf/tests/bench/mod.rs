//! One node on the bench: its peers are handmade, the HSS is a Diameter endpoint that the test answers for.

#![allow(dead_code, reason = "each test program uses its part")]

use bytes::Bytes;
use ims_core::dns::{DnsError, DnsQuery, DnsRecord};
use ims_core::{Action, Command, CommandId, Ctx, Event, Flow, LinkId, Node, Packet, Problem, RequestId, Rng, Time};
use ims_diameter::cx::Request;
use ims_diameter::endpoint::{EndpointConfig, RequestToken, To};
use ims_diameter::{DiameterEvent, Message as Cx};
use ims_sip::Message;
use serde_json::Value;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

pub(crate) const DOMAIN: &str = "ims.mnc001.mcc001.3gppnetwork.org";
const LINK: LinkId = LinkId(1);

pub(crate) struct Bench<N> {
    pub(crate) node: N,
    pub(crate) now: Time,
    local: SocketAddr,
    hss: ims_diameter::Endpoint,
    rngs: [Rng; 2],
    /// Whether the HSS takes connections.
    hss_is_up: bool,
    /// What the node sent by SIP, with the address it went to.
    sip: VecDeque<(SocketAddr, Message)>,
    /// What the node asked the HSS.
    cx: VecDeque<(RequestToken, Request, Cx)>,
    /// What the node asked DNS.
    pub(crate) dns: VecDeque<(RequestId, DnsQuery)>,
    /// What the node answered the HSS.
    pub(crate) answers: VecDeque<Cx>,
    /// What the node said to an operator.
    replies: VecDeque<Result<Value, Problem>>,
}

impl<N: Node> Bench<N> {
    pub(crate) fn new(node: N, local: &str, hss_is_up: bool) -> Self {
        let hss = EndpointConfig {
            origin_host: format!("hss.{DOMAIN}"),
            origin_realm: DOMAIN.into(),
            accept_unknown: true,
            ..EndpointConfig::default()
        };
        let mut bench = Self {
            node,
            now: Time::from_secs(1_000_000),
            local: local.parse().unwrap(),
            hss: ims_diameter::Endpoint::new(hss),
            rngs: [Rng::from_u64(1), Rng::from_u64(2)],
            hss_is_up,
            sip: VecDeque::new(),
            cx: VecDeque::new(),
            answers: VecDeque::new(),
            replies: VecDeque::new(),
            dns: VecDeque::new(),
        };
        bench.event(Event::Start);
        bench
    }

    /// One event, and all that follows between the node and the HSS.
    pub(crate) fn event(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let mut actions = Vec::new();
            self.node.handle(event, &mut Ctx { now: self.now, rng: &mut self.rngs[0], actions: &mut actions });
            for action in actions {
                self.perform(action, &mut events);
            }
        }
    }

    fn perform(&mut self, action: Action, events: &mut VecDeque<Event>) {
        match action {
            Action::SendSip { flow, bytes, .. } => {
                assert_eq!(flow.local, self.local);
                self.sip.push_back((flow.remote, Message::parse(bytes).expect("what we send can be read")));
            }
            Action::Connect { peer, target } => {
                let remote: SocketAddr = target.parse().unwrap();
                if self.hss_is_up {
                    self.hss(|hss, ctx| hss.on_link_up(LINK, None, remote, ctx), events);
                    events.push_back(Event::LinkUp { link: LINK, peer: Some(peer), remote });
                } else {
                    events.push_back(Event::LinkDown { link: None, peer: Some(peer) });
                }
            }
            Action::SendDiameter { bytes, .. } => self.hss(|hss, ctx| hss.on_message(LINK, bytes, ctx), events),
            Action::Reply { result, .. } => self.replies.push_back(result),
            // Restarts are the matter of the scenarios.
            Action::Put(_) | Action::Delete { .. } => {}
            Action::Dns { id, query } => self.dns.push_back((id, query)),
            other => panic!("unexpected {other:?}"),
        }
    }

    fn hss(&mut self, what: impl FnOnce(&mut ims_diameter::Endpoint, &mut Ctx<'_>), events: &mut VecDeque<Event>) {
        let mut actions = Vec::new();
        what(&mut self.hss, &mut Ctx { now: self.now, rng: &mut self.rngs[1], actions: &mut actions });
        while let Some(event) = self.hss.next_event() {
            match event {
                DiameterEvent::Request { token, message } => {
                    let request = Request::from_message(&message).expect("the HSS can read it");
                    self.cx.push_back((token, request, message));
                }
                DiameterEvent::Answer { message, .. } => self.answers.push_back(message),
                _ => {}
            }
        }
        for action in actions {
            if let Action::SendDiameter { bytes, .. } = action {
                events.push_back(Event::Diameter { link: LINK, bytes });
            }
        }
    }

    fn pump(&mut self, events: VecDeque<Event>) {
        events.into_iter().for_each(|event| self.event(event));
    }

    /// A packet from `remote` by UDP; blanks at the beginning of lines are taken off.
    pub(crate) fn receive(&mut self, remote: &str, text: &str) {
        let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
        let bytes = Bytes::from(format!("{}\r\n\r\n", lines.join("\r\n").trim_end()));
        self.event(Event::Sip(Packet { flow: Flow::udp(self.local, remote.parse().unwrap()), bytes }));
    }

    pub(crate) fn receive_message(&mut self, remote: &str, message: &Message) {
        let flow = Flow::udp(self.local, remote.parse().unwrap());
        self.event(Event::Sip(Packet { flow, bytes: message.to_bytes() }));
    }

    /// The next message that left, to this address.
    pub(crate) fn sent(&mut self, remote: &str) -> Message {
        let (to, message) = self.sip.pop_front().expect("a SIP message left");
        assert_eq!(to, remote.parse().unwrap());
        message
    }

    /// The next message that left, if there is one.
    pub(crate) fn next_sent(&mut self) -> Option<Message> {
        self.sip.pop_front().map(|(_, message)| message)
    }

    /// The next message that left, when it is such a one.
    pub(crate) fn sent_if(&mut self, is_it: impl Fn(&Message) -> bool) -> Option<(SocketAddr, Message)> {
        self.sip.front().is_some_and(|(_, message)| is_it(message)).then(|| self.sip.pop_front())?
    }

    pub(crate) fn nothing_sent(&self) {
        assert!(self.sip.is_empty(), "{:?}", self.sip.iter().map(|(_, m)| m.to_bytes()).collect::<Vec<_>>());
    }

    pub(crate) fn take_sent(&mut self) -> Vec<(SocketAddr, Message)> {
        self.sip.drain(..).collect()
    }

    pub(crate) fn drop_sent(&mut self) -> usize {
        self.sip.drain(..).count()
    }

    /// DNS answers the next question.
    pub(crate) fn dns_answers(&mut self, answer: Result<Vec<DnsRecord>, DnsError>) -> DnsQuery {
        let (id, query) = self.dns.pop_front().expect("DNS was asked");
        self.event(Event::Dns { id, answer });
        query
    }

    /// The next request at the HSS, to be answered with what `answer` makes of it.
    pub(crate) fn hss_answers(&mut self, answer: impl FnOnce(&Request, &Cx) -> Cx) -> Request {
        let (token, request, message) = self.cx.pop_front().expect("the HSS was asked");
        let reply = answer(&request, &message);
        let mut events = VecDeque::new();
        self.hss(|hss, ctx| hss.answer(token, reply, ctx), &mut events);
        self.pump(events);
        request
    }

    pub(crate) fn nothing_asked(&self) {
        assert!(self.cx.is_empty(), "{:?}", self.cx.iter().map(|(_, r, _)| r).collect::<Vec<_>>());
    }

    /// A request of the HSS to the node.
    pub(crate) fn hss_asks(&mut self, host: &str, message: Cx) {
        let to = To { realm: DOMAIN.into(), host: Some(host.into()) };
        let mut events = VecDeque::new();
        self.hss(
            |hss, ctx| {
                hss.send_request(message, &to, ctx);
            },
            &mut events,
        );
        self.pump(events);
    }

    /// What an operator asks.
    pub(crate) fn command(&mut self, call: &str, args: Value) -> Result<Value, Problem> {
        self.event(Event::Command(Command { id: CommandId(1), call: call.into(), args }));
        self.replies.pop_front().expect("a reply")
    }

    /// Time passes, with everything that is due on the way.
    pub(crate) fn wait(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let due = [self.node.deadline(), self.hss.deadline()].into_iter().flatten().min();
            let Some(at) = due.filter(|at| *at <= end) else { break };
            self.now = at.max(self.now);
            self.event(Event::Timeout);
            let mut events = VecDeque::new();
            self.hss(|hss, ctx| hss.on_timeout(ctx), &mut events);
            self.pump(events);
        }
        self.now = end;
    }

    pub(crate) fn refusals(&self, name: &str) -> u64 {
        self.node.snapshot()["refusals"][name].as_u64().unwrap_or_default()
    }
}
