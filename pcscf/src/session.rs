//! Requests that pass through: a UE's to the core (TS 24.229 5.2.6.3), the core's to a UE (5.2.6.4), and the answers back.
//!
//! `on_ue_request` and `on_core_request` take the first look at a request; `initial` is for one that begins something, `within`
//! for one inside a dialog. `on_relayed` brings the answers back. What may not pass is in `border`, who speaks in `identity`,
//! the way in `routes`, what is kept of a session in `dialogs`, and how it ends without its UE in `release`.

use crate::charging::{self, Icid};
use crate::config::RoutePolicy;
use crate::contacts::{RegId, Registration};
use crate::dialogs::{LegId, Line, Names, Way};
use crate::register::{Inbound, asks_for_patience};
use crate::sa::State;
use crate::{Pcscf, Refusal, border, identity, routes};
use ims_core::uri::Uri;
use ims_core::{Ctx, Flow, Time, Transport};
use ims_sip::endpoint::{ClientFailure, ClientTx, Destination, Leg, ServerTx};
use ims_sip::headers::{NameAddr, PCalledPartyId};
use ims_sip::proxy::{decrement_max_forwards, next_hop, prepare_next_hop, take_own_route};
use ims_sip::{Message, Method, Name, Relayed};
use tracing::{debug, info};

/// What is kept with a request on its way.
#[derive(Debug)]
pub(crate) struct Passing {
    pub(crate) from: Inbound,
    pub(crate) way: Way,
    pub(crate) registration: RegId,
    /// The session that it begins or belongs to.
    pub(crate) leg: Option<LegId>,
    icid: Option<Icid>,
    orig_ioi: Option<Box<str>>,
    /// By which identity the UE was called.
    called: Option<Box<str>>,
    /// Record-Route as it was sent to a UE, our entry in the form for the core: what its answer has to say.
    recorded: Vec<Box<str>>,
    begins: bool,
    /// An answer has come that counts for the admission of others.
    is_taken_up: bool,
    /// When no connection can be made that the session keeps to: the same by datagram.
    instead: Option<Box<(Message, Destination)>>,
}

impl Passing {
    /// Whether it is no request within a dialog.
    pub(crate) fn begins(&self) -> bool {
        self.begins
    }
}

impl Pcscf {
    /// Anything but REGISTER from a UE: only from a registered one (TS 24.229 5.2.6.3).
    pub(crate) fn on_ue_request(
        &mut self,
        from: Inbound,
        method: Method<'_>,
        message: &Message,
        ctx: &mut Ctx<'_>,
    ) -> Result<(), Refusal> {
        let names = Names::of(message).ok_or_else(|| Refusal::Malformed("From, To or Call-ID".into()))?;
        let begins = !names.is_in_dialog();
        let emergency = if begins { self.emergency(message) } else { None };
        knows_what_is_required(message)?;
        let mut outward = message.clone();
        decrement_max_forwards(&mut outward).map_err(|_| Refusal::TooManyHops)?;
        take_own_route(&mut outward, |uri| self.config.is_own(uri));
        let id = match (self.speaking(from.flow, message), &emergency) {
            (Some(id), _) => id,
            (None, Some(_)) => self.take_in(from, message, ctx)?,
            (None, None) => return Err(Refusal::RegisterFirst { method: method.to_string() }),
        };
        if method == Method::Options && self.is_for_us(message) {
            return self.answer_options(from, message, ctx);
        }
        let leg = match (begins, &emergency) {
            (true, Some(urn)) => {
                self.call_for_help(id, urn, &mut outward)?;
                None
            }
            (true, None) => {
                self.room_for(method)?;
                self.admit(ctx.now)?;
                self.originate(id, &mut outward)?;
                None
            }
            (false, _) => self.go_on(id, &names, from.flow, &mut outward)?,
        };
        border::from_ue(&mut outward, &self.config);
        let token = self.contacts.by_id(id).map(|r| r.token.clone()).ok_or(Refusal::NoSuchUe)?;
        let icid = match leg.and_then(|leg| self.dialogs.get(leg)) {
            Some(leg) => leg.icid.clone(),
            None if begins && !routes::records(method) => Icid::fresh(&self.config.host, ctx.rng),
            None => Icid::of_dialog(&token, names.call_id(), names.ue_tag(Way::FromUe), &self.config.host),
        };
        charging::stamp_with(&mut outward, &icid, &self.config.visited_network);
        if routes::records(method) {
            outward.push_front(Name::RecordRoute, self.config.route_for_core(&token));
        }
        let leg = match (leg, begins && method == Method::Invite) {
            (None, true) => Some(self.begin(id, Way::FromUe, &outward, icid.clone(), from, Line::of(from.flow), ctx)),
            (leg, _) => leg,
        };
        let passing = Passing {
            from,
            way: Way::FromUe,
            registration: id,
            leg,
            icid: Some(icid),
            orig_ioi: None,
            called: None,
            recorded: Vec::new(),
            begins,
            is_taken_up: false,
            instead: None,
        };
        let next = prepare_next_hop(&mut outward);
        self.carry(message, passing, outward, Destination::Uri(next), ctx);
        Ok(())
    }

