//! To the contacts of a user (TS 24.229 5.4.3.3, RFC 3261 16.6): those with equal q value at once, the others after them.

use crate::me::Side;
use crate::preferences::Preferences;
use crate::registrar::Binding;
use crate::served::Served;
use crate::session::{Stage, Step};
use crate::{Refusal, Scscf, gruu};
use ims_core::Ctx;
use ims_sip::endpoint::ServerTx;
use ims_sip::headers::Params;
use ims_sip::{Message, Name, proxy};
use std::collections::VecDeque;
use std::sync::Arc;

/// Why a contact stops to ring: others are tried now.
const NO_ANSWER: &str = "SIP;cause=408;text=\"No answer\"";

/// RFC 5393 5.3: over how many branches a request may spread that does not say.
const MAX_BREADTH: usize = 60;

/// The contacts that were not tried yet, those that are tried together in one list.
#[derive(Debug)]
pub(crate) struct Targets {
    groups: VecDeque<Vec<Target>>,
    /// Max-Breadth of the request.
    breadth: usize,
}

#[derive(Clone, PartialEq, Debug)]
struct Target {
    uri: Box<str>,
    path: Arc<[Box<str>]>,
}

/// Request-Disposition (RFC 3841 9.1), as far as a caller may have its will.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Disposition {
    ByPreference,
    /// The best contact alone.
    NoFork,
    Sequential,
    Parallel,
}

impl Disposition {
    fn of(request: &Message) -> Self {
        let has = |token| request.has_token(Name::RequestDisposition, token);
        match () {
            () if has("no-fork") => Self::NoFork,
            () if has("sequential") => Self::Sequential,
            () if has("parallel") => Self::Parallel,
            () => Self::ByPreference,
        }
    }
}

impl Target {
    fn of(binding: &Binding) -> Self {
        Self { uri: binding.contact.uri.clone(), path: binding.path.clone() }
    }
}

/// By falling q value (RFC 3261 16.6), and what the caller wants more before what it wants less (RFC 3841 7.2.4).
fn groups(mut contacts: Vec<(u16, u32, Target)>, disposition: Disposition) -> VecDeque<Vec<Target>> {
    contacts.sort_by_key(|(q, fits, _)| std::cmp::Reverse((*q, *fits)));
    let mut groups: VecDeque<Vec<Target>> = VecDeque::new();
    let mut last = None;
    for (q, _, target) in contacts {
        let together = match disposition {
            Disposition::ByPreference => last == Some(q),
            Disposition::Parallel => true,
            Disposition::Sequential | Disposition::NoFork => false,
        };
        match groups.back_mut().filter(|_| together) {
            Some(group) => group.push(target),
            None => groups.push_back(vec![target]),
        }
        last = Some(q);
    }
    if disposition == Disposition::NoFork {
        groups.truncate(1);
    }
    groups
}

impl Targets {
    /// Those that are tried next: no more at once than the request may spread over (RFC 5393 5.3.3).
    fn next(&mut self) -> Option<Vec<Target>> {
        let mut group = self.groups.pop_front()?;
        let later = group.split_off(group.len().min(self.breadth.max(1)));
        if !later.is_empty() {
            self.groups.push_front(later);
        }
        Some(group)
    }
}

impl Scscf {
    pub(crate) fn deliver(&mut self, tx: ServerTx, served: &Served, ctx: &mut Ctx<'_>) -> Result<(), Refusal> {
        let Some(passage) = self.relay.get(tx) else { return Ok(()) };
        let mut request = passage.request.clone();
        let breadth = max_breadth(&request)?;
        let bindings = self.registrar.of_impu(&served.impu).flat_map(|r| &r.bindings);
        let mut bindings: Vec<&Binding> = bindings.filter(|b| b.expires_at > ctx.now).collect();
        bindings.retain(|b| self.is_for(request.uri(), b));
        // A contact of an emergency registration is for who calls back when there is no other.
        if bindings.iter().any(|b| !b.contact.is_emergency()) {
            bindings.retain(|b| !b.contact.is_emergency());
        }
        if bindings.is_empty() {
            return Err(Refusal::NotReachable(served.impu.clone()));
        }
        let chosen = Preferences::of(&request).choose(bindings, |b| &b.contact.params);
        if chosen.is_empty() {
            return Err(Refusal::NoContactWanted(served.impu.clone()));
        }
        let contacts = chosen.into_iter().map(|(fits, b)| (q_value(&b.contact.params), fits, Target::of(b))).collect();
        let targets = Targets { groups: groups(contacts, Disposition::of(&request)), breadth };
        // What the callee was called (RFC 7315 4.2): the contact takes the place of it.
        let called = request.uri().to_owned();
        request.set(Name::PCalledPartyId, format!("<{called}>"));
        request.remove(Name::Route);
        self.write_orig_ioi(&mut request, ctx);
        self.record_route(&mut request, Side::Terminating);
        if let Some(passage) = self.relay.get_mut(tx) {
            passage.request = request;
            if let Some(stage) = &mut passage.with.stage {
                stage.step = Step::Delivered(targets);
            }
        }
        self.try_next_contacts(tx, ctx);
        Ok(())
    }

