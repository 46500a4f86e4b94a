//! Calls of a handset (TS 24.229 5.1.3, 5.1.4): what it knows of each, what it is told to do, and how each ended.
//!
//! [`uac`] calls, [`uas`] is called, [`within`] is what both ends do in the dialog; [`send`] is how a phone writes its
//! messages, and [`check`] what it finds wrong with those of the network.

mod check;
mod command;
mod refer;
pub mod script;
mod sdp;
pub(crate) mod send;
mod uac;
mod uas;
mod within;

pub use script::Script;

use crate::{Timer, Ue};
use ims_core::{Action, CommandId, Ctx, Problem, Time};
use ims_sip::dialog::{Dialog, DialogId};
use ims_sip::endpoint::{ClientFailure, ClientTx, ServerTx};
use ims_sip::{Message, Method};
use script::{Act, Step};
use sdp::Session;
use send::{Sent, What};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// More calls at a time than this are busy.
const MOST: usize = 4;
/// Ended calls and messages kept for whoever looks.
const KEPT: usize = 16;
/// ACKs that may have to be sent again.
const ACKS: usize = 8;

/// Who began the call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    Caller,
    Called,
}

impl Side {
    pub fn name(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Called => "called",
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    /// The INVITE is out, and nobody rings yet.
    Calling,
    /// It rings, here or there.
    Ringing,
    /// The 2xx is out and not acknowledged.
    Answered,
    Up,
    /// Our BYE is out.
    Leaving,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::Calling => "calling",
            Self::Ringing => "ringing",
            Self::Answered => "answered",
            Self::Up => "up",
            Self::Leaving => "leaving",
        }
    }
}

/// How a call ended.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Outcome {
    #[error("hung up here")]
    HungUp,
    #[error("hung up by the other side")]
    HungUpByPeer,
    #[error("given up before it was answered")]
    Cancelled,
    /// The caller got this status, or the called side gave it.
    #[error("refused: {status} {reason}")]
    Refused { status: u16, reason: String },
    #[error("no answer came (RFC 3261 timers B and F)")]
    Timeout,
    #[error("the request could not be sent: {0}")]
    Transport(String),
    #[error("the 200 was never acknowledged (RFC 3261 13.3.1.4)")]
    NeverAcknowledged,
    #[error("the reliable provisional response was never acknowledged (RFC 3262 3)")]
    NoPrack,
    #[error("the session was not refreshed in time (RFC 4028 10)")]
    SessionExpired,
    #[error("the other side knows nothing of the call: {0}")]
    Unknown(u16),
    #[error("the handset went off")]
    Off,
}

impl Outcome {
    /// The name it is counted under.
    pub fn name(&self) -> String {
        match self {
            Self::HungUp => "hung-up".into(),
            Self::HungUpByPeer => "hung-up-by-peer".into(),
            Self::Cancelled => "cancelled".into(),
            Self::Refused { status, .. } => format!("status-{status}"),
            Self::Timeout => "timeout".into(),
            Self::Transport(_) => "transport".into(),
            Self::NeverAcknowledged => "never-acknowledged".into(),
            Self::NoPrack => "no-prack".into(),
            Self::SessionExpired => "session-expired".into(),
            Self::Unknown(status) => format!("unknown-{status}"),
            Self::Off => "off".into(),
        }
    }

    /// As a status, for who is told by it.
    fn as_status(&self) -> u16 {
        match self {
            Self::Refused { status, .. } => *status,
            Self::Cancelled => 487,
            Self::Timeout => 408,
            _ => 503,
        }
    }

    fn refused(message: &Message) -> Self {
        let reason = String::from_utf8_lossy(message.reason()).chars().take(80).collect();
        Self::Refused { status: message.status(), reason }
    }
}

impl From<ClientFailure> for Outcome {
    fn from(cause: ClientFailure) -> Self {
        match cause {
            ClientFailure::Timeout => Self::Timeout,
            other => Self::Transport(other.to_string()),
        }
    }
}

