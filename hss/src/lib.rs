//! The HSS: a Diameter server for Cx (TS 29.228) and the commands that provision subscribers, over a durable store.
//!
//! Every request takes the same way: *load* the subscription, *decide* (a pure function in [`cx`] or [`provision`]), *commit*
//! the change under a version check, and *answer* only when the store has said that the change is on disk. What an MAR changes is
//! the exception: it is answered first and written behind ([`behind`]). A sequence number that left in an answer is never handed
//! out again all the same, whatever happens to this process.

mod behind;
mod cache;
mod command;
pub mod config;
pub mod credential;
pub mod cx;
pub mod error;
mod fields;
pub mod profile;
pub mod provision;
mod push;
mod request;
pub mod seal;
pub mod service;
pub mod store;
pub mod subscriber;

pub use config::Config;
pub use error::Refusal;

use crate::behind::Behind;
use crate::cache::Cache;
use crate::command::CommandJob;
use crate::cx::Change;
use crate::provision::Changed;
use crate::push::{Push, Undelivered};
use crate::request::CxJob;
use crate::seal::KeyRing;
use crate::service::Wildcards;
use ims_core::config::ConfigError;
use ims_core::metrics::{Histogram, Samples, catalogue};
use ims_core::store::{StoreError, StoreReply, StoreRequest};
use ims_core::time::earliest;
use ims_core::{Action, Ctx, Event, Impi, Node, RequestId, Time, Timers};
use ims_diameter::cx::Request;
use ims_diameter::endpoint::DisconnectCause;
use ims_diameter::{DiameterEvent, Endpoint, Message};
use std::collections::{BTreeMap, HashMap};

/// How often a request starts again because another writer changed the record meanwhile.
const MOST_TRIES: u8 = 5;

pub struct Hss {
    config: Config,
    ring: KeyRing,
    endpoint: Endpoint,
    cache: Cache,
    wildcards: Wildcards,
    behind: Behind,
    /// What waits for the store, or for another request's commit.
    waiting: HashMap<RequestId, Waiting>,
    timers: Timers<RequestId>,
    /// Requests of ours that wait for an S-CSCF's answer.
    pushes: HashMap<RequestId, Push>,
    /// The same, for changed profiles: the private identity each is of.
    profile_pushes: HashMap<RequestId, Impi>,
    /// What an S-CSCF is told when it is back.
    undelivered: Undelivered,
    last_id: u64,
    refusals: BTreeMap<&'static str, u64>,
    commands: BTreeMap<&'static str, u64>,
    /// How long the store took, by what was asked.
    store_times: BTreeMap<&'static str, Histogram>,
}

/// A procedure that waits.
#[derive(Debug)]
struct Waiting {
    job: Job,
    stage: Stage,
    since: Time,
}

#[derive(Debug)]
enum Job {
    Cx(Box<CxJob>),
    Command(Box<CommandJob>),
}

#[derive(Debug)]
enum Stage {
    Loading,
    /// Until the store has counted this run.
    Starting,
    /// Behind the commit of another request for the same record.
    Queued,
    /// Whether the public identity is another's or nobody's.
    Probing {
        refusal: Box<Refusal>,
    },
    Committing {
        record: i64,
        outcome: Outcome,
    },
    Inserting,
    Listing {
        limit: usize,
    },
}

/// What happens once the commit is on disk.
#[derive(Debug)]
enum Outcome {
    Answer { message: Message, change: Box<Change> },
    Changed(Box<Changed>),
    Removed { terminate: Option<cx::Termination> },
}

