//! RFC 3329 2 and TS 33.203 Annex H: what phones write into a security agreement, and what they are told when there is none.

use crate::support::{Told, assert_nothing_left};
use ims_sip::Name;
use ims_tests::{Lab, LabConfig, Phone, golden};
use pcscf::config::Policy;

fn empty_lab() -> Lab {
    Lab::new(LabConfig { handsets: 0, ..LabConfig::default() })
}

/// One phone, and the agreement that it writes.
fn written(lines: &str, spi: u32) -> (Lab, Phone) {
    let mut lab = empty_lab();
    let mut phone = Phone::new(&mut lab, 0);
    phone.spi = spi;
    let agree = "Require: sec-agree\r\nProxy-Require: sec-agree\r\nSupported: path, sec-agree\r\n";
    let text = phone.register(&format!("{agree}{lines}"));
    let challenge = phone.ask(&mut lab, &text);
    assert_eq!(challenge.status(), 401, "{lines}");
    phone.accept(&mut lab, &challenge);
    let verify = format!("Security-Verify: {}\r\n", phone.verify);
    let text = phone.register(&format!("{agree}{lines}{verify}"));
    assert_eq!(phone.ask(&mut lab, &text).status(), 200, "{lines}");
    lab.rest();
    (lab, phone)
}

/// Samsung: six mechanisms in one comma list, what nobody uses any more first.
#[test]
fn a_comma_list_with_the_oldest_first() {
    let one = |suite: &str| {
        let (alg, ealg) = suite.split_once('/').unwrap();
        format!("ipsec-3gpp;prot=esp;mod=trans;spi-c=2306;spi-s=2307;port-c=40001;port-s=50001;alg={alg};ealg={ealg}")
    };
    let all = ["hmac-md5-96/des-ede3-cbc", "hmac-md5-96/aes-cbc", "hmac-md5-96/null", "hmac-sha-1-96/des-ede3-cbc"];
    let all = all.iter().chain(&["hmac-sha-1-96/aes-cbc", "hmac-sha-1-96/null"]).map(|s| one(s));
    let (lab, phone) = written(&format!("Security-Client: {}\r\n", all.collect::<Vec<_>>().join(",")), 2306);
    let suite = phone.set.unwrap().suite;
    assert_eq!((suite.alg.token(), suite.ealg.token()), ("hmac-sha-1-96", "aes-cbc"), "by our preference");
    golden("rfc3329/samsung", &lab.world.golden_ladder());
}

#[test]
fn an_agreement_is_read_however_it_is_written() {
    let ends = "spi-c=2306;spi-s=2307;port-c=40001;port-s=50001";
    for (lines, spi, ealg) in [
        // Motorola: no prot and mod, a blank after each semicolon, SPIs above 2^31.
        (
            "Security-Client: ipsec-3gpp; alg=hmac-sha-1-96; ealg=aes-cbc; spi-c=4294967000; spi-s=4294967001; \
             port-c=40001; port-s=50001\r\n"
                .to_owned(),
            4_294_967_000,
            "aes-cbc",
        ),
        // Several header lines.
        (
            format!(
                "Security-Client: ipsec-3gpp;alg=hmac-sha-1-96;{ends}\r\n\
                 Security-Client: ipsec-3gpp;alg=hmac-sha-1-96;ealg=aes-cbc;{ends}\r\n"
            ),
            2306,
            "aes-cbc",
        ),
        // Any order, any case.
        (
            "security-client: IPSEC-3GPP;PORT-S=50001;Spi-S=2307;EALG=AES-CBC;Port-C=40001;Mod=TRANS;Alg=HMAC-SHA-1-96;\
             SPI-C=2306;Prot=ESP;q=0.7\r\n"
                .to_owned(),
            2306,
            "aes-cbc",
        ),
        // ealg left out is null; what nobody knows is passed over.
        (
            format!(
                "Security-Client: ipsec-3gpp;alg=hmac-sha-256-128;ealg=aes-ctr;{ends}, digest;d-qop=auth, tls,\r\n  \
                 ipsec-3gpp;alg=hmac-sha-1-96;{ends};x-vendor=\"a,b;c\"\r\n"
            ),
            2306,
            "null",
        ),
    ] {
        let (_, phone) = written(&lines, spi);
        assert_eq!(phone.set.unwrap().suite.ealg.token(), ealg, "{lines}");
    }
}

