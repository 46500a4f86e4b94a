//! The AVPs and commands that we know: RFC 6733 and Cx (TS 29.229 6.3). One table, for encoding, checking and printing.

/// Data types of RFC 6733 4.2 to 4.4. `Identity` is DiameterIdentity.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    OctetString,
    Utf8String,
    Identity,
    DiameterUri,
    Unsigned32,
    Unsigned64,
    Enumerated,
    Time,
    Address,
    Grouped,
}

/// An AVP: the V bit follows from `vendor`, `mandatory` is the M bit that we send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Def {
    pub code: u32,
    pub vendor: u32,
    pub name: &'static str,
    pub kind: Kind,
    pub mandatory: bool,
}

/// Vendor-Id of the 3GPP.
pub const VENDOR_3GPP: u32 = 10415;
/// Application-Id of the base protocol and of a relay (RFC 6733 2.4).
pub const APPLICATION_BASE: u32 = 0;
pub const APPLICATION_RELAY: u32 = 0xffff_ffff;
/// Application-Id of Cx (TS 29.229 6.1).
pub const APPLICATION_CX: u32 = 16_777_216;

macro_rules! dictionary {
    ($($konst:ident = $code:literal, $vendor:expr, $name:literal, $kind:ident, $m:literal;)*) => {
        $(pub const $konst: Def =
            Def { code: $code, vendor: $vendor, name: $name, kind: Kind::$kind, mandatory: $m };)*
        /// Everything we know, in the order of vendor and code.
        pub const TABLE: &[Def] = &[$($konst),*];
    };
}

