//! What stands between nodes: how datagrams fare, SIP connections, Diameter links.

use crate::world::NodeId;
use bytes::Bytes;
use ims_core::{Flow, PeerId, Rng, SendTag, Time};
use std::net::SocketAddr;
use std::time::Duration;

/// How datagrams fare on a path. Connections only feel the latency: TCP repairs the rest.
#[derive(Clone, Copy, Debug)]
pub struct Conditions {
    /// The least time on the way.
    pub latency: Duration,
    /// Up to this much more, drawn for each packet; more than `latency` lets packets overtake one another.
    pub jitter: Duration,
    /// Of 1000 datagrams this many are lost.
    pub loss: u16,
    /// Of 1000 datagrams this many arrive twice.
    pub duplication: u16,
    /// Of 1000 datagrams this many are late by up to a second.
    pub stragglers: u16,
}

impl Conditions {
    pub const fn calm(latency: Duration) -> Self {
        Self { latency, jitter: Duration::ZERO, loss: 0, duplication: 0, stragglers: 0 }
    }

    pub(crate) fn delay(&self, rng: &mut Rng) -> Duration {
        let jitter = u64::try_from(self.jitter.as_micros()).unwrap_or(0);
        let mut delay = self.latency;
        if jitter > 0 {
            delay += Duration::from_micros(rng.below(jitter));
        }
        if self.happens(self.stragglers, rng) {
            delay += Duration::from_micros(rng.below(1_000_000));
        }
        delay
    }

    pub(crate) fn happens(&self, per_mille: u16, rng: &mut Rng) -> bool {
        per_mille > 0 && rng.below(1000) < u64::from(per_mille)
    }
}

/// One end of a connection or link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct End {
    pub(crate) node: NodeId,
    pub(crate) addr: SocketAddr,
    pub(crate) id: u64,
    /// When the last thing sent towards this end arrives: a stream keeps its order.
    pub(crate) last_arrival: Time,
}

/// Bytes that wait for a connection to open.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) bytes: Bytes,
    pub(crate) tag: SendTag,
    pub(crate) flow: Flow,
}

/// A SIP connection.
#[derive(Debug)]
pub(crate) struct Conn {
    /// Who opened it, and who took it.
    pub(crate) ends: [End; 2],
    pub(crate) open: bool,
    pub(crate) queued: Vec<Queued>,
    /// Which end knows already that it is over.
    pub(crate) told: [bool; 2],
    /// Requests that each end wrote and wants to hear of. The node knows which were answered.
    pub(crate) sent: [Vec<(SendTag, Flow)>; 2],
}

/// A Diameter connection.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) ends: [End; 2],
    /// How the end that opened it calls the other one.
    pub(crate) peer: PeerId,
    pub(crate) told: [bool; 2],
}

impl Link {
    pub(crate) fn side(&self, id: u64) -> usize {
        usize::from(self.ends[1].id == id)
    }
}
