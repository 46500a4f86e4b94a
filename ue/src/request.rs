//! The REGISTER requests of a handset (TS 24.229 5.1.1.2, 5.1.1.4, 5.1.1.6) and their Authorization.

use crate::Ue;
use crate::config::Quirk;
use crate::register::{Attempt, Procedure};
use crate::sa::Offer;
use ims_core::{Ctx, Secret};
use ims_sip::digest::{Credentials, DigestAlgorithm, DigestInput, response, rspauth};
use ims_sip::{Message, Name};
use std::net::SocketAddr;
use zeroize::Zeroizing;

/// What the Authorization of a REGISTER is made from.
#[derive(Clone, Debug)]
pub(crate) enum Credential {
    /// Nothing known yet: username, realm, uri, and empty nonce and response (TS 24.229 5.1.1.2.2).
    Empty,
    /// The answer to a challenge, or its repetition with a higher nonce count.
    Answer(DigestCredential),
    /// AUTN did not verify: empty response, no auts (TS 24.229 5.1.1.5.3).
    MacFailure { realm: String, nonce: String },
    /// SQN out of range: auts, and a response made with an empty password (RFC 3310 3.4).
    SyncFailure { challenge: DigestCredential, auts: String },
}

/// The parts of a challenge that the answer repeats, and what the USIM gave, or the password.
#[derive(Clone, Debug)]
pub(crate) struct DigestCredential {
    pub(crate) realm: String,
    pub(crate) nonce: String,
    pub(crate) opaque: Option<String>,
    pub(crate) algorithm: DigestAlgorithm,
    pub(crate) qop: Option<&'static str>,
    pub(crate) secret: Known,
    pub(crate) nc: u32,
    pub(crate) cnonce: String,
}

/// What both sides know, kept out of logs.
#[derive(Clone)]
pub(crate) enum Known {
    Aka { res: Zeroizing<Vec<u8>>, ck: Secret<16>, ik: Secret<16> },
    Password(Zeroizing<Vec<u8>>),
}

impl Known {
    fn credentials(&self) -> Credentials<'_> {
        match self {
            Self::Aka { res, ck, ik } => Credentials::Aka { res, ik, ck },
            Self::Password(password) => Credentials::Password(password),
        }
    }

    /// One bit off, for who misbehaves.
    fn spoil(&mut self) {
        let (Self::Aka { res: secret, .. } | Self::Password(secret)) = self;
        secret.iter_mut().take(1).for_each(|b| *b ^= 1);
    }
}

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

impl DigestCredential {
    fn digest(&self, username: &str, uri: &str, of_server: bool) -> String {
        let nc = format!("{:08x}", self.nc);
        let input = DigestInput {
            algorithm: self.algorithm,
            username,
            realm: &self.realm,
            nonce: &self.nonce,
            uri,
            method: "REGISTER",
            qop: self.qop,
            nc: self.qop.map(|_| nc.as_str()),
            cnonce: self.qop.map(|_| self.cnonce.as_str()),
            body: b"",
        };
        let credentials = self.secret.credentials();
        if of_server { rspauth(&input, &credentials) } else { response(&input, &credentials) }
    }

    /// What the network must show in Authentication-Info.
    pub(crate) fn expected_rspauth(&self, username: &str, uri: &str) -> String {
        self.digest(username, uri, true)
    }

    fn header(&self, username: &str, uri: &str, auts: Option<&str>) -> String {
        let response = self.digest(username, uri, false);
        let mut out = format!(
            "Digest username=\"{username}\",realm=\"{}\",nonce=\"{}\",uri=\"{uri}\",response=\"{response}\",algorithm={}",
            self.realm,
            self.nonce,
            self.algorithm.token()
        );
        if let Some(qop) = self.qop {
            out.push_str(&format!(",qop={qop},nc={:08x},cnonce=\"{}\"", self.nc, self.cnonce));
        }
        if let Some(opaque) = &self.opaque {
            out.push_str(&format!(",opaque=\"{opaque}\""));
        }
        if let Some(auts) = auts {
            out.push_str(&format!(",auts=\"{auts}\""));
        }
        out
    }
}

