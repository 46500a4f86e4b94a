//! What a load run found: counted as it happens, told every few seconds, and as JSON at the end.

use super::fleet::calls::CallTally;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Buckets for each power of two: a value is known to 1.6 per cent.
const FINE: u64 = 64;

/// Durations in microseconds, in a few kilobytes however many there are.
#[derive(Clone, Default)]
pub(super) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    most: u64,
}

impl Histogram {
    pub(super) fn add(&mut self, micros: u64) {
        let at = bucket_of(micros);
        if self.buckets.len() <= at {
            self.buckets.resize(at + 1, 0);
        }
        if let Some(bucket) = self.buckets.get_mut(at) {
            *bucket += 1;
        }
        self.count += 1;
        self.most = self.most.max(micros);
    }

    pub(super) fn absorb(&mut self, other: &Self) {
        if self.buckets.len() < other.buckets.len() {
            self.buckets.resize(other.buckets.len(), 0);
        }
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.count += other.count;
        self.most = self.most.max(other.most);
    }

    /// In milliseconds; None when nothing was measured.
    pub(super) fn percentile(&self, per_cent: f64) -> Option<f64> {
        let wanted = ((self.count as f64 * per_cent / 100.0).ceil() as u64).max(1);
        let mut seen = 0;
        for (at, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Some(middle_of(at).min(self.most) as f64 / 1000.0);
            }
        }
        None
    }

    pub(super) fn summary(&self) -> Value {
        json!({
            "p50": self.percentile(50.0), "p90": self.percentile(90.0), "p95": self.percentile(95.0),
            "p99": self.percentile(99.0), "max": (self.count > 0).then_some(self.most as f64 / 1000.0),
        })
    }
}

fn bucket_of(micros: u64) -> usize {
    let shift = u64::from(63 - (micros | FINE).leading_zeros()) - u64::from(FINE.trailing_zeros());
    // The top bit of `micros >> shift` is that of FINE, but for what is smaller than FINE.
    usize::try_from(shift * FINE + (micros >> shift)).unwrap_or(usize::MAX)
}

fn middle_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < 2 * FINE {
        return bucket;
    }
    let shift = bucket / FINE - 1;
    let low = (bucket - shift * FINE) << shift;
    low + (1 << shift) / 2
}

/// Why a procedure did not succeed, in the three kinds that mean different things to whoever measures.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Miss {
    /// The network answered with this status.
    Refused(u16),
    /// Nobody answered.
    Silence,
    /// The answer was wrong, or the handset failed by itself.
    Wrong,
}

/// Counts of a stretch of time.
#[derive(Clone, Default)]
pub(super) struct Tally {
    pub(super) registrations: u64,
    pub(super) refreshes: u64,
    pub(super) deregistrations: u64,
    pub(super) queries: u64,
    /// Handsets that went away without a word.
    pub(super) vanished: u64,
    /// Refused by the network, by status.
    pub(super) refused: BTreeMap<u16, u64>,
    /// Everything else that went wrong, by cause.
    pub(super) failures: BTreeMap<String, u64>,
    /// Handsets with wrong keys and unknown users, refused as they should be, by status.
    pub(super) refused_rightly: BTreeMap<u16, u64>,
    /// Procedures that missed and that the run tolerates: busy or silent, and the handset tries again.
    pub(super) tolerated: u64,
    pub(super) retransmissions: u64,
    pub(super) received: u64,
    /// Messages that belong to no handset.
    pub(super) strays: u64,
    /// Datagrams that the socket did not take.
    pub(super) unsent: u64,
    /// Registrations that were interrupted, and renewed by the handset before they would have ended.
    pub(super) recovered: u64,
    /// Registrations that were interrupted and not renewed when the run ended, which was before they would have.
    pub(super) interrupted: u64,
    /// Registrations that were lost: ended by the network, or not to be renewed in time.
    pub(super) lost: u64,
    pub(super) calls: CallTally,
    pub(super) registering: Histogram,
    pub(super) refreshing: Histogram,
}

impl Tally {
    pub(super) fn fail(&mut self, cause: String) {
        *self.failures.entry(cause).or_default() += 1;
    }

    pub(super) fn refuse(&mut self, status: u16) {
        *self.refused.entry(status).or_default() += 1;
    }

    pub(super) fn done(&self) -> u64 {
        self.registrations + self.refreshes + self.deregistrations + self.queries
    }

    pub(super) fn all_refused(&self) -> u64 {
        self.refused.values().sum()
    }

