//! Sessions at the P-CSCF, with everything around it (TS 24.229 5.2.6): in every way a handset reaches it, and over its restarts.

use ims_core::config::Span;
use ims_sip::{Message, Name};
use ims_tests::{Lab, LabConfig, Phone, What};
use serde_json::{Value, json};
use std::time::Duration;

const ANSWERS: &str = "[called]\nanswer_after = '2s'";
/// Everything that a session has: provisional answers that are acknowledged, early media, changes from both sides.
const BUSY: &str = "[called]\nringing = 183\nreliable = true\nearly_media = true\nanswer_after = '2s'\n\
    steps = [{ after = '3s', do = 'hold' }, { after = '6s', do = 'resume' }, { after = '9s', do = 'update' }, \
    { after = '12s', do = 'info' }]";
const CALLS: &str = "[calling]\nreliable = true\nsession_expires = 90\nsteps = [{ after = '15s', do = 'video' }, \
    { after = '18s', do = 'audio' }, { after = '21s', do = 'info' }, { after = '24s', do = 'options' }]";

fn lab(config: LabConfig, called: &str) -> Lab {
    let mut lab = Lab::new(LabConfig { handsets: 2, ..config });
    for n in 0..2 {
        lab.register(n).unwrap();
    }
    lab.script(1, called);
    lab.rest();
    lab.world.trace.clear();
    lab
}

fn sessions(lab: &Lab, state: &str) -> Value {
    lab.world.snapshot(lab.pcscf)["sessions"][state].clone()
}

fn ways() -> [LabConfig; 4] {
    [(false, false), (false, true), (true, false), (true, true)].map(|(v6, tcp)| {
        let config = LabConfig { v6, ..LabConfig::default() };
        if tcp { config.with_tcp() } else { config }
    })
}

/// Messages between a node and any handset.
fn on_gm(lab: &Lab) -> Vec<Message> {
    let handset = |id| lab.world.is_handset(id);
    let entries = lab.world.trace.iter().filter(|e| handset(e.from) || e.to.is_some_and(handset));
    entries
        .filter_map(|e| match &e.what {
            What::Sip { bytes, .. } => Message::parse(bytes.clone()).ok(),
            _ => None,
        })
        .collect()
}

#[test]
fn a_session_with_everything_in_it_in_each_way_that_a_handset_comes() {
    for config in ways() {
        let mut lab = lab(config, BUSY);
        lab.script(0, CALLS);
        lab.call(0, 1).unwrap();
        lab.world.run_for(Duration::from_secs(200));
        assert_eq!((sessions(&lab, "answered"), sessions(&lab, "dialogs")), (2.into(), 2.into()));
        lab.tell(1, "hangup", Value::Null).unwrap();
        lab.rest();
        lab.assert_no_faults();
        assert_eq!((sessions(&lab, "answered"), sessions(&lab, "dialogs")), (0.into(), 0.into()));
        assert!(on_gm(&lab).len() > 60);
        for message in on_gm(&lab) {
            let charging = message.has(Name::PChargingVector) || message.has(Name::PChargingFunctionAddresses);
            assert!(!charging, "{message:?}");
        }
    }
}

#[test]
fn a_caller_who_gives_up_and_one_who_is_refused_leave_nothing() {
    for config in ways() {
        let mut lab = lab(config, "[called]\nreject_after = '2s'\nreject_with = 486");
        assert!(lab.call(0, 1).is_err());
        lab.script(1, "");
        lab.script(0, "[calling]\ngive_up_after = '4s'");
        assert!(lab.call(0, 1).is_err());
        lab.rest();
        lab.assert_no_faults();
        let total = sessions(&lab, "begun_total");
        assert_eq!((sessions(&lab, "ringing"), sessions(&lab, "answered"), total), (0.into(), 0.into(), 4.into()));
    }
}

/// 5.2.6.3.7: what is no session.
#[test]
fn messages_and_options_pass_too() {
    let mut lab = lab(LabConfig::default(), "");
    for command in ["message", "options"] {
        let answer = lab.tell(0, command, json!({ "to": ims_tests::lab::msisdn(1) })).unwrap();
        assert_eq!(answer["status"], 200, "{command}");
    }
    lab.assert_no_faults();
}

/// What a session needs is in its Record-Route: a P-CSCF that was killed carries it on.
#[test]
fn a_call_outlasts_a_p_cscf_that_is_killed() {
    for config in ways() {
        for (tells, hears) in [(0, 1), (1, 0)] {
            let mut lab = lab(config.clone(), ANSWERS);
            lab.call(0, 1).unwrap();
            lab.world.run_for(Duration::from_secs(1));
            lab.world.crash(lab.pcscf);
            lab.world.run_for(Duration::from_secs(3));
            lab.rebuild(lab.pcscf);
            lab.world.run_for(Duration::from_secs(1));
            assert_eq!(lab.tell(tells, "info", Value::Null).unwrap()["status"], 200);
            lab.tell(tells, "hangup", Value::Null).unwrap();
            lab.rest();
            assert_eq!(
                (lab.ended(tells), lab.ended(hears)),
                (vec!["hung-up".into()], vec!["hung-up-by-peer".to_owned()])
            );
            lab.assert_no_faults();
            lab.call(0, 1).unwrap();
        }
    }
}

