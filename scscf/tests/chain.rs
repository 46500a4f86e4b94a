//! Chains of application servers (TS 24.229 5.4.3.2 to 5.4.3.4), the servers played by the test.

mod bench;
mod play;

use bench::DOMAIN;
use ims_core::Node;
use ims_diameter::cx::{Ppr, ResultCode};
use ims_sip::{Message, Name};
use play::{ICSCF, PCSCF, Play, SCSCF, from_ue, lines, profile, to_user, uris};
use std::time::Duration;

const AS: [&str; 5] = ["127.0.0.1:9001", "127.0.0.1:9002", "127.0.0.1:9003", "127.0.0.1:9004", "127.0.0.1:9005"];
const CONTACT: &str = "<sip:1@192.0.2.5:5062>;expires=600";
const CONTINUED: u8 = 0;
const TERMINATED: u8 = 1;

/// A criterion for an application server in a session case.
fn criterion(priority: u32, case: u8, server: &str, handling: u8) -> String {
    format!(
        "<InitialFilterCriteria><Priority>{priority}</Priority><TriggerPoint><ConditionTypeCNF>1</ConditionTypeCNF><SPT>\
         <Group>0</Group><SessionCase>{case}</SessionCase></SPT></TriggerPoint><ApplicationServer><ServerName>sip:{server}\
         </ServerName><DefaultHandling>{handling}</DefaultHandling></ApplicationServer></InitialFilterCriteria>"
    )
}

/// User 1 is registered, with these criteria.
fn with_criteria(criteria: &[String]) -> Play {
    let mut play = Play::new(|_| {});
    play.register("1", CONTACT, &profile("1", &criteria.concat()));
    play
}

fn user(n: u32) -> String {
    format!("sip:{n}@{DOMAIN}")
}

fn from_1(method: &'static str) -> play::Ask {
    from_ue(method, "1", &user(2))
}

fn to_1(method: &'static str) -> play::Ask {
    to_user(method, &user(1))
}

fn outcome(play: &Play, name: &str) -> u64 {
    play.bench.node.snapshot()["application_servers"][name].as_u64().unwrap_or_default()
}

/// The original dialog identifier in a request to a server.
fn odi(request: &Message) -> String {
    let route = uris(request, Name::Route)[1];
    assert!(route.starts_with("sip:odi-") && route.ends_with(&format!("@scscf.{DOMAIN}:6060;lr")), "{route}");
    route.to_owned()
}

/// TS 24.229 5.4.3.2: with P-Served-User towards them alone.
#[test]
fn five_servers_in_the_order_of_priority_each_once() {
    let criteria: Vec<String> = [3, 0, 4, 1, 2].map(|n| criterion(n, 0, AS[n as usize], CONTINUED)).to_vec();
    let mut play = with_criteria(&criteria);
    play.ask(PCSCF, &from_1("INVITE"));
    let mut given = Vec::new();
    let mut seen = Vec::new();
    for server in AS {
        let request = play.request(server, "INVITE");
        assert_eq!(uris(&request, Name::Route)[0], format!("sip:{server};lr"));
        assert_eq!(lines(&request, Name::PServedUser), [format!("<sip:1@{DOMAIN}>;sescase=orig;regstate=reg")]);
        assert_eq!(lines(&request, Name::PAssertedIdentity).len(), 2);
        assert_eq!(uris(&request, Name::RecordRoute)[0], format!("sip:mo@scscf.{DOMAIN}:6060;lr"));
        seen.push(odi(&request));
        play.pass_on(server, &request, |m| m.push_front(Name::RecordRoute, format!("<sip:{server};lr>")));
        given.push(request);
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 5, "each has its own identifier");
    let out = play.request(ICSCF, "INVITE");
    assert!(!out.has(Name::PServedUser) && !out.has(Name::Route));
    assert_eq!(uris(&out, Name::RecordRoute).len(), 12, "ours around each server, and the P-CSCF");
    // Back through all of them.
    for status in [180, 200] {
        play.reply(ICSCF, &out, status);
        for (server, request) in AS.iter().zip(&given).rev() {
            play.answer(server, status);
            play.reply(server, request, status);
        }
        play.answer(PCSCF, status);
    }
    assert_eq!((outcome(&play, "answered"), play.bench.node.snapshot()["chains"].as_u64()), (5, Some(0)));
    play.is_quiet();
}

