//! The body of a NOTIFY about registrations: application/reginfo+xml (RFC 3680 5), with the GRUUs of RFC 5628.

use crate::gruu;
use crate::registrar::Binding;
use ims_core::{Impu, Time};
use ims_sip::headers::Params;
use std::fmt::{self, Write as _};

pub(crate) const MEDIA_TYPE: &str = "application/reginfo+xml";

/// What has last happened to a contact (RFC 3680 3.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Happened {
    /// By a REGISTER that names this identity,
    Registered,
    /// and by one that names another of the implicit registration set.
    Created,
    Refreshed,
    Shortened,
    Expired,
    /// The network ends it, and the UE is to register anew at once,
    Deactivated,
    /// after so many seconds,
    Probation(u32),
    /// or not again by itself.
    Rejected,
    Unregistered,
}

impl Happened {
    fn word(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Created => "created",
            Self::Refreshed => "refreshed",
            Self::Shortened => "shortened",
            Self::Expired => "expired",
            Self::Deactivated => "deactivated",
            Self::Probation(_) => "probation",
            Self::Rejected => "rejected",
            Self::Unregistered => "unregistered",
        }
    }

    fn ends(self) -> bool {
        !matches!(self, Self::Registered | Self::Created | Self::Refreshed | Self::Shortened)
    }
}

/// A public identity of the user, and its contacts.
pub(crate) struct Entry<'a> {
    pub(crate) aor: &'a Impu,
    pub(crate) contacts: Vec<Line<'a>>,
}

/// A contact.
#[derive(Clone, Copy)]
pub(crate) struct Line<'a> {
    pub(crate) binding: &'a Binding,
    pub(crate) happened: Happened,
    /// It is told of because of this; otherwise it stands in a full document only.
    pub(crate) is_news: bool,
}

