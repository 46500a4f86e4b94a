//! The user profile as the S-CSCF gets it (TS 29.228 Annex B): the implicit registration set of the identity asked about.

use crate::config::Config;
use crate::subscriber::Subscription;
use ims_core::{Impi, Impu};
use xml_ifc::{ImsSubscription, PublicIdentity, ServiceProfile};

/// Values of IdentityType (TS 29.228 Annex D).
const DISTINCT_PSI: u8 = 1;
const WILDCARDED_PSI: u8 = 2;

/// Whether a change of a subscription is one for the S-CSCF that has its profile.
pub fn differs(old: &Subscription, new: &Subscription, config: &Config, impi: &Impi) -> bool {
    let of = |subscription: &Subscription, set| user_data(subscription, config, impi, set, None);
    old.sets.len() != new.sets.len() || (0..new.sets.len()).any(|set| of(old, set) != of(new, set))
}

/// The User-Data of one implicit registration set. Identities that are of use come first: the first of these is the user's
/// default identity. Of a wildcarded service it is the identity that was asked about, and the wildcard that it falls under. The
/// criteria are its own and those of the service profile that it names.
pub fn user_data(
    subscription: &Subscription,
    config: &Config,
    impi: &Impi,
    set: usize,
    asked: Option<&Impu>,
) -> Vec<u8> {
    let identities = subscription.sets.get(set).map(Vec::as_slice).unwrap_or_default();
    let (barred, useful): (Vec<_>, Vec<_>) = identities.iter().partition(|p| p.barred);
    let public_identities = useful.into_iter().chain(barred).map(|p| PublicIdentity {
        identity: p.impu.to_string(),
        barred: p.barred,
        display_name: p.display_name.clone(),
        identity_type: subscription.service.as_ref().map(|_| DISTINCT_PSI),
        ..PublicIdentity::default()
    });
    let wildcard = subscription.service.as_ref().filter(|service| service.is_wildcarded());
    let under_wildcard = wildcard.zip(asked).map(|(service, impu)| PublicIdentity {
        identity: impu.to_string(),
        identity_type: Some(WILDCARDED_PSI),
        wildcarded: Some(service.identity.clone()),
        ..PublicIdentity::default()
    });
    let named = subscription.named_profile(config);
    let mut criteria = named.map_or_else(Vec::new, |named| named.criteria.0.clone());
    criteria.extend(subscription.criteria.iter().cloned());
    criteria.sort_by_key(|c| c.priority);
    let mut shared_ifc_sets = named.map_or_else(Vec::new, |named| named.shared_ifc_sets.clone());
    shared_ifc_sets.extend(&subscription.shared_ifc_sets);
    shared_ifc_sets.sort_unstable();
    shared_ifc_sets.dedup();
    let profile = ServiceProfile {
        public_identities: public_identities.chain(under_wildcard).collect(),
        criteria,
        shared_ifc_sets,
        subscribed_media_profile: None,
    };
    xml_ifc::write(&ImsSubscription { private_id: impi.to_string(), service_profiles: vec![profile] }).into_bytes()
}
