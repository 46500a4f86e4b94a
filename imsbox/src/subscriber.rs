//! `imsbox subscriber add|show|list|remove`: provisioning over the REST API.

use crate::client::Client;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;

#[derive(clap::Subcommand, Debug)]
pub(crate) enum Subscriber {
    /// Add a subscriber: the IMPI and IMPUs are derived from the IMSI and MSISDN unless given
    Add(Box<Add>),
    /// Show one subscriber; keys are never shown
    Show { imsi: String },
    /// List all subscribers
    List,
    /// Remove a subscriber; a registered handset is de-registered
    Remove { imsi: String },
}

#[derive(clap::Args, Debug)]
pub(crate) struct Add {
    /// 15 digits, as on the SIM
    #[arg(long)]
    imsi: String,
    /// K as 32 hex digits. Visible in the process list: prefer --key-file outside a lab
    #[arg(long, conflicts_with = "key_file")]
    k: Option<String>,
    /// OPc as 32 hex digits
    #[arg(long, conflicts_with_all = ["op", "key_file"])]
    opc: Option<String>,
    /// OP as 32 hex digits; OPc is computed from it
    #[arg(long, conflicts_with = "key_file")]
    op: Option<String>,
    /// File with lines `k=...` and `opc=...` or `op=...`, or with one `password=...` (`-`: standard input)
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// AMF as 4 hex digits
    #[arg(long)]
    amf: Option<String>,
    /// Telephone number in international form
    #[arg(long)]
    msisdn: Option<String>,
    /// milenage, tuak or xor
    #[arg(long)]
    algorithm: Option<String>,
    /// Password of a softphone instead of the keys of a SIM (SIP Digest). Visible in the process list: prefer --key-file with
    /// a line `password=...`
    #[arg(long, conflicts_with_all = ["k", "opc", "op", "key_file", "algorithm", "amf"])]
    password: Option<String>,
    /// Realm of the password, if not the home domain
    #[arg(long)]
    realm: Option<String>,
    /// Private identity, if not the one derived from the IMSI
    #[arg(long)]
    impi: Option<String>,
    /// Public identity, if not the derived ones (repeat for several)
    #[arg(long = "impu")]
    impus: Vec<String>,
}

pub(crate) fn run(command: Subscriber, client: &Client) -> Result<()> {
    match command {
        Subscriber::Add(add) => {
            let body = add.body()?;
            let created = client.create("/v1/subscribers", &body)?;
            print_one(&created);
        }
        Subscriber::Show { imsi } => print_one(&client.read(&format!("/v1/subscribers/{imsi}"))?),
        Subscriber::List => list(client)?,
        Subscriber::Remove { imsi } => {
            client.remove(&format!("/v1/subscribers/{imsi}"))?;
            println!("removed {imsi}");
        }
    }
    Ok(())
}

impl Add {
    fn body(&self) -> Result<Value> {
        let mut body = json!({ "imsi": self.imsi });
        let mut set = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                body[name] = Value::String(value);
            }
        };
        set("k", self.k.clone());
        set("opc", self.opc.clone());
        set("op", self.op.clone());
        set("amf", self.amf.clone());
        set("msisdn", self.msisdn.clone());
        set("algorithm", self.algorithm.clone());
        set("impi", self.impi.clone());
        set("password", self.password.clone());
        set("realm", self.realm.clone());
        if let Some(file) = &self.key_file {
            for (name, value) in read_keys(file)? {
                set(&name, Some(value));
            }
        } else if self.k.is_none() && self.password.is_none() && std::io::stdin().is_terminal() {
            set("k", Some(ask("K (32 hex digits): ")?));
            if self.op.is_none() && self.opc.is_none() {
                set("opc", Some(ask("OPc (32 hex digits): ")?));
            }
        }
        if !self.impus.is_empty() {
            body["impus"] = json!(self.impus);
        }
        Ok(body)
    }
}

fn read_keys(file: &std::path::Path) -> Result<Vec<(String, String)>> {
    let text = if file.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin())?
    } else {
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?
    };
    let mut keys = Vec::new();
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let (name, value) =
            line.split_once('=').with_context(|| format!("{}: write lines as k=HEX and opc=HEX", file.display()))?;
        let name = name.trim().to_ascii_lowercase();
        anyhow::ensure!(
            matches!(name.as_str(), "k" | "op" | "opc" | "top" | "topc" | "amf" | "password"),
            "{}: '{name}' is none of k, op, opc, top, topc, amf, password",
            file.display()
        );
        keys.push((name, value.trim().to_owned()));
    }
    Ok(keys)
}

fn ask(question: &str) -> Result<String> {
    eprint!("{question}");
    std::io::stderr().flush()?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

fn list(client: &Client) -> Result<()> {
    let mut after = String::new();
    loop {
        let page = client.read(&format!("/v1/subscribers?limit=500&after={after}"))?;
        for one in page["subscribers"].as_array().into_iter().flatten() {
            println!("{}", line(one));
        }
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut after),
            None => return Ok(()),
        }
    }
}

fn line(one: &Value) -> String {
    let text = |name: &str| one[name].as_str().unwrap_or("-").to_owned();
    format!("{:<16} {:<16} {}", text("imsi"), text("msisdn"), text("impi"))
}

fn print_one(one: &Value) {
    println!("{}", serde_json::to_string_pretty(one).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_from_a_file_and_strange_names_refused() {
        let folder = std::env::temp_dir().join(format!("imsbox-keys-{}", std::process::id()));
        std::fs::write(&folder, "# SIM 1\nK = 00ff\nopc=11ee\n").unwrap();
        assert_eq!(read_keys(&folder).unwrap(), [("k".into(), "00ff".into()), ("opc".into(), "11ee".into())]);
        std::fs::write(&folder, "pin=1234\n").unwrap();
        assert!(read_keys(&folder).unwrap_err().to_string().contains("'pin' is none of"));
        std::fs::remove_file(&folder).unwrap();
    }
}
