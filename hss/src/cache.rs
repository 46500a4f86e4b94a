//! Subscriptions in memory, bounded: parsed once, with the keys opened once. Valid as long as this node is the only writer; a
//! version conflict has an entry read again.

use crate::credential::Opened;
use crate::store;
use crate::subscriber::{Scscf, Scscfs, State, Subscription};
use ims_core::hash::give_back;
use ims_core::{Impi, RequestId, Time};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// One subscription as it is in the store, or becomes when the changes under way are done.
pub(crate) struct Entry {
    pub(crate) record: i64,
    pub(crate) version: u64,
    pub(crate) subscription: Subscription,
    pub(crate) state: State,
    /// Opened credentials, by private identity; filled when first needed.
    pub(crate) opened: Vec<(Impi, Opened)>,
    /// A change of it is on its way to the store, and an answer waits for it.
    pub(crate) busy: bool,
    /// Requests that wait for a change under way, in order.
    pub(crate) queue: VecDeque<RequestId>,
    /// Sequence numbers that were handed out and that the store has not acknowledged.
    pub(crate) ahead: u64,
    /// A change that is still to be written behind the answer.
    pub(crate) unwritten: bool,
    /// Such a change is on its way.
    pub(crate) writing: bool,
    /// The store may have something else: to be read again before it is used.
    pub(crate) stale: bool,
    used_at: Time,
    /// Its place in `turns`.
    turn: u64,
}

impl Entry {
    pub(crate) fn new(record: i64, version: u64, subscription: Subscription, state: State) -> Self {
        Self {
            record,
            version,
            subscription,
            state,
            opened: Vec::new(),
            busy: false,
            queue: VecDeque::new(),
            ahead: 0,
            unwritten: false,
            writing: false,
            stale: false,
            used_at: Time::EPOCH,
            turn: 0,
        }
    }

    /// It holds nothing that is not in the store, and nobody waits for it.
    fn is_idle(&self) -> bool {
        !self.busy && !self.writing && !self.unwritten && self.queue.is_empty()
    }

    /// What was handed out stays handed out when the record is read again.
    fn go_on_from(&mut self, before: Entry, most_ahead: u64) {
        self.queue = before.queue;
        if before.ahead == 0 && !before.unwritten {
            return;
        }
        self.state.go_on_from(&before.state, &self.subscription);
        self.ahead = most_ahead;
        self.unwritten = true;
    }
}

/// What looks for one to forget goes on at the next event after so many.
const LOOKED_AT_ONCE: usize = 64;

/// An entry's place in the queue: when it came there, and whose it is.
#[derive(Clone, Copy)]
struct Turn {
    since: Time,
    turn: u64,
    record: i64,
}

/// Those go that were not used for a while; and when there are too many, those that were not used since their turn came last
/// (second chance).
#[derive(Default)]
pub(crate) struct Cache {
    /// Boxed: the table has room for more than is in it.
    entries: HashMap<i64, Box<Entry>>,
    /// By the hash of the key, which is looked at again in what is found. Of two with one hash the later is found, and the other read
    /// from the store.
    by_key: HashMap<u64, i64>,
    hasher: RandomState,
    scscfs: Scscfs,
    /// Each entry once, and what is left of removed ones.
    turns: VecDeque<Turn>,
    last_turn: u64,
    capacity: usize,
    /// For how long one that is not used is kept; None: as long as there is room.
    idle: Option<Duration>,
    unwritten: usize,
    now: Time,
}

impl Cache {
    pub(crate) fn new(capacity: usize, idle: Duration) -> Self {
        Self { capacity, idle: Some(idle).filter(|idle| !idle.is_zero()), ..Self::default() }
    }

    pub(crate) fn set_clock(&mut self, now: Time) {
        self.now = now;
    }

    /// When one may have been unused for long enough.
    pub(crate) fn deadline(&self) -> Option<Time> {
        Some(self.turns.front()?.since + self.idle?)
    }

    pub(crate) fn find(&self, key: &str) -> Option<i64> {
        let record = *self.by_key.get(&self.hasher.hash_one(key))?;
        self.entries.get(&record).filter(|entry| store::is_key_of(key, &entry.subscription)).map(|_| record)
    }

