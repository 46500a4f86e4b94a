//! Call transfer by REFER (RFC 3515): the other side is asked to call somebody, and tells what became of it.

use super::send::{Sent, What};
use super::{Call, Goal, Next, Outcome, Script, failed};
use crate::Ue;
use ims_core::{Action, CommandId, Ctx};
use ims_sip::endpoint::ServerTx;
use ims_sip::headers::{Event, ReferTo, SubscriptionState};
use ims_sip::{Message, Name, reason_phrase};
use serde_json::json;

/// How long the other side may take to call.
const PATIENCE_S: u32 = 180;

impl Ue {
    /// Asks the other side of a call to call `to`.
    pub(super) fn refer(&mut self, call: &mut Call, to: &str, id: CommandId, ctx: &mut Ctx<'_>) -> Next {
        let dialog = call.dialog.as_mut()?;
        let (mut m, _) = dialog.request("REFER");
        m.set(Name::Contact, self.call_contact());
        m.set(Name::ReferTo, format_args!("<{to}>"));
        m.set(Name::ReferredBy, format_args!("<{}>", self.own_identity()));
        call.asked.push((Goal::Referred, id));
        self.launch(m, Sent::in_call(call.number, What::Refer), ctx);
        None
    }

    /// We are asked to call somebody: we do, and say how it goes.
    pub(super) fn on_refer(&mut self, call: &mut Call, tx: ServerTx, m: &Message, ctx: &mut Ctx<'_>) -> Next {
        let to = m.first::<ReferTo<'_>>().ok().flatten().map(|to| to.uri.to_owned());
        let Some(to) = to else {
            let response = self.response(m, 400, None);
            self.respond(tx, response, ctx);
            return None;
        };
        let response = self.response(m, 202, None);
        self.respond(tx, response, ctx);
        self.notify_referrer(call, 100, ctx);
        let script = Script { calling: self.config.script.calling.clone(), ..Script::default() };
        match self.call_for(&to, &script, None, ctx) {
            Ok(number) => {
                if let Some(made) = self.calls.list.get_mut(&number) {
                    made.asked_in = Some(call.number);
                }
            }
            Err(_) => self.notify_referrer(call, 503, ctx),
        }
        None
    }

    /// What became of the call that we were asked for.
    pub(super) fn tell_referrer(&mut self, asked_in: u32, status: u16, ctx: &mut Ctx<'_>) {
        self.with_call(asked_in, ctx, |ue, call, ctx| {
            ue.notify_referrer(call, status, ctx);
            None
        });
    }

    fn notify_referrer(&mut self, call: &mut Call, status: u16, ctx: &mut Ctx<'_>) {
        if call.stage != super::Stage::Up {
            return;
        }
        let Some(dialog) = call.dialog.as_mut() else { return };
        let (mut m, _) = dialog.request("NOTIFY");
        m.set(Name::Contact, self.call_contact());
        m.set(Name::Event, "refer");
        match status {
            ..200 => m.set(Name::SubscriptionState, format_args!("active;expires={PATIENCE_S}")),
            _ => m.set(Name::SubscriptionState, "terminated;reason=noresource"),
        }
        let line = format!("SIP/2.0 {status} {}\r\n", reason_phrase(status));
        m.set_body("message/sipfrag;version=2.0", line.as_bytes());
        self.launch(m, Sent::in_call(call.number, What::Plain), ctx);
    }

    /// Our REFER was taken, or not.
    pub(super) fn on_refer_answer(call: &mut Call, answer: &Message, ctx: &mut Ctx<'_>) {
        if answer.status() >= 300 {
            Self::referred(call, answer.status(), ctx);
        }
    }

    /// How it goes with the call that we asked for.
    pub(super) fn on_refer_notify(&mut self, call: &mut Call, tx: ServerTx, m: &Message, ctx: &mut Ctx<'_>) -> Next {
        let expected = call.asked.iter().any(|(goal, _)| *goal == Goal::Referred);
        let is_refer = m.first::<Event<'_>>().ok().flatten().is_some_and(|e| e.package.eq_ignore_ascii_case("refer"));
        let response = self.response(m, if is_refer && expected { 200 } else { 481 }, None);
        self.respond(tx, response, ctx);
        let over = m.first::<SubscriptionState<'_>>().ok().flatten().is_some_and(|s| s.is_terminated());
        if is_refer && over {
            let body = std::str::from_utf8(m.body()).unwrap_or_default();
            let status = body.split_ascii_whitespace().nth(1).and_then(|s| s.parse().ok()).unwrap_or(500);
            Self::referred(call, status, ctx);
        }
        None
    }

    fn referred(call: &mut Call, status: u16, ctx: &mut Ctx<'_>) {
        call.asked.retain(|(goal, id)| {
            if *goal == Goal::Referred {
                let result = match status {
                    200..300 => Ok(json!({ "status": status })),
                    _ => Err(failed(&Outcome::Refused { status, reason: reason_phrase(status).into() })),
                };
                ctx.act(Action::Reply { id: *id, result });
            }
            *goal != Goal::Referred
        });
    }
}
