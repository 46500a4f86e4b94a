//! The calling side until the call is up (RFC 3261 13.2, RFC 3262 4, TS 24.229 5.1.3.1).

use super::script::Act;
use super::sdp::{Description, Session};
use super::send::{Sent, What};
use super::{Alarm, Call, Change, Goal, Interval, Next, Outcome, Purpose, Script, Side, Stage};
use crate::error::Fault;
use crate::{Timer, Ue};
use ims_core::{CommandId, Ctx};
use ims_sip::dialog::{Dialog, DialogId};
use ims_sip::endpoint::{ClientFailure, ClientTx};
use ims_sip::headers::{CSeq, Contact, ContentType, MinSe, RSeq};
use ims_sip::{Message, Name};

/// As often a call goes where a 3xx says.
const MOST_DIVERSIONS: u32 = 3;
/// Early dialogs of one INVITE: more branches than a network forks.
const MOST_EARLY: usize = 8;

/// One branch that rings.
#[derive(Debug)]
pub(super) struct Early {
    pub(super) dialog: Dialog,
    /// The last reliable provisional response (RFC 3262 4).
    rseq: Option<u32>,
}

/// An INVITE of ours that has no final answer.
#[derive(Debug)]
pub(super) struct Outgoing {
    tx: ClientTx,
    invite: Message,
    early: Vec<Early>,
    cancelled: bool,
    diversions: u32,
    offered: bool,
}

impl Outgoing {
    pub(super) fn early_of(&self, id: &DialogId) -> Option<&Early> {
        self.early.iter().find(|e| e.dialog.id() == *id)
    }

    pub(super) fn early_mut(&mut self, id: &DialogId) -> Option<&mut Early> {
        self.early.iter_mut().find(|e| e.dialog.id() == *id)
    }
}

impl Ue {
    /// Calls someone; the number of the call, or why not.
    pub fn call(&mut self, to: &str, script: &Script, ctx: &mut Ctx<'_>) -> Result<u32, &'static str> {
        self.call_for(to, script, None, ctx)
    }

    pub(super) fn call_for(
        &mut self,
        to: &str,
        script: &Script,
        asked: Option<CommandId>,
        ctx: &mut Ctx<'_>,
    ) -> Result<u32, &'static str> {
        if self.binding.is_none() {
            return Err("not registered: a handset calls when it is");
        }
        if self.calls.list.len() >= super::MOST {
            return Err("too many calls at a time");
        }
        let target = self.target(to).ok_or("whom to call: a URI, a number, or user@domain")?;
        let calling = &script.calling;
        let mut session = Session::new(self.config.address, ctx.rng.u64() >> 2, calling.video);
        let mut invite = self.fresh_request("INVITE", &target, calling.anonymous, ctx);
        invite.set(Name::Contact, self.call_contact());
        self.ask_for_mmtel(&mut invite);
        Self::ask_headers(&mut invite);
        let mut supported = Vec::new();
        if calling.reliable {
            supported.push("100rel");
        }
        if calling.preconditions {
            supported.push("precondition");
            session.bearer = Some(false);
        }
        if calling.session_expires > 0 {
            supported.push("timer");
            invite.set(Name::SessionExpires, calling.session_expires);
            invite.set(Name::MinSe, 90);
        }
        if !supported.is_empty() {
            invite.set(Name::Supported, supported.join(", "));
        }
        invite.set(Name::PEarlyMedia, "supported");
        if !calling.offerless {
            invite.set_body("application/sdp", session.offer().as_bytes());
        }
        self.calls.last += 1;
        let number = self.calls.last;
        let call_id = invite.text(Name::CallId).unwrap_or_default().to_owned();
        let mut call = Call::begin(number, Side::Caller, Stage::Calling, target, call_id, session, ctx.now);
        call.takes_video = calling.video;
        call.steps = calling.steps.iter().copied().collect();
        call.asked.extend(asked.map(|id| (Goal::Up, id)));
        if let Some(patience) = calling.give_up_after {
            self.timers.set(Timer::Call(number, Alarm::GiveUp), ctx.now + patience.0);
        }
        self.count("calls-made");
        self.invite(&mut call, invite, 0, ctx);
        self.calls.list.insert(number, Box::new(call));
        Ok(number)
    }

    fn invite(&mut self, call: &mut Call, invite: Message, diversions: u32, ctx: &mut Ctx<'_>) {
        let offered = !invite.body().is_empty();
        let tx = self.launch(invite.clone(), Sent::in_call(call.number, What::Invite), ctx);
        call.outgoing =
            Some(Box::new(Outgoing { tx, invite, early: Vec::new(), cancelled: false, diversions, offered }));
    }

    /// The same INVITE once more with something changed: the next CSeq, the same Call-ID (RFC 3261 8.1.3.4, 8.1.3.5).
    fn invite_again(&mut self, call: &mut Call, mut invite: Message, diversions: u32, ctx: &mut Ctx<'_>) -> Next {
        let cseq = invite.first::<CSeq<'_>>().ok().flatten().map_or(1, |c| c.number);
        invite.set(Name::CSeq, format_args!("{} INVITE", cseq + 1));
        call.stage = Stage::Calling;
        self.invite(call, invite, diversions, ctx);
        None
    }

