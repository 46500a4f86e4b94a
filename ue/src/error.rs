//! What a strict handset finds wrong with the network ([`Fault`]), and why a registration attempt ended ([`Failure`]).

use ims_core::sa::SaError;
use ims_sip::endpoint::ClientFailure;

/// The network did something that a phone does not accept. Counted by name; whether the attempt ends is the caller's
/// choice: some are fatal (they leave as [`Failure::Fault`]), others are only noted.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    #[error("ck or ik reached the handset: the P-CSCF must take them out of the challenge (TS 24.229 5.2.2)")]
    CkIkLeaked,
    #[error("the 401 has no readable WWW-Authenticate: {0}")]
    NoChallenge(&'static str),
    #[error("the challenge is for the realm {0}, not for the home domain")]
    WrongRealm(String),
    #[error("the challenge asks for the algorithm {0}, which this handset does not know")]
    WrongAlgorithm(String),
    #[error("the nonce is not base64 of RAND and AUTN")]
    BadNonce,
    #[error("the same nonce came twice: a vector is good for one authentication")]
    NonceReused,
    #[error("AUTN does not verify: the network does not know our key (TS 33.102 6.3.3)")]
    MacFailure,
    #[error("the 401 has no Security-Server although we asked for sec-agree (TS 24.229 5.1.1.5.1)")]
    NoSecurityServer,
    #[error("the 401 has a Security-Server although we offered nothing")]
    UnaskedSecurityServer,
    #[error("no Security-Server mechanism is among those we offered")]
    SecurityServerNotOffered,
    #[error("the chosen Security-Server mechanism lacks SPIs or ports")]
    SecurityServerIncomplete,
    #[error("Security-Server names an unprotected port or equal ports or SPIs")]
    SecurityServerBadPorts,
    #[error("a message came in clear, or by the wrong ports, where the security association was due")]
    OutsideSa,
    #[error("a 200 came without any authentication of the network")]
    Unchallenged,
    #[error("the 200 does not bind our Contact")]
    ContactNotBound,
    #[error("the 200 binds our Contact without a positive expiry")]
    NoExpiry,
    #[error("the network granted more than we asked for: {granted} s instead of {asked} s")]
    ExpiryRaised { granted: u32, asked: u32 },
    #[error("the 200 to a de-registration still binds our Contact")]
    StillBound,
    #[error("the 200 has no Service-Route")]
    NoServiceRoute,
    #[error("the 200 has no P-Associated-URI")]
    NoAssociatedUri,
    #[error("{0} is for the network only and reached the handset")]
    HeaderLeaked(&'static str),
    #[error("rspauth in Authentication-Info does not prove the network")]
    WrongRspauth,
    #[error("the Request-URI {0} is not the Contact that was registered")]
    NotOurContact(String),
    #[error("a Route is left in a request to the handset")]
    RouteLeft,
    #[error("a Via is left in a response to the handset")]
    ViaLeft,
    #[error("the topmost Via names {0}, which is not the protected server port of the P-CSCF (TS 24.229 5.2.6.4)")]
    ViaNotProtected(String),
    #[error("an initial request has no P-Called-Party-ID (TS 24.229 5.4.3.3)")]
    NoCalledParty,
    #[error("P-Called-Party-ID names {0}, which is no identity of ours")]
    WrongCalledParty(String),
    #[error("what makes a dialog has no Record-Route")]
    NoRecordRoute,
    #[error("the Record-Route {0} does not name the protected server port of the P-CSCF (TS 24.229 5.2.6.3, 5.2.6.4)")]
    RecordRouteNotProtected(String),
    #[error("P-Asserted-Identity came although its owner asked for privacy (RFC 3325 7)")]
    IdentityDespitePrivacy,
    #[error("the body is not what its sender sealed")]
    BodyAltered,
    #[error("a response does not repeat From tag, Call-ID and CSeq of its request")]
    OtherRequest,
    #[error("a response has no To tag")]
    NoToTag,
    #[error("the To tag changed within a dialog")]
    ToTagChanged,
    #[error("what makes a dialog has no Contact")]
    NoContact,
    #[error("the 2xx has no answer to our offer, or one that is none (RFC 3264 6)")]
    BadAnswer,
    #[error("the same INVITE came twice by two ways (RFC 3261 8.2.2.2)")]
    Merged,
    #[error("the session description cannot be read")]
    BadOffer,
    #[error("a NOTIFY about our registration cannot be read, or the first does not say all (RFC 3680 5)")]
    BadRegInfo,
    #[error("the full state of our registration does not name our Contact")]
    NotInRegInfo,
}

impl Fault {
    /// The name it is counted under.
    pub fn name(&self) -> &'static str {
        match self {
            Self::CkIkLeaked => "ck/ik leaked",
            Self::NoChallenge(_) => "no-challenge",
            Self::WrongRealm(_) => "wrong-realm",
            Self::WrongAlgorithm(_) => "wrong-algorithm",
            Self::BadNonce => "bad-nonce",
            Self::NonceReused => "nonce-reused",
            Self::MacFailure => "mac-failure",
            Self::NoSecurityServer => "no-security-server",
            Self::UnaskedSecurityServer => "unasked-security-server",
            Self::SecurityServerNotOffered => "security-server-not-offered",
            Self::SecurityServerIncomplete => "security-server-incomplete",
            Self::SecurityServerBadPorts => "security-server-bad-ports",
            Self::OutsideSa => "outside-sa",
            Self::Unchallenged => "unchallenged",
            Self::ContactNotBound => "contact-not-bound",
            Self::NoExpiry => "no-expiry",
            Self::ExpiryRaised { .. } => "expiry-raised",
            Self::StillBound => "still-bound",
            Self::NoServiceRoute => "no-service-route",
            Self::NoAssociatedUri => "no-associated-uri",
            Self::HeaderLeaked(_) => "header-leaked",
            Self::WrongRspauth => "wrong-rspauth",
            Self::NotOurContact(_) => "not-our-contact",
            Self::RouteLeft => "route-left",
            Self::ViaLeft => "via-left",
            Self::ViaNotProtected(_) => "via-not-protected",
            Self::NoCalledParty => "no-called-party",
            Self::WrongCalledParty(_) => "wrong-called-party",
            Self::NoRecordRoute => "no-record-route",
            Self::RecordRouteNotProtected(_) => "record-route-not-protected",
            Self::IdentityDespitePrivacy => "identity-despite-privacy",
            Self::BodyAltered => "body-altered",
            Self::OtherRequest => "other-request",
            Self::NoToTag => "no-to-tag",
            Self::ToTagChanged => "to-tag-changed",
            Self::NoContact => "no-contact",
            Self::BadAnswer => "bad-answer",
            Self::Merged => "merged",
            Self::BadOffer => "bad-offer",
            Self::BadRegInfo => "bad-reg-info",
            Self::NotInRegInfo => "not-in-reg-info",
        }
    }
}

