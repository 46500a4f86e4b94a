//! All requests but REGISTER (TS 24.229 5.3.2): the location query (TS 29.228 6.1.4), the way to the S-CSCF or application
//! server that serves the user or service, and what follows when that one fails. One query a request: where a user is served
//! is the HSS's to say each time.

use crate::{Icscf, Refusal, Waiting, select};
use ims_core::uri::{Scheme, Uri};
use ims_core::{Ctx, Impu};
use ims_diameter::cx::{Lia, Lir, ResultCode, ServerCapabilities};
use ims_sip::endpoint::{ClientFailure, ClientTx, Destination, ServerTx};
use ims_sip::headers::{OF_THE_NETWORK, PAssertedIdentity, PServedUser, To};
use ims_sip::proxy::{decrement_max_forwards, prepare_next_hop, take_own_route};
use ims_sip::relay::Relayed;
use ims_sip::{Message, Method, Name};
use std::net::IpAddr;

/// What we keep with a request on its way.
#[derive(Default)]
pub(crate) struct Session {
    /// Whom the HSS is asked about; None for what only passes through here.
    question: Option<Question>,
    /// The S-CSCFs it was sent to, the last one the current.
    pub(crate) tried: Vec<String>,
    /// Told by the HSS: no need to ask again when an S-CSCF fails.
    capabilities: Option<ServerCapabilities>,
    /// Why the last one did not serve.
    failed: Option<Failed>,
    /// The last one has said 100: it is there.
    is_there: bool,
    /// The caller heard more than that: it stays with the S-CSCF that it has.
    is_settled: bool,
}

struct Question {
    impu: Impu,
    originating: bool,
    /// What else the user may be known as: the Request-URI as it came, while we ask for its number.
    instead: Option<(Impu, String)>,
}

#[derive(Clone, Copy)]
enum Failed {
    Status(u16),
    Cause(ClientFailure),
}

/// What an answer of the HSS says.
enum Located {
    /// Who serves: an S-CSCF, or the application server of a service.
    At { name: String, wildcard: Option<String>, is_direct: bool },
    /// One that is to be chosen.
    Among { wanted: ServerCapabilities, wildcard: Option<String> },
}

impl Icscf {
    pub(crate) fn on_session(&mut self, tx: ServerTx, message: &Message, ctx: &mut Ctx<'_>) -> Result<(), Refusal> {
        if self.in_progress() >= self.config.limits.max_pending {
            return Err(Refusal::Full);
        }
        let mut request = message.clone();
        decrement_max_forwards(&mut request).map_err(|_| Refusal::TooManyHops)?;
        let originating = self.take_own_routes(&mut request);
        let stranger = self.stranger(message)?;
        if let Some(ip) = stranger {
            if originating {
                return Err(Refusal::OrigUntrusted(ip));
            }
            for name in OF_THE_NETWORK {
                request.remove(name);
            }
        }
        let to: To<'_> = message.require().map_err(|e| Refusal::Malformed(e.to_string()))?;
        let within_dialog = to.params.has("tag");
        if within_dialog || (request.has(Name::Route) && !originating && stranger.is_none()) {
            return self.pass_on(tx, request, within_dialog, ctx);
        }
        // From outside, nobody is led further than to our users.
        request.remove(Name::Route);
        if !request.has(Name::PChargingVector) {
            let icid = ctx.rng.token(32);
            let host = &self.config.host;
            request.push_back(Name::PChargingVector, format_args!("icid-value=\"{icid}\";icid-generated-at={host}"));
        }
        if originating {
            let impu = served_user(&request)?;
            let question = Question { impu, originating, instead: None };
            self.open(tx, request, question, ctx);
            return Ok(());
        }
        self.terminating(tx, request, ctx)
    }

    /// Takes off every Route entry that names us; true when one of them says `orig`.
    fn take_own_routes(&self, request: &mut Message) -> bool {
        let config = &self.config;
        let is_ours = |uri: &Uri<'_>| config.names_me(uri) || uri.is_sip() && config.is_ours(uri.host());
        let mut originating = false;
        while let Some(route) = take_own_route(request, is_ours) {
            originating |= Uri::parse(&route).is_ok_and(|uri| uri.has_param("orig") || uri.user() == Some("orig"));
        }
        originating
    }

    /// The address that a request came from, if it is not of our network.
    fn stranger(&self, message: &Message) -> Result<Option<IpAddr>, Refusal> {
        match self.check_source(message) {
            Err(Refusal::Untrusted(ip)) => Ok(Some(ip)),
            other => other.map(|()| None),
        }
    }

