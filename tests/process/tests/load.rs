//! `ue load` against the box: hundreds of handsets that refresh, go and come, and a core that is killed among them.

use ims_process_tests::process::Running;
use ims_process_tests::{Lab, json_in, program};
use serde_json::Value;
use std::process::Command;
use std::time::Duration;

/// Long enough for a slow machine: the runs below take half a minute.
const PATIENCE: Duration = Duration::from_secs(180);

fn subscribe(lab: &Lab, handsets: u32) {
    for n in 1..=handsets {
        lab.subscribe(&format!("0010100000{n:05}"));
    }
}

fn load(pcscf: &str, options: &str) -> Running {
    let mut command = Command::new(program("ue"));
    command.args(["load", "--pcscf", pcscf, "--imsi", "001010000000001", "--interval", "1"]);
    command.args(options.split_ascii_whitespace());
    Running::start(&mut command)
}

/// The JSON at the end, and whether the exit status was 0.
fn result(mut load: Running) -> (Value, bool, String) {
    let ended = load.wait_end(PATIENCE);
    let printed = load.printed();
    (json_in(&load.stdout()), ended.success(), printed)
}

/// Udp and tcp, both address families; refused are those that must be, and nobody else.
#[test]
fn a_population_refreshes_goes_and_comes_and_nobody_is_lost() {
    let lab = Lab::start_on("load", "127.69.7.1", "addresses = [\"127.69.7.1\", \"::1\"]\nport = 5467", &[]);
    subscribe(&lab, 200);
    let core = "--rate 40 --seconds 10 --drain 40 --refresh-every 3s --churn 200 --think 500ms --fail 5 --verify";
    for (pcscf, handsets, port) in [("127.69.7.1:5467", 200, 15090), ("[::1]:5467", 60, 15490)] {
        let options = format!("{core} --handsets {handsets} --transport mixed --port {port}");
        let (json, good, printed) = result(load(pcscf, &options));
        assert!(good, "{printed}\n{}", lab.printed());
        let count = |name: &str| json[name].as_u64().unwrap_or(0);
        let wrong = handsets / 20;
        assert!(count("ok") >= handsets - wrong, "{printed}");
        for (name, least) in [("refreshes", 1), ("vanished", 1), ("deregistrations", 1), ("queries", handsets / 2)] {
            assert!(count(name) >= least, "{name}: {printed}");
        }
        assert!(json["refused_rightly"]["403"].as_u64() >= Some(wrong), "{printed}");
        assert_eq!((count("failed"), count("lost"), count("strays")), (0, 0, 0), "{printed}");
        assert_eq!(json["faults"], serde_json::json!({}), "{printed}");
        assert!(count("connections") > 0, "{printed}");
    }
}

/// Kill -9 of the whole box among 200 handsets that have nothing to send: each of them is registered afterwards without having
/// begun anew, for the box knows what it had told them.
#[test]
fn handsets_outlive_the_death_of_the_core() {
    let mut lab = Lab::start("load-restart", "127.69.8.1");
    subscribe(&lab, 200);
    let running = load(
        "127.69.8.1:5060",
        "--handsets 200 --rate 50 --seconds 24 --drain 60 --transport mixed --port 25090 --retry 1s --expect-restart --verify",
    );
    running.wait_for(" 200 registered", PATIENCE);
    lab.crash_and_restart();
    let (json, good, printed) = result(running);
    assert!(good, "{printed}\n{}", lab.printed());
    let count = |name: &str| json[name].as_u64();
    assert_eq!((count("lost"), count("registered")), (Some(0), Some(200)), "{printed}");
    assert_eq!((count("recovered"), count("refreshes")), (Some(0), Some(0)), "nobody told the box again: {printed}");
    assert_eq!(json["queries"], 200, "the network knows all of them: {printed}");
    assert_eq!(json["faults"], serde_json::json!({}), "{printed}");
}

/// Nobody there: the run fails, and says by what.
#[test]
fn a_run_in_which_nobody_registers_is_a_failure() {
    let (json, good, printed) = result(load("127.69.9.1:5060", "--rate 50 --seconds 0.1 --t1 10ms --port 35090 -q"));
    assert!(!good, "{printed}");
    assert_eq!((json["ok"].as_u64(), json["failures"]["timeout"].as_u64()), (Some(0), Some(5)), "{printed}");
    assert_eq!(json["refused"], serde_json::json!({}), "{printed}");
}
