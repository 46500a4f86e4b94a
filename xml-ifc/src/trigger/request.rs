//! What is asked of a request: the view that a caller gives, and the texts that are compared (TS 29.228 Table F.1).

use super::pattern::Pattern;
use ims_core::uri::{Scheme, Uri};
use ims_sip::headers::{ContentType, split};
use ims_sip::{Message, Method, Name};
use std::borrow::Cow;
use std::cell::OnceCell;

/// `SessionCase` (TS 29.228 B.2.3; TS 24.229 5.4.3.2, 5.4.3.3). A REGISTER counts as originating of a registered user.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SessionCase {
    Originating,
    Terminating,
    TerminatingUnregistered,
    OriginatingUnregistered,
    /// After call diversion, on behalf of the one who diverted.
    OriginatingCdiv {
        is_registered: bool,
    },
}

impl SessionCase {
    /// The number in the schema.
    pub fn number(self) -> u8 {
        match self {
            Self::Originating => 0,
            Self::Terminating => 1,
            Self::TerminatingUnregistered => 2,
            Self::OriginatingUnregistered => 3,
            Self::OriginatingCdiv { .. } => 4,
        }
    }

    /// Whether the served user is registered.
    pub fn is_registered(self) -> bool {
        match self {
            Self::Originating | Self::Terminating => true,
            Self::TerminatingUnregistered | Self::OriginatingUnregistered => false,
            Self::OriginatingCdiv { is_registered } => is_registered,
        }
    }

    pub fn is_originating(self) -> bool {
        !matches!(self, Self::Terminating | Self::TerminatingUnregistered)
    }

    /// What a number of the schema means, for people.
    pub(super) fn text(number: u8) -> &'static str {
        match number {
            0 => "originating",
            1 => "terminating, registered",
            2 => "terminating, unregistered",
            3 => "originating, unregistered",
            _ => "originating after call diversion",
        }
    }
}

/// `RegistrationType` (TS 29.228 B.2.3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RegistrationType {
    Initial,
    Reregistration,
    Deregistration,
}

impl RegistrationType {
    /// The number in the schema.
    pub fn number(self) -> u8 {
        match self {
            Self::Initial => 0,
            Self::Reregistration => 1,
            Self::Deregistration => 2,
        }
    }

    pub(super) fn text(number: u8) -> &'static str {
        match number {
            0 => "initial registration",
            1 => "re-registration",
            _ => "de-registration",
        }
    }
}

/// A request as the criteria look at it.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    pub method: Method<'a>,
    pub uri: &'a str,
    /// Its headers and body.
    pub message: &'a Message,
    pub case: SessionCase,
    /// Of a REGISTER. Not known: every `RegistrationType` holds.
    pub registration: Option<RegistrationType>,
}

impl<'a> RequestView<'a> {
    /// Method and Request-URI are those of the message.
    pub fn new(message: &'a Message, case: SessionCase) -> Self {
        Self { method: message.method(), uri: message.uri(), message, case, registration: None }
    }

    /// A REGISTER (TS 24.229 5.4.1.7).
    pub fn register(message: &'a Message, registration: RegistrationType) -> Self {
        Self { registration: Some(registration), ..Self::new(message, SessionCase::Originating) }
    }
}

/// A view, and what was worked out of it for the first condition that asked.
pub(super) struct Asked<'a> {
    pub(super) view: RequestView<'a>,
    uri: OnceCell<UriTexts<'a>>,
    sdp: OnceCell<Vec<&'a [u8]>>,
}

/// What a Request-URI is compared as. A pattern that is found in one spelling of it is found.
pub(super) struct UriTexts<'a> {
    /// As written, and with scheme and host in lower case where that differs.
    pub(super) whole: &'a str,
    whole_other: Option<String>,
    /// Table F.1: `hostport` of a SIP URI, `telephone-subscriber` of a tel URI; what follows the scheme of another.
    pub(super) part: &'a str,
    /// The host in lower case; the number without parameters and visual separators.
    part_other: Option<String>,
}

