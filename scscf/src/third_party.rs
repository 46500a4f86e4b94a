//! Third-party registration (TS 24.229 5.4.1.7, 5.4.1.7A): application servers whose criteria a REGISTER meets are told of it by a
//! REGISTER of ours, and again when the user refreshes or goes.
//!
//! One such REGISTER for an identity is on its way to a server at a time: the one that follows waits for its answer, so that
//! the server hears of things in their order. Nothing is remembered of a registration beyond that.

use crate::Scscf;
use crate::own::Own;
use crate::reginfo::{Happened, Xml};
use crate::register::{Attempt, charging_functions};
use crate::registrar::Registration;
use crate::wish::Contacts;
use ims_core::uri::Uri;
use ims_core::{Ctx, Impi, Impu};
use ims_sip::endpoint::ClientFailure;
use ims_sip::headers::{PChargingVector, Params};
use ims_sip::{Message, Name};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use xml_ifc::trigger::{RegistrationType, RequestView};
use xml_ifc::{ApplicationServer, DefaultHandling};

/// How long a UE is to stay away whose application server does not take it: so many seconds, and as many more by chance.
const STAY_AWAY: u32 = 30;

/// A REGISTER to an application server, not yet sent.
pub(crate) struct Telling {
    told: Told,
    message: Message,
}

/// What the answer goes on with.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    /// Of the registration.
    impi: Impi,
    impu: Impu,
    /// Who is registered, as the server hears it.
    to: Impu,
    server: Box<str>,
    kind: RegistrationType,
    handling: DefaultHandling,
}

/// By identity and server: who is being told, and what follows.
#[derive(Default)]
pub(crate) struct ThirdParties(BTreeMap<(Impu, Box<str>), Option<Box<Telling>>>);

impl ThirdParties {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// The REGISTER that servers are told of.
#[derive(Clone, Copy)]
struct Occasion<'a> {
    /// As the UE sent it, or as it might have (5.4.1.5).
    request: &'a Message,
    /// Our answer; None: there was no UE.
    response: Option<&'a Message>,
    kind: RegistrationType,
    expires: u64,
}

impl Scscf {
    /// The REGISTERs that follow one of a UE: `before` and `after` are its registration. None when other contacts of it remain, or
    /// nothing was to change; nor for emergencies (5.4.8), which no service has a part in.
    pub(crate) fn third_parties(
        &self,
        before: Option<&Registration>,
        after: Option<&Registration>,
        attempt: &Attempt,
        response: &Message,
        ctx: &mut Ctx<'_>,
    ) -> Vec<Telling> {
        let (before, after) = (before.filter(|r| r.is_ordinary()), after.filter(|r| r.is_ordinary()));
        let (kind, registration) = match (before, after) {
            _ if attempt.wish.is_emergency() => return Vec::new(),
            _ if matches!(attempt.wish.contacts, Contacts::Query) => return Vec::new(),
            (None, None) => return Vec::new(),
            (Some(before), None) => (RegistrationType::Deregistration, before),
            (Some(_), Some(_)) if attempt.wish.leaves() => return Vec::new(),
            (Some(_), Some(after)) => (RegistrationType::Reregistration, after),
            (None, Some(after)) => (RegistrationType::Initial, after),
        };
        let granted = after.into_iter().flat_map(Registration::ordinary).map(|b| b.expires_in(ctx.now)).max();
        let (request, response, expires) = (&attempt.message, Some(response), granted.unwrap_or(0));
        self.tellings(registration, Occasion { request, response, kind, expires }, ctx)
    }

    /// A registration has ended and no UE asked for it: servers hear what they would if it had (5.4.1.5, 5.4.1.6).
    pub(crate) fn tell_third_parties_of_end(&mut self, gone: &Registration, ctx: &mut Ctx<'_>) {
        if !gone.is_ordinary() {
            return;
        }
        let request = farewell(gone, &self.config.domain);
        let kind = RegistrationType::Deregistration;
        let occasion = Occasion { request: &request, response: None, kind, expires: 0 };
        let tellings = self.tellings(gone, occasion, ctx);
        self.tell_third_parties(tellings, ctx);
    }

    /// Each server once for each service profile of the set.
    fn tellings(&self, registration: &Registration, occasion: Occasion<'_>, ctx: &mut Ctx<'_>) -> Vec<Telling> {
        let mut tellings: Vec<Telling> = Vec::new();
        let view = RequestView::register(occasion.request, occasion.kind);
        for (to, criteria) in registration.profile.by_service(&registration.impu) {
            for (_, ifc) in criteria.matches(&view) {
                let server = &ifc.server;
                if tellings.iter().any(|t| t.told.to == to && *t.told.server == *server.server_name) {
                    continue;
                }
                if !Uri::parse(&server.server_name).is_ok_and(|uri| uri.is_sip()) {
                    tracing::warn!(
                        server = server.server_name,
                        "an application server is to be told of registrations, and is no SIP URI"
                    );
                    continue;
                }
                let told = Told {
                    impi: registration.impi.clone(),
                    impu: registration.impu.clone(),
                    to: to.clone(),
                    server: server.server_name.as_str().into(),
                    kind: occasion.kind,
                    handling: server.default_handling,
                };
                let message = self.third_party_register(registration, &to, server, occasion, ctx);
                tellings.push(Telling { told, message });
            }
        }
        tellings
    }

