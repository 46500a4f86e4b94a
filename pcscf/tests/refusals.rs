//! What a P-CSCF refuses, drops and survives.

mod common;

use common::{Bench, DOMAIN, Handset};
use ims_core::sa::{SaChange, SaError, SaExpiry};
use ims_core::{Event, Flow, Impi, Node, Transport};
use ims_sip::{Message, Name};
use pcscf::Config;
use pcscf::config::{Policy, SuiteName};

fn require(config: &mut Config) {
    config.security.policy = Policy::Require;
}

fn never(config: &mut Config) {
    config.security.policy = Policy::Never;
}

/// The one answer to a packet, which goes no further.
fn answer(bench: &mut Bench, flow: Flow, text: &str) -> Message {
    bench.packet(flow, text).answered().1
}

#[test]
fn without_ipsec_the_policy_decides() {
    let mut ue = Handset::udp4();
    let text = ue.register(3600, "");
    let mut bench = Bench::with(require);
    let refusal = answer(&mut bench, ue.clear_flow(), &text);
    assert_eq!((refusal.status(), refusal.tokens(Name::Require)), (421, vec!["sec-agree"]));
    assert!(refusal.text(Name::SecurityServer).unwrap().starts_with("ipsec-3gpp;q=1;"));
    assert_eq!(bench.refused("sec-agree-required"), 1);
    // Zoiper: sec-agree in Supported, and nothing offered. No 494.
    let text = ue.register(3600, "Supported: sec-agree\r\n");
    assert_eq!(answer(&mut bench, ue.clear_flow(), &text).status(), 421);
    for policy in [never, |_: &mut Config| {}] {
        let mut bench = Bench::with(policy);
        bench.packet(ue.clear_flow(), &ue.register(3600, "Supported: sec-agree\r\n")).forwarded();
    }
}

#[test]
fn sec_agree_without_an_offer_or_without_a_common_suite_is_494() {
    for policy in [require, |_: &mut Config| {}] {
        let mut bench = Bench::with(policy);
        let mut ue = Handset::udp4();
        let text = ue.register(3600, "Proxy-Require: sec-agree\r\n");
        assert_eq!(answer(&mut bench, ue.clear_flow(), &text).status(), 494);
        ue.suites = vec!["hmac-md5-96/des-ede3-cbc"];
        let text = ue.register(3600, &ue.sec_agree());
        let refusal = answer(&mut bench, ue.clear_flow(), &text);
        assert_eq!(refusal.status(), 494);
        let acceptable = refusal.text(Name::SecurityServer).unwrap();
        assert!(acceptable.contains("alg=hmac-sha-1-96;ealg=aes-cbc") && !acceptable.contains("md5"));
        assert_eq!((bench.refused("no-offer"), bench.refused("no-common-suite")), (1, 1));
    }
}

#[test]
fn with_policy_never_nobody_gets_sas() {
    let mut bench = Bench::with(never);
    let mut ue = Handset::udp4();
    let request = ue.hello(&mut bench).forwarded();
    let (flow, challenge) = bench.challenge(&request, "bm9uY2U=").answered();
    assert_eq!((flow, challenge.status()), (ue.clear_flow(), 401));
    assert!(!challenge.has(Name::SecurityServer));
}

#[test]
fn a_ue_without_ipsec_registers_refreshes_and_leaves() {
    for transport in [Transport::Udp, Transport::Tcp] {
        let mut bench = Bench::new();
        let mut ue = Handset::new(true, transport);
        let request = bench.packet(ue.clear_flow(), &ue.register(3600, "")).forwarded();
        // Neither yes nor no where no security association could be (TS 24.229 5.2.2.3).
        assert!(!request.text(Name::Authorization).unwrap().contains("integrity-protected"));
        let (_, challenge) = bench.challenge(&request, "bm9uY2U=").answered();
        assert!(!challenge.has(Name::SecurityServer));
        ue.nonce = "bm9uY2U=".into();
        let request = bench.packet(ue.clear_flow(), &ue.register(3600, "")).forwarded();
        let path = request.text(Name::Path).unwrap().to_owned();
        let (flow, ok) = bench.accept(&request, 600).answered();
        assert_eq!((flow, ok.status()), (ue.clear_flow(), 200));
        assert_eq!(bench.registrations()[0]["sa"], serde_json::Value::Null);

        let options = options(&ue, &format!("sip:pcscf.{DOMAIN}"));
        assert_eq!(answer(&mut bench, ue.clear_flow(), &options).status(), 200);

        let request = bench.packet(ue.clear_flow(), &ue.register(3600, "")).forwarded();
        assert_eq!(request.text(Name::Path), Some(path.as_str()), "the same registration");
        bench.accept(&request, 600);
        assert_eq!(bench.registrations().len(), 1);
        let request = bench.packet(ue.clear_flow(), &ue.register(0, "")).forwarded();
        assert_eq!(bench.accept(&request, 0).answered().1.status(), 200);
        bench.assert_empty();
    }
}

