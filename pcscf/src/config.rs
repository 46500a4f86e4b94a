//! The configuration of a P-CSCF (`configs/pcscf.toml`).

pub use crate::emergency::{Emergency, EmergencyPolicy};
use ims_core::config::{ConfigError, Span};
use ims_core::sa::{AuthAlg, EncAlg, Suite};
use ims_core::{Impi, Plmn, Rng, SipListener, Wiring};
use ims_sip::endpoint::SipTimers;
use ims_sip::locate::StaticHops;
use serde::{Deserialize, Deserializer};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;

const DOMAIN: &str = "ims.mnc001.mcc001.3gppnetwork.org";

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Host name of this P-CSCF as the core knows it: Path, Via towards the core, icid-generated-at.
    pub host: String,
    /// What P-Visited-Network-ID says (RFC 7315 4.3).
    pub visited_network: String,
    /// Home domains that a UE may register with here; empty: `visited_network` and the domains of `next_hops`.
    pub home_domains: Vec<String>,
    /// Whether P-Access-Network-Info of a UE is passed on to the core; what only a network may write never is.
    pub trust_access_network_info: bool,
    /// The access network as P-Access-Network-Info names it, such as "3GPP-E-UTRAN-FDD": written, as provided by the network,
    /// where a UE says nothing. Empty: nothing is written.
    pub access_network: String,
    /// Whether a UE that is called decides by P-Early-Media what is heard before it answers (RFC 5009).
    pub trust_early_media: bool,
    /// What becomes of a request whose Route is not the Service-Route of its UE, or not the route of its dialog.
    pub route_mismatch: RoutePolicy,
    /// Whether the P-CSCF subscribes to the registration state of each user (TS 24.229 5.2.3), and so hears at once when the network ends
    /// a registration. It costs six SIP messages and a location query for each registration.
    pub subscribe_reg_event: bool,
    /// Whether registrations and their SAs outlast this process. What is written has no keys: those stay in the kernel,
    /// with the SAs, which end with the registration at the latest. Otherwise the end of the process ends them all.
    pub keep_registrations: bool,
    /// The side of the handsets.
    pub gm: Gm,
    /// The side of the core.
    pub mw: Mw,
    /// Where requests go without DNS: host name -> targets such as "udp:127.0.0.1:4060", in order of preference.
    pub next_hops: BTreeMap<String, Vec<String>>,
    /// Security agreement and IPsec.
    pub security: Security,
    pub timers: TimersConfig,
    pub limits: Limits,
    /// Emergency calls.
    pub emergency: Emergency,
    /// What is taken from those who send in clear.
    pub sources: Sources,
    /// What happens when registrations come faster than they can be served.
    pub overload: Overload,
}

/// TS 24.229 5.2.6.3.3 lets a P-CSCF do either.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RoutePolicy {
    /// The right one takes its place.
    Replace,
    /// 400.
    Refuse,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gm {
    /// Addresses that handsets reach, IPv4 and IPv6. Each a real address: 0.0.0.0 and :: are refused.
    pub addresses: Vec<IpAddr>,
    /// Unprotected port for the first REGISTER, UDP and TCP.
    pub port: u16,
    /// port_ps: where protected requests of UEs arrive.
    pub protected_server_port: u16,
    /// port_pc: where protected requests to UEs leave from; another one at each re-authentication. "FIRST-LAST".
    pub protected_client_ports: PortRange,
    /// What a packet to a handset may have in bytes. Requests that ESP would make larger go by TCP, within the same SA set.
    pub path_mtu: usize,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mw {
    /// Address and port of the core side, UDP and TCP.
    pub listen: SocketAddr,
    /// Requests larger than this many bytes go by TCP (RFC 3261 18.1.1: 1300 unless the path MTU is known).
    pub udp_limit: usize,
}

/// What becomes of a UE that does not agree on IPsec.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// It is refused, and so is every UE while the kernel has no ESP.
    Require,
    /// It registers without protection.
    Allow,
    /// Nobody gets IPsec: for laboratories that want to read the traffic.
    Never,
}

