//! ENUM (RFC 6116): what DNS knows of a number. NAPTR records of the services E2U+sip (RFC 3764) and E2U+pstn (RFC 4769) give
//! a URI; the latter may say that a number is ported (RFC 4694). One question a number and a while, and one more for each
//! record that leads on.

use crate::numbering::Enum;
use ims_core::dns::{DnsError, DnsQuery, DnsRecord};
use ims_core::time::Timers;
use ims_core::uri::{Scheme, Uri};
use ims_core::{Action, Ctx, RequestId, Time};
use ims_sip::endpoint::ServerTx;
use regex::{Captures, RegexBuilder};
use std::collections::{BTreeMap, VecDeque};

/// Records that lead on to other names: so many one after the other.
const MOST_STEPS: u8 = 4;
/// Numbers whose answer is remembered.
const MOST_REMEMBERED: usize = 20_000;
/// Questions on their way; beyond that a number is as good as unknown.
const MOST_ASKED: usize = 2_000;
const LONGEST_EXPRESSION: usize = 255;
const LONGEST_URI: usize = 512;
/// Bytes of a compiled expression.
const MOST_PROGRAM: usize = 64 * 1024;
/// Of the lower half: the upper one is of the SIP locator. Cx requests begin at its beginning.
const ID_BASE: u64 = 1 << 62;

/// A question on its way.
#[derive(Debug)]
struct Asked {
    tx: ServerTx,
    number: String,
    step: u8,
}

#[derive(Debug, Default)]
pub(crate) struct Lookups {
    asked: BTreeMap<RequestId, Asked>,
    ends: Timers<RequestId>,
    known: BTreeMap<String, (Time, Option<String>)>,
    /// In the order in which they end.
    order: VecDeque<(Time, String)>,
    last: u64,
}

/// What came of it for a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answered {
    pub(crate) tx: ServerTx,
    pub(crate) uri: Option<String>,
    /// DNS did not answer.
    pub(crate) is_silent: bool,
}

impl Lookups {
    /// Some: it is known already, or cannot be asked now. None: the answer comes.
    pub(crate) fn ask(&mut self, config: &Enum, tx: ServerTx, number: &str, ctx: &mut Ctx<'_>) -> Option<Answered> {
        if let Some((_, uri)) = self.known.get(number).filter(|(until, _)| *until > ctx.now) {
            return Some(Answered { tx, uri: uri.clone(), is_silent: false });
        }
        if self.asked.len() >= MOST_ASKED {
            return Some(Answered { tx, uri: None, is_silent: true });
        }
        let name = name_of(number, &config.suffix);
        self.send(config, Asked { tx, number: number.to_owned(), step: 0 }, name, ctx);
        None
    }

    fn send(&mut self, config: &Enum, asked: Asked, name: String, ctx: &mut Ctx<'_>) {
        self.last += 1;
        let id = RequestId(ID_BASE | self.last);
        self.asked.insert(id, asked);
        self.ends.set(id, ctx.now + config.timeout.0);
        ctx.act(Action::Dns { id, query: DnsQuery::Naptr(name) });
    }

    pub(crate) fn owns(id: RequestId) -> bool {
        id.0 & ID_BASE != 0 && id.0 >> 63 == 0
    }

    pub(crate) fn on_dns(
        &mut self,
        config: &Enum,
        id: RequestId,
        answer: Result<Vec<DnsRecord>, DnsError>,
        ctx: &mut Ctx<'_>,
    ) -> Option<Answered> {
        let asked = self.asked.remove(&id)?;
        self.ends.clear(&id);
        let Asked { tx, number, step } = asked;
        let uri = match answer {
            Ok(records) => match evaluate(&number, &records) {
                Some(Found::Elsewhere(name)) if step < MOST_STEPS => {
                    self.send(config, Asked { tx, number, step: step + 1 }, name, ctx);
                    return None;
                }
                Some(Found::Uri(uri)) => Some(uri),
                Some(Found::Elsewhere(_)) | None => None,
            },
            Err(DnsError::NoSuchName | DnsError::NoRecord) => None,
            Err(DnsError::Unavailable) => return Some(Answered { tx, uri: None, is_silent: true }),
        };
        self.remember(number, uri.clone(), ctx.now + config.cache.0);
        Some(Answered { tx, uri, is_silent: false })
    }

