//! Peers, connections and requests in flight: the Diameter side of a node.
//!
//! Links are known by who holds them: nobody yet (a connection before its CER), or a peer. Every base protocol check of
//! an incoming request is in `judge`, and every refusal is answered in `refuse`.

pub use crate::base::DisconnectCause;
pub use crate::config::{EndpointConfig, PeerConfig};

use crate::base::{self, Capabilities};
use crate::dict::{self, APPLICATION_BASE, command};
use crate::local::{Direction, Local};
use crate::message::{DiameterError, Message, result};
use crate::peer::{Outcome, Peer, State, advice};
use crate::requests::Requests;
use crate::served::{Served, Verdict};
use bytes::Bytes;
use ims_core::metrics::{Samples, catalogue};
use ims_core::time::earliest;
use ims_core::{Action, Ctx, LinkId, PeerId, RequestId, Time, Timers};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// Connections that have not said yet who they are: so many, so long.
const MAX_STRANGERS: usize = 64;
const STRANGER_PATIENCE: Duration = Duration::from_secs(10);
/// Peers that are accepted without being configured.
const MAX_DYNAMIC_PEERS: usize = 256;
/// After so many request timeouts an unanswered request of a peer is given up.
const SERVE_FACTOR: u32 = 6;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RequestToken(pub u64);

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RequestFailure {
    #[error("no Diameter peer is up")]
    NoPeer,
    #[error("no answer in time")]
    Timeout,
    #[error("too many requests in flight")]
    Busy,
}

#[derive(Debug)]
pub enum DiameterEvent {
    /// A request from a peer that passed the base protocol checks; answer it with `answer`.
    Request {
        token: RequestToken,
        message: Message,
    },
    /// `id` as returned by `send_request`. A 3xxx protocol error answer comes here too.
    Answer {
        id: RequestId,
        message: Message,
    },
    Failed {
        id: RequestId,
        cause: RequestFailure,
    },
    PeerUp {
        peer: String,
    },
    PeerDown {
        peer: String,
        reason: String,
    },
}

/// Destination-Realm, and Destination-Host when it must be that one.
#[derive(Clone, Debug)]
pub struct To {
    pub realm: String,
    pub host: Option<String>,
}

pub struct Endpoint {
    pub(crate) local: Local,
    pub(crate) peers: BTreeMap<u32, Peer>,
    /// Open links that belong to a peer.
    links: BTreeMap<LinkId, u32>,
    /// Accepted connections before their CER, and how long we wait for it.
    strangers: BTreeMap<LinkId, (Time, SocketAddr)>,
    timers: Timers<u32>,
    pub(crate) requests: Requests,
    served: Served,
    pub(crate) events: VecDeque<DiameterEvent>,
    next_dynamic: u32,
    stopped: bool,
}

impl Endpoint {
    pub fn new(config: EndpointConfig) -> Self {
        let peers: BTreeMap<u32, Peer> = (0..)
            .zip(&config.peers)
            .map(|(key, peer)| (key, Peer::new(key, peer.clone(), false, Time::EPOCH)))
            .collect();
        Self {
            next_dynamic: u32::try_from(peers.len()).unwrap_or(u32::MAX),
            local: Local::new(config),
            peers,
            links: BTreeMap::new(),
            strangers: BTreeMap::new(),
            timers: Timers::default(),
            requests: Requests::default(),
            served: Served::default(),
            events: VecDeque::new(),
            stopped: false,
        }
    }

    /// On Event::Start: opens the configured connections.
    pub fn on_start(&mut self, ctx: &mut Ctx<'_>) {
        self.local.started(ctx.now);
        let keys: Vec<u32> = self.peers.keys().copied().collect();
        for key in keys {
            self.with_peer(key, ctx, |peer, _, ctx| {
                (peer.since, peer.down_since) = (ctx.now, Some(ctx.now));
                peer.start(ctx);
            });
        }
    }

