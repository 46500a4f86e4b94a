//! Cutting header values: blanks, tokens, and comma lists that respect quotes and angle brackets (RFC 3261 7.3.1, 25.1).

/// Blanks between words. CR and LF occur inside a value only as part of folding.
#[inline]
pub(crate) fn is_blank(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | b'\r' | b'\n')
}

pub(crate) const BLANKS: [char; 4] = [' ', '\t', '\r', '\n'];

const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut i = 0;
    while i < 256 {
        let b = i as u8;
        table[i] = b.is_ascii_alphanumeric()
            || matches!(b, b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~');
        i += 1;
    }
    table
};

/// `token` of RFC 3261 25.1.
#[inline]
pub(crate) fn is_token(b: u8) -> bool {
    TOKEN[usize::from(b)]
}

pub(crate) fn is_token_text(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token)
}

#[inline]
pub(crate) fn trim_start(mut text: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = text
        && is_blank(*first)
    {
        text = rest;
    }
    text
}

#[inline]
pub(crate) fn trim_end(mut text: &[u8]) -> &[u8] {
    while let [rest @ .., last] = text
        && is_blank(*last)
    {
        text = rest;
    }
    text
}

#[inline]
pub(crate) fn trim(text: &[u8]) -> &[u8] {
    trim_end(trim_start(text))
}

pub(crate) fn trim_start_str(text: &str) -> &str {
    let at = text.bytes().position(|b| !is_blank(b)).unwrap_or(text.len());
    text.get(at..).unwrap_or_default()
}

#[inline]
pub(crate) fn trim_str(text: &str) -> &str {
    // Blanks are ASCII: cutting them off leaves UTF-8.
    match text.as_bytes() {
        [first, .., last] if !is_blank(*first) && !is_blank(*last) => text,
        _ => text.trim_matches(BLANKS),
    }
}

/// Where the first `stop` outside quotes (and, with `angles`, outside `<...>`) stands.
pub(crate) fn find_outside(text: &[u8], stop: u8, angles: bool) -> Option<usize> {
    if !angles {
        return find_unquoted(text, stop);
    }
    let mut quoted = false;
    let mut inside = false;
    let mut at = 0;
    while let Some(b) = text.get(at) {
        match b {
            b'\\' if quoted => at += 1,
            b'"' if !inside => quoted = !quoted,
            _ if quoted => {}
            b'<' => inside = true,
            b'>' => inside = false,
            b if *b == stop && !inside => return Some(at),
            _ => {}
        }
        at += 1;
    }
    None
}

/// Where the first `stop` outside quotes stands: from quote to quote, not byte by byte.
fn find_unquoted(text: &[u8], stop: u8) -> Option<usize> {
    let mut at = 0;
    loop {
        at += memchr::memchr2(b'"', stop, text.get(at..)?)?;
        if text.get(at) == Some(&stop) {
            return Some(at);
        }
        at += 1;
        loop {
            at += memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
            if text.get(at) == Some(&b'"') {
                break;
            }
            at += 2;
        }
        at += 1;
    }
}

/// The values of a comma list, without the blanks around them; the whole value when it is no list.
#[inline]
pub fn split(value: &[u8], is_list: bool) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(value);
    std::iter::from_fn(move || {
        let text = rest?;
        // Most lines hold one value: one fast look tells.
        let comma = if is_list && memchr::memchr(b',', text).is_some() { find_outside(text, b',', true) } else { None };
        let (item, after) = match comma {
            Some(at) => (text.get(..at).unwrap_or_default(), text.get(at + 1..)),
            None => (text, None),
        };
        rest = after;
        Some(trim(item))
    })
}

/// The first value of a list; it begins where the list begins.
#[inline]
pub(crate) fn first(value: &[u8]) -> &[u8] {
    if memchr::memchr(b',', value).is_none() {
        return value;
    }
    match find_outside(value, b',', true) {
        Some(at) => trim_end(value.get(..at).unwrap_or_default()),
        None => value,
    }
}

