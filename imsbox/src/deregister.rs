//! `imsbox deregister`: the network ends a registration.

use crate::client::Client;
use anyhow::{Result, bail};
use serde_json::{Value, json};
use std::fmt::Write as _;

#[derive(clap::Args, Debug)]
#[group(required = true, multiple = false)]
struct Who {
    /// Everybody who is registered with this public identity
    #[arg(long)]
    impu: Option<String>,
    /// All registrations of this private identity
    #[arg(long)]
    impi: Option<String>,
}

#[derive(clap::Args, Debug)]
pub(crate) struct Deregister {
    #[command(flatten)]
    who: Who,
    /// Tell the phone not to register again by itself (default: to register anew at once)
    #[arg(long, conflicts_with = "retry_after")]
    reject: bool,
    /// Tell the phone to register again after so many seconds
    #[arg(long, value_name = "SECONDS")]
    retry_after: Option<u32>,
}

pub(crate) fn run(command: &Deregister, clients: &[Client]) -> Result<()> {
    let body = json!({
        "impu": command.who.impu, "impi": command.who.impi,
        "reject": command.reject, "retry_after": command.retry_after,
    });
    let mut last = None;
    for client in clients {
        match client.create("/v1/deregister", &body) {
            Ok(ended) => {
                print!("{}", report(&ended["deregistered"]));
                return Ok(());
            }
            // Where roles run apart, only one of them is the S-CSCF.
            Err(error) => last = Some(error),
        }
    }
    match last {
        Some(error) => Err(error),
        None => bail!("no address of a REST API was given"),
    }
}

fn report(ended: &Value) -> String {
    let mut out = String::new();
    for one in ended.as_array().into_iter().flatten() {
        let text = |name: &str| one[name].as_str().unwrap_or("-").to_owned();
        let _ = writeln!(out, "de-registered: {} ({})", text("impu"), text("impi"));
    }
    out
}
