//! Everything but REGISTER at the I-CSCF (TS 24.229 5.3.2), with handmade CSCFs and application servers on both sides and a
//! handmade HSS.

#[path = "../../scscf/tests/bench/mod.rs"]
mod bench;

use bench::{Bench, DOMAIN};
use icscf::{Config, Icscf, Scscf};
use ims_core::Node;
use ims_diameter::Message as Cx;
use ims_diameter::cx::{Lia, Lir, Request, ResultCode, ServerCapabilities};
use ims_sip::{Message, Name};
use std::time::Duration;

/// The S-CSCF of the caller.
const CALLER: &str = "127.0.0.1:6050";
const FIRST: &str = "127.0.0.1:6060";
const SECOND: &str = "127.0.0.1:6061";
const AS: &str = "127.0.0.1:5080";
const NUMBER: &str = "sip:+15550002@ims.mnc001.mcc001.3gppnetwork.org;user=phone";

fn up(change: impl FnOnce(&mut Config)) -> Bench<Icscf> {
    let scscf = [("one", vec![1]), ("two", vec![1, 2])]
        .map(|(name, capabilities)| Scscf { name: format!("sip:{name}.example"), capabilities })
        .to_vec();
    let mut config = Config { scscf, ..Config::default() };
    for (name, target) in [("one.example", FIRST), ("two.example", SECOND), ("as.example", AS)] {
        config.next_hops.insert(name.into(), vec![format!("udp:{target}")]);
    }
    change(&mut config);
    Bench::new(Icscf::new(config).unwrap(), "127.0.0.1:4060", true)
}

fn request(method: &str, uri: &str, more: &str) -> String {
    format!(
        "{method} {uri} SIP/2.0
        Via: SIP/2.0/UDP {CALLER};branch=z9hG4bK-{method}
        Via: SIP/2.0/UDP 192.0.2.5;branch=z9hG4bK-ue
        From: <sip:alice@{DOMAIN}>;tag=ue
        To: <{uri}>
        Call-ID: call
        CSeq: 1 {method}
        Max-Forwards: 66
        P-Asserted-Identity: <sip:alice@{DOMAIN}>
        {more}Content-Length: 0"
    )
}

fn invite(uri: &str) -> String {
    request("INVITE", uri, "P-Charging-Vector: icid-value=one\n")
}

fn bob() -> String {
    format!("sip:bob@{DOMAIN}")
}

fn lia(result: ResultCode, name: Option<&str>, mandatory: Option<&[u32]>) -> impl FnOnce(&Request, &Cx) -> Cx {
    let server_name = name.map(str::to_owned);
    let capabilities = mandatory.map(|m| ServerCapabilities { mandatory: m.to_vec(), ..Default::default() });
    move |_, message| Lia { result, server_name, capabilities, wildcarded: None, is_direct: false }.to_message(message)
}

fn served_by_one() -> impl FnOnce(&Request, &Cx) -> Cx {
    lia(ResultCode::SUCCESS, Some("sip:one.example"), None)
}

fn asked(request: Request) -> Lir {
    match request {
        Request::Lir(lir) => lir,
        other => panic!("{other:?}"),
    }
}

fn answer(bench: &mut Bench<Icscf>, from: &str, to: &Message, status: u16) {
    bench.receive_message(from, &Message::response(to, status, Some("callee")));
}

fn ack(status: &Message) -> String {
    let to = status.text(Name::To).unwrap();
    request("ACK", &bob(), "").replace("z9hG4bK-ACK", "z9hG4bK-INVITE").replace(&format!("<{}>", bob()), to)
}

/// The answer of the I-CSCF to an INVITE, acknowledged.
fn refused(bench: &mut Bench<Icscf>) -> u16 {
    let refused = bench.sent(CALLER);
    bench.receive(CALLER, &ack(&refused));
    refused.status()
}

fn quiet(bench: &mut Bench<Icscf>) {
    bench.nothing_asked();
    bench.wait(Duration::from_secs(80));
    bench.drop_sent();
    bench.wait(Duration::from_secs(80));
    assert!(bench.node.is_quiet(), "{}", bench.node.snapshot());
}

