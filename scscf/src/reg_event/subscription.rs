//! The subscriptions that there are: found by number and by identity, bounded by their expiry, kept across restarts.

use ims_core::{Action, FewSet, Impu, Kept, Time, Timers};
use ims_sip::Dialog;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// The first byte of each value.
const VERSION: u8 = 1;
const PREFIX: &str = "subscription/";
/// So many NOTIFYs are sent before what is kept has to follow.
const RESERVE: u32 = 64;

/// A subscription keeps its number as long as it lives, restarts included.
pub(crate) type SubscriptionId = u64;

/// What follows the NOTIFY that is on its way.
#[derive(Default)]
pub(super) enum Next {
    #[default]
    Nothing,
    /// The whole state, as it is then.
    Full,
    /// The last one: its body and its Subscription-State.
    Last(Box<(String, String)>),
}

pub(crate) struct Subscription {
    pub(super) dialog: Dialog,
    /// The identity whose registration it tells of.
    pub(super) resource: Impu,
    /// `id` of the Event header.
    pub(super) event_id: Option<Box<str>>,
    /// Of the SUBSCRIBE, for its NOTIFYs.
    pub(super) icid: Option<Box<str>>,
    pub(super) expires_at: Time,
    /// The CSeq that what is kept reserves.
    reserved: u32,
    pub(super) is_telling: bool,
    /// A document was lost, or may have been: the next is a full one.
    pub(super) knows_nothing: bool,
    pub(super) next: Next,
}

#[derive(Serialize, Deserialize)]
struct Entry<'a> {
    dialog: Cow<'a, Dialog>,
    resource: Cow<'a, str>,
    event_id: Option<Cow<'a, str>>,
    icid: Option<Cow<'a, str>>,
    expires_at: u64,
    reserved: u32,
}

impl Subscription {
    pub(super) fn new(
        dialog: Dialog,
        resource: Impu,
        event_id: Option<Box<str>>,
        icid: Option<Box<str>>,
        expires_at: Time,
    ) -> Self {
        let (reserved, next) = (dialog.local_seq(), Next::Nothing);
        Self { dialog, resource, event_id, icid, expires_at, reserved, is_telling: false, knows_nothing: true, next }
    }

    /// Of the document in the next NOTIFY.
    pub(super) fn version(&self) -> u32 {
        self.dialog.local_seq()
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.next, Next::Last(_))
    }

    /// What is kept is ahead of what is sent.
    fn keep(&mut self, id: SubscriptionId, actions: &mut Vec<Action>) {
        self.reserved = self.dialog.local_seq().saturating_add(RESERVE);
        let entry = Entry {
            dialog: Cow::Borrowed(&self.dialog),
            resource: Cow::Borrowed(self.resource.as_str()),
            event_id: self.event_id.as_deref().map(Cow::Borrowed),
            icid: self.icid.as_deref().map(Cow::Borrowed),
            expires_at: self.expires_at.micros(),
            reserved: self.reserved,
        };
        // Strings and numbers into memory: nothing of it can fail.
        let value = postcard::to_extend(&entry, vec![VERSION]).unwrap_or_default();
        actions.push(Action::Put(Kept { key: key(id), value: value.into() }));
    }

    fn read(value: &[u8]) -> Option<Self> {
        let body = value.strip_prefix(&[VERSION])?;
        let entry: Entry<'_> = postcard::from_bytes(body).ok()?;
        let mut dialog = entry.dialog.into_owned();
        dialog.skip_to(entry.reserved);
        let own = |text: Option<Cow<'_, str>>| text.map(|t| Box::from(&*t));
        let resource = Impu::parse(&entry.resource).ok()?;
        let expires_at = Time::from_micros(entry.expires_at);
        Some(Self::new(dialog, resource, own(entry.event_id), own(entry.icid), expires_at))
    }
}

fn key(id: SubscriptionId) -> String {
    format!("{PREFIX}{id}")
}

