//! Dialogs (RFC 3261 12): what an end of one has to know to send requests in it, and to tell whether one belongs to it.
//!
//! A [`Dialog`] is for the ends: a proxy keeps its own notion of one. It is small, because a registrar has one for each
//! subscriber of a hundred thousand users: one text, two numbers and a flag. It can be kept across restarts (serde).

#[cfg(test)]
mod tests;

use crate::headers::{CSeq, CallId, Contact, From, NameAddr, RecordRoute, To};
use crate::message::HeaderError;
use crate::{Message, Method, Name, proxy};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

/// What a dialog keeps of its peer has bounds: its texts in bytes,
const MAX_TEXT: usize = 8192;
/// and the routes.
const MAX_ROUTES: usize = 20;
/// Dialogs that forking may make of one request of ours.
const MAX_FORKED: usize = 16;

/// Where the parts of the text are; what follows are the routes.
const CALL_ID: usize = 0;
const LOCAL_URI: usize = 1;
const LOCAL_TAG: usize = 2;
const REMOTE_URI: usize = 3;
const REMOTE_TAG: usize = 4;
const TARGET: usize = 5;
const ROUTES: usize = 6;

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DialogError {
    /// 400.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// 400: nobody could be reached in such a dialog.
    #[error("no Contact, or none that is a URI")]
    NoContact,
    /// 400.
    #[error("what the dialog is to keep of its peer is too long")]
    TooLong,
    /// 500: the CSeq is below that of an earlier request.
    #[error("an older request came after a newer one of the same dialog")]
    OutOfOrder,
    /// No dialog: the response has no To tag, or is none that makes a dialog.
    #[error("the response makes no dialog")]
    NoDialog,
}

impl DialogError {
    /// What a UAS answers.
    pub fn status(&self) -> u16 {
        match self {
            Self::Header(_) | Self::NoContact | Self::TooLong => 400,
            Self::OutOfOrder => 500,
            Self::NoDialog => 481,
        }
    }
}

/// What tells a dialog from every other, from where we stand.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DialogId {
    pub call_id: Box<str>,
    pub local_tag: Box<str>,
    /// Empty for a peer of RFC 2543, which gives none.
    pub remote_tag: Box<str>,
}

impl DialogId {
    /// Of a request that came to us; None when it is in no dialog yet (To has no tag).
    pub fn of_request(request: &Message) -> Option<Self> {
        let (from, to) = (request.first::<From<'_>>().ok()??, request.first::<To<'_>>().ok()??);
        let local_tag = to.tag()?.into();
        Some(Self { call_id: call_id(request).ok()?.into(), local_tag, remote_tag: from.tag().unwrap_or("").into() })
    }

