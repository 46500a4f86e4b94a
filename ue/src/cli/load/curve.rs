//! The run as a curve: a line for people and a row of a CSV file for each interval, with what `/proc` says of other
//! processes.

use super::stats::{Histogram, Tally};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

/// User-visible clock ticks are hundredths of a second on every Linux (USER_HZ).
const TICKS: f64 = 100.0;

/// Resident bytes and CPU seconds of a process.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub(super) struct Usage {
    pub(super) rss_mib: f64,
    pub(super) cpu_s: f64,
}

impl Usage {
    /// None: there is no such process.
    pub(super) fn of(pid: &str) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        Self::read(&stat, &status)
    }

    fn read(stat: &str, status: &str) -> Option<Self> {
        // The name in parentheses may hold anything; utime and stime are the 14th and 15th field (proc(5)).
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
        let mut ticks = || fields.next()?.parse::<f64>().ok();
        let cpu_s = (ticks()? + ticks()?) / TICKS;
        // A process that has ended and is not waited for has no VmRSS.
        let rss = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
        let kib: f64 = rss.trim().trim_end_matches("kB").trim().parse().ok()?;
        Some(Self { rss_mib: kib / 1024.0, cpu_s })
    }
}

/// A process that is looked at.
struct Watched {
    name: String,
    pid: String,
    last: Option<Usage>,
    first: Option<Usage>,
    most_mib: f64,
}

/// Where the run stands.
pub(super) struct Standing<'a> {
    pub(super) at: Duration,
    /// How long ago the interval began.
    pub(super) took: Duration,
    pub(super) registered: u32,
    pub(super) busy: u32,
    /// Calls in progress, in a run with calls.
    pub(super) calls: Option<u32>,
    pub(super) tally: &'a Tally,
}

pub(super) struct Curve {
    file: Option<File>,
    watched: Vec<Watched>,
    quiet: bool,
}

impl Curve {
    /// `watch`: process ids, or NAME=PID.
    pub(super) fn new(file: Option<&Path>, watch: &[String], calls: bool, quiet: bool) -> Result<Self, String> {
        let watched = watch.iter().map(|text| {
            let (name, pid) = text.split_once('=').unwrap_or((text, text));
            match pid.parse::<u32>() {
                Ok(_) => Ok(Watched { name: name.into(), pid: pid.into(), last: None, first: None, most_mib: 0.0 }),
                Err(_) => Err(format!("--watch-pid {text}: write a process id, or NAME=PID")),
            }
        });
        let watched = watched.collect::<Result<Vec<_>, _>>()?;
        let failed = |path: &Path, e| format!("{}: {e}", path.display());
        let file = file.map(|path| File::create(path).map_err(|e| failed(path, e))).transpose()?;
        let mut curve = Self { file, watched, quiet };
        let mut head = String::from(
            "time_s,registered,busy,registrations_per_s,refreshes_per_s,refused,failures,lost,retransmissions,p50_ms,p99_ms",
        );
        if calls {
            head.push_str(",calls_in_progress,calls_per_s,calls_failed,ringing_p50_ms,ringing_p99_ms");
        }
        for w in &curve.watched {
            let _ = write!(head, ",{0}_rss_mib,{0}_cpu_per_cent", w.name);
        }
        curve.write(&head);
        for w in &mut curve.watched {
            w.look();
        }
        Ok(curve)
    }

    fn write(&mut self, line: &str) {
        if let Some(file) = &mut self.file {
            // A full disk must not end a measurement of an hour; the file shows where it stopped.
            let _ = writeln!(file, "{line}");
        }
    }

    pub(super) fn point(&mut self, now: &Standing<'_>) {
        if !self.quiet {
            eprintln!("{}", line(now));
        }
        let mut row = row(now);
        for w in &mut self.watched {
            let before = w.last;
            match w.look() {
                None => row.push_str(",,"),
                Some(usage) => {
                    let cpu = before.map_or(0.0, |b| (usage.cpu_s - b.cpu_s).max(0.0));
                    let share = 100.0 * cpu / now.took.as_secs_f64().max(1e-3);
                    let _ = write!(row, ",{:.1},{share:.1}", usage.rss_mib);
                }
            }
        }
        self.write(&row);
    }

    /// What each watched process has used by now.
    pub(super) fn usage(&self) -> Vec<(String, Option<Usage>)> {
        self.watched.iter().map(|w| (w.name.clone(), Usage::of(&w.pid))).collect()
    }

    pub(super) fn summary(&self) -> Value {
        let one = |w: &Watched| {
            let cpu = |(first, last): (Usage, Usage)| last.cpu_s - first.cpu_s;
            json!({
                "name": w.name, "pid": w.pid, "cpu_s": w.first.zip(w.last).map(cpu),
                "rss_mib": { "first": w.first.map(|u| u.rss_mib), "last": w.last.map(|u| u.rss_mib), "max": w.most_mib },
            })
        };
        self.watched.iter().map(one).collect()
    }
}

impl Watched {
    fn look(&mut self) -> Option<Usage> {
        let usage = Usage::of(&self.pid)?;
        self.first.get_or_insert(usage);
        self.last = Some(usage);
        self.most_mib = self.most_mib.max(usage.rss_mib);
        Some(usage)
    }
}

