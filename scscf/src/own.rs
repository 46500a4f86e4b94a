//! Requests that the S-CSCF makes itself, such as NOTIFY and the REGISTER to an application server: what each is for, and what
//! its answer goes on with. Requests of others on their way through are the matter of [`crate::session`].

use crate::Scscf;
use crate::reg_event::SubscriptionId;
use crate::third_party::Told;
use ims_core::Ctx;
use ims_sip::Message;
use ims_sip::endpoint::{ClientFailure, ClientTx, Destination};

/// What a request of ours is for.
#[derive(Debug)]
pub(crate) enum Own {
    /// Tells a subscriber how a user is registered.
    Notify { subscription: SubscriptionId },
    /// Tells an application server that a user is registered, or is not any more.
    ThirdParty(Box<Told>),
    /// Ends the call of an application server that was given up before it answered.
    HangUp,
    /// Asks a trunk whether it is there.
    Options { trunk: String },
}

impl Scscf {
    /// Sends a request of ours to `next`, which a dialog or a Route gives.
    pub(crate) fn send_own(&mut self, message: Message, next: String, own: Own, ctx: &mut Ctx<'_>) {
        let tx = self.sip.send_request(message, Destination::Uri(next), ctx);
        self.own.insert(tx, own);
    }

    pub(crate) fn on_own_response(&mut self, tx: ClientTx, response: Message, ctx: &mut Ctx<'_>) {
        if response.status() < 200 {
            return;
        }
        if let Some(own) = self.own.remove(&tx) {
            self.on_own_end(own, Ok(response), ctx);
        }
    }

    pub(crate) fn on_own_failed(&mut self, tx: ClientTx, cause: ClientFailure, ctx: &mut Ctx<'_>) {
        if let Some(own) = self.own.remove(&tx) {
            self.on_own_end(own, Err(cause), ctx);
        }
    }

    /// A request of ours has its final answer, or none will come.
    fn on_own_end(&mut self, own: Own, answer: Result<Message, ClientFailure>, ctx: &mut Ctx<'_>) {
        let answer = answer.as_ref().map_err(|cause| *cause);
        match own {
            Own::Notify { subscription } => self.on_notify_answer(subscription, answer, ctx),
            Own::ThirdParty(told) => self.on_third_party_answer(*told, answer, ctx),
            Own::HangUp => {}
            Own::Options { trunk } => self.on_trunk_asked(&trunk, answer.ok().map(Message::status), ctx),
        }
    }
}
