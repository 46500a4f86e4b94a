//! Proxy-CSCF: the first IMS node that a handset meets (TS 24.229 5.2, TS 33.203 7).
//!
//! It carries REGISTERs to the home network and back, makes the security associations that protect everything after
//! the challenge, and is the only one that knows how a UE is reached. `register.rs` has the procedure
//! by clauses, `agreement.rs` the life of the associations.

mod admission;
mod agreement;
mod auth_params;
mod border;
mod charging;
pub mod config;
mod contacts;
mod dialogs;
mod emergency;
pub mod error;
mod gate;
mod identity;
mod kept;
mod measure;
mod reg_event;
mod register;
mod release;
mod rewritten;
mod routes;
mod sa;
mod sec_agree;
mod session;
mod sources;
mod watch;

pub use config::Config;
pub use error::Refusal;

use crate::admission::Admission;
use crate::agreement::Waiting;
use crate::contacts::{Access, Contacts, RegId, Registration};
use crate::dialogs::{Dialogs, LegId, Line};
use crate::kept::Restored;
use crate::measure::Measured;
use crate::reg_event::Watches;
use crate::register::{Inbound, OnTheWay};
use crate::rewritten::Rewritten;
use crate::sa::{HeldSet, Ports, SaTable, SetId, State};
use crate::session::Passing;
use crate::sources::Sources;
use ims_core::config::ConfigError;
use ims_core::metrics::{Samples, catalogue};
use ims_core::time::{PerSecond, earliest};
use ims_core::{Action, Command, Ctx, Event, Flow, Node, Packet, Problem, RequestId, Time, Timers, Transport};
use ims_sip::endpoint::{EndpointConfig, LocateConfig, SipEvent, SipTimers};
use ims_sip::{Endpoint, Message, Method, Name, Relay};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tracing::{debug, info, warn};

/// A snapshot lists no more registrations than this; it always counts them all.
const MOST_LISTED: usize = 1000;

/// Refusals in a second that are worth a line of the log; all are counted.
const REFUSALS_TOLD: u32 = 10;

/// The node: its fields are all the state there is.
pub struct Pcscf {
    config: Config,
    ports: Ports,
    /// Transactions with UEs and with the core.
    sip: Endpoint,
    /// Who is registered, or about to be.
    contacts: Contacts,
    /// Their security associations.
    sets: SaTable,
    /// REGISTERs on their way through the core.
    forwarded: OnTheWay,
    /// Everything else that is on its way.
    relay: Relay<Passing>,
    /// The sessions of UEs here.
    dialogs: Dialogs,
    /// Subscriptions of our own to registration state.
    watches: Watches,
    /// What the kernel was asked.
    waiting: BTreeMap<RequestId, Waiting>,
    timers: Timers<Timer>,
    /// How often each thing was refused or dropped.
    refusals: BTreeMap<&'static str, u64>,
    measured: Measured,
    /// Who sends in clear, and who may not.
    sources: Sources,
    /// How many new registrations are let in.
    admission: Admission,
    next_request: u64,
    /// The audit that the kernel has not answered yet.
    auditing: Option<RequestId>,
    /// No set came back from an earlier run, or the kernel was told of them; until then they are adopted with each audit.
    adopted: bool,
    /// The kernel refused something that the next audit has to find out about.
    unsettled: bool,
    /// What came back of an earlier run, until it is told.
    restored: Restored,
    /// The operator has been told that the kernel has no ESP.
    told_no_esp: bool,
    /// REGISTERs whose Via names another address than the one they came from.
    rewritten: Rewritten,
    /// Refusals that the log still takes.
    told: PerSecond,
    /// Of the last event, for the snapshot.
    now: Time,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Timer {
    /// A set reaches the end of its lifetime.
    Set(SetId),
    /// A binding of this registration expires.
    Registration(RegId),
    /// The kernel has not answered.
    Waiting(RequestId),
    /// The kernel's table is compared with ours.
    Audit,
    /// A session has been silent for too long.
    Session(LegId),
    /// Our subscription to the state of a registration runs out before that does.
    Subscription(RegId),
}

/// How anything leaves to a UE: the flow, and what Via says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Egress {
    pub flow: Flow,
    pub sent_by: String,
}

