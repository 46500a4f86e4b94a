//! Typed headers: one file per header (family), each with parse, print (`Display`) and tests. Views borrow from the message.
//! SKELETON of the shapes others rely on; the owner adds the rest and may add methods, not remove.

use crate::Name;
use crate::message::HeaderError;

pub trait TypedHeader<'a>: Sized {
    const NAME: Name;
    /// Whether several values may stand on one line, separated by commas.
    const LIST: bool;
    /// One value (comma lists are split before).
    fn parse_value(value: &'a str) -> Result<Self, HeaderError>;
}

/// `;name[=value]` parameters, kept as written, looked up without regard to case; quotes around a value are taken off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Params<'a>(pub &'a str);
impl<'a> Params<'a> {
    pub fn get(&self, _name: &str) -> Option<Option<&'a str>> { todo!() }
    pub fn value(&self, name: &str) -> Option<&'a str> { self.get(name).flatten() }
    pub fn has(&self, name: &str) -> bool { self.get(name).is_some() }
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, Option<&'a str>)> { std::iter::empty() }
}

/// `Via: SIP/2.0/UDP host:port;branch=...;rport;received=...`
#[derive(Clone, Debug)]
pub struct Via<'a> { pub transport: &'a str, pub host: &'a str, pub port: Option<u16>, pub params: Params<'a> }
/// name-addr or addr-spec with header parameters; From, To, Route, ... are newtypes made by a macro: `From<'a>(pub NameAddr<'a>)`.
#[derive(Clone, Debug)]
pub struct NameAddr<'a> { pub display: Option<&'a str>, pub uri: &'a str, pub params: Params<'a> }
// From, To, Route, RecordRoute, Path, ServiceRoute, PAssociatedUri, PAssertedIdentity, PPreferredIdentity, PCalledPartyId, PServedUser: struct X<'a>(pub NameAddr<'a>), Deref to NameAddr. From/To: fn tag().
// NameAddr::parsed_uri() -> Result<Uri<'a>, HeaderError>; NameAddr::tag()
/// Contact: `*` or a name-addr with expires, q.
#[derive(Clone, Debug)]
pub enum Contact<'a> { Star, Addr(NameAddr<'a>) }
#[derive(Clone, Debug)]
pub struct CSeq<'a> { pub number: u32, pub method: crate::Method<'a> }
/// Authorization / Proxy-Authorization (`Digest` scheme parsed; other schemes keep `params` raw).
#[derive(Clone, Debug)]
pub struct Authorization<'a> { pub scheme: &'a str, pub params: AuthParams<'a> }
/// WWW-Authenticate / Proxy-Authenticate.
#[derive(Clone, Debug)]
pub struct WwwAuthenticate<'a> { pub scheme: &'a str, pub params: AuthParams<'a> }
/// Comma-separated `name=value` of digest headers; `get` takes quotes off.
#[derive(Clone, Copy, Debug)]
pub struct AuthParams<'a>(pub &'a str);
impl<'a> AuthParams<'a> { pub fn get(&self, _name: &str) -> Option<std::borrow::Cow<'a, str>> { todo!() } }
/// Security-Client, Security-Server, Security-Verify: one mechanism (RFC 3329 2.2, TS 33.203 Annex H).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SecMechanism { pub mechanism: String, pub q: Option<String>, pub alg: Option<String>, pub ealg: Option<String>, pub prot: Option<String>, pub mode: Option<String>, pub spi_c: Option<u32>, pub spi_s: Option<u32>, pub port_c: Option<u16>, pub port_s: Option<u16>, pub other: Vec<(String, Option<String>)> }
// Display prints it; SecurityClient(SecMechanism), SecurityServer(..), SecurityVerify(..) newtypes implement TypedHeader.
// Others wanted: Expires(u32), MinExpires(u32), MaxForwards(u32), RetryAfter, PVisitedNetworkId, PAccessNetworkInfo, PChargingVector{icid_value, icid_generated_at, orig_ioi, term_ioi, ...}, PChargingFunctionAddresses, Event{package, params}, SubscriptionState, Reason, SessionExpires, RAck, ContentType, AuthenticationInfo, HistoryInfo, ...
