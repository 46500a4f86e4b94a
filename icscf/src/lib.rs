//! The interrogating CSCF (TS 24.229 5.3): asks the HSS who serves a user, and passes the request on to that S-CSCF.
//! It remembers nothing about users: what it holds is what is on its way.

mod config;
mod error;
mod register;
mod select;
mod session;

pub use config::{Config, Limits, Scscf, Timers};
pub use error::Refusal;

use ims_core::config::ConfigError;
use ims_core::metrics::{Outcomes, Samples, catalogue};
use ims_core::time::{PerSecond, earliest};
use ims_core::{Action, Command, Ctx, Event, Node, Problem, RequestId, Time};
use ims_diameter::DiameterEvent;
use ims_diameter::endpoint::DisconnectCause;
use ims_diameter::message::DiameterError;
use ims_sip::endpoint::{ClientTx, ServerTx, SipTimers};
use ims_sip::relay::Relay;
use ims_sip::{Message, Method, Name, SipEvent};
use register::Registration;
use serde_json::{Value, json};
use session::Session;
use std::collections::BTreeMap;

/// Refusals in a second that are worth a line of the log; all are counted.
const REFUSALS_TOLD: u32 = 10;

/// Seconds in Retry-After: so many at least, and drawn from so many.
const RETRY_LEAST: u64 = 5;
const RETRY_SPREAD: u64 = 26;

/// What we pass on; other methods too (RFC 3261 16.3).
const ALLOWED: &str =
    "REGISTER, INVITE, ACK, CANCEL, BYE, OPTIONS, PRACK, UPDATE, INFO, MESSAGE, SUBSCRIBE, NOTIFY, PUBLISH, REFER";

pub struct Icscf {
    config: Config,
    sip: ims_sip::Endpoint,
    cx: ims_diameter::Endpoint,
    /// Cx requests that the HSS has not answered yet; each ends with its answer or its timeout.
    waiting: BTreeMap<RequestId, Waiting>,
    /// REGISTERs that an S-CSCF has not answered yet; each ends with its transaction.
    forwarded: BTreeMap<ClientTx, Registration>,
    /// All other requests, until their final answer.
    relay: Relay<Session>,
    /// How often each kind of refusal happened.
    refusals: BTreeMap<&'static str, u64>,
    outcomes: Outcomes,
    /// Refusals that the log still takes.
    told: PerSecond,
}

/// What an answer of the HSS goes on with.
enum Waiting {
    Uaa(Box<Registration>),
    /// The rest is in the relay, unless the caller gave up.
    Lia(ServerTx),
}

impl Icscf {
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self {
            sip: ims_sip::Endpoint::new(config.sip_endpoint()?),
            cx: ims_diameter::Endpoint::new(config.diameter.clone()),
            relay: Relay::new(64 * config.timers.t1.0.max(SipTimers::CORE.t1)),
            config,
            waiting: BTreeMap::new(),
            forwarded: BTreeMap::new(),
            refusals: BTreeMap::new(),
            outcomes: Outcomes::default(),
            told: PerSecond::new(REFUSALS_TOLD),
        })
    }

    fn on_sip(&mut self, event: SipEvent, ctx: &mut Ctx<'_>) {
        match event {
            SipEvent::Request { tx, message, .. } => {
                if let Err(refusal) = self.on_request(tx, &message, ctx) {
                    self.refuse(tx, &message, &refusal, ctx);
                }
            }
            SipEvent::Response { tx, message, .. } if self.forwarded.contains_key(&tx) => {
                self.on_register_response(tx, message, ctx);
            }
            SipEvent::Response { tx, message, .. } => self.on_session_response(tx, message, ctx),
            SipEvent::Failed { tx, cause } if self.forwarded.contains_key(&tx) => {
                self.on_register_failed(tx, cause, ctx);
            }
            SipEvent::Failed { tx, cause } => self.on_session_failed(tx, cause, ctx),
            SipEvent::Refused { flow, status, reason } => {
                self.count("malformed");
                tracing::info!(%flow, status, reason, "refused a message that is no usable request");
            }
            SipEvent::Ack { message, .. } => self.on_ack(message, ctx),
            SipEvent::Cancel { invite, message, .. } => self.on_cancel(invite, &message, ctx),
            // A 2xx that is repeated, or came after all was over (RFC 3261 16.7): the caller acknowledges it.
            SipEvent::Stray { message, .. } => self.sip.forward_stray(message, ctx),
            SipEvent::Undelivered { .. } => {}
        }
    }

    fn on_request(&mut self, tx: ServerTx, message: &Message, ctx: &mut Ctx<'_>) -> Result<(), Refusal> {
        match message.method() {
            Method::Register => self.on_register(tx, message, ctx),
            Method::Options if self.config.is_me(message.uri()) => {
                let mut answer = Message::response(message, 200, Some(&ctx.rng.token(10)));
                answer.set(Name::Allow, ALLOWED);
                self.sip.respond(tx, answer, ctx);
                Ok(())
            }
            _ => self.on_session(tx, message, ctx),
        }
    }

    fn on_diameter(&mut self, event: DiameterEvent, ctx: &mut Ctx<'_>) {
        match event {
            DiameterEvent::Answer { id, message } => match self.waiting.remove(&id) {
                Some(Waiting::Uaa(registration)) => self.on_uaa(*registration, &message, ctx),
                Some(Waiting::Lia(tx)) => self.on_lia(tx, &message, ctx),
                None => tracing::debug!(?id, "an answer that nobody waits for"),
            },
            DiameterEvent::Failed { id, cause } => match self.waiting.remove(&id) {
                Some(Waiting::Uaa(registration)) => {
                    self.refuse(registration.tx, &registration.message, &Refusal::HssSilent(cause), ctx);
                }
                Some(Waiting::Lia(tx)) => self.give_up(tx, &Refusal::HssSilent(cause), ctx),
                None => {}
            },
            // Cx has no request towards an I-CSCF; without an answer the peer would wait, so it gets one.
            DiameterEvent::Request { token, message } => {
                self.count("diameter-request");
                let answer = message.error_answer(&DiameterError::Command(message.command()));
                self.cx.answer(token, answer, ctx);
            }
            DiameterEvent::PeerUp { peer } => tracing::info!(peer, "HSS is there"),
            DiameterEvent::PeerDown { .. } if self.cx.is_stopped() => {}
            DiameterEvent::PeerDown { peer, reason } => tracing::warn!(peer, reason, "HSS is gone"),
        }
    }

    /// The one place where a request is refused: answered, counted, logged.
    fn refuse(&mut self, tx: ServerTx, request: &Message, refusal: &Refusal, ctx: &mut Ctx<'_>) {
        self.count(refusal.name());
        let (method, name) = (request.method(), refusal.name());
        let status = refusal.status(method);
        if method == Method::Register {
            self.outcomes.refused(name);
        }
        match self.told.lets(ctx.now) {
            true => tracing::warn!(%method, status, refusal = name, "{refusal}"),
            false => tracing::debug!(%method, status, refusal = name, "{refusal}"),
        }
        let mut answer = Message::response(request, status, Some(&ctx.rng.token(10)));
        if refusal.passes() {
            answer.set(Name::RetryAfter, RETRY_LEAST + ctx.rng.below(RETRY_SPREAD));
        }
        self.sip.respond(tx, answer, ctx);
    }

    fn count(&mut self, name: &'static str) {
        *self.refusals.entry(name).or_default() += 1;
    }

    fn on_command(&mut self, command: Command, ctx: &mut Ctx<'_>) {
        let result = match command.call.as_str() {
            "status" => Ok(self.snapshot()),
            call => Err(Problem::not_found(format!("the I-CSCF knows no command {call:?}"))),
        };
        ctx.act(Action::Reply { id: command.id, result });
    }

    /// What the two endpoints made of the bytes, until both have nothing more to say.
    fn drain(&mut self, ctx: &mut Ctx<'_>) {
        loop {
            if let Some(event) = self.sip.next_event() {
                self.on_sip(event, ctx);
            } else if let Some(event) = self.cx.next_event() {
                self.on_diameter(event, ctx);
            } else {
                return;
            }
        }
    }

    /// Requests that wait for the HSS or for another element.
    fn in_progress(&self) -> usize {
        self.waiting.len() + self.forwarded.len() + self.relay.len()
    }

    /// Nothing is on its way.
    pub fn is_quiet(&self) -> bool {
        self.waiting.is_empty()
            && self.forwarded.is_empty()
            && self.relay.is_quiet()
            && self.sip.is_quiet()
            && self.cx.is_quiet()
    }
}

