//! The HSS and freeDiameter, a Diameter node of other people: capabilities, watchdog and leave-taking in both directions,
//! whoever opens the connection, and a refusal.

use ims_process_tests::process::Running;
use ims_process_tests::{Folder, http, installed, program};
use serde_json::Value;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

const REALM: &str = "ims.mnc001.mcc001.3gppnetwork.org";
const PATIENCE: Duration = Duration::from_secs(40);

/// An HSS and what is needed to ask it for its state.
struct Hss {
    program: Running,
    rest: String,
    folder: Folder,
}

impl Hss {
    /// `diameter` is the `[diameter]` section.
    fn start(name: &str, address: &str, diameter: &str) -> Self {
        let folder = Folder::new(name);
        let text = format!(
            "listen = [\"{address}:3868\"]\n[diameter]\nhost_ip = \"{address}\"\nreconnect = \"1s\"\n{diameter}\n"
        );
        let config = folder.write("hss.toml", &text);
        let rest = format!("{address}:8080");
        let program = Running::start(
            Command::new(program("hss"))
                .arg("--config")
                .arg(config)
                .env("IMSBOX_DATA_DIR", folder.path().join("data"))
                .env("IMSBOX_HTTP", &rest),
        );
        program.wait_for("listening", PATIENCE);
        Self { program, rest, folder }
    }

    /// The Diameter part of the state.
    fn state(&self) -> Value {
        let token = std::fs::read_to_string(self.folder.path().join("data/admin.token")).expect("the HSS made a token");
        let (status, body) = http::request(&self.rest, token.trim(), "GET", "/v1/status", "");
        assert_eq!(status, 200, "{body}");
        let all: Value = serde_json::from_str(&body).expect("the state is JSON");
        all["hss"]["diameter"].clone()
    }

    /// Waits until the state is as wanted.
    fn wait_until(&self, what: &str, wanted: impl Fn(&Value) -> bool) {
        for _ in 0..400 {
            if wanted(&self.state()) {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(100));
        }
        panic!("{what}: not so after 40 s\n{:#}\n{}", self.state(), self.program.printed());
    }
}

fn counter(state: &Value, direction: &str, name: &str) -> u64 {
    state["counters"][direction][name].as_u64().unwrap_or(0)
}

fn is_open(state: &Value, side: &str) -> bool {
    let peers = state["peers"].as_array().cloned().unwrap_or_default();
    peers.iter().any(|p| p["host"] == fd_name() && p["state"] == "open" && p["side"] == side)
}

fn fd_name() -> String {
    format!("fd.{REALM}")
}

/// freeDiameter, which will have a certificate even for connections that do not use it.
struct FreeDiameter {
    /// Kept as long as the program may read from it.
    _folder: Folder,
    config: PathBuf,
}

impl FreeDiameter {
    /// Listens on `port`; connects to the HSS at `hss` (address and port), where it expects it.
    fn new(name: &str, port: u16, hss: (&str, u16), watchdog: u32) -> Self {
        let folder = Folder::new(&format!("fd-{name}"));
        let file = |name: &str| folder.path().join(name).display().to_string();
        let (key, cert, fd) = (file("key.pem"), file("cert.pem"), fd_name());
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", &key, "-out", &cert])
            .args(["-subj", &format!("/CN={fd}")])
            .output();
        let made = made.expect("openssl can be started");
        assert!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
        let (address, to_port) = hss;
        let text = format!(
            "Identity = \"{fd}\";\nRealm = \"{REALM}\";\nPort = {port};\nSecPort = 0;\nNo_SCTP;\nNo_IPv6;\n\
             TwTimer = {watchdog};\nTcTimer = 5;\nTLS_Cred = \"{cert}\", \"{key}\";\nTLS_CA = \"{cert}\";\n\
             ConnectPeer = \"hss.{REALM}\" {{ ConnectTo = \"{address}\"; Port = {to_port}; No_TLS; }};\n"
        );
        let config = folder.write("fd.conf", &text);
        Self { _folder: folder, config }
    }

    fn start(&self) -> Running {
        let program = Running::start(Command::new("freeDiameterd").arg("-c").arg(&self.config));
        program.wait_for("daemon initialized", PATIENCE);
        program
    }
}

fn missing() -> bool {
    !installed("freeDiameterd", "freediameter") || !installed("openssl", "openssl")
}

