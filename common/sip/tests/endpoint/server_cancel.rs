//! CANCEL at the server (RFC 3261 9.2), with what phones make of it.

use crate::lab::{CORE, GM, Lab, PEER, PHONE, Sent, text, udp};
use ims_core::Packet;
use ims_sip::{Name, SipEvent};

const VIA: &str = "SIP/2.0/UDP 10.0.0.9:5062;branch=z9hG4bKone";

fn whats(sent: &[Sent]) -> Vec<String> {
    sent.iter().map(Sent::what).collect()
}

#[test]
fn a_cancel_is_answered_and_told_and_the_487_ends_the_invite() {
    let mut lab = Lab::new();
    let flow = udp(GM, PHONE);
    let (tx, request) = lab.request(flow, text("INVITE", VIA, ""));
    lab.answer(tx, &request, 180);
    let ringing = lab.sent_one();
    let events = lab.receive(flow, text("CANCEL", VIA, ""));
    assert!(matches!(events.as_slice(), [SipEvent::Cancel { invite, .. }] if *invite == tx), "{events:?}");
    let ok = lab.sent_one();
    assert_eq!(ok.what(), "200 CANCEL");
    assert_eq!(ok.header(Name::To), ringing.header(Name::To), "RFC 3261 9.2: the same To tag");
    assert!(lab.receive(flow, text("CANCEL", VIA, "")).is_empty(), "a repeated CANCEL is not told");
    assert_eq!(whats(&lab.sent()), ["200 CANCEL"]);
    lab.answer(tx, &request, 487);
    lab.receive(flow, text("ACK", VIA, ""));
    assert_eq!(whats(&lab.sent()), ["487 INVITE"]);
    lab.assert_quiet_after(128_000);
}

#[test]
fn a_cancel_of_nothing_is_answered_481() {
    let mut lab = Lab::new();
    assert!(lab.receive(udp(CORE, PEER), text("CANCEL", VIA, "")).is_empty());
    assert_eq!(lab.sent_one().what(), "481 CANCEL");
    lab.assert_quiet_after(32_000);
}

#[test]
fn a_cancel_that_crosses_the_final_answer_changes_nothing() {
    for status in [200, 486] {
        let mut lab = Lab::new();
        let (tx, request) = lab.request(udp(CORE, PEER), text("INVITE", VIA, ""));
        lab.answer(tx, &request, status);
        lab.sent();
        assert!(lab.receive(udp(CORE, PEER), text("CANCEL", VIA, "")).is_empty());
        assert_eq!(lab.sent_one().what(), "200 CANCEL");
    }
}

#[test]
fn a_cancel_for_another_method_finds_no_invite() {
    let mut lab = Lab::new();
    lab.request(udp(CORE, PEER), text("OPTIONS", VIA, ""));
    assert!(lab.receive(udp(CORE, PEER), text("CANCEL", VIA, "")).is_empty());
    assert_eq!(lab.sent_one().what(), "481 CANCEL");
}

#[test]
fn a_phone_may_change_sent_by_and_route_in_its_cancel_but_a_stranger_may_not_cancel() {
    let mut lab = Lab::new();
    let (tx, _) = lab.request(udp(GM, PHONE), text("INVITE", VIA, "Route: <sip:p.example;lr>\r\n"));
    let cancel = text("CANCEL", "SIP/2.0/UDP 10.0.0.9:7000;branch=z9hG4bKone", "Route: <sip:s.example;lr>\r\n");
    assert!(lab.receive(udp(GM, "10.0.0.66:5062"), cancel.replace(":7000", ":7001")).is_empty());
    assert_eq!(lab.sent_one().what(), "481 CANCEL");
    let events = lab.receive(udp(GM, PHONE), cancel);
    assert!(matches!(events.as_slice(), [SipEvent::Cancel { invite, .. }] if *invite == tx), "{events:?}");
}

#[test]
fn inside_an_sa_the_answer_to_the_cancel_leaves_where_those_to_the_invite_do() {
    let mut lab = Lab::new();
    let (arrived, inside) = (udp("10.0.0.1:6100", "10.0.0.9:6101"), udp("10.0.0.1:6101", "10.0.0.9:6102"));
    let (tx, _) = lab.request(arrived, text("INVITE", VIA, ""));
    lab.endpoint.set_reply_flow(tx, inside);
    lab.receive(arrived, text("CANCEL", VIA, ""));
    assert_eq!(lab.sent_one().flow, inside);
}

#[test]
fn inside_an_sa_the_answers_that_the_endpoint_gives_by_itself_leave_outward_too() {
    let mut lab = Lab::new();
    let (arrived, inside) = (udp("10.0.0.1:6100", "10.0.0.9:6101"), udp("10.0.0.1:6101", "10.0.0.9:6102"));
    for message in [text("CANCEL", VIA, ""), text("OPTIONS", VIA, "").replace("7 OPTIONS", "7 BYE")] {
        let packet = Packet { flow: arrived, bytes: message.into() };
        lab.go(|endpoint, ctx| endpoint.on_protected_packet(packet, inside, ctx));
        assert_eq!(lab.sent_one().flow, inside);
    }
}

#[test]
fn a_branch_used_over_and_over_is_bounded() {
    let mut lab = Lab::new();
    for n in 0..8 {
        lab.request(udp(CORE, PEER), text("OPTIONS", &format!("SIP/2.0/UDP h{n};branch=z9hG4bKone"), ""));
    }
    let events = lab.receive(udp(CORE, PEER), text("OPTIONS", "SIP/2.0/UDP h9;branch=z9hG4bKone", ""));
    assert!(matches!(events.as_slice(), [SipEvent::Refused { status: 503, .. }]), "{events:?}");
}
