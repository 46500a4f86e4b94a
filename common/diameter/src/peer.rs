//! One peer: the state machine of RFC 6733 5.6 with its election, and the watchdog of RFC 3539 3.4.
//!
//! A peer has one timer, whose meaning follows from the state: when to connect again, how long to wait for the other
//! side, when to ask whether it is still there. What the endpoint must know is left in `outcomes`.
//!
//! Where we do more than the RFCs say:
//! - A peer that was restarted is known by its Origin-State-Id: its new connection replaces the dead one at once.
//! - A connection that was closed, and not lost to the watchdog, is used again without the three watchdogs of REOPEN.
//! - A peer in SUSPECT or REOPEN is used when there is no better one.

use crate::Message;
use crate::base::{self, Capabilities, DisconnectCause};
use crate::config::PeerConfig;
use crate::dict;
use crate::local::Local;
use crate::message::result;
use ims_core::{Action, Ctx, LinkId, PeerId, Time};
use std::time::Duration;

/// For the connection and for each answer of the base protocol.
const PATIENCE: Duration = Duration::from_secs(10);
/// After DPR and DPA, for the connection to be closed.
const CLOSING: Duration = Duration::from_secs(5);
const FIRST_RECONNECT: Duration = Duration::from_millis(500);
/// Before we try a peer again that said that it does not want to talk.
const UNWANTED: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    Closed,
    WaitConnAck,
    WaitICea,
    /// We are connecting, and the peer has connected and sent its CER.
    WaitConnAckElect,
    /// Both connections are there, and the peer wins the election.
    WaitReturns,
    Open,
    Closing,
}

impl State {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::WaitConnAck => "connecting",
            Self::WaitICea => "wait-cea",
            Self::WaitConnAckElect => "wait-connection-elect",
            Self::WaitReturns => "wait-returns",
            Self::Open => "open",
            Self::Closing => "closing",
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Watchdog {
    Okay,
    Reopen,
    Suspect,
    Down,
}

impl Watchdog {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Okay => "okay",
            Self::Reopen => "reopen",
            Self::Suspect => "suspect",
            Self::Down => "down",
        }
    }
}

/// What the endpoint has to act on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    Up,
    /// As good as before: heard again after it was suspect, or proven after it was opened again.
    Recovered,
    /// Requests should go elsewhere.
    Suspect,
    Down(String),
    /// This link is no longer ours.
    LinkGone(LinkId),
}

pub(crate) struct Peer {
    pub(crate) key: u32,
    /// Made by an incoming connection, and forgotten with it.
    pub(crate) dynamic: bool,
    config: PeerConfig,
    /// From the configuration or its CER or CEA.
    pub(crate) host: Option<String>,
    pub(crate) realm: Option<String>,
    pub(crate) capabilities: Option<Capabilities>,
    pub(crate) state: State,
    pub(crate) since: Time,
    /// Since when it has not been open, however often a connection was tried.
    pub(crate) down_since: Option<Time>,
    pub(crate) watchdog: Watchdog,
    awaiting_dwa: bool,
    reopen_answers: i8,
    /// When something last came from it, and how long it may be silent (Tw with jitter).
    heard: Time,
    silence: Duration,
    initiated: Option<LinkId>,
    accepted: Option<LinkId>,
    /// The CER on `accepted` that is not answered before the election is over.
    held_cer: Option<(Message, Capabilities)>,
    attempts: u32,
    pub(crate) timer: Option<Time>,
    stopped: bool,
    announced: bool,
    disconnected: Option<DisconnectCause>,
    pub(crate) outcomes: Vec<Outcome>,
}

impl Peer {
    pub(crate) fn new(key: u32, config: PeerConfig, dynamic: bool, now: Time) -> Self {
        Self {
            key,
            dynamic,
            host: config.host.clone(),
            realm: config.realm.clone(),
            config,
            capabilities: None,
            state: State::Closed,
            since: now,
            down_since: Some(now),
            watchdog: Watchdog::Okay,
            awaiting_dwa: false,
            reopen_answers: 0,
            heard: now,
            silence: Duration::ZERO,
            initiated: None,
            accepted: None,
            held_cer: None,
            attempts: 0,
            timer: None,
            stopped: false,
            announced: false,
            disconnected: None,
            outcomes: Vec::new(),
        }
    }

