//! A subscription (TS 23.228 4.3.3): one or more private identities with what they prove themselves with, public identities in implicit
//! registration sets, and the state that traffic gives it.

use crate::config::{Capabilities, Config, NamedProfile};
use crate::credential::{Credential, PrivateIdentity};
use crate::service::{self, Service};
use ims_aka::Sqn;
use ims_core::{FewMap, FewSet, Impi, Impu, Imsi, Msisdn};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::{BTreeSet, VecDeque};
use std::ops::Deref;
use std::sync::Arc;
use xml_ifc::Ifc;

/// What provisioning says: changes by command alone.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Subscription {
    /// Every subscriber has one, and no service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imsi: Option<Imsi>,
    /// It is no subscriber, but a service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Box<Service>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub msisdn: Option<Msisdn>,
    /// Empty for services alone.
    pub private_identities: Vec<PrivateIdentity>,
    /// Implicit registration sets: registering one identity of a set registers all of it. Never empty; no set is empty but that
    /// of a wildcarded service.
    pub sets: Vec<Vec<PublicIdentity>>,
    /// The public identities were given, and do not follow from IMSI and MSISDN.
    #[serde(default)]
    pub impus_given: bool,
    /// May not register at all.
    #[serde(default)]
    pub barred: bool,
    /// Where the subscriber may roam; none: as the configuration says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visited_networks: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub criteria: Vec<Ifc>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shared_ifc_sets: Vec<u32>,
    /// One of [`crate::Config::service_profiles`]; none: the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_profile: Option<Box<str>>,
    /// Rises with each change: tells whether an S-CSCF has the profile as it is now.
    #[serde(default)]
    pub revision: u64,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PublicIdentity {
    pub impu: Impu,
    /// Of no use but for registering (TS 23.228 4.3.3.4).
    #[serde(default)]
    pub barred: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
}

impl Subscription {
    pub fn private_identity(&self, impi: &Impi) -> Option<&PrivateIdentity> {
        self.private_identities.iter().find(|p| p.impi == *impi)
    }

    /// The same private identity, sharing our text.
    pub(crate) fn own(&self, impi: &Impi) -> Impi {
        self.private_identity(impi).map_or(impi, |p| &p.impi).clone()
    }

    /// The private identity that a profile is about which nobody has registered; None: of a wildcarded service, whose profile
    /// depends on the identity that was asked about.
    pub(crate) fn impi_of_profile(&self) -> Option<&Impi> {
        match &self.service {
            Some(service) => (!service.is_wildcarded()).then_some(&service.impi),
            None => self.private_identities.first().map(|p| &p.impi),
        }
    }

    /// The set that an identity is in.
    pub fn set_of(&self, impu: &Impu) -> Option<usize> {
        self.sets.iter().position(|set| set.iter().any(|p| p.impu == *impu))
    }

    /// The set that an identity is in, or falls under.
    pub fn set_for(&self, impu: &Impu) -> Option<usize> {
        // A wildcarded service is found by its wildcard only, for what matches it.
        let is_wildcarded = self.service.as_ref().is_some_and(|service| service.is_wildcarded());
        if is_wildcarded { Some(0) } else { self.set_of(impu) }
    }

    /// Whether a private identity is one of this subscription.
    pub fn has_private(&self, impi: &Impi) -> bool {
        self.private_identity(impi).is_some() || self.service.as_ref().is_some_and(|service| service.impi == *impi)
    }

    /// What orders it among all others.
    pub fn sort(&self) -> String {
        match (&self.imsi, &self.service) {
            (Some(imsi), _) => imsi.to_string(),
            (None, service) => service::sort(service.as_ref().map_or("", |service| &service.identity)),
        }
    }

    /// Whether registering `impu` gives the user at least one identity that is of use (TS 29.228 6.1.1.1).
    pub fn may_register(&self, impu: &Impu) -> bool {
        let of_use = |set: usize| self.sets.get(set).is_some_and(|set| set.iter().any(|p| !p.barred));
        !self.barred && self.service.is_none() && self.set_of(impu).is_some_and(of_use)
    }

