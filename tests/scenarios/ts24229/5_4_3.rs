//! Sessions with application servers between two registered handsets: everything is ours but the servers.

use ims_tests::lab::{DOMAIN, msisdn};
use ims_tests::{Lab, LabConfig, NodeId, Part, golden};
use serde_json::{Value, json};
use std::time::Duration;

const ANSWERS: &str = "[called]\nanswer_after = '1s'";

/// Two handsets with these parts of application servers: those of the caller, those of who is called.
struct Scene {
    lab: Lab,
    callers: Vec<NodeId>,
    called: Vec<NodeId>,
}

fn criterion(priority: usize, server: &str, case: &str, more: &Value) -> Value {
    let mut criterion = json!({ "priority": priority, "server": server, "when": { "all": [{ "method": "INVITE" }, { "case": case }] } });
    for (name, value) in more.as_object().into_iter().flatten() {
        criterion[name.as_str()] = value.clone();
    }
    criterion
}

fn scene(caller: &[Part], called: &[Part], script: &str) -> Scene {
    scene_with(LabConfig::default(), caller, called, script, &json!({}))
}

/// `more`: what each criterion has besides.
fn scene_with(config: LabConfig, caller: &[Part], called: &[Part], script: &str, more: &Value) -> Scene {
    let mut config = LabConfig { handsets: 2, provision: false, ..config };
    config.pcscf.gm.path_mtu = 9000;
    let mut lab = Lab::new(config);
    let side = |lab: &mut Lab, number: usize, parts: &[Part], case: &str| -> Vec<NodeId> {
        let servers: Vec<(NodeId, String)> = parts.iter().map(|part| lab.add_server(part.clone())).collect();
        let criteria = servers.iter().enumerate().map(|(at, (_, uri))| criterion(at, uri, case, more));
        let criteria: Vec<Value> = criteria.collect();
        lab.provision(number, json!({ "criteria": criteria }));
        servers.into_iter().map(|(id, _)| id).collect()
    };
    let callers = side(&mut lab, 0, caller, "originating");
    let called = side(&mut lab, 1, called, "terminating");
    for number in 0..2 {
        lab.register(number).unwrap();
    }
    lab.script(1, script);
    lab.world.run_for(Duration::from_secs(1));
    lab.world.trace.clear();
    Scene { lab, callers, called }
}

impl Scene {
    /// A call that is answered, changed by either side, and ended by the caller.
    fn whole_call(&mut self) {
        self.lab.call(0, 1).unwrap();
        for who in [0, 1] {
            self.lab.tell(who, "hold", Value::Null).unwrap();
            self.lab.tell(who, "resume", Value::Null).unwrap();
        }
        self.lab.tell(0, "hangup", Value::Null).unwrap();
        self.rest();
        assert_eq!((self.lab.ended(0), self.lab.ended(1)), (vec!["hung-up".into()], vec!["hung-up-by-peer".into()]));
    }

    fn rest(&mut self) {
        self.lab.rest();
        for number in 0..2 {
            assert_eq!(self.lab.calls(number), json!([]));
        }
        let scscf = self.lab.world.snapshot(self.lab.scscf);
        assert_eq!((&scscf["chains"], &scscf["relay"]), (&json!(0), &json!(0)));
        self.lab.assert_no_faults();
    }

