//! The P-CSCF's own subscription to registration state (TS 24.229 5.2.3).

mod common;

use common::{Bench, DOMAIN, Handset, Out};
use ims_core::{Flow, Node, Transport};
use ims_sip::{Message, Name};

fn bench() -> Bench {
    Bench::with(|config| {
        config.subscribe_reg_event = true;
        config.next_hops.insert("scscf.ims.example:6060".into(), vec!["udp:127.0.0.1:6060".into()]);
    })
}

fn mw() -> Flow {
    Flow::udp("127.0.0.1:5070".parse().unwrap(), "127.0.0.1:6060".parse().unwrap())
}

/// Attaches, and gives the SUBSCRIBE that comes with it.
fn attach(bench: &mut Bench, ue: &mut Handset) -> Message {
    let set = ue.get_challenged(bench);
    (ue.set, ue.nonce) = (Some(set), "bm9uY2U=".into());
    let request = ue.protected(bench, 600_000).forwarded();
    let out = bench.accept(&request, 3600);
    bench.kernel_agrees(&out);
    assert_eq!(out.ue[0].1.status(), 200, "the UE first");
    let path = request.text(Name::Path).unwrap().to_owned();
    let subscribe = out.core.into_iter().next().expect("a SUBSCRIBE");
    assert!(path.contains(subscribe.text(Name::PAssertedIdentity).unwrap().trim_matches(['<', '>'])), "{path}");
    subscribe
}

fn subscribed(bench: &mut Bench, subscribe: &Message, expires: u32) {
    let expires = expires.to_string();
    let lines = [("Expires", expires.as_str()), ("Contact", "<sip:reg-1@127.0.0.1:6060>")];
    assert!(bench.answer(subscribe, 200, &lines).is_silent());
}

fn notify(subscribe: &Message, n: u32, state: &str, body: &str) -> String {
    let header = |name| subscribe.text(name).unwrap();
    let contact = header(Name::Contact).trim_matches(['<', '>']);
    format!(
        "NOTIFY {contact} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:6060;branch=z9hG4bKn{n}\r\nMax-Forwards: 70\r\nFrom: {};tag=core\r\n\
         To: {}\r\nCall-ID: {}\r\nCSeq: {n} NOTIFY\r\nContact: <sip:reg-1@127.0.0.1:6060>\r\nEvent: reg\r\n\
         Subscription-State: {state}\r\nContent-Type: application/reginfo+xml\r\nContent-Length: {}\r\n\r\n{body}",
        header(Name::To),
        header(Name::From),
        header(Name::CallId),
        body.len()
    )
}

fn reginfo(version: u32, state: &str, event: &str) -> String {
    format!(
        "<?xml version=\"1.0\"?><reginfo xmlns=\"urn:ietf:params:xml:ns:reginfo\" version=\"{version}\" state=\"full\">\
         <registration aor=\"sip:001010000000001@{DOMAIN}\" id=\"a\" state=\"{state}\"><contact id=\"c\" state=\"{state}\" \
         event=\"{event}\"><uri>sip:001010000000001@198.51.100.7:50001</uri></contact></registration></reginfo>"
    )
}

fn status(out: Out) -> u16 {
    assert_eq!((out.core.len(), out.ue.len()), (1, 0), "{out:#?}");
    out.core[0].status()
}

#[test]
fn the_p_cscf_asks_for_the_default_identity_as_the_element_in_path() {
    let mut bench = bench();
    let mut ue = Handset::udp4();
    let subscribe = attach(&mut bench, &mut ue);
    let user = format!("sip:001010000000001@{DOMAIN}");
    assert_eq!((subscribe.uri(), subscribe.text(Name::To)), (user.as_str(), Some(format!("<{user}>").as_str())));
    assert_eq!((subscribe.text(Name::Event), subscribe.text(Name::Expires)), (Some("reg"), Some("4200")));
    assert!(subscribe.has(Name::PChargingVector));
    subscribed(&mut bench, &subscribe, 4200);
    assert_eq!(bench.node.snapshot()["subscriptions"], 1);
    assert_eq!(status(bench.packet(mw(), &notify(&subscribe, 1, "active", &reginfo(0, "active", "registered")))), 200);
    assert_eq!(bench.registrations().len(), 1);
    // The next REGISTER within the time that was granted needs no SUBSCRIBE, a later one refreshes it in its dialog.
    let mut refresh = |bench: &mut Bench| {
        let request = ue.protected(bench, 600_000).forwarded();
        let out = bench.accept(&request, 3600);
        bench.kernel_agrees(&out);
        out.core
    };
    assert!(refresh(&mut bench).is_empty());
    bench.pass(1800);
    let again = refresh(&mut bench).remove(0);
    assert_eq!(again.text(Name::CSeq), Some("2 SUBSCRIBE"));
    assert_eq!((again.text(Name::CallId), again.uri()), (subscribe.text(Name::CallId), "sip:reg-1@127.0.0.1:6060"));
}

