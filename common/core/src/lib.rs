//! The contract between IMS nodes and the outside world.
//!
//! A node is a plain value: it takes one [`Event`] at a time, told what time it is, and says what it wants done as
//! [`Action`]s. Clock, randomness and sockets belong to whoever runs the node: the shell in production, the simulator
//! in tests.

pub mod command;
pub mod config;
pub mod dns;
pub mod few;
pub mod hash;
pub mod hex;
pub mod ident;
pub mod metrics;
pub mod node;
pub mod pack;
pub mod rng;
pub mod sa;
pub mod secret;
pub mod store;
pub mod time;
pub mod uri;
pub mod wiring;

pub use command::{Command, CommandId, Problem};
pub use few::{FewMap, FewSet};
pub use ident::{Impi, Impu, Imsi, Msisdn, Plmn, PublicId};
pub use node::{
    Action, ConnId, Ctx, Event, Flow, FlowError, Kept, LinkId, Node, Packet, PeerId, RequestId, SendTag, Transport,
};
pub use rng::Rng;
pub use secret::Secret;
pub use time::{Time, Timers};
pub use wiring::{SipListener, Wiring};
