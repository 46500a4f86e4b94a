//! The 401 (TS 24.229 5.1.1.5): is it a challenge we may answer, what does the USIM say, which mechanism is agreed.

use crate::Ue;
use crate::error::{Failure, Fault};
use crate::register::{Attempt, Path};
use crate::request::{AkaCredential, Credential, Res, base64_of};
use base64::Engine as _;
use ims_aka::Challenge;
use ims_core::{Ctx, Secret};
use ims_sip::digest::DigestAlgorithm;
use ims_sip::headers::{SecMechanism, SecurityServer, WwwAuthenticate};
use ims_sip::{Message, Name};

/// TS 24.229 5.1.1.5.12: three challenges in a row that lead nowhere end the attempt.
const MAX_CHALLENGES: u32 = 3;

/// A challenge whose AUTN verified, with the answer ready to be sent.
#[derive(Debug)]
pub(crate) struct Verified(AkaCredential);

impl Verified {
    pub(crate) fn ck(&self) -> &Secret<16> {
        &self.0.ck
    }

    pub(crate) fn ik(&self) -> &Secret<16> {
        &self.0.ik
    }
}

/// A readable AKA challenge.
struct AkaChallenge {
    realm: String,
    nonce: String,
    opaque: Option<String>,
    algorithm: DigestAlgorithm,
    qop: Option<&'static str>,
    rand: [u8; 16],
    autn: [u8; 16],
}

impl Ue {
    /// Ok(false): the attempt goes on.
    pub(crate) fn on_challenge(
        &mut self,
        attempt: &mut Attempt,
        message: &Message,
        ctx: &mut Ctx<'_>,
    ) -> Result<bool, Failure> {
        attempt.challenges += 1;
        self.count("challenges");
        if attempt.challenges > MAX_CHALLENGES {
            return Err(Failure::TooManyChallenges(MAX_CHALLENGES));
        }
        let challenge = self.read_challenge(message).map_err(|fault| self.fatal(fault))?;
        if attempt.nonce.as_ref() == Some(&challenge.nonce) {
            return Err(self.fatal(Fault::NonceReused));
        }
        attempt.nonce = Some(challenge.nonce.clone());
        if self.config.quirk == Some(crate::config::Quirk::Mute) {
            return Ok(false);
        }
        let answer = self.usim.authenticate(&challenge.rand, &challenge.autn);
        match answer {
            Challenge::MacFailure => {
                self.note(&Fault::MacFailure);
                attempt.credential = Credential::MacFailure { realm: challenge.realm, nonce: challenge.nonce };
                self.renew_offer(attempt, ctx);
                self.send(attempt, ctx);
            }
            Challenge::SyncFailure { auts } => {
                self.count("resynchronisations");
                let empty = || Secret::new([0; 16]);
                let challenge = self.credential(challenge, Vec::new(), empty(), empty(), ctx);
                attempt.credential = Credential::SyncFailure { challenge, auts: base64_of(&auts) };
                self.renew_offer(attempt, ctx);
                self.send(attempt, ctx);
            }
            Challenge::Accepted { res, ck, ik } => {
                let verified = Verified(self.credential(challenge, res, ck, ik, ctx));
                self.agree(attempt, message, verified, ctx)?;
            }
        }
        Ok(false)
    }

    /// Sends the answer; the path says whether inside the new set.
    pub(crate) fn answer_challenge(&mut self, attempt: &mut Attempt, verified: Verified, ctx: &mut Ctx<'_>) {
        attempt.credential = Credential::Aka(verified.0);
        self.send(attempt, ctx);
    }

