//! The configuration of an I-CSCF (`configs/icscf.toml`).

use ims_core::config::{ConfigError, Span};
use ims_core::uri::{Uri, host_of};
use ims_core::{SipListener, Wiring};
use ims_diameter::endpoint::{EndpointConfig, To};
use ims_sip::endpoint::SipTimers;
use ims_sip::locate::StaticHops;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

const DOMAIN: &str = "ims.mnc001.mcc001.3gppnetwork.org";

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Host name of this I-CSCF: Via, and what OPTIONS may ask for.
    pub host: String,
    /// Address and port, UDP and TCP.
    pub listen: SocketAddr,
    /// Requests larger than this many bytes go by TCP (RFC 3261 18.1.1: 1300 unless the path MTU is known).
    pub udp_limit: usize,
    /// Domains of our users.
    pub domains: Vec<String>,
    /// Domains of services, each with the SIP URI of its application server: their requests go there without asking the HSS.
    pub psi_domains: BTreeMap<String, String>,
    /// SIP URI of what is asked for numbers that the HSS does not know (a BGCF); absent: they are answered 404.
    pub transit: Option<String>,
    /// Addresses of our own network (TS 24.229 4.4). From elsewhere, no REGISTER is taken and no originating request, and
    /// what only the network may say is taken off; empty: everyone who can reach us is of our network.
    pub trusted: Vec<IpAddr>,
    /// The visited network to tell the HSS when the REGISTER names none.
    pub visited_network: String,
    /// The S-CSCFs to choose from, in order of preference between equals.
    pub scscf: Vec<Scscf>,
    /// Realm of the HSS; absent: ours.
    pub hss_realm: Option<String>,
    /// Where requests go without DNS: host name -> targets such as "udp:127.0.0.1:6060", in order of preference.
    pub next_hops: BTreeMap<String, Vec<String>>,
    /// The side of the HSS.
    pub diameter: EndpointConfig,
    pub timers: Timers,
    pub limits: Limits,
}

/// One S-CSCF and what it can do.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scscf {
    /// Its SIP URI, as the HSS will store it.
    pub name: String,
    /// Numbers with the meaning that the operator gave them in the HSS (TS 29.228 6.7).
    #[serde(default)]
    pub capabilities: Vec<u32>,
}

/// RFC 3261 17.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timers {
    /// Round trip estimate: the first retransmission. An S-CSCF that says nothing for 64 times this is given up for
    /// another one (TS 24.229 5.3.1.3); half of what the P-CSCF has, or the P-CSCF would give up on us meanwhile.
    pub t1: Span,
    /// Longest retransmission interval.
    pub t2: Span,
    /// How long a message stays in the network.
    pub t4: Span,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Requests on their way at one time, INVITEs until their final answer.
    pub max_pending: usize,
    /// SIP transactions of both sides.
    pub max_transactions: usize,
}

impl Default for Config {
    fn default() -> Self {
        let name = format!("sip:scscf.{DOMAIN}:6060");
        Self {
            host: format!("icscf.{DOMAIN}"),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 4060)),
            udp_limit: 1300,
            domains: vec![DOMAIN.into()],
            psi_domains: BTreeMap::new(),
            transit: None,
            trusted: Vec::new(),
            visited_network: DOMAIN.into(),
            scscf: vec![Scscf { name, capabilities: Vec::new() }],
            hss_realm: None,
            next_hops: BTreeMap::from([(format!("scscf.{DOMAIN}"), vec!["udp:127.0.0.1:6060".to_owned()])]),
            diameter: EndpointConfig::asking_hss(format!("icscf.{DOMAIN}"), DOMAIN),
            timers: Timers::default(),
            limits: Limits::default(),
        }
    }
}

impl Default for Timers {
    fn default() -> Self {
        Self { t1: Span(SipTimers::CORE.t1 / 2), t2: Span(SipTimers::CORE.t2), t4: Span(SipTimers::CORE.t4) }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_pending: 20_000, max_transactions: 100_000 }
    }
}

impl Config {
    /// The sockets to open.
    pub fn wiring(&self) -> Wiring {
        Wiring { sip: vec![SipListener::open(self.listen)], diameter: Vec::new() }
    }

