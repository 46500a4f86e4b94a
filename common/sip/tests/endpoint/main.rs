//! The endpoint driven by hand: virtual clock, packets as text, loss by dropping actions.

mod client;
mod hostile;
mod lab;
mod locate;
mod pair;
mod relay;
mod server;
mod server_cancel;
