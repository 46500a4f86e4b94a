//! Who sends in clear: how much is taken from each source, and who is not listened to for a while.
//!
//! A source is an address, or an IPv6 network of `sources.ipv6_prefix` bits. Only what comes to the clear port is judged
//! here: a datagram in clear can claim any address, so what a source is punished for never touches what comes over SAs, and
//! whoever holds an SA set in use cannot be banned by datagrams that claim its address.

use crate::config::Sources as Settings;
use ims_core::Time;
use ims_core::metrics::{Samples, catalogue};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};

/// A snapshot lists no more bans than this; it always counts them all.
const MOST_LISTED: usize = 1000;
/// The price of one message, in millionths: what a rate of 1/s gives in a second.
const MESSAGE: u64 = 1_000_000;

/// What becomes of a message of a source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Heard {
    Welcome,
    Banned,
    TooMuch,
}

#[derive(Clone, Copy)]
struct Source {
    /// What it may still send at once, in millionths of a message.
    credit: u64,
    seen: Time,
    /// In millionths of a failure; they are forgiven with time.
    failures: u64,
    failed: Time,
}

struct Ban {
    since: Time,
    until: Time,
    cause: &'static str,
    dropped: u64,
}

#[derive(Default)]
pub(crate) struct Sources {
    /// The sources heard of lately; when this half is full it becomes the other, whose sources are forgotten.
    recent: HashMap<IpAddr, Source>,
    earlier: HashMap<IpAddr, Source>,
    bans: BTreeMap<IpAddr, Ban>,
    ends: BTreeSet<(Time, IpAddr)>,
    dropped: BTreeMap<&'static str, u64>,
    banned: BTreeMap<&'static str, u64>,
}

impl Sources {
    /// For each message in clear, before it is read.
    pub(crate) fn hear(&mut self, ip: IpAddr, now: Time, settings: &Settings) -> Heard {
        self.lift_due(now);
        let key = key(ip, settings.ipv6_prefix);
        if let Some(ban) = self.bans.get_mut(&key) {
            ban.dropped += 1;
            *self.dropped.entry("banned").or_default() += 1;
            return Heard::Banned;
        }
        if settings.rate == 0 || settings.spares(ip) {
            return Heard::Welcome;
        }
        let source = self.source(key, now, settings);
        let most = settings.burst * MESSAGE;
        let earned = u64::try_from(now.since(source.seen).as_micros()).unwrap_or(u64::MAX);
        source.credit = source.credit.saturating_add(earned.saturating_mul(settings.rate)).min(most);
        source.seen = now;
        if source.credit < MESSAGE {
            *self.dropped.entry("rate").or_default() += 1;
            return Heard::TooMuch;
        }
        source.credit -= MESSAGE;
        Heard::Welcome
    }

    /// It sent something that only a scanner or a faulty phone sends. True when that was once too often: it is banned now.
    pub(crate) fn failed(&mut self, ip: IpAddr, cause: &'static str, now: Time, settings: &Settings) -> bool {
        if settings.ban_after == 0 || settings.spares(ip) {
            return false;
        }
        let key = key(ip, settings.ipv6_prefix);
        let source = self.source(key, now, settings);
        let window = settings.ban_window.0.as_secs().max(1);
        let forgiven = u64::try_from(now.since(source.failed).as_micros()).unwrap_or(u64::MAX);
        let forgiven = forgiven.saturating_mul(settings.ban_after) / window;
        source.failures = source.failures.saturating_sub(forgiven) + MESSAGE;
        source.failed = now;
        source.failures > settings.ban_after * MESSAGE && self.ban(ip, cause, now, settings)
    }

    /// A registration from there was accepted: it weighs as much as one failure.
    pub(crate) fn succeeded(&mut self, ip: IpAddr, settings: &Settings) {
        let key = key(ip, settings.ipv6_prefix);
        if let Some(source) = self.recent.get_mut(&key).or_else(|| self.earlier.get_mut(&key)) {
            source.failures = source.failures.saturating_sub(MESSAGE);
        }
    }

