//! Registration as the handset does it: first REGISTER, answers, refresh, de-registration, expiry
//! (TS 24.229 5.1.1.2, 5.1.1.4, 5.1.1.6). The challenge has its own file.

use crate::challenge::Verified;
use crate::config::Quirk;
use crate::error::{Failure, Fault};
use crate::request::Credential;
use crate::sa::{Offer, SetState, outward};
use crate::{Report, Timer, Ue};
use ims_core::sa::{SaChange, SaError};
use ims_core::uri::Uri;
use ims_core::{Action, Ctx, Flow, RequestId, Time, Transport};
use ims_sip::endpoint::{ClientTx, Destination, Leg};
use ims_sip::headers::{
    AuthenticationInfo, Contact, Expires, MinExpires, PAssociatedUri, RetryAfter, ServiceRoute, WwwAuthenticate,
};
use ims_sip::{Message, Name};
use std::net::SocketAddr;
use std::time::Duration;

/// How long the kernel may take to answer.
const SA_PATIENCE: Duration = Duration::from_secs(10);
/// Sets made by a challenge live this long until the registration confirms them (reg-await-auth, TS 24.229 7.8).
const TEMPORARY_LIFETIME: Duration = Duration::from_secs(240);
/// What an association lives longer than the registration (TS 24.229 5.1.1.5.1).
const SA_MARGIN: Duration = Duration::from_secs(30);
/// Upper bound of the back-off after failures (RFC 5626 4.5, max-time).
const RETRY_MAX: Duration = Duration::from_secs(1800);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Procedure {
    Register,
    Refresh,
    /// Asks which contacts are bound, and binds nothing (RFC 3261 10.2.3).
    Query,
    Deregister,
}

impl Procedure {
    pub fn name(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Refresh => "refresh",
            Self::Query => "query",
            Self::Deregister => "deregister",
        }
    }
}

/// The way a request takes: in clear, or inside the set with this spi_us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Path {
    Clear,
    Set(u32),
}

/// What an attempt waits for.
#[derive(Debug)]
pub(crate) enum Waiting {
    Answer(ClientTx),
    /// The kernel's word on the set with this spi_us; then the challenge is answered.
    Sa {
        id: RequestId,
        spi_us: u32,
        verified: Box<Verified>,
    },
}

/// One registration, refresh or de-registration from its first request to its end.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) procedure: Procedure,
    pub(crate) started: Time,
    /// Seconds asked for.
    pub(crate) asked: u32,
    pub(crate) path: Path,
    pub(crate) offer: Option<Offer>,
    pub(crate) challenges: u32,
    /// The nonce that was answered last.
    pub(crate) nonce: Option<String>,
    /// What the last request carried.
    pub(crate) credential: Credential,
    pub(crate) waiting: Option<Waiting>,
    /// Min-Expires was obeyed once.
    raised: bool,
}

/// What the network granted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Binding {
    pub expires: Time,
    pub granted_s: u32,
    /// In clear, or protected.
    pub protected: bool,
    pub service_route: Vec<String>,
    /// P-Associated-URI: the first is the default public identity.
    pub associated: Vec<String>,
}

impl Ue {
    /// Starts a procedure; false when another one runs, or when there is no registration to ask for.
    pub fn start(&mut self, procedure: Procedure, ctx: &mut Ctx<'_>) -> bool {
        let fresh = self.binding.is_none();
        if self.attempt.is_some() || fresh && procedure == Procedure::Query {
            return false;
        }
        let procedure = match procedure {
            Procedure::Refresh if fresh => Procedure::Register,
            Procedure::Register if !fresh => Procedure::Refresh,
            other => other,
        };
        if fresh {
            self.dialog.renew(ctx);
            self.last_auth = None;
            self.watch = None;
        }
        self.timers.clear(&Timer::Retry);
        if procedure != Procedure::Query {
            self.timers.clear(&Timer::Refresh);
        }
        if procedure == Procedure::Deregister {
            self.leave_calls(ctx);
        }
        let path = self.sets.established().map_or(Path::Clear, |s| Path::Set(s.set.spi_us));
        let wants_sets = self.config.sec_agree && (fresh || path != Path::Clear);
        let credential = self.last_auth.as_mut().map_or(Credential::Empty, |answer| {
            answer.nc += 1;
            Credential::Answer(answer.clone())
        });
        let mut attempt = Attempt {
            procedure,
            started: ctx.now,
            asked: if procedure == Procedure::Deregister { 0 } else { self.config.expires },
            path,
            offer: wants_sets.then(|| self.sets.offer(&self.config, ctx.rng)),
            challenges: 0,
            nonce: None,
            credential,
            waiting: None,
            raised: false,
        };
        self.count("attempts");
        self.send(&mut attempt, ctx);
        self.attempt = Some(attempt);
        true
    }

