//! Building and changing messages, and writing them out.

use super::{Field, Key, Line, Message, Start};
use crate::Name;
use crate::headers::list;
use crate::status::reason_phrase;
use bytes::Bytes;
use std::fmt::{Display, Write};

/// Room made for a line of ours: more than most need. Where there is one there will be others.
const WRITTEN: usize = 160;
const FIRST_WRITTEN: usize = 640;

impl Message {
    /// A new request with nothing but its start line.
    pub fn request(method: &str, uri: &str) -> Self {
        let mut message = Self::empty();
        message.start = write_request_line(&mut message.arena, method, uri);
        message
    }

    /// A response to `request` by RFC 3261 8.2.6: Via, From, To, Call-ID, CSeq copied (and Timestamp into a 100),
    /// `to_tag` added to To unless it has a tag already. Reason phrase: the standard one of the status.
    pub fn response(request: &Self, status: u16, to_tag: Option<&str>) -> Self {
        Self::response_with_reason(request, status, reason_phrase(status), to_tag)
    }

    /// The same with a reason phrase of one's own.
    pub fn response_with_reason(request: &Self, status: u16, reason: &str, to_tag: Option<&str>) -> Self {
        let mut message = Self::empty();
        message.buf = request.buf.clone();
        let at = message.arena.len() as u32;
        let _ = write!(Clean(&mut message.arena), "SIP/2.0 {status:03} {reason}");
        let reason_at = "SIP/2.0 200 ".len() as u32;
        let reason_len = (message.arena.len() as u32 - at).saturating_sub(reason_at);
        message.arena.extend_from_slice(b"\r\n");
        let len = message.arena.len() as u32 - at;
        message.start = Start { at, len, arena: true, line: Line::Response { status, reason_at, reason_len } };
        for field in request.matching(Key::Known(Name::Via)) {
            message.adopt(request, field);
        }
        for name in [Name::From, Name::To, Name::CallId, Name::CSeq] {
            if let Some(field) = request.fields.iter().find(|f| f.name == name) {
                match to_tag {
                    Some(tag) if name == Name::To && !request.has_to_tag() => {
                        let parts = [request.value(field), b";tag=", tag.as_bytes()];
                        let field = compose(&mut message.arena, Name::To, request.name_text(field), &parts);
                        message.fields.push(field);
                    }
                    _ => message.adopt(request, field),
                }
            }
        }
        if status == 100
            && let Some(field) = request.fields.iter().find(|f| f.name == Name::Timestamp)
        {
            message.adopt(request, field);
        }
        message
    }

    fn empty() -> Self {
        let line = Line::Request { method_len: 0, uri_at: 0, uri_len: 0 };
        Self {
            buf: Bytes::new(),
            arena: Vec::with_capacity(512),
            start: Start { at: 0, len: 0, arena: true, line },
            fields: Vec::with_capacity(16),
            body: Bytes::new(),
            touched: true,
            fault: None,
        }
    }

