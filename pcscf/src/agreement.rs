//! The life of SA sets, with the kernel asked first: proposed with a challenge, confirmed by a registration, retired
//! 64*T1 after the last that needs them (TS 33.203 7.2, 7.4).

use crate::config::Policy;
use crate::contacts::{Access, RegId, Registration};
use crate::register::Forwarded;
use crate::sa::{HeldSet, SetId, State};
use crate::sec_agree::{Offer, security_server};
use crate::watch::Usage;
use crate::{Pcscf, Refusal, Timer};
use ims_core::sa::{SaChange, SaError, SaKeys, SaSide};
use ims_core::{Action, Ctx, FewSet, Impi, RequestId, Time};
use ims_sip::{Message, Name};
use serde_json::{Value, json};
use std::net::IpAddr;
use tracing::{info, warn};

/// How often a taken SPI is replaced by another before the kernel is believed.
const MOST_TRIES: u32 = 4;

/// What the kernel was asked, and what goes on when it answers.
#[derive(Debug)]
pub(crate) enum Waiting {
    Install {
        set: SetId,
        challenge: Box<Challenge>,
    },
    Extend {
        set: SetId,
    },
    Remove,
    /// What it has.
    Audit,
}

/// A 401 that leaves when its SA set is installed. The response has no keys in it any more.
#[derive(Debug)]
pub(crate) struct Challenge {
    forwarded: Forwarded,
    response: Message,
    keys: SaKeys,
    nonce: String,
    /// What may still be tried, best first.
    offers: Vec<Offer>,
    tries: u32,
}

impl Waiting {
    /// The label under which what the kernel said is counted.
    fn operation(&self) -> &'static str {
        match self {
            Self::Install { .. } => "install",
            Self::Extend { .. } => "extend",
            Self::Remove => "remove",
            Self::Audit => "audit",
        }
    }

    pub(crate) fn describe(&self) -> Value {
        match self {
            Self::Install { set, challenge } => json!({"install": set.0, "tries": challenge.tries}),
            Self::Extend { set } => json!({"extend": set.0}),
            Self::Remove => json!("remove"),
            Self::Audit => json!("audit"),
        }
    }
}

impl Pcscf {
    /// 401 of the S-CSCF (TS 24.229 5.2.2.1, 5.2.2.2). Without an offer of the UE it leaves as it is, over the set
    /// that the REGISTER came by, if there is one.
    pub(crate) fn on_challenge(
        &mut self,
        forwarded: Forwarded,
        response: Message,
        keys: Option<SaKeys>,
        nonce: String,
        ctx: &mut Ctx<'_>,
    ) -> Result<(), Refusal> {
        let offers = forwarded.proposal.usable.clone();
        match keys {
            _ if offers.is_empty() => {}
            Some(keys) => {
                let challenge = Challenge { forwarded, response, keys, nonce, offers, tries: 0 };
                return self.propose(Box::new(challenge), ctx);
            }
            None if self.config.security.policy_for(&forwarded.claim.impi) == Policy::Require => {
                return Err(Refusal::NoKeys);
            }
            None => {}
        }
        self.measured.challenged(&forwarded.claim.impi, forwarded.since, ctx.now);
        self.sip.respond(forwarded.from.tx, response, ctx);
        Ok(())
    }

    /// Asks the kernel for a set. A newer proposal takes the place of those before it in the same registration, and
    /// whatever stands in its way goes first: the UE has these addresses now.
    fn propose(&mut self, mut challenge: Box<Challenge>, ctx: &mut Ctx<'_>) -> Result<(), Refusal> {
        challenge.tries += 1;
        let from = challenge.forwarded.from;
        let offer = *challenge.offers.first().ok_or(Refusal::NoKeys)?;
        if from.set.is_some_and(|id| self.sets.by_id(id).is_none()) {
            return Err(Refusal::Superseded);
        }
        let registration = self.pending_registration(&challenge.forwarded);
        self.withdraw_proposals(registration, from.set, ctx);
        let (ue, pcscf) = (from.flow.remote.ip(), from.flow.local.ip());
        let set = self.sets.allocate(&offer, ue, pcscf, &self.ports, ctx.rng);
        let Some(set) = set else {
            self.forget_if_empty(registration);
            return Err(Refusal::NoFreePort);
        };
        let in_the_way = self.sets.in_the_way(&set);
        if in_the_way.iter().any(|id| self.is_in_use_by(*id, registration, from.set)) {
            return self.challenge_without_new_set(*challenge, ctx);
        }
        let impi = challenge.forwarded.claim.impi.clone();
        for id in in_the_way {
            self.remove_set_of_others(id, registration, ctx);
        }
        while self.sets.is_full(&impi) {
            let Some(id) = self.sets.surplus(&impi, from.set) else {
                self.forget_if_empty(registration);
                return Err(Refusal::TooManySets);
            };
            self.remove_set_of_others(id, registration, ctx);
        }
        let client = challenge.forwarded.proposal.client.clone();
        let nonce = challenge.nonce.clone();
        let until = ctx.now + self.config.timers.await_auth.0;
        let usage = Usage::default();
        let held = HeldSet { set, registration, impi, state: State::Installing, until, client, nonce, usage };
        let id = self.sets.insert(held);
        if self.sets.len() == 1 {
            self.audit_later(ctx.now);
        }
        if let Some(Access::Protected { sets, .. }) = self.contacts.by_id_mut(registration).map(|r| &mut r.access) {
            sets.insert(id);
        }
        let change = SaChange::Install { set, keys: challenge.keys.clone(), side: SaSide::Pcscf, expires: until };
        self.ask_kernel(Waiting::Install { set: id, challenge }, change, ctx);
        Ok(())
    }