/// TS 24.229 5.4.3.2: no more Record-Route than the route set needs.
#[test]
fn a_server_that_is_not_on_the_path_of_the_dialog_leaves_one_record_route_of_ours() {
    let mut play = with_criteria(&[criterion(0, 0, AS[0], CONTINUED)]);
    play.ask(PCSCF, &from_1("INVITE"));
    let request = play.request(AS[0], "INVITE");
    play.pass_on(AS[0], &request, |_| {});
    let out = play.request(ICSCF, "INVITE");
    assert_eq!(uris(&out, Name::RecordRoute).len(), 2);
}

/// TS 24.229 5.4.3.3: another identity of the callee is no diversion.
#[test]
fn servers_of_the_callee_have_it_before_the_contacts_do() {
    let mut play = with_criteria(&[criterion(0, 1, AS[0], CONTINUED), criterion(1, 0, AS[1], CONTINUED)]);
    play.ask(ICSCF, &to_1("INVITE"));
    let request = play.request(AS[0], "INVITE");
    assert_eq!(lines(&request, Name::PServedUser), [format!("<sip:1@{DOMAIN}>;sescase=term;regstate=reg")]);
    assert_eq!(request.uri(), user(1));
    // Another identity of the same user is no diversion.
    play.pass_on(AS[0], &request, |m| m.set_uri(&format!("sip:+15551@{DOMAIN};user=phone")));
    let out = play.request(PCSCF, "INVITE");
    assert_eq!(out.uri(), "sip:1@192.0.2.5:5062");
    assert!(!out.has(Name::PServedUser));
    play.reply(PCSCF, &out, 486);
    play.request(PCSCF, "ACK");
    play.answer(AS[0], 486);
    play.reply(AS[0], &request, 486);
    play.request(AS[0], "ACK");
    play.answer(ICSCF, 486);
    assert_eq!(outcome(&play, "answered"), 1);
}

/// TS 24.229 5.4.3.4: the original dialog identifier, until the request has its answer.
#[test]
fn a_server_that_makes_another_dialog_of_it_goes_on_where_it_was() {
    let mut play = with_criteria(&[criterion(0, 0, AS[0], CONTINUED), criterion(1, 0, AS[1], CONTINUED)]);
    let invite = from_1("INVITE");
    play.ask(PCSCF, &invite);
    let first = play.request(AS[0], "INVITE");
    play.reply(AS[0], &first, 183);
    play.answer(PCSCF, 183);
    let route = format!("Route: <{}>\n", odi(&first));
    let b_leg = invite.clone().call("b-leg").replacing("Route", &route).replacing("Record-Route", "");
    play.ask(AS[0], &b_leg);
    let second = play.request(AS[1], "INVITE");
    assert_eq!(lines(&second, Name::CallId), ["b-leg"]);
    play.reply(AS[1], &second, 200);
    play.answer(AS[0], 200);
    play.reply(AS[0], &first, 200);
    play.answer(PCSCF, 200);
    // The request has its answer: nothing goes on with it any more.
    play.ask(AS[0], &b_leg.call("late"));
    play.answer(AS[0], 481);
    assert_eq!(play.bench.refusals("chain-gone"), 1);
}

/// TS 24.229 5.4.3.2: as terminating UA or redirect server.
#[test]
fn a_server_may_answer_or_redirect_by_itself() {
    for status in [200, 302, 603, 404] {
        let mut play = with_criteria(&[criterion(0, 0, AS[0], CONTINUED), criterion(1, 0, AS[1], CONTINUED)]);
        let message = from_1("MESSAGE");
        play.ask(PCSCF, &message);
        let request = play.request(AS[0], "MESSAGE");
        play.reply_with(AS[0], &request, status, |m| m.set(Name::Contact, "<sip:elsewhere@x.example>"));
        let answer = play.answer(PCSCF, status);
        assert_eq!(lines(&answer, Name::Contact), ["<sip:elsewhere@x.example>"]);
        assert_eq!(outcome(&play, "answered"), 1);
        play.is_quiet();
    }
}

