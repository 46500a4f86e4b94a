//! The machine's addresses, for defaults and for `imsbox check`.

use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags};
use std::collections::HashMap;
use std::net::IpAddr;
use tracing::debug;

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
    let Ok((connection, handle, _)) = rtnetlink::new_connection() else { return Vec::new() };
    let task = tokio::spawn(connection);
    let found = read(&handle).await;
    task.abort();
    found.inspect_err(|error| debug!(%error, "the kernel does not tell the machine's addresses")).unwrap_or_default()
}

async fn read(handle: &rtnetlink::Handle) -> Result<Vec<LocalAddress>, rtnetlink::Error> {
    let mut links = HashMap::new();
    let mut answers = handle.link().get().execute();
    while let Some(link) = answers.try_next().await? {
        let name = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        });
        links.insert(link.header.index, (name.unwrap_or_default(), link.header.flags));
    }
    let mut found = Vec::new();
    let mut answers = handle.address().get().execute();
    while let Some(message) = answers.try_next().await? {
        let Some((interface, flags)) = links.get(&message.header.index) else { continue };
        // On a point-to-point link Address is the peer's, and Local ours.
        let local = message
            .attributes
            .iter()
            .find_map(|a| if let AddressAttribute::Local(addr) = a { Some(*addr) } else { None });
        let given = message
            .attributes
            .iter()
            .find_map(|a| if let AddressAttribute::Address(addr) = a { Some(*addr) } else { None });
        if let Some(addr) = local.or(given) {
            found.push(LocalAddress {
                interface: interface.clone(),
                addr,
                loopback: flags.contains(LinkFlags::Loopback),
                link_local: is_link_local(addr),
                up: flags.contains(LinkFlags::Up),
            });
        }
    }
    Ok(found)
}

fn is_link_local(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_loopback_address_is_among_them() {
        let all = local_addresses().await;
        // A machine may forbid the question; what it tells must be right.
        assert!(all.is_empty() || all.iter().any(|a| a.loopback && a.addr.is_loopback()), "{all:?}");
        assert!(is_link_local("fe80::1".parse().unwrap()) && !is_link_local("2001:db8::1".parse().unwrap()));
    }
}
