//! Server-Assignment: the S-CSCF says that it serves a user, or no longer does, and takes the profile
//! (TS 29.229 6.1.3, TS 29.228 6.1.2).

use super::{ResultCode, impi, impus, number, optional_impi, optional_text, text};
use crate::Message;
use crate::avp::{Avp, Writer};
use crate::dict::{self, command};
use crate::message::DiameterError;
use ims_core::{Impi, Impu};
use std::fmt;

/// TS 29.229 6.3.15.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ServerAssignmentType {
    NoAssignment,
    Registration,
    ReRegistration,
    UnregisteredUser,
    TimeoutDeregistration,
    UserDeregistration,
    TimeoutDeregistrationStoreServerName,
    UserDeregistrationStoreServerName,
    AdministrativeDeregistration,
    AuthenticationFailure,
    AuthenticationTimeout,
    DeregistrationTooMuchData,
    AaaUserDataRequest,
    PgwUpdate,
    Restoration,
}

impl ServerAssignmentType {
    /// In the order of their numbers.
    pub const ALL: [Self; 15] = [
        Self::NoAssignment,
        Self::Registration,
        Self::ReRegistration,
        Self::UnregisteredUser,
        Self::TimeoutDeregistration,
        Self::UserDeregistration,
        Self::TimeoutDeregistrationStoreServerName,
        Self::UserDeregistrationStoreServerName,
        Self::AdministrativeDeregistration,
        Self::AuthenticationFailure,
        Self::AuthenticationTimeout,
        Self::DeregistrationTooMuchData,
        Self::AaaUserDataRequest,
        Self::PgwUpdate,
        Self::Restoration,
    ];
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sar {
    pub impi: Option<Impi>,
    pub impus: Vec<Impu>,
    pub server_name: String,
    pub kind: ServerAssignmentType,
    pub data_already_available: bool,
    pub wildcarded: Option<String>,
}

impl Sar {
    pub fn to_message(&self) -> Message {
        super::request(command::SERVER_ASSIGNMENT, |w| {
            if let Some(impi) = &self.impi {
                w.utf8(&dict::USER_NAME, impi.as_str());
            }
            self.impus.iter().for_each(|impu| w.utf8(&dict::PUBLIC_IDENTITY, impu.as_str()));
            if let Some(identity) = &self.wildcarded {
                w.utf8(&dict::WILDCARDED_PUBLIC_IDENTITY, identity);
            }
            w.utf8(&dict::SERVER_NAME, &self.server_name);
            w.u32(&dict::SERVER_ASSIGNMENT_TYPE, self.kind as u32);
            w.u32(&dict::USER_DATA_ALREADY_AVAILABLE, self.data_already_available.into());
        })
    }

    pub fn from_message(m: &Message) -> Result<Self, DiameterError> {
        let avps = m.avps();
        let picked = avps.pick([
            &dict::USER_DATA_ALREADY_AVAILABLE,
            &dict::USER_NAME,
            &dict::SERVER_NAME,
            &dict::SERVER_ASSIGNMENT_TYPE,
        ])?;
        let available = picked.required(0)?;
        let request = Self {
            impi: picked.optional(1).map(impi).transpose()?,
            impus: impus(&avps)?,
            server_name: text(picked.required(2)?)?,
            kind: number(picked.required(3)?, &ServerAssignmentType::ALL)?,
            data_already_available: number(available, &[false, true])?,
            wildcarded: super::wildcarded(&avps)?,
        };
        // User-Name may stand alone only in de-registrations (TS 29.228 table 6.1.2.1), but one of the two must be there.
        if request.impi.is_none() && request.impus.is_empty() {
            return Err(DiameterError::missing(&dict::PUBLIC_IDENTITY));
        }
        Ok(request)
    }
}

/// Addresses of charging functions, as Diameter URIs (TS 29.229 6.3.19).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ChargingInformation {
    pub primary_ccf: Option<String>,
    pub secondary_ccf: Option<String>,
    pub primary_ecf: Option<String>,
    pub secondary_ecf: Option<String>,
}

impl ChargingInformation {
    pub(super) fn write(&self, w: &mut Writer) {
        let members = [
            (&dict::PRIMARY_ECF_NAME, &self.primary_ecf),
            (&dict::SECONDARY_ECF_NAME, &self.secondary_ecf),
            (&dict::PRIMARY_CCF_NAME, &self.primary_ccf),
            (&dict::SECONDARY_CCF_NAME, &self.secondary_ccf),
        ];
        w.group(&dict::CHARGING_INFORMATION, |w| {
            for (def, name) in members {
                if let Some(name) = name {
                    w.utf8(def, name);
                }
            }
        });
    }

    pub(super) fn read(avp: Avp<'_>) -> Result<Self, DiameterError> {
        let members = avp.group()?;
        Ok(Self {
            primary_ccf: optional_text(&members, &dict::PRIMARY_CCF_NAME)?,
            secondary_ccf: optional_text(&members, &dict::SECONDARY_CCF_NAME)?,
            primary_ecf: optional_text(&members, &dict::PRIMARY_ECF_NAME)?,
            secondary_ecf: optional_text(&members, &dict::SECONDARY_ECF_NAME)?,
        })
    }
}

#[derive(Clone, PartialEq, Eq)]
pub struct Saa {
    pub result: ResultCode,
    pub impi: Option<Impi>,
    pub user_data: Option<Vec<u8>>,
    pub charging: Option<ChargingInformation>,
    /// Associated-Identities: other IMPIs.
    pub associated: Vec<Impi>,
}

impl fmt::Debug for Saa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = self.user_data.as_ref().map(Vec::len);
        write!(f, "Saa {{ {:?}, {:?}, user_data: {length:?} bytes, {:?} }}", self.result, self.impi, self.associated)
    }
}

impl Saa {
    /// The answer to `request` (Session-Id, Proxy-Info and identifiers come from it).
    pub fn to_message(&self, request: &Message) -> Message {
        super::answer(request, self.result, |w| {
            if let Some(impi) = &self.impi {
                w.utf8(&dict::USER_NAME, impi.as_str());
            }
            if let Some(user_data) = &self.user_data {
                w.octets(&dict::USER_DATA, user_data);
            }
            if let Some(charging) = &self.charging {
                charging.write(w);
            }
            if !self.associated.is_empty() {
                w.group(&dict::ASSOCIATED_IDENTITIES, |w| {
                    self.associated.iter().for_each(|impi| w.utf8(&dict::USER_NAME, impi.as_str()));
                });
            }
        })
    }

    /// Also reads a bare base-protocol error answer (E bit): only `result` is set then.
    pub fn from_message(m: &Message) -> Result<Self, DiameterError> {
        let result = ResultCode::from_message(m)?;
        let Some(avps) = super::answer_body(m, result) else {
            return Ok(Self { result, impi: None, user_data: None, charging: None, associated: Vec::new() });
        };
        let associated = match avps.optional(&dict::ASSOCIATED_IDENTITIES)? {
            Some(group) => group.group()?.all(&dict::USER_NAME).map(impi).collect::<Result<_, _>>()?,
            None => Vec::new(),
        };
        Ok(Self {
            result,
            impi: optional_impi(&avps)?,
            user_data: avps.optional(&dict::USER_DATA)?.map(|a| a.data.to_vec()),
            charging: avps.optional(&dict::CHARGING_INFORMATION)?.map(ChargingInformation::read).transpose()?,
            associated,
        })
    }
}
