//! `imsbox check`: one line for each thing that has to be right, with the fix where it is not.

use crate::client::{Client, Target};
use crate::settings::Settings;
use anyhow::{Result, bail};
use ims_core::sa::SaError;
use ims_core::wiring::Wiring;
use ims_shell::EspReport;
use std::fmt;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    Ok,
    /// Works, but not as a handset would like it.
    Warn,
    Fail,
}

/// One line of the report.
struct Line {
    verdict: Verdict,
    subject: &'static str,
    text: String,
}

impl Line {
    fn ok(subject: &'static str, text: impl Into<String>) -> Self {
        Self { verdict: Verdict::Ok, subject, text: text.into() }
    }

    fn warn(subject: &'static str, text: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warn, subject, text: text.into() }
    }

    fn fail(subject: &'static str, text: impl Into<String>) -> Self {
        Self { verdict: Verdict::Fail, subject, text: text.into() }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Ok => "ok  ",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        };
        write!(f, "{verdict}  {:<16} {}", self.subject, self.text)
    }
}

pub(crate) async fn run(settings: Result<Settings>, target: &Target) -> Result<()> {
    let settings = match settings {
        Ok(settings) => settings,
        Err(error) => {
            println!("{}", Line::fail("configuration", format!("{error:#}")));
            bail!("the configuration cannot be used; nothing else was checked");
        }
    };
    let mut lines = vec![Line::ok("configuration", format!("PLMN {}, home domain {}", settings.plmn, settings.domain))];
    let report = ims_shell::probe().await;
    lines.extend(ipsec(&report, &settings));
    let running = Client::new(target, &settings).and_then(|c| c.read("/v1/status")).is_ok();
    lines.extend(ports(&settings, running));
    lines.extend(database(&settings.shell));
    lines.extend(criteria(&settings));
    lines.extend(addresses(&settings.gm_addresses, settings.pcscf.gm.port));
    for line in &lines {
        println!("{line}");
    }
    match lines.iter().filter(|l| l.verdict == Verdict::Fail).count() {
        0 => Ok(()),
        1 => bail!("one thing must be mended before handsets can attach"),
        n => bail!("{n} things must be mended before handsets can attach"),
    }
}

fn ipsec(report: &EspReport, settings: &Settings) -> Vec<Line> {
    let security = &settings.pcscf.security;
    // What is only a pity when policy lets handsets register without IPsec.
    let bad = |subject, text: String| match security.is_required_of_somebody() {
        true => Line::fail(subject, text),
        false => Line::warn(subject, text),
    };
    if !security.protects_anybody() {
        return vec![Line::warn("IPsec", "switched off by pcscf.security.policy = \"never\": a phone refuses that")];
    }
    let mut lines = Vec::new();
    if !report.permitted {
        let fix = "not allowed to change IPsec state: run as root, or `setcap cap_net_admin+ep` on the program";
        return vec![bad("CAP_NET_ADMIN", fix.into())];
    }
    lines.push(Line::ok("CAP_NET_ADMIN", "IPsec state may be changed"));
    if let Err(error) = &report.esp {
        let fix = match error {
            SaError::NoEsp => "the kernel has no ESP: `modprobe -a esp4 esp6 xfrm_user`, or a kernel with CONFIG_INET_ESP and CONFIG_INET6_ESP".into(),
            other => other.to_string(),
        };
        lines.push(bad("kernel ESP", fix));
        return lines;
    }
    lines.push(Line::ok("kernel ESP", "security associations can be added"));
    let wanted: Vec<_> = settings.pcscf.security.preference.iter().map(|s| s.0).collect();
    for (suite, result) in &report.algorithms {
        let name = format!("{}/{}", suite.alg.token(), suite.ealg.token());
        match result {
            Ok(()) if wanted.contains(suite) => lines.push(Line::ok("algorithm", name)),
            Err(error) if wanted.contains(suite) => lines.push(Line::warn("algorithm", format!("{name}: {error}"))),
            _ => {}
        }
    }
    lines
}

fn ports(settings: &Settings, running: bool) -> Vec<Line> {
    if running {
        return vec![Line::ok("ports", "in use by the imsbox that runs now")];
    }
    let mut busy = Vec::new();
    let mut count = 0;
    let wirings: [(&str, Wiring); 4] = [
        ("pcscf", settings.pcscf.wiring()),
        ("icscf", settings.icscf.wiring()),
        ("scscf", settings.scscf.wiring()),
        ("hss", settings.hss.wiring()),
    ];
    for (role, wiring) in wirings {
        for listener in &wiring.sip {
            count += 2;
            busy.extend(bind_error(role, "UDP", listener.addr, UdpSocket::bind(listener.addr).map(drop)));
            busy.extend(bind_error(role, "TCP", listener.addr, TcpListener::bind(listener.addr).map(drop)));
        }
        for addr in &wiring.diameter {
            count += 1;
            busy.extend(bind_error(role, "TCP", *addr, TcpListener::bind(addr).map(drop)));
        }
    }
    count += 1;
    busy.extend(bind_error("REST", "TCP", settings.rest, TcpListener::bind(settings.rest).map(drop)));
    if busy.is_empty() {
        return vec![Line::ok("ports", format!("all {count} free"))];
    }
    busy
}