/// 5.2.3: what the network ends is ended here, and the SAs go when the NOTIFY of the handset has passed.
#[test]
fn what_the_network_ends_is_ended_here_and_the_handset_still_hears_it() {
    for event in ["deactivated", "rejected"] {
        let mut bench = bench();
        let mut ue = Handset::udp4();
        let subscribe = attach(&mut bench, &mut ue);
        let set = ue.set.unwrap();
        subscribed(&mut bench, &subscribe, 4200);
        // The subscription of the handset itself.
        let text = "SUBSCRIBE sip:a@x SIP/2.0\r\nVia: SIP/2.0/UDP 198.51.100.7:50001;branch=z9hG4bKown\r\nMax-Forwards: 70\r\n\
             From: <sip:a@x>;tag=ue\r\nTo: <sip:a@x>\r\nCall-ID: own\r\nCSeq: 1 SUBSCRIBE\r\nEvent: reg\r\n\
             Contact: <sip:a@198.51.100.7:50001>\r\nContent-Length: 0\r\n\r\n";
        let own = bench.packet(ue.flow_of(&set), text).forwarded();
        let route = own.text(Name::RecordRoute).unwrap().to_owned();
        let body = reginfo(1, "terminated", event);
        let out = bench.packet(mw(), &notify(&subscribe, 2, "terminated;reason=noresource", &body));
        assert_eq!(status(out), 200);
        assert!(bench.registrations().is_empty());
        assert_eq!((bench.refused("ended-by-network"), &bench.node.snapshot()["subscriptions"]), (1, &0.into()));
        // Its own NOTIFY comes a moment later.
        let told = format!(
            "NOTIFY sip:a@198.51.100.7:50001 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:6060;branch=z9hG4bKto\r\nMax-Forwards: 70\r\n\
             Route: {route}\r\nFrom: <sip:a@x>;tag=core\r\nTo: <sip:a@x>;tag=ue\r\nCall-ID: own\r\nCSeq: 1 NOTIFY\r\nEvent: reg\r\n\
             Subscription-State: terminated\r\nContent-Length: 0\r\n\r\n"
        );
        let out = bench.packet(mw(), &told);
        let (flow, told) = &out.ue[0];
        assert_eq!(*flow, ue.answers_of(&set), "inside the SA");
        let ok = Message::response(told, 200, None);
        let flow = ue.flow_of(&set);
        let out = bench.handle(ims_core::Event::Sip(ims_core::Packet { flow, bytes: ok.to_bytes() }));
        assert_eq!(status(out), 200);
        assert_eq!(bench.pass(130).removed(), [set]);
        bench.assert_empty();
    }
}

#[test]
fn other_news_end_nothing() {
    let mut bench = bench();
    let mut ue = Handset::new(false, Transport::Tcp);
    let subscribe = attach(&mut bench, &mut ue);
    subscribed(&mut bench, &subscribe, 4200);
    for (n, body) in [
        (2, reginfo(5, "active", "refreshed")),
        (3, reginfo(6, "terminated", "unregistered")),
        (4, reginfo(7, "terminated", "deactivated").replace("198.51.100.7", "198.51.100.9")),
        (5, reginfo(3, "terminated", "deactivated")),
        (6, String::new()),
    ] {
        assert_eq!(status(bench.packet(mw(), &notify(&subscribe, n, "active;expires=100", &body))), 200);
        assert_eq!(bench.registrations().len(), 1, "{body}");
    }
    bench.packet(mw(), &notify(&subscribe, 7, "active", "<rubbish"));
    assert_eq!(bench.refused("reg-event-unreadable"), 1);
    let late = notify(&subscribe, 1, "active", &reginfo(9, "terminated", "deactivated"));
    assert_eq!(status(bench.packet(mw(), &late)), 400);
    let other = notify(&subscribe, 8, "active", "").replace("Event: reg", "Event: presence");
    assert_eq!(status(bench.packet(mw(), &other)), 400);
    let nobody = notify(&subscribe, 9, "active", "").replace("NOTIFY sip:reg-", "NOTIFY sip:reg-x");
    assert_eq!(status(bench.packet(mw(), &nobody)), 481);
    assert_eq!(bench.registrations().len(), 1);
}

