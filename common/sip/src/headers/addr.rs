//! Headers that carry an address: name-addr or addr-spec with parameters (RFC 3261 20.10, 20.20, 20.39, 25.1).

use super::list::{self, BLANKS, trim_str};
use super::{Params, TypedHeader, error};
use crate::Name;
use crate::message::HeaderError;
use ims_core::uri::Uri;
use std::fmt;
use std::ops::Deref;

/// name-addr or addr-spec with header parameters.
#[derive(Clone, Debug)]
pub struct NameAddr<'a> {
    /// Quotes taken off, escapes kept. None also for a display name that is not UTF-8.
    pub display: Option<&'a str>,
    pub uri: &'a str,
    pub params: Params<'a>,
}

impl<'a> NameAddr<'a> {
    pub fn parse(value: &'a str) -> Result<Self, &'static str> {
        let value = trim_str(value);
        if value.starts_with('"') {
            let (display, rest) = list::quoted(value).ok_or("has unbalanced quotes")?;
            return Self::in_brackets(Some(display), rest.trim_start_matches(BLANKS));
        }
        match memchr::memchr(b'<', value.as_bytes()) {
            Some(0) => Self::in_brackets(None, value),
            Some(at) => {
                let (display, rest) = value.split_at(at);
                let display = trim_str(display);
                let word = |b: u8| list::is_token(b) || list::is_blank(b) || !b.is_ascii();
                match display.bytes().all(word) {
                    true => Self::in_brackets((!display.is_empty()).then_some(display), rest),
                    false => Err("has a display name that needs quotes"),
                }
            }
            None => Self::bare(value),
        }
    }

    /// The same from bytes: a display name that is not UTF-8 is passed over.
    fn parse_bytes(value: &'a [u8]) -> Result<Self, &'static str> {
        if let Ok(text) = std::str::from_utf8(value) {
            return Self::parse(text);
        }
        let at = list::find_outside(value, b'<', false).ok_or("is not UTF-8")?;
        let rest = value.get(at..).and_then(|r| std::str::from_utf8(r).ok()).ok_or("is not UTF-8")?;
        Self::in_brackets(None, rest)
    }

    fn in_brackets(display: Option<&'a str>, text: &'a str) -> Result<Self, &'static str> {
        let text = text.strip_prefix('<').ok_or("has no address in angle brackets behind the display name")?;
        let end = memchr::memchr(b'>', text.as_bytes()).ok_or("has an angle bracket that does not close")?;
        let uri = text.get(..end).unwrap_or_default();
        let params = Params::checked(text.get(end + 1..).unwrap_or_default())?;
        check_uri(uri)?;
        Ok(Self { display, uri, params })
    }

    /// Without angle brackets a URI must not hold comma, question mark or semicolon (RFC 3261 20): parameters are the
    /// header's.
    fn bare(value: &'a str) -> Result<Self, &'static str> {
        let end = value.find(|c: char| c == ';' || BLANKS.contains(&c)).unwrap_or(value.len());
        let (uri, rest) = value.split_at(end);
        if uri.contains(['?', ',']) {
            return Err("has a URI that needs angle brackets");
        }
        check_uri(uri)?;
        Ok(Self { display: None, uri, params: Params::checked(rest)? })
    }

    pub fn parsed_uri(&self) -> Result<Uri<'a>, HeaderError> {
        Uri::parse(self.uri).map_err(|_| HeaderError { name: "URI", reason: "in an address header is malformed" })
    }

    pub fn tag(&self) -> Option<&'a str> {
        self.params.value("tag")
    }

    /// The display name as meant: escapes taken off.
    pub fn display_text(&self) -> Option<std::borrow::Cow<'a, str>> {
        self.display.map(list::unescape)
    }
}

const URI_BYTE: [bool; 256] = {
    let mut table = [false; 256];
    let mut i = 0;
    while i < 256 {
        let b = i as u8;
        table[i] = b.is_ascii_graphic() && !matches!(b, b'<' | b'>' | b'"');
        i += 1;
    }
    table
};

