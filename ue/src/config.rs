//! Configuration of one handset.

use crate::call::Script;
use ims_aka::{Algorithm, Sqn, Usim};
use ims_core::config::{ConfigError, Span};
use ims_core::sa::{AuthAlg, EncAlg, Suite};
use ims_core::{Impi, Impu, Imsi, Secret, SipListener, Transport, Wiring};
use ims_sip::digest::DigestAlgorithm;
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use zeroize::Zeroizing;

/// Key material of the SIM as configured, in hexadecimal; never printed.
#[derive(Clone, Default)]
pub struct Key(Zeroizing<Vec<u8>>);

impl Key {
    pub fn from_hex(text: &str) -> Option<Self> {
        ims_core::hex::decode(text).filter(|bytes| !bytes.is_empty()).map(|bytes| Self(Zeroizing::new(bytes)))
    }

    fn secret<const N: usize>(&self) -> Option<Secret<N>> {
        <[u8; N]>::try_from(self.0.as_slice()).ok().map(Secret::new)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(d)?);
        Self::from_hex(&text).ok_or_else(|| serde::de::Error::custom("a key is an even number of hexadecimal digits"))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SimAlgorithm {
    #[default]
    Milenage,
    Tuak,
    Xor,
}

/// A digest algorithm by its token, such as AKAv2-SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DigestName(pub DigestAlgorithm);

impl<'de> Deserialize<'de> for DigestName {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let known = DigestAlgorithm::from_token(&text).map(Self);
        known.ok_or_else(|| {
            serde::de::Error::custom(format!("'{text}': write MD5, SHA-256, AKAv1-MD5, AKAv2-MD5 or AKAv2-SHA-256"))
        })
    }
}

/// A password as configured; never printed.
#[derive(Clone, Deserialize)]
#[serde(from = "String")]
pub struct Password(Zeroizing<String>);

