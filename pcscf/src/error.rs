//! What a P-CSCF refuses, and why.

use crate::emergency::Instead;
use ims_core::Impi;
use ims_core::sa::SaError;
use ims_sip::endpoint::ClientFailure;
use std::fmt;
use std::sync::Arc;

/// A request that goes no further. `Display` is for the operator's log; the UE gets status and reason phrase.
#[derive(Clone, PartialEq, Debug)]
pub enum Refusal {
    /// A header that the P-CSCF needs is missing or cannot be read.
    Malformed(String),
    /// Max-Forwards was 0.
    TooManyHops,
    /// The Request-URI names a home network that is not served here.
    DomainNotServed(String),
    /// Something other than REGISTER from a UE that is not registered.
    RegisterFirst { method: String },
    /// The S-CSCF gave the UE no Service-Route: nobody knows where its requests go.
    NoServiceRoute,
    /// The UE takes another way than its Service-Route or its dialog, and the policy is to refuse that.
    RouteMismatch,
    /// Proxy-Require names what this proxy does not know.
    BadExtension { tags: String },
    /// A request of a UE within a dialog that is not known here, on a way that does not lead to its S-CSCF.
    NoSuchDialog { method: String },
    /// An emergency call that is not taken here, or not so.
    Emergency { instead: Instead, token: Option<Arc<str>> },
    /// Something else than an emergency call with a registration for emergencies.
    NoEmergency,
    /// A REGISTER that came from the side of the core.
    RegisterFromCore,
    /// A request from the core that names no UE of ours.
    NoSuchUe,
    /// A request from the core for a UE that is no longer registered here.
    UeGone { in_dialog: bool },
    /// The UE is registered, but no SA set or connection leads to it any more.
    NoWayToUe,
    /// The UE did not answer.
    UeSilent,
    /// The policy requires sec-agree, and the UE does not know it.
    SecAgreeRequired,
    /// The UE requires sec-agree, but offers no mechanism.
    NoOffer,
    /// Nothing that the UE offers is in our preference.
    NoCommonSuite { offered: String },
    /// The UE offers a suite that would do, with SPIs or ports that cannot be used.
    UnusableOffer,
    /// Security-Verify is missing or not what we sent in Security-Server.
    VerifyMismatch,
    /// Security-Client is not what it was when the UE was challenged.
    ClientMismatch,
    /// A REGISTER over the SA of one private identity names another one.
    OtherIdentity { sa: Impi, named: Impi },
    /// The UE answered our challenge beside the SA that it was given.
    AnsweredInClear,
    /// More identities over one SA set than the limit.
    TooManyIdentities,
    /// A limit of the configuration is reached.
    Full(&'static str),
    /// More begins than can be served: the admission lets no more in now.
    Overload,
    /// No answer from the core.
    Core(ClientFailure),
    /// The core answered with something that cannot be worked with.
    CoreAnswer(String),
    /// The challenge of the S-CSCF brought no CK and IK.
    NoKeys,
    /// The kernel did not install the SA set.
    Kernel(SaError),
    /// The kernel did not answer in time.
    KernelSilent,
    /// Each of the SA sets that a private identity may have (TS 33.203 7.2) carries a registration.
    TooManySets,
    /// No protected client port is free towards this UE.
    NoFreePort,
    /// A later registration attempt took the place of this one.
    Superseded,
}

impl Refusal {
    pub fn status(&self) -> u16 {
        match self {
            Self::Emergency { .. } => 380,
            Self::Malformed(_) | Self::RouteMismatch => 400,
            Self::DomainNotServed(_)
            | Self::RegisterFirst { .. }
            | Self::NoEmergency
            | Self::RegisterFromCore
            | Self::OtherIdentity { .. }
            | Self::AnsweredInClear
            | Self::TooManyIdentities => 403,
            Self::NoSuchUe => 404,
            Self::UeSilent => 408,
            Self::UeGone { in_dialog: false } => 480,
            Self::UeGone { in_dialog: true } | Self::NoSuchDialog { .. } => 481,
            Self::BadExtension { .. } => 420,
            Self::SecAgreeRequired => 421,
            Self::TooManyHops => 483,
            Self::NoOffer
            | Self::NoCommonSuite { .. }
            | Self::UnusableOffer
            | Self::VerifyMismatch
            | Self::ClientMismatch => 494,
            // TS 24.229 5.2.6.4.3 for a UE that cannot be reached.
            Self::NoServiceRoute | Self::NoWayToUe => 500,
            Self::NoKeys | Self::KernelSilent | Self::NoFreePort | Self::Superseded => 500,
            Self::Kernel(SaError::NoEsp | SaError::NotPermitted) => 503,
            Self::Kernel(_) => 500,
            Self::CoreAnswer(_) => 502,
            Self::Full(_) | Self::Overload | Self::TooManySets | Self::Core(ClientFailure::Overloaded) => 503,
            Self::Core(_) => 504,
        }
    }

