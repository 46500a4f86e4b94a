//! One type for the three algorithm sets, with their keys.

use crate::{Sqn, milenage, tuak, xor};
use ims_core::Secret;
use std::fmt;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AlgorithmKind {
    Milenage,
    Tuak,
    Xor,
}

/// An algorithm set with its keys: f1 to f5* of TS 33.102 6.3.
#[derive(Clone)]
pub struct Algorithm(Keyed);

#[derive(Clone)]
enum Keyed {
    Milenage(milenage::Milenage),
    Tuak(tuak::Tuak),
    Xor(xor::Xor),
}

/// What f2, f3, f4 and f5 give for one RAND.
pub struct F2345 {
    pub res: Vec<u8>,
    pub ck: Secret<16>,
    pub ik: Secret<16>,
    pub ak: [u8; 6],
}

impl Algorithm {
    pub fn milenage(k: Secret<16>, opc: Secret<16>) -> Self {
        Self(Keyed::Milenage(milenage::Milenage { k, opc }))
    }

    pub fn milenage_from_op(k: Secret<16>, op: &Secret<16>) -> Self {
        let opc = milenage::opc(&k, op);
        Self::milenage(k, opc)
    }

    /// `k` has 16 or 32 bytes; `iterations` of Keccak-f\[1600\], at least one. MAC, RES have 64 bits, CK and IK 128.
    pub fn tuak(k: &[u8], topc: Secret<32>, iterations: u8) -> Option<Self> {
        Some(Self(Keyed::Tuak(tuak::Tuak::new(k, topc, iterations)?)))
    }

    pub fn xor(k: Secret<16>) -> Self {
        Self(Keyed::Xor(xor::Xor { k, res_len: 16 }))
    }

    /// With RES of another length than the usual one: TUAK 4, 8, 16 or 32 bytes, XOR 4 to 16, Milenage always 8.
    pub fn with_res_len(mut self, bytes: usize) -> Option<Self> {
        match &mut self.0 {
            Keyed::Milenage(_) if bytes == 8 => {}
            Keyed::Tuak(t) if [4, 8, 16, 32].contains(&bytes) => t.res_len = bytes,
            Keyed::Xor(x) if (4..=16).contains(&bytes) => x.res_len = bytes,
            _ => return None,
        }
        Some(self)
    }

    pub fn kind(&self) -> AlgorithmKind {
        match self.0 {
            Keyed::Milenage(_) => AlgorithmKind::Milenage,
            Keyed::Tuak(_) => AlgorithmKind::Tuak,
            Keyed::Xor(_) => AlgorithmKind::Xor,
        }
    }

    /// MAC-A.
    pub fn f1(&self, rand: &[u8; 16], sqn: Sqn, amf: [u8; 2]) -> [u8; 8] {
        match &self.0 {
            Keyed::Milenage(m) => m.f1_both(rand, sqn, amf).0,
            Keyed::Tuak(t) => t.f1(rand, sqn, amf),
            Keyed::Xor(x) => x.f1(rand, sqn, amf),
        }
    }

    /// MAC-S, for resynchronisation.
    pub fn f1_star(&self, rand: &[u8; 16], sqn: Sqn, amf: [u8; 2]) -> [u8; 8] {
        match &self.0 {
            Keyed::Milenage(m) => m.f1_both(rand, sqn, amf).1,
            Keyed::Tuak(t) => t.f1_star(rand, sqn, amf),
            Keyed::Xor(x) => x.f1(rand, sqn, amf),
        }
    }

    /// RES, CK, IK and AK.
    pub fn f2345(&self, rand: &[u8; 16]) -> F2345 {
        match &self.0 {
            Keyed::Milenage(m) => m.f2345(rand),
            Keyed::Tuak(t) => t.f2345(rand),
            Keyed::Xor(x) => x.f2345(rand),
        }
    }

    /// AK*, for resynchronisation.
    pub fn f5_star(&self, rand: &[u8; 16]) -> [u8; 6] {
        match &self.0 {
            Keyed::Milenage(m) => m.f5_star(rand),
            Keyed::Tuak(t) => t.f5_star(rand),
            Keyed::Xor(x) => x.f2345(rand).ak,
        }
    }
}

impl fmt::Debug for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind().fmt(f)
    }
}

impl fmt::Debug for F2345 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("F2345 [secret]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_and_no_result_is_printed() {
        let a = Algorithm::milenage(Secret::new([0xaa; 16]), Secret::new([0xbb; 16]));
        assert_eq!(format!("{a:?}"), "Milenage");
        assert_eq!(format!("{:?}", a.f2345(&[1; 16])), "F2345 [secret]");
        let av = crate::vector(&a, [1; 16], Sqn(32), [0x80, 0]);
        assert!(!format!("{av:?}").contains("xres"));
    }

    #[test]
    fn the_length_of_res_is_that_of_the_algorithm() {
        let k = || Secret::new([1; 16]);
        assert!(Algorithm::milenage(k(), k()).with_res_len(16).is_none());
        assert!(Algorithm::milenage(k(), k()).with_res_len(8).is_some());
        assert_eq!(Algorithm::xor(k()).with_res_len(8).unwrap().f2345(&[0; 16]).res.len(), 8);
        assert!(Algorithm::tuak(&[1; 16], Secret::new([2; 32]), 1).unwrap().with_res_len(9).is_none());
        assert!(Algorithm::tuak(&[1; 17], Secret::new([2; 32]), 1).is_none());
        assert!(Algorithm::tuak(&[1; 16], Secret::new([2; 32]), 0).is_none());
    }
}
