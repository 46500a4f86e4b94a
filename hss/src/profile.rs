//! The user profile as the S-CSCF gets it (TS 29.228 Annex B): the implicit registration set of the identity asked about.

use crate::subscriber::Subscription;
use ims_core::Impi;
use xml_ifc::{ImsSubscription, PublicIdentity, ServiceProfile};

/// The User-Data of one implicit registration set. Identities that are of use come first: the first of these is the user's
/// default identity.
pub fn user_data(subscription: &Subscription, impi: &Impi, set: usize) -> Vec<u8> {
    let identities = subscription.sets.get(set).map(Vec::as_slice).unwrap_or_default();
    let (barred, useful): (Vec<_>, Vec<_>) = identities.iter().partition(|p| p.barred);
    let public_identities = useful.into_iter().chain(barred).map(|p| PublicIdentity {
        identity: p.impu.to_string(),
        barred: p.barred,
        display_name: p.display_name.clone(),
        ..PublicIdentity::default()
    });
    let profile = ServiceProfile {
        public_identities: public_identities.collect(),
        criteria: subscription.criteria.clone(),
        shared_ifc_sets: subscription.shared_ifc_sets.clone(),
        subscribed_media_profile: None,
    };
    xml_ifc::write(&ImsSubscription { private_id: impi.to_string(), service_profiles: vec![profile] }).into_bytes()
}
