//! Server location by RFC 3263, static next hops first.
//!
//! A [`plan`] is a pure function of the URI, the static table and the DNS answers known so far: it gives the targets
//! in order, or the questions that are still open. The [`Locator`] asks them, remembers answers for a short time, and
//! knows which targets failed lately.

use ims_core::config::Span;
use ims_core::dns::{DnsError, DnsQuery, DnsRecord};
use ims_core::uri::{Scheme, Uri, parse_ip, split_hostport};
use ims_core::{Action, Ctx, RequestId, Rng, Time, Transport};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

const SIP_PORT: u16 = 5060;
/// Bounds on what one request may make us ask and keep.
const MAX_TARGETS: usize = 32;
const MAX_SERVICES: usize = 4;
const MAX_REMEMBERED: usize = 512;
/// A target that goes on failing is avoided for longer: 2^3 times as long at most.
const LONGEST_AVOIDED: u32 = 3;
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);
/// What is avoided may be avoided longer by one part of so many.
const SPREAD: u32 = 4;
/// Ids of DNS requests are drawn from the top half; the node has the other.
const ID_BASE: u64 = 1 << 63;

/// Host name (lower case; or `host:port`) -> where to send, in order of preference. Filled from config `[next_hops]`.
#[derive(Clone, Debug, Default)]
pub struct StaticHops(pub BTreeMap<String, Vec<Target>>);

impl StaticHops {
    /// From `[next_hops]` as it is written. The error is one sentence for the operator.
    pub fn read(written: &BTreeMap<String, Vec<String>>) -> Result<Self, String> {
        let read_one = |(host, targets): (&String, &Vec<String>)| {
            let parsed: Option<Vec<Target>> = targets.iter().map(|t| Target::parse(t)).collect();
            let wrong = || format!("next_hops.\"{host}\": write targets such as \"udp:192.0.2.1:5060\"");
            let targets = parsed.filter(|targets| !targets.is_empty()).ok_or_else(wrong)?;
            Ok((host.to_ascii_lowercase(), targets))
        };
        written.iter().map(read_one).collect::<Result<_, String>>().map(Self)
    }
}

/// An address, or a name with port for the system resolver ("scscf:6060" in compose).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    pub transport: Option<Transport>,
    pub host: String,
    pub port: u16,
}

impl Target {
    /// From `udp:127.0.0.1:4060`, `tcp:[::1]:4060`, `127.0.0.1:4060` (transport chosen by size), `icscf:4060`.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (transport, rest) = match text.split_once(':') {
            Some((t, rest)) if t.eq_ignore_ascii_case("udp") => (Some(Transport::Udp), rest),
            Some((t, rest)) if t.eq_ignore_ascii_case("tcp") => (Some(Transport::Tcp), rest),
            _ => (None, text),
        };
        let (host, port) = split_hostport(rest).ok()?;
        Some(Self { transport, host: host.to_ascii_lowercase(), port: port.unwrap_or(SIP_PORT) })
    }
}

/// How servers are found, and what limits their use.
#[derive(Clone, PartialEq, Eq, Debug, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LocateConfig {
    /// For how long all DNS questions of one request together may take.
    pub dns_timeout: Span,
    /// For how long an answer is used again without asking.
    pub dns_cache: Span,
    /// For how long a target that failed is tried only after the others.
    pub avoid_failed: Span,
    /// Requests larger than this, in octets, go to a UE by TCP (RFC 3261 18.1.1); ESP needs its share of the MTU.
    pub ue_udp_limit: usize,
    /// For how long an INVITE may ring (timer C, RFC 3261 16.6 item 11: more than 3 minutes).
    pub timer_c: Span,
}

impl Default for LocateConfig {
    fn default() -> Self {
        Self {
            dns_timeout: Span::secs(5),
            dns_cache: Span::secs(10),
            avoid_failed: Span::secs(10),
            ue_udp_limit: 1300,
            timer_c: Span::secs(190),
        }
    }
}

/// One address to try; without a transport the size of the request decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hop {
    pub transport: Option<Transport>,
    pub addr: SocketAddr,
}

