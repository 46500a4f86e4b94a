//! Numbers and trunks (TS 24.229 5.4.3.2): what a user dials, and where it goes.

mod bench;
mod play;

use bench::DOMAIN;
use ims_core::Node;
use ims_core::dns::{DnsError, DnsQuery, DnsRecord};
use ims_sip::{Message, Name};
use play::{ICSCF, PCSCF, Play, from_ue, profile, uris};
use std::time::Duration;

const CONTACT: &str = "<sip:1@192.0.2.5:5062>;expires=600";
const PBX: &str = "127.0.0.1:5081";
const GATEWAY: &str = "127.0.0.1:5082";

/// A plan for Berlin, own numbers +1555, two trunks.
const CONFIG: &str = "
    [numbering]
    country = '49'
    area = '30'
    own = ['+1555']
    [numbering.local]
    '100' = 'sip:voicemail@ims.mnc001.mcc001.3gppnetwork.org'
    '+4930999*' = 'sip:{rest}@pbx.example'
    '200' = 'tel:+12125551234'
    [numbering.enum]
    suffix = ''
    [breakout]
    options = 0
    [breakout.trunks]
    pbx = { uri = 'sip:pbx.example', number = 'national' }
    gateway = { uri = 'sip:gateway.example', number = 'tel', trusted = true }
    [[breakout.routes]]
    number = '+'
    trunks = ['pbx', 'gateway']
    [[breakout.routes]]
    domain = 'pbx.example'
    trunks = ['pbx']
    [next_hops]
    'ims.mnc001.mcc001.3gppnetwork.org' = ['udp:127.0.0.1:4060']
    'pcscf.ims.mnc001.mcc001.3gppnetwork.org' = ['udp:127.0.0.1:5070']
    'pbx.example' = ['udp:127.0.0.1:5081']
    'gateway.example' = ['udp:127.0.0.1:5082']
";

fn up(more: &str) -> Play {
    // A later line of a table takes the place of an earlier one.
    let text = more.lines().filter_map(|line| line.split_once(" => ")).fold(CONFIG.to_owned(), |text, (from, to)| {
        assert!(text.contains(from.trim()), "{from}");
        text.replace(from.trim(), to)
    });
    let mut read: scscf::Config = ims_core::config::parse("test", &text).unwrap();
    let mut play = Play::new(|config| {
        read.diameter = config.diameter.clone();
        read.udp_limit = config.udp_limit;
        *config = read;
    });
    play.register("1", CONTACT, &profile("1", ""));
    play
}

fn call(play: &mut Play, uri: &str) {
    play.ask(PCSCF, &from_ue("INVITE", "1", uri));
}

/// The caller hears this, and acknowledges it.
fn heard(play: &mut Play, uri: &str, status: u16) {
    play.answer(PCSCF, status);
    play.again(PCSCF, "ACK", &from_ue("INVITE", "1", uri));
}

fn naptr(regexp: &str) -> DnsRecord {
    DnsRecord::Naptr {
        order: 10,
        preference: 1,
        flags: "u".into(),
        service: if regexp.contains("tel:") { "E2U+pstn:tel" } else { "E2U+sip" }.into(),
        regexp: regexp.into(),
        replacement: String::new(),
    }
}

const ENUM: &str = "suffix = '' => suffix = 'e164.arpa'";

/// TS 24.229 5.4.3.2: dialled numbers become global ones.
#[test]
fn our_own_numbers_go_home_in_their_global_form() {
    for (dialled, uri) in [
        ("tel:+15552", "tel:+15552".to_owned()),
        ("tel:0015552", format!("sip:+15552@{DOMAIN};user=phone")),
        (&*format!("sip:0015552@{DOMAIN};user=phone"), format!("sip:+15552@{DOMAIN};user=phone")),
        (&*format!("sip:2@{DOMAIN}"), format!("sip:2@{DOMAIN}")),
    ] {
        let mut play = up("");
        call(&mut play, dialled);
        let out = play.request(ICSCF, "INVITE");
        assert_eq!(out.uri(), uri);
        play.reply(ICSCF, &out, 200);
        play.answer(PCSCF, 200);
        play.is_quiet();
    }
}

