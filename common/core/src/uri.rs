//! URIs as SIP carries them: `sip`, `sips`, `tel`, `urn`, and any scheme we do not know (RFC 3261 19.1, RFC 3966).
//!
//! A [`Uri`] is a view of the text it was parsed from: nothing is unescaped, nothing is normalised, and the text comes
//! back unchanged.

use std::fmt;
use std::net::IpAddr;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scheme<'a> {
    Sip,
    Sips,
    Tel,
    Urn,
    Other(&'a str),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UriError {
    #[error("the URI has no scheme")]
    NoScheme,
    #[error("the URI has no host")]
    NoHost,
    #[error("the host of the URI is not a name or address")]
    BadHost,
    #[error("the port of the URI is not a number from 1 to 65535")]
    BadPort,
    #[error("the URI has a character that does not belong there")]
    BadCharacter,
    #[error("the telephone number is empty or has other characters than digits")]
    BadNumber,
}

/// A parsed URI. For `sip`/`sips`: `user:password@host:port;params?headers`; for `tel`: the number and its
/// parameters; for anything else only the scheme and the opaque rest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Uri<'a> {
    text: &'a str,
    scheme: Scheme<'a>,
    /// sip: the user without password; tel: the number as written; otherwise the opaque part.
    user: Option<&'a str>,
    host: &'a str,
    port: Option<u16>,
    params: &'a str,
    headers: Option<&'a str>,
}

impl<'a> Uri<'a> {
    pub fn parse(text: &'a str) -> Result<Self, UriError> {
        let (scheme, rest) = text.split_once(':').ok_or(UriError::NoScheme)?;
        let valid = scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
        if !valid || !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return Err(UriError::NoScheme);
        }
        if !rest.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'<' | b'>' | b'"')) {
            return Err(UriError::BadCharacter);
        }
        match scheme {
            s if s.eq_ignore_ascii_case("sip") => Self::parse_sip(text, Scheme::Sip, rest),
            s if s.eq_ignore_ascii_case("sips") => Self::parse_sip(text, Scheme::Sips, rest),
            s if s.eq_ignore_ascii_case("tel") => Self::parse_tel(text, rest),
            s => {
                let scheme = if s.eq_ignore_ascii_case("urn") { Scheme::Urn } else { Scheme::Other(s) };
                Ok(Self { text, scheme, user: Some(rest), host: "", port: None, params: "", headers: None })
            }
        }
    }

    fn parse_sip(text: &'a str, scheme: Scheme<'a>, rest: &'a str) -> Result<Self, UriError> {
        // The user part may hold ; and ? (RFC 3261 25.1 user-unreserved), so the @ is found first.
        let (user, rest) = match rest.split_once('@') {
            Some((userinfo, rest)) => (Some(userinfo.split_once(':').map_or(userinfo, |(u, _)| u)), rest),
            None => (None, rest),
        };
        if user.is_some_and(str::is_empty) || rest.contains('@') {
            return Err(UriError::BadCharacter);
        }
        let (rest, headers) = rest.split_once('?').map_or((rest, None), |(r, h)| (r, Some(h)));
        let (hostport, params) = rest.split_at(rest.find(';').unwrap_or(rest.len()));
        let (host, port) = split_hostport(hostport)?;
        Ok(Self { text, scheme, user, host, port, params: params.strip_prefix(';').unwrap_or(""), headers })
    }

    fn parse_tel(text: &'a str, rest: &'a str) -> Result<Self, UriError> {
        let (number, params) = rest.split_at(rest.find(';').unwrap_or(rest.len()));
        let dial = number.strip_prefix('+').unwrap_or(number);
        let symbol = |b: u8| b.is_ascii_hexdigit() || matches!(b, b'*' | b'#' | b'-' | b'.' | b'(' | b')' | b'%');
        if !dial.bytes().any(|b| b.is_ascii_hexdigit() || matches!(b, b'*' | b'#')) || !dial.bytes().all(symbol) {
            return Err(UriError::BadNumber);
        }
        Ok(Self {
            text,
            scheme: Scheme::Tel,
            user: Some(number),
            host: "",
            port: None,
            params: params.strip_prefix(';').unwrap_or(""),
            headers: None,
        })
    }

    pub fn as_str(&self) -> &'a str {
        self.text
    }

    pub fn scheme(&self) -> Scheme<'a> {
        self.scheme
    }

    pub fn is_sip(&self) -> bool {
        matches!(self.scheme, Scheme::Sip | Scheme::Sips)
    }

    /// sip: the user part, still escaped; tel: the number as written; other schemes: everything behind the colon.
    pub fn user(&self) -> Option<&'a str> {
        self.user
    }

    /// The host as written, IPv6 with its brackets; empty for schemes without one.
    pub fn host(&self) -> &'a str {
        self.host
    }

    /// The host, when it is an address and no name.
    pub fn host_ip(&self) -> Option<IpAddr> {
        parse_ip(self.host)
    }

    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// `name[=value]`, in order.
    pub fn params(&self) -> impl Iterator<Item = (&'a str, Option<&'a str>)> + use<'a> {
        self.params
            .split(';')
            .filter(|p| !p.is_empty())
            .map(|p| p.split_once('=').map_or((p, None), |(n, v)| (n, Some(v))))
    }

    /// The value of a parameter; `Some(None)` for one without value.
    pub fn param(&self, name: &str) -> Option<Option<&'a str>> {
        self.params().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v)
    }

    pub fn has_param(&self, name: &str) -> bool {
        self.param(name).is_some()
    }

    /// What stands behind the `?`.
    pub fn headers(&self) -> Option<&'a str> {
        self.headers
    }

    /// The spelling under which an identity is stored and compared; None when the URI names no user or number.
    /// A number with `user=phone` stays a SIP URI here: turning it into a tel URI is a decision of the S-CSCF.
    pub fn canonical_identity(&self) -> Option<String> {
        match self.scheme {
            Scheme::Sip | Scheme::Sips => {
                let host = self.host.to_ascii_lowercase();
                let scheme = if self.scheme == Scheme::Sip { "sip" } else { "sips" };
                Some(match self.user {
                    Some(user) => format!("{scheme}:{}@{host}", unescape_unreserved(user)),
                    None => format!("{scheme}:{host}"),
                })
            }
            Scheme::Tel => {
                let number = self.user?;
                let plain: String = number.chars().filter(|c| !matches!(c, '-' | '.' | '(' | ')')).collect();
                match (number.starts_with('+'), self.param("phone-context").flatten()) {
                    (false, Some(context)) => Some(format!("tel:{plain};phone-context={context}")),
                    _ => Some(format!("tel:{plain}")),
                }
            }
            Scheme::Urn | Scheme::Other(_) => None,
        }
    }
}

