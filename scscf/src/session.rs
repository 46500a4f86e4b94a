//! Requests that are neither for the registrar nor for us (TS 24.229 5.4.3): a stateful proxy by RFC 3261 16. Who is served, and
//! what follows from it, is in [`crate::served`]; the ways out are in [`crate::exit`] and [`crate::fork`].
//!
//! Nothing is kept of a dialog: what a request in one needs stands in its Route.

use crate::breakout::strip_assertions;
use crate::chain::{AtServer, Chain, Outcome};
use crate::exit::Departure;
use crate::fork::Targets;
use crate::me::{Marker, Side};
use crate::{Refusal, Scscf, gruu, served, tgruu};
use ims_core::uri::Uri;
use ims_core::{Ctx, Impu};
use ims_sip::endpoint::{ClientFailure, ClientTx, Destination, ServerTx};
use ims_sip::headers::{PAssertedIdentity, PChargingVector, RecordRoute, SessionExpires, To};
use ims_sip::proxy;
use ims_sip::relay::Relayed;
use ims_sip::{Message, Method, Name};

/// Option tags that a request may require of proxies here.
const PROXY_EXTENSIONS: [&str; 2] = ["gruu", "privacy"];

/// What is kept with a request on its way. Small, because a 2xx may come again for 32 seconds.
#[derive(Debug)]
pub(crate) struct Passing {
    /// Where its user is served; None within a dialog.
    pub(crate) side: Option<Side>,
    /// Of an initial request without a final answer.
    pub(crate) stage: Option<Box<Stage>>,
}

/// How far an initial request has come.
#[derive(Debug)]
pub(crate) struct Stage {
    /// None: who is served is not known yet.
    pub(crate) chain: Option<Chain>,
    pub(crate) step: Step,
}

#[derive(Debug)]
pub(crate) enum Step {
    /// Nobody has it; or the HSS is asked for the profile of a user that is not registered.
    Begun,
    /// An application server has it.
    Server(AtServer),
    /// On its way out of the originating side.
    Left(Box<Departure>),
    /// To the contacts of the user.
    Delivered(Targets),
}

impl Passing {
    /// It went to a trunk that is not of our trust domain.
    fn is_outside(&self) -> bool {
        matches!(self.stage.as_deref(), Some(Stage { step: Step::Left(departure), .. }) if departure.is_outside)
    }

    pub(crate) fn chain(&self) -> Option<&Chain> {
        self.stage.as_ref()?.chain.as_ref()
    }

    pub(crate) fn chain_mut(&mut self) -> Option<&mut Chain> {
        self.stage.as_mut()?.chain.as_mut()
    }

    pub(crate) fn server(&self) -> Option<&AtServer> {
        match &self.stage.as_ref()?.step {
            Step::Server(server) => Some(server),
            _ => None,
        }
    }
}

impl Scscf {
    pub(crate) fn is_me(&self, uri: &str) -> bool {
        Uri::parse(uri).is_ok_and(|uri| self.me.is_me(&uri))
    }

    pub(crate) fn on_session_request(
        &mut self,
        tx: ServerTx,
        message: &Message,
        ctx: &mut Ctx<'_>,
    ) -> Result<(), Refusal> {
        let mut request = message.clone();
        proxy::decrement_max_forwards(&mut request).map_err(|_| Refusal::TooManyHops)?;
        check_proxy_require(&request)?;
        self.check_session_interval(&request)?;
        let route = proxy::take_own_route(&mut request, |uri| self.me.is_me(uri));
        if is_in_dialog(&request) {
            return self.on_request_in_dialog(tx, request, route.is_some(), ctx);
        }
        match route.as_deref().map_or(Marker::Plain, Marker::of) {
            marker @ (Marker::ServiceRoute | Marker::Orig) => {
                // A P-CSCF sets no P-Served-User: what comes by a Service-Route with one has it from a UE.
                if marker == Marker::ServiceRoute {
                    request.remove(Name::PServedUser);
                }
                self.on_originating(tx, request, &marker, ctx)
            }
            Marker::Odi(odi) => self.on_given_back(tx, &odi, request, ctx),
            Marker::Plain => self.on_terminating(tx, request, ctx),
        }
    }