impl Pcscf {
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        config.check()?;
        let t = &config.timers;
        let sip = Endpoint::new(EndpointConfig {
            core: SipTimers { t1: t.core_t1.0, t2: t.core_t2.0, t4: t.core_t4.0 },
            ue: SipTimers { t1: t.ue_t1.0, t2: t.ue_t2.0, t4: t.ue_t4.0 },
            local: config.mw.listen,
            sent_by: format!("{}:{}", config.host, config.mw.listen.port()),
            udp_limit: config.mw.udp_limit,
            hops: config.static_hops()?,
            max_transactions: config.limits.max_transactions,
            server_location: LocateConfig { ue_udp_limit: config.gm.udp_limit(), ..LocateConfig::default() },
        });
        // A 2xx of the slower side may still be repeated (RFC 6026).
        let relay_linger = t.ue_t1.0.max(t.core_t1.0) * 64;
        let ports =
            Ports { server: config.gm.protected_server_port, client: config.gm.protected_client_ports.0.clone() };
        Ok(Self {
            config,
            ports,
            sip,
            contacts: Contacts::default(),
            sets: SaTable::default(),
            forwarded: OnTheWay::default(),
            relay: Relay::new(relay_linger),
            dialogs: Dialogs::default(),
            watches: Watches::default(),
            waiting: BTreeMap::new(),
            timers: Timers::default(),
            refusals: BTreeMap::new(),
            measured: Measured::default(),
            sources: Sources::default(),
            admission: Admission::default(),
            next_request: 0,
            auditing: None,
            adopted: true,
            unsettled: false,
            restored: Restored::default(),
            told_no_esp: false,
            rewritten: Rewritten::default(),
            told: PerSecond::new(REFUSALS_TOLD),
            now: Time::EPOCH,
        })
    }

    /// What reaches the endpoint: over a protected port only what belongs to a live set, and never in clear what a UE
    /// with SAs should have sent inside them (TS 33.203 7.1).
    fn on_packet(&mut self, packet: Packet, ctx: &mut Ctx<'_>) {
        let Flow { local, remote, .. } = packet.flow;
        if self.config.is_protected(local) {
            let Some(id) = self.sets.live(remote, local) else {
                return self.count("no-live-sa");
            };
            let Some(held) = self.sets.by_id_mut(id) else { return };
            held.usage.heard = Some(ctx.now);
            if held.state == (State::Proposed { used: false }) {
                held.state = State::Proposed { used: true };
            }
            let outward = held.outward(packet.flow.transport);
            return self.sip.on_protected_packet(packet, outward, ctx);
        }
        if self.config.is_clear(local) {
            return self.on_clear_packet(packet, ctx);
        }
        self.sip.on_packet(packet, ctx);
    }

    fn drain(&mut self, ctx: &mut Ctx<'_>) {
        while let Some(event) = self.sip.next_event() {
            match event {
                SipEvent::Request { tx, message, flow } => {
                    let set = self.config.is_protected(flow.local).then(|| self.sets.live(flow.remote, flow.local));
                    self.on_request(Inbound { tx, flow, set: set.flatten() }, &message, ctx);
                }
                SipEvent::Response { tx, message, flow } if self.relay.server_of(tx).is_some() => {
                    self.on_relay_response(tx, message, flow.transport, ctx);
                }
                SipEvent::Response { tx, message, .. } if self.watches.asked(tx) => {
                    self.on_subscribed(tx, Some(&message), ctx);
                }
                SipEvent::Response { tx, message, .. } => self.on_response(tx, message, ctx),
                SipEvent::Failed { tx, .. } if self.watches.asked(tx) => self.on_subscribed(tx, None, ctx),
                SipEvent::Failed { tx, cause } if self.relay.server_of(tx).is_some() => {
                    let relayed = self.relay.on_failed(tx, cause, ctx);
                    self.on_relayed(relayed, ctx);
                }
                SipEvent::Failed { tx, cause } => self.on_failed(tx, cause, ctx),
                SipEvent::Ack { message, flow } => self.on_ack(&message, flow, ctx),
                SipEvent::Cancel { invite, message, .. } => {
                    let relayed = self.relay.on_cancel(invite, &message, &mut self.sip, ctx);
                    self.on_relayed(relayed, ctx);
                }
                SipEvent::Stray { .. } => self.count("stray-response"),
                SipEvent::Undelivered { tx, .. } => {
                    self.count("undelivered");
                    self.on_undelivered(tx, ctx);
                }
                SipEvent::Refused { flow, status, reason } => {
                    self.count("sip-refused");
                    debug!(from = %flow.remote, status, reason, "message refused");
                }
            }
        }
    }

    fn on_request(&mut self, from: Inbound, message: &Message, ctx: &mut Ctx<'_>) {
        let result = match (self.config.is_gm(from.flow.local), message.method()) {
            (true, Method::Register) => self.on_register(from, message, ctx),
            (true, method) => self.on_ue_request(from, method, message, ctx),
            (false, Method::Register) => Err(Refusal::RegisterFromCore),
            (false, method) => self.on_core_request(from, method, message, ctx),
        };
        if let Err(refusal) = result {
            self.refuse(from, message, &refusal, ctx);
        }
    }

    /// Whether the Request-URI names this P-CSCF.
    fn is_for_us(&self, message: &Message) -> bool {
        ims_core::uri::Uri::parse(message.uri()).is_ok_and(|uri| uri.user().is_none() && self.config.is_own(&uri))
    }

    fn answer_options(&mut self, from: Inbound, message: &Message, ctx: &mut Ctx<'_>) -> Result<(), Refusal> {
        let mut ok = Message::response(message, 200, Some(&ctx.rng.token(10)));
        ok.set_named("Allow", "REGISTER, OPTIONS");
        if let Some(held) = from.set.and_then(|id| self.sets.by_id(id)) {
            ok.set(Name::Contact, format_args!("<sip:{}>", held.sent_by()));
        }
        self.sip.respond(from.tx, ok, ctx);
        Ok(())
    }

    /// The one place that answers, counts and logs a refusal.
    fn refuse(&mut self, from: Inbound, request: &Message, refusal: &Refusal, ctx: &mut Ctx<'_>) {
        self.count(refusal.name());
        let (status, name) = (refusal.status(), refusal.name());
        if request.method() == Method::Register {
            self.measured.outcomes.refused(name);
        }
        let is_told = self.told.lets(ctx.now);
        match status {
            _ if !is_told => debug!(ue = %from.flow.remote, status, refusal = name, "{refusal}"),
            // The operator was told when it was seen first.
            503 if self.told_no_esp => debug!(ue = %from.flow.remote, refusal = name, "{refusal}"),
            500.. => warn!(ue = %from.flow.remote, status, refusal = name, "{refusal}"),
            _ => info!(ue = %from.flow.remote, status, refusal = name, "{refusal}"),
        }
        let mut answer = Message::response_with_reason(request, status, refusal.reason(), Some(&ctx.rng.token(10)));
        if let Refusal::Emergency { instead, token } = refusal {
            self.alternative(&mut answer, *instead, token.as_deref());
        }
        if let Refusal::BadExtension { tags } = refusal {
            answer.push_back(Name::Unsupported, tags);
        }
        if matches!(status, 421 | 494) {
            answer.push_back(Name::Require, "sec-agree");
            answer.push_back(Name::SecurityServer, sec_agree::acceptable(&self.config.security));
        }
        if status == 503 {
            answer.push_back(Name::RetryAfter, self.config.overload.retry_after(ctx.rng));
        }
        self.sip.respond(from.tx, answer, ctx);
        self.blame_for(from.flow, refusal, ctx);
    }

    fn count(&mut self, name: &'static str) {
        self.count_many(name, 1);
    }

    fn count_many(&mut self, name: &'static str, many: usize) {
        if many > 0 {
            *self.refusals.entry(name).or_default() += many as u64;
        }
    }

    /// How a registered UE is reached: over its newest confirmed set, from port_pc to port_us, or over the connection
    /// that it opened. Only a UE without SAs is reached in clear.
    pub fn egress(&self, token: &str) -> Option<Egress> {
        self.egress_of(self.contacts.by_token(token)?, None)
    }

    /// The same, on the line that a session keeps to.
    fn egress_of(&self, id: RegId, line: Option<Line>) -> Option<Egress> {
        let registration = self.contacts.by_id(id)?;
        let pinned = line.map(|line| line.transport);
        // The connection of the session, unless it is one of SAs that are gone.
        let over = line.and_then(|line| self.way_out(line.over?));
        match &registration.access {
            Access::Clear { flow } => Some(Egress {
                flow: match (over, pinned) {
                    (Some(over), _) => over,
                    (None, Some(Transport::Tcp)) if flow.transport == Transport::Udp => {
                        let remote = registration.listens_at().unwrap_or(flow.remote);
                        Flow::tcp(SocketAddr::new(flow.local.ip(), 0), remote)
                    }
                    _ if flow.transport == Transport::Tcp && flow.conn.is_none() => {
                        let remote = registration.listens_at().unwrap_or(flow.remote);
                        Flow::tcp(SocketAddr::new(flow.local.ip(), 0), remote)
                    }
                    _ => *flow,
                },
                sent_by: format!("{}:{}", ims_core::uri::host_of(flow.local.ip()), flow.local.port()),
            }),
            Access::Protected { transport, conn, .. } => {
                let held = self.egress_set(registration)?;
                let outward = held.outward(pinned.unwrap_or(*transport));
                // The connection of the UE ends in its port_uc and our port_ps.
                let flow = match conn {
                    _ if over.is_some() => over?,
                    Some(conn) if outward.transport == Transport::Tcp => Flow {
                        conn: Some(*conn),
                        local: SocketAddr::new(held.set.pcscf, held.set.port_ps),
                        remote: SocketAddr::new(held.set.ue, held.set.port_uc),
                        ..outward
                    },
                    _ => outward,
                };
                Some(Egress { flow, sent_by: held.sent_by() })
            }
        }
    }

    fn egress_set(&self, registration: &Registration) -> Option<&HeldSet> {
        let rank = |held: &&HeldSet| match held.state {
            State::Active => 2,
            State::Retiring => 1,
            State::Proposed { .. } | State::Installing => 0,
        };
        // Among equals, `max_by_key` takes the last: the newest.
        registration.sets().filter_map(|id| self.sets.by_id(id)).max_by_key(rank)
    }

    /// What changed is written before anybody hears of it. Then the last look at everything that leaves: from a protected port only over a live set, and nothing in clear to a
    /// protected port of a UE.
    fn guard(&mut self, first: usize, ctx: &mut Ctx<'_>) {
        let fresh = ctx.actions.split_off(first);
        ctx.actions.extend(self.changes_to_keep());
        for action in fresh {
            match action {
                Action::SendSip { flow, bytes, tag } => match self.way_out(flow) {
                    Some(flow) => ctx.act(Action::SendSip { flow, bytes, tag }),
                    None => self.count("withheld"),
                },
                other => ctx.act(other),
            }
        }
    }

    fn way_out(&self, flow: Flow) -> Option<Flow> {
        if self.config.is_protected(flow.local) {
            let id = self.sets.live(flow.remote, flow.local)?;
            return self.sets.by_id(id).map(|held| held.answer(flow));
        }
        (!self.config.is_gm(flow.local) || !self.sets.is_ue_port(flow.remote)).then_some(flow)
    }

    fn on_command(&mut self, command: &Command) -> Result<Value, Problem> {
        match command.call.as_str() {
            "status" => Ok(self.snapshot()),
            "bans" => Ok(self.bans()),
            "ban.lift" => self.lift_ban(&command.args),
            other => Err(Problem::not_found(format!("the P-CSCF has no command {other}"))),
        }
    }
}

