//! Headers about a session or why it ended: Session-Expires and Min-SE (RFC 4028), RAck (RFC 3262), Reason (RFC 3326),
//! Retry-After, Warning and Content-Type (RFC 3261 20.33, 20.43, 20.15).

use super::{Params, TypedHeader, error, head_and_params, list};
use crate::message::HeaderError;
use crate::{Method, Name};
use std::fmt;

fn seconds<'a, H: TypedHeader<'a>>(text: &str) -> Result<u32, HeaderError> {
    match !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        true => Ok(text.parse().unwrap_or(u32::MAX)),
        false => Err(error::<H>("is not a number")),
    }
}

macro_rules! intervals {
    ($($header:ident,)*) => {$(
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub struct $header<'a> {
            pub seconds: u32,
            pub params: Params<'a>,
        }

        impl<'a> TypedHeader<'a> for $header<'a> {
            const NAME: Name = Name::$header;
            const LIST: bool = false;

            fn parse_value(value: &'a str) -> Result<Self, HeaderError> {
                let (head, params) = head_and_params::<Self>(value)?;
                Ok(Self { seconds: seconds::<Self>(head)?, params })
            }
        }

        impl fmt::Display for $header<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{}", self.seconds, self.params)
            }
        }
    )*};
}

intervals! { SessionExpires, MinSe, }

impl<'a> SessionExpires<'a> {
    /// `uac` or `uas`.
    pub fn refresher(&self) -> Option<&'a str> {
        self.params.value("refresher")
    }
}

/// `120 (I'm in a meeting);duration=3600`; the comment is passed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RetryAfter<'a> {
    pub seconds: u32,
    pub params: Params<'a>,
}

impl<'a> TypedHeader<'a> for RetryAfter<'a> {
    const NAME: Name = Name::RetryAfter;
    const LIST: bool = false;

    fn parse_value(value: &'a str) -> Result<Self, HeaderError> {
        let value = list::trim_str(value);
        let end = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
        let (number, rest) = value.split_at(end);
        let rest = list::trim_str(rest);
        let rest = match rest.starts_with('(') {
            true => rest.rfind(')').and_then(|at| rest.get(at + 1..)).ok_or(error::<Self>("has an open comment"))?,
            false => rest,
        };
        Ok(Self { seconds: seconds::<Self>(number)?, params: Params::checked(rest).map_err(error::<Self>)? })
    }
}

impl fmt::Display for RetryAfter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.seconds, self.params)
    }
}

/// `rseq cseq method`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RAck<'a> {
    pub rseq: u32,
    pub cseq: u32,
    pub method: Method<'a>,
}

impl<'a> TypedHeader<'a> for RAck<'a> {
    const NAME: Name = Name::RAck;
    const LIST: bool = false;

    fn parse_value(value: &'a str) -> Result<Self, HeaderError> {
        let mut words = value.split(list::BLANKS).filter(|w| !w.is_empty());
        let (Some(rseq), Some(cseq), Some(method), None) = (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(error::<Self>("is not two numbers and a method"));
        };
        let number = |text: &str| text.parse::<u32>().map_err(|_| error::<Self>("is not two numbers and a method"));
        Ok(Self { rseq: number(rseq)?, cseq: number(cseq)?, method: Method::parse(method) })
    }
}

impl fmt::Display for RAck<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.rseq, self.cseq, self.method)
    }
}

/// `SIP;cause=580;text="..."`, `Q.850;cause=16`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reason<'a> {
    pub protocol: &'a str,
    pub params: Params<'a>,
}

impl<'a> Reason<'a> {
    pub fn cause(&self) -> Option<u16> {
        self.params.value("cause")?.parse().ok()
    }

    pub fn text(&self) -> Option<&'a str> {
        self.params.value("text")
    }
}

impl<'a> TypedHeader<'a> for Reason<'a> {
    const NAME: Name = Name::Reason;
    const LIST: bool = true;

    fn parse_value(value: &'a str) -> Result<Self, HeaderError> {
        let (protocol, params) = head_and_params::<Self>(value)?;
        match list::is_token_text(protocol) {
            true => Ok(Self { protocol, params }),
            false => Err(error::<Self>("does not begin with a protocol")),
        }
    }
}

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.protocol, self.params)
    }
}

/// `type/subtype;parameters`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ContentType<'a> {
    pub kind: &'a str,
    pub subtype: &'a str,
    pub params: Params<'a>,
}

impl ContentType<'_> {
    /// Whether it is `kind/subtype`, whatever its parameters and case.
    pub fn is(&self, full: &str) -> bool {
        full.split_once('/')
            .is_some_and(|(k, s)| k.eq_ignore_ascii_case(self.kind) && s.eq_ignore_ascii_case(self.subtype))
    }
}

