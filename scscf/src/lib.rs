//! The serving CSCF (TS 24.229 5.4): authenticates users with the vectors of the HSS and is their registrar.

mod auth;

mod breakout;
mod chain;
mod config;
mod deregister;
mod digest;
mod error;
mod exit;
mod explain;
mod fork;
mod gruu;
mod kept;
mod me;
mod naptr;
mod numbering;
mod own;
mod preferences;
mod profile;
mod push;
mod reg_event;
mod reginfo;
mod register;
mod registrar;
mod served;
mod session;
mod shared_ifc;
mod tgruu;
mod third_party;
mod unregistered;
mod vector;
mod wish;

pub use breakout::{Breakout, Choice, Form, Route, Share, Trunk};
pub use config::{
    AkaAlgorithm, Config, Limits, Reauthenticate, RegEvent, Registration as RegistrationConfig, SecondUe, Sessions,
    Timers,
};
pub use error::Refusal;
pub use numbering::{Enum, Numbering};
pub use shared_ifc::{SharedIfc, SharedSet};

use auth::Challenges;
use breakout::Trunks;
use chain::{Chains, Outcome};
use digest::Nonces;
use ims_core::config::ConfigError;
use ims_core::metrics::{Outcomes, Samples, catalogue};
use ims_core::time::{PerSecond, Timers as Due, earliest};
use ims_core::{Action, Command, Ctx, Event, Impi, Impu, Kept, Node, Problem, RequestId, Time};
use ims_diameter::DiameterEvent;
use ims_diameter::cx::{Sar, ServerAssignmentType};
use ims_diameter::endpoint::{DisconnectCause, RequestFailure};
use ims_sip::endpoint::{ClientTx, ServerTx};
use ims_sip::relay::Relay;
use ims_sip::{Message, Method, Name, SipEvent};
use me::{Me, Side};
use naptr::Lookups;
use own::Own;
use reg_event::{Subscriptions, Why};
use register::{Attempt, Given};
use registrar::{Lapse, Registrar};
use serde_json::{Value, json};
use session::Passing;
use std::collections::{BTreeMap, BTreeSet};
use tgruu::TemporaryGruus;
use third_party::ThirdParties;
use unregistered::Unregistered;

/// How many entries of a list a snapshot shows; the numbers beside the lists are always whole.
const SHOWN: usize = 1000;

/// Ends of registrations that the HSS is asked to take at one time.
const TOLD_AT_ONCE: usize = 100;

/// Refusals in a second that are worth a line of the log; all are counted.
const REFUSALS_TOLD: u32 = 10;

/// Seconds in Retry-After: so many at least, and drawn from so many.
const RETRY_LEAST: u64 = 5;
const RETRY_SPREAD: u64 = 26;

pub struct Scscf {
    config: Config,
    me: Me,
    sip: ims_sip::Endpoint,
    cx: ims_diameter::Endpoint,
    /// Challenges that no answer came to yet; each has reg-await-auth running.
    auth: Challenges,
    /// Nonces of users with a password that were answered, and are good for more.
    nonces: Nonces,
    /// Who is registered, from where, until when, with which profile.
    registrar: Registrar,
    /// Who is told how users are registered.
    subscriptions: Subscriptions,
    /// Application servers that are being told of registrations.
    third_parties: ThirdParties,
    /// Cx requests that the HSS has not answered yet; each ends with its answer or its timeout.
    waiting: BTreeMap<RequestId, Waiting>,
    /// Requests that we made ourselves, and that are on their way. Those of others are the matter of `session`.
    own: BTreeMap<ClientTx, Own>,
    /// Requests of others on their way.
    relay: Relay<Passing>,
    /// For how long an application server, or contacts, may have one of them before others are tried.
    patience: Due<ServerTx>,
    /// Original dialog identifiers in the hands of application servers.
    chains: Chains,
    /// Requests to application servers that were given up, and have no answer yet.
    given_up: BTreeSet<ClientTx>,
    /// Numbers that ENUM was asked for.
    lookups: Lookups,
    /// Which trunks answer.
    trunks: Trunks,
    /// Profiles of users that are not registered.
    unregistered: Unregistered,
    temporary_gruus: TemporaryGruus,
    /// Registrations that ran out, and that the HSS has not heard of yet; they stay kept until it has.
    untold: BTreeMap<registrar::Id, (Impi, Impu)>,
    /// How often each kind of refusal happened.
    refusals: BTreeMap<&'static str, u64>,
    outcomes: Outcomes,
    /// What became of requests that went to application servers.
    server_outcomes: BTreeMap<Outcome, u64>,
    /// Refusals that the log still takes.
    told: PerSecond,
    /// What was told of criteria: once each.
    findings_told: BTreeSet<String>,
}