impl Node for Pcscf {
    fn handle(&mut self, event: Event, ctx: &mut Ctx<'_>) {
        let first = ctx.actions.len();
        self.now = ctx.now;
        match event {
            Event::Restored(kept) => self.on_restored(kept, ctx),
            Event::Start => self.start(ctx),
            Event::Sip(packet) => self.on_packet(packet, ctx),
            Event::SipFailed { tag, flow, error } => self.sip.on_send_failed(tag, flow, error, ctx),
            Event::FlowClosed(conn) => {
                self.contacts.closed(conn);
                self.dialogs.closed(conn);
                self.sip.on_flow_closed(conn, ctx);
            }
            Event::Dns { id, answer } => drop(self.sip.on_dns(id, answer, ctx)),
            Event::Sa { id, result } => self.on_sa(id, result, ctx),
            Event::SaAudited { id, result } => self.on_audited(id, result, ctx),
            Event::SaExpired(expiry) => self.on_sa_expired(expiry, ctx),
            Event::Timeout => {
                self.sip.on_timeout(ctx);
                self.relay.on_timeout(ctx.now);
            }
            Event::Command(command) => {
                let result = self.on_command(&command);
                ctx.act(Action::Reply { id: command.id, result });
            }
            Event::LinkUp { .. }
            | Event::LinkDown { .. }
            | Event::Diameter { .. }
            | Event::Stored { .. }
            | Event::Stop => {}
        }
        self.expire(ctx);
        self.drain(ctx);
        self.release_ended(ctx);
        self.see_off_guests(ctx);
        self.guard(first, ctx);
    }