#[test]
fn a_registration_without_ipsec_expires() {
    let mut bench = Bench::new();
    let mut ue = Handset::udp4();
    let request = bench.packet(ue.clear_flow(), &ue.register(3600, "")).forwarded();
    bench.accept(&request, 60);
    bench.pass(61);
    assert!(bench.registrations().is_empty());
    bench.assert_empty();
}

#[test]
fn a_ue_may_fall_back_from_ipsec_where_that_is_allowed() {
    let mut bench = Bench::new();
    let mut ue = Handset::udp4();
    let set = ue.get_challenged(&mut bench);
    ue.nonce = "bm9uY2U=".into();
    let text = ue.register(3600, "");
    let request = bench.packet(ue.clear_flow(), &text).forwarded();
    let out = bench.accept(&request, 600);
    assert_eq!(out.removed(), [set]);
    bench.kernel_agrees(&out);
    assert_eq!(out.answered().1.status(), 200);
    assert_eq!(bench.registrations()[0]["sa"], serde_json::Value::Null);
}

#[test]
fn where_ipsec_is_required_nobody_answers_the_challenge_in_clear() {
    let mut bench = Bench::with(require);
    let mut ue = Handset::udp4();
    ue.get_challenged(&mut bench);
    ue.nonce = "bm9uY2U=".into();
    let text = ue.register(3600, &ue.sec_agree());
    assert_eq!(answer(&mut bench, ue.clear_flow(), &text).status(), 403);
    assert_eq!(bench.refused("answered-in-clear"), 1);
    // Even if the core let somebody in without a challenge, nothing would be stored.
    let mut other = Handset { imsi: "001010000000002".into(), port: 5999, call: "x".into(), ..Handset::udp4() };
    let request = other.hello(&mut bench).forwarded();
    let (_, refusal) = bench.accept(&request, 600).answered();
    assert_eq!(refusal.status(), 403);
    assert!(bench.registrations().is_empty());
}

#[test]
fn security_verify_must_say_what_security_server_said() {
    for (change, name) in
        [("spi-s=", "spi-s=1"), ("Security-Verify", "X-Nothing"), ("ealg=aes-cbc;mod", "ealg=null;mod")]
    {
        let mut bench = Bench::new();
        let mut ue = Handset::udp4();
        let set = ue.get_challenged(&mut bench);
        ue.set = Some(set);
        let text = ue.register(3600, &ue.sec_agree());
        let (head, verify) = text.split_at(text.find("Security-Verify").unwrap());
        let text = format!("{head}{}", verify.replace(change, name));
        let (flow, refusal) = bench.packet(ue.flow_of(&set), &text).answered();
        assert_eq!((flow, refusal.status()), (ue.answers_of(&set), 494));
        assert_eq!(bench.refused("security-verify-mismatch"), 1);
        assert_eq!(bench.pass(130).removed(), [set], "the attempt is abandoned");
        bench.assert_empty();
    }
}

#[test]
fn a_mismatch_does_not_end_an_established_registration() {
    let mut bench = Bench::new();
    let mut ue = Handset::udp4();
    let set = ue.attach(&mut bench, 3600);
    let text = ue.register(3600, &ue.sec_agree()).replace("prot=esp;q", "prot=ah;q");
    assert_eq!(answer(&mut bench, ue.flow_of(&set), &text).status(), 494);
    assert!(bench.pass(200).removed().is_empty());
    assert_eq!(bench.registrations().len(), 1);
}

#[test]
fn an_offer_that_changed_after_the_challenge_is_refused() {
    let tampered = |config: &mut Config| {
        config.security.preference.push(SuiteName::parse("hmac-md5-96/des-ede3-cbc").unwrap());
    };
    let mut bench = Bench::with(tampered);
    let mut ue = Handset::udp4();
    let honest = ue.suites.clone();
    ue.suites.truncate(1); // somebody in between left only the weakest
    let set = ue.get_challenged(&mut bench);
    assert_eq!(set.suite.alg.token(), "hmac-md5-96");
    (ue.set, ue.suites) = (Some(set), honest);
    let text = ue.register(3600, &ue.sec_agree());
    assert_eq!(answer(&mut bench, ue.flow_of(&set), &text).status(), 494);
    assert_eq!(bench.refused("security-client-mismatch"), 1);
}

#[test]
fn the_order_of_the_offers_may_change() {
    let mut bench = Bench::new();
    let mut ue = Handset::udp4();
    let set = ue.get_challenged(&mut bench);
    ue.set = Some(set);
    ue.suites.reverse();
    ue.protected(&mut bench, 3600).forwarded();
}

