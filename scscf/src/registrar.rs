//! The registrar (RFC 3261 10.3, TS 24.229 5.4.1.2.2, 5.4.1.4): bindings by private identity and implicit registration
//! set. One registration owns profile and bindings of one UE's user; two UEs that share a public identity have one each.

use crate::config::{Registration as Rules, SecondUe};
use crate::profile::{Profile, Services};
use crate::wish::{ContactAddress, Contacts, Wish};
use crate::{Refusal, kept};
use ims_core::hash::{Lookup, give_back};
use ims_core::{Action, FewSet, Impi, Impu, Kept, Time, Timers};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;
use xml_ifc::SharedSets;
use xml_ifc::trigger::Finding;

/// A contact under which a user can be reached.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Binding {
    pub(crate) contact: ContactAddress,
    /// The way there, nearest first: the Route of requests towards it.
    pub(crate) path: Arc<[Box<str>]>,
    pub(crate) call_id: Box<str>,
    pub(crate) cseq: u32,
    pub(crate) expires_at: Time,
}

impl Binding {
    /// Seconds left, never 0 for what is still there.
    pub(crate) fn expires_in(&self, now: Time) -> u64 {
        self.expires_at.since(now).as_secs_f64().ceil().max(1.0) as u64
    }
}

/// An implicit registration set, registered by one private identity.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Registration {
    pub(crate) impi: Impi,
    /// The one that was registered by name.
    pub(crate) impu: Impu,
    pub(crate) profile: Profile,
    pub(crate) bindings: Vec<Binding>,
    pub(crate) authenticated_at: Time,
}

impl Registration {
    pub(crate) fn new(impi: Impi, impu: Impu, profile: Profile, now: Time) -> Self {
        Self { impi, impu, profile, bindings: Vec::new(), authenticated_at: now }
    }

    /// The contacts that are not for emergencies alone (TS 24.229 5.4.8.2).
    pub(crate) fn ordinary(&self) -> impl Iterator<Item = &Binding> {
        self.bindings.iter().filter(|b| !b.contact.is_emergency())
    }

    pub(crate) fn is_ordinary(&self) -> bool {
        self.ordinary().next().is_some()
    }

    /// Whether every contact that the wish wants kept is one we have: only then the REGISTER is a refresh.
    pub(crate) fn knows_contacts_of(&self, wish: &Wish) -> bool {
        match &wish.contacts {
            Contacts::Query | Contacts::RemoveAll => true,
            Contacts::Change(list) => list
                .iter()
                .filter(|c| c.expires > 0)
                .all(|c| self.bindings.iter().any(|b| c.contact.is_same(&b.contact, wish.is_outbound))),
        }
    }

    /// RFC 3261 10.3 steps 6 and 7, all or nothing: the bindings as the wish leaves them.
    pub(crate) fn after(&self, wish: &Wish, now: Time, rules: &Rules) -> Result<Vec<Binding>, Refusal> {
        let mut bindings = self.bindings.clone();
        let is_stale = |b: &Binding| b.call_id == wish.call_id && wish.cseq <= b.cseq;
        match &wish.contacts {
            Contacts::Query => {}
            Contacts::RemoveAll if bindings.iter().any(is_stale) => return Err(Refusal::OutOfOrder),
            Contacts::RemoveAll => bindings.clear(),
            Contacts::Change(list) => {
                for one in list {
                    let is_it = |b: &Binding| one.contact.is_same(&b.contact, wish.is_outbound);
                    if bindings.iter().any(|b| is_it(b) && is_stale(b)) {
                        return Err(Refusal::OutOfOrder);
                    }
                    bindings.retain(|b| !is_it(b));
                }
                let kept = || list.iter().filter(|c| c.expires > 0);
                let alone = rules.second_ue == SecondUe::Replace;
                let goes = |b: &Binding, c: &ContactAddress| {
                    c.replaces(&b.contact, wish.is_outbound) || alone && c.is_of_another_ue(&b.contact)
                };
                bindings.retain(|b| !kept().any(|c| goes(b, &c.contact)));
                bindings.extend(kept().map(|one| Binding {
                    contact: one.contact.clone(),
                    path: wish.path.clone(),
                    call_id: wish.call_id.clone(),
                    cseq: wish.cseq,
                    expires_at: now + Duration::from_secs(one.expires.into()),
                }));
            }
        }
        if bindings.len() > rules.max_contacts {
            return Err(Refusal::TooManyBindings { impu: self.impu.clone() });
        }
        Ok(bindings)
    }
}