    /// What a server was told of whom it serves.
    fn served(&self, server: NodeId) -> Vec<String> {
        let heard = self.lab.heard(server);
        heard.iter().map(|h| h["served"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

fn sip_number(number: usize) -> String {
    format!("sip:{}@{DOMAIN}", msisdn(number))
}

#[test]
fn a_call_through_two_servers_on_each_side() {
    let proxy = Part::Proxy { stays: true };
    let mut scene = scene(&[proxy.clone(), proxy.clone()], &[proxy.clone(), proxy], ANSWERS);
    scene.whole_call();
    for server in scene.callers.clone() {
        assert_eq!(scene.served(server), [format!("<{}>;sescase=orig;regstate=reg", sip_number(0))]);
    }
    for server in scene.called.clone() {
        assert_eq!(scene.served(server).len(), 1);
        assert!(scene.served(server)[0].ends_with(";sescase=term;regstate=reg"));
    }
}

#[test]
fn five_servers_on_each_side_over_tcp_and_ipv6() {
    let proxies = [true, false, true, false, true].map(|stays| Part::Proxy { stays });
    let config = LabConfig { v6: true, ..LabConfig::default().with_tcp() };
    let mut scene = scene_with(config, &proxies, &proxies, ANSWERS, &json!({}));
    scene.whole_call();
    for server in [scene.callers.clone(), scene.called.clone()].concat() {
        assert_eq!(scene.lab.heard(server).len(), 1, "each once");
    }
}

#[test]
fn servers_that_make_a_dialog_of_their_own() {
    let mut scene = scene(&[Part::B2bua, Part::Proxy { stays: true }], &[Part::B2bua], ANSWERS);
    scene.whole_call();
    assert_eq!(scene.lab.heard(scene.callers[1]).len(), 1, "behind the first, the chain went on");
    let mut scene = self::scene(&[Part::B2bua], &[], ANSWERS);
    scene.lab.call(0, 1).unwrap();
    scene.lab.tell(1, "hangup", Value::Null).unwrap();
    scene.rest();
    golden("calls/b2bua", &scene.lab.world.golden_ladder());
}

#[test]
fn a_server_ends_the_call_by_itself() {
    for status in [486, 404, 603, 480] {
        let mut scene = scene(&[Part::Answer { status, contact: None }], &[], ANSWERS);
        let refused = scene.lab.call(0, 1).unwrap_err();
        assert!(format!("{refused:?}").contains(&status.to_string()), "{refused:?}");
        scene.rest();
    }
}

#[test]
fn a_server_of_the_callee_diverts_to_another() {
    let mut scene = scene(&[], &[Part::Divert { to: sip_number(2) }], ANSWERS);
    scene.lab.provision(2, json!({}));
    let config = scene.lab.config.handset(2);
    scene.lab.add_handset(2, config);
    scene.lab.register(2).unwrap();
    scene.lab.script(2, ANSWERS);
    scene.lab.call(0, 1).unwrap();
    assert_eq!(scene.lab.calls(1), json!([]));
    scene.lab.tell(0, "hangup", Value::Null).unwrap();
    scene.rest();
    assert_eq!(scene.lab.ended(2), ["hung-up-by-peer"]);
}

#[test]
fn without_a_server_that_is_silent_the_call_goes_on_and_without_one_that_is_wanted_it_ends() {
    let mut scene = scene(&[Part::Silent, Part::Proxy { stays: true }], &[Part::Silent], ANSWERS);
    scene.whole_call();
    assert_eq!(scene.lab.refusals(scene.lab.scscf, "server-silent"), 2);
    let more = json!({ "default_handling": "terminate" });
    let mut scene = scene_with(LabConfig::default(), &[Part::Silent], &[], ANSWERS, &more);
    let refused = scene.lab.call(0, 1).unwrap_err();
    assert!(format!("{refused:?}").contains("408"), "{refused:?}");
    scene.rest();
}

/// The server is not there at all.
#[test]
fn without_a_server_that_is_dead_the_call_goes_on() {
    let mut scene = scene(&[Part::Silent], &[Part::B2bua], ANSWERS);
    scene.lab.world.crash(scene.callers[0]);
    scene.lab.world.crash(scene.called[0]);
    scene.whole_call();
    let servers = &scene.lab.world.snapshot(scene.lab.scscf)["application_servers"];
    assert_eq!(servers["continued"], 2);
}

#[test]
fn a_slow_server_comes_too_late() {
    let mut scene = scene(&[Part::Slow(Duration::from_secs(25))], &[], "[called]\nanswer_after = '10s'");
    scene.lab.call(0, 1).unwrap();
    scene.lab.tell(0, "hangup", Value::Null).unwrap();
    scene.rest();
    assert_eq!(scene.lab.ended(1), ["hung-up-by-peer"], "it rang once");
    assert_eq!(scene.lab.refusals(scene.lab.scscf, "chain-gone"), 1);
}

#[test]
fn given_up_while_a_server_has_it() {
    for part in [Part::Proxy { stays: true }, Part::B2bua] {
        let mut scene = scene(std::slice::from_ref(&part), std::slice::from_ref(&part), "");
        let call = scene.lab.dial(0, &msisdn(1));
        scene.lab.world.run_for(Duration::from_secs(3));
        scene.lab.tell(0, "hangup", Value::Null).unwrap();
        scene.rest();
        assert!(scene.lab.world.reply(call).unwrap().is_err());
        assert_eq!(scene.lab.ended(1), ["cancelled"]);
    }
}

#[test]
fn who_is_not_registered_is_not_reached_unless_a_server_answers() {
    let mut scene = scene(&[], &[], ANSWERS);
    scene.lab.deregister(1).unwrap();
    let refused = scene.lab.call(0, 1).unwrap_err();
    assert!(format!("{refused:?}").contains("480"), "{refused:?}");
    scene.rest();
}

/// Nothing is kept of a dialog: what a request in one needs stands in its Route.
#[test]
fn a_call_outlives_the_restart_of_its_scscf() {
    let proxy = Part::Proxy { stays: true };
    let mut scene = scene(std::slice::from_ref(&proxy), &[Part::B2bua], ANSWERS);
    scene.lab.call(0, 1).unwrap();
    scene.lab.world.crash(scene.lab.scscf);
    let scscf = scene.lab.scscf;
    scene.lab.rebuild(scscf);
    scene.lab.world.run_for(Duration::from_secs(3));
    for who in [0, 1] {
        scene.lab.tell(who, "hold", Value::Null).unwrap();
        scene.lab.tell(who, "resume", Value::Null).unwrap();
    }
    scene.lab.tell(1, "hangup", Value::Null).unwrap();
    scene.rest();
    assert_eq!(scene.lab.ended(0), ["hung-up-by-peer"]);
}

#[test]
fn an_scscf_that_dies_while_it_rings_leaves_nothing_half_done() {
    let mut scene = scene(&[Part::Proxy { stays: true }], &[], "");
    let call = scene.lab.dial(0, &msisdn(1));
    scene.lab.world.run_for(Duration::from_secs(3));
    let scscf = scene.lab.scscf;
    scene.lab.world.crash(scscf);
    scene.lab.rebuild(scscf);
    scene.lab.world.run_for(Duration::from_secs(400));
    scene.rest();
    assert!(scene.lab.world.reply(call).unwrap().is_err());
    scene.lab.script(1, ANSWERS);
    scene.lab.call(0, 1).unwrap();
    scene.lab.tell(0, "hangup", Value::Null).unwrap();
    scene.rest();
}

#[test]
fn users_of_two_scscfs_call_each_other() {
    let proxy = Part::Proxy { stays: false };
    let config = LabConfig { scscfs: 2, ..LabConfig::default() };
    let mut config = LabConfig { handsets: 2, provision: false, ..config };
    config.pcscf.gm.path_mtu = 9000;
    let mut lab = Lab::new(config);
    for (number, case) in [(0, "originating"), (1, "terminating")] {
        let (_, uri) = lab.add_server(proxy.clone());
        lab.provision(number, json!({ "criteria": [criterion(0, &uri, case, &json!({}))] }));
    }
    lab.register(0).unwrap();
    // The other is not there when the second registers.
    let first = lab.subscriber(0)["scscf"].as_str().unwrap_or_default().contains("scscf2");
    let (away, other) = if first { (lab.scscf2.unwrap(), lab.scscf) } else { (lab.scscf, lab.scscf2.unwrap()) };
    lab.world.crash(away);
    lab.register(1).unwrap();
    lab.rebuild(away);
    lab.world.run_for(Duration::from_secs(3));
    assert_ne!(lab.subscriber(0)["scscf"], lab.subscriber(1)["scscf"]);
    for number in 0..2 {
        lab.script(number, ANSWERS);
    }
    for (from, to) in [(0, 1), (1, 0)] {
        lab.call(from, to).unwrap();
        lab.world.run_for(Duration::from_secs(1));
        lab.tell(to, "hold", Value::Null).unwrap();
        lab.tell(from, "hangup", Value::Null).unwrap();
        lab.rest();
        lab.assert_no_faults();
    }
    for scscf in [away, other] {
        assert_eq!(lab.world.snapshot(scscf)["application_servers"]["answered"], 1);
    }
}