/// 5.2.8.1: whose SAs are gone cannot be talked to; the other end hears it.
#[test]
fn a_call_whose_handset_is_gone_is_released() {
    let mut config = LabConfig::default();
    config.pcscf.timers.sa_audit = Span::secs(10);
    let mut lab = lab(config, ANSWERS);
    lab.call(0, 1).unwrap();
    // Both handsets lose theirs, so both halves of the call go; the S-CSCF hears a BYE from each side.
    lab.world.clear_sas(lab.pcscf);
    lab.world.run_for(Duration::from_secs(60));
    assert_eq!((sessions(&lab, "answered"), lab.registered_at_pcscf()), (0.into(), 0));
    assert_eq!(lab.refusals(lab.pcscf, "session-released"), 2);
    lab.rest();
    assert!(lab.world.is_quiet(lab.scscf));
}

/// 5.2.8.1: one that leaves in the middle of a call.
#[test]
fn who_deregisters_ends_his_calls() {
    let mut lab = lab(LabConfig::default(), ANSWERS);
    lab.call(0, 1).unwrap();
    lab.deregister(0).unwrap();
    lab.rest();
    assert_eq!(sessions(&lab, "answered"), 0);
    assert_eq!(lab.ended(1), ["hung-up-by-peer"]);
    lab.assert_no_faults();
}

/// 5.2.10: a PSAP that is a number of the home network, past the caller's S-CSCF and his application servers.
#[test]
fn an_emergency_call_rings_at_the_psap() {
    for to in ["tel:112", "urn:service:sos", "sip:911@ims.mnc001.mcc001.3gppnetwork.org;user=phone"] {
        let mut config = LabConfig::default();
        config.pcscf.emergency.route = format!("sip:{}@{}", ims_tests::lab::msisdn(1), ims_tests::lab::DOMAIN);
        let mut lab = lab(config, ANSWERS);
        let id = lab.dial(0, to);
        lab.world.run_for(Duration::from_secs(10));
        assert!(lab.world.reply(id).is_some_and(|up| up.is_ok()), "{to}");
        assert_eq!(sessions(&lab, "emergency_total"), 1);
        lab.tell(0, "hangup", Value::Null).unwrap();
        lab.rest();
        assert_eq!(lab.ended(1), ["hung-up-by-peer"]);
        lab.assert_no_faults();
    }
}

#[test]
fn an_emergency_call_that_nobody_takes_is_sent_elsewhere() {
    let mut lab = lab(LabConfig::default(), "");
    let id = lab.dial(0, "urn:service:sos");
    lab.world.run_for(Duration::from_secs(10));
    assert!(lab.world.reply(id).is_some_and(|up| up.is_err()));
    let alternative = on_gm(&lab).into_iter().find(|m| m.status() == 380).expect("a 380");
    assert!(String::from_utf8_lossy(alternative.body()).contains("<type>emergency</type>"));
}

/// 5.2.10.3, 5.4.8: a registration for emergencies stands beside the ordinary one, and is good for nothing else.
#[test]
fn an_emergency_registration_from_another_bearer_and_its_call() {
    let mut config = LabConfig { handsets: 2, ..LabConfig::default() };
    config.pcscf.emergency.route = format!("sip:{}@{}", ims_tests::lab::msisdn(1), ims_tests::lab::DOMAIN);
    config.pcscf.emergency.registered = pcscf::config::EmergencyPolicy::Register;
    let mut lab = Lab::new(config);
    (0..2).for_each(|n| drop(lab.register(n).unwrap()));
    lab.script(1, ANSWERS);
    // The SIM of the first handset once more, at another address.
    let address = lab.config.handset(7).address;
    let mut sos = Phone::with_sim(&mut lab, 0, address);
    sos.spi = 9000;
    let for_help = |text: String| text.replace(">;+sip.instance", ";sos>;+sip.instance");
    let text = for_help(sos.register(&sos.sec_agree()));
    let challenge = sos.ask(&mut lab, &text);
    sos.accept(&mut lab, &challenge);
    let text = for_help(sos.register(&sos.sec_agree()));
    let ok = sos.ask(&mut lab, &text);
    assert_eq!(ok.status(), 200);
    assert!(ok.tokens(Name::Contact).iter().any(|contact| contact.contains(";sos")), "{ok:?}");
    assert_eq!((lab.registered_at_pcscf(), lab.ue(0)["state"].as_str()), (3, Some("registered")));

    // The ordinary one is asked to register for emergencies, this one calls.
    let id = lab.dial(0, "urn:service:sos");
    lab.world.run_for(Duration::from_secs(5));
    assert!(lab.world.reply(id).is_some_and(|up| up.is_err()));
    let invite = |sos: &Phone, uri: &str, n: u32| {
        let (host, port) = (sos.host(), sos.port_us);
        format!(
            "INVITE {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {host}:{port};branch=z9hG4bKsos{n}\r\nMax-Forwards: 70\r\n\
             From: <sip:anonymous@anonymous.invalid>;tag=s{n}\r\nTo: <{uri}>\r\nCall-ID: help{n}\r\nCSeq: 1 INVITE\r\n\
             Contact: <sip:sos@{host}:{port};sos>\r\nSecurity-Verify: {}\r\nContent-Length: 0\r\n\r\n",
            sos.verify
        )
    };
    let text = invite(&sos, "urn:service:sos", 1);
    let ringing = sos.ask(&mut lab, &text);
    assert!((180..=183).contains(&ringing.status()), "{ringing:?}");
    let ordinary = invite(&sos, &format!("tel:{}", ims_tests::lab::msisdn(1)), 2);
    assert_eq!(sos.ask(&mut lab, &ordinary).status(), 403);
    assert_eq!(lab.refusals(lab.pcscf, "no-emergency"), 1);
}
