//! TS 24.229 5.1.1: registration as the UE sees it, from end to end.

use crate::support::{cause, lose_gm_packet, statuses_to_handsets};
use ims_tests::{Lab, LabConfig, Sent, Verdict, What, golden};
use std::time::Duration;

fn attach(config: LabConfig) -> Lab {
    let mut lab = Lab::new(config);
    let answer = lab.register(0);
    assert!(answer.is_ok(), "{answer:?}");
    lab.rest();
    lab.assert_no_faults();
    assert_eq!((lab.registered_at_pcscf(), lab.registered_at_scscf()), (1, 1));
    lab
}

#[test]
fn a_handset_attaches_over_udp() {
    let lab = attach(LabConfig::default());
    golden("ts24229/initial_registration_udp", &lab.world.golden_ladder());
}

#[test]
fn a_handset_attaches_over_tcp() {
    let lab = attach(LabConfig::default().with_tcp());
    golden("ts24229/initial_registration_tcp", &lab.world.golden_ladder());
}

#[test]
fn a_handset_attaches_over_ipv6() {
    let udp = attach(LabConfig { v6: true, ..LabConfig::default() });
    golden("ts24229/initial_registration_udp", &udp.world.golden_ladder());
    let tcp = attach(LabConfig { v6: true, ..LabConfig::default() }.with_tcp());
    golden("ts24229/initial_registration_tcp", &tcp.world.golden_ladder());
}

/// A REGISTER with many offers is longer than 1300 bytes (RFC 3261 18.1.1).
#[test]
fn a_long_register_may_switch_to_tcp() {
    let mut config = LabConfig::default();
    config.ue.udp_limit = 1300;
    attach(config);
}

/// The core's hops carry long requests by TCP when their limit says so.
#[test]
fn the_core_may_speak_tcp() {
    let mut config = LabConfig::default();
    (config.pcscf.mw.udp_limit, config.icscf.udp_limit, config.scscf.udp_limit) = (600, 600, 600);
    attach(config);
}

/// RFC 3261 17.1.4 and 18.4: a connection that the core keeps breaks under a request. It goes out again at once on a new one, and
/// nobody waits for timer F.
#[test]
fn a_connection_of_the_core_that_breaks_at_any_message_of_an_attach_costs_no_timer() {
    let mut config = LabConfig::default();
    (config.pcscf.mw.udp_limit, config.icscf.udp_limit, config.scscf.udp_limit) = (600, 600, 600);
    let packets = |lab: &Lab| lab.world.trace.iter().filter(|e| matches!(e.what, What::Sip { .. })).count();
    let mut packet = 0;
    loop {
        let mut lab = Lab::new(config.clone());
        lab.rest();
        let before = packets(&lab);
        let asked = lab.world.command(lab.ues[0], "register", serde_json::Value::Null);
        let (since, mut broken, mut answer) = (lab.world.now, false, None);
        while answer.is_none() {
            if !broken && packets(&lab) - before >= packet {
                broken = true;
                lab.world.reset_connections(lab.icscf);
            }
            lab.world.step();
            answer = lab.world.reply(asked);
        }
        let took = lab.world.now.since(since);
        assert!(answer.is_some_and(|a| a.is_ok()), "broken at packet {packet}");
        assert!(took < Duration::from_secs(4), "broken at packet {packet}: {took:?}");
        if !broken {
            break;
        }
        packet += 1;
    }
    assert!(packet >= 12, "an attach takes more packets than {packet}");
}

#[test]
fn several_handsets_attach_at_the_same_time() {
    let mut lab = Lab::new(LabConfig { handsets: 20, ..LabConfig::default() });
    let asked: Vec<_> = (0..20).map(|n| lab.world.command(lab.ues[n], "register", serde_json::Value::Null)).collect();
    lab.rest();
    for id in asked {
        assert!(lab.world.reply(id).is_some_and(|r| r.is_ok()));
    }
    lab.assert_no_faults();
    assert_eq!((lab.registered_at_pcscf(), lab.registered_at_scscf()), (20, 20));
    assert_eq!(lab.world.sa_sets(lab.pcscf), 20);
}

#[test]
fn what_is_granted_is_what_the_scscf_allows() {
    let mut lab = Lab::new(LabConfig::default().with_registration("max_expires = 1800\ndefault_expires = 1800"));
    let state = lab.register(0).unwrap();
    assert_eq!(state["binding"]["granted_s"], 1800);
    assert_eq!(state["binding"]["service_route"][0], format!("sip:orig@scscf.{}:6060;lr", ims_tests::lab::DOMAIN));
    assert_eq!(state["binding"]["associated"].as_array().unwrap().len(), 2, "without the barred temporary identity");
}

