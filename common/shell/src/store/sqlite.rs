//! SQLite in one file, through sqlx.
//!
//! Every statement is a walk to the thread of the database and back, which costs more than SQLite's own work: requests of one kind
//! that stand together are one statement, and a statement that is alone is its own transaction.

use super::{Database, Outcome};
use crate::StartError;
use ims_core::store::{Record, StoreError, StoreReply, StoreRequest};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteRow, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Row};
use std::collections::{HashMap, HashSet};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;
use tracing::{debug, error};

/// Requests in one statement.
const TOGETHER: usize = 32;
/// Records in one listing, whatever was asked for.
const LONGEST_LIST: u32 = 10_000;
/// Pages of the database in memory, in KiB (negative, as SQLite wants it): the upper levels of the keys of a million records.
const CACHE: &str = "-4096";
/// Pages in the write-ahead log before they go to their places in the file: what changes often goes there once.
const CHECKPOINT: &str = "4000";
/// Of the tables; a database of a later one is not touched.
const SCHEMA: i64 = 1;

/// A statement for each number of rows from 1 on.
type ByRows = LazyLock<Vec<String>>;

static LOAD: ByRows = LazyLock::new(|| {
    by_rows("?", |keys| {
        format!(
            "SELECT id, version, body, state, key FROM record_key JOIN record ON id = record_id WHERE key IN ({keys})"
        )
    })
});
static COMMIT: ByRows = LazyLock::new(|| {
    by_rows("(?, ?, ?)", |rows| {
        format!(
            "WITH change (id, version, state) AS (VALUES {rows}) \
             UPDATE record SET state = change.state, version = change.version + 1 FROM change \
             WHERE record.id = change.id AND record.version = change.version RETURNING record.id"
        )
    })
});
static HOLDERS: ByRows =
    LazyLock::new(|| by_rows("?", |keys| format!("SELECT key, record_id FROM record_key WHERE key IN ({keys})")));
static NAME: ByRows = LazyLock::new(|| {
    by_rows("(?, ?)", |rows| format!("INSERT OR REPLACE INTO record_key (key, record_id) VALUES {rows}"))
});

fn by_rows(row: &str, statement: impl Fn(&str) -> String) -> Vec<String> {
    (1..=TOGETHER).map(|rows| statement(&vec![row; rows].join(", "))).collect()
}

