//! Handsets, core and kernel doing whatever they like, in an order drawn from a seed. After every step: what leaves
//! over a protected port leaves over a set that the kernel has; no SPI is given twice; and when all is quiet, nothing
//! is left here or in the kernel.

mod common;

use common::{Bench, Handset, Out};
use ims_core::sa::{SaChange, SaError, SaExpiry, SaSet};
use ims_core::{ConnId, Event, Flow, Node, RequestId, Rng, Transport};
use ims_sip::{Message, Name};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

struct World {
    bench: Bench,
    rng: Rng,
    handsets: Vec<Handset>,
    /// Sets that a challenge told each handset of.
    told: Vec<Vec<SaSet>>,
    at_core: Vec<Message>,
    at_kernel: BTreeMap<RequestId, Asked>,
    installed: BTreeMap<(IpAddr, u32), SaSet>,
    challenges: u32,
}

enum Asked {
    Install(SaSet),
    Other,
}

impl World {
    fn new(seed: u64) -> Self {
        let handset = |n: u16| {
            let mut ue = Handset::new(n % 2 == 1, if n < 2 { Transport::Udp } else { Transport::Tcp });
            // The first and the last are one subscriber at two addresses.
            ue.imsi = format!("00101000000000{}", n % 3);
            (ue.port, ue.us, ue.uc) = (5060 + n, 50_000 + n, 40_000 + 100 * n);
            (ue.spi, ue.call) = (7000 + 1000 * u32::from(n), format!("call{n}"));
            ue
        };
        Self {
            bench: Bench::new(),
            rng: Rng::from_u64(seed),
            handsets: (0..4).map(handset).collect(),
            told: vec![Vec::new(); 4],
            at_core: Vec::new(),
            at_kernel: BTreeMap::new(),
            installed: BTreeMap::new(),
            challenges: 0,
        }
    }

    fn chance(&mut self, of: u64) -> bool {
        self.rng.below(of) == 0
    }

    fn pick(&mut self, len: usize) -> usize {
        usize::try_from(self.rng.below(len as u64)).unwrap()
    }

    /// Checks what one event brought about, and takes note of it.
    fn note(&mut self, out: Out) {
        for (id, change) in out.sa {
            match change {
                SaChange::Install { set, .. } => {
                    let promised = self.at_kernel.values().filter_map(|a| match a {
                        Asked::Install(set) => Some(*set),
                        Asked::Other => None,
                    });
                    let taken: BTreeSet<_> =
                        promised.flat_map(|s| spis(&s)).chain(self.installed.keys().copied()).collect();
                    assert!(spis(&set).iter().all(|spi| !taken.contains(spi)), "an SPI twice: {set:?}");
                    self.at_kernel.insert(id, Asked::Install(set));
                }
                SaChange::Extend { .. } => drop(self.at_kernel.insert(id, Asked::Other)),
                SaChange::Remove { set } => {
                    // The kernel works in order: what it was to install before is there and gone.
                    for asked in self.at_kernel.values_mut() {
                        if matches!(asked, Asked::Install(s) if *s == set) {
                            *asked = Asked::Other;
                        }
                    }
                    for spi in spis(&set) {
                        self.installed.remove(&spi);
                    }
                    self.at_kernel.insert(id, Asked::Other);
                }
            }
        }
        for (flow, message) in out.ue {
            self.check_way(&flow);
            let told = message.text(Name::SecurityServer).filter(|_| message.status() == 401).and_then(|v| {
                let spi: u32 = v.split("spi-s=").nth(1)?.split(';').next()?.parse().ok()?;
                self.installed.values().find(|s| s.spi_ps == spi).copied()
            });
            if let Some(set) = told {
                let n = self.handsets.iter().position(|h| h.ip == set.ue && h.us == set.port_us).unwrap();
                self.told[n].push(set);
            }
        }
        self.at_core.extend(out.core);
    }

    fn check_way(&self, flow: &Flow) {
        let over = |s: &SaSet| s.legs().iter().any(|leg| (leg.src, leg.dst) == (flow.local, flow.remote));
        match flow.local.port() {
            5060 => {}
            _ => assert!(self.installed.values().any(over), "outside every SA: {flow}"),
        }
    }

    fn step(&mut self) {
        match self.rng.below(24) {
            0 | 1 => self.hello(),
            2..=6 => self.register_protected(),
            7..=14 => self.core_answers(),
            15..=21 => self.kernel_answers(),
            22 => {
                let seconds = [1, 1, 2, 2, 3, 7, 60, 300][self.pick(8)];
                self.pass(seconds);
            }
            _ => self.mishap(),
        }
    }

