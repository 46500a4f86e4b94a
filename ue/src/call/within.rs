//! What both ends do in the dialog of a call: BYE, re-INVITE, UPDATE, INFO, session refreshes (RFC 3261 14 and 15, RFC 3311,
//! RFC 4028, RFC 6086).

use super::script::Act;
use super::send::{Sent, What};
use super::uac::session_in;
use super::{Alarm, Call, Change, Goal, Next, Outcome, Purpose, Stage, failed};
use crate::error::Fault;
use crate::{Timer, Ue};
use ims_core::{Action, CommandId, Ctx, Problem};
use ims_sip::dialog::{Dialog, DialogId};
use ims_sip::endpoint::{ClientFailure, ClientTx, ServerTx};
use ims_sip::headers::{CSeq, MinSe, SessionExpires};
use ims_sip::{Message, Method, Name};
use serde_json::json;
use std::time::Duration;

/// A step that is due while the session changes waits this long.
const BUSY: Duration = Duration::from_millis(500);
/// A session refresh that failed is tried again so much later.
const REFRESH_AGAIN: Duration = Duration::from_secs(10);

impl Ue {
    /// A request with a To tag.
    pub(super) fn on_request_within(&mut self, tx: ServerTx, m: &Message, ctx: &mut Ctx<'_>) -> bool {
        let Some(id) = DialogId::of_request(m) else { return false };
        let Some(number) = self.calls.of(&id) else { return false };
        self.with_call(number, ctx, |ue, call, ctx| ue.on_in_dialog(call, &id, tx, m, ctx));
        true
    }

    fn on_in_dialog(&mut self, call: &mut Call, id: &DialogId, tx: ServerTx, m: &Message, ctx: &mut Ctx<'_>) -> Next {
        let early = call.outgoing.as_mut().and_then(|out| out.early_mut(id)).map(|e| &mut e.dialog);
        if let Some(dialog) = early.or(call.dialog.as_mut())
            && let Err(error) = dialog.on_request(m)
        {
            return self.plainly(tx, m, error.status(), ctx);
        }
        match m.method() {
            Method::Prack => self.on_prack(call, tx, m, ctx),
            Method::Bye => self.on_bye(call, tx, m, ctx),
            Method::Invite | Method::Update => self.on_change(call, tx, m, ctx),
            Method::Info | Method::Options | Method::Message => self.plainly(tx, m, 200, ctx),
            Method::Refer => self.on_refer(call, tx, m, ctx),
            Method::Subscribe => self.plainly(tx, m, 489, ctx),
            Method::Notify => self.on_refer_notify(call, tx, m, ctx),
            _ => self.plainly(tx, m, 501, ctx),
        }
    }

    fn plainly(&mut self, tx: ServerTx, request: &Message, status: u16, ctx: &mut Ctx<'_>) -> Next {
        let response = self.response(request, status, None);
        self.respond(tx, response, ctx);
        None
    }

    fn on_bye(&mut self, call: &mut Call, tx: ServerTx, bye: &Message, ctx: &mut Ctx<'_>) -> Next {
        self.plainly(tx, bye, 200, ctx);
        if call.incoming.is_some() {
            self.end_early(call, ctx);
            return Some(Outcome::Cancelled);
        }
        Some(if call.stage == Stage::Leaving { Outcome::HungUp } else { Outcome::HungUpByPeer })
    }