/// A policy for some subscribers. It names them in one of three ways, by the private identity that the UE claims: it is
/// the one that the UE has to prove.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rule {
    /// This private identity and no other.
    pub impi: Option<Impi>,
    /// Everybody whose IMSI begins so: the part of the private identity before the @, when it is an IMSI.
    pub imsi_prefix: Option<String>,
    /// Everybody with the home domain of this network, "MCC/MNC" (TS 23.003 13.2).
    pub plmn: Option<String>,
    pub policy: Option<Policy>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Security {
    /// "require", "allow" or "never" IPsec.
    pub policy: Policy,
    /// Who is treated otherwise: the first rule that fits a UE decides, and `policy` when none does.
    pub rules: Vec<Rule>,
    /// Algorithms in order of preference, "ALG/EALG" in the words of TS 33.203 Annex H. A UE gets the first that it
    /// offers too and that the kernel has. hmac-md5-96 and des-ede3-cbc are known, but only used when named here.
    pub preference: Vec<SuiteName>,
    /// The q value in Security-Server, 0 to 1.
    pub q: f32,
    /// Refuse a UE whose Security-Client changed between the challenged REGISTER and the answer (TS 24.229 5.2.2.2):
    /// somebody may have taken the strong algorithms off the first one.
    pub compare_client: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TimersConfig {
    /// RFC 3261 timers towards the UE (TS 24.229 7.7).
    pub ue_t1: Span,
    pub ue_t2: Span,
    pub ue_t4: Span,
    /// RFC 3261 timers towards the core.
    pub core_t1: Span,
    pub core_t2: Span,
    pub core_t4: Span,
    /// Lifetime of an SA set from the challenge until its UE is authenticated: reg-await-auth of the S-CSCF.
    pub await_auth: Span,
    /// How much longer than the registration its SA set lives (TS 24.229 5.2.2.2).
    pub sa_margin: Span,
    /// How long a set that is no longer needed still carries answers: 64*T1 (TS 33.203 7.4).
    pub sa_linger: Span,
    /// How long the kernel may take to answer.
    pub kernel_answer: Span,
    /// How often the SAs of the kernel are compared with ours, and their counters read.
    pub sa_audit: Span,
    /// A session without a session timer (RFC 4028) is watched for so long; one with it, until that ends.
    pub longest_session: Span,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// UEs that are registered or about to be.
    pub max_registrations: usize,
    /// REGISTERs on their way through the core or waiting for the kernel.
    pub max_pending: usize,
    /// UEs behind one address that are about to be registered: more is one that fills our tables. A load generator
    /// wants as many as it has REGISTERs under way.
    pub max_attempts_per_address: usize,
    /// Bytes of a message that comes in clear; larger ones are dropped. A REGISTER has 1 to 3 kB, and parts of it are
    /// kept before anybody is authenticated.
    pub max_unprotected_size: usize,
    /// Public identities that one UE may register one by one over one SA set.
    pub max_identities: usize,
    /// Sessions of UEs here, ringing or answered; a call between two of them is two.
    pub max_sessions: usize,
    /// SIP transactions of both sides.
    pub max_transactions: usize,
}

/// Limits for each source of messages in clear: an address, or a network of IPv6.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sources {
    /// Messages a second that are taken from one source; 0: no limit. What is more is dropped unread.
    pub rate: u64,
    /// How many may come at once.
    pub burst: u64,
    /// Addresses of one such IPv6 network are one source: a handset has a whole /64 (RFC 6459 5.2).
    pub ipv6_prefix: u8,
    /// A source with more failures than this within `ban_window` is banned; 0: nobody is. Failures: messages that cannot be
    /// read, registrations of unknown users, authentications that fail. A registration that is accepted makes up for one.
    pub ban_after: u64,
    pub ban_window: Span,
    /// For how long nothing in clear is taken from it.
    pub ban_time: Span,
    /// Networks that are neither limited nor banned.
    pub never_ban: Vec<Network>,
    /// Whoever says one of these in User-Agent is banned at once. Case does not matter.
    pub scanner_agents: Vec<String>,
    /// Sources that are remembered; beyond it, those that were quiet longest are forgotten.
    pub max_sources: usize,
    /// Bans in force at once; beyond it, the one that ends first is lifted.
    pub max_bans: usize,
}

/// When the P-CSCF refuses new registrations with 503 and Retry-After.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Overload {
    /// Whether new registrations are limited by what can be served; the limits of `[limits]` hold in any case.
    pub enabled: bool,
    /// Requests from outside may wait so long for this node, in the kernel's queue and in ours.
    pub target_wait: Span,
    /// The core may take so long for the answer to a REGISTER: less than core_t1, or requests are repeated. Where it
    /// always takes longer, three times what is usual counts. A core that asks for patience (Retry-After) is overloaded in any case.
    pub target_answer: Span,
    /// How often the rate of new registrations is set anew.
    pub interval: Span,
    /// New registrations a second that are let in however bad it is.
    pub least_rate: u32,
    /// Retry-After of a 503 is drawn between these, so that not all come back together.
    pub retry_after_least: Span,
    pub retry_after_most: Span,
}

