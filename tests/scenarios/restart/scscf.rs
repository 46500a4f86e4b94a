//! The S-CSCF is killed and started again: what it has acknowledged is still so.

use crate::support::{attached, die_at_any_step_of_a_registration, is_registered_in_hss, restart_hss};
use ims_tests::{Lab, LabConfig};
use serde_json::json;
use std::time::Duration;

fn restart_scscf(lab: &mut Lab) {
    let node = scscf::Scscf::new(lab.config.scscf.clone()).unwrap();
    lab.world.restart(lab.scscf, Box::new(node));
}

#[test]
fn it_may_die_at_any_step_of_a_registration() {
    let told = |lab: &mut Lab, when: &str| assert_eq!(lab.registered_at_scscf(), 1, "{when}");
    die_at_any_step_of_a_registration(&LabConfig::default(), restart_scscf, told, |lab, when| {
        assert_eq!((lab.registered_at_scscf(), lab.world.kept(lab.scscf)), (1, 1), "{when}");
        assert!(is_registered_in_hss(lab), "{when}");
    });
}

/// TS 24.229 5.4.1.2.2: a refresh inside the association, and nobody asks for another authentication.
#[test]
fn a_refresh_after_it_is_not_challenged() {
    let mut lab = attached(LabConfig::default());
    let until = |lab: &Lab| lab.world.snapshot(lab.scscf)["registrations"][0]["bindings"][0]["expires_at_s"].as_u64();
    let before = until(&lab);
    restart_scscf(&mut lab);
    assert!(before.is_some() && until(&lab) == before, "as it was");
    lab.world.run_for(Duration::from_secs(2));
    lab.world.trace.clear();
    assert!(lab.refresh(0).is_ok());
    lab.rest();
    lab.assert_no_faults();
    let ladder = lab.world.golden_ladder();
    assert!(!ladder.contains("401") && !ladder.contains("MAR"), "{ladder}");
    assert_eq!((lab.registered_at_scscf(), lab.world.kept(lab.scscf)), (1, 1));
}

/// A long time may pass since the last authentication, the process's death included.
#[test]
fn it_still_knows_when_a_handset_was_authenticated() {
    let mut lab = attached(LabConfig::default().with_registration("reauthenticate = '1h'"));
    lab.world.run_for(Duration::from_secs(1800));
    restart_scscf(&mut lab);
    lab.world.run_for(Duration::from_secs(1805));
    lab.world.trace.clear();
    let _ = lab.refresh(0);
    let ladder = lab.world.golden_ladder();
    assert!(ladder.contains("MAR"), "an hour is over:\n{ladder}");
}

#[test]
fn a_deregistration_after_it_is_one() {
    let mut lab = attached(LabConfig::default());
    restart_scscf(&mut lab);
    lab.world.run_for(Duration::from_secs(2));
    assert!(lab.deregister(0).is_ok());
    lab.rest();
    lab.assert_no_faults();
    assert_eq!((lab.registered_at_scscf(), lab.world.kept(lab.scscf)), (0, 0));
    assert!(!is_registered_in_hss(&mut lab));
    restart_scscf(&mut lab);
    assert_eq!(lab.registered_at_scscf(), 0, "and stays one");
}

/// TS 24.229 5.4.1.6, TS 29.228 6.1.2: TIMEOUT_DEREGISTRATION, late; and later still when the HSS is away too.
#[test]
fn what_runs_out_meanwhile_is_told_to_the_hss() {
    for hss_is_away in [false, true] {
        let mut lab = attached(LabConfig::default());
        lab.world.crash(lab.ues[0]);
        lab.world.crash(lab.scscf);
        lab.world.run_for(Duration::from_secs(4 * 3600));
        assert!(is_registered_in_hss(&mut lab));
        if hss_is_away {
            lab.world.crash(lab.hss);
        }
        restart_scscf(&mut lab);
        assert_eq!(lab.registered_at_scscf(), 0);
        assert_eq!(lab.refusals(lab.scscf, "registration-expired"), 1);
        if hss_is_away {
            lab.world.run_for(Duration::from_secs(60));
            assert_eq!((lab.world.snapshot(lab.scscf)["untold"].as_u64(), lab.world.kept(lab.scscf)), (Some(1), 1));
            let peer = lab.world.snapshot(lab.scscf)["diameter"]["peers"][0].clone();
            let down = peer["down_since"].as_u64().map(|at| lab.world.now.secs() - at);
            assert!(down >= Some(59), "however often it was tried again: {peer}");
            restart_scscf(&mut lab);
            restart_hss(&mut lab);
        }
        lab.world.run_for(Duration::from_secs(60));
        assert_eq!((lab.world.snapshot(lab.scscf)["untold"].as_u64(), lab.world.kept(lab.scscf)), (Some(0), 0));
        assert!(!is_registered_in_hss(&mut lab), "hss away: {hss_is_away}");
    }
}

/// The expiry of a registration that was restored comes at its time.
#[test]
fn what_was_restored_runs_out_in_time() {
    let mut lab = attached(LabConfig::default().with_registration("max_expires = 600\ndefault_expires = 600"));
    lab.world.crash(lab.ues[0]);
    lab.world.run_for(Duration::from_secs(100));
    restart_scscf(&mut lab);
    lab.world.run_for(Duration::from_secs(300));
    assert_eq!(lab.registered_at_scscf(), 1);
    lab.world.run_for(Duration::from_secs(120));
    assert_eq!((lab.registered_at_scscf(), lab.world.kept(lab.scscf)), (0, 0));
    assert!(!is_registered_in_hss(&mut lab));
}

/// TS 24.229 5.4.1.5: a registration that the network ended does not come back.
#[test]
fn what_the_network_ended_stays_ended() {
    let mut lab = attached(LabConfig::default());
    lab.world.ask(lab.hss, "subscriber.remove", json!({ "imsi": ims_tests::lab::imsi(0) })).unwrap();
    lab.rest();
    assert_eq!(lab.world.kept(lab.scscf), 0);
    restart_scscf(&mut lab);
    assert_eq!(lab.registered_at_scscf(), 0);
}

#[test]
fn entries_that_it_cannot_read_are_counted_and_dropped() {
    let mut lab = attached(LabConfig::default());
    for (key, value) in [
        ("registration/700", &b"\x02{\"impi\":7}"[..]),
        ("registration/701", b""),
        ("registration/x", b"\x02{}"),
        ("something else", b"\x02"),
        ("registration/702", b"\x07whatever comes after us"),
    ] {
        lab.world.kept_mut(lab.scscf).insert(key.into(), bytes::Bytes::from_static(value));
    }
    restart_scscf(&mut lab);
    assert_eq!(lab.registered_at_scscf(), 1, "the good one is there");
    assert_eq!(lab.refusals(lab.scscf, "kept-damaged"), 4);
    assert_eq!(lab.refusals(lab.scscf, "kept-by-another-version"), 1);
    assert_eq!(lab.world.kept(lab.scscf), 1);
    lab.world.run_for(Duration::from_secs(2));
    assert!(lab.refresh(0).is_ok());
}