    /// RFC 4028 8.1: a shorter interval than allowed is refused where the two ends can still agree on a longer one.
    fn check_session_interval(&self, request: &Message) -> Result<(), Refusal> {
        let least = self.config.sessions.min_se.secs();
        if !matches!(request.method(), Method::Invite | Method::Update) || !request.has_token(Name::Supported, "timer")
        {
            return Ok(());
        }
        match request.first::<SessionExpires<'_>>() {
            Ok(Some(wanted)) if wanted.seconds < least => Err(Refusal::SessionTooBrief { least }),
            _ => Ok(()),
        }
    }

    /// 5.4.3.2 and 5.4.3.3, subsequent requests: along the route set.
    fn on_request_in_dialog(
        &mut self,
        tx: ServerTx,
        mut request: Message,
        is_ours: bool,
        ctx: &mut Ctx<'_>,
    ) -> Result<(), Refusal> {
        if !is_ours {
            return Err(Refusal::NoDialog);
        }
        self.skip_own_routes(&mut request);
        self.resolve_gruu(&mut request);
        let to = proxy::prepare_next_hop(&mut request);
        self.relay.open(tx, request.clone(), Passing { side: None, stage: None });
        self.send_branch(tx, request, to, ctx);
        Ok(())
    }

    /// Both users may be served here: then two entries of ours follow one another, and the request need not go around.
    fn skip_own_routes(&self, request: &mut Message) {
        while proxy::take_own_route(request, |uri| self.me.is_me(uri)).is_some() {}
    }

    /// 5.4.3.3, subsequent requests: the GRUU of a device served here, which it gave as its Contact, becomes its address.
    fn resolve_gruu(&self, request: &mut Message) {
        let uri = request.uri();
        let contact = if gruu::device(uri).is_some() {
            let impu = Impu::parse(uri).ok();
            let mut bindings = impu.iter().flat_map(|impu| self.registrar.of_impu(impu)).flat_map(|r| &r.bindings);
            bindings.find(|b| self.is_for(uri, b)).map(|b| b.contact.uri.clone())
        } else if tgruu::is_one(uri) {
            let registration = self.temporary_gruus.read(uri).and_then(|named| self.registrar.by_id(named.id));
            let mut bindings = registration.into_iter().flat_map(|r| &r.bindings);
            bindings.find(|b| self.is_for(uri, b)).map(|b| b.contact.uri.clone())
        } else {
            None
        };
        if let Some(contact) = contact {
            request.set_uri(&contact);
        }
    }

    pub(crate) fn send_branch(&mut self, tx: ServerTx, request: Message, to: String, ctx: &mut Ctx<'_>) -> ClientTx {
        let client = self.sip.send_request(request, Destination::Uri(to), ctx);
        self.relay.branch(tx, client);
        client
    }

    /// ACK to a 2xx.
    pub(crate) fn on_ack(&mut self, mut ack: Message, ctx: &mut Ctx<'_>) {
        let is_ours = proxy::take_own_route(&mut ack, |uri| self.me.is_me(uri)).is_some();
        if !is_ours || proxy::decrement_max_forwards(&mut ack).is_err() {
            self.count("stray-ack");
            return tracing::debug!("an ACK that belongs to no dialog through us is dropped");
        }
        self.skip_own_routes(&mut ack);
        self.resolve_gruu(&mut ack);
        let to = proxy::prepare_next_hop(&mut ack);
        self.sip.send_ack(ack, Destination::Uri(to), ctx);
    }

    pub(crate) fn on_cancel(&mut self, invite: ServerTx, cancel: &Message, ctx: &mut Ctx<'_>) {
        let relayed = self.relay.on_cancel(invite, cancel, &mut self.sip, ctx);
        self.on_relayed(relayed, ctx);
    }

    pub(crate) fn on_session_response(&mut self, client: ClientTx, response: Message, ctx: &mut Ctx<'_>) {
        if self.given_up.contains(&client) {
            return self.on_late_response(client, &response, ctx);
        }
        if let Some(tx) = self.relay.server_of(client) {
            match response.status() {
                status @ ..200 => {
                    self.on_server_alive(tx, status > 100, ctx);
                    self.on_departed_alive(tx, status, ctx.now);
                }
                200..300 => self.on_success(tx),
                _ => {}
            }
        }
        let relayed = self.relay.on_response(client, response, &mut self.sip, ctx);
        self.on_relayed(relayed, ctx);
    }

    /// Before the relay keeps what is left for the repetitions.
    fn on_success(&mut self, tx: ServerTx) {
        let is_outside = self.relay.get(tx).is_some_and(|passage| passage.with.is_outside());
        self.end_server(tx, Outcome::Answered);
        self.patience.clear(&tx);
        if let Some(passage) = self.relay.get_mut(tx) {
            let outside = || Stage { chain: None, step: Step::Left(Box::new(Departure::outside())) };
            passage.with.stage = is_outside.then(|| Box::new(outside()));
        }
    }

    pub(crate) fn on_session_failed(&mut self, client: ClientTx, cause: ClientFailure, ctx: &mut Ctx<'_>) {
        if self.given_up.remove(&client) {
            return;
        }
        let relayed = self.relay.on_failed(client, cause, ctx);
        self.on_relayed(relayed, ctx);
    }

    /// Whoever sent it has gone, or sees to it that he is.
    pub(crate) fn on_undelivered(&mut self, tx: ServerTx) {
        self.end_server(tx, Outcome::Cancelled);
        self.patience.clear(&tx);
        self.relay.close(tx);
    }

    fn on_relayed(&mut self, relayed: Relayed, ctx: &mut Ctx<'_>) {
        match relayed {
            Relayed::Pass { to, response } => {
                let with = self.relay.with(to);
                let (side, is_outside) = with.map_or((None, false), |with| (with.side, with.is_outside()));
                self.answer(to, side, is_outside, response, ctx);
            }
            Relayed::Exhausted { to } => self.on_exhausted(to, ctx),
            Relayed::Nothing => {}
        }
    }

    /// Every branch has ended without success.
    fn on_exhausted(&mut self, tx: ServerTx, ctx: &mut Ctx<'_>) {
        if self.on_server_exhausted(tx, ctx) || self.on_departed_exhausted(tx, ctx) || self.try_next_contacts(tx, ctx) {
            return;
        }
        self.patience.clear(&tx);
        if let Some((passage, response)) = self.relay.settle(tx) {
            let is_outside = passage.with.is_outside();
            self.answer(tx, passage.with.side, is_outside, response, ctx);
        }
    }

    /// What was taken in cannot go on.
    pub(crate) fn refuse_passage(&mut self, tx: ServerTx, refusal: &Refusal, ctx: &mut Ctx<'_>) {
        self.patience.clear(&tx);
        if let Some(passage) = self.relay.close(tx) {
            self.refuse(tx, &passage.request, refusal, ctx);
        }
    }

    /// Somebody has had the request for long enough.
    pub(crate) fn on_patience_over(&mut self, ctx: &mut Ctx<'_>) {
        while let Some(tx) = self.patience.pop(ctx.now) {
            match self.relay.get(tx).and_then(|p| p.with.stage.as_ref()).map(|stage| &stage.step) {
                Some(Step::Server(_)) => self.on_server_silent(tx, ctx),
                Some(Step::Left(_)) => self.on_trunk_silent(tx, ctx),
                _ => self.on_contacts_silent(tx, ctx),
            }
        }
    }

    /// The answer of another, back to where the request came from.
    fn answer(&mut self, tx: ServerTx, side: Option<Side>, is_outside: bool, mut response: Message, ctx: &mut Ctx<'_>) {
        if is_outside {
            strip_assertions(&mut response);
        }
        if side == Some(Side::Terminating) {
            self.write_term_ioi(&mut response);
            self.assert_callee(&mut response);
        }
        self.sip.respond(tx, response, ctx);
    }

    /// 5.4.3.2, 5.4.3.3: to stay on the path of the dialog that the request may make.
    pub(crate) fn record_route(&self, request: &mut Message, side: Side) {
        if !makes_dialog(request.method()) {
            return;
        }
        let ours = self.me.record_route(side);
        let top = request.first::<RecordRoute<'_>>().ok().flatten();
        // Who was between the two of ours did not stay: once is enough.
        if top.is_none_or(|top| ours.strip_prefix('<').and_then(|o| o.strip_suffix('>')) != Some(top.uri)) {
            request.push_front(Name::RecordRoute, ours);
        }
    }

    /// TS 24.229 4.5: the network that a request comes from. A request without a vector gets one.
    pub(crate) fn write_orig_ioi(&self, request: &mut Message, ctx: &mut Ctx<'_>) {
        let known: Option<PChargingVector<'_>> = request.first().ok().flatten();
        let fresh = if known.is_none() { ctx.rng.token(16) } else { String::new() };
        let vector = PChargingVector {
            orig_ioi: Some(&self.config.domain),
            term_ioi: None,
            ..known.unwrap_or(PChargingVector { icid_value: &fresh, ..PChargingVector::default() })
        };
        if known.as_ref().is_some_and(|known| known.orig_ioi == vector.orig_ioi && known.term_ioi.is_none()) {
            return;
        }
        let vector = vector.to_string();
        request.set(Name::PChargingVector, vector);
    }

    pub(crate) fn ask_to_register(&self, answer: &mut Message) {
        answer.set(Name::PAssertedIdentity, self.me.service_route());
        answer.set_body("application/3gpp-ims+xml", REGISTER_AGAIN.as_bytes());
    }

    /// 5.4.3.3: the callee by both of its identities too, when its P-CSCF names one.
    fn assert_callee(&self, response: &mut Message) {
        if !response.has(Name::PAssertedIdentity) {
            return;
        }
        let asserted = response.first::<PAssertedIdentity<'_>>().ok().flatten();
        let Some(impu) = asserted.and_then(|asserted| Impu::parse(asserted.uri).ok()) else { return };
        if let Some(registration) = self.registrar.of_impu(&impu).next() {
            served::assert_alias(response, &impu, &registration.profile);
        }
    }

    fn write_term_ioi(&self, response: &mut Message) {
        let Ok(Some(mut vector)) = response.first::<PChargingVector<'_>>() else { return };
        vector.term_ioi = Some(&self.config.domain);
        let vector = vector.to_string();
        response.set(Name::PChargingVector, vector);
    }
}

/// 5.4.3.2: a UE that takes this from its S-CSCF registers anew (5.1.2A.1.6).
const REGISTER_AGAIN: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ims-3gpp version=\"1\"><alternative-service>\
    <type>restoration</type><reason>not registered here</reason><action>initial-registration</action>\
    </alternative-service></ims-3gpp>\n";

fn is_in_dialog(request: &Message) -> bool {
    matches!(request.first::<To<'_>>(), Ok(Some(to)) if to.tag().is_some())
}

fn makes_dialog(method: Method<'_>) -> bool {
    matches!(method, Method::Invite | Method::Subscribe | Method::Refer | Method::Other(_))
}

/// RFC 3261 16.3 item 5.
fn check_proxy_require(message: &Message) -> Result<(), Refusal> {
    if !message.has(Name::ProxyRequire) {
        return Ok(());
    }
    let known = |tag: &&str| PROXY_EXTENSIONS.iter().any(|e| e.eq_ignore_ascii_case(tag));
    let tags = message.tokens(Name::ProxyRequire);
    let unknown: Vec<String> = tags.iter().filter(|tag| !known(tag)).map(ToString::to_string).collect();
    if unknown.is_empty() { Ok(()) } else { Err(Refusal::BadExtension(unknown)) }
}
