//! `ue load`: tens of thousands of [`ue::Ue`] nodes in one thread.
//!
//! The shell gives every node a task and its own sockets; ten thousand handsets would be ten thousand of each, and the
//! measurement would be of the shell. Here one thread owns all sockets ([`wire`]), sends each message from its handset's
//! own address ([`place`]), and gives what comes in to the handset that it is for. The registration logic is the node's,
//! unchanged: refreshes, back-off and Retry-After are what any handset of this crate does.

// This is a rim of the program, as the shell is: it reads the clock.
#![allow(clippy::disallowed_methods)]

mod curve;
mod fleet;
mod place;
mod stats;
mod wire;

use super::Subscription;
use clap::{Args, ValueEnum};
use fleet::Fleet;
use fleet::calls::CallPlan;
use ims_core::config::Span;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;
use ue::Script;

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum Transports {
    Udp,
    Tcp,
    /// Every second handset TCP.
    Mixed,
}

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    subscription: Subscription,
    /// Registrations begun per second.
    #[arg(long, default_value_t = 10.0)]
    rate: f64,
    /// Length of the run in seconds. Without --handsets: how long registrations are begun.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// A population: so many handsets, with consecutive IMSIs and the same keys, attach at --rate and stay, refreshing as
    /// phones do. Without: handsets register from scratch, one after the other and in turn, for all of --seconds.
    #[arg(long, conflicts_with = "count")]
    handsets: Option<u32>,
    /// Without --handsets: how many handsets take turns (default: rate times seconds).
    #[arg(long)]
    count: Option<u32>,
    /// First handset address; default: 127.64.0.1, or ::1.
    #[arg(long)]
    ue_net: Option<IpAddr>,
    /// How many addresses from --ue-net on there are; handsets that share one have different ports. Default: one for each
    /// handset with IPv4, one for all with IPv6 (where the loopback interface has no more).
    #[arg(long)]
    addresses: Option<u32>,
    /// First port of the handsets.
    #[arg(long, default_value_t = 5090)]
    port: u16,
    #[arg(long, value_enum, default_value_t = Transports::Udp)]
    transport: Transports,
    /// Timer T1: first retransmission; an attempt is given up after 64 times that.
    #[arg(long, default_value = "500ms")]
    t1: String,
    /// Seconds to wait for the last answers.
    #[arg(long, default_value_t = 10.0)]
    drain: f64,
    /// Refresh at this interval instead of when a phone does: half of the granted time, or 600 s before its end when more
    /// than 1200 s were granted (TS 24.229 5.1.1.4.1).
    #[arg(long, value_name = "SPAN")]
    refresh_every: Option<String>,
    /// Per cent of the handsets that go away each minute, half of them without a word, and come back on new ports.
    #[arg(long, value_name = "PERCENT_PER_MINUTE", default_value_t = 0.0)]
    churn: f64,
    /// How long a handset is away, and, with --deregister, how long it stays: half to one and a half times that.
    #[arg(long, default_value = "5s")]
    think: String,
    /// De-register each handset after it has registered.
    #[arg(long)]
    deregister: bool,
    /// Calls begun per second, once all of --handsets have attached, for --seconds: the first of each pair of handsets calls
    /// the second, one call a pair at a time.
    #[arg(long, value_name = "RATE")]
    calls: Option<f64>,
    /// Seconds that a call is held on the average, exponentially distributed.
    #[arg(long, default_value_t = 10.0, value_name = "SECONDS")]
    hold: f64,
    /// Hold each call exactly so long.
    #[arg(long)]
    hold_fixed: bool,
    /// How long it rings.
    #[arg(long, default_value = "50ms", value_name = "SPAN")]
    ring: String,
    /// What both sides do in a call (docs/handset.md), instead of --ring.
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// Per cent of the handsets that are unknown, or have a wrong key, or give a wrong answer: refusing them is right.
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0)]
    fail: f64,
    /// Wait as long as Retry-After of a refusal says, then try again.
    #[arg(long)]
    obey_retry_after: bool,
    /// Base of the back-off after failures, with --handsets or --obey-retry-after (RFC 5626 4.5: 30 s).
    #[arg(long, default_value = "30s")]
    retry: String,
    /// The core may be restarted meanwhile: silence and 408, 480 and 5xx are no failures as long as no registration is
    /// lost by them.
    #[arg(long)]
    expect_restart: bool,
    /// At the end, ask the network for the binding of each registered handset (RFC 3261 10.2.3); what it does not know is
    /// lost.
    #[arg(long)]
    verify: bool,
    /// Per cent of the procedures that may fail before the exit status is 1.
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0)]
    max_failed: f64,
    /// Write a CSV file with a row each interval.
    #[arg(long, value_name = "FILE")]
    curve: Option<PathBuf>,
    /// Seconds between rows of the curve and lines of progress.
    #[arg(long, default_value_t = 5.0)]
    interval: f64,
    /// Put memory and CPU of this process into the curve, under its id or a name; may be repeated.
    #[arg(long, value_name = "[NAME=]PID")]
    watch_pid: Vec<String>,
    /// No progress on standard error.
    #[arg(long, short)]
    quiet: bool,
    /// Also offer security associations, as a phone does; answers then go on in clear.
    #[arg(long)]
    sec_agree: bool,
    /// Security associations in this machine's kernel (needs ESP and the right to use it; UDP, an address for each
    /// handset).
    #[arg(long, conflicts_with = "sec_agree")]
    ipsec: bool,
}

