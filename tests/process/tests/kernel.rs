//! Kernel truth: handsets attach over real ESP inside user-mode Linux, every suite, IPv4 and IPv6, UDP and TCP; clear text
//! to a protected port is dropped. The handset's SAs are made by `ip xfrm` from the 401, not by the code under test.
//!
//! The same test program runs in three places: on the machine it boots user-mode Linux with itself as payload (`core`),
//! which starts imsbox in one network namespace and itself as the handsets (`ue`) in another.

use ims_process_tests::handset::{self, Attach, ip_xfrm};
use ims_process_tests::process::Running;
use ims_process_tests::{Folder, http, installed, program};
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

#[path = "kernel/life.rs"]
mod life;

const TEST: &str = "handsets_attach_over_real_esp";
const PCSCF_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const PCSCF_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1));

/// TS 33.203 Annex H and I, and the two that phones still offer although the annex dropped them.
const SUITES: [(&str, &str); 8] = [
    ("hmac-sha-1-96", "null"),
    ("hmac-sha-1-96", "aes-cbc"),
    ("hmac-sha-1-96", "des-ede3-cbc"),
    ("hmac-md5-96", "null"),
    ("hmac-md5-96", "aes-cbc"),
    ("hmac-md5-96", "des-ede3-cbc"),
    ("aes-gmac", "null"),
    ("null", "aes-gcm"),
];

#[test]
fn handsets_attach_over_real_esp() {
    let folder = std::env::var_os("IMSBOX_KERNEL_FOLDER").map(PathBuf::from);
    match (std::env::var("IMSBOX_KERNEL_ROLE").as_deref(), folder) {
        (Ok("core"), Some(folder)) => core(&folder),
        (Ok("ue"), Some(folder)) => ue(&folder),
        (Ok("abandon"), _) => life::abandon(),
        _ => boot(),
    }
}

// --- on the machine ---------------------------------------------------------------------------------------------------

fn boot() {
    let tools = [("linux.uml", "user-mode-linux"), ("modprobe", "kmod"), ("ip", "iproute2")];
    if !tools.into_iter().all(|(tool, package)| installed(tool, package)) {
        return;
    }
    let folder = Folder::new("kernel");
    let init = folder.write("init.sh", &init_script(folder.path()));
    let _ = Command::new("chmod").arg("+x").arg(&init).status();
    let mut kernel = Running::start(
        Command::new("linux.uml")
            .args(["mem=768M", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "rw"])
            .arg(format!("init={}", init.display()))
            .args(["con=null", "con0=fd:0,fd:1", "quiet"]),
    );
    kernel.wait_end(Duration::from_secs(600));
    let report = fs::read_to_string(folder.path().join("report")).unwrap_or_default();
    println!("{report}");
    let failed: Vec<_> = report.lines().filter(|l| l.starts_with("FAILED")).collect();
    assert!(failed.is_empty(), "{}\n--- imsbox:\n{}", failed.join("\n"), log(&folder, "imsbox.log"));
    let passed = report.lines().filter(|l| l.starts_with("ok ")).count();
    let console = kernel.printed();
    let expected = cases().len() + 10 + life::VERDICTS;
    assert_eq!(passed, expected, "--- console:\n{console}\n--- imsbox:\n{}", log(&folder, "imsbox.log"));
}

fn log(folder: &Folder, name: &str) -> String {
    fs::read_to_string(folder.path().join(name)).unwrap_or_default()
}

fn init_script(folder: &Path) -> String {
    let modules = "xfrm_user esp4 esp6 authenc cbc des_generic md5 echainiv seqiv gcm ctr ghash_generic veth";
    let exe = std::env::current_exe().expect("a running test has a path");
    format!(
        "#!/bin/sh\nexport PATH=/usr/sbin:/usr/bin:/sbin:/bin\n\
         mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t tmpfs tmpfs /run\n\
         for m in {modules}; do modprobe $m; done\nip link set lo up\n\
         export IMSBOX_KERNEL_ROLE=core IMSBOX_KERNEL_FOLDER={folder} IMSBOX_PROGRAM={imsbox}\n\
         {exe} --exact {TEST} --nocapture > {folder}/core.log 2>&1 || \
         {{ echo \"FAILED in the guest:\"; grep -A3 panicked {folder}/core.log | sed 's/^/FAILED /'; }} >> {folder}/report\n\
         poweroff -f || echo o > /proc/sysrq-trigger\n",
        folder = folder.display(),
        imsbox = program("imsbox").display(),
        exe = exe.display(),
    )
}

