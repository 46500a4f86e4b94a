//! TUAK (TS 35.231): one sponge block of Keccak-f\[1600\] for each function. All data enters and leaves the state with its
//! bytes in reverse order.

use crate::{F2345, Sqn};
use ims_core::Secret;
use zeroize::Zeroize;

const STATE_BYTES: usize = 200;
/// "TUAK1.0" (TS 35.231 6.1).
const ALGONAME: &[u8; 7] = b"TUAK1.0";

/// INSTANCE\[0..1\], the most significant bits, name the function (TS 35.231 6.2 to 6.5).
const F1: u8 = 0x00;
const F1_STAR: u8 = 0x80;
const F2345: u8 = 0x40;
const F5_STAR: u8 = 0xc0;

#[derive(Clone)]
pub(crate) struct Tuak {
    k: Secret<32>,
    k_len: usize,
    topc: Secret<32>,
    iterations: u8,
    pub(crate) res_len: usize,
}

/// TOPc from TOP (TS 35.231 6.2). `None` when K has neither 16 nor 32 bytes, or without an iteration.
pub fn topc(k: &[u8], top: &Secret<32>, iterations: u8) -> Option<Secret<32>> {
    let tuak = Tuak::new(k, top.clone(), iterations)?;
    let out = tuak.run(0, None);
    Some(Secret::new(out.reversed::<32>(0)))
}

impl Tuak {
    pub(crate) fn new(k: &[u8], topc: Secret<32>, iterations: u8) -> Option<Self> {
        if !matches!(k.len(), 16 | 32) || iterations == 0 {
            return None;
        }
        let mut padded = [0; 32];
        padded[..k.len()].copy_from_slice(k);
        Some(Self { k: Secret::new(padded), k_len: k.len(), topc, iterations, res_len: 8 })
    }

    pub(crate) fn f1(&self, rand: &[u8; 16], sqn: Sqn, amf: [u8; 2]) -> [u8; 8] {
        self.mac(F1, rand, sqn, amf)
    }

    pub(crate) fn f1_star(&self, rand: &[u8; 16], sqn: Sqn, amf: [u8; 2]) -> [u8; 8] {
        self.mac(F1_STAR, rand, sqn, amf)
    }

    fn mac<const N: usize>(&self, function: u8, rand: &[u8; 16], sqn: Sqn, amf: [u8; 2]) -> [u8; N] {
        self.run(function | length_bits(N), Some((rand, amf, sqn.to_bytes()))).reversed(0)
    }

    pub(crate) fn f2345(&self, rand: &[u8; 16]) -> F2345 {
        let out = self.keys(rand, 16, 16);
        F2345 {
            res: out.0[..self.res_len].iter().rev().copied().collect(),
            ck: Secret::new(out.reversed(32)),
            ik: Secret::new(out.reversed(64)),
            ak: out.reversed(96),
        }
    }

    fn keys(&self, rand: &[u8; 16], ck_len: usize, ik_len: usize) -> State {
        let ck = if ck_len == 32 { 0x04 } else { 0 };
        let ik = if ik_len == 32 { 0x02 } else { 0 };
        self.run(F2345 | length_bits(self.res_len) | ck | ik, Some((rand, [0; 2], [0; 6])))
    }

    pub(crate) fn f5_star(&self, rand: &[u8; 16]) -> [u8; 6] {
        self.run(F5_STAR, Some((rand, [0; 2], [0; 6]))).reversed(96)
    }

    /// Fills the state (TS 35.231 6.1), and permutes it.
    fn run(&self, instance: u8, input: Option<(&[u8; 16], [u8; 2], [u8; 6])>) -> State {
        let mut state = State([0; STATE_BYTES]);
        state.put(0, self.topc.expose());
        state.0[32] = instance | u8::from(self.k_len == 32);
        state.put(33, ALGONAME);
        if let Some((rand, amf, sqn)) = input {
            state.put(40, rand);
            state.put(56, &amf);
            state.put(58, &sqn);
        }
        state.put(64, &self.k.expose()[..self.k_len]);
        state.0[96] = 0x1f;
        state.0[135] = 0x80;
        state.permute(self.iterations);
        state
    }
}

