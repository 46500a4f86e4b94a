//! An application server (TS 24.229 5.7): does with requests what its part says, and remembers what it was given.

use ims_core::command::Problem;
use ims_core::{Action, Ctx, Event, Node, SipListener, Time, Wiring};
use ims_sip::dialog::Dialog;
use ims_sip::endpoint::{ClientFailure, ClientTx, Destination, EndpointConfig, LocateConfig, ServerTx, SipTimers};
use ims_sip::headers::{CSeq, From, PServedUser};
use ims_sip::locate::StaticHops;
use ims_sip::relay::{Relay, Relayed};
use ims_sip::{Endpoint, Message, Method, Name, SipEvent, proxy};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// What it does with a request that begins something.
#[derive(Clone, PartialEq, Debug)]
pub enum Part {
    /// Passes it on; on the path of the dialog or not.
    Proxy { stays: bool },
    /// Makes a dialog of its own with either side.
    B2bua,
    /// Passes it on to somebody else.
    Divert { to: String },
    /// Answers it: 200 to what is no INVITE, an error, or a redirection to `contact`.
    Answer { status: u16, contact: Option<String> },
    /// Says nothing.
    Silent,
    /// Passes it on after so long.
    Slow(Duration),
}

pub struct Server {
    part: Part,
    addr: SocketAddr,
    sip: Endpoint,
    relay: Relay<()>,
    calls: Vec<Call>,
    /// B2BUA: an answer to this request of ours is one to that request of the other side.
    pending: BTreeMap<ClientTx, Pending>,
    /// To be passed on later.
    later: Vec<(Time, ServerTx, Message)>,
    heard: Vec<Value>,
}

/// Two dialogs that are one call.
struct Call {
    /// With whoever called, with whom was called.
    sides: [Option<Dialog>; 2],
    /// The CSeq of our last INVITE to each.
    invites: [u32; 2],
    invite: Message,
    tag: String,
}

struct Pending {
    tx: ServerTx,
    request: Message,
    sent: Message,
    call: usize,
    /// Where it went.
    to: usize,
}

/// Side of a call; the other is 0.
const CALLED: usize = 1;

impl Server {
    pub fn new(addr: SocketAddr, part: Part) -> Self {
        let config = EndpointConfig {
            core: SipTimers::CORE,
            ue: SipTimers::UE,
            local: addr,
            sent_by: addr.to_string(),
            udp_limit: 60_000,
            hops: StaticHops::read(&BTreeMap::from([
                (format!("scscf.{}", crate::lab::DOMAIN), vec!["udp:10.0.1.3:6060".to_owned()]),
                (format!("scscf2.{}", crate::lab::DOMAIN), vec!["udp:10.0.1.5:6060".to_owned()]),
                (format!("pcscf.{}", crate::lab::DOMAIN), vec!["udp:10.0.1.1:5070".to_owned()]),
            ]))
            .expect("hops"),
            max_transactions: 1000,
            server_location: LocateConfig::default(),
        };
        Self {
            part,
            addr,
            sip: Endpoint::new(config),
            relay: Relay::new(SipTimers::CORE.t1 * 64),
            calls: Vec::new(),
            pending: BTreeMap::new(),
            later: Vec::new(),
            heard: Vec::new(),
        }
    }

    pub fn wiring(&self) -> Wiring {
        Wiring { sip: vec![SipListener::open(self.addr)], diameter: Vec::new() }
    }

    fn contact(&self) -> String {
        format!("<sip:{}>", self.addr)
    }

    fn on_sip(&mut self, event: SipEvent, ctx: &mut Ctx<'_>) {
        match event {
            SipEvent::Request { tx, message, .. } => self.on_request(tx, message, ctx),
            SipEvent::Ack { message, .. } => self.on_ack(message, ctx),
            SipEvent::Cancel { invite, message, .. } => {
                let ours = self.pending.iter().find(|(_, p)| p.tx == invite).map(|(client, _)| *client);
                match ours {
                    Some(client) => self.sip.cancel(client, "", ctx),
                    None => {
                        let relayed = self.relay.on_cancel(invite, &message, &mut self.sip, ctx);
                        self.on_relayed(relayed, ctx);
                    }
                }
            }
            SipEvent::Response { tx, message, .. } => match self.pending.contains_key(&tx) {
                true => self.on_answer(tx, &message, ctx),
                false => {
                    let relayed = self.relay.on_response(tx, message, &mut self.sip, ctx);
                    self.on_relayed(relayed, ctx);
                }
            },
            SipEvent::Failed { tx, cause } => self.on_failed(tx, cause, ctx),
            SipEvent::Stray { message, .. } => self.sip.forward_stray(message, ctx),
            SipEvent::Undelivered { .. } | SipEvent::Refused { .. } => {}
        }
    }