/// TS 24.229 5.4.3.2: DefaultHandling when nothing comes.
#[test]
fn without_a_server_that_is_silent_the_request_goes_on_or_ends() {
    let mut play = with_criteria(&[criterion(0, 0, AS[0], CONTINUED), criterion(1, 0, AS[1], TERMINATED)]);
    let invite = from_1("INVITE");
    play.ask(PCSCF, &invite);
    let silent = play.request(AS[0], "INVITE");
    play.bench.wait(Duration::from_millis(3900));
    play.bench.drop_sent();
    play.bench.wait(Duration::from_millis(200));
    play.request(AS[1], "INVITE");
    // It comes back after all.
    play.pass_on(AS[0], &silent, |_| {});
    play.answer(AS[0], 481);
    play.bench.wait(Duration::from_millis(3500));
    play.bench.drop_sent();
    play.bench.wait(Duration::from_secs(1));
    play.answer(PCSCF, 408);
    assert_eq!((play.bench.refusals("server-silent"), play.bench.refusals("chain-gone")), (2, 1));
    assert_eq!((outcome(&play, "continued"), outcome(&play, "terminated")), (1, 1));
    play.again(PCSCF, "ACK", &invite);
    play.bench.wait(Duration::from_secs(60));
    play.bench.drop_sent();
    play.is_quiet();
}

/// RFC 3261 13.2.2.4: a call that nobody listens to is ended at once.
#[test]
fn a_server_that_answers_when_it_was_given_up_is_hung_up() {
    let mut play = with_criteria(&[criterion(0, 0, AS[0], CONTINUED)]);
    play.ask(PCSCF, &from_1("INVITE"));
    let silent = play.request(AS[0], "INVITE");
    play.bench.wait(Duration::from_secs(4));
    play.bench.drop_sent();
    play.reply_with(AS[0], &silent, 200, |m| m.set(Name::Contact, "<sip:b2b@127.0.0.1:9001>"));
    for method in ["ACK", "BYE"] {
        let request = play.request(AS[0], method);
        assert_eq!((request.uri(), request.has(Name::Route)), ("sip:b2b@127.0.0.1:9001", false));
        if method == "BYE" {
            play.reply(AS[0], &request, 200);
        }
    }
    play.bench.nothing_sent();
    assert_eq!(play.bench.refusals("late-answer"), 1);
}

/// TS 24.229 5.4.3.2: the failure still counts until it says more.
#[test]
fn a_server_that_says_100_has_time() {
    let mut play = with_criteria(&[criterion(0, 0, AS[0], CONTINUED)]);
    play.ask(PCSCF, &from_1("INVITE"));
    let request = play.request(AS[0], "INVITE");
    play.reply(AS[0], &request, 100);
    play.bench.wait(Duration::from_secs(19));
    play.answer(PCSCF, 100);
    play.bench.nothing_sent();
    // It had nothing else to say yet: the criterion still counts.
    play.reply(AS[0], &request, 503);
    play.request(AS[0], "ACK");
    play.request(ICSCF, "INVITE");
    assert_eq!(outcome(&play, "continued"), 1);
    // And it has not for ever.
    let mut play = with_criteria(&[criterion(0, 0, AS[0], CONTINUED)]);
    play.ask(PCSCF, &from_1("INVITE"));
    let request = play.request(AS[0], "INVITE");
    play.reply(AS[0], &request, 100);
    play.bench.wait(Duration::from_secs(20));
    play.answer(PCSCF, 100);
    play.request(AS[0], "CANCEL");
    play.request(ICSCF, "INVITE");
}

/// TS 24.229 5.4.3.2: what failed was behind the server, so nothing is tried again without it.
#[test]
fn a_failure_behind_a_server_that_gave_the_request_back_is_none_of_the_server() {
    let mut play = with_criteria(&[criterion(0, 0, AS[0], CONTINUED)]);
    play.ask(PCSCF, &from_1("INVITE"));
    let request = play.request(AS[0], "INVITE");
    play.pass_on(AS[0], &request, |_| {});
    let out = play.request(ICSCF, "INVITE");
    play.bench.wait(Duration::from_millis(100));
    play.reply(ICSCF, &out, 580);
    play.request(ICSCF, "ACK");
    play.answer(AS[0], 580);
    play.reply(AS[0], &request, 580);
    play.request(AS[0], "ACK");
    play.answer(PCSCF, 580);
    play.bench.nothing_sent();
    assert_eq!(outcome(&play, "answered"), 1);
}

/// TS 24.229 5.4.3.2: 408 and 5xx before any 18x.
#[test]
fn the_failure_of_a_server_counts_before_it_has_said_anything() {
    for (status, handling, goes_on) in [
        (500, CONTINUED, true),
        (408, CONTINUED, true),
        (503, CONTINUED, true),
        (500, TERMINATED, false),
        (480, CONTINUED, false),
    ] {
        let mut play = with_criteria(&[criterion(0, 0, AS[0], handling)]);
        play.ask(PCSCF, &from_1("INVITE"));
        let request = play.request(AS[0], "INVITE");
        play.reply(AS[0], &request, status);
        play.request(AS[0], "ACK");
        match goes_on {
            true => drop(play.request(ICSCF, "INVITE")),
            false => drop(play.answer(PCSCF, status)),
        }
    }
    let mut play = with_criteria(&[criterion(0, 0, AS[0], CONTINUED)]);
    play.ask(PCSCF, &from_1("INVITE"));
    let request = play.request(AS[0], "INVITE");
    play.reply(AS[0], &request, 180);
    play.answer(PCSCF, 180);
    play.reply(AS[0], &request, 500);
    play.request(AS[0], "ACK");
    play.answer(PCSCF, 500);
}

