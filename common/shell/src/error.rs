//! Why a shell could not start: each says what to do about it.

use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{0}")]
    Config(String),
    #[error("cannot read the configuration {}: {reason}", path.display())]
    ConfigFile { path: PathBuf, reason: std::io::Error },
    #[error("{node}: cannot listen on {transport} {addr}: {}", bind_advice(reason))]
    Bind { node: String, transport: &'static str, addr: SocketAddr, reason: std::io::Error },
    #[error("{node}: {addr} is not an address to listen on: name each address of the machine, not a wildcard")]
    Wildcard { node: String, addr: SocketAddr },
    #[error("{first} and {second} both want {addr}: give one of them another port")]
    Twice { first: String, second: String, addr: SocketAddr },
    #[error("cannot use the data folder file {}: {reason}", path.display())]
    Data { path: PathBuf, reason: std::io::Error },
    #[error("{}: {reason}", path.display())]
    Key { path: PathBuf, reason: &'static str },
    #[error("cannot read the secret {} that the configuration names: {reason}", path.display())]
    Secret { path: PathBuf, reason: std::io::Error },
    #[error("cannot open the database {}: {reason}", path.display())]
    Store { path: PathBuf, reason: String },
    #[error("{} is in use by another process: stop that one, or give this one another shell.data_dir", path.display())]
    InUse { path: PathBuf },
    #[error("{}: a later version of this program wrote it: use that one, or move the file away (registrations are lost)", path.display())]
    Later { path: PathBuf },
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
}

fn bind_advice(reason: &std::io::Error) -> String {
    use std::io::ErrorKind::{AddrInUse, AddrNotAvailable, PermissionDenied};
    match reason.kind() {
        AddrInUse => "another process has it: stop that one (see `ss -lntup`), or configure another port".into(),
        AddrNotAvailable => "the machine has no such address: see `ip address`, and correct the configuration".into(),
        PermissionDenied => "not permitted: ports below 1024 need root or CAP_NET_BIND_SERVICE".into(),
        _ => reason.to_string(),
    }
}