/// What an answer of the HSS goes on with.
enum Waiting {
    /// A challenge is to be made; `resyncs`: how often the sequence number was brought into step before.
    /// `given`: what it answered to a nonce that is not open any more.
    Maa { attempt: Box<Attempt>, given: Option<Box<Given>>, resyncs: u8 },
    /// A registration or de-registration is to be answered.
    Saa { attempt: Box<Attempt>, kind: ServerAssignmentType },
    /// A request waits for the profile of a user that is not registered.
    Unregistered { tx: ServerTx, impu: Impu, side: Side },
    /// The HSS was told something, and nobody waits.
    Told { impu: Impu, kind: ServerAssignmentType },
    /// The HSS was told that a registration ran out.
    ToldExpired { id: registrar::Id, impi: Impi, impu: Impu },
}

impl Scscf {
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self {
            sip: ims_sip::Endpoint::new(config.sip_endpoint()?),
            cx: ims_diameter::Endpoint::new(config.diameter.clone()),
            auth: Challenges::default(),
            nonces: Nonces::default(),
            registrar: Registrar::new(&config.shared_ifc.sets()?),
            me: Me::of(&config),
            relay: Relay::new(config.timers.t1.0 * 64),
            patience: Due::default(),
            chains: Chains::default(),
            given_up: BTreeSet::new(),
            lookups: Lookups::default(),
            trunks: Trunks::of(&config.breakout),
            unregistered: Unregistered::default(),
            temporary_gruus: TemporaryGruus::default(),
            subscriptions: Subscriptions::default(),
            third_parties: ThirdParties::default(),
            config,
            waiting: BTreeMap::new(),
            own: BTreeMap::new(),
            untold: BTreeMap::new(),
            refusals: BTreeMap::new(),
            outcomes: Outcomes::default(),
            server_outcomes: BTreeMap::new(),
            told: PerSecond::new(REFUSALS_TOLD),
            findings_told: BTreeSet::new(),
        })
    }

    fn on_sip(&mut self, event: SipEvent, ctx: &mut Ctx<'_>) {
        match event {
            SipEvent::Request { tx, message, .. } => {
                if let Err(refusal) = self.on_request(tx, &message, ctx) {
                    self.refuse(tx, &message, &refusal, ctx);
                }
            }
            SipEvent::Refused { flow, status, reason } => {
                self.count("malformed");
                tracing::info!(%flow, status, reason, "refused a message that is no usable request");
            }
            SipEvent::Response { tx, message, .. } => match self.own.contains_key(&tx) {
                true => self.on_own_response(tx, message, ctx),
                false => self.on_session_response(tx, message, ctx),
            },
            SipEvent::Failed { tx, cause } => match self.own.contains_key(&tx) {
                true => self.on_own_failed(tx, cause, ctx),
                false => self.on_session_failed(tx, cause, ctx),
            },
            SipEvent::Ack { message, .. } => self.on_ack(message, ctx),
            SipEvent::Cancel { invite, message, .. } => self.on_cancel(invite, &message, ctx),
            SipEvent::Stray { message, .. } => self.sip.forward_stray(message, ctx),
            SipEvent::Undelivered { tx, .. } => self.on_undelivered(tx),
        }
    }

    /// Whose business a request is: the registrar's, ours as a user agent, or that of a session.
    fn on_request(&mut self, tx: ServerTx, message: &Message, ctx: &mut Ctx<'_>) -> Result<(), Refusal> {
        match message.method() {
            Method::Register => self.on_register(tx, message, ctx),
            Method::Subscribe if self.is_for_notifier(message) => self.on_subscribe(tx, message, ctx),
            Method::Options
                if self.is_me(message.uri()) && !message.has(Name::Route) && !tgruu::is_one(message.uri()) =>
            {
                let mut answer = Message::response(message, 200, Some(&ctx.rng.token(10)));
                answer.set(Name::Allow, "REGISTER, OPTIONS");
                answer.set(Name::Supported, "path");
                self.sip.respond(tx, answer, ctx);
                Ok(())
            }
            _ => self.on_session_request(tx, message, ctx),
        }
    }

    /// SUBSCRIBE to us, as within a subscription, whose Contact we are; or to the registration state of a user of ours
    /// (5.4.2.1.1).
    fn is_for_notifier(&self, message: &Message) -> bool {
        let is_reg = || {
            let event: Option<ims_sip::headers::Event<'_>> = message.first().ok().flatten();
            event.is_some_and(|e| e.package.eq_ignore_ascii_case("reg"))
        };
        let is_of_ours = || Impu::parse(message.uri()).is_ok_and(|impu| self.registrar.is_registered(&impu));
        self.is_me(message.uri()) || is_reg() && is_of_ours()
    }

    fn on_diameter(&mut self, event: DiameterEvent, ctx: &mut Ctx<'_>) {
        match event {
            DiameterEvent::Answer { id, message } => match self.waiting.remove(&id) {
                Some(waiting) => self.on_answer(waiting, Ok(&message), ctx),
                None => tracing::debug!(?id, "an answer that nobody waits for"),
            },
            DiameterEvent::Failed { id, cause } => {
                if let Some(waiting) = self.waiting.remove(&id) {
                    self.on_answer(waiting, Err(cause), ctx);
                }
            }
            DiameterEvent::Request { token, message } => self.on_push(token, &message, ctx),
            DiameterEvent::PeerUp { peer } => {
                tracing::info!(peer, "HSS is there");
                self.tell_expired(ctx);
            }
            DiameterEvent::PeerDown { .. } if self.cx.is_stopped() => {}
            DiameterEvent::PeerDown { peer, reason } => tracing::warn!(peer, reason, "HSS is gone"),
        }
    }

    fn on_answer(
        &mut self,
        waiting: Waiting,
        answer: Result<&ims_diameter::Message, RequestFailure>,
        ctx: &mut Ctx<'_>,
    ) {
        match waiting {
            Waiting::Maa { attempt, given, resyncs } => {
                self.on_maa(*attempt, given.as_deref(), resyncs, answer, ctx);
            }
            Waiting::Saa { attempt, kind } => self.on_saa(*attempt, kind, answer, ctx),
            Waiting::Unregistered { tx, impu, side } => self.on_unregistered_profile(tx, impu, side, answer, ctx),
            Waiting::Told { impu, kind } => {
                if let Err(refusal) = profile::read_saa(answer) {
                    self.count(refusal.name());
                    tracing::warn!(?impu, ?kind, "{refusal}");
                }
            }
            Waiting::ToldExpired { id, impi, impu } => self.on_told_expired(id, impi, impu, answer, ctx),
        }
    }

    /// Tells the HSS something that no request of a UE waits for.
    fn tell_hss(&mut self, impi: &Impi, impu: &Impu, kind: ServerAssignmentType, ctx: &mut Ctx<'_>) {
        let sar = self.sar(impi, impu, kind);
        let id = self.cx.send_request(sar.to_message(), &self.config.hss(), ctx);
        self.waiting.insert(id, Waiting::Told { impu: impu.clone(), kind });
    }

    /// Tells the HSS of registrations that ran out, some at a time; TS 24.229 5.4.1.6.
    fn tell_expired(&mut self, ctx: &mut Ctx<'_>) {
        let under_way = self.waiting.values().filter(|w| matches!(w, Waiting::ToldExpired { .. })).count();
        for _ in under_way..TOLD_AT_ONCE {
            if !self.cx.is_up() {
                return;
            }
            let Some((id, (impi, impu))) = self.untold.pop_first() else { return };
            if self.registrar.find(&impi, &impu).is_some() {
                // It has registered again meanwhile, as the HSS knows.
                ctx.act(Action::Delete { key: kept::key(id) });
                continue;
            }
            let sar = self.sar(&impi, &impu, ServerAssignmentType::TimeoutDeregistration);
            let request = self.cx.send_request(sar.to_message(), &self.config.hss(), ctx);
            self.waiting.insert(request, Waiting::ToldExpired { id, impi, impu });
        }
    }

    fn on_told_expired(
        &mut self,
        id: registrar::Id,
        impi: Impi,
        impu: Impu,
        answer: Result<&ims_diameter::Message, RequestFailure>,
        ctx: &mut Ctx<'_>,
    ) {
        let is_silent = answer.is_err();
        if let Err(refusal) = profile::read_saa(answer) {
            self.count(refusal.name());
            tracing::warn!(?impu, "the HSS does not take the end of a registration: {refusal}");
        }
        if is_silent {
            // Until the HSS is there again.
            self.untold.insert(id, (impi, impu));
            return;
        }
        ctx.act(Action::Delete { key: kept::key(id) });
        self.tell_expired(ctx);
    }

    /// What was kept when the process ended.
    fn on_restored(&mut self, portion: Vec<Kept>, ctx: &mut Ctx<'_>) {
        for Kept { key, value } in portion {
            if tgruu::is_key(&key) && self.temporary_gruus.restore(&value) {
                continue;
            }
            if reg_event::is_key(&key) && self.subscriptions.restore(&key, &value) {
                continue;
            }
            let read = kept::id(&key).ok_or(kept::Unusable::Damaged);
            match read.and_then(|id| Ok((id, kept::read(&value)?))) {
                Ok((id, registration)) => {
                    if let Some(gone) = self.registrar.restore(id, registration, ctx.now) {
                        self.count("registration-expired");
                        self.outcomes.count("expired");
                        self.untold.insert(id, (gone.impi, gone.impu));
                    }
                }
                Err(what) => {
                    self.count(what.name());
                    tracing::warn!(key, reason = what.name(), "an entry that was kept cannot be used: it is dropped");
                    ctx.act(Action::Delete { key });
                }
            }
        }
    }

    fn sar(&self, impi: &Impi, impu: &Impu, kind: ServerAssignmentType) -> Sar {
        Sar {
            impi: Some(impi.clone()),
            impus: vec![impu.clone()],
            server_name: self.config.name(),
            kind,
            data_already_available: self.registrar.find(impi, impu).is_some(),
            wildcarded: None,
        }
    }

    /// The one place where a request is refused: answered, counted, logged.
    fn refuse(&mut self, tx: ServerTx, request: &Message, refusal: &Refusal, ctx: &mut Ctx<'_>) {
        self.count(refusal.name());
        let (method, status, name) = (request.method(), refusal.status(), refusal.name());
        if method == Method::Register {
            self.outcomes.refused(name);
        }
        match self.told.lets(ctx.now) {
            true => tracing::warn!(%method, status, refusal = name, "{refusal}"),
            false => tracing::debug!(%method, status, refusal = name, "{refusal}"),
        }
        let mut answer = Message::response(request, refusal.status(), Some(&ctx.rng.token(10)));
        match refusal {
            Refusal::IntervalTooBrief { least } => answer.set(Name::MinExpires, least),
            Refusal::BadEvent { .. } => answer.set(Name::AllowEvents, "reg"),
            Refusal::NotAcceptable => answer.set(Name::Accept, reginfo::MEDIA_TYPE),
            Refusal::SessionTooBrief { least } => answer.set(Name::MinSe, least),
            Refusal::BadExtension(tags) => answer.set(Name::Unsupported, tags.join(", ")),
            Refusal::CallerNotRegistered(_) => self.ask_to_register(&mut answer),
            Refusal::Full(_) | Refusal::HssBusy { .. } | Refusal::HssSilent(RequestFailure::Busy) => {
                answer.set(Name::RetryAfter, RETRY_LEAST + ctx.rng.below(RETRY_SPREAD));
            }
            _ => {}
        }
        self.sip.respond(tx, answer, ctx);
    }

    fn count(&mut self, name: &'static str) {
        *self.refusals.entry(name).or_default() += 1;
    }

    fn on_command(&mut self, command: Command, ctx: &mut Ctx<'_>) {
        let result = match command.call.as_str() {
            "status" => Ok(self.snapshot()),
            "ifc.explain" => self.explain(&command.args),
            "deregister" => self.on_deregister_command(&command.args, ctx),
            call => Err(Problem::not_found(format!("the S-CSCF knows no command {call:?}"))),
        };
        ctx.act(Action::Reply { id: command.id, result });
    }

    /// reg-await-auth and the expiry of bindings (TS 24.229 5.4.1.2.3, 5.4.1.6).
    fn on_timers(&mut self, ctx: &mut Ctx<'_>) {
        while let Some((impi, challenge)) = self.auth.pop_expired(ctx.now) {
            self.count("authentication-timeout");
            self.outcomes.refused("authentication-timeout");
            tracing::info!(impu = ?challenge.impu, "no answer to the challenge: the phone cannot reach us or gave up");
            self.tell_hss(&impi, &challenge.impu, ServerAssignmentType::AuthenticationTimeout, ctx);
        }
        let mut has_expired = false;
        while let Some(Lapse { id, before, is_over }) = self.registrar.pop_expired(ctx.now) {
            self.on_registration_changed(Some(&before), id, Why::Expired, ctx);
            if !is_over {
                continue;
            }
            self.count("registration-expired");
            self.outcomes.count("expired");
            tracing::info!(impu = ?before.impu, "registration expired: the phone did not refresh it");
            self.forget_password_if_gone(&before.impi);
            self.tell_third_parties_of_end(&before, ctx);
            self.untold.insert(id, (before.impi, before.impu));
            has_expired = true;
        }
        self.expire_subscriptions(ctx);
        self.nonces.expire(ctx.now);
        self.unregistered.expire(ctx.now);
        self.relay.on_timeout(ctx.now);
        self.on_patience_over(ctx);
        while let Some(answered) = self.lookups.pop_late(ctx.now) {
            self.on_enum(answered, ctx);
        }
        self.ask_trunks(ctx);
        if has_expired {
            self.tell_expired(ctx);
        }
    }

    /// H(A1) is kept for who is registered only.
    fn forget_password_if_gone(&mut self, impi: &Impi) {
        if self.registrar.of_impi(impi).next().is_none() {
            self.nonces.forget(impi);
        }
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

    /// No request is on its way; challenges may be open and users registered.
    pub fn is_quiet(&self) -> bool {
        self.waiting.is_empty()
            && self.own.is_empty()
            && self.relay.is_quiet()
            && self.lookups.len() == 0
            && self.sip.is_quiet()
            && self.cx.is_quiet()
    }
}