pub type Answer = Result<Vec<DnsRecord>, DnsError>;
/// What one request has learnt so far.
pub type Known = BTreeMap<DnsQuery, Answer>;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Plan {
    /// At least one target, best first.
    Ready(Vec<Hop>),
    /// Not to be told before these are answered.
    Ask(Vec<DnsQuery>),
    Fail(DnsError),
}

/// Where to send by RFC 3263 4, given the answers `known`. Only addresses of the family of `local` are of use.
pub fn plan(uri: &str, table: &StaticHops, local: IpAddr, known: &Known, rng: &mut Rng) -> Plan {
    let Ok(uri) = Uri::parse(uri) else {
        return Plan::Fail(DnsError::NoSuchName);
    };
    let host = uri.host().trim_end_matches('.').to_ascii_lowercase();
    let mut planner = Planner { known, rng, open: Vec::new(), error: None, hops: Vec::new() };
    if let Some(targets) = static_targets(table, &host, uri.port()) {
        for target in targets {
            planner.add_host(target.transport, &target.host, target.port);
        }
        return planner.finish(local);
    }
    // We have no TLS: sips cannot be kept (RFC 3261 26.2.2), tel and urn name no server.
    if uri.scheme() != Scheme::Sip {
        return Plan::Fail(DnsError::NoRecord);
    }
    let transport = match uri.param("transport").flatten() {
        None => None,
        Some(t) if t.eq_ignore_ascii_case("udp") => Some(Transport::Udp),
        Some(t) if t.eq_ignore_ascii_case("tcp") => Some(Transport::Tcp),
        Some(_) => return Plan::Fail(DnsError::NoRecord),
    };
    if uri.host_ip().is_some() || uri.port().is_some() {
        planner.add_host(transport, &host, uri.port().unwrap_or(SIP_PORT));
    } else {
        planner.add_domain(transport, &host);
    }
    planner.finish(local)
}

fn static_targets<'a>(table: &'a StaticHops, host: &str, port: Option<u16>) -> Option<&'a Vec<Target>> {
    let exact = port.and_then(|port| table.0.get(&format!("{host}:{port}")));
    exact.or_else(|| table.0.get(host)).filter(|targets| !targets.is_empty())
}

struct Planner<'a> {
    known: &'a Known,
    rng: &'a mut Rng,
    open: Vec<DnsQuery>,
    /// The worst thing a resolver said, for when nothing is found.
    error: Option<DnsError>,
    hops: Vec<Hop>,
}

