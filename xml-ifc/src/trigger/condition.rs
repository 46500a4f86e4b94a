//! Service point triggers (TS 29.228 B.2.3), ready to ask, and the trigger point that they make (Annex C).

use super::findings::{Finding, Where};
use super::pattern::{Pattern, Patterns};
use super::request::{Asked, RegistrationType, sdp_lines, value_has};
use crate::{Ifc, Spt, SptKind, TriggerPoint};
use ims_sip::Name;
use std::sync::Arc;

/// Conditions of one trigger point.
const MOST_CONDITIONS: usize = 256;

/// When a criterion holds.
pub(super) enum Trigger {
    /// It has no trigger point.
    Always,
    /// It cannot be worked with: why.
    Never(String),
    Point(Point),
}

/// An AND of groups that are ORs (CNF), or the other way round.
pub(super) struct Point {
    pub(super) is_cnf: bool,
    /// In the order of the document.
    pub(super) conditions: Box<[Condition]>,
    /// The number of a group and its conditions. What is cheap to ask stands first.
    pub(super) groups: Box<[(u32, Box<[u16]>)]>,
}

pub(super) struct Condition {
    pub(super) is_negated: bool,
    pub(super) check: Check,
}

pub(super) enum Check {
    RequestUri { pattern: Arc<Pattern>, is_whole: bool },
    Method { method: Box<str>, registration: Vec<u8> },
    Case(u8),
    Header { header: HeaderName, content: Option<Arc<Pattern>> },
    Description { line: Arc<Pattern>, content: Option<Arc<Pattern>> },
}

/// A plain name is that header; anything else is looked for in the names of all headers.
pub(super) enum HeaderName {
    Known(Name),
    Other(Box<str>),
    Pattern(Arc<Pattern>),
}

impl Trigger {
    pub(super) fn compile(ifc: &Ifc, patterns: &mut Patterns, findings: &mut Vec<Finding>) -> Self {
        let Some(trigger) = &ifc.trigger else { return Self::Always };
        match Point::compile(trigger, ifc, patterns, findings) {
            Ok(point) => Self::Point(point),
            Err(reason) => Self::Never(reason),
        }
    }

    pub(super) fn holds(&self, asked: &Asked<'_>) -> bool {
        match self {
            Self::Always => true,
            Self::Never(_) => false,
            Self::Point(point) => point.holds(asked),
        }
    }
}

impl Point {
    fn compile(
        trigger: &TriggerPoint,
        ifc: &Ifc,
        patterns: &mut Patterns,
        findings: &mut Vec<Finding>,
    ) -> Result<Self, String> {
        let place = Where::of(ifc);
        if trigger.spts.len() > MOST_CONDITIONS {
            let reason = format!("its trigger point has more than {MOST_CONDITIONS} conditions");
            findings.push(Finding::Unusable { place, reason: reason.clone() });
            return Err(reason);
        }
        if trigger.spts.is_empty() {
            findings.push(Finding::EmptyTriggerPoint { place: place.clone(), is_cnf: trigger.cnf });
        }
        let mut conditions = Vec::new();
        for spt in &trigger.spts {
            let check = Check::compile(&spt.kind, &place, patterns, findings).inspect_err(|reason| {
                findings.push(Finding::Unusable { place: place.clone(), reason: reason.clone() });
            })?;
            conditions.push(Condition { is_negated: spt.negated, check });
        }
        let groups = groups(&trigger.spts, &conditions);
        Ok(Self { is_cnf: trigger.cnf, conditions: conditions.into(), groups })
    }

    fn holds(&self, asked: &Asked<'_>) -> bool {
        let mut groups = self.groups.iter();
        match self.is_cnf {
            true => groups.all(|(_, members)| self.group_holds(members, asked)),
            false => groups.any(|(_, members)| self.group_holds(members, asked)),
        }
    }

    pub(super) fn group_holds(&self, members: &[u16], asked: &Asked<'_>) -> bool {
        let mut members = members.iter().filter_map(|at| self.conditions.get(usize::from(*at)));
        match self.is_cnf {
            true => members.any(|condition| condition.holds(asked)),
            false => members.all(|condition| condition.holds(asked)),
        }
    }
}

/// An SPT is in each of its groups; without any it is in group 0.
fn groups(spts: &[Spt], conditions: &[Condition]) -> Box<[(u32, Box<[u16]>)]> {
    let cost = |at: u16| conditions.get(usize::from(at)).map_or(0, |c| c.check.cost());
    let mut groups: std::collections::BTreeMap<u32, Vec<u16>> = Default::default();
    for (at, spt) in (0u16..).zip(spts) {
        let mut numbers = spt.groups.clone();
        if numbers.is_empty() {
            numbers.push(0);
        }
        for number in numbers {
            let members = groups.entry(number).or_default();
            if !members.contains(&at) {
                members.push(at);
            }
        }
    }
    let mut groups: Vec<(u32, Box<[u16]>)> = groups
        .into_iter()
        .map(|(number, mut members)| {
            members.sort_by_key(|at| cost(*at));
            (number, members.into())
        })
        .collect();
    groups.sort_by_key(|(_, members)| members.last().map_or(0, |at| cost(*at)));
    groups.into()
}