// --- inside, where the core runs --------------------------------------------------------------------------------------

fn cases() -> Vec<Attach> {
    let mut cases = Vec::new();
    for (alg, ealg) in SUITES {
        for v6 in [false, true] {
            for tcp in [false, true] {
                let n = u16::try_from(cases.len()).unwrap_or(0) + 1;
                let (ue, pcscf) = if v6 {
                    (IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x100 + n)), PCSCF_V6)
                } else {
                    (IpAddr::V4(Ipv4Addr::new(10, 0, 1, u8::try_from(n).unwrap_or(0))), PCSCF_V4)
                };
                cases.push(Attach {
                    imsi: format!("0010100000{n:05}"),
                    ue,
                    pcscf,
                    tcp,
                    alg,
                    ealg,
                    port_uc: 40_000 + n,
                    port_us: 41_000 + n,
                    spi_uc: 0x1000_0000 + u32::from(n),
                    spi_us: 0xf000_0000 + u32::from(n),
                });
            }
        }
    }
    cases
}

fn ip(words: &str) {
    let out = Command::new("ip").args(words.split(' ')).output().expect("ip runs");
    assert!(out.status.success(), "ip {words}: {}", String::from_utf8_lossy(&out.stderr));
}

fn core(folder: &Path) {
    ip("netns add ue");
    ip("link add core0 type veth peer name ue0");
    ip("link set ue0 netns ue");
    ip("addr add 10.0.0.1/16 dev core0");
    ip("addr add fd00::1/64 dev core0 nodad");
    ip("link set core0 up");
    ip("-n ue link set lo up");
    ip("-n ue addr add 10.0.0.200/16 dev ue0");
    ip("-n ue addr add fd00::200/64 dev ue0 nodad");
    for case in cases() {
        match case.ue {
            IpAddr::V4(v4) => ip(&format!("-n ue addr add {v4}/16 dev ue0")),
            IpAddr::V6(v6) => ip(&format!("-n ue addr add {v6}/64 dev ue0 nodad")),
        }
    }
    ip("-n ue link set ue0 up");
    // The crowd: every address of this network is the handsets'.
    ip("-n ue route add local 10.0.2.0/24 dev lo");

    let config = folder.join("imsbox.toml");
    let text = "[gm]\naddresses = [\"10.0.0.1\", \"fd00::1\"]\n[shell]\ndata_dir = \"/run/imsbox\"\n\
                [pcscf.timers]\nsa_linger = \"3s\"\nsa_audit = \"5s\"\nawait_auth = \"20s\"\n\
                [pcscf.security]\npolicy = \"require\"\n";
    let preference: Vec<_> = SUITES.iter().map(|(alg, ealg)| format!("\"{alg}/{ealg}\"")).collect();
    let text = format!("{text}preference = [{}]\n", preference.join(", "));
    fs::write(&config, text).expect("the folder is writable");
    let imsbox = std::env::var("IMSBOX_PROGRAM").expect("set by the init script");
    let core = Running::start(Command::new(&imsbox).args(["up", "--config"]).arg(&config));
    core.wait_for("ready", Duration::from_secs(60));
    let token = fs::read_to_string("/run/imsbox/admin.token").expect("imsbox writes the token");
    for case in cases() {
        let body = format!(
            "{{\"imsi\":\"{}\",\"k\":\"{}\",\"opc\":\"{}\"}}",
            case.imsi,
            handset::hex(&handset::K),
            handset::hex(&handset::OPC)
        );
        let (status, answer) = http::request("127.0.0.1:8080", token.trim(), "POST", "/v1/subscribers", &body);
        assert_eq!(status, 201, "{answer}");
    }
    life::provision(token.trim());
    let exe = std::env::current_exe().expect("a running test has a path");
    let handsets = Command::new("ip")
        .args(["netns", "exec", "ue"])
        .arg(exe)
        .args(["--exact", TEST, "--nocapture"])
        .env("IMSBOX_KERNEL_ROLE", "ue")
        .spawn();
    let mut report = String::new();
    life::wait_for(folder, "attached");
    let core = life::restarts(folder, &imsbox, &config, core, &mut report);
    let handsets = handsets.and_then(|mut child| child.wait());
    let plain = ["BYE [IPsec]"];
    verdict(&mut report, "imsbox demo: two handsets attach and call inside IPsec", demo(&imsbox, &[], &plain));
    let full = ["INVITE [IPsec, TCP]", "PRACK [IPsec", "UPDATE [IPsec", "200 OK [IPsec]", "BYE [IPsec]"];
    let name = "a call with PRACK, UPDATE, hold and an INVITE too large for UDP, inside IPsec";
    verdict(&mut report, name, demo(&imsbox, &["--full"], &full));
    let over_tcp = ["ACK [IPsec, TCP]", "PRACK [IPsec, TCP]", "UPDATE [IPsec, TCP]", "BYE [IPsec, TCP]"];
    verdict(&mut report, "the same over TCP", demo(&imsbox, &["--full", "--tcp"], &over_tcp));
    verdict(
        &mut report,
        "the handsets ran to the end",
        handsets.map_err(|e| e.to_string()).and_then(|s| if s.success() { Ok(()) } else { Err(format!("{s}")) }),
    );
    verdict(&mut report, "imsbox status shows every registration with its SA", status_shows_all(&imsbox, &config));
    verdict(&mut report, "the kernel of the P-CSCF counts dropped clear text", blocked());
    life::crowd(&mut report);
    verdict(
        &mut report,
        "told not to keep them, the P-CSCF removes its SAs",
        life::forgets(folder, &imsbox, &config, core),
    );
    append(folder, &report);
}