impl<'a> Planner<'a> {
    fn records(&mut self, query: DnsQuery) -> &'a [DnsRecord] {
        match self.known.get(&query) {
            Some(Ok(records)) => return records,
            Some(Err(error)) => {
                if *error == DnsError::Unavailable || self.error.is_none() {
                    self.error = Some(*error);
                }
            }
            None if self.open.contains(&query) => {}
            None => self.open.push(query),
        }
        &[]
    }

    fn add_host(&mut self, transport: Option<Transport>, host: &str, port: u16) {
        if self.hops.len() >= MAX_TARGETS || self.open.len() >= MAX_TARGETS {
            return;
        }
        if let Some(ip) = parse_ip(host) {
            self.hops.push(Hop { transport, addr: SocketAddr::new(ip, port) });
            return;
        }
        for record in self.records(DnsQuery::Address(host.into())) {
            if let DnsRecord::Address(ip) = record {
                self.hops.push(Hop { transport, addr: SocketAddr::new(*ip, port) });
            }
        }
    }

    /// A name without port: NAPTR unless the transport is given, then SRV, then the address (RFC 3263 4.1, 4.2).
    fn add_domain(&mut self, transport: Option<Transport>, domain: &str) {
        let services = match transport {
            Some(Transport::Udp) => vec![(Transport::Udp, format!("_sip._udp.{domain}"))],
            Some(Transport::Tcp) => vec![(Transport::Tcp, format!("_sip._tcp.{domain}"))],
            None => self.services(domain),
        };
        if !self.open.is_empty() {
            return;
        }
        for (transport, name) in services {
            for (host, port) in self.service(&name) {
                self.add_host(Some(transport), &host, port);
            }
        }
        if self.open.is_empty() && self.hops.is_empty() {
            self.add_host(transport, domain, SIP_PORT);
        }
    }

    fn services(&mut self, domain: &str) -> Vec<(Transport, String)> {
        let mut found: Vec<(u16, u16, Transport, String)> = Vec::new();
        for record in self.records(DnsQuery::Naptr(domain.into())) {
            let DnsRecord::Naptr { order, preference, flags, service, replacement, .. } = record else {
                continue;
            };
            let transport = match service.to_ascii_uppercase().as_str() {
                "SIP+D2U" => Transport::Udp,
                "SIP+D2T" => Transport::Tcp,
                _ => continue,
            };
            let name = replacement.trim_end_matches('.').to_ascii_lowercase();
            if flags.eq_ignore_ascii_case("s") && !name.is_empty() {
                found.push((*order, *preference, transport, name));
            }
        }
        if found.is_empty() {
            return vec![
                (Transport::Udp, format!("_sip._udp.{domain}")),
                (Transport::Tcp, format!("_sip._tcp.{domain}")),
            ];
        }
        found.sort();
        found.into_iter().take(MAX_SERVICES).map(|(_, _, transport, name)| (transport, name)).collect()
    }

    /// The hosts of a service in the order of RFC 2782: by priority, and drawn by weight within one.
    fn service(&mut self, name: &str) -> Vec<(String, u16)> {
        let mut left: Vec<(u16, u64, String, u16)> = Vec::new();
        for record in self.records(DnsQuery::Srv(name.into())) {
            let DnsRecord::Srv { priority, weight, port, target } = record else {
                continue;
            };
            let target = target.trim_end_matches('.').to_ascii_lowercase();
            if !target.is_empty() && *port > 0 && left.len() < MAX_TARGETS {
                left.push((*priority, u64::from(*weight), target, *port));
            }
        }
        // Weight 0 comes first, so that it has a very small chance of being drawn early (RFC 2782).
        left.sort();
        let mut drawn = Vec::with_capacity(left.len());
        while let Some(&(best, ..)) = left.first() {
            let rivals = left.iter().take_while(|(priority, ..)| *priority == best);
            let total: u64 = rivals.clone().map(|(_, weight, ..)| weight).sum();
            let mut lot = self.rng.below(total + 1);
            let pick = rivals.clone().position(|(_, weight, ..)| {
                let hit = lot <= *weight;
                lot = lot.saturating_sub(*weight);
                hit
            });
            let (_, _, host, port) = left.remove(pick.unwrap_or(0));
            drawn.push((host, port));
        }
        drawn
    }

    fn finish(self, local: IpAddr) -> Plan {
        if !self.open.is_empty() {
            return Plan::Ask(self.open);
        }
        let mut hops: Vec<Hop> = Vec::new();
        for hop in self.hops {
            if hop.addr.is_ipv4() == local.is_ipv4() && !hops.contains(&hop) && hops.len() < MAX_TARGETS {
                hops.push(hop);
            }
        }
        if hops.is_empty() { Plan::Fail(self.error.unwrap_or(DnsError::NoRecord)) } else { Plan::Ready(hops) }
    }
}

pub(crate) enum Located {
    Ready(Vec<Hop>),
    Waiting,
    Failed(DnsError),
}

/// Asks and remembers. Requests are known by the number that the endpoint gave them.
pub(crate) struct Locator {
    config: LocateConfig,
    table: StaticHops,
    local: IpAddr,
    next: u64,
    answers: BTreeMap<DnsQuery, (Answer, Time)>,
    open: BTreeMap<u64, (DnsQuery, Vec<u64>)>,
    asked: BTreeMap<DnsQuery, u64>,
    failed: BTreeMap<(SocketAddr, Transport), Failed>,
}

/// A target that failed, until it may be tried again.
struct Failed {
    since: Time,
    until: Time,
    /// How often it failed in a row, each time after it had been avoided.
    times: u32,
}

