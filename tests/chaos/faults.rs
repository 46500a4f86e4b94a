//! What goes wrong besides the weather: nodes crash and are built again, paths are cut, the database and the kernel fail,
//! clocks jump. Everything is mended before the seed's story ends.

use ims_core::Rng;
use ims_core::sa::SaError;
use ims_tests::{Lab, NodeId};
use std::collections::BTreeSet;
use std::time::Duration;

/// A fault that stands until it is mended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    Down(NodeId),
    Cut(NodeId, NodeId),
    NoDatabase,
}

/// How much goes wrong in a world.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Trouble {
    /// The weather alone.
    None,
    /// Faults of the surroundings: paths, database, kernel.
    Surroundings,
    /// Those, and nodes that crash and come back, some with another clock.
    Crashes,
}

impl Trouble {
    pub(crate) fn of(seed: u64) -> Self {
        match seed % 4 {
            0 => Self::None,
            1 => Self::Surroundings,
            _ => Self::Crashes,
        }
    }
}

pub(crate) struct Faults {
    trouble: Trouble,
    standing: Vec<Fault>,
    crashed: BTreeSet<NodeId>,
}

impl Faults {
    pub(crate) fn new(trouble: Trouble) -> Self {
        Self { trouble, standing: Vec::new(), crashed: BTreeSet::new() }
    }

    /// Whether this node crashed at any time, and what it was asked before may be forgotten.
    pub(crate) fn has_crashed(&self, node: NodeId) -> bool {
        self.crashed.contains(&node)
    }

    /// Something breaks, or something is mended, or nothing happens.
    pub(crate) fn happen(&mut self, lab: &mut Lab, rng: &mut Rng) {
        if self.trouble == Trouble::None {
            return;
        }
        if !self.standing.is_empty() && rng.below(2) == 0 {
            let which = index(rng, self.standing.len());
            let fault = self.standing.swap_remove(which);
            return self.mend(lab, fault, rng);
        }
        match rng.below(12) {
            0 | 1 => self.cut(lab, rng),
            2 if !self.standing.contains(&Fault::NoDatabase) => {
                lab.world.set_store_down(lab.hss, true);
                self.standing.push(Fault::NoDatabase);
            }
            3 => lab.world.fail_next_sa(lab.pcscf, SaError::SpiTaken(0)),
            4 => lab.world.fail_next_sa(lab.pcscf, SaError::Kernel(105)),
            5 => lab.world.drop_links([lab.hss, lab.icscf, lab.scscf][index(rng, 3)]),
            6..=8 if self.trouble == Trouble::Crashes => self.crash(lab, rng),
            _ => {}
        }
    }

    /// All that is broken is whole again.
    pub(crate) fn mend_all(&mut self, lab: &mut Lab, rng: &mut Rng) {
        for fault in std::mem::take(&mut self.standing) {
            self.mend(lab, fault, rng);
        }
        lab.world.fail_no_sa(lab.pcscf);
    }

    fn cut(&mut self, lab: &mut Lab, rng: &mut Rng) {
        let far = [lab.icscf, lab.icscf, lab.hss, lab.hss];
        let near = [lab.pcscf, lab.scscf, lab.icscf, lab.scscf];
        let which = index(rng, far.len());
        let fault = Fault::Cut(near[which], far[which]);
        if !self.standing.contains(&fault) {
            lab.world.partition(near[which], far[which]);
            self.standing.push(fault);
        }
    }

    fn crash(&mut self, lab: &mut Lab, rng: &mut Rng) {
        let mut places = vec![lab.pcscf, lab.icscf, lab.scscf, lab.hss];
        places.extend(lab.scscf2);
        places.push(lab.ues[index(rng, lab.ues.len())]);
        let place = places[index(rng, places.len())];
        if lab.world.is_up(place) {
            lab.world.crash(place);
            self.crashed.insert(place);
            self.standing.push(Fault::Down(place));
        }
    }

    fn mend(&mut self, lab: &mut Lab, fault: Fault, rng: &mut Rng) {
        match fault {
            Fault::Down(place) => {
                if lab.world.is_handset(place) {
                    // It was switched off and on: its associations go with its memory.
                    lab.world.clear_sas(place);
                } else if rng.below(4) == 0 {
                    lab.world.set_clock(place, Duration::from_secs(rng.below(120)));
                }
                lab.rebuild(place);
            }
            Fault::Cut(..) => {
                lab.world.heal();
                for fault in &self.standing {
                    if let Fault::Cut(a, b) = fault {
                        lab.world.partition(*a, *b);
                    }
                }
            }
            Fault::NoDatabase => lab.world.set_store_down(lab.hss, false),
        }
    }
}

fn index(rng: &mut Rng, len: usize) -> usize {
    usize::try_from(rng.below(len as u64)).unwrap_or(0)
}
