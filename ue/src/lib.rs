//! A handset as a node: it registers, refreshes, re-authenticates and de-registers as a strict phone does
//! (TS 24.229 5.1.1), with its own USIM and its own half of the security associations (TS 33.203).
//!
//! What the network does wrong is a typed [`Fault`], counted by name in the snapshot; a test asks for none.
//! Commands (`Event::Command`): `register`, `refresh`, `query`, `deregister` are answered when the procedure ends,
//! `status` at once.

pub mod call;
mod challenge;
pub mod config;
pub mod error;
mod reg_event;
mod register;
mod request;
mod sa;

pub use call::{CallReport, Outcome, Script, Side};
pub use config::{Config, DigestName, Key, Password, Quirk};
pub use error::{Failure, Fault};
pub use register::{Binding, Procedure};

use config::Identity;
use ims_aka::Usim;
use ims_core::config::ConfigError;
use ims_core::sa::SaExpiry;
use ims_core::time::earliest;
use ims_core::{Action, Command, CommandId, Ctx, Event, Flow, Node, Problem, RequestId, Time, Timers, Transport};
use ims_sip::endpoint::{ClientFailure, ClientTx, EndpointConfig, LocateConfig, ServerTx, SipTimers};
use ims_sip::locate::StaticHops;
use ims_sip::{Endpoint, Message, SipEvent};
use register::Attempt;
use request::DigestCredential;
use sa::Sets;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// Steps kept for people to read.
const JOURNAL: usize = 64;
/// When another procedure runs, a refresh that is due waits this long.
const BUSY: Duration = Duration::from_secs(1);
/// Finished procedures kept for whoever drives the handset.
const REPORTS: usize = 16;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Timer {
    Refresh,
    Expire,
    Retry,
    SaAnswer,
    /// The set with this spi_us has had its time.
    Retire(u32),
    /// The subscription to the registration is to be refreshed.
    Subscription,
    /// Of the call with this number.
    Call(u32, call::Alarm),
}

/// What names our registration at the registrar: one Call-ID, rising CSeq (RFC 3261 10.2).
#[derive(Debug, Default)]
pub(crate) struct Dialog {
    pub(crate) call_id: String,
    pub(crate) from_tag: String,
    pub(crate) contact_user: String,
    pub(crate) cseq: u32,
}

impl Dialog {
    pub(crate) fn renew(&mut self, ctx: &mut Ctx<'_>) {
        self.call_id = ctx.rng.token(24);
        self.from_tag = ctx.rng.token(10);
        if self.contact_user.is_empty() {
            self.contact_user = ctx.rng.token(12);
        }
    }
}

/// A procedure that ended.
#[derive(Clone, Debug)]
pub struct Report {
    pub procedure: Procedure,
    pub started: Time,
    pub finished: Time,
    pub result: Result<(), Failure>,
}

pub struct Ue {
    pub(crate) config: Config,
    pub(crate) identity: Identity,
    /// None for who has a password.
    pub(crate) usim: Option<Usim>,
    pub(crate) sip: Endpoint,
    pub(crate) timers: Timers<Timer>,
    pub(crate) dialog: Dialog,
    pub(crate) attempt: Option<Attempt>,
    pub(crate) binding: Option<Binding>,
    /// The last answer that the network accepted; repeated with a higher nonce count (TS 24.229 5.1.1.4).
    pub(crate) last_auth: Option<DigestCredential>,
    pub(crate) sets: Sets,
    pub(crate) failed_in_row: u32,
    pub(crate) last_failure: Option<String>,
    faults: BTreeMap<&'static str, u64>,
    pub(crate) failures: BTreeMap<String, u64>,
    pub(crate) calls: call::Calls,
    pub(crate) watch: Option<Box<reg_event::Watch>>,
    /// How calls ended.
    pub(crate) outcomes: BTreeMap<String, u64>,
    counters: BTreeMap<&'static str, u64>,
    /// The command that waits for the end of the running procedure.
    asked_by: Option<CommandId>,
    reports: VecDeque<Report>,
    journal: VecDeque<(Time, String)>,
    next_id: u64,
}

