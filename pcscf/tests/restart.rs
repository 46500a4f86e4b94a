//! What outlasts the process, and the kernel's table compared with ours.

mod common;

use bytes::Bytes;
use common::{Bench, Handset, Out, four_ways};
use ims_core::sa::{SaAudit, SaError, SaExpiry, SaSet, SaUsage};
use ims_core::{ConnId, Event, Flow, Node, Time, Transport};
use pcscf::config::Policy;
use std::net::SocketAddr;
use std::time::Duration;

fn token(bench: &Bench) -> String {
    // In the Path of the last REGISTER; here, from what is kept.
    let value = bench.kept.values().next().expect("something is kept");
    let impi = usize::from(u16::from_be_bytes([value[1], value[2]]));
    let at = 3 + impi;
    let len = usize::from(u16::from_be_bytes([value[at], value[at + 1]]));
    String::from_utf8(value[at + 2..at + 2 + len].to_vec()).unwrap()
}

fn refresh(bench: &mut Bench, ue: &mut Handset, granted: u32) -> Out {
    let request = ue.protected(bench, granted).forwarded();
    let out = bench.accept(&request, granted);
    bench.kernel_agrees(&out);
    out
}

#[test]
fn a_registered_ue_is_reached_and_refreshes_after_a_restart() {
    for mut ue in four_ways() {
        let mut bench = Bench::new();
        let set = ue.attach(&mut bench, 3600);
        let token = token(&bench);
        let before = bench.registrations();
        bench.pass(100);
        let out = bench.restart();
        assert!(out.is_silent() && out.deleted.is_empty(), "{out:?}");
        assert_eq!(bench.adopted, [set]);
        let after = bench.registrations();
        for field in ["impi", "impu", "associated", "contact", "ue", "transport", "service_route"] {
            assert_eq!(before[0][field], after[0][field], "{field}");
        }
        assert_eq!(after[0]["expires_in_s"], 3500);
        assert_eq!((&after[0]["sa"]["state"], &after[0]["sa"]["expires_in_s"]), (&"active".into(), &3530.into()));

        // Connections do not outlast the process: the next request opens one, from port_pc to port_us.
        let egress = bench.node.egress(&token).expect("a way to the UE");
        let (local, remote) = (SocketAddr::new(set.pcscf, set.port_pc), SocketAddr::new(set.ue, set.port_us));
        assert_eq!(egress.flow, Flow { transport: ue.transport, local, remote, conn: None });
        assert!(egress.sent_by.ends_with(":6100"));

        ue.conn = ConnId(9);
        let out = refresh(&mut bench, &mut ue, 3600);
        assert_eq!(out.extended(), [(set, bench.now + Duration::from_secs(3630))]);
        assert_eq!(out.put.len(), 1);
        assert_eq!(out.answered().0, ue.answers_of(&set));

        let request = ue.protected(&mut bench, 0).forwarded();
        let out = bench.accept(&request, 0);
        assert_eq!(out.deleted.len(), 1, "nothing is kept of who is not registered");
        assert_eq!(out.answered().0, ue.answers_of(&set), "inside the SA");
        bench.assert_empty();
        assert!(bench.kept.is_empty());
    }
}

#[test]
fn it_is_written_when_it_changes_and_not_otherwise() {
    let mut bench = Bench::new();
    let mut ue = Handset::udp4();
    let old = ue.get_challenged(&mut bench);
    assert!(bench.kept.is_empty(), "an attempt is not kept");
    ue.set = Some(old);
    ue.nonce = "bm9uY2U=".into();
    assert_eq!(refresh(&mut bench, &mut ue, 3600).put.len(), 1);
    bench.pass(10);
    assert_eq!(refresh(&mut bench, &mut ue, 3600).put.len(), 1, "another expiry");
    // A new set: the challenge changes nothing yet.
    ue.renew();
    let request = ue.protected(&mut bench, 3600).forwarded();
    let asked = bench.challenge(&request, "bmV3");
    let (id, new) = asked.install();
    assert!(asked.put.is_empty() && bench.kernel(id, Ok(())).put.is_empty());
    ue.set = Some(new);
    assert_eq!(refresh(&mut bench, &mut ue, 3600).put.len(), 1);
    // Both stand side by side, now and after a restart, and the old one goes when it should.
    bench.restart();
    assert_eq!(bench.adopted.len(), 2);
    assert_eq!(bench.registrations()[0]["sa"]["spi_ps"], new.spi_ps);
    let out = bench.pass(130);
    assert_eq!((out.removed(), out.put.len()), (vec![old], 0), "its end was known");
    assert_eq!(bench.registrations().len(), 1);
    bench.restart();
    assert_eq!(bench.adopted, [new]);
}

