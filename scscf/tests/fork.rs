//! To the devices of a user (TS 24.229 5.4.3.3, RFC 3261 16, RFC 3841, RFC 5627), with all others played by the test.

mod bench;
mod play;

use bench::DOMAIN;
use ims_sip::headers::Contact;
use ims_sip::{Message, Name};
use play::{Ask, ICSCF, PCSCF, Play, from_ue, lines, profile, to_user, uris};
use std::time::Duration;

const MMTEL: &str = "+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.mmtel\"";

fn user(n: u32) -> String {
    format!("sip:{n}@{DOMAIN}")
}

/// User 2 has these devices: Contact parameters.
fn with_devices(devices: &[&str]) -> Play {
    let mut play = Play::new(|_| {});
    for (at, params) in devices.iter().enumerate() {
        let contact = format!("<sip:2@192.0.2.{at}>;+sip.instance=\"<urn:uuid:{at}>\";expires=600{params}");
        play.register_as(&format!("2-{at}"), "2", &contact, "", &profile("2", ""));
    }
    play
}

/// The device that a request went to.
fn device(request: &Message) -> u32 {
    request.uri().rsplit('.').next().unwrap().parse().unwrap()
}

/// Who has a MESSAGE with these header lines.
fn reached(play: &mut Play, more: &str) -> Vec<u32> {
    play.ask(ICSCF, &to_user("MESSAGE", &user(2)).with(more));
    let mut devices = Vec::new();
    while let Some(message) = play.bench.next_sent() {
        devices.push(device(&message));
    }
    devices
}

/// RFC 3261 16.7: the others are cancelled, and what has answered all the same goes back too.
#[test]
fn all_ring_and_the_first_to_answer_is_the_one() {
    let mut play = with_devices(&["", "", ""]);
    let invite = to_user("INVITE", &user(2));
    play.ask(ICSCF, &invite);
    let rings: Vec<Message> = (0..3).map(|_| play.request(PCSCF, "INVITE")).collect();
    let breadth: Vec<String> =
        rings[0].raw_named("Max-Breadth").map(|v| String::from_utf8_lossy(v).into_owned()).collect();
    assert_eq!(breadth, ["20"]);
    for ring in &rings {
        play.reply(PCSCF, ring, 180);
        play.answer(ICSCF, 180);
    }
    play.reply(PCSCF, &rings[1], 200);
    for other in [0, 2] {
        let cancel = play.request(PCSCF, "CANCEL");
        assert_eq!(cancel.uri(), rings[other].uri());
        assert_eq!(lines(&cancel, Name::Reason), ["SIP;cause=200;text=\"Call completed elsewhere\""]);
        play.reply(PCSCF, &cancel, 200);
    }
    play.answer(ICSCF, 200);
    // The other one had answered already: both calls stand, and the caller ends one (RFC 3261 16.7 item 5).
    play.reply(PCSCF, &rings[0], 200);
    play.answer(ICSCF, 200);
    play.reply(PCSCF, &rings[2], 487);
    play.request(PCSCF, "ACK");
    play.is_quiet();
}

/// RFC 3261 16.7: 6xx before all, then the lowest class.
#[test]
fn the_best_of_all_refusals_goes_back() {
    for (answers, best) in
        [([486, 404], 486), ([503, 480], 480), ([500, 503], 500), ([603, 486], 603), ([408, 486], 486)]
    {
        let mut play = with_devices(&["", ""]);
        let invite = to_user("INVITE", &user(2));
        play.ask(ICSCF, &invite);
        let rings: Vec<Message> = (0..2).map(|_| play.request(PCSCF, "INVITE")).collect();
        for (ring, status) in rings.iter().zip(answers) {
            play.reply(PCSCF, ring, status);
            play.request(PCSCF, "ACK");
        }
        play.answer(ICSCF, best);
        play.again(ICSCF, "ACK", &invite);
        play.is_quiet();
    }
}

/// RFC 3841 7.2.4: Accept-Contact, Reject-Contact, Request-Disposition; Max-Breadth of RFC 5393.
#[test]
fn a_caller_says_which_device_it_wants() {
    let devices = [format!(";{MMTEL};audio"), ";+g.3gpp.smsip".into(), ";q=0.3;automata".into()];
    let devices: Vec<&str> = devices.iter().map(String::as_str).collect();
    let mut play = with_devices(&devices);
    assert_eq!(reached(&mut play, &format!("Accept-Contact: *;{MMTEL};require;explicit\n")), [0]);
    let mut play = with_devices(&devices);
    assert_eq!(reached(&mut play, "Accept-Contact: *;+g.3gpp.smsip\n"), [1, 0], "q decides who comes later");
    let mut play = with_devices(&devices);
    assert_eq!(reached(&mut play, "Reject-Contact: *;+g.3gpp.smsip\nRequest-Disposition: parallel\n"), [0, 2]);
    let mut play = with_devices(&devices);
    assert_eq!(reached(&mut play, "Accept-Contact: *;+g.3gpp.smsip\nRequest-Disposition: no-fork\n"), [1]);
    let mut play = with_devices(&devices);
    assert_eq!(reached(&mut play, "Max-Breadth: 1\n"), [0]);
    let mut play = with_devices(&devices);
    play.ask(ICSCF, &to_user("MESSAGE", &user(2)).with("Accept-Contact: *;video;require;explicit\n"));
    play.refused(ICSCF, 480, "no-contact-wanted");
    play.ask(ICSCF, &to_user("MESSAGE", &user(2)).with("Max-Breadth: 0\n").cseq(2));
    play.refused(ICSCF, 440, "too-broad");
    play.is_quiet();
}

