//! Whether something on the way rewrites the addresses of handsets. Security associations are bound to them (TS 33.203 7.1), and
//! a handset behind NAT is never heard inside one: the operator hears of it at the first REGISTER.

use ims_core::Flow;
use ims_sip::Message;
use ims_sip::headers::Via;
use std::net::IpAddr;
use tracing::warn;

#[derive(Default)]
pub(crate) struct Rewritten {
    seen: u64,
}

impl Rewritten {
    /// A REGISTER in clear. The handset writes its own address into Via.
    pub(crate) fn note(&mut self, message: &Message, flow: &Flow) {
        let Ok(Some(via)) = message.first::<Via<'_>>() else { return };
        let source = flow.remote.ip();
        let own = via.host.trim_matches(['[', ']']).parse::<IpAddr>();
        let Some(own) = own.ok().filter(|own| *own != source) else { return };
        if self.seen == 0 {
            warn!(
                via = %own, %source,
                "a handset's address is rewritten on the way (NAT): IPsec cannot work so. Route the addresses of handsets to \
                 the P-CSCF without masquerading"
            );
        }
        self.seen += 1;
    }

    pub(crate) fn seen(&self) -> u64 {
        self.seen
    }
}
