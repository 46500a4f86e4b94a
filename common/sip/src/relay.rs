//! The response contexts of a stateful proxy (RFC 3261 16.7 to 16.10): which requests went where, which answer goes back,
//! and who is cancelled. What stands in a message is the node's affair; so is what it keeps with each request (`T`).
//!
//! 1. A request comes: `open`. Before there is a branch, the node may ask others where it shall go.
//! 2. Each `send_request` for it gives a `branch`.
//! 3. Answers, failures and CANCELs are given to `on_response`, `on_failed`, `on_cancel`, which say what to do.

use crate::endpoint::{ClientFailure, ClientTx, ServerTx};
use crate::{Endpoint, Message, Method, Name, reason_phrase};
use ims_core::hash::IdMap;
use ims_core::{Ctx, Time};
use smallvec::SmallVec;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Challenges of several branches that go back together (16.7 item 7): more are left out.
const MAX_CHALLENGES: usize = 8;

/// A request on its way that has no final answer yet.
#[derive(Debug)]
pub struct Passage<T> {
    pub request: Message,
    pub with: T,
    /// Why the best answer is one of our own; None: a peer gave it.
    pub cause: Option<ClientFailure>,
    /// Branches without a final answer.
    open: SmallVec<[ClientTx; 1]>,
    best: Option<Message>,
    challenges: Vec<(Name, String)>,
    is_cancelled: bool,
}

impl<T> Passage<T> {
    /// Its CANCEL came: no target is tried any more.
    pub fn is_cancelled(&self) -> bool {
        self.is_cancelled
    }

    /// The status of the best answer so far, of those that are final and no success.
    pub fn best(&self) -> Option<u16> {
        self.best.as_ref().map(Message::status)
    }

    fn take(&mut self, response: Message, cause: Option<ClientFailure>) {
        if matches!(response.status(), 401 | 407) {
            for name in [Name::WwwAuthenticate, Name::ProxyAuthenticate] {
                let values = response.raw(name).map(|v| (name, String::from_utf8_lossy(v).trim().to_owned()));
                self.challenges.extend(values.take(MAX_CHALLENGES.saturating_sub(self.challenges.len())));
            }
        }
        let is_better = self.best.as_ref().is_none_or(|best| rank(&response) < rank(best));
        if is_better {
            (self.best, self.cause) = (Some(response), cause);
        }
    }

    fn end(&mut self, branch: ClientTx) {
        self.open.retain(|open| *open != branch);
    }
}

/// An INVITE that was answered with a 2xx: repetitions of it, and those of other branches, still go back.
#[derive(Debug)]
struct Accepted<T> {
    with: T,
    branches: SmallVec<[ClientTx; 1]>,
}

/// What the node does next.
#[derive(Debug)]
pub enum Relayed {
    /// A provisional answer or a 2xx goes back: the node rewrites it and calls `Endpoint::respond`. When it is a 2xx, the
    /// other branches are cancelled already.
    Pass {
        to: ServerTx,
        response: Message,
    },
    /// All branches ended without a 2xx: another target may be tried, or `Relay::settle` gives the answer.
    Exhausted {
        to: ServerTx,
    },
    Nothing,
}

#[derive(Debug)]
pub struct Relay<T> {
    passages: BTreeMap<u64, Passage<T>>,
    accepted: IdMap<u64, Accepted<T>>,
    by_branch: IdMap<u64, ServerTx>,
    /// When what was accepted is forgotten: in the order of time.
    ends: VecDeque<(Time, ServerTx)>,
    /// For how long a 2xx may be repeated.
    linger: Duration,
}

impl<T> Relay<T> {
    /// `linger`: 64*T1 of the slower side (RFC 6026 timers L and M).
    pub fn new(linger: Duration) -> Self {
        Self {
            passages: BTreeMap::new(),
            accepted: IdMap::default(),
            by_branch: IdMap::default(),
            ends: VecDeque::new(),
            linger,
        }
    }

    pub fn open(&mut self, tx: ServerTx, request: Message, with: T) {
        let passage = Passage {
            request,
            with,
            cause: None,
            open: SmallVec::new(),
            best: None,
            challenges: Vec::new(),
            is_cancelled: false,
        };
        self.passages.insert(tx.0, passage);
    }