    /// The registered UE that sent this. Over an SA set it is that of the set: whoever uses it has the keys of the SIM, even before
    /// the S-CSCF has seen its answer (a new authentication while there is traffic). In clear, the address decides.
    fn speaking(&self, flow: Flow, message: &Message) -> Option<RegId> {
        let is_registered = |id: &RegId| self.contacts.by_id(*id).is_some_and(Registration::is_registered);
        if self.config.is_protected(flow.local) {
            let held = self.sets.by_id(self.sets.live(flow.remote, flow.local)?)?;
            let proven = matches!(held.state, State::Active | State::Retiring | State::Proposed { used: true });
            return proven.then_some(held.registration).filter(is_registered);
        }
        let at: Vec<RegId> = self.contacts.by_clear_remote(flow.remote).filter(is_registered).collect();
        let by_identity = |ids: &[RegId]| {
            ids.iter().copied().find(|id| self.contacts.by_id(*id).is_some_and(|r| speaks_as(r, message)))
        };
        match at.as_slice() {
            [only] => Some(*only),
            // Calls over a connection of their own, from some port (OnePlus 5): the address, and the identity or contact.
            [] if flow.transport == Transport::Tcp => {
                by_identity(&self.contacts.in_clear_at(flow.remote.ip()).filter(is_registered).collect::<Vec<_>>())
            }
            several => by_identity(several).or(several.first().copied()),
        }
    }

    /// What begins waits its turn while there is more to do than can be done; what is under way, and who is in need, does not.
    fn admit(&mut self, now: Time) -> Result<(), Refusal> {
        match self.admission.is_limiting() && !self.admission.admits(now, &self.config.overload) {
            true => Err(Refusal::Overload),
            false => Ok(()),
        }
    }

    fn room_for(&self, method: Method<'_>) -> Result<(), Refusal> {
        match method == Method::Invite && self.dialogs.len() >= self.config.limits.max_sessions {
            true => Err(Refusal::Full("max_sessions")),
            false => Ok(()),
        }
    }

    /// A request that begins something: on the way that the S-CSCF gave, as somebody whom the S-CSCF knows
    /// (TS 24.229 5.2.6.3.3, 5.2.6.3.7, 5.2.6.3.11).
    fn originate(&mut self, id: RegId, outward: &mut Message) -> Result<(), Refusal> {
        let registration = self.contacts.by_id(id).ok_or(Refusal::NoSuchUe)?;
        if registration.is_for_emergencies() {
            return Err(Refusal::NoEmergency);
        }
        let speaker = identity::speaker(outward, registration).ok_or(Refusal::NoSuchUe)?;
        let (was_refused, route) = (speaker.was_refused, speaker.binding.service_route.clone());
        if route.is_empty() {
            return Err(Refusal::NoServiceRoute);
        }
        identity::assert(outward, &speaker.identities);
        if was_refused {
            self.count("identity-not-registered");
        }
        self.keep_to(&route, outward)
    }

