//! `GET /metrics`: what the nodes and the shell measured, in the Prometheus text format (version 0.0.4).

use crate::inbox::Input;
use crate::world::{Seat, TcpMeters, World};
use ims_core::metrics::{Kind, Metric, Sample, Samples, Value, catalogue};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::oneshot;

/// A node that does not tell within this is reported as down.
const PATIENCE: Duration = Duration::from_secs(5);
/// Of the times in /proc/self/stat; the kernel shows user space no other (USER_HZ).
const TICKS: f64 = 100.0;

pub(crate) async fn exposition(world: &World) -> String {
    let mut page = Page::default();
    for (index, seat) in world.nodes.iter().enumerate() {
        let (reply, answer) = oneshot::channel();
        seat.inbox.input(Input::Metrics(reply));
        let told = tokio::time::timeout(PATIENCE, answer).await.ok().and_then(Result::ok);
        let mut samples = told.unwrap_or_else(|| {
            let mut down = Samples::default();
            down.level(&catalogue::NODE_UP, &[], 0.0);
            seat.inbox.measure(&mut down);
            down
        });
        measure_around(world, index, seat, &mut samples);
        page.add(Some(&seat.name), samples);
    }
    let mut process = Samples::default();
    process.level(&catalogue::BUILD, &[env!("CARGO_PKG_VERSION")], 1.0);
    process.size(&catalogue::SA_QUEUE, &[], world.sa.max_capacity() - world.sa.capacity());
    process.count(&catalogue::SA_QUEUE_FULL, &[], world.sa_refused.load(Ordering::Relaxed));
    measure_process(&mut process);
    page.add(None, process);
    page.text()
}

/// The queues of a node's tasks.
fn measure_around(world: &World, index: usize, seat: &Seat, out: &mut Samples) {
    if let Some(store) = world.stores.get(&index) {
        out.size(&catalogue::STORE_QUEUE, &[], store.max_capacity() - store.capacity());
        out.count(&catalogue::STORE_REFUSED, &[], seat.meters.store_refused.load(Ordering::Relaxed));
    }
    let mut tcp = |protocol: &str, (open, waiting): (usize, usize), meters: &TcpMeters| {
        out.size(&catalogue::TCP_CONNECTIONS, &[protocol], open);
        out.size(&catalogue::TCP_QUEUE, &[protocol], waiting);
        out.count(&catalogue::TCP_QUEUE_FULL, &[protocol], meters.queue_full.load(Ordering::Relaxed));
        out.count(&catalogue::TCP_REFUSED, &[protocol], meters.refused.load(Ordering::Relaxed));
    };
    tcp("sip", world.connections.load(index), &seat.meters.sip);
    tcp("diameter", world.links.load(index), &seat.meters.diameter);
}

/// From /proc; what cannot be read is not told.
#[allow(clippy::cast_precision_loss)]
fn measure_process(out: &mut Samples) {
    if let Some(stat) = std::fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(Stat::read) {
        out.level(&catalogue::CPU, &[], stat.cpu_ticks as f64 / TICKS);
        out.level(&catalogue::VIRTUAL, &[], stat.virtual_bytes as f64);
        if let Some(boot) = boot_time() {
            out.level(&catalogue::START_TIME, &[], boot as f64 + stat.start_ticks as f64 / TICKS);
        }
    }
    resident_bytes().into_iter().for_each(|bytes| out.level(&catalogue::MEMORY, &[], bytes as f64));
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        out.size(&catalogue::OPEN_FILES, &[], files.count());
    }
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let most = limits.lines().find_map(|l| l.strip_prefix("Max open files")?.split_whitespace().next()?.parse().ok());
    most.into_iter().for_each(|most: f64| out.level(&catalogue::MOST_FILES, &[], most));
}

fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kb: u64 = status.lines().find_map(|l| l.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok())?;
    Some(kb * 1024)
}

/// Seconds since the epoch.
fn boot_time() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|l| l.strip_prefix("btime ")?.trim().parse().ok())
}

/// Fields of /proc/self/stat (proc_pid_stat(5)).
struct Stat {
    cpu_ticks: u64,
    start_ticks: u64,
    virtual_bytes: u64,
}

impl Stat {
    fn read(text: &str) -> Option<Self> {
        // The name, in brackets, may hold anything.
        let rest: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| rest.get(number - 3)?.parse::<u64>().ok();
        Some(Self { cpu_ticks: field(14)? + field(15)?, start_ticks: field(22)?, virtual_bytes: field(23)? })
    }
}

