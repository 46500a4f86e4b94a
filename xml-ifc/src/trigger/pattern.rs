//! Extended regular expressions (IEEE 1003.1-2004 clause 9, as TS 29.228 Table F.1 asks), on bytes, with bounded work: the
//! `regex` crate takes time linear in what is compared, and its programs are limited here.

use regex::bytes::{Regex, RegexBuilder};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Weak};

/// Longer patterns are refused.
const MOST_TEXT: usize = 1024;
/// Bytes of a compiled program, and of what a search keeps.
const MOST_PROGRAM: usize = 128 * 1024;
/// How deep groups may nest.
const MOST_NESTING: u32 = 20;
/// What is compared is cut off there: time for one pattern stays bounded whatever a peer sends.
const MOST_COMPARED: usize = 8192;

/// An expression, ready to search with. As ERE do, it is found anywhere unless it is anchored.
pub struct Pattern {
    text: Box<str>,
    /// None: it is found in everything.
    regex: Option<Regex>,
    is_anchored: bool,
}

impl Pattern {
    /// The error says in a few words what is wrong with the text.
    pub fn compile(text: &str, ignore_case: bool) -> Result<Self, String> {
        if text.len() > MOST_TEXT {
            return Err(format!("it has {} bytes, more than {MOST_TEXT}", text.len()));
        }
        let is_any = matches!(text, ".*" | "^.*" | ".*$" | "^.*$");
        let (translated, is_anchored) = translate(text)?;
        let regex = RegexBuilder::new(&translated)
            .unicode(false)
            .case_insensitive(ignore_case)
            .dot_matches_new_line(true)
            .size_limit(MOST_PROGRAM)
            .dfa_size_limit(MOST_PROGRAM)
            .nest_limit(MOST_NESTING)
            .build();
        let regex = regex.map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => "it is too large".to_owned(),
            // The last line says what is wrong; those before draw the pattern.
            other => {
                let text = other.to_string();
                let line = text.lines().last().unwrap_or_default();
                line.trim_start_matches("error: ").to_owned()
            }
        })?;
        Ok(Self { text: text.into(), regex: (!is_any).then_some(regex), is_anchored: is_anchored && !is_any })
    }

    /// Of a wildcarded identity, `before!expression!after` (TS 23.003 13.4A, 13.5): all of it has to match. None: it is not wildcarded.
    pub fn wildcard(identity: &str) -> Option<Result<Self, String>> {
        let mut parts = identity.split('!');
        let (before, expression, after) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let escaped = |text: &str| {
            let escape = |c: char| [Some('\\').filter(|_| c.is_ascii_punctuation()), Some(c)];
            text.chars().flat_map(escape).flatten().collect::<String>()
        };
        Some(Self::compile(&format!("^{}({expression}){}$", escaped(before), escaped(after)), false))
    }

    pub fn is_in(&self, text: &[u8]) -> bool {
        let text = text.get(..MOST_COMPARED).unwrap_or(text);
        self.regex.as_ref().is_none_or(|regex| regex.is_match(text))
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// It speaks of where a text begins or ends.
    pub(super) fn is_anchored(&self) -> bool {
        self.is_anchored
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}/", self.text)
    }
}

/// The patterns in use, each once: a hundred thousand profiles say the same few things.
#[derive(Default)]
pub(super) struct Patterns {
    known: HashMap<(Box<str>, bool), Weak<Pattern>>,
    /// When what nobody uses any more is looked for.
    sweep_at: usize,
}

impl Patterns {
    pub(super) fn compile(&mut self, text: &str, ignore_case: bool) -> Result<Arc<Pattern>, String> {
        let key = (Box::from(text), ignore_case);
        if let Some(known) = self.known.get(&key).and_then(Weak::upgrade) {
            return Ok(known);
        }
        let made = Arc::new(Pattern::compile(text, ignore_case)?);
        if self.known.len() >= self.sweep_at {
            self.known.retain(|_, pattern| pattern.strong_count() > 0);
            self.sweep_at = 2 * self.known.len() + 64;
        }
        self.known.insert(key, Arc::downgrade(&made));
        Ok(made)
    }
}

/// From ERE to the syntax of the `regex` crate, and whether `^` or `$` stands in it. They differ inside brackets, where ERE
/// knows no set operations, and in groups, of which nothing is kept here. What ERE leaves undefined (`\d`, `(?i)`) means what it
/// means in Perl. A backslash escapes inside of brackets too: that is what is meant wherever it is written.
fn translate(ere: &str) -> Result<(String, bool), String> {
    let (mut out, mut is_anchored) = (String::with_capacity(ere.len() + 8), false);
    let mut chars = ere.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                None => return Err("it ends with a backslash".into()),
                Some(c) => escaped(&mut out, c),
            },
            '[' => bracket(&mut out, &mut chars)?,
            '(' if chars.peek() != Some(&'?') => out.push_str("(?:"),
            c => {
                is_anchored |= matches!(c, '^' | '$');
                out.push(c);
            }
        }
    }
    Ok((out, is_anchored))
}

fn escaped(out: &mut String, c: char) {
    // `\<` and `\>` are no word boundaries: URIs stand in angle brackets, and some escape them.
    if c.is_ascii_alphanumeric() || (c.is_ascii_punctuation() && !matches!(c, '<' | '>')) {
        out.push('\\');
    }
    out.push(c);
}