    /// An emergency call: of whoever it is, to the emergency services (TS 24.229 5.2.10.2 to 5.2.10.4).
    fn call_for_help(&mut self, id: RegId, urn: &str, outward: &mut Message) -> Result<(), Refusal> {
        self.lets_call(id)?;
        let registration = self.contacts.by_id(id).ok_or(Refusal::NoSuchUe)?;
        let identities = match registration.is_guest() {
            true => Vec::new(),
            false => identity::speaker(outward, registration).map(|s| s.identities).unwrap_or_default(),
        };
        identity::assert(outward, &identities);
        info!(impi = ?registration.impi, service = urn, "an emergency call");
        self.to_emergency_services(urn, outward);
        self.dialogs.emergencies += 1;
        Ok(())
    }

    /// A request within a dialog: on the way that the dialog has. One that is not known here (we were restarted, or it is no session) may
    /// pass as long as the S-CSCF of the UE is next: it knows what it has begun.
    fn go_on(
        &mut self,
        id: RegId,
        names: &Names<'_>,
        from: Flow,
        outward: &mut Message,
    ) -> Result<Option<LegId>, Refusal> {
        identity::disown(outward);
        let leg = self.dialogs.find(id, Way::FromUe, names);
        let dialog = leg.and_then(|leg| self.dialogs.get(leg)?.dialog(Way::FromUe, names));
        match dialog.map(|dialog| dialog.route.clone()) {
            Some(route) => self.keep_to(&route, outward)?,
            None if self.leads_to_scscf(id, outward) => {}
            None => return Err(Refusal::NoSuchDialog { method: outward.method().to_string() }),
        }
        if let Some(leg) = leg {
            self.dialogs.heard(leg, from);
            self.dialogs.on_request(leg, Way::FromUe, outward);
        }
        Ok(leg)
    }

    /// What a UE does on a way of its own is either put right or refused (TS 24.229 5.2.6.3.3).
    fn keep_to(&mut self, route: &[Box<str>], outward: &mut Message) -> Result<(), Refusal> {
        if routes::follows(outward, route) {
            return Ok(());
        }
        match self.config.route_mismatch {
            RoutePolicy::Refuse => Err(Refusal::RouteMismatch),
            RoutePolicy::Replace => {
                self.count("route-replaced");
                routes::set_route(outward, route);
                Ok(())
            }
        }
    }

    fn leads_to_scscf(&self, id: RegId, outward: &Message) -> bool {
        let next = next_hop(outward);
        let Ok(next) = Uri::parse(&next) else { return false };
        if self.leads_to_emergency_services(&next) {
            return true;
        }
        let is_next = |entry: &str| {
            let own = NameAddr::parse(entry).ok().and_then(|addr| Uri::parse(addr.uri).ok());
            own.is_some_and(|own| routes::same_place(&own, &next))
        };
        let registration = self.contacts.by_id(id);
        registration.is_some_and(|r| r.bindings.values().any(|b| b.service_route.iter().any(|entry| is_next(entry))))
    }

