//! Time as nodes know it: microseconds since the Unix epoch, handed in from outside.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Time(u64);

impl Time {
    pub const EPOCH: Self = Self(0);

    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    pub const fn from_secs(secs: u64) -> Self {
        Self(secs * 1_000_000)
    }

    pub const fn micros(self) -> u64 {
        self.0
    }

    /// Whole seconds since the Unix epoch.
    pub const fn secs(self) -> u64 {
        self.0 / 1_000_000
    }

    /// How long after `earlier` this is; zero when it is not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Self;
    fn add(self, d: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(d.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Time {
    type Output = Self;
    fn sub(self, d: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(d.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

/// A set of named timers. Setting one that runs moves it; ties fire in the order of their keys.
#[derive(Debug)]
pub struct Timers<K> {
    due: BTreeSet<(Time, K)>,
    at: BTreeMap<K, Time>,
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self { due: BTreeSet::new(), at: BTreeMap::new() }
    }
}

impl<K: Ord + Clone> Timers<K> {
    pub fn set(&mut self, key: K, at: Time) {
        if let Some(old) = self.at.insert(key.clone(), at) {
            self.due.remove(&(old, key.clone()));
        }
        self.due.insert((at, key));
    }

    pub fn clear(&mut self, key: &K) -> bool {
        match self.at.remove(key) {
            Some(old) => self.due.remove(&(old, key.clone())),
            None => false,
        }
    }

    pub fn next(&self) -> Option<Time> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The earliest timer that is due at `now`, removed.
    pub fn pop(&mut self, now: Time) -> Option<K> {
        if self.next()? > now {
            return None;
        }
        let (_, key) = self.due.pop_first()?;
        self.at.remove(&key);
        Some(key)
    }

    pub fn len(&self) -> usize {
        self.at.len()
    }

    pub fn is_empty(&self) -> bool {
        self.at.is_empty()
    }
}

/// The earlier of two deadlines, where either may be absent.
pub fn earliest(a: Option<Time>, b: Option<Time>) -> Option<Time> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Lets so many pass in each second: for what any stranger can bring about, such as a line in the log.
#[derive(Clone, Debug)]
pub struct PerSecond {
    most: u32,
    second: u64,
    passed: u32,
}

impl PerSecond {
    pub const fn new(most: u32) -> Self {
        Self { most, second: 0, passed: 0 }
    }

    pub fn lets(&mut self, now: Time) -> bool {
        if self.second != now.secs() {
            (self.second, self.passed) = (now.secs(), 0);
        }
        self.passed = self.passed.saturating_add(1);
        self.passed <= self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_in_each_second_and_no_more() {
        let mut gate = PerSecond::new(2);
        let mut at = |secs| gate.lets(Time::from_secs(secs));
        assert_eq!([at(7), at(7), at(7), at(8), at(8), at(8)], [true, true, false, true, true, false]);
    }

    #[test]
    fn timers_fire_in_order_and_only_when_due() {
        let mut t = Timers::default();
        t.set("b", Time::from_secs(2));
        t.set("a", Time::from_secs(2));
        t.set("c", Time::from_secs(1));
        t.set("c", Time::from_secs(3));
        assert_eq!(t.next(), Some(Time::from_secs(2)));
        assert_eq!(t.pop(Time::from_secs(1)), None);
        assert_eq!(t.pop(Time::from_secs(3)), Some("a"));
        assert_eq!(t.pop(Time::from_secs(3)), Some("b"));
        assert!(t.clear(&"c") && !t.clear(&"c"));
        assert!(t.is_empty());
    }
}
