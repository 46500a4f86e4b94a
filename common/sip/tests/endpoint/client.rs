//! Requests that we send: RFC 3261 17.1, 18.1, 9.1 and RFC 6026.

use crate::lab::{CORE, GM, Lab, PEER, PHONE, Sent, addr, config, text, udp, uri, what};
use ims_core::{Flow, FlowError, Transport};
use ims_sip::endpoint::{ClientFailure, Destination, Leg};
use ims_sip::{Message, Name, SipEvent};

const TO_PEER: &str = "sip:127.0.0.2:6060";
const THEIR_VIA: &str = "SIP/2.0/UDP 10.0.0.9:5062;branch=z9hG4bKtheirs";

fn whats(sent: &[Sent]) -> Vec<String> {
    sent.iter().map(Sent::what).collect()
}

fn to_phone() -> Destination {
    Destination::Flow { flow: udp(GM, PHONE), sent_by: "10.0.0.1:6100".into(), leg: Leg::Ue }
}

/// The statuses that were delivered.
fn statuses(events: &[SipEvent]) -> Vec<u16> {
    events
        .iter()
        .map(|event| match event {
            SipEvent::Response { message, .. } => message.status(),
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn our_via_goes_on_top_and_comes_off_the_answer() {
    let mut lab = Lab::new();
    let tx = lab.send(&text("REGISTER", THEIR_VIA, ""), uri(TO_PEER));
    let sent = lab.sent_one();
    assert_eq!(sent.flow, udp(CORE, PEER));
    let vias = sent.header(Name::Via);
    assert!(vias.starts_with("SIP/2.0/UDP pcscf.example:5070;branch=z9hG4bK"), "{vias}");
    assert!(vias.ends_with(THEIR_VIA), "{vias}");
    let events = lab.answered(&sent, 200);
    let [SipEvent::Response { tx: answered, message, .. }] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((*answered, what(message).as_str()), (tx, "200 REGISTER"));
    assert_eq!(crate::lab::header(message, Name::Via), THEIR_VIA);
    assert!(lab.answered(&sent, 200).is_empty(), "a repeated answer is absorbed");
    lab.assert_quiet_after(5_000);
}

#[test]
fn a_request_is_repeated_by_timer_e_and_given_up_by_timer_f() {
    let mut lab = Lab::new();
    let tx = lab.send(&text("REGISTER", "", ""), uri(TO_PEER));
    let first = lab.sent_one();
    lab.pass(500);
    let again = lab.sent_one();
    assert_eq!(first.message.to_bytes(), again.message.to_bytes());
    let (seen, events) = lab.watch(40_000);
    assert_eq!(seen.iter().map(|(ms, _)| *ms).collect::<Vec<_>>()[..4], [1500, 3500, 7500, 11500]);
    let failed = matches!(events.as_slice(), [SipEvent::Failed { tx: t, cause: ClientFailure::Timeout }] if *t == tx);
    assert!(failed, "{events:?}");
    lab.assert_quiet_after(0);
}

#[test]
fn towards_a_ue_timers_are_longer_and_the_flow_is_the_one_given() {
    let mut lab = Lab::new();
    lab.send(&text("NOTIFY", "", ""), to_phone());
    let sent = lab.sent_one();
    assert_eq!(sent.flow, udp(GM, PHONE));
    assert!(sent.header(Name::Via).starts_with("SIP/2.0/UDP 10.0.0.1:6100;branch="), "{}", sent.header(Name::Via));
    assert!(!sent.header(Name::Via).contains("rport"), "answers come to the server port, not to the client port");
    let (seen, events) = lab.watch(128_000);
    assert_eq!(seen.iter().map(|(ms, _)| *ms).collect::<Vec<_>>()[..4], [2000, 6000, 14000, 30000]);
    assert_eq!(events.len(), 1);
}

#[test]
fn over_tcp_nothing_is_repeated_and_timer_k_is_zero() {
    let mut lab = Lab::new();
    lab.send(&text("REGISTER", "", ""), uri("sip:127.0.0.2:6060;transport=tcp"));
    let sent = lab.sent_one();
    assert_eq!(sent.flow, Flow::tcp(addr("127.0.0.1:0"), addr(PEER)));
    assert!(sent.header(Name::Via).starts_with("SIP/2.0/TCP "));
    assert_eq!(lab.watch(31_000).0, []);
    assert_eq!(statuses(&lab.answered(&sent, 200)), [200]);
    lab.assert_quiet_after(0);
}

#[test]
fn provisional_answers_are_delivered_in_order() {
    let mut lab = Lab::new();
    lab.send(&text("INVITE", "", ""), uri(TO_PEER));
    let sent = lab.sent_one();
    let all: Vec<u16> = [100, 183, 180, 200].into_iter().flat_map(|s| statuses(&lab.answered(&sent, s))).collect();
    assert_eq!(all, [100, 183, 180, 200]);
    assert_eq!(lab.watch(3_000).0, [], "no repetition after a provisional answer");
}

#[test]
fn an_error_to_an_invite_is_acknowledged_by_the_transaction() {
    let mut lab = Lab::new();
    lab.send(&text("INVITE", THEIR_VIA, "Route: <sip:s.example;lr>\r\nRoute: <sip:t.example;lr>\r\n"), uri(TO_PEER));
    let invite = lab.sent_one();
    assert_eq!(statuses(&lab.answered(&invite, 486)), [486]);
    let ack = lab.sent_one();
    assert_eq!((ack.what().as_str(), ack.flow), ("ACK", invite.flow));
    assert_eq!(ack.message.uri(), invite.message.uri());
    assert_eq!(ack.branch(), invite.branch());
    assert_eq!(ack.message.raw(Name::Via).count(), 1, "a single Via (RFC 3261 17.1.1.3)");
    assert_eq!(ack.header(Name::Route), "<sip:s.example;lr> | <sip:t.example;lr>");
    assert_eq!(ack.header(Name::CSeq), "7 ACK");
    assert_eq!(ack.header(Name::To), "<sip:a@home.example>;tag=theirtag");
    assert!(lab.answered(&invite, 486).is_empty());
    assert_eq!(lab.sent_one().message.to_bytes(), ack.message.to_bytes(), "each repetition is acknowledged");
    lab.assert_quiet_after(32_000);
}

#[test]
fn every_2xx_to_an_invite_is_delivered_and_none_acknowledged() {
    let mut lab = Lab::new();
    let tx = lab.send(&text("INVITE", "", ""), uri(TO_PEER));
    let invite = lab.sent_one();
    for _ in 0..3 {
        let events = lab.answered(&invite, 200);
        assert!(matches!(events.as_slice(), [SipEvent::Response { tx: t, .. }] if *t == tx), "{events:?}");
        lab.pass(1_000);
    }
    assert!(lab.sent().is_empty());
    lab.assert_quiet_after(32_000);
    let late = lab.answered(&invite, 200);
    let [SipEvent::Stray { message, .. }] = late.as_slice() else { panic!("{late:?}") };
    assert!(!message.has(Name::Via), "a late 2xx comes without our Via");
    assert!(lab.answered(&invite, 486).is_empty(), "late errors are dropped");
}

#[test]
fn a_cancel_waits_for_a_provisional_answer() {
    let mut lab = Lab::new();
    let tx = lab.send(&text("INVITE", THEIR_VIA, "Route: <sip:s.example;lr>\r\n"), uri(TO_PEER));
    let invite = lab.sent_one();
    lab.go(|endpoint, ctx| endpoint.cancel(tx, "", ctx));
    assert!(lab.sent().is_empty());
    assert_eq!(statuses(&lab.answered(&invite, 100)), [100]);
    let cancel = lab.sent_one();
    assert_eq!((cancel.what().as_str(), cancel.message.uri()), ("CANCEL", invite.message.uri()));
    assert_eq!(cancel.branch(), invite.branch());
    assert_eq!(cancel.header(Name::Route), "<sip:s.example;lr>");
    assert_eq!((cancel.header(Name::CSeq), cancel.header(Name::To)), ("7 CANCEL".into(), invite.header(Name::To)));
    lab.go(|endpoint, ctx| endpoint.cancel(tx, "", ctx));
    assert!(lab.sent().is_empty(), "once is enough");
    lab.pass(500);
    assert_eq!(lab.sent_one().what(), "CANCEL", "repeated like any request");
    assert!(lab.answered(&cancel, 200).is_empty(), "the answer to the CANCEL is nobody's business");
    assert_eq!(statuses(&lab.answered(&invite, 487)), [487]);
    assert_eq!(lab.sent_one().what(), "ACK");
    lab.assert_quiet_after(32_000);
}

#[test]
fn a_cancel_that_crosses_a_200_leaves_the_200() {
    let mut lab = Lab::new();
    let tx = lab.send(&text("INVITE", "", ""), uri(TO_PEER));
    let invite = lab.sent_one();
    lab.answered(&invite, 180);
    lab.go(|endpoint, ctx| endpoint.cancel(tx, "", ctx));
    let cancel = lab.sent_one();
    assert_eq!(statuses(&lab.answered(&invite, 200)), [200]);
    assert!(lab.answered(&cancel, 481).is_empty());
    lab.go(|endpoint, ctx| endpoint.cancel(tx, "", ctx));
    assert!(lab.sent().is_empty(), "nothing is left to cancel");
    lab.assert_quiet_after(32_000);
}

#[test]
fn a_cancelled_invite_that_stays_silent_ends_after_64_t1() {
    let mut lab = Lab::new();
    let tx = lab.send(&text("INVITE", "", ""), uri(TO_PEER));
    let invite = lab.sent_one();
    lab.answered(&invite, 180);
    lab.go(|endpoint, ctx| endpoint.cancel(tx, "", ctx));
    let (_, events) = lab.watch(32_000);
    assert!(matches!(events.as_slice(), [SipEvent::Failed { cause: ClientFailure::Timeout, .. }]), "{events:?}");
    lab.assert_quiet_after(0);
}

#[test]
fn an_invite_that_rings_for_ever_is_cancelled_by_timer_c() {
    let mut lab = Lab::new();
    lab.send(&text("INVITE", "", ""), uri(TO_PEER));
    let invite = lab.sent_one();
    lab.answered(&invite, 180);
    let (seen, events) = lab.watch(191_000);
    assert_eq!(seen[0], (190_000, "CANCEL".to_owned()));
    assert!(events.is_empty());
    assert_eq!(statuses(&lab.answered(&invite, 487)), [487]);
    lab.assert_quiet_after(40_000);
}

#[test]
fn answers_of_others_and_to_others_are_dropped() {
    let mut lab = Lab::new();
    lab.send(&text("REGISTER", "", ""), uri(TO_PEER));
    let sent = lab.sent_one();
    let forge = |from: &str, to: &str| {
        let bytes = Message::response(&sent.message, 200, Some("x")).to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap().replace(from, to)
    };
    let branch = sent.branch();
    for text in [
        forge(&branch, "z9hG4bKguess"),
        forge(&branch, &format!("{}x", branch)),
        forge(&branch[..branch.len() - 1], &branch[..branch.len() - 2]),
        forge("7 REGISTER", "7 CANCEL"),
        forge("7 REGISTER", "7 INVITE"),
        forge(";branch=", ";xbranch="),
    ] {
        assert!(lab.receive(udp(CORE, PEER), text.clone()).is_empty(), "{text}");
    }
    assert_eq!(statuses(&lab.answered(&sent, 200)), [200]);
}

fn large(method: &str) -> String {
    text(method, "", &format!("X-Large: {}\r\n", "x".repeat(1300)))
}

#[test]
fn an_oversize_request_goes_by_tcp_and_back_to_udp_when_refused() {
    let mut lab = Lab::new();
    lab.send(&large("MESSAGE"), uri(TO_PEER));
    let over_tcp = lab.sent_one();
    assert_eq!(over_tcp.flow, Flow::tcp(addr("127.0.0.1:0"), addr(PEER)));
    assert!(over_tcp.header(Name::Via).starts_with("SIP/2.0/TCP "));
    assert!(lab.failed(&over_tcp, FlowError::Refused).is_empty());
    let over_udp = lab.sent_one();
    assert_eq!(over_udp.flow, udp(CORE, PEER));
    assert!(over_udp.header(Name::Via).starts_with("SIP/2.0/UDP "));
    assert_ne!(over_udp.branch(), over_tcp.branch());
    assert_eq!(statuses(&lab.answered(&over_udp, 200)), [200]);
    lab.assert_quiet_after(5_000);
}

#[test]
fn the_limit_is_configurable_and_that_of_the_ue_leg_is_another() {
    let mut config = config();
    config.udp_limit = 60_000;
    let mut lab = Lab::with(config);
    lab.send(&large("MESSAGE"), uri(TO_PEER));
    assert_eq!(lab.sent_one().flow.transport, Transport::Udp);
    lab.send(&large("MESSAGE"), to_phone());
    assert_eq!(lab.sent_one().flow.transport, Transport::Tcp);
}

#[test]
fn towards_a_ue_oversize_requests_keep_the_ports_of_the_sa() {
    let mut lab = Lab::new();
    let flow = udp("10.0.0.1:6101", "10.0.0.9:6102");
    let to = || Destination::Flow { flow, sent_by: "10.0.0.1:6100".into(), leg: Leg::Ue };
    lab.send(&large("NOTIFY"), to());
    let sent = lab.sent_one();
    assert_eq!(sent.flow, Flow::tcp(flow.local, flow.remote));
    assert!(lab.failed(&sent, FlowError::Refused).is_empty());
    assert_eq!(lab.sent_one().flow, flow);
    assert!(lab.failed(&sent, FlowError::Refused).is_empty(), "the failure of an attempt that is over");
}

#[test]
fn a_datagram_too_large_for_the_path_goes_by_tcp() {
    let mut lab = Lab::new();
    lab.send(&text("REGISTER", "", ""), uri(TO_PEER));
    let sent = lab.sent_one();
    assert!(lab.failed(&sent, FlowError::TooLarge).is_empty());
    assert_eq!(lab.sent_one().flow, Flow::tcp(addr("127.0.0.1:0"), addr(PEER)));
}

#[test]
fn a_transport_error_ends_a_request_but_a_full_queue_is_only_loss() {
    let mut lab = Lab::new();
    let tx = lab.send(&text("NOTIFY", "", ""), to_phone());
    let sent = lab.sent_one();
    assert!(lab.failed(&sent, FlowError::QueueFull).is_empty());
    let events = lab.failed(&sent, FlowError::Refused);
    let cause = ClientFailure::Transport(FlowError::Refused);
    assert!(matches!(events.as_slice(), [SipEvent::Failed { tx: t, cause: c }] if *t == tx && *c == cause));
    lab.assert_quiet_after(0);
}

#[test]
fn a_connection_that_closes_under_an_unanswered_request_fails_it() {
    let mut lab = Lab::new();
    let flow = crate::lab::tcp(GM, PHONE, 9);
    let to = || Destination::Flow { flow, sent_by: "10.0.0.1:6100".into(), leg: Leg::Ue };
    lab.send(&text("NOTIFY", "", ""), to());
    assert_eq!(lab.sent_one().flow, flow);
    let events = lab.closed(9);
    let cause = ClientFailure::Transport(FlowError::Closed);
    assert!(matches!(events.as_slice(), [SipEvent::Failed { cause: c, .. }] if *c == cause), "{events:?}");
    lab.send(&text("INVITE", "", ""), to());
    let invite = lab.sent_one();
    lab.answered(&invite, 180);
    assert!(lab.closed(9).is_empty(), "it rings: the answer may come on a new connection");
}

/// The shell tells of each request on a connection that ended; only the endpoint knows which were answered.
#[test]
fn a_request_on_a_kept_connection_that_closes_goes_out_once_more_on_a_new_one() {
    let mut lab = Lab::new();
    let tx = lab.send(&text("REGISTER", "", ""), uri("sip:127.0.0.2:5060;transport=tcp"));
    let first = lab.sent_one();
    assert!(lab.failed(&first, FlowError::Closed).is_empty());
    let again = lab.sent_one();
    assert_eq!((again.flow, again.tag), (first.flow, first.tag));
    assert_eq!(again.header(Name::Via), first.header(Name::Via), "the same branch");
    let events = lab.failed(&again, FlowError::Closed);
    let cause = ClientFailure::Transport(FlowError::Closed);
    assert!(matches!(events.as_slice(), [SipEvent::Failed { tx: t, cause: c }] if *t == tx && *c == cause), "once");

    lab.send(&text("REGISTER", "", ""), uri("sip:127.0.0.2:5060;transport=tcp"));
    let answered = lab.sent_one();
    lab.answered(&answered, 200);
    assert!(lab.failed(&answered, FlowError::Closed).is_empty());
    assert!(lab.sent().is_empty(), "it has its answer");
    lab.assert_quiet_after(0);
}

#[test]
fn over_the_limit_requests_fail_at_once() {
    let mut config = config();
    config.max_transactions = 1;
    let mut lab = Lab::with(config);
    lab.send(&text("OPTIONS", "", ""), uri(TO_PEER));
    let tx = lab.send(&text("OPTIONS", "", ""), uri(TO_PEER));
    let events = lab.events();
    assert!(matches!(events.as_slice(), [SipEvent::Failed { tx: t, cause: ClientFailure::Overloaded }] if *t == tx));
    assert_eq!(lab.sent().len(), 1);
}

#[test]
fn an_ack_to_a_2xx_has_a_branch_of_its_own_and_leaves_nothing_behind() {
    let mut lab = Lab::new();
    let message = Message::parse(text("ACK", THEIR_VIA, "").into()).unwrap();
    lab.go(|endpoint, ctx| endpoint.send_ack(message, uri(TO_PEER), ctx));
    let ack = lab.sent_one();
    assert_eq!((ack.what().as_str(), ack.flow, ack.tag.0), ("ACK", udp(CORE, PEER), 0));
    assert!(ack.header(Name::Via).contains(" | "), "ours and theirs");
    lab.assert_quiet_after(0);
}

#[test]
fn a_stray_response_is_sent_by_its_via() {
    let mut lab = Lab::new();
    for (via, flow) in [
        ("SIP/2.0/UDP x.example:7;branch=z9hG4bKa;received=127.0.0.3;rport=9", Some(udp(CORE, "127.0.0.3:9"))),
        ("SIP/2.0/UDP 127.0.0.3;branch=z9hG4bKa", Some(udp(CORE, "127.0.0.3:5060"))),
        ("SIP/2.0/TCP 127.0.0.3:7;branch=z9hG4bKa", Some(Flow::tcp(addr("127.0.0.1:0"), addr("127.0.0.3:7")))),
        ("SIP/2.0/UDP x.example;branch=z9hG4bKa", None),
        ("SIP/2.0/UDP 224.0.0.1;branch=z9hG4bKa", None),
        ("SIP/2.0/UDP [::1];branch=z9hG4bKa", None),
        // An answer to ourselves.
        ("", None),
    ] {
        let request = Message::parse(text("INVITE", via, "").into()).unwrap();
        let response = Message::response(&request, 200, Some("t"));
        lab.go(|endpoint, ctx| endpoint.forward_stray(response, ctx));
        assert_eq!(lab.sent().first().map(|s| s.flow), flow, "{via}");
    }
}

#[test]
fn the_snapshot_counts() {
    let mut lab = Lab::new();
    lab.send(&text("REGISTER", "", ""), uri(TO_PEER));
    let sent = lab.sent_one();
    lab.pass(500);
    lab.answered(&sent, 401);
    lab.answered(&sent, 401);
    let snapshot = lab.endpoint.snapshot();
    assert_eq!(snapshot["sent"]["REGISTER"], 1);
    assert_eq!(snapshot["received"]["REGISTER 401"], 2);
    assert_eq!(snapshot["retransmissions"], serde_json::json!({ "sent": 1, "received": 1 }));
    assert_eq!(
        snapshot["transactions"],
        serde_json::json!({ "server": 0, "client": 1, "requests": 0, "lingering": 1 })
    );
    assert_eq!(whats(&lab.sent()), ["REGISTER"]);
}