    /// Everything that can be wrong with a configuration by itself.
    pub fn check(&self) -> Result<(), ConfigError> {
        let refuse = |wrong: bool, reason: &str| if wrong { Err(invalid(reason.into())) } else { Ok(()) };
        refuse(self.listen.ip().is_unspecified(), "listen: write an address of this machine, not 0.0.0.0")?;
        refuse(self.host.is_empty(), "host: write the host name of the I-CSCF, such as icscf.ims.example")?;
        refuse(self.scscf.is_empty(), "scscf: name at least one S-CSCF")?;
        for scscf in &self.scscf {
            let is_sip = Uri::parse(&scscf.name).is_ok_and(|uri| uri.is_sip());
            refuse(!is_sip, "scscf.name: write a SIP URI, such as sip:scscf.ims.example:6060")?;
        }
        refuse(self.domains.is_empty(), "domains: name the domain of your users")?;
        let is_sip = |text: &String| Uri::parse(text).is_ok_and(|uri| uri.is_sip());
        refuse(!self.psi_domains.values().all(is_sip), "psi_domains: write SIP URIs, such as sip:as.ims.example:5080")?;
        refuse(!self.transit.iter().all(is_sip), "transit: write a SIP URI, such as sip:bgcf.ims.example")?;
        self.diameter.check_asking_hss("I-CSCF").map_err(invalid)?;
        let t = [self.timers.t1, self.timers.t2, self.timers.t4];
        refuse(t.iter().any(|s| s.0.is_zero()), "timers: none may be zero")?;
        refuse(self.limits.max_pending == 0 || self.limits.max_transactions == 0, "limits: none may be zero")?;
        self.static_hops().map(drop)
    }

    pub(crate) fn sip_endpoint(&self) -> Result<ims_sip::endpoint::EndpointConfig, ConfigError> {
        let timers = SipTimers { t1: self.timers.t1.0, t2: self.timers.t2.0, t4: self.timers.t4.0 };
        Ok(ims_sip::endpoint::EndpointConfig {
            core: timers,
            ue: SipTimers::UE,
            local: self.listen,
            sent_by: format!("{}:{}", host_of(self.listen.ip()), self.listen.port()),
            udp_limit: self.udp_limit,
            hops: self.static_hops()?,
            max_transactions: self.limits.max_transactions,
            server_location: Default::default(),
        })
    }

    /// Where Cx requests go: any HSS of the realm.
    pub(crate) fn hss(&self) -> To {
        self.diameter.any_of(self.hss_realm.as_deref())
    }

    /// Whether a Request-URI names this very element.
    pub(crate) fn is_me(&self, uri: &str) -> bool {
        Uri::parse(uri).is_ok_and(|uri| self.names_me(&uri))
    }

    pub(crate) fn names_me(&self, uri: &Uri<'_>) -> bool {
        let port = uri.port().unwrap_or(self.listen.port()) == self.listen.port();
        let host = || uri.host().eq_ignore_ascii_case(&self.host) || uri.host_ip() == Some(self.listen.ip());
        uri.is_sip() && port && host()
    }

    pub(crate) fn is_ours(&self, domain: &str) -> bool {
        self.domains.iter().any(|ours| ours.eq_ignore_ascii_case(domain))
    }

    /// The application server of a domain of services.
    pub(crate) fn psi_server(&self, domain: &str) -> Option<&str> {
        self.psi_domains.iter().find(|(of, _)| of.eq_ignore_ascii_case(domain)).map(|(_, server)| server.as_str())
    }

    fn static_hops(&self) -> Result<StaticHops, ConfigError> {
        StaticHops::read(&self.next_hops).map_err(invalid)
    }
}

fn invalid(reason: String) -> ConfigError {
    ConfigError::Invalid { file: "icscf".into(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_file_says_what_the_defaults_are() {
        let text = include_str!("../../configs/icscf.toml");
        let shipped: Config = ims_core::config::parse("icscf.toml", text).unwrap();
        shipped.check().unwrap();
        assert_eq!(format!("{shipped:?}"), format!("{:?}", Config::default()));
    }

    #[test]
    fn unknown_keys_and_impossible_values_are_errors() {
        let parse = |text: &str| ims_core::config::parse::<Config>("x", text);
        assert!(parse("lissten = 1").is_err());
        for text in [
            "listen = '0.0.0.0:4060'",
            "scscf = []",
            "scscf = [{ name = 'tel:1' }]",
            "timers.t1 = 0",
            "limits.max_pending = 0",
            "domains = []",
            "psi_domains = { 'conference.ims.example' = 'as.ims.example' }",
            "transit = 'tel:+1'",
            "[next_hops]\n'a' = []",
        ] {
            assert!(parse(text).unwrap().check().is_err(), "{text}");
        }
    }

    #[test]
    fn knows_itself_by_name_and_address() {
        let config = Config::default();
        assert!(config.is_me("sip:ICSCF.ims.mnc001.mcc001.3gppnetwork.org"));
        assert!(config.is_me("sip:127.0.0.1:4060"));
        assert!(!config.is_me("sip:127.0.0.1:5060") && !config.is_me("tel:+1"));
    }
}