    /// What has its route: requests within dialogs, which come here when an element before us was told to (we ourselves
    /// are in no Record-Route), and requests that are to go on elsewhere.
    fn pass_on(
        &mut self,
        tx: ServerTx,
        mut request: Message,
        within_dialog: bool,
        ctx: &mut Ctx<'_>,
    ) -> Result<(), Refusal> {
        self.check_way_on(&request, within_dialog)?;
        let next = prepare_next_hop(&mut request);
        self.relay.open(tx, request.clone(), Session::default());
        let client = self.sip.send_request(request, Destination::Uri(next), ctx);
        self.relay.branch(tx, client);
        Ok(())
    }

    /// Without a Route, a Request-URI of ours would lead to ourselves again.
    fn check_way_on(&self, request: &Message, within_dialog: bool) -> Result<(), Refusal> {
        if request.has(Name::Route) {
            return Ok(());
        }
        match Uri::parse(request.uri()) {
            Ok(uri) if !uri.is_sip() || self.config.names_me(&uri) || self.config.is_ours(uri.host()) => {
                Err(Refusal::NoDialog)
            }
            Ok(_) if within_dialog => Ok(()),
            Ok(uri) => Err(Refusal::NotOurs { domain: uri.host().to_owned() }),
            Err(e) => Err(Refusal::Malformed(format!("Request-URI: {e}"))),
        }
    }

    /// An ACK of a 2xx passes by only when somebody has us in its route.
    pub(crate) fn on_ack(&mut self, mut ack: Message, ctx: &mut Ctx<'_>) {
        let is_lost = decrement_max_forwards(&mut ack).is_err();
        self.take_own_routes(&mut ack);
        if is_lost || self.check_way_on(&ack, true).is_err() {
            return self.count("ack-without-route");
        }
        let next = prepare_next_hop(&mut ack);
        self.sip.send_ack(ack, Destination::Uri(next), ctx);
    }

    pub(crate) fn on_cancel(&mut self, invite: ServerTx, cancel: &Message, ctx: &mut Ctx<'_>) {
        let relayed = self.relay.on_cancel(invite, cancel, &mut self.sip, ctx);
        self.on_relayed(relayed, ctx);
    }

    /// 5.3.2.1, from the caller: who is called?
    fn terminating(&mut self, tx: ServerTx, mut request: Message, ctx: &mut Ctx<'_>) -> Result<(), Refusal> {
        let text = of_scheme_sip(request.uri());
        let uri = Uri::parse(&text).map_err(|e| Refusal::Malformed(format!("Request-URI: {e}")))?;
        let unknown = || Refusal::UriScheme { uri: text.chars().take(80).collect() };
        if uri.is_sip() {
            if let Some(server) = self.config.psi_server(uri.host()).map(str::to_owned) {
                self.relay.open(tx, request, Session::default());
                return self.send_to(tx, &server, None, ctx);
            }
            if !self.config.is_ours(uri.host()) {
                return Err(Refusal::NotOurs { domain: uri.host().to_owned() });
            }
        }
        let own = Impu::from_uri(&uri).ok_or_else(unknown)?;
        let as_number = number_of(&uri).and_then(|number| Some((Impu::parse(&number).ok()?, number)));
        let question = match as_number {
            Some((impu, number)) => {
                request.set_uri(&number);
                Question { impu, originating: false, instead: Some((own, text.clone())) }
            }
            None => {
                request.set_uri(&text);
                Question { impu: own, originating: false, instead: None }
            }
        };
        self.open(tx, request, question, ctx);
        Ok(())
    }

    fn open(&mut self, tx: ServerTx, request: Message, question: Question, ctx: &mut Ctx<'_>) {
        let lir = question.lir(false);
        self.relay.open(tx, request, Session { question: Some(question), ..Session::default() });
        self.ask_location(tx, &lir, ctx);
    }

    fn ask_location(&mut self, tx: ServerTx, lir: &Lir, ctx: &mut Ctx<'_>) {
        let id = self.cx.send_request(lir.to_message(), &self.config.hss(), ctx);
        self.waiting.insert(id, Waiting::Lia(tx));
    }

    pub(crate) fn on_lia(&mut self, tx: ServerTx, answer: &ims_diameter::Message, ctx: &mut Ctx<'_>) {
        if let Err(refusal) = self.locate(tx, answer, ctx) {
            self.give_up(tx, &refusal, ctx);
        }
    }

