//! CANCEL, forks, and the way that a dialog keeps to.

use super::*;

/// RFC 3261 9, 16.10, and what phones do with CANCEL.
#[test]
fn a_cancel_at_each_moment() {
    for (answered, crosses) in [(false, false), (true, false), (true, true)] {
        let mut bench = bench();
        let mut a = Caller::attached(&mut bench, Handset::udp4());
        let text = a.request("INVITE", ROUTES);
        let invite = bench.packet(a.flow(), &text).forwarded();
        if answered {
            answer_with(&mut bench, &invite, 180, &[]).answered();
        }
        // The Pixel's has the route set of the dialog; the Motorola's no Security-Verify; Qualcomm's a body.
        let cancel = text.replace("INVITE", "CANCEL").replace(ROUTES, "Route: <sip:mo@scscf.ims.example:6060;lr>\r\n");
        let mut out = bench.packet(a.flow(), &cancel);
        assert_eq!((out.ue[0].1.status(), out.ue[0].1.method().as_str()), (200, "CANCEL"));
        if !answered {
            assert!(out.core.is_empty(), "not before a provisional answer");
            out = answer_with(&mut bench, &invite, 180, &[]);
        }
        let cancel = out.core.remove(0);
        assert_eq!((cancel.method().as_str(), cancel.uri()), ("CANCEL", invite.uri()));
        assert_eq!(texts(&cancel, Name::Route), texts(&invite, Name::Route));
        bench.answer(&cancel, 200, &[]);
        if crosses {
            let ok = answer_with(&mut bench, &invite, 200, &[]).answered().1;
            assert_eq!((ok.status(), &sessions(&bench)["answered"]), (200, &1.into()));
            continue;
        }
        let out = bench.answer(&invite, 487, &[("Record-Route", invite.text(Name::RecordRoute).unwrap())]);
        assert_eq!(out.core[0].method().as_str(), "ACK");
        let refusal = &out.ue[0].1;
        assert_eq!((refusal.status(), refusal.has(Name::RecordRoute)), (487, false));
        // The Pixel's ACK to it has routes of its own, and goes no further.
        let ack = text.replace("INVITE", "ACK").replace("<tel:+4930999>", "<tel:+4930999>;tag=core");
        assert!(bench.packet(a.flow(), &ack).is_silent());
        assert_eq!((&sessions(&bench)["ringing"], &sessions(&bench)["dialogs"]), (&0.into(), &0.into()));
        bench.pass(400);
        assert_eq!(bench.node.snapshot()["forwarded"], 0);
    }
}

#[test]
fn a_cancel_for_a_callee_reaches_it_with_its_reason() {
    let mut bench = bench();
    let (mut core, b) = Core::and_callee(&mut bench, Handset::udp4());
    let (_, invite) = to_ue(core.send(&mut bench, "INVITE", INVITED));
    to_core(ue_says(&mut bench, &b, &invite, 180, &[]));
    core.n -= 1;
    let path = core.path.clone();
    let cancel = core.text("CANCEL", &path, "<sip:a@x>", "Reason: SIP;cause=200;text=\"elsewhere\"\r\n");
    let out = bench.packet(mw(), &cancel);
    let (_, cancel) = &out.ue[0];
    assert_eq!(
        (cancel.method().as_str(), cancel.text(Name::Reason).unwrap().starts_with("SIP;cause=200")),
        ("CANCEL", true)
    );
    assert_eq!(out.core[0].status(), 200);
    let out = ue_says(&mut bench, &b, &invite, 487, &[]);
    assert_eq!((out.core[0].status(), out.ue[0].1.method().as_str()), (487, "ACK"));
    assert!(!out.core[0].has(Name::PAssertedIdentity) && !out.core[0].has(Name::RecordRoute));
}

/// A forked INVITE makes several dialogs; the one that is answered stays.
#[test]
fn forked_dialogs_are_told_apart_by_their_tags() {
    let mut bench = bench();
    let mut a = Caller::attached(&mut bench, Handset::udp4());
    let invite = a.send(&mut bench, "INVITE", ROUTES).forwarded();
    let mut answers = Vec::new();
    for (tag, route) in [("one", "<sip:mt@one.example;lr>"), ("two", "<sip:mt@two.example;lr>")] {
        let mut answer = Message::response(&invite, 183, Some(tag));
        answer.push_named("Record-Route", route);
        answer.push_named("Record-Route", "<sip:mo@scscf.ims.example:6060;lr>");
        answer.push_named("Record-Route", invite.text(Name::RecordRoute).unwrap());
        answer.push_named("Contact", format!("<sip:{tag}@203.0.113.9>"));
        let out = bench.handle(Event::Sip(Packet { flow: mw(), bytes: answer.to_bytes() }));
        answers.push(out.answered().1);
    }
    assert_eq!(sessions(&bench)["dialogs"], 2);
    for (answer, host) in answers.iter().zip(["one", "two"]) {
        // Whatever the phone writes as Route, each takes its own way.
        let text = a.text_within("PRACK", answer, "").replace("Route: <sip:mt@", "X-Route: <sip:mt@");
        let prack = bench.packet(a.flow(), &text).forwarded();
        let routes: Vec<String> = prack.all::<Route>().unwrap().iter().map(|r| r.uri.into()).collect();
        assert_eq!(routes, ["sip:mo@scscf.ims.example:6060;lr".to_owned(), format!("sip:mt@{host}.example;lr")]);
        bench.answer(&prack, 200, &[]);
    }
    let mut ok = Message::response(&invite, 200, Some("two"));
    ok.push_named("Record-Route", invite.text(Name::RecordRoute).unwrap());
    ok.push_named("Contact", "<sip:two@203.0.113.9>");
    bench.handle(Event::Sip(Packet { flow: mw(), bytes: ok.to_bytes() })).answered();
    assert_eq!((&sessions(&bench)["dialogs"], &sessions(&bench)["answered"]), (&1.into(), &1.into()));
}

