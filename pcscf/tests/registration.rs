//! TS 24.229 5.2.2 and TS 33.203 7 at one P-CSCF: the way of a registration.

mod common;

use common::{Bench, CK, DOMAIN, Handset, IK, four_ways};
use ims_core::sa::{SaChange, SaSide};
use ims_core::{ConnId, Event, Flow, Node, Transport};
use ims_sip::Name;
use std::time::Duration;

#[test]
fn the_challenge_leaves_only_when_the_kernel_has_the_sas() {
    for mut ue in four_ways() {
        let mut bench = Bench::new();
        let request = ue.hello(&mut bench).forwarded();
        let asked = bench.challenge(&request, "bm9uY2U=");
        assert!(asked.ue.is_empty() && asked.core.is_empty(), "nothing leaves before the kernel has answered");
        let (id, set) = asked.install();
        let Some((_, SaChange::Install { keys, side, expires, .. })) = asked.sa.first() else { panic!() };
        assert_eq!((keys.ck.to_wire_hex().as_str(), keys.ik.to_wire_hex().as_str(), *side), (CK, IK, SaSide::Pcscf));
        assert_eq!(*expires, bench.now + Duration::from_secs(240), "reg-await-auth");
        assert_eq!((set.ue, set.pcscf), (ue.ip, ue.pcscf));
        assert_eq!((set.port_uc, set.port_us, set.spi_uc, set.spi_us), (ue.uc, ue.us, ue.spi, ue.spi + 1));
        assert_eq!((set.port_ps, set.port_pc), (6100, 6101));
        assert_eq!((set.suite.alg.token(), set.suite.ealg.token()), ("hmac-sha-1-96", "aes-cbc"), "by our preference");

        let (flow, answer) = bench.kernel(id, Ok(())).answered();
        assert_eq!(flow, ue.clear_flow());
        assert_eq!(answer.status(), 401);
        let expected = format!(
            "ipsec-3gpp;q=0.1;prot=esp;mod=trans;spi-c={};spi-s={};port-c=6101;port-s=6100;alg=hmac-sha-1-96;ealg=aes-cbc",
            set.spi_pc, set.spi_ps
        );
        assert_eq!(answer.text(Name::SecurityServer), Some(expected.as_str()));
        let challenge = answer.text(Name::WwwAuthenticate).unwrap();
        assert!(challenge.contains("nonce=\"bm9uY2U=\"") && !challenge.contains("ck") && !challenge.contains("ik="));
    }
}

#[test]
fn a_ue_registers_and_everything_is_stored() {
    for mut ue in four_ways() {
        let mut bench = Bench::new();
        let set = ue.attach(&mut bench, 3600);
        let all = bench.registrations();
        assert_eq!(all.len(), 1);
        let r = &all[0];
        assert_eq!(r["impi"], format!("001010000000001@{DOMAIN}"));
        assert_eq!(r["expires_in_s"], 3600, "what was granted, not what was asked");
        assert_eq!(
            r["service_route"],
            serde_json::json!(["<sip:orig@scscf.ims.example:6060;lr>", "<sip:second.example;lr>"])
        );
        assert_eq!(r["associated"][1], "tel:+4930123456");
        assert_eq!(r["transport"], ue.transport.to_string());
        assert_eq!((&r["sa"]["state"], &r["sa"]["spi_ps"]), (&"active".into(), &set.spi_ps.into()));
        assert_eq!(r["sa"]["suite"], "hmac-sha-1-96/aes-cbc");
        let text = bench.node.snapshot().to_string();
        assert!(!text.contains(CK) && !text.contains(IK));
    }
}

