//! TS 24.229 5.4.1.2: registration at the S-CSCF.

use crate::support::{cause, restart_hss, statuses_to_handsets};
use ims_tests::{Lab, LabConfig, golden};
use std::time::Duration;
use ue::Quirk;

fn misbehaving(quirk: Quirk) -> Lab {
    let mut config = LabConfig::default();
    config.ue.quirk = Some(quirk);
    Lab::new(config)
}

/// 5.4.1.2.2: the wrong answer to the challenge.
#[test]
fn a_wrong_res_is_refused() {
    let mut lab = misbehaving(Quirk::WrongRes);
    let answer = lab.register(0);
    assert!(answer.is_err(), "{answer:?}");
    lab.rest();
    assert!(lab.refusals(lab.scscf, "wrong-response") > 0);
    assert_eq!((lab.registered_at_pcscf(), lab.registered_at_scscf()), (0, 0));
    assert_eq!(lab.subscriber(0)["scscf"], serde_json::Value::Null, "nothing is left at the HSS");
    lab.world.run_for(Duration::from_secs(600));
    assert_eq!(lab.world.sa_sets(lab.pcscf), 0);
    golden("ts24229/wrong_res", &lab.world.golden_ladder());
}

/// An answer to a challenge that was never given.
#[test]
fn a_wrong_nonce_is_not_accepted() {
    let mut lab = misbehaving(Quirk::WrongNonce);
    let answer = lab.register(0);
    assert!(answer.is_err(), "{answer:?}");
    lab.rest();
    assert_eq!((lab.registered_at_pcscf(), lab.registered_at_scscf()), (0, 0));
}

/// 5.4.1.2.1: reg-await-auth; the challenge is forgotten, and the associations with it.
#[test]
fn a_challenge_without_answer_is_forgotten() {
    let mut lab = misbehaving(Quirk::Mute);
    let id = lab.world.command(lab.ues[0], "register", serde_json::Value::Null);
    lab.world.run_for(Duration::from_secs(5));
    assert_eq!(lab.world.snapshot(lab.scscf)["challenges"], 1);
    lab.world.run_for(Duration::from_secs(600));
    assert_eq!(lab.world.snapshot(lab.scscf)["challenges"], 0);
    assert_eq!(lab.world.sa_sets(lab.pcscf), 0);
    assert!(lab.world.reply(id).is_none(), "the handset never answered, and nobody asked it again");
}

#[test]
fn an_interval_too_brief_is_corrected_by_the_handset() {
    let mut config = LabConfig::default().with_registration("min_expires = 600");
    config.ue.expires = 120;
    let mut lab = Lab::new(config);
    let answer = lab.register(0);
    let statuses = statuses_to_handsets(&lab);
    lab.rest();
    assert!(answer.is_ok() && statuses.contains(&423), "{answer:?} {statuses:?}");
    assert_eq!(lab.ue(0)["binding"]["granted_s"], 600);
}

/// 5.4.1.2.2E and 5.2.2.1: the handset has gone for good.
#[test]
fn a_registration_that_nobody_renews_ends_everywhere() {
    let mut lab = Lab::new(LabConfig::default().with_registration("max_expires = 600\ndefault_expires = 600"));
    lab.register(0).unwrap();
    lab.world.run_for(Duration::from_secs(90));
    lab.world.crash(lab.ues[0]);
    lab.world.trace.clear();
    lab.world.run_for(Duration::from_secs(500));
    assert_eq!((lab.registered_at_pcscf(), lab.registered_at_scscf()), (1, 1));
    lab.world.run_for(Duration::from_secs(600));
    assert_eq!((lab.registered_at_pcscf(), lab.registered_at_scscf()), (0, 0));
    assert_eq!(lab.world.sa_sets(lab.pcscf), 0);
    let states = lab.subscriber(0)["impus"].to_string();
    assert!(!states.contains("\"registered\""), "{states}");
    golden("ts24229/expiry", &lab.world.golden_ladder());
}

#[test]
fn the_hss_knows_who_is_registered_where() {
    let mut lab = Lab::new(LabConfig::default());
    lab.register(0).unwrap();
    let subscriber = lab.subscriber(0);
    assert_eq!(subscriber["scscf"], format!("sip:scscf.{}:6060", ims_tests::lab::DOMAIN));
    assert!(subscriber["impus"].as_array().unwrap().iter().all(|i| i["state"] == "registered"), "{subscriber}");
}

/// The HSS goes away between challenge and answer.
#[test]
fn the_hss_may_go_away_in_the_middle() {
    let mut lab = Lab::new(LabConfig::default());
    let id = lab.world.command(lab.ues[0], "register", serde_json::Value::Null);
    while statuses_to_handsets(&lab).is_empty() {
        lab.world.step();
    }
    lab.world.crash(lab.hss);
    lab.rest();
    let answer = lab.world.reply(id).expect("the handset is told");
    assert_eq!(cause(&answer), "status-480", "{answer:?}");
    restart_hss(&mut lab);
    lab.world.run_for(Duration::from_secs(60));
    assert!(lab.register(0).is_ok());
    lab.rest();
}