/// TS 29.228 B.2.2: ServerName is a SIP URI.
#[test]
fn a_criterion_without_a_sip_uri_is_like_one_whose_server_fails() {
    let broken = |handling| criterion(0, 0, "x", handling).replace("sip:x", "tel:+1");
    let mut play = with_criteria(&[broken(CONTINUED)]);
    play.ask(PCSCF, &from_1("MESSAGE"));
    play.request(ICSCF, "MESSAGE");
    assert_eq!(play.bench.refusals("no-server"), 1);
    let mut play = with_criteria(&[broken(TERMINATED)]);
    play.ask(PCSCF, &from_1("MESSAGE"));
    play.refused(PCSCF, 500, "no-server");
    play.is_quiet();
}

/// TS 24.229 5.4.3.3: a changed Request-URI ends the terminating criteria; those after diversion begin (RFC 8498).
#[test]
fn who_is_called_elsewhere_by_a_server_has_diverted() {
    let mut play = with_criteria(&[
        criterion(0, 1, AS[0], CONTINUED),
        criterion(1, 1, AS[1], CONTINUED),
        criterion(2, 4, AS[2], CONTINUED),
    ]);
    play.ask(ICSCF, &to_1("INVITE"));
    let request = play.request(AS[0], "INVITE");
    play.pass_on(AS[0], &request, |m| {
        m.set_uri(&user(3));
        m.set(Name::HistoryInfo, format!("<{}>;index=1,<{}>;index=1.1", user(1), user(3)));
    });
    let diverted = play.request(AS[2], "INVITE");
    assert_eq!(lines(&diverted, Name::PServedUser), [format!("<sip:1@{DOMAIN}>;orig-cdiv")]);
    assert_eq!(diverted.uri(), user(3));
    play.pass_on(AS[2], &diverted, |_| {});
    let out = play.request(ICSCF, "INVITE");
    assert_eq!((out.uri(), lines(&out, Name::HistoryInfo).len()), (&*user(3), 1));
    assert_eq!(uris(&out, Name::RecordRoute)[0], format!("sip:mo@scscf.{DOMAIN}:6060;lr"));
}

/// TS 24.229 5.4.3.3: session cases 2 and 3.
#[test]
fn services_of_who_is_not_registered_are_reached() {
    let mut play = with_criteria(&[]);
    let mailbox = profile("9", &[criterion(0, 2, AS[0], CONTINUED), criterion(1, 3, AS[1], CONTINUED)].concat());
    play.ask(ICSCF, &to_user("INVITE", &user(9)));
    play.hss_gives(ResultCode::SUCCESS, Some(&mailbox));
    let request = play.request(AS[0], "INVITE");
    assert_eq!(lines(&request, Name::PServedUser), [format!("<sip:9@{DOMAIN}>;sescase=term;regstate=unreg")]);
    play.reply(AS[0], &request, 200);
    play.answer(ICSCF, 200);
    // And a server calls on behalf of it.
    let orig = from_ue("MESSAGE", "9", &user(1)).replacing("Route", &format!("Route: <{SCSCF};lr;orig>\n"));
    play.ask(AS[0], &orig);
    let request = play.request(AS[1], "MESSAGE");
    assert_eq!(lines(&request, Name::PServedUser), [format!("<sip:9@{DOMAIN}>;sescase=orig;regstate=unreg")]);
    play.pass_on(AS[1], &request, |_| {});
    let out = play.request(ICSCF, "MESSAGE");
    play.reply(ICSCF, &out, 200);
    play.answer(AS[1], 200);
    play.reply(AS[1], &request, 200);
    play.answer(AS[0], 200);
    play.is_quiet();
}