dictionary! {
    USER_NAME = 1, 0, "User-Name", Utf8String, true;
    CLASS = 25, 0, "Class", OctetString, true;
    SESSION_TIMEOUT = 27, 0, "Session-Timeout", Unsigned32, true;
    PROXY_STATE = 33, 0, "Proxy-State", OctetString, true;
    EVENT_TIMESTAMP = 55, 0, "Event-Timestamp", Time, true;
    DIGEST_REALM = 104, 0, "Digest-Realm", Utf8String, true;
    DIGEST_QOP = 110, 0, "Digest-QoP", Utf8String, true;
    DIGEST_ALGORITHM = 111, 0, "Digest-Algorithm", Utf8String, true;
    DIGEST_HA1 = 121, 0, "Digest-HA1", Utf8String, true;
    HOST_IP_ADDRESS = 257, 0, "Host-IP-Address", Address, true;
    AUTH_APPLICATION_ID = 258, 0, "Auth-Application-Id", Unsigned32, true;
    ACCT_APPLICATION_ID = 259, 0, "Acct-Application-Id", Unsigned32, true;
    VENDOR_SPECIFIC_APPLICATION_ID = 260, 0, "Vendor-Specific-Application-Id", Grouped, true;
    REDIRECT_HOST_USAGE = 261, 0, "Redirect-Host-Usage", Enumerated, true;
    REDIRECT_MAX_CACHE_TIME = 262, 0, "Redirect-Max-Cache-Time", Unsigned32, true;
    SESSION_ID = 263, 0, "Session-Id", Utf8String, true;
    ORIGIN_HOST = 264, 0, "Origin-Host", Identity, true;
    SUPPORTED_VENDOR_ID = 265, 0, "Supported-Vendor-Id", Unsigned32, true;
    VENDOR_ID = 266, 0, "Vendor-Id", Unsigned32, true;
    FIRMWARE_REVISION = 267, 0, "Firmware-Revision", Unsigned32, false;
    RESULT_CODE = 268, 0, "Result-Code", Unsigned32, true;
    PRODUCT_NAME = 269, 0, "Product-Name", Utf8String, false;
    DISCONNECT_CAUSE = 273, 0, "Disconnect-Cause", Enumerated, true;
    AUTH_SESSION_STATE = 277, 0, "Auth-Session-State", Enumerated, true;
    ORIGIN_STATE_ID = 278, 0, "Origin-State-Id", Unsigned32, true;
    FAILED_AVP = 279, 0, "Failed-AVP", Grouped, true;
    PROXY_HOST = 280, 0, "Proxy-Host", Identity, true;
    ERROR_MESSAGE = 281, 0, "Error-Message", Utf8String, false;
    ROUTE_RECORD = 282, 0, "Route-Record", Identity, true;
    DESTINATION_REALM = 283, 0, "Destination-Realm", Identity, true;
    PROXY_INFO = 284, 0, "Proxy-Info", Grouped, true;
    RE_AUTH_REQUEST_TYPE = 285, 0, "Re-Auth-Request-Type", Enumerated, true;
    REDIRECT_HOST = 292, 0, "Redirect-Host", DiameterUri, true;
    DESTINATION_HOST = 293, 0, "Destination-Host", Identity, true;
    ERROR_REPORTING_HOST = 294, 0, "Error-Reporting-Host", Identity, false;
    TERMINATION_CAUSE = 295, 0, "Termination-Cause", Enumerated, true;
    ORIGIN_REALM = 296, 0, "Origin-Realm", Identity, true;
    EXPERIMENTAL_RESULT = 297, 0, "Experimental-Result", Grouped, true;
    EXPERIMENTAL_RESULT_CODE = 298, 0, "Experimental-Result-Code", Unsigned32, true;
    INBAND_SECURITY_ID = 299, 0, "Inband-Security-Id", Unsigned32, true;
    DRMP = 301, 0, "DRMP", Enumerated, false;
    OC_SUPPORTED_FEATURES = 621, 0, "OC-Supported-Features", Grouped, false;
    OC_FEATURE_VECTOR = 622, 0, "OC-Feature-Vector", Unsigned64, false;
    OC_OLR = 623, 0, "OC-OLR", Grouped, false;
    LOAD = 650, 0, "Load", Grouped, false;
    VISITED_NETWORK_IDENTIFIER = 600, VENDOR_3GPP, "Visited-Network-Identifier", OctetString, true;
    PUBLIC_IDENTITY = 601, VENDOR_3GPP, "Public-Identity", Utf8String, true;
    SERVER_NAME = 602, VENDOR_3GPP, "Server-Name", Utf8String, true;
    SERVER_CAPABILITIES = 603, VENDOR_3GPP, "Server-Capabilities", Grouped, true;
    MANDATORY_CAPABILITY = 604, VENDOR_3GPP, "Mandatory-Capability", Unsigned32, true;
    OPTIONAL_CAPABILITY = 605, VENDOR_3GPP, "Optional-Capability", Unsigned32, true;
    USER_DATA = 606, VENDOR_3GPP, "User-Data", OctetString, true;
    SIP_NUMBER_AUTH_ITEMS = 607, VENDOR_3GPP, "SIP-Number-Auth-Items", Unsigned32, true;
    SIP_AUTHENTICATION_SCHEME = 608, VENDOR_3GPP, "SIP-Authentication-Scheme", Utf8String, true;
    SIP_AUTHENTICATE = 609, VENDOR_3GPP, "SIP-Authenticate", OctetString, true;
    SIP_AUTHORIZATION = 610, VENDOR_3GPP, "SIP-Authorization", OctetString, true;
    SIP_AUTHENTICATION_CONTEXT = 611, VENDOR_3GPP, "SIP-Authentication-Context", OctetString, true;
    SIP_AUTH_DATA_ITEM = 612, VENDOR_3GPP, "SIP-Auth-Data-Item", Grouped, true;
    SIP_ITEM_NUMBER = 613, VENDOR_3GPP, "SIP-Item-Number", Unsigned32, true;
    SERVER_ASSIGNMENT_TYPE = 614, VENDOR_3GPP, "Server-Assignment-Type", Enumerated, true;
    DEREGISTRATION_REASON = 615, VENDOR_3GPP, "Deregistration-Reason", Grouped, true;
    REASON_CODE = 616, VENDOR_3GPP, "Reason-Code", Enumerated, true;
    REASON_INFO = 617, VENDOR_3GPP, "Reason-Info", Utf8String, true;
    CHARGING_INFORMATION = 618, VENDOR_3GPP, "Charging-Information", Grouped, true;
    PRIMARY_ECF_NAME = 619, VENDOR_3GPP, "Primary-Event-Charging-Function-Name", DiameterUri, true;
    SECONDARY_ECF_NAME = 620, VENDOR_3GPP, "Secondary-Event-Charging-Function-Name", DiameterUri, true;
    PRIMARY_CCF_NAME = 621, VENDOR_3GPP, "Primary-Charging-Collection-Function-Name", DiameterUri, true;
    SECONDARY_CCF_NAME = 622, VENDOR_3GPP, "Secondary-Charging-Collection-Function-Name", DiameterUri, true;
    USER_AUTHORIZATION_TYPE = 623, VENDOR_3GPP, "User-Authorization-Type", Enumerated, true;
    USER_DATA_ALREADY_AVAILABLE = 624, VENDOR_3GPP, "User-Data-Already-Available", Enumerated, true;
    CONFIDENTIALITY_KEY = 625, VENDOR_3GPP, "Confidentiality-Key", OctetString, true;
    INTEGRITY_KEY = 626, VENDOR_3GPP, "Integrity-Key", OctetString, true;
    SUPPORTED_FEATURES = 628, VENDOR_3GPP, "Supported-Features", Grouped, false;
    FEATURE_LIST_ID = 629, VENDOR_3GPP, "Feature-List-ID", Unsigned32, false;
    FEATURE_LIST = 630, VENDOR_3GPP, "Feature-List", Unsigned32, false;
    SUPPORTED_APPLICATIONS = 631, VENDOR_3GPP, "Supported-Applications", Grouped, false;
    ASSOCIATED_IDENTITIES = 632, VENDOR_3GPP, "Associated-Identities", Grouped, false;
    ORIGINATING_REQUEST = 633, VENDOR_3GPP, "Originating-Request", Enumerated, true;
    WILDCARDED_PUBLIC_IDENTITY = 634, VENDOR_3GPP, "Wildcarded-Public-Identity", Utf8String, false;
    SIP_DIGEST_AUTHENTICATE = 635, VENDOR_3GPP, "SIP-Digest-Authenticate", Grouped, false;
    WILDCARDED_IMPU = 636, VENDOR_3GPP, "Wildcarded-IMPU", Utf8String, false;
    UAR_FLAGS = 637, VENDOR_3GPP, "UAR-Flags", Unsigned32, false;
    LOOSE_ROUTE_INDICATION = 638, VENDOR_3GPP, "Loose-Route-Indication", Enumerated, false;
    SCSCF_RESTORATION_INFO = 639, VENDOR_3GPP, "SCSCF-Restoration-Info", Grouped, false;
    PATH = 640, VENDOR_3GPP, "Path", OctetString, false;
    CONTACT = 641, VENDOR_3GPP, "Contact", OctetString, false;
    SUBSCRIPTION_INFO = 642, VENDOR_3GPP, "Subscription-Info", Grouped, false;
    CALL_ID_SIP_HEADER = 643, VENDOR_3GPP, "Call-ID-SIP-Header", OctetString, false;
    FROM_SIP_HEADER = 644, VENDOR_3GPP, "From-SIP-Header", OctetString, false;
    TO_SIP_HEADER = 645, VENDOR_3GPP, "To-SIP-Header", OctetString, false;
    RECORD_ROUTE = 646, VENDOR_3GPP, "Record-Route", OctetString, false;
    ASSOCIATED_REGISTERED_GROUPS = 647, VENDOR_3GPP, "Associated-Registered-Groups", Grouped, false;
    MULTIPLE_REGISTRATION_INDICATION = 648, VENDOR_3GPP, "Multiple-Registration-Indication", Enumerated, false;
    RESTORATION_INFO = 649, VENDOR_3GPP, "Restoration-Info", Grouped, false;
    SESSION_PRIORITY = 650, VENDOR_3GPP, "Session-Priority", Enumerated, false;
    IDENTITY_WITH_EMERGENCY_REGISTRATION =
        651, VENDOR_3GPP, "Identity-with-Emergency-Registration", Grouped, false;
    PRIVILEDGED_SENDER_INDICATION = 652, VENDOR_3GPP, "Priviledged-Sender-Indication", Enumerated, false;
    LIA_FLAGS = 653, VENDOR_3GPP, "LIA-Flags", Unsigned32, false;
    INITIAL_CSEQ_SEQUENCE_NUMBER = 654, VENDOR_3GPP, "Initial-CSeq-Sequence-Number", Unsigned32, false;
    SAR_FLAGS = 655, VENDOR_3GPP, "SAR-Flags", Unsigned32, false;
    ALLOWED_WAF_WWSF_IDENTITIES = 656, VENDOR_3GPP, "Allowed-WAF-WWSF-Identities", Grouped, false;
    WEBRTC_AUTHENTICATION_FUNCTION_NAME =
        657, VENDOR_3GPP, "WebRTC-Authentication-Function-Name", Utf8String, false;
    WEBRTC_WEB_SERVER_FUNCTION_NAME = 658, VENDOR_3GPP, "WebRTC-Web-Server-Function-Name", Utf8String, false;
    RTR_FLAGS = 659, VENDOR_3GPP, "RTR-Flags", Unsigned32, false;
    P_CSCF_SUBSCRIPTION_INFO = 660, VENDOR_3GPP, "P-CSCF-Subscription-Info", Grouped, false;
    REGISTRATION_TIME_OUT = 661, VENDOR_3GPP, "Registration-Time-Out", Time, false;
    ALTERNATE_DIGEST_ALGORITHM = 662, VENDOR_3GPP, "Alternate-Digest-Algorithm", Utf8String, false;
    ALTERNATE_DIGEST_HA1 = 663, VENDOR_3GPP, "Alternate-Digest-HA1", Utf8String, false;
    FAILED_PCSCF = 664, VENDOR_3GPP, "Failed-PCSCF", Grouped, false;
    PCSCF_FQDN = 665, VENDOR_3GPP, "PCSCF-FQDN", Utf8String, false;
    PCSCF_IP_ADDRESS = 666, VENDOR_3GPP, "PCSCF-IP-Address", Address, false;
}

