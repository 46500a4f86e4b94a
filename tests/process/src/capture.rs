//! A foreign eye: tshark on the loopback interface, and what it says of every packet of a test's network.

use crate::process::Running;
use crate::{Folder, installed};
use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

pub struct Capture {
    tshark: Running,
    folder: Folder,
    /// The first three bytes of the network.
    net: String,
}

impl Capture {
    /// Of a network such as `127.70.1`. None where tshark is absent (which `installed` reports).
    pub fn start(net: &str) -> Option<Self> {
        if !installed("tshark", "tshark") {
            return None;
        }
        let folder = Folder::new(&format!("capture-{net}"));
        let filter = format!("net {net}.0/24");
        let file = folder.path().join("wire.pcapng");
        let tshark = Running::start(Command::new("tshark").args(["-i", "lo", "-f", &filter, "-w"]).arg(file));
        tshark.wait_for("Capturing on", Duration::from_secs(30));
        let capture = Self { tshark, folder, net: net.to_owned() };
        capture.mark(59_901);
        Some(capture)
    }

    /// Sends datagrams to nobody until one is in the file: what was sent before is there too, what comes after will be.
    fn mark(&self, port: u16) {
        let socket = UdpSocket::bind(format!("{}.250:0", self.net)).expect("an address of the test's network");
        let seen = (0..40).any(|_| {
            let _ = socket.send_to(b"mark", format!("{}.251:{port}", self.net));
            !self.show(&format!("udp.dstport == {port}")).is_empty()
        });
        assert!(seen, "tshark captures nothing:\n{}", self.tshark.printed());
    }

    /// What the capture shows through a display filter.
    fn show(&self, filter: &str) -> String {
        let mut command = Command::new("tshark");
        command.arg("-r").arg(self.folder.path().join("wire.pcapng"));
        for port in [4060, 5070, 6060] {
            for transport in ["udp", "tcp"] {
                command.args(["-d", &format!("{transport}.port=={port},sip")]);
            }
        }
        let out = command.args(["-Y", filter]).output().expect("tshark runs");
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    /// Nothing on the wire was malformed, or an error in the eyes of tshark; and there was at least so much of each: what it
    /// is, a display filter, how many packets.
    pub fn check(mut self, expected: &[(&str, &str, usize)]) {
        self.mark(59_902);
        self.tshark.terminate();
        self.tshark.wait_end(Duration::from_secs(20));
        let bad = self.show("_ws.malformed || (_ws.expert.severity >= 0x800000 && (sip || diameter))");
        assert!(bad.is_empty(), "tshark calls these malformed or erroneous:\n{bad}");
        for (what, filter, least) in expected {
            let found = self.show(filter).lines().count();
            assert!(found >= *least, "{what}: {found} packets, at least {least} expected");
        }
    }
}
