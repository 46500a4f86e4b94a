//! The HSS as a peer and an operator see it: Diameter messages and commands in, answers out, over a store that may be slow,
//! changed from elsewhere, or down.

mod behind;
mod provisioning;
mod refusals;
mod services;
mod world;

use hss::Config;
use ims_core::config::Span;
use ims_core::{Node, Secret};
use ims_diameter::Message;
use ims_diameter::cx::{Maa, Ppa, ReasonCode, Request, ResultCode, Rta, Rtr, Saa, Sar, ServerAssignmentType};
use serde_json::{Value, json};
use std::time::Duration;
use world::*;

#[test]
fn a_registration_from_the_first_question_to_the_last() {
    let mut w = World::with_subscriber();
    let first = w.uar(impi(IMSI), temporary(IMSI));
    assert_eq!((first.result, first.server_name), (ResultCode::FIRST_REGISTRATION, None));
    assert!(first.capabilities.is_some());
    assert_eq!(seq(&w.mar()), 1);
    let second = w.uar(impi(IMSI), temporary(IMSI));
    assert_eq!((second.result, second.server_name.as_deref()), (ResultCode::SUBSEQUENT_REGISTRATION, Some(S1)));
    let profile = xml_ifc::parse(&w.sar(ServerAssignmentType::Registration).user_data.unwrap()).unwrap();
    let first = &profile.service_profiles[0].public_identities[0];
    assert_eq!(first.identity, format!("sip:+4915112345678@{D}"));
    assert_eq!(w.lir("tel:+49-151-12345678").server_name.as_deref(), Some(S1));
    let shown = w.show();
    assert_eq!((&shown["scscf"], &shown["impus"][0]["state"]), (&json!(S1), &json!("registered")));
    w.sar(ServerAssignmentType::UserDeregistration);
    assert_eq!(w.lir("tel:+4915112345678").result, ResultCode::IDENTITY_NOT_REGISTERED);
    assert!(w.hss.is_quiet());
}

#[test]
fn many_requests_for_one_subscriber_get_a_sqn_each() {
    let mut w = World::with_subscriber();
    w.disk = Disk::Slow;
    for _ in 0..20 {
        w.send(mar(IMSI));
    }
    w.work_off();
    let mut seen: Vec<u64> = w.answers.iter().map(|m| seq(&Maa::from_message(m).unwrap())).collect();
    seen.sort_unstable();
    assert_eq!(seen, (1..=20).collect::<Vec<_>>());
    assert!(w.hss.is_quiet());
}

#[test]
fn without_its_store_the_hss_is_unable_to_comply() {
    let mut w = World::with_subscriber();
    w.disk = Disk::Down;
    assert_eq!(w.mar().result, ResultCode::UNABLE_TO_COMPLY);
    assert_eq!(w.create("001010000000002", json!({})).unwrap_err().status, 503);
    w.disk = Disk::Slow;
    w.send(mar(IMSI));
    w.start_command("subscriber.show", json!({ "imsi": IMSI }));
    w.pass(Duration::from_secs(4));
    assert_eq!(Maa::from_message(&w.answers.pop().unwrap()).unwrap().result, ResultCode::UNABLE_TO_COMPLY);
    assert_eq!(w.replies.pop().unwrap().1.unwrap_err().status, 503);
    assert!(w.hss.is_quiet());
    w.work_off();
    assert!(w.answers.is_empty(), "what comes too late is not answered again");
    w.disk = Disk::Works;
    assert_eq!(seq(&w.mar()), 1);
    assert_eq!(w.refusals("store-unavailable"), 4);
}

#[test]
fn a_commit_that_takes_too_long_leaves_nothing_stuck() {
    let mut w = World::with_subscriber();
    w.mar();
    w.disk = Disk::Slow;
    w.send(mar(IMSI));
    w.send(mar(IMSI));
    w.pass(Duration::from_secs(2));
    w.send(mar(IMSI));
    w.pass(Duration::from_secs(2));
    w.work_off();
    assert_eq!(w.answers.len(), 3);
    assert!(w.hss.is_quiet());
    w.disk = Disk::Works;
    w.answers.clear();
    assert!(seq(&w.mar()) > 2);
}

