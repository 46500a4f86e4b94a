//! The `main` that all role binaries share.

use crate::{Settings, Shell, StartError, init_logging, pace};
use ims_core::config::{self, ConfigError};
use ims_core::{Node, Wiring};
use serde::de::DeserializeOwned;
use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

/// What a role's configuration became.
pub struct Role {
    node: Box<dyn Node + Send>,
    wiring: Wiring,
    store: Option<String>,
    keeps: bool,
}

impl Role {
    pub fn new(node: impl Node + Send + 'static, wiring: Wiring) -> Self {
        Self { node: Box::new(node), wiring, store: None, keeps: false }
    }

    /// The node keeps records in this file of the data folder.
    pub fn store(mut self, file: &str) -> Self {
        self.store = Some(file.into());
        self
    }

    /// The node has its state kept across restarts, in the data folder.
    pub fn keeps(mut self) -> Self {
        self.keeps = true;
        self
    }
}

/// What a role makes its node from.
pub struct RoleInput {
    file: String,
    text: String,
    settings: Settings,
}

impl RoleInput {
    /// The configuration without its `[shell]` table.
    pub fn config<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        config::parse(&self.file, &self.text)
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// `text` is the whole file; `file` is its name, for messages.
    pub fn parse(file: &str, text: &str) -> Result<Self, StartError> {
        #[derive(serde::Deserialize, Default)]
        #[serde(default)]
        struct Outer {
            shell: Settings,
        }
        let outer: Outer = config::parse(file, text).map_err(|e| StartError::Config(e.to_string()))?;
        let settings = outer.shell.with_environment().map_err(StartError::Config)?;
        Ok(Self { file: file.into(), text: without_shell_table(text), settings })
    }
}

/// Blanks the lines of `[shell]`, so that line numbers in messages stay true.
fn without_shell_table(text: &str) -> String {
    let mut inside = false;
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        let header = line.trim_start();
        if header.starts_with('[') {
            let name = header.trim_start_matches('[').trim_start();
            inside = name.strip_prefix("shell").is_some_and(|rest| rest.trim_start().starts_with([']', '.']));
        }
        if !inside {
            out.push_str(line);
        }
        out.push('\n');
    }
    out
}

