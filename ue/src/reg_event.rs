//! The handset's subscription to its own registration (TS 24.229 5.1.1.3, RFC 3680), and what the network ends by it (5.1.1.7).

use crate::call::send::{Sent, What};
use crate::error::Fault;
use crate::register::{Procedure, same_contact};
use crate::sa::SetState;
use crate::{Timer, Ue};
use ims_core::{Ctx, Time};
use ims_sip::dialog::Dialog;
use ims_sip::endpoint::ServerTx;
use ims_sip::headers::{Event, Expires, SubscriptionState};
use ims_sip::reginfo::{self, RegInfo};
use ims_sip::{Message, Name};
use serde_json::{Value, json};
use std::time::Duration;

/// Asked for, as phones do: longer than any registration.
const WANTED: u32 = 600_000;
/// After a refusal.
const AGAIN: Duration = Duration::from_secs(300);

#[derive(Debug)]
pub(crate) struct Watch {
    subscribe: Message,
    dialog: Option<Dialog>,
    until: Time,
    version: Option<u32>,
    notified: u32,
}

impl Watch {
    pub(crate) fn snapshot(&self) -> Value {
        json!({ "active": self.dialog.is_some(), "version": self.version, "notified": self.notified })
    }
}

impl Ue {
    /// After a registration: a subscription, unless there is one.
    pub(crate) fn watch_registration(&mut self, ctx: &mut Ctx<'_>) {
        if self.config.reg_event && self.watch.is_none() && self.binding.is_some() {
            self.subscribe(ctx);
        }
    }

    pub(crate) fn subscribe(&mut self, ctx: &mut Ctx<'_>) {
        let dialog = self.watch.as_mut().and_then(|w| w.dialog.as_mut());
        let mut m = match dialog {
            Some(dialog) => dialog.request("SUBSCRIBE").0,
            None => {
                let own = self.own_identity();
                self.fresh_request("SUBSCRIBE", &own, false, ctx)
            }
        };
        m.set(Name::Contact, format_args!("<{}>", self.contact_uri(self.sets.established().is_some())));
        m.set(Name::Event, "reg");
        m.set(Name::Accept, "application/reginfo+xml");
        m.set(Name::Expires, WANTED);
        match &mut self.watch {
            Some(watch) if watch.dialog.is_some() => watch.subscribe = m.clone(),
            _ => {
                let watch = Watch { subscribe: m.clone(), dialog: None, until: ctx.now, version: None, notified: 0 };
                self.watch = Some(Box::new(watch));
            }
        }
        self.launch(m, Sent::outside(What::Subscribe), ctx);
    }

    /// None: there was no answer.
    pub(crate) fn on_subscribed(&mut self, answer: Option<&Message>, ctx: &mut Ctx<'_>) {
        let Some(watch) = &mut self.watch else { return };
        let good = answer.filter(|m| m.status() < 300);
        let made = good.and_then(|m| match watch.dialog.take() {
            Some(mut known) => known.on_response(m).is_ok().then_some(known),
            None => Dialog::as_uac(&watch.subscribe, m).ok(),
        });
        match (made, good) {
            (Some(dialog), Some(answer)) => {
                let granted = answer.first::<Expires>().ok().flatten().map_or(0, |e| e.0);
                watch.dialog = Some(dialog);
                watch.until = ctx.now + Duration::from_secs(granted.into());
                // As for registrations (TS 24.229 5.1.1.3): 600 s before the end, or half of a short time.
                let granted = u64::from(granted);
                let wait = if granted > 1200 { granted - 600 } else { granted / 2 };
                self.timers.set(Timer::Subscription, ctx.now + Duration::from_secs(wait.max(1)));
            }
            _ => {
                self.watch = None;
                self.count("reg-event-refused");
                self.timers.set(Timer::Subscription, ctx.now + AGAIN);
            }
        }
    }

