//! What was said, by whom to whom, and how it reads as a ladder.

use crate::world::NodeId;
use bytes::Bytes;
use ims_core::Time;
use ims_sip::{Message, Name};
use std::fmt::Write as _;
use std::net::SocketAddr;

/// One thing that happened in the world.
#[derive(Clone, Debug)]
pub struct Entry {
    pub at: Time,
    pub from: NodeId,
    pub to: Option<NodeId>,
    pub what: What,
    /// Why it did not arrive; None: it did, or it is still under way.
    pub lost: Option<&'static str>,
}

#[derive(Clone, Debug)]
pub enum What {
    Sip { bytes: Bytes, transport: &'static str, src: SocketAddr, dst: SocketAddr, esp: Option<(u32, &'static str)> },
    Diameter(Bytes),
    Note(String),
}

/// Prints entries as a ladder.
pub struct Ladder<'a> {
    pub names: &'a [String],
    /// With times: for people. Goldens do without.
    pub times: bool,
    pub start: Time,
}

impl Ladder<'_> {
    pub fn print(&self, entries: &[Entry]) -> String {
        let mut out = String::new();
        for entry in entries {
            self.line(entry, &mut out);
        }
        out
    }

    fn line(&self, entry: &Entry, out: &mut String) {
        if self.times {
            let t = entry.at.since(self.start).as_secs_f64();
            write!(out, "{t:>12.4} ").unwrap_or_default();
        }
        let from = self.name(Some(entry.from));
        let (arrow, text) = match &entry.what {
            What::Note(text) => {
                writeln!(out, "{from:>8}    {:8}  ({text})", "").unwrap_or_default();
                return;
            }
            What::Diameter(bytes) => ("->", diameter_line(bytes)),
            What::Sip { bytes, transport, src, dst, esp } => {
                let way = match esp {
                    Some((spi, leg)) if self.times => format!("{transport} [esp {leg} {spi:#010x}]"),
                    Some((_, leg)) => format!("{transport} [esp {leg}]"),
                    None if self.times => format!("{transport} {src}>{dst}"),
                    None => (*transport).to_owned(),
                };
                (if esp.is_some() { "=>" } else { "->" }, format!("{}  {way}", sip_line(bytes)))
            }
        };
        let to = self.name(entry.to);
        let lost = entry.lost.map(|why| format!("  ** {why}")).unwrap_or_default();
        writeln!(out, "{from:>8} {arrow} {to:8}  {text}{lost}").unwrap_or_default();
    }

    fn name(&self, node: Option<NodeId>) -> &str {
        node.and_then(|n| self.names.get(n.0)).map_or("nobody", String::as_str)
    }
}

/// Start line, and what matters for a registration; nothing that differs from run to run.
fn sip_line(bytes: &Bytes) -> String {
    let Ok(m) = Message::parse(bytes.clone()) else {
        return format!("{} bytes that are not SIP", bytes.len());
    };
    let mut out = if m.is_request() {
        m.method().to_string()
    } else {
        format!("{} {} ({})", m.status(), String::from_utf8_lossy(m.reason()), m.method())
    };
    if m.is_request() && m.text(Name::Expires) == Some("0") {
        out.push_str(" expires=0");
    }
    if let Some(auth) = m.text(Name::Authorization) {
        let answer = match auth {
            a if a.contains("auts=\"") => " auts",
            a if a.contains("response=\"\"") && a.contains("nonce=\"\"") => "",
            a if a.contains("response=\"\"") => " empty-response",
            _ => " response",
        };
        out.push_str(answer);
        for mark in ["yes", "no"] {
            if auth.contains(&format!("integrity-protected=\"{mark}\""))
                || auth.contains(&format!("integrity-protected={mark}"))
            {
                write!(out, " integrity-protected={mark}").unwrap_or_default();
            }
        }
    }
    if m.text(Name::WwwAuthenticate).is_some_and(|h| h.contains("ck=")) {
        out.push_str(" ck,ik");
    }
    for (name, mark) in [
        (Name::SecurityClient, "Security-Client"),
        (Name::SecurityServer, "Security-Server"),
        (Name::SecurityVerify, "Security-Verify"),
        (Name::Path, "Path"),
        (Name::ServiceRoute, "Service-Route"),
        (Name::PAssociatedUri, "P-Associated-URI"),
    ] {
        if m.has(name) {
            write!(out, " {mark}").unwrap_or_default();
        }
    }
    out
}

/// Command and result, read without the crate under test.
fn diameter_line(bytes: &[u8]) -> String {
    let number = |at: usize| bytes.get(at..at + 4).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_be_bytes(*b));
    let command = number(4) & 0x00ff_ffff;
    let request = bytes.get(4).is_some_and(|flags| flags & 0x80 != 0);
    let name = match command {
        257 => "CE",
        280 => "DW",
        282 => "DP",
        300 => "UA",
        301 => "SA",
        302 => "LI",
        303 => "MA",
        304 => "RT",
        305 => "PP",
        _ => "??",
    };
    let kind = if request { 'R' } else { 'A' };
    let mut out = format!("{name}{kind}");
    if let Some(code) = avp_u32(bytes.get(20..).unwrap_or_default(), 268) {
        write!(out, " {code}").unwrap_or_default();
    }
    let experimental = avp(bytes.get(20..).unwrap_or_default(), 297).and_then(|group| avp_u32(group, 298));
    if let Some(code) = experimental {
        write!(out, " experimental {code}").unwrap_or_default();
    }
    if let Some(kind) = avp_u32(bytes.get(20..).unwrap_or_default(), 614).filter(|_| request) {
        write!(out, " type {kind}").unwrap_or_default();
    }
    out
}

/// The content of the first AVP with this code.
pub(crate) fn avp(mut rest: &[u8], code: u32) -> Option<&[u8]> {
    while rest.len() >= 8 {
        let number = |at: usize| rest.get(at..at + 4).and_then(|b| b.first_chunk()).map(|b| u32::from_be_bytes(*b));
        let length = usize::try_from(number(4)? & 0x00ff_ffff).ok()?;
        let header = if rest[4] & 0x80 != 0 { 12 } else { 8 };
        if number(0)? == code {
            return rest.get(header..length);
        }
        rest = rest.get(length.max(8).next_multiple_of(4)..)?;
    }
    None
}

fn avp_u32(avps: &[u8], code: u32) -> Option<u32> {
    avp(avps, code)?.first_chunk().map(|b| u32::from_be_bytes(*b))
}