/// Addresses that begin with the same bits, written "192.0.2.0/24" or "2001:db8::/32".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network {
    first: IpAddr,
    bits: u8,
}

/// Ports in a row, written "6101-6108".
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortRange(pub RangeInclusive<u16>);

/// A suite, written "hmac-sha-1-96/aes-cbc".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SuiteName(pub Suite);

impl Default for Config {
    fn default() -> Self {
        Self {
            host: format!("pcscf.{DOMAIN}"),
            visited_network: DOMAIN.into(),
            home_domains: Vec::new(),
            trust_access_network_info: true,
            access_network: String::new(),
            trust_early_media: false,
            route_mismatch: RoutePolicy::Replace,
            subscribe_reg_event: false,
            keep_registrations: true,
            gm: Gm::default(),
            mw: Mw::default(),
            next_hops: BTreeMap::from([
                (DOMAIN.to_owned(), vec!["udp:127.0.0.1:4060".to_owned()]),
                (format!("scscf.{DOMAIN}"), vec!["udp:127.0.0.1:6060".to_owned()]),
            ]),
            security: Security::default(),
            timers: TimersConfig::default(),
            limits: Limits::default(),
            emergency: Emergency::default(),
            sources: Sources::default(),
            overload: Overload::default(),
        }
    }
}

impl Default for Gm {
    fn default() -> Self {
        Self {
            addresses: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
            port: 5060,
            protected_server_port: 6100,
            protected_client_ports: PortRange(6101..=6108),
            path_mtu: 1500,
        }
    }
}

impl Default for Mw {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 5070)), udp_limit: 1300 }
    }
}

impl Default for Security {
    fn default() -> Self {
        let suite = |alg, ealg| SuiteName(Suite { alg, ealg });
        Self {
            policy: Policy::Allow,
            rules: Vec::new(),
            preference: vec![
                suite(AuthAlg::HmacSha1_96, EncAlg::AesCbc),
                suite(AuthAlg::Null, EncAlg::AesGcm),
                suite(AuthAlg::HmacSha1_96, EncAlg::Null),
                suite(AuthAlg::AesGmac, EncAlg::Null),
            ],
            q: 0.1,
            compare_client: true,
        }
    }
}

impl Default for TimersConfig {
    fn default() -> Self {
        Self {
            ue_t1: Span(SipTimers::UE.t1),
            ue_t2: Span(SipTimers::UE.t2),
            ue_t4: Span(SipTimers::UE.t4),
            core_t1: Span(SipTimers::CORE.t1),
            core_t2: Span(SipTimers::CORE.t2),
            core_t4: Span(SipTimers::CORE.t4),
            await_auth: Span::secs(240),
            sa_margin: Span::secs(30),
            sa_linger: Span::secs(128),
            kernel_answer: Span::secs(5),
            sa_audit: Span::secs(60),
            longest_session: Span::secs(24 * 3600),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_registrations: 100_000,
            max_pending: 20_000,
            max_attempts_per_address: 5_000,
            max_unprotected_size: 8192,
            max_identities: 16,
            max_sessions: 100_000,
            max_transactions: 100_000,
        }
    }
}

impl Default for Sources {
    fn default() -> Self {
        let agents = ["friendly-scanner", "sipvicious", "sundayddr", "sip-scan", "sipcli", "VaxSIPUserAgent"];
        Self {
            rate: 500,
            burst: 2000,
            ipv6_prefix: 64,
            ban_after: 20,
            ban_window: Span::secs(60),
            ban_time: Span::secs(600),
            never_ban: ["127.0.0.0/8", "::1/128"].iter().filter_map(|n| Network::parse(n)).collect(),
            scanner_agents: agents.map(str::to_owned).to_vec(),
            max_sources: 65_536,
            max_bans: 10_000,
        }
    }
}

impl Default for Overload {
    fn default() -> Self {
        Self {
            enabled: true,
            target_wait: Span::millis(100),
            target_answer: Span::millis(300),
            interval: Span::millis(100),
            least_rate: 10,
            retry_after_least: Span::secs(5),
            retry_after_most: Span::secs(30),
        }
    }
}

