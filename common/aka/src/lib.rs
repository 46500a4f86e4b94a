//! AKA for both ends: Milenage (TS 35.206), TUAK (TS 35.231) and the XOR test algorithm (TS 34.108 8.1.2) behind one
//! type, sequence numbers by TS 33.102 Annex C, the vectors of the authentication centre and the answers of the USIM.

mod algorithm;
mod milenage;
mod sqn;
mod tuak;
mod usim;
mod xor;

pub use algorithm::{Algorithm, AlgorithmKind, F2345};
pub use milenage::opc;
pub use sqn::Sqn;
pub use tuak::topc;
pub use usim::{Challenge, Usim};

use ims_core::Secret;
use std::fmt;
use subtle::ConstantTimeEq;

/// An authentication vector (TS 33.102 6.3.2). `xres` is as secret as a password: it is not in `Debug`.
#[derive(Clone)]
pub struct Av {
    pub rand: [u8; 16],
    pub autn: [u8; 16],
    pub xres: Vec<u8>,
    pub ck: Secret<16>,
    pub ik: Secret<16>,
}

impl fmt::Debug for Av {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Av").field("rand", &self.rand).field("autn", &self.autn).finish_non_exhaustive()
    }
}

/// The authentication centre: a vector for `sqn` under this AMF, AUTN = SQN xor AK || AMF || MAC-A (TS 33.102 6.3.2).
pub fn vector(algorithm: &Algorithm, rand: [u8; 16], sqn: Sqn, amf: [u8; 2]) -> Av {
    let mac = algorithm.f1(&rand, sqn, amf);
    let F2345 { res, ck, ik, ak } = algorithm.f2345(&rand);
    let mut autn = [0; 16];
    autn[..6].copy_from_slice(&conceal(sqn.to_bytes(), ak));
    autn[6..8].copy_from_slice(&amf);
    autn[8..].copy_from_slice(&mac);
    Av { rand, autn, xres: res, ck, ik }
}

/// The authentication centre: checks MAC-S of AUTS = SQN_MS xor AK* || MAC-S, computed over the dummy AMF 0000, and gives
/// SQN_MS (TS 33.102 6.3.3, 6.3.5). On `Err` the sequence number must not move.
pub fn resynchronise(algorithm: &Algorithm, rand: &[u8; 16], auts: &[u8; 14]) -> Result<Sqn, MacFailure> {
    let mut concealed = [0; 6];
    concealed.copy_from_slice(&auts[..6]);
    let sqn = Sqn::from_bytes(conceal(concealed, algorithm.f5_star(rand)));
    let mac = algorithm.f1_star(rand, sqn, RESYNC_AMF);
    if bool::from(mac.ct_eq(&auts[6..])) { Ok(sqn) } else { Err(MacFailure) }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the MAC does not match: the key or OPc differs between SIM and HSS, or the message is forged")]
pub struct MacFailure;

/// The AMF that MAC-S is computed with (TS 33.102 6.3.3).
const RESYNC_AMF: [u8; 2] = [0, 0];

fn conceal(mut sqn: [u8; 6], ak: [u8; 6]) -> [u8; 6] {
    sqn.iter_mut().zip(ak).for_each(|(s, a)| *s ^= a);
    sqn
}
