//! The durable store of a node: records found by any of their keys, changed under a version check.
//!
//! One thread owns the database of a node. It takes all requests that wait and commits them in one transaction (group commit), and
//! answers only then: what was acknowledged is on disk. A request that fails undoes itself alone.

use crate::StartError;
use crate::inbox::Inbox;
use ims_core::store::{Record, StoreError, StoreReply, StoreRequest};
use ims_core::{Event, RequestId};
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;
use tokio::sync::mpsc;
use tracing::error;

/// Requests in one transaction.
const BATCH: usize = 1_024;
/// Records in one listing, whatever was asked for.
const LONGEST_LIST: u32 = 10_000;
/// Of the tables; a database of a later one is not touched.
const SCHEMA: i64 = 1;

pub(crate) struct StoreJob {
    pub(crate) id: RequestId,
    pub(crate) request: StoreRequest,
    pub(crate) inbox: Inbox,
}

type Outcome = Result<StoreReply, StoreError>;

/// A database that can do a batch of requests in order. What it returns as done is on disk.
pub(crate) trait Database: Send + 'static {
    fn perform(&mut self, batch: &[StoreRequest]) -> Vec<Outcome>;
    /// Leaves the file in good order.
    fn close(self);
}

/// Serves jobs until all senders are gone. It waits for the disk: for a thread of its own.
pub(crate) fn run(mut database: impl Database, mut jobs: mpsc::Receiver<StoreJob>) {
    let mut batch = Vec::with_capacity(BATCH);
    let (mut waiting, mut requests) = (Vec::new(), Vec::new());
    while jobs.blocking_recv_many(&mut batch, BATCH) > 0 {
        for StoreJob { id, request, inbox } in batch.drain(..) {
            waiting.push((id, inbox));
            requests.push(request);
        }
        for ((id, inbox), result) in waiting.drain(..).zip(database.perform(&requests)) {
            inbox.push(Event::Stored { id, result });
        }
        requests.clear();
    }
    database.close();
}

/// SQLite in one file.
pub(crate) struct Sqlite {
    connection: Connection,
}