/// Samples by metric: all of one stand together, whoever told them.
#[derive(Default)]
struct Page {
    metrics: BTreeMap<&'static str, (&'static Metric, String)>,
}

impl Page {
    fn add(&mut self, role: Option<&str>, samples: Samples) {
        for sample in samples {
            let (_, lines) = self.metrics.entry(sample.metric.name).or_insert((sample.metric, String::new()));
            write(lines, role, &sample);
        }
    }

    fn text(self) -> String {
        let mut out = String::new();
        for (name, (metric, lines)) in self.metrics {
            let _ = writeln!(out, "# HELP {name} {}\n# TYPE {name} {}", metric.help, metric.kind.name());
            out.push_str(&lines);
        }
        out
    }
}

fn write(out: &mut String, role: Option<&str>, sample: &Sample) {
    let Sample { metric, labels, value } = sample;
    let mut pairs = String::new();
    for (name, value) in role
        .map(|r| ("role", r))
        .into_iter()
        .chain(metric.labels.iter().copied().zip(labels.iter().map(String::as_str)))
    {
        let comma = if pairs.is_empty() { "" } else { "," };
        let _ = write!(pairs, "{comma}{name}=\"{}\"", escaped(value));
    }
    let name = metric.name;
    let braced = |pairs: &str| if pairs.is_empty() { String::new() } else { format!("{{{pairs}}}") };
    let _ = match value {
        Value::Count(n) => writeln!(out, "{name}{} {n}", braced(&pairs)),
        Value::Level(n) => writeln!(out, "{name}{} {n}", braced(&pairs)),
        Value::Histogram(histogram) => {
            debug_assert_eq!(metric.kind, Kind::Histogram);
            let comma = if pairs.is_empty() { "" } else { "," };
            for (bound, count) in histogram.cumulative() {
                let le = bound.map_or_else(|| "+Inf".to_owned(), |micros| seconds(micros).to_string());
                let _ = writeln!(out, "{name}_bucket{{{pairs}{comma}le=\"{le}\"}} {count}");
            }
            let (pairs, sum) = (braced(&pairs), seconds(histogram.sum()));
            writeln!(out, "{name}_sum{pairs} {sum}\n{name}_count{pairs} {}", histogram.count())
        }
    };
}

#[allow(clippy::cast_precision_loss)]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use ims_core::metrics::Histogram;

    #[test]
    fn samples_of_several_nodes_stand_under_one_head() {
        let mut page = Page::default();
        for (role, n) in [("pcscf", 2), ("hss", 1)] {
            let mut samples = Samples::default();
            samples.count(&catalogue::REFUSALS, &["no-\"offer\\"], n);
            page.add(Some(role), samples);
        }
        let mut took = Histogram::long();
        took.observe(Duration::from_millis(3));
        let mut samples = Samples::default();
        samples.histogram(&catalogue::INBOX_WAIT, &[], &took);
        page.add(Some("hss"), samples);
        let text = page.text();
        assert_eq!(text.matches("# TYPE imsbox_refusals_total counter\n").count(), 1);
        for line in [
            "imsbox_refusals_total{role=\"pcscf\",refusal=\"no-\\\"offer\\\\\"} 2\n",
            "imsbox_inbox_wait_seconds_bucket{role=\"hss\",le=\"0.0025\"} 0\n",
            "imsbox_inbox_wait_seconds_bucket{role=\"hss\",le=\"0.005\"} 1\n",
            "imsbox_inbox_wait_seconds_bucket{role=\"hss\",le=\"+Inf\"} 1\n",
            "imsbox_inbox_wait_seconds_sum{role=\"hss\"} 0.003\nimsbox_inbox_wait_seconds_count{role=\"hss\"} 1\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
    }

    #[test]
    fn the_process_tells_of_itself() {
        let mut samples = Samples::default();
        measure_process(&mut samples);
        let told: Vec<Sample> = samples.into_iter().collect();
        assert_eq!(told.len(), 6, "{told:?}");
        let value = |metric: &Metric| match told.iter().find(|s| s.metric == metric).unwrap().value {
            Value::Level(n) => n,
            _ => panic!(),
        };
        assert!(value(&catalogue::MEMORY) > 1e6 && value(&catalogue::VIRTUAL) >= value(&catalogue::MEMORY));
        assert!(value(&catalogue::OPEN_FILES) >= 3.0 && value(&catalogue::MOST_FILES) >= value(&catalogue::OPEN_FILES));
        assert!(value(&catalogue::START_TIME) > 1.7e9);
    }
}
