//! Emergency calls (TS 24.229 5.2.10, TS 23.167): known by their URN or by a number of the configuration, never held up by a limit
//! of ours, and on a way of their own: to the E-CSCF or PSAP that is configured, past Service-Route and S-CSCF. Where there is
//! none, or the policy wants an emergency registration first, the handset is told so (380).

use crate::config::invalid;
use crate::contacts::{Access, Binding, RegId, Registration};
use crate::register::Inbound;
use crate::{Pcscf, Refusal, Timer, routes};
use ims_core::config::ConfigError;
use ims_core::uri::{Scheme, Uri};
use ims_core::{Ctx, Impi, Impu};
use ims_sip::headers::Contact;
use ims_sip::{Message, Method, Name};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Who calls without being registered (RFC 3323 4.1.1.3).
pub(crate) const ANONYMOUS: &str = "anonymous@anonymous.invalid";
/// What a 380 has as its body (TS 24.229 7.6).
pub(crate) const ALTERNATIVE: &str = "application/3gpp-ims+xml";

/// TS 24.229 5.2.10.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Emergency {
    /// Where emergency calls go: the URI of an E-CSCF with "lr", such as "sip:ecscf.ims.example;lr", or that of a PSAP. Empty: nowhere,
    /// and the handset is told to call in another way (380).
    pub route: String,
    /// What is dialled for help, and the emergency service that it means (RFC 5031). urn:service:sos itself is always understood.
    pub numbers: BTreeMap<String, String>,
    /// Of a handset with an ordinary registration.
    pub registered: EmergencyPolicy,
    /// Whether a handset that is not registered at all may call, without IPsec.
    pub unregistered: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EmergencyPolicy {
    /// The call goes on.
    Route,
    /// The handset is asked for an emergency registration first.
    Register,
}

impl Default for Emergency {
    fn default() -> Self {
        Self {
            route: String::new(),
            // TS 22.101 10.1.
            numbers: ["112", "911"].map(|number| (number.to_owned(), "urn:service:sos".to_owned())).into(),
            registered: EmergencyPolicy::Route,
            unregistered: false,
        }
    }
}

impl Emergency {
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let refuse = |wrong: bool, reason: &str| if wrong { Err(invalid(reason.into())) } else { Ok(()) };
        let is_sip = self.route.is_empty() || Uri::parse(&self.route).is_ok_and(|uri| uri.is_sip());
        refuse(!is_sip, "emergency.route: a SIP URI such as sip:ecscf.ims.example;lr, or nothing")?;
        let is_sos = |urn: &String| {
            let service = urn.strip_prefix("urn:service:sos");
            service.is_some_and(|s| s.is_empty() || s.starts_with('.')) && Uri::parse(urn).is_ok()
        };
        refuse(!self.numbers.values().all(is_sos), "emergency.numbers: a number means urn:service:sos or one below it")
    }
}

/// What a handset is asked to do instead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Instead {
    /// Another domain or network: nobody takes emergency calls here.
    Elsewhere,
    /// Register for emergencies, and call then.
    EmergencyRegistration,
}

impl Instead {
    /// TS 24.229 7.6.2, 7.6.3.
    pub(crate) fn body(self) -> String {
        let action = match self {
            Self::Elsewhere => "",
            Self::EmergencyRegistration => "<action>emergency-registration</action>",
        };
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ims-3gpp version=\"1\"><alternative-service><type>emergency</type>\
             <reason/>{action}</alternative-service></ims-3gpp>"
        )
    }
}

/// The emergency service that a Request-URI asks for: its URN (RFC 5031), or that of a number of the configuration.
pub(crate) fn service<'c>(uri: &str, config: &'c Emergency) -> Option<std::borrow::Cow<'c, str>> {
    let parsed = Uri::parse(uri).ok()?;
    match parsed.scheme() {
        Scheme::Urn => {
            let name = parsed.user()?.to_ascii_lowercase();
            let sos = name.strip_prefix("service:sos")?;
            (sos.is_empty() || sos.starts_with('.')).then(|| format!("urn:{name}").into())
        }
        // A SIP URI may have parameters of the number in its user part (RFC 3261 19.1.6).
        Scheme::Tel | Scheme::Sip | Scheme::Sips => {
            let dialled = parsed.user()?.split(';').next()?;
            let plain: String = dialled.chars().filter(|c| !matches!(c, '-' | '.' | '(' | ')')).collect();
            config.numbers.get(&plain).map(|urn| urn.as_str().into())
        }
        Scheme::Other(_) => None,
    }
}

/// Whether a contact is one of an emergency registration (TS 24.229 7.2A.13: URI parameter `sos`).
pub(crate) fn is_emergency_contact(uri: &str) -> bool {
    Uri::parse(uri).is_ok_and(|uri| uri.has_param("sos"))
}

/// Whether a REGISTER is one for emergencies.
pub(crate) fn is_emergency_register(request: &Message) -> bool {
    let contact = request.first::<Contact<'_>>().ok().flatten();
    contact.as_ref().and_then(Contact::addr).is_some_and(|addr| is_emergency_contact(addr.uri))
}

impl Binding {
    pub(crate) fn is_emergency(&self) -> bool {
        is_emergency_contact(&self.contact)
    }
}

impl Registration {
    /// Good for emergency calls and nothing else.
    pub(crate) fn is_for_emergencies(&self) -> bool {
        self.is_registered() && self.bindings.values().all(Binding::is_emergency)
    }

    pub(crate) fn is_guest(&self) -> bool {
        self.impi.as_str() == ANONYMOUS
    }
}

impl Pcscf {
    /// What a request that begins something asks of the emergency services.
    pub(crate) fn emergency(&self, message: &Message) -> Option<String> {
        service(message.uri(), &self.config.emergency).map(Into::into)
    }