fn row(now: &Standing<'_>) -> String {
    let (t, took) = (now.tally, now.took.as_secs_f64().max(1e-3));
    let all = t.latency();
    let millis = |of: &Histogram, per_cent| of.percentile(per_cent).map_or_else(String::new, |ms| format!("{ms:.2}"));
    let ms = |per_cent| millis(&all, per_cent);
    let mut row = format!(
        "{:.1},{},{},{:.1},{:.1},{},{},{},{},{},{}",
        now.at.as_secs_f64(),
        now.registered,
        now.busy,
        t.registrations as f64 / took,
        t.refreshes as f64 / took,
        t.all_refused(),
        t.all_failures(),
        t.lost,
        t.retransmissions,
        ms(50.0),
        ms(99.0),
    );
    if let Some(open) = now.calls {
        let (rate, failed) = (t.calls.answered as f64 / took, t.calls.all_failed());
        let (p50, p99) = (millis(&t.calls.ringing, 50.0), millis(&t.calls.ringing, 99.0));
        let _ = write!(row, ",{open},{rate:.1},{failed},{p50},{p99}");
    }
    row
}

fn line(now: &Standing<'_>) -> String {
    let (t, took) = (now.tally, now.took.as_secs_f64().max(1e-3));
    let all = t.latency();
    let ms = |per_cent| all.percentile(per_cent).map_or_else(|| "-".into(), |ms| format!("{ms:.1}"));
    let mut out = format!(
        "{:>5.0} s  {} registered, {} under way; {:.0} registrations/s, {:.0} refreshes/s; p50 {} p95 {} p99 {} ms; {} repeated",
        now.at.as_secs_f64(),
        now.registered,
        now.busy,
        t.registrations as f64 / took,
        t.refreshes as f64 / took,
        ms(50.0),
        ms(95.0),
        ms(99.0),
        t.retransmissions,
    );
    if let Some(open) = now.calls {
        let ms = |per_cent| t.calls.ringing.percentile(per_cent).map_or_else(|| "-".into(), |ms| format!("{ms:.1}"));
        let (rate, p50, p99) = (t.calls.answered as f64 / took, ms(50.0), ms(99.0));
        let _ = write!(out, "; {open} calls in progress, {rate:.0} calls/s, ringing p50 {p50} p99 {p99} ms");
        for (cause, times) in &t.calls.failed {
            let _ = write!(out, "; call {cause}: {times}");
        }
    }
    for (status, times) in &t.refused {
        let _ = write!(out, "; refused {status}: {times}");
    }
    for (cause, times) in &t.failures {
        let _ = write!(out, "; {cause}: {times}");
    }
    if t.lost > 0 {
        let _ = write!(out, "; LOST: {}", t.lost);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_read_whatever_the_name_of_the_process_is() {
        let stat = "42 (a) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 1 0 5 6 7";
        let usage = Usage::read(stat, "Name:\tx\nVmRSS:\t    2048 kB\n");
        assert_eq!(usage, Some(Usage { rss_mib: 2.0, cpu_s: 2.0 }));
        assert_eq!(Usage::read(stat, "Name:\tx\n"), None);
        assert!(Usage::of("self").is_some_and(|u| u.rss_mib > 0.5));
    }

    #[test]
    fn a_row_has_a_cell_for_each_column_also_when_a_process_is_gone() {
        let folder = std::env::temp_dir().join(format!("ue-curve-{}", std::process::id()));
        let own = std::process::id().to_string();
        let watch = [format!("own={own}"), "gone=4194304".to_owned()];
        let mut curve = Curve::new(Some(&folder), &watch, false, true).unwrap();
        let mut tally = Tally { registrations: 50, ..Tally::default() };
        tally.registering.add(2000);
        tally.refuse(503);
        let took = Duration::from_secs(5);
        curve.point(&Standing { at: took, took, registered: 50, busy: 1, calls: None, tally: &tally });
        let text = fs::read_to_string(&folder).unwrap();
        fs::remove_file(&folder).unwrap();
        let rows: Vec<Vec<&str>> = text.lines().map(|l| l.split(',').collect()).collect();
        assert_eq!(rows[0].len(), rows[1].len(), "{text}");
        assert_eq!(rows[0][11..], ["own_rss_mib", "own_cpu_per_cent", "gone_rss_mib", "gone_cpu_per_cent"]);
        assert_eq!(rows[1][..6], ["5.0", "50", "1", "10.0", "0.0", "1"]);
        assert!(rows[1][11].parse::<f64>().unwrap() > 0.5 && rows[1][13].is_empty());
        let with_calls = Standing { at: took, took, registered: 1, busy: 0, calls: Some(3), tally: &tally };
        assert_eq!(row(&with_calls).split(',').count(), 16);
        assert!(Curve::new(None, &["x=y".into()], false, true).is_err());
        assert!(
            line(&Standing { at: took, took, registered: 1, busy: 0, calls: None, tally: &tally })
                .contains("refused 503: 1")
        );
    }
}
