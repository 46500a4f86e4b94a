//! Breakout: to which trunks (PBX, gateway, BGCF) a request goes that is not for users of ours (TS 24.229 5.4.3.2, 5.6), in which
//! order, and which of them answer at all.

use ims_core::config::Span;
use ims_core::metrics::{Samples, catalogue};
use ims_core::uri::Uri;
use ims_core::{Rng, Time};
use ims_sip::headers::OF_THE_NETWORK;
use ims_sip::{Message, Name};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// Between the network and whoever is outside its trust domain, in either direction.
pub(crate) fn strip_assertions(message: &mut Message) {
    for name in OF_THE_NETWORK.into_iter().chain([Name::PCalledPartyId]) {
        message.remove(name);
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Breakout {
    /// By name.
    pub trunks: BTreeMap<String, Trunk>,
    pub routes: Vec<Route>,
    /// How often each trunk is asked with OPTIONS whether it is there; "0s": never, and it counts as there.
    pub options: Span,
    /// A trunk that says nothing for so long, when there is another, is given up for that one.
    pub answer: Span,
    /// A trunk that leaves so many of them unanswered, one after the other, gets no calls until it answers again.
    pub down_after: u32,
}

impl Default for Breakout {
    fn default() -> Self {
        Self {
            trunks: BTreeMap::new(),
            routes: Vec::new(),
            options: Span::secs(30),
            answer: Span::secs(5),
            down_after: 2,
        }
    }
}

/// One that calls can be given to.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trunk {
    /// Its SIP URI.
    pub uri: String,
    /// How it wants numbers.
    #[serde(default)]
    pub number: Form,
    /// It belongs to our trust domain: P-Asserted-Identity and its like stay.
    #[serde(default)]
    pub trusted: bool,
}

/// The Request-URI that a trunk gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// `sip:+49301234@TRUNK;user=phone`.
    #[default]
    Global,
    /// `sip:49301234@TRUNK;user=phone`.
    Digits,
    /// `sip:0301234@TRUNK;user=phone`, as it is dialled at home.
    National,
    /// `tel:+49301234`, as a BGCF wants it.
    Tel,
}

/// Which trunks a number or domain goes to.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// The beginning of a number, such as "+49", or "" for every number. The longest that fits counts.
    #[serde(default)]
    pub number: Option<String>,
    /// The domain of a SIP URI, or ".example.com" for all domains below it.
    #[serde(default)]
    pub domain: Option<String>,
    /// In this order; those of an inner list share the calls.
    pub trunks: Vec<Choice>,
}

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(untagged)]
pub enum Choice {
    One(String),
    Shared(Vec<Share>),
}

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(untagged)]
pub enum Share {
    Equal(String),
    Weighted { trunk: String, weight: u32 },
}

impl Share {
    fn trunk(&self) -> &str {
        match self {
            Self::Equal(trunk) | Self::Weighted { trunk, .. } => trunk,
        }
    }

    fn weight(&self) -> u64 {
        match self {
            Self::Equal(_) => 1,
            Self::Weighted { weight, .. } => u64::from(*weight),
        }
    }
}

impl Breakout {
    /// The trunks of the route that fits best.
    pub(crate) fn route_of_number(&self, number: &str) -> Option<&Route> {
        let fits = |route: &&Route| route.number.as_deref().is_some_and(|beginning| number.starts_with(beginning));
        // max_by_key takes the last of equals: the first is to count.
        let of = |route: &&Route| route.number.as_deref().map_or(0, str::len);
        self.routes.iter().rev().filter(fits).max_by_key(of)
    }

    pub(crate) fn route_of_domain(&self, host: &str) -> Option<&Route> {
        let host = host.to_ascii_lowercase();
        let fits = |route: &&Route| {
            let Some(domain) = route.domain.as_deref().map(str::to_ascii_lowercase) else { return false };
            if domain.starts_with('.') { host.ends_with(&domain) } else { host == domain }
        };
        let of = |route: &&Route| route.domain.as_deref().map_or(0, |d| d.len() + usize::from(!d.starts_with('.')));
        self.routes.iter().rev().filter(fits).max_by_key(of)
    }

