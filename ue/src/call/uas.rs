//! The called side until the call is up (RFC 3261 13.3, RFC 3262 3, TS 24.229 5.1.4.1).

use super::script::Decision;
use super::sdp::Session;
use super::send::KNOWN;
use super::uac::session_in;
use super::{Alarm, Call, Goal, Next, Outcome, Repeated, Side, Stage};
use crate::error::Fault;
use crate::{Timer, Ue};
use ims_core::Ctx;
use ims_sip::dialog::{Dialog, DialogId};
use ims_sip::endpoint::ServerTx;
use ims_sip::headers::{CSeq, From, RAck, SessionExpires};
use ims_sip::{Message, Method, Name};

/// An INVITE to us that has no final answer.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) tx: ServerTx,
    pub(super) invite: Message,
    tag: String,
    rseq: u32,
    /// The caller offered, or waits for our offer.
    offered: bool,
    decision: Option<Decision>,
    /// Answered by the user while a reliable provisional response waits for its PRACK.
    wants_answer: bool,
}

impl Ue {
    /// An INVITE in no dialog.
    pub(super) fn on_invite(&mut self, tx: ServerTx, invite: Message, ctx: &mut Ctx<'_>) {
        let tag = ctx.rng.token(10);
        match self.refusal_of(&invite, &tag) {
            Some(refusal) => {
                self.count("calls-refused");
                self.respond(tx, refusal, ctx);
            }
            None => self.ring(tx, invite, tag, ctx),
        }
    }

    /// Why this INVITE makes no call here, as the response.
    fn refusal_of(&mut self, invite: &Message, tag: &str) -> Option<Message> {
        let tag = Some(tag);
        let own = |c: &Call| {
            let before = c.incoming.as_ref().map(|i| &i.invite);
            before.is_some_and(|before| is_same_request(before, invite))
        };
        if self.calls.list.values().any(|c| own(c)) {
            self.note(&Fault::Merged);
            return Some(self.response(invite, 482, tag));
        }
        let unknown: Vec<&str> = invite
            .tokens(Name::Require)
            .into_iter()
            .filter(|t| !KNOWN.iter().any(|k| k.eq_ignore_ascii_case(t)))
            .collect();
        if !unknown.is_empty() {
            let mut refusal = self.response(invite, 420, tag);
            refusal.set(Name::Unsupported, unknown.join(", "));
            return Some(refusal);
        }
        let min_se = self.config.script.called.min_se;
        let asked = invite.first::<SessionExpires<'_>>().ok().flatten();
        if invite.has_token(Name::Supported, "timer") && asked.is_some_and(|s| s.seconds < min_se) {
            let mut refusal = self.response(invite, 422, tag);
            refusal.set(Name::MinSe, min_se);
            return Some(refusal);
        }
        if !invite.body().is_empty() && session_in(invite).is_none() {
            let is_sdp =
                invite.text(Name::ContentType).is_some_and(|t| t.trim().eq_ignore_ascii_case("application/sdp"));
            if is_sdp {
                self.note(&Fault::BadOffer);
            }
            let mut refusal = self.response(invite, if is_sdp { 400 } else { 415 }, tag);
            if !is_sdp {
                refusal.set(Name::Accept, "application/sdp");
            }
            return Some(refusal);
        }
        (self.calls.list.len() >= super::MOST).then(|| self.response(invite, 486, tag))
    }