impl Locator {
    pub(crate) fn new(config: LocateConfig, table: StaticHops, local: IpAddr) -> Self {
        Self {
            config,
            table,
            local,
            next: 0,
            answers: BTreeMap::new(),
            open: BTreeMap::new(),
            asked: BTreeMap::new(),
            failed: BTreeMap::new(),
        }
    }

    /// Goes as far as it can for `request`; called again when one of its questions is answered.
    pub(crate) fn locate(&mut self, request: u64, uri: &str, known: &mut Known, ctx: &mut Ctx<'_>) -> Located {
        loop {
            match plan(uri, &self.table, self.local, known, ctx.rng) {
                Plan::Fail(error) => return Located::Failed(error),
                Plan::Ready(mut hops) => {
                    if hops.len() > 1 && !self.failed.is_empty() {
                        hops.sort_by_key(|hop| self.has_failed(hop, ctx.now));
                    }
                    return Located::Ready(hops);
                }
                Plan::Ask(queries) => {
                    let mut news = false;
                    for query in queries {
                        match self.answers.get(&query).filter(|(_, until)| *until > ctx.now) {
                            Some((answer, _)) => {
                                known.insert(query, answer.clone());
                                news = true;
                            }
                            None => self.ask(request, query, ctx),
                        }
                    }
                    if !news {
                        return Located::Waiting;
                    }
                }
            }
        }
    }

    fn ask(&mut self, request: u64, query: DnsQuery, ctx: &mut Ctx<'_>) {
        let open = self.asked.get(&query).and_then(|id| self.open.get_mut(id));
        if let Some((_, waiters)) = open {
            if !waiters.contains(&request) {
                waiters.push(request);
            }
            return;
        }
        let id = ID_BASE | self.next;
        self.next += 1;
        self.open.insert(id, (query.clone(), vec![request]));
        self.asked.insert(query.clone(), id);
        ctx.act(Action::Dns { id: RequestId(id), query });
    }

    /// Whether the id is one of ours at all.
    pub(crate) fn owns(id: RequestId) -> bool {
        id.0 & ID_BASE != 0
    }

    /// The question, its answer, and the requests that wait for it; None when nobody does any more. When DNS is not
    /// there, what it said last still holds.
    pub(crate) fn on_answer(
        &mut self,
        id: RequestId,
        mut answer: Answer,
        now: Time,
    ) -> Option<(DnsQuery, Answer, Vec<u64>)> {
        let (query, waiters) = self.open.remove(&id.0)?;
        self.asked.remove(&query);
        if answer == Err(DnsError::Unavailable)
            && let Some((old @ Ok(_), _)) = self.answers.get(&query)
        {
            answer = old.clone();
        }
        if answer != Err(DnsError::Unavailable) {
            bound(&mut self.answers, now, |(_, until)| *until);
            self.answers.insert(query.clone(), (answer.clone(), now + self.config.dns_cache.0));
        }
        Some((query, answer, waiters))
    }

    /// `request` waits no longer.
    pub(crate) fn forget(&mut self, request: u64) {
        let asked = &mut self.asked;
        self.open.retain(|_, (query, waiters)| {
            waiters.retain(|waiter| *waiter != request);
            if waiters.is_empty() {
                asked.remove(query);
            }
            !waiters.is_empty()
        });
    }

    /// `transport` to `addr` failed: others first for a while. All nodes that lost it at the same moment are not to come back to it at
    /// the same moment.
    pub(crate) fn on_failure(&mut self, addr: SocketAddr, transport: Transport, ctx: &mut Ctx<'_>) {
        let now = ctx.now;
        let known = self.failed.get(&(addr, transport));
        if known.is_some_and(|failed| failed.until > now) {
            // It was under way when the target failed.
            return;
        }
        let times = known.filter(|f| now.since(f.until) <= MAX_RETRY_AFTER).map_or(0, |f| f.times);
        let wait = self.config.avoid_failed.0.saturating_mul(1 << times.min(LONGEST_AVOIDED));
        let spread = u64::try_from((wait / SPREAD).as_micros()).unwrap_or(u64::MAX);
        let jitter = Duration::from_micros(ctx.rng.below(spread.max(1)));
        self.avoid(addr, transport, wait + jitter, now);
    }

