//! TS 29.228 6.1.3: the HSS ends registrations.

use ims_tests::{Lab, LabConfig};
use serde_json::json;
use std::time::Duration;

/// A SIM is taken out of service while its S-CSCF cannot be reached: it is told as soon as it is back, also by an HSS that was
/// restarted meanwhile.
#[test]
fn an_scscf_that_was_away_hears_of_it_when_it_is_back() {
    for crashes in [false, true] {
        hears_of_it(crashes);
    }
}

fn hears_of_it(crashes: bool) {
    let mut lab = Lab::new(LabConfig::default());
    lab.register(0).unwrap();
    lab.rest();
    lab.world.partition(lab.hss, lab.scscf);
    lab.world.run_for(Duration::from_secs(1));
    lab.world.ask(lab.hss, "subscriber.remove", json!({ "imsi": ims_tests::lab::imsi(0) })).unwrap();
    lab.world.run_for(Duration::from_secs(60));
    assert_eq!(lab.registered_at_scscf(), 1, "it cannot know");
    assert_eq!(lab.refusals(lab.hss, "rtr-undelivered"), 1);
    if crashes {
        lab.rebuild(lab.hss);
    }
    assert_eq!(lab.world.snapshot(lab.hss)["undelivered"], 1);
    lab.world.heal();
    lab.world.run_for(Duration::from_secs(120));
    assert_eq!(lab.registered_at_scscf(), 0, "the S-CSCF still serves a subscriber that was removed");
    assert_eq!(lab.world.snapshot(lab.hss)["undelivered"], 0);
    lab.rest();
}
