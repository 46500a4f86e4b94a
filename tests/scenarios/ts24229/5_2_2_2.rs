//! TS 24.229 5.2.2.2: what arrives at the P-CSCF over security associations, and how a UE comes to new ones.

use crate::support::{Told, assert_nothing_left};
use ims_core::{Flow, Transport};
use ims_sip::{Message, Name};
use ims_tests::{Lab, LabConfig, Phone, What, golden};
use std::net::IpAddr;
use std::time::Duration;

const LINGER: u64 = 128; // 64*T1

fn lab() -> Lab {
    Lab::new(LabConfig { handsets: 0, ..LabConfig::default() })
}

fn reauthenticating() -> Lab {
    Lab::new(LabConfig { handsets: 0, ..LabConfig::default() }.with_registration("reauthenticate = 'always'"))
}

fn sip_between(lab: &Lab, from: &str, to: &str) -> usize {
    let fits = |e: &&ims_tests::Entry| {
        matches!(e.what, What::Sip { .. })
            && lab.world.name(e.from) == from
            && e.to.is_some_and(|t| lab.world.name(t) == to)
    };
    lab.world.trace.iter().filter(fits).count()
}

fn registered(lab: &Lab) -> serde_json::Value {
    let all = lab.world.snapshot(lab.pcscf)["registrations"].clone();
    assert_eq!(all.as_array().map(Vec::len), Some(1), "{all:#}");
    all[0].clone()
}

/// A REGISTER over the set that the phone uses, with its next offer.
fn refresh(lab: &mut Lab, phone: &mut Phone) -> Message {
    let text = phone.register(&phone.sec_agree());
    phone.ask(lab, &text)
}

/// Repeated before its answer, after it, and both again over the SA: the core hears each REGISTER once, and the same
/// answer comes again by the same way (RFC 3261 17.2.2).
#[test]
fn a_register_may_be_repeated_at_each_step() {
    let mut lab = lab();
    let mut phone = Phone::new(&mut lab, 0);
    lab.world.trace.clear();
    let mut answers = Vec::new();
    for step in 0..2 {
        let text = phone.register(&phone.sec_agree());
        let flow = phone.flow();
        for _ in 0..3 {
            phone.send_by(&mut lab, flow, &text);
        }
        let (first_flow, first) = phone.next(&mut lab);
        for seconds in [0, 2, 20] {
            assert!(phone.hears_nothing(&mut lab, seconds));
            phone.send_by(&mut lab, flow, &text);
            let (again_flow, again) = phone.next(&mut lab);
            assert_eq!((again_flow, again.to_bytes()), (first_flow, first.to_bytes()), "step {step}");
        }
        answers.push((first.status(), Phone::ports(first_flow)));
        if step == 0 {
            phone.accept(&mut lab, &first);
            // Once more in clear, now that the phone has its SAs.
            phone.send_by(&mut lab, flow, &text);
            assert_eq!(phone.next(&mut lab).1.to_bytes(), first.to_bytes());
        }
    }
    let set = phone.set.unwrap();
    assert_eq!(answers, [(401, (5060, 5060)), (200, (set.port_pc, set.port_us))]);
    lab.rest();
    assert_eq!((sip_between(&lab, "pcscf", "icscf"), lab.world.sa_sets(lab.pcscf)), (2, 1));
}

/// Two first REGISTERs cross: the later challenge counts, and the phone that answers it is in.
#[test]
fn of_two_first_registers_that_cross_the_later_challenge_counts() {
    for same_offer in [true, false] {
        let mut lab = lab();
        let mut phone = Phone::new(&mut lab, 0);
        let first = phone.register(&phone.sec_agree());
        if !same_offer {
            phone.renew();
        }
        phone.call.push('b');
        let second = phone.register(&phone.sec_agree());
        phone.send(&mut lab, &first);
        phone.send(&mut lab, &second);
        let (_, one) = phone.next(&mut lab);
        let (_, two) = phone.next(&mut lab);
        assert_eq!(two.status(), 401);
        assert!([401, 500].contains(&one.status()));
        assert!(two.text(Name::CallId).unwrap().ends_with('b'));
        phone.accept(&mut lab, &two);
        assert_eq!(refresh(&mut lab, &mut phone).status(), 200, "same offer {same_offer}");
        lab.rest();
        lab.world.run_for(Duration::from_secs(300));
        assert_eq!((lab.registered_at_pcscf(), lab.world.sa_sets(lab.pcscf)), (1, 1));
    }
}

