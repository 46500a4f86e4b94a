//! What a REGISTER asks of the registrar (RFC 3261 10.3, RFC 3327, RFC 5626 6), read and bounded before anyone is asked.

use crate::Refusal;
use crate::config::Registration as Rules;
use ims_core::uri::Uri;
use ims_sip::headers::{CSeq, Contact, Expires, NameAddr, Params, Path};
use ims_sip::message::HeaderError;
use ims_sip::{Message, Name};
use std::sync::Arc;

/// Path entries that are kept: P-CSCF, perhaps an IBCF or two.
const MAX_PATH: usize = 10;
/// What is kept of a challenge and of a binding has bounds: a Call-ID in bytes,
const MAX_CALL_ID: usize = 512;
/// and a contact with its parameters. Phones with all their feature tags come to 1000.
const MAX_CONTACT: usize = 4096;
/// RFC 3261 10.3 step 7: only intervals shorter than this may be called too brief.
const HOUR: u32 = 3600;

#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) contacts: Contacts,
    pub(crate) call_id: Box<str>,
    pub(crate) cseq: u32,
    /// URIs, the one nearest to us first.
    pub(crate) path: Arc<[Box<str>]>,
    /// The first hop keeps the flow (RFC 5626 6): reg-id counts.
    pub(crate) is_outbound: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Contacts {
    /// No Contact: what is registered?
    Query,
    /// `Contact: *` with Expires 0.
    RemoveAll,
    Change(Vec<ContactWish>),
}

#[derive(Clone, Debug)]
pub(crate) struct ContactWish {
    pub(crate) contact: ContactAddress,
    /// Granted, in seconds; 0: to be removed.
    pub(crate) expires: u32,
}

/// A contact as it is kept and given back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ContactAddress {
    pub(crate) uri: Box<str>,
    /// Header parameters as written, without expires: q, +sip.instance, reg-id, media feature tags.
    pub(crate) params: Box<str>,
    pub(crate) reg_id: Option<u32>,
}

impl Wish {
    pub(crate) fn read(message: &Message, rules: &Rules) -> Result<Self, Refusal> {
        let cseq: CSeq<'_> = message.require().map_err(malformed)?;
        let path: Vec<Path<'_>> = message.all().map_err(malformed)?;
        if path.len() > MAX_PATH {
            return Err(Refusal::Malformed(format!("Path has more than {MAX_PATH} entries")));
        }
        let call_id = message.text(Name::CallId).unwrap_or_default();
        if call_id.len() > MAX_CALL_ID {
            return Err(Refusal::Malformed(format!("Call-ID has more than {MAX_CALL_ID} bytes")));
        }
        let first_hop_keeps = path.last().and_then(|p| p.parsed_uri().ok()).is_some_and(|uri| uri.has_param("ob"));
        Ok(Self {
            contacts: Contacts::read(message, rules)?,
            call_id: call_id.into(),
            cseq: cseq.number,
            path: path.iter().map(|p| p.uri.into()).collect(),
            is_outbound: first_hop_keeps && message.has_token(Name::Supported, "outbound"),
        })
    }

    /// It is about emergency registrations alone.
    pub(crate) fn is_emergency(&self) -> bool {
        matches!(&self.contacts, Contacts::Change(list) if list.iter().all(|c| c.contact.is_emergency()))
    }

    /// Everything it names is to be removed.
    pub(crate) fn leaves(&self) -> bool {
        match &self.contacts {
            Contacts::Query => false,
            Contacts::RemoveAll => true,
            Contacts::Change(list) => list.iter().all(|c| c.expires == 0),
        }
    }
}

impl Contacts {
    fn read(message: &Message, rules: &Rules) -> Result<Self, Refusal> {
        // RFC 3261 10.2.1.1, 20.19: what cannot be read counts as 3600.
        let header = message.has(Name::Expires).then(|| match message.first::<Expires>() {
            Ok(Some(expires)) => expires.0,
            _ => HOUR,
        });
        let contacts: Vec<Contact<'_>> = message.all().map_err(malformed)?;
        if contacts.len() > rules.max_contacts {
            return Err(Refusal::Malformed(format!("Contact has more than {} values", rules.max_contacts)));
        }
        if contacts.iter().any(|c| matches!(c, Contact::Star)) {
            return match (contacts.len(), header) {
                (1, Some(0)) => Ok(Self::RemoveAll),
                _ => Err(Refusal::Malformed("Contact: * stands alone and with Expires: 0".into())),
            };
        }
        let mut list = Vec::with_capacity(contacts.len());
        for contact in &contacts {
            let Some(address) = contact.addr() else { continue };
            let asked = contact.expires().or(header).unwrap_or(rules.default_expires.secs());
            list.push(ContactWish { contact: ContactAddress::read(address)?, expires: grant(asked, rules)? });
        }
        Ok(if list.is_empty() { Self::Query } else { Self::Change(list) })
    }
}

