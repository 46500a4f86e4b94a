//! The peer machine and the requests on it, between endpoints on a virtual network.

mod world;

use ims_core::Rng;
use ims_diameter::cx::ResultCode;
use ims_diameter::dict::{self, Def, Kind};
use ims_diameter::endpoint::*;
use ims_diameter::{DiameterError, Message};
use world::*;

/// A CSCF that connects to an HSS which knows it.
fn pair() -> World {
    World::started(vec![config("cscf", &["hss"], &[]), config("hss", &[], &["cscf"])])
}

/// A CSCF with a first and a second HSS.
fn three() -> World {
    let known = ["cscf"];
    let configs =
        vec![config("cscf", &["hss1", "hss2"], &[]), config("hss1", &[], &known), config("hss2", &[], &known)];
    World::started(configs)
}

#[test]
fn capabilities_are_exchanged_and_requests_go_both_ways_on_one_connection() {
    let mut w = pair();
    w.assert_up(0);
    w.assert_up(1);
    assert!(matches!(&w.nodes[0].events[..], [DiameterEvent::PeerUp { peer }] if peer == "hss"));
    let (a, b) = (w.ask(0, None), w.ask(1, Some("cscf")));
    w.settle();
    assert_eq!((w.result(0, a), w.result(1, b)), (Some(Ok(ResultCode::SUCCESS)), Some(Ok(ResultCode::SUCCESS))));
    assert_eq!(w.links_between(0, 1), 1);
    let request = w.requests_at(1)[0];
    let text = |def| request.avps().required(def).unwrap().utf8().unwrap().to_owned();
    assert_eq!(text(&dict::ORIGIN_HOST), "cscf");
    assert_eq!(text(&dict::DESTINATION_REALM), "realm");
    assert!(request.avps().iter().next().unwrap().is(&dict::SESSION_ID));
    assert!(request.avps().first(&dict::DESTINATION_HOST).is_none());
    assert!(w.requests_at(0)[0].avps().first(&dict::DESTINATION_HOST).is_some());
    w.assert_quiet();
}

#[test]
fn many_requests_are_in_flight_at_once_and_each_gets_its_own_answer() {
    let mut w = pair();
    w.nodes[1].answers = None;
    let ids: Vec<_> = (0..500).map(|_| w.ask(0, None)).collect();
    w.settle();
    let asked: Vec<_> = std::mem::take(&mut w.nodes[1].events);
    let mut sessions = std::collections::BTreeSet::new();
    // Answered in the wrong order.
    for event in asked.into_iter().rev() {
        let DiameterEvent::Request { token, message } = event else {
            continue;
        };
        sessions.insert(message.avps().first(&dict::SESSION_ID).unwrap().data.to_vec());
        let answer = message.error_answer(&DiameterError::UnableToComply);
        w.act(1, |endpoint, ctx| endpoint.answer(token, answer, ctx));
    }
    w.settle();
    assert_eq!(sessions.len(), 500);
    assert!(ids.iter().all(|id| w.result(0, *id) == Some(Ok(ResultCode::UNABLE_TO_COMPLY))));
    w.assert_quiet();
}

#[test]
fn an_unknown_peer_is_refused_with_3010_and_closed() {
    let mut w = World::started(vec![config("cscf", &["hss"], &[]), config("hss", &[], &[])]);
    let cea = w.last_from(1);
    assert_eq!(ResultCode::from_message(cea).unwrap(), ResultCode::Base(3010));
    assert!(cea.is_error());
    assert_eq!((w.state(0, 0).0.as_str(), w.links_between(0, 1)), ("closed", 0));
    // It tries again, less and less often.
    w.run(secs(60));
    let tries = w.trace.iter().filter(|(_, from, ..)| *from == 0).count();
    assert!((6..=14).contains(&tries), "{tries}");
    assert!(w.nodes[1].endpoint.is_quiet());
}

#[test]
fn an_unknown_peer_is_welcome_when_configured_so_and_forgotten_when_it_goes() {
    let open = EndpointConfig { accept_unknown: true, ..config("hss", &[], &[]) };
    let mut w = World::started(vec![config("cscf", &["hss"], &[]), open]);
    w.assert_up(1);
    w.nodes[0].listening = false;
    w.cut_between(0, 1);
    assert_eq!(w.nodes[1].endpoint.snapshot()["peers"].as_array().unwrap().len(), 0);
    w.run(secs(2));
    w.assert_up(1);
}