impl Node for Hss {
    fn handle(&mut self, event: Event, ctx: &mut Ctx<'_>) {
        self.cache.set_clock(ctx.now);
        match event {
            Event::Start => {
                self.begin_run(ctx);
                self.endpoint.on_start(ctx);
            }
            Event::LinkUp { link, peer, remote } => self.endpoint.on_link_up(link, peer, remote, ctx),
            Event::LinkDown { link, peer } => self.endpoint.on_link_down(link, peer, ctx),
            Event::Diameter { link, bytes } => self.endpoint.on_message(link, bytes, ctx),
            Event::Stored { id, result } => self.on_stored(id, result, ctx),
            Event::Command(command) => self.on_command(command, ctx),
            Event::Timeout => self.on_timeout(ctx),
            Event::Stop => {
                self.write_all(ctx);
                self.endpoint.shutdown(DisconnectCause::Rebooting, ctx);
            }
            Event::Restored(portion) => self.on_restored(portion, ctx),
            // The HSS asked for none of these.
            Event::Sip(_)
            | Event::SipFailed { .. }
            | Event::FlowClosed(_)
            | Event::Dns { .. }
            | Event::Sa { .. }
            | Event::SaAudited { .. }
            | Event::SaExpired(_) => {}
        }
        while let Some(event) = self.endpoint.next_event() {
            self.on_diameter(event, ctx);
        }
        self.write_due(ctx);
        self.cache.trim();
    }

    fn deadline(&self) -> Option<Time> {
        let own = earliest(self.timers.next(), self.cache.deadline());
        earliest(earliest(own, self.behind.deadline()), self.endpoint.deadline())
    }

    fn snapshot(&self) -> serde_json::Value {
        let diameter = self.endpoint.snapshot();
        serde_json::json!({
            "role": "hss",
            "peers": diameter.get("peers"),
            "refusals": self.refusals,
            "commands": self.commands,
            "waiting": self.waiting.len() + self.pushes.len() + self.profile_pushes.len(),
            "undelivered": self.undelivered.len(),
            "cached": self.cache.len(),
            "unwritten": self.cache.unwritten(),
            "diameter": diameter,
        })
    }

    fn metrics(&self, out: &mut Samples) {
        self.endpoint.metrics(out);
        out.counts(&catalogue::REFUSALS, &self.refusals);
        out.size(&catalogue::IN_PROGRESS, &[], self.waiting.len() + self.pushes.len() + self.profile_pushes.len());
        out.size(&catalogue::SUBSCRIBERS_CACHED, &[], self.cache.len());
        out.size(&catalogue::SUBSCRIBERS_UNWRITTEN, &[], self.cache.unwritten());
        self.store_times.iter().for_each(|(operation, took)| out.histogram(&catalogue::STORE_TIME, &[operation], took));
    }
}

impl Stage {
    /// The label of the time that the store took.
    fn operation(&self) -> &'static str {
        match self {
            Self::Loading | Self::Probing { .. } => "load",
            Self::Committing { .. } => "commit",
            Self::Inserting | Self::Listing { .. } | Self::Queued | Self::Starting => "other",
        }
    }
}

