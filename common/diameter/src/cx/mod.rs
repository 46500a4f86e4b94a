//! Cx commands of TS 29.228/29.229, typed, one encoder and decoder for both ends.
//!
//! `to_message` writes what the command says; Session-Id, Origin-* and Destination-* are put in by [`crate::Endpoint`].
//! Absent optional AVPs and AVPs that we do not use (Supported-Features, ...) are tolerated.

mod lir;
mod mar;
mod ppr;
mod rtr;
mod sar;
mod uar;

pub use lir::{Lia, Lir};
pub use mar::{AuthItem, DigestItem, Maa, Mar, SCHEME_AKA, SCHEME_DIGEST, SCHEME_UNKNOWN};
pub use ppr::{Ppa, Ppr};
pub use rtr::{ReasonCode, Rta, Rtr};
pub use sar::{ChargingInformation, Saa, Sar, ServerAssignmentType};
pub use uar::{Uaa, Uar, UserAuthorizationType};

use crate::Message;
use crate::avp::{Avp, Avps, Writer};
use crate::dict::{self, Def, command};
use crate::message::DiameterError;
use ims_core::{Impi, Impu};

pub const APPLICATION: u32 = dict::APPLICATION_CX;
pub const VENDOR_3GPP: u32 = dict::VENDOR_3GPP;
/// Values of Auth-Session-State (RFC 6733 8.11): the server keeps no session.
const NO_STATE_MAINTAINED: u32 = 1;

/// Result-Code or Experimental-Result-Code: never both (TS 29.228 6.1). Two different number spaces, hence two variants.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ResultCode {
    Base(u32),
    Experimental(u32),
}

impl ResultCode {
    pub const SUCCESS: Self = Self::Base(2001);
    pub const UNABLE_TO_COMPLY: Self = Self::Base(5012);
    pub const TOO_BUSY: Self = Self::Base(3004);
    pub const FIRST_REGISTRATION: Self = Self::Experimental(2001);
    pub const SUBSEQUENT_REGISTRATION: Self = Self::Experimental(2002);
    pub const UNREGISTERED_SERVICE: Self = Self::Experimental(2003);
    pub const SUCCESS_SERVER_NAME_NOT_STORED: Self = Self::Experimental(2004);
    pub const USER_UNKNOWN: Self = Self::Experimental(5001);
    pub const IDENTITIES_DONT_MATCH: Self = Self::Experimental(5002);
    pub const IDENTITY_NOT_REGISTERED: Self = Self::Experimental(5003);
    pub const ROAMING_NOT_ALLOWED: Self = Self::Experimental(5004);
    pub const IDENTITY_ALREADY_REGISTERED: Self = Self::Experimental(5005);
    pub const AUTH_SCHEME_NOT_SUPPORTED: Self = Self::Experimental(5006);
    pub const IN_ASSIGNMENT_TYPE: Self = Self::Experimental(5007);
    pub const TOO_MUCH_DATA: Self = Self::Experimental(5008);
    pub const NOT_SUPPORTED_USER_DATA: Self = Self::Experimental(5009);
    pub const FEATURE_UNSUPPORTED: Self = Self::Experimental(5011);

    pub fn is_success(self) -> bool {
        match self {
            Self::Base(c) | Self::Experimental(c) => (2000..3000).contains(&c),
        }
    }

    /// The result in an answer: Experimental-Result of the 3GPP where there is one.
    pub fn from_message(m: &Message) -> Result<Self, DiameterError> {
        let avps = m.avps();
        if let Some(experimental) = avps.first(&dict::EXPERIMENTAL_RESULT) {
            let code = experimental.group()?.required(&dict::EXPERIMENTAL_RESULT_CODE)?;
            return Ok(Self::Experimental(code.u32()?));
        }
        Ok(Self::Base(avps.required(&dict::RESULT_CODE)?.u32()?))
    }

    fn write(self, w: &mut Writer) {
        match self {
            Self::Base(code) => w.u32(&dict::RESULT_CODE, code),
            Self::Experimental(code) => w.group(&dict::EXPERIMENTAL_RESULT, |w| {
                w.u32(&dict::VENDOR_ID, VENDOR_3GPP);
                w.u32(&dict::EXPERIMENTAL_RESULT_CODE, code);
            }),
        }
    }
}

/// What an S-CSCF must or should be able to do, and names of fitting ones (TS 29.229 6.3.4).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ServerCapabilities {
    pub mandatory: Vec<u32>,
    pub optional: Vec<u32>,
    pub server_names: Vec<String>,
}

impl ServerCapabilities {
    fn write(&self, w: &mut Writer) {
        w.group(&dict::SERVER_CAPABILITIES, |w| {
            self.mandatory.iter().for_each(|c| w.u32(&dict::MANDATORY_CAPABILITY, *c));
            self.optional.iter().for_each(|c| w.u32(&dict::OPTIONAL_CAPABILITY, *c));
            self.server_names.iter().for_each(|n| w.utf8(&dict::SERVER_NAME, n));
        });
    }

