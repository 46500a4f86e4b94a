//! TS 24.229 5.4.1.4: de-registration by the user; 5.4.1.5: by the network.

use crate::support::attached;
use ims_tests::{Lab, LabConfig, golden};
use serde_json::json;
use std::time::Duration;

/// Inside the associations nobody asks for another authentication.
#[test]
fn a_handset_deregisters() {
    for tcp in [false, true] {
        let config = LabConfig::default().with_registration("reauthenticate = 'always'");
        let mut lab = attached(if tcp { config.with_tcp() } else { config });
        let answer = lab.deregister(0);
        assert!(answer.is_ok(), "{answer:?}");
        lab.rest();
        lab.assert_no_faults();
        assert_eq!((lab.registered_at_pcscf(), lab.registered_at_scscf()), (0, 0));
        let states = lab.subscriber(0)["impus"].to_string();
        assert!(!states.contains("\"registered\""), "{states}");
        assert_eq!(lab.world.sa_sets(lab.ues[0]), 0);
        lab.world.run_for(Duration::from_secs(300));
        assert_eq!(lab.world.sa_sets(lab.pcscf), 0, "64*T1 after the last answer");
        golden(&format!("ts24229/deregistration_{}", if tcp { "tcp" } else { "udp" }), &lab.world.golden_ladder());
    }
}

/// Field notes 3: the 200 must reach the handset inside the set that goes.
#[test]
fn the_answer_may_be_lost_and_comes_again() {
    let mut lab = attached(LabConfig::default());
    lab.world.filter(crate::support::lose_gm_packet(1));
    let answer = lab.deregister(0);
    assert!(answer.is_ok(), "{answer:?}");
    lab.rest();
    lab.assert_no_faults();
}

#[test]
fn a_handset_comes_and_goes_many_times() {
    let mut lab = Lab::new(LabConfig::default());
    for _ in 0..20 {
        lab.register(0).unwrap();
        lab.world.run_for(Duration::from_secs(3));
        lab.deregister(0).unwrap();
        lab.world.run_for(Duration::from_secs(3));
    }
    lab.rest();
    lab.assert_no_faults();
    lab.world.run_for(Duration::from_secs(300));
    assert_eq!((lab.world.sa_sets(lab.pcscf), lab.registered_at_pcscf()), (0, 0));
}

/// TS 29.228 6.1.3: the operator removes the subscriber, and the S-CSCF hears of it.
#[test]
fn a_removed_subscriber_is_deregistered() {
    let mut lab = attached(LabConfig::default());
    let removed = lab.world.ask(lab.hss, "subscriber.remove", json!({ "imsi": ims_tests::lab::imsi(0) }));
    assert!(removed.is_ok(), "{removed:?}");
    lab.rest();
    assert_eq!(lab.registered_at_scscf(), 0);
}
