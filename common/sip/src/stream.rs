//! Cutting messages out of a byte stream (RFC 3261 7.5, 18.3; keep-alive RFC 5626 4.4.1). Used by the shell for TCP.

use crate::Name;
use bytes::{Buf, Bytes, BytesMut};
use memchr::{memchr, memmem};

/// A header section longer than this is no SIP we want, whatever the limit of the whole message.
pub const MAX_HEAD: usize = 64 * 1024;

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    #[error("no Content-Length in a message on a stream")]
    NoContentLength,
    #[error("Content-Length is not a number, or there are two that differ")]
    BadContentLength,
    #[error("message larger than the limit")]
    TooLarge,
    #[error("not SIP")]
    NotSip,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame {
    Message(Bytes),
    /// CRLFCRLF keep-alive, RFC 5626 4.4.1: answer with CRLF.
    Ping,
}

pub struct Framer {
    limit: usize,
    /// How much of the buffer holds no end of the header section: not looked at again.
    searched: usize,
    /// Header and body length of the message that is coming in.
    size: Option<usize>,
}

impl Framer {
    /// `limit`: bytes of a whole message.
    pub fn new(limit: usize) -> Self {
        Self { limit, searched: 0, size: None }
    }

    /// Takes what is whole out of `buffer`; None: more bytes are needed. After an error the stream cannot be followed
    /// any more: close it.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        if self.size.is_none() {
            if let Some(ping) = self.line_ends(buffer) {
                return Ok(ping.then_some(Frame::Ping));
            }
            let Some(head) = self.head(buffer)? else {
                return Ok(None);
            };
            let body = content_length(buffer.get(..head).unwrap_or_default())?;
            let size = head.saturating_add(body);
            if size > self.limit {
                return Err(FrameError::TooLarge);
            }
            self.size = Some(size);
        }
        match self.size {
            Some(size) if buffer.len() >= size => {
                self.size = None;
                self.searched = 0;
                Ok(Some(Frame::Message(buffer.split_to(size).freeze())))
            }
            _ => Ok(None),
        }
    }

    /// Between messages: CRLFCRLF is a ping, other line ends are skipped. `Some(false)`: wait for more.
    fn line_ends(&mut self, buffer: &mut BytesMut) -> Option<bool> {
        if self.searched > 0 {
            return None;
        }
        loop {
            match buffer.as_ref() {
                [b'\r', b'\n', b'\r', b'\n', ..] => {
                    buffer.advance(4);
                    return Some(true);
                }
                [] | [b'\r'] | [b'\r', b'\n'] | [b'\r', b'\n', b'\r'] => return Some(false),
                [b'\r', b'\n', ..] => buffer.advance(2),
                [b'\r' | b'\n', ..] => buffer.advance(1),
                _ => return None,
            }
        }
    }

    /// Where the header section ends.
    fn head(&mut self, buffer: &[u8]) -> Result<Option<usize>, FrameError> {
        looks_like_sip(buffer)?;
        let from = self.searched.saturating_sub(3);
        match memmem::find(buffer.get(from..).unwrap_or_default(), b"\r\n\r\n") {
            Some(at) if from + at + 4 > MAX_HEAD.min(self.limit) => Err(FrameError::TooLarge),
            Some(at) => Ok(Some(from + at + 4)),
            None if buffer.len() >= MAX_HEAD.min(self.limit) => Err(FrameError::TooLarge),
            None => {
                self.searched = buffer.len();
                Ok(None)
            }
        }
    }
}

/// At a glance, without parsing: whether a message that we or a peer of ours wrote is a response.
pub fn is_response(message: &[u8]) -> bool {
    message.starts_with(b"SIP/2.0 ")
}

/// At a glance, without parsing: whether a message goes on with something that has begun. An answer, a request inside a dialog (its To
/// has a tag), or one that answers a challenge (its credentials have a nonce).
pub fn continues(message: &[u8]) -> bool {
    if is_response(message) {
        return true;
    }
    for line in message.split(|b| *b == b'\n').skip(1) {
        let Some(colon) = memchr(b':', line) else {
            if line.trim_ascii().is_empty() {
                return false;
            }
            continue;
        };
        if !matches!(line.first(), Some(b't' | b'T' | b'a' | b'A' | b'p' | b'P')) {
            continue;
        }
        let (name, value) = line.split_at(colon);
        let goes_on = match Name::parse(name.trim_ascii_end()) {
            Name::To => parameter(value, b";tag=").is_some_and(|tag| !tag.is_empty()),
            Name::Authorization | Name::ProxyAuthorization => {
                parameter(value, b"nonce=\"").is_some_and(|nonce| nonce.first() != Some(&b'"'))
            }
            _ => false,
        };
        if goes_on {
            return true;
        }
    }
    false
}

/// What follows `name`, wherever it stands.
fn parameter<'a>(value: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let at = value.windows(name.len()).position(|w| w.eq_ignore_ascii_case(name))?;
    value.get(at + name.len()..).map(<[u8]>::trim_ascii)
}

