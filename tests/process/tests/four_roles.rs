//! The four roles as programs of their own, from the shipped configurations, over real SIP and Diameter sockets; and what a
//! foreign eye (tshark) says of every packet on the wire.

use ims_process_tests::capture::Capture;
use ims_process_tests::handset::{self, Attach};
use ims_process_tests::process::Running;
use ims_process_tests::{Folder, http, json_in, program};
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const ADDRESS: &str = "127.70.1.1";
const CALLS: usize = 4;
const REST: &str = "127.70.1.1:8080";

/// A role with its shipped configuration, moved to this test's address.
fn role(name: &str, folder: &Folder) -> Running {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../configs/{name}.toml"));
    let text = std::fs::read_to_string(&shipped).unwrap_or_else(|e| panic!("{}: {e}", shipped.display()));
    let config = folder.write(&format!("{name}.toml"), &text.replace("127.0.0.1", ADDRESS));
    let mut command = Command::new(program(name));
    command.arg("--config").arg(config).env("IMSBOX_DATA_DIR", folder.path().join(name));
    if name == "hss" {
        command.env("IMSBOX_HTTP", REST);
    } else {
        command.env("IMSBOX_HTTP", "off");
    }
    let running = Running::start(&mut command);
    running.wait_for("listening", Duration::from_secs(30));
    running
}

fn in_clear(n: u8, tcp: bool) -> Attach {
    let (ue, pcscf) = (IpAddr::from([127, 70, 1, 100 + n]), ADDRESS.parse().expect("an address"));
    Attach { tcp, ..Attach::new(format!("0010100000000{n:02}"), ue, pcscf) }
}

#[test]
fn four_programs_register_handsets_who_call_and_nothing_on_the_wire_is_malformed() {
    let folder = Folder::new("four-roles");
    let hss = role("hss", &folder);
    let roles = [role("scscf", &folder), role("icscf", &folder), role("pcscf", &folder)];
    let token = std::fs::read_to_string(folder.path().join("hss/admin.token")).unwrap();
    for n in 1..=10 {
        let body = format!(
            "{{\"imsi\":\"0010100000000{n:02}\",\"k\":\"{}\",\"opc\":\"{}\",\"msisdn\":\"49151123456{n:02}\"}}",
            handset::hex(&handset::K),
            handset::hex(&handset::OPC)
        );
        let (status, answer) = http::request(REST, token.trim(), "POST", "/v1/subscribers", &body);
        assert_eq!(status, 201, "{answer}");
    }
    let capture = Capture::start("127.70.1");
    for n in 1..=6 {
        if let Err(why) = handset::attach_in_clear(&in_clear(n, n % 2 == 0)) {
            let logs: Vec<_> = roles.iter().chain([&hss]).map(Running::printed).collect();
            panic!("handset {n}: {why}\n{}", logs.join("\n---\n"));
        }
    }
    calls(&roles);
    if let Some(capture) = capture {
        capture.check(&[
            ("challenges", "sip.Status-Code == 401", 6),
            ("REGISTERs over TCP", "sip.Method == \"REGISTER\" && tcp", 6),
            ("UAR and UAA", "diameter.cmd.code == 300", 24),
            ("MAR and MAA", "diameter.cmd.code == 303", 12),
            ("SAR and SAA", "diameter.cmd.code == 301", 12),
            // P, S, I, S, P; within a dialog the I-CSCF is not on the way.
            ("INVITE", "sip.CSeq.method == \"INVITE\" && sip.Request-Line", 6 * CALLS),
            ("BYE", "sip.Method == \"BYE\"", 4 * CALLS),
            ("LIR and LIA", "diameter.cmd.code == 302", 2 * CALLS),
        ]);
    }
}

/// Handsets 7 to 10 are a fleet in pairs, the second of each over TCP, who call one another.
fn calls(roles: &[Running]) {
    let mut load = Running::start(
        Command::new(program("ue"))
            .args(["load", "--pcscf", &format!("{ADDRESS}:5060"), "--imsi", "001010000000007", "--handsets", "4"])
            .args(["--rate", "4", "--transport", "mixed", "--port", "27090", "--seconds", "4"])
            .args(["--calls", &(CALLS / 4).to_string(), "--hold", "0.3", "--hold-fixed", "--ring", "100ms"]),
    );
    let ended = load.wait_end(Duration::from_secs(120));
    let logs = || roles.iter().map(Running::printed).collect::<Vec<_>>().join("\n---\n");
    assert!(ended.success(), "{}\n{}", load.printed(), logs());
    let calls = &json_in(&load.stdout())["calls"];
    assert!(calls["completed"].as_u64() >= Some(CALLS as u64), "{calls}");
    assert_eq!(calls["failures"], serde_json::json!({}), "{calls}");
}
