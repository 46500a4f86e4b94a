//! The test algorithm of TS 34.108 8.1.2, for test USIMs only: it hides nothing.

use crate::{F2345, Sqn};
use ims_core::Secret;

#[derive(Clone)]
pub(crate) struct Xor {
    pub(crate) k: Secret<16>,
    pub(crate) res_len: usize,
}

impl Xor {
    /// MAC and MAC-S alike: XDOUT xor (SQN || AMF).
    pub(crate) fn f1(&self, rand: &[u8; 16], sqn: Sqn, amf: [u8; 2]) -> [u8; 8] {
        let (xdout, sqn) = (self.xdout(rand), sqn.to_bytes());
        std::array::from_fn(|i| xdout[i] ^ if i < 6 { sqn[i] } else { amf[i - 6] })
    }

    pub(crate) fn f2345(&self, rand: &[u8; 16]) -> F2345 {
        let xdout = self.xdout(rand);
        let rotated = |by| Secret::new(std::array::from_fn(|i| xdout[(i + by) % 16]));
        F2345 {
            res: xdout[..self.res_len].to_vec(),
            ck: rotated(1),
            ik: rotated(2),
            ak: std::array::from_fn(|i| xdout[i + 3]),
        }
    }

    fn xdout(&self, rand: &[u8; 16]) -> [u8; 16] {
        std::array::from_fn(|i| self.k.expose()[i] ^ rand[i])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The default key of TS 34.108 8.2; expected values worked out by the steps of 8.1.2.1.
    #[test]
    fn each_output_is_taken_from_xdout_as_ts_34_108_8_1_2_says() {
        let x = Xor { k: Secret::new(std::array::from_fn(|i| i as u8)), res_len: 16 };
        let rand = [0x34; 16];
        let out = x.f2345(&rand);
        let xdout = *Secret::<16>::from_hex("34353637303132333c3d3e3f38393a3b").unwrap().expose();
        assert_eq!(out.res, xdout);
        assert_eq!(out.ck.to_wire_hex(), "353637303132333c3d3e3f38393a3b34");
        assert_eq!(out.ik.to_wire_hex(), "3637303132333c3d3e3f38393a3b3435");
        assert_eq!(out.ak, [0x37, 0x30, 0x31, 0x32, 0x33, 0x3c]);
        assert_eq!(x.f1(&rand, Sqn(1), [0x80, 0]), [0x34, 0x35, 0x36, 0x37, 0x30, 0x30, 0xb2, 0x33]);
        let autn = crate::vector(&crate::Algorithm::xor(x.k.clone()), rand, Sqn(1), [0x80, 0]).autn;
        assert_eq!(Secret::new(autn).to_wire_hex(), "37303132333d80003435363730 30b233".replace(' ', ""));
    }
}
