//! What the HSS says of a user in SAA and PPR: the identities that are registered together, and how they are charged.

use crate::Refusal;
use crate::auth::says_no;
use ims_core::{Impi, Impu};
use ims_diameter::cx::{ChargingInformation, ResultCode, Saa};
use ims_diameter::endpoint::RequestFailure;
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::ops::Deref;
use std::sync::{Arc, OnceLock, Weak};
use xml_ifc::trigger::{CompiledCriteria, Compiler, Finding};
use xml_ifc::{ApplicationServer, ImsSubscription, Pattern, PublicIdentity, ServiceProfile, SharedSets};

/// Identities of one subscription that are kept: more are cut off.
const MAX_IDENTITIES: usize = 256;
/// Findings that wait to be told: more are left out.
const MOST_FINDINGS: usize = 1000;

/// An implicit registration set with its service profiles (TS 29.228 Annex B). Users by the hundred thousand have the same
/// services: what is not about one user alone is shared ([`Services::share`]).
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Profile {
    /// In the order of the document.
    pub(crate) identities: Arc<[Identity]>,
    /// The service profiles, for the initial filter criteria. Of their public identities only those that no UE can use for itself.
    pub(crate) services: Arc<ServiceSet>,
    pub(crate) charging: Option<Arc<ChargingInformation>>,
}

/// The service profiles of one subscription with their criteria made ready.
#[derive(Default)]
pub(crate) struct ServiceSet {
    profiles: Box<[ServiceProfile]>,
    /// Since [`Services::share`].
    ready: OnceLock<Ready>,
}

/// What is worked out of service profiles once.
struct Ready {
    /// One for each profile.
    criteria: Box<[CompiledCriteria]>,
    /// Wildcarded identities, and the profile that each belongs to.
    wildcards: Box<[(Pattern, usize)]>,
}

/// The criteria of one service profile. Whoever goes through them holds them, whatever becomes of the registration meanwhile.
#[derive(Clone)]
pub(crate) struct Criteria {
    services: Arc<ServiceSet>,
    at: usize,
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Identity {
    pub(crate) impu: Impu,
    pub(crate) is_barred: bool,
    /// The service profile that it belongs to.
    service: u16,
    /// What the document says of it beyond that.
    more: Option<Box<PublicIdentity>>,
}

impl Identity {
    #[cfg(test)]
    pub(crate) fn new(impu: Impu, is_barred: bool) -> Self {
        Self { impu, is_barred, service: 0, more: None }
    }

    /// None: it is no name that a UE could use for itself, but that of a service, or wildcarded.
    fn of(described: &PublicIdentity, service: usize) -> Option<Self> {
        if !matches!(described.identity_type, None | Some(0)) {
            return None;
        }
        let (impu, service) = (Impu::parse(&described.identity).ok()?, u16::try_from(service).ok()?);
        let plain = Self { impu, is_barred: described.barred, service, more: None };
        let more = (plain.described() != *described).then(|| Box::new(described.clone()));
        Some(Self { more, ..plain })
    }

    fn alias_group(&self) -> Option<&str> {
        self.more.as_ref()?.alias_group.as_deref()
    }

    fn described(&self) -> PublicIdentity {
        match &self.more {
            Some(all) => (**all).clone(),
            None => {
                let identity = self.impu.as_str().to_owned();
                PublicIdentity { identity, barred: self.is_barred, ..PublicIdentity::default() }
            }
        }
    }
}

impl Profile {
    pub(crate) fn parse(xml: &[u8], charging: Option<ChargingInformation>) -> Result<Self, xml_ifc::XmlError> {
        Ok(Self::of(xml_ifc::parse(xml)?, charging.map(Arc::new)))
    }

    pub(crate) fn of(subscription: ImsSubscription, charging: Option<Arc<ChargingInformation>>) -> Self {
        let mut identities = Vec::new();
        let mut services = subscription.service_profiles;
        for (at, service) in services.iter_mut().enumerate() {
            service.public_identities.retain(|described| match Identity::of(described, at) {
                Some(identity) => {
                    identities.push(identity);
                    false
                }
                None => true,
            });
        }
        identities.truncate(MAX_IDENTITIES);
        let services = ServiceSet { profiles: services.into(), ready: OnceLock::new() };
        Self { identities: identities.into(), services: Arc::new(services), charging }
    }

