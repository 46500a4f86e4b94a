//! What is wrong with criteria, for the operator.

use crate::{Ifc, SptKind};
use ims_core::uri::Uri;
use std::collections::BTreeMap;
use std::fmt;

/// Which criterion.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Where {
    pub priority: u32,
    pub server: String,
}

impl Where {
    pub(super) fn of(ifc: &Ifc) -> Self {
        Self { priority: ifc.priority, server: super::condition::clip(&ifc.server.server_name) }
    }
}

impl fmt::Display for Where {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the criterion for {} (priority {})", self.server, self.priority)
    }
}

/// Something about criteria that the operator should know. `Display` is one sentence.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Finding {
    /// It never matches.
    Unusable { place: Where, reason: String },
    /// The server is no SIP URI.
    NoServer { place: Where },
    /// A set that this S-CSCF does not have.
    UnknownSet { id: u32 },
    /// More criteria than are looked at.
    TooMany { most: usize },
    /// Two have one priority, which TS 29.228 B.2.2 forbids.
    SamePriority { priority: u32, servers: [String; 2] },
    /// A trigger point without conditions.
    EmptyTriggerPoint { place: Where, is_cnf: bool },
    /// Methods are compared with their case.
    MethodCase { place: Where, method: String },
    /// The line of a session description is one letter.
    LongLine { place: Where, line: String },
}

impl Finding {
    /// A criterion does not do what it is there for; the rest is worth a look.
    pub fn is_error(&self) -> bool {
        matches!(self, Self::Unusable { .. } | Self::NoServer { .. } | Self::UnknownSet { .. } | Self::TooMany { .. })
    }

    /// The counter of it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unusable { .. } => "ifc-unusable",
            Self::NoServer { .. } => "ifc-no-server",
            Self::UnknownSet { .. } => "ifc-unknown-set",
            Self::TooMany { .. } => "ifc-too-many",
            Self::SamePriority { .. } => "ifc-same-priority",
            Self::EmptyTriggerPoint { .. } => "ifc-empty-trigger-point",
            Self::MethodCase { .. } => "ifc-method-case",
            Self::LongLine { .. } => "ifc-long-line",
        }
    }

    /// Of criteria as they are: servers and priorities.
    pub(super) fn of_all<'a>(criteria: impl Iterator<Item = &'a Ifc>, findings: &mut Vec<Self>) {
        let mut seen: BTreeMap<u32, &str> = BTreeMap::new();
        for ifc in criteria {
            let server = ifc.server.server_name.as_str();
            let spts = ifc.trigger.iter().flat_map(|trigger| &trigger.spts);
            if spts.into_iter().any(|spt| matches!(spt.kind, SptKind::Unusable(_))) {
                continue;
            }
            if !Uri::parse(server).is_ok_and(|uri| uri.is_sip()) {
                findings.push(Self::NoServer { place: Where::of(ifc) });
            }
            if let Some(other) = seen.insert(ifc.priority, server) {
                let servers = [other, server].map(super::condition::clip);
                findings.push(Self::SamePriority { priority: ifc.priority, servers });
            }
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unusable { place, reason } => write!(f, "{place} never matches: {reason}"),
            Self::NoServer { place } => {
                write!(f, "{place} names no server: write a SIP URI such as sip:as.ims.example")
            }
            Self::UnknownSet { id } => {
                write!(f, "shared iFC set {id} is not known here: its criteria do not apply; add it to [shared_ifc]")
            }
            Self::TooMany { most } => write!(f, "the profile has more than {most} criteria: the rest is left out"),
            Self::SamePriority { priority, servers: [first, second] } => write!(
                f,
                "{first} and {second} have the same priority, {priority}: the order of the document decides; give each its own"
            ),
            Self::EmptyTriggerPoint { place, is_cnf } => {
                let when = if *is_cnf { "always" } else { "never" };
                write!(
                    f,
                    "{place} has a trigger point without conditions and {when} matches: leave the trigger point out"
                )
            }
            Self::MethodCase { place, method } => write!(
                f,
                "{place} asks for the method {method:?}: methods are compared with their case; write {}",
                method.to_ascii_uppercase()
            ),
            Self::LongLine { place, line } => write!(
                f,
                "{place} asks for the session description line {line:?}: a line is named by its one letter, such as m; the rest belongs in the content"
            ),
        }
    }
}
