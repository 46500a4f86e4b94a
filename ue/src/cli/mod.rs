//! The command line: `ue register` attaches one handset and tells each step, `ue call` has it call or be called, `ue load`
//! attaches many at a set rate.

mod call;
mod load;
mod register;

use clap::{Args, Parser, Subcommand};
use ims_sip::digest::DigestAlgorithm;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use ue::config::{GmTransport, SimAlgorithm};
use ue::{Config, DigestName, Key, Password};

#[derive(Parser)]
#[command(name = "ue", version, about = "Simulated IMS handsets: registration with AKA, sec-agree and IPsec")]
struct Cli {
    #[command(subcommand)]
    command: What,
}

#[derive(Subcommand)]
enum What {
    /// Attach one handset and print what happens, step by step. Exit code 0: it registered, and the network made no fault.
    Register(Box<register::Options>),
    /// Attach one handset that calls somebody, or waits to be called, and tell each step. Exit code 0: the call was answered, and
    /// the network made no fault.
    Call(Box<call::Options>),
    /// Attach many handsets at a set rate, keep them registered, and print a JSON summary. Exit code 0: all registered, or
    /// no more failed than --max-failed, and no registration was lost.
    Load(Box<load::Options>),
}

/// The SIM and the network it belongs to; the same for all commands.
#[derive(Args)]
struct Subscription {
    /// IMSI of the (first) handset.
    #[arg(long, default_value = "001010000000001")]
    imsi: String,
    /// Subscriber key K, 32 hexadecimal digits. Others on this machine can read a command line: prefer --key-file.
    #[arg(long, default_value = "465b5ce8b199b49faa5f0a2ee238a6bc")]
    k: String,
    /// OPc, 32 hexadecimal digits.
    #[arg(long, default_value = "cd63cb71954a9f4e48a5994e37a02baf", conflicts_with = "op")]
    opc: String,
    /// OP instead of OPc.
    #[arg(long)]
    op: Option<String>,
    /// File with lines `k = HEX` and `opc = HEX` (or `op = HEX`), instead of --k and --opc.
    #[arg(long)]
    key_file: Option<PathBuf>,
    /// A password instead of a SIM (SIP Digest); goes with --no-sec-agree.
    #[arg(long, conflicts_with = "password_file")]
    password: Option<String>,
    /// File whose first line is the password.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Digest algorithm that the handset knows, such as AKAv2-SHA-256 or SHA-256 (repeat for several); all unless given.
    #[arg(long = "digest", value_name = "ALGORITHM")]
    digest: Vec<String>,
    /// Private identity, if not the one derived from the IMSI.
    #[arg(long)]
    impi: Option<String>,
    /// Public identity to register, if not the one derived from the IMSI.
    #[arg(long)]
    impu: Option<String>,
    /// Home network domain name.
    #[arg(long, default_value = "ims.mnc001.mcc001.3gppnetwork.org")]
    domain: String,
    /// Address and port of the P-CSCF.
    #[arg(long, default_value = "127.0.0.1:5060")]
    pcscf: SocketAddr,
    /// Seconds of registration to ask for.
    #[arg(long, default_value_t = 600_000)]
    expires: u32,
}

impl Subscription {
    fn config(&self) -> Result<Config, String> {
        let (mut k, mut opc, mut op) = (self.k.clone(), Some(self.opc.clone()), self.op.clone());
        if let Some(file) = &self.key_file {
            let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
            (opc, op) = (None, None);
            for (name, value) in text.lines().filter_map(|l| l.split_once('=')) {
                let value = value.trim().trim_matches('"').to_owned();
                match name.trim() {
                    "k" => k = value,
                    "opc" => opc = Some(value),
                    "op" => op = Some(value),
                    other => return Err(format!("{}: '{other}' is not k, opc or op", file.display())),
                }
            }
        }
        if op.is_some() {
            opc = None;
        }
        let key = |name: &str, hex: &str| Key::from_hex(hex).ok_or(format!("--{name}: hexadecimal digits are needed"));
        Ok(Config {
            imsi: self.imsi.clone(),
            algorithm: SimAlgorithm::Milenage,
            k: key("k", &k)?,
            opc: opc.map(|hex| key("opc", &hex)).transpose()?,
            op: op.map(|hex| key("op", &hex)).transpose()?,
            password: self.password()?,
            digest: self.digest.iter().map(|name| digest(name)).collect::<Result<_, _>>()?,
            impi: self.impi.clone(),
            impu: self.impu.clone(),
            home_domain: self.domain.clone(),
            pcscf: self.pcscf,
            expires: self.expires,
            ..Config::default()
        })
    }
}

impl Subscription {
    fn password(&self) -> Result<Option<Password>, String> {
        let Some(file) = &self.password_file else { return Ok(self.password.clone().map(Password::new)) };
        let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
        let line = text.lines().next().ok_or_else(|| format!("{}: is empty", file.display()))?;
        Ok(Some(Password::new(line.to_owned())))
    }
}

fn digest(name: &str) -> Result<DigestName, String> {
    DigestAlgorithm::from_token(name).map(DigestName).ok_or_else(|| format!("--digest: {name} is not known"))
}

pub(crate) fn main() -> ExitCode {
    let result = match Cli::parse().command {
        What::Register(options) => register::run(&options),
        What::Call(options) => call::run(&options),
        What::Load(options) => load::run(&options),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(reason) => {
            eprintln!("ue: {reason}");
            ExitCode::from(2)
        }
    }
}

fn transport(tcp: bool) -> GmTransport {
    if tcp { GmTransport::Tcp } else { GmTransport::Udp }
}

fn loopback() -> IpAddr {
    IpAddr::V4(Ipv4Addr::LOCALHOST)
}

#[cfg(test)]
mod tests {
    use super::Cli;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
    }
}
