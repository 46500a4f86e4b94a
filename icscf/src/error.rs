//! What an I-CSCF refuses, and why.

use ims_core::Impu;
use ims_diameter::cx::ResultCode;
use ims_diameter::endpoint::RequestFailure;
use ims_sip::Method;
use ims_sip::endpoint::ClientFailure;
use std::fmt;

/// A request that goes no further. `Display` is one sentence for the operator: what is wrong, and what to do.
#[derive(Clone, PartialEq, Debug)]
pub enum Refusal {
    /// A header that the I-CSCF needs is missing or cannot be read.
    Malformed(String),
    /// It came from an address that is not in `trusted`.
    Untrusted(std::net::IpAddr),
    /// Max-Forwards was 0.
    TooManyHops,
    /// Neither the Authorization header nor To gives a private identity.
    NoPrivateIdentity,
    /// The HSS says no.
    NotAllowed { impu: Impu, result: ResultCode },
    /// The HSS answers with something that cannot be worked with.
    HssAnswer(String),
    /// The HSS does not answer.
    HssSilent(RequestFailure),
    /// The HSS, and every other that could be asked, has too much to do.
    HssBusy,
    /// No configured S-CSCF has the mandatory capabilities of the user.
    NoCapableScscf { mandatory: Vec<u32> },
    /// The S-CSCF of a protected REGISTER, or the last one there was to try, does not answer.
    ScscfSilent { name: String, cause: ClientFailure },
    /// The S-CSCF said that it cannot serve now, and there is no other.
    ScscfUnavailable { name: String, status: u16 },
    /// As much is on its way as the limit allows.
    Full,
    /// The HSS knows nobody, and no service, of this identity.
    NoSuchUser { impu: Impu },
    /// A user who is not registered, and has no services then.
    NotRegistered { impu: Impu },
    /// The Request-URI is in a domain that is not one of `domains`.
    NotOurs { domain: String },
    /// The Request-URI is of a kind that says nothing about users of ours.
    UriScheme { uri: String },
    /// A request within a dialog that names no way on from here.
    NoDialog,
    /// The `orig` parameter, from an address that is not in `trusted`.
    OrigUntrusted(std::net::IpAddr),
    /// The `orig` parameter, and nobody on whose behalf.
    NoServedUser,
}

impl Refusal {
    /// TS 24.229 5.3.1.3 for a REGISTER and 5.3.2 for all else, where it says. A caller is told whether it is about the
    /// called user (4xx) or about us (5xx): 480 would sound as if the user were away.
    pub fn status(&self, method: Method<'_>) -> u16 {
        let by_method = |register, other| if method == Method::Register { register } else { other };
        match self {
            Self::Malformed(_) | Self::NoServedUser => 400,
            Self::Untrusted(_) | Self::NotAllowed { .. } | Self::NoPrivateIdentity => 403,
            Self::NotOurs { .. } | Self::OrigUntrusted(_) => 403,
            Self::NoSuchUser { .. } => 404,
            Self::UriScheme { .. } => 416,
            Self::NotRegistered { .. } | Self::ScscfUnavailable { .. } => 480,
            Self::HssAnswer(_) | Self::HssBusy => by_method(480, 500),
            Self::HssSilent(_) => by_method(480, 504),
            Self::NoDialog => 481,
            Self::TooManyHops => 483,
            Self::Full => 503,
            Self::ScscfSilent { .. } => 504,
            // Of a call, 600 would say that the user is busy everywhere.
            Self::NoCapableScscf { .. } => by_method(600, 500),
        }
    }

    /// The counter in the snapshot.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::Untrusted(_) => "untrusted",
            Self::TooManyHops => "too-many-hops",
            Self::NoPrivateIdentity => "no-private-identity",
            Self::NotAllowed { result: ResultCode::USER_UNKNOWN, .. } => "user-unknown",
            Self::NotAllowed { result: ResultCode::IDENTITIES_DONT_MATCH, .. } => "identities-dont-match",
            Self::NotAllowed { result: ResultCode::ROAMING_NOT_ALLOWED, .. } => "roaming-not-allowed",
            Self::NotAllowed { .. } => "not-allowed",
            Self::HssAnswer(_) => "hss-answer",
            Self::HssSilent(_) => "hss-silent",
            Self::HssBusy => "hss-busy",
            Self::NoCapableScscf { .. } => "no-capable-scscf",
            Self::ScscfSilent { .. } => "scscf-silent",
            Self::ScscfUnavailable { .. } => "scscf-unavailable",
            Self::Full => "full",
            Self::NoSuchUser { .. } => "no-such-user",
            Self::NotRegistered { .. } => "not-registered",
            Self::NotOurs { .. } => "not-ours",
            Self::UriScheme { .. } => "uri-scheme",
            Self::NoDialog => "no-dialog",
            Self::OrigUntrusted(_) => "orig-untrusted",
            Self::NoServedUser => "no-served-user",
        }
    }
}

