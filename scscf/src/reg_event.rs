//! The notifier of the reg event package (RFC 3680, RFC 6665, TS 24.229 5.4.2.1): who wants to know how a user is registered is
//! told at once, and again with each change.
//!
//! A subscription is of one identity, and tells of the whole implicit registration set that it is in. It ends with the last
//! registration of that identity. One NOTIFY of it is on its way at a time: what changes meanwhile is told as full state
//! after its answer. The version of a document is the CSeq of its NOTIFY less one. Subscriptions are kept as registrations are:
//! dialog, CSeq and version go on behind what an earlier run can have sent, so that a phone notices nothing of a restart.

mod subscription;

pub(crate) use subscription::{SubscriptionId, Subscriptions, is_key};

use crate::own::Own;
use crate::reginfo::{self, Entry, Happened, Line};
use crate::registrar::{Binding, Registrar, Registration};
use crate::{Refusal, Scscf};
use ims_core::uri::Uri;
use ims_core::{Ctx, Impu};
use ims_sip::endpoint::{ClientFailure, ServerTx};
use ims_sip::headers::{Event, Expires, NameAddr, PAssertedIdentity, PChargingVector, Params};
use ims_sip::{Dialog, DialogId, Message, Name, dialog};
use std::time::Duration;
use subscription::{Next, Subscription};

/// RFC 3680 4.3: how long a subscription lives whose SUBSCRIBE does not say.
const DEFAULT_EXPIRES: u32 = 3761;
/// Subscriptions to one user: the oldest makes room for one more.
const MAX_OF_USER: usize = 20;
/// In the tag of a dialog, before its number.
const TAG_LEN: usize = 10;

/// Why a subscription ends (RFC 6665 4.2.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// It ran out, or its subscriber ended it.
    Timeout,
    /// The user is not registered any more.
    NoResource,
    /// Too many subscribe.
    Probation,
}

impl End {
    fn reason(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::NoResource => "noresource",
            Self::Probation => "probation",
        }
    }
}

/// Why a registration is not any more what it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Why {
    /// A REGISTER of the UE, or of another that takes its place.
    ByUser,
    Expired,
    /// What the network does to the contacts that go.
    Network(Happened),
}

/// What has become of a registration.
struct Change<'a> {
    before: Option<&'a Registration>,
    after: Option<&'a Registration>,
    why: Why,
}

impl Scscf {
    /// SUBSCRIBE to the registration state of a user of ours (5.4.2.1.1), or within such a subscription.
    pub(crate) fn on_subscribe(&mut self, tx: ServerTx, message: &Message, ctx: &mut Ctx<'_>) -> Result<(), Refusal> {
        let event: Option<Event<'_>> = message.first().map_err(|e| Refusal::Malformed(e.to_string()))?;
        let event = event.filter(|e| e.package.eq_ignore_ascii_case("reg")).ok_or_else(|| {
            let package = message.text(Name::Event).unwrap_or_default().to_owned();
            Refusal::BadEvent { package }
        })?;
        if !accepts_reginfo(message) {
            return Err(Refusal::NotAcceptable);
        }
        let expires = self.grant_subscription(message)?;
        let event_id = event.params.value("id").map(Box::from);
        match DialogId::of_request(message) {
            Some(id) => self.on_resubscribe(tx, message, &id, event_id.as_deref(), expires, ctx),
            None => self.on_new_subscribe(tx, message, event_id, expires, ctx),
        }
    }

    fn grant_subscription(&self, message: &Message) -> Result<u32, Refusal> {
        let asked = message.has(Name::Expires).then(|| match message.first::<Expires>() {
            Ok(Some(expires)) => expires.0,
            _ => DEFAULT_EXPIRES,
        });
        let (asked, rules) = (asked.unwrap_or(DEFAULT_EXPIRES), &self.config.reg_event);
        match asked {
            0 => Ok(0),
            // RFC 6665 4.2.1.1.
            asked if asked < rules.min_expires.secs() => {
                Err(Refusal::IntervalTooBrief { least: rules.min_expires.secs() })
            }
            asked => Ok(asked.min(rules.max_expires.secs())),
        }
    }

