//! Criteria as people write them, in JSON and TOML, and as `InitialFilterCriteria` elements.
//!
//! ```json
//! { "priority": 10, "server": "sip:mmtel.ims.example", "default_handling": "terminate",
//!   "when": { "all": [ { "method": "INVITE" }, { "any": [ { "case": "originating" }, { "case": "terminating" } ] },
//!                      { "not": true, "header": "P-Asserted-Service", "content": "ussd" } ] } }
//! ```

use crate::{ApplicationServer, DefaultHandling, Ifc, ProfilePart, Spt, SptKind, TriggerPoint};
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;

/// Several of them: a list, or text with `InitialFilterCriteria` elements.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Criteria(pub Vec<Ifc>);

impl<'de> Deserialize<'de> for Criteria {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Criteria;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of criteria, or InitialFilterCriteria elements as text")
            }

            fn visit_str<E: Error>(self, xml: &str) -> Result<Criteria, E> {
                crate::parse_criteria(xml).map(Criteria).map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Criteria, A::Error> {
                let mut criteria = Vec::new();
                while let Some(Criterion(ifc)) = list.next_element()? {
                    criteria.push(ifc);
                }
                Ok(Criteria(criteria))
            }
        }

        d.deserialize_any(Either)
    }
}

/// A criterion, from JSON or TOML.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(try_from = "Written")]
pub struct Criterion(pub Ifc);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    /// Lower is earlier.
    priority: u32,
    /// SIP URI of the application server.
    server: String,
    #[serde(default)]
    profile_part: Option<Part>,
    #[serde(default)]
    default_handling: Handling,
    #[serde(default)]
    service_info: Option<String>,
    #[serde(default)]
    include_register_request: bool,
    #[serde(default)]
    include_register_response: bool,
    /// Neither this nor `trigger`: always.
    #[serde(default)]
    when: Option<When>,
    /// The same in the classes of TS 29.228.
    #[serde(default)]
    trigger: Option<TriggerPoint>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Part {
    Registered,
    Unregistered,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "lowercase")]
enum Handling {
    #[default]
    Continue,
    Terminate,
}

/// One condition, or several: a list of which all or any must hold.
#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct When {
    not: bool,
    all: Option<Vec<When>>,
    any: Option<Vec<When>>,
    method: Option<String>,
    /// With REGISTER.
    registration: Vec<Registration>,
    request_uri: Option<String>,
    header: Option<String>,
    /// Line of a session description.
    line: Option<String>,
    /// With `header` or `line`.
    content: Option<String>,
    case: Option<Case>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "kebab-case")]
enum Registration {
    Initial,
    Reregistration,
    Deregistration,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "kebab-case")]
enum Case {
    Originating,
    Terminating,
    TerminatingUnregistered,
    OriginatingUnregistered,
    OriginatingCdiv,
}

impl TryFrom<Written> for Criterion {
    type Error = String;

    fn try_from(w: Written) -> Result<Self, String> {
        let trigger = match (w.when, w.trigger) {
            (Some(_), Some(_)) => return Err("give when or trigger, not both".into()),
            (Some(when), None) => Some(when.trigger()?),
            (None, trigger) => trigger,
        };
        Ok(Self(Ifc {
            priority: w.priority,
            profile_part: w.profile_part.map(|part| match part {
                Part::Registered => ProfilePart::Registered,
                Part::Unregistered => ProfilePart::Unregistered,
            }),
            trigger,
            server: ApplicationServer {
                server_name: w.server,
                default_handling: match w.default_handling {
                    Handling::Continue => DefaultHandling::SessionContinued,
                    Handling::Terminate => DefaultHandling::SessionTerminated,
                },
                service_info: w.service_info,
                include_register_request: w.include_register_request,
                include_register_response: w.include_register_response,
            },
        }))
    }
}

impl When {
    /// `all` of `any`s is CNF, `any` of `all`s is DNF: there is no third level.
    fn trigger(self) -> Result<TriggerPoint, String> {
        const LEVELS: &str = "a list may hold conditions and lists of the other kind, and these only conditions";
        if self.all.is_none() && self.any.is_none() {
            return Ok(TriggerPoint { cnf: true, spts: vec![self.spt(0)?] });
        }
        let (cnf, list) = self.list()?;
        let mut spts = Vec::new();
        for (group, one) in (0..).zip(list) {
            match (&one.all, &one.any) {
                (None, None) => spts.push(one.spt(group)?),
                _ => match one.list()? {
                    (inner_cnf, _) if inner_cnf == cnf => return Err(LEVELS.into()),
                    (_, conditions) => {
                        for condition in conditions {
                            if condition.all.is_some() || condition.any.is_some() {
                                return Err(LEVELS.into());
                            }
                            spts.push(condition.spt(group)?);
                        }
                    }
                },
            }
        }
        Ok(TriggerPoint { cnf, spts })
    }

    /// Whether it is `all`, and what is in it.
    fn list(self) -> Result<(bool, Vec<When>), String> {
        if self.not {
            return Err("not belongs to one condition: turn the list around".into());
        }
        let is_more = self.names().len() > 1 || self.content.is_some() || !self.registration.is_empty();
        match (self.all, self.any) {
            _ if is_more => Err("a list stands alone: put the condition into it".into()),
            (Some(list), None) | (None, Some(list)) if list.is_empty() => Err("a list has no condition".into()),
            (Some(list), None) => Ok((true, list)),
            (None, Some(list)) => Ok((false, list)),
            _ => Err("give all or any, not both".into()),
        }
    }

    /// What it says something about.
    fn names(&self) -> Vec<&'static str> {
        let given = [
            ("all", self.all.is_some()),
            ("any", self.any.is_some()),
            ("method", self.method.is_some()),
            ("request_uri", self.request_uri.is_some()),
            ("header", self.header.is_some()),
            ("line", self.line.is_some()),
            ("case", self.case.is_some()),
        ];
        given.iter().filter(|(_, is_given)| *is_given).map(|(name, _)| *name).collect()
    }

    fn spt(self, group: u32) -> Result<Spt, String> {
        let name = match self.names()[..] {
            [one] => one,
            [] => return Err("a condition has one of method, request_uri, header, line and case".into()),
            ref several => return Err(format!("a condition has one of {}: make several of it", several.join(", "))),
        };
        if self.content.is_some() && !matches!(name, "header" | "line") {
            return Err("content goes with header or line".into());
        }
        if !self.registration.is_empty() && self.method.as_deref() != Some("REGISTER") {
            return Err("registration goes with the method REGISTER".into());
        }
        let content = self.content;
        let kinds = [
            self.method.map(|method| {
                let registration_types = self.registration.iter().map(|r| *r as u8).collect();
                SptKind::Method { method, registration_types }
            }),
            self.request_uri.map(SptKind::RequestUri),
            self.case.map(|case| SptKind::SessionCase(case as u8)),
            self.header.map(|header| SptKind::SipHeader { header, content: content.clone() }),
            self.line.map(|line| SptKind::SessionDescription { line, content }),
        ];
        let kind = kinds.into_iter().flatten().next().ok_or("a condition is missing")?;
        Ok(Spt { negated: self.not, groups: vec![group], kind })
    }
}
