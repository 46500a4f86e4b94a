//! Chaos: many worlds from many seeds, each with loss, duplication and reordering, and most with faults besides
//! (`faults.rs`), where handsets come, refresh and go as they like. In the end it is quiet: every handset is registered or
//! was told why not, nothing waits anywhere, and what the elements hold fits together.
//!
//! `IMSBOX_CHAOS_SEEDS=FROM-TO` runs other seeds than the 1,000 of every day; `scripts/chaos HOURS` goes on through the night.

mod calls;
mod faults;
mod garble;

use faults::{Faults, Trouble};
use ims_core::Rng;
use ims_core::config::Span;
use ims_tests::{Conditions, Lab, LabConfig, lab};
use serde_json::{Value, json};
use std::time::Duration;

const HANDSETS: usize = 6;
/// Seconds that a registration lasts.
const EXPIRES: u64 = 1800;

/// A world whose weather and habits follow from its seed.
fn weather(seed: u64) -> LabConfig {
    let mut rng = Rng::from_u64(seed ^ 0xc4a0_5000);
    let mut config = LabConfig { seed, handsets: HANDSETS, scscfs: 2, ..LabConfig::default() };
    if rng.below(3) == 0 {
        config = config.with_tcp();
    }
    let reauthenticate = if rng.below(3) == 0 { "always" } else { "never" };
    config = config.with_registration(&format!(
        "max_expires = {EXPIRES}\ndefault_expires = {EXPIRES}\nreauthenticate = '{reauthenticate}'"
    ));
    // The watchdog has its own tests; here it would be most of what happens.
    for diameter in [&mut config.icscf.diameter, &mut config.scscf.diameter, &mut config.hss.diameter] {
        diameter.watchdog = Duration::from_secs(600);
    }
    config.v6 = rng.below(4) == 0;
    config.ue.retry = (rng.below(2) == 0).then_some(Span::secs(30));
    config.ue.udp_limit = if rng.below(4) == 0 { 1300 } else { 65_000 };
    config.ue.journal = true;
    // The P-CSCF is told how its users are registered, whatever is lost of it.
    config.pcscf.subscribe_reg_event = seed.is_multiple_of(3);
    config
}

fn storm(lab: &mut Lab, rng: &mut Rng) {
    lab.world.gm = Conditions {
        latency: Duration::from_millis(10 + rng.below(40)),
        jitter: Duration::from_millis(rng.below(200)),
        loss: u16::try_from(rng.below(200)).unwrap_or(0),
        duplication: u16::try_from(rng.below(100)).unwrap_or(0),
        stragglers: u16::try_from(rng.below(100)).unwrap_or(0),
    };
    lab.world.core = Conditions {
        latency: Duration::from_millis(1),
        jitter: Duration::from_millis(1 + rng.below(5)),
        loss: u16::try_from(rng.below(30)).unwrap_or(0),
        duplication: u16::try_from(rng.below(30)).unwrap_or(0),
        stragglers: u16::try_from(rng.below(20)).unwrap_or(0),
    };
}

fn run(seed: u64) {
    let mut lab = Lab::new(weather(seed));
    let mut rng = Rng::from_u64(seed ^ 0x5707);
    let mut faults = Faults::new(Trouble::of(seed));
    storm(&mut lab, &mut rng);
    let mut asked = Vec::new();
    for _ in 0..HANDSETS * 5 {
        let number = usize::try_from(rng.below(HANDSETS as u64)).unwrap_or(0);
        let call = ["register", "register", "refresh", "deregister"][usize::try_from(rng.below(4)).unwrap_or(0)];
        asked.push((lab.ues[number], lab.world.command(lab.ues[number], call, Value::Null)));
        faults.happen(&mut lab, &mut rng);
        lab.world.run_for(Duration::from_millis(rng.below(20_000)));
    }
    faults.mend_all(&mut lab, &mut rng);
    lab.world.gm = Conditions::calm(Duration::from_millis(20));
    lab.world.core = Conditions::calm(Duration::from_millis(1));
    // Diameter peers find one another again.
    lab.world.run_for(Duration::from_secs(120));
    lab.rest();
    for (ue, id) in asked {
        let lost = faults.has_crashed(ue);
        assert!(lab.world.reply(id).is_some() || lost, "a command was never answered");
    }
    let told = |state: &Value| state["binding"].is_object() || state["state"] == "off";
    for n in 0..HANDSETS {
        assert!(told(&lab.ue(n)), "{}", lab.ue(n));
    }
    agree(&mut lab, &faults);
    every_binding_is_known_to_the_hss(&mut lab);
    all_go(&mut lab);
}

/// All of them go; whoever is still on is switched off in good order, or its registration runs out.
fn all_go(lab: &mut Lab) {
    for n in 0..HANDSETS {
        if lab.ue(n)["binding"].is_object() {
            let answer = lab.deregister(n);
            assert!(answer.is_ok() || lab.ue(n)["state"] == "off", "{answer:?}");
        }
    }
    lab.world.run_for(Duration::from_secs(2 * EXPIRES));
    for n in 0..HANDSETS {
        if lab.ue(n)["binding"].is_object() {
            lab.deregister(n).ok();
        }
    }
    lab.world.run_for(Duration::from_secs(EXPIRES + 600));
    lab.rest();
    assert_eq!(lab.registered_at_pcscf(), 0, "registrations stay at the P-CSCF");
    assert_eq!(lab.world.sa_sets(lab.pcscf), 0, "associations stay in the P-CSCF's kernel");
    for scscf in [Some(lab.scscf), lab.scscf2].into_iter().flatten() {
        let left = (lab.world.snapshot(scscf)["subscriptions"].clone(), lab.world.kept(scscf));
        assert_eq!(left, (0.into(), 0), "subscriptions or registrations stay at an S-CSCF");
    }
}

