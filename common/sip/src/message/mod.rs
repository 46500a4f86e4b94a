//! A SIP message: one shared buffer, header spans over it, and the changes made since.
//!
//! What nobody touched goes out as it came in, byte for byte and in its order. Header values are read only when asked
//! for. Reading is lenient so that a broken request can still be answered; [`Message::check`] says what is wrong.

mod check;
mod edit;
mod parse;
#[cfg(test)]
mod tests;

pub use crate::error::{HeaderError, ParseError};
pub use check::MAX_CSEQ;
pub(crate) use parse::number;
pub use parse::{MAX_FIELDS, MAX_LINE, MAX_MESSAGE, MAX_URI};

use crate::headers::{TypedHeader, list};
use crate::{Method, Name};
use bytes::Bytes;
use std::fmt;

/// One header line: where it lies, and where its name and value lie in it.
#[derive(Clone, Copy, Debug)]
struct Field {
    start: u32,
    /// With its CRLF.
    len: u32,
    value_len: u32,
    value_at: u16,
    name_len: u16,
    name: Name,
    /// Written by us: lies in `arena`; otherwise in `buf`.
    arena: bool,
}

#[derive(Clone, Copy, Debug)]
enum Line {
    Request { method_len: u32, uri_at: u32, uri_len: u32 },
    Response { status: u16, reason_at: u32, reason_len: u32 },
}

#[derive(Clone, Copy, Debug)]
struct Start {
    at: u32,
    /// With its CRLF.
    len: u32,
    arena: bool,
    line: Line,
}

#[derive(Clone)]
pub struct Message {
    /// From the first byte of the start line to the last byte of the body.
    buf: Bytes,
    /// Lines that were changed or added.
    arena: Vec<u8>,
    start: Start,
    fields: Vec<Field>,
    body: Bytes,
    touched: bool,
    /// The first thing that was wrong when the bytes were read.
    fault: Option<ParseError>,
}

/// How a field is looked for.
#[derive(Clone, Copy)]
enum Key<'k> {
    Known(Name),
    Text(&'k str),
}

impl<'k> Key<'k> {
    fn of(text: &'k str) -> Self {
        match Name::parse(text.as_bytes()) {
            Name::Other => Self::Text(text),
            name => Self::Known(name),
        }
    }

    fn text(self) -> &'k str {
        match self {
            Self::Known(name) => name.as_str(),
            Self::Text(text) => text,
        }
    }
}

/// The head, for tests and traces, without credentials and challenges: CK and IK may stand in them.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_request() {
            true => writeln!(f, "{} {}", self.method(), self.uri())?,
            false => writeln!(f, "{} {}", self.status(), self.reason().escape_ascii())?,
        }
        for (name, value) in self.lines() {
            let secret = name.to_ascii_lowercase().windows(5).any(|w| w == b"authe" || w == b"autho");
            match secret {
                true => writeln!(f, "{}: ({} bytes)", name.escape_ascii(), value.len())?,
                false => writeln!(f, "{}: {}", name.escape_ascii(), value.escape_ascii())?,
            }
        }
        write!(f, "({} bytes of body)", self.body().len())
    }
}

impl Message {
    pub fn is_request(&self) -> bool {
        matches!(self.start.line, Line::Request { .. })
    }

