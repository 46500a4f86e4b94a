//! Registration as the P-CSCF sees it (TS 24.229 5.2.2).
//!
//! `on_register` takes a REGISTER, in clear (5.2.2.1, a first one) or over an SA set (5.2.2.2), and sends it
//! to the home network. `on_challenge` takes the 401: CK and IK stay here, and the answer leaves when the
//! kernel has the new SA set. `on_registered` takes the 200: what was granted is stored and the set confirmed.

use crate::auth_params::Protection;
use crate::config::Policy;
use crate::contacts::{Access, Binding, RegId, Registration};
use crate::gate::begins_something;
use crate::sa::{SetId, State};
use crate::sec_agree::{self, Proposal};
use crate::{Pcscf, Refusal, Timer, auth_params, border, charging};
use ims_core::uri::Uri;
use ims_core::{Ctx, Flow, Impi, Impu, Time};
use ims_sip::endpoint::{ClientFailure, ClientTx, Destination, ServerTx};
use ims_sip::headers::{Contact, Expires, NameAddr, PAssociatedUri, To, pieces};
use ims_sip::message::HeaderError;
use ims_sip::proxy::decrement_max_forwards;
use ims_sip::{Message, Name};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tracing::{debug, info};

/// When neither the contact nor Expires says anything (RFC 3261 10.2.1.1).
const DEFAULT_EXPIRES: u32 = 3600;

/// How a request came in: its transaction, its flow, and the SA set of that flow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inbound {
    pub(crate) tx: ServerTx,
    pub(crate) flow: Flow,
    pub(crate) set: Option<SetId>,
}

/// A REGISTER on its way through the core.
#[derive(Clone, Debug)]
pub(crate) struct Forwarded {
    pub(crate) from: Inbound,
    /// When it came.
    pub(crate) since: Time,
    pub(crate) request: Message,
    pub(crate) claim: Claim,
    pub(crate) proposal: Proposal,
    /// In the Path that it carries.
    pub(crate) token: Arc<str>,
    pub(crate) registration: Option<RegId>,
}

/// All REGISTERs on their way, counted by the address that they came from.
#[derive(Debug, Default)]
pub(crate) struct OnTheWay {
    by_tx: BTreeMap<ClientTx, Forwarded>,
    by_address: BTreeMap<IpAddr, usize>,
}

impl OnTheWay {
    fn insert(&mut self, tx: ClientTx, forwarded: Forwarded) {
        *self.by_address.entry(forwarded.from.flow.remote.ip()).or_default() += 1;
        self.by_tx.insert(tx, forwarded);
    }

    fn remove(&mut self, tx: ClientTx) -> Option<Forwarded> {
        let forwarded = self.by_tx.remove(&tx)?;
        let address = forwarded.from.flow.remote.ip();
        match self.by_address.get_mut(&address) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.by_address.remove(&address)),
        }
        Some(forwarded)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_tx.len()
    }

    fn count_at(&self, ue: IpAddr) -> usize {
        self.by_address.get(&ue).copied().unwrap_or(0)
    }
}

/// Whom a REGISTER is about.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) impi: Impi,
    pub(crate) impu: Impu,
    pub(crate) wanted: Wanted,
}

#[derive(Clone, Debug)]
pub(crate) enum Wanted {
    /// No Contact: only asks what is bound.
    Query,
    /// `Contact: *`: removes all.
    RemoveAll,
    Bind {
        contact: String,
        reg_id: Option<String>,
        expires: u32,
    },
}