#[test]
fn peers_without_a_common_application_part_with_5010() {
    let other = EndpointConfig { applications: vec![(0, 4)], ..config("hss", &[], &["cscf"]) };
    let w = World::started(vec![config("cscf", &["hss"], &[]), other]);
    assert_eq!(ResultCode::from_message(w.last_from(1)).unwrap(), ResultCode::Base(5010));
    assert!(!w.last_from(1).is_error());
    assert_eq!(w.links_between(0, 1), 0);
}

#[test]
fn a_peer_of_another_name_than_configured_is_not_used() {
    let mut wrong = config("cscf", &["hss"], &[]);
    wrong.peers[0].host = Some("other".into());
    let w = World::started(vec![wrong, config("hss", &[], &["cscf"])]);
    assert_eq!((w.state(0, 0).0.as_str(), w.links_between(0, 1)), ("closed", 0));
}

#[test]
fn when_both_connect_the_election_leaves_one_connection() {
    for (a, b) in [("aaa", "bbb"), ("bbb", "aaa")] {
        let mut w = World::started(vec![config(a, &[b], &[]), config(b, &[a], &[])]);
        w.run(secs(40));
        assert_eq!(w.links_between(0, 1), 1);
        w.assert_up(0);
        w.assert_up(1);
        let ids = [w.ask(0, None), w.ask(1, None)];
        w.settle();
        assert_eq!(w.result(0, ids[0]), Some(Ok(ResultCode::SUCCESS)));
        assert_eq!(w.result(1, ids[1]), Some(Ok(ResultCode::SUCCESS)));
        w.assert_quiet();
    }
}

#[test]
fn a_second_connection_of_an_open_peer_loses_the_election() {
    let mut w = pair();
    let cer = w.trace[0].3.clone();
    assert_eq!(cer.name(), "CER");
    let link = w.dial(1);
    w.inject(1, link, cer.to_bytes());
    let refusal = w.trace.iter().find(|(_, _, l, _)| *l == link).unwrap();
    assert_eq!(ResultCode::from_message(&refusal.3).unwrap(), ResultCode::Base(4003));
    assert!(!w.is_open(link));
    w.assert_up(0);
    w.assert_up(1);
}

#[test]
fn a_restarted_peer_takes_the_place_of_its_dead_connection() {
    let mut w = pair();
    // The machine of the CSCF lost power: nobody closed the connection.
    w.mute.insert(0);
    w.run(secs(1));
    w.mute.clear();
    w.nodes[0].endpoint = Endpoint::new(config("cscf", &["hss"], &[]));
    w.act(0, |endpoint, ctx| endpoint.on_start(ctx));
    w.settle();
    w.assert_up(0);
    w.assert_up(1);
    let id = w.ask(1, Some("cscf"));
    w.settle();
    assert_eq!(w.result(1, id), Some(Ok(ResultCode::SUCCESS)));
}

#[test]
fn the_watchdog_asks_only_in_silence_and_a_healthy_peer_stays_okay() {
    let mut w = pair();
    w.run(secs(300));
    let dwr = w.trace.iter().filter(|(.., m)| m.name() == "DWR").count();
    assert!((9..=22).contains(&dwr), "{dwr}");
    w.assert_up(0);
    w.assert_up(1);
    w.trace.clear();
    for _ in 0..60 {
        w.ask(0, None);
        w.run(secs(5));
    }
    assert_eq!(w.trace.iter().filter(|(.., m)| m.name() == "DWR").count(), 0);
}

#[test]
fn a_silent_peer_becomes_suspect_then_down_and_is_reopened_with_three_watchdogs() {
    let mut w = pair();
    w.mute.insert(1);
    w.run(secs(63));
    assert!(w.trace.iter().any(|(_, from, _, m)| *from == 0 && m.name() == "DWR"));
    w.run(secs(2));
    assert_eq!(w.state(0, 0).1, "suspect");
    w.run(secs(33));
    assert_eq!(w.state(0, 0).1, "down");
    let down = |e: &DiameterEvent| matches!(e, DiameterEvent::PeerDown { reason, .. } if reason.contains("watchdog"));
    assert!(w.nodes[0].events.iter().any(down));
    w.mute.clear();
    w.run(secs(15));
    assert_eq!(w.state(0, 0), ("open".into(), "reopen".into()));
    // The only one there is is used all the same.
    let id = w.ask(0, None);
    w.settle();
    assert_eq!(w.result(0, id), Some(Ok(ResultCode::SUCCESS)));
    w.run(secs(70));
    w.assert_up(0);
}