/// INSTANCE\[2..4\]: the length of MAC or RES.
fn length_bits(bytes: usize) -> u8 {
    match bytes {
        8 => 0x08,
        16 => 0x10,
        32 => 0x20,
        _ => 0x00,
    }
}

struct State([u8; STATE_BYTES]);

impl State {
    fn put(&mut self, at: usize, data: &[u8]) {
        self.0[at..at + data.len()].iter_mut().zip(data.iter().rev()).for_each(|(s, d)| *s = *d);
    }

    fn reversed<const N: usize>(&self, at: usize) -> [u8; N] {
        std::array::from_fn(|i| self.0[at + N - 1 - i])
    }

    fn permute(&mut self, iterations: u8) {
        let mut lanes = [0u64; 25];
        for (lane, bytes) in lanes.iter_mut().zip(self.0.chunks_exact(8)) {
            *lane = bytes.iter().rev().fold(0, |lane, b| lane << 8 | u64::from(*b));
        }
        keccak::Keccak::new().with_f1600(|f1600| (0..iterations).for_each(|_| f1600(&mut lanes)));
        for (lane, bytes) in lanes.iter().zip(self.0.chunks_exact_mut(8)) {
            bytes.copy_from_slice(&lane.to_le_bytes());
        }
        lanes.zeroize();
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
    }

    fn array<const N: usize>(hex: &str) -> [u8; N] {
        bytes(hex).try_into().unwrap()
    }

    /// All six sets of TS 35.233, with every length of MAC, RES, CK and IK that they use.
    #[test]
    fn test_sets_of_ts_35_233() {
        let text = include_str!("../tests/ts35_233.txt");
        let sets: Vec<&str> = text.split("\n\n").filter(|s| s.contains('=')).collect();
        assert_eq!(sets.len(), 6);
        for set in sets {
            let v: BTreeMap<&str, &str> = set.lines().filter_map(|l| l.split_once(" = ")).collect();
            check_set(&v);
        }
    }

    fn check_set(v: &BTreeMap<&str, &str>) {
        let (k, rand) = (bytes(v["K"]), array::<16>(v["RAND"]));
        let (sqn, amf) = (Sqn::from_bytes(array(v["SQN"])), array::<2>(v["AMF"]));
        let iterations = v["ITERATIONS"].parse().unwrap();
        let topc = topc(&k, &Secret::new(array(v["TOP"])), iterations).unwrap();
        assert_eq!(topc.to_wire_hex(), v["TOPC"]);
        let mut tuak = Tuak::new(&k, topc, iterations).unwrap();
        for (name, function) in [("F1", F1), ("F1STAR", F1_STAR)] {
            let expected = bytes(v[name]);
            let mac = match expected.len() {
                8 => tuak.mac::<8>(function, &rand, sqn, amf).to_vec(),
                16 => tuak.mac::<16>(function, &rand, sqn, amf).to_vec(),
                _ => tuak.mac::<32>(function, &rand, sqn, amf).to_vec(),
            };
            assert_eq!(mac, expected, "{name}");
        }
        let (res, ck, ik) = (bytes(v["F2"]), bytes(v["F3"]), bytes(v["F4"]));
        tuak.res_len = res.len();
        let out = tuak.keys(&rand, ck.len(), ik.len());
        let part = |at: usize, len: usize| out.0[at..at + len].iter().rev().copied().collect::<Vec<u8>>();
        assert_eq!(part(0, res.len()), res);
        assert_eq!(part(32, ck.len()), ck);
        assert_eq!(part(64, ik.len()), ik);
        assert_eq!(part(96, 6), bytes(v["F5"]));
        assert_eq!(tuak.f5_star(&rand).to_vec(), bytes(v["F5STAR"]));
    }
}
