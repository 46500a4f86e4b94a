//! Sets of security associations: SPIs and ports allocated, proposed with a challenge, confirmed by a registration,
//! retired when no longer needed (TS 33.203 7.1, 7.2, 7.4).
//!
//! ```text
//! Installing --kernel says yes--> Proposed --200 over it--> Active --a newer set is active, de-registered--> Retiring
//!     |                              |                         |                                                |
//!     +--kernel says no              +--reg-await-auth, newer  +--lifetime, kernel                              +--64*T1
//!     v                              v  proposal, 403          v                                                v
//!    gone                           gone                      gone                                             gone
//! ```

use crate::contacts::RegId;
use crate::sec_agree::{Mechanism, Offer};
use crate::watch::Usage;
use ims_core::sa::SaSet;
use ims_core::{Flow, Impi, Rng, Time, Transport};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

/// Six SAs per direction and private identity (TS 33.203 7.2), two of them in each set.
pub(crate) const MOST_SETS_PER_IMPI: usize = 3;

/// Rises with every set that is made: the newer of two has the larger one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct SetId(pub(crate) u64);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// The kernel has not answered yet; the UE has heard nothing of it.
    Installing,
    /// The challenge has left; `used`: the UE has sent something over it.
    Proposed { used: bool },
    /// A registration was accepted over it.
    Active,
    /// Only carries what is still under way.
    Retiring,
}

impl State {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Installing => "installing",
            Self::Proposed { .. } => "proposed",
            Self::Active => "active",
            Self::Retiring => "retiring",
        }
    }
}

/// One set and what goes with it.
#[derive(Clone, Debug)]
pub(crate) struct HeldSet {
    pub(crate) set: SaSet,
    pub(crate) registration: RegId,
    pub(crate) impi: Impi,
    pub(crate) state: State,
    /// When it goes, unless something happens before.
    pub(crate) until: Time,
    /// Security-Client of the challenged REGISTER, sorted.
    pub(crate) client: Vec<Mechanism>,
    /// Of the challenge that it was made from.
    pub(crate) nonce: String,
    pub(crate) usage: Usage,
}

impl HeldSet {
    /// The flow of our requests to the UE, and of our answers over UDP: port_pc to port_us.
    pub(crate) fn outward(&self, transport: Transport) -> Flow {
        let local = SocketAddr::new(self.set.pcscf, self.set.port_pc);
        let remote = SocketAddr::new(self.set.ue, self.set.port_us);
        Flow { transport, local, remote, conn: None }
    }

    /// Where the answers to a request leave: over the connection it came by, or else from port_pc to port_us.
    pub(crate) fn answer(&self, request: Flow) -> Flow {
        match (request.transport, request.conn) {
            (Transport::Tcp, Some(_)) => request,
            (transport, _) => self.outward(transport),
        }
    }

    /// Via sent-by and Contact always name the protected server port: the UE connects to no other.
    pub(crate) fn sent_by(&self) -> String {
        format!("{}:{}", ims_core::uri::host_of(self.set.pcscf), self.set.port_ps)
    }

    /// The two ways in: uc to ps, and the UE's end of connections that we opened, us to pc. (remote, local).
    fn ways_in(&self) -> [(SocketAddr, SocketAddr); 2] {
        let [uc_ps, _, _, us_pc] = self.set.legs();
        [(uc_ps.src, uc_ps.dst), (us_pc.src, us_pc.dst)]
    }

    /// For the operator: no keys, and none are known here.
    pub(crate) fn describe(&self, now: Time) -> Value {
        let (s, counted) = (&self.set, self.usage.counted);
        json!({
            "suite": format!("{}/{}", s.suite.alg.token(), s.suite.ealg.token()),
            "state": self.state.name(),
            "expires_in_s": self.until.since(now).as_secs(),
            "spi_uc": s.spi_uc, "spi_us": s.spi_us, "spi_pc": s.spi_pc, "spi_ps": s.spi_ps,
            "port_uc": s.port_uc, "port_us": s.port_us, "port_pc": s.port_pc, "port_ps": s.port_ps,
            "heard_s_ago": self.usage.heard.map(|at| now.since(at).as_secs()),
            "packets_in": counted.map(|(inward, _)| inward.packets),
            "bytes_in": counted.map(|(inward, _)| inward.bytes),
            "packets_out": counted.map(|(_, outward)| outward.packets),
            "bytes_out": counted.map(|(_, outward)| outward.bytes),
        })
    }

