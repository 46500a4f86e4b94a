//! The end of sessions whose UE is gone (TS 24.229 5.2.8.1): its registration or the last of its SAs is.
//!
//! What rings is cancelled; what was answered gets a BYE for both ends, each as if it came from the other. Towards the UE it
//! leaves as long as an SA set still carries it.

use crate::contacts::RegId;
use crate::dialogs::{Ending, LegId, Way};
use crate::{Pcscf, Refusal, Timer, charging};
use ims_core::Ctx;
use ims_sip::endpoint::{Destination, Leg, ServerTx};
use ims_sip::proxy::prepare_next_hop;
use ims_sip::{Message, Name, Relayed};
use tracing::info;

/// RFC 3326: to the other end, and to whoever was about to answer.
const REASON: &str = "SIP;cause=503;text=\"The handset is gone\"";

impl Pcscf {
    /// The sessions of registrations that have just ended.
    pub(crate) fn release_ended(&mut self, ctx: &mut Ctx<'_>) {
        for id in self.contacts.take_ended() {
            if self.contacts.by_id(id).is_some_and(crate::contacts::Registration::is_registered) {
                continue;
            }
            self.watches.drop_of(id);
            self.timers.clear(&Timer::Subscription(id));
            let legs = self.dialogs.of(id);
            if legs.is_empty() {
                continue;
            }
            if self.told.lets(ctx.now) {
                info!(sessions = legs.len(), "the handset is gone: its sessions are released");
            }
            self.count_many("session-released", legs.len());
            for leg in legs {
                self.release(id, leg, ctx);
            }
            self.drain(ctx);
        }
    }

    fn release(&mut self, id: RegId, leg: LegId, ctx: &mut Ctx<'_>) {
        self.timers.clear(&Timer::Session(leg));
        let Some(leg) = self.dialogs.remove(leg) else {
            return;
        };
        for Ending { way, mut message } in leg.endings(REASON) {
            match way {
                Way::FromUe => {
                    charging::stamp_with(&mut message, &leg.icid, &self.config.visited_network);
                    let next = prepare_next_hop(&mut message);
                    self.sip.send_request(message, Destination::Uri(next), ctx);
                }
                Way::ToUe => {
                    if let Some(egress) = self.egress_of(id, Some(leg.line)) {
                        let to = Destination::Flow { flow: egress.flow, sent_by: egress.sent_by, leg: Leg::Ue };
                        self.sip.send_request(message, to, ctx);
                    }
                }
            }
        }
        if let Some(invite) = leg.invite {
            self.give_up(invite, leg.way, ctx);
        }
    }

    /// An INVITE without an answer. The core answers its CANCEL in time; whether the UE does, nobody knows.
    fn give_up(&mut self, invite: ServerTx, way: Way, ctx: &mut Ctx<'_>) {
        match way {
            Way::FromUe => {
                let mut cancel = Message::request("CANCEL", "sip:invalid");
                cancel.set(Name::Reason, REASON);
                let relayed: Relayed = self.relay.on_cancel(invite, &cancel, &mut self.sip, ctx);
                self.on_relayed(relayed, ctx);
            }
            Way::ToUe => {
                self.relay.abandon(invite, REASON, &mut self.sip, ctx);
                if let Some(passage) = self.relay.close(invite) {
                    let refusal = Refusal::UeGone { in_dialog: false };
                    self.refuse(passage.with.from, &passage.request, &refusal, ctx);
                }
            }
        }
    }

    /// A session has changed: when it is forgotten may have changed with it.
    pub(crate) fn watch(&mut self, leg: LegId) {
        match self.dialogs.get(leg).map(|leg| leg.until) {
            Some(until) => self.timers.set(Timer::Session(leg), until),
            None => {
                self.timers.clear(&Timer::Session(leg));
            }
        }
    }

    /// A session that nobody refreshed, or that is longer than any: it is not watched any more. Its ends may still talk.
    pub(crate) fn on_session_expired(&mut self, leg: LegId) {
        if self.dialogs.remove(leg).is_some() {
            self.count("session-expired");
        }
    }

    /// The answer did not arrive, or nobody acknowledged it.
    pub(crate) fn on_undelivered(&mut self, tx: ServerTx, ctx: &mut Ctx<'_>) {
        self.relay.abandon(tx, REASON, &mut self.sip, ctx);
        let leg = self.relay.close(tx).and_then(|passage| passage.with.leg.filter(|_| passage.with.begins()));
        if let Some(leg) = leg {
            self.dialogs.on_refused(leg);
            self.watch(leg);
        }
    }
}
