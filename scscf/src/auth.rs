//! Authentication (TS 24.229 5.4.1.2, TS 33.203 6.1, RFC 3310, RFC 4169): the challenge, reg-await-auth, and what a UE can
//! answer: the right RES, a wrong one, nothing (it rejects our MAC), or AUTS (its sequence number is ahead). What is
//! different with a password instead of a SIM stands in `digest`.

use crate::digest::check_qop;
use crate::register::{Attempt, Given};
use crate::vector::{Av, Claim, Vector, read_maa};
use crate::{Refusal, Scscf, Waiting};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ims_core::{Ctx, Impi, Impu, Time};
use ims_diameter::cx::{Mar, ResultCode, SCHEME_AKA, SCHEME_UNKNOWN, ServerAssignmentType};
use ims_diameter::endpoint::RequestFailure;
use ims_sip::digest::{Credentials, DigestAlgorithm};
use ims_sip::{Message, Name};
use std::collections::BTreeMap;
use std::time::Duration;
use zeroize::Zeroizing;

/// Open challenges of one private identity: a phone has one, a stranger who uses its name must not fill the table.
const MAX_PER_IMPI: usize = 4;

/// A 401 that is out, with reg-await-auth running until `until`.
pub(crate) struct Challenge {
    pub(crate) impu: Impu,
    call_id: Box<str>,
    nonce: String,
    vector: Vector,
    /// Offered, one of which the UE takes.
    algorithms: Vec<DigestAlgorithm>,
    resyncs: u8,
    until: Time,
}

/// Per private identity: absent is Idle, an entry is Challenged; AwaitingMaa is an entry of `waiting`.
#[derive(Default)]
pub(crate) struct Challenges {
    by_impi: BTreeMap<Impi, Vec<Challenge>>,
    timers: ims_core::Timers<(Impi, String)>,
}

impl Challenges {
    pub(crate) fn len(&self) -> usize {
        self.timers.len()
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        self.timers.next()
    }

    /// A new challenge of the same Call-ID takes the place of the one before; beyond the bound the oldest goes.
    fn insert(&mut self, impi: &Impi, challenge: Challenge) {
        let list = self.by_impi.entry(impi.clone()).or_default();
        let replaced = list.iter().position(|c| c.call_id == challenge.call_id);
        if let Some(at) = replaced.or((list.len() >= MAX_PER_IMPI).then_some(0)) {
            self.timers.clear(&(impi.clone(), list.remove(at).nonce));
        }
        self.timers.set((impi.clone(), challenge.nonce.clone()), challenge.until);
        list.push(challenge);
    }

    /// Whether this nonce is open for these identities.
    pub(crate) fn has(&self, impi: &Impi, impu: &Impu, nonce: &str) -> bool {
        self.by_impi.get(impi).is_some_and(|list| list.iter().any(|c| c.nonce == nonce && c.impu == *impu))
    }

    /// A nonce is answered once.
    fn take(&mut self, impi: &Impi, nonce: &str) -> Option<Challenge> {
        let list = self.by_impi.get_mut(impi)?;
        let at = list.iter().position(|c| c.nonce == nonce)?;
        let challenge = list.remove(at);
        if list.is_empty() {
            self.by_impi.remove(impi);
        }
        self.timers.clear(&(impi.clone(), challenge.nonce.clone()));
        Some(challenge)
    }

    pub(crate) fn pop_expired(&mut self, now: Time) -> Option<(Impi, Challenge)> {
        let (impi, nonce) = self.timers.pop(now)?;
        let challenge = self.take(&impi, &nonce)?;
        Some((impi, challenge))
    }

    /// All of one identity: it is to be served no longer.
    pub(crate) fn forget(&mut self, impi: &Impi) {
        for challenge in self.by_impi.remove(impi).unwrap_or_default() {
            self.timers.clear(&(impi.clone(), challenge.nonce));
        }
    }
}

impl Scscf {
    /// 5.4.1.2.1: asks for a vector. `given`: an answer to a nonce that is not open, which may only be stale. `resync`: RAND
    /// || AUTS of a synchronisation failure (TS 29.228 6.3.1).
    pub(crate) fn ask_vector(
        &mut self,
        attempt: Attempt,
        given: Option<Given>,
        resync: Option<Vec<u8>>,
        resyncs: u8,
        ctx: &mut Ctx<'_>,
    ) {
        // 5.4.1.1: "yes" and "no" are what a P-CSCF says of IMS AKA. Of who comes without, the HSS knows what it has.
        let is_open = self.config.registration.digest && !attempt.is_aka && resync.is_none();
        let mar = Mar {
            impi: attempt.impi.clone(),
            impu: attempt.impu.clone(),
            server_name: self.config.name(),
            items: 1,
            scheme: if is_open { SCHEME_UNKNOWN } else { SCHEME_AKA }.into(),
            authorization: resync,
        };
        let id = self.cx.send_request(mar.to_message(), &self.config.hss(), ctx);
        let given = given.map(Box::new);
        self.waiting.insert(id, Waiting::Maa { attempt: Box::new(attempt), given, resyncs });
    }

