//! `ue`: one simulated handset, or thousands of them.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
