//! The chain of application servers of a served user (TS 24.229 5.4.3.2 to 5.4.3.4): the criteria that a request meets, in their
//! order and each once; the original dialog identifier by which a request that comes back goes on where it was, whatever the
//! server made of it; and what happens when a server does not answer.

use crate::own::Own;
use crate::profile::Criteria;
use crate::served::Served;
use crate::session::{Passing, Stage, Step};
use crate::{Refusal, Scscf};
use ims_core::uri::Uri;
use ims_core::{Ctx, Impu};
use ims_sip::dialog::Dialog;
use ims_sip::endpoint::{ClientTx, Destination, ServerTx};
use ims_sip::proxy;
use ims_sip::{Message, Method, Name};
use std::collections::BTreeMap;
use std::sync::Arc;
use xml_ifc::trigger::{RequestView, SessionCase};
use xml_ifc::{DefaultHandling, Ifc};

/// Characters of an original dialog identifier: 80 bits.
const ODI: usize = 16;

/// Why an application server's request is given up.
const SILENT: &str = "SIP;cause=408;text=\"No answer\"";

/// A chain, and the first of its criteria that was not asked yet. The criteria are those of when the chain began, whatever the HSS
/// says meanwhile.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    pub(crate) served: Arc<Served>,
    criteria: Criteria,
    next: usize,
}

/// An application server has the request.
#[derive(Debug)]
pub(crate) struct AtServer {
    /// None: it is being sent.
    client: Option<ClientTx>,
    odi: Box<str>,
    server: Box<str>,
    handling: DefaultHandling,
    /// It said more than 100, or gave the request back: whatever fails now is not the server.
    has_answered: bool,
}

/// Where a request goes on that an application server gives back.
#[derive(Debug)]
struct Link {
    /// The request that the server was given.
    tx: ServerTx,
    chain: Chain,
    /// The Request-URI that the server was given.
    uri: Box<str>,
}

/// The original dialog identifiers in use. Each ends with the request that it was made for.
#[derive(Default)]
pub(crate) struct Chains(BTreeMap<Box<str>, Link>);

/// What became of requests that went to an application server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Outcome {
    /// It, or somebody behind it, answered.
    Answered,
    /// It failed, and the request went on without it (SESSION_CONTINUED).
    Continued,
    /// It failed, and that was the end (SESSION_TERMINATED).
    Terminated,
    /// The caller gave up.
    Cancelled,
}

impl Outcome {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Continued => "continued",
            Self::Terminated => "terminated",
            Self::Cancelled => "cancelled",
        }
    }
}

impl Chains {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Chain {
    pub(crate) fn of(served: Served) -> Self {
        let criteria = served.profile.criteria(&served.impu);
        Self { served: Arc::new(served), criteria, next: 0 }
    }

    fn next_server(&self, request: &Message) -> Option<(usize, &Ifc)> {
        self.criteria.next_match(self.next, &RequestView::new(request, self.served.case))
    }

    /// 5.4.3.3: the request is for somebody else now, so the user has diverted it. The criteria for that begin anew.
    fn diverted(self) -> Self {
        let is_registered = self.served.case.is_registered();
        let case = SessionCase::OriginatingCdiv { is_registered };
        Self { served: Arc::new(Served { case, ..(*self.served).clone() }), next: 0, ..self }
    }
}

impl Scscf {
    /// Takes a request in, and on to the next that is to have it.
    pub(crate) fn enter(&mut self, tx: ServerTx, request: Message, chain: Chain, ctx: &mut Ctx<'_>) {
        let side = Some(chain.served.side());
        let stage = Some(Box::new(Stage { chain: Some(chain), step: Step::Begun }));
        self.relay.open(tx, request, Passing { side, stage });
        self.advance(tx, ctx);
    }

    /// To the next application server, or to where the request goes behind the last.
    pub(crate) fn advance(&mut self, tx: ServerTx, ctx: &mut Ctx<'_>) {
        let result = loop {
            let Some(passage) = self.relay.get(tx) else { return };
            let Some(chain) = passage.with.chain() else { return };
            let served = chain.served.clone();
            let Some((at, ifc)) = chain.next_server(&passage.request) else {
                break match served.case.is_originating() {
                    true => self.leave(tx, ctx),
                    false => self.deliver(tx, &served, ctx),
                };
            };
            let (name, handling) = (ifc.server.server_name.clone(), ifc.server.default_handling);
            match self.hand_over(tx, at, &name, handling, ctx) {
                // No server at all: like one that does not answer.
                Err(Refusal::NoServer(_)) if handling == DefaultHandling::SessionContinued => {
                    self.count("no-server");
                    self.count_server(Outcome::Continued);
                    tracing::warn!(
                        server = name,
                        "no SIP URI, and the request goes on without it: correct the criteria in the HSS"
                    );
                    self.skip(tx, at);
                }
                result => break result,
            }
        };
        if let Err(refusal) = result {
            self.refuse_passage(tx, &refusal, ctx);
        }
    }