    /// A NOTIFY of this subscription; false when it is none.
    pub(crate) fn on_reg_event(&mut self, tx: ServerTx, m: &Message, ctx: &mut Ctx<'_>) -> bool {
        let Some(watch) = &mut self.watch else { return false };
        if watch.dialog.is_none() {
            // It overtook the 200 (RFC 6665 4.4.1).
            watch.dialog = Dialog::from_notify(&watch.subscribe, m).ok();
        }
        let Some(dialog) = watch.dialog.as_mut().filter(|d| d.has(m)) else { return false };
        let is_reg = m.first::<Event<'_>>().ok().flatten().is_some_and(|e| e.package.eq_ignore_ascii_case("reg"));
        let status = match (dialog.on_request(m), is_reg) {
            (Err(error), _) => error.status(),
            (Ok(()), false) => 489,
            (Ok(()), true) => 200,
        };
        watch.notified += u32::from(status == 200);
        let response = self.response(m, status, None);
        self.respond(tx, response, ctx);
        if status != 200 {
            return true;
        }
        let over = m.first::<SubscriptionState<'_>>().ok().flatten().is_some_and(|s| s.is_terminated());
        match RegInfo::read(m.body()) {
            Some(info) => self.learn(&info, ctx),
            None if m.body().is_empty() => {}
            None => self.note(&Fault::BadRegInfo),
        }
        if over {
            self.watch = None;
            self.timers.clear(&Timer::Subscription);
            if self.binding.is_some() {
                // The registration goes on without being watched: it is watched anew (RFC 6665 4.4.1).
                self.timers.set(Timer::Subscription, ctx.now + AGAIN);
            }
        }
        true
    }

    /// Versions follow one another, and the first document says all (RFC 3680 4.7, 5.1).
    fn learn(&mut self, info: &RegInfo, ctx: &mut Ctx<'_>) {
        let Some(watch) = &mut self.watch else { return };
        let last = watch.version;
        if last.is_some_and(|last| info.version <= last) {
            return;
        }
        watch.version = Some(info.version);
        if last.is_none() && !info.is_full {
            return self.note(&Fault::BadRegInfo);
        }
        let own = self.contact_uri(self.sets.established().is_some());
        let ours: Vec<&reginfo::Contact> = info.contacts.iter().filter(|c| same_contact(&c.uri, &own)).collect();
        if self.binding.is_none() {
            return;
        }
        if info.is_full && ours.is_empty() {
            return self.note(&Fault::NotInRegInfo);
        }
        if info.has_ended(|uri| same_contact(uri, &own)) {
            let deactivated = ours.iter().any(|c| c.event == reginfo::Event::Deactivated);
            return self.end_by_network(deactivated, ctx);
        }
        let shortened = ours.iter().find(|c| c.event == reginfo::Event::Shortened).and_then(|c| c.expires);
        if let (Some(left), Some(binding)) = (shortened, &mut self.binding) {
            // The network wants to hear of us: in time for that (TS 24.229 5.1.1.5.1, 5.4.1.6).
            let left = Duration::from_secs(left.into());
            binding.expires = binding.expires.min(ctx.now + left);
            self.timers.set(Timer::Expire, binding.expires);
            self.timers.set(Timer::Refresh, ctx.now + left / 2);
        }
    }

    /// TS 24.229 5.1.1.7: dialogs end, the associations last as long as the answer to the NOTIFY may be asked for again; who was
    /// deactivated registers again.
    fn end_by_network(&mut self, again: bool, ctx: &mut Ctx<'_>) {
        self.count("ended-by-network");
        self.step(ctx.now, || "the network has ended the registration".to_owned());
        self.leave_calls(ctx);
        self.retire_sets(ctx);
        self.forget(ctx);
        if again {
            self.start(Procedure::Register, ctx);
        }
    }

    /// Nothing new goes by them; what is under way may end (TS 33.203 7.4).
    pub(crate) fn retire_sets(&mut self, ctx: &mut Ctx<'_>) {
        let at = ctx.now + self.config.t1.0 * 64;
        for live in &mut self.sets.list {
            if live.state == SetState::Established {
                live.state = SetState::Retiring;
                live.expires = live.expires.min(at);
                self.timers.set(Timer::Retire(live.set.spi_us), live.expires);
            }
        }
    }
}
