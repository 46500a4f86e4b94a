//! The box's configuration (`configs/imsbox.toml`): a few values from which those of the four roles follow. A role's own
//! table (`[pcscf]`, `[icscf]`, `[scscf]`, `[hss]`) has the keys of that role's file, and overrides what follows.

use anyhow::{Context, Result};
use ims_core::Plmn;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// Where `imsbox` looks when no `--config` is given.
const SYSTEM_FILE: &str = "/etc/imsbox/imsbox.toml";
/// Inside one process messages cross no network, so no MTU applies (RFC 3261 18.1.1).
const LOOPBACK_MTU: i64 = 65_000;

macro_rules! table {
    ($($key:expr => $value:expr),* $(,)?) => {
        Table::from_iter([$(($key.to_string(), Value::from($value))),*])
    };
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct BoxConfig {
    /// Home network as MCC/MNC.
    plmn: String,
    /// Home domain; follows from the PLMN (TS 23.003 13.2) unless given.
    domain: Option<String>,
    /// Address of the core side: I-CSCF 4060, S-CSCF 6060, P-CSCF 5070, Cx 3868.
    core_address: IpAddr,
    gm: Gm,
    /// The process: `ims_shell::Settings`.
    shell: Table,
    pcscf: Table,
    icscf: Table,
    scscf: Table,
    hss: Table,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Gm {
    /// Addresses that handsets reach; `["auto"]`: all of this machine's but link-local ones.
    addresses: Vec<String>,
    /// Port of the first REGISTER.
    port: u16,
}

impl Default for BoxConfig {
    fn default() -> Self {
        Self {
            plmn: "001/01".into(),
            domain: None,
            core_address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            gm: Gm::default(),
            shell: Table::new(),
            pcscf: Table::new(),
            icscf: Table::new(),
            scscf: Table::new(),
            hss: Table::new(),
        }
    }
}

impl Default for Gm {
    fn default() -> Self {
        Self { addresses: vec!["auto".into()], port: 5060 }
    }
}

/// `/var/lib/imsbox` for root, the user's state folder for others.
fn default_data_dir() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|h| Path::new(&h).join(".local/state"));
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0);
    match std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).or_else(home) {
        _ if is_root => "/var/lib/imsbox".into(),
        Some(state) => state.join("imsbox"),
        None => "imsbox-data".into(),
    }
}

/// What the program works with: everything decided.
pub(crate) struct Settings {
    pub(crate) plmn: Plmn,
    pub(crate) domain: String,
    pub(crate) gm_addresses: Vec<IpAddr>,
    pub(crate) rest: SocketAddr,
    pub(crate) shell: ims_shell::Settings,
    pub(crate) pcscf: pcscf::Config,
    pub(crate) icscf: icscf::Config,
    pub(crate) scscf: scscf::Config,
    pub(crate) hss: hss::Config,
}

impl Settings {
    /// From a file, `/etc/imsbox/imsbox.toml`, or the defaults. `machine` is every address of this machine.
    pub(crate) fn load(file: Option<&Path>, machine: &[IpAddr]) -> Result<Self> {
        let system = Path::new(SYSTEM_FILE);
        match file.or_else(|| system.exists().then_some(system)) {
            None => Self::decide(BoxConfig::default(), machine, "built-in defaults"),
            Some(path) => {
                let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
                let name = path.display().to_string();
                Self::decide(ims_core::config::parse(&name, &text)?, machine, &name)
            }
        }
    }

    fn decide(config: BoxConfig, machine: &[IpAddr], file: &str) -> Result<Self> {
        let plmn = Plmn::parse(&config.plmn).with_context(|| format!("{file}: plmn"))?;
        let domain = config.domain.clone().unwrap_or_else(|| plmn.home_domain());
        let data_dir = table! { "data_dir" => default_data_dir().display().to_string() };
        let shell: ims_shell::Settings = role(file, "shell", data_dir, config.shell.clone())?;
        let shell = shell.with_environment().map_err(anyhow::Error::msg)?;
        let gm_addresses = config.gm_addresses(machine).with_context(|| format!("{file}: gm.addresses"))?;
        let core = config.core_address;
        let derived = Derived { domain: &domain, core, gm_port: config.gm.port, gm_addresses: &gm_addresses };
        let rest = shell.http.or(Some(SocketAddr::new(core, 8080))).unwrap_or(SocketAddr::new(core, 8080));
        let mut scscf: scscf::Config = role(file, "scscf", derived.scscf(), config.scscf)?;
        scscf.read_files(|path| std::fs::read(path)).with_context(|| format!("{file}: [scscf]"))?;
        Ok(Self {
            pcscf: role(file, "pcscf", derived.pcscf(), config.pcscf)?,
            icscf: role(file, "icscf", derived.icscf(), config.icscf)?,
            scscf,
            hss: role(file, "hss", derived.hss(), config.hss)?,
            plmn,
            domain,
            gm_addresses,
            rest,
            shell,
        })
    }

    pub(crate) fn token_file(&self) -> PathBuf {
        self.shell.token_file()
    }
}

impl BoxConfig {
    fn gm_addresses(&self, machine: &[IpAddr]) -> Result<Vec<IpAddr>> {
        let mut out: Vec<IpAddr> = Vec::new();
        for text in &self.gm.addresses {
            let found = match text.as_str() {
                "auto" => machine.to_vec(),
                _ => vec![text.parse().with_context(|| format!("'{text}' is neither an address nor \"auto\""))?],
            };
            for ip in found {
                if !out.contains(&ip) {
                    out.push(ip);
                }
            }
        }
        Ok(out)
    }
}

