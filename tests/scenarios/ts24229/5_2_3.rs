//! The P-CSCF's own subscription to registration state (TS 24.229 5.2.3), with the S-CSCF that tells it.

use ims_sip::{Message, Name};

use ims_tests::{Lab, LabConfig, Phone};
use serde_json::{Value, json};
use std::time::Duration;

fn config() -> LabConfig {
    let mut config = LabConfig { handsets: 0, ..LabConfig::default() };
    config.pcscf.subscribe_reg_event = true;
    config
}

fn subscribe(phone: &Phone) -> String {
    let (host, port, user) = (phone.host(), phone.port_us, ims_tests::lab::imsi(phone.number));
    let domain = ims_tests::lab::DOMAIN;
    let number = ims_tests::lab::msisdn(phone.number);
    format!(
        "SUBSCRIBE sip:{number}@{domain} SIP/2.0\r\nVia: SIP/2.0/{} {host}:{port};branch=z9hG4bKsub\r\nMax-Forwards: 70\r\n\
         From: <sip:{number}@{domain}>;tag=s\r\nTo: <sip:{number}@{domain}>\r\nCall-ID: sub-{user}\r\nCSeq: 1 SUBSCRIBE\r\n\
         Contact: <sip:{user}@{host}:{port}>\r\nEvent: reg\r\nExpires: 600000\r\nSecurity-Verify: {}\r\nContent-Length: 0\r\n\r\n",
        phone.transport.token(),
        phone.verify
    )
}

/// Answers what the network asks, and gives it.
fn take(phone: &mut Phone, lab: &mut Lab) -> Message {
    let (_, request) = phone.next(lab);
    assert!(request.is_request(), "{request:?}");
    let answer = Message::response(&request, 200, None).to_bytes();
    phone.send(lab, &String::from_utf8_lossy(&answer));
    request
}

/// An operator ends a registration: the handset hears it inside its SA, and answers there; then nothing of it is left.
#[test]
fn what_an_operator_ends_is_ended_everywhere_down_to_the_sas() {
    let mut lab = Lab::new(config());
    let mut phone = Phone::new(&mut lab, 0);
    phone.attach(&mut lab);
    lab.world.run_for(Duration::from_secs(2));
    assert_eq!(lab.world.snapshot(lab.pcscf)["subscriptions"], 1);
    let text = subscribe(&phone);
    assert_eq!(phone.ask(&mut lab, &text).status(), 200);
    let first = take(&mut phone, &mut lab);
    assert_eq!((first.method().as_str(), first.text(Name::Event)), ("NOTIFY", Some("reg")));
    lab.world.run_for(Duration::from_secs(2));

    let impi = ims_tests::lab::impi(0);
    let ended = lab.world.ask(lab.scscf, "deregister", json!({ "impi": impi })).unwrap();
    assert_eq!(ended["deregistered"].as_array().map(Vec::len), Some(1));
    let last = take(&mut phone, &mut lab);
    assert!(last.text(Name::SubscriptionState).unwrap().starts_with("terminated"));
    assert!(String::from_utf8_lossy(last.body()).contains("event=\"deactivated\""));
    lab.world.run_for(Duration::from_secs(5));
    assert_eq!((lab.registered_at_pcscf(), lab.registered_at_scscf()), (0, 0));
    assert_eq!(lab.refusals(lab.pcscf, "ended-by-network"), 1);
    assert_eq!(lab.world.sa_sets(lab.pcscf), 1, "they carry what is still under way");
    crate::support::assert_nothing_left(&mut lab);
}

/// The handset that is told so registers anew at once, over the SAs that linger.
#[test]
fn a_handset_that_comes_back_at_once_is_registered_again() {
    let mut lab = Lab::new(config());
    let mut phone = Phone::new(&mut lab, 0);
    phone.attach(&mut lab);
    lab.world.run_for(Duration::from_secs(2));
    lab.world.ask(lab.scscf, "deregister", json!({ "impi": ims_tests::lab::impi(0) })).unwrap();
    lab.world.run_for(Duration::from_secs(2));
    assert_eq!(lab.registered_at_pcscf(), 0);
    phone.renew();
    phone.answer_again();
    let text = phone.register(&phone.sec_agree());
    let answer = phone.ask(&mut lab, &text);
    if answer.status() == 401 {
        phone.accept(&mut lab, &answer);
        let text = phone.register(&phone.sec_agree());
        assert_eq!(phone.ask(&mut lab, &text).status(), 200);
    } else {
        assert_eq!(answer.status(), 200);
    }
    lab.world.run_for(Duration::from_secs(200));
    assert_eq!((lab.registered_at_pcscf(), lab.registered_at_scscf()), (1, 1));
    assert_eq!(lab.world.snapshot(lab.pcscf)["subscriptions"], 1);
    assert!(lab.world.sa_sets(lab.pcscf) >= 1);
}

/// A subscription is no burden to a registration that ends by itself.
#[test]
fn a_registration_that_the_handset_ends_leaves_no_subscription() {
    let mut lab = Lab::new(LabConfig { handsets: 1, ..config() });
    lab.register(0).unwrap();
    lab.world.run_for(Duration::from_secs(2));
    assert_eq!(lab.world.snapshot(lab.scscf)["subscriptions"], 1);
    lab.tell(0, "deregister", Value::Null).unwrap();
    lab.rest();
    assert_eq!(lab.world.snapshot(lab.scscf)["subscriptions"], 0);
    assert_eq!(lab.world.snapshot(lab.pcscf)["subscriptions"], 0);
    assert_eq!(lab.refusals(lab.pcscf, "reg-event-unreadable"), 0);
    lab.assert_no_faults();
}
