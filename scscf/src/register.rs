//! REGISTER (TS 24.229 5.4.1): who asks, whether to believe it, what the HSS says to it, and the answer.

use crate::profile::{Profile, read_saa, refused};
use crate::reg_event::Why;
use crate::registrar::{Binding, Changed, Registration};
use crate::wish::{Contacts, Wish};
use crate::{Refusal, Scscf, Waiting, gruu};
use ims_core::{Ctx, Impi, Impu};
use ims_diameter::cx::{Saa, ServerAssignmentType};
use ims_diameter::endpoint::RequestFailure;
use ims_sip::digest::DigestAlgorithm;
use ims_sip::endpoint::ServerTx;
use ims_sip::headers::{Authorization, PChargingVector, PVisitedNetworkId, To};
use ims_sip::message::HeaderError;
use ims_sip::{Message, Name};

/// Option tags that a REGISTER may require here.
const EXTENSIONS: [&str; 2] = ["path", "outbound"];

/// A REGISTER that is being worked on.
pub(crate) struct Attempt {
    pub(crate) tx: ServerTx,
    pub(crate) message: Message,
    pub(crate) impi: Impi,
    pub(crate) impu: Impu,
    pub(crate) wish: Wish,
    /// The P-CSCF received it over the security association of this very private identity (5.2.2.1).
    pub(crate) is_protected: bool,
    /// The P-CSCF says "yes" or "no" of it, which it does of IMS AKA alone (7.2A.2).
    pub(crate) is_aka: bool,
    /// What the UE names in its Authorization.
    pub(crate) algorithm: Option<DigestAlgorithm>,
    /// Authentication-Info for the 200.
    pub(crate) proof: Option<String>,
    /// When its UE proved who it is, for a registration that this attempt makes or refreshes.
    authentic_since: Option<ims_core::Time>,
}

/// What a UE says to a challenge.
#[derive(Default)]
pub(crate) struct Given {
    pub(crate) nonce: String,
    pub(crate) uri: String,
    /// Empty: the UE rejects our MAC, or reports a synchronisation failure by `auts`.
    pub(crate) response: String,
    pub(crate) qop: Option<String>,
    pub(crate) nc: Option<String>,
    pub(crate) cnonce: Option<String>,
    pub(crate) auts: Option<String>,
    pub(crate) algorithm: Option<String>,
}

impl Scscf {
    pub(crate) fn on_register(&mut self, tx: ServerTx, message: &Message, ctx: &mut Ctx<'_>) -> Result<(), Refusal> {
        let limits = &self.config.limits;
        if self.waiting.len() >= limits.max_pending {
            return Err(Refusal::Full("limits.max_pending"));
        }
        if self.auth.len() >= limits.max_challenges {
            return Err(Refusal::Full("limits.max_challenges"));
        }
        check_extensions(message)?;
        let (attempt, given) = self.read(tx, message)?;
        if let Some(known) = self.registrar.find(&attempt.impi, &attempt.impu) {
            known.after(&attempt.wish, ctx.now, &self.config.registration)?;
        } else if self.registrar.len() >= limits.max_registrations && !attempt.wish.leaves() {
            return Err(Refusal::Full("limits.max_registrations"));
        }
        match given {
            Some(given) if self.auth.has(&attempt.impi, &attempt.impu, &given.nonce) => {
                self.on_challenge_answer(attempt, &given, ctx)
            }
            Some(given) if self.nonces.has(&attempt.impi, &given.nonce) => self.on_known_nonce(attempt, given, ctx),
            _ if attempt.is_protected && !self.must_authenticate(&attempt, ctx.now) => self.on_believed(attempt, ctx),
            given => {
                self.ask_vector(attempt, given, None, 0, ctx);
                Ok(())
            }
        }
    }