    fn spis(&self) -> [(IpAddr, u32); 4] {
        self.set.legs().map(|leg| (leg.dst.ip(), leg.spi))
    }
}

/// All sets of this P-CSCF.
#[derive(Debug, Default)]
pub(crate) struct SaTable {
    sets: BTreeMap<SetId, HeldSet>,
    by_way_in: BTreeMap<(SocketAddr, SocketAddr), SetId>,
    by_spi: BTreeMap<(IpAddr, u32), SetId>,
    by_impi: BTreeMap<Impi, BTreeSet<SetId>>,
    /// By (UE address, a protected port of it).
    by_ue_port: BTreeMap<SocketAddr, BTreeSet<SetId>>,
    next_id: u64,
    next_port: usize,
}

/// The protected ports of ours.
#[derive(Clone, Debug)]
pub(crate) struct Ports {
    pub(crate) server: u16,
    pub(crate) client: RangeInclusive<u16>,
}

impl SaTable {
    /// Our half of a new set: fresh SPIs, and a client port that no other set has towards this UE port. None: no port
    /// is free.
    pub(crate) fn allocate(
        &mut self,
        offer: &Offer,
        ue: IpAddr,
        pcscf: IpAddr,
        ports: &Ports,
        rng: &mut Rng,
    ) -> Option<SaSet> {
        let us = SocketAddr::new(ue, offer.port_us);
        let count = ports.client.len();
        let free = |port: &u16| !self.by_way_in.contains_key(&(us, SocketAddr::new(pcscf, *port)));
        let turn = self.next_port % count.max(1);
        let port_pc = ports.client.clone().cycle_from(turn).find(free)?;
        self.next_port = self.next_port.wrapping_add(1);
        let spi_pc = self.fresh_spi(pcscf, 0, rng);
        let spi_ps = self.fresh_spi(pcscf, spi_pc, rng);
        Some(SaSet {
            ue,
            pcscf,
            spi_uc: offer.spi_uc,
            spi_us: offer.spi_us,
            spi_pc,
            spi_ps,
            port_uc: offer.port_uc,
            port_us: offer.port_us,
            port_pc,
            port_ps: ports.server,
            suite: offer.suite,
        })
    }

    fn fresh_spi(&self, pcscf: IpAddr, other: u32, rng: &mut Rng) -> u32 {
        loop {
            let spi = rng.u32();
            if spi >= 0x1000 && spi != other && !self.by_spi.contains_key(&(pcscf, spi)) {
                return spi;
            }
        }
    }

    /// Sets that cannot stand beside this one: the same UE ports towards the same port of ours, or the same SPI at
    /// the same address.
    pub(crate) fn in_the_way(&self, set: &SaSet) -> BTreeSet<SetId> {
        let legs = set.legs();
        let ways = [(legs[0].src, legs[0].dst), (legs[3].src, legs[3].dst)];
        let by_way = ways.iter().filter_map(|way| self.by_way_in.get(way));
        let by_spi = legs.iter().filter_map(|leg| self.by_spi.get(&(leg.dst.ip(), leg.spi)));
        by_way.chain(by_spi).copied().collect()
    }

    /// Whether this identity has as many as it may have.
    pub(crate) fn is_full(&self, impi: &Impi) -> bool {
        self.by_impi.get(impi).is_some_and(|sets| sets.len() >= MOST_SETS_PER_IMPI)
    }

    /// The set of this identity that may go for one more: a proposal that nobody used, one that somebody did, one that
    /// retires, and of these the oldest. Never `keep`, by which the REGISTER came, and never one that a registration lives
    /// on: whoever asks for a challenge has not shown who he is.
    pub(crate) fn surplus(&self, impi: &Impi, keep: Option<SetId>) -> Option<SetId> {
        let rank = |id: &SetId| match self.sets.get(id)?.state {
            State::Installing | State::Proposed { used: false } => Some(0),
            State::Proposed { used: true } => Some(1),
            State::Retiring => Some(2),
            State::Active => None,
        };
        let sets = self.by_impi.get(impi)?.iter().filter(|id| Some(**id) != keep);
        sets.filter_map(|id| Some((rank(id)?, *id))).min().map(|(_, id)| id)
    }

