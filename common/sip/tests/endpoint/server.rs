//! Requests that come in: RFC 3261 17.2, 18.2, RFC 3581, RFC 6026.

use crate::lab::{CORE, GM, Lab, PEER, PHONE, addr, config, header, tcp, text, udp, what};
use ims_core::{Flow, FlowError};
use ims_sip::endpoint::ClientFailure;
use ims_sip::{Name, SipEvent};

const VIA: &str = "SIP/2.0/UDP 10.0.0.9:5062;branch=z9hG4bKone";

#[test]
fn a_repeated_request_is_absorbed_and_gets_the_last_answer_again() {
    let mut lab = Lab::new();
    let flow = udp(GM, PHONE);
    let (tx, request) = lab.request(flow, text("REGISTER", VIA, ""));
    assert!(lab.receive(flow, text("REGISTER", VIA, "")).is_empty());
    assert!(lab.sent().is_empty(), "nothing has been answered yet");
    lab.answer(tx, &request, 200);
    let first = lab.sent_one();
    assert!(lab.receive(flow, text("REGISTER", VIA, "")).is_empty());
    let second = lab.sent_one();
    assert_eq!(first.message.to_bytes(), second.message.to_bytes());
    assert_eq!((second.what().as_str(), second.flow), ("200 REGISTER", flow));
    lab.assert_quiet_after(128_000);
}

#[test]
fn after_timer_j_the_same_bytes_are_a_new_request() {
    let mut lab = Lab::new();
    let flow = udp(CORE, PEER);
    let (tx, request) = lab.request(flow, text("OPTIONS", VIA, ""));
    lab.answer(tx, &request, 200);
    lab.pass(32_001);
    let (again, _) = lab.request(flow, text("OPTIONS", VIA, ""));
    assert_ne!(tx, again);
}

#[test]
fn received_is_set_when_sent_by_is_not_the_source() {
    let mut lab = Lab::new();
    let via = "SIP/2.0/UDP phone.invalid:5099;branch=z9hG4bKone;received=1.2.3.4";
    let (tx, request) = lab.request(udp(GM, "10.0.0.9:40000"), text("REGISTER", via, ""));
    assert_eq!(
        header(&request, Name::Via),
        "SIP/2.0/UDP phone.invalid:5099;branch=z9hG4bKone;received=10.0.0.9",
        "what the sender claims is replaced"
    );
    lab.answer(tx, &request, 200);
    assert_eq!(lab.sent_one().flow, udp(GM, "10.0.0.9:5099"), "without rport: to the port of sent-by");
}

#[test]
fn without_a_port_in_sent_by_answers_go_to_5060() {
    let mut lab = Lab::new();
    let (tx, request) =
        lab.request(udp(GM, "10.0.0.9:40000"), text("REGISTER", "SIP/2.0/UDP 10.0.0.9;branch=z9hG4bKa", ""));
    assert_eq!(header(&request, Name::Via), "SIP/2.0/UDP 10.0.0.9;branch=z9hG4bKa");
    lab.answer(tx, &request, 200);
    assert_eq!(lab.sent_one().flow, udp(GM, "10.0.0.9:5060"));
}

#[test]
fn rport_is_filled_in_and_followed() {
    let mut lab = Lab::new();
    let via = "SIP/2.0/UDP 192.168.0.2:5060;rport;branch=z9hG4bKone";
    let flow = udp(GM, "10.0.0.9:40000");
    let (tx, request) = lab.request(flow, text("REGISTER", via, ""));
    let noted = "SIP/2.0/UDP 192.168.0.2:5060;branch=z9hG4bKone;received=10.0.0.9;rport=40000";
    assert_eq!(header(&request, Name::Via), noted);
    lab.answer(tx, &request, 200);
    assert_eq!(lab.sent_one().flow, flow);
}

