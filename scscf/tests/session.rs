//! Sessions at the S-CSCF (TS 24.229 5.4.3), with P-CSCF, I-CSCF and HSS played by the test.

mod bench;
mod play;

use bench::DOMAIN;
use ims_diameter::cx::{ResultCode, ServerAssignmentType};
use ims_sip::Name;
use play::{Ask, ICSCF, PCSCF, Play, SCSCF, from_ue, lines, profile, to_user, uris};
use scscf::Config;
use std::time::Duration;

const CONTACT: &str = "<sip:1@192.0.2.5:5062>;expires=600";

/// Users 1 and 2 are registered.
fn two() -> Play {
    two_with(|_| {})
}

fn two_with(change: impl FnOnce(&mut Config)) -> Play {
    let mut play = Play::new(change);
    play.register("1", CONTACT, &profile("1", ""));
    play.register("2", "<sip:2@192.0.2.6:5062>;expires=600", &profile("2", ""));
    play
}

fn user(n: u32) -> String {
    format!("sip:{n}@{DOMAIN}")
}

/// TS 24.229 5.4.3.2: with both of its identities, our network in the charging vector, and a Record-Route.
#[test]
fn a_call_leaves_the_originating_side_to_the_icscf() {
    let mut play = two();
    let invite =
        from_ue("INVITE", "1", &user(2)).with("P-Access-Network-Info: 3GPP-NR\nHistory-Info: <sip:a@b>;index=1\n");
    play.ask(PCSCF, &invite);
    let out = play.request(ICSCF, "INVITE");
    assert_eq!(out.uri(), user(2));
    assert!(!out.has(Name::Route) && !out.has(Name::PServedUser));
    let route = format!("sip:mo@scscf.{DOMAIN}:6060;lr");
    assert_eq!(uris(&out, Name::RecordRoute), [&*route, &format!("sip:dlg@pcscf.{DOMAIN}:5070;lr")]);
    assert_eq!(lines(&out, Name::PAssertedIdentity), [format!("<sip:1@{DOMAIN}>"), "<tel:+15551>".into()]);
    assert_eq!(lines(&out, Name::PChargingVector), [format!("icid-value=icid7;orig-ioi={DOMAIN}")]);
    assert_eq!(lines(&out, Name::MaxForwards), ["59"]);
    assert_eq!(lines(&out, Name::PAccessNetworkInfo), ["3GPP-NR"]);
    assert_eq!(lines(&out, Name::HistoryInfo), ["<sip:a@b>;index=1"]);
    play.reply(ICSCF, &out, 180);
    play.answer(PCSCF, 180);
    play.reply(ICSCF, &out, 200);
    play.answer(PCSCF, 200);
    play.is_quiet();
}

/// TS 24.229 5.4.3.3: P-Called-Party-ID, Path as Route; each 2xx goes back.
#[test]
fn a_call_is_delivered_to_the_contact_along_its_path() {
    let mut play = two();
    play.ask(ICSCF, &to_user("INVITE", &format!("sip:2@{DOMAIN};user=phone")));
    let out = play.request(PCSCF, "INVITE");
    assert_eq!(out.uri(), "sip:2@192.0.2.6:5062");
    assert_eq!(uris(&out, Name::Route), [format!("sip:2@pcscf.{DOMAIN}:5070;lr")]);
    assert_eq!(lines(&out, Name::PCalledPartyId), [format!("<sip:2@{DOMAIN};user=phone>")]);
    assert_eq!(uris(&out, Name::RecordRoute), [format!("sip:mt@scscf.{DOMAIN}:6060;lr")]);
    play.reply_with(PCSCF, &out, 180, |m| {
        m.set(Name::PChargingVector, "icid-value=icid7");
        m.set(Name::PAssertedIdentity, "<tel:+15552>");
    });
    let ringing = play.answer(ICSCF, 180);
    assert_eq!(lines(&ringing, Name::PAssertedIdentity), ["<tel:+15552>".to_owned(), format!("<sip:2@{DOMAIN}>")]);
    assert_eq!(lines(&ringing, Name::PChargingVector), [format!("icid-value=icid7;term-ioi={DOMAIN}")]);
    play.reply(PCSCF, &out, 200);
    play.answer(ICSCF, 200);
    // The 2xx is repeated until its ACK comes, and each goes back.
    play.reply(PCSCF, &out, 200);
    play.answer(ICSCF, 200);
    play.is_quiet();
}