#[test]
fn headers_towards_the_core() {
    let mut bench = Bench::new();
    let mut ue = Handset::udp4();
    let lines = "Path: <sip:evil.example;lr>\r\nRoute: <sip:evil.example;lr>\r\nP-Charging-Vector: icid-value=theirs\r\n\
        P-Charging-Function-Addresses: ccf=theirs\r\nP-Visited-Network-ID: \"theirs\"\r\n\
        P-Asserted-Identity: <sip:theirs@x>\r\nP-Access-Network-Info: 3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=00101000112345, 3GPP-GERAN;np\r\n\
        Require: sec-agree\r\nProxy-Require: sec-agree\r\nSupported: sec-agree, gruu\r\n";
    let text = ue.register(3600, &format!("{lines}Security-Client: {}\r\n", ue.security_client()));
    let out = bench.packet(ue.clear_flow(), &text).forwarded();
    let whole = String::from_utf8(out.to_bytes().to_vec()).unwrap();
    assert!(!whole.contains("theirs") && !whole.contains("evil"), "{whole}");
    assert!(!whole.contains("sec-agree") && !whole.contains("Security-") && !out.has(Name::ProxyRequire), "{whole}");
    let path = out.text(Name::Path).unwrap();
    assert!(path.starts_with("<sip:") && path.ends_with(&format!("@pcscf.{DOMAIN}:5070;lr>")), "{path}");
    assert_eq!(out.tokens(Name::Require), ["path"]);
    assert_eq!(out.tokens(Name::Supported), ["gruu", "path"]);
    assert_eq!(out.text(Name::PVisitedNetworkId), Some(format!("\"{DOMAIN}\"").as_str()));
    let vector = out.text(Name::PChargingVector).unwrap();
    assert!(
        vector.starts_with("icid-value=\"")
            && vector.ends_with(&format!(";icid-generated-at=pcscf.{DOMAIN};orig-ioi=\"{DOMAIN}\""))
    );
    let access = out.text(Name::PAccessNetworkInfo);
    assert_eq!(access, Some("3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=00101000112345"));
    assert_eq!(out.text(Name::MaxForwards), Some("69"));
    assert!(!out.has(Name::Route) && !out.has(Name::RecordRoute));
    let auth = out.text(Name::Authorization).unwrap();
    assert!(auth.ends_with("integrity-protected=\"no\"") && !auth.contains("yes"));
    assert_eq!(out.uri(), format!("sip:{DOMAIN}"));
}

#[test]
fn only_a_register_over_the_sa_is_integrity_protected() {
    let mut bench = Bench::new();
    let mut ue = Handset::udp4();
    let set = ue.get_challenged(&mut bench);
    ue.set = Some(set);
    let request = ue.protected(&mut bench, 3600).forwarded();
    assert!(request.text(Name::Authorization).unwrap().ends_with("integrity-protected=\"yes\""));
    assert!(!request.has(Name::SecurityVerify) && !request.has(Name::SecurityClient));
}

#[test]
fn a_refresh_inside_the_sa_keeps_path_and_moves_the_lifetime() {
    for mut ue in four_ways() {
        let mut bench = Bench::new();
        let set = ue.attach(&mut bench, 600);
        bench.pass(300);
        ue.renew();
        let first = ue.protected(&mut bench, 3600).forwarded();
        let path = first.text(Name::Path).unwrap().to_owned();
        let out = bench.accept(&first, 3600);
        assert_eq!(out.extended(), [(set, bench.now + Duration::from_secs(3630))]);
        assert!(out.removed().is_empty() && out.sa.len() == 1);
        bench.kernel_agrees(&out);
        let (flow, ok) = out.answered();
        assert_eq!((flow, ok.status(), ok.has(Name::SecurityServer)), (ue.answers_of(&set), 200, false));
        let second = ue.protected(&mut bench, 3600).forwarded();
        assert_eq!(second.text(Name::Path), Some(path.as_str()));
        // Less is granted now, but the set keeps what it had.
        let out = bench.accept(&second, 60);
        assert_eq!(out.extended(), [(set, bench.now + Duration::from_secs(3630))]);
        assert_eq!(bench.registrations()[0]["expires_in_s"], 60);
    }
}

