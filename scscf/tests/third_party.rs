//! Application servers hear of registrations (TS 24.229 5.4.1.7), and the network ends them (5.4.1.5), at the S-CSCF alone.

mod bench;
mod user;

use bench::{Bench, DOMAIN};
use ims_core::{Impi, Node};
use ims_diameter::cx::{ReasonCode, Request, ResultCode, Rtr, ServerAssignmentType};
use ims_sip::headers::{ContentType, From, PChargingVector, To};
use ims_sip::{Message, Name};
use scscf::Scscf;
use serde_json::json;
use std::time::Duration;
use user::*;

const AS: &str = "127.0.0.1:5080";
const OTHER: &str = "127.0.0.1:5081";

fn node() -> Bench<Scscf> {
    up(|config| {
        // The bench speaks UDP alone.
        config.udp_limit = 9000;
        config.next_hops.insert("as.example".into(), vec![format!("udp:{AS}")]);
        config.next_hops.insert("other.example".into(), vec![format!("udp:{OTHER}")]);
    })
}

/// A criterion for REGISTER: `more` in its ApplicationServer, `types` of registration or any.
fn criterion(priority: u32, host: &str, more: &str, types: &[u8]) -> String {
    let types: String = types.iter().map(|t| format!("<RegistrationType>{t}</RegistrationType>")).collect();
    let extension = if types.is_empty() { types } else { format!("<Extension>{types}</Extension>") };
    format!(
        "<InitialFilterCriteria><Priority>{priority}</Priority><TriggerPoint><ConditionTypeCNF>0</ConditionTypeCNF><SPT>\
         <ConditionNegated>0</ConditionNegated><Group>0</Group><Method>REGISTER</Method>{extension}</SPT></TriggerPoint>\
         <ApplicationServer><ServerName>sip:{host}</ServerName>{more}</ApplicationServer></InitialFilterCriteria>"
    )
}

const MUST: &str = "<DefaultHandling>1</DefaultHandling>";

/// Registers a user with these criteria.
fn registered_with(criteria: &str) -> Bench<Scscf> {
    let mut bench = node();
    let challenge = challenged(&mut bench, &first());
    bench.receive(PCSCF, &Register { cseq: 2, ..first() }.answering(&challenge, &RES, "auth").text());
    bench.hss_answers(saa(ResultCode::SUCCESS, Some(profile(criteria))));
    assert_eq!(bench.sent(PCSCF).status(), 200, "the UE is answered first");
    bench
}

fn first() -> Register {
    Register { more: "P-Access-Network-Info: 3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=001010001\n", ..register(1) }
}

/// The next REGISTER at a server, answered.
fn told(bench: &mut Bench<Scscf>, at: &str, status: u16) -> Message {
    let request = bench.sent(at);
    assert_eq!(request.method().as_str(), "REGISTER", "{request:?}");
    bench.receive_message(at, &Message::response(&request, status, Some("as")));
    request
}

fn expires(request: &Message) -> u32 {
    request.text(Name::Expires).unwrap().parse().unwrap()
}

fn refresh(bench: &mut Bench<Scscf>, request: Register) {
    bench.receive(PCSCF, &request.protected().text());
    bench.hss_answers(saa(ResultCode::SUCCESS, None));
    assert_eq!(bench.sent(PCSCF).status(), 200);
}

fn asked(bench: &mut Bench<Scscf>) -> ServerAssignmentType {
    kind_of(&bench.hss_answers(saa(ResultCode::SUCCESS, None)))
}

fn contacts(bench: &Bench<Scscf>) -> usize {
    bench.node.snapshot()["registered"].as_u64().unwrap() as usize
}

fn is_quiet(bench: &mut Bench<Scscf>) {
    bench.nothing_asked();
    bench.nothing_sent();
    bench.wait(Duration::from_secs(40));
    assert!(bench.node.is_quiet(), "{}", bench.node.snapshot());
    assert_eq!(bench.node.snapshot()["third_parties"], 0);
}