    /// An answer to the INVITE that begins the call.
    pub(super) fn on_invite_answer(
        &mut self,
        call: &mut Call,
        tx: ClientTx,
        message: &Message,
        ctx: &mut Ctx<'_>,
    ) -> Next {
        let is_current = call.outgoing.as_ref().is_some_and(|out| out.tx == tx);
        match message.status() {
            101..=199 if is_current => self.on_provisional(call, message, ctx),
            ..=199 => None,
            200..=299 => self.on_accepted(call, message, ctx),
            _ if is_current => self.on_refused(call, message, ctx),
            _ => None,
        }
    }

    fn on_provisional(&mut self, call: &mut Call, message: &Message, ctx: &mut Ctx<'_>) -> Next {
        let status = message.status();
        if matches!(status, 180 | 183) {
            call.rang.get_or_insert(ctx.now);
        }
        if call.stage == Stage::Calling {
            call.stage = Stage::Ringing;
        }
        self.step(ctx.now, || format!("call {}: {status}", call.number));
        let (Some(id), Some(out)) = (DialogId::of_response(message), call.outgoing.as_mut()) else { return None };
        match out.early_mut(&id) {
            Some(early) => {
                let _ = early.dialog.on_response(message);
            }
            None => match Dialog::as_uac(&out.invite, message) {
                Ok(_) if out.early.len() == MOST_EARLY => {}
                Ok(dialog) => out.early.push(Early { dialog, rseq: None }),
                Err(_) => self.note(&Fault::NoContact),
            },
        }
        self.take_reliable(call, &id, message, ctx);
        None
    }