    /// re-INVITE or UPDATE of the other side.
    fn on_change(&mut self, call: &mut Call, tx: ServerTx, m: &Message, ctx: &mut Ctx<'_>) -> Next {
        let is_invite = m.method() == Method::Invite;
        let has_offer = is_invite || !m.body().is_empty();
        let ours_is_open = call.change.as_ref().is_some_and(|c| c.before.is_some() && !c.paused)
            || call.repeated.as_ref().is_some_and(|r| r.offers);
        let theirs_is_open = is_invite
            && (call.incoming.is_some() || call.outgoing.is_some() || call.repeated.is_some())
            || has_offer && call.incoming.as_ref().is_some_and(|_| !call.session.is_agreed());
        // RFC 3261 14.2, RFC 3311 5.2.
        if has_offer && ours_is_open {
            return self.plainly(tx, m, 491, ctx);
        }
        if theirs_is_open {
            let mut response = self.response(m, 500, None);
            response.set(Name::RetryAfter, ctx.rng.below(10));
            self.respond(tx, response, ctx);
            return None;
        }
        let min_se = self.config.script.called.min_se;
        let asked = m.first::<SessionExpires<'_>>().ok().flatten();
        if m.has_token(Name::Supported, "timer") && asked.is_some_and(|s| s.seconds < min_se) {
            let mut response = self.response(m, 422, None);
            response.set(Name::MinSe, min_se);
            self.respond(tx, response, ctx);
            return None;
        }
        let mut response = self.response(m, 200, None);
        let mut offers = false;
        let bearer_comes = has_offer && call.incoming.is_some() && call.session.bearer == Some(false);
        if bearer_comes {
            call.session.bearer = Some(true);
        }
        if has_offer {
            let Some(body) = self.next_description(call, m) else { return self.plainly(tx, m, 488, ctx) };
            response.set_body("application/sdp", body.as_bytes());
            offers = m.body().is_empty();
        }
        if call.incoming.is_none() {
            self.grant_interval(call, m, &mut response, ctx);
        }
        if is_invite {
            let cseq = m.first::<CSeq<'_>>().ok().flatten().map_or(1, |c| c.number);
            self.repeat_until_acknowledged(call, tx, &response, cseq, offers, ctx);
        }
        self.count("changes-taken");
        self.respond(tx, response, ctx);
        if bearer_comes { self.ring_at_last(call, ctx) } else { None }
    }

    /// An answer to a request of ours in a call.
    pub(super) fn on_answer_in(
        &mut self,
        call: &mut Call,
        tx: ClientTx,
        sent: &Sent,
        message: &Message,
        ctx: &mut Ctx<'_>,
    ) -> Next {
        let status = message.status();
        match sent.what {
            What::Invite => self.on_invite_answer(call, tx, message, ctx),
            _ if status < 200 => None,
            What::Bye => Some(Outcome::HungUp),
            What::Change => self.on_change_answer(call, sent, message, ctx),
            What::Refer => {
                Self::on_refer_answer(call, message, ctx);
                self.ended_by(call, status, ctx)
            }
            What::Prack | What::Plain | What::Subscribe => {
                if let Some(id) = sent.asked {
                    let result = match status {
                        ..300 => Ok(json!({ "status": status })),
                        _ => Err(failed(&Outcome::refused(message))),
                    };
                    ctx.act(Action::Reply { id, result });
                }
                if sent.what == What::Prack && status < 300 {
                    self.tell_bearer(call, ctx);
                }
                self.ended_by(call, status, ctx)
            }
        }
    }

    /// RFC 3261 12.2.1.2: who does not know the dialog has ended it; who does not answer is sent a BYE.
    fn ended_by(&mut self, call: &mut Call, status: u16, ctx: &mut Ctx<'_>) -> Next {
        let confirmed = matches!(call.stage, Stage::Up | Stage::Answered);
        match status {
            481 if confirmed => Some(Outcome::Unknown(status)),
            status if confirmed && Dialog::is_ended_by(status) => self.say_bye(call, ctx),
            _ => None,
        }
    }

    pub(super) fn on_silence_in(
        &mut self,
        call: &mut Call,
        sent: &Sent,
        cause: ClientFailure,
        ctx: &mut Ctx<'_>,
    ) -> Next {
        match sent.what {
            What::Invite => self.on_invite_silence(call, cause),
            What::Bye => Some(Outcome::HungUp),
            What::Change | What::Plain | What::Prack | What::Refer | What::Subscribe => {
                if let Some(id) = sent.asked {
                    ctx.act(Action::Reply { id, result: Err(failed(&cause.into())) });
                }
                if sent.what == What::Change {
                    self.undo_change(call, ctx, &cause.into());
                }
                self.ended_by(call, 408, ctx)
            }
        }
    }

    /// BYE, as soon as it may be said (RFC 3261 15: not before the ACK of our 2xx).
    pub(super) fn say_bye(&mut self, call: &mut Call, ctx: &mut Ctx<'_>) -> Next {
        if call.stage == Stage::Leaving {
            return None;
        }
        let waits = call.repeated.as_ref().is_some_and(|r| r.until > ctx.now && r.response.status() >= 200);
        if waits && call.stage == Stage::Answered {
            call.leaves = true;
            return None;
        }
        let Some(dialog) = call.dialog.as_mut() else { return Some(Outcome::HungUp) };
        let (bye, _) = dialog.request("BYE");
        call.stage = Stage::Leaving;
        call.repeated = None;
        for alarm in Alarm::ALL {
            self.timers.clear(&Timer::Call(call.number, alarm));
        }
        self.launch(bye, Sent::in_call(call.number, What::Bye), ctx);
        None
    }

