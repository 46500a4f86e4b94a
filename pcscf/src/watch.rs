//! The kernel's table and ours, compared: at start, then every `timers.sa_audit`, and when the kernel says that it lacks a set.
//!
//! The same look gives the counters: what rises was heard. A UE that is silent is not a UE that is gone, so silence takes
//! nothing away; only a set that the kernel has no more does, because its UE cannot be reached, nor reach us, but by a new
//! registration.

use crate::agreement::Waiting;
use crate::sa::{HeldSet, SetId, State};
use crate::{Pcscf, Timer};
use ims_core::sa::{SaAudit, SaChange, SaError, SaExpiry, SaSide, SaUsage};
use ims_core::{Action, Ctx, RequestId, Time};
use std::collections::BTreeMap;
use std::time::Duration;
use tracing::{info, warn};

/// An audit reads everything: it may take longer than one change.
const PATIENCE: u32 = 4;
/// A lifetime in the kernel is in whole seconds, and its warning comes 10 s before the end: what is shorter than ours by no
/// more than this is right.
const SLACK: Duration = Duration::from_secs(15);

/// One set, put together from what the kernel says of its four associations.
#[derive(Default)]
struct Seen {
    legs: u8,
    inward: Counters,
    outward: Counters,
    last_use: Option<Time>,
    /// The first of the four to end.
    expires: Option<Time>,
}

/// What has passed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) bytes: u64,
    pub(crate) packets: u64,
}

/// What is known about the use of a set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Usage {
    /// When something came from the UE, as far as we know; after a restart we do not, until something does.
    pub(crate) heard: Option<Time>,
    /// As the last audit found them.
    pub(crate) counted: Option<(Counters, Counters)>,
}

impl Seen {
    fn add(&mut self, held: &HeldSet, usage: &SaUsage) {
        let set = &held.set;
        let inward = usage.dst == set.pcscf && (usage.spi == set.spi_ps || usage.spi == set.spi_pc);
        let sum = if inward { &mut self.inward } else { &mut self.outward };
        sum.bytes += usage.bytes;
        sum.packets += usage.packets;
        self.legs += 1;
        self.expires = Some(self.expires.map_or(usage.expires, |e| e.min(usage.expires)));
        if inward {
            self.last_use = self.last_use.max(usage.last_use);
        }
    }
}

impl Usage {
    fn note(&mut self, seen: &Seen, now: Time) {
        let more = self.counted.is_some_and(|(inward, _)| seen.inward.packets > inward.packets);
        let heard = seen.last_use.or(more.then_some(now));
        self.heard = self.heard.max(heard);
        self.counted = Some((seen.inward, seen.outward));
    }
}

impl Pcscf {
    /// From the first set on, until there is none; soon, while the kernel may have other lifetimes than we, or sets of an
    /// earlier run that are not adopted.
    pub(crate) fn audit_later(&mut self, now: Time) {
        let timers = &self.config.timers;
        let is_settled = self.adopted && !self.unsettled;
        let pause = if is_settled { timers.sa_audit.0 } else { timers.kernel_answer.0.min(timers.sa_audit.0) };
        if self.sets.len() > 0 {
            self.timers.set(Timer::Audit, now + pause);
        }
    }

    pub(crate) fn audit(&mut self, ctx: &mut Ctx<'_>) {
        self.timers.clear(&Timer::Audit);
        if self.auditing.is_some() || !self.config.security.protects_anybody() {
            return;
        }
        let adopt = match self.adopted {
            true => Vec::new(),
            false => self.sets.all().map(|(_, held)| held.set).collect(),
        };
        let id = self.next_request_id();
        self.auditing = Some(id);
        self.waiting.insert(id, Waiting::Audit);
        self.timers.set(Timer::Waiting(id), ctx.now + self.config.timers.kernel_answer.0 * PATIENCE);
        ctx.act(Action::SaAudit { id, side: SaSide::Pcscf, adopt });
    }

