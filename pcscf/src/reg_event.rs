//! The P-CSCF's own subscription to the registration state of its users (TS 24.229 5.2.3): what the network ends, an operator or an
//! HSS, ends here too.
//!
//! It begins with the 200 to a REGISTER and is refreshed with one; nothing of it is kept across restarts. The Contact that the
//! NOTIFY comes to names the registration, so that one is understood also without its dialog. The SAs of a registration that is
//! ended linger as always: the NOTIFY for the handset, and its answer, pass inside them.

use crate::contacts::{RegId, Registration};
use crate::register::{Inbound, same_contact};
use crate::{Pcscf, Refusal, Timer, charging};
use ims_core::uri::Uri;
use ims_core::{Ctx, Time};
use ims_sip::endpoint::{ClientTx, Destination};
use ims_sip::headers::{Event, Expires, SubscriptionState};
use ims_sip::reginfo::RegInfo;
use ims_sip::{Dialog, Message, Method, Name};
use std::collections::BTreeMap;
use std::time::Duration;
use tracing::info;

/// User part of our Contact, before the token of the registration.
const USER: &str = "reg-";
/// How long a subscription is wanted beyond the registration, so that a refresh of that finds it alive.
const MARGIN: Duration = Duration::from_secs(600);
/// However short the S-CSCF grants it: no more often.
const LEAST: Duration = Duration::from_secs(60);

/// One subscription. Boxed dialog: it is most of it.
#[derive(Debug, Default)]
struct Watch {
    /// A SUBSCRIBE is on its way.
    is_asked: bool,
    dialog: Option<Box<Dialog>>,
    until: Time,
    /// Of the last document.
    version: Option<u32>,
}

#[derive(Debug, Default)]
pub(crate) struct Watches {
    by_registration: BTreeMap<RegId, Watch>,
    /// SUBSCRIBEs without an answer.
    asked: BTreeMap<ClientTx, (RegId, Message)>,
}

impl Watches {
    pub(crate) fn asked(&self, tx: ClientTx) -> bool {
        self.asked.contains_key(&tx)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_registration.len()
    }

    pub(crate) fn drop_of(&mut self, id: RegId) {
        self.by_registration.remove(&id);
    }
}

impl Pcscf {
    /// After a REGISTER was accepted: a subscription that outlasts it.
    pub(crate) fn watch_registration(&mut self, id: RegId, ctx: &mut Ctx<'_>) {
        let watch = self.watches.by_registration.get(&id);
        if !self.config.subscribe_reg_event || watch.is_some_and(|watch| watch.is_asked) {
            return;
        }
        let granted = watch.filter(|watch| watch.dialog.is_some()).map(|watch| watch.until);
        let Some(registration) = self.contacts.by_id(id).filter(|r| r.is_registered() && !r.is_for_emergencies())
        else {
            return;
        };
        let Some(until) = registration.bindings.values().map(|b| b.expires).max() else { return };
        if granted.is_some_and(|granted| granted > until) {
            return;
        }
        // Refreshed with every other REGISTER at most.
        let expires = (until.since(ctx.now) + MARGIN).as_secs();
        self.subscribe(id, expires, ctx);
    }

    fn subscribe(&mut self, id: RegId, expires: u64, ctx: &mut Ctx<'_>) {
        let Some(registration) = self.contacts.by_id(id) else { return };
        let (token, watched) = (registration.token.clone(), watched(registration).map(str::to_owned));
        let own = format!("{}:{}", self.config.host, self.config.mw.listen.port());
        let watch = self.watches.by_registration.entry(id).or_default();
        let (mut subscribe, to) = match (watch.dialog.as_mut(), watched) {
            (Some(dialog), _) => dialog.request("SUBSCRIBE"),
            (None, Some(user)) => {
                let mut m = Message::request("SUBSCRIBE", &user);
                m.set(Name::MaxForwards, 70);
                m.set(Name::From, format_args!("<sip:{own}>;tag={}", ctx.rng.token(10)));
                m.set(Name::To, format_args!("<{user}>"));
                m.set(Name::CallId, ctx.rng.token(24));
                m.set(Name::CSeq, "1 SUBSCRIBE");
                watch.version = None;
                (m, user)
            }
            (None, None) => {
                self.watches.drop_of(id);
                return self.count("reg-event-nobody");
            }
        };
        watch.is_asked = true;
        // Who asks is the element in the Path of the registration, by the URI that stands there.
        subscribe.set(Name::PAssertedIdentity, format_args!("<sip:{token}@{own}>"));
        subscribe.set(Name::Contact, format_args!("<sip:{USER}{token}@{own}>"));
        subscribe.set(Name::Event, "reg");
        subscribe.set(Name::Accept, "application/reginfo+xml");
        subscribe.set(Name::Expires, expires);
        charging::stamp(&mut subscribe, &self.config.host, &self.config.visited_network, ctx.rng);
        subscribe.set(Name::ContentLength, 0);
        let tx = self.sip.send_request(subscribe.clone(), Destination::Uri(to), ctx);
        self.watches.asked.insert(tx, (id, subscribe));
    }

