//! TS 29.228 6.3: authentication; what the HSS hands out, it never hands out again.

use ims_tests::{Lab, LabConfig};
use std::time::Duration;

/// The invariants watch the sequence numbers; a crash between two vectors must not bring one back.
#[test]
fn sequence_numbers_survive_a_crash() {
    let mut lab = Lab::new(LabConfig::default());
    for _ in 0..3 {
        lab.register(0).unwrap();
        lab.deregister(0).unwrap();
        lab.world.crash(lab.hss);
        lab.world.restart(lab.hss, Box::new(hss::Hss::new(lab.config.hss.clone()).unwrap()));
        lab.world.run_for(Duration::from_secs(60));
    }
    lab.register(0).unwrap();
    assert_eq!(lab.ue(0)["counters"].get("resynchronisations"), None, "the SIM accepted each of them");
    lab.rest();
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
