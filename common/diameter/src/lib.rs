//! Diameter for an IMS core: a codec safe on hostile input, the RFC 6733 peer machine with the RFC 3539 watchdog, and typed
//! Cx commands (TS 29.229) used by both ends.

pub mod avp;
mod base;
pub mod config;
pub mod cx;
pub mod dict;
pub mod endpoint;
pub mod error;
mod local;
pub mod message;
mod peer;
mod requests;
mod served;
pub mod stream;

pub use config::{EndpointConfig, PeerConfig};
pub use endpoint::{DiameterEvent, Endpoint};
pub use error::DiameterError;
pub use message::Message;
