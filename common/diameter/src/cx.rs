//! Cx commands of TS 29.228/29.229, typed, one encoder and decoder for both ends. SKELETON: becomes `cx/{uar,mar,sar,lir,rtr,ppr}.rs`.
//! Session-Id, Origin-*, Destination-*, Auth-Session-State, Vendor-Specific-Application-Id are put in by `Endpoint`/`to_message`.
use crate::Message;
use crate::message::DiameterError;
use ims_core::{Impi, Impu, Secret};

pub const APPLICATION: u32 = 16_777_216;
pub const VENDOR_3GPP: u32 = 10415;

/// Result-Code or Experimental-Result-Code: never both (TS 29.228 6.1). Two different number spaces, hence two variants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ResultCode { Base(u32), Experimental(u32) }
impl ResultCode {
    pub const SUCCESS: Self = Self::Base(2001);
    pub const UNABLE_TO_COMPLY: Self = Self::Base(5012);
    pub const TOO_BUSY: Self = Self::Base(3004);
    pub const FIRST_REGISTRATION: Self = Self::Experimental(2001);
    pub const SUBSEQUENT_REGISTRATION: Self = Self::Experimental(2002);
    pub const UNREGISTERED_SERVICE: Self = Self::Experimental(2003);
    pub const SUCCESS_SERVER_NAME_NOT_STORED: Self = Self::Experimental(2004);
    pub const USER_UNKNOWN: Self = Self::Experimental(5001);
    pub const IDENTITIES_DONT_MATCH: Self = Self::Experimental(5002);
    pub const IDENTITY_NOT_REGISTERED: Self = Self::Experimental(5003);
    pub const ROAMING_NOT_ALLOWED: Self = Self::Experimental(5004);
    pub const IDENTITY_ALREADY_REGISTERED: Self = Self::Experimental(5005);
    pub const AUTH_SCHEME_NOT_SUPPORTED: Self = Self::Experimental(5006);
    pub const IN_ASSIGNMENT_TYPE: Self = Self::Experimental(5007);
    pub const TOO_MUCH_DATA: Self = Self::Experimental(5008);
    pub const NOT_SUPPORTED_USER_DATA: Self = Self::Experimental(5009);
    pub const FEATURE_UNSUPPORTED: Self = Self::Experimental(5011);
    pub fn is_success(self) -> bool { match self { Self::Base(c) | Self::Experimental(c) => (2000..3000).contains(&c) } }
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ServerCapabilities { pub mandatory: Vec<u32>, pub optional: Vec<u32>, pub server_names: Vec<String> }

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UserAuthorizationType { Registration, DeRegistration, RegistrationAndCapabilities }
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Uar { pub impi: Impi, pub impu: Impu, pub visited_network: Option<Vec<u8>>, pub kind: UserAuthorizationType, pub emergency: bool }
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Uaa { pub result: ResultCode, pub server_name: Option<String>, pub capabilities: Option<ServerCapabilities> }

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mar { pub impi: Impi, pub impu: Impu, pub server_name: String, pub items: u32, pub scheme: String, /** RAND || AUTS (30 bytes) on resynchronisation */ pub authorization: Option<Vec<u8>> }
/// One SIP-Auth-Data-Item.
#[derive(Clone, Debug)]
pub enum AuthItem {
    Aka { item: u32, rand: [u8; 16], autn: [u8; 16], xres: Vec<u8>, ck: Secret<16>, ik: Secret<16> },
    Digest { realm: String, algorithm: Option<String>, qop: Option<String>, ha1: String },
}
#[derive(Clone, Debug)]
pub struct Maa { pub result: ResultCode, pub impi: Option<Impi>, pub impu: Option<Impu>, pub items: Vec<AuthItem> }

/// TS 29.229 6.3.15.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ServerAssignmentType { NoAssignment, Registration, ReRegistration, UnregisteredUser, TimeoutDeregistration, UserDeregistration, TimeoutDeregistrationStoreServerName, UserDeregistrationStoreServerName, AdministrativeDeregistration, AuthenticationFailure, AuthenticationTimeout, DeregistrationTooMuchData, AaaUserDataRequest, PgwUpdate, Restoration }
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sar { pub impi: Option<Impi>, pub impus: Vec<Impu>, pub server_name: String, pub kind: ServerAssignmentType, pub data_already_available: bool, pub wildcarded: Option<String> }
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ChargingInformation { pub primary_ccf: Option<String>, pub secondary_ccf: Option<String>, pub primary_ecf: Option<String>, pub secondary_ecf: Option<String> }
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Saa { pub result: ResultCode, pub impi: Option<Impi>, pub user_data: Option<Vec<u8>>, pub charging: Option<ChargingInformation>, /** Associated-Identities: other IMPIs */ pub associated: Vec<Impi> }

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lir { pub impu: Impu, pub originating: bool, pub capabilities: bool }
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lia { pub result: ResultCode, pub server_name: Option<String>, pub capabilities: Option<ServerCapabilities>, pub wildcarded: Option<String> }

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReasonCode { PermanentTermination, NewServerAssigned, ServerChange, RemoveScscf }
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rtr { pub impi: Impi, pub impus: Vec<Impu>, pub reason: ReasonCode, pub reason_info: Option<String> }
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rta { pub result: ResultCode }
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ppr { pub impi: Impi, pub user_data: Option<Vec<u8>>, pub charging: Option<ChargingInformation> }
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ppa { pub result: ResultCode }

/// A request as the HSS (Uar..Lir) or the S-CSCF (Rtr, Ppr) sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request { Uar(Uar), Mar(Mar), Sar(Sar), Lir(Lir), Rtr(Rtr), Ppr(Ppr) }
impl Request {
    /// Err carries the Result-Code and Failed-AVP for the answer (`DiameterError`).
    pub fn from_message(_m: &Message) -> Result<Self, DiameterError> { todo!() }
}
macro_rules! skeleton { ($($req:ident $ans:ident),*) => { $(
    impl $req { pub fn to_message(&self) -> Message { todo!() } }
    impl $ans {
        /// The answer to `request` (Session-Id, Proxy-Info and identifiers come from it).
        pub fn to_message(&self, _request: &Message) -> Message { todo!() }
        /// Also reads a bare base-protocol error answer (E bit): only `result` is set then.
        pub fn from_message(_m: &Message) -> Result<Self, DiameterError> { todo!() }
    } )* } }
skeleton!(Uar Uaa, Mar Maa, Sar Saa, Lir Lia, Rtr Rta, Ppr Ppa);