    fn read(&self, tx: ServerTx, message: &Message) -> Result<(Attempt, Option<Given>), Refusal> {
        let to: To<'_> = message.require().map_err(malformed)?;
        let impu = Impu::parse(to.uri).map_err(|e| Refusal::Malformed(format!("To: {e}")))?;
        let authorization: Option<Authorization<'_>> = message.first().map_err(malformed)?;
        let authorization = authorization.filter(|a| a.is_digest());
        let get = |name: &str| authorization.as_ref().and_then(|a| a.get(name)).map(|v| v.into_owned());
        let impi = match get("username").filter(|name| !name.is_empty()) {
            Some(name) => Impi::parse(&name).map_err(|e| Refusal::Malformed(format!("Authorization username: {e}")))?,
            None if !self.config.registration.derive_private_identity => return Err(Refusal::NoPrivateIdentity),
            None => Impi::from_impu(&impu).ok_or(Refusal::NoPrivateIdentity)?,
        };
        let given = get("nonce").filter(|nonce| !nonce.is_empty()).map(|nonce| Given {
            nonce,
            uri: get("uri").unwrap_or_default(),
            response: get("response").unwrap_or_default(),
            qop: get("qop"),
            nc: get("nc"),
            cnonce: get("cnonce"),
            auts: get("auts"),
            algorithm: get("algorithm"),
        });
        let protection = get("integrity-protected").unwrap_or_default();
        let attempt = Attempt {
            tx,
            message: message.clone(),
            impi,
            impu,
            wish: Wish::read(message, &self.config.registration)?,
            is_protected: protection.eq_ignore_ascii_case("yes"),
            is_aka: ["yes", "no"].iter().any(|v| protection.eq_ignore_ascii_case(v)),
            algorithm: get("algorithm").and_then(|token| DigestAlgorithm::from_token(&token)),
            proof: None,
            authentic_since: None,
        };
        Ok((attempt, given))
    }

    pub(crate) fn on_authenticated(&mut self, mut attempt: Attempt, ctx: &mut Ctx<'_>) -> Result<(), Refusal> {
        attempt.authentic_since = Some(ctx.now);
        self.on_believed(attempt, ctx)
    }

    /// 5.4.1.2.2 and 5.4.1.4: the HSS hears of it first, unless contacts of the user remain.
    fn on_believed(&mut self, attempt: Attempt, ctx: &mut Ctx<'_>) -> Result<(), Refusal> {
        let rules = &self.config.registration;
        let kind = match self.registrar.find(&attempt.impi, &attempt.impu) {
            Some(known) => {
                let bindings = known.after(&attempt.wish, ctx.now, rules)?;
                let is_query = matches!(attempt.wish.contacts, Contacts::Query);
                if is_query || (attempt.wish.leaves() && !bindings.is_empty()) {
                    self.store_and_answer(Registration { bindings, ..known.clone() }, &attempt, ctx);
                    return Ok(());
                }
                if bindings.is_empty() {
                    ServerAssignmentType::UserDeregistration
                } else {
                    ServerAssignmentType::ReRegistration
                }
            }
            None if attempt.wish.leaves() || matches!(attempt.wish.contacts, Contacts::Query) => {
                // Nothing is registered, but after our MAR the HSS holds our name for this user.
                ServerAssignmentType::UserDeregistration
            }
            None => ServerAssignmentType::Registration,
        };
        let sar = self.sar(&attempt.impi, &attempt.impu, kind);
        let id = self.cx.send_request(sar.to_message(), &self.config.hss(), ctx);
        self.waiting.insert(id, Waiting::Saa { attempt: Box::new(attempt), kind });
        Ok(())
    }

    pub(crate) fn on_saa(
        &mut self,
        attempt: Attempt,
        kind: ServerAssignmentType,
        answer: Result<&ims_diameter::Message, RequestFailure>,
        ctx: &mut Ctx<'_>,
    ) {
        if kind == ServerAssignmentType::UserDeregistration {
            return self.on_deregistered(&attempt, answer, ctx);
        }
        let result = read_saa(answer).and_then(|saa| self.registered(&attempt, saa, ctx));
        match result {
            Ok(registration) => self.store_and_answer(registration, &attempt, ctx),
            Err(refusal) => self.refuse(attempt.tx, &attempt.message, &refusal, ctx),
        }
    }