#[test]
fn ipv6_received_and_rport() {
    let mut lab = Lab::new();
    let flow = udp("[2001:db8::1]:5060", "[2001:db8::9]:40000");
    let via = "SIP/2.0/UDP [2001:db8::9]:5062;branch=z9hG4bKone";
    let (tx, request) = lab.request(flow, text("REGISTER", via, ""));
    assert_eq!(header(&request, Name::Via), via, "sent-by is the source, however it is spelled");
    lab.answer(tx, &request, 200);
    assert_eq!(lab.sent_one().flow, udp("[2001:db8::1]:5060", "[2001:db8::9]:5062"));
    let (tx, request) = lab.request(flow, text("REGISTER", "SIP/2.0/UDP [::1];rport;branch=z9hG4bKtwo", ""));
    assert_eq!(header(&request, Name::Via), "SIP/2.0/UDP [::1];branch=z9hG4bKtwo;received=2001:db8::9;rport=40000");
    lab.answer(tx, &request, 200);
    assert_eq!(lab.sent_one().flow, flow);
}

#[test]
fn transactions_are_told_apart_by_branch_sent_by_and_method() {
    let mut lab = Lab::new();
    let flow = udp(CORE, PEER);
    lab.request(flow, text("OPTIONS", "SIP/2.0/UDP a.example;branch=z9hG4bKone", ""));
    lab.request(flow, text("OPTIONS", "SIP/2.0/UDP a.example;branch=z9hG4bKtwo", ""));
    lab.request(flow, text("OPTIONS", "SIP/2.0/UDP b.example;branch=z9hG4bKone", ""));
    lab.request(flow, text("MESSAGE", "SIP/2.0/UDP a.example;branch=z9hG4bKone", ""));
    assert!(lab.receive(flow, text("OPTIONS", "SIP/2.0/UDP A.Example:5060;branch=z9hG4bKone", "")).is_empty());
}

#[test]
fn rfc_2543_requests_are_matched_by_their_other_parts() {
    let mut lab = Lab::new();
    let flow = udp(CORE, PEER);
    for via in ["SIP/2.0/UDP a.example;branch=1", "SIP/2.0/UDP a.example"] {
        let (tx, request) = lab.request(flow, text("INVITE", via, ""));
        assert!(lab.receive(flow, text("INVITE", via, "")).is_empty(), "{via}");
        lab.request(flow, text("INVITE", via, "").replace("call-1", "call-2"));
        lab.request(flow, text("INVITE", via, "").replace("CSeq: 7", "CSeq: 8"));
        lab.answer(tx, &request, 486);
        assert!(lab.receive(flow, text("ACK", via, "")).is_empty(), "the ACK is absorbed");
    }
    let (events, _) =
        (lab.receive(flow, text("CANCEL", "SIP/2.0/UDP a.example", "").replace("CSeq: 7", "CSeq: 8")), ());
    assert!(matches!(events.as_slice(), [SipEvent::Cancel { .. }]), "{events:?}");
}

#[test]
fn an_invite_that_nobody_answers_gets_100_after_200_ms() {
    let mut lab = Lab::new();
    let flow = udp(GM, PHONE);
    let (tx, request) = lab.request(flow, text("INVITE", VIA, ""));
    let (seen, _) = lab.watch(5_000);
    assert_eq!(seen, [(200, "100 INVITE".to_owned())]);
    lab.receive(flow, text("INVITE", VIA, ""));
    assert_eq!(lab.sent_one().what(), "100 INVITE", "repeated on request");
    lab.answer(tx, &request, 180);
    lab.receive(flow, text("INVITE", VIA, ""));
    assert_eq!(lab.sent().iter().map(|s| s.what()).collect::<Vec<_>>(), ["180 INVITE", "180 INVITE"]);
}

#[test]
fn a_prompt_answer_makes_100_needless_and_other_methods_never_get_it() {
    let mut lab = Lab::new();
    let (tx, request) = lab.request(udp(GM, PHONE), text("INVITE", VIA, ""));
    lab.answer(tx, &request, 183);
    lab.request(udp(GM, PHONE), text("MESSAGE", VIA, ""));
    lab.sent();
    assert_eq!(lab.watch(10_000).0, []);
}

