//! Requests that are neither for the registrar nor for us (TS 24.229 5.4.3).

use crate::{Refusal, Scscf};
use ims_core::Ctx;
use ims_sip::Message;
use ims_sip::endpoint::{ClientFailure, ClientTx, ServerTx};

impl Scscf {
    pub(crate) fn on_session_request(
        &mut self,
        _tx: ServerTx,
        message: &Message,
        _ctx: &mut Ctx<'_>,
    ) -> Result<(), Refusal> {
        Err(Refusal::NotYet { method: message.method().as_str().to_owned() })
    }

    pub(crate) fn on_session_response(&mut self, _tx: ClientTx, _response: Message, _ctx: &mut Ctx<'_>) {}

    pub(crate) fn on_session_failed(&mut self, _tx: ClientTx, _cause: ClientFailure, _ctx: &mut Ctx<'_>) {}

    pub(crate) fn on_ack(&mut self, _ack: Message, _ctx: &mut Ctx<'_>) {}

    pub(crate) fn on_cancel(&mut self, _invite: ServerTx, _cancel: &Message, _ctx: &mut Ctx<'_>) {}
}