/// Two refreshes cross inside the SA: both are answered there.
#[test]
fn two_refreshes_that_cross_are_both_answered() {
    let mut lab = lab();
    let mut phone = Phone::new(&mut lab, 0);
    phone.attach(&mut lab);
    let first = phone.register(&phone.sec_agree());
    let second = phone.register(&phone.sec_agree());
    phone.send(&mut lab, &first);
    phone.send(&mut lab, &second);
    let statuses = [phone.next(&mut lab).1.status(), phone.next(&mut lab).1.status()];
    assert_eq!(statuses, [200, 200]);
    lab.rest();
    assert_eq!((lab.registered_at_pcscf(), lab.world.sa_sets(lab.pcscf)), (1, 1));
}

/// Samsung: first REGISTER over UDP, everything else over whichever it likes, inside one set (TS 33.203 7.1).
#[test]
fn udp_and_tcp_may_change_inside_one_set() {
    for (name, ways) in [
        ("samsung", [Transport::Udp, Transport::Tcp, Transport::Udp, Transport::Tcp]),
        ("the_other_way", [Transport::Tcp, Transport::Udp, Transport::Tcp, Transport::Udp]),
    ] {
        let mut lab = lab();
        let mut phone = Phone::new(&mut lab, 0).over(ways[0]);
        lab.world.trace.clear();
        phone.get_challenged(&mut lab);
        let set = phone.set.unwrap();
        for (n, transport) in ways.iter().enumerate().skip(1) {
            phone.transport = *transport;
            phone.expires = if n == 3 { 0 } else { 600_000 };
            let text = phone.register(&phone.sec_agree());
            phone.send(&mut lab, &text);
            let (flow, ok) = phone.next(&mut lab);
            let expected = match transport {
                Transport::Udp => (set.port_pc, set.port_us),
                Transport::Tcp => (set.port_ps, set.port_uc),
            };
            assert_eq!((ok.status(), flow.transport, Phone::ports(flow)), (200, *transport, expected), "{name} {n}");
            if n < 3 {
                assert_eq!(registered(&lab)["transport"], transport.to_string());
            }
        }
        golden(&format!("ts24229/{name}"), &lab.world.golden_ladder());
        assert_nothing_left(&mut lab);
    }
}

/// The UE closes its connection while the core works: in clear the answer has no way, inside the SA it goes from port_pc
/// to port_us. Either way the phone comes in, and nothing is left.
#[test]
fn a_connection_may_close_before_the_answer() {
    let mut lab = lab();
    let mut phone = Phone::new(&mut lab, 0).over(Transport::Tcp);
    let text = phone.register(&phone.sec_agree());
    phone.send(&mut lab, &text);
    lab.world.run_for(Duration::from_millis(62)); // it has arrived, and the core has it
    assert!(sip_between(&lab, "pcscf", "icscf") > 0 && sip_between(&lab, "pcscf", "phone1") == 0);
    lab.world.close_connections(phone.id);
    phone.hears_nothing(&mut lab, 60);
    phone.reboot(&mut lab);
    phone.get_challenged(&mut lab);

    let text = phone.register(&phone.sec_agree());
    let before = sip_between(&lab, "pcscf", "icscf");
    phone.send(&mut lab, &text);
    lab.world.run_for(Duration::from_millis(62));
    assert_eq!((sip_between(&lab, "pcscf", "icscf"), phone.hears_nothing(&mut lab, 0)), (before + 1, true));
    lab.world.close_connections(phone.id);
    let (flow, ok) = phone.next(&mut lab);
    let set = phone.set.unwrap();
    assert_eq!((ok.status(), Phone::ports(flow)), (200, (set.port_pc, set.port_us)));
    lab.rest();
    assert_eq!(registered(&lab)["sa"]["spi_ps"], set.spi_ps);
    lab.world.run_for(Duration::from_secs(300));
    assert_eq!(lab.world.sa_sets(lab.pcscf), 1, "the attempt that was cut is gone");
}

