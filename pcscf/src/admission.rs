//! How many new registrations and calls are let in while the network cannot keep up.
//!
//! Three things say that it cannot. Two are measured over short intervals as CoDel does it, by the least that was seen: even the
//! luckiest requests from outside had waited for us, in the kernel and in our inbox, longer than `overload.target_wait`, or even the fastest answer of the core took longer
//! than `overload.target_answer` (and three times longer than usual). A burst has a lucky member; a standing queue has none. The
//! third is the core's own word: it asks a part of those that come to it for patience. Then the rate at which what
//! begins is let in falls by a tenth in each interval, from what was served lately; otherwise it rises, until nothing
//! is refused any more. What is under way is never held up: it is nearly done, and refusing it would waste the work.

use crate::config::Overload;
use ims_core::Time;
use ims_core::metrics::{Samples, catalogue};
use serde_json::{Value, json};
use std::time::Duration;

/// Of the rate, in each interval.
const FALL: f64 = 0.9;
const RISE: f64 = 1.05;
/// Of what is served.
const DRAIN: f64 = 0.85;
/// How much an interval counts in what was served lately: about half a second.
const RECENT: f64 = 0.2;
/// How many times longer than usual is late.
const UNUSUAL: u32 = 3;
/// By how much what is usual rises in an interval.
const CREEP: f64 = 1.02;
/// When more than one of so many answers of the core asks for patience, it has too much to do.
const PUSHED_BACK: u32 = 20;
/// Intervals without a refusal after which everybody is let in again.
const CALM: u32 = 20;

#[derive(Default)]
pub(crate) struct Admission {
    /// New registrations a second; None: as many as come.
    rate: Option<f64>,
    /// New registrations that may come in now.
    credit: f64,
    earned: Time,
    /// When this interval began.
    began: Time,
    least_wait: Option<Duration>,
    least_answer: Option<Duration>,
    /// New registrations that the core has answered in this interval.
    served: u32,
    /// All its answers in this interval, and those that asked for patience.
    answers: u32,
    pushed_back: u32,
    /// So many a second lately. In the interval of a stall nothing is served, which says nothing about what can be.
    lately: f64,
    refused_now: u32,
    calm: u32,
    /// What the core takes when all is well: a distant HSS is not an overloaded one.
    usual_answer: Option<Duration>,
    refused: u64,
}

impl Admission {
    /// The oldest of the requests from outside that follow waited so long for us.
    pub(crate) fn waited(&mut self, wait: Duration, now: Time, settings: &Overload) {
        self.turn(now, settings);
        self.least_wait = Some(self.least_wait.map_or(wait, |least| least.min(wait)));
    }

    /// The core answered a REGISTER after so long.
    pub(crate) fn answered(&mut self, took: Duration, is_new: bool, now: Time, settings: &Overload) {
        self.turn(now, settings);
        self.least_answer = Some(self.least_answer.map_or(took, |least| least.min(took)));
        self.served += u32::from(is_new);
        self.answers += 1;
    }

    /// The core has answered a call, or another request that began something. When depends on who is called, not on the core.
    pub(crate) fn taken_up(&mut self, now: Time, settings: &Overload) {
        self.turn(now, settings);
        self.served += 1;
        self.answers += 1;
    }

    /// The core refused a request because it has too much to do. It may have said so fast: that is no sign of health.
    pub(crate) fn pushed_back(&mut self, now: Time, settings: &Overload) {
        self.turn(now, settings);
        self.answers += 1;
        self.pushed_back += 1;
    }

    pub(crate) fn is_limiting(&self) -> bool {
        self.rate.is_some()
    }

    /// Whether one more new registration or call is let in.
    pub(crate) fn admits(&mut self, now: Time, settings: &Overload) -> bool {
        self.turn(now, settings);
        let Some(rate) = self.rate else { return true };
        // What comes in a trickle is let in however it is bunched.
        let most = (rate * settings.interval.0.as_secs_f64()).max(f64::from(settings.least_rate));
        self.credit = (self.credit + rate * now.since(self.earned).as_secs_f64()).min(most);
        self.earned = now;
        if self.credit >= 1.0 {
            self.credit -= 1.0;
            return true;
        }
        self.refused += 1;
        self.refused_now += 1;
        false
    }