    /// Of a response to a request of ours; None when it has no To tag.
    pub fn of_response(response: &Message) -> Option<Self> {
        let (from, to) = (response.first::<From<'_>>().ok()??, response.first::<To<'_>>().ok()??);
        let remote_tag = to.tag()?.into();
        Some(Self { call_id: call_id(response).ok()?.into(), local_tag: from.tag().unwrap_or("").into(), remote_tag })
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Dialog {
    /// The parts, a line each: nothing in them has a line end.
    text: Box<str>,
    local_seq: u32,
    /// None as long as the peer has sent no request.
    remote_seq: Option<u32>,
    is_confirmed: bool,
}

impl Dialog {
    /// The dialog that our answer with this To tag makes of a request (12.1.1): confirmed, as a 2xx makes it.
    pub fn as_uas(request: &Message, tag: &str) -> Result<Self, DialogError> {
        let (from, to): (From<'_>, To<'_>) = (request.require()?, request.require()?);
        let cseq: CSeq<'_> = request.require()?;
        let parts = Parts {
            call_id: call_id(request)?,
            local: (to.uri, tag),
            remote: (from.uri, from.tag().unwrap_or("")),
            target: contact(request)?.ok_or(DialogError::NoContact)?,
        };
        let text = parts.write(routes(request)?.into_iter())?;
        Ok(Self { text, local_seq: 0, remote_seq: Some(cseq.number), is_confirmed: true })
    }

    /// The dialog that a response (101 to 299, with a To tag) makes of our request (12.1.2): early before the 2xx.
    pub fn as_uac(request: &Message, response: &Message) -> Result<Self, DialogError> {
        let is_confirmed = match response.status() {
            101..200 => false,
            200..300 => true,
            _ => return Err(DialogError::NoDialog),
        };
        let (from, to): (From<'_>, To<'_>) = (request.require()?, response.require()?);
        let remote_tag = to.tag().ok_or(DialogError::NoDialog)?;
        let cseq: CSeq<'_> = request.require()?;
        let parts = Parts {
            call_id: call_id(request)?,
            local: (from.uri, from.tag().unwrap_or("")),
            remote: (to.uri, remote_tag),
            // A provisional response may come without; then its peer is where the request went.
            target: match contact(response)? {
                None if is_confirmed => return Err(DialogError::NoContact),
                known => known.unwrap_or(request.uri()),
            },
        };
        let text = parts.write(routes(response)?.into_iter().rev())?;
        Ok(Self { text, local_seq: cseq.number, remote_seq: None, is_confirmed })
    }

    /// The dialog that a NOTIFY makes of our SUBSCRIBE, when it comes before the 200 (RFC 6665 4.4.1).
    pub fn from_notify(subscribe: &Message, notify: &Message) -> Result<Self, DialogError> {
        let (from, to): (From<'_>, To<'_>) = (subscribe.require()?, notify.require()?);
        let is_ours = call_id(subscribe)? == call_id(notify)? && from.tag() == to.tag() && from.tag().is_some();
        let cseq: CSeq<'_> = subscribe.require()?;
        let dialog = Self::as_uas(notify, to.tag().unwrap_or(""))?;
        match is_ours {
            true => Ok(Self { local_seq: cseq.number, ..dialog }),
            false => Err(DialogError::NoDialog),
        }
    }

    pub fn id(&self) -> DialogId {
        let part = |n| self.part(n).into();
        DialogId { call_id: part(CALL_ID), local_tag: part(LOCAL_TAG), remote_tag: part(REMOTE_TAG) }
    }

    /// Whether a request that came to us belongs here (12.2.2).
    pub fn has(&self, request: &Message) -> bool {
        DialogId::of_request(request).is_some_and(|id| id == self.id())
    }

    pub fn call_id(&self) -> &str {
        self.part(CALL_ID)
    }

    pub fn local_uri(&self) -> &str {
        self.part(LOCAL_URI)
    }

    pub fn local_tag(&self) -> &str {
        self.part(LOCAL_TAG)
    }

    pub fn remote_uri(&self) -> &str {
        self.part(REMOTE_URI)
    }

    pub fn remote_tag(&self) -> &str {
        self.part(REMOTE_TAG)
    }

    /// Where requests go: the Contact of the peer.
    pub fn target(&self) -> &str {
        self.part(TARGET)
    }

    /// As they stand in Route, the nearest first.
    pub fn routes(&self) -> impl Iterator<Item = &str> {
        self.text.split('\n').skip(ROUTES)
    }

    pub fn is_confirmed(&self) -> bool {
        self.is_confirmed
    }

    /// The CSeq of our last request in it.
    pub fn local_seq(&self) -> u32 {
        self.local_seq
    }

    /// Requests of ours go on behind this CSeq: for a dialog that was kept, whose last ones are not known any more. Gaps are
    /// allowed (12.2.2).
    pub fn skip_to(&mut self, cseq: u32) {
        self.local_seq = self.local_seq.max(cseq);
    }

    /// The next request of ours, and where it goes (12.2.1.1): Max-Forwards, Route, From, To, Call-ID and CSeq are
    /// written. A strict router ahead gets it the way it wants it. Not for ACK and CANCEL.
    pub fn request(&mut self, method: &str) -> (Message, String) {
        self.local_seq = self.local_seq.saturating_add(1);
        self.written(method, self.local_seq)
    }

    /// The ACK to a 2xx to our INVITE with this CSeq (13.2.2.4), and where it goes.
    pub fn ack(&self, invite: u32) -> (Message, String) {
        self.written("ACK", invite)
    }

    fn written(&self, method: &str, cseq: u32) -> (Message, String) {
        let mut message = Message::request(method, self.target());
        message.set(Name::MaxForwards, 70);
        for route in self.routes() {
            message.push_back(Name::Route, route);
        }
        let address = |uri: &str, tag: &str| match tag {
            "" => format!("<{uri}>"),
            tag => format!("<{uri}>;tag={tag}"),
        };
        message.set(Name::From, address(self.local_uri(), self.local_tag()));
        message.set(Name::To, address(self.remote_uri(), self.remote_tag()));
        message.set(Name::CallId, self.call_id());
        message.set(Name::CSeq, format_args!("{cseq} {method}"));
        let next = proxy::prepare_next_hop(&mut message);
        (message, next)
    }

    /// A request that came in this dialog (12.2.2): refused when an earlier one has a higher CSeq; a target refresh moves
    /// the remote target. An ACK has the CSeq of its INVITE and is not counted.
    pub fn on_request(&mut self, request: &Message) -> Result<(), DialogError> {
        if request.method() == Method::Ack {
            return Ok(());
        }
        let cseq: CSeq<'_> = request.require()?;
        if self.remote_seq.is_some_and(|last| cseq.number < last) {
            return Err(DialogError::OutOfOrder);
        }
        if refreshes_target(&request.method()) {
            self.refresh(contact(request)?)?;
        }
        self.remote_seq = Some(cseq.number);
        Ok(())
    }

    /// A response to a request of ours in this dialog (12.2.1.2). One to the INVITE that began it gives route set and target
    /// anew as long as it is early: the 2xx does by 13.2.2.4, and a first provisional one may have come without them. A 2xx to
    /// a target refresh moves the target.
    pub fn on_response(&mut self, response: &Message) -> Result<(), DialogError> {
        let (is_invite, is_2xx) = (response.method() == Method::Invite, (200..300).contains(&response.status()));
        if is_invite && !self.is_confirmed && (is_2xx || (101..200).contains(&response.status())) {
            let target = match contact(response)? {
                None if is_2xx => return Err(DialogError::NoContact),
                None => return Ok(()),
                Some(target) => target,
            };
            self.text = Parts { target, ..self.parts() }.write(routes(response)?.into_iter().rev())?;
            self.is_confirmed = is_2xx;
        } else if is_2xx && refreshes_target(&response.method()) {
            self.refresh(contact(response)?)?;
        }
        Ok(())
    }

    /// Whether this answer to a request in a dialog says that the peer has no such dialog any more, nor ever answers
    /// (12.2.1.2): a timeout counts as 408.
    pub fn is_ended_by(status: u16) -> bool {
        matches!(status, 408 | 481)
    }

    fn refresh(&mut self, target: Option<&str>) -> Result<(), DialogError> {
        if let Some(target) = target.filter(|target| *target != self.target()) {
            self.text = Parts { target, ..self.parts() }.write(self.routes().map(str::to_owned))?;
        }
        Ok(())
    }

    fn part(&self, n: usize) -> &str {
        self.text.split('\n').nth(n).unwrap_or_default()
    }

    fn parts(&self) -> Parts<'_> {
        Parts {
            call_id: self.call_id(),
            local: (self.local_uri(), self.local_tag()),
            remote: (self.remote_uri(), self.remote_tag()),
            target: self.target(),
        }
    }
}

struct Parts<'a> {
    call_id: &'a str,
    local: (&'a str, &'a str),
    remote: (&'a str, &'a str),
    target: &'a str,
}