/// TS 24.229 5.4.3.3: tel, and SIP with user=phone.
#[test]
fn a_number_is_found_in_each_of_its_forms() {
    for uri in ["tel:+1-555-2".to_owned(), format!("sip:+15552@{DOMAIN};user=phone")] {
        let mut play = two();
        play.ask(ICSCF, &to_user("MESSAGE", &uri));
        let out = play.request(PCSCF, "MESSAGE");
        assert_eq!(lines(&out, Name::PCalledPartyId), [format!("<{uri}>")]);
        assert!(!out.has(Name::RecordRoute), "a MESSAGE makes no dialog");
        play.reply(PCSCF, &out, 200);
        play.answer(ICSCF, 200);
        play.is_quiet();
    }
}

/// RFC 3261 16.12: whatever the method.
#[test]
fn requests_in_the_dialog_follow_the_route_set() {
    let mut play = two();
    let routes = format!(
        "Route: <sip:mo@scscf.{DOMAIN}:6060;lr>, <sip:mt@scscf.{DOMAIN}:6060;lr>\nRoute: <sip:dlg@pcscf.{DOMAIN}:5070;lr>\n"
    );
    let ask = |method, cseq| {
        Ask { more: routes.clone(), ..from_ue(method, "1", "sip:2@192.0.2.6:5062") }.tagged("t").cseq(cseq)
    };
    play.ask(PCSCF, &ask("ACK", 1));
    let ack = play.request(PCSCF, "ACK");
    assert_eq!(uris(&ack, Name::Route), [format!("sip:dlg@pcscf.{DOMAIN}:5070;lr")], "both of ours are off");
    for (at, method) in ["PRACK", "UPDATE", "INVITE", "INFO", "REFER", "NOTIFY", "FOO", "BYE"].into_iter().enumerate() {
        play.ask(PCSCF, &ask(method, at as u32 + 2));
        let out = play.request(PCSCF, method);
        assert_eq!(out.uri(), "sip:2@192.0.2.6:5062");
        assert_eq!(uris(&out, Name::Route).len(), 1);
        assert!(!out.has(Name::RecordRoute));
        play.reply(PCSCF, &out, 200);
        play.answer(PCSCF, 200);
    }
    play.is_quiet();
}

/// RFC 3261 16.3: neither what has no Route of ours, nor what has passed too many hops, nor what wants an unknown extension.
#[test]
fn what_is_in_no_dialog_through_us_goes_nowhere() {
    let mut play = two();
    let bye = Ask { more: String::new(), ..from_ue("BYE", "1", "sip:2@192.0.2.6:5062") }.tagged("t");
    play.ask(PCSCF, &bye);
    play.refused(PCSCF, 481, "no-dialog");
    play.ask(PCSCF, &Ask { method: "ACK", ..bye });
    assert_eq!(play.bench.refusals("stray-ack"), 1);
    play.ask(ICSCF, &to_user("MESSAGE", &user(2)).with("Max-Forwards: 0\n").call("m"));
    play.refused(ICSCF, 483, "too-many-hops");
    let odi = format!("Route: <sip:odi-zzz@scscf.{DOMAIN}:6060;lr>\n");
    play.ask("127.0.0.1:9001", &to_user("MESSAGE", &user(2)).replacing("Route", &odi).call("o"));
    play.refused("127.0.0.1:9001", 481, "chain-gone");
    let mut last = to_user("INVITE", &user(2)).call("n");
    last.more = last.more.replace("Route:", "Proxy-Require: foo, gruu\nRoute:");
    play.ask(ICSCF, &last);
    let refused = play.answer(ICSCF, 420);
    assert_eq!(lines(&refused, Name::Unsupported), ["foo"]);
    play.again(ICSCF, "ACK", &last);
    play.is_quiet();
}