fn free_port() -> u16 {
    let probe = TcpListener::bind("127.0.0.1:0").expect("a free port");
    probe.local_addr().expect("it has an address").port()
}

#[test]
fn freediameter_connects_asks_whether_the_hss_is_there_and_takes_leave() {
    if missing() {
        return;
    }
    let address = "127.71.1.1";
    let hss = Hss::start("hss-responder", address, &format!("[[diameter.peers]]\nhost = \"{}\"", fd_name()));
    let setup = FreeDiameter::new("responder", free_port(), (address, 3868), 6);
    let mut fd = setup.start();
    fd.wait_for("-> 'STATE_OPEN'", PATIENCE);
    hss.wait_until("the peer is open", |s| is_open(s, "responder") && counter(s, "sent", "CEA 2001") == 1);
    hss.wait_until("watchdogs are answered", |s| counter(s, "sent", "DWA 2001") >= 2);
    fd.terminate();
    hss.wait_until("the leave is taken", |s| counter(s, "received", "DPR") == 1 && counter(s, "sent", "DPA 2001") == 1);
    hss.wait_until("the peer is closed", |s| !is_open(s, "responder"));
    fd.wait_end(PATIENCE);
    assert!(!fd.printed().contains("ERROR"), "{}", fd.printed());
}

#[test]
fn the_hss_connects_to_freediameter_watches_it_and_comes_back_after_its_restart() {
    if missing() {
        return;
    }
    let (address, port) = ("127.71.1.2", free_port());
    let peer = format!("[[diameter.peers]]\nhost = \"{}\"\nconnect = \"127.0.0.1:{port}\"", fd_name());
    // Where freeDiameter expects the HSS, there is nobody: only the HSS connects.
    let setup = FreeDiameter::new("initiator", port, (address, 1), 30);
    let mut fd = setup.start();
    let hss = Hss::start("hss-initiator", address, &format!("watchdog = \"6s\"\n{peer}"));
    hss.wait_until("the peer is open", |s| is_open(s, "initiator") && counter(s, "received", "CEA 2001") == 1);
    fd.wait_for("-> 'STATE_OPEN'", PATIENCE);
    hss.wait_until("watchdogs are answered", |s| counter(s, "received", "DWA 2001") >= 2);
    fd.terminate();
    hss.wait_until("the leave is taken", |s| counter(s, "received", "DPR") == 1);
    fd.wait_end(PATIENCE);
    let _again = setup.start();
    hss.wait_until("the peer is open again", |s| is_open(s, "initiator") && counter(s, "received", "CEA 2001") == 2);
}

#[test]
fn when_both_connect_one_connection_remains_until_the_hss_ends() {
    if missing() {
        return;
    }
    let (address, port) = ("127.71.1.3", free_port());
    let peer = format!("[[diameter.peers]]\nhost = \"{}\"\nconnect = \"127.0.0.1:{port}\"", fd_name());
    let mut hss = Hss::start("hss-both", address, &peer);
    let setup = FreeDiameter::new("both", port, (address, 3868), 6);
    let fd = setup.start();
    hss.wait_until("the peer is open", |s| is_open(s, "initiator") || is_open(s, "responder"));
    hss.wait_until("watchdogs are answered", |s| {
        counter(s, "sent", "DWA 2001") + counter(s, "received", "DWA 2001") >= 2
    });
    assert!(is_open(&hss.state(), "initiator") || is_open(&hss.state(), "responder"));
    hss.program.terminate();
    fd.wait_for("sent a DPR with cause: REBOOTING", PATIENCE);
    fd.wait_for("'STATE_OPEN'\t-> 'STATE_CL", PATIENCE);
    hss.program.wait_end(PATIENCE);
}

#[test]
fn a_freediameter_that_the_hss_does_not_know_is_refused() {
    if missing() {
        return;
    }
    let address = "127.71.1.4";
    let hss = Hss::start("hss-unknown", address, "");
    let setup = FreeDiameter::new("unknown", free_port(), (address, 3868), 6);
    let fd = setup.start();
    hss.wait_until("the refusal", |s| counter(s, "sent", "CEA 3010") >= 1);
    fd.wait_for("DIAMETER_UNKNOWN_PEER", PATIENCE);
    assert!(!fd.printed().contains("-> 'STATE_OPEN'"), "{}", fd.printed());
}