    /// Sends the REGISTER that the attempt is ready for.
    pub(crate) fn send(&mut self, attempt: &mut Attempt, ctx: &mut Ctx<'_>) {
        let set = match attempt.path {
            Path::Set(spi_us) => self.sets.find(spi_us).cloned(),
            Path::Clear => None,
        };
        let credential = attempt.credential.clone();
        let verify = set.as_ref().map(|s| s.verify.as_str());
        let message = self.register_request(attempt, &credential, verify, ctx);
        let (flow, sent_by_port) = match &set {
            Some(live) => (self.quirky(outward(&live.set, self.transport())), self.config.port_us),
            None => (self.clear_flow(), self.config.port),
        };
        let sent_by = SocketAddr::new(self.config.address, sent_by_port).to_string();
        let challenged = attempt.challenges;
        self.step(ctx.now, || {
            let how = if set.is_some() { "inside the security associations" } else { "in clear" };
            let what = match (&credential, attempt.asked) {
                (Credential::Empty, _) => "without an answer yet",
                (Credential::Answer(_), 0) => "with expiry 0",
                (Credential::Answer(_), _) if challenged > 0 => "with the answer to the challenge",
                (Credential::Answer(_), _) => "with the answer known from before",
                (Credential::MacFailure { .. }, _) => "saying that AUTN is wrong",
                (Credential::SyncFailure { .. }, _) => "asking for resynchronisation (AUTS)",
            };
            format!("REGISTER {how}, {what}: {} {} to {}", flow.transport, flow.local, flow.remote)
        });
        let to = Destination::Flow { flow, sent_by, leg: Leg::Ue };
        attempt.waiting = Some(Waiting::Answer(self.sip.send_request(message, to, ctx)));
    }

    pub(crate) fn clear_flow(&self) -> Flow {
        let local_port = if self.transport() == Transport::Tcp { 0 } else { self.config.port };
        let local = SocketAddr::new(self.config.address, local_port);
        Flow { transport: self.transport(), local, remote: self.config.pcscf, conn: None }
    }

    /// The flow that a misbehaving handset uses instead of the protected one.
    fn quirky(&self, flow: Flow) -> Flow {
        match self.config.quirk {
            Some(Quirk::ClearToProtectedPort) => Flow { remote: flow.remote, ..self.clear_flow() },
            Some(Quirk::AnswerInClear) => self.clear_flow(),
            _ => flow,
        }
    }

    /// An answer to the REGISTER of the running attempt.
    pub(crate) fn on_answer(&mut self, tx: ClientTx, message: &Message, flow: Flow, ctx: &mut Ctx<'_>) {
        let Some(mut attempt) = self.attempt.take() else { return };
        if message.status() < 200 || !matches!(attempt.waiting, Some(Waiting::Answer(own)) if own == tx) {
            self.attempt = Some(attempt);
            return;
        }
        attempt.waiting = None;
        self.step(ctx.now, || format!("{} {}", message.status(), String::from_utf8_lossy(message.reason())));
        let outcome = self.check_way(&attempt, &flow).and_then(|()| {
            self.check_leaks(message);
            match message.status() {
                401 => self.on_challenge(&mut attempt, message, ctx),
                200..=299 => self.on_success(&attempt, message, ctx).map(|()| true),
                423 => self.on_too_brief(&mut attempt, message, ctx),
                status => Err(Failure::Refused {
                    status,
                    reason: String::from_utf8_lossy(message.reason()).chars().take(80).collect(),
                    retry_after: message.first::<RetryAfter<'_>>().ok().flatten().map(|r| r.seconds),
                }),
            }
        });
        match outcome {
            Ok(false) => self.attempt = Some(attempt),
            Ok(true) => self.finish(attempt, Ok(()), ctx),
            Err(failure) => self.finish(attempt, Err(failure), ctx),
        }
    }