/// A call that ended.
#[derive(Clone, Debug)]
pub struct CallReport {
    pub call: u32,
    pub side: Side,
    /// Who was called, or who called.
    pub peer: String,
    pub began: Time,
    /// The first 18x.
    pub rang: Option<Time>,
    /// The 2xx.
    pub answered: Option<Time>,
    pub ended: Time,
    pub outcome: Outcome,
}

/// What a call waits for by the clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Alarm {
    /// The caller has waited long enough, or the called handset has rung for so long.
    GiveUp,
    /// The called side decides, as its script says.
    Decide,
    /// The next step of the script.
    Step,
    /// The 2xx, or the reliable provisional response, once more.
    Repeat,
    /// The session is to be refreshed, or to be given up (RFC 4028).
    Session,
    /// After 491 (RFC 3261 14.1).
    Glare,
}

impl Alarm {
    const ALL: [Self; 6] = [Self::GiveUp, Self::Decide, Self::Step, Self::Repeat, Self::Session, Self::Glare];
}

/// When a command about a call is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Goal {
    Up,
    Over,
    /// The change of the session that runs.
    Changed,
    /// What became of a REFER.
    Referred,
}

/// A response that is sent until it is acknowledged.
#[derive(Debug)]
pub(crate) struct Repeated {
    tx: ServerTx,
    response: Message,
    cseq: u32,
    interval: Duration,
    until: Time,
    /// Our offer is in it: the answer comes with the acknowledgement.
    offers: bool,
}

/// What a change of the session is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    Act(Act),
    Refresh,
}

/// A re-INVITE or UPDATE of ours on its way.
#[derive(Debug)]
struct Change {
    purpose: Purpose,
    /// The session as it was, when the change fails; None: no offer was made.
    before: Option<Session>,
    /// It asks for the session timer, so that its answer decides of that.
    timed: bool,
    /// After a 491: nothing is on its way.
    paused: bool,
}

/// Session timer (RFC 4028).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Interval {
    seconds: u32,
    refreshed_by_us: bool,
    /// The last refresh.
    since: Time,
}

impl Interval {
    /// When the call is given up (RFC 4028 10): a little before the interval ends.
    fn end(&self) -> Time {
        let whole = u64::from(self.seconds);
        self.since + Duration::from_secs(whole - (whole / 3).min(32))
    }
}

pub(crate) struct Call {
    number: u32,
    side: Side,
    stage: Stage,
    peer: String,
    call_id: String,
    began: Time,
    rang: Option<Time>,
    answered: Option<Time>,
    /// Confirmed, or that of our own provisional response.
    dialog: Option<Dialog>,
    session: Session,
    takes_video: bool,
    steps: VecDeque<Step>,
    asked: Vec<(Goal, CommandId)>,
    outgoing: Option<Box<uac::Outgoing>>,
    incoming: Option<Box<uas::Incoming>>,
    /// A 2xx to an INVITE, or a reliable provisional response, without its ACK or PRACK.
    repeated: Option<Box<Repeated>>,
    change: Option<Change>,
    interval: Option<Interval>,
    peer_updates: bool,
    /// Hung up before it could be: BYE follows the ACK.
    leaves: bool,
    /// The call in which we were asked for this one by REFER.
    asked_in: Option<u32>,
}

impl Call {
    fn begin(
        number: u32,
        side: Side,
        stage: Stage,
        peer: String,
        call_id: String,
        session: Session,
        now: Time,
    ) -> Self {
        Self {
            number,
            side,
            stage,
            peer,
            call_id,
            began: now,
            rang: None,
            answered: None,
            dialog: None,
            session,
            takes_video: false,
            steps: VecDeque::new(),
            asked: Vec::new(),
            outgoing: None,
            incoming: None,
            repeated: None,
            change: None,
            interval: None,
            peer_updates: false,
            leaves: false,
            asked_in: None,
        }
    }

