//! The four roles as programs of their own, from the shipped configurations, over real SIP and Diameter sockets; and what a
//! foreign eye (tshark) says of every packet on the wire.

use ims_process_tests::handset::{self, Attach};
use ims_process_tests::process::Running;
use ims_process_tests::{Folder, http, installed, program};
use std::net::{IpAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const ADDRESS: &str = "127.70.1.1";
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
fn four_programs_register_handsets_and_nothing_on_the_wire_is_malformed() {
    let folder = Folder::new("four-roles");
    let hss = role("hss", &folder);
    let roles = [role("scscf", &folder), role("icscf", &folder), role("pcscf", &folder)];
    let token = std::fs::read_to_string(folder.path().join("hss/admin.token")).unwrap();
    for n in 1..=6 {
        let body = format!(
            "{{\"imsi\":\"0010100000000{n:02}\",\"k\":\"{}\",\"opc\":\"{}\",\"msisdn\":\"491511234560{n}\"}}",
            handset::hex(&handset::K),
            handset::hex(&handset::OPC)
        );
        let (status, answer) = http::request(REST, token.trim(), "POST", "/v1/subscribers", &body);
        assert_eq!(status, 201, "{answer}");
    }
    let capture = Capture::start(&folder);
    for n in 1..=6 {
        if let Err(why) = handset::attach_in_clear(&in_clear(n, n % 2 == 0)) {
            let logs: Vec<_> = roles.iter().chain([&hss]).map(Running::printed).collect();
            panic!("handset {n}: {why}\n{}", logs.join("\n---\n"));
        }
    }
    if let Some(capture) = capture {
        capture.check();
    }
}

/// tshark on the loopback interface, or None where it is absent (which `installed` reports).
struct Capture {
    tshark: Running,
    file: std::path::PathBuf,
}

impl Capture {
    fn start(folder: &Folder) -> Option<Self> {
        if !installed("tshark", "tshark") {
            return None;
        }
        let file = folder.path().join("wire.pcapng");
        let tshark =
            Running::start(Command::new("tshark").args(["-i", "lo", "-f", "net 127.70.1.0/24", "-w"]).arg(&file));
        tshark.wait_for("Capturing on", Duration::from_secs(30));
        let capture = Self { tshark, file };
        capture.mark(59_901);
        Some(capture)
    }

    /// Sends datagrams to nobody until one is in the file: what was sent before is there too, what comes after will be.
    fn mark(&self, port: u16) {
        let socket = UdpSocket::bind("127.70.1.250:0").unwrap();
        let seen = (0..40).any(|_| {
            let _ = socket.send_to(b"mark", ("127.70.1.251", port));
            !self.show(&format!("udp.dstport == {port}")).is_empty()
        });
        assert!(seen, "tshark captures nothing:\n{}", self.tshark.printed());
    }

    /// What the capture shows through a display filter.
    fn show(&self, filter: &str) -> String {
        let mut command = Command::new("tshark");
        command.arg("-r").arg(&self.file);
        for (port, transport) in
            [(4060, "udp"), (5070, "udp"), (6060, "udp"), (4060, "tcp"), (5070, "tcp"), (6060, "tcp")]
        {
            command.args(["-d", &format!("{transport}.port=={port},sip")]);
        }
        let out = command.args(["-Y", filter]).output().unwrap();
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    fn check(mut self) {
        self.mark(59_902);
        self.tshark.terminate();
        self.tshark.wait_end(Duration::from_secs(20));
        let bad = self.show("_ws.malformed || (_ws.expert.severity >= 0x800000 && (sip || diameter))");
        assert!(bad.is_empty(), "tshark calls these malformed or erroneous:\n{bad}");
        for (what, filter, least) in [
            ("challenges", "sip.Status-Code == 401", 6),
            ("REGISTERs over TCP", "sip.Method == \"REGISTER\" && tcp", 6),
            ("UAR and UAA", "diameter.cmd.code == 300", 24),
            ("MAR and MAA", "diameter.cmd.code == 303", 12),
            ("SAR and SAA", "diameter.cmd.code == 301", 12),
        ] {
            let found = self.show(filter).lines().count();
            assert!(found >= least, "{what}: {found} packets, at least {least} expected");
        }
    }
}
