//! What is for a UE (TS 24.229 5.2.6.4).

use super::*;

/// 5.2.6.4.3, 5.2.6.4.4.
#[test]
fn an_invite_for_a_ue_and_its_answers() {
    for ue in four_ways() {
        let mut bench = bench();
        let (mut core, b) = Core::and_callee(&mut bench, ue);
        let set = b.ue.set.unwrap();
        let pcscf = ims_core::uri::host_of(b.ue.pcscf);
        let (flow, invite) = to_ue(core.send(&mut bench, "INVITE", INVITED));
        assert_eq!(flow, b.ue.answers_of(&set), "over the set, or over the connection of the UE");
        let via = invite.text(Name::Via).unwrap();
        assert!(via.contains(&format!("{pcscf}:6100;")), "sent-by is the protected server port: {via}");
        let recorded = invite.tokens(Name::RecordRoute);
        assert!(recorded[0].ends_with(&format!("@{pcscf}:6100;lr>")), "{recorded:?}");
        assert_eq!(recorded[1..], ["<sip:mt@scscf.ims.example:6060;lr>", "<sip:mo@far.example;lr>"]);
        assert!(!invite.has(Name::Route) && !invite.has(Name::PAccessNetworkInfo));
        assert_eq!(invite.text(Name::PCalledPartyId), Some("<sip:called@x>"));
        assert_eq!(invite.text(Name::PAssertedIdentity), Some("<sip:far@x>"));
        assert_eq!(invite.text(Name::MaxForwards), Some("59"));

        // A UE that says what it likes, and sorts parameters (iPhone).
        let lines = [
            ("P-Asserted-Identity", "<sip:president@x>"),
            ("P-Preferred-Identity", "<sip:president@x>"),
            ("P-Charging-Vector", "icid-value=mine"),
            ("P-Early-Media", "sendrecv"),
            ("P-Access-Network-Info", "3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=7"),
        ];
        let ringing = to_core(ue_says(&mut bench, &b, &invite, 180, &lines));
        assert_eq!(ringing.status(), 180);
        assert_eq!(texts(&ringing, Name::PAssertedIdentity), ["<sip:called@x>"]);
        assert!(!ringing.has(Name::PPreferredIdentity) && !ringing.has(Name::PEarlyMedia));
        assert!(ringing.has(Name::PAccessNetworkInfo));
        assert_eq!(
            ringing.text(Name::PChargingVector).unwrap(),
            format!("icid-value=\"theirs\";icid-generated-at=far.example;orig-ioi=\"home\";term-ioi=\"{DOMAIN}\"")
        );
        let recorded = ringing.tokens(Name::RecordRoute);
        assert!(recorded[0].ends_with(&format!("@pcscf.{DOMAIN}:5070;lr>")), "{recorded:?}");
        assert_eq!(recorded[1..], ["<sip:mt@scscf.ims.example:6060;lr>", "<sip:mo@far.example;lr>"]);
        assert_eq!(texts(&ringing, Name::Via).len(), 2);

        let ok = to_core(ue_says(&mut bench, &b, &invite, 200, &[]));
        assert_eq!(ok.status(), 200);
        let (flow, ack) = to_ue(core.within(&mut bench, "ACK", &ok));
        assert_eq!((flow, ack.method().as_str()), (b.ue.answers_of(&set), "ACK"));
        for method in ["INVITE", "UPDATE", "PRACK", "INFO", "FROBNICATE"] {
            let (flow, request) = to_ue(core.within(&mut bench, method, &ok));
            assert_eq!((flow, request.method().as_str()), (b.ue.answers_of(&set), method));
            assert_eq!(to_core(ue_says(&mut bench, &b, &request, 200, &[])).status(), 200);
        }
        // The other way: its own dialog route, and the ICID that came with the INVITE.
        let mut b = b;
        b.call = core.call.clone();
        let bye = b.message("BYE", "sip:far@203.0.113.9", "<sip:far@x>;tag=far", "");
        let bye = bye.replace("tag=ue", "tag=callee").replace(&format!("<sip:a@{DOMAIN}>"), "<sip:a@x>");
        let bye = bench.packet(b.flow(), &bye).forwarded();
        let routes: Vec<String> = bye.all::<Route>().unwrap().iter().map(|r| r.uri.into()).collect();
        assert_eq!(routes, ["sip:mt@scscf.ims.example:6060;lr", "sip:mo@far.example;lr"]);
        assert_eq!(icid(&bye), "icid-value=\"theirs\"");
        assert_eq!(sessions(&bench)["answered"], 1);
        bench.answer(&bye, 200, &[]).answered();
        assert_eq!(sessions(&bench)["answered"], 0);
    }
}

#[test]
fn who_calls_is_not_told_when_the_caller_does_not_want_it() {
    let mut bench = bench();
    let (mut core, _) = Core::and_callee(&mut bench, Handset::udp4());
    let (_, invite) = to_ue(core.send(&mut bench, "INVITE", &format!("{INVITED}Privacy: id\r\n")));
    assert!(!invite.has(Name::PAssertedIdentity) && invite.has(Name::Privacy));
}

/// 5.2.6.4.3: no answer is worse than a refusal.
#[test]
fn a_ue_that_is_gone_is_said_to_be() {
    let mut bench = bench();
    let (mut core, mut b) = Core::and_callee(&mut bench, Handset::udp4());
    // No set: its SAs went, and the registration with them.
    let request = b.ue.protected(&mut bench, 0).forwarded();
    let out = bench.accept(&request, 0);
    bench.kernel_agrees(&out);
    assert_eq!(to_core(core.send(&mut bench, "INVITE", INVITED)).status(), 480);
    assert_eq!(bench.refused("ue-gone"), 1);
}

#[test]
fn a_ue_that_does_not_answer_is_408_and_a_connection_that_cannot_be_made_is_500() {
    let mut bench = bench();
    let (mut core, _) = Core::and_callee(&mut bench, Handset::udp4());
    to_ue(core.send(&mut bench, "MESSAGE", INVITED));
    let out = bench.pass(200);
    assert_eq!(out.core.iter().map(Message::status).collect::<Vec<_>>(), [408]);
    assert_eq!(bench.refused("ue-silent"), 1);

    let mut bench = self::bench();
    let (mut core, b) = Core::and_callee(&mut bench, Handset::new(false, Transport::Tcp));
    bench.handle(Event::FlowClosed(b.ue.conn));
    let path = core.path.clone();
    let text = core.text("MESSAGE", &path, "<sip:a@x>", "");
    let mut out = bench.packet(mw(), &text);
    let (flow, _) = out.ue.remove(0);
    assert_eq!((flow.conn, flow.remote.port(), flow.transport), (None, 50_001, Transport::Tcp));
    let failed = bench.fail_last(ims_core::FlowError::Refused);
    assert_eq!(to_core(failed).status(), 500);
    assert_eq!(bench.refused("no-way-to-ue"), 1);
}
