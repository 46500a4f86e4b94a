//! Where a request goes that leaves the originating side (TS 24.229 5.4.3.2): users of ours by the I-CSCF, numbers by the numbering
//! plan, the local table and ENUM, and what is not ours to the trunks of the configuration, one after the other.

use crate::breakout::{self, Form, strip_assertions};
use crate::me::Side;
use crate::naptr::Answered;
use crate::numbering::Called;
use crate::own::Own;
use crate::session::{Stage, Step};
use crate::{Refusal, Scscf};
use ims_core::uri::{Scheme, Uri};
use ims_core::{Ctx, Time};
use ims_sip::endpoint::{ClientTx, ServerTx};
use ims_sip::{Message, Name, proxy};
use std::collections::VecDeque;

/// Why a trunk is given up.
const NO_ANSWER: &str = "SIP;cause=408;text=\"No answer\"";

/// How a request leaves, and where it may go when that fails.
#[derive(Debug, Default)]
pub(crate) struct Departure {
    /// What was called, if it is a number.
    called: Option<Called>,
    /// The I-CSCF was asked first, and nobody said whose the number is: the trunks are next if it does not know it.
    home_first: bool,
    /// The trunk that has it.
    trunk: Option<String>,
    client: Option<ClientTx>,
    /// It is not of our trust domain.
    pub(crate) is_outside: bool,
    /// Those that are next.
    trunks: VecDeque<String>,
    /// Somebody said more than 100: it stays there.
    has_answered: bool,
}

impl Departure {
    /// All that is left of one when a trunk outside our trust domain took the call.
    pub(crate) fn outside() -> Self {
        Self { is_outside: true, ..Self::default() }
    }
}

impl Scscf {
    pub(crate) fn leave(&mut self, tx: ServerTx, ctx: &mut Ctx<'_>) -> Result<(), Refusal> {
        if let Some(stage) = self.relay.get_mut(tx).and_then(|passage| passage.with.stage.as_mut()) {
            stage.step = Step::Left(Box::default());
        }
        let Some(passage) = self.relay.get(tx) else { return Ok(()) };
        if passage.request.has(Name::Route) {
            return self.away(tx, ctx);
        }
        let uri = passage.request.uri().to_owned();
        self.set_uri(tx, &uri);
        self.by_request_uri(tx, true, ctx)
    }

    /// `table`: the table of numbers was not looked at yet.
    fn by_request_uri(&mut self, tx: ServerTx, table: bool, ctx: &mut Ctx<'_>) -> Result<(), Refusal> {
        let Some(passage) = self.relay.get(tx) else { return Ok(()) };
        let uri = Uri::parse(passage.request.uri()).map_err(|e| Refusal::Malformed(format!("Request-URI: {e}")))?;
        let is_home = |host: &str| self.is_home(host);
        let called = match uri.scheme() {
            Scheme::Sip | Scheme::Sips | Scheme::Tel => self.config.numbering.read(&uri, is_home),
            Scheme::Urn | Scheme::Other(_) => return Err(Refusal::NoRoute(uri.as_str().to_owned())),
        };
        if let Some(called) = called {
            return self.by_number(tx, called, table, ctx);
        }
        if !uri.is_sip() {
            return self.home(tx, None, ctx);
        }
        let host = uri.host();
        if self.is_home(host) {
            return self.home(tx, None, ctx);
        }
        if self.me.is_me(&uri) {
            return self.back_to_us(tx, ctx);
        }
        match self.config.breakout.route_of_domain(host) {
            Some(route) => {
                let trunks = self.trunks.draw(route, ctx.rng);
                self.break_out(tx, trunks, ctx)
            }
            None => self.away(tx, ctx),
        }
    }

    fn is_home(&self, host: &str) -> bool {
        let is = |domain: &String| domain.eq_ignore_ascii_case(host);
        is(&self.config.domain) || self.config.aliases.iter().any(is)
    }

    fn departure(&mut self, tx: ServerTx) -> Option<&mut Departure> {
        match self.relay.get_mut(tx)?.with.stage.as_deref_mut()? {
            Stage { step: Step::Left(departure), .. } => Some(departure),
            _ => None,
        }
    }

