//! A whole registration through the four nodes in one thread, without sockets, tasks or a disk: what a registration costs
//! before the shell adds its part. `cargo bench -p ims-tests --bench registration [-- HANDSETS]`
//!
//! Each role's time is what its `handle` takes; the handset's is left out. The memory is what lives on the heap of all roles
//! together, at once and when the transactions are over (the store in memory, which stands for the disk, is left out as far as
//! it can be: it is filled before).

#![allow(clippy::disallowed_methods)]

#[path = "../core/mod.rs"]
mod core;

use crate::core::{Core, PACE, REST, config, heap, report};
use ims_core::Rng;
use ue::Ue;

#[global_allocator]
static HEAP: heap::Heap = heap::Heap;

fn main() {
    let handsets: usize = std::env::args().find_map(|arg| arg.parse().ok()).unwrap_or(10_000);
    let config = config();
    let mut core = Core::new(&config);
    (0..handsets).for_each(|number| core.provision(number));
    assert_eq!(core.refused, 0, "all are provisioned");
    let mut rng = Rng::from_u64(99);
    for round in ["first registration", "again from scratch"] {
        core.forget_costs();
        let before = heap::live();
        let mut registered = 0;
        for number in 0..handsets {
            let mut handset = Ue::new(config.handset(number)).expect("a handset");
            registered += usize::from(core.register(&mut handset, &mut rng));
            core.pass(PACE);
        }
        assert_eq!(registered, handsets, "all register");
        let at_once = heap::live().saturating_sub(before);
        core.pass(REST);
        let at_rest = heap::live().saturating_sub(before);
        report(round, "registration", &core, handsets);
        let each = |bytes: usize| bytes as f64 / handsets as f64;
        println!("  heap: {:.0} bytes each at once, {:.0} at rest", each(at_once), each(at_rest));
    }
}