    /// The user has had enough, whatever the call's stage is.
    pub(super) fn hang_up(&mut self, call: &mut Call, ctx: &mut Ctx<'_>) -> Next {
        if call.outgoing.is_some() {
            return self.give_up(call, ctx);
        }
        if call.incoming.is_some() {
            return self.refuse(call, 603, ctx);
        }
        self.say_bye(call, ctx)
    }

    pub(super) fn on_step(&mut self, call: &mut Call, ctx: &mut Ctx<'_>) -> Next {
        let step = call.steps.front().copied()?;
        let changes = !matches!(step.act, Act::Hangup | Act::Info | Act::Options);
        if changes && (call.change.is_some() || call.repeated.is_some()) {
            self.timers.set(Timer::Call(call.number, Alarm::Step), ctx.now + BUSY);
            return None;
        }
        call.steps.pop_front();
        let answered = call.answered.unwrap_or(ctx.now);
        if let Some(next) = call.steps.front() {
            self.timers.set(Timer::Call(call.number, Alarm::Step), answered + next.after.0);
        }
        match step.act {
            Act::Hangup => self.say_bye(call, ctx),
            Act::Info | Act::Options => self.plain_in(call, step.act, None, ctx),
            act => self.change(call, Purpose::Act(act), ctx),
        }
    }

    pub(super) fn plain_in(&mut self, call: &mut Call, act: Act, asked: Option<CommandId>, ctx: &mut Ctx<'_>) -> Next {
        let dialog = call.dialog.as_mut()?;
        let (mut m, _) = dialog.request(if act == Act::Info { "INFO" } else { "OPTIONS" });
        if act == Act::Info {
            m.set(Name::InfoPackage, "g.3gpp.mid-call");
            m.set_body("text/plain", b"hello");
        }
        self.launch(m, Sent { asked, ..Sent::in_call(call.number, What::Plain) }, ctx);
        None
    }

    /// An act of a command: why not, when it cannot be.
    pub(super) fn act_for(&mut self, call: &mut Call, act: Act, id: CommandId, ctx: &mut Ctx<'_>) -> Next {
        if call.stage != Stage::Up || call.change.is_some() {
            let why = if call.change.is_some() { "the session changes just now" } else { "the call is not up" };
            ctx.act(Action::Reply { id, result: Err(Problem::conflict(None, why)) });
            return None;
        }
        match act {
            Act::Hangup => {
                call.asked.push((Goal::Over, id));
                self.say_bye(call, ctx)
            }
            Act::Info | Act::Options => self.plain_in(call, act, Some(id), ctx),
            act => {
                call.asked.push((Goal::Changed, id));
                self.change(call, Purpose::Act(act), ctx)
            }
        }
    }

    /// Changes or refreshes the session by a request of ours.
    fn change(&mut self, call: &mut Call, purpose: Purpose, ctx: &mut Ctx<'_>) -> Next {
        let before = call.session.clone();
        match purpose {
            Purpose::Act(Act::Hold) => call.session.holding = true,
            Purpose::Act(Act::Resume) => call.session.holding = false,
            Purpose::Act(Act::Video) => (call.session.video, call.takes_video) = (true, true),
            Purpose::Act(Act::Audio) => call.session.video = false,
            Purpose::Act(Act::Narrowband) => call.session.narrow = true,
            Purpose::Act(_) | Purpose::Refresh => {}
        }
        let by_update = matches!(purpose, Purpose::Refresh | Purpose::Act(Act::Update)) && call.peer_updates;
        let offers = !by_update || purpose != Purpose::Refresh;
        let dialog = call.dialog.as_mut()?;
        let (mut m, _) = dialog.request(if by_update { "UPDATE" } else { "INVITE" });
        m.set(Name::Contact, self.call_contact());
        Self::ask_headers(&mut m);
        if let Some(interval) = call.interval {
            let refresher = if interval.refreshed_by_us { "uac" } else { "uas" };
            m.set(Name::Supported, "timer");
            m.set(Name::SessionExpires, format_args!("{};refresher={refresher}", interval.seconds));
            m.set(Name::MinSe, 90);
        }
        if offers {
            m.set_body("application/sdp", call.session.offer().as_bytes());
        }
        let timed = call.interval.is_some();
        call.change = Some(Change { purpose, before: offers.then_some(before), timed, paused: false });
        self.count("changes-made");
        self.launch(m, Sent::in_call(call.number, What::Change), ctx);
        None
    }