impl<'a> UriTexts<'a> {
    fn of(text: &'a str) -> Self {
        let Ok(uri) = Uri::parse(text) else {
            return Self { whole: text, whole_other: None, part: text, part_other: None };
        };
        let scheme = text.find(':').map_or(0, |colon| colon + 1);
        let after_scheme = text.get(scheme..).unwrap_or_default();
        let lower = |text: &str| text.bytes().any(|b| b.is_ascii_uppercase()).then(|| text.to_ascii_lowercase());
        if uri.is_sip() {
            let part = uri.hostport();
            let part_other = lower(part);
            let has_upper = part_other.is_some() || text.bytes().take(scheme).any(|b| b.is_ascii_uppercase());
            let whole_other = has_upper.then(|| {
                let host_at = after_scheme.rfind(part).map_or(0, |at| scheme + at);
                let mut other = text.to_owned();
                for range in [0..scheme, host_at..host_at + part.len()] {
                    if let Some(piece) = other.get_mut(range) {
                        piece.make_ascii_lowercase();
                    }
                }
                other
            });
            return Self { whole: text, whole_other, part, part_other };
        }
        let number = uri.user().filter(|_| uri.scheme() == Scheme::Tel);
        let part_other = number.and_then(|number| {
            let plain: String = number.chars().filter(|c| !matches!(c, '-' | '.' | '(' | ')')).collect();
            (plain != after_scheme).then_some(plain)
        });
        let whole_other = part_other.as_ref().map(|number| format!("tel:{number}"));
        Self { whole: text, whole_other, part: after_scheme, part_other }
    }

    pub(super) fn has(&self, pattern: &Pattern, is_whole: bool) -> bool {
        let (written, other) = match is_whole {
            true => (self.whole, &self.whole_other),
            false => (self.part, &self.part_other),
        };
        pattern.is_in(written.as_bytes()) || other.as_ref().is_some_and(|other| pattern.is_in(other.as_bytes()))
    }
}

impl<'a> Asked<'a> {
    pub(super) fn new(view: RequestView<'a>) -> Self {
        Self { view, uri: OnceCell::new(), sdp: OnceCell::new() }
    }

    pub(super) fn uri(&self) -> &UriTexts<'a> {
        self.uri.get_or_init(|| UriTexts::of(self.view.uri))
    }

    /// The session descriptions in the body.
    pub(super) fn sdp(&self) -> &[&'a [u8]] {
        self.sdp.get_or_init(|| {
            let mut found = Vec::new();
            let message = self.view.message;
            if !message.body().is_empty() && !message.has(Name::ContentEncoding) {
                let kind = message.text(Name::ContentType).unwrap_or_default();
                descriptions(kind, message.body(), &mut found, MOST_NESTED);
            }
            found
        })
    }
}

/// Multipart bodies inside of multipart bodies that are looked into.
const MOST_NESTED: usize = 4;
/// Parts of one multipart body that are looked at.
const MOST_PARTS: usize = 32;

/// The `application/sdp` in a body: all of it, or parts of a multipart one (RFC 2046 5.1, RFC 5621).
fn descriptions<'a>(kind: &str, body: &'a [u8], found: &mut Vec<&'a [u8]>, nested: usize) {
    use ims_sip::headers::TypedHeader;
    let Ok(kind) = ContentType::parse_value(kind) else { return };
    if kind.is("application/sdp") {
        found.push(body);
    } else if kind.kind.eq_ignore_ascii_case("multipart") && nested > 0 {
        let Some(boundary) = kind.params.value("boundary").filter(|b| !b.is_empty()) else { return };
        for part in parts(body, boundary).take(MOST_PARTS) {
            let (head, content) = split_head(part);
            if let Some(kind) = content_type(head) {
                descriptions(&kind, content, found, nested - 1);
            }
        }
    }
}

/// Between the delimiter lines; preamble and epilogue left out.
fn parts<'a>(body: &'a [u8], boundary: &str) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = after_delimiter(body, boundary);
    std::iter::from_fn(move || {
        let from = rest?;
        let (mut at, mut end) = (0, from.len());
        rest = None;
        for line in from.split_inclusive(|b| *b == b'\n') {
            if is_delimiter(line, boundary) {
                end = at;
                rest = (!is_close(line, boundary)).then(|| from.get(at + line.len()..)).flatten();
                break;
            }
            at += line.len();
        }
        let part = from.get(..end)?;
        // The line end before a delimiter belongs to it.
        let part = part.strip_suffix(b"\n").unwrap_or(part);
        Some(part.strip_suffix(b"\r").unwrap_or(part))
    })
}

