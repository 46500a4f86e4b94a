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

/// What may stand behind the scheme at all.
fn may_stand_in_a_uri(b: u8) -> bool {
    const TABLE: [bool; 256] = {
        let mut table = [false; 256];
        let mut b = 0x21;
        while b < 0x7f {
            table[b] = !matches!(b as u8, b'<' | b'>' | b'"');
            b += 1;
        }
        table
    };
    TABLE[usize::from(b)]
}

/// Where the parts of a `sip` URI meet, behind the scheme: all ASCII, found in one pass.
struct Marks {
    /// The end of the user: the colon before a password, or the `@`.
    user_end: usize,
    at: Option<usize>,
    params_at: Option<usize>,
    headers_at: Option<usize>,
}

impl Marks {
    /// The user part may hold `;` and `?` (RFC 3261 25.1 user-unreserved): those before the `@` are its own.
    fn of(text: &[u8]) -> Result<Self, UriError> {
        let mut marks = Self { user_end: 0, at: None, params_at: None, headers_at: None };
        let mut colon = None;
        for (i, b) in text.iter().enumerate() {
            match b {
                b'@' if marks.at.is_some() => return Err(UriError::BadCharacter),
                b'@' => {
                    marks = Self { user_end: colon.unwrap_or(i), at: Some(i), params_at: None, headers_at: None };
                }
                b':' => colon = colon.or(Some(i)),
                b';' if marks.headers_at.is_none() => marks.params_at = marks.params_at.or(Some(i)),
                b'?' => marks.headers_at = marks.headers_at.or(Some(i)),
                b if !may_stand_in_a_uri(*b) => return Err(UriError::BadCharacter),
                _ => {}
            }
        }
        Ok(marks)
    }
}

impl<'a> Uri<'a> {
    pub fn parse(text: &'a str) -> Result<Self, UriError> {
        let colon = text.bytes().position(|b| b == b':').ok_or(UriError::NoScheme)?;
        let (scheme, rest) = (&text[..colon], &text[colon + 1..]);
        let valid = scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
        if !valid || !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return Err(UriError::NoScheme);
        }
        match scheme {
            s if s.eq_ignore_ascii_case("sip") => return Self::parse_sip(text, Scheme::Sip, rest),
            s if s.eq_ignore_ascii_case("sips") => return Self::parse_sip(text, Scheme::Sips, rest),
            _ => {}
        }
        if !rest.bytes().all(may_stand_in_a_uri) {
            return Err(UriError::BadCharacter);
        }
        match scheme {
            s if s.eq_ignore_ascii_case("tel") => Self::parse_tel(text, rest),
            s => {
                let scheme = if s.eq_ignore_ascii_case("urn") { Scheme::Urn } else { Scheme::Other(s) };
                Ok(Self { text, scheme, user: Some(rest), host: "", port: None, params: "", headers: None })
            }
        }
    }

    fn parse_sip(text: &'a str, scheme: Scheme<'a>, rest: &'a str) -> Result<Self, UriError> {
        let Marks { user_end, at, params_at, headers_at } = Marks::of(rest.as_bytes())?;
        let user = at.map(|_| &rest[..user_end]);
        if user.is_some_and(str::is_empty) {
            return Err(UriError::BadCharacter);
        }
        let end = headers_at.unwrap_or(rest.len());
        let (host, port) = split_hostport(&rest[at.map_or(0, |at| at + 1)..params_at.unwrap_or(end)])?;
        let params = params_at.map_or("", |at| &rest[at + 1..end]);
        Ok(Self { text, scheme, user, host, port, params, headers: headers_at.map(|at| &rest[at + 1..]) })
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

    /// Host and port as written (`hostport` of RFC 3261 25.1); empty for schemes without one.
    pub fn hostport(&self) -> &'a str {
        if !self.is_sip() {
            return "";
        }
        let rest = self.text.split_once(':').map_or("", |(_, rest)| rest);
        let host_on = match self.user {
            Some(user) => rest.get(user.len()..).and_then(|r| r.split_once('@')).map_or("", |(_, host)| host),
            None => rest,
        };
        host_on.split([';', '?']).next().unwrap_or_default()
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
                let scheme = if self.scheme == Scheme::Sip { "sip:" } else { "sips:" };
                let mut out = String::with_capacity(self.text.len());
                out.push_str(scheme);
                if let Some(user) = self.user {
                    push_unescaped(&mut out, user);
                    out.push('@');
                }
                let host_at = out.len();
                out.push_str(self.host);
                out[host_at..].make_ascii_lowercase();
                Some(out)
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
        let colon = text.bytes().position(|b| b == b':');
        colon.map_or((text, None), |at| (&text[..at], Some(&text[at + 1..])))
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
fn push_unescaped(out: &mut String, user: &str) {
    let mut rest = user;
    while let Some(i) = rest.bytes().position(|b| b == b'%') {
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
