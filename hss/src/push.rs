//! What the HSS tells an S-CSCF unasked: Registration-Termination (TS 29.228 6.1.3). The registration has ended here already;
//! an S-CSCF that does not answer learns of it when it speaks for the user again.

use crate::Hss;
use crate::cx::Termination;
use ims_core::{Ctx, Impi, RequestId};
use ims_diameter::Message;
use ims_diameter::cx::{Rta, Rtr};
use ims_diameter::endpoint::{RequestFailure, To};

/// A request of ours that waits for its answer; the endpoint gives it its time.
#[derive(Debug)]
pub(crate) struct Push {
    impi: Impi,
    /// The S-CSCF's Diameter name.
    host: String,
}

impl Hss {
    pub(crate) fn terminate(&mut self, termination: Option<Termination>, ctx: &mut Ctx<'_>) {
        let Some(Termination { scscf, impis, reason, info }) = termination else { return };
        let to = To { realm: scscf.realm, host: Some(scscf.host) };
        for impi in impis {
            let rtr = Rtr { impi: impi.clone(), impus: Vec::new(), reason, reason_info: Some(info.into()) };
            *self.commands.entry("RTR").or_default() += 1;
            tracing::info!("{impi:?} is de-registered at {:?}: {info}", to.host);
            let id = self.endpoint.send_request(rtr.to_message(), &to, ctx);
            self.pushes.insert(id, Push { impi, host: to.host.clone().unwrap_or_default() });
        }
    }

    pub(crate) fn on_push_answer(&mut self, id: RequestId, message: &Message) {
        let Some(push) = self.pushes.remove(&id) else { return };
        match Rta::from_message(message) {
            Ok(rta) if rta.result.is_success() => {}
            Ok(rta) => self.push_failed(&push, &format!("{:?}", rta.result)),
            Err(error) => self.push_failed(&push, &error.to_string()),
        }
    }

    pub(crate) fn on_push_failed(&mut self, id: RequestId, cause: RequestFailure) {
        if let Some(push) = self.pushes.remove(&id) {
            self.push_failed(&push, &cause.to_string());
        }
    }

    fn push_failed(&mut self, push: &Push, why: &str) {
        *self.refusals.entry("rtr-failed").or_default() += 1;
        tracing::warn!("{} did not de-register {:?}: {why}", push.host, push.impi);
    }
}
