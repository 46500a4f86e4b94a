//! TS 33.203 7.1: two pairs of ports and four associations.

use ims_tests::{Lab, LabConfig, What};

fn ways(lab: &Lab) -> Vec<&'static str> {
    let esp = lab.world.trace.iter().filter_map(|e| match &e.what {
        What::Sip { esp, .. } => esp.map(|(_, leg)| leg),
        _ => None,
    });
    let mut legs: Vec<_> = esp.collect();
    legs.sort_unstable();
    legs.dedup();
    legs
}

#[test]
fn udp_goes_from_client_port_to_server_port_in_both_directions() {
    let mut lab = Lab::new(LabConfig::default());
    lab.register(0).unwrap();
    lab.refresh(0).unwrap();
    lab.deregister(0).unwrap();
    lab.rest();
    assert_eq!(ways(&lab), ["pc>us", "uc>ps"]);
}

#[test]
fn tcp_answers_return_on_the_connection() {
    let mut lab = Lab::new(LabConfig::default().with_tcp());
    lab.register(0).unwrap();
    lab.refresh(0).unwrap();
    lab.deregister(0).unwrap();
    lab.rest();
    assert_eq!(ways(&lab), ["ps>uc", "uc>ps"]);
}

#[test]
fn one_set_carries_udp_and_tcp() {
    let mut config = LabConfig::default();
    config.ue.udp_limit = 1300;
    let mut lab = Lab::new(config);
    lab.register(0).unwrap();
    lab.rest();
    assert_eq!(lab.world.sa_sets(lab.ues[0]), 1);
    lab.assert_no_faults();
}

#[test]
fn ports_and_spis_are_as_the_receivers_chose() {
    let mut lab = Lab::new(LabConfig { handsets: 3, ..LabConfig::default() });
    let mut spis = Vec::new();
    for n in 0..3 {
        lab.register(n).unwrap();
        let set = lab.ue(n)["sets"][0].clone();
        assert_eq!((set["port_ps"].as_u64(), set["port_us"].as_u64()), (Some(6100), Some(5064)));
        assert!((6101..=6108).contains(&set["port_pc"].as_u64().unwrap()));
        spis.extend([set["spi_pc"].as_u64().unwrap(), set["spi_ps"].as_u64().unwrap()]);
    }
    spis.sort_unstable();
    spis.dedup();
    assert_eq!(spis.len(), 6, "SPIs are unique at the P-CSCF");
}
