//! What the HSS tells an S-CSCF unasked: Registration-Termination (TS 29.228 6.1.3), when the registration has ended here already,
//! and Push-Profile (6.2.1), when what the S-CSCF has is not right any more.
//!
//! An S-CSCF that cannot be reached is told when its Diameter peer is back, unless the user has registered there again
//! meanwhile. What is still to be told is kept across restarts.

use crate::Hss;
use crate::cx::Termination;
use crate::profile::user_data;
use crate::subscriber::{State, Subscription};
use ims_core::{Action, Ctx, Impi, Kept, RequestId};
use ims_diameter::Message;
use ims_diameter::cx::{Ppa, Ppr, ReasonCode, ResultCode, Rta, Rtr};
use ims_diameter::endpoint::{RequestFailure, To};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// De-registrations that wait for their S-CSCF to come back.
const MOST_UNDELIVERED: usize = 10_000;

/// A de-registration to be told: a request of ours that waits for its answer, or for its S-CSCF.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Push {
    impi: Impi,
    /// The S-CSCF's Diameter name.
    host: String,
    realm: String,
    reason: ReasonCode,
    info: Cow<'static, str>,
}

impl Push {
    fn key(host: &str, impi: &Impi) -> String {
        format!("rtr {host} {}", impi.as_str())
    }
}

/// By S-CSCF and private identity: what could not be told yet. All of it is kept.
#[derive(Default)]
pub(crate) struct Undelivered(BTreeMap<(String, Impi), Push>);

impl Undelivered {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// False when there is no room.
    fn keep(&mut self, push: Push, ctx: &mut Ctx<'_>) -> bool {
        let room = self.0.len() < MOST_UNDELIVERED;
        if let Some(value) = serde_json::to_vec(&push).ok().filter(|_| room) {
            ctx.act(Action::Put(Kept { key: Push::key(&push.host, &push.impi), value: value.into() }));
            self.0.insert((push.host.clone(), push.impi.clone()), push);
        }
        room
    }

    /// What this S-CSCF has missed. It stays kept until it has answered.
    fn take(&mut self, host: &str) -> Vec<Push> {
        let of_host = |key: &(String, Impi)| key.0.eq_ignore_ascii_case(host);
        let keys: Vec<(String, Impi)> = self.0.keys().filter(|key| of_host(key)).cloned().collect();
        keys.iter().filter_map(|key| self.0.remove(key)).collect()
    }

    /// Who is registered at this S-CSCF now is not to be de-registered there for what was before.
    fn overtaken(&mut self, state: &State, ctx: &mut Ctx<'_>) {
        let Some(scscf) = &state.assigned else { return };
        if !self.0.is_empty() {
            for impi in state.registered_impis() {
                if self.0.remove(&(scscf.host.clone(), impi.clone())).is_some() {
                    ctx.act(Action::Delete { key: Push::key(&scscf.host, impi) });
                }
            }
        }
    }

    fn restore(&mut self, value: &[u8]) -> bool {
        let Ok(push) = serde_json::from_slice::<Push>(value) else { return false };
        self.0.insert((push.host.clone(), push.impi.clone()), push);
        true
    }
}

impl Hss {
    pub(crate) fn terminate(&mut self, termination: Option<Termination>, ctx: &mut Ctx<'_>) {
        let Some(Termination { scscf, impis, reason, info }) = termination else { return };
        for impi in impis {
            let (host, realm) = (scscf.host.clone(), scscf.realm.clone());
            let push = Push { impi, host, realm, reason, info: info.into() };
            self.push(push, ctx);
        }
    }

    fn push(&mut self, push: Push, ctx: &mut Ctx<'_>) {
        let Push { impi, host, realm, reason, info } = push.clone();
        tracing::info!("{impi:?} is de-registered at {host}: {info}");
        *self.commands.entry("RTR").or_default() += 1;
        let rtr = Rtr { impi, impus: Vec::new(), reason, reason_info: Some(info.into_owned()) };
        let id = self.endpoint.send_request(rtr.to_message(), &To { realm, host: Some(host) }, ctx);
        self.pushes.insert(id, push);
    }

