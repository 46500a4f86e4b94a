//! What a node measures: plain integers inside, [`Samples`] of them when somebody asks.
//!
//! Every metric stands in the [`catalogue`], with its labels; a label takes its values from a closed set, never from a
//! peer. Counting is an increment; names and text are made only when the shell is asked for them.

pub mod catalogue;

use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Only rises, from 0 at start.
    Counter,
    /// As it is now.
    Gauge,
    /// How many took at most so long; seconds.
    Histogram,
}

impl Kind {
    /// As the Prometheus text format says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// An entry of the catalogue.
#[derive(PartialEq, Eq, Debug)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

/// How long things took: counts by fixed upper bounds, in microseconds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// One more than bounds: the last is for what took longer than all of them.
    counts: Vec<u64>,
    sum: u64,
}

/// For what happens within one process.
const SHORT: &[u64] =
    &[5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000];
/// For what waits for others.
const LONG: &[u64] = &[
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000, 30_000_000,
];

impl Histogram {
    /// From 5 microseconds to one second.
    pub fn short() -> Self {
        Self::new(SHORT)
    }

    /// From 250 microseconds to 30 seconds.
    pub fn long() -> Self {
        Self::new(LONG)
    }

    fn new(bounds: &'static [u64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1], sum: 0 }
    }

    pub fn observe(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let place = self.bounds.partition_point(|bound| *bound < micros);
        self.counts[place] += 1;
        self.sum = self.sum.saturating_add(micros);
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// In microseconds.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// Upper bound in microseconds (None: infinity), and how many took at most that long.
    pub fn cumulative(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        let bounds = self.bounds.iter().map(|b| Some(*b)).chain([None]);
        bounds.zip(&self.counts).scan(0, |total, (bound, count)| {
            *total += count;
            Some((bound, *total))
        })
    }
}

/// What became of registrations: counted by outcome and cause.
#[derive(Default, Debug)]
pub struct Outcomes(BTreeMap<(&'static str, &'static str), u64>);

impl Outcomes {
    /// `registered`, `refreshed`, `deregistered`, ...: all is well.
    pub fn count(&mut self, outcome: &'static str) {
        self.count_with_cause(outcome, "none");
    }

    pub fn refused(&mut self, cause: &'static str) {
        self.count_with_cause("refused", cause);
    }

    pub fn count_with_cause(&mut self, outcome: &'static str, cause: &'static str) {
        *self.0.entry((outcome, cause)).or_default() += 1;
    }

    pub fn metrics(&self, out: &mut Samples) {
        for ((outcome, cause), n) in &self.0 {
            out.count(&catalogue::REGISTRATIONS, &[outcome, cause], *n);
        }
    }
}

/// The value of one sample.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    Count(u64),
    Level(f64),
    Histogram(Histogram),
}

/// One value, with those of its labels.
#[derive(Clone, PartialEq, Debug)]
pub struct Sample {
    pub metric: &'static Metric,
    pub labels: Vec<String>,
    pub value: Value,
}

/// What somebody who asks is told.
#[derive(Default, Debug)]
pub struct Samples(Vec<Sample>);

impl Samples {
    pub fn count(&mut self, metric: &'static Metric, labels: &[&str], value: u64) {
        self.add(metric, labels, Value::Count(value));
    }

    pub fn level(&mut self, metric: &'static Metric, labels: &[&str], value: f64) {
        self.add(metric, labels, Value::Level(value));
    }

    /// A gauge that counts things.
    #[allow(clippy::cast_precision_loss)] // no table has 2^52 entries
    pub fn size(&mut self, metric: &'static Metric, labels: &[&str], value: usize) {
        self.level(metric, labels, value as f64);
    }

    pub fn histogram(&mut self, metric: &'static Metric, labels: &[&str], value: &Histogram) {
        self.add(metric, labels, Value::Histogram(value.clone()));
    }

    /// Counters by one static name.
    pub fn counts(&mut self, metric: &'static Metric, by_name: &BTreeMap<&'static str, u64>) {
        for (name, value) in by_name {
            self.count(metric, &[name], *value);
        }
    }

    fn add(&mut self, metric: &'static Metric, labels: &[&str], value: Value) {
        debug_assert_eq!(labels.len(), metric.labels.len(), "{}", metric.name);
        let labels = labels.iter().map(|l| (*l).to_owned()).collect();
        self.0.push(Sample { metric, labels, value });
    }
}

impl IntoIterator for Samples {
    type Item = Sample;
    type IntoIter = std::vec::IntoIter<Sample>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_histogram_counts_up_to_and_with_each_bound() {
        let mut h = Histogram::short();
        for micros in [0, 5, 6, 1_000_000, 1_000_001] {
            h.observe(Duration::from_micros(micros));
        }
        let all: Vec<_> = h.cumulative().collect();
        assert_eq!((all[0], all[1]), ((Some(5), 2), (Some(10), 3)));
        assert_eq!(all[all.len() - 2..], [(Some(1_000_000), 4), (None, 5)]);
        assert_eq!((h.count(), h.sum()), (5, 2_000_012));
    }

    /// <https://prometheus.io/docs/practices/naming/>
    #[test]
    fn names_follow_the_conventions() {
        let mut seen = BTreeSet::new();
        for metric in catalogue::ALL {
            let name = metric.name;
            assert!(seen.insert(name), "{name} twice");
            assert!(name.starts_with("imsbox_") || name.starts_with("process_"), "{name}");
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{name}");
            assert_eq!(metric.kind == Kind::Counter, name.ends_with("_total"), "{name}");
            assert!(metric.kind != Kind::Histogram || name.ends_with("_seconds"), "{name}");
            assert!(!metric.help.is_empty() && !metric.help.contains(['\n', '\\', '|']), "{name}");
            assert!(!metric.labels.contains(&"le") && !metric.labels.contains(&"role"), "{name}");
        }
    }

    #[test]
    fn the_manual_has_every_metric_as_it_is() {
        let manual = include_str!("../../../../docs/metrics.md");
        let table: Vec<&str> = manual.lines().filter(|l| l.starts_with("| `")).collect();
        let line = |m: &Metric| {
            let role = m.name.starts_with("imsbox_").then_some("role").filter(|_| !catalogue::of_process(m));
            let labels: Vec<String> = role.iter().chain(m.labels).map(|l| format!("`{l}`")).collect();
            format!("| `{}` | {} | {} | {} |", m.name, m.kind.name(), labels.join(", "), m.help)
        };
        let wanted: Vec<String> = catalogue::ALL.iter().map(|m| line(m)).collect();
        let missing: Vec<&String> = wanted.iter().filter(|w| !table.contains(&w.as_str())).collect();
        assert!(missing.is_empty(), "docs/metrics.md lacks:\n{}", wanted.join("\n"));
        let more: Vec<&&str> = table.iter().filter(|l| !wanted.iter().any(|w| w == **l)).collect();
        assert!(more.is_empty(), "docs/metrics.md has what the code has not: {more:?}");
    }
}
