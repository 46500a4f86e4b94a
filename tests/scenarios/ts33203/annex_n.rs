//! TS 33.203 Annex N: SIP Digest, for users who have a password and no SIM.

use crate::support::{answers, cause, last_header, sentences, statuses_to_handsets};
use ims_core::config::Span;
use ims_sip::Name;
use ims_tests::lab::{DOMAIN, K, OPC, impi, imsi};
use ims_tests::{Lab, LabConfig, golden};
use pcscf::config::Policy;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;
use ue::{DigestName, Password, Quirk};

const PASSWORD: &str = "Circle Of Life";

fn softphone(change: impl FnOnce(&mut LabConfig)) -> Lab {
    softphone_with(json!({ "password": PASSWORD }), change)
}

/// One softphone; `credential` is what the HSS has for it.
fn softphone_with(credential: Value, change: impl FnOnce(&mut LabConfig)) -> Lab {
    let mut config = LabConfig { provision: false, ..LabConfig::default() };
    config.pcscf.security.policy = Policy::Allow;
    config.ue.sec_agree = false;
    config.ue.password = Some(Password::new(PASSWORD.into()));
    change(&mut config);
    let mut lab = Lab::new(config);
    let mut subscriber = json!({ "imsi": imsi(0), "msisdn": "4915100000001" });
    for (name, value) in credential.as_object().into_iter().flatten() {
        subscriber[name.as_str()] = value.clone();
    }
    let made = lab.world.ask(lab.hss, "subscriber.create", subscriber);
    assert!(made.is_ok(), "{made:?}");
    lab.world.trace.clear();
    lab
}

fn algorithm_used(lab: &Lab) -> String {
    let header = last_header(lab, "ue1", "pcscf", Name::Authorization).unwrap_or_default();
    let (_, rest) = header.split_once("algorithm=").unwrap_or_default();
    rest.split(',').next().unwrap_or_default().to_owned()
}

/// N.2.1.1: challenge, answer, and the network proves that it knows the password too.
#[test]
fn a_softphone_registers_with_its_password() {
    for tcp in [false, true] {
        let mut lab = softphone(|c| *c = if tcp { c.clone().with_tcp() } else { c.clone() });
        let answer = lab.register(0);
        assert!(answer.is_ok(), "{answer:?}");
        lab.rest();
        lab.assert_no_faults();
        assert_eq!((lab.registered_at_pcscf(), lab.registered_at_scscf()), (1, 1));
        assert_eq!(statuses_to_handsets(&lab), [401, 200]);
        let info = last_header(&lab, "pcscf", "ue1", Name::AuthenticationInfo).unwrap();
        assert!(info.starts_with("qop=auth,rspauth=\"") && info.ends_with(",nc=00000001"), "{info}");
        let said = last_header(&lab, "pcscf", "icscf", Name::Authorization).unwrap();
        assert!(said.ends_with("integrity-protected=\"ip-assoc-pending\""), "{said}");
        assert_eq!(lab.world.sa_sets(lab.pcscf), 0);
        if !tcp {
            golden("ts33203/sip_digest", &lab.world.golden_ladder());
        }
        let whole = format!("{}{}{}", lab.world.snapshot(lab.scscf), lab.world.snapshot(lab.hss), lab.world.ladder());
        assert!(!whole.contains(PASSWORD));
    }
}

/// RFC 8760 2.4: the stronger one is offered first, and each handset takes the first that it knows.
#[test]
fn each_takes_the_best_algorithm_that_both_know() {
    let only = |name| json!({ "password": PASSWORD, "digest_algorithms": [name] });
    let knows = |a| vec![DigestName(a)];
    use ims_sip::digest::DigestAlgorithm::{Md5, Sha256};
    for (has, phone, used) in [
        (json!({ "password": PASSWORD }), vec![], "SHA-256"),
        (json!({ "password": PASSWORD }), knows(Md5), "MD5"),
        (json!({ "password": PASSWORD }), knows(Sha256), "SHA-256"),
        (only("MD5"), vec![], "MD5"),
        (only("SHA-256"), vec![], "SHA-256"),
    ] {
        let mut lab = softphone_with(has, |c| c.ue.digest = phone);
        assert!(lab.register(0).is_ok());
        assert_eq!(algorithm_used(&lab), used);
        lab.rest();
        lab.assert_no_faults();
    }
    let mut lab = softphone_with(only("MD5"), |c| c.ue.digest = knows(Sha256));
    assert_eq!(cause(&lab.register(0)), "fault-wrong-algorithm");
}