    fn deadline(&self) -> Option<Time> {
        earliest(earliest(self.sip.deadline(), self.timers.next()), self.relay.deadline())
    }

    fn snapshot(&self) -> Value {
        let listed = self.contacts.all().filter(|(_, r)| r.is_registered()).take(MOST_LISTED);
        let registrations: Vec<Value> = listed.flat_map(|(_, r)| self.describe(r)).collect();
        json!({
            "role": "pcscf",
            "registrations": registrations,
            "registered": self.contacts.registered(),
            "authenticating": self.contacts.len() - self.contacts.registered(),
            "sa_sets": self.sets.len(),
            "forwarded": self.forwarded.len() + self.relay.len(),
            "sessions": self.dialogs.describe(),
            "subscriptions": self.watches.len(),
            "waiting": self.waiting.values().map(Waiting::describe).take(MOST_LISTED).collect::<Vec<_>>(),
            "policy": format!("{:?}", self.config.security.policy).to_lowercase(),
            "policy_rules": self.config.security.rules.len(),
            "esp": !self.told_no_esp && self.config.security.protects_anybody(),
            "address_rewritten": self.rewritten.seen(),
            "refusals": self.refusals,
            "sources": self.sources.describe(self.now, &self.config.sources),
            "overload": self.admission.describe(),
            "sip": self.sip.snapshot(),
        })
    }

