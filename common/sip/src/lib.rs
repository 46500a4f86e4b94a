//! SIP for an IMS core: messages that come back byte for byte, typed headers read on demand, transactions by RFC 3261
//! section 17 and RFC 6026, server location by RFC 3263, and digest with AKA. No I/O: see `ims-core` for the contract.

pub mod dialog;
pub mod digest;
pub mod endpoint;
mod error;
pub mod headers;
pub mod locate;
pub mod message;
pub mod method;
pub mod name;
pub mod proxy;
pub mod reginfo;
pub mod relay;
pub mod status;
pub mod stream;
pub mod transaction;

pub use dialog::{Dialog, DialogError, DialogId};
pub use endpoint::{Endpoint, SipEvent};
pub use message::{HeaderError, Message, ParseError};
pub use method::Method;
pub use name::Name;
pub use relay::{Relay, Relayed};
pub use status::reason_phrase;
