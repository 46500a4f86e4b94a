//! What outlasts this process: each registration with the numbers of its SA sets, and no key. The kernel keeps the keys; a
//! set that it has no more cannot be made again, and its UE registers anew.
//!
//! Written ahead of the answer that it belongs to, and only when something has changed. A set that retires is not written
//! off when it goes: it carries its own end.

use crate::config::Policy;
use crate::contacts::{Access, Binding, RegId, Registration};
use crate::sa::{HeldSet, SaTable, State};
use crate::watch::Usage;
use crate::{Pcscf, Timer};
use bytes::Bytes;
use ims_core::pack::{Damaged, Reader, Writer};
use ims_core::sa::{AuthAlg, EncAlg, SaSet, Suite};
use ims_core::{Action, Ctx, FewSet, Flow, Impi, Impu, Kept, Time, Transport};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use tracing::{info, warn};

/// Of the bytes below. Another one is not read.
const VERSION: u8 = 1;
/// Before the number of the registration, in a key.
const PREFIX: &str = "registration/";

/// What came back, for the log.
#[derive(Debug, Default)]
pub(crate) struct Restored {
    pub(crate) registrations: usize,
    pub(crate) dropped: usize,
}

/// Why an entry is not taken up again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Unfit {
    Damaged,
    /// It ended while we were away.
    Expired,
    /// The configuration has no room for it any more: another address, other ports, another policy.
    Changed,
}

impl Unfit {
    fn name(self) -> &'static str {
        match self {
            Self::Damaged => "kept-damaged",
            Self::Expired => "kept-expired",
            Self::Changed => "kept-not-configured",
        }
    }
}

impl From<Damaged> for Unfit {
    fn from(_: Damaged) -> Self {
        Self::Damaged
    }
}

/// One entry, read.
struct Entry {
    registration: Registration,
    sets: Vec<(SaSet, State, Time)>,
}

fn key(id: RegId) -> String {
    format!("{PREFIX}{:x}", id.0)
}

fn id_of(key: &str) -> Option<RegId> {
    u64::from_str_radix(key.strip_prefix(PREFIX)?, 16).ok().map(RegId)
}

fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

impl Pcscf {
    /// What the last event changed. None of it says anything to anybody before it is written.
    pub(crate) fn changes_to_keep(&mut self) -> Vec<Action> {
        let (changed, gone) = self.contacts.changes();
        if !self.config.keep_registrations {
            return Vec::new();
        }
        let mut actions: Vec<Action> = gone.into_iter().map(|id| Action::Delete { key: key(id) }).collect();
        for id in changed {
            let Some(registration) = self.contacts.by_id(id) else { continue };
            let value = registration.is_registered().then(|| write(registration, &self.sets));
            let new = value.as_deref().map(digest);
            if new == registration.kept {
                continue;
            }
            self.contacts.note_kept(id, new);
            actions.push(match value {
                Some(value) => Action::Put(Kept { key: key(id), value }),
                None => Action::Delete { key: key(id) },
            });
        }
        actions
    }

    /// Of an earlier run. Whether the kernel still has the sets, the first audit says.
    pub(crate) fn on_restored(&mut self, kept: Vec<Kept>, ctx: &mut Ctx<'_>) {
        for Kept { key, value } in kept {
            let result = match (self.config.keep_registrations, id_of(&key)) {
                (false, _) => Err(Unfit::Changed),
                (true, None) => Err(Unfit::Damaged),
                (true, Some(id)) => read(&value).map_err(Unfit::from).and_then(|entry| {
                    let written = digest(&value);
                    self.take_up(id, entry, written, ctx.now)
                }),
            };
            match result {
                Ok(()) => self.restored.registrations += 1,
                Err(unfit) => {
                    self.count(unfit.name());
                    self.restored.dropped += usize::from(unfit != Unfit::Expired);
                    ctx.act(Action::Delete { key });
                }
            }
        }
    }

    /// Before anything else happens.
    pub(crate) fn announce_restored(&mut self) {
        let Restored { registrations, dropped } = std::mem::take(&mut self.restored);
        if registrations > 0 {
            info!(registrations, "registrations of before are taken up again");
        }
        if dropped > 0 {
            warn!(
                dropped,
                "kept registrations are not taken up (see kept-* in the status): their handsets have to register again"
            );
        }
    }

    fn take_up(&mut self, id: RegId, entry: Entry, written: u64, now: Time) -> Result<(), Unfit> {
        let Entry { mut registration, sets } = entry;
        self.adopted &= sets.is_empty();
        registration.bindings.retain(|_, b| b.expires > now);
        let sets: Vec<_> = sets.into_iter().filter(|(.., until)| *until > now).collect();
        let Some(next) = registration.bindings.values().map(|b| b.expires).min() else {
            return Err(Unfit::Expired);
        };
        if registration.is_protected() && !sets.iter().any(|(_, state, _)| *state == State::Active) {
            return Err(Unfit::Expired);
        }
        if !self.is_configured(&registration, &sets) {
            return Err(Unfit::Changed);
        }
        // One entry cannot contradict another: each was true when it was written.
        let doubled = sets.iter().any(|(set, ..)| !self.sets.in_the_way(set).is_empty());
        if doubled || self.contacts.by_id(id).is_some() || self.contacts.by_token(&registration.token).is_some() {
            return Err(Unfit::Damaged);
        }
        registration.kept = Some(written);
        let impi = registration.impi.clone();
        let mut ids = FewSet::default();
        for (set, state, until) in sets {
            let held = HeldSet {
                set,
                registration: id,
                impi: impi.clone(),
                state,
                until,
                client: Vec::new(),
                nonce: String::new(),
                usage: Usage::default(),
            };
            let set = self.sets.insert(held);
            self.timers.set(Timer::Set(set), until);
            ids.insert(set);
        }
        if let Access::Protected { sets, .. } = &mut registration.access {
            *sets = ids;
        }
        self.contacts.insert_registered(id, registration);
        self.timers.set(Timer::Registration(id), next);
        Ok(())
    }