    pub(crate) fn insert(&mut self, held: HeldSet) -> SetId {
        self.next_id += 1;
        let id = SetId(self.next_id);
        self.put(id, held);
        id
    }

    fn put(&mut self, id: SetId, held: HeldSet) {
        for way in held.ways_in() {
            self.by_way_in.insert(way, id);
        }
        for spi in held.spis() {
            self.by_spi.insert(spi, id);
        }
        for port in [held.set.port_uc, held.set.port_us] {
            self.by_ue_port.entry(SocketAddr::new(held.set.ue, port)).or_default().insert(id);
        }
        self.by_impi.entry(held.impi.clone()).or_default().insert(id);
        self.sets.insert(id, held);
    }

    pub(crate) fn remove(&mut self, id: SetId) -> Option<HeldSet> {
        let held = self.sets.remove(&id)?;
        for way in held.ways_in() {
            self.by_way_in.remove(&way);
        }
        for spi in held.spis() {
            self.by_spi.remove(&spi);
        }
        for port in [held.set.port_uc, held.set.port_us] {
            let at = SocketAddr::new(held.set.ue, port);
            if let Some(sets) = self.by_ue_port.get_mut(&at) {
                sets.remove(&id);
                if sets.is_empty() {
                    self.by_ue_port.remove(&at);
                }
            }
        }
        if let Some(sets) = self.by_impi.get_mut(&held.impi) {
            sets.remove(&id);
            if sets.is_empty() {
                self.by_impi.remove(&held.impi);
            }
        }
        Some(held)
    }

    pub(crate) fn by_id(&self, id: SetId) -> Option<&HeldSet> {
        self.sets.get(&id)
    }

    pub(crate) fn by_id_mut(&mut self, id: SetId) -> Option<&mut HeldSet> {
        self.sets.get_mut(&id)
    }

    /// The set that a packet came by, by its addresses and ports: the kernel let it in for no other reason.
    pub(crate) fn live(&self, remote: SocketAddr, local: SocketAddr) -> Option<SetId> {
        let id = *self.by_way_in.get(&(remote, local))?;
        (self.sets.get(&id)?.state != State::Installing).then_some(id)
    }

    /// The set that an association belongs to, by destination and SPI.
    pub(crate) fn by_spi(&self, dst: IpAddr, spi: u32) -> Option<SetId> {
        self.by_spi.get(&(dst, spi)).copied()
    }

    /// Whether this is a protected port of a UE that has shown to hold its SAs.
    pub(crate) fn is_ue_port(&self, remote: SocketAddr) -> bool {
        let in_use = |id: &SetId| {
            self.sets.get(id).is_some_and(|h| !matches!(h.state, State::Installing | State::Proposed { used: false }))
        };
        self.by_ue_port.get(&remote).is_some_and(|sets| sets.iter().any(in_use))
    }

    /// Whether a UE at this address is registered over SAs.
    pub(crate) fn is_in_use_at(&self, ue: IpAddr) -> bool {
        let ports = SocketAddr::new(ue, 0)..=SocketAddr::new(ue, u16::MAX);
        let in_use = |id: &SetId| self.sets.get(id).is_some_and(|h| h.state == State::Active);
        self.by_ue_port.range(ports).any(|(_, sets)| sets.iter().any(in_use))
    }

