//! The box as its operator meets it: demo, check, subscriber, status, REST, and what survives kill -9.

use ims_process_tests::handset::{self, Attach, DOMAIN};
use ims_process_tests::process::Running;
use ims_process_tests::{Lab, program};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

#[test]
fn the_demo_attaches_two_handsets_that_call_and_prints_the_ladders() {
    let mut demo = Running::start(Command::new(program("imsbox")).arg("demo"));
    let ended = demo.wait_end(Duration::from_secs(120));
    let text = demo.printed();
    assert!(ended.success(), "{text}");
    for step in [
        "REGISTER",
        "401 Unauthorized",
        "200 OK",
        "UAR",
        "MAA",
        "SAR",
        "IPsec",
        "2 of 2",
        "180 Ringing",
        "BYE",
        "neither found fault",
    ] {
        assert!(text.contains(step), "'{step}' is not in:\n{text}");
    }
}

#[test]
fn check_prints_a_line_for_each_thing_and_the_address_for_the_pco() {
    let out = Command::new(program("imsbox")).arg("check").output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    for subject in ["configuration", "database", "ports", "handset address"] {
        assert!(text.contains(subject), "'{subject}' is not in:\n{text}");
    }
    let failed = text.lines().any(|l| l.starts_with("FAIL"));
    assert_eq!(out.status.success(), !failed, "{text}");
}

#[test]
fn a_configuration_with_a_typo_is_refused_with_its_name() {
    let folder = ims_process_tests::Folder::new("typo");
    let file = folder.write("imsbox.toml", "[pcscf.security]\npolcy = \"require\"\n");
    let out = Command::new(program("imsbox")).args(["up", "--config"]).arg(file).output().unwrap();
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success() && text.contains("polcy"), "{text}");
}

#[test]
fn subscribers_are_added_shown_listed_and_removed() {
    let lab = Lab::start("subscribers", "127.69.1.1");
    let (k, opc) = (handset::hex(&handset::K), handset::hex(&handset::OPC));
    let add = |imsi: &str, opc: &str| {
        lab.imsbox(&["subscriber", "add", "--imsi", imsi, "--k", &k, "--opc", opc, "--msisdn", "4915112345678"])
    };
    let (code, text) = add("001010000000001", &opc);
    assert_eq!(code, Some(0), "{text}");
    for identity in [
        "001010000000001@ims.mnc001.mcc001.3gppnetwork.org",
        "sip:+4915112345678@ims.mnc001.mcc001.3gppnetwork.org",
        "tel:+4915112345678",
    ] {
        assert!(text.contains(identity), "{identity} is not in:\n{text}");
    }
    assert!(!text.to_lowercase().contains(&k) && !text.contains(&opc), "a key can be read again:\n{text}");
    let (code, text) = add("001010000000002", "12");
    assert!(code != Some(0) && text.contains("opc"), "{text}");
    let (code, text) = add("001010000000001", &opc);
    assert!(code != Some(0) && text.contains("001010000000001"), "{text}");
    let (_, text) = lab.imsbox(&["subscriber", "list"]);
    assert!(text.contains("001010000000001"), "{text}");
    assert_eq!(lab.imsbox(&["subscriber", "remove", "001010000000001"]).0, Some(0));
    let (code, text) = lab.imsbox(&["subscriber", "show", "001010000000001"]);
    assert!(code != Some(0) && text.contains("001010000000001"), "{text}");
    let log = lab.printed();
    assert!(!log.contains(&k) && !log.contains(&opc), "a key is in the log:\n{log}");
}

#[test]
fn rest_answers_with_problems_that_name_the_field() {
    let lab = Lab::start("rest", "127.69.2.1");
    let (status, body) = lab.rest("POST", "/v1/subscribers", "{\"imsi\":\"12\"}");
    assert_eq!(status, 400, "{body}");
    assert!(body.contains("\"field\":\"imsi\""), "{body}");
    let (status, body) = ims_process_tests::http::request("127.69.2.1:8080", "wrong", "GET", "/v1/subscribers", "");
    assert_eq!(status, 401, "{body}");
    assert_eq!(lab.rest("GET", "/v1/subscribers/001019999999999", "").0, 404);
    for n in 1..=5 {
        lab.subscribe(&format!("00101000000010{n}"));
    }
    let (_, page) = lab.rest("GET", "/v1/subscribers?limit=2", "");
    let page: serde_json::Value = serde_json::from_str(&page).unwrap();
    assert_eq!(page["subscribers"].as_array().map(Vec::len), Some(2), "{page}");
    assert_eq!(page["next"], "001010000000102", "{page}");
    let (_, rest) = lab.rest("GET", "/v1/subscribers?limit=9&after=001010000000102", "");
    let rest: serde_json::Value = serde_json::from_str(&rest).unwrap();
    assert_eq!(rest["subscribers"].as_array().map(Vec::len), Some(3), "{rest}");
    assert!(rest["next"].is_null(), "{rest}");
}

#[test]
fn what_was_acknowledged_survives_kill_9_and_no_sqn_is_handed_out_twice() {
    let mut lab = Lab::start("kill9", "127.69.3.1");
    let imsi = "001010000000001";
    lab.subscribe(imsi);
    let mut last = 0;
    for round in 1..=3 {
        for n in 0..5u32 {
            let sqn = challenged_sqn(&lab, imsi, round * 10 + n);
            assert!(sqn > last, "SQN {sqn:012x} after {last:012x}, round {round}");
            last = sqn;
        }
        lab.crash_and_restart();
        assert!(lab.imsbox(&["subscriber", "list"]).1.contains(imsi));
    }
}

