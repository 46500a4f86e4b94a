//! TS 24.229 5.2.2.1: what arrives at the P-CSCF unprotected, and what becomes of it when the core fails.

use crate::support::{Told, assert_nothing_left, rewrite};
use bytes::Bytes;
use ims_core::Transport;
use ims_core::config::parse;
use ims_sip::{Message, Name};
use ims_tests::lab::{DOMAIN, impi, imsi};
use ims_tests::{Lab, LabConfig, Phone, Verdict, golden};
use pcscf::config::Policy;
use std::time::Duration;

fn lab_with(policy: Policy, change: impl FnOnce(&mut LabConfig)) -> Lab {
    let mut config = LabConfig { handsets: 0, ..LabConfig::default() };
    config.pcscf.security.policy = policy;
    change(&mut config);
    Lab::new(config)
}

/// `security.rules`: the first that fits a subscriber decides.
#[test]
fn the_policy_may_differ_by_subscriber() {
    let rules = format!(
        "rules = [{{ impi = '{}', policy = 'never' }}, {{ imsi_prefix = '{}', policy = 'allow' }}, \
         {{ plmn = '001/01', policy = 'require' }}]",
        impi(2),
        imsi(1)
    );
    let mut lab = lab_with(Policy::Never, |c| {
        let read: pcscf::config::Security = parse("security", &rules).unwrap();
        c.pcscf.security.rules = read.rules;
    });
    let told = Told::listen();
    let mut required = Phone::new(&mut lab, 0);
    let text = required.register("");
    assert_eq!(required.ask(&mut lab, &text).status(), 421);
    assert_eq!(told.take("or write a rule for it in security.rules"), 1);
    assert_eq!(lab.refusals(lab.pcscf, "sec-agree-required"), 1);
    required.attach(&mut lab);

    let mut allowed = Phone::new(&mut lab, 1);
    allowed.attach_in_clear(&mut lab);
    let mut never = Phone::new(&mut lab, 2);
    let text = never.register(&never.sec_agree());
    let challenge = never.ask(&mut lab, &text);
    assert_eq!((challenge.status(), challenge.has(Name::SecurityServer)), (401, false));
    never.accept(&mut lab, &challenge);
    let text = never.register("");
    assert_eq!(never.ask(&mut lab, &text).status(), 200);
    lab.rest();
    assert_eq!((lab.registered_at_pcscf(), lab.world.sa_sets(lab.pcscf)), (3, 1));
    let mut fourth = Phone::new(&mut lab, 3);
    fourth.attach(&mut lab);
    assert_eq!(lab.world.sa_sets(lab.pcscf), 2);
}

/// An identity that may register in clear opens no door for one that may not.
#[test]
fn a_rule_speaks_for_the_identity_that_is_proven() {
    let mut lab = lab_with(Policy::Require, |c| {
        let rules = format!("rules = [{{ impi = '{}', policy = 'allow' }}]", impi(0));
        let read: pcscf::config::Security = parse("security", &rules).unwrap();
        c.pcscf.security.rules = read.rules;
    });
    let mut open = Phone::new(&mut lab, 0);
    let mut other = Phone::new(&mut lab, 1);
    open.attach_in_clear(&mut lab);
    // The private identity of the one, the public identity and the SIM of the other.
    other.authorization = other.authorization.replace(&impi(1), &impi(0));
    let text = other.register("");
    assert_eq!(other.ask(&mut lab, &text).status(), 403);
    assert_eq!(lab.refusals(lab.icscf, "identities-dont-match"), 1);
    lab.rest();
    assert_eq!(lab.registered_at_pcscf(), 1);
}

/// Linphone: no Authorization in the first REGISTER, To and From without brackets.
#[test]
fn linphone_attaches() {
    for transport in [Transport::Udp, Transport::Tcp] {
        let mut lab = lab_with(Policy::Allow, |_| {});
        let mut phone = Phone::new(&mut lab, 0).over(transport);
        let bare = |text: String| {
            let uri = format!("sip:{}@{DOMAIN}", imsi(0));
            text.replace(&format!("To: <{uri}>"), &format!("To: {uri}"))
                .replace(&format!("From: <{uri}>"), &format!("From: {uri}"))
        };
        phone.authorization.clear();
        let text = bare(phone.register(""));
        let challenge = phone.ask(&mut lab, &text);
        assert_eq!(challenge.status(), 401);
        phone.accept(&mut lab, &challenge);
        let text = bare(phone.register(""));
        assert_eq!(phone.ask(&mut lab, &text).status(), 200);
        lab.rest();
        assert_eq!(lab.world.snapshot(lab.pcscf)["registrations"][0]["impi"], impi(0));
        if transport == Transport::Udp {
            golden("ts24229/linphone", &lab.world.golden_ladder());
        }
    }
}