#[test]
fn reauthentication_makes_a_new_set_beside_the_old_one() {
    for mut ue in four_ways() {
        let mut bench = Bench::new();
        let old = ue.attach(&mut bench, 3600);
        ue.renew();
        let request = ue.protected(&mut bench, 3600).forwarded();
        let asked = bench.challenge(&request, "bmV3");
        assert!(asked.removed().is_empty());
        let (id, new) = asked.install();
        assert_eq!((new.port_ps, new.port_us), (old.port_ps, old.port_us), "server ports stay");
        assert!(new.port_pc != old.port_pc && new.port_uc != old.port_uc, "client ports change");
        let (flow, answer) = bench.kernel(id, Ok(())).answered();
        assert_eq!((flow, answer.status()), (ue.answers_of(&old), 401), "the challenge leaves inside the old set");
        assert_eq!(bench.registrations()[0]["sa"]["spi_ps"], old.spi_ps, "the new set is temporary");

        ue.set = Some(new);
        ue.conn = ConnId(2);
        let request = ue.protected(&mut bench, 3600).forwarded();
        let out = bench.accept(&request, 3600);
        assert_eq!(out.extended().len(), 1);
        assert!(out.removed().is_empty(), "the old set still carries what is under way");
        bench.kernel_agrees(&out);
        assert_eq!(out.answered().0, ue.answers_of(&new));
        assert_eq!(bench.registrations()[0]["sa"]["spi_ps"], new.spi_ps);
        assert_eq!(bench.registrations()[0]["sa"]["sets"], 2);

        // A late request over the old set is answered over the old set.
        let mut late = ue.clone();
        (late.set, late.conn, late.cseq) = (Some(old), ConnId(1), 50);
        let request = late.protected(&mut bench, 3600).forwarded();
        let out = bench.accept(&request, 3600);
        assert!(out.sa.is_empty(), "the old set does not come back");
        assert_eq!(out.answered().0, late.answers_of(&old));

        // What is granted over the old set is granted: the new one lives as long.
        bench.pass(60);
        let request = late.protected(&mut bench, 3600).forwarded();
        let out = bench.accept(&request, 3600);
        assert_eq!(out.extended(), [(new, bench.now + Duration::from_secs(3630))]);
        bench.kernel_agrees(&out);

        assert!(bench.pass(67).removed().is_empty());
        assert_eq!(bench.pass(2).removed(), [old], "64*T1 later");
        assert_eq!(bench.registrations()[0]["sa"]["sets"], 1);
        assert!(late.protected(&mut bench, 3600).is_silent());
    }
}

#[test]
fn a_synchronisation_failure_replaces_the_proposal() {
    let mut bench = Bench::new();
    let mut ue = Handset::udp4();
    let first = ue.get_challenged(&mut bench);
    ue.renew();
    let text = ue.register(3600, &ue.sec_agree()).replace("response=\"\"", "response=\"00\",auts=\"AAAA\"");
    let request = bench.packet(ue.clear_flow(), &text).forwarded();
    let out = bench.challenge(&request, "c2Vjb25k");
    assert!(matches!(&out.sa[0].1, SaChange::Remove { set } if *set == first), "first the old proposal goes");
    let (id, second) = out.install();
    assert_ne!(first.spi_ps, second.spi_ps);
    let (flow, answer) = bench.kernel(id, Ok(())).answered();
    assert_eq!((flow, answer.status()), (ue.clear_flow(), 401));
    let mut late = ue.clone();
    late.set = Some(first);
    assert!(late.protected(&mut bench, 3600).is_silent());
    ue.set = Some(second);
    let request = ue.protected(&mut bench, 3600).forwarded();
    let out = bench.accept(&request, 3600);
    assert_eq!(out.answered().0, ue.answers_of(&second));
}

