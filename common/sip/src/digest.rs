//! Digest by RFC 2617/7616 (MD5, SHA-256), AKAv1 (RFC 3310) and AKAv2 (RFC 4169): used by S-CSCF and UE. SKELETON.
use ims_core::Secret;
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DigestAlgorithm {
    Md5,
    Sha256,
    AkaV1Md5,
    AkaV2Md5,
}
impl DigestAlgorithm {
    pub fn from_token(_t: &str) -> Option<Self> {
        todo!()
    }
    pub fn token(self) -> &'static str {
        todo!()
    }
}
/// What the password of the digest is.
pub enum Credentials<'a> {
    /// AKAv1: RES bytes. AKAv2: also IK, CK (RFC 4169). Empty for a synchronisation failure (RFC 3310 3.4).
    Aka {
        res: &'a [u8],
        ik: &'a Secret<16>,
        ck: &'a Secret<16>,
    },
    Password(&'a [u8]),
    /// H(A1) from the HSS, hex.
    Ha1(&'a str),
}
pub struct DigestInput<'a> {
    pub algorithm: DigestAlgorithm,
    pub username: &'a str,
    pub realm: &'a str,
    pub nonce: &'a str,
    pub uri: &'a str,
    pub method: &'a str,
    pub qop: Option<&'a str>,
    pub nc: Option<&'a str>,
    pub cnonce: Option<&'a str>,
    pub body: &'a [u8],
}
/// The `response` value, lower-case hex.
pub fn response(_input: &DigestInput<'_>, _credentials: &Credentials<'_>) -> String {
    todo!()
}
/// `rspauth` of Authentication-Info (A2 without method).
pub fn rspauth(_input: &DigestInput<'_>, _credentials: &Credentials<'_>) -> String {
    todo!()
}
/// Constant-time comparison of two response values.
pub fn matches(_a: &str, _b: &str) -> bool {
    todo!()
}