/// The demo makes network namespaces of its own, so it runs beside everything else.
fn demo(imsbox: &str, args: &[&str], seen: &[&str]) -> handset::Result<()> {
    let out = Command::new(imsbox).arg("demo").args(args).output().map_err(|e| e.to_string())?;
    let text = [out.stdout, out.stderr].map(|b| String::from_utf8_lossy(&b).into_owned()).concat();
    let all = ["2 of 2 handsets are registered, inside IPsec", "neither found fault"];
    let missing: Vec<_> = all.iter().chain(seen).filter(|words| !text.contains(**words)).collect();
    if out.status.success() && missing.is_empty() { Ok(()) } else { Err(format!("{missing:?} not in:\n{text}")) }
}

fn status_shows_all(imsbox: &str, config: &Path) -> handset::Result<()> {
    let out = Command::new(imsbox).args(["status", "--config"]).arg(config).output().map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    // One handset de-registered again.
    let missing: Vec<_> = cases().iter().skip(1).filter(|c| !text.contains(&c.imsi)).map(Attach::name).collect();
    if missing.is_empty() && text.contains("aes-gcm") { Ok(()) } else { Err(format!("{missing:?} not in:\n{text}")) }
}

/// Clear text is refused by policy: by our blocking one, or because a set wants ESP there.
fn blocked() -> handset::Result<()> {
    let text = fs::read_to_string("/proc/net/xfrm_stat").map_err(|e| e.to_string())?;
    let count = |name: &str| -> u64 {
        text.lines().filter_map(|l| l.strip_prefix(name)).find_map(|v| v.trim().parse().ok()).unwrap_or(0)
    };
    if count("XfrmInPolBlock") > 0 && count("XfrmInTmplMismatch") > 0 { Ok(()) } else { Err(text) }
}

fn verdict(report: &mut String, name: &str, result: handset::Result<()>) {
    let _ = match result {
        Ok(()) => writeln!(report, "ok {name}"),
        Err(why) => writeln!(report, "FAILED {name}: {}", why.replace('\n', "\nFAILED   ")),
    };
}

fn append(folder: &Path, text: &str) {
    let path = folder.join("report");
    let before = fs::read_to_string(&path).unwrap_or_default();
    fs::write(path, before + text).expect("the folder is writable");
}

