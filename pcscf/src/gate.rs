//! The clear port of Gm, where anybody may send: who is listened to at all, and which new registrations are let in while
//! there is more to do than can be done. What comes over SAs, and what comes from the core, does not pass here.

use crate::emergency::is_emergency_register;
use crate::register::Wanted;
use crate::sources::Heard;
use crate::{Pcscf, Refusal, auth_params};
use ims_core::{Action, Ctx, Flow, Packet, Problem, Transport};
use ims_sip::{Message, Method, Name};
use serde_json::{Value, json};
use std::net::IpAddr;
use tracing::{info, warn};

/// A datagram that only keeps a NAT binding open: CRLFs or zeros.
const LONGEST_KEEP_ALIVE: usize = 16;

impl Pcscf {
    pub(crate) fn on_clear_packet(&mut self, packet: Packet, ctx: &mut Ctx<'_>) {
        let Packet { flow, bytes } = packet;
        match self.sources.hear(flow.remote.ip(), ctx.now, &self.config.sources) {
            Heard::Welcome => {}
            Heard::Banned => return close(flow, ctx),
            Heard::TooMuch => return,
        }
        if self.sets.is_ue_port(flow.remote) {
            return self.count("clear-from-protected-port");
        }
        if bytes.len() > self.config.limits.max_unprotected_size {
            self.count("unprotected-too-large");
            self.blame(flow, "unprotected-too-large", ctx);
            return close(flow, ctx);
        }
        if bytes.len() <= LONGEST_KEEP_ALIVE && bytes.iter().all(|b| matches!(b, b'\r' | b'\n' | 0)) {
            return;
        }
        let parsed = Message::parse(bytes);
        if let Ok(request) = parsed.as_ref()
            && request.is_request()
        {
            if self.is_scanner(request) {
                self.count("scanner");
                return self.shut_out(flow, "scanner", ctx);
            }
            if self.is_one_too_many(request, ctx) {
                self.count("overload");
                self.measured.outcomes.refused("overload");
                let (wait, request) = (self.config.overload.retry_after(ctx.rng), request.clone());
                return self.sip.decline(request, flow, wait, ctx);
            }
        }
        if !self.sip.on_parsed(parsed, flow, ctx) {
            self.blame(flow, "malformed", ctx);
        }
    }

    /// A new registration beyond what is let in now. The repetition of one that was let in is none.
    fn is_one_too_many(&mut self, request: &Message, ctx: &Ctx<'_>) -> bool {
        self.admission.is_limiting()
            && is_new_registration(request)
            && !is_emergency_register(request)
            && !self.sip.is_known(request)
            && !self.admission.admits(ctx.now, &self.config.overload)
    }

    fn is_scanner(&self, request: &Message) -> bool {
        let agents = &self.config.sources.scanner_agents;
        let Some(said) = request.text(Name::UserAgent).filter(|_| !agents.is_empty()) else { return false };
        let said = said.to_ascii_lowercase();
        agents.iter().any(|agent| said.contains(&agent.to_ascii_lowercase()))
    }

    /// Something that a scanner, or a phone at fault, does: too often, and its source is banned. A datagram proves
    /// nothing about who sent it: that of a handset with an SA set in use is not banned for it.
    pub(crate) fn blame(&mut self, flow: Flow, cause: &'static str, ctx: &mut Ctx<'_>) {
        if self.is_proven(flow) && self.sources.failed(flow.remote.ip(), cause, ctx.now, &self.config.sources) {
            self.tell_ban(flow.remote.ip(), cause);
            close(flow, ctx);
        }
    }

    fn shut_out(&mut self, flow: Flow, cause: &'static str, ctx: &mut Ctx<'_>) {
        if self.is_proven(flow) && self.sources.ban(flow.remote.ip(), cause, ctx.now, &self.config.sources) {
            self.tell_ban(flow.remote.ip(), cause);
        }
        close(flow, ctx);
    }

    fn is_proven(&self, flow: Flow) -> bool {
        flow.transport == Transport::Tcp
            || self.config.is_protected(flow.local)
            || !self.sets.is_in_use_at(flow.remote.ip())
    }

    fn tell_ban(&self, source: IpAddr, cause: &'static str) {
        let seconds = self.config.sources.ban_time.0.as_secs();
        warn!(%source, cause, seconds, "banned: see imsbox bans; sources.never_ban keeps a network from it");
    }

    /// A refusal of ours that counts against the source of the request.
    pub(crate) fn blame_for(&mut self, flow: Flow, refusal: &Refusal, ctx: &mut Ctx<'_>) {
        let is_blamed =
            matches!(refusal, Refusal::Malformed(_) | Refusal::RegisterFirst { .. } | Refusal::DomainNotServed(_));
        if is_blamed && self.config.is_clear(flow.local) {
            self.blame(flow, refusal.name(), ctx);
        }
    }

    /// A final no from the core to a REGISTER: an unknown user, or an authentication that failed.
    pub(crate) fn blame_for_status(&mut self, flow: Flow, request: &Message, status: u16, ctx: &mut Ctx<'_>) {
        if matches!(status, 403 | 404) {
            let tried = auth_params::credential(request, "response").is_some_and(|r| !r.is_empty());
            self.blame(flow, if tried { "authentication" } else { "unknown-user" }, ctx);
        }
    }

    pub(crate) fn bans(&self) -> Value {
        json!({ "bans": self.sources.list(self.now, &self.config.sources) })
    }

    pub(crate) fn lift_ban(&mut self, args: &Value) -> Result<Value, Problem> {
        let text = args.get("source").and_then(Value::as_str).unwrap_or_default();
        let address = text.split_once('/').map_or(text, |(address, _)| address);
        let ip: IpAddr = address.parse().map_err(|_| Problem::invalid("source", "write the address that is banned"))?;
        if !self.sources.lift(ip, &self.config.sources) {
            return Err(Problem::not_found(format!("{ip} is not banned")));
        }
        info!(source = %ip, "ban lifted by the operator");
        Ok(Value::Null)
    }
}

fn close(flow: Flow, ctx: &mut Ctx<'_>) {
    flow.conn.into_iter().for_each(|conn| ctx.act(Action::CloseFlow(conn)));
}

fn is_new_registration(request: &Message) -> bool {
    request.method() == Method::Register
        && Wanted::read(request).map_or(true, |wanted| begins_something(request, &wanted))
}

/// Whether a REGISTER in clear begins something: it answers no challenge, refreshes nothing, and does not leave.
pub(crate) fn begins_something(register: &Message, wanted: &Wanted) -> bool {
    !wanted.leaves() && auth_params::credential(register, "nonce").is_none_or(|nonce| nonce.is_empty())
}