#[test]
fn the_sa_of_one_speaks_for_no_other() {
    let mut bench = Bench::new();
    let mut ue = Handset::udp4();
    let set = ue.attach(&mut bench, 3600);
    let text = ue.register(3600, &ue.sec_agree()).replace("username=\"001010000000001@", "username=\"001010000000002@");
    let (flow, refusal) = bench.packet(ue.flow_of(&set), &text).answered();
    assert_eq!((flow, refusal.status()), (ue.answers_of(&set), 403));
    let second = "Authorization: Digest username=\"001010000000002@x\",nonce=\"\",response=\"\"\r\n";
    let text = ue.register(3600, &format!("{second}{}", ue.sec_agree()));
    assert_eq!(answer(&mut bench, ue.flow_of(&set), &text).status(), 400, "nor does a second Authorization help");
    assert_eq!((bench.refused("other-identity"), bench.refused("malformed")), (1, 1));
}

#[test]
fn protected_ports_take_only_what_belongs_to_a_live_set() {
    let mut bench = Bench::new();
    let mut ue = Handset::udp4();
    let set = ue.attach(&mut bench, 3600);
    let text = ue.register(3600, &ue.sec_agree());
    let right = ue.flow_of(&set);
    let stranger = Flow { remote: "198.51.100.9:40001".parse().unwrap(), ..right };
    let other_port = Flow { remote: "198.51.100.7:40002".parse().unwrap(), ..right };
    let client_port = Flow { local: "192.0.2.1:6102".parse().unwrap(), ..right };
    for (flow, count) in [(stranger, 1), (other_port, 2), (client_port, 3)] {
        assert!(bench.packet(flow, &text).is_silent());
        assert_eq!(bench.refused("no-live-sa"), count);
    }
    // What is no SIP at all is answered by nobody either.
    assert!(bench.packet(stranger, "hello").is_silent());
    // From a protected port of the UE to the open port: never.
    let beside = Flow { local: "192.0.2.1:5060".parse().unwrap(), ..right };
    assert!(bench.packet(beside, &text).is_silent());
    assert_eq!(bench.refused("clear-from-protected-port"), 1);
    bench.packet(right, &text).forwarded();
}

fn options(ue: &Handset, uri: &str) -> String {
    let (host, port) = (ims_core::uri::host_of(ue.ip), ue.set.map_or(ue.port, |s| s.port_us));
    format!(
        "OPTIONS {uri} SIP/2.0\r\nVia: SIP/2.0/{} {host}:{port};branch=z9hG4bKopt\r\nMax-Forwards: 70\r\nFrom: <sip:a@x>;tag=o\r\n\
         To: <{uri}>\r\nCall-ID: options\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n",
        ue.transport.token()
    )
}

#[test]
fn other_requests_come_from_registered_ues_only_and_are_answered_inside_the_sa() {
    for transport in [Transport::Udp, Transport::Tcp] {
        let mut bench = Bench::new();
        let mut ue = Handset::new(false, transport);
        let ping = options(&ue, &format!("sip:pcscf.{DOMAIN}"));
        assert_eq!(answer(&mut bench, ue.clear_flow(), &ping).status(), 403);
        let set = ue.get_challenged(&mut bench);
        ue.set = Some(set);
        let ping = options(&ue, &format!("sip:pcscf.{DOMAIN}"));
        let (flow, refusal) = bench.packet(ue.flow_of(&set), &ping).answered();
        assert_eq!((flow, refusal.status()), (ue.answers_of(&set), 403), "authenticated only by the next REGISTER");
        let request = ue.protected(&mut bench, 3600).forwarded();
        let out = bench.accept(&request, 3600);
        bench.kernel_agrees(&out);
        let ping = ping.replace("z9hG4bKopt", "z9hG4bKopt2");
        let (flow, ok) = bench.packet(ue.flow_of(&set), &ping).answered();
        assert_eq!((flow, ok.status()), (ue.answers_of(&set), 200));
        assert_eq!(ok.text(Name::Contact), Some("<sip:192.0.2.1:6100>"), "the protected server port");
        assert_eq!(bench.refused("register-first"), 2);
        bench.pass(200);
        assert_eq!(bench.node.snapshot()["sip"]["transactions"]["server"], 0);
    }
}