#[test]
fn a_synchronisation_failure_at_reauthentication_stays_inside_the_old_set() {
    let mut bench = Bench::new();
    let mut ue = Handset::udp4();
    let old = ue.attach(&mut bench, 3600);
    let mut proposals = Vec::new();
    for nonce in ["YQ==", "Yg=="] {
        ue.renew();
        let lines = ue.sec_agree();
        let text = ue.register(3600, &lines).replace("realm", "auts=\"AAAA\",realm");
        let request = bench.packet(ue.flow_of(&old), &text).forwarded();
        let (id, set) = bench.challenge(&request, nonce).install();
        let (flow, answer) = bench.kernel(id, Ok(())).answered();
        assert_eq!((flow, answer.status()), (ue.answers_of(&old), 401));
        proposals.push(set);
    }
    assert_eq!(bench.registrations()[0]["sa"]["sets"], 2, "the active one and the last proposal");
    ue.set = Some(proposals[1]);
    let request = ue.protected(&mut bench, 3600).forwarded();
    assert_eq!(bench.accept(&request, 3600).answered().0, ue.answers_of(&proposals[1]));
}

#[test]
fn a_wrong_res_is_refused_inside_the_set_that_then_goes() {
    for mut ue in four_ways() {
        let mut bench = Bench::new();
        let set = ue.get_challenged(&mut bench);
        ue.set = Some(set);
        let request = ue.protected(&mut bench, 3600).forwarded();
        let out = bench.answer(&request, 403, &[]);
        assert!(out.sa.is_empty());
        let (flow, answer) = out.answered();
        assert_eq!((flow, answer.status()), (ue.answers_of(&set), 403));
        assert!(bench.pass(127).removed().is_empty(), "the answer may have to be repeated");
        assert_eq!(bench.pass(2).removed(), [set]);
        bench.assert_empty();
    }
}

#[test]
fn a_wrong_res_at_reauthentication_leaves_the_old_set() {
    let mut bench = Bench::new();
    let mut ue = Handset::udp4();
    let old = ue.attach(&mut bench, 3600);
    ue.renew();
    let request = ue.protected(&mut bench, 3600).forwarded();
    let (id, new) = bench.challenge(&request, "bmV3").install();
    bench.kernel(id, Ok(()));
    ue.set = Some(new);
    let request = ue.protected(&mut bench, 3600).forwarded();
    assert_eq!(bench.answer(&request, 403, &[]).answered().0, ue.answers_of(&new));
    assert_eq!(bench.pass(200).removed(), [new]);
    assert_eq!(bench.registrations()[0]["sa"]["spi_ps"], old.spi_ps);
}

#[test]
fn a_wrong_res_may_be_challenged_again_inside_the_set_it_came_by() {
    let mut bench = Bench::new();
    let mut ue = Handset::udp4();
    let first = ue.get_challenged(&mut bench);
    ue.set = Some(first);
    ue.renew();
    // It offers the next set in the same REGISTER, so Security-Client differs from the challenged one.
    let text = ue.register(3600, &ue.sec_agree()).replace("realm", "auts=\"AAAA\",realm");
    let request = bench.packet(ue.flow_of(&first), &text).forwarded();
    let out = bench.challenge(&request, "c2Vjb25k");
    assert!(out.removed().is_empty());
    let (id, _) = out.install();
    assert_eq!(bench.kernel(id, Ok(())).answered().0, ue.answers_of(&first));
}

#[test]
fn deregistration_is_answered_inside_the_sa_which_goes_later() {
    for mut ue in four_ways() {
        let mut bench = Bench::new();
        let set = ue.attach(&mut bench, 3600);
        let request = ue.protected(&mut bench, 0).forwarded();
        let out = bench.accept(&request, 0);
        assert!(out.removed().is_empty());
        let (flow, ok) = out.answered();
        assert_eq!((flow, ok.status()), (ue.answers_of(&set), 200));
        assert!(bench.registrations().is_empty());
        assert!(bench.pass(127).removed().is_empty());
        assert_eq!(bench.pass(2).removed(), [set]);
        bench.assert_empty();
    }
}