    /// It answered 503: others first for as long as it says (RFC 3261 21.5.4), within reason.
    pub(crate) fn on_busy(&mut self, addr: SocketAddr, transport: Transport, retry_after: Option<u32>, now: Time) {
        let wait = retry_after.map_or(self.config.avoid_failed.0, |s| Duration::from_secs(s.into()));
        self.avoid(addr, transport, wait.min(MAX_RETRY_AFTER), now);
    }

    fn avoid(&mut self, addr: SocketAddr, transport: Transport, wait: Duration, now: Time) {
        bound(&mut self.failed, now, |failed| failed.until);
        let failed = self.failed.entry((addr, transport)).or_insert(Failed { since: now, until: now, times: 0 });
        if now.since(failed.until) > MAX_RETRY_AFTER {
            // It may have been well between: nobody asked.
            (failed.since, failed.times) = (now, 0);
        }
        failed.times += 1;
        failed.until = failed.until.max(now + wait);
    }

    pub(crate) fn on_success(&mut self, addr: SocketAddr, transport: Transport) {
        if !self.failed.is_empty() {
            self.failed.remove(&(addr, transport));
        }
    }

    fn has_failed(&self, hop: &Hop, now: Time) -> bool {
        let failed = |t| self.failed.get(&(hop.addr, t)).is_some_and(|f| f.until > now);
        match hop.transport {
            Some(transport) => failed(transport),
            None => failed(Transport::Udp) || failed(Transport::Tcp),
        }
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.open.is_empty()
    }

    pub(crate) fn snapshot(&self, now: Time) -> serde_json::Value {
        let failed: Vec<serde_json::Value> = self
            .failed
            .iter()
            .filter(|(_, failed)| failed.until > now)
            .map(|((a, t), failed)| {
                let for_s = now.since(failed.since).as_secs();
                serde_json::json!({ "target": format!("{t}:{a}"), "since": failed.since.secs(), "for_s": for_s })
            })
            .collect();
        serde_json::json!({ "questions": self.open.len(), "remembered": self.answers.len(), "failed": failed })
    }
}

