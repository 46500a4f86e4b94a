//! Which address and port each handset has, and whose a message is.
//!
//! Handsets share sockets: one wildcard socket for each port, and the source address of each datagram is chosen when it is
//! sent. As long as there is an address for each handset, all have the same port; with fewer addresses, ports tell them
//! apart. A handset that comes back after it was away has another port, out of a few turns.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// How many ports a handset has in turn, where there are as many.
const TURNS: u32 = 8;

#[derive(Clone, Debug)]
pub(super) struct Places {
    first: IpAddr,
    addresses: u32,
    handsets: u32,
    port: u16,
    /// Ports in use at a time.
    slots: u32,
    turns: u32,
}

impl Places {
    /// `moving`: handsets come back on other ports.
    pub(super) fn new(first: IpAddr, addresses: u32, handsets: u32, port: u16, moving: bool) -> Result<Self, String> {
        let addresses = addresses.clamp(1, handsets.max(1));
        let slots = handsets.div_ceil(addresses).max(1);
        let room = u32::from(u16::MAX - port) + 1;
        let turns = if moving { TURNS.min(room / slots) } else { 1 };
        if slots > room || turns == 0 || moving && turns < 2 {
            return Err(format!(
                "{handsets} handsets do not fit on {addresses} addresses: give more with --addresses, or a lower --port"
            ));
        }
        if plus(first, addresses - 1).is_none() {
            return Err(format!("{addresses} addresses from {first} on: there are not so many"));
        }
        Ok(Self { first, addresses, handsets, port, slots, turns })
    }

    pub(super) fn address(&self, index: u32) -> IpAddr {
        plus(self.first, index % self.addresses).unwrap_or(self.first)
    }

    pub(super) fn port(&self, index: u32, turn: u32) -> u16 {
        let offset = index / self.addresses + self.slots * (turn % self.turns);
        u16::try_from(u32::from(self.port) + offset).unwrap_or(u16::MAX)
    }

    /// All ports that any handset may have.
    pub(super) fn ports(&self) -> impl Iterator<Item = u16> + use<> {
        let first = u32::from(self.port);
        (first..first + self.slots * self.turns).filter_map(|port| u16::try_from(port).ok())
    }

    /// Every handset has an address of its own.
    pub(super) fn are_addresses(&self) -> bool {
        self.slots == 1
    }

    pub(super) fn addresses(&self) -> u32 {
        self.addresses
    }

    /// The handset that has this address and port, at one turn or another. Ports below the first are those of security
    /// associations: there the address alone tells.
    pub(super) fn whose(&self, at: SocketAddr) -> Option<u32> {
        let offset = minus(at.ip(), self.first).filter(|offset| *offset < self.addresses)?;
        let slot = match u32::from(at.port()).checked_sub(u32::from(self.port)) {
            Some(port) => port % self.slots,
            None => 0,
        };
        Some(slot * self.addresses + offset).filter(|index| *index < self.handsets)
    }
}

fn plus(first: IpAddr, offset: u32) -> Option<IpAddr> {
    Some(match first {
        IpAddr::V4(a) => Ipv4Addr::from(u32::from(a).checked_add(offset)?).into(),
        IpAddr::V6(a) => Ipv6Addr::from(u128::from(a).checked_add(offset.into())?).into(),
    })
}

fn minus(at: IpAddr, first: IpAddr) -> Option<u32> {
    match (at, first) {
        (IpAddr::V4(a), IpAddr::V4(b)) => u32::from(a).checked_sub(b.into()),
        (IpAddr::V6(a), IpAddr::V6(b)) => u32::try_from(u128::from(a).checked_sub(b.into())?).ok(),
        _ => None,
    }
}

/// Where a message belongs: a response by the sent-by of its top Via, a request by the host of its Request-URI.
pub(super) fn addressee(bytes: &[u8]) -> Option<SocketAddr> {
    let head = bytes.get(..bytes.len().min(2048))?;
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(e) => std::str::from_utf8(head.get(..e.valid_up_to())?).ok()?,
    };
    let place = if text.starts_with("SIP/2.0 ") {
        let mut lines = text.split("\r\n").skip(1);
        let via = lines.find_map(|l| {
            let (name, value) = l.split_once(':')?;
            let name = name.trim();
            (name.eq_ignore_ascii_case("via") || name.eq_ignore_ascii_case("v")).then_some(value)
        })?;
        via.trim_start().split_once(' ')?.1.trim_start()
    } else {
        text.split_once('@')?.1
    };
    let end =
        place.find(|c: char| !c.is_ascii_hexdigit() && !matches!(c, '.' | ':' | '[' | ']')).unwrap_or(place.len());
    place.get(..end)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_finds_its_handset() {
        let response =
            b"SIP/2.0 401 Unauthorized\r\nFrom: <sip:a@1.2.3.4>\r\nv: SIP/2.0/UDP 127.64.3.9:5090;branch=z\r\n\r\n";
        assert_eq!(addressee(response), Some("127.64.3.9:5090".parse().unwrap()));
        let request = b"OPTIONS sip:x@[fd00::7]:5090;transport=udp SIP/2.0\r\n\r\n";
        assert_eq!(addressee(request), Some("[fd00::7]:5090".parse().unwrap()));
        assert_eq!(addressee(b"SIP/2.0 200 OK\r\n\r\n"), None);
        assert_eq!(addressee(&[0xff; 40]), None);
    }

    #[test]
    fn every_place_leads_back_to_its_handset() {
        for (first, addresses, handsets) in [("127.64.0.250", 500, 500), ("::1", 1, 300), ("127.64.0.1", 7, 100)] {
            let places = Places::new(first.parse().unwrap(), addresses, handsets, 5090, true).unwrap();
            let mut seen = std::collections::BTreeSet::new();
            for index in 0..handsets {
                for turn in 0..9 {
                    let at = SocketAddr::new(places.address(index), places.port(index, turn));
                    assert_eq!(places.whose(at), Some(index));
                    assert!(places.ports().any(|p| p == at.port()));
                    assert!(turn > 0 || seen.insert(at), "{at} is given twice");
                }
                assert_ne!(places.port(index, 0), places.port(index, 1));
            }
        }
    }

    #[test]
    fn strangers_belong_to_nobody_and_too_many_do_not_fit() {
        let places = Places::new("127.64.0.1".parse().unwrap(), 10, 10, 5090, false).unwrap();
        for stranger in ["127.64.0.11:5090", "127.63.0.1:5090", "[::1]:5090"] {
            assert_eq!(places.whose(stranger.parse().unwrap()), None, "{stranger}");
        }
        assert!(Places::new("::1".parse().unwrap(), 1, 70_000, 5090, false).is_err());
        assert!(Places::new("255.255.255.255".parse().unwrap(), 2, 2, 5090, false).is_err());
    }
}
