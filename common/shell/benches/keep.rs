//! What it costs to keep an entry, and to find all of them again: the journal of a role's data folder, entries of 1 KiB.
//! `cargo bench -p ims-shell --bench keep [-- ENTRIES]`, 100,000 unless given

#![allow(clippy::disallowed_methods)]

use bytes::Bytes;
use ims_shell::keep::{Change, Journal, Keeper};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Each entry is put so often again.
const AGAIN: usize = 2;
/// Committed together.
const BATCHES: [usize; 4] = [1, 4, 16, 64];
/// The default of `shell.keep_sync`.
const SYNC: Duration = Duration::from_secs(1);

/// Removed when it is dropped.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let entries: usize = std::env::args().find_map(|arg| arg.parse().ok()).unwrap_or(100_000);
    let folder = Folder(std::env::temp_dir().join(format!("ims-shell-bench-keep-{}", std::process::id())));
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        put(&folder.0, entries).await?;
        restore(&folder.0, entries).await
    })
}

async fn put(folder: &Path, entries: usize) -> Result<(), Box<dyn Error>> {
    let mut journal = Journal::open(folder, SYNC)?;
    let value = Bytes::from(vec![b'x'; 1024]);
    let change = |n: usize| Change { key: format!("registration/{n:08}"), value: Some(value.clone()) };
    for first in (0..entries).step_by(100) {
        journal.commit(&(first..entries.min(first + 100)).map(change).collect::<Vec<_>>()).await?;
    }
    let puts = AGAIN * entries;
    for batch in BATCHES {
        let (before, started) = (cpu()?, Instant::now());
        for n in 0..puts / batch {
            let changes: Vec<_> = (0..batch).map(|i| change((n * batch + i) * 7919 % entries)).collect();
            journal.commit(&changes).await?;
        }
        let each = |time: Duration| time.as_secs_f64() * 1e6 / puts as f64;
        let (cpu, wall) = (each(cpu()? - before), each(started.elapsed()));
        println!("put, {batch} at once: {cpu:.2} us CPU, {wall:.2} us wall each");
    }
    Ok(())
}

async fn restore(folder: &Path, entries: usize) -> Result<(), Box<dyn Error>> {
    let (before, started) = (cpu()?, Instant::now());
    let mut journal = Journal::open(folder, SYNC)?;
    let mut restored = 0;
    loop {
        let portion = journal.restore().await?;
        if portion.is_empty() {
            break;
        }
        restored += portion.len();
    }
    println!("restore {restored}: {:?} CPU, {:?} wall", cpu()? - before, started.elapsed());
    if restored == entries { Ok(()) } else { Err(format!("{restored} of {entries} came back").into()) }
}

/// CPU of this process, all threads, to a hundredth of a second (proc_pid_stat(5), utime and stime).
fn cpu() -> Result<Duration, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks = fields.skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(Duration::from_millis(10 * ticks))
}