    pub(crate) fn on_audited(&mut self, id: RequestId, result: Result<SaAudit, SaError>, ctx: &mut Ctx<'_>) {
        if self.waiting.remove(&id).is_none() {
            return;
        }
        self.timers.clear(&Timer::Waiting(id));
        self.auditing = None;
        match result {
            Ok(audit) => self.compare(&audit, ctx),
            // Without ESP there is no association.
            Err(SaError::NoEsp) => self.compare(&SaAudit::default(), ctx),
            Err(error) => {
                self.count("sa-audit-failed");
                self.unsettled = true;
                warn!("what the kernel has of our SAs cannot be read, it is tried again: {error}");
            }
        }
        self.audit_later(ctx.now);
    }

    fn compare(&mut self, audit: &SaAudit, ctx: &mut Ctx<'_>) {
        self.adopted = true;
        self.unsettled = false;
        if audit.strays > 0 {
            self.count_many("sa-stray-removed", audit.strays);
            info!(strays = audit.strays, "IPsec state of ours that belongs to nobody any more was removed");
        }
        if audit.repaired > 0 {
            self.count_many("sa-policy-repaired", audit.repaired);
            warn!(repaired = audit.repaired, "IPsec policies of ours were missing and stand again: who removes them?");
        }
        let mut seen: BTreeMap<SetId, Seen> = BTreeMap::new();
        for usage in &audit.sas {
            let id = self.sets.by_spi(usage.dst, usage.spi);
            if let Some((id, held)) = id.and_then(|id| Some((id, self.sets.by_id(id)?))) {
                seen.entry(id).or_default().add(held, usage);
            }
        }
        let (mut lost, mut short) = (Vec::new(), Vec::new());
        for (id, held) in self.sets.all_mut() {
            match seen.get(&id).filter(|seen| seen.legs == 4) {
                Some(seen) => {
                    held.usage.note(seen, ctx.now);
                    let ends_early = seen.expires.is_some_and(|e| e + SLACK < held.until);
                    if held.state == State::Active && ends_early {
                        short.push(id);
                    }
                }
                // What is being installed is answered for by itself.
                None if held.state == State::Installing => {}
                None => lost.push(id),
            }
        }
        self.on_lost(lost, ctx);
        for id in short {
            self.count("sa-extended-again");
            self.extend(id, ctx);
        }
    }

    /// Sets that the kernel has no more, or not wholly.
    fn on_lost(&mut self, lost: Vec<SetId>, ctx: &mut Ctx<'_>) {
        if lost.is_empty() {
            return;
        }
        let before = self.contacts.registered();
        self.count_many("sa-set-lost", lost.len());
        let sets = lost.len();
        for id in lost {
            self.remove_set(id, ctx);
        }
        let registrations = before - self.contacts.registered();
        self.count_many("registration-without-sa", registrations);
        warn!(
            sets,
            registrations,
            "the kernel has lost SA sets (a reboot, or somebody flushed them): these handsets have to register again"
        );
    }

    /// A set reaches its lifetime in the kernel. The warning comes for each of the four: one is enough.
    pub(crate) fn on_sa_expired(&mut self, expiry: SaExpiry, ctx: &mut Ctx<'_>) {
        let Some(id) = self.sets.by_spi(expiry.dst, expiry.spi) else { return };
        let Some(held) = self.sets.by_id(id) else { return };
        let lives_on = held.state == State::Active && held.until > ctx.now + SLACK;
        match (expiry.hard, lives_on) {
            (false, true) if expiry.spi == held.set.spi_ps => {
                self.count("sa-extended-again");
                self.extend(id, ctx);
            }
            (false, _) => {}
            (true, true) => {
                warn!(impi = ?held.impi, "the kernel ended an SA set before its registration: the handset has to register again");
                self.count("sa-expired-early");
                self.remove_set(id, ctx);
            }
            (true, false) => self.remove_set(id, ctx),
        }
    }

    /// The kernel's lifetime of a set follows ours.
    pub(crate) fn extend(&mut self, id: SetId, ctx: &mut Ctx<'_>) {
        if let Some(held) = self.sets.by_id(id) {
            let change = SaChange::Extend { set: held.set, expires: held.until };
            self.ask_kernel(Waiting::Extend { set: id }, change, ctx);
        }
    }
}