impl Refusal {
    /// It will pass: the UE is asked to come back later, and not at the same moment as all others.
    pub fn passes(&self) -> bool {
        matches!(self, Self::Full | Self::HssBusy | Self::HssSilent(RequestFailure::Busy))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(what) => write!(f, "{what}: the phone or an element before us writes it wrong"),
            Self::Untrusted(ip) => {
                write!(f, "REGISTER from {ip}: if that is a P-CSCF, add its address to `trusted` of the I-CSCF")
            }
            Self::TooManyHops => write!(f, "Max-Forwards is used up: look for a loop in next_hops"),
            Self::NoPrivateIdentity => {
                write!(f, "no private identity: the REGISTER has no user name in Authorization, and To is no SIP URI")
            }
            Self::NotAllowed { impu, result: ResultCode::USER_UNKNOWN } => {
                write!(f, "the HSS does not know {impu:?}: provision the subscriber (imsbox subscriber add)")
            }
            Self::NotAllowed { impu, result: ResultCode::IDENTITIES_DONT_MATCH } => write!(
                f,
                "the HSS knows {impu:?}, but not as one of this private identity: compare IMPI and IMPUs of the subscriber"
            ),
            Self::NotAllowed { impu, result: ResultCode::ROAMING_NOT_ALLOWED } => {
                write!(
                    f,
                    "{impu:?} may not register from this visited network: change its roaming permission in the HSS"
                )
            }
            Self::NotAllowed { impu, result: ResultCode::IDENTITY_NOT_REGISTERED } => {
                write!(f, "{impu:?} wants to de-register, but the HSS has no registration of it: nothing to do")
            }
            Self::NotAllowed { impu, result } => {
                write!(
                    f,
                    "the HSS does not let {impu:?} register ({result:?}): look whether all its identities are barred"
                )
            }
            Self::HssAnswer(what) => write!(f, "the HSS gave an answer that is of no use: {what}"),
            Self::HssSilent(cause) => {
                write!(f, "no answer from the HSS ({cause}): check that it runs and that [diameter] peers names it")
            }
            Self::HssBusy => {
                write!(f, "the HSS has too much to do (DIAMETER_TOO_BUSY): look at its store and at its load")
            }
            Self::NoCapableScscf { mandatory } => write!(
                f,
                "no S-CSCF has the mandatory capabilities {mandatory:?}, or all of them were tried: add it to [[scscf]]"
            ),
            Self::ScscfSilent { name, cause } => {
                write!(f, "{name} does not answer ({cause:?}): check that it runs and that next_hops has its host")
            }
            Self::ScscfUnavailable { name, status } => {
                write!(f, "{name} answered {status}, and there is no other S-CSCF in [[scscf]] to go to")
            }
            Self::Full => write!(f, "too many requests are on their way: raise limits.max_pending or add an I-CSCF"),
            Self::NoSuchUser { impu } => {
                write!(f, "the HSS knows no user and no service {impu:?}: provision it, or look where it was dialled")
            }
            Self::NotRegistered { impu } => {
                write!(f, "{impu:?} is not registered and has no services for that: nothing to do")
            }
            Self::NotOurs { domain } => write!(
                f,
                "a request for {domain:?}: add it to `domains` of the I-CSCF if its users are ours, or see who sent it here"
            ),
            Self::UriScheme { uri } => {
                write!(f, "Request-URI {uri:?}: only SIP and tel URIs name users; see why it was routed to the I-CSCF")
            }
            Self::NoDialog => {
                write!(f, "a request within a dialog ends here: an element before or behind us lost its Route headers")
            }
            Self::OrigUntrusted(ip) => write!(
                f,
                "{ip} wants to originate on a user's behalf: if it is an application server, add it to `trusted`"
            ),
            Self::NoServedUser => write!(
                f,
                "an application server originates without P-Served-User or P-Asserted-Identity: have it name the user"
            ),
        }
    }
}

impl std::error::Error for Refusal {}
