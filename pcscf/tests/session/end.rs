//! How sessions end, what they outlast, and how many there may be.

use super::*;

/// A 2xx without a tag makes no dialog, and leaves none.
#[test]
fn an_answer_without_a_tag_leaves_nothing() {
    let mut bench = bench();
    let mut a = Caller::attached(&mut bench, Handset::udp4());
    let invite = a.send(&mut bench, "INVITE", ROUTES).forwarded();
    let ok = Message::response(&invite, 200, None);
    bench.handle(Event::Sip(Packet { flow: mw(), bytes: ok.to_bytes() })).answered();
    let s = sessions(&bench);
    assert_eq!((&s["answered"], &s["ringing"]), (&0.into(), &0.into()));
}

/// RFC 3261 16.3.
#[test]
fn what_a_proxy_is_required_to_know_and_does_not_is_refused() {
    let mut bench = bench();
    let mut a = Caller::attached(&mut bench, Handset::udp4());
    let refusal = a.send(&mut bench, "INVITE", "Proxy-Require: sec-agree, teleport\r\n").answered().1;
    assert_eq!((refusal.status(), refusal.text(Name::Unsupported)), (420, Some("teleport")));
    assert_eq!(bench.refused("bad-extension"), 1);
    a.send(&mut bench, "INVITE", "Proxy-Require: sec-agree, privacy\r\n").forwarded();
}

/// 5.2.8.1: the UE is gone, the other end hears it.
#[test]
fn a_session_ends_with_the_registration_of_its_ue() {
    for ue in [Handset::udp4(), Handset::new(true, Transport::Tcp)] {
        let mut bench = bench();
        let mut a = Caller::attached(&mut bench, ue);
        let set = a.ue.set.unwrap();
        let invite = a.send(&mut bench, "INVITE", "").forwarded();
        let ok = answer_with(&mut bench, &invite, 200, &[]).answered().1;
        a.within(&mut bench, "ACK", &ok, "").forwarded();
        a.within(&mut bench, "INFO", &ok, "");
        let request = a.ue.protected(&mut bench, 0).forwarded();
        let out = bench.accept(&request, 0);
        bench.kernel_agrees(&out);
        let bye = &out.core[0];
        assert_eq!((bye.method().as_str(), bye.uri()), ("BYE", "sip:b@203.0.113.9:5060"));
        assert_eq!(bye.text(Name::Route), Some("<sip:mo@scscf.ims.example:6060;lr>"));
        assert_eq!((bye.text(Name::CSeq), bye.text(Name::CallId)), (Some("3 BYE"), Some("session-1")));
        assert!(bye.text(Name::From).unwrap().contains("tag=ue") && bye.text(Name::To).unwrap().contains("tag=core"));
        assert!(bye.text(Name::Reason).unwrap().starts_with("SIP;cause=503"));
        assert_eq!(icid(bye), icid(&invite));
        let (flow, bye) = out.ue.iter().find(|(_, m)| m.is_request()).unwrap();
        assert_eq!((bye.method().as_str(), *flow), ("BYE", a.ue.answers_of(&set)), "the set still carries it");
        assert!(bye.text(Name::From).unwrap().contains("tag=core") && bye.text(Name::To).unwrap().contains("tag=ue"));
        assert_eq!((&sessions(&bench)["answered"], bench.refused("session-released")), (&0.into(), 1));
    }
}

#[test]
fn what_rings_is_cancelled_when_its_ue_is_gone() {
    let mut bench = bench();
    let mut a = Caller::attached(&mut bench, Handset::udp4());
    let invite = a.send(&mut bench, "INVITE", "").forwarded();
    answer_with(&mut bench, &invite, 180, &[]).answered();
    let request = a.ue.protected(&mut bench, 0).forwarded();
    let out = bench.accept(&request, 0);
    bench.kernel_agrees(&out);
    assert_eq!(out.core[0].method().as_str(), "CANCEL");
    assert!(out.core[0].text(Name::Reason).unwrap().starts_with("SIP;cause=503"));
    bench.answer(&out.core[0], 200, &[]);
    let out = bench.answer(&invite, 487, &[]);
    assert_eq!(out.ue[0].1.status(), 487, "while the set lingers");

    let mut bench = self::bench();
    let (mut core, mut b) = Core::and_callee(&mut bench, Handset::udp4());
    let (_, invite) = to_ue(core.send(&mut bench, "INVITE", INVITED));
    to_core(ue_says(&mut bench, &b, &invite, 180, &[]));
    let request = b.ue.protected(&mut bench, 0).forwarded();
    let out = bench.accept(&request, 0);
    bench.kernel_agrees(&out);
    assert_eq!(out.core[0].status(), 480);
    assert!(out.ue.iter().any(|(_, m)| m.is_request() && m.method().as_str() == "CANCEL"));
    assert_eq!(sessions(&bench)["ringing"], 0);
}