impl<'a> TypedHeader<'a> for ContentType<'a> {
    const NAME: Name = Name::ContentType;
    const LIST: bool = false;

    fn parse_value(value: &'a str) -> Result<Self, HeaderError> {
        let (head, params) = head_and_params::<Self>(value)?;
        let (kind, subtype) = head.split_once('/').ok_or(error::<Self>("is not type/subtype"))?;
        let (kind, subtype) = (list::trim_str(kind), list::trim_str(subtype));
        match list::is_token_text(kind) && list::is_token_text(subtype) {
            true => Ok(Self { kind, subtype, params }),
            false => Err(error::<Self>("is not type/subtype")),
        }
    }
}

impl fmt::Display for ContentType<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.kind, self.subtype, self.params)
    }
}

/// `code agent "text"`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Warning<'a> {
    pub code: u16,
    pub agent: &'a str,
    /// Quotes taken off, escapes kept.
    pub text: &'a str,
}

impl<'a> TypedHeader<'a> for Warning<'a> {
    const NAME: Name = Name::Warning;
    const LIST: bool = true;

    fn parse_value(value: &'a str) -> Result<Self, HeaderError> {
        const FORM: &str = "is not a code of three digits, an agent and a quoted text";
        let mut words = list::trim_str(value).splitn(2, list::BLANKS);
        let code = words.next().filter(|c| c.len() == 3).and_then(|c| c.parse().ok()).ok_or(error::<Self>(FORM))?;
        let rest = words.next().map(list::trim_str).ok_or(error::<Self>(FORM))?;
        let (agent, text) = rest.split_once(list::BLANKS).ok_or(error::<Self>(FORM))?;
        let (text, after) = list::quoted(list::trim_str(text)).ok_or(error::<Self>(FORM))?;
        if after.is_empty() { Ok(Self { code, agent, text }) } else { Err(error::<Self>(FORM)) }
    }
}

impl fmt::Display for Warning<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:03} {} \"{}\"", self.code, self.agent, self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_timers() {
        let s = SessionExpires::parse_value("1800;refresher=uac").unwrap();
        assert_eq!((s.seconds, s.refresher(), s.to_string().as_str()), (1800, Some("uac"), "1800;refresher=uac"));
        assert_eq!(MinSe::parse_value("90").unwrap().seconds, 90);
        assert!(SessionExpires::parse_value("x").is_err() && MinSe::parse_value("").is_err());
    }

    #[test]
    fn retry_after_with_a_comment() {
        let r = RetryAfter::parse_value("120 (I'm in a (long) meeting);duration=60").unwrap();
        assert_eq!((r.seconds, r.params.value("duration")), (120, Some("60")));
        assert_eq!(RetryAfter::parse_value("5").unwrap().to_string(), "5");
        assert!(RetryAfter::parse_value("5 (open").is_err() && RetryAfter::parse_value("soon").is_err());
    }

    #[test]
    fn rack_reason_and_warning() {
        let r = RAck::parse_value("776656 1 INVITE").unwrap();
        assert_eq!((r.rseq, r.cseq, r.method, r.to_string().as_str()), (776_656, 1, Method::Invite, "776656 1 INVITE"));
        assert!(RAck::parse_value("1 INVITE").is_err());
        let r = Reason::parse_value("SIP ;cause=200 ;text=\"Call completed; elsewhere\"").unwrap();
        assert_eq!((r.protocol, r.cause(), r.text()), ("SIP", Some(200), Some("Call completed; elsewhere")));
        let w = Warning::parse_value("307 isi.edu \"Session parameter 'foo' not understood\"").unwrap();
        assert_eq!((w.code, w.agent), (307, "isi.edu"));
        assert_eq!(w.to_string(), "307 isi.edu \"Session parameter 'foo' not understood\"");
        for text in ["", "307", "307 a b", "1812 overture \"In Progress\"", "307 a \"b\" c"] {
            assert!(Warning::parse_value(text).is_err(), "{text}");
        }
    }

    #[test]
    fn content_type() {
        let c = ContentType::parse_value("multipart / mixed; boundary=\"7a;9c\"").unwrap();
        assert!(c.is("Multipart/Mixed") && !c.is("multipart/x"));
        assert_eq!(
            (c.params.value("boundary"), c.to_string().as_str()),
            (Some("7a;9c"), "multipart/mixed; boundary=\"7a;9c\"")
        );
        assert!(ContentType::parse_value("text").is_err());
    }
}