// --- inside, where the handsets are -----------------------------------------------------------------------------------

fn ue(folder: &Path) {
    let mut report = String::new();
    let (mut first, mut servers) = (None, Vec::new());
    for case in cases() {
        let result = case.attach().and_then(|(server, answer)| {
            let granted = handset::header(&answer, "Contact").unwrap_or("").contains("expires=");
            servers.push(server.clone());
            first.get_or_insert(server);
            if granted && used(&case)? { Ok(()) } else { Err(format!("not granted, or not over ESP:\n{answer}")) }
        });
        verdict(&mut report, &case.name(), result);
    }
    life::tell(folder, "attached");
    life::wait_for(folder, "restarted");
    life::refreshes(&mut report, &servers);
    let case = cases().swap_remove(0);
    if let Some(server) = first {
        verdict(&mut report, "clear text from a stranger to the protected port is dropped", stranger(server.port_s));
        verdict(&mut report, "a de-registration is answered inside the SA, without a challenge", {
            let message = case.register(3, case.port_us, &case.empty_authorization(), Some(&server.line), 0);
            case.protected(&server, &message).and_then(|answer| match handset::status(&answer) {
                200 => Ok(()),
                _ => Err(answer),
            })
        });
        life::tell(folder, "refreshed");
        life::wait_for(folder, "strict");
        life::reauthentications(&mut report, &servers);
        // From here on this handset has no IPsec.
        verdict(&mut report, "clear text from an attached handset's own port is dropped", {
            let second = cases().swap_remove(4);
            ip_xfrm(&["policy", "flush"])
                .and_then(|_| ip_xfrm(&["state", "flush"]))
                .and_then(|_| silence(SocketAddr::new(second.ue, second.port_uc), server.port_s))
        });
    }
    append(folder, &report);
}

/// Packets were counted on the handset's SAs in both directions.
fn used(case: &Attach) -> handset::Result<bool> {
    let all = Command::new("ip").args(["-s", "xfrm", "state"]).output().map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&all.stdout).into_owned();
    let ue = case.ue.to_string();
    let busy = |mark: &str| {
        text.split("\nsrc ").any(|sa| {
            let sa = sa.strip_prefix("src ").unwrap_or(sa);
            let head = sa.lines().next().unwrap_or("");
            let ours =
                if mark == "out" { head.starts_with(&format!("{ue} ")) } else { head.ends_with(&format!("dst {ue}")) };
            let bytes =
                sa.split("lifetime current:").nth(1).and_then(|l| l.trim().split('(').next()?.parse::<u64>().ok());
            ours && bytes.is_some_and(|b| b > 0)
        })
    };
    Ok(busy("out") && busy("in"))
}

fn stranger(port_s: u16) -> handset::Result<()> {
    silence(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 200)), 40_999), port_s)?;
    let to = SocketAddr::new(PCSCF_V4, port_s);
    match TcpStream::connect_timeout(&to, Duration::from_secs(2)) {
        Ok(_) => Err(format!("TCP to {to} was accepted in clear")),
        Err(e) if e.kind() == std::io::ErrorKind::TimedOut => Ok(()),
        Err(e) => Err(format!("TCP to {to} was answered in clear: {e}")),
    }
}

/// A REGISTER in clear to a protected port gets no answer of any kind.
fn silence(from: SocketAddr, port_s: u16) -> handset::Result<()> {
    let socket = UdpSocket::bind(from).map_err(|e| e.to_string())?;
    socket.set_read_timeout(Some(Duration::from_millis(1500))).map_err(|e| e.to_string())?;
    let case = &cases()[4];
    let message = case.register(9, from.port(), &case.empty_authorization(), None, 600);
    socket.send_to(message.as_bytes(), SocketAddr::new(PCSCF_V4, port_s)).map_err(|e| e.to_string())?;
    let mut buffer = [0; 4096];
    match socket.recv(&mut buffer) {
        Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => Ok(()),
        Err(e) => Err(format!("answered by the kernel: {e}")),
        Ok(n) => Err(format!("answered:\n{}", String::from_utf8_lossy(&buffer[..n]))),
    }
}
