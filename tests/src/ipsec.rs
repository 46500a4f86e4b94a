//! Security associations as the kernel of each host has them: a packet that an outward association covers leaves as
//! ESP; ESP is taken in only by the inverse association with the same SPI, algorithms and keys; a protected port takes
//! and gives nothing in clear.

use ims_core::sa::{SaAudit, SaChange, SaError, SaExpiry, SaKeys, SaSet, SaSide, SaUsage, Suite};
use ims_core::{Secret, Time};
use std::net::{IpAddr, SocketAddr};

/// What a host's kernel can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum EspSupport {
    #[default]
    Yes,
    /// No ESP at all (the development containers).
    No,
    /// Not allowed to this process.
    NotPermitted,
}

/// The mark of a packet that travels as ESP.
#[derive(Clone, Debug)]
pub(crate) struct Esp {
    pub(crate) spi: u32,
    /// Which of the four: `uc>ps` and so on.
    pub(crate) leg: &'static str,
    suite: Suite,
    ck: Secret<16>,
    ik: Secret<16>,
}

#[derive(Clone, Debug)]
struct Association {
    src: SocketAddr,
    dst: SocketAddr,
    spi: u32,
    leg: &'static str,
    suite: Suite,
    keys: SaKeys,
    expires: Time,
    outward: bool,
    set: SaSet,
    bytes: u64,
    packets: u64,
}

/// In the order of [`SaSet::legs`].
const LEGS: [&str; 4] = ["uc>ps", "pc>us", "ps>uc", "us>pc"];

/// One host's table.
#[derive(Debug, Default)]
pub(crate) struct SaTable {
    pub(crate) support: EspSupport,
    /// The next changes fail with this.
    pub(crate) fail_next: Vec<SaError>,
    list: Vec<Association>,
    /// What the process that runs now has installed or adopted. The rest is of an earlier one.
    owned: Vec<SaSet>,
}

impl SaTable {
    pub(crate) fn change(&mut self, change: SaChange, now: Time) -> Result<(), SaError> {
        match self.support {
            EspSupport::No => return Err(SaError::NoEsp),
            EspSupport::NotPermitted => return Err(SaError::NotPermitted),
            EspSupport::Yes => {}
        }
        if !self.fail_next.is_empty() {
            return Err(match (self.fail_next.remove(0), &change) {
                // The kernel names the SPI that it was asked for.
                (SaError::SpiTaken(_), SaChange::Install { set, .. }) => SaError::SpiTaken(set.spi_ps),
                (other, _) => other,
            });
        }
        match change {
            SaChange::Install { set, keys, side, expires } => self.install(set, &keys, side, expires, now),
            SaChange::Extend { set, expires } => {
                let mut found = 0;
                for sa in self.list.iter_mut().filter(|sa| sa.set == set) {
                    sa.expires = expires;
                    found += 1;
                }
                if found == 4 && self.owned.contains(&set) { Ok(()) } else { Err(SaError::NotFound) }
            }
            SaChange::Remove { set } => {
                if self.owned.contains(&set) {
                    self.list.retain(|sa| sa.set != set);
                    self.owned.retain(|owned| *owned != set);
                }
                Ok(())
            }
        }
    }

    /// What stands of what the node asked for and adopts; the rest goes.
    pub(crate) fn audit(&mut self, adopt: Vec<SaSet>) -> Result<SaAudit, SaError> {
        match self.support {
            EspSupport::No => return Err(SaError::NoEsp),
            EspSupport::NotPermitted => return Err(SaError::NotPermitted),
            EspSupport::Yes => {}
        }
        if !self.fail_next.is_empty() {
            return Err(self.fail_next.remove(0));
        }
        for set in adopt {
            if self.list.iter().filter(|sa| sa.set == set).count() == 4 && !self.owned.contains(&set) {
                self.owned.push(set);
            }
        }
        let before = self.list.len();
        self.list.retain(|sa| self.owned.contains(&sa.set));
        let strays = before - self.list.len();
        let sas = self.list.iter().map(|sa| SaUsage {
            dst: sa.dst.ip(),
            spi: sa.spi,
            bytes: sa.bytes,
            packets: sa.packets,
            last_use: None,
            expires: sa.expires,
        });
        Ok(SaAudit { sas: sas.collect(), strays, repaired: 0 })
    }

    /// The process ended; what it put in stays.
    pub(crate) fn orphan(&mut self) {
        self.owned.clear();
    }

    /// One of the four of this set is gone, unnoticed.
    pub(crate) fn lose_one(&mut self) {
        self.list.pop();
    }

    pub(crate) fn count(&mut self, spi: u32, dst: IpAddr, bytes: usize) {
        for sa in self.list.iter_mut().filter(|sa| sa.spi == spi && sa.dst.ip() == dst) {
            sa.packets += 1;
            sa.bytes += bytes as u64;
        }
    }

    /// When the sets end.
    pub(crate) fn lifetimes(&self) -> Vec<Time> {
        self.list.chunks(4).filter_map(|set| set.iter().map(|sa| sa.expires).min()).collect()
    }

