//! Telephone numbers (TS 24.229 5.4.3.2, RFC 3966): what a user dialled, as a number that means the same everywhere, by the
//! numbering plan of the configuration; and what is known of a number without asking anybody.

use ims_core::config::Span;
use ims_core::uri::{Scheme, Uri, split_hostport};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Digits of a number (ITU-T E.164); more is none.
const LONGEST: usize = 15;
/// A context that is longer is a whole number: some phones put their own there. It says nothing about what was dialled.
const LONGEST_CONTEXT: usize = 7;
/// Digits of an IMSI, which a user part may be (TS 23.003 13.4B).
const IMSI: std::ops::RangeInclusive<usize> = 14..=15;

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Numbering {
    /// Country code of the home network, digits. Empty: there is no plan, and only what begins with + is a number.
    pub country: String,
    /// Area code, for numbers without any prefix; empty: those stay as they are.
    pub area: String,
    /// What is dialled before a country code.
    pub international: Vec<String>,
    /// What is dialled before an area code. "" among them: what has no prefix is such a number too.
    pub national: Vec<String>,
    /// Numbers with no more digits are short codes: no prefix is looked for.
    pub short: usize,
    /// Whether the user part of a SIP URI of ours that is all digits was dialled, without user=phone too.
    pub dialled: bool,
    /// Beginnings of our own users' numbers, such as "+4915100". Empty: any may be one, and the HSS knows.
    pub own: Vec<String>,
    /// Numbers that are somewhere: "+49301234", "100", or with a * behind it all that begin so -> SIP or tel URI, in which
    /// {number} is the number and {rest} what stands for the *.
    pub local: BTreeMap<String, String>,
    #[serde(rename = "enum")]
    pub lookup: Enum,
}

/// ENUM (RFC 6116).
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Enum {
    /// Domain of the numbers, such as "e164.arpa"; empty: DNS is not asked.
    pub suffix: String,
    /// How long DNS may take. After that it is as if it did not know the number.
    pub timeout: Span,
    /// How long an answer is used again; that there is none, too.
    pub cache: Span,
}

impl Default for Numbering {
    fn default() -> Self {
        Self {
            country: String::new(),
            area: String::new(),
            international: vec!["00".into()],
            national: vec!["0".into()],
            short: 4,
            dialled: true,
            own: Vec::new(),
            local: BTreeMap::new(),
            lookup: Enum::default(),
        }
    }
}

impl Default for Enum {
    fn default() -> Self {
        Self { suffix: String::new(), timeout: Span::secs(3), cache: Span::secs(60) }
    }
}

/// What was called, as far as it is a telephone number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Called {
    /// `+49301234` where it is known what it means everywhere, else the digits.
    pub(crate) number: String,
    /// Where a ported number is served (RFC 4694): the way goes by this one.
    pub(crate) routing: Option<String>,
    /// Somebody has looked already whether it is ported.
    pub(crate) is_looked_up: bool,
    /// The Request-URI says it in another form.
    pub(crate) is_rewritten: bool,
}

impl Called {
    pub(crate) fn is_global(&self) -> bool {
        self.number.starts_with('+')
    }

    /// What decides where it goes.
    pub(crate) fn route_by(&self) -> &str {
        self.routing.as_deref().unwrap_or(&self.number)
    }
}

/// A number as it stands in a URI.
struct Written {
    number: String,
    context: Option<String>,
    routing: Option<String>,
    routing_context: Option<String>,
    is_looked_up: bool,
}

impl Numbering {
    /// None: it is no number. `is_home` says which SIP domains are ours: a number at another one is that one's matter.
    pub(crate) fn read(&self, uri: &Uri<'_>, is_home: impl Fn(&str) -> bool) -> Option<Called> {
        let written = match uri.scheme() {
            Scheme::Tel => Written::of_tel(uri)?,
            Scheme::Sip | Scheme::Sips if is_home(uri.host()) && !uri.has_param("gr") => self.of_sip(uri)?,
            _ => return None,
        };
        let number = self.global(&written.number, written.context.as_deref())?;
        let routing = written.routing.and_then(|rn| self.global(&rn, written.routing_context.as_deref()));
        let is_rewritten = number != written.number;
        Some(Called { number, routing, is_looked_up: written.is_looked_up, is_rewritten })
    }

