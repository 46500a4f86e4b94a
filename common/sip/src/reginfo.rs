//! What a subscriber reads of application/reginfo+xml (RFC 3680 5): which contacts there are, and what became of them. One pass over
//! the tags, nothing else of XML is needed: no entity is expanded but the five that XML has, no DTD is looked at.

/// A contact of any of the user's identities.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Contact {
    pub uri: String,
    pub is_active: bool,
    pub event: Event,
    /// Seconds that are left.
    pub expires: Option<u32>,
}

/// What happened to a contact last, as far as it matters to who is registered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// Ended by the network: the UE is to register again at once.
    Deactivated,
    /// Ended by the network: the UE is not to come back by itself.
    Rejected,
    /// Ended by the network, which says when to come back.
    Probation,
    /// Ran out.
    Expired,
    /// The network wants to hear of the UE sooner.
    Shortened,
    /// The UE did something, or nothing happened.
    Other,
}

impl Event {
    /// Ended, and not by the UE.
    pub fn is_end_by_network(self) -> bool {
        matches!(self, Self::Deactivated | Self::Rejected | Self::Probation | Self::Expired)
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RegInfo {
    pub version: u32,
    /// All there is, not only what has changed.
    pub is_full: bool,
    pub contacts: Vec<Contact>,
}

/// Contacts in one document: more are not read.
const MOST_CONTACTS: usize = 256;

impl RegInfo {
    /// None: it is no such document.
    pub fn read(body: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(body).ok()?;
        let mut info: Option<Self> = None;
        let mut open: Option<Contact> = None;
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('<') {
            if before.trim().is_empty() {
                // Between tags.
            } else if let Some(contact) = open.as_mut().filter(|c| c.uri.ends_with('\u{0}')) {
                contact.uri = unescape(before.trim());
            }
            rest = skip_comment(after)?;
            if rest.len() != after.len() {
                continue;
            }
            let (tag, after) = split_tag(rest)?;
            rest = after;
            let (name, attributes) = tag.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((tag, ""));
            let is_empty = tag.ends_with('/');
            match local(name) {
                "reginfo" => {
                    let version = attribute(attributes, "version")?.parse().ok()?;
                    let is_full = attribute(attributes, "state") == Some("full");
                    info = Some(Self { version, is_full, contacts: Vec::new() });
                }
                "contact" => {
                    let is_active = attribute(attributes, "state")? == "active";
                    let event = event(attribute(attributes, "event").unwrap_or_default());
                    let expires = attribute(attributes, "expires").and_then(|s| s.parse().ok());
                    open = (!is_empty).then_some(Contact { uri: String::new(), is_active, event, expires });
                }
                // The text that follows is the URI.
                "uri" => {
                    if let Some(contact) = open.as_mut().filter(|c| c.uri.is_empty()) {
                        contact.uri.push('\u{0}');
                    }
                }
                "/contact" => {
                    let contact = open.take()?;
                    let contacts = &mut info.as_mut()?.contacts;
                    if contacts.len() < MOST_CONTACTS && !contact.uri.ends_with('\u{0}') {
                        contacts.push(contact);
                    }
                }
                _ => {}
            }
        }
        info
    }

    /// Whether the network has ended this contact, and nothing in the document says that it lives.
    pub fn has_ended(&self, is_it: impl Fn(&str) -> bool) -> bool {
        let mut ended = false;
        for contact in self.contacts.iter().filter(|c| is_it(&c.uri)) {
            if contact.is_active {
                return false;
            }
            ended |= contact.event.is_end_by_network();
        }
        ended
    }
}

fn event(word: &str) -> Event {
    match word {
        "deactivated" => Event::Deactivated,
        "rejected" => Event::Rejected,
        "probation" => Event::Probation,
        "expired" => Event::Expired,
        "shortened" => Event::Shortened,
        _ => Event::Other,
    }
}

/// The name without its namespace prefix.
fn local(name: &str) -> &str {
    let name = name.strip_suffix('/').unwrap_or(name);
    match (name.strip_prefix('/'), name.rsplit_once(':')) {
        (_, None) => name,
        (None, Some((_, local))) => local,
        (Some(_), Some((_, "contact"))) => "/contact",
        (Some(_), Some(_)) => "/",
    }
}

/// Comments and CDATA sections hold what looks like tags.
fn skip_comment(after: &str) -> Option<&str> {
    for (start, end) in [("!--", "-->"), ("![CDATA[", "]]>")] {
        if let Some(inside) = after.strip_prefix(start) {
            return inside.split_once(end).map(|(_, rest)| rest);
        }
    }
    Some(after)
}

/// A tag up to its end, which a quoted value may hide.
fn split_tag(text: &str) -> Option<(&str, &str)> {
    let mut quote = None;
    for (at, b) in text.bytes().enumerate() {
        match (quote, b) {
            (None, b'>') => return Some((&text[..at], &text[at + 1..])),
            (None, b'"' | b'\'') => quote = Some(b),
            (Some(q), b) if q == b => quote = None,
            _ => {}
        }
    }
    None
}

/// The value of an attribute without namespace.
fn attribute<'t>(attributes: &'t str, name: &str) -> Option<&'t str> {
    let mut rest = attributes;
    loop {
        let (key, after) = rest.split_once('=')?;
        let after = after.trim_start();
        let quote = after.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        let (value, next) = after[1..].split_once(quote)?;
        if key.trim() == name {
            return Some(value);
        }
        rest = next;
    }
}