    fn is_configured(&self, registration: &Registration, sets: &[(SaSet, State, Time)]) -> bool {
        let ours = |ip, port| self.config.is_protected(SocketAddr::new(ip, port));
        match &registration.access {
            Access::Protected { .. } => sets
                .iter()
                .all(|(s, ..)| s.port_ps == self.ports.server && ours(s.pcscf, s.port_ps) && ours(s.pcscf, s.port_pc)),
            Access::Clear { flow } => {
                self.config.is_clear(flow.local)
                    && self.config.security.policy_for(&registration.impi) != Policy::Require
            }
        }
    }
}

fn write(registration: &Registration, table: &SaTable) -> Bytes {
    let mut w = Writer::new(VERSION);
    w.text(registration.impi.as_str());
    w.text(&registration.token);
    w.ip(registration.ue);
    match &registration.access {
        Access::Protected { sets, transport, .. } => {
            w.u8(1);
            write_transport(&mut w, *transport);
            let lasting = |held: &&HeldSet| matches!(held.state, State::Active | State::Retiring);
            let sets: Vec<&HeldSet> = sets.iter().filter_map(|id| table.by_id(*id)).filter(lasting).collect();
            w.count(sets.len());
            sets.into_iter().for_each(|held| write_set(&mut w, held));
        }
        Access::Clear { flow } => {
            w.u8(0);
            write_transport(&mut w, flow.transport);
            w.addr(flow.local);
            w.addr(flow.remote);
        }
    }
    w.count(registration.bindings.len());
    for (impu, binding) in &registration.bindings {
        w.text(impu.as_str());
        w.text(&binding.contact);
        w.maybe(binding.reg_id.as_deref());
        w.texts(&binding.service_route);
        w.texts(&binding.associated);
        w.time(binding.expires);
    }
    w.finish()
}

fn write_transport(w: &mut Writer, transport: Transport) {
    w.u8(u8::from(transport == Transport::Tcp));
}

fn write_set(w: &mut Writer, held: &HeldSet) {
    let s = &held.set;
    w.u8(u8::from(held.state == State::Active));
    w.time(held.until);
    w.ip(s.ue);
    w.ip(s.pcscf);
    [s.spi_uc, s.spi_us, s.spi_pc, s.spi_ps].into_iter().for_each(|spi| w.u32(spi));
    [s.port_uc, s.port_us, s.port_pc, s.port_ps].into_iter().for_each(|port| w.u16(port));
    w.text(s.suite.alg.token());
    w.text(s.suite.ealg.token());
}

fn read(bytes: &[u8]) -> Result<Entry, Damaged> {
    let mut r = Reader::new(bytes, VERSION)?;
    let impi = Impi::parse(r.text()?).map_err(|_| Damaged)?;
    let token = r.text()?.into();
    let ue = r.ip()?;
    let (access, sets) = match r.u8()? {
        1 => {
            let transport = read_transport(&mut r)?;
            let sets = r.list(read_set)?;
            (Access::Protected { sets: FewSet::default(), transport, conn: None }, sets)
        }
        0 => {
            let transport = read_transport(&mut r)?;
            let flow = Flow { transport, local: r.addr()?, remote: r.addr()?, conn: None };
            (Access::Clear { flow }, Vec::new())
        }
        _ => return Err(Damaged),
    };
    let bindings = r.list(read_binding)?.into_iter().collect();
    r.end()?;
    Ok(Entry { registration: Registration { impi, token, ue, access, bindings, kept: None }, sets })
}

fn read_transport(r: &mut Reader<'_>) -> Result<Transport, Damaged> {
    match r.u8()? {
        0 => Ok(Transport::Udp),
        1 => Ok(Transport::Tcp),
        _ => Err(Damaged),
    }
}

fn read_set(r: &mut Reader<'_>) -> Result<(SaSet, State, Time), Damaged> {
    let state = match r.u8()? {
        0 => State::Retiring,
        1 => State::Active,
        _ => return Err(Damaged),
    };
    let until = r.time()?;
    let (ue, pcscf) = (r.ip()?, r.ip()?);
    let [spi_uc, spi_us, spi_pc, spi_ps] = [r.u32()?, r.u32()?, r.u32()?, r.u32()?];
    let [port_uc, port_us, port_pc, port_ps] = [r.u16()?, r.u16()?, r.u16()?, r.u16()?];
    let alg = AuthAlg::from_token(r.text()?).ok_or(Damaged)?;
    let ealg = EncAlg::from_token(r.text()?).ok_or(Damaged)?;
    let suite = Suite { alg, ealg };
    Ok((SaSet { ue, pcscf, spi_uc, spi_us, spi_pc, spi_ps, port_uc, port_us, port_pc, port_ps, suite }, state, until))
}

fn read_binding(r: &mut Reader<'_>) -> Result<(Impu, Binding), Damaged> {
    let impu = Impu::parse(r.text()?).map_err(|_| Damaged)?;
    let binding = Binding {
        contact: r.text()?.into(),
        reg_id: r.maybe()?.map(Box::from),
        service_route: r.texts()?.into(),
        associated: r.texts()?.into(),
        expires: r.time()?,
    };
    Ok((impu, binding))
}