    fn of_sip(&self, uri: &Uri<'_>) -> Option<Written> {
        // Unescaped, and with the parameters of the number.
        let identity = uri.canonical_identity()?;
        let (_, rest) = identity.split_once(':')?;
        let (user, _) = rest.rsplit_once('@')?;
        let is_phone = uri.param("user").flatten().is_some_and(|value| value.eq_ignore_ascii_case("phone"));
        let digits = user.strip_prefix('+').unwrap_or(user);
        let is_dialled = || self.dialled && !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        if !is_phone && (!is_dialled() || is_imsi(user, uri.host())) {
            return None;
        }
        Written::of_tel(&Uri::parse(&format!("tel:{user}")).ok()?)
    }

    /// In the form that means the same everywhere, where the plan tells; None: it is no number.
    fn global(&self, number: &str, context: Option<&str>) -> Option<String> {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if let Some(global) = number.strip_prefix('+') {
            return (digits(global) && global.len() <= LONGEST).then(|| number.to_owned());
        }
        if !digits(number) {
            return None;
        }
        let global = self.dialled_in(number, context.and_then(|c| c.strip_prefix('+')).filter(|c| digits(c)));
        Some(match global.filter(|global| global.len() <= LONGEST && !global.starts_with('0')) {
            Some(global) => format!("+{global}"),
            None => number.to_owned(),
        })
    }

    fn dialled_in(&self, number: &str, context: Option<&str>) -> Option<String> {
        let stripped = |prefixes: &[String]| {
            let fitting = prefixes.iter().filter(|p| !p.is_empty() && number.starts_with(p.as_str()));
            fitting.max_by_key(|p| p.len()).map(|prefix| &number[prefix.len()..]).filter(|rest| !rest.is_empty())
        };
        let is_foreign = context.is_some_and(|c| self.country.is_empty() || !c.starts_with(&self.country));
        if let Some(context) =
            context.filter(|c| c.len() <= LONGEST_CONTEXT && (is_foreign || c.len() > self.country.len()))
        {
            return match (stripped(&self.international), stripped(&self.national)) {
                (Some(rest), _) => Some(rest.to_owned()),
                (None, Some(rest)) if !is_foreign => Some(format!("{}{rest}", self.country)),
                (None, rest) => Some(format!("{context}{}", rest.unwrap_or(number))),
            };
        }
        if self.country.is_empty() || number.len() <= self.short {
            return None;
        }
        if let Some(rest) = stripped(&self.international) {
            return Some(rest.to_owned());
        }
        if let Some(rest) = stripped(&self.national) {
            return Some(format!("{}{rest}", self.country));
        }
        let Self { country, area, national, .. } = self;
        let is_whole = national.is_empty() || national.iter().any(String::is_empty);
        match is_whole {
            true => Some(format!("{country}{number}")),
            false => Some(format!("{country}{area}{number}")).filter(|_| !area.is_empty()),
        }
    }

    /// Whether a number is one of our users', as far as that is configured.
    pub(crate) fn is_own(&self, number: &str) -> Option<bool> {
        (!self.own.is_empty()).then(|| self.own.iter().any(|beginning| number.starts_with(beginning.as_str())))
    }

    /// Where the table says that a number is.
    pub(crate) fn find_local(&self, number: &str) -> Option<String> {
        if let Some(uri) = self.local.get(number) {
            return Some(uri.replace("{number}", number).replace("{rest}", ""));
        }
        let beginnings = self.local.iter().filter_map(|(key, uri)| Some((key.strip_suffix('*')?, uri)));
        let (beginning, uri) = beginnings.filter(|(b, _)| number.starts_with(b)).max_by_key(|(b, _)| b.len())?;
        Some(uri.replace("{number}", number).replace("{rest}", &number[beginning.len()..]))
    }

