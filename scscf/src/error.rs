//! What an S-CSCF refuses, and why.

use ims_core::{Impi, Impu};
use ims_diameter::cx::ResultCode;
use ims_diameter::endpoint::RequestFailure;
use ims_sip::DialogError;
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
    IntervalTooBrief {
        least: u32,
    },
    /// More bindings than allowed.
    TooManyBindings {
        impu: Impu,
    },
    /// CSeq is not above the one that made the binding.
    OutOfOrder,
    /// The HSS says no.
    NotAllowed {
        command: &'static str,
        impu: Impu,
        result: ResultCode,
    },
    /// The HSS cannot do it now, or its answer cannot be worked with.
    HssAnswer {
        command: &'static str,
        what: String,
    },
    /// The HSS, and every other that could be asked, has too much to do.
    HssBusy {
        command: &'static str,
    },
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
    /// SUBSCRIBE to the registration state of a user who has none.
    NotRegistered {
        impu: Impu,
    },
    /// SUBSCRIBE by somebody who is neither the user, nor its P-CSCF, nor an application server of it.
    MayNotSubscribe {
        impu: Impu,
    },
    /// SUBSCRIBE for another event package than reg.
    BadEvent {
        package: String,
    },
    /// The subscriber does not take the only form in which registrations are told.
    NotAcceptable,
    /// SUBSCRIBE in a dialog that is not there (any more).
    NoSubscription,
    /// A request that no dialog can be made of, or that is out of order in one.
    Dialog(DialogError),
    /// Max-Forwards is used up.
    TooManyHops,
    /// A request in a dialog that we are not on the path of.
    NoDialog,
    /// The original dialog identifier of a request that has its answer already.
    ChainGone,
    /// Nobody vouches for who sends the request.
    NoCaller,
    /// A UE sends a request by its Service-Route and is not registered here any more.
    CallerNotRegistered(Impu),
    /// The served user may not use this identity for sessions.
    BarredCaller(Impu),
    BarredCallee(Impu),
    /// The user asks for a communication service that sessions.services does not have.
    ServiceNotAllowed(String),
    /// The Request-URI names nobody who could be served.
    NoUser,
    /// The HSS does not know who is called.
    UnknownUser(Impu),
    /// The user has no contact, and no service took the request.
    NotReachable(Impu),
    /// The caller wants other devices than the user has.
    NoContactWanted(Impu),
    /// A session timer shorter than allowed, in seconds.
    SessionTooBrief {
        least: u32,
    },
    /// Max-Breadth is used up.
    TooBroad,
    /// The application server of a criterion is no SIP URI.
    NoServer(String),
    /// An application server says nothing, and the criterion wants it.
    ServerSilent(String),
    /// There is no way to what the Request-URI names.
    NoRoute(String),
    /// None of the trunks of a route answers.
    TrunksDown,
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
            | Self::AllBarred(_)
            | Self::NoCaller
            | Self::BarredCaller(_)
            | Self::ServiceNotAllowed(_)
            | Self::MayNotSubscribe { .. } => 403,
            Self::BarredCallee(_) | Self::NoUser | Self::UnknownUser(_) | Self::NoRoute(_) => 404,
            Self::NotAcceptable => 406,
            Self::ServerSilent(_) => 408,
            Self::BadExtension(_) => 420,
            Self::IntervalTooBrief { .. } => 423,
            Self::NotReachable(_) | Self::NoContactWanted(_) | Self::NotRegistered { .. } => 480,
            Self::NoDialog | Self::ChainGone | Self::NoSubscription => 481,
            Self::SessionTooBrief { .. } => 422,
            Self::TooBroad => 440,
            Self::TooManyHops => 483,
            Self::BadEvent { .. } => 489,
            Self::Dialog(error) => error.status(),
            // Not 480 or 503: the I-CSCF would go to another S-CSCF, which would ask the same HSS (TS 24.229 5.3.1.3).
            Self::OutOfOrder | Self::HssAnswer { .. } | Self::HssBusy { .. } | Self::NoServer(_) | Self::TrunksDown => {
                500
            }
            Self::Full(_) => 503,
            Self::HssSilent(_) | Self::CallerNotRegistered(_) => 504,
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
            Self::NotRegistered { .. } => "not-registered",
            Self::MayNotSubscribe { .. } => "may-not-subscribe",
            Self::BadEvent { .. } => "bad-event",
            Self::NotAcceptable => "not-acceptable",
            Self::NoSubscription => "no-subscription",
            Self::Dialog(_) => "dialog",
            Self::TooManyHops => "too-many-hops",
            Self::NoDialog => "no-dialog",
            Self::ChainGone => "chain-gone",
            Self::NoCaller => "no-caller",
            Self::CallerNotRegistered(_) => "caller-not-registered",
            Self::BarredCaller(_) => "barred-caller",
            Self::BarredCallee(_) => "barred-callee",
            Self::ServiceNotAllowed(_) => "service-not-allowed",
            Self::NoUser => "no-user",
            Self::UnknownUser(_) => "unknown-user",
            Self::NotReachable(_) => "not-reachable",
            Self::NoContactWanted(_) => "no-contact-wanted",
            Self::SessionTooBrief { .. } => "session-too-brief",
            Self::TooBroad => "too-broad",
            Self::NoServer(_) => "no-server",
            Self::ServerSilent(_) => "server-silent",
            Self::NoRoute(_) => "no-route",
            Self::TrunksDown => "trunks-down",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(what) => write!(f, "{what}: the phone or an element before us writes it wrong"),
            Self::BadExtension(tags) => {
                write!(f, "the request requires {tags:?}, which we do not have and nobody took out on the way")
            }
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
            Self::TooManyHops => write!(f, "Max-Forwards is used up: look for a routing loop"),
            Self::NoDialog => {
                write!(f, "a request in a dialog has no Route of ours: the other end does not keep to the route set")
            }
            Self::ChainGone => write!(
                f,
                "an application server goes on with a request that has its answer already: it is too slow, or wants a request of its own (parameter orig)"
            ),
            Self::NoCaller => write!(
                f,
                "the request has neither P-Asserted-Identity nor P-Served-User with a SIP or tel URI: the P-CSCF or the application server before us has to set one"
            ),
            Self::CallerNotRegistered(impu) => {
                write!(f, "{impu:?} sends a request and is not registered here: its phone is told to register again")
            }
            Self::BarredCaller(impu) => write!(f, "{impu:?} is barred and calls: unbar it in the HSS if it may"),
            Self::BarredCallee(impu) => write!(f, "{impu:?} is barred and is called: unbar it in the HSS if it may be"),
            Self::ServiceNotAllowed(service) => {
                write!(f, "P-Preferred-Service asks for {service}, which sessions.services does not have")
            }
            Self::NoUser => write!(f, "the Request-URI names nobody: what sent it here has to name a user"),
            Self::UnknownUser(impu) => {
                write!(f, "the HSS does not know {impu:?}: provision the subscriber, or look why the call came here")
            }
            Self::NotReachable(impu) => {
                write!(f, "{impu:?} is not registered, and no service of its profile takes the request")
            }
            Self::NoContactWanted(impu) => write!(
                f,
                "no device of {impu:?} is one that the caller wants (Accept-Contact, Reject-Contact): compare with the feature tags in its registration"
            ),
            Self::SessionTooBrief { least } => {
                write!(f, "the caller wants to refresh the session more often than every {least} s (sessions.min_se)")
            }
            Self::TooBroad => write!(f, "Max-Breadth is used up: look for a loop through several forks"),
            Self::NoServer(server) => {
                write!(
                    f,
                    "the application server {server:?} is no SIP URI: correct the criteria of the user in the HSS"
                )
            }
            Self::ServerSilent(server) => write!(
                f,
                "the application server {server} does not answer within timers.as_answer, or goes no further within timers.as_progress: check that it runs and can be reached"
            ),
            Self::NoRoute(uri) if uri.starts_with("tel:") => {
                write!(
                    f,
                    "a number that is nobody's here, and no route leads elsewhere: add one to [[breakout.routes]]"
                )
            }
            Self::NoRoute(uri) => write!(f, "there is no way to a {} URI", uri.split(':').next().unwrap_or_default()),
            Self::TrunksDown => {
                write!(
                    f,
                    "no trunk of the route answers: look at them (imsbox status), or add one to [[breakout.routes]]"
                )
            }
            Self::NotRegistered { impu } => {
                write!(f, "{impu:?} is not registered here: there is nothing to subscribe to")
            }
            Self::MayNotSubscribe { impu } => write!(
                f,
                "a stranger subscribes to the registration of {impu:?}: if it is an application server, name its host in the initial filter criteria"
            ),
            Self::BadEvent { package } => {
                write!(f, "a subscription to {package:?}, which the S-CSCF does not serve itself: it knows reg alone")
            }
            Self::NotAcceptable => write!(f, "the subscriber does not accept application/reginfo+xml"),
            Self::NoSubscription => {
                write!(f, "a SUBSCRIBE in a dialog that has ended or never was: the subscriber begins anew")
            }
            Self::Dialog(error) => write!(f, "{error}: the phone or an element before us writes it wrong"),
        }
    }
}

impl std::error::Error for Refusal {}
