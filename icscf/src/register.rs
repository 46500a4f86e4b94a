//! REGISTER (TS 24.229 5.3.1): the registration status query (TS 29.228 6.1.1), the choice of an S-CSCF, and the way there
//! and back.

use crate::{Icscf, Refusal, Waiting, select};
use ims_core::uri::Uri;
use ims_core::{Ctx, Impi, Impu};
use ims_diameter::cx::{ResultCode, ServerCapabilities, Uaa, Uar, UserAuthorizationType};
use ims_sip::Message;
use ims_sip::endpoint::{ClientFailure, ClientTx, Destination, ServerTx};
use ims_sip::headers::{Authorization, Contact, Expires, PVisitedNetworkId, To};
use ims_sip::message::HeaderError;
use ims_sip::proxy::{decrement_max_forwards, next_hop, take_own_route};
use std::net::IpAddr;

/// A REGISTER on its way.
pub(crate) struct Registration {
    pub(crate) tx: ServerTx,
    /// As it shall leave, but for the Request-URI.
    pub(crate) message: Message,
    pub(crate) impi: Impi,
    pub(crate) impu: Impu,
    kind: UserAuthorizationType,
    is_emergency: bool,
    visited_network: Vec<u8>,
    /// It came over a security association: only its own S-CSCF knows the user (5.3.1.3).
    is_protected: bool,
    /// Told by the HSS for good: no need to ask again when an S-CSCF fails.
    capabilities: Option<ServerCapabilities>,
    /// S-CSCFs that it was sent to, the last one the current.
    pub(crate) tried: Vec<String>,
}

impl Icscf {
    pub(crate) fn on_register(&mut self, tx: ServerTx, message: &Message, ctx: &mut Ctx<'_>) -> Result<(), Refusal> {
        if self.in_progress() >= self.config.limits.max_pending {
            return Err(Refusal::Full);
        }
        self.check_source(message)?;
        let mut registration = Registration::read(tx, message, &self.config.visited_network)?;
        decrement_max_forwards(&mut registration.message).map_err(|_| Refusal::TooManyHops)?;
        let config = &self.config;
        take_own_route(&mut registration.message, |uri| config.is_me(uri.as_str()));
        self.ask(registration, ctx);
        Ok(())
    }

    /// 5.3.1.2: a REGISTER from outside the trust domain is forbidden. `received` is the address it came from.
    pub(crate) fn check_source(&self, message: &Message) -> Result<(), Refusal> {
        if self.config.trusted.is_empty() {
            return Ok(());
        }
        let via: ims_sip::headers::Via<'_> = message.require().map_err(malformed)?;
        let source = via.params.value("received").unwrap_or(via.host);
        match ims_core::uri::parse_ip(source) {
            Some(ip) if self.config.trusted.contains(&ip) => Ok(()),
            ip => Err(Refusal::Untrusted(ip.unwrap_or(IpAddr::from([0, 0, 0, 0])))),
        }
    }

    /// Asks the HSS who serves this user.
    fn ask(&mut self, registration: Registration, ctx: &mut Ctx<'_>) {
        let uar = Uar {
            impi: registration.impi.clone(),
            impu: registration.impu.clone(),
            visited_network: Some(registration.visited_network.clone()),
            kind: registration.kind,
            emergency: registration.is_emergency,
        };
        let id = self.cx.send_request(uar.to_message(), &self.config.hss(), ctx);
        self.waiting.insert(id, Waiting::Uaa(Box::new(registration)));
    }

    pub(crate) fn on_uaa(&mut self, registration: Registration, answer: &ims_diameter::Message, ctx: &mut Ctx<'_>) {
        let (tx, message) = (registration.tx, registration.message.clone());
        let next = read_uaa(answer, &registration).and_then(|uaa| self.choose(registration, uaa, ctx));
        if let Err(refusal) = next {
            self.refuse(tx, &message, &refusal, ctx);
        }
    }

    /// The S-CSCF that the HSS has for the user, or else one by its capabilities.
    fn choose(&mut self, mut registration: Registration, uaa: Uaa, ctx: &mut Ctx<'_>) -> Result<(), Refusal> {
        let is_new = |name: &String| !registration.tried.iter().any(|t| t.eq_ignore_ascii_case(name));
        let name = match uaa.server_name.filter(is_new) {
            Some(name) => name,
            None => {
                // Neither name nor capabilities: any S-CSCF will do.
                let wanted = uaa.capabilities.clone().unwrap_or_default();
                select::scscf(&self.config.scscf, &wanted, &registration.tried)
                    .ok_or_else(|| registration.no_other(wanted.mandatory))?
            }
        };
        if !Uri::parse(&name).is_ok_and(|uri| uri.is_sip()) {
            return Err(Refusal::HssAnswer("Server-Name is no SIP URI".into()));
        }
        let asked_for = registration.kind == UserAuthorizationType::RegistrationAndCapabilities;
        registration.capabilities = uaa.capabilities.or_else(|| asked_for.then(ServerCapabilities::default));
        self.forward(registration, name, ctx);
        Ok(())
    }

