//! TS 24.229 5.2.2: registration at the P-CSCF.

use crate::support::{cause, last_header, rewrite, statuses_to_handsets};
use ims_core::sa::{AuthAlg, EncAlg, SaError, Suite};
use ims_sip::Name;
use ims_tests::{EspSupport, Lab, LabConfig, golden};
use pcscf::config::Policy;
use std::time::Duration;
use ue::Quirk;

fn with(change: impl FnOnce(&mut LabConfig)) -> Lab {
    let mut config = LabConfig::default();
    change(&mut config);
    Lab::new(config)
}

/// The P-CSCF requires it, the handset does not offer it: 421 (RFC 3329 2.3.1).
#[test]
fn sec_agree_is_required_by_policy() {
    let mut lab = with(|c| c.ue.sec_agree = false);
    assert_eq!(cause(&lab.register(0)), "status-421");
    assert_eq!(lab.refusals(lab.pcscf, "sec-agree-required"), 1);
    lab.rest();
    golden("ts24229/sec_agree_required", &lab.world.golden_ladder());
}

#[test]
fn policy_allows_a_handset_without_sec_agree() {
    let mut lab = with(|c| {
        c.ue.sec_agree = false;
        c.pcscf.security.policy = Policy::Allow;
    });
    let state = lab.register(0).unwrap();
    assert_eq!(state["binding"]["protected"], false);
    lab.rest();
    lab.assert_no_faults();
    golden("ts24229/registration_in_clear", &lab.world.golden_ladder());
    lab.refresh(0).unwrap();
    lab.deregister(0).unwrap();
    lab.rest();
    assert_eq!((lab.registered_at_pcscf(), lab.registered_at_scscf()), (0, 0));
}

#[test]
fn without_esp_in_the_kernel_policy_require_refuses() {
    for esp in [EspSupport::No, EspSupport::NotPermitted] {
        let mut lab = with(|_| {});
        lab.world.set_esp(lab.pcscf, esp);
        let answer = lab.register(0);
        assert_eq!(cause(&answer), "status-503");
        lab.rest();
        assert_eq!(lab.registered_at_scscf(), 0);
    }
}

#[test]
fn without_esp_in_the_kernel_policy_allow_goes_on_in_clear() {
    for esp in [EspSupport::No, EspSupport::NotPermitted] {
        let mut lab = with(|c| {
            c.pcscf.security.policy = Policy::Allow;
            c.ue.allow_unprotected = true;
        });
        lab.world.set_esp(lab.pcscf, esp);
        let state = lab.register(0).unwrap();
        assert_eq!(state["binding"]["protected"], false);
        lab.rest();
        lab.assert_no_faults();
        assert_eq!((lab.registered_at_pcscf(), lab.world.sa_sets(lab.ues[0])), (1, 0));
    }
}

/// A phone that takes security seriously stops there.
#[test]
fn a_strict_handset_does_not_go_on_in_clear() {
    let mut lab = with(|c| c.pcscf.security.policy = Policy::Allow);
    lab.world.set_esp(lab.pcscf, EspSupport::No);
    assert_eq!(cause(&lab.register(0)), "fault-no-security-server");
    lab.rest();
}

#[test]
fn policy_never_gives_nobody_ipsec() {
    let mut lab = with(|c| {
        c.pcscf.security.policy = Policy::Never;
        c.ue.allow_unprotected = true;
    });
    lab.register(0).unwrap();
    lab.rest();
    assert_eq!(lab.world.sa_sets(lab.pcscf), 0);
}

/// RFC 3329 2.3.1: 494 when nothing fits.
#[test]
fn no_common_suite_is_refused() {
    let mut lab = with(|c| c.ue.offers = vec![Suite { alg: AuthAlg::HmacMd5_96, ealg: EncAlg::DesEde3Cbc }]);
    assert_eq!(cause(&lab.register(0)), "status-494");
    assert_eq!(lab.refusals(lab.pcscf, "no-common-suite"), 1);
    lab.rest();
    assert!(last_header(&lab, "pcscf", "ue1", Name::SecurityServer).is_some(), "RFC 3329 2.3.1: what would do");
    golden("ts24229/no_common_suite", &lab.world.golden_ladder());
}

