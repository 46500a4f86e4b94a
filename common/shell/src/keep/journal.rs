//! A journal in a folder: each change is appended, a start reads all of it.
//!
//! A commit is one `write` of the whole batch, after which it is in the kernel's hands. A thread beside the node syncs to the disk at
//! intervals, and merges the segments when most of what they hold is superseded.

use super::folder::{Folder, create};
use super::rewrite::{self, Place};
use super::{Change, KeepError, Keeper, PORTION, Work, segment};
use crate::StartError;
use crate::world::lock;
use bytes::Bytes;
use ims_core::Kept;
use std::collections::HashMap;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tracing::{debug, warn};

/// Superseded bytes that are not worth a merge.
const SLACK: u64 = 16 << 20;
/// Segments that a start may have to open.
const SEGMENTS: u64 = 16;
/// A merge that failed is tried again after this.
const PAUSE: Duration = Duration::from_secs(60);

pub struct Journal {
    shared: Arc<Shared>,
    /// None: a write failed half-way, the next one begins a segment.
    current: Option<Arc<File>>,
    number: u64,
    /// Where the next record goes in the current segment.
    end: u64,
    /// Sizes of what counts, by the hash of the key.
    live: HashMap<u64, u32, Plain>,
    hasher: RandomState,
    live_bytes: u64,
    restored: std::vec::IntoIter<(String, Place)>,
    buffer: Vec<u8>,
    sync: Duration,
    beside: Option<(mpsc::Sender<Job>, JoinHandle<()>)>,
}

/// What the thread beside the node shares with it.
struct Shared {
    folder: Folder,
    /// A sync is asked for and not begun.
    dirty: AtomicBool,
    merging: AtomicBool,
    /// After one that failed.
    merge_after: Mutex<Option<Instant>>,
    /// Bytes of the segments before the current one, and how many they are.
    old_bytes: AtomicU64,
    old_segments: AtomicU64,
    /// Why the last sync failed.
    failed: Mutex<Option<String>>,
}

enum Job {
    Sync(Arc<File>),
    /// Merge the segments up to this number.
    Merge(u64),
}

impl Journal {
    /// Opens the folder, made when missing. `sync`: how often the disk is told; zero: at each commit, before it returns.
    pub fn open(path: &Path, sync: Duration) -> Result<Self, StartError> {
        let data = |reason| StartError::Data { path: path.into(), reason };
        let folder = Folder::open(path)?;
        let index = rewrite::load(&folder)?;
        let numbers = folder.segments().map_err(data)?;
        let old: io::Result<u64> =
            numbers.iter().map(|n| std::fs::metadata(folder.segment(*n)).map(|meta| meta.len())).sum();
        let shared = Arc::new(Shared {
            folder,
            dirty: AtomicBool::new(false),
            merging: AtomicBool::new(false),
            merge_after: Mutex::new(None),
            old_bytes: AtomicU64::new(old.map_err(data)?),
            old_segments: AtomicU64::new(numbers.len() as u64),
            failed: Mutex::new(None),
        });
        let mut journal = Self {
            current: None,
            number: numbers.last().copied().unwrap_or_default(),
            end: 0,
            live: HashMap::default(),
            hasher: RandomState::new(),
            live_bytes: 0,
            restored: Vec::new().into_iter(),
            buffer: Vec::new(),
            sync,
            beside: Some(beside(shared.clone(), sync).map_err(StartError::System)?),
            shared,
        };
        for (key, place) in &index.places {
            journal.count(key, Some(place.length));
        }
        journal.restored = index.in_order().into_iter();
        journal.rotate().map_err(data)?;
        Ok(journal)
    }

    /// Begins a new segment.
    fn rotate(&mut self) -> io::Result<()> {
        if self.end > 0 {
            self.shared.old_bytes.fetch_add(self.end, Ordering::Relaxed);
            self.shared.old_segments.fetch_add(1, Ordering::Relaxed);
        }
        (self.current, self.end) = (None, 0);
        // So that the next commit asks for a sync of the new one.
        self.shared.dirty.store(false, Ordering::Release);
        let number = self.number + 1;
        let mut file = create(&self.shared.folder.segment(number))?;
        self.number = number;
        file.write_all(&segment::header(false))?;
        (self.current, self.end) = (Some(Arc::new(file)), segment::HEADER as u64);
        Ok(())
    }

