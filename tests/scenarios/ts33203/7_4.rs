//! TS 33.203 7.4: what becomes of associations.

use crate::support::cause;
use ims_tests::{Lab, LabConfig};
use std::time::Duration;

/// Server ports stay, client ports and SPIs change.
#[test]
fn each_reauthentication_has_new_client_ports_and_spis() {
    let mut lab = Lab::new(LabConfig::default().with_registration("reauthenticate = 'always'"));
    lab.register(0).unwrap();
    let mut seen = Vec::new();
    for _ in 0..12 {
        let sets = lab.ue(0)["sets"].clone();
        let last = sets.as_array().unwrap().last().unwrap().clone();
        assert_eq!((last["port_us"].as_u64(), last["port_ps"].as_u64()), (Some(5064), Some(6100)));
        seen.push((last["port_uc"].clone(), last["port_pc"].clone(), last["spi_us"].clone(), last["spi_ps"].clone()));
        lab.world.run_for(Duration::from_secs(300));
        let answer = lab.refresh(0);
        assert!(answer.is_ok(), "{answer:?}");
        lab.assert_no_faults();
    }
    for pair in seen.windows(2) {
        let ((uc, pc, us, ps), (uc2, pc2, us2, ps2)) = (&pair[0], &pair[1]);
        assert!(uc != uc2 && pc != pc2 && us != us2 && ps != ps2, "{pair:?}");
    }
    lab.rest();
    lab.world.run_for(Duration::from_secs(300));
    assert_eq!((lab.world.sa_sets(lab.pcscf), lab.world.sa_sets(lab.ues[0])), (1, 1));
}

/// Re-authentications in quick succession: no more than six associations in each direction.
#[test]
fn there_are_never_more_than_three_sets() {
    let mut lab = Lab::new(LabConfig::default().with_registration("reauthenticate = 'always'"));
    lab.register(0).unwrap();
    for _ in 0..6 {
        let answer = lab.refresh(0);
        assert!(answer.is_ok(), "{answer:?}");
        assert!(lab.world.sa_sets(lab.pcscf) <= 3 && lab.world.sa_sets(lab.ues[0]) <= 3);
    }
    lab.rest();
    lab.world.run_for(Duration::from_secs(300));
    assert!(lab.refresh(0).is_ok(), "old sets are gone, and there is room again");
    lab.rest();
    lab.assert_no_faults();
}

/// The challenge of a re-authentication is lost with everything after it: the old set still serves.
#[test]
fn the_old_set_serves_until_the_new_one_is_used() {
    let mut lab = Lab::new(LabConfig::default().with_registration("reauthenticate = 'always'"));
    lab.register(0).unwrap();
    lab.rest();
    lab.world.fail_next_sa(lab.ues[0], ims_core::sa::SaError::Kernel(12));
    assert_eq!(cause(&lab.refresh(0)), "sa-refused");
    lab.rest();
    assert_eq!(lab.ue(0)["state"], "registered");
    lab.world.run_for(Duration::from_secs(10));
    let answer = lab.refresh(0);
    assert!(answer.is_ok(), "{answer:?}");
    lab.rest();
    lab.assert_no_faults();
    lab.world.run_for(Duration::from_secs(600));
    assert_eq!((lab.world.sa_sets(lab.pcscf), lab.world.sa_sets(lab.ues[0])), (1, 1));
}

/// Associations live a little longer than the registration.
#[test]
fn associations_outlive_the_registration_by_a_margin_only() {
    let mut lab = Lab::new(LabConfig::default().with_registration("max_expires = 600\ndefault_expires = 600"));
    lab.register(0).unwrap();
    lab.world.crash(lab.ues[0]);
    lab.world.run_for(Duration::from_secs(599));
    assert_eq!(lab.world.sa_sets(lab.pcscf), 1);
    lab.world.run_for(Duration::from_secs(300));
    assert_eq!(lab.world.sa_sets(lab.pcscf), 0);
}

/// The kernel of the handset loses its associations: after a while the handset starts anew and is let in.
#[test]
fn a_handset_that_lost_its_associations_comes_back() {
    let mut config = LabConfig::default().with_registration("max_expires = 600\ndefault_expires = 600");
    config.ue.retry = Some(ims_core::config::Span::secs(30));
    let mut lab = Lab::new(config);
    lab.register(0).unwrap();
    lab.rest();
    lab.world.clear_sas(lab.ues[0]);
    lab.world.run_for(Duration::from_secs(1200));
    lab.rest();
    assert_eq!(lab.ue(0)["state"], "registered");
}