impl Claim {
    fn read(message: &Message) -> Result<Self, Refusal> {
        let bad = |e: HeaderError| Refusal::Malformed(e.to_string());
        let to: To = message.require().map_err(bad)?;
        let impu = Impu::parse(to.uri).map_err(|e| Refusal::Malformed(format!("To: {e}")))?;
        if message.raw(Name::Authorization).count() > 1 {
            return Err(Refusal::Malformed("more than one Authorization".into()));
        }
        let impi = match auth_params::credential(message, "username").filter(|u| !u.is_empty()) {
            Some(name) => Impi::parse(&name).map_err(|e| Refusal::Malformed(format!("Authorization username: {e}")))?,
            // TS 24.229 5.4.1.1: without Authorization, the private identity is the public one without its scheme.
            None => Impi::from_impu(&impu)
                .ok_or_else(|| Refusal::Malformed("no Authorization, and To gives no private identity".into()))?,
        };
        Ok(Self { impi, impu, wanted: Wanted::read(message).map_err(bad)? })
    }
}

impl Wanted {
    pub(crate) fn read(message: &Message) -> Result<Self, HeaderError> {
        let contacts: Vec<Contact> = message.all()?;
        let general = message.first::<Expires>()?.map(|e| e.0);
        Ok(match contacts.first() {
            None => Self::Query,
            Some(Contact::Star) => Self::RemoveAll,
            Some(Contact::Addr(addr)) => Self::Bind {
                contact: addr.uri.to_owned(),
                reg_id: addr.params.value("reg-id").map(str::to_owned),
                expires: expires_of(addr).or(general).unwrap_or(DEFAULT_EXPIRES),
            },
        })
    }

    /// Whether it is a de-registration.
    pub(crate) fn leaves(&self) -> bool {
        matches!(self, Self::RemoveAll | Self::Bind { expires: 0, .. })
    }

    /// What the S-CSCF granted for this contact: 0 when it is not bound any more, None when nothing was asked.
    fn granted(&self, answer: &Message) -> Result<Option<u32>, HeaderError> {
        let (contact, expires) = match self {
            Self::Query => return Ok(None),
            Self::RemoveAll => return Ok(Some(0)),
            Self::Bind { contact, expires, .. } => (contact, *expires),
        };
        let bound: Vec<Contact> = answer.all()?;
        let ours = bound.iter().find_map(|c| match c {
            Contact::Addr(addr) if same_contact(addr.uri, contact) => Some(addr),
            _ => None,
        });
        let general = answer.first::<Expires>()?.map(|e| e.0);
        Ok(Some(ours.map_or(0, |addr| expires_of(addr).or(general).unwrap_or(expires.min(DEFAULT_EXPIRES)))))
    }
}

/// A refusal of the core that says when to come again: it has too much to do (RFC 3261 20.33, 21.5.4).
pub(crate) fn asks_for_patience(response: &Message) -> bool {
    matches!(response.status(), 480 | 500 | 503) && response.has(Name::RetryAfter)
}

fn expires_of(addr: &NameAddr<'_>) -> Option<u32> {
    addr.params.value("expires").and_then(|e| e.parse().ok())
}

/// Whether two contact URIs lead to the same place; registrars reorder and drop parameters.
pub(crate) fn same_contact(a: &str, b: &str) -> bool {
    match (Uri::parse(a), Uri::parse(b)) {
        _ if a == b => true,
        (Ok(a), Ok(b)) => {
            a.scheme() == b.scheme()
                && a.user() == b.user()
                && a.port() == b.port()
                && a.has_param("sos") == b.has_param("sos")
                && (a.host().eq_ignore_ascii_case(b.host()) || a.host_ip().is_some() && a.host_ip() == b.host_ip())
        }
        _ => false,
    }
}