/// Runs one role: `NAME --config FILE`. Without a file the defaults hold. Ends on SIGTERM or SIGINT.
/// `NAME healthcheck` asks the one that runs with the same configuration whether it is well.
/// REST and console listen at `rest` when the configuration does not say where.
///
/// ```no_run
/// # struct N; impl ims_core::Node for N {
/// #   fn handle(&mut self, _: ims_core::Event, _: &mut ims_core::Ctx<'_>) {}
/// #   fn deadline(&self) -> Option<ims_core::Time> { None }
/// #   fn snapshot(&self) -> serde_json::Value { serde_json::Value::Null } }
/// # #[derive(serde::Deserialize)] struct Config;
/// # impl Config { fn wiring(&self) -> ims_core::Wiring { ims_core::Wiring::default() } }
/// use ims_shell::{Role, role_main};
/// fn main() -> std::process::ExitCode {
///     role_main("pcscf", ([127, 0, 0, 1], 8081).into(), |input| {
///         let config: Config = input.config()?;
///         let wiring = config.wiring();
///         Ok(Role::new(N, wiring))
///     })
/// }
/// ```
pub fn role_main(
    name: &str,
    rest: SocketAddr,
    build: impl FnOnce(&RoleInput) -> Result<Role, Box<dyn Error + Send + Sync>>,
) -> ExitCode {
    let result = match invocation(name, std::env::args().skip(1)) {
        Ok(Invocation::Run(path)) => run_role(name, path, rest, build),
        Ok(Invocation::HealthCheck(path)) => health_check(path, rest),
        Ok(Invocation::Help) => {
            println!("{}", usage(name));
            return ExitCode::SUCCESS;
        }
        Ok(Invocation::Version) => {
            println!("{name} {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        Err(reason) => {
            eprintln!("{name}: {reason}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

enum Invocation {
    Run(Option<PathBuf>),
    HealthCheck(Option<PathBuf>),
    Help,
    Version,
}

fn usage(name: &str) -> String {
    format!("usage: {name} [healthcheck] [--config FILE]")
}

fn invocation(name: &str, mut args: impl Iterator<Item = String>) -> Result<Invocation, String> {
    let mut health_check = false;
    let mut path = std::env::var_os("IMSBOX_CONFIG").map(PathBuf::from);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "-h" | "--help" => return Ok(Invocation::Help),
            "-V" | "--version" => return Ok(Invocation::Version),
            "-c" | "--config" => {
                path = Some(args.next().ok_or("--config needs the name of a file")?.into());
            }
            "healthcheck" => health_check = true,
            other => match other.strip_prefix("--config=") {
                Some(file) => path = Some(file.into()),
                None => return Err(format!("unknown argument '{other}': {}", usage(name))),
            },
        }
    }
    Ok(if health_check { Invocation::HealthCheck(path) } else { Invocation::Run(path) })
}

fn read_input(path: Option<PathBuf>) -> Result<RoleInput, StartError> {
    match path {
        None => RoleInput::parse("built-in defaults", ""),
        Some(path) => match std::fs::read_to_string(&path) {
            Ok(text) => RoleInput::parse(&path.display().to_string(), &text),
            Err(reason) => Err(StartError::ConfigFile { path, reason }),
        },
    }
}

fn health_check(path: Option<PathBuf>, rest: SocketAddr) -> Result<(), Box<dyn Error + Send + Sync>> {
    Ok(crate::health::ask(read_input(path)?.settings.http, rest)?)
}

fn run_role(
    name: &str,
    path: Option<PathBuf>,
    rest: SocketAddr,
    build: impl FnOnce(&RoleInput) -> Result<Role, Box<dyn Error + Send + Sync>>,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let input = read_input(path)?;
    init_logging(&input.settings.log)?;
    let role = build(&input)?;
    let mut settings = input.settings;
    settings.http = settings.http.or(Some(rest)).map_or(crate::Listen::Off, crate::Listen::At);
    block_on(&settings.clone(), async move {
        let store = role.store.map(|file| settings.data_dir.join(file));
        let mut shell = Shell::new(settings).node(name, role.node, role.wiring);
        if let Some(path) = store {
            shell = shell.store_for(name, path);
        }
        if role.keeps {
            shell = shell.keep_for(name);
        }
        let mut running = shell.start().await?;
        for place in &running.listening {
            tracing::info!("listening: {place}");
        }
        let failure = tokio::select! {
            signal = wait_for_signal() => signal.err().map(Into::into),
            node = running.failure() => Some(format!("{node} failed: see the log").into()),
        };
        tracing::info!("stopping");
        running.shutdown().await;
        failure.map_or(Ok(()), Err)
    })?
}

/// Runs a future on a runtime with the threads that `settings` ask for.
pub fn block_on<F: Future>(settings: &Settings, future: F) -> Result<F::Output, StartError> {
    use tokio::runtime::Builder;
    let mut builder = match settings.threads {
        // The thread that calls: nothing is handed over, and its memory grows in large steps.
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    match settings.threads {
        0 => &mut builder,
        1 if settings.wakeups > 0 => builder.on_thread_park(pace::before_sleep(settings.wakeups)),
        1 => &mut builder,
        threads => builder.worker_threads(threads),
    };
    Ok(builder.enable_all().build()?.block_on(future))
}

/// Returns when the process is asked to end: SIGTERM or SIGINT.
pub async fn wait_for_signal() -> Result<(), StartError> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    struct Config {
        port: u16,
        peers: Vec<Peer>,
    }
    #[derive(serde::Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    struct Peer {
        host: String,
    }

    #[test]
    fn the_shell_table_is_not_the_roles_business() {
        let text = "port = 1\n[shell]\ninbox = 5\n[[peers]]\nhost = 'a'\n";
        let input = RoleInput::parse("x.toml", text).unwrap();
        assert_eq!(input.settings().inbox, 5);
        let config: Config = input.config().unwrap();
        assert_eq!((config.port, config.peers[0].host.as_str()), (1, "a"));
    }

    #[test]
    fn a_wrong_key_is_named_with_its_true_line() {
        let input = RoleInput::parse("x.toml", "[shell]\ninbox = 5\n[[peers]]\nhots = 'a'\n").unwrap();
        let error = input.config::<Config>().unwrap_err().to_string();
        assert!(error.contains("x.toml") && error.contains("hots") && error.contains("line 4"), "{error}");
        assert!(RoleInput::parse("x.toml", "[shell]\ninbx = 5\n").is_err());
    }

    #[test]
    fn arguments() {
        let parse = |args: &[&str]| invocation("x", args.iter().map(|a| (*a).to_owned()));
        assert!(matches!(parse(&["--config", "a.toml"]), Ok(Invocation::Run(Some(p))) if p.ends_with("a.toml")));
        assert!(matches!(parse(&["--config=b"]), Ok(Invocation::Run(Some(p))) if p.ends_with("b")));
        assert!(matches!(parse(&["healthcheck", "-c", "b"]), Ok(Invocation::HealthCheck(Some(p))) if p.ends_with("b")));
        assert!(parse(&["--config"]).is_err());
        assert!(parse(&["up"]).is_err());
    }
}