    fn by_number(&mut self, tx: ServerTx, called: Called, table: bool, ctx: &mut Ctx<'_>) -> Result<(), Refusal> {
        let numbering = &self.config.numbering;
        if let Some(uri) = numbering.find_local(&called.number).filter(|_| table) {
            self.set_uri(tx, &uri);
            return self.by_request_uri(tx, false, ctx);
        }
        let is_ours = numbering.is_own(&called.number) == Some(true);
        let ask_dns = !called.is_looked_up && called.is_global() && !numbering.lookup.suffix.is_empty();
        let number = called.number.clone();
        if let Some(departure) = self.departure(tx) {
            departure.called = Some(called);
        }
        if is_ours {
            return self.home_by_number(tx, ctx);
        }
        if !ask_dns {
            return self.not_surely_ours(tx, ctx);
        }
        match self.lookups.ask(&self.config.numbering.lookup, tx, &number, ctx) {
            Some(answered) => self.by_enum(answered, ctx),
            None => Ok(()),
        }
    }

    /// What ENUM says, for a request that may be gone meanwhile.
    pub(crate) fn on_enum(&mut self, answered: Answered, ctx: &mut Ctx<'_>) {
        let tx = answered.tx;
        if let Err(refusal) = self.by_enum(answered, ctx) {
            self.refuse_passage(tx, &refusal, ctx);
        }
    }

    fn by_enum(&mut self, answered: Answered, ctx: &mut Ctx<'_>) -> Result<(), Refusal> {
        let Answered { tx, uri, is_silent } = answered;
        if is_silent {
            self.count("enum-silent");
            tracing::warn!("DNS did not answer for a number: it goes on as if ENUM did not know it");
        }
        let read = |uri: &str| self.config.numbering.read(&Uri::parse(uri).ok()?, |_| false);
        match uri {
            // Ported, or not: where it is served, as a number.
            Some(uri) if uri.get(..4).is_some_and(|scheme| scheme.eq_ignore_ascii_case("tel:")) => {
                let called = read(&uri);
                self.set_uri(tx, &uri);
                if let (Some(departure), Some(called)) = (self.departure(tx), called) {
                    departure.called = Some(Called { is_looked_up: true, ..called });
                }
                self.not_surely_ours(tx, ctx)
            }
            Some(uri) => {
                self.set_uri(tx, &uri);
                if let Some(departure) = self.departure(tx) {
                    departure.called = None;
                }
                let at_home = Uri::parse(&uri).is_ok_and(|uri| self.is_home(uri.host()));
                if at_home { self.home(tx, None, ctx) } else { self.by_request_uri(tx, false, ctx) }
            }
            None => self.not_surely_ours(tx, ctx),
        }
    }

    /// An alias of our domain becomes the domain.
    fn set_uri(&mut self, tx: ServerTx, uri: &str) {
        let parsed = Uri::parse(uri).ok().filter(|uri| uri.is_sip() && self.is_home(uri.host()));
        let is_alias = |uri: &Uri<'_>| !uri.host().eq_ignore_ascii_case(&self.config.domain);
        let ours = parsed.filter(is_alias).map(|uri| with_host(&uri, &self.config.domain));
        let uri = ours.as_deref().unwrap_or(uri);
        if let Some(passage) = self.relay.get_mut(tx).filter(|passage| passage.request.uri() != uri) {
            passage.request.set_uri(uri);
        }
    }

    /// A number that may be anybody's: without ranges of ours, the HSS knows which are.
    fn not_surely_ours(&mut self, tx: ServerTx, ctx: &mut Ctx<'_>) -> Result<(), Refusal> {
        let Some(called) = self.departure(tx).and_then(|departure| departure.called.clone()) else { return Ok(()) };
        let route = self.config.breakout.route_of_number(called.route_by());
        // What has a meaning here alone may be the name of a user.
        let is_elsewhere = called.is_global() && self.config.numbering.is_own(&called.number) == Some(false);
        let is_foreign = is_elsewhere || called.routing.is_some();
        match route {
            Some(route) if is_foreign => {
                let trunks = self.trunks.draw(route, ctx.rng);
                self.break_out(tx, trunks, ctx)
            }
            None if is_foreign => Err(Refusal::NoRoute(format!("tel:{}", called.route_by()))),
            _ => {
                if let Some(departure) = self.departure(tx) {
                    departure.home_first = true;
                }
                self.home_by_number(tx, ctx)
            }
        }
    }

    fn home_by_number(&mut self, tx: ServerTx, ctx: &mut Ctx<'_>) -> Result<(), Refusal> {
        let called = self.departure(tx).and_then(|departure| departure.called.clone());
        let rewritten = called.filter(|called| called.is_rewritten && called.is_global());
        let uri = rewritten.map(|called| format!("sip:{}@{};user=phone", called.number, self.config.domain));
        self.home(tx, uri, ctx)
    }