    pub fn on_link_up(&mut self, link: LinkId, peer: Option<PeerId>, remote: SocketAddr, ctx: &mut Ctx<'_>) {
        self.local.started(ctx.now);
        match peer {
            Some(PeerId(key)) if self.peers.contains_key(&key) => {
                self.links.insert(link, key);
                self.with_peer(key, ctx, |peer, local, ctx| peer.on_connected(link, local, ctx));
            }
            None if !self.stopped && self.strangers.len() < MAX_STRANGERS => {
                self.strangers.insert(link, (ctx.now + STRANGER_PATIENCE, remote));
            }
            _ => {
                self.local.counters.refuse("connection");
                ctx.act(Action::CloseLink(link));
            }
        }
    }

    pub fn on_link_down(&mut self, link: Option<LinkId>, peer: Option<PeerId>, ctx: &mut Ctx<'_>) {
        match (link, peer) {
            (Some(link), _) => {
                self.strangers.remove(&link);
                if let Some(key) = self.links.remove(&link) {
                    self.with_peer(key, ctx, |peer, local, ctx| peer.on_link_down(link, local, ctx));
                }
            }
            (None, Some(PeerId(key))) => self.with_peer(key, ctx, Peer::on_connect_failed),
            (None, None) => {}
        }
    }

    pub fn on_message(&mut self, link: LinkId, bytes: Bytes, ctx: &mut Ctx<'_>) {
        let parsed = Message::parse(bytes.clone());
        match &parsed {
            Ok(message) => self.local.counters.count(Direction::Received, message),
            Err(_) => Message::salvage(&bytes).iter().for_each(|m| self.local.counters.count(Direction::Received, m)),
        }
        if self.strangers.contains_key(&link) {
            return self.on_first_message(link, parsed, ctx);
        }
        // A link that we have closed may still deliver.
        let Some(key) = self.links.get(&link).copied() else {
            return;
        };
        if self.peers.get_mut(&key).is_some_and(|peer| peer.link() == Some(link) && peer.on_heard(ctx.now)) {
            self.with_peer(key, ctx, |_, _, _| ());
        }
        match parsed {
            Ok(message) if message.is_request() => self.on_request(link, key, message, ctx),
            Ok(message) => self.on_some_answer(link, key, message, ctx),
            Err(error) => match Message::salvage(&bytes) {
                Some(request) if request.is_request() => self.refuse(link, &request, &error, ctx),
                Some(answer) => {
                    self.local.counters.refuse(error.name());
                    tracing::warn!("an answer from a Diameter peer is not usable: {error}");
                    self.on_broken_answer(link, answer.hop_by_hop);
                }
                None => {
                    self.local.counters.refuse(error.name());
                    tracing::warn!("a Diameter connection is closed: {error}");
                    ctx.act(Action::CloseLink(link));
                    self.on_link_down(Some(link), None, ctx);
                }
            },
        }
    }

    pub fn on_timeout(&mut self, ctx: &mut Ctx<'_>) {
        while let Some(key) = self.timers.pop(ctx.now) {
            self.with_peer(key, ctx, Peer::on_timer);
        }
        self.expire_requests(ctx.now);
        while let Some((token, request)) = self.served.pop_expired(ctx.now) {
            self.local.counters.refuse("not-answered-by-us");
            let answer = request.error_answer(&DiameterError::UnableToComply);
            self.answer(RequestToken(token), answer, ctx);
        }
        self.served.forget(ctx.now);
        let late = |(_, (limit, _)): &(&LinkId, &(Time, SocketAddr))| *limit <= ctx.now;
        for link in self.strangers.iter().filter(late).map(|(link, _)| *link).collect::<Vec<_>>() {
            self.strangers.remove(&link);
            self.local.counters.refuse("no-cer");
            ctx.act(Action::CloseLink(link));
        }
    }

    pub fn deadline(&self) -> Option<Time> {
        let strangers = self.strangers.values().map(|(limit, _)| *limit).min();
        let requests = earliest(self.requests.next_expiry(), self.served.next_expiry());
        earliest(earliest(self.timers.next(), strangers), requests)
    }

    pub fn next_event(&mut self) -> Option<DiameterEvent> {
        self.events.pop_front()
    }

    /// Answers on the link the request came by; dropped when that is gone.
    pub fn answer(&mut self, token: RequestToken, message: Message, ctx: &mut Ctx<'_>) {
        let message = self.local.signed(message);
        for (link, answer) in self.served.answer(token.0, message, ctx.now) {
            if self.links.contains_key(&link) {
                self.local.send(link, &answer, ctx);
            }
        }
    }

