//! TS 33.203 Annex H and I: every pair of algorithms, over both transports and both address families.

use ims_core::sa::{AuthAlg, EncAlg, Suite};
use ims_tests::{Lab, LabConfig};

fn every_suite() -> Vec<Suite> {
    let algs = [AuthAlg::HmacSha1_96, AuthAlg::HmacMd5_96, AuthAlg::AesGmac, AuthAlg::Null];
    let ealgs = [EncAlg::Null, EncAlg::AesCbc, EncAlg::DesEde3Cbc, EncAlg::AesGcm];
    let pairs = algs.iter().flat_map(|alg| ealgs.iter().map(|ealg| Suite { alg: *alg, ealg: *ealg }));
    pairs.filter(|s| s.is_valid()).collect()
}

#[test]
fn every_suite_carries_a_registration() {
    let suites = every_suite();
    assert_eq!(suites.len(), 8);
    for suite in suites {
        for (v6, tcp) in [(false, false), (false, true), (true, false), (true, true)] {
            let config = LabConfig { v6, ..LabConfig::default() }.with_suite(suite);
            let mut lab = Lab::new(if tcp { config.with_tcp() } else { config });
            let answer = lab.register(0);
            let state = answer.unwrap_or_else(|p| panic!("{suite:?} v6 {v6} tcp {tcp}: {p:?}"));
            let name = format!("{}/{}", suite.alg.token(), suite.ealg.token());
            assert_eq!(state["sets"][0]["suite"], name);
            lab.deregister(0).unwrap();
            lab.rest();
            lab.assert_no_faults();
        }
    }
}

/// Several offers: what the operator prefers among what both have.
#[test]
fn the_operators_preference_decides() {
    let suite = |alg, ealg| Suite { alg, ealg };
    let sha_cbc = suite(AuthAlg::HmacSha1_96, EncAlg::AesCbc);
    let gcm = suite(AuthAlg::Null, EncAlg::AesGcm);
    let md5 = suite(AuthAlg::HmacMd5_96, EncAlg::DesEde3Cbc);
    for preference in [[sha_cbc, gcm], [gcm, sha_cbc]] {
        let mut config = LabConfig::default();
        config.ue.offers = vec![md5, sha_cbc, gcm];
        config.pcscf.security.preference = preference.map(pcscf::config::SuiteName).to_vec();
        let mut lab = Lab::new(config);
        let state = lab.register(0).unwrap();
        let name = format!("{}/{}", preference[0].alg.token(), preference[0].ealg.token());
        assert_eq!(state["sets"][0]["suite"], name);
        lab.rest();
    }
}