/// JsSIP: hosts that cannot exist in Via and Contact; answers go where the request came from (RFC 3261 18.2.2).
#[test]
fn hosts_that_cannot_exist_do_no_harm() {
    for transport in [Transport::Udp, Transport::Tcp] {
        let mut lab = lab_with(Policy::Allow, |_| {});
        let mut phone = Phone::new(&mut lab, 0).over(transport);
        let invalid = |text: String, host: &str| text.replace(&format!("{host}:5060"), "df7jal23ls0d.invalid");
        // Each REGISTER in clear is challenged.
        for status in [401, 200, 401, 200] {
            let text = invalid(phone.register(""), &phone.host());
            let answer = phone.ask(&mut lab, &text);
            assert_eq!(answer.status(), status);
            if status == 401 {
                phone.accept(&mut lab, &answer);
            }
        }
        lab.rest();
        let registered = &lab.world.snapshot(lab.pcscf)["registrations"][0];
        assert_eq!(registered["ue"], phone.host(), "by where it came from, not by what it says");
        phone.expires = 0;
        for status in [401, 200] {
            let text = invalid(phone.register(""), &phone.host());
            let answer = phone.ask(&mut lab, &text);
            assert_eq!(answer.status(), status);
            if status == 401 {
                phone.accept(&mut lab, &answer);
            }
        }
        assert_nothing_left(&mut lab);
    }
}

/// A Contact with an address that is not the phone's (a router in between, or a lie): the UE is where it sends from.
#[test]
fn a_contact_elsewhere_changes_nothing_about_where_the_ue_is() {
    for clear in [true, false] {
        let mut lab = lab_with(Policy::Allow, |_| {});
        let mut phone = Phone::new(&mut lab, 0);
        let host = phone.host();
        let elsewhere = |text: String| text.replace(&format!("@{host}:"), "@203.0.113.9:");
        for status in [401, 200] {
            let lines = if clear { String::new() } else { phone.sec_agree() };
            let text = elsewhere(phone.register(&lines));
            let answer = phone.ask(&mut lab, &text);
            assert_eq!(answer.status(), status);
            if status == 401 {
                phone.accept(&mut lab, &answer);
            }
        }
        assert_eq!(lab.world.snapshot(lab.pcscf)["registrations"][0]["ue"], host);
        lab.rest();
    }
}

/// RFC 5626 is not served by this release: nobody is refused for asking, and nobody is promised anything.
#[test]
fn outbound_is_passed_over() {
    let mut lab = lab_with(Policy::Require, |_| {});
    let mut phone = Phone::new(&mut lab, 0);
    let outbound = |text: String| {
        text.replace("000000-0>\"", "000000-0>\";reg-id=1;ob")
            .replace("Supported: path", "Supported: path, outbound, gruu")
    };
    let text = outbound(phone.register(&phone.sec_agree()));
    let challenge = phone.ask(&mut lab, &text);
    phone.accept(&mut lab, &challenge);
    let text = outbound(phone.register(&phone.sec_agree()));
    let ok = phone.ask(&mut lab, &text);
    assert_eq!((ok.status(), ok.has_token(Name::Require, "outbound")), (200, false));
    lab.rest();
}