    /// All four or none. A state is named by destination and SPI, so both must be new together.
    fn install(&mut self, set: SaSet, keys: &SaKeys, side: SaSide, expires: Time, now: Time) -> Result<(), SaError> {
        assert!(expires > now, "an association that is installed must live: it expires at {expires:?}, now {now:?}");
        for leg in set.legs() {
            if self.list.iter().any(|sa| sa.spi == leg.spi && sa.dst.ip() == leg.dst.ip()) {
                return Err(SaError::SpiTaken(leg.spi));
            }
        }
        let own = if side == SaSide::Ue { set.ue } else { set.pcscf };
        for (leg, name) in set.legs().into_iter().zip(LEGS) {
            self.list.push(Association {
                src: leg.src,
                dst: leg.dst,
                spi: leg.spi,
                leg: name,
                suite: set.suite,
                keys: keys.clone(),
                expires,
                outward: leg.src.ip() == own,
                set,
                bytes: 0,
                packets: 0,
            });
        }
        self.owned.push(set);
        Ok(())
    }

    /// How a packet between these leaves: the newest association that covers it.
    pub(crate) fn outward(&self, src: SocketAddr, dst: SocketAddr) -> Option<Esp> {
        let sa = self.list.iter().rev().find(|sa| sa.outward && sa.src == src && sa.dst == dst)?;
        let SaKeys { ck, ik } = sa.keys.clone();
        Some(Esp { spi: sa.spi, leg: sa.leg, suite: sa.suite, ck, ik })
    }

    /// Whether this ESP packet comes through, and if not why.
    pub(crate) fn inward(&self, esp: &Esp, src: SocketAddr, dst: SocketAddr) -> Result<(), &'static str> {
        let Some(sa) = self.list.iter().find(|sa| !sa.outward && sa.spi == esp.spi && sa.dst.ip() == dst.ip()) else {
            return Err("esp: no association with that SPI");
        };
        if sa.suite != esp.suite {
            return Err("esp: other algorithms at the two ends");
        }
        if sa.keys.ck.expose() != esp.ck.expose() || sa.keys.ik.expose() != esp.ik.expose() {
            return Err("esp: other keys at the two ends");
        }
        if sa.src != src || sa.dst != dst {
            return Err("esp: ports are not those of the association");
        }
        Ok(())
    }

    pub(crate) fn next_expiry(&self) -> Option<Time> {
        self.list.iter().map(|sa| sa.expires).min()
    }

    /// Takes out what is past its lifetime.
    pub(crate) fn expire(&mut self, now: Time) -> Vec<SaExpiry> {
        let gone = self.list.iter().filter(|sa| sa.expires <= now);
        let gone = gone.map(|sa| SaExpiry { dst: sa.dst.ip(), spi: sa.spi, hard: true }).collect();
        self.list.retain(|sa| sa.expires > now);
        gone
    }

    pub(crate) fn clear(&mut self) {
        self.list.clear();
    }

    /// The association that a packet came by or leaves by has reached a lifetime before its time.
    pub(crate) fn cut_short(&mut self, at: Time) {
        self.list.iter_mut().for_each(|sa| sa.expires = sa.expires.min(at));
    }

    /// How many sets stand.
    pub(crate) fn sets(&self) -> usize {
        self.list.len() / 4
    }

    /// Whether any association goes towards this host.
    pub(crate) fn towards(&self, host: IpAddr) -> bool {
        self.list.iter().any(|sa| sa.outward && sa.dst.ip() == host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ims_core::sa::{AuthAlg, EncAlg};

    fn set() -> SaSet {
        SaSet {
            ue: [10, 0, 0, 1].into(),
            pcscf: [10, 0, 0, 9].into(),
            spi_uc: 1001,
            spi_us: 1002,
            spi_pc: 2001,
            spi_ps: 2002,
            port_uc: 5065,
            port_us: 5064,
            port_pc: 6101,
            port_ps: 6100,
            suite: Suite { alg: AuthAlg::HmacSha1_96, ealg: EncAlg::AesCbc },
        }
    }

    fn install(table: &mut SaTable, side: SaSide, ck: u8) -> Result<(), SaError> {
        let keys = SaKeys { ck: Secret::new([ck; 16]), ik: Secret::new([2; 16]) };
        let change = SaChange::Install { set: set(), keys, side, expires: Time::from_secs(10) };
        table.change(change, Time::EPOCH)
    }

    #[test]
    fn esp_passes_only_with_the_same_keys_at_both_ends() {
        let (mut ue, mut pcscf, mut other) = (SaTable::default(), SaTable::default(), SaTable::default());
        install(&mut ue, SaSide::Ue, 1).unwrap();
        install(&mut pcscf, SaSide::Pcscf, 1).unwrap();
        install(&mut other, SaSide::Pcscf, 9).unwrap();
        let [leg, ..] = set().legs();
        let esp = ue.outward(leg.src, leg.dst).unwrap();
        assert_eq!((esp.spi, esp.leg), (2002, "uc>ps"));
        assert_eq!(pcscf.inward(&esp, leg.src, leg.dst), Ok(()));
        assert!(other.inward(&esp, leg.src, leg.dst).is_err());
        assert!(pcscf.outward(leg.src, leg.dst).is_none());
    }

    #[test]
    fn an_spi_is_taken_once_per_destination_and_expires() {
        let mut table = SaTable::default();
        install(&mut table, SaSide::Ue, 1).unwrap();
        assert_eq!(install(&mut table, SaSide::Ue, 1), Err(SaError::SpiTaken(2002)));
        assert_eq!(table.expire(Time::from_secs(9)).len(), 0);
        assert_eq!(table.expire(Time::from_secs(10)).len(), 4);
        assert_eq!(table.sets(), 0);
    }
}