/// RFC 3261 16.10: while the HSS is asked, and while it rings.
#[test]
fn a_cancel_ends_it_wherever_it_is() {
    let mut play = two();
    // The HSS is being asked.
    let waits = to_user("INVITE", &user(9));
    play.ask(ICSCF, &waits);
    play.bench.nothing_sent();
    play.again(ICSCF, "CANCEL", &waits);
    play.answer(ICSCF, 200);
    play.answer(ICSCF, 487);
    play.again(ICSCF, "ACK", &waits);
    play.hss_gives(ResultCode::SUCCESS, Some(&profile("9", "")));
    play.bench.nothing_sent();
    // It rings.
    let rings = to_user("INVITE", &user(2)).call("rings");
    play.ask(ICSCF, &rings);
    let out = play.request(PCSCF, "INVITE");
    play.reply(PCSCF, &out, 180);
    play.answer(ICSCF, 180);
    play.again(ICSCF, "CANCEL", &rings.clone().with("Reason: SIP;cause=200;text=\"elsewhere\"\n"));
    play.answer(ICSCF, 200);
    let cancel = play.request(PCSCF, "CANCEL");
    assert_eq!(lines(&cancel, Name::Reason), ["SIP;cause=200;text=\"elsewhere\""]);
    play.reply(PCSCF, &cancel, 200);
    play.reply(PCSCF, &out, 487);
    play.request(PCSCF, "ACK");
    play.answer(ICSCF, 487);
    play.again(ICSCF, "ACK", &rings);
    play.is_quiet();
}

/// RFC 3261 16.8: 408.
#[test]
fn a_contact_that_does_not_answer_is_a_timeout() {
    let mut play = two();
    let ask = to_user("MESSAGE", &user(2));
    play.ask(ICSCF, &ask);
    play.request(PCSCF, "MESSAGE");
    play.bench.wait(Duration::from_secs(33));
    let sent: usize = play.bench.drop_sent();
    assert!(sent > 5, "repeated, then 408: {sent}");
    play.is_quiet();
}

/// TS 24.229 5.4.3.2: else 504 that has the phone register again, or 403; 404 for who is barred and called.
#[test]
fn the_caller_has_to_be_registered_known_and_free() {
    let mut play = two();
    play.ask(PCSCF, &from_ue("MESSAGE", "7", &user(2)));
    let gone = play.answer(PCSCF, 504);
    assert_eq!(play.bench.refusals("caller-not-registered"), 1);
    assert_eq!(lines(&gone, Name::ContentType), ["application/3gpp-ims+xml"]);
    assert_eq!(lines(&gone, Name::PAssertedIdentity), [format!("<sip:orig@scscf.{DOMAIN}:6060;lr>")]);
    assert!(String::from_utf8_lossy(gone.body()).contains("<action>initial-registration</action>"));
    play.ask(PCSCF, &from_ue("MESSAGE", "1", &user(2)).replacing("P-Asserted", "").cseq(2));
    play.refused(PCSCF, 403, "no-caller");
    let barred = format!(
        "<PublicIdentity><BarringIndication>1</BarringIndication><Identity>{}</Identity></PublicIdentity>",
        user(3)
    );
    play.register("4", "<sip:4@192.0.2.7>;expires=600", &profile("4", &barred));
    play.ask(PCSCF, &from_ue("MESSAGE", "3", &user(2)).cseq(3));
    play.refused(PCSCF, 403, "barred-caller");
    play.ask(ICSCF, &to_user("MESSAGE", &user(3)).cseq(4));
    play.refused(ICSCF, 404, "barred-callee");
    play.ask(ICSCF, &to_user("MESSAGE", SCSCF).cseq(5));
    play.refused(ICSCF, 404, "no-user");
    play.ask(PCSCF, &from_ue("MESSAGE", "1", "urn:service:sos").cseq(6));
    play.refused(PCSCF, 404, "no-route");
    play.is_quiet();
}

/// TS 24.229 5.4.3.3: SAR with UNREGISTERED_USER; 480 without a service, 404 when the HSS knows nobody.
#[test]
fn the_profile_of_who_is_not_registered_comes_from_the_hss_and_is_kept_a_while() {
    let mut play = two();
    play.ask(ICSCF, &to_user("MESSAGE", &user(9)));
    let sar = play.hss_gives(ResultCode::SUCCESS, Some(&profile("9", "")));
    assert_eq!((sar.kind, sar.impi.is_none()), (ServerAssignmentType::UnregisteredUser, true));
    assert_eq!(sar.impus[0].as_str(), user(9));
    play.refused(ICSCF, 480, "not-reachable");
    play.ask(ICSCF, &to_user("MESSAGE", &user(9)).cseq(2));
    play.bench.nothing_asked();
    play.answer(ICSCF, 480);
    play.bench.wait(Duration::from_secs(301));
    play.ask(ICSCF, &to_user("MESSAGE", &user(9)).cseq(3));
    play.hss_gives(ResultCode::USER_UNKNOWN, None);
    play.refused(ICSCF, 404, "unknown-user");
    play.ask(ICSCF, &to_user("MESSAGE", &user(9)).cseq(4));
    play.hss_gives(ResultCode::SUCCESS, None);
    play.refused(ICSCF, 500, "hss-answer");
    play.is_quiet();
}

