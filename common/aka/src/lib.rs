//! AKA for both ends: Milenage (TS 35.206), TUAK (TS 35.231) and the XOR test algorithm (TS 34.108 8.1.2) behind one type,
//! sequence numbers by TS 33.102 Annex C, the AuC's vectors and the USIM's answers. SKELETON: signatures are the agreement.

use ims_core::Secret;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AlgorithmKind { Milenage, Tuak, Xor }

/// Algorithm with its keys. Milenage: K, OPc. TUAK: K (16 or 32 bytes), TOPc 32 bytes, Keccak iterations. XOR: K.
#[derive(Clone)]
pub struct Algorithm { _private: () }
impl Algorithm {
    pub fn milenage(_k: Secret<16>, _opc: Secret<16>) -> Self { todo!() }
    pub fn milenage_from_op(_k: Secret<16>, _op: &Secret<16>) -> Self { todo!() }
    pub fn tuak(_k: &[u8], _topc: Secret<32>, _iterations: u8) -> Option<Self> { todo!() }
    pub fn xor(_k: Secret<16>) -> Self { todo!() }
    // f1, f1_star, f2345, f5_star as methods, returned types redacted
}
/// OPc = OP xor E_K(OP) (TS 35.206 4.1).
pub fn opc(_k: &Secret<16>, _op: &Secret<16>) -> Secret<16> { todo!() }

/// 48-bit SQN = SEQ || IND, IND 5 bits (TS 33.102 C.1.1.1, C.3.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Sqn(pub u64);
impl Sqn {
    pub fn from_bytes(_b: [u8; 6]) -> Self { todo!() }
    pub fn to_bytes(self) -> [u8; 6] { todo!() }
    /// Next SQN to hand out: SEQ + 1 with this AuC client's IND (each client its own slot: EPC, IMS).
    pub fn next(self, _ind: u8) -> Self { todo!() }
}

/// An authentication vector.
#[derive(Clone, Debug)]
pub struct Av { pub rand: [u8; 16], pub autn: [u8; 16], pub xres: Vec<u8>, pub ck: Secret<16>, pub ik: Secret<16> }
/// AuC: vector for `sqn`, with this AMF (16 bits).
pub fn vector(_algorithm: &Algorithm, _rand: [u8; 16], _sqn: Sqn, _amf: [u8; 2]) -> Av { todo!() }
/// AuC: checks MAC-S (AMF 0000) of AUTS (14 bytes) and gives SQN_MS. Err: forged or wrong key: SQN must not move.
pub fn resynchronise(_algorithm: &Algorithm, _rand: &[u8; 16], _auts: &[u8; 14]) -> Result<Sqn, MacFailure> { todo!() }
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the MAC does not match: the key or OPc differs between SIM and HSS, or the message is forged")]
pub struct MacFailure;

/// The USIM: an algorithm and SQN_MS per IND (TS 33.102 C.2: array of 32, delta limit 2^28, freshness window optional).
pub struct Usim { _private: () }
/// What the USIM answers to RAND, AUTN.
#[derive(Debug)]
pub enum Challenge { Accepted { res: Vec<u8>, ck: Secret<16>, ik: Secret<16> }, SyncFailure { auts: [u8; 14] }, MacFailure }
impl Usim {
    pub fn new(_algorithm: Algorithm) -> Self { todo!() }
    pub fn with_sqn(_algorithm: Algorithm, _highest: Sqn) -> Self { todo!() }
    pub fn authenticate(&mut self, _rand: &[u8; 16], _autn: &[u8; 16]) -> Challenge { todo!() }
}