/// A phone that registers anew from the same address, in the middle of a call, goes on with it.
#[test]
fn a_session_goes_on_with_the_next_registration_of_the_same_ue() {
    let mut bench = bench();
    let mut a = Caller::attached(&mut bench, Handset::udp4());
    let invite = a.send(&mut bench, "INVITE", "").forwarded();
    let ok = answer_with(&mut bench, &invite, 200, &[]).answered().1;
    a.ue.renew();
    a.ue.call = "again".into();
    let set = a.ue.attach(&mut bench, 3600);
    assert_eq!((&sessions(&bench)["answered"], bench.refused("session-released")), (&1.into(), 0));
    let info = a.within(&mut bench, "INFO", &ok, "").forwarded();
    assert_eq!(icid(&info), icid(&invite));
    // And the other way, by the token of before.
    let token = invite.text(Name::RecordRoute).unwrap().to_owned();
    let mut core = Core { path: String::new(), n: 0, call: a.call.clone() };
    let text = core.text("BYE", &token, &format!("<sip:a@{DOMAIN}>;tag=ue"), "");
    let text = text.replace("<sip:far@x>;tag=far", "<tel:+4930999>;tag=core");
    let (flow, bye) = to_ue(bench.packet(mw(), &text));
    assert_eq!(flow, a.ue.answers_of(&set));
    let mut answer = Message::response(&bye, 200, None);
    answer.set(Name::ContentLength, 0);
    let out = bench.handle(Event::Sip(Packet { flow: a.flow(), bytes: answer.to_bytes() }));
    assert_eq!((to_core(out).status(), &sessions(&bench)["answered"]), (200, &0.into()));
}

/// After a restart nothing is known of a session but what Record-Route says.
#[test]
fn a_session_outlasts_a_restart() {
    let mut bench = bench();
    let mut a = Caller::attached(&mut bench, Handset::udp4());
    let set = a.ue.set.unwrap();
    let invite = a.send(&mut bench, "INVITE", "").forwarded();
    let ok = answer_with(&mut bench, &invite, 200, &[]).answered().1;
    bench.restart();
    assert_eq!(sessions(&bench)["answered"], 0);
    let info = a.within(&mut bench, "INFO", &ok, "").forwarded();
    assert_eq!(info.text(Name::Route), Some("<sip:mo@scscf.ims.example:6060;lr>"));
    assert_eq!(icid(&info), icid(&invite), "its ICID comes from what it is");
    let token = invite.text(Name::RecordRoute).unwrap().to_owned();
    let mut core = Core { path: String::new(), n: 0, call: a.call.clone() };
    let text = core.text("BYE", &token, &format!("<sip:a@{DOMAIN}>;tag=ue"), "");
    assert_eq!(to_ue(bench.packet(mw(), &text)).0, a.ue.answers_of(&set));
    // And it calls again.
    a.call = "session-2".into();
    a.send(&mut bench, "INVITE", "").forwarded();
    // What claims to be within a dialog and leads elsewhere is none of ours.
    let text = a.text_within("INFO", &ok, "").replace("mo@scscf.ims.example", "x@evil.example");
    let refusal = bench.packet(a.flow(), &text.replace("session-2", "forged")).answered().1;
    assert_eq!((refusal.status(), bench.refused("no-such-dialog")), (481, 1));
    let ack = a.text_within("ACK", &ok, "").replace("mo@scscf.ims.example", "x@evil.example");
    assert!(bench.packet(a.flow(), &ack).is_silent());
    assert_eq!(bench.refused("ack-not-passed"), 1);
}

