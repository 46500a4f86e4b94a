//! `imsbox status`: who is registered, with which security associations, which peers are up, and what was refused.

use crate::client::Client;
use anyhow::{Result, bail};
use serde_json::{Map, Value};
use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

/// Of one process, or of several that are one core together: a process that does not answer hides nothing of the others.
pub(crate) fn run(clients: &[Client], json: bool) -> Result<()> {
    let mut all = Map::new();
    let mut silent = Vec::new();
    for client in clients {
        match client.read("/v1/status") {
            Ok(Value::Object(nodes)) => all.extend(nodes),
            Ok(other) => silent.push(format!("the answer is no status: {other}")),
            Err(error) => silent.push(format!("{error:#}")),
        }
    }
    let status = Value::Object(all);
    if json {
        println!("{}", serde_json::to_string_pretty(&status)?);
    } else {
        // The command line is no node: it tells its reader how long ago something was.
        #[allow(clippy::disallowed_methods)]
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        print!("{}", report(&status, now));
    }
    match silent.len() {
        0 => Ok(()),
        _ => bail!("{}", silent.join("\n        ")),
    }
}

/// The snapshots of all local nodes, as text. `now` in seconds, as the nodes tell times.
fn report(status: &Value, now: u64) -> String {
    let mut out = String::new();
    registrations(&mut out, &status["pcscf"]);
    bindings(&mut out, &status["scscf"]);
    for (role, node) in status.as_object().into_iter().flatten() {
        peers(&mut out, role, node, now);
        away(&mut out, role, node);
        kept(&mut out, role, node);
    }
    pressure(&mut out, &status["pcscf"]);
    for (role, node) in status.as_object().into_iter().flatten() {
        refusals(&mut out, role, node);
    }
    out
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or("-")
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

fn registrations(out: &mut String, pcscf: &Value) {
    let all = list(pcscf, "registrations");
    if pcscf.is_null() {
        return;
    }
    let _ = writeln!(out, "Handsets at the P-CSCF: {}", all.len());
    if let Some(seen) = pcscf["address_rewritten"].as_u64().filter(|seen| *seen > 0) {
        let _ = writeln!(
            out,
            "  {seen} REGISTERs came from another address than their handset's: there is NAT on the way, IPsec cannot work"
        );
    }
    let sessions = |state: &str| pcscf["sessions"][state].as_u64().unwrap_or(0);
    if sessions("answered") + sessions("ringing") > 0 {
        let _ =
            writeln!(out, "Sessions of handsets: {} answered, {} ringing", sessions("answered"), sessions("ringing"));
    }
    for one in all {
        let expires = one["expires_in_s"].as_u64().map_or("-".into(), |s| format!("{s} s"));
        let _ = writeln!(out, "  {}  ({})", text(one, "impu"), text(one, "impi"));
        let heard = one["heard_s_ago"].as_u64().map_or(String::new(), |s| format!("  heard {s} s ago"));
        let (contact, transport) = (text(one, "contact"), text(one, "transport"));
        let _ = writeln!(out, "    contact {contact}  {transport}  expires in {expires}{heard}");
        match list(one, "sa_sets") {
            [] if one["sa"].is_null() => out.push_str("    no IPsec\n"),
            [] => security(out, &one["sa"]),
            sets => sets.iter().for_each(|sa| security(out, sa)),
        }
    }
}

fn security(out: &mut String, sa: &Value) {
    let number = |name: &str| sa[name].as_u64().unwrap_or(0);
    let _ = writeln!(
        out,
        "    IPsec {} {}: UE {}/{} <-> P {}/{}  SPI uc {:#010x} us {:#010x} pc {:#010x} ps {:#010x}",
        text(sa, "suite"),
        text(sa, "state"),
        number("port_uc"),
        number("port_us"),
        number("port_ps"),
        number("port_pc"),
        number("spi_uc"),
        number("spi_us"),
        number("spi_pc"),
        number("spi_ps"),
    );
}

fn bindings(out: &mut String, scscf: &Value) {
    let all = list(scscf, "registrations");
    if scscf.is_null() {
        return;
    }
    let _ = writeln!(out, "Subscribers at the S-CSCF: {}", all.len());
    for one in all {
        let impus: Vec<_> = list(one, "impus").iter().filter_map(Value::as_str).collect();
        let _ = writeln!(out, "  {}", impus.join(", "));
        for binding in list(one, "bindings") {
            let expires = binding["expires_in_s"].as_u64().unwrap_or(0);
            let _ = writeln!(out, "    {}  expires in {expires} s", text(binding, "contact"));
        }
    }
}

fn peers(out: &mut String, role: &str, node: &Value, now: u64) {
    let peers = match &node["diameter"]["peers"] {
        Value::Array(peers) => peers.as_slice(),
        _ => list(node, "peers"),
    };
    for peer in peers {
        let name = ["host", "peer", "name"].iter().find_map(|n| peer[*n].as_str()).unwrap_or("-");
        let down = peer["down_since"].as_u64().map(|at| format!(", down for {} s", now.saturating_sub(at)));
        let _ = writeln!(out, "Diameter {role} - {name}: {}{}", text(peer, "state"), down.unwrap_or_default());
    }
}

/// SIP targets that failed when they were last tried.
fn away(out: &mut String, role: &str, node: &Value) {
    for failed in list(&node["sip"]["location"], "failed") {
        let seconds = failed["for_s"].as_u64().unwrap_or(0);
        let _ = writeln!(out, "SIP {role} - {}: fails, for {seconds} s", text(failed, "target"));
    }
}

/// What the role keeps across restarts, when something is wrong with it.
fn kept(out: &mut String, role: &str, node: &Value) {
    let number = |name: &str| node["kept"][name].as_u64().unwrap_or(0);
    if let Some(error) = node["kept"]["error"].as_str() {
        let (seconds, waiting) = (number("failing_for_s"), number("waiting"));
        let _ = writeln!(out, "Store of the {role} fails, for {seconds} s, {waiting} entries wait: {error}");
    }
    if number("lost") > 0 {
        let _ = writeln!(out, "Store of the {role} has lost {} changes: a restart would miss them", number("lost"));
    }
}

/// Who is not listened to, and whether new registrations are limited.
fn pressure(out: &mut String, pcscf: &Value) {
    if pcscf["sources"]["banned"].as_u64().is_some_and(|n| n > 0) {
        out.push_str(&crate::bans::report(&pcscf["sources"]["bans"]));
    }
    let overload = &pcscf["overload"];
    if overload["limiting"] == true {
        let rate = overload["per_second"].as_f64().unwrap_or(0.0);
        let refused = overload["refused"].as_u64().unwrap_or(0);
        let _ = writeln!(out, "OVERLOAD: {rate} new registrations a second are let in, {refused} were refused so far");
    }
}

fn refusals(out: &mut String, role: &str, node: &Value) {
    let counted = node["refusals"].as_object().into_iter().flatten();
    for (name, count) in counted.filter(|(_, n)| n.as_u64() != Some(0)) {
        let _ = writeln!(out, "refused by the {role}: {name} {count}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_registration_is_shown_with_its_security_association() {
        let status = json!({
            "pcscf": {
                "registrations": [{
                    "impi": "001010000000001@ims.example", "impu": "sip:001010000000001@ims.example",
                    "contact": "sip:001010000000001@10.0.0.2:5064", "transport": "udp", "expires_in_s": 3600,
                    "sa": { "suite": "hmac-sha-1-96/aes-cbc", "state": "confirmed", "port_uc": 5065, "port_us": 5064,
                            "port_pc": 6101, "port_ps": 6100, "spi_uc": 4097, "spi_us": 4098, "spi_pc": 1, "spi_ps": 2 }
                }],
                "refusals": { "unknown-user": 2, "no-common-suite": 0 },
                "address_rewritten": 3,
                "sessions": { "answered": 4, "ringing": 1 }
            },
            "icscf": {
                "diameter": { "peers": [
                    { "host": "hss.ims.example", "state": "open", "down_since": null },
                    { "host": "hss2.ims.example", "state": "connecting", "down_since": 1000 }
                ] },
                "sip": { "location": { "failed": [{ "target": "udp:127.0.0.1:6060", "for_s": 12 }] } }
            },
            "scscf": { "kept": { "entries": 3, "lost": 0, "error": "the disk is full: make room", "failing_for_s": 5, "waiting": 2 } }
        });
        let text = report(&status, 1070);
        for part in [
            "Handsets at the P-CSCF: 1",
            "Sessions of handsets: 4 answered, 1 ringing",
            "expires in 3600 s",
            "hmac-sha-1-96/aes-cbc confirmed: UE 5065/5064 <-> P 6100/6101",
            "Diameter icscf - hss.ims.example: open\n",
            "Diameter icscf - hss2.ims.example: connecting, down for 70 s",
            "SIP icscf - udp:127.0.0.1:6060: fails, for 12 s",
            "Store of the scscf fails, for 5 s, 2 entries wait: the disk is full: make room",
            "refused by the pcscf: unknown-user 2",
            "3 REGISTERs came from another address",
        ] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
        assert!(!text.contains("no-common-suite"), "{text}");
    }
}