#[test]
fn what_the_endpoint_answers_by_itself_leaves_inside_the_sa() {
    for mut ue in common::four_ways() {
        let mut bench = Bench::new();
        let set = ue.attach(&mut bench, 3600);
        let ping = options(&ue, &format!("sip:pcscf.{DOMAIN}"));
        let cancel = ping.replace("OPTIONS", "CANCEL").replace("z9hG4bKopt", "z9hG4bKopt;rport");
        let crooked = ping.replace("CSeq: 1 OPTIONS", "CSeq: 1 MESSAGE");
        for (text, status) in [(cancel, 481), (crooked, 400)] {
            let (flow, refusal) = bench.packet(ue.flow_of(&set), &text).answered();
            assert_eq!((flow, refusal.status()), (ue.answers_of(&set), status));
        }
        assert_eq!(bench.refused("withheld"), 0);
    }
}

#[test]
fn requests_from_the_core() {
    let mut bench = Bench::new();
    let mut ue = Handset::udp4();
    let set = ue.attach(&mut bench, 3600);
    let request = ue.protected(&mut bench, 3600).forwarded();
    let path = request.text(Name::Path).unwrap().to_owned();
    let mw = Flow::udp("127.0.0.1:5070".parse().unwrap(), "127.0.0.1:6060".parse().unwrap());
    let via = |text: String, n: u8| {
        text.replace("198.51.100.7:50001;branch=z9hG4bKopt", &format!("127.0.0.1:6060;branch=z9hG4bKs{n}"))
    };
    let status = |text: String, bench: &mut Bench| {
        let out = bench.packet(mw, &text);
        assert!(out.ue.is_empty(), "nothing to the UE: {:?}", set.port_us);
        out.core[0].status()
    };
    assert_eq!(status(via(options(&ue, &format!("sip:pcscf.{DOMAIN}")), 1), &mut bench), 200);
    let routed = |route: &str, n| via(options(&ue, "sip:a@b"), n).replace("Max", &format!("Route: {route}\r\nMax"));
    let unknown = path.replace("<sip:", "<sip:x");
    assert_eq!(status(routed(&unknown, 2), &mut bench), 480);
    assert_eq!(status(routed(&unknown, 6).replace("\r\nCall-ID", ";tag=t\r\nCall-ID"), &mut bench), 481);
    assert_eq!(bench.refused("ue-gone"), 2);
    assert_eq!(status(routed("<sip:nobody@pcscf.example;lr>", 3), &mut bench), 404);
    assert_eq!(status(via(options(&ue, "sip:a@b"), 4), &mut bench), 404);
    assert_eq!(status(via(options(&ue, "sip:a@b"), 5).replace("OPTIONS", "REGISTER"), &mut bench), 403);
    assert_eq!((bench.refused("no-such-ue"), bench.refused("register-from-core")), (2, 1));
}

#[test]
fn a_taken_spi_is_replaced_a_few_times() {
    let mut bench = Bench::new();
    let mut ue = Handset::udp4();
    let request = ue.hello(&mut bench).forwarded();
    let (mut id, mut set) = bench.challenge(&request, "bm9uY2U=").install();
    for taken in 1..4 {
        let out = bench.kernel(id, Err(SaError::SpiTaken(if taken % 2 == 0 { set.spi_pc } else { set.spi_ps })));
        assert!(out.ue.is_empty());
        let (next, other) = out.install();
        assert!(set.spi_ps != other.spi_ps && set.spi_pc != other.spi_pc);
        assert_eq!((set.spi_us, set.port_us), (other.spi_us, other.port_us));
        (id, set) = (next, other);
    }
    let (_, refusal) = bench.kernel(id, Err(SaError::SpiTaken(set.spi_ps))).answered();
    assert_eq!((refusal.status(), bench.refused("kernel-spi-taken")), (500, 1));
    bench.assert_empty();
}

#[test]
fn an_spi_of_the_ue_that_is_taken_cannot_be_replaced() {
    let mut bench = Bench::new();
    let mut ue = Handset::udp4();
    let request = ue.hello(&mut bench).forwarded();
    let (id, set) = bench.challenge(&request, "bm9uY2U=").install();
    assert_eq!(bench.kernel(id, Err(SaError::SpiTaken(set.spi_uc))).answered().1.status(), 500);
    bench.assert_empty();
}

#[test]
fn an_algorithm_that_the_kernel_lacks_gives_way_to_the_next() {
    let mut bench = Bench::new();
    let mut ue = Handset::udp4();
    let request = ue.hello(&mut bench).forwarded();
    let (id, set) = bench.challenge(&request, "bm9uY2U=").install();
    assert_eq!(set.suite.ealg.token(), "aes-cbc");
    let (id, set) = bench.kernel(id, Err(SaError::NoAlgorithm("cbc(aes)"))).install();
    assert_eq!(set.suite.ealg.token(), "null");
    let (_, refusal) = bench.kernel(id, Err(SaError::NoAlgorithm("hmac(sha1)"))).answered();
    assert_eq!((refusal.status(), bench.refused("kernel-no-algorithm")), (500, 3));
    bench.assert_empty();
}