    /// Whether the UE that came over a set has this one in use: its challenge, or the next request, has to pass there.
    fn is_in_use_by(&self, id: SetId, registration: RegId, came_by: Option<SetId>) -> bool {
        let active = |held: &HeldSet| held.registration == registration && held.state == State::Active;
        came_by.is_some() && (came_by == Some(id) || self.sets.by_id(id).is_some_and(active))
    }

    /// A UE offers for its next set the client port or SPIs of the one that it has in use: no second set can stand beside
    /// that (TS 33.203 7.1). It is challenged over the set that it has. One that goes on there stays attached; one that
    /// wants Security-Server begins again at once (TS 24.229 5.1.1.5.1); neither loses what it has.
    fn challenge_without_new_set(&mut self, challenge: Challenge, ctx: &mut Ctx<'_>) -> Result<(), Refusal> {
        let Forwarded { from, claim, .. } = challenge.forwarded;
        self.count("ports-in-use");
        if self.told.lets(ctx.now) {
            info!(impi = ?claim.impi, "the UE offers the client port or SPIs that it uses now: its SA set stays as it is");
        }
        self.sip.respond(from.tx, challenge.response, ctx);
        Ok(())
    }

    /// The registration of a challenge: that of the set it came by, the attempt that it repeats, or a new one.
    fn pending_registration(&mut self, forwarded: &Forwarded) -> RegId {
        let flow = forwarded.from.flow;
        let protected = |id: &RegId| self.contacts.by_id(*id).is_some_and(Registration::is_protected);
        let pending = |r: &Registration| r.is_protected() && !r.is_registered() && r.ue == flow.remote.ip();
        // Of two attempts that cross, the other one may have come first.
        let other = || self.contacts.of_impi(&forwarded.claim.impi).find(|(_, r)| pending(r)).map(|(id, _)| id);
        if let Some(id) = forwarded.registration.filter(protected).or_else(other) {
            return id;
        }
        // A UE that was registered without IPsec and offers it now gets a Path of its own.
        let access = Access::Protected { sets: FewSet::default(), transport: flow.transport, conn: None };
        let (impi, token) = (forwarded.claim.impi.clone(), forwarded.token.clone());
        self.contacts.insert(Registration::attempt(impi, token, flow.remote.ip(), access))
    }

    /// Proposals before this one. What the UE has used may still carry the very challenge that replaces it.
    fn withdraw_proposals(&mut self, registration: RegId, came_by: Option<SetId>, ctx: &mut Ctx<'_>) {
        let ids: Vec<SetId> = self.contacts.by_id(registration).into_iter().flat_map(|r| r.sets()).collect();
        for id in ids {
            match self.sets.by_id(id).map(|held| held.state) {
                Some(State::Proposed { used: true }) => self.retire(id, ctx.now),
                Some(State::Proposed { used: false } | State::Installing) if Some(id) != came_by => {
                    self.remove_set_of_others(id, registration, ctx);
                }
                _ => {}
            }
        }
    }

    pub(crate) fn next_request_id(&mut self) -> RequestId {
        self.next_request += 1;
        RequestId(self.next_request)
    }

    pub(crate) fn ask_kernel(&mut self, waiting: Waiting, change: SaChange, ctx: &mut Ctx<'_>) {
        let id = self.next_request_id();
        self.waiting.insert(id, waiting);
        self.timers.set(Timer::Waiting(id), ctx.now + self.config.timers.kernel_answer.0);
        ctx.act(Action::Sa { id, change });
    }

