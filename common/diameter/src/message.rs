//! A Diameter message: header and AVPs over one shared buffer (RFC 6733 3, 4). SKELETON.
use bytes::Bytes;
#[derive(Clone, Debug)]
pub struct Message { _private: () }
/// Typed with result code (e.g. 5014 INVALID_AVP_LENGTH, 3009 INVALID_AVP_BITS, 5005 MISSING_AVP) and the offending AVP.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DiameterError { #[error("malformed")] Malformed }
impl Message {
    pub fn parse(_b: Bytes) -> Result<Self, DiameterError> { todo!() }
    pub fn to_bytes(&self) -> Bytes { todo!() }
    pub fn command(&self) -> u32 { todo!() }
    pub fn application(&self) -> u32 { todo!() }
    pub fn is_request(&self) -> bool { todo!() }
}