impl Parts<'_> {
    fn write(&self, routes: impl Iterator<Item = String>) -> Result<Box<str>, DialogError> {
        let ((local, local_tag), (remote, remote_tag)) = (self.local, self.remote);
        let fixed = [self.call_id, local, local_tag, remote, remote_tag, self.target];
        // A quoted value may be folded, and nothing else of it can hold a line end.
        if fixed.iter().any(|part| part.contains(['\r', '\n'])) {
            return Err(HeaderError { name: "Call-ID or tag", reason: "has a line end" }.into());
        }
        let mut text = fixed.join("\n");
        for route in routes {
            let _ = write!(text, "\n{}", route.replace(['\r', '\n'], " "));
        }
        if text.len() > MAX_TEXT {
            return Err(DialogError::TooLong);
        }
        Ok(text.into())
    }
}

/// The dialogs of one request of ours: a proxy that forks makes several (12.1.2, 13.2.2.4).
#[derive(Debug)]
pub struct Forked {
    request: Message,
    dialogs: Vec<Dialog>,
}

impl Forked {
    pub fn new(request: Message) -> Self {
        Self { request, dialogs: Vec::new() }
    }

    pub fn request(&self) -> &Message {
        &self.request
    }

    /// The dialog that a response with a To tag belongs to, made by the first of its tag; None when it makes none.
    pub fn on_response(&mut self, response: &Message) -> Result<Option<&mut Dialog>, DialogError> {
        let Some(id) = DialogId::of_response(response).filter(|_| (101..300).contains(&response.status())) else {
            return Ok(None);
        };
        if let Some(at) = self.dialogs.iter().position(|d| d.remote_tag() == &*id.remote_tag) {
            let Some(dialog) = self.dialogs.get_mut(at) else { return Ok(None) };
            dialog.on_response(response)?;
            return Ok(Some(dialog));
        }
        if self.dialogs.len() >= MAX_FORKED {
            return Err(DialogError::TooLong);
        }
        self.dialogs.push(Dialog::as_uac(&self.request, response)?);
        Ok(self.dialogs.last_mut())
    }