fn bracket(out: &mut String, chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<(), String> {
    let open = || "a bracket has no end".to_owned();
    out.push('[');
    if chars.next_if_eq(&'^').is_some() {
        out.push('^');
    }
    if chars.next_if_eq(&']').is_some() {
        out.push_str("\\]");
    }
    let mut last = ' ';
    loop {
        let c = chars.next().ok_or_else(open)?;
        match c {
            ']' => {
                out.push(']');
                return Ok(());
            }
            '[' => match chars.next_if(|c| matches!(c, ':' | '.' | '=')) {
                Some(kind) => named(out, kind, chars)?,
                None => out.push_str("\\["),
            },
            '\\' => escaped(out, chars.next().ok_or_else(open)?),
            '&' | '~' => out.extend(['\\', c]),
            // The second of two is the end of a range.
            '-' if last == '-' => out.push_str("\\-"),
            c => out.push(c),
        }
        last = c;
    }
}

/// `[:digit:]`, and `[.x.]` and `[=x=]` for one character.
fn named(out: &mut String, kind: char, chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<(), String> {
    let mut name = String::new();
    loop {
        let c = chars.next().ok_or("a bracket has no end")?;
        if c == kind && chars.next_if_eq(&']').is_some() {
            break;
        }
        name.push(c);
    }
    let mut inside = name.chars();
    match (kind, inside.next(), inside.next()) {
        (':', ..) => out.extend(["[:", &name, ":]"]),
        (_, Some(one), None) => escaped_literal(out, one),
        _ => return Err(format!("it names a collating element, {name:?}: write the character")),
    }
    Ok(())
}

fn escaped_literal(out: &mut String, c: char) {
    if c.is_ascii_punctuation() {
        out.push('\\');
    }
    out.push(c);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_in(pattern: &str, text: &str) -> bool {
        Pattern::compile(pattern, false).unwrap_or_else(|e| panic!("{pattern}: {e}")).is_in(text.as_bytes())
    }

    #[test]
    fn extended_regular_expressions_mean_what_posix_says() {
        for (pattern, text, wanted) in [
            ("audio", "audio 5 RTP/AVP 0", true),
            ("^video", "audio video", false),
            ("^(a|b)+c{2}$", "ababcc", true),
            ("^(a|b)+c{2}$", "ababccc", false),
            ("[[:digit:]]+@[[:alpha:]]", "12@x", true),
            ("[]x]", "]", true),
            ("[^]x]", "]x", false),
            ("[[.-.]a]", "-", true),
            ("[a&&b]", "&", true),
            ("[a~~b]", "~", true),
            ("[+--]", ",", true),
            ("[x[y]", "[", true),
            ("[\\*\\+]", "*", true),
            ("^\\*[0-9]{2}@", "*21@ims", true),
            ("\\<sip:.+\\>", "x <sip:a>", true),
            ("\\<sip:.+\\>", "x sip:a", false),
            ("\\bqu\\b", "quux", false),
            ("\\d+\\s\\w", "1 x", true),
            ("ö+", "schööön", true),
            ("[a-z]", "Q", false),
            ("(?i)[a-z]", "Q", true),
            ("a.b", "a\nb", true),
            (".*", "", true),
            ("^.*$", "\u{e9}", true),
            ("", "x", true),
        ] {
            assert_eq!(is_in(pattern, text), wanted, "{pattern} in {text}");
        }
        assert!(Pattern::compile("event", true).unwrap().is_in(b"Event"));
        assert!(Pattern::compile("a.c", false).unwrap().is_in(b"a\xffc"), "bytes that are no UTF-8");
    }

    #[test]
    fn a_wildcarded_identity_is_matched_as_a_whole() {
        let is_in = |text: &str| {
            Pattern::wildcard("sip:pbx!(1|22)[0-9]*!@ims.example").unwrap().unwrap().is_in(text.as_bytes())
        };
        assert!(is_in("sip:pbx1@ims.example") && is_in("sip:pbx2299@ims.example"));
        assert!(!is_in("sip:pbx3@ims.example") && !is_in("sip:pbx1@imsxexample") && !is_in("xsip:pbx1@ims.example"));
        assert!(Pattern::wildcard("sip:plain@ims.example").is_none() && Pattern::wildcard("a!b!c!d").is_none());
        assert!(Pattern::wildcard("sip:a!(!@b").unwrap().is_err());
    }

    #[test]
    fn what_is_no_expression_is_told_in_a_line() {
        for pattern in
            ["*", "?", "(", "[a", "[[:digit:]", "a\\", "[[.ab.]]", "(a)\\1", "x{100}{100}{100}", "[z-a]", "a{2,1}"]
        {
            let error = Pattern::compile(pattern, false).unwrap_err();
            assert!(!error.is_empty() && !error.contains('\n') && error.len() < 200, "{pattern}: {error}");
        }
        assert!(Pattern::compile(&"a".repeat(MOST_TEXT + 1), false).is_err());
        assert!(Pattern::compile(&"(".repeat(500), false).is_err());
    }

    #[test]
    fn hostile_text_takes_no_time_to_speak_of() {
        let slow = Pattern::compile("(a+)+(b|a)*c[ab]{1,40}$", false).unwrap();
        assert!(!slow.is_in(&[b'a'; 200_000]));
    }

    #[test]
    fn a_pattern_is_compiled_once_and_forgotten_with_its_last_user() {
        let mut patterns = Patterns::default();
        let first = patterns.compile("a", false).unwrap();
        assert!(Arc::ptr_eq(&first, &patterns.compile("a", false).unwrap()));
        assert!(!Arc::ptr_eq(&first, &patterns.compile("a", true).unwrap()));
        for n in 0..1000 {
            patterns.compile(&format!("x{n}"), false).unwrap();
        }
        assert!(patterns.known.len() < 200, "{}", patterns.known.len());
    }
}
