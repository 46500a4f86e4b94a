//! Authentication with AKA (TS 24.229 5.4.1.2, TS 33.203 6.1, RFC 3310): the challenge, reg-await-auth, and what a UE can
//! answer: the right RES, a wrong one, nothing (it rejects our MAC), or AUTS (its sequence number is ahead).

use crate::register::{Attempt, Given};
use crate::{Refusal, Scscf, Waiting};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ims_core::{Ctx, Impi, Impu, Secret, Time};
use ims_diameter::cx::{AuthItem, Maa, Mar, ResultCode, ServerAssignmentType};
use ims_diameter::endpoint::RequestFailure;
use ims_sip::digest::{Credentials, DigestAlgorithm, DigestInput, matches, response};
use ims_sip::{Message, Name};
use std::collections::BTreeMap;
use std::time::Duration;
use zeroize::Zeroizing;

const SCHEME: &str = "Digest-AKAv1-MD5";
const ALGORITHM: DigestAlgorithm = DigestAlgorithm::AkaV1Md5;
/// Open challenges of one private identity: a phone has one, a stranger who uses its name must not fill the table.
const MAX_PER_IMPI: usize = 4;

/// Authentication vector, without the AUTN that went out in the nonce.
struct Av {
    rand: [u8; 16],
    xres: Zeroizing<Vec<u8>>,
    ck: Secret<16>,
    ik: Secret<16>,
}

/// A 401 that is out, with reg-await-auth running until `until`.
pub(crate) struct Challenge {
    pub(crate) impu: Impu,
    call_id: String,
    nonce: String,
    av: Av,
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
    /// 5.4.1.2.1: asks for a vector. `resync`: RAND || AUTS of a synchronisation failure (TS 29.228 6.3.1).
    pub(crate) fn ask_vector(&mut self, attempt: Attempt, resync: Option<Vec<u8>>, resyncs: u8, ctx: &mut Ctx<'_>) {
        let mar = Mar {
            impi: attempt.impi.clone(),
            impu: attempt.impu.clone(),
            server_name: self.config.name(),
            items: 1,
            scheme: SCHEME.into(),
            authorization: resync,
        };
        let id = self.cx.send_request(mar.to_message(), &self.config.hss(), ctx);
        self.waiting.insert(id, Waiting::Maa { attempt: Box::new(attempt), resyncs });
    }

    pub(crate) fn on_maa(
        &mut self,
        attempt: Attempt,
        resyncs: u8,
        answer: Result<&ims_diameter::Message, RequestFailure>,
        ctx: &mut Ctx<'_>,
    ) {
        match read_maa(answer, &attempt.impu) {
            Ok((nonce, av)) => self.challenge(attempt, nonce, av, resyncs, ctx),
            Err(refusal) => self.refuse(attempt.tx, &attempt.message, &refusal, ctx),
        }
    }

    /// 5.4.1.2.1 step 5: 401 with the challenge and, for the P-CSCF alone, CK and IK.
    fn challenge(&mut self, attempt: Attempt, nonce: String, av: Av, resyncs: u8, ctx: &mut Ctx<'_>) {
        let mut header = format!(
            "Digest realm=\"{}\",nonce=\"{nonce}\",algorithm={},qop=\"{}\"",
            self.config.domain,
            ALGORITHM.token(),
            self.config.qop.join(","),
        );
        // Without Path no P-CSCF stands between us and the UE: nobody would take the keys out.
        if attempt.message.has(Name::Path) {
            let keys = Zeroizing::new([av.ck.to_wire_hex(), av.ik.to_wire_hex()]);
            header.push_str(&format!(",ck=\"{}\",ik=\"{}\"", keys[0], keys[1]));
        }
        self.outcomes.count("challenged");
        let mut answer = Message::response(&attempt.message, 401, Some(&ctx.rng.token(10)));
        answer.set(Name::WwwAuthenticate, header);
        let until = ctx.now + self.config.registration.await_auth.0;
        let call_id = attempt.wish.call_id.clone();
        let challenge = Challenge { impu: attempt.impu.clone(), call_id, nonce, av, resyncs, until };
        self.auth.insert(&attempt.impi, challenge);
        self.sip.respond(attempt.tx, answer, ctx);
    }