    /// Of the start line, or of CSeq in a response.
    pub fn method(&self) -> Method<'_> {
        let text = match self.start.line {
            Line::Request { method_len, .. } => self.start_part(0, method_len),
            Line::Response { .. } => {
                let cseq = self.value_of(Key::Known(Name::CSeq)).unwrap_or_default();
                let at = cseq.iter().position(|b| !b.is_ascii_digit()).unwrap_or(cseq.len());
                list::trim(cseq.get(at..).unwrap_or_default())
            }
        };
        Method::parse_bytes(text)
    }

    /// Request-URI as written; empty in a response.
    pub fn uri(&self) -> &str {
        match self.start.line {
            Line::Request { uri_at, uri_len, .. } => {
                std::str::from_utf8(self.start_part(uri_at, uri_len)).unwrap_or_default()
            }
            Line::Response { .. } => "",
        }
    }

    /// 0 in a request.
    pub fn status(&self) -> u16 {
        match self.start.line {
            Line::Request { .. } => 0,
            Line::Response { status, .. } => status,
        }
    }

    /// Empty in a request.
    pub fn reason(&self) -> &[u8] {
        match self.start.line {
            Line::Request { .. } => &[],
            Line::Response { reason_at, reason_len, .. } => self.start_part(reason_at, reason_len),
        }
    }

    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The body as a share of the buffer.
    pub fn body_bytes(&self) -> Bytes {
        self.body.clone()
    }

    /// What was wrong with the bytes already when they were read (part of [`Message::check`]).
    pub fn fault(&self) -> Option<&ParseError> {
        self.fault.as_ref()
    }

    /// Raw field values with this name, one per header line, in order (folding still inside).
    pub fn raw(&self, name: Name) -> impl Iterator<Item = &[u8]> {
        self.matching(Key::Known(name)).map(|f| self.value(f))
    }

    /// The same by text, for names we do not know. Case-insensitive.
    pub fn raw_named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.matching(Key::of(name)).map(|f| self.value(f))
    }

    /// All header lines in order: (name as written, value).
    pub fn lines(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.iter().map(|f| (self.name_text(f), self.value(f)))
    }

    pub fn has(&self, name: Name) -> bool {
        self.fields.iter().any(|f| f.name == name)
    }

    /// First field value as text (folding still inside); None when absent or not UTF-8.
    pub fn text(&self, name: Name) -> Option<&str> {
        self.value_of(Key::Known(name)).and_then(|v| std::str::from_utf8(v).ok())
    }

    /// The first value of a typed header; Ok(None) when absent.
    pub fn first<'a, H: TypedHeader<'a>>(&'a self) -> Result<Option<H>, HeaderError> {
        let Some(value) = self.value_of(Key::Known(H::NAME)) else {
            return Ok(None);
        };
        let value = if H::LIST { list::first(value) } else { value };
        H::parse_bytes(value).map(Some)
    }

    /// Like `first`, absent is an error.
    pub fn require<'a, H: TypedHeader<'a>>(&'a self) -> Result<H, HeaderError> {
        self.first()?.ok_or(HeaderError { name: H::NAME.as_str(), reason: "is missing" })
    }

    /// All values over all lines, comma lists split, in order.
    pub fn all<'a, H: TypedHeader<'a>>(&'a self) -> Result<Vec<H>, HeaderError> {
        self.each().collect()
    }

    /// Like `all`, one by one: a value that cannot be read does not hide the others.
    pub fn each<'a, H: TypedHeader<'a>>(&'a self) -> impl Iterator<Item = Result<H, HeaderError>> {
        self.matching(Key::Known(H::NAME)).flat_map(|f| list::split(self.value(f), H::LIST)).map(H::parse_bytes)
    }

    /// All comma-separated tokens of a list header (Require, Supported, ...).
    pub fn tokens(&self, name: Name) -> Vec<&str> {
        self.token_values(name).collect()
    }

    pub fn has_token(&self, name: Name, token: &str) -> bool {
        self.token_values(name).any(|t| t.eq_ignore_ascii_case(token))
    }

    fn token_values(&self, name: Name) -> impl Iterator<Item = &str> {
        self.matching(Key::Known(name))
            .flat_map(|f| list::split(self.value(f), true))
            .filter_map(|v| std::str::from_utf8(v).ok())
            .filter(|v| !v.is_empty())
    }

    #[inline]
    fn source(&self, arena: bool) -> &[u8] {
        if arena { &self.arena } else { &self.buf }
    }

    #[inline]
    fn slice(&self, arena: bool, at: u32, len: u32) -> &[u8] {
        let at = at as usize;
        self.source(arena).get(at..at + len as usize).unwrap_or_default()
    }

    fn start_part(&self, at: u32, len: u32) -> &[u8] {
        self.slice(self.start.arena, self.start.at + at, len)
    }

    fn line_text(&self, f: &Field) -> &[u8] {
        self.slice(f.arena, f.start, f.len)
    }

    fn name_text(&self, f: &Field) -> &[u8] {
        self.slice(f.arena, f.start, u32::from(f.name_len))
    }

    #[inline]
    fn value(&self, f: &Field) -> &[u8] {
        self.slice(f.arena, f.start + u32::from(f.value_at), f.value_len)
    }

    #[inline]
    fn is(&self, f: &Field, key: Key<'_>) -> bool {
        match key {
            Key::Known(name) => f.name == name,
            Key::Text(text) => f.name == Name::Other && self.name_text(f).eq_ignore_ascii_case(text.as_bytes()),
        }
    }

    #[inline]
    fn matching<'a, 'k: 'a>(&'a self, key: Key<'k>) -> impl Iterator<Item = &'a Field> {
        self.fields.iter().filter(move |f| self.is(f, key))
    }

    #[inline]
    fn value_of(&self, key: Key<'_>) -> Option<&[u8]> {
        self.fields.iter().find(|f| self.is(f, key)).map(|f| self.value(f))
    }
}