/// Whether what is kept under this key is a subscription.
pub(crate) fn is_key(key: &str) -> bool {
    key.starts_with(PREFIX)
}

#[derive(Default)]
pub(crate) struct Subscriptions {
    /// Boxed, because half of a map's room is empty.
    all: BTreeMap<SubscriptionId, Box<Subscription>>,
    by_resource: BTreeMap<Impu, FewSet<SubscriptionId>>,
    expiry: Timers<SubscriptionId>,
    next: SubscriptionId,
}

impl Subscriptions {
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        self.expiry.next()
    }

    pub(super) fn fresh_id(&mut self) -> SubscriptionId {
        self.next += 1;
        self.next
    }

    pub(super) fn ids(&self) -> Vec<SubscriptionId> {
        self.all.keys().copied().collect()
    }

    pub(super) fn find_mut(&mut self, id: SubscriptionId) -> Option<&mut Subscription> {
        self.all.get_mut(&id).map(|s| &mut **s)
    }

    /// Those of an identity, the oldest first.
    pub(super) fn of(&self, resource: &Impu) -> impl Iterator<Item = SubscriptionId> {
        self.by_resource.get(resource).into_iter().flatten().copied()
    }

    pub(super) fn insert(&mut self, id: SubscriptionId, mut subscription: Subscription, actions: &mut Vec<Action>) {
        subscription.keep(id, actions);
        self.add(id, subscription);
    }

    fn add(&mut self, id: SubscriptionId, subscription: Subscription) {
        self.next = self.next.max(id);
        self.expiry.set(id, subscription.expires_at);
        self.by_resource.entry(subscription.resource.clone()).or_default().insert(id);
        self.all.insert(id, Box::new(subscription));
    }

    pub(super) fn refresh(&mut self, id: SubscriptionId, expires_at: Time, actions: &mut Vec<Action>) {
        if let Some(subscription) = self.all.get_mut(&id) {
            subscription.expires_at = expires_at;
            subscription.keep(id, actions);
            self.expiry.set(id, expires_at);
        }
    }

    /// Before a NOTIFY is sent whose CSeq what is kept does not cover.
    pub(super) fn reserve(&mut self, id: SubscriptionId, actions: &mut Vec<Action>) {
        if let Some(subscription) = self.all.get_mut(&id)
            && !subscription.is_over()
            && self.by_resource.get(&subscription.resource).is_some_and(|ids| ids.contains(&id))
            && subscription.dialog.local_seq() > subscription.reserved
        {
            subscription.keep(id, actions);
        }
    }

    /// It is not kept any more, and nothing makes it tell anything but what it still has to.
    pub(super) fn end(&mut self, id: SubscriptionId, actions: &mut Vec<Action>) -> Option<&mut Subscription> {
        let subscription = self.all.get_mut(&id)?;
        self.expiry.clear(&id);
        if let Some(ids) = self.by_resource.get_mut(&subscription.resource)
            && ids.remove(&id)
        {
            if ids.is_empty() {
                self.by_resource.remove(&subscription.resource);
            }
            actions.push(Action::Delete { key: key(id) });
        }
        Some(subscription)
    }

    pub(super) fn forget(&mut self, id: SubscriptionId) {
        self.all.remove(&id);
    }

    pub(super) fn pop_expired(&mut self, now: Time) -> Option<SubscriptionId> {
        self.expiry.pop(now)
    }

    /// The oldest of those to the identity of `newest`, when there are more than `most`.
    pub(super) fn oldest_beyond(&self, newest: SubscriptionId, most: usize) -> Option<SubscriptionId> {
        let resource = &self.all.get(&newest)?.resource;
        let ids = self.by_resource.get(resource).filter(|ids| ids.len() > most)?;
        ids.into_iter().next().copied()
    }

    /// Takes in what was kept; false when it cannot be read.
    pub(crate) fn restore(&mut self, key: &str, value: &[u8]) -> bool {
        let id = key.strip_prefix(PREFIX).and_then(|id| id.parse().ok());
        match id.zip(Subscription::read(value)) {
            Some((id, subscription)) => {
                self.add(id, subscription);
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ims_sip::Message;

    fn subscription() -> Subscription {
        let text = "SUBSCRIBE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\n\
                    Record-Route: <sip:p;lr>\r\nCall-ID: c\r\nCSeq: 1 SUBSCRIBE\r\nContact: <sip:a@1>\r\nContent-Length: 0\r\n\r\n";
        let request = Message::parse(bytes::Bytes::from(text)).unwrap();
        let dialog = Dialog::as_uas(&request, "t").unwrap();
        Subscription::new(dialog, Impu::parse("sip:a@b").unwrap(), Some("7".into()), None, Time::from_secs(600))
    }

    fn put(actions: &[Action]) -> &Kept {
        match actions {
            [Action::Put(kept)] => kept,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn after_a_restart_it_goes_on_behind_what_was_sent() {
        let (mut before, mut actions) = (Subscriptions::default(), Vec::new());
        let id = before.fresh_id();
        before.insert(id, subscription(), &mut actions);
        let kept = put(&actions).clone();
        // What is kept covers so many NOTIFYs, and then follows.
        actions.clear();
        let mut sent = 0;
        while actions.is_empty() {
            sent = before
                .find_mut(id)
                .unwrap()
                .dialog
                .request("NOTIFY")
                .0
                .text(ims_sip::Name::CSeq)
                .map_or(0, |c| c.split(' ').next().unwrap().parse::<u32>().unwrap());
            before.reserve(id, &mut actions);
        }
        assert_eq!(sent, RESERVE + 1);
        let later = put(&actions).clone();
        for (kept, last) in [(kept, RESERVE), (later, sent)] {
            let mut after = Subscriptions::default();
            assert!(is_key(&kept.key) && after.restore(&kept.key, &kept.value));
            let again = after.find_mut(id).unwrap();
            assert!(again.version() >= last && again.knows_nothing, "the next document is a full one");
            assert_eq!((again.event_id.as_deref(), again.expires_at), (Some("7"), Time::from_secs(600)));
            assert_eq!(again.dialog.id(), subscription().dialog.id());
            assert_eq!((after.deadline(), after.fresh_id()), (Some(Time::from_secs(600)), id + 1));
        }
    }

    #[test]
    fn one_that_has_ended_leaves_no_trace() {
        let (mut all, mut actions) = (Subscriptions::default(), Vec::new());
        let id = all.fresh_id();
        all.insert(id, subscription(), &mut actions);
        assert_eq!(all.of(&Impu::parse("sip:a@b").unwrap()).collect::<Vec<_>>(), [id]);
        all.end(id, &mut actions);
        all.end(id, &mut actions);
        assert!(matches!(&actions[..], [Action::Put(_), Action::Delete { .. }]), "{actions:?}");
        assert_eq!((all.by_resource.len(), all.deadline()), (0, None));
        all.find_mut(id).unwrap().dialog.skip_to(1000);
        all.reserve(id, &mut actions);
        assert_eq!(actions.len(), 2, "its last NOTIFY is not kept");
        all.forget(id);
        assert_eq!(all.len(), 0);
    }

    #[test]
    fn what_cannot_be_read_is_said_and_nothing_panics() {
        let mut actions = Vec::new();
        Subscriptions::default().insert(1, subscription(), &mut actions);
        let Kept { key, value } = put(&actions);
        for cut in 0..value.len() {
            assert!(!Subscriptions::default().restore(key, &value[..cut]), "{cut}");
        }
        for at in 0..value.len() {
            let mut bent = value.to_vec();
            bent[at] ^= 0x15;
            let _ = Subscriptions::default().restore(key, &bent);
        }
        assert!(!Subscriptions::default().restore("subscription/x", value));
    }
}