/// The options, read and found possible.
struct Plan {
    handsets: u32,
    /// Registrations from scratch; None: a population.
    in_turn: Option<u64>,
    first_address: IpAddr,
    addresses: u32,
    t1: Span,
    retry: Span,
    refresh_every: Option<Span>,
    think: Duration,
    seconds: Duration,
    drain: Duration,
    interval: Duration,
    calls: Option<CallPlan>,
}

impl Plan {
    fn new(options: &Options) -> Result<Self, String> {
        let within = |value: f64, most: f64| value > 0.0 && value <= most;
        if !within(options.rate, 1e6) || !within(options.seconds, 864_000.0) || !within(options.interval, 86_400.0) {
            return Err(
                "--rate must be above 0 and at most 1000000, --seconds and --interval above 0 and at most 10 days"
                    .into(),
            );
        }
        let share = |value: f64| (0.0..=100.0).contains(&value);
        if !share(options.fail) || !share(options.max_failed) || !(0.0..=10_000.0).contains(&options.churn) {
            return Err("--fail and --max-failed are per cent: 0 to 100; --churn is per cent per minute".into());
        }
        if options.churn > 0.0 && options.handsets.is_none() {
            return Err("--churn is for a population: give --handsets".into());
        }
        let span = |name: &str, text: &str| Span::parse(text).ok_or(format!("--{name}: write 500ms, 2s or 1min"));
        let total = (options.rate * options.seconds).ceil().max(1.0);
        let in_turn = options.handsets.is_none().then_some(total as u64);
        let handsets = options.handsets.or(options.count).unwrap_or(total.min(16e6) as u32);
        if !(1..=16_000_000).contains(&handsets) {
            return Err("--handsets and --count: 1 to 16000000".into());
        }
        let v6 = options.subscription.pcscf.is_ipv6();
        let loopback = if v6 { IpAddr::V6(Ipv6Addr::LOCALHOST) } else { Ipv4Addr::new(127, 64, 0, 1).into() };
        let first_address = options.ue_net.unwrap_or(loopback);
        if first_address.is_ipv6() != v6 {
            return Err("--ue-net is not of the address family of --pcscf".into());
        }
        if options.ipsec && options.transport != Transports::Udp {
            return Err("--ipsec is for UDP".into());
        }
        let addresses = options.addresses.unwrap_or(if v6 && options.ue_net.is_none() { 1 } else { handsets });
        let seconds = |s: f64| Duration::from_secs_f64(s.clamp(0.0, 1e6));
        Ok(Self {
            handsets,
            in_turn,
            first_address,
            addresses,
            t1: span("t1", &options.t1)?,
            retry: span("retry", &options.retry)?,
            refresh_every: options.refresh_every.as_deref().map(|text| span("refresh-every", text)).transpose()?,
            think: span("think", &options.think)?.0,
            seconds: seconds(options.seconds),
            drain: seconds(options.drain),
            interval: seconds(options.interval),
            calls: call_plan(options)?,
        })
    }
}

/// How calls are made, if any are.
fn call_plan(options: &Options) -> Result<Option<CallPlan>, String> {
    let Some(rate) = options.calls else { return Ok(None) };
    let right = rate > 0.0 && rate <= 1e6 && (0.0..=86_400.0).contains(&options.hold);
    if !right {
        return Err("--calls must be above 0 and at most 1000000, --hold at most 86400 seconds".into());
    }
    if options.handsets.is_none_or(|handsets| handsets < 2) {
        return Err("--calls: give two --handsets or more".into());
    }
    if options.churn > 0.0 || options.deregister {
        return Err("--calls goes without --churn and --deregister".into());
    }
    let mut script = match &options.script {
        Some(file) => {
            let name = file.display().to_string();
            let text = std::fs::read_to_string(file).map_err(|e| format!("{name}: {e}"))?;
            Script::parse(&name, &text).map_err(|e| e.to_string())?
        }
        None => Script::default(),
    };
    if options.script.is_none() {
        script.called.answer_after = Some(Span::parse(&options.ring).ok_or("--ring: write 50ms, 2s or 1min")?);
        script.calling.session_expires = 0;
    }
    let hold = Duration::from_secs_f64(options.hold);
    Ok(Some(CallPlan { rate, hold, fixed: options.hold_fixed, script }))
}

pub(crate) fn run(options: &Options) -> Result<bool, String> {
    let plan = Plan::new(options)?;
    let mut fleet = Fleet::new(options, plan)?;
    fleet.run().map_err(|e| format!("socket: {e}"))?;
    println!("{}", serde_json::to_string_pretty(&fleet.summary()).unwrap_or_default());
    Ok(fleet.is_good())
}