#[test]
fn a_late_watchdog_answer_takes_the_suspicion_away() {
    let mut w = pair();
    w.mute.insert(1);
    w.run(secs(66));
    assert_eq!(w.state(0, 0).1, "suspect");
    w.mute.clear();
    // Any message shows that it is there.
    w.ask(1, Some("cscf"));
    w.settle();
    w.assert_up(0);
    assert_eq!(w.links_between(0, 1), 1);
}

#[test]
fn a_lost_connection_is_opened_again_after_a_short_wait() {
    let mut w = pair();
    w.cut_between(0, 1);
    assert_eq!(w.state(0, 0).0, "closed");
    assert!(matches!(w.nodes[0].events.last(), Some(DiameterEvent::PeerDown { .. })));
    w.run(secs(1));
    w.assert_up(0);
    w.assert_up(1);
}

#[test]
fn requests_in_flight_fail_over_with_the_t_bit_when_the_connection_is_lost() {
    let mut w = three();
    w.nodes[1].answers = None;
    let id = w.ask(0, None);
    w.settle();
    let first = w.requests_at(1)[0].clone();
    assert!(!first.is_retransmitted());
    w.nodes[1].listening = false;
    w.cut_between(0, 1);
    assert_eq!(w.result(0, id), Some(Ok(ResultCode::SUCCESS)));
    let second = w.requests_at(2)[0].clone();
    assert!(second.is_retransmitted());
    assert_eq!((second.end_to_end, second.avps().iter().count()), (first.end_to_end, first.avps().iter().count()));
    assert_ne!(second.hop_by_hop, first.hop_by_hop);
    // What the lost peer still says goes nowhere.
    let Some(DiameterEvent::Request { token, message }) =
        w.nodes[1].events.iter().rev().find(|e| matches!(e, DiameterEvent::Request { .. }))
    else {
        panic!()
    };
    let (token, answer) = (*token, message.error_answer(&DiameterError::TooBusy));
    w.act(1, |endpoint, ctx| endpoint.answer(token, answer, ctx));
    w.settle();
    w.assert_quiet();
}

#[test]
fn requests_leave_a_suspect_peer_and_the_first_answer_counts() {
    let mut w = World::started(vec![
        EndpointConfig { request_timeout: secs(200), ..config("cscf", &["hss1", "hss2"], &[]) },
        EndpointConfig { request_timeout: secs(200), ..config("hss1", &[], &["cscf"]) },
        config("hss2", &[], &["cscf"]),
    ]);
    w.nodes[1].answers = None;
    let id = w.ask(0, None);
    w.settle();
    w.mute.insert(1);
    w.run(secs(67));
    assert_eq!(w.state(0, 0).1, "suspect");
    assert_eq!(w.result(0, id), Some(Ok(ResultCode::SUCCESS)));
    assert!(w.requests_at(2)[0].is_retransmitted());
    // New ones prefer the healthy peer.
    w.ask(0, None);
    w.settle();
    assert_eq!(w.requests_at(2).len(), 2);
}

#[test]
fn a_request_waits_for_the_reconnection_when_there_is_no_other_peer() {
    let mut w = pair();
    w.nodes[1].answers = None;
    let id = w.ask(0, None);
    w.settle();
    w.cut_between(0, 1);
    w.run(secs(2));
    // The HSS is still at work on the first copy; its answer takes the new connection.
    assert!(w.trace.last().unwrap().3.is_retransmitted());
    assert_eq!(w.requests_at(1).len(), 1);
    let asked = w.nodes[1].events.iter().find_map(|e| match e {
        DiameterEvent::Request { token, message } => Some((*token, message.clone())),
        _ => None,
    });
    let (token, message) = asked.unwrap();
    let answer = message.error_answer(&DiameterError::UnableToComply);
    w.act(1, |endpoint, ctx| endpoint.answer(token, answer, ctx));
    w.settle();
    assert_eq!(w.result(0, id), Some(Ok(ResultCode::UNABLE_TO_COMPLY)));
    w.assert_quiet();
}

#[test]
fn a_peer_that_is_too_busy_or_cannot_deliver_is_not_the_last_word() {
    let mut w = three();
    w.nodes[1].answers = Some(ResultCode::TOO_BUSY);
    let id = w.ask(0, None);
    w.settle();
    assert_eq!(w.result(0, id), Some(Ok(ResultCode::SUCCESS)));
    assert!(!w.requests_at(2)[0].is_retransmitted());
    // Both of them: then it is.
    w.nodes[2].answers = Some(ResultCode::TOO_BUSY);
    let id = w.ask(0, None);
    w.settle();
    assert_eq!(w.result(0, id), Some(Ok(ResultCode::TOO_BUSY)));
    w.assert_quiet();
}