const CODES: usize = 700;

/// The place in `TABLE` plus one, by code: 0 for what we do not know.
const fn index(vendor: u32) -> [u8; CODES] {
    let mut out = [0; CODES];
    let mut at = 0;
    while at < TABLE.len() {
        if TABLE[at].vendor == vendor {
            out[TABLE[at].code as usize] = at as u8 + 1;
        }
        at += 1;
    }
    out
}

static BASE_INDEX: [u8; CODES] = index(0);
static INDEX_3GPP: [u8; CODES] = index(VENDOR_3GPP);
const _: () = assert!(TABLE.len() < 255);

/// What we know of an AVP.
pub fn find(code: u32, vendor: u32) -> Option<&'static Def> {
    let index = match vendor {
        0 => &BASE_INDEX,
        VENDOR_3GPP => &INDEX_3GPP,
        _ => return None,
    };
    let at = *index.get(usize::try_from(code).ok()?)?;
    TABLE.get(usize::from(at).checked_sub(1)?)
}

/// Command codes (RFC 6733 3.1, TS 29.229 6.1).
pub mod command {
    pub const CAPABILITIES_EXCHANGE: u32 = 257;
    pub const DEVICE_WATCHDOG: u32 = 280;
    pub const DISCONNECT_PEER: u32 = 282;
    pub const USER_AUTHORIZATION: u32 = 300;
    pub const SERVER_ASSIGNMENT: u32 = 301;
    pub const LOCATION_INFO: u32 = 302;
    pub const MULTIMEDIA_AUTH: u32 = 303;
    pub const REGISTRATION_TERMINATION: u32 = 304;
    pub const PUSH_PROFILE: u32 = 305;
}

