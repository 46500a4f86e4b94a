//! Push-Profile: the HSS sends a changed profile to the S-CSCF (TS 29.229 6.1.11, TS 29.228 6.2).

use super::{ChargingInformation, ResultCode, impi};
use crate::Message;
use crate::dict::{self, command};
use crate::message::DiameterError;
use ims_core::Impi;
use std::fmt;

#[derive(Clone, PartialEq, Eq)]
pub struct Ppr {
    pub impi: Impi,
    pub user_data: Option<Vec<u8>>,
    pub charging: Option<ChargingInformation>,
}

impl fmt::Debug for Ppr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = self.user_data.as_ref().map(Vec::len);
        write!(f, "Ppr {{ {:?}, user_data: {length:?} bytes, {:?} }}", self.impi, self.charging)
    }
}

impl Ppr {
    pub fn to_message(&self) -> Message {
        super::request(command::PUSH_PROFILE, |w| {
            w.utf8(&dict::USER_NAME, self.impi.as_str());
            if let Some(user_data) = &self.user_data {
                w.octets(&dict::USER_DATA, user_data);
            }
            if let Some(charging) = &self.charging {
                charging.write(w);
            }
        })
    }

    pub fn from_message(m: &Message) -> Result<Self, DiameterError> {
        let avps = m.avps();
        Ok(Self {
            impi: impi(avps.required(&dict::USER_NAME)?)?,
            user_data: avps.optional(&dict::USER_DATA)?.map(|a| a.data.to_vec()),
            charging: avps.optional(&dict::CHARGING_INFORMATION)?.map(ChargingInformation::read).transpose()?,
        })
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ppa {
    pub result: ResultCode,
}

impl Ppa {
    /// The answer to `request` (Session-Id, Proxy-Info and identifiers come from it).
    pub fn to_message(&self, request: &Message) -> Message {
        super::answer(request, self.result, |_| ())
    }

    /// Also reads a bare base-protocol error answer (E bit).
    pub fn from_message(m: &Message) -> Result<Self, DiameterError> {
        Ok(Self { result: ResultCode::from_message(m)? })
    }
}