#[test]
fn sessions_are_bounded_and_forgotten_when_nobody_refreshes_them() {
    let mut bench = Bench::with(|c| {
        with_hops(c);
        c.limits.max_sessions = 1;
    });
    let mut a = Caller::attached(&mut bench, Handset::udp4());
    let invite = a.send(&mut bench, "INVITE", "").forwarded();
    let ok = answer_with(&mut bench, &invite, 200, &[("Session-Expires", "600;refresher=uac")]).answered().1;
    a.within(&mut bench, "ACK", &ok, "");
    a.call = "session-2".into();
    let refusal = a.send(&mut bench, "INVITE", "").answered().1;
    assert_eq!((refusal.status(), refusal.has(Name::RetryAfter)), (503, true));
    a.call = "session-1".into();
    bench.pass(500);
    let refresh = a.within(&mut bench, "UPDATE", &ok, "").forwarded();
    bench.answer(&refresh, 200, &[("Session-Expires", "600")]).answered();
    bench.pass(500);
    assert_eq!(sessions(&bench)["answered"], 1);
    bench.pass(200);
    assert_eq!((&sessions(&bench)["answered"], bench.refused("session-expired")), (&0.into(), 1));
}

/// OnePlus 5: no IPsec; it registers over UDP and calls over TCP from some port.
#[test]
fn a_ue_without_ipsec_calls_where_the_policy_lets_it() {
    let mut bench = Bench::with(|c| {
        with_hops(c);
        c.security.policy = Policy::Allow;
    });
    let mut ue = Handset::udp4();
    let request = bench.packet(ue.clear_flow(), &ue.register(3600, "")).forwarded();
    let path = request.text(Name::Path).unwrap().to_owned();
    bench.accept(&request, 600).answered();
    let text = |n: u32, call: &str| {
        format!(
            "INVITE sip:b@x SIP/2.0\r\nVia: SIP/2.0/TCP 198.51.100.7:5060;branch=z9hG4bKo{n}\r\nFrom: <sip:001010000000001@{DOMAIN}>;tag=1\r\n\
             To: <sip:b@x>\r\nCall-ID: {call}\r\nCSeq: 1 INVITE\r\nContact: <sip:001010000000001@198.51.100.7:5060>\r\nContent-Length: 0\r\n\r\n"
        )
    };
    let over = |port: u16| Flow {
        transport: Transport::Tcp,
        local: "192.0.2.1:5060".parse().unwrap(),
        remote: format!("198.51.100.7:{port}").parse().unwrap(),
        conn: Some(ConnId(9)),
    };
    let invite = bench.packet(over(39_001), &text(1, "c1")).forwarded();
    assert_eq!(invite.text(Name::Route), Some(SCSCF));
    let (flow, ok) = answer_with(&mut bench, &invite, 200, &[]).answered();
    assert_eq!(flow, over(39_001));
    assert!(ok.tokens(Name::RecordRoute)[1].ends_with("@192.0.2.1:5060;lr>"));
    // Somebody else behind the same address is not that UE.
    let forged = text(2, "c2").replace("001010000000001", "president");
    assert_eq!(bench.packet(over(39_002), &forged).answered().1.status(), 403);
    let mut core = Core { path, n: 0, call: "to-clear".into() };
    let (flow, message) = to_ue(core.send(&mut bench, "MESSAGE", ""));
    assert_eq!((flow, message.method().as_str()), (ue.clear_flow(), "MESSAGE"));
}

/// Before its UE is registered a set carries nothing but REGISTER. Of a new authentication, both sets carry what there is: whoever
/// uses the new one has the keys of the SIM.
#[test]
fn a_set_carries_calls_as_soon_as_its_ue_is_registered() {
    let mut bench = bench();
    let mut stranger = Handset::udp4();
    stranger.set = Some(stranger.get_challenged(&mut bench));
    let mut a = Caller { ue: stranger, branch: 0, cseq: 0, call: "session-1".into() };
    assert_eq!(a.send(&mut bench, "INVITE", "").answered().1.status(), 403);
    let mut bench = self::bench();
    let mut a = Caller::attached(&mut bench, Handset::udp4());
    let old = a.ue.set.unwrap();
    a.ue.renew();
    let request = a.ue.protected(&mut bench, 600_000).forwarded();
    let asked = bench.challenge(&request, "bmV3");
    let (id, new) = asked.install();
    bench.kernel(id, Ok(())).answered();
    for (set, call) in [(new, "session-2"), (old, "session-3")] {
        (a.ue.set, a.call) = (Some(set), call.into());
        a.send(&mut bench, "INVITE", "").forwarded();
    }
}
