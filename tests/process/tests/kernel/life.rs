//! The life of associations in a real kernel: stops, kills and starts of the box with live SAs, leftovers, new authentications
//! under traffic, expiry, and a crowd.

// Programs and a kernel are waited for, condition by condition.
#![allow(clippy::disallowed_methods)]

use super::{cases, ip, verdict};
use ims_process_tests::handset::{self, Server, Talk};
use ims_process_tests::patience::until;
use ims_process_tests::process::Running;
use ims_process_tests::{http, program};
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// What this module reports.
pub(super) const VERDICTS: usize = 12;

/// Cases over UDP, in both families, with separate and with combined algorithms.
const REFRESHED: [usize; 4] = [4, 6, 28, 30];
const REAUTHENTICATED: [usize; 3] = [8, 22, 28];
/// As the P-CSCF marks its own.
const REQID: &str = "0x494d5331";
const CROWD: usize = 200;

pub(super) fn tell(folder: &Path, what: &str) {
    fs::write(folder.join(what), "").expect("the folder is writable");
}

pub(super) fn wait_for(folder: &Path, what: &str) {
    assert!(until(Duration::from_secs(240), || folder.join(what).exists()), "nobody said '{what}'");
}

fn eventually(what: &str, holds: impl Fn() -> bool) -> handset::Result<()> {
    is(until(Duration::from_secs(40), holds), || format!("{what}; there are {} SAs", sas()))
}

