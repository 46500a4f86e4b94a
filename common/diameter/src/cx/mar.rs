//! Multimedia-Auth: the S-CSCF asks for authentication vectors (TS 29.229 6.1.7, TS 29.228 6.3).

use super::{ResultCode, impi, impu, optional_impi, text};
use crate::Message;
use crate::avp::{Avp, Writer};
use crate::dict::{self, command};
use crate::message::DiameterError;
use ims_core::{Impi, Impu, Secret};
use std::fmt;
use zeroize::Zeroizing;

/// SIP-Authentication-Scheme (TS 29.229 6.3.9): IMS AKA of every version, also AKAv2 towards the UE.
pub const SCHEME_AKA: &str = "Digest-AKAv1-MD5";
pub const SCHEME_DIGEST: &str = "SIP Digest";
/// The HSS is to choose.
pub const SCHEME_UNKNOWN: &str = "Unknown";

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mar {
    pub impi: Impi,
    pub impu: Impu,
    pub server_name: String,
    pub items: u32,
    pub scheme: String,
    /// RAND || AUTS (30 bytes) on resynchronisation.
    pub authorization: Option<Vec<u8>>,
}

impl Mar {
    pub fn to_message(&self) -> Message {
        super::request(command::MULTIMEDIA_AUTH, |w| {
            w.utf8(&dict::USER_NAME, self.impi.as_str());
            w.utf8(&dict::PUBLIC_IDENTITY, self.impu.as_str());
            w.u32(&dict::SIP_NUMBER_AUTH_ITEMS, self.items);
            w.group(&dict::SIP_AUTH_DATA_ITEM, |w| {
                w.utf8(&dict::SIP_AUTHENTICATION_SCHEME, &self.scheme);
                if let Some(authorization) = &self.authorization {
                    w.octets(&dict::SIP_AUTHORIZATION, authorization);
                }
            });
            w.utf8(&dict::SERVER_NAME, &self.server_name);
        })
    }

    pub fn from_message(m: &Message) -> Result<Self, DiameterError> {
        let picked = m.avps().pick([
            &dict::SIP_AUTH_DATA_ITEM,
            &dict::USER_NAME,
            &dict::PUBLIC_IDENTITY,
            &dict::SERVER_NAME,
            &dict::SIP_NUMBER_AUTH_ITEMS,
        ])?;
        let item = picked.required(0)?.group()?;
        let authorization = item.optional(&dict::SIP_AUTHORIZATION)?;
        if let Some(wrong) = authorization.filter(|a| a.data.len() != 30) {
            return Err(wrong.bad_length());
        }
        Ok(Self {
            impi: impi(picked.required(1)?)?,
            impu: impu(picked.required(2)?)?,
            server_name: text(picked.required(3)?)?,
            items: picked.required(4)?.u32()?,
            scheme: text(item.required(&dict::SIP_AUTHENTICATION_SCHEME)?)?,
            authorization: authorization.map(|a| a.data.to_vec()),
        })
    }
}

/// One SIP-Auth-Data-Item of an answer.
#[derive(Clone)]
pub enum AuthItem {
    Aka { item: u32, rand: [u8; 16], autn: [u8; 16], xres: Vec<u8>, ck: Secret<16>, ik: Secret<16> },
    Digest(Box<DigestItem>),
}

/// SIP-Digest-Authenticate (TS 29.229 6.3.36).
#[derive(Clone)]
pub struct DigestItem {
    pub realm: String,
    /// Absent: MD5.
    pub algorithm: Option<String>,
    pub qop: Option<String>,
    /// H(A1) in hex, a secret as good as the password.
    pub ha1: Zeroizing<String>,
    /// Another algorithm and its H(A1), for UEs that have it.
    pub alternate: Option<(String, Zeroizing<String>)>,
}

impl fmt::Debug for AuthItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Aka { item, .. } => write!(f, "Aka {{ item: {item}, [secret] }}"),
            Self::Digest(digest) => write!(f, "Digest {{ realm: {:?}, [secret] }}", digest.realm),
        }
    }
}