#[test]
fn an_error_to_an_invite_is_repeated_until_the_ack_with_the_timers_of_the_leg() {
    let mut lab = Lab::new();
    for (flow, times, via) in [
        (udp(CORE, PEER), [500, 1500, 3500, 7500], "SIP/2.0/UDP a;branch=z9hG4bKa"),
        (udp(GM, PHONE), [2000, 6000, 14000, 30000], VIA),
    ] {
        let start = lab.ms();
        let (tx, request) = lab.request(flow, text("INVITE", via, ""));
        lab.answer(tx, &request, 486);
        lab.sent();
        let (seen, _) = lab.watch(times[3] + 100);
        assert_eq!(seen.iter().map(|(ms, _)| ms - start).collect::<Vec<_>>(), times);
        assert!(lab.receive(flow, text("ACK", via, "")).is_empty());
        assert!(lab.receive(flow, text("ACK", via, "")).is_empty(), "repeated ACKs are absorbed");
        assert_eq!(lab.watch(60_000).0, []);
        assert!(lab.endpoint.is_quiet());
    }
}

#[test]
fn an_ack_is_matched_by_the_branch_alone_when_it_comes_from_the_same_address() {
    let mut lab = Lab::new();
    let (tx, request) = lab.request(udp(GM, PHONE), text("INVITE", VIA, ""));
    lab.answer(tx, &request, 486);
    let other = text("ACK", "SIP/2.0/UDP 10.0.0.9:7777;branch=z9hG4bKone", "");
    let events = lab.receive(udp(GM, "10.0.0.66:5062"), other.clone());
    assert!(matches!(events.as_slice(), [SipEvent::Ack { .. }]), "a stranger: {events:?}");
    assert!(lab.receive(udp(GM, PHONE), other).is_empty());
    lab.assert_quiet_after(17_000);
}

#[test]
fn an_error_that_is_never_acknowledged_is_told() {
    let mut lab = Lab::new();
    let (tx, request) = lab.request(udp(CORE, PEER), text("INVITE", VIA, ""));
    lab.answer(tx, &request, 500);
    let (_, events) = lab.watch(32_000);
    let told =
        matches!(events.as_slice(), [SipEvent::Undelivered { tx: t, cause: ClientFailure::Timeout }] if *t == tx);
    assert!(told, "{events:?}");
    lab.assert_quiet_after(0);
}

#[test]
fn after_a_2xx_repeated_invites_are_absorbed_and_the_ack_passes() {
    let mut lab = Lab::new();
    let flow = udp(CORE, PEER);
    let (tx, request) = lab.request(flow, text("INVITE", VIA, ""));
    lab.answer(tx, &request, 200);
    lab.answer(tx, &request, 200);
    assert_eq!(lab.sent().len(), 2, "2xx of the node all pass (RFC 6026)");
    assert!(lab.receive(flow, text("INVITE", VIA, "")).is_empty());
    assert!(lab.sent().is_empty());
    for via in ["SIP/2.0/UDP 10.0.0.9:5062;branch=z9hG4bKack", VIA] {
        let events = lab.receive(flow, text("ACK", via, ""));
        assert!(matches!(events.as_slice(), [SipEvent::Ack { .. }]), "{via} {events:?}");
    }
    lab.answer(tx, &request, 486);
    assert!(lab.sent().is_empty(), "no error after a 2xx");
    lab.assert_quiet_after(32_000);
}