    fn hello(&mut self) {
        let n = self.pick(self.handsets.len());
        if self.chance(2) {
            self.handsets[n].renew();
        }
        let out = self.handsets[n].hello(&mut self.bench);
        self.note(out);
    }

    fn register_protected(&mut self) {
        let n = self.pick(self.handsets.len());
        if self.told[n].is_empty() {
            return;
        }
        let at = self.pick(self.told[n].len());
        let set = self.told[n][at];
        let expires = if self.chance(4) { 0 } else { 3600 };
        let renew = self.chance(2);
        let ue = &mut self.handsets[n];
        if renew {
            ue.renew();
        }
        ue.set = Some(set);
        let text = ue.register(expires, &ue.sec_agree());
        let flow = ue.flow_of(&set);
        let out = self.bench.packet(flow, &text);
        self.note(out);
        if self.chance(3) {
            let out = self.bench.packet(flow, &text);
            self.note(out);
        }
    }

    fn core_answers(&mut self) {
        if self.at_core.is_empty() {
            return;
        }
        let at = self.pick(self.at_core.len());
        let request = self.at_core.remove(at);
        self.challenges += 1;
        let protected = request.text(Name::Authorization).unwrap().contains("integrity-protected=\"yes\"");
        let out = match self.rng.below(8) {
            0 => self.bench.answer(&request, 403, &[]),
            1 => self.bench.answer(&request, 500, &[]),
            2..=4 if protected => {
                let granted = if request.text(Name::Contact).unwrap().ends_with("expires=0") { 0 } else { 600 };
                self.bench.accept(&request, granted)
            }
            _ => self.bench.challenge(&request, &format!("bm9uY2U{}=", self.challenges)),
        };
        self.note(out);
    }

    fn kernel_answers(&mut self) {
        // In order, as it works.
        let Some((id, asked)) = self.at_kernel.pop_first() else { return };
        let result = match (asked, self.rng.below(10)) {
            (Asked::Install(set), 0) => Err(SaError::SpiTaken(set.spi_pc)),
            (Asked::Install(_), 1) => Err(SaError::NoAlgorithm("cbc(aes)")),
            (Asked::Install(_), 2) => Err(SaError::Kernel(12)),
            (Asked::Install(set), _) => {
                self.installed.extend(spis(&set).map(|spi| (spi, set)));
                Ok(())
            }
            (Asked::Other, _) => Ok(()),
        };
        let out = self.bench.kernel(id, result);
        self.note(out);
    }

    fn mishap(&mut self) {
        let conn = ConnId(1);
        let out = self.bench.handle(Event::FlowClosed(conn));
        self.note(out);
        let sets: Vec<SaSet> = self.installed.values().copied().collect();
        if !sets.is_empty() && self.chance(2) {
            let set = sets[self.pick(sets.len())];
            let out = self.bench.handle(Event::SaExpired(SaExpiry { dst: set.ue, spi: set.spi_us, hard: true }));
            self.note(out);
        }
    }

    fn pass(&mut self, seconds: u64) {
        let end = self.bench.now + std::time::Duration::from_secs(seconds);
        while let Some(at) = self.bench.node.deadline().filter(|at| *at <= end) {
            self.bench.now = self.bench.now.max(at);
            let out = self.bench.handle(Event::Timeout);
            // A retransmission to the core is no new request.
            self.note(Out { core: Vec::new(), ..out });
        }
        self.bench.now = end;
    }

    fn settle(&mut self) {
        for _ in 0..15 {
            while !self.at_kernel.is_empty() {
                let (id, asked) = self.at_kernel.pop_first().unwrap();
                if let Asked::Install(set) = asked {
                    self.installed.extend(spis(&set).map(|spi| (spi, set)));
                }
                let out = self.bench.kernel(id, Ok(()));
                self.note(out);
            }
            self.pass(300);
        }
    }
}

fn spis(set: &SaSet) -> [(IpAddr, u32); 4] {
    set.legs().map(|leg| (leg.dst.ip(), leg.spi))
}

#[test]
fn whatever_happens_nothing_leaks_and_nothing_leaves_outside_an_sa() {
    let mut registered = 0;
    for seed in 0..40 {
        let mut world = World::new(seed);
        for step in 0..400 {
            world.step();
            registered += usize::from(step % 20 == 0 && !world.bench.registrations().is_empty());
        }
        world.settle();
        assert!(world.installed.is_empty(), "seed {seed}: left in the kernel: {:?}", world.installed);
        world.bench.assert_empty();
    }
    assert!(registered > 150, "the world was too quiet: {registered}");
}