/// RFC 3261 10.3 step 7.
fn grant(asked: u32, rules: &Rules) -> Result<u32, Refusal> {
    let least = rules.min_expires.secs();
    if asked > 0 && asked < least && asked < HOUR {
        return Err(Refusal::IntervalTooBrief { least });
    }
    Ok(asked.min(rules.max_expires.secs()))
}

impl ContactAddress {
    fn read(address: &NameAddr<'_>) -> Result<Self, Refusal> {
        let uri = address.parsed_uri().map_err(malformed)?;
        if uri.headers().is_some() {
            return Err(Refusal::Malformed("Contact has a URI with headers".into()));
        }
        if address.uri.len() + address.params.0.len() > MAX_CONTACT {
            return Err(Refusal::Malformed(format!("Contact has more than {MAX_CONTACT} bytes")));
        }
        Ok(Self {
            uri: address.uri.into(),
            params: without_ours(address.params.0).into(),
            reg_id: address.params.value("reg-id").and_then(|v| v.parse().ok()).filter(|&id| id > 0),
        })
    }

    pub(crate) fn instance(&self) -> Option<&str> {
        Params(&self.params).value("+sip.instance")
    }

    /// Of an emergency registration (TS 24.229 5.4.8.2, 7.2A.13): it lives beside the others of its UE.
    pub(crate) fn is_emergency(&self) -> bool {
        Uri::parse(&self.uri).is_ok_and(|uri| uri.has_param("sos"))
    }

    /// Whether a binding made by `other` is the one that this contact is about: RFC 5626 6 by instance and flow, else
    /// RFC 3261 19.1.4 by URI.
    pub(crate) fn is_same(&self, other: &Self, is_outbound: bool) -> bool {
        match (self.instance(), self.reg_id) {
            (Some(instance), Some(id)) if is_outbound && self.is_emergency() == other.is_emergency() => {
                other.instance() == Some(instance) && other.reg_id == Some(id)
            }
            _ => same_uri(&self.uri, &other.uri),
        }
    }

    /// A UE that comes back from another address, not using outbound, leaves its old binding behind: same instance, or
    /// no instance to tell two UEs apart (TS 24.229 5.4.1.2.2F).
    pub(crate) fn replaces(&self, other: &Self, is_outbound: bool) -> bool {
        !is_outbound
            && self.is_emergency() == other.is_emergency()
            && match (self.instance(), other.instance()) {
                (Some(a), Some(b)) => a == b,
                _ => true,
            }
    }

    /// Both say which UE they are of.
    pub(crate) fn is_of_another_ue(&self, other: &Self) -> bool {
        self.is_emergency() == other.is_emergency()
            && self.instance().zip(other.instance()).is_some_and(|(a, b)| a != b)
    }
}

/// RFC 3261 19.1.4 for what stands in a Contact: user, host, port, and the parameters that name another place.
fn same_uri(a: &str, b: &str) -> bool {
    if a == b {
        return true;
    }
    let (Ok(a), Ok(b)) = (Uri::parse(a), Uri::parse(b)) else { return false };
    let scheme = std::mem::discriminant(&a.scheme()) == std::mem::discriminant(&b.scheme());
    let place = a.user() == b.user() && a.host().eq_ignore_ascii_case(b.host()) && a.port() == b.port();
    // A parameter that only one has still tells them apart when it is one of these.
    let fixed = ["user", "ttl", "method", "maddr", "transport", "sos"];
    let one_sided = fixed.iter().all(|p| a.has_param(p) == b.has_param(p));
    let shared = a.params().all(|(name, value)| match b.param(name) {
        Some(other) => value.unwrap_or_default().eq_ignore_ascii_case(other.unwrap_or_default()),
        None => true,
    });
    a.is_sip() && scheme && place && one_sided && shared
}

/// Parameters of a Contact that the registrar writes anew, whatever a UE says (RFC 3261 10.3, RFC 5627 5.3).
const OURS: [&str; 3] = ["expires", "pub-gruu", "temp-gruu"];

/// `a;expires=1;b="x;y"` without the parameters that are ours, the rest as written.
fn without_ours(params: &str) -> String {
    let mut out = String::with_capacity(params.len());
    let (mut in_quotes, mut escaped, mut start) = (false, false, 0);
    let mut keep = |one: &str| {
        let name = one.split_once('=').map_or(one, |(n, _)| n).trim();
        if !name.is_empty() && !OURS.iter().any(|ours| name.eq_ignore_ascii_case(ours)) {
            out.push(';');
            out.push_str(one.trim());
        }
    };
    for (i, b) in params.bytes().enumerate() {
        match b {
            _ if escaped => escaped = false,
            b'\\' if in_quotes => escaped = true,
            b'"' => in_quotes = !in_quotes,
            b';' if !in_quotes => {
                keep(params.get(start..i).unwrap_or_default());
                start = i + 1;
            }
            _ => {}
        }
    }
    keep(params.get(start..).unwrap_or_default());
    out
}