    fn locate(&mut self, tx: ServerTx, answer: &ims_diameter::Message, ctx: &mut Ctx<'_>) -> Result<(), Refusal> {
        // Without it, the caller has given up meanwhile.
        let Some(passage) = self.relay.get_mut(tx) else { return Ok(()) };
        let session = &mut passage.with;
        let Some(question) = &mut session.question else { return Ok(()) };
        let located = match read_lia(answer, question) {
            Err(Refusal::NoSuchUser { .. }) if let Some((impu, uri)) = question.instead.take() => {
                // The user is not known by that number: as what was dialled, then.
                passage.request.set_uri(&uri);
                question.impu = impu;
                let lir = question.lir(false);
                self.ask_location(tx, &lir, ctx);
                return Ok(());
            }
            Err(Refusal::NoSuchUser { .. }) if !question.originating && question.impu.as_str().starts_with("tel:+") => {
                return self.hand_to_transit(tx, ctx);
            }
            other => other?,
        };
        let (name, wildcard) = match located {
            Located::At { name, wildcard, is_direct } => {
                if is_direct {
                    // No S-CSCF could take its place.
                    session.question = None;
                }
                (name, wildcard)
            }
            Located::Among { wanted, wildcard } => {
                let next = select::scscf(&self.config.scscf, &wanted, &session.tried);
                let name = next.ok_or_else(|| session.no_other(&wanted))?;
                session.capabilities = Some(wanted);
                (name, wildcard)
            }
        };
        self.send_to(tx, &name, wildcard.as_deref(), ctx)
    }

    /// 5.3.2.1: a number that is nobody's here may be somebody's elsewhere, if the operator says so.
    fn hand_to_transit(&mut self, tx: ServerTx, ctx: &mut Ctx<'_>) -> Result<(), Refusal> {
        let Some(passage) = self.relay.get_mut(tx) else { return Ok(()) };
        let session = &mut passage.with;
        match (self.config.transit.clone(), session.question.take()) {
            (Some(transit), _) => self.send_to(tx, &transit, None, ctx),
            (None, Some(question)) => Err(Refusal::NoSuchUser { impu: question.impu }),
            (None, None) => Ok(()),
        }
    }

    /// With `server` as the topmost Route; `orig` tells an S-CSCF which side it is.
    fn send_to(
        &mut self,
        tx: ServerTx,
        server: &str,
        wildcard: Option<&str>,
        ctx: &mut Ctx<'_>,
    ) -> Result<(), Refusal> {
        let uri = Uri::parse(server).ok().filter(Uri::is_sip);
        let uri = uri.ok_or_else(|| Refusal::HssAnswer("Server-Name is no SIP URI".into()))?;
        let Some(passage) = self.relay.get_mut(tx) else { return Ok(()) };
        let session = &mut passage.with;
        let originating = session.question.as_ref().is_some_and(|q| q.originating);
        let lr = if uri.has_param("lr") { "" } else { ";lr" };
        let orig = if originating && !uri.has_param("orig") { ";orig" } else { "" };
        let route = format!("{server}{lr}{orig}");
        session.tried.push(server.to_owned());
        (session.failed, session.is_there) = (None, false);
        let mut request = passage.request.clone();
        if let Some(wildcard) = wildcard.filter(|w| w.bytes().all(|b| b.is_ascii_graphic() && !b"<>\"".contains(&b))) {
            request.set(Name::PProfileKey, format_args!("<{wildcard}>"));
        }
        request.push_front(Name::Route, format_args!("<{route}>"));
        let client = self.sip.send_request(request, Destination::Uri(route), ctx);
        self.relay.branch(tx, client);
        Ok(())
    }

    pub(crate) fn on_session_response(&mut self, client: ClientTx, response: Message, ctx: &mut Ctx<'_>) {
        let status = response.status();
        if let Some(passage) = self.relay.server_of(client).and_then(|tx| self.relay.get_mut(tx)) {
            passage.with.is_there = true;
            match status {
                101..200 => passage.with.is_settled = true,
                300.. => passage.with.failed = Some(Failed::Status(status)),
                _ => {}
            }
        }
        let relayed = self.relay.on_response(client, response, &mut self.sip, ctx);
        self.on_relayed(relayed, ctx);
    }