/// Two handsets behind one address: told apart by their ports, where clear access is allowed.
#[test]
fn two_handsets_may_share_an_address() {
    let mut lab = lab_with(Policy::Allow, |_| {});
    let mut first = Phone::new(&mut lab, 0);
    let mut second = first.neighbour(&mut lab, 1);
    first.attach_in_clear(&mut lab);
    second.attach_in_clear(&mut lab);
    assert_eq!(lab.registered_at_pcscf(), 2);
    for phone in [&mut first, &mut second] {
        let text = phone.register("");
        phone.send(&mut lab, &text);
        let (flow, challenge) = phone.next(&mut lab);
        assert_eq!((challenge.status(), flow.local.port()), (401, phone.port));
        phone.accept(&mut lab, &challenge);
        let text = phone.register("");
        phone.send(&mut lab, &text);
        let (flow, answer) = phone.next(&mut lab);
        assert_eq!((answer.status(), flow.local.port()), (200, phone.port));
    }
    second.expires = 0;
    second.attach_in_clear(&mut lab);
    lab.rest();
    let left = lab.world.snapshot(lab.pcscf)["registrations"].clone();
    assert_eq!((left.as_array().unwrap().len(), &left[0]["impi"]), (1, &impi(0).into()));
}

#[test]
fn what_cannot_be_used_is_refused_or_dropped() {
    let uri = format!("sip:{}@{DOMAIN}", imsi(0));
    let cases: [(&str, String, u16, &str, &str); 5] = [
        ("Max-Forwards: 70", "Max-Forwards: 0".into(), 483, "too-many-hops", "look for a loop"),
        ("REGISTER sip:ims", "REGISTER sip:evil".into(), 403, "domain-not-served", "add it to home_domains"),
        (&format!("To: <{uri}>"), "To: <urn:nobody>".into(), 400, "malformed", "To:"),
        (
            &format!("username=\"{}\"", impi(0)),
            "username=\"nobody\"".into(),
            400,
            "malformed",
            "Authorization username",
        ),
        (
            "Authorization: ",
            "Authorization: Digest username=\"x@y\"\r\nAuthorization: ".into(),
            400,
            "malformed",
            "more than one",
        ),
    ];
    for (part, other, status, name, sentence) in cases {
        let mut lab = lab_with(Policy::Allow, |_| {});
        let mut phone = Phone::new(&mut lab, 0);
        let told = Told::listen();
        let text = phone.register("");
        assert!(text.contains(part), "{part}");
        let text = text.replacen(part, &other, 1);
        assert_eq!(phone.ask(&mut lab, &text).status(), status, "{other}");
        assert_eq!((told.take(sentence), lab.refusals(lab.pcscf, name)), (1, 1), "{other}");
        assert_nothing_left(&mut lab);
    }
    for transport in [Transport::Udp, Transport::Tcp] {
        let mut lab = lab_with(Policy::Allow, |_| {});
        let mut phone = Phone::new(&mut lab, 0).over(transport);
        let text = phone.register(&format!("X-Padding: {}\r\n", "x".repeat(9000)));
        phone.send(&mut lab, &text);
        assert!(phone.hears_nothing(&mut lab, 5));
        assert_eq!(lab.refusals(lab.pcscf, "unprotected-too-large"), 1);
        phone.attach_in_clear(&mut lab);
        lab.rest();
    }
}

/// An answer of the core that says something else than what was written.
fn answering(lab: &mut Lab, change: impl Fn(&str) -> String + 'static) {
    lab.world.filter(move |sent| match (sent.from, sent.to) {
        ("icscf", "pcscf") => Verdict::Replace(Bytes::from(change(&String::from_utf8_lossy(sent.bytes)).into_bytes())),
        _ => Verdict::Pass,
    });
}