    /// At the end of an interval: judges it, and begins the next.
    fn turn(&mut self, now: Time, settings: &Overload) {
        let length = settings.interval.0;
        let since = now.since(self.began);
        if since < length {
            return;
        }
        let usual = self.usual_answer.unwrap_or_default();
        let is_late = self.least_wait.is_some_and(|wait| wait > settings.target_wait.0)
            || self.least_answer.is_some_and(|took| took > settings.target_answer.0.max(usual * UNUSUAL))
            || self.pushed_back * PUSHED_BACK > self.answers;
        self.learn();
        let floor = f64::from(settings.least_rate.max(1));
        let served = f64::from(self.served) / since.as_secs_f64();
        if is_late && self.rate.is_none() {
            self.credit = floor;
        }
        self.rate = match self.rate {
            _ if !settings.enabled => None,
            None if is_late => Some((served.max(self.lately) * FALL).max(floor)),
            // With a queue that stands, what is served is all that can be: a little less lets the queue go. One interval
            // may hold the answers of two, after a stall.
            Some(rate) if is_late => Some((rate * FALL).max(self.lately * DRAIN).max(floor)),
            Some(_) if self.calm >= CALM => None,
            Some(rate) => Some(rate * RISE + 1.0),
            None => None,
        };
        self.calm = if is_late || self.refused_now > 0 || self.rate.is_none() { 0 } else { self.calm + 1 };
        self.lately += (served - self.lately) * RECENT;
        // A long silence is many intervals without a refusal.
        if since >= length * CALM {
            (self.rate, self.lately) = (None, served);
        }
        (self.began, self.least_wait, self.least_answer) = (now, None, None);
        (self.served, self.refused_now, self.answers, self.pushed_back) = (0, 0, 0, 0);
    }

    /// Falls at once and rises slowly, and only while everybody is let in.
    fn learn(&mut self) {
        let Some(least) = self.least_answer else { return };
        let usual = self.usual_answer.unwrap_or(least);
        let slower = if self.is_limiting() { usual } else { usual.mul_f64(CREEP) };
        self.usual_answer = Some(least.min(slower));
    }

    pub(crate) fn describe(&self) -> Value {
        json!({ "limiting": self.is_limiting(), "per_second": self.rate.map(f64::round), "refused": self.refused })
    }