/// TS 24.229 5.4.3.2: originating, not registered; the served user by P-Served-User or P-Asserted-Identity.
#[test]
fn an_application_server_may_call_for_who_is_not_registered() {
    let mut play = two();
    let ask = from_ue("MESSAGE", "1", &user(2)).replacing("Route", &format!("Route: <{SCSCF};lr;orig>\n"));
    play.ask("127.0.0.1:9001", &ask.clone().with(&format!("P-Served-User: <{}>\n", user(9))));
    play.hss_gives(ResultCode::SUCCESS, Some(&profile("9", "")));
    let out = play.request(ICSCF, "MESSAGE");
    assert!(!out.has(Name::PServedUser));
    play.reply(ICSCF, &out, 202);
    play.answer("127.0.0.1:9001", 202);
    // A registered one, by P-Asserted-Identity.
    play.ask("127.0.0.1:9001", &ask.cseq(2));
    play.bench.nothing_asked();
    let out = play.request(ICSCF, "MESSAGE");
    play.reply(ICSCF, &out, 202);
    play.answer("127.0.0.1:9001", 202);
    play.is_quiet();
}

/// TS 24.229 5.4.3.2: P-Preferred-Service becomes P-Asserted-Service.
#[test]
fn the_service_that_is_asked_for_is_vouched_for_when_allowed() {
    let mmtel = "urn:urn-7:3gpp-service.ims.icsi.mmtel";
    let mut play = two_with(|c| c.sessions.services = vec![mmtel.into()]);
    for (cseq, service) in [(1, mmtel.to_owned()), (2, format!("{mmtel}.conference"))] {
        play.ask(
            PCSCF,
            &from_ue("MESSAGE", "1", &user(2)).with(&format!("P-Preferred-Service: {service}\n")).cseq(cseq),
        );
        let out = play.request(ICSCF, "MESSAGE");
        assert_eq!(lines(&out, Name::PAssertedService), [service]);
        assert!(!out.has(Name::PPreferredService));
        play.reply(ICSCF, &out, 200);
        play.answer(PCSCF, 200);
    }
    let other = format!("P-Preferred-Service: {mmtel}s\n");
    play.ask(PCSCF, &from_ue("MESSAGE", "1", &user(2)).with(&other).cseq(3));
    play.refused(PCSCF, 403, "service-not-allowed");
    play.is_quiet();
}

/// TS 24.229 5.4.3.2: the next hop.
#[test]
fn an_alias_of_our_domain_is_our_domain_and_others_are_elsewhere() {
    let mut play = two_with(|c| {
        c.aliases = vec!["ims.example".into()];
        c.next_hops.insert("other.example".into(), vec!["udp:127.0.0.1:7000".into()]);
        c.sessions.icscf = Some("sip:127.0.0.1:4070".into());
    });
    play.ask(PCSCF, &from_ue("MESSAGE", "1", "sip:2@IMS.example"));
    let out = play.request("127.0.0.1:4070", "MESSAGE");
    assert_eq!(out.uri(), user(2));
    play.reply("127.0.0.1:4070", &out, 200);
    play.answer(PCSCF, 200);
    play.ask(PCSCF, &from_ue("MESSAGE", "1", "sip:2@other.example").cseq(2));
    let out = play.request("127.0.0.1:7000", "MESSAGE");
    play.reply("127.0.0.1:7000", &out, 200);
    play.answer(PCSCF, 200);
    play.is_quiet();
}

/// RFC 4028 8.1: 422 with Min-SE to who knows session timers.
#[test]
fn a_session_timer_is_not_too_short() {
    let mut play = two();
    let invite = from_ue("INVITE", "1", &user(2));
    play.ask(PCSCF, &invite.clone().with("Supported: 100rel, timer\nSession-Expires: 89\n"));
    let brief = play.answer(PCSCF, 422);
    assert_eq!((lines(&brief, Name::MinSe), play.bench.refusals("session-too-brief")), (vec!["90".to_owned()], 1));
    for (call, more) in [("a", "Supported: timer\nx: 90;refresher=uac\n"), ("b", "Session-Expires: 60\n"), ("c", "")] {
        play.ask(PCSCF, &invite.clone().with(more).call(call));
        play.request(ICSCF, "INVITE");
    }
}