    /// The request went out once more. For one that is over, the branch is nobody's.
    pub fn branch(&mut self, tx: ServerTx, client: ClientTx) {
        if let Some(passage) = self.passages.get_mut(&tx.0) {
            passage.open.push(client);
            self.by_branch.insert(client.0, tx);
        }
    }

    /// As long as it has no final answer.
    pub fn get(&self, tx: ServerTx) -> Option<&Passage<T>> {
        self.passages.get(&tx.0)
    }

    pub fn get_mut(&mut self, tx: ServerTx) -> Option<&mut Passage<T>> {
        self.passages.get_mut(&tx.0)
    }

    /// What the node keeps with it: also while a 2xx may be repeated.
    pub fn with(&self, tx: ServerTx) -> Option<&T> {
        self.passages.get(&tx.0).map(|p| &p.with).or_else(|| self.accepted.get(&tx.0).map(|a| &a.with))
    }

    pub fn server_of(&self, client: ClientTx) -> Option<ServerTx> {
        self.by_branch.get(&client.0).copied()
    }

    /// Requests without a final answer.
    pub fn iter(&self) -> impl Iterator<Item = (ServerTx, &Passage<T>)> {
        self.passages.iter().map(|(id, passage)| (ServerTx(*id), passage))
    }

    pub fn len(&self) -> usize {
        self.passages.len()
    }

    pub fn is_empty(&self) -> bool {
        self.passages.is_empty()
    }

    pub fn is_quiet(&self) -> bool {
        self.passages.is_empty() && self.accepted.is_empty() && self.by_branch.is_empty()
    }

    pub fn on_response(
        &mut self,
        client: ClientTx,
        response: Message,
        sip: &mut Endpoint,
        ctx: &mut Ctx<'_>,
    ) -> Relayed {
        self.forget_old(ctx.now);
        let Some(to) = self.server_of(client) else { return Relayed::Nothing };
        match response.status() {
            ..=100 => Relayed::Nothing,
            101..200 if self.passages.contains_key(&to.0) => Relayed::Pass { to, response },
            101..200 => Relayed::Nothing,
            200..300 => self.on_success(to, client, response, sip, ctx),
            status => {
                self.by_branch.remove(&client.0);
                let Some(passage) = self.passages.get_mut(&to.0) else { return Relayed::Nothing };
                passage.end(client);
                passage.take(response, None);
                if status >= 600 {
                    cancel_all(&passage.open, &declined(status), sip, ctx);
                }
                rest(to, passage)
            }
        }
    }

    fn on_success(
        &mut self,
        to: ServerTx,
        client: ClientTx,
        response: Message,
        sip: &mut Endpoint,
        ctx: &mut Ctx<'_>,
    ) -> Relayed {
        if let Some(mut passage) = self.passages.remove(&to.0) {
            passage.end(client);
            cancel_all(&passage.open, ELSEWHERE, sip, ctx);
            passage.open.push(client);
            // Of other requests one 2xx goes back, and nobody repeats it.
            match passage.request.method() == Method::Invite {
                true => self.ends.push_back((ctx.now + self.linger, to)),
                false => self.ends.push_front((ctx.now, to)),
            }
            self.accepted.insert(to.0, Accepted { with: passage.with, branches: passage.open });
        }
        Relayed::Pass { to, response }
    }

    /// A branch found no server, or no answer.
    pub fn on_failed(&mut self, client: ClientTx, cause: ClientFailure, ctx: &mut Ctx<'_>) -> Relayed {
        self.forget_old(ctx.now);
        let Some(to) = self.by_branch.remove(&client.0) else { return Relayed::Nothing };
        let Some(passage) = self.passages.get_mut(&to.0) else { return Relayed::Nothing };
        passage.end(client);
        let status = if passage.is_cancelled { 487 } else { cause.status() };
        let response = Message::response(&passage.request, status, Some(&ctx.rng.token(10)));
        passage.take(response, Some(cause));
        rest(to, passage)
    }

    /// 16.10: every branch is cancelled, for the reason that the CANCEL gives (RFC 3326).
    pub fn on_cancel(&mut self, invite: ServerTx, cancel: &Message, sip: &mut Endpoint, ctx: &mut Ctx<'_>) -> Relayed {
        self.forget_old(ctx.now);
        let Some(passage) = self.passages.get_mut(&invite.0) else { return Relayed::Nothing };
        passage.is_cancelled = true;
        let reasons: Vec<_> = cancel.raw(Name::Reason).map(String::from_utf8_lossy).collect();
        cancel_all(&passage.open, reasons.join(", ").trim(), sip, ctx);
        if passage.open.is_empty() {
            let response = Message::response(&passage.request, 487, Some(&ctx.rng.token(10)));
            passage.take(response, None);
        }
        rest(invite, passage)
    }

