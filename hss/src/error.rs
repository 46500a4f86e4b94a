//! Why the HSS refuses a Cx request: the result for the peer, a sentence for the operator, a name for the counter.

use ims_aka::MacFailure;
use ims_core::{Impi, Impu};
use ims_diameter::DiameterError;
use ims_diameter::cx::{ResultCode, ServerAssignmentType};

#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum Refusal {
    #[error("the request is not as TS 29.229 says: {0}")]
    Malformed(DiameterError),
    #[error("no subscriber has the private identity {impi:?}: provision it, or correct the identity on the SIM")]
    UnknownPrivateIdentity { impi: Impi },
    #[error("no subscriber has the public identity {impu:?}: provision it, or correct the identity on the SIM")]
    UnknownPublicIdentity { impu: Impu },
    #[error("{impu:?} is no public identity of {impi:?}: correct the identities of one of the two subscribers")]
    IdentitiesDontMatch { impi: Impi, impu: Impu },
    #[error("{impu:?} is not registered")]
    NotRegistered { impu: Impu },
    #[error("the service {impu:?} is inactive: set active when it shall be reached")]
    InactiveService { impu: Impu },
    #[error("{impi:?} may not register in the visited network {network:?}: add it to visited_networks if it should")]
    RoamingNotAllowed { impi: Impi, network: String },
    #[error("{impu:?} is barred, and so is all that would be registered with it")]
    AuthorizationRejected { impu: Impu },
    #[error("{asking} asks for a subscriber that {assigned} serves")]
    OtherServerAssigned { assigned: String, asking: String },
    #[error("the authentication scheme {scheme:?} is not supported: Digest-AKAv1-MD5 and SIP Digest are")]
    UnsupportedScheme { scheme: String },
    #[error(
        "{impi:?} has a password and no SIM: register it without AKA, as a softphone does, or provision K and OPc for it"
    )]
    HasPassword { impi: Impi },
    #[error("{impi:?} has a SIM and no password: register it with AKA, or provision a password for it")]
    HasSim { impi: Impi },
    #[error("{kind:?} is no assignment type of Cx")]
    AssignmentType { kind: ServerAssignmentType },
    #[error("{count} public identities where one is allowed")]
    TooManyIdentities { count: usize },
    #[error("{asking} speaks for a subscriber that it does not serve")]
    NotAssigned { asking: String },
    #[error("resynchronisation of {impi:?} refused: {cause}")]
    Resynchronisation { impi: Impi, cause: MacFailure },
    #[error(
        "the keys of {impi:?} cannot be read: they were stored under master key {key_id}; give that key back to the HSS"
    )]
    Sealed { impi: Impi, key_id: String },
    #[error("a stored record cannot be read: {0}")]
    Corrupt(String),
    #[error("the subscriber store does not answer: {0}")]
    StoreUnavailable(String),
    #[error("too many requests are in progress: {0}")]
    Busy(&'static str),
}

impl Refusal {
    /// By TS 29.228 6.1 and TS 29.229 6.2; base protocol results by RFC 6733 7.1.
    pub fn result(&self) -> ResultCode {
        match self {
            Self::Malformed(e) => ResultCode::Base(e.result_code()),
            Self::UnknownPrivateIdentity { .. } | Self::UnknownPublicIdentity { .. } | Self::InactiveService { .. } => {
                ResultCode::USER_UNKNOWN
            }
            Self::IdentitiesDontMatch { .. } => ResultCode::IDENTITIES_DONT_MATCH,
            Self::NotRegistered { .. } => ResultCode::IDENTITY_NOT_REGISTERED,
            Self::RoamingNotAllowed { .. } => ResultCode::ROAMING_NOT_ALLOWED,
            Self::AuthorizationRejected { .. } => ResultCode::Base(5003),
            Self::OtherServerAssigned { .. } => ResultCode::IDENTITY_ALREADY_REGISTERED,
            Self::UnsupportedScheme { .. } | Self::HasPassword { .. } | Self::HasSim { .. } => {
                ResultCode::AUTH_SCHEME_NOT_SUPPORTED
            }
            Self::AssignmentType { .. } => ResultCode::IN_ASSIGNMENT_TYPE,
            Self::TooManyIdentities { .. } => ResultCode::Base(5009),
            Self::NotAssigned { .. }
            | Self::Resynchronisation { .. }
            | Self::Sealed { .. }
            | Self::Corrupt(_)
            | Self::StoreUnavailable(_) => ResultCode::UNABLE_TO_COMPLY,
            Self::Busy(_) => ResultCode::TOO_BUSY,
        }
    }

    /// The name of its counter in the snapshot.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::UnknownPrivateIdentity { .. } => "unknown-private-identity",
            Self::UnknownPublicIdentity { .. } => "unknown-public-identity",
            Self::IdentitiesDontMatch { .. } => "identities-dont-match",
            Self::NotRegistered { .. } => "not-registered",
            Self::InactiveService { .. } => "inactive-service",
            Self::RoamingNotAllowed { .. } => "roaming-not-allowed",
            Self::AuthorizationRejected { .. } => "authorization-rejected",
            Self::OtherServerAssigned { .. } => "other-server-assigned",
            Self::UnsupportedScheme { .. } => "unsupported-scheme",
            Self::HasPassword { .. } => "has-password",
            Self::HasSim { .. } => "has-sim",
            Self::AssignmentType { .. } => "assignment-type",
            Self::TooManyIdentities { .. } => "too-many-identities",
            Self::NotAssigned { .. } => "not-assigned",
            Self::Resynchronisation { .. } => "resynchronisation",
            Self::Sealed { .. } => "sealed-under-another-key",
            Self::Corrupt(_) => "corrupt-record",
            Self::StoreUnavailable(_) => "store-unavailable",
            Self::Busy(_) => "busy",
        }
    }

    /// What an operator has to look at, as against what users do every day.
    pub fn is_fault(&self) -> bool {
        !matches!(
            self,
            Self::NotRegistered { .. } | Self::UnknownPublicIdentity { .. } | Self::RoamingNotAllowed { .. }
        )
    }
}
