//! Calls and messages on their way to whoever serves them: the I-CSCF and the location query (5.3.2), and what leaves the home
//! network (5.4.3.2).

use crate::support::cause;
use ims_tests::lab::{DOMAIN, msisdn};
use ims_tests::{Lab, LabConfig, Part, golden};
use serde_json::{Value, json};
use std::time::Duration;

const ANSWERS: &str = "[called]\nanswer_after = '1s'";
/// Of the first two that are added.
const SERVER: [&str; 2] = ["sip:10.0.2.1:5060", "sip:10.0.2.2:5060"];

/// Two handsets, the first is registered.
fn lab(change: impl FnOnce(&mut LabConfig)) -> Lab {
    let mut config = LabConfig { handsets: 2, ..LabConfig::default() };
    config.pcscf.gm.path_mtu = 9000;
    change(&mut config);
    let mut lab = Lab::new(config);
    lab.register(0).unwrap();
    lab.world.trace.clear();
    lab
}

fn message(lab: &mut Lab, to: &str) -> u64 {
    match lab.tell(0, "message", json!({ "to": to, "text": "x" })) {
        Ok(answer) => answer["status"].as_u64().unwrap(),
        Err(problem) => problem.kind.strip_prefix("status-").and_then(|status| status.parse().ok()).expect("a status"),
    }
}

fn rest(lab: &mut Lab) {
    lab.rest();
    lab.assert_no_faults();
}

#[test]
fn who_is_unknown_or_away_is_said_to_be_so() {
    let mut lab = lab(|_| {});
    let away = lab.call(0, 1);
    assert_eq!(cause(&away), "status-480");
    assert_eq!(lab.refusals(lab.icscf, "not-registered"), 1);
    assert_eq!(message(&mut lab, "+4915100009999"), 404);
    assert_eq!(message(&mut lab, &format!("sip:nobody@{DOMAIN}")), 404);
    assert_eq!(lab.refusals(lab.icscf, "no-such-user"), 2);
    rest(&mut lab);
}

#[test]
fn a_user_who_is_away_is_reached_at_a_service() {
    let mut config = LabConfig { handsets: 2, provision: false, ..LabConfig::default() };
    config.pcscf.gm.path_mtu = 9000;
    let mut lab = Lab::new(config);
    lab.provision(0, json!({}));
    let (voicemail, uri) = lab.add_server(Part::Answer { status: 486, contact: None });
    let criterion = json!({ "priority": 0, "server": uri,
        "when": { "all": [{ "method": "INVITE" }, { "case": "terminating-unregistered" }] } });
    lab.provision(1, json!({ "criteria": [criterion] }));
    lab.register(0).unwrap();
    lab.world.trace.clear();
    let answer = lab.call(0, 1);
    assert_eq!(cause(&answer), "status-486");
    assert_eq!(lab.heard(voicemail).len(), 1);
    assert_eq!(lab.subscriber(1)["scscf"], format!("sip:scscf.{DOMAIN}:6060"), "served, and not registered");
    rest(&mut lab);
    golden("ts24229/call_to_unregistered", &lab.world.golden_ladder());
    lab.register(1).unwrap();
    lab.script(1, ANSWERS);
    lab.call(0, 1).unwrap();
    lab.tell(0, "hangup", Value::Null).unwrap();
    rest(&mut lab);
}

/// 5.3.2.2: the S-CSCF of the called user is gone; another one takes over, and the first is told when it is back.
#[test]
fn another_scscf_takes_the_call_when_the_first_is_gone() {
    let mut config = LabConfig { handsets: 2, scscfs: 2, provision: false, ..LabConfig::default() };
    config.pcscf.gm.path_mtu = 9000;
    let mut lab = Lab::new(config);
    let (voicemail, uri) = lab.add_server(Part::Answer { status: 486, contact: None });
    lab.provision(0, json!({}));
    lab.provision(
        1,
        json!({ "criteria": [{ "priority": 0, "server": uri,
            "when": { "all": [{ "method": "INVITE" }, { "case": "terminating-unregistered" }] } }] }),
    );
    // The one that is called is served by the second.
    lab.world.crash(lab.scscf);
    lab.register(1).unwrap();
    lab.rebuild(lab.scscf);
    lab.world.run_for(Duration::from_secs(60));
    lab.register(0).unwrap();
    let second = lab.scscf2.unwrap();
    lab.world.crash(second);
    let answer = lab.call(0, 1);
    assert_eq!(cause(&answer), "status-486");
    assert_eq!(lab.heard(voicemail).len(), 1);
    assert_eq!(lab.refusals(lab.icscf, "scscf-changed"), 2, "of the registration and of the call");
    assert_eq!(lab.subscriber(1)["scscf"], format!("sip:scscf.{DOMAIN}:6060"));
    lab.rebuild(second);
    lab.world.run_for(Duration::from_secs(60));
    assert_eq!(lab.world.snapshot(second)["registered"], 0, "it was told that its user is not its own any more");
    lab.rest();
}