impl Condition {
    pub(super) fn holds(&self, asked: &Asked<'_>) -> bool {
        self.check.holds(asked) != self.is_negated
    }
}

impl Check {
    fn compile(
        kind: &SptKind,
        place: &Where,
        patterns: &mut Patterns,
        findings: &mut Vec<Finding>,
    ) -> Result<Self, String> {
        let mut compile = |what: &str, text: &str, ignore_case: bool| {
            let pattern = patterns.compile(text, ignore_case);
            pattern.map_err(|error| format!("{what} {:?} is no regular expression: {error}", clip(text)))
        };
        Ok(match kind {
            SptKind::RequestUri(text) => {
                let pattern = compile("the RequestURI", text, false)?;
                Self::RequestUri { pattern, is_whole: is_about_whole_uri(text) }
            }
            SptKind::Method { method, registration_types } => {
                let upper = method.to_ascii_uppercase();
                if *method != upper {
                    findings.push(Finding::MethodCase { place: place.clone(), method: method.clone() });
                }
                // "May be discarded" with other methods (TS 29.228 B.2.3).
                let registration = if method == "REGISTER" { registration_types.clone() } else { Vec::new() };
                Self::Method { method: method.as_str().into(), registration }
            }
            SptKind::Unusable(reason) => return Err(reason.clone()),
            SptKind::SessionCase(case) if *case > 4 => return Err(format!("SessionCase is {case}, more than 4")),
            SptKind::SessionCase(case) => Self::Case(*case),
            SptKind::SipHeader { header, content } => {
                let is_plain = header.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
                let header = match Name::parse(header.as_bytes()) {
                    Name::Other if is_plain => HeaderName::Other(header.as_str().into()),
                    Name::Other => HeaderName::Pattern(compile("the Header", header, true)?),
                    name => HeaderName::Known(name),
                };
                let content = content.as_deref().map(|text| compile("the Content", text, false)).transpose()?;
                Self::Header { header, content }
            }
            SptKind::SessionDescription { line, content } => {
                if line.len() > 1 && line.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'=') {
                    findings.push(Finding::LongLine { place: place.clone(), line: line.clone() });
                }
                let line = compile("the Line", line, false)?;
                let content = content.as_deref().map(|text| compile("the Content", text, false)).transpose()?;
                Self::Description { line, content }
            }
        })
    }

    pub(super) fn holds(&self, asked: &Asked<'_>) -> bool {
        let view = &asked.view;
        match self {
            Self::RequestUri { pattern, is_whole } => asked.uri().has(pattern, *is_whole),
            // Case-sensitive (RFC 3261 7.1).
            Self::Method { method, registration } => {
                let known = view.registration.map(RegistrationType::number);
                view.method.as_str() == &**method
                    && (registration.is_empty() || known.is_none_or(|type_| registration.contains(&type_)))
            }
            Self::Case(case) => view.case.number() == *case,
            Self::Header { header: HeaderName::Known(name), content } => match content {
                None => view.message.has(*name),
                Some(content) => view.message.raw(*name).any(|raw| value_has(content, *name, raw)),
            },
            Self::Header { header: HeaderName::Other(name), content } => {
                let mut values = view.message.raw_named(name);
                values.any(|raw| content.as_ref().is_none_or(|content| value_has(content, Name::Other, raw)))
            }
            Self::Header { header: HeaderName::Pattern(pattern), content } => {
                view.message.lines().any(|(written, raw)| {
                    let name = Name::parse(written);
                    pattern.is_in(long_name(name, written))
                        && content.as_ref().is_none_or(|content| value_has(content, name, raw))
                })
            }
            Self::Description { line, content } => {
                let mut lines = asked.sdp().iter().flat_map(|body| sdp_lines(body));
                lines.any(|(letter, value)| line.is_in(letter) && content.as_ref().is_none_or(|c| c.is_in(value)))
            }
        }
    }

    fn cost(&self) -> u8 {
        match self {
            Self::Case(_) => 0,
            Self::Method { .. } => 1,
            Self::Header { header: HeaderName::Known(_), content: None } => 2,
            Self::RequestUri { .. } => 3,
            Self::Header { header: HeaderName::Known(_), .. } => 4,
            Self::Header { header: HeaderName::Other(_), .. } => 5,
            Self::Header { .. } => 6,
            Self::Description { .. } => 7,
        }
    }
}

/// Names are compared in their long form.
pub(super) fn long_name(name: Name, written: &[u8]) -> &[u8] {
    if name == Name::Other { written } else { name.as_str().as_bytes() }
}

/// TS 29.228 Table F.1 compares `hostport` of a SIP URI and `telephone-subscriber` of a tel URI. A pattern with a scheme or an `@`
/// could never be found there: whoever writes it means the whole URI.
fn is_about_whole_uri(pattern: &str) -> bool {
    let pattern = pattern.to_ascii_lowercase();
    ["@", "sip:", "sips:", "tel:", "urn:", "sips?:"].iter().any(|piece| pattern.contains(piece))
}

/// Enough of a text to recognise it.
pub(super) fn clip(text: &str) -> String {
    const MOST: usize = 80;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
