//! IPsec security associations as nodes speak of them (TS 33.203 7, Annex H and I).

use crate::{Secret, Time};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

/// Integrity algorithm, by its name in Security-Client `alg` (TS 33.203 Annex H).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum AuthAlg {
    #[serde(rename = "hmac-sha-1-96")]
    HmacSha1_96,
    #[serde(rename = "hmac-md5-96")]
    HmacMd5_96,
    #[serde(rename = "aes-gmac")]
    AesGmac,
    /// Only with an AEAD `ealg`.
    #[serde(rename = "null")]
    Null,
}

/// Encryption algorithm, by its name in Security-Client `ealg`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum EncAlg {
    #[serde(rename = "null")]
    Null,
    #[serde(rename = "aes-cbc")]
    AesCbc,
    #[serde(rename = "des-ede3-cbc")]
    DesEde3Cbc,
    #[serde(rename = "aes-gcm")]
    AesGcm,
}

impl AuthAlg {
    pub fn token(self) -> &'static str {
        match self {
            Self::HmacSha1_96 => "hmac-sha-1-96",
            Self::HmacMd5_96 => "hmac-md5-96",
            Self::AesGmac => "aes-gmac",
            Self::Null => "null",
        }
    }

    pub fn from_token(token: &str) -> Option<Self> {
        [Self::HmacSha1_96, Self::HmacMd5_96, Self::AesGmac, Self::Null]
            .into_iter()
            .find(|a| a.token().eq_ignore_ascii_case(token))
    }
}

impl EncAlg {
    pub fn token(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::AesCbc => "aes-cbc",
            Self::DesEde3Cbc => "des-ede3-cbc",
            Self::AesGcm => "aes-gcm",
        }
    }

    pub fn from_token(token: &str) -> Option<Self> {
        [Self::Null, Self::AesCbc, Self::DesEde3Cbc, Self::AesGcm]
            .into_iter()
            .find(|a| a.token().eq_ignore_ascii_case(token))
    }
}

/// The pair of algorithms of a set.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Suite {
    pub alg: AuthAlg,
    pub ealg: EncAlg,
}

impl Suite {
    /// TS 33.203 Annex H and I: the AEAD modes stand alone, the others need an integrity algorithm.
    pub fn is_valid(self) -> bool {
        match (self.alg, self.ealg) {
            (AuthAlg::AesGmac, ealg) => ealg == EncAlg::Null,
            (AuthAlg::Null, ealg) => ealg == EncAlg::AesGcm,
            (_, ealg) => ealg != EncAlg::AesGcm,
        }
    }
}

/// Which end of the association we are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum SaSide {
    Pcscf,
    Ue,
}

/// Two pairs of ports and four SPIs: UE:port_uc <-> P:port_ps and UE:port_us <-> P:port_pc (TS 33.203 7.1).
/// The receiver chose the SPI: uc->ps carries spi_ps, pc->us spi_us, ps->uc spi_uc, us->pc spi_pc.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct SaSet {
    pub ue: IpAddr,
    pub pcscf: IpAddr,
    pub spi_uc: u32,
    pub spi_us: u32,
    pub spi_pc: u32,
    pub spi_ps: u32,
    pub port_uc: u16,
    pub port_us: u16,
    pub port_pc: u16,
    pub port_ps: u16,
    pub suite: Suite,
}

/// One of the four associations of a set.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SaLeg {
    pub src: SocketAddr,
    pub dst: SocketAddr,
    pub spi: u32,
}

impl SaSet {
    /// In the order uc->ps, pc->us, ps->uc, us->pc.
    pub fn legs(&self) -> [SaLeg; 4] {
        let ue = |port| SocketAddr::new(self.ue, port);
        let pcscf = |port| SocketAddr::new(self.pcscf, port);
        let (uc, us, pc, ps) = (ue(self.port_uc), ue(self.port_us), pcscf(self.port_pc), pcscf(self.port_ps));
        [
            SaLeg { src: uc, dst: ps, spi: self.spi_ps },
            SaLeg { src: pc, dst: us, spi: self.spi_us },
            SaLeg { src: ps, dst: uc, spi: self.spi_uc },
            SaLeg { src: us, dst: pc, spi: self.spi_pc },
        ]
    }
}

/// CK and IK of the authentication vector that a set was made from.
#[derive(Clone, Debug)]
pub struct SaKeys {
    pub ck: Secret<16>,
    pub ik: Secret<16>,
}

/// What a node asks of the kernel. Each is answered by `Event::Sa` with the same id.
#[derive(Debug)]
pub enum SaChange {
    /// Four SAs and their policies, all or nothing.
    Install { set: SaSet, keys: SaKeys, side: SaSide, expires: Time },
    /// Move the hard lifetime of all four.
    Extend { set: SaSet, expires: Time },
    /// Removing what is not there is a success.
    Remove { set: SaSet },
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SaError {
    #[error("the kernel has no ESP: load the esp4 and esp6 modules, or use a kernel with CONFIG_INET_ESP")]
    NoEsp,
    #[error("not allowed to change IPsec state: run as root or give CAP_NET_ADMIN")]
    NotPermitted,
    #[error("the kernel lacks the algorithm {0}: load its crypto module, or take it out of the configured preference")]
    NoAlgorithm(&'static str),
    #[error("SPI {0:#010x} is taken")]
    SpiTaken(u32),
    #[error("no such security association")]
    NotFound,
    #[error("the kernel refused with errno {0}")]
    Kernel(i32),
}

/// One association as the kernel has it now. What is not among them, the kernel has no more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SaUsage {
    pub dst: IpAddr,
    pub spi: u32,
    pub bytes: u64,
    pub packets: u64,
    /// When a packet last used it, where the kernel notes that (Linux since 6.2): a rising count says it as well.
    pub last_use: Option<Time>,
    /// Its hard lifetime.
    pub expires: Time,
}

/// What the kernel has for a node's protected listeners, compared with what the node asked for, and set right where
/// that is possible.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SaAudit {
    pub sas: Vec<SaUsage>,
    /// Associations and policies of an earlier run, or left over, that nobody asked for: removed.
    pub strays: usize,
    /// Policies that were missing, and stand again.
    pub repaired: usize,
}

/// The kernel says that an association reached its lifetime.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SaExpiry {
    pub dst: IpAddr,
    pub spi: u32,
    /// Gone already; otherwise only a warning.
    pub hard: bool,
}