impl fmt::Display for Uri<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text)
    }
}

/// Splits `host[:port]`, where an IPv6 address stands in brackets.
pub fn split_hostport(text: &str) -> Result<(&str, Option<u16>), UriError> {
    let (host, port) = if text.starts_with('[') {
        let end = text.find(']').ok_or(UriError::BadHost)? + 1;
        let (host, rest) = text.split_at(end);
        match rest.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if rest.is_empty() => (host, None),
            None => return Err(UriError::BadHost),
        }
    } else {
        text.split_once(':').map_or((text, None), |(h, p)| (h, Some(p)))
    };
    if host.is_empty() {
        return Err(UriError::NoHost);
    }
    let named = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    if host.starts_with('[') && parse_ip(host).is_none() || !host.starts_with('[') && !host.bytes().all(named) {
        return Err(UriError::BadHost);
    }
    let port = match port {
        Some(p) if p.len() <= 5 && p.bytes().all(|b| b.is_ascii_digit()) => {
            Some(p.parse::<u16>().ok().filter(|p| *p > 0).ok_or(UriError::BadPort)?)
        }
        Some(_) => return Err(UriError::BadPort),
        None => None,
    };
    Ok((host, port))
}

/// An address, IPv6 with or without brackets.
pub fn parse_ip(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[') {
        Some(inner) => parse_ipv6(inner.strip_suffix(']')?),
        None => host.parse().ok(),
    }
}

/// Three colons before a dotted quad are a slip of the RFC 3261 grammar that must be tolerated (RFC 5118 4.10).
fn parse_ipv6(text: &str) -> Option<IpAddr> {
    match text.parse::<std::net::Ipv6Addr>() {
        Ok(ip) => Some(IpAddr::V6(ip)),
        Err(_) => text.replacen(":::", "::", 1).parse::<std::net::Ipv6Addr>().ok().map(IpAddr::V6),
    }
}

