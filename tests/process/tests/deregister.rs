//! An operator ends a registration of the running box, over REST and on the command line; the P-CSCF hears of it.

use ims_process_tests::handset::{self, Attach};
use ims_process_tests::{Lab, patience};
use serde_json::Value;
use std::time::Duration;

const BOX: &str = "127.69.33.1";
const IMSI: &str = "001010000000001";
const DOMAIN: &str = "ims.mnc001.mcc001.3gppnetwork.org";

/// How many are registered at the S-CSCF, and at the P-CSCF.
fn registered(lab: &Lab) -> (usize, usize) {
    let (_, text) = lab.rest("GET", "/v1/status", "");
    let status: Value = serde_json::from_str(&text).unwrap();
    let at = |role: &str| status[role]["registrations"].as_array().map_or(0, Vec::len);
    (at("scscf"), at("pcscf"))
}

fn comes_to(lab: &Lab, wanted: (usize, usize)) {
    let there = patience::until(Duration::from_secs(20), || registered(lab) == wanted);
    assert!(there, "{:?} and not {wanted:?}\n{}", registered(lab), lab.printed());
}

#[test]
fn a_registration_is_ended_by_rest_and_by_command() {
    let lab =
        Lab::start_on("deregister", BOX, &format!("addresses = [\"{BOX}\"]\n[pcscf]\nsubscribe_reg_event = true"), &[]);
    lab.subscribe(IMSI);
    let phone = Attach::new(IMSI, handset::loopback(33), BOX.parse().unwrap());
    let impu = format!("sip:{IMSI}@{DOMAIN}");
    handset::attach_in_clear(&phone).unwrap();
    comes_to(&lab, (1, 1));
    // The P-CSCF has subscribed.
    assert!(patience::until(Duration::from_secs(10), || lab
        .rest("GET", "/v1/status", "")
        .1
        .contains("\"subscriptions\":1")));

    let body = format!("{{\"impu\":\"{impu}\"}}");
    let (status, text) =
        ims_process_tests::http::request(&format!("{BOX}:8080"), "wrong", "POST", "/v1/deregister", &body);
    assert_eq!(status, 401, "{text}");
    let (status, text) = lab.rest("POST", "/v1/deregister", "{}");
    assert!(status == 400 && text.contains("\"field\":\"impu\""), "{status} {text}");
    let (status, text) = lab.rest("POST", "/v1/deregister", "{\"impu\":\"sip:nobody@ims.example\"}");
    assert_eq!(status, 404, "{text}");
    assert_eq!(registered(&lab), (1, 1));
    let (status, text) = lab.rest("POST", "/v1/deregister", &body);
    assert!(status == 200 && text.contains(&format!("\"impi\":\"{IMSI}@{DOMAIN}\"")), "{status} {text}");
    comes_to(&lab, (0, 0));

    // The command does what REST does.
    handset::register_in_clear(&phone, 10, 3600).unwrap();
    comes_to(&lab, (1, 1));
    let impi = format!("{IMSI}@{DOMAIN}");
    let (code, text) = lab.imsbox(&["deregister", "--impi", &impi, "--retry-after", "60"]);
    assert_eq!((code, text), (Some(0), format!("de-registered: {impu} ({impi})\n")));
    comes_to(&lab, (0, 0));
    let (code, text) = lab.imsbox(&["deregister", "--impu", &impu, "--reject"]);
    assert!(code != Some(0) && text.contains("nobody is registered"), "{text}");
    assert_ne!(lab.imsbox(&["deregister"]).0, Some(0), "whom?");
}
