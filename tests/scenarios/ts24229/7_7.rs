//! TS 24.229 7.7: SIP timers between UE and P-CSCF.

use ims_tests::{Lab, LabConfig, Verdict, What};
use std::time::Duration;

/// T1 is 2 s on this side, not 500 ms.
#[test]
fn a_handset_repeats_after_two_seconds() {
    let mut lab = Lab::new(LabConfig::default());
    lab.world.filter(|sent| if sent.from == "ue1" { Verdict::Lose } else { Verdict::Pass });
    lab.world.command(lab.ues[0], "register", serde_json::Value::Null);
    let start = lab.world.now;
    lab.world.run_for(Duration::from_secs(20));
    let sent = lab.world.trace.iter().filter(|e| matches!(e.what, What::Sip { .. }));
    let at: Vec<u64> = sent.map(|e| e.at.since(start).as_secs()).collect();
    assert_eq!(at, [0, 2, 6, 14]);
}
