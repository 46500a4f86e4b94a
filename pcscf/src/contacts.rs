//! Who is registered through this P-CSCF. One [`Registration`] stands for one UE and owns everything that lives as
//! long as it: SA sets, contact, Service-Route, identities, the token in Path (TS 24.229 5.2.2.1). Nothing in it has
//! a clock of its own: the node asks when it ends.

use crate::sa::SetId;
use ims_core::hash::{Lookup, give_back};
use ims_core::uri::Uri;
use ims_core::{ConnId, FewMap, FewSet, Flow, Impi, Impu, Time, Transport};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct RegId(pub(crate) u64);

/// One UE: authenticated, or about to be.
#[derive(Clone, Debug)]
pub(crate) struct Registration {
    pub(crate) impi: Impi,
    /// Names this registration in Path: requests for the UE come back with it.
    pub(crate) token: Arc<str>,
    /// The address of the UE, by which its packets come.
    pub(crate) ue: IpAddr,
    pub(crate) access: Access,
    /// By the public identity of the REGISTER (To). Mostly one.
    pub(crate) bindings: FewMap<Impu, Binding>,
    /// What is kept of it across restarts, as a digest; None: nothing.
    pub(crate) kept: Option<u64>,
}

/// How the UE is reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    /// Over IPsec, and in no other way. The newest set is the last; transport and connection are those of the last
    /// REGISTER.
    Protected { sets: FewSet<SetId>, transport: Transport, conn: Option<ConnId> },
    /// Without protection, where the policy allows it: the flow of the last REGISTER.
    Clear { flow: Flow },
}

/// What the S-CSCF granted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Binding {
    /// The URI of the contact, as the UE wrote it.
    pub(crate) contact: Box<str>,
    /// `reg-id` of the contact (RFC 5626), when it has one.
    pub(crate) reg_id: Option<Box<str>>,
    /// Service-Route, whole and in order: the route of the UE's requests.
    pub(crate) service_route: Arc<[Box<str>]>,
    /// P-Associated-URI in order: the first is the default identity.
    pub(crate) associated: Box<[Box<str>]>,
    pub(crate) expires: Time,
}

impl Registration {
    /// One that is about to be.
    pub(crate) fn attempt(impi: Impi, token: Arc<str>, ue: IpAddr, access: Access) -> Self {
        Self { impi, token, ue, access, bindings: FewMap::default(), kept: None }
    }

    pub(crate) fn is_registered(&self) -> bool {
        !self.bindings.is_empty()
    }

    pub(crate) fn sets(&self) -> impl DoubleEndedIterator<Item = SetId> + use<'_> {
        let sets = match &self.access {
            Access::Protected { sets, .. } => Some(sets),
            Access::Clear { .. } => None,
        };
        sets.into_iter().flatten().copied()
    }

    pub(crate) fn is_protected(&self) -> bool {
        matches!(self.access, Access::Protected { .. })
    }

    pub(crate) fn transport(&self) -> Transport {
        match &self.access {
            Access::Protected { transport, .. } => *transport,
            Access::Clear { flow } => flow.transport,
        }
    }

    /// Where packets of an unprotected UE come from.
    fn clear_remote(&self) -> Option<SocketAddr> {
        match &self.access {
            Access::Clear { flow } => Some(flow.remote),
            Access::Protected { .. } => None,
        }
    }

    /// Where an unprotected UE takes connections, when its own is gone: at its contact, if that is at the address that it
    /// registered from (RFC 3261 18.2.2; a contact elsewhere is behind a NAT, or somebody else's).
    pub(crate) fn listens_at(&self) -> Option<SocketAddr> {
        let uris = self.bindings.values().filter_map(|b| Uri::parse(&b.contact).ok());
        let mut at = uris.filter(|uri| uri.host_ip() == Some(self.ue));
        at.next().map(|uri| SocketAddr::new(self.ue, uri.port().unwrap_or(5060)))
    }

    /// Whether a new registration of the same private identity takes the place of this one: at the same address it is the
    /// same UE; elsewhere the S-CSCF decides (TS 24.229 5.4.1.2.2F), whose 200 names the contacts that are `still_bound`.
    pub(crate) fn gives_way_to(&self, ue: IpAddr, still_bound: impl Fn(&str) -> bool) -> bool {
        self.ue == ue || !self.bindings.values().any(|b| still_bound(&b.contact))
    }
}