#[test]
fn a_request_for_one_host_goes_to_no_other() {
    let mut w = three();
    let id = w.ask(0, Some("hss2"));
    w.settle();
    assert_eq!((w.result(0, id), w.requests_at(2).len()), (Some(Ok(ResultCode::SUCCESS)), 1));
    let id = w.ask(0, Some("hss3"));
    assert_eq!(w.result(0, id), Some(Err(RequestFailure::NoPeer)));
}

#[test]
fn copies_of_a_request_are_worked_on_once() {
    let mut w = pair();
    w.nodes[1].answers = None;
    let id = w.ask(0, None);
    w.settle();
    let (_, _, link, sent) = w.trace.last().unwrap().clone();
    let mut copy = sent.to_bytes().to_vec();
    copy[4] |= 0x10;
    copy[12] ^= 0xff;
    w.inject(1, link, copy.clone());
    assert_eq!(w.requests_at(1).len(), 1);
    let Some(DiameterEvent::Request { token, message }) = w.nodes[1].events.pop() else { panic!() };
    let answer = message.error_answer(&DiameterError::UnableToComply);
    w.trace.clear();
    w.act(1, |endpoint, ctx| endpoint.answer(token, answer, ctx));
    w.settle();
    // Both copies are answered, each under its own hop-by-hop identifier.
    let hops: Vec<u32> = w.trace.iter().map(|(.., m)| m.hop_by_hop).collect();
    assert_eq!(hops, [sent.hop_by_hop, sent.hop_by_hop ^ 0xff00_0000]);
    assert_eq!(w.result(0, id), Some(Ok(ResultCode::UNABLE_TO_COMPLY)));
    // A copy that comes later gets the same answer, and the node hears nothing of it.
    w.inject(1, link, copy);
    assert_eq!(w.requests_at(1).len(), 0);
    assert_eq!(ResultCode::from_message(w.last_from(1)).unwrap(), ResultCode::UNABLE_TO_COMPLY);
    w.assert_quiet();
}

#[test]
fn unanswered_requests_time_out_at_both_ends() {
    let mut w = pair();
    w.nodes[1].answers = None;
    let id = w.ask(0, None);
    w.settle();
    assert!(!w.nodes[0].endpoint.is_quiet());
    w.run(secs(6));
    assert_eq!(w.result(0, id), Some(Err(RequestFailure::Timeout)));
    w.run(secs(60));
    w.assert_quiet();
}

#[test]
fn without_a_peer_and_with_too_many_in_flight_a_request_fails_at_once() {
    let mut w = World::started(vec![config("cscf", &["hss"], &[])]);
    let id = w.ask(0, None);
    assert_eq!(w.result(0, id), Some(Err(RequestFailure::NoPeer)));
    let small = EndpointConfig { max_pending: 2, ..config("cscf", &["hss"], &[]) };
    let mut w = World::started(vec![small, config("hss", &[], &["cscf"])]);
    w.nodes[1].answers = None;
    let ids = [w.ask(0, None), w.ask(0, None), w.ask(0, None)];
    assert_eq!(ids.map(|id| w.result(0, id)), [None, None, Some(Err(RequestFailure::Busy))]);
}

#[test]
fn a_server_with_too_many_requests_says_so() {
    let small = EndpointConfig { max_pending: 2, ..config("hss", &[], &["cscf"]) };
    let mut w = World::started(vec![config("cscf", &["hss"], &[]), small]);
    w.nodes[1].answers = None;
    let ids = [w.ask(0, None), w.ask(0, None), w.ask(0, None)];
    w.settle();
    assert_eq!(ids.map(|id| w.result(0, id)), [None, None, Some(Ok(ResultCode::TOO_BUSY))]);
}

#[test]
fn disconnecting_is_told_and_answered_and_the_other_side_waits_before_it_comes_back() {
    let mut w = pair();
    w.act(1, |endpoint, ctx| endpoint.shutdown(DisconnectCause::Rebooting, ctx));
    w.nodes[1].listening = false;
    w.settle();
    let names: Vec<String> = w.trace.iter().map(|(.., m)| m.name()).collect();
    assert!(names.ends_with(&["DPR".into(), "DPA".into()]), "{names:?}");
    assert_eq!((w.state(0, 0).0.as_str(), w.links_between(0, 1)), ("closed", 0));
    assert!(w.nodes[1].endpoint.is_closed());
    let down = |e: &DiameterEvent| matches!(e, DiameterEvent::PeerDown { reason, .. } if reason.contains("rebooting"));
    assert_eq!(w.nodes[0].events.iter().filter(|e| down(e)).count(), 1);
    w.assert_quiet();
    w.nodes[1] = {
        let mut fresh = World::new(vec![config("hss", &[], &["cscf"])]);
        fresh.nodes.pop().unwrap()
    };
    w.run(secs(15));
    w.assert_up(0);
}

