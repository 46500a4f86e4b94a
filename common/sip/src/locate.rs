//! Server location by RFC 3263, static next hops first. SKELETON.
use ims_core::Transport;
use std::collections::BTreeMap;

/// Host name (lower case; or `host:port`) -> where to send, in order of preference. Filled from config `[next_hops]`.
#[derive(Clone, Debug, Default)]
pub struct StaticHops(pub BTreeMap<String, Vec<Target>>);
/// An address, or a name with port for the system resolver ("scscf:6060" in compose).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target { pub transport: Option<Transport>, pub host: String, pub port: u16 }
impl Target {
    /// From `udp:127.0.0.1:4060`, `tcp:[::1]:4060`, `127.0.0.1:4060` (transport chosen by size), `icscf:4060`.
    pub fn parse(_text: &str) -> Option<Self> { todo!() }
}
