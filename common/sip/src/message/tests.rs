use super::*;
use crate::headers::{CSeq, Contact, From, Route, To, Via};

const REGISTER: &str = "REGISTER sip:ims.mnc001.mcc001.3gppnetwork.org SIP/2.0\r\n\
Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1;rport, SIP/2.0/TCP 192.0.2.2;branch=z9hG4bK2\r\n\
Via: SIP/2.0/UDP 192.0.2.3;branch=z9hG4bK3\r\n\
X-Odd :  kept   as\r\n  it is \r\n\
f: <sip:001010000000001@ims>;tag=1\r\n\
TO: <sip:001010000000001@ims>\r\n\
Call-ID: x@192.0.2.1\r\n\
CSeq: 1 REGISTER\r\n\
Max-Forwards: 70\r\n\
Contact: <sip:a@192.0.2.1>;expires=600000, <sip:b@192.0.2.1>\r\n\
Require: sec-agree\r\n\
Supported: path, sec-agree,gruu\r\n\
Content-Length: 4\r\n\r\nbody";

fn parse(text: impl AsRef<[u8]>) -> Message {
    Message::parse(Bytes::copy_from_slice(text.as_ref())).unwrap()
}

fn text(message: &Message) -> String {
    String::from_utf8(message.to_bytes().to_vec()).unwrap()
}

#[test]
fn an_untouched_message_comes_back_byte_for_byte() {
    let message = parse(REGISTER);
    assert_eq!(message.check(), Ok(()));
    assert_eq!(text(&message), REGISTER);
    assert_eq!((message.method(), message.uri()), (Method::Register, "sip:ims.mnc001.mcc001.3gppnetwork.org"));
    assert_eq!((message.status(), message.body()), (0, &b"body"[..]));
    assert_eq!(message.raw_named("x-odd").next(), Some(&b"kept   as\r\n  it is"[..]));
    assert_eq!(message.lines().count(), 12);
}

