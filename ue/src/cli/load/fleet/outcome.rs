//! What became of the handsets: each end of a procedure counted, a point of the curve now and then, all of it at the end.

use super::super::curve::{Standing, Usage};
use super::super::stats::Miss;
use super::{Do, Fleet, Handset};
use ims_core::Time;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use ue::{Failure, Procedure, Report};

/// Lost handsets that the summary names.
const NAMED: usize = 20;

impl Fleet<'_> {
    /// Counts the end of a procedure; gives back what the handset does next.
    pub(super) fn on_report(&mut self, index: u32, handset: &mut Handset, report: Report) -> Option<Do> {
        let Report { procedure, started, finished, result } = report;
        if let Err(failure) = &result {
            self.on_failure(index, handset, procedure, failure, finished);
        } else {
            let took = u64::try_from(finished.since(started).as_micros()).unwrap_or(u64::MAX);
            match procedure {
                Procedure::Register => {
                    if handset.is_wrong {
                        self.interval.fail("accepted-though-wrong".into());
                    }
                    self.interval.registrations += 1;
                    self.interval.registering.add(took);
                    match handset.bound_until {
                        Some(until) if until < finished => self.lose(index),
                        Some(_) => self.interval.recovered += 1,
                        None => {}
                    }
                }
                Procedure::Refresh => {
                    self.interval.refreshes += 1;
                    self.interval.refreshing.add(took);
                }
                Procedure::Query => self.interval.queries += 1,
                Procedure::Deregister => self.interval.deregistrations += 1,
            }
            handset.bound_until = handset.node.binding().map(|b| b.expires);
        }
        match procedure {
            Procedure::Deregister if self.plan.in_turn.is_none() => {
                // Whatever the network thinks of it.
                self.go_away(index, handset, finished);
                None
            }
            Procedure::Register if self.options.deregister && result.is_ok() => {
                if self.plan.in_turn.is_some() {
                    return Some(Do::Start(Procedure::Deregister));
                }
                handset.turns_at = Some(finished + self.think());
                None
            }
            _ => None,
        }
    }

    fn on_failure(&mut self, index: u32, handset: &mut Handset, procedure: Procedure, failure: &Failure, now: Time) {
        let miss = match failure {
            Failure::Refused { status, .. } => Miss::Refused(*status),
            failure if failure.is_silence() => Miss::Silence,
            _ => Miss::Wrong,
        };
        if let (true, Miss::Refused(status @ (403 | 404))) = (handset.is_wrong, miss) {
            *self.interval.refused_rightly.entry(status).or_default() += 1;
            return;
        }
        match miss {
            Miss::Refused(status) => self.interval.refuse(status),
            Miss::Silence | Miss::Wrong => self.interval.fail(failure.name()),
        }
        let tolerated = match miss {
            Miss::Refused(503) if self.options.obey_retry_after => true,
            Miss::Refused(408 | 480 | 500..=599) | Miss::Silence => self.options.expect_restart,
            _ => false,
        };
        if tolerated {
            self.interval.tolerated += 1;
        }
        // Registered, as the network has said; and now it says that it is not.
        let denied = matches!(miss, Miss::Refused(403 | 404)) || procedure == Procedure::Query && miss == Miss::Wrong;
        if denied && handset.bound_until.is_some_and(|until| now < until) && procedure != Procedure::Deregister {
            handset.bound_until = None;
            self.lose(index);
        }
    }

    fn lose(&mut self, index: u32) {
        self.interval.lost += 1;
        if self.lost.len() < NAMED {
            self.lost.push(format!("{:0w$}", self.first_imsi + u64::from(index), w = self.config.imsi.len()));
        }
    }

    pub(super) fn point_due(&mut self) {
        let now = self.now();
        if now.since(self.interval_since) >= self.plan.interval {
            self.point(now);
        }
    }

    fn point(&mut self, now: Time) {
        let tally = std::mem::take(&mut self.interval);
        self.curve.point(&Standing {
            at: now.since(self.began_at),
            took: now.since(self.interval_since),
            calls: self.calling.as_ref().map(|c| c.open),
            registered: self.registered,
            busy: self.busy,
            tally: &tally,
        });
        self.interval_since = now;
        self.total.absorb(&tally);
    }

    /// Counts what has not come to an end.
    pub(super) fn close(&mut self) {
        let now = self.now();
        self.close_calls();
        for index in 0..self.plan.handsets {
            let Some(Some(handset)) = self.handsets.get(index as usize) else { continue };
            let (running, wrong) = (handset.node.running(), handset.is_wrong);
            let missing = handset.bound_until.filter(|_| !handset.was_registered);
            if running.is_some() && !wrong {
                self.interval.fail("unfinished".into());
                self.interval.tolerated += u64::from(self.options.expect_restart);
            }
            match missing {
                // The network still knows it, and it would have come back; only when that was waited for, it has not.
                Some(until) if now < until && !self.options.expect_restart => self.interval.interrupted += 1,
                Some(_) => self.lose(index),
                None => {}
            }
        }
        self.point(now);
        if let Some(ipsec) = &mut self.ipsec {
            ipsec.clear();
        }
    }

    pub(in super::super) fn is_good(&self) -> bool {
        self.calls_are_good()
            && self.total.done() > 0
            && self.total.lost == 0
            && self.total.failed_per_cent() <= self.options.max_failed
    }

    pub(in super::super) fn summary(&self) -> Value {
        let mut faults: BTreeMap<&str, u64> = BTreeMap::new();
        for handset in self.handsets.iter().flatten().filter(|h| !h.is_wrong) {
            for (name, times) in handset.node.faults() {
                *faults.entry(name).or_default() += times;
            }
        }
        let whole = self.began.elapsed();
        let offered = if self.plan.in_turn.is_some() { self.last_begun } else { self.plan.seconds.min(whole) };
        let own = Usage::of("self").unwrap_or_default();
        let procedures = (self.total.done() + self.total.all_refused() + self.total.all_failures()).max(1);
        let mut summary = self.total.summary();
        summary["attempts"] = json!(self.total.registrations + self.total.all_refused() + self.total.all_failures());
        summary["handsets"] = json!(self.plan.handsets);
        summary["addresses"] = json!(self.places.addresses());
        summary["connections"] = json!(self.wire.connections());
        summary["registered"] = json!(self.registered);
        summary["rate"] = json!(self.options.rate);
        summary["pcscf"] = json!(self.config.pcscf.to_string());
        summary["faults"] = json!(faults);
        summary["lost_imsis"] = json!(self.lost);
        summary["offered_s"] = json!(offered.as_secs_f64());
        summary["duration_s"] = json!(whole.as_secs_f64());
        let per_s = self.total.registrations as f64 / offered.as_secs_f64().max(1e-9);
        summary["ok_per_s"] = json!(if offered.is_zero() { 0.0 } else { per_s });
        if self.calling.is_some() {
            summary["calls"] = self.calls_summary();
        }
        summary["watched"] = self.curve.summary();
        summary["generator"] = json!({
            "cpu_s": own.cpu_s, "rss_mib": own.rss_mib, "cpu_us_per_procedure": 1e6 * own.cpu_s / procedures as f64,
        });
        summary
    }
}
