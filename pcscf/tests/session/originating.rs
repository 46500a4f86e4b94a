//! What a UE begins (TS 24.229 5.2.6.3).

use super::*;

/// There is a queue, and nothing is served: new calls wait with a 503, and the call that is up goes on.
#[test]
fn new_calls_are_refused_while_there_is_too_much_to_do_and_others_go_on() {
    let mut bench = Bench::with(|c| {
        with_hops(c);
        c.overload.least_rate = 1;
    });
    let mut a = Caller::attached(&mut bench, Handset::udp4());
    let invite = a.send(&mut bench, "INVITE", ROUTES).forwarded();
    let (_, ok) = answer_with(&mut bench, &invite, 200, &[]).answered();
    for _ in 0..50 {
        bench.now = bench.now + std::time::Duration::from_millis(10);
        bench.node.waited(std::time::Duration::from_millis(400), bench.now);
    }
    let mut refused = 0;
    for n in 0..20 {
        a.call = format!("new-{n}");
        let out = a.send(&mut bench, "INVITE", ROUTES);
        if out.core.is_empty() {
            let (_, answer) = out.answered();
            assert_eq!(answer.status(), 503);
            assert!(answer.text(Name::RetryAfter).is_some());
            refused += 1;
        }
    }
    assert!(refused >= 18, "one a second is let in: {refused} refused");
    assert_eq!(bench.refused("overload"), refused);
    a.call = "session-1".into();
    a.within(&mut bench, "BYE", &ok, "").forwarded();
    bench.pass(10);
    a.call = "later".into();
    a.send(&mut bench, "INVITE", ROUTES).forwarded();
}

/// 5.2.6.3.3: what the core gets of an INVITE.
#[test]
fn an_invite_of_a_ue_as_the_core_gets_it() {
    for ue in four_ways() {
        let mut bench = bench();
        let mut a = Caller::attached(&mut bench, ue);
        let pcscf = ims_core::uri::host_of(a.ue.pcscf);
        let set = a.ue.set.unwrap();
        let lines = format!(
            "Route: <sip:{pcscf}:6100;lr>, {SCSCF}, <sip:second.example;lr>\r\n{}P-Preferred-Identity: <tel:+4930123456>\r\n\
             P-Asserted-Identity: <sip:president@x>\r\nP-Charging-Vector: icid-value=mine\r\nP-Access-Network-Info: 3GPP-NR;np\r\n\
             P-Early-Media: supported\r\nRequire: 100rel, sec-agree\r\nProxy-Require: sec-agree\r\nP-Served-User: <sip:b@x>\r\n\
             Security-Verify: {}\r\nPrivacy: none\r\nAccept-Contact: *;+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.mmtel\"\r\n",
            "",
            Handset::security_verify(&set)
        );
        let invite = a.send(&mut bench, "INVITE", &lines).forwarded();
        assert_eq!(invite.uri(), "tel:+4930999");
        let routes: Vec<String> = invite.all::<Route>().unwrap().iter().map(|r| r.uri.into()).collect();
        assert_eq!(routes, ["sip:orig@scscf.ims.example:6060;lr", "sip:second.example;lr"]);
        let asserted: Vec<String> = invite.all::<PAssertedIdentity>().unwrap().iter().map(|p| p.uri.into()).collect();
        assert_eq!(asserted, ["tel:+4930123456"]);
        for gone in [
            Name::PPreferredIdentity,
            Name::SecurityVerify,
            Name::ProxyRequire,
            Name::PServedUser,
            Name::PAccessNetworkInfo,
        ] {
            assert!(!invite.has(gone), "{gone:?}");
        }
        assert_eq!((invite.tokens(Name::Require), invite.text(Name::PEarlyMedia)), (vec!["100rel"], Some("supported")));
        assert_eq!(invite.text(Name::MaxForwards), Some("69"));
        let vector = invite.text(Name::PChargingVector).unwrap();
        assert!(vector.contains("icid-generated-at=pcscf.") && vector.contains(&format!("orig-ioi=\"{DOMAIN}\"")));
        assert!(!vector.contains("mine"));
        let recorded = invite.text(Name::RecordRoute).unwrap();
        assert!(recorded.ends_with(&format!("@pcscf.{DOMAIN}:5070;lr>")), "{recorded}");
        // What is not ours passes byte for byte.
        let unknown = invite.lines().find(|(name, _)| *name == b"X-Unknown").unwrap();
        assert_eq!(unknown.1, b"kept ;as=it is");
        assert_eq!(invite.text(Name::Privacy), Some("none"));
        assert!(invite.text(Name::AcceptContact).unwrap().contains("icsi.mmtel"));
    }
}

