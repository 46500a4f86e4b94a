//! Keys at rest: K and OPc under AES-256-GCM-SIV with the master key. What is sealed is bound to its IMPI and column, so that
//! a value copied to another row or column does not open.

use aes_gcm_siv::aead::{Aead, KeyInit, Payload};
use aes_gcm_siv::{Aes256GcmSiv, Nonce};
use ims_core::{Impi, Rng, Secret, hex};
use std::fmt;
use zeroize::Zeroizing;

const NONCE_LEN: usize = 12;

/// The master key, and earlier ones that old records may still need.
pub struct KeyRing {
    keys: Vec<(String, Aes256GcmSiv)>,
}

/// Sealed bytes as they are stored: `KEYID.HEX`, with the nonce before the ciphertext.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Sealed(String);

/// Nobody who has only the stored form can learn anything from it; it is kept out of logs all the same.
impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[sealed]")
    }
}

impl Sealed {
    pub fn key_id(&self) -> &str {
        self.0.split('.').next().unwrap_or_default()
    }
}

impl KeyRing {
    /// New values are sealed under `master`; values under one of `earlier` still open.
    pub fn new(master: &Secret<32>, earlier: &[Secret<32>]) -> Self {
        let keys = std::iter::once(master).chain(earlier).map(|key| {
            let cipher = Aes256GcmSiv::new(&(*key.expose()).into());
            (key_id(&cipher), cipher)
        });
        Self { keys: keys.collect() }
    }

    pub fn seal(&self, plain: &[u8], impi: &Impi, column: &str, rng: &mut Rng) -> Sealed {
        let (id, cipher) = &self.keys[0];
        let nonce = rng.bytes::<NONCE_LEN>();
        let aad = aad(impi, column);
        // Fails only beyond 64 GiB of text.
        let sealed = cipher.encrypt(&Nonce::from(nonce), Payload { msg: plain, aad: &aad }).unwrap_or_default();
        Sealed(format!("{id}.{}{}", hex::encode(&nonce), hex::encode(&sealed)))
    }

    /// `None`: another key, another IMPI or column, or changed on disk.
    pub fn open(&self, sealed: &Sealed, impi: &Impi, column: &str) -> Option<Zeroizing<Vec<u8>>> {
        let (id, text) = sealed.0.split_once('.')?;
        let (_, cipher) = self.keys.iter().find(|(known, _)| known == id)?;
        let bytes = hex::decode(text)?;
        let (nonce, text) = bytes.split_first_chunk::<NONCE_LEN>()?;
        let aad = aad(impi, column);
        cipher.decrypt(&Nonce::from(*nonce), Payload { msg: text, aad: &aad }).ok().map(Zeroizing::new)
    }
}

/// Tells keys apart without telling anything of them: the tag of an empty message under a label of its own.
fn key_id(cipher: &Aes256GcmSiv) -> String {
    let label = Payload { msg: b"", aad: b"imsbox key id" };
    hex::encode(&cipher.encrypt(&Nonce::from([0; NONCE_LEN]), label).unwrap_or_default().split_off(12))
}

fn aad(impi: &Impi, column: &str) -> Vec<u8> {
    format!("{impi}\n{column}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn impi(n: u8) -> Impi {
        Impi::parse(&format!("{n}@ims.example")).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_only_with_its_key_identity_and_column() {
        let mut rng = Rng::from_u64(1);
        let ring = KeyRing::new(&Secret::new([1; 32]), &[]);
        let sealed = ring.seal(&[0x42; 16], &impi(1), "k", &mut rng);
        assert_eq!(ring.open(&sealed, &impi(1), "k").unwrap().as_slice(), [0x42; 16]);
        assert!(ring.open(&sealed, &impi(2), "k").is_none());
        assert!(ring.open(&sealed, &impi(1), "opc").is_none());
        assert!(KeyRing::new(&Secret::new([2; 32]), &[]).open(&sealed, &impi(1), "k").is_none());
        let mut changed = sealed.clone();
        let last = changed.0.pop().unwrap();
        changed.0.push(if last == '0' { '1' } else { '0' });
        assert!(ring.open(&changed, &impi(1), "k").is_none());
        for broken in ["", ".", "00000000", "x.y", "x.00"] {
            assert!(ring.open(&Sealed(broken.into()), &impi(1), "k").is_none());
        }
        assert_eq!(format!("{sealed:?}"), "[sealed]");
        assert!(!sealed.0.contains("42424242"));
    }

    #[test]
    fn after_a_change_of_the_master_key_old_values_open_and_new_ones_use_the_new() {
        let mut rng = Rng::from_u64(1);
        let (old, new) = (Secret::new([1; 32]), Secret::new([2; 32]));
        let sealed = KeyRing::new(&old, &[]).seal(b"key", &impi(1), "k", &mut rng);
        let both = KeyRing::new(&new, &[old]);
        assert_eq!(both.open(&sealed, &impi(1), "k").unwrap().as_slice(), b"key");
        assert_ne!(both.seal(b"key", &impi(1), "k", &mut rng).key_id(), sealed.key_id());
    }

    #[test]
    fn the_same_key_is_never_sealed_to_the_same_text() {
        let mut rng = Rng::from_u64(1);
        let ring = KeyRing::new(&Secret::new([1; 32]), &[]);
        assert_ne!(ring.seal(b"key", &impi(1), "k", &mut rng), ring.seal(b"key", &impi(1), "k", &mut rng));
    }
}
