//! The durable store of a node: records found by any of their keys, changed under a version check.
//!
//! One task owns the database of a node. It takes all requests that wait and commits them in one transaction (group commit), and
//! answers only then: what was acknowledged is on disk. A request that fails undoes itself alone.

mod sqlite;

pub(crate) use sqlite::Sqlite;

use crate::inbox::Inbox;
use ims_core::store::{StoreError, StoreReply, StoreRequest};
use ims_core::{Event, RequestId};
use std::time::Duration;
use tokio::sync::mpsc;

/// Requests in one transaction.
const BATCH: usize = 1_024;
/// A database that nobody has asked for so long gives its memory back.
const REST: Duration = Duration::from_secs(20);

pub(crate) struct StoreJob {
    pub(crate) id: RequestId,
    pub(crate) request: StoreRequest,
    pub(crate) inbox: Inbox,
}

type Outcome = Result<StoreReply, StoreError>;

/// A database that can do a batch of requests in order. What it returns as done is on disk.
pub(crate) trait Database: Send + 'static {
    fn perform(&mut self, batch: &[StoreRequest]) -> impl Future<Output = Vec<Outcome>> + Send;
    /// Gives back the memory that only speed needs.
    fn rest(&mut self) -> impl Future<Output = ()> + Send;
    /// Leaves the file in good order.
    fn close(self) -> impl Future<Output = ()> + Send;
}

