//! The configuration of an S-CSCF (`configs/scscf.toml`).

use crate::breakout::Breakout;
use crate::numbering::Numbering;
use crate::shared_ifc::SharedIfc;
use ims_core::config::{ConfigError, Span};
use ims_core::uri::{Uri, host_of};
use ims_core::{SipListener, Wiring};
use ims_diameter::endpoint::{EndpointConfig, To};
use ims_sip::digest::DigestAlgorithm;
use ims_sip::endpoint::SipTimers;
use ims_sip::locate::StaticHops;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

const DOMAIN: &str = "ims.mnc001.mcc001.3gppnetwork.org";

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Host name of this S-CSCF.
    pub host: String,
    /// The SIP URI under which the HSS and the I-CSCF know this S-CSCF; absent: sip:HOST:PORT.
    pub name: Option<String>,
    /// Home domain: realm of challenges, inter operator identifier.
    pub domain: String,
    /// Other names of the home domain: what is sent there is sent to `domain`.
    pub aliases: Vec<String>,
    /// Address and port, UDP and TCP.
    pub listen: SocketAddr,
    /// Requests larger than this many bytes go by TCP (RFC 3261 18.1.1: 1300 unless the path MTU is known).
    pub udp_limit: usize,
    /// Qualities of protection to offer in a challenge: "auth", "auth-int", in order.
    pub qop: Vec<String>,
    pub registration: Registration,
    pub sessions: Sessions,
    pub reg_event: RegEvent,
    /// Criteria that profiles name by a number.
    pub shared_ifc: SharedIfc,
    /// What numbers mean.
    pub numbering: Numbering,
    /// Where calls go that are not for our users.
    pub breakout: Breakout,
    /// Realm of the HSS; absent: ours.
    pub hss_realm: Option<String>,
    /// Where requests go without DNS: host name -> targets such as "udp:127.0.0.1:5070", in order of preference.
    pub next_hops: BTreeMap<String, Vec<String>>,
    /// The side of the HSS.
    pub diameter: EndpointConfig,
    pub timers: Timers,
    pub limits: Limits,
}

/// TS 24.229 5.4.1.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Registration {
    /// Who wants less (and less than an hour) is told 423.
    pub min_expires: Seconds,
    /// Who wants more gets this.
    pub max_expires: Seconds,
    /// Who does not say gets this.
    pub default_expires: Seconds,
    /// reg-await-auth: how long a challenge waits for its answer.
    pub await_auth: Span,
    /// Whether a refresh over an unbroken security association is challenged again: "never", "always", or after how
    /// long, such as "24h". De-registering over one is never challenged.
    pub reauthenticate: Reauthenticate,
    /// Algorithms of IMS AKA offered to a UE, the preferred one first: "AKAv1-MD5", "AKAv2-SHA-256", "AKAv2-MD5". A UE that
    /// names one of them in its first REGISTER is offered that one alone.
    pub aka: Vec<AkaAlgorithm>,
    /// Serve users with a password too (SIP Digest, TS 33.203 Annex N): who comes without sec-agree may be one.
    pub digest: bool,
    /// How long a nonce of theirs is good for; after half of it the UE is given the next.
    pub nonce_lifetime: Span,
    /// A second UE (another +sip.instance) of the same private identity: "add" it, or let it "replace" the first.
    pub second_ue: SecondUe,
    /// Contacts of one user that are kept.
    pub max_contacts: usize,
    /// Take the private identity from To when there is no Authorization header (5.4.1.1); it is challenged all the same.
    pub derive_private_identity: bool,
    /// Believe the right answer of a UE outside IPsec too. The P-CSCF decides which UEs may do without.
    pub accept_unprotected: bool,
}

/// TS 24.229 5.4.3.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sessions {
    /// The I-CSCF that requests to users of ours go to, a SIP URI; absent: sip:DOMAIN.
    pub icscf: Option<String>,
    /// Communication services (ICSI) that users may ask for in P-Preferred-Service, such as
    /// "urn:urn-7:3gpp-service.ims.icsi.mmtel", with all that begins with one of them and a dot; empty: any.
    pub services: Vec<String>,
    /// The shortest interval of a session timer (RFC 4028): who wants a shorter one is told 422.
    pub min_se: Seconds,
}

