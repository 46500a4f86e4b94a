//! From CK and IK to the keys of the kernel's algorithms (TS 33.203 Annex I.1).

use hmac::{Hmac, KeyInit, Mac};
use ims_core::sa::{AuthAlg, EncAlg, SaKeys, Suite};
use sha2::Sha256;
use zeroize::Zeroizing;

/// Input to the key derivation of TS 33.220 B.2: FC and the name that is P0.
const GMAC_SALT: (u8, &[u8]) = (0x58, b"AES_GMAC_SALT");
const GCM_SALT: (u8, &[u8]) = (0x59, b"AES_GCM_SALT");

pub(super) type Key = Zeroizing<Vec<u8>>;

/// Name of a kernel algorithm, its key, and the length of its integrity check value in bits.
pub(super) struct Algorithm {
    pub(super) name: &'static str,
    pub(super) key: Key,
    pub(super) icv_bits: u32,
}

/// What the kernel needs for a suite.
pub(super) enum Algorithms {
    Separate { auth: Algorithm, crypt: Algorithm },
    Aead(Algorithm),
}

impl Algorithms {
    /// None for a pair that TS 33.203 does not know.
    pub(super) fn new(suite: Suite, keys: &SaKeys) -> Option<Self> {
        let (ck, ik) = (keys.ck.expose().as_slice(), keys.ik.expose().as_slice());
        let auth = match (suite.alg, suite.ealg) {
            (AuthAlg::AesGmac, EncAlg::Null) => {
                let key = joined(&[ik, salt(GMAC_SALT, keys).as_slice()]);
                return Some(Self::Aead(Algorithm { name: "rfc4543(gcm(aes))", key, icv_bits: 128 }));
            }
            (AuthAlg::Null, EncAlg::AesGcm) => {
                let key = joined(&[ck, salt(GCM_SALT, keys).as_slice()]);
                return Some(Self::Aead(Algorithm { name: "rfc4106(gcm(aes))", key, icv_bits: 128 }));
            }
            // 160 bits: IK and 32 zero bits.
            (AuthAlg::HmacSha1_96, _) => Algorithm { name: "hmac(sha1)", key: joined(&[ik, &[0; 4]]), icv_bits: 96 },
            (AuthAlg::HmacMd5_96, _) => Algorithm { name: "hmac(md5)", key: joined(&[ik]), icv_bits: 96 },
            _ => return None,
        };
        let (name, key) = match suite.ealg {
            EncAlg::Null => ("ecb(cipher_null)", joined(&[])),
            EncAlg::AesCbc => ("cbc(aes)", joined(&[ck])),
            // CK1 and CK2 are the halves of CK: CK1 || CK2 || CK1.
            EncAlg::DesEde3Cbc => ("cbc(des3_ede)", joined(&[ck, ck.get(..8)?])),
            EncAlg::AesGcm => return None,
        };
        Some(Self::Separate { auth, crypt: Algorithm { name, key, icv_bits: 0 } })
    }

    /// The algorithm to name when the kernel knows one of them not.
    pub(super) fn names(&self) -> &'static str {
        match self {
            Self::Aead(aead) => aead.name,
            Self::Separate { auth, crypt } => match (auth.name, crypt.name) {
                ("hmac(sha1)", "cbc(aes)") => "hmac(sha1) with cbc(aes)",
                ("hmac(sha1)", "cbc(des3_ede)") => "hmac(sha1) with cbc(des3_ede)",
                ("hmac(sha1)", _) => "hmac(sha1)",
                (_, "cbc(aes)") => "hmac(md5) with cbc(aes)",
                (_, "cbc(des3_ede)") => "hmac(md5) with cbc(des3_ede)",
                _ => "hmac(md5)",
            },
        }
    }
}

fn joined(parts: &[&[u8]]) -> Key {
    let mut key = Zeroizing::new(Vec::with_capacity(parts.iter().map(|p| p.len()).sum()));
    parts.iter().for_each(|part| key.extend_from_slice(part));
    key
}

/// The low 32 bits of HMAC-SHA-256(CK || IK, FC || P0 || L0).
fn salt((fc, name): (u8, &[u8]), keys: &SaKeys) -> Zeroizing<[u8; 4]> {
    let key = joined(&[keys.ck.expose(), keys.ik.expose()]);
    let mut salt = Zeroizing::new([0; 4]);
    if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&key) {
        mac.update(&[fc]);
        mac.update(name);
        mac.update(&u16::try_from(name.len()).unwrap_or(0).to_be_bytes());
        let out = mac.finalize().into_bytes();
        salt.copy_from_slice(&out[28..]);
    }
    salt
}

#[cfg(test)]
mod tests {
    use super::*;
    use ims_core::Secret;

    fn keys() -> SaKeys {
        let ck: [u8; 16] = std::array::from_fn(|i| u8::try_from(i).unwrap());
        SaKeys { ck: Secret::new(ck), ik: Secret::new(ck.map(|b| b | 0x80)) }
    }

    fn algorithms(alg: AuthAlg, ealg: EncAlg) -> Option<Algorithms> {
        Algorithms::new(Suite { alg, ealg }, &keys())
    }

    #[test]
    fn sha1_key_is_ik_and_zero_bits_and_3des_key_is_ck1_ck2_ck1() {
        let Some(Algorithms::Separate { auth, crypt }) = algorithms(AuthAlg::HmacSha1_96, EncAlg::DesEde3Cbc) else {
            panic!()
        };
        assert_eq!(auth.key.len(), 20);
        assert_eq!((&auth.key[..16], &auth.key[16..]), (keys().ik.expose().as_slice(), [0; 4].as_slice()));
        assert_eq!(auth.icv_bits, 96);
        assert_eq!((&crypt.key[..16], &crypt.key[16..]), (&keys().ck.expose()[..], &keys().ck.expose()[..8]));
    }

    #[test]
    fn aead_keys_end_with_different_salts() {
        let Some(Algorithms::Aead(gcm)) = algorithms(AuthAlg::Null, EncAlg::AesGcm) else { panic!() };
        let Some(Algorithms::Aead(gmac)) = algorithms(AuthAlg::AesGmac, EncAlg::Null) else { panic!() };
        assert_eq!((gcm.key.len(), gmac.key.len()), (20, 20));
        assert_eq!((&gcm.key[..16], &gmac.key[..16]), (&keys().ck.expose()[..], &keys().ik.expose()[..]));
        assert_ne!(gcm.key[16..], gmac.key[16..]);
    }

    #[test]
    fn pairs_that_the_standard_does_not_know_are_refused() {
        assert!(algorithms(AuthAlg::HmacMd5_96, EncAlg::AesGcm).is_none());
        assert!(algorithms(AuthAlg::Null, EncAlg::Null).is_none());
        assert!(algorithms(AuthAlg::AesGmac, EncAlg::AesCbc).is_none());
    }
}