/// Why a registration attempt ended without success.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Failure {
    #[error("the network answered {status} {reason}")]
    Refused {
        status: u16,
        reason: String,
        /// Seconds, as Retry-After says.
        retry_after: Option<u32>,
    },
    #[error("no answer came (RFC 3261 timer F)")]
    Timeout,
    #[error("the request could not be sent: {0}")]
    Transport(String),
    #[error("{0}")]
    Fault(Fault),
    #[error("the password was refused: the network challenges again, and not because the nonce was too old")]
    PasswordRefused,
    #[error("challenged {0} times in one attempt (TS 24.229 5.1.1.5.12)")]
    TooManyChallenges(u32),
    #[error("security associations could not be set up here: {0}")]
    Sa(SaError),
    #[error("the kernel did not say whether the security associations are up")]
    SaSilent,
    #[error("all security association sets are in use")]
    NoFreeSet,
}

impl Failure {
    /// Nobody answered: the P-CSCF is gone, or out of reach.
    pub fn is_silence(&self) -> bool {
        matches!(self, Self::Timeout | Self::Transport(_))
    }

    /// The cause it is counted under.
    pub fn name(&self) -> String {
        match self {
            Self::Refused { status, .. } => format!("status-{status}"),
            Self::Timeout => "timeout".into(),
            Self::Transport(_) => "transport".into(),
            Self::Fault(fault) => format!("fault-{}", fault.name()),
            Self::PasswordRefused => "password-refused".into(),
            Self::TooManyChallenges(_) => "too-many-challenges".into(),
            Self::Sa(_) => "sa-refused".into(),
            Self::SaSilent => "sa-silent".into(),
            Self::NoFreeSet => "no-free-sa-set".into(),
        }
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<ClientFailure> for Failure {
    fn from(cause: ClientFailure) -> Self {
        match cause {
            ClientFailure::Timeout => Self::Timeout,
            other => Self::Transport(format!("{other:?}")),
        }
    }
}