impl Ue {
    /// A REGISTER of this attempt. `protected` are the ports it leaves by (and Security-Verify) when inside a set.
    pub(crate) fn register_request(
        &mut self,
        attempt: &Attempt,
        credential: &Credential,
        verify: Option<&str>,
        ctx: &mut Ctx<'_>,
    ) -> Message {
        let uri = self.registrar_uri();
        self.dialog.cseq += 1;
        let mut m = Message::request("REGISTER", &uri);
        m.set(Name::MaxForwards, 70);
        m.set(Name::From, format_args!("<{}>;tag={}", self.identity.impu, self.dialog.from_tag));
        m.set(Name::To, format_args!("<{}>", self.identity.impu));
        m.set(Name::CallId, &self.dialog.call_id);
        m.set(Name::CSeq, format_args!("{} REGISTER", self.dialog.cseq));
        if attempt.procedure != Procedure::Query {
            m.set(Name::Contact, self.contact_header(attempt));
            m.set(Name::Expires, attempt.asked);
        }
        if !(self.config.quirk == Some(Quirk::NoAuthorization) && matches!(credential, Credential::Empty)) {
            m.set(Name::Authorization, self.authorization(credential, &uri, ctx));
        }
        m.set(Name::Supported, if attempt.offer.is_some() { "path, sec-agree" } else { "path" });
        if let Some(offer) = &attempt.offer {
            self.add_sec_agree(&mut m, offer, verify);
        }
        if let Some(access) = &self.config.access_network {
            m.set(Name::PAccessNetworkInfo, access);
        }
        m.set(Name::UserAgent, "imsbox-ue");
        m
    }

    /// RFC 3329 2.3.1; Security-Verify only inside a set.
    fn add_sec_agree(&self, m: &mut Message, offer: &Offer, verify: Option<&str>) {
        m.set(Name::Require, "sec-agree");
        m.set(Name::ProxyRequire, "sec-agree");
        m.set(Name::SecurityClient, offer.header());
        match (verify, self.config.quirk) {
            (Some(_), Some(Quirk::NoVerify)) | (None, _) => {}
            (Some(verify), Some(Quirk::WrongVerify)) => {
                m.set(Name::SecurityVerify, verify.replace("spi-s=", "spi-s=1").replace("spi-c=", "spi-c=1"));
            }
            (Some(verify), _) => m.set(Name::SecurityVerify, verify),
        }
    }

    pub(crate) fn registrar_uri(&self) -> String {
        format!("sip:{}", self.config.home_domain)
    }

    /// Our Contact URI: the protected server port whenever security associations are wanted (TS 24.229 5.1.1.2.2).
    pub(crate) fn contact_uri(&self, protected: bool) -> String {
        let port = if protected { self.config.port_us } else { self.config.port };
        let transport = match self.transport() {
            ims_core::Transport::Tcp => ";transport=tcp",
            ims_core::Transport::Udp => "",
        };
        format!("sip:{}@{}{transport}", self.dialog.contact_user, SocketAddr::new(self.config.address, port))
    }

    fn contact_header(&self, attempt: &Attempt) -> String {
        let mut contact = format!("<{}>", self.contact_uri(attempt.offer.is_some()));
        if let Some(instance) = &self.config.instance {
            contact.push_str(&format!(";+sip.instance=\"<{instance}>\""));
        }
        contact.push_str(";+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.mmtel\";+g.3gpp.smsip");
        if attempt.procedure == Procedure::Deregister {
            contact.push_str(";expires=0");
        }
        contact
    }

    fn authorization(&self, credential: &Credential, uri: &str, ctx: &mut Ctx<'_>) -> String {
        let other = format!("0{}", self.identity.impi);
        let username =
            if self.config.quirk == Some(Quirk::OtherImpi) { other.as_str() } else { self.identity.impi.as_str() };
        let empty = |realm: &str, nonce: &str| {
            format!("Digest username=\"{username}\",realm=\"{realm}\",nonce=\"{nonce}\",uri=\"{uri}\",response=\"\"")
        };
        let mut header = match credential {
            Credential::Empty => {
                let named = match self.config.digest.as_slice() {
                    [only] => format!(",algorithm={}", only.0.token()),
                    _ => String::new(),
                };
                empty(&self.config.home_domain, "") + &named
            }
            Credential::MacFailure { realm, nonce } => empty(realm, nonce),
            Credential::SyncFailure { challenge, auts } => challenge.header(username, uri, Some(auts)),
            Credential::Answer(answer) => {
                let mut answer = answer.clone();
                match self.config.quirk {
                    Some(Quirk::WrongRes) => answer.secret.spoil(),
                    Some(Quirk::WrongNonce) => answer.nonce = base64_of(&ctx.rng.bytes::<32>()),
                    Some(Quirk::SameCount) => answer.nc = 1,
                    _ => {}
                }
                answer.header(username, uri, None)
            }
        };
        if self.config.quirk == Some(Quirk::ClaimsProtection) {
            header.push_str(",integrity-protected=\"yes\"");
        }
        header
    }
}

pub(crate) fn base64_of(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