    fn count(&mut self, key: &str, value: Option<usize>) {
        let hash = self.hasher.hash_one(key);
        let size = value.map(|length| segment::size(key, length));
        let old = match size {
            Some(size) => self.live.insert(hash, u32::try_from(size).unwrap_or(u32::MAX)),
            None => self.live.remove(&hash),
        };
        self.live_bytes = self.live_bytes + size.unwrap_or(0) - u64::from(old.unwrap_or(0));
    }

    fn append(&mut self, changes: &[Change]) -> io::Result<()> {
        if let Some(reason) = lock(&self.shared.failed).take() {
            return Err(io::Error::other(reason));
        }
        self.buffer.clear();
        for change in changes {
            if !segment::write(&mut self.buffer, &change.key, change.value.as_deref()) {
                warn!(bytes = change.value.as_ref().map(Bytes::len), "an entry is too long to be kept: left out");
            }
        }
        if self.current.is_none() {
            self.rotate()?;
        }
        if let Some(file) = &self.current
            && let Err(error) = file.as_ref().write_all(&self.buffer)
        {
            // What was written of it must not stand before what comes next.
            if file.set_len(self.end).is_err() {
                self.current = None;
            }
            return Err(error);
        }
        self.end += self.buffer.len() as u64;
        if self.buffer.capacity() > SLACK as usize {
            self.buffer = Vec::new();
        }
        for change in changes {
            self.count(&change.key, change.value.as_ref().map(Bytes::len));
        }
        Ok(())
    }

    async fn append_and_sync(&mut self, changes: &[Change]) -> io::Result<()> {
        self.append(changes)?;
        let Some(file) = self.current.clone() else { return Ok(()) };
        if self.sync.is_zero() {
            tokio::task::spawn_blocking(move || file.sync_data()).await.map_err(io::Error::other)??;
        } else if !self.shared.dirty.swap(true, Ordering::AcqRel) {
            self.ask(Job::Sync(file));
        }
        self.merge_if_worth_it();
        Ok(())
    }

    fn ask(&self, job: Job) {
        if let Some((jobs, _)) = &self.beside {
            let _ = jobs.send(job);
        }
    }

    fn merge_if_worth_it(&mut self) {
        let all = self.shared.old_bytes.load(Ordering::Relaxed) + self.end;
        let many = self.shared.old_segments.load(Ordering::Relaxed) > SEGMENTS;
        if all < 2 * self.live_bytes + SLACK && !many {
            return;
        }
        let too_early = lock(&self.shared.merge_after).is_some_and(|at| Instant::now() < at);
        if too_early || self.shared.merging.swap(true, Ordering::AcqRel) {
            return;
        }
        let last = self.number;
        match self.rotate() {
            Ok(()) => self.ask(Job::Merge(last)),
            Err(error) => {
                self.shared.merging.store(false, Ordering::Release);
                debug!(%error, "cannot begin a new segment");
            }
        }
    }
}

impl Keeper for Journal {
    fn restore(&mut self) -> Work<'_, Vec<Kept>> {
        Box::pin(async {
            let next = self.restored.by_ref().take(PORTION);
            let read = |(key, place): (String, Place)| Ok(Kept { key, value: Bytes::from(place.read()?) });
            let portion: Vec<Kept> = next.map(read).collect::<io::Result<_>>().map_err(explain)?;
            if portion.is_empty() {
                self.restored = Vec::new().into_iter();
            }
            Ok(portion)
        })
    }

    fn commit<'a>(&'a mut self, changes: &'a [Change]) -> Work<'a, ()> {
        Box::pin(async {
            let path = self.shared.folder.path().display().to_string();
            self.append_and_sync(changes).await.map_err(|e| KeepError(format!("{path}: {}", explain(e))))
        })
    }

    fn entries(&self) -> usize {
        self.live.len()
    }
}