    /// 5.4.1.2.2 steps after a successful SAA: the profile, and the bindings under it.
    fn registered(&mut self, attempt: &Attempt, saa: Saa, ctx: &mut Ctx<'_>) -> Result<Registration, Refusal> {
        if !saa.result.is_success() {
            return Err(refused("SAR", &attempt.impu, saa.result));
        }
        let known = self.registrar.find(&attempt.impi, &attempt.impu);
        let since = attempt.authentic_since.or(known.map(|r| r.authenticated_at)).unwrap_or(ctx.now);
        let registration = match (saa.user_data, known) {
            (Some(xml), known) => {
                let profile = Profile::parse(&xml, saa.charging).map_err(|e| e.to_string());
                let bindings = known.map(|r| r.bindings.clone()).unwrap_or_default();
                profile.map(|p| Registration {
                    bindings,
                    ..Registration::new(attempt.impi.clone(), attempt.impu.clone(), p, since)
                })
            }
            (None, Some(known)) => Ok(Registration { authenticated_at: since, ..known.clone() }),
            (None, None) => Err("it has no User-Data, and none came before".to_owned()),
        };
        let usable = registration.map_err(|what| Refusal::HssAnswer { command: "SAR", what }).and_then(|mut r| {
            // Help may be called for by who may nothing else (5.4.8.2).
            if !attempt.wish.is_emergency() && r.profile.usable().next().is_none() {
                return Err(Refusal::AllBarred(attempt.impu.clone()));
            }
            r.bindings = r.after(&attempt.wish, ctx.now, &self.config.registration)?;
            Ok(r)
        });
        if usable.is_err() && known.is_none() {
            // The HSS believes now that we serve this user.
            let kind = ServerAssignmentType::AdministrativeDeregistration;
            self.tell_hss(&attempt.impi, &attempt.impu, kind, ctx);
        }
        usable
    }

    /// 5.4.1.4: who wants to go has gone, whatever the HSS thinks of it.
    fn on_deregistered(
        &mut self,
        attempt: &Attempt,
        answer: Result<&ims_diameter::Message, RequestFailure>,
        ctx: &mut Ctx<'_>,
    ) {
        let problem = match read_saa(answer) {
            Ok(saa) if saa.result.is_success() => None,
            Ok(saa) => Some(refused("SAR", &attempt.impu, saa.result)),
            Err(refusal) => Some(refusal),
        };
        if let Some(refusal) = problem {
            self.count(refusal.name());
            tracing::warn!(impu = ?attempt.impu, "de-registered here, but not in the HSS: {refusal}");
        }
        // It may have registered again while the HSS was asked: then the newer bindings stay.
        let rules = &self.config.registration;
        match self.registrar.find(&attempt.impi, &attempt.impu).cloned() {
            Some(known) => {
                let bindings = known.after(&attempt.wish, ctx.now, rules).unwrap_or_else(|_| known.bindings.clone());
                self.store_and_answer(Registration { bindings, ..known }, attempt, ctx);
            }
            None => {
                self.outcomes.count("deregistered");
                let mut answer = Message::response(&attempt.message, 200, Some(&ctx.rng.token(10)));
                answer.copy(Name::Path, &attempt.message);
                write_proof(&mut answer, attempt);
                self.sip.respond(attempt.tx, answer, ctx);
            }
        }
    }

    fn store_and_answer(&mut self, registration: Registration, attempt: &Attempt, ctx: &mut Ctx<'_>) {
        if attempt.message.has_token(Name::Supported, "gruu") {
            ctx.actions.extend(self.temporary_gruus.prepare(ctx.rng).map(ims_core::Action::Put));
        }
        let answer = self.ok(&registration, attempt, ctx);
        let was_registered = self.registrar.find(&attempt.impi, &attempt.impu).is_some();
        let (impu, impi, contacts) = (&attempt.impu, &attempt.impi, registration.bindings.len());
        self.outcomes.count(match (was_registered, contacts) {
            _ if matches!(attempt.wish.contacts, Contacts::Query) => "queried",
            (_, 0) => "deregistered",
            (false, _) => "registered",
            (true, _) => "refreshed",
        });
        match (was_registered, contacts) {
            (false, 0) => {}
            (false, _) => tracing::info!(?impu, ?impi, contacts, protected = attempt.is_protected, "registered"),
            (true, 0) => tracing::info!(?impu, ?impi, "de-registered by the user"),
            (true, _) => tracing::debug!(?impu, ?impi, contacts, "registration changed"),
        }
        let changed = self.registrar.store(registration, ctx.actions);
        self.forget_password_if_gone(&attempt.impi);
        let tellings = match &changed {
            Some(Changed { id, before }) => {
                self.third_parties(before.as_ref(), self.registrar.by_id(*id), attempt, &answer, ctx)
            }
            None => {
                let same = self.registrar.find(impi, impu);
                self.third_parties(same, same, attempt, &answer, ctx)
            }
        };
        self.sip.respond(attempt.tx, answer, ctx);
        if let Some(Changed { id, before }) = changed {
            self.on_registration_changed(before.as_ref(), id, Why::ByUser, ctx);
        }
        self.tell_third_parties(tellings, ctx);
    }