    fn on_new_subscribe(
        &mut self,
        tx: ServerTx,
        message: &Message,
        event_id: Option<Box<str>>,
        expires: u32,
        ctx: &mut Ctx<'_>,
    ) -> Result<(), Refusal> {
        let resource = Impu::parse(message.uri()).map_err(|e| Refusal::Malformed(format!("Request-URI: {e}")))?;
        if !self.registrar.is_registered(&resource) {
            return Err(Refusal::NotRegistered { impu: resource });
        }
        let who: Vec<PAssertedIdentity<'_>> = message.all().map_err(|e| Refusal::Malformed(e.to_string()))?;
        let may = self.registrar.of_impu(&resource).any(|r| who.iter().any(|w| may_subscribe(r, w)));
        if !may {
            return Err(Refusal::MayNotSubscribe { impu: resource });
        }
        if expires > 0 && self.subscriptions.len() >= self.config.limits.max_subscriptions {
            return Err(Refusal::Full("limits.max_subscriptions"));
        }
        let id = self.subscriptions.fresh_id();
        let tag = format!("{}{id:x}", ctx.rng.token(TAG_LEN));
        let dialog = Dialog::as_uas(message, &tag).map_err(Refusal::Dialog)?;
        let vector = message.first::<PChargingVector<'_>>().ok().flatten();
        let icid = vector.map(|vector| Box::from(vector.icid_value));
        let expires_at = ctx.now + Duration::from_secs(expires.into());
        let subscription = Subscription::new(dialog, resource, event_id, icid, expires_at);
        self.subscriptions.insert(id, subscription, ctx.actions);
        self.accept_subscribe(tx, message, id, expires, ctx);
        self.bound_subscriptions(id, ctx);
        self.tell_state(id, expires, ctx);
        Ok(())
    }

    /// A refresh, or the end when `expires` is 0. Whoever may subscribe may refresh, barred meanwhile or not (5.4.2.1.1).
    fn on_resubscribe(
        &mut self,
        tx: ServerTx,
        message: &Message,
        dialog_id: &DialogId,
        event_id: Option<&str>,
        expires: u32,
        ctx: &mut Ctx<'_>,
    ) -> Result<(), Refusal> {
        let id = dialog_id.local_tag.get(TAG_LEN..).and_then(|hex| SubscriptionId::from_str_radix(hex, 16).ok());
        let known = id.and_then(|id| Some((id, self.subscriptions.find_mut(id)?)));
        let known =
            known.filter(|(_, s)| !s.is_over() && s.dialog.id() == *dialog_id && s.event_id.as_deref() == event_id);
        let Some((id, subscription)) = known else { return Err(Refusal::NoSubscription) };
        subscription.dialog.on_request(message).map_err(Refusal::Dialog)?;
        let expires_at = ctx.now + Duration::from_secs(expires.into());
        self.subscriptions.refresh(id, expires_at, ctx.actions);
        self.accept_subscribe(tx, message, id, expires, ctx);
        self.tell_state(id, expires, ctx);
        Ok(())
    }