    /// What it has in common with others.
    pub fn named_profile<'a>(&self, config: &'a Config) -> Option<&'a NamedProfile> {
        // The default is one for people.
        let default = config.default_service_profile.as_deref().filter(|_| self.service.is_none());
        let name = self.service_profile.as_deref().or(default)?;
        config.service_profiles.get(name)
    }

    /// Another number whenever an S-CSCF would be given another profile.
    pub fn profile_revision(&self, config: &Config) -> u64 {
        self.revision ^ self.named_profile(config).map_or(0, NamedProfile::mark)
    }

    /// There are services while nobody is registered: criteria for that part of the profile (TS 29.228 6.1.4.1). Those of
    /// shared sets, which the S-CSCF alone knows, may be among them.
    pub fn has_unregistered_services(&self, config: &Config) -> bool {
        let named = self.named_profile(config);
        let common = named.map(|n| n.criteria.0.as_slice()).unwrap_or_default();
        let is_for_unregistered = |c: &Ifc| c.profile_part != Some(xml_ifc::ProfilePart::Registered);
        self.criteria.iter().chain(common).any(is_for_unregistered)
            || !self.shared_ifc_sets.is_empty()
            || named.is_some_and(|n| !n.shared_ifc_sets.is_empty())
    }

    /// As it was read, in no more room than it needs: there may be a hundred thousand of these in memory.
    pub fn shrink(&mut self) {
        self.private_identities.shrink_to_fit();
        self.sets.iter_mut().for_each(Vec::shrink_to_fit);
        self.sets.shrink_to_fit();
        self.criteria.shrink_to_fit();
    }

    pub fn impus(&self) -> impl Iterator<Item = &PublicIdentity> {
        self.sets.iter().flatten()
    }

    /// The private identities whose SIM counts sequence numbers.
    fn sims(&self) -> impl Iterator<Item = &Impi> {
        self.private_identities.iter().filter(|p| matches!(p.credential, Credential::Aka(_))).map(|p| &p.impi)
    }
}

/// What traffic changes.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct State {
    /// The last sequence number handed out, by private identity.
    pub sqn: FewMap<Impi, u64>,
    /// The S-CSCF that serves the subscription: there is one at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assigned: Option<Scscf>,
    /// Authentication pending: the S-CSCF that asked for vectors last, by private identity.
    #[serde(default, skip_serializing_if = "FewMap::is_empty")]
    pub pending: FewMap<Impi, Scscf>,
    /// The assigned S-CSCF does not answer, says an I-CSCF: another one may take its place (TS 23.380).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replaceable: bool,
    /// By implicit registration set; missing ones at the end are not registered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sets: Vec<SetState>,
    /// The revision of the profile that the assigned S-CSCF has.
    #[serde(default)]
    pub downloaded: u64,
    /// The run of the HSS in which this was written ([`crate::behind`]).
    #[serde(default)]
    pub run: u64,
}

/// An S-CSCF by its SIP name, and how to reach it by Diameter. There are few, and each subscriber names one: copies share it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Scscf(Arc<ScscfNames>);

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ScscfNames {
    pub name: String,
    pub host: String,
    pub realm: String,
}

impl Scscf {
    pub fn new(name: String, host: String, realm: String) -> Self {
        Self(Arc::new(ScscfNames { name, host, realm }))
    }
}

impl Deref for Scscf {
    type Target = ScscfNames;

    fn deref(&self) -> &ScscfNames {
        &self.0
    }
}

impl Serialize for Scscf {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Scscf {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        ScscfNames::deserialize(deserializer).map(|names| Self(Arc::new(names)))
    }
}

/// Those that were heard of lately, so that each is in memory once.
#[derive(Default)]
pub(crate) struct Scscfs(VecDeque<Scscf>);

impl Scscfs {
    const MOST: usize = 32;