impl From<String> for Password {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl Password {
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    pub(crate) fn bytes(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.0.as_bytes().to_vec())
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GmTransport {
    #[default]
    Udp,
    Tcp,
}

impl From<GmTransport> for Transport {
    fn from(t: GmTransport) -> Self {
        match t {
            GmTransport::Udp => Self::Udp,
            GmTransport::Tcp => Self::Tcp,
        }
    }
}

/// What this handset does wrong on purpose, to see the network refuse it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Quirk {
    /// Answers the challenge with a RES that is off by one bit.
    WrongRes,
    /// Answers a nonce that it was never given.
    WrongNonce,
    /// Alters its Security-Verify.
    WrongVerify,
    /// Leaves Security-Verify out.
    NoVerify,
    /// Sends the second REGISTER to the protected server port in clear.
    ClearToProtectedPort,
    /// Sends the second REGISTER in clear to the unprotected port although security associations stand.
    AnswerInClear,
    /// Claims integrity protection that it does not have.
    ClaimsProtection,
    /// Names another user's private identity in Authorization.
    OtherImpi,
    /// Never answers the challenge.
    Mute,
    /// Sends its first REGISTER without Authorization.
    NoAuthorization,
    /// Uses a nonce count of 1 again and again.
    SameCount,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// 6 to 15 digits.
    pub imsi: String,
    /// Authentication algorithm of the SIM: milenage, tuak or xor.
    pub algorithm: SimAlgorithm,
    /// Subscriber key K: 32 hexadecimal digits (tuak: 32 or 64).
    pub k: Key,
    /// Milenage OPc, 32 hexadecimal digits; this or `op`.
    pub opc: Option<Key>,
    /// Milenage OP, 32 hexadecimal digits.
    pub op: Option<Key>,
    /// TUAK TOPc, 64 hexadecimal digits.
    pub topc: Option<Key>,
    /// TUAK: Keccak iterations.
    pub tuak_iterations: u8,
    /// Highest sequence number the SIM has seen (48 bits).
    pub sqn: u64,
    /// A password instead of a SIM (SIP Digest, TS 33.203 Annex N): there is no IPsec then.
    pub password: Option<Password>,
    /// Digest algorithms that this handset knows; none given: all. A single one is named in the first REGISTER.
    pub digest: Vec<DigestName>,
    /// Home network domain name; also the realm that a challenge must name.
    pub home_domain: String,
    /// Private identity; derived from the IMSI when absent (TS 23.003 13.3).
    pub impi: Option<String>,
    /// Public identity to register; derived from the IMSI when absent (TS 23.003 13.4B).
    pub impu: Option<String>,
    /// Address of the handset.
    pub address: IpAddr,
    /// Unprotected port of the handset.
    pub port: u16,
    /// Protected server port (port_us).
    pub port_us: u16,
    /// First protected client port (port_uc).
    pub port_uc: u16,
    /// How many protected client ports are used in turn, one per authentication.
    pub client_ports: u16,
    /// Address and unprotected port of the P-CSCF.
    pub pcscf: SocketAddr,
    /// udp or tcp.
    pub transport: GmTransport,
    /// Requests larger than this many bytes go by TCP. Phones differ, and most send a long REGISTER by UDP.
    pub udp_limit: usize,
    /// Offer security associations (RFC 3329, TS 33.203).
    pub sec_agree: bool,
    /// Algorithms offered in Security-Client, most wanted first.
    pub offers: Vec<Suite>,
    /// Go on in clear when the network sends no Security-Server or this machine has no ESP. A phone would not.
    pub allow_unprotected: bool,
    /// Seconds of registration asked for.
    pub expires: u32,
    /// `+sip.instance` of the Contact, e.g. `urn:gsma:imei:35460200-000000-0`.
    pub instance: Option<String>,
    /// P-Access-Network-Info to send.
    pub access_network: Option<String>,
    /// Timer T1 (TS 24.229 7.7).
    pub t1: Span,
    /// Timer T2.
    pub t2: Span,
    /// Timer T4.
    pub t4: Span,
    /// Base of the back-off after which a failed registration is tried again (RFC 5626 4.5); none: not at all.
    pub retry: Option<Span>,
    /// Wait as long as a refusal says in Retry-After before trying again (RFC 3261 20.33).
    pub obey_retry_after: bool,
    /// Refresh this long after each registration; none: when a phone does (TS 24.229 5.1.1.4.1).
    pub refresh_every: Option<Span>,
    /// Keep a list of the last steps, for people to read.
    pub journal: bool,
    /// Put a seal of its body on every message that is not a REGISTER, for the handset at the other end to check.
    pub seal: bool,
    /// Subscribe to the own registration once registered (TS 24.229 5.1.1.3), as phones do.
    pub reg_event: bool,
    /// What the handset does by itself when it calls and when it is called.
    pub script: Script,
    /// Misbehave.
    pub quirk: Option<Quirk>,
}

impl Default for Config {
    fn default() -> Self {
        let cbc = |alg, ealg| Suite { alg, ealg };
        Self {
            imsi: "001010000000001".into(),
            algorithm: SimAlgorithm::Milenage,
            k: Key::default(),
            opc: None,
            op: None,
            topc: None,
            tuak_iterations: 1,
            sqn: 0,
            password: None,
            digest: Vec::new(),
            home_domain: "ims.mnc001.mcc001.3gppnetwork.org".into(),
            impi: None,
            impu: None,
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 5062,
            port_us: 5064,
            port_uc: 5065,
            client_ports: 4,
            pcscf: SocketAddr::from((Ipv4Addr::LOCALHOST, 5060)),
            transport: GmTransport::Udp,
            udp_limit: 65_000,
            sec_agree: true,
            offers: vec![
                cbc(AuthAlg::HmacSha1_96, EncAlg::AesCbc),
                cbc(AuthAlg::HmacSha1_96, EncAlg::Null),
                cbc(AuthAlg::HmacMd5_96, EncAlg::AesCbc),
                cbc(AuthAlg::HmacMd5_96, EncAlg::DesEde3Cbc),
                cbc(AuthAlg::HmacMd5_96, EncAlg::Null),
            ],
            allow_unprotected: false,
            expires: 600_000,
            instance: None,
            access_network: Some("3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=0010100010000101".into()),
            t1: Span::secs(2),
            t2: Span::secs(16),
            t4: Span::secs(17),
            retry: None,
            obey_retry_after: true,
            refresh_every: None,
            journal: true,
            seal: false,
            reg_event: false,
            script: Script::default(),
            quirk: None,
        }
    }
}

/// Who the handset says it is.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) impi: Impi,
    pub(crate) impu: Impu,
}

impl Config {
    /// The handset's ports: the unprotected one, port_us and every port_uc.
    pub fn wiring(&self) -> Wiring {
        let at = |port| SocketAddr::new(self.address, port);
        let mut sip = vec![SipListener::open(at(self.port))];
        if self.sec_agree {
            sip.push(SipListener::protected(at(self.port_us)));
            sip.extend((0..self.client_ports).map(|i| SipListener::protected(at(self.port_uc.saturating_add(i)))));
        }
        Wiring { sip, diameter: Vec::new() }
    }

    pub(crate) fn identity(&self) -> Result<Identity, ConfigError> {
        let imsi = Imsi::parse(&self.imsi).map_err(|e| invalid("imsi", e))?;
        let impi = match &self.impi {
            Some(text) => Impi::parse(text).map_err(|e| invalid("impi", e))?,
            None => Impi::from_imsi(&imsi, &self.home_domain),
        };
        let impu = match &self.impu {
            Some(text) => Impu::parse(text).map_err(|e| invalid("impu", e))?,
            None => Impu::temporary(&imsi, &self.home_domain),
        };
        Ok(Identity { impi, impu })
    }

