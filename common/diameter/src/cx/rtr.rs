//! Registration-Termination: the HSS ends registrations (TS 29.229 6.1.9, TS 29.228 6.1.3).

use super::{ResultCode, impi, impus, number, optional_text};
use crate::Message;
use crate::dict::{self, command};
use crate::message::DiameterError;
use ims_core::{Impi, Impu};
use serde::{Deserialize, Serialize};

/// TS 29.229 6.3.17.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ReasonCode {
    PermanentTermination,
    NewServerAssigned,
    ServerChange,
    RemoveScscf,
}

/// In the order of their numbers.
const REASONS: [ReasonCode; 4] = [
    ReasonCode::PermanentTermination,
    ReasonCode::NewServerAssigned,
    ReasonCode::ServerChange,
    ReasonCode::RemoveScscf,
];

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rtr {
    pub impi: Impi,
    /// Empty: all identities of the private identity.
    pub impus: Vec<Impu>,
    pub reason: ReasonCode,
    pub reason_info: Option<String>,
}

impl Rtr {
    pub fn to_message(&self) -> Message {
        super::request(command::REGISTRATION_TERMINATION, |w| {
            w.utf8(&dict::USER_NAME, self.impi.as_str());
            self.impus.iter().for_each(|impu| w.utf8(&dict::PUBLIC_IDENTITY, impu.as_str()));
            w.group(&dict::DEREGISTRATION_REASON, |w| {
                w.u32(&dict::REASON_CODE, self.reason as u32);
                if let Some(info) = &self.reason_info {
                    w.utf8(&dict::REASON_INFO, info);
                }
            });
        })
    }

    pub fn from_message(m: &Message) -> Result<Self, DiameterError> {
        let avps = m.avps();
        let reason = avps.required(&dict::DEREGISTRATION_REASON)?.group()?;
        Ok(Self {
            impi: impi(avps.required(&dict::USER_NAME)?)?,
            impus: impus(&avps)?,
            reason: number(reason.required(&dict::REASON_CODE)?, &REASONS)?,
            reason_info: optional_text(&reason, &dict::REASON_INFO)?,
        })
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rta {
    pub result: ResultCode,
}

impl Rta {
    /// The answer to `request` (Session-Id, Proxy-Info and identifiers come from it).
    pub fn to_message(&self, request: &Message) -> Message {
        super::answer(request, self.result, |_| ())
    }

    /// Also reads a bare base-protocol error answer (E bit).
    pub fn from_message(m: &Message) -> Result<Self, DiameterError> {
        Ok(Self { result: ResultCode::from_message(m)? })
    }
}