/// RFC 3329 2.3.1: 421 and 494 say what would do. Nothing goes to the core, nothing stays.
#[test]
fn no_agreement_is_said_with_what_would_do() {
    let offer = |text: &str| {
        format!("Require: sec-agree\r\nSecurity-Client: ipsec-3gpp;alg=hmac-sha-1-96;ealg=aes-cbc;{text}\r\n")
    };
    let cases = [
        (String::new(), 421, "sec-agree-required", "security.policy = \"allow\""),
        // Zoiper knows the word, and offers nothing: no 494.
        ("Supported: sec-agree\r\n".into(), 421, "sec-agree-required", "security.rules"),
        ("Require: sec-agree\r\n".into(), 494, "no-offer", "sent no Security-Client"),
        ("Proxy-Require: sec-agree\r\n".into(), 494, "no-offer", "sent no Security-Client"),
        (
            "Security-Client: ipsec-3gpp;alg=hmac-md5-96;ealg=des-ede3-cbc;spi-c=300;spi-s=301;port-c=1;port-s=2, tls\r\n".into(),
            494,
            "no-common-suite",
            "offers only hmac-md5-96/des-ede3-cbc, tls",
        ),
        (offer("spi-c=0;spi-s=301;port-c=40001;port-s=50001"), 494, "unusable-offer", "SPI below 256"),
        (offer("spi-c=300;spi-s=300;port-c=40001;port-s=50001"), 494, "unusable-offer", "one SPI or port"),
        (offer("spi-c=300;spi-s=301;port-c=40001;port-s=40001"), 494, "unusable-offer", "one SPI or port"),
        (offer("spi-c=300;spi-s=301;port-c=0;port-s=50001"), 494, "unusable-offer", "or none"),
        (offer("spi-c=300;spi-s=301;port-c=40001"), 494, "unusable-offer", "or none"),
        (offer("spi-c=99999999999;spi-s=301;port-c=40001;port-s=50001"), 400, "malformed", "Security-Client"),
    ];
    for (lines, status, name, sentence) in cases {
        let mut lab = empty_lab();
        let mut phone = Phone::new(&mut lab, 0);
        lab.world.trace.clear();
        let told = Told::listen();
        let text = phone.register(&lines);
        let answer = phone.ask(&mut lab, &text);
        assert_eq!((answer.status(), lab.refusals(lab.pcscf, name)), (status, 1), "{lines}");
        assert_eq!(told.take(sentence), 1, "{lines}");
        if status != 400 {
            assert_eq!(answer.tokens(Name::Require), ["sec-agree"], "{lines}");
            let would_do = answer.text(Name::SecurityServer).unwrap();
            assert!(
                would_do.starts_with("ipsec-3gpp;q=1;prot=esp;mod=trans;alg=hmac-sha-1-96;ealg=aes-cbc,"),
                "{would_do}"
            );
            assert!(!would_do.contains("spi") && !would_do.contains("md5"), "{would_do}");
        }
        assert!(!lab.world.golden_ladder().contains("icscf"), "the core hears nothing of it");
        assert_nothing_left(&mut lab);
    }
}