    pub(crate) fn on_sa(&mut self, id: RequestId, result: Result<(), SaError>, ctx: &mut Ctx<'_>) {
        let Some(waiting) = self.waiting.remove(&id) else {
            return;
        };
        self.timers.clear(&Timer::Waiting(id));
        self.measured.kernel(waiting.operation(), &result);
        match (waiting, result) {
            (Waiting::Install { set, challenge }, Ok(())) => self.on_installed(set, *challenge, ctx),
            (Waiting::Install { set, challenge }, Err(e)) => self.on_not_installed(set, challenge, e, ctx),
            (Waiting::Extend { .. } | Waiting::Remove, Ok(())) | (Waiting::Audit, _) => {}
            (Waiting::Extend { set }, Err(e)) => {
                self.count("extend-failed");
                warn!(set = set.0, "the lifetime of an SA set was not extended, it is tried again: {e}");
                self.unsettled = true;
                self.audit_later(ctx.now);
                if e == SaError::NotFound {
                    // What an earlier run put in is found only once it is adopted.
                    if self.adopted {
                        self.count("sa-set-lost");
                        self.remove_set(set, ctx);
                    }
                    // One is missing: what else?
                    self.audit(ctx);
                }
            }
            (Waiting::Remove, Err(e)) => {
                self.count("remove-failed");
                warn!("an SA set was not removed, it will go at the end of its lifetime: {e}");
            }
        }
    }

    /// Now, and not before, the challenge leaves: in clear for a first one, inside the old set at re-authentication.
    fn on_installed(&mut self, set: SetId, challenge: Challenge, ctx: &mut Ctx<'_>) {
        self.told_no_esp = false;
        let Challenge { forwarded, mut response, .. } = challenge;
        let until = ctx.now + self.config.timers.await_auth.0;
        let Some(held) = self.sets.by_id_mut(set) else {
            return self.refuse(forwarded.from, &forwarded.request, &Refusal::Superseded, ctx);
        };
        held.state = State::Proposed { used: false };
        held.until = until;
        response.push_back(Name::SecurityServer, security_server(&held.set, self.config.security.q));
        self.timers.set(Timer::Set(set), until);
        self.measured.challenged(&forwarded.claim.impi, forwarded.since, ctx.now);
        self.sip.respond(forwarded.from.tx, response, ctx);
    }

    fn on_not_installed(&mut self, set: SetId, mut challenge: Box<Challenge>, error: SaError, ctx: &mut Ctx<'_>) {
        let known = self.sets.by_id(set).map(|held| (held.set, held.registration));
        let Some((wanted, registration)) = known else {
            let Forwarded { from, request, .. } = challenge.forwarded;
            return self.refuse(from, &request, &Refusal::Superseded, ctx);
        };
        self.take_out(set);
        let ours = |spi| spi == wanted.spi_pc || spi == wanted.spi_ps;
        let again = match error {
            SaError::SpiTaken(spi) => ours(spi) && challenge.tries < MOST_TRIES,
            SaError::NoAlgorithm(name) => {
                self.count("kernel-no-algorithm");
                warn!(suite = ?wanted.suite, "the kernel lacks {name}: trying the next suite of security.preference");
                challenge.offers.remove(0);
                challenge.tries = 0;
                !challenge.offers.is_empty()
            }
            _ => false,
        };
        let (from, request) = (challenge.forwarded.from, challenge.forwarded.request.clone());
        if again {
            let result = self.propose(challenge, ctx);
            if let Err(refusal) = result {
                self.refuse(from, &request, &refusal, ctx);
            }
            return;
        }
        self.forget_if_empty(registration);
        let policy = self.config.security.policy_for(&challenge.forwarded.claim.impi);
        let no_esp = matches!(error, SaError::NoEsp | SaError::NotPermitted);
        if no_esp && !self.told_no_esp {
            self.told_no_esp = true; // once is enough, until the kernel says yes again
            let fate = if policy == Policy::Require { "refused" } else { "not protected" };
            warn!("UEs are {fate}: {error}");
        }
        match no_esp && policy == Policy::Allow {
            true => {
                self.count("registered-without-esp");
                let forwarded = &challenge.forwarded;
                self.measured.challenged(&forwarded.claim.impi, forwarded.since, ctx.now);
                self.sip.respond(from.tx, challenge.response, ctx);
            }
            false => self.refuse(from, &request, &Refusal::Kernel(error), ctx),
        }
    }