    pub(crate) fn on_session_failed(&mut self, client: ClientTx, cause: ClientFailure, ctx: &mut Ctx<'_>) {
        if let Some(passage) = self.relay.server_of(client).and_then(|tx| self.relay.get_mut(tx)) {
            passage.with.failed = Some(Failed::Cause(cause));
        }
        let relayed = self.relay.on_failed(client, cause, ctx);
        self.on_relayed(relayed, ctx);
    }

    fn on_relayed(&mut self, relayed: Relayed, ctx: &mut Ctx<'_>) {
        match relayed {
            Relayed::Pass { to, response } => self.sip.respond(to, response, ctx),
            Relayed::Exhausted { to } => {
                if let Err(refusal) = self.next_server(to, ctx) {
                    self.give_up(to, &refusal, ctx);
                }
            }
            Relayed::Nothing => {}
        }
    }

    /// 5.3.2.2: another S-CSCF by capabilities, asked for when they are not known yet; or else what the last one said.
    fn next_server(&mut self, tx: ServerTx, ctx: &mut Ctx<'_>) -> Result<(), Refusal> {
        let Some(passage) = self.relay.get_mut(tx) else { return Ok(()) };
        let why = passage.with.why_another(passage.request.method()).filter(|_| !passage.is_cancelled());
        let session = &mut passage.with;
        let Some(why) = why else {
            self.finish(tx, ctx);
            return Ok(());
        };
        tracing::info!("{why}; looking for another S-CSCF");
        match (&session.capabilities, &session.question) {
            (Some(wanted), _) => {
                let next = select::scscf(&self.config.scscf, wanted, &session.tried).ok_or(why)?;
                self.count("scscf-changed");
                self.send_to(tx, &next, None, ctx)
            }
            (None, Some(question)) => {
                let lir = question.lir(true);
                self.count("scscf-changed");
                self.ask_location(tx, &lir, ctx);
                Ok(())
            }
            (None, None) => Err(why),
        }
    }

    /// Passes on the best that the request came to.
    fn finish(&mut self, tx: ServerTx, ctx: &mut Ctx<'_>) {
        if let Some((_, response)) = self.relay.settle(tx) {
            self.sip.respond(tx, response, ctx);
        }
    }

    pub(crate) fn give_up(&mut self, tx: ServerTx, refusal: &Refusal, ctx: &mut Ctx<'_>) {
        if let Some(passage) = self.relay.close(tx) {
            self.refuse(tx, &passage.request, refusal, ctx);
        }
    }
}

impl Question {
    fn lir(&self, capabilities: bool) -> Lir {
        Lir { impu: self.impu.clone(), originating: self.originating, capabilities }
    }
}

impl Session {
    /// Whether what happened to the request is a reason to look for another S-CSCF. A 3xx or 480 of one that serves the
    /// user is the word of the user, or for the user; of one that we chose it says that it does not want to. Other requests
    /// than INVITE have no 100: silence may be that of the user behind a good S-CSCF.
    fn why_another(&self, method: Method<'_>) -> Option<Refusal> {
        if self.is_settled || self.question.is_none() {
            return None;
        }
        let name = self.tried.last()?.clone();
        match self.failed? {
            Failed::Status(status @ 503) => Some(Refusal::ScscfUnavailable { name, status }),
            Failed::Status(status @ (300..400 | 480)) if self.capabilities.is_some() => {
                Some(Refusal::ScscfUnavailable { name, status })
            }
            Failed::Cause(ClientFailure::Timeout) if method != Method::Invite || self.is_there => None,
            Failed::Cause(cause) => Some(Refusal::ScscfSilent { name, cause }),
            Failed::Status(_) => None,
        }
    }

    /// Nobody is left to choose.
    fn no_other(&self, wanted: &ServerCapabilities) -> Refusal {
        let name = || self.tried.last().cloned().unwrap_or_default();
        match self.failed {
            None => Refusal::NoCapableScscf { mandatory: wanted.mandatory.clone() },
            Some(Failed::Status(status)) => Refusal::ScscfUnavailable { name: name(), status },
            Some(Failed::Cause(cause)) => Refusal::ScscfSilent { name: name(), cause },
        }
    }
}

/// 5.3.2.1: a `pres` or `im` URI is the SIP URI of the same user.
fn of_scheme_sip(uri: &str) -> String {
    match Uri::parse(uri).map(|parsed| (parsed.scheme(), parsed.user())) {
        Ok((Scheme::Other(scheme), Some(user))) if ["pres", "im"].iter().any(|s| scheme.eq_ignore_ascii_case(s)) => {
            format!("sip:{user}")
        }
        _ => uri.to_owned(),
    }
}

