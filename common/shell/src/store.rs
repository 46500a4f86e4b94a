//! The durable store of a node: records found by any of their keys, changed under a version check.
//!
//! One task owns the database of a node. It takes all requests that wait and commits them in one transaction (group commit), and
//! answers only then: what was acknowledged is on disk. A request that fails undoes itself alone.

use crate::StartError;
use crate::inbox::Inbox;
use ims_core::store::{Record, StoreError, StoreReply, StoreRequest};
use ims_core::{Event, RequestId};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteRow, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Row};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;
use tokio::sync::mpsc;
use tracing::error;

/// Requests in one transaction.
const BATCH: usize = 256;
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
    fn perform(&mut self, batch: Vec<StoreRequest>) -> impl Future<Output = Vec<Outcome>> + Send;
    /// Leaves the file in good order.
    fn close(self) -> impl Future<Output = ()> + Send;
}

/// Serves jobs until all senders are gone.
pub(crate) async fn run(mut database: impl Database, mut jobs: mpsc::Receiver<StoreJob>) {
    let mut batch = Vec::with_capacity(BATCH);
    while jobs.recv_many(&mut batch, BATCH).await > 0 {
        let mut waiting = Vec::with_capacity(batch.len());
        let mut requests = Vec::with_capacity(batch.len());
        for StoreJob { id, request, inbox } in batch.drain(..) {
            waiting.push((id, inbox));
            requests.push(request);
        }
        for ((id, inbox), result) in waiting.into_iter().zip(database.perform(requests).await) {
            inbox.push(Event::Stored { id, result });
        }
    }
    database.close().await;
}

/// SQLite in one file.
pub(crate) struct Sqlite {
    connection: SqliteConnection,
}

impl Sqlite {
    pub(crate) async fn open(path: &Path) -> Result<Self, StartError> {
        let failed = |reason: String| StartError::Store { path: path.into(), reason };
        if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(|reason| StartError::Data { path: folder.into(), reason })?;
        }
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(5))
            .disable_statement_logging();
        let mut connection = options.connect().await.map_err(|e| failed(e.to_string()))?;
        let _ = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600));
        let known: i64 = sqlx::query_scalar("PRAGMA user_version")
            .fetch_one(&mut connection)
            .await
            .map_err(|e| failed(e.to_string()))?;
        if known > SCHEMA {
            return Err(failed("a later version of this program made it: use that one, or another file".into()));
        }
        sqlx::raw_sql(TABLES).execute(&mut connection).await.map_err(|e| failed(e.to_string()))?;
        Ok(Self { connection })
    }

    async fn transaction(&mut self, batch: &[StoreRequest]) -> Result<Vec<Outcome>, sqlx::Error> {
        sqlx::query("BEGIN IMMEDIATE").execute(&mut self.connection).await?;
        let mut outcomes = Vec::with_capacity(batch.len());
        for request in batch {
            outcomes.push(self.one(request).await?);
        }
        sqlx::query("COMMIT").execute(&mut self.connection).await?;
        Ok(outcomes)
    }

    /// An outer error means that the whole transaction is lost.
    async fn one(&mut self, request: &StoreRequest) -> Result<Outcome, sqlx::Error> {
        match request {
            StoreRequest::Load { key } => self.load(key).await.map(Ok),
            StoreRequest::List { after, limit } => self.list(after, *limit).await.map(Ok),
            StoreRequest::Commit { id, version, state } => self.commit(*id, *version, state).await,
            StoreRequest::Insert { sort, keys, body, state } => {
                if let Some(taken) = self.taken(None, sort, keys).await? {
                    return Ok(Err(StoreError::Duplicate(taken)));
                }
                let id = self.insert(sort, body, state).await?;
                self.insert_keys(id, keys).await?;
                Ok(Ok(StoreReply::Inserted { id }))
            }
            StoreRequest::Replace { id, version, sort, keys, body, state } => {
                if !self.is_current(*id, *version).await? {
                    return Ok(Err(StoreError::Conflict));
                }
                if let Some(taken) = self.taken(Some(*id), sort, keys).await? {
                    return Ok(Err(StoreError::Duplicate(taken)));
                }
                self.replace(*id, sort, body, state).await?;
                self.insert_keys(*id, keys).await?;
                Ok(Ok(StoreReply::Changed { version: version + 1 }))
            }
            StoreRequest::Remove { id, version } => {
                let gone = sqlx::query("DELETE FROM record WHERE id = ? AND version = ?")
                    .bind(id)
                    .bind(version.cast_signed())
                    .execute(&mut self.connection)
                    .await?;
                Ok(if gone.rows_affected() == 1 { Ok(StoreReply::Removed) } else { Err(StoreError::Conflict) })
            }
        }
    }

    async fn load(&mut self, key: &str) -> Result<StoreReply, sqlx::Error> {
        let row = sqlx::query(
            "SELECT id, version, body, state FROM record WHERE id = (SELECT record_id FROM record_key WHERE key = ?)",
        )
        .bind(key)
        .fetch_optional(&mut self.connection)
        .await?;
        Ok(StoreReply::Loaded(row.as_ref().map(record).transpose()?))
    }

    async fn list(&mut self, after: &str, limit: u32) -> Result<StoreReply, sqlx::Error> {
        let rows = sqlx::query("SELECT id, version, body, state FROM record WHERE sort > ? ORDER BY sort LIMIT ?")
            .bind(after)
            .bind(limit.min(LONGEST_LIST))
            .fetch_all(&mut self.connection)
            .await?;
        Ok(StoreReply::Listed(rows.iter().map(record).collect::<Result<_, _>>()?))
    }

    async fn commit(&mut self, id: i64, version: u64, state: &[u8]) -> Result<Outcome, sqlx::Error> {
        let changed = sqlx::query("UPDATE record SET state = ?, version = version + 1 WHERE id = ? AND version = ?")
            .bind(state)
            .bind(id)
            .bind(version.cast_signed())
            .execute(&mut self.connection)
            .await?;
        let hit = changed.rows_affected() == 1;
        Ok(if hit { Ok(StoreReply::Changed { version: version + 1 }) } else { Err(StoreError::Conflict) })
    }

    async fn is_current(&mut self, id: i64, version: u64) -> Result<bool, sqlx::Error> {
        let found: Option<i64> = sqlx::query_scalar("SELECT version FROM record WHERE id = ?")
            .bind(id)
            .fetch_optional(&mut self.connection)
            .await?;
        Ok(found == Some(version.cast_signed()))
    }

    /// The first of `sort` and `keys` that belongs to a record other than `own`.
    async fn taken(&mut self, own: Option<i64>, sort: &str, keys: &[String]) -> Result<Option<String>, sqlx::Error> {
        let holder: Option<i64> = sqlx::query_scalar("SELECT id FROM record WHERE sort = ?")
            .bind(sort)
            .fetch_optional(&mut self.connection)
            .await?;
        if holder.is_some() && holder != own {
            return Ok(Some(sort.into()));
        }
        for key in keys {
            let holder: Option<i64> = sqlx::query_scalar("SELECT record_id FROM record_key WHERE key = ?")
                .bind(key)
                .fetch_optional(&mut self.connection)
                .await?;
            if holder.is_some() && holder != own {
                return Ok(Some(key.clone()));
            }
        }
        Ok(None)
    }

    async fn insert(&mut self, sort: &str, body: &[u8], state: &[u8]) -> Result<i64, sqlx::Error> {
        let done = sqlx::query("INSERT INTO record (version, sort, body, state) VALUES (1, ?, ?, ?)")
            .bind(sort)
            .bind(body)
            .bind(state)
            .execute(&mut self.connection)
            .await?;
        Ok(done.last_insert_rowid())
    }

    async fn replace(&mut self, id: i64, sort: &str, body: &[u8], state: &[u8]) -> Result<(), sqlx::Error> {
        sqlx::query("UPDATE record SET version = version + 1, sort = ?, body = ?, state = ? WHERE id = ?")
            .bind(sort)
            .bind(body)
            .bind(state)
            .bind(id)
            .execute(&mut self.connection)
            .await?;
        sqlx::query("DELETE FROM record_key WHERE record_id = ?").bind(id).execute(&mut self.connection).await?;
        Ok(())
    }

    async fn insert_keys(&mut self, id: i64, keys: &[String]) -> Result<(), sqlx::Error> {
        for key in keys {
            sqlx::query("INSERT OR REPLACE INTO record_key (key, record_id) VALUES (?, ?)")
                .bind(key)
                .bind(id)
                .execute(&mut self.connection)
                .await?;
        }
        Ok(())
    }
}

