//! The all-in-one binary and the operator's command line.

mod bans;
mod check;
mod client;
mod demo;
mod deregister;
mod ifc;
mod ladder;
mod settings;
mod status;
mod subscriber;
mod up;

use anyhow::Result;
use clap::{Parser, Subcommand};
use client::{Client, Target};
use settings::Settings;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

/// The IMS core in a box: P-CSCF, I-CSCF, S-CSCF and HSS in one program.
#[derive(Parser, Debug)]
#[command(version, propagate_version = true)]
struct Cli {
    /// Configuration file (default: /etc/imsbox/imsbox.toml if it exists, otherwise built-in defaults)
    #[arg(short, long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run P-CSCF, I-CSCF, S-CSCF and HSS until SIGTERM or Ctrl-C
    Up,
    /// Show the whole story on this machine with throw-away data: two handsets attach, and call
    Demo(demo::Demo),
    /// Look at configuration and machine: one line for each thing that has to be right, with the fix
    Check,
    /// Provision subscribers
    #[command(subcommand)]
    Subscriber(subscriber::Subscriber),
    /// Initial filter criteria: why a request goes to an application server, or does not
    #[command(subcommand)]
    Ifc(ifc::Ifc),
    /// Show registrations with their security associations, peers, and what was refused
    Status {
        /// As JSON, with everything the roles tell
        #[arg(long)]
        json: bool,
    },
    /// Ask the imsbox that runs here whether it is well. Exit code 0: it is
    Healthcheck,
    /// Show the sources that the P-CSCF does not listen to, or let one back in
    Bans {
        #[command(subcommand)]
        command: Option<bans::Bans>,
    },
    /// End registrations for the network: phones that have subscribed are told, then their security associations go; the P-CSCF
    /// ends those of others with pcscf.subscribe_reg_event, or when they expire
    Deregister(deregister::Deregister),
    /// Do nothing until SIGTERM: keeps the network namespace of a container, and with it the IPsec state of a P-CSCF that is
    /// restarted in it
    Hold,
    /// The handsets of the demo, in a network namespace of their own
    #[command(hide = true)]
    DemoHandsets(demo::Handsets),
    /// The core of the demo, inside its network namespace
    #[command(hide = true)]
    DemoCore(demo::Core),
}

#[global_allocator]
static ALLOCATOR: ims_shell::Allocator = ims_shell::Allocator;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("imsbox: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    let load = |machine: &[IpAddr]| Settings::load(cli.config.as_deref(), machine);
    if matches!(cli.command, Command::Up) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let settings = load(&runtime.block_on(machine_addresses()))?;
        drop(runtime);
        ims_shell::init_logging(&settings.shell.log)?;
        // With as many threads as the settings say.
        return ims_shell::block_on(&settings.shell, up::run(&settings))?;
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        match cli.command {
            Command::Up => Ok(()), // above
            Command::Demo(demo) => demo.run().await,
            Command::DemoCore(core) => core.run().await,
            Command::DemoHandsets(handsets) => handsets.run().await,
            Command::Check => check::run(load(&machine_addresses().await), &cli.target).await,
            Command::Hold => Ok(ims_shell::wait_for_signal().await?),
            Command::Healthcheck => {
                let settings = load(&[])?;
                ims_shell::health::ask(settings.shell.http, settings.rest).map_err(anyhow::Error::msg)
            }
            Command::Subscriber(command) => subscriber::run(command, &Client::new(&cli.target, &load(&[])?)?),
            Command::Ifc(command) => ifc::run(command, &Client::all(&cli.target, &load(&[])?)?),
            Command::Deregister(command) => deregister::run(&command, &Client::all(&cli.target, &load(&[])?)?),
            Command::Bans { command } => bans::run(command, &Client::new(&cli.target, &load(&[])?)?),
            Command::Status { json } => status::run(&Client::all(&cli.target, &load(&[])?)?, json),
        }
    })
}

/// Every address that a handset could reach; real ones before loopback.
async fn machine_addresses() -> Vec<IpAddr> {
    let all = ims_shell::addresses::local_addresses().await;
    let (loopback, real): (Vec<_>, Vec<_>) =
        all.into_iter().filter(|a| a.up && !a.link_local).partition(|a| a.loopback);
    real.into_iter().chain(loopback).map(|a| a.addr).collect()
}