impl Ue {
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self {
            identity: config.identity()?,
            usim: config.usim()?,
            sip: endpoint(&config),
            config,
            timers: Timers::default(),
            dialog: Dialog::default(),
            attempt: None,
            binding: None,
            last_auth: None,
            sets: Sets::default(),
            failed_in_row: 0,
            last_failure: None,
            faults: BTreeMap::new(),
            failures: BTreeMap::new(),
            calls: call::Calls::default(),
            watch: None,
            outcomes: BTreeMap::new(),
            counters: BTreeMap::new(),
            asked_by: None,
            reports: VecDeque::new(),
            journal: VecDeque::new(),
            next_id: 0,
        })
    }

    /// What the network granted, while it holds.
    pub fn binding(&self) -> Option<&Binding> {
        self.binding.as_ref()
    }

    /// Faults of the network by name.
    pub fn faults(&self) -> &BTreeMap<&'static str, u64> {
        &self.faults
    }

    /// A procedure runs.
    pub fn is_busy(&self) -> bool {
        self.attempt.is_some()
    }

    /// The procedure that runs.
    pub fn running(&self) -> Option<Procedure> {
        self.attempt.as_ref().map(|attempt| attempt.procedure)
    }

    /// Nothing under way.
    pub fn is_quiet(&self) -> bool {
        self.attempt.is_none() && self.calls.is_quiet() && self.sip.is_quiet()
    }

    /// The next procedure that ended, oldest first.
    pub fn next_report(&mut self) -> Option<Report> {
        self.reports.pop_front()
    }

    /// Loses all of its state but the SIM's, and says nothing to the network, as a handset whose battery is taken out.
    pub fn power_off(&mut self, ctx: &mut Ctx<'_>) {
        self.attempt = None;
        self.watch = None;
        // With its transactions: a handset that is off repeats nothing.
        self.sip = endpoint(&self.config);
        self.timers.clear(&Timer::SaAnswer);
        self.timers.clear(&Timer::Retry);
        self.failed_in_row = 0;
        self.forget(ctx);
    }

    /// The unprotected port from now on, as after a restart of the handset; it must be off.
    pub fn move_to(&mut self, port: u16) {
        self.config.port = port;
        self.sip = endpoint(&self.config);
    }

    /// Gives back the room that a procedure has taken, for those who have thousands of handsets: once nothing is under
    /// way, and with it the counters of SIP messages.
    pub fn trim(&mut self) {
        if self.is_quiet() {
            self.sip = endpoint(&self.config);
            self.calls.trim();
            if self.reports.is_empty() {
                self.reports.shrink_to_fit();
            }
        }
    }

    /// The steps since the last call, oldest first.
    pub fn take_journal(&mut self) -> Vec<(Time, String)> {
        self.journal.drain(..).collect()
    }

    pub(crate) fn transport(&self) -> Transport {
        self.config.transport.into()
    }

    pub(crate) fn request_id(&mut self) -> RequestId {
        self.next_id += 1;
        RequestId(self.next_id)
    }

    pub(crate) fn count(&mut self, name: &'static str) {
        *self.counters.entry(name).or_default() += 1;
    }

    pub(crate) fn note(&mut self, fault: &Fault) {
        *self.faults.entry(fault.name()).or_default() += 1;
        tracing::warn!(impu = ?self.identity.impu, fault = fault.name(), "{fault}");
    }

    /// Counts a fault that ends the attempt.
    pub(crate) fn fatal(&mut self, fault: Fault) -> Failure {
        self.note(&fault);
        Failure::Fault(fault)
    }

    pub(crate) fn step(&mut self, now: Time, text: impl FnOnce() -> String) {
        if self.config.journal {
            if self.journal.len() == JOURNAL {
                self.journal.pop_front();
            }
            self.journal.push_back((now, text()));
        }
    }

    pub(crate) fn report(&mut self, report: Report, ctx: &mut Ctx<'_>) {
        if let Some(id) = self.asked_by.take() {
            let result = match &report.result {
                Ok(()) => Ok(self.snapshot()),
                Err(failure) => Err(Problem {
                    status: 502,
                    kind: failure.name(),
                    title: format!("The network did not accept: {}", report.procedure.name()),
                    detail: failure.to_string(),
                    field: None,
                }),
            };
            ctx.act(Action::Reply { id, result });
        }
        if self.reports.len() == REPORTS {
            self.reports.pop_front();
        }
        self.reports.push_back(report);
    }

    fn on_command(&mut self, command: Command, ctx: &mut Ctx<'_>) {
        if self.on_call_command(&command, ctx) {
            return;
        }
        let procedure = match command.call.as_str() {
            "register" => Procedure::Register,
            "refresh" => Procedure::Refresh,
            "query" => Procedure::Query,
            "deregister" => Procedure::Deregister,
            "status" => {
                return ctx.act(Action::Reply { id: command.id, result: Ok(self.snapshot()) });
            }
            other => {
                let result = Err(Problem::not_found(format!("a handset has no call `{other}`")));
                return ctx.act(Action::Reply { id: command.id, result });
            }
        };
        if let Some(expires) = command.args.get("expires").and_then(Value::as_u64) {
            self.config.expires = u32::try_from(expires).unwrap_or(u32::MAX);
        }
        if self.start(procedure, ctx) {
            self.asked_by = Some(command.id);
        } else {
            let why = if self.is_busy() {
                "another procedure is running: wait for its end"
            } else {
                "not registered: there is nothing to ask for"
            };
            let result = Err(Problem::conflict(None, why));
            ctx.act(Action::Reply { id: command.id, result });
        }
    }

    fn on_sip(&mut self, ctx: &mut Ctx<'_>) {
        while let Some(event) = self.sip.next_event() {
            match event {
                SipEvent::Response { tx, message, flow } => {
                    if !self.on_call_answer(tx, &message, flow, ctx) {
                        self.on_answer(tx, &message, flow, ctx);
                    }
                }
                SipEvent::Failed { tx, cause } => {
                    if !self.on_call_silence(tx, cause, ctx) {
                        self.on_no_answer(tx, cause, ctx);
                    }
                }
                SipEvent::Request { tx, message, flow } => self.on_request(tx, message, &flow, ctx),
                SipEvent::Ack { message, .. } => self.on_ack(&message, ctx),
                SipEvent::Cancel { invite, .. } => self.on_cancel(invite, ctx),
                SipEvent::Stray { message, .. } => self.on_stray_2xx(&message, ctx),
                SipEvent::Undelivered { .. } => self.count("undelivered"),
                SipEvent::Refused { .. } => self.count("ignored"),
            }
        }
    }

    fn on_no_answer(&mut self, tx: ClientTx, cause: ClientFailure, ctx: &mut Ctx<'_>) {
        match self.attempt.take() {
            Some(attempt) if matches!(attempt.waiting, Some(register::Waiting::Answer(own)) if own == tx) => {
                self.finish(attempt, Err(cause.into()), ctx);
            }
            other => self.attempt = other,
        }
    }

    /// Requests from the network; with security associations up, all of them must come inside (TS 24.229 5.1.1.5.1).
    fn on_request(&mut self, tx: ServerTx, message: Message, flow: &Flow, ctx: &mut Ctx<'_>) {
        if self.sets.established().is_some() && self.sets.of_flow(flow).is_none() {
            self.note(&Fault::OutsideSa);
        }
        self.on_call_request(tx, message, ctx);
    }

    fn on_sa_expired(&mut self, expiry: SaExpiry, ctx: &mut Ctx<'_>) {
        let own = self.sets.list.iter().find(|s| {
            let set = &s.set;
            [set.spi_uc, set.spi_us].contains(&expiry.spi) && expiry.dst == set.ue
                || [set.spi_pc, set.spi_ps].contains(&expiry.spi) && expiry.dst == set.pcscf
        });
        let Some(live) = own.filter(|_| expiry.hard).cloned() else {
            return;
        };
        self.count("sa-expired");
        self.remove_set(live.set.spi_us, ctx);
        if live.state == sa::SetState::Established && self.binding.is_some() {
            // Without its associations the registration is of no use: a new one starts (TS 24.229 5.1.1.5.1).
            self.lose_registration(ctx);
        }
    }

    fn lose_registration(&mut self, ctx: &mut Ctx<'_>) {
        self.count("expired");
        self.step(ctx.now, || "the registration has ended".to_owned());
        self.forget(ctx);
        if let Some(base) = self.config.retry {
            self.timers.set(Timer::Retry, ctx.now + base.0);
        }
    }

    fn on_timers(&mut self, ctx: &mut Ctx<'_>) {
        while let Some(timer) = self.timers.pop(ctx.now) {
            match timer {
                Timer::Refresh => {
                    if !self.start(Procedure::Refresh, ctx) {
                        self.timers.set(Timer::Refresh, ctx.now + BUSY);
                    }
                }
                Timer::Retry => {
                    self.start(Procedure::Register, ctx);
                }
                Timer::Expire => self.lose_registration(ctx),
                Timer::Retire(spi_us) => self.remove_set(spi_us, ctx),
                Timer::Subscription => {
                    if self.binding.is_some() {
                        self.subscribe(ctx);
                    }
                }
                Timer::Call(number, alarm) => self.on_call_alarm(number, alarm, ctx),
                Timer::SaAnswer => {
                    if let Some(attempt) = self.attempt.take() {
                        self.finish(attempt, Err(Failure::SaSilent), ctx);
                    }
                }
            }
        }
    }
}

