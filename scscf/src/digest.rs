//! SIP Digest (TS 33.203 Annex N, RFC 7616): a nonce is good for many requests, each with a higher nonce count, until it
//! is too old. H(A1) is kept with it and nowhere else; when it is gone, the HSS is asked again.

use crate::register::{Attempt, Given};
use crate::vector::{Claim, Password};
use crate::{Refusal, Scscf};
use ims_core::{Ctx, Impi, Time, Timers};
use std::collections::BTreeMap;

/// Nonces of one private identity in use: one for each device, and one that takes another's place.
const MAX_PER_IMPI: usize = 8;

/// A nonce that was answered rightly.
struct Nonce {
    value: String,
    /// The highest nonce count seen: what is not above it is a repetition.
    last: u32,
    since: Time,
    password: Password,
}

#[derive(Default)]
pub(crate) struct Nonces {
    by_impi: BTreeMap<Impi, Vec<Nonce>>,
    timers: Timers<(Impi, String)>,
}

impl Nonces {
    pub(crate) fn len(&self) -> usize {
        self.timers.len()
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        self.timers.next()
    }

    pub(crate) fn has(&self, impi: &Impi, nonce: &str) -> bool {
        self.by_impi.get(impi).is_some_and(|list| list.iter().any(|n| n.value == nonce))
    }

    fn find(&mut self, impi: &Impi, nonce: &str) -> Option<&mut Nonce> {
        self.by_impi.get_mut(impi)?.iter_mut().find(|n| n.value == nonce)
    }

    fn insert(&mut self, impi: &Impi, nonce: Nonce, until: Time) {
        let list = self.by_impi.entry(impi.clone()).or_default();
        if list.len() >= MAX_PER_IMPI {
            self.timers.clear(&(impi.clone(), list.remove(0).value));
        }
        self.timers.set((impi.clone(), nonce.value.clone()), until);
        list.push(nonce);
    }

    /// Those whose time is over go: who answers one of them is challenged anew.
    pub(crate) fn expire(&mut self, now: Time) {
        while let Some((impi, value)) = self.timers.pop(now) {
            let Some(list) = self.by_impi.get_mut(&impi) else { continue };
            list.retain(|n| n.value != value);
            if list.is_empty() {
                self.by_impi.remove(&impi);
            }
        }
    }

    pub(crate) fn forget(&mut self, impi: &Impi) {
        for nonce in self.by_impi.remove(impi).unwrap_or_default() {
            self.timers.clear(&(impi.clone(), nonce.value));
        }
    }
}

impl Scscf {
    /// A request with a nonce that was answered before: good when its count is new, and the answer right.
    pub(crate) fn on_known_nonce(
        &mut self,
        mut attempt: Attempt,
        given: Given,
        ctx: &mut Ctx<'_>,
    ) -> Result<(), Refusal> {
        let count = nonce_count(&given)?;
        let lifetime = self.config.registration.nonce_lifetime.0;
        let impi = attempt.impi.clone();
        let Some(nonce) = self.nonces.find(&impi, &given.nonce) else {
            self.ask_vector(attempt, Some(given), None, 0, ctx);
            return Ok(());
        };
        check_qop(&given, &nonce.password.qop)?;
        let password = nonce.password.clone();
        let claim = Claim { impi: &impi, realm: &password.realm, given: &given, body: attempt.message.body() };
        if !password.is_right(&claim) {
            return Err(Refusal::WrongPassword(impi));
        }
        if count <= nonce.last {
            self.count("nonce-count-repeated");
            tracing::info!(?impi, count, "a nonce count that was used before: challenging anew");
            self.ask_vector(attempt, Some(given), None, 0, ctx);
            return Ok(());
        }
        nonce.last = count;
        // In good time before it is too old another takes its place, without a challenge between.
        let next = (ctx.now.since(nonce.since) >= lifetime / 2).then(|| ctx.rng.token(32));
        attempt.proof = password.authentication_info(&claim, next.as_deref());
        if let Some(value) = next {
            let fresh = Nonce { value, last: 0, since: ctx.now, password };
            self.nonces.insert(&impi, fresh, ctx.now + lifetime);
        }
        self.on_authenticated(attempt, ctx)
    }

    /// The first right answer to a challenge with a password.
    pub(crate) fn judge_digest(
        &mut self,
        attempt: &mut Attempt,
        given: &Given,
        password: &Password,
        ctx: &Ctx<'_>,
    ) -> Result<(), Refusal> {
        let count = nonce_count(given)?;
        check_qop(given, &password.qop)?;
        let claim = Claim { impi: &attempt.impi, realm: &password.realm, given, body: attempt.message.body() };
        if !password.is_right(&claim) {
            return Err(Refusal::WrongPassword(attempt.impi.clone()));
        }
        attempt.proof = password.authentication_info(&claim, None);
        let nonce = Nonce { value: given.nonce.clone(), last: count, since: ctx.now, password: password.clone() };
        let until = ctx.now + self.config.registration.nonce_lifetime.0;
        self.nonces.insert(&attempt.impi, nonce, until);
        Ok(())
    }
}

/// RFC 7616 3.4: eight hexadecimal digits.
fn nonce_count(given: &Given) -> Result<u32, Refusal> {
    let digits = given.nc.as_deref().filter(|nc| nc.len() == 8 && nc.bytes().all(|b| b.is_ascii_hexdigit()));
    let count = digits.and_then(|nc| u32::from_str_radix(nc, 16).ok()).filter(|count| *count > 0);
    count.ok_or_else(|| Refusal::Malformed("Authorization: nc is no nonce count of 8 hexadecimal digits".into()))
}

/// A quality of protection that was offered, with what goes with it.
pub(crate) fn check_qop(given: &Given, offered: &[String]) -> Result<(), Refusal> {
    let is_offered = |qop: &String| offered.iter().any(|q| q.eq_ignore_ascii_case(qop));
    if given.qop.as_ref().is_some_and(|qop| is_offered(qop) && given.nc.is_some() && given.cnonce.is_some()) {
        return Ok(());
    }
    Err(Refusal::Malformed("Authorization: qop was not offered, or comes without nc and cnonce".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nonce(value: &str) -> Nonce {
        let item = ims_diameter::cx::DigestItem {
            realm: "b".into(),
            algorithm: None,
            qop: None,
            ha1: "0".repeat(32).into(),
            alternate: None,
        };
        Nonce { value: value.into(), last: 1, since: Time::EPOCH, password: Password::read(item).unwrap() }
    }

    #[test]
    fn nonces_are_bounded_and_leave_no_trace() {
        let impi = Impi::parse("a@b").unwrap();
        let mut table = Nonces::default();
        for n in 0..12 {
            table.insert(&impi, nonce(&n.to_string()), Time::from_secs(n));
        }
        assert_eq!(table.len(), MAX_PER_IMPI);
        assert!(!table.has(&impi, "3") && table.has(&impi, "4"));
        table.expire(Time::from_secs(9));
        assert!(!table.has(&impi, "9") && table.find(&impi, "10").is_some());
        table.forget(&impi);
        assert_eq!((table.len(), table.deadline(), table.by_impi.len()), (0, None, 0));
    }

    #[test]
    fn nonce_counts_have_eight_digits() {
        let given = |nc: Option<&str>| Given { nc: nc.map(Into::into), ..Given::default() };
        assert_eq!(nonce_count(&given(Some("0000000a"))), Ok(10));
        for nc in [None, Some(""), Some("00000000"), Some("1"), Some("+0000001"), Some("000000001")] {
            assert!(nonce_count(&given(nc)).is_err(), "{nc:?}");
        }
    }
}