    pub(crate) fn same(&mut self, scscf: Scscf) -> Scscf {
        if let Some(known) = self.0.iter().find(|known| **known == scscf) {
            return known.clone();
        }
        if self.0.len() >= Self::MOST {
            self.0.pop_front();
        }
        self.0.push_back(scscf.clone());
        scscf
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct SetState {
    /// The private identities that registered it.
    #[serde(default, skip_serializing_if = "FewSet::is_empty")]
    pub registered: FewSet<Impi>,
    /// An S-CSCF has the profile though nobody is registered.
    #[serde(default)]
    pub unregistered: bool,
}

/// The state of a public identity (TS 29.228 6.1): that of its set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Registration {
    Registered,
    Unregistered,
    NotRegistered,
}

impl Registration {
    pub fn name(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Unregistered => "unregistered",
            Self::NotRegistered => "not-registered",
        }
    }
}

impl State {
    pub fn registration(&self, set: usize) -> Registration {
        match self.sets.get(set) {
            Some(set) if !set.registered.is_empty() => Registration::Registered,
            Some(set) if set.unregistered => Registration::Unregistered,
            _ => Registration::NotRegistered,
        }
    }

    pub fn set_mut(&mut self, set: usize) -> &mut SetState {
        if self.sets.len() <= set {
            self.sets.reserve_exact(set + 1 - self.sets.len());
            self.sets.resize(set + 1, SetState::default());
        }
        &mut self.sets[set]
    }

    /// Nothing is pending for this private identity any more.
    pub fn authenticated(&mut self, impi: &Impi) {
        self.pending.remove(impi);
    }

    /// The assignment ends with the last set that is registered or kept.
    pub fn release_if_idle(&mut self) {
        if self.sets.iter().all(|set| set.registered.is_empty() && !set.unregistered) {
            self.assigned = None;
            self.replaceable = false;
            self.sets.clear();
        }
    }

    /// As it was read from the store in this run: in each run since it was written, up to `window` sequence numbers may have been
    /// handed out of which the store does not know. The numbers go on beyond them (TS 33.102 C.2.1 lets SEQ jump by 2^28).
    pub fn catch_up(&mut self, run: u64, window: u64, subscription: &Subscription) {
        let jump = run.saturating_sub(self.run).saturating_mul(window);
        if jump > 0 {
            self.run = run;
            for impi in subscription.sims() {
                let sqn = self.sqn(impi);
                self.sqn.insert(impi.clone(), Sqn::new(sqn.seq() + jump, sqn.ind() as u8).0);
            }
        }
    }

    /// How many sequence numbers `later` is ahead, if these and pending authentications are all that is different: the loss of
    /// such a change is made good by [`State::catch_up`] and by another challenge.
    pub fn steps_to(&self, later: &Self) -> Option<u64> {
        let Self { sqn, assigned, pending: _, replaceable, sets, downloaded, run } = later;
        let same = *assigned == self.assigned
            && *replaceable == self.replaceable
            && *sets == self.sets
            && *downloaded == self.downloaded
            && *run == self.run;
        if !same || self.sqn.keys().any(|impi| !sqn.contains_key(impi)) {
            return None;
        }
        let steps = sqn.iter().map(|(impi, sqn)| Sqn(*sqn).seq().checked_sub(self.sqn(impi).seq()));
        steps.sum()
    }

    /// What `before` had handed out and left pending, and the store does not know of yet.
    pub fn go_on_from(&mut self, before: &Self, subscription: &Subscription) {
        for impi in subscription.sims() {
            if before.sqn(impi) > self.sqn(impi) {
                self.sqn.insert(impi.clone(), before.sqn(impi).0);
            }
        }
        let known = |(impi, _): &(&Impi, &Scscf)| subscription.private_identity(impi).is_some();
        self.pending.extend(before.pending.iter().filter(known).map(|(impi, scscf)| (impi.clone(), scscf.clone())));
    }

