//! A SIP message: one shared buffer, header spans over it, and the changes made since.
//! SKELETON: signatures are the agreement; bodies belong to the owner of the message layer.

use crate::headers::TypedHeader;
use crate::{Method, Name};
use bytes::Bytes;
use std::fmt::Display;

/// A malformed message. `status` is what a request so broken is answered with, if it can be answered at all.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ParseError {
    #[error("malformed: {0}")]
    Malformed(&'static str),
    // ... more variants by the owner (status() -> u16: 400, 413, 505 ...)
}

/// A typed header could not be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{name}: {reason}")]
pub struct HeaderError {
    pub name: &'static str,
    pub reason: &'static str,
}

#[derive(Clone, Debug)]
pub struct Message {
    _private: (),
}

impl Message {
    /// One datagram, or what the stream framing cut out. Leading CRLFs are skipped; bytes after Content-Length ignored (UDP, RFC 3261 18.3).
    pub fn parse(_bytes: Bytes) -> Result<Self, ParseError> { todo!() }
    /// A new request with nothing but its start line.
    pub fn request(_method: &str, _uri: &str) -> Self { todo!() }
    /// A response to `request` by RFC 3261 8.2.6: Via, From, To, Call-ID, CSeq copied, `to_tag` added to To unless it has a tag already. Reason phrase: the standard one of the status.
    pub fn response(_request: &Self, _status: u16, _to_tag: Option<&str>) -> Self { todo!() }
    /// The same with a reason phrase of one's own.
    pub fn response_with_reason(_request: &Self, _status: u16, _reason: &str, _to_tag: Option<&str>) -> Self { todo!() }

    pub fn is_request(&self) -> bool { todo!() }
    /// Of the start line, or of CSeq in a response.
    pub fn method(&self) -> Method<'_> { todo!() }
    /// Request-URI as written; empty in a response.
    pub fn uri(&self) -> &str { todo!() }
    pub fn set_uri(&mut self, _uri: &str) { todo!() }
    /// 0 in a request.
    pub fn status(&self) -> u16 { todo!() }
    pub fn reason(&self) -> &[u8] { todo!() }
    pub fn body(&self) -> &[u8] { todo!() }
    /// Sets Content-Type and Content-Length too; an empty body removes Content-Type.
    pub fn set_body(&mut self, _content_type: &str, _body: &[u8]) { todo!() }

    /// Raw field values with this name, one per header line, in order (folding still inside).
    pub fn raw(&self, _name: Name) -> impl Iterator<Item = &[u8]> { std::iter::empty() }
    /// The same by text, for names we do not know. Case-insensitive.
    pub fn raw_named(&self, _name: &str) -> impl Iterator<Item = &[u8]> { std::iter::empty() }
    /// All header lines in order: (name as written, value).
    pub fn lines(&self) -> impl Iterator<Item = (&[u8], &[u8])> { std::iter::empty() }
    pub fn has(&self, _name: Name) -> bool { todo!() }
    /// First field value as text (unfolded by the caller's parser); None when absent or not UTF-8.
    pub fn text(&self, _name: Name) -> Option<&str> { todo!() }

    /// The first value of a typed header; Ok(None) when absent.
    pub fn first<'a, H: TypedHeader<'a>>(&'a self) -> Result<Option<H>, HeaderError> { todo!() }
    /// Like `first`, absent is an error.
    pub fn require<'a, H: TypedHeader<'a>>(&'a self) -> Result<H, HeaderError> { todo!() }
    /// All values over all lines, comma lists split, in order.
    pub fn all<'a, H: TypedHeader<'a>>(&'a self) -> Result<Vec<H>, HeaderError> { todo!() }
    /// All comma-separated tokens of a list header (Require, Supported, ...).
    pub fn tokens(&self, _name: Name) -> Vec<&str> { todo!() }
    pub fn has_token(&self, _name: Name, _token: &str) -> bool { todo!() }

    /// Replaces all fields of that name by one, at the place of the first (or at the end).
    pub fn set(&mut self, _name: Name, _value: impl Display) { todo!() }
    pub fn set_named(&mut self, _name: &str, _value: impl Display) { todo!() }
    /// A new line before the first of that name (or, if none, on top of all headers).
    pub fn push_front(&mut self, _name: Name, _value: impl Display) { todo!() }
    /// A new line after the last of that name (or at the end).
    pub fn push_back(&mut self, _name: Name, _value: impl Display) { todo!() }
    /// A new line at the end, for names we do not know.
    pub fn push_named(&mut self, _name: &str, _value: impl Display) { todo!() }
    /// Copies all fields of that name from another message, byte for byte, replacing ours.
    pub fn copy(&mut self, _name: Name, _from: &Self) { todo!() }
    /// Removes all; says how many.
    pub fn remove(&mut self, _name: Name) -> usize { todo!() }
    pub fn remove_named(&mut self, _name: &str) -> usize { todo!() }
    /// Removes the first *value* (also out of a comma list): the topmost Via, Route, ...
    pub fn pop_first(&mut self, _name: Name) -> bool { todo!() }
    /// Replaces the first *value* only, the rest of the line and of the list stays byte for byte.
    pub fn replace_first(&mut self, _name: Name, _value: impl Display) { todo!() }
    /// Removes one option tag from a token-list header, and the header when it gets empty.
    pub fn remove_token(&mut self, _name: Name, _token: &str) -> bool { todo!() }

    /// The message on the wire: untouched fields byte for byte and in their order. Content-Length is always right.
    pub fn to_bytes(&self) -> Bytes { todo!() }

    /// Checks what every element must check (RFC 3261 8.1.1, 16.3): the mandatory headers there and readable.
    pub fn check(&self) -> Result<(), ParseError> { todo!() }
}