    /// The criteria that apply to an identity: those of its service profile. Of a profile that went through [`Services::share`].
    pub(crate) fn criteria(&self, impu: &Impu) -> Criteria {
        let own = self.identities.iter().find(|i| i.impu == *impu).map(|i| usize::from(i.service));
        // A service, or an identity that a wildcard stands for.
        let named = |p: &PublicIdentity| Impu::parse(&p.identity).is_ok_and(|named| named == *impu);
        let at = own.or_else(|| self.services.profiles.iter().position(|p| p.public_identities.iter().any(named)));
        let wildcard = |(pattern, _): &&(Pattern, usize)| pattern.is_in(impu.as_str().as_bytes());
        let at = at.or_else(|| self.services.ready().wildcards.iter().find(wildcard).map(|(_, at)| *at));
        Criteria { services: self.services.clone(), at: at.unwrap_or(0) }
    }

    /// Each service profile of the set once, by its first identity that is not barred, or by this one.
    pub(crate) fn by_service(&self, preferred: &Impu) -> Vec<(Impu, Criteria)> {
        let mut found: Vec<(&Identity, Criteria)> = Vec::new();
        let usable = || self.identities.iter().filter(|i| !i.is_barred);
        for identity in usable().filter(|i| i.impu == *preferred).chain(usable()) {
            if !found.iter().any(|(known, _)| known.service == identity.service) {
                found.push((identity, self.criteria(&identity.impu)));
            }
        }
        found.into_iter().map(|(identity, criteria)| (identity.impu.clone(), criteria)).collect()
    }

    /// The application servers of all criteria, shared ones too, some of them several times.
    pub(crate) fn servers(&self) -> impl Iterator<Item = &ApplicationServer> {
        let all = |criteria: &'_ CompiledCriteria| 0..criteria.len();
        self.services
            .ready()
            .criteria
            .iter()
            .flat_map(move |c| all(c).filter_map(|at| c.get(at)))
            .map(|ifc| &ifc.server)
    }

    /// As the HSS gave it.
    pub(crate) fn subscription(&self, impi: &Impi) -> ImsSubscription {
        let mut service_profiles = self.services.profiles.to_vec();
        for identity in &*self.identities {
            if let Some(service) = service_profiles.get_mut(usize::from(identity.service)) {
                service.public_identities.push(identity.described());
            }
        }
        ImsSubscription { private_id: impi.as_str().to_owned(), service_profiles }
    }

    /// P-Associated-URI: what the user may call itself, the default identity first (TS 24.229 5.4.1.2.2F).
    pub(crate) fn usable(&self) -> impl Iterator<Item = &Impu> {
        self.identities.iter().filter(|i| !i.is_barred).map(|i| &i.impu)
    }

    pub(crate) fn is_barred(&self, impu: &Impu) -> bool {
        self.identities.iter().any(|i| i.impu == *impu && i.is_barred)
    }

    /// The same user as a number, or as a name: an identity of the same alias group, or of the same service profile when no
    /// group is told (TS 23.228 4.3.3.4), in the other scheme.
    pub(crate) fn alias(&self, impu: &Impu) -> Option<&Impu> {
        let own = self.identities.iter().find(|i| i.impu == *impu)?;
        let is_tel = |i: &Identity| i.impu.as_str().starts_with("tel:");
        let mut others = self.identities.iter().filter(|i| {
            !i.is_barred && i.service == own.service && is_tel(i) != is_tel(own) && i.alias_group() == own.alias_group()
        });
        others.next().map(|i| &i.impu)
    }

    pub(crate) fn has(&self, impu: &Impu) -> bool {
        self.identities.iter().any(|i| i.impu == *impu)
    }
}

impl ServiceSet {
    fn ready(&self) -> &Ready {
        debug_assert!(self.ready.get().is_some(), "the profile was not shared");
        self.make_ready(&mut Compiler::default())
    }

    fn make_ready(&self, compiler: &mut Compiler) -> &Ready {
        self.ready.get_or_init(|| Ready {
            criteria: self.profiles.iter().map(|profile| compiler.compile(profile)).collect(),
            wildcards: self.wildcards().take(MAX_IDENTITIES).collect(),
        })
    }

