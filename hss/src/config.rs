//! Configuration of the HSS: `configs/hss.toml` has every key with its default.

use ims_core::config::{ConfigError, Span};
use ims_core::{Secret, Wiring};
use ims_diameter::cx::{ChargingInformation, ServerCapabilities};
use ims_diameter::{EndpointConfig, PeerConfig};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use xml_ifc::trigger::{self, Finding};
use xml_ifc::{Criteria, Ifc};

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The home domain: identities are derived with it, and it is the Diameter realm.
    pub domain: String,
    /// Where I- and S-CSCFs connect to (Cx, Diameter over TCP).
    pub listen: Vec<SocketAddr>,
    /// Names, peers and timers of Diameter. Without peers, `icscf.DOMAIN` and `scscf.DOMAIN` may connect.
    pub diameter: EndpointConfig,
    /// The slot (IND, 0 to 31) in which this HSS counts sequence numbers (TS 33.102 Annex C). Another authentication centre
    /// that shares the SIMs, such as the packet core's HSS, must use another.
    pub ind: u8,
    /// Visited networks that subscribers without a list of their own may register in; empty: all. Home is always allowed.
    pub visited_networks: Vec<String>,
    /// What an S-CSCF for these subscribers must or should be able to do; subscribers may have their own.
    pub capabilities: Capabilities,
    /// Criteria that many subscribers have in common: subscribers name them as `service_profile`.
    pub service_profiles: BTreeMap<String, NamedProfile>,
    /// The one of subscribers that name none.
    pub default_service_profile: Option<String>,
    /// Charging functions, told to the S-CSCF with the profile.
    pub charging: Charging,
    /// Keep the S-CSCF's name when it asks for that on de-registration.
    pub keep_server_name: bool,
    /// How long the store may take to answer, in seconds or with a unit.
    pub store_timeout: Span,
    /// How long what an MAR changes (sequence numbers, pending authentications) may wait to be written when it has been answered; 0:
    /// it is on disk before. A crash repeats no sequence number either way, but may forget that a challenge is pending.
    pub write_behind: Span,
    /// The most requests and commands in progress; beyond it, peers are told DIAMETER_TOO_BUSY.
    pub max_pending: usize,
    /// When the oldest request waits longer than this for the store, what begins a registration is told DIAMETER_TOO_BUSY;
    /// what completes one (SAR) goes on.
    pub busy_after: Span,
    /// How many subscribers are kept in memory. 0 if another program writes to the same store.
    pub cache: usize,
    /// For how long one that nobody asks for stays there; 0: as long as there is room.
    pub cache_idle: Span,
    /// Seals K and OPc. Set by whoever starts the HSS, from a file or the environment, never from this configuration.
    #[serde(skip)]
    pub master_key: Option<Secret<32>>,
    /// Master keys of earlier times, for records that were not written since.
    #[serde(skip)]
    pub earlier_master_keys: Vec<Secret<32>>,
}

/// Server-Capabilities (TS 29.229 6.3.4): numbers whose meaning the operator sets, and names of fitting S-CSCFs.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Capabilities {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mandatory: Vec<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub optional: Vec<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub server_names: Vec<String>,
}

impl Capabilities {
    pub(crate) fn to_cx(&self) -> ServerCapabilities {
        ServerCapabilities {
            mandatory: self.mandatory.clone(),
            optional: self.optional.clone(),
            server_names: self.server_names.clone(),
        }
    }
}

/// What several subscribers have in common of their services.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NamedProfile {
    /// A list, or `InitialFilterCriteria` elements as text.
    pub criteria: Criteria,
    /// Sets that the S-CSCF holds, by number.
    pub shared_ifc_sets: Vec<u32>,
}

impl NamedProfile {
    /// Another one when something in it changes: an S-CSCF that has the profile of before is given this one.
    pub(crate) fn mark(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.criteria.0, &self.shared_ifc_sets).hash(&mut hasher);
        hasher.finish()
    }
}

/// The finding for which criteria are not taken.
pub(crate) fn unusable(criteria: &[Ifc]) -> Option<Finding> {
    let is_wrong = |f: &Finding| f.is_error() || matches!(f, Finding::SamePriority { .. });
    trigger::check(criteria).into_iter().find(is_wrong)
}

/// Diameter URIs of charging collection functions (offline) and event charging functions (online).
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Charging {
    pub primary_ccf: Option<String>,
    pub secondary_ccf: Option<String>,
    pub primary_ecf: Option<String>,
    pub secondary_ecf: Option<String>,
}

impl Charging {
    pub(crate) fn to_cx(&self) -> Option<ChargingInformation> {
        let information = ChargingInformation {
            primary_ccf: self.primary_ccf.clone(),
            secondary_ccf: self.secondary_ccf.clone(),
            primary_ecf: self.primary_ecf.clone(),
            secondary_ecf: self.secondary_ecf.clone(),
        };
        (information != ChargingInformation::default()).then_some(information)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            domain: "ims.mnc001.mcc001.3gppnetwork.org".into(),
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 3868))],
            diameter: EndpointConfig::default(),
            ind: 4,
            visited_networks: Vec::new(),
            capabilities: Capabilities::default(),
            service_profiles: BTreeMap::new(),
            default_service_profile: None,
            charging: Charging::default(),
            keep_server_name: true,
            store_timeout: Span::secs(3),
            write_behind: Span::secs(1),
            max_pending: 10_000,
            busy_after: Span::secs(1),
            cache: 50_000,
            cache_idle: Span::secs(60),
            master_key: None,
            earlier_master_keys: Vec::new(),
        }
    }
}