    fn has_to_tag(&self) -> bool {
        match self.first::<crate::headers::To<'_>>() {
            Ok(Some(to)) => to.tag().is_some(),
            Ok(None) => false,
            Err(_) => self.value_of(Key::Known(Name::To)).is_some_and(|v| {
                v.split(|b| *b == b';').any(|p| list::trim(p).get(..4).is_some_and(|t| t.eq_ignore_ascii_case(b"tag=")))
            }),
        }
    }

    /// A field of another message; spans may be kept when both look at the same buffer.
    fn adopt(&mut self, from: &Self, field: &Field) {
        let field = if field.arena || self.buf.as_ptr() != from.buf.as_ptr() || self.buf.len() != from.buf.len() {
            let start = self.arena.len() as u32;
            self.arena.extend_from_slice(from.line_text(field));
            Field { start, arena: true, ..*field }
        } else {
            *field
        };
        self.fields.push(field);
    }

    pub fn set_uri(&mut self, uri: &str) {
        if !self.is_request() {
            return;
        }
        let method = self.method().as_str().to_owned();
        self.start = write_request_line(&mut self.arena, &method, uri);
        self.touched = true;
    }

    /// Sets Content-Type and Content-Length too; an empty body removes Content-Type.
    pub fn set_body(&mut self, content_type: &str, body: &[u8]) {
        self.body = Bytes::copy_from_slice(body);
        if body.is_empty() {
            self.remove(Name::ContentType);
        } else {
            self.set(Name::ContentType, content_type);
        }
        self.set(Name::ContentLength, body.len());
    }

    /// Replaces all fields of that name by one, at the place of the first (or at the end).
    pub fn set(&mut self, name: Name, value: impl Display) {
        debug_assert!(name != Name::Other, "a field that has no Name is set with set_named");
        self.set_key(Key::Known(name), value);
    }

    pub fn set_named(&mut self, name: &str, value: impl Display) {
        self.set_key(Key::of(name), value);
    }

    fn set_key(&mut self, key: Key<'_>, value: impl Display) {
        let field = self.written(key, value);
        let at = self.fields.iter().position(|f| self.is(f, key));
        self.remove_key(key);
        self.fields.insert(at.unwrap_or(self.fields.len()), field);
    }

    /// A new line before the first of that name (or, if none, on top of all headers).
    pub fn push_front(&mut self, name: Name, value: impl Display) {
        let field = self.written(Key::Known(name), value);
        let at = self.fields.iter().position(|f| f.name == name).unwrap_or(0);
        self.fields.insert(at, field);
    }

    /// A new line after the last of that name (or at the end).
    pub fn push_back(&mut self, name: Name, value: impl Display) {
        let field = self.written(Key::Known(name), value);
        let at = self.fields.iter().rposition(|f| f.name == name).map_or(self.fields.len(), |i| i + 1);
        self.fields.insert(at, field);
    }

    /// A new line at the end, for names we do not know.
    pub fn push_named(&mut self, name: &str, value: impl Display) {
        let field = self.written(Key::of(name), value);
        self.fields.push(field);
    }

    /// Copies all fields of that name from another message, byte for byte, replacing ours (at the place of our first,
    /// or at the end).
    pub fn copy(&mut self, name: Name, from: &Self) {
        let at = self.fields.iter().position(|f| f.name == name);
        self.remove(name);
        let tail = self.fields.split_off(at.unwrap_or(self.fields.len()).min(self.fields.len()));
        for field in from.matching(Key::Known(name)) {
            self.adopt(from, field);
        }
        self.fields.extend(tail);
        self.touched = true;
    }

    /// Removes all; says how many.
    pub fn remove(&mut self, name: Name) -> usize {
        self.remove_key(Key::Known(name))
    }

    pub fn remove_named(&mut self, name: &str) -> usize {
        self.remove_key(Key::of(name))
    }

    fn remove_key(&mut self, key: Key<'_>) -> usize {
        if !self.fields.iter().any(|f| self.is(f, key)) {
            return 0;
        }
        let before = self.fields.len();
        let mut fields = std::mem::take(&mut self.fields);
        fields.retain(|f| !self.is(f, key));
        self.fields = fields;
        self.touched = true;
        before - self.fields.len()
    }

    /// Removes the first *value* (also out of a comma list): the topmost Via, Route, ...
    pub fn pop_first(&mut self, name: Name) -> bool {
        let Some(at) = self.fields.iter().position(|f| f.name == name) else {
            return false;
        };
        let Some(field) = self.fields.get(at).copied() else {
            return false;
        };
        self.touched = true;
        let value = self.value(&field);
        match list::second_at(value) {
            Some(second) => {
                let rest = value.get(second..).unwrap_or_default().to_vec();
                self.rewrite(at, &field, &[&rest]);
            }
            None => {
                self.fields.remove(at);
            }
        }
        true
    }

    /// Replaces the first *value* only, the rest of the line and of the list stays byte for byte.
    pub fn replace_first(&mut self, name: Name, value: impl Display) {
        let Some(at) = self.fields.iter().position(|f| f.name == name) else {
            return self.push_front(name, value);
        };
        let Some(field) = self.fields.get(at).copied() else {
            return;
        };
        let old = self.value(&field);
        let rest = old.get(list::first(old).len()..).unwrap_or_default().to_vec();
        let mut text = Vec::with_capacity(128);
        let _ = write!(Clean(&mut text), "{value}");
        self.rewrite(at, &field, &[&text, &rest]);
    }

    /// Removes one option tag from a token-list header, and the header when it gets empty.
    pub fn remove_token(&mut self, name: Name, token: &str) -> bool {
        let mut found = false;
        let mut at = 0;
        while let Some(field) = self.fields.get(at).copied() {
            if field.name == name {
                let kept: Vec<&[u8]> = list::split(self.value(&field), true)
                    .filter(|v| !v.is_empty() && !v.eq_ignore_ascii_case(token.as_bytes()))
                    .collect();
                let count = list::split(self.value(&field), true).filter(|v| !v.is_empty()).count();
                if kept.len() < count {
                    found = true;
                    let rest = kept.join(&b", "[..]);
                    if rest.is_empty() {
                        self.fields.remove(at);
                        continue;
                    }
                    self.rewrite(at, &field, &[&rest]);
                }
            }
            at += 1;
        }
        self.touched |= found;
        found
    }

    /// A line of ours.
    fn written(&mut self, key: Key<'_>, value: impl Display) -> Field {
        self.touched = true;
        let name = match key {
            Key::Known(name) => name,
            Key::Text(_) => Name::Other,
        };
        self.arena.reserve(if self.arena.is_empty() { FIRST_WRITTEN } else { WRITTEN });
        let start = self.arena.len();
        let _ = Clean(&mut self.arena).write_str(key.text());
        let name_len = self.arena.len() - start;
        self.arena.extend_from_slice(b": ");
        let _ = write!(Clean(&mut self.arena), "{value}");
        let value_len = self.arena.len() - start - name_len - 2;
        self.arena.extend_from_slice(b"\r\n");
        field_at(start, name_len, value_len, name)
    }

    /// The line at `at` gets another value; its name stays as it was written.
    fn rewrite(&mut self, at: usize, field: &Field, value: &[&[u8]]) {
        self.touched = true;
        let name = self.name_text(field).to_vec();
        let new = compose(&mut self.arena, field.name, &name, value);
        if let Some(slot) = self.fields.get_mut(at) {
            *slot = new;
        }
    }

    /// The message on the wire: untouched fields byte for byte and in their order. Content-Length is always right.
    pub fn to_bytes(&self) -> Bytes {
        if !self.touched {
            return self.buf.clone();
        }
        // Exactly as much room as is needed: a message that was sent may be kept for minutes.
        let announced = self.fields.iter().any(|f| self.announces_length(f));
        let length = match (announced, self.body.len()) {
            (true, _) => String::new(),
            (false, 0) => "Content-Length: 0\r\n".to_owned(),
            (false, length) => format!("Content-Length: {length}\r\n"),
        };
        let kept = || self.fields.iter().filter(|f| f.name != Name::ContentLength || self.announces_length(f));
        let head = self.start.len as usize + kept().map(|f| f.len as usize).sum::<usize>();
        let size = head + length.len() + 2 + self.body.len();
        let mut out = Out { message: self, bytes: Vec::with_capacity(size), run: (false, 0, 0) };
        out.piece(self.start.arena, self.start.at, self.start.len);
        kept().for_each(|field| out.piece(field.arena, field.start, field.len));
        out.flush();
        let mut bytes = out.bytes;
        bytes.extend_from_slice(length.as_bytes());
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        debug_assert_eq!(bytes.len(), size);
        bytes.into()
    }

    fn announces_length(&self, field: &Field) -> bool {
        field.name == Name::ContentLength && super::parse::number(self.value(field)) == Some(self.body.len())
    }
}

