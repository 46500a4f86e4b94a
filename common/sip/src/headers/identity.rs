//! Privacy (RFC 3323, RFC 3325), History-Info (RFC 7044), and what only the network says of a user.

use super::{NameAddr, TypedHeader, error, list};
use crate::Name;
use crate::message::HeaderError;
use std::fmt;

/// What only elements of the trust domain say of a user (TS 24.229 4.4): it counts for nothing when it comes from elsewhere, and is
/// not for others.
pub const OF_THE_NETWORK: [Name; 8] = [
    Name::PAssertedIdentity,
    Name::PAccessNetworkInfo,
    Name::PChargingVector,
    Name::PChargingFunctionAddresses,
    Name::PProfileKey,
    Name::PUserDatabase,
    Name::PServedUser,
    Name::PAssertedService,
];

/// `id;header;user;critical`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Privacy<'a>(pub &'a str);

impl<'a> Privacy<'a> {
    pub fn values(&self) -> impl Iterator<Item = &'a str> {
        self.0.split([';', ',']).map(list::trim_str).filter(|v| !v.is_empty())
    }

    pub fn has(&self, value: &str) -> bool {
        self.values().any(|v| v.eq_ignore_ascii_case(value))
    }
}

impl<'a> TypedHeader<'a> for Privacy<'a> {
    const NAME: Name = Name::Privacy;
    const LIST: bool = false;

    fn parse_value(value: &'a str) -> Result<Self, HeaderError> {
        let this = Self(list::trim_str(value));
        let good = this.values().next().is_some() && this.values().all(list::is_token_text);
        if good { Ok(this) } else { Err(error::<Self>("is not a list of privacy types")) }
    }
}

impl fmt::Display for Privacy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// One entry: an address with `index`, `rc`, `mp`, `np`.
#[derive(Clone, Debug)]
pub struct HistoryInfo<'a>(pub NameAddr<'a>);

impl<'a> HistoryInfo<'a> {
    /// `1.2.1`.
    pub fn index(&self) -> Option<&'a str> {
        self.0.params.value("index")
    }
}

impl<'a> TypedHeader<'a> for HistoryInfo<'a> {
    const NAME: Name = Name::HistoryInfo;
    const LIST: bool = true;

    fn parse_value(value: &'a str) -> Result<Self, HeaderError> {
        NameAddr::parse(value).map(Self).map_err(error::<Self>)
    }
}

impl fmt::Display for HistoryInfo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn privacy_values() {
        let p = Privacy::parse_value("id; critical").unwrap();
        assert!(p.has("ID") && p.has("critical") && !p.has("user"));
        assert!(Privacy::parse_value(";").is_err() && Privacy::parse_value("a b").is_err());
    }

    #[test]
    fn history() {
        let h = HistoryInfo::parse_value("<sip:bob@example.com?Reason=SIP%3Bcause%3D302>;index=1.1;rc=1").unwrap();
        assert_eq!((h.index(), h.0.uri), (Some("1.1"), "sip:bob@example.com?Reason=SIP%3Bcause%3D302"));
        assert_eq!(h.to_string(), "<sip:bob@example.com?Reason=SIP%3Bcause%3D302>;index=1.1;rc=1");
    }
}
