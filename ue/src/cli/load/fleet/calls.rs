//! Calls between the handsets of a fleet: the first of each pair calls the second, one call a pair at a time.

use super::super::curve::Usage;
use super::super::stats::Histogram;
use super::{Do, Fleet, Handset, Phase};
use ims_core::Time;
use ims_core::config::Span;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use ue::call::script::{Act, Step};
use ue::{CallReport, Outcome, Script, Side};

/// At the end of a run, calls may end by themselves for so long; those that are left are hung up then.
const GRACE: Duration = Duration::from_secs(5);
/// A drawn holding time is at most so many times the mean.
const LONGEST: f64 = 6.0;

/// How calls are made.
pub(in super::super) struct CallPlan {
    pub(in super::super) rate: f64,
    pub(in super::super) hold: Duration,
    /// Each call is held so long, not so long on the average.
    pub(in super::super) fixed: bool,
    pub(in super::super) script: Script,
}

/// What became of calls.
#[derive(Clone, Default)]
pub(in super::super) struct CallTally {
    pub(in super::super) answered: u64,
    /// Answered, and ended by its caller as it should be.
    pub(in super::super) completed: u64,
    /// Ended before they were answered, for the run was over.
    cut_short: u64,
    pub(in super::super) failed: BTreeMap<String, u64>,
    /// INVITE to the first 18x, and to the 200.
    pub(in super::super) ringing: Histogram,
    pub(in super::super) setting_up: Histogram,
}

impl CallTally {
    pub(in super::super) fn all_failed(&self) -> u64 {
        self.failed.values().sum()
    }

    pub(in super::super) fn absorb(&mut self, other: &Self) {
        self.answered += other.answered;
        self.completed += other.completed;
        self.cut_short += other.cut_short;
        for (cause, times) in &other.failed {
            *self.failed.entry(cause.clone()).or_default() += times;
        }
        self.ringing.absorb(&other.ringing);
        self.setting_up.absorb(&other.setting_up);
    }

    fn failed_per_cent(&self) -> f64 {
        let all = self.completed + self.all_failed();
        if all == 0 { 0.0 } else { 100.0 * self.all_failed() as f64 / all as f64 }
    }
}

/// Where the calls of a run stand.
pub(super) struct Calling {
    plan: CallPlan,
    /// Callers whose pair has no call.
    free: VecDeque<u32>,
    begun: u64,
    hung_up: u64,
    pub(super) open: u32,
    pub(super) most_open: u32,
    /// When all had attached, and when the last call was over.
    since: Option<Time>,
    until: Option<Time>,
    /// CPU seconds of what is watched when calls began.
    before: Vec<(String, Option<Usage>)>,
    used: Vec<(String, Option<f64>)>,
}

impl Calling {
    pub(super) fn new(plan: CallPlan, handsets: u32) -> Self {
        Self {
            plan,
            free: (0..handsets / 2).map(|pair| pair * 2).collect(),
            begun: 0,
            hung_up: 0,
            open: 0,
            most_open: 0,
            since: None,
            until: None,
            before: Vec::new(),
            used: Vec::new(),
        }
    }

    pub(super) fn script(&self) -> &Script {
        &self.plan.script
    }

    fn grace(&self) -> Duration {
        (self.plan.hold + Duration::from_secs(1)).min(GRACE)
    }

    /// How long it takes to end what is in progress: at twice the rate at which it began.
    pub(super) fn ending(&self) -> Duration {
        self.grace() + self.plan.hold / 2
    }

    pub(super) fn rate(&self) -> f64 {
        self.plan.rate
    }
}