fn route(message: &Message) -> Vec<String> {
    message.raw(Name::Route).map(|v| String::from_utf8_lossy(v).trim().to_owned()).collect()
}

/// What the S-CSCF that serves the called user gets.
fn to_first(bench: &mut Bench<Icscf>, text: &str) -> Message {
    bench.receive(CALLER, text);
    bench.hss_answers(served_by_one());
    bench.sent(FIRST)
}

/// TS 24.229 5.3.2.1: the S-CSCF that the HSS names is the topmost Route.
#[test]
fn a_call_goes_to_the_s_cscf_that_serves_the_called_user() {
    let mut bench = up(|_| {});
    bench.receive(CALLER, &invite(&bob()));
    bench.wait(Duration::from_millis(200));
    assert_eq!(bench.sent(CALLER).status(), 100, "the HSS takes its time");
    let lir = asked(bench.hss_answers(served_by_one()));
    assert_eq!((lir.impu.as_str(), lir.originating, lir.capabilities), (bob().as_str(), false, false));
    let at_first = bench.sent(FIRST);
    assert_eq!(at_first.uri(), bob());
    assert_eq!(route(&at_first), ["<sip:one.example;lr>"]);
    assert_eq!(at_first.text(Name::MaxForwards), Some("65"));
    assert_eq!(at_first.text(Name::PChargingVector), Some("icid-value=one"));
    assert!(!at_first.has(Name::RecordRoute) && at_first.has(Name::PAssertedIdentity));
    for status in [100, 180, 200] {
        answer(&mut bench, FIRST, &at_first, status);
    }
    for status in [180, 200] {
        let back = bench.sent(CALLER);
        assert_eq!((back.status(), back.raw(Name::Via).count()), (status, 2));
    }
    answer(&mut bench, FIRST, &at_first, 200);
    assert_eq!(bench.sent(CALLER).status(), 200, "a 2xx that is repeated");
    bench.wait(Duration::from_secs(60));
    answer(&mut bench, FIRST, &at_first, 200);
    assert_eq!(bench.sent(CALLER).status(), 200, "and one that comes when all is forgotten");
    quiet(&mut bench);
}

/// TS 24.229 5.3.2.1: a SIP URI with user=phone becomes a tel URI, a GRUU does not, pres and im URIs become SIP URIs.
#[test]
fn numbers_are_asked_for_as_tel_uris_and_then_as_they_were_dialled() {
    let mut bench = up(|_| {});
    bench.receive(CALLER, &invite(NUMBER));
    bench.drop_sent();
    let lir = asked(bench.hss_answers(lia(ResultCode::USER_UNKNOWN, None, None)));
    assert_eq!(lir.impu.as_str(), "tel:+15550002");
    let lir = asked(bench.hss_answers(served_by_one()));
    assert_eq!(lir.impu.to_string(), format!("sip:+15550002@{DOMAIN}"));
    assert_eq!(bench.sent(FIRST).uri(), NUMBER);
    let mut bench = up(|_| {});
    assert_eq!(to_first(&mut bench, &invite(NUMBER)).uri(), "tel:+15550002");
    let mut bench = up(|_| {});
    assert_eq!(to_first(&mut bench, &invite("tel:+1-555-0003")).uri(), "tel:+1-555-0003");
    let mut bench = up(|_| {});
    let gruu = format!("sip:+15550002@{DOMAIN};user=phone;gr=urn:uuid:f81d4fae");
    assert_eq!(to_first(&mut bench, &invite(&gruu)).uri(), gruu, "a GRUU is kept");
    let mut bench = up(|_| {});
    assert_eq!(to_first(&mut bench, &request("MESSAGE", &format!("im:bob@{DOMAIN}"), "")).uri(), bob());
}