    pub(crate) fn metrics(&self, out: &mut Samples) {
        out.size(&catalogue::ADMISSION_LIMITING, &[], usize::from(self.is_limiting()));
        out.level(&catalogue::ADMISSION_RATE, &[], self.rate.unwrap_or(0.0));
        out.count(&catalogue::ADMISSION_REFUSED, &[], self.refused);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A core with a queue that serves so many new registrations a second, each after those before it.
    struct Core {
        per_second: u64,
        free_at: Time,
        answers: std::collections::VecDeque<(Time, Time)>,
    }

    /// Offers `offered` a second for `seconds` and gives the rate that was served in the second half, and the longest wait
    /// there.
    fn run(admission: &mut Admission, capacity: u64, offered: u64, seconds: u64, start: u64) -> (f64, Duration) {
        let settings = Overload::default();
        let mut core = Core { per_second: capacity, free_at: Time::from_secs(start), answers: Default::default() };
        let (mut served, mut longest) = (0, Duration::ZERO);
        for n in 0..offered * seconds {
            let now = Time::from_micros(start * 1_000_000 + n * 1_000_000 / offered);
            while let Some((at, asked)) = core.answers.front().copied().filter(|(at, _)| *at <= now) {
                core.answers.pop_front();
                admission.answered(at.since(asked), true, now, &settings);
                if n > offered * seconds / 2 {
                    served += 1;
                    longest = longest.max(at.since(asked));
                }
            }
            if admission.admits(now, &settings) {
                core.free_at = core.free_at.max(now) + Duration::from_micros(1_000_000 / core.per_second);
                core.answers.push_back((core.free_at, now));
            }
        }
        #[allow(clippy::cast_precision_loss)]
        (served as f64 * 2.0 / seconds as f64, longest)
    }

    #[test]
    fn beyond_capacity_what_is_served_stays_near_it_and_soon() {
        for (capacity, offered) in [(1000, 1500), (1000, 5000), (100, 150), (50, 500)] {
            let mut admission = Admission::default();
            let (served, longest) = run(&mut admission, capacity, offered, 40, 100);
            assert!(admission.is_limiting() && admission.refused > 0);
            #[allow(clippy::cast_precision_loss)]
            let share = served / capacity as f64;
            assert!(share > 0.85, "{capacity}/s offered {offered}/s: {share} of it served");
            assert!(longest < Duration::from_secs(3), "{longest:?}");
        }
    }

    #[test]
    fn below_capacity_nobody_is_refused_and_after_a_storm_nobody_again() {
        let mut admission = Admission::default();
        run(&mut admission, 1000, 900, 10, 100);
        assert_eq!(admission.refused, 0);
        run(&mut admission, 1000, 3000, 10, 200);
        let refused = admission.refused;
        assert!(refused > 1000);
        run(&mut admission, 1000, 500, 20, 220);
        assert!(!admission.is_limiting());
        assert!(admission.refused < refused + 2000, "{} then {}", refused, admission.refused);
    }

    #[test]
    fn after_a_stall_about_as_many_are_let_in_as_were_served_before() {
        let (mut admission, settings) = (Admission::default(), Overload::default());
        let at = |ms: u64| Time::from_micros(1_000_000_000 + ms * 1000);
        (0..2000).for_each(|ms| admission.answered(MS, true, at(ms), &settings));
        // Nothing for 200 ms, and the one answer that then comes is late.
        admission.answered(MS * 400, true, at(2200), &settings);
        admission.answered(MS * 400, true, at(2300), &settings);
        let rate = admission.rate.expect("limiting");
        assert!((500.0..1000.0).contains(&rate), "{rate}");
    }

    #[test]
    fn a_standing_queue_of_our_own_limits_but_a_burst_does_not() {
        let (mut a, settings) = (Admission::default(), Overload::default());
        let at = |ms: u64| Time::from_micros(1_000_000_000 + ms * 1000);
        for ms in 0..1000 {
            a.waited(if ms % 50 == 0 { MS } else { MS * 400 }, at(ms), &settings);
        }
        assert!(!a.is_limiting(), "some event in each interval was taken at once");
        for ms in 1000..2000 {
            a.waited(MS * 400, at(ms), &settings);
        }
        assert!(a.is_limiting());
        let admitted = (0..1000).filter(|n| a.admits(at(2000 + n / 100), &settings)).count();
        assert!((1..=11).contains(&admitted), "{admitted}");
    }

    #[test]
    fn a_core_that_asks_for_patience_is_believed_however_fast_it_says_so() {
        let (mut a, settings) = (Admission::default(), Overload::default());
        let at = |ms: u64| Time::from_micros(1_000_000_000 + ms * 1000);
        for ms in 0..1000 {
            match ms % 50 {
                0 => a.pushed_back(at(ms), &settings),
                _ => a.answered(MS, true, at(ms), &settings),
            }
        }
        assert!(!a.is_limiting(), "one of fifty is no overload");
        (1000..1400).for_each(|ms| match ms % 10 {
            0 => a.pushed_back(at(ms), &settings),
            _ => a.answered(MS, true, at(ms), &settings),
        });
        assert!(a.rate.is_some_and(|rate| (500.0..950.0).contains(&rate)), "{:?}", a.rate);
    }

    /// One answer that was lost and repeated is no overload: chaos, seed 421.
    #[test]
    fn a_few_handsets_are_never_refused_for_a_late_answer() {
        let (mut a, settings) = (Admission::default(), Overload::default());
        let at = |ms: u64| Time::from_micros(1_000_000_000 + ms * 1000);
        for n in 0..100_u64 {
            a.answered(if n % 3 == 0 { MS * 3000 } else { MS * 20 }, true, at(n * 1000), &settings);
            assert!(a.admits(at(n * 1000 + 150), &settings) && a.admits(at(n * 1000 + 160), &settings), "{n}");
        }
    }

    #[test]
    fn a_core_that_is_always_slow_is_not_overloaded() {
        let (mut a, settings) = (Admission::default(), Overload::default());
        for n in 0..10_000_u64 {
            let took = MS * if n < 100 { 20 } else { 20 + u32::try_from(n / 10).unwrap() };
            a.answered(took, true, Time::from_micros(1_000_000_000 + n * 50_000), &settings);
            assert!(a.admits(Time::from_micros(1_000_000_000 + n * 50_000), &settings), "{took:?}");
        }
    }
}