/// Samsung: INVITE over TCP, PRACK and BYE over UDP of the same set, whatever Route says.
#[test]
fn a_phone_that_mixes_transports_in_a_dialog_is_followed() {
    let mut bench = bench();
    let mut a = Caller::attached(&mut bench, Handset::udp4());
    let set = a.ue.set.unwrap();
    a.ue.transport = Transport::Tcp;
    a.ue.conn = ConnId(77);
    let invite = a.send(&mut bench, "INVITE", ROUTES).forwarded();
    let (flow, ringing) = answer_with(&mut bench, &invite, 183, &[]).answered();
    assert_eq!(flow, a.ue.flow_of(&set), "on the connection that it came by");
    a.ue.transport = Transport::Udp;
    let prack = a.within(&mut bench, "PRACK", &ringing, "").forwarded();
    let (flow, _) = bench.answer(&prack, 200, &[]).answered();
    assert_eq!(flow, a.ue.answers_of(&set), "by datagram, from port_pc to port_us");
}

/// RFC 3261 18.1.1 with what ESP adds; and the leg keeps the transport that it has then.
#[test]
fn what_is_too_large_for_the_path_goes_by_tcp_within_the_set_and_so_does_the_rest() {
    let mut bench = bench();
    let (mut core, b) = Core::and_callee(&mut bench, Handset::udp4());
    let set = b.ue.set.unwrap();
    let long = format!("{INVITED}X-Long: {}\r\n", "x".repeat(900));
    let (flow, invite) = to_ue(core.send(&mut bench, "INVITE", &long));
    assert!(invite.to_bytes().len() < 2000);
    let tcp = Flow { transport: Transport::Tcp, ..b.ue.answers_of(&set) };
    assert_eq!(flow, tcp, "port_pc to port_us");
    let back = Flow { conn: Some(ConnId(5)), ..tcp };
    let mut ok = Message::response(&invite, 200, Some("callee"));
    ok.copy(Name::RecordRoute, &invite);
    ok.push_named("Contact", "<sip:a@198.51.100.7:50001>");
    let out = bench.handle(Event::Sip(Packet { flow: back, bytes: ok.to_bytes() }));
    let ok = to_core(out);
    let (flow, _) = to_ue(core.within(&mut bench, "BYE", &ok));
    assert_eq!(flow, tcp);
}

/// A session that began on a connection of the UE stays on it, and goes on by another, or by datagram, when that is gone.
#[test]
fn a_leg_keeps_its_connection_as_long_as_it_can() {
    let mut bench = bench();
    let mut a = Caller::attached(&mut bench, Handset::udp4());
    let set = a.ue.set.unwrap();
    a.ue.transport = Transport::Tcp;
    a.ue.conn = ConnId(77);
    let invite = a.send(&mut bench, "INVITE", ROUTES).forwarded();
    answer_with(&mut bench, &invite, 200, &[]).answered();
    let mut core = Core { path: String::new(), n: 0, call: a.call.clone() };
    let token = invite.text(Name::RecordRoute).unwrap().to_owned();
    let mut info = |bench: &mut Bench| {
        let text = core.text("INFO", &token, &format!("<sip:a@{DOMAIN}>;tag=ue"), "");
        let text = text.replace("<sip:far@x>;tag=far", "<tel:+4930999>;tag=core");
        to_ue(bench.packet(mw(), &text))
    };
    assert_eq!(info(&mut bench).0, a.ue.flow_of(&set));
    bench.handle(Event::FlowClosed(ConnId(77)));
    let flow = info(&mut bench).0;
    let udp = Flow { transport: Transport::Udp, ..flow };
    assert_eq!((flow.transport, flow.conn, flow.remote.port()), (Transport::Tcp, None, set.port_us));
    // The UE opened another one meanwhile, and is followed there.
    a.ue.conn = ConnId(78);
    let text = a.request("INFO", "").replace("To: <tel:+4930999>", "To: <tel:+4930999>;tag=core");
    bench.packet(a.flow(), &text).forwarded();
    assert_eq!(info(&mut bench).0, a.ue.flow_of(&set));
    bench.handle(Event::FlowClosed(ConnId(78)));
    assert_eq!(info(&mut bench).0, flow);
    // It does not take connections.
    let out = bench.fail_last(ims_core::FlowError::Refused);
    let (flow, info) = to_ue(out);
    assert_eq!((flow, info.method().as_str()), (udp, "INFO"));
    let ok = Message::response(&info, 200, None);
    a.ue.transport = Transport::Udp;
    let out = bench.handle(Event::Sip(Packet { flow: a.flow(), bytes: ok.to_bytes() }));
    assert_eq!(to_core(out).status(), 200);
}
