//! What is written behind the answer: no sequence number comes twice, nothing is overwritten, and what is lost in a crash does no
//! harm.

use crate::world::*;
use hss::Config;
use ims_aka::{Algorithm, Challenge, Sqn, Usim};
use ims_core::config::Span;
use ims_core::store::StoreRequest;
use ims_core::{Event, Node, Secret};
use ims_diameter::cx::{AuthItem, Maa, Mar, ResultCode, Saa, ServerAssignmentType as Kind};
use serde_json::{Value, json};
use std::time::Duration;

const WINDOW: u64 = 32;

fn last_seq(w: &mut World) -> u64 {
    seq(&Maa::from_message(&w.answers.pop().expect("an answer")).unwrap())
}

fn seq_in(state: &Value) -> u64 {
    Sqn(state["sqn"][format!("{IMSI}@{D}")].as_u64().unwrap_or(0)).seq()
}

/// In memory, so that no request has to wait for the disk to be read.
fn loaded() -> World {
    let mut w = World::with_subscriber();
    w.show();
    w.disk = Disk::Slow;
    w
}

#[test]
fn an_mar_does_not_wait_for_the_disk_and_is_on_it_soon() {
    let mut w = loaded();
    w.send(mar(IMSI));
    assert_eq!((last_seq(&mut w), w.queue.len(), w.unwritten()), (1, 0, 1));
    assert_eq!(w.uar(impi(IMSI), temporary(IMSI)).server_name.as_deref(), Some(S1));
    w.pass(Duration::from_millis(900));
    w.send(mar(IMSI));
    assert_eq!((last_seq(&mut w), w.queue.len()), (2, 0));
    w.pass(Duration::from_millis(100));
    assert!(matches!(w.queue[0].1, StoreRequest::Commit { .. }), "one for both");
    assert_eq!((w.queue.len(), w.unwritten()), (1, 0));
    w.send(mar(IMSI));
    assert_eq!(last_seq(&mut w), 3, "nor for a write that is under way");
    w.work_off();
    assert_eq!(seq_in(&w.stored().1), 2);
    w.disk = Disk::Works;
    w.rest();
    assert_eq!(seq_in(&w.stored().1), 3);
    assert!(w.hss.is_quiet());
}

#[test]
fn without_write_behind_the_answer_leaves_only_when_its_sqn_is_on_disk() {
    let mut w = World::new(Config { write_behind: Span::secs(0), ..config() });
    w.create(IMSI, json!({})).unwrap();
    w.disk = Disk::Slow;
    w.send(mar(IMSI));
    w.work_one();
    assert!(matches!(w.queue[0].1, StoreRequest::Commit { .. }));
    assert!(w.answers.is_empty(), "not before the commit");
    w.work_off();
    assert_eq!(last_seq(&mut w), 1);
}

#[test]
fn whoever_uses_up_the_window_waits_for_the_disk() {
    let mut w = loaded();
    for n in 1..=WINDOW {
        w.send(mar(IMSI));
        assert_eq!(last_seq(&mut w), n);
    }
    assert_eq!(w.queue.len(), 1, "written from the half of it on");
    w.send(mar(IMSI));
    assert!(w.answers.is_empty());
    w.work_one();
    assert_eq!(last_seq(&mut w), WINDOW + 1);
    w.disk = Disk::Works;
    w.work_off();
    w.rest();
    assert_eq!(seq_in(&w.stored().1), WINDOW + 1);
}

#[test]
fn no_sqn_is_handed_out_twice_however_the_hss_dies() {
    for marked in 0..40 {
        let mut w = World::with_subscriber();
        let mut last = 0;
        for (round, done) in [true, false, true, false].into_iter().enumerate() {
            for n in 0..(marked + 7 * round) % 40 {
                w.disk = if n > marked / 2 { Disk::Slow } else { Disk::Works };
                w.send(mar(IMSI));
                for next in w.answers.drain(..).map(|m| seq(&Maa::from_message(&m).unwrap())) {
                    assert!(next > last, "{next} after {last}");
                    last = next;
                }
                w.pass(Duration::from_millis(if n == marked / 3 { 1100 } else { 10 }));
            }
            w.crash(done);
        }
        assert!(seq(&w.mar()) > last);
    }
}

/// TS 29.228 6.1.2: the SAR names the S-CSCF itself.
#[test]
fn what_a_crash_takes_between_mar_and_sar_does_no_harm() {
    let mut w = World::with_subscriber();
    assert_eq!(seq(&w.mar()), 1);
    w.crash(false);
    let again = w.uar(impi(IMSI), temporary(IMSI));
    assert_eq!((again.result, again.server_name), (ResultCode::FIRST_REGISTRATION, None), "the I-CSCF chooses anew");
    assert_eq!(w.sar(Kind::Registration).result, ResultCode::SUCCESS);
    w.crash(false);
    assert_eq!(w.uar(impi(IMSI), temporary(IMSI)).server_name.as_deref(), Some(S1), "the SAR was on disk");
    assert_eq!(seq(&w.mar()), 2 * WINDOW + 1, "the numbers go on beyond the window of the run that died");
}