impl Node for Scscf {
    fn handle(&mut self, event: Event, ctx: &mut Ctx<'_>) {
        self.registrar.set_clock(ctx.now);
        match event {
            Event::Start => {
                self.trunks.start(ctx.now, ctx.rng);
                self.cx.on_start(ctx);
                self.review_subscriptions(ctx);
            }
            Event::Sip(packet) => self.sip.on_packet(packet, ctx),
            Event::SipFailed { tag, flow, error } => self.sip.on_send_failed(tag, flow, error, ctx),
            Event::FlowClosed(conn) => self.sip.on_flow_closed(conn, ctx),
            Event::LinkUp { link, peer, remote } => self.cx.on_link_up(link, peer, remote, ctx),
            Event::LinkDown { link, peer } => self.cx.on_link_down(link, peer, ctx),
            Event::Diameter { link, bytes } => self.cx.on_message(link, bytes, ctx),
            Event::Dns { id, answer } if Lookups::owns(id) => {
                if let Some(answered) = self.lookups.on_dns(&self.config.numbering.lookup, id, answer, ctx) {
                    self.on_enum(answered, ctx);
                }
            }
            Event::Dns { id, answer } => {
                self.sip.on_dns(id, answer, ctx);
            }
            Event::Command(command) => self.on_command(command, ctx),
            Event::Timeout => {
                self.sip.on_timeout(ctx);
                self.cx.on_timeout(ctx);
                self.on_timers(ctx);
            }
            Event::Stop => self.cx.shutdown(DisconnectCause::Rebooting, ctx),
            Event::Restored(portion) => self.on_restored(portion, ctx),
            Event::Sa { .. } | Event::SaAudited { .. } | Event::SaExpired(_) | Event::Stored { .. } => {}
        }
        self.drain(ctx);
        self.tell_findings();
    }