    pub(super) fn all_failures(&self) -> u64 {
        self.failures.values().sum()
    }

    /// Per cent of all procedures that missed without leave.
    pub(super) fn failed_per_cent(&self) -> f64 {
        let missed = self.all_refused() + self.all_failures();
        let all = self.done() + missed;
        if all == 0 { 0.0 } else { 100.0 * (missed - self.tolerated.min(missed)) as f64 / all as f64 }
    }

    pub(super) fn latency(&self) -> Histogram {
        let mut all = self.registering.clone();
        all.absorb(&self.refreshing);
        all
    }

    pub(super) fn absorb(&mut self, other: &Self) {
        self.registrations += other.registrations;
        self.refreshes += other.refreshes;
        self.deregistrations += other.deregistrations;
        self.queries += other.queries;
        self.vanished += other.vanished;
        for (into, from) in [(&mut self.refused, &other.refused), (&mut self.refused_rightly, &other.refused_rightly)] {
            for (status, times) in from {
                *into.entry(*status).or_default() += times;
            }
        }
        for (cause, times) in &other.failures {
            *self.failures.entry(cause.clone()).or_default() += times;
        }
        self.tolerated += other.tolerated;
        self.retransmissions += other.retransmissions;
        self.received += other.received;
        self.strays += other.strays;
        self.unsent += other.unsent;
        self.recovered += other.recovered;
        self.interrupted += other.interrupted;
        self.lost += other.lost;
        self.calls.absorb(&other.calls);
        self.registering.absorb(&other.registering);
        self.refreshing.absorb(&other.refreshing);
    }

    pub(super) fn summary(&self) -> Value {
        let missed = self.all_refused() + self.all_failures();
        json!({
            "ok": self.registrations,
            "refreshes": self.refreshes,
            "deregistrations": self.deregistrations,
            "queries": self.queries,
            "vanished": self.vanished,
            "failed": missed,
            "failed_per_cent": self.failed_per_cent(),
            "refused": self.refused,
            "failures": self.failures,
            "refused_rightly": self.refused_rightly,
            "tolerated": self.tolerated,
            "recovered": self.recovered,
            "interrupted": self.interrupted,
            "lost": self.lost,
            "latency_ms": self.registering.summary(),
            "refresh_latency_ms": self.refreshing.summary(),
            "retransmissions": self.retransmissions,
            "messages_received": self.received,
            "strays": self.strays,
            "unsent": self.unsent,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_known_to_two_per_cent() {
        for scale in [1u64, 37, 1000, 1_000_000] {
            let mut h = Histogram::default();
            (1..=100).rev().for_each(|n| h.add(n * scale));
            for p in [1.0, 50.0, 90.0, 99.0, 100.0] {
                let (found, right) = (h.percentile(p).unwrap() * 1000.0, p * scale as f64);
                assert!((found - right).abs() <= right * 0.02 + 0.5, "{p} per cent: {found} instead of {right}");
            }
        }
        assert_eq!(Histogram::default().percentile(50.0), None);
        let mut h = Histogram::default();
        h.add(u64::MAX);
        h.add(0);
        assert!(h.percentile(1.0) == Some(0.0) && h.percentile(99.0).unwrap() > 1e15);
    }

    #[test]
    fn buckets_rise_with_their_values() {
        let values: Vec<u64> = (0..2000).chain((11..64).map(|n| 1 << n)).collect();
        let buckets: Vec<usize> = values.iter().map(|v| bucket_of(*v)).collect();
        assert!(buckets.is_sorted());
        for v in values {
            let middle = middle_of(bucket_of(v)) as f64;
            assert!((middle - v as f64).abs() <= v as f64 / 60.0, "{v}: {middle}");
        }
    }

    #[test]
    fn what_the_run_tolerates_is_counted_and_is_no_failure() {
        let mut one = Tally { registrations: 98, ..Tally::default() };
        one.refuse(503);
        one.tolerated = 1;
        one.fail("timeout".into());
        let mut all = Tally::default();
        all.absorb(&one);
        all.absorb(&one);
        assert!((all.failed_per_cent() - 1.0).abs() < 1e-9);
        let summary = all.summary();
        assert_eq!((summary["failed"].as_u64(), summary["refused"]["503"].as_u64()), (Some(4), Some(2)));
        assert_eq!(summary["failures"]["timeout"], 2);
        assert_eq!(summary["latency_ms"]["p50"], Value::Null);
    }
}