#[test]
fn a_resynchronisation_goes_on_after_a_crash() {
    let mut w = World::with_subscriber();
    let maa = w.mar();
    let [AuthItem::Aka { rand, autn, .. }] = maa.items.as_slice() else { panic!() };
    let algorithm = Algorithm::milenage(Secret::from_hex(K).unwrap(), Secret::from_hex(OPC).unwrap());
    let mut usim = Usim::with_sqn(algorithm, Sqn::new(5000, 0));
    let Challenge::SyncFailure { auts } = usim.authenticate(rand, autn) else { panic!() };
    w.crash(false);
    let resync = Mar { authorization: Some([&rand[..], &auts].concat()), ..mar_of(IMSI) };
    w.disk = Disk::Slow;
    w.send(resync.to_message());
    w.work_one();
    assert!(w.answers.is_empty(), "a jump is on disk before it is answered");
    w.work_off();
    let maa = Maa::from_message(&w.answers.pop().unwrap()).unwrap();
    let [AuthItem::Aka { rand, autn, .. }] = maa.items.as_slice() else { panic!("{maa:?}") };
    assert!(matches!(usim.authenticate(rand, autn), Challenge::Accepted { .. }));
}

#[test]
fn a_sar_is_on_disk_before_its_answer_and_has_all_that_was_not_written() {
    let mut w = loaded();
    w.send(mar(IMSI));
    w.answers.clear();
    w.send(sar(Kind::Registration).to_message());
    assert!(w.answers.is_empty());
    w.work_off();
    assert_eq!(Saa::from_message(&w.answers.pop().unwrap()).unwrap().result, ResultCode::SUCCESS);
    let (record, state) = w.stored();
    assert_eq!((record.version, seq_in(&state), &state["assigned"]["name"]), (2, 1, &json!(S1)));
    assert_eq!(w.unwritten(), 0, "there is nothing left to write");
    w.pass(Duration::from_secs(2));
    assert!(w.queue.is_empty());
}

/// What the SAR of a registration that goes on at the same S-CSCF says is on disk already.
#[test]
fn a_registration_that_goes_on_does_not_wait_for_the_disk() {
    let mut w = loaded();
    w.disk = Disk::Works;
    w.register();
    w.disk = Disk::Slow;
    for n in 2..10 {
        w.send(mar(IMSI));
        assert_eq!(last_seq(&mut w), n);
        w.send(sar(Kind::ReRegistration).to_message());
        assert_eq!(Saa::from_message(&w.answers.pop().unwrap()).unwrap().result, ResultCode::SUCCESS);
    }
    w.send(sar(Kind::ReRegistration).to_message());
    assert!(w.queue.is_empty() && w.answers.len() == 1, "and without a challenge there is nothing to write");
}

#[test]
fn a_sar_waits_for_a_write_that_is_under_way() {
    let mut w = loaded();
    w.send(mar(IMSI));
    w.pass(Duration::from_secs(1));
    w.answers.clear();
    w.send(sar(Kind::Registration).to_message());
    assert_eq!((w.queue.len(), w.answers.len()), (1, 0));
    w.work_one();
    assert_eq!((w.queue.len(), w.answers.len()), (1, 0));
    w.work_one();
    assert_eq!(w.answers.len(), 1);
    assert!(w.hss.is_quiet());
}

#[test]
fn a_change_from_elsewhere_is_noticed_and_neither_is_lost() {
    let mut w = World::with_subscriber();
    w.mar();
    w.change_stored(|state| state["downloaded"] = json!(77));
    w.rest();
    let (_, state) = w.stored();
    assert_eq!((seq_in(&state), &state["downloaded"]), (1, &json!(77)));
    assert!(state["pending"].is_object());
    w.mar();
    w.change_stored(|state| state["sqn"][format!("{IMSI}@{D}")] = json!(32 * 500));
    w.rest();
    assert_eq!(seq(&w.mar()), 501);
    w.change_stored(|state| state["downloaded"] = json!(78));
    assert_eq!(w.sar(Kind::Registration).result, ResultCode::SUCCESS, "the request starts again");
    assert_eq!(seq_in(&w.stored().1), 501);
    assert!(w.hss.is_quiet());
}

#[test]
fn what_was_removed_stays_removed() {
    let mut w = World::with_subscriber();
    w.mar();
    let (record, _) = w.stored();
    w.store.perform(StoreRequest::Remove { id: record.id, version: record.version }).unwrap();
    w.rest();
    assert_eq!((w.store.len(), &w.hss.snapshot()["cached"]), (1, &json!(0)));
    assert_eq!(w.mar().result, ResultCode::USER_UNKNOWN);
    let mut w = World::with_subscriber();
    w.mar();
    w.command("subscriber.remove", json!({ "imsi": IMSI })).unwrap();
    w.rest();
    assert_eq!(w.store.len(), 1);
}

