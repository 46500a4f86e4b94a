//! Why a request meets a criterion, or does not.

use super::condition::{Check, Condition, HeaderName, Point, Trigger, clip, long_name};
use super::request::{Asked, RegistrationType, RequestView, SessionCase, sdp_lines, unfolded};
use super::{CompiledCriteria, Criterion};
use crate::{DefaultHandling, ProfilePart};
use ims_sip::Name;
use serde::Serialize;
use std::fmt;

/// Header lines and lines of a session description that are shown of those compared.
const MOST_SHOWN: usize = 5;

/// Every criterion in the order in which it is asked. `Display` is for people, the fields are for programs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Explanation {
    pub method: String,
    pub uri: String,
    pub session_case: &'static str,
    pub registered: bool,
    pub criteria: Vec<Verdict>,
    /// What is wrong with the criteria.
    pub findings: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Verdict {
    pub priority: u32,
    pub server: String,
    /// What happens when the server does not answer: "continue" or "terminate".
    pub default_handling: &'static str,
    /// The shared set that it comes from; absent: the profile itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared_set: Option<u32>,
    pub matches: bool,
    pub reason: String,
    pub groups: Vec<GroupVerdict>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct GroupVerdict {
    pub group: u32,
    pub holds: bool,
    pub conditions: Vec<ConditionVerdict>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ConditionVerdict {
    pub condition: String,
    pub holds: bool,
    /// What of the request it was compared with.
    pub compared: String,
}

/// Which criteria the request meets as it is, in what order, and why not the others. A server that changes the request changes what
/// the criteria behind its own see.
pub fn explain(criteria: &CompiledCriteria, view: &RequestView<'_>) -> Explanation {
    let asked = Asked::new(*view);
    Explanation {
        method: view.method.to_string(),
        uri: view.uri.to_owned(),
        session_case: SessionCase::text(view.case.number()),
        registered: view.case.is_registered(),
        criteria: criteria.list.iter().map(|criterion| verdict(criterion, &asked)).collect(),
        findings: criteria.findings().iter().map(ToString::to_string).collect(),
    }
}

fn verdict(criterion: &Criterion, asked: &Asked<'_>) -> Verdict {
    let is_relevant = criterion.is_relevant(asked.view.case);
    let groups = match &criterion.trigger {
        Trigger::Point(point) => group_verdicts(point, asked),
        _ => Vec::new(),
    };
    let matches = is_relevant && criterion.trigger.holds(asked);
    let reason = match (&criterion.trigger, criterion.ifc.profile_part) {
        (_, Some(ProfilePart::Registered)) if !is_relevant => {
            "it is for registered users (ProfilePartIndicator 0), and the user is not".into()
        }
        (_, Some(ProfilePart::Unregistered)) if !is_relevant => {
            "it is for unregistered users (ProfilePartIndicator 1), and the user is registered".into()
        }
        (Trigger::Never(reason), _) => reason.clone(),
        (Trigger::Always, _) => "it has no trigger point: every request meets it".into(),
        (Trigger::Point(point), _) => summary(point, &groups, matches),
    };
    Verdict {
        priority: criterion.ifc.priority,
        server: criterion.ifc.server.server_name.clone(),
        default_handling: match criterion.ifc.server.default_handling {
            DefaultHandling::SessionContinued => "continue",
            DefaultHandling::SessionTerminated => "terminate",
        },
        shared_set: criterion.shared_set,
        matches,
        reason,
        groups,
    }
}

fn summary(point: &Point, groups: &[GroupVerdict], matches: bool) -> String {
    let failing = groups.iter().find(|group| !group.holds);
    let holding = groups.iter().find(|group| group.holds);
    match (point.is_cnf, matches, failing, holding) {
        (true, true, ..) => "every group has a condition that holds".into(),
        (true, false, Some(group), _) => {
            format!("no condition of group {} holds: {}", group.group, why(group, false))
        }
        (false, true, _, Some(group)) => format!("all conditions of group {} hold", group.group),
        (false, false, Some(group), _) if groups.len() == 1 => why(group, false),
        (false, false, Some(_), _) => "no group has all of its conditions hold".into(),
        _ => "its trigger point has no condition".into(),
    }
}

fn why(group: &GroupVerdict, holds: bool) -> String {
    match group.conditions.iter().find(|c| c.holds == holds) {
        Some(c) => format!("{}, and there is {}", c.condition, c.compared),
        None => String::new(),
    }
}

fn group_verdicts(point: &Point, asked: &Asked<'_>) -> Vec<GroupVerdict> {
    let mut groups: Vec<GroupVerdict> = point
        .groups
        .iter()
        .map(|(group, members)| {
            let mut members: Vec<u16> = members.to_vec();
            members.sort_unstable();
            let conditions = members.iter().filter_map(|at| point.conditions.get(usize::from(*at)));
            GroupVerdict {
                group: *group,
                holds: point.group_holds(&members, asked),
                conditions: conditions.map(|c| condition_verdict(c, asked)).collect(),
            }
        })
        .collect();
    groups.sort_by_key(|group| group.group);
    groups
}

fn condition_verdict(condition: &Condition, asked: &Asked<'_>) -> ConditionVerdict {
    let wanted = wanted(&condition.check);
    ConditionVerdict {
        condition: if condition.is_negated { format!("not: {wanted}") } else { wanted },
        holds: condition.holds(asked),
        compared: compared(&condition.check, asked),
    }
}

/// What a condition asks for.
fn wanted(check: &Check) -> String {
    let content = |content: &Option<std::sync::Arc<super::pattern::Pattern>>| match content {
        Some(pattern) => format!(" with {} in it", quoted(pattern.text())),
        None => String::new(),
    };
    match check {
        Check::RequestUri { pattern, is_whole } => {
            let part = if *is_whole { "Request-URI" } else { "host and port, or number, of the Request-URI" };
            format!("{part} has {} in it", quoted(pattern.text()))
        }
        Check::Method { method, registration } if registration.is_empty() => format!("method is {method}"),
        Check::Method { method, registration } => {
            let types: Vec<&str> = registration.iter().map(|t| RegistrationType::text(*t)).collect();
            format!("method is {method} as {}", types.join(" or "))
        }
        Check::Case(case) => format!("session case is {case} ({})", SessionCase::text(*case)),
        Check::Header { header, content: pattern } => {
            let name = match header {
                HeaderName::Known(name) => name.as_str().to_owned(),
                HeaderName::Other(name) => name.to_string(),
                HeaderName::Pattern(pattern) => format!("whose name has {} in it", quoted(pattern.text())),
            };
            format!("there is a header {name}{}", content(pattern))
        }
        Check::Description { line, content: pattern } => {
            format!("the session description has a line {}{}", clip(line.text()), content(pattern))
        }
    }
}

/// What of the request a condition looks at.
fn compared(check: &Check, asked: &Asked<'_>) -> String {
    let view = &asked.view;
    match check {
        Check::RequestUri { is_whole: true, .. } => quoted(asked.uri().whole),
        Check::RequestUri { .. } => quoted(asked.uri().part),
        Check::Method { registration, .. } => match view.registration.filter(|_| !registration.is_empty()) {
            Some(kind) => format!("{} as {}", view.method, RegistrationType::text(kind.number())),
            None => view.method.to_string(),
        },
        Check::Case(_) => {
            let number = view.case.number();
            format!("{number} ({})", SessionCase::text(number))
        }
        Check::Header { header, .. } => {
            let values = view.message.lines().filter_map(|(written, raw)| {
                let name = Name::parse(written);
                let long = long_name(name, written);
                let is_it = match header {
                    HeaderName::Known(known) => name == *known,
                    HeaderName::Other(text) => long.eq_ignore_ascii_case(text.as_bytes()),
                    HeaderName::Pattern(pattern) => pattern.is_in(long),
                };
                is_it.then(|| header_line(long, raw))
            });
            listed(values, "no such header")
        }
        Check::Description { line, .. } => {
            let lines = asked.sdp().iter().flat_map(|body| sdp_lines(body));
            let lines = lines.filter(|(letter, _)| line.is_in(letter));
            let lines = lines.map(|(letter, value)| format!("{}={}", text(letter), text(value)));
            let none = if asked.sdp().is_empty() { "no session description" } else { "no such line" };
            listed(lines, none)
        }
    }
}

/// Answers to challenges are not shown.
fn header_line(name: &[u8], raw: &[u8]) -> String {
    let (name, value) = (text(name), text(&unfolded(raw)));
    let is_secret = ["authe", "autho"].iter().any(|secret| name.to_ascii_lowercase().contains(secret));
    if is_secret { format!("{name} ({} bytes)", value.len()) } else { format!("{name}: {value}") }
}

/// As it is written: an expression has backslashes enough of its own.
fn quoted(value: &str) -> String {
    format!("\"{}\"", clip(&text(value.as_bytes())))
}

fn listed(values: impl Iterator<Item = String>, none: &str) -> String {
    let values: Vec<String> = values.collect();
    let mut shown: Vec<String> = values.iter().take(MOST_SHOWN).map(|value| clip(value)).collect();
    if values.len() > MOST_SHOWN {
        shown.push(format!("{} more", values.len() - MOST_SHOWN));
    }
    if shown.is_empty() { none.to_owned() } else { shown.join(" | ") }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let registered = if self.registered { "registered" } else { "not registered" };
        writeln!(f, "{} {}, {}; the user is {registered}", self.method, self.uri, self.session_case)?;
        for (at, verdict) in (1..).zip(&self.criteria) {
            write!(f, "\n{at}. {verdict}")?;
        }
        match self.criteria.iter().filter(|verdict| verdict.matches).count() {
            0 if self.criteria.is_empty() => writeln!(f, "\nThe profile has no criteria.")?,
            0 => writeln!(f, "\nNo criterion matches: the request goes to no application server.")?,
            _ => {
                let matching = self.criteria.iter().filter(|verdict| verdict.matches);
                let servers: Vec<&str> = matching.map(|verdict| verdict.server.as_str()).collect();
                writeln!(f, "\nIt goes to: {}", servers.join(", then "))?;
            }
        }
        self.findings.iter().try_for_each(|finding| writeln!(f, "Note: {finding}"))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let answer = if self.matches { "matches" } else { "does not match" };
        write!(f, "{} (priority {}", self.server, self.priority)?;
        if let Some(id) = self.shared_set {
            write!(f, ", shared set {id}")?;
        }
        writeln!(f, ", default handling: {}) {answer}: {}", self.default_handling, self.reason)?;
        for group in &self.groups {
            writeln!(f, "   group {}: {}", group.group, yes(group.holds))?;
            for c in &group.conditions {
                writeln!(f, "     {:<4} {}; there is {}", yes(c.holds), c.condition, c.compared)?;
            }
        }
        Ok(())
    }
}

fn yes(holds: bool) -> &'static str {
    if holds { "yes" } else { "no" }
}