    /// TS 23.003 13.4A, 13.5. What is no expression stands for nobody.
    fn wildcards(&self) -> impl Iterator<Item = (Pattern, usize)> {
        let identities = |(at, profile): (usize, &'_ ServiceProfile)| {
            let wildcard = |p: &PublicIdentity| Pattern::wildcard(p.wildcarded.as_ref().unwrap_or(&p.identity))?.ok();
            let found: Vec<Pattern> = profile.public_identities.iter().filter_map(wildcard).collect();
            found.into_iter().map(move |pattern| (pattern, at))
        };
        self.profiles.iter().enumerate().flat_map(identities)
    }
}

impl PartialEq for ServiceSet {
    fn eq(&self, other: &Self) -> bool {
        self.profiles == other.profiles
    }
}

impl fmt::Debug for ServiceSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.profiles.fmt(f)
    }
}

impl Deref for Criteria {
    type Target = CompiledCriteria;

    fn deref(&self) -> &CompiledCriteria {
        static NONE: OnceLock<CompiledCriteria> = OnceLock::new();
        self.services.ready().criteria.get(self.at).unwrap_or_else(|| NONE.get_or_init(CompiledCriteria::default))
    }
}

impl fmt::Debug for Criteria {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// The service profiles in use, each once.
#[derive(Default)]
pub(crate) struct Services {
    hasher: RandomState,
    known: HashMap<u64, Weak<ServiceSet>>,
    compiler: Compiler,
    /// What is wrong with criteria that were made ready, and was not told yet.
    findings: Vec<Finding>,
    /// When what nobody uses any more is looked for.
    sweep_at: usize,
    /// Of the last profile: mostly that of all.
    charging: Option<Arc<ChargingInformation>>,
}

impl Services {
    /// For profiles that may name these shared sets.
    pub(crate) fn new(shared: &SharedSets) -> Self {
        let compiler = Compiler::new(shared);
        Self { findings: compiler.findings().to_vec(), compiler, ..Self::default() }
    }

    /// What was found to be wrong since the last time.
    pub(crate) fn take_findings(&mut self) -> Vec<Finding> {
        std::mem::take(&mut self.findings)
    }

    fn make_ready(&mut self, services: &ServiceSet) {
        for criteria in &services.make_ready(&mut self.compiler).criteria {
            let room = MOST_FINDINGS.saturating_sub(self.findings.len());
            self.findings.extend(criteria.findings().iter().take(room).cloned());
        }
    }

