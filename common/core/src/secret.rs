//! Key material that cannot be printed.

use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// N bytes of a key (K, OPc, CK, IK, ...): wiped when dropped, and without a way into a log.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret<const N: usize>([u8; N]);

impl<const N: usize> Secret<N> {
    pub const fn new(bytes: [u8; N]) -> Self {
        Self(bytes)
    }

    /// The bytes themselves, for a cipher.
    pub fn expose(&self) -> &[u8; N] {
        &self.0
    }

    /// From exactly 2*N hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        let text = text.as_bytes();
        if text.len() != 2 * N {
            return None;
        }
        let mut out = [0; N];
        for (byte, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
            let high = char::from(pair[0]).to_digit(16)?;
            let low = char::from(pair[1]).to_digit(16)?;
            *byte = u8::try_from(high << 4 | low).ok()?;
        }
        Some(Self(out))
    }

    /// As lower-case hexadecimal, for the wire only (Cx AVPs, `ck=`, `ik=` towards the P-CSCF).
    pub fn to_wire_hex(&self) -> String {
        crate::hex::encode(&self.0)
    }
}

impl<const N: usize> From<[u8; N]> for Secret<N> {
    fn from(bytes: [u8; N]) -> Self {
        Self(bytes)
    }
}

impl<const N: usize> fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_in_and_out_but_never_in_debug() {
        let s = Secret::<4>::from_hex("00ffA510").unwrap();
        assert_eq!(s.expose(), &[0, 0xff, 0xa5, 0x10]);
        assert_eq!(s.to_wire_hex(), "00ffa510");
        assert_eq!(format!("{s:?}"), "[secret]");
        assert!(Secret::<4>::from_hex("00ffa5").is_none());
        assert!(Secret::<4>::from_hex("00ffa5zz").is_none());
    }
}
