//! Registration at the S-CSCF (TS 24.229 5.4.1), with a handmade P-CSCF in front and a handmade HSS behind.

mod bench;
mod user;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bench::{Bench, DOMAIN};
use ims_core::{Impi, Node};
use ims_diameter::Message as Cx;
use ims_diameter::cx::{Maa, Ppa, Ppr, ReasonCode, Request, ResultCode, Rta, Rtr, ServerAssignmentType};
use ims_sip::headers::{Authorization, Contact, WwwAuthenticate};
use ims_sip::{Message, Name};
use scscf::{Config, Reauthenticate, Scscf};
use std::time::Duration;
use user::*;

fn count(bench: &Bench<Scscf>) -> usize {
    bench.node.snapshot()["registrations"].as_array().unwrap().len()
}

fn quiet(bench: &mut Bench<Scscf>) {
    bench.nothing_asked();
    bench.nothing_sent();
    bench.wait(Duration::from_secs(40));
    assert!(bench.node.is_quiet(), "{}", bench.node.snapshot());
}

#[test]
fn the_challenge_holds_the_vector_and_the_keys_for_the_pcscf() {
    let mut bench = up(|_| {});
    bench.receive(PCSCF, &register(1).text());
    let Request::Mar(mar) = bench.hss_answers(vector(9)) else { panic!() };
    assert_eq!((mar.impi.as_str(), mar.impu.as_str()), (IMPI, &*format!("sip:001010000000001@{DOMAIN}")));
    assert_eq!((mar.items, mar.scheme.as_str(), mar.authorization), (1, "Digest-AKAv1-MD5", None));
    assert_eq!(mar.server_name, format!("sip:scscf.{DOMAIN}:6060"));
    let challenge = bench.sent(PCSCF);
    let header: WwwAuthenticate<'_> = challenge.require().unwrap();
    let get = |name: &str| header.get(name).unwrap().into_owned();
    assert_eq!(STANDARD.decode(get("nonce")).unwrap(), [[9; 16], [7; 16]].concat());
    assert_eq!((get("realm").as_str(), get("algorithm").as_str(), get("qop").as_str()), (DOMAIN, "AKAv1-MD5", "auth"));
    assert_eq!((get("ck"), get("ik")), ("c1".repeat(16), "1c".repeat(16)));
    let snapshot = bench.node.snapshot().to_string();
    assert!(!snapshot.contains("c1c1c1") && !snapshot.contains("1c1c1c") && !snapshot.contains("0102030405"));
    quiet(&mut bench);
}

#[test]
fn without_a_pcscf_on_the_path_no_key_leaves() {
    let mut bench = up(|_| {});
    let text = register(1).text();
    let bare: Vec<&str> = text.lines().filter(|l| !l.contains("Path:") && !l.contains("Require: path")).collect();
    bench.receive(PCSCF, &bare.join("\n"));
    bench.hss_answers(vector(9));
    let challenge = bench.sent(PCSCF).to_bytes();
    let text = String::from_utf8(challenge.to_vec()).unwrap();
    assert!(text.contains("nonce=") && !text.contains("c1c1") && !text.contains("ck=") && !text.contains("ik="));
}

#[test]
fn a_registration_is_answered_with_all_the_ue_and_the_pcscf_need() {
    let mut bench = up(|_| {});
    let ok = registered(&mut bench);
    assert_eq!(ok.text(Name::Path), Some(&*format!("<sip:token@pcscf.{DOMAIN}:5070;lr>")));
    assert_eq!(ok.text(Name::ServiceRoute), Some(&*format!("<sip:orig@scscf.{DOMAIN}:6060;lr>")));
    let associated: Vec<&[u8]> = ok.raw(Name::PAssociatedUri).collect();
    assert_eq!(associated, [format!("<sip:+15550001@{DOMAIN}>").as_bytes(), b"<tel:+15550001>"], "none that is barred");
    let contacts: Vec<Contact<'_>> = ok.all().unwrap();
    assert_eq!(contacts.len(), 1);
    assert_eq!(contacts[0].expires(), Some(7200), "granted, not asked");
    assert_eq!(contacts[0].addr().unwrap().params.value("+sip.instance"), Some("<urn:gsma:imei:35-1-0>"));
    let vector = ok.text(Name::PChargingVector).unwrap();
    assert!(vector.contains("icid-value=ic") && vector.contains("orig-ioi=visited"), "{vector}");
    assert!(vector.contains(&format!("term-ioi={DOMAIN}")), "{vector}");
    assert_eq!(ok.text(Name::PChargingFunctionAddresses), Some("ccf=\"aaa://ccf.example:3868\""));
    let entry = &bench.node.snapshot()["registrations"][0];
    assert_eq!(entry["impi"], IMPI);
    assert_eq!(entry["impus"][1], "tel:+15550001");
    assert_eq!(entry["bindings"][0]["contact"], "sip:001010000000001@192.0.2.5:5062");
    quiet(&mut bench);
}

