//! The USIM (TS 33.102 6.3.3): checks AUTN, keeps the array of sequence numbers of Annex C.2, answers.

use crate::{Algorithm, F2345, RESYNC_AMF, Sqn, conceal};
use ims_core::Secret;
use std::fmt;
use subtle::ConstantTimeEq;

/// An algorithm and the highest SEQ accepted for each IND.
#[derive(Clone, Debug)]
pub struct Usim {
    algorithm: Algorithm,
    seq: [u64; Sqn::SLOTS],
    /// L of C.2.2: how old a SEQ may be in its slot, measured against the highest of all; none: as old as it likes.
    age_limit: Option<u64>,
}

/// What the USIM answers to RAND and AUTN.
pub enum Challenge {
    Accepted { res: Vec<u8>, ck: Secret<16>, ik: Secret<16> },
    SyncFailure { auts: [u8; 14] },
    MacFailure,
}

impl Usim {
    pub fn new(algorithm: Algorithm) -> Self {
        Self { algorithm, seq: [0; Sqn::SLOTS], age_limit: None }
    }

    /// A USIM that has seen everything up to `highest`, in every slot.
    pub fn with_sqn(algorithm: Algorithm, highest: Sqn) -> Self {
        Self { seq: [highest.seq(); Sqn::SLOTS], ..Self::new(algorithm) }
    }

    pub fn with_age_limit(mut self, limit: u64) -> Self {
        self.age_limit = Some(limit);
        self
    }

    pub fn authenticate(&mut self, rand: &[u8; 16], autn: &[u8; 16]) -> Challenge {
        let F2345 { res, ck, ik, ak } = self.algorithm.f2345(rand);
        let [c0, c1, c2, c3, c4, c5, amf0, amf1, mac @ ..] = *autn;
        let sqn = Sqn::from_bytes(conceal([c0, c1, c2, c3, c4, c5], ak));
        if !bool::from(self.algorithm.f1(rand, sqn, [amf0, amf1]).ct_eq(&mac)) {
            return Challenge::MacFailure;
        }
        if !self.is_fresh(sqn) {
            return Challenge::SyncFailure { auts: self.auts(rand) };
        }
        if let Some(slot) = self.seq.get_mut(sqn.ind()) {
            *slot = sqn.seq();
        }
        Challenge::Accepted { res, ck, ik }
    }

    /// SQN_MS: the highest accepted SEQ with its IND (C.2.2).
    pub fn sqn_ms(&self) -> Sqn {
        let (ind, seq) = self.seq.iter().enumerate().max_by_key(|(_, seq)| **seq).unwrap_or((0, &0));
        Sqn::new(*seq, u8::try_from(ind).unwrap_or(0))
    }

    /// C.2.2: not too far ahead of all, not older than the limit, and higher than the last of its own slot.
    fn is_fresh(&self, sqn: Sqn) -> bool {
        let (seq, highest) = (sqn.seq(), self.sqn_ms().seq());
        seq.saturating_sub(highest) <= Sqn::DELTA
            && self.age_limit.is_none_or(|limit| highest.saturating_sub(seq) <= limit)
            && self.seq.get(sqn.ind()).is_some_and(|last| seq > *last)
    }

    fn auts(&self, rand: &[u8; 16]) -> [u8; 14] {
        let sqn = self.sqn_ms();
        let mut auts = [0; 14];
        auts[..6].copy_from_slice(&conceal(sqn.to_bytes(), self.algorithm.f5_star(rand)));
        auts[6..].copy_from_slice(&self.algorithm.f1_star(rand, sqn, RESYNC_AMF));
        auts
    }
}