/// H(A1) may be provisioned instead of the password, with a realm of its own.
#[test]
fn the_hss_needs_no_password() {
    let realm = "pbx.example";
    let ha1 = ims_sip::digest::ha1(ims_sip::digest::DigestAlgorithm::Md5, &impi(0), realm, PASSWORD.as_bytes());
    let mut lab = softphone_with(json!({ "ha1": { "MD5": ha1 }, "realm": realm }), |_| {});
    assert!(lab.register(0).is_ok());
    let challenge = last_header(&lab, "scscf", "icscf", Name::WwwAuthenticate).unwrap();
    assert!(challenge.contains("realm=\"pbx.example\"") && challenge.contains("algorithm=MD5,"), "{challenge}");
    let said = last_header(&lab, "ue1", "pcscf", Name::Authorization).unwrap();
    assert!(said.contains("realm=\"pbx.example\""), "{said}");
    lab.rest();
    lab.assert_no_faults();
}

#[test]
fn a_wrong_password_is_refused_and_said() {
    let mut lab = softphone(|c| c.ue.quirk = Some(Quirk::WrongRes));
    let (answer, said) = sentences(|| lab.register(0));
    assert_eq!(cause(&answer), "status-403");
    assert_eq!(lab.refusals(lab.scscf, "wrong-password"), 1);
    assert!(said.iter().any(|s| s.contains("compare password, user name (the IMPI) and realm")), "{said:?}");
    lab.rest();
    assert_eq!((lab.registered_at_pcscf(), lab.registered_at_scscf()), (0, 0));
    assert_eq!(lab.subscriber(0)["scscf"], Value::Null);
}

/// RFC 7616 3.4: the nonce goes on with a higher count, and no challenge is needed to refresh or to leave.
#[test]
fn a_refresh_goes_on_with_the_nonce() {
    let mut lab = softphone(|_| {});
    lab.register(0).unwrap();
    for count in 2..5 {
        lab.world.trace.clear();
        lab.refresh(0).unwrap();
        assert_eq!(statuses_to_handsets(&lab), [200]);
        let said = last_header(&lab, "pcscf", "icscf", Name::Authorization).unwrap();
        assert!(said.contains(&format!("nc={count:08x}")), "{said}");
        assert!(said.ends_with("integrity-protected=\"ip-assoc-yes\""), "{said}");
    }
    lab.world.trace.clear();
    lab.deregister(0).unwrap();
    assert_eq!(statuses_to_handsets(&lab), [200]);
    lab.rest();
    lab.assert_no_faults();
    assert_eq!((lab.registered_at_pcscf(), lab.registered_at_scscf()), (0, 0));
    assert_eq!(lab.world.snapshot(lab.scscf)["nonces"], 0, "H(A1) is gone with the registration");
}

/// A gap in the count is one that was lost on the way; one that comes again is a repetition.
#[test]
fn a_nonce_count_that_comes_again_is_challenged() {
    let mut lab = softphone(|c| c.ue.quirk = Some(Quirk::SameCount));
    lab.register(0).unwrap();
    lab.world.trace.clear();
    let answer = lab.refresh(0);
    assert!(answer.is_ok(), "{answer:?}");
    assert_eq!(statuses_to_handsets(&lab), [401, 200]);
    assert_eq!(lab.refusals(lab.scscf, "nonce-count-repeated"), 1);
    lab.rest();
}