#[test]
fn a_command_sees_what_is_not_written_and_does_not_undo_it() {
    let mut w = World::with_subscriber();
    w.mar();
    let shown = w.show()["private_identities"][0]["sqn"].clone();
    assert_eq!(shown, json!("000000000024"));
    let listed = w.command("subscriber.list", json!({})).unwrap();
    assert_eq!(listed["subscribers"].as_array().map(Vec::len), Some(1), "the run is no subscriber");
    assert_eq!(listed["subscribers"][0]["private_identities"][0]["sqn"], shown);
    w.command("subscriber.change", json!({ "imsi": IMSI, "changes": { "shared_ifc_sets": [1] } })).unwrap();
    assert_eq!((seq_in(&w.stored().1), w.unwritten()), (1, 0));
    w.crash(false);
    let listed = w.command("subscriber.list", json!({})).unwrap();
    assert_eq!(listed["subscribers"][0]["private_identities"][0]["sqn"], json!("000000000424"), "a bound");
}

#[test]
fn a_store_that_fails_is_tried_again_and_no_number_is_lost() {
    let mut w = loaded();
    w.disk = Disk::Down;
    assert_eq!(seq(&w.mar()), 1);
    for _ in 0..10 {
        w.pass(Duration::from_secs(1));
    }
    assert!((4..9).contains(&w.refusals("write-behind")), "{}", w.refusals("write-behind"));
    for n in 2..=WINDOW {
        assert_eq!(seq(&w.mar()), n);
    }
    assert_eq!(w.mar().result, ResultCode::UNABLE_TO_COMPLY, "the window is used up");
    assert_eq!((w.refusals("store-unavailable"), w.unwritten()), (1, 1));
    w.disk = Disk::Works;
    assert_eq!(seq(&w.mar()), WINDOW + 1);
    w.pass(Duration::from_secs(31));
    w.rest();
    assert_eq!(seq_in(&w.stored().1), WINDOW + 1);
    assert!(w.hss.is_quiet());
}

#[test]
fn a_write_that_is_not_answered_is_made_again() {
    let mut w = loaded();
    w.send(mar(IMSI));
    w.pass(Duration::from_secs(1));
    let (_, lost) = w.queue.pop_front().unwrap();
    // It was made all the same.
    w.store.perform(lost).unwrap();
    w.disk = Disk::Works;
    w.pass(Duration::from_secs(3));
    assert_eq!(w.refusals("write-behind"), 1);
    w.send(mar(IMSI));
    w.pass(Duration::from_secs(1));
    w.rest();
    assert_eq!(seq_in(&w.stored().1), 2);
}

#[test]
fn nothing_is_read_before_the_run_is_counted() {
    let mut w = World::with_subscriber().restarted_on(config(), Disk::Slow);
    w.send(mar(IMSI));
    assert_eq!((w.queue.len(), w.answers.len()), (1, 0));
    w.work_off();
    assert_eq!(last_seq(&mut w), WINDOW + 1);
    let mut w = w.restarted_on(config(), Disk::Down);
    w.send(mar(IMSI));
    w.pass(Duration::from_secs(4));
    let answer = Maa::from_message(&w.answers.pop().unwrap()).unwrap();
    assert_eq!((answer.result, w.refusals("store-unavailable")), (ResultCode::UNABLE_TO_COMPLY, 1));
    w.disk = Disk::Works;
    w.pass(Duration::from_secs(31));
    assert!(seq(&w.mar()) > WINDOW + 1);
}

#[test]
fn in_the_end_all_is_written() {
    let mut w = World::new(config());
    for n in 1..=9 {
        w.create(&format!("00101000000000{n}"), json!({})).unwrap();
        w.ask(mar(&format!("00101000000000{n}")));
    }
    assert_eq!(w.unwritten(), 9);
    w.give(Event::Stop);
    assert_eq!(w.unwritten(), 0);
    let mut w = w.restarted(config());
    assert_eq!(w.uar(impi(IMSI), temporary(IMSI)).server_name.as_deref(), Some(S1));
}

#[test]
fn the_memory_is_never_full_of_what_is_not_written() {
    let mut w = World::new(Config { cache: 8, ..config() });
    for n in 1..=9 {
        w.create(&format!("00101000000000{n}"), json!({})).unwrap();
    }
    for n in 1..=9 {
        let answer = w.ask(mar(&format!("00101000000000{n}")));
        assert_eq!(seq(&Maa::from_message(&answer).unwrap()), 1);
        assert!(w.unwritten() <= 4, "half of it");
    }
    assert_eq!(w.hss.snapshot()["cached"], 8);
}