#[test]
fn star_removes_all_and_a_ue_may_come_back_over_the_set_that_was_to_go() {
    let mut bench = Bench::new();
    let mut ue = Handset::udp4();
    let set = ue.attach(&mut bench, 3600);
    let text = ue.register(0, &ue.sec_agree());
    let (head, rest) = text.split_once("Contact: ").unwrap();
    let text = format!("{head}Contact: *\r\nExpires: 0{}", &rest[rest.find("\r\n").unwrap()..]);
    let request = bench.packet(ue.flow_of(&set), &text).forwarded();
    assert_eq!(bench.answer(&request, 200, &[]).answered().1.status(), 200);
    assert!(bench.registrations().is_empty());
    bench.pass(5);
    let request = ue.protected(&mut bench, 3600).forwarded();
    let out = bench.accept(&request, 3600);
    assert_eq!(out.extended().len(), 1);
    bench.kernel_agrees(&out);
    assert!(bench.pass(300).removed().is_empty(), "it is active again");
    assert_eq!(bench.registrations()[0]["sa"]["state"], "active");
}

#[test]
fn an_expired_registration_takes_its_sa_with_it() {
    let mut bench = Bench::new();
    let mut ue = Handset::udp4();
    let set = ue.attach(&mut bench, 600);
    assert!(bench.pass(599).removed().is_empty());
    assert_eq!(bench.registrations().len(), 1);
    assert!(bench.pass(2).removed().is_empty());
    assert!(bench.registrations().is_empty());
    assert_eq!(bench.pass(30).removed(), [set], "after the margin");
    bench.assert_empty();
}

#[test]
fn an_unanswered_challenge_leaves_nothing_behind() {
    let mut bench = Bench::new();
    let set = Handset::udp4().get_challenged(&mut bench);
    assert!(bench.pass(239).removed().is_empty());
    assert_eq!(bench.pass(2).removed(), [set]);
    bench.assert_empty();
}

#[test]
fn a_ue_that_lost_its_sas_attaches_beside_what_it_had() {
    let mut bench = Bench::new();
    let mut before = Handset::udp4();
    let old = before.attach(&mut bench, 3600);
    let mut after = Handset { port: 5070, uc: 41_001, us: 51_001, spi: 9000, call: "call-2".into(), ..Handset::udp4() };
    let request = after.hello(&mut bench).forwarded();
    let out = bench.challenge(&request, "bmV3");
    assert!(out.removed().is_empty(), "who says that this is the same UE?");
    let (id, new) = out.install();
    assert_eq!(bench.kernel(id, Ok(())).answered().0, after.clear_flow());
    let refresh = before.protected(&mut bench, 3600).forwarded();
    let out = bench.accept(&refresh, 3600);
    bench.kernel_agrees(&out);
    assert_eq!(out.answered().0, before.answers_of(&old));
    // Now it is proven: the earlier registration retires.
    after.set = Some(new);
    let request = after.protected(&mut bench, 3600).forwarded();
    let out = bench.accept(&request, 3600);
    bench.kernel_agrees(&out);
    assert_eq!(out.answered().0, after.answers_of(&new));
    let all = bench.registrations();
    assert_eq!((all.len(), &all[0]["sa"]["spi_ps"]), (1, &new.spi_ps.into()));
    assert_eq!(bench.pass(130).removed(), [old]);
    assert_eq!(bench.registrations().len(), 1);
}

#[test]
fn a_ue_that_comes_back_on_the_same_ports_takes_them_over() {
    for same_spi in [false, true] {
        let mut bench = Bench::new();
        let mut ue = Handset::udp4();
        let old = ue.attach(&mut bench, 3600);
        let mut again = Handset { call: "call-2".into(), ..Handset::udp4() };
        if !same_spi {
            again.spi = 9000;
        }
        let request = again.hello(&mut bench).forwarded();
        let out = bench.challenge(&request, "bmV3");
        assert!(matches!(&out.sa[0].1, SaChange::Remove { set } if *set == old), "the old set goes before");
        let (id, new) = out.install();
        bench.kernel(id, Ok(()));
        again.set = Some(new);
        let request = again.protected(&mut bench, 3600).forwarded();
        let out = bench.accept(&request, 3600);
        bench.kernel_agrees(&out);
        assert_eq!(bench.registrations().len(), 1);
    }
}

