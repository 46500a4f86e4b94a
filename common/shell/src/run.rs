//! Nodes as tasks. API first; the inside follows.

use crate::{Settings, StartError};
use ims_core::{Node, Problem, Wiring};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Nodes and what they need, before they run.
pub struct Shell {
    settings: Settings,
    nodes: Vec<(String, Box<dyn Node + Send>, Wiring)>,
    stores: Vec<(String, PathBuf)>,
}

impl Shell {
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            nodes: Vec::new(),
            stores: Vec::new(),
        }
    }

    /// Adds a node under a unique name (`pcscf`, `icscf`, `scscf`, `hss`, `ue`, ...), with the sockets it wants open. Port 0 binds
    /// any port, told in [`Running::listening`].
    pub fn node(mut self, name: &str, node: Box<dyn Node + Send>, wiring: Wiring) -> Self {
        self.nodes.push((name.into(), node, wiring));
        self
    }

    /// Gives the node `name` a durable store in this file.
    pub fn store_for(mut self, name: &str, path: impl Into<PathBuf>) -> Self {
        self.stores.push((name.into(), path.into()));
        self
    }

    /// Binds everything, opens the stores, then starts the nodes ([`ims_core::Event::Start`]). All or nothing.
    pub async fn start(self) -> Result<Running, StartError> {
        let Self {
            settings,
            nodes,
            stores,
        } = self;
        drop((settings, nodes, stores));
        todo!()
    }
}

/// One open socket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listening {
    pub node: String,
    /// `sip/udp`, `sip/tcp`, `diameter/tcp`, `http`.
    pub service: &'static str,
    pub addr: SocketAddr,
    /// Behind IPsec.
    pub protected: bool,
}

impl fmt::Display for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protected = if self.protected { " (IPsec only)" } else { "" };
        write!(f, "{} {} on {}{protected}", self.node, self.service, self.addr)
    }
}

/// Nodes that run. Dropping it stops them at once; [`Running::shutdown`] also cleans up behind them.
pub struct Running {
    /// All sockets, in the order of the nodes.
    pub listening: Vec<Listening>,
    /// Where the REST API's bearer token is, when there is a REST API.
    pub admin_token: Option<PathBuf>,
}

impl Running {
    /// The address of the REST API, when there is one.
    pub fn http(&self) -> Option<SocketAddr> {
        self.listening.iter().find(|l| l.service == "http").map(|l| l.addr)
    }

    /// Sends a command (`subscriber.create`, ...) to a node and waits for its reply.
    pub async fn command(
        &self,
        _node: &str,
        _call: &str,
        _args: serde_json::Value,
    ) -> Result<serde_json::Value, Problem> {
        todo!()
    }

    /// The state of a node, as `GET /v1/status` shows it; None when there is no such node.
    pub async fn snapshot(&self, _node: &str) -> Option<serde_json::Value> {
        todo!()
    }

    /// Ends the nodes, closes the sockets, removes what was put into the kernel.
    pub async fn shutdown(self) {}
}