    /// To the I-CSCF, which finds whoever serves the user; with another Request-URI, if there is one.
    fn home(&mut self, tx: ServerTx, uri: Option<String>, ctx: &mut Ctx<'_>) -> Result<(), Refusal> {
        let Some(passage) = self.relay.get(tx) else { return Ok(()) };
        let mut request = passage.request.clone();
        self.record_route(&mut request, Side::Originating);
        if let Some(uri) = uri {
            request.set_uri(&uri);
        }
        let to = self.config.sessions.icscf.clone().unwrap_or_else(|| format!("sip:{}", self.config.domain));
        self.send_branch(tx, request, to, ctx);
        Ok(())
    }

    /// A temporary GRUU of ours: its user is served here.
    fn back_to_us(&mut self, tx: ServerTx, ctx: &mut Ctx<'_>) -> Result<(), Refusal> {
        let Some(passage) = self.relay.get(tx) else { return Ok(()) };
        let mut request = passage.request.clone();
        self.record_route(&mut request, Side::Originating);
        self.send_branch(tx, request, self.me.address(), ctx);
        Ok(())
    }

    /// Where Route or Request-URI say, by RFC 3263.
    fn away(&mut self, tx: ServerTx, ctx: &mut Ctx<'_>) -> Result<(), Refusal> {
        let Some(passage) = self.relay.get(tx) else { return Ok(()) };
        let mut request = passage.request.clone();
        self.record_route(&mut request, Side::Originating);
        let to = proxy::prepare_next_hop(&mut request);
        self.send_branch(tx, request, to, ctx);
        Ok(())
    }

    fn break_out(&mut self, tx: ServerTx, trunks: Vec<String>, ctx: &mut Ctx<'_>) -> Result<(), Refusal> {
        if trunks.is_empty() {
            return Err(Refusal::TrunksDown);
        }
        if let Some(departure) = self.departure(tx) {
            departure.trunks = trunks.into();
        }
        self.try_next_trunk(tx, ctx);
        Ok(())
    }

    /// False: there is none.
    fn try_next_trunk(&mut self, tx: ServerTx, ctx: &mut Ctx<'_>) -> bool {
        let Some(departure) = self.departure(tx) else { return false };
        departure.trunk = departure.trunks.pop_front();
        let (called, name) = (departure.called.clone(), departure.trunk.clone());
        let has_next = !departure.trunks.is_empty();
        let Some(name) = name else { return false };
        let Some(trunk) = self.config.breakout.trunks.get(&name) else { return false };
        let Some(passage) = self.relay.get(tx) else { return false };
        let mut request = passage.request.clone();
        let is_outside = !trunk.trusted;
        if is_outside {
            strip_assertions(&mut request);
        }
        if let Some(called) = &called {
            let tel = breakout::tel_uri(&called.number, called.routing.as_deref(), called.is_looked_up);
            let national = self.config.numbering.national_form(&called.number);
            request.set_uri(&trunk.request_uri(&called.number, &national, &tel));
        }
        let to = trunk.uri.clone();
        if called.is_none() || trunk.number == Form::Tel {
            let lr = if Uri::parse(&to).is_ok_and(|uri| uri.has_param("lr")) { "" } else { ";lr" };
            request.push_front(Name::Route, format_args!("<{to}{lr}>"));
        }
        self.record_route(&mut request, Side::Originating);
        self.trunks.count_sent(&name);
        let client = self.send_branch(tx, request, to, ctx);
        if let Some(departure) = self.departure(tx) {
            (departure.client, departure.is_outside) = (Some(client), is_outside);
        }
        if has_next {
            self.patience.set(tx, ctx.now + self.config.breakout.answer.0);
        }
        true
    }

    /// Who has the request says something that is not final.
    pub(crate) fn on_departed_alive(&mut self, tx: ServerTx, status: u16, now: Time) {
        let Some(departure) = self.departure(tx) else { return };
        departure.has_answered |= status > 100;
        if let Some(name) = departure.trunk.clone() {
            self.patience.clear(&tx);
            self.trunks.on_asked(&name, true, now);
        }
    }

