//! From bytes to spans (RFC 3261 7, 25.1). One pass, no copying.
//!
//! Only what is no SIP at all is refused here. Everything else is kept, with its first fault noted, so that a request
//! can still be answered.

use super::{Field, Line, Message, ParseError, Start};
use crate::Name;
use crate::headers::list::{self, is_token};
use bytes::Bytes;
use memchr::{memchr, memchr2, memrchr};

/// The largest message we read: above what UDP carries, below what would hurt.
pub const MAX_MESSAGE: usize = 256 * 1024;
/// The longest header line, folded lines counted together.
pub const MAX_LINE: usize = 16 * 1024;
pub const MAX_FIELDS: usize = 8192;
pub const MAX_URI: usize = 4096;

const UNTERMINATED: ParseError = ParseError::Malformed("the header section does not end with an empty line");
const BARE: ParseError = ParseError::Malformed("a line ends with a bare CR or LF");
const NO_COLON: ParseError = ParseError::Malformed("a header line has no name, or no colon after it");

impl Message {
    /// One datagram, or what the stream framing cut out. Leading CRLFs are skipped; bytes after Content-Length ignored
    /// (UDP, RFC 3261 18.3).
    pub fn parse(bytes: Bytes) -> Result<Self, ParseError> {
        let lead = bytes.iter().position(|b| !matches!(b, b'\r' | b'\n')).ok_or(ParseError::Empty)?;
        let mut reader = Reader { bytes: bytes.get(lead..).unwrap_or_default(), at: 0, fault: None, arena: Vec::new() };
        if reader.bytes.len() > MAX_MESSAGE {
            reader.fail(ParseError::TooLarge(MAX_MESSAGE));
        }
        let start = reader.start_line()?;
        let (fields, content_length) = reader.fields();
        let end = reader.body_end(content_length);
        let Reader { at, fault, arena, .. } = reader;
        let buf = if lead == 0 && end == bytes.len() { bytes } else { bytes.slice(lead..lead + end) };
        let body = if at < end { buf.slice(at..end) } else { Bytes::new() };
        Ok(Self { buf, arena, start, fields, body, touched: false, fault })
    }
}

struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
    fault: Option<ParseError>,
    /// Lines that could not be kept as they are, made sane: only in messages with a fault.
    arena: Vec<u8>,
}

/// A logical line: its end without CRLF, where the next one begins, and whether all its line ends are CRLF.
struct Cut {
    end: usize,
    next: usize,
    clean: bool,
}

