//! Logging. What may not be logged cannot be: keys have no `Debug`, identities print redacted.

use crate::StartError;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

/// Starts logging to standard error. A second call changes nothing.
pub fn init_logging(filter: &str) -> Result<(), StartError> {
    let filter = EnvFilter::try_new(filter).map_err(|e| {
        StartError::Config(format!(
            "log filter '{filter}' is not valid ({e}): write for example info or warn,pcscf=debug"
        ))
    })?;
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .finish()
        .try_init();
    Ok(())
}