    /// Sets of a private identity, oldest first.
    pub(crate) fn of_impi(&self, impi: &Impi) -> impl Iterator<Item = (SetId, &HeldSet)> {
        self.by_impi.get(impi).into_iter().flatten().filter_map(|id| Some((*id, self.sets.get(id)?)))
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (SetId, &HeldSet)> {
        self.sets.iter().map(|(id, held)| (*id, held))
    }

    /// For what is noted of a set; its numbers do not change.
    pub(crate) fn all_mut(&mut self) -> impl Iterator<Item = (SetId, &mut HeldSet)> {
        self.sets.iter_mut().map(|(id, held)| (*id, held))
    }

    pub(crate) fn len(&self) -> usize {
        self.sets.len()
    }

    /// How many there are in each state.
    pub(crate) fn by_state(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::from(["installing", "proposed", "active", "retiring"].map(|name| (name, 0)));
        self.sets.values().for_each(|held| *counts.entry(held.state.name()).or_default() += 1);
        counts
    }
}

/// A range from its n-th member around to the one before.
trait CycleFrom: Iterator<Item = u16> + Clone {
    fn cycle_from(self, n: usize) -> impl Iterator<Item = u16> {
        self.clone().skip(n).chain(self.take(n))
    }
}
impl CycleFrom for RangeInclusive<u16> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SuiteName;

    const PORTS: Ports = Ports { server: 6100, client: 6101..=6104 };

    fn offer(n: u16) -> Offer {
        Offer {
            suite: SuiteName::parse("hmac-sha-1-96/null").unwrap().0,
            spi_uc: 5000 + 2 * u32::from(n),
            spi_us: 5001 + 2 * u32::from(n),
            port_uc: 40_000 + n,
            port_us: 50_000,
        }
    }

    fn held(set: SaSet, state: State) -> HeldSet {
        HeldSet {
            set,
            registration: RegId(1),
            impi: Impi::parse("a@b").unwrap(),
            state,
            until: Time::EPOCH,
            client: Vec::new(),
            nonce: String::new(),
            usage: Usage::default(),
        }
    }

    fn ips(v6: bool) -> (IpAddr, IpAddr) {
        match v6 {
            false => ("192.0.2.7".parse().unwrap(), "192.0.2.1".parse().unwrap()),
            true => ("2001:db8::7".parse().unwrap(), "2001:db8::1".parse().unwrap()),
        }
    }

    #[test]
    fn server_ports_stay_while_client_port_and_spis_change() {
        for v6 in [false, true] {
            let (ue, us) = ips(v6);
            let (mut table, mut rng) = (SaTable::default(), Rng::from_u64(1));
            let a = table.allocate(&offer(0), ue, us, &PORTS, &mut rng).unwrap();
            table.insert(held(a, State::Active));
            let b = table.allocate(&offer(1), ue, us, &PORTS, &mut rng).unwrap();
            assert_eq!((a.port_ps, a.port_us), (b.port_ps, b.port_us));
            assert_ne!(a.port_pc, b.port_pc);
            assert_eq!([a.spi_pc, a.spi_ps, b.spi_pc, b.spi_ps].into_iter().collect::<BTreeSet<_>>().len(), 4);
        }
    }

    #[test]
    fn ports_run_out_per_ue_port_and_come_back() {
        let (ue, us) = ips(false);
        let (mut table, mut rng) = (SaTable::default(), Rng::from_u64(1));
        let ids: Vec<_> = (0..4)
            .map(|n| {
                let set = table.allocate(&offer(n), ue, us, &PORTS, &mut rng).unwrap();
                table.insert(held(set, State::Active))
            })
            .collect();
        assert!(table.allocate(&offer(4), ue, us, &PORTS, &mut rng).is_none());
        assert!(table.allocate(&offer(4), "192.0.2.8".parse().unwrap(), us, &PORTS, &mut rng).is_some());
        table.remove(ids[2]).unwrap();
        assert_eq!(table.allocate(&offer(4), ue, us, &PORTS, &mut rng).unwrap().port_pc, 6103);
    }