impl Sources {
    pub fn spares(&self, ip: IpAddr) -> bool {
        self.never_ban.iter().any(|network| network.has(ip))
    }
}

impl Overload {
    /// Seconds for Retry-After.
    pub fn retry_after(&self, rng: &mut Rng) -> u64 {
        let (least, most) = (self.retry_after_least.0.as_secs(), self.retry_after_most.0.as_secs());
        least + rng.below(most.saturating_sub(least) + 1)
    }
}

impl Network {
    pub fn parse(text: &str) -> Option<Self> {
        let (first, bits) = match text.split_once('/') {
            Some((first, bits)) => (first.parse::<IpAddr>().ok()?, Some(bits.parse::<u8>().ok()?)),
            None => (text.parse().ok()?, None),
        };
        let most = if first.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(most);
        (bits <= most).then_some(Self { first, bits })
    }

    pub fn has(&self, ip: IpAddr) -> bool {
        match (self.first, ip.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => same_start(a.to_bits().into(), b.to_bits().into(), 32 - self.bits),
            (IpAddr::V6(a), IpAddr::V6(b)) => same_start(a.to_bits(), b.to_bits(), 128 - self.bits),
            _ => false,
        }
    }
}

fn same_start(a: u128, b: u128, free_bits: u8) -> bool {
    (a ^ b).checked_shr(free_bits.into()).unwrap_or(0) == 0
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let no = || serde::de::Error::custom(format!("'{text}' is no network: write 192.0.2.0/24 or 2001:db8::/32"));
        Self::parse(&text).ok_or_else(no)
    }
}

impl Config {
    /// One unprotected and all protected listeners for each address of the handset side, and one for the core side.
    pub fn wiring(&self) -> Wiring {
        let mut sip = vec![SipListener::open(self.mw.listen)];
        for ip in &self.gm.addresses {
            sip.push(SipListener::open(SocketAddr::new(*ip, self.gm.port)));
            if self.security.protects_anybody() {
                let protected = |port| SipListener::protected(SocketAddr::new(*ip, port));
                sip.extend(self.gm.protected_ports().map(protected).map(|listener| match self.keep_registrations {
                    true => listener.keeping_sas(),
                    false => listener,
                }));
            }
        }
        Wiring { sip, diameter: Vec::new() }
    }

    /// `[next_hops]` as the endpoint wants it.
    pub fn static_hops(&self) -> Result<StaticHops, ConfigError> {
        StaticHops::read(&self.next_hops).map_err(invalid)
    }

    /// Everything that can be wrong with a configuration by itself.
    pub fn check(&self) -> Result<(), ConfigError> {
        let name = |text: &str| {
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'))
        };
        let refuse = |wrong: bool, reason: &str| if wrong { Err(invalid(reason.into())) } else { Ok(()) };
        refuse(!name(&self.host), "host: write the host name of the P-CSCF, such as pcscf.ims.example")?;
        refuse(!name(&self.visited_network), "visited_network: write a domain name")?;
        self.gm.check()?;
        refuse(self.mw.listen.ip().is_unspecified(), "mw.listen: write an address of this machine, not 0.0.0.0")?;
        refuse(
            self.wiring().sip.iter().map(|l| l.addr).collect::<BTreeSet<_>>().len() != self.wiring().sip.len(),
            "mw.listen: this address and port is in use on the side of the handsets",
        )?;
        let security = &self.security;
        refuse(!(0.0..=1.0).contains(&security.q), "security.q: write a number from 0 to 1")?;
        refuse(
            security.preference.is_empty() && security.protects_anybody(),
            "security.preference: name at least one suite, or set security.policy = \"never\"",
        )?;
        security.rules.iter().enumerate().try_for_each(|(n, rule)| rule.check(n + 1))?;
        let t = &self.timers;
        let spans =
            [t.ue_t1, t.ue_t2, t.ue_t4, t.core_t1, t.core_t2, t.core_t4, t.await_auth, t.kernel_answer, t.sa_audit];
        refuse(t.longest_session.0.is_zero(), "timers.longest_session: some hours")?;
        let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        refuse(!self.access_network.bytes().all(word), "access_network: write one word, such as 3GPP-E-UTRAN-FDD")?;
        refuse(spans.iter().any(|s| s.0.is_zero()), "timers: only sa_margin and sa_linger may be zero")?;
        let l = &self.limits;
        let limits = [
            l.max_registrations,
            l.max_pending,
            l.max_attempts_per_address,
            l.max_unprotected_size,
            l.max_identities,
            l.max_sessions,
            l.max_transactions,
        ];
        refuse(limits.contains(&0), "limits: none may be zero")?;
        self.emergency.check()?;
        let s = &self.sources;
        refuse(s.rate > 0 && s.burst == 0, "sources.burst: at least 1, or no message would ever be taken")?;
        refuse(s.ipv6_prefix == 0 || s.ipv6_prefix > 128, "sources.ipv6_prefix: 1 to 128 bits")?;
        refuse(s.max_sources < 2 || s.max_bans == 0, "sources: max_sources and max_bans may not be zero")?;
        let o = &self.overload;
        let spans = [o.target_wait, o.target_answer, o.interval, s.ban_window, s.ban_time];
        refuse(spans.iter().any(|s| s.0.is_zero()), "overload, sources: no duration may be zero")?;
        refuse(
            o.retry_after_least > o.retry_after_most || o.retry_after_least.0.as_secs() == 0,
            "overload.retry_after_least: at least 1s, and not above retry_after_most",
        )?;
        self.static_hops().map(drop)
    }