    pub(crate) fn on_maa(
        &mut self,
        attempt: Attempt,
        given: Option<&Given>,
        resyncs: u8,
        answer: Result<&ims_diameter::Message, RequestFailure>,
        ctx: &mut Ctx<'_>,
    ) {
        match read_maa(answer, &attempt.impu, ctx.rng) {
            Ok((nonce, vector)) => self.challenge(attempt, given, nonce, vector, resyncs, ctx),
            Err(refusal) => self.refuse(attempt.tx, &attempt.message, &refusal, ctx),
        }
    }

    /// 5.4.1.2.1 step 5: 401 with the challenge, one for each algorithm that the UE may take, the preferred one first (RFC
    /// 8760 2.4), and, for the P-CSCF alone, CK and IK.
    fn challenge(
        &mut self,
        attempt: Attempt,
        given: Option<&Given>,
        nonce: String,
        vector: Vector,
        resyncs: u8,
        ctx: &mut Ctx<'_>,
    ) {
        let mut more = Zeroizing::new(String::new());
        let (realm, qop, algorithms) = match &vector {
            Vector::Aka(av) => {
                // Without Path no P-CSCF stands between us and the UE: nobody would take the keys out.
                if attempt.message.has(Name::Path) {
                    let keys = Zeroizing::new([av.ck.to_wire_hex(), av.ik.to_wire_hex()]);
                    more.push_str(&format!(",ck=\"{}\",ik=\"{}\"", keys[0], keys[1]));
                }
                (&self.config.domain, &self.config.qop, self.config.registration.aka_for(attempt.algorithm))
            }
            Vector::Digest(password) => {
                let body = attempt.message.body();
                let right = |given| {
                    let claim = Claim { impi: &attempt.impi, realm: &password.realm, given, body };
                    password.is_right(&claim)
                };
                // RFC 7616 3.3: the password is right, only the nonce is not: nobody has to type it again.
                if given.is_some_and(right) {
                    *self.refusals.entry("stale-nonce").or_default() += 1;
                    more.push_str(",stale=true");
                }
                (&password.realm, &password.qop, password.algorithms())
            }
        };
        self.outcomes.count("challenged");
        let mut answer = Message::response(&attempt.message, 401, Some(&ctx.rng.token(10)));
        let qop = qop.join(",");
        for algorithm in &algorithms {
            let token = algorithm.token();
            let header = format!("Digest realm=\"{realm}\",nonce=\"{nonce}\",algorithm={token},qop=\"{qop}\"{}", *more);
            answer.push_back(Name::WwwAuthenticate, Zeroizing::new(header).as_str());
        }
        let until = ctx.now + self.config.registration.await_auth.0;
        let call_id = attempt.wish.call_id.clone();
        let challenge = Challenge { impu: attempt.impu.clone(), call_id, nonce, vector, algorithms, resyncs, until };
        self.auth.insert(&attempt.impi, challenge);
        self.sip.respond(attempt.tx, answer, ctx);
    }

    /// 5.4.1.2.2: the answer to an open challenge. Every way out stops reg-await-auth.
    pub(crate) fn on_challenge_answer(
        &mut self,
        mut attempt: Attempt,
        given: &Given,
        ctx: &mut Ctx<'_>,
    ) -> Result<(), Refusal> {
        let Some(challenge) = self.auth.take(&attempt.impi, &given.nonce) else {
            self.ask_vector(attempt, None, None, 0, ctx);
            return Ok(());
        };
        let verdict = match &challenge.vector {
            Vector::Aka(av) => self.judge(&attempt, given, &challenge, av),
            // It only repeats the nonce.
            Vector::Digest(_) if given.response.is_empty() => Ok(Verdict::NoAnswer),
            Vector::Digest(password) => {
                self.judge_digest(&mut attempt, given, password, ctx).map(|()| Verdict::Authentic)
            }
        };
        match verdict {
            Ok(Verdict::Authentic) => self.on_authenticated(attempt, ctx),
            Ok(Verdict::Resync(rand_auts)) => {
                tracing::info!(impi = ?attempt.impi, "the SIM's sequence number is ahead of the HSS: bringing it into step");
                self.count("resynchronisation");
                self.ask_vector(attempt, None, Some(rand_auts), challenge.resyncs + 1, ctx);
                Ok(())
            }
            Ok(Verdict::NoAnswer) => {
                self.ask_vector(attempt, None, None, 0, ctx);
                Ok(())
            }
            Err(refusal) => {
                // 5.4.1.2.3 and TS 29.228 6.1.2: the HSS forgets that an authentication is pending.
                self.tell_hss(&attempt.impi, &challenge.impu, ServerAssignmentType::AuthenticationFailure, ctx);
                Err(refusal)
            }
        }
    }

