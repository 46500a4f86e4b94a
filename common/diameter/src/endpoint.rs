//! Peers, connections and requests in flight: the Diameter side of a node. SKELETON.
use crate::Message;
use bytes::Bytes;
use ims_core::{Ctx, LinkId, PeerId, RequestId, Time};
use std::net::SocketAddr;

pub use crate::config::{EndpointConfig, PeerConfig};

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RequestToken(pub u64);

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RequestFailure {
    #[error("no Diameter peer is up")]
    NoPeer,
    #[error("no answer in time")]
    Timeout,
    #[error("too many requests in flight")]
    Busy,
}

#[derive(Debug)]
pub enum DiameterEvent {
    /// A request from a peer that passed the base protocol checks; answer it with `answer`.
    Request {
        token: RequestToken,
        message: Message,
    },
    /// `id` as returned by `send_request`. A 3xxx protocol error answer comes here too.
    Answer {
        id: RequestId,
        message: Message,
    },
    Failed {
        id: RequestId,
        cause: RequestFailure,
    },
    PeerUp {
        peer: String,
    },
    PeerDown {
        peer: String,
        reason: String,
    },
}
/// Destination-Realm, and Destination-Host when it must be that one.
#[derive(Clone, Debug)]
pub struct To {
    pub realm: String,
    pub host: Option<String>,
}

pub struct Endpoint {
    _private: (),
}
impl Endpoint {
    pub fn new(_c: EndpointConfig) -> Self {
        todo!()
    }
    /// On Event::Start: opens the configured connections.
    pub fn on_start(&mut self, _ctx: &mut Ctx<'_>) {
        todo!()
    }
    pub fn on_link_up(&mut self, _link: LinkId, _peer: Option<PeerId>, _remote: SocketAddr, _ctx: &mut Ctx<'_>) {
        todo!()
    }
    pub fn on_link_down(&mut self, _link: Option<LinkId>, _peer: Option<PeerId>, _ctx: &mut Ctx<'_>) {
        todo!()
    }
    pub fn on_message(&mut self, _link: LinkId, _bytes: Bytes, _ctx: &mut Ctx<'_>) {
        todo!()
    }
    pub fn on_timeout(&mut self, _ctx: &mut Ctx<'_>) {
        todo!()
    }
    pub fn deadline(&self) -> Option<Time> {
        todo!()
    }
    pub fn next_event(&mut self) -> Option<DiameterEvent> {
        todo!()
    }
    /// Sends to the best open peer; on its loss resends with the T bit to the next (RFC 6733 5.5.4). `message` is built by cx::*::to_message.
    pub fn send_request(&mut self, _message: Message, _to: &To, _ctx: &mut Ctx<'_>) -> RequestId {
        todo!()
    }
    /// Answers on the link the request came by; dropped when that is gone.
    pub fn answer(&mut self, _token: RequestToken, _message: Message, _ctx: &mut Ctx<'_>) {
        todo!()
    }
    pub fn is_quiet(&self) -> bool {
        todo!()
    }
    pub fn snapshot(&self) -> serde_json::Value {
        todo!()
    }
}
