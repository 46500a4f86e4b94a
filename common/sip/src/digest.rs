//! Digest by RFC 2617/7616 (MD5, SHA-256), AKAv1 (RFC 3310) and AKAv2 (RFC 4169, TS 29.229 6.3.9): used by S-CSCF and UE.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use ims_core::Secret;
use md5::Md5;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DigestAlgorithm {
    Md5,
    Sha256,
    AkaV1Md5,
    AkaV2Md5,
    AkaV2Sha256,
}

impl DigestAlgorithm {
    const ALL: [Self; 5] = [Self::Md5, Self::Sha256, Self::AkaV1Md5, Self::AkaV2Md5, Self::AkaV2Sha256];

    pub fn from_token(token: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|a| a.token().eq_ignore_ascii_case(token))
    }

    /// The password comes from a USIM (RFC 3310, RFC 4169), and is not one that a person chose.
    pub fn is_aka(self) -> bool {
        matches!(self, Self::AkaV1Md5 | Self::AkaV2Md5 | Self::AkaV2Sha256)
    }

    pub fn token(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Sha256 => "SHA-256",
            Self::AkaV1Md5 => "AKAv1-MD5",
            Self::AkaV2Md5 => "AKAv2-MD5",
            Self::AkaV2Sha256 => "AKAv2-SHA-256",
        }
    }

    /// H(data), lower-case hex.
    fn hash(self, parts: &[&[u8]]) -> String {
        match self {
            Self::Sha256 | Self::AkaV2Sha256 => hex_of::<Sha256>(parts),
            Self::Md5 | Self::AkaV1Md5 | Self::AkaV2Md5 => hex_of::<Md5>(parts),
        }
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
pub fn response(input: &DigestInput<'_>, credentials: &Credentials<'_>) -> String {
    request_digest(input, credentials, input.method)
}

/// `rspauth` of Authentication-Info (A2 without method).
pub fn rspauth(input: &DigestInput<'_>, credentials: &Credentials<'_>) -> String {
    request_digest(input, credentials, "")
}

/// Constant-time comparison of two response values.
pub fn matches(a: &str, b: &str) -> bool {
    a.to_ascii_lowercase().as_bytes().ct_eq(b.to_ascii_lowercase().as_bytes()).into()
}

/// H(A1) of a password, as the HSS keeps it for SIP Digest (TS 29.228 6.3).
pub fn ha1(algorithm: DigestAlgorithm, username: &str, realm: &str, password: &[u8]) -> String {
    algorithm.hash(&[username.as_bytes(), b":", realm.as_bytes(), b":", password])
}

/// RFC 7616 3.4.1 with `qop`, RFC 2069 without.
fn request_digest(input: &DigestInput<'_>, credentials: &Credentials<'_>, method: &str) -> String {
    let algorithm = input.algorithm;
    let ha1 = match credentials {
        Credentials::Ha1(ha1) => ha1.to_ascii_lowercase(),
        Credentials::Password(password) => ha1(algorithm, input.username, input.realm, password),
        Credentials::Aka { res, ik, ck } => {
            let password = aka_password(algorithm, res, ik, ck);
            ha1(algorithm, input.username, input.realm, &password)
        }
    };
    let qop = input.qop.unwrap_or_default();
    let ha2 = if qop.eq_ignore_ascii_case("auth-int") {
        let body = algorithm.hash(&[input.body]);
        algorithm.hash(&[method.as_bytes(), b":", input.uri.as_bytes(), b":", body.as_bytes()])
    } else {
        algorithm.hash(&[method.as_bytes(), b":", input.uri.as_bytes()])
    };
    if qop.is_empty() {
        return algorithm.hash(&[ha1.as_bytes(), b":", input.nonce.as_bytes(), b":", ha2.as_bytes()]);
    }
    let fields = [input.nonce, input.nc.unwrap_or_default(), input.cnonce.unwrap_or_default(), qop, &ha2];
    algorithm.hash(&[ha1.as_bytes(), b":", fields.join(":").as_bytes()])
}

/// RES itself (RFC 3310 3.2), or `base64(PRF(RES || IK || CK, "http-digest-akav2-password"))`, the PRF being HMAC with the
/// hash of the algorithm (RFC 4169 3).
fn aka_password(algorithm: DigestAlgorithm, res: &[u8], ik: &Secret<16>, ck: &Secret<16>) -> Zeroizing<Vec<u8>> {
    const LABEL: &[u8] = b"http-digest-akav2-password";
    let key = Zeroizing::new([res, ik.expose(), ck.expose()].concat());
    let derived = match algorithm {
        _ if res.is_empty() => return Zeroizing::default(),
        DigestAlgorithm::AkaV2Md5 => hmac::<Hmac<Md5>>(&key, LABEL),
        DigestAlgorithm::AkaV2Sha256 => hmac::<Hmac<Sha256>>(&key, LABEL),
        _ => return Zeroizing::new(res.to_vec()),
    };
    Zeroizing::new(STANDARD.encode(derived).into_bytes())
}

fn hmac<M: Mac + KeyInit>(key: &[u8], data: &[u8]) -> Zeroizing<Vec<u8>> {
    // An HMAC key may have any length: this cannot fail.
    let Ok(mut mac) = M::new_from_slice(key) else { return Zeroizing::default() };
    mac.update(data);
    Zeroizing::new(mac.finalize().into_bytes().to_vec())
}

fn hex_of<D: Digest>(parts: &[&[u8]]) -> String {
    let mut hash = D::new();
    for part in parts {
        hash.update(part);
    }
    ims_core::hex::encode(&hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rfc2617() -> DigestInput<'static> {
        DigestInput {
            algorithm: DigestAlgorithm::Md5,
            username: "Mufasa",
            realm: "testrealm@host.com",
            nonce: "dcd98b7102dd2f0e8b11d0f600bfb0c093",
            uri: "/dir/index.html",
            method: "GET",
            qop: Some("auth"),
            nc: Some("00000001"),
            cnonce: Some("0a4f113b"),
            body: b"",
        }
    }

    #[test]
    fn rfc_2617_section_3_5() {
        let password = Credentials::Password(b"Circle Of Life");
        assert_eq!(response(&rfc2617(), &password), "6629fae49393a05397450978507c4ef1");
        let ha1 = ha1(DigestAlgorithm::Md5, "Mufasa", "testrealm@host.com", b"Circle Of Life");
        assert_eq!(ha1, "939e7578ed9e3c518a452acee763bce9");
        assert_eq!(response(&rfc2617(), &Credentials::Ha1(&ha1.to_uppercase())), "6629fae49393a05397450978507c4ef1");
    }

    #[test]
    fn rfc_2069_without_qop_and_its_erratum() {
        let input = DigestInput { username: "Mufasa", qop: None, nc: None, cnonce: None, ..rfc2617() };
        assert_eq!(response(&input, &Credentials::Password(b"CircleOfLife")), "1949323746fe6a43ef61f9606e7febea");
    }

    #[test]
    fn rfc_7616_section_3_9_1() {
        let input = |algorithm| DigestInput {
            algorithm,
            realm: "http-auth@example.org",
            nonce: "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
            cnonce: Some("f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"),
            ..rfc2617()
        };
        let password = Credentials::Password(b"Circle of Life");
        let sha256 = "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1";
        assert_eq!(response(&input(DigestAlgorithm::Md5), &password), "8ca523f5e9506fed4657c9700eebdbec");
        assert_eq!(response(&input(DigestAlgorithm::Sha256), &password), sha256);
    }

    #[test]
    fn akav1_takes_res_as_bytes_and_akav2_derives_from_the_keys() {
        let (ik, ck) = (Secret::new([1; 16]), Secret::new([2; 16]));
        let res = [0x00, 0xff, 0x3a, 0x80];
        let aka = Credentials::Aka { res: &res, ik: &ik, ck: &ck };
        let v1 = DigestInput { algorithm: DigestAlgorithm::AkaV1Md5, ..rfc2617() };
        assert_eq!(response(&v1, &aka), response(&rfc2617(), &Credentials::Password(&res)));
        let v2 = DigestInput { algorithm: DigestAlgorithm::AkaV2Md5, ..rfc2617() };
        // echo -n http-digest-akav2-password | openssl dgst -md5 -mac hmac -macopt hexkey:00ff3a80<ik><ck> -binary | base64
        let derived = AKAV2_PASSWORD;
        assert_eq!(response(&v2, &aka), response(&rfc2617(), &Credentials::Password(derived.as_bytes())));
        let none = Credentials::Aka { res: b"", ik: &ik, ck: &ck };
        assert_eq!(response(&v2, &none), response(&rfc2617(), &Credentials::Password(b"")));
    }

    /// python3: base64(hmac(00ff3a80 || 01*16 || 02*16, label, sha256)), then SHA-256 throughout (RFC 7616 3.4.1).
    #[test]
    fn akav2_with_sha_256_uses_it_for_the_password_too() {
        let (ik, ck) = (Secret::new([1; 16]), Secret::new([2; 16]));
        let aka = Credentials::Aka { res: &[0x00, 0xff, 0x3a, 0x80], ik: &ik, ck: &ck };
        let input = DigestInput { algorithm: DigestAlgorithm::AkaV2Sha256, ..rfc2617() };
        let plain = DigestInput { algorithm: DigestAlgorithm::Sha256, ..rfc2617() };
        let password = Credentials::Password(b"WeXvDI25OliVSf9++by7g57sGeax/WNWHxj1iEHFg6s=");
        assert_eq!(response(&input, &aka), response(&plain, &password));
    }

    const AKAV2_PASSWORD: &str = "pq9xLE6+cQSD0ZUlnN+O8w==";

    #[test]
    fn auth_int_covers_the_body_and_rspauth_leaves_the_method_out() {
        let input = DigestInput { qop: Some("auth-int"), body: b"v=0", ..rfc2617() };
        let password = Credentials::Password(b"x");
        assert_ne!(response(&input, &password), response(&DigestInput { body: b"v=1", ..input }, &password));
        let input = rfc2617();
        assert_eq!(rspauth(&input, &password), response(&DigestInput { method: "", ..input }, &password));
    }

    #[test]
    fn tokens_and_comparison() {
        assert_eq!(DigestAlgorithm::from_token("akav1-md5"), Some(DigestAlgorithm::AkaV1Md5));
        assert_eq!(DigestAlgorithm::from_token("AKAv2-SHA-256"), Some(DigestAlgorithm::AkaV2Sha256));
        assert_eq!(DigestAlgorithm::from_token("MD5-sess"), None);
        assert!(matches("AB", "ab") && !matches("ab", "ac") && !matches("ab", "abc") && !matches("", "a"));
    }
}
