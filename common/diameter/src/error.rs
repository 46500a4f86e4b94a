//! What is wrong with a message, as RFC 6733 7.1 numbers it, and the AVP to blame.

use crate::dict::{self, Def, Kind};
use std::fmt;

/// Result-Code values of RFC 6733 7.1 that this crate sends or looks at.
pub mod result {
    pub const SUCCESS: u32 = 2001;
    pub const LIMITED_SUCCESS: u32 = 2002;
    pub const COMMAND_UNSUPPORTED: u32 = 3001;
    pub const UNABLE_TO_DELIVER: u32 = 3002;
    pub const REALM_NOT_SERVED: u32 = 3003;
    pub const TOO_BUSY: u32 = 3004;
    pub const LOOP_DETECTED: u32 = 3005;
    pub const APPLICATION_UNSUPPORTED: u32 = 3007;
    pub const INVALID_HDR_BITS: u32 = 3008;
    pub const INVALID_AVP_BITS: u32 = 3009;
    pub const UNKNOWN_PEER: u32 = 3010;
    pub const ELECTION_LOST: u32 = 4003;
    pub const AVP_UNSUPPORTED: u32 = 5001;
    pub const INVALID_AVP_VALUE: u32 = 5004;
    pub const MISSING_AVP: u32 = 5005;
    pub const AVP_OCCURS_TOO_MANY_TIMES: u32 = 5009;
    pub const NO_COMMON_APPLICATION: u32 = 5010;
    pub const UNSUPPORTED_VERSION: u32 = 5011;
    pub const UNABLE_TO_COMPLY: u32 = 5012;
    pub const INVALID_AVP_LENGTH: u32 = 5014;
    pub const INVALID_MESSAGE_LENGTH: u32 = 5015;
    pub const NO_COMMON_SECURITY: u32 = 5017;
}

/// The AVP that goes into Failed-AVP (RFC 6733 7.5). Its `Debug` shows the name and the length, never the data.
#[derive(Clone, PartialEq, Eq)]
pub struct FailedAvp {
    pub code: u32,
    pub vendor: u32,
    pub flags: u8,
    pub data: Vec<u8>,
}

impl FailedAvp {
    /// An example of what is missing or too short: the shortest data of its type, all zero (RFC 6733 7.5).
    pub fn example(code: u32, vendor: u32) -> Self {
        let def = dict::find(code, vendor);
        let least = def.map_or(0, |d| d.kind.least_length());
        let flags = if def.is_none_or(|d| d.mandatory) { crate::avp::FLAG_MANDATORY } else { 0 };
        Self { code, vendor, flags, data: vec![0; least] }
    }

    pub fn missing(def: &Def) -> Self {
        Self::example(def.code, def.vendor)
    }
}

impl fmt::Debug for FailedAvp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for FailedAvp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match dict::find(self.code, self.vendor) {
            Some(def) => write!(f, "{}", def.name)?,
            None => write!(f, "AVP {} of vendor {}", self.code, self.vendor)?,
        }
        write!(f, " ({} bytes)", self.data.len())
    }
}

/// Why a message is refused. `result_code` says how the sender of a request is told.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DiameterError {
    #[error("the message is shorter than a Diameter header, or its length field does not fit it")]
    MessageLength,
    #[error("Diameter version {0} is not spoken here, only version 1")]
    Version(u8),
    #[error("the error bit is set in a request")]
    HeaderBits,
    #[error("the length of {0} does not fit: the sender encodes it wrongly")]
    AvpLength(FailedAvp),
    #[error("the value of {0} is not one that the AVP can have")]
    AvpValue(FailedAvp),
    #[error("AVPs are nested too deep in {0}")]
    TooDeep(FailedAvp),
    #[error("the mandatory {0} is missing")]
    Missing(FailedAvp),
    #[error("{0} has the mandatory bit set and is not known here")]
    Unsupported(FailedAvp),
    #[error("{0} occurs more often than once")]
    TooMany(FailedAvp),
    #[error("the command {0} is not supported")]
    Command(u32),
    #[error("the application {0} is not supported")]
    Application(u32),
    #[error("the realm in Destination-Realm is not served here")]
    Realm,
    #[error("the host in Destination-Host is neither this one nor a peer")]
    Host,
    #[error("the request came by here before: our own name is in a Route-Record")]
    Loop,
    #[error("too many requests in progress")]
    TooBusy,
    #[error("the request could not be answered")]
    UnableToComply,
}

impl DiameterError {
    pub fn missing(def: &Def) -> Self {
        Self::Missing(FailedAvp::missing(def))
    }

    /// The Result-Code of the answer (RFC 6733 7.1.3 to 7.1.5).
    pub fn result_code(&self) -> u32 {
        match self {
            Self::MessageLength => result::INVALID_MESSAGE_LENGTH,
            Self::Version(_) => result::UNSUPPORTED_VERSION,
            Self::HeaderBits => result::INVALID_HDR_BITS,
            Self::AvpLength(_) => result::INVALID_AVP_LENGTH,
            Self::AvpValue(_) | Self::TooDeep(_) => result::INVALID_AVP_VALUE,
            Self::Missing(_) => result::MISSING_AVP,
            Self::Unsupported(_) => result::AVP_UNSUPPORTED,
            Self::TooMany(_) => result::AVP_OCCURS_TOO_MANY_TIMES,
            Self::Command(_) => result::COMMAND_UNSUPPORTED,
            Self::Application(_) => result::APPLICATION_UNSUPPORTED,
            Self::Realm => result::REALM_NOT_SERVED,
            Self::Host => result::UNABLE_TO_DELIVER,
            Self::Loop => result::LOOP_DETECTED,
            Self::TooBusy => result::TOO_BUSY,
            Self::UnableToComply => result::UNABLE_TO_COMPLY,
        }
    }

    /// A stable short name for counters.
    pub fn name(&self) -> &'static str {
        match self {
            Self::MessageLength => "message-length",
            Self::Version(_) => "version",
            Self::HeaderBits => "header-bits",
            Self::AvpLength(_) => "avp-length",
            Self::AvpValue(_) => "avp-value",
            Self::TooDeep(_) => "too-deep",
            Self::Missing(_) => "missing-avp",
            Self::Unsupported(_) => "unsupported-avp",
            Self::TooMany(_) => "avp-too-often",
            Self::Command(_) => "command",
            Self::Application(_) => "application",
            Self::Realm => "realm",
            Self::Host => "host",
            Self::Loop => "loop",
            Self::TooBusy => "too-busy",
            Self::UnableToComply => "unable-to-comply",
        }
    }

    pub fn failed_avp(&self) -> Option<&FailedAvp> {
        match self {
            Self::AvpLength(a)
            | Self::AvpValue(a)
            | Self::TooDeep(a)
            | Self::Missing(a)
            | Self::Unsupported(a)
            | Self::TooMany(a) => Some(a),
            _ => None,
        }
    }
}

impl Kind {
    /// The shortest data that an AVP of this type can have.
    pub fn least_length(self) -> usize {
        match self {
            Kind::Unsigned32 | Kind::Enumerated | Kind::Time => 4,
            Kind::Unsigned64 => 8,
            Kind::Address => 6,
            Kind::OctetString | Kind::Utf8String | Kind::Identity | Kind::DiameterUri | Kind::Grouped => 0,
        }
    }
}