    /// The dialog that a request or response belongs to, early ones too.
    fn has(&self, id: &DialogId) -> bool {
        self.dialog.as_ref().is_some_and(|d| d.id() == *id)
            || self.outgoing.as_ref().is_some_and(|out| out.early_of(id).is_some())
    }

    fn snapshot(&self) -> Value {
        json!({
            "call": self.number,
            "side": self.side.name(),
            "state": self.stage.name(),
            "peer": self.peer,
            "call_id": self.call_id,
            "media": self.session.snapshot(),
            "session_expires": self.interval.map(|i| i.seconds),
            "changing": self.change.is_some(),
        })
    }
}

/// What came with a MESSAGE.
#[derive(Clone, Debug)]
struct Text {
    from: String,
    body: String,
}

/// An ACK of ours, as long as the 2xx may come again.
struct Acked {
    id: DialogId,
    cseq: u32,
    ack: Message,
    until: Time,
}

#[derive(Default)]
pub(crate) struct Calls {
    list: BTreeMap<u32, Box<Call>>,
    sent: BTreeMap<ClientTx, Sent>,
    acked: Vec<Acked>,
    last: u32,
    ended: VecDeque<CallReport>,
    reports: VecDeque<CallReport>,
    texts: VecDeque<Text>,
}

/// Whether a call goes on.
type Next = Option<Outcome>;

impl Calls {
    pub(crate) fn is_quiet(&self) -> bool {
        self.list.is_empty() && self.sent.is_empty()
    }

    /// Nothing is under way: no 2xx comes again.
    pub(crate) fn trim(&mut self) {
        self.acked = Vec::new();
        if self.reports.is_empty() {
            self.reports.shrink_to_fit();
        }
    }

    /// Requests of ours without an answer.
    pub(crate) fn waiting(&self) -> usize {
        self.sent.len()
    }

    fn of(&self, id: &DialogId) -> Option<u32> {
        self.list.values().find(|c| c.has(id)).map(|c| c.number)
    }

    /// The INVITE that this transaction is.
    fn ringing_by(&self, tx: ServerTx) -> Option<u32> {
        self.list.values().find(|c| c.incoming.as_ref().is_some_and(|i| i.tx == tx)).map(|c| c.number)
    }

    pub(crate) fn snapshot(&self) -> Value {
        self.list.values().map(|c| c.snapshot()).collect()
    }

    pub(crate) fn ended(&self) -> Value {
        let one = |r: &CallReport| {
            json!({ "call": r.call, "side": r.side.name(), "peer": r.peer, "outcome": r.outcome.name(),
                    "answered": r.answered.is_some() })
        };
        self.ended.iter().map(one).collect()
    }

    pub(crate) fn texts(&self) -> Value {
        self.texts.iter().map(|t| json!({ "from": t.from, "text": t.body })).collect()
    }
}

impl Ue {
    /// Calls that are neither over nor forgotten.
    pub fn calls(&self) -> usize {
        self.calls.list.len()
    }

    /// The next call that ended, oldest first.
    pub fn next_call_report(&mut self) -> Option<CallReport> {
        self.calls.reports.pop_front()
    }