    /// None for who has a password.
    pub(crate) fn usim(&self) -> Result<Option<Usim>, ConfigError> {
        if self.password.is_some() {
            return Ok(None);
        }
        let k = || self.k.secret::<16>().ok_or_else(|| invalid("k", "32 hexadecimal digits are needed"));
        let algorithm = match self.algorithm {
            SimAlgorithm::Xor => Algorithm::xor(k()?),
            SimAlgorithm::Tuak => {
                let topc = self.topc.as_ref().and_then(Key::secret::<32>);
                let topc = topc.ok_or_else(|| invalid("topc", "64 hexadecimal digits are needed for tuak"))?;
                Algorithm::tuak(&self.k.0, topc, self.tuak_iterations)
                    .ok_or_else(|| invalid("k", "tuak takes 32 or 64 hexadecimal digits and at least one iteration"))?
            }
            SimAlgorithm::Milenage => match (&self.opc, &self.op) {
                (Some(opc), None) => {
                    let opc = opc.secret().ok_or_else(|| invalid("opc", "32 hexadecimal digits are needed"))?;
                    Algorithm::milenage(k()?, opc)
                }
                (None, Some(op)) => {
                    let op = op.secret().ok_or_else(|| invalid("op", "32 hexadecimal digits are needed"))?;
                    Algorithm::milenage_from_op(k()?, &op)
                }
                _ => return Err(invalid("opc", "give opc or op, not both")),
            },
        };
        Ok(Some(Usim::with_sqn(algorithm, Sqn(self.sqn))))
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if self.address.is_ipv4() != self.pcscf.is_ipv4() {
            return Err(invalid("pcscf", "is not of the address family of `address`"));
        }
        if self.sec_agree && self.password.is_some() {
            return Err(invalid("sec_agree", "a password gives no keys for IPsec (TS 33.203 N.1): set it to false"));
        }
        if self.sec_agree && (self.offers.is_empty() || self.client_ports == 0) {
            return Err(invalid("offers", "sec-agree needs at least one offer and one client port"));
        }
        self.script.check().map_err(|why| invalid("script", why))?;
        if let Some(bad) = self.offers.iter().find(|s| !s.is_valid()) {
            return Err(invalid("offers", format!("{} with {} is no pair", bad.alg.token(), bad.ealg.token())));
        }
        Ok(())
    }

    /// Whether a challenge with this algorithm can be answered.
    pub(crate) fn knows(&self, algorithm: DigestAlgorithm) -> bool {
        let is_own = algorithm.is_aka() != self.password.is_some();
        is_own && (self.digest.is_empty() || self.digest.contains(&DigestName(algorithm)))
    }
}

fn invalid(field: &str, reason: impl fmt::Display) -> ConfigError {
    ConfigError::Invalid { file: "ue".into(), reason: format!("{field}: {reason}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_hex_and_never_printed() {
        let config: Config = ims_core::config::parse("t", "k = '00112233445566778899aabbccddeeff'").unwrap();
        assert!(config.k.secret::<16>().is_some());
        assert!(!format!("{config:?}").contains("8899"));
        assert!(ims_core::config::parse::<Config>("t", "k = 'zz'").is_err());
        assert!(ims_core::config::parse::<Config>("t", "kk = ''").is_err());
    }

    #[test]
    fn protected_ports_are_wired_only_for_sec_agree() {
        let config = Config::default();
        assert_eq!(config.wiring().sip.iter().filter(|l| l.protected).count(), 5);
        assert_eq!(Config { sec_agree: false, ..config }.wiring().sip.len(), 1);
    }

    #[test]
    fn a_password_stands_without_ipsec_and_is_never_printed() {
        let text = "password = 'Circle Of Life'\ndigest = ['sha-256']";
        let config: Config = ims_core::config::parse("t", text).unwrap();
        assert!(!format!("{config:?}").contains("Circle"));
        assert!(config.knows(DigestAlgorithm::Sha256) && !config.knows(DigestAlgorithm::Md5));
        assert!(config.check().is_err());
        let config = Config { sec_agree: false, ..config };
        assert!(config.check().is_ok() && config.usim().unwrap().is_none());
        assert!(ims_core::config::parse::<Config>("t", "digest = ['SHA-1']").is_err());
    }

    #[test]
    fn an_aead_cipher_stands_alone() {
        let odd = Suite { alg: AuthAlg::HmacSha1_96, ealg: EncAlg::AesGcm };
        assert!(Config { offers: vec![odd], ..Config::default() }.check().is_err());
    }
}
