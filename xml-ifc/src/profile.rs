//! The classes of TS 29.228 Annex B and C.

use serde::{Deserialize, Serialize};

/// `IMSSubscription` (B.1): one private identity and its service profiles.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ImsSubscription {
    pub private_id: String,
    pub service_profiles: Vec<ServiceProfile>,
}

/// `ServiceProfile` (B.2): what applies to all of its public identities.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct ServiceProfile {
    pub public_identities: Vec<PublicIdentity>,
    pub criteria: Vec<Ifc>,
    /// `SharedIFCSetID`: names of criteria that the S-CSCF holds itself.
    pub shared_ifc_sets: Vec<u32>,
    /// `SubscribedMediaProfileId` of the core network service authorization.
    pub subscribed_media_profile: Option<u32>,
}

/// `PublicIdentity` (B.2.1), with what stands in its nested extensions.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct PublicIdentity {
    pub identity: String,
    /// `BarringIndication`: of no use but for registering.
    pub barred: bool,
    /// `IdentityType`: 0 public user identity, 1 distinct PSI, 2 wildcarded PSI, 3 wildcarded public user identity.
    pub identity_type: Option<u8>,
    /// `WildcardedPSI` or `WildcardedIMPU`, by `identity_type`.
    pub wildcarded: Option<String>,
    pub display_name: Option<String>,
    /// `AliasIdentityGroupID`: identities of one group are aliases of each other.
    pub alias_group: Option<String>,
}

/// `InitialFilterCriteria` (B.2.2).
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Ifc {
    /// Lower is earlier.
    pub priority: u32,
    /// Absent: relevant to registered and unregistered users.
    pub profile_part: Option<ProfilePart>,
    /// Absent: always triggers.
    pub trigger: Option<TriggerPoint>,
    pub server: ApplicationServer,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum ProfilePart {
    Registered,
    Unregistered,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct ApplicationServer {
    /// A SIP URI.
    pub server_name: String,
    pub default_handling: DefaultHandling,
    pub service_info: Option<String>,
    pub include_register_request: bool,
    pub include_register_response: bool,
}

/// What happens to the session when the application server does not answer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub enum DefaultHandling {
    #[default]
    SessionContinued,
    SessionTerminated,
}

/// `TriggerPoint` (B.2.3).
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct TriggerPoint {
    /// True: an AND of groups that are ORs; false: an OR of groups that are ANDs.
    pub cnf: bool,
    pub spts: Vec<Spt>,
}

/// Service point trigger: one condition, which may stand in several groups.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Spt {
    pub negated: bool,
    pub groups: Vec<u32>,
    pub kind: SptKind,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum SptKind {
    /// An extended regular expression.
    RequestUri(String),
    /// `registration_types` (for REGISTER): 0 initial, 1 re-registration, 2 de-registration; empty is any.
    Method {
        method: String,
        registration_types: Vec<u8>,
    },
    /// Both are extended regular expressions; without `content` the presence of the header is what counts.
    SipHeader {
        header: String,
        content: Option<String>,
    },
    /// 0 originating, 1 terminating registered, 2 terminating unregistered, 3 originating unregistered, 4 originating
    /// after call diversion.
    SessionCase(u8),
    SessionDescription {
        line: String,
        content: Option<String>,
    },
    /// What could not be read, in words: a criterion with it never matches, and the rest of the profile is good all the same.
    Unusable(String),
}