impl Hss {
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        let ring = KeyRing::new(config.check()?, &config.earlier_master_keys);
        Ok(Self {
            ring,
            endpoint: Endpoint::new(config.endpoint()),
            cache: Cache::new(config.cache, config.cache_idle.0),
            wildcards: Wildcards::default(),
            behind: Behind::default(),
            waiting: HashMap::new(),
            timers: Timers::default(),
            pushes: HashMap::new(),
            profile_pushes: HashMap::new(),
            undelivered: Undelivered::default(),
            last_id: 0,
            refusals: BTreeMap::new(),
            commands: BTreeMap::new(),
            store_times: BTreeMap::new(),
            config,
        })
    }

    /// Nothing is in progress.
    pub fn is_quiet(&self) -> bool {
        let has_pushed = self.pushes.is_empty() && self.profile_pushes.is_empty();
        self.waiting.is_empty() && has_pushed && self.behind.is_quiet() && self.endpoint.is_quiet()
    }

    fn on_diameter(&mut self, event: DiameterEvent, ctx: &mut Ctx<'_>) {
        match event {
            DiameterEvent::Request { token, message } => self.on_request(token, message, ctx),
            DiameterEvent::Answer { id, message } => self.on_push_answer(id, &message, ctx),
            DiameterEvent::Failed { id, cause } => self.on_push_failed(id, cause, ctx),
            DiameterEvent::PeerUp { peer } => {
                tracing::info!("Diameter peer {peer} is up");
                self.on_peer_up(&peer, ctx);
            }
            DiameterEvent::PeerDown { .. } if self.endpoint.is_stopped() => {}
            DiameterEvent::PeerDown { peer, reason } => tracing::warn!("Diameter peer {peer} is down: {reason}"),
        }
    }

    fn on_timeout(&mut self, ctx: &mut Ctx<'_>) {
        self.endpoint.on_timeout(ctx);
        self.write_late(ctx);
        while let Some(id) = self.timers.pop(ctx.now) {
            let Some(waiting) = self.waiting.remove(&id) else { continue };
            let refusal = match waiting.stage {
                Stage::Queued => Refusal::Busy("other requests for the subscriber took too long"),
                _ => Refusal::StoreUnavailable("no answer in time".into()),
            };
            if let Stage::Committing { record, .. } = waiting.stage {
                // Whether the change was made is not known: what is in memory counts no more.
                self.doubt(record, ctx);
            }
            self.fail(waiting.job, refusal, ctx);
        }
    }

    /// Whether what waits for the store waits too long. Every request has the same patience: the first to end is the oldest.
    pub(crate) fn is_late(&self, now: Time) -> bool {
        self.timers.next().is_some_and(|end| end + self.config.busy_after.0 < now + self.config.store_timeout.0)
    }

    /// From memory, or else from the store.
    fn submit(&mut self, job: Job, ctx: &mut Ctx<'_>) {
        match self.cache.find(&job.key()) {
            Some(record) => self.run(job, record, ctx),
            None => self.load(job, ctx),
        }
    }

    fn load(&mut self, job: Job, ctx: &mut Ctx<'_>) {
        if !self.has_begun() {
            let id = self.park(job, Stage::Starting, ctx);
            return self.wait_for_run(id);
        }
        let request = StoreRequest::Load { key: job.key() };
        self.ask_store(job, Stage::Loading, request, ctx);
    }

    fn ask_store(&mut self, job: Job, stage: Stage, request: StoreRequest, ctx: &mut Ctx<'_>) {
        let id = self.park(job, stage, ctx);
        ctx.act(Action::Store { id, request });
    }

    fn park(&mut self, job: Job, stage: Stage, ctx: &Ctx<'_>) -> RequestId {
        let id = self.next_id();
        self.timers.set(id, ctx.now + self.config.store_timeout.0);
        self.waiting.insert(id, Waiting { job, stage, since: ctx.now });
        id
    }

    fn next_id(&mut self) -> RequestId {
        self.last_id += 1;
        RequestId(self.last_id)
    }

    fn unpark(&mut self, id: RequestId) -> Option<Waiting> {
        self.timers.clear(&id);
        self.waiting.remove(&id)
    }

    /// With the subscription in memory.
    fn run(&mut self, job: Job, record: i64, ctx: &mut Ctx<'_>) {
        let Some(entry) = self.cache.entry(record) else { return self.retry(job, ctx) };
        if entry.stale {
            return self.load(job, ctx);
        }
        if entry.busy {
            return self.queue(job, record, ctx);
        }
        match job {
            Job::Cx(job) => self.decide_cx(job, record, ctx),
            Job::Command(job) => self.decide_command(job, record, ctx),
        }
    }

    /// Behind the change that is under way.
    fn queue(&mut self, job: Job, record: i64, ctx: &Ctx<'_>) {
        let id = self.park(job, Stage::Queued, ctx);
        if let Some(entry) = self.cache.entry(record) {
            entry.queue.push_back(id);
        }
    }

    /// Stores a change of the record. Requests for it that come meanwhile wait.
    fn commit(&mut self, job: Job, record: i64, outcome: Outcome, ctx: &mut Ctx<'_>) {
        let Some(entry) = self.cache.entry(record) else { return self.retry(job, ctx) };
        if entry.writing {
            // Its version will be another.
            return self.queue(job, record, ctx);
        }
        entry.busy = true;
        let version = entry.version;
        let request = match &outcome {
            Outcome::Answer { change, .. } => {
                StoreRequest::Commit { id: record, version, state: store::state(&change.state) }
            }
            Outcome::Changed(changed) => StoreRequest::Replace {
                id: record,
                version,
                sort: changed.subscription.sort(),
                keys: store::keys(&changed.subscription),
                body: store::body(&changed.subscription),
                state: store::state(&changed.state),
            },
            Outcome::Removed { .. } => StoreRequest::Remove { id: record, version },
        };
        self.ask_store(job, Stage::Committing { record, outcome }, request, ctx);
    }

    fn on_stored(&mut self, id: RequestId, result: Result<StoreReply, StoreError>, ctx: &mut Ctx<'_>) {
        if self.on_written(id, &result, ctx) {
            return;
        }
        // Absent: it was answered when its time was over.
        let Some(Waiting { job, stage, since }) = self.unpark(id) else { return };
        let took = self.store_times.entry(stage.operation()).or_insert_with(Histogram::long);
        took.observe(ctx.now.since(since));
        match (stage, result) {
            (Stage::Loading, Ok(StoreReply::Loaded(Some(record)))) => match self.remember(&record) {
                Ok(()) => self.run(job, record.id, ctx),
                Err(refusal) => self.fail(job, refusal, ctx),
            },
            (Stage::Loading, Ok(StoreReply::Loaded(None))) => self.not_found(job, ctx),
            (Stage::Probing { refusal }, Ok(StoreReply::Loaded(found))) => {
                self.on_probed(job, *refusal, found.is_some(), ctx);
            }
            (Stage::Committing { record, outcome }, Ok(StoreReply::Changed { version })) => {
                self.on_committed(job, record, Some(version), outcome, ctx);
            }
            (Stage::Committing { record, outcome }, Ok(StoreReply::Removed)) => {
                self.on_committed(job, record, None, outcome, ctx);
            }
            (Stage::Committing { record, .. }, Err(StoreError::Conflict)) => {
                self.doubt(record, ctx);
                self.retry(job, ctx);
            }
            (Stage::Inserting, Ok(StoreReply::Inserted { .. })) => self.on_inserted(job, ctx),
            (Stage::Listing { limit }, Ok(StoreReply::Listed(records))) => self.on_listed(job, limit, &records, ctx),
            (stage, Ok(reply)) => {
                self.settle_failed(&stage, ctx);
                let reason = format!("{stage:?} was answered by {} by mistake", reply_name(&reply));
                self.fail(job, Refusal::StoreUnavailable(reason), ctx);
            }
            (stage, Err(error)) => {
                self.settle_failed(&stage, ctx);
                self.on_store_error(job, error, ctx);
            }
        }
    }

    fn on_committed(&mut self, job: Job, record: i64, version: Option<u64>, outcome: Outcome, ctx: &mut Ctx<'_>) {
        match (outcome, version) {
            (Outcome::Answer { message, change }, Some(version)) => {
                let Change { state, terminate } = *change;
                self.on_state(&state, ctx);
                if let Some(entry) = self.cache.entry(record) {
                    (entry.version, entry.state, entry.busy, entry.ahead) = (version, state, false, 0);
                }
                self.cache.set_unwritten(record, false);
                self.answer(&job, message, ctx);
                self.terminate(terminate, ctx);
                self.resume(record, ctx);
            }
            (Outcome::Changed(changed), _) => {
                self.reply(&job, Ok(command::show_new(&changed.subscription, &changed.state)), ctx);
                if changed.profile_changed {
                    self.push_profile(&changed.subscription, &changed.state, ctx);
                }
                self.terminate(changed.terminate, ctx);
                self.forget(record, ctx);
            }
            (Outcome::Removed { terminate }, _) => {
                if let Some(service) = self.cache.peek(record).and_then(|entry| entry.subscription.service.as_deref()) {
                    self.wildcards.remove(&service.identity);
                }
                self.reply(&job, Ok(serde_json::Value::Null), ctx);
                self.terminate(terminate, ctx);
                self.forget(record, ctx);
            }
            (Outcome::Answer { .. }, None) => self.forget(record, ctx),
        }
    }

    /// Goes on with what waited for a commit, until one of them commits again.
    fn resume(&mut self, record: i64, ctx: &mut Ctx<'_>) {
        while let Some(entry) = self.cache.entry(record).filter(|entry| !entry.busy) {
            let Some(id) = entry.queue.pop_front() else { return };
            if let Some(waiting) = self.unpark(id) {
                self.run(waiting.job, record, ctx);
            }
        }
    }

    /// Drops a record from memory; what waited for it starts again.
    fn forget(&mut self, record: i64, ctx: &mut Ctx<'_>) {
        if let Some(entry) = self.cache.remove(record) {
            self.submit_again(entry.queue, ctx);
        }
    }

    fn submit_again(&mut self, parked: impl IntoIterator<Item = RequestId>, ctx: &mut Ctx<'_>) {
        for id in parked {
            if let Some(waiting) = self.unpark(id) {
                self.submit(waiting.job, ctx);
            }
        }
    }

    fn settle_failed(&mut self, stage: &Stage, ctx: &mut Ctx<'_>) {
        if let Stage::Committing { record, .. } = stage {
            self.doubt(*record, ctx);
        }
    }

    fn retry(&mut self, mut job: Job, ctx: &mut Ctx<'_>) {
        let tries = match &mut job {
            Job::Cx(job) => &mut job.tries,
            Job::Command(job) => &mut job.tries,
        };
        *tries += 1;
        if *tries > MOST_TRIES {
            return self.fail(job, Refusal::Busy("the subscriber is changed from elsewhere all the time"), ctx);
        }
        self.load(job, ctx);
    }

    fn fail(&mut self, job: Job, refusal: Refusal, ctx: &mut Ctx<'_>) {
        match job {
            Job::Cx(job) => self.refuse(&job, &refusal, ctx),
            Job::Command(job) => self.fail_command(&job, &refusal, ctx),
        }
    }

    fn not_found(&mut self, job: Job, ctx: &mut Ctx<'_>) {
        match job {
            Job::Cx(job) => self.by_wildcard(job, ctx),
            Job::Command(job) => self.unknown_subscriber(&job, ctx),
        }
    }

    fn on_store_error(&mut self, job: Job, error: StoreError, ctx: &mut Ctx<'_>) {
        match (&job, error) {
            (Job::Command(_), StoreError::Duplicate(key)) => self.reply(&job, Err(store::duplicate(&key)), ctx),
            (_, error) => self.fail(job, Refusal::StoreUnavailable(error.to_string()), ctx),
        }
    }
}

impl Job {
    fn key(&self) -> String {
        match self {
            Self::Cx(job) => job.key(),
            Self::Command(job) => job.key(),
        }
    }
}

/// A reply without what is in it.
fn reply_name(reply: &StoreReply) -> &'static str {
    match reply {
        StoreReply::Loaded(_) => "Loaded",
        StoreReply::Inserted { .. } => "Inserted",
        StoreReply::Changed { .. } => "Changed",
        StoreReply::Removed => "Removed",
        StoreReply::Listed(_) => "Listed",
    }
}

/// Whether this side serves the request at all.
fn is_served(request: &Request) -> bool {
    !matches!(request, Request::Rtr(_) | Request::Ppr(_))
}
