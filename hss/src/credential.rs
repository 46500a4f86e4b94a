//! What a private identity proves itself with: the keys of a SIM (TS 33.203 6.1), or H(A1) of a password (SIP Digest,
//! TS 33.203 Annex N). Both lie sealed in the store; a password is not kept at all.

use crate::error::Refusal;
use crate::seal::{KeyRing, Sealed};
use ims_aka::{Algorithm, AlgorithmKind};
use ims_core::{Impi, Rng, Secret};
use ims_sip::digest::{self, DigestAlgorithm};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct PrivateIdentity {
    pub impi: Impi,
    pub credential: Credential,
}

#[derive(Clone, PartialEq, Debug)]
pub enum Credential {
    Aka(AkaKeys),
    Digest(DigestSecret),
}

#[derive(Clone, PartialEq, Debug)]
pub struct AkaKeys {
    pub algorithm: AlgorithmName,
    /// Authentication management field.
    pub amf: [u8; 2],
    pub k: Sealed,
    /// OPc or TOPc; XOR has none.
    pub opc: Option<Sealed>,
    /// Keccak iterations of TUAK.
    pub iterations: u8,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct DigestSecret {
    /// The realm that H(A1) was computed with: the challenge must name it.
    pub realm: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub md5: Option<Sealed>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sealed>,
}

/// As it stands in a record: flat, one of the two kinds filled in.
#[derive(Serialize, Deserialize)]
struct Stored {
    impi: Impi,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    algorithm: Option<AlgorithmName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    amf: Option<[u8; 2]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    k: Option<Sealed>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    opc: Option<Sealed>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    iterations: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    digest: Option<DigestSecret>,
}

impl TryFrom<Stored> for PrivateIdentity {
    type Error = &'static str;