/// Keeps a memory small: what is over goes, and if that is not enough, everything.
fn bound<K: Ord, V>(memory: &mut BTreeMap<K, V>, now: Time, until: impl Fn(&V) -> Time) {
    if memory.len() >= MAX_REMEMBERED {
        memory.retain(|_, value| until(value) > now);
        if memory.len() >= MAX_REMEMBERED {
            memory.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);

    fn table(entries: &[(&str, &[&str])]) -> StaticHops {
        let targets = |list: &[&str]| list.iter().map(|t| Target::parse(t).unwrap()).collect();
        StaticHops(entries.iter().map(|(host, list)| ((*host).into(), targets(list))).collect())
    }

    #[test]
    fn the_table_is_read_as_it_is_written_or_the_host_with_the_mistake_is_named() {
        let written = |host: &str, targets: &[&str]| {
            let targets = targets.iter().map(|t| (*t).to_owned()).collect();
            StaticHops::read(&BTreeMap::from([(host.to_owned(), targets)]))
        };
        let hops = written("ICSCF.example", &["udp:192.0.2.1:4060", "icscf:4060"]).unwrap();
        let expected = ["udp:192.0.2.1:4060", "icscf:4060"].map(|t| Target::parse(t).unwrap());
        assert_eq!(hops.0["icscf.example"], expected);
        for wrong in [&[][..], &["udp:"], &["udp:h:1", "a b"]] {
            assert!(written("h.example", wrong).unwrap_err().contains("next_hops.\"h.example\""), "{wrong:?}");
        }
    }

    fn run(uri: &str, hops: &StaticHops, known: &Known) -> Plan {
        plan(uri, hops, V4, known, &mut Rng::from_u64(1))
    }

    fn ready(plan: Plan) -> Vec<String> {
        let Plan::Ready(hops) = plan else { panic!("{plan:?}") };
        hops.iter().map(|h| format!("{}:{}", h.transport.map_or("-".into(), |t| t.to_string()), h.addr)).collect()
    }

    fn srv(priority: u16, weight: u16, port: u16, target: &str) -> DnsRecord {
        DnsRecord::Srv { priority, weight, port, target: target.into() }
    }

    fn naptr(order: u16, preference: u16, service: &str, replacement: &str) -> DnsRecord {
        DnsRecord::Naptr {
            order,
            preference,
            flags: "s".into(),
            service: service.into(),
            regexp: String::new(),
            replacement: replacement.into(),
        }
    }

    fn addr(ip: &str) -> Answer {
        Ok(vec![DnsRecord::Address(ip.parse().unwrap())])
    }

    #[test]
    fn targets_are_read_with_and_without_transport() {
        let target = |t, host: &str, port| Some(Target { transport: t, host: host.into(), port });
        assert_eq!(Target::parse("udp:127.0.0.1:4060"), target(Some(Transport::Udp), "127.0.0.1", 4060));
        assert_eq!(Target::parse("tcp:[::1]:4060"), target(Some(Transport::Tcp), "[::1]", 4060));
        assert_eq!(Target::parse("127.0.0.1:4060"), target(None, "127.0.0.1", 4060));
        assert_eq!(Target::parse("ICSCF:4060"), target(None, "icscf", 4060));
        assert_eq!(Target::parse("icscf"), target(None, "icscf", 5060));
        for bad in ["", "udp:", "udp:host:x", "tls:host:5061:1", "a b"] {
            assert_eq!(Target::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_static_table_comes_first_with_the_port_before_without() {
        let hops = table(&[
            ("home.example:6060", &["tcp:127.0.0.3:1"]),
            ("home.example", &["udp:127.0.0.2:2", "127.0.0.4:3"]),
        ]);
        let none = Known::new();
        assert_eq!(ready(run("sip:orig@HOME.example:6060;lr", &hops, &none)), ["tcp:127.0.0.3:1"]);
        assert_eq!(ready(run("sip:home.example", &hops, &none)), ["udp:127.0.0.2:2", "-:127.0.0.4:3"]);
        assert_eq!(ready(run("sip:home.example:9", &hops, &none)), ["udp:127.0.0.2:2", "-:127.0.0.4:3"]);
    }

    #[test]
    fn a_static_hop_that_is_a_name_is_asked_for() {
        let hops = table(&[("home.example", &["udp:scscf:6060"])]);
        let question = DnsQuery::Address("scscf".into());
        assert_eq!(run("sip:home.example", &hops, &Known::new()), Plan::Ask(vec![question.clone()]));
        let known = Known::from([(question, addr("127.0.0.7"))]);
        assert_eq!(ready(run("sip:home.example", &hops, &known)), ["udp:127.0.0.7:6060"]);
    }

    #[test]
    fn addresses_need_no_dns_and_must_be_of_our_family() {
        let (hops, none) = (StaticHops::default(), Known::new());
        assert_eq!(ready(run("sip:u@192.0.2.1;transport=tcp", &hops, &none)), ["tcp:192.0.2.1:5060"]);
        assert_eq!(ready(run("sip:192.0.2.1:7", &hops, &none)), ["-:192.0.2.1:7"]);
        assert_eq!(run("sip:[2001:db8::1]", &hops, &none), Plan::Fail(DnsError::NoRecord));
        let v6 = plan("sip:[2001:db8::1]", &hops, V6, &none, &mut Rng::from_u64(1));
        assert_eq!(ready(v6), ["-:[2001:db8::1]:5060"]);
    }

    #[test]
    fn a_domain_goes_by_naptr_srv_and_address() {
        let (hops, mut known) = (StaticHops::default(), Known::new());
        assert_eq!(run("sip:d.example", &hops, &known), Plan::Ask(vec![DnsQuery::Naptr("d.example".into())]));
        let services = vec![
            naptr(20, 1, "SIP+D2U", "_sip._udp.d.example."),
            naptr(10, 1, "SIPS+D2T", "_sips._tcp.d.example."),
            naptr(10, 2, "sip+d2t", "_SIP._tcp.d.example."),
        ];
        known.insert(DnsQuery::Naptr("d.example".into()), Ok(services));
        let (tcp, udp) = (DnsQuery::Srv("_sip._tcp.d.example".into()), DnsQuery::Srv("_sip._udp.d.example".into()));
        assert_eq!(run("sip:d.example", &hops, &known), Plan::Ask(vec![tcp.clone(), udp.clone()]));
        known.insert(tcp, Ok(vec![srv(2, 0, 5062, "b.example."), srv(1, 0, 5061, "a.example.")]));
        known.insert(udp, Err(DnsError::NoRecord));
        let (a, b) = (DnsQuery::Address("a.example".into()), DnsQuery::Address("b.example".into()));
        assert_eq!(run("sip:d.example", &hops, &known), Plan::Ask(vec![a.clone(), b.clone()]));
        known.insert(a, addr("192.0.2.1"));
        known.insert(b, addr("192.0.2.2"));
        assert_eq!(ready(run("sip:d.example", &hops, &known)), ["tcp:192.0.2.1:5061", "tcp:192.0.2.2:5062"]);
    }

    #[test]
    fn without_any_service_record_the_address_is_used() {
        let hops = StaticHops::default();
        let mut known = Known::from([
            (DnsQuery::Naptr("d.example".into()), Err(DnsError::NoRecord)),
            (DnsQuery::Srv("_sip._udp.d.example".into()), Ok(vec![])),
            (DnsQuery::Srv("_sip._tcp.d.example".into()), Err(DnsError::NoRecord)),
        ]);
        assert_eq!(run("sip:d.example", &hops, &known), Plan::Ask(vec![DnsQuery::Address("d.example".into())]));
        known.insert(DnsQuery::Address("d.example".into()), addr("192.0.2.9"));
        assert_eq!(ready(run("sip:d.example", &hops, &known)), ["-:192.0.2.9:5060"]);
    }

    #[test]
    fn a_transport_parameter_skips_naptr_and_a_port_skips_srv() {
        let (hops, none) = (StaticHops::default(), Known::new());
        let tcp = DnsQuery::Srv("_sip._tcp.d.example".into());
        assert_eq!(run("sip:d.example;transport=tcp", &hops, &none), Plan::Ask(vec![tcp]));
        let address = DnsQuery::Address("d.example".into());
        assert_eq!(run("sip:d.example:5070", &hops, &none), Plan::Ask(vec![address]));
    }

    #[test]
    fn weights_share_the_load() {
        let name = DnsQuery::Srv("_sip._udp.d.example".into());
        let mut known = Known::from([(name, Ok(vec![srv(1, 90, 1, "a"), srv(1, 10, 2, "b"), srv(0, 0, 3, "c")]))]);
        for (host, ip) in [("a", "192.0.2.1"), ("b", "192.0.2.2"), ("c", "192.0.2.3")] {
            known.insert(DnsQuery::Address(host.into()), addr(ip));
        }
        let mut rng = Rng::from_u64(3);
        let mut second = [0; 2];
        for _ in 0..1000 {
            let order = ready(plan("sip:d.example;transport=udp", &StaticHops::default(), V4, &known, &mut rng));
            assert_eq!(order[0], "udp:192.0.2.3:3");
            second[usize::from(order[1] == "udp:192.0.2.2:2")] += 1;
        }
        assert!((60..160).contains(&second[1]), "{second:?}");
    }

    #[test]
    fn what_cannot_be_reached_says_so() {
        let (hops, none) = (StaticHops::default(), Known::new());
        for uri in ["sips:a.example", "tel:+4912345", "sip:a.example;transport=sctp"] {
            assert_eq!(run(uri, &hops, &none), Plan::Fail(DnsError::NoRecord), "{uri}");
        }
        assert_eq!(run("nonsense", &hops, &none), Plan::Fail(DnsError::NoSuchName));
        let known = Known::from([(DnsQuery::Address("a.example".into()), Err(DnsError::Unavailable))]);
        assert_eq!(run("sip:a.example:1", &hops, &known), Plan::Fail(DnsError::Unavailable));
    }

    #[test]
    fn one_question_serves_all_who_ask_and_is_remembered_for_a_while() {
        let mut locator = Locator::new(LocateConfig::default(), StaticHops::default(), V4);
        let (mut rng, mut actions) = (Rng::from_u64(1), Vec::new());
        let mut go = |locator: &mut Locator, request, secs, known: &mut Known| {
            let mut ctx = Ctx { now: Time::from_secs(secs), rng: &mut rng, actions: &mut actions };
            let located = locator.locate(request, "sip:a.example:5060", known, &mut ctx);
            (matches!(located, Located::Ready(_)), ctx.actions.len())
        };
        assert_eq!(go(&mut locator, 1, 0, &mut Known::new()), (false, 1));
        assert_eq!(go(&mut locator, 2, 0, &mut Known::new()), (false, 1));
        let answered = locator.on_answer(RequestId(ID_BASE), addr("192.0.2.1"), Time::from_secs(0));
        assert_eq!(answered, Some((DnsQuery::Address("a.example".into()), addr("192.0.2.1"), vec![1, 2])));
        assert!(locator.is_quiet());
        assert_eq!(go(&mut locator, 3, 9, &mut Known::new()), (true, 1));
        assert_eq!(go(&mut locator, 4, 11, &mut Known::new()), (false, 2));
        locator.forget(4);
        assert!(locator.is_quiet() && locator.asked.is_empty());
        assert_eq!(go(&mut locator, 5, 12, &mut Known::new()), (false, 3));
        let gone = Err(DnsError::Unavailable);
        let stale = locator.on_answer(RequestId(ID_BASE + 2), gone, Time::from_secs(12));
        assert_eq!(stale.map(|(_, answer, _)| answer), Some(addr("192.0.2.1")), "DNS is gone: the last answer holds");
    }

    #[test]
    fn a_target_that_goes_on_failing_is_avoided_for_longer() {
        let mut locator = Locator::new(LocateConfig::default(), StaticHops::default(), V4);
        let addr: SocketAddr = "192.0.2.1:5060".parse().unwrap();
        let at = Time::from_secs;
        let until = |locator: &Locator| locator.failed[&(addr, Transport::Udp)].until.secs();
        let (mut rng, mut actions) = (Rng::from_u64(1), Vec::new());
        let mut fail = |locator: &mut Locator, secs| {
            let mut ctx = Ctx { now: at(secs), rng: &mut rng, actions: &mut actions };
            locator.on_failure(addr, Transport::Udp, &mut ctx);
            let until = locator.failed[&(addr, Transport::Udp)].until;
            until.since(at(secs)).as_millis()
        };
        let mut waits = Vec::new();
        for (fails, least, most) in [(0, 10_000, 12_500), (3, 0, 9_500), (14, 20_000, 25_000), (40, 40_000, 50_000)] {
            waits.push(fail(&mut locator, fails));
            assert!((least..most).contains(&waits[waits.len() - 1]), "fails at {fails}: {waits:?}");
        }
        assert!(waits.iter().any(|w| w % 10_000 != 0), "not all at the same moment: {waits:?}");
        for fails in [91, 192] {
            assert!((80_000..100_000).contains(&fail(&mut locator, fails)));
        }
        let told = locator.snapshot(at(200))["failed"].clone();
        assert_eq!(told, serde_json::json!([{ "target": "udp:192.0.2.1:5060", "since": 0, "for_s": 200 }]));
        assert!((10_000..12_500).contains(&fail(&mut locator, 1000)), "nobody asked for a long time");
        locator.on_busy(addr, Transport::Udp, Some(30), at(1001));
        assert_eq!(until(&locator), 1031);
        locator.on_success(addr, Transport::Udp);
        assert_eq!(locator.snapshot(at(1002))["failed"], serde_json::json!([]));
    }
}