    fn ring(&mut self, tx: ServerTx, invite: Message, tag: String, ctx: &mut Ctx<'_>) {
        let Ok(dialog) = Dialog::as_uas(&invite, &tag) else {
            self.note(&Fault::NoContact);
            let response = self.response(&invite, 400, Some(&tag));
            return self.respond(tx, response, ctx);
        };
        let called = self.config.script.called.clone();
        self.calls.last += 1;
        let number = self.calls.last;
        let peer = invite.first::<From<'_>>().ok().flatten().map_or(String::new(), |f| f.uri.to_owned());
        let call_id = invite.text(Name::CallId).unwrap_or_default().to_owned();
        let session = Session::new(self.config.address, ctx.rng.u64() >> 2, called.video);
        let mut call = Call::begin(number, Side::Called, Stage::Ringing, peer, call_id, session, ctx.now);
        call.rang = Some(ctx.now);
        call.takes_video = called.video;
        call.steps = called.steps.iter().copied().collect();
        call.peer_updates = invite.has_token(Name::Allow, "UPDATE");
        call.dialog = Some(dialog);
        let offered = !invite.body().is_empty();
        let decision = called.decision();
        self.count("calls-received");
        self.step(ctx.now, || format!("call {} from {}", number, call.peer));
        let incoming = Incoming {
            tx,
            invite,
            tag,
            rseq: 0,
            offered,
            decision: decision.as_ref().map(|(_, what)| what.clone()),
            wants_answer: false,
        };
        let waits = called.preconditions && offered && incoming.invite.has_token(Name::Supported, "precondition");
        call.incoming = Some(Box::new(incoming));
        self.timers.set(Timer::Call(number, Alarm::GiveUp), ctx.now + called.ring_for.0);
        let next = match &decision {
            _ if waits => {
                call.session.bearer = Some(false);
                self.say_progress(&mut call, 183, true, true, ctx)
            }
            Some((at, Decision::Reject(_) | Decision::Divert(_))) if at.0.is_zero() => self.decide(&mut call, ctx),
            _ => self.say_ringing(&mut call, ctx),
        };
        match next {
            Some(outcome) => self.end_call(call, outcome, ctx),
            None => {
                if let Some((after, _)) = decision.filter(|_| !waits) {
                    self.timers.set(Timer::Call(number, Alarm::Decide), ctx.now + after.0);
                }
                self.calls.list.insert(number, Box::new(call));
            }
        }
    }

    /// The caller has its bearer: now it rings.
    pub(super) fn ring_at_last(&mut self, call: &mut Call, ctx: &mut Ctx<'_>) -> Next {
        if let Some((after, _)) = self.config.script.called.decision() {
            self.timers.set(Timer::Call(call.number, Alarm::Decide), ctx.now + after.0);
        }
        self.say_progress(call, 180, false, false, ctx)
    }

    /// 180 or 183, as the script says.
    fn say_ringing(&mut self, call: &mut Call, ctx: &mut Ctx<'_>) -> Next {
        let called = &self.config.script.called;
        let (status, reliable, early_media) = (called.ringing, called.reliable, called.early_media);
        if status == 0 { None } else { self.say_progress(call, status, reliable, early_media, ctx) }
    }

    /// A provisional response: reliably when the caller asks for it, or can and we want it.
    fn say_progress(
        &mut self,
        call: &mut Call,
        status: u16,
        wants_reliable: bool,
        early_media: bool,
        ctx: &mut Ctx<'_>,
    ) -> Next {
        let incoming = call.incoming.as_mut()?;
        let demanded = incoming.invite.has_token(Name::Require, "100rel");
        let reliable = demanded || wants_reliable && incoming.invite.has_token(Name::Supported, "100rel");
        let (tx, invite) = (incoming.tx, incoming.invite.clone());
        let (tag, offered) = (incoming.tag.clone(), incoming.offered);
        let mut response = self.response(&invite, status, Some(&tag));
        let mut offers = false;
        copy_record_route(&mut response, &invite);
        if early_media && offered || reliable && !offered {
            let Some(body) = self.next_description(call, &invite) else { return self.refuse(call, 488, ctx) };
            response.set_body("application/sdp", body.as_bytes());
            offers = !offered;
        }
        if reliable {
            // The first is drawn, the next follows (RFC 3262 3).
            let last = call.incoming.as_ref().map_or(0, |i| i.rseq);
            let rseq = if last > 0 { last + 1 } else { ctx.rng.below(0x3fff_fffe) as u32 + 1 };
            if let Some(incoming) = call.incoming.as_mut() {
                incoming.rseq = rseq;
            }
            let tags = if call.session.bearer == Some(false) { "100rel, precondition" } else { "100rel" };
            response.set(Name::Require, tags);
            response.set(Name::RSeq, rseq);
            self.repeat_until_acknowledged(call, tx, &response, rseq, offers, ctx);
        }
        self.respond(tx, response, ctx);
        None
    }

    /// The answer to the offer of this request, or our offer when it has none. None: nothing of it can be taken.
    pub(super) fn next_description(&mut self, call: &mut Call, request: &Message) -> Option<String> {
        match session_in(request) {
            Some(offer) => call.session.answer(&offer, call.takes_video),
            None => Some(call.session.offer()),
        }
    }

    pub(super) fn decide(&mut self, call: &mut Call, ctx: &mut Ctx<'_>) -> Next {
        let decision = call.incoming.as_mut().and_then(|i| i.decision.take());
        match decision {
            Some(Decision::Answer) => self.answer(call, ctx),
            Some(Decision::Reject(status)) => self.refuse(call, status, ctx),
            Some(Decision::Divert(to)) => self.divert(call, &to, ctx),
            None => None,
        }
    }