impl Reader<'_> {
    fn fail(&mut self, fault: ParseError) {
        self.fault.get_or_insert(fault);
    }

    /// The line at `at`; with `folding`, lines that begin with a blank belong to the one before.
    fn cut(&self, folding: bool) -> Cut {
        let mut from = self.at;
        let mut clean = true;
        while let Some(i) = memchr2(b'\r', b'\n', self.bytes.get(from..).unwrap_or_default()) {
            let end = from + i;
            let next = match (self.bytes.get(end), self.bytes.get(end + 1)) {
                (Some(b'\r'), Some(b'\n')) => end + 2,
                (Some(b'\n'), _) => {
                    clean = false;
                    end + 1
                }
                _ => {
                    clean = false;
                    from = end + 1;
                    continue;
                }
            };
            if folding && end > self.at && matches!(self.bytes.get(next), Some(b' ' | b'\t')) {
                from = next;
                continue;
            }
            return Cut { end, next, clean };
        }
        Cut { end: self.bytes.len(), next: self.bytes.len(), clean: false }
    }

    fn start_line(&mut self) -> Result<Start, ParseError> {
        let cut = self.cut(false);
        let text = self.bytes.get(..cut.end).unwrap_or_default();
        if text.len() > MAX_URI + MAX_LINE {
            return Err(ParseError::LineTooLong(MAX_LINE));
        }
        let mut sane = Vec::new();
        if !cut.clean {
            self.fail(if cut.next == self.bytes.len() { UNTERMINATED } else { BARE });
            sane.extend_from_slice(text);
            super::edit::unfold(&mut sane);
        }
        let text = if cut.clean { text } else { &sane };
        let is_status = text.get(..4).is_some_and(|t| t.eq_ignore_ascii_case(b"SIP/"));
        let line = if is_status { self.status_line(text)? } else { self.request_line(text)? };
        self.at = cut.next;
        let mut len = cut.next as u32;
        if !cut.clean {
            sane.extend_from_slice(b"\r\n");
            len = sane.len() as u32;
            self.arena = sane;
        }
        Ok(Start { at: 0, len, arena: !cut.clean, line })
    }

    /// `Method SP Request-URI SP SIP-Version`, one blank each (RFC 3261 7.1).
    fn request_line(&mut self, text: &[u8]) -> Result<Line, ParseError> {
        let method_len = memchr(b' ', text).ok_or(ParseError::NotSip)?;
        let trimmed = list::trim_end(text);
        let version_at = memrchr(b' ', trimmed).ok_or(ParseError::NotSip)? + 1;
        let version = trimmed.get(version_at..).unwrap_or_default();
        let method = text.get(..method_len).unwrap_or_default();
        let is_sip = version.get(..4).is_some_and(|v| v.eq_ignore_ascii_case(b"SIP/"));
        if method.is_empty() || !method.iter().copied().all(is_token) || !is_sip || version_at <= method_len {
            return Err(ParseError::NotSip);
        }
        let gap = text.get(method_len + 1..version_at.saturating_sub(1)).unwrap_or_default();
        let uri = list::trim(gap);
        if !version.eq_ignore_ascii_case(b"SIP/2.0") {
            self.fail(ParseError::Version);
        }
        if uri.len() > MAX_URI {
            self.fail(ParseError::UriTooLong(MAX_URI));
        }
        if uri.is_empty() {
            self.fail(ParseError::Malformed("the request line has no Request-URI"));
        } else if trimmed.len() != text.len() || uri.len() != gap.len() || memchr2(b' ', b'\t', uri).is_some() {
            self.fail(ParseError::Malformed("the request line has blanks where none belong"));
        }
        let lead = gap.iter().take_while(|b| list::is_blank(**b)).count();
        Ok(Line::Request {
            method_len: method_len as u32,
            uri_at: (method_len + 1 + lead) as u32,
            uri_len: uri.len() as u32,
        })
    }

    /// `SIP-Version SP Status-Code SP Reason-Phrase` (RFC 3261 7.2); the last blank is often forgotten.
    fn status_line(&mut self, text: &[u8]) -> Result<Line, ParseError> {
        let version_len = memchr(b' ', text).ok_or(ParseError::NotSip)?;
        if !text.get(..version_len).is_some_and(|v| v.eq_ignore_ascii_case(b"SIP/2.0")) {
            self.fail(ParseError::Version);
        }
        let rest = text.get(version_len + 1..).unwrap_or_default();
        let code_len = memchr(b' ', rest).unwrap_or(rest.len());
        let status = match rest.get(..code_len) {
            Some([a @ b'1'..=b'6', b @ b'0'..=b'9', c @ b'0'..=b'9']) => {
                u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0')
            }
            _ => {
                self.fail(ParseError::Malformed("the status code is not a number from 100 to 699"));
                0
            }
        };
        let reason_at = (version_len + 1 + code_len + 1).min(text.len());
        Ok(Line::Response { status, reason_at: reason_at as u32, reason_len: (text.len() - reason_at) as u32 })
    }

    /// All header lines up to the empty line, and Content-Length.
    fn fields(&mut self) -> (Vec<Field>, Option<usize>) {
        let mut fields = Vec::with_capacity(28);
        let mut content_length = None;
        loop {
            let cut = self.cut(true);
            if cut.end == self.at && cut.next > cut.end {
                if !cut.clean {
                    self.fail(BARE);
                }
                self.at = cut.next;
                return (fields, content_length);
            }
            if cut.end == self.at {
                self.fail(UNTERMINATED);
                return (fields, content_length);
            }
            if fields.len() >= MAX_FIELDS {
                self.fail(ParseError::TooManyHeaders(MAX_FIELDS));
                self.at = self.bytes.len();
                return (fields, content_length);
            }
            if let Some(field) = self.field(&cut) {
                if field.name == Name::ContentLength {
                    let at = field.start as usize + usize::from(field.value_at);
                    let source = if field.arena { &self.arena } else { self.bytes };
                    let value = source.get(at..at + field.value_len as usize).unwrap_or_default();
                    let length = number(value);
                    self.content_length(length, &mut content_length);
                }
                fields.push(field);
            }
            self.at = cut.next;
        }
    }

    /// One header line: `name HCOLON value` (RFC 3261 25.1).
    fn field(&mut self, cut: &Cut) -> Option<Field> {
        let line = self.bytes.get(self.at..cut.end)?;
        if line.len() > MAX_LINE {
            self.fail(ParseError::LineTooLong(MAX_LINE));
        }
        let name_len = line.iter().position(|b| !is_token(*b)).unwrap_or(line.len());
        let name_text = line.get(..name_len)?;
        let after = line.get(name_len..)?;
        let colon = name_len + after.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
        if name_len == 0 || line.get(colon) != Some(&b':') {
            self.fail(NO_COLON);
            return None;
        }
        let tail = line.get(colon + 1..)?;
        let value_at = colon + 1 + tail.iter().take_while(|b| list::is_blank(**b)).count();
        let value = list::trim_end(line.get(value_at..)?);
        let name = Name::parse(name_text);
        if !cut.clean {
            self.fail(if cut.next == self.bytes.len() { UNTERMINATED } else { BARE });
            return Some(super::edit::compose(&mut self.arena, name, name_text, &[value]));
        }
        Some(Field {
            start: self.at as u32,
            len: (cut.next - self.at) as u32,
            value_len: value.len() as u32,
            value_at: u16::try_from(value_at).ok()?,
            name_len: name_len as u16,
            name,
            arena: false,
        })
    }

    fn content_length(&mut self, length: Option<usize>, known: &mut Option<usize>) {
        match (length, *known) {
            (None, _) => self.fail(ParseError::BadContentLength),
            (Some(new), Some(old)) if new != old => self.fail(ParseError::ConflictingContentLength),
            _ => *known = length,
        }
    }

    /// Where the body ends.
    fn body_end(&mut self, content_length: Option<usize>) -> usize {
        let present = self.bytes.len() - self.at;
        match content_length {
            Some(announced) if announced > present => {
                self.fail(ParseError::Truncated { announced, present });
                self.bytes.len()
            }
            Some(announced) => self.at + announced,
            None => self.bytes.len(),
        }
    }
}

/// `1*DIGIT`, at most 18 of them.
pub(crate) fn number(value: &[u8]) -> Option<usize> {
    if value.is_empty() || value.len() > 18 {
        return None;
    }
    value.iter().try_fold(0usize, |n, b| b.is_ascii_digit().then(|| n * 10 + usize::from(b - b'0')))
}