#[test]
fn without_esp_in_the_kernel_the_policy_decides() {
    for error in [SaError::NoEsp, SaError::NotPermitted] {
        let mut bench = Bench::with(require);
        let request = Handset::udp4().hello(&mut bench).forwarded();
        let (id, _) = bench.challenge(&request, "bm9uY2U=").install();
        let (_, refusal) = bench.kernel(id, Err(error.clone())).answered();
        assert_eq!(refusal.status(), 503);
        assert!(refusal.has(Name::RetryAfter));
        let name = if error == SaError::NoEsp { "kernel-no-esp" } else { "kernel-not-permitted" };
        assert_eq!(bench.refused(name), 1);
        assert_eq!(bench.node.snapshot()["esp"], false);
        bench.assert_empty();

        let mut bench = Bench::new();
        let mut ue = Handset::udp4();
        let request = ue.hello(&mut bench).forwarded();
        let (id, _) = bench.challenge(&request, "bm9uY2U=").install();
        let (flow, challenge) = bench.kernel(id, Err(error)).answered();
        assert_eq!((flow, challenge.status()), (ue.clear_flow(), 401));
        assert!(!challenge.has(Name::SecurityServer));
        ue.nonce = "bm9uY2U=".into();
        let text = ue.register(3600, "");
        let request = bench.packet(ue.clear_flow(), &text).forwarded();
        assert_eq!(bench.accept(&request, 600).answered().1.status(), 200);
        assert_eq!(bench.registrations().len(), 1);
    }
}

#[test]
fn other_errors_of_the_kernel_are_refused_whatever_the_policy() {
    let mut bench = Bench::new();
    let request = Handset::udp4().hello(&mut bench).forwarded();
    let (id, _) = bench.challenge(&request, "bm9uY2U=").install();
    assert_eq!(bench.kernel(id, Err(SaError::Kernel(22))).answered().1.status(), 500);
    assert_eq!(bench.refused("kernel-error"), 1);
    bench.assert_empty();
}

#[test]
fn a_silent_kernel_is_not_waited_for() {
    let mut bench = Bench::new();
    let request = Handset::udp4().hello(&mut bench).forwarded();
    let (id, set) = bench.challenge(&request, "bm9uY2U=").install();
    let out = bench.pass(6);
    assert_eq!(out.removed(), [set], "it may still do what it was asked");
    assert_eq!(out.ue[0].1.status(), 500);
    assert!(bench.kernel(id, Ok(())).is_silent());
    assert_eq!(bench.refused("kernel-silent"), 1);
    bench.assert_empty();
}

#[test]
fn what_the_kernel_says_about_lifetimes_is_heeded() {
    let mut bench = Bench::new();
    let mut ue = Handset::udp4();
    let set = ue.attach(&mut bench, 3600);
    let expiry = |hard| Event::SaExpired(SaExpiry { dst: set.ue, spi: set.spi_us, hard });
    assert!(bench.handle(expiry(false)).is_silent());
    let out = bench.handle(expiry(true));
    assert_eq!(out.removed(), [set], "the other three go with it");
    bench.kernel_agrees(&out);
    assert!(bench.registrations().is_empty());
    assert!(bench.handle(expiry(true)).is_silent());
    bench.assert_empty();
}

#[test]
fn a_set_that_the_kernel_has_lost_is_given_up() {
    let mut bench = Bench::new();
    let mut ue = Handset::udp4();
    ue.attach(&mut bench, 3600);
    let request = ue.protected(&mut bench, 3600).forwarded();
    let out = bench.accept(&request, 3600);
    let out = bench.kernel(out.sa[0].0, Err(SaError::NotFound));
    assert_eq!(out.removed().len(), 1);
    bench.kernel_agrees(&out);
    assert!(bench.registrations().is_empty());
}

#[test]
fn a_challenge_without_keys() {
    for (policy, expected) in [(Policy::Require, 500), (Policy::Allow, 401)] {
        let mut bench = Bench::with(|c| c.security.policy = policy);
        let request = Handset::udp4().hello(&mut bench).forwarded();
        let out = bench.answer(&request, 401, &[("WWW-Authenticate", "Digest realm=\"x\",nonce=\"y\"")]);
        assert!(out.sa.is_empty());
        assert_eq!(out.answered().1.status(), expected);
    }
}

#[test]
fn the_core_that_does_not_answer_is_a_504_inside_the_sa() {
    let mut bench = Bench::new();
    let mut ue = Handset::udp4();
    let set = ue.get_challenged(&mut bench);
    ue.set = Some(set);
    ue.protected(&mut bench, 3600).forwarded();
    let out = bench.pass(40);
    let (flow, refusal) = out.ue.first().unwrap();
    assert_eq!((*flow, refusal.status()), (ue.answers_of(&set), 504));
    assert!(out.sa.is_empty(), "the UE may try again over its set");
    assert_eq!(bench.refused("core-timeout"), 1);
    ue.protected(&mut bench, 3600);
    bench.pass(200);
    bench.assert_empty();
}