    /// Whether an emergency call of this registration may go on (TS 24.229 5.2.10.3, 5.2.10.4).
    pub(crate) fn lets_call(&self, id: RegId) -> Result<(), Refusal> {
        let settings = &self.config.emergency;
        let registration = self.contacts.by_id(id).ok_or(Refusal::NoSuchUe)?;
        let token = Some(registration.token.clone());
        if settings.route.is_empty() {
            return Err(Refusal::Emergency { instead: Instead::Elsewhere, token });
        }
        match registration.is_for_emergencies() || settings.registered == EmergencyPolicy::Route {
            true => Ok(()),
            false => Err(Refusal::Emergency { instead: Instead::EmergencyRegistration, token }),
        }
    }

    /// An emergency call goes to the emergency services, whatever its Route says (TS 24.229 5.2.10.4).
    pub(crate) fn to_emergency_services(&self, urn: &str, outward: &mut Message) {
        let route = &self.config.emergency.route;
        outward.remove(Name::Route);
        // A PSAP that is no proxy is called by its own address.
        match Uri::parse(route).is_ok_and(|uri| uri.has_param("lr")) {
            true => {
                outward.set_uri(urn);
                outward.push_back(Name::Route, format_args!("<{route}>"));
            }
            false => outward.set_uri(route),
        }
    }

    /// A call of somebody who is not registered, where the policy lets it (TS 24.229 5.2.10.2). It is known by its address as long as it
    /// lasts, and can do nothing else.
    pub(crate) fn take_in(&mut self, from: Inbound, message: &Message, ctx: &mut Ctx<'_>) -> Result<RegId, Refusal> {
        let settings = &self.config.emergency;
        let refuse = |instead| Err(Refusal::Emergency { instead, token: None });
        if settings.route.is_empty() {
            return refuse(Instead::Elsewhere);
        }
        if !settings.unregistered || message.method() != Method::Invite || !self.config.is_clear(from.flow.local) {
            return refuse(Instead::EmergencyRegistration);
        }
        if self.contacts.len() >= self.config.limits.max_registrations {
            return Err(Refusal::Full("max_registrations"));
        }
        let unusable = |_| Refusal::Malformed("nobody".into());
        let impi = Impi::parse(ANONYMOUS).map_err(unusable)?;
        let impu = Impu::parse(&format!("sip:{ANONYMOUS}")).map_err(unusable)?;
        let token: Arc<str> = ctx.rng.token(24).into();
        let access = Access::Clear { flow: from.flow };
        let id = self.contacts.insert(Registration::attempt(impi, token, from.flow.remote.ip(), access));
        let contact = message.first::<Contact<'_>>().ok().flatten();
        let uri = contact.as_ref().and_then(Contact::addr).map_or("sip:anonymous.invalid", |addr| addr.uri);
        let expires = ctx.now + self.config.timers.longest_session.0;
        let binding = Binding {
            contact: if is_emergency_contact(uri) { uri.into() } else { format!("{uri};sos").into() },
            reg_id: None,
            service_route: Arc::from([format!("<{}>", self.config.emergency.route).into_boxed_str()]),
            associated: Box::default(),
            expires,
        };
        self.contacts.bind(id, impu, binding);
        self.timers.set(Timer::Registration(id), expires);
        self.dialogs.guests += 1;
        Ok(id)
    }

    /// Calls of those who are not registered have ended.
    pub(crate) fn see_off_guests(&mut self, ctx: &mut Ctx<'_>) {
        for id in self.dialogs.take_idle() {
            if self.contacts.by_id(id).is_some_and(Registration::is_guest) {
                self.forget(id, ctx);
            }
        }
    }

    /// The body of a 380, and who says so: the P-CSCF, as the handset knows it from Path (TS 24.229 5.2.10.5).
    pub(crate) fn alternative(&self, answer: &mut Message, instead: Instead, token: Option<&str>) {
        let own = match token {
            Some(token) => self.config.route_for_core(token),
            None => format!("<sip:{}>", self.config.host),
        };
        answer.push_back(Name::PAssertedIdentity, own);
        answer.set_body(ALTERNATIVE, instead.body().as_bytes());
    }

    /// Whether this is the way to the emergency services.
    pub(crate) fn leads_to_emergency_services(&self, next: &Uri<'_>) -> bool {
        Uri::parse(&self.config.emergency.route).is_ok_and(|route| routes::same_place(&route, next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emergencies_are_known_by_urn_and_by_number() {
        let config = Emergency::default();
        let asks = |uri: &str| service(uri, &config).map(|urn| urn.into_owned());
        for (uri, urn) in [
            ("urn:service:sos", Some("urn:service:sos")),
            ("URN:Service:SOS.Police", Some("urn:service:sos.police")),
            ("urn:service:sosx", None),
            ("urn:service:counseling", None),
            ("tel:112", Some("urn:service:sos")),
            ("tel:1-1-2;phone-context=ims.example", Some("urn:service:sos")),
            ("sip:112@ims.example;user=phone", Some("urn:service:sos")),
            ("sip:112;phone-context=ims.example@ims.example;user=phone", Some("urn:service:sos")),
            ("sip:911@ims.example", Some("urn:service:sos")),
            ("tel:1122", None),
            ("tel:+49112", None),
            ("sip:ims.example", None),
        ] {
            assert_eq!(asks(uri).as_deref(), urn, "{uri}");
        }
    }

    #[test]
    fn a_contact_says_when_it_is_for_emergencies() {
        assert!(is_emergency_contact("sip:a@192.0.2.7:5060;sos"));
        assert!(!is_emergency_contact("sip:sos@192.0.2.7:5060"));
    }
}
