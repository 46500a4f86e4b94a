//! Multimedia-Auth (TS 29.228 6.3.1): authentication vectors for an S-CSCF, each with a sequence number of its own, and
//! resynchronisation (TS 33.102 6.3.5); or H(A1) for SIP Digest.

use super::{Decision, View, matching_set};
use crate::credential::{Credential, Opened};
use crate::error::Refusal;
use crate::subscriber::Scscf;
use ims_aka::{Algorithm, Sqn};
use ims_core::Rng;
use ims_diameter::cx::{AuthItem, DigestItem, Maa, Mar, ResultCode, SCHEME_AKA, SCHEME_DIGEST, SCHEME_UNKNOWN};
use ims_sip::digest::DigestAlgorithm;
use zeroize::Zeroizing;

const MOST_ITEMS: u32 = 5;

/// Whether there will be an answer at all; before the credential is opened.
pub fn check(view: View<'_>, request: &Mar) -> Result<(), Refusal> {
    matching_set(view, Some(&request.impi), &request.impu)?;
    let is = |scheme: &str| request.scheme.eq_ignore_ascii_case(scheme);
    let (aka, digest) = (is(SCHEME_AKA), is(SCHEME_DIGEST));
    if !aka && !digest && !is(SCHEME_UNKNOWN) {
        return Err(Refusal::UnsupportedScheme { scheme: request.scheme.chars().take(40).collect() });
    }
    let impi = || request.impi.clone();
    match view.subscription.private_identity(&request.impi).map(|p| &p.credential) {
        Some(Credential::Digest(_)) if aka || request.authorization.is_some() => {
            return Err(Refusal::HasPassword { impi: impi() });
        }
        Some(Credential::Aka(_)) if digest => return Err(Refusal::HasSim { impi: impi() }),
        _ => {}
    }
    if request.authorization.is_some() && !is_known_server(view, request) {
        return Err(Refusal::NotAssigned { asking: request.server_name.clone() });
    }
    Ok(())
}

/// After [`check`]. `scscf` is the one that asks, `opened` the credential of the private identity.
pub fn decide(
    view: View<'_>,
    request: &Mar,
    scscf: &Scscf,
    opened: &Opened,
    rng: &mut Rng,
) -> Result<Decision<Maa>, Refusal> {
    let mut state = view.state.clone();
    let items = match opened {
        Opened::Aka { algorithm, amf } => {
            let stored = view.state.sqn(&request.impi);
            let mut sqn = match &request.authorization {
                Some(authorization) => stored.resynchronised(sqn_of_usim(request, authorization, algorithm)?),
                None => stored,
            };
            let items = (1..=request.items.clamp(1, MOST_ITEMS)).map(|item| {
                sqn = sqn.next(view.config.ind);
                let av = ims_aka::vector(algorithm, rng.bytes(), sqn, *amf);
                AuthItem::Aka { item, rand: av.rand, autn: av.autn, xres: av.xres, ck: av.ck, ik: av.ik }
            });
            let items = items.collect();
            state.sqn.insert(view.subscription.own(&request.impi), sqn.0);
            items
        }
        Opened::Digest { realm, ha1 } => digest_item(realm, ha1).into_iter().collect(),
    };
    state.pending.insert(request.impi.clone(), scscf.clone());
    let (impi, impu) = (Some(request.impi.clone()), Some(request.impu.clone()));
    let answer = Maa { result: ResultCode::SUCCESS, impi, impu, items };
    Ok(Decision::with_state(answer, view.state, state, None))
}

/// One item whatever number is asked for: H(A1) is no vector, and good for any number of challenges (TS 29.228 6.3).
/// Where there are two algorithms, MD5 goes first: S-CSCFs that know of one only know that one.
fn digest_item(realm: &str, ha1: &[(DigestAlgorithm, Zeroizing<String>)]) -> Option<AuthItem> {
    let owned = |(algorithm, ha1): &(DigestAlgorithm, Zeroizing<String>)| (algorithm.token().to_owned(), ha1.clone());
    let (algorithm, first) = ha1.first().map(owned)?;
    Some(AuthItem::Digest(Box::new(DigestItem {
        realm: realm.into(),
        algorithm: Some(algorithm),
        qop: Some("auth".into()),
        ha1: first,
        alternate: ha1.get(1).map(owned),
    })))
}

