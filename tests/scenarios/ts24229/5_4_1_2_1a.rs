//! TS 24.229 5.4.1.2.1A: the algorithms of IMS AKA (RFC 3310, RFC 4169; TS 29.229 6.3.9).

use crate::support::{cause, last_header};
use ims_sip::Name;
use ims_sip::digest::DigestAlgorithm::{self, AkaV1Md5, AkaV2Md5, AkaV2Sha256};
use ims_tests::{Lab, LabConfig, golden};
use scscf::AkaAlgorithm::{self, V1Md5, V2Md5, V2Sha256};
use ue::DigestName;

fn lab(offered: &[AkaAlgorithm], known: &[DigestAlgorithm]) -> Lab {
    let mut config = LabConfig::default();
    config.scscf.registration.aka = offered.to_vec();
    config.ue.digest = known.iter().copied().map(DigestName).collect();
    Lab::new(config)
}

fn used(lab: &Lab) -> String {
    let header = last_header(lab, "ue1", "pcscf", Name::Authorization).unwrap_or_default();
    let (_, rest) = header.split_once("algorithm=").unwrap_or_default();
    rest.split(',').next().unwrap_or_default().to_owned()
}

/// The password of AKAv2 binds the keys of the associations to the answer.
#[test]
fn a_handset_registers_with_each_algorithm() {
    for (offered, name) in [(V1Md5, "AKAv1-MD5"), (V2Md5, "AKAv2-MD5"), (V2Sha256, "AKAv2-SHA-256")] {
        let mut lab = lab(&[offered], &[]);
        let answer = lab.register(0);
        assert!(answer.is_ok(), "{name}: {answer:?}");
        assert_eq!(used(&lab), name);
        lab.rest();
        lab.assert_no_faults();
        assert_eq!(lab.world.sa_sets(lab.pcscf), 1);
        if offered == V2Sha256 {
            golden("ts24229/akav2", &lab.world.golden_ladder());
        }
        lab.refresh(0).unwrap();
        lab.deregister(0).unwrap();
        lab.rest();
        lab.assert_no_faults();
    }
}

/// RFC 8760 2.4: one challenge for each, the preferred one first; a phone takes the first that it knows. Who names one is
/// offered that alone.
#[test]
fn old_and_new_phones_live_side_by_side() {
    for (known, name) in [
        (&[][..], "AKAv2-SHA-256"),
        (&[AkaV1Md5], "AKAv1-MD5"),
        (&[AkaV2Sha256], "AKAv2-SHA-256"),
        (&[AkaV2Md5, AkaV1Md5], "AKAv1-MD5"),
    ] {
        let mut lab = lab(&[V2Sha256, V1Md5], known);
        let answer = lab.register(0);
        assert!(answer.is_ok(), "{name}: {answer:?}");
        assert_eq!(used(&lab), name);
        lab.rest();
        lab.assert_no_faults();
    }
}

#[test]
fn an_algorithm_that_is_not_offered_is_not_taken() {
    let mut lab = lab(&[V2Sha256], &[AkaV1Md5]);
    assert_eq!(cause(&lab.register(0)), "fault-wrong-algorithm");
}

/// The synchronisation failure is the same for every version (RFC 4169 3).
#[test]
fn resynchronisation_works_with_akav2() {
    let mut config = LabConfig::default();
    config.scscf.registration.aka = vec![V2Sha256];
    config.ue.sqn = 5000 << 5;
    config.hss.ind = 0;
    let mut lab = Lab::new(config);
    let answer = lab.register(0);
    assert!(answer.is_ok(), "{answer:?}");
    assert_eq!(lab.ue(0)["counters"]["resynchronisations"], 1);
    lab.rest();
    lab.assert_no_faults();
}