/// TS 33.203 7.3.1.2: somebody changed the list of mechanisms on the way.
#[test]
fn a_security_verify_that_differs_ends_the_attempt() {
    for quirk in [Quirk::WrongVerify, Quirk::NoVerify] {
        let mut lab = with(|c| c.ue.quirk = Some(quirk));
        assert_eq!(cause(&lab.register(0)), "status-494");
        lab.rest();
        assert_eq!((lab.registered_at_pcscf(), lab.registered_at_scscf()), (0, 0));
        lab.world.run_for(Duration::from_secs(600));
        assert_eq!(lab.world.sa_sets(lab.pcscf), 0, "nothing stays in the kernel");
    }
}

/// An attacker took the strong algorithms out of the first, unprotected offer.
#[test]
fn a_bid_down_is_noticed() {
    let mut lab = with(|_| {});
    lab.world.filter(|sent| {
        if sent.from != "ue1" || sent.esp {
            return ims_tests::Verdict::Pass;
        }
        let mut once = rewrite("ue1", "pcscf", |m| {
            let offer =
                m.text(Name::SecurityClient).unwrap_or_default().split(", ").nth(1).unwrap_or_default().to_owned();
            m.set(Name::SecurityClient, offer);
        });
        once(sent)
    });
    let answer = lab.register(0);
    assert_eq!(cause(&answer), "status-494");
    assert_eq!(lab.refusals(lab.pcscf, "security-client-mismatch"), 1);
    lab.rest();
    assert_eq!(lab.registered_at_scscf(), 0);
}

/// 5.2.2.1: what the handset says about its own protection counts nothing.
#[test]
fn a_claim_of_protection_is_taken_out() {
    let mut lab = with(|c| c.ue.quirk = Some(Quirk::ClaimsProtection));
    lab.register(0).unwrap();
    lab.rest();
    let ladder = lab.world.golden_ladder();
    let first = ladder.lines().find(|l| l.contains("pcscf -> icscf")).unwrap();
    assert!(first.contains("integrity-protected=no") && !first.contains("integrity-protected=yes"), "{first}");
    lab.assert_no_faults();
}

/// The handset got associations and answers beside them.
#[test]
fn an_answer_in_clear_beside_the_associations_is_refused() {
    let mut lab = with(|c| c.ue.quirk = Some(Quirk::AnswerInClear));
    let answer = lab.register(0);
    assert!(answer.is_err(), "{answer:?}");
    lab.rest();
    assert_eq!((lab.registered_at_pcscf(), lab.registered_at_scscf()), (0, 0));
}

#[test]
fn clear_text_to_a_protected_port_is_dropped() {
    let mut lab = with(|c| c.ue.quirk = Some(Quirk::ClearToProtectedPort));
    assert_eq!(cause(&lab.register(0)), "timeout");
    lab.rest();
    assert!(lab.world.lost["in clear to a protected port"] > 5);
    assert_eq!(lab.registered_at_scscf(), 0);
}

#[test]
fn the_core_sees_what_the_pcscf_adds_and_not_what_the_handset_negotiated() {
    let mut lab = with(|_| {});
    lab.register(0).unwrap();
    lab.rest();
    let header = |name| last_header(&lab, "pcscf", "icscf", name);
    for gone in [Name::SecurityClient, Name::SecurityVerify, Name::ProxyRequire] {
        assert_eq!(header(gone), None, "{gone:?}");
    }
    assert_eq!(header(Name::Require).as_deref(), Some("path"));
    assert!(header(Name::Path).unwrap().contains(";lr>"));
    assert!(
        header(Name::PVisitedNetworkId).is_some() && header(Name::PChargingVector).unwrap().contains("icid-value=")
    );
    let to_handset = |name| last_header(&lab, "pcscf", "ue1", name);
    assert_eq!(to_handset(Name::PChargingVector), None);
    assert_eq!(to_handset(Name::PChargingFunctionAddresses), None);
}

#[test]
fn the_401_leaves_only_after_the_kernel_agreed() {
    for error in [SaError::Kernel(12), SaError::SpiTaken(4711), SaError::NoAlgorithm("aes-cbc")] {
        let mut lab = with(|_| {});
        lab.world.fail_next_sa(lab.pcscf, error.clone());
        let answer = lab.register(0);
        lab.rest();
        match error {
            // Another try is open to the P-CSCF: other SPIs, or the next algorithm.
            SaError::SpiTaken(_) | SaError::NoAlgorithm(_) => assert!(answer.is_ok(), "{error}: {answer:?}"),
            _ => assert!(cause(&answer).starts_with("status-5"), "{error}: {answer:?}"),
        }
    }
}