    /// As it is dialled at home: what a PBX may want to see.
    pub(crate) fn national_form(&self, number: &str) -> String {
        let Some(digits) = number.strip_prefix('+') else { return number.to_owned() };
        let first = |prefixes: &[String]| prefixes.first().cloned().unwrap_or_default();
        match digits.strip_prefix(self.country.as_str()).filter(|_| !self.country.is_empty()) {
            Some(rest) => format!("{}{rest}", first(&self.national)),
            None => format!("{}{digits}", first(&self.international)),
        }
    }

    /// What is wrong with it, in one sentence.
    pub(crate) fn check(&self) -> Result<(), String> {
        let digits = |text: &String| text.bytes().all(|b| b.is_ascii_digit());
        let wrong = |is_wrong: bool, what: &str| if is_wrong { Err(what.to_owned()) } else { Ok(()) };
        wrong(
            !digits(&self.country) || self.country.len() > 3,
            "numbering.country: write a country code such as \"49\"",
        )?;
        wrong(!digits(&self.area) || self.area.len() > 6, "numbering.area: write an area code such as \"30\"")?;
        let dialled = self.international.iter().chain(&self.national).all(digits);
        wrong(!dialled, "numbering.international and national: write digits such as \"00\"")?;
        wrong(self.international.iter().any(String::is_empty), "numbering.international: may not be empty")?;
        wrong(self.short > LONGEST, "numbering.short: 15 digits at most")?;
        let is_beginning =
            |text: &String| text.strip_prefix('+').is_some_and(|d| !d.is_empty() && digits(&d.to_owned()));
        wrong(!self.own.iter().all(is_beginning), "numbering.own: write beginnings of numbers such as \"+4915100\"")?;
        for (key, uri) in &self.local {
            let number = key.strip_suffix('*').unwrap_or(key);
            let is_number = digits(&number.strip_prefix('+').unwrap_or(number).to_owned()) && !key.is_empty();
            let example = uri.replace("{number}", "+1").replace("{rest}", "1");
            let leads = Uri::parse(&example).is_ok_and(|uri| uri.is_sip() || uri.scheme() == Scheme::Tel);
            if !is_number || !leads {
                return Err(format!(
                    "numbering.local.\"{key}\": write a number, or its beginning and a *, and a SIP or tel URI"
                ));
            }
        }
        let Enum { suffix, timeout, cache } = &self.lookup;
        let is_name = suffix.is_empty() || split_hostport(suffix).is_ok_and(|(_, port)| port.is_none());
        wrong(!is_name || suffix.len() > 200, "numbering.enum.suffix: write a domain such as \"e164.arpa\"")?;
        wrong(timeout.0.is_zero() || cache.0.is_zero(), "numbering.enum: neither timeout nor cache may be zero")
    }
}

impl Written {
    fn of_tel(uri: &Uri<'_>) -> Option<Self> {
        let value = |name: &str| uri.param(name).flatten().map(plain);
        Some(Self {
            number: plain(uri.user()?),
            context: value("phone-context"),
            routing: value("rn"),
            routing_context: value("rn-context"),
            is_looked_up: uri.has_param("npdi"),
        })
    }
}

/// Without visual separators.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !matches!(c, '-' | '.' | '(' | ')')).collect()
}