/// All registrations of this P-CSCF. Sets are found in `sa::SaTable`, which names the registration.
#[derive(Debug, Default)]
pub(crate) struct Contacts {
    /// Boxed, because half of a map's room is empty.
    registrations: BTreeMap<RegId, Box<Registration>>,
    by_token: Lookup<Arc<str>, RegId>,
    by_impi: Lookup<Impi, FewSet<RegId>>,
    /// Unprotected UEs by where their packets come from.
    by_clear_remote: BTreeMap<SocketAddr, FewSet<RegId>>,
    /// Protected UEs by the connection of their last REGISTER.
    by_conn: BTreeMap<ConnId, RegId>,
    /// Where the connections of unprotected UEs come from.
    clear_conns: BTreeMap<ConnId, SocketAddr>,
    /// Those that never had a binding, by the address of the UE.
    attempts: BTreeMap<IpAddr, BTreeSet<RegId>>,
    /// Of the last binding: that of all who are served by one S-CSCF. They share it.
    service_route: Arc<[Box<str>]>,
    next_id: u64,
    /// Those that the current event may have changed, and those of which something is kept and that are gone.
    changed: BTreeSet<RegId>,
    gone: Vec<RegId>,
    /// Registrations that ended, whose sessions have to end.
    ended: Vec<RegId>,
}

impl Contacts {
    pub(crate) fn insert(&mut self, registration: Registration) -> RegId {
        self.next_id += 1;
        let id = RegId(self.next_id);
        self.attempts.entry(registration.ue).or_default().insert(id);
        self.put(id, registration);
        id
    }

    /// One of an earlier run, under the number that it had.
    pub(crate) fn insert_registered(&mut self, id: RegId, registration: Registration) {
        self.next_id = self.next_id.max(id.0);
        self.put(id, registration);
    }

    fn put(&mut self, id: RegId, mut registration: Registration) {
        registration.bindings.values_mut().for_each(|binding| share(&mut self.service_route, binding));
        self.by_token.insert(registration.token.clone(), id);
        self.by_impi.entry(registration.impi.clone()).or_default().insert(id);
        if let Some(remote) = registration.clear_remote() {
            self.by_clear_remote.entry(remote).or_default().insert(id);
        }
        if let Access::Clear { flow: Flow { conn: Some(conn), remote, .. } } = registration.access {
            self.clear_conns.insert(conn, remote);
        }
        self.registrations.insert(id, Box::new(registration));
    }