    /// Under which it is counted.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::TooManyHops => "too-many-hops",
            Self::DomainNotServed(_) => "domain-not-served",
            Self::RegisterFirst { .. } => "register-first",
            Self::NoServiceRoute => "no-service-route",
            Self::RouteMismatch => "route-mismatch",
            Self::NoSuchDialog { .. } => "no-such-dialog",
            Self::BadExtension { .. } => "bad-extension",
            Self::Emergency { .. } => "emergency-elsewhere",
            Self::NoEmergency => "no-emergency",
            Self::RegisterFromCore => "register-from-core",
            Self::NoSuchUe => "no-such-ue",
            Self::UeGone { .. } => "ue-gone",
            Self::NoWayToUe => "no-way-to-ue",
            Self::UeSilent => "ue-silent",
            Self::SecAgreeRequired => "sec-agree-required",
            Self::NoOffer => "no-offer",
            Self::NoCommonSuite { .. } => "no-common-suite",
            Self::UnusableOffer => "unusable-offer",
            Self::VerifyMismatch => "security-verify-mismatch",
            Self::ClientMismatch => "security-client-mismatch",
            Self::OtherIdentity { .. } => "other-identity",
            Self::AnsweredInClear => "answered-in-clear",
            Self::TooManyIdentities => "too-many-identities",
            Self::Full(_) => "full",
            Self::Overload => "overload",
            Self::Core(ClientFailure::Timeout) => "core-timeout",
            Self::Core(ClientFailure::Transport(_)) => "core-transport",
            Self::Core(ClientFailure::NoTarget(_)) => "core-no-target",
            Self::Core(ClientFailure::Overloaded) => "core-overloaded",
            Self::CoreAnswer(_) => "core-answer",
            Self::NoKeys => "no-keys",
            Self::Kernel(SaError::NoEsp) => "kernel-no-esp",
            Self::Kernel(SaError::NotPermitted) => "kernel-not-permitted",
            Self::Kernel(SaError::NoAlgorithm(_)) => "kernel-no-algorithm",
            Self::Kernel(SaError::SpiTaken(_)) => "kernel-spi-taken",
            Self::Kernel(_) => "kernel-error",
            Self::KernelSilent => "kernel-silent",
            Self::TooManySets => "too-many-sa-sets",
            Self::NoFreePort => "no-free-port",
            Self::Superseded => "superseded",
        }
    }

    /// The reason phrase for the UE: nothing about our inside.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "Bad Request",
            Self::TooManyHops => "Too Many Hops",
            Self::DomainNotServed(_) => "Home Network Not Served Here",
            Self::RegisterFirst { .. } => "Register First",
            Self::Emergency { .. } => "Alternative Service",
            Self::NoEmergency => "Emergency Calls Only",
            Self::RegisterFromCore | Self::OtherIdentity { .. } | Self::TooManyIdentities => "Forbidden",
            Self::AnsweredInClear => "Use The Security Association",
            Self::NoSuchUe => "Not Found",
            Self::RouteMismatch => "Route Does Not Match",
            Self::BadExtension { .. } => "Bad Extension",
            Self::UeGone { in_dialog: true } | Self::NoSuchDialog { .. } => "Call/Transaction Does Not Exist",
            Self::UeGone { in_dialog: false } => "Temporarily Unavailable",
            Self::UeSilent => "Request Timeout",
            Self::NoServiceRoute | Self::NoWayToUe => "Server Internal Error",
            Self::SecAgreeRequired => "Extension Required",
            Self::NoOffer
            | Self::NoCommonSuite { .. }
            | Self::UnusableOffer
            | Self::VerifyMismatch
            | Self::ClientMismatch => "Security Agreement Required",
            Self::CoreAnswer(_) => "Bad Gateway",
            Self::Full(_) | Self::Overload | Self::TooManySets | Self::Core(ClientFailure::Overloaded) => {
                "Service Unavailable"
            }
            Self::Kernel(SaError::NoEsp | SaError::NotPermitted) => "Service Unavailable",
            Self::Core(_) => "Server Time-out",
            Self::NoKeys | Self::Kernel(_) | Self::KernelSilent | Self::NoFreePort | Self::Superseded => {
                "Server Internal Error"
            }
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(what) => write!(f, "the request cannot be used: {what}"),
            Self::TooManyHops => f.write_str("Max-Forwards was 0: look for a loop in next_hops"),
            Self::DomainNotServed(domain) => {
                write!(f, "the UE registers with {domain}: add it to home_domains if it should be served here")
            }
            Self::RegisterFirst { method } => write!(f, "{method} from a UE that is not registered here"),
            Self::NoServiceRoute => {
                f.write_str("the S-CSCF gave no Service-Route with its 200: nobody knows where requests of this UE go")
            }
            Self::RouteMismatch => f.write_str(
                "the UE does not follow the route that it was given: route_mismatch = \"replace\" puts it right instead",
            ),
            Self::BadExtension { tags } => write!(f, "Proxy-Require wants {tags}, which no proxy here knows"),
            Self::NoSuchDialog { method } => {
                write!(f, "{method} of a UE within a dialog that is not known here and does not lead to its S-CSCF")
            }
            Self::Emergency { instead: Instead::Elsewhere, .. } => {
                f.write_str("an emergency call: set emergency.route to the URI of an E-CSCF or PSAP if it should be taken here")
            }
            Self::Emergency { instead: Instead::EmergencyRegistration, .. } => {
                f.write_str("an emergency call without an emergency registration: emergency.registered and .unregistered say so")
            }
            Self::NoEmergency => f.write_str("a UE that is registered for emergencies wants something else"),
            Self::RegisterFromCore => f.write_str("a REGISTER came from the core: its next hop should be the I-CSCF"),
            Self::NoSuchUe => f.write_str("the core sent a request that names no UE of ours: look at its Route"),
            Self::UeGone { .. } => f.write_str("the core sent a request for a UE that is not registered here any more"),
            Self::NoWayToUe => f.write_str(
                "a UE is registered but cannot be reached: its SAs or its connection are gone; it has to register again",
            ),
            Self::UeSilent => f.write_str("a UE did not answer a request: out of coverage, or its SAs are gone on its side"),
            Self::SecAgreeRequired => f.write_str(
                "the UE does not offer IPsec: set security.policy = \"allow\" if it may register without, \
                     or write a rule for it in security.rules",
            ),
            Self::NoOffer => f.write_str("the UE requires sec-agree but sent no Security-Client"),
            Self::NoCommonSuite { offered } => {
                write!(f, "the UE offers only {offered}: add one of them to security.preference if you accept it")
            }
            Self::UnusableOffer => f.write_str(
                "the UE offers a suite of ours, but with an SPI below 256, one SPI or port for both directions, or none: \
                 look at its Security-Client",
            ),
            Self::VerifyMismatch => {
                f.write_str("Security-Verify is not what Security-Server said: somebody in between, or a UE at fault")
            }
            Self::ClientMismatch => f.write_str(
                "Security-Client changed after the challenge: somebody in between, or a UE at fault \
                 (security.compare_client = false lets it in)",
            ),
            Self::OtherIdentity { sa, named } => write!(f, "the SA belongs to {sa:?} but the REGISTER names {named:?}"),
            Self::AnsweredInClear => f.write_str("the UE answered the challenge beside the SA that it was given"),
            Self::TooManyIdentities => f.write_str("the UE registers more identities than limits.max_identities"),
            Self::Overload => f.write_str(
                "more begins than can be served: it is let in at the rate of what is (see [overload]); add a P-CSCF, or look what is slow",
            ),
            Self::Full(limit) => write!(f, "limits.{limit} is reached: raise it, or look who sends so many requests"),
            Self::Core(ClientFailure::Timeout) => {
                f.write_str("the core did not answer: is the I-CSCF of next_hops running?")
            }
            Self::Core(ClientFailure::Transport(e)) => write!(f, "the core cannot be reached ({e}): check next_hops"),
            Self::Core(ClientFailure::NoTarget(e)) => {
                write!(f, "the home domain cannot be located ({e}): add it to next_hops or to DNS")
            }
            Self::Core(ClientFailure::Overloaded) => f.write_str("too many transactions: see limits.max_transactions"),
            Self::CoreAnswer(what) => {
                write!(f, "the core answered a REGISTER with what cannot be used: {what}: look at the S-CSCF")
            }
            Self::NoKeys => f.write_str("the 401 of the S-CSCF has no ck and ik: does it know this P-CSCF as trusted?"),
            Self::Kernel(e) => write!(f, "the security associations were not installed: {e}"),
            Self::KernelSilent => f.write_str("the kernel did not answer about security associations in time"),
            Self::TooManySets => f.write_str(
                "the private identity is registered from three UEs at once, and has no SA left for one more: \
                 give each UE its own",
            ),
            Self::NoFreePort => {
                f.write_str("no protected client port is free towards this UE: widen gm.protected_client_ports")
            }
            Self::Superseded => f.write_str("a later registration attempt of the same UE took the place of this one"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_user_only_in_redacted_form() {
        let impi = |s| Impi::parse(s).unwrap();
        let r =
            Refusal::OtherIdentity { sa: impi("001010000000001@a.example"), named: impi("001010000000002@a.example") };
        assert_eq!(r.to_string(), "the SA belongs to …0001@a.example but the REGISTER names …0002@a.example");
        assert_eq!((r.status(), r.name()), (403, "other-identity"));
    }
}