#[test]
fn over_tcp_answers_return_on_the_connection_and_nothing_is_repeated() {
    let mut lab = Lab::new();
    let flow = tcp(CORE, "127.0.0.2:40000", 3);
    let (tx, request) = lab.request(flow, text("INVITE", "SIP/2.0/TCP 127.0.0.2:6060;branch=z9hG4bKone", ""));
    lab.answer(tx, &request, 486);
    assert_eq!(lab.sent_one().flow, flow);
    assert_eq!(lab.watch(10_000).0, []);
    lab.receive(flow, text("ACK", "SIP/2.0/TCP 127.0.0.2:6060;branch=z9hG4bKone", ""));
    lab.assert_quiet_after(0);
}

#[test]
fn when_the_connection_is_gone_the_answer_opens_one_to_sent_by() {
    let via = "SIP/2.0/TCP peer.example:6060;branch=z9hG4bKone";
    let back = Flow::tcp(addr("127.0.0.1:0"), addr("127.0.0.2:6060"));
    let mut lab = Lab::new();
    let (tx, request) = lab.request(tcp(CORE, "127.0.0.2:40000", 3), text("REGISTER", via, ""));
    lab.closed(3);
    lab.answer(tx, &request, 200);
    assert_eq!(lab.sent_one().flow, back);
    lab.assert_quiet_after(500);

    let (tx, request) = lab.request(tcp(CORE, "127.0.0.2:40000", 4), text("REGISTER", via, ""));
    lab.answer(tx, &request, 200);
    let sent = lab.sent_one();
    assert!(lab.failed(&sent, FlowError::Closed).is_empty());
    let again = lab.sent_one();
    assert_eq!(again.flow, back);
    assert!(lab.failed(&sent, FlowError::Closed).is_empty(), "an old failure is no news");
    let events = lab.failed(&again, FlowError::Refused);
    let lost = ClientFailure::Transport(FlowError::Refused);
    assert!(matches!(events.as_slice(), [SipEvent::Undelivered { tx: t, cause }] if *t == tx && *cause == lost));
    assert!(lab.endpoint.is_quiet());
}

#[test]
fn towards_a_ue_no_connection_is_opened_but_where_the_node_says() {
    let mut lab = Lab::new();
    let via = "SIP/2.0/TCP 10.0.0.9:6101;branch=z9hG4bKone";
    let inside = Flow::tcp(addr("10.0.0.1:6101"), addr("10.0.0.9:6101"));
    let (tx, request) = lab.request(tcp("10.0.0.1:6100", "10.0.0.9:40000", 3), text("REGISTER", via, ""));
    lab.answer(tx, &request, 200);
    let sent = lab.sent_one();
    assert!(matches!(lab.failed(&sent, FlowError::Closed).as_slice(), [SipEvent::Undelivered { .. }]));
    let (tx, request) = lab.request(tcp("10.0.0.1:6100", "10.0.0.9:40000", 4), text("REGISTER", via, ""));
    lab.endpoint.set_reply_flow(tx, inside);
    lab.answer(tx, &request, 100);
    assert_eq!(lab.sent_one().flow.conn, Some(ims_core::ConnId(4)), "as long as it is there, on the connection");
    lab.closed(4);
    lab.answer(tx, &request, 200);
    assert_eq!(lab.sent_one().flow, inside);
    lab.assert_quiet_after(2_000);
}

#[test]
fn a_client_that_repeats_itself_on_a_new_connection_is_answered_there() {
    let mut lab = Lab::new();
    let via = "SIP/2.0/TCP 10.0.0.9:5062;branch=z9hG4bKone";
    let (tx, request) = lab.request(tcp(GM, "10.0.0.9:40000", 3), text("REGISTER", via, ""));
    lab.closed(3);
    assert!(lab.receive(tcp(GM, "10.0.0.9:40001", 4), text("REGISTER", via, "")).is_empty());
    lab.answer(tx, &request, 200);
    assert_eq!(lab.sent_one().flow, tcp(GM, "10.0.0.9:40001", 4));
    lab.assert_quiet_after(2_000);
}

