//! How often a process with one thread wakes up.
//!
//! To be woken costs as much as to handle a message: a switch there and back, an interrupt to a sleeping processor, cold caches. Beyond
//! some wake-ups a second the thread rests for a moment before it looks at what arrives, and finds several things at once. Whoever
//! comes alone never waits for that.

use std::cell::Cell;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Wake-ups in a row that are free.
const BURST: u32 = 32;
/// With as many arrivals at each wake-up, there is little left to gain, and whoever waits for our answers before asking again
/// would be held up.
const ENOUGH: f64 = 4.0;
/// How much the last wake-up counts in that.
const RECENT: f64 = 0.125;

thread_local! {
    static ARRIVED: Cell<u32> = const { Cell::new(0) };
}

/// So many messages came from peers.
pub(crate) fn arrived(count: usize) {
    ARRIVED.set(ARRIVED.get().saturating_add(u32::try_from(count).unwrap_or(u32::MAX)));
}

/// What a runtime with one thread calls before it sleeps. `wakeups`: a second, above zero.
pub(crate) fn before_sleep(wakeups: u32) -> impl Fn() + Send + Sync + 'static {
    let pace = Mutex::new(Pace::new(wakeups, Instant::now()));
    move || {
        let rest = crate::world::lock(&pace).rest(ARRIVED.replace(0), Instant::now());
        if let Some(rest) = rest {
            std::thread::sleep(rest);
        }
    }
}

struct Pace {
    every: Duration,
    /// When the wake-ups so far are paid for.
    paid: Instant,
    /// Arrivals at a wake-up, lately.
    lately: f64,
}

impl Pace {
    fn new(wakeups: u32, now: Instant) -> Self {
        Self { every: Duration::from_secs(1) / wakeups.max(1), paid: now, lately: 0.0 }
    }

    /// How long to rest after a turn with so many arrivals. A turn without any is a step of something under way, a database's
    /// for example: more of it comes only when this one is done.
    fn rest(&mut self, arrived: u32, now: Instant) -> Option<Duration> {
        if arrived == 0 {
            return None;
        }
        self.lately += (f64::from(arrived) - self.lately) * RECENT;
        let oldest = now.checked_sub(self.every * BURST).unwrap_or(now);
        self.paid = self.paid.max(oldest) + self.every;
        let ahead = self.paid.saturating_duration_since(now);
        if ahead.is_zero() {
            return None;
        }
        // What was not rested is not owed.
        self.paid = self.paid.min(now + self.every);
        (self.lately < ENOUGH).then(|| ahead.min(self.every))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Rests of so many turns, one each `gap`, with so many arrivals.
    fn rests(pace: &mut Pace, from: Instant, turns: u32, gap: Duration, arrived: u32) -> (usize, Instant) {
        let (mut now, mut rests) = (from, 0);
        for _ in 0..turns {
            now += gap;
            if let Some(rest) = pace.rest(arrived, now) {
                assert!(rest <= pace.every);
                now += rest;
                rests += 1;
            }
        }
        (rests, now)
    }

    #[test]
    fn few_wake_ups_are_free_and_many_are_held_to_the_pace() {
        let start = Instant::now();
        let mut pace = Pace::new(1000, start);
        let (none, now) = rests(&mut pace, start, 1000, MS * 2, 1);
        assert_eq!(none, 0, "500 a second");
        let (none, now) = rests(&mut pace, now, BURST - 2, Duration::from_micros(10), 1);
        assert_eq!(none, 0, "one procedure, however many steps it has");
        let (none, now) = rests(&mut pace, now, 1000, Duration::from_micros(10), 0);
        assert_eq!(none, 0, "what no message began");
        let (_, end) = rests(&mut pace, now, 10_000, Duration::from_micros(100), 1);
        let each = (end - now) / 10_000;
        assert!((Duration::from_micros(950)..Duration::from_micros(1050)).contains(&each), "{each:?}");
    }

    #[test]
    fn with_enough_at_each_wake_up_nobody_is_held_up() {
        let start = Instant::now();
        let mut pace = Pace::new(1000, start);
        let (_, now) = rests(&mut pace, start, 100, MS / 10, 16);
        let (none, now) = rests(&mut pace, now, 1000, MS / 10, 16);
        assert_eq!(none, 0);
        let (some, _) = rests(&mut pace, now, 1000, MS / 10, 1);
        assert!(some > 900, "{some}");
    }
}