/// Which status the UE gets when the core fails at the first REGISTER, and that nothing stays behind.
#[test]
fn a_core_that_fails_is_said_to_the_ue_and_leaves_nothing_behind() {
    type Break = fn(&mut Lab);
    let cases: [(&str, Break, u16, &str, &str); 8] = [
        ("I-CSCF gone", |lab| lab.world.crash(lab.icscf), 504, "core-timeout", "is the I-CSCF of next_hops running?"),
        ("I-CSCF cut off", |lab| lab.world.partition(lab.pcscf, lab.icscf), 504, "core-timeout", "I-CSCF of next_hops"),
        (
            "S-CSCF gone",
            |lab| lab.world.crash(lab.scscf),
            504,
            "",
            "check that it runs and that next_hops has its host",
        ),
        ("HSS gone", |lab| lab.world.crash(lab.hss), 480, "", "check that it runs and that [diameter] peers names it"),
        (
            "HSS cut off from the S-CSCF",
            |lab| lab.world.partition(lab.scscf, lab.hss),
            504,
            "",
            "no answer from the HSS",
        ),
        (
            "a challenge without keys",
            |lab| answering(lab, |text| text.replace("ck=", "xk=")),
            500,
            "no-keys",
            "does it know this P-CSCF as trusted?",
        ),
        (
            "no challenge at all",
            |lab| answering(lab, |text| text.replace("401 Unauthorized", "200 OK")),
            403,
            "answered-in-clear",
            "beside the SA",
        ),
        (
            "an answer that nobody can read",
            |lab| answering(lab, |text| text.replace("Call-ID: ", "Call-ID\r\n: ")),
            504,
            "core-timeout",
            "I-CSCF of next_hops",
        ),
    ];
    for (why, break_it, status, name, sentence) in cases {
        let mut lab = lab_with(Policy::Require, |_| {});
        let mut phone = Phone::new(&mut lab, 0);
        break_it(&mut lab);
        let told = Told::listen();
        let text = phone.register(&phone.sec_agree());
        let answer = phone.ask(&mut lab, &text);
        assert_eq!((answer.status(), answer.has(Name::SecurityServer)), (status, false), "{why}");
        assert!(told.take(sentence) > 0, "{why}");
        if !name.is_empty() {
            assert_eq!(lab.refusals(lab.pcscf, name), 1, "{why}");
        }
        lab.world.no_filter();
        lab.world.heal();
        assert_nothing_left(&mut lab);
    }
}

/// The same after the challenge: the answer leaves inside the SA, which is there for another try and then goes.
#[test]
fn a_core_that_fails_after_the_challenge_is_said_inside_the_sa() {
    type Break = fn(&mut Lab);
    let cases: [(&str, Break, u16); 4] = [
        ("I-CSCF gone", |lab| lab.world.partition(lab.pcscf, lab.icscf), 504),
        ("S-CSCF gone", |lab| lab.world.partition(lab.icscf, lab.scscf), 504),
        ("HSS gone", |lab| lab.world.crash(lab.hss), 480),
        (
            "a 200 that nobody can read",
            |lab| answering(lab, |text| text.replace("P-Associated-URI: <", "P-Associated-URI: <<")),
            502,
        ),
    ];
    for (why, break_it, status) in cases {
        let mut lab = lab_with(Policy::Require, |_| {});
        let mut phone = Phone::new(&mut lab, 0);
        phone.get_challenged(&mut lab);
        break_it(&mut lab);
        let text = phone.register(&phone.sec_agree());
        phone.send(&mut lab, &text);
        let (flow, answer) = phone.next(&mut lab);
        let set = phone.set.unwrap();
        assert_eq!((answer.status(), Phone::ports(flow)), (status, (set.port_pc, set.port_us)), "{why}");
        assert_eq!(lab.refusals(lab.pcscf, "core-answer"), u64::from(status == 502), "{why}");
        lab.world.no_filter();
        lab.world.heal();
        assert_nothing_left(&mut lab);
    }
}

/// Nobody at the other end, or no way to find it: said at once, not after timer F.
#[test]
fn a_core_that_cannot_be_reached_is_said_at_once() {
    let nowhere = |target: &str| std::collections::BTreeMap::from([(DOMAIN.to_owned(), vec![target.to_owned()])]);
    for (hops, name, sentence) in [
        (nowhere("tcp:10.0.1.99:4060"), "core-transport", "check next_hops"),
        (std::collections::BTreeMap::new(), "core-no-target", "add it to next_hops or to DNS"),
    ] {
        let mut lab = lab_with(Policy::Require, |c| c.pcscf.next_hops = hops);
        let mut phone = Phone::new(&mut lab, 0);
        let begin = lab.world.now;
        let told = Told::listen();
        let text = phone.register(&phone.sec_agree());
        assert_eq!(phone.ask(&mut lab, &text).status(), 504);
        assert_eq!((told.take(sentence), lab.refusals(lab.pcscf, name)), (1, 1));
        assert!(lab.world.now.since(begin) < Duration::from_secs(6), "{name}");
        assert_nothing_left(&mut lab);
    }
}