    fn remember(&mut self, number: String, uri: Option<String>, until: Time) {
        self.known.insert(number.clone(), (until, uri));
        self.order.push_back((until, number));
        while self.order.len() > MOST_REMEMBERED {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some((until, number)) = self.order.pop_front()
            && self.known.get(&number).is_some_and(|(known, _)| *known == until)
        {
            self.known.remove(&number);
        }
    }

    /// One that DNS did not answer in time.
    pub(crate) fn pop_late(&mut self, now: Time) -> Option<Answered> {
        while self.order.front().is_some_and(|(until, _)| *until <= now) {
            self.forget_first();
        }
        let id = self.ends.pop(now)?;
        self.asked.remove(&id).map(|asked| Answered { tx: asked.tx, uri: None, is_silent: true })
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        ims_core::time::earliest(self.ends.next(), self.order.front().map(|(until, _)| *until))
    }

    pub(crate) fn len(&self) -> usize {
        self.asked.len()
    }
}

/// `4.3.2.1.0.3.9.4.e164.arpa` (RFC 6116 3.2).
fn name_of(number: &str, suffix: &str) -> String {
    let digits = number.bytes().rev().filter(u8::is_ascii_digit);
    let mut name: String = digits.flat_map(|digit| [char::from(digit), '.']).collect();
    name.push_str(suffix.trim_matches('.'));
    name
}

#[derive(Debug, PartialEq, Eq)]
enum Found {
    Uri(String),
    /// A record that leads on to another name (RFC 6116 2.4.1).
    Elsewhere(String),
}

/// The first record of use, by order and preference.
fn evaluate(number: &str, records: &[DnsRecord]) -> Option<Found> {
    let mut naptrs: Vec<_> = records
        .iter()
        .filter_map(|record| match record {
            DnsRecord::Naptr { order, preference, flags, service, regexp, replacement } => {
                Some((*order, *preference, flags, service, regexp, replacement))
            }
            _ => None,
        })
        .collect();
    naptrs.sort_by_key(|(order, preference, ..)| (*order, *preference));
    naptrs.into_iter().find_map(|(_, _, flags, service, regexp, replacement)| {
        if flags.is_empty() {
            let name = replacement.trim_end_matches('.');
            return (!name.is_empty()).then(|| Found::Elsewhere(name.to_owned()));
        }
        let kinds = kinds(service).filter(|_| flags.eq_ignore_ascii_case("u"))?;
        let uri = substitute(regexp, number)?;
        let scheme = Uri::parse(&uri).ok()?.scheme();
        match scheme {
            Scheme::Sip | Scheme::Sips if kinds.sip || kinds.pstn => Some(Found::Uri(uri)),
            Scheme::Tel if kinds.pstn => Some(Found::Uri(uri)),
            _ => None,
        }
    })
}

/// Of the enumservices of a record, those that we can use.
#[derive(Clone, Copy)]
struct Kinds {
    sip: bool,
    pstn: bool,
}

fn kinds(service: &str) -> Option<Kinds> {
    let mut parts = service.split('+');
    parts.next().filter(|first| first.eq_ignore_ascii_case("E2U"))?;
    let mut kinds = Kinds { sip: false, pstn: false };
    for kind in parts.map(|part| part.split(':').next().unwrap_or_default()) {
        kinds.sip |= kind.eq_ignore_ascii_case("sip");
        kinds.pstn |= kind.eq_ignore_ascii_case("pstn");
    }
    Some(kinds)
}

/// `!^\+49(.*)$!sip:\1@example.com!` applied to the number (RFC 3402 3.2).
fn substitute(regexp: &str, number: &str) -> Option<String> {
    if regexp.len() > LONGEST_EXPRESSION {
        return None;
    }
    let delimiter = regexp.chars().next().filter(|c| !c.is_ascii_alphanumeric() && *c != '\\')?;
    let [expression, replacement, flags] = split(&regexp[delimiter.len_utf8()..], delimiter)?;
    let compiled = RegexBuilder::new(&expression)
        .case_insensitive(flags.contains('i'))
        .size_limit(MOST_PROGRAM)
        .dfa_size_limit(MOST_PROGRAM)
        .build()
        .ok()?;
    let found = compiled.captures(number)?;
    // What was matched is replaced, and ENUM wants nothing to be left beside it.
    fill(&replacement, &found).filter(|uri| uri.len() <= LONGEST_URI)
}

fn split(text: &str, delimiter: char) -> Option<[String; 3]> {
    let mut parts = [String::new(), String::new(), String::new()];
    let (mut at, mut chars) = (0, text.chars());
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                let next = chars.next()?;
                if next != delimiter {
                    parts.get_mut(at)?.push('\\');
                }
                parts.get_mut(at)?.push(next);
            }
            c if c == delimiter => at += 1,
            c => parts.get_mut(at)?.push(c),
        }
    }
    (at == 2).then_some(parts)
}