#[test]
fn beyond_the_limit_the_peer_is_told_too_busy() {
    let mut w = World::new(Config { max_pending: 2, ..config() });
    w.create(IMSI, json!({})).unwrap();
    w.disk = Disk::Slow;
    for _ in 0..3 {
        w.send(mar(IMSI));
    }
    let busy = w.answers.pop().unwrap();
    assert!(busy.is_error(), "3004 is a protocol error");
    assert_eq!((Maa::from_message(&busy).unwrap().result, w.refusals("busy")), (ResultCode::TOO_BUSY, 1));
    w.start_command("subscriber.list", json!({}));
    assert_eq!(w.replies.pop().unwrap().1.unwrap_err().status, 503);
    w.work_off();
    assert_eq!(w.answers.len(), 2);
}

/// What waits too long for the store is a sign that more would wait longer: refused at once, but for what ends an exchange that
/// the HSS has answered for already.
#[test]
fn while_the_store_is_slow_the_peer_is_told_too_busy_but_a_registration_is_let_through() {
    let mut w = World::new(Config { busy_after: Span::secs(1), write_behind: Span::secs(0), ..config() });
    w.create(IMSI, json!({})).unwrap();
    w.register();
    w.disk = Disk::Slow;
    w.send(mar(IMSI));
    w.pass(Duration::from_millis(900));
    w.send(mar(IMSI));
    assert_eq!((w.answers.len(), w.refusals("busy")), (0, 0), "not late yet");
    w.pass(Duration::from_millis(200));
    w.send(mar(IMSI));
    let busy = w.answers.pop().expect("refused at once");
    assert!(busy.is_error(), "3004 is a protocol error");
    assert_eq!(Maa::from_message(&busy).unwrap().result, ResultCode::TOO_BUSY);
    assert_eq!(w.uar(impi(IMSI), temporary(IMSI)).result, ResultCode::TOO_BUSY, "whoever would have to wait or not");
    assert_eq!(w.refusals("busy"), 2);
    w.send(sar(ServerAssignmentType::ReRegistration).to_message());
    w.work_off();
    let mut answers: Vec<_> = w.answers.drain(..).map(|m| (m.command(), ResultCode::from_message(&m))).collect();
    answers.sort_by_key(|(command, _)| *command);
    // TS 29.229 6.1: SAA is 301, MAA 303.
    assert_eq!(answers, [301, 303, 303].map(|command| (command, Ok(ResultCode::SUCCESS))));
    assert_eq!(w.refusals("busy"), 2);
    // Nothing waits any more.
    w.disk = Disk::Works;
    assert_eq!(w.mar().result, ResultCode::SUCCESS);
    assert!(w.hss.is_quiet());
}

#[test]
fn identities_of_another_subscriber_and_of_nobody_are_told_apart() {
    let mut w = World::with_subscriber();
    w.create("001010000000002", json!({})).unwrap();
    let nobody = "001019999999999";
    let other = temporary("001010000000002");
    assert_eq!(w.uar(impi(IMSI), other).result, ResultCode::IDENTITIES_DONT_MATCH);
    assert_eq!(w.uar(impi(IMSI), temporary(nobody)).result, ResultCode::USER_UNKNOWN);
    assert_eq!(w.uar(impi(nobody), temporary(IMSI)).result, ResultCode::USER_UNKNOWN);
    assert_eq!(w.lir(&format!("sip:{nobody}@{D}")).result, ResultCode::USER_UNKNOWN);
    assert!(w.hss.is_quiet());
}

#[test]
fn removing_a_registered_subscriber_de_registers_it() {
    let mut w = World::with_subscriber();
    w.register();
    w.command("subscriber.remove", json!({ "imsi": IMSI })).unwrap();
    let (token, message) = w.requests.pop().unwrap();
    let Ok(Request::Rtr(rtr)) = Request::from_message(&message) else { panic!("{message:?}") };
    assert_eq!((rtr.impi, rtr.reason), (impi(IMSI), ReasonCode::PermanentTermination));
    assert!(!w.hss.is_quiet());
    let answer = Rta { result: ResultCode::SUCCESS }.to_message(&message);
    w.of_scscf(|scscf, ctx| scscf.answer(token, answer, ctx));
    assert!(w.hss.is_quiet());
    assert_eq!(w.mar().result, ResultCode::USER_UNKNOWN);
    assert_eq!(w.store.len(), 1, "the number of the run");
}