    /// What is wrong with it, in one sentence.
    pub(crate) fn check(&self) -> Result<(), String> {
        for (name, trunk) in &self.trunks {
            if !Uri::parse(&trunk.uri).is_ok_and(|uri| uri.is_sip()) {
                return Err(format!("breakout.trunks.{name}.uri: write a SIP URI, such as sip:pbx.example:5060"));
            }
        }
        for route in &self.routes {
            if route.number.is_some() == route.domain.is_some() {
                return Err("breakout.routes: give each route a number or a domain".into());
            }
            let number = route.number.as_deref().unwrap_or_default();
            let digits = number.strip_prefix('+').unwrap_or(number);
            if !digits.bytes().all(|b| b.is_ascii_digit()) {
                return Err("breakout.routes.number: write the beginning of a number, such as \"+49\"".into());
            }
            let named: Vec<&str> = route.trunks.iter().flat_map(Choice::names).collect();
            if named.is_empty() || route.trunks.iter().any(|choice| choice.names().is_empty()) {
                return Err("breakout.routes.trunks: name at least one trunk".into());
            }
            if let Some(name) = named.iter().find(|name| !self.trunks.contains_key(**name)) {
                return Err(format!("breakout.routes.trunks: there is no [breakout.trunks.{name}]"));
            }
        }
        match self.down_after {
            0 => Err("breakout.down_after: 1 at least".into()),
            _ if self.answer.0.is_zero() => Err("breakout.answer: may not be zero".into()),
            _ => Ok(()),
        }
    }
}

impl Choice {
    fn names(&self) -> Vec<&str> {
        match self {
            Self::One(name) => vec![name],
            Self::Shared(shares) => shares.iter().map(Share::trunk).collect(),
        }
    }

    /// In the order to be tried in: drawn by weight.
    fn drawn<'a>(&'a self, rng: &mut Rng, into: &mut Vec<&'a str>) {
        let Self::Shared(shares) = self else { return into.extend(self.names()) };
        let mut left: Vec<&Share> = shares.iter().collect();
        while !left.is_empty() {
            let total: u64 = left.iter().map(|share| share.weight()).sum();
            let mut drawn = if total > 0 { rng.below(total) } else { 0 };
            let mut at = 0;
            for (i, share) in left.iter().enumerate() {
                at = i;
                match drawn.checked_sub(share.weight()) {
                    Some(rest) if total > 0 => drawn = rest,
                    _ => break,
                }
            }
            into.push(left.remove(at).trunk());
        }
    }
}

impl Trunk {
    /// The Request-URI for a number; `params` are those of the number, which a tel URI keeps.
    pub(crate) fn request_uri(&self, number: &str, national: &str, tel: &str) -> String {
        let digits = number.trim_start_matches('+');
        let user = match self.number {
            Form::Tel => return tel.to_owned(),
            Form::Global => number,
            Form::Digits => digits,
            Form::National => national,
        };
        let Ok(uri) = Uri::parse(&self.uri) else { return tel.to_owned() };
        let port = uri.port().map(|port| format!(":{port}")).unwrap_or_default();
        format!("sip:{user}@{}{port};user=phone", uri.host())
    }
}

/// Whether a trunk answers.
#[derive(Debug)]
struct Health {
    name: String,
    is_down: bool,
    /// OPTIONS without an answer, one after the other.
    silent: u32,
    since: Time,
    next: Time,
    /// It was asked, and has not answered yet.
    is_asked: bool,
    /// Requests that it was given, and those that it did not take.
    sent: u64,
    failed: u64,
}

/// All trunks, in the order of their names.
#[derive(Debug, Default)]
pub(crate) struct Trunks {
    all: Vec<Health>,
    every: Duration,
    down_after: u32,
}

impl Trunks {
    pub(crate) fn of(config: &Breakout) -> Self {
        let health = |name: &String| Health {
            name: name.clone(),
            is_down: false,
            silent: 0,
            since: Time::EPOCH,
            next: Time::EPOCH,
            is_asked: false,
            sent: 0,
            failed: 0,
        };
        let all = config.trunks.keys().map(health).collect();
        Self { all, every: config.options.0, down_after: config.down_after }
    }

    /// The first round: not all at the same moment.
    pub(crate) fn start(&mut self, now: Time, rng: &mut Rng) {
        let every = u64::try_from(self.every.as_micros()).unwrap_or(u64::MAX);
        for health in &mut self.all {
            let wait = if every == 0 { 0 } else { rng.below(every.min(1_000_000)) };
            (health.since, health.next) = (now, now + Duration::from_micros(wait));
        }
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        let waits = |health: &&Health| !self.every.is_zero() && !health.is_asked;
        self.all.iter().filter(waits).map(|health| health.next).min()
    }