    /// Parameters of a Contact that is given back.
    fn gruus(&self, registration: &Registration, binding: &Binding, aor: &Impu, ctx: &mut Ctx<'_>) -> String {
        let Some(public) = binding.contact.instance().and_then(|instance| gruu::public(aor, instance)) else {
            return String::new();
        };
        let id = self.registrar.number_of(registration);
        match self.temporary_gruus.user(id, binding, ctx.rng) {
            Some(user) => format!(";pub-gruu=\"{public}\";temp-gruu=\"{}\"", self.me.temporary_gruu(&user)),
            None => format!(";pub-gruu=\"{public}\""),
        }
    }

    /// 5.4.1.2.2F: what a 200 to REGISTER holds.
    fn ok(&self, registration: &Registration, attempt: &Attempt, ctx: &mut Ctx<'_>) -> Message {
        let request = &attempt.message;
        let mut answer = Message::response(request, 200, Some(&ctx.rng.token(10)));
        answer.copy(Name::Path, request);
        write_proof(&mut answer, attempt);
        let has_gruu = request.has_token(Name::Supported, "gruu");
        for binding in &registration.bindings {
            let contact = &binding.contact;
            let expires = binding.expires_in(ctx.now);
            // RFC 5627 5.3: to a UE that knows what to do with it.
            let gruus = if has_gruu { self.gruus(registration, binding, &attempt.impu, ctx) } else { String::new() };
            answer.push_back(Name::Contact, format!("<{}>{}{gruus};expires={expires}", contact.uri, contact.params));
        }
        if registration.bindings.is_empty() {
            return answer;
        }
        answer.set(Name::ServiceRoute, self.me.service_route());
        for impu in registration.profile.usable() {
            answer.push_back(Name::PAssociatedUri, format!("<{impu}>"));
        }
        if attempt.wish.is_outbound {
            answer.set(Name::Require, "outbound");
        }
        self.write_charging(&mut answer, registration, request);
        answer
    }

    /// 5.4.1.2.2F and 4.5: charging correlation back to the P-CSCF, and the addresses of charging functions to one of our
    /// own network only.
    fn write_charging(&self, answer: &mut Message, registration: &Registration, request: &Message) {
        if let Ok(Some(mut vector)) = request.first::<PChargingVector<'_>>() {
            vector.term_ioi = Some(&self.config.domain);
            answer.set(Name::PChargingVector, vector);
        }
        let visited = request.first::<PVisitedNetworkId<'_>>().ok().flatten();
        let at_home = visited.is_none_or(|v| v.network.eq_ignore_ascii_case(&self.config.domain));
        if let Some(addresses) = charging_functions(&registration.profile).filter(|_| at_home) {
            answer.set(Name::PChargingFunctionAddresses, addresses);
        }
    }
}

/// P-Charging-Function-Addresses, for elements of our own network.
pub(crate) fn charging_functions(profile: &Profile) -> Option<String> {
    let charging = profile.charging.as_ref()?;
    let functions = [
        ("ccf", &charging.primary_ccf),
        ("ccf", &charging.secondary_ccf),
        ("ecf", &charging.primary_ecf),
        ("ecf", &charging.secondary_ecf),
    ];
    let given = functions.iter().filter_map(|(name, uri)| {
        let uri = uri.as_ref().filter(|u| u.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\')))?;
        Some(format!("{name}=\"{uri}\""))
    });
    Some(given.collect::<Vec<_>>().join(";")).filter(|value| !value.is_empty())
}

fn write_proof(answer: &mut Message, attempt: &Attempt) {
    if let Some(proof) = &attempt.proof {
        answer.set(Name::AuthenticationInfo, proof);
    }
}

/// RFC 3261 8.2.2.3.
fn check_extensions(message: &Message) -> Result<(), Refusal> {
    let known = |tag: &&str| EXTENSIONS.iter().any(|e| e.eq_ignore_ascii_case(tag));
    let unknown: Vec<String> =
        message.tokens(Name::Require).iter().filter(|t| !known(t)).map(ToString::to_string).collect();
    if unknown.is_empty() { Ok(()) } else { Err(Refusal::BadExtension(unknown)) }
}

fn malformed(error: HeaderError) -> Refusal {
    Refusal::Malformed(error.to_string())
}
