//! A P-CSCF that is killed and starts again: registered handsets stay registered, whoever was about to be comes again.

use ims_core::config::Span;
use ims_tests::{Lab, LabConfig, What};
use std::time::Duration;

fn lab(change: impl FnOnce(&mut LabConfig)) -> Lab {
    let mut config = LabConfig::default();
    config.ue.retry = Some(Span::secs(30));
    change(&mut config);
    Lab::new(config)
}

fn packets(lab: &Lab) -> usize {
    lab.world.trace.iter().filter(|e| matches!(e.what, What::Sip { .. })).count()
}

/// Gives a handset a command, and kills the P-CSCF when so many SIP packets have been sent since; it is back after 2 s.
/// Says whether that many were sent at all.
fn kill_at(lab: &mut Lab, call: &str, packet: usize) -> bool {
    let before = packets(lab);
    let id = lab.world.command(lab.ues[0], call, serde_json::Value::Null);
    let mut killed = false;
    while lab.world.reply(id).is_none() {
        if !killed && packets(lab) - before >= packet {
            killed = true;
            lab.world.crash(lab.pcscf);
            lab.world.run_for(Duration::from_secs(2));
            lab.rebuild(lab.pcscf);
        }
        lab.world.step();
    }
    killed
}

/// One registration everywhere, over one set, and nothing left over.
fn assert_one(lab: &mut Lab, when: &str) {
    lab.world.run_for(Duration::from_secs(300));
    lab.rest();
    assert_eq!(lab.ue(0)["state"], "registered", "{when}");
    assert_eq!((lab.registered_at_pcscf(), lab.registered_at_scscf()), (1, 1), "{when}");
    assert_eq!((lab.world.sa_sets(lab.pcscf), lab.world.kept(lab.pcscf)), (1, 1), "{when}");
}

#[test]
fn killed_at_any_packet_of_an_attach_the_handset_is_registered_in_the_end() {
    for tcp in [false, true] {
        let mut packet = 0;
        loop {
            let mut lab = lab(|c| c.ue.transport = if tcp { ue::config::GmTransport::Tcp } else { c.ue.transport });
            if !kill_at(&mut lab, "register", packet) {
                break;
            }
            assert_one(&mut lab, &format!("killed at packet {packet} of the attach, tcp {tcp}"));
            packet += 1;
        }
        assert!(packet >= 12, "an attach takes more packets than {packet}");
    }
}

#[test]
fn killed_at_any_packet_of_a_reauthentication_the_handset_stays_registered() {
    let mut packet = 0;
    loop {
        let mut lab = lab(|c| *c = c.clone().with_registration("reauthenticate = 'always'"));
        lab.register(0).unwrap();
        lab.rest();
        if !kill_at(&mut lab, "refresh", packet) {
            break;
        }
        assert_one(&mut lab, &format!("killed at packet {packet} of the re-authentication"));
        packet += 1;
    }
    assert!(packet >= 12, "a re-authentication takes more packets than {packet}");
}

#[test]
fn killed_at_any_packet_of_a_refresh_the_old_set_serves_on() {
    let mut packet = 0;
    loop {
        let mut lab = lab(|_| {});
        lab.register(0).unwrap();
        lab.rest();
        let spi = lab.ue(0)["sets"][0]["spi_ps"].clone();
        if !kill_at(&mut lab, "refresh", packet) {
            break;
        }
        assert_one(&mut lab, &format!("killed at packet {packet} of the refresh"));
        // Later the S-CSCF has seen this CSeq, and the handset may have to begin anew (RFC 3261 10.3).
        if packet <= 1 {
            assert_eq!(lab.ue(0)["sets"][0]["spi_ps"], spi, "no new authentication was needed");
        }
        packet += 1;
    }
    assert!(packet >= 5, "a refresh takes more packets than {packet}");
}

#[test]
fn killed_at_any_packet_of_a_deregistration_nothing_is_left() {
    let mut packet = 0;
    loop {
        let mut lab = lab(|_| {});
        lab.register(0).unwrap();
        lab.rest();
        if !kill_at(&mut lab, "deregister", packet) {
            break;
        }
        lab.world.run_for(Duration::from_secs(300));
        lab.rest();
        let when = format!("killed at packet {packet} of the de-registration");
        assert_ne!(lab.ue(0)["state"], "registered", "{when}");
        assert_eq!((lab.registered_at_pcscf(), lab.world.kept(lab.pcscf)), (0, 0), "{when}");
        assert_eq!(lab.world.sa_sets(lab.pcscf), 0, "{when}");
        packet += 1;
    }
    assert!(packet >= 5, "a de-registration takes more packets than {packet}");
}

/// Twenty handsets, both transports: none of them notices, all refresh over the sets that they have.
#[test]
fn handsets_do_not_notice_that_the_pcscf_was_away() {
    for tcp in [false, true] {
        let mut lab = lab(|c| {
            c.handsets = 20;
            c.ue.transport = if tcp { ue::config::GmTransport::Tcp } else { c.ue.transport };
        });
        for n in 0..20 {
            lab.register(n).unwrap();
        }
        lab.rest();
        lab.world.crash(lab.pcscf);
        lab.world.run_for(Duration::from_secs(20));
        lab.rebuild(lab.pcscf);
        lab.world.run_for(Duration::from_secs(1));
        assert_eq!((lab.registered_at_pcscf(), lab.world.sa_sets(lab.pcscf)), (20, 20));
        assert_eq!(lab.refusals(lab.pcscf, "sa-stray-removed"), 0);
        lab.world.trace.clear();
        for n in 0..20 {
            lab.refresh(n).unwrap();
        }
        lab.rest();
        assert!(!crate::support::statuses_to_handsets(&lab).contains(&401), "nobody is challenged");
        for n in 0..20 {
            lab.deregister(n).unwrap();
        }
        lab.world.run_for(Duration::from_secs(200));
        lab.rest();
        lab.assert_no_faults();
        assert_eq!((lab.registered_at_pcscf(), lab.world.sa_sets(lab.pcscf), lab.world.kept(lab.pcscf)), (0, 0, 0));
    }
}

