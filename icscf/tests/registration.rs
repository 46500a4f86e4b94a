//! Registration at the I-CSCF (TS 24.229 5.3.1), with handmade CSCFs on both sides and a handmade HSS.

#[path = "../../scscf/tests/bench/mod.rs"]
mod bench;

use bench::{Bench, DOMAIN};
use icscf::{Config, Icscf, Scscf};
use ims_core::Node;
use ims_diameter::Message as Cx;
use ims_diameter::cx::{Request, ResultCode, ServerCapabilities, Uaa, UserAuthorizationType};
use ims_sip::{Message, Name};
use std::time::Duration;

const PCSCF: &str = "127.0.0.1:5070";
const FIRST: &str = "127.0.0.1:6060";
const SECOND: &str = "127.0.0.1:6061";

fn up(change: impl FnOnce(&mut Config)) -> Bench<Icscf> {
    let scscf = [("one", vec![1]), ("two", vec![1, 2])]
        .map(|(name, capabilities)| Scscf { name: format!("sip:{name}.example"), capabilities })
        .to_vec();
    let mut config = Config { scscf, ..Config::default() };
    for (name, target) in [("one.example", FIRST), ("two.example", SECOND)] {
        config.next_hops.insert(name.into(), vec![format!("udp:{target}")]);
    }
    change(&mut config);
    Bench::new(Icscf::new(config).unwrap(), "127.0.0.1:4060", true)
}

fn register(cseq: u32) -> String {
    format!(
        "REGISTER sip:{DOMAIN} SIP/2.0
        Via: SIP/2.0/UDP 127.0.0.1:5070;branch=z9hG4bK-{cseq}
        Via: SIP/2.0/UDP 192.0.2.5;branch=z9hG4bK-ue
        From: <sip:alice@{DOMAIN}>;tag=ue
        To: <sip:alice@{DOMAIN}>
        Call-ID: call
        CSeq: {cseq} REGISTER
        Max-Forwards: 69
        Contact: <sip:alice@192.0.2.5:5060>;expires=600
        Path: <sip:token@pcscf.{DOMAIN}:5070;lr>
        P-Visited-Network-ID: \"visited.example\"
        Authorization: Digest username=\"alice.private@{DOMAIN}\",realm=\"{DOMAIN}\",nonce=\"\",uri=\"sip:{DOMAIN}\",response=\"\",integrity-protected=\"no\"
        X-Novelty: kept as  it is
        Content-Length: 0"
    )
}

fn uaa(result: ResultCode, name: Option<&str>, mandatory: Option<&[u32]>) -> impl FnOnce(&Request, &Cx) -> Cx {
    let server_name = name.map(str::to_owned);
    let capabilities = mandatory.map(|m| ServerCapabilities { mandatory: m.to_vec(), ..Default::default() });
    move |_, message| Uaa { result, server_name, capabilities }.to_message(message)
}

fn kind_of(request: &Request) -> UserAuthorizationType {
    match request {
        Request::Uar(uar) => uar.kind,
        other => panic!("{other:?}"),
    }
}

fn quiet(bench: &mut Bench<Icscf>) {
    bench.nothing_asked();
    bench.nothing_sent();
    bench.wait(Duration::from_secs(80));
    assert!(bench.node.is_quiet(), "{}", bench.node.snapshot());
}

#[test]
fn a_first_registration_goes_to_a_capable_s_cscf_and_its_answer_comes_back() {
    let mut bench = up(|_| {});
    bench.receive(PCSCF, &register(1));
    let asked = bench.hss_answers(uaa(ResultCode::FIRST_REGISTRATION, None, Some(&[2])));
    let Request::Uar(uar) = asked else { panic!() };
    assert_eq!(
        (uar.impi.to_string(), uar.impu.to_string()),
        (format!("alice.private@{DOMAIN}"), format!("sip:alice@{DOMAIN}"))
    );
    assert_eq!((uar.kind, uar.emergency), (UserAuthorizationType::Registration, false));
    assert_eq!(uar.visited_network.as_deref(), Some(&b"visited.example"[..]));
    let forwarded = bench.sent(SECOND);
    assert_eq!((forwarded.uri(), forwarded.text(Name::MaxForwards)), ("sip:two.example", Some("68")));
    assert_eq!(forwarded.raw(Name::Via).count(), 3);
    assert_eq!(forwarded.raw_named("X-Novelty").next(), Some(&b"kept as  it is"[..]));
    let mut answer = Message::response(&forwarded, 401, Some("s"));
    answer.set(Name::WwwAuthenticate, "Digest realm=\"x\",nonce=\"n\"");
    bench.receive_message(SECOND, &answer);
    let back = bench.sent(PCSCF);
    assert_eq!((back.status(), back.raw(Name::Via).count()), (401, 2));
    assert_eq!(back.text(Name::WwwAuthenticate), Some("Digest realm=\"x\",nonce=\"n\""));
    quiet(&mut bench);
}

#[test]
fn who_is_served_already_goes_to_that_s_cscf() {
    let mut bench = up(|_| {});
    bench.receive(PCSCF, &register(1).replace("expires=600", "expires=0"));
    let asked = bench.hss_answers(uaa(ResultCode::SUBSEQUENT_REGISTRATION, Some("sip:one.example"), None));
    assert_eq!(kind_of(&asked), UserAuthorizationType::DeRegistration);
    assert_eq!(bench.sent(FIRST).uri(), "sip:one.example");
}

#[test]
fn emergency_registrations_are_marked() {
    let mut bench = up(|_| {});
    bench.receive(PCSCF, &register(1).replace("5.5:5060>", "5.5:5060;sos>").replace("2.5:5060>", "2.5:5060;sos>"));
    let Request::Uar(uar) = bench.hss_answers(uaa(ResultCode::FIRST_REGISTRATION, None, None)) else { panic!() };
    assert!(uar.emergency);
}