impl Node for Icscf {
    fn handle(&mut self, event: Event, ctx: &mut Ctx<'_>) {
        match event {
            Event::Start => self.cx.on_start(ctx),
            Event::Sip(packet) => self.sip.on_packet(packet, ctx),
            Event::SipFailed { tag, flow, error } => self.sip.on_send_failed(tag, flow, error, ctx),
            Event::FlowClosed(conn) => self.sip.on_flow_closed(conn, ctx),
            Event::LinkUp { link, peer, remote } => self.cx.on_link_up(link, peer, remote, ctx),
            Event::LinkDown { link, peer } => self.cx.on_link_down(link, peer, ctx),
            Event::Diameter { link, bytes } => self.cx.on_message(link, bytes, ctx),
            Event::Dns { id, answer } => {
                self.sip.on_dns(id, answer, ctx);
            }
            Event::Command(command) => self.on_command(command, ctx),
            Event::Timeout => {
                self.relay.on_timeout(ctx.now);
                self.sip.on_timeout(ctx);
                self.cx.on_timeout(ctx);
            }
            Event::Stop => self.cx.shutdown(DisconnectCause::Rebooting, ctx),
            Event::Restored(_)
            | Event::Sa { .. }
            | Event::SaAudited { .. }
            | Event::SaExpired(_)
            | Event::Stored { .. } => {}
        }
        self.drain(ctx);
    }

    fn deadline(&self) -> Option<Time> {
        earliest(earliest(self.sip.deadline(), self.cx.deadline()), self.relay.deadline())
    }

    fn snapshot(&self) -> Value {
        let waiting = self.waiting.values().map(|waiting| match waiting {
            Waiting::Uaa(r) => json!({"uaa": format!("{:?}", r.impu)}),
            Waiting::Lia(tx) => json!({"lia": tx.0}),
        });
        let forwarded =
            self.forwarded.values().map(|r| json!({"register": format!("{:?}", r.impu), "at": r.tried.last()}));
        json!({
            "role": "icscf",
            "waiting": waiting.take(100).collect::<Vec<_>>(),
            "forwarded": forwarded.take(100).collect::<Vec<_>>(),
            "relay": self.relay.len(),
            "refusals": self.refusals,
            "sip": self.sip.snapshot(),
            "diameter": self.cx.snapshot(),
        })
    }

    fn metrics(&self, out: &mut Samples) {
        self.sip.metrics(out);
        self.cx.metrics(out);
        self.outcomes.metrics(out);
        out.counts(&catalogue::REFUSALS, &self.refusals);
        out.size(&catalogue::UNDER_WAY, &[], self.relay.len());
        out.size(&catalogue::IN_PROGRESS, &[], self.in_progress());
    }
}