#[test]
fn a_peer_that_does_not_want_to_talk_is_left_alone() {
    let mut w = pair();
    w.act(1, |endpoint, ctx| endpoint.shutdown(DisconnectCause::DoNotWantToTalkToYou, ctx));
    w.settle();
    w.trace.clear();
    w.run(secs(290));
    assert!(w.trace.is_empty());
}

#[test]
fn a_connection_that_says_nothing_or_no_cer_is_closed() {
    let mut w = pair();
    let silent = w.dial(1);
    let rude = w.dial(1);
    w.inject(1, rude, uar().to_bytes());
    assert!(!w.is_open(rude));
    assert!(w.is_open(silent));
    w.run(secs(11));
    assert!(!w.is_open(silent));
    w.assert_quiet();
}

#[test]
fn strangers_cannot_take_all_connections() {
    let mut w = pair();
    let links: Vec<_> = (0..100).map(|_| w.dial(1)).collect();
    assert_eq!(links.iter().filter(|link| w.is_open(**link)).count(), 64);
}

#[test]
fn a_cea_that_never_comes_is_not_awaited_for_ever() {
    let mut w = World::new(vec![config("cscf", &["hss"], &[]), config("hss", &[], &["cscf"])]);
    w.mute.insert(1);
    w.act(0, |endpoint, ctx| endpoint.on_start(ctx));
    w.settle();
    assert_eq!(w.state(0, 0).0, "wait-cea");
    w.run(secs(11));
    w.mute.clear();
    w.run(secs(20));
    w.assert_up(0);
}

/// A request of the CSCF to the HSS with some AVPs changed, as it would be on the wire.
fn forged(w: &mut World, change: impl Fn(&mut ims_diameter::avp::Writer, &ims_diameter::avp::Avp<'_>)) -> Message {
    w.ask(0, None);
    w.settle();
    let (_, _, link, sent) = w.trace.iter().rev().find(|(.., m)| m.name() == "UAR").unwrap().clone();
    let forged = Message::request(sent.command(), sent.application())
        .with(|out| sent.avps().iter().for_each(|avp| change(out, &avp)))
        .build();
    w.inject(1, link, forged.to_bytes());
    w.last_from(1).clone()
}

#[test]
fn the_base_protocol_refuses_what_it_must() {
    let mut w = pair();
    let code = |m: &Message| match ResultCode::from_message(m).unwrap() {
        ResultCode::Base(code) => code,
        ResultCode::Experimental(_) => panic!(),
    };
    let failed = |m: &Message| m.avps().first(&dict::FAILED_AVP).unwrap().group().unwrap().iter().next().unwrap().code;

    let answer = forged(&mut w, |out, avp| {
        if avp.is(&dict::DESTINATION_REALM) { out.utf8(&dict::DESTINATION_REALM, "elsewhere") } else { out.copy(avp) }
    });
    assert_eq!((code(&answer), answer.is_error()), (3003, true));
    let answer = forged(&mut w, |out, avp| {
        out.copy(avp);
        if avp.is(&dict::DESTINATION_REALM) {
            out.utf8(&dict::DESTINATION_HOST, "hss9");
        }
    });
    assert_eq!((code(&answer), answer.is_error()), (3002, true));
    let answer = forged(&mut w, |out, avp| {
        out.copy(avp);
        if avp.is(&dict::DESTINATION_REALM) {
            out.utf8(&dict::ROUTE_RECORD, "hss");
        }
    });
    assert_eq!(code(&answer), 3005);
    for def in [dict::SESSION_ID, dict::ORIGIN_HOST, dict::ORIGIN_REALM] {
        let answer = forged(&mut w, |out, avp| {
            if !avp.is(&def) {
                out.copy(avp)
            }
        });
        assert_eq!((code(&answer), failed(&answer), answer.is_error()), (5005, def.code, false));
    }
    let stranger = Def { code: 4711, vendor: 99, name: "?", kind: Kind::OctetString, mandatory: true };
    let answer = forged(&mut w, |out, avp| {
        out.copy(avp);
        if avp.is(&dict::USER_NAME) {
            out.octets(&stranger, b"x");
        }
    });
    assert_eq!((code(&answer), failed(&answer)), (5001, 4711));
    // Every refusal is signed by us.
    assert_eq!(answer.avps().first(&dict::ORIGIN_HOST).unwrap().utf8(), Ok("hss"));
}

#[test]
fn unknown_commands_and_applications_and_broken_headers_have_their_answers() {
    let mut w = pair();
    let link = w.trace[0].2;
    let mut code = |m: Message, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = m.to_bytes().to_vec();
        change(&mut bytes);
        w.inject(1, link, bytes);
        ResultCode::from_message(w.last_from(1)).unwrap()
    };
    let same = |_: &mut Vec<u8>| ();
    let of = |command, application| Message::request(command, application).build();
    assert_eq!(code(of(999, dict::APPLICATION_CX), &same), ResultCode::Base(3001));
    assert_eq!(code(of(274, 0), &same), ResultCode::Base(3001));
    assert_eq!(code(of(300, 16_777_217), &same), ResultCode::Base(3007));
    assert_eq!(code(of(300, dict::APPLICATION_CX), &|b| b[4] |= 0x20), ResultCode::Base(3008));
    // An AVP that reaches beyond the message.
    assert_eq!(code(uar(), &|b| b[27] = 0xff), ResultCode::Base(5014));
    // A CER in the middle of a conversation.
    assert_eq!(code(of(257, 0), &same), ResultCode::Base(5012));
    w.assert_up(0);
    w.assert_up(1);
    w.assert_quiet();
}