#[test]
fn what_expired_while_away_is_gone() {
    let mut bench = Bench::new();
    let mut ue = Handset::udp4();
    ue.attach(&mut bench, 600);
    bench.now = bench.now + Duration::from_secs(601);
    bench.restart();
    assert!(bench.kept.is_empty() && bench.adopted.is_empty());
    assert_eq!((bench.refused("kept-expired"), bench.refused("kept-damaged")), (1, 0));
    bench.assert_empty();
}

#[test]
fn sets_that_the_kernel_lost_take_their_registrations_along() {
    let mut bench = Bench::new();
    let mut ues = [Handset::udp4(), Handset::new(true, Transport::Tcp)];
    ues[1].imsi = "001010000000002".into();
    ues[1].spi += 100;
    let sets: Vec<SaSet> = ues.iter_mut().map(|ue| ue.attach(&mut bench, 3600)).collect();
    bench.holds.remove(0);
    let out = bench.restart();
    assert_eq!(out.removed(), [sets[0]], "what is left of it, policies above all, goes too");
    assert_eq!(out.deleted.len(), 1);
    assert_eq!((bench.registrations().len(), bench.kept.len()), (1, 1));
    assert_eq!((bench.refused("sa-set-lost"), bench.refused("registration-without-sa")), (1, 1));
    // The UE finds out by itself, and is let in.
    bench.kernel_agrees(&out);
    ues[0].renew();
    ues[0].attach(&mut bench, 3600);
    assert_eq!(bench.registrations().len(), 2);
}

#[test]
fn a_kernel_without_esp_has_none_of_our_sets() {
    let mut bench = Bench::new();
    Handset::udp4().attach(&mut bench, 3600);
    bench.audited = Some(Err(SaError::NoEsp));
    bench.restart();
    assert_eq!((bench.registrations().len(), bench.kept.len()), (0, 0));
}

#[test]
fn an_audit_that_fails_takes_nothing_and_is_tried_again() {
    let mut bench = Bench::new();
    let set = Handset::udp4().attach(&mut bench, 3600);
    bench.audited = Some(Err(SaError::Kernel(5)));
    bench.restart();
    assert_eq!((bench.registrations().len(), bench.refused("sa-audit-failed")), (1, 1));
    bench.adopted.clear();
    bench.pass(61);
    assert_eq!(bench.adopted, [set], "it is still to be adopted");
    bench.pass(60);
    assert!(bench.adopted.is_empty(), "once is enough");
    assert_eq!(bench.registrations().len(), 1);
}

#[test]
fn damaged_and_foreign_entries_are_dropped_and_counted() {
    let mut bench = Bench::new();
    Handset::udp4().attach(&mut bench, 3600);
    let (key, good) = bench.kept.iter().next().map(|(k, v)| (k.clone(), v.clone())).unwrap();
    let mut count = 0;
    for end in 0..good.len() {
        bench.kept = [(key.clone(), good.slice(..end))].into();
        bench.restart();
        count = bench.refused("kept-damaged");
        assert_eq!((count, bench.kept.len(), bench.registrations().len()), (1, 0, 0), "{end}");
    }
    assert_eq!(count, 1);
    let other_version = [&[99], &good[1..]].concat();
    let entries =
        [(key.clone(), other_version), ("registration/zz".into(), good.to_vec()), ("x".into(), good.to_vec())];
    for (key, value) in entries {
        bench.kept = [(key, Bytes::from(value))].into();
        bench.restart();
        assert_eq!((bench.refused("kept-damaged"), bench.kept.len()), (1, 0));
    }
    // The same registration under two numbers: one of them is wrong.
    bench.kept = [(key, good.clone()), ("registration/77".into(), good)].into();
    bench.restart();
    assert_eq!((bench.refused("kept-damaged"), bench.registrations().len()), (1, 1));
}

#[test]
fn random_entries_do_no_harm() {
    let mut rng = ims_core::Rng::from_u64(3);
    let mut bench = Bench::new();
    Handset::udp4().attach(&mut bench, 3600);
    let good = bench.kept.values().next().unwrap().clone();
    for _ in 0..2000 {
        let mut bytes = good.to_vec();
        for _ in 0..=rng.below(4) {
            let at = usize::try_from(rng.below(bytes.len() as u64)).unwrap();
            bytes[at] = rng.u32().to_be_bytes()[0];
        }
        let mut fresh = Bench::new();
        fresh.kept = [("registration/1".into(), bytes.into())].into();
        fresh.restart();
        assert_eq!(fresh.kept.len(), fresh.node.snapshot()["registered"].as_u64().map_or(0, |n| usize::from(n > 0)));
    }
}

