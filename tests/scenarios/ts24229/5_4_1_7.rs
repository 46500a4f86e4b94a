//! Application servers hear of registrations (TS 24.229 5.4.1.7), from the criteria in the HSS to their transactions.

use crate::support::is_registered_in_hss;
use ims_tests::lab::{DOMAIN, msisdn};
use ims_tests::{Lab, LabConfig, NodeId, Part};
use serde_json::{Value, json};
use std::time::Duration;

/// A handset whose registrations a server hears of.
fn lab(more: &Value) -> (Lab, NodeId) {
    let mut config = LabConfig { provision: false, ..LabConfig::default() };
    config.pcscf.subscribe_reg_event = true;
    let mut lab = Lab::new(config);
    let (server, uri) = lab.add_server(Part::Answer { status: 200, contact: None });
    let mut criterion = json!({ "priority": 0, "server": uri, "when": { "method": "REGISTER" } });
    for (name, value) in more.as_object().into_iter().flatten() {
        criterion[name.as_str()] = value.clone();
    }
    lab.provision(0, json!({ "criteria": [criterion] }));
    (lab, server)
}

fn heard(lab: &Lab, server: NodeId) -> Vec<(String, u64, String)> {
    let text = |one: &Value, name: &str| one[name].as_str().unwrap_or_default().to_owned();
    let all = lab.heard(server);
    all.iter().map(|one| (text(one, "method"), text(one, "expires").parse().unwrap(), text(one, "body"))).collect()
}

#[test]
fn a_server_hears_of_registration_refresh_and_end() {
    let more =
        json!({ "service_info": "plan=gold", "include_register_request": true, "include_register_response": true });
    let (mut lab, server) = lab(&more);
    lab.register(0).unwrap();
    lab.rest();
    lab.refresh(0).unwrap();
    lab.rest();
    lab.deregister(0).unwrap();
    lab.rest();
    lab.assert_no_faults();
    let [first, again, end] = &heard(&lab, server)[..] else { panic!("{:?}", heard(&lab, server)) };
    for (method, expires, body) in [first, again] {
        assert_eq!((method.as_str(), *expires), ("REGISTER", 7200));
        for part in ["<service-info>plan=gold</service-info>", "REGISTER sip:", "SIP/2.0 200 OK"] {
            assert!(body.contains(part), "{part}: {body}");
        }
    }
    assert!(end.1 == 0 && end.2.contains("SIP/2.0 200 OK") && !end.2.contains("service-info"), "{end:?}");
    let to = format!("P-Associated-URI: <sip:{}@{DOMAIN}>", msisdn(0));
    assert!(first.2.contains(&to), "{}", first.2);
}

/// 5.4.1.5: the server cannot be without; UE and P-CSCF are told, the HSS hears of it.
#[test]
fn a_server_that_is_silent_ends_the_registration_when_its_criterion_says_so() {
    for (handling, stays) in [("terminate", false), ("continue", true)] {
        let (mut lab, server) = lab(&json!({ "default_handling": handling }));
        lab.world.partition(lab.scscf, server);
        lab.register(0).unwrap();
        assert_eq!(lab.registered_at_scscf(), 1, "until the server was given its time");
        lab.world.run_for(Duration::from_secs(120));
        lab.rest();
        let registered = (lab.registered_at_scscf(), lab.registered_at_pcscf(), is_registered_in_hss(&mut lab));
        assert_eq!(registered, (usize::from(stays), usize::from(stays), stays), "{handling}");
        assert!(lab.refusals(lab.scscf, "third-party-failed") >= 1, "{handling}");
        lab.world.heal();
        if !stays {
            lab.register(0).unwrap();
            lab.rest();
            assert_eq!((lab.registered_at_scscf(), heard(&lab, server).last().map(|h| h.1)), (1, Some(7200)));
        }
    }
}

/// 5.4.1.6: nobody says good-bye.
#[test]
fn a_server_hears_that_a_handset_has_vanished() {
    let (mut lab, server) = lab(&json!({ "when": { "method": "REGISTER", "registration": ["deregistration"] } }));
    lab.register(0).unwrap();
    lab.world.crash(lab.ues[0]);
    lab.world.run_for(Duration::from_secs(7300));
    lab.rest();
    assert_eq!(heard(&lab, server).iter().map(|h| h.1).collect::<Vec<_>>(), [0]);
}