    /// One that is to be asked now.
    pub(crate) fn pop_due(&mut self, now: Time) -> Option<String> {
        let every = self.every;
        // One that has not answered the last one is not asked again.
        let due = |health: &&mut Health| !every.is_zero() && !health.is_asked && health.next <= now;
        let health = self.all.iter_mut().find(due)?;
        health.next = now + every;
        health.is_asked = true;
        Some(health.name.clone())
    }

    /// It has answered, or will not.
    pub(crate) fn settle(&mut self, name: &str) {
        self.all.iter_mut().filter(|health| health.name == name).for_each(|health| health.is_asked = false);
    }

    pub(crate) fn count_sent(&mut self, name: &str) {
        self.all.iter_mut().filter(|health| health.name == name).for_each(|health| health.sent += 1);
    }

    pub(crate) fn count_failed(&mut self, name: &str) {
        self.all.iter_mut().filter(|health| health.name == name).for_each(|health| health.failed += 1);
    }

    /// What became of an OPTIONS. Says so when it is news.
    pub(crate) fn on_asked(&mut self, name: &str, answered: bool, now: Time) -> Option<bool> {
        let down_after = self.down_after;
        let health = self.all.iter_mut().find(|health| health.name == name)?;
        health.silent = if answered { 0 } else { health.silent.saturating_add(1) };
        let is_down = health.silent >= down_after;
        if health.is_down == is_down {
            return None;
        }
        (health.is_down, health.since) = (is_down, now);
        Some(!is_down)
    }

    /// Those of a route that are up, in the order to be tried in.
    pub(crate) fn draw(&self, route: &Route, rng: &mut Rng) -> Vec<String> {
        let mut names = Vec::new();
        route.trunks.iter().for_each(|choice| choice.drawn(rng, &mut names));
        let is_up = |name: &&str| self.all.iter().any(|health| health.name == *name && !health.is_down);
        names.into_iter().filter(is_up).map(str::to_owned).collect()
    }

    pub(crate) fn snapshot(&self) -> serde_json::Value {
        let of = |health: &Health| {
            serde_json::json!({"trunk": health.name, "up": !health.is_down, "since": health.since, "sent": health.sent,
                "failed": health.failed})
        };
        self.all.iter().map(of).collect()
    }

    pub(crate) fn metrics(&self, out: &mut Samples) {
        for health in &self.all {
            let name = health.name.as_str();
            out.size(&catalogue::TRUNK_UP, &[name], usize::from(!health.is_down));
            out.count(&catalogue::TRUNK_REQUESTS, &[name, "sent"], health.sent);
            out.count(&catalogue::TRUNK_REQUESTS, &[name, "failed"], health.failed);
        }
    }
}

/// Whether what a trunk answered is a reason to try the next one: it cannot now, or something is wrong with it. What it says
/// of the number or of the called user stands.
pub(crate) fn is_unable(status: u16) -> bool {
    matches!(status, 408 | 500..=599) && !matches!(status, 501 | 505 | 513)
}