    fn accept_subscribe(
        &mut self,
        tx: ServerTx,
        message: &Message,
        id: SubscriptionId,
        expires: u32,
        ctx: &mut Ctx<'_>,
    ) {
        let Some(subscription) = self.subscriptions.find_mut(id) else { return };
        let contact = self.me.contact(&format!("reg-{id:x}"));
        let mut answer = dialog::accept(message, 200, subscription.dialog.local_tag(), &contact);
        answer.set(Name::Expires, expires);
        if let Ok(Some(mut vector)) = message.first::<PChargingVector<'_>>() {
            vector.term_ioi = Some(&self.config.domain);
            answer.set(Name::PChargingVector, vector);
        }
        self.sip.respond(tx, answer, ctx);
    }

    /// RFC 6665 4.2.1.2: each SUBSCRIBE is followed by the whole state, the last one too.
    fn tell_state(&mut self, id: SubscriptionId, expires: u32, ctx: &mut Ctx<'_>) {
        if expires == 0 {
            self.end_subscription(id, End::Timeout, None, ctx);
        } else {
            self.tell(id, true, None, ctx);
        }
    }

    /// One user's are bounded: a phone that forgets them leaves them behind.
    fn bound_subscriptions(&mut self, newest: SubscriptionId, ctx: &mut Ctx<'_>) {
        let Some(oldest) = self.subscriptions.oldest_beyond(newest, MAX_OF_USER) else { return };
        self.count("subscription-displaced");
        self.end_subscription(oldest, End::Probation, None, ctx);
    }

    /// To be called when a registration has changed, has come, or has gone: the registrar knows it already. `before` is what it
    /// was.
    pub(crate) fn on_registration_changed(
        &mut self,
        before: Option<&Registration>,
        id: crate::registrar::Id,
        why: Why,
        ctx: &mut Ctx<'_>,
    ) {
        if self.subscriptions.len() == 0 {
            return;
        }
        let after = self.registrar.by_id(id);
        let both = [before, after].into_iter().flatten();
        let mut concerned: Vec<SubscriptionId> =
            both.flat_map(|r| &*r.profile.identities).flat_map(|i| self.subscriptions.of(&i.impu)).collect();
        concerned.sort_unstable();
        concerned.dedup();
        if concerned.is_empty() {
            return;
        }
        let after = after.cloned();
        let change = Change { before, after: after.as_ref(), why };
        for id in concerned {
            let Some(resource) = self.subscriptions.find_mut(id).map(|s| s.resource.clone()) else { continue };
            match self.registrar.is_registered(&resource) {
                true => self.tell(id, false, Some(&change), ctx),
                false => self.end_subscription(id, End::NoResource, Some(&change), ctx),
            }
        }
    }

    /// Sends a NOTIFY, or remembers that there is something to tell when one is on its way.
    fn tell(&mut self, id: SubscriptionId, in_full: bool, change: Option<&Change<'_>>, ctx: &mut Ctx<'_>) {
        let Some(subscription) = self.subscriptions.find_mut(id) else { return };
        if subscription.is_telling {
            subscription.next = Next::Full;
            return;
        }
        let in_full = in_full || subscription.knows_nothing;
        let entries = entries(&self.registrar, &subscription.resource, change);
        if !in_full && !entries.iter().any(|e| e.contacts.iter().any(|line| line.is_news)) {
            return;
        }
        let body = reginfo::write(subscription.version(), in_full, &entries, ctx.now);
        (subscription.is_telling, subscription.knows_nothing) = (true, false);
        let left = subscription.expires_at.since(ctx.now).as_secs();
        self.send_notify(id, &body, &format!("active;expires={left}"), ctx);
    }

    /// The last NOTIFY is made now, while what it tells of is known, and sent when no other is on its way.
    fn end_subscription(&mut self, id: SubscriptionId, end: End, change: Option<&Change<'_>>, ctx: &mut Ctx<'_>) {
        let Some(subscription) = self.subscriptions.end(id, ctx.actions) else { return };
        let entries = entries(&self.registrar, &subscription.resource, change);
        // Sent after the one that is on its way now.
        let version = subscription.version();
        let body = reginfo::write(version, true, &entries, ctx.now);
        let state = format!("terminated;reason={}", end.reason());
        if subscription.is_telling {
            subscription.next = Next::Last(Box::new((body, state)));
        } else {
            self.send_notify(id, &body, &state, ctx);
            self.subscriptions.forget(id);
        }
    }

    fn send_notify(&mut self, id: SubscriptionId, body: &str, state: &str, ctx: &mut Ctx<'_>) {
        let Some(subscription) = self.subscriptions.find_mut(id) else { return };
        let (mut notify, next) = subscription.dialog.request("NOTIFY");
        notify.set(Name::Contact, self.me.contact(&format!("reg-{id:x}")));
        match &subscription.event_id {
            Some(event_id) => notify.set(Name::Event, format_args!("reg;id={event_id}")),
            None => notify.set(Name::Event, "reg"),
        }
        notify.set(Name::SubscriptionState, state);
        if let Some(icid) = &subscription.icid {
            let orig_ioi = Some(self.config.domain.as_str());
            let (icid_generated_at, term_ioi, params) = (None, None, Params::default());
            let vector = PChargingVector { icid_value: icid, icid_generated_at, orig_ioi, term_ioi, params };
            notify.set(Name::PChargingVector, vector);
        }
        notify.set_body(reginfo::MEDIA_TYPE, body.as_bytes());
        self.subscriptions.reserve(id, ctx.actions);
        self.send_own(notify, next, Own::Notify { subscription: id }, ctx);
    }

    /// RFC 6665 4.2.2: a NOTIFY that fails ends the subscription, unless it is worth another try.
    pub(crate) fn on_notify_answer(
        &mut self,
        id: SubscriptionId,
        answer: Result<&Message, ClientFailure>,
        ctx: &mut Ctx<'_>,
    ) {
        let Some(subscription) = self.subscriptions.find_mut(id) else { return };
        subscription.is_telling = false;
        match answer {
            // Its target is as it was when it says nothing that can be used.
            Ok(answer) if (200..300).contains(&answer.status()) => drop(subscription.dialog.on_response(answer)),
            Ok(answer) if answer.has(Name::RetryAfter) => subscription.knows_nothing = true,
            failed => {
                self.count("subscription-lost");
                let status = failed.map_or_else(ClientFailure::status, Message::status);
                tracing::debug!(status, "a NOTIFY failed: its subscription ends");
                self.subscriptions.end(id, ctx.actions);
                return self.subscriptions.forget(id);
            }
        }
        match std::mem::take(&mut subscription.next) {
            Next::Nothing => {}
            Next::Full => self.tell(id, true, None, ctx),
            Next::Last(last) => {
                let (body, state) = *last;
                self.send_notify(id, &body, &state, ctx);
                self.subscriptions.forget(id);
            }
        }
    }

    /// Subscriptions whose time is over.
    pub(crate) fn expire_subscriptions(&mut self, ctx: &mut Ctx<'_>) {
        while let Some(id) = self.subscriptions.pop_expired(ctx.now) {
            self.end_subscription(id, End::Timeout, None, ctx);
        }
    }

    /// After a restart: what a user subscribed to that is not registered any more has ended.
    pub(crate) fn review_subscriptions(&mut self, ctx: &mut Ctx<'_>) {
        for id in self.subscriptions.ids() {
            let Some(subscription) = self.subscriptions.find_mut(id) else { continue };
            if !self.registrar.is_registered(&subscription.resource) {
                self.end_subscription(id, End::NoResource, None, ctx);
            }
        }
    }
}