    /// Whether a UE may register with this domain here.
    pub fn serves(&self, domain: &str) -> bool {
        let same = |name: &String| name.eq_ignore_ascii_case(domain);
        match self.home_domains.is_empty() {
            true => {
                same(&self.visited_network) || self.next_hops.keys().any(|host| same(host) && !self.is_element(host))
            }
            false => self.home_domains.iter().any(same),
        }
    }

    /// Whether this host of `next_hops` is in a domain of it: an S-CSCF, not a domain.
    fn is_element(&self, host: &str) -> bool {
        let mut domains = std::iter::once(&self.visited_network).chain(self.next_hops.keys());
        domains.any(|domain| host.strip_suffix(domain.as_str()).is_some_and(|rest| rest.ends_with('.')))
    }

    pub fn is_gm(&self, local: SocketAddr) -> bool {
        local != self.mw.listen && self.gm.addresses.contains(&local.ip())
    }

    /// Whether this is the port that anybody may send to.
    pub fn is_clear(&self, local: SocketAddr) -> bool {
        self.is_gm(local) && local.port() == self.gm.port
    }

    /// Whether this is one of the ports behind IPsec.
    pub fn is_protected(&self, local: SocketAddr) -> bool {
        self.is_gm(local) && self.gm.protected_ports().any(|p| p == local.port())
    }
}

impl Gm {
    /// Requests to a handset larger than this go by TCP. 200 bytes are for an answer that is larger than its request (RFC 3261
    /// 18.1.1); ESP adds SPI, sequence number, IV, padding and ICV (RFC 4303 2).
    pub(crate) fn udp_limit(&self) -> usize {
        const ANSWER: usize = 200;
        const ESP: usize = 4 + 4 + 16 + 16 + 2 + 16;
        self.path_mtu.saturating_sub(ANSWER + ESP)
    }

    /// port_ps, then every port_pc.
    pub fn protected_ports(&self) -> impl Iterator<Item = u16> + use<> {
        std::iter::once(self.protected_server_port).chain(self.protected_client_ports.0.clone())
    }

    fn check(&self) -> Result<(), ConfigError> {
        let refuse = |wrong: bool, reason: &str| if wrong { Err(invalid(reason.into())) } else { Ok(()) };
        refuse(self.addresses.is_empty(), "gm.addresses: name at least one address that handsets reach")?;
        refuse(self.path_mtu < 576, "gm.path_mtu: at least 576")?;
        refuse(
            self.addresses.iter().any(IpAddr::is_unspecified),
            "gm.addresses: 0.0.0.0 and :: do not work with IPsec; name the addresses of this machine",
        )?;
        let distinct: BTreeSet<_> = self.addresses.iter().collect();
        refuse(distinct.len() != self.addresses.len(), "gm.addresses: an address stands there twice")?;
        refuse(self.addresses.len() > 64, "gm.addresses: at most 64")?;
        let pc = &self.protected_client_ports.0;
        refuse(pc.is_empty() || pc.len() > 256 || *pc.start() == 0, "gm.protected_client_ports: 1 to 256 ports")?;
        refuse(pc.len() < 3, "gm.protected_client_ports: a UE may hold three SA sets at once, so give at least 3")?;
        let ports = [self.port, self.protected_server_port];
        refuse(
            ports.contains(&0) || ports[0] == ports[1] || ports.iter().any(|p| pc.contains(p)),
            "gm: port, protected_server_port and protected_client_ports must all differ",
        )
    }
}