fn after_delimiter<'a>(body: &'a [u8], boundary: &str) -> Option<&'a [u8]> {
    let mut at = 0;
    for line in body.split_inclusive(|b| *b == b'\n') {
        at += line.len();
        if is_delimiter(line, boundary) {
            return if is_close(line, boundary) { None } else { body.get(at..) };
        }
    }
    None
}

fn is_delimiter(line: &[u8], boundary: &str) -> bool {
    let rest = line.strip_prefix(b"--").and_then(|l| l.strip_prefix(boundary.as_bytes()));
    rest.is_some_and(|rest| rest.strip_prefix(b"--").unwrap_or(rest).trim_ascii().is_empty())
}

fn is_close(line: &[u8], boundary: &str) -> bool {
    line.get(2 + boundary.len()..).is_some_and(|rest| rest.starts_with(b"--"))
}

/// Head and content of a body part. A part may have no head at all.
fn split_head(part: &[u8]) -> (&[u8], &[u8]) {
    let mut at = 0;
    for line in part.split_inclusive(|b| *b == b'\n') {
        let head = part.get(..at).unwrap_or_default();
        at += line.len();
        if line.trim_ascii().is_empty() {
            return (head, part.get(at..).unwrap_or_default());
        }
    }
    (part, &[])
}

fn content_type(head: &[u8]) -> Option<String> {
    let mut lines = head.split(|b| *b == b'\n');
    let value = lines.find_map(|line| {
        let colon = line.iter().position(|b| *b == b':')?;
        let (name, value) = line.split_at(colon);
        (Name::parse(name.trim_ascii()) == Name::ContentType).then_some(value.get(1..)?)
    })?;
    let mut value = String::from_utf8_lossy(value.trim_ascii()).into_owned();
    // Folded lines go on with a blank.
    for line in lines.take_while(|l| l.starts_with(b" ") || l.starts_with(b"\t")) {
        value.push(' ');
        value.push_str(&String::from_utf8_lossy(line.trim_ascii()));
    }
    Some(value)
}

/// The lines of a session description: type letter and value (RFC 8866 5).
pub(super) fn sdp_lines(body: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    body.split(|b| *b == b'\n').filter_map(|line| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match line {
            [_, b'=', value @ ..] => Some((line.get(..1)?, value)),
            _ => None,
        }
    })
}

/// Headers whose grammar has no comma list (RFC 3261 7.3.1 and 20): a comma in them separates nothing.
fn is_list(name: Name) -> bool {
    !matches!(
        name,
        Name::Authorization
            | Name::ProxyAuthorization
            | Name::WwwAuthenticate
            | Name::ProxyAuthenticate
            | Name::AuthenticationInfo
            | Name::CallId
            | Name::Date
            | Name::Organization
            | Name::Server
            | Name::Subject
            | Name::UserAgent
            | Name::Timestamp
            | Name::ContentType
            | Name::From
            | Name::To
    )
}

/// Whether a header value has the pattern in it: as a line, or as one of the values that a comma list holds (Table F.1).
pub(super) fn value_has(pattern: &Pattern, name: Name, raw: &[u8]) -> bool {
    let value = unfolded(raw);
    // Without an anchor, what is found in a piece is found in the whole.
    pattern.is_in(&value) || pattern.is_anchored() && is_list(name) && split(&value, true).any(|one| pattern.is_in(one))
}

/// A line end inside of a value is folding, and with the blanks that follow worth one blank (RFC 3261 7.3.1).
pub(super) fn unfolded(raw: &[u8]) -> Cow<'_, [u8]> {
    let raw = raw.trim_ascii();
    if !raw.contains(&b'\n') {
        return raw.into();
    }
    let mut out = Vec::with_capacity(raw.len());
    for line in raw.split(|b| *b == b'\n') {
        if !out.is_empty() {
            out.push(b' ');
        }
        out.extend_from_slice(line.trim_ascii());
    }
    out.into()
}