/// Subscriptions to how a user is registered (TS 24.229 5.4.2.1, RFC 3680).
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegEvent {
    /// Who wants less is told 423.
    pub min_expires: Seconds,
    /// Who wants more gets this. A subscription ends with the registration in any case.
    pub max_expires: Seconds,
}

/// When a protected refresh is challenged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reauthenticate {
    Never,
    Always,
    /// When the last authentication is older.
    After(Span),
}

/// A version of AKA in SIP digest (RFC 3310, RFC 4169; TS 29.229 6.3.9).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
pub enum AkaAlgorithm {
    #[serde(rename = "AKAv1-MD5")]
    V1Md5,
    #[serde(rename = "AKAv2-MD5")]
    V2Md5,
    #[serde(rename = "AKAv2-SHA-256")]
    V2Sha256,
}

impl From<AkaAlgorithm> for DigestAlgorithm {
    fn from(algorithm: AkaAlgorithm) -> Self {
        match algorithm {
            AkaAlgorithm::V1Md5 => Self::AkaV1Md5,
            AkaAlgorithm::V2Md5 => Self::AkaV2Md5,
            AkaAlgorithm::V2Sha256 => Self::AkaV2Sha256,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SecondUe {
    Add,
    Replace,
}

impl Registration {
    /// What a UE is offered that names this algorithm, or none.
    pub(crate) fn aka_for(&self, named: Option<DigestAlgorithm>) -> Vec<DigestAlgorithm> {
        let allowed = || self.aka.iter().copied().map(DigestAlgorithm::from);
        match named.filter(|named| allowed().any(|a| a == *named)) {
            Some(named) => vec![named],
            None => allowed().collect(),
        }
    }
}

/// A duration in whole seconds, as SIP counts expiry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Seconds(u32);

impl Seconds {
    pub fn secs(self) -> u32 {
        self.0
    }
}

/// RFC 3261 17.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timers {
    /// Round trip estimate: the first retransmission.
    pub t1: Span,
    /// Longest retransmission interval.
    pub t2: Span,
    /// How long a message stays in the network.
    pub t4: Span,
    /// How long an application server may be silent, not even say 100, before the criterion's DefaultHandling counts.
    pub as_answer: Span,
    /// How long one that said 100 may take to say more, or to give the request back.
    pub as_progress: Span,
    /// How long the profile of a user that is not registered is kept for the next request.
    pub unregistered: Span,
    /// How long contacts are tried before those with a lower q value are.
    pub next_contacts: Span,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Implicit registration sets that are registered.
    pub max_registrations: usize,
    /// Challenges that wait for their answer.
    pub max_challenges: usize,
    /// Subscriptions to how users are registered.
    pub max_subscriptions: usize,
    /// Requests to the HSS on their way at one time.
    pub max_pending: usize,
    /// SIP transactions of both sides.
    pub max_transactions: usize,
    /// Requests in the hands of application servers.
    pub max_chains: usize,
    /// Profiles of users that are not registered.
    pub max_unregistered: usize,
}

impl Default for Config {
    fn default() -> Self {
        let hop = |to: &str| vec![to.to_owned()];
        Self {
            host: format!("scscf.{DOMAIN}"),
            name: None,
            domain: DOMAIN.into(),
            aliases: Vec::new(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 6060)),
            udp_limit: 1300,
            qop: vec!["auth".into()],
            registration: Registration::default(),
            sessions: Sessions::default(),
            reg_event: RegEvent::default(),
            shared_ifc: SharedIfc::default(),
            numbering: Numbering::default(),
            breakout: Breakout::default(),
            hss_realm: None,
            next_hops: BTreeMap::from([
                (DOMAIN.to_owned(), hop("udp:127.0.0.1:4060")),
                (format!("pcscf.{DOMAIN}"), hop("udp:127.0.0.1:5070")),
            ]),
            diameter: EndpointConfig::asking_hss(format!("scscf.{DOMAIN}"), DOMAIN),
            timers: Timers::default(),
            limits: Limits::default(),
        }
    }
}

impl Default for Registration {
    fn default() -> Self {
        Self {
            min_expires: Seconds(60),
            max_expires: Seconds(7200),
            default_expires: Seconds(3600),
            await_auth: Span::secs(240),
            reauthenticate: Reauthenticate::Never,
            aka: vec![AkaAlgorithm::V1Md5],
            digest: true,
            nonce_lifetime: Span::secs(86_400),
            second_ue: SecondUe::Add,
            max_contacts: 10,
            derive_private_identity: true,
            accept_unprotected: true,
        }
    }
}

impl Default for RegEvent {
    fn default() -> Self {
        Self { min_expires: Seconds(60), max_expires: Seconds(604_800) }
    }
}

impl Default for Sessions {
    fn default() -> Self {
        Self { icscf: None, services: Vec::new(), min_se: Seconds(90) }
    }
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            t1: Span(SipTimers::CORE.t1),
            t2: Span(SipTimers::CORE.t2),
            t4: Span(SipTimers::CORE.t4),
            as_answer: Span::secs(4),
            as_progress: Span::secs(20),
            unregistered: Span::secs(300),
            next_contacts: Span::secs(20),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_registrations: 500_000,
            max_challenges: 100_000,
            max_subscriptions: 1_500_000,
            max_pending: 20_000,
            max_transactions: 100_000,
            max_chains: 100_000,
            max_unregistered: 50_000,
        }
    }
}