/// 5.2.6.3.4: answers return over the set, and our Record-Route entry names the protected server port.
#[test]
fn answers_reach_the_ue_over_its_set_and_name_our_protected_port() {
    for ue in four_ways() {
        let mut bench = bench();
        let mut a = Caller::attached(&mut bench, ue);
        let set = a.ue.set.unwrap();
        let pcscf = ims_core::uri::host_of(a.ue.pcscf);
        let invite = a.send(&mut bench, "INVITE", "").forwarded();
        assert!(bench.answer(&invite, 100, &[]).is_silent(), "100 is of one hop");
        let charged = [("P-Charging-Vector", "icid-value=x;term-ioi=y"), ("P-Charging-Function-Addresses", "ccf=a")];
        for status in [183, 180, 200] {
            let (flow, answer) = answer_with(&mut bench, &invite, status, &charged).answered();
            assert_eq!((flow, answer.status()), (a.ue.answers_of(&set), status));
            let recorded = answer.tokens(Name::RecordRoute);
            assert_eq!(recorded[0], "<sip:mo@scscf.ims.example:6060;lr>");
            assert!(recorded[1].ends_with(&format!("@{pcscf}:6100;lr>")), "{recorded:?}");
            assert_eq!(texts(&answer, Name::Via).len(), 1);
        }
        assert_eq!((&sessions(&bench)["answered"], &sessions(&bench)["ringing"]), (&1.into(), &0.into()));
    }
}

/// 5.2.6.3.5, 5.2.6.3.9: all of a session has one ICID, and takes the way of its dialog.
#[test]
fn a_session_of_a_caller_from_invite_to_bye() {
    for ue in four_ways() {
        let mut bench = bench();
        let mut a = Caller::attached(&mut bench, ue);
        let invite = a.send(&mut bench, "INVITE", "").forwarded();
        let ringing = answer_with(&mut bench, &invite, 183, &[("RSeq", "1")]).answered().1;
        let early = ["PRACK", "UPDATE"];
        for method in early {
            let request = a.within(&mut bench, method, &ringing, "").forwarded();
            assert_eq!(request.uri(), "sip:b@203.0.113.9:5060");
            let routes: Vec<String> = request.all::<Route>().unwrap().iter().map(|r| r.uri.into()).collect();
            assert_eq!(routes, ["sip:mo@scscf.ims.example:6060;lr"], "{method}");
            assert_eq!(icid(&request), icid(&invite), "{method}");
            assert!(!request.has(Name::PAssertedIdentity));
            bench.answer(&request, 200, &[]).answered();
        }
        let ok = answer_with(&mut bench, &invite, 200, &[]).answered().1;
        // The SA is the proof: an ACK has no Security-Verify (Pixel).
        let ack = a.within(&mut bench, "ACK", &ok, "").forwarded();
        assert_eq!((ack.method().as_str(), texts(&ack, Name::Route).len()), ("ACK", 1));
        for method in ["INVITE", "INFO", "MESSAGE", "OPTIONS", "REFER", "FROBNICATE", "BYE"] {
            let request = a.within(&mut bench, method, &ok, "").forwarded();
            assert_eq!((request.method().as_str(), icid(&request)), (method, icid(&invite)));
            bench.answer(&request, 200, &[("Contact", "<sip:b@203.0.113.9:5060>")]).answered();
        }
        let s = sessions(&bench);
        assert_eq!((&s["answered"], &s["dialogs"], &s["answered_total"]), (&0.into(), &0.into(), &1.into()));
        bench.pass(400);
        assert_eq!(bench.node.snapshot()["forwarded"], 0);
    }
}