impl Sqlite {
    pub(crate) fn open(path: &Path) -> Result<Self, StartError> {
        let failed = |reason: String| StartError::Store { path: path.into(), reason };
        if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(|reason| StartError::Data { path: folder.into(), reason })?;
        }
        let connection = Connection::open(path).map_err(|e| failed(e.to_string()))?;
        let _ = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600));
        let known = prepare(&connection).map_err(|e| failed(e.to_string()))?;
        if known > SCHEMA {
            return Err(failed("a later version of this program made it: use that one, or another file".into()));
        }
        connection.execute_batch(TABLES).map_err(|e| failed(e.to_string()))?;
        Ok(Self { connection })
    }

    fn transaction(&self, batch: &[StoreRequest]) -> rusqlite::Result<Vec<Outcome>> {
        self.execute("BEGIN IMMEDIATE", [])?;
        let outcomes = batch.iter().map(|request| self.one(request)).collect::<Result<_, _>>()?;
        self.execute("COMMIT", [])?;
        Ok(outcomes)
    }

    /// An outer error means that the whole transaction is lost.
    fn one(&self, request: &StoreRequest) -> rusqlite::Result<Outcome> {
        match request {
            StoreRequest::Load { key } => self.load(key).map(Ok),
            StoreRequest::List { after, limit } => self.list(after, *limit).map(Ok),
            StoreRequest::Commit { id, version, state } => self.commit(*id, *version, state),
            StoreRequest::Insert { sort, keys, body, state } => {
                if let Some(taken) = self.taken(None, sort, keys)? {
                    return Ok(Err(StoreError::Duplicate(taken)));
                }
                let id = self.insert(sort, body, state)?;
                self.insert_keys(id, keys)?;
                Ok(Ok(StoreReply::Inserted { id }))
            }
            StoreRequest::Replace { id, version, sort, keys, body, state } => {
                if !self.is_current(*id, *version)? {
                    return Ok(Err(StoreError::Conflict));
                }
                if let Some(taken) = self.taken(Some(*id), sort, keys)? {
                    return Ok(Err(StoreError::Duplicate(taken)));
                }
                self.replace(*id, sort, body, state)?;
                self.insert_keys(*id, keys)?;
                Ok(Ok(StoreReply::Changed { version: version + 1 }))
            }
            StoreRequest::Remove { id, version } => {
                let gone = self
                    .execute("DELETE FROM record WHERE id = ? AND version = ?", params![id, version.cast_signed()])?;
                Ok(if gone == 1 { Ok(StoreReply::Removed) } else { Err(StoreError::Conflict) })
            }
        }
    }

    fn load(&self, key: &str) -> rusqlite::Result<StoreReply> {
        let found = self
            .connection
            .prepare_cached(
                "SELECT id, version, body, state FROM record WHERE id = (SELECT record_id FROM record_key WHERE key = ?)",
            )?
            .query_row([key], record)
            .optional()?;
        Ok(StoreReply::Loaded(found))
    }

    fn list(&self, after: &str, limit: u32) -> rusqlite::Result<StoreReply> {
        let found = self
            .connection
            .prepare_cached("SELECT id, version, body, state FROM record WHERE sort > ? ORDER BY sort LIMIT ?")?
            .query_map(params![after, limit.min(LONGEST_LIST)], record)?
            .collect::<Result<_, _>>()?;
        Ok(StoreReply::Listed(found))
    }

    fn commit(&self, id: i64, version: u64, state: &[u8]) -> rusqlite::Result<Outcome> {
        let changed = self.execute(
            "UPDATE record SET state = ?, version = version + 1 WHERE id = ? AND version = ?",
            params![state, id, version.cast_signed()],
        )?;
        Ok(if changed == 1 { Ok(StoreReply::Changed { version: version + 1 }) } else { Err(StoreError::Conflict) })
    }

    fn is_current(&self, id: i64, version: u64) -> rusqlite::Result<bool> {
        Ok(self.number("SELECT version FROM record WHERE id = ?", [id])? == Some(version.cast_signed()))
    }

    /// The first of `sort` and `keys` that belongs to a record other than `own`.
    fn taken(&self, own: Option<i64>, sort: &str, keys: &[String]) -> rusqlite::Result<Option<String>> {
        let holder = self.number("SELECT id FROM record WHERE sort = ?", [sort])?;
        if holder.is_some() && holder != own {
            return Ok(Some(sort.into()));
        }
        for key in keys {
            let holder = self.number("SELECT record_id FROM record_key WHERE key = ?", [key])?;
            if holder.is_some() && holder != own {
                return Ok(Some(key.clone()));
            }
        }
        Ok(None)
    }

    fn insert(&self, sort: &str, body: &[u8], state: &[u8]) -> rusqlite::Result<i64> {
        self.execute(
            "INSERT INTO record (version, sort, body, state) VALUES (1, ?, ?, ?)",
            params![sort, body, state],
        )?;
        Ok(self.connection.last_insert_rowid())
    }

    fn replace(&self, id: i64, sort: &str, body: &[u8], state: &[u8]) -> rusqlite::Result<()> {
        self.execute(
            "UPDATE record SET version = version + 1, sort = ?, body = ?, state = ? WHERE id = ?",
            params![sort, body, state, id],
        )?;
        self.execute("DELETE FROM record_key WHERE record_id = ?", [id])?;
        Ok(())
    }

    fn insert_keys(&self, id: i64, keys: &[String]) -> rusqlite::Result<()> {
        for key in keys {
            self.execute("INSERT OR REPLACE INTO record_key (key, record_id) VALUES (?, ?)", params![key, id])?;
        }
        Ok(())
    }

    /// Runs a statement that is prepared once; gives the number of rows that it changed.
    fn execute(&self, sql: &str, params: impl rusqlite::Params) -> rusqlite::Result<usize> {
        self.connection.prepare_cached(sql)?.execute(params)
    }

    fn number(&self, sql: &str, params: impl rusqlite::Params) -> rusqlite::Result<Option<i64>> {
        self.connection.prepare_cached(sql)?.query_row(params, |row| row.get(0)).optional()
    }
}