    /// PRACK for a reliable provisional response, in order and once (RFC 3262 4).
    fn take_reliable(&mut self, call: &mut Call, id: &DialogId, message: &Message, ctx: &mut Ctx<'_>) {
        let rseq = message.first::<RSeq>().ok().flatten().map(|r| r.0);
        let Some(rseq) = rseq.filter(|_| message.has_token(Name::Require, "100rel")) else { return };
        let Some(out) = call.outgoing.as_mut() else { return };
        let (invite_cseq, offered) =
            (out.invite.first::<CSeq<'_>>().ok().flatten().map_or(1, |c| c.number), out.offered);
        let Some(early) = out.early_mut(id) else { return };
        if early.rseq.is_some_and(|last| rseq != last.wrapping_add(1)) {
            return;
        }
        early.rseq = Some(rseq);
        let (mut prack, _) = early.dialog.request("PRACK");
        prack.set(Name::RAck, format_args!("{rseq} {invite_cseq} INVITE"));
        if let Some(description) = session_in(message) {
            if !offered {
                match call.session.answer(&description, call.takes_video) {
                    Some(answer) => prack.set_body("application/sdp", answer.as_bytes()),
                    None => self.note(&Fault::BadOffer),
                }
            } else if !call.session.is_agreed() && !call.session.take_answer(&description) {
                self.note(&Fault::BadAnswer);
            }
        }
        self.launch(prack, Sent::in_call(call.number, What::Prack), ctx);
    }

    /// The PRACK has been answered: with preconditions the bearer is up about now, and the other side is told by UPDATE (TS 24.229
    /// 5.1.3.1).
    pub(super) fn tell_bearer(&mut self, call: &mut Call, ctx: &mut Ctx<'_>) {
        let waits = call.session.bearer == Some(false) && call.session.is_agreed() && call.change.is_none();
        let Some(out) = call.outgoing.as_mut().filter(|out| waits && !out.cancelled) else { return };
        let Some(early) = out.early.iter_mut().find(|e| e.rseq.is_some()) else { return };
        let (mut m, _) = early.dialog.request("UPDATE");
        let before = call.session.clone();
        call.session.bearer = Some(true);
        m.set(Name::Contact, self.call_contact());
        m.set_body("application/sdp", call.session.offer().as_bytes());
        call.change =
            Some(Change { purpose: Purpose::Act(Act::Update), before: Some(before), timed: false, paused: false });
        self.launch(m, Sent::in_call(call.number, What::Change), ctx);
    }

    fn on_accepted(&mut self, call: &mut Call, message: &Message, ctx: &mut Ctx<'_>) -> Next {
        let Some(out) = call.outgoing.take() else {
            self.leave_fork(message, ctx);
            return None;
        };
        let id = DialogId::of_response(message);
        let early = id.and_then(|id| out.early_of(&id).map(|e| e.dialog.clone()));
        let made = match early {
            Some(mut dialog) => dialog.on_response(message).map(|()| dialog),
            None => Dialog::as_uac(&out.invite, message),
        };
        let Ok(dialog) = made else {
            // Nobody could be sent an ACK; a phone gives such a call up.
            self.note(&Fault::NoContact);
            return Some(Outcome::refused(message));
        };
        let cseq = out.invite.first::<CSeq<'_>>().ok().flatten().map_or(1, |c| c.number);
        let (mut ack, _) = dialog.ack(cseq);
        match (session_in(message), out.offered) {
            (Some(offer), false) if !call.session.is_agreed() => match call.session.answer(&offer, call.takes_video) {
                Some(answer) => ack.set_body("application/sdp", answer.as_bytes()),
                None => self.note(&Fault::BadOffer),
            },
            (Some(answer), true) if !call.session.is_agreed() && !call.session.take_answer(&answer) => {
                self.note(&Fault::BadAnswer);
            }
            (None, _) if !call.session.is_agreed() => self.note(&Fault::BadAnswer),
            _ => {}
        }
        self.acknowledge(ack, dialog.id(), cseq, ctx);
        call.peer_updates = message.has_token(Name::Allow, "UPDATE");
        call.dialog = Some(dialog);
        self.keep_interval(call, message, true, ctx);
        self.come_up(call, ctx);
        if out.cancelled || call.leaves {
            // Our CANCEL came too late (RFC 3261 9.1, 15).
            return self.say_bye(call, ctx);
        }
        None
    }

    /// Another branch answered as well: it is acknowledged, and left at once (RFC 3261 13.2.2.4).
    fn leave_fork(&mut self, message: &Message, ctx: &mut Ctx<'_>) {
        let cseq = message.first::<CSeq<'_>>().ok().flatten().map_or(1, |c| c.number);
        // The response has all of its request that a dialog needs.
        let Ok(mut dialog) = Dialog::as_uac(message, message) else { return };
        self.count("forks-left");
        let (ack, _) = dialog.ack(cseq);
        self.acknowledge(ack, dialog.id(), cseq, ctx);
        let (bye, _) = dialog.request("BYE");
        self.launch(bye, Sent::outside(What::Bye), ctx);
    }

    fn on_refused(&mut self, call: &mut Call, message: &Message, ctx: &mut Ctx<'_>) -> Next {
        let Some(out) = call.outgoing.take() else { return Some(Outcome::refused(message)) };
        let Outgoing { mut invite, cancelled, diversions, .. } = *out;
        if cancelled {
            return Some(match message.status() {
                487 => Outcome::Cancelled,
                _ => Outcome::refused(message),
            });
        }
        let least = message.first::<MinSe<'_>>().ok().flatten().map(|m| m.seconds);
        let asked = invite.text(Name::SessionExpires).and_then(|s| s.parse::<u32>().ok());
        let moved = message.first::<Contact<'_>>().ok().flatten();
        match (message.status(), least, asked, moved.as_ref().and_then(Contact::addr)) {
            // RFC 4028 7.3.
            (422, Some(least), Some(asked), _) if least > asked => {
                invite.set(Name::SessionExpires, least);
                invite.set(Name::MinSe, least);
                self.invite_again(call, invite, diversions, ctx)
            }
            (300..=302 | 305, _, _, Some(to)) if diversions < MOST_DIVERSIONS => {
                self.step(ctx.now, || format!("call {} is sent on to {}", call.number, to.uri));
                call.peer = to.uri.to_owned();
                invite.set_uri(to.uri);
                self.invite_again(call, invite, diversions + 1, ctx)
            }
            _ => Some(Outcome::refused(message)),
        }
    }

    pub(super) fn on_invite_silence(&mut self, call: &mut Call, cause: ClientFailure) -> Next {
        let cancelled = call.outgoing.as_ref().is_some_and(|out| out.cancelled);
        Some(if cancelled { Outcome::Cancelled } else { cause.into() })
    }

    /// The caller has waited long enough, or hangs up before there is an answer.
    pub(super) fn give_up(&mut self, call: &mut Call, ctx: &mut Ctx<'_>) -> Next {
        if let Some(out) = call.outgoing.as_mut().filter(|out| !out.cancelled) {
            out.cancelled = true;
            self.step(ctx.now, || format!("call {}: CANCEL", call.number));
            self.sip.cancel(out.tx, "", ctx);
        }
        None
    }

    /// What the 2xx says of the session timer (RFC 4028 7.2, 9). `is_uac`: it was our request.
    pub(super) fn keep_interval(&mut self, call: &mut Call, message: &Message, is_uac: bool, ctx: &mut Ctx<'_>) {
        let given = message.first::<ims_sip::headers::SessionExpires<'_>>().ok().flatten();
        let refresher_is_uac = given.as_ref().and_then(|s| s.refresher()) == Some("uac");
        call.interval = given.filter(|s| s.seconds >= 90).map(|s| Interval {
            seconds: s.seconds,
            refreshed_by_us: refresher_is_uac == is_uac,
            since: ctx.now,
        });
        self.set_session_alarm(call, ctx);
    }
}

/// The description in a message, when it has one that can be read.
pub(super) fn session_in(message: &Message) -> Option<Description> {
    let kind = message.first::<ContentType<'_>>().ok().flatten()?;
    kind.is("application/sdp").then(|| Description::parse(message.body()))?
}