    fn on_change_answer(&mut self, call: &mut Call, sent: &Sent, message: &Message, ctx: &mut Ctx<'_>) -> Next {
        let status = message.status();
        let change = call.change.take()?;
        if status >= 300 {
            return self.on_change_refused(call, change, message, ctx);
        }
        let mut broken = false;
        if let Some(dialog) = call.dialog.as_mut() {
            broken = dialog.on_response(message).is_err();
            if !sent.is_update {
                let (ack, _) = dialog.ack(sent.cseq);
                let id = dialog.id();
                self.acknowledge(ack, id, sent.cseq, ctx);
            }
        }
        if broken {
            self.note(&Fault::NoContact);
        }
        if change.before.is_some() && !session_in(message).is_some_and(|answer| call.session.take_answer(&answer)) {
            self.note(&Fault::BadAnswer);
        }
        if change.timed {
            self.keep_interval(call, message, true, ctx);
        }
        Self::reached(call, Goal::Changed, ctx);
        if call.leaves { self.say_bye(call, ctx) } else { None }
    }

    fn on_change_refused(&mut self, call: &mut Call, change: Change, message: &Message, ctx: &mut Ctx<'_>) -> Next {
        let status = message.status();
        if let Some(before) = change.before.clone() {
            call.session = before;
        }
        let least = message.first::<MinSe<'_>>().ok().flatten().map(|m| m.seconds);
        match (status, least, call.interval.as_mut()) {
            (491, ..) => {
                // RFC 3261 14.1: who began the call waits longer.
                let millis = match call.side {
                    super::Side::Caller => 2_100 + ctx.rng.below(1_900),
                    super::Side::Called => ctx.rng.below(2_000),
                };
                call.change = Some(Change { paused: true, before: None, ..change });
                self.timers.set(Timer::Call(call.number, Alarm::Glare), ctx.now + Duration::from_millis(millis));
                None
            }
            (422, Some(least), Some(interval)) if least > interval.seconds => {
                interval.seconds = least;
                self.change(call, change.purpose, ctx)
            }
            _ => {
                call.change = Some(change);
                self.undo_change(call, ctx, &Outcome::refused(message));
                self.ended_by(call, status, ctx)
            }
        }
    }

    /// The change did not come about; the session is as it was (RFC 3261 14.1).
    fn undo_change(&mut self, call: &mut Call, ctx: &mut Ctx<'_>, why: &Outcome) {
        let Some(change) = call.change.take() else { return };
        if let Some(before) = change.before {
            call.session = before;
        }
        self.count("changes-refused");
        call.asked.retain(|(goal, id)| {
            if *goal == Goal::Changed {
                ctx.act(Action::Reply { id: *id, result: Err(failed(why)) });
            }
            *goal != Goal::Changed
        });
    }

    pub(super) fn on_glare_over(&mut self, call: &mut Call, ctx: &mut Ctx<'_>) -> Next {
        let change = call.change.take_if(|c| c.paused)?;
        self.change(call, change.purpose, ctx)
    }

    /// RFC 4028 10: half of the interval for who refreshes; a little before its end for who waits.
    pub(super) fn set_session_alarm(&mut self, call: &Call, ctx: &mut Ctx<'_>) {
        let alarm = Timer::Call(call.number, Alarm::Session);
        let Some(interval) = call.interval else {
            self.timers.clear(&alarm);
            return;
        };
        let half = interval.since + Duration::from_secs(u64::from(interval.seconds) / 2);
        // A refresh that failed is tried again, as long as there is time.
        let next = half.max(ctx.now + REFRESH_AGAIN).min(interval.end());
        self.timers.set(alarm, if interval.refreshed_by_us { next } else { interval.end() });
    }

    pub(super) fn on_session_due(&mut self, call: &mut Call, ctx: &mut Ctx<'_>) -> Next {
        let interval = call.interval?;
        if call.stage != Stage::Up {
            return None;
        }
        if interval.end() <= ctx.now {
            self.count("sessions-expired");
            return self.say_bye(call, ctx);
        }
        if call.change.is_some() || call.repeated.is_some() {
            self.timers.set(Timer::Call(call.number, Alarm::Session), ctx.now + BUSY);
            return None;
        }
        self.count("sessions-refreshed");
        self.set_session_alarm(call, ctx);
        self.change(call, Purpose::Refresh, ctx)
    }
}