impl Drop for Journal {
    /// The folder is free when this returns.
    fn drop(&mut self) {
        if let Some((jobs, thread)) = self.beside.take() {
            drop(jobs);
            let _ = thread.join();
        }
    }
}

fn explain(error: io::Error) -> KeepError {
    KeepError(match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "the disk is full: make room".into(),
        io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only: see dmesg, the disk may be failing".into(),
        _ => error.to_string(),
    })
}

/// Syncs and merges until the journal is dropped.
fn beside(shared: Arc<Shared>, interval: Duration) -> io::Result<(mpsc::Sender<Job>, JoinHandle<()>)> {
    let (sender, jobs) = mpsc::channel();
    let run = move || {
        let mut wanted: Option<(Arc<File>, Instant)> = None;
        loop {
            let job = match &wanted {
                None => jobs.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected),
                Some((_, at)) => jobs.recv_timeout(at.saturating_duration_since(Instant::now())),
            };
            match job {
                Ok(Job::Sync(file)) => {
                    sync(&shared, wanted.take());
                    wanted = Some((file, Instant::now() + interval));
                }
                Ok(Job::Merge(last)) => merge(&shared, last),
                Err(mpsc::RecvTimeoutError::Timeout) => sync(&shared, wanted.take()),
                Err(mpsc::RecvTimeoutError::Disconnected) => return sync(&shared, wanted.take()),
            }
        }
    };
    let thread = std::thread::Builder::new().name("keep".into()).spawn(run)?;
    Ok((sender, thread))
}

fn sync(shared: &Shared, wanted: Option<(Arc<File>, Instant)>) {
    let Some((file, _)) = wanted else { return };
    shared.dirty.store(false, Ordering::Release);
    if let Err(error) = file.sync_data() {
        *lock(&shared.failed) = Some(format!("the disk does not take what was written: {}", explain(error)));
    }
}

fn merge(shared: &Shared, last: u64) {
    let started = Instant::now();
    let (bytes, segments) = (shared.old_bytes.load(Ordering::Relaxed), shared.old_segments.load(Ordering::Relaxed));
    match rewrite::merge(&shared.folder, last) {
        Ok(size) => {
            let milliseconds = started.elapsed().as_millis() as u64;
            debug!(from = bytes, to = size, milliseconds, "merged what is kept");
            shared.old_bytes.fetch_add(size.wrapping_sub(bytes), Ordering::Relaxed);
            shared.old_segments.fetch_add(1u64.wrapping_sub(segments), Ordering::Relaxed);
        }
        Err(error) => {
            *lock(&shared.merge_after) = Some(Instant::now() + PAUSE);
            warn!(folder = %shared.folder.path().display(), "cannot merge what is kept, it grows: {}", explain(error));
        }
    }
    shared.merging.store(false, Ordering::Release);
}

/// Keys come hashed already.
type Plain = std::hash::BuildHasherDefault<Hashed>;

#[derive(Default)]
struct Hashed(u64);

