//! Finding servers and moving from one to the next (RFC 3263, RFC 3261 16.7 item 6).

use crate::lab::{CORE, Lab, addr, config, text, udp, uri, with_hops};
use ims_core::dns::{DnsError, DnsQuery, DnsRecord};
use ims_core::{Flow, FlowError, RequestId};
use ims_sip::SipEvent;
use ims_sip::endpoint::ClientFailure;

fn address(ip: &str) -> Result<Vec<DnsRecord>, DnsError> {
    Ok(vec![DnsRecord::Address(ip.parse().unwrap())])
}

fn srv(priority: u16, target: &str) -> DnsRecord {
    DnsRecord::Srv { priority, weight: 0, port: 5060, target: target.into() }
}

/// A request to a domain with two servers, both found, the first one tried.
fn two_servers() -> Lab {
    let mut lab = Lab::new();
    lab.send(&text("REGISTER", "", ""), uri("sip:d.example;transport=udp"));
    let [(id, DnsQuery::Srv(_))] = lab.questions()[..] else { panic!() };
    assert!(lab.dns(id, Ok(vec![srv(2, "b"), srv(1, "a")])));
    for (id, query) in lab.questions() {
        lab.dns(id, address(if query == DnsQuery::Address("a".into()) { "127.0.1.1" } else { "127.0.1.2" }));
    }
    lab
}

fn first() -> Flow {
    udp(CORE, "127.0.1.1:5060")
}

fn second() -> Flow {
    udp(CORE, "127.0.1.2:5060")
}

#[test]
fn a_transport_error_moves_on_to_the_next_server() {
    let mut lab = two_servers();
    let sent = lab.sent_one();
    assert_eq!(sent.flow, first());
    assert!(lab.failed(&sent, FlowError::Refused).is_empty());
    let again = lab.sent_one();
    assert_eq!(again.flow, second());
    assert_ne!(again.branch(), sent.branch(), "another target, another branch");
    assert!(matches!(lab.answered(&again, 200).as_slice(), [SipEvent::Response { .. }]));
    lab.assert_quiet_after(5_000);
}

#[test]
fn silence_moves_on_and_the_last_failure_is_told() {
    let mut lab = two_servers();
    assert_eq!(lab.sent_one().flow, first());
    assert!(lab.pass(31_900).is_empty());
    lab.sent();
    assert!(lab.pass(100).is_empty());
    assert_eq!(lab.sent_one().flow, second());
    let events = lab.pass(32_000);
    assert!(matches!(events.as_slice(), [SipEvent::Failed { cause: ClientFailure::Timeout, .. }]), "{events:?}");
    lab.assert_quiet_after(0);
}

#[test]
fn a_503_moves_on_and_the_last_503_is_delivered() {
    let mut lab = two_servers();
    let sent = lab.sent_one();
    assert!(lab.answered(&sent, 503).is_empty());
    let again = lab.sent_one();
    assert_eq!(again.flow, second());
    assert!(lab.answered(&sent, 503).is_empty(), "a repeated 503 of the first is absorbed");
    let events = lab.answered(&again, 503);
    assert!(matches!(events.as_slice(), [SipEvent::Response { message, .. }] if message.status() == 503));
    lab.assert_quiet_after(5_000);
}

#[test]
fn a_server_that_failed_is_tried_last_for_a_while() {
    let mut lab = two_servers();
    let sent = lab.sent_one();
    lab.failed(&sent, FlowError::Unreachable);
    lab.sent();
    // Ten seconds and up to a quarter more.
    for (wait, flow) in [(9_900, second()), (2_601, first())] {
        lab.pass(wait);
        lab.sent();
        lab.send(&text("OPTIONS", "", ""), uri("sip:d.example;transport=udp"));
        if lab.endpoint.snapshot()["location"]["questions"] != 0 {
            // The answers have been forgotten in the meantime: the same again.
            for (id, _) in lab.questions() {
                lab.dns(id, Ok(vec![srv(2, "b"), srv(1, "a")]));
            }
            for (id, query) in lab.questions() {
                lab.dns(id, address(if query == DnsQuery::Address("a".into()) { "127.0.1.1" } else { "127.0.1.2" }));
            }
        }
        assert_eq!(lab.sent().last().unwrap().flow, flow);
    }
}

#[test]
fn an_invite_refused_with_503_is_acknowledged_before_it_moves_on() {
    let mut lab = Lab::with(with_hops(&[("home.example", &["udp:127.0.1.1:5060", "udp:127.0.1.2:5060"])]));
    let tx = lab.send(&text("INVITE", "", ""), uri("sip:home.example"));
    let invite = lab.sent_one();
    assert!(lab.answered(&invite, 503).is_empty());
    let sent = lab.sent();
    assert_eq!(
        sent.iter().map(|s| (s.what(), s.flow)).collect::<Vec<_>>(),
        [("ACK".to_owned(), first()), ("INVITE".to_owned(), second())]
    );
    assert!(lab.answered(&invite, 503).is_empty());
    assert_eq!(lab.sent_one().what(), "ACK", "the first one is acknowledged again");
    let events = lab.answered(&sent[1], 200);
    assert!(matches!(events.as_slice(), [SipEvent::Response { tx: t, .. }] if *t == tx));
    lab.assert_quiet_after(33_000);
}