#[test]
fn a_negative_answer_is_forbidden_and_no_answer_is_temporary() {
    for (result, status, name) in [
        (ResultCode::USER_UNKNOWN, 403, "user-unknown"),
        (ResultCode::IDENTITIES_DONT_MATCH, 403, "identities-dont-match"),
        (ResultCode::ROAMING_NOT_ALLOWED, 403, "roaming-not-allowed"),
        (ResultCode::IDENTITY_NOT_REGISTERED, 403, "not-allowed"),
        (ResultCode::Base(5003), 403, "not-allowed"),
        (ResultCode::UNABLE_TO_COMPLY, 480, "hss-answer"),
        (ResultCode::TOO_BUSY, 480, "hss-busy"),
    ] {
        let mut bench = up(|_| {});
        bench.receive(PCSCF, &register(1));
        bench.hss_answers(uaa(result, None, None));
        assert_eq!((bench.sent(PCSCF).status(), bench.refusals(name)), (status, 1), "{result:?}");
        quiet(&mut bench);
    }
    let mut bench = up(|_| {});
    bench.receive(PCSCF, &register(1));
    bench.wait(Duration::from_secs(6));
    assert_eq!((bench.sent(PCSCF).status(), bench.refusals("hss-silent")), (480, 1));
}

#[test]
fn an_s_cscf_that_does_not_answer_is_replaced_by_capabilities() {
    let mut bench = up(|_| {});
    bench.receive(PCSCF, &register(1));
    bench.hss_answers(uaa(ResultCode::SUBSEQUENT_REGISTRATION, Some("sip:one.example"), None));
    assert_eq!(bench.sent(FIRST).uri(), "sip:one.example");
    bench.wait(Duration::from_secs(17));
    bench.drop_sent();
    let asked = bench.hss_answers(uaa(ResultCode::SUCCESS, Some("sip:one.example"), Some(&[1])));
    assert_eq!(kind_of(&asked), UserAuthorizationType::RegistrationAndCapabilities);
    let second = bench.sent(SECOND);
    bench.receive_message(SECOND, &Message::response(&second, 200, Some("s")));
    assert_eq!((bench.sent(PCSCF).status(), bench.refusals("scscf-changed")), (200, 1));
    quiet(&mut bench);
}

#[test]
fn an_s_cscf_that_declines_is_replaced_until_there_is_none() {
    let mut bench = up(|_| {});
    bench.receive(PCSCF, &register(1));
    bench.hss_answers(uaa(ResultCode::FIRST_REGISTRATION, None, Some(&[1])));
    for (at, status) in [(FIRST, 480), (SECOND, 302)] {
        let request = bench.sent(at);
        bench.receive_message(at, &Message::response(&request, status, Some("s")));
    }
    assert_eq!((bench.sent(PCSCF).status(), bench.refusals("scscf-unavailable")), (480, 1));
    quiet(&mut bench);
}

#[test]
fn a_protected_register_has_no_other_s_cscf() {
    let mut bench = up(|_| {});
    bench.receive(PCSCF, &register(1).replace("protected=\"no\"", "protected=\"yes\""));
    bench.hss_answers(uaa(ResultCode::SUBSEQUENT_REGISTRATION, Some("sip:one.example"), None));
    bench.wait(Duration::from_secs(33));
    let left = bench.drop_sent();
    assert!(left > 5, "retransmissions, then the answer");
    assert_eq!(bench.refusals("scscf-silent"), 1);
    quiet(&mut bench);
}

#[test]
fn without_a_capable_s_cscf_nobody_serves() {
    let mut bench = up(|_| {});
    bench.receive(PCSCF, &register(1));
    bench.hss_answers(uaa(ResultCode::FIRST_REGISTRATION, None, Some(&[1, 2, 3])));
    assert_eq!((bench.sent(PCSCF).status(), bench.refusals("no-capable-scscf")), (600, 1));
    bench.receive(PCSCF, &register(2));
    bench.hss_answers(uaa(ResultCode::SUBSEQUENT_REGISTRATION, Some("not a uri"), None));
    assert_eq!((bench.sent(PCSCF).status(), bench.refusals("hss-answer")), (480, 1));
}

#[test]
fn what_cannot_be_passed_on_says_why() {
    let mut bench = up(|c| c.trusted = vec!["127.0.0.1".parse().unwrap()]);
    bench.receive("192.0.2.66:5060", &register(1));
    assert_eq!((bench.sent("192.0.2.66:5070").status(), bench.refusals("untrusted")), (403, 1));
    bench.receive(PCSCF, &register(2).replace("Max-Forwards: 69", "Max-Forwards: 0"));
    assert_eq!((bench.sent(PCSCF).status(), bench.refusals("too-many-hops")), (483, 1));
    bench.receive(
        PCSCF,
        &register(4).replace("REGISTER", "OPTIONS").replace(&format!("sip:{DOMAIN} SIP"), "sip:127.0.0.1:4060 SIP"),
    );
    bench.drop_sent();
    bench.receive(PCSCF, &register(5).replace("To: <sip:", "To: <urn:"));
    assert_eq!(bench.refusals("malformed"), 1);
    bench.nothing_asked();
}

#[test]
fn what_is_on_its_way_is_bounded() {
    let mut bench = up(|c| c.limits.max_pending = 1);
    bench.receive(PCSCF, &register(1));
    bench.receive(PCSCF, &register(2));
    let full = bench.sent(PCSCF);
    assert_eq!((full.status(), bench.refusals("full")), (503, 1));
    assert!(full.text(Name::RetryAfter).is_some_and(|s| (5..=30).contains(&s.parse::<u32>().unwrap())));
}