/// RFC 3261 17.2.2 and 18.2.2: the same REGISTER again on a new connection, while the core still works. It is no new one, and
/// its answer comes by the new connection.
#[test]
fn a_register_may_be_repeated_on_a_new_connection() {
    let mut lab = lab();
    let mut phone = Phone::new(&mut lab, 0).over(Transport::Tcp);
    lab.world.trace.clear();
    for step in 0..2 {
        let text = phone.register(&phone.sec_agree());
        phone.send(&mut lab, &text);
        lab.world.run_for(Duration::from_millis(62));
        lab.world.core.latency = Duration::from_millis(40); // slow, but nothing inside is repeated
        lab.world.close_connections(phone.id);
        lab.world.run_for(Duration::from_millis(1));
        phone.send(&mut lab, &text);
        let (flow, answer) = phone.next(&mut lab);
        assert_eq!((answer.status(), flow.transport), (if step == 0 { 401 } else { 200 }, Transport::Tcp));
        match phone.set {
            None => {
                assert_eq!(flow.remote.port(), 5060, "{flow}");
                phone.accept(&mut lab, &answer);
            }
            Some(set) => assert_eq!(Phone::ports(flow), (set.port_ps, set.port_uc)),
        }
        assert!(phone.hears_nothing(&mut lab, 40), "one answer");
    }
    lab.rest();
    assert_eq!((sip_between(&lab, "pcscf", "icscf"), lab.registered_at_pcscf()), (2, 1));
}

/// The same at every moment: whatever the network knew when the connection went, the phone that tries again is in, and of
/// what was cut off nothing stays.
#[test]
fn a_connection_may_close_at_any_moment() {
    for cut in (0..120).step_by(6) {
        for protected in [false, true] {
            let mut lab = lab();
            let mut phone = Phone::new(&mut lab, 0).over(Transport::Tcp);
            if protected {
                phone.get_challenged(&mut lab);
            }
            let text = phone.register(&phone.sec_agree());
            phone.send(&mut lab, &text);
            lab.world.run_for(Duration::from_millis(cut));
            lab.world.close_connections(phone.id);
            phone.hears_nothing(&mut lab, 60);
            phone.forget_what_came();
            match protected {
                true => assert_eq!(refresh(&mut lab, &mut phone).status(), 200, "after {cut} ms"),
                false => {
                    phone.reboot(&mut lab);
                    phone.renew();
                    phone.attach(&mut lab);
                }
            }
            let spi = phone.set.unwrap().spi_ps;
            assert_eq!(registered(&lab)["sa"]["spi_ps"], spi, "after {cut} ms, protected {protected}");
            lab.rest();
            lab.world.run_for(Duration::from_secs(300));
            assert_eq!(lab.world.sa_sets(lab.pcscf), 1, "after {cut} ms, protected {protected}");
        }
    }
}

/// After the 401, and after the 200: the phone connects to the protected port again and goes on.
#[test]
fn a_phone_reconnects_to_the_protected_port() {
    let mut lab = lab();
    let mut phone = Phone::new(&mut lab, 0).over(Transport::Tcp);
    phone.get_challenged(&mut lab);
    lab.world.close_connections(phone.id);
    lab.world.run_for(Duration::from_secs(1));
    for _ in 0..3 {
        let text = phone.register(&phone.sec_agree());
        phone.send(&mut lab, &text);
        let (flow, ok) = phone.next(&mut lab);
        let set = phone.set.unwrap();
        assert_eq!((ok.status(), Phone::ports(flow)), (200, (set.port_ps, set.port_uc)));
        lab.world.close_connections(phone.id);
        lab.world.run_for(Duration::from_secs(100));
        assert_eq!(registered(&lab)["sa"]["spi_ps"], set.spi_ps, "a connection is not a registration");
    }
    phone.expires = 0;
    assert_eq!(refresh(&mut lab, &mut phone).status(), 200);
    assert_nothing_left(&mut lab);
}