/// TS 24.229 5.3.2.1: a number that the HSS does not know.
#[test]
fn numbers_that_are_nobodys_are_unknown_or_go_to_the_transit_function() {
    let mut bench = up(|_| {});
    bench.receive(CALLER, &invite("tel:+15550009"));
    bench.drop_sent();
    bench.hss_answers(lia(ResultCode::USER_UNKNOWN, None, None));
    assert_eq!((refused(&mut bench), bench.refusals("no-such-user")), (404, 1));
    quiet(&mut bench);
    let mut bench = up(|c| c.transit = Some("sip:as.example".into()));
    bench.receive(CALLER, &invite("tel:+15550009"));
    bench.drop_sent();
    bench.hss_answers(lia(ResultCode::USER_UNKNOWN, None, None));
    let away = bench.sent(AS);
    assert_eq!((away.uri(), route(&away)), ("tel:+15550009", vec!["<sip:as.example;lr>".to_owned()]));
    answer(&mut bench, AS, &away, 503);
    bench.sent(AS);
    assert_eq!(refused(&mut bench), 500, "and there is no other for that");
    quiet(&mut bench);
}

/// TS 24.229 5.3.2.1: 404 for unknown, 480 for not registered; and the HSS's own failures.
#[test]
fn who_cannot_be_called_is_told_why() {
    for (result, status, name) in [
        (ResultCode::USER_UNKNOWN, 404, "no-such-user"),
        (ResultCode::IDENTITY_NOT_REGISTERED, 480, "not-registered"),
        (ResultCode::UNABLE_TO_COMPLY, 500, "hss-answer"),
        (ResultCode::TOO_BUSY, 500, "hss-busy"),
    ] {
        let mut bench = up(|_| {});
        bench.receive(CALLER, &invite(&bob()));
        bench.drop_sent();
        bench.hss_answers(lia(result, None, None));
        assert_eq!((refused(&mut bench), bench.refusals(name)), (status, 1), "{result:?}");
        quiet(&mut bench);
    }
    let mut bench = up(|_| {});
    bench.receive(CALLER, &invite(&bob()));
    bench.drop_sent();
    bench.wait(Duration::from_millis(4900));
    bench.drop_sent();
    bench.wait(Duration::from_millis(100));
    assert_eq!((refused(&mut bench), bench.refusals("hss-silent")), (504, 1));
    quiet_but_asked(bench);
}

/// The HSS never answers what it was asked.
fn quiet_but_asked(mut bench: Bench<Icscf>) {
    bench.wait(Duration::from_secs(80));
    assert!(bench.node.is_quiet(), "{}", bench.node.snapshot());
}

/// TS 24.229 5.3.2.1: by capabilities.
#[test]
fn an_unregistered_user_gets_a_capable_s_cscf_and_another_if_that_one_will_not() {
    let mut bench = up(|_| {});
    bench.receive(CALLER, &invite(&bob()));
    bench.drop_sent();
    bench.hss_answers(lia(ResultCode::UNREGISTERED_SERVICE, None, Some(&[1])));
    for (at, status) in [(FIRST, 480), (SECOND, 302)] {
        let at_scscf = bench.sent(at);
        answer(&mut bench, at, &at_scscf, status);
        assert_eq!(bench.sent(at).method().as_str(), "ACK");
    }
    assert_eq!((refused(&mut bench), bench.refusals("scscf-unavailable")), (480, 1));
    quiet(&mut bench);
    let mut bench = up(|_| {});
    bench.receive(CALLER, &invite(&bob()));
    bench.drop_sent();
    bench.hss_answers(lia(ResultCode::UNREGISTERED_SERVICE, None, Some(&[9])));
    assert_eq!((refused(&mut bench), bench.refusals("no-capable-scscf")), (500, 1));
    quiet(&mut bench);
}

/// TS 24.229 5.3.2.2: 3xx and 480 through the S-CSCF that serves the user are the user's.
#[test]
fn what_the_callee_says_is_not_taken_for_the_s_cscfs_word() {
    for status in [302, 480, 486, 603] {
        let mut bench = up(|_| {});
        let at_first = to_first(&mut bench, &invite(&bob()));
        answer(&mut bench, FIRST, &at_first, status);
        bench.sent(FIRST);
        assert_eq!(refused(&mut bench), status);
        quiet(&mut bench);
    }
    let mut bench = up(|_| {});
    let at_first = to_first(&mut bench, &invite(&bob()));
    answer(&mut bench, FIRST, &at_first, 180);
    assert_eq!(bench.sent(CALLER).status(), 180);
    answer(&mut bench, FIRST, &at_first, 503);
    bench.sent(FIRST);
    assert_eq!(refused(&mut bench), 500, "it rang already");
    quiet(&mut bench);
}