    /// The request is over: what it was, and the best answer to it (16.7 item 6), which the node gives. None: there is no
    /// such request, or no answer yet.
    pub fn settle(&mut self, tx: ServerTx) -> Option<(Passage<T>, Message)> {
        let best = self.passages.get_mut(&tx.0)?.best.take()?;
        let mut passage = self.close(tx)?;
        let mut response = match best.status() {
            // Others can still be reached through us (16.7 item 6).
            503 if passage.cause.is_none() => as_500(&best),
            _ => best,
        };
        if matches!(response.status(), 401 | 407) {
            response.remove(Name::WwwAuthenticate);
            response.remove(Name::ProxyAuthenticate);
            for (name, value) in passage.challenges.drain(..) {
                response.push_back(name, value);
            }
        }
        Some((passage, response))
    }

    /// The request is over: the node answers it by itself. What branches still say goes nowhere.
    pub fn close(&mut self, tx: ServerTx) -> Option<Passage<T>> {
        let passage = self.passages.remove(&tx.0)?;
        self.forget_branches(&passage.open);
        Some(passage)
    }

    /// What is under way for this request is given up, and the request stays: for another target, or an answer of ours.
    pub fn abandon(&mut self, tx: ServerTx, reason: &str, sip: &mut Endpoint, ctx: &mut Ctx<'_>) {
        let Some(passage) = self.passages.get_mut(&tx.0) else { return };
        let branches = std::mem::take(&mut passage.open);
        // First: what a CANCEL makes fail at once is nobody's any more.
        self.forget_branches(&branches);
        cancel_all(&branches, reason, sip, ctx);
    }

    /// What is under way for this request is cancelled, and its answers still count: another target is tried besides.
    pub fn call_off(&mut self, tx: ServerTx, reason: &str, sip: &mut Endpoint, ctx: &mut Ctx<'_>) {
        if let Some(passage) = self.passages.get(&tx.0) {
            cancel_all(&passage.open, reason, sip, ctx);
        }
    }

    fn forget_branches(&mut self, branches: &[ClientTx]) {
        for branch in branches {
            self.by_branch.remove(&branch.0);
        }
    }

    /// When there is something to forget: to be woken then, and `on_timeout` called.
    pub fn deadline(&self) -> Option<Time> {
        self.ends.front().map(|(at, _)| *at)
    }

    pub fn on_timeout(&mut self, now: Time) {
        self.forget_old(now);
    }

    fn forget_old(&mut self, now: Time) {
        while let Some((_, tx)) = self.ends.pop_front_if(|(at, _)| *at <= now) {
            if let Some(gone) = self.accepted.remove(&tx.0) {
                self.forget_branches(&gone.branches);
            }
        }
    }
}

/// RFC 3326, to those that ring for nothing.
const ELSEWHERE: &str = "SIP;cause=200;text=\"Call completed elsewhere\"";

fn declined(status: u16) -> String {
    format!("SIP;cause={status};text=\"{}\"", reason_phrase(status))
}

fn cancel_all(branches: &[ClientTx], reason: &str, sip: &mut Endpoint, ctx: &mut Ctx<'_>) {
    branches.iter().for_each(|branch| sip.cancel(*branch, reason, ctx));
}

fn rest<T>(to: ServerTx, passage: &Passage<T>) -> Relayed {
    if passage.open.is_empty() { Relayed::Exhausted { to } } else { Relayed::Nothing }
}

/// 16.7 item 6: 6xx before all, else the lowest class; in it, what the caller can do something about.
fn rank(response: &Message) -> (u16, u16) {
    let status = response.status();
    let class = match status / 100 {
        6 => 0,
        class => class,
    };
    let within = match status {
        401 | 407 | 415 | 420 | 484 => 0,
        // That nobody answered, or was there, says less than what somebody said.
        408 | 480 => 2,
        // Of who was called off, for others to be tried.
        487 | 503 => 3,
        _ => 1,
    };
    (class, within)
}

fn as_500(busy: &Message) -> Message {
    let mut response = Message::response(busy, 500, None);
    response.copy(Name::Warning, busy);
    response.copy(Name::Reason, busy);
    response
}
