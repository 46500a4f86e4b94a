//! TS 24.229 5.4.1.2 and 5.3.1, RFC 3261 10.3: who is refused and why, and what a REGISTER may say about contacts.

use crate::support::{cause, sentences};
use ims_sip::Name;
use ims_sip::headers::Contact;
use ims_tests::lab::{DOMAIN, imsi};
use ims_tests::{Lab, LabConfig, Phone};
use serde_json::json;

/// 5.3.1.3, TS 29.228 6.1.1: the visited network is none of those where the user may be.
#[test]
fn roaming_is_refused_and_said() {
    let mut config = LabConfig::default();
    config.pcscf.visited_network = "visited.example".into();
    config.hss.visited_networks = vec!["friend.example".into()];
    let mut lab = Lab::new(config);
    let (answer, said) = sentences(|| lab.register(0));
    assert_eq!((cause(&answer), lab.refusals(lab.icscf, "roaming-not-allowed")), ("status-403", 1));
    assert!(said.iter().any(|s| s.contains("add it to visited_networks")), "{said:?}");
    let allowed = json!({ "imsi": imsi(0), "changes": { "visited_networks": ["visited.example"] } });
    lab.world.ask(lab.hss, "subscriber.change", allowed).unwrap();
    assert!(lab.register(0).is_ok());
    lab.rest();
    lab.assert_no_faults();
}

/// TS 29.228 6.1.1.2: DIAMETER_AUTHORIZATION_REJECTED when nothing that would be registered is of use.
#[test]
fn a_barred_user_is_refused_and_said() {
    let mut lab = Lab::new(LabConfig::default());
    let bar = |barred: bool| json!({ "imsi": imsi(0), "changes": { "barred": barred } });
    lab.world.ask(lab.hss, "subscriber.change", bar(true)).unwrap();
    let (answer, said) = sentences(|| lab.register(0));
    assert_eq!((cause(&answer), lab.refusals(lab.hss, "authorization-rejected")), ("status-403", 1));
    assert!(said.iter().any(|s| s.contains("look whether all its identities are barred")), "{said:?}");
    lab.world.ask(lab.hss, "subscriber.change", bar(false)).unwrap();
    assert!(lab.register(0).is_ok());
    lab.rest();
}

fn attached() -> (Lab, Phone) {
    let mut lab = Lab::new(LabConfig { handsets: 0, ..LabConfig::default() });
    let mut phone = Phone::new(&mut lab, 0);
    phone.attach(&mut lab);
    (lab, phone)
}

/// A REGISTER over the associations whose Contact and Expires are these lines.
fn ask(lab: &mut Lab, phone: &mut Phone, lines: &str) -> ims_sip::Message {
    phone.answer_again();
    let agree = phone.sec_agree();
    let text = phone.register(&agree);
    let is_kept = |line: &&str| !line.starts_with("Contact:") && !line.starts_with("Expires:");
    let kept: Vec<&str> = text.split("\r\n").filter(is_kept).collect();
    let text = kept.join("\r\n").replacen("Max-Forwards", &format!("{lines}Max-Forwards"), 1);
    phone.ask(lab, &text)
}

fn own(phone: &Phone) -> String {
    format!("<sip:{}@{}:{}>", imsi(0), phone.host(), phone.port_us)
}

/// RFC 3261 10.2.3: no Contact asks what is bound, and changes nothing.
#[test]
fn a_query_is_answered_with_the_bindings() {
    let (mut lab, mut phone) = attached();
    let answer = ask(&mut lab, &mut phone, "");
    let contacts: Vec<Contact<'_>> = answer.all().unwrap();
    assert_eq!((answer.status(), contacts.len(), lab.registered_at_scscf()), (200, 1, 1));
    assert!(contacts[0].expires().is_some_and(|left| left > 7000));
    lab.rest();
}

/// RFC 3261 10.2.1.2 and 20.10: preferences come back as they were written, for each contact of the UE.
#[test]
fn several_contacts_keep_their_q_values() {
    let (mut lab, mut phone) = attached();
    let mine = own(&phone);
    let instance = ";+sip.instance=\"<urn:gsma:imei:35000000-000000-0>\"";
    let both = format!(
        "Contact: {mine}{instance};q=0.9, <sip:{}@{}:7000>{instance};q=0.2;expires=900\r\n",
        imsi(0),
        phone.host()
    );
    let lines = format!("{both}Expires: 1800\r\n");
    phone.renew();
    let challenge = ask(&mut lab, &mut phone, &lines);
    assert_eq!(challenge.status(), 401, "a contact that is not known yet is no refresh (5.4.1.2.2)");
    phone.accept(&mut lab, &challenge);
    let answer = ask(&mut lab, &mut phone, &lines);
    let contacts: Vec<Contact<'_>> = answer.all().unwrap();
    let mut shown: Vec<_> = contacts.iter().map(|c| (c.addr().unwrap().params.value("q"), c.expires())).collect();
    shown.sort_unstable();
    assert_eq!((answer.status(), shown), (200, vec![(Some("0.2"), Some(900)), (Some("0.9"), Some(1800))]));
    lab.rest();
}

/// TS 29.228 6.1.3.1: another S-CSCF has the user now, and the one before hears of it (NEW_SERVER_ASSIGNED).
#[test]
fn an_scscf_that_is_replaced_is_told() {
    let mut config = LabConfig { scscfs: 2, ..LabConfig::default() };
    config.ue.retry = Some(ims_core::config::Span::secs(30));
    let mut lab = Lab::new(config);
    lab.register(0).unwrap();
    lab.world.partition(lab.icscf, lab.scscf);
    let refreshed = lab.refresh(0);
    lab.world.run_for(std::time::Duration::from_secs(1800));
    lab.rest();
    assert_eq!(lab.ue(0)["state"], "registered", "{refreshed:?}");
    assert_eq!(lab.subscriber(0)["scscf"], format!("sip:scscf2.{DOMAIN}:6060"));
    assert_eq!((lab.refusals(lab.scscf, "network-deregistration"), lab.registered_at_scscf()), (1, 0));
}

/// RFC 3261 10.2.2: the star removes all, and only by itself and with an expiry of 0.
#[test]
fn the_star_stands_alone_with_expires_zero() {
    let (mut lab, mut phone) = attached();
    let mine = own(&phone);
    for lines in ["Contact: *\r\nExpires: 600\r\n", "Contact: *\r\n", &format!("Contact: *, {mine}\r\nExpires: 0\r\n")]
    {
        let (answer, said) = sentences(|| ask(&mut lab, &mut phone, lines));
        assert_eq!((answer.status(), lab.registered_at_scscf()), (400, 1), "{lines}");
        assert!(said.iter().any(|s| s.contains("Contact: * stands alone and with Expires: 0")), "{said:?}");
    }
    let answer = ask(&mut lab, &mut phone, "Contact: *\r\nExpires: 0\r\n");
    assert_eq!((answer.status(), answer.has(Name::Contact), lab.registered_at_scscf()), (200, false, 0));
    lab.rest();
    let states = lab.subscriber(0)["impus"].to_string();
    assert!(!states.contains("\"registered\""), "{states} of {DOMAIN}");
}