    /// A registration was accepted over this set: it lives as long as that and a margin, and those before it only
    /// carry what is under way (TS 33.203 7.4, TS 24.229 5.2.2.2: never shorter than what was granted before).
    pub(crate) fn confirm(&mut self, set: SetId, lifetime: Time, ctx: &mut Ctx<'_>) {
        let Some(held) = self.sets.by_id(set) else { return };
        let siblings: Vec<SetId> =
            self.contacts.by_id(held.registration).into_iter().flat_map(|r| r.sets()).filter(|id| *id != set).collect();
        let state_of = |id: &SetId| self.sets.by_id(*id).map(|h| (h.state, h.until));
        let active_until =
            siblings.iter().filter_map(state_of).filter(|(s, _)| *s == State::Active).map(|(_, t)| t).max();
        let until = match held.state {
            // A refresh over the old set while the newer one is in use: the old one goes all the same, and the newer one
            // lives as long as what was granted.
            State::Retiring if active_until.is_some() => {
                let lives = |id: &SetId| state_of(id).is_some_and(|(s, until)| s == State::Active && until < lifetime);
                let newer = siblings.iter().copied().find(lives);
                return newer.into_iter().for_each(|id| self.live_until(id, lifetime, ctx));
            }
            State::Active => lifetime.max(held.until),
            State::Retiring => lifetime,
            State::Proposed { .. } | State::Installing => lifetime.max(active_until.unwrap_or(lifetime)),
        };
        if let Some(held) = self.sets.by_id_mut(set) {
            held.state = State::Active;
            held.until = until;
            self.live_until(set, until, ctx);
        }
        for older in siblings.into_iter().filter(|id| *id < set) {
            self.retire(older, ctx.now);
        }
    }

    /// A set in use lives at least so long, here and in the kernel.
    fn live_until(&mut self, set: SetId, until: Time, ctx: &mut Ctx<'_>) {
        if let Some(held) = self.sets.by_id_mut(set) {
            held.until = held.until.max(until);
            self.timers.set(Timer::Set(set), held.until);
            self.extend(set, ctx);
        }
    }

    /// Keeps a set as long as answers may be under way, 64*T1, and then removes it.
    pub(crate) fn retire(&mut self, set: SetId, now: Time) {
        let until = now + self.config.timers.sa_linger.0;
        let Some(held) = self.sets.by_id_mut(set) else { return };
        if held.state != State::Retiring {
            held.state = State::Retiring;
            held.until = held.until.min(until);
            self.timers.set(Timer::Set(set), held.until);
        }
    }

    /// This registration takes the place of earlier ones of the same UE: the S-CSCF has dropped their contacts, all but
    /// those `still_bound`.
    pub(crate) fn supersede(
        &mut self,
        by: RegId,
        impi: &Impi,
        ue: IpAddr,
        still_bound: impl Fn(&str) -> bool,
        ctx: &mut Ctx<'_>,
    ) {
        // An emergency registration stands beside the ordinary one (TS 24.229 5.4.8).
        let is_for_emergencies = self.contacts.by_id(by).is_some_and(Registration::is_for_emergencies);
        let gives_way = |(id, r): &(RegId, &Registration)| {
            *id != by
                && r.is_registered()
                && r.is_for_emergencies() == is_for_emergencies
                && r.gives_way_to(ue, &still_bound)
        };
        let old: Vec<RegId> = self.contacts.of_impi(impi).filter(gives_way).map(|(id, _)| id).collect();
        for id in old {
            info!(impi = ?impi, "an earlier registration of this UE gives way");
            // Still the same UE: it may have lost its SAs in the middle of a call, and not the call.
            if let Some(token) = self.contacts.by_id(id).filter(|r| r.ue == ue).map(|r| r.token.clone()) {
                self.dialogs.inherit(id, &token, by);
            }
            if let Some(registration) = self.contacts.by_id_mut(id) {
                registration.bindings.clear();
            }
            self.wind_up(id, ctx);
        }
    }

    /// After a binding went: without any left, the sets of the registration retire; without sets, it is over.
    pub(crate) fn wind_up(&mut self, id: RegId, ctx: &mut Ctx<'_>) {
        let Some(registration) = self.contacts.by_id(id) else {
            return;
        };
        if let Some(next) = registration.bindings.values().map(|b| b.expires).min() {
            return self.timers.set(Timer::Registration(id), next);
        }
        self.timers.clear(&Timer::Registration(id));
        let sets: Vec<SetId> = registration.sets().collect();
        self.contacts.end(id);
        if sets.is_empty() {
            self.contacts.remove(id);
        }
        for set in sets {
            self.retire(set, ctx.now);
        }
    }