impl Pcscf {
    pub(crate) fn on_register(&mut self, from: Inbound, message: &Message, ctx: &mut Ctx<'_>) -> Result<(), Refusal> {
        let claim = Claim::read(message)?;
        let uri = Uri::parse(message.uri()).map_err(|e| Refusal::Malformed(format!("Request-URI: {e}")))?;
        if !uri.is_sip() || !self.config.serves(uri.host()) {
            let domain = uri.host().chars().take(100).collect();
            return Err(Refusal::DomainNotServed(domain));
        }
        // What is under way goes on when nothing new is let in any more.
        let is_new = from.set.is_none() && begins_something(message, &claim.wanted);
        let most = self.config.limits.max_pending;
        let most = if is_new { most } else { most + most / 4 };
        if self.forwarded.len() + self.waiting.len() >= most {
            return Err(Refusal::Full("max_pending"));
        }
        let policy = self.config.security.policy_for(&claim.impi);
        let proposal = match policy {
            Policy::Never => Proposal::default(),
            _ => Proposal::read(message, &self.config.security).map_err(|e| Refusal::Malformed(e.to_string()))?,
        };
        let registration = match from.set {
            Some(set) => Some(self.check_protected(set, message, &claim, &proposal, ctx)?),
            None => {
                self.rewritten.note(message, &from.flow);
                self.check_clear(from, message, &claim, &proposal, policy)?
            }
        };
        let known = registration.and_then(|id| self.contacts.by_id(id));
        let token = known.map_or_else(|| ctx.rng.token(24).into(), |r| r.token.clone());
        let mut outward = message.clone();
        let protection = protection(from, &proposal, known);
        self.prepare(&mut outward, &token, protection, ctx)?;
        let home = Destination::Uri(message.uri().to_owned());
        let tx = self.sip.send_request(outward, home, ctx);
        let since = ctx.now;
        let request = message.clone();
        self.forwarded.insert(tx, Forwarded { from, since, request, claim, proposal, token, registration });
        Ok(())
    }

    /// A REGISTER over an SA set: it speaks for the private identity of the set, and still says what was agreed
    /// (TS 24.229 5.2.2.2, TS 33.203 7.3). A mismatch ends the attempt; its answer still leaves over the set.
    fn check_protected(
        &mut self,
        set: SetId,
        message: &Message,
        claim: &Claim,
        proposal: &Proposal,
        ctx: &mut Ctx<'_>,
    ) -> Result<RegId, Refusal> {
        let held = self.sets.by_id(set).ok_or(Refusal::Superseded)?;
        if held.impi != claim.impi {
            return Err(Refusal::OtherIdentity { sa: held.impi.clone(), named: claim.impi.clone() });
        }
        let id = held.registration;
        let proposed = matches!(held.state, State::Proposed { .. });
        let changed = proposed
            && self.config.security.compare_client
            && !proposal.client.is_empty()
            && proposal.client != held.client
            && auth_params::credential(message, "auts").is_none();
        let refusal = if sec_agree::verifies(message, &held.set) != Some(true) {
            Some(Refusal::VerifyMismatch)
        } else {
            changed.then_some(Refusal::ClientMismatch)
        };
        if let Some(refusal) = refusal {
            if proposed {
                self.retire(set, ctx.now);
            }
            return Err(refusal);
        }
        let bindings = self.contacts.by_id(id).map(|r| &r.bindings).ok_or(Refusal::Superseded)?;
        if !bindings.contains_key(&claim.impu) && bindings.len() >= self.config.limits.max_identities {
            return Err(Refusal::TooManyIdentities);
        }
        Ok(id)
    }