    /// For the operator.
    pub(crate) fn label(&self) -> String {
        let name = self.host.as_ref().or(self.config.connect.as_ref());
        name.cloned().unwrap_or_else(|| format!("peer {}", self.key))
    }

    pub(crate) fn is_host(&self, name: &str) -> bool {
        self.host.as_ref().is_some_and(|host| host.eq_ignore_ascii_case(name))
    }

    pub(crate) fn is_realm(&self, name: &str) -> bool {
        self.realm.as_ref().is_some_and(|realm| realm.eq_ignore_ascii_case(name))
    }

    pub(crate) fn is_relay(&self) -> bool {
        self.capabilities.as_ref().is_some_and(Capabilities::is_relay)
    }

    pub(crate) fn speaks(&self, application: u32) -> bool {
        self.is_relay() || self.capabilities.as_ref().is_some_and(|c| c.applications.contains(&application))
    }

    /// The link of an open or closing peer.
    pub(crate) fn link(&self) -> Option<LinkId> {
        match self.state {
            State::Open | State::Closing => self.initiated.or(self.accepted),
            _ => None,
        }
    }

    pub(crate) fn is_initiator(&self) -> bool {
        self.initiated.is_some()
    }

    /// RFC 6733 5.6 `Start`: opens the connection if that is ours to do.
    pub(crate) fn start(&mut self, ctx: &mut Ctx<'_>) {
        let Some(target) = self.config.connect.clone().filter(|_| self.state == State::Closed && !self.stopped) else {
            return;
        };
        ctx.act(Action::Connect { peer: PeerId(self.key), target });
        self.enter(State::WaitConnAck, PATIENCE, ctx);
    }

    /// The connection that we asked for is there.
    pub(crate) fn on_connected(&mut self, link: LinkId, local: &mut Local, ctx: &mut Ctx<'_>) {
        match self.state {
            State::WaitConnAck => {
                self.initiated = Some(link);
                local.ask(link, base::cer(&local.config, local.state_id), ctx);
                self.enter(State::WaitICea, PATIENCE, ctx);
            }
            State::WaitConnAckElect => {
                self.initiated = Some(link);
                local.ask(link, base::cer(&local.config, local.state_id), ctx);
                self.elect(local, ctx);
            }
            _ => self.drop_link(link, ctx),
        }
    }

    pub(crate) fn on_connect_failed(&mut self, local: &mut Local, ctx: &mut Ctx<'_>) {
        match self.state {
            State::WaitConnAck => self.closed("the connection could not be opened", local, ctx),
            State::WaitConnAckElect => self.accept_held(local, ctx),
            _ => {}
        }
    }

    /// The peer has connected to us: a CER that fits us, on a link that becomes ours.
    pub(crate) fn on_cer(
        &mut self,
        link: LinkId,
        cer: Message,
        said: Capabilities,
        local: &mut Local,
        ctx: &mut Ctx<'_>,
    ) {
        match self.state {
            State::Closed if !self.stopped => self.accept(link, &cer, said, local, ctx),
            State::WaitConnAck => {
                self.accepted = Some(link);
                self.held_cer = Some((cer, said));
                self.enter(State::WaitConnAckElect, PATIENCE, ctx);
            }
            State::WaitICea => {
                self.accepted = Some(link);
                self.held_cer = Some((cer, said));
                self.elect(local, ctx);
            }
            State::Open | State::Closing if !self.stopped && self.was_restarted(&said) => {
                self.closed("the peer was restarted and has connected anew", local, ctx);
                self.accept(link, &cer, said, local, ctx);
            }
            _ => self.reject(link, &cer, local, ctx),
        }
    }

    /// It says so itself, or it has taken leave before it connects again.
    fn was_restarted(&self, said: &Capabilities) -> bool {
        let known = self.capabilities.as_ref().and_then(|c| c.state_id);
        self.disconnected.is_some() || matches!((known, said.state_id), (Some(old), Some(new)) if new > old)
    }