/// A registration keeps its number as long as it lives, restarts included.
pub(crate) type Id = u64;

/// A registration is not any more what it was.
pub(crate) struct Changed {
    pub(crate) id: Id,
    pub(crate) before: Option<Registration>,
}

/// Contacts of a registration have run out.
pub(crate) struct Lapse {
    pub(crate) id: Id,
    /// With the contacts that have gone.
    pub(crate) before: Registration,
    /// None is left: the registration has gone.
    pub(crate) is_over: bool,
}

#[derive(Default)]
pub(crate) struct Registrar {
    /// Boxed, because half of a map's room is empty.
    registrations: BTreeMap<Id, Box<Registration>>,
    by_impi: Lookup<Impi, FewSet<Id>>,
    /// Every identity of a set, barred ones too.
    by_impu: Lookup<Impu, FewSet<Id>>,
    services: Services,
    expiry: Timers<Id>,
    next: Id,
    /// When the node last heard the time, for a snapshot.
    clock: Time,
}

impl Registrar {
    /// For users whose profiles may name these shared sets.
    pub(crate) fn new(shared: &SharedSets) -> Self {
        Self { services: Services::new(shared), ..Self::default() }
    }

    /// What was found to be wrong with criteria since the last time.
    pub(crate) fn take_findings(&mut self) -> Vec<Finding> {
        self.services.take_findings()
    }

    pub(crate) fn set_clock(&mut self, now: Time) {
        self.clock = now;
    }

    pub(crate) fn len(&self) -> usize {
        self.registrations.len()
    }

    /// Has a profile share what it has in common with those of others, and its criteria made ready: of a user who is not registered.
    pub(crate) fn share(&mut self, profile: &mut Profile) {
        self.services.share(profile);
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        self.expiry.next()
    }

    pub(crate) fn find(&self, impi: &Impi, impu: &Impu) -> Option<&Registration> {
        self.id_of(impi, |r| r.impu == *impu || r.profile.has(impu)).and_then(|id| self.by_id(id))
    }

    pub(crate) fn by_id(&self, id: Id) -> Option<&Registration> {
        self.registrations.get(&id).map(|r| &**r)
    }

    pub(crate) fn is_registered(&self, impu: &Impu) -> bool {
        self.by_impu.contains_key(impu)
    }

    /// The registrations of an identity by all the private identities that share it.
    pub(crate) fn of_impu(&self, impu: &Impu) -> impl Iterator<Item = &Registration> {
        self.by_impu.get(impu).into_iter().flatten().filter_map(|id| self.by_id(*id))
    }

    pub(crate) fn of_impi(&self, impi: &Impi) -> impl Iterator<Item = &Registration> {
        self.by_impi.get(impi).into_iter().flatten().filter_map(|id| self.by_id(*id))
    }

    fn id_of(&self, impi: &Impi, is_it: impl Fn(&Registration) -> bool) -> Option<Id> {
        let ids = self.by_impi.get(impi)?;
        ids.iter().copied().find(|id| self.by_id(*id).is_some_and(&is_it))
    }

    /// The one of the same set.
    fn known(&self, registration: &Registration) -> Option<Id> {
        let same = |r: &Registration| {
            r.impu == registration.impu
                || registration.profile.has(&r.impu)
                || registration.profile.identities.iter().any(|i| r.profile.has(&i.impu))
        };
        self.id_of(&registration.impi, same)
    }