/// An address as it stands in a URI or Via: IPv6 in brackets.
pub fn host_of(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}

/// `%41` and `A` are one character (RFC 3261 19.1.4); escapes of reserved characters stay.
fn unescape_unreserved(user: &str) -> String {
    if !user.contains('%') {
        return user.into();
    }
    let mut out = String::with_capacity(user.len());
    let mut rest = user;
    while let Some(i) = rest.find('%') {
        out.push_str(&rest[..i]);
        let code = rest.get(i + 1..i + 3).and_then(|h| u8::from_str_radix(h, 16).ok());
        match code {
            Some(b) if b.is_ascii_alphanumeric() || b"-_.!~*'()&=+$,;?/".contains(&b) => {
                out.push(char::from(b));
                rest = &rest[i + 3..];
            }
            Some(_) => {
                out.push_str(&rest[i..i + 3].to_ascii_uppercase());
                rest = &rest[i + 3..];
            }
            None => {
                out.push('%');
                rest = &rest[i + 1..];
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_sip_uri() {
        let u = Uri::parse("sips:alice:pw@[2001:db8::1]:5061;lr;transport=tcp?Subject=x").unwrap();
        assert_eq!(
            (u.scheme(), u.user(), u.host(), u.port()),
            (Scheme::Sips, Some("alice"), "[2001:db8::1]", Some(5061))
        );
        assert_eq!(u.host_ip(), Some("2001:db8::1".parse().unwrap()));
        assert_eq!((u.param("LR"), u.param("transport"), u.param("x")), (Some(None), Some(Some("tcp")), None));
        assert_eq!(u.headers(), Some("Subject=x"));
    }

    #[test]
    fn a_user_may_hold_reserved_characters() {
        let u = Uri::parse("sip:user;par=u%40example.net@example.com").unwrap();
        assert_eq!((u.user(), u.host()), (Some("user;par=u%40example.net"), "example.com"));
        assert_eq!(Uri::parse("sip:*%2321%23@x").unwrap().user(), Some("*%2321%23"));
    }

    #[test]
    fn tel_urn_and_unknown_schemes() {
        let t = Uri::parse("tel:7042;phone-context=example.com").unwrap();
        assert_eq!(
            (t.scheme(), t.user(), t.param("phone-context")),
            (Scheme::Tel, Some("7042"), Some(Some("example.com")))
        );
        assert_eq!(Uri::parse("urn:service:sos.police").unwrap().user(), Some("service:sos.police"));
        assert_eq!(Uri::parse("soap.beep://192.0.2.103:3002").unwrap().scheme(), Scheme::Other("soap.beep"));
    }

    #[test]
    fn three_colons_before_a_dotted_quad_are_tolerated() {
        let u = Uri::parse("sip:user@[2001:db8:::192.0.2.1]").unwrap();
        assert_eq!(u.host_ip(), Some("2001:db8::192.0.2.1".parse().unwrap()));
    }

    #[test]
    fn bad_uris_say_why() {
        for (text, why) in [
            ("nohost", UriError::NoScheme),
            ("sip:", UriError::NoHost),
            ("sip:a@", UriError::NoHost),
            ("sip:a@host:99999", UriError::BadPort),
            ("sip:a@host:", UriError::BadPort),
            ("sip:a@[::1", UriError::BadHost),
            ("sip:a@[::::1]", UriError::BadHost),
            ("sip:a@ho st", UriError::BadCharacter),
            ("tel:", UriError::BadNumber),
            ("tel:+alice", UriError::BadNumber),
        ] {
            assert_eq!(Uri::parse(text), Err(why), "{text}");
        }
    }

    #[test]
    fn identity_is_compared_unescaped() {
        let id = |s: &str| Uri::parse(s).unwrap().canonical_identity().unwrap();
        assert_eq!(id("sip:%61lice@Atlanta.com"), id("sip:alice@atlanta.com:5060;transport=udp"));
        assert_eq!(id("sip:a%40b@x"), "sip:a%40b@x");
    }
}
