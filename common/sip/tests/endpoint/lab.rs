//! One endpoint on a bench: what goes in is text, what comes out is listed with its time.

use bytes::Bytes;
use ims_core::dns::{DnsError, DnsQuery, DnsRecord};
use ims_core::{Action, ConnId, Ctx, Flow, FlowError, Packet, RequestId, Rng, SendTag, Time, Transport};
use ims_sip::endpoint::{ClientTx, Destination, EndpointConfig, LocateConfig, ServerTx, SipTimers};
use ims_sip::locate::{StaticHops, Target};
use ims_sip::{Endpoint, Message, Name, SipEvent};
use std::net::SocketAddr;
use std::time::Duration;

pub(crate) const CORE: &str = "127.0.0.1:5070";
pub(crate) const GM: &str = "10.0.0.1:5060";
pub(crate) const PHONE: &str = "10.0.0.9:5062";
pub(crate) const PEER: &str = "127.0.0.2:6060";

pub(crate) fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A message on the way out.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    /// Milliseconds since the lab opened.
    pub(crate) ms: u64,
    pub(crate) flow: Flow,
    pub(crate) tag: SendTag,
    pub(crate) message: Message,
}

impl Sent {
    pub(crate) fn header(&self, name: Name) -> String {
        header(&self.message, name)
    }

    /// `INVITE` or `200 INVITE`.
    pub(crate) fn what(&self) -> String {
        what(&self.message)
    }

    pub(crate) fn branch(&self) -> String {
        let via = self.header(Name::Via);
        via.split_once("branch=").unwrap().1.split([';', ' ']).next().unwrap().to_owned()
    }
}

pub(crate) fn header(message: &Message, name: Name) -> String {
    message.raw(name).map(|v| String::from_utf8_lossy(v).trim().to_owned()).collect::<Vec<_>>().join(" | ")
}

pub(crate) fn what(message: &Message) -> String {
    match message.status() {
        0 => message.method().to_string(),
        status => format!("{status} {}", message.method()),
    }
}

pub(crate) struct Lab {
    pub(crate) endpoint: Endpoint,
    pub(crate) rng: Rng,
    pub(crate) now: Time,
    actions: Vec<Action>,
}

const OPENED: Time = Time::from_secs(1_000);

pub(crate) fn config() -> EndpointConfig {
    EndpointConfig {
        core: SipTimers::CORE,
        ue: SipTimers::UE,
        local: addr(CORE),
        sent_by: "pcscf.example:5070".into(),
        udp_limit: 1300,
        hops: StaticHops::default(),
        max_transactions: 1000,
        server_location: LocateConfig::default(),
    }
}

