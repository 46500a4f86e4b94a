//! A handset that watches its own registration (TS 24.229 5.1.1.3, RFC 3680), calls with it, and what the network ends (5.1.1.7).

use ims_tests::lab::impi;
use ims_tests::{Lab, LabConfig};
use serde_json::{Value, json};
use std::time::Duration;

fn lab() -> Lab {
    let mut config = LabConfig { handsets: 2, ..LabConfig::default() };
    config.ue.reg_event = true;
    config.pcscf.subscribe_reg_event = true;
    let mut lab = Lab::new(config);
    for n in 0..2 {
        lab.register(n).unwrap();
    }
    lab.script(1, "[called]\nanswer_after = '1s'");
    lab.world.run_for(Duration::from_secs(2));
    lab
}

/// TS 24.229 5.1.1.3: the subscription of a UE to its registration.
#[test]
fn a_handset_hears_of_its_registration() {
    let mut lab = lab();
    assert_eq!(lab.ue(0)["reg_event"], json!({ "active": true, "version": 0, "notified": 1 }));
    lab.refresh(0).unwrap();
    lab.world.run_for(Duration::from_secs(2));
    assert!(lab.ue(0)["reg_event"]["notified"].as_u64() >= Some(1), "{}", lab.ue(0)["reg_event"]);
    // For a long time: registration and subscription are refreshed.
    lab.world.run_for(Duration::from_secs(30_000));
    assert_eq!(lab.ue(0)["reg_event"]["active"], true);
    for n in 0..2 {
        lab.deregister(n).unwrap();
    }
    lab.world.run_for(Duration::from_secs(300));
    lab.rest();
    assert_eq!(lab.world.sa_sets(lab.pcscf), 0);
    lab.assert_no_faults();
}

/// TS 24.229 5.1.1.7: network-initiated de-registration in a call.
#[test]
fn who_is_deactivated_in_a_call_registers_again_and_the_call_is_over() {
    let mut lab = lab();
    lab.call(0, 1).unwrap();
    lab.world.ask(lab.scscf, "deregister", json!({ "impi": impi(0) })).unwrap();
    lab.world.run_for(Duration::from_secs(300));
    assert_eq!(lab.ue(0)["counters"]["ended-by-network"], 1);
    assert!(lab.ue(0)["binding"].is_object() && lab.ue(0)["reg_event"]["active"] == true, "{:#}", lab.ue(0));
    assert_eq!((lab.calls(0), lab.calls(1)), (json!([]), json!([])));
    lab.rest();
    lab.call(0, 1).unwrap();
    lab.tell(0, "hangup", Value::Null).unwrap();
    lab.rest();
    lab.assert_no_faults();
}
