//! More than can be done, and those who mean no good: who is refused, who is not listened to, and that nobody else suffers.

use crate::support::{cause, statuses_to_handsets};
use ims_tests::{Lab, LabConfig, lab};
use serde_json::json;
use std::net::SocketAddr;
use std::time::Duration;

const GM: &str = "10.0.0.10:5060";

fn gm() -> SocketAddr {
    GM.parse().unwrap()
}

fn strict() -> LabConfig {
    let mut config = LabConfig { handsets: 2, ..LabConfig::default() };
    config.pcscf.sources.rate = 20;
    config.pcscf.sources.burst = 50;
    config.pcscf.sources.ban_after = 5;
    config
}

/// A request from a stranger; every one a new transaction.
fn request(method: &str, from: SocketAddr, n: usize, headers: &str) -> String {
    let domain = lab::DOMAIN;
    format!(
        "{method} sip:{domain} SIP/2.0\r\nVia: SIP/2.0/UDP {from};branch=z9hG4bKflood{n}\r\nMax-Forwards: 70\r\n\
         From: <sip:{n}@{domain}>;tag={n}\r\nTo: <sip:{n}@{domain}>\r\nCall-ID: {n}@flood\r\nCSeq: 1 {method}\r\n\
         Contact: <sip:{n}@{from}>\r\n{headers}Content-Length: 0\r\n\r\n"
    )
}

fn sources(lab: &Lab) -> serde_json::Value {
    lab.world.snapshot(lab.pcscf)["sources"].clone()
}

fn banned(lab: &mut Lab) -> Vec<(String, String)> {
    let bans = lab.world.ask(lab.pcscf, "bans", serde_json::Value::Null).unwrap();
    let text = |ban: &serde_json::Value, name: &str| ban[name].as_str().unwrap().to_owned();
    bans["bans"].as_array().unwrap().iter().map(|b| (text(b, "source"), text(b, "cause"))).collect()
}

#[test]
fn a_flood_from_one_address_does_not_keep_another_handset_from_attaching() {
    let mut config = strict();
    config.pcscf.security.policy = pcscf::config::Policy::Allow;
    let mut lab = Lab::new(config);
    let flooder: SocketAddr = "10.66.6.6:5060".parse().unwrap();
    let register = lab.world.command(lab.ues[0], "register", json!(null));
    for n in 0..2000 {
        lab.world.inject(flooder, gm(), request("REGISTER", flooder, n, ""));
        lab.world.run_for(Duration::from_millis(1));
    }
    assert!(lab.world.reply(register).is_some_and(|r| r.is_ok()), "the handset is not harmed");
    let dropped = sources(&lab)["dropped"]["rate"].as_u64().unwrap_or(0)
        + sources(&lab)["dropped"]["banned"].as_u64().unwrap_or(0);
    assert!(dropped > 1800, "{}", sources(&lab));
    assert!(lab.register(1).is_ok());
    lab.world.run_for(Duration::from_secs(60));
    assert_eq!(banned(&mut lab), [("10.66.6.6".to_owned(), "unknown-user".to_owned())], "nobody is who it says it is");
    lab.world.run_for(Duration::from_secs(600));
    assert!(banned(&mut lab).is_empty(), "a ban ends");
    lab.rest();
}

