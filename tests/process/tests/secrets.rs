//! At the most talkative level of logging, no key, no response of a SIM and no token of the operator is printed.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use ims_process_tests::Lab;
use ims_process_tests::handset::{self, Attach};
use std::net::IpAddr;

const IMSI: &str = "001010000000001";
const SECOND: &str = "001010000000002";

#[test]
fn no_secret_is_logged_not_even_at_trace() {
    let lab = Lab::start_with("secrets", "127.72.1.1", &[("IMSBOX_LOG", "trace")]);
    lab.subscribe(IMSI);
    lab.subscribe(SECOND);
    let mut secrets = vec![("K", handset::K.to_vec()), ("OPc", handset::OPC.to_vec())];
    for (n, tcp) in [(1, false), (2, true)] {
        let (ue, pcscf) = (IpAddr::from([127, 72, 1, 100 + n]), lab.address.parse().unwrap());
        let attach = Attach { tcp, ..Attach::new(IMSI, ue, pcscf) };
        let answered = handset::attach_in_clear(&attach).unwrap_or_else(|why| panic!("{why}\n{}", lab.printed()));
        // With sec-agree the keys go on to the kernel, if only to be refused by it.
        let challenge = Attach { imsi: SECOND.into(), ..attach }.challenge().unwrap();
        let line = handset::header(&challenge, "WWW-Authenticate").unwrap();
        for nonce in [answered.as_str(), handset::param(line, "nonce").unwrap()] {
            let (res, ck, ik) = handset::aka(nonce).unwrap();
            secrets.extend([("RES", res.to_vec()), ("CK", ck.to_vec()), ("IK", ik.to_vec())]);
        }
    }
    for (name, file) in [("admin token", "admin.token"), ("master key", "hss.key")] {
        let hex = std::fs::read_to_string(lab.folder.path().join("data").join(file)).unwrap();
        secrets.push((name, unhex(hex.trim())));
    }
    let log = lab.stop();
    assert!(log.contains(" DEBUG ims_shell"), "the log is as talkative as was asked:\n{log}");
    let lower = log.to_lowercase();
    for (name, bytes) in secrets {
        let leak = forms(&bytes).into_iter().find(|form| log.contains(form) || lower.contains(form));
        assert!(leak.is_none(), "{name} is in the log, as {}:\n{log}", leak.unwrap_or_default());
    }
}

/// How bytes may be printed: hexadecimal (in lower case; with and without separators), base64, a list of numbers.
fn forms(bytes: &[u8]) -> Vec<String> {
    let joined = |by: &str| bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(by);
    let numbers: Vec<String> = bytes.iter().map(ToString::to_string).collect();
    let mut forms: Vec<String> = ["", " ", ":", "-", ", "].map(joined).into();
    forms.extend([
        numbers.join(", "),
        STANDARD.encode(bytes),
        STANDARD_NO_PAD.encode(bytes),
        URL_SAFE_NO_PAD.encode(bytes),
    ]);
    forms
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).filter_map(|d| u8::try_from(d).ok()).collect();
    assert_eq!(digits.len(), 64, "32 bytes in hexadecimal");
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