/// TS 24.229 5.3.2.2: silence and 503.
#[test]
fn an_s_cscf_that_is_gone_is_replaced_by_capabilities() {
    for silent in [true, false] {
        let mut bench = up(|_| {});
        let at_first = to_first(&mut bench, &invite(&bob()));
        if silent {
            bench.wait(Duration::from_secs(17));
            bench.drop_sent();
        } else {
            answer(&mut bench, FIRST, &at_first, 503);
            bench.sent(FIRST);
        }
        let lir = asked(bench.hss_answers(lia(ResultCode::SUCCESS, None, Some(&[1]))));
        assert!(lir.capabilities);
        let second = bench.sent(SECOND);
        assert_eq!(route(&second), ["<sip:two.example;lr>"]);
        answer(&mut bench, SECOND, &second, 200);
        assert_eq!((bench.sent(CALLER).status(), bench.refusals("scscf-changed")), (200, 1));
        quiet(&mut bench);
    }
}

#[test]
fn without_another_the_caller_is_told_in_time() {
    let mut bench = up(|c| c.scscf.truncate(1));
    to_first(&mut bench, &invite(&bob()));
    bench.wait(Duration::from_secs(17));
    bench.drop_sent();
    bench.hss_answers(lia(ResultCode::SUCCESS, None, Some(&[])));
    assert_eq!((refused(&mut bench), bench.refusals("scscf-silent")), (504, 1));
    quiet(&mut bench);
}

#[test]
fn a_message_that_nobody_answers_is_no_reason_for_another_s_cscf() {
    let mut bench = up(|_| {});
    bench.receive(CALLER, &request("MESSAGE", &bob(), ""));
    bench.hss_answers(served_by_one());
    bench.wait(Duration::from_secs(17));
    bench.nothing_asked();
    quiet(&mut bench);
}

/// RFC 3261 16.10: while the HSS is asked, while it rings, while nobody answers.
#[test]
fn a_caller_who_gives_up_ends_it_at_each_step() {
    let cancel = |bench: &mut Bench<Icscf>| {
        let text = request("CANCEL", &bob(), "Reason: SIP;cause=200\n").replace("z9hG4bK-CANCEL", "z9hG4bK-INVITE");
        bench.receive(CALLER, &text);
        assert_eq!(bench.sent(CALLER).status(), 200);
    };
    // The HSS is still asked.
    let mut bench = up(|_| {});
    bench.receive(CALLER, &invite(&bob()));
    bench.drop_sent();
    cancel(&mut bench);
    assert_eq!(refused(&mut bench), 487);
    bench.hss_answers(served_by_one());
    bench.nothing_sent();
    quiet(&mut bench);
    // It rings.
    let mut bench = up(|_| {});
    let at_first = to_first(&mut bench, &invite(&bob()));
    answer(&mut bench, FIRST, &at_first, 180);
    bench.drop_sent();
    cancel(&mut bench);
    let cancelled = bench.sent(FIRST);
    assert_eq!((cancelled.method().as_str(), cancelled.text(Name::Reason)), ("CANCEL", Some("SIP;cause=200")));
    answer(&mut bench, FIRST, &cancelled, 200);
    answer(&mut bench, FIRST, &at_first, 487);
    bench.sent(FIRST);
    assert_eq!(refused(&mut bench), 487);
    quiet(&mut bench);
    // The S-CSCF is dead: nobody looks for another one.
    let mut bench = up(|_| {});
    to_first(&mut bench, &invite(&bob()));
    cancel(&mut bench);
    bench.wait(Duration::from_secs(17));
    bench.nothing_asked();
    quiet(&mut bench);
}

