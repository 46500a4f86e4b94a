//! Writing behind the answer: what an MAR changes, sequence numbers and pending authentications, is answered at once and written
//! within `write_behind`, unless a SAR writes it before. All other changes are on disk before they are answered.
//!
//! No sequence number is handed out twice all the same. The store counts the runs of the HSS, and each record says in which run
//! it was written. In one run the numbers of a subscriber get ahead of what the store has acknowledged by [`WINDOW`] at most;
//! whoever would go beyond waits for the disk. A record that is read in a later run goes on beyond the window of each run since
//! ([`crate::subscriber::State::catch_up`]). Within a run, nothing leaves the memory before it is written.
//!
//! A crash may so lose that an authentication is pending. The handset's answer to the challenge then goes to the S-CSCF that the
//! I-CSCF finds, as a first registration does: the same one takes it, another one asks for a new challenge.

use crate::cache::Entry;
use crate::cx::Change;
use crate::error::Refusal;
use crate::{Hss, service, store};
use ims_core::store::{Record, StoreError, StoreReply, StoreRequest};
use ims_core::time::earliest;
use ims_core::{Action, Ctx, RequestId, Time, Timers};
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// How far the sequence numbers of a subscriber may get ahead of the store. A later version may have a larger one, never a
/// smaller one: what is read is trusted to be no further behind.
pub(crate) const WINDOW: u64 = 32;
/// From here on the change is written at once, so that the window opens again before it is used up.
const WRITE_SOON: u64 = WINDOW / 2;
/// Changes on their way to the store at one time: others have to get through too.
const MOST_WRITES: usize = 256;
/// What is due within this part of `write_behind` goes along with what is due now.
const TOGETHER: u32 = 8;
/// After a failure: doubled each time.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// Finds the record whose version is the number of the run.
const RUN_KEY: &str = "hss:run";
/// Services that are read at one time.
const SERVICES_AT_ONCE: u32 = 1000;

#[derive(Default)]
pub(crate) struct Behind {
    /// None until the store has counted this run. No record is read before.
    run: Option<u64>,
    /// Requests that wait for that.
    early: Vec<RequestId>,
    /// What is to be written when, in order; some of it may be written already.
    due: VecDeque<(Time, i64)>,
    /// What goes first.
    soon: VecDeque<i64>,
    writes: HashMap<RequestId, Write>,
    timers: Timers<RequestId>,
    failed: Option<Failed>,
    is_stopping: bool,
}

/// What was asked of the store, with no request that waits for it.
#[derive(Clone, Copy)]
enum Write {
    /// The number of this run: read, then counted.
    Run,
    /// Then the services: their wildcards are looked for in memory.
    Services { run: u64 },
    /// With so many sequence numbers.
    State { record: i64, ahead: u64 },
    /// It was changed from elsewhere: read again, then written.
    Reload { record: i64 },
}

/// The store fails; one try at a time until it works.
#[derive(Clone, Copy)]
struct Failed {
    times: u32,
    retry: Time,
}

impl Behind {
    fn most_writes(&self) -> usize {
        if self.failed.is_some() { 1 } else { MOST_WRITES }
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.writes.is_empty()
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        let retry = self.failed.map(|failed| failed.retry);
        let due = self.due.front().map(|(at, _)| *at);
        let first = match (self.run, self.soon.is_empty()) {
            _ if self.writes.len() >= self.most_writes() => None,
            // What goes first is left over only after a failure.
            (None, _) | (Some(_), false) => retry,
            (Some(_), true) => due.map(|at| retry.map_or(at, |retry| at.max(retry))),
        };
        earliest(first, self.timers.next())
    }

    /// The next to be written. Those without a time are due in any case.
    fn pop(&mut self, until: Option<Time>) -> Option<i64> {
        let is_due = |(at, _): &mut (Time, i64)| until.is_none_or(|until| *at <= until);
        self.soon.pop_front().or_else(|| self.due.pop_front_if(is_due).map(|(_, record)| record))
    }

    /// The number of this run, in what is written.
    pub(crate) fn run(&self) -> u64 {
        self.run.unwrap_or_default()
    }
}

impl Hss {
    /// Nothing is read before the store has counted this run.
    pub(crate) fn begin_run(&mut self, ctx: &mut Ctx<'_>) {
        self.write(Write::Run, StoreRequest::Load { key: RUN_KEY.into() }, ctx);
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.behind.run.is_some()
    }

    pub(crate) fn wait_for_run(&mut self, id: RequestId) {
        self.behind.early.push(id);
    }

