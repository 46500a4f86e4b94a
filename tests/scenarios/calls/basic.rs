//! Calls between two registered handsets through P, S, I, S and P (TS 24.229 5.2.6, 5.3.2, 5.4.3), inside security associations.
//! The handsets look for what a strict phone would not take; no scenario here leaves them anything to say.

use ims_tests::lab::msisdn;
use ims_tests::{Lab, LabConfig, golden};
use serde_json::{Value, json};
use std::time::Duration;

/// Registered handsets; the second does as its script says.
fn lab_of(handsets: usize, config: LabConfig, called: &str) -> Lab {
    let mut lab = Lab::new(LabConfig { handsets, ..config });
    for n in 0..handsets {
        lab.register(n).unwrap();
    }
    lab.script(1, called);
    lab.world.run_for(Duration::from_secs(1));
    lab.world.trace.clear();
    lab
}

fn lab(called: &str) -> Lab {
    lab_of(2, LabConfig::default(), called)
}

/// No message is too long for a datagram.
fn short() -> LabConfig {
    let mut config = LabConfig::default();
    config.pcscf.gm.path_mtu = 9000;
    config
}

/// Everything comes to rest, nothing of a call is left anywhere, and the handsets have found nothing wrong.
fn rest(lab: &mut Lab) {
    lab.rest();
    for n in 0..lab.ues.len() {
        assert_eq!(lab.calls(n), json!([]), "handset {n}");
    }
    let sessions = &lab.world.snapshot(lab.pcscf)["sessions"];
    assert_eq!((&sessions["dialogs"], &sessions["ringing"]), (&json!(0), &json!(0)), "{sessions}");
    lab.assert_no_faults();
}

/// How the only call of each ended.
fn ends(lab: &Lab) -> [String; 2] {
    [lab.ended(0).join(" "), lab.ended(1).join(" ")]
}

fn hang_up(lab: &mut Lab, who: usize) {
    lab.world.run_for(Duration::from_secs(1));
    lab.tell(who, "hangup", Value::Null).unwrap();
    rest(lab);
}

fn media(lab: &mut Lab) -> [Value; 2] {
    lab.world.run_for(Duration::from_secs(1));
    [0, 1].map(|n| lab.calls(n)[0]["media"].clone())
}

const ANSWERS: &str = "[called]\nanswer_after = '2s'";

/// TS 24.229 5.2.6: INVITE, 180, 200, ACK, BYE, 200 by P, S, I, S and P.
#[test]
fn a_call_over_udp_and_tcp_in_ipv4_and_ipv6() {
    for (name, config) in [("udp", short()), ("tcp", LabConfig::default().with_tcp())] {
        for v6 in [false, true] {
            let mut lab = lab_of(2, LabConfig { v6, ..config.clone() }, ANSWERS);
            lab.call(0, 1).unwrap();
            lab.world.run_for(Duration::from_secs(5));
            assert_eq!(lab.calls(0)[0]["media"], lab.calls(1)[0]["media"]);
            hang_up(&mut lab, 0);
            assert_eq!(ends(&lab), ["hung-up", "hung-up-by-peer"]);
            golden(&format!("calls/{name}"), &lab.world.golden_ladder());
        }
    }
}

/// RFC 3261 18.1.1: what is too long for a datagram goes by TCP, inside the same associations; so does the rest of the leg.
#[test]
fn an_invite_too_long_for_udp() {
    let mut lab = lab(ANSWERS);
    lab.call(0, 1).unwrap();
    hang_up(&mut lab, 1);
    golden("calls/oversize", &lab.world.golden_ladder());
    // The handset minds the path as well: what is long goes by TCP, what is short by UDP.
    for v6 in [false, true] {
        let mut config = LabConfig { v6, ..LabConfig::default() };
        config.ue.udp_limit = 1100;
        let mut lab = lab_of(2, config, "[called]\nreliable = true\nearly_media = true\nanswer_after = '1s'");
        lab.call(0, 1).unwrap();
        for (who, what) in [(0, "hold"), (1, "update"), (1, "info"), (0, "resume")] {
            lab.tell(who, what, Value::Null).unwrap();
        }
        let ladder = lab.world.ladder();
        let by = |what: &str| ladder.lines().any(|l| l.contains("ue1 => pcscf") && l.contains(what));
        assert!(by("INVITE Security-Verify  tcp") && by("ACK Security-Verify  udp"), "{ladder}");
        hang_up(&mut lab, 0);
    }
}