/// TS 24.229 5.4.1.7.
#[test]
fn a_server_is_told_of_registration_refresh_and_end() {
    let mut bench = registered_with(&criterion(0, "as.example;lr", "", &[]));
    let request = told(&mut bench, AS, 200);
    assert_eq!(request.uri(), "sip:as.example;lr");
    let name = format!("sip:scscf.{DOMAIN}:6060");
    let from: From<'_> = request.require().unwrap();
    assert_eq!((from.uri, from.tag().is_some()), (name.as_str(), true));
    let to: To<'_> = request.require().unwrap();
    assert_eq!(to.uri, format!("sip:+15550001@{DOMAIN}"), "what was registered is barred: the default identity");
    assert_eq!(request.text(Name::Contact), Some(format!("<{name}>").as_str()));
    assert_eq!(expires(&request), 7200, "as the UE was granted");
    assert!(request.text(Name::PAccessNetworkInfo).unwrap().starts_with("3GPP-E-UTRAN-FDD"), "{request:?}");
    assert_eq!(request.text(Name::PVisitedNetworkId), Some(format!("\"{DOMAIN}\"").as_str()));
    let vector: PChargingVector<'_> = request.require().unwrap();
    assert_eq!((vector.icid_value, vector.orig_ioi), ("ic", Some(DOMAIN)));
    assert!(request.text(Name::PChargingFunctionAddresses).unwrap().contains("aaa://ccf.example"), "{request:?}");
    assert!(request.body().is_empty() && !request.has(Name::Authorization), "{request:?}");
    bench.wait(Duration::from_secs(10));
    refresh(&mut bench, register(3));
    let again = told(&mut bench, AS, 200);
    assert_eq!(expires(&again), 7200);
    assert_ne!(again.text(Name::CallId), request.text(Name::CallId));
    refresh(&mut bench, Register { expires: 0, ..register(4) });
    assert_eq!(expires(&told(&mut bench, AS, 200)), 0);
    is_quiet(&mut bench);
}

/// TS 24.229 5.4.1.7.
#[test]
fn the_criteria_say_who_hears_what() {
    let criteria = criterion(0, "as.example", "", &[0]) + &criterion(1, "other.example", "", &[1, 2]);
    let mut bench = registered_with(&(criteria + &criterion(2, "as.example", "", &[])));
    told(&mut bench, AS, 200);
    bench.nothing_sent();
    bench.wait(Duration::from_secs(10));
    refresh(&mut bench, register(3));
    assert_eq!(expires(&told(&mut bench, OTHER, 200)), 7200);
    assert_eq!(expires(&told(&mut bench, AS, 200)), 7200, "its other criterion holds for all");
    refresh(&mut bench, Register { expires: 0, ..register(4) });
    assert_eq!((expires(&told(&mut bench, OTHER, 200)), expires(&told(&mut bench, AS, 200))), (0, 0));
    is_quiet(&mut bench);
    // A look at what is registered is told to nobody.
    let mut bench = registered_with(&criterion(0, "as.example", "", &[]));
    told(&mut bench, AS, 200);
    bench.receive(PCSCF, &Register { contact: String::new(), ..register(3) }.protected().text());
    assert_eq!(bench.sent(PCSCF).status(), 200);
    is_quiet(&mut bench);
}

/// TS 24.229 5.4.1.7.
#[test]
fn each_service_profile_tells_its_servers_by_an_identity_of_its_own() {
    let second = format!(
        "</ServiceProfile><ServiceProfile><PublicIdentity><Identity>sip:work@{DOMAIN}</Identity></PublicIdentity>{}",
        criterion(0, "as.example", "", &[]) + &criterion(1, "other.example", "", &[])
    );
    let mut bench = registered_with(&(criterion(0, "as.example", "", &[]) + &second));
    let to = |request: &Message| request.require::<To<'_>>().unwrap().uri.to_owned();
    assert_eq!(to(&told(&mut bench, AS, 200)), format!("sip:+15550001@{DOMAIN}"));
    assert_eq!(to(&told(&mut bench, AS, 200)), format!("sip:work@{DOMAIN}"));
    assert_eq!(to(&told(&mut bench, OTHER, 200)), format!("sip:work@{DOMAIN}"));
    is_quiet(&mut bench);
}

