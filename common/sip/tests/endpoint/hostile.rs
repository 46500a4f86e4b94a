//! What must not hurt: broken, forged and endless input.

use crate::lab::{CORE, GM, Lab, PEER, PHONE, tcp, text, udp, uri};
use bytes::Bytes;
use ims_core::Rng;
use ims_sip::{Name, SipEvent};

const VIA: &str = "SIP/2.0/UDP 10.0.0.9:5062;branch=z9hG4bKone";

#[test]
fn a_malformed_request_is_answered_400_without_a_transaction() {
    let mut lab = Lab::new();
    let broken = text("OPTIONS", VIA, "").replace("CSeq: 7 OPTIONS", "CSeq: 7 MESSAGE");
    let events = lab.receive(udp(GM, PHONE), broken);
    assert!(matches!(events.as_slice(), [SipEvent::Refused { status: 400, .. }]), "{events:?}");
    let sent = lab.sent_one();
    assert_eq!(sent.message.status(), 400);
    assert_eq!(sent.flow, udp(GM, PHONE));
    lab.assert_quiet_after(0);
}

#[test]
fn what_cannot_be_answered_is_only_counted() {
    let mut lab = Lab::new();
    for broken in [
        text("OPTIONS", "", ""),
        text("OPTIONS", "nonsense", ""),
        text("OPTIONS", VIA, "").replace("Call-ID: call-1\r\n", ""),
        text("ACK", VIA, "").replace("CSeq: 7 ACK", "CSeq: 7 INVITE"),
        "garbage\r\n\r\n".to_owned(),
        String::new(),
    ] {
        let events = lab.receive(udp(GM, PHONE), broken.clone());
        assert!(matches!(events.as_slice(), [SipEvent::Refused { .. }]), "{broken} {events:?}");
        assert!(lab.sent().is_empty(), "{broken}");
    }
    lab.assert_quiet_after(0);
}

#[test]
fn refusals_are_told_a_few_times_a_second_and_all_counted() {
    let mut lab = Lab::new();
    let told: usize = (0..500).map(|_| lab.receive(udp(GM, PHONE), "garbage\r\n\r\n").len()).sum();
    assert_eq!(told, 10);
    assert_eq!(lab.endpoint.snapshot()["refused"]["400"], 500);
    lab.pass(1_000);
    assert_eq!(lab.receive(udp(GM, PHONE), "garbage\r\n\r\n").len(), 1);
}

#[test]
fn methods_nobody_knows_do_not_grow_the_counters() {
    let mut lab = Lab::new();
    for n in 0..100 {
        lab.receive(udp(GM, PHONE), text(&format!("M{n}"), &format!("{VIA}{n}"), ""));
    }
    assert_eq!(lab.endpoint.snapshot()["received"], serde_json::json!({ "other": 100 }));
}

#[test]
fn random_bytes_and_mutilated_messages_neither_panic_nor_stay() {
    let mut rng = Rng::from_u64(42);
    let mut lab = Lab::new();
    lab.send(&text("INVITE", VIA, ""), uri("sip:127.0.0.2:6060"));
    let ours = lab.sent_one();
    let reply = ims_sip::Message::response(&ours.message, 180, Some("t")).to_bytes().to_vec();
    let seeds = [
        text("INVITE", "SIP/2.0/UDP [2001:db8::9]:5062;rport;branch=z9hG4bKone;x=\"a;b\"", "Route: <sip:a;lr>\r\n")
            .into_bytes(),
        text("ACK", VIA, "").into_bytes(),
        text("CANCEL", VIA, "").into_bytes(),
        text("REGISTER", "SIP/2.0/TCP host;branch=1", "Expires: 5\r\n").into_bytes(),
        reply,
    ];
    for round in 0..20_000u64 {
        let mut bytes = seeds[usize::try_from(rng.below(5)).unwrap()].clone();
        for _ in 0..rng.below(6) {
            let at = usize::try_from(rng.below(bytes.len().max(1) as u64)).unwrap();
            match rng.below(4) {
                _ if bytes.is_empty() => {}
                0 => bytes[at] = rng.bytes::<1>()[0],
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, b"\r\n;:<>@,= \"\0\xff"[usize::try_from(rng.below(13)).unwrap()]),
                _ => bytes.truncate(at.max(1)),
            }
        }
        if round % 50 == 0 {
            bytes = rng.bytes::<40>().to_vec();
        }
        let flow = if rng.below(2) == 0 { udp(GM, PHONE) } else { tcp(CORE, PEER, rng.below(5)) };
        for event in lab.receive(flow, Bytes::from(bytes)) {
            // Some are answered, some are not.
            if let (SipEvent::Request { tx, message, .. }, true) = (event, rng.below(2) == 0) {
                lab.answer(tx, &message, [100, 180, 200, 404][usize::try_from(rng.below(4)).unwrap()]);
            }
        }
        if rng.below(10) == 0 {
            lab.closed(rng.below(5));
            lab.pass(rng.below(3_000));
        }
        lab.sent();
    }
    lab.pass(2_000_000);
    lab.sent();
    lab.assert_quiet_after(0);
}

#[test]
fn answers_cannot_be_injected_into_headers_by_a_via() {
    let mut lab = Lab::new();
    let via = "SIP/2.0/UDP 1.2.3.4;rport=1\"2;branch=z9hG4bKone;x=\"y\\\"z\"";
    for event in lab.receive(udp(GM, PHONE), text("OPTIONS", via, "")) {
        if let SipEvent::Request { tx, message, .. } = event {
            lab.answer(tx, &message, 200);
        }
    }
    for sent in lab.sent() {
        assert!(!sent.header(Name::Via).contains('\r'));
    }
}