    pub(crate) fn on_core_request(
        &mut self,
        from: Inbound,
        method: Method<'_>,
        message: &Message,
        ctx: &mut Ctx<'_>,
    ) -> Result<(), Refusal> {
        let mut inward = message.clone();
        let own = take_own_route(&mut inward, |uri| self.config.is_own(uri));
        if own.is_none() && method == Method::Options && self.is_for_us(message) {
            return self.answer_options(from, message, ctx);
        }
        if own.is_none()
            && let Some(notified) = self.notified(message)
        {
            return self.on_notify(from, notified?, message, ctx);
        }
        let names = Names::of(message).ok_or_else(|| Refusal::Malformed("From, To or Call-ID".into()))?;
        let in_dialog = names.is_in_dialog();
        knows_what_is_required(message)?;
        let token = own.as_deref().and_then(|own| Uri::parse(own).ok()?.user()).ok_or(Refusal::NoSuchUe)?;
        let id = self.reachable(token, in_dialog).ok_or(Refusal::UeGone { in_dialog })?;
        decrement_max_forwards(&mut inward).map_err(|_| Refusal::TooManyHops)?;
        let leg = if in_dialog { self.dialogs.find(id, Way::ToUe, &names) } else { None };
        let line = leg.and_then(|leg| self.dialogs.get(leg)).map(|leg| leg.line);
        let egress = self.egress_of(id, line).ok_or(Refusal::NoWayToUe)?;
        let charged = Icid::read(message);
        let called = message.first::<PCalledPartyId<'_>>().ok().flatten().map(|called| called.0.uri.into());
        border::toward_ue(&mut inward);
        let mut recorded = Vec::new();
        if routes::records(method) {
            let token = self.contacts.by_id(id).map(|r| r.token.clone()).ok_or(Refusal::NoSuchUe)?;
            recorded.push(self.config.route_for_core(&token).into());
            recorded.extend(routes::recorded(message));
            inward.push_front(Name::RecordRoute, routes::route_for_ue(&token, &egress.sent_by));
        }
        let icid = match leg.and_then(|leg| self.dialogs.get(leg)) {
            Some(leg) => Some(leg.icid.clone()),
            None => charged.as_ref().map(|(icid, _)| icid.clone()),
        };
        if let Some(leg) = leg {
            self.dialogs.on_request(leg, Way::ToUe, message);
        }
        let leg = match (leg, !in_dialog && method == Method::Invite) {
            (None, true) => {
                self.room_for(method)?;
                let icid = icid.clone().unwrap_or_else(|| Icid::fresh(&self.config.host, ctx.rng));
                let line = Line { transport: egress.flow.transport, over: None };
                Some(self.begin(id, Way::ToUe, message, icid, from, line, ctx))
            }
            (leg, _) => leg,
        };
        let passing = Passing {
            from,
            way: Way::ToUe,
            registration: id,
            leg,
            icid,
            orig_ioi: charged.and_then(|(_, ioi)| ioi),
            called,
            recorded,
            begins: !in_dialog,
            is_taken_up: false,
            instead: self.instead(id, egress.flow, &inward),
        };
        let to = Destination::Flow { flow: egress.flow, sent_by: egress.sent_by, leg: Leg::Ue };
        self.carry(message, passing, inward, to, ctx);
        Ok(())
    }

    /// The registered UE of a token: in Path, or in our Record-Route, which may be of a registration before this one. What was begun
    /// also reaches a UE whose registration has ended, as long as its SAs linger: that is how it hears of it.
    fn reachable(&self, token: &str, in_dialog: bool) -> Option<RegId> {
        let id = self.dialogs.heir(token).or_else(|| self.contacts.by_token(token))?;
        let lingers = |id| in_dialog && self.contacts.by_id(id).is_some_and(|r| r.sets().next().is_some());
        (self.contacts.by_id(id)?.is_registered() || lingers(id)).then_some(id)
    }

    #[allow(clippy::too_many_arguments, reason = "all that a session is known by")]
    fn begin(
        &mut self,
        id: RegId,
        way: Way,
        invite: &Message,
        icid: Icid,
        from: Inbound,
        line: Line,
        ctx: &Ctx<'_>,
    ) -> LegId {
        let until = ctx.now + self.config.timers.longest_session.0;
        let leg = self.dialogs.begin(id, way, invite, icid, line, (from.tx, until));
        self.watch(leg);
        leg
    }

    fn carry(&mut self, message: &Message, passing: Passing, onward: Message, to: Destination, ctx: &mut Ctx<'_>) {
        let tx = passing.from.tx;
        self.relay.open(tx, message.clone(), passing);
        let client = self.sip.send_request(onward, to, ctx);
        self.relay.branch(tx, client);
    }

