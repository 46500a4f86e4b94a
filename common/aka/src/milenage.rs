//! Milenage (TS 35.206 4.1) with AES-128 and the constants c1..c5, r1..r5 given there.

use crate::{F2345, Sqn};
use aes::Aes128;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use ims_core::Secret;
use zeroize::Zeroize;

#[derive(Clone)]
pub(crate) struct Milenage {
    pub(crate) k: Secret<16>,
    pub(crate) opc: Secret<16>,
}

/// OPc = OP xor E_K(OP) (TS 35.206 4.1).
pub fn opc(k: &Secret<16>, op: &Secret<16>) -> Secret<16> {
    Secret::new(xor(encrypt(&cipher(k), *op.expose()), op.expose()))
}

impl Milenage {
    /// MAC-A and MAC-S: the halves of OUT1.
    pub(crate) fn f1_both(&self, rand: &[u8; 16], sqn: Sqn, amf: [u8; 2]) -> ([u8; 8], [u8; 8]) {
        let aes = cipher(&self.k);
        let temp = self.temp(&aes, rand);
        let mut in1 = [0; 16];
        for half in in1.chunks_exact_mut(8) {
            half[..6].copy_from_slice(&sqn.to_bytes());
            half[6..].copy_from_slice(&amf);
        }
        let rotated = rotate(xor(in1, self.opc.expose()), 8);
        let out1 = xor(encrypt(&aes, xor(temp, &rotated)), self.opc.expose());
        (first(&out1), last(&out1))
    }

    pub(crate) fn f2345(&self, rand: &[u8; 16]) -> F2345 {
        let aes = cipher(&self.k);
        let temp = self.temp(&aes, rand);
        let mut out2 = self.out(&aes, temp, 0, 1);
        let result = F2345 {
            res: out2[8..].to_vec(),
            ck: Secret::new(self.out(&aes, temp, 4, 2)),
            ik: Secret::new(self.out(&aes, temp, 8, 4)),
            ak: first(&out2),
        };
        out2.zeroize();
        result
    }

    pub(crate) fn f5_star(&self, rand: &[u8; 16]) -> [u8; 6] {
        let aes = cipher(&self.k);
        let temp = self.temp(&aes, rand);
        first(&self.out(&aes, temp, 12, 8))
    }

    fn temp(&self, aes: &Aes128, rand: &[u8; 16]) -> [u8; 16] {
        encrypt(aes, xor(*rand, self.opc.expose()))
    }

    /// OUT2..OUT5: `by` is the rotation in bytes, `c` the last byte of the constant.
    fn out(&self, aes: &Aes128, temp: [u8; 16], by: usize, c: u8) -> [u8; 16] {
        let mut block = rotate(xor(temp, self.opc.expose()), by);
        block[15] ^= c;
        xor(encrypt(aes, block), self.opc.expose())
    }
}

fn cipher(k: &Secret<16>) -> Aes128 {
    Aes128::new(&(*k.expose()).into())
}

fn encrypt(aes: &Aes128, block: [u8; 16]) -> [u8; 16] {
    let mut block = block.into();
    aes.encrypt_block(&mut block);
    block.into()
}

fn xor(mut a: [u8; 16], b: &[u8; 16]) -> [u8; 16] {
    a.iter_mut().zip(b).for_each(|(a, b)| *a ^= b);
    a
}

/// Cyclic rotation towards the most significant bit.
fn rotate(mut block: [u8; 16], bytes: usize) -> [u8; 16] {
    block.rotate_left(bytes);
    block
}

fn first<const N: usize>(block: &[u8; 16]) -> [u8; N] {
    std::array::from_fn(|i| block[i])
}

fn last(block: &[u8; 16]) -> [u8; 8] {
    std::array::from_fn(|i| block[8 + i])
}
