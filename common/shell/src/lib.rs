//! The outside world of the nodes: clock, randomness, sockets, the kernel's IPsec, DNS, the database, REST.
//!
//! This is the only crate that does I/O. A node is a value that [`ims_core::Node`] describes; [`Shell`] gives each of them
//! a task and an inbox, performs its actions in order, and turns what happens outside into events. Several nodes may
//! live in one [`Shell`] (the all-in-one box): what one sends to an address that another has bound is handed over
//! directly, without a socket, and without any change to the nodes.
//!
//! ```no_run
//! # async fn f(pcscf: impl ims_core::Node + Send + 'static, wiring: ims_core::Wiring) -> Result<(), Box<dyn std::error::Error>> {
//! use ims_shell::{Settings, Shell};
//! let running = Shell::new(Settings::default()).node("pcscf", Box::new(pcscf), wiring).start().await?;
//! for place in &running.listening {
//!     println!("{place}");
//! }
//! running.shutdown().await;
//! # Ok(()) }
//! ```
//!
//! A role's binary is [`role_main`].

// The rule that logic must not read clocks or spawn tasks is for everyone else: this crate is where that is done. Its maps are
// looked up by key, and nothing a node sees depends on their order.
#![allow(clippy::disallowed_methods)]

pub mod addresses;
mod allocator;
mod diameter_tcp;
mod dns;
pub mod entropy;
mod error;
pub mod health;
mod http;
mod import;
mod inbox;
pub mod keep;
mod metrics;
mod node_task;
mod pace;
mod raw_socket;
mod role;
mod run;
mod settings;
mod sip_tcp;
mod sip_udp;
mod store;
mod tcp;
mod telemetry;
mod world;
mod xfrm;

pub use allocator::Allocator;
pub use error::StartError;
pub use node_task::{Tap, Tapped};
pub use role::{Role, RoleInput, block_on, role_main, wait_for_signal};
pub use run::{Listening, Running, Shell};
pub use settings::{Listen, Settings};
pub use telemetry::init_logging;
pub use xfrm::{EspReport, ProtectedPort, SaFuture, SaKernel, machine_kernel, probe};