impl AuthItem {
    fn write(&self, w: &mut Writer) {
        w.group(&dict::SIP_AUTH_DATA_ITEM, |w| match self {
            Self::Aka { item, rand, autn, xres, ck, ik } => {
                w.u32(&dict::SIP_ITEM_NUMBER, *item);
                w.utf8(&dict::SIP_AUTHENTICATION_SCHEME, SCHEME_AKA);
                let mut challenge = [0; 32];
                let (first, second) = challenge.split_at_mut(16);
                first.copy_from_slice(rand);
                second.copy_from_slice(autn);
                w.octets(&dict::SIP_AUTHENTICATE, &challenge);
                w.octets(&dict::SIP_AUTHORIZATION, xres);
                w.octets(&dict::CONFIDENTIALITY_KEY, ck.expose());
                w.octets(&dict::INTEGRITY_KEY, ik.expose());
            }
            Self::Digest(digest) => {
                w.utf8(&dict::SIP_AUTHENTICATION_SCHEME, SCHEME_DIGEST);
                w.group(&dict::SIP_DIGEST_AUTHENTICATE, |w| {
                    w.utf8(&dict::DIGEST_REALM, &digest.realm);
                    if let Some(algorithm) = &digest.algorithm {
                        w.utf8(&dict::DIGEST_ALGORITHM, algorithm);
                    }
                    if let Some(qop) = &digest.qop {
                        w.utf8(&dict::DIGEST_QOP, qop);
                    }
                    w.utf8(&dict::DIGEST_HA1, &digest.ha1);
                    if let Some((algorithm, ha1)) = &digest.alternate {
                        w.utf8(&dict::ALTERNATE_DIGEST_ALGORITHM, algorithm);
                        w.utf8(&dict::ALTERNATE_DIGEST_HA1, ha1);
                    }
                });
            }
        });
    }

    fn read(avp: Avp<'_>) -> Result<Self, DiameterError> {
        let members = avp.group()?;
        if let Some(digest) = members.optional(&dict::SIP_DIGEST_AUTHENTICATE)? {
            let digest = digest.group()?;
            let alternate = super::optional_text(&digest, &dict::ALTERNATE_DIGEST_ALGORITHM)?;
            let alternate = alternate.zip(super::optional_text(&digest, &dict::ALTERNATE_DIGEST_HA1)?);
            return Ok(Self::Digest(Box::new(DigestItem {
                realm: text(digest.required(&dict::DIGEST_REALM)?)?,
                algorithm: super::optional_text(&digest, &dict::DIGEST_ALGORITHM)?,
                qop: super::optional_text(&digest, &dict::DIGEST_QOP)?,
                ha1: Zeroizing::new(text(digest.required(&dict::DIGEST_HA1)?)?),
                alternate: alternate.map(|(algorithm, ha1)| (algorithm, Zeroizing::new(ha1))),
            })));
        }
        let challenge: [u8; 32] = members.required(&dict::SIP_AUTHENTICATE)?.array()?;
        let (mut rand, mut autn) = ([0; 16], [0; 16]);
        let (first, second) = challenge.split_at(16);
        rand.copy_from_slice(first);
        autn.copy_from_slice(second);
        let xres = members.required(&dict::SIP_AUTHORIZATION)?;
        if !(4..=16).contains(&xres.data.len()) {
            return Err(xres.bad_length());
        }
        let item = members.optional(&dict::SIP_ITEM_NUMBER)?.map(|a| a.u32()).transpose()?;
        Ok(Self::Aka {
            item: item.unwrap_or(1),
            rand,
            autn,
            xres: xres.data.to_vec(),
            ck: Secret::new(members.required(&dict::CONFIDENTIALITY_KEY)?.array()?),
            ik: Secret::new(members.required(&dict::INTEGRITY_KEY)?.array()?),
        })
    }

    fn order(&self) -> u32 {
        match self {
            Self::Aka { item, .. } => *item,
            Self::Digest(_) => 0,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Maa {
    pub result: ResultCode,
    pub impi: Option<Impi>,
    pub impu: Option<Impu>,
    /// In the order of their SIP-Item-Number.
    pub items: Vec<AuthItem>,
}

impl Maa {
    /// The answer to `request` (Session-Id, Proxy-Info and identifiers come from it).
    pub fn to_message(&self, request: &Message) -> Message {
        super::answer(request, self.result, |w| {
            if let Some(impi) = &self.impi {
                w.utf8(&dict::USER_NAME, impi.as_str());
            }
            if let Some(impu) = &self.impu {
                w.utf8(&dict::PUBLIC_IDENTITY, impu.as_str());
            }
            if !self.items.is_empty() {
                w.u32(&dict::SIP_NUMBER_AUTH_ITEMS, u32::try_from(self.items.len()).unwrap_or(u32::MAX));
            }
            self.items.iter().for_each(|item| item.write(w));
        })
    }

    /// Also reads a bare base-protocol error answer (E bit): only `result` is set then.
    pub fn from_message(m: &Message) -> Result<Self, DiameterError> {
        let result = ResultCode::from_message(m)?;
        let Some(avps) = super::answer_body(m, result) else {
            return Ok(Self { result, impi: None, impu: None, items: Vec::new() });
        };
        let mut items = avps.all(&dict::SIP_AUTH_DATA_ITEM).map(AuthItem::read).collect::<Result<Vec<_>, _>>()?;
        items.sort_by_key(AuthItem::order);
        let impu = avps.optional(&dict::PUBLIC_IDENTITY)?.map(impu).transpose()?;
        Ok(Self { result, impi: optional_impi(&avps)?, impu, items })
    }
}