/// 5.1.1.4.1: 600 seconds before the end.
#[test]
fn a_handset_refreshes_in_time_by_itself() {
    let mut lab = attach(LabConfig::default());
    lab.world.trace.clear();
    lab.world.run_for(Duration::from_secs(7200 - 600 + 10));
    lab.rest();
    assert_eq!(lab.ue(0)["counters"]["refresh"], 1);
    lab.assert_no_faults();
    lab.world.run_for(Duration::from_secs(48 * 3600));
    lab.rest();
    assert!(lab.ue(0)["counters"]["refresh"].as_u64().unwrap() > 20);
    assert_eq!((lab.registered_at_pcscf(), lab.registered_at_scscf(), lab.world.sa_sets(lab.pcscf)), (1, 1, 1));
    lab.assert_no_faults();
}

#[test]
fn a_refresh_inside_the_associations_is_not_challenged() {
    let mut lab = attach(LabConfig::default());
    lab.world.trace.clear();
    lab.refresh(0).unwrap();
    lab.rest();
    golden("ts24229/refresh", &lab.world.golden_ladder());
}

/// 5.1.1.5.1 and TS 33.203 7.4: a new set of associations beside the old one.
#[test]
fn a_refresh_may_be_challenged_and_makes_a_new_set() {
    for tcp in [false, true] {
        let config = LabConfig::default().with_registration("reauthenticate = 'always'");
        let mut lab = attach(if tcp { config.with_tcp() } else { config });
        lab.world.trace.clear();
        let state = lab.refresh(0).unwrap();
        lab.rest();
        lab.assert_no_faults();
        assert_eq!(state["sets"].as_array().unwrap().len(), 2);
        golden(&format!("ts24229/reauthentication_{}", if tcp { "tcp" } else { "udp" }), &lab.world.golden_ladder());
        lab.world.run_for(Duration::from_secs(200));
        assert_eq!((lab.world.sa_sets(lab.ues[0]), lab.world.sa_sets(lab.pcscf)), (1, 1), "the old set is gone");
        lab.refresh(0).unwrap();
        lab.assert_no_faults();
    }
}

#[test]
fn every_datagram_may_be_lost_once_without_harm() {
    for tcp in [false, true] {
        for number in 0..6 {
            let config = LabConfig::default();
            let mut lab = Lab::new(if tcp { config.with_tcp() } else { config });
            if !tcp {
                lab.world.filter(lose_gm_packet(number));
            }
            let answer = lab.register(0);
            assert!(answer.is_ok(), "packet {number}: {answer:?}");
            lab.rest();
            lab.assert_no_faults();
            lab.deregister(0).unwrap();
            lab.rest();
        }
    }
}

/// 5.1.1.5.3: the handset says nothing but that the network is not the one it knows.
#[test]
fn a_network_with_another_key_is_not_believed() {
    let mut lab = Lab::new(LabConfig { provision: false, ..LabConfig::default() });
    lab.provision(0, serde_json::json!({ "k": "00112233445566778899aabbccddeeff" }));
    lab.world.trace.clear();
    let answer = lab.register(0);
    assert_eq!(cause(&answer), "status-403");
    lab.rest();
    assert_eq!(lab.ue(0)["faults"]["mac-failure"], 1);
    assert_eq!(lab.refusals(lab.scscf, "mac-failure"), 1);
    assert_eq!((lab.registered_at_pcscf(), lab.registered_at_scscf()), (0, 0));
    golden("ts24229/mac_failure", &lab.world.golden_ladder());
}

/// 5.1.1.5.3: AUTS; the HSS takes the SIM's number and challenges again.
#[test]
fn a_hss_that_is_behind_is_resynchronised() {
    let mut config = LabConfig::default();
    config.ue.sqn = 1 << 30;
    let lab = attach(config);
    assert_eq!(lab.ue(0)["counters"]["resynchronisations"], 1);
    assert_eq!(statuses_to_handsets(&lab), [401, 401, 200]);
    golden("ts24229/resynchronisation", &lab.world.golden_ladder());
}