    /// A REGISTER in clear: a first one, a synchronisation failure, a UE that lost its SAs, or one without IPsec.
    fn check_clear(
        &self,
        from: Inbound,
        message: &Message,
        claim: &Claim,
        proposal: &Proposal,
        policy: Policy,
    ) -> Result<Option<RegId>, Refusal> {
        if proposal.client.is_empty() && policy != Policy::Never {
            let named = proposal.required
                || message.has_token(Name::Require, "sec-agree")
                || message.has_token(Name::ProxyRequire, "sec-agree");
            if named {
                return Err(Refusal::NoOffer);
            }
            if policy == Policy::Require {
                return Err(Refusal::SecAgreeRequired);
            }
        }
        if !proposal.client.is_empty() && proposal.usable.is_empty() {
            return Err(match proposal.suits {
                true => Refusal::UnusableOffer,
                false => Refusal::NoCommonSuite { offered: proposal.offered() },
            });
        }
        let said = |name| auth_params::credential(message, name).filter(|v| !v.is_empty());
        if policy == Policy::Require && said("response").is_some() && said("auts").is_none() {
            let nonce = said("nonce");
            let ours = |held: &crate::sa::HeldSet| nonce.as_deref() == Some(held.nonce.as_str());
            if self.sets.of_impi(&claim.impi).any(|(_, held)| ours(held)) {
                return Err(Refusal::AnsweredInClear);
            }
        }
        let known = self.of_clear_register(from, claim);
        let (limits, ue) = (&self.config.limits, from.flow.remote.ip());
        if known.is_none() && self.contacts.len() >= limits.max_registrations {
            return Err(Refusal::Full("max_registrations"));
        }
        let attempts = self.contacts.attempts_from(ue) + self.forwarded.count_at(ue);
        if known.is_none() && attempts >= limits.max_attempts_per_address {
            return Err(Refusal::Full("max_attempts_per_address"));
        }
        Ok(known)
    }

    /// The registration that a REGISTER in clear goes on with: the same attempt once more, or the refresh of a UE
    /// without IPsec. A UE that was registered over SAs begins anew, beside what it has.
    fn of_clear_register(&self, from: Inbound, claim: &Claim) -> Option<RegId> {
        let contact = match &claim.wanted {
            Wanted::Bind { contact, .. } => Some(contact),
            _ => None,
        };
        let goes_on = |r: &Registration| match &r.access {
            Access::Protected { .. } => !r.is_registered() && r.ue == from.flow.remote.ip(),
            Access::Clear { flow } => {
                flow.remote == from.flow.remote
                    || r.ue == from.flow.remote.ip()
                        && r.bindings.values().any(|b| contact.is_none_or(|c| same_contact(&b.contact, c)))
            }
        };
        self.contacts.of_impi(&claim.impi).find(|(_, r)| goes_on(r)).map(|(id, _)| id)
    }

    /// The header fields of a REGISTER towards the core (TS 24.229 5.2.2.1).
    fn prepare(
        &self,
        outward: &mut Message,
        token: &str,
        protection: Protection,
        ctx: &mut Ctx<'_>,
    ) -> Result<(), Refusal> {
        decrement_max_forwards(outward).map_err(|_| Refusal::TooManyHops)?;
        // What only the network writes, and the Route that a UE was configured with: its REGISTER goes to its home.
        for name in [
            Name::Route,
            Name::Path,
            Name::ServiceRoute,
            Name::PVisitedNetworkId,
            Name::PAssertedIdentity,
            Name::PAssociatedUri,
            Name::PServedUser,
            Name::PProfileKey,
            Name::PUserDatabase,
            Name::PCalledPartyId,
        ] {
            outward.remove(name);
        }
        auth_params::set_integrity_protected(outward, protection);
        sec_agree::strip(outward);
        charging::stamp(outward, &self.config.host, &self.config.visited_network, ctx.rng);
        border::access_network(outward, &self.config);
        outward.push_back(Name::PVisitedNetworkId, format_args!("\"{}\"", self.config.visited_network));
        let (host, port) = (&self.config.host, self.config.mw.listen.port());
        outward.push_front(Name::Path, format_args!("<sip:{token}@{host}:{port};lr>"));
        for name in [Name::Require, Name::Supported] {
            if !outward.has_token(name, "path") {
                outward.push_back(name, "path");
            }
        }
        Ok(())
    }

