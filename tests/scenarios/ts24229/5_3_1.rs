//! TS 24.229 5.3.1: registration at the I-CSCF.

use crate::support::{cause, restart_hss};
use ims_tests::{Lab, LabConfig, golden};
use std::time::Duration;

fn with_two_scscfs() -> LabConfig {
    LabConfig { scscfs: 2, ..LabConfig::default() }
}

#[test]
fn a_user_whom_the_hss_does_not_know_is_refused() {
    let mut lab = Lab::new(LabConfig { provision: false, ..LabConfig::default() });
    assert_eq!(cause(&lab.register(0)), "status-403");
    assert_eq!(lab.refusals(lab.icscf, "user-unknown"), 1);
    lab.rest();
    golden("ts24229/unknown_user", &lab.world.golden_ladder());
}

/// Authorization names one user, To another.
#[test]
fn identities_that_do_not_belong_together_are_refused() {
    let mut config = LabConfig { handsets: 2, ..LabConfig::default() };
    config.ue.impu = Some(format!("sip:{}@{}", ims_tests::lab::imsi(1), ims_tests::lab::DOMAIN));
    let mut lab = Lab::new(config);
    assert_eq!(cause(&lab.register(0)), "status-403");
    assert_eq!(lab.refusals(lab.icscf, "identities-dont-match"), 1);
    lab.rest();
}

#[test]
fn a_private_identity_that_is_nobodys_is_refused() {
    let mut config = LabConfig::default();
    config.ue.quirk = Some(ue::Quirk::OtherImpi);
    let mut lab = Lab::new(config);
    assert_eq!(cause(&lab.register(0)), "status-403");
    lab.rest();
}

#[test]
fn without_the_hss_nobody_registers_but_everybody_is_told() {
    let mut lab = Lab::new(LabConfig::default());
    lab.world.crash(lab.hss);
    let answer = lab.register(0);
    assert_eq!(cause(&answer), "status-480", "{answer:?}");
    lab.rest();
    restart_hss(&mut lab);
    lab.world.run_for(Duration::from_secs(60));
    assert!(lab.register(0).is_ok(), "the peers connect again");
    lab.rest();
}

/// The HSS is there, but its database is not.
#[test]
fn a_hss_without_database_says_so() {
    let mut lab = Lab::new(LabConfig::default());
    lab.world.crash(lab.hss);
    restart_hss(&mut lab);
    lab.world.run_for(Duration::from_secs(60));
    lab.world.set_store_down(lab.hss, true);
    let answer = lab.register(0);
    assert!(cause(&answer).starts_with("status-"), "{answer:?}");
    lab.rest();
    lab.world.set_store_down(lab.hss, false);
    assert!(lab.register(0).is_ok());
    lab.rest();
}

/// 5.3.1.3: the S-CSCF does not answer, another one is chosen.
#[test]
fn another_scscf_takes_over() {
    let mut lab = Lab::new(with_two_scscfs());
    lab.world.crash(lab.scscf);
    let answer = lab.register(0);
    assert!(answer.is_ok(), "{answer:?}");
    lab.rest();
    lab.assert_no_faults();
    let name = lab.subscriber(0)["scscf"].clone();
    assert_eq!(name, format!("sip:scscf2.{}:6060", ims_tests::lab::DOMAIN));
}

/// 5.3.1.3: the same for a handset whose S-CSCF goes away while it is registered.
#[test]
fn another_scscf_takes_over_a_registered_user() {
    let mut config = with_two_scscfs();
    config.ue.retry = Some(ims_core::config::Span::secs(30));
    let mut lab = Lab::new(config);
    lab.register(0).unwrap();
    lab.rest();
    lab.world.crash(lab.scscf);
    let answer = lab.refresh(0);
    lab.world.run_for(Duration::from_secs(3 * 3600));
    lab.rest();
    assert_eq!(lab.ue(0)["state"], "registered", "{answer:?}");
    assert_eq!(lab.subscriber(0)["scscf"], format!("sip:scscf2.{}:6060", ims_tests::lab::DOMAIN));
}

#[test]
fn no_scscf_at_all_is_said() {
    let mut lab = Lab::new(LabConfig::default());
    lab.world.crash(lab.scscf);
    let answer = lab.register(0);
    assert!(cause(&answer).starts_with("status-5"), "{answer:?}");
    lab.rest();
}

/// Who is registered stays with the S-CSCF that has the registration.
#[test]
fn a_registered_user_keeps_its_scscf() {
    let mut lab = Lab::new(LabConfig { scscfs: 2, handsets: 4, ..LabConfig::default() });
    for n in 0..4 {
        lab.register(n).unwrap();
    }
    let before: Vec<_> = (0..4).map(|n| lab.subscriber(n)["scscf"].clone()).collect();
    for n in 0..4 {
        lab.refresh(n).unwrap();
    }
    let after: Vec<_> = (0..4).map(|n| lab.subscriber(n)["scscf"].clone()).collect();
    assert_eq!(before, after);
    lab.rest();
}