    /// An answer must come back the way the request went (TS 33.203 7.1): UDP pc->us, TCP on the connection.
    fn check_way(&mut self, attempt: &Attempt, flow: &Flow) -> Result<(), Failure> {
        let right = match attempt.path {
            Path::Set(spi_us) => self.sets.of_flow(flow).is_some_and(|s| s.set.spi_us == spi_us),
            Path::Clear => {
                flow.remote == self.config.pcscf
                    && (flow.transport == Transport::Tcp || flow.local.port() == self.config.port)
            }
        };
        let quirky = matches!(self.config.quirk, Some(Quirk::AnswerInClear | Quirk::ClearToProtectedPort));
        if right || quirky { Ok(()) } else { Err(self.fatal(Fault::OutsideSa)) }
    }

    /// What must not reach a handset, whatever the status is.
    fn check_leaks(&mut self, message: &Message) {
        for name in [Name::PChargingVector, Name::PChargingFunctionAddresses] {
            if message.has(name) {
                self.note(&Fault::HeaderLeaked(name.as_str()));
            }
        }
        let keys = |h: &WwwAuthenticate<'_>| h.params.get("ck").is_some() || h.params.get("ik").is_some();
        if message.status() != 401 && message.all::<WwwAuthenticate<'_>>().is_ok_and(|all| all.iter().any(keys)) {
            self.note(&Fault::CkIkLeaked);
        }
    }

    /// 423: Min-Expires is obeyed, once (RFC 3261 10.3).
    fn on_too_brief(&mut self, attempt: &mut Attempt, message: &Message, ctx: &mut Ctx<'_>) -> Result<bool, Failure> {
        let least = message.first::<MinExpires>().ok().flatten().map(|m| m.0);
        match least {
            Some(least) if !attempt.raised && least > attempt.asked && attempt.asked > 0 => {
                attempt.raised = true;
                attempt.asked = least;
                self.send(attempt, ctx);
                Ok(false)
            }
            _ => Err(Failure::Refused { status: 423, reason: "Interval Too Brief".into(), retry_after: None }),
        }
    }

    fn on_success(&mut self, attempt: &Attempt, message: &Message, ctx: &mut Ctx<'_>) -> Result<(), Failure> {
        if attempt.procedure == Procedure::Register && attempt.challenges == 0 {
            return Err(self.fatal(Fault::Unchallenged));
        }
        self.check_rspauth(attempt, message);
        let bound = self.bound_for(attempt, message);
        if attempt.procedure == Procedure::Deregister {
            if bound.is_some_and(|s| s.unwrap_or(1) > 0) {
                self.note(&Fault::StillBound);
            }
            if self.watch.is_some() {
                // The NOTIFY of this end comes inside them, and is answered there.
                self.retire_sets(ctx);
            }
            self.forget(ctx);
            return Ok(());
        }
        self.keep_answer(attempt, message);
        if attempt.procedure == Procedure::Query {
            // A challenge of the query may have made a new set.
            let until = self.binding.as_ref().map_or(ctx.now, |b| b.expires);
            self.keep_set(attempt.path, until + SA_MARGIN, ctx);
            return match bound {
                Some(left) if left != Some(0) => Ok(()),
                _ => Err(self.fatal(Fault::ContactNotBound)),
            };
        }
        let granted = match bound {
            None => return Err(self.fatal(Fault::ContactNotBound)),
            Some(None | Some(0)) => return Err(self.fatal(Fault::NoExpiry)),
            Some(Some(granted)) => granted,
        };
        if granted > attempt.asked {
            self.note(&Fault::ExpiryRaised { granted, asked: attempt.asked });
        }
        let service_route: Vec<String> =
            message.all::<ServiceRoute<'_>>().unwrap_or_default().iter().map(|r| r.0.uri.to_owned()).collect();
        let associated: Vec<String> =
            message.all::<PAssociatedUri<'_>>().unwrap_or_default().iter().map(|r| r.0.uri.to_owned()).collect();
        if service_route.is_empty() {
            self.note(&Fault::NoServiceRoute);
        }
        if associated.is_empty() {
            self.note(&Fault::NoAssociatedUri);
        }
        let expires = ctx.now + Duration::from_secs(u64::from(granted));
        let protected = attempt.path != Path::Clear;
        self.binding = Some(Binding { expires, granted_s: granted, protected, service_route, associated });
        let refresh = self.config.refresh_every.map_or_else(|| refresh_after(granted), |every| every.0);
        self.timers.set(Timer::Refresh, ctx.now + refresh);
        self.timers.set(Timer::Expire, expires);
        self.keep_set(attempt.path, expires + SA_MARGIN, ctx);
        self.watch_registration(ctx);
        Ok(())
    }

    /// What was accepted is good for the next request, by the next nonce if there is one (RFC 7616 3.5).
    fn keep_answer(&mut self, attempt: &Attempt, message: &Message) {
        if let Credential::Answer(answer) = &attempt.credential {
            self.last_auth = Some(answer.clone());
        }
        let info = message.first::<AuthenticationInfo<'_>>().ok().flatten();
        if let (Some(next), Some(last)) = (info.and_then(|i| i.0.get("nextnonce")), &mut self.last_auth) {
            (last.nonce, last.nc) = (next.into_owned(), 0);
        }
    }

    /// Authentication-Info is optional; when it proves something, it must be true.
    fn check_rspauth(&mut self, attempt: &Attempt, message: &Message) {
        let Ok(Some(info)) = message.first::<AuthenticationInfo<'_>>() else {
            return;
        };
        let Some(rspauth) = info.0.get("rspauth") else { return };
        let Credential::Answer(answer) = &attempt.credential else {
            return;
        };
        let expected = answer.expected_rspauth(self.identity.impi.as_str(), &self.registrar_uri());
        if !ims_sip::digest::matches(&expected, &rspauth) {
            self.note(&Fault::WrongRspauth);
        }
    }

    /// Whether the 200 lists our Contact, and for how many seconds.
    fn bound_for(&self, attempt: &Attempt, message: &Message) -> Option<Option<u32>> {
        let own = self.contact_uri(attempt.offer.is_some());
        let contacts = message.all::<Contact<'_>>().unwrap_or_default();
        let ours = contacts.iter().find_map(|c| match c {
            Contact::Addr(addr) if same_contact(addr.uri, &own) => Some(addr),
            _ => None,
        })?;
        let all = || message.first::<Expires>().ok().flatten().map(|e| e.0);
        Some(ours.params.value("expires").and_then(|v| v.parse().ok()).or_else(all))
    }

    /// The set of a successful registration becomes the one in use; older ones retire (TS 33.203 7.4).
    fn keep_set(&mut self, path: Path, expires: Time, ctx: &mut Ctx<'_>) {
        let Path::Set(current) = path else { return };
        let retire_at = ctx.now + self.config.t1.0 * 64;
        let mut others = Vec::new();
        for live in &mut self.sets.list {
            if live.set.spi_us == current {
                live.state = SetState::Established;
                live.expires = expires;
            } else if live.state != SetState::Retiring {
                live.state = SetState::Retiring;
                live.expires = live.expires.min(retire_at);
                others.push((live.set.spi_us, live.expires));
            }
        }
        for (spi_us, at) in others {
            self.timers.set(Timer::Retire(spi_us), at);
        }
        if let Some(set) = self.sets.find(current).map(|s| s.set) {
            let id = self.request_id();
            ctx.act(Action::Sa { id, change: SaChange::Extend { set, expires } });
        }
    }

    /// The kernel's answer about the set of a challenge.
    pub(crate) fn on_sa(&mut self, id: RequestId, result: Result<(), SaError>, ctx: &mut Ctx<'_>) {
        let Some(mut attempt) = self.attempt.take() else { return };
        let (spi_us, verified) = match attempt.waiting.take() {
            Some(Waiting::Sa { id: own, spi_us, verified }) if own == id => (spi_us, verified),
            other => {
                attempt.waiting = other;
                self.attempt = Some(attempt);
                return;
            }
        };
        self.timers.clear(&Timer::SaAnswer);
        match result {
            Ok(()) => attempt.path = Path::Set(spi_us),
            Err(error) => {
                self.sets.take(spi_us);
                self.step(ctx.now, || format!("no security associations: {error}"));
                let absent = matches!(error, SaError::NoEsp | SaError::NotPermitted | SaError::NoAlgorithm(_));
                if !(absent && self.config.allow_unprotected && attempt.path == Path::Clear) {
                    return self.finish(attempt, Err(Failure::Sa(error)), ctx);
                }
                attempt.offer = None;
            }
        }
        self.answer_challenge(&mut attempt, *verified, ctx);
        self.attempt = Some(attempt);
    }

    /// Installs our half of a set; the challenge is answered when the kernel agrees.
    pub(crate) fn install(
        &mut self,
        attempt: &mut Attempt,
        set: ims_core::sa::SaSet,
        verify: String,
        verified: Verified,
        ctx: &mut Ctx<'_>,
    ) {
        let id = self.request_id();
        let expires = ctx.now + TEMPORARY_LIFETIME;
        let keys = ims_core::sa::SaKeys { ck: verified.ck.clone(), ik: verified.ik.clone() };
        self.step(ctx.now, || {
            format!(
                "security associations {}/{}: us {}:{}/{} to them {}/{}",
                set.suite.alg.token(),
                set.suite.ealg.token(),
                set.ue,
                set.port_uc,
                set.port_us,
                set.port_pc,
                set.port_ps
            )
        });
        let live = crate::sa::LiveSet { set, state: SetState::Temporary, verify, expires };
        self.sets.list.push(live);
        let side = ims_core::sa::SaSide::Ue;
        ctx.act(Action::Sa { id, change: SaChange::Install { set, keys, side, expires } });
        self.timers.set(Timer::SaAnswer, ctx.now + SA_PATIENCE);
        attempt.waiting = Some(Waiting::Sa { id, spi_us: set.spi_us, verified: Box::new(verified) });
    }

    /// The one place where an attempt ends: the command is answered, the outcome counted and reported.
    pub(crate) fn finish(&mut self, attempt: Attempt, result: Result<(), Failure>, ctx: &mut Ctx<'_>) {
        self.timers.clear(&Timer::SaAnswer);
        match &result {
            Ok(()) => {
                self.failed_in_row = 0;
                self.last_failure = None;
                self.count(attempt.procedure.name());
                self.step(ctx.now, || format!("{}: done", attempt.procedure.name()));
            }
            Err(failure) => {
                self.failed_in_row = self.failed_in_row.saturating_add(1);
                self.last_failure = Some(failure.to_string());
                *self.failures.entry(failure.name()).or_default() += 1;
                self.step(ctx.now, || format!("{}: failed: {failure}", attempt.procedure.name()));
                tracing::info!(impu = ?self.identity.impu, cause = failure.name(), "registration attempt failed: {failure}");
                self.after_failure(&attempt, failure, ctx);
            }
        }
        self.report(Report { procedure: attempt.procedure, started: attempt.started, finished: ctx.now, result }, ctx);
    }

    /// Temporary sets go; what still holds is kept, and tried again later (TS 24.229 5.1.1.4, RFC 5626 4.5).
    fn after_failure(&mut self, attempt: &Attempt, failure: &Failure, ctx: &mut Ctx<'_>) {
        let temporary: Vec<u32> =
            self.sets.list.iter().filter(|s| s.state == SetState::Temporary).map(|s| s.set.spi_us).collect();
        for spi_us in temporary {
            self.remove_set(spi_us, ctx);
        }
        let final_word = matches!(failure, Failure::Refused { status: 403 | 404, .. });
        // The P-CSCF is gone, or the registration is: start anew where the handset is one that tries again (5.1.1.4.1).
        let away = failure.is_silence() || matches!(failure, Failure::Refused { status: 408 | 500 | 504, .. });
        let lost = away && self.config.retry.is_some();
        if attempt.procedure == Procedure::Query && !final_word {
            return;
        }
        let told = match failure {
            Failure::Refused { retry_after: Some(s), .. } if self.config.obey_retry_after => {
                Some(Duration::from_secs(u64::from(*s).max(1)).min(RETRY_MAX))
            }
            _ => None,
        };
        if attempt.procedure == Procedure::Deregister || final_word || lost {
            // Whatever the network thinks of it, the handset is off (TS 24.229 5.1.1.6).
            self.forget(ctx);
        }
        if let Some(binding) = &self.binding {
            let left = binding.expires.since(ctx.now);
            if let Some(wait) = told.filter(|wait| *wait < left) {
                self.timers.set(Timer::Refresh, ctx.now + wait);
            } else if left > Duration::from_secs(20) {
                self.timers.set(Timer::Refresh, ctx.now + left / 2);
            }
        } else if let Some(base) =
            self.config.retry.filter(|_| attempt.procedure != Procedure::Deregister && !final_word)
        {
            let most = (base.0 * 2u32.saturating_pow(self.failed_in_row.min(10))).min(RETRY_MAX);
            let half = u64::try_from(most.as_micros() / 2).unwrap_or(u64::MAX).max(1);
            let wait = told.unwrap_or_else(|| Duration::from_micros(half + ctx.rng.below(half)));
            self.timers.set(Timer::Retry, ctx.now + wait);
        }
    }

    /// Not registered any more: no binding, no associations, no timers of theirs.
    pub(crate) fn forget(&mut self, ctx: &mut Ctx<'_>) {
        self.binding = None;
        self.last_auth = None;
        self.drop_calls(ctx);
        self.timers.clear(&Timer::Refresh);
        self.timers.clear(&Timer::Expire);
        self.timers.clear(&Timer::Subscription);
        let lingers = |s: &&crate::sa::LiveSet| s.state == SetState::Retiring && self.watch.is_some();
        let all: Vec<u32> = self.sets.list.iter().filter(|s| !lingers(s)).map(|s| s.set.spi_us).collect();
        for spi_us in all {
            self.remove_set(spi_us, ctx);
        }
    }

    pub(crate) fn remove_set(&mut self, spi_us: u32, ctx: &mut Ctx<'_>) {
        self.timers.clear(&Timer::Retire(spi_us));
        if let Some(set) = self.sets.take(spi_us) {
            let id = self.request_id();
            ctx.act(Action::Sa { id, change: SaChange::Remove { set } });
        }
    }
}