    /// A change that may be lost is in memory then, and written later; one that may not, or for which there is no room, comes back.
    pub(crate) fn take_behind(&mut self, record: i64, change: Box<Change>, ctx: &Ctx<'_>) -> Result<(), Box<Change>> {
        let (delay, unwritten) = (self.config.write_behind.0, self.cache.unwritten());
        let room = self.room();
        let Some(entry) = self.cache.entry(record) else { return Err(change) };
        let ahead = entry.state.steps_to(&change.state).map_or(u64::MAX, |steps| entry.ahead.saturating_add(steps));
        let has_room = entry.unwritten || unwritten < room;
        if delay.is_zero() || self.behind.is_stopping || !has_room || ahead > WINDOW {
            return Err(change);
        }
        (entry.state, entry.ahead) = (change.state, ahead);
        if ahead >= WRITE_SOON && !entry.writing {
            self.behind.soon.push_back(record);
        }
        if self.cache.set_unwritten(record, true) {
            self.behind.due.push_back((ctx.now + delay, record));
        }
        Ok(())
    }

    /// How many subscribers may have changes that are not written: they cannot leave the memory.
    fn room(&self) -> usize {
        self.config.max_pending.min(self.config.cache / 2)
    }

    /// The change of a record was not made, or nobody knows: it is read again before it is used. What it handed out counts.
    pub(crate) fn doubt(&mut self, record: i64, ctx: &mut Ctx<'_>) {
        let Some(entry) = self.cache.entry(record).filter(|entry| entry.ahead > 0 || entry.unwritten) else {
            return self.forget(record, ctx);
        };
        (entry.busy, entry.stale) = (false, true);
        let queue = std::mem::take(&mut entry.queue);
        self.write_soon(record);
        self.submit_again(queue, ctx);
    }

    fn write_soon(&mut self, record: i64) {
        self.cache.set_unwritten(record, true);
        self.behind.soon.push_back(record);
    }

    /// Sends what is due.
    pub(crate) fn write_due(&mut self, ctx: &mut Ctx<'_>) {
        let is_waiting = self.behind.failed.is_some_and(|failed| failed.retry > ctx.now);
        if is_waiting || self.behind.run.is_none() {
            if !is_waiting && self.behind.writes.is_empty() && self.behind.failed.is_some() {
                self.begin_run(ctx);
            }
            return;
        }
        let is_crowded = self.cache.unwritten() > self.room() / 2;
        let is_due = self.behind.due.front().is_some_and(|(at, _)| *at <= ctx.now);
        if !is_crowded && !is_due && self.behind.soon.is_empty() {
            return;
        }
        let until = if is_due { ctx.now + self.config.write_behind.0 / TOGETHER } else { ctx.now };
        while self.behind.writes.len() < self.behind.most_writes() {
            let Some(record) = self.behind.pop((!is_crowded).then_some(until)) else { return };
            self.write_one(record, ctx);
        }
    }

    /// Before the end: all that is not written, and what is still asked for is written before it is answered.
    pub(crate) fn write_all(&mut self, ctx: &mut Ctx<'_>) {
        self.behind.is_stopping = true;
        while let Some(record) = self.behind.pop(None) {
            self.write_one(record, ctx);
        }
    }

    fn write_one(&mut self, record: i64, ctx: &mut Ctx<'_>) {
        // Otherwise it was written, or a change of it is under way: what is left then will be due again.
        let Some(entry) = self.cache.peek(record).filter(|e| e.unwritten && !e.busy && !e.writing) else { return };
        if entry.stale {
            let key = store::keys(&entry.subscription).swap_remove(0);
            return self.write(Write::Reload { record }, StoreRequest::Load { key }, ctx);
        }
        let ahead = entry.ahead;
        let request = StoreRequest::Commit { id: record, version: entry.version, state: store::state(&entry.state) };
        self.cache.set_unwritten(record, false);
        self.set_writing(record, true);
        self.write(Write::State { record, ahead }, request, ctx);
    }

    fn set_writing(&mut self, record: i64, writing: bool) {
        if let Some(entry) = self.cache.entry(record) {
            entry.writing = writing;
        }
    }

    fn write(&mut self, write: Write, request: StoreRequest, ctx: &mut Ctx<'_>) {
        let id = self.next_id();
        self.behind.timers.set(id, ctx.now + self.config.store_timeout.0);
        self.behind.writes.insert(id, write);
        ctx.act(Action::Store { id, request });
    }

