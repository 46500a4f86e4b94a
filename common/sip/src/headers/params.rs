//! `;name[=value]` parameters (RFC 3261 25.1 generic-param).

use super::list::{find_outside, is_blank, is_token, split_pair, trim_start, trim_str, unquote};
use std::fmt;

/// `;name[=value]` parameters, kept as written, looked up without regard to case; quotes around a value are taken off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Params<'a>(pub &'a str);

impl<'a> Params<'a> {
    /// The parameters that stand behind a head: nothing, or `;name=value` one after the other, none of them empty.
    pub(super) fn checked(text: &'a str) -> Result<Self, &'static str> {
        let text = trim_str(text);
        if text.is_empty() {
            return Ok(Self(""));
        }
        let text = text.strip_prefix(';').ok_or("has something behind the address that is no parameter")?;
        Self::checked_list(text)
    }

    /// The same without the first `;`.
    pub(super) fn checked_list(text: &'a str) -> Result<Self, &'static str> {
        check(text.as_bytes()).map(|()| Self(text))
    }

    /// The first parameter of that name: `Some(None)` when it has no value.
    pub fn get(&self, name: &str) -> Option<Option<&'a str>> {
        self.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v)
    }

    pub fn value(&self, name: &str) -> Option<&'a str> {
        self.get(name).flatten()
    }

    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&'a str, Option<&'a str>)> {
        self.as_written().map(|(name, value)| (name, value.map(unquote)))
    }

    /// Each name with its value, which keeps the quotes that it has.
    pub fn as_written(&self) -> impl Iterator<Item = (&'a str, Option<&'a str>)> {
        let mut rest = Some(self.0);
        let has_quotes = self.0.contains('"');
        std::iter::from_fn(move || {
            loop {
                let text = rest?;
                let at = match has_quotes {
                    true => find_outside(text.as_bytes(), b';', false),
                    false => memchr::memchr(b';', text.as_bytes()),
                };
                rest = at.and_then(|at| text.get(at + 1..));
                let one = trim_str(at.map_or(text, |at| text.get(..at).unwrap_or_default()));
                if !one.is_empty() {
                    let parts = split_pair(one);
                    return Some(parts.map_or((one, None), |(n, v)| (trim_str(n), Some(trim_str(v)))));
                }
            }
        })
    }
}

/// `name [= value] *(; name [= value])` in one pass; a value is a quoted string or has no blank, quote or backslash.
fn check(text: &[u8]) -> Result<(), &'static str> {
    let mut rest = trim_start(text);
    loop {
        let name = rest.iter().position(|b| !is_token(*b)).unwrap_or(rest.len());
        if name == 0 {
            return Err("has an empty or malformed parameter");
        }
        rest = trim_start(rest.get(name..).unwrap_or_default());
        if let [b'=', value @ ..] = rest {
            rest = trim_start(value_end(trim_start(value))?);
        }
        match rest {
            [] => return Ok(()),
            [b';', next @ ..] => rest = trim_start(next),
            _ => return Err("has an empty or malformed parameter"),
        }
    }
}

/// What stands behind a value.
fn value_end(text: &[u8]) -> Result<&[u8], &'static str> {
    if let [b'"', inner @ ..] = text {
        let mut at = 0;
        loop {
            match inner.get(at) {
                Some(b'"') => return Ok(inner.get(at + 1..).unwrap_or_default()),
                Some(b'\\') => at += 2,
                Some(_) => at += 1,
                None => return Err("has a parameter with unbalanced quotes"),
            }
        }
    }
    let end = text.iter().position(|b| matches!(b, b';' | b'"' | b'\\') || is_blank(*b)).unwrap_or(text.len());
    match (end, text.get(end)) {
        (0, _) | (_, Some(b'"' | b'\\')) => Err("has a malformed parameter value"),
        _ => Ok(text.get(end..).unwrap_or_default()),
    }
}

impl fmt::Display for Params<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            "" => Ok(()),
            text if text.starts_with(';') => f.write_str(text),
            text => write!(f, ";{text}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_in_any_case() {
        let p = Params::checked(" ;Tag = a;lr; q=\"0;5\" ;x=").err();
        assert_eq!(p, Some("has a malformed parameter value"));
        let p = Params::checked(" ;Tag = a;lr; q=\"0;5\" ;received=[::1]:5").unwrap();
        assert_eq!((p.value("tag"), p.get("LR"), p.value("Q")), (Some("a"), Some(None), Some("0;5")));
        assert_eq!(p.value("received"), Some("[::1]:5"));
        assert!(!p.has("z"));
        assert_eq!(p.iter().count(), 4);
        assert_eq!(p.as_written().find(|(name, _)| *name == "q"), Some(("q", Some("\"0;5\""))));
    }

    #[test]
    fn empty_and_broken_parameters_are_refused() {
        for text in [";", ";;a", ";a;", ";a=", ";a=\"x", ";=b", ";a b", " a=b", ";a==\" "] {
            assert!(Params::checked(text).is_err(), "{text}");
        }
        for text in ["", ";a", ";a=b;c", ";a=b=c", "; a = b", ";a=\"\""] {
            assert!(Params::checked(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn they_print_as_written() {
        assert_eq!(Params("a=b;C").to_string(), ";a=b;C");
        assert_eq!(Params("").to_string(), "");
    }
}