#[test]
fn typed_headers_are_read_over_lines_and_lists() {
    let message = parse(REGISTER);
    let branches: Vec<_> = message.all::<Via<'_>>().unwrap().iter().filter_map(Via::branch).collect();
    assert_eq!(branches, ["z9hG4bK1", "z9hG4bK2", "z9hG4bK3"]);
    assert_eq!(message.require::<From<'_>>().unwrap().tag(), Some("1"));
    assert_eq!(message.all::<Contact<'_>>().unwrap().len(), 2);
    assert!(message.first::<Route<'_>>().unwrap().is_none());
    assert_eq!(message.require::<Route<'_>>().unwrap_err().reason, "is missing");
    assert_eq!(message.tokens(Name::Supported), ["path", "sec-agree", "gruu"]);
    assert!(message.has_token(Name::Supported, "GRUU") && !message.has_token(Name::Supported, "100rel"));
}

#[test]
fn a_change_touches_only_its_own_line() {
    let mut message = parse(REGISTER);
    message.push_front(Name::Via, "SIP/2.0/UDP p;branch=z9hG4bK0");
    message.set(Name::MaxForwards, 69);
    let expected = REGISTER
        .replacen("Via:", "Via: SIP/2.0/UDP p;branch=z9hG4bK0\r\nVia:", 1)
        .replace("Max-Forwards: 70", "Max-Forwards: 69");
    assert_eq!(text(&message), expected);
    assert!(message.pop_first(Name::Via));
    message.set(Name::MaxForwards, 70);
    assert_eq!(text(&message), REGISTER);
}

#[test]
fn values_are_taken_out_of_lists_one_by_one() {
    let mut message = parse(REGISTER);
    assert!(message.pop_first(Name::Via));
    assert!(text(&message).contains("\r\nVia: SIP/2.0/TCP 192.0.2.2;branch=z9hG4bK2\r\nVia: SIP/2.0/UDP 192.0.2.3"));
    assert!(message.pop_first(Name::Via) && message.pop_first(Name::Via) && !message.pop_first(Name::Via));
    assert!(!message.has(Name::Via));
    let mut message = parse(REGISTER);
    message.replace_first(Name::Via, "SIP/2.0/UDP new");
    message.replace_first(Name::Contact, "<sip:c@d>");
    message.replace_first(Name::Path, "<sip:p>");
    let out = text(&message);
    assert!(out.contains("Via: SIP/2.0/UDP new, SIP/2.0/TCP 192.0.2.2;branch=z9hG4bK2\r\n"));
    assert!(out.contains("Contact: <sip:c@d>, <sip:b@192.0.2.1>\r\n"));
    assert!(out.contains("SIP/2.0\r\nPath: <sip:p>\r\n"));
}

#[test]
fn a_token_goes_and_the_header_with_the_last() {
    let mut message = parse(REGISTER);
    assert!(message.remove_token(Name::Require, "Sec-Agree") && !message.has(Name::Require));
    assert!(message.remove_token(Name::Supported, "sec-agree") && !message.remove_token(Name::Supported, "sec-agree"));
    assert_eq!(message.tokens(Name::Supported), ["path", "gruu"]);
}

#[test]
fn a_value_cannot_break_out_of_its_line() {
    let mut message = parse(REGISTER);
    message.set_named("X-Odd", "a\r\nEvil: b");
    message.push_named("X-More", "c");
    message.set_uri("sip:x\r\ny");
    let out = text(&message);
    assert!(out.contains("X-Odd: a  Evil: b\r\n") && out.starts_with("REGISTER sip:x  y SIP/2.0\r\n"));
    assert_eq!((message.remove_named("x-odd"), message.remove_named("x-odd")), (1, 0));
}

#[test]
fn content_length_is_always_right() {
    let mut message = parse(REGISTER);
    message.set_body("text/plain", b"longer body");
    let again = parse(text(&message));
    assert_eq!((again.body(), again.text(Name::ContentLength)), (&b"longer body"[..], Some("11")));
    message.set_body("", b"");
    assert!(!message.has(Name::ContentType) && text(&message).ends_with("Content-Length: 0\r\n\r\n"));
    message.set(Name::ContentLength, 77);
    assert!(text(&message).ends_with("Content-Length: 0\r\n\r\n"));
    let mut bare = parse("OPTIONS sip:a SIP/2.0\r\nVia: x\r\n\r\nbody");
    assert_eq!(text(&bare), "OPTIONS sip:a SIP/2.0\r\nVia: x\r\n\r\nbody");
    bare.remove(Name::Via);
    assert_eq!(text(&bare), "OPTIONS sip:a SIP/2.0\r\nContent-Length: 4\r\n\r\nbody");
}

#[test]
fn a_response_copies_what_it_must() {
    let request = parse(REGISTER);
    let response = Message::response(&request, 401, Some("tt"));
    assert_eq!(
        text(&response),
        "SIP/2.0 401 Unauthorized\r\n\
         Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1;rport, SIP/2.0/TCP 192.0.2.2;branch=z9hG4bK2\r\n\
         Via: SIP/2.0/UDP 192.0.2.3;branch=z9hG4bK3\r\nf: <sip:001010000000001@ims>;tag=1\r\n\
         TO: <sip:001010000000001@ims>;tag=tt\r\nCall-ID: x@192.0.2.1\r\nCSeq: 1 REGISTER\r\nContent-Length: 0\r\n\r\n"
    );
    assert_eq!(
        (response.status(), response.reason(), response.method()),
        (401, &b"Unauthorized"[..], Method::Register)
    );
    let mut received = parse(REGISTER.replace("TO: <sip:001010000000001@ims>", "TO: <sip:a@b>;TAG=9"));
    received.replace_first(Name::Via, "SIP/2.0/UDP 192.0.2.1;received=1.2.3.4");
    let response = Message::response_with_reason(&received, 299, "Fine\r\nx", Some("tt"));
    assert!(
        text(&response).starts_with("SIP/2.0 299 Fine  x\r\nVia: SIP/2.0/UDP 192.0.2.1;received=1.2.3.4, SIP/2.0/TCP")
    );
    assert_eq!(response.require::<To<'_>>().unwrap().tag(), Some("9"));
}

#[test]
fn fields_are_copied_between_messages() {
    let from = parse(REGISTER);
    let mut to = Message::request("REGISTER", "sip:x");
    to.push_back(Name::CallId, "1");
    to.copy(Name::Via, &from);
    to.copy(Name::CallId, &from);
    to.push_back(Name::Via, "last");
    assert_eq!(
        text(&to),
        "REGISTER sip:x SIP/2.0\r\nCall-ID: x@192.0.2.1\r\n\
         Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1;rport, SIP/2.0/TCP 192.0.2.2;branch=z9hG4bK2\r\n\
         Via: SIP/2.0/UDP 192.0.2.3;branch=z9hG4bK3\r\nVia: last\r\nContent-Length: 0\r\n\r\n"
    );
    assert_eq!(to.require::<CSeq<'_>>().unwrap_err().name, "CSeq");
}

#[test]
fn what_is_no_sip_is_refused_at_once() {
    for (bytes, why) in [
        (&b""[..], ParseError::Empty),
        (b"\r\n\r\n", ParseError::Empty),
        (b"GET / HTTP/1.1\r\n\r\n", ParseError::NotSip),
        (b"\x00\x01\x00\x00", ParseError::NotSip),
        (b"REGISTER sip:a\r\n\r\n", ParseError::NotSip),
    ] {
        assert_eq!(Message::parse(Bytes::from_static(bytes)).unwrap_err(), why);
    }
}

#[test]
fn a_broken_request_can_still_be_answered() {
    for (from, to, status, name) in [
        ("Content-Length: 4", "Content-Length: 5", 400, "content_length"),
        ("Content-Length: 4", "Content-Length: -4", 400, "content_length"),
        ("Content-Length: 4", "Content-Length: 4\r\nl: 3", 400, "content_length"),
        ("org SIP/2.0", "org SIP/7.0", 505, "version"),
        ("org SIP/2.0", "org; lr SIP/2.0", 400, "malformed"),
        ("REGISTER sip:ims", "REGISTER  sip:ims", 400, "malformed"),
        ("REGISTER sip:ims", "REGISTER sip:ims:x", 400, "request_uri"),
        ("CSeq: 1 REGISTER", "CSeq: 1 INVITE", 400, "method_mismatch"),
        ("CSeq: 1 REGISTER", "CSeq: 2147483648 REGISTER", 400, "header"),
        ("CSeq: 1 REGISTER", "cSeq: 1 REGISTER\r\nCSEQ: 1 REGISTER", 400, "header_repeated"),
        ("Call-ID: x@192.0.2.1\r\n", "", 400, "header_missing"),
        ("Max-Forwards: 70", "Max-Forwards: 300", 400, "header"),
        ("Max-Forwards: 70\r\n", "no colon\r\n", 400, "malformed"),
        ("Max-Forwards: 70\r\n", "Max-Forwards: 70\n", 400, "malformed"),
        ("Max-Forwards: 70\r\n", "Subject: a\rb\r\n", 400, "malformed"),
    ] {
        let broken = REGISTER.replacen(from, to, 1);
        assert_ne!(broken, REGISTER, "{from}");
        let message = parse(&broken);
        let error = message.check().unwrap_err();
        assert_eq!((error.status(), error.name()), (status, name), "{to}");
        let answer = parse(text(&Message::response(&message, error.status(), Some("t"))));
        assert_eq!(answer.fault(), None);
        assert_eq!(answer.all::<Via<'_>>().unwrap().len(), 3, "{to}");
    }
}

#[test]
fn a_header_section_without_end_is_a_fault() {
    let message = parse("OPTIONS sip:a SIP/2.0\r\nVia: SIP/2.0/UDP a\r\nCall-ID: 1");
    assert_eq!(message.fault().unwrap().name(), "malformed");
    assert!(text(&Message::response(&message, 400, None)).contains("Via: SIP/2.0/UDP a\r\nCall-ID: 1\r\n"));
}

#[test]
fn leading_line_ends_and_trailing_bytes_are_not_part_of_the_message() {
    let message = parse(format!("\r\n\r\n{REGISTER}trailing"));
    assert_eq!(text(&message), REGISTER);
}

#[test]
fn limits_hold() {
    let long = format!("OPTIONS sip:a SIP/2.0\r\nX: {}\r\n\r\n", "x".repeat(MAX_LINE));
    assert_eq!(parse(long).fault(), Some(&ParseError::LineTooLong(MAX_LINE)));
    let many = format!("OPTIONS sip:a SIP/2.0\r\n{}\r\n", "X: y\r\n".repeat(MAX_FIELDS + 1));
    assert_eq!(parse(many).fault(), Some(&ParseError::TooManyHeaders(MAX_FIELDS)));
    let uri = format!("OPTIONS sip:{} SIP/2.0\r\n\r\n", "a".repeat(MAX_URI));
    assert_eq!(parse(uri).fault().unwrap().status(), 414);
    let big = format!("OPTIONS sip:a SIP/2.0\r\n\r\n{}", "a".repeat(MAX_MESSAGE));
    assert_eq!(parse(big).fault().unwrap().status(), 513);
}

#[test]
fn status_lines() {
    let message = parse("SIP/2.0 200 = 2**3 * 5**2 \u{43d}\u{43e}\r\nCSeq: 4 INVITE\r\n\r\n");
    assert_eq!((message.is_request(), message.status(), message.method()), (false, 200, Method::Invite));
    assert_eq!(message.reason(), "= 2**3 * 5**2 \u{43d}\u{43e}".as_bytes());
    assert_eq!(parse("SIP/2.0 100 \r\n\r\n").reason(), b"");
    assert_eq!(parse("SIP/2.0 100\r\n\r\n").status(), 100);
    for bad in ["SIP/2.0 4294967301 x", "SIP/2.0 99 x", "SIP/2.0 700 x", "SIP/2.0 2x0 x"] {
        assert!(parse(format!("{bad}\r\n\r\n")).check().is_err(), "{bad}");
    }
}

#[test]
fn credentials_and_challenges_are_not_shown() {
    let text = "SIP/2.0 401 Unauthorized\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKa\r\nCall-ID: one\r\nCSeq: 1 REGISTER\r\n\
        WWW-authenticate: Digest ck=\"0011\"\r\nProxy-Authenticate: 0011\r\nAuthentication-Info: 0011\r\n\
        Authorization: 0011\r\nProxy-Authorization: 0011\r\nContent-Length: 4\r\n\r\n0011";
    let mut message = Message::parse(Bytes::from(text)).unwrap();
    message.push_back(Name::WwwAuthenticate, "0011");
    let shown = format!("{message:?}");
    assert!(
        shown.starts_with("401 Unauthorized\n") && shown.contains("Call-ID: one") && !shown.contains("0011"),
        "{shown}"
    );
}
