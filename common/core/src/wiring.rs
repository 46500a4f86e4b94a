//! The sockets that a node wants open, told by its configuration to whoever runs it.

use std::net::SocketAddr;

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Wiring {
    pub sip: Vec<SipListener>,
    /// Where Diameter peers may connect.
    pub diameter: Vec<SocketAddr>,
}

/// One address, bound for UDP and for TCP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SipListener {
    pub addr: SocketAddr,
    /// Behind IPsec: the kernel must drop what comes to or leaves from this port outside ESP.
    pub protected: bool,
    /// The associations of this port outlast the process: the node knows them again (`Event::Restored`), adopts them
    /// at its start, and has what it does not know removed (`Action::SaAudit`).
    pub keeps_sas: bool,
}

impl SipListener {
    pub fn open(addr: SocketAddr) -> Self {
        Self { addr, protected: false, keeps_sas: false }
    }

    pub fn protected(addr: SocketAddr) -> Self {
        Self { addr, protected: true, keeps_sas: false }
    }

    /// The same, with associations that outlast the process.
    pub fn keeping_sas(self) -> Self {
        Self { keeps_sas: self.protected, ..self }
    }
}