/// The tel URI of a number, with what is known of its porting (RFC 4694).
pub(crate) fn tel_uri(number: &str, routing: Option<&str>, is_looked_up: bool) -> String {
    let rn = routing.map(|rn| format!(";rn={rn}")).unwrap_or_default();
    let npdi = if is_looked_up { ";npdi" } else { "" };
    format!("tel:{number}{npdi}{rn}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Breakout {
        let config: Breakout = ims_core::config::parse("breakout", text).unwrap();
        config.check().unwrap();
        config
    }

    const TWO: &str = "
        [trunks]
        a = { uri = 'sip:192.0.2.1:5080' }
        b = { uri = 'sip:b.example', number = 'national', trusted = true }
        c = { uri = 'sip:c.example', number = 'tel' }
        [[routes]]
        number = ''
        trunks = ['a']
        [[routes]]
        number = '+49'
        trunks = [['a', 'b'], 'c']
        [[routes]]
        number = '+49'
        trunks = ['c']
        [[routes]]
        domain = '.example'
        trunks = ['b']
        [[routes]]
        domain = 'pbx.example'
        trunks = [[{ trunk = 'c', weight = 0 }, { trunk = 'a', weight = 10 }]]";

    #[test]
    fn the_route_that_fits_best_counts() {
        let config = parse(TWO);
        let trunks = Trunks::of(&config);
        let mut rng = Rng::from_u64(3);
        let mut drawn = |route: Option<&Route>| route.map(|route| trunks.draw(route, &mut rng));
        assert_eq!(drawn(config.route_of_number("+1212")).unwrap(), ["a"]);
        assert_eq!(drawn(config.route_of_number("110")).unwrap(), ["a"]);
        assert_eq!(drawn(config.route_of_number("+4930")).unwrap().len(), 3);
        assert_eq!(drawn(config.route_of_number("+4930")).unwrap()[2], "c");
        assert_eq!(drawn(config.route_of_domain("x.Example")).unwrap(), ["b"]);
        assert_eq!(drawn(config.route_of_domain("PBX.example")).unwrap(), ["a", "c"], "a weight of 0 goes last");
        assert!(config.route_of_domain("example").is_none() && parse("").route_of_number("+1").is_none());
    }

    #[test]
    fn calls_are_shared_by_weight() {
        let config = parse(
            "trunks = { a = { uri = 'sip:a' }, b = { uri = 'sip:b' } }
            routes = [{ number = '', trunks = [[{ trunk = 'a', weight = 3 }, { trunk = 'b', weight = 1 }]] }]",
        );
        let (trunks, mut rng) = (Trunks::of(&config), Rng::from_u64(1));
        let first = (0..1000).filter(|_| trunks.draw(&config.routes[0], &mut rng)[0] == "a").count();
        assert!((700..800).contains(&first), "{first}");
    }

    #[test]
    fn a_trunk_is_down_after_some_silence_and_up_with_one_answer() {
        let config = parse(TWO);
        let (mut trunks, mut rng) = (Trunks::of(&config), Rng::from_u64(1));
        let at = |secs: u64| Time::from_secs(1000 + secs);
        trunks.start(at(0), &mut rng);
        let mut due: Vec<String> = std::iter::from_fn(|| trunks.pop_due(at(1))).collect();
        due.sort();
        assert_eq!(trunks.deadline(), None, "all are asked");
        due.iter().for_each(|name| trunks.settle(name));
        assert_eq!(due, ["a", "b", "c"]);
        assert_eq!(trunks.deadline(), Some(at(31)));
        assert_eq!(trunks.on_asked("a", false, at(2)), None);
        assert_eq!(trunks.on_asked("a", true, at(2)), None);
        assert_eq!(trunks.on_asked("a", false, at(3)), None);
        assert_eq!(trunks.on_asked("a", false, at(4)), Some(false));
        assert_eq!(trunks.on_asked("a", false, at(5)), None);
        assert!(trunks.draw(&config.routes[0], &mut rng).is_empty());
        assert_eq!(trunks.snapshot()[0]["up"], false);
        assert_eq!(trunks.on_asked("a", true, at(6)), Some(true));
        assert_eq!(trunks.draw(&config.routes[0], &mut rng), ["a"]);
        assert_eq!(trunks.on_asked("x", true, at(6)), None);
        let never = Trunks::of(&Breakout { options: Span::secs(0), ..config });
        assert_eq!(never.deadline(), None);
    }

    #[test]
    fn each_trunk_gets_numbers_as_it_wants_them() {
        let config = parse(TWO);
        let uri = |name: &str| {
            config.trunks[name].request_uri("+49301234", "0301234", &tel_uri("+49301234", Some("+499"), true))
        };
        assert_eq!(uri("a"), "sip:+49301234@192.0.2.1:5080;user=phone");
        assert_eq!(uri("b"), "sip:0301234@b.example;user=phone");
        assert_eq!(uri("c"), "tel:+49301234;npdi;rn=+499");
        let digits = Trunk { number: Form::Digits, ..config.trunks["a"].clone() };
        assert_eq!(digits.request_uri("+49301234", "", ""), "sip:49301234@192.0.2.1:5080;user=phone");
    }

    #[test]
    fn what_cannot_be_meant_is_an_error() {
        for text in [
            "trunks.a.uri = 'a.example'",
            "routes = [{ trunks = ['a'] }]",
            "routes = [{ number = '+49', trunks = ['a'] }]",
            "routes = [{ number = '+49', trunks = [] }]",
            "trunks.a.uri = 'sip:a'\nroutes = [{ number = '', trunks = ['a', []] }]",
            "trunks.a.uri = 'sip:a'\nroutes = [{ number = '49x', trunks = ['a'] }]",
            "trunks.a.uri = 'sip:a'\nroutes = [{ number = '', domain = 'x', trunks = ['a'] }]",
            "down_after = 0",
        ] {
            assert!(ims_core::config::parse::<Breakout>("x", text).unwrap().check().is_err(), "{text}");
        }
    }

    #[test]
    fn only_inability_is_a_reason_for_another_trunk() {
        for (status, unable) in
            [(408, true), (500, true), (503, true), (404, false), (486, false), (501, false), (603, false)]
        {
            assert_eq!(is_unable(status), unable, "{status}");
        }
    }
}
