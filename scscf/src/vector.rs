//! What the HSS gives to authenticate a user with (TS 29.228 6.3): an AKA vector, or H(A1) of a password; and the
//! challenge that comes of it.

use crate::Refusal;
use crate::register::Given;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ims_core::{Impi, Impu, Rng, Secret};
use ims_diameter::cx::{AuthItem, DigestItem, Maa};
use ims_diameter::endpoint::RequestFailure;
use ims_sip::digest::{Credentials, DigestAlgorithm, DigestInput, matches, response, rspauth};
use zeroize::Zeroizing;

pub(crate) enum Vector {
    Aka(Box<Av>),
    Digest(Password),
}

/// Authentication vector, without the AUTN that goes out in the nonce.
pub(crate) struct Av {
    pub(crate) rand: [u8; 16],
    pub(crate) xres: Zeroizing<Vec<u8>>,
    pub(crate) ck: Secret<16>,
    pub(crate) ik: Secret<16>,
}

/// What the HSS knows of a password: H(A1) for each algorithm, the strongest first.
#[derive(Clone)]
pub(crate) struct Password {
    pub(crate) realm: String,
    pub(crate) qop: Vec<String>,
    ha1: Vec<(DigestAlgorithm, Zeroizing<String>)>,
}

/// Where a response comes from, beside its credentials.
pub(crate) struct Claim<'a> {
    pub(crate) impi: &'a Impi,
    pub(crate) realm: &'a str,
    pub(crate) given: &'a Given,
    pub(crate) body: &'a [u8],
}

impl Claim<'_> {
    fn input(&self, algorithm: DigestAlgorithm) -> DigestInput<'_> {
        DigestInput {
            algorithm,
            username: self.impi.as_str(),
            realm: self.realm,
            nonce: &self.given.nonce,
            uri: &self.given.uri,
            method: "REGISTER",
            qop: self.given.qop.as_deref(),
            nc: self.given.nc.as_deref(),
            cnonce: self.given.cnonce.as_deref(),
            body: self.body,
        }
    }

    pub(crate) fn is_right(&self, algorithm: DigestAlgorithm, credentials: &Credentials<'_>) -> bool {
        matches(&response(&self.input(algorithm), credentials), &self.given.response)
    }
}

impl Password {
    pub(crate) fn algorithms(&self) -> Vec<DigestAlgorithm> {
        self.ha1.iter().map(|(algorithm, _)| *algorithm).collect()
    }

    /// The H(A1) for the algorithm that the UE chose; without a word from it that is MD5 (RFC 7616 3.4).
    fn chosen(&self, given: &Given) -> Option<(DigestAlgorithm, &str)> {
        let wanted = match &given.algorithm {
            Some(token) => DigestAlgorithm::from_token(token)?,
            None => DigestAlgorithm::Md5,
        };
        self.ha1.iter().find(|(algorithm, _)| *algorithm == wanted).map(|(algorithm, ha1)| (*algorithm, ha1.as_str()))
    }

    /// Whether somebody who knows the password made this response, whatever its nonce.
    pub(crate) fn is_right(&self, claim: &Claim<'_>) -> bool {
        let right = |(algorithm, ha1)| claim.is_right(algorithm, &Credentials::Ha1(ha1));
        self.chosen(claim.given).is_some_and(right)
    }

    /// Authentication-Info (RFC 7616 3.5): that we know the password too, and the nonce to go on with.
    pub(crate) fn authentication_info(&self, claim: &Claim<'_>, next: Option<&str>) -> Option<String> {
        let (algorithm, ha1) = self.chosen(claim.given)?;
        let Given { qop: Some(qop), nc: Some(nc), cnonce: Some(cnonce), .. } = claim.given else { return None };
        let proof = rspauth(&claim.input(algorithm), &Credentials::Ha1(ha1));
        let next = next.map(|nonce| format!("nextnonce=\"{nonce}\",")).unwrap_or_default();
        let cnonce = cnonce.replace('\\', "\\\\").replace('"', "\\\"");
        Some(format!("{next}qop={qop},rspauth=\"{proof}\",cnonce=\"{cnonce}\",nc={nc}"))
    }

    pub(crate) fn read(item: DigestItem) -> Result<Self, &'static str> {
        let name = item.algorithm.as_deref().unwrap_or("MD5");
        let both = [Some((name, item.ha1.clone())), item.alternate.as_ref().map(|(a, h)| (a.as_str(), h.clone()))];
        let known = |(name, ha1): (&str, Zeroizing<String>)| {
            let algorithm = DigestAlgorithm::from_token(name).filter(|a| !a.is_aka())?;
            let digits = if algorithm == DigestAlgorithm::Sha256 { 64 } else { 32 };
            let is_hex = ha1.len() == digits && ha1.bytes().all(|b| b.is_ascii_hexdigit());
            is_hex.then_some((algorithm, ha1))
        };
        let mut ha1: Vec<_> = both.into_iter().flatten().filter_map(known).collect();
        ha1.sort_by_key(|(algorithm, _)| *algorithm != DigestAlgorithm::Sha256);
        if ha1.is_empty() {
            return Err("it has no H(A1) for MD5 or SHA-256");
        }
        if item.realm.is_empty() || item.realm.contains(|c: char| c.is_control() || matches!(c, '"' | '\\')) {
            return Err("its realm cannot stand in a challenge");
        }
        let offered = item.qop.unwrap_or_default();
        let qop = offered.split(',').map(str::trim).filter(|q| matches!(*q, "auth" | "auth-int"));
        let mut qop: Vec<String> = qop.map(str::to_owned).collect();
        if qop.is_empty() {
            qop.push("auth".into());
        }
        Ok(Self { realm: item.realm, qop, ha1 })
    }
}

/// The nonce (RFC 3310 3.2: base64 of RAND || AUTN; for a digest one of ours) and the rest of the vector.
pub(crate) fn read_maa(
    answer: Result<&ims_diameter::Message, RequestFailure>,
    impu: &Impu,
    rng: &mut Rng,
) -> Result<(String, Vector), Refusal> {
    let wrong = |what: String| Refusal::HssAnswer { command: "MAR", what };
    let maa = Maa::from_message(answer.map_err(Refusal::HssSilent)?).map_err(|e| wrong(e.to_string()))?;
    if !maa.result.is_success() {
        return Err(crate::profile::refused("MAR", impu, maa.result));
    }
    let first = maa.items.into_iter().next().ok_or_else(|| wrong("it has no authentication data".into()))?;
    match first {
        AuthItem::Aka { rand, autn, xres, ck, ik, .. } => {
            // TS 33.102 6.3.7: RES has 32 to 128 bits.
            if !(4..=16).contains(&xres.len()) {
                return Err(wrong("XRES has an impossible length".into()));
            }
            let av = Av { rand, xres: Zeroizing::new(xres), ck, ik };
            Ok((STANDARD.encode([rand, autn].concat()), Vector::Aka(Box::new(av))))
        }
        AuthItem::Digest(item) => {
            let password = Password::read(*item).map_err(|what| wrong(what.into()))?;
            Ok((rng.token(32), Vector::Digest(password)))
        }
    }
}