    pub(crate) fn remove(&mut self, id: RegId) -> Option<Registration> {
        let gone = self.registrations.remove(&id)?;
        self.ended.push(id);
        if gone.kept.is_some() {
            self.gone.push(id);
        }
        self.by_token.remove(&gone.token);
        give_back(&mut self.by_token);
        if let Some(ids) = self.by_impi.get_mut(&gone.impi) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_impi.remove(&gone.impi);
                give_back(&mut self.by_impi);
            }
        }
        self.no_attempt(gone.ue, id);
        match &gone.access {
            Access::Clear { flow } => take_out(&mut self.by_clear_remote, &flow.remote, id),
            Access::Protected { conn: Some(conn), .. } => drop(self.by_conn.remove(conn)),
            Access::Protected { .. } => {}
        }
        Some(*gone)
    }

    /// What the S-CSCF granted to this UE: it is no mere attempt any more.
    pub(crate) fn bind(&mut self, id: RegId, impu: Impu, mut binding: Binding) -> Option<&Registration> {
        let ue = self.by_id(id)?.ue;
        self.no_attempt(ue, id);
        let registration = self.registrations.get_mut(&id)?;
        self.changed.insert(id);
        share(&mut self.service_route, &mut binding);
        registration.bindings.insert(impu, binding);
        Some(registration)
    }

    fn no_attempt(&mut self, ue: IpAddr, id: RegId) {
        if let Some(ids) = self.attempts.get_mut(&ue) {
            ids.remove(&id);
            if ids.is_empty() {
                self.attempts.remove(&ue);
            }
        }
    }

    /// How many UEs at this address are about to be registered.
    pub(crate) fn attempts_from(&self, ue: IpAddr) -> usize {
        self.attempts.get(&ue).map_or(0, BTreeSet::len)
    }

    /// A REGISTER of this UE came by `from`: answers and requests to it take the same transport and connection.
    pub(crate) fn heard(&mut self, id: RegId, from: Flow) {
        let Some(registration) = self.registrations.get_mut(&id) else {
            return;
        };
        if let (Some(conn), Access::Clear { .. }) = (from.conn, &registration.access) {
            self.clear_conns.insert(conn, from.remote);
        }
        match &mut registration.access {
            Access::Clear { flow } if flow.remote == from.remote => *flow = from,
            Access::Clear { flow } => {
                take_out(&mut self.by_clear_remote, &flow.remote, id);
                *flow = from;
                self.by_clear_remote.entry(from.remote).or_default().insert(id);
            }
            Access::Protected { transport, conn, .. } => {
                if let Some(old) = conn.take() {
                    self.by_conn.remove(&old);
                }
                (*transport, *conn) = (from.transport, from.conn);
                if let Some(new) = from.conn {
                    self.by_conn.insert(new, id);
                }
            }
        }
    }

    /// The next request to the UE has to open a connection of its own.
    pub(crate) fn closed(&mut self, gone: ConnId) {
        if let Some(remote) = self.clear_conns.remove(&gone) {
            let ids: Vec<RegId> = self.by_clear_remote(remote).collect();
            for id in ids {
                if let Some(Access::Clear { flow }) = self.registrations.get_mut(&id).map(|r| &mut r.access) {
                    flow.conn = flow.conn.filter(|conn| *conn != gone);
                }
            }
        }
        let Some(id) = self.by_conn.remove(&gone) else { return };
        if let Some(Access::Protected { conn, .. }) = self.registrations.get_mut(&id).map(|r| &mut r.access) {
            *conn = None;
        }
    }

    pub(crate) fn by_id(&self, id: RegId) -> Option<&Registration> {
        self.registrations.get(&id).map(|r| &**r)
    }

    /// For a change.
    pub(crate) fn by_id_mut(&mut self, id: RegId) -> Option<&mut Registration> {
        self.changed.insert(id);
        self.registrations.get_mut(&id).map(|r| &mut **r)
    }

    /// A set is no more. What is kept says itself when a retiring one ends, so that is no change.
    pub(crate) fn drop_set(&mut self, id: RegId, set: SetId, was_retiring: bool) {
        if let Some(Access::Protected { sets, .. }) = self.registrations.get_mut(&id).map(|r| &mut r.access) {
            sets.remove(&set);
        }
        if !was_retiring {
            self.changed.insert(id);
        }
    }

    /// What may have changed since this was asked last, and what is gone.
    pub(crate) fn changes(&mut self) -> (BTreeSet<RegId>, Vec<RegId>) {
        (std::mem::take(&mut self.changed), std::mem::take(&mut self.gone))
    }

    pub(crate) fn note_kept(&mut self, id: RegId, digest: Option<u64>) {
        if let Some(registration) = self.registrations.get_mut(&id) {
            registration.kept = digest;
        }
    }

    /// No binding of it is left, though SA sets may linger.
    pub(crate) fn end(&mut self, id: RegId) {
        self.ended.push(id);
    }

    /// What ended since this was asked last.
    pub(crate) fn take_ended(&mut self) -> Vec<RegId> {
        std::mem::take(&mut self.ended)
    }

    pub(crate) fn registered(&self) -> usize {
        self.registrations.values().filter(|r| r.is_registered()).count()
    }

    pub(crate) fn by_token(&self, token: &str) -> Option<RegId> {
        self.by_token.get(token).copied()
    }

    /// Unprotected registrations from an address and port.
    pub(crate) fn by_clear_remote(&self, remote: SocketAddr) -> impl Iterator<Item = RegId> {
        self.by_clear_remote.get(&remote).into_iter().flatten().copied()
    }

    /// Those without protection at an address, at whatever port.
    pub(crate) fn in_clear_at(&self, ue: IpAddr) -> impl Iterator<Item = RegId> {
        let ports = SocketAddr::new(ue, 0)..=SocketAddr::new(ue, u16::MAX);
        self.by_clear_remote.range(ports).flat_map(|(_, ids)| ids).copied()
    }

    pub(crate) fn of_impi(&self, impi: &Impi) -> impl Iterator<Item = (RegId, &Registration)> {
        self.by_impi.get(impi).into_iter().flatten().filter_map(|id| Some((*id, self.by_id(*id)?)))
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (RegId, &Registration)> {
        self.registrations.iter().map(|(id, r)| (*id, &**r))
    }

    pub(crate) fn len(&self) -> usize {
        self.registrations.len()
    }
}