impl fmt::Debug for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accepted { .. } => "Accepted [secret]",
            Self::SyncFailure { .. } => "SyncFailure",
            Self::MacFailure => "MacFailure",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MacFailure, resynchronise, vector};

    const RAND: [u8; 16] = [0x23; 16];

    fn algorithms() -> [Algorithm; 3] {
        let k = || Secret::new(std::array::from_fn(|i| i as u8 + 1));
        [
            Algorithm::milenage(k(), Secret::new([0x5a; 16])),
            Algorithm::tuak(k().expose(), Secret::new([0x77; 32]), 1).unwrap(),
            Algorithm::xor(k()),
        ]
    }

    fn challenge(usim: &mut Usim, algorithm: &Algorithm, sqn: Sqn) -> Challenge {
        let av = vector(algorithm, RAND, sqn, [0x80, 0]);
        usim.authenticate(&av.rand, &av.autn)
    }

    #[test]
    fn both_ends_agree_on_res_ck_and_ik_with_every_algorithm() {
        for algorithm in algorithms() {
            let av = vector(&algorithm, RAND, Sqn::new(7, 1), [0x80, 0]);
            let Challenge::Accepted { res, ck, ik } = Usim::new(algorithm.clone()).authenticate(&av.rand, &av.autn)
            else {
                panic!("{algorithm:?} not accepted")
            };
            assert_eq!((res, ck.expose(), ik.expose()), (av.xres, av.ck.expose(), av.ik.expose()));
        }
    }

    #[test]
    fn a_used_sqn_gives_an_auts_that_brings_the_centre_up_to_date() {
        for algorithm in algorithms() {
            let mut usim = Usim::with_sqn(algorithm.clone(), Sqn::new(500, 0));
            let Challenge::SyncFailure { auts } = challenge(&mut usim, &algorithm, Sqn::new(3, 4)) else { panic!() };
            let sqn_ms = resynchronise(&algorithm, &RAND, &auts).unwrap();
            assert_eq!(sqn_ms.seq(), 500);
            assert!(matches!(challenge(&mut usim, &algorithm, sqn_ms.next(4)), Challenge::Accepted { .. }));
        }
    }

    #[test]
    fn a_forged_auts_is_refused_whichever_bit_is_turned() {
        for algorithm in algorithms() {
            let mut usim = Usim::with_sqn(algorithm.clone(), Sqn::new(500, 0));
            let Challenge::SyncFailure { auts } = challenge(&mut usim, &algorithm, Sqn::new(3, 4)) else { panic!() };
            for bit in 0..8 * auts.len() {
                let mut forged = auts;
                forged[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(resynchronise(&algorithm, &RAND, &forged), Err(MacFailure), "bit {bit}");
            }
        }
    }

    #[test]
    fn mac_s_is_computed_over_the_dummy_amf() {
        let [algorithm, ..] = algorithms();
        let sqn = Sqn::new(500, 3);
        let mut auts = [0; 14];
        auts[..6].copy_from_slice(&conceal(sqn.to_bytes(), algorithm.f5_star(&RAND)));
        auts[6..].copy_from_slice(&algorithm.f1_star(&RAND, sqn, [0x80, 0]));
        assert_eq!(resynchronise(&algorithm, &RAND, &auts), Err(MacFailure));
        auts[6..].copy_from_slice(&algorithm.f1_star(&RAND, sqn, [0, 0]));
        assert_eq!(resynchronise(&algorithm, &RAND, &auts), Ok(sqn));
    }

    #[test]
    fn another_key_is_a_mac_failure() {
        for algorithm in algorithms() {
            let mut usim = Usim::new(algorithm);
            let other = Algorithm::milenage(Secret::new([9; 16]), Secret::new([8; 16]));
            assert!(matches!(challenge(&mut usim, &other, Sqn::new(1, 0)), Challenge::MacFailure));
        }
    }

    #[test]
    fn two_clients_of_the_centre_share_one_usim_through_their_slots() {
        let [algorithm, ..] = algorithms();
        let mut usim = Usim::new(algorithm.clone());
        for (seq, ind) in [(10, 0), (9, 4), (10, 4), (11, 0), (11, 4)] {
            assert!(
                matches!(challenge(&mut usim, &algorithm, Sqn::new(seq, ind)), Challenge::Accepted { .. }),
                "{seq}"
            );
        }
        assert!(matches!(challenge(&mut usim, &algorithm, Sqn::new(11, 4)), Challenge::SyncFailure { .. }));
    }

    #[test]
    fn a_sqn_beyond_delta_or_too_old_is_refused() {
        let [algorithm, ..] = algorithms();
        let mut usim = Usim::with_sqn(algorithm.clone(), Sqn::new(100, 0));
        let far = Sqn::new(101 + Sqn::DELTA, 0);
        assert!(matches!(challenge(&mut usim, &algorithm, far), Challenge::SyncFailure { .. }));
        let mut strict = Usim::new(algorithm.clone()).with_age_limit(32);
        assert!(matches!(challenge(&mut strict, &algorithm, Sqn::new(100, 0)), Challenge::Accepted { .. }));
        assert!(matches!(challenge(&mut strict, &algorithm, Sqn::new(60, 4)), Challenge::SyncFailure { .. }));
        assert!(matches!(challenge(&mut strict, &algorithm, Sqn::new(80, 4)), Challenge::Accepted { .. }));
    }
}