    pub(crate) fn on_response(&mut self, tx: ClientTx, mut response: Message, ctx: &mut Ctx<'_>) {
        if response.status() < 200 {
            // A provisional answer says nothing that the UE needs; the final one will come.
            return;
        }
        let Some(forwarded) = self.forwarded.remove(tx) else {
            return;
        };
        let (from, request) = (forwarded.from, forwarded.request.clone());
        let is_new = from.set.is_none() && begins_something(&request, &forwarded.claim.wanted);
        match asks_for_patience(&response) {
            true => self.admission.pushed_back(ctx.now, &self.config.overload),
            false => self.admission.answered(ctx.now.since(forwarded.since), is_new, ctx.now, &self.config.overload),
        }
        let nonce = auth_params::nonce(&response).unwrap_or_default().into_owned();
        let keys = auth_params::take_keys(&mut response);
        border::toward_ue(&mut response);
        let result = match response.status() {
            401 => self.on_challenge(forwarded, response, keys, nonce, ctx),
            200..=299 => self.on_registered(&forwarded, response, ctx),
            status => {
                self.on_rejected(&forwarded, status, ctx);
                self.measured.outcomes.refused(ims_sip::status::label(status));
                self.blame_for_status(from.flow, &request, status, ctx);
                self.sip.respond(from.tx, response, ctx);
                Ok(())
            }
        };
        if let Err(refusal) = result {
            self.refuse(from, &request, &refusal, ctx);
        }
    }

    pub(crate) fn on_failed(&mut self, tx: ClientTx, cause: ClientFailure, ctx: &mut Ctx<'_>) {
        if let Some(forwarded) = self.forwarded.remove(tx) {
            self.admission.answered(ctx.now.since(forwarded.since), false, ctx.now, &self.config.overload);
            self.refuse(forwarded.from, &forwarded.request, &Refusal::Core(cause), ctx);
        }
    }

    /// A final no of the S-CSCF over a set that was never confirmed: the attempt is over, but the answer still has to
    /// leave over that set. An error of the network, or "interval too brief", leaves the UE free to try again.
    fn on_rejected(&mut self, forwarded: &Forwarded, status: u16, ctx: &mut Ctx<'_>) {
        // A UE that leaves and that the home network does not know (a de-REGISTER repeated, the first answer lost) is gone.
        if forwarded.from.set.is_some() && forwarded.claim.wanted.leaves() && matches!(status, 403 | 404) {
            return self.unbind(forwarded, ctx);
        }
        let is_final = matches!(status, 400..=499 | 600..=699) && !matches!(status, 407 | 408 | 423 | 480);
        let Some(set) = forwarded.from.set.filter(|_| is_final) else {
            return;
        };
        if self.sets.by_id(set).is_some_and(|held| matches!(held.state, State::Proposed { .. })) {
            info!(impi = ?forwarded.claim.impi, status, "authentication failed");
            self.retire(set, ctx.now);
        }
    }

    /// 200: stores what was granted, and tells the UE over the set that its REGISTER came by (TS 24.229 5.2.2.1).
    fn on_registered(&mut self, forwarded: &Forwarded, response: Message, ctx: &mut Ctx<'_>) -> Result<(), Refusal> {
        let bad = |e: HeaderError| Refusal::CoreAnswer(e.to_string());
        let granted = forwarded.claim.wanted.granted(&response).map_err(bad)?;
        let id = forwarded.from.set.and_then(|set| self.sets.by_id(set)).map(|h| h.registration);
        let known = id.or(forwarded.registration).and_then(|id| self.contacts.by_id(id));
        let outcome = match granted {
            None => "queried",
            Some(0) => "deregistered",
            Some(_) if known.is_some_and(|r| r.bindings.contains_key(&forwarded.claim.impu)) => "refreshed",
            Some(_) => "registered",
        };
        let policy = self.config.security.policy_for(&forwarded.claim.impi);
        match (granted, forwarded.from.set) {
            (None, _) => {}
            (Some(_), None) if policy == Policy::Require => return Err(Refusal::AnsweredInClear),
            (Some(0), _) => self.unbind(forwarded, ctx),
            (Some(seconds), set) => {
                let binding = binding(&forwarded.claim, &response, seconds, ctx).map_err(bad)?;
                let others = other_contacts(&response, &binding.contact).map_err(bad)?;
                match set {
                    Some(set) => self.bind_protected(set, forwarded, binding, &others, ctx)?,
                    None => self.bind_clear(forwarded, binding, &others, ctx)?,
                }
            }
        }
        self.sources.succeeded(forwarded.from.flow.remote.ip(), &self.config.sources);
        self.measured.accepted(outcome, &forwarded.claim.impi, forwarded.since, ctx.now);
        self.sip.respond(forwarded.from.tx, response, ctx);
        if let Some(id) = self.contacts.by_token(&forwarded.token) {
            self.watch_registration(id, ctx);
        }
        Ok(())
    }