#[test]
fn an_answer_for_a_set_that_is_gone_is_withheld() {
    let mut bench = Bench::new();
    let mut ue = Handset::udp4();
    let set = ue.attach(&mut bench, 3600);
    let request = ue.protected(&mut bench, 3600).forwarded();
    let out = bench.handle(Event::SaExpired(SaExpiry { dst: set.ue, spi: set.spi_us, hard: true }));
    bench.kernel_agrees(&out);
    let out = bench.answer(&request, 403, &[]);
    assert!(out.is_silent(), "rather nothing than in clear");
    assert_eq!(bench.refused("withheld"), 1);
    bench.pass(300);
    bench.assert_empty();
}

#[test]
fn an_offer_with_the_ports_in_use_is_challenged_over_the_set_that_stands() {
    let mut bench = Bench::new();
    let mut ue = Handset::udp4();
    let set = ue.attach(&mut bench, 3600);
    for other_spi in [false, true] {
        ue.spi += if other_spi { 10 } else { 0 };
        let request = ue.protected(&mut bench, 3600).forwarded();
        let out = bench.challenge(&request, "bmV3");
        assert!(out.sa.is_empty());
        let (flow, challenge) = out.answered();
        assert_eq!((flow, challenge.status()), (ue.answers_of(&set), 401));
        assert!(!challenge.has(Name::SecurityServer));
    }
    assert_eq!(bench.refused("ports-in-use"), 2);
    let request = ue.protected(&mut bench, 3600).forwarded();
    let out = bench.accept(&request, 3600);
    assert_eq!(out.extended().len(), 1);
    bench.kernel_agrees(&out);
    assert_eq!((bench.registrations().len(), &bench.registrations()[0]["sa"]["sets"]), (1, &1.into()));
}

#[test]
fn a_late_register_cannot_take_the_ports_of_the_set_in_use() {
    let mut bench = Bench::new();
    let mut ue = Handset::udp4();
    let old = ue.attach(&mut bench, 3600);
    let mut late = ue.clone();
    ue.renew();
    let request = ue.protected(&mut bench, 3600).forwarded();
    let (id, new) = bench.challenge(&request, "bmV3").install();
    bench.kernel(id, Ok(()));
    ue.set = Some(new);
    let request = ue.protected(&mut bench, 3600).forwarded();
    let out = bench.accept(&request, 3600);
    bench.kernel_agrees(&out);
    (late.set, late.cseq) = (Some(old), 50);
    late.renew(); // the ports and SPIs that are in use by now
    let request = late.protected(&mut bench, 3600).forwarded();
    let out = bench.challenge(&request, "bGF0ZQ==");
    assert!(out.sa.is_empty(), "nothing is taken away");
    assert_eq!(bench.registrations()[0]["sa"]["spi_ps"], new.spi_ps);
}

#[test]
fn without_a_new_offer_the_challenge_goes_on_inside_the_old_set() {
    let mut bench = Bench::new();
    let mut ue = Handset::udp4();
    let set = ue.attach(&mut bench, 3600);
    let lines = format!("Security-Verify: {}\r\n", Handset::security_verify(&set));
    let text = ue.register(3600, &lines);
    let request = bench.packet(ue.flow_of(&set), &text).forwarded();
    let (flow, challenge) = bench.challenge(&request, "bmV3").answered();
    assert_eq!((flow, challenge.status()), (ue.answers_of(&set), 401));
    assert!(!challenge.has(Name::SecurityServer));
}

#[test]
fn a_private_identity_has_at_most_three_sets() {
    let mut bench = Bench::new();
    let mut sets = Vec::new();
    for n in 0..5u8 {
        let ip = format!("198.51.100.{}", 10 + n).parse().unwrap();
        let mut ue = Handset { ip, call: format!("call{n}"), ..Handset::udp4() };
        let request = ue.hello(&mut bench).forwarded();
        let out = bench.challenge(&request, "bm9uY2U=");
        let removed = out.removed();
        assert_eq!(removed, if n < 3 { Vec::new() } else { vec![sets[usize::from(n) - 3]] });
        let (id, set) = out.install();
        bench.kernel(id, Ok(()));
        for (id, change) in &out.sa {
            if matches!(change, SaChange::Remove { .. }) {
                bench.kernel(*id, Ok(()));
            }
        }
        sets.push(set);
    }
    assert_eq!(bench.node.snapshot()["sa_sets"], 3);
    assert_eq!(bench.node.snapshot()["authenticating"], 3);
    bench.assert_empty();
}

