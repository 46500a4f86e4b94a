//! TS 29.228 6.3: authentication; what the HSS hands out, it never hands out again.

use crate::support::{die_at_any_step_of_a_registration, is_registered_in_hss, restart_hss, rewrite};
use ims_sip::Name;
use ims_tests::{Lab, LabConfig, What};
use std::time::Duration;

/// The invariants watch the sequence numbers; a crash between two vectors must not bring one back.
#[test]
fn sequence_numbers_survive_a_crash() {
    let mut lab = Lab::new(LabConfig::default());
    for _ in 0..3 {
        lab.register(0).unwrap();
        lab.deregister(0).unwrap();
        lab.world.crash(lab.hss);
        restart_hss(&mut lab);
        lab.world.run_for(Duration::from_secs(60));
    }
    lab.register(0).unwrap();
    assert_eq!(lab.ue(0)["counters"].get("resynchronisations"), None, "the SIM accepted each of them");
    lab.rest();
    lab.assert_no_faults();
}

/// What an MAR changed may not be written yet: no number comes twice (the invariants watch), the SIM accepts each, and what a SAR
/// was told is so.
#[test]
fn the_hss_may_die_at_any_step_of_a_registration() {
    for scscfs in [1, 2] {
        let config = LabConfig { scscfs, ..LabConfig::default() };
        let told = |lab: &mut Lab, when: &str| assert!(is_registered_in_hss(lab), "{when}");
        die_at_any_step_of_a_registration(&config, restart_hss, told, |lab, when| {
            assert_eq!(lab.ue(0)["counters"].get("resynchronisations"), None, "{when}");
            assert!(is_registered_in_hss(lab), "{when}");
        });
    }
}

/// The pending authentication is lost between the two REGISTERs, the S-CSCF's name was never stored: the handset's answer is
/// treated as a first registration (TS 29.228 6.1.1.1), and the SAR stores the name (6.1.2.1).
#[test]
fn a_challenge_that_the_hss_forgot_is_answered_all_the_same() {
    let mut lab = Lab::new(LabConfig::default());
    let id = lab.world.command(lab.ues[0], "register", serde_json::Value::Null);
    let challenged = |lab: &Lab| lab.world.snapshot(lab.hss)["commands"]["MAR"] == 1;
    while !challenged(&lab) {
        lab.world.step();
    }
    lab.world.run_for(Duration::from_millis(3));
    assert_eq!(lab.world.snapshot(lab.hss)["unwritten"], 1);
    restart_hss(&mut lab);
    // The Diameter peers are there again before the handset answers.
    lab.world.gm.latency = Duration::from_secs(3);
    lab.rest();
    assert!(lab.world.reply(id).is_some_and(|told| told.is_ok()), "{}", lab.world.ladder());
    assert_eq!(lab.world.snapshot(lab.hss)["commands"].get("MAR"), None, "without another challenge");
    assert_eq!(lab.subscriber(0)["scscf"], format!("sip:scscf.{}:6060", ims_tests::lab::DOMAIN));
    lab.assert_no_faults();
}

/// The packet core's HSS uses the same SIM with another IND (TS 33.102 Annex C).
#[test]
fn another_authentication_centre_may_share_the_sim() {
    let mut config = LabConfig::default();
    // SEQ 1000 in slot 0, as an EPC HSS would have counted.
    config.ue.sqn = 1000 << 5;
    let mut lab = Lab::new(config);
    let answer = lab.register(0);
    assert!(answer.is_ok(), "{answer:?}");
    lab.rest();
    lab.assert_no_faults();
}

/// TS 33.102 6.3.5: MAC-S is verified before the counter moves.
#[test]
fn a_forged_auts_moves_nothing() {
    let mut config = LabConfig::default();
    config.ue.sqn = 1 << 30;
    let mut lab = Lab::new(config);
    lab.world.filter(rewrite("ue1", "pcscf", |m| {
        let Some(authorization) = m.text(Name::Authorization).map(str::to_owned) else { return };
        if let Some((head, tail)) = authorization.split_once("auts=\"") {
            let forged = format!("{head}auts=\"AAAA{}", &tail[4..]);
            m.set(Name::Authorization, forged);
        }
    }));
    let answer = lab.register(0);
    assert!(answer.is_err(), "{answer:?}");
    lab.rest();
    let sqn = lab.subscriber(0)["private_identities"][0]["sqn"].to_string();
    assert!(sqn.trim_matches('"').trim_start_matches('0').len() < 7, "the counter followed a forgery: {sqn}");
    lab.world.no_filter();
    assert!(lab.register(0).is_ok(), "the true one is accepted");
    lab.rest();
}

/// RFC 6733 5.5.4: the connection breaks with requests on it.
#[test]
fn a_diameter_connection_may_break_in_the_middle() {
    for request in 0..5 {
        let mut lab = Lab::new(LabConfig::default());
        let id = lab.world.command(lab.ues[0], "register", serde_json::Value::Null);
        let asked = |lab: &Lab| lab.world.trace.iter().filter(|e| matches!(e.what, What::Diameter(_))).count();
        while asked(&lab) <= request && lab.world.reply(id).is_none() {
            lab.world.step();
        }
        lab.world.drop_links(lab.hss);
        lab.rest();
        lab.world.run_for(Duration::from_secs(30));
        assert!(lab.register(0).is_ok(), "broken at {request}");
        lab.rest();
        lab.assert_no_faults();
    }
}

/// RFC 6733 5.4: who ends takes leave of its peers, who let it go at once.
#[test]
fn who_ends_takes_leave_of_its_diameter_peers() {
    let lab = || Lab::new(LabConfig::default());
    for node in [lab().hss, lab().icscf, lab().scscf] {
        let mut lab = lab();
        assert!(lab.register(0).is_ok());
        lab.world.stop(node);
        lab.world.run_for(Duration::from_millis(500));
        let state = lab.world.snapshot(node)["diameter"].clone();
        let count = |direction: &str, name: &str| state["counters"][direction][name].as_u64().unwrap_or(0);
        assert!(count("sent", "DPR") > 0 && count("sent", "DPR") == count("received", "DPA 2001"), "{state:#}");
        let open = state["peers"].as_array().is_some_and(|peers| peers.iter().any(|p| p["state"] != "closed"));
        assert!(!open, "{state:#}");
    }
}