    /// Lets `act` work on a call, and ends the call when it says so.
    fn with_call(
        &mut self,
        number: u32,
        ctx: &mut Ctx<'_>,
        act: impl FnOnce(&mut Self, &mut Call, &mut Ctx<'_>) -> Next,
    ) {
        let Some(mut call) = self.calls.list.remove(&number) else { return };
        match act(self, &mut call, ctx) {
            None => {
                self.calls.list.insert(number, call);
            }
            Some(outcome) => self.end_call(*call, outcome, ctx),
        }
    }

    /// The one place where a call ends: commands are answered, the outcome counted and reported.
    fn end_call(&mut self, call: Call, outcome: Outcome, ctx: &mut Ctx<'_>) {
        for alarm in Alarm::ALL {
            self.timers.clear(&Timer::Call(call.number, alarm));
        }
        self.step(ctx.now, || format!("call {} with {}: {outcome}", call.number, call.peer));
        *self.outcomes.entry(outcome.name()).or_default() += 1;
        for (goal, id) in &call.asked {
            let result = match goal {
                Goal::Over => Ok(json!({ "call": call.number, "outcome": outcome.name() })),
                Goal::Up | Goal::Changed | Goal::Referred => Err(Problem {
                    status: 502,
                    kind: outcome.name(),
                    title: "The call ended".into(),
                    detail: outcome.to_string(),
                    field: None,
                }),
            };
            ctx.act(Action::Reply { id: *id, result });
        }
        if let (Some(asked_in), None) = (call.asked_in, call.answered) {
            self.tell_referrer(asked_in, outcome.as_status(), ctx);
        }
        let report = CallReport {
            call: call.number,
            side: call.side,
            peer: call.peer,
            began: call.began,
            rang: call.rang,
            answered: call.answered,
            ended: ctx.now,
            outcome,
        };
        if self.config.journal {
            keep(&mut self.calls.ended, report.clone());
        }
        keep(&mut self.calls.reports, report);
    }

    /// Answers the commands that waited for this.
    fn reached(call: &mut Call, goal: Goal, ctx: &mut Ctx<'_>) {
        let shown = call.snapshot();
        call.asked.retain(|(wanted, id)| {
            if *wanted == goal {
                ctx.act(Action::Reply { id: *id, result: Ok(shown.clone()) });
            }
            *wanted != goal
        });
    }

    /// Both sides have it now.
    fn come_up(&mut self, call: &mut Call, ctx: &mut Ctx<'_>) {
        call.stage = Stage::Up;
        let answered = *call.answered.get_or_insert(ctx.now);
        self.count("calls-answered");
        self.step(ctx.now, || format!("call {} with {} is up", call.number, call.peer));
        for alarm in [Alarm::GiveUp, Alarm::Decide] {
            self.timers.clear(&Timer::Call(call.number, alarm));
        }
        if let Some(step) = call.steps.front() {
            self.timers.set(Timer::Call(call.number, Alarm::Step), answered + step.after.0);
        }
        Self::reached(call, Goal::Up, ctx);
        if let Some(asked_in) = call.asked_in {
            self.tell_referrer(asked_in, 200, ctx);
        }
    }

    pub(crate) fn on_call_alarm(&mut self, number: u32, alarm: Alarm, ctx: &mut Ctx<'_>) {
        self.with_call(number, ctx, |ue, call, ctx| match alarm {
            Alarm::GiveUp if call.incoming.is_some() => ue.refuse(call, 480, ctx),
            Alarm::GiveUp => ue.give_up(call, ctx),
            Alarm::Decide => ue.decide(call, ctx),
            Alarm::Step => ue.on_step(call, ctx),
            Alarm::Repeat => ue.on_repeat(call, ctx),
            Alarm::Session => ue.on_session_due(call, ctx),
            Alarm::Glare => ue.on_glare_over(call, ctx),
        });
    }

    /// An answer to a request of ours that is not of the registration; false when it is not one of these.
    pub(crate) fn on_call_answer(
        &mut self,
        tx: ClientTx,
        message: &Message,
        flow: ims_core::Flow,
        ctx: &mut Ctx<'_>,
    ) -> bool {
        if self.on_repeated_2xx(message, ctx) {
            return true;
        }
        let Some(sent) = self.calls.sent.get(&tx).cloned() else { return false };
        self.check_response(&sent, message, &flow);
        if message.status() >= 200 {
            self.calls.sent.remove(&tx);
        }
        match sent.call {
            Some(number) => {
                self.with_call(number, ctx, |ue, call, ctx| ue.on_answer_in(call, tx, &sent, message, ctx));
            }
            None => self.on_answer_outside(&sent, message, ctx),
        }
        true
    }

    /// Nobody answered; false when the request is not one of these.
    pub(crate) fn on_call_silence(&mut self, tx: ClientTx, cause: ClientFailure, ctx: &mut Ctx<'_>) -> bool {
        let Some(sent) = self.calls.sent.remove(&tx) else { return false };
        match sent.call {
            Some(number) => self.with_call(number, ctx, |ue, call, ctx| ue.on_silence_in(call, &sent, cause, ctx)),
            None if sent.what == What::Subscribe => self.on_subscribed(None, ctx),
            None => {
                if let Some(id) = sent.asked {
                    ctx.act(Action::Reply { id, result: Err(failed(&Outcome::from(cause))) });
                }
            }
        }
        true
    }

    /// Hangs up all calls, as who de-registers does first (TS 24.229 5.1.1.6).
    pub fn leave_calls(&mut self, ctx: &mut Ctx<'_>) {
        let all: Vec<u32> = self.calls.list.keys().copied().collect();
        for number in all {
            self.with_call(number, ctx, |ue, call, ctx| ue.hang_up(call, ctx));
        }
    }

    /// All of it, without a word.
    pub(crate) fn drop_calls(&mut self, ctx: &mut Ctx<'_>) {
        for (_, call) in std::mem::take(&mut self.calls.list) {
            self.end_call(*call, Outcome::Off, ctx);
        }
        for (_, sent) in std::mem::take(&mut self.calls.sent) {
            if let Some(id) = sent.asked {
                ctx.act(Action::Reply { id, result: Err(failed(&Outcome::Off)) });
            }
        }
        self.calls.acked.clear();
    }

    fn on_answer_outside(&mut self, sent: &Sent, message: &Message, ctx: &mut Ctx<'_>) {
        if message.status() < 200 {
            return;
        }
        if sent.what == What::Subscribe {
            return self.on_subscribed(Some(message), ctx);
        }
        let Some(id) = sent.asked else { return };
        let result = match message.status() {
            200..=299 => Ok(json!({ "status": message.status() })),
            _ => Err(failed(&Outcome::refused(message))),
        };
        ctx.act(Action::Reply { id, result });
    }

    /// A request of the network, whatever it is about.
    pub(crate) fn on_call_request(&mut self, tx: ServerTx, message: Message, ctx: &mut Ctx<'_>) {
        let within = message.first::<ims_sip::headers::To<'_>>().ok().flatten().is_some_and(|to| to.tag().is_some());
        self.check_request(&message, !within);
        if within && self.on_request_within(tx, &message, ctx) {
            return;
        }
        if message.method() == Method::Notify && self.on_reg_event(tx, &message, ctx) {
            return;
        }
        match message.method() {
            Method::Invite if !within => self.on_invite(tx, message, ctx),
            _ => self.on_request_outside(tx, &message, within, ctx),
        }
    }

    /// A request that belongs to no call.
    fn on_request_outside(&mut self, tx: ServerTx, message: &Message, within: bool, ctx: &mut Ctx<'_>) {
        let status = match message.method() {
            _ if within => 481,
            Method::Options | Method::Message => 200,
            Method::Bye | Method::Notify | Method::Update | Method::Prack | Method::Info => 481,
            Method::Subscribe => 489,
            Method::Refer => 603,
            _ => 501,
        };
        if message.method() == Method::Message {
            let from = message.first::<ims_sip::headers::From<'_>>().ok().flatten().map(|f| f.uri.to_owned());
            let body = String::from_utf8_lossy(message.body()).chars().take(1000).collect();
            keep(&mut self.calls.texts, Text { from: from.unwrap_or_default(), body });
        }
        let tag = ctx.rng.token(10);
        let response = self.response(message, status, Some(&tag));
        self.respond(tx, response, ctx);
    }
}

fn failed(outcome: &Outcome) -> Problem {
    Problem {
        status: 502,
        kind: outcome.name(),
        title: "The network did not do it".into(),
        detail: outcome.to_string(),
        field: None,
    }
}

fn keep<T>(list: &mut VecDeque<T>, one: T) {
    if list.len() == KEPT {
        list.pop_front();
    }
    list.push_back(one);
}