#[test]
fn the_table_of_numbers_goes_before_everything() {
    let mut play = up("");
    call(&mut play, "tel:100;phone-context=ims");
    assert_eq!(play.request(ICSCF, "INVITE").uri(), format!("sip:voicemail@{DOMAIN}"));
    let mut play = up("");
    call(&mut play, "tel:03099942");
    let out = play.request(PBX, "INVITE");
    assert_eq!((out.uri(), uris(&out, Name::Route)), ("sip:42@pbx.example", vec!["sip:pbx.example;lr"]));
    let mut play = up("");
    call(&mut play, "tel:200;phone-context=ims");
    assert_eq!(play.request(PBX, "INVITE").uri(), "sip:0012125551234@pbx.example;user=phone");
}

/// TS 24.229 4.4: a trunk outside the trust domain.
#[test]
fn a_number_of_others_goes_to_a_trunk_without_what_only_the_network_says() {
    let mut play = up("");
    call(&mut play, "tel:0301234567");
    let out = play.request(PBX, "INVITE");
    assert_eq!(out.uri(), "sip:0301234567@pbx.example;user=phone");
    assert!(!out.has(Name::PAssertedIdentity) && !out.has(Name::PChargingVector) && !out.has(Name::Route));
    assert_eq!(uris(&out, Name::RecordRoute)[0], format!("sip:mo@scscf.{DOMAIN}:6060;lr"));
    play.reply_with(PBX, &out, 180, |m| m.set(Name::PAssertedIdentity, "<sip:anybody@pbx.example>"));
    assert!(!play.answer(PCSCF, 180).has(Name::PAssertedIdentity), "nor do we believe it");
    play.reply(PBX, &out, 503);
    play.request(PBX, "ACK");
    heard(&mut play, "tel:0301234567", 500);
    play.is_quiet();
}

/// TS 24.229 5.4.3.2: what is not ours leaves by a trunk, or the next one.
#[test]
fn a_trunk_that_cannot_is_followed_by_the_next() {
    let next = |play: &mut Play| {
        let out = play.request(GATEWAY, "INVITE");
        assert_eq!((out.uri(), uris(&out, Name::Route)), ("tel:+12125551234", vec!["sip:gateway.example;lr"]));
        assert!(out.has(Name::PAssertedIdentity) && out.has(Name::PChargingVector));
        play.reply(GATEWAY, &out, 486);
        play.request(GATEWAY, "ACK");
        heard(play, "tel:+12125551234", 486);
        // An INVITE that nobody has answered cannot be cancelled yet: it is repeated until its time is over.
        play.bench.wait(Duration::from_secs(70));
        play.bench.take_sent();
        play.is_quiet();
        let trunks = play.bench.node.snapshot()["trunks"].clone();
        assert_eq!(
            (&trunks[0]["trunk"], &trunks[0]["sent"], &trunks[0]["failed"]),
            (&"gateway".into(), &1.into(), &0.into())
        );
        assert_eq!(
            (&trunks[1]["trunk"], &trunks[1]["sent"], &trunks[1]["failed"]),
            (&"pbx".into(), &1.into(), &1.into())
        );
    };
    // It says so.
    let mut play = up("");
    call(&mut play, "tel:+12125551234");
    let out = play.request(PBX, "INVITE");
    play.reply(PBX, &out, 503);
    play.request(PBX, "ACK");
    next(&mut play);
    // It says nothing.
    let mut play = up("");
    call(&mut play, "tel:+12125551234");
    play.request(PBX, "INVITE");
    play.bench.wait(Duration::from_millis(4990));
    play.bench.drop_sent();
    play.bench.wait(Duration::from_millis(10));
    next(&mut play);
    // What it says of the called user stands.
    let mut play = up("");
    call(&mut play, "tel:+12125551234");
    let out = play.request(PBX, "INVITE");
    play.reply(PBX, &out, 404);
    play.request(PBX, "ACK");
    heard(&mut play, "tel:+12125551234", 404);
    play.is_quiet();
}

