//! Tables by hash: in one piece of memory, where a tree lies in thousands.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher};

/// A table by numbers of our own (transactions, requests, fingerprints under a secret key): nobody outside can make them
/// collide, so one multiplication spreads them well enough.
pub type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

/// Not for anything that a peer chooses.
#[derive(Clone, Copy, Default, Debug)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|b| self.write_u64(u64::from(*b)));
    }

    fn write_u64(&mut self, n: u64) {
        let wide = u128::from(self.0.rotate_left(5) ^ n) * 0x9e37_79b9_7f4a_7c15;
        self.0 = (wide >> 64) as u64 ^ wide as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A table by what peers choose, such as identities: under a secret key, so that nobody can make them collide. To find by key alone,
/// for it has no order.
pub type Lookup<K, V> = HashMap<K, V>;

/// Gives back what a storm has filled.
pub fn give_back<K: Eq + Hash, V, S: BuildHasher>(table: &mut HashMap<K, V, S>) {
    if table.capacity() > 8 * table.len().max(8) {
        table.shrink_to(2 * table.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn neighbours_are_spread() {
        let hash = |key: &dyn Fn(&mut IdHasher)| {
            let mut hasher = BuildHasherDefault::<IdHasher>::default().build_hasher();
            key(&mut hasher);
            hasher.finish()
        };
        for step in [1u64, 2, 64, 1 << 20] {
            let slots: BTreeSet<u64> = (0..1024).map(|n| hash(&|h| (n * step).hash(h)) & 1023).collect();
            assert!(slots.len() > 512, "{step}: {} of 1024 slots", slots.len());
        }
        assert_ne!(hash(&|h| (1u64, 2u64).hash(h)), hash(&|h| (2u64, 1u64).hash(h)));
    }

    #[test]
    fn a_table_keeps_little_more_than_it_holds() {
        let mut table: IdMap<u64, u64> = (0..10_000).map(|n| (n, n)).collect();
        for n in 0..10_000 {
            table.remove(&n);
            give_back(&mut table);
            assert!(table.capacity() <= 8 * table.len().max(8));
        }
    }
}
