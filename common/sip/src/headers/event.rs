//! Event and Subscription-State (RFC 6665 8.2).

use super::{Params, TypedHeader, error, head_and_params, list};
use crate::Name;
use crate::message::HeaderError;
use std::fmt;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event<'a> {
    /// With templates: `presence.winfo`.
    pub package: &'a str,
    pub params: Params<'a>,
}

/// `active`, `pending`, `terminated` or an extension.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SubscriptionState<'a> {
    pub state: &'a str,
    pub params: Params<'a>,
}

impl<'a> SubscriptionState<'a> {
    pub fn expires(&self) -> Option<u32> {
        self.params.value("expires")?.parse().ok()
    }

    pub fn reason(&self) -> Option<&'a str> {
        self.params.value("reason")
    }

    pub fn is_terminated(&self) -> bool {
        self.state.eq_ignore_ascii_case("terminated")
    }
}

macro_rules! words {
    ($($header:ident $head:ident,)*) => {$(
        impl<'a> TypedHeader<'a> for $header<'a> {
            const NAME: Name = Name::$header;
            const LIST: bool = false;

            fn parse_value(value: &'a str) -> Result<Self, HeaderError> {
                let ($head, params) = head_and_params::<Self>(value)?;
                match list::is_token_text($head) {
                    true => Ok(Self { $head, params }),
                    false => Err(error::<Self>("does not begin with a token")),
                }
            }
        }

        impl fmt::Display for $header<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{}", self.$head, self.params)
            }
        }
    )*};
}

words! { Event package, SubscriptionState state, }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_and_state() {
        let e = Event::parse_value("reg;id=7").unwrap();
        assert_eq!((e.package, e.params.value("id"), e.to_string().as_str()), ("reg", Some("7"), "reg;id=7"));
        let s = SubscriptionState::parse_value("terminated;reason=noresource; expires=5").unwrap();
        assert!(s.is_terminated());
        assert_eq!((s.reason(), s.expires()), (Some("noresource"), Some(5)));
        assert!(Event::parse_value("").is_err() && Event::parse_value("a b").is_err());
    }
}