/// Connections cut before the request was whole, or with nothing said at all.
#[test]
fn a_connection_may_close_in_the_middle_of_a_request() {
    let mut lab = lab();
    let mut phone = Phone::new(&mut lab, 0).over(Transport::Tcp);
    let set_free = |lab: &mut Lab, phone: &Phone| {
        lab.world.close_connections(phone.id);
        lab.world.run_for(Duration::from_secs(1));
    };
    phone.send(&mut lab, "\r\n\r\n");
    lab.world.run_for(Duration::from_secs(1));
    set_free(&mut lab, &phone);
    phone.attach(&mut lab);
    phone.send(&mut lab, "\r\n\r\n");
    set_free(&mut lab, &phone);
    assert_eq!(refresh(&mut lab, &mut phone).status(), 200);
    lab.rest();
}

/// The iPhone leaves: new SPIs and port-c in Security-Client, the old nonce once more with nc=2. 200 without a challenge,
/// over the SA, which stays 64*T1 (5.2.5.1, TS 33.203 7.4); within seconds it is back.
#[test]
fn an_iphone_leaves_and_comes_back() {
    let mut lab = lab();
    let mut phone = Phone::new(&mut lab, 0);
    phone.attach(&mut lab);
    lab.world.trace.clear();
    let set = phone.set.unwrap();
    phone.renew();
    phone.answer_again();
    assert!(phone.authorization.contains("nc=00000002"));
    phone.expires = 0;
    let text = phone.register(&phone.sec_agree());
    phone.send(&mut lab, &text);
    let (flow, ok) = phone.next(&mut lab);
    assert_eq!((ok.status(), Phone::ports(flow)), (200, (set.port_pc, set.port_us)));
    golden("ts24229/iphone_deregisters", &lab.world.golden_ladder());
    assert_eq!((lab.registered_at_pcscf(), lab.registered_at_scscf()), (0, 0));

    // The 200 was lost on the air: it asks again, and is answered again, as long as a transaction lasts.
    lab.world.run_for(Duration::from_secs(30));
    phone.send(&mut lab, &text);
    assert_eq!(phone.next(&mut lab).1.status(), 200);
    lab.world.run_for(Duration::from_secs(LINGER - 30 - 1));
    assert_eq!(lab.world.sa_sets(lab.pcscf), 1);
    lab.world.run_for(Duration::from_secs(2));
    assert_eq!(lab.world.sa_sets(lab.pcscf), 0);
    assert_nothing_left(&mut lab);

    for _ in 0..3 {
        phone.reboot(&mut lab);
        phone.expires = 600_000;
        phone.renew();
        phone.attach(&mut lab);
        phone.expires = 0;
        phone.renew();
        phone.answer_again();
        assert_eq!(refresh(&mut lab, &mut phone).status(), 200);
        lab.world.run_for(Duration::from_secs(3));
    }
    assert!(lab.world.sa_sets(lab.pcscf) <= 3);
    assert_nothing_left(&mut lab);
}

/// A phone that crashed without a word comes back on new ports, or on the same: in both cases it is in, and what it had
/// before ends.
#[test]
fn a_phone_comes_back_after_a_crash() {
    for same_ports in [false, true] {
        let mut lab = lab();
        let mut phone = Phone::new(&mut lab, 0);
        phone.attach(&mut lab);
        let old = phone.set.unwrap();
        phone.reboot(&mut lab);
        if !same_ports {
            phone.renew();
        }
        lab.world.trace.clear();
        phone.get_challenged(&mut lab);
        // Beside the old set as long as nothing is proven; on its ports only instead of it.
        let beside = if same_ports { 1 } else { 2 };
        assert_eq!((lab.registered_at_pcscf(), lab.world.sa_sets(lab.pcscf)), (beside - 1, beside));
        assert_eq!(refresh(&mut lab, &mut phone).status(), 200);
        let new = registered(&lab);
        assert_eq!((&new["sa"]["spi_ps"], &new["sa"]["state"]), (&phone.set.unwrap().spi_ps.into(), &"active".into()));
        assert_ne!(old.spi_ps, phone.set.unwrap().spi_ps);
        assert_eq!(lab.registered_at_scscf(), 1);
        golden(
            if same_ports { "ts24229/back_on_the_same_ports" } else { "ts24229/back_on_new_ports" },
            &lab.world.golden_ladder(),
        );
        lab.rest();
        lab.world.run_for(Duration::from_secs(LINGER + 2));
        assert_eq!(lab.world.sa_sets(lab.pcscf), 1, "64*T1 later only the new set is there");
        assert_eq!(refresh(&mut lab, &mut phone).status(), 200);
    }
}

