//! Typed headers: one file per family, each with parse, print (`Display`) and tests. Views borrow from the message.

mod addr;
mod auth;
mod event;
mod identity;
pub(crate) mod list;
mod network;
mod params;
mod security;
mod session;
mod simple;
mod via;

pub use addr::{
    Contact, From, NameAddr, PAssertedIdentity, PAssociatedUri, PCalledPartyId, PPreferredIdentity, PServedUser, Path,
    RecordRoute, ReferTo, ReferredBy, ReplyTo, Route, ServiceRoute, To, q_value,
};
pub use auth::{
    AuthParams, AuthenticationInfo, Authorization, ProxyAuthenticate, ProxyAuthorization, WwwAuthenticate, pieces,
};
pub use event::{Event, SubscriptionState};
pub use identity::{HistoryInfo, OF_THE_NETWORK, Privacy};
pub use list::{quote, split};
pub use network::{PAccessNetworkInfo, PChargingFunctionAddresses, PChargingVector, PVisitedNetworkId};
pub use params::Params;
pub use security::{SecMechanism, SecurityClient, SecurityServer, SecurityVerify};
pub use session::{ContentType, MinSe, RAck, Reason, RetryAfter, SessionExpires, Warning};
pub use simple::{CSeq, CallId, ContentLength, Expires, MaxForwards, MinExpires, RSeq};
pub use via::Via;

use crate::Name;
use crate::message::HeaderError;

pub trait TypedHeader<'a>: Sized {
    const NAME: Name;
    /// Whether several values may stand on one line, separated by commas.
    const LIST: bool;
    /// One value (comma lists are split before).
    fn parse_value(value: &'a str) -> Result<Self, HeaderError>;
    /// One value as it is on the wire. Only headers with a display name can make sense of what is not UTF-8.
    fn parse_bytes(value: &'a [u8]) -> Result<Self, HeaderError> {
        match std::str::from_utf8(value) {
            Ok(text) => Self::parse_value(text),
            Err(_) => Err(error::<Self>("is not UTF-8")),
        }
    }
}

fn error<'a, H: TypedHeader<'a>>(reason: &'static str) -> HeaderError {
    HeaderError { name: H::NAME.as_str(), reason }
}

/// The head of a value before its parameters, and the parameters, checked.
fn head_and_params<'a, H: TypedHeader<'a>>(value: &'a str) -> Result<(&'a str, Params<'a>), HeaderError> {
    let bytes = value.as_bytes();
    let mut at = memchr::memchr(b';', bytes).unwrap_or(value.len());
    // Only a quoted string or <...> can hide a semicolon.
    if memchr::memchr2(b'"', b'<', bytes.get(..at).unwrap_or_default()).is_some() {
        at = list::find_outside(bytes, b';', true).unwrap_or(value.len());
    }
    let (head, params) = value.split_at(at);
    let params = Params::checked(params).map_err(error::<H>)?;
    let head = list::trim_str(head);
    if head.is_empty() { Err(error::<H>("is empty")) } else { Ok((head, params)) }
}