    /// Security agreement by the 401 (TS 24.229 5.1.1.5.1, TS 33.203 7.2).
    fn agree(
        &mut self,
        attempt: &mut Attempt,
        message: &Message,
        verified: Verified,
        ctx: &mut Ctx<'_>,
    ) -> Result<(), Failure> {
        let servers: Vec<SecMechanism> =
            message.all::<SecurityServer>().unwrap_or_default().into_iter().map(|s| s.0).collect();
        let Some(offer) = &attempt.offer else {
            if !servers.is_empty() {
                self.note(&Fault::UnaskedSecurityServer);
            }
            self.answer_challenge(attempt, verified, ctx);
            return Ok(());
        };
        if servers.is_empty() {
            if !self.config.allow_unprotected || attempt.path != Path::Clear {
                return Err(self.fatal(Fault::NoSecurityServer));
            }
            self.step(ctx.now, || "no Security-Server: going on in clear".to_owned());
            attempt.offer = None;
            self.answer_challenge(attempt, verified, ctx);
            return Ok(());
        }
        let set = offer.accept(&servers, self.config.address, self.config.pcscf).map_err(|fault| self.fatal(fault))?;
        if self.sets.is_full() {
            // TS 33.203 7.2: the oldest makes room.
            let oldest = self.sets.oldest_retiring().ok_or(Failure::NoFreeSet)?;
            self.remove_set(oldest, ctx);
        }
        let verify = message.raw(Name::SecurityServer).map(|v| String::from_utf8_lossy(v).into_owned());
        let verify = verify.collect::<Vec<_>>().join(", ");
        self.install(attempt, set, verify, verified, ctx);
        Ok(())
    }

    /// A new proposal with every request that is no answer to a challenge (TS 24.229 5.1.1.5.3).
    fn renew_offer(&mut self, attempt: &mut Attempt, ctx: &mut Ctx<'_>) {
        if attempt.offer.is_some() {
            attempt.offer = Some(self.sets.offer(&self.config, ctx.rng));
        }
    }

    fn read_challenge(&self, message: &Message) -> Result<AkaChallenge, Fault> {
        let header = match message.first::<WwwAuthenticate<'_>>() {
            Ok(Some(h)) if h.scheme.eq_ignore_ascii_case("Digest") => h,
            Ok(Some(_)) => return Err(Fault::NoChallenge("its scheme is not Digest")),
            Ok(None) => return Err(Fault::NoChallenge("it is absent")),
            Err(e) => return Err(Fault::NoChallenge(e.reason)),
        };
        let value = |name| header.params.get(name).map(|v| v.into_owned());
        if value("ck").is_some() || value("ik").is_some() {
            return Err(Fault::CkIkLeaked);
        }
        let realm = value("realm").unwrap_or_default();
        if !realm.eq_ignore_ascii_case(&self.config.home_domain) {
            return Err(Fault::WrongRealm(realm));
        }
        let token = value("algorithm").unwrap_or_else(|| "MD5".into());
        let algorithm = DigestAlgorithm::from_token(&token)
            .filter(|a| matches!(a, DigestAlgorithm::AkaV1Md5 | DigestAlgorithm::AkaV2Md5))
            .ok_or(Fault::WrongAlgorithm(token))?;
        let nonce = value("nonce").unwrap_or_default();
        let bytes = base64::engine::general_purpose::STANDARD.decode(&nonce).map_err(|_| Fault::BadNonce)?;
        let (Some(rand), Some(autn)) = (bytes.first_chunk::<16>(), bytes.get(16..).and_then(|b| b.first_chunk::<16>()))
        else {
            return Err(Fault::BadNonce);
        };
        let offered: Vec<String> =
            value("qop").unwrap_or_default().split(',').map(|q| q.trim().to_ascii_lowercase()).collect();
        let qop = ["auth", "auth-int"].into_iter().find(|q| offered.iter().any(|o| o == q));
        Ok(AkaChallenge { realm, nonce, opaque: value("opaque"), algorithm, qop, rand: *rand, autn: *autn })
    }

    fn credential(
        &self,
        challenge: AkaChallenge,
        res: Vec<u8>,
        ck: Secret<16>,
        ik: Secret<16>,
        ctx: &mut Ctx<'_>,
    ) -> AkaCredential {
        let AkaChallenge { realm, nonce, opaque, algorithm, qop, .. } = challenge;
        let cnonce = ctx.rng.token(16);
        AkaCredential { realm, nonce, opaque, algorithm, qop, res: Res(res), ck, ik, nc: 1, cnonce }
    }
}
