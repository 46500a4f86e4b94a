//! The I-CSCF as a program of its own, from a configuration file.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: ims_shell::Allocator = ims_shell::Allocator;

fn main() -> ExitCode {
    ims_shell::role_main("icscf", ([127, 0, 0, 1], 8082).into(), |input| {
        let config: icscf::Config = input.config()?;
        let wiring = config.wiring();
        Ok(ims_shell::Role::new(icscf::Icscf::new(config)?, wiring))
    })
}
