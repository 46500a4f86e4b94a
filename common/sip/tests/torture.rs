//! RFC 4475 (49 messages), RFC 5118 (12) and the shapes that IMS brings (`ims-*`), each with what it must give.
//! The files are the exact bytes of the RFCs, but for three of RFC 5118 whose Content-Length does not fit their body in
//! the RFC (`ipv6-in-sdp`, `mult-ip-in-sdp`, `ipv4-mapped-ipv6`): there it is put right.

use bytes::Bytes;
use ims_core::uri::Scheme;
use ims_sip::headers::{
    CSeq, CallId, Contact, From, PAssertedIdentity, RecordRoute, Route, SecurityClient, To, TypedHeader, Via,
};
use ims_sip::{Message, Method, Name, ParseError};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

enum Expect {
    /// Well-formed: passes `check`, every core header is read, and it comes back byte for byte.
    Valid,
    /// Well-formed for us; what the RFC asks is for the roles above: the status they answer with, or why not.
    #[allow(dead_code)]
    Application(&'static str),
    /// Refused by `check` with this status and counter name, and it can be answered.
    Refused(u16, &'static str),
    /// A response that is thrown away.
    Dropped(&'static str),
}
use Expect::{Application, Dropped, Refused, Valid};

const CASES: &[(&str, Expect)] = &[
    // RFC 4475 3.1.1: valid.
    ("wsinv", Valid),
    ("intmeth", Valid),
    ("esc01", Valid),
    ("escnull", Valid),
    ("esc02", Valid),
    ("lwsdisp", Valid),
    ("longreq", Valid),
    ("dblreq", Valid),
    ("semiuri", Valid),
    ("transports", Valid),
    ("mpart01", Valid),
    ("unreason", Valid),
    ("noreason", Valid),
    // RFC 4475 3.1.2: invalid.
    ("badinv01", Refused(400, "header")),
    ("clerr", Refused(400, "content_length")),
    ("ncl", Refused(400, "content_length")),
    ("scalar02", Refused(400, "header")),
    ("scalarlg", Dropped("header")),
    ("quotbal", Refused(400, "header")),
    ("ltgtruri", Refused(400, "request_uri")),
    ("lwsruri", Refused(400, "malformed")),
    ("lwsstart", Refused(400, "malformed")),
    ("trws", Refused(400, "malformed")),
    ("escruri", Application("a proxy may pass it on; the S-CSCF looks at the user and host only")),
    ("baddate", Application("Date is nobody's business here")),
    ("regbadct", Refused(400, "header")),
    ("badaspec", Refused(400, "header")),
    ("baddn", Refused(400, "header")),
    ("badvers", Refused(505, "version")),
    ("mismatch01", Refused(400, "method_mismatch")),
    ("mismatch02", Refused(400, "method_mismatch")),
    ("bigcode", Dropped("malformed")),
    // RFC 4475 3.2 and 3.3: transaction and application layer.
    ("badbranch", Application("matched by the rules of RFC 2543")),
    ("insuf", Refused(400, "header_missing")),
    ("unkscm", Application("416")),
    ("novelsc", Application("416")),
    ("unksm2", Application("400 or 404 of the registrar")),
    ("bext01", Application("420")),
    ("invut", Application("415")),
    ("regaut01", Application("401")),
    ("multi01", Refused(400, "header_repeated")),
    ("mcl01", Refused(400, "content_length")),
    ("bcast", Application("its second Via is not ours: dropped")),
    ("zeromf", Application("483")),
    ("cparam01", Valid),
    ("cparam02", Valid),
    ("regescrt", Valid),
    ("sdp01", Application("406")),
    // RFC 4475 3.4.
    ("inv2543", Valid),
    // RFC 5118.
    ("ipv6-good", Valid),
    ("ipv6-bad", Refused(400, "request_uri")),
    ("port-ambiguous", Valid),
    ("port-unambiguous", Valid),
    ("via-received-param-with-delim", Valid),
    ("via-received-param-no-delim", Valid),
    ("ipv6-in-sdp", Valid),
    ("mult-ip-in-header", Valid),
    ("mult-ip-in-sdp", Valid),
    ("ipv4-mapped-ipv6", Valid),
    ("ipv6-bug-abnf-3-colons", Valid),
    ("ipv6-correct-abnf-2-colons", Valid),
    // What IMS brings.
    ("ims-tel-ruri", Valid),
    ("ims-tel-phonectx", Valid),
    ("ims-urn-sos", Valid),
    ("ims-urn-sos-police", Valid),
    ("ims-user-phone", Valid),
    ("ims-ipv6", Valid),
    ("ims-route-orig", Valid),
    ("ims-rr-oneline", Valid),
    ("ims-unk-method", Valid),
    ("ims-method-prefix", Valid),
    ("ims-method-lower", Valid),
    ("ims-unk-header", Valid),
    ("ims-interleave", Valid),
    ("ims-fold", Valid),
    ("ims-compact", Valid),
    ("ims-msg-nonutf8-body", Valid),
    ("ims-nonutf8-header", Valid),
    ("ims-nocl-udp", Valid),
    ("ims-contact-star", Valid),
    ("ims-escaped-ruri", Valid),
    ("ims-ruri-hdrs", Valid),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torture")
}

fn bytes(name: &str) -> Bytes {
    std::fs::read(folder().join(format!("{name}.sip"))).unwrap_or_else(|e| panic!("{name}: {e}")).into()
}

fn message(name: &str) -> Message {
    Message::parse(bytes(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// What the wire carries of the file: without what follows the body (dblreq).
fn expected(name: &str) -> Bytes {
    let bytes = bytes(name);
    let end = bytes.windows(8).position(|w| w == b"\r\n\r\n\r\nIN").map_or(bytes.len(), |at| at + 4);
    bytes.slice(..end)
}

fn read_all<'a, H: TypedHeader<'a>>(message: &'a Message, name: &str) {
    for value in message.each::<H>() {
        value.unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

fn assert_good(name: &str) {
    let message = message(name);
    assert_eq!(message.check(), Ok(()), "{name}");
    assert_eq!(message.to_bytes(), expected(name), "{name}");
    read_all::<Via<'_>>(&message, name);
    read_all::<From<'_>>(&message, name);
    read_all::<To<'_>>(&message, name);
    read_all::<CallId<'_>>(&message, name);
    read_all::<CSeq<'_>>(&message, name);
    read_all::<Contact<'_>>(&message, name);
    read_all::<Route<'_>>(&message, name);
    read_all::<RecordRoute<'_>>(&message, name);
    // One hop further and back: nothing else moves.
    let mut hop = message.clone();
    hop.push_front(Name::Via, "SIP/2.0/UDP proxy.example.com;branch=z9hG4bKhop");
    let mut next = Message::parse(hop.to_bytes()).unwrap();
    assert!(next.pop_first(Name::Via));
    let lines = |m: &Message| m.lines().map(|(n, v)| (n.to_vec(), v.to_vec())).collect::<Vec<_>>();
    let mut before = lines(&message);
    if !message.has(Name::ContentLength) {
        before.push((b"Content-Length".to_vec(), message.body().len().to_string().into_bytes()));
    }
    assert_eq!((lines(&next), next.body()), (before, message.body()), "{name}");
}

fn assert_bad(name: &str, status: Option<u16>, counter: &str) {
    let message = message(name);
    let error: ParseError = message.check().expect_err(name);
    assert_eq!((message.is_request(), error.name()), (status.is_some(), counter), "{name}: {error}");
    if let Some(status) = status {
        assert_eq!(error.status(), status, "{name}: {error}");
        let answer = Message::parse(Message::response(&message, status, Some("t")).to_bytes()).unwrap();
        assert_eq!((answer.status(), answer.fault()), (status, None), "{name}");
        assert_eq!(answer.has(Name::Via), message.has(Name::Via), "{name}");
    }
}

#[test]
fn every_message_gives_what_it_must() {
    for (name, expect) in CASES {
        match expect {
            Valid | Application(_) => assert_good(name),
            Refused(status, counter) => assert_bad(name, Some(*status), counter),
            Dropped(counter) => assert_bad(name, None, counter),
        }
    }
}

#[test]
fn every_file_has_its_expectation() {
    let files: BTreeSet<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "sip"))
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    let cases: BTreeSet<String> = CASES.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(files, cases);
    assert_eq!(CASES.iter().position(|(name, _)| *name == "ipv6-good"), Some(49), "RFC 4475 has 49 messages");
}

#[test]
fn wsinv_is_read_as_the_rfc_says() {
    let m = message("wsinv");
    assert_eq!((m.method(), m.uri()), (Method::Invite, "sip:vivekg@chair-dnrc.example.com;unknownparam"));
    assert_eq!(m.require::<To<'_>>().unwrap().tag(), Some("1918181833n"));
    let from = m.require::<From<'_>>().unwrap();
    assert_eq!((from.display_text().unwrap().as_ref(), from.tag()), ("J Rosenberg \\\"", Some("98asjd8")));
    assert_eq!(m.require::<CSeq<'_>>().unwrap().number, 9);
    let vias = m.all::<Via<'_>>().unwrap();
    let read: Vec<_> = vias.iter().map(|v| (v.transport, v.host, v.branch())).collect();
    assert_eq!(
        read,
        [
            ("UDP", "192.0.2.2", Some("390skdjuw")),
            ("TCP", "spindle.example.com", Some("z9hG4bK9ikj8")),
            ("UDP", "192.168.255.111", Some("z9hG4bK30239"))
        ]
    );
    let contact = m.require::<Contact<'_>>().unwrap();
    assert_eq!((contact.q(), contact.addr().unwrap().params.value("newparam")), (Some(330), Some("newvalue")));
    let route = m.require::<Route<'_>>().unwrap();
    assert!(route.parsed_uri().unwrap().has_param("lr"));
    assert_eq!((m.text(Name::Subject), m.body().len()), (Some(""), 150));
    assert_eq!(m.raw_named("unknownheaderwithunusualvalue").next(), Some(&b";;,,;;,;"[..]));
}

#[test]
fn odd_methods_stay_what_they_are() {
    assert_eq!(message("intmeth").method(), Method::Other("!interesting-Method0123456789_*+`.%indeed'~"));
    assert_eq!(message("esc02").method(), Method::Other("RE%47IST%45R"));
    assert_eq!(message("esc02").all::<Contact<'_>>().unwrap().len(), 2);
    assert_eq!(message("ims-method-prefix").method(), Method::Other("INVITEX"));
    assert_eq!(message("ims-method-lower").method(), Method::Other("invite"));
    assert_eq!(message("unreason").method(), Method::Invite);
}

#[test]
fn request_uris_of_ims_are_kept_and_understood() {
    let scheme = |name: &str| ims_core::uri::Uri::parse(message(name).uri()).unwrap().scheme() == Scheme::Tel;
    assert!(scheme("ims-tel-ruri") && scheme("ims-tel-phonectx") && !scheme("ims-urn-sos"));
    assert_eq!(message("ims-urn-sos-police").uri(), "urn:service:sos.police");
    assert!(message("ims-escaped-ruri").uri().starts_with("sip:%23%2A21%23@"));
    assert!(message("ims-ruri-hdrs").uri().ends_with("?Subject=a%20b"));
    assert_eq!(message("ipv6-good").uri(), "sip:[2001:db8::10]");
}

#[test]
fn order_across_names_is_kept() {
    let m = message("ims-interleave");
    let routes: Vec<_> = m.all::<Route<'_>>().unwrap().iter().map(|r| r.uri.len()).collect();
    assert_eq!((routes.len(), m.all::<PAssertedIdentity<'_>>().unwrap().len()), (2, 2));
    assert_eq!(message("ims-rr-oneline").all::<RecordRoute<'_>>().unwrap().len(), 3);
    assert_eq!(message("ims-fold").all::<SecurityClient>().unwrap()[1].0.spi_s, Some(4));
}

#[test]
fn what_is_not_utf8_is_carried() {
    let m = message("ims-nonutf8-header");
    assert_eq!(m.raw(Name::Subject).next(), Some(&b"\xe9"[..]));
    assert_eq!((m.text(Name::Subject), m.require::<From<'_>>().unwrap().tag()), (None, Some("9")));
    assert_eq!(message("ims-msg-nonutf8-body").body().last(), Some(&0xff));
    assert_eq!(message("mpart01").body().len(), 553);
}

#[test]
fn received_is_read_with_and_without_brackets() {
    for name in ["via-received-param-with-delim", "via-received-param-no-delim"] {
        let m = message(name);
        let received = m.require::<Via<'_>>().unwrap().received();
        assert_eq!(received, Some("2001:db8::9:255".parse().unwrap()), "{name}");
    }
    let three = message("ipv6-bug-abnf-3-colons");
    let uri = ims_core::uri::Uri::parse(three.uri()).unwrap();
    assert_eq!(uri.host_ip(), Some("2001:db8::192.0.2.1".parse().unwrap()));
}

#[test]
fn four_thousand_unknown_headers_are_one_pass() {
    let fields: String = (0..4000).map(|n| format!("X-{n}: {n}\r\n")).collect();
    let text = format!("OPTIONS sip:a SIP/2.0\r\n{fields}Via: SIP/2.0/UDP a\r\n\r\n");
    let mut m = Message::parse(text.clone().into()).unwrap();
    assert_eq!(m.fault(), None);
    assert_eq!(m.to_bytes(), text);
    m.push_front(Name::Via, "SIP/2.0/UDP b");
    assert_eq!(m.lines().count(), 4002);
    assert_eq!(m.raw_named("x-3999").next(), Some(&b"3999"[..]));
}