impl Database for Sqlite {
    async fn perform(&mut self, batch: Vec<StoreRequest>) -> Vec<Outcome> {
        let reason = match self.transaction(&batch).await {
            Ok(outcomes) => return outcomes,
            Err(reason) => reason,
        };
        error!(%reason, requests = batch.len(), "database transaction failed");
        let _ = sqlx::query("ROLLBACK").execute(&mut self.connection).await;
        if batch.len() == 1 {
            return vec![Err(StoreError::Unavailable(reason.to_string()))];
        }
        // One of them may be to blame: each alone, so that the others do not suffer for it.
        let mut outcomes = Vec::with_capacity(batch.len());
        for request in batch {
            match self.transaction(std::slice::from_ref(&request)).await {
                Ok(mut one) => outcomes.extend(one.pop()),
                Err(reason) => {
                    let _ = sqlx::query("ROLLBACK").execute(&mut self.connection).await;
                    outcomes.push(Err(StoreError::Unavailable(reason.to_string())));
                }
            }
        }
        outcomes
    }

    async fn close(self) {
        let _ = self.connection.close().await;
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

fn record(row: &SqliteRow) -> Result<Record, sqlx::Error> {
    let version: i64 = row.try_get(1)?;
    Ok(Record { id: row.try_get(0)?, version: version.cast_unsigned(), body: row.try_get(2)?, state: row.try_get(3)? })
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
            let outcome = sqlite.perform(vec![step.clone()]).await.pop().unwrap();
            assert_eq!(outcome, memory.perform(step.clone()), "{step:?}");
        }
        let (mut sqlite, mut memory) = (Sqlite::open(&folder.join("y.db")).await.unwrap(), MemoryStore::default());
        let expected: Vec<_> = steps.iter().map(|step| memory.perform(step.clone())).collect();
        assert_eq!(sqlite.perform(steps).await, expected, "and in one transaction: a failure harms no other request");
        std::fs::remove_dir_all(folder).unwrap();
    }

    /// Not a test by itself: the child that [`what_was_acknowledged_survives_kill_9`] kills.
    #[tokio::test]
    async fn child_that_writes_until_killed() {
        use std::io::Write;
        let Ok(path) = std::env::var("IMS_SHELL_STORE_CHILD") else { return };
        let mut store = Sqlite::open(Path::new(&path)).await.unwrap();
        store.perform(vec![insert("1", &["a"])]).await.pop().unwrap().unwrap();
        for version in 1.. {
            let done = store.perform(vec![commit(1, version)]).await.pop().unwrap().unwrap();
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
        let Ok(StoreReply::Loaded(Some(record))) = store.perform(vec![load("a")]).await.pop().unwrap() else {
            panic!()
        };
        assert!(record.version >= acknowledged, "{} < {acknowledged}", record.version);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