/// TS 33.203 7.5 and TS 24.229 5.2.2: another address is another registration; the one before ends when the new one is
/// proven, and not before. IPv6 privacy addresses change inside one prefix.
#[test]
fn a_phone_changes_its_address() {
    for (v6, address) in [(false, "10.1.0.99"), (true, "fd00:1::a5b6:c7d8:e9fa:1")] {
        let mut lab = Lab::new(LabConfig { handsets: 0, v6, ..LabConfig::default() });
        let mut before = Phone::new(&mut lab, 0);
        before.attach(&mut lab);
        let address: IpAddr = address.parse().unwrap();
        let mut after = Phone::with_sim(&mut lab, 0, address);
        after.call = "after".into();
        after.get_challenged(&mut lab);
        assert_eq!(refresh(&mut lab, &mut before).status(), 200, "nothing is proven yet");
        assert_eq!(registered(&lab)["ue"], before.host().trim_matches(['[', ']']));
        assert_eq!(refresh(&mut lab, &mut after).status(), 200);
        assert_eq!(registered(&lab)["ue"], address.to_string());
        assert_eq!(lab.registered_at_scscf(), 1);
        lab.rest();
        lab.world.run_for(Duration::from_secs(LINGER + 2));
        assert_eq!(lab.world.sa_sets(lab.pcscf), 1);
        let text = before.register(&before.sec_agree());
        before.send(&mut lab, &text);
        assert!(before.hears_nothing(&mut lab, 40), "nobody is there any more");
        assert_eq!(refresh(&mut lab, &mut after).status(), 200);
        lab.rest();
    }
}

/// Another phone with the same private identity: as the S-CSCF keeps one contact, so do we.
#[test]
fn a_second_ue_with_the_same_identity_takes_the_place_of_the_first() {
    let mut lab = lab();
    let mut first = Phone::new(&mut lab, 0);
    first.attach(&mut lab);
    let mut second = Phone::with_sim(&mut lab, 0, "10.1.0.77".parse().unwrap());
    second.call = "second".into();
    second.attach(&mut lab);
    assert_eq!((registered(&lab)["ue"].as_str(), lab.registered_at_scscf()), (Some("10.1.0.77"), 1));
    // The first may say good-bye over what it still has; that does not touch the second.
    first.expires = 0;
    let status = refresh(&mut lab, &mut first).status();
    assert!([200, 403, 500].contains(&status), "{status}");
    lab.rest();
    assert_eq!(registered(&lab)["ue"], "10.1.0.77");
    lab.world.run_for(Duration::from_secs(LINGER + 2));
    assert_eq!(lab.world.sa_sets(lab.pcscf), 1);
}

/// Two phones of one private identity with instances of their own: the S-CSCF keeps both contacts (5.4.1.2.2F), and the
/// P-CSCF serves what the S-CSCF has, neither more nor less.
#[test]
fn two_instances_stay_as_the_s_cscf_has_them() {
    for reg_id in ["", ";reg-id=1"] {
        let mut lab = lab();
        let with =
            |text: String, n: usize| text.replace("35000000-000000-0>\"", &format!("35000000-00000{n}-0>\"{reg_id}"));
        let mut phones = [Phone::new(&mut lab, 0), Phone::with_sim(&mut lab, 0, "10.1.0.78".parse().unwrap())];
        for (n, phone) in phones.iter_mut().enumerate() {
            phone.call = format!("phone-{n}");
            let text = with(phone.register(&phone.sec_agree()), n);
            let challenge = phone.ask(&mut lab, &text);
            phone.accept(&mut lab, &challenge);
            let text = with(phone.register(&phone.sec_agree()), n);
            assert_eq!(phone.ask(&mut lab, &text).status(), 200);
        }
        lab.rest();
        let contacts = |lab: &Lab| {
            let bindings = lab.world.snapshot(lab.scscf)["registrations"][0]["bindings"].clone();
            (bindings.as_array().map(Vec::len), lab.registered_at_pcscf())
        };
        assert_eq!(contacts(&lab), (Some(2), 2));
        lab.world.run_for(Duration::from_secs(LINGER + 2));
        assert_eq!(lab.world.sa_sets(lab.pcscf), 2);
        // One leaves, the other stays.
        phones[0].expires = 0;
        let agree = phones[0].sec_agree();
        let text = with(phones[0].register(&agree), 0);
        assert_eq!(phones[0].ask(&mut lab, &text).status(), 200);
        assert_eq!(contacts(&lab), (Some(1), 1));
        let agree = phones[1].sec_agree();
        let text = with(phones[1].register(&agree), 1);
        assert_eq!(phones[1].ask(&mut lab, &text).status(), 200);
        assert_eq!(registered(&lab)["ue"], "10.1.0.78");
        lab.rest();
    }
}

