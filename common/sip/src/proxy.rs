//! What a proxy does to a message by RFC 3261 16. SKELETON.
use crate::Message;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProxyError { TooManyHops }

/// Decrements Max-Forwards (adds 70 when absent); 483 when it was 0.
pub fn decrement_max_forwards(_message: &mut Message) -> Result<(), ProxyError> { todo!() }
/// Removes the topmost Route if `is_ours` says so of its URI; gives back its URI (a text copy). 16.4, loose routing.
pub fn take_own_route(_message: &mut Message, _is_ours: impl Fn(&ims_core::uri::Uri<'_>) -> bool) -> Option<String> { todo!() }
/// The URI to send to: topmost Route, or else the Request-URI (16.6 item 6, strict routers handled).
pub fn next_hop(_message: &Message) -> String { todo!() }