    /// Takes leave of all peers; nothing is opened or accepted after this.
    pub fn shutdown(&mut self, cause: DisconnectCause, ctx: &mut Ctx<'_>) {
        self.stopped = true;
        for (link, _) in std::mem::take(&mut self.strangers) {
            ctx.act(Action::CloseLink(link));
        }
        let keys: Vec<u32> = self.peers.keys().copied().collect();
        for key in keys {
            self.with_peer(key, ctx, |peer, local, ctx| peer.stop(cause, local, ctx));
        }
    }

    /// Whether [`Endpoint::shutdown`] was called: peers that go now go because we do.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Whether a peer is open.
    pub fn is_up(&self) -> bool {
        self.peers.values().any(|peer| peer.state == State::Open)
    }

    /// Whether every connection is closed: after [`Endpoint::shutdown`], that all peers have let us go.
    pub fn is_closed(&self) -> bool {
        self.links.is_empty() && self.strangers.is_empty()
    }

    /// Nothing waits for an answer, in either direction.
    pub fn is_quiet(&self) -> bool {
        self.requests.is_empty() && self.served.len() == 0 && self.strangers.is_empty() && self.events.is_empty()
    }

    pub fn snapshot(&self) -> serde_json::Value {
        let peer = |peer: &Peer| {
            serde_json::json!({
                "peer": peer.label(),
                "host": peer.host,
                "realm": peer.realm,
                "state": peer.state.name(),
                "watchdog": peer.watchdog.name(),
                "since": peer.since.secs(),
                "down_since": peer.down_since.map(Time::secs),
                "side": peer.link().map(|_| if peer.is_initiator() { "initiator" } else { "responder" }),
                "configured": !peer.dynamic,
                "in_flight": peer.link().map_or(0, |link| self.requests.on_link(link)),
            })
        };
        serde_json::json!({
            "origin_host": self.local.config.origin_host,
            "origin_realm": self.local.config.origin_realm,
            "peers": self.peers.values().map(peer).collect::<Vec<_>>(),
            "in_flight": self.requests.len(),
            "serving": self.served.len(),
            "counters": self.local.counters.snapshot(),
        })
    }

    pub fn metrics(&self, out: &mut Samples) {
        self.local.counters.metrics(out);
        let mut states: BTreeMap<&'static str, usize> = BTreeMap::new();
        self.peers.values().for_each(|peer| *states.entry(peer.state.name()).or_default() += 1);
        states.iter().for_each(|(state, n)| out.size(&catalogue::DIAMETER_PEERS, &[state], *n));
        out.size(&catalogue::DIAMETER_IN_FLIGHT, &["sent"], self.requests.len());
        out.size(&catalogue::DIAMETER_IN_FLIGHT, &["received"], self.served.len());
        self.requests.times().for_each(|(command, took)| out.histogram(&catalogue::DIAMETER_TIME, &[command], took));
    }