/// TS 24.229 5.4.1.7A.
#[test]
fn a_criterion_asks_for_what_goes_along() {
    let info = "<ServiceInfo>a &lt;b&gt; &amp; c</ServiceInfo>";
    let (request, response) = ("<IncludeRegisterRequest/>", "<IncludeRegisterResponse/>");
    let one = |more: &str| {
        let mut bench = registered_with(&criterion(0, "as.example", more, &[]));
        let request = told(&mut bench, AS, 200);
        bench.wait(Duration::from_secs(10));
        refresh(&mut bench, Register { expires: 0, ..register(3) });
        (request, told(&mut bench, AS, 200))
    };
    let is = |message: &Message, kind: &str| message.require::<ContentType<'_>>().unwrap().is(kind);
    let text = |message: &Message| String::from_utf8(message.body().to_vec()).unwrap();
    let (of_info, end) = one(info);
    assert!(is(&of_info, "application/3gpp-ims+xml"), "{of_info:?}");
    assert!(text(&of_info).contains("<service-info>a &lt;b&gt; &amp; c</service-info>"), "{}", text(&of_info));
    assert!(end.body().is_empty(), "there is nothing to serve any more");
    let (of_request, end) = one(&format!("<Extension>{request}</Extension>"));
    assert!(is(&of_request, "message/sip") && is(&end, "message/sip"));
    let inner = Message::parse(of_request.body_bytes()).unwrap();
    assert_eq!((inner.method().as_str(), inner.text(Name::CSeq)), ("REGISTER", Some("2 REGISTER")));
    let (of_response, _) = one(&format!("<Extension>{response}</Extension>"));
    let inner = Message::parse(of_response.body_bytes()).unwrap();
    assert!(inner.status() == 200 && inner.has(Name::ServiceRoute), "{inner:?}");
    let (all, end) = one(&format!("{info}<Extension>{request}{response}</Extension>"));
    assert_eq!(all.text(Name::MimeVersion), Some("1.0"));
    for (message, kinds) in [
        (&all, &["application/3gpp-ims+xml", "message/sip", "message/sip"][..]),
        (&end, &["message/sip", "message/sip"][..]),
    ] {
        let header: ContentType<'_> = message.require().unwrap();
        assert!(header.is("multipart/mixed"), "{header}");
        let boundary = format!("--{}", header.params.value("boundary").unwrap());
        let body = text(message);
        let parts: Vec<&str> = body.split(&boundary).collect();
        assert_eq!((parts[0], parts.last().copied()), ("", Some("--\r\n")));
        let inner = &parts[1..parts.len() - 1];
        assert_eq!(inner.len(), kinds.len());
        for (part, kind) in inner.iter().zip(kinds) {
            assert!(part.starts_with(&format!("\r\nContent-Type: {kind}\r\n\r\n")) && part.ends_with("\r\n"), "{part}");
        }
    }
}

/// TS 24.229 5.4.1.7.
#[test]
fn a_server_that_must_not_fail_takes_the_user_along() {
    for status in [300, 408, 480, 500, 503, 504] {
        let criteria = criterion(0, "as.example", MUST, &[]) + &criterion(1, "other.example", "", &[]);
        let mut bench = registered_with(&criteria);
        let request = bench.sent(AS);
        told(&mut bench, OTHER, 200);
        bench.receive_message(AS, &Message::response(&request, status, Some("as")));
        assert_eq!((contacts(&bench), bench.refusals("third-party-failed")), (0, 1), "{status}");
        assert_eq!(asked(&mut bench), ServerAssignmentType::AdministrativeDeregistration);
        // The servers hear that it is over, also the one that did not want to hear of it.
        assert_eq!(expires(&told(&mut bench, AS, 500)), 0);
        assert_eq!(expires(&told(&mut bench, OTHER, 200)), 0);
        is_quiet(&mut bench);
    }
    // One that says nothing.
    let mut bench = registered_with(&criterion(0, "as.example", MUST, &[]));
    bench.wait(Duration::from_secs(32));
    assert!(bench.drop_sent() > 5, "it was asked more than once");
    assert_eq!((contacts(&bench), asked(&mut bench)), (0, ServerAssignmentType::AdministrativeDeregistration));
}

/// TS 24.229 5.4.1.7.
#[test]
fn a_server_that_may_fail_is_passed_over() {
    for (more, status, counter) in [
        ("", 500, "third-party-failed"),
        ("<DefaultHandling>0</DefaultHandling>", 503, "third-party-failed"),
        (MUST, 403, "third-party-refused"),
        (MUST, 404, "third-party-refused"),
    ] {
        let mut bench = registered_with(&criterion(0, "as.example", more, &[]));
        told(&mut bench, AS, status);
        assert_eq!((contacts(&bench), bench.refusals(counter)), (1, 1), "{status}");
        is_quiet(&mut bench);
    }
}

#[test]
fn a_server_hears_of_things_in_their_order() {
    let mut bench = registered_with(&criterion(0, "as.example", MUST, &[]));
    let request = bench.sent(AS);
    refresh(&mut bench, register(3));
    bench.wait(Duration::from_millis(100));
    refresh(&mut bench, Register { expires: 0, ..register(4) });
    bench.nothing_sent();
    bench.receive_message(AS, &Message::response(&request, 500, Some("as")));
    assert_eq!(expires(&told(&mut bench, AS, 200)), 0, "the refresh is overtaken");
    is_quiet(&mut bench);
}