    /// Has the profile share what it has in common with others, and its criteria made ready.
    pub(crate) fn share(&mut self, profile: &mut Profile) {
        match profile.charging == self.charging {
            true => profile.charging.clone_from(&self.charging),
            false => self.charging.clone_from(&profile.charging),
        }
        let hash = self.hasher.hash_one(&profile.services.profiles);
        let known = self.known.get(&hash).and_then(Weak::upgrade);
        match known {
            Some(known) if known == profile.services => profile.services = known,
            // Two that have one hash are not shared.
            Some(_) => self.make_ready(&profile.services),
            None => {
                self.make_ready(&profile.services);
                if self.known.len() >= self.sweep_at {
                    self.known.retain(|_, services| services.strong_count() > 0);
                    self.sweep_at = 2 * self.known.len() + 64;
                }
                self.known.insert(hash, Arc::downgrade(&profile.services));
            }
        }
    }
}

/// A successful SAA, or why it is none.
pub(crate) fn read_saa(answer: Result<&ims_diameter::Message, RequestFailure>) -> Result<Saa, Refusal> {
    let message = answer.map_err(Refusal::HssSilent)?;
    Saa::from_message(message).map_err(|e| Refusal::HssAnswer { command: "SAR", what: e.to_string() })
}

/// What a result code that is no success means for the request that asked.
pub(crate) fn refused(command: &'static str, impu: &Impu, result: ResultCode) -> Refusal {
    if result == ResultCode::TOO_BUSY {
        Refusal::HssBusy { command }
    } else if says_no(result) {
        Refusal::NotAllowed { command, impu: impu.clone(), result }
    } else {
        Refusal::HssAnswer { command, what: format!("{result:?}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn barred_and_wildcarded_identities_are_not_for_use() {
        let identity =
            |uri: &str, extra: &str| format!("<PublicIdentity>{extra}<Identity>{uri}</Identity></PublicIdentity>");
        let xml = format!(
            "<IMSSubscription><PrivateID>a@b</PrivateID><ServiceProfile>{}{}</ServiceProfile><ServiceProfile>{}{}</ServiceProfile></IMSSubscription>",
            identity("sip:imsi@B", "<BarringIndication>1</BarringIndication>"),
            identity("sip:alice@b", ""),
            identity("tel:+1-555", ""),
            "<PublicIdentity><Identity>sip:x@b</Identity><Extension><IdentityType>3</IdentityType></Extension></PublicIdentity>",
        );
        let profile = Profile::parse(xml.as_bytes(), None).unwrap();
        assert_eq!(profile.usable().map(Impu::as_str).collect::<Vec<_>>(), ["sip:alice@b", "tel:+1555"]);
        assert!(profile.has(&Impu::parse("sip:imsi@b").unwrap()));
        let (name, number) = (Impu::parse("sip:alice@b").unwrap(), Impu::parse("tel:+1555").unwrap());
        assert!(profile.is_barred(&Impu::parse("sip:imsi@b").unwrap()) && !profile.is_barred(&name));
        assert_eq!((profile.alias(&name), profile.alias(&number)), (None, None), "each has its own services");
        let again = Profile::of(profile.subscription(&Impi::parse("a@b").unwrap()), None);
        assert_eq!(again, profile, "nothing is lost");
    }

    /// TS 23.003 13.4A: an identity has the services of the wildcard that it falls under, unless it is named itself.
    #[test]
    fn an_identity_under_a_wildcard_has_the_services_of_that_profile() {
        let service = |priority: u32, identities: &str| {
            format!(
                "<ServiceProfile>{identities}<InitialFilterCriteria><Priority>{priority}</Priority><ApplicationServer><ServerName>sip:as@b\
                 </ServerName></ApplicationServer></InitialFilterCriteria></ServiceProfile>"
            )
        };
        let public = |identity: &str, more: &str| {
            format!("<PublicIdentity><Identity>{identity}</Identity>{more}</PublicIdentity>")
        };
        let wildcard = "<Extension><IdentityType>3</IdentityType><Extension><Extension><WildcardedIMPU>sip:pbx!.*!@b</WildcardedIMPU>\
                        </Extension></Extension></Extension>";
        let xml = [
            "<IMSSubscription><PrivateID>a@b</PrivateID>".to_owned(),
            service(1, &public("sip:main@b", "")),
            service(2, &[public("sip:pbx0@b", wildcard), public("tel:+1555!.*!", "")].concat()),
            service(3, &public("sip:pbx7@b", "")),
            "</IMSSubscription>".to_owned(),
        ];
        let mut profile = Profile::parse(xml.concat().as_bytes(), None).unwrap();
        Services::default().share(&mut profile);
        let priority = |impu: &str| profile.criteria(&Impu::parse(impu).unwrap()).get(0).map(|ifc| ifc.priority);
        let wanted = [
            ("sip:main@b", 1),
            ("sip:pbx0@b", 2),
            ("sip:pbx99@B", 2),
            ("tel:+1-555-12", 2),
            ("sip:pbx7@b", 3),
            ("sip:x@b", 1),
        ];
        wanted.iter().for_each(|(impu, number)| assert_eq!(priority(impu), Some(*number), "{impu}"));
    }

    #[test]
    fn users_with_equal_services_share_them() {
        let of = |user: usize, priority: usize| {
            let xml = format!(
                "<IMSSubscription><PrivateID>{user}@b</PrivateID><ServiceProfile><PublicIdentity><Identity>sip:{user}@b</Identity>\
                 </PublicIdentity><InitialFilterCriteria><Priority>{priority}</Priority><ApplicationServer><ServerName>sip:as@b\
                 </ServerName></ApplicationServer></InitialFilterCriteria></ServiceProfile></IMSSubscription>"
            );
            Profile::parse(xml.as_bytes(), None).unwrap()
        };
        let mut services = Services::default();
        let mut all: Vec<Profile> = (0..200).map(|user| of(user, user % 2)).collect();
        all.iter_mut().for_each(|profile| services.share(profile));
        assert_eq!(services.known.len(), 2);
        assert!(
            Arc::ptr_eq(&all[0].services, &all[198].services) && !Arc::ptr_eq(&all[0].services, &all[199].services)
        );
        let impu = |user: usize| Impu::parse(&format!("sip:{user}@b")).unwrap();
        let first = |user: usize| all[user].criteria(&impu(user)).get(0).map(|ifc| ifc.priority);
        assert_eq!((first(0), first(1), first(199)), (Some(0), Some(1), Some(1)));
        assert!(all[0].criteria(&impu(7)).findings().is_empty());
        all.clear();
        (0..200).for_each(|priority| services.share(&mut of(0, priority)));
        assert!(services.known.len() < 70, "what nobody uses goes: {}", services.known.len());
    }
}