#[test]
fn a_repeated_register_goes_to_the_core_once_and_gets_the_same_answer() {
    let mut bench = Bench::new();
    let mut ue = Handset::udp4();
    let text = ue.register(3600, &ue.sec_agree());
    let request = bench.packet(ue.clear_flow(), &text).forwarded();
    assert!(bench.packet(ue.clear_flow(), &text).is_silent());
    let asked = bench.challenge(&request, "bm9uY2U=");
    assert!(bench.packet(ue.clear_flow(), &text).is_silent(), "still no answer while the kernel works");
    let (_, first) = bench.kernel(asked.install().0, Ok(())).answered();
    let (flow, second) = bench.packet(ue.clear_flow(), &text).answered();
    assert_eq!((flow, second.to_bytes()), (ue.clear_flow(), first.to_bytes()));
    // And inside the SA: the repeated answer leaves from port_pc to port_us too.
    let set = asked.install().1;
    ue.set = Some(set);
    let text = ue.register(3600, &ue.sec_agree());
    let request = bench.packet(ue.flow_of(&set), &text).forwarded();
    let out = bench.accept(&request, 3600);
    bench.kernel_agrees(&out);
    let (_, first) = out.answered();
    let (flow, second) = bench.packet(ue.flow_of(&set), &text).answered();
    assert_eq!((flow, second.to_bytes()), (ue.answers_of(&set), first.to_bytes()));
}

#[test]
fn of_two_crossing_registers_the_later_challenge_counts() {
    let mut bench = Bench::new();
    let mut ue = Handset::udp4();
    let first = ue.hello(&mut bench).forwarded();
    ue.renew();
    ue.call = "call-2".into();
    let second = ue.hello(&mut bench).forwarded();
    let (id1, set1) = bench.challenge(&first, "YQ==").install();
    let out = bench.challenge(&second, "Yg==");
    assert_eq!(out.removed(), [set1]);
    let (id2, set2) = out.install();
    let (_, answer) = bench.kernel(id1, Ok(())).answered();
    assert_eq!(answer.status(), 500);
    assert_eq!(bench.refused("superseded"), 1);
    assert_eq!(bench.kernel(id2, Ok(())).answered().1.status(), 401);
    ue.set = Some(set2);
    let request = ue.protected(&mut bench, 3600).forwarded();
    let out = bench.accept(&request, 3600);
    bench.kernel_agrees(&out);
    assert_eq!(bench.registrations().len(), 1);
}

#[test]
fn an_answer_whose_connection_is_gone_leaves_from_the_protected_client_port() {
    for v6 in [false, true] {
        let mut bench = Bench::new();
        let mut ue = Handset::new(v6, Transport::Tcp);
        let set = ue.get_challenged(&mut bench);
        ue.set = Some(set);
        let request = ue.protected(&mut bench, 3600).forwarded();
        bench.handle(Event::FlowClosed(ue.conn));
        let out = bench.accept(&request, 3600);
        let (flow, ok) = out.answered();
        let udp = Handset { transport: Transport::Udp, ..ue.clone() }.answers_of(&set);
        assert_eq!((flow, ok.status()), (Flow::tcp(udp.local, udp.remote), 200));
    }
}

#[test]
fn egress_is_pc_to_us_or_the_connection_of_the_ue_and_names_the_server_port() {
    for mut ue in four_ways() {
        let mut bench = Bench::new();
        let set = ue.attach(&mut bench, 3600);
        let request = ue.protected(&mut bench, 3600).forwarded();
        let path = request.text(Name::Path).unwrap().to_owned();
        let token = path.strip_prefix("<sip:").unwrap().split('@').next().unwrap();
        let egress = bench.node.egress(token).unwrap();
        assert_eq!(egress.flow, ue.answers_of(&set));
        assert_eq!(egress.sent_by, format!("{}:6100", ims_core::uri::host_of(ue.pcscf)));
        if ue.transport == Transport::Tcp {
            bench.handle(Event::FlowClosed(ue.conn));
            let egress = bench.node.egress(token).unwrap();
            assert_eq!((egress.flow.conn, egress.flow.local.port()), (None, set.port_pc));
            assert_eq!(egress.flow.remote.port(), set.port_us);
        }
        assert!(bench.node.egress("nobody").is_none());
    }
}

