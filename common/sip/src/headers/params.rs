//! `;name[=value]` parameters (RFC 3261 25.1 generic-param).

use super::list::{find_outside, is_blank, is_token, quoted, trim_str, unquote};
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
        if plain(text) {
            return Ok(Self(text));
        }
        let mut rest = Some(text);
        while let Some(text) = rest {
            let at = find_outside(text.as_bytes(), b';', false);
            let one = trim_str(at.map_or(text, |at| text.get(..at).unwrap_or_default()));
            rest = at.and_then(|at| text.get(at + 1..));
            let (name, value) = one.split_once('=').map_or((one, None), |(n, v)| (n, Some(trim_str(v))));
            let name = name.trim_end_matches(super::list::BLANKS);
            if name.is_empty() || !name.bytes().all(is_token) {
                return Err("has an empty or malformed parameter");
            }
            match value {
                Some(v) if v.starts_with('"') && !quoted(v).is_some_and(|(_, after)| after.is_empty()) => {
                    return Err("has a parameter with unbalanced quotes");
                }
                Some(v) if v.starts_with('"') => {}
                Some(v) if v.is_empty() || v.bytes().any(|b| is_blank(b) || matches!(b, b'"' | b'\\')) => {
                    return Err("has a malformed parameter value");
                }
                _ => {}
            }
        }
        Ok(Self(text))
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
                    let parts = one.split_once('=');
                    return Some(parts.map_or((one, None), |(n, v)| (trim_str(n), Some(unquote(trim_str(v))))));
                }
            }
        })
    }
}

/// Names and values made of token characters only, none empty: most parameters there are.
fn plain(text: &str) -> bool {
    let mut last = b';';
    for b in text.bytes() {
        let good = match b {
            b';' | b'=' => last != b';' && last != b'=',
            b => is_token(b),
        };
        if !good {
            return false;
        }
        last = b;
    }
    last != b';' && last != b'='
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