impl std::hash::Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0 << 8 | u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    const SYNC: Duration = Duration::from_secs(1);

    /// Removed when it is dropped.
    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("ims-shell-journal-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            Self(path)
        }

        fn open(&self) -> Journal {
            Journal::open(&self.0, SYNC).unwrap()
        }

        fn files(&self) -> Vec<PathBuf> {
            let mut files: Vec<_> = std::fs::read_dir(&self.0).unwrap().map(|e| e.unwrap().path()).collect();
            files.sort();
            files
        }

        fn segment(&self, number: u64) -> PathBuf {
            self.0.join(format!("{number:010}.log"))
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    async fn put(journal: &mut Journal, key: &str, value: &str) {
        let change = Change { key: key.into(), value: Some(Bytes::copy_from_slice(value.as_bytes())) };
        journal.commit(&[change]).await.unwrap();
    }

    async fn forget(journal: &mut Journal, key: &str) {
        journal.commit(&[Change { key: key.into(), value: None }]).await.unwrap();
    }

    async fn all(journal: &mut Journal) -> BTreeMap<String, String> {
        let mut out = BTreeMap::new();
        loop {
            let portion = journal.restore().await.unwrap();
            if portion.is_empty() {
                return out;
            }
            assert!(portion.len() <= PORTION);
            for kept in portion {
                let twice = out.insert(kept.key, String::from_utf8(kept.value.to_vec()).unwrap());
                assert!(twice.is_none());
            }
        }
    }

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[tokio::test]
    async fn what_was_kept_last_comes_back() {
        let place = Place::new("last");
        let mut journal = place.open();
        assert!(all(&mut journal).await.is_empty());
        for (key, value) in [("a", "1"), ("b", "1"), ("a", "2"), ("c", "")] {
            put(&mut journal, key, value).await;
        }
        forget(&mut journal, "b").await;
        forget(&mut journal, "never").await;
        assert_eq!(journal.entries(), 2);
        drop(journal);
        let mut journal = place.open();
        assert_eq!(journal.entries(), 2);
        assert_eq!(all(&mut journal).await, map(&[("a", "2"), ("c", "")]));
        forget(&mut journal, "a").await;
        drop(journal);
        assert_eq!(all(&mut place.open()).await, map(&[("c", "")]), "over several segments");
        for file in place.files() {
            assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
        }
        assert_eq!(std::fs::metadata(&place.0).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[tokio::test]
    async fn two_do_not_share_a_folder() {
        let place = Place::new("lock");
        let first = place.open();
        let error = Journal::open(&place.0, SYNC).err().unwrap();
        assert!(matches!(&error, StartError::InUse { .. }));
        assert!(error.to_string().contains("in use by another process"), "{error}");
        drop(first);
        drop(place.open());
    }

    #[tokio::test]
    async fn a_last_record_that_is_cut_off_is_left_out_wherever_it_is_cut() {
        let place = Place::new("torn");
        let mut journal = place.open();
        put(&mut journal, "a", "one").await;
        let whole = std::fs::metadata(place.segment(1)).unwrap().len();
        put(&mut journal, "b", "two").await;
        drop(journal);
        let full = std::fs::read(place.segment(1)).unwrap();
        for cut in whole as usize..full.len() {
            std::fs::write(place.segment(1), &full[..cut]).unwrap();
            let mut journal = place.open();
            assert_eq!(all(&mut journal).await, map(&[("a", "one")]), "{cut}");
            drop(journal);
            place.files().iter().filter(|f| f.extension().is_some()).for_each(|f| std::fs::remove_file(f).unwrap());
        }
        std::fs::write(place.segment(1), b"ims").unwrap();
        assert!(all(&mut place.open()).await.is_empty(), "not even a header");
    }

    #[tokio::test]
    async fn a_damaged_file_is_moved_aside_and_the_rest_is_there() {
        let place = Place::new("damaged");
        let mut journal = place.open();
        put(&mut journal, "a", "one").await;
        put(&mut journal, "b", "two").await;
        drop(journal);
        let mut journal = place.open();
        put(&mut journal, "c", "three").await;
        drop(journal);
        let mut bytes = std::fs::read(place.segment(1)).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        std::fs::write(place.segment(1), &bytes).unwrap();
        assert_eq!(all(&mut place.open()).await, map(&[("a", "one"), ("c", "three")]));
        assert!(place.0.join("0000000001.damaged").is_file());
        std::fs::write(place.segment(99), b"this is not a journal at all").unwrap();
        assert_eq!(all(&mut place.open()).await, map(&[("a", "one"), ("c", "three")]));
        assert!(place.0.join("0000000099.damaged").is_file());
        assert_eq!(all(&mut place.open()).await, map(&[("a", "one"), ("c", "three")]), "and again");
    }

    #[tokio::test]
    async fn a_later_version_is_not_touched() {
        let place = Place::new("later");
        let mut journal = place.open();
        put(&mut journal, "a", "one").await;
        drop(journal);
        let mut bytes = std::fs::read(place.segment(1)).unwrap();
        bytes[8] = 2;
        std::fs::write(place.segment(1), &bytes).unwrap();
        let error = Journal::open(&place.0, SYNC).err().unwrap();
        assert!(error.to_string().contains("a later version of this program wrote it"), "{error}");
        assert_eq!(std::fs::read(place.segment(1)).unwrap(), bytes);
    }

    #[tokio::test]
    async fn a_write_that_fails_leaves_nothing_half_done() {
        let place = Place::new("fails");
        let mut journal = place.open();
        put(&mut journal, "a", "one").await;
        journal.current = Some(Arc::new(File::open(place.segment(1)).unwrap()));
        let change = [Change { key: "b".into(), value: Some(Bytes::from_static(b"two")) }];
        let error = journal.commit(&change).await.unwrap_err();
        assert!(error.to_string().contains(place.0.to_str().unwrap()), "{error}");
        journal.commit(&change).await.unwrap();
        drop(journal);
        assert_eq!(all(&mut place.open()).await, map(&[("a", "one"), ("b", "two")]));
    }

    #[tokio::test]
    async fn it_does_not_grow_with_what_is_superseded() {
        let place = Place::new("merge");
        let mut journal = place.open();
        let value = "x".repeat(64 << 10);
        put(&mut journal, "stays", "1").await;
        put(&mut journal, "goes", "1").await;
        forget(&mut journal, "goes").await;
        for n in 0..1200 {
            put(&mut journal, &format!("k{}", n % 8), &format!("{n} {value}")).await;
        }
        drop(journal);
        let bytes: u64 = place.files().iter().map(|f| std::fs::metadata(f).unwrap().len()).sum();
        assert!(bytes < 3 * SLACK, "{bytes} bytes of 75 MiB written");
        let mut journal = place.open();
        let kept = all(&mut journal).await;
        assert_eq!(kept.len(), 9);
        assert!(kept["stays"] == "1" && (0..8).all(|n| kept[&format!("k{n}")].starts_with(&format!("{} ", 1192 + n))));
    }

    #[tokio::test]
    async fn many_short_runs_do_not_leave_many_files() {
        let place = Place::new("runs");
        for n in 0..60 {
            put(&mut place.open(), &format!("k{n}"), "1").await;
        }
        assert!(place.files().len() < 25, "{:?}", place.files());
        assert_eq!(all(&mut place.open()).await.len(), 60);
    }

    #[tokio::test]
    async fn with_no_interval_each_commit_is_on_the_disk() {
        let place = Place::new("each");
        let mut journal = Journal::open(&place.0, Duration::ZERO).unwrap();
        put(&mut journal, "a", "one").await;
        drop(journal);
        assert_eq!(all(&mut place.open()).await, map(&[("a", "one")]));
    }

    /// Not a test by itself: the child that [`what_was_committed_survives_kill_9`] kills.
    #[tokio::test]
    async fn child_that_commits_until_killed() {
        let Ok(path) = std::env::var("IMS_SHELL_JOURNAL_CHILD") else { return };
        let mut journal = Journal::open(Path::new(&path), SYNC).unwrap();
        // Large enough that merges happen in the middle of it.
        let filler = "x".repeat(100 << 10);
        for n in 0u64.. {
            put(&mut journal, &format!("k{}", n % 50), &format!("{n} {filler}")).await;
            writeln!(io::stderr().lock(), "committed {n}").unwrap();
        }
    }

    #[tokio::test]
    async fn what_was_committed_survives_kill_9() {
        use std::io::BufRead;
        let place = Place::new("kill");
        for least in [100, 250, 400] {
            let mut child = std::process::Command::new(std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    "keep::journal::tests::child_that_commits_until_killed",
                    "--nocapture",
                    "--test-threads=1",
                ])
                .env("IMS_SHELL_JOURNAL_CHILD", &place.0)
                .stderr(std::process::Stdio::piped())
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap();
            let mut last: u64 = 0;
            for line in io::BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok) {
                last = line.strip_prefix("committed ").and_then(|n| n.parse().ok()).unwrap_or(last);
                if last == least {
                    child.kill().unwrap();
                }
            }
            child.wait().unwrap();
            assert!(last >= least);
            let kept = all(&mut place.open()).await;
            assert_eq!(kept.len(), 50);
            for n in last - 49..=last {
                let value: u64 = kept[&format!("k{}", n % 50)].split(' ').next().unwrap().parse().unwrap();
                assert!(value >= n, "{value} < {n}");
            }
        }
    }
}
