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
}

impl SipListener {
    pub fn open(addr: SocketAddr) -> Self {
        Self { addr, protected: false }
    }

    pub fn protected(addr: SocketAddr) -> Self {
        Self { addr, protected: true }
    }
}