    fn on_request(&mut self, tx: ServerTx, message: Message, ctx: &mut Ctx<'_>) {
        if let Some((call, from)) = self.call_of(&message) {
            return self.on_within(tx, &message, call, from, ctx);
        }
        let is_new = ims_sip::dialog::DialogId::of_request(&message).is_none();
        if !is_new {
            return self.pass(tx, message, None, ctx);
        }
        let served = message.first::<PServedUser<'_>>().ok().flatten().map(|s| s.to_string());
        let routes = message.raw(Name::Route).map(|r| String::from_utf8_lossy(r).trim().to_owned());
        self.heard.push(json!({
            "method": message.method().as_str(), "uri": message.uri(), "served": served, "routes": routes.collect::<Vec<_>>(),
            "expires": message.text(Name::Expires), "body": String::from_utf8_lossy(message.body()),
        }));
        match self.part.clone() {
            _ if message.method() == Method::Register => self.answer(tx, &message, 200, None, ctx),
            Part::Proxy { stays } => self.pass(tx, message, stays.then(|| self.contact()), ctx),
            Part::Divert { to } => {
                let mut message = message;
                message.set_uri(&to);
                self.pass(tx, message, None, ctx);
            }
            Part::Answer { status, contact } => self.answer(tx, &message, status, contact.as_deref(), ctx),
            Part::Silent => self.later.push((ctx.now + Duration::from_secs(60), tx, message)),
            Part::Slow(after) => self.later.push((ctx.now + after, tx, message)),
            Part::B2bua => self.bridge(tx, message, ctx),
        }
    }

    fn answer(&mut self, tx: ServerTx, request: &Message, status: u16, contact: Option<&str>, ctx: &mut Ctx<'_>) {
        let mut answer = Message::response(request, status, Some(&ctx.rng.token(8)));
        if let Some(contact) = contact {
            answer.set(Name::Contact, contact);
        }
        self.sip.respond(tx, answer, ctx);
    }

    /// As a proxy.
    fn pass(&mut self, tx: ServerTx, mut message: Message, record: Option<String>, ctx: &mut Ctx<'_>) {
        let addr = self.addr.to_string();
        proxy::take_own_route(&mut message, |uri| uri.as_str().contains(&addr));
        if proxy::decrement_max_forwards(&mut message).is_err() {
            return self.answer(tx, &message, 483, None, ctx);
        }
        self.relay.open(tx, message.clone(), ());
        if let Some(record) = record.filter(|_| message.method() == Method::Invite) {
            message.push_front(Name::RecordRoute, record.replace('>', ";lr>"));
        }
        let to = proxy::prepare_next_hop(&mut message);
        let client = self.sip.send_request(message, Destination::Uri(to), ctx);
        self.relay.branch(tx, client);
    }

    fn on_relayed(&mut self, relayed: Relayed, ctx: &mut Ctx<'_>) {
        match relayed {
            Relayed::Pass { to, response } => self.sip.respond(to, response, ctx),
            Relayed::Exhausted { to } => {
                if let Some((_, response)) = self.relay.settle(to) {
                    self.sip.respond(to, response, ctx);
                }
            }
            Relayed::Nothing => {}
        }
    }

    fn on_failed(&mut self, tx: ClientTx, cause: ClientFailure, ctx: &mut Ctx<'_>) {
        match self.pending.remove(&tx) {
            Some(pending) => self.answer(pending.tx, &pending.request, cause.status(), None, ctx),
            None => {
                let relayed = self.relay.on_failed(tx, cause, ctx);
                self.on_relayed(relayed, ctx);
            }
        }
    }

    /// As a B2BUA: the same request with a dialog of its own, by the route that it was given.
    fn bridge(&mut self, tx: ServerTx, request: Message, ctx: &mut Ctx<'_>) {
        let mut sent = request.clone();
        let addr = self.addr.to_string();
        proxy::take_own_route(&mut sent, |uri| uri.as_str().contains(&addr));
        sent.remove(Name::Via);
        sent.remove(Name::RecordRoute);
        let from = request.require::<From<'_>>().expect("checked");
        sent.set(Name::From, format!("<{}>;tag={}", from.uri, ctx.rng.token(8)));
        sent.set(Name::CallId, ctx.rng.token(12));
        sent.set(Name::CSeq, format!("1 {}", request.method()));
        sent.set(Name::Contact, self.contact());
        let call = Call { sides: [None, None], invites: [0, 1], invite: request.clone(), tag: ctx.rng.token(8) };
        self.calls.push(call);
        let to = proxy::prepare_next_hop(&mut sent);
        let client = self.sip.send_request(sent.clone(), Destination::Uri(to), ctx);
        self.pending.insert(client, Pending { tx, request, sent, call: self.calls.len() - 1, to: CALLED });
    }

    /// The call that a request is in, and which side sends it.
    fn call_of(&self, request: &Message) -> Option<(usize, usize)> {
        let sides = self.calls.iter().enumerate().flat_map(|(at, call)| {
            call.sides.iter().enumerate().filter_map(move |(side, dialog)| Some((at, side, dialog.as_ref()?)))
        });
        sides.into_iter().find(|(_, _, dialog)| dialog.has(request)).map(|(at, side, _)| (at, side))
    }