/// The first line, as far as it is there, is printable and names SIP.
fn looks_like_sip(buffer: &[u8]) -> Result<(), FrameError> {
    let end = memchr(b'\n', buffer);
    let line = buffer.get(..end.unwrap_or(buffer.len().min(64))).unwrap_or_default();
    if line.iter().any(|b| b.is_ascii_control() && !matches!(b, b'\r' | b'\t')) {
        return Err(FrameError::NotSip);
    }
    let names_sip = |line: &[u8]| line.windows(4).any(|w| w.eq_ignore_ascii_case(b"SIP/"));
    match end {
        Some(_) if !names_sip(line) => Err(FrameError::NotSip),
        _ => Ok(()),
    }
}

/// Mandatory on a stream (RFC 3261 18.3).
fn content_length(head: &[u8]) -> Result<usize, FrameError> {
    let mut found = None;
    for line in head.split(|b| *b == b'\n').skip(1) {
        let Some(colon) = memchr(b':', line) else { continue };
        let name = line.get(..colon).unwrap_or_default();
        if !matches!(name.first(), Some(b'c' | b'C' | b'l' | b'L'))
            || Name::parse(name.trim_ascii_end()) != Name::ContentLength
        {
            continue;
        }
        let value = line.get(colon + 1..).unwrap_or_default().trim_ascii();
        let length = crate::message::number(value).ok_or(FrameError::BadContentLength)?;
        if found.is_some_and(|known| known != length) {
            return Err(FrameError::BadContentLength);
        }
        found = Some(length);
    }
    found.ok_or(FrameError::NoContentLength)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "OPTIONS sip:a SIP/2.0\r\nl : 4\r\n\r\nbody";

    #[test]
    fn at_a_glance_what_has_begun_is_told_from_what_begins() {
        let register = |more: &str| {
            format!("REGISTER sip:a SIP/2.0\r\nVia: SIP/2.0/UDP a;tag=1\r\n{more}\r\n\r\nTo: <sip:a>;tag=1\r\n")
        };
        assert!(continues(TWO.as_bytes()));
        for more in [
            "To: <sip:a>;tag=1",
            "t : sip:a ;x;TAG=1",
            "TO:a\r\nAuthorization: Digest username=\"a\", nonce=\"b\"",
            "Proxy-Authorization: Digest NONCE=\"b\"",
        ] {
            assert!(continues(register(more).as_bytes()), "{more}");
        }
        for more in [
            "To: <sip:a>",
            "To: <sip:a>;tag=",
            "From: <sip:a>;tag=1\r\nTo: <sip:a>",
            "Authorization: Digest username=\"a\", nonce=\"\", response=\"\"",
            "Accept: nonce=\"b\"",
        ] {
            assert!(!continues(register(more).as_bytes()), "{more}");
        }
        assert!(!continues(b"") && !continues(b"\r\n\r\n") && !continues(b"REGISTER"));
    }

    const TWO: &str = "SIP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n";

    fn frames(framer: &mut Framer, buffer: &mut BytesMut) -> Vec<Frame> {
        std::iter::from_fn(|| framer.next(buffer).unwrap()).collect()
    }

    #[test]
    fn messages_and_pings_come_out_however_the_bytes_arrive() {
        let stream = format!("\r\n{ONE}\r\n\r\n{TWO}{TWO}\r\n\r\n\r\n\r\n");
        let message = |text: &'static str| Frame::Message(Bytes::from_static(text.as_bytes()));
        let expected = [message(ONE), Frame::Ping, message(TWO), message(TWO), Frame::Ping, Frame::Ping];
        for step in 1..=stream.len() {
            let (mut framer, mut buffer, mut got) = (Framer::new(4096), BytesMut::new(), Vec::new());
            for piece in stream.as_bytes().chunks(step) {
                buffer.extend_from_slice(piece);
                got.extend(frames(&mut framer, &mut buffer));
            }
            assert_eq!(got, expected, "in pieces of {step}");
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn what_cannot_be_framed_is_an_error() {
        for (text, why) in [
            ("OPTIONS sip:a SIP/2.0\r\nVia: x\r\n\r\n", FrameError::NoContentLength),
            ("OPTIONS sip:a SIP/2.0\r\nContent-Length: x\r\n\r\n", FrameError::BadContentLength),
            ("OPTIONS sip:a SIP/2.0\r\nl: -1\r\n\r\n", FrameError::BadContentLength),
            ("OPTIONS sip:a SIP/2.0\r\nl: 1\r\nl: 2\r\n\r\n", FrameError::BadContentLength),
            ("OPTIONS sip:a SIP/2.0\r\nl: 99999\r\n\r\n", FrameError::TooLarge),
            ("OPTIONS sip:a SIP/2.0\r\nl: 999999999999999999\r\n\r\n", FrameError::TooLarge),
            ("GET / HTTP/1.1\r\n", FrameError::NotSip),
            ("\x16\x03\x01", FrameError::NotSip),
        ] {
            assert_eq!(Framer::new(4096).next(&mut BytesMut::from(text)), Err(why), "{text}");
        }
        let endless = format!("OPTIONS sip:a SIP/2.0\r\nX: {}", "x".repeat(5000));
        assert_eq!(Framer::new(4096).next(&mut BytesMut::from(endless.as_str())), Err(FrameError::TooLarge));
    }
}
