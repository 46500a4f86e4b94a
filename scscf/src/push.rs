//! Requests of the HSS: it ends registrations (RTR, TS 29.228 6.1.3, TS 24.229 5.4.1.5) and changes profiles (PPR,
//! TS 29.228 6.2.1).

use crate::Scscf;
use crate::profile::Profile;
use crate::reg_event::Why;
use crate::reginfo::Happened;
use crate::registrar::{Changed, Registration};
use ims_core::{Ctx, Impu};
use ims_diameter::Message;
use ims_diameter::cx::{Ppa, Ppr, ReasonCode, Request, ResultCode, Rta, Rtr};
use ims_diameter::endpoint::RequestToken;
use ims_diameter::message::DiameterError;
use std::sync::Arc;

impl Scscf {
    pub(crate) fn on_push(&mut self, token: RequestToken, message: &Message, ctx: &mut Ctx<'_>) {
        let answer = match Request::from_message(message) {
            Ok(Request::Rtr(rtr)) => Rta { result: self.on_rtr(&rtr, ctx) }.to_message(message),
            Ok(Request::Ppr(ppr)) => Ppa { result: self.on_ppr(ppr, ctx) }.to_message(message),
            Ok(other) => {
                self.count("diameter-request");
                tracing::warn!(command = other.name(), "the HSS asks what only an HSS can answer");
                message.error_answer(&DiameterError::Command(message.command()))
            }
            Err(error) => {
                self.count("diameter-request");
                tracing::warn!("refused a request of the HSS: {error}");
                message.error_answer(&error)
            }
        };
        self.cx.answer(token, answer, ctx);
    }

    /// Ends the registrations of the identities named, or of all that the private identity has. What is not registered
    /// is as the HSS wants it.
    fn on_rtr(&mut self, rtr: &Rtr, ctx: &mut Ctx<'_>) -> ResultCode {
        let named =
            |r: &Registration| rtr.impus.is_empty() || rtr.impus.iter().any(|i| r.impu == *i || r.profile.has(i));
        let gone: Vec<Impu> = self.registrar.of_impi(&rtr.impi).filter(|r| named(r)).map(|r| r.impu.clone()).collect();
        for impu in &gone {
            self.end_registration(&rtr.impi, impu, happens(rtr.reason), "ended-by-hss", ctx);
        }
        self.auth.forget(&rtr.impi);
        self.nonces.forget(&rtr.impi);
        ResultCode::SUCCESS
    }

    /// The new profile counts from the next evaluation on; the set keeps its bindings.
    fn on_ppr(&mut self, ppr: Ppr, ctx: &mut Ctx<'_>) -> ResultCode {
        let profile = match ppr.user_data.as_deref().map(|xml| Profile::parse(xml, None)).transpose() {
            Ok(profile) => profile,
            Err(error) => {
                self.count("bad-profile");
                tracing::warn!(impi = ?ppr.impi, "the HSS pushes a profile that is of no use: {error}");
                return ResultCode::NOT_SUPPORTED_USER_DATA;
            }
        };
        let is_about = |r: &&Registration| match &profile {
            Some(new) => new.identities.iter().any(|i| r.profile.has(&i.impu)),
            None => true,
        };
        let mut changed: Vec<Registration> = self.registrar.of_impi(&ppr.impi).filter(is_about).cloned().collect();
        let named = profile.iter().flat_map(|profile| profile.identities.iter());
        let was_kept = named.filter(|i| self.unregistered.forget(&i.impu)).count() > 0;
        if changed.is_empty() && !was_kept {
            return ResultCode::USER_UNKNOWN;
        }
        for registration in &mut changed {
            let charging = ppr.charging.clone().map(Arc::new).or_else(|| registration.profile.charging.clone());
            let new = profile.clone().unwrap_or_else(|| registration.profile.clone());
            registration.profile = Profile { charging, ..new };
        }
        tracing::info!(impi = ?ppr.impi, sets = changed.len(), "profile changed by the HSS");
        for registration in changed {
            if let Some(Changed { id, before }) = self.registrar.store(registration, ctx.actions) {
                self.on_registration_changed(before.as_ref(), id, Why::Network(Happened::Deactivated), ctx);
            }
        }
        ResultCode::SUCCESS
    }
}

/// What the UE is told: to stay away, or to register anew, which finds it another S-CSCF (TS 24.229 5.4.1.5).
fn happens(reason: ReasonCode) -> Happened {
    match reason {
        ReasonCode::PermanentTermination => Happened::Rejected,
        ReasonCode::NewServerAssigned | ReasonCode::ServerChange | ReasonCode::RemoveScscf => Happened::Deactivated,
    }
}