    fn try_from(stored: Stored) -> Result<Self, Self::Error> {
        let Stored { impi, algorithm, amf, k, opc, iterations, digest } = stored;
        let credential = match (algorithm.zip(amf).zip(k), digest) {
            (Some(((algorithm, amf), k)), None) => {
                Credential::Aka(AkaKeys { algorithm, amf, k, opc, iterations: iterations.unwrap_or(1) })
            }
            (None, Some(digest)) => Credential::Digest(digest),
            _ => return Err("a private identity has either the keys of a SIM or a digest"),
        };
        Ok(Self { impi, credential })
    }
}

impl From<PrivateIdentity> for Stored {
    fn from(identity: PrivateIdentity) -> Self {
        let PrivateIdentity { impi, credential } = identity;
        let bare = Self { impi, algorithm: None, amf: None, k: None, opc: None, iterations: None, digest: None };
        match credential {
            Credential::Aka(AkaKeys { algorithm, amf, k, opc, iterations }) => Self {
                algorithm: Some(algorithm),
                amf: Some(amf),
                k: Some(k),
                opc,
                iterations: Some(iterations),
                ..bare
            },
            Credential::Digest(digest) => Self { digest: Some(digest), ..bare },
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlgorithmName {
    Milenage,
    Tuak,
    Xor,
}

impl AlgorithmName {
    pub fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "milenage" => Some(Self::Milenage),
            "tuak" => Some(Self::Tuak),
            "xor" => Some(Self::Xor),
            _ => None,
        }
    }

    pub fn kind(self) -> AlgorithmKind {
        match self {
            Self::Milenage => AlgorithmKind::Milenage,
            Self::Tuak => AlgorithmKind::Tuak,
            Self::Xor => AlgorithmKind::Xor,
        }
    }
}

/// A credential in clear, as a decision needs it.
pub enum Opened {
    Aka { algorithm: Algorithm, amf: [u8; 2] },
    Digest { realm: String, ha1: Vec<(DigestAlgorithm, Zeroizing<String>)> },
}

impl DigestSecret {
    /// The columns under which H(A1) is sealed, the one that every UE has first.
    const COLUMNS: [(DigestAlgorithm, &'static str); 2] =
        [(DigestAlgorithm::Md5, "ha1-md5"), (DigestAlgorithm::Sha256, "ha1-sha-256")];

    pub fn seal(
        impi: &Impi,
        realm: String,
        ha1: &[(DigestAlgorithm, Zeroizing<String>)],
        ring: &KeyRing,
        rng: &mut Rng,
    ) -> Self {
        let mut sealed = Self::COLUMNS.map(|(algorithm, column)| {
            let (_, ha1) = ha1.iter().find(|(known, _)| *known == algorithm)?;
            Some(ring.seal(ha1.as_bytes(), impi, column, rng))
        });
        Self { realm, md5: sealed[0].take(), sha256: sealed[1].take() }
    }

    /// H(A1) of a password for each algorithm (RFC 7616 3.4.2).
    pub fn of_password(
        impi: &Impi,
        realm: &str,
        password: &[u8],
        algorithms: &[DigestAlgorithm],
    ) -> Vec<(DigestAlgorithm, Zeroizing<String>)> {
        let ha1 = |a: DigestAlgorithm| Zeroizing::new(digest::ha1(a, impi.as_str(), realm, password));
        algorithms.iter().map(|a| (*a, ha1(*a))).collect()
    }

    fn sealed(&self) -> impl Iterator<Item = (DigestAlgorithm, &'static str, &Sealed)> {
        let both = Self::COLUMNS.into_iter().zip([&self.md5, &self.sha256]);
        both.filter_map(|((algorithm, column), sealed)| Some((algorithm, column, sealed.as_ref()?)))
    }

    /// Names of the algorithms that there is an H(A1) for.
    pub fn algorithms(&self) -> impl Iterator<Item = &'static str> {
        self.sealed().map(|(algorithm, ..)| algorithm.token())
    }
}

impl PrivateIdentity {
    /// Opens what is sealed.
    pub fn unseal(&self, ring: &KeyRing) -> Result<Opened, Refusal> {
        match &self.credential {
            Credential::Aka(keys) => {
                let refusal = || Refusal::Sealed { impi: self.impi.clone(), key_id: keys.k.key_id().into() };
                let algorithm = keys.open(&self.impi, ring).ok_or_else(refusal)?;
                Ok(Opened::Aka { algorithm, amf: keys.amf })
            }
            Credential::Digest(digest) => {
                let open = |(algorithm, column, sealed): (_, _, &Sealed)| {
                    let text = ring.open(sealed, &self.impi, column).map(|ha1| String::from_utf8_lossy(&ha1).into());
                    let refusal = || Refusal::Sealed { impi: self.impi.clone(), key_id: sealed.key_id().into() };
                    Ok((algorithm, Zeroizing::new(text.ok_or_else(refusal)?)))
                };
                let ha1 = digest.sealed().map(open).collect::<Result<_, Refusal>>()?;
                Ok(Opened::Digest { realm: digest.realm.clone(), ha1 })
            }
        }
    }
}

impl AkaKeys {
    fn open(&self, impi: &Impi, ring: &KeyRing) -> Option<Algorithm> {
        let k = ring.open(&self.k, impi, "k")?;
        let opc = match &self.opc {
            Some(opc) => ring.open(opc, impi, "opc")?,
            None => Zeroizing::default(),
        };
        match self.algorithm {
            AlgorithmName::Milenage => key(&k).zip(key(&opc)).map(|(k, opc)| Algorithm::milenage(k, opc)),
            AlgorithmName::Tuak => key(&opc).and_then(|topc| Algorithm::tuak(&k, topc, self.iterations)),
            AlgorithmName::Xor => key(&k).map(Algorithm::xor),
        }
    }
}

fn key<const N: usize>(bytes: &[u8]) -> Option<Secret<N>> {
    Some(Secret::new(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_sims_read_as_before_and_a_digest_stands_beside_them() {
        let sim = r#"{"impi":"a@b","algorithm":"milenage","amf":[128,0],"k":"1.00","opc":"1.01","iterations":1}"#;
        let read: PrivateIdentity = serde_json::from_str(sim).unwrap();
        assert!(matches!(read.credential, Credential::Aka(AkaKeys { algorithm: AlgorithmName::Milenage, .. })));
        assert_eq!(serde_json::to_string(&read).unwrap(), sim);
        let digest = r#"{"impi":"a@b","digest":{"realm":"b","sha256":"1.00"}}"#;
        let read: PrivateIdentity = serde_json::from_str(digest).unwrap();
        assert!(matches!(&read.credential, Credential::Digest(d) if d.algorithms().eq(["SHA-256"])));
        assert_eq!(serde_json::to_string(&read).unwrap(), digest);
        assert!(serde_json::from_str::<PrivateIdentity>(r#"{"impi":"a@b"}"#).is_err());
    }

    #[test]
    fn what_is_opened_is_what_was_sealed() {
        let (ring, mut rng) = (KeyRing::new(&Secret::new([1; 32]), &[]), Rng::from_u64(1));
        let impi = Impi::parse("mufasa@b").unwrap();
        let both = [DigestAlgorithm::Md5, DigestAlgorithm::Sha256];
        let ha1 = DigestSecret::of_password(&impi, "b", b"Circle Of Life", &both);
        let sealed = DigestSecret::seal(&impi, "b".into(), &ha1, &ring, &mut rng);
        let identity = PrivateIdentity { impi, credential: Credential::Digest(sealed) };
        let Ok(Opened::Digest { realm, ha1: opened }) = identity.unseal(&ring) else { panic!() };
        assert_eq!((realm.as_str(), opened), ("b", ha1));
        let other = PrivateIdentity { impi: Impi::parse("other@b").unwrap(), ..identity };
        assert_eq!(other.unseal(&ring).err().map(|r| r.name()), Some("sealed-under-another-key"));
    }
}