/// A scheme, a colon, something, and no blanks: the rest is asked of `parsed_uri`.
fn check_uri(uri: &str) -> Result<(), &'static str> {
    let bytes = uri.as_bytes();
    let colon = memchr::memchr(b':', bytes).ok_or("has an address that is no URI")?;
    let (scheme, rest) = bytes.split_at(colon);
    let good = scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
        && rest.len() > 1
        && rest.iter().all(|b| URI_BYTE[usize::from(*b)]);
    if good { Ok(()) } else { Err("has a malformed URI") }
}

impl fmt::Display for NameAddr<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(display) = self.display {
            write!(f, "\"{display}\" ")?;
        }
        write!(f, "<{}>{}", self.uri, self.params)
    }
}

macro_rules! address_headers {
    ($($(#[$doc:meta])* $header:ident $list:literal),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $header<'a>(pub NameAddr<'a>);

        impl<'a> Deref for $header<'a> {
            type Target = NameAddr<'a>;
            fn deref(&self) -> &NameAddr<'a> {
                &self.0
            }
        }

        impl<'a> TypedHeader<'a> for $header<'a> {
            const NAME: Name = Name::$header;
            const LIST: bool = $list;

            fn parse_value(value: &'a str) -> Result<Self, HeaderError> {
                NameAddr::parse(value).map(Self).map_err(error::<Self>)
            }

            fn parse_bytes(value: &'a [u8]) -> Result<Self, HeaderError> {
                NameAddr::parse_bytes(value).map(Self).map_err(error::<Self>)
            }
        }

        impl fmt::Display for $header<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

address_headers! {
    /// RFC 3261 20.20.
    From false,
    /// RFC 3261 20.39.
    To false,
    /// RFC 3261 20.34.
    Route true,
    /// RFC 3261 20.30.
    RecordRoute true,
    /// RFC 3327.
    Path true,
    /// RFC 3608.
    ServiceRoute true,
    /// RFC 7315 4.1.
    PAssociatedUri true,
    /// RFC 3325 9.1.
    PAssertedIdentity true,
    /// RFC 3325 9.2.
    PPreferredIdentity true,
    /// RFC 7315 4.2.
    PCalledPartyId false,
    /// RFC 5502: parameters `sescase`, `regstate`.
    PServedUser false,
    /// RFC 3515.
    ReferTo false,
    /// RFC 3892.
    ReferredBy false,
    /// RFC 3261 20.31.
    ReplyTo false,
}

impl<'a> PServedUser<'a> {
    /// `orig` or `term`.
    pub fn sescase(&self) -> Option<&'a str> {
        self.params.value("sescase")
    }

    /// `reg` or `unreg`.
    pub fn regstate(&self) -> Option<&'a str> {
        self.params.value("regstate")
    }
}

/// Contact: `*` or a name-addr with expires, q (RFC 3261 20.10).
#[derive(Clone, Debug)]
pub enum Contact<'a> {
    Star,
    Addr(NameAddr<'a>),
}

impl<'a> Contact<'a> {
    pub fn addr(&self) -> Option<&NameAddr<'a>> {
        match self {
            Self::Star => None,
            Self::Addr(addr) => Some(addr),
        }
    }

    /// Seconds; a value that is no number of 32 bits counts as 3600 (RFC 3261 20.10, 20.19).
    pub fn expires(&self) -> Option<u32> {
        let value = self.addr()?.params.value("expires")?;
        Some(value.parse().unwrap_or(3600))
    }

    /// In thousandths, 0 to 1000.
    pub fn q(&self) -> Option<u16> {
        q_value(self.addr()?.params.value("q")?)
    }
}

/// `0.5`: in thousandths, 0 to 1000 (RFC 3261 25.1 qvalue).
pub fn q_value(text: &str) -> Option<u16> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if part.len() > 3 || !part.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let part = format!("{part:0<3}").parse::<u16>().ok()?;
    match whole {
        "0" => Some(part),
        "1" if part == 0 => Some(1000),
        _ => None,
    }
}