    fn skip(&mut self, tx: ServerTx, at: usize) {
        if let Some(chain) = self.relay.get_mut(tx).and_then(|p| p.with.chain_mut()) {
            chain.next = at + 1;
        }
    }

    /// 5.4.3.2 and 5.4.3.3: the server on top of the Route, and us below it with the original dialog identifier.
    fn hand_over(
        &mut self,
        tx: ServerTx,
        at: usize,
        name: &str,
        handling: DefaultHandling,
        ctx: &mut Ctx<'_>,
    ) -> Result<(), Refusal> {
        let uri = Uri::parse(name).ok().filter(Uri::is_sip).ok_or_else(|| Refusal::NoServer(name.to_owned()))?;
        let route = if uri.has_param("lr") { format!("<{name}>") } else { format!("<{name};lr>") };
        if self.chains.len() >= self.config.limits.max_chains {
            return Err(Refusal::Full("limits.max_chains"));
        }
        self.skip(tx, at);
        let odi: Box<str> = ctx.rng.token(ODI).into();
        let Some(passage) = self.relay.get_mut(tx) else { return Ok(()) };
        let Some(stage) = passage.with.stage.as_deref_mut() else { return Ok(()) };
        let server = name.into();
        stage.step = Step::Server(AtServer { client: None, odi: odi.clone(), server, handling, has_answered: false });
        let (mut request, chain) = (passage.request.clone(), stage.chain.clone());
        let Some(chain) = chain else { return Ok(()) };
        let served = chain.served.clone();
        request.push_front(Name::Route, self.me.odi_route(&odi));
        request.push_front(Name::Route, route);
        request.set(Name::PServedUser, served_user(&served));
        self.record_route(&mut request, served.side());
        self.chains.0.insert(odi, Link { tx, chain, uri: request.uri().into() });
        self.patience.set(tx, ctx.now + self.config.timers.as_answer.0);
        let to = proxy::prepare_next_hop(&mut request);
        let sent = self.send_branch(tx, request, to, ctx);
        if let Some(Stage { step: Step::Server(server), .. }) =
            self.relay.get_mut(tx).and_then(|p| p.with.stage.as_deref_mut())
        {
            server.client = Some(sent);
        }
        Ok(())
    }

    /// 5.4.3.4: an application server gives the request back, or what it made of it.
    pub(crate) fn on_given_back(
        &mut self,
        tx: ServerTx,
        odi: &str,
        mut request: Message,
        ctx: &mut Ctx<'_>,
    ) -> Result<(), Refusal> {
        let Link { tx: given, chain, uri } = self.chains.0.get(odi).ok_or(Refusal::ChainGone)?;
        let (given, mut chain) = (*given, chain.clone());
        if !chain.served.case.is_originating() && !is_same_target(uri, request.uri(), &chain.served) {
            chain = chain.diverted();
        }
        request.remove(Name::PServedUser);
        self.on_server_alive(given, true, ctx);
        self.enter(tx, request, chain, ctx);
        Ok(())
    }

    /// A server says something that is not final: 100, or more than that. What answers 100 by itself may still be stuck behind it.
    pub(crate) fn on_server_alive(&mut self, tx: ServerTx, is_more: bool, ctx: &mut Ctx<'_>) {
        let Some(stage) = self.relay.get_mut(tx).and_then(|p| p.with.stage.as_deref_mut()) else { return };
        let Step::Server(server) = &mut stage.step else { return };
        server.has_answered |= is_more;
        match server.has_answered {
            true => drop(self.patience.clear(&tx)),
            false => self.patience.set(tx, ctx.now + self.config.timers.as_progress.0),
        }
    }

    /// Whether an answer, or none, is the failure of a server for which the criterion has DefaultHandling: 408 or 5xx before any
    /// 18x, and before the request came back. True: the request has gone on, or was refused.
    pub(crate) fn on_server_exhausted(&mut self, tx: ServerTx, ctx: &mut Ctx<'_>) -> bool {
        let Some(passage) = self.relay.get(tx) else { return false };
        let Some(server) = passage.with.server() else { return false };
        let is_failure = passage.best().is_some_and(|status| status == 408 || (500..600).contains(&status));
        if passage.is_cancelled() {
            self.end_server(tx, Outcome::Cancelled);
            return false;
        }
        if server.has_answered || !is_failure {
            self.end_server(tx, Outcome::Answered);
            return false;
        }
        let (handling, name) = (server.handling, server.server.clone());
        match handling {
            DefaultHandling::SessionContinued => {
                let Some((passage, response)) = self.relay.settle(tx) else { return false };
                tracing::warn!(
                    server = &*name,
                    status = response.status(),
                    "an application server failed: on without it"
                );
                self.relay.open(tx, passage.request, passage.with);
                self.end_server(tx, Outcome::Continued);
                self.advance(tx, ctx);
                true
            }
            DefaultHandling::SessionTerminated => {
                tracing::warn!(
                    server = &*name,
                    status = passage.best(),
                    "an application server failed: that is the end"
                );
                self.end_server(tx, Outcome::Terminated);
                false
            }
        }
    }