/// TS 24.229 5.4.8.2: barred identities too.
#[test]
fn an_emergency_registration_lives_beside_the_other_and_is_called_when_it_is_alone() {
    let mut play = Play::new(|_| {});
    let contact = |more: &str| format!("<sip:2@192.0.2.7:5062{more}>;+sip.instance=\"<urn:uuid:7>\";expires=600");
    let barred = "<PublicIdentity><BarringIndication>1</BarringIndication><Identity>sip:3@ims.mnc001.mcc001.3gppnetwork.org</Identity>\
                  </PublicIdentity>";
    let xml = format!(
        "<IMSSubscription><PrivateID>3@{DOMAIN}</PrivateID><ServiceProfile>{barred}</ServiceProfile></IMSSubscription>"
    );
    play.register("3", &contact(";sos"), &xml);
    // A server that wants to know of everything hears nothing of it.
    let told = "<InitialFilterCriteria><Priority>0</Priority><ApplicationServer><ServerName>sip:127.0.0.1:9001</ServerName>\
                </ApplicationServer></InitialFilterCriteria>";
    play.register("4", &contact(";sos"), &profile("4", told));
    assert!(play.told.is_empty());
    play.register("4", &contact(""), &profile("4", told));
    assert_eq!(play.told, ["127.0.0.1:9001"]);
    play.register("2", &contact(";sos"), &profile("2", ""));
    play.ask(ICSCF, &to_user("MESSAGE", &user(2)));
    assert_eq!(play.request(PCSCF, "MESSAGE").uri(), "sip:2@192.0.2.7:5062;sos");
    let ok = play.register("2", &contact(""), &profile("2", ""));
    assert_eq!(ok.all::<Contact<'_>>().unwrap().len(), 2);
    play.ask(ICSCF, &to_user("MESSAGE", &user(2)).cseq(2));
    assert_eq!(play.request(PCSCF, "MESSAGE").uri(), "sip:2@192.0.2.7:5062");
    play.bench.nothing_sent();
}

/// RFC 5627 5.3: public GRUU in the 200 to REGISTER, and requests to it, in dialogs and outside.
#[test]
fn a_device_has_a_name_of_its_own() {
    let mut play = Play::new(|_| {});
    let contact =
        |n: u32| format!("<sip:2@192.0.2.{n}>;+sip.instance=\"<urn:uuid:{n}>\";expires=600;pub-gruu=\"sip:no;gr=no\"");
    let plain = play.register_as("2a", "2", &contact(7), "", &profile("2", ""));
    assert!(!plain.text(Name::Contact).unwrap().contains("gruu"));
    let ok = play.register_as("2b", "2", &contact(8), "Supported: path, gruu\n", &profile("2", ""));
    let gruu = ok.require::<Contact<'_>>().unwrap().addr().unwrap().params.value("pub-gruu").unwrap().to_owned();
    assert_eq!(gruu, format!("{};gr=urn:uuid:8", user(2)));
    play.ask(ICSCF, &to_user("INVITE", &gruu));
    let out = play.request(PCSCF, "INVITE");
    assert_eq!((out.uri(), lines(&out, Name::PCalledPartyId)), ("sip:2@192.0.2.8", vec![format!("<{gruu}>")]));
    play.bench.nothing_sent();
    // Within a dialog it is the address of the device.
    let route = format!("Route: <sip:mt@scscf.{DOMAIN}:6060;lr>, <sip:dlg@pcscf.{DOMAIN}:5070;lr>\n");
    for method in ["ACK", "BYE"] {
        play.ask(ICSCF, &Ask { more: route.clone(), ..from_ue(method, "1", &gruu) }.tagged("t").call("in"));
        let out = play.request(PCSCF, method);
        assert_eq!((out.uri(), uris(&out, Name::Route).len()), ("sip:2@192.0.2.8", 1));
    }
    // One that is not there.
    play.ask(ICSCF, &to_user("MESSAGE", &gruu.replace("uuid:8", "uuid:9")).cseq(3));
    play.refused(ICSCF, 480, "not-reachable");
}

/// RFC 5627 3.1.2: a name that nobody else can read; it ends with its registration.
#[test]
fn a_device_has_names_that_say_nothing() {
    let mut play = Play::new(|_| {});
    play.register("1", "<sip:1@192.0.2.1>;expires=600", &profile("1", ""));
    let contact = |n: u32| format!("<sip:2@192.0.2.{n}>;+sip.instance=\"<urn:uuid:{n}>\";expires=600");
    play.register_as("2a", "2", &contact(7), "", &profile("2", ""));
    let ok = play.register_as("2b", "2", &contact(8), "Supported: path, gruu\n", &profile("2", ""));
    let gruu = ok.require::<Contact<'_>>().unwrap().addr().unwrap().params.value("temp-gruu").unwrap().to_owned();
    assert!(
        gruu.starts_with("sip:tgruu.") && gruu.ends_with(";gr") && !gruu.contains("192") && !gruu.contains("sip:2@")
    );
    // Another user of ours calls it: the S-CSCF sends to itself.
    play.ask(PCSCF, &from_ue("MESSAGE", "1", &gruu));
    let around = play.request("127.0.0.1:6060", "MESSAGE");
    play.bench.receive_message("127.0.0.1:6060", &around);
    let out = play.request(PCSCF, "MESSAGE");
    assert_eq!((out.uri(), lines(&out, Name::PCalledPartyId)), ("sip:2@192.0.2.8", vec![format!("<{gruu}>")]));
    play.bench.nothing_sent();
    let route = format!("Route: <sip:mt@scscf.{DOMAIN}:6060;lr>, <sip:dlg@pcscf.{DOMAIN}:5070;lr>\n");
    play.ask(ICSCF, &Ask { more: route, ..from_ue("BYE", "1", &gruu) }.tagged("t").call("in"));
    assert_eq!(play.request(PCSCF, "BYE").uri(), "sip:2@192.0.2.8");
    // With another Call-ID it is another registration.
    play.register_as("2b", "2", &contact(8), "Supported: path, gruu\n", &profile("2", ""));
    play.ask(ICSCF, &to_user("MESSAGE", &gruu).cseq(3));
    play.refused(ICSCF, 404, "no-user");
}

/// RFC 3261 16.6: by falling q value; a 603 ends it.
#[test]
fn contacts_ring_together_or_one_after_the_other_and_one_answers() {
    let mut play = with_devices(&[]);
    play.register("2", "<sip:2@192.0.2.6:5062>;expires=600", &profile("2", ""));
    let contact = |n: u32, q: &str| format!("<sip:2@192.0.2.{n}>;+sip.instance=\"<urn:uuid:{n}>\";expires=600;q={q}");
    play.register_as("2b", "2", &format!("{},{}", contact(11, "0.5"), contact(12, "0.1")), "", &profile("2", ""));
    let invite = to_user("INVITE", &user(2));
    play.ask(ICSCF, &invite);
    let first = play.request(PCSCF, "INVITE");
    assert_eq!(first.uri(), "sip:2@192.0.2.6:5062", "without q: the most wanted");
    play.reply(PCSCF, &first, 180);
    play.answer(ICSCF, 180);
    play.bench.wait(Duration::from_secs(20));
    let cancel = play.request(PCSCF, "CANCEL");
    let second = play.request(PCSCF, "INVITE");
    assert_eq!(second.uri(), "sip:2@192.0.2.11");
    play.reply(PCSCF, &cancel, 200);
    play.reply(PCSCF, &first, 487);
    play.request(PCSCF, "ACK");
    play.reply(PCSCF, &second, 486);
    play.request(PCSCF, "ACK");
    let third = play.request(PCSCF, "INVITE");
    assert_eq!(third.uri(), "sip:2@192.0.2.12");
    play.reply(PCSCF, &third, 603);
    play.request(PCSCF, "ACK");
    play.answer(ICSCF, 603);
    play.again(ICSCF, "ACK", &invite);
    play.is_quiet();
}

/// RFC 3261 16.7: that we gave one up says nothing to the caller, what the other says does.
#[test]
fn who_was_called_off_is_not_the_answer() {
    let mut play = with_devices(&["", ";q=0.5"]);
    let invite = to_user("INVITE", &user(2));
    play.ask(ICSCF, &invite);
    let first = play.request(PCSCF, "INVITE");
    play.reply(PCSCF, &first, 180);
    play.answer(ICSCF, 180);
    play.bench.wait(Duration::from_secs(20));
    let cancel = play.request(PCSCF, "CANCEL");
    let second = play.request(PCSCF, "INVITE");
    play.reply(PCSCF, &cancel, 200);
    play.reply(PCSCF, &first, 487);
    play.request(PCSCF, "ACK");
    play.reply(PCSCF, &second, 486);
    play.request(PCSCF, "ACK");
    play.answer(ICSCF, 486);
    play.again(ICSCF, "ACK", &invite);
    play.is_quiet();
}
