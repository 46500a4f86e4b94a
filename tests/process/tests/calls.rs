//! Foreign ends of a call: sipp as caller, as callee and as application server, over UDP and over TCP, with the box between.

use ims_process_tests::capture::Capture;
use ims_process_tests::handset::DOMAIN;
use ims_process_tests::process::Running;
use ims_process_tests::{Folder, Lab, installed};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const PASSWORD: &str = "a-long-one";
const CALLS: u32 = 10;

/// Two softphones with passwords, each at an address of its own.
struct Softphones {
    lab: Lab,
    net: String,
    transport: &'static str,
    folder: Folder,
}

fn imsi(phone: u8) -> String {
    format!("00101000021000{phone}")
}

fn number(phone: u8) -> String {
    format!("+4915000000{phone:03}")
}

impl Softphones {
    /// With the services of the one who calls and of the one who is called (JSON).
    fn start(name: &str, net: &str, transport: &'static str, criteria: [&str; 2]) -> Self {
        Self::start_with(name, net, transport, criteria, "")
    }

    /// With these lines in the configuration of the box.
    fn start_with(name: &str, net: &str, transport: &'static str, criteria: [&str; 2], config: &str) -> Self {
        let address = format!("{net}.1");
        let lab = Lab::start_on(name, &address, &format!("addresses = [\"{address}\"]\n{config}"), &[]);
        for (phone, services) in [1, 2].into_iter().zip(criteria) {
            let body = format!(
                "{{\"imsi\":\"{}\",\"msisdn\":\"{}\",\"password\":\"{PASSWORD}\",\"digest_algorithms\":[\"MD5\"],\"criteria\":{services}}}",
                imsi(phone),
                &number(phone)[1..]
            );
            let (status, answer) = lab.rest("POST", "/v1/subscribers", &body);
            assert_eq!(status, 201, "{answer}");
        }
        let phones = Self { lab, net: net.into(), transport, folder: Folder::new(&format!("{name}-sipp")) };
        for phone in [1, 2] {
            let mut sipp = phones.sipp("register_password", phone, &["-m", "1"]);
            phones.ends(&mut sipp);
        }
        phones
    }

    fn address(&self, phone: u8) -> String {
        format!("{}.{}", self.net, 10 + phone)
    }

    /// sipp with a scenario, in the place of a phone.
    fn sipp(&self, scenario: &str, phone: u8, more: &[&str]) -> Running {
        self.sipp_to(scenario, phone, &number(3u8.abs_diff(phone)), more)
    }

    fn sipp_to(&self, scenario: &str, phone: u8, callee: &str, more: &[&str]) -> Running {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("sipp/{scenario}.xml"));
        let errors = self.folder.path().join(format!("{scenario}-{phone}.log"));
        let mut command = Command::new("sipp");
        command
            .arg(format!("{}:5060", self.lab.address))
            .args(["-sf".as_ref(), file.as_os_str()])
            .args(["-i", &self.address(phone), "-p", "5060", "-t", self.transport])
            .args(["-key", "user", &imsi(phone), "-au", &format!("{}@{DOMAIN}", imsi(phone)), "-ap", PASSWORD])
            .args(["-key", "number", &number(phone), "-key", "callee", callee])
            .args(["-timeout", "40s", "-timeout_error", "-nostdin", "-trace_err", "-error_file"])
            .arg(errors)
            .args(more)
            .current_dir(self.folder.path());
        Running::start(&mut command)
    }

    fn ends(&self, sipp: &mut Running) {
        let ended = sipp.wait_end(Duration::from_secs(60));
        if !ended.success() {
            let logs = std::fs::read_dir(self.folder.path()).expect("a folder").flatten();
            let errors: Vec<_> = logs.filter_map(|file| std::fs::read_to_string(file.path()).ok()).collect();
            panic!("sipp: {ended}\n{}\n{}\n--- imsbox:\n{}", errors.join("\n"), sipp.printed(), self.lab.printed());
        }
    }

    fn call(&self, callee: &mut Running) {
        let calls = CALLS.to_string();
        let mut caller = self.sipp("caller", 1, &["-m", &calls, "-r", "5"]);
        self.ends(&mut caller);
        self.ends(callee);
    }
}