#[test]
fn sec_agree_in_supported_alone_is_no_offer_where_none_is_needed() {
    let mut config = LabConfig { handsets: 0, ..LabConfig::default() };
    config.pcscf.security.policy = Policy::Allow;
    let mut lab = Lab::new(config);
    let mut phone = Phone::new(&mut lab, 0);
    let text = phone.register("Supported: sec-agree, path\r\n");
    let challenge = phone.ask(&mut lab, &text);
    assert_eq!((challenge.status(), challenge.has(Name::SecurityServer)), (401, false));
    phone.accept(&mut lab, &challenge);
    let text = phone.register("Supported: sec-agree, path\r\n");
    assert_eq!(phone.ask(&mut lab, &text).status(), 200);
    lab.rest();
}

/// Security-Verify is compared as values (TS 33.203 7.2): the iPhone sorts parameters by name and puts q in the middle.
#[test]
fn security_verify_may_be_sorted_but_not_changed() {
    let sorted = |verify: &str| {
        let (name, parameters) = verify.split_once(';').unwrap();
        let mut parameters: Vec<&str> = parameters.split(';').collect();
        parameters.sort_unstable();
        format!("{name};{}", parameters.join(";"))
    };
    type Change = fn(String) -> String;
    let cases: [(&str, Change, u16); 7] = [
        ("sorted", |v| v, 200),
        ("upper case, blanks", |v| v.to_uppercase().replace(';', " ; "), 200),
        ("defaults left out", |v| v.replace(";prot=esp", "").replace(";mod=trans", "").replace(";q=0.1", ""), 200),
        ("another SPI", |v| v.replace("spi-c=", "spi-c=1"), 494),
        ("another suite", |v| v.replace("aes-cbc", "null"), 494),
        ("one more mechanism", |v| format!("{v}, tls"), 494),
        ("nothing", |_| String::new(), 494),
    ];
    for (why, change, status) in cases {
        let mut lab = empty_lab();
        let mut phone = Phone::new(&mut lab, 0);
        phone.get_challenged(&mut lab);
        phone.verify = change(sorted(&phone.verify));
        let told = Told::listen();
        let text = phone.register(&phone.sec_agree());
        let answer = phone.ask(&mut lab, &text);
        assert_eq!(answer.status(), status, "{why}");
        if status == 494 {
            assert_eq!(told.take("Security-Verify is not what Security-Server said"), 1, "{why}");
            assert_eq!(lab.refusals(lab.pcscf, "security-verify-mismatch"), 1, "{why}");
            assert_eq!(lab.registered_at_scscf(), 0);
            assert_nothing_left(&mut lab);
        }
    }
}

/// CANCEL of Motorola, ACK of Pixel and Samsung: the SA is the proof, Security-Verify is not asked for.
#[test]
fn other_requests_need_no_security_verify() {
    let mut lab = empty_lab();
    let mut phone = Phone::new(&mut lab, 0);
    phone.attach(&mut lab);
    let uri = "sip:10.0.0.10";
    let text = format!(
        "OPTIONS {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {}:50001;branch=z9hG4bKo\r\nMax-Forwards: 70\r\nFrom: <sip:a@x>;tag=o\r\n\
         To: <{uri}>\r\nCall-ID: o\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n",
        phone.host()
    );
    phone.send(&mut lab, &text);
    let (flow, answer) = phone.next(&mut lab);
    assert_eq!((answer.status(), Phone::ports(flow).1), (200, 50_001));
    lab.rest();
}

/// Pixels share SPIs that look unique, from about 2306: an SPI belongs to an address (RFC 4301 4.1).
#[test]
fn phones_may_choose_the_same_spis_and_ports() {
    let mut lab = empty_lab();
    let mut phones: Vec<Phone> = (0..3).map(|n| Phone::new(&mut lab, n)).collect();
    for phone in &mut phones {
        phone.attach(&mut lab);
    }
    lab.rest();
    assert_eq!((lab.registered_at_pcscf(), lab.world.sa_sets(lab.pcscf)), (3, 3));
    for phone in &mut phones {
        let text = phone.register(&phone.sec_agree());
        assert_eq!(phone.ask(&mut lab, &text).status(), 200);
    }
}