fn endpoint(config: &Config) -> Endpoint {
    let timers = SipTimers { t1: config.t1.0, t2: config.t2.0, t4: config.t4.0 };
    let local = SocketAddr::new(config.address, config.port);
    Endpoint::new(EndpointConfig {
        core: timers,
        ue: timers,
        local,
        sent_by: local.to_string(),
        udp_limit: config.udp_limit,
        hops: StaticHops::default(),
        max_transactions: 64,
        server_location: LocateConfig { ue_udp_limit: config.udp_limit, ..LocateConfig::default() },
    })
}

impl Node for Ue {
    fn handle(&mut self, event: Event, ctx: &mut Ctx<'_>) {
        match event {
            Event::Start
            | Event::Restored(_)
            | Event::LinkUp { .. }
            | Event::LinkDown { .. }
            | Event::Diameter { .. }
            | Event::Stored { .. }
            | Event::SaAudited { .. }
            | Event::Stop => {}
            Event::Sip(packet) => match self.sets.of_flow(&packet.flow).map(|live| live.set) {
                // UDP answers leave uc->ps (TS 33.203 7.1).
                Some(set) => {
                    let outward = sa::outward(&set, packet.flow.transport);
                    self.sip.on_protected_packet(packet, outward, ctx);
                }
                None => self.sip.on_packet(packet, ctx),
            },
            Event::SipFailed { tag, flow, error } => self.sip.on_send_failed(tag, flow, error, ctx),
            Event::FlowClosed(conn) => self.sip.on_flow_closed(conn, ctx),
            Event::Dns { id, answer } => {
                self.sip.on_dns(id, answer, ctx);
            }
            Event::Sa { id, result } => self.on_sa(id, result, ctx),
            Event::SaExpired(expiry) => self.on_sa_expired(expiry, ctx),
            Event::Command(command) => self.on_command(command, ctx),
            Event::Timeout => {
                self.sip.on_timeout(ctx);
                self.on_sip(ctx);
                self.on_timers(ctx);
            }
        }
        self.on_sip(ctx);
    }