    /// The S-CSCF as the others here know it.
    pub(crate) fn scscf(&mut self, scscf: Scscf) -> Scscf {
        self.scscfs.same(scscf)
    }

    pub(crate) fn entry(&mut self, record: i64) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(&record)?;
        entry.used_at = self.now;
        Some(&mut **entry)
    }

    /// Without counting as a use.
    pub(crate) fn peek(&self, record: i64) -> Option<&Entry> {
        self.entries.get(&record).map(|entry| &**entry)
    }

    /// Keeps what is there if it is as new, or about to change. `most_ahead` is the size of the window.
    pub(crate) fn insert(&mut self, mut entry: Entry, most_ahead: u64) {
        let record = entry.record;
        if let Some(present) = self.entries.get(&record) {
            if present.busy || present.writing || !present.stale && present.version >= entry.version {
                return;
            }
            if let Some(before) = self.remove(record) {
                entry.go_on_from(before, most_ahead);
            }
        }
        self.unwritten += usize::from(entry.unwritten);
        entry.state.share(&entry.subscription, &mut self.scscfs);
        let hashes = store::keys(&entry.subscription).into_iter().map(|key| self.hasher.hash_one(key));
        self.by_key.extend(hashes.map(|hash| (hash, record)));
        self.last_turn += 1;
        (entry.turn, entry.used_at) = (self.last_turn, self.now);
        self.turns.push_back(Turn { since: self.now, turn: entry.turn, record });
        self.entries.insert(record, Box::new(entry));
        self.sweep();
    }

    pub(crate) fn remove(&mut self, record: i64) -> Option<Entry> {
        let entry = self.entries.remove(&record)?;
        self.unwritten -= usize::from(entry.unwritten);
        for key in store::keys(&entry.subscription) {
            let hash = self.hasher.hash_one(key);
            if self.by_key.get(&hash) == Some(&record) {
                self.by_key.remove(&hash);
            }
        }
        Some(*entry)
    }

    /// Says whether the entry has a change that is still to be written; true if that is news.
    pub(crate) fn set_unwritten(&mut self, record: i64, unwritten: bool) -> bool {
        let Some(entry) = self.entries.get_mut(&record).filter(|entry| entry.unwritten != unwritten) else {
            return false;
        };
        entry.unwritten = unwritten;
        if unwritten {
            self.unwritten += 1;
        } else {
            self.unwritten -= 1;
        }
        true
    }

    /// How many have a change that is still to be written.
    pub(crate) fn unwritten(&self) -> usize {
        self.unwritten
    }

    /// Forgets some that were not used lately; never one that holds what the store does not have.
    pub(crate) fn trim(&mut self) {
        for _ in 0..LOOKED_AT_ONCE {
            let is_due = self.deadline().is_some_and(|at| at <= self.now);
            let is_full = self.entries.len() > self.capacity;
            if !is_due && !is_full {
                break;
            }
            let Some(Turn { since, turn, record }) = self.turns.pop_front() else { return };
            let Some(entry) = self.entries.get(&record).filter(|entry| entry.turn == turn) else { continue };
            let is_unused = self.idle.is_some_and(|idle| entry.used_at + idle <= self.now);
            let had_its_chance = is_full && entry.used_at <= since;
            if entry.is_idle() && (is_unused || had_its_chance) {
                self.remove(record);
            } else {
                self.turns.push_back(Turn { since: self.now, turn, record });
            }
        }
        give_back(&mut self.entries);
        give_back(&mut self.by_key);
        if self.turns.capacity() > 8 * self.turns.len().max(32) {
            self.turns.shrink_to(2 * self.turns.len());
        }
    }

    /// Of removed entries no more is left than there are entries.
    fn sweep(&mut self) {
        if self.turns.len() > 2 * self.entries.len() + 64 {
            let entries = &self.entries;
            self.turns.retain(|at| entries.get(&at.record).is_some_and(|entry| entry.turn == at.turn));
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}
