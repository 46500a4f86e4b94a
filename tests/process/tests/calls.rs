//! Foreign ends of a call: sipp as caller, as callee and as application server, over UDP and over TCP, with the box between.

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
    /// Phone 2 has these services (JSON).
    fn start(name: &str, net: &str, transport: &'static str, criteria: &str) -> Self {
        let lab = Lab::start(name, &format!("{net}.1"));
        for phone in [1, 2] {
            let services = if phone == 2 { criteria } else { "[]" };
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
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("sipp/{scenario}.xml"));
        let errors = self.folder.path().join(format!("{scenario}-{phone}.log"));
        let mut command = Command::new("sipp");
        command
            .arg(format!("{}:5060", self.lab.address))
            .args(["-sf".as_ref(), file.as_os_str()])
            .args(["-i", &self.address(phone), "-p", "5060", "-t", self.transport])
            .args(["-key", "user", &imsi(phone), "-au", &format!("{}@{DOMAIN}", imsi(phone)), "-ap", PASSWORD])
            .args(["-key", "number", &number(phone), "-key", "callee", &number(3 - phone)])
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
    let phones = Softphones::start(name, net, transport, "[]");
    let mut callee = phones.sipp("callee", 2, &["-m", &CALLS.to_string()]);
    phones.call(&mut callee);
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
    let criteria = r#"[{"priority":1,"server":"sip:127.72.3.13:5060","trigger":{"cnf":false,"spts":[
        {"negated":false,"groups":[0],"kind":{"Method":{"method":"INVITE","registration_types":[]}}},
        {"negated":false,"groups":[0],"kind":{"SessionCase":1}}]}}]"#;
    let phones = Softphones::start("calls-as", "127.72.3", "u1", criteria);
    let mut server = phones.sipp("voicemail", 3, &["-m", &CALLS.to_string()]);
    phones.call(&mut server);
}