    /// True when it was for one of these.
    pub(crate) fn on_written(
        &mut self,
        id: RequestId,
        result: &Result<StoreReply, StoreError>,
        ctx: &mut Ctx<'_>,
    ) -> bool {
        let Some(write) = self.behind.writes.remove(&id) else { return false };
        self.behind.timers.clear(&id);
        if let Err(StoreError::Unavailable(reason)) = result {
            self.on_write_failed(write, reason, ctx);
            return true;
        }
        if self.behind.failed.take().is_some() {
            tracing::info!("the subscriber store works again");
        }
        match (write, result) {
            (Write::Run, result) => self.on_run(result, ctx),
            (Write::Services { run }, result) => self.on_services(run, result, ctx),
            (Write::State { record, ahead }, Ok(StoreReply::Changed { version })) => {
                if let Some(entry) = self.cache.entry(record) {
                    (entry.version, entry.writing) = (*version, false);
                    entry.ahead = entry.ahead.saturating_sub(ahead);
                    match entry.unwritten {
                        true if entry.ahead >= WRITE_SOON || self.behind.is_stopping => self.write_soon(record),
                        true => self.behind.due.push_back((ctx.now + self.config.write_behind.0, record)),
                        false => {}
                    }
                }
                self.resume(record, ctx);
            }
            (Write::State { record, .. }, _) => {
                self.set_writing(record, false);
                self.cache.set_unwritten(record, true);
                self.doubt(record, ctx);
            }
            (Write::Reload { record }, Ok(StoreReply::Loaded(Some(loaded)))) => match self.remember(loaded) {
                Ok(()) => self.write_soon(record),
                Err(refusal) => {
                    self.note("a write", &refusal);
                    self.forget(record, ctx);
                }
            },
            // It was removed, and with it what was to be written.
            (Write::Reload { record }, _) => self.forget(record, ctx),
        }
        true
    }

    fn on_run(&mut self, result: &Result<StoreReply, StoreError>, ctx: &mut Ctx<'_>) {
        match result {
            Ok(StoreReply::Loaded(None)) => {
                let keys = vec![RUN_KEY.into()];
                // Before all others in the order of the listing, which is of those that come after "".
                let insert = StoreRequest::Insert { sort: String::new(), keys, body: Vec::new(), state: Vec::new() };
                self.write(Write::Run, insert, ctx);
            }
            Ok(StoreReply::Loaded(Some(record))) => {
                let (id, version) = (record.id, record.version);
                self.write(Write::Run, StoreRequest::Commit { id, version, state: Vec::new() }, ctx);
            }
            Ok(StoreReply::Inserted { .. }) => self.list_services(1, service::sort(""), ctx),
            Ok(StoreReply::Changed { version }) => self.list_services(*version, service::sort(""), ctx),
            // Another HSS counted its own at the same moment.
            _ => self.begin_run(ctx),
        }
    }

    fn list_services(&mut self, run: u64, after: String, ctx: &mut Ctx<'_>) {
        self.write(Write::Services { run }, StoreRequest::List { after, limit: SERVICES_AT_ONCE }, ctx);
    }

    fn on_services(&mut self, run: u64, result: &Result<StoreReply, StoreError>, ctx: &mut Ctx<'_>) {
        let Ok(StoreReply::Listed(records)) = result else { return self.begin_run(ctx) };
        let mut last = None;
        for record in records {
            match store::read(record) {
                Ok((subscription, _)) => {
                    self.wildcards.take(&subscription);
                    last = Some(subscription.sort());
                }
                Err(refusal) => self.note("a service", &refusal),
            }
        }
        match last.filter(|_| records.len() == SERVICES_AT_ONCE as usize) {
            Some(after) => self.list_services(run, after, ctx),
            None => self.on_begun(run, ctx),
        }
    }

    fn on_begun(&mut self, run: u64, ctx: &mut Ctx<'_>) {
        self.behind.run = Some(run);
        let early = std::mem::take(&mut self.behind.early);
        self.submit_again(early, ctx);
    }

    fn on_write_failed(&mut self, write: Write, reason: &str, ctx: &mut Ctx<'_>) {
        *self.refusals.entry("write-behind").or_default() += 1;
        let times = self.behind.failed.map_or(0, |failed| failed.times);
        // One failure for all that were under way.
        if self.behind.failed.is_none_or(|failed| failed.retry <= ctx.now) {
            let wait = (FIRST_RETRY * 2u32.saturating_pow(times)).min(LAST_RETRY);
            self.behind.failed = Some(Failed { times: times.saturating_add(1).min(16), retry: ctx.now + wait });
            tracing::warn!(
                "the subscriber store does not take what is to be written ({reason}): tried again in {wait:?}; \
                 {} subscribers wait, each is served until {WINDOW} sequence numbers are not written",
                self.cache.unwritten()
            );
        }
        match write {
            Write::Run | Write::Services { .. } => {}
            Write::State { record, .. } => {
                self.set_writing(record, false);
                self.write_soon(record);
                self.resume(record, ctx);
            }
            Write::Reload { record } => self.write_soon(record),
        }
    }

    /// Those for which the store took too long.
    pub(crate) fn write_late(&mut self, ctx: &mut Ctx<'_>) {
        while let Some(id) = self.behind.timers.pop(ctx.now) {
            if let Some(write) = self.behind.writes.remove(&id) {
                self.on_write_failed(write, "no answer in time", ctx);
            }
        }
    }

    /// What was read goes into memory.
    pub(crate) fn remember(&mut self, record: &Record) -> Result<(), Refusal> {
        let (subscription, mut state) = store::read(record)?;
        state.catch_up(self.behind.run(), WINDOW, &subscription);
        self.cache.insert(Entry::new(record.id, record.version, subscription, state), WINDOW);
        Ok(())
    }
}