/// TS 24.229 5.1.1.4.1: 600 s before the end when more than 1200 s were granted, else after half of the time.
fn refresh_after(granted: u32) -> Duration {
    let granted = u64::from(granted);
    Duration::from_secs(if granted > 1200 { granted - 600 } else { granted / 2 }.max(1))
}

/// RFC 3261 19.1.4 as far as a Contact of ours needs it: user, host and port.
pub(crate) fn same_contact(a: &str, b: &str) -> bool {
    let (Ok(a), Ok(b)) = (Uri::parse(a), Uri::parse(b)) else {
        return false;
    };
    a.user() == b.user() && a.host().eq_ignore_ascii_case(b.host()) && a.port() == b.port()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refresh_is_due_at_half_or_ten_minutes_before() {
        assert_eq!(refresh_after(600_000), Duration::from_secs(599_400));
        assert_eq!(refresh_after(1201), Duration::from_secs(601));
        assert_eq!(refresh_after(1200), Duration::from_secs(600));
        assert_eq!(refresh_after(60), Duration::from_secs(30));
        assert_eq!(refresh_after(1), Duration::from_secs(1));
    }

    #[test]
    fn a_contact_is_compared_by_user_host_and_port() {
        assert!(same_contact("sip:a@[2001:DB8::1]:5064;transport=udp", "sip:a@[2001:db8::1]:5064"));
        assert!(!same_contact("sip:a@10.0.0.1:5064", "sip:a@10.0.0.1:5066"));
        assert!(!same_contact("sip:b@10.0.0.1:5064", "sip:a@10.0.0.1:5064"));
    }
}