fn calls_between_softphones(name: &str, net: &str, transport: &'static str) {
    if !installed("sipp", "sip-tester") {
        return;
    }
    let phones = Softphones::start(name, net, transport, ["[]", "[]"]);
    let capture = Capture::start(net);
    let mut callee = phones.sipp("callee", 2, &["-m", &CALLS.to_string()]);
    phones.call(&mut callee);
    if let Some(capture) = capture {
        // To the box and from it; between its roles there are no packets.
        let each = 2 * CALLS as usize;
        capture.check(&[
            ("INVITE", "sip.Method == \"INVITE\"", each),
            ("ACK", "sip.Method == \"ACK\"", each),
            ("BYE", "sip.Method == \"BYE\"", each),
        ]);
    }
}

#[test]
fn sipp_calls_sipp_over_udp() {
    calls_between_softphones("calls-udp", "127.72.1", "u1");
}

#[test]
fn sipp_calls_sipp_over_tcp() {
    calls_between_softphones("calls-tcp", "127.72.2", "t1");
}

/// The callee's first service is an application server that answers in its place.
#[test]
fn sipp_as_application_server_answers_for_the_callee() {
    if !installed("sipp", "sip-tester") {
        return;
    }
    let criteria = at_server("127.72.3.13", "terminating");
    let phones = Softphones::start("calls-as", "127.72.3", "u1", ["[]", &criteria]);
    let mut server = phones.sipp("voicemail", 3, &["-m", &CALLS.to_string()]);
    phones.call(&mut server);
}

/// What the caller dials is nobody's here: it goes to a PBX, as that one wants it.
#[test]
fn sipp_as_a_trunk_takes_calls_to_elsewhere() {
    if !installed("sipp", "sip-tester") {
        return;
    }
    let config = "[scscf.numbering]\ncountry = \"49\"\nown = [\"+4915\"]\n[scscf.breakout]\noptions = 0\n\
        [scscf.breakout.trunks]\npbx = { uri = \"sip:127.72.5.13:5060\", number = \"national\" }\n\
        [[scscf.breakout.routes]]\nnumber = \"+\"\ntrunks = [\"pbx\"]";
    let phones = Softphones::start_with("calls-trunk", "127.72.5", "u1", ["[]", "[]"], config);
    let mut trunk = phones.sipp("trunk", 3, &["-m", &CALLS.to_string()]);
    let mut caller = phones.sipp_to("elsewhere", 1, "0301234567", &["-m", &CALLS.to_string(), "-r", "5"]);
    phones.ends(&mut caller);
    phones.ends(&mut trunk);
    let (_, status) = phones.lab.rest("GET", "/v1/status", "");
    assert!(status.contains("\"pbx\""), "{status}");
}

/// A criterion for INVITE in this session case.
fn at_server(address: &str, case: &str) -> String {
    format!(
        r#"[{{"priority":1,"server":"sip:{address}:5060","default_handling":"terminate","when":{{"all":[{{"method":"INVITE"}},{{"case":"{case}"}}]}}}}]"#
    )
}

/// Kamailio as a proxy that stays in the dialog, on the caller's side and on the callee's: the same request comes to it
/// twice, and the dialog keeps it in its route.
#[test]
fn kamailio_as_application_server_on_both_sides() {
    if !installed("sipp", "sip-tester") || !installed("kamailio", "kamailio") {
        return;
    }
    let address = "127.72.4.13";
    let folder = Folder::new("calls-kamailio");
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("kamailio/application_server.cfg");
    let text = std::fs::read_to_string(&shipped).unwrap_or_else(|e| panic!("{}: {e}", shipped.display()));
    let config = folder.write("kamailio.cfg", &text.replace("LISTEN", address).replace("SCSCF", "127.72.4.1"));
    let kamailio = Running::start(
        Command::new("kamailio")
            .args(["-DD", "-E", "-m", "32", "-M", "4", "-f"])
            .arg(&config)
            .arg("-Y")
            .arg(folder.path()),
    );
    kamailio.wait_for("listens", Duration::from_secs(30));
    let services = [at_server(address, "originating"), at_server(address, "terminating")];
    let phones = Softphones::start("calls-proxy", "127.72.4", "u1", [&services[0], &services[1]]);
    let mut callee = phones.sipp("callee", 2, &["-m", &CALLS.to_string()]);
    phones.call(&mut callee);
    let printed = kamailio.printed();
    for (what, times) in [("INVITE sescase=orig", CALLS), ("INVITE sescase=term", CALLS), ("in dialog: BYE", 2 * CALLS)]
    {
        let seen = printed.matches(what).count();
        assert!(seen >= times as usize, "{what}: {seen} of {times}\n{printed}");
    }
}
