//! Response contexts of a stateful proxy over a real endpoint: RFC 3261 16.7 to 16.10, RFC 6026.

use crate::lab::{CORE, Lab, PEER, Sent, text, udp, uri, with_hops};
use ims_core::FlowError;
use ims_sip::endpoint::{ClientTx, ServerTx};
use ims_sip::{Message, Name, Relay, Relayed, SipEvent};
use std::time::Duration;

const CALLER: &str = "127.0.0.9:5060";
const VIA: &str = "SIP/2.0/UDP 127.0.0.9:5060;branch=z9hG4bKcaller";

/// A proxy that forks by hand, and notes what its relay says.
struct Proxy {
    lab: Lab,
    relay: Relay<&'static str>,
    tx: ServerTx,
    request: Message,
}

impl Proxy {
    fn take(method: &str) -> Self {
        let mut lab = Lab::with(with_hops(&[]));
        let (tx, request) = lab.request(udp(CORE, CALLER), text(method, VIA, ""));
        let mut relay = Relay::new(Duration::from_secs(32));
        relay.open(tx, request.clone(), "state");
        lab.sent();
        Self { lab, relay, tx, request }
    }

    fn fork(&mut self, host: &str) -> (ClientTx, Sent) {
        let client =
            self.lab.send(&String::from_utf8_lossy(&self.request.to_bytes()), uri(&format!("sip:{host}:6060")));
        self.relay.branch(self.tx, client);
        (client, self.lab.sent_one())
    }

    fn two() -> (Self, Sent, Sent) {
        let mut proxy = Self::take("INVITE");
        let (_, one) = proxy.fork("127.0.0.2");
        let (_, two) = proxy.fork("127.0.0.3");
        (proxy, one, two)
    }

    fn tell(&mut self, events: Vec<SipEvent>) -> Vec<String> {
        let mut said = Vec::new();
        for event in events {
            let relay = &mut self.relay;
            let relayed = match event {
                SipEvent::Response { tx, message, .. } => {
                    self.lab.go(|sip, ctx| relay.on_response(tx, message, sip, ctx))
                }
                SipEvent::Failed { tx, cause } => self.lab.go(|_, ctx| relay.on_failed(tx, cause, ctx)),
                SipEvent::Cancel { invite, message, .. } => {
                    self.lab.go(|sip, ctx| relay.on_cancel(invite, &message, sip, ctx))
                }
                other => panic!("{other:?}"),
            };
            said.push(self.on_relayed(relayed));
        }
        said
    }

    fn on_relayed(&mut self, relayed: Relayed) -> String {
        match relayed {
            Relayed::Pass { to, response } => {
                let status = response.status();
                assert_eq!((to, self.relay.with(to)), (self.tx, Some(&"state")));
                self.lab.go(|sip, ctx| sip.respond(to, response, ctx));
                format!("pass {status}")
            }
            Relayed::Exhausted { to } => {
                assert_eq!(to, self.tx);
                "exhausted".into()
            }
            Relayed::Nothing => "nothing".into(),
        }
    }

    fn says(&mut self, sent: &Sent, status: u16) -> String {
        let events = self.lab.answered(sent, status);
        self.tell(events).join(",")
    }

    fn settled(&mut self) -> u16 {
        let (passage, best) = self.relay.settle(self.tx).expect("an answer");
        assert_eq!(passage.with, "state");
        let status = best.status();
        self.lab.go(|sip, ctx| sip.respond(self.tx, best, ctx));
        status
    }

    fn sent(&mut self) -> Vec<String> {
        self.lab.sent().iter().map(|s| format!("{} to {}", s.what(), s.flow.remote)).collect()
    }

    fn cancel(&mut self, extra: &str) -> Vec<String> {
        let text = text("CANCEL", VIA, extra);
        let events = self.lab.receive(udp(CORE, CALLER), text);
        self.tell(events)
    }

