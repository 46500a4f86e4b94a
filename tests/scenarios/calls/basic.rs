//! Calls between two registered handsets through P, S, I, S and P (TS 24.229 5.2.6, 5.3.2, 5.4.3), inside security associations.

use ims_tests::{Lab, LabConfig};
use serde_json::Value;
use std::time::Duration;

/// Two registered handsets; the second does as its script says.
fn lab(config: LabConfig, called: &str) -> Lab {
    let mut lab = Lab::new(LabConfig { handsets: 2, ..config });
    for n in 0..2 {
        lab.register(n).unwrap();
    }
    lab.script(1, called);
    lab.world.run_for(Duration::from_secs(1));
    lab.world.trace.clear();
    lab
}

const ANSWERS: &str = "[called]\nanswer_after = '2s'";

#[test]
fn a_call() {
    let mut lab = lab(LabConfig::default(), ANSWERS);
    lab.call(0, 1).unwrap();
    lab.world.run_for(Duration::from_secs(5));
    lab.tell(0, "hangup", Value::Null).unwrap();
    lab.rest();
    assert_eq!((lab.ended(0), lab.ended(1)), (vec!["hung-up".into()], vec!["hung-up-by-peer".to_owned()]));
    lab.assert_no_faults();
}