struct Command {
    code: u32,
    application: u32,
    request: &'static str,
    answer: &'static str,
}

const fn cmd(code: u32, application: u32, request: &'static str, answer: &'static str) -> Command {
    Command { code, application, request, answer }
}

static COMMANDS: &[Command] = &[
    cmd(command::CAPABILITIES_EXCHANGE, APPLICATION_BASE, "CER", "CEA"),
    cmd(command::DEVICE_WATCHDOG, APPLICATION_BASE, "DWR", "DWA"),
    cmd(command::DISCONNECT_PEER, APPLICATION_BASE, "DPR", "DPA"),
    cmd(command::USER_AUTHORIZATION, APPLICATION_CX, "UAR", "UAA"),
    cmd(command::SERVER_ASSIGNMENT, APPLICATION_CX, "SAR", "SAA"),
    cmd(command::LOCATION_INFO, APPLICATION_CX, "LIR", "LIA"),
    cmd(command::MULTIMEDIA_AUTH, APPLICATION_CX, "MAR", "MAA"),
    cmd(command::REGISTRATION_TERMINATION, APPLICATION_CX, "RTR", "RTA"),
    cmd(command::PUSH_PROFILE, APPLICATION_CX, "PPR", "PPA"),
];

/// Whether this command belongs to this application.
pub fn knows_command(code: u32, application: u32) -> bool {
    COMMANDS.iter().any(|c| c.code == code && c.application == application)
}

/// `UAR`, `UAA`, ...; `None` for a command that we do not know.
pub fn command_name(code: u32, request: bool) -> Option<&'static str> {
    let found = COMMANDS.iter().find(|c| c.code == code)?;
    Some(if request { found.request } else { found.answer })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_in_the_table_is_found_and_nothing_is_there_twice() {
        assert!(TABLE.is_sorted_by(|a, b| (a.vendor, a.code) < (b.vendor, b.code)));
        assert!(TABLE.iter().all(|def| find(def.code, def.vendor) == Some(def)));
        assert_eq!((find(u32::MAX, 0), find(1, VENDOR_3GPP), find(1, 1)), (None, None, None));
        assert_eq!(find(606, VENDOR_3GPP).map(|d| d.name), Some("User-Data"));
        assert_eq!(find(621, 0).map(|d| d.name), Some("OC-Supported-Features"));
        assert_eq!(find(606, 0), None);
        assert_eq!(command_name(303, false), Some("MAA"));
    }
}