    /// ACK to a 2xx: from a UE without Security-Verify mostly (the SA is the proof), and with whatever Route; no answer is
    /// possible, so what cannot go on is counted.
    pub(crate) fn on_ack(&mut self, message: &Message, flow: Flow, ctx: &mut Ctx<'_>) {
        let result = match self.config.is_gm(flow.local) {
            true => self.ack_from_ue(message, flow, ctx),
            false => self.ack_to_ue(message, ctx),
        };
        if let Err(refusal) = result {
            self.count("ack-not-passed");
            debug!(from = %flow.remote, "an ACK goes no further: {refusal}");
        }
    }

    fn ack_from_ue(&mut self, message: &Message, flow: Flow, ctx: &mut Ctx<'_>) -> Result<(), Refusal> {
        let id = self
            .speaking(flow, message)
            .ok_or_else(|| Refusal::RegisterFirst { method: message.method().to_string() })?;
        let names = Names::of(message).ok_or_else(|| Refusal::Malformed("From, To or Call-ID".into()))?;
        let mut outward = message.clone();
        decrement_max_forwards(&mut outward).map_err(|_| Refusal::TooManyHops)?;
        take_own_route(&mut outward, |uri| self.config.is_own(uri));
        self.go_on(id, &names, flow, &mut outward)?;
        border::from_ue(&mut outward, &self.config);
        let next = prepare_next_hop(&mut outward);
        self.sip.send_ack(outward, Destination::Uri(next), ctx);
        Ok(())
    }

    fn ack_to_ue(&mut self, message: &Message, ctx: &mut Ctx<'_>) -> Result<(), Refusal> {
        let mut inward = message.clone();
        let own = take_own_route(&mut inward, |uri| self.config.is_own(uri));
        let token = own.as_deref().and_then(|own| Uri::parse(own).ok()?.user()).ok_or(Refusal::NoSuchUe)?;
        let id = self.reachable(token, true).ok_or(Refusal::UeGone { in_dialog: true })?;
        decrement_max_forwards(&mut inward).map_err(|_| Refusal::TooManyHops)?;
        let leg = Names::of(message).and_then(|names| self.dialogs.find(id, Way::ToUe, &names));
        let line = leg.and_then(|leg| self.dialogs.get(leg)).map(|leg| leg.line);
        let egress = self.egress_of(id, line).ok_or(Refusal::NoWayToUe)?;
        border::toward_ue(&mut inward);
        let to = Destination::Flow { flow: egress.flow, sent_by: egress.sent_by, leg: Leg::Ue };
        self.sip.send_ack(inward, to, ctx);
        Ok(())
    }

    /// A response to something that we passed on.
    pub(crate) fn on_relay_response(&mut self, tx: ClientTx, response: Message, by: Transport, ctx: &mut Ctx<'_>) {
        self.note_answer(tx, &response, ctx.now);
        // A 2xx takes the request out of the relay.
        let passage = self.relay.server_of(tx).and_then(|to| self.relay.get(to));
        let wanted = passage.filter(|p| response.status() > 100 && (p.with.leg.is_some() || p.with.way == Way::ToUe));
        let request = wanted.map(|passage| passage.request.clone());
        match self.relay.on_response(tx, response, &mut self.sip, ctx) {
            Relayed::Pass { to, response } => self.pass(to, request.as_ref(), response, by, ctx),
            other => self.on_relayed(other, ctx),
        }
    }

    /// How the core fares: by its first answer to what began.
    fn note_answer(&mut self, tx: ClientTx, response: &Message, now: Time) {
        let passage = self.relay.server_of(tx).and_then(|to| self.relay.get_mut(to));
        let Some(passage) = passage.filter(|p| response.status() > 100 && p.with.begins && p.with.way == Way::FromUe)
        else {
            return;
        };
        if !std::mem::replace(&mut passage.with.is_taken_up, true) {
            match asks_for_patience(response) {
                true => self.admission.pushed_back(now, &self.config.overload),
                false => self.admission.taken_up(now, &self.config.overload),
            }
        }
    }