impl Config {
    /// Reads the files that the configuration names, with what reads files.
    pub fn read_files(&mut self, read: impl Fn(&Path) -> io::Result<Vec<u8>>) -> Result<(), ConfigError> {
        self.shared_ifc.read(read)
    }

    /// The sockets to open.
    pub fn wiring(&self) -> Wiring {
        Wiring { sip: vec![SipListener::open(self.listen)], diameter: Vec::new() }
    }

    /// Everything that can be wrong with a configuration by itself.
    pub fn check(&self) -> Result<(), ConfigError> {
        let refuse = |wrong: bool, reason: &str| if wrong { Err(invalid(reason.into())) } else { Ok(()) };
        refuse(self.listen.ip().is_unspecified(), "listen: write an address of this machine, not 0.0.0.0")?;
        let is_sip = Uri::parse(&self.name()).is_ok_and(|uri| uri.is_sip());
        refuse(!is_sip, "host or name: write a host name, or a SIP URI such as sip:scscf.ims.example:6060")?;
        let domain = |text: &str| {
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'))
        };
        refuse(!domain(&self.domain), "domain: write a domain name")?;
        refuse(!self.aliases.iter().all(|a| domain(a)), "aliases: write domain names")?;
        let icscf = self.sessions.icscf.as_deref().map(Uri::parse);
        let icscf_is_sip = icscf.is_none_or(|uri| uri.is_ok_and(|uri| uri.is_sip()));
        // RFC 4028 4: 90 seconds at least.
        refuse(self.sessions.min_se.0 < 90, "sessions.min_se: 90 s at least")?;
        refuse(!icscf_is_sip, "sessions.icscf: write a SIP URI, such as sip:icscf.ims.example:4060")?;
        let qop = |q: &String| matches!(q.as_str(), "auth" | "auth-int");
        refuse(self.qop.is_empty() || !self.qop.iter().all(qop), "qop: write \"auth\", \"auth-int\" or both")?;
        let r = &self.registration;
        let ordered = r.min_expires <= r.default_expires && r.default_expires <= r.max_expires;
        refuse(!ordered || r.min_expires.0 == 0, "registration: 0 < min_expires <= default_expires <= max_expires")?;
        refuse(r.await_auth.0.is_zero(), "registration.await_auth: may not be zero")?;
        let twice = r.aka.iter().enumerate().any(|(at, a)| r.aka[..at].contains(a));
        refuse(r.aka.is_empty() || twice, "registration.aka: write each algorithm once, and one at least")?;
        refuse(r.nonce_lifetime.0.is_zero(), "registration.nonce_lifetime: may not be zero")?;
        refuse(r.max_contacts == 0 || r.max_contacts > 100, "registration.max_contacts: 1 to 100")?;
        let e = &self.reg_event;
        refuse(e.min_expires > e.max_expires || e.min_expires.0 == 0, "reg_event: 0 < min_expires <= max_expires")?;
        self.numbering.check().map_err(invalid)?;
        self.breakout.check().map_err(invalid)?;
        self.diameter.check_asking_hss("S-CSCF").map_err(invalid)?;
        self.shared_ifc.sets()?;
        let t = [
            self.timers.t1,
            self.timers.t2,
            self.timers.t4,
            self.timers.as_answer,
            self.timers.as_progress,
            self.timers.unregistered,
            self.timers.next_contacts,
        ];
        refuse(t.iter().any(|s| s.0.is_zero()), "timers: none may be zero")?;
        let l = &self.limits;
        let limits = [
            l.max_registrations,
            l.max_challenges,
            l.max_subscriptions,
            l.max_pending,
            l.max_transactions,
            l.max_chains,
            l.max_unregistered,
        ];
        refuse(limits.contains(&0), "limits: none may be zero")?;
        self.static_hops().map(drop)
    }