    fn third_party_register(
        &self,
        registration: &Registration,
        to: &Impu,
        server: &ApplicationServer,
        occasion: Occasion<'_>,
        ctx: &mut Ctx<'_>,
    ) -> Message {
        let mut message = Message::request("REGISTER", &server.server_name);
        let name = self.config.name();
        message.set(Name::MaxForwards, 70);
        message.set(Name::From, format_args!("<{name}>;tag={}", ctx.rng.token(10)));
        message.set(Name::To, format_args!("<{to}>"));
        message.set(Name::CallId, ctx.rng.token(20));
        message.set(Name::CSeq, "1 REGISTER");
        message.set(Name::Contact, format_args!("<{name}>"));
        message.set(Name::Expires, occasion.expires);
        message.copy(Name::PAccessNetworkInfo, occasion.request);
        message.copy(Name::PVisitedNetworkId, occasion.request);
        let fresh = ctx.rng.token(20);
        let known = occasion.request.first::<PChargingVector<'_>>().ok().flatten();
        let vector = PChargingVector {
            icid_value: known.map_or(&fresh, |v| v.icid_value),
            icid_generated_at: known.and_then(|v| v.icid_generated_at),
            orig_ioi: Some(&self.config.domain),
            term_ioi: None,
            params: Params::default(),
        };
        message.set(Name::PChargingVector, vector);
        if let Some(addresses) = charging_functions(&registration.profile) {
            message.set(Name::PChargingFunctionAddresses, addresses);
        }
        write_body(&mut message, server, occasion, ctx);
        message
    }

    pub(crate) fn tell_third_parties(&mut self, tellings: Vec<Telling>, ctx: &mut Ctx<'_>) {
        for telling in tellings {
            match self.third_parties.0.entry((telling.told.to.clone(), telling.told.server.clone())) {
                // What waits is overtaken: a server is told how things are.
                Entry::Occupied(mut waiting) => drop(waiting.insert(Some(Box::new(telling)))),
                Entry::Vacant(free) => {
                    free.insert(None);
                    self.tell_third_party(telling, ctx);
                }
            }
        }
    }

    fn tell_third_party(&mut self, Telling { told, message }: Telling, ctx: &mut Ctx<'_>) {
        let next = ims_sip::proxy::next_hop(&message);
        self.send_own(message, next, Own::ThirdParty(Box::new(told)), ctx);
    }

    /// 5.4.1.7: a server that does not answer, or cannot, is passed over; or the user goes without it, when its criterion says so.
    pub(crate) fn on_third_party_answer(
        &mut self,
        told: Told,
        answer: Result<&Message, ClientFailure>,
        ctx: &mut Ctx<'_>,
    ) {
        let key = (told.to.clone(), told.server.clone());
        if let Some(next) = self.third_parties.0.remove(&key).flatten() {
            self.third_parties.0.insert(key, None);
            self.tell_third_party(*next, ctx);
        }
        let status = answer.map_or_else(ClientFailure::status, Message::status);
        let server = &*told.server;
        // Too much to do here says nothing of the server.
        let has_failed = matches!(status, 300..400 | 408 | 480 | 500..600);
        match answer {
            Err(ClientFailure::Overloaded) => self.count("third-party-not-sent"),
            _ if status < 300 => {}
            _ if !has_failed => {
                self.count("third-party-refused");
                tracing::info!(server, status, "an application server wants no part in a registration");
            }
            _ => {
                self.count("third-party-failed");
                tracing::warn!(server, status, "an application server could not be told of a registration");
                let goes = told.handling == DefaultHandling::SessionTerminated;
                if goes && told.kind != RegistrationType::Deregistration {
                    let wait = STAY_AWAY + ctx.rng.below(STAY_AWAY.into()) as u32;
                    self.deregister(&told.impi, &told.impu, Happened::Probation(wait), "ended-by-server", ctx);
                }
            }
        }
    }
}

/// The REGISTER with which a UE would have ended all of this.
fn farewell(gone: &Registration, domain: &str) -> Message {
    let mut message = Message::request("REGISTER", &format!("sip:{domain}"));
    message.set(Name::From, format_args!("<{}>", gone.impu));
    message.set(Name::To, format_args!("<{}>", gone.impu));
    for binding in gone.ordinary() {
        let contact = &binding.contact;
        message.push_back(Name::Contact, format_args!("<{}>{};expires=0", contact.uri, contact.params));
    }
    message.set(Name::Expires, 0);
    message
}

/// What the criterion asks for: data of the HSS, the UE's REGISTER, our answer to it; one by itself, or several as parts.
fn write_body(message: &mut Message, server: &ApplicationServer, occasion: Occasion<'_>, ctx: &mut Ctx<'_>) {
    let from_ue = |wanted: bool| occasion.response.filter(|_| wanted);
    let mut parts: Vec<(&str, Vec<u8>)> = Vec::new();
    let is_registered = occasion.kind != RegistrationType::Deregistration;
    if let Some(info) = server.service_info.as_ref().filter(|_| is_registered) {
        let xml = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ims-3gpp version=\"1\"><service-info>{}</service-info></ims-3gpp>\n",
            Xml(info)
        );
        parts.push(("application/3gpp-ims+xml", xml.into_bytes()));
    }
    if from_ue(server.include_register_request).is_some() {
        parts.push(("message/sip", occasion.request.to_bytes().to_vec()));
    }
    if let Some(response) = from_ue(server.include_register_response) {
        parts.push(("message/sip", response.to_bytes().to_vec()));
    }
    match &parts[..] {
        [] => message.set_body("", b""),
        [(kind, body)] => message.set_body(kind, body),
        several => {
            let boundary = ctx.rng.token(24);
            let mut body = Vec::new();
            for (kind, part) in several {
                body.extend(format!("--{boundary}\r\nContent-Type: {kind}\r\n\r\n").into_bytes());
                body.extend(part);
                body.extend(b"\r\n");
            }
            body.extend(format!("--{boundary}--\r\n").into_bytes());
            message.set(Name::MimeVersion, "1.0");
            message.set_body(&format!("multipart/mixed;boundary=\"{boundary}\""), &body);
        }
    }
}
