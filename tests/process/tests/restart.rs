//! Kill -9 while handsets register: whoever was told 200 is registered afterwards.

use ims_process_tests::handset::{self, Attach};
use ims_process_tests::patience::eventually;
use ims_process_tests::process::Running;
use ims_process_tests::{Folder, Lab, http, program};
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

const HANDSETS: u8 = 60;
const AT_ONCE: u8 = 6;
/// So many are told 200 before the end comes.
const FIRST: usize = 15;
const PATIENCE: Duration = Duration::from_secs(120);

fn imsi(n: u8) -> String {
    format!("0010100000001{n:02}")
}

fn handset(pcscf: &str, n: u8) -> Attach {
    let pcscf: IpAddr = pcscf.parse().expect("an address");
    let IpAddr::V4(v4) = pcscf else { panic!("an IPv4 address") };
    let [a, b, c, _] = v4.octets();
    Attach::new(imsi(n), IpAddr::from([a, b, c, 100 + n]), pcscf)
}

/// All handsets register, some at a time; in the middle of it `kill` is called. The numbers of those that were told 200.
fn storm(pcscf: &str, kill: impl FnOnce()) -> Vec<u8> {
    let (tell, told) = mpsc::channel();
    std::thread::scope(|scope| {
        for first in 0..AT_ONCE {
            let tell = tell.clone();
            scope.spawn(move || {
                for n in (first..HANDSETS).step_by(AT_ONCE.into()) {
                    if handset::attach_in_clear(&handset(pcscf, n)).is_ok() {
                        tell.send(n).unwrap();
                    }
                }
            });
        }
        drop(tell);
        let mut all: Vec<u8> = (0..FIRST).map(|_| told.recv_timeout(PATIENCE).expect("handsets register")).collect();
        kill();
        all.extend(told);
        all
    })
}

/// The private identities that a role has registered.
fn registered(status: &Value, role: &str) -> BTreeSet<String> {
    let list = status[role]["registrations"].as_array().cloned().unwrap_or_default();
    list.iter().filter_map(|r| r["impi"].as_str().map(str::to_owned)).collect()
}

fn assert_has(status: &Value, role: &str, told: &[u8], log: &str) {
    let there = registered(status, role);
    let missing: Vec<String> =
        told.iter().map(|n| imsi(*n)).filter(|i| !there.iter().any(|impi| impi.starts_with(i))).collect();
    assert!(missing.is_empty(), "told 200, but not registered at the {role}: {missing:?}\n{log}");
    assert!(status[role]["kept"]["entries"].as_u64() >= Some(told.len() as u64), "{}", status[role]["kept"]);
}

/// Refreshes one, and takes leave of it.
fn comes_and_goes(pcscf: &str, n: u8) {
    let phone = handset(pcscf, n);
    let mut cseq = 9;
    // The other roles may still be about to find the one that is back.
    let refreshed = eventually(PATIENCE, || {
        cseq += 2;
        handset::register_in_clear(&phone, cseq, 3600)
    });
    assert!(refreshed.is_ok(), "handset {n} is not refreshed: {refreshed:?}");
    let gone = handset::register_in_clear(&phone, cseq + 2, 0);
    assert!(gone.is_ok(), "handset {n} cannot leave: {gone:?}");
}

#[test]
fn the_box_loses_nobody() {
    let mut lab = Lab::start("restart-box", "127.69.21.1");
    (0..HANDSETS).for_each(|n| lab.subscribe(&imsi(n)));
    let told = storm("127.69.21.1", || lab.crash_and_restart());
    let status = |lab: &Lab| -> Value { serde_json::from_str(&lab.rest("GET", "/v1/status", "").1).unwrap() };
    for role in ["scscf", "pcscf"] {
        assert_has(&status(&lab), role, &told, &lab.printed());
    }
    assert!(lab.printed().contains("restored what was kept"), "{}", lab.printed());
    for n in &told[..5] {
        comes_and_goes("127.69.21.1", *n);
    }
    let there = registered(&status(&lab), "scscf");
    assert!(told[..5].iter().all(|n| !there.iter().any(|impi| impi.starts_with(&imsi(*n)))), "{there:?}");
    lab.crash_and_restart();
    let there = registered(&status(&lab), "scscf");
    assert!(
        told[..5].iter().all(|n| !there.iter().any(|impi| impi.starts_with(&imsi(*n)))),
        "gone for good: {there:?}"
    );
}

