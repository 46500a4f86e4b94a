//! Calls in the chaos: handsets call one another, hang up, hold and go as they like, in all weathers. When it is quiet, both ends
//! of every call say the same of it, and when all have hung up, nothing is left of any.

use super::{HANDSETS, all_go, both, seeds, storm, weather};
use crate::faults::{Faults, Trouble};
use ims_core::Rng;
use ims_tests::lab::msisdn;
use ims_tests::{Conditions, Lab};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// What a handset does when it is called: short session intervals, so that the ends notice when the other has gone.
fn habit(rng: &mut Rng) -> String {
    let called = match rng.below(8) {
        0 => "reject_after = '500ms'".to_owned(),
        1 => format!(
            "divert_after = 0\ndivert_to = 'tel:{}'",
            msisdn(usize::try_from(rng.below(HANDSETS as u64)).unwrap_or(0))
        ),
        2 => String::new(),
        _ => format!("answer_after = '{}ms'", rng.below(8_000)),
    };
    let (reliable, early, ringing) = (rng.below(2) == 0, rng.below(3) == 0, [180, 183, 0][rng.below(3) as usize]);
    let (offerless, give_up) = (rng.below(5) == 0, 1 + rng.below(120));
    let (asks, knows) = (!offerless && rng.below(2) == 0, rng.below(2) == 0);
    format!(
        "[calling]\nsession_expires = 90\npreconditions = {asks}\nofferless = {offerless}\ngive_up_after = '{give_up}s'\n\
         [called]\npreconditions = {knows}\nreliable = {reliable}\nearly_media = {early}\nringing = {ringing}\n{called}\n"
    )
}

fn act(lab: &mut Lab, rng: &mut Rng) {
    let number = usize::try_from(rng.below(HANDSETS as u64)).unwrap_or(0);
    let other = usize::try_from(rng.below(HANDSETS as u64)).unwrap_or(0);
    let (call, args) = match rng.below(20) {
        0..=8 => ("call", json!({ "to": msisdn(other) })),
        9 | 10 => ("hangup", Value::Null),
        11 => ("hold", Value::Null),
        12 => ("resume", Value::Null),
        13 => ("update", Value::Null),
        14 => ("answer", Value::Null),
        15 => ("message", json!({ "to": msisdn(other), "text": "hello" })),
        16 => ("refresh", Value::Null),
        17 => ("script", json!({ "script": habit(rng) })),
        18 => ("register", Value::Null),
        _ => ("deregister", Value::Null),
    };
    lab.world.command(lab.ues[number], call, args);
}

fn run(seed: u64) {
    let mut lab = Lab::new(weather(seed));
    let mut rng = Rng::from_u64(seed ^ 0x0ca1_1000);
    let mut faults = Faults::new(Trouble::of(seed));
    for n in 0..HANDSETS {
        lab.register(n).expect("calm weather");
        let script = habit(&mut rng);
        lab.script(n, &script);
    }
    storm(&mut lab, &mut rng);
    for _ in 0..40 {
        act(&mut lab, &mut rng);
        faults.happen(&mut lab, &mut rng);
        lab.world.run_for(Duration::from_millis(rng.below(10_000)));
    }
    faults.mend_all(&mut lab, &mut rng);
    lab.world.gm = Conditions::calm(Duration::from_millis(20));
    lab.world.core = Conditions::calm(Duration::from_millis(1));
    // Diameter peers find one another, what rings is given up, and who has lost the other side hears nothing of its refreshes.
    lab.world.run_for(Duration::from_secs(900));
    both_ends_agree(&lab);
    for n in 0..HANDSETS {
        hang_up_all(&mut lab, n);
    }
    lab.world.run_for(Duration::from_secs(200));
    lab.rest();
    for n in 0..HANDSETS {
        let ue = lab.ue(n);
        assert_eq!((&ue["calls"], &ue["faults"]), (&json!([]), &json!({})), "ue{}", n + 1);
    }
    all_go(&mut lab);
    let sessions = &lab.world.snapshot(lab.pcscf)["sessions"];
    assert_eq!((&sessions["dialogs"], &sessions["ringing"]), (&json!(0), &json!(0)), "dialogs stay at the P-CSCF");
}

/// Every call that is up has two ends, and they have agreed on the same.
fn both_ends_agree(lab: &Lab) {
    let mut ends: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for n in 0..HANDSETS {
        for call in lab.calls(n).as_array().into_iter().flatten() {
            let id = call["call_id"].as_str().unwrap_or_default().to_owned();
            ends.entry(id).or_default().push(call.clone());
        }
    }
    for (id, ends) in ends {
        let [one, two] = ends.as_slice() else { panic!("{id} has not two ends: {ends:?}") };
        assert_eq!((&one["state"], &two["state"]), (&json!("up"), &json!("up")), "{id}");
        let mirrored = |direction: &Value| match direction.as_str() {
            Some("sendonly") => "recvonly".to_owned(),
            Some("recvonly") => "sendonly".to_owned(),
            other => other.unwrap_or_default().to_owned(),
        };
        let (a, b) = (&one["media"], &two["media"]);
        assert_eq!(
            (&a["codec"], &a["video"], mirrored(&a["direction"])),
            (&b["codec"], &b["video"], b["direction"].as_str().unwrap_or_default().to_owned()),
            "{id}: {ends:?}"
        );
    }
}

fn hang_up_all(lab: &mut Lab, n: usize) {
    for call in lab.calls(n).as_array().cloned().unwrap_or_default() {
        lab.tell(n, "hangup", json!({ "call": call["call"] })).ok();
    }
}

#[test]
fn no_call_is_half_torn_down() {
    let (from, to) = seeds();
    both(from, from + (to - from) / 8, run);
}