    /// Takes the whole registration away, at once.
    pub(crate) fn forget(&mut self, id: RegId, ctx: &mut Ctx<'_>) {
        let sets: Vec<SetId> = self.contacts.by_id(id).into_iter().flat_map(|r| r.sets()).collect();
        for set in sets {
            self.remove_set(set, ctx);
        }
        self.timers.clear(&Timer::Registration(id));
        self.contacts.remove(id);
    }

    /// Whatever is due.
    pub(crate) fn expire(&mut self, ctx: &mut Ctx<'_>) {
        while let Some(timer) = self.timers.pop(ctx.now) {
            match timer {
                Timer::Set(set) => self.remove_set(set, ctx),
                Timer::Registration(id) => self.expire_bindings(id, ctx),
                Timer::Waiting(id) => self.on_kernel_silent(id, ctx),
                Timer::Subscription(id) => self.on_subscription_due(id, ctx),
                Timer::Session(leg) => self.on_session_expired(leg),
                Timer::Audit => {
                    if self.sets.len() > 0 {
                        self.audit(ctx);
                    }
                }
            }
        }
    }

    fn expire_bindings(&mut self, id: RegId, ctx: &mut Ctx<'_>) {
        let Some(registration) = self.contacts.by_id_mut(id) else {
            return;
        };
        registration.bindings.retain(|_, b| b.expires > ctx.now);
        if let Some(next) = registration.bindings.values().map(|b| b.expires).min() {
            return self.timers.set(Timer::Registration(id), next);
        }
        info!(impi = ?registration.impi, "registration expired");
        self.measured.outcomes.count("expired");
        let (is_protected, sets) = (registration.is_protected(), registration.sets().collect::<Vec<SetId>>());
        self.contacts.end(id);
        if !is_protected {
            self.contacts.remove(id);
            return;
        }
        // The sets may have been granted more by an earlier registration; nothing but the margin is needed now.
        let until = ctx.now + self.config.timers.sa_margin.0;
        for set in sets {
            if let Some(held) = self.sets.by_id_mut(set).filter(|h| h.state == State::Active) {
                held.until = held.until.min(until);
                self.timers.set(Timer::Set(set), held.until);
            }
        }
    }

    fn on_kernel_silent(&mut self, id: RequestId, ctx: &mut Ctx<'_>) {
        let waiting = self.waiting.remove(&id);
        waiting.iter().for_each(|w| self.measured.kernel_said(w.operation(), "silent"));
        match waiting {
            Some(Waiting::Install { set, challenge }) => {
                // It may still do what it was asked, some day.
                self.remove_set(set, ctx);
                let Forwarded { from, request, .. } = challenge.forwarded;
                self.refuse(from, &request, &Refusal::KernelSilent, ctx);
            }
            Some(Waiting::Extend { .. } | Waiting::Remove) => self.count("kernel-silent"),
            Some(Waiting::Audit) => {
                self.count("kernel-silent");
                self.auditing = None;
                self.audit_later(ctx.now);
            }
            None => {}
        }
    }

    /// Removes a set here and in the kernel; the registration goes with its last set.
    pub(crate) fn remove_set(&mut self, id: SetId, ctx: &mut Ctx<'_>) {
        let Some(registration) = self.remove_from_kernel(id, ctx) else {
            return;
        };
        self.forget_if_empty(registration);
    }

    /// The same, while `kept` is about to get another set.
    fn remove_set_of_others(&mut self, id: SetId, kept: RegId, ctx: &mut Ctx<'_>) {
        if let Some(registration) = self.remove_from_kernel(id, ctx).filter(|r| *r != kept) {
            self.forget_if_empty(registration);
        }
    }

    fn remove_from_kernel(&mut self, id: SetId, ctx: &mut Ctx<'_>) -> Option<RegId> {
        let held = self.take_out(id)?;
        self.ask_kernel(Waiting::Remove, SaChange::Remove { set: held.set }, ctx);
        Some(held.registration)
    }

    fn take_out(&mut self, id: SetId) -> Option<HeldSet> {
        let held = self.sets.remove(id)?;
        self.timers.clear(&Timer::Set(id));
        self.contacts.drop_set(held.registration, id, held.state == State::Retiring);
        Some(held)
    }

    /// A protected registration without any set cannot be reached: its UE will come back with a new REGISTER.
    fn forget_if_empty(&mut self, id: RegId) {
        let empty = |r: &Registration| matches!(&r.access, Access::Protected { sets, .. } if sets.is_empty());
        if self.contacts.by_id(id).is_some_and(empty) {
            self.timers.clear(&Timer::Registration(id));
            self.contacts.remove(id);
        }
    }
}