/// 5.2.6.3.1: whatever else it is, a request of a registered UE passes, and none of an unknown one.
#[test]
fn standalone_requests_pass() {
    let mut bench = bench();
    let mut a = Caller::attached(&mut bench, Handset::udp4());
    for (method, records) in [
        ("MESSAGE", false),
        ("OPTIONS", false),
        ("PUBLISH", false),
        ("SUBSCRIBE", true),
        ("REFER", true),
        ("FROBNICATE", true),
    ] {
        let request = a.send(&mut bench, method, ROUTES).forwarded();
        assert_eq!(request.has(Name::RecordRoute), records, "{method}");
        assert_eq!(request.text(Name::PAssertedIdentity).unwrap(), format!("<sip:001010000000001@{DOMAIN}>"));
        let (flow, ok) = bench.answer(&request, 202, &[]).answered();
        assert_eq!((flow, ok.status()), (a.ue.answers_of(&a.ue.set.unwrap()), 202));
    }
    let mut stranger = a.ue.clone();
    stranger.port = 5999;
    let text = a.request("MESSAGE", ROUTES).replace(":50001;", ":5999;");
    let refusal = bench.packet(stranger.clear_flow(), &text).answered().1;
    assert_eq!((refusal.status(), bench.refused("register-first")), (403, 1));
    assert_eq!(bench.refused("route-replaced"), 0);
}

/// 5.2.6.3.3: the Service-Route is the way, for whatever a UE writes.
#[test]
fn a_ue_on_a_way_of_its_own_is_put_right_or_refused() {
    for lines in ["", "Route: <sip:evil.example;lr>\r\n", "Route: <sip:192.0.2.1:6100;lr>\r\n"] {
        let mut bench = bench();
        let mut a = Caller::attached(&mut bench, Handset::udp4());
        let invite = a.send(&mut bench, "INVITE", lines).forwarded();
        let routes: Vec<String> = invite.all::<Route>().unwrap().iter().map(|r| r.uri.into()).collect();
        assert_eq!(routes, ["sip:orig@scscf.ims.example:6060;lr", "sip:second.example;lr"], "{lines}");
        assert_eq!(bench.refused("route-replaced"), 1);
        let mut strict = Bench::with(|c| {
            with_hops(c);
            c.route_mismatch = RoutePolicy::Refuse;
        });
        let mut a = Caller::attached(&mut strict, Handset::udp4());
        let refusal = a.send(&mut strict, "INVITE", lines).answered().1;
        assert_eq!((refusal.status(), strict.refused("route-mismatch")), (400, 1));
        a.send(&mut strict, "INVITE", ROUTES).forwarded();
    }
}

#[test]
fn an_identity_that_is_not_registered_is_not_asserted() {
    let mut bench = bench();
    let mut a = Caller::attached(&mut bench, Handset::udp4());
    let invite = a.send(&mut bench, "INVITE", "P-Preferred-Identity: <sip:president@x>\r\n").forwarded();
    assert_eq!(invite.text(Name::PAssertedIdentity).unwrap(), format!("<sip:001010000000001@{DOMAIN}>"));
    assert_eq!(bench.refused("identity-not-registered"), 1);
}

#[test]
fn what_loops_and_what_has_no_service_route_ends_here() {
    let mut bench = bench();
    let mut a = Caller::attached(&mut bench, Handset::udp4());
    let text = a.request("INVITE", ROUTES).replace("Max-Forwards: 70", "Max-Forwards: 0");
    assert_eq!(bench.packet(a.flow(), &text).answered().1.status(), 483);
    assert_eq!(bench.refused("too-many-hops"), 1);
    let mut ue = Handset { imsi: "001010000000009".into(), port: 5999, call: "other".into(), ..Handset::udp4() };
    let request = bench.packet(ue.clear_flow(), &ue.register(3600, "")).forwarded();
    let contact = request.text(Name::Contact).unwrap().to_owned();
    bench.answer(&request, 200, &[("Contact", &contact)]).answered();
    let text = a.request("INVITE", "").replace(":50001;", ":5999;");
    let refusal = bench.packet(ue.clear_flow(), &text).answered().1;
    assert_eq!((refusal.status(), bench.refused("no-service-route")), (500, 1));
}
