//! `GET /metrics` of each role as a program of its own, and of the box: what Prometheus would read after a registration.

use ims_process_tests::handset::{self, Attach};
use ims_process_tests::metrics::Page;
use ims_process_tests::process::Running;
use ims_process_tests::{Folder, Lab, http, program};
use std::io::Write;
use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const ADDRESS: &str = "127.71.1.1";
const BOX: &str = "127.71.2.1";
const ROLES: [(&str, u16); 4] = [("hss", 8080), ("scscf", 8083), ("icscf", 8082), ("pcscf", 8081)];

fn role(name: &str, port: u16, folder: &Folder) -> Running {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../configs/{name}.toml"));
    let text = std::fs::read_to_string(&shipped).unwrap_or_else(|e| panic!("{}: {e}", shipped.display()));
    let config = folder.write(&format!("{name}.toml"), &text.replace("127.0.0.1", ADDRESS));
    let mut command = Command::new(program(name));
    command.arg("--config").arg(config).env("IMSBOX_DATA_DIR", folder.path().join(name));
    command.env("IMSBOX_HTTP", format!("{ADDRESS}:{port}"));
    let running = Running::start(&mut command);
    running.wait_for("http on", Duration::from_secs(60));
    running
}

fn handset(address: &str, last: u8) -> Attach {
    let mut ue: IpAddr = address.parse().expect("an address");
    if let IpAddr::V4(v4) = &mut ue {
        let [a, b, c, _] = v4.octets();
        ue = IpAddr::from([a, b, c, last]);
    }
    Attach::new("001010000000001", ue, address.parse().expect("an address"))
}

fn scrape(address: &str) -> Page {
    let (status, text) = http::request(address, "", "GET", "/metrics", "");
    assert_eq!(status, 200, "{text}");
    promtool(&text);
    Page::read(&text)
}

/// Prometheus' own opinion, where its tool is installed.
fn promtool(text: &str) {
    let tool = Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut tool) = tool else { return };
    tool.stdin.take().expect("piped").write_all(text.as_bytes()).expect("promtool reads");
    let out = tool.wait_with_output().expect("promtool ends");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
}

fn subscriber() -> String {
    let (k, opc) = (handset::hex(&handset::K), handset::hex(&handset::OPC));
    format!("{{\"imsi\":\"001010000000001\",\"k\":\"{k}\",\"opc\":\"{opc}\"}}")
}

/// Every page, whatever the role: the node is up, its process known.
fn check_common(page: &Page, role: &str) {
    let label = format!("role=\"{role}\"");
    assert_eq!(page.sum("imsbox_up", &[&label]), 1.0);
    assert_eq!(page.sum("imsbox_build_info", &[]), 1.0);
    assert!(page.sum("process_resident_memory_bytes", &[]) > 1e6);
    assert!(page.sum("imsbox_handling_duration_seconds_count", &[&label]) > 0.0);
    assert_eq!(page.sum("imsbox_inbox_dropped_total", &[&label]), 0.0);
}

fn check_registration(page: &Page) {
    let one = |name: &str, parts: &[&str]| assert!(page.sum(name, parts) >= 1.0, "{name} {parts:?}");
    one("imsbox_registrations_total", &["pcscf", "registered"]);
    one("imsbox_registrations_total", &["scscf", "registered"]);
    one("imsbox_registered_handsets", &["pcscf"]);
    one("imsbox_registered_handsets", &["scscf"]);
    one("imsbox_sip_messages_total", &["pcscf", "received", "REGISTER", "request"]);
    one("imsbox_sip_messages_total", &["pcscf", "sent", "REGISTER", "401"]);
    one("imsbox_registration_duration_seconds_count", &["pcscf", "total"]);
    one("imsbox_diameter_messages_total", &["hss", "sent", "MAA", "2001"]);
    one("imsbox_diameter_request_duration_seconds_count", &["scscf", "SAR"]);
    one("imsbox_store_duration_seconds_count", &["hss", "commit"]);
    one("imsbox_kept_entries", &["pcscf"]);
    one("imsbox_kept_entries", &["scscf"]);
    assert_eq!(page.sum("imsbox_kept_failures_total", &[]) + page.sum("imsbox_kept_waiting", &[]), 0.0);
}

#[test]
fn each_role_tells_its_metrics_and_names_nobody() {
    let folder = Folder::new("metrics");
    let _roles = ROLES.map(|(name, port)| role(name, port, &folder));
    let token = std::fs::read_to_string(folder.path().join("hss/admin.token")).unwrap();
    let rest = format!("{ADDRESS}:8080");
    let (status, answer) = http::request(&rest, token.trim(), "POST", "/v1/subscribers", &subscriber());
    assert_eq!(status, 201, "{answer}");
    handset::attach_in_clear(&handset(ADDRESS, 101)).unwrap();
    let mut all = Page { samples: Default::default(), kinds: Default::default() };
    for (name, port) in ROLES {
        let address = format!("{ADDRESS}:{port}");
        assert_eq!(http::request(&address, "", "GET", "/healthz", ""), (200, "ok\n".into()));
        assert_eq!(http::request(&address, "", "GET", "/v1/status", "").0, 401, "the state wants the token");
        let page = scrape(&address);
        check_common(&page, name);
        for id in page.samples.keys() {
            assert!(!id.contains("00101") && !id.contains("127.71"), "an identity or an address: {id}");
        }
        all.samples.extend(page.samples.into_iter().filter(|(id, _)| id.contains("role=")));
    }
    check_registration(&all);
}

#[test]
fn the_box_tells_all_roles_at_once() {
    let lab = Lab::start("metrics-box", BOX);
    lab.subscribe("001010000000001");
    handset::attach_in_clear(&handset(BOX, 101)).unwrap();
    let page = scrape(&format!("{BOX}:8080"));
    for (name, _) in ROLES {
        check_common(&page, name);
    }
    check_registration(&page);
}

#[test]
fn with_the_setting_metrics_want_the_token() {
    let folder = Folder::new("metrics-token");
    let text = "domain = \"ims.example\"\nlisten = [\"127.71.3.1:3868\"]\n[shell]\nmetrics_need_token = true\n";
    let config = folder.write("hss.toml", text);
    let mut command = Command::new(program("hss"));
    command.arg("--config").arg(config).env("IMSBOX_DATA_DIR", folder.path().join("hss"));
    let running = Running::start(command.env("IMSBOX_HTTP", "127.71.3.1:8080"));
    running.wait_for("http on", Duration::from_secs(60));
    let token = std::fs::read_to_string(folder.path().join("hss/admin.token")).unwrap();
    assert_eq!(http::request("127.71.3.1:8080", "", "GET", "/metrics", "").0, 401);
    assert_eq!(http::request("127.71.3.1:8080", token.trim(), "GET", "/metrics", "").0, 200);
}