fn fill(replacement: &str, found: &Captures<'_>) -> Option<String> {
    let mut out = String::new();
    let mut chars = replacement.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next()? {
                digit @ '1'..='9' => {
                    let group = usize::try_from(digit.to_digit(10)?).ok()?;
                    out.push_str(found.get(group).map_or("", |m| m.as_str()));
                }
                other => out.push(other),
            },
            c => out.push(c),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBER: &str = "+49301234";

    fn naptr(order: u16, preference: u16, flags: &str, service: &str, regexp: &str) -> DnsRecord {
        DnsRecord::Naptr {
            order,
            preference,
            flags: flags.into(),
            service: service.into(),
            regexp: regexp.into(),
            replacement: String::new(),
        }
    }

    #[test]
    fn a_number_is_a_name_read_backwards() {
        assert_eq!(name_of(NUMBER, "e164.arpa"), "4.3.2.1.0.3.9.4.e164.arpa");
        assert_eq!(name_of(NUMBER, ".enum.example."), "4.3.2.1.0.3.9.4.enum.example");
    }

    #[test]
    fn the_first_of_use_counts_by_order_and_preference() {
        let uri = |records: &[DnsRecord]| evaluate(NUMBER, records);
        let sip =
            |order, preference, host: &str| naptr(order, preference, "u", "E2U+sip", &format!("!^.*$!sip:a@{host}!"));
        let of = |host: &str| Some(Found::Uri(format!("sip:a@{host}")));
        assert_eq!(uri(&[sip(20, 1, "c"), sip(10, 2, "b"), sip(10, 1, "a")]), of("a"));
        let mail = naptr(1, 1, "u", "E2U+mailto", "!^.*$!mailto:a@b!");
        let broken = naptr(2, 1, "u", "E2U+sip", "!^.*$!sip:!");
        let other = naptr(3, 1, "S", "E2U+sip", "!^.*$!sip:x@y!");
        assert_eq!(uri(&[mail.clone(), broken, other, sip(9, 9, "d")]), of("d"));
        assert_eq!(uri(&[mail]), None);
        assert_eq!(uri(&[naptr(1, 1, "U", "e2u+voice:tel+SIP", "!^.*$!sip:a@e!")]), of("e"));
    }

    #[test]
    fn what_is_matched_is_put_into_the_uri() {
        for (regexp, uri) in [
            ("!^\\+49(.*)$!sip:0\\1@gw.example;user=phone!", Some("sip:0301234@gw.example;user=phone")),
            ("/^(.*)$/sip:\\1@x/i", Some("sip:+49301234@x")),
            ("!^.*$!sip:a\\!b@x!", Some("sip:a!b@x")),
            ("!^(\\+)49([0-9]{2})(.*)$!sip:\\2-\\3@x!", Some("sip:30-1234@x")),
            ("!^\\+48!sip:a@x!", None),
            ("!^.*$!sip:a@x", None),
            ("!(!sip:a@x!", None),
            ("1^.*$1sip:a@x1", None),
            ("!^.*$!a!b!c!", None),
            ("", None),
        ] {
            assert_eq!(substitute(regexp, NUMBER).as_deref(), uri, "{regexp}");
        }
        assert_eq!(substitute(&format!("!^.*$!sip:{}@x!", "a".repeat(300)), NUMBER), None);
        assert_eq!(substitute("!((((.{99}){99}){99}){99})!sip:a@x!", NUMBER), None, "bounded");
    }

    #[test]
    fn a_ported_number_has_its_routing_number() {
        let ported = naptr(1, 1, "u", "E2U+pstn:tel", "!^.*$!tel:+49301234;npdi;rn=+499999!");
        assert_eq!(evaluate(NUMBER, &[ported]), Some(Found::Uri("tel:+49301234;npdi;rn=+499999".into())));
    }

    #[test]
    fn whatever_stands_in_a_record_is_survived() {
        let mut rng = ims_core::Rng::from_u64(6116);
        let alphabet: Vec<char> = "!\\^.*$()[]{}+?|19asip:tel@;é".chars().collect();
        for _ in 0..3000 {
            let length = rng.below(24);
            let text: String = (0..length).map(|_| alphabet[rng.below(alphabet.len() as u64) as usize]).collect();
            let record = naptr(1, 1, "u", "E2U+sip+pstn:tel", &text);
            if let Some(Found::Uri(uri)) = evaluate(NUMBER, &[record]) {
                assert!(Uri::parse(&uri).is_ok(), "{text}");
            }
        }
    }

    #[test]
    fn answers_are_remembered_and_silence_is_not() {
        let (config, mut lookups) = (Enum { suffix: "e".into(), ..Enum::default() }, Lookups::default());
        let (mut rng, mut actions) = (ims_core::Rng::from_u64(1), Vec::new());
        let mut ctx = Ctx { now: Time::from_secs(100), rng: &mut rng, actions: &mut actions };
        assert_eq!(lookups.ask(&config, ServerTx(1), NUMBER, &mut ctx), None);
        let id = |ctx: &Ctx<'_>| match ctx.actions.last() {
            Some(Action::Dns { id, query: DnsQuery::Naptr(_) }) => *id,
            _ => panic!("DNS was not asked"),
        };
        let late = lookups.pop_late(Time::from_secs(103)).unwrap();
        assert_eq!(late, Answered { tx: ServerTx(1), uri: None, is_silent: true });
        assert!(lookups.on_dns(&config, id(&ctx), Ok(vec![]), &mut ctx).is_none(), "too late");
        assert_eq!(lookups.ask(&config, ServerTx(2), NUMBER, &mut ctx), None);
        let on = DnsRecord::Naptr {
            order: 1,
            preference: 1,
            flags: String::new(),
            service: String::new(),
            regexp: String::new(),
            replacement: "other.example.".into(),
        };
        assert_eq!(lookups.on_dns(&config, id(&ctx), Ok(vec![on]), &mut ctx), None);
        assert!(
            matches!(ctx.actions.last(), Some(Action::Dns { query: DnsQuery::Naptr(name), .. }) if name == "other.example")
        );
        let record = naptr(1, 1, "u", "E2U+sip", "!^.*$!sip:a@x!");
        let answered = Answered { tx: ServerTx(2), uri: Some("sip:a@x".into()), is_silent: false };
        assert_eq!(lookups.on_dns(&config, id(&ctx), Ok(vec![record]), &mut ctx), Some(answered));
        let known = lookups.ask(&config, ServerTx(3), NUMBER, &mut ctx).unwrap();
        assert_eq!((known.uri.as_deref(), lookups.len()), (Some("sip:a@x"), 0));
        ctx.now = Time::from_secs(161);
        assert_eq!(lookups.pop_late(ctx.now), None);
        assert!(lookups.known.is_empty() && lookups.deadline().is_none());
    }
}
