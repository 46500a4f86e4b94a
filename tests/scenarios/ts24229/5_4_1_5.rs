//! Network-initiated de-registration from end to end (TS 24.229 5.4.1.5): the phone and the P-CSCF are told, their answers pass
//! inside the security associations, and then these go.

use super::c5_4_2::{Subscriber, body, watched_by_the_pcscf};
use crate::support::is_registered_in_hss;
use ims_core::Transport;
use ims_sip::Name;
use ims_tests::Lab;
use ims_tests::lab::{DOMAIN, impi, imsi, msisdn};
use serde_json::{Value, json};
use std::time::Duration;

/// What ends a registration, and what the phone is told.
fn causes() -> Vec<(&'static str, Value, &'static str)> {
    vec![
        ("operator", json!({ "impi": impi(0) }), "event=\"deactivated\""),
        ("operator", json!({ "impu": format!("tel:{}", msisdn(0)), "reject": true }), "event=\"rejected\""),
        ("operator", json!({ "impi": impi(0), "retry_after": 90 }), "event=\"probation\" retry-after=\"90\""),
        ("hss", Value::Null, "event=\"rejected\""),
    ]
}

fn end(lab: &mut Lab, by: &str, args: Value) {
    let done = match by {
        "operator" => lab.world.ask(lab.scscf, "deregister", args),
        _ => lab.world.ask(lab.hss, "subscriber.remove", json!({ "imsi": imsi(0) })),
    };
    assert!(done.is_ok(), "{done:?}");
}

#[test]
fn the_phone_hears_it_inside_its_association_and_then_that_goes() {
    for transport in [Transport::Udp, Transport::Tcp] {
        for (by, args, event) in causes() {
            let mut lab = Lab::new(watched_by_the_pcscf());
            let mut one = Subscriber::subscribed(&mut lab, transport);
            end(&mut lab, by, args);
            let last = one.notified(&mut lab);
            assert_eq!(last.text(Name::SubscriptionState), Some("terminated;reason=noresource"), "{by}");
            assert_eq!(body(&last).matches(event).count(), 2, "{by}: {}", body(&last));
            assert!(!body(&last).contains("state=\"active\""), "{}", body(&last));
            // 64*T1 of the phone's side, for what is repeated.
            lab.world.run_for(Duration::from_secs(200));
            lab.rest();
            assert_eq!((lab.registered_at_scscf(), lab.registered_at_pcscf()), (0, 0), "{by}");
            assert_eq!(lab.world.snapshot(lab.scscf)["subscriptions"], 0);
            assert_eq!(lab.world.snapshot(lab.pcscf)["sa_sets"], 0, "no association is left");
            if by == "operator" {
                assert!(!is_registered_in_hss(&mut lab));
                // It may come back.
                one.phone.reboot(&mut lab);
                one.phone.attach(&mut lab);
                lab.rest();
                assert_eq!(lab.registered_at_scscf(), 1);
            }
        }
    }
}

/// TS 29.228 6.2: what changes in the HSS counts at once, and the phone stays.
#[test]
fn a_changed_profile_reaches_who_is_registered() {
    let mut lab = Lab::new(watched_by_the_pcscf());
    let mut one = Subscriber::subscribed(&mut lab, Transport::Udp);
    let change = |changes: Value| json!({ "imsi": imsi(0), "changes": changes });
    let server = json!([{ "priority": 0, "server": "sip:as.ims.example", "when": { "method": "REGISTER" } }]);
    lab.world.ask(lab.hss, "subscriber.change", change(json!({ "criteria": server }))).unwrap();
    lab.rest();
    assert_eq!(lab.registered_at_scscf(), 1);
    // The new criterion counts for the next REGISTER.
    lab.world.trace.clear();
    let (ok, _) = one.registers(&mut lab);
    assert_eq!(ok.status(), 200);
    lab.rest();
    assert_eq!(lab.refusals(lab.scscf, "third-party-failed"), 1, "there is no such server");
    // Other identities are another registration: who had one is to come again.
    let impus = json!([format!("sip:{}@{DOMAIN}", msisdn(0)), format!("sip:alice@{DOMAIN}")]);
    lab.world.ask(lab.hss, "subscriber.change", change(json!({ "impus": impus }))).unwrap();
    let last = one.notified(&mut lab);
    assert!(body(&last).contains("state=\"terminated\" event=\"deactivated\""), "{}", body(&last));
    lab.rest();
    assert_eq!((lab.registered_at_scscf(), lab.registered_at_pcscf()), (0, 0));
}
