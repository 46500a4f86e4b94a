//! The P-CSCF as a program of its own: `pcscf --config configs/pcscf.toml`.

use ims_shell::{Role, role_main};
use pcscf::{Config, Pcscf};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: ims_shell::Allocator = ims_shell::Allocator;

fn main() -> ExitCode {
    role_main("pcscf", ([127, 0, 0, 1], 8081).into(), |input| {
        let config: Config = input.config()?;
        let wiring = config.wiring();
        Ok(Role::new(Pcscf::new(config)?, wiring).keeps())
    })
}