/// Retry-After of the core reaches the UE, and keeps nobody else away from the only way there is.
#[test]
fn a_busy_core_is_passed_on() {
    let mut lab = lab_with(Policy::Require, |_| {});
    let mut phone = Phone::new(&mut lab, 0);
    answering(&mut lab, |text| {
        text.replace("401 Unauthorized", "503 Service Unavailable")
            .replace("WWW-Authenticate: ", "Retry-After: 3600\r\nX-Was: ")
    });
    let text = phone.register(&phone.sec_agree());
    let answer = phone.ask(&mut lab, &text);
    assert_eq!((answer.status(), answer.text(Name::RetryAfter)), (503, Some("3600")));
    assert!(!String::from_utf8_lossy(&answer.to_bytes()).contains("Security-Server"));
    lab.world.no_filter();
    assert_nothing_left(&mut lab);
    let mut other = Phone::new(&mut lab, 1);
    other.attach(&mut lab);
    lab.rest();
}

/// An S-CSCF that answers at the last moment: the UE repeats, the core hears it once, and one answer comes.
#[test]
fn a_slow_core_is_waited_for() {
    let mut lab = lab_with(Policy::Require, |_| {});
    let mut phone = Phone::new(&mut lab, 0);
    let held: std::rc::Rc<std::cell::RefCell<Vec<Bytes>>> = std::rc::Rc::default();
    let keep = held.clone();
    lab.world.filter(move |sent| match (sent.from, sent.to) {
        ("icscf", "pcscf") => {
            keep.borrow_mut().push(sent.bytes.clone());
            Verdict::Lose
        }
        _ => Verdict::Pass,
    });
    let text = phone.register(&phone.sec_agree());
    phone.send(&mut lab, &text);
    for _ in 0..3 {
        assert!(phone.hears_nothing(&mut lab, 8));
        phone.send(&mut lab, &text);
    }
    lab.world.no_filter();
    let late = held.borrow()[0].clone();
    assert!(held.borrow().len() > 1, "the P-CSCF asked again meanwhile");
    let (from, to) = (lab.config.icscf.listen, lab.config.pcscf.mw.listen);
    lab.world.inject(from, to, late);
    let (_, challenge) = phone.next(&mut lab);
    assert_eq!(challenge.status(), 401);
    phone.accept(&mut lab, &challenge);
    let text = phone.register(&phone.sec_agree());
    assert_eq!(phone.ask(&mut lab, &text).status(), 200);
    lab.rest();
    lab.world.run_for(Duration::from_secs(1));
    let to_scscf = |e: &&ims_tests::Entry| {
        lab.world.name(e.from) == "icscf" && e.to == Some(lab.scscf) && matches!(e.what, ims_tests::What::Sip { .. })
    };
    assert_eq!(lab.world.trace.iter().filter(to_scscf).count(), 2);
}

/// Two seconds on each way inside the network: every hop repeats itself, each asks the next but once, and the UE gets one
/// answer to each REGISTER.
#[test]
fn a_network_of_slow_links_still_registers() {
    let mut lab = lab_with(Policy::Require, |_| {});
    let mut phone = Phone::new(&mut lab, 0);
    lab.world.core.latency = Duration::from_secs(2);
    let begin = lab.world.now;
    phone.attach(&mut lab);
    assert!(lab.world.now.since(begin) > Duration::from_secs(30));
    assert!(phone.hears_nothing(&mut lab, 60), "one answer each");
    lab.rest();
    assert_eq!((lab.registered_at_pcscf(), lab.world.sa_sets(lab.pcscf)), (1, 1));
}

/// What the UE writes about the network is taken off in clear, too; what it gets never names a key.
#[test]
fn a_first_register_carries_nothing_of_the_networks() {
    let mut lab = lab_with(Policy::Require, |_| {});
    let mut phone = Phone::new(&mut lab, 0);
    lab.world.filter(rewrite("phone1", "pcscf", |m: &mut Message| {
        m.push_back(Name::PAssertedIdentity, "<sip:king@example>");
        m.push_back(Name::PChargingVector, "icid-value=mine");
        m.push_back(Name::Path, "<sip:evil.example;lr>");
    }));
    phone.attach(&mut lab);
    let text = crate::support::last_header(&lab, "pcscf", "icscf", Name::Path).unwrap();
    assert!(!text.contains("evil"));
    assert_eq!(crate::support::last_header(&lab, "pcscf", "icscf", Name::PAssertedIdentity), None);
    lab.rest();
}