/// The temporary identity of a UE without ISIM looks like a number: digits that begin with the MCC of its domain.
fn is_imsi(user: &str, host: &str) -> bool {
    let mcc = host.split('.').find_map(|label| label.strip_prefix("mcc"));
    IMSI.contains(&user.len()) && mcc.is_none_or(|mcc| user.starts_with(mcc))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: &str = "ims.mnc001.mcc001.3gppnetwork.org";

    fn berlin() -> Numbering {
        Numbering { country: "49".into(), area: "30".into(), ..Numbering::default() }
    }

    fn number(plan: &Numbering, uri: &str) -> Option<String> {
        plan.read(&Uri::parse(uri).unwrap(), |host| host == HOME).map(|called| called.number)
    }

    /// RFC 3966 5.1.4: global numbers.
    #[test]
    fn what_is_dialled_becomes_a_global_number() {
        for (dialled, global) in [
            ("+49-30-1234", "+49301234"),
            ("0049301234", "+49301234"),
            ("030(12)34", "+49301234"),
            ("123456", "+4930123456"),
            ("0012125551234", "+12125551234"),
            ("110", "110"),
            ("1000", "1000"),
            ("00", "00"),
            ("0000123456", "0000123456"),
        ] {
            assert_eq!(number(&berlin(), &format!("tel:{dialled}")).as_deref(), Some(global), "{dialled}");
            let sip = format!("sip:{dialled}@{HOME};user=phone");
            assert_eq!(number(&berlin(), &sip).as_deref(), Some(global), "{sip}");
        }
    }

    #[test]
    fn without_prefixes_or_with_an_empty_one_a_number_is_whole() {
        let us = Numbering {
            country: "1".into(),
            international: vec!["011".into()],
            national: vec!["1".into(), String::new()],
            ..Numbering::default()
        };
        for (dialled, global) in
            [("12125551234", "+12125551234"), ("2125551234", "+12125551234"), ("01149301234", "+49301234")]
        {
            assert_eq!(number(&us, &format!("tel:{dialled}")).as_deref(), Some(global));
        }
        let closed = Numbering { country: "45".into(), national: vec![], ..Numbering::default() };
        assert_eq!(number(&closed, "tel:33123456").as_deref(), Some("+4533123456"));
        assert_eq!(
            (berlin().national_form("+49301234"), berlin().national_form("+1212")),
            ("0301234".into(), "001212".into())
        );
    }

    /// RFC 3966 5.1.5: phone-context.
    #[test]
    fn the_context_of_a_number_counts_where_it_is_one() {
        for (uri, global) in [
            ("tel:1234567;phone-context=+4940", "+49401234567"),
            ("tel:0401234567;phone-context=+49", "+49401234567"),
            ("tel:0401234567;phone-context=+4930", "+49401234567"),
            ("tel:2125551234;phone-context=+1", "+12125551234"),
            ("tel:0301234;phone-context=+4915100000001", "+49301234"),
            ("tel:110;phone-context=ims.example", "110"),
            ("tel:0301234;phone-context=geo-local.eps.ims.example", "+49301234"),
        ] {
            assert_eq!(number(&berlin(), uri).as_deref(), Some(global), "{uri}");
        }
        let none = Numbering::default();
        assert_eq!(number(&none, "tel:1234567;phone-context=+4940").as_deref(), Some("+49401234567"));
        assert_eq!(number(&none, "tel:0301234").as_deref(), Some("0301234"), "without a plan it stays as it is");
        let sip = format!("sip:0301234;phone-context=+49@{HOME};user=phone");
        assert_eq!(number(&berlin(), &sip).as_deref(), Some("+49301234"));
    }

    #[test]
    fn dialled_digits_are_numbers_and_names_and_imsis_are_not() {
        let sip = |user: &str| number(&berlin(), &format!("sip:{user}@{HOME}"));
        assert_eq!(sip("0301234").as_deref(), Some("+49301234"));
        assert_eq!(sip("+49301234").as_deref(), Some("+49301234"));
        assert_eq!(sip("%2B49301234").as_deref(), Some("+49301234"));
        for user in ["alice", "001010000000001", "*43%23", "0301234a"] {
            assert_eq!(sip(user), None, "{user}");
        }
        assert_eq!(number(&berlin(), "sip:0301234@elsewhere.example;user=phone"), None);
        assert_eq!(number(&berlin(), &format!("sip:+49301234@{HOME};gr=u")), None);
        assert_eq!(number(&berlin(), "tel:*43#"), None);
        assert_eq!(number(&Numbering { dialled: false, ..berlin() }, &format!("sip:0301234@{HOME}")), None);
    }

    /// RFC 4694 5: npdi and rn.
    #[test]
    fn a_ported_number_goes_by_its_routing_number() {
        let called = berlin().read(&Uri::parse("tel:+49301234;npdi;rn=+49-9999").unwrap(), |_| false).unwrap();
        assert_eq!((called.route_by(), called.is_looked_up, called.is_global()), ("+499999", true, true));
        let called = berlin().read(&Uri::parse("tel:+49301234;npdi").unwrap(), |_| false).unwrap();
        assert_eq!((called.route_by(), called.is_rewritten), ("+49301234", false));
        let called = berlin().read(&Uri::parse("tel:+1202;rn=2022;rn-context=+1;npdi").unwrap(), |_| false).unwrap();
        assert_eq!(called.route_by(), "+12022");
    }

    #[test]
    fn the_table_knows_numbers_and_beginnings() {
        let local = [
            ("100", "sip:voicemail@ims.example"),
            ("+4930999*", "sip:{rest}@pbx.example"),
            ("+49309990", "tel:{number}"),
            ("2*", "sip:{number}@pbx.example;user=phone"),
        ];
        let plan = Numbering { local: local.map(|(k, v)| (k.into(), v.into())).into(), ..berlin() };
        plan.check().unwrap();
        let find = |number: &str| plan.find_local(number);
        assert_eq!(find("100").as_deref(), Some("sip:voicemail@ims.example"));
        assert_eq!(find("+493099942").as_deref(), Some("sip:42@pbx.example"));
        assert_eq!(find("+49309990").as_deref(), Some("tel:+49309990"));
        assert_eq!(find("234").as_deref(), Some("sip:234@pbx.example;user=phone"));
        assert_eq!(find("+4930998"), None);
    }

    #[test]
    fn own_ranges_are_said_or_not() {
        let plan = Numbering { own: vec!["+4915100".into()], ..berlin() };
        assert_eq!((plan.is_own("+491510000001"), plan.is_own("+49301234")), (Some(true), Some(false)));
        assert_eq!(berlin().is_own("+49301234"), None);
    }

    #[test]
    fn whatever_is_dialled_is_survived_and_global_numbers_are_digits() {
        let mut rng = ims_core::Rng::from_u64(3966);
        let alphabet: Vec<char> = "0123456789+*#-.();=%2Bphone-contextrn@é".chars().collect();
        let plan = Numbering { own: vec!["+49".into()], ..berlin() };
        for _ in 0..5000 {
            let length = rng.below(30);
            let text: String = (0..length).map(|_| alphabet[rng.below(alphabet.len() as u64) as usize]).collect();
            for uri in [
                format!("tel:{text}"),
                format!("sip:{text}@{HOME};user=phone"),
                format!("tel:0301;phone-context={text}"),
            ] {
                let Some(called) = Uri::parse(&uri).ok().and_then(|uri| plan.read(&uri, |host| host == HOME)) else {
                    continue;
                };
                let digits = called.number.strip_prefix('+').unwrap_or(&called.number);
                assert!(digits.bytes().all(|b| b.is_ascii_digit()) && !digits.is_empty(), "{uri}: {called:?}");
                plan.find_local(&called.number);
                plan.national_form(&called.number);
            }
        }
    }

    #[test]
    fn what_cannot_be_meant_is_an_error() {
        let table = |key: &str, uri: &str| BTreeMap::from([(key.to_owned(), uri.to_owned())]);
        for plan in [
            Numbering { country: "+49".into(), ..berlin() },
            Numbering { area: "x".into(), ..berlin() },
            Numbering { international: vec!["".into()], ..berlin() },
            Numbering { national: vec!["a".into()], ..berlin() },
            Numbering { short: 16, ..berlin() },
            Numbering { own: vec!["49".into()], ..berlin() },
            Numbering { local: table("1x", "sip:a@b"), ..berlin() },
            Numbering { local: table("1", "mailto:a@b"), ..berlin() },
            Numbering { lookup: Enum { suffix: "a b".into(), ..Enum::default() }, ..berlin() },
            Numbering { lookup: Enum { timeout: Span::secs(0), ..Enum::default() }, ..berlin() },
        ] {
            assert!(plan.check().is_err(), "{plan:?}");
        }
        berlin().check().unwrap();
    }
}