    /// The SIP URI under which others know this S-CSCF.
    pub fn name(&self) -> String {
        self.name.clone().unwrap_or_else(|| format!("sip:{}:{}", self.host, self.listen.port()))
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

    fn static_hops(&self) -> Result<StaticHops, ConfigError> {
        StaticHops::read(&self.next_hops).map_err(invalid)
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let span = Span::deserialize(d)?;
        let whole = span.0.subsec_nanos() == 0;
        let seconds = u32::try_from(span.0.as_secs()).ok().filter(|_| whole);
        seconds.map(Self).ok_or_else(|| serde::de::Error::custom("expiry is counted in whole seconds"))
    }
}

impl<'de> Deserialize<'de> for Reauthenticate {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        match text.as_str() {
            "never" => Ok(Self::Never),
            "always" => Ok(Self::Always),
            other => Span::parse(other).map(Self::After).ok_or_else(|| {
                serde::de::Error::custom(format!("'{other}': write never, always, or a time such as 24h"))
            }),
        }
    }
}

pub(crate) fn invalid(reason: String) -> ConfigError {
    ConfigError::Invalid { file: "scscf".into(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_file_says_what_the_defaults_are() {
        let text = include_str!("../../configs/scscf.toml");
        // The folder and the store are the matter of the shell.
        let shell = text.find("[shell]").unwrap_or(text.len());
        let shipped: Config = ims_core::config::parse("scscf.toml", &text[..shell]).unwrap();
        shipped.check().unwrap();
        assert_eq!(format!("{shipped:?}"), format!("{:?}", Config::default()));
    }

    #[test]
    fn unknown_keys_and_impossible_values_are_errors() {
        let parse = |text: &str| ims_core::config::parse::<Config>("x", text);
        assert!(parse("lissten = 1").is_err());
        assert!(parse("registration.reauthenticate = 'sometimes'").is_err());
        assert!(parse("registration.min_expires = '500ms'").is_err());
        for text in [
            "listen = '[::]:6060'",
            "name = 'scscf'",
            "qop = []",
            "qop = ['auth-conf']",
            "registration.min_expires = 4000",
            "registration.max_contacts = 0",
            "registration.aka = []",
            "registration.aka = ['AKAv1-MD5', 'AKAv1-MD5']",
            "registration.nonce_lifetime = 0",
            "reg_event.min_expires = '8h'\nreg_event.max_expires = '1h'",
            "limits.max_subscriptions = 0",
            "limits.max_challenges = 0",
            "aliases = ['a b']",
            "numbering.country = 'x'",
            "breakout.down_after = 0",
            "sessions.icscf = 'icscf'",
            "sessions.min_se = 60",
            "timers.next_contacts = 0",
            "diameter.origin_realm = 'x'",
        ] {
            assert!(parse(text).unwrap().check().is_err(), "{text}");
        }
        let config = parse("registration.reauthenticate = '24h'").unwrap();
        assert_eq!(config.registration.reauthenticate, Reauthenticate::After(Span::secs(86_400)));
    }
}