/// Calm weather: who is registered can refresh, and all elements have the same view of it.
fn agree(lab: &mut Lab, faults: &Faults) {
    for n in 0..HANDSETS {
        if !lab.ue(n)["binding"].is_object() {
            continue;
        }
        let answer = lab.refresh(n);
        if faults.has_crashed(lab.pcscf) && answer.as_ref().is_err_and(|problem| problem.kind == "timeout") {
            // The 200 that made the new set the right one was lost with the P-CSCF that sent it, and the handset stayed on
            // the old set, which has had its time (TS 33.203 7.4): it begins again.
            lab.world.clear_sas(lab.ues[n]);
            lab.rebuild(lab.ues[n]);
            let answer = lab.register(n);
            assert!(answer.is_ok(), "ue{} cannot begin again: {answer:?}", n + 1);
        } else {
            assert!(answer.is_ok(), "ue{} cannot refresh in calm weather: {answer:?}", n + 1);
        }
        lab.rest();
        let subscriber = lab.subscriber(n);
        assert!(subscriber["scscf"].is_string(), "the HSS does not know where ue{} is: {subscriber}", n + 1);
    }
    for n in 0..HANDSETS {
        let found = lab.ue(n)["faults"].clone();
        assert_eq!(found, serde_json::json!({}), "ue{}", n + 1);
    }
}

fn every_binding_is_known_to_the_hss(lab: &mut Lab) {
    let scscfs = [Some(lab.scscf), lab.scscf2];
    let listed =
        scscfs.into_iter().flatten().flat_map(|id| lab.world.snapshot(id)["registrations"].as_array().cloned());
    let registrations: Vec<Value> = listed.flatten().collect();
    for registration in registrations {
        let impi = registration["impi"].as_str().unwrap_or_default();
        let number = (0..HANDSETS).find(|n| impi == lab::impi(*n)).expect("one of ours");
        let states = lab.subscriber(number)["impus"].to_string();
        assert!(states.contains("\"state\":\"registered\""), "{registration} but at the HSS {states}");
    }
}

fn seeds() -> (u64, u64) {
    let given = std::env::var("IMSBOX_CHAOS_SEEDS").ok();
    let range = given.as_deref().and_then(|text| text.split_once('-'));
    let parsed = range.and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    parsed.unwrap_or((0, 999))
}

#[test]
fn it_ends_quiet_whatever_the_network_does() {
    let (from, to) = seeds();
    both(from, to, run);
}

/// Two threads: this machine's cores in CI. Each world is alone with its seed.
fn both(from: u64, to: u64, run: fn(u64)) {
    std::thread::scope(|scope| {
        let work = |odd: u64| move || (from..=to).filter(|s| s % 2 == odd).for_each(run);
        let both = [scope.spawn(work(0)), scope.spawn(work(1))];
        for one in both {
            if let Err(panic) = one.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
}

/// Whatever comes in, from handsets or from other elements: nothing panics, nothing waits for ever, and who comes next is served.
fn survive(seed: u64) {
    let mut config = garble::patient(weather(seed));
    config.ue.script =
        ue::Script::parse("garbage", "[called]\nanswer_after = '2s'\nreliable = true").expect("a script");
    let mut lab = Lab::new(config);
    let mut rng = Rng::from_u64(seed ^ 0x6a4b);
    lab.world.expect_garbled();
    garble::garble(&mut lab, seed);
    for _ in 0..HANDSETS * 5 {
        let number = usize::try_from(rng.below(HANDSETS as u64)).unwrap_or(0);
        let what = ["register", "refresh", "deregister", "call", "call", "call", "hold", "hangup"];
        let call = what[usize::try_from(rng.below(8)).unwrap_or(0)];
        let other = usize::try_from(rng.below(HANDSETS as u64)).unwrap_or(0);
        lab.world.command(lab.ues[number], call, json!({ "to": lab::msisdn(other) }));
        lab.world.run_for(Duration::from_millis(rng.below(20_000)));
    }
    lab.world.no_filter();
    for n in 0..HANDSETS {
        lab.world.clear_sas(lab.ues[n]);
        lab.rebuild(lab.ues[n]);
    }
    lab.world.run_for(Duration::from_secs(EXPIRES + 600));
    lab.rest();
    // A changed 200 may grant more than the S-CSCF did: that one stays, and no more.
    assert!(lab.registered_at_pcscf() <= HANDSETS, "registrations stay at the P-CSCF");
    for n in 0..HANDSETS {
        let answer = lab.register(n);
        assert!(answer.is_ok(), "ue{} is not served any more: {answer:?}", n + 1);
    }
}

#[test]
fn garbage_breaks_nothing() {
    let (from, to) = seeds();
    both(from, from + (to - from) / 4, survive);
}

/// The same seed gives the same trace.
#[test]
fn a_world_can_be_replayed() {
    let trace = || {
        let mut lab = Lab::new(weather(7));
        let mut rng = Rng::from_u64(7);
        storm(&mut lab, &mut rng);
        for n in 0..HANDSETS {
            lab.world.command(lab.ues[n], "register", Value::Null);
        }
        lab.world.run_for(Duration::from_secs(300));
        lab.world.ladder()
    };
    let (one, two) = (trace(), trace());
    assert!(one.len() > 1000 && one == two);
}
