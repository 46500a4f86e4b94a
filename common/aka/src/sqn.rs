//! Sequence numbers (TS 33.102 Annex C): SQN = SEQ || IND, IND of 5 bits naming the slot of one client of the
//! authentication centre, so that the packet core and the IMS can challenge one USIM without spoiling each other's numbers.

use std::fmt;

const IND_BITS: u32 = 5;
const SQN_BITS: u32 = 48;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sqn(pub u64);

impl Sqn {
    /// How many values IND has.
    pub const SLOTS: usize = 1 << IND_BITS;
    /// How far SEQ may run ahead of the USIM's: the delta of TS 33.102 C.2.1, with its suggested value (C.3.2).
    pub const DELTA: u64 = 1 << 28;

    pub fn new(seq: u64, ind: u8) -> Self {
        Self((seq << IND_BITS | u64::from(ind) & (Self::SLOTS as u64 - 1)) & ((1 << SQN_BITS) - 1))
    }

    pub fn from_bytes(b: [u8; 6]) -> Self {
        Self(b.iter().fold(0, |sqn, b| sqn << 8 | u64::from(*b)))
    }

    pub fn to_bytes(self) -> [u8; 6] {
        let b = self.0.to_be_bytes();
        [b[2], b[3], b[4], b[5], b[6], b[7]]
    }

    pub fn seq(self) -> u64 {
        self.0 >> IND_BITS
    }

    pub fn ind(self) -> usize {
        (self.0 % Self::SLOTS as u64) as usize
    }

    /// The next SQN to hand out: SEQ + 1 in the slot of this client (C.1.1.1, C.3.4).
    pub fn next(self, ind: u8) -> Self {
        Self::new(self.seq() + 1, ind)
    }

    /// The SQN to go on from when the USIM, by an AUTS that was verified, said that its own is `sqn_ms`. A number that was
    /// handed out does not come again, unless the USIM could not accept the ones that follow (TS 33.102 6.3.5 steps 2 to 5).
    pub fn resynchronised(self, sqn_ms: Self) -> Self {
        let in_range = self.seq() >= sqn_ms.seq() && self.seq() - sqn_ms.seq() < Self::DELTA;
        if in_range { self } else { sqn_ms }
    }
}

/// Twelve hexadecimal digits, as provisioning writes it.
impl fmt::Display for Sqn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:012x}", self.0)
    }
}

impl fmt::Debug for Sqn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.seq(), self.ind())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_advances_in_its_own_slot() {
        let sqn = Sqn::from_bytes([0, 0, 0, 0, 0, 0x21]);
        assert_eq!((sqn.seq(), sqn.ind()), (1, 1));
        assert_eq!(sqn.next(7), Sqn::new(2, 7));
        assert_eq!(sqn.next(7).to_bytes(), [0, 0, 0, 0, 0, 0x47]);
        assert!(sqn.next(0) > sqn);
        assert_eq!(Sqn::new((1 << 43) - 1, 31).next(0), Sqn(0), "48 bits, then from the start");
    }

    #[test]
    fn a_number_handed_out_comes_again_only_if_the_usim_could_not_accept_what_follows() {
        let he = Sqn::new(1000, 4);
        assert_eq!(he.resynchronised(Sqn::new(2000, 9)), Sqn::new(2000, 9));
        assert_eq!(he.resynchronised(Sqn::new(900, 9)), he);
        assert_eq!(Sqn::new(Sqn::DELTA + 900, 4).resynchronised(Sqn::new(900, 9)), Sqn::new(900, 9));
    }
}
