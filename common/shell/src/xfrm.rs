//! TBD in the next minutes: the kernel's IPsec.

use ims_core::sa::{SaError, Suite};

/// What the kernel can do for IPsec, found by trying.
#[derive(Clone, Debug)]
pub struct EspReport {
    /// Whether an ESP association can be added at all.
    pub esp: Result<(), SaError>,
    /// Whether we may change IPsec state (CAP_NET_ADMIN).
    pub permitted: bool,
    /// Each valid pair of algorithms, and whether the kernel has it.
    pub algorithms: Vec<(Suite, Result<(), SaError>)>,
    /// The kernel lets traffic over the loopback interface pass outside IPsec (its default: `net.ipv4.conf.lo.disable_xfrm`).
    pub loopback_bypass: bool,
}

/// Tries every pair of algorithms on a throw-away SPI between documentation addresses. Leaves nothing behind.
pub async fn probe() -> EspReport {
    EspReport {
        esp: Err(SaError::NoEsp),
        permitted: false,
        algorithms: Vec::new(),
        loopback_bypass: true,
    }
}