    pub(crate) fn on_relayed(&mut self, relayed: Relayed, ctx: &mut Ctx<'_>) {
        match relayed {
            Relayed::Exhausted { to } => self.end(to, ctx),
            Relayed::Pass { .. } | Relayed::Nothing => {}
        }
    }

    /// A provisional answer or a 2xx.
    fn pass(
        &mut self,
        to: ServerTx,
        request: Option<&Message>,
        mut response: Message,
        by: Transport,
        ctx: &mut Ctx<'_>,
    ) {
        let Some(passing) = self.relay.with(to) else { return };
        let (leg, way, begins, registration) = (passing.leg, passing.way, passing.begins, passing.registration);
        match way {
            Way::FromUe => self.answer_to_ue(passing, &mut response),
            Way::ToUe => self.answer_of_ue(passing, request, &mut response),
        }
        if let (Some(leg), Some(request)) = (leg, request) {
            self.note((leg, way, begins), request, &response, by, ctx);
        }
        let is_answered = response.status() >= 200;
        self.sip.respond(to, response, ctx);
        if let Some(notify) = request.filter(|_| is_answered && way == Way::ToUe) {
            self.overhear(registration, notify, ctx);
        }
    }

    /// A UE that registered by datagrams listens there; whether it takes connections, one has to try.
    fn instead(&self, id: RegId, flow: Flow, inward: &Message) -> Option<Box<(Message, Destination)>> {
        let by_udp = self.egress_of(id, None).filter(|other| {
            flow.transport == Transport::Tcp && flow.conn.is_none() && other.flow.transport == Transport::Udp
        })?;
        let to = Destination::Flow { flow: by_udp.flow, sent_by: by_udp.sent_by, leg: Leg::Ue };
        Some(Box::new((inward.clone(), to)))
    }

    /// All is tried, and nobody took it.
    fn end(&mut self, to: ServerTx, ctx: &mut Ctx<'_>) {
        if let Some(passage) = self.relay.get_mut(to)
            && matches!(passage.cause, Some(ClientFailure::Transport(_)))
            && !passage.is_cancelled()
            && let Some(instead) = passage.with.instead.take()
        {
            let client = self.sip.send_request(instead.0, instead.1, ctx);
            return self.relay.branch(to, client);
        }
        let Some((passage, mut response)) = self.relay.settle(to) else { return };
        let passing = passage.with;
        let refusal = match (passage.cause, passing.way) {
            (None, _) => None,
            // It was cancelled, and nobody said more.
            (Some(_), _) if response.status() == 487 => None,
            (Some(cause), Way::FromUe) => Some(Refusal::Core(cause)),
            (Some(ClientFailure::Timeout), Way::ToUe) => Some(Refusal::UeSilent),
            (Some(_), Way::ToUe) => Some(Refusal::NoWayToUe),
        };
        match passing.way {
            Way::FromUe => self.answer_to_ue(&passing, &mut response),
            Way::ToUe => self.answer_of_ue(&passing, Some(&passage.request), &mut response),
        }
        if let Some(leg) = passing.leg {
            match passing.begins {
                true => self.dialogs.on_refused(leg),
                false => self.answered_within(leg, passing.way, &passage.request, &response, ctx),
            }
            self.watch(leg);
        }
        match refusal {
            Some(refusal) => self.refuse(passing.from, &passage.request, &refusal, ctx),
            None => self.sip.respond(to, response, ctx),
        }
    }

    /// What an answer says about the dialog that it makes or belongs to.
    fn note(
        &mut self,
        (leg, way, begins): (LegId, Way, bool),
        request: &Message,
        response: &Message,
        by: Transport,
        ctx: &Ctx<'_>,
    ) {
        // What was too large for a datagram went over a connection: so does the rest.
        if let (Way::ToUe, true, Some(leg)) = (way, begins, self.dialogs.get_mut(leg)) {
            leg.line.transport = by;
        }
        match begins {
            true => {
                let most = self.config.timers.longest_session.0;
                self.dialogs.on_answer(leg, request, response, ctx.now, most);
            }
            false if response.status() < 200 => return,
            false => self.answered_within(leg, way, request, response, ctx),
        }
        self.watch(leg);
    }

