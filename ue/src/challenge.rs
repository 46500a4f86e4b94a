//! The 401 (TS 24.229 5.1.1.5): is it a challenge we may answer, what does the USIM say, which mechanism is agreed.

use crate::Ue;
use crate::config::Password;
use crate::error::{Failure, Fault};
use crate::register::{Attempt, Path};
use crate::request::{Credential, DigestCredential, Known, base64_of};
use base64::Engine as _;
use ims_aka::Challenge;
use ims_core::{Ctx, Secret};
use ims_sip::digest::DigestAlgorithm;
use ims_sip::headers::{SecMechanism, SecurityServer, WwwAuthenticate};
use ims_sip::{Message, Name};
use zeroize::Zeroizing;

/// TS 24.229 5.1.1.5.12: three challenges in a row that lead nowhere end the attempt.
const MAX_CHALLENGES: u32 = 3;

/// A challenge whose AUTN verified, with the answer ready to be sent.
#[derive(Debug)]
pub(crate) struct Verified {
    answer: DigestCredential,
    pub(crate) ck: Secret<16>,
    pub(crate) ik: Secret<16>,
}

/// A readable challenge.
struct Challenged {
    realm: String,
    nonce: String,
    opaque: Option<String>,
    algorithm: DigestAlgorithm,
    qop: Option<&'static str>,
    /// Only the nonce of our answer was too old.
    is_stale: bool,
}

impl Challenged {
    /// RAND and AUTN (RFC 3310 3.2).
    fn vector(&self) -> Result<([u8; 16], [u8; 16]), Fault> {
        let bytes = base64::engine::general_purpose::STANDARD.decode(&self.nonce).map_err(|_| Fault::BadNonce)?;
        let autn = bytes.get(16..).and_then(|b| b.first_chunk::<16>());
        bytes.first_chunk::<16>().copied().zip(autn.copied()).ok_or(Fault::BadNonce)
    }
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
        let Some(usim) = &mut self.usim else {
            return self.answer_with_password(attempt, challenge, ctx).map(|()| false);
        };
        let answer = match challenge.vector() {
            Ok((rand, autn)) => usim.authenticate(&rand, &autn),
            Err(fault) => return Err(self.fatal(fault)),
        };
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
                let nothing = Known::Aka { res: Zeroizing::default(), ck: empty(), ik: empty() };
                let challenge = credential(challenge, nothing, ctx);
                attempt.credential = Credential::SyncFailure { challenge, auts: base64_of(&auts) };
                self.renew_offer(attempt, ctx);
                self.send(attempt, ctx);
            }
            Challenge::Accepted { res, ck, ik } => {
                let secret = Known::Aka { res: Zeroizing::new(res), ck: ck.clone(), ik: ik.clone() };
                let verified = Verified { answer: credential(challenge, secret, ctx), ck, ik };
                self.agree(attempt, message, verified, ctx)?;
            }
        }
        Ok(false)
    }

    /// Sends the answer; the path says whether inside the new set.
    pub(crate) fn answer_challenge(&mut self, attempt: &mut Attempt, verified: Verified, ctx: &mut Ctx<'_>) {
        attempt.credential = Credential::Answer(verified.answer);
        self.send(attempt, ctx);
    }

    /// SIP Digest: the password answers any challenge, but not the same one twice (RFC 7616 3.3).
    fn answer_with_password(
        &mut self,
        attempt: &mut Attempt,
        challenge: Challenged,
        ctx: &mut Ctx<'_>,
    ) -> Result<(), Failure> {
        let password = self.config.password.as_ref().map(Password::bytes).unwrap_or_default();
        if attempt.challenges > 1 && !challenge.is_stale {
            return Err(Failure::PasswordRefused);
        }
        attempt.credential = Credential::Answer(credential(challenge, Known::Password(password), ctx));
        self.send(attempt, ctx);
        Ok(())
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
            if attempt.path != Path::Clear {
                // The offer names what the set in use has: there can be no new one (TS 33.203 7.1). We begin again.
                return Err(Failure::Refused {
                    status: 401,
                    reason: "challenged again without a new agreement".into(),
                    retry_after: None,
                });
            }
            if !self.config.allow_unprotected {
                return Err(self.fatal(Fault::NoSecurityServer));
            }
            self.step(ctx.now, || "no Security-Server: going on in clear".to_owned());
            attempt.offer = None;
            self.answer_challenge(attempt, verified, ctx);
            return Ok(());
        }
        let set = offer.accept(&servers, self.config.address, self.config.pcscf).map_err(|fault| self.fatal(fault))?;
        // The same pair of ports again: the network has ended the set that had it.
        if let Some(ended) = self.sets.retiring_between(set.port_pc, set.port_us) {
            self.remove_set(ended, ctx);
        }
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

    /// The first challenge with an algorithm that we know (RFC 8760 2.4): the network puts the one it prefers first.
    fn read_challenge(&self, message: &Message) -> Result<Challenged, Fault> {
        let headers: Vec<WwwAuthenticate<'_>> = message.all().map_err(|e| Fault::NoChallenge(e.reason))?;
        if headers.iter().any(|h| h.params.has("ck") || h.params.has("ik")) {
            return Err(Fault::CkIkLeaked);
        }
        if headers.is_empty() {
            return Err(Fault::NoChallenge("it is absent"));
        }
        let mut unknown = None;
        for header in headers.iter().filter(|h| h.is_digest()) {
            let value = |name| header.params.get(name).map(|v| v.into_owned());
            let token = value("algorithm").unwrap_or_else(|| "MD5".into());
            let known = DigestAlgorithm::from_token(&token).filter(|a| self.config.knows(*a));
            let Some(algorithm) = known else {
                unknown.get_or_insert(token);
                continue;
            };
            let realm = value("realm").unwrap_or_default();
            if algorithm.is_aka() && !realm.eq_ignore_ascii_case(&self.config.home_domain) {
                return Err(Fault::WrongRealm(realm));
            }
            let offered = value("qop").unwrap_or_default().to_ascii_lowercase();
            let qop = ["auth", "auth-int"].into_iter().find(|q| offered.split(',').any(|o| o.trim() == *q));
            let is_stale = value("stale").is_some_and(|v| v.eq_ignore_ascii_case("true"));
            let nonce = value("nonce").unwrap_or_default();
            return Ok(Challenged { realm, nonce, opaque: value("opaque"), algorithm, qop, is_stale });
        }
        Err(unknown.map_or(Fault::NoChallenge("its scheme is not Digest"), Fault::WrongAlgorithm))
    }
}

fn credential(challenge: Challenged, secret: Known, ctx: &mut Ctx<'_>) -> DigestCredential {
    let Challenged { realm, nonce, opaque, algorithm, qop, .. } = challenge;
    DigestCredential { realm, nonce, opaque, algorithm, qop, secret, nc: 1, cnonce: ctx.rng.token(16) }
}
