//! The kernel's IPsec (TS 33.203 7): security associations and policies for nodes, and what the kernel is able to do.
//!
//! For each protected listener there is a pair of BLOCK policies from start to end, so that nothing passes its port in clear;
//! the policies of an association set stand before them.

mod audit;
mod kernel;
mod keys;
mod message;
mod probe;

pub use probe::{EspReport, probe};

use crate::inbox::Inbox;
use crate::world::{Clock, NodeIndex};
use ims_core::sa::{SaAudit, SaChange, SaError, SaExpiry, SaSet, SaSide};
use ims_core::{Event, RequestId, Time};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

pub use kernel::machine_kernel;

pub type SaFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A port behind IPsec.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProtectedPort {
    /// The node that listens there.
    pub owner: usize,
    pub addr: SocketAddr,
    /// Associations that stand on it outlast the process: its node adopts what it knows again.
    pub keeps_sas: bool,
}

/// Whatever carries out the wishes of nodes about IPsec: the kernel of the machine, or a test.
pub trait SaKernel: Send {
    /// From now on lets nothing pass these ports in clear, and removes what an earlier run left behind where nobody will
    /// know it again.
    fn protect<'a>(&'a mut self, ports: &'a [ProtectedPort]) -> SaFuture<'a, Result<(), SaError>>;

    /// `owner` tells nodes apart that share a kernel: the two ends of a set may live on one machine.
    fn change(&mut self, owner: usize, change: SaChange, now: Time) -> SaFuture<'_, Result<(), SaError>>;

    /// See [`ims_core::Action::SaAudit`].
    fn audit(&mut self, owner: usize, side: SaSide, adopt: Vec<SaSet>) -> SaFuture<'_, Result<SaAudit, SaError>>;

    /// The next lifetime that ran out. Safe to cancel.
    fn expired(&mut self) -> SaFuture<'_, SaExpiry>;

    /// Removes all that was put in, but for what outlasts the process.
    fn clear(&mut self) -> SaFuture<'_, ()>;
}

pub(crate) struct SaJob {
    pub(crate) node: NodeIndex,
    pub(crate) id: RequestId,
    pub(crate) what: SaWork,
}

pub(crate) enum SaWork {
    Change(SaChange),
    Audit { side: SaSide, adopt: Vec<SaSet> },
}

impl SaJob {
    /// When it cannot be taken on.
    pub(crate) fn refused(id: RequestId, is_audit: bool) -> Event {
        match is_audit {
            true => Event::SaAudited { id, result: Err(SaError::Kernel(libc::ENOBUFS)) },
            false => Event::Sa { id, result: Err(SaError::Kernel(libc::ENOBUFS)) },
        }
    }
}

/// Closes the protected ports for clear text. That this fails is no reason not to start: the nodes are told when they ask for an
/// association, and their policy decides.
pub(crate) async fn protect(kernel: &mut dyn SaKernel, ports: &[ProtectedPort]) {
    if ports.is_empty() {
        return;
    }
    if let Err(error) = kernel.protect(ports).await {
        warn!(%error, "the protected ports cannot be closed for clear text");
    }
}

/// Does one change after the other, tells owners of expiries, cleans up when told to stop.
pub(crate) async fn run(
    mut kernel: Box<dyn SaKernel>,
    mut jobs: mpsc::Receiver<SaJob>,
    inboxes: Vec<Inbox>,
    clock: Clock,
    mut stop: oneshot::Receiver<()>,
) {
    let mut owners = Owners::default();
    let mut told = false;
    loop {
        tokio::select! {
            _ = &mut stop => break,
            job = jobs.recv() => match job {
                None => break,
                Some(SaJob { node, id, what }) => {
                    let event = match what {
                        SaWork::Change(change) => {
                            let after = Owned::after(&change);
                            let result = kernel.change(node, change, clock.now()).await;
                            match &result {
                                Ok(()) => owners.note(node, after),
                                Err(error @ (SaError::NoEsp | SaError::NotPermitted)) => {
                                    if !std::mem::replace(&mut told, true) {
                                        warn!(%error, "no IPsec");
                                    }
                                }
                                Err(_) => {}
                            }
                            Event::Sa { id, result }
                        }
                        SaWork::Audit { side, adopt } => {
                            // Of a set that is not there, no notice comes; its node will remove it.
                            adopt.iter().for_each(|set| owners.note(node, Owned::Gains(*set)));
                            Event::SaAudited { id, result: kernel.audit(node, side, adopt).await }
                        }
                    };
                    if let Some(inbox) = inboxes.get(node) {
                        inbox.push(event);
                    }
                }
            },
            expiry = kernel.expired() => {
                for node in owners.of(expiry) {
                    if let Some(inbox) = inboxes.get(*node) {
                        inbox.push(Event::SaExpired(expiry));
                    }
                }
            }
        }
    }
    kernel.clear().await;
}

/// Which nodes use which association.
#[derive(Default)]
struct Owners(HashMap<(IpAddr, u32), Vec<NodeIndex>>);

enum Owned {
    Gains(SaSet),
    Loses(SaSet),
    Same,
}

impl Owned {
    fn after(change: &SaChange) -> Self {
        match change {
            SaChange::Install { set, .. } => Self::Gains(*set),
            SaChange::Extend { .. } => Self::Same,
            SaChange::Remove { set } => Self::Loses(*set),
        }
    }
}

impl Owners {
    fn note(&mut self, node: NodeIndex, change: Owned) {
        match change {
            Owned::Same => {}
            Owned::Gains(set) => {
                for leg in set.legs() {
                    let nodes = self.0.entry((leg.dst.ip(), leg.spi)).or_default();
                    if !nodes.contains(&node) {
                        nodes.push(node);
                    }
                }
            }
            Owned::Loses(set) => {
                for leg in set.legs() {
                    let key = (leg.dst.ip(), leg.spi);
                    if let Some(nodes) = self.0.get_mut(&key) {
                        nodes.retain(|n| *n != node);
                        if nodes.is_empty() {
                            self.0.remove(&key);
                        }
                    }
                }
            }
        }
    }

    fn of(&self, expiry: SaExpiry) -> &[NodeIndex] {
        self.0.get(&(expiry.dst, expiry.spi)).map_or(&[], Vec::as_slice)
    }
}