#[test]
fn an_address_that_passed_to_another_subscriber_is_his() {
    let mut bench = Bench::new();
    let mut gone = Handset::udp4();
    let old = gone.attach(&mut bench, 3600);
    let mut ue = Handset { imsi: "001010000000002".into(), call: "other".into(), ..Handset::udp4() };
    let request = ue.hello(&mut bench).forwarded();
    let out = bench.challenge(&request, "bm9uY2U=");
    assert_eq!(out.removed(), [old]);
    let (id, set) = out.install();
    assert_eq!(bench.kernel(id, Ok(())).answered().1.status(), 401);
    ue.set = Some(set);
    let request = ue.protected(&mut bench, 3600).forwarded();
    bench.accept(&request, 3600);
    let all = bench.registrations();
    assert_eq!((all.len(), &all[0]["impi"]), (1, &format!("001010000000002@{DOMAIN}").into()));
}

#[test]
fn requests_that_cannot_be_used() {
    let mut bench = Bench::new();
    let mut ue = Handset::udp4();
    let good = ue.register(3600, "");
    let flow = ue.clear_flow();
    let mut n = 0;
    let mut status = |text: String, bench: &mut Bench| {
        n += 1;
        answer(bench, flow, &text.replace("branch=z9hG4bK", &format!("branch=z9hG4bKx{n}"))).status()
    };
    assert_eq!(status(good.replace("Max-Forwards: 70", "Max-Forwards: 0"), &mut bench), 483);
    assert_eq!(status(good.replace(&format!("REGISTER sip:{DOMAIN}"), "REGISTER sip:victim.example"), &mut bench), 403);
    assert_eq!(status(good.replace("username=\"001010000000001@", "username=\"no realm"), &mut bench), 400);
    assert_eq!(status(good.replace("To: <sip:", "To: <urn:"), &mut bench), 400);
    assert_eq!(
        status(
            good.replace("Content-Length", "Security-Client: ipsec-3gpp;spi-c=99999999999\r\nContent-Length"),
            &mut bench
        ),
        400
    );
    let many = format!("Security-Client: {}\r\nContent-Length", vec!["tls"; 60].join(","));
    assert_eq!(status(good.replace("Content-Length", &many), &mut bench), 400);
    assert_eq!(bench.refused("domain-not-served"), 1);
    bench.pass(300);
    bench.assert_empty();
}

#[test]
fn without_authorization_the_private_identity_is_the_public_one() {
    let mut bench = Bench::new();
    let mut ue = Handset::udp4();
    let text = ue.register(3600, "");
    let (head, rest) = text.split_once("Authorization").unwrap();
    let text = format!("{head}{}", &rest[rest.find("Content-Length").unwrap()..]);
    let request = bench.packet(ue.clear_flow(), &text).forwarded();
    assert!(!request.has(Name::Authorization));
    bench.accept(&request, 600);
    assert_eq!(bench.registrations()[0]["impi"], Impi::parse(&format!("001010000000001@{DOMAIN}")).unwrap().as_str());
}

#[test]
fn a_query_binds_nothing() {
    let mut bench = Bench::new();
    let mut ue = Handset::udp4();
    let set = ue.attach(&mut bench, 3600);
    let text = ue.register(3600, &ue.sec_agree());
    let (head, rest) = text.split_once("Contact: ").unwrap();
    let text = format!("{head}{}", &rest[rest.find("\r\n").unwrap() + 2..]);
    let request = bench.packet(ue.flow_of(&set), &text).forwarded();
    let out = bench.answer(&request, 200, &[("Contact", "<sip:x@198.51.100.7>;expires=5")]);
    assert!(out.sa.is_empty());
    assert_eq!(bench.registrations()[0]["expires_in_s"], 3600);
}

/// One of several handsets behind one address.
fn ue(n: u16) -> Handset {
    Handset {
        port: 5060 + n,
        uc: 40_000 + 2 * n,
        us: 50_000 + n,
        spi: 7000 + 2 * u32::from(n),
        imsi: format!("00101000000000{n}"),
        call: format!("c{n}"),
        ..Handset::udp4()
    }
}

#[test]
fn limits_hold() {
    let mut bench = Bench::with(|c| {
        c.limits.max_registrations = 1;
        c.limits.max_pending = 2;
        c.limits.max_identities = 1;
    });
    let set = ue(1).attach(&mut bench, 3600);
    let (_, refusal) = ue(2).hello(&mut bench).answered();
    assert_eq!((refusal.status(), bench.refused("full")), (503, 1));
    let mut first = Handset { set: Some(set), cseq: 10, ..ue(1) };
    let text = first.register(3600, &first.sec_agree()).replace("To: <sip:001", "To: <sip:002");
    assert_eq!(answer(&mut bench, first.flow_of(&set), &text).status(), 403);
    assert_eq!(bench.refused("too-many-identities"), 1);
    for _ in 0..2 {
        first.protected(&mut bench, 3600).forwarded();
    }
    assert_eq!(first.protected(&mut bench, 3600).answered().1.status(), 503);
}