/// RFC 3262 3, 4 and RFC 3311: PRACK and UPDATE follow the route set.
#[test]
fn reliable_ringing_with_early_media_and_updates_from_both_sides() {
    let called = "[called]\nringing = 183\nreliable = true\nearly_media = true\nanswer_after = '2s'\n\
                  steps = [{ after = '2s', do = 'update' }]";
    for config in [short(), LabConfig::default().with_tcp()] {
        let udp = config.ue.transport == ue::config::GmTransport::Udp;
        let mut lab = lab_of(2, config, called);
        lab.script(0, "[calling]\nsteps = [{ after = '1s', do = 'update' }, { after = '3s', do = 'hangup' }]");
        lab.world.trace.clear();
        lab.call(0, 1).unwrap();
        rest(&mut lab);
        assert_eq!(ends(&lab), ["hung-up", "hung-up-by-peer"]);
        if udp {
            golden("calls/prack_update", &lab.world.golden_ladder());
        }
    }
}

/// RFC 3312: preconditions are the affair of the ends, and pass as they are.
#[test]
fn preconditions() {
    for config in [short(), LabConfig::default(), LabConfig::default().with_tcp()] {
        let plain = config.pcscf.gm.path_mtu > 1500;
        let mut lab = lab_of(2, config, "[called]\npreconditions = true\nanswer_after = '1s'");
        lab.script(0, "[calling]\npreconditions = true");
        lab.world.trace.clear();
        lab.call(0, 1).unwrap();
        hang_up(&mut lab, 1);
        if plain {
            golden("calls/preconditions", &lab.world.golden_ladder());
        }
    }
}

/// RFC 3264 8.4: re-INVITE of either side.
#[test]
fn hold_resume_video_and_codec_by_either_side() {
    let mut lab = lab("[called]\nanswer_after = 0\nvideo = true");
    lab.call(0, 1).unwrap();
    for (who, what, directions) in [
        (0, "hold", ["sendonly", "recvonly"]),
        (1, "hold", ["inactive", "inactive"]),
        (0, "resume", ["recvonly", "sendonly"]),
        (1, "resume", ["sendrecv", "sendrecv"]),
    ] {
        lab.tell(who, what, Value::Null).unwrap();
        let shown = media(&mut lab);
        assert_eq!([&shown[0]["direction"], &shown[1]["direction"]], directions.map(|d| json!(d)).each_ref(), "{what}");
    }
    lab.tell(0, "video", Value::Null).unwrap();
    assert!(media(&mut lab).iter().all(|m| m["video"] == true));
    lab.tell(1, "audio", Value::Null).unwrap();
    lab.tell(0, "narrowband", Value::Null).unwrap();
    let expected = json!({ "direction": "sendrecv", "codec": "AMR/8000/1", "video": false });
    assert_eq!(media(&mut lab), [expected.clone(), expected]);
    hang_up(&mut lab, 1);
    assert_eq!(ends(&lab), ["hung-up-by-peer", "hung-up"]);
}

/// RFC 3261 14.1: 491, and both changes come about in the end.
#[test]
fn both_sides_change_the_session_at_once() {
    let mut lab = lab("[called]\nanswer_after = 0");
    lab.call(0, 1).unwrap();
    lab.world.run_for(Duration::from_secs(1));
    let asked = [0, 1].map(|n| lab.world.command(lab.ues[n], "hold", Value::Null));
    lab.world.run_for(Duration::from_secs(20));
    for id in asked {
        lab.world.reply(id).unwrap().unwrap();
    }
    assert!(media(&mut lab).iter().all(|m| m["direction"] == "inactive"));
    hang_up(&mut lab, 0);
}

/// RFC 3261 9.1: CANCEL at each moment.
#[test]
fn given_up_before_it_rings_while_it_rings_and_as_it_is_answered() {
    for (name, called, after) in [
        ("cancel_early", "[called]\nringing = 0", "100ms"),
        ("cancel_late", "", "5s"),
        // The 200 is on its way to the caller, or on its first hop.
        ("cancel_crossing", ANSWERS, "2080ms"),
        ("cancel_crossing_far", ANSWERS, "2030ms"),
    ] {
        let mut lab = lab_of(2, short(), called);
        lab.script(0, &format!("[calling]\ngive_up_after = '{after}'"));
        lab.world.trace.clear();
        let heard = lab.call(0, 1).map_err(|p| p.kind);
        rest(&mut lab);
        let [caller, called] = ends(&lab);
        assert_eq!(heard.is_ok(), name.starts_with("cancel_crossing"), "{name}: {heard:?}");
        match heard {
            Err(kind) => assert_eq!([kind, caller, called], ["cancelled"; 3]),
            Ok(_) => assert_eq!([caller, called], ["hung-up", "hung-up-by-peer"]),
        }
        if !name.ends_with("far") {
            golden(&format!("calls/{name}"), &lab.world.golden_ladder());
        }
    }
}