fn of_rows(statement: &'static ByRows, rows: usize) -> &'static str {
    statement[rows.clamp(1, TOGETHER) - 1].as_str()
}

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
            .pragma("cache_size", CACHE)
            .pragma("wal_autocheckpoint", CHECKPOINT)
            .busy_timeout(Duration::from_secs(5))
            .statement_cache_capacity(4 * TOGETHER + 32)
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

    #[cfg(test)]
    pub(super) fn prepared(&self) -> usize {
        self.connection.cached_statements_size()
    }

    /// An error means that the whole transaction is lost.
    async fn transaction(&mut self, batch: &[StoreRequest]) -> Result<Vec<Outcome>, sqlx::Error> {
        let is_one = together(batch) == batch.len();
        let reads = batch.iter().all(|r| matches!(r, StoreRequest::Load { .. } | StoreRequest::List { .. }));
        let alone = reads || is_one && matches!(batch, [StoreRequest::Commit { .. }, ..]);
        if !alone {
            self.run("BEGIN IMMEDIATE").await?;
        }
        let mut outcomes = Vec::with_capacity(batch.len());
        let mut rest = batch;
        while let Some(first) = rest.first() {
            let (now, later) = rest.split_at(together(rest));
            match first {
                StoreRequest::Load { .. } => outcomes.extend(self.load(now).await?),
                StoreRequest::Commit { .. } => outcomes.extend(self.commit(now).await?),
                StoreRequest::List { after, limit } => outcomes.push(Ok(self.list(after, *limit).await?)),
                StoreRequest::Insert { sort, keys, body, state } => {
                    outcomes.push(self.insert(sort, keys, body, state).await?);
                }
                StoreRequest::Replace { id, version, sort, keys, body, state } => {
                    outcomes.push(self.replace((*id, *version), sort, keys, body, state).await?);
                }
                StoreRequest::Remove { id, version } => outcomes.push(self.remove(*id, *version).await?),
            }
            rest = later;
        }
        if !alone {
            self.run("COMMIT").await?;
        }
        Ok(outcomes)
    }

    async fn load(&mut self, loads: &[StoreRequest]) -> Result<Vec<Outcome>, sqlx::Error> {
        let keys: Vec<&str> = loads
            .iter()
            .filter_map(|r| if let StoreRequest::Load { key } = r { Some(key.as_str()) } else { None })
            .collect();
        let mut query = sqlx::query(of_rows(&LOAD, keys.len()));
        for key in &keys {
            query = query.bind(*key);
        }
        let mut found = HashMap::new();
        for row in query.fetch_all(&mut self.connection).await? {
            found.insert(row.try_get::<String, _>(4)?, record(&row)?);
        }
        Ok(keys.iter().map(|key| Ok(StoreReply::Loaded(found.get(*key).cloned()))).collect())
    }

    /// No two of them for the same record.
    async fn commit(&mut self, commits: &[StoreRequest]) -> Result<Vec<Outcome>, sqlx::Error> {
        let mut query = sqlx::query(of_rows(&COMMIT, commits.len()));
        for request in commits {
            if let StoreRequest::Commit { id, version, state } = request {
                query = query.bind(id).bind(version.cast_signed()).bind(state.as_slice());
            }
        }
        let rows = query.fetch_all(&mut self.connection).await?;
        let changed: HashSet<i64> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        let outcome = |request: &StoreRequest| match request {
            StoreRequest::Commit { id, version, .. } if changed.contains(id) => {
                Ok(StoreReply::Changed { version: version + 1 })
            }
            _ => Err(StoreError::Conflict),
        };
        Ok(commits.iter().map(outcome).collect())
    }

    async fn list(&mut self, after: &str, limit: u32) -> Result<StoreReply, sqlx::Error> {
        let rows = sqlx::query("SELECT id, version, body, state FROM record WHERE sort > ? ORDER BY sort LIMIT ?")
            .bind(after)
            .bind(limit.min(LONGEST_LIST))
            .fetch_all(&mut self.connection)
            .await?;
        Ok(StoreReply::Listed(rows.iter().map(record).collect::<Result<_, _>>()?))
    }

    async fn insert(&mut self, sort: &str, keys: &[String], body: &[u8], state: &[u8]) -> Result<Outcome, sqlx::Error> {
        if let Some(taken) = self.taken(None, sort, keys).await? {
            return Ok(Err(StoreError::Duplicate(taken)));
        }
        let done = sqlx::query("INSERT INTO record (version, sort, body, state) VALUES (1, ?, ?, ?)")
            .bind(sort)
            .bind(body)
            .bind(state)
            .execute(&mut self.connection)
            .await?;
        let id = done.last_insert_rowid();
        self.name(id, keys).await?;
        Ok(Ok(StoreReply::Inserted { id }))
    }

    async fn replace(
        &mut self,
        (id, version): (i64, u64),
        sort: &str,
        keys: &[String],
        body: &[u8],
        state: &[u8],
    ) -> Result<Outcome, sqlx::Error> {
        let current: Option<i64> = sqlx::query_scalar("SELECT version FROM record WHERE id = ?")
            .bind(id)
            .fetch_optional(&mut self.connection)
            .await?;
        if current != Some(version.cast_signed()) {
            return Ok(Err(StoreError::Conflict));
        }
        if let Some(taken) = self.taken(Some(id), sort, keys).await? {
            return Ok(Err(StoreError::Duplicate(taken)));
        }
        sqlx::query("UPDATE record SET version = version + 1, sort = ?, body = ?, state = ? WHERE id = ?")
            .bind(sort)
            .bind(body)
            .bind(state)
            .bind(id)
            .execute(&mut self.connection)
            .await?;
        sqlx::query("DELETE FROM record_key WHERE record_id = ?").bind(id).execute(&mut self.connection).await?;
        self.name(id, keys).await?;
        Ok(Ok(StoreReply::Changed { version: version + 1 }))
    }

    async fn remove(&mut self, id: i64, version: u64) -> Result<Outcome, sqlx::Error> {
        let gone = sqlx::query("DELETE FROM record WHERE id = ? AND version = ?")
            .bind(id)
            .bind(version.cast_signed())
            .execute(&mut self.connection)
            .await?;
        Ok(if gone.rows_affected() == 1 { Ok(StoreReply::Removed) } else { Err(StoreError::Conflict) })
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
        for keys in keys.chunks(TOGETHER) {
            let mut query = sqlx::query(of_rows(&HOLDERS, keys.len()));
            for key in keys {
                query = query.bind(key);
            }
            let mut others = HashSet::new();
            for row in query.fetch_all(&mut self.connection).await? {
                if Some(row.try_get(1)?) != own {
                    others.insert(row.try_get::<String, _>(0)?);
                }
            }
            if let Some(taken) = keys.iter().find(|key| others.contains(*key)) {
                return Ok(Some(taken.clone()));
            }
        }
        Ok(None)
    }

    /// From now on the record is found by these keys too.
    async fn name(&mut self, id: i64, keys: &[String]) -> Result<(), sqlx::Error> {
        for keys in keys.chunks(TOGETHER) {
            let mut query = sqlx::query(of_rows(&NAME, keys.len()));
            for key in keys {
                query = query.bind(key).bind(id);
            }
            query.execute(&mut self.connection).await?;
        }
        Ok(())
    }

    async fn run(&mut self, statement: &'static str) -> Result<(), sqlx::Error> {
        sqlx::query(statement).execute(&mut self.connection).await.map(drop)
    }
}