/// Sets the connection up; gives the version of the tables in the file.
fn prepare(connection: &Connection) -> rusqlite::Result<i64> {
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.set_prepared_statement_cache_capacity(32);
    // FULL: the log is flushed at every commit, so that what was acknowledged survives a power failure too.
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;")?;
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

impl Database for Sqlite {
    fn perform(&mut self, batch: &[StoreRequest]) -> Vec<Outcome> {
        let reason = match self.transaction(batch) {
            Ok(outcomes) => return outcomes,
            Err(reason) => reason,
        };
        error!(%reason, requests = batch.len(), "database transaction failed");
        let _ = self.connection.execute_batch("ROLLBACK");
        if batch.len() == 1 {
            return vec![Err(StoreError::Unavailable(reason.to_string()))];
        }
        // One of them may be to blame: each alone, so that the others do not suffer for it.
        let mut outcomes = Vec::with_capacity(batch.len());
        for request in batch {
            match self.transaction(std::slice::from_ref(request)) {
                Ok(mut one) => outcomes.extend(one.pop()),
                Err(reason) => {
                    let _ = self.connection.execute_batch("ROLLBACK");
                    outcomes.push(Err(StoreError::Unavailable(reason.to_string())));
                }
            }
        }
        outcomes
    }

    fn close(self) {
        let _ = self.connection.close();
    }
}

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS record (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        version INTEGER NOT NULL,
        sort TEXT NOT NULL UNIQUE,
        body BLOB NOT NULL,
        state BLOB NOT NULL
    );
    CREATE TABLE IF NOT EXISTS record_key (
        key TEXT PRIMARY KEY,
        record_id INTEGER NOT NULL REFERENCES record (id) ON DELETE CASCADE
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS record_key_of ON record_key (record_id);
    PRAGMA user_version = 1;
";

fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    let version: i64 = row.get(1)?;
    Ok(Record { id: row.get(0)?, version: version.cast_unsigned(), body: row.get(2)?, state: row.get(3)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ims_core::store::MemoryStore;
    use std::path::PathBuf;

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

    #[test]
    fn it_does_what_the_store_in_memory_does() {
        let folder = folder("same");
        let mut sqlite = Sqlite::open(&folder.join("x.db")).unwrap();
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
            let outcome = sqlite.perform(&[step.clone()]).pop().unwrap();
            assert_eq!(outcome, memory.perform(step.clone()), "{step:?}");
        }
        let (mut sqlite, mut memory) = (Sqlite::open(&folder.join("y.db")).unwrap(), MemoryStore::default());
        let expected: Vec<_> = steps.iter().map(|step| memory.perform(step.clone())).collect();
        assert_eq!(sqlite.perform(&steps), expected, "and in one transaction: a failure harms no other request");
        std::fs::remove_dir_all(folder).unwrap();
    }

    /// Not a test by itself: the child that [`what_was_acknowledged_survives_kill_9`] kills.
    #[test]
    fn child_that_writes_until_killed() {
        use std::io::Write;
        let Ok(path) = std::env::var("IMS_SHELL_STORE_CHILD") else { return };
        let mut store = Sqlite::open(Path::new(&path)).unwrap();
        store.perform(&[insert("1", &["a"])]).pop().unwrap().unwrap();
        for version in 1.. {
            let done = store.perform(&[commit(1, version)]).pop().unwrap().unwrap();
            let StoreReply::Changed { version } = done else { panic!("{done:?}") };
            let mut out = std::io::stderr().lock();
            writeln!(out, "acknowledged {version}").unwrap();
        }
    }

    #[test]
    fn what_was_acknowledged_survives_kill_9() {
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
        let mut store = Sqlite::open(&path).unwrap();
        let Ok(StoreReply::Loaded(Some(record))) = store.perform(&[load("a")]).pop().unwrap() else { panic!() };
        assert!(record.version >= acknowledged, "{} < {acknowledged}", record.version);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