/// TS 24.229 5.4.1.5.
#[test]
fn who_goes_by_itself_or_by_the_hss_is_signed_off_at_the_servers() {
    let mut bench = registered_with(&criterion(0, "as.example", "", &[2]));
    bench.wait(Duration::from_secs(7200));
    let request = told(&mut bench, AS, 200);
    assert_eq!((expires(&request), asked(&mut bench)), (0, ServerAssignmentType::TimeoutDeregistration));
    assert!(request.require::<PChargingVector<'_>>().is_ok());
    is_quiet(&mut bench);
    let mut bench =
        registered_with(&criterion(0, "as.example", "<Extension><IncludeRegisterRequest/></Extension>", &[2]));
    let reason = ReasonCode::PermanentTermination;
    let rtr = Rtr { impi: Impi::parse(IMPI).unwrap(), impus: Vec::new(), reason, reason_info: None };
    bench.hss_asks(&format!("scscf.{DOMAIN}"), rtr.to_message());
    let request = told(&mut bench, AS, 200);
    assert!(expires(&request) == 0 && request.body().is_empty(), "no UE has sent a REGISTER: {request:?}");
    is_quiet(&mut bench);
}

#[test]
fn what_is_no_sip_uri_is_told_nothing() {
    let mut bench = registered_with(&criterion(0, "as.example", "", &[]).replace("sip:as.example", "as.example"));
    is_quiet(&mut bench);
}

/// TS 24.229 5.4.1.5.
#[test]
fn an_operator_ends_a_registration() {
    let impu = format!("sip:+15550001@{DOMAIN}");
    for (args, ok) in [
        (json!({ "impu": "tel:+15550001" }), true),
        (json!({ "impi": IMPI, "reject": true }), true),
        (json!({ "impu": impu, "retry_after": 60 }), true),
        (json!({ "impu": "sip:nobody@ims.example" }), false),
        (json!({ "impi": "nobody@ims.example" }), false),
        (json!({}), false),
        (json!({ "impu": impu, "impi": IMPI }), false),
        (json!({ "impu": "+1" }), false),
        (json!({ "impi": "x" }), false),
        (json!({ "impi": IMPI, "reject": 1 }), false),
        (json!({ "impi": IMPI, "reject": true, "retry_after": 1 }), false),
        (json!({ "impi": IMPI, "retry_after": "soon" }), false),
    ] {
        let mut bench = registered_with(&criterion(0, "as.example", "", &[2]));
        let reply = bench.command("deregister", args.clone());
        assert_eq!((reply.is_ok(), contacts(&bench)), (ok, usize::from(!ok)), "{args}: {reply:?}");
        if ok {
            let name = json!([{"impi": IMPI, "impu": format!("sip:001010000000001@{DOMAIN}")}]);
            assert_eq!(reply.unwrap()["deregistered"], name);
            let Request::Sar(sar) = bench.hss_answers(saa(ResultCode::SUCCESS, None)) else { panic!() };
            assert_eq!(sar.kind, ServerAssignmentType::AdministrativeDeregistration);
            assert_eq!(expires(&told(&mut bench, AS, 200)), 0);
        }
        is_quiet(&mut bench);
    }
}

/// TS 24.229 5.4.8: no service has a part in an emergency registration, and it in none.
#[test]
fn no_server_hears_of_emergencies() {
    let sos = "<sip:001010000000001@192.0.2.5:5062;sos>;+sip.instance=\"<urn:gsma:imei:35-1-0>\"";
    let sos = |cseq| Register { contact: sos.into(), call_id: "call-sos", ..register(cseq) };
    let mut bench = registered_with(&criterion(0, "as.example", "", &[]));
    told(&mut bench, AS, 200);
    let challenge = challenged(&mut bench, &sos(1));
    bench.receive(PCSCF, &sos(2).answering(&challenge, &RES, "auth").text());
    bench.hss_answers(saa(ResultCode::SUCCESS, None));
    assert_eq!(bench.sent(PCSCF).status(), 200);
    bench.nothing_sent();
    bench.wait(Duration::from_secs(10));
    // The ordinary registration goes, and the other stays.
    bench.receive(PCSCF, &Register { expires: 0, ..register(5) }.protected().text());
    assert_eq!(bench.sent(PCSCF).status(), 200);
    assert_eq!((expires(&told(&mut bench, AS, 200)), contacts(&bench)), (0, 1));
    assert!(bench.command("deregister", json!({ "impi": IMPI })).is_ok());
    asked(&mut bench);
    is_quiet(&mut bench);
}
