//! Subscriptions in memory, bounded: parsed once, with the keys opened once. Valid as long as this node is the only writer; a
//! version conflict drops an entry.

use crate::credential::Opened;
use crate::store;
use crate::subscriber::{State, Subscription};
use ims_core::{Impi, RequestId};
use std::collections::{BTreeMap, HashMap, VecDeque};

/// One subscription as it is in the store, or becomes when the commit under way is done.
pub(crate) struct Entry {
    pub(crate) record: i64,
    pub(crate) version: u64,
    pub(crate) subscription: Subscription,
    pub(crate) state: State,
    /// Opened credentials, by private identity; filled when first needed.
    pub(crate) opened: Vec<(Impi, Opened)>,
    /// A change of it is on its way to the store.
    pub(crate) busy: bool,
    /// Requests that wait for that change, in order.
    pub(crate) queue: VecDeque<RequestId>,
    used: u64,
}

impl Entry {
    pub(crate) fn new(record: i64, version: u64, subscription: Subscription, state: State) -> Self {
        Self { record, version, subscription, state, opened: Vec::new(), busy: false, queue: VecDeque::new(), used: 0 }
    }
}

#[derive(Default)]
pub(crate) struct Cache {
    entries: HashMap<i64, Entry>,
    by_key: HashMap<String, i64>,
    /// From the least to the most recently used.
    by_use: BTreeMap<u64, i64>,
    clock: u64,
    capacity: usize,
}

impl Cache {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, ..Self::default() }
    }

    pub(crate) fn find(&self, key: &str) -> Option<i64> {
        self.by_key.get(key).copied()
    }

    pub(crate) fn entry(&mut self, record: i64) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(&record)?;
        self.clock += 1;
        self.by_use.remove(&entry.used);
        entry.used = self.clock;
        self.by_use.insert(self.clock, record);
        Some(entry)
    }

    /// Keeps what is there if it is as new, or about to change.
    pub(crate) fn insert(&mut self, entry: Entry) {
        let record = entry.record;
        if let Some(present) = self.entries.get(&record) {
            if present.busy || present.version >= entry.version {
                return;
            }
            self.remove(record);
        }
        self.by_key.extend(store::keys(&entry.subscription).into_iter().map(|key| (key, record)));
        self.entries.insert(record, entry);
        self.entry(record);
    }

    pub(crate) fn remove(&mut self, record: i64) -> Option<Entry> {
        let entry = self.entries.remove(&record)?;
        self.by_use.remove(&entry.used);
        for key in store::keys(&entry.subscription) {
            if self.by_key.get(&key) == Some(&record) {
                self.by_key.remove(&key);
            }
        }
        Some(entry)
    }

    /// Forgets the least recently used ones beyond the capacity; never one that is about to change.
    pub(crate) fn trim(&mut self) {
        let excess = self.entries.len().saturating_sub(self.capacity);
        if excess == 0 {
            return;
        }
        let idle = |id: &&i64| self.entries.get(id).is_some_and(|e| !e.busy && e.queue.is_empty());
        let oldest: Vec<i64> = self.by_use.values().filter(idle).take(excess).copied().collect();
        for record in oldest {
            self.remove(record);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}