/// 5.4.2.1.1 step 1: the user by any identity that is not barred, whoever is in its Path, and the application servers of its
/// initial filter criteria.
fn may_subscribe(registration: &Registration, who: &NameAddr<'_>) -> bool {
    if Impu::parse(who.uri).is_ok_and(|impu| registration.profile.usable().any(|own| *own == impu)) {
        return true;
    }
    let Some(host) = who.parsed_uri().ok().filter(Uri::is_sip).map(|uri| uri.host()) else { return false };
    let is_of = |uri: &str| Uri::parse(uri).is_ok_and(|uri| uri.host().eq_ignore_ascii_case(host));
    let in_path = registration.bindings.iter().any(|b| b.path.iter().any(|uri| is_of(uri)));
    in_path || registration.profile.servers().any(|server| is_of(&server.server_name))
}

/// RFC 3680 4.5: who does not say accepts it.
fn accepts_reginfo(message: &Message) -> bool {
    let range = |one: &str| one.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let fits = |one: &str| matches!(&*range(one), reginfo::MEDIA_TYPE | "application/*" | "*/*");
    !message.has(Name::Accept) || message.tokens(Name::Accept).into_iter().any(fits)
}

/// All public identities that the resource is registered together with, each with its contacts; and what has gone. Contacts for
/// emergencies are nobody's business.
fn entries<'a>(registrar: &'a Registrar, resource: &Impu, change: Option<&'a Change<'a>>) -> Vec<Entry<'a>> {
    let mut entries: Vec<Entry<'a>> = Vec::new();
    for registration in registrar.of_impu(resource) {
        let changed = change.filter(|c| {
            c.after.is_some_and(|after| after.impi == registration.impi && after.impu == registration.impu)
        });
        for aor in registration.profile.usable() {
            let was_usable = changed.and_then(|c| c.before).is_some_and(|b| b.profile.usable().any(|i| i == aor));
            let lines = registration.ordinary().map(|binding| {
                let news = changed.and_then(|c| match was_usable {
                    true => c.what_happened(binding),
                    false => Some(Happened::Registered),
                });
                let registered = if *aor == registration.impu { Happened::Registered } else { Happened::Created };
                let happened = news.filter(|h| *h != Happened::Registered).unwrap_or(registered);
                Line { binding, happened, is_news: news.is_some() }
            });
            entry(&mut entries, aor).extend(lines);
        }
    }
    for (aor, binding, happened) in change.into_iter().flat_map(Change::gone) {
        entry(&mut entries, aor).push(Line { binding, happened, is_news: true });
    }
    entries
}