    fn bind_protected(
        &mut self,
        set: SetId,
        forwarded: &Forwarded,
        binding: Binding,
        others: &[String],
        ctx: &mut Ctx<'_>,
    ) -> Result<(), Refusal> {
        let held = self.sets.by_id(set).ok_or(Refusal::Superseded)?;
        let (id, suite, fresh) = (held.registration, held.set.suite, matches!(held.state, State::Proposed { .. }));
        let lifetime = binding.expires + self.config.timers.sa_margin.0;
        let ue = held.set.ue;
        let suite = format!("{}/{}", suite.alg.token(), suite.ealg.token());
        self.announce_registration(id, forwarded, &binding, &format!("registered over IPsec, {suite}"), ctx);
        self.confirm(set, lifetime, ctx);
        self.store(id, forwarded, binding)?;
        if fresh {
            self.supersede(id, &forwarded.claim.impi, ue, |c| others.iter().any(|o| same_contact(o, c)), ctx);
        }
        Ok(())
    }

    fn bind_clear(
        &mut self,
        forwarded: &Forwarded,
        binding: Binding,
        others: &[String],
        ctx: &mut Ctx<'_>,
    ) -> Result<(), Refusal> {
        let flow = forwarded.from.flow;
        let known = forwarded.registration.filter(|id| self.contacts.by_id(*id).is_some_and(|r| !r.is_protected()));
        // An attempt over SAs that was given up for one without leaves its token behind; the proposal ends by itself.
        let taken = self.contacts.by_token(&forwarded.token).is_some() && known.is_none();
        if taken && let Some(id) = forwarded.registration {
            self.forget(id, ctx);
        }
        let id = known.unwrap_or_else(|| {
            let (impi, token) = (forwarded.claim.impi.clone(), forwarded.token.clone());
            self.contacts.insert(Registration::attempt(impi, token, flow.remote.ip(), Access::Clear { flow }))
        });
        self.announce_registration(id, forwarded, &binding, "registered without IPsec", ctx);
        self.store(id, forwarded, binding)?;
        let still_bound = |c: &str| others.iter().any(|o| same_contact(o, c));
        self.supersede(id, &forwarded.claim.impi, flow.remote.ip(), still_bound, ctx);
        Ok(())
    }

    /// The operator hears of an identity that was not registered before; a refresh is for who looks closely.
    fn announce_registration(&self, id: RegId, of: &Forwarded, binding: &Binding, how: &str, ctx: &Ctx<'_>) {
        let (impu, impi, ue) = (&of.claim.impu, &of.claim.impi, of.from.flow.remote);
        let expires_s = binding.expires.since(ctx.now).as_secs();
        match self.contacts.by_id(id).is_some_and(|r| r.bindings.contains_key(impu)) {
            true => debug!(?impu, ?impi, %ue, expires_s, "refreshed"),
            false => info!(?impu, ?impi, %ue, expires_s, "{how}"),
        }
    }