impl Security {
    /// What becomes of a UE that claims this private identity.
    pub fn policy_for(&self, impi: &Impi) -> Policy {
        self.rules.iter().filter(|r| r.fits(impi)).find_map(|r| r.policy).unwrap_or(self.policy)
    }

    /// Whether there is anybody who may have IPsec.
    pub fn protects_anybody(&self) -> bool {
        self.rules.iter().filter_map(|r| r.policy).chain([self.policy]).any(|p| p != Policy::Never)
    }

    /// Whether there is anybody who must have it.
    pub fn is_required_of_somebody(&self) -> bool {
        self.rules.iter().filter_map(|r| r.policy).chain([self.policy]).any(|p| p == Policy::Require)
    }
}

impl Rule {
    fn check(&self, number: usize) -> Result<(), ConfigError> {
        let said = [self.impi.is_some(), self.imsi_prefix.is_some(), self.plmn.is_some()];
        let wrong = if said.iter().filter(|s| **s).count() != 1 {
            "write one of impi, imsi_prefix and plmn"
        } else if self.policy.is_none() {
            "policy is missing: write \"require\", \"allow\" or \"never\""
        } else if self.impi.as_ref().is_some_and(|i| Impi::parse(i.as_str()).is_err()) {
            "impi: write user@realm"
        } else if self.imsi_prefix.as_ref().is_some_and(|p| !is_digits(p) || p.len() > 15) {
            "imsi_prefix: write 1 to 15 digits"
        } else if self.plmn.as_ref().is_some_and(|p| Plmn::parse(p).is_err()) {
            "plmn: write MCC/MNC, such as \"001/01\""
        } else {
            return Ok(());
        };
        Err(invalid(format!("security.rules, rule {number}: {wrong}")))
    }

    fn fits(&self, impi: &Impi) -> bool {
        let (user, realm) = impi.as_str().split_once('@').unwrap_or((impi.as_str(), ""));
        self.impi.as_ref().is_some_and(|i| i == impi)
            || self.imsi_prefix.as_ref().is_some_and(|p| is_digits(user) && user.starts_with(p.as_str()))
            || self
                .plmn
                .as_ref()
                .and_then(|p| Plmn::parse(p).ok())
                .is_some_and(|p| p.home_domain().eq_ignore_ascii_case(realm))
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

impl PortRange {
    pub fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.split_once('-')?;
        let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        (first <= last).then_some(Self(first..=last))
    }
}

impl<'de> Deserialize<'de> for PortRange {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("'{text}' is no range: write 6101-6108")))
    }
}

impl SuiteName {
    pub fn parse(text: &str) -> Option<Self> {
        let (alg, ealg) = text.split_once('/')?;
        let suite = Suite { alg: AuthAlg::from_token(alg.trim())?, ealg: EncAlg::from_token(ealg.trim())? };
        suite.is_valid().then_some(Self(suite))
    }
}

impl<'de> Deserialize<'de> for SuiteName {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Self::parse(&text).ok_or_else(|| {
            serde::de::Error::custom(format!("'{text}' is no pair of algorithms: write hmac-sha-1-96/aes-cbc"))
        })
    }
}