    /// None: it found no server, or no answer.
    pub(crate) fn on_subscribed(&mut self, tx: ClientTx, answer: Option<&Message>, ctx: &Ctx<'_>) {
        if answer.is_some_and(|answer| answer.status() < 200) {
            return;
        }
        let Some((id, subscribe)) = self.watches.asked.remove(&tx) else { return };
        let made = answer.filter(|answer| answer.status() < 300).and_then(|answer| {
            let watch = self.watches.by_registration.remove(&id);
            let (dialog, version) = watch.map_or((None, None), |watch| (watch.dialog, watch.version));
            let dialog = match dialog {
                // A refresh. Whatever is wrong with its Contact, the old one serves.
                Some(mut known) => {
                    let _ = known.on_response(answer);
                    known
                }
                None => Box::new(Dialog::as_uac(&subscribe, answer).ok()?),
            };
            let seconds = answer.first::<Expires>().ok().flatten().map_or(0, |expires| expires.0);
            let until = ctx.now + Duration::from_secs(seconds.into());
            Some(Watch { is_asked: false, dialog: Some(dialog), until, version })
        });
        match made.filter(|_| self.contacts.by_id(id).is_some_and(Registration::is_registered)) {
            Some(watch) => {
                // A shorter one than was asked for is refreshed in time.
                let again = (watch.until.since(ctx.now) * 9 / 10).max(LEAST);
                self.timers.set(Timer::Subscription(id), ctx.now + again);
                self.watches.by_registration.insert(id, watch);
            }
            // It is tried again with the next REGISTER.
            None => {
                self.count("reg-event-refused");
                self.watches.drop_of(id);
            }
        }
    }

    pub(crate) fn on_subscription_due(&mut self, id: RegId, ctx: &mut Ctx<'_>) {
        let (Some(watch), Some(registration)) = (self.watches.by_registration.get(&id), self.contacts.by_id(id)) else {
            return self.watches.drop_of(id);
        };
        // Otherwise a refresh of the registration will see to it.
        let most = registration.bindings.values().map(|b| b.expires).max();
        if let Some(most) = most.filter(|most| *most > watch.until) {
            self.subscribe(id, (most.since(ctx.now) + MARGIN).as_secs(), ctx);
        }
    }

    /// Whether this is a NOTIFY for ourselves: the registration that it is about.
    pub(crate) fn notified(&self, message: &Message) -> Option<Result<RegId, Refusal>> {
        let uri = Uri::parse(message.uri()).ok().filter(|uri| self.config.is_own(uri))?;
        let token = uri.user()?.strip_prefix(USER).filter(|_| message.method() == Method::Notify)?;
        Some(self.contacts.by_token(token).ok_or(Refusal::UeGone { in_dialog: true }))
    }

    pub(crate) fn on_notify(
        &mut self,
        from: Inbound,
        id: RegId,
        message: &Message,
        ctx: &mut Ctx<'_>,
    ) -> Result<(), Refusal> {
        let bad = |e: ims_sip::HeaderError| Refusal::Malformed(e.to_string());
        let event: Event<'_> = message.require().map_err(bad)?;
        if !event.package.eq_ignore_ascii_case("reg") {
            return Err(Refusal::Malformed("a NOTIFY of another event package than reg".into()));
        }
        let state: SubscriptionState<'_> = message.require().map_err(bad)?;
        let is_over = state.is_terminated();
        if let Some(dialog) = self.watches.by_registration.get_mut(&id).and_then(|watch| watch.dialog.as_mut())
            && dialog.has(message)
            && dialog.on_request(message).is_err()
        {
            return Err(Refusal::Malformed("an older NOTIFY after a newer one".into()));
        }
        self.sip.respond(from.tx, Message::response(message, 200, None), ctx);
        if !message.body().is_empty() {
            match RegInfo::read(message.body()) {
                Some(reg_info) => self.learn(id, &reg_info, ctx),
                None => self.count("reg-event-unreadable"),
            }
        }
        if is_over {
            self.watches.drop_of(id);
            self.timers.clear(&Timer::Subscription(id));
        }
        Ok(())
    }

    /// A NOTIFY that a handset subscribed to for itself, and has answered: what it says holds here too, without a subscription of
    /// our own, and the handset has heard of it inside its SAs.
    pub(crate) fn overhear(&mut self, id: RegId, notify: &Message, ctx: &mut Ctx<'_>) {
        let is_reg =
            matches!(notify.first::<Event<'_>>(), Ok(Some(event)) if event.package.eq_ignore_ascii_case("reg"));
        if notify.method() != Method::Notify || !is_reg {
            return;
        }
        let Some(reg_info) = RegInfo::read(notify.body()) else { return };
        // Of a subscription with versions of its own.
        self.end_what_ended(id, &reg_info, ctx);
    }

    /// What the network ended is ended here (5.2.3): bindings, sessions, and the SAs when their time is over.
    fn learn(&mut self, id: RegId, reg_info: &RegInfo, ctx: &mut Ctx<'_>) {
        if let Some(watch) = self.watches.by_registration.get_mut(&id) {
            // One that was overtaken.
            if watch.version.is_some_and(|last| reg_info.version < last) {
                return;
            }
            watch.version = Some(reg_info.version);
        }
        self.end_what_ended(id, reg_info, ctx);
    }

    fn end_what_ended(&mut self, id: RegId, reg_info: &RegInfo, ctx: &mut Ctx<'_>) {
        let Some(registration) = self.contacts.by_id(id) else { return };
        let ended = |contact: &str| reg_info.has_ended(|uri| same_contact(uri, contact));
        if !registration.bindings.values().any(|b| ended(&b.contact)) {
            return;
        }
        info!(impi = ?registration.impi, "the network has ended the registration of a UE");
        if let Some(registration) = self.contacts.by_id_mut(id) {
            registration.bindings.retain(|_, b| !ended(&b.contact));
        }
        self.count("ended-by-network");
        self.measured.outcomes.count("ended-by-network");
        self.wind_up(id, ctx);
    }
}

/// The identity whose state is watched: the default one, in a form that leads to its home network.
fn watched(registration: &Registration) -> Option<&str> {
    let binding = registration.bindings.values().next()?;
    let is_sip = |uri: &&str| Uri::parse(uri).is_ok_and(|uri| uri.is_sip());
    binding.associated.iter().map(|uri| &**uri).find(is_sip)
}
