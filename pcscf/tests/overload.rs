//! When registrations come faster than they can be served: new ones are refused early, what is under way goes on.

mod common;

use common::{Bench, Handset};
use ims_core::Node;
use ims_sip::Name;
use std::time::Duration;

/// Events have waited too long for half a second: there is a queue, not a burst.
fn press(bench: &mut Bench) {
    for _ in 0..50 {
        bench.now = bench.now + Duration::from_millis(10);
        bench.node.waited(Duration::from_millis(400), bench.now);
    }
}

fn newcomer(n: u32) -> Handset {
    let ip = format!("198.51.100.{}", 100 + n).parse().unwrap();
    Handset { imsi: format!("0010100000009{n:02}"), call: format!("new-{n}"), ip, ..Handset::udp4() }
}

#[test]
fn new_registrations_are_refused_with_retry_after_and_what_is_under_way_goes_on() {
    let mut bench = Bench::with(|c| c.overload.least_rate = 1);
    let mut attached = Handset::udp4();
    attached.attach(&mut bench, 3600);
    let mut challenged = newcomer(50);
    let proposed = challenged.get_challenged(&mut bench);
    (challenged.set, challenged.nonce) = (Some(proposed), "bm9uY2U=".into());
    press(&mut bench);
    let transactions = |b: &Bench| b.node.snapshot()["sip"]["transactions"]["server"].as_u64().unwrap();
    let before = transactions(&bench);
    let mut waits = Vec::new();
    for n in 0..20 {
        let out = newcomer(n).hello(&mut bench);
        if out.core.is_empty() {
            let (_, refused) = out.answered();
            assert_eq!(refused.status(), 503);
            waits.push(refused.text(Name::RetryAfter).unwrap().parse::<u32>().unwrap());
        }
    }
    assert!(waits.len() >= 18, "one a second is let in: {waits:?}");
    assert!(waits.iter().all(|s| (5..=30).contains(s)) && waits.iter().any(|s| *s != waits[0]), "{waits:?}");
    assert_eq!(bench.refused("overload"), waits.len() as u64);
    assert_eq!(transactions(&bench) - before, 20 - waits.len() as u64, "no transaction for what is refused");
    attached.protected(&mut bench, 3600).forwarded();
    attached.protected(&mut bench, 0).forwarded();
    challenged.protected(&mut bench, 3600).forwarded();
    bench.pass(10);
    newcomer(70).hello(&mut bench).forwarded();
}

#[test]
fn a_repeated_register_that_was_let_in_is_not_refused() {
    let mut bench = Bench::with(|c| c.overload.least_rate = 1);
    let mut early = newcomer(1);
    let text = early.register(3600, &early.sec_agree());
    assert_eq!(bench.packet(early.clear_flow(), &text).core.len(), 1);
    press(&mut bench);
    for _ in 0..5 {
        assert!(bench.packet(early.clear_flow(), &text).is_silent(), "it waits for its answer");
    }
}

#[test]
fn without_the_setting_everybody_is_let_in() {
    let mut bench = Bench::with(|c| c.overload.enabled = false);
    press(&mut bench);
    for n in 0..20 {
        newcomer(n).hello(&mut bench).forwarded();
    }
}