    fn answered_within(&mut self, leg: LegId, way: Way, request: &Message, response: &Message, ctx: &Ctx<'_>) {
        let most = self.config.timers.longest_session.0;
        self.dialogs.on_final(leg, way, request, response, (ctx.now, most));
    }

    /// An answer of the core: for a UE (TS 24.229 5.2.6.3.4). What it sends in the dialog comes to our protected port.
    fn answer_to_ue(&self, passing: &Passing, response: &mut Message) {
        border::toward_ue(response);
        // A dialog is made by no refusal. Phones put the Record-Route of one into their ACK as it is (Pixel).
        if response.status() >= 300 {
            response.remove(Name::RecordRoute);
            return;
        }
        let Some(token) = self.contacts.by_id(passing.registration).map(|r| &r.token) else { return };
        let mut recorded = routes::recorded(response);
        // We came first, so ours is the last; another one with this token is of the UE's other call.
        let own = recorded.iter_mut().rev().find(|entry| routes::is_recorded_by(entry, token, &self.config));
        let Some(own) = own else { return };
        *own = routes::route_for_ue(token, &self.gm_name(passing.from)).into();
        routes::set_recorded(response, &recorded);
    }

    /// What Via and Record-Route call us towards a UE.
    fn gm_name(&self, from: Inbound) -> String {
        match from.set.and_then(|id| self.sets.by_id(id)) {
            Some(held) => held.sent_by(),
            None => format!("{}:{}", ims_core::uri::host_of(from.flow.local.ip()), from.flow.local.port()),
        }
    }

    /// An answer of a UE (TS 24.229 5.2.6.4.4): the way back is what came with the request, whatever it says, and so is who it is.
    fn answer_of_ue(&self, passing: &Passing, request: Option<&Message>, response: &mut Message) {
        border::from_ue(response, &self.config);
        if let Some(request) = request {
            response.copy(Name::Via, request);
        }
        match &passing.icid {
            Some(icid) => {
                charging::stamp_answer(response, icid, passing.orig_ioi.as_deref(), &self.config.visited_network);
            }
            None => charging::strip(response),
        }
        let says = response.status() < 300;
        identity::assert_called(response, passing.called.as_deref().filter(|_| says));
        match says && response.has(Name::RecordRoute) {
            true => routes::set_recorded(response, &passing.recorded),
            false => drop(response.remove(Name::RecordRoute)),
        }
    }
}

/// RFC 3261 16.3 step 5: what a proxy is required to know and does not, it refuses. Privacy is RFC 3323, and done here; the security
/// agreement ends here.
fn knows_what_is_required(message: &Message) -> Result<(), Refusal> {
    let known = |tag: &&str| ["sec-agree", "privacy"].iter().any(|known| known.eq_ignore_ascii_case(tag));
    let unknown: Vec<&str> = message.tokens(Name::ProxyRequire).into_iter().filter(|tag| !known(tag)).take(8).collect();
    match unknown.is_empty() {
        true => Ok(()),
        false => Err(Refusal::BadExtension { tags: unknown.join(", ") }),
    }
}

/// Whether a request in clear is of this UE, among those at its address.
fn speaks_as(registration: &Registration, message: &Message) -> bool {
    let from = message.first::<ims_sip::headers::From<'_>>().ok().flatten();
    let preferred = message.first::<ims_sip::headers::PPreferredIdentity<'_>>().ok().flatten();
    let contact = message.first::<ims_sip::headers::Contact<'_>>().ok().flatten();
    let is_own = |uri: &str| identity::is_of(registration, uri);
    preferred.is_some_and(|p| is_own(p.0.uri))
        || from.is_some_and(|f| is_own(f.0.uri))
        || contact.as_ref().and_then(|c| c.addr()).is_some_and(|addr| {
            registration.bindings.values().any(|b| crate::register::same_contact(&b.contact, addr.uri))
        })
}