    fn assert_quiet(&mut self) {
        self.lab.pass(200_000);
        self.relay.on_timeout(self.lab.now);
        assert!(self.relay.is_quiet() && self.relay.deadline().is_none(), "{:?}", self.relay);
    }
}

#[test]
fn provisional_answers_pass_and_100_does_not() {
    let (mut proxy, one, two) = Proxy::two();
    assert_eq!(proxy.says(&one, 100), "nothing");
    assert_eq!(proxy.says(&one, 180), "pass 180");
    assert_eq!(proxy.says(&two, 183), "pass 183");
    let expected = [format!("180 INVITE to {CALLER}"), format!("183 INVITE to {CALLER}")];
    assert_eq!(proxy.sent(), expected);
}

#[test]
fn a_2xx_passes_at_once_with_its_repetitions_and_the_others_are_cancelled() {
    let (mut proxy, one, two) = Proxy::two();
    proxy.says(&one, 180);
    proxy.says(&two, 180);
    proxy.sent();
    assert_eq!(proxy.says(&one, 200), "pass 200");
    let sent = proxy.lab.sent();
    let cancel = sent.iter().find(|s| s.what() == "CANCEL").expect("a CANCEL");
    assert_eq!(cancel.flow.remote, two.flow.remote);
    assert_eq!(cancel.header(Name::Reason), "SIP;cause=200;text=\"Call completed elsewhere\"");
    assert_eq!(proxy.says(&two, 487), "nothing");
    assert_eq!(proxy.says(&one, 200), "pass 200", "the callee has not seen the ACK");
    assert!(proxy.relay.get(proxy.tx).is_none() && !proxy.relay.is_quiet());
    proxy.assert_quiet();
}

#[test]
fn two_that_answer_at_once_are_both_heard() {
    let (mut proxy, one, two) = Proxy::two();
    assert_eq!(proxy.says(&one, 200), "pass 200");
    assert_eq!(proxy.says(&two, 200), "pass 200");
    proxy.assert_quiet();
}

#[test]
fn the_best_answer_goes_back_when_all_have_answered() {
    for (first, second, best) in [
        (486, 404, 486),
        (408, 486, 486),
        (404, 302, 302),
        (500, 503, 500),
        (480, 401, 401),
        (503, 503, 500),
        (486, 603, 603),
    ] {
        let (mut proxy, one, two) = Proxy::two();
        assert_eq!(proxy.says(&one, first), "nothing");
        assert_eq!(proxy.says(&two, second), "exhausted");
        assert_eq!(proxy.settled(), best, "{first} {second}");
        proxy.assert_quiet();
    }
}

#[test]
fn a_6xx_ends_the_search() {
    let (mut proxy, one, two) = Proxy::two();
    proxy.says(&two, 180);
    proxy.sent();
    assert_eq!(proxy.says(&one, 603), "nothing");
    assert!(proxy.sent().contains(&format!("CANCEL to {}", two.flow.remote)));
    assert_eq!(proxy.says(&two, 487), "exhausted");
    assert_eq!(proxy.settled(), 603);
    proxy.assert_quiet();
}

#[test]
fn after_a_failure_another_target_may_be_tried() {
    let mut proxy = Proxy::take("INVITE");
    let (_, one) = proxy.fork("127.0.0.2");
    let events = proxy.lab.failed(&one, FlowError::Refused);
    assert_eq!(proxy.tell(events), ["exhausted"]);
    assert_eq!(proxy.relay.get(proxy.tx).and_then(|p| p.best()), Some(503));
    let (_, two) = proxy.fork("127.0.0.3");
    assert_eq!(proxy.says(&two, 200), "pass 200");
    proxy.assert_quiet();
}