pub(crate) fn invalid(reason: String) -> ConfigError {
    ConfigError::Invalid { file: "pcscf".into(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ims_core::config::parse;

    #[test]
    fn the_default_is_the_loopback_laboratory() {
        let c = Config::default();
        c.check().unwrap();
        let wiring = c.wiring();
        assert_eq!(wiring.sip.len(), 11);
        assert_eq!(wiring.sip.iter().filter(|l| l.protected).count(), 9);
        assert!(c.is_protected("127.0.0.1:6100".parse().unwrap()) && c.is_protected("127.0.0.1:6108".parse().unwrap()));
        assert!(!c.is_protected("127.0.0.1:5060".parse().unwrap()));
    }

    #[test]
    fn the_sample_file_says_what_the_default_is() {
        let text = include_str!("../../configs/pcscf.toml");
        // The folder and the store are the matter of the shell.
        let shell = text.find("[shell]").unwrap_or(text.len());
        let sample: Config = parse("configs/pcscf.toml", &text[..shell]).unwrap();
        sample.check().unwrap();
        assert_eq!(format!("{sample:?}"), format!("{:?}", Config::default()));
    }

    #[test]
    fn a_network_is_an_address_and_how_many_of_its_bits_count() {
        let has = |network: &str, ip: &str| Network::parse(network).unwrap().has(ip.parse().unwrap());
        assert!(has("192.0.2.0/24", "192.0.2.255") && !has("192.0.2.0/24", "192.0.3.0"));
        assert!(has("192.0.2.7", "::ffff:192.0.2.7") && !has("192.0.2.7", "192.0.2.6"));
        assert!(has("0.0.0.0/0", "8.8.8.8") && !has("0.0.0.0/0", "2001:db8::1") && has("::/0", "2001:db8::1"));
        assert!(has("2001:db8::/33", "2001:db8:7fff::1") && !has("2001:db8::/33", "2001:db8:8000::1"));
        assert_eq!([Network::parse("192.0.2.0/33"), Network::parse("ims"), Network::parse("::/x")], [None; 3]);
    }

    #[test]
    fn mistakes_are_named() {
        let wrong = |text: &str| match parse::<Config>("x", text).and_then(|c| c.check()) {
            Err(e) => e.to_string(),
            Ok(()) => panic!("accepted: {text}"),
        };
        assert!(wrong("gm.addresses = [\"0.0.0.0\"]").contains("gm.addresses"));
        assert!(wrong("gm.addresses = []").contains("gm.addresses"));
        assert!(wrong("gm.port = 6100").contains("must all differ"));
        assert!(wrong("gm.protected_client_ports = \"6108-6101\"").contains("6101-6108"));
        assert!(wrong("mw.listen = \"127.0.0.1:6105\"").contains("mw.listen"));
        assert!(wrong("security.preference = [\"hmac-sha-1-96/aes-gcm\"]").contains("no pair of algorithms"));
        assert!(wrong("security.preference = []").contains("security.preference"));
        assert!(wrong("security.q = 2.0").contains("security.q"));
        for (rule, what) in [
            ("policy = 'never'", "one of impi"),
            ("plmn = '001/01', imsi_prefix = '1', policy = 'never'", "one of impi"),
            ("plmn = '001/01'", "policy is missing"),
            ("plmn = '00101', policy = 'never'", "MCC/MNC"),
            ("imsi_prefix = '00101x', policy = 'never'", "digits"),
            ("impi = 'somebody', policy = 'never'", "user@realm"),
        ] {
            let text = wrong(&format!(
                "[[security.rules]]\nimsi_prefix = '001'\npolicy = 'allow'\n[[security.rules]]\n{}",
                rule.replace(", ", "\n")
            ));
            assert!(text.contains("rule 2") && text.contains(what), "{rule}: {text}");
        }
        assert!(wrong("timers.await_auth = 0").contains("timers"));
        assert!(wrong("typo = 1").contains("typo"));
        assert!(wrong("host = \"a b\"").contains("host"));
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let rules = "[security]\npolicy = 'require'\nrules = [\n\
            { impi = 'lab@ims.mnc001.mcc001.3gppnetwork.org', policy = 'never' },\n\
            { imsi_prefix = '001019', policy = 'allow' },\n\
            { imsi_prefix = '00101', policy = 'require' },\n\
            { plmn = '262/98', policy = 'never' },\n\
        ]";
        let c: Config = parse("x", rules).unwrap();
        c.check().unwrap();
        let of = |impi: &str| c.security.policy_for(&Impi::parse(impi).unwrap());
        assert_eq!(of("lab@ims.mnc001.mcc001.3gppnetwork.org"), Policy::Never);
        assert_eq!(of("001019000000001@ims.mnc001.mcc001.3gppnetwork.org"), Policy::Allow);
        assert_eq!(of("001010000000001@anywhere.example"), Policy::Require);
        assert_eq!(of("262980000000001@ims.mnc098.mcc262.3GPPnetwork.org"), Policy::Never);
        assert_eq!(of("001019-lab@x.example"), Policy::Require, "no IMSI");
        assert!(c.security.protects_anybody() && c.security.is_required_of_somebody());
        let c: Config = parse("x", &rules.replace("require", "never").replace("allow", "never")).unwrap();
        assert!(!c.security.protects_anybody() && c.wiring().sip.iter().all(|l| !l.protected));
    }
}