/// What was overheard does not register somebody else, from another address and as another Contact.
#[test]
fn a_recorded_register_is_of_no_use() {
    let mut lab = softphone(|_| {});
    lab.register(0).unwrap();
    let recorded = lab.world.trace.iter().rev().find_map(|e| match &e.what {
        ims_tests::What::Sip { bytes, .. } if lab.world.name(e.from) == "ue1" => Some(bytes.clone()),
        _ => None,
    });
    let mut again = ims_sip::Message::parse(recorded.unwrap()).unwrap();
    again.set(Name::CSeq, "77 REGISTER");
    again.set(Name::CallId, "thief");
    again.set(Name::Via, "SIP/2.0/UDP 10.1.0.9:5060;branch=z9hG4bKthief");
    again.set(Name::Contact, "<sip:thief@10.1.0.9>");
    lab.world.trace.clear();
    let pcscf = SocketAddr::from(([10, 0, 0, 10], lab.config.pcscf.gm.port));
    lab.world.inject(SocketAddr::from(([10, 1, 0, 9], 5060)), pcscf, again.to_bytes());
    lab.rest();
    assert_eq!(answers(&lab, "pcscf"), [401], "challenged, not believed");
    assert_eq!(lab.refusals(lab.scscf, "nonce-count-repeated"), 1);
    let shown = lab.world.snapshot(lab.scscf)["registrations"].to_string();
    assert!(!shown.contains("thief"), "{shown}");
}

/// RFC 7616 3.3: an answer that is right but for its nonce asks nobody for the password again.
#[test]
fn a_nonce_that_is_too_old_is_called_stale() {
    let mut lab = softphone(|c| c.scscf.registration.nonce_lifetime = Span::secs(60));
    lab.register(0).unwrap();
    lab.world.run_for(Duration::from_secs(120));
    lab.world.trace.clear();
    let answer = lab.refresh(0);
    assert!(answer.is_ok(), "{answer:?}");
    assert_eq!(statuses_to_handsets(&lab), [401, 200]);
    assert_eq!(lab.refusals(lab.scscf, "stale-nonce"), 1);
    lab.rest();
    lab.assert_no_faults();
}

#[test]
fn the_next_nonce_comes_in_time() {
    let mut lab = softphone(|c| c.scscf.registration.nonce_lifetime = Span::secs(600));
    lab.register(0).unwrap();
    for _ in 0..5 {
        lab.world.run_for(Duration::from_secs(400));
        lab.world.trace.clear();
        lab.refresh(0).unwrap();
        assert_eq!(statuses_to_handsets(&lab), [200], "never challenged again");
        let info = last_header(&lab, "pcscf", "ue1", Name::AuthenticationInfo).unwrap();
        assert!(info.contains("nextnonce="), "{info}");
    }
    lab.rest();
    lab.assert_no_faults();
}

/// An S-CSCF that started again knows neither nonce nor H(A1), and asks the HSS.
#[test]
fn the_scscf_may_forget_the_nonce() {
    let mut lab = softphone(|_| {});
    lab.register(0).unwrap();
    lab.world.crash(lab.scscf);
    lab.world.restart(lab.scscf, Box::new(scscf::Scscf::new(lab.config.scscf.clone()).unwrap()));
    lab.world.run_for(Duration::from_secs(60));
    let answer = lab.refresh(0);
    assert!(answer.is_ok(), "{answer:?}");
    assert_eq!(lab.refusals(lab.scscf, "stale-nonce"), 1);
    lab.rest();
    lab.assert_no_faults();
}

/// Softphones that send no Authorization until they are asked: the private identity comes from To (TS 24.229 5.4.1.1).
#[test]
fn without_authorization_the_identity_is_that_in_to() {
    let mut lab = softphone(|c| c.ue.quirk = Some(Quirk::NoAuthorization));
    let answer = lab.register(0);
    assert!(answer.is_ok(), "{answer:?}");
    lab.rest();
    lab.assert_no_faults();
}