#[test]
fn a_change_of_identities_de_registers_and_a_change_of_services_does_not() {
    let mut w = World::with_subscriber();
    w.register();
    let change = |changes: Value| json!({ "imsi": IMSI, "changes": changes });
    w.command("subscriber.change", change(json!({ "shared_ifc_sets": [1] }))).unwrap();
    let (token, message) = w.requests.pop().unwrap();
    let Ok(Request::Ppr(ppr)) = Request::from_message(&message) else { panic!("{message:?}") };
    let pushed = xml_ifc::parse(&ppr.user_data.unwrap()).unwrap();
    assert_eq!((ppr.impi, pushed.service_profiles[0].shared_ifc_sets.as_slice()), (impi(IMSI), &[1][..]));
    assert!(!w.hss.is_quiet());
    let answer = Ppa { result: ResultCode::SUCCESS }.to_message(&message);
    w.of_scscf(|scscf, ctx| scscf.answer(token, answer, ctx));
    assert!(w.hss.is_quiet());
    w.command("subscriber.change", change(json!({ "visited_networks": [D] }))).unwrap();
    assert!(w.requests.is_empty(), "that is no matter of an S-CSCF");
    assert_eq!(w.show()["impus"][0]["state"], "registered");
    let again = Sar { data_already_available: true, ..sar(ServerAssignmentType::ReRegistration) };
    let answer = Saa::from_message(&w.ask(again.to_message())).unwrap();
    assert!(answer.user_data.is_some(), "the profile is another");
    w.command("subscriber.change", change(json!({ "msisdn": "4915187654321" }))).unwrap();
    let reason = |w: &mut World| match Request::from_message(&w.requests.pop().unwrap().1) {
        Ok(Request::Rtr(rtr)) => rtr.reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(reason(&mut w), ReasonCode::ServerChange, "its phone is to register again");
    assert_eq!(w.lir("tel:+4915112345678").result, ResultCode::USER_UNKNOWN);
    let unregistered = w.lir("tel:+4915187654321").result;
    assert_eq!(unregistered, ResultCode::UNREGISTERED_SERVICE, "what is in a shared set the S-CSCF knows");
    w.command("subscriber.change", change(json!({ "shared_ifc_sets": [] }))).unwrap();
    assert_eq!(w.lir("tel:+4915187654321").result, ResultCode::IDENTITY_NOT_REGISTERED);
    assert_eq!(seq(&w.mar()), 2, "sequence numbers go on");
    w.register();
    w.command("subscriber.change", change(json!({ "barred": true }))).unwrap();
    assert_eq!(reason(&mut w), ReasonCode::PermanentTermination);
}

/// TS 29.228 6.2.1.
#[test]
fn a_profile_that_cannot_be_pushed_comes_with_the_next_registration() {
    for (result, failed) in [(ResultCode::UNABLE_TO_COMPLY, 1), (ResultCode::USER_UNKNOWN, 0), (ResultCode::SUCCESS, 0)]
    {
        let mut w = World::with_subscriber();
        w.register();
        let changes = json!({ "imsi": IMSI, "changes": { "shared_ifc_sets": [1] } });
        w.command("subscriber.change", changes).unwrap();
        let (token, message) = w.requests.pop().unwrap();
        let answer = Ppa { result }.to_message(&message);
        w.of_scscf(|scscf, ctx| scscf.answer(token, answer, ctx));
        assert_eq!((w.refusals("ppr-failed"), w.hss.is_quiet()), (failed, true), "{result:?}");
        let again = Sar { data_already_available: true, ..sar(ServerAssignmentType::ReRegistration) };
        assert!(Saa::from_message(&w.ask(again.to_message())).unwrap().user_data.is_some());
    }
    // One that does not answer.
    let mut w = World::with_subscriber();
    w.register();
    w.command("subscriber.change", json!({ "imsi": IMSI, "changes": { "shared_ifc_sets": [1] } })).unwrap();
    w.pass(Duration::from_secs(60));
    assert_eq!((w.refusals("ppr-failed"), w.hss.is_quiet()), (1, true));
    // Nobody is registered: nobody is told.
    let mut w = World::with_subscriber();
    w.command("subscriber.change", json!({ "imsi": IMSI, "changes": { "shared_ifc_sets": [1] } })).unwrap();
    assert!(w.requests.is_empty() && w.hss.is_quiet());
}

#[test]
fn what_is_not_for_the_hss_or_malformed_is_answered_with_an_error() {
    let mut w = World::with_subscriber();
    let reason = ReasonCode::PermanentTermination;
    let rtr = Rtr { impi: impi(IMSI), impus: vec![], reason, reason_info: None };
    assert_eq!(ResultCode::from_message(&w.ask(rtr.to_message())), Ok(ResultCode::Base(3001)));
    let empty = Message::request(300, ims_diameter::cx::APPLICATION).build();
    assert_eq!(ResultCode::from_message(&w.ask(empty)), Ok(ResultCode::Base(5005)));
    assert_eq!(w.refusals("malformed"), 2);
    let twice = Sar { impus: vec![temporary(IMSI), temporary(IMSI)], ..sar(ServerAssignmentType::Registration) };
    assert_eq!(ResultCode::from_message(&w.ask(twice.to_message())), Ok(ResultCode::Base(5009)));
}

#[test]
fn keys_under_another_master_key_are_said_to_be_so() {
    let other = || Config { master_key: Some(Secret::new([8; 32])), ..config() };
    let mut w = World::with_subscriber().restarted(other());
    assert_eq!(w.mar().result, ResultCode::UNABLE_TO_COMPLY);
    assert_eq!(w.refusals("sealed-under-another-key"), 1);
    let mut w = w.restarted(Config { earlier_master_keys: vec![Secret::new([7; 32])], ..other() });
    assert_eq!(w.mar().result, ResultCode::SUCCESS);
}

#[test]
fn the_cache_is_bounded_and_may_be_off() {
    for cache in [0, 3] {
        let mut w = World::new(Config { cache, ..config() });
        for n in 1..=9 {
            w.create(&format!("00101000000000{n}"), json!({})).unwrap();
        }
        for round in 1..=2 {
            for n in 1..=9 {
                let answer = w.ask(mar(&format!("00101000000000{n}")));
                assert_eq!(seq(&Maa::from_message(&answer).unwrap()), round);
            }
        }
        assert_eq!(w.hss.snapshot()["cached"], cache);
    }
}

#[test]
fn who_is_not_asked_for_leaves_the_memory_and_comes_back_with_his_numbers() {
    let mut w = World::new(Config { cache_idle: Span::secs(5), ..config() });
    w.create(IMSI, json!({})).unwrap();
    assert_eq!(seq(&w.mar()), 1);
    w.pass(Duration::from_secs(4));
    assert_eq!((w.unwritten(), &w.hss.snapshot()["cached"]), (0, &json!(1)));
    w.mar();
    w.pass(Duration::from_secs(4));
    assert_eq!(w.hss.snapshot()["cached"], 1, "used meanwhile");
    w.pass(Duration::from_secs(6));
    assert_eq!(w.hss.snapshot()["cached"], 0);
    assert_eq!(seq(&w.mar()), 3);
}

#[test]
fn the_snapshot_counts_and_holds_no_secret() {
    let mut w = World::with_subscriber();
    w.register();
    let snapshot = w.hss.snapshot();
    assert_eq!((&snapshot["role"], &snapshot["commands"]["MAR"]), (&json!("hss"), &json!(1)));
    assert_eq!(snapshot["waiting"], 0);
    assert!(!snapshot["peers"].is_null(), "{snapshot}");
    assert!(!snapshot.to_string().contains(&K[..8]));
}