    fn store(&mut self, id: RegId, forwarded: &Forwarded, binding: Binding) -> Result<(), Refusal> {
        let of_old_set =
            forwarded.from.set.and_then(|set| self.sets.by_id(set)).is_some_and(|h| h.state == State::Retiring);
        if !of_old_set {
            self.contacts.heard(id, forwarded.from.flow);
        }
        let registration = self.contacts.bind(id, forwarded.claim.impu.clone(), binding).ok_or(Refusal::Superseded)?;
        let next = registration.bindings.values().map(|b| b.expires).min();
        if let Some(next) = next {
            self.timers.set(Timer::Registration(id), next);
        }
        Ok(())
    }

    /// De-registration by the UE (TS 24.229 5.2.5.1): the 200 leaves inside the SA, which stays 64*T1 longer.
    fn unbind(&mut self, forwarded: &Forwarded, ctx: &mut Ctx<'_>) {
        let of_set = forwarded.from.set.and_then(|set| self.sets.by_id(set)).map(|held| held.registration);
        let Some(id) = of_set.or(forwarded.registration) else {
            return;
        };
        let Some(registration) = self.contacts.by_id_mut(id) else {
            return;
        };
        registration.bindings.remove(&forwarded.claim.impu);
        info!(impu = ?forwarded.claim.impu, impi = ?forwarded.claim.impi, "de-registered by the UE");
        self.wind_up(id, ctx);
    }
}

/// Who negotiates IPsec does IMS AKA; who does not may have a password instead (TS 24.229 5.2.2, TS 33.203 P.3).
fn protection(from: Inbound, proposal: &Proposal, known: Option<&Registration>) -> Protection {
    let is_registered = |r: &Registration| r.is_registered() && r.ue == from.flow.remote.ip();
    match (from.set, proposal.client.is_empty()) {
        (Some(_), _) => Protection::Yes,
        (None, false) => Protection::No,
        (None, true) if known.is_some_and(is_registered) => Protection::IpAssociated,
        (None, true) => Protection::Open,
    }
}

/// What the S-CSCF said about this contact.
fn binding(claim: &Claim, answer: &Message, seconds: u32, ctx: &Ctx<'_>) -> Result<Binding, HeaderError> {
    let (contact, reg_id) = match &claim.wanted {
        Wanted::Bind { contact, reg_id, .. } => (contact.as_str().into(), reg_id.as_deref().map(Box::from)),
        Wanted::Query | Wanted::RemoveAll => (Box::default(), None),
    };
    let route = answer.raw(Name::ServiceRoute).flat_map(|v| std::str::from_utf8(v).ok());
    let associated: Vec<PAssociatedUri> = answer.all()?;
    Ok(Binding {
        contact,
        reg_id,
        service_route: route.flat_map(pieces).map(Into::into).collect(),
        associated: associated.iter().map(|a| a.uri.into()).collect(),
        expires: ctx.now + Duration::from_secs(seconds.into()),
    })
}

/// The contacts that the S-CSCF has besides ours (RFC 3261 10.3 step 8: the 200 names them all).
fn other_contacts(answer: &Message, ours: &str) -> Result<Vec<String>, HeaderError> {
    let bound: Vec<Contact> = answer.all()?;
    let uris = bound.iter().filter_map(|c| match c {
        Contact::Addr(addr) if !same_contact(addr.uri, ours) => Some(addr.uri.to_owned()),
        _ => None,
    });
    Ok(uris.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contacts_are_the_same_whatever_their_parameters() {
        assert!(same_contact("sip:a@192.0.2.7:5101;transport=udp", "sip:a@192.0.2.7:5101"));
        assert!(same_contact("sip:a@[2001:DB8::7]:5101", "sip:a@[2001:db8:0::7]:5101"));
        assert!(!same_contact("sip:a@192.0.2.7:5101", "sip:a@192.0.2.7:5102"));
        assert!(!same_contact("sip:a@192.0.2.7:5101", "sip:b@192.0.2.7:5101"));
    }
}