/// All that the subscriber is to know (`state="full"`), or what is news to it when that is less.
pub(crate) fn write(version: u32, must_be_full: bool, entries: &[Entry<'_>], now: Time) -> String {
    let is_full = must_be_full || entries.iter().all(|e| e.contacts.iter().all(|line| line.is_news));
    let mut out = String::with_capacity(512 + 512 * entries.len());
    let state = if is_full { "full" } else { "partial" };
    let _ = write!(
        out,
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<reginfo xmlns=\"urn:ietf:params:xml:ns:reginfo\" \
         xmlns:gr=\"urn:ietf:params:xml:ns:gruuinfo\" version=\"{version}\" state=\"{state}\">\n"
    );
    for entry in entries {
        let told = || entry.contacts.iter().filter(|line| is_full || line.is_news);
        if !is_full && told().next().is_none() {
            continue;
        }
        let (aor, id) = (entry.aor.as_str(), number(&[entry.aor.as_str()]));
        let state = match entry.contacts.iter().any(|line| !line.happened.ends()) {
            true => "active",
            // RFC 3680 3.1: nobody is registered, and nobody was a moment ago.
            false if entry.contacts.is_empty() => "init",
            false => "terminated",
        };
        let _ = writeln!(out, "<registration aor=\"{}\" id=\"a{id:x}\" state=\"{state}\">", Xml(aor));
        told().for_each(|line| write_contact(&mut out, entry.aor, line, now));
        out.push_str("</registration>\n");
    }
    out.push_str("</reginfo>\n");
    out
}

fn write_contact(out: &mut String, aor: &Impu, line: &Line<'_>, now: Time) {
    let Line { binding, happened, .. } = line;
    let contact = &binding.contact;
    let id = number(&[aor.as_str(), &contact.uri]);
    let state = if happened.ends() { "terminated" } else { "active" };
    let _ = write!(out, "<contact id=\"c{id:x}\" state=\"{state}\" event=\"{}\"", happened.word());
    match happened {
        Happened::Probation(wait) => drop(write!(out, " retry-after=\"{wait}\"")),
        other if other.ends() => {}
        _ => drop(write!(out, " expires=\"{}\"", binding.expires_in(now))),
    }
    let params = Params(&contact.params);
    if let Some(q) = params.value("q").filter(|q| !q.is_empty()) {
        let _ = write!(out, " q=\"{}\"", Xml(q));
    }
    let _ = write!(out, "><uri>{}</uri>", Xml(&contact.uri));
    for (name, value) in params.as_written().filter(|(name, _)| !name.eq_ignore_ascii_case("q")) {
        let _ = write!(out, "<unknown-param name=\"{}\">{}</unknown-param>", Xml(name), Xml(value.unwrap_or("")));
    }
    if let Some(gruu) = contact.instance().filter(|_| !happened.ends()).and_then(|i| gruu::public(aor, i)) {
        let _ = write!(out, "<gr:pub-gruu uri=\"{}\"/>", Xml(&gruu));
    }
    out.push_str("</contact>\n");
}

/// The same for the same texts, restarts included (FNV-1a).
fn number(texts: &[&str]) -> u64 {
    let bytes = texts.iter().flat_map(|text| text.bytes().chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}

/// Text inside XML. What XML 1.0 cannot hold at all becomes a question mark.
pub(crate) struct Xml<'a>(pub(crate) &'a str);

impl fmt::Display for Xml<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\t' => f.write_str(" ")?,
                c if c < ' ' || matches!(c, '\u{fffe}' | '\u{ffff}') => f.write_str("?")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wish::ContactAddress;
    use std::time::Duration;

    fn binding(uri: &str, params: &str) -> Binding {
        Binding {
            contact: ContactAddress { uri: uri.into(), params: params.into(), reg_id: None },
            path: [].into(),
            call_id: "c".into(),
            cseq: 1,
            expires_at: Time::EPOCH + Duration::from_secs(600),
        }
    }

    fn impu(text: &str) -> Impu {
        Impu::parse(text).unwrap()
    }

    fn line(binding: &Binding, happened: Happened, is_news: bool) -> Line<'_> {
        Line { binding, happened, is_news }
    }

    #[test]
    fn a_phone_with_two_identities() {
        let one =
            binding("sip:a@[2001:db8::1]:5060;x=\"", ";+sip.instance=\"<urn:uuid:1-2>\";q=0.5;video;+g.x=\"a&b\"");
        let (name, number) = (impu("sip:alice@b"), impu("tel:+1555"));
        let entries = [
            Entry { aor: &name, contacts: vec![line(&one, Happened::Registered, true)] },
            Entry { aor: &number, contacts: vec![line(&one, Happened::Created, true)] },
        ];
        let text = write(0, false, &entries, Time::EPOCH);
        assert!(text.contains("version=\"0\" state=\"full\""), "{text}");
        assert!(text.contains("<registration aor=\"sip:alice@b\" id=\"a"), "{text}");
        assert!(text.contains("state=\"active\" event=\"registered\" expires=\"600\" q=\"0.5\""), "{text}");
        assert!(text.contains("<uri>sip:a@[2001:db8::1]:5060;x=&quot;</uri>"), "{text}");
        let instance = "<unknown-param name=\"+sip.instance\">&quot;&lt;urn:uuid:1-2&gt;&quot;</unknown-param>";
        assert!(text.contains(instance) && text.contains("<unknown-param name=\"video\"></unknown-param>"), "{text}");
        assert!(text.contains("event=\"created\"") && text.contains("&quot;a&amp;b&quot;"), "{text}");
        assert!(text.contains("<gr:pub-gruu uri=\"sip:alice@b;gr=urn:uuid:1-2\"/>"), "{text}");
        assert_eq!(text.matches("name=\"q\"").count(), 0);
        assert_eq!(text, write(0, false, &entries, Time::EPOCH), "the same ids again");
    }

    #[test]
    fn what_is_not_news_makes_a_document_partial() {
        let (one, two, aor) = (binding("sip:a@1", ""), binding("sip:a@2", ""), impu("sip:alice@b"));
        let of = |news: bool| {
            vec![Entry {
                aor: &aor,
                contacts: vec![line(&one, Happened::Registered, news), line(&two, Happened::Expired, true)],
            }]
        };
        let partial = write(7, false, &of(false), Time::EPOCH);
        assert!(partial.contains("version=\"7\" state=\"partial\"") && !partial.contains("sip:a@1"), "{partial}");
        assert!(partial.contains("state=\"active\">"), "the registration is, though its contact is not: {partial}");
        assert!(partial.contains("state=\"terminated\" event=\"expired\"><uri>sip:a@2"), "{partial}");
        let full = write(7, true, &of(false), Time::EPOCH);
        assert!(full.contains("state=\"full\"") && full.contains("sip:a@1"), "{full}");
    }

    #[test]
    fn who_has_no_contact_is_in_the_initial_state() {
        let aor = impu("sip:alice@b");
        let text = write(0, true, &[Entry { aor: &aor, contacts: Vec::new() }], Time::EPOCH);
        assert!(text.contains("state=\"init\">\n</registration>"), "{text}");
    }

    #[test]
    fn every_event_has_its_word_and_state() {
        use Happened::*;
        let (one, aor) = (binding("sip:a@1", ";+sip.instance=\"<urn:uuid:1>\""), impu("sip:alice@b"));
        for (happened, word, is_active) in [
            (Registered, "registered", true),
            (Created, "created", true),
            (Refreshed, "refreshed", true),
            (Shortened, "shortened", true),
            (Expired, "expired", false),
            (Deactivated, "deactivated", false),
            (Probation(30), "probation\" retry-after=\"30", false),
            (Rejected, "rejected", false),
            (Unregistered, "unregistered", false),
        ] {
            let text = write(1, true, &[Entry { aor: &aor, contacts: vec![line(&one, happened, true)] }], Time::EPOCH);
            let state = if is_active { "active" } else { "terminated" };
            assert!(text.contains(&format!("state=\"{state}\" event=\"{word}\"")), "{text}");
            assert_eq!(text.matches(&format!("state=\"{state}\"")).count(), 2, "contact and registration: {text}");
            assert_eq!(text.contains("pub-gruu"), is_active, "{text}");
        }
    }

    #[test]
    fn nothing_breaks_out_of_the_text() {
        assert_eq!(Xml("a<b>&\"\u{1}\t\u{e9}").to_string(), "a&lt;b&gt;&amp;&quot;? \u{e9}");
    }
}