/// RFC 3261 21.4.18: the status of the called side reaches the caller.
#[test]
fn refused_by_the_called_side() {
    for status in [486, 480, 603, 600] {
        let mut lab = lab_of(2, short(), &format!("[called]\nreject_after = '1s'\nreject_with = {status}"));
        assert_eq!(lab.call(0, 1).unwrap_err().kind, format!("status-{status}"));
        rest(&mut lab);
        if status == 486 {
            golden("calls/busy", &lab.world.golden_ladder());
        }
    }
}

/// RFC 3261 8.1.3.4: a 3xx passes, and the caller follows it.
#[test]
fn diverted_by_the_called_side() {
    let script = format!("[called]\nringing = 0\ndivert_after = 0\ndivert_to = 'tel:{}'", msisdn(2));
    let mut lab = lab_of(3, short(), &script);
    lab.script(2, ANSWERS);
    lab.world.trace.clear();
    assert_eq!(lab.call(0, 1).unwrap()["peer"], format!("tel:{}", msisdn(2)));
    lab.tell(2, "hangup", Value::Null).unwrap();
    rest(&mut lab);
    assert_eq!(
        (lab.ended(0), lab.ended(1), lab.ended(2)),
        (vec!["hung-up-by-peer".into()], vec!["status-302".into()], vec!["hung-up".to_owned()])
    );
    golden("calls/diverted", &lab.world.golden_ladder());
}

/// TS 24.229 5.4.3.3: who is not registered, unknown, or silent.
#[test]
fn nobody_there() {
    let mut lab = lab_of(3, LabConfig::default(), "");
    lab.deregister(1).unwrap();
    assert_eq!(lab.call(0, 1).unwrap_err().kind, "status-480", "not registered");
    assert_eq!(lab.tell(0, "call", json!({ "to": "+499999" })).unwrap_err().kind, "status-404", "unknown");
    // Off without a word: the P-CSCF gets no answer.
    let off = lab.ues[2];
    lab.world.crash(off);
    assert_eq!(lab.call(0, 2).unwrap_err().kind, "status-408");
    assert_eq!(lab.ue(0)["faults"], json!({}));
}

/// RFC 3323 4.2: the called side learns no identity.
#[test]
fn an_anonymous_caller() {
    let mut lab = lab(ANSWERS);
    lab.script(0, "[calling]\nanonymous = true");
    lab.call(0, 1).unwrap();
    assert_eq!(lab.calls(1)[0]["peer"], "sip:anonymous@anonymous.invalid");
    hang_up(&mut lab, 1);
}

/// RFC 3261 13.2.1: the offer is in the 2xx, or in the reliable 18x.
#[test]
fn an_invite_without_offer() {
    for called in [ANSWERS, "[called]\nreliable = true\nanswer_after = '1s'"] {
        let mut lab = lab(called);
        lab.script(0, "[calling]\nofferless = true");
        lab.call(0, 1).unwrap();
        let shown = media(&mut lab);
        assert_eq!((&shown[0]["direction"], &shown[0]), (&json!("sendrecv"), &shown[1]));
        hang_up(&mut lab, 0);
    }
}

/// RFC 4028 7.3: 422 and refreshes pass.
#[test]
fn a_session_timer_is_the_affair_of_the_ends() {
    let mut lab = lab("[called]\nanswer_after = 0\nmin_se = 200");
    lab.script(0, "[calling]\nsession_expires = 100");
    assert_eq!(lab.call(0, 1).unwrap()["session_expires"], 200);
    lab.world.run_for(Duration::from_secs(1000));
    assert_eq!((&lab.calls(0)[0]["state"], &lab.calls(1)[0]["state"]), (&json!("up"), &json!("up")));
    assert!(lab.ue(0)["counters"]["sessions-refreshed"].as_u64() >= Some(9));
    hang_up(&mut lab, 0);
}

