//! What the kernel can do, found by trying.

use super::kernel::Netlink;
use super::keys::Algorithms;
use super::message::{add_sa, delete_sa, no_keys};
use ims_core::sa::{AuthAlg, EncAlg, SaError, SaLeg, Suite};
use std::net::{Ipv4Addr, SocketAddr};

/// What the kernel can do for IPsec, found by trying.
#[derive(Clone, Debug)]
pub struct EspReport {
    /// Whether an ESP association can be added at all.
    pub esp: Result<(), SaError>,
    /// Whether we may change IPsec state (CAP_NET_ADMIN).
    pub permitted: bool,
    /// Each valid pair of algorithms, and whether the kernel has it.
    pub algorithms: Vec<(Suite, Result<(), SaError>)>,
    /// IPv4 between addresses of this machine passes outside IPsec, associations or not: the kernel's default
    /// (`net.ipv4.conf.lo.disable_xfrm` and `disable_policy`). IPv6 over `::1` goes through IPsec.
    pub loopback_bypass: bool,
}

/// Tries every pair of algorithms on a throw-away SPI between documentation addresses. Leaves nothing behind.
pub async fn probe() -> EspReport {
    let mut algorithms = Vec::new();
    let mut netlink = Netlink::open();
    for suite in suites() {
        let result = match &mut netlink {
            Ok(netlink) => try_suite(netlink, suite).await,
            Err(error) => Err(error.clone()),
        };
        algorithms.push((suite, result));
    }
    let results = || algorithms.iter().map(|(_, result)| result);
    let esp = match results().find(|r| r.is_ok()).or(results().next()) {
        Some(result) => result.clone(),
        None => Err(SaError::NoEsp),
    };
    let permitted = !results().any(|r| matches!(r, Err(SaError::NotPermitted)));
    EspReport { esp, permitted, algorithms, loopback_bypass: loopback_bypass() }
}

/// All that TS 33.203 Annex H and I know, the strongest last.
fn suites() -> impl Iterator<Item = Suite> {
    let algs = [AuthAlg::HmacMd5_96, AuthAlg::HmacSha1_96, AuthAlg::AesGmac, AuthAlg::Null];
    let ealgs = [EncAlg::Null, EncAlg::DesEde3Cbc, EncAlg::AesCbc, EncAlg::AesGcm];
    algs.into_iter().flat_map(move |alg| ealgs.map(|ealg| Suite { alg, ealg })).filter(|suite| suite.is_valid())
}

async fn try_suite(netlink: &mut Netlink, suite: Suite) -> Result<(), SaError> {
    let algorithms = Algorithms::new(suite, &no_keys()).ok_or(SaError::NoAlgorithm("of this pair"))?;
    let spi = 0xffff_0000 | (crate::entropy::random::<2>().map_or(1, u16::from_be_bytes) as u32);
    let end = |last, port| SocketAddr::new(Ipv4Addr::new(192, 0, 2, last).into(), port);
    let leg = SaLeg { src: end(1, 5060), dst: end(2, 5060), spi };
    netlink.ask(vec![add_sa(&leg, &algorithms, 5)], &[spi], algorithms.names()).await?;
    netlink.ask(vec![delete_sa(leg.dst.ip(), spi)], &[spi], algorithms.names()).await
}

/// IPv6 has no such switch of its own for transforms; its policy check follows `disable_policy` of the interface.
pub(super) fn loopback_bypass() -> bool {
    let on = |name| {
        let path = format!("/proc/sys/net/ipv4/conf/lo/{name}");
        std::fs::read_to_string(path).is_ok_and(|value| value.trim() != "0")
    };
    on("disable_xfrm") || on("disable_policy")
}