    fn on_within(&mut self, tx: ServerTx, request: &Message, call: usize, from: usize, ctx: &mut Ctx<'_>) {
        let (to, contact) = (1 - from, self.contact());
        if let Some(dialog) = &mut self.calls[call].sides[from] {
            let _ = dialog.on_request(request);
        }
        let cseq = request.require::<CSeq<'_>>().map_or(0, |c| c.number);
        if request.method() == Method::Invite {
            self.calls[call].invites[from] = cseq;
        }
        let Some(dialog) = &mut self.calls[call].sides[to] else { return self.answer(tx, request, 481, None, ctx) };
        let (mut sent, next) = dialog.request(request.method().as_str());
        let our_seq = dialog.local_seq();
        copy_content(&mut sent, request);
        sent.set(Name::Contact, contact);
        if request.method() == Method::Invite {
            self.calls[call].invites[to] = our_seq;
        }
        let client = self.sip.send_request(sent.clone(), Destination::Uri(next), ctx);
        self.pending.insert(client, Pending { tx, request: request.clone(), sent, call, to });
    }

    fn on_ack(&mut self, mut ack: Message, ctx: &mut Ctx<'_>) {
        if let Some((call, from)) = self.call_of(&ack) {
            let to = 1 - from;
            let seq = self.calls[call].invites[to];
            let Some(dialog) = &self.calls[call].sides[to] else { return };
            let (mut sent, next) = dialog.ack(seq);
            copy_content(&mut sent, &ack);
            return self.sip.send_ack(sent, Destination::Uri(next), ctx);
        }
        let addr = self.addr.to_string();
        if proxy::take_own_route(&mut ack, |uri| uri.as_str().contains(&addr)).is_some() {
            let to = proxy::prepare_next_hop(&mut ack);
            self.sip.send_ack(ack, Destination::Uri(to), ctx);
        }
    }

    fn on_answer(&mut self, client: ClientTx, response: &Message, ctx: &mut Ctx<'_>) {
        let status = response.status();
        let contact = self.contact();
        let Some(Pending { tx, request, sent, call, to }) = self.pending.get(&client) else { return };
        let (call, to, tx) = (*call, *to, *tx);
        let begins = self.calls[call].invite.to_bytes() == request.to_bytes();
        let mut answer = Message::response(request, status, (status > 100).then_some(&self.calls[call].tag));
        copy_content(&mut answer, response);
        if (101..300).contains(&status) {
            answer.set(Name::Contact, contact);
            answer.copy(Name::RecordRoute, request);
        }
        if begins && (200..300).contains(&status) {
            let tag = self.calls[call].tag.clone();
            let sides = [Dialog::as_uas(request, &tag).ok(), Dialog::as_uac(sent, response).ok()];
            self.calls[call].sides = sides;
        } else if let Some(dialog) = &mut self.calls[call].sides[to] {
            let _ = dialog.on_response(response);
        }
        if status >= 200 {
            let gone = self.pending.remove(&client);
            if gone.is_some_and(|p| p.request.method() == Method::Bye) {
                self.calls[call].sides = [None, None];
            }
        }
        if status > 100 {
            self.sip.respond(tx, answer, ctx);
        }
    }
}

fn copy_content(to: &mut Message, from: &Message) {
    if !from.body().is_empty() {
        let kind = from.text(Name::ContentType).unwrap_or_default().trim().to_owned();
        to.set_body(&kind, from.body());
    }
    for name in
        [Name::Allow, Name::Supported, Name::SessionExpires, Name::Require, Name::Reason, Name::PAssertedIdentity]
    {
        to.copy(name, from);
    }
}

impl Node for Server {
    fn handle(&mut self, event: Event, ctx: &mut Ctx<'_>) {
        match event {
            Event::Sip(packet) => self.sip.on_packet(packet, ctx),
            Event::SipFailed { tag, flow, error } => self.sip.on_send_failed(tag, flow, error, ctx),
            Event::FlowClosed(conn) => self.sip.on_flow_closed(conn, ctx),
            Event::Dns { id, answer } => drop(self.sip.on_dns(id, answer, ctx)),
            Event::Timeout => {
                self.sip.on_timeout(ctx);
                self.relay.on_timeout(ctx.now);
                let due: Vec<_> = self.later.extract_if(.., |(at, ..)| *at <= ctx.now).collect();
                for (_, tx, message) in due {
                    match self.part {
                        Part::Silent => self.answer(tx, &message, 500, None, ctx),
                        _ => self.pass(tx, message, None, ctx),
                    }
                }
            }
            Event::Command(command) => {
                let result = Err(Problem::not_found("an application server takes no commands"));
                ctx.act(Action::Reply { id: command.id, result });
            }
            _ => {}
        }
        while let Some(event) = self.sip.next_event() {
            self.on_sip(event, ctx);
        }
    }

    fn deadline(&self) -> Option<Time> {
        let later = self.later.iter().map(|(at, ..)| *at).min();
        [self.sip.deadline(), self.relay.deadline(), later].into_iter().flatten().min()
    }

    fn snapshot(&self) -> Value {
        json!({
            "role": "as", "heard": self.heard, "relay": self.relay.len(), "waiting": self.later.len() + self.pending.len(),
            "sip": self.sip.snapshot(),
        })
    }
}