#[test]
fn services_are_reached_by_their_identity_or_their_wildcard() {
    let mut lab = lab(|_| {});
    let (direct, _) = lab.add_server(Part::Answer { status: 200, contact: None });
    let (chained, _) = lab.add_server(Part::Answer { status: 200, contact: None });
    let echo = json!({ "identity": format!("sip:echo@{DOMAIN}"), "server": SERVER[0] });
    lab.world.ask(lab.hss, "service.create", echo).unwrap();
    let rooms =
        json!({ "identity": format!("sip:chat-!.*!@{DOMAIN}"), "criteria": [{ "priority": 0, "server": SERVER[1] }] });
    lab.world.ask(lab.hss, "service.create", rooms).unwrap();
    assert_eq!(message(&mut lab, &format!("sip:echo@{DOMAIN}")), 200);
    assert_eq!(lab.heard(direct)[0]["uri"], format!("sip:echo@{DOMAIN}"));
    for room in ["1", "2"] {
        assert_eq!(message(&mut lab, &format!("sip:chat-{room}@{DOMAIN}")), 200);
    }
    assert_eq!(lab.heard(chained).len(), 2);
    assert_eq!(lab.heard(chained)[1]["uri"], format!("sip:chat-2@{DOMAIN}"));
    assert_eq!(message(&mut lab, &format!("sip:chat@{DOMAIN}")), 404);
    rest(&mut lab);
}

fn numbering(config: &mut LabConfig, toml: &str) {
    config.scscf.numbering = ims_core::config::parse("numbering", toml).unwrap();
}

fn breakout(config: &mut LabConfig, toml: &str) {
    config.scscf.breakout = ims_core::config::parse("breakout", toml).unwrap();
}

#[test]
fn a_number_is_dialled_as_at_home() {
    let mut lab = lab(|config| numbering(config, "country = '49'"));
    lab.register(1).unwrap();
    lab.script(1, ANSWERS);
    let national = msisdn(1).replacen("+49", "0", 1);
    for dialled in [
        national.clone(),
        format!("tel:{national};phone-context={DOMAIN}"),
        format!("sip:{national}@{DOMAIN};user=phone"),
    ] {
        assert_eq!(message(&mut lab, &dialled), 200, "{dialled}");
    }
    assert_eq!(lab.ue(1)["messages"].as_array().unwrap().len(), 3);
    rest(&mut lab);
}

#[test]
fn a_call_to_elsewhere_goes_to_the_trunk_that_answers() {
    let mut lab = lab(|config| {
        numbering(config, "country = '49'\nown = ['+4915100']");
        let trunks = format!("a = {{ uri = '{}' }}\nb = {{ uri = '{}', number = 'national' }}", SERVER[0], SERVER[1]);
        breakout(
            config,
            &format!("options = 0\nroutes = [{{ number = '+', trunks = ['a', 'b'] }}]\n[trunks]\n{trunks}"),
        );
    });
    let (first, _) = lab.add_server(Part::Answer { status: 503, contact: None });
    let (second, _) = lab.add_server(Part::Answer { status: 486, contact: None });
    let answer = lab.tell(0, "call", json!({ "to": "+49301234567" }));
    assert_eq!(cause(&answer), "status-486");
    assert_eq!(lab.heard(first)[0]["uri"], "sip:+49301234567@10.0.2.1:5060;user=phone");
    assert_eq!(lab.heard(second)[0]["uri"], "sip:0301234567@10.0.2.2:5060;user=phone");
    rest(&mut lab);
    golden("ts24229/breakout", &lab.world.golden_ladder());
}

#[test]
fn a_trunk_that_is_gone_is_noticed_and_found_again() {
    let mut lab = lab(|config| {
        numbering(config, "country = '49'\nown = ['+4915100']");
        breakout(
            config,
            &format!(
                "options = '10s'\nroutes = [{{ number = '+', trunks = ['a'] }}]\n[trunks]\na = {{ uri = '{}' }}",
                SERVER[0]
            ),
        );
    });
    let (trunk, _) = lab.add_server(Part::Answer { status: 200, contact: None });
    let up = |lab: &Lab| lab.world.snapshot(lab.scscf)["trunks"][0]["up"].clone();
    lab.world.run_for(Duration::from_secs(100));
    assert_eq!(up(&lab), true);
    lab.world.partition(lab.scscf, trunk);
    lab.world.run_for(Duration::from_secs(100));
    assert_eq!(up(&lab), false);
    assert_eq!(message(&mut lab, "+49301234567"), 500);
    assert_eq!(lab.refusals(lab.scscf, "trunks-down"), 1);
    lab.world.heal();
    lab.world.run_for(Duration::from_secs(100));
    assert_eq!(up(&lab), true);
    assert_eq!(message(&mut lab, "+49301234567"), 200);
}
