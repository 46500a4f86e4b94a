//! User-Authorization: the I-CSCF asks whether a user may register and where (TS 29.229 6.1.1, TS 29.228 6.1.1).

use super::{ResultCode, ServerCapabilities, capabilities, impi, impu, number, optional_text};
use crate::Message;
use crate::dict::{self, command};
use crate::message::DiameterError;
use ims_core::{Impi, Impu};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UserAuthorizationType {
    Registration,
    DeRegistration,
    RegistrationAndCapabilities,
}

/// In the order of their numbers (TS 29.229 6.3.24).
const TYPES: [UserAuthorizationType; 3] = [
    UserAuthorizationType::Registration,
    UserAuthorizationType::DeRegistration,
    UserAuthorizationType::RegistrationAndCapabilities,
];
/// Bit 0 of UAR-Flags (TS 29.229 6.3.44).
const EMERGENCY_REGISTRATION: u32 = 1;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Uar {
    pub impi: Impi,
    pub impu: Impu,
    pub visited_network: Option<Vec<u8>>,
    pub kind: UserAuthorizationType,
    pub emergency: bool,
}

impl Uar {
    pub fn to_message(&self) -> Message {
        super::request(command::USER_AUTHORIZATION, |w| {
            w.utf8(&dict::USER_NAME, self.impi.as_str());
            w.utf8(&dict::PUBLIC_IDENTITY, self.impu.as_str());
            if let Some(network) = &self.visited_network {
                w.octets(&dict::VISITED_NETWORK_IDENTIFIER, network);
            }
            w.u32(&dict::USER_AUTHORIZATION_TYPE, self.kind as u32);
            if self.emergency {
                w.u32(&dict::UAR_FLAGS, EMERGENCY_REGISTRATION);
            }
        })
    }

    /// A missing Visited-Network-Identifier is tolerated: a UE at home gives the I-CSCF nothing to put there.
    pub fn from_message(m: &Message) -> Result<Self, DiameterError> {
        let picked = m.avps().pick([
            &dict::USER_AUTHORIZATION_TYPE,
            &dict::UAR_FLAGS,
            &dict::USER_NAME,
            &dict::PUBLIC_IDENTITY,
            &dict::VISITED_NETWORK_IDENTIFIER,
        ])?;
        let kind = picked.optional(0).map(|a| number(a, &TYPES)).transpose()?;
        let flags = picked.optional(1).map(|a| a.u32()).transpose()?;
        Ok(Self {
            impi: impi(picked.required(2)?)?,
            impu: impu(picked.required(3)?)?,
            visited_network: picked.optional(4).map(|a| a.data.to_vec()),
            kind: kind.unwrap_or(UserAuthorizationType::Registration),
            emergency: flags.unwrap_or(0) & EMERGENCY_REGISTRATION != 0,
        })
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Uaa {
    pub result: ResultCode,
    pub server_name: Option<String>,
    pub capabilities: Option<ServerCapabilities>,
}

impl Uaa {
    /// The answer to `request` (Session-Id, Proxy-Info and identifiers come from it).
    pub fn to_message(&self, request: &Message) -> Message {
        super::answer(request, self.result, |w| {
            if let Some(name) = &self.server_name {
                w.utf8(&dict::SERVER_NAME, name);
            }
            if let Some(capabilities) = &self.capabilities {
                capabilities.write(w);
            }
        })
    }

    /// Also reads a bare base-protocol error answer (E bit): only `result` is set then.
    pub fn from_message(m: &Message) -> Result<Self, DiameterError> {
        let result = ResultCode::from_message(m)?;
        let Some(avps) = super::answer_body(m, result) else {
            return Ok(Self { result, server_name: None, capabilities: None });
        };
        Ok(Self { result, server_name: optional_text(&avps, &dict::SERVER_NAME)?, capabilities: capabilities(&avps)? })
    }
}