    pub fn dialogs(&self) -> &[Dialog] {
        &self.dialogs
    }

    /// Those that a 2xx has confirmed: each of them gets an ACK, and all but one a BYE.
    pub fn confirmed(self) -> Vec<Dialog> {
        self.dialogs.into_iter().filter(Dialog::is_confirmed).collect()
    }
}

/// Our answer that makes a dialog of a request, or refreshes one (12.1.1): the tag, the Record-Routes as they came, and
/// our Contact.
pub fn accept(request: &Message, status: u16, tag: &str, contact: &str) -> Message {
    let mut answer = Message::response(request, status, Some(tag));
    answer.copy(Name::RecordRoute, request);
    answer.set(Name::Contact, contact);
    answer
}

/// RFC 3261 12.2.1.1, RFC 3311, RFC 6665 4.1, 4.2, RFC 3515.
pub fn refreshes_target(method: &Method<'_>) -> bool {
    matches!(method, Method::Invite | Method::Update | Method::Subscribe | Method::Notify | Method::Refer)
}

fn call_id(message: &Message) -> Result<&str, DialogError> {
    let call_id: CallId<'_> = message.require()?;
    Ok(call_id.0)
}

fn contact(message: &Message) -> Result<Option<&str>, DialogError> {
    let Some(contact) = message.first::<Contact<'_>>()? else { return Ok(None) };
    let address = contact.addr().filter(|a: &&NameAddr<'_>| a.parsed_uri().is_ok_and(|uri| uri.headers().is_none()));
    // The view of the header goes, the text is that of the message.
    address.map(|a| Some(a.uri)).ok_or(DialogError::NoContact)
}

/// Record-Route in its order: URI and parameters, without display names (12.1.1).
fn routes(message: &Message) -> Result<Vec<String>, DialogError> {
    let entries: Vec<RecordRoute<'_>> = message.all()?;
    if entries.len() > MAX_ROUTES {
        return Err(DialogError::TooLong);
    }
    Ok(entries.iter().map(|entry| format!("<{}>{}", entry.uri, entry.params)).collect())
}