    /// The number that a registration has, or will have when it is stored next.
    pub(crate) fn number_of(&self, registration: &Registration) -> Id {
        self.known(registration).unwrap_or(self.next)
    }

    /// Takes a registration in, in the place of one of the same set; without bindings it is removed. What is kept follows. None
    /// when nothing changes.
    pub(crate) fn store(&mut self, registration: Registration, actions: &mut Vec<Action>) -> Option<Changed> {
        let known = self.known(&registration);
        if known.is_some_and(|id| self.by_id(id) == Some(&registration)) {
            return None;
        }
        let before = known.and_then(|id| self.remove_id(id));
        let id = known.unwrap_or(self.next);
        if registration.bindings.is_empty() {
            if before.is_some() {
                actions.push(Action::Delete { key: kept::key(id) });
            }
            return before.map(|before| Changed { id, before: Some(before) });
        }
        actions.push(Action::Put(Kept { key: kept::key(id), value: kept::write(&registration).into() }));
        self.insert(id, registration);
        Some(Changed { id, before })
    }

    /// Takes in what was kept. A registration that ran out meanwhile is given back.
    pub(crate) fn restore(&mut self, id: Id, mut registration: Registration, now: Time) -> Option<Registration> {
        self.next = self.next.max(id.saturating_add(1));
        registration.bindings.retain(|b| b.expires_at > now);
        if registration.bindings.is_empty() {
            return Some(registration);
        }
        self.insert(id, registration);
        None
    }

    fn insert(&mut self, id: Id, mut registration: Registration) {
        self.services.share(&mut registration.profile);
        registration.bindings.shrink_to_fit();
        if let Some(same) = registration.profile.identities.iter().find(|i| i.impu == registration.impu) {
            registration.impu = same.impu.clone();
        }
        self.next = self.next.max(id.saturating_add(1));
        self.by_impi.entry(registration.impi.clone()).or_default().insert(id);
        for identity in &*registration.profile.identities {
            self.by_impu.entry(identity.impu.clone()).or_default().insert(id);
        }
        if let Some(at) = registration.bindings.iter().map(|b| b.expires_at).min() {
            self.expiry.set(id, at);
        }
        self.registrations.insert(id, Box::new(registration));
    }

    pub(crate) fn remove(&mut self, impi: &Impi, impu: &Impu, actions: &mut Vec<Action>) -> Option<Changed> {
        let id = self.id_of(impi, |r| r.impu == *impu || r.profile.has(impu))?;
        actions.push(Action::Delete { key: kept::key(id) });
        self.remove_id(id).map(|before| Changed { id, before: Some(before) })
    }

    fn remove_id(&mut self, id: Id) -> Option<Registration> {
        let registration = self.registrations.remove(&id)?;
        self.expiry.clear(&id);
        forget(&mut self.by_impi, &registration.impi, id);
        for identity in &*registration.profile.identities {
            forget(&mut self.by_impu, &identity.impu, id);
        }
        Some(*registration)
    }

    /// Bindings whose time is over go, those of one registration at a time. A registration that lost its last one stays kept
    /// until the HSS knows.
    pub(crate) fn pop_expired(&mut self, now: Time) -> Option<Lapse> {
        while let Some(id) = self.expiry.pop(now) {
            let Some(registration) = self.registrations.get_mut(&id) else { continue };
            if registration.bindings.iter().all(|b| b.expires_at <= now) {
                return self.remove_id(id).map(|before| Lapse { id, before, is_over: true });
            }
            let before = (**registration).clone();
            registration.bindings.retain(|b| b.expires_at > now);
            if let Some(at) = registration.bindings.iter().map(|b| b.expires_at).min() {
                self.expiry.set(id, at);
            }
            return Some(Lapse { id, before, is_over: false });
        }
        None
    }

