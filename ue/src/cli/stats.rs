//! What a load run found, as JSON.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Default)]
pub(crate) struct Stats {
    pub(crate) attempts: u64,
    pub(crate) ok: u64,
    pub(crate) failures: BTreeMap<String, u64>,
    pub(crate) retransmissions: u64,
    pub(crate) received: u64,
    /// Messages that belong to no handset.
    pub(crate) strays: u64,
    /// Datagrams that the socket did not take.
    pub(crate) unsent: u64,
    /// Of the successful registrations, in microseconds.
    pub(crate) latencies: Vec<u64>,
}

impl Stats {
    pub(crate) fn fail(&mut self, cause: String) {
        *self.failures.entry(cause).or_default() += 1;
    }

    pub(crate) fn summary(&mut self, offered: Duration, whole: Duration) -> Value {
        self.latencies.sort_unstable();
        let ms = |micros: u64| micros as f64 / 1000.0;
        let at = |per_cent: usize| {
            let index = (self.latencies.len() * per_cent).div_ceil(100).max(1) - 1;
            self.latencies.get(index).map(|us| ms(*us))
        };
        let finished = self.ok + self.failures.values().sum::<u64>();
        json!({
            "attempts": self.attempts,
            "ok": self.ok,
            "failed": finished - self.ok,
            "failures": self.failures,
            "latency_ms": { "p50": at(50), "p90": at(90), "p99": at(99), "max": self.latencies.last().map(|us| ms(*us)) },
            "retransmissions": self.retransmissions,
            "messages_received": self.received,
            "strays": self.strays,
            "unsent": self.unsent,
            "offered_s": offered.as_secs_f64(),
            "duration_s": whole.as_secs_f64(),
            "ok_per_s": if offered.is_zero() { 0.0 } else { self.ok as f64 / offered.as_secs_f64() },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_latencies() {
        let mut s = Stats { latencies: (1..=100).rev().map(|ms| ms * 1000).collect(), ok: 100, ..Stats::default() };
        s.fail("timeout".into());
        let summary = s.summary(Duration::from_secs(10), Duration::from_secs(11));
        assert_eq!(summary["latency_ms"], json!({ "p50": 50.0, "p90": 90.0, "p99": 99.0, "max": 100.0 }));
        assert_eq!((summary["failed"].as_u64(), summary["ok_per_s"].as_f64()), (Some(1), Some(10.0)));
    }

    #[test]
    fn a_run_without_success_has_no_latency() {
        let summary = Stats::default().summary(Duration::ZERO, Duration::ZERO);
        assert_eq!(summary["latency_ms"]["p50"], Value::Null);
    }
}