impl Fleet<'_> {
    /// How long calls have been made; None as long as handsets attach.
    pub(super) fn called_for(&self) -> Option<Duration> {
        let since = self.calling.as_ref()?.since?;
        Some(self.now().since(since))
    }

    /// Begins the calls that are due, or ends those that are left.
    pub(super) fn call_due(&mut self) {
        let now = self.now();
        let attached = self.begun == u64::from(self.plan.handsets) && self.busy == 0;
        let Some(calling) = &mut self.calling else { return };
        match self.phase {
            Phase::Load => {
                if calling.since.is_none() && attached {
                    calling.since = Some(now);
                    calling.before = self.curve.usage();
                    if !self.options.quiet {
                        eprintln!("{} registered; calls begin", self.registered);
                    }
                }
                let Some(since) = calling.since else { return };
                let due = (now.since(since).as_secs_f64() * calling.plan.rate) as u64 + 1;
                while self.calling.as_ref().is_some_and(|c| c.begun < due) {
                    self.begin_call();
                }
            }
            Phase::Drain => {
                // Long calls are not waited for; nor do all end at once.
                let past = now.since(self.phase_since).saturating_sub(calling.grace());
                let due = (past.as_secs_f64() * calling.plan.rate * 2.0) as u64;
                while self.calling.as_ref().is_some_and(|c| c.hung_up < due) {
                    let Some(index) = self.next_to_hang_up() else { return };
                    let Some(mut handset) = self.take(index) else { continue };
                    self.act(index, &mut handset, Do::HangUp);
                    self.put(index, handset);
                }
            }
            _ => {}
        }
    }

    fn begin_call(&mut self) {
        let Some(calling) = &mut self.calling else { return };
        calling.begun += 1;
        let Some(caller) = calling.free.pop_front() else {
            return self.interval.calls.fail("no-free-pair");
        };
        let hold = calling.plan.hold.as_secs_f64();
        let (fixed, mut script) = (calling.plan.fixed, calling.plan.script.clone());
        // Exponentially distributed: calls end as they begin, each by itself.
        let uniform = (self.rng.u64() >> 11) as f64 / (1u64 << 53) as f64;
        let hold = if fixed { hold } else { (hold * -(1.0 - uniform).ln()).min(hold * LONGEST) };
        script.calling.steps.push(Step { after: Span(Duration::from_secs_f64(hold)), act: Act::Hangup });
        let callee = self.identity_of(caller + 1);
        let Some(mut handset) = self.take(caller) else { return };
        match callee {
            Some(to) => self.act(caller, &mut handset, Do::Call(to, Box::new(script))),
            None => self.give_back(caller, "not-registered"),
        }
        self.put(caller, handset);
    }

    /// Who a handset is to others: its default public identity.
    fn identity_of(&self, index: u32) -> Option<String> {
        let handset = self.handsets.get(index as usize)?.as_ref()?;
        handset.node.binding()?.associated.first().cloned()
    }

    pub(super) fn on_call_begun(&mut self, caller: u32, begun: Result<u32, &'static str>) {
        let Some(calling) = &mut self.calling else { return };
        match begun {
            Ok(_) => {
                calling.open += 1;
                calling.most_open = calling.most_open.max(calling.open);
            }
            Err(_) => self.give_back(caller, "not-registered"),
        }
    }

    fn give_back(&mut self, caller: u32, why: &str) {
        self.interval.calls.fail(why);
        if let Some(calling) = &mut self.calling {
            calling.free.push_back(caller);
        }
    }

    fn next_to_hang_up(&mut self) -> Option<u32> {
        let calling = self.calling.as_mut().filter(|c| c.open > 0)?;
        let pairs = u64::from(self.plan.handsets / 2);
        while calling.hung_up < pairs {
            let index = u32::try_from(calling.hung_up * 2).unwrap_or(u32::MAX);
            calling.hung_up += 1;
            if matches!(self.handsets.get(index as usize), Some(Some(handset)) if handset.node.calls() > 0) {
                return Some(index);
            }
        }
        None
    }

    pub(super) fn on_call_report(&mut self, index: u32, handset: &Handset, report: &CallReport) {
        let micros = |from: Time, to: Time| u64::try_from(to.since(from).as_micros()).unwrap_or(u64::MAX);
        let tally = &mut self.interval.calls;
        if report.side == Side::Called {
            // What the caller hears of is counted there.
            if report.answered.is_some() && report.outcome != Outcome::HungUpByPeer {
                tally.fail(&format!("called-side-{}", report.outcome.name()));
            }
            return;
        }
        if let Some(rang) = report.rang {
            tally.ringing.add(micros(report.began, rang));
        }
        if let Some(answered) = report.answered {
            tally.answered += 1;
            tally.setting_up.add(micros(report.began, answered));
        }
        match (&report.outcome, report.answered) {
            (Outcome::HungUp, Some(_)) => tally.completed += 1,
            (Outcome::Cancelled, _) if self.phase != Phase::Load => tally.cut_short += 1,
            (outcome, _) => tally.fail(&outcome.name()),
        }
        let Some(calling) = &mut self.calling else { return };
        calling.open = calling.open.saturating_sub(1);
        if handset.node.calls() == 0 {
            calling.free.push_back(index);
        }
        if self.phase != Phase::Load && calling.open == 0 {
            calling.until = Some(report.ended);
        }
    }

    /// What was used for calls; before the last point is made.
    pub(super) fn close_calls(&mut self) {
        let now = self.curve.usage();
        let Some(calling) = &mut self.calling else { return };
        for _ in 0..calling.open {
            self.interval.calls.fail("unfinished");
        }
        let before = std::mem::take(&mut calling.before);
        let used = now.into_iter().zip(before).map(|((name, after), (_, before))| {
            (name, after.zip(before).map(|(after, before)| after.cpu_s - before.cpu_s))
        });
        calling.used = used.collect();
    }

    pub(super) fn calls_are_good(&self) -> bool {
        let Some(_) = &self.calling else { return true };
        self.total.calls.completed > 0 && self.total.calls.failed_per_cent() <= self.options.max_failed
    }

    pub(super) fn calls_summary(&self) -> Value {
        let Some(calling) = &self.calling else { return Value::Null };
        let tally = &self.total.calls;
        let thousands = (tally.answered as f64 / 1000.0).max(1e-9);
        let cpu: BTreeMap<&str, Value> =
            calling.used.iter().map(|(name, cpu)| (name.as_str(), json!(cpu.map(|cpu| cpu / thousands)))).collect();
        let took = calling.since.map(|since| calling.until.unwrap_or(self.now()).since(since).as_secs_f64());
        json!({
            "rate": calling.plan.rate,
            "hold_s": calling.plan.hold.as_secs_f64(),
            "begun": calling.begun,
            "answered": tally.answered,
            "completed": tally.completed,
            "cut_short": tally.cut_short,
            "failed": tally.all_failed(),
            "failed_per_cent": tally.failed_per_cent(),
            "failures": tally.failed,
            "most_in_progress": calling.most_open,
            "ringing_ms": tally.ringing.summary(),
            "setup_ms": tally.setting_up.summary(),
            "duration_s": took,
            "cpu_s_per_1000_calls": cpu,
        })
    }
}

impl CallTally {
    fn fail(&mut self, cause: &str) {
        *self.failed.entry(cause.to_owned()).or_default() += 1;
    }
}