/// The hard lifetime in the kernel is that of the registration and a margin, and a refresh moves it.
#[test]
fn the_kernels_lifetime_follows_the_registration() {
    let mut lab = Lab::new(LabConfig::default().with_registration("max_expires = 600\ndefault_expires = 600"));
    lab.register(0).unwrap();
    let margin = |lab: &Lab, granted_at: ims_core::Time| {
        let lifetimes = lab.world.sa_lifetimes(lab.pcscf);
        assert_eq!(lifetimes.len(), 1);
        let over = lifetimes[0].since(granted_at + Duration::from_secs(600));
        assert!(over > Duration::from_secs(29) && over <= Duration::from_secs(30), "{over:?}");
    };
    margin(&lab, lab.world.now);
    lab.world.run_for(Duration::from_secs(200));
    lab.refresh(0).unwrap();
    margin(&lab, lab.world.now);
}

/// The kernel ends a set before its time: whoever is registered over it alone is not registered any more, here and on disk.
#[test]
fn an_early_expiry_in_the_kernel_ends_the_registration() {
    let mut config = LabConfig::default().with_registration("max_expires = 600\ndefault_expires = 600");
    config.ue.retry = Some(ims_core::config::Span::secs(30));
    let mut lab = Lab::new(config);
    lab.register(0).unwrap();
    lab.world.cut_sas_short(lab.pcscf, lab.world.now + Duration::from_secs(20));
    lab.world.run_for(Duration::from_secs(21));
    assert_eq!((lab.registered_at_pcscf(), lab.world.sa_sets(lab.pcscf), lab.world.kept(lab.pcscf)), (0, 0, 0));
    assert_eq!(lab.refusals(lab.pcscf, "sa-expired-early"), 1);
    lab.world.run_for(Duration::from_secs(900));
    lab.rest();
    assert_eq!((lab.ue(0)["state"].as_str(), lab.registered_at_pcscf()), (Some("registered"), 1));
}

/// A lifetime in the kernel that is shorter than ours is found and moved.
#[test]
fn a_lifetime_that_drifted_is_set_right() {
    let mut lab = Lab::new(LabConfig::default());
    lab.register(0).unwrap();
    let right = lab.world.sa_lifetimes(lab.pcscf);
    lab.world.cut_sas_short(lab.pcscf, lab.world.now + Duration::from_secs(100));
    lab.world.run_for(Duration::from_secs(101));
    assert_eq!((lab.world.sa_lifetimes(lab.pcscf), lab.registered_at_pcscf()), (right, 1));
    assert_eq!(lab.refusals(lab.pcscf, "sa-extended-again"), 1);
}

/// One association of a set is gone from the kernel, unnoticed: within a minute the registration is corrected, what is left
/// of the set is removed, and the handset, which hears nothing at its next refresh, comes back.
#[test]
fn a_set_that_is_not_whole_any_more_is_found() {
    let mut config = LabConfig { handsets: 2, ..LabConfig::default() };
    config = config.with_registration("max_expires = 600\ndefault_expires = 600");
    config.ue.retry = Some(ims_core::config::Span::secs(30));
    let mut lab = Lab::new(config);
    lab.register(0).unwrap();
    lab.register(1).unwrap();
    lab.world.lose_one_sa(lab.pcscf);
    lab.world.run_for(Duration::from_secs(61));
    assert_eq!((lab.registered_at_pcscf(), lab.world.sa_sets(lab.pcscf)), (1, 1));
    assert_eq!(lab.refusals(lab.pcscf, "sa-set-lost"), 1);
    lab.world.run_for(Duration::from_secs(900));
    lab.rest();
    assert_eq!((lab.registered_at_pcscf(), lab.world.sa_sets(lab.pcscf)), (2, 2));
}

/// A phone that says nothing for hours is there until its registration ends; the status tells since when it is silent.
#[test]
fn silence_never_deregisters() {
    let mut lab = Lab::new(LabConfig::default().with_registration("max_expires = 36000\ndefault_expires = 36000"));
    lab.register(0).unwrap();
    lab.world.crash(lab.ues[0]);
    lab.world.run_for(Duration::from_secs(30_000));
    let shown = &lab.world.snapshot(lab.pcscf)["registrations"][0];
    assert!(shown["heard_s_ago"].as_u64().is_some_and(|s| s >= 29_900), "{shown}");
    assert!(shown["sa"]["packets_in"].as_u64().is_some_and(|n| n > 0), "{shown}");
    assert_eq!(lab.world.sa_sets(lab.pcscf), 1);
}