    #[test]
    fn a_packet_belongs_to_a_set_by_its_four_numbers() {
        let (ue, us) = ips(true);
        let (mut table, mut rng) = (SaTable::default(), Rng::from_u64(1));
        let set = table.allocate(&offer(0), ue, us, &PORTS, &mut rng).unwrap();
        let id = table.insert(held(set, State::Installing));
        let at = |ip, port| SocketAddr::new(ip, port);
        assert_eq!(table.live(at(ue, set.port_uc), at(us, 6100)), None, "the kernel has not said yes");
        table.by_id_mut(id).unwrap().state = State::Proposed { used: false };
        assert_eq!(table.live(at(ue, set.port_uc), at(us, 6100)), Some(id));
        assert_eq!(table.live(at(ue, set.port_us), at(us, set.port_pc)), Some(id));
        assert_eq!(table.live(at(ue, set.port_us), at(us, 6100)), None);
        assert_eq!(table.live(at(ue, set.port_uc + 1), at(us, 6100)), None);
        assert_eq!((table.by_spi(us, set.spi_ps), table.by_spi(ue, set.spi_ps)), (Some(id), None));
        assert!(!table.is_ue_port(at(ue, set.port_us)), "the challenge may still be repeated in clear");
        table.by_id_mut(id).unwrap().state = State::Proposed { used: true };
        assert!(table.is_ue_port(at(ue, set.port_us)) && table.is_ue_port(at(ue, set.port_uc)));
        table.remove(id);
        assert!(table.len() == 0 && table.by_way_in.is_empty() && table.by_spi.is_empty());
        assert!(table.by_impi.is_empty() && table.by_ue_port.is_empty());
    }

    #[test]
    fn what_stands_in_the_way_of_a_new_set() {
        let (ue, us) = ips(false);
        let (mut table, mut rng) = (SaTable::default(), Rng::from_u64(1));
        let set = table.allocate(&offer(0), ue, us, &PORTS, &mut rng).unwrap();
        let id = table.insert(held(set, State::Active));
        let same_port = Offer { spi_uc: 9000, spi_us: 9001, ..offer(0) };
        let same_spi = Offer { spi_uc: 5001, spi_us: 9001, ..offer(1) };
        for (other, expected) in [(same_port, true), (same_spi, true), (offer(1), false)] {
            let new = table.allocate(&other, ue, us, &PORTS, &mut rng).unwrap();
            assert_eq!(table.in_the_way(&new).contains(&id), expected);
        }
    }

    #[test]
    fn at_most_six_associations_each_way_and_proposals_go_first() {
        let (ue, us) = ips(false);
        let (mut table, mut rng) = (SaTable::default(), Rng::from_u64(1));
        let impi = Impi::parse("a@b").unwrap();
        let mut ids = Vec::new();
        for (n, state) in
            [State::Active, State::Proposed { used: false }, State::Proposed { used: false }].iter().enumerate()
        {
            assert!(!table.is_full(&impi));
            let set = table.allocate(&offer(u16::try_from(n).unwrap()), ue, us, &PORTS, &mut rng).unwrap();
            ids.push(table.insert(held(set, *state)));
        }
        assert!(table.is_full(&impi));
        assert_eq!(table.surplus(&impi, None), Some(ids[1]), "the oldest proposal");
        assert_eq!(table.surplus(&impi, Some(ids[1])), Some(ids[2]), "never the one that the REGISTER came by");
        table.by_id_mut(ids[1]).unwrap().state = State::Retiring;
        table.by_id_mut(ids[2]).unwrap().state = State::Active;
        assert_eq!(table.surplus(&impi, None), Some(ids[1]));
        table.by_id_mut(ids[1]).unwrap().state = State::Active;
        assert_eq!(table.surplus(&impi, None), None, "what registrations live on stays");
    }

    #[test]
    fn answers_leave_by_the_connection_or_from_client_port_to_server_port() {
        let (ue, us) = ips(true);
        let (mut table, mut rng) = (SaTable::default(), Rng::from_u64(1));
        let set = table.allocate(&offer(0), ue, us, &PORTS, &mut rng).unwrap();
        let h = held(set, State::Active);
        let request = Flow::udp(SocketAddr::new(us, 6100), SocketAddr::new(ue, set.port_uc));
        let out = h.answer(request);
        assert_eq!((out.local.port(), out.remote.port()), (set.port_pc, set.port_us));
        let conn = Some(ims_core::ConnId(4));
        let tcp = Flow { transport: Transport::Tcp, conn, ..request };
        assert_eq!(h.answer(tcp), tcp);
        assert_eq!(h.answer(Flow { conn: None, ..tcp }), h.outward(Transport::Tcp));
        assert_eq!(h.sent_by(), "[2001:db8::1]:6100");
    }
}