    /// The first `most` registrations, for an operator.
    pub(crate) fn describe(&self, most: usize) -> Vec<Value> {
        let one = |r: &Registration| {
            let bindings =
                r.bindings.iter().map(|b| json!({"contact": b.contact.uri, "expires_in_s": b.expires_in(self.clock), "expires_at_s": b.expires_at.secs()}));
            json!({
                "impus": r.profile.usable().map(Impu::as_str).collect::<Vec<_>>(),
                "impi": r.impi.as_str(),
                "bindings": bindings.collect::<Vec<_>>(),
            })
        };
        self.registrations.values().take(most).map(|r| one(r)).collect()
    }
}

fn forget<K: Eq + Hash>(index: &mut Lookup<K, FewSet<Id>>, key: &K, id: Id) {
    if let Some(ids) = index.get_mut(key) {
        ids.remove(&id);
        if ids.is_empty() {
            index.remove(key);
            give_back(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Identity;
    use crate::wish::tests::wish;

    fn registration(impi: &str, impus: &[&str]) -> Registration {
        let identities = impus.iter().map(|i| Identity::new(Impu::parse(i).unwrap(), false)).collect();
        let profile = Profile { identities, services: Arc::default(), charging: None };
        Registration::new(Impi::parse(impi).unwrap(), Impu::parse(impus[0]).unwrap(), profile, Time::EPOCH)
    }

    fn apply(r: &mut Registration, headers: &str, call_id: &str, cseq: u32, now: u64) -> Result<(), Refusal> {
        let mut wish = wish(headers)?;
        (wish.call_id, wish.cseq) = (call_id.into(), cseq);
        r.bindings = r.after(&wish, Time::from_secs(now), &Rules { max_contacts: 3, ..Rules::default() })?;
        Ok(())
    }

    fn uris(r: &Registration) -> Vec<&str> {
        r.bindings.iter().map(|b| &*b.contact.uri).collect()
    }

    #[test]
    fn a_refresh_moves_the_expiry_and_an_older_request_does_not() {
        let mut r = registration("a@b", &["sip:a@b"]);
        apply(&mut r, "Contact: <sip:a@1>;expires=600\r\n", "c", 1, 0).unwrap();
        apply(&mut r, "Contact: <sip:a@1>;expires=900\r\n", "c", 2, 100).unwrap();
        assert_eq!((r.bindings.len(), r.bindings[0].expires_in(Time::from_secs(100))), (1, 900));
        let late = apply(&mut r, "Contact: <sip:a@1>;expires=600\r\n", "c", 2, 101);
        assert_eq!(late, Err(Refusal::OutOfOrder));
        assert_eq!(apply(&mut r, "Contact: *\r\nExpires: 0\r\n", "c", 1, 102), Err(Refusal::OutOfOrder));
        assert_eq!(r.bindings[0].expires_in(Time::from_secs(101)), 899, "nothing changed");
        apply(&mut r, "Contact: <sip:a@1>;expires=0\r\n", "other", 1, 103).unwrap();
        assert!(r.bindings.is_empty());
    }

    #[test]
    fn a_ue_that_comes_back_elsewhere_has_one_binding() {
        let mut r = registration("a@b", &["sip:a@b"]);
        apply(&mut r, "Contact: <sip:a@1>\r\n", "c", 1, 0).unwrap();
        apply(&mut r, "Contact: <sip:a@2>\r\n", "d", 1, 1).unwrap();
        assert_eq!(uris(&r), ["sip:a@2"]);
        let instance = |host: u32, urn: &str| format!("Contact: <sip:a@{host}>;+sip.instance=\"<urn:{urn}>\"\r\n");
        apply(&mut r, &instance(3, "one"), "e", 1, 2).unwrap();
        apply(&mut r, &instance(4, "two"), "f", 1, 3).unwrap();
        apply(&mut r, &instance(5, "one"), "g", 1, 4).unwrap();
        assert_eq!(uris(&r), ["sip:a@4", "sip:a@5"], "two instances are two UEs");
    }

    #[test]
    fn by_policy_a_second_ue_takes_the_place_of_the_first() {
        let alone = Rules { second_ue: SecondUe::Replace, ..Rules::default() };
        let mut r = registration("a@b", &["sip:a@b"]);
        for (host, urn) in [(1, "one"), (2, "two")] {
            let wish = wish(&format!("Contact: <sip:a@{host}>;+sip.instance=\"<urn:{urn}>\"\r\n")).unwrap();
            r.bindings = r.after(&wish, Time::EPOCH, &alone).unwrap();
        }
        assert_eq!(uris(&r), ["sip:a@2"]);
    }

    #[test]
    fn flows_of_one_instance_live_side_by_side_with_outbound() {
        let mut r = registration("a@b", &["sip:a@b"]);
        let flow = |host: u32, id: u32| {
            format!(
                "Supported: outbound\r\nPath: <sip:p;lr;ob>\r\nContact: <sip:a@{host}>;+sip.instance=\"<urn:x>\";reg-id={id}\r\n"
            )
        };
        for (host, id) in [(1, 1), (2, 2), (3, 1), (4, 3)] {
            apply(&mut r, &flow(host, id), &format!("c{host}"), 1, 0).unwrap();
        }
        assert_eq!(uris(&r), ["sip:a@2", "sip:a@3", "sip:a@4"]);
        let more = apply(&mut r, &flow(9, 9), "z", 1, 0);
        assert!(matches!(more, Err(Refusal::TooManyBindings { .. })));
    }

    #[test]
    fn sets_are_found_by_each_identity_and_leave_no_trace() {
        let (mut registrar, mut actions) = (Registrar::default(), Vec::new());
        let (a, b) = (Impi::parse("a@b").unwrap(), Impi::parse("b@b").unwrap());
        let (name, number) = (Impu::parse("sip:a@b").unwrap(), Impu::parse("tel:+1555").unwrap());
        for impi in ["a@b", "b@b"] {
            let mut r = registration(impi, &["sip:a@b", "tel:+1555"]);
            apply(&mut r, "Contact: <sip:a@1>;expires=600\r\n", "c", 1, 0).unwrap();
            registrar.store(r, &mut actions);
        }
        assert!(matches!(&actions[..], [Action::Put(_), Action::Put(_)]), "{actions:?}");
        assert!(registrar.find(&a, &number).is_some() && registrar.find(&b, &name).is_some());
        assert_eq!(registrar.of_impu(&number).count(), 2, "two private identities share the number");
        let mut again = registrar.find(&a, &number).unwrap().clone();
        apply(&mut again, "Contact: <sip:a@1>;expires=900\r\n", "c", 2, 0).unwrap();
        registrar.store(again.clone(), &mut actions);
        registrar.store(again, &mut actions);
        let keys: Vec<_> =
            actions.iter().filter_map(|a| matches!(a, Action::Put(k) if k.key == kept::key(0)).then_some(())).collect();
        assert_eq!((actions.len(), keys.len()), (3, 2), "nothing is written when nothing changes; the place stays");
        assert_eq!((registrar.len(), registrar.deadline()), (2, Some(Time::from_secs(600))));
        assert!(registrar.pop_expired(Time::from_secs(599)).is_none());
        assert_eq!(registrar.pop_expired(Time::from_secs(600)).map(|lapse| lapse.before.impi), Some(b));
        assert!(registrar.pop_expired(Time::from_secs(600)).is_none());
        assert!(registrar.remove(&a, &number, &mut actions).is_some());
        assert!(matches!(actions.last(), Some(Action::Delete { key }) if *key == kept::key(0)), "{actions:?}");
        assert!(registrar.by_impi.is_empty() && registrar.by_impu.is_empty() && registrar.expiry.is_empty());
    }
}