#[test]
fn a_subscription_that_is_refused_is_tried_with_the_next_register_and_a_short_one_refreshed() {
    let mut bench = bench();
    let mut ue = Handset::udp4();
    let subscribe = attach(&mut bench, &mut ue);
    assert!(bench.answer(&subscribe, 403, &[]).is_silent());
    assert_eq!((bench.refused("reg-event-refused"), &bench.node.snapshot()["subscriptions"]), (1, &0.into()));
    let request = ue.protected(&mut bench, 600_000).forwarded();
    let out = bench.accept(&request, 3600);
    bench.kernel_agrees(&out);
    let subscribe = &out.core[0];
    subscribed(&mut bench, subscribe, 600);
    let out = bench.pass(560);
    let refresh = &out.core[0];
    assert_eq!(
        (refresh.text(Name::CSeq), refresh.text(Name::CallId)),
        (Some("2 SUBSCRIBE"), subscribe.text(Name::CallId))
    );
    let out = bench.pass(100);
    assert!(out.core.is_empty() || bench.refused("reg-event-refused") > 1);
    let request = ue.protected(&mut bench, 0).forwarded();
    let out = bench.accept(&request, 0);
    bench.kernel_agrees(&out);
    bench.assert_empty();
    assert_eq!(bench.node.snapshot()["subscriptions"], 0);
}

/// After a restart the Contact of the subscription says which registration is meant.
#[test]
fn a_notify_is_understood_after_a_restart() {
    let mut bench = bench();
    let mut ue = Handset::udp4();
    let subscribe = attach(&mut bench, &mut ue);
    subscribed(&mut bench, &subscribe, 4200);
    bench.restart();
    assert_eq!(bench.registrations().len(), 1);
    let out = bench.packet(mw(), &notify(&subscribe, 2, "active", &reginfo(4, "terminated", "deactivated")));
    assert_eq!(status(out), 200);
    assert!(bench.registrations().is_empty());
}

/// Without a subscription of its own, the P-CSCF hears what its handset is told: when the handset has answered that its
/// registration has ended, it has ended here, and its SAs go when the answer has had its time.
#[test]
fn what_the_handset_is_told_holds_here_too() {
    let mut bench = Bench::with(|config| {
        config.next_hops.insert("scscf.ims.example:6060".into(), vec!["udp:127.0.0.1:6060".into()]);
    });
    let mut ue = Handset::udp4();
    let set = ue.attach(&mut bench, 3600);
    let text = "SUBSCRIBE sip:a@x SIP/2.0\r\nVia: SIP/2.0/UDP 198.51.100.7:50001;branch=z9hG4bKown\r\nMax-Forwards: 70\r\n\
         From: <sip:a@x>;tag=ue\r\nTo: <sip:a@x>\r\nCall-ID: own\r\nCSeq: 1 SUBSCRIBE\r\nEvent: reg\r\n\
         Contact: <sip:a@198.51.100.7:50001>\r\nContent-Length: 0\r\n\r\n";
    let own = bench.packet(ue.flow_of(&set), text).forwarded();
    let route = own.text(Name::RecordRoute).unwrap().to_owned();
    for (n, package, event, still) in
        [(1, "reg", "refreshed", 1), (2, "presence", "deactivated", 1), (3, "reg", "deactivated", 0)]
    {
        let body = reginfo(n, if n == 1 { "active" } else { "terminated" }, event);
        let told = format!(
            "NOTIFY sip:a@198.51.100.7:50001 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:6060;branch=z9hG4bKto{n}\r\nMax-Forwards: 70\r\n\
             Route: {route}\r\nFrom: <sip:a@x>;tag=core\r\nTo: <sip:a@x>;tag=ue\r\nCall-ID: own\r\nCSeq: {n} NOTIFY\r\nEvent: {package}\r\n\
             Subscription-State: active\r\nContent-Type: application/reginfo+xml\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let out = bench.packet(mw(), &told);
        assert_eq!(bench.registrations().len(), 1, "not before the handset knows");
        let ok = Message::response(&out.ue[0].1, 200, None);
        let flow = ue.flow_of(&set);
        let out = bench.handle(ims_core::Event::Sip(ims_core::Packet { flow, bytes: ok.to_bytes() }));
        assert_eq!((status(out), bench.registrations().len()), (200, still), "{n}");
    }
    assert_eq!(bench.refused("ended-by-network"), 1);
    assert_eq!(bench.pass(130).removed(), [set]);
    bench.assert_empty();
}
