//! Via (RFC 3261 20.42, RFC 3581, RFC 5118 4.5).

use super::{Params, TypedHeader, error, head_and_params, list};
use crate::Name;
use crate::message::HeaderError;
use ims_core::uri;
use std::fmt;
use std::net::IpAddr;

/// `Via: SIP/2.0/UDP host:port;branch=...;rport;received=...`
#[derive(Clone, Debug)]
pub struct Via<'a> {
    pub transport: &'a str,
    pub host: &'a str,
    pub port: Option<u16>,
    pub params: Params<'a>,
}

impl<'a> Via<'a> {
    pub fn branch(&self) -> Option<&'a str> {
        self.params.value("branch")
    }

    /// `received` with or without brackets around an IPv6 address (RFC 5118 4.5).
    pub fn received(&self) -> Option<IpAddr> {
        self.params.value("received").and_then(uri::parse_ip)
    }

    /// `Some(None)` asks for it (RFC 3581 3); `Some(Some(..))` gives it.
    pub fn rport(&self) -> Option<Option<u16>> {
        self.params.get("rport").map(|v| v.and_then(|v| v.parse().ok()))
    }

    /// Host and port as written, the port only when it is there.
    pub fn sent_by(&self) -> String {
        self.port.map_or_else(|| self.host.to_owned(), |port| format!("{}:{port}", self.host))
    }
}

impl<'a> TypedHeader<'a> for Via<'a> {
    const NAME: Name = Name::Via;
    const LIST: bool = true;

    fn parse_value(value: &'a str) -> Result<Self, HeaderError> {
        let (head, params) = head_and_params::<Self>(value)?;
        let (transport, sent_by) = sent_protocol(head).ok_or(error::<Self>("does not begin with SIP/2.0/transport"))?;
        let (host, port) = match uri::split_hostport(sent_by) {
            Ok(parts) => parts,
            Err(_) => spaced_hostport(sent_by).ok_or(error::<Self>("has a malformed host or port"))?,
        };
        Ok(Self { transport, host, port, params })
    }
}

/// `SIP / 2.0 / UDP host`: blanks may stand around the slashes.
fn sent_protocol(head: &str) -> Option<(&str, &str)> {
    // As nearly everybody writes it.
    if let Some(rest) = head.strip_prefix("SIP/2.0/")
        && let Some(blank) = rest.bytes().position(|b| b == b' ')
        && let (transport, sent_by) = rest.split_at(blank)
        && list::is_token_text(transport)
    {
        return Some((transport, list::trim_start_str(sent_by)));
    }
    let (protocol, rest) = head.split_once('/')?;
    let (version, rest) = rest.split_once('/')?;
    let (transport, sent_by) = rest.trim_start_matches(list::BLANKS).split_once(list::BLANKS)?;
    let good = list::trim_str(protocol).eq_ignore_ascii_case("SIP") && list::trim_str(version) == "2.0";
    (good && list::is_token_text(transport)).then(|| (transport, list::trim_str(sent_by)))
}

/// `host : port`, blanks around the colon.
fn spaced_hostport(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = text.rsplit_once(':')?;
    let (host, port) = (list::trim_str(host), list::trim_str(port));
    match uri::split_hostport(host) {
        Ok((host, None)) if port.bytes().all(|b| b.is_ascii_digit()) => {
            Some((host, Some(port.parse().ok().filter(|p| *p > 0)?)))
        }
        _ => None,
    }
}

impl fmt::Display for Via<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SIP/2.0/{} {}", self.transport, self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        write!(f, "{}", self.params)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_via() {
        let via =
            Via::parse_value("SIP/2.0/UDP [2001:db8::9]:5062;branch=z9hG4bKx;rport;received=2001:db8::9").unwrap();
        assert_eq!((via.transport, via.host, via.port), ("UDP", "[2001:db8::9]", Some(5062)));
        assert_eq!((via.branch(), via.rport()), (Some("z9hG4bKx"), Some(None)));
        assert_eq!(via.received(), Some("2001:db8::9".parse().unwrap()));
        assert_eq!(via.to_string(), "SIP/2.0/UDP [2001:db8::9]:5062;branch=z9hG4bKx;rport;received=2001:db8::9");
    }

    #[test]
    fn blanks_and_folding_are_allowed() {
        let via = Via::parse_value("SIP  /   2.0\r\n /UDP\r\n    192.0.2.2 : 5061;branch=390skdjuw").unwrap();
        assert_eq!(
            (via.transport, via.host, via.port, via.branch()),
            ("UDP", "192.0.2.2", Some(5061), Some("390skdjuw"))
        );
        assert_eq!(via.sent_by(), "192.0.2.2:5061");
    }

    #[test]
    fn broken_vias_are_refused() {
        for text in [
            "",
            "SIP/2.0/UDP",
            "SIP/2.0/UDP 192.0.2.15;;,;,,",
            "SIP/3.0/UDP a",
            "HTTP/2.0/UDP a",
            "SIP/2.0/UDP a:99999",
            "SIP/2.0/U@P a",
        ] {
            assert!(Via::parse_value(text).is_err(), "{text}");
        }
    }
}