/// How many requests, from the first on, go in one statement.
fn together(batch: &[StoreRequest]) -> usize {
    let joins = |n: &usize| match (&batch[0], &batch[*n]) {
        (StoreRequest::Load { .. }, StoreRequest::Load { .. }) => true,
        // The second change of a record has to see the first.
        (StoreRequest::Commit { .. }, StoreRequest::Commit { id, .. }) => {
            !batch[..*n].iter().any(|r| matches!(r, StoreRequest::Commit { id: before, .. } if before == id))
        }
        _ => false,
    };
    (1..batch.len().min(TOGETHER)).take_while(joins).count() + 1
}

impl Database for Sqlite {
    async fn perform(&mut self, batch: &[StoreRequest]) -> Vec<Outcome> {
        let reason = match self.transaction(batch).await {
            Ok(outcomes) => return outcomes,
            Err(reason) => reason,
        };
        error!(%reason, requests = batch.len(), "database transaction failed");
        let _ = self.run("ROLLBACK").await;
        if batch.len() == 1 {
            return vec![Err(StoreError::Unavailable(reason.to_string()))];
        }
        // One of them may be to blame: each alone, so that the others do not suffer for it.
        let mut outcomes = Vec::with_capacity(batch.len());
        for request in batch {
            match self.transaction(std::slice::from_ref(request)).await {
                Ok(mut one) => outcomes.extend(one.pop()),
                Err(reason) => {
                    let _ = self.run("ROLLBACK").await;
                    outcomes.push(Err(StoreError::Unavailable(reason.to_string())));
                }
            }
        }
        outcomes
    }

    async fn rest(&mut self) {
        if let Err(reason) = self.connection.clear_cached_statements().await {
            debug!(%reason, "statements stay prepared");
        }
        if let Err(reason) = sqlx::raw_sql("PRAGMA shrink_memory").execute(&mut self.connection).await {
            debug!(%reason, "the database keeps its memory");
        }
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
