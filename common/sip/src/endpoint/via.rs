//! The topmost Via: what is written into it, and where it says that answers go.

use crate::headers::Via;
use crate::headers::list::is_token;
use crate::{Message, Name};
use ims_core::uri::parse_ip;
use ims_core::{Flow, Transport};
use std::fmt::{self, Write as _};
use std::net::{IpAddr, SocketAddr};

pub(super) const SIP_PORT: u16 = 5060;
pub(super) const COOKIE: &str = "z9hG4bK";
/// For a Via of usual length.
const ROOM: usize = 160;

/// How a request came, and how its answers leave.
#[derive(Clone, Copy)]
pub(super) struct Ways {
    pub(super) flow: Flow,
    pub(super) reply: Flow,
    /// `reply` was set by the node.
    pub(super) forced: bool,
    /// Where answers go when the connection of `reply` is gone.
    pub(super) fallback: Option<Flow>,
}

impl Ways {
    /// Answers leave on `flow` from now on; gives the flow of before. Those to a request that came by TCP return on
    /// its connection (RFC 3261 18.2.2): then a TCP flow without connection is only for when that is gone.
    pub(super) fn turn(&mut self, flow: Flow) -> Flow {
        if self.reply.conn.is_some() && flow.transport == Transport::Tcp && flow.conn.is_none() {
            self.fallback = Some(flow);
            return self.reply;
        }
        self.forced = true;
        std::mem::replace(&mut self.reply, flow)
    }
}

/// The Via we put on a request. No rport: towards a UE inside IPsec answers must come to our server port.
pub(super) fn ours(transport: Transport, sent_by: &str, branch: &str) -> impl fmt::Display {
    fmt::from_fn(move |f| {
        for part in ["SIP/2.0/", transport.token(), " ", sent_by, ";branch=", branch] {
            f.write_str(part)?;
        }
        Ok(())
    })
}

/// Writes `received` and `rport` (RFC 3261 18.2.1, RFC 3581 4); what the sender claimed there is removed. Gives the
/// ways of the answers (RFC 3261 18.2.2).
pub(super) fn note_received(message: &mut Message, flow: &Flow) -> Option<Ways> {
    let via: Via<'_> = message.first().ok().flatten()?;
    let (from, wants_rport) = (flow.remote.ip(), via.params.has("rport"));
    let back = SocketAddr::new(from, via.port.unwrap_or(SIP_PORT));
    let untrue = parse_ip(via.host) != Some(from);
    if untrue || wants_rport || via.params.has("received") {
        let mut value = String::with_capacity(ROOM);
        ["SIP/2.0/", via.transport, " ", via.host].iter().for_each(|part| value.push_str(part));
        if let Some(port) = via.port {
            let _ = write!(value, ":{port}");
        }
        for (name, param) in via.params.iter() {
            if !name.eq_ignore_ascii_case("received") && !name.eq_ignore_ascii_case("rport") {
                write_param(&mut value, name, param);
            }
        }
        if untrue || wants_rport {
            let _ = write!(value, ";received={from}");
        }
        if wants_rport {
            let _ = write!(value, ";rport={}", flow.remote.port());
        }
        message.replace_first(Name::Via, value);
    }
    let (reply, fallback) = match flow.transport {
        Transport::Udp if wants_rport => (Flow::udp(flow.local, flow.remote), None),
        Transport::Udp => (Flow::udp(flow.local, back), None),
        Transport::Tcp => (*flow, Some(Flow::tcp(SocketAddr::new(flow.local.ip(), 0), back))),
    };
    Some(Ways { flow: *flow, reply, forced: false, fallback })
}

fn write_param(out: &mut String, name: &str, value: Option<&str>) {
    let plain = |b: u8| is_token(b) || matches!(b, b'[' | b']' | b':');
    out.push(';');
    out.push_str(name);
    match value {
        None => {}
        Some(v) if !v.is_empty() && v.bytes().all(plain) => {
            out.push('=');
            out.push_str(v);
        }
        Some(v) => {
            out.push_str("=\"");
            out.push_str(v);
            out.push('"');
        }
    }
}

/// Where a response goes that we only have the Via of (RFC 3261 18.2.2): addresses only, no names.
pub(super) fn response_flow(response: &Message, local: SocketAddr) -> Option<Flow> {
    let via: Via<'_> = response.first().ok().flatten()?;
    let ip = via.params.value("received").and_then(parse_ip).or_else(|| parse_ip(via.host))?;
    let rport = via.params.value("rport").and_then(|p| p.parse::<u16>().ok());
    let port = rport.or(via.port).unwrap_or(SIP_PORT);
    if ip.is_ipv4() != local.is_ipv4() || unusable(ip) {
        return None;
    }
    if via.transport.eq_ignore_ascii_case("udp") {
        Some(Flow::udp(local, SocketAddr::new(ip, port)))
    } else if via.transport.eq_ignore_ascii_case("tcp") {
        let port = via.port.unwrap_or(SIP_PORT);
        Some(Flow::tcp(SocketAddr::new(local.ip(), 0), SocketAddr::new(ip, port)))
    } else {
        None
    }
}

fn unusable(ip: IpAddr) -> bool {
    ip.is_unspecified() || ip.is_multicast()
}
