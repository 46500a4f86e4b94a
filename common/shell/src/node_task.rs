//! One task that owns one node: takes what its inbox holds, lets the node handle it, performs what it wants done.

use crate::diameter_tcp;
use crate::inbox::{CommandReply, Inbox, Input, Intake};
use crate::keep::{Change, Keeping};
use crate::sip_tcp;
use crate::store::StoreJob;
use crate::world::{NodeIndex, World};
use crate::xfrm::{SaJob, SaWork};
use bytes::Bytes;
use ims_core::metrics::{Histogram, Samples, catalogue};
use ims_core::store::StoreError;
use ims_core::time::earliest;
use ims_core::{
    Action, Command, CommandId, Ctx, Event, Flow, FlowError, Kept, Node, Problem, RequestId, Rng, SendTag, Time,
    Transport,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tracing::{debug, info};

/// Events handled before the task looks at its deadline again.
const BATCH: usize = 128;
/// Commands that may wait for a node's reply before the abandoned ones are swept.
const CALLS: usize = 1024;

/// Sees what each node is given and what it wants done, at that moment and in that order. It sees keys on their way (Cx, the
/// 401 towards the P-CSCF): what it shows to people is for it to choose. It runs in the node's task: be quick, never wait.
pub type Tap = Arc<dyn Fn(&str, Time, Tapped<'_>) + Send + Sync>;

/// What a [`Tap`] sees.
#[derive(Debug)]
pub enum Tapped<'a> {
    Event(&'a Event),
    Action(&'a Action),
}

pub(crate) struct NodeTask {
    index: NodeIndex,
    node: Box<dyn Node + Send>,
    intake: Intake,
    world: Arc<World>,
    rng: Rng,
    actions: Vec<Action>,
    calls: BTreeMap<CommandId, CommandReply>,
    handled: BTreeMap<&'static str, Histogram>,
    waits: Histogram,
    /// None: nothing is kept, a restart begins with nothing.
    keeping: Option<Keeping>,
    /// What the node wanted done after something that is to be kept, until that is written.
    held: Vec<Action>,
}

impl NodeTask {
    pub(crate) fn new(
        index: NodeIndex,
        node: Box<dyn Node + Send>,
        intake: Intake,
        world: Arc<World>,
        rng: Rng,
        keeping: Option<Keeping>,
    ) -> Self {
        Self {
            index,
            node,
            intake,
            world,
            rng,
            actions: Vec::new(),
            calls: BTreeMap::new(),
            handled: BTreeMap::new(),
            waits: Histogram::long(),
            keeping,
            held: Vec::new(),
        }
    }

    /// Until the shell ends.
    pub(crate) async fn run(mut self) {
        self.restore().await;
        self.handle(Event::Start);
        self.settle().await;
        let mut batch = Vec::with_capacity(BATCH);
        // One timer for good: it is moved only when the deadline is another.
        let mut timer = std::pin::pin!(tokio::time::sleep_until(tokio::time::Instant::now()));
        loop {
            let retry_at = self.keeping.as_ref().and_then(Keeping::retry_at);
            let deadline = earliest(self.node.deadline(), retry_at).map(|time| self.world.clock.instant(time));
            if let Some(at) = deadline.filter(|at| *at != timer.deadline()) {
                timer.as_mut().reset(at);
            }
            // What waits comes first; a deadline that has come is seen to after the batch.
            tokio::select! {
                biased;
                count = self.intake.next_batch(BATCH, &mut batch) => {
                    if count == 0 {
                        return;
                    }
                    self.waits.observe(self.intake.waited());
                    if let Some(waited) = self.intake.request_waited() {
                        self.node.waited(waited, self.world.clock.now());
                    }
                }
                () = &mut timer, if deadline.is_some() => {}
            }
            for input in batch.drain(..) {
                self.take(input);
            }
            if self.node.deadline().is_some_and(|time| time <= self.world.clock.now()) {
                self.handle(Event::Timeout);
            }
            self.settle().await;
        }
    }

    /// Gives the node what it had kept.
    async fn restore(&mut self) {
        let mut count = 0;
        let since = self.world.clock.now();
        while let Some(keeping) = &mut self.keeping {
            let Some(portion) = keeping.restore().await else { break };
            count += portion.len();
            self.handle(Event::Restored(portion));
            self.settle().await;
        }
        if count > 0 {
            let milliseconds = self.world.clock.now().since(since).as_millis() as u64;
            info!(node = self.world.nodes[self.index].name, entries = count, milliseconds, "restored what was kept");
        }
    }

    /// Has written what the node wants kept, then does what it wanted done after that: one write for a whole batch of events.
    async fn settle(&mut self) {
        let Some(keeping) = &mut self.keeping else { return };
        let now = self.world.clock.now();
        if keeping.has_changes() || keeping.retry_at().is_some_and(|time| time <= now) {
            keeping.commit(now).await;
        }
        let mut held = std::mem::take(&mut self.held);
        for action in held.drain(..) {
            self.perform(action);
        }
        self.held = held;
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Event(event) => self.handle(event),
            Input::Snapshot(reply) => {
                let mut snapshot = self.node.snapshot();
                if let Some(object) = snapshot.as_object_mut() {
                    object.insert("inbox_dropped".into(), self.inbox().dropped().into());
                    if let Some(keeping) = &self.keeping {
                        object.insert("kept".into(), keeping.describe(self.world.clock.now()));
                    }
                }
                let _ = reply.send(snapshot);
            }
            Input::Ping(reply) => {
                let _ = reply.send(());
            }
            Input::Metrics(reply) => drop(reply.send(self.measure())),
            Input::Command { call, args, reply } => {
                if self.calls.len() >= CALLS {
                    self.calls.retain(|_, reply| !reply.is_closed());
                }
                if self.calls.len() >= CALLS {
                    let _ = reply.send(Err(Problem::unavailable("too many commands wait: try again later")));
                    return;
                }
                let id = CommandId(self.world.ids.next());
                self.calls.insert(id, reply);
                self.handle(Event::Command(Command { id, call, args }));
            }
        }
    }

    fn handle(&mut self, event: Event) {
        let mut actions = std::mem::take(&mut self.actions);
        let now = self.world.clock.now();
        let kind = kind(&event);
        if let Some(tap) = &self.world.tap {
            tap(&self.world.nodes[self.index].name, now, Tapped::Event(&event));
        }
        let mut ctx = Ctx { now, rng: &mut self.rng, actions: &mut actions };
        self.node.handle(event, &mut ctx);
        for action in actions.drain(..) {
            if let Some(tap) = &self.world.tap {
                tap(&self.world.nodes[self.index].name, now, Tapped::Action(&action));
            }
            match action {
                Action::Put(Kept { key, value }) => self.keep(Change { key, value: Some(value) }),
                Action::Delete { key } => self.keep(Change { key, value: None }),
                action if self.keeping.as_ref().is_some_and(Keeping::has_changes) => self.held.push(action),
                action => self.perform(action),
            }
        }
        self.actions = actions;
        self.handled.entry(kind).or_insert_with(Histogram::short).observe(self.world.clock.now().since(now));
    }

    fn measure(&self) -> Samples {
        let mut out = Samples::default();
        out.level(&catalogue::NODE_UP, &[], 1.0);
        self.node.metrics(&mut out);
        self.handled.iter().for_each(|(kind, took)| out.histogram(&catalogue::NODE_TIME, &[kind], took));
        self.inbox().measure(&mut out);
        self.keeping.iter().for_each(|keeping| keeping.measure(&mut out));
        out.histogram(&catalogue::INBOX_WAIT, &[], &self.waits);
        out
    }

    fn keep(&mut self, change: Change) {
        if let Some(keeping) = &mut self.keeping {
            keeping.take(change);
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::SendSip { flow, bytes, tag } => self.send_sip(flow, bytes, tag),
            Action::CloseFlow(conn) => self.world.connections.close(&self.world, conn),
            Action::Connect { peer, target } => diameter_tcp::connect(&self.world, self.index, peer, target),
            Action::SendDiameter { link, bytes } => self.world.links.send(&self.world, link, bytes),
            Action::CloseLink(link) => self.world.links.close(&self.world, link),
            Action::Dns { id, query } => {
                let inbox = self.inbox().clone();
                self.world.dns.ask(&self.world.tasks, query, move |answer| inbox.push(Event::Dns { id, answer }));
            }
            Action::Sa { id, change } => self.ask_kernel(id, SaWork::Change(change)),
            Action::SaAudit { id, side, adopt } => self.ask_kernel(id, SaWork::Audit { side, adopt }),
            Action::Store { id, request } => {
                let refused = match self.world.stores.get(&self.index) {
                    None => Some("no database is configured for this node"),
                    Some(store) => {
                        let job = StoreJob { id, request, inbox: self.inbox().clone() };
                        store.try_send(job).is_err().then(|| {
                            self.world.nodes[self.index].meters.store_refused.fetch_add(1, Ordering::Relaxed);
                            "too many requests wait for the database"
                        })
                    }
                };
                if let Some(reason) = refused {
                    self.inbox().push(Event::Stored { id, result: Err(StoreError::Unavailable(reason.into())) });
                }
            }
            Action::Put(_) | Action::Delete { .. } => {} // in `handle`, for they hold back what follows them
            Action::Reply { id, result } => {
                if let Some(reply) = self.calls.remove(&id) {
                    let _ = reply.send(result);
                }
            }
        }
    }

    fn ask_kernel(&self, id: RequestId, what: SaWork) {
        let is_audit = matches!(what, SaWork::Audit { .. });
        if self.world.sa.try_send(SaJob { node: self.index, id, what }).is_err() {
            self.world.sa_refused.fetch_add(1, Ordering::Relaxed);
            self.inbox().push(SaJob::refused(id, is_audit));
        }
    }

    fn send_sip(&self, flow: Flow, bytes: Bytes, tag: SendTag) {
        let sent = match flow.transport {
            Transport::Tcp => sip_tcp::send(&self.world, self.index, flow, bytes, tag),
            Transport::Udp => match self.world.udp.get(&flow.local) {
                None => Err(FlowError::NoSocket),
                Some(port) => match self.world.neighbour(&flow) {
                    Some(node) => {
                        self.world.deliver_datagram(node, &flow, bytes);
                        Ok(())
                    }
                    None => port.send(&bytes, flow.remote, tag),
                },
            },
        };
        if let Err(error) = sent {
            debug!(%flow, %error, "not sent");
            self.world.sip_failed(self.index, tag, flow, error);
        }
    }

    fn inbox(&self) -> &Inbox {
        self.intake.inbox()
    }
}

/// The label of the time that an event took.
fn kind(event: &Event) -> &'static str {
    match event {
        Event::Sip(_) => "sip",
        Event::Diameter { .. } => "diameter",
        Event::Stored { .. } => "stored",
        Event::Sa { .. } | Event::SaExpired(_) => "sa",
        Event::Timeout => "timeout",
        Event::Command(_) => "command",
        _ => "other",
    }
}