#[test]
fn the_reply_flow_of_the_node_holds_for_repetitions_too() {
    let mut lab = Lab::new();
    let (arrived, inside) = (udp("10.0.0.1:6100", "10.0.0.9:6101"), udp("10.0.0.1:6101", "10.0.0.9:6102"));
    let (tx, request) = lab.request(arrived, text("REGISTER", VIA, ""));
    lab.endpoint.set_reply_flow(tx, inside);
    lab.answer(tx, &request, 200);
    lab.receive(arrived, text("REGISTER", VIA, ""));
    assert_eq!(lab.sent().iter().map(|s| s.flow).collect::<Vec<_>>(), [inside, inside]);
}

#[test]
fn a_datagram_that_could_not_be_delivered_is_told_but_a_full_queue_is_only_loss() {
    let mut lab = Lab::new();
    let (tx, request) = lab.request(udp(GM, PHONE), text("REGISTER", VIA, ""));
    lab.answer(tx, &request, 200);
    let sent = lab.sent_one();
    assert!(lab.failed(&sent, FlowError::QueueFull).is_empty());
    assert!(matches!(lab.failed(&sent, FlowError::Unreachable).as_slice(), [SipEvent::Undelivered { .. }]));
    assert!(lab.failed(&sent, FlowError::Unreachable).is_empty());
    lab.assert_quiet_after(0);
}

#[test]
fn over_the_limit_requests_are_refused_without_a_transaction() {
    let mut config = config();
    config.max_transactions = 2;
    let mut lab = Lab::with(config);
    let flow = udp(CORE, PEER);
    let via = |n: u32| format!("SIP/2.0/UDP 127.0.0.2:6060;branch=z9hG4bK{n}");
    let (tx, request) = lab.request(flow, text("OPTIONS", &via(1), ""));
    lab.request(flow, text("INVITE", &via(2), ""));
    for _ in 0..2 {
        let events = lab.receive(flow, text("OPTIONS", &via(3), ""));
        assert!(matches!(events.as_slice(), [SipEvent::Refused { status: 503, .. }]), "{events:?}");
    }
    let sent = lab.sent();
    assert!(sent.iter().all(|s| s.what() == "503 OPTIONS" && s.message.has(Name::RetryAfter)));
    assert_eq!(sent[0].header(Name::To), sent[1].header(Name::To), "the same answer to the same request");
    assert!(lab.receive(flow, text("OPTIONS", &via(1), "")).is_empty(), "who is in stays in");
    lab.answer(tx, &request, 200);
    assert_eq!(lab.sent_one().what(), "200 OPTIONS");
    let (_, request) = lab.request(flow, text("OPTIONS", &via(4), ""));
    assert_eq!(what(&request), "OPTIONS", "what is answered makes room");
}

#[test]
fn transactions_that_are_over_are_kept_within_bounds_the_oldest_going_first() {
    let mut config = config();
    config.max_transactions = 5;
    let mut lab = Lab::with(config);
    let flow = udp(CORE, PEER);
    let via = |n: u32| format!("SIP/2.0/UDP 127.0.0.2:6060;branch=z9hG4bK{n}");
    for n in 0..100 {
        let (tx, request) = lab.request(flow, text("OPTIONS", &via(n), ""));
        lab.answer(tx, &request, 200);
    }
    assert_eq!(lab.endpoint.snapshot()["transactions"]["server"], 10);
    lab.sent();
    lab.receive(flow, text("OPTIONS", &via(99), ""));
    assert_eq!(lab.sent_one().what(), "200 OPTIONS", "the youngest still absorb");
    lab.assert_quiet_after(32_000);
}

#[test]
fn a_node_that_never_answers_does_not_leak() {
    let mut lab = Lab::new();
    lab.request(udp(CORE, PEER), text("OPTIONS", VIA, ""));
    lab.request(udp(CORE, PEER), text("INVITE", VIA, ""));
    let (_, events) = lab.watch(700_000);
    assert_eq!(events.iter().filter(|e| matches!(e, SipEvent::Undelivered { .. })).count(), 2);
    lab.assert_quiet_after(0);
}