    /// Nothing in clear is taken from there for `sources.ban_time`. False when it is spared.
    pub(crate) fn ban(&mut self, ip: IpAddr, cause: &'static str, now: Time, settings: &Settings) -> bool {
        if settings.ban_after == 0 || settings.spares(ip) {
            return false;
        }
        let (key, until) = (key(ip, settings.ipv6_prefix), now + settings.ban_time.0);
        while self.bans.len() >= settings.max_bans.max(1) && !self.bans.contains_key(&key) {
            let Some((_, first)) = self.ends.pop_first() else { break };
            self.bans.remove(&first);
        }
        if let Some(old) = self.bans.insert(key, Ban { since: now, until, cause, dropped: 0 }) {
            self.ends.remove(&(old.until, key));
        }
        self.ends.insert((until, key));
        *self.banned.entry(cause).or_default() += 1;
        self.recent.remove(&key);
        self.earlier.remove(&key);
        true
    }

    /// Whether there was a ban to lift.
    pub(crate) fn lift(&mut self, ip: IpAddr, settings: &Settings) -> bool {
        let key = key(ip, settings.ipv6_prefix);
        let Some(ban) = self.bans.remove(&key) else { return false };
        self.ends.remove(&(ban.until, key));
        true
    }

    fn lift_due(&mut self, now: Time) {
        while let Some((until, ip)) = self.ends.first().copied().filter(|(until, _)| *until <= now) {
            self.ends.remove(&(until, ip));
            self.bans.remove(&ip);
        }
    }

    fn source(&mut self, key: IpAddr, now: Time, settings: &Settings) -> &mut Source {
        if !self.recent.contains_key(&key) {
            let new = Source { credit: settings.burst * MESSAGE, seen: now, failures: 0, failed: now };
            let known = self.earlier.remove(&key).unwrap_or(new);
            if self.recent.len() >= (settings.max_sources / 2).max(1) {
                self.earlier = std::mem::take(&mut self.recent);
            }
            self.recent.insert(key, known);
        }
        self.recent.entry(key).or_insert(Source { credit: 0, seen: now, failures: 0, failed: now })
    }

    /// For the snapshot and the operator: who is banned, why, and how long still.
    pub(crate) fn list(&self, now: Time, settings: &Settings) -> Value {
        let in_force = self.bans.iter().filter(|(_, ban)| ban.until > now);
        let shown = in_force.take(MOST_LISTED).map(|(ip, ban)| {
            let prefix = if ip.is_ipv6() && settings.ipv6_prefix < 128 {
                format!("/{}", settings.ipv6_prefix)
            } else {
                String::new()
            };
            json!({
                "source": format!("{ip}{prefix}"),
                "cause": ban.cause,
                "since_s": now.since(ban.since).as_secs(),
                "ends_in_s": ban.until.since(now).as_secs(),
                "dropped": ban.dropped,
            })
        });
        Value::Array(shown.collect())
    }

    pub(crate) fn describe(&self, now: Time, settings: &Settings) -> Value {
        json!({
            "known": self.recent.len() + self.earlier.len(),
            "banned": self.bans.values().filter(|ban| ban.until > now).count(),
            "bans": self.list(now, settings),
            "dropped": self.dropped,
            "bans_by_cause": self.banned,
        })
    }

    pub(crate) fn metrics(&self, now: Time, out: &mut Samples) {
        out.size(&catalogue::SOURCES, &[], self.recent.len() + self.earlier.len());
        out.size(&catalogue::SOURCES_BANNED, &[], self.bans.values().filter(|ban| ban.until > now).count());
        out.counts(&catalogue::SOURCE_BANS, &self.banned);
        out.counts(&catalogue::SOURCE_DROPPED, &self.dropped);
    }
}

