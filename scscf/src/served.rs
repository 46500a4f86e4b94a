//! Who is served by an initial request, and how (TS 24.229 5.4.3.1 to 5.4.3.3): the session case, the profile that counts, barring,
//! and what the S-CSCF vouches for.

use crate::chain::Chain;
use crate::me::{Marker, Side};
use crate::profile::{Profile, read_saa, refused};
use crate::registrar::Registration;
use crate::session::{Passing, Stage, Step};
use crate::{Refusal, Scscf, Waiting};
use ims_core::uri::{Scheme, Uri};
use ims_core::{Ctx, Impu};
use ims_diameter::cx::{ResultCode, Sar, ServerAssignmentType};
use ims_diameter::endpoint::RequestFailure;
use ims_sip::endpoint::ServerTx;
use ims_sip::headers::{PAssertedIdentity, PServedUser};
use ims_sip::{Message, Name};
use xml_ifc::trigger::SessionCase;

/// On whose behalf a request is worked on.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    pub(crate) impu: Impu,
    pub(crate) case: SessionCase,
    pub(crate) profile: Profile,
}

impl Served {
    pub(crate) fn side(&self) -> Side {
        if self.case.is_originating() { Side::Originating } else { Side::Terminating }
    }
}

fn unregistered(side: Side) -> SessionCase {
    match side {
        Side::Originating => SessionCase::OriginatingUnregistered,
        Side::Terminating => SessionCase::TerminatingUnregistered,
    }
}

impl Scscf {
    /// 5.4.3.2: the served user is the one of P-Served-User, else of P-Asserted-Identity. Both come from elements that we
    /// trust: a P-CSCF takes them off what a UE sends.
    pub(crate) fn on_originating(
        &mut self,
        tx: ServerTx,
        request: Message,
        marker: &Marker,
        ctx: &mut Ctx<'_>,
    ) -> Result<(), Refusal> {
        let callers = callers(&request)?;
        let first = callers.first().ok_or(Refusal::NoCaller)?;
        let registered = callers.iter().find_map(|impu| Some((impu, self.registrar.of_impu(impu).next()?)));
        match registered {
            Some((impu, registration)) => {
                let profile = registration.profile.clone();
                let served = Served { impu: impu.clone(), case: SessionCase::Originating, profile };
                self.begin(tx, request, served, ctx)
            }
            // It believes that it is registered here.
            None if *marker == Marker::ServiceRoute => Err(Refusal::CallerNotRegistered(first.clone())),
            None => self.begin_unregistered(tx, request, first.clone(), Side::Originating, ctx),
        }
    }

    /// 5.4.3.3: the served user is the one of the Request-URI.
    pub(crate) fn on_terminating(&mut self, tx: ServerTx, request: Message, ctx: &mut Ctx<'_>) -> Result<(), Refusal> {
        let uri = Uri::parse(request.uri()).map_err(|e| Refusal::Malformed(format!("Request-URI: {e}")))?;
        if self.me.is_me(&uri) {
            let named = self.temporary_gruus.read(request.uri()).ok_or(Refusal::NoUser)?;
            let registration = self.registrar.by_id(named.id);
            let fits = |r: &&Registration| r.bindings.iter().any(|b| self.temporary_gruus.is_of(&named, b));
            let registration = registration.filter(fits).ok_or(Refusal::NoUser)?;
            let (impu, profile) = (registration.impu.clone(), registration.profile.clone());
            return self.begin(tx, request, Served { impu, case: SessionCase::Terminating, profile }, ctx);
        }
        let impu = Impu::from_uri(&uri).ok_or(Refusal::NoUser)?;
        let alias = number_alias(&uri).filter(|alias| *alias != impu);
        let found = [Some(&impu), alias.as_ref()].into_iter().flatten().find_map(|impu| {
            let registration = self.registrar.of_impu(impu).next()?;
            Some((impu.clone(), registration.profile.clone()))
        });
        match found {
            Some((impu, profile)) => {
                self.begin(tx, request, Served { impu, case: SessionCase::Terminating, profile }, ctx)
            }
            None => self.begin_unregistered(tx, request, impu, Side::Terminating, ctx),
        }
    }

    fn begin_unregistered(
        &mut self,
        tx: ServerTx,
        request: Message,
        impu: Impu,
        side: Side,
        ctx: &mut Ctx<'_>,
    ) -> Result<(), Refusal> {
        if let Some(profile) = self.unregistered.find(&impu).cloned() {
            return self.begin(tx, request, Served { impu, case: unregistered(side), profile }, ctx);
        }
        if self.waiting.len() >= self.config.limits.max_pending {
            return Err(Refusal::Full("limits.max_pending"));
        }
        let sar = Sar {
            impi: None,
            impus: vec![impu.clone()],
            server_name: self.config.name(),
            kind: ServerAssignmentType::UnregisteredUser,
            data_already_available: false,
            wildcarded: None,
        };
        let id = self.cx.send_request(sar.to_message(), &self.config.hss(), ctx);
        self.waiting.insert(id, Waiting::Unregistered { tx, impu, side });
        self.relay.open(
            tx,
            request,
            Passing { side: Some(side), stage: Some(Box::new(Stage { chain: None, step: Step::Begun })) },
        );
        Ok(())
    }