    fn judge(&self, attempt: &Attempt, given: &Given, challenge: &Challenge, av: &Av) -> Result<Verdict, Refusal> {
        let impi = || attempt.impi.clone();
        if let Some(auts) = &given.auts {
            let auts = STANDARD.decode(auts).ok().filter(|a| a.len() == 14);
            let auts = auts.ok_or_else(|| Refusal::Malformed("auts is not base64 of 14 bytes".into()))?;
            if challenge.resyncs > 0 {
                return Err(Refusal::OutOfStep(impi()));
            }
            return Ok(Verdict::Resync([&av.rand[..], &auts].concat()));
        }
        if given.response.is_empty() {
            return Err(Refusal::MacFailure(impi()));
        }
        if !attempt.is_protected && !self.config.registration.accept_unprotected {
            return Err(Refusal::Unprotected(impi()));
        }
        if given.qop.is_some() {
            check_qop(given, &self.config.qop)?;
        }
        let algorithm = match (attempt.algorithm, challenge.algorithms.as_slice()) {
            (Some(taken), offered) if offered.contains(&taken) => taken,
            (_, [only]) => *only,
            _ => return Err(Refusal::Malformed("Authorization: algorithm is none of those in the challenge".into())),
        };
        let claim = Claim { impi: &attempt.impi, realm: &self.config.domain, given, body: attempt.message.body() };
        let credentials = Credentials::Aka { res: &av.xres, ik: &av.ik, ck: &av.ck };
        if claim.is_right(algorithm, &credentials) {
            Ok(Verdict::Authentic)
        } else {
            Err(Refusal::WrongResponse(impi()))
        }
    }

    /// Whether a protected REGISTER without an open challenge has to be authenticated (5.4.1.2.2): the S-CSCF may do it
    /// for any, and has to for a UE or a contact that it does not know. Who leaves is never challenged (5.4.1.4): phones
    /// do not wait for it.
    pub(crate) fn must_authenticate(&self, attempt: &Attempt, now: Time) -> bool {
        if attempt.wish.leaves() {
            return false;
        }
        let known = self.registrar.find(&attempt.impi, &attempt.impu);
        known.is_none_or(|r| !r.knows_contacts_of(&attempt.wish) || self.is_due(now.since(r.authenticated_at)))
    }

    fn is_due(&self, since: Duration) -> bool {
        match self.config.registration.reauthenticate {
            crate::Reauthenticate::Never => false,
            crate::Reauthenticate::Always => true,
            crate::Reauthenticate::After(span) => since >= span.0,
        }
    }
}

enum Verdict {
    Authentic,
    /// RAND || AUTS.
    Resync(Vec<u8>),
    /// To be challenged anew.
    NoAnswer,
}

/// DIAMETER_AUTHORIZATION_REJECTED and every Experimental-Result of 5xxx say no; the rest says not now.
pub(crate) fn says_no(result: ResultCode) -> bool {
    matches!(result, ResultCode::Experimental(5000..6000) | ResultCode::Base(5003))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ims_core::Secret;

    fn challenge(call_id: &str, nonce: &str, until: u64) -> Challenge {
        let key = Secret::new([0; 16]);
        let av = Av { rand: [0; 16], xres: Zeroizing::new(vec![1; 8]), ck: key.clone(), ik: key };
        let (vector, algorithms) = (Vector::Aka(Box::new(av)), vec![DigestAlgorithm::AkaV1Md5]);
        let impu = Impu::parse("sip:a@b").unwrap();
        let until = Time::from_secs(until);
        Challenge { impu, call_id: call_id.into(), nonce: nonce.into(), vector, algorithms, resyncs: 0, until }
    }

    #[test]
    fn concurrent_attempts_live_beside_each_other_and_are_bounded() {
        let (impi, impu) = (Impi::parse("a@b").unwrap(), Impu::parse("sip:a@b").unwrap());
        let mut table = Challenges::default();
        table.insert(&impi, challenge("call-1", "n1", 1));
        table.insert(&impi, challenge("call-2", "n2", 2));
        assert!(table.has(&impi, &impu, "n1") && table.has(&impi, &impu, "n2"));
        table.insert(&impi, challenge("call-1", "n3", 3));
        assert!(!table.has(&impi, &impu, "n1"), "the next challenge of a call replaces the one before");
        for i in 4..10 {
            table.insert(&impi, challenge(&format!("call-{i}"), &format!("n{i}"), i));
        }
        assert_eq!(table.len(), MAX_PER_IMPI);
        assert!(table.has(&impi, &impu, "n9") && !table.has(&impi, &impu, "n2"));
        assert!(table.take(&impi, "n9").is_some() && table.take(&impi, "n9").is_none(), "a nonce is answered once");
        assert_eq!(table.pop_expired(Time::from_secs(6)).map(|(_, c)| c.nonce).as_deref(), Some("n6"));
        assert!(table.pop_expired(Time::from_secs(6)).is_none());
        table.forget(&impi);
        assert_eq!((table.len(), table.deadline()), (0, None));
    }
}