    fn reject(&mut self, link: LinkId, cer: &Message, local: &mut Local, ctx: &mut Ctx<'_>) {
        local.counters.refuse("second-connection");
        local.send(link, &base::cea(cer, result::ELECTION_LOST, &local.config, local.state_id), ctx);
        self.drop_link(link, ctx);
        // Perhaps the peer knows of no other connection: then the watchdog should find out soon.
        if self.state == State::Open && !self.awaiting_dwa {
            self.ask_watchdog(local, ctx);
        }
    }

    /// RFC 6733 5.6.4: the higher name keeps the connection that it accepted.
    fn elect(&mut self, local: &mut Local, ctx: &mut Ctx<'_>) {
        let theirs = self.held_cer.as_ref().map_or("", |(_, said)| &said.host).to_ascii_lowercase();
        if local.config.origin_host.to_ascii_lowercase() > theirs {
            self.accept_held(local, ctx);
        } else {
            self.enter(State::WaitReturns, PATIENCE, ctx);
        }
    }

    /// Goes on with the connection that the peer opened.
    fn accept_held(&mut self, local: &mut Local, ctx: &mut Ctx<'_>) {
        if let Some(link) = self.initiated.take() {
            self.drop_link(link, ctx);
        }
        match (self.accepted.take(), self.held_cer.take()) {
            (Some(link), Some((cer, said))) => self.accept(link, &cer, said, local, ctx),
            _ => self.closed("the connection was lost during the election", local, ctx),
        }
    }

    fn accept(&mut self, link: LinkId, cer: &Message, said: Capabilities, local: &mut Local, ctx: &mut Ctx<'_>) {
        local.send(link, &base::cea(cer, result::SUCCESS, &local.config, local.state_id), ctx);
        self.accepted = Some(link);
        self.opened(said, local, ctx);
    }

    pub(crate) fn on_cea(&mut self, link: LinkId, cea: &Message, local: &mut Local, ctx: &mut Ctx<'_>) {
        if self.initiated != Some(link) || !matches!(self.state, State::WaitICea | State::WaitReturns) {
            return;
        }
        match self.judge_cea(cea, local) {
            Ok(said) => {
                self.held_cer = None;
                if let Some(other) = self.accepted.take() {
                    self.drop_link(other, ctx);
                }
                self.opened(said, local, ctx);
            }
            Err(reason) => {
                local.counters.refuse("cea");
                tracing::warn!(peer = self.label(), "{reason}");
                if self.state == State::WaitReturns {
                    return self.accept_held(local, ctx);
                }
                self.closed(&reason, local, ctx);
            }
        }
    }

    fn judge_cea(&self, cea: &Message, local: &Local) -> Result<Capabilities, String> {
        let code = cea.avps().first(&dict::RESULT_CODE).and_then(|a| a.u32().ok()).unwrap_or(0);
        if code != result::SUCCESS {
            return Err(format!("the peer refuses us with Result-Code {code}: {}", advice(code)));
        }
        let said = Capabilities::read(cea).map_err(|e| format!("the CEA is not usable: {e}"))?;
        if let Some(expected) = self.config.host.as_ref().filter(|h| !h.eq_ignore_ascii_case(&said.host)) {
            let got = &said.host;
            return Err(format!(
                "the peer calls itself {got}, but {expected} is configured: correct the host of this peer"
            ));
        }
        said.fits(&local.config).map_err(|code| format!("the peer does not fit: {}", advice(code)))?;
        Ok(said)
    }

    fn opened(&mut self, said: Capabilities, local: &mut Local, ctx: &mut Ctx<'_>) {
        self.host = Some(said.host.clone());
        self.realm = Some(said.realm.clone());
        self.capabilities = Some(said);
        self.attempts = 0;
        self.disconnected = None;
        self.announced = true;
        self.enter(State::Open, Duration::ZERO, ctx);
        self.heard = ctx.now;
        self.awaiting_dwa = false;
        self.arm_watchdog(local, ctx);
        self.outcomes.push(Outcome::Up);
        if self.watchdog == Watchdog::Down {
            self.watchdog = Watchdog::Reopen;
            self.reopen_answers = 0;
            self.ask_watchdog(local, ctx);
        } else {
            self.watchdog = Watchdog::Okay;
        }
    }