fn share(known: &mut Arc<[Box<str>]>, binding: &mut Binding) {
    match binding.service_route == *known {
        true => binding.service_route.clone_from(known),
        false => known.clone_from(&binding.service_route),
    }
}

fn take_out(index: &mut BTreeMap<SocketAddr, FewSet<RegId>>, key: &SocketAddr, id: RegId) {
    if let Some(ids) = index.get_mut(key) {
        ids.remove(&id);
        if ids.is_empty() {
            index.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clear(port: u16) -> Registration {
        let remote = SocketAddr::from(([192, 0, 2, 7], port));
        let access = Access::Clear { flow: Flow::tcp("192.0.2.1:5060".parse().unwrap(), remote) };
        Registration::attempt(Impi::parse("a@b").unwrap(), format!("t{port}").into(), remote.ip(), access)
    }

    fn bind(r: &mut Registration, reg_id: Option<&str>) {
        let binding = Binding {
            contact: "sip:a@192.0.2.7".into(),
            reg_id: reg_id.map(Into::into),
            service_route: Arc::from([]),
            associated: Box::default(),
            expires: Time::from_secs(5),
        };
        r.bindings.insert(Impu::parse("sip:a@b").unwrap(), binding);
    }

    #[test]
    fn found_by_token_identity_and_remote_until_removed() {
        let mut c = Contacts::default();
        let id = c.insert(clear(4000));
        let other = c.insert(clear(4001));
        assert_eq!(c.by_token("t4000"), Some(id));
        assert_eq!(c.attempts_from("192.0.2.7".parse().unwrap()), 2);
        assert_eq!(c.of_impi(&Impi::parse("a@b").unwrap()).count(), 2);
        let moved = Flow::tcp("192.0.2.1:5060".parse().unwrap(), "192.0.2.7:4001".parse().unwrap());
        c.heard(id, moved);
        assert_eq!(c.by_clear_remote(moved.remote).collect::<Vec<_>>(), [id, other]);
        c.remove(id);
        c.remove(other);
        assert!(c.attempts.is_empty());
        assert!(c.len() == 0 && c.by_token.is_empty() && c.by_impi.is_empty() && c.by_clear_remote.is_empty());
    }

    #[test]
    fn an_unprotected_ue_whose_connection_closed_takes_another_at_its_contact() {
        let mut c = Contacts::default();
        let id = c.insert(clear(4000));
        let flow = Flow {
            conn: Some(ConnId(9)),
            ..Flow::tcp("192.0.2.1:5060".parse().unwrap(), "192.0.2.7:4000".parse().unwrap())
        };
        c.heard(id, flow);
        c.closed(ConnId(8));
        assert_eq!(c.by_id(id).unwrap().access, Access::Clear { flow });
        c.closed(ConnId(9));
        assert_eq!(c.by_id(id).unwrap().access, Access::Clear { flow: Flow { conn: None, ..flow } });
        assert!(c.clear_conns.is_empty());
        let listens_at = |contact: &str| {
            let mut ue = clear(4000);
            bind(&mut ue, None);
            ue.bindings.values_mut().for_each(|b| b.contact = contact.into());
            ue.listens_at()
        };
        assert_eq!(listens_at("sip:a@192.0.2.7:5070;transport=tcp"), Some("192.0.2.7:5070".parse().unwrap()));
        assert_eq!(listens_at("sip:a@192.0.2.7"), Some("192.0.2.7:5060".parse().unwrap()));
        assert_eq!(listens_at("sip:a@10.0.0.7:5070"), None, "behind a NAT");
    }

    #[test]
    fn only_what_the_s_cscf_still_has_at_another_address_stays() {
        let elsewhere = "192.0.2.99".parse().unwrap();
        let mut old = clear(1);
        bind(&mut old, Some("1"));
        assert!(old.gives_way_to(old.ue, |_| true), "the same address");
        assert!(old.gives_way_to(elsewhere, |_| false));
        assert!(!old.gives_way_to(elsewhere, |contact| contact == "sip:a@192.0.2.7"));
    }
}
