//! The HSS as a program of its own: `hss --config configs/hss.toml`.

use hss::{Config, Hss};
use ims_shell::{Role, entropy, role_main};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: ims_shell::Allocator = ims_shell::Allocator;

fn main() -> ExitCode {
    role_main("hss", ([127, 0, 0, 1], 8080).into(), |input| {
        let mut config: Config = input.config()?;
        config.master_key = Some(entropy::master_key(input.settings())?);
        let wiring = config.wiring();
        Ok(Role::new(Hss::new(config)?, wiring).store("hss.db").keeps())
    })
}