    /// One of our links is gone without our doing.
    pub(crate) fn on_link_down(&mut self, link: LinkId, local: &mut Local, ctx: &mut Ctx<'_>) {
        self.outcomes.push(Outcome::LinkGone(link));
        let initiated = self.initiated.take_if(|l| *l == link).is_some();
        let accepted = self.accepted.take_if(|l| *l == link).is_some();
        match self.state {
            State::WaitConnAckElect if accepted => {
                self.held_cer = None;
                self.enter(State::WaitConnAck, PATIENCE, ctx);
            }
            State::WaitReturns if accepted => {
                self.held_cer = None;
                self.enter(State::WaitICea, PATIENCE, ctx);
            }
            State::WaitReturns if initiated => self.accept_held(local, ctx),
            _ if initiated || accepted => self.closed("the connection was closed", local, ctx),
            _ => {}
        }
    }

    /// Anything came on the open link (RFC 3539: receipt of any message shows that the peer is there).
    /// True when that changes anything but the clock.
    pub(crate) fn on_heard(&mut self, now: Time) -> bool {
        self.heard = now;
        let recovered = self.state == State::Open && self.watchdog == Watchdog::Suspect;
        if recovered {
            self.watchdog = Watchdog::Okay;
            self.outcomes.push(Outcome::Recovered);
        }
        recovered
    }

    pub(crate) fn on_dwa(&mut self) {
        self.awaiting_dwa = false;
        if self.watchdog == Watchdog::Reopen {
            self.reopen_answers += 1;
            if self.reopen_answers >= 3 {
                self.watchdog = Watchdog::Okay;
                self.outcomes.push(Outcome::Recovered);
            }
        }
    }

    pub(crate) fn on_dpr(&mut self, link: LinkId, dpr: &Message, local: &mut Local, ctx: &mut Ctx<'_>) {
        let cause = DisconnectCause::read(dpr);
        local.send(link, &base::dpa(dpr, &local.config), ctx);
        if self.state == State::Open {
            self.disconnected = Some(cause);
            self.announce_down(format!("the peer disconnects: {}", cause.name()));
            self.enter(State::Closing, CLOSING, ctx);
        }
    }

    pub(crate) fn on_dpa(&mut self, local: &mut Local, ctx: &mut Ctx<'_>) {
        if self.state == State::Closing {
            self.closed("we disconnected", local, ctx);
        }
    }

    /// RFC 6733 5.6 `Stop`: takes leave; no connection is opened or accepted any more.
    pub(crate) fn stop(&mut self, cause: DisconnectCause, local: &mut Local, ctx: &mut Ctx<'_>) {
        self.stopped = true;
        match (self.state, self.link()) {
            (State::Open, Some(link)) => {
                local.ask(link, base::dpr(cause, &local.config), ctx);
                self.announce_down("we disconnect".into());
                self.enter(State::Closing, CLOSING, ctx);
            }
            (State::Closing, _) => {}
            _ => self.closed("we disconnect", local, ctx),
        }
    }

    /// `timer` has come.
    pub(crate) fn on_timer(&mut self, local: &mut Local, ctx: &mut Ctx<'_>) {
        self.timer = None;
        match self.state {
            State::Closed => self.start(ctx),
            State::WaitConnAck => self.closed("the connection could not be opened in time", local, ctx),
            State::WaitICea => self.closed("the peer did not answer our CER in time", local, ctx),
            State::WaitConnAckElect | State::WaitReturns => self.accept_held(local, ctx),
            State::Open => self.on_silence(local, ctx),
            State::Closing => self.closed("the peer did not close the connection in time", local, ctx),
        }
    }