fn unescape(text: &str) -> String {
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&apos;", "'").replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = r#"<?xml version="1.0"?>
<!-- <contact state="active"> --><r:reginfo xmlns:r="urn:ietf:params:xml:ns:reginfo" version="7" state='partial'>
<r:registration aor="sip:a@x" id="a7" state="active">
 <r:contact id="1" state="terminated" event="deactivated" expires="0"><r:uri>sip:a@192.0.2.7:5060;x=1&amp;y</r:uri>
  <r:unknown-param name="+sip.instance">"&lt;urn:x&gt;"</r:unknown-param></r:contact>
 <r:contact id='2' event='refreshed' state='active'><r:uri> sip:b@192.0.2.8 </r:uri></r:contact>
 <r:contact id="3" state="terminated" event="unregistered"><r:uri>sip:c@192.0.2.9</r:uri></r:contact>
</r:registration>
<registration aor="tel:+1" id="b" state="terminated"><contact id="4" state="terminated" event="rejected"><uri>sip:b@192.0.2.8</uri></contact></registration>
</r:reginfo>"#;

    #[test]
    fn contacts_and_what_became_of_them() {
        let info = RegInfo::read(DOCUMENT.as_bytes()).unwrap();
        assert_eq!((info.version, info.is_full, info.contacts.len()), (7, false, 4));
        assert_eq!((info.contacts[0].event, info.contacts[0].expires), (Event::Deactivated, Some(0)));
        assert!(info.has_ended(|uri| uri == "sip:a@192.0.2.7:5060;x=1&y"));
        assert!(!info.has_ended(|uri| uri == "sip:b@192.0.2.8"), "it lives with another identity");
        assert!(!info.has_ended(|uri| uri == "sip:c@192.0.2.9"), "the UE did that, and the P-CSCF saw it");
        assert!(!info.has_ended(|uri| uri == "sip:d@192.0.2.9"));
    }

    #[test]
    fn what_is_no_such_document_is_none_and_nothing_makes_it_fail() {
        for text in ["", "hello", "<reginfo>", "<reginfo version=\"x\"/>", "<contact state=\"active\"></contact>", "<a"]
        {
            assert_eq!(RegInfo::read(text.as_bytes()), None, "{text}");
        }
        assert_eq!(RegInfo::read(b"\xff<reginfo version=\"1\"/>"), None);
        // Cut anywhere, it is read or it is not.
        for end in 0..DOCUMENT.len() {
            let _ = RegInfo::read(&DOCUMENT.as_bytes()[..end]);
            let _ = RegInfo::read(&DOCUMENT.as_bytes()[end..]);
        }
        let many = format!(
            "<reginfo version=\"1\">{}</reginfo>",
            "<contact state=\"active\"><uri>sip:a</uri></contact>".repeat(1000)
        );
        assert_eq!(RegInfo::read(many.as_bytes()).unwrap().contacts.len(), MOST_CONTACTS);
    }
}