fn output(words: &[&str]) -> String {
    let out = Command::new(words[0]).args(&words[1..]).output().expect("ip runs");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// SAs in the kernel of the P-CSCF.
fn sas() -> usize {
    output(&["ip", "xfrm", "state"]).lines().filter(|l| l.starts_with("src ")).count()
}

fn has_spi(spi: &str) -> bool {
    output(&["ip", "xfrm", "state"]).contains(&format!("spi {spi} "))
}

fn blocks() -> usize {
    output(&["ip", "xfrm", "policy"]).matches("action block").count()
}

fn is(holds: bool, what: impl Fn() -> String) -> handset::Result<()> {
    if holds { Ok(()) } else { Err(what()) }
}

pub(super) fn provision(token: &str) {
    for n in 0..CROWD {
        let (k, opc) = (handset::hex(&handset::K), handset::hex(&handset::OPC));
        let body = format!("{{\"imsi\":\"{:015}\",\"k\":\"{k}\",\"opc\":\"{opc}\"}}", 1_010_000_001_001 + n);
        let (status, answer) = http::request("127.0.0.1:8080", token, "POST", "/v1/subscribers", &body);
        assert_eq!(status, 201, "{answer}");
    }
}

fn start(imsbox: &str, config: &Path) -> Running {
    let core = Running::start(Command::new(imsbox).args(["up", "--config"]).arg(config));
    core.wait_for("ready", Duration::from_secs(60));
    core
}

fn keep_log(folder: &Path, core: &Running) {
    let before = log_of(folder);
    fs::write(folder.join("imsbox.log"), before + &core.printed()).expect("the folder is writable");
}

fn log_of(folder: &Path) -> String {
    fs::read_to_string(folder.join("imsbox.log")).unwrap_or_default()
}

/// The box is stopped, killed and started while its handsets are registered. Gives the one that runs at the end, which asks
/// for a new authentication at each refresh.
pub(super) fn restarts(folder: &Path, imsbox: &str, config: &Path, mut core: Running, report: &mut String) -> Running {
    let all = cases().len() * 4;
    verdict(report, "each attached handset has its four SAs", is(sas() == all, || format!("{} of {all}", sas())));
    let blocked = blocks();
    core.terminate();
    core.wait_end(Duration::from_secs(20));
    keep_log(folder, &core);
    verdict(report, "a planned stop leaves the SAs of registered handsets, and the ports blocked", {
        is(sas() == all && blocks() == blocked && blocked > 0, || {
            format!("{} of {all}, {} of {blocked}", sas(), blocks())
        })
    });
    let mut core = start(imsbox, config);
    verdict(report, "after the stop every registration is there, with its SA", {
        eventually("not all are shown", || status_of_all(imsbox, config))
            .and_then(|()| is(sas() == all, || sas().to_string()))
    });
    core.kill();
    keep_log(folder, &core);
    // While we are away: something of ours that nobody knows, and something of somebody else.
    let stray = |dst: &str, spi: &str, reqid: &str| {
        ip(&format!(
            "xfrm state add src 10.0.9.9 dst {dst} proto esp spi {spi} mode transport reqid {reqid} auth-trunc hmac(sha1) \
             0x0102030405060708090a0b0c0d0e0f1011121314 96 enc cbc(aes) 0x000102030405060708090a0b0c0d0e0f \
             sel src 10.0.9.9 dst {dst} sport 5000 dport 6100"
        ));
    };
    stray("10.0.0.1", "0x00abcdef", REQID);
    stray("10.0.0.1", "0x00fedcba", "7");
    ip(
        "xfrm policy add src 10.0.9.9 dst 10.0.0.1 sport 5000 dport 6100 proto udp dir in tmpl proto esp mode transport reqid 7",
    );
    let mut core = start(imsbox, config);
    verdict(report, "after kill -9 every registration is there, with its SA", {
        eventually("not all are shown", || status_of_all(imsbox, config))
    });
    verdict(report, "a leftover of ours goes, and what is somebody else's stays", {
        eventually("the leftover stays", || !has_spi("0x00abcdef"))
            .and_then(|()| is(has_spi("0x00fedcba") && sas() == all + 1, || output(&["ip", "xfrm", "state"])))
    });
    ip("xfrm state delete src 10.0.9.9 dst 10.0.0.1 proto esp spi 0x00fedcba");
    ip("xfrm policy delete src 10.0.9.9 dst 10.0.0.1 sport 5000 dport 6100 proto udp dir in");
    tell(folder, "restarted");
    wait_for(folder, "refreshed");
    core.kill();
    keep_log(folder, &core);
    let text = fs::read_to_string(config).expect("our own file");
    fs::write(config, text + "[scscf.registration]\nreauthenticate = \"always\"\n").expect("the folder is writable");
    let core = start(imsbox, config);
    tell(folder, "strict");
    core
}

fn status_of_all(imsbox: &str, config: &Path) -> bool {
    let out = Command::new(imsbox).args(["status", "--config"]).arg(config).output();
    let text = out.map(|out| String::from_utf8_lossy(&out.stdout).into_owned()).unwrap_or_default();
    cases().iter().all(|case| text.contains(&case.imsi))
}

/// In the handsets' place: the SAs of before the restarts carry a refresh, without a challenge.
pub(super) fn refreshes(report: &mut String, servers: &[Server]) {
    let cases = cases();
    let result = REFRESHED.into_iter().try_for_each(|n| {
        let (case, server) = (&cases[n], &servers[n]);
        let message = case.register(10, case.port_us, &case.empty_authorization(), Some(&server.line), 600_000);
        let answer = case.protected(server, &message).map_err(|e| format!("{}: {e}", case.name()))?;
        is(handset::status(&answer) == 200, || format!("{}: {answer}", case.name()))
    });
    verdict(report, "a refresh inside the SA of before the kill is answered there", result);
}

/// In the handsets' place.
pub(super) fn reauthentications(report: &mut String, servers: &[Server]) {
    let cases = cases();
    for n in REAUTHENTICATED {
        let (case, server) = (&cases[n], &servers[n]);
        let name = format!("a new authentication under traffic: {}", case.name());
        let result = handset::reauthenticate(case, server).and_then(|(new, fresh)| {
            // The old set retires after 3 s here.
            let own = UdpSocket::bind(SocketAddr::new(case.ue, case.port_us)).map_err(|e| e.to_string())?;
            let end = Instant::now() + Duration::from_secs(30);
            let mut old = Talk::new(case, server, &own)?;
            while {
                old.options()?;
                !old.is_silent(Duration::from_secs(1))
            } {
                is(Instant::now() < end, || "the old set does not go".into())?;
            }
            let mut talk = Talk::new(&new, &fresh, &own)?;
            talk.options()?;
            talk.hear().map(drop)
        });
        verdict(report, &name, result);
    }
}

/// So many handsets attach, attach again from scratch, and leave: the SAs are counted each time.
pub(super) fn crowd(report: &mut String) {
    let before = sas();
    let ue = program("ue");
    // User-mode Linux on a busy machine makes about 30 SA sets a second, and each handset needs one at either end.
    let load = |more: &[&str]| {
        let count = CROWD.to_string();
        let out = Command::new("ip")
            .args(["netns", "exec", "ue"])
            .arg(&ue)
            .args(["load", "--ipsec", "--pcscf", "10.0.0.1:5060", "--ue-net", "10.0.2.1", "--imsi", "001010000001001"])
            .args([
                "--count",
                &count,
                "--rate",
                "10",
                "--seconds",
                "20",
                "--t1",
                "4s",
                "--drain",
                "40",
                "--port",
                "20000",
            ])
            .args(more)
            .output()
            .map_err(|e| e.to_string())?;
        is(out.status.success(), || {
            [out.stdout.clone(), out.stderr.clone()].map(|b| String::from_utf8_lossy(&b).into_owned()).concat()
        })
    };
    let full = before + CROWD * 4;
    verdict(report, "200 handsets attach over ESP", {
        load(&[]).and_then(|()| eventually("not four SAs for each", || sas() == full))
    });
    // The handsets begin with nothing again.
    ip("-n ue xfrm state flush");
    ip("-n ue xfrm policy flush");
    verdict(report, "200 handsets attach again, and their old SAs go", {
        load(&["--deregister"]).and_then(|()| eventually("SAs stay behind", || sas() == before))
    });
    verdict(report, "a set that nobody used ends after the time for the answer", {
        let proposed = before + 4;
        abandoned()
            .and_then(|()| eventually("no set was proposed", || sas() == proposed))
            .and_then(|()| eventually("it stays", || sas() == before))
    });
}

/// A subscriber of the crowd, as a handset of ours.
fn straggler() -> handset::Attach {
    handset::Attach { imsi: format!("{:015}", 1_010_000_001_001_u64), ..cases().swap_remove(0) }
}

/// A first REGISTER from the handsets' place, whose challenge nobody answers.
fn abandoned() -> handset::Result<()> {
    let exe = std::env::current_exe().map_err(|e| e.to_string())?;
    let status = Command::new("ip")
        .args(["netns", "exec", "ue"])
        .arg(exe)
        .args(["--exact", super::TEST, "--nocapture"])
        .env("IMSBOX_KERNEL_ROLE", "abandon")
        .status();
    status.map_err(|e| e.to_string()).and_then(|s| is(s.success(), || s.to_string()))
}

pub(super) fn abandon() {
    let answer = straggler().challenge();
    assert!(answer.is_ok(), "{answer:?}");
}

/// Started once more without keeping, the box takes up nothing, and at its end nothing of it is left.
pub(super) fn forgets(folder: &Path, imsbox: &str, config: &Path, mut core: Running) -> handset::Result<()> {
    core.terminate();
    core.wait_end(Duration::from_secs(20));
    keep_log(folder, &core);
    is(sas() > 0, || "nothing was left to forget".into())?;
    let text = fs::read_to_string(config).map_err(|e| e.to_string())?;
    fs::write(config, format!("{text}[pcscf]\nkeep_registrations = false\n")).map_err(|e| e.to_string())?;
    let mut core = start(imsbox, config);
    eventually("leftovers stay", || sas() == 0)?;
    core.terminate();
    core.wait_end(Duration::from_secs(20));
    keep_log(folder, &core);
    is(sas() == 0 && blocks() == 0, || output(&["ip", "xfrm", "policy"]))
}