/// The S-CSCF's answer is lost on the way to the P-CSCF, whose own requests repeat it.
#[test]
fn loss_inside_the_core_is_repaired() {
    for (from, to) in [("icscf", "pcscf"), ("pcscf", "icscf"), ("scscf", "icscf"), ("icscf", "scscf")] {
        for number in 0..2 {
            let mut lab = with(|_| {});
            let mut seen = 0;
            lab.world.filter(move |sent| {
                seen += u32::from(sent.from == from && sent.to == to);
                let lose = sent.from == from && sent.to == to && seen == number + 1;
                if lose { ims_tests::Verdict::Lose } else { ims_tests::Verdict::Pass }
            });
            assert!(lab.register(0).is_ok(), "{from} -> {to} {number}");
            lab.rest();
            lab.assert_no_faults();
        }
    }
}

/// A phone that was switched off without a word comes back: nothing of its past is in its way.
#[test]
fn a_handset_that_lost_its_state_registers_again() {
    let mut lab = with(|_| {});
    lab.register(0).unwrap();
    lab.rest();
    let mut config = lab.config.handset(0);
    config.sqn = 1 << 10;
    lab.world.clear_sas(lab.ues[0]);
    lab.world.restart(lab.ues[0], Box::new(ue::Ue::new(config).unwrap()));
    let answer = lab.register(0);
    assert!(answer.is_ok(), "{answer:?}");
    lab.rest();
    lab.assert_no_faults();
    lab.world.run_for(Duration::from_secs(300));
    assert_eq!((lab.registered_at_pcscf(), lab.registered_at_scscf(), lab.world.sa_sets(lab.pcscf)), (1, 1, 1));
}

#[test]
fn a_stranger_in_the_core_is_told_nothing() {
    let mut lab = with(|_| {});
    lab.register(0).unwrap();
    let before = statuses_to_handsets(&lab).len();
    let forged = "REGISTER sip:x SIP/2.0\r\nVia: SIP/2.0/UDP 10.1.0.1:5064;branch=z9hG4bKx\r\n\r\n";
    lab.world.inject("10.1.0.1:5064".parse().unwrap(), "10.0.0.10:6100".parse().unwrap(), forged);
    lab.world.inject("10.1.0.1:5065".parse().unwrap(), "10.0.0.10:6100".parse().unwrap(), forged);
    lab.rest();
    assert_eq!(lab.world.lost["in clear to a protected port"], 2);
    assert_eq!(statuses_to_handsets(&lab).len(), before);
}

/// The P-CSCF's machine starts again: its kernel has no association any more, and handsets must find back.
#[test]
fn handsets_find_back_to_a_pcscf_that_started_again() {
    for tcp in [false, true] {
        let mut config = LabConfig { handsets: 3, ..LabConfig::default() };
        config.ue.retry = Some(ims_core::config::Span::secs(30));
        let mut lab = Lab::new(if tcp { config.with_tcp() } else { config });
        for n in 0..3 {
            lab.register(n).unwrap();
        }
        lab.world.crash(lab.pcscf);
        lab.world.clear_sas(lab.pcscf);
        let mut config = lab.config.pcscf.clone();
        config.host = format!("pcscf.{}", ims_tests::lab::DOMAIN);
        lab.world.restart(lab.pcscf, Box::new(pcscf::Pcscf::new(config).unwrap()));
        lab.world.run_for(Duration::from_secs(7200 + 600));
        lab.rest();
        for n in 0..3 {
            assert_eq!(lab.ue(n)["state"], "registered");
        }
        assert_eq!((lab.registered_at_pcscf(), lab.world.sa_sets(lab.pcscf)), (3, 3));
    }
}

/// Bytes that are no SIP, from anywhere, to every open port.
#[test]
fn garbage_does_no_harm() {
    // The forger claims the address of the handset, which would be banned for it.
    let mut lab = with(|c| c.pcscf.sources.ban_after = 0);
    let mut rng = ims_core::Rng::from_u64(99);
    for round in 0..200u16 {
        let mut bytes = vec![0; usize::from(round) * 7];
        rng.fill(&mut bytes);
        if round % 2 == 0 {
            let head = format!(
                "REGISTER sip:{} SIP/2.0\r\nVia: SIP/2.0/UDP 10.1.0.1;branch=z9hG4bK{round}\r\n",
                ims_tests::lab::DOMAIN
            );
            bytes.splice(0..0, head.into_bytes());
        }
        lab.world.inject("10.1.0.1:5062".parse().unwrap(), "10.0.0.10:5060".parse().unwrap(), bytes);
        lab.world.run_for(Duration::from_millis(50));
    }
    lab.rest();
    assert!(lab.register(0).is_ok());
    lab.rest();
    lab.assert_no_faults();
}