    /// RFC 3539 3.4.1, timer Tw.
    fn on_silence(&mut self, local: &mut Local, ctx: &mut Ctx<'_>) {
        let due = self.heard + self.silence;
        if ctx.now < due {
            self.timer = Some(due);
            return;
        }
        match (self.watchdog, self.awaiting_dwa) {
            (_, false) => return self.ask_watchdog(local, ctx),
            (Watchdog::Okay, true) => {
                self.watchdog = Watchdog::Suspect;
                self.outcomes.push(Outcome::Suspect);
            }
            (Watchdog::Reopen, true) if self.reopen_answers >= 0 => self.reopen_answers = -1,
            _ => {
                self.watchdog = Watchdog::Down;
                return self.closed("the peer does not answer the watchdog", local, ctx);
            }
        }
        self.heard = ctx.now;
        self.arm_watchdog(local, ctx);
    }

    fn ask_watchdog(&mut self, local: &mut Local, ctx: &mut Ctx<'_>) {
        let Some(link) = self.link() else { return };
        local.ask(link, base::dwr(&local.config, local.state_id), ctx);
        self.awaiting_dwa = true;
        self.heard = ctx.now;
        self.arm_watchdog(local, ctx);
    }

    /// Tw with a jitter of two seconds either way (RFC 3539 3.4.1), less when Tw itself is short.
    fn arm_watchdog(&mut self, local: &Local, ctx: &mut Ctx<'_>) {
        let tw = local.config.watchdog;
        let jitter = (tw / 4).min(Duration::from_secs(2));
        self.silence = tw - jitter + random_below(jitter * 2, ctx);
        self.timer = Some(self.heard + self.silence);
    }

    fn enter(&mut self, state: State, limit: Duration, ctx: &mut Ctx<'_>) {
        self.state = state;
        self.since = ctx.now;
        self.down_since = match state {
            State::Open => None,
            _ => self.down_since.or(Some(ctx.now)),
        };
        self.timer = Some(ctx.now + limit);
    }

    fn drop_link(&mut self, link: LinkId, ctx: &mut Ctx<'_>) {
        ctx.act(Action::CloseLink(link));
        self.outcomes.push(Outcome::LinkGone(link));
    }

    fn announce_down(&mut self, reason: String) {
        if std::mem::take(&mut self.announced) {
            self.outcomes.push(Outcome::Down(reason));
        }
    }

    /// Everything of the connection is over; plans the next one.
    fn closed(&mut self, reason: &str, local: &Local, ctx: &mut Ctx<'_>) {
        self.announce_down(reason.into());
        for link in [self.initiated.take(), self.accepted.take()].into_iter().flatten() {
            self.drop_link(link, ctx);
        }
        self.held_cer = None;
        self.enter(State::Closed, Duration::ZERO, ctx);
        self.timer = None;
        if self.config.connect.is_some() && !self.stopped {
            let wait = match self.disconnected {
                Some(DisconnectCause::DoNotWantToTalkToYou) => UNWANTED,
                Some(DisconnectCause::Busy) => local.config.reconnect,
                _ => FIRST_RECONNECT.saturating_mul(1 << self.attempts.min(16)).min(local.config.reconnect),
            };
            self.attempts = self.attempts.saturating_add(1);
            tracing::debug!(peer = self.label(), ?wait, "{reason}; connecting again later");
            // A quarter more at most, so that many nodes do not come back at one moment.
            self.timer = Some(ctx.now + wait + random_below(wait / 4, ctx));
        }
    }
}

fn random_below(most: Duration, ctx: &mut Ctx<'_>) -> Duration {
    let micros = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
    Duration::from_micros(if micros == 0 { 0 } else { ctx.rng.below(micros) })
}

/// What the operator can do about a refused connection.
pub(crate) fn advice(code: u32) -> &'static str {
    match code {
        result::UNKNOWN_PEER => "it does not know our origin_host; add us to its peers",
        result::NO_COMMON_APPLICATION => "there is no common application; check the role of both sides",
        result::NO_COMMON_SECURITY => "it insists on TLS; allow plain TCP for us there",
        result::ELECTION_LOST => "it has another connection with us",
        result::TOO_BUSY => "it is too busy",
        _ => "look into its log",
    }
}
