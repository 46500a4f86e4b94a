//! The operator's view of bans: a scanner is banned by the running box, seen over REST and on the command line, and let back in.

use ims_process_tests::Lab;
use serde_json::Value;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

const BOX: &str = "127.69.31.1";
const SCANNER: &str = "127.69.31.66";
const NEIGHBOUR: &str = "127.69.31.67";

/// Sends an OPTIONS from there; whether it was answered.
fn is_answered(socket: &UdpSocket, n: u32, agent: &str, most: Duration) -> bool {
    let from = socket.local_addr().unwrap();
    let request = format!(
        "OPTIONS sip:{BOX} SIP/2.0\r\nVia: SIP/2.0/UDP {from};branch=z9hG4bKban{n}\r\nMax-Forwards: 70\r\n\
         From: <sip:a@{from}>;tag={n}\r\nTo: <sip:{BOX}>\r\nCall-ID: {n}@{from}\r\nCSeq: 1 OPTIONS\r\n\
         User-Agent: {agent}\r\nContent-Length: 0\r\n\r\n"
    );
    socket.send_to(request.as_bytes(), (BOX, 5060)).unwrap();
    socket.set_read_timeout(Some(most)).unwrap();
    let mut answer = [0; 4096];
    let until = Instant::now() + most;
    // An answer to an earlier one may be repeated.
    while let Ok(length) = socket.recv(&mut answer) {
        if String::from_utf8_lossy(&answer[..length]).contains(&format!("z9hG4bKban{n}")) {
            return true;
        }
        if Instant::now() >= until {
            break;
        }
    }
    false
}

fn bans(lab: &Lab) -> Vec<Value> {
    let (status, text) = lab.rest("GET", "/v1/bans", "");
    assert_eq!(status, 200, "{text}");
    let json: Value = serde_json::from_str(&text).unwrap();
    json["bans"].as_array().unwrap_or_else(|| panic!("no list: {text}")).clone()
}

#[test]
fn a_scanner_is_banned_listed_and_let_back_in() {
    const PATIENCE: Duration = Duration::from_secs(20);
    // Loopback is spared as shipped.
    let lab = Lab::start_on("bans", BOX, &format!("addresses = [\"{BOX}\"]\n[pcscf.sources]\nnever_ban = []"), &[]);
    let [scanner, neighbour] = [SCANNER, NEIGHBOUR].map(|address| UdpSocket::bind((address, 5060)).unwrap());
    assert!(bans(&lab).is_empty());
    assert_eq!(lab.imsbox(&["bans"]), (Some(0), "nobody is banned\n".into()));
    assert!(is_answered(&scanner, 1, "phone", PATIENCE), "{}", lab.printed());

    let silence = Duration::from_millis(300);
    assert!(!is_answered(&scanner, 2, "friendly-scanner", silence), "a scanner hears nothing");
    assert!(!is_answered(&scanner, 3, "phone", silence), "nor does what comes from there afterwards");
    assert!(is_answered(&neighbour, 4, "phone", PATIENCE), "others are heard");
    let listed = bans(&lab);
    let [ban] = listed.as_slice() else { panic!("{listed:?}") };
    assert_eq!((ban["source"].as_str(), ban["cause"].as_str()), (Some(SCANNER), Some("scanner")));
    assert!(ban["ends_in_s"].as_u64().is_some_and(|s| (1..=600).contains(&s)), "{ban}");
    assert_eq!(ban["dropped"], 1, "{ban}");
    let (code, text) = lab.imsbox(&["bans"]);
    assert!(code == Some(0) && text.starts_with(&format!("banned: {SCANNER} (scanner), ")), "{text}");
    assert!(lab.status().contains(SCANNER), "{}", lab.status());

    let rest = format!("{BOX}:8080");
    for (method, path) in [("GET", "/v1/bans".to_owned()), ("DELETE", format!("/v1/bans/{SCANNER}"))] {
        let (status, text) = ims_process_tests::http::request(&rest, "wrong", method, &path, "");
        assert!(status == 401 && !text.contains(SCANNER), "{method}: {status} {text}");
    }
    assert_eq!(lab.rest("DELETE", &format!("/v1/bans/{NEIGHBOUR}"), "").0, 404, "who is not banned");
    assert_eq!(lab.rest("DELETE", "/v1/bans/nonsense", "").0, 400);
    assert_eq!(bans(&lab).len(), 1);
    assert_eq!(lab.rest("DELETE", &format!("/v1/bans/{SCANNER}"), ""), (204, String::new()));
    assert!(bans(&lab).is_empty());
    assert!(is_answered(&scanner, 5, "phone", PATIENCE), "it is listened to again:\n{}", lab.printed());

    // The command does what REST does.
    assert!(!is_answered(&scanner, 6, "friendly-scanner", silence));
    let (code, text) = lab.imsbox(&["bans", "lift", SCANNER]);
    assert_eq!((code, text.as_str()), (Some(0), format!("{SCANNER} is listened to again\n").as_str()));
    let (code, text) = lab.imsbox(&["bans", "lift", SCANNER]);
    assert!(code != Some(0) && text.contains("not banned"), "{text}");
    assert!(is_answered(&scanner, 7, "phone", PATIENCE), "{}", lab.printed());
}