    /// The S-CSCF that serves the subscription gets its profiles as they are now, a message for each set and each private
    /// identity that registered it. One that does not is given them with the next registration.
    pub(crate) fn push_profile(&mut self, subscription: &Subscription, state: &State, ctx: &mut Ctx<'_>) {
        let Some(scscf) = &state.assigned else { return };
        for (at, set) in state.sets.iter().enumerate() {
            let unregistered = subscription.impi_of_profile().filter(|_| set.registered.is_empty() && set.unregistered);
            for impi in set.registered.iter().chain(unregistered) {
                let user_data = Some(user_data(subscription, &self.config, impi, at, None));
                let ppr = Ppr { impi: impi.clone(), user_data, charging: None };
                let to = To { realm: scscf.realm.clone(), host: Some(scscf.host.clone()) };
                *self.commands.entry("PPR").or_default() += 1;
                let id = self.endpoint.send_request(ppr.to_message(), &to, ctx);
                self.profile_pushes.insert(id, impi.clone());
            }
        }
    }

    fn on_profile_answer(&mut self, impi: &Impi, result: Result<ResultCode, String>) {
        match result {
            Ok(result) if result.is_success() => {}
            // It has no profile of the user any more.
            Ok(ResultCode::USER_UNKNOWN) => {}
            other => {
                let why = other.map_or_else(|why| why, |result| format!("{result:?}"));
                *self.refusals.entry("ppr-failed").or_default() += 1;
                tracing::warn!(
                    "the changed profile of {impi:?} did not get to its S-CSCF ({why}): it does with the next registration"
                );
            }
        }
    }

    /// What an S-CSCF had not been told when the process ended.
    pub(crate) fn on_restored(&mut self, portion: Vec<Kept>, ctx: &mut Ctx<'_>) {
        for Kept { key, value } in portion {
            if !self.undelivered.restore(&value) {
                *self.refusals.entry("kept-damaged").or_default() += 1;
                tracing::warn!(key, "an entry that was kept cannot be read: it is dropped");
                ctx.act(Action::Delete { key });
            }
        }
    }

    /// The S-CSCF is back: it hears what it missed.
    pub(crate) fn on_peer_up(&mut self, host: &str, ctx: &mut Ctx<'_>) {
        for push in self.undelivered.take(host) {
            self.push(push, ctx);
        }
    }

    /// After a change of registration state is on disk.
    pub(crate) fn on_state(&mut self, state: &State, ctx: &mut Ctx<'_>) {
        self.undelivered.overtaken(state, ctx);
    }

    pub(crate) fn on_push_answer(&mut self, id: RequestId, message: &Message, ctx: &mut Ctx<'_>) {
        if let Some(impi) = self.profile_pushes.remove(&id) {
            let result = Ppa::from_message(message).map(|ppa| ppa.result).map_err(|error| error.to_string());
            return self.on_profile_answer(&impi, result);
        }
        let Some(push) = self.pushes.remove(&id) else { return };
        ctx.act(Action::Delete { key: Push::key(&push.host, &push.impi) });
        match Rta::from_message(message) {
            Ok(rta) if rta.result.is_success() => {}
            Ok(rta) => self.push_refused(&push, &format!("{:?}", rta.result)),
            Err(error) => self.push_refused(&push, &error.to_string()),
        }
    }

    pub(crate) fn on_push_failed(&mut self, id: RequestId, cause: RequestFailure, ctx: &mut Ctx<'_>) {
        if let Some(impi) = self.profile_pushes.remove(&id) {
            return self.on_profile_answer(&impi, Err(cause.to_string()));
        }
        let Some(push) = self.pushes.remove(&id) else { return };
        if cause != RequestFailure::NoPeer {
            // It may have heard, and the user may have registered there again since.
            ctx.act(Action::Delete { key: Push::key(&push.host, &push.impi) });
            return self.push_refused(&push, &cause.to_string());
        }
        *self.refusals.entry("rtr-undelivered").or_default() += 1;
        let (host, impi) = (push.host.clone(), push.impi.clone());
        if self.undelivered.keep(push, ctx) {
            tracing::warn!("{host} could not be told to de-register {impi:?} ({cause}): it will be when it is back");
        } else {
            tracing::warn!("{host} could not be told to de-register {impi:?} ({cause}), nor will it be: too many wait");
        }
    }

    fn push_refused(&mut self, push: &Push, why: &str) {
        *self.refusals.entry("rtr-failed").or_default() += 1;
        tracing::warn!("{} did not de-register {:?}: {why}", push.host, push.impi);
    }
}