/// 5.3.2.1: a SIP URI that stands for a global number is asked for as the tel URI, unless it is a GRUU.
fn number_of(uri: &Uri<'_>) -> Option<String> {
    let user = uri.user().filter(|user| uri.is_sip() && user.starts_with('+'))?;
    let is_phone = uri.param("user").flatten().is_some_and(|value| value.eq_ignore_ascii_case("phone"));
    (is_phone && !uri.has_param("gr")).then(|| format!("tel:{user}"))
}

/// On whose behalf an application server originates (5.3.2.1A).
fn served_user(request: &Message) -> Result<Impu, Refusal> {
    let bad = |e: &dyn std::fmt::Display| Refusal::Malformed(e.to_string());
    let served: Option<PServedUser<'_>> = request.first().map_err(|e| bad(&e))?;
    let asserted: Option<PAssertedIdentity<'_>> = request.first().map_err(|e| bad(&e))?;
    let uri = served.as_ref().map(|s| s.uri).or(asserted.as_ref().map(|a| a.uri)).ok_or(Refusal::NoServedUser)?;
    Impu::parse(uri).map_err(|e| bad(&e))
}

fn read_lia(answer: &ims_diameter::Message, question: &Question) -> Result<Located, Refusal> {
    let lia = Lia::from_message(answer).map_err(|e| Refusal::HssAnswer(e.to_string()))?;
    let impu = || question.impu.clone();
    match lia.result {
        result if result.is_success() => {}
        ResultCode::USER_UNKNOWN => return Err(Refusal::NoSuchUser { impu: impu() }),
        ResultCode::IDENTITY_NOT_REGISTERED => return Err(Refusal::NotRegistered { impu: impu() }),
        ResultCode::TOO_BUSY => return Err(Refusal::HssBusy),
        other => return Err(Refusal::HssAnswer(format!("{other:?}"))),
    }
    Ok(match lia.server_name {
        Some(name) => Located::At { name, wildcard: lia.wildcarded, is_direct: lia.is_direct },
        // Neither name nor capabilities: any S-CSCF will do.
        None => Located::Among { wanted: lia.capabilities.unwrap_or_default(), wildcard: lia.wildcarded },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Option<String> {
        number_of(&Uri::parse(text).unwrap())
    }

    #[test]
    fn only_a_global_number_marked_as_such_becomes_a_tel_uri() {
        assert_eq!(number("sip:+1-555@ims.example;user=phone").as_deref(), Some("tel:+1-555"));
        assert_eq!(number("sip:+1555;isub=7@ims.example;user=PHONE").as_deref(), Some("tel:+1555;isub=7"));
        for text in
            ["sip:+1555@ims.example", "sip:1555@ims.example;user=phone", "tel:+1555", "sip:+1@x;user=phone;gr=u"]
        {
            assert_eq!(number(text), None, "{text}");
        }
    }

    #[test]
    fn presence_and_instant_message_uris_are_sip_uris() {
        assert_eq!(of_scheme_sip("pres:bob@ims.example"), "sip:bob@ims.example");
        assert_eq!(of_scheme_sip("IM:bob@ims.example"), "sip:bob@ims.example");
        for text in ["sip:bob@x", "tel:+1", "urn:service:sos", "nothing"] {
            assert_eq!(of_scheme_sip(text), text);
        }
    }

    #[test]
    fn what_the_user_says_through_the_s_cscf_that_serves_it_is_no_reason_for_another() {
        let ask = |failed, chosen: bool, method| {
            let session = Session {
                question: Some(Question { impu: Impu::parse("sip:a@x").unwrap(), originating: false, instead: None }),
                tried: vec!["sip:s".into()],
                capabilities: chosen.then(ServerCapabilities::default),
                failed: Some(failed),
                ..Session::default()
            };
            session.why_another(method).is_some()
        };
        let silent = Failed::Cause(ClientFailure::Timeout);
        assert!(ask(silent, false, Method::Invite) && !ask(silent, false, Method::Message));
        for (status, served, chosen) in
            [(480, false, true), (302, false, true), (503, true, true), (486, false, false), (500, false, false)]
        {
            assert_eq!(ask(Failed::Status(status), false, Method::Message), served, "{status}");
            assert_eq!(ask(Failed::Status(status), true, Method::Message), chosen, "{status}");
        }
    }
}