#[test]
fn an_identity_that_a_trunk_asserts_is_taken_off_repetitions_too() {
    let mut play = up("");
    call(&mut play, "tel:0301234567");
    let out = play.request(PBX, "INVITE");
    for _ in 0..2 {
        play.reply_with(PBX, &out, 200, |m| m.set(Name::PAssertedIdentity, "<sip:anybody@pbx.example>"));
        assert!(!play.answer(PCSCF, 200).has(Name::PAssertedIdentity));
    }
    play.is_quiet();
}

#[test]
fn a_trunk_that_answers_after_it_was_given_up_is_hung_up_on() {
    let mut play = up("");
    call(&mut play, "tel:+12125551234");
    let late = play.request(PBX, "INVITE");
    play.bench.wait(Duration::from_secs(5));
    play.bench.take_sent();
    play.reply_with(PBX, &late, 200, |m| m.set(Name::Contact, format!("<sip:pbx@{PBX}>")));
    assert_eq!(play.request(PBX, "ACK").uri(), format!("sip:pbx@{PBX}"));
    assert_eq!(play.request(PBX, "BYE").uri(), format!("sip:pbx@{PBX}"));
}

#[test]
fn without_own_ranges_the_icscf_is_asked_first() {
    let own = "own = ['+1555'] => own = []";
    let mut play = up(own);
    call(&mut play, "tel:0301234567");
    let out = play.request(ICSCF, "INVITE");
    assert_eq!(out.uri(), format!("sip:+49301234567@{DOMAIN};user=phone"));
    play.reply(ICSCF, &out, 404);
    play.request(ICSCF, "ACK");
    let out = play.request(PBX, "INVITE");
    assert_eq!(out.uri(), "sip:0301234567@pbx.example;user=phone");
    play.reply(PBX, &out, 404);
    play.request(PBX, "ACK");
    heard(&mut play, "tel:0301234567", 404);
    play.is_quiet();
    let mut play = up(own);
    call(&mut play, "tel:0301234567");
    let out = play.request(ICSCF, "INVITE");
    play.reply(ICSCF, &out, 480);
    play.request(ICSCF, "ACK");
    heard(&mut play, "tel:0301234567", 480);
    play.is_quiet();
}

#[test]
fn what_leads_nowhere_says_so() {
    let mut play = up("number = '+' => number = '+49'");
    call(&mut play, "tel:+12125551234");
    heard(&mut play, "tel:+12125551234", 404);
    assert_eq!(play.bench.refusals("no-route"), 1);
    play.is_quiet();
    let mut play = up("");
    call(&mut play, "tel:*43%23");
    assert_eq!(play.request(ICSCF, "INVITE").uri(), "tel:*43%23", "a service code is the home network's");
}