/// The offer at re-authentication names the ports in use (TS 33.203 7.1 wants others): no second set can stand beside
/// them. The challenge comes without Security-Server, over the set there is.
#[test]
fn the_ports_in_use_offered_again_cost_nobody_the_registration() {
    let mut lab = reauthenticating();
    let mut phone = Phone::new(&mut lab, 0);
    phone.attach(&mut lab);
    lab.world.trace.clear();
    let set = phone.set.unwrap();
    let told = Told::listen();
    let challenge = refresh(&mut lab, &mut phone);
    assert_eq!((challenge.status(), challenge.has(Name::SecurityServer)), (401, false));
    assert_eq!((told.take("its SA set stays as it is"), lab.refusals(lab.pcscf, "ports-in-use")), (1, 1));
    // One phone goes on over what it has.
    phone.accept(&mut lab, &challenge);
    assert_eq!(refresh(&mut lab, &mut phone).status(), 200);
    assert_eq!(registered(&lab)["sa"]["spi_ps"], set.spi_ps);
    golden("ts24229/ports_in_use", &lab.world.golden_ladder());
    // Another one begins again, and gets its new set.
    let challenge = refresh(&mut lab, &mut phone);
    assert!(!challenge.has(Name::SecurityServer));
    phone.renew();
    phone.call.push('n');
    let challenge = refresh(&mut lab, &mut phone);
    assert!(challenge.has(Name::SecurityServer));
    phone.accept(&mut lab, &challenge);
    assert_eq!(refresh(&mut lab, &mut phone).status(), 200);
    assert_ne!(registered(&lab)["sa"]["spi_ps"], set.spi_ps);
    lab.rest();
    lab.world.run_for(Duration::from_secs(LINGER + 2));
    assert_eq!(lab.world.sa_sets(lab.pcscf), 1);
}

/// Over the SA of one private identity nobody speaks for another.
#[test]
fn an_sa_speaks_for_its_own_identity() {
    let mut lab = lab();
    let mut phone = Phone::new(&mut lab, 0);
    phone.attach(&mut lab);
    let told = Told::listen();
    phone.authorization = phone.authorization.replace(&ims_tests::lab::impi(0), &ims_tests::lab::impi(1));
    let answer = refresh(&mut lab, &mut phone);
    assert_eq!((answer.status(), lab.refusals(lab.pcscf, "other-identity")), (403, 1));
    assert_eq!(told.take("the SA belongs to"), 1);
    assert_eq!(lab.registered_at_pcscf(), 1);
    lab.rest();
}

/// What is longer than 1300 bytes comes by TCP, what is shorter by UDP, and both over the same set at the same time.
#[test]
fn two_transports_at_the_same_time() {
    let mut lab = lab();
    let mut phone = Phone::new(&mut lab, 0);
    phone.attach(&mut lab);
    let udp = phone.register(&phone.sec_agree());
    phone.transport = Transport::Tcp;
    let tcp = phone.register(&phone.sec_agree());
    let flow = phone.flow();
    phone.send_by(&mut lab, Flow { transport: Transport::Udp, ..flow }, &udp);
    phone.send_by(&mut lab, flow, &tcp);
    let mut seen: Vec<(Transport, u16)> = (0..2)
        .map(|_| {
            let (flow, answer) = phone.next(&mut lab);
            (flow.transport, answer.status())
        })
        .collect();
    seen.sort_by_key(|(t, _)| t.to_string());
    assert_eq!(seen, [(Transport::Tcp, 200), (Transport::Udp, 200)]);
    lab.rest();
    assert_eq!(lab.world.sa_sets(lab.pcscf), 1);
}