#[test]
fn an_answer_that_is_broken_or_not_ours_harms_nobody() {
    let mut w = pair();
    w.nodes[1].answers = None;
    let id = w.ask(0, None);
    w.settle();
    let (_, _, link, sent) = w.trace.last().unwrap().clone();
    let answer = sent.error_answer(&DiameterError::Realm);
    let mut stray = answer.to_bytes().to_vec();
    stray[15] ^= 1;
    w.inject(0, link, stray);
    assert_eq!(w.result(0, id), None);
    let mut broken = answer.to_bytes().to_vec();
    let at = broken.len() - 5;
    broken[at] = 0xff;
    broken[27] = 0xff;
    w.inject(0, link, broken);
    assert_eq!(w.result(0, id), Some(Err(RequestFailure::Timeout)));
    assert!(w.nodes[0].endpoint.is_quiet());
}

#[test]
fn what_cannot_be_followed_closes_the_connection() {
    let mut w = pair();
    let link = w.trace[0].2;
    w.inject(1, link, vec![2, 0, 0, 20]);
    assert!(!w.is_open(link));
    w.run(secs(2));
    w.assert_up(0);
}

#[test]
fn hostile_bytes_never_panic_and_leave_nothing_behind() {
    let mut rng = Rng::from_u64(99);
    for round in 0..60 {
        let mut w = World::started(vec![
            config("cscf", &["hss"], &[]),
            EndpointConfig { accept_unknown: true, ..config("hss", &[], &["cscf"]) },
        ]);
        for _ in 0..3 {
            w.ask(0, None);
        }
        w.settle();
        let seeds: Vec<Vec<u8>> = w.trace.iter().map(|(.., m)| m.to_bytes().to_vec()).collect();
        for _ in 0..60 {
            let mut bytes = seeds[rng.below(seeds.len() as u64) as usize].clone();
            for _ in 0..=rng.below(4) {
                // Length and version stay whole: the framing sees to that.
                let at = 4 + rng.below(bytes.len() as u64 - 4) as usize;
                bytes[at] = if rng.below(2) == 0 { rng.u32() as u8 } else { bytes[at] ^ 1 << rng.below(8) };
            }
            let link = if rng.below(3) == 0 { w.dial(1) } else { ims_core::LinkId(1) };
            w.inject((rng.below(2) + round % 2) as usize % 2, link, bytes);
        }
        w.run(secs(120));
        w.assert_quiet();
        for node in &w.nodes {
            assert!(node.endpoint.snapshot().to_string().len() < 60_000);
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let trace = || {
        let mut w = three();
        w.ask(0, None);
        w.run(secs(200));
        w.trace.iter().map(|(at, from, link, m)| (*at, *from, *link, m.to_bytes())).collect::<Vec<_>>()
    };
    assert_eq!(trace(), trace());
}