/// RFC 6116 3: ENUM; with number portability by RFC 4769 and RFC 4694.
#[test]
fn enum_says_where_a_number_is() {
    let dial = || {
        let mut play = up(ENUM);
        call(&mut play, "tel:+49301234567");
        play
    };
    let mut play = dial();
    let asked = play.bench.dns_answers(Ok(vec![naptr("!^.*$!sip:bob@elsewhere.example!")]));
    assert_eq!(asked, DnsQuery::Naptr("7.6.5.4.3.2.1.0.3.9.4.e164.arpa".into()));
    assert_eq!(play.bench.dns_answers(Err(DnsError::NoSuchName)), DnsQuery::Naptr("elsewhere.example".into()));
    let mut play = dial();
    play.bench.dns_answers(Ok(vec![naptr(&format!("!^(.*)$!sip:bob@{DOMAIN}!"))]));
    assert_eq!(play.request(ICSCF, "INVITE").uri(), format!("sip:bob@{DOMAIN}"));
    let mut play = dial();
    play.bench.dns_answers(Ok(vec![naptr("!^(.*)$!sip:\\1@pbx.example!")]));
    assert_eq!(play.request(PBX, "INVITE").uri(), "sip:+49301234567@pbx.example");
    // Ported away.
    let mut play = up(&format!("{ENUM}\ntrunks = ['pbx', 'gateway'] => trunks = ['gateway']"));
    call(&mut play, "tel:+49301234567");
    play.bench.dns_answers(Ok(vec![naptr("!^(.*)$!tel:\\1;npdi;rn=+49991!")]));
    assert_eq!(play.request(GATEWAY, "INVITE").uri(), "tel:+49301234567;npdi;rn=+49991");
    // Nobody knows it, or DNS is dead: to the trunks.
    for answer in [Err(DnsError::NoRecord), Err(DnsError::Unavailable)] {
        let silent = u64::from(answer == Err(DnsError::Unavailable));
        let mut play = dial();
        play.bench.dns_answers(answer);
        play.request(PBX, "INVITE");
        assert_eq!(play.bench.refusals("enum-silent"), silent);
    }
    let mut play = dial();
    play.bench.wait(Duration::from_secs(3));
    play.answer(PCSCF, 100);
    play.request(PBX, "INVITE");
}

#[test]
fn a_caller_who_gives_up_while_dns_is_asked_ends_it() {
    let mut play = up(ENUM);
    call(&mut play, "tel:+49301234567");
    play.again(PCSCF, "CANCEL", &from_ue("INVITE", "1", "tel:+49301234567"));
    play.answer(PCSCF, 200);
    heard(&mut play, "tel:+49301234567", 487);
    play.bench.dns_answers(Ok(vec![naptr("!^.*$!sip:bob@elsewhere.example!")]));
    play.is_quiet();
}

/// The OPTIONS that leave within a time, answered or not.
fn asked(play: &mut Play, time: Duration, answers: impl Fn(&Message) -> bool) -> usize {
    play.bench.wait(time);
    let options = play.bench.take_sent();
    for (_, message) in &options {
        assert_eq!(message.method().as_str(), "OPTIONS");
        if answers(message) {
            let remote = if message.uri().contains("pbx") { PBX } else { GATEWAY };
            play.reply(remote, message, 405);
        }
    }
    options.len()
}

#[test]
fn trunks_that_do_not_answer_get_no_calls_until_they_do() {
    let mut play = up("options = 0 => options = '10s'");
    // The transactions of what is not answered take 32 seconds.
    for _ in 0..12 {
        asked(&mut play, Duration::from_secs(10), |message| message.uri().contains("gateway"));
    }
    let up = |play: &Play| {
        let trunks = play.bench.node.snapshot()["trunks"].clone();
        (trunks[0]["up"] == true, trunks[1]["up"] == true)
    };
    assert_eq!(up(&play), (true, false));
    call(&mut play, "tel:+12125551234");
    assert_eq!(play.request(GATEWAY, "INVITE").uri(), "tel:+12125551234");
    call_domain(&mut play);
    for _ in 0..8 {
        asked_all(&mut play);
    }
    assert_eq!(up(&play), (true, true));
}

fn asked_all(play: &mut Play) {
    play.bench.wait(Duration::from_secs(10));
    for (remote, message) in play.bench.take_sent() {
        if message.is_request() && message.method().as_str() == "OPTIONS" {
            play.reply(&remote.to_string(), &message, 200);
        }
    }
}

/// Its only trunk is down.
fn call_domain(play: &mut Play) {
    play.ask(PCSCF, &from_ue("MESSAGE", "1", "sip:42@pbx.example").call("m"));
    play.answer(PCSCF, 500);
    assert_eq!(play.bench.refusals("trunks-down"), 1);
}
