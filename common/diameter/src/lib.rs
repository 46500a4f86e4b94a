//! Diameter for an IMS core: a codec safe on hostile input, the RFC 6733 peer machine with the RFC 3539 watchdog, and typed
//! Cx commands (TS 29.229) used by both ends. SKELETON: signatures are the agreement, the owner fills in and splits files.

pub mod cx;
pub mod endpoint;
pub mod message;
pub use endpoint::{DiameterEvent, Endpoint};
pub use message::Message;
