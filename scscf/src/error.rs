//! What an S-CSCF refuses, and why.

use ims_core::{Impi, Impu};
use ims_diameter::cx::ResultCode;
use ims_diameter::endpoint::RequestFailure;
use std::fmt;

/// A request that goes no further. `Display` is one sentence for the operator: what is wrong, and what to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// A header that the S-CSCF needs is missing or cannot be read.
    Malformed(String),
    /// An extension is required that is not known here.
    BadExtension(Vec<String>),
    /// Neither the Authorization header nor To gives a private identity.
    NoPrivateIdentity,
    /// A binding shorter than allowed, in seconds.
    IntervalTooBrief { least: u32 },
    /// More bindings than allowed.
    TooManyBindings { impu: Impu },
    /// CSeq is not above the one that made the binding.
    OutOfOrder,
    /// The HSS says no.
    NotAllowed { command: &'static str, impu: Impu, result: ResultCode },
    /// The HSS cannot do it now, or its answer cannot be worked with.
    HssAnswer { command: &'static str, what: String },
    /// The HSS, and every other that could be asked, has too much to do.
    HssBusy { command: &'static str },
    /// The HSS does not answer.
    HssSilent(RequestFailure),
    /// The UE says that the network's MAC is wrong.
    MacFailure(Impi),
    /// The UE's RES is wrong.
    WrongResponse(Impi),
    /// The password is wrong.
    WrongPassword(Impi),
    /// A UE without IPsec answers the challenge, and may not.
    Unprotected(Impi),
    /// The sequence number was brought into step, and the UE still says that it is not.
    OutOfStep(Impi),
    /// Every identity of the set is barred.
    AllBarred(Impu),
    /// A limit of the configuration is reached.
    Full(&'static str),
    /// A method that this release does not carry yet.
    NotYet { method: String },
}

impl Refusal {
    pub fn status(&self) -> u16 {
        match self {
            Self::Malformed(_) => 400,
            Self::NoPrivateIdentity
            | Self::TooManyBindings { .. }
            | Self::NotAllowed { .. }
            | Self::MacFailure(_)
            | Self::WrongResponse(_)
            | Self::WrongPassword(_)
            | Self::Unprotected(_)
            | Self::OutOfStep(_)
            | Self::AllBarred(_) => 403,
            Self::BadExtension(_) => 420,
            Self::IntervalTooBrief { .. } => 423,
            // Not 480 or 503: the I-CSCF would go to another S-CSCF, which would ask the same HSS (TS 24.229 5.3.1.3).
            Self::OutOfOrder | Self::HssAnswer { .. } | Self::HssBusy { .. } => 500,
            Self::NotYet { .. } => 501,
            Self::Full(_) => 503,
            Self::HssSilent(_) => 504,
        }
    }

    /// The counter in the snapshot.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::BadExtension(_) => "bad-extension",
            Self::NoPrivateIdentity => "no-private-identity",
            Self::IntervalTooBrief { .. } => "interval-too-brief",
            Self::TooManyBindings { .. } => "too-many-bindings",
            Self::OutOfOrder => "out-of-order",
            Self::NotAllowed { result: ResultCode::USER_UNKNOWN, .. } => "user-unknown",
            Self::NotAllowed { result: ResultCode::IDENTITIES_DONT_MATCH, .. } => "identities-dont-match",
            Self::NotAllowed { result: ResultCode::AUTH_SCHEME_NOT_SUPPORTED, .. } => "scheme-not-supported",
            Self::NotAllowed { .. } => "not-allowed",
            Self::HssAnswer { .. } => "hss-answer",
            Self::HssSilent(_) => "hss-silent",
            Self::HssBusy { .. } => "hss-busy",
            Self::MacFailure(_) => "mac-failure",
            Self::WrongResponse(_) => "wrong-response",
            Self::WrongPassword(_) => "wrong-password",
            Self::Unprotected(_) => "unprotected",
            Self::OutOfStep(_) => "out-of-step",
            Self::AllBarred(_) => "all-barred",
            Self::Full(_) => "full",
            Self::NotYet { .. } => "not-yet",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(what) => write!(f, "{what}: the phone or an element before us writes it wrong"),
            Self::BadExtension(tags) => write!(f, "the REGISTER requires {tags:?}, which nobody took out on the way"),
            Self::NoPrivateIdentity => write!(
                f,
                "no private identity: the REGISTER has no user name in Authorization, and To is no SIP URI or registration.derive_private_identity is off"
            ),
            Self::IntervalTooBrief { least } => write!(f, "the phone wants to register for less than {least} s"),
            Self::TooManyBindings { impu } => {
                write!(
                    f,
                    "{impu:?} has as many contacts as registration.max_contacts allows: raise it, or look for a phone that never de-registers"
                )
            }
            Self::OutOfOrder => write!(f, "an older REGISTER arrived after a newer one of the same call"),
            Self::NotAllowed { command, impu, result: ResultCode::USER_UNKNOWN } => {
                write!(f, "{command}: the HSS does not know {impu:?}: provision the subscriber (imsbox subscriber add)")
            }
            Self::NotAllowed { command, impu, result: ResultCode::IDENTITIES_DONT_MATCH } => write!(
                f,
                "{command}: {impu:?} is not one of this private identity: compare IMPI and IMPUs of the subscriber"
            ),
            Self::NotAllowed { command, impu, result: ResultCode::AUTH_SCHEME_NOT_SUPPORTED } => write!(
                f,
                "{command}: the phone of {impu:?} registers with a SIM and the HSS has a password for it, or the other way round: provision what the phone has"
            ),
            Self::NotAllowed { command, impu, result } => {
                write!(f, "{command}: the HSS refuses {impu:?} with {result:?}: look at the subscriber in the HSS")
            }
            Self::HssAnswer { command, what } => write!(f, "{command}: the answer of the HSS is of no use: {what}"),
            Self::HssBusy { command } => write!(
                f,
                "{command}: the HSS has too much to do (DIAMETER_TOO_BUSY): look at its store and at its load"
            ),
            Self::HssSilent(cause) => {
                write!(f, "no answer from the HSS ({cause}): check that it runs and that [diameter] peers names it")
            }
            Self::MacFailure(impi) => write!(
                f,
                "{impi:?} finds our authentication token wrong (MAC failure): the key differs: compare K and OP or OPc of the subscriber with the SIM"
            ),
            Self::WrongResponse(impi) => write!(
                f,
                "{impi:?} answered the challenge wrongly (RES differs): compare K, OP or OPc and the algorithm of the subscriber with the SIM"
            ),
            Self::WrongPassword(impi) => write!(
                f,
                "{impi:?} answered the challenge with another password: compare password, user name (the IMPI) and realm of the softphone with the subscriber"
            ),
            Self::Unprotected(impi) => {
                write!(f, "{impi:?} answered the challenge outside IPsec, and registration.accept_unprotected is off")
            }
            Self::OutOfStep(impi) => write!(
                f,
                "{impi:?} reports a sequence number failure again after it was brought into step: another AuC uses the same SIM; give each its own IND"
            ),
            Self::AllBarred(impu) => {
                write!(f, "every identity registered with {impu:?} is barred: unbar one in the HSS")
            }
            Self::Full(limit) => write!(f, "{limit} is reached: raise it or add an S-CSCF"),
            Self::NotYet { method } => write!(f, "{method}: sessions: not yet served by this release"),
        }
    }
}

impl std::error::Error for Refusal {}