/// What an MAR changes is written behind its answer: the end may come between.
#[test]
fn a_killed_hss_hands_out_no_sequence_number_twice() {
    const ADDRESS: &str = "127.69.23.1";
    const SUBSCRIBERS: u8 = 6;
    let mut lab = Lab::start("restart-sqn", ADDRESS);
    (0..SUBSCRIBERS).for_each(|n| lab.subscribe(&imsi(n)));
    let (tell, told) = mpsc::channel();
    let end = AtomicBool::new(false);
    let mut seen: Vec<Vec<u64>> = vec![Vec::new(); SUBSCRIBERS.into()];
    std::thread::scope(|scope| {
        for n in 0..SUBSCRIBERS {
            let (tell, end) = (tell.clone(), &end);
            scope.spawn(move || {
                let phone = handset(ADDRESS, n);
                for cseq in (1..).step_by(2).take_while(|_| !end.load(Ordering::Relaxed)) {
                    // Some answer the challenge, and the SAR writes the number; most do not.
                    let nonce = match cseq % 10 {
                        1 => handset::register_in_clear(&phone, cseq, 3600),
                        _ => handset::challenge_in_clear(&phone, cseq, 3600),
                    };
                    if let Ok(nonce) = nonce {
                        tell.send((n, handset::network_sqn(&nonce).unwrap())).unwrap();
                    }
                }
            });
        }
        for _ in 0..5 {
            for _ in 0..60 {
                let (n, sqn) = told.recv_timeout(PATIENCE).expect("numbers are handed out");
                seen[usize::from(n)].push(sqn);
            }
            lab.crash_and_restart();
        }
        end.store(true, Ordering::Relaxed);
    });
    drop(tell);
    told.iter().for_each(|(n, sqn)| seen[usize::from(n)].push(sqn));
    for (n, numbers) in seen.iter().enumerate() {
        // IND is in the last five bits.
        let twice = numbers.windows(2).find(|two| two[1] >> 5 <= two[0] >> 5);
        assert!(twice.is_none(), "{twice:x?} of {} in {numbers:x?}", imsi(n as u8));
        assert!(numbers.len() > 10, "{} was given {} numbers", imsi(n as u8), numbers.len());
    }
}

/// A role with its shipped configuration, moved to this test's address.
fn role(name: &str, folder: &Folder, address: &str, rest: &str) -> Running {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../configs/{name}.toml"));
    let text = std::fs::read_to_string(&shipped).unwrap_or_else(|e| panic!("{}: {e}", shipped.display()));
    let config = folder.write(&format!("{name}.toml"), &text.replace("127.0.0.1", address));
    let mut command = Command::new(program(name));
    command.arg("--config").arg(config).env("IMSBOX_DATA_DIR", folder.path().join(name)).env("IMSBOX_HTTP", rest);
    let running = Running::start(&mut command);
    running.wait_for("listening", Duration::from_secs(60));
    running
}

#[test]
fn the_scscf_by_itself_loses_nobody_and_two_do_not_share_its_folder() {
    const ADDRESS: &str = "127.70.21.1";
    const HSS: &str = "127.70.21.1:8080";
    const SCSCF: &str = "127.70.21.1:8082";
    let folder = Folder::new("restart-scscf");
    let _hss = role("hss", &folder, ADDRESS, HSS);
    let mut scscf = role("scscf", &folder, ADDRESS, SCSCF);
    let _others = [role("icscf", &folder, ADDRESS, "off"), role("pcscf", &folder, ADDRESS, "off")];
    let token = |name: &str| std::fs::read_to_string(folder.path().join(name).join("admin.token")).unwrap();
    for n in 0..HANDSETS {
        let (k, opc) = (handset::hex(&handset::K), handset::hex(&handset::OPC));
        let body = format!("{{\"imsi\":\"{}\",\"k\":\"{k}\",\"opc\":\"{opc}\"}}", imsi(n));
        let (status, answer) = http::request(HSS, token("hss").trim(), "POST", "/v1/subscribers", &body);
        assert_eq!(status, 201, "{answer}");
    }
    let told = storm(ADDRESS, || {
        scscf.kill();
        scscf = role("scscf", &folder, ADDRESS, SCSCF);
    });
    let status = || -> Value {
        serde_json::from_str(&http::request(SCSCF, token("scscf").trim(), "GET", "/v1/status", "").1).unwrap()
    };
    assert_has(&status(), "scscf", &told, &scscf.printed());
    for n in &told[..3] {
        comes_and_goes(ADDRESS, *n);
    }
    let there = registered(&status(), "scscf");
    assert!(told[..3].iter().all(|n| !there.iter().any(|impi| impi.starts_with(&imsi(*n)))), "{there:?}");

    let config = folder.path().join("scscf.toml");
    let text = std::fs::read_to_string(&config).unwrap().replace(ADDRESS, "127.70.21.2");
    let second = folder.write("second.toml", &text);
    let out = Command::new(program("scscf"))
        .arg("--config")
        .arg(second)
        .env("IMSBOX_DATA_DIR", folder.path().join("scscf"))
        .env("IMSBOX_HTTP", "off")
        .output()
        .unwrap();
    let said = [out.stdout, out.stderr].map(|b| String::from_utf8_lossy(&b).into_owned()).concat();
    assert!(!out.status.success() && said.contains("in use by another process"), "{said}");
}