#[test]
fn a_cancelled_invite_goes_to_no_further_server() {
    let mut lab = Lab::with(with_hops(&[("home.example", &["udp:127.0.1.1:5060", "udp:127.0.1.2:5060"])]));
    let tx = lab.send(&text("INVITE", "", ""), uri("sip:home.example"));
    let invite = lab.sent_one();
    lab.go(|endpoint, ctx| endpoint.cancel(tx, "", ctx));
    let events = lab.failed(&invite, FlowError::Refused);
    assert!(matches!(events.as_slice(), [SipEvent::Failed { .. }]), "{events:?}");
    assert!(lab.sent().is_empty());
    lab.assert_quiet_after(0);
}

#[test]
fn a_server_that_said_trying_is_not_left_for_another_at_timeout() {
    let mut lab = two_servers();
    let sent = lab.sent_one();
    lab.answered(&sent, 100);
    let events = lab.pass(32_000);
    assert!(matches!(events.as_slice(), [SipEvent::Failed { cause: ClientFailure::Timeout, .. }]), "{events:?}");
    assert!(lab.sent().iter().all(|s| s.flow == first()));
}

#[test]
fn a_hop_that_is_a_name_is_resolved_once_for_a_while() {
    let mut lab = Lab::with(with_hops(&[("home.example", &["udp:scscf:6060"])]));
    lab.send(&text("REGISTER", "", ""), uri("sip:home.example"));
    lab.send(&text("REGISTER", "", ""), uri("sip:home.example"));
    let questions = lab.questions();
    assert_eq!(questions.len(), 1);
    assert!(questions[0].0.0 >= 1 << 63);
    assert!(lab.dns(questions[0].0, address("127.0.0.7")));
    let flows: Vec<Flow> = lab.sent().iter().map(|s| s.flow).collect();
    assert_eq!(flows, [udp(CORE, "127.0.0.7:6060"); 2]);
    lab.send(&text("REGISTER", "", ""), uri("sip:home.example"));
    assert!(lab.questions().is_empty());
    assert_eq!(lab.sent_one().flow, flows[0]);
}

#[test]
fn dns_that_stays_silent_fails_the_request_in_time() {
    let mut lab = Lab::new();
    let tx = lab.send(&text("REGISTER", "", ""), uri("sip:d.example"));
    let (id, _) = lab.questions()[0];
    assert!(!lab.endpoint.is_quiet());
    let events = lab.pass(5_000);
    let cause = ClientFailure::NoTarget(DnsError::Unavailable);
    assert!(matches!(events.as_slice(), [SipEvent::Failed { tx: t, cause: c }] if *t == tx && *c == cause));
    lab.assert_quiet_after(0);
    assert!(lab.dns(id, address("127.0.0.7")), "a late answer is ours, and harmless");
    assert!(lab.sent().is_empty());
    assert!(!lab.dns(RequestId(7), address("127.0.0.7")), "not ours");
}

#[test]
fn a_name_that_does_not_exist_fails_the_request() {
    let mut lab = Lab::new();
    lab.send(&text("REGISTER", "", ""), uri("sip:d.example:5060"));
    let (id, _) = lab.questions()[0];
    lab.dns(id, Err(DnsError::NoSuchName));
    let events = lab.events();
    let cause = ClientFailure::NoTarget(DnsError::NoSuchName);
    assert!(matches!(events.as_slice(), [SipEvent::Failed { cause: c, .. }] if *c == cause), "{events:?}");
    lab.assert_quiet_after(0);
}

#[test]
fn a_request_cancelled_while_dns_is_asked_is_over() {
    let mut lab = Lab::new();
    let tx = lab.send(&text("INVITE", "", ""), uri("sip:d.example:5060"));
    lab.go(|endpoint, ctx| endpoint.cancel(tx, "", ctx));
    assert!(matches!(lab.events().as_slice(), [SipEvent::Failed { .. }]));
    lab.assert_quiet_after(0);
}

#[test]
fn an_ipv6_endpoint_finds_ipv6_servers() {
    let mut config = config();
    config.local = addr("[::1]:5070");
    let mut lab = Lab::with(config);
    lab.send(&text("REGISTER", "", ""), uri("sip:d.example:5060"));
    let (id, _) = lab.questions()[0];
    let both = ["127.0.0.7", "2001:db8::7"].map(|ip| DnsRecord::Address(ip.parse().unwrap()));
    lab.dns(id, Ok(both.to_vec()));
    assert_eq!(lab.sent_one().flow, udp("[::1]:5070", "[2001:db8::7]:5060"));
}

#[test]
fn an_ack_waits_for_dns_too() {
    let mut lab = Lab::new();
    let ack = ims_sip::Message::parse(text("ACK", "", "").into()).unwrap();
    lab.go(|endpoint, ctx| endpoint.send_ack(ack, uri("sip:d.example:5060"), ctx));
    let (id, _) = lab.questions()[0];
    lab.dns(id, address("127.0.0.7"));
    assert_eq!(lab.sent_one().what(), "ACK");
    lab.assert_quiet_after(0);
}
