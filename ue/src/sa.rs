//! The handset's security associations: what it offers, what it takes of the answer, and the sets it has
//! (RFC 3329, TS 33.203 7.1, 7.2, 7.4).

use crate::config::Config;
use crate::error::Fault;
use ims_core::sa::{AuthAlg, EncAlg, SaSet, Suite};
use ims_core::{Flow, Rng, Time, Transport};
use ims_sip::headers::SecMechanism;
use std::net::{IpAddr, SocketAddr};

/// TS 33.203 7.2: at most six associations in each direction, which are three sets.
const MAX_SETS: usize = 3;
/// SPIs up to 255 are reserved (RFC 4303 2.1).
const LEAST_SPI: u32 = 256;

/// What one Security-Client says: own SPIs and ports, the same with every algorithm pair.
#[derive(Clone, Debug)]
pub(crate) struct Offer {
    pub(crate) spi_uc: u32,
    pub(crate) spi_us: u32,
    pub(crate) port_uc: u16,
    pub(crate) port_us: u16,
    suites: Vec<Suite>,
}

impl Offer {
    /// Security-Client as one comma list, as most phones write it.
    pub(crate) fn header(&self) -> String {
        let one = |suite: &Suite| {
            format!(
                "ipsec-3gpp;alg={};ealg={};prot=esp;mod=trans;spi-c={};spi-s={};port-c={};port-s={}",
                suite.alg.token(),
                suite.ealg.token(),
                self.spi_uc,
                self.spi_us,
                self.port_uc,
                self.port_us
            )
        };
        self.suites.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    /// The most preferred mechanism of Security-Server that we offered, made into a set (TS 24.229 5.1.1.5.1).
    pub(crate) fn accept(&self, servers: &[SecMechanism], ue: IpAddr, pcscf: SocketAddr) -> Result<SaSet, Fault> {
        let mut best: Option<(u16, &SecMechanism, Suite)> = None;
        for server in servers {
            let Some(suite) = suite_of(server).filter(|s| self.suites.contains(s)) else {
                continue;
            };
            let q = preference(server.q.as_deref());
            if best.as_ref().is_none_or(|(other, ..)| q > *other) {
                best = Some((q, server, suite));
            }
        }
        let (_, server, suite) = best.ok_or(Fault::SecurityServerNotOffered)?;
        let (Some(spi_pc), Some(spi_ps), Some(port_pc), Some(port_ps)) =
            (server.spi_c, server.spi_s, server.port_c, server.port_s)
        else {
            return Err(Fault::SecurityServerIncomplete);
        };
        if port_pc == port_ps || [port_pc, port_ps].contains(&pcscf.port()) || port_pc == 0 || port_ps == 0 {
            return Err(Fault::SecurityServerBadPorts);
        }
        if spi_pc == spi_ps || spi_pc < LEAST_SPI || spi_ps < LEAST_SPI {
            return Err(Fault::SecurityServerBadPorts);
        }
        Ok(SaSet {
            ue,
            pcscf: pcscf.ip(),
            spi_uc: self.spi_uc,
            spi_us: self.spi_us,
            spi_pc,
            spi_ps,
            port_uc: self.port_uc,
            port_us: self.port_us,
            port_pc,
            port_ps,
            suite,
        })
    }
}

/// `q` in thousandths; absent counts least, as RFC 3329 2.2 leaves it open.
fn preference(q: Option<&str>) -> u16 {
    let Some((whole, part)) = q.map(|q| q.split_once('.').unwrap_or((q, ""))) else {
        return 0;
    };
    let digits: String = part.chars().chain("000".chars()).take(3).collect();
    whole.parse::<u16>().ok().filter(|w| *w <= 1).unwrap_or(0) * 1000 + digits.parse::<u16>().unwrap_or(0)
}

/// Absent `ealg` is null, absent `prot` esp, absent `mod` trans (TS 33.203 Annex H).
fn suite_of(m: &SecMechanism) -> Option<Suite> {
    let is = |value: &Option<String>, token: &str| value.as_ref().is_none_or(|v| v.eq_ignore_ascii_case(token));
    if !m.mechanism.eq_ignore_ascii_case("ipsec-3gpp") || !is(&m.prot, "esp") || !is(&m.mode, "trans") {
        return None;
    }
    let suite = Suite {
        alg: AuthAlg::from_token(m.alg.as_deref()?)?,
        ealg: m.ealg.as_deref().map_or(Some(EncAlg::Null), EncAlg::from_token)?,
    };
    suite.is_valid().then_some(suite)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SetState {
    /// Made by a challenge; becomes established with the 200.
    Temporary,
    Established,
    /// Replaced by a newer set, kept for what is still under way (TS 33.203 7.4).
    Retiring,
}

impl SetState {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Temporary => "temporary",
            Self::Established => "established",
            Self::Retiring => "retiring",
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct LiveSet {
    pub(crate) set: SaSet,
    pub(crate) state: SetState,
    /// Security-Server as it came: goes back as Security-Verify with every protected request.
    pub(crate) verify: String,
    pub(crate) expires: Time,
}

/// All sets of the handset, and which port is next.
#[derive(Debug, Default)]
pub(crate) struct Sets {
    pub(crate) list: Vec<LiveSet>,
    next_port: u16,
}

impl Sets {
    pub(crate) fn is_full(&self) -> bool {
        self.list.len() >= MAX_SETS
    }

    /// SPIs that we do not use, and a client port that no set has (TS 33.203 7.4: server ports stay).
    pub(crate) fn offer(&mut self, config: &Config, rng: &mut Rng) -> Offer {
        let mut port_uc = config.port_uc;
        for _ in 0..config.client_ports {
            port_uc = config.port_uc.saturating_add(self.next_port % config.client_ports.max(1));
            self.next_port = self.next_port.wrapping_add(1);
            if self.list.iter().all(|s| s.set.port_uc != port_uc) {
                break;
            }
        }
        let spi_uc = self.spi(0, rng);
        let spi_us = self.spi(spi_uc, rng);
        Offer { spi_uc, spi_us, port_uc, port_us: config.port_us, suites: config.offers.clone() }
    }

    fn spi(&self, other: u32, rng: &mut Rng) -> u32 {
        loop {
            let spi = rng.u32();
            let used = self.list.iter().any(|s| s.set.spi_uc == spi || s.set.spi_us == spi);
            if spi >= LEAST_SPI && spi != other && !used {
                return spi;
            }
        }
    }

    pub(crate) fn find(&self, spi_us: u32) -> Option<&LiveSet> {
        self.list.iter().find(|s| s.set.spi_us == spi_us)
    }

    pub(crate) fn take(&mut self, spi_us: u32) -> Option<SaSet> {
        let at = self.list.iter().position(|s| s.set.spi_us == spi_us)?;
        Some(self.list.remove(at).set)
    }

    /// What can go when there is no room: the spi_us of the set that was replaced first.
    pub(crate) fn oldest_retiring(&self) -> Option<u32> {
        self.list.iter().find(|s| s.state == SetState::Retiring).map(|s| s.set.spi_us)
    }

    /// A set that was replaced and has this pair of ports.
    pub(crate) fn retiring_between(&self, port_pc: u16, port_us: u16) -> Option<u32> {
        let same = |s: &&LiveSet| s.state == SetState::Retiring && (s.set.port_pc, s.set.port_us) == (port_pc, port_us);
        self.list.iter().find(same).map(|s| s.set.spi_us)
    }

    /// The set that requests go through.
    pub(crate) fn established(&self) -> Option<&LiveSet> {
        self.list.iter().rev().find(|s| s.state == SetState::Established)
    }

    /// The set that a message came by: UDP arrives pc->us; on TCP answers also ps->uc (TS 33.203 7.1).
    pub(crate) fn of_flow(&self, flow: &Flow) -> Option<&LiveSet> {
        let by = |src_port: u16, dst_port: u16, s: &SaSet| {
            flow.remote == SocketAddr::new(s.pcscf, src_port) && flow.local == SocketAddr::new(s.ue, dst_port)
        };
        self.list.iter().find(|s| {
            by(s.set.port_pc, s.set.port_us, &s.set)
                || flow.transport == Transport::Tcp && by(s.set.port_ps, s.set.port_uc, &s.set)
        })
    }
}

/// Where a request of ours leaves inside a set: uc->ps on both transports.
pub(crate) fn outward(set: &SaSet, transport: Transport) -> Flow {
    Flow {
        transport,
        local: SocketAddr::new(set.ue, set.port_uc),
        remote: SocketAddr::new(set.pcscf, set.port_ps),
        conn: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mechanism(alg: &str, ealg: Option<&str>, q: Option<&str>) -> SecMechanism {
        SecMechanism {
            mechanism: "ipsec-3gpp".into(),
            q: q.map(Into::into),
            alg: Some(alg.into()),
            ealg: ealg.map(Into::into),
            prot: None,
            mode: None,
            spi_c: Some(1001),
            spi_s: Some(1002),
            port_c: Some(6101),
            port_s: Some(6100),
            other: Vec::new(),
        }
    }

    fn accept(servers: &[SecMechanism]) -> Result<SaSet, Fault> {
        let offer = Sets::default().offer(&Config::default(), &mut Rng::from_u64(1));
        offer.accept(servers, IpAddr::from([10, 0, 0, 1]), SocketAddr::from(([10, 0, 0, 9], 5060)))
    }

    #[test]
    fn the_highest_q_among_our_offers_is_taken() {
        let servers = [
            mechanism("hmac-md5-96", None, Some("0.1")),
            mechanism("hmac-sha-1-96", Some("AES-CBC"), Some("0.9")),
            mechanism("aes-gmac", None, Some("1")),
        ];
        let set = accept(&servers).unwrap();
        assert_eq!(set.suite, Suite { alg: AuthAlg::HmacSha1_96, ealg: EncAlg::AesCbc });
        assert_eq!((set.spi_pc, set.spi_ps, set.port_pc, set.port_ps), (1001, 1002, 6101, 6100));
    }

    #[test]
    fn what_was_not_offered_or_is_incomplete_is_refused() {
        assert_eq!(accept(&[mechanism("aes-gmac", None, None)]), Err(Fault::SecurityServerNotOffered));
        assert_eq!(accept(&[]), Err(Fault::SecurityServerNotOffered));
        let mut m = mechanism("hmac-md5-96", None, None);
        m.spi_s = None;
        assert_eq!(accept(&[m.clone()]), Err(Fault::SecurityServerIncomplete));
        m.spi_s = Some(1001);
        assert_eq!(accept(&[m.clone()]), Err(Fault::SecurityServerBadPorts));
        m.spi_s = Some(1002);
        m.port_c = Some(5060);
        assert_eq!(accept(&[m]), Err(Fault::SecurityServerBadPorts));
    }

    #[test]
    fn client_ports_rotate_and_spis_differ() {
        let (mut sets, mut rng, config) = (Sets::default(), Rng::from_u64(3), Config::default());
        let offers: Vec<Offer> = (0..5).map(|_| sets.offer(&config, &mut rng)).collect();
        let ports: Vec<u16> = offers.iter().map(|o| o.port_uc).collect();
        assert_eq!(ports, [5065, 5066, 5067, 5068, 5065]);
        assert!(offers.iter().all(|o| o.spi_uc != o.spi_us && o.spi_uc >= 256 && o.port_us == 5064));
    }

    #[test]
    fn q_values_compare_as_numbers() {
        assert!(preference(Some("0.10")) < preference(Some("0.2")));
        assert!(preference(Some("1")) > preference(Some("0.999")));
        assert_eq!(preference(None), 0);
    }
}