    fn read(avp: Avp<'_>) -> Result<Self, DiameterError> {
        let members = avp.group()?;
        Ok(Self {
            mandatory: members.all(&dict::MANDATORY_CAPABILITY).map(|a| a.u32()).collect::<Result<_, _>>()?,
            optional: members.all(&dict::OPTIONAL_CAPABILITY).map(|a| a.u32()).collect::<Result<_, _>>()?,
            server_names: members.all(&dict::SERVER_NAME).map(text).collect::<Result<_, _>>()?,
        })
    }
}

/// A request as the HSS (Uar..Lir) or the S-CSCF (Rtr, Ppr) sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    Uar(Uar),
    Mar(Mar),
    Sar(Sar),
    Lir(Lir),
    Rtr(Rtr),
    Ppr(Ppr),
}

impl Request {
    /// Err carries the Result-Code and Failed-AVP for the answer: see [`Message::error_answer`].
    pub fn from_message(m: &Message) -> Result<Self, DiameterError> {
        if m.application() != APPLICATION {
            return Err(DiameterError::Application(m.application()));
        }
        Ok(match m.command() {
            command::USER_AUTHORIZATION => Self::Uar(Uar::from_message(m)?),
            command::SERVER_ASSIGNMENT => Self::Sar(Sar::from_message(m)?),
            command::LOCATION_INFO => Self::Lir(Lir::from_message(m)?),
            command::MULTIMEDIA_AUTH => Self::Mar(Mar::from_message(m)?),
            command::REGISTRATION_TERMINATION => Self::Rtr(Rtr::from_message(m)?),
            command::PUSH_PROFILE => Self::Ppr(Ppr::from_message(m)?),
            other => return Err(DiameterError::Command(other)),
        })
    }

    /// `UAR`, `MAR`, ...
    pub fn name(&self) -> &'static str {
        match self {
            Self::Uar(_) => "UAR",
            Self::Mar(_) => "MAR",
            Self::Sar(_) => "SAR",
            Self::Lir(_) => "LIR",
            Self::Rtr(_) => "RTR",
            Self::Ppr(_) => "PPR",
        }
    }
}

/// What every Cx message carries.
fn write_common(w: &mut Writer) {
    w.group(&dict::VENDOR_SPECIFIC_APPLICATION_ID, |w| {
        w.u32(&dict::VENDOR_ID, VENDOR_3GPP);
        w.u32(&dict::AUTH_APPLICATION_ID, APPLICATION);
    });
    w.u32(&dict::AUTH_SESSION_STATE, NO_STATE_MAINTAINED);
}

fn request(command: u32, write: impl FnOnce(&mut Writer)) -> Message {
    Message::request(command, APPLICATION)
        .with(|w| {
            write_common(w);
            write(w);
        })
        .build()
}

fn answer(request: &Message, result: ResultCode, write: impl FnOnce(&mut Writer)) -> Message {
    request
        .answer_with_result(match result {
            ResultCode::Base(code) => Some(code),
            ResultCode::Experimental(_) => None,
        })
        .with(|w| {
            write_common(w);
            result.write(w);
            write(w);
        })
        .build()
}

/// The AVPs of a successful answer. A refusal carries a result and nothing to rely on.
fn answer_body(m: &Message, result: ResultCode) -> Option<Avps<'_>> {
    (!m.is_error() && result.is_success()).then(|| m.avps())
}

fn text(avp: Avp<'_>) -> Result<String, DiameterError> {
    avp.utf8().map(Into::into)
}

fn optional_text(avps: &Avps<'_>, def: &Def) -> Result<Option<String>, DiameterError> {
    avps.optional(def)?.map(text).transpose()
}

fn impi(avp: Avp<'_>) -> Result<Impi, DiameterError> {
    Impi::parse(avp.utf8()?).map_err(|_| avp.bad_value())
}

fn impu(avp: Avp<'_>) -> Result<Impu, DiameterError> {
    Impu::parse(avp.utf8()?).map_err(|_| avp.bad_value())
}

fn optional_impi(avps: &Avps<'_>) -> Result<Option<Impi>, DiameterError> {
    avps.optional(&dict::USER_NAME)?.map(impi).transpose()
}

fn impus(avps: &Avps<'_>) -> Result<Vec<Impu>, DiameterError> {
    avps.all(&dict::PUBLIC_IDENTITY).map(impu).collect()
}

fn capabilities(avps: &Avps<'_>) -> Result<Option<ServerCapabilities>, DiameterError> {
    avps.optional(&dict::SERVER_CAPABILITIES)?.map(ServerCapabilities::read).transpose()
}

fn number<T: Copy>(avp: Avp<'_>, known: &[T]) -> Result<T, DiameterError> {
    let at = usize::try_from(avp.u32()?).map_err(|_| avp.bad_value())?;
    known.get(at).copied().ok_or_else(|| avp.bad_value())
}

/// Wildcarded-Public-Identity, or Wildcarded-IMPU as older releases name it.
fn wildcarded(avps: &Avps<'_>) -> Result<Option<String>, DiameterError> {
    match optional_text(avps, &dict::WILDCARDED_PUBLIC_IDENTITY)? {
        Some(identity) => Ok(Some(identity)),
        None => optional_text(avps, &dict::WILDCARDED_IMPU),
    }
}
