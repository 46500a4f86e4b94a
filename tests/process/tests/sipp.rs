//! A foreign handset: sipp registers with AKAv1-MD5 through the P-CSCF, over UDP and over TCP.

use ims_process_tests::process::Running;
use ims_process_tests::{Folder, Lab, handset, installed};
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Test set 2 of TS 35.208. sipp computes OPc itself, so it is given OP; and it takes a byte 0x5b in a key for the start of
/// one of its keywords, which rules test set 1 out.
const K: &str = "fec86ba6eb707ed08905757b1bb44b8f";
const OP: &str = "dbc59adcb6f9a0ef735477b7fadf8374";
const USERS: u32 = 20;

/// All users, and again those whose challenge sipp could not answer: a zero byte in RES, once in 33 challenges. More than a
/// few of them, or one that never gets in, would be our fault.
fn register(transport: &str, net: u8) {
    if !installed("sipp", "sip-tester") {
        return;
    }
    let lab = Lab::start(&format!("sipp-{transport}"), &format!("127.68.{net}.1"));
    let mut waiting: Vec<String> = (1..=USERS).map(|n| format!("0010100001{n:05}")).collect();
    for imsi in &waiting {
        lab.provision(imsi, K, "op", OP);
    }
    for _ in 0..4 {
        run_sipp(&lab, transport, &format!("127.68.{net}.2"), &waiting);
        let status = lab.status();
        waiting.retain(|imsi| !status.contains(imsi.as_str()));
        assert!(waiting.len() <= 5, "{waiting:?} did not register:\n{}", lab.printed());
    }
    assert!(waiting.is_empty(), "{waiting:?} did not register in four attempts:\n{}", lab.printed());
}

fn run_sipp(lab: &Lab, transport: &str, from: &str, imsis: &[String]) {
    if imsis.is_empty() {
        return;
    }
    let folder = Folder::new(&format!("sipp-users-{transport}"));
    let mut users = String::from("SEQUENTIAL\n");
    for imsi in imsis {
        let _ = writeln!(
            users,
            "{imsi};[authentication username={imsi}@{domain} password={imsi} aka_K=0x{K} aka_OP=0x{OP} aka_AMF=0x8000]",
            domain = handset::DOMAIN,
        );
    }
    let users = folder.write("users.csv", &users);
    let scenario = Path::new(env!("CARGO_MANIFEST_DIR")).join("sipp/register.xml");
    let mut sipp = Running::start(
        Command::new("sipp")
            .arg(format!("{}:5060", lab.address))
            .args(["-sf".as_ref(), scenario.as_os_str(), "-inf".as_ref(), users.as_os_str()])
            .args(["-i", from, "-t", transport, "-m", &imsis.len().to_string(), "-r", "20"])
            .args(["-timeout", "40s", "-timeout_error", "-nostdin", "-trace_err", "-error_file"])
            .arg(folder.path().join("errors.log"))
            .current_dir(folder.path()),
    );
    let ended = sipp.wait_end(Duration::from_secs(60));
    let errors = std::fs::read_to_string(folder.path().join("errors.log")).unwrap_or_default();
    assert!(ended.success(), "sipp: {ended}\n{errors}\n{}\n--- imsbox:\n{}", sipp.printed(), lab.printed());
}

#[test]
fn sipp_registers_over_udp() {
    register("u1", 1);
}

#[test]
fn sipp_registers_over_tcp() {
    register("t1", 2);
}
