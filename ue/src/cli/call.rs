//! `ue call`: one handset that registers and calls somebody, or waits to be called.

use super::register;
use clap::Args;
use ims_shell::Running;
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;
use ue::Script;

/// How often a call is looked at.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Args)]
#[group(id = "call")]
pub(crate) struct Options {
    #[command(flatten)]
    handset: register::Options,
    /// Whom to call: a URI, a number, or user@domain. Without: wait for calls, for --stay seconds.
    #[arg(long)]
    to: Option<String>,
    /// Hang up after so many seconds, unless the script or the other side does.
    #[arg(long, default_value_t = 10.0, value_name = "SECONDS")]
    hold: f64,
    /// What the handset does when it calls and when it is called (docs/handset.md). Without: it answers after a second.
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
}

pub(crate) fn run(options: &Options) -> Result<bool, String> {
    let mut config = options.handset.handset()?;
    config.script = match &options.script {
        Some(file) => {
            let name = file.display().to_string();
            let text = std::fs::read_to_string(file).map_err(|e| format!("{name}: {e}"))?;
            Script::parse(&name, &text).map_err(|e| e.to_string())?
        }
        None => Script::parse("default", "[called]\nanswer_after = '1s'").map_err(|e| e.to_string())?,
    };
    if !(0.0..=86_400.0).contains(&options.hold) {
        return Err("--hold: 0 to 86400 seconds".into());
    }
    register::with_handset(config, async |running| {
        let mut printed = 0;
        let mut good = register::call(running, "register", json!(null), &mut printed).await;
        if good {
            good = match &options.to {
                Some(to) => talk(running, to, options.hold, &mut printed).await,
                None => {
                    wait(running, Duration::from_secs(options.handset.stay), &mut printed, false).await;
                    true
                }
            };
        }
        if good && options.handset.deregister {
            good = register::call(running, "deregister", json!(null), &mut printed).await;
        }
        register::conclude(running, good).await
    })
}

async fn talk(running: &Running, to: &str, hold: f64, printed: &mut u64) -> bool {
    if !register::call(running, "call", json!({ "to": to }), printed).await {
        return false;
    }
    if wait(running, Duration::from_secs_f64(hold), printed, true).await {
        return true;
    }
    register::call(running, "hangup", json!({}), printed).await
}

/// Tells what happens for so long, or until no call is left; says whether none is.
async fn wait(running: &Running, time: Duration, printed: &mut u64, until_over: bool) -> bool {
    let mut left = time;
    loop {
        *printed = register::print_journal(running, *printed).await;
        let calls = running.snapshot("ue").await.unwrap_or_default();
        let over = calls["calls"].as_array().is_none_or(Vec::is_empty);
        if over && until_over || left.is_zero() {
            return over;
        }
        let pause = left.min(LOOK);
        tokio::time::sleep(pause).await;
        left -= pause;
    }
}