/// TS 24.229 5.3.2.1A: the parameter orig, P-Served-User and P-Asserted-Identity.
#[test]
fn application_servers_originate_on_behalf_of_users() {
    let orig = format!("Route: <sip:icscf.{DOMAIN};lr;orig>\n");
    for (served, whom) in [
        (format!("P-Served-User: <sip:carol@{DOMAIN}>;sescase=orig;regstate=unreg\n"), "carol"),
        (String::new(), "alice"),
    ] {
        let mut bench = up(|_| {});
        bench.receive(AS, &request("INVITE", "sip:x@elsewhere.example", &format!("{orig}{served}")));
        bench.drop_sent();
        let lir = asked(bench.hss_answers(lia(ResultCode::UNREGISTERED_SERVICE, None, Some(&[2]))));
        assert_eq!((lir.impu.to_string(), lir.originating), (format!("sip:{whom}@{DOMAIN}"), true));
        let at_scscf = bench.sent(SECOND);
        assert_eq!(
            (at_scscf.uri(), route(&at_scscf)),
            ("sip:x@elsewhere.example", vec!["<sip:two.example;lr;orig>".into()])
        );
        answer(&mut bench, SECOND, &at_scscf, 200);
    }
    let mut bench = up(|_| {});
    let nobody = request("MESSAGE", &bob(), &orig).replace("P-Asserted-Identity", "X-Nobody");
    bench.receive(CALLER, &nobody);
    assert_eq!((bench.sent(CALLER).status(), bench.refusals("no-served-user")), (400, 1));
    let mut bench = up(|c| c.trusted = vec!["192.0.2.1".parse().unwrap()]);
    bench.receive(CALLER, &request("MESSAGE", &bob(), &orig));
    assert_eq!((bench.sent(CALLER).status(), bench.refusals("orig-untrusted")), (403, 1));
    quiet(&mut bench);
}

/// TS 24.229 4.4: from outside the trust domain.
#[test]
fn what_strangers_say_of_themselves_is_taken_off() {
    let mut bench = up(|c| c.trusted = vec!["192.0.2.1".parse().unwrap()]);
    let stranger = request("INVITE", &bob(), "P-Served-User: <sip:a@b>\nRoute: <sip:elsewhere.example;lr>\n");
    let at_first = to_first(&mut bench, &stranger);
    assert!(!at_first.has(Name::PAssertedIdentity) && !at_first.has(Name::PServedUser));
    assert!(at_first.text(Name::PChargingVector).is_some_and(|v| v.starts_with("icid-value=\"")));
    assert_eq!(route(&at_first), ["<sip:one.example;lr>"], "and they do not use us as a relay");
}

/// TS 24.229 5.3.2.1: services by wildcard (P-Profile-Key), by the HSS, and by their domain.
#[test]
fn services_are_reached_at_their_application_server() {
    let mut bench = up(|_| {});
    let room = format!("sip:chat-42@{DOMAIN}");
    bench.receive(CALLER, &invite(&room));
    bench.drop_sent();
    let wildcard = format!("sip:chat-!.*!@{DOMAIN}");
    let named = wildcard.clone();
    bench.hss_answers(move |_, message| {
        let server_name = Some("sip:one.example".into());
        Lia { result: ResultCode::SUCCESS, server_name, capabilities: None, wildcarded: Some(named), is_direct: false }
            .to_message(message)
    });
    assert_eq!(bench.sent(FIRST).text(Name::PProfileKey), Some(format!("<{wildcard}>").as_str()));
    // One that the HSS leads to directly.
    let mut bench = up(|_| {});
    bench.receive(CALLER, &invite(&room));
    bench.hss_answers(move |_, message| {
        let server_name = Some("sip:as.example".into());
        Lia { server_name, is_direct: true, ..Lia::bare(ResultCode::SUCCESS) }.to_message(message)
    });
    let at_as = bench.sent(AS);
    answer(&mut bench, AS, &at_as, 503);
    bench.sent(AS);
    assert_eq!(refused(&mut bench), 500, "and nobody looks for an S-CSCF");
    quiet(&mut bench);
    // A domain of services: the HSS is not asked.
    let mut bench = up(|c| drop(c.psi_domains.insert("chat.example".into(), "sip:as.example;lr".into())));
    bench.receive(CALLER, &invite("sip:room@Chat.example"));
    let at_as = bench.sent(AS);
    assert_eq!((at_as.uri(), route(&at_as)), ("sip:room@Chat.example", vec!["<sip:as.example;lr>".to_owned()]));
    answer(&mut bench, AS, &at_as, 480);
    bench.sent(AS);
    assert_eq!(refused(&mut bench), 480);
    quiet(&mut bench);
}