fn bind_error(role: &str, transport: &str, addr: SocketAddr, result: std::io::Result<()>) -> Option<Line> {
    let error = result.err()?;
    let fix = match error.kind() {
        ErrorKind::AddrInUse => {
            format!("in use: find the program with `ss -lnp 'sport = :{}'`, or set another port", addr.port())
        }
        ErrorKind::AddrNotAvailable => "this machine has no such address: set gm.addresses or core_address".into(),
        ErrorKind::PermissionDenied => "not allowed: ports below 1024 need CAP_NET_BIND_SERVICE".into(),
        _ => error.to_string(),
    };
    Some(Line::fail("ports", format!("{role} {transport} {addr}: {fix}")))
}

fn database(shell: &ims_shell::Settings) -> Vec<Line> {
    let folder = shell.data_dir.as_path();
    // A look changes nothing: where the folder is yet to be made, what counts is the nearest one that is there.
    let existing = folder.ancestors().find(|f| f.is_dir()).unwrap_or(Path::new("."));
    let probe = existing.join(format!(".imsbox-check-{}", std::process::id()));
    let result = std::fs::write(&probe, b"x");
    let _ = std::fs::remove_file(&probe);
    let key = shell.master_key_file.clone().unwrap_or_else(|| folder.join("hss.key"));
    let hss = folder.join("hss.db");
    match result {
        Err(e) => vec![Line::fail(
            "database",
            format!("{} cannot be written ({e}): set shell.data_dir, or run as its owner", folder.display()),
        )],
        Ok(()) if hss.exists() && !key.exists() && std::env::var_os("IMSBOX_MASTER_KEY").is_none() => vec![Line::fail(
            "database",
            format!(
                "{} is there but its key {} is not: restore it, the stored K and OPc need it",
                hss.display(),
                key.display()
            ),
        )],
        Ok(()) => vec![Line::ok("database", format!("{} can be written", folder.display()))],
    }
}

/// What the S-CSCF and the HSS would not start with: criteria among it.
fn criteria(settings: &Settings) -> Vec<Line> {
    let shared = &settings.scscf.shared_ifc;
    let checks = [
        ("S-CSCF", "shared iFC", settings.scscf.check(), shared.file.is_some() || !shared.sets.is_empty()),
        ("HSS", "service profiles", settings.hss.check_services(), !settings.hss.service_profiles.is_empty()),
    ];
    let line = |(role, subject, result, is_given): (_, _, Result<(), _>, bool)| match result {
        Err(error) => Some(Line::fail(role, ims_core::config::ConfigError::to_string(&error))),
        Ok(()) => is_given.then(|| Line::ok(subject, "the criteria can be used")),
    };
    checks.into_iter().filter_map(line).collect()
}

fn addresses(gm: &[IpAddr], port: u16) -> Vec<Line> {
    let reachable: Vec<_> = gm.iter().filter(|ip| !ip.is_loopback()).collect();
    let Some(first) = reachable.first() else {
        return vec![Line::warn(
            "handset address",
            "only loopback addresses: handsets cannot reach this P-CSCF; give the machine one, or set gm.addresses",
        )];
    };
    let list: Vec<_> = reachable.iter().map(ToString::to_string).collect();
    vec![
        Line::ok(
            "handset address",
            format!("{} (port {port}); there must be no NAT between handset and here", list.join(", ")),
        ),
        Line::ok("P-CSCF for PCO", format!("{first}: give it to the packet core (Open5GS: `p-cscf:` in smf.yaml)")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_a_warning_and_the_first_real_address_goes_into_the_pco() {
        let lines = addresses(&["127.0.0.1".parse().unwrap()], 5060);
        assert_eq!(lines[0].verdict, Verdict::Warn);
        let lines = addresses(&["127.0.0.1".parse().unwrap(), "192.0.2.7".parse().unwrap()], 5060);
        assert!(lines[1].text.starts_with("192.0.2.7:"), "{}", lines[1]);
    }

    #[test]
    fn a_port_in_use_is_named_with_the_way_to_find_its_owner() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = taken.local_addr().unwrap();
        let line = bind_error("hss", "TCP", addr, TcpListener::bind(addr).map(drop)).unwrap();
        assert!(line.text.contains("ss -lnp") && line.text.contains(&addr.port().to_string()), "{line}");
    }

    #[test]
    fn a_database_without_its_key_is_a_failure() {
        let folder = std::env::temp_dir().join(format!("imsbox-check-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let shell = ims_shell::Settings { data_dir: folder.clone(), ..ims_shell::Settings::default() };
        assert_eq!(database(&shell)[0].verdict, Verdict::Ok);
        std::fs::write(folder.join("hss.db"), b"").unwrap();
        assert_eq!(database(&shell)[0].verdict, Verdict::Fail);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
