//! What the HSS says of a user in SAA and PPR: the identities that are registered together, and how they are charged.

use crate::Refusal;
use crate::auth::says_no;
use ims_core::Impu;
use ims_diameter::cx::{ChargingInformation, ResultCode, Saa};
use ims_diameter::endpoint::RequestFailure;
use xml_ifc::ImsSubscription;

/// Identities of one subscription that are kept: more are cut off.
const MAX_IDENTITIES: usize = 256;

/// An implicit registration set with its service profiles (TS 29.228 Annex B).
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Profile {
    /// In the order of the document.
    pub(crate) identities: Vec<Identity>,
    /// For the initial filter criteria.
    pub(crate) subscription: ImsSubscription,
    pub(crate) charging: Option<ChargingInformation>,
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Identity {
    pub(crate) impu: Impu,
    pub(crate) is_barred: bool,
}

impl Profile {
    pub(crate) fn parse(xml: &[u8], charging: Option<ChargingInformation>) -> Result<Self, xml_ifc::XmlError> {
        Ok(Self::of(xml_ifc::parse(xml)?, charging))
    }

    pub(crate) fn of(subscription: ImsSubscription, charging: Option<ChargingInformation>) -> Self {
        let all = subscription.service_profiles.iter().flat_map(|p| &p.public_identities);
        // Wildcarded identities and identities of services are no names that a UE could use for itself.
        let of_user = all.filter(|i| matches!(i.identity_type, None | Some(0)));
        let identities: Vec<Identity> = of_user
            .filter_map(|i| Some(Identity { impu: Impu::parse(&i.identity).ok()?, is_barred: i.barred }))
            .take(MAX_IDENTITIES)
            .collect();
        Self { identities, subscription, charging }
    }

    /// P-Associated-URI: what the user may call itself, the default identity first (TS 24.229 5.4.1.2.2F).
    pub(crate) fn usable(&self) -> impl Iterator<Item = &Impu> {
        self.identities.iter().filter(|i| !i.is_barred).map(|i| &i.impu)
    }

    pub(crate) fn has(&self, impu: &Impu) -> bool {
        self.identities.iter().any(|i| i.impu == *impu)
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
    }
}
