//! The `[diameter]` section that every role with Diameter has.

use crate::endpoint::To;
use ims_core::config::Span;
use serde::Deserialize;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// What an [`crate::Endpoint`] is told. Fill in what differs and take the rest from `..EndpointConfig::default()`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EndpointConfig {
    /// Our own name towards peers (Origin-Host).
    pub origin_host: String,
    /// The realm that we belong to and serve (Origin-Realm).
    pub origin_realm: String,
    /// The address that peers are told in Host-IP-Address.
    pub host_ip: IpAddr,
    /// (vendor, auth application): Cx, unless a role sets another.
    #[serde(skip)]
    pub applications: Vec<(u32, u32)>,
    /// Peers in order of preference. The place in this list is the `PeerId`.
    pub peers: Vec<PeerConfig>,
    /// Accept peers that are not configured.
    pub accept_unknown: bool,
    /// Tw of RFC 3539: silence after which a peer is asked whether it is there. At least 6 s in real networks. Default 30 s.
    #[serde(deserialize_with = "span")]
    pub watchdog: Duration,
    /// How long a request may wait for its answer, failover included. Default 5 s.
    #[serde(deserialize_with = "span")]
    pub request_timeout: Duration,
    /// The longest wait before a lost connection is tried again; the first waits are shorter. Default 10 s.
    #[serde(deserialize_with = "span")]
    pub reconnect: Duration,
    /// The most requests in flight, counted in each direction alone. Default 10000.
    pub max_pending: usize,
}

impl Default for EndpointConfig {
    fn default() -> Self {
        Self {
            origin_host: "node.ims.mnc001.mcc001.3gppnetwork.org".into(),
            origin_realm: "ims.mnc001.mcc001.3gppnetwork.org".into(),
            host_ip: Ipv4Addr::LOCALHOST.into(),
            applications: vec![(crate::dict::VENDOR_3GPP, crate::dict::APPLICATION_CX)],
            peers: Vec::new(),
            accept_unknown: false,
            watchdog: Duration::from_secs(30),
            request_timeout: Duration::from_secs(5),
            reconnect: Duration::from_secs(10),
            max_pending: 10_000,
        }
    }
}

impl EndpointConfig {
    /// Of a node that asks the HSS of its domain, where the box has it.
    pub fn asking_hss(origin_host: String, domain: &str) -> Self {
        let connect = Some("127.0.0.1:3868".to_owned());
        let hss = PeerConfig { host: Some(format!("hss.{domain}")), realm: Some(domain.to_owned()), connect };
        Self { origin_host, peers: vec![hss], ..Self::default() }
    }

    /// What makes a node that asks an HSS useless, in one sentence for the operator; `role` is what it is called.
    pub fn check_asking_hss(&self, role: &str) -> Result<(), String> {
        if self.peers.is_empty() {
            return Err("diameter.peers: name the HSS, with host and connect".into());
        }
        if self.origin_host == Self::default().origin_host {
            return Err(format!("diameter.origin_host: give this {role} a Diameter name of its own"));
        }
        Ok(())
    }

    /// Any node of `realm`, or of our own realm.
    pub fn any_of(&self, realm: Option<&str>) -> To {
        To { realm: realm.unwrap_or(&self.origin_realm).to_owned(), host: None }
    }
}

/// One peer.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PeerConfig {
    /// Its Origin-Host. A peer that may connect to us needs it; for one that we connect to, it is checked.
    pub host: Option<String>,
    /// Its realm; otherwise learnt from the peer.
    pub realm: Option<String>,
    /// `host:port` that we open the connection to; without it, the peer connects to us.
    pub connect: Option<String>,
}

fn span<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
    Span::deserialize(d).map(|span| span.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_section_reads_as_it_is_documented() {
        let text = r#"
            origin_host = "hss.example"
            origin_realm = "example"
            watchdog = "10s"
            request_timeout = 3
            [[peers]]
            host = "scscf.example"
            [[peers]]
            connect = "192.0.2.1:3868""#;
        let config: EndpointConfig = ims_core::config::parse("test.toml", text).unwrap();
        assert_eq!((config.watchdog, config.request_timeout), (Duration::from_secs(10), Duration::from_secs(3)));
        assert_eq!(config.peers[1].connect.as_deref(), Some("192.0.2.1:3868"));
        assert!(ims_core::config::parse::<EndpointConfig>("test.toml", "watch_dog = 3").is_err());
    }
}