    /// Lets a peer act, then does what follows from it.
    fn with_peer(&mut self, key: u32, ctx: &mut Ctx<'_>, act: impl FnOnce(&mut Peer, &mut Local, &mut Ctx<'_>)) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        act(peer, &mut self.local, ctx);
        let outcomes = std::mem::take(&mut peer.outcomes);
        let label = if outcomes.is_empty() { String::new() } else { peer.label() };
        let link = peer.link();
        match peer.timer {
            Some(at) => self.timers.set(key, at),
            None => {
                self.timers.clear(&key);
            }
        }
        if peer.dynamic && peer.state == State::Closed {
            self.peers.remove(&key);
            self.timers.clear(&key);
        }
        for outcome in outcomes {
            self.on_outcome(outcome, link, &label, ctx);
        }
    }

    fn on_outcome(&mut self, outcome: Outcome, link: Option<LinkId>, peer: &str, ctx: &mut Ctx<'_>) {
        match outcome {
            Outcome::Up => {
                // The node hears of it, and tells the operator in words of its own.
                tracing::debug!(peer, "Diameter peer is up");
                self.events.push_back(DiameterEvent::PeerUp { peer: peer.into() });
                self.send_stranded(ctx);
            }
            Outcome::Recovered => tracing::info!(peer, "Diameter peer answers again"),
            Outcome::Suspect => {
                tracing::warn!(peer, "Diameter peer does not answer the watchdog");
                link.into_iter().for_each(|link| self.fail_over(link, false, ctx));
            }
            Outcome::Down(reason) => {
                tracing::debug!(peer, "Diameter peer is down: {reason}");
                self.events.push_back(DiameterEvent::PeerDown { peer: peer.into(), reason });
            }
            Outcome::LinkGone(link) => {
                self.links.remove(&link);
                self.fail_over(link, true, ctx);
            }
        }
    }

    /// A connection must begin with a CER of someone whom we know (RFC 6733 5.3).
    fn on_first_message(&mut self, link: LinkId, parsed: Result<Message, DiameterError>, ctx: &mut Ctx<'_>) {
        let Some((_, remote)) = self.strangers.remove(&link) else {
            return;
        };
        let cer = match parsed {
            Ok(m) if m.is_request() && m.command() == command::CAPABILITIES_EXCHANGE && m.application() == 0 => m,
            _ => {
                self.local.counters.refuse("no-cer");
                tracing::warn!(%remote, "a Diameter connection does not begin with a CER: closed");
                return ctx.act(Action::CloseLink(link));
            }
        };
        let said = match Capabilities::read(&cer) {
            Ok(said) => said,
            Err(error) => {
                self.refuse(link, &cer, &error, ctx);
                return ctx.act(Action::CloseLink(link));
            }
        };
        match self.admit(&said, ctx.now) {
            Ok(key) => {
                self.links.insert(link, key);
                self.with_peer(key, ctx, |peer, local, ctx| peer.on_cer(link, cer, said, local, ctx));
            }
            Err(code) => {
                self.local.counters.refuse("peer");
                tracing::warn!(%remote, peer = said.host, code, "a Diameter peer is refused: {}", refusal(code));
                let cea = base::cea(&cer, code, &self.local.config, self.local.state_id);
                self.local.send(link, &cea, ctx);
                ctx.act(Action::CloseLink(link));
            }
        }
    }

    /// The peer that has this name, made if strangers are welcome; or the Result-Code of the CEA.
    fn admit(&mut self, said: &Capabilities, now: Time) -> Result<u32, u32> {
        if said.host.eq_ignore_ascii_case(&self.local.config.origin_host) {
            return Err(result::UNKNOWN_PEER);
        }
        let known = self.peers.values().find(|peer| peer.is_host(&said.host)).map(|peer| peer.key);
        if known.is_none() && !self.local.config.accept_unknown {
            return Err(result::UNKNOWN_PEER);
        }
        said.fits(&self.local.config)?;
        if let Some(key) = known {
            return Ok(key);
        }
        if self.peers.values().filter(|peer| peer.dynamic).count() >= MAX_DYNAMIC_PEERS {
            return Err(result::TOO_BUSY);
        }
        let key = self.next_dynamic;
        self.next_dynamic = self.next_dynamic.wrapping_add(1).max(self.first_dynamic());
        let config = PeerConfig { host: Some(said.host.clone()), realm: Some(said.realm.clone()), connect: None };
        self.peers.insert(key, Peer::new(key, config, true, now));
        Ok(key)
    }

    fn first_dynamic(&self) -> u32 {
        u32::try_from(self.local.config.peers.len()).unwrap_or(u32::MAX)
    }

    fn on_request(&mut self, link: LinkId, key: u32, message: Message, ctx: &mut Ctx<'_>) {
        if message.application() == APPLICATION_BASE && !message.is_error() {
            match message.command() {
                command::DEVICE_WATCHDOG => {
                    let dwa = base::dwa(&message, &self.local.config, self.local.state_id);
                    return self.local.send(link, &dwa, ctx);
                }
                command::DISCONNECT_PEER => {
                    return self.with_peer(key, ctx, |peer, local, ctx| peer.on_dpr(link, &message, local, ctx));
                }
                _ => {}
            }
        }
        // Nothing but the capabilities exchange happens on a link that is not open.
        if self.peers.get(&key).and_then(Peer::link) != Some(link) {
            return self.local.counters.refuse("not-open");
        }
        if let Err(error) = self.judge(&message) {
            return self.refuse(link, &message, &error, ctx);
        }
        let expires = ctx.now + self.local.config.request_timeout * SERVE_FACTOR;
        match self.served.accept(&message, link, ctx.now, expires, self.local.config.max_pending) {
            Verdict::New(token) => {
                self.events.push_back(DiameterEvent::Request { token: RequestToken(token), message });
            }
            Verdict::InProgress => self.local.counters.refuse("duplicate"),
            Verdict::Answered(answer) => {
                self.local.counters.refuse("duplicate");
                self.local.send(link, &answer, ctx);
            }
            Verdict::Full => self.refuse(link, &message, &DiameterError::TooBusy, ctx),
        }
    }

    /// The checks of the base protocol that every request must pass (RFC 6733 3, 4.1, 6.1.4 to 6.1.8).
    fn judge(&self, m: &Message) -> Result<(), DiameterError> {
        let config = &self.local.config;
        if m.is_error() {
            return Err(DiameterError::HeaderBits);
        }
        if m.application() == APPLICATION_BASE {
            return Err(match m.command() {
                command::CAPABILITIES_EXCHANGE => DiameterError::UnableToComply,
                other => DiameterError::Command(other),
            });
        }
        if !config.applications.iter().any(|(_, application)| *application == m.application()) {
            return Err(DiameterError::Application(m.application()));
        }
        if !dict::knows_command(m.command(), m.application()) {
            return Err(DiameterError::Command(m.command()));
        }
        let avps = m.avps();
        let routing = avps.pick([
            &dict::SESSION_ID,
            &dict::ORIGIN_HOST,
            &dict::ORIGIN_REALM,
            &dict::DESTINATION_REALM,
            &dict::DESTINATION_HOST,
        ])?;
        routing.required(0)?;
        routing.required(1)?.utf8()?;
        routing.required(2)?;
        let is = |ours: &str, theirs: &[u8]| theirs.eq_ignore_ascii_case(ours.as_bytes());
        if avps.all(&dict::ROUTE_RECORD).any(|record| is(&config.origin_host, record.data)) {
            return Err(DiameterError::Loop);
        }
        if routing.optional(3).is_some_and(|realm| !is(&config.origin_realm, realm.data)) {
            return Err(DiameterError::Realm);
        }
        if routing.optional(4).is_some_and(|host| !is(&config.origin_host, host.data)) {
            return Err(DiameterError::Host);
        }
        match avps.unsupported() {
            Some(avp) => Err(DiameterError::Unsupported(avp)),
            None => Ok(()),
        }
    }

    /// The one place where a request is refused by the base protocol.
    fn refuse(&mut self, link: LinkId, request: &Message, error: &DiameterError, ctx: &mut Ctx<'_>) {
        self.local.counters.refuse(error.name());
        tracing::warn!(request = request.name(), code = error.result_code(), "Diameter request refused: {error}");
        let answer = self.local.signed(request.error_answer(error));
        self.local.send(link, &answer, ctx);
    }

    fn on_some_answer(&mut self, link: LinkId, key: u32, message: Message, ctx: &mut Ctx<'_>) {
        if message.application() != APPLICATION_BASE {
            return self.on_answer(link, message, ctx);
        }
        self.with_peer(key, ctx, |peer, local, ctx| match message.command() {
            command::CAPABILITIES_EXCHANGE => peer.on_cea(link, &message, local, ctx),
            _ if peer.link() != Some(link) => {}
            command::DEVICE_WATCHDOG => peer.on_dwa(),
            command::DISCONNECT_PEER => peer.on_dpa(local, ctx),
            _ => local.counters.refuse("wrong-answer"),
        });
    }
}

/// For our operator: why a peer that wants to connect is refused.
fn refusal(code: u32) -> &'static str {
    match code {
        result::UNKNOWN_PEER => "it is not among our peers; add its host, or set accept_unknown",
        other => advice(other),
    }
}
