//! To the contacts of a user (TS 24.229 5.4.3.3, RFC 3261 16.6): those with equal q value at once, the others after them.

use crate::me::Side;
use crate::registrar::Binding;
use crate::served::Served;
use crate::session::{Stage, Step};
use crate::{Refusal, Scscf};
use ims_core::Ctx;
use ims_sip::endpoint::ServerTx;
use ims_sip::headers::Params;
use ims_sip::{Name, proxy};
use std::collections::VecDeque;
use std::sync::Arc;

/// Why a contact stops to ring: others are tried now.
const NO_ANSWER: &str = "SIP;cause=408;text=\"No answer\"";

/// The contacts that were not tried yet, those that are tried together in one list.
#[derive(Debug)]
pub(crate) struct Targets(VecDeque<Vec<Target>>);

#[derive(Clone, Debug)]
struct Target {
    uri: Box<str>,
    path: Arc<[Box<str>]>,
}

impl Target {
    fn of(binding: &Binding) -> Self {
        Self { uri: binding.contact.uri.clone(), path: binding.path.clone() }
    }
}

impl Targets {
    /// By falling q value (RFC 3261 16.6).
    fn by_preference(mut contacts: Vec<(u16, Target)>) -> Self {
        contacts.sort_by_key(|(q, _)| std::cmp::Reverse(*q));
        let mut groups: VecDeque<Vec<Target>> = VecDeque::new();
        let mut last = None;
        for (q, target) in contacts {
            match groups.back_mut().filter(|_| last == Some(q)) {
                Some(group) => group.push(target),
                None => groups.push_back(vec![target]),
            }
            last = Some(q);
        }
        Self(groups)
    }
}

impl Scscf {
    pub(crate) fn deliver(&mut self, tx: ServerTx, served: &Served, ctx: &mut Ctx<'_>) -> Result<(), Refusal> {
        let bindings =
            self.registrar.of_impu(&served.impu).flat_map(|r| &r.bindings).filter(|b| b.expires_at > ctx.now);
        let contacts: Vec<(u16, Target)> = bindings.map(|b| (q_value(&b.contact.params), Target::of(b))).collect();
        if contacts.is_empty() {
            return Err(Refusal::NotReachable(served.impu.clone()));
        }
        let Some(passage) = self.relay.get(tx) else { return Ok(()) };
        let mut request = passage.request.clone();
        // What the callee was called (RFC 7315 4.2): the contact takes the place of it.
        let called = request.uri().to_owned();
        request.set(Name::PCalledPartyId, format!("<{called}>"));
        request.remove(Name::Route);
        self.write_orig_ioi(&mut request, ctx);
        self.record_route(&mut request, Side::Terminating);
        if let Some(passage) = self.relay.get_mut(tx) {
            passage.request = request;
            if let Some(stage) = &mut passage.with.stage {
                stage.step = Step::Delivered(Targets::by_preference(contacts));
            }
        }
        self.try_next_contacts(tx, ctx);
        Ok(())
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
        let Some(group) = targets.0.pop_front() else { return false };
        let more = !targets.0.is_empty();
        let request = passage.request.clone();
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

/// In thousandths; 1000 for a contact without one, or with one that is no q value.
fn q_value(params: &str) -> u16 {
    Params(params).value("q").and_then(ims_sip::headers::q_value).unwrap_or(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_q_values_are_tried_together_and_higher_ones_first() {
        let target = |uri: &str| Target { uri: uri.into(), path: Arc::from([]) };
        let contacts = ["q=0.5", "", "q=0.50;x", "q=1.0", "q=7", "q=0"];
        let contacts = contacts.iter().map(|p| (q_value(&format!(";{p}")), target(p))).collect();
        let groups: Vec<Vec<String>> = Targets::by_preference(contacts)
            .0
            .iter()
            .map(|group| group.iter().map(|t| t.uri.to_string()).collect())
            .collect();
        assert_eq!(groups, [vec!["", "q=1.0", "q=7"], vec!["q=0.5", "q=0.50;x"], vec!["q=0"]]);
    }
}