pub(crate) fn with_hops(hops: &[(&str, &[&str])]) -> EndpointConfig {
    let mut config = config();
    for (host, targets) in hops {
        let targets = targets.iter().map(|t| Target::parse(t).unwrap()).collect();
        config.hops.0.insert((*host).into(), targets);
    }
    config
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self::with(config())
    }

    pub(crate) fn with(config: EndpointConfig) -> Self {
        Self { endpoint: Endpoint::new(config), rng: Rng::from_u64(1), now: OPENED, actions: Vec::new() }
    }

    pub(crate) fn go<R>(&mut self, work: impl FnOnce(&mut Endpoint, &mut Ctx<'_>) -> R) -> R {
        let mut ctx = Ctx { now: self.now, rng: &mut self.rng, actions: &mut self.actions };
        work(&mut self.endpoint, &mut ctx)
    }

    pub(crate) fn receive(&mut self, flow: Flow, text: impl Into<Bytes>) -> Vec<SipEvent> {
        let packet = Packet { flow, bytes: text.into() };
        self.go(|endpoint, ctx| endpoint.on_packet(packet, ctx));
        self.events()
    }

    pub(crate) fn events(&mut self) -> Vec<SipEvent> {
        std::iter::from_fn(|| self.endpoint.next_event()).collect()
    }

    /// Receives what must become a new server transaction.
    pub(crate) fn request(&mut self, flow: Flow, text: impl Into<Bytes>) -> (ServerTx, Message) {
        match self.receive(flow, text).as_slice() {
            [SipEvent::Request { tx, message, .. }] => (*tx, message.clone()),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn answer(&mut self, tx: ServerTx, request: &Message, status: u16) {
        let response = Message::response(request, status, Some("ourtag"));
        self.go(|endpoint, ctx| endpoint.respond(tx, response, ctx));
    }

    pub(crate) fn send(&mut self, text: &str, to: Destination) -> ClientTx {
        let message = Message::parse(Bytes::from(text.to_owned())).unwrap();
        self.go(|endpoint, ctx| endpoint.send_request(message, to, ctx))
    }

    /// Answers what we sent, as its receiver would: to the flow it came from.
    pub(crate) fn answered(&mut self, sent: &Sent, status: u16) -> Vec<SipEvent> {
        let response = Message::response(&sent.message, status, Some("theirtag"));
        self.receive(sent.flow, response.to_bytes())
    }

    pub(crate) fn failed(&mut self, sent: &Sent, error: FlowError) -> Vec<SipEvent> {
        let (tag, flow) = (sent.tag, sent.flow);
        self.go(|endpoint, ctx| endpoint.on_send_failed(tag, flow, error, ctx));
        self.events()
    }

    pub(crate) fn closed(&mut self, conn: u64) -> Vec<SipEvent> {
        self.go(|endpoint, ctx| endpoint.on_flow_closed(ConnId(conn), ctx));
        self.events()
    }

    pub(crate) fn dns(&mut self, id: RequestId, answer: Result<Vec<DnsRecord>, DnsError>) -> bool {
        self.go(|endpoint, ctx| endpoint.on_dns(id, answer, ctx))
    }

    /// Lets time pass, waking the endpoint at each of its deadlines; gives what happened.
    pub(crate) fn pass(&mut self, ms: u64) -> Vec<SipEvent> {
        let end = self.now + Duration::from_millis(ms);
        let mut events = Vec::new();
        while let Some(at) = self.endpoint.deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.go(|endpoint, ctx| endpoint.on_timeout(ctx));
            events.extend(self.events());
        }
        self.now = end;
        events
    }

    /// What has been sent since the last call.
    pub(crate) fn sent(&mut self) -> Vec<Sent> {
        let ms = self.ms();
        let mut sent = Vec::new();
        self.actions.retain(|action| {
            if let Action::SendSip { flow, bytes, tag } = action {
                let message = Message::parse(bytes.clone()).unwrap();
                // A 400 gives back what was wrong.
                assert!(matches!(message.status(), 400 | 414 | 505 | 513) || message.check().is_ok(), "{bytes:?}");
                sent.push(Sent { ms, flow: *flow, tag: *tag, message });
                return false;
            }
            true
        });
        sent
    }

    pub(crate) fn sent_one(&mut self) -> Sent {
        let mut sent = self.sent();
        assert_eq!(sent.len(), 1, "{:?}", sent.iter().map(Sent::what).collect::<Vec<_>>());
        sent.remove(0)
    }

    /// Lets time pass and says at which milliseconds something was sent, and what.
    pub(crate) fn watch(&mut self, ms: u64) -> (Vec<(u64, String)>, Vec<SipEvent>) {
        let end = self.now + Duration::from_millis(ms);
        let (mut seen, mut events) = (Vec::new(), Vec::new());
        while let Some(at) = self.endpoint.deadline().filter(|at| *at <= end) {
            let step = u64::try_from(at.since(self.now).as_micros()).unwrap().div_ceil(1000);
            events.extend(self.pass(step));
            seen.extend(self.sent().iter().map(|s| (s.ms, s.what())));
        }
        self.now = end;
        (seen, events)
    }

    pub(crate) fn questions(&mut self) -> Vec<(RequestId, DnsQuery)> {
        let mut asked = Vec::new();
        self.actions.retain(|action| {
            if let Action::Dns { id, query } = action {
                asked.push((*id, query.clone()));
                return false;
            }
            true
        });
        asked
    }

    pub(crate) fn ms(&self) -> u64 {
        u64::try_from(self.now.since(OPENED).as_millis()).unwrap()
    }

    pub(crate) fn assert_quiet_after(&mut self, ms: u64) {
        self.pass(ms);
        assert!(self.endpoint.is_quiet(), "{}", self.endpoint.snapshot());
        assert_eq!(self.endpoint.deadline(), None);
    }
}

pub(crate) fn udp(local: &str, remote: &str) -> Flow {
    Flow::udp(addr(local), addr(remote))
}

pub(crate) fn tcp(local: &str, remote: &str, conn: u64) -> Flow {
    Flow { transport: Transport::Tcp, local: addr(local), remote: addr(remote), conn: Some(ConnId(conn)) }
}

pub(crate) fn uri(text: &str) -> Destination {
    Destination::Uri(text.into())
}

/// A request with `via` as its topmost (or only) Via; none when empty.
pub(crate) fn text(method: &str, via: &str, extra: &str) -> String {
    let via = if via.is_empty() { String::new() } else { format!("Via: {via}\r\n") };
    format!(
        "{method} sip:home.example SIP/2.0\r\n{via}Max-Forwards: 70\r\n{extra}From: <sip:a@home.example>;tag=fromtag\r\n\
         To: <sip:a@home.example>\r\nCall-ID: call-1\r\nCSeq: 7 {method}\r\nContent-Length: 0\r\n\r\n"
    )
}