/// Killed between the 401 and the protected REGISTER: the set belongs to nobody, and does not stay.
#[test]
fn a_set_that_was_only_proposed_is_removed_at_the_next_start() {
    let mut lab = lab(|c| c.ue.retry = None);
    let id = lab.world.command(lab.ues[0], "register", serde_json::Value::Null);
    while lab.world.sa_sets(lab.pcscf) == 0 {
        lab.world.step();
    }
    lab.world.crash(lab.pcscf);
    assert_eq!(lab.world.sa_sets(lab.pcscf), 1);
    lab.rebuild(lab.pcscf);
    lab.world.run_for(Duration::from_secs(1));
    assert_eq!((lab.world.sa_sets(lab.pcscf), lab.refusals(lab.pcscf, "sa-stray-removed")), (0, 4));
    lab.rest();
    lab.world.run_for(Duration::from_secs(600));
    assert!(lab.world.reply(id).is_some(), "silence came to an end");
    if lab.ue(0)["state"] != "registered" {
        lab.register(0).unwrap();
    }
    assert_one(&mut lab, "after the second attempt");
}

/// The machine started again, not only the program.
#[test]
fn after_a_reboot_registrations_without_sets_are_dropped_and_told() {
    let mut lab = lab(|c| c.handsets = 3);
    for n in 0..3 {
        lab.register(n).unwrap();
    }
    lab.world.crash(lab.pcscf);
    lab.world.clear_sas(lab.pcscf);
    lab.rebuild(lab.pcscf);
    lab.world.run_for(Duration::from_secs(1));
    assert_eq!((lab.registered_at_pcscf(), lab.world.kept(lab.pcscf)), (0, 0));
    assert_eq!(lab.refusals(lab.pcscf, "registration-without-sa"), 3);
    // Handsets find out at their next refresh, and come back.
    lab.world.run_for(Duration::from_secs(7200 + 600));
    lab.rest();
    assert_eq!((lab.registered_at_pcscf(), lab.world.sa_sets(lab.pcscf)), (3, 3));
}

/// Somebody damaged what was kept.
#[test]
fn a_damaged_entry_costs_its_own_handset_only() {
    let mut lab = lab(|c| c.handsets = 2);
    lab.register(0).unwrap();
    lab.register(1).unwrap();
    lab.world.crash(lab.pcscf);
    if let Some(entry) = lab.world.kept_mut(lab.pcscf).values_mut().next() {
        *entry = entry.slice(..entry.len() / 2);
    }
    lab.rebuild(lab.pcscf);
    lab.world.run_for(Duration::from_secs(1));
    assert_eq!((lab.refusals(lab.pcscf, "kept-damaged"), lab.registered_at_pcscf()), (1, 1));
    assert_eq!((lab.world.sa_sets(lab.pcscf), lab.world.kept(lab.pcscf)), (1, 1), "its set belongs to nobody now");
    lab.refresh(1).unwrap();
}

/// A P-CSCF that is killed at any packet of a call: in the end nobody is in a call whose other end is not, and nothing waits anywhere.
#[test]
fn killed_at_any_packet_of_a_call_no_half_of_it_stays() {
    let mut up = 0;
    for packet in 0..200 {
        let mut config = LabConfig { handsets: 2, ..LabConfig::default() };
        config.ue.retry = Some(Span::secs(30));
        let mut lab = Lab::new(config);
        (0..2).for_each(|n| drop(lab.register(n).unwrap()));
        lab.script(0, "[calling]\ngive_up_after = '20s'\nreliable = true\nsteps = [{ after = '5s', do = 'hold' }]");
        lab.script(1, "[called]\nreliable = true\nanswer_after = '2s'");
        lab.rest();
        let before = packets(&lab);
        lab.dial(0, &ims_tests::lab::msisdn(1));
        let end = lab.world.now + Duration::from_secs(20);
        let mut killed = false;
        while lab.world.now < end {
            if !killed && packets(&lab) - before >= packet {
                killed = true;
                lab.world.crash(lab.pcscf);
                lab.world.run_for(Duration::from_secs(2));
                lab.rebuild(lab.pcscf);
            }
            lab.world.step();
        }
        lab.world.run_for(Duration::from_secs(400));
        let calls = |lab: &Lab, n| lab.calls(n).as_array().map_or(0, Vec::len);
        assert_eq!(calls(&lab, 0), calls(&lab, 1), "killed at packet {packet}\n{}", lab.world.ladder());
        if calls(&lab, 0) > 0 {
            up += 1;
            lab.tell(1, "hangup", serde_json::Value::Null).unwrap();
        }
        lab.rest();
        assert_eq!((calls(&lab, 0), calls(&lab, 1)), (0, 0), "killed at packet {packet}");
        let sessions = &lab.world.snapshot(lab.pcscf)["sessions"];
        assert_eq!((&sessions["answered"], &sessions["ringing"]), (&0.into(), &0.into()), "killed at packet {packet}");
        if !killed {
            assert!(packet > 40, "a call takes more packets than {packet}");
            assert!(up > 3, "{up} calls outlasted it");
            return;
        }
    }
}