    /// Has it share its texts with the subscription and with other subscribers.
    pub(crate) fn share(&mut self, subscription: &Subscription, scscfs: &mut Scscfs) {
        let impi = |impi: Impi| subscription.own(&impi);
        let State { sqn, assigned, pending, sets, .. } = self;
        *sqn = std::mem::take(sqn).into_iter().map(|(known, sqn)| (impi(known), sqn)).collect();
        *pending = std::mem::take(pending).into_iter().map(|(known, to)| (impi(known), scscfs.same(to))).collect();
        *assigned = assigned.take().map(|to| scscfs.same(to));
        for set in sets {
            set.registered = std::mem::take(&mut set.registered).into_iter().map(impi).collect();
        }
    }

    pub fn sqn(&self, impi: &Impi) -> Sqn {
        Sqn(self.sqn.get(impi).copied().unwrap_or_default())
    }

    /// The private identities with a registration.
    pub fn registered_impis(&self) -> BTreeSet<&Impi> {
        self.sets.iter().flat_map(|set| &set.registered).collect()
    }

    pub fn is_assigned_to(&self, server_name: &str) -> bool {
        self.assigned.as_ref().is_some_and(|scscf| scscf.name == server_name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cx::fixture::{Fixture, S1, S2, scscf};
    use serde_json::json;

    #[test]
    fn after_each_run_since_it_was_written_the_numbers_go_on_beyond_what_may_have_been_handed_out() {
        let mut f = Fixture::new();
        let impi = f.impi();
        f.state.run = 7;
        f.state.sqn.insert(impi.clone(), Sqn::new(100, 4).0);
        for (run, seq) in [(7, 100), (8, 132), (8, 132), (10, 196), (9, 196)] {
            f.state.catch_up(run, 32, &f.subscription);
            assert_eq!(f.state.sqn(&impi), Sqn::new(seq, 4), "in run {run}");
        }
        let mut never_written = State::default();
        never_written.catch_up(3, 32, &f.subscription);
        assert_eq!((never_written.sqn(&impi).seq(), never_written.run), (96, 3));
        let mut softphone = Fixture::of_softphone(json!({ "password": "Circle Of Life" }));
        softphone.state.catch_up(3, 32, &softphone.subscription);
        assert!(softphone.state.sqn.is_empty(), "a password has no sequence numbers");
    }

    #[test]
    fn numbers_and_challenges_alone_may_be_written_later() {
        let mut f = Fixture::new();
        let impi = f.impi();
        f.state.sqn.insert(impi.clone(), Sqn::new(5, 4).0);
        let of = |change: &dyn Fn(&mut State)| {
            let mut later = f.state.clone();
            change(&mut later);
            f.state.steps_to(&later)
        };
        let count = |state: &mut State, seq| {
            state.sqn.insert(impi.clone(), Sqn::new(seq, 4).0);
        };
        assert_eq!(of(&|_| {}), Some(0));
        assert_eq!(of(&|s| count(s, 8)), Some(3));
        assert_eq!(of(&|s| drop(s.pending.insert(impi.clone(), scscf(S1)))), Some(0));
        assert_eq!(of(&|s| count(s, 4)), None, "backwards");
        assert_eq!(of(&|s| s.sqn.clear()), None);
        assert_eq!(of(&|s| s.assigned = Some(scscf(S1))), None);
        assert_eq!(of(&|s| s.downloaded += 1), None);
        assert_eq!(of(&|s| s.set_mut(0).unregistered = true), None);
    }

    #[test]
    fn what_was_handed_out_stays_so_when_the_store_has_something_older() {
        let mut f = Fixture::new();
        let (impi, other) = (f.impi(), Impi::parse("other@ims.example").unwrap());
        let mut before = f.state.clone();
        for (impi, name) in [(&impi, S1), (&other, S2)] {
            before.sqn.insert(impi.clone(), Sqn::new(9, 4).0);
            before.pending.insert(impi.clone(), scscf(name));
        }
        f.state.go_on_from(&before, &f.subscription);
        assert_eq!((f.state.sqn(&impi).seq(), f.state.sqn.len(), f.state.pending.len()), (9, 1, 1));
        f.state.sqn.insert(impi.clone(), Sqn::new(500, 4).0);
        f.state.go_on_from(&before, &f.subscription);
        assert_eq!(f.state.sqn(&impi).seq(), 500, "and what is newer there stays");
    }
}