#[test]
fn a_scanner_is_banned_at_once_seen_by_the_operator_and_let_back_in() {
    let mut lab = Lab::new(strict());
    let scanner: SocketAddr = "10.66.6.7:5060".parse().unwrap();
    lab.world.inject(scanner, gm(), request("OPTIONS", scanner, 1, "User-Agent: Friendly-Scanner\r\n"));
    for n in 2..10 {
        lab.world.inject(scanner, gm(), request("OPTIONS", scanner, n, ""));
    }
    lab.world.run_for(Duration::from_secs(1));
    assert_eq!(banned(&mut lab), [("10.66.6.7".to_owned(), "scanner".to_owned())]);
    assert_eq!(lab.refusals(lab.pcscf, "scanner"), 1);
    assert_eq!(sources(&lab)["bans"][0]["dropped"], 8);
    assert!(
        statuses_to_handsets(&lab).is_empty() && lab.refusals(lab.pcscf, "register-first") == 0,
        "no answer at all"
    );
    let lift = |lab: &mut Lab, source: &str| lab.world.ask(lab.pcscf, "ban.lift", json!({ "source": source }));
    assert_eq!(lift(&mut lab, "10.66.6.8").unwrap_err().status, 404);
    assert_eq!(lift(&mut lab, "nonsense").unwrap_err().status, 400);
    assert!(lift(&mut lab, "10.66.6.7").is_ok() && banned(&mut lab).is_empty());
    lab.world.inject(scanner, gm(), request("OPTIONS", scanner, 11, ""));
    lab.world.run_for(Duration::from_secs(1));
    assert_eq!(lab.refusals(lab.pcscf, "register-first"), 1, "it is listened to again");
    lab.rest();
}

/// Whoever claims the address of a handset does it no harm: what comes over its SAs is not judged by what came in clear.
#[test]
fn clear_traffic_that_claims_the_address_of_a_handset_does_not_ban_it() {
    let mut lab = Lab::new(strict());
    assert!(lab.register(0).is_ok());
    let claimed = SocketAddr::new(lab.config.handset(0).address, 5060);
    for n in 0..100 {
        lab.world.inject(claimed, gm(), "nonsense\r\n\r\n");
        lab.world.inject(claimed, gm(), request("INVITE", claimed, n, "User-Agent: sipvicious\r\n"));
        lab.world.run_for(Duration::from_millis(100));
    }
    assert!(banned(&mut lab).is_empty());
    assert!(lab.refusals(lab.pcscf, "scanner") > 50);
    assert!(lab.refresh(0).is_ok() && lab.deregister(0).is_ok());
    lab.rest();
}

#[test]
fn malformed_messages_are_counted_against_their_source() {
    let mut lab = Lab::new(strict());
    let source: SocketAddr = "10.66.6.9:5060".parse().unwrap();
    for _ in 0..20 {
        lab.world.inject(source, gm(), "\r\n\r\n");
    }
    lab.world.run_for(Duration::from_secs(1));
    assert!(banned(&mut lab).is_empty(), "keep-alives are no offence");
    for _ in 0..6 {
        lab.world.inject(source, gm(), "REGISTER sip:x SIP/2.0\r\nVia: nonsense\r\n\r\n");
    }
    lab.world.run_for(Duration::from_secs(1));
    assert_eq!(banned(&mut lab), [("10.66.6.9".to_owned(), "malformed".to_owned())]);
    lab.rest();
}

/// RFC 6733 7.1.3, TS 24.229 5.3.1.3: a HSS that is too busy is no reason to ask again at once; the UE is told when to.
#[test]
fn a_hss_that_is_too_busy_is_not_asked_again_at_once() {
    let mut config = LabConfig { scscfs: 2, ..LabConfig::default() };
    config.hss.max_pending = 0;
    config.provision = false;
    let mut lab = Lab::new(config);
    let mut after = Vec::new();
    for _ in 0..4 {
        let answer = lab.register(0);
        assert_eq!(cause(&answer), "status-480", "{answer:?}");
        after.push(crate::support::last_header(&lab, "pcscf", "ue1", ims_sip::Name::RetryAfter).unwrap());
    }
    assert!(after.iter().all(|s| (5..=30).contains(&s.parse::<u32>().unwrap())), "{after:?}");
    assert!(after.iter().any(|s| *s != after[0]), "not all at the same moment: {after:?}");
    assert_eq!(lab.refusals(lab.icscf, "hss-busy"), 4);
    assert_eq!(lab.refusals(lab.hss, "busy"), 4, "each was asked for once");
    lab.rest();
}
