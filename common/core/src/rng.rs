//! The only randomness a node has: a ChaCha stream, seeded by whoever runs the node.

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng};
use std::fmt;

pub struct Rng(ChaCha20Rng);

impl Rng {
    /// From operating system entropy, in the shell.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(ChaCha20Rng::from_seed(seed))
    }

    /// Repeatable, for the simulator and tests.
    pub fn from_u64(seed: u64) -> Self {
        Self(ChaCha20Rng::seed_from_u64(seed))
    }

    pub fn u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    pub fn u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform in `0..bound` (`bound` > 0), by rejection.
    pub fn below(&mut self, bound: u64) -> u64 {
        debug_assert!(bound > 0);
        let zone = u64::MAX - u64::MAX % bound;
        loop {
            let x = self.u64();
            if x < zone {
                return x % bound;
            }
        }
    }

    pub fn fill(&mut self, out: &mut [u8]) {
        self.0.fill_bytes(out);
    }

    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        self.fill(&mut out);
        out
    }

    /// A token of `len` characters out of `[a-z0-9]`, for tags, branches and Call-IDs.
    pub fn token(&mut self, len: usize) -> String {
        const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
        let mut bytes = [0u8; 64];
        let len = len.min(bytes.len());
        self.fill(&mut bytes[..len]);
        let mut token = String::with_capacity(len);
        bytes[..len].iter().for_each(|b| token.push(char::from(ALPHABET[usize::from(b & 31)])));
        token
    }
}

impl fmt::Debug for Rng {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rng")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_same_stream() {
        let (mut a, mut b) = (Rng::from_u64(7), Rng::from_u64(7));
        assert_eq!(a.token(20), b.token(20));
        assert_eq!(a.below(10), b.below(10));
        assert_ne!(a.u64(), Rng::from_u64(8).u64());
    }
}