    fn deadline(&self) -> Option<Time> {
        let own = earliest(earliest(self.auth.deadline(), self.nonces.deadline()), self.registrar.deadline());
        let sessions = earliest(self.relay.deadline(), earliest(self.patience.next(), self.unregistered.deadline()));
        let own = earliest(earliest(own, self.subscriptions.deadline()), sessions);
        let own = earliest(own, earliest(self.lookups.deadline(), self.trunks.deadline()));
        earliest(own, earliest(self.sip.deadline(), self.cx.deadline()))
    }

    fn snapshot(&self) -> Value {
        let waiting = self.waiting.values().take(100).map(|w| match w {
            Waiting::Maa { attempt, .. } => json!({"maa": format!("{:?}", attempt.impu)}),
            Waiting::Saa { attempt, kind } => {
                json!({"saa": format!("{:?}", attempt.impu), "kind": format!("{kind:?}")})
            }
            Waiting::Unregistered { impu, .. } => json!({"unregistered": format!("{impu:?}")}),
            Waiting::Told { impu, kind } => json!({"told": format!("{impu:?}"), "kind": format!("{kind:?}")}),
            Waiting::ToldExpired { impu, .. } => json!({"told": format!("{impu:?}"), "kind": "expired"}),
        });
        let servers: BTreeMap<&str, u64> = self.server_outcomes.iter().map(|(o, n)| (o.name(), *n)).collect();
        json!({
            "role": "scscf",
            "registered": self.registrar.len(),
            "registrations": self.registrar.describe(SHOWN),
            "subscriptions": self.subscriptions.len(),
            "third_parties": self.third_parties.len(),
            "untold": self.untold.len(),
            "challenges": self.auth.len(),
            "nonces": self.nonces.len(),
            "waiting": waiting.collect::<Vec<_>>(),
            "own_requests": self.own.len(),
            "relay": self.relay.len(),
            "unregistered": self.unregistered.len(),
            "chains": self.chains.len(),
            "enum_lookups": self.lookups.len(),
            "trunks": self.trunks.snapshot(),
            "application_servers": servers,
            "refusals": self.refusals,
            "sip": self.sip.snapshot(),
            "diameter": self.cx.snapshot(),
        })
    }

    fn metrics(&self, out: &mut Samples) {
        self.sip.metrics(out);
        self.cx.metrics(out);
        self.outcomes.metrics(out);
        for (outcome, n) in &self.server_outcomes {
            out.count(&catalogue::AS_REQUESTS, &[outcome.name()], *n);
        }
        out.size(&catalogue::UNDER_WAY, &[], self.relay.len());
        out.counts(&catalogue::REFUSALS, &self.refusals);
        out.size(&catalogue::IN_PROGRESS, &[], self.waiting.len());
        out.size(&catalogue::REGISTERED, &[], self.registrar.len());
        out.size(&catalogue::SUBSCRIPTIONS, &[], self.subscriptions.len());
        out.size(&catalogue::AUTHENTICATING, &[], self.auth.len());
        self.trunks.metrics(out);
    }
}
