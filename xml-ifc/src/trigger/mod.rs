//! Which criteria a request meets (TS 29.228 Annex B, C and F; TS 24.229 5.4.3.2 and 5.4.3.3).
//!
//! A [`Compiler`] makes [`CompiledCriteria`] of a service profile, once; [`CompiledCriteria::next_match`] then asks nothing of the heap but
//! what a folded header or a multipart body needs. Criteria are asked by ascending priority, own ones before shared ones and in the
//! order of the document where priorities are equal.

mod condition;
mod explain;
mod findings;
mod pattern;
mod request;

pub use explain::{ConditionVerdict, Explanation, GroupVerdict, Verdict, explain};
pub use findings::{Finding, Where};
pub use request::{RegistrationType, RequestView, SessionCase};

use crate::shared::SharedSets;
use crate::{Ifc, ProfilePart, ServiceProfile};
use condition::Trigger;
pub use pattern::Pattern;
use pattern::Patterns;
use request::Asked;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Criteria of one profile that are looked at, shared ones included.
pub const MOST_CRITERIA: usize = 1000;

/// Makes service profiles ready. What profiles have in common, patterns and shared sets, is made once.
#[derive(Default)]
pub struct Compiler {
    shared: BTreeMap<u32, Vec<Arc<Criterion>>>,
    findings: Vec<Finding>,
    patterns: Patterns,
}

/// One criterion, ready to ask.
struct Criterion {
    ifc: Ifc,
    /// None: it stands in the profile itself.
    shared_set: Option<u32>,
    trigger: Trigger,
}

/// The criteria of a service profile in the order in which they are asked.
#[derive(Default)]
pub struct CompiledCriteria {
    list: Box<[Arc<Criterion>]>,
    findings: Box<[Finding]>,
}

impl Compiler {
    pub fn new(shared: &SharedSets) -> Self {
        let mut made = Self::default();
        for (id, criteria) in shared.iter() {
            let compiled = criteria.iter().map(|ifc| {
                let trigger = Trigger::compile(ifc, &mut made.patterns, &mut made.findings);
                Arc::new(Criterion { ifc: ifc.clone(), shared_set: Some(id), trigger })
            });
            let compiled = compiled.collect();
            Finding::of_all(criteria.iter(), &mut made.findings);
            made.shared.insert(id, compiled);
        }
        made
    }

    /// What is wrong with the shared sets themselves.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    pub fn compile(&mut self, profile: &ServiceProfile) -> CompiledCriteria {
        let mut findings = Vec::new();
        let mut list: Vec<Arc<Criterion>> = profile
            .criteria
            .iter()
            .take(MOST_CRITERIA)
            .map(|ifc| {
                let trigger = Trigger::compile(ifc, &mut self.patterns, &mut findings);
                Arc::new(Criterion { ifc: ifc.clone(), shared_set: None, trigger })
            })
            .collect();
        for id in &profile.shared_ifc_sets {
            match self.shared.get(id) {
                Some(criteria) => list.extend(criteria.iter().cloned()),
                None => findings.push(Finding::UnknownSet { id: *id }),
            }
        }
        if list.len() > MOST_CRITERIA || profile.criteria.len() > MOST_CRITERIA {
            findings.push(Finding::TooMany { most: MOST_CRITERIA });
            list.truncate(MOST_CRITERIA);
        }
        list.sort_by_key(|criterion| criterion.ifc.priority);
        Finding::of_all(profile.criteria.iter(), &mut findings);
        CompiledCriteria { list: list.into(), findings: findings.into() }
    }
}

/// What is wrong with criteria that are to be provisioned.
pub fn check(criteria: &[Ifc]) -> Vec<Finding> {
    let profile = ServiceProfile { criteria: criteria.to_vec(), ..ServiceProfile::default() };
    Compiler::default().compile(&profile).findings.into()
}

impl CompiledCriteria {
    /// Of one profile by itself; a [`Compiler`] shares what several have in common.
    pub fn new(profile: &ServiceProfile, shared: &SharedSets) -> Self {
        Compiler::new(shared).compile(profile)
    }

    /// The first criterion at `from` or behind that the request meets. A chain goes on at the index behind it.
    pub fn next_match(&self, from: usize, view: &RequestView<'_>) -> Option<(usize, &Ifc)> {
        let asked = Asked::new(*view);
        let rest = self.list.iter().enumerate().skip(from);
        rest.map(|(at, criterion)| (at, &**criterion)).find_map(|(at, criterion)| {
            (criterion.is_relevant(view.case) && criterion.trigger.holds(&asked)).then_some((at, &criterion.ifc))
        })
    }

    /// Every criterion that the request meets as it is, in order: who is told of a REGISTER (TS 24.229 5.4.1.7).
    pub fn matches<'a>(&'a self, view: &RequestView<'_>) -> impl Iterator<Item = (usize, &'a Ifc)> {
        let mut next = 0;
        let view = *view;
        std::iter::from_fn(move || {
            let (at, ifc) = self.next_match(next, &view)?;
            next = at + 1;
            Some((at, ifc))
        })
    }

    /// The criterion at an index that [`Self::next_match`] gave.
    pub fn get(&self, at: usize) -> Option<&Ifc> {
        self.list.get(at).map(|criterion| &criterion.ifc)
    }

    pub fn len(&self) -> usize {
        self.list.len()
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// What is wrong with the profile.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }
}

impl Criterion {
    /// ProfilePartIndicator.
    fn is_relevant(&self, case: SessionCase) -> bool {
        match self.ifc.profile_part {
            None => true,
            Some(ProfilePart::Registered) => case.is_registered(),
            Some(ProfilePart::Unregistered) => !case.is_registered(),
        }
    }
}

impl fmt::Debug for CompiledCriteria {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers = self.list.iter().map(|c| (c.ifc.priority, &c.ifc.server.server_name));
        f.debug_list().entries(servers).finish()
    }
}
