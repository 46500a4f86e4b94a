//! `imsbox ifc explain`: which criteria of a user a request meets, and why not the others.

use crate::client::Client;
use anyhow::{Context, Result};
use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};
use std::path::PathBuf;

#[derive(Subcommand, Debug)]
pub(crate) enum Ifc {
    /// Show each criterion of a user in order: whether the request meets it, or which condition fails and what it was compared with
    Explain(Box<Explain>),
}

#[derive(clap::Args, Debug)]
pub(crate) struct Explain {
    /// Public identity of the served user
    #[arg(long)]
    impu: String,
    /// File with a SIP request; `-`: standard input. Without it: one made of --method and --uri
    #[arg(long, value_name = "FILE", required_unless_present = "method")]
    message: Option<PathBuf>,
    /// Whom the user is served as (default: terminating when the Request-URI is the user, otherwise originating)
    #[arg(long, value_enum)]
    case: Option<Case>,
    /// As if the user were registered (default: as it is)
    #[arg(long, conflicts_with = "unregistered")]
    registered: bool,
    /// As if the user were not registered
    #[arg(long)]
    unregistered: bool,
    /// Another method than that of the message
    #[arg(long)]
    method: Option<String>,
    /// Another Request-URI than that of the message
    #[arg(long)]
    uri: Option<String>,
    /// Of a REGISTER
    #[arg(long, value_enum)]
    registration: Option<Registration>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum Case {
    Originating,
    Terminating,
    OriginatingCdiv,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum Registration {
    Initial,
    Reregistration,
    Deregistration,
}

pub(crate) fn run(command: Ifc, clients: &[Client]) -> Result<()> {
    let Ifc::Explain(explain) = command;
    let answer = ask(clients, &explain)?;
    match explain.json {
        true => println!("{}", serde_json::to_string_pretty(&answer)?),
        false => {
            if answer["source"] == "hss" {
                println!("{} is not registered: the criteria are those that the HSS has", explain.impu);
            }
            print!("{}", answer["text"].as_str().unwrap_or_default());
        }
    }
    Ok(())
}

/// The box knows both halves. Where the roles run apart, the HSS comes first and has the profile, and another is the S-CSCF.
fn ask(clients: &[Client], explain: &Explain) -> Result<Value> {
    let mut question = explain.question()?;
    let (first, others) = clients.split_first().context("no address of a REST API was given")?;
    if !others.is_empty() {
        let profile = first.read(&format!("/v1/profiles/{}", escaped(&explain.impu)))?;
        question["profile"] = profile["user_data"].clone();
    }
    let mut answer = first.create("/v1/ifc/explain", &question);
    for client in others {
        if answer.is_ok() {
            break;
        }
        answer = client.create("/v1/ifc/explain", &question);
    }
    answer
}

impl Explain {
    fn question(&self) -> Result<Value> {
        let mut question = json!({ "impu": self.impu });
        let text = match &self.message {
            None => None,
            Some(file) if file.as_os_str() == "-" => Some(std::io::read_to_string(std::io::stdin())?),
            Some(file) => {
                let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
                Some(String::from_utf8(bytes).with_context(|| format!("{} is no text", file.display()))?)
            }
        };
        let name = |value: Option<clap::builder::PossibleValue>| value.map(|v| v.get_name().to_owned());
        let fields = [
            ("message", text),
            ("method", self.method.clone()),
            ("uri", self.uri.clone()),
            ("case", name(self.case.and_then(|c| c.to_possible_value()))),
            ("registration", name(self.registration.and_then(|r| r.to_possible_value()))),
        ];
        for (field, value) in fields {
            if let Some(value) = value {
                question[field] = value.into();
            }
        }
        if self.registered || self.unregistered {
            question["registered"] = self.registered.into();
        }
        Ok(question)
    }
}

/// One segment of a path (RFC 3986 3.3).
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b':' | b'@' | b'+') => {
                out.push(b.into())
            }
            b => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        command: Ifc,
    }

    fn question(args: &[&str]) -> Result<Value> {
        let Ifc::Explain(explain) = Line::try_parse_from([&["imsbox", "explain"], args].concat())?.command;
        explain.question()
    }

    #[test]
    fn the_command_line_becomes_a_question() {
        let made = question(&[
            "--impu",
            "sip:a@b",
            "--method",
            "REGISTER",
            "--registration",
            "deregistration",
            "--unregistered",
        ]);
        let wanted =
            json!({ "impu": "sip:a@b", "method": "REGISTER", "registration": "deregistration", "registered": false });
        assert_eq!(made.unwrap(), wanted);
        let cdiv = question(&["--impu", "sip:a@b", "--method", "INVITE", "--case", "originating-cdiv"]).unwrap();
        assert_eq!(cdiv["case"], "originating-cdiv");
        assert!(question(&["--impu", "sip:a@b"]).is_err(), "neither a message nor a method");
        assert!(question(&["--impu", "x", "--method", "M", "--registered", "--unregistered"]).is_err());
        let missing = question(&["--impu", "x", "--message", "/nonexistent.sip"]).unwrap_err();
        assert!(missing.to_string().contains("cannot read /nonexistent.sip"));
        assert_eq!(escaped("sip:a/b@c;x=1"), "sip:a%2Fb@c%3Bx%3D1");
    }
}