    /// Whether a request that found nobody has gone on: from the I-CSCF to the trunks, or from one trunk to the next.
    pub(crate) fn on_departed_exhausted(&mut self, tx: ServerTx, ctx: &mut Ctx<'_>) -> bool {
        let Some(passage) = self.relay.get(tx) else { return false };
        let (status, is_silent) = (passage.best().unwrap_or(408), passage.cause.is_some());
        let is_cancelled = passage.is_cancelled();
        let Some(departure) = self.departure(tx) else { return false };
        let (has_answered, home_first) = (departure.has_answered, std::mem::take(&mut departure.home_first));
        let (called, trunk) = (departure.called.clone(), departure.trunk.clone());
        if let Some(name) = &trunk {
            self.trunks.on_asked(name, !is_silent, ctx.now);
            if breakout::is_unable(status) {
                self.trunks.count_failed(name);
            }
        }
        if is_cancelled || has_answered {
            return false;
        }
        if let Some(called) = called.filter(|_| home_first && status == 404) {
            let Some(route) = self.config.breakout.route_of_number(called.route_by()) else { return false };
            let trunks = self.trunks.draw(route, ctx.rng);
            self.forget_answer(tx);
            if let Err(refusal) = self.break_out(tx, trunks, ctx) {
                self.refuse_passage(tx, &refusal, ctx);
            }
            return true;
        }
        let goes_on = trunk.is_some()
            && breakout::is_unable(status)
            && self.departure(tx).is_some_and(|departure| !departure.trunks.is_empty());
        if goes_on {
            tracing::warn!(trunk, status, "a trunk cannot take a call: on to the next");
            self.forget_answer(tx);
            self.try_next_trunk(tx, ctx);
        }
        goes_on
    }

    /// What one target said is nothing to the next.
    fn forget_answer(&mut self, tx: ServerTx) {
        if let Some((passage, _)) = self.relay.settle(tx) {
            self.relay.open(tx, passage.request, passage.with);
        }
    }

    /// breakout.answer is over.
    pub(crate) fn on_trunk_silent(&mut self, tx: ServerTx, ctx: &mut Ctx<'_>) {
        let Some(trunk) = self.departure(tx).and_then(|departure| departure.trunk.clone()) else { return };
        tracing::warn!(trunk, "a trunk says nothing: on to the next");
        self.trunks.on_asked(&trunk, false, ctx.now);
        self.trunks.count_failed(&trunk);
        let client = self.departure(tx).and_then(|departure| departure.client);
        self.given_up.extend(client);
        self.relay.abandon(tx, NO_ANSWER, &mut self.sip, ctx);
        self.try_next_trunk(tx, ctx);
    }

    /// Asks the trunks whose turn it is whether they are there.
    pub(crate) fn ask_trunks(&mut self, ctx: &mut Ctx<'_>) {
        while let Some(name) = self.trunks.pop_due(ctx.now) {
            let Some(trunk) = self.config.breakout.trunks.get(&name) else { continue };
            let own = self.config.name();
            let mut options = Message::request("OPTIONS", &trunk.uri);
            options.set(Name::MaxForwards, 70);
            options.set(Name::From, format_args!("<{own}>;tag={}", ctx.rng.token(8)));
            options.set(Name::To, format_args!("<{}>", trunk.uri));
            options.set(Name::CallId, ctx.rng.token(24));
            options.set(Name::CSeq, "1 OPTIONS");
            options.set(Name::Accept, "application/sdp");
            options.set(Name::ContentLength, 0);
            let next = trunk.uri.clone();
            self.send_own(options, next, Own::Options { trunk: name }, ctx);
        }
    }

    /// Whatever a trunk answers, it is there; but for what stands for no answer.
    pub(crate) fn on_trunk_asked(&mut self, name: &str, status: Option<u16>, ctx: &Ctx<'_>) {
        let is_there = status.is_some_and(|status| !matches!(status, 408 | 502..=504));
        self.trunks.settle(name);
        match self.trunks.on_asked(name, is_there, ctx.now) {
            Some(true) => tracing::info!(trunk = name, "the trunk answers again"),
            Some(false) => {
                tracing::warn!(trunk = name, status, "the trunk does not answer: it gets no calls until it does")
            }
            None => {}
        }
    }
}

/// The same user, with all parameters, at another domain.
fn with_host(uri: &Uri<'_>, domain: &str) -> String {
    let text = uri.as_str();
    let host_at = text.find('@').map_or_else(|| text.find(':').map_or(0, |at| at + 1), |at| at + 1);
    let (head, rest) = text.split_at(host_at);
    let port =
        uri.port().map_or(0, |_| rest[uri.host().len()..].find([';', '?']).unwrap_or(rest.len() - uri.host().len()));
    format!("{head}{domain}{}", &rest[uri.host().len() + port..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_of_the_domain_becomes_the_domain() {
        for (from, to) in [
            ("sip:a@x.example", "sip:a@ims"),
            ("sip:a;p=1@x.example:5060;user=phone?Subject=x", "sip:a;p=1@ims;user=phone?Subject=x"),
            ("sip:x.example:5060", "sip:ims"),
            ("sips:a:b@[::1]:5061;lr", "sips:a:b@ims;lr"),
        ] {
            assert_eq!(with_host(&Uri::parse(from).unwrap(), "ims"), to);
        }
    }
}