#[test]
fn another_configuration_takes_up_what_fits() {
    let change: [fn(&mut pcscf::Config); 3] = [
        |c| c.gm.addresses = vec!["192.0.2.99".parse().unwrap()],
        |c| c.gm.protected_server_port = 7100,
        |c| c.keep_registrations = false,
    ];
    for change in change {
        let mut bench = Bench::new();
        Handset::udp4().attach(&mut bench, 3600);
        change(&mut bench.config);
        bench.restart();
        assert_eq!((bench.refused("kept-not-configured"), bench.registrations().len(), bench.kept.len()), (1, 0, 0));
        assert!(bench.adopted.is_empty());
    }
}

#[test]
fn a_ue_in_clear_is_kept_only_as_long_as_it_is_allowed() {
    for (policy, stays) in [(Policy::Allow, 1), (Policy::Require, 0)] {
        let mut bench = Bench::new();
        let mut ue = Handset::udp4();
        let text = ue.register(3600, "");
        let request = bench.packet(ue.clear_flow(), &text).forwarded();
        bench.accept(&request, 3600);
        let token = token(&bench);
        bench.config.security.policy = policy;
        bench.restart();
        assert_eq!(bench.registrations().len(), stays);
        let egress = bench.node.egress(&token);
        assert_eq!(egress.map(|e| e.flow), (stays == 1).then(|| ue.clear_flow()));
    }
}

#[test]
fn without_keeping_nothing_is_written() {
    let mut bench = Bench::with(|c| c.keep_registrations = false);
    assert!(bench.config.wiring().sip.iter().all(|l| !l.keeps_sas));
    Handset::udp4().attach(&mut bench, 3600);
    assert!(bench.kept.is_empty());
    assert!(Bench::new().config.wiring().sip.iter().all(|l| l.keeps_sas == l.protected));
}

#[test]
fn a_set_that_vanishes_from_the_kernel_is_noticed_within_a_minute() {
    let mut bench = Bench::new();
    let mut ue = Handset::udp4();
    let set = ue.attach(&mut bench, 3600);
    bench.holds.clear();
    let out = bench.pass(61);
    assert_eq!(out.removed(), [set]);
    assert!(bench.registrations().is_empty() && bench.kept.is_empty());
    assert_eq!(bench.refused("sa-set-lost"), 1);
    bench.assert_empty();
}

#[test]
fn a_set_that_the_kernel_cannot_extend_is_lost_and_the_others_are_looked_at() {
    let mut bench = Bench::new();
    let mut ues = [Handset::udp4(), Handset::udp4()];
    ues[1].ip = "198.51.100.8".parse().unwrap();
    ues[1].imsi = "001010000000002".into();
    for ue in &mut ues {
        ue.attach(&mut bench, 3600);
    }
    bench.holds.clear();
    let request = ues[0].protected(&mut bench, 3600).forwarded();
    let out = bench.accept(&request, 3600);
    let (id, _) = out.sa[0];
    bench.kernel(id, Err(SaError::NotFound));
    assert!(bench.registrations().is_empty(), "nobody waits a minute");
    assert_eq!(bench.refused("sa-set-lost"), 2);
}

#[test]
fn a_silent_ue_is_not_gone_and_the_counters_say_when_it_was_heard() {
    let mut bench = Bench::new();
    let mut ue = Handset::udp4();
    ue.attach(&mut bench, 7200);
    bench.pass(3000);
    let shown = bench.registrations();
    assert_eq!(shown[0]["heard_s_ago"], 3000);
    assert_eq!(shown[0]["sa"]["packets_in"], 0);
    // The kernel has seen packets that were no SIP (keep-alives of TCP): the UE is there.
    bench.holds[0].1 = 5;
    bench.pass(61);
    let shown = bench.registrations();
    assert!(shown[0]["heard_s_ago"].as_u64().unwrap() < 61, "{shown:?}");
    assert_eq!((&shown[0]["sa"]["packets_in"], &shown[0]["sa"]["bytes_in"]), (&10.into(), &1000.into()));
    assert_eq!(shown[0]["sa_sets"][0]["state"], "active");
    // After a restart nobody knows, until something comes.
    bench.restart();
    assert!(bench.registrations()[0]["heard_s_ago"].is_null());
    bench.holds[0].1 = 6;
    bench.pass(61);
    assert!(bench.registrations()[0]["heard_s_ago"].as_u64().unwrap() < 61);
}

fn expiry(dst: std::net::IpAddr, spi: u32, hard: bool) -> Event {
    Event::SaExpired(SaExpiry { dst, spi, hard })
}

#[test]
fn a_warning_of_the_kernel_extends_what_lives_on() {
    let mut bench = Bench::new();
    let set = Handset::udp4().attach(&mut bench, 3600);
    bench.pass(100);
    let until = Time::from_secs(1_000_000 + 3630);
    let mut asked = Vec::new();
    for leg in set.legs() {
        let out = bench.handle(expiry(leg.dst.ip(), leg.spi, false));
        bench.kernel_agrees(&out);
        asked.extend(out.extended());
    }
    assert_eq!(asked, [(set, until)], "once for the four");
    bench.pass(3520);
    assert!(bench.handle(expiry(set.pcscf, set.spi_ps, false)).is_silent(), "it ends with its registration");
    assert_eq!(bench.refused("sa-extended-again"), 1);
}