impl Config {
    pub fn wiring(&self) -> Wiring {
        Wiring { diameter: self.listen.clone(), ..Wiring::default() }
    }

    /// Names that were not given follow from the domain.
    pub(crate) fn endpoint(&self) -> EndpointConfig {
        let (mut endpoint, unset) = (self.diameter.clone(), EndpointConfig::default());
        if endpoint.origin_host == unset.origin_host {
            endpoint.origin_host = format!("hss.{}", self.domain);
        }
        if endpoint.origin_realm == unset.origin_realm {
            endpoint.origin_realm = self.domain.clone();
        }
        if endpoint.peers.is_empty() {
            let peer = |role| PeerConfig { host: Some(format!("{role}.{}", self.domain)), ..PeerConfig::default() };
            endpoint.peers = ["icscf", "scscf"].map(peer).into();
        }
        endpoint
    }

    /// What can be wrong with the service profiles.
    pub fn check_services(&self) -> Result<(), ConfigError> {
        let invalid = |reason: String| Err(ConfigError::Invalid { file: "hss".into(), reason });
        for (name, profile) in &self.service_profiles {
            if let Some(finding) = unusable(&profile.criteria.0) {
                return invalid(format!("service_profiles.{name}: {finding}"));
            }
        }
        match self.default_service_profile.as_ref().filter(|name| !self.service_profiles.contains_key(*name)) {
            Some(name) => invalid(format!("default_service_profile: there is no [service_profiles.{name}]")),
            None => Ok(()),
        }
    }

    pub(crate) fn check(&self) -> Result<&Secret<32>, ConfigError> {
        let invalid = |reason: &str| Err(ConfigError::Invalid { file: "hss".into(), reason: reason.into() });
        if usize::from(self.ind) >= ims_aka::Sqn::SLOTS {
            return invalid("ind: the slot has 5 bits, give 0 to 31");
        }
        if self.domain.is_empty() || self.domain.contains(|c: char| c.is_whitespace() || c == '@' || c == ':') {
            return invalid("domain: give a domain name such as ims.mnc001.mcc001.3gppnetwork.org");
        }
        self.check_services()?;
        match &self.master_key {
            Some(key) => Ok(key),
            None => invalid("no master key: set IMSBOX_MASTER_KEY or let the HSS make hss.key in its data folder"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_file_says_what_the_defaults_are() {
        let text = include_str!("../../configs/hss.toml");
        let shell = text.find("[shell]").unwrap_or(text.len());
        let shipped: Config = ims_core::config::parse("configs/hss.toml", &text[..shell]).unwrap();
        assert_eq!(format!("{:?}", shipped.endpoint()), format!("{:?}", Config::default().endpoint()));
        let without_endpoint = |c: Config| format!("{:?}", Config { diameter: EndpointConfig::default(), ..c });
        assert_eq!(without_endpoint(shipped), without_endpoint(Config::default()));
    }

    #[test]
    fn an_unknown_key_a_bad_slot_and_a_missing_master_key_are_errors() {
        assert!(ims_core::config::parse::<Config>("t", "domian = 'x'").is_err());
        assert!(Config::default().check().is_err());
        let key = || Some(Secret::new([1; 32]));
        assert!(Config { master_key: key(), ..Config::default() }.check().is_ok());
        assert!(Config { master_key: key(), ind: 32, ..Config::default() }.check().is_err());
    }

    #[test]
    fn a_service_profile_is_checked_and_marked() {
        let read = |text: &str| {
            let config = ims_core::config::parse::<Config>("t", text);
            config.map(|c| Config { master_key: Some(Secret::new([1; 32])), ..c }).map_err(|e| e.to_string())
        };
        let good = "default_service_profile = 'volte'\n[service_profiles.volte]\nshared_ifc_sets = [5]\n\
                    criteria = [{ priority = 1, server = 'sip:as@b', when = { method = 'INVITE' } }]";
        let config = read(good).unwrap();
        config.check().unwrap();
        let other = read(&good.replace("INVITE", "MESSAGE")).unwrap();
        let mark = |c: &Config| c.service_profiles["volte"].mark();
        assert!(mark(&config) != mark(&other) && mark(&config) == mark(&read(good).unwrap()));
        let check = |text: &str| read(text).and_then(|c| c.check().map(drop).map_err(|e| e.to_string())).unwrap_err();
        assert!(check(&good.replace("= 'volte'", "= 'vilte'")).contains("no [service_profiles.vilte]"));
        let wrong = check(&good.replace("method = 'INVITE'", "request_uri = '*'"));
        assert!(wrong.contains("service_profiles.volte") && wrong.contains("no regular expression"), "{wrong}");
        assert!(check(&good.replace("sip:as@b", "as")).contains("names no server"));
        assert!(check(&good.replace("priority", "prio")).contains("unknown field `prio`"));
    }

    #[test]
    fn names_follow_from_the_domain() {
        let config: Config =
            ims_core::config::parse("t", "domain = 'ims.example'\n[diameter]\nwatchdog = '6s'").unwrap();
        let endpoint = config.endpoint();
        assert_eq!((endpoint.origin_host.as_str(), endpoint.origin_realm.as_str()), ("hss.ims.example", "ims.example"));
        assert_eq!(endpoint.peers[1].host.as_deref(), Some("scscf.ims.example"));
    }
}