    pub(crate) fn on_unregistered_profile(
        &mut self,
        tx: ServerTx,
        impu: Impu,
        side: Side,
        answer: Result<&ims_diameter::Message, RequestFailure>,
        ctx: &mut Ctx<'_>,
    ) {
        let mut result = read_profile(&impu, answer);
        if let Ok(profile) = &mut result {
            self.registrar.share(profile);
            let (until, most) = (ctx.now + self.config.timers.unregistered.0, self.config.limits.max_unregistered);
            self.unregistered.keep(&impu, profile.clone(), until, most);
        }
        // Its CANCEL may have come meanwhile.
        let Some(passage) = self.relay.close(tx) else { return };
        // Or its REGISTER.
        let (case, profile) = match self.registrar.of_impu(&impu).next() {
            Some(registration) if side == Side::Originating => {
                (SessionCase::Originating, Ok(registration.profile.clone()))
            }
            Some(registration) => (SessionCase::Terminating, Ok(registration.profile.clone())),
            None => (unregistered(side), result),
        };
        let request = passage.request;
        let begun = profile.and_then(|profile| self.begin(tx, request.clone(), Served { impu, case, profile }, ctx));
        if let Err(refusal) = begun {
            self.refuse(tx, &request, &refusal, ctx);
        }
    }

    /// The served user is known.
    fn begin(&mut self, tx: ServerTx, mut request: Message, served: Served, ctx: &mut Ctx<'_>) -> Result<(), Refusal> {
        let side = served.side();
        if served.profile.is_barred(&served.impu) {
            return Err(match side {
                Side::Originating => Refusal::BarredCaller(served.impu),
                Side::Terminating => Refusal::BarredCallee(served.impu),
            });
        }
        if side == Side::Originating {
            self.assert_service(&mut request)?;
            assert_alias(&mut request, &served.impu, &served.profile);
            self.write_orig_ioi(&mut request, ctx);
        }
        request.remove(Name::PServedUser);
        self.enter(tx, request, Chain::of(served), ctx);
        Ok(())
    }

    /// 5.4.3.2: the service that the user asks for becomes one that we vouch for, if it may be used.
    fn assert_service(&self, request: &mut Message) -> Result<(), Refusal> {
        let Some(wanted) = request.text(Name::PPreferredService).map(|text| text.trim().to_owned()) else {
            return Ok(());
        };
        request.remove(Name::PPreferredService);
        let allowed = &self.config.sessions.services;
        let covers = |service: &String| match wanted.get(..service.len()) {
            Some(head) if head.eq_ignore_ascii_case(service) => {
                matches!(wanted.as_bytes().get(service.len()), None | Some(b'.'))
            }
            _ => false,
        };
        if !allowed.is_empty() && !allowed.iter().any(covers) {
            return Err(Refusal::ServiceNotAllowed(wanted));
        }
        request.set(Name::PAssertedService, wanted);
        Ok(())
    }
}

/// Who sends the request, by what those before us vouch for.
fn callers(request: &Message) -> Result<Vec<Impu>, Refusal> {
    let malformed = |e: ims_sip::HeaderError| Refusal::Malformed(e.to_string());
    if let Some(served) = request.first::<PServedUser<'_>>().map_err(malformed)? {
        let impu = Impu::parse(served.uri).map_err(|e| Refusal::Malformed(format!("P-Served-User: {e}")))?;
        return Ok(vec![impu]);
    }
    let asserted = request.each::<PAssertedIdentity<'_>>().filter_map(Result::ok);
    Ok(asserted.filter_map(|identity| Impu::parse(identity.uri).ok()).take(4).collect())
}

/// 5.4.3.2 and 5.4.3.3: a second P-Asserted-Identity, tel beside SIP or SIP beside tel.
pub(crate) fn assert_alias(message: &mut Message, impu: &Impu, profile: &Profile) {
    let alias = {
        let mut asserted = message.each::<PAssertedIdentity<'_>>().filter_map(Result::ok);
        match (asserted.next(), asserted.next()) {
            (Some(one), None) if Impu::parse(one.uri).is_ok_and(|one| one == *impu) => {
                profile.alias(impu).map(ToString::to_string)
            }
            _ => None,
        }
    };
    if let Some(alias) = alias {
        message.push_back(Name::PAssertedIdentity, format!("<{alias}>"));
    }
}

/// `sip:+1555@domain;user=phone` names the same as `tel:+1555`.
pub(crate) fn number_alias(uri: &Uri<'_>) -> Option<Impu> {
    let number = uri.user().filter(|user| uri.scheme() == Scheme::Sip && user.starts_with('+'))?;
    let number = number.split_once(';').map_or(number, |(number, _)| number);
    Impu::parse(&format!("tel:{number}")).ok()
}

fn read_profile(impu: &Impu, answer: Result<&ims_diameter::Message, RequestFailure>) -> Result<Profile, Refusal> {
    let saa = read_saa(answer)?;
    if saa.result == ResultCode::USER_UNKNOWN {
        return Err(Refusal::UnknownUser(impu.clone()));
    }
    if !saa.result.is_success() {
        return Err(refused("SAR", impu, saa.result));
    }
    let xml = saa.user_data.ok_or_else(|| Refusal::HssAnswer { command: "SAR", what: "it has no User-Data".into() })?;
    Profile::parse(&xml, saa.charging).map_err(|e| Refusal::HssAnswer { command: "SAR", what: e.to_string() })
}