fn malformed(error: HeaderError) -> Refusal {
    Refusal::Malformed(error.to_string())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use bytes::Bytes;

    pub(crate) fn wish(headers: &str) -> Result<Wish, Refusal> {
        let text = format!(
            "REGISTER sip:b SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\n\
             Call-ID: call\r\nCSeq: 7 REGISTER\r\n{headers}Content-Length: 0\r\n\r\n"
        );
        Wish::read(&Message::parse(Bytes::from(text)).unwrap(), &Rules::default())
    }

    fn granted(headers: &str) -> Vec<u32> {
        match wish(headers).unwrap().contacts {
            Contacts::Change(list) => list.iter().map(|c| c.expires).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_contact_says_how_long_then_the_header_then_we() {
        assert_eq!(granted("Contact: <sip:a@1>;expires=600, <sip:a@2>\r\nExpires: 700\r\n"), [600, 700]);
        assert_eq!(granted("Contact: <sip:a@1>\r\n"), [3600]);
        assert_eq!(granted("Contact: <sip:a@1>\r\nExpires: what\r\n"), [3600]);
        assert_eq!(granted("Contact: <sip:a@1>\r\nExpires: 600000\r\n"), [7200], "shortened to max_expires");
        assert_eq!(granted("Contact: <sip:a@1>;expires=99999999999\r\n"), [3600]);
        assert_eq!(wish("Contact: <sip:a@1>\r\nExpires: 5\r\n").err(), Some(Refusal::IntervalTooBrief { least: 60 }));
    }

    #[test]
    fn an_endless_call_id_is_refused() {
        let text = |len: usize| {
            let line = format!("i: {}\r\nCSeq: 7 REGISTER\r\nContent-Length: 0\r\n\r\n", "c".repeat(len));
            let head = "REGISTER sip:b SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\n";
            Wish::read(&Message::parse(Bytes::from(format!("{head}{line}"))).unwrap(), &Rules::default())
        };
        assert!(text(MAX_CALL_ID).is_ok());
        assert!(matches!(text(MAX_CALL_ID + 1).err(), Some(Refusal::Malformed(_))));
    }

    #[test]
    fn queries_and_removals() {
        assert!(matches!(wish("").unwrap().contacts, Contacts::Query));
        assert!(matches!(wish("Contact: *\r\nExpires: 0\r\n").unwrap().contacts, Contacts::RemoveAll));
        assert!(wish("Contact: *\r\n").is_err() && wish("Contact: *\r\nExpires: 1\r\n").is_err());
        assert!(wish("Contact: *\r\nContact: <sip:a@b>\r\nExpires: 0\r\n").is_err());
        assert!(wish("Contact: <sip:a@1>;expires=0\r\n").unwrap().leaves());
        assert!(!wish("Contact: <sip:a@1>;expires=0,<sip:a@2>\r\n").unwrap().leaves());
        assert!(wish(&"Contact: <sip:a@b>\r\n".repeat(11)).is_err());
        assert!(wish("Contact: <sip:a@b?Route=x>\r\n").is_err());
        assert!(wish(&format!("Contact: <sip:a@b>;+g.x=\"{}\"\r\n", "x".repeat(MAX_CONTACT))).is_err());
        assert!(wish(&format!("Contact: <sip:a@b>;+g.x=\"{}\"\r\n", "x".repeat(2000))).is_ok());
    }

    #[test]
    fn contact_parameters_come_back_as_written() {
        let params = "q=0.5; expires=600 ;pub-gruu=\"sip:x;gr=y\";+sip.instance=\"<urn:gsma:imei:1-2-0>\";+g.x=\"a;expires=1\\\";b\";reg-id=2";
        let expected = ";q=0.5;+sip.instance=\"<urn:gsma:imei:1-2-0>\";+g.x=\"a;expires=1\\\";b\";reg-id=2";
        assert_eq!(without_ours(params), expected);
        assert_eq!(without_ours(""), "");
    }

    #[test]
    fn contacts_are_compared_as_places() {
        assert!(same_uri("sip:a@[2001:db8::1]:5060", "sip:a@[2001:DB8::1]:5060;lr"));
        assert!(same_uri("sip:a@b;transport=TCP", "sip:a@b;transport=tcp"));
        for other in ["sip:a@b:5060", "sips:a@b", "sip:A@b", "sip:a@b;transport=tcp", "tel:+1"] {
            assert!(!same_uri("sip:a@b", other), "{other}");
        }
    }

    #[test]
    fn reg_id_counts_only_with_outbound_all_the_way() {
        let contact = "Contact: <sip:a@1>;+sip.instance=\"<urn:x>\";reg-id=1\r\n";
        assert!(!wish(contact).unwrap().is_outbound);
        assert!(!wish(&format!("{contact}Supported: outbound\r\nPath: <sip:p;lr>\r\n")).unwrap().is_outbound);
        assert!(wish(&format!("{contact}Supported: path, outbound\r\nPath: <sip:p;lr;ob>\r\n")).unwrap().is_outbound);
    }
}
