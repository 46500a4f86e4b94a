//! Security associations for a whole fleet.

use ims_core::Time;
use ims_core::sa::{SaChange, SaError, SaExpiry};
use ims_shell::SaKernel;
use std::time::Duration;

/// The kernel's associations of all handsets. Each change is waited for: what a kernel takes for it is small beside what
/// it takes from the core.
pub(super) struct Ipsec {
    runtime: tokio::runtime::Runtime,
    kernel: Box<dyn SaKernel>,
}

impl Ipsec {
    pub(super) fn open() -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
        let kernel = {
            let _inside = runtime.enter();
            ims_shell::machine_kernel(true)
        };
        Ok(Self { runtime, kernel })
    }

    pub(super) fn change(&mut self, owner: u32, change: SaChange, now: Time) -> Result<(), SaError> {
        self.runtime.block_on(self.kernel.change(owner as usize, change, now))
    }

    /// The lifetimes that have run out.
    pub(super) fn expired(&mut self) -> Vec<SaExpiry> {
        let kernel = &mut self.kernel;
        self.runtime.block_on(async {
            let mut all = Vec::new();
            while let Ok(expiry) = tokio::time::timeout(Duration::ZERO, kernel.expired()).await {
                all.push(expiry);
            }
            all
        })
    }

    pub(super) fn clear(&mut self) {
        self.runtime.block_on(self.kernel.clear());
    }
}