    /// 5.4.1.2.2: the answer to an open challenge. Every way out stops reg-await-auth.
    pub(crate) fn on_challenge_answer(
        &mut self,
        attempt: Attempt,
        given: &Given,
        ctx: &mut Ctx<'_>,
    ) -> Result<(), Refusal> {
        let Some(challenge) = self.auth.take(&attempt.impi, &given.nonce) else {
            self.ask_vector(attempt, None, 0, ctx);
            return Ok(());
        };
        let verdict = self.judge(&attempt, given, &challenge);
        match verdict {
            Ok(Verdict::Authentic) => self.on_authenticated(attempt, ctx),
            Ok(Verdict::Resync(rand_auts)) => {
                tracing::info!(impi = ?attempt.impi, "the SIM's sequence number is ahead of the HSS: bringing it into step");
                self.count("resynchronisation");
                self.ask_vector(attempt, Some(rand_auts), challenge.resyncs + 1, ctx);
                Ok(())
            }
            Err(refusal) => {
                // 5.4.1.2.3 and TS 29.228 6.1.2: the HSS forgets that an authentication is pending.
                self.tell_hss(&attempt.impi, &challenge.impu, ServerAssignmentType::AuthenticationFailure, ctx);
                Err(refusal)
            }
        }
    }

    fn judge(&self, attempt: &Attempt, given: &Given, challenge: &Challenge) -> Result<Verdict, Refusal> {
        let impi = || attempt.impi.clone();
        if let Some(auts) = &given.auts {
            let auts = STANDARD.decode(auts).ok().filter(|a| a.len() == 14);
            let auts = auts.ok_or_else(|| Refusal::Malformed("auts is not base64 of 14 bytes".into()))?;
            if challenge.resyncs > 0 {
                return Err(Refusal::OutOfStep(impi()));
            }
            return Ok(Verdict::Resync([&challenge.av.rand[..], &auts].concat()));
        }
        if given.response.is_empty() {
            return Err(Refusal::MacFailure(impi()));
        }
        if !attempt.is_protected && !self.config.registration.accept_unprotected {
            return Err(Refusal::Unprotected(impi()));
        }
        let offered = |qop: &String| self.config.qop.iter().any(|q| q.eq_ignore_ascii_case(qop));
        if given.qop.as_ref().is_some_and(|qop| !offered(qop) || given.nc.is_none() || given.cnonce.is_none()) {
            return Err(Refusal::Malformed("qop was not offered, or comes without nc and cnonce".into()));
        }
        let input = DigestInput {
            algorithm: ALGORITHM,
            username: attempt.impi.as_str(),
            realm: &self.config.domain,
            nonce: &challenge.nonce,
            uri: &given.uri,
            method: "REGISTER",
            qop: given.qop.as_deref(),
            nc: given.nc.as_deref(),
            cnonce: given.cnonce.as_deref(),
            body: attempt.message.body(),
        };
        let av = &challenge.av;
        let expected = response(&input, &Credentials::Aka { res: &av.xres, ik: &av.ik, ck: &av.ck });
        if matches(&expected, &given.response) { Ok(Verdict::Authentic) } else { Err(Refusal::WrongResponse(impi())) }
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
}

/// The nonce (RFC 3310 3.2: base64 of RAND || AUTN) and the rest of the vector.
fn read_maa(answer: Result<&ims_diameter::Message, RequestFailure>, impu: &Impu) -> Result<(String, Av), Refusal> {
    let wrong = |what: String| Refusal::HssAnswer { command: "MAR", what };
    let maa = Maa::from_message(answer.map_err(Refusal::HssSilent)?).map_err(|e| wrong(e.to_string()))?;
    if !maa.result.is_success() {
        return Err(crate::profile::refused("MAR", impu, maa.result));
    }
    let first = maa.items.into_iter().find_map(|item| match item {
        AuthItem::Aka { rand, autn, xres, ck, ik, .. } => Some((rand, autn, xres, ck, ik)),
        AuthItem::Digest { .. } => None,
    });
    let (rand, autn, xres, ck, ik) = first.ok_or_else(|| wrong("it has no AKA vector".into()))?;
    // TS 33.102 6.3.7: RES has 32 to 128 bits.
    if !(4..=16).contains(&xres.len()) {
        return Err(wrong("XRES has an impossible length".into()));
    }
    Ok((STANDARD.encode([rand, autn].concat()), Av { rand, xres: Zeroizing::new(xres), ck, ik }))
}

/// DIAMETER_AUTHORIZATION_REJECTED and every Experimental-Result of 5xxx say no; the rest says not now.
pub(crate) fn says_no(result: ResultCode) -> bool {
    matches!(result, ResultCode::Experimental(5000..6000) | ResultCode::Base(5003))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(call_id: &str, nonce: &str, until: u64) -> Challenge {
        let key = Secret::new([0; 16]);
        let av = Av { rand: [0; 16], xres: Zeroizing::new(vec![1; 8]), ck: key.clone(), ik: key };
        let impu = Impu::parse("sip:a@b").unwrap();
        let until = Time::from_secs(until);
        Challenge { impu, call_id: call_id.into(), nonce: nonce.into(), av, resyncs: 0, until }
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