    /// Whether a request is for this device too: all that a user has, or the one that a GRUU names (RFC 5627).
    pub(crate) fn is_for(&self, uri: &str, binding: &Binding) -> bool {
        if let Some(device) = gruu::device(uri) {
            return gruu::is_of(device, &binding.contact);
        }
        self.temporary_gruus.read(uri).is_none_or(|named| self.temporary_gruus.is_of(&named, binding))
    }

    /// False: there are none, or there is no sense in trying them (RFC 3261 16.7 item 5).
    pub(crate) fn try_next_contacts(&mut self, tx: ServerTx, ctx: &mut Ctx<'_>) -> bool {
        let Some(passage) = self.relay.get_mut(tx) else { return false };
        let is_over = passage.is_cancelled() || passage.best().is_some_and(|status| status >= 600);
        let Some(Stage { step: Step::Delivered(targets), .. }) = passage.with.stage.as_deref_mut() else {
            return false;
        };
        if is_over {
            return false;
        }
        let Some(group) = targets.next() else { return false };
        let (more, breadth) = (!targets.groups.is_empty(), targets.breadth);
        let mut request = passage.request.clone();
        if group.len() > 1 {
            request.set_named("Max-Breadth", (breadth / group.len()).max(1));
        }
        for target in group {
            let mut copy = request.clone();
            copy.set_uri(&target.uri);
            target.path.iter().for_each(|uri| copy.push_back(Name::Route, format!("<{uri}>")));
            let to = proxy::prepare_next_hop(&mut copy);
            self.send_branch(tx, copy, to, ctx);
        }
        match more {
            true => self.patience.set(tx, ctx.now + self.config.timers.next_contacts.0),
            false => drop(self.patience.clear(&tx)),
        }
        true
    }

    /// Nobody has answered for a while, and there are others. Whoever answers all the same before hearing of it is the one.
    pub(crate) fn on_contacts_silent(&mut self, tx: ServerTx, ctx: &mut Ctx<'_>) {
        self.relay.call_off(tx, NO_ANSWER, &mut self.sip, ctx);
        self.try_next_contacts(tx, ctx);
    }
}

/// RFC 5393 5.3.3.
fn max_breadth(request: &Message) -> Result<usize, Refusal> {
    let text = request.raw_named("Max-Breadth").next().and_then(|value| std::str::from_utf8(value).ok());
    match text.and_then(|text| text.trim().parse::<usize>().ok()) {
        Some(0) => Err(Refusal::TooBroad),
        Some(breadth) => Ok(breadth.min(MAX_BREADTH)),
        None => Ok(MAX_BREADTH),
    }
}

/// In thousandths; 1000 for a contact without one, or with one that is no q value.
fn q_value(params: &str) -> u16 {
    Params(params).value("q").and_then(ims_sip::headers::q_value).unwrap_or(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(disposition: Disposition, breadth: usize) -> Vec<Vec<String>> {
        let contacts = [("q=0.5", 0), ("", 5), ("q=0.50;x", 9), ("q=1.0", 7), ("q=7", 0), ("q=0", 9)];
        let contacts = contacts.iter().map(|(params, fits)| {
            (q_value(&format!(";{params}")), *fits, Target { uri: (*params).into(), path: Arc::from([]) })
        });
        let mut targets = Targets { groups: groups(contacts.collect(), disposition), breadth };
        std::iter::from_fn(|| targets.next()).map(|group| group.iter().map(|t| t.uri.to_string()).collect()).collect()
    }

    #[test]
    fn equal_q_values_are_tried_together_and_higher_ones_first() {
        let groups = tried(Disposition::ByPreference, 60);
        assert_eq!(groups, [vec!["q=1.0", "", "q=7"], vec!["q=0.50;x", "q=0.5"], vec!["q=0"]]);
    }

    #[test]
    fn the_caller_may_have_them_otherwise() {
        assert_eq!(tried(Disposition::NoFork, 60), [["q=1.0"]]);
        assert_eq!(tried(Disposition::Sequential, 60).len(), 6);
        assert_eq!(tried(Disposition::Parallel, 60).len(), 1);
    }

    #[test]
    fn no_more_at_once_than_the_breadth_allows() {
        let groups = tried(Disposition::ByPreference, 2);
        assert_eq!(groups, [vec!["q=1.0", ""], vec!["q=7"], vec!["q=0.50;x", "q=0.5"], vec!["q=0"]]);
    }
}