/// A role's configuration: what follows from the box, under what its table says.
fn role<T: DeserializeOwned>(file: &str, name: &str, mut derived: Table, own: Table) -> Result<T> {
    merge(&mut derived, own);
    Value::Table(derived).try_into().with_context(|| format!("{file}: [{name}]"))
}

fn merge(under: &mut Table, over: Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(Value::Table(under)), Value::Table(over)) => merge(under, over),
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}

struct Derived<'a> {
    domain: &'a str,
    core: IpAddr,
    gm_port: u16,
    gm_addresses: &'a [IpAddr],
}

impl Derived<'_> {
    fn at(&self, port: u16) -> String {
        SocketAddr::new(self.core, port).to_string()
    }

    fn hop(&self, port: u16) -> Value {
        Value::from(vec![format!("udp:{}", self.at(port))])
    }

    fn diameter(&self, role: &str, connect: bool) -> Table {
        let mut table = table! {
            "origin_host" => format!("{role}.{}", self.domain),
            "origin_realm" => self.domain,
            "host_ip" => self.core.to_string(),
        };
        if connect {
            let hss = table! {
                "host" => format!("hss.{}", self.domain),
                "realm" => self.domain,
                "connect" => self.at(3868),
            };
            table.insert("peers".into(), Value::from(vec![Value::Table(hss)]));
        }
        table
    }

    fn pcscf(&self) -> Table {
        table! {
            "host" => format!("pcscf.{}", self.domain),
            "visited_network" => self.domain,
            "gm" => table! {
                "addresses" => self.gm_addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "port" => i64::from(self.gm_port),
            },
            "mw" => table! { "listen" => self.at(5070), "udp_limit" => LOOPBACK_MTU },
            "next_hops" => table! {
                self.domain => self.hop(4060),
                format!("scscf.{}", self.domain) => self.hop(6060),
            },
        }
    }

    fn icscf(&self) -> Table {
        let scscf = table! { "name" => format!("sip:scscf.{}:6060", self.domain) };
        table! {
            "host" => format!("icscf.{}", self.domain),
            "domains" => vec![self.domain],
            "listen" => self.at(4060),
            "udp_limit" => LOOPBACK_MTU,
            "visited_network" => self.domain,
            "scscf" => vec![Value::Table(scscf)],
            "next_hops" => table! { format!("scscf.{}", self.domain) => self.hop(6060) },
            "diameter" => self.diameter("icscf", true),
        }
    }

    fn scscf(&self) -> Table {
        table! {
            "domain" => self.domain,
            "host" => format!("scscf.{}", self.domain),
            "listen" => self.at(6060),
            "udp_limit" => LOOPBACK_MTU,
            "next_hops" => table! {
                format!("pcscf.{}", self.domain) => self.hop(5070),
                self.domain => self.hop(4060),
            },
            "diameter" => self.diameter("scscf", true),
        }
    }

    fn hss(&self) -> Table {
        table! {
            "domain" => self.domain,
            "listen" => vec![self.at(3868)],
            "diameter" => self.diameter("hss", false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(text: &str) -> Result<Settings> {
        let config = ims_core::config::parse("test.toml", text)?;
        Settings::decide(config, &["192.0.2.7".parse()?], "test.toml")
    }

    #[test]
    fn everything_follows_from_plmn_and_addresses() {
        let settings = decide("plmn = \"262/98\"\ncore_address = \"127.1.2.3\"").unwrap();
        assert_eq!(settings.domain, "ims.mnc098.mcc262.3gppnetwork.org");
        assert_eq!(settings.gm_addresses, ["192.0.2.7".parse::<IpAddr>().unwrap()]);
        assert_eq!(settings.pcscf.host, "pcscf.ims.mnc098.mcc262.3gppnetwork.org");
        assert_eq!(settings.rest.to_string(), "127.1.2.3:8080");
        assert_eq!(settings.hss.listen[0].to_string(), "127.1.2.3:3868");
    }

    #[test]
    fn a_roles_table_overrides_and_its_typos_are_named() {
        let settings = decide("[pcscf.gm]\nprotected_server_port = 7000").unwrap();
        assert_eq!((settings.pcscf.gm.protected_server_port, settings.pcscf.gm.port), (7000, 5060));
        let error = format!("{:#}", decide("[pcscf.security]\npolcy = \"allow\"").err().unwrap());
        assert!(error.contains("[pcscf]") && error.contains("polcy"), "{error}");
        assert!(decide("plnm = \"001/01\"").is_err());
        assert!(format!("{:#}", decide("plmn = \"1/1\"").err().unwrap()).contains("plmn"));
    }

    #[test]
    fn what_the_manual_shows_can_be_read() {
        let manual = include_str!("../../docs/calls.md");
        let blocks: Vec<String> = manual
            .split("```toml\n")
            .skip(1)
            .filter_map(|rest| rest.split("```").next())
            // Inside of a list they stand further in.
            .map(|block| block.lines().map(|line| line.trim_start()).collect::<Vec<_>>().join("\n"))
            .collect();
        assert!(blocks.len() > 3);
        // A file that is named is not there.
        for block in blocks.iter().filter(|block| !block.contains("file = ")) {
            let settings = decide(block).unwrap_or_else(|e| panic!("{e:#}\n{block}"));
            settings.scscf.check().unwrap_or_else(|e| panic!("{e:#}\n{block}"));
        }
    }

    #[test]
    fn the_shipped_configuration_is_the_default() {
        let shipped = decide(include_str!("../../configs/imsbox.toml")).unwrap();
        let default = decide("").unwrap();
        assert_eq!(format!("{:?}", shipped.pcscf), format!("{:?}", default.pcscf));
        assert_eq!(shipped.rest, default.rest);
        assert_eq!(shipped.shell.data_dir, default.shell.data_dir);
    }
}
