//! Location-Info: the I-CSCF or an AS asks which S-CSCF serves a user (TS 29.229 6.1.5, TS 29.228 6.1.4).

use super::{ResultCode, ServerCapabilities, capabilities, impu, optional_text};
use crate::Message;
use crate::dict::{self, command};
use crate::message::DiameterError;
use ims_core::Impu;

/// The value of Originating-Request (TS 29.229 6.3.34).
const ORIGINATING: u32 = 0;
/// User-Authorization-Type REGISTRATION_AND_CAPABILITIES.
const AND_CAPABILITIES: u32 = 2;
/// Bit 0 of LIA-Flags (TS 29.229): PSI Direct Routing Indication.
const PSI_DIRECT_ROUTING: u32 = 1;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lir {
    pub impu: Impu,
    pub originating: bool,
    /// Asks for the capabilities although an S-CSCF is assigned: that one does not answer.
    pub capabilities: bool,
}

impl Lir {
    pub fn to_message(&self) -> Message {
        super::request(command::LOCATION_INFO, |w| {
            if self.originating {
                w.u32(&dict::ORIGINATING_REQUEST, ORIGINATING);
            }
            w.utf8(&dict::PUBLIC_IDENTITY, self.impu.as_str());
            if self.capabilities {
                w.u32(&dict::USER_AUTHORIZATION_TYPE, AND_CAPABILITIES);
            }
        })
    }

    pub fn from_message(m: &Message) -> Result<Self, DiameterError> {
        let kinds = [&dict::USER_AUTHORIZATION_TYPE, &dict::PUBLIC_IDENTITY, &dict::ORIGINATING_REQUEST];
        let picked = m.avps().pick(kinds)?;
        let kind = picked.optional(0).map(|a| a.u32()).transpose()?;
        Ok(Self {
            impu: impu(picked.required(1)?)?,
            originating: picked.optional(2).is_some(),
            capabilities: kind == Some(AND_CAPABILITIES),
        })
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lia {
    pub result: ResultCode,
    pub server_name: Option<String>,
    pub capabilities: Option<ServerCapabilities>,
    pub wildcarded: Option<String>,
    /// The server is the application server of a service, and no S-CSCF.
    pub is_direct: bool,
}

impl Lia {
    /// Nothing but a result.
    pub fn bare(result: ResultCode) -> Self {
        Self { result, server_name: None, capabilities: None, wildcarded: None, is_direct: false }
    }
}

impl Lia {
    /// The answer to `request` (Session-Id, Proxy-Info and identifiers come from it).
    pub fn to_message(&self, request: &Message) -> Message {
        super::answer(request, self.result, |w| {
            if let Some(name) = &self.server_name {
                w.utf8(&dict::SERVER_NAME, name);
            }
            if let Some(capabilities) = &self.capabilities {
                capabilities.write(w);
            }
            if let Some(identity) = &self.wildcarded {
                w.utf8(&dict::WILDCARDED_PUBLIC_IDENTITY, identity);
            }
            if self.is_direct {
                w.u32(&dict::LIA_FLAGS, PSI_DIRECT_ROUTING);
            }
        })
    }

    /// Also reads a bare base-protocol error answer (E bit): only `result` is set then.
    pub fn from_message(m: &Message) -> Result<Self, DiameterError> {
        let result = ResultCode::from_message(m)?;
        let Some(avps) = super::answer_body(m, result) else {
            return Ok(Self::bare(result));
        };
        Ok(Self {
            result,
            server_name: optional_text(&avps, &dict::SERVER_NAME)?,
            capabilities: capabilities(&avps)?,
            wildcarded: super::wildcarded(&avps)?,
            is_direct: match avps.optional(&dict::LIA_FLAGS)? {
                Some(flags) => flags.u32()? & PSI_DIRECT_ROUTING != 0,
                None => false,
            },
        })
    }
}