/// TS 33.102 C.2.2: the jump is more than the limit that protects the SIM from being worn out.
#[test]
fn a_hss_that_is_too_far_ahead_is_resynchronised() {
    let mut config = LabConfig { provision: false, ..LabConfig::default() };
    config.ue.sqn = 32;
    let mut lab = Lab::new(config);
    lab.provision(0, serde_json::json!({ "sqn": format!("{:012x}", 1u64 << 40) }));
    let answer = lab.register(0);
    assert!(answer.is_ok(), "{answer:?}");
    assert_eq!(lab.ue(0)["counters"]["resynchronisations"], 1);
    lab.rest();
    lab.assert_no_faults();
}

#[test]
fn nobody_at_the_other_end_is_a_timeout() {
    for tcp in [false, true] {
        let config = LabConfig::default();
        let mut lab = Lab::new(if tcp { config.with_tcp() } else { config });
        lab.world.crash(lab.pcscf);
        let answer = lab.register(0);
        assert!(["timeout", "transport"].contains(&cause(&answer)), "{answer:?}");
        lab.rest();
    }
}

/// RFC 5626 4.5 and TS 24.229 5.1.1.2: a handset tries again, less and less often, and comes back with the network.
#[test]
fn a_handset_comes_back_with_the_network() {
    let mut config = LabConfig::default();
    config.ue.retry = Some(ims_core::config::Span::secs(30));
    let mut lab = Lab::new(config);
    lab.world.partition(lab.ues[0], lab.pcscf);
    assert_eq!(cause(&lab.register(0)), "timeout");
    lab.world.run_for(Duration::from_secs(600));
    lab.world.heal();
    lab.world.run_for(Duration::from_secs(1800));
    lab.rest();
    assert_eq!(lab.ue(0)["state"], "registered");
}

/// RFC 3261 20.33: a refusal says when to come again; the handset comes then, and not before.
#[test]
fn a_handset_waits_as_long_as_retry_after_says() {
    let mut config = LabConfig::default();
    config.ue.retry = Some(ims_core::config::Span::secs(30));
    let mut lab = Lab::new(config);
    lab.world.filter(busy_once(5));
    assert_eq!(cause(&lab.register(0)), "status-503");
    lab.world.run_for(Duration::from_secs(4));
    assert_eq!(lab.ue(0)["state"], "off");
    // The back-off would be 30 s at least.
    lab.world.run_for(Duration::from_secs(3));
    assert_eq!(lab.ue(0)["state"], "registered");
    lab.rest();
    lab.assert_no_faults();
}

/// The P-CSCF's first answer to a handset becomes a 503.
fn busy_once(seconds: u32) -> impl FnMut(&Sent<'_>) -> Verdict {
    let mut done = false;
    move |sent| {
        let text = String::from_utf8_lossy(sent.bytes);
        if done || sent.to != "ue1" || !text.starts_with("SIP/2.0 401 ") {
            return Verdict::Pass;
        }
        done = true;
        let line = format!("SIP/2.0 503 Service Unavailable\r\nRetry-After: {seconds}\r\n");
        let rest = text.split_once("\r\n").map_or("", |(_, rest)| rest);
        Verdict::Replace(bytes::Bytes::from(line + rest))
    }
}

/// 5.1.1.4.1: the P-CSCF is away when the refresh is due, and comes back: the handset registers anew before its
/// registration would have ended.
#[test]
fn a_handset_whose_refresh_is_not_answered_registers_anew() {
    let mut config = LabConfig::default();
    config.ue.retry = Some(ims_core::config::Span::secs(30));
    let mut lab = attach(config);
    lab.world.partition(lab.ues[0], lab.pcscf);
    lab.world.run_for(Duration::from_secs(7200 - 600 + 130));
    assert!(lab.ue(0)["binding"].is_null(), "timer F has fired");
    lab.world.heal();
    lab.world.run_for(Duration::from_secs(62));
    assert_eq!(lab.ue(0)["state"], "registered", "{}", lab.ue(0));
    lab.rest();
    assert_eq!(lab.registered_at_scscf(), 1);
    lab.assert_no_faults();
}

/// RFC 3261 10.2.3: the handset asks what is bound, and nothing is changed by it.
#[test]
fn a_handset_may_ask_what_is_bound() {
    let mut lab = attach(LabConfig::default());
    let asked = lab.world.ask(lab.ues[0], "query", serde_json::Value::Null);
    assert!(asked.is_ok(), "{asked:?}");
    lab.rest();
    lab.assert_no_faults();
    assert_eq!((lab.registered_at_pcscf(), lab.registered_at_scscf()), (1, 1));
    assert_eq!((lab.world.sa_sets(lab.ues[0]), lab.world.sa_sets(lab.pcscf)), (1, 1));
}