#[test]
fn auth_int_is_verified_when_offered() {
    let mut bench = up(|c| c.qop = vec!["auth".into(), "auth-int".into()]);
    let challenge = challenged(&mut bench, &register(1));
    assert_eq!(challenge.require::<WwwAuthenticate<'_>>().unwrap().get("qop").unwrap(), "auth,auth-int");
    bench.receive(PCSCF, &register(2).answering(&challenge, &RES, "auth-int").text());
    bench.hss_answers(ok_saa());
    assert_eq!(bench.sent(PCSCF).status(), 200);
}

#[test]
fn a_wrong_response_is_forbidden_and_the_hss_hears_of_it() {
    let mut bench = up(|_| {});
    let challenge = challenged(&mut bench, &register(1));
    let answer = register(2).answering(&challenge, &[0; 8], "auth").text();
    bench.receive(PCSCF, &answer);
    assert_eq!(bench.sent(PCSCF).status(), 403);
    let told = bench.hss_answers(saa(ResultCode::SUCCESS, None));
    assert_eq!(kind_of(&told), ServerAssignmentType::AuthenticationFailure);
    assert_eq!((bench.refusals("wrong-response"), count(&bench)), (1, 0));
    // The nonce is used up: the right response comes too late.
    bench.receive(PCSCF, &register(3).answering(&challenge, &RES, "auth").text());
    bench.hss_answers(vector(3));
    assert_eq!(bench.sent(PCSCF).status(), 401);
    quiet(&mut bench);
}

#[test]
fn a_ue_that_rejects_our_mac_is_told_apart() {
    let mut bench = up(|_| {});
    let challenge = challenged(&mut bench, &register(1));
    bench.receive(PCSCF, &register(2).rejecting(&challenge, None).text());
    assert_eq!(bench.sent(PCSCF).status(), 403);
    let told = bench.hss_answers(saa(ResultCode::SUCCESS, None));
    assert_eq!(kind_of(&told), ServerAssignmentType::AuthenticationFailure);
    assert_eq!((bench.refusals("mac-failure"), bench.refusals("wrong-response")), (1, 0));
}

#[test]
fn a_synchronisation_failure_goes_to_the_hss_once() {
    let mut bench = up(|_| {});
    let challenge = challenged(&mut bench, &register(1));
    bench.receive(PCSCF, &register(2).rejecting(&challenge, Some(&[0xaa; 14])).text());
    let Request::Mar(mar) = bench.hss_answers(vector(2)) else { panic!() };
    assert_eq!(mar.authorization.unwrap(), [&[1; 16][..], &[0xaa; 14]].concat());
    let second = bench.sent(PCSCF);
    assert_eq!(second.status(), 401);
    bench.receive(PCSCF, &register(3).answering(&second, &RES, "auth").text());
    bench.hss_answers(ok_saa());
    assert_eq!(bench.sent(PCSCF).status(), 200);

    let challenge = challenged(&mut bench, &register(4));
    bench.receive(PCSCF, &register(5).rejecting(&challenge, Some(&[0xaa; 14])).text());
    bench.hss_answers(vector(5));
    let again = bench.sent(PCSCF);
    bench.receive(PCSCF, &register(6).rejecting(&again, Some(&[0xaa; 14])).text());
    assert_eq!(bench.sent(PCSCF).status(), 403);
    bench.hss_answers(saa(ResultCode::SUCCESS, None));
    assert_eq!((bench.refusals("out-of-step"), count(&bench)), (1, 1), "who was registered stays so");
    quiet(&mut bench);
}

#[test]
fn auts_of_another_length_is_malformed() {
    let mut bench = up(|_| {});
    let challenge = challenged(&mut bench, &register(1));
    let mut bad = register(2).rejecting(&challenge, Some(&[1; 14]));
    bad.authorization = bad.authorization.replace("auts=\"AQEB", "auts=\"");
    bench.receive(PCSCF, &bad.text());
    assert_eq!(bench.sent(PCSCF).status(), 400);
}

#[test]
fn reg_await_auth_ends_a_challenge_nobody_answers() {
    let mut bench = up(|_| {});
    let challenge = challenged(&mut bench, &register(1));
    bench.wait(Duration::from_secs(239));
    bench.nothing_asked();
    bench.wait(Duration::from_secs(1));
    let told = bench.hss_answers(saa(ResultCode::SUCCESS, None));
    assert_eq!(kind_of(&told), ServerAssignmentType::AuthenticationTimeout);
    bench.receive(PCSCF, &register(2).answering(&challenge, &RES, "auth").text());
    bench.hss_answers(vector(2));
    assert_eq!(bench.sent(PCSCF).status(), 401, "too late is a new attempt");
}

#[test]
fn concurrent_attempts_of_one_identity_are_told_apart_by_nonce() {
    let mut bench = up(|_| {});
    let first = challenged(&mut bench, &register(1));
    let second = challenged(&mut bench, &Register { call_id: "call-2", ..register(20) });
    bench.receive(PCSCF, &register(2).answering(&first, &RES, "auth").text());
    bench.hss_answers(ok_saa());
    assert_eq!(bench.sent(PCSCF).status(), 200);
    bench.receive(PCSCF, &Register { call_id: "call-2", ..register(21) }.answering(&second, &RES, "auth").text());
    assert_eq!(kind_of(&bench.hss_answers(ok_saa())), ServerAssignmentType::ReRegistration);
    assert_eq!(bench.sent(PCSCF).status(), 200);
    assert_eq!(count(&bench), 1);
}

#[test]
fn a_protected_refresh_is_not_challenged_unless_policy_says_so() {
    let mut bench = up(|_| {});
    registered(&mut bench);
    bench.wait(Duration::from_secs(600));
    bench.receive(PCSCF, &register(3).protected().text());
    assert_eq!(kind_of(&bench.hss_answers(ok_saa())), ServerAssignmentType::ReRegistration);
    assert_eq!(bench.sent(PCSCF).status(), 200);
    // Another contact is no refresh, and neither is a REGISTER that came in clear.
    let moved = Register { contact: "<sip:001010000000001@192.0.2.9>".into(), ..register(4) };
    challenged(&mut bench, &moved.protected());
    challenged(&mut bench, &register(5));

    for (policy, is_challenged) in [
        (Reauthenticate::Always, true),
        (Reauthenticate::After(ims_core::config::Span::secs(3600)), false),
        (Reauthenticate::After(ims_core::config::Span::secs(300)), true),
    ] {
        let mut bench = up(|c| c.registration.reauthenticate = policy);
        registered(&mut bench);
        bench.wait(Duration::from_secs(600));
        bench.receive(PCSCF, &register(3).protected().text());
        let asked = bench.hss_answers(|request, message| match request {
            Request::Mar(_) => vector(3)(request, message),
            _ => ok_saa()(request, message),
        });
        assert_eq!(matches!(asked, Request::Mar(_)), is_challenged, "{policy:?}");
    }
}

#[test]
fn who_leaves_over_the_security_association_is_not_challenged() {
    let mut bench = up(|c| c.registration.reauthenticate = Reauthenticate::Always);
    registered(&mut bench);
    bench.receive(PCSCF, &Register { expires: 0, ..register(3) }.protected().text());
    let Request::Sar(sar) = bench.hss_answers(saa(ResultCode::SUCCESS, None)) else { panic!() };
    assert_eq!((sar.kind, sar.data_already_available), (ServerAssignmentType::UserDeregistration, true));
    let ok = bench.sent(PCSCF);
    assert_eq!((ok.status(), ok.has(Name::Contact), ok.has(Name::ServiceRoute)), (200, false, false));
    assert_eq!(count(&bench), 0);
    quiet(&mut bench);
}

#[test]
fn who_leaves_in_clear_is_challenged_first() {
    let mut bench = up(|_| {});
    registered(&mut bench);
    let leave = |cseq| Register { expires: 0, contact: "*".into(), ..register(cseq) };
    let challenge = challenged(&mut bench, &leave(3));
    assert_eq!(count(&bench), 1);
    bench.receive(PCSCF, &leave(4).answering(&challenge, &RES, "auth").text());
    assert_eq!(kind_of(&bench.hss_answers(saa(ResultCode::SUCCESS, None))), ServerAssignmentType::UserDeregistration);
    assert_eq!((bench.sent(PCSCF).status(), count(&bench)), (200, 0));
}

#[test]
fn leaving_works_even_when_the_hss_does_not() {
    let mut bench = up(|_| {});
    registered(&mut bench);
    bench.receive(PCSCF, &Register { expires: 0, ..register(3) }.protected().text());
    bench.wait(Duration::from_secs(6));
    assert_eq!((bench.sent(PCSCF).status(), count(&bench), bench.refusals("hss-silent")), (200, 0, 1));
}

#[test]
fn an_s_cscf_that_lost_its_state_challenges_a_refresh_and_lets_go() {
    let mut bench = up(|_| {});
    challenged(&mut bench, &register(3).protected());
    bench.receive(PCSCF, &Register { expires: 0, ..register(4) }.protected().text());
    assert_eq!(kind_of(&bench.hss_answers(saa(ResultCode::SUCCESS, None))), ServerAssignmentType::UserDeregistration);
    assert_eq!(bench.sent(PCSCF).status(), 200);
}

#[test]
fn a_registration_that_is_not_refreshed_ends_at_the_hss() {
    let mut bench = up(|_| {});
    registered(&mut bench);
    bench.wait(Duration::from_secs(7199));
    bench.nothing_asked();
    let left = &bench.node.snapshot()["registrations"][0]["bindings"][0]["expires_at_s"];
    assert_eq!(left.as_u64(), Some(bench.now.secs() + 1));
    bench.wait(Duration::from_secs(1));
    let told = bench.hss_answers(saa(ResultCode::SUCCESS, None));
    assert_eq!(kind_of(&told), ServerAssignmentType::TimeoutDeregistration);
    assert_eq!(count(&bench), 0);
    quiet(&mut bench);
}

#[test]
fn a_query_gives_the_bindings_and_changes_none() {
    let mut bench = up(|_| {});
    registered(&mut bench);
    bench.receive(PCSCF, &Register { contact: String::new(), ..register(3) }.protected().text());
    let ok = bench.sent(PCSCF);
    assert_eq!((ok.status(), ok.raw(Name::Contact).count()), (200, 1));
    bench.nothing_asked();
}

#[test]
fn the_hss_ends_a_registration() {
    let mut bench = up(|_| {});
    registered(&mut bench);
    let impi = Impi::parse(IMPI).unwrap();
    let rtr = Rtr { impi, impus: vec![], reason: ReasonCode::PermanentTermination, reason_info: None };
    for _ in 0..2 {
        bench.hss_asks(&format!("scscf.{DOMAIN}"), rtr.to_message());
        let answer = Rta::from_message(&bench.answers.pop_front().unwrap()).unwrap();
        assert_eq!((answer.result, count(&bench)), (ResultCode::SUCCESS, 0));
    }
    bench.receive(PCSCF, &register(3).protected().text());
    bench.hss_answers(vector(3));
    assert_eq!(bench.sent(PCSCF).status(), 401, "the phone has to prove itself again");
}

#[test]
fn the_hss_changes_a_profile() {
    let mut bench = up(|_| {});
    registered(&mut bench);
    let push = |bench: &mut Bench<Scscf>, xml: &str| {
        let ppr = Ppr { impi: Impi::parse(IMPI).unwrap(), user_data: Some(xml.into()), charging: None };
        bench.hss_asks(&format!("scscf.{DOMAIN}"), ppr.to_message());
        Ppa::from_message(&bench.answers.pop_front().unwrap()).unwrap().result
    };
    let more = profile("<PublicIdentity><Identity>sip:alice@x</Identity></PublicIdentity>");
    assert_eq!(push(&mut bench, &more), ResultCode::SUCCESS);
    assert_eq!(bench.node.snapshot()["registrations"][0]["impus"][2], "sip:alice@x");
    assert_eq!(push(&mut bench, "<no"), ResultCode::NOT_SUPPORTED_USER_DATA);
    let other = "<IMSSubscription><PrivateID>a@b</PrivateID><ServiceProfile><PublicIdentity><Identity>sip:z@b</Identity></PublicIdentity></ServiceProfile></IMSSubscription>";
    assert_eq!(push(&mut bench, other), ResultCode::USER_UNKNOWN);
    bench.receive(PCSCF, &register(3).protected().text());
    bench.hss_answers(saa(ResultCode::SUCCESS, None));
    let ok = bench.sent(PCSCF);
    assert_eq!(ok.raw(Name::PAssociatedUri).count(), 3, "the HSS sent no profile again: ours is the pushed one");
}

#[test]
fn what_the_hss_refuses_the_ue_is_refused() {
    let mar = |result| move |_: &Request, m: &Cx| Maa { result, impi: None, impu: None, items: vec![] }.to_message(m);
    for (result, status, name) in [
        (ResultCode::USER_UNKNOWN, 403, "user-unknown"),
        (ResultCode::IDENTITIES_DONT_MATCH, 403, "identities-dont-match"),
        (ResultCode::AUTH_SCHEME_NOT_SUPPORTED, 403, "scheme-not-supported"),
        (ResultCode::ROAMING_NOT_ALLOWED, 403, "not-allowed"),
        (ResultCode::UNABLE_TO_COMPLY, 500, "hss-answer"),
        (ResultCode::SUCCESS, 500, "hss-answer"),
    ] {
        let mut bench = up(|_| {});
        bench.receive(PCSCF, &register(1).text());
        bench.hss_answers(mar(result));
        assert_eq!((bench.sent(PCSCF).status(), bench.refusals(name)), (status, 1), "{result:?}");
    }
    for (answer, status, undone) in [
        (saa(ResultCode::IDENTITY_ALREADY_REGISTERED, None), 403, false),
        (saa(ResultCode::SUCCESS, None), 500, true),
        (saa(ResultCode::SUCCESS, Some("<x/>".into())), 500, true),
        (
            saa(
                ResultCode::SUCCESS,
                Some(
                    profile("")
                        .replace("<Identity>sip:+", "<BarringIndication>1</BarringIndication><Identity>sip:+")
                        .replace("<Identity>tel", "<BarringIndication>1</BarringIndication><Identity>tel"),
                ),
            ),
            403,
            true,
        ),
    ] {
        let mut bench = up(|_| {});
        let challenge = challenged(&mut bench, &register(1));
        bench.receive(PCSCF, &register(2).answering(&challenge, &RES, "auth").text());
        bench.hss_answers(answer);
        assert_eq!((bench.sent(PCSCF).status(), count(&bench)), (status, 0));
        assert_eq!(bench.refusals("all-barred"), u64::from(undone && status == 403));
        if undone {
            let told = bench.hss_answers(saa(ResultCode::SUCCESS, None));
            assert_eq!(kind_of(&told), ServerAssignmentType::AdministrativeDeregistration);
        }
        quiet(&mut bench);
    }
}

#[test]
fn an_hss_that_is_not_there_is_a_server_timeout() {
    let mut bench = up(|_| {});
    bench.receive(PCSCF, &register(1).text());
    bench.wait(Duration::from_secs(6));
    assert_eq!((bench.sent(PCSCF).status(), bench.refusals("hss-silent")), (504, 1));
    let mut bench = Bench::new(Scscf::new(Config::default()).unwrap(), "127.0.0.1:6060", false);
    bench.receive(PCSCF, &register(1).text());
    bench.wait(Duration::from_secs(6));
    assert_eq!((bench.sent(PCSCF).status(), bench.refusals("hss-silent")), (504, 1));
}

#[test]
fn a_missing_authorization_header_means_the_identity_in_to() {
    let mut bench = up(|_| {});
    let without = |r: Register| {
        let text = r.text();
        text.lines().filter(|l| !l.contains("Authorization:")).collect::<Vec<_>>().join("\n")
    };
    bench.receive(PCSCF, &without(register(1)));
    let Request::Mar(mar) = bench.hss_answers(vector(1)) else { panic!() };
    assert_eq!(mar.impi.as_str(), IMPI);
    assert_eq!(bench.sent(PCSCF).status(), 401);
    let mut strict = up(|c| c.registration.derive_private_identity = false);
    strict.receive(PCSCF, &without(register(1)));
    assert_eq!((strict.sent(PCSCF).status(), strict.refusals("no-private-identity")), (403, 1));
}

#[test]
fn an_answer_outside_ipsec_is_a_matter_of_policy() {
    for (accept, status) in [(true, 200), (false, 403)] {
        let mut bench = up(|c| c.registration.accept_unprotected = accept);
        let challenge = challenged(&mut bench, &register(1));
        let mut answer = register(2).answering(&challenge, &RES, "auth");
        answer.authorization = answer.authorization.replace("protected=\"yes\"", "protected=\"no\"");
        bench.receive(PCSCF, &answer.text());
        bench.hss_answers(ok_saa());
        assert_eq!((bench.sent(PCSCF).status(), bench.refusals("unprotected")), (status, u64::from(!accept)));
    }
}

#[test]
fn a_request_that_cannot_be_served_says_why() {
    let mut bench = up(|_| {});
    bench.receive(PCSCF, &Register { expires: 10, ..register(1) }.text());
    let brief = bench.sent(PCSCF);
    assert_eq!((brief.status(), brief.text(Name::MinExpires)), (423, Some("60")));
    bench.receive(PCSCF, &register(2).text().replace("Require: path", "Require: path, sec-agree"));
    let bad = bench.sent(PCSCF);
    assert_eq!((bad.status(), bad.text(Name::Unsupported)), (420, Some("sec-agree")));
    assert_eq!((bench.refusals("interval-too-brief"), bench.refusals("bad-extension")), (1, 1));
    bench.receive(PCSCF, &register(3).text().replace("To: <sip:", "To: <urn:"));
    assert_eq!(bench.sent(PCSCF).status(), 400);
    bench.receive(PCSCF, &register(4).text().replace(IMPI, "nobody"));
    assert_eq!(bench.sent(PCSCF).status(), 400);
    bench.receive(PCSCF, &format!("{}\nEvent: reg", register(5).text().replace("REGISTER", "SUBSCRIBE")));
    assert_eq!((bench.sent(PCSCF).status(), bench.refusals("not-registered")), (480, 1));
    bench.receive(PCSCF, &register(6).text().replace("REGISTER", "OPTIONS"));
    assert_eq!(bench.sent(PCSCF).status(), 200);
    quiet(&mut bench);
}

#[test]
fn tables_are_bounded() {
    let mut bench = up(|c| c.limits.max_challenges = 1);
    challenged(&mut bench, &register(1));
    bench.receive(PCSCF, &Register { call_id: "x", ..register(2) }.text());
    let full = bench.sent(PCSCF);
    assert_eq!(
        (full.status(), full.text(Name::RetryAfter).is_some_and(|s| (5..=30).contains(&s.parse::<u32>().unwrap()))),
        (503, true)
    );
    let mut bench = up(|c| c.limits.max_pending = 1);
    bench.receive(PCSCF, &register(1).text());
    bench.receive(PCSCF, &Register { call_id: "x", ..register(2) }.text());
    assert_eq!((bench.sent(PCSCF).status(), bench.refusals("full")), (503, 1));
}

#[test]
fn the_authorization_of_a_ue_is_found_among_odd_ones() {
    let mut bench = up(|_| {});
    let odd = Register {
        authorization: format!("nonce=\"\", USERNAME = \"{IMPI}\" ,  realm=x,uri=\"sip:x\",response=\"\""),
        ..register(1)
    };
    bench.receive(PCSCF, &odd.text());
    let Request::Mar(mar) = bench.hss_answers(vector(1)) else { panic!() };
    assert_eq!(mar.impi.as_str(), IMPI);
    let message = Message::parse(odd.text().replace("            ", "").replace('\n', "\r\n").into()).unwrap();
    assert!(message.require::<Authorization<'_>>().is_ok());
}