#[test]
fn requests_with_a_route_pass_by() {
    let within = |method: &str, more: &str| {
        request(method, "sip:bob@127.0.0.1:5080", &format!("Route: <sip:127.0.0.1:4060;lr>\n{more}"))
            .replace("To: <sip:bob@127.0.0.1:5080>", "To: <sip:bob@x>;tag=callee")
    };
    let mut bench = up(|_| {});
    bench.receive(CALLER, &within("BYE", "Route: <sip:one.example;lr>\n"));
    let bye = bench.sent(FIRST);
    assert_eq!((bye.uri(), route(&bye)), ("sip:bob@127.0.0.1:5080", vec!["<sip:one.example;lr>".to_owned()]));
    answer(&mut bench, FIRST, &bye, 200);
    assert_eq!(bench.sent(CALLER).status(), 200);
    bench.receive(CALLER, &within("ACK", ""));
    assert_eq!(bench.sent(AS).text(Name::MaxForwards), Some("65"));
    bench.receive(CALLER, &within("ACK", "").replace("127.0.0.1:5080 SIP", &format!("{DOMAIN} SIP")));
    assert_eq!(bench.refusals("ack-without-route"), 1);
    bench.receive(CALLER, &within("UPDATE", "").replace("127.0.0.1:5080 SIP", &format!("{DOMAIN} SIP")));
    assert_eq!((bench.sent(CALLER).status(), bench.refusals("no-dialog")), (481, 1));
    bench.receive(
        CALLER,
        &request("SUBSCRIBE", &bob(), "Route: <sip:icscf.x:9>, <sip:one.example;lr>\n")
            .replace("icscf.x:9", "127.0.0.1:4060;lr"),
    );
    let subscribe = bench.sent(FIRST);
    answer(&mut bench, FIRST, &subscribe, 202);
    assert_eq!(bench.sent(CALLER).status(), 202);
    quiet(&mut bench);
}

#[test]
fn what_is_none_of_our_business_says_so() {
    let mut bench = up(|_| {});
    for (n, (uri, status, name)) in [
        ("sip:bob@elsewhere.example", 403, "not-ours"),
        ("sip:bob@127.0.0.1:4060", 403, "not-ours"),
        ("urn:service:sos", 416, "uri-scheme"),
        ("mailto:bob@x.example", 416, "uri-scheme"),
    ]
    .into_iter()
    .enumerate()
    {
        let before = bench.refusals(name);
        bench.receive(CALLER, &request("MESSAGE", uri, "").replace("z9hG4bK-MESSAGE", &format!("z9hG4bK-{n}")));
        assert_eq!((bench.sent(CALLER).status(), bench.refusals(name)), (status, before + 1), "{uri}");
    }
    bench.receive(CALLER, &request("PUBLISH", &bob(), "").replace("Forwards: 66", "Forwards: 0"));
    assert_eq!((bench.sent(CALLER).status(), bench.refusals("too-many-hops")), (483, 1));
    bench.receive(CALLER, &request("OPTIONS", "sip:127.0.0.1:4060", ""));
    let options = bench.sent(CALLER);
    assert!(options.status() == 200 && options.has_token(Name::Allow, "INVITE"));
    quiet(&mut bench);
}

#[test]
fn what_is_on_its_way_is_bounded() {
    let mut bench = up(|c| c.limits.max_pending = 1);
    bench.receive(CALLER, &invite(&bob()));
    bench.drop_sent();
    bench.receive(CALLER, &request("MESSAGE", &bob(), ""));
    assert_eq!((bench.sent(CALLER).status(), bench.refusals("full")), (503, 1));
}