impl<'a> TypedHeader<'a> for Contact<'a> {
    const NAME: Name = Name::Contact;
    const LIST: bool = true;

    fn parse_value(value: &'a str) -> Result<Self, HeaderError> {
        if trim_str(value) == "*" {
            return Ok(Self::Star);
        }
        NameAddr::parse(value).map(Self::Addr).map_err(error::<Self>)
    }

    fn parse_bytes(value: &'a [u8]) -> Result<Self, HeaderError> {
        if value == b"*" {
            return Ok(Self::Star);
        }
        NameAddr::parse_bytes(value).map(Self::Addr).map_err(error::<Self>)
    }
}

impl fmt::Display for Contact<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Star => f.write_str("*"),
            Self::Addr(addr) => addr.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_an_address() {
        let from =
            From::parse_value("\"J Rosenberg \\\\\\\"\"       <sip:jdrosen@example.com;lr>\r\n  ;\r\n  tag = 98asjd8")
                .unwrap();
        assert_eq!((from.uri, from.tag()), ("sip:jdrosen@example.com;lr", Some("98asjd8")));
        assert_eq!(from.display_text().unwrap(), "J Rosenberg \\\"");
        let to = To::parse_value("sip:vivekg@chair-dnrc.example.com ;   tag    = 1918181833n").unwrap();
        assert_eq!((to.display, to.uri, to.tag()), (None, "sip:vivekg@chair-dnrc.example.com", Some("1918181833n")));
        let from = From::parse_value("caller<sip:caller@example.com>;tag=323").unwrap();
        assert_eq!(
            (from.display, from.to_string().as_str()),
            (Some("caller"), "\"caller\" <sip:caller@example.com>;tag=323")
        );
        assert_eq!(To::parse_value("tel:+1-201-555-0123;tag=9").unwrap().tag(), Some("9"));
        assert_eq!(To::parse_value("isbn:2983792873").unwrap().uri, "isbn:2983792873");
    }

    #[test]
    fn broken_addresses_are_refused() {
        for text in [
            "",
            "<>",
            "*",
            "<sip:a@b",
            "\"Mr. J. User <sip:j.user@example.com>",
            "Bell, Alexander <sip:a@b>;tag=43",
            "< sip:t.watson@example.org >",
            "sip:user@example.com?Route=%3Csip:sip.example.com%3E",
            "<sip:a@b> x",
            "\"Joe\" <sip:joe@example.org>;;;;",
            "\"Joe\" sip:joe@example.org",
            "nouri",
            "sip:",
            "<sip:a@b\"c>",
        ] {
            assert!(To::parse_value(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_display_name_that_is_not_utf8_does_not_hide_the_address() {
        let from = From::parse_bytes(b"\"caf\xe9 <x>\" <sip:a@b>;tag=1").unwrap();
        assert_eq!((from.display, from.uri, from.tag()), (None, "sip:a@b", Some("1")));
        assert!(From::parse_bytes(b"sip:caf\xe9@b").is_err());
        assert!(From::parse_bytes(b"<sip:caf\xe9@b>").is_err());
    }

    #[test]
    fn contacts() {
        assert!(matches!(Contact::parse_value(" * "), Ok(Contact::Star)));
        let c = Contact::parse_value(
            "<sip:a@[::1]:5060>;q=0.75;expires=99999999999;+sip.instance=\"<urn:gsma:imei:1-2-0>\"",
        )
        .unwrap();
        assert_eq!((c.q(), c.expires()), (Some(750), Some(3600)));
        assert_eq!(c.addr().unwrap().params.value("+sip.instance"), Some("<urn:gsma:imei:1-2-0>"));
        assert_eq!(
            c.to_string(),
            "<sip:a@[::1]:5060>;q=0.75;expires=99999999999;+sip.instance=\"<urn:gsma:imei:1-2-0>\""
        );
        assert_eq!(Contact::parse_value("<sip:a@b>;q=1.1").unwrap().q(), None);
        assert_eq!(Contact::parse_value("<sip:a@b>;q=1").unwrap().q(), Some(1000));
    }

    #[test]
    fn served_user() {
        let user = PServedUser::parse_value("<sip:user@example.com>; sescase=orig; regstate=reg").unwrap();
        assert_eq!((user.sescase(), user.regstate()), (Some("orig"), Some("reg")));
    }
}