/// SQN_MS out of RAND || AUTS.
fn sqn_of_usim(request: &Mar, authorization: &[u8], algorithm: &Algorithm) -> Result<Sqn, Refusal> {
    let refusal = |cause| Refusal::Resynchronisation { impi: request.impi.clone(), cause };
    let parts = authorization.split_first_chunk::<16>();
    let parts = parts.and_then(|(rand, auts)| Some((rand, <&[u8; 14]>::try_from(auts).ok()?)));
    let (rand, auts) = parts.ok_or(refusal(ims_aka::MacFailure))?;
    ims_aka::resynchronise(algorithm, rand, auts).map_err(refusal)
}

/// Only the S-CSCF that got the challenge can know of its AUTS. Where no name is known, a crash may have cost it: the AUTS is
/// verified in any case.
fn is_known_server(view: View<'_>, request: &Mar) -> bool {
    match (view.state.pending.get(&request.impi), &view.state.assigned) {
        (None, None) => true,
        (pending, assigned) => pending.into_iter().chain(assigned).any(|scscf| scscf.name == request.server_name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cx::fixture::{Fixture, S1, S2, impu, scscf, temporary};
    use ims_aka::{Challenge, Usim};
    use ims_core::Secret;

    fn mar(f: &Fixture, server: &str) -> Mar {
        Mar {
            impi: f.impi(),
            impu: temporary(),
            server_name: server.into(),
            items: 1,
            scheme: SCHEME_AKA.into(),
            authorization: None,
        }
    }

    fn ask(f: &mut Fixture, request: &Mar) -> Result<Vec<AuthItem>, Refusal> {
        check(f.view(), request)?;
        let opened = f.subscription.private_identities[0].unseal(&f.ring).unwrap();
        let mut rng = Rng::from_u64(f.rng.u64());
        let decision = decide(f.view(), request, &scscf(&request.server_name), &opened, &mut rng)?;
        assert!(decision.change.is_some(), "each answer moves the SQN");
        let answer = f.apply(decision);
        assert_eq!((answer.result, answer.impi), (ResultCode::SUCCESS, Some(f.impi())));
        Ok(answer.items)
    }

    fn usim(at: Sqn) -> Usim {
        let secret = |hex| Secret::from_hex(hex).unwrap();
        let (k, opc) = (secret("465b5ce8b199b49faa5f0a2ee238a6bc"), secret("cd63cb71954a9f4e48a5994e37a02baf"));
        Usim::with_sqn(Algorithm::milenage(k, opc), at)
    }

    fn challenge(usim: &mut Usim, item: &AuthItem) -> ([u8; 16], Challenge) {
        let AuthItem::Aka { rand, autn, .. } = item else { panic!() };
        (*rand, usim.authenticate(rand, autn))
    }

    #[test]
    fn each_vector_has_the_next_sqn_in_our_slot_and_the_usim_accepts_it() {
        let mut f = Fixture::new();
        let mut usim = usim(Sqn(0));
        let request = Mar { items: 3, ..mar(&f, S1) };
        let items = ask(&mut f, &request).unwrap();
        assert_eq!(items.len(), 3);
        for item in &items {
            let AuthItem::Aka { xres, .. } = item else { panic!() };
            let (_, Challenge::Accepted { res, .. }) = challenge(&mut usim, item) else { panic!() };
            assert_eq!(res, *xres);
        }
        assert_eq!(f.state.sqn(&f.impi()), Sqn::new(3, f.config.ind));
        assert_eq!(usim.sqn_ms(), Sqn::new(3, f.config.ind));
    }

    #[test]
    fn no_sqn_comes_twice_and_one_to_five_vectors_are_given() {
        let mut f = Fixture::new();
        let mut last = 0;
        for (asked, given) in [(0, 1), (1, 1), (5, 5), (6, 5), (u32::MAX, 5)] {
            let request = Mar { items: asked, ..mar(&f, S1) };
            assert_eq!(ask(&mut f, &request).unwrap().len(), given);
            let seq = f.state.sqn(&f.impi()).seq();
            assert_eq!(seq, last + given as u64);
            last = seq;
        }
    }

    #[test]
    fn authentication_becomes_pending_at_the_server_that_asks() {
        let mut f = Fixture::new();
        let request = mar(&f, S1);
        ask(&mut f, &request).unwrap();
        assert_eq!(f.state.pending[&f.impi()].name, S1);
        assert_eq!(f.state.assigned, None);
        let request = mar(&f, S2);
        ask(&mut f, &request).unwrap();
        assert_eq!(f.state.pending[&f.impi()].name, S2);
    }

    #[test]
    fn a_verified_auts_brings_the_sqn_up_to_the_usims() {
        let mut f = Fixture::new();
        let mut usim = usim(Sqn::new(5000, 0));
        let request = mar(&f, S1);
        let items = ask(&mut f, &request).unwrap();
        let (rand, Challenge::SyncFailure { auts }) = challenge(&mut usim, &items[0]) else { panic!() };
        let resync = Mar { authorization: Some([&rand[..], &auts].concat()), ..mar(&f, S1) };
        let items = ask(&mut f, &resync).unwrap();
        assert_eq!(f.state.sqn(&f.impi()), Sqn::new(5001, f.config.ind));
        assert!(matches!(challenge(&mut usim, &items[0]), (_, Challenge::Accepted { .. })));
    }

    #[test]
    fn a_forged_auts_or_one_from_another_server_moves_nothing() {
        let mut f = Fixture::new();
        let mut usim = usim(Sqn::new(5000, 0));
        let request = mar(&f, S1);
        let items = ask(&mut f, &request).unwrap();
        let (rand, Challenge::SyncFailure { auts }) = challenge(&mut usim, &items[0]) else { panic!() };
        let before = f.state.clone();
        let mut forged = [&rand[..], &auts].concat();
        forged[20] ^= 1;
        let resync = Mar { authorization: Some(forged), ..mar(&f, S1) };
        let refusal = ask(&mut f, &resync).unwrap_err();
        assert_eq!((refusal.name(), refusal.result()), ("resynchronisation", ResultCode::UNABLE_TO_COMPLY));
        assert!(refusal.to_string().contains("key or OPc differs"), "{refusal}");
        let elsewhere = Mar { authorization: Some([&rand[..], &auts].concat()), ..mar(&f, S2) };
        assert_eq!(ask(&mut f, &elsewhere).unwrap_err().name(), "not-assigned");
        let short = Mar { authorization: Some(vec![1; 29]), ..mar(&f, S1) };
        assert_eq!(ask(&mut f, &short).unwrap_err().name(), "resynchronisation");
        assert_eq!(f.state, before);
    }

    #[test]
    fn schemes_and_identities_are_checked() {
        let mut f = Fixture::new();
        let unknown = Mar { scheme: "Unknown".into(), ..mar(&f, S1) };
        assert!(ask(&mut f, &unknown).is_ok());
        for (scheme, name) in [("SIP Digest", "has-sim"), ("NASS-Bundled", "unsupported-scheme")] {
            let request = Mar { scheme: scheme.into(), ..mar(&f, S1) };
            let refusal = ask(&mut f, &request).unwrap_err();
            assert_eq!((refusal.name(), refusal.result()), (name, ResultCode::AUTH_SCHEME_NOT_SUPPORTED));
        }
        let other = Mar { impu: impu("sip:other@ims.example"), ..mar(&f, S1) };
        assert_eq!(ask(&mut f, &other).unwrap_err().result(), ResultCode::IDENTITIES_DONT_MATCH);
    }

    #[test]
    fn a_password_gives_one_item_with_both_algorithms_and_no_sequence_number() {
        let mut f = Fixture::of_softphone(serde_json::json!({ "password": "Circle Of Life" }));
        for scheme in ["SIP Digest", "Unknown"] {
            f.state.pending.clear();
            let request = Mar { scheme: scheme.into(), items: 5, ..mar(&f, S1) };
            let items = ask(&mut f, &request).unwrap();
            let [AuthItem::Digest(digest)] = items.as_slice() else { panic!("{items:?}") };
            assert_eq!((digest.realm.as_str(), digest.qop.as_deref()), ("ims.example", Some("auth")));
            let ha1 = |a| ims_sip::digest::ha1(a, f.impi().as_str(), "ims.example", b"Circle Of Life");
            assert_eq!(
                (digest.algorithm.as_deref(), digest.ha1.as_str()),
                (Some("MD5"), ha1(DigestAlgorithm::Md5).as_str())
            );
            let alternate = digest.alternate.as_ref().map(|(name, ha1)| (name.as_str(), ha1.as_str()));
            assert_eq!(alternate, Some(("SHA-256", ha1(DigestAlgorithm::Sha256).as_str())));
            assert_eq!(f.state.sqn.len(), 0);
        }
        let aka = mar(&f, S1);
        assert_eq!(check(f.view(), &aka).unwrap_err().name(), "has-password");
        let resync = Mar { scheme: "Unknown".into(), authorization: Some(vec![0; 30]), ..mar(&f, S1) };
        assert_eq!(check(f.view(), &resync).unwrap_err().name(), "has-password");
    }
}
