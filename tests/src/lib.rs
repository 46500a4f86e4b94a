//! The simulator (docs/architecture.md, section 6): a [`World`] holds nodes, virtual time and everything that stands
//! between nodes: datagrams, connections, Diameter links, DNS, stores, and the kernels' security associations.
//!
//! Same seed, same trace. A failure prints its seed and the ladder of what was said.

mod clock;
mod golden;
mod invariants;
mod ipsec;
pub mod lab;
mod net;
mod phone;
mod server;
mod trace;
mod world;

pub use golden::golden;
pub use ipsec::EspSupport;
pub use lab::{Lab, LabConfig};
pub use net::Conditions;
pub use phone::Phone;
pub use server::{Part, Server};
pub use trace::{Entry, Ladder, What};
pub use world::{NodeId, Sent, Verdict, World};