    fn forward(&mut self, mut registration: Registration, name: String, ctx: &mut Ctx<'_>) {
        let mut message = registration.message.clone();
        message.set_uri(&name);
        registration.tried.push(name);
        let destination = Destination::Uri(next_hop(&message));
        let tx = self.sip.send_request(message, destination, ctx);
        self.forwarded.insert(tx, registration);
    }

    pub(crate) fn on_register_response(&mut self, tx: ClientTx, message: Message, ctx: &mut Ctx<'_>) {
        let status = message.status();
        if status < 200 {
            return;
        }
        let Some(registration) = self.forwarded.remove(&tx) else {
            return;
        };
        // 5.3.1.3 names 3xx and 480; 503 says the same of the moment (RFC 3261 21.5.4).
        match status {
            300..400 | 480 | 503 => {
                let name = registration.tried.last().cloned().unwrap_or_default();
                self.next_scscf(registration, Refusal::ScscfUnavailable { name, status }, ctx);
            }
            _ => {
                match status {
                    200..=299 => self.outcomes.count("passed"),
                    401 => self.outcomes.count("challenged"),
                    status => self.outcomes.refused(ims_sip::status::label(status)),
                }
                self.sip.respond(registration.tx, message, ctx);
            }
        }
    }

    pub(crate) fn on_register_failed(&mut self, tx: ClientTx, cause: ClientFailure, ctx: &mut Ctx<'_>) {
        let Some(registration) = self.forwarded.remove(&tx) else {
            return;
        };
        let name = registration.tried.last().cloned().unwrap_or_default();
        self.next_scscf(registration, Refusal::ScscfSilent { name, cause }, ctx);
    }

    /// 5.3.1.3: another S-CSCF by capabilities, asked for when they are not known yet. Who registers over a security
    /// association, or leaves, has nothing to look for at another one.
    fn next_scscf(&mut self, mut registration: Registration, why: Refusal, ctx: &mut Ctx<'_>) {
        let leaves = registration.kind == UserAuthorizationType::DeRegistration;
        if registration.is_protected || leaves {
            return self.refuse(registration.tx, &registration.message, &why, ctx);
        }
        tracing::info!(impu = ?registration.impu, "{why}; looking for another S-CSCF");
        self.count("scscf-changed");
        match &registration.capabilities {
            None => {
                registration.kind = UserAuthorizationType::RegistrationAndCapabilities;
                self.ask(registration, ctx);
            }
            Some(wanted) => match select::scscf(&self.config.scscf, wanted, &registration.tried) {
                Some(name) => self.forward(registration, name, ctx),
                None => self.refuse(registration.tx, &registration.message, &why, ctx),
            },
        }
    }
}

impl Registration {
    fn read(tx: ServerTx, message: &Message, home: &str) -> Result<Self, Refusal> {
        let to: To<'_> = message.require().map_err(malformed)?;
        let impu = Impu::parse(to.uri).map_err(|e| Refusal::Malformed(format!("To: {e}")))?;
        let authorization: Option<Authorization<'_>> = message.first().map_err(malformed)?;
        let parameter = |name: &str| authorization.as_ref().and_then(|a| a.params.get(name));
        let impi = match parameter("username").filter(|name| !name.is_empty()) {
            Some(name) => Impi::parse(&name).map_err(|e| Refusal::Malformed(format!("Authorization username: {e}")))?,
            None => Impi::from_impu(&impu).ok_or(Refusal::NoPrivateIdentity)?,
        };
        let contacts: Vec<Contact<'_>> = message.all().map_err(malformed)?;
        let visited: Option<PVisitedNetworkId<'_>> = message.first().map_err(malformed)?;
        Ok(Self {
            tx,
            message: message.clone(),
            impi,
            impu,
            kind: kind(message, &contacts),
            is_emergency: contacts.iter().any(is_emergency),
            visited_network: visited.map_or(home, |v| v.network).as_bytes().to_vec(),
            is_protected: parameter("integrity-protected").is_some_and(|v| v.eq_ignore_ascii_case("yes")),
            capabilities: None,
            tried: Vec::new(),
        })
    }

    fn no_other(&self, mandatory: Vec<u32>) -> Refusal {
        match self.tried.last() {
            // 600 would tell the UE that nobody anywhere serves it; it is that those who could do not answer.
            Some(name) => Refusal::ScscfSilent { name: name.clone(), cause: ClientFailure::Timeout },
            None => Refusal::NoCapableScscf { mandatory },
        }
    }
}