/// RFC 3428: MESSAGE; OPTIONS and INFO, inside and outside a call.
#[test]
fn messages_and_other_requests_inside_and_outside_a_call() {
    let mut lab = lab(ANSWERS);
    let to = json!({ "to": msisdn(1), "text": "come home" });
    assert_eq!(lab.tell(0, "message", to).unwrap()["status"], 200);
    assert_eq!(lab.ue(1)["messages"][0]["text"], "come home");
    assert_eq!(lab.tell(1, "options", json!({ "to": msisdn(0) })).unwrap()["status"], 200);
    lab.call(0, 1).unwrap();
    lab.world.run_for(Duration::from_secs(1));
    for who in [0, 1] {
        for what in ["info", "options"] {
            assert_eq!(lab.tell(who, what, Value::Null).unwrap()["status"], 200, "{what} by {who}");
        }
    }
    hang_up(&mut lab, 0);
}

/// TS 33.203 7.4: a new authentication in the middle of a call gives new associations, and the call goes on by them.
#[test]
fn new_associations_during_a_call() {
    for config in [short(), LabConfig::default(), LabConfig::default().with_tcp()] {
        let mut lab = lab_of(2, config.with_registration("reauthenticate = 'always'"), ANSWERS);
        lab.call(0, 1).unwrap();
        for _ in 0..2 {
            for n in 0..2 {
                lab.refresh(n).unwrap();
            }
            for (who, what) in [(0, "hold"), (1, "update"), (0, "resume"), (1, "info")] {
                lab.tell(who, what, Value::Null).unwrap();
            }
            lab.world.run_for(Duration::from_secs(200));
        }
        hang_up(&mut lab, 1);
        assert_eq!(ends(&lab), ["hung-up-by-peer", "hung-up"]);
    }
}

/// RFC 3264 8.4: a held call and another.
#[test]
fn a_second_call_while_the_first_is_held() {
    let mut lab = lab_of(3, LabConfig::default(), ANSWERS);
    lab.script(2, ANSWERS);
    let first = lab.call(0, 1).unwrap()["call"].clone();
    lab.tell(0, "hold", Value::Null).unwrap();
    let second = lab.call(0, 2).unwrap()["call"].clone();
    lab.tell(0, "hangup", json!({ "call": second })).unwrap();
    lab.tell(0, "resume", json!({ "call": first })).unwrap();
    lab.tell(0, "hangup", json!({ "call": first })).unwrap();
    rest(&mut lab);
    assert_eq!((lab.ended(0).len(), lab.ended(2).len()), (2, 1));
}

/// RFC 3515: handset 2 has handset 1 call handset 3, hears how it went, and leaves.
#[test]
fn a_call_is_transferred() {
    let mut lab = lab_of(3, LabConfig::default(), ANSWERS);
    lab.script(2, ANSWERS);
    lab.call(0, 1).unwrap();
    lab.world.run_for(Duration::from_secs(1));
    assert_eq!(lab.tell(1, "refer", json!({ "to": msisdn(2) })).unwrap()["status"], 200);
    lab.tell(1, "hangup", Value::Null).unwrap();
    lab.world.run_for(Duration::from_secs(1));
    assert_eq!((&lab.calls(0)[0]["state"], &lab.calls(2)[0]["state"]), (&json!("up"), &json!("up")));
    lab.tell(2, "hangup", Value::Null).unwrap();
    rest(&mut lab);
}

/// TS 24.229 5.1.1.6: who de-registers ends its calls first.
#[test]
fn a_call_ends_with_its_registration() {
    for who in [0, 1] {
        let mut lab = lab(ANSWERS);
        lab.call(0, 1).unwrap();
        lab.deregister(who).unwrap();
        lab.world.run_for(Duration::from_secs(40));
        assert_eq!(lab.ended(1 - who), ["hung-up-by-peer"]);
        lab.assert_no_faults();
    }
}

/// RFC 3261 17.1.1.2: each kind of message lost twice on the access side; the call comes about and ends all the same.
#[test]
fn lost_messages_are_repeated() {
    for lost in ["INVITE", "180", "200", "ACK", "PRACK", "BYE"] {
        let mut lab = lab_of(2, short(), "[called]\nreliable = true\nanswer_after = '1s'");
        let mut left = 2;
        lab.world.filter(move |sent| {
            let start = sent.bytes.strip_prefix(b"SIP/2.0 ").unwrap_or(sent.bytes);
            let lose = start.starts_with(lost.as_bytes()) && sent.esp && left > 0;
            left -= i32::from(lose);
            if lose { ims_tests::Verdict::Lose } else { ims_tests::Verdict::Pass }
        });
        lab.call(0, 1).unwrap_or_else(|p| panic!("{lost}: {p:?}"));
        lab.world.run_for(Duration::from_secs(30));
        hang_up(&mut lab, 0);
        assert_eq!(ends(&lab), ["hung-up", "hung-up-by-peer"], "{lost}");
    }
}