    /// The user takes the call.
    pub(super) fn answer(&mut self, call: &mut Call, ctx: &mut Ctx<'_>) -> Next {
        let waits_for_prack = call.repeated.is_some();
        let incoming = call.incoming.as_mut()?;
        if waits_for_prack {
            // A 2xx before the PRACK would cross it (RFC 3262 3).
            incoming.wants_answer = true;
            return None;
        }
        let (tx, invite, tag) = (incoming.tx, incoming.invite.clone(), incoming.tag.clone());
        let mut response = self.response(&invite, 200, Some(&tag));
        copy_record_route(&mut response, &invite);
        let agreed_reliably = call.session.is_agreed() && incoming.rseq > 0;
        let mut offers = false;
        if !agreed_reliably {
            let Some(body) = self.next_description(call, &invite) else { return self.refuse(call, 488, ctx) };
            response.set_body("application/sdp", body.as_bytes());
            offers = !invite_offers(&invite);
        }
        self.grant_interval(call, &invite, &mut response, ctx);
        call.incoming = None;
        call.stage = Stage::Answered;
        call.answered = Some(ctx.now);
        let cseq = invite.first::<CSeq<'_>>().ok().flatten().map_or(1, |c| c.number);
        self.repeat_until_acknowledged(call, tx, &response, cseq, offers, ctx);
        self.respond(tx, response, ctx);
        None
    }

    pub(super) fn refuse(&mut self, call: &mut Call, status: u16, ctx: &mut Ctx<'_>) -> Next {
        let incoming = call.incoming.take()?;
        let response = self.response(&incoming.invite, status, Some(&incoming.tag));
        let outcome = Outcome::refused(&response);
        self.respond(incoming.tx, response, ctx);
        Some(outcome)
    }

    pub(super) fn divert(&mut self, call: &mut Call, to: &str, ctx: &mut Ctx<'_>) -> Next {
        let incoming = call.incoming.take()?;
        let mut response = self.response(&incoming.invite, 302, Some(&incoming.tag));
        response.set(Name::Contact, format_args!("<{to}>"));
        let outcome = Outcome::refused(&response);
        self.respond(incoming.tx, response, ctx);
        Some(outcome)
    }

    /// The caller has given up.
    pub(crate) fn on_cancel(&mut self, invite: ServerTx, ctx: &mut Ctx<'_>) {
        let Some(number) = self.calls.ringing_by(invite) else { return self.count("ignored") };
        self.with_call(number, ctx, |ue, call, ctx| {
            ue.refuse(call, 487, ctx);
            Some(Outcome::Cancelled)
        });
    }

    /// The call is over before it was answered: the caller said BYE in the early dialog (RFC 3261 15).
    pub(super) fn end_early(&mut self, call: &mut Call, ctx: &mut Ctx<'_>) {
        self.refuse(call, 487, ctx);
    }

    /// Sends a response again until it is acknowledged (RFC 3261 13.3.1.4, RFC 3262 3).
    pub(super) fn repeat_until_acknowledged(
        &mut self,
        call: &mut Call,
        tx: ServerTx,
        response: &Message,
        cseq: u32,
        offers: bool,
        ctx: &mut Ctx<'_>,
    ) {
        let interval = self.config.t1.0;
        let until = ctx.now + interval * 64;
        call.repeated = Some(Box::new(Repeated { tx, response: response.clone(), cseq, interval, until, offers }));
        self.timers.set(Timer::Call(call.number, Alarm::Repeat), ctx.now + interval);
    }

    pub(super) fn on_repeat(&mut self, call: &mut Call, ctx: &mut Ctx<'_>) -> Next {
        let repeated = call.repeated.as_mut()?;
        let provisional = repeated.response.status() < 200;
        if repeated.until <= ctx.now {
            call.repeated = None;
            if provisional {
                // RFC 3262 3.
                self.refuse(call, 500, ctx);
                return Some(Outcome::NoPrack);
            }
            self.count("never-acknowledged");
            return self.say_bye(call, ctx).map(|_| Outcome::NeverAcknowledged);
        }
        // A provisional response doubles without bound, a 2xx up to T2.
        repeated.interval *= 2;
        if !provisional {
            repeated.interval = repeated.interval.min(self.config.t2.0);
        }
        let at = (ctx.now + repeated.interval).min(repeated.until);
        let (tx, response) = (repeated.tx, repeated.response.clone());
        self.timers.set(Timer::Call(call.number, Alarm::Repeat), at);
        self.count("responses-repeated");
        self.respond(tx, response, ctx);
        None
    }

