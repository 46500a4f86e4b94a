//! What a node asks of its durable store: records found by any of their keys, changed under a version check.

pub mod memory;
pub use memory::MemoryStore;

use crate::node::Unread;
use serde::{Deserialize, Serialize};
use std::fmt;

/// `body` changes by provisioning, `state` with traffic; both are the node's own bytes.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Record {
    pub id: i64,
    /// Rises by one with every change of either part.
    pub version: u64,
    pub body: Vec<u8>,
    pub state: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq)]
pub enum StoreRequest {
    Load {
        key: String,
    },
    /// `sort` orders the listing and is unique (the IMSI of a subscriber).
    Insert {
        sort: String,
        keys: Vec<String>,
        body: Vec<u8>,
        state: Vec<u8>,
    },
    /// A provisioning change: all of it, if the version still holds.
    Replace {
        id: i64,
        version: u64,
        sort: String,
        keys: Vec<String>,
        body: Vec<u8>,
        state: Vec<u8>,
    },
    /// A change by traffic: the state alone, if the version still holds.
    Commit {
        id: i64,
        version: u64,
        state: Vec<u8>,
    },
    Remove {
        id: i64,
        version: u64,
    },
    /// Records whose `sort` is greater than `after`, in that order.
    List {
        after: String,
        limit: u32,
    },
}

/// Answers come after the change is on disk: what was acknowledged survives a crash.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreReply {
    Loaded(Option<Record>),
    Inserted {
        id: i64,
    },
    /// Replaced or committed: the new version.
    Changed {
        version: u64,
    },
    Removed,
    Listed(Vec<Record>),
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the record changed meanwhile")]
    Conflict,
    #[error("the key {0} belongs to another record")]
    Duplicate(String),
    #[error("the store does not answer: {0}")]
    Unavailable(String),
}

/// Without what is stored: keys may be among it.
impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, version, body, state } = self;
        f.debug_tuple("Record").field(id).field(version).field(&Unread(body)).field(&Unread(state)).finish()
    }
}

impl fmt::Debug for StoreRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Load { key } => f.debug_tuple("Load").field(key).finish(),
            Self::Insert { sort, keys, body, state } => {
                f.debug_tuple("Insert").field(sort).field(keys).field(&Unread(body)).field(&Unread(state)).finish()
            }
            Self::Replace { id, version, sort, keys, body, state } => f
                .debug_tuple("Replace")
                .field(id)
                .field(version)
                .field(sort)
                .field(keys)
                .field(&Unread(body))
                .field(&Unread(state))
                .finish(),
            Self::Commit { id, version, state } => {
                f.debug_tuple("Commit").field(id).field(version).field(&Unread(state)).finish()
            }
            Self::Remove { id, version } => f.debug_tuple("Remove").field(id).field(version).finish(),
            Self::List { after, limit } => f.debug_tuple("List").field(after).field(limit).finish(),
        }
    }
}