#[test]
fn two_identities_share_one_registration_and_its_sas() {
    let mut bench = Bench::new();
    let mut ue = Handset::udp4();
    let set = ue.attach(&mut bench, 600);
    let text = ue.register(3600, &ue.sec_agree()).replace("To: <sip:001010000000001@", "To: <sip:second@");
    let request = bench.packet(ue.flow_of(&set), &text).forwarded();
    let out = bench.accept(&request, 3600);
    bench.kernel_agrees(&out);
    assert_eq!(bench.registrations().len(), 2);
    assert!(bench.pass(700).removed().is_empty(), "the second still stands");
    assert_eq!(bench.registrations().len(), 1);
    assert_eq!(bench.node.snapshot()["registered"], 1);
}

#[test]
fn every_suite_of_annex_h_and_i_can_be_agreed() {
    let all = [
        "hmac-sha-1-96/null",
        "hmac-sha-1-96/aes-cbc",
        "hmac-sha-1-96/des-ede3-cbc",
        "hmac-md5-96/null",
        "hmac-md5-96/aes-cbc",
        "hmac-md5-96/des-ede3-cbc",
        "null/aes-gcm",
        "aes-gmac/null",
    ];
    for suite in all {
        let mut bench = Bench::with(|c| {
            c.security.preference = all.iter().map(|s| pcscf::config::SuiteName::parse(s).unwrap()).collect();
        });
        let mut ue = Handset { suites: vec![suite], ..Handset::udp4() };
        let set = ue.attach(&mut bench, 3600);
        assert_eq!(format!("{}/{}", set.suite.alg.token(), set.suite.ealg.token()), suite);
        assert_eq!(bench.registrations()[0]["sa"]["suite"], suite);
    }
}

#[test]
fn a_late_refresh_over_an_old_connection_does_not_lead_requests_there() {
    let mut bench = Bench::new();
    let mut ue = Handset::new(false, Transport::Tcp);
    let old = ue.attach(&mut bench, 3600);
    let mut late = ue.clone();
    (late.set, late.cseq) = (Some(old), 50);
    ue.renew();
    let request = ue.protected(&mut bench, 3600).forwarded();
    let (id, new) = bench.challenge(&request, "bmV3").install();
    bench.kernel(id, Ok(()));
    (ue.set, ue.conn) = (Some(new), ConnId(2));
    let request = ue.protected(&mut bench, 3600).forwarded();
    let path = request.text(Name::Path).unwrap().to_owned();
    bench.accept(&request, 3600);
    let request = late.protected(&mut bench, 3600).forwarded();
    bench.accept(&request, 3600);
    let token = path.strip_prefix("<sip:").unwrap().split('@').next().unwrap();
    assert_eq!(bench.node.egress(token).unwrap().flow, ue.answers_of(&new));
}

#[test]
fn an_address_that_something_rewrites_on_the_way_is_told() {
    for mut ue in four_ways() {
        let mut bench = Bench::new();
        ue.hello(&mut bench).forwarded();
        assert_eq!(bench.node.snapshot()["address_rewritten"], 0);
        let offer = ue.sec_agree();
        let text = ue.register(600_000, &offer);
        let mut flow = ue.clear_flow();
        let gateway = if ue.ip.is_ipv4() { "203.0.113.1" } else { "2001:db8:ffff::1" };
        flow.remote.set_ip(gateway.parse().unwrap());
        bench.packet(flow, &text).forwarded();
        assert_eq!(bench.node.snapshot()["address_rewritten"], 1);
    }
}