/// Several phones behind one address that chose the same protected server port: each takes a port of ours.
#[test]
fn protected_client_ports_may_run_out() {
    let mut bench = Bench::with(|c| c.gm.protected_client_ports = pcscf::config::PortRange(6101..=6103));
    let same_port = |n: u16| Handset { us: 50_000, ..ue(n) };
    for n in 1..=3 {
        same_port(n).get_challenged(&mut bench);
    }
    let request = same_port(4).hello(&mut bench).forwarded();
    let out = bench.challenge(&request, "bm9uY2U=");
    assert!(out.sa.is_empty());
    assert_eq!((out.answered().1.status(), bench.refused("no-free-port")), (500, 1));
    bench.assert_empty();
}

#[test]
fn large_messages_come_over_an_sa_only() {
    for mut ue in common::four_ways() {
        let mut bench = Bench::with(|c| c.mw.udp_limit = 60_000);
        let padding = format!("X-Padding: {}\r\n", "x".repeat(8192));
        let text = ue.register(3600, &format!("{}{padding}", ue.sec_agree()));
        let out = bench.packet(ue.clear_flow(), &text);
        assert!(out.core.is_empty() && out.ue.is_empty(), "{out:?}");
        assert_eq!(
            (out.closed.is_empty(), bench.refused("unprotected-too-large")),
            (ue.transport == Transport::Udp, 1)
        );
        let set = ue.attach(&mut bench, 3600);
        let text = ue.register(3600, &format!("{}{padding}", ue.sec_agree()));
        bench.packet(ue.flow_of(&set), &text).forwarded();
    }
}

#[test]
fn large_answers_of_the_core_come_through() {
    // The core side may share an address with Gm; over TCP its answers come to a port of no listener.
    let mut bench = Bench::with(|c| c.gm.addresses.push(c.mw.listen.ip()));
    let mut ue = Handset::udp4();
    let request = ue.hello(&mut bench).forwarded();
    let mut answer = Message::response(&request, 403, Some("core"));
    answer.push_named("X-Padding", "x".repeat(8192));
    let (local, remote) = ("127.0.0.1:49152".parse().unwrap(), "127.0.0.1:4060".parse().unwrap());
    let flow = Flow { conn: Some(ims_core::ConnId(9)), ..Flow::tcp(local, remote) };
    let out = bench.packet(flow, std::str::from_utf8(&answer.to_bytes()).unwrap());
    assert_eq!(out.answered().1.status(), 403);
}

#[test]
fn one_address_cannot_fill_the_tables() {
    let mut bench = Bench::with(|c| c.limits.max_attempts_per_address = 2);
    let mut first = ue(1);
    let set = first.get_challenged(&mut bench);
    let second = ue(2).hello(&mut bench).forwarded();
    let (_, refusal) = ue(3).hello(&mut bench).answered();
    assert_eq!((refusal.status(), bench.refused("full")), (503, 1));
    Handset { ip: "198.51.100.8".parse().unwrap(), ..ue(4) }.get_challenged(&mut bench);
    // Who is through, and who is gone, makes room; a refresh needs none.
    bench.answer(&second, 403, &[]);
    (first.set, first.nonce) = (Some(set), "bm9uY2U=".into());
    let request = first.protected(&mut bench, 3600).forwarded();
    let out = bench.accept(&request, 3600);
    bench.kernel_agrees(&out);
    for n in [5, 6] {
        Handset { call: format!("d{n}"), ..ue(n) }.get_challenged(&mut bench);
    }
    first.protected(&mut bench, 3600).forwarded();
    bench.pass(8000);
    bench.assert_empty();
}

#[test]
fn nothing_that_arrives_breaks_it() {
    let mut bench = Bench::new();
    let mut ue = Handset::udp4();
    let set = ue.attach(&mut bench, 3600);
    let text = ue.register(3600, &ue.sec_agree());
    for flow in [ue.clear_flow(), ue.flow_of(&set)] {
        for cut in (0..text.len()).step_by(7) {
            bench.packet(flow, &text[..cut]);
            let bent = format!("{}\u{fffd};,=\"<{}", &text[..cut], &text[cut..]);
            for (to, message) in bench.packet(flow, &bent).ue {
                assert!(message.status() >= 200);
                assert!(flow == ue.clear_flow() || to == ue.answers_of(&set), "{to}");
            }
        }
    }
    bench.pass(10_000);
    bench.assert_empty();
}