fn entry<'e, 'a>(entries: &'e mut Vec<Entry<'a>>, aor: &'a Impu) -> &'e mut Vec<Line<'a>> {
    let at = entries.iter().position(|e| e.aor == aor).unwrap_or_else(|| {
        entries.push(Entry { aor, contacts: Vec::new() });
        entries.len() - 1
    });
    &mut entries[at].contacts
}

impl<'a> Change<'a> {
    /// To a contact that is there now; None: nothing.
    fn what_happened(&self, binding: &Binding) -> Option<Happened> {
        let before = self.before.and_then(|b| b.bindings.iter().find(|known| known.contact.uri == binding.contact.uri));
        let Some(before) = before else { return Some(Happened::Registered) };
        match binding.expires_at.cmp(&before.expires_at) {
            std::cmp::Ordering::Greater => Some(Happened::Refreshed),
            std::cmp::Ordering::Less => Some(Happened::Shortened),
            std::cmp::Ordering::Equal => None,
        }
    }

    /// The contacts that are not there any more, for each identity that they were registered with.
    fn gone(&'a self) -> Vec<(&'a Impu, &'a Binding, Happened)> {
        let Some(before) = self.before else { return Vec::new() };
        let is_usable = |aor: &Impu| self.after.is_some_and(|after| after.profile.usable().any(|i| i == aor));
        let is_there =
            |b: &Binding| self.after.is_some_and(|a| a.bindings.iter().any(|n| n.contact.uri == b.contact.uri));
        let of_aor = |aor: &'a Impu| {
            let all = before.ordinary().filter(move |b| !(is_usable(aor) && is_there(b)));
            all.map(move |b| (aor, b, self.end_of(b)))
        };
        before.profile.usable().flat_map(of_aor).collect()
    }

    fn end_of(&self, binding: &Binding) -> Happened {
        let is_displaced = |new: &Binding| {
            new.contact.is_of_another_ue(&binding.contact) && self.what_happened(new) == Some(Happened::Registered)
        };
        match self.why {
            Why::Network(happened) => happened,
            Why::Expired => Happened::Expired,
            // Another UE of the user takes its place: it shall not take it back at once.
            Why::ByUser if self.after.is_some_and(|after| after.bindings.iter().any(is_displaced)) => {
                Happened::Rejected
            }
            Why::ByUser => Happened::Unregistered,
        }
    }
}
