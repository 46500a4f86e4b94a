//! What can be wrong with a message, and what a request so broken is answered with.

use crate::Name;
use ims_core::uri::UriError;

/// A malformed message. Those that come out of [`Message::check`](crate::Message::check) stand for messages whose Via,
/// From, To, Call-ID and CSeq may still be good enough to answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ParseError {
    #[error("the packet is empty")]
    Empty,
    #[error("the packet is not SIP: its first line is neither a request line nor a status line")]
    NotSip,
    #[error("malformed: {0}")]
    Malformed(&'static str),
    #[error("the SIP version is not 2.0")]
    Version,
    #[error("the message is larger than {0} bytes")]
    TooLarge(usize),
    #[error("a header line is longer than {0} bytes")]
    LineTooLong(usize),
    #[error("the message has more than {0} header lines")]
    TooManyHeaders(usize),
    #[error("the Request-URI is longer than {0} bytes")]
    UriTooLong(usize),
    #[error("the Request-URI is malformed: {0}")]
    Uri(UriError),
    #[error("Content-Length is not a number")]
    BadContentLength,
    #[error("two Content-Length fields differ")]
    ConflictingContentLength,
    #[error("Content-Length is {announced}, but only {present} bytes follow the header")]
    Truncated { announced: usize, present: usize },
    #[error("{} is missing", .0.as_str())]
    Missing(Name),
    #[error("{} is there more than once", .0.as_str())]
    Repeated(Name),
    #[error("the method of CSeq is not that of the request line")]
    MethodMismatch,
    #[error(transparent)]
    Header(#[from] HeaderError),
}

impl ParseError {
    /// The status of the answer, when the message was a request.
    pub fn status(&self) -> u16 {
        match self {
            Self::Version => 505,
            Self::TooLarge(_) => 513,
            Self::UriTooLong(_) => 414,
            _ => 400,
        }
    }

    /// A short stable name, for counters.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::NotSip => "not_sip",
            Self::Malformed(_) => "malformed",
            Self::Version => "version",
            Self::TooLarge(_) => "too_large",
            Self::LineTooLong(_) => "line_too_long",
            Self::TooManyHeaders(_) => "too_many_headers",
            Self::UriTooLong(_) => "uri_too_long",
            Self::Uri(_) => "request_uri",
            Self::BadContentLength | Self::ConflictingContentLength | Self::Truncated { .. } => "content_length",
            Self::Missing(_) => "header_missing",
            Self::Repeated(_) => "header_repeated",
            Self::MethodMismatch => "method_mismatch",
            Self::Header(_) => "header",
        }
    }
}

/// A typed header could not be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{name}: {reason}")]
pub struct HeaderError {
    pub name: &'static str,
    pub reason: &'static str,
}