/// Neighbouring spans are copied in one go.
struct Out<'m> {
    message: &'m Message,
    bytes: Vec<u8>,
    run: (bool, u32, u32),
}

impl Out<'_> {
    fn piece(&mut self, arena: bool, at: u32, len: u32) {
        if self.run.0 == arena && self.run.2 == at {
            self.run.2 = at + len;
        } else {
            self.flush();
            self.run = (arena, at, at + len);
        }
    }

    fn flush(&mut self) {
        let (arena, from, to) = self.run;
        self.bytes.extend_from_slice(self.message.source(arena).get(from as usize..to as usize).unwrap_or_default());
        self.run = (arena, to, to);
    }
}

/// Writes `name: value CRLF` from parts that hold no line end of their own, or only folding.
pub(super) fn compose(arena: &mut Vec<u8>, name: Name, name_text: &[u8], value: &[&[u8]]) -> Field {
    let start = arena.len();
    arena.extend_from_slice(name_text);
    arena.extend_from_slice(b": ");
    let value_start = arena.len();
    for part in value {
        arena.extend_from_slice(part);
    }
    unfold(arena.get_mut(value_start..).unwrap_or_default());
    let value_len = arena.len() - value_start;
    arena.extend_from_slice(b"\r\n");
    field_at(start, name_text.len(), value_len, name)
}

fn field_at(start: usize, name_len: usize, value_len: usize, name: Name) -> Field {
    Field {
        start: start as u32,
        len: (name_len + 2 + value_len + 2) as u32,
        value_len: value_len as u32,
        value_at: (name_len + 2) as u16,
        name_len: name_len as u16,
        name,
        arena: true,
    }
}

/// Line ends inside a line we write would split it: they become blanks.
pub(super) fn unfold(value: &mut [u8]) {
    for byte in value {
        if matches!(byte, b'\r' | b'\n') {
            *byte = b' ';
        }
    }
}

fn write_request_line(arena: &mut Vec<u8>, method: &str, uri: &str) -> Start {
    let at = arena.len() as u32;
    let _ = write!(Clean(arena), "{method} {uri} SIP/2.0");
    arena.extend_from_slice(b"\r\n");
    let line =
        Line::Request { method_len: method.len() as u32, uri_at: method.len() as u32 + 1, uri_len: uri.len() as u32 };
    Start { at, len: arena.len() as u32 - at, arena: true, line }
}

/// Text that never breaks a line, whatever it was made from.
struct Clean<'v>(&'v mut Vec<u8>);

impl Write for Clean<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let from = self.0.len();
        self.0.extend_from_slice(text.as_bytes());
        unfold(self.0.get_mut(from..).unwrap_or_default());
        Ok(())
    }
}
