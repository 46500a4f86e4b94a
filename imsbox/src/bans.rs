//! `imsbox bans`: sources that the P-CSCF does not listen to, and letting one back in.

use crate::client::Client;
use anyhow::Result;
use clap::Subcommand;
use serde_json::Value;
use std::fmt::Write as _;
use std::net::IpAddr;

#[derive(Subcommand, Debug)]
pub(crate) enum Bans {
    /// Listen to this address (or its IPv6 network) again
    Lift { address: IpAddr },
}

pub(crate) fn run(command: Option<Bans>, client: &Client) -> Result<()> {
    match command {
        None => print!("{}", report(&client.read("/v1/bans")?["bans"])),
        Some(Bans::Lift { address }) => {
            client.remove(&format!("/v1/bans/{address}"))?;
            println!("{address} is listened to again");
        }
    }
    Ok(())
}

/// One line for each ban.
pub(crate) fn report(bans: &Value) -> String {
    let mut out = String::new();
    for ban in bans.as_array().into_iter().flatten() {
        let number = |name: &str| ban[name].as_u64().unwrap_or(0);
        let text = |name: &str| ban[name].as_str().unwrap_or("-").to_owned();
        let (source, cause) = (text("source"), text("cause"));
        let (ends, dropped) = (number("ends_in_s"), number("dropped"));
        let _ = writeln!(out, "banned: {source} ({cause}), {ends} s more, {dropped} messages dropped");
    }
    if out.is_empty() {
        out.push_str("nobody is banned\n");
    }
    out
}
