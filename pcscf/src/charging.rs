//! Charging headers: an IMS charging identifier for each request (TS 24.229 5.2.2, TS 32.260, RFC 7315 4.6).

use ims_core::Rng;
use ims_sip::{Message, Name};

/// Charging headers belong to the network: whatever came with them from outside, or would leave with them, goes.
pub(crate) fn strip(message: &mut Message) {
    message.remove(Name::PChargingVector);
    message.remove(Name::PChargingFunctionAddresses);
}

/// A P-Charging-Vector of our own, with an ICID that nobody else has.
/// `network`: our type 1 orig-ioi, the network that sends it (TS 24.229 5.2.2.1, 4.5.4.1).
pub(crate) fn stamp(message: &mut Message, host: &str, network: &str, rng: &mut Rng) {
    strip(message);
    let icid = rng.token(32);
    message.push_back(
        Name::PChargingVector,
        format_args!("icid-value=\"{icid}\";icid-generated-at={host};orig-ioi=\"{network}\""),
    );
}
