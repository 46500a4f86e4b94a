//! `ue register`: one handset under the shell, with real sockets and, where the kernel has ESP, real associations.

use super::{Subscription, loopback, transport};
use clap::Args;
use ims_shell::{Listen, Running, Settings, Shell};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;
use ue::{Config, Ue};

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    subscription: Subscription,
    /// Handset configuration (TOML) instead of the options above.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Address of the handset.
    #[arg(long, default_value_t = loopback())]
    address: IpAddr,
    /// Unprotected port of the handset.
    #[arg(long, default_value_t = 5062)]
    port: u16,
    /// Use TCP.
    #[arg(long)]
    tcp: bool,
    /// Do not offer security associations.
    #[arg(long)]
    no_sec_agree: bool,
    /// Go on in clear when the network or this machine has no security associations.
    #[arg(long)]
    allow_unprotected: bool,
    /// Stay registered for this many seconds (refreshing when due), then go on.
    #[arg(long, default_value_t = 0)]
    pub(super) stay: u64,
    /// De-register at the end.
    #[arg(long)]
    pub(super) deregister: bool,
}

impl Options {
    pub(super) fn handset(&self) -> Result<Config, String> {
        if let Some(file) = &self.config {
            let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
            return ims_core::config::parse(&file.display().to_string(), &text).map_err(|e| e.to_string());
        }
        Ok(Config {
            address: self.address,
            port: self.port,
            transport: transport(self.tcp),
            sec_agree: !self.no_sec_agree,
            allow_unprotected: self.allow_unprotected,
            ..self.subscription.config()?
        })
    }
}

pub(crate) fn run(options: &Options) -> Result<bool, String> {
    with_handset(options.handset()?, async |running| attach(running, options).await)
}

/// Runs a handset under the shell for as long as `story` takes.
pub(super) fn with_handset(config: Config, story: impl AsyncFnOnce(&Running) -> bool) -> Result<bool, String> {
    let wiring = config.wiring();
    let node = Ue::new(config).map_err(|e| e.to_string())?;
    ims_shell::init_logging("warn").map_err(|e| e.to_string())?;
    let settings = Settings { http: Listen::Off, threads: 1, ..Settings::default() };
    ims_shell::block_on(&settings.clone(), async {
        let running =
            Shell::new(settings).node("ue", Box::new(node), wiring).start().await.map_err(|e| e.to_string())?;
        let good = story(&running).await;
        running.shutdown().await;
        Ok(good)
    })
    .map_err(|e| e.to_string())?
}

async fn attach(running: &Running, options: &Options) -> bool {
    let mut printed = 0;
    let mut good = call(running, "register", Value::Null, &mut printed).await;
    if good && options.stay > 0 {
        tokio::time::sleep(Duration::from_secs(options.stay)).await;
        printed = print_journal(running, printed).await;
    }
    if good && options.deregister {
        good = call(running, "deregister", Value::Null, &mut printed).await;
    }
    conclude(running, good).await
}

/// Tells what is left, and what the network did wrong.
pub(super) async fn conclude(running: &Running, good: bool) -> bool {
    let state = running.snapshot("ue").await.unwrap_or_default();
    if let Some(binding) = state["binding"].as_object() {
        println!("{}", json!({ "binding": binding, "sets": state["sets"] }));
    }
    let faults = state["faults"].as_object().cloned().unwrap_or_default();
    for (name, times) in &faults {
        println!("fault of the network: {name} ({times})");
    }
    good && faults.is_empty()
}

pub(super) async fn call(running: &Running, procedure: &str, args: Value, printed: &mut u64) -> bool {
    let result = running.command("ue", procedure, args).await;
    *printed = print_journal(running, *printed).await;
    if let Err(problem) = &result {
        println!("{}: {}", problem.title, problem.detail);
    }
    result.is_ok()
}

/// Prints the steps later than `after`; gives back the time of the last.
pub(super) async fn print_journal(running: &Running, after: u64) -> u64 {
    let state = running.snapshot("ue").await.unwrap_or_default();
    let mut last = after;
    for step in state["journal"].as_array().into_iter().flatten() {
        let at = step[0].as_u64().unwrap_or(0);
        if at > after {
            println!(
                "{:>6}.{:06}  {}",
                at / 1_000_000 % 1_000_000,
                at % 1_000_000,
                step[1].as_str().unwrap_or_default()
            );
            last = last.max(at);
        }
    }
    last
}