    /// The ACK to a 2xx of ours.
    pub(crate) fn on_ack(&mut self, ack: &Message, ctx: &mut Ctx<'_>) {
        self.check_request(ack, false);
        let number = DialogId::of_request(ack).and_then(|id| self.calls.of(&id));
        let Some(number) = number else { return self.count("ignored") };
        self.with_call(number, ctx, |ue, call, ctx| {
            let cseq = ack.first::<CSeq<'_>>().ok().flatten().map(|c| c.number);
            let is_due = |r: &Repeated| r.response.status() >= 200 && Some(r.cseq) == cseq;
            let repeated = call.repeated.take_if(|r| is_due(r))?;
            ue.timers.clear(&Timer::Call(call.number, Alarm::Repeat));
            if repeated.offers && !session_in(ack).is_some_and(|answer| call.session.take_answer(&answer)) {
                ue.note(&Fault::BadAnswer);
            }
            if call.stage == Stage::Answered {
                ue.come_up(call, ctx);
            }
            if call.leaves { ue.say_bye(call, ctx) } else { None }
        });
    }

    /// The acknowledgement of a reliable provisional response (RFC 3262 3).
    pub(super) fn on_prack(&mut self, call: &mut Call, tx: ServerTx, prack: &Message, ctx: &mut Ctx<'_>) -> Next {
        let rack = prack.first::<RAck<'_>>().ok().flatten();
        let is_due = |r: &Repeated| {
            let invite = r.response.first::<CSeq<'_>>().ok().flatten().map(|c| c.number);
            r.response.status() < 200
                && rack.is_some_and(|a| a.rseq == r.cseq && Some(a.cseq) == invite && a.method == Method::Invite)
        };
        let Some(repeated) = call.repeated.take_if(|r| is_due(r)) else {
            let response = self.response(prack, 481, None);
            self.respond(tx, response, ctx);
            return None;
        };
        self.timers.clear(&Timer::Call(call.number, Alarm::Repeat));
        let mut response = self.response(prack, 200, None);
        if repeated.offers {
            if !session_in(prack).is_some_and(|answer| call.session.take_answer(&answer)) {
                self.note(&Fault::BadAnswer);
            }
        } else if let Some(offer) = session_in(prack)
            && let Some(answer) = call.session.answer(&offer, call.takes_video)
        {
            response.set_body("application/sdp", answer.as_bytes());
        }
        self.respond(tx, response, ctx);
        let wanted = call.incoming.as_ref().is_some_and(|i| i.wants_answer);
        if wanted { self.answer(call, ctx) } else { None }
    }

    /// RFC 4028 9: the interval that the caller asked for; the caller refreshes when it can.
    pub(super) fn grant_interval(
        &mut self,
        call: &mut Call,
        request: &Message,
        response: &mut Message,
        ctx: &mut Ctx<'_>,
    ) {
        let asked = request.first::<SessionExpires<'_>>().ok().flatten();
        let Some(asked) = asked.filter(|_| request.has_token(Name::Supported, "timer")) else { return };
        let refresher = asked.refresher().unwrap_or("uac");
        response.set(Name::SessionExpires, format_args!("{};refresher={refresher}", asked.seconds));
        response.set(Name::Require, "timer");
        self.keep_interval(call, response, false, ctx);
    }

    /// The goal that a command on a ringing call waits for.
    pub(super) fn answer_for(&mut self, call: &mut Call, id: ims_core::CommandId, ctx: &mut Ctx<'_>) -> Next {
        call.asked.push((Goal::Up, id));
        self.timers.clear(&Timer::Call(call.number, Alarm::Decide));
        self.answer(call, ctx)
    }
}

fn invite_offers(invite: &Message) -> bool {
    !invite.body().is_empty()
}

/// The route set of the caller comes from the responses (RFC 3261 12.1.1).
fn copy_record_route(response: &mut Message, request: &Message) {
    response.copy(Name::RecordRoute, request);
}

/// RFC 3261 8.2.2.2: From tag, Call-ID and CSeq.
fn is_same_request(a: &Message, b: &Message) -> bool {
    let tag = |m: &Message| m.first::<From<'_>>().ok().flatten().and_then(|f| f.tag().map(str::to_owned));
    let cseq = |m: &Message| m.first::<CSeq<'_>>().ok().flatten().map(|c| c.number);
    a.text(Name::CallId) == b.text(Name::CallId) && tag(a) == tag(b) && cseq(a) == cseq(b)
}