/// Where the second value of a list begins.
pub(crate) fn second_at(value: &[u8]) -> Option<usize> {
    memchr::memchr(b',', value)?;
    let comma = find_outside(value, b',', true)?;
    let rest = value.get(comma + 1..)?;
    let begin = trim_start(rest);
    (!begin.is_empty()).then(|| value.len() - begin.len())
}

/// Splits at the end of a quoted string that `text` begins with: (between the quotes, after them).
pub(crate) fn quoted(text: &str) -> Option<(&str, &str)> {
    let inner = text.strip_prefix('"')?;
    let mut at = 0;
    let bytes = inner.as_bytes();
    loop {
        match bytes.get(at)? {
            b'"' => return Some((inner.get(..at)?, inner.get(at + 1..)?)),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// A quoted string or a bare word, quotes taken off; escapes stay.
pub(crate) fn unquote(text: &str) -> &str {
    match quoted(text) {
        Some((inner, rest)) if trim_str(rest).is_empty() => inner,
        _ => text,
    }
}

/// Takes `\x` escapes away.
pub(crate) fn unescape(text: &str) -> std::borrow::Cow<'_, str> {
    if !text.contains('\\') {
        return text.into();
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    out.into()
}

/// `name=value` cut at the first `=`: names are short, so it is near.
#[inline]
pub(crate) fn split_pair(text: &str) -> Option<(&str, &str)> {
    let at = text.bytes().position(|b| b == b'=')?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

/// Puts `"` around a text, escaping what must be escaped.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Vec<&str> {
        split(text.as_bytes(), true).map(|v| std::str::from_utf8(v).unwrap()).collect()
    }

    #[test]
    fn lists_respect_quotes_and_brackets() {
        assert_eq!(values("a , b"), ["a", "b"]);
        assert_eq!(values("\"Bell, A.\" <sip:a,b@x>, <sip:c>"), ["\"Bell, A.\" <sip:a,b@x>", "<sip:c>"]);
        assert_eq!(values("\"a\\\", b\" <sip:x>,c"), ["\"a\\\", b\" <sip:x>", "c"]);
        assert_eq!(values(""), [""]);
        assert_eq!(values("a,\r\n b"), ["a", "b"]);
        assert_eq!(values("\"open, end"), ["\"open, end"]);
    }

    #[test]
    fn looking_from_quote_to_quote_finds_what_looking_at_each_byte_finds() {
        let slow = |text: &[u8]| {
            let (mut quoted, mut escaped) = (false, false);
            text.iter().position(|b| {
                let stops = *b == b',' && !quoted;
                match b {
                    _ if escaped => escaped = false,
                    b'\\' if quoted => escaped = true,
                    b'"' => quoted = !quoted,
                    _ => {}
                }
                stops
            })
        };
        for number in 0..4usize.pow(7) {
            let text: Vec<u8> = (0..7).map(|digit| b"a,\"\\"[number >> (2 * digit) & 3]).collect();
            assert_eq!(find_outside(&text, b',', false), slow(&text), "{}", text.escape_ascii());
        }
    }

    #[test]
    fn the_first_and_the_second() {
        assert_eq!(first(b"a , b"), b"a");
        assert_eq!(second_at(b"a , b, c"), Some(4));
        assert_eq!(second_at(b"a,"), None);
        assert_eq!(second_at(b"\"a,b\" <sip:c>"), None);
    }

    #[test]
    fn quotes_come_off_and_go_on() {
        assert_eq!(unquote("\"a b\" "), "a b");
        assert_eq!(unquote("a"), "a");
        assert_eq!(unescape("a\\\"b\\\\"), "a\"b\\");
        assert_eq!(quote("a\"b\\"), "\"a\\\"b\\\\\"");
        assert_eq!(quoted("\"no end"), None);
    }
}
