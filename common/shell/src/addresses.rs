//! The machine's addresses, for defaults and for `imsbox check`.

use std::net::IpAddr;

/// One address of one interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LocalAddress {
    pub interface: String,
    pub addr: IpAddr,
    pub loopback: bool,
    /// fe80::/10: not usable as a SIP address, it means nothing without its interface.
    pub link_local: bool,
    pub up: bool,
}

/// All addresses of all interfaces, in the kernel's order. Empty when the kernel does not tell.
pub async fn local_addresses() -> Vec<LocalAddress> {
    Vec::new()
}
