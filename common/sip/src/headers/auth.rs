//! Digest headers (RFC 3261 20.7, 20.27, 20.28, 20.44, 20.6; RFC 3310; TS 24.229 5.1.1 and 7.2A.1 for `ck`, `ik`,
//! `auth-done` and `integrity-protected`).

use super::{TypedHeader, error, list};
use crate::Name;
use crate::message::HeaderError;
use std::borrow::Cow;
use std::fmt;

/// Comma-separated `name=value` of digest headers; `get` takes quotes off.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct AuthParams<'a>(pub &'a str);

impl<'a> AuthParams<'a> {
    /// Quotes and escapes taken off.
    pub fn get(&self, name: &str) -> Option<Cow<'a, str>> {
        self.raw(name).map(|v| match list::quoted(v) {
            Some((inner, _)) => list::unescape(inner),
            None => v.into(),
        })
    }

    /// As written, with quotes.
    pub fn raw(&self, name: &str) -> Option<&'a str> {
        self.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v)
    }

    pub fn has(&self, name: &str) -> bool {
        self.raw(name).is_some()
    }

    /// (name, value as written) in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        pieces(self.0)
            .map(|one| list::split_pair(one).map_or((one, ""), |(n, v)| (list::trim_str(n), list::trim_str(v))))
    }

    fn check(self) -> Result<Self, &'static str> {
        for one in pieces(self.0) {
            let (name, value) = list::split_pair(one).ok_or("has a parameter without value")?;
            let value = list::trim_str(value);
            if !list::is_token_text(list::trim_str(name)) {
                return Err("has a malformed parameter name");
            }
            let good = match value.starts_with('"') {
                true => list::quoted(value).is_some_and(|(_, rest)| rest.is_empty()),
                false => !value.is_empty() && !value.contains(list::BLANKS) && !value.contains('"'),
            };
            if !good {
                return Err("has a malformed parameter value");
            }
        }
        Ok(self)
    }
}

/// Keys may stand in here (`ck`, `ik`, responses): only names are shown.
impl fmt::Debug for AuthParams<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|(name, _)| name)).finish()
    }
}

/// `Scheme a=1, b="x,y"` cut at the commas that stand outside quotes; empty elements are passed over.
pub fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        loop {
            let text = rest?;
            let at = list::find_outside(text.as_bytes(), b',', false);
            rest = at.and_then(|at| text.get(at + 1..));
            let one = list::trim_str(at.map_or(text, |at| text.get(..at).unwrap_or_default()));
            if !one.is_empty() {
                return Some(one);
            }
        }
    })
}

macro_rules! auth_headers {
    ($($(#[$doc:meta])* $header:ident,)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $header<'a> {
            pub scheme: &'a str,
            pub params: AuthParams<'a>,
        }

        impl<'a> $header<'a> {
            pub fn is_digest(&self) -> bool {
                self.scheme.eq_ignore_ascii_case("Digest")
            }

            pub fn get(&self, name: &str) -> Option<Cow<'a, str>> {
                self.params.get(name)
            }
        }

        impl<'a> TypedHeader<'a> for $header<'a> {
            const NAME: Name = Name::$header;
            const LIST: bool = false;

            fn parse_value(value: &'a str) -> Result<Self, HeaderError> {
                let value = list::trim_str(value);
                let (scheme, rest) = value.split_once(list::BLANKS).unwrap_or((value, ""));
                if !list::is_token_text(scheme) {
                    return Err(error::<Self>("does not begin with a scheme"));
                }
                let params = AuthParams(list::trim_str(rest));
                match scheme.eq_ignore_ascii_case("Digest") {
                    true => Ok(Self { scheme, params: params.check().map_err(error::<Self>)? }),
                    false => Ok(Self { scheme, params }),
                }
            }
        }

        impl fmt::Display for $header<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{} {}", self.scheme, self.params.0)
            }
        }
    )*};
}

auth_headers! {
    /// `Digest` parsed; other schemes keep `params` raw.
    Authorization,
    ProxyAuthorization,
    WwwAuthenticate,
    ProxyAuthenticate,
}

/// Authentication-Info (RFC 7615, TS 24.229 5.4.1.2.2F).
#[derive(Clone, Debug)]
pub struct AuthenticationInfo<'a>(pub AuthParams<'a>);

impl<'a> TypedHeader<'a> for AuthenticationInfo<'a> {
    const NAME: Name = Name::AuthenticationInfo;
    const LIST: bool = false;

    fn parse_value(value: &'a str) -> Result<Self, HeaderError> {
        AuthParams(list::trim_str(value)).check().map(Self).map_err(error::<Self>)
    }
}

impl fmt::Display for AuthenticationInfo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_parameters_with_and_without_quotes() {
        let text =
            "Digest username=\"a\\\"b@home\", realm=\"x,y\",nonce=\"\",\r\n uri = \"sip:home\" , nc=00000001,qop=auth";
        let a = Authorization::parse_value(text).unwrap();
        assert!(a.is_digest());
        assert_eq!(a.get("USERNAME").unwrap(), "a\"b@home");
        assert_eq!((a.get("realm").unwrap().as_ref(), a.get("nonce").unwrap().as_ref()), ("x,y", ""));
        assert_eq!((a.get("uri").unwrap().as_ref(), a.get("nc").unwrap().as_ref()), ("sip:home", "00000001"));
        assert_eq!(a.get("opaque"), None);
        assert_eq!(a.to_string(), text);
    }

    #[test]
    fn no_key_is_printed() {
        let text =
            "Digest realm=\"D\",nonce=\"bm9uY2U=\", algorithm=AKAv1-MD5,qop=\"auth,auth-int\",ck=\"00\",IK=\"11\"";
        let w = WwwAuthenticate::parse_value(text).unwrap();
        assert!(!format!("{w:?}").contains("11"));
    }

    #[test]
    fn broken_digests_are_refused_and_other_schemes_pass() {
        for text in ["", "Digest username", "Digest username=\"a", "Digest username=a b", "Digest =a", "\"Digest\" a=b"]
        {
            assert!(Authorization::parse_value(text).is_err(), "{text}");
        }
        let other = Authorization::parse_value("NoOneKnowsThisScheme opaque-data=here").unwrap();
        assert_eq!((other.scheme, other.params.0), ("NoOneKnowsThisScheme", "opaque-data=here"));
        assert!(!other.is_digest());
    }

    #[test]
    fn authentication_info() {
        let info = AuthenticationInfo::parse_value("qop=auth,rspauth=\"ab\",cnonce=\"c\",nc=00000001,nextnonce=\"n\"")
            .unwrap();
        assert_eq!(info.0.get("nextnonce").unwrap(), "n");
        assert_eq!(info.to_string(), "qop=auth,rspauth=\"ab\",cnonce=\"c\",nc=00000001,nextnonce=\"n\"");
        let proxy = ProxyAuthenticate::parse_value("digest realm=\"a\"").unwrap();
        assert!(proxy.is_digest());
        assert!(ProxyAuthorization::parse_value("Digest realm=\"a\", response=\"b\"").unwrap().params.has("response"));
    }
}