    /// timers.as_answer or timers.as_progress is over.
    pub(crate) fn on_server_silent(&mut self, tx: ServerTx, ctx: &mut Ctx<'_>) {
        let Some(server) = self.relay.get(tx).and_then(|p| p.with.server()) else { return };
        let (handling, name) = (server.handling, server.server.clone());
        self.given_up.extend(server.client);
        self.relay.abandon(tx, SILENT, &mut self.sip, ctx);
        let refusal = Refusal::ServerSilent(name.to_string());
        match handling {
            DefaultHandling::SessionContinued => {
                self.count(refusal.name());
                tracing::warn!("{refusal}; the request goes on without it");
                self.end_server(tx, Outcome::Continued);
                self.advance(tx, ctx);
            }
            DefaultHandling::SessionTerminated => {
                self.end_server(tx, Outcome::Terminated);
                self.refuse_passage(tx, &refusal, ctx);
            }
        }
    }

    /// A server that was given up says something after all. When it takes the call, nobody listens any more: it ends at once
    /// (RFC 3261 13.2.2.4).
    pub(crate) fn on_late_response(&mut self, client: ClientTx, response: &Message, ctx: &mut Ctx<'_>) {
        if response.status() < 200 {
            return;
        }
        self.given_up.remove(&client);
        if response.status() >= 300 || response.method() != Method::Invite {
            return;
        }
        self.count("late-answer");
        // Of what makes a dialog, the answer has all that the request had.
        let Ok(mut dialog) = Dialog::as_uac(response, response) else { return };
        let (mut ack, _) = dialog.ack(dialog.local_seq());
        let to = self.take_routes_before_us(&mut ack);
        self.sip.send_ack(ack, Destination::Uri(to), ctx);
        let (mut bye, _) = dialog.request("BYE");
        bye.set(Name::Reason, SILENT);
        let to = self.take_routes_before_us(&mut bye);
        self.send_own(bye, to, Own::HangUp, ctx);
    }

    /// Of the route set of the caller, the part that is ahead of us.
    fn take_routes_before_us(&self, request: &mut Message) -> String {
        while proxy::take_own_route(request, |uri| self.me.is_me(uri)).is_none() && request.pop_first(Name::Route) {}
        proxy::prepare_next_hop(request)
    }

    /// The server has done with the request: what still comes by its original dialog identifier comes too late.
    pub(crate) fn end_server(&mut self, tx: ServerTx, outcome: Outcome) {
        let Some(stage) = self.relay.get_mut(tx).and_then(|p| p.with.stage.as_deref_mut()) else { return };
        if let Step::Server(server) = std::mem::replace(&mut stage.step, Step::Begun) {
            self.chains.0.remove(&server.odi);
            self.patience.clear(&tx);
            self.count_server(outcome);
        }
    }

    fn count_server(&mut self, outcome: Outcome) {
        *self.server_outcomes.entry(outcome).or_default() += 1;
    }
}

/// RFC 5502, RFC 8498.
fn served_user(served: &Served) -> String {
    let impu = &served.impu;
    let state = if served.case.is_registered() { "reg" } else { "unreg" };
    match served.case {
        SessionCase::OriginatingCdiv { .. } => format!("<{impu}>;orig-cdiv"),
        case if case.is_originating() => format!("<{impu}>;sescase=orig;regstate={state}"),
        _ => format!("<{impu}>;sescase=term;regstate={state}"),
    }
}

/// Whether the request is still for the same user: another spelling, or another identity, is no other user.
fn is_same_target(was: &str, is: &str, served: &Served) -> bool {
    if was == is {
        return true;
    }
    let of = |uri: &str| {
        Uri::parse(uri).ok().and_then(|uri| Some((Impu::from_uri(&uri)?, crate::served::number_alias(&uri))))
    };
    match (of(was), of(is)) {
        (Some((was, _)), Some((is, number))) => {
            was == is || served.profile.has(&is) || number.is_some_and(|number| served.profile.has(&number))
        }
        _ => false,
    }
}