/// The same number on a phone with a SIM and on a softphone: two private identities of one subscription.
#[test]
fn a_softphone_beside_a_sim() {
    let mut config = LabConfig { provision: false, ..LabConfig::default() };
    config.pcscf.security.policy = Policy::Allow;
    let mut lab = Lab::new(config);
    let desk = format!("desk@{DOMAIN}");
    let more = json!({ "private_identities": [{ "impi": desk, "password": PASSWORD }] });
    lab.provision(0, more);
    let number = format!("sip:+491510000001@{DOMAIN}");
    let softphone = ue::Config {
        password: Some(Password::new(PASSWORD.into())),
        sec_agree: false,
        impi: Some(desk),
        impu: Some(number),
        ..lab.config.handset(1)
    };
    lab.add_handset(1, softphone);
    let (sim, soft) = (lab.register(0).unwrap(), lab.register(1).unwrap());
    assert_eq!((&sim["binding"]["protected"], &soft["binding"]["protected"]), (&json!(true), &json!(false)));
    assert_eq!((lab.registered_at_pcscf(), lab.registered_at_scscf()), (2, 2));
    lab.deregister(0).unwrap();
    assert_eq!((lab.registered_at_pcscf(), lab.registered_at_scscf()), (1, 1));
    lab.rest();
    lab.assert_no_faults();
    let states = lab.subscriber(0)["impus"].to_string();
    assert!(states.contains("\"registered\""), "{states}");
}

/// A phone with a SIM whose subscriber has a password: no challenge could be answered, and the operator hears why.
#[test]
fn a_sim_where_a_password_is_provisioned() {
    let mut lab = softphone(|c| {
        c.ue.password = None;
        c.ue.sec_agree = true;
    });
    let (answer, said) = sentences(|| lab.register(0));
    assert_eq!(cause(&answer), "status-403");
    assert_eq!((lab.refusals(lab.scscf, "scheme-not-supported"), lab.refusals(lab.hss, "has-password")), (1, 1));
    assert!(said.iter().any(|s| s.contains("has a password and no SIM")), "{said:?}");
    assert!(said.iter().any(|s| s.contains("provision what the phone has")), "{said:?}");
    lab.rest();
}

/// An operator without softphones: nobody is asked what he has.
#[test]
fn passwords_may_be_off() {
    let mut lab = softphone(|c| c.scscf.registration.digest = false);
    assert_eq!(cause(&lab.register(0)), "status-403");
    assert_eq!(lab.refusals(lab.scscf, "scheme-not-supported"), 1);
    lab.rest();
}

/// N.1: where IPsec is required, a password is not enough.
#[test]
fn a_network_that_requires_ipsec_has_no_softphones() {
    let mut lab = softphone(|c| c.pcscf.security.policy = Policy::Require);
    assert_eq!(cause(&lab.register(0)), "status-421");
    lab.rest();
}

/// TS 29.228 6.1.3: who is removed cannot go on with the nonce he has.
#[test]
fn a_removed_softphone_is_out_at_once() {
    let mut lab = softphone(|_| {});
    lab.register(0).unwrap();
    lab.world.ask(lab.hss, "subscriber.remove", json!({ "imsi": imsi(0) })).unwrap();
    lab.rest();
    assert_eq!((lab.registered_at_scscf(), &lab.world.snapshot(lab.scscf)["nonces"]), (0, &json!(0)));
    assert_eq!(cause(&lab.refresh(0)), "status-403");
}

/// A SIM takes the place of the password.
#[test]
fn a_subscriber_may_change_from_password_to_sim() {
    let mut lab = softphone(|_| {});
    lab.register(0).unwrap();
    lab.deregister(0).unwrap();
    let changes = json!({ "imsi": imsi(0), "changes": { "k": K, "opc": OPC } });
    lab.world.ask(lab.hss, "subscriber.change", changes).unwrap();
    let answer = lab.register(0);
    assert_eq!(cause(&answer), "fault-wrong-algorithm", "AKA is asked for now");
}