/// DE_REGISTRATION when everything it names goes (TS 29.228 6.1.1.1, TS 24.229 5.3.1.2).
fn kind(message: &Message, contacts: &[Contact<'_>]) -> UserAuthorizationType {
    // What cannot be read counts as 3600 (RFC 3261 20.19).
    let header = message.first::<Expires>().unwrap_or(Some(Expires(3600)));
    let all_gone = match contacts {
        // Without Contact it only asks what is registered.
        [] => false,
        list => list.iter().all(|c| match c {
            Contact::Star => true,
            Contact::Addr(_) => c.expires().or(header.as_ref().map(|e| e.0)) == Some(0),
        }),
    };
    if all_gone { UserAuthorizationType::DeRegistration } else { UserAuthorizationType::Registration }
}

/// TS 24.229 7.2A.13: the `sos` URI parameter.
fn is_emergency(contact: &Contact<'_>) -> bool {
    contact.addr().and_then(|a| a.parsed_uri().ok()).is_some_and(|uri| uri.has_param("sos"))
}

/// 5.3.1.3: a negative answer is 403, one that completes nothing is 480.
fn read_uaa(answer: &ims_diameter::Message, registration: &Registration) -> Result<Uaa, Refusal> {
    let uaa = Uaa::from_message(answer).map_err(|e| Refusal::HssAnswer(e.to_string()))?;
    let impu = registration.impu.clone();
    match uaa.result {
        result if result.is_success() => Ok(uaa),
        // DIAMETER_AUTHORIZATION_REJECTED: all identities are barred (TS 29.228 6.1.1.2).
        result @ (ResultCode::Experimental(5000..6000) | ResultCode::Base(5003)) => {
            Err(Refusal::NotAllowed { impu, result })
        }
        // RFC 6733 7.1.3: another HSS was tried already, if there is one.
        ResultCode::TOO_BUSY => Err(Refusal::HssBusy),
        other => Err(Refusal::HssAnswer(format!("{other:?}"))),
    }
}

fn malformed(error: HeaderError) -> Refusal {
    Refusal::Malformed(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn read(headers: &str) -> Result<Registration, Refusal> {
        let text = format!(
            "REGISTER sip:ims.example SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\nFrom: <sip:a@ims.example>;tag=1\r\n\
             Call-ID: 1\r\nCSeq: 1 REGISTER\r\n{headers}Content-Length: 0\r\n\r\n"
        );
        Registration::read(ServerTx(1), &Message::parse(Bytes::from(text)).unwrap(), "home.example")
    }

    #[test]
    fn the_private_identity_comes_from_authorization_or_else_from_to() {
        let r = read("To: sip:a@IMS.example;tag=no\r\nAuthorization: Digest username=\"p@ims.example\",integrity-protected=\"yes\"\r\n").unwrap();
        assert_eq!((r.impi.as_str(), r.impu.as_str(), r.is_protected), ("p@ims.example", "sip:a@ims.example", true));
        let r = read("To: <sip:a@ims.example:5060;user=phone>\r\n").unwrap();
        assert_eq!((r.impi.as_str(), r.is_protected), ("a@ims.example", false));
        assert_eq!(read("To: <tel:+15550001>\r\n").err(), Some(Refusal::NoPrivateIdentity));
        assert!(matches!(read("To: <urn:service:sos>\r\n").err(), Some(Refusal::Malformed(_))));
    }

    #[test]
    fn the_type_of_authorization_follows_the_expiry_of_all_contacts() {
        let to = "To: <sip:a@ims.example>\r\n";
        let kind = |h: &str| read(&format!("{to}{h}")).unwrap().kind;
        use UserAuthorizationType::{DeRegistration, Registration};
        assert_eq!(kind(""), Registration, "a query");
        assert_eq!(kind("Expires: 0\r\n"), Registration, "a query");
        assert_eq!(kind("Contact: <sip:a@1.1.1.1>\r\nExpires: 600\r\n"), Registration);
        assert_eq!(kind("Contact: <sip:a@1.1.1.1>\r\nExpires: 0\r\n"), DeRegistration);
        assert_eq!(kind("Contact: <sip:a@1.1.1.1>;expires=0\r\nExpires: 600\r\n"), DeRegistration);
        assert_eq!(kind("Contact: <sip:a@1.1.1.1>;expires=0, <sip:a@1.1.1.2>\r\n"), Registration);
        assert_eq!(kind("Contact: *\r\nExpires: 0\r\n"), DeRegistration);
    }

    #[test]
    fn the_visited_network_is_unquoted_and_never_missing() {
        let visited = |h: &str| read(&format!("To: <sip:a@ims.example>\r\n{h}")).unwrap().visited_network;
        assert_eq!(visited("P-Visited-Network-ID: \"visited.example\"\r\n"), b"visited.example");
        assert_eq!(visited(""), b"home.example");
    }
}