    fn waited(&mut self, oldest: Duration, now: Time) {
        self.admission.waited(oldest, now, &self.config.overload);
    }

    fn metrics(&self, out: &mut Samples) {
        self.sip.metrics(out);
        self.measured.metrics(out);
        self.sources.metrics(self.now, out);
        self.admission.metrics(out);
        out.counts(&catalogue::REFUSALS, &self.refusals);
        let registered = self.contacts.all().filter(|(_, r)| r.is_registered()).count();
        out.size(&catalogue::REGISTERED, &[], registered);
        out.size(&catalogue::AUTHENTICATING, &[], self.contacts.len() - registered);
        out.size(&catalogue::IN_PROGRESS, &[], self.forwarded.len() + self.relay.len() + self.waiting.len());
        for (state, n) in self.dialogs.by_state() {
            out.size(&catalogue::SESSIONS, &[state], n);
        }
        for (state, n) in self.sets.by_state() {
            out.size(&catalogue::SA_SETS, &[state], n);
        }
        let esp = !self.told_no_esp && self.config.security.protects_anybody();
        out.size(&catalogue::ESP, &[], usize::from(esp));
    }
}

impl Pcscf {
    fn start(&mut self, ctx: &mut Ctx<'_>) {
        self.announce();
        self.announce_restored();
        self.audit(ctx);
    }

    fn announce(&self) {
        let gm = &self.config.gm;
        info!(addresses = ?gm.addresses, port = gm.port, protected = gm.protected_server_port, "P-CSCF is up");
    }

    fn describe(&self, registration: &Registration) -> Vec<Value> {
        let sets: Vec<Value> =
            registration.sets().filter_map(|id| self.sets.by_id(id)).map(|held| held.describe(self.now)).collect();
        let heard = registration.sets().filter_map(|id| self.sets.by_id(id)?.usage.heard).max();
        let heard_s_ago = heard.map(|at| self.now.since(at).as_secs());
        let sa = self.egress_set(registration).map(|held| {
            let mut sa = held.describe(self.now);
            sa["sets"] = sets.len().into();
            sa
        });
        let entry = |impu: &ims_core::Impu, b: &contacts::Binding| {
            json!({
                "impi": registration.impi.as_str(),
                "impu": impu.as_str(),
                "associated": b.associated,
                "contact": b.contact,
                "ue": registration.ue.to_string(),
                "transport": registration.transport().to_string(),
                "service_route": *b.service_route,
                "expires_in_s": b.expires.since(self.now).as_secs(),
                "sa": sa,
                "sa_sets": sets,
                "heard_s_ago": heard_s_ago,
            })
        };
        registration.bindings.iter().map(|(impu, b)| entry(impu, b)).collect()
    }
}
