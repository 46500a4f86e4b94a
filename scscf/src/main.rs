//! The S-CSCF as a program of its own, from a configuration file.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: ims_shell::Allocator = ims_shell::Allocator;

fn main() -> ExitCode {
    ims_shell::role_main("scscf", ([127, 0, 0, 1], 8083).into(), |input| {
        let mut config: scscf::Config = input.config()?;
        config.read_files(|path| std::fs::read(path))?;
        let wiring = config.wiring();
        Ok(ims_shell::Role::new(scscf::Scscf::new(config)?, wiring).keeps())
    })
}
