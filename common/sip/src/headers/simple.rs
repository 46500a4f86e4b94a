//! Headers that are a number or a word (RFC 3261 20.8, 20.14, 20.16, 20.19, 20.22, 20.23; RFC 3262 7.1).

use super::{TypedHeader, error, list};
use crate::message::{HeaderError, MAX_CSEQ};
use crate::{Method, Name};
use std::fmt;

/// `1*DIGIT`; more than 32 bits gives `u32::MAX`.
fn saturating(text: &str) -> Option<u32> {
    let good = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    good.then(|| text.parse().unwrap_or(u32::MAX))
}

macro_rules! numbers {
    ($($(#[$doc:meta])* $header:ident, $most:expr, $reason:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub struct $header(pub u32);

        impl<'a> TypedHeader<'a> for $header {
            const NAME: Name = Name::$header;
            const LIST: bool = false;

            fn parse_value(value: &'a str) -> Result<Self, HeaderError> {
                let number = saturating(list::trim_str(value)).filter(|n| *n <= $most);
                number.map(Self).ok_or(error::<Self>($reason))
            }
        }

        impl fmt::Display for $header {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

numbers! {
    /// Seconds; what does not fit in 32 bits counts as the largest number that does.
    Expires, u32::MAX, "is not a number";
    /// Seconds.
    MinExpires, u32::MAX, "is not a number";
    MaxForwards, 255, "is not a number from 0 to 255";
    ContentLength, u32::MAX, "is not a number";
    /// RFC 3262 7.1.
    RSeq, u32::MAX, "is not a number";
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CSeq<'a> {
    pub number: u32,
    pub method: Method<'a>,
}

impl<'a> TypedHeader<'a> for CSeq<'a> {
    const NAME: Name = Name::CSeq;
    const LIST: bool = false;

    fn parse_value(value: &'a str) -> Result<Self, HeaderError> {
        let (number, method) =
            list::trim_str(value).split_once(list::BLANKS).ok_or(error::<Self>("has no method behind the number"))?;
        let number = saturating(number)
            .filter(|n| *n <= MAX_CSEQ)
            .ok_or(error::<Self>("does not begin with a number below 2^31"))?;
        let method = list::trim_str(method);
        if !list::is_token_text(method) {
            return Err(error::<Self>("has a malformed method"));
        }
        Ok(Self { number, method: Method::parse(method) })
    }
}

impl fmt::Display for CSeq<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.number, self.method)
    }
}

/// Compared byte for byte (RFC 3261 20.8).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CallId<'a>(pub &'a str);

impl<'a> TypedHeader<'a> for CallId<'a> {
    const NAME: Name = Name::CallId;
    const LIST: bool = false;

    fn parse_value(value: &'a str) -> Result<Self, HeaderError> {
        let value = list::trim_str(value);
        match value.is_empty() || value.contains(list::BLANKS) {
            true => Err(error::<Self>("is empty or has blanks in it")),
            false => Ok(Self(value)),
        }
    }
}

impl fmt::Display for CallId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cseq_may_be_folded_and_have_zeros_in_front() {
        let cseq = CSeq::parse_value("0009\r\n  INVITE").unwrap();
        assert_eq!((cseq.number, cseq.method), (9, Method::Invite));
        assert_eq!(cseq.to_string(), "9 INVITE");
        assert_eq!(CSeq::parse_value("1 INVITEX").unwrap().method, Method::Other("INVITEX"));
        for text in ["", "1", "x INVITE", "36893488147419103232 REGISTER", "2147483648 A", "1 A B", "-1 A"] {
            assert!(CSeq::parse_value(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_have_their_limits() {
        assert_eq!(MaxForwards::parse_value("0068").unwrap(), MaxForwards(68));
        assert!(MaxForwards::parse_value("300").is_err());
        assert_eq!(Expires::parse_value("10000000000000000000000").unwrap().0, u32::MAX);
        assert_eq!(MinExpires::parse_value("60").unwrap().to_string(), "60");
        assert_eq!(RSeq::parse_value("988789").unwrap().0, 988_789);
        for text in ["", "-1", "1.5", "1 2", "+1"] {
            assert!(Expires::parse_value(text).is_err(), "{text}");
            assert!(ContentLength::parse_value(text).is_err(), "{text}");
        }
    }

    #[test]
    fn call_ids_are_kept_as_they_are() {
        assert_eq!(CallId::parse_value(" a%Z-;x@[::1] ").unwrap().to_string(), "a%Z-;x@[::1]");
        assert!(CallId::parse_value("a b").is_err());
    }
}