/// TS 29.228 6.2.1: a profile that the HSS changes meanwhile counts for the next request.
#[test]
fn a_chain_keeps_the_profile_that_it_began_with() {
    let criteria = [criterion(0, 0, AS[0], CONTINUED), criterion(1, 0, AS[1], CONTINUED)];
    let mut play = with_criteria(&criteria);
    play.ask(PCSCF, &from_1("MESSAGE"));
    let request = play.request(AS[0], "MESSAGE");
    let ppr = Ppr {
        impi: ims_core::Impi::parse(&format!("1@{DOMAIN}")).unwrap(),
        user_data: Some(profile("1", &criterion(0, 0, AS[4], CONTINUED)).into_bytes()),
        charging: None,
    };
    play.bench.hss_asks(&format!("scscf.{DOMAIN}"), ppr.to_message());
    play.pass_on(AS[0], &request, |_| {});
    play.request(AS[1], "MESSAGE");
    play.ask(PCSCF, &from_1("MESSAGE").cseq(2));
    play.request(AS[4], "MESSAGE");
}

/// RFC 3261 16.10: and nothing goes on behind the server that it ended.
#[test]
fn a_cancel_goes_along_the_chain() {
    let mut play = with_criteria(&[criterion(0, 0, AS[0], CONTINUED)]);
    let invite = from_1("INVITE");
    play.ask(PCSCF, &invite);
    let request = play.request(AS[0], "INVITE");
    play.reply(AS[0], &request, 100);
    play.again(PCSCF, "CANCEL", &invite);
    play.answer(PCSCF, 200);
    let cancel = play.request(AS[0], "CANCEL");
    play.reply(AS[0], &cancel, 200);
    // It does not care for the difference, and the caller is gone all the same.
    play.reply(AS[0], &request, 500);
    play.request(AS[0], "ACK");
    play.answer(PCSCF, 500);
    play.again(PCSCF, "ACK", &invite);
    assert_eq!(outcome(&play, "cancelled"), 1);
    play.is_quiet();
}

#[test]
fn what_servers_hold_is_bounded() {
    let mut play = Play::new(|c| c.limits.max_chains = 1);
    play.register("1", CONTACT, &profile("1", &criterion(0, 0, AS[0], CONTINUED)));
    play.ask(PCSCF, &from_1("MESSAGE"));
    let request = play.request(AS[0], "MESSAGE");
    play.ask(PCSCF, &from_1("MESSAGE").cseq(2));
    let full = play.answer(PCSCF, 503);
    assert!(full.has(Name::RetryAfter));
    assert_eq!(play.bench.refusals("full"), 1);
    play.reply(AS[0], &request, 200);
    play.answer(PCSCF, 200);
    play.is_quiet();
}

/// TS 29.228 B.2.1: SharedIFCSetID; a set that is not known here is told of, and the rest of the profile counts.
#[test]
fn criteria_of_a_shared_set_stand_among_those_of_the_profile() {
    let text = format!(
        "[[shared_ifc.sets]]\nid = 5\ncriteria = [{{ priority = 1, server = 'sip:{}', when = {{ case = 'originating' }} }}]",
        AS[1]
    );
    let read: scscf::Config = ims_core::config::parse("test", &text).unwrap();
    let mut play = Play::new(|config| config.shared_ifc = read.shared_ifc);
    let sets = "<Extension><SharedIFCSetID>5</SharedIFCSetID><SharedIFCSetID>6</SharedIFCSetID></Extension>".to_owned();
    let own = [criterion(0, 0, AS[0], CONTINUED), criterion(2, 0, AS[2], CONTINUED), sets];
    play.register("1", CONTACT, &profile("1", &own.concat()));
    assert_eq!(play.bench.refusals("ifc-unknown-set"), 1);
    play.ask(PCSCF, &from_1("INVITE"));
    for server in &AS[..3] {
        let request = play.request(server, "INVITE");
        play.pass_on(server, &request, |_| {});
    }
    play.request(ICSCF, "INVITE");
}

/// RFC 5502 6: an application server says for whom it speaks, a UE does not.
#[test]
fn a_ue_cannot_say_for_whom_it_speaks() {
    let mut play = with_criteria(&[]);
    play.ask(PCSCF, &from_1("MESSAGE").with(&format!("P-Served-User: <{}>\n", user(9))));
    play.bench.nothing_asked();
    let out = play.request(ICSCF, "MESSAGE");
    assert_eq!(lines(&out, Name::PAssertedIdentity), [format!("<sip:1@{DOMAIN}>"), "<tel:+15551>".into()]);
    assert!(!out.has(Name::PServedUser));
    play.reply(ICSCF, &out, 202);
    play.answer(PCSCF, 202);
    play.is_quiet();
}