    fn deadline(&self) -> Option<Time> {
        earliest(self.sip.deadline(), self.timers.next())
    }

    fn snapshot(&self) -> Value {
        let sets: Vec<Value> = self.sets.list.iter().map(set_json).collect();
        let state = match (&self.attempt, &self.binding) {
            (Some(attempt), _) => attempt.procedure.name(),
            (None, Some(_)) => "registered",
            (None, None) => "off",
        };
        json!({
            "role": "ue",
            "impi": self.identity.impi.as_str(),
            "impu": self.identity.impu.as_str(),
            "state": state,
            "contact": self.contact_uri(self.sets.established().is_some()),
            "waiting": usize::from(self.attempt.is_some()) + self.calls.waiting(),
            "calls": self.calls.snapshot(),
            "ended": self.calls.ended(),
            "messages": self.calls.texts(),
            "reg_event": self.watch.as_ref().map(|w| w.snapshot()),
            "outcomes": self.outcomes,
            "binding": self.binding.as_ref().map(|b| json!({
                "granted_s": b.granted_s,
                "expires_at_s": b.expires.secs(),
                "protected": b.protected,
                "service_route": b.service_route,
                "associated": b.associated,
            })),
            "sets": sets,
            "faults": self.faults,
            "failures": self.failures,
            "last_failure": self.last_failure,
            "counters": self.counters,
            "journal": self.journal.iter().map(|(at, text)| json!([at.micros(), text])).collect::<Vec<_>>(),
            "sip": self.sip.snapshot(),
        })
    }
}

fn set_json(live: &sa::LiveSet) -> Value {
    let s = &live.set;
    json!({
        "suite": format!("{}/{}", s.suite.alg.token(), s.suite.ealg.token()),
        "state": live.state.name(),
        "spi_uc": s.spi_uc, "spi_us": s.spi_us, "spi_pc": s.spi_pc, "spi_ps": s.spi_ps,
        "port_uc": s.port_uc, "port_us": s.port_us, "port_pc": s.port_pc, "port_ps": s.port_ps,
    })
}