#[test]
fn silence_is_408_and_our_own_503_stays_one() {
    let mut proxy = Proxy::take("MESSAGE");
    proxy.fork("127.0.0.2");
    let events = proxy.lab.pass(40_000);
    assert_eq!(proxy.tell(events), ["exhausted"]);
    assert_eq!(proxy.settled(), 408);
    let mut proxy = Proxy::take("MESSAGE");
    let (_, one) = proxy.fork("127.0.0.2");
    let events = proxy.lab.failed(&one, FlowError::Refused);
    assert_eq!(proxy.tell(events), ["exhausted"]);
    let (passage, best) = proxy.relay.settle(proxy.tx).expect("an answer");
    assert!(passage.cause.is_some() && best.status() == 503);
    proxy.assert_quiet();
}

#[test]
fn a_cancel_goes_to_all_who_ring_with_its_reason() {
    let (mut proxy, one, two) = Proxy::two();
    proxy.says(&one, 180);
    proxy.says(&two, 100);
    proxy.sent();
    assert_eq!(proxy.cancel("Reason: SIP;cause=487\r\n"), ["nothing"]);
    let sent = proxy.lab.sent();
    let cancels: Vec<_> = sent.iter().filter(|s| s.what() == "CANCEL").collect();
    assert_eq!(cancels.len(), 2);
    assert!(cancels.iter().all(|c| c.header(Name::Reason) == "SIP;cause=487"));
    assert_eq!(proxy.says(&one, 487), "nothing");
    assert_eq!(proxy.says(&two, 487), "exhausted");
    assert_eq!(proxy.settled(), 487);
    proxy.assert_quiet();
}

#[test]
fn a_cancel_before_any_branch_is_487() {
    let mut proxy = Proxy::take("INVITE");
    assert_eq!(proxy.cancel(""), ["exhausted"]);
    assert!(proxy.relay.get(proxy.tx).is_some_and(|p| p.is_cancelled()));
    assert_eq!(proxy.settled(), 487);
    assert!(proxy.relay.get(proxy.tx).is_none(), "who asked the HSS for it finds nothing");
    proxy.assert_quiet();
}

#[test]
fn a_cancelled_branch_that_says_nothing_any_more_is_487() {
    let mut proxy = Proxy::take("INVITE");
    let (_, one) = proxy.fork("127.0.0.2");
    proxy.says(&one, 180);
    proxy.cancel("");
    let events = proxy.lab.pass(60_000);
    assert_eq!(proxy.tell(events), ["exhausted"]);
    assert_eq!(proxy.settled(), 487);
    proxy.assert_quiet();
}

#[test]
fn what_is_abandoned_is_cancelled_and_says_nothing_any_more() {
    let mut proxy = Proxy::take("INVITE");
    let (_, one) = proxy.fork("127.0.0.2");
    proxy.says(&one, 180);
    proxy.sent();
    let (relay, tx) = (&mut proxy.relay, proxy.tx);
    proxy.lab.go(|sip, ctx| relay.abandon(tx, "", sip, ctx));
    assert_eq!(proxy.sent(), [format!("CANCEL to {PEER}")]);
    assert_eq!(proxy.says(&one, 487), "nothing");
    assert_eq!(proxy.sent(), [format!("ACK to {PEER}")]);
    let (_, two) = proxy.fork("127.0.0.3");
    assert_eq!(proxy.says(&two, 200), "pass 200");
    proxy.assert_quiet();
}

#[test]
fn challenges_of_all_branches_go_back_together() {
    let (mut proxy, one, two) = Proxy::two();
    for (sent, realm) in [(&one, "a"), (&two, "b")] {
        let mut answer = Message::response(&sent.message, 407, Some("t"));
        answer.set(Name::ProxyAuthenticate, format!("Digest realm=\"{realm}\", nonce=\"n\""));
        let events = proxy.lab.receive(sent.flow, answer.to_bytes());
        proxy.tell(events);
    }
    let (_, best) = proxy.relay.settle(proxy.tx).expect("an answer");
    assert_eq!(best.raw(Name::ProxyAuthenticate).count(), 2);
    proxy.assert_quiet();
}