/// The name of a source: an address, or the network that a handset has its addresses from.
fn key(ip: IpAddr, ipv6_prefix: u8) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(ipv6_prefix.min(128))).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ims_core::config::Span;

    fn settings() -> Settings {
        Settings { rate: 10, burst: 20, ban_after: 3, max_sources: 100, max_bans: 4, ..Settings::default() }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_source_may_send_a_burst_and_then_its_rate() {
        let (mut s, set) = (Sources::default(), settings());
        let mut welcome = |from: &str, at| s.hear(ip(from), Time::from_micros(at), &set) == Heard::Welcome;
        assert_eq!((0..50).filter(|_| welcome("192.0.2.1", 1)).count(), 20);
        assert!(welcome("192.0.2.2", 1), "another one has its own");
        assert_eq!((0..50).filter(|_| welcome("192.0.2.1", 1_000_001)).count(), 10);
        assert_eq!((0..50).filter(|_| welcome("127.0.0.1", 1)).count(), 50, "loopback is spared");
        assert_eq!((0..50).filter(|n| welcome(&format!("2001:db8::{n}"), 1)).count(), 20, "a /64 is one source");
        assert!(welcome("2001:db8:0:1::1", 1));
    }

    #[test]
    fn too_many_failures_in_a_window_are_a_ban_that_ends() {
        let (mut s, set) = (Sources::default(), settings());
        let (bad, at) = (ip("192.0.2.1"), Time::from_secs);
        for n in 0..3 {
            assert!(!s.failed(bad, "malformed", at(n), &set));
        }
        s.succeeded(bad, &set);
        assert!(!s.failed(bad, "malformed", at(3), &set), "a success made up for one");
        assert!(s.failed(bad, "malformed", at(4), &set));
        assert_eq!(s.hear(bad, at(5), &set), Heard::Banned);
        assert_eq!(s.hear(ip("192.0.2.2"), at(5), &set), Heard::Welcome);
        assert_eq!(s.list(at(5), &set)[0]["cause"], "malformed");
        assert_eq!(s.hear(bad, at(4) + set.ban_time.0, &set), Heard::Welcome);
        for n in 0..100 {
            assert!(!s.failed(bad, "malformed", at(10_000 + 30 * n), &set), "two a minute are forgiven");
        }
        assert!(!s.failed(
            ip("127.0.0.1"),
            "x",
            at(1),
            &Settings { ban_after: 1, ban_window: Span::secs(9999), ..set }
        ));
    }

    #[test]
    fn a_ban_can_be_lifted() {
        let (mut s, set) = (Sources::default(), settings());
        assert!(s.ban(ip("2001:db8::1"), "scanner", Time::EPOCH, &set));
        assert_eq!(s.list(Time::EPOCH, &set)[0]["source"], "2001:db8::/64");
        assert!(s.lift(ip("2001:db8::77"), &set) && !s.lift(ip("2001:db8::1"), &set));
        assert!(s.ends.is_empty() && s.hear(ip("2001:db8::1"), Time::EPOCH, &set) == Heard::Welcome);
    }

    #[test]
    fn memory_is_bounded_whatever_addresses_are_claimed() {
        let (mut s, set) = (Sources::default(), settings());
        for n in 0..5000_u32 {
            let from = IpAddr::from((0x0a00_0000 + n).to_be_bytes());
            s.hear(from, Time::from_secs(1), &set);
            s.ban(from, "scanner", Time::from_secs(u64::from(n)), &set);
            s.failed(IpAddr::from((0x0b00_0000 + n).to_be_bytes()), "malformed", Time::EPOCH, &set);
            assert!(s.recent.len() + s.earlier.len() <= set.max_sources && s.bans.len() <= 4);
            assert_eq!(s.bans.len(), s.ends.len());
        }
        assert_eq!(
            s.hear(IpAddr::from((0x0a00_0000 + 4999_u32).to_be_bytes()), Time::from_secs(5000), &set),
            Heard::Banned
        );
    }
}