/// The SQN in the challenge that a first REGISTER gets, unmasked with AK.
fn challenged_sqn(lab: &Lab, imsi: &str, cseq: u32) -> u64 {
    let pcscf: IpAddr = lab.address.parse().unwrap();
    let attach = Attach::new(imsi, handset::loopback(3), pcscf);
    let socket = UdpSocket::bind(SocketAddr::new(attach.ue, 5060)).unwrap();
    let message = attach.register(cseq, 5060, &attach.empty_authorization(), None, 600);
    let answer = handset::exchange_udp(&socket, &socket, SocketAddr::new(pcscf, 5060), &message).unwrap();
    assert_eq!(handset::status(&answer), 401, "{answer}");
    let nonce = handset::header(&answer, "WWW-Authenticate").and_then(|l| handset::param(l, "nonce")).unwrap();
    handset::network_sqn(nonce).unwrap()
}

/// `imsbox ifc explain`: by the profile that the HSS has, for a request from a file, from standard input, or made of a method.
#[test]
fn the_operator_is_told_why_a_request_goes_to_a_server_or_not() {
    let lab = Lab::start("explain", "127.69.6.1");
    lab.subscribe("001010000000001");
    let criteria = "{\"msisdn\":\"4915112345678\",\"criteria\":[{\"priority\":7,\"server\":\"sip:as.example\",\"when\":{\"all\":[{\"method\":\"INVITE\"},\
                    {\"line\":\"m\",\"content\":\"^video\"}]}}]}";
    let (status, body) = lab.rest("PATCH", "/v1/subscribers/001010000000001", criteria);
    assert_eq!(status, 200, "{body}");
    let folder = ims_process_tests::Folder::new("explain-message");
    let message = "INVITE tel:+4930123 SIP/2.0\nContent-Type: application/sdp\n\nv=0\nm=audio 4000 RTP/AVP 0\n";
    let file = folder.write("call.sip", message);
    let explain = |more: &[&str]| lab.imsbox(&[&["ifc", "explain", "--impu", "tel:+4915112345678"], more].concat());
    let (code, text) = explain(&["--message", &file.display().to_string()]);
    assert_eq!(code, Some(0), "{text}");
    for piece in
        ["is not registered", "originating, unregistered", "m=audio 4000 RTP/AVP 0", "to no application server"]
    {
        assert!(text.contains(piece), "'{piece}' is not in:\n{text}");
    }
    std::fs::write(&file, message.replace("m=audio", "m=video")).unwrap();
    let (_, text) = explain(&["--message", &file.display().to_string(), "--registered", "--case", "terminating"]);
    assert!(text.contains("terminating, registered") && text.contains("It goes to: sip:as.example"), "{text}");
    let (_, text) = explain(&["--method", "REGISTER", "--json"]);
    let told: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(told["explanation"]["criteria"][0]["groups"][0]["conditions"][0]["compared"], "REGISTER", "{text}");
    let (code, text) = lab.imsbox(&["ifc", "explain", "--impu", "tel:+1", "--method", "INVITE"]);
    assert!(code != Some(0) && text.contains("no subscriber has the public identity tel:+1"), "{text}");
    std::fs::write(&file, "hello").unwrap();
    let (code, text) = explain(&["--message", &file.display().to_string()]);
    assert!(code != Some(0) && text.contains("message: this is no SIP message"), "{text}");
    let wrong = "{\"criteria\":[{\"priority\":7,\"server\":\"sip:as.example\",\"when\":{\"request_uri\":\"*\"}}]}";
    let (status, body) = lab.rest("PATCH", "/v1/subscribers/001010000000001", wrong);
    assert!(
        status == 400 && body.contains("\"field\":\"criteria\"") && body.contains("no regular expression"),
        "{body}"
    );
    let (_, body) = lab.rest("GET", "/v1/profiles/tel:+4915112345678", "");
    assert!(body.contains("<InitialFilterCriteria><Priority>7<"), "{body}");
}

#[test]
fn services_are_provisioned_over_rest() {
    let lab = Lab::start("services", "127.72.6.1");
    let identity = format!("sip:chat-!.*!@{DOMAIN}");
    let (status, made) = lab.rest("POST", "/v1/services", &format!(r#"{{"identity":"{identity}","server":"sip:as"}}"#));
    assert_eq!(status, 201, "{made}");
    let path = format!("/v1/services/{}", identity.replace(':', "%3A").replace('@', "%40"));
    assert_eq!(lab.rest("PATCH", &path, r#"{"active":false}"#).0, 200);
    let (status, shown) = lab.rest("GET", &path, "");
    assert!(status == 200 && shown.contains(r#""active":false"#) && shown.contains(r#""server":"sip:as""#), "{shown}");
    let (status, listed) = lab.rest("GET", "/v1/services?limit=5", "");
    assert!(status == 200 && listed.contains("chat-"), "{listed}");
    let (status, problem) = lab.rest("POST", "/v1/services", r#"{"identity":"sip:a!(!@b"}"#);
    assert!(status == 400 && problem.contains("identity"), "{problem}");
    assert_eq!((lab.rest("DELETE", &path, "").0, lab.rest("GET", &path, "").0), (204, 404));
}