#[test]
fn a_lifetime_that_is_shorter_in_the_kernel_is_extended() {
    let mut bench = Bench::new();
    let set = Handset::udp4().attach(&mut bench, 3600);
    let short = bench.now + Duration::from_secs(200);
    let usage = set.legs().map(|l| SaUsage {
        dst: l.dst.ip(),
        spi: l.spi,
        bytes: 0,
        packets: 0,
        last_use: None,
        expires: short,
    });
    bench.audited = Some(Ok(SaAudit { sas: usage.to_vec(), strays: 3, repaired: 2 }));
    let out = bench.restart();
    assert_eq!(out.extended(), [(set, Time::from_secs(1_003_630))], "killed between Put and Extend");
    assert_eq!((bench.refused("sa-stray-removed"), bench.refused("sa-policy-repaired")), (3, 2));
}

#[test]
fn a_hard_expiry_before_its_time_ends_the_registration() {
    let mut bench = Bench::new();
    let set = Handset::udp4().attach(&mut bench, 3600);
    let out = bench.handle(expiry(set.pcscf, set.spi_ps, true));
    assert_eq!((out.removed(), out.deleted.len()), (vec![set], 1));
    bench.kernel_agrees(&out);
    assert_eq!(bench.refused("sa-expired-early"), 1);
    assert!(bench.handle(expiry(set.ue, set.spi_us, true)).is_silent(), "of the same set");
    bench.assert_empty();
}

#[test]
fn the_newest_of_several_wins_after_a_restart_as_before() {
    let mut bench = Bench::new();
    let mut first = Handset::udp4();
    first.attach(&mut bench, 3600);
    bench.restart();
    // Registrations made after the restart do not take the number of one that came back.
    let mut second = Handset::udp4();
    (second.imsi, second.ip) = ("001010000000002".into(), "198.51.100.9".parse().unwrap());
    second.attach(&mut bench, 3600);
    assert_eq!((bench.kept.len(), bench.registrations().len()), (2, 2));
    bench.restart();
    assert_eq!(bench.adopted.len(), 2);
    assert_eq!(bench.node.snapshot()["registered"], 2);
}

/// TS 33.203 7.2: six SAs a direction, that is three sets. None that a registration lives on gives way to somebody who has
/// not shown who he is.
#[test]
fn a_fourth_set_takes_the_place_of_a_proposal_or_is_refused() {
    let mut bench = Bench::new();
    let mut ues: Vec<Handset> = (0..4u8)
        .map(|n| {
            let mut ue = Handset::udp4();
            ue.ip = [198, 51, 100, 10 + n].into();
            (ue.reg_id, ue.call) =
                ([";reg-id=1", ";reg-id=2", ";reg-id=3", ";reg-id=4"][usize::from(n)], format!("c{n}"));
            ue
        })
        .collect();
    // The S-CSCF keeps them all.
    bench.others = ues.iter().map(|ue| format!("<sip:{}@{}:{}>;expires=3600", ue.imsi, ue.ip, ue.us)).collect();
    let two: Vec<SaSet> = ues[..2].iter_mut().map(|ue| ue.attach(&mut bench, 3600)).collect();
    let third = ues[2].get_challenged(&mut bench);
    let request = ues[3].hello(&mut bench).forwarded();
    let asked = bench.challenge(&request, "bm9uY2U=");
    assert_eq!(asked.removed(), [third], "the proposal that nobody used");
    let (id, fourth) = asked.install();
    bench.kernel(id, Ok(()));
    (ues[3].set, ues[3].nonce) = (Some(fourth), "bm9uY2U=".into());
    refresh(&mut bench, &mut ues[3], 3600);
    assert_eq!(bench.registrations().len(), 3);

    let request = ues[2].hello(&mut bench).forwarded();
    let out = bench.challenge(&request, "bm9uY2U=");
    assert!(out.sa.is_empty(), "no registration loses its set");
    assert_eq!((out.answered().1.status(), bench.refused("too-many-sa-sets")), (503, 1));
    assert_eq!(bench.registrations().len(), 3);
    // One leaves: there is room when its set is gone.
    ues[0].set = Some(two[0]);
    bench.others.remove(0);
    refresh(&mut bench, &mut ues[0], 0);
    ues[2].renew();
    ues[2].attach(&mut bench, 3600);
    assert_eq!(bench.node.snapshot()["sa_sets"], 3, "the retiring one gave way");
}
