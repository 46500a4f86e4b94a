//! The kernels of the hosts, and what they keep, as tests reach for them.

use super::{NodeId, World};
use crate::ipsec::{Esp, EspSupport};
use bytes::Bytes;
use ims_core::sa::SaError;
use ims_core::{Event, Time};
use std::collections::BTreeMap;
use std::net::SocketAddr;

impl World {
    /// One association of the host's newest set is gone, and nobody was told.
    pub fn lose_one_sa(&mut self, node: NodeId) {
        self.hosts[node.0].sas.lose_one();
    }

    /// The kernel of a node's host ends all its associations at this time, whatever it was asked.
    pub fn cut_sas_short(&mut self, node: NodeId, at: Time) {
        self.hosts[node.0].sas.cut_short(at);
    }

    /// The hard lifetimes of the sets in a host's kernel.
    pub fn sa_lifetimes(&self, node: NodeId) -> Vec<Time> {
        self.hosts[node.0].sas.lifetimes()
    }

    /// How many entries the node keeps across restarts.
    pub fn kept(&self, node: NodeId) -> usize {
        self.hosts[node.0].kept.len()
    }

    /// What the node keeps, for a test that damages it.
    pub fn kept_mut(&mut self, node: NodeId) -> &mut BTreeMap<String, Bytes> {
        &mut self.hosts[node.0].kept
    }

    /// Tells a node something that no part of the world would.
    pub fn force(&mut self, node: NodeId, event: Event) {
        self.tell(node, event);
    }

    /// Empties the kernel's table of a node's host, as a reboot does.
    pub fn clear_sas(&mut self, node: NodeId) {
        self.hosts[node.0].sas.clear();
    }

    pub fn set_esp(&mut self, node: NodeId, support: EspSupport) {
        self.hosts[node.0].sas.support = support;
    }

    /// The next change of security associations on this host fails so.
    pub fn fail_next_sa(&mut self, node: NodeId, error: SaError) {
        self.hosts[node.0].sas.fail_next.push(error);
    }

    /// What was to fail and has not yet, does not.
    pub fn fail_no_sa(&mut self, node: NodeId) {
        self.hosts[node.0].sas.fail_next.clear();
    }

    /// How many sets of associations the host's kernel holds.
    pub fn sa_sets(&self, node: NodeId) -> usize {
        self.hosts[node.0].sas.sets()
    }

    pub(super) fn count_esp(&mut self, node: NodeId, esp: Option<&Esp>, dst: SocketAddr, bytes: &Bytes) {
        if let Some(esp) = esp {
            self.hosts[node.0].sas.count(esp.spi, dst.ip(), bytes.len());
        }
    }
}