/// Serves jobs until all senders are gone.
pub(crate) async fn run(mut database: impl Database, mut jobs: mpsc::Receiver<StoreJob>) {
    let mut batch = Vec::with_capacity(BATCH);
    let (mut waiting, mut requests) = (Vec::new(), Vec::new());
    let mut is_awake = true;
    loop {
        let came = jobs.recv_many(&mut batch, BATCH);
        let came = if is_awake { tokio::time::timeout(REST, came).await } else { Ok(came.await) };
        is_awake = came.is_ok();
        match came {
            Ok(0) => break,
            Ok(_) => {}
            Err(_) => {
                (batch, waiting, requests) = (Vec::new(), Vec::new(), Vec::new());
                database.rest().await;
                continue;
            }
        }
        for StoreJob { id, request, inbox } in batch.drain(..) {
            waiting.push((id, inbox));
            requests.push(request);
        }
        for ((id, inbox), result) in waiting.drain(..).zip(database.perform(&requests).await) {
            inbox.push(Event::Stored { id, result });
        }
        requests.clear();
    }
    database.close().await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use ims_core::store::MemoryStore;
    use std::path::{Path, PathBuf};

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("ims-shell-store-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        folder
    }

    fn insert(sort: &str, keys: &[&str]) -> StoreRequest {
        let keys = keys.iter().map(|k| (*k).into()).collect();
        StoreRequest::Insert { sort: sort.into(), keys, body: b"body".into(), state: b"state".into() }
    }

    fn replace(id: i64, version: u64, sort: &str, keys: &[&str]) -> StoreRequest {
        let keys = keys.iter().map(|k| (*k).into()).collect();
        StoreRequest::Replace { id, version, sort: sort.into(), keys, body: b"new".into(), state: b"s".into() }
    }

    fn commit(id: i64, version: u64) -> StoreRequest {
        StoreRequest::Commit { id, version, state: b"later".into() }
    }

    fn load(key: &str) -> StoreRequest {
        StoreRequest::Load { key: key.into() }
    }

    #[tokio::test]
    async fn it_does_what_the_store_in_memory_does() {
        let folder = folder("same");
        let mut sqlite = Sqlite::open(&folder.join("x.db")).await.unwrap();
        let mut memory = MemoryStore::default();
        let list = |after: &str, limit| StoreRequest::List { after: after.into(), limit };
        let steps = vec![
            insert("2", &["a", "b"]),
            insert("1", &["c"]),
            insert("3", &["d", "a"]),
            insert("1", &["e"]),
            load("b"),
            load("d"),
            commit(1, 1),
            commit(1, 1),
            commit(9, 1),
            replace(1, 2, "2", &["b", "f"]),
            replace(1, 2, "2", &["b"]),
            replace(1, 3, "1", &["b"]),
            replace(1, 3, "2", &["c"]),
            load("a"),
            load("f"),
            list("", 10),
            list("1", 10),
            list("", 1),
            StoreRequest::Remove { id: 2, version: 7 },
            StoreRequest::Remove { id: 2, version: 1 },
            load("c"),
            insert("1", &["c"]),
        ];
        for step in &steps {
            let outcome = sqlite.perform(std::slice::from_ref(step)).await.pop().unwrap();
            assert_eq!(outcome, memory.perform(step.clone()), "{step:?}");
            sqlite.rest().await;
            assert_eq!(sqlite.prepared(), 0, "what was given back is made again");
        }
        let (mut sqlite, mut memory) = (Sqlite::open(&folder.join("y.db")).await.unwrap(), MemoryStore::default());
        let expected: Vec<_> = steps.iter().map(|step| memory.perform(step.clone())).collect();
        assert_eq!(sqlite.perform(&steps).await, expected, "and in one transaction: a failure harms no other request");
        std::fs::remove_dir_all(folder).unwrap();
    }

    /// Requests of one kind that stand together go in one statement: each still has its own outcome.
    #[tokio::test]
    async fn many_of_a_kind_in_one_batch_have_each_its_outcome() {
        let folder = folder("many");
        let (mut sqlite, mut memory) = (Sqlite::open(&folder.join("x.db")).await.unwrap(), MemoryStore::default());
        let name = |n: i64| format!("{n:03}");
        let mut steps: Vec<StoreRequest> =
            (1..=100).map(|n| insert(&name(n), &[&format!("k{n}"), &format!("l{n}")])).collect();
        // Each seventh has the wrong version; 50 is asked for twice, the second time with the version that the first makes.
        steps.extend((1..=100).map(|n| commit(n, if n % 7 == 0 { 3 } else { 1 })));
        steps.extend([commit(50, 2), commit(50, 2), commit(101, 1)]);
        steps.extend((0..=101).map(|n| load(&format!("k{n}"))));
        let expected: Vec<_> = steps.iter().map(|step| memory.perform(step.clone())).collect();
        assert_eq!(sqlite.perform(&steps).await, expected);
        assert_eq!(sqlite.perform(&[commit(1, 2), commit(2, 9), commit(3, 2)]).await, {
            let mut ask = |step| memory.perform(step);
            [ask(commit(1, 2)), ask(commit(2, 9)), ask(commit(3, 2))]
        });
        sqlite.close().await;
        std::fs::remove_dir_all(folder).unwrap();
    }

    /// Not a test by itself: the child that [`what_was_acknowledged_survives_kill_9`] kills.
    #[tokio::test]
    async fn child_that_writes_until_killed() {
        use std::io::Write;
        let Ok(path) = std::env::var("IMS_SHELL_STORE_CHILD") else { return };
        let mut store = Sqlite::open(Path::new(&path)).await.unwrap();
        store.perform(&[insert("1", &["a"])]).await.pop().unwrap().unwrap();
        for version in 1.. {
            let done = store.perform(&[commit(1, version)]).await.pop().unwrap().unwrap();
            let StoreReply::Changed { version } = done else { panic!("{done:?}") };
            let mut out = std::io::stderr().lock();
            writeln!(out, "acknowledged {version}").unwrap();
        }
    }

    #[tokio::test]
    async fn what_was_acknowledged_survives_kill_9() {
        use std::io::BufRead;
        let folder = folder("kill");
        let path = folder.join("x.db");
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::tests::child_that_writes_until_killed", "--nocapture", "--test-threads=1"])
            .env("IMS_SHELL_STORE_CHILD", &path)
            .stderr(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let mut acknowledged = 0;
        let mut lines = std::io::BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        for line in lines.by_ref() {
            acknowledged = line.strip_prefix("acknowledged ").and_then(|n| n.parse().ok()).unwrap_or(acknowledged);
            if acknowledged >= 20 {
                child.kill().unwrap();
                break;
            }
        }
        for line in lines {
            acknowledged = line.strip_prefix("acknowledged ").and_then(|n| n.parse().ok()).unwrap_or(acknowledged);
        }
        child.wait().unwrap();
        assert!(acknowledged >= 20);
        let mut store = Sqlite::open(&path).await.unwrap();
        let Ok(StoreReply::Loaded(Some(record))) = store.perform(&[load("a")]).await.pop().unwrap() else { panic!() };
        assert!(record.version >= acknowledged, "{} < {acknowledged}", record.version);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
