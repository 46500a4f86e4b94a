//! Header field names: the ones we know by a number, all others by their text (RFC 3261 7.3.1: case does not matter;
//! compact forms of RFC 3261 20, RFC 6665, RFC 3515, RFC 3892, RFC 4028, RFC 3841 and RFC 4474).

macro_rules! names {
    ($($variant:ident $text:literal $($compact:literal)?),* $(,)?) => {
        /// A header field name we know. `Name::Other` fields are found with the `*_named` calls of `Message`.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum Name { $($variant,)* Other }

        /// In the order of the enum.
        const LONG: &[(Name, &str)] = &[$((Name::$variant, $text),)*];
        const COMPACT: &[(Name, u8)] = &[$($((Name::$variant, $compact),)?)*];
    };
}

names! {
    Via "Via" b'v', From "From" b'f', To "To" b't', CallId "Call-ID" b'i', CSeq "CSeq", Contact "Contact" b'm',
    MaxForwards "Max-Forwards", Route "Route", RecordRoute "Record-Route", Path "Path", ServiceRoute "Service-Route",
    Expires "Expires", MinExpires "Min-Expires", Authorization "Authorization", WwwAuthenticate "WWW-Authenticate",
    ProxyAuthenticate "Proxy-Authenticate", ProxyAuthorization "Proxy-Authorization",
    AuthenticationInfo "Authentication-Info", SecurityClient "Security-Client", SecurityServer "Security-Server",
    SecurityVerify "Security-Verify", Require "Require", ProxyRequire "Proxy-Require", Supported "Supported" b'k',
    Unsupported "Unsupported", Allow "Allow", AllowEvents "Allow-Events" b'u', Accept "Accept",
    AcceptContact "Accept-Contact" b'a', AcceptEncoding "Accept-Encoding", AcceptLanguage "Accept-Language",
    RejectContact "Reject-Contact" b'j', RequestDisposition "Request-Disposition" b'd', ContentType "Content-Type" b'c',
    ContentLength "Content-Length" b'l', ContentEncoding "Content-Encoding" b'e',
    ContentDisposition "Content-Disposition", ContentLanguage "Content-Language", PAssociatedUri "P-Associated-URI",
    PAssertedIdentity "P-Asserted-Identity", PPreferredIdentity "P-Preferred-Identity",
    PCalledPartyId "P-Called-Party-ID", PVisitedNetworkId "P-Visited-Network-ID",
    PAccessNetworkInfo "P-Access-Network-Info", PChargingVector "P-Charging-Vector",
    PChargingFunctionAddresses "P-Charging-Function-Addresses", PServedUser "P-Served-User",
    PProfileKey "P-Profile-Key", PEarlyMedia "P-Early-Media", PAssertedService "P-Asserted-Service",
    PPreferredService "P-Preferred-Service", PUserDatabase "P-User-Database", Privacy "Privacy",
    HistoryInfo "History-Info", Diversion "Diversion", Event "Event" b'o', SubscriptionState "Subscription-State",
    SessionExpires "Session-Expires" b'x', MinSe "Min-SE", RSeq "RSeq", RAck "RAck", RetryAfter "Retry-After",
    Reason "Reason", Warning "Warning", ErrorInfo "Error-Info", UserAgent "User-Agent", Server "Server", Date "Date",
    Timestamp "Timestamp", MimeVersion "MIME-Version", Replaces "Replaces", ReferTo "Refer-To" b'r',
    ReferredBy "Referred-By" b'b', InReplyTo "In-Reply-To", Organization "Organization", Subject "Subject" b's',
    Priority "Priority", Geolocation "Geolocation", Identity "Identity" b'y', SessionId "Session-ID",
    FeatureCaps "Feature-Caps", ReplyTo "Reply-To", CallInfo "Call-Info", AlertInfo "Alert-Info",
    RecvInfo "Recv-Info", InfoPackage "Info-Package", SipETag "SIP-ETag", SipIfMatch "SIP-If-Match",
}

const SLOTS: usize = 512;

/// Open addressing over the long names, built by the compiler: slot -> index into `LONG` + 1.
const TABLE: [u8; SLOTS] = {
    let mut table = [0u8; SLOTS];
    let mut i = 0;
    while i < LONG.len() {
        let mut slot = hash(LONG[i].1.as_bytes());
        while table[slot] != 0 {
            slot = (slot + 1) % SLOTS;
        }
        table[slot] = i as u8 + 1;
        i += 1;
    }
    table
};

const COMPACT_TABLE: [Name; 26] = {
    let mut table = [Name::Other; 26];
    let mut i = 0;
    while i < COMPACT.len() {
        table[(COMPACT[i].1 - b'a') as usize] = COMPACT[i].0;
        i += 1;
    }
    table
};

const fn hash(text: &[u8]) -> usize {
    let n = text.len();
    let (first, middle, last) = (text[0] | 0x20, text[n / 2] | 0x20, text[n - 1] | 0x20);
    (n * 31 + first as usize * 7 + middle as usize * 131 + last as usize * 17) % SLOTS
}

impl Name {
    pub fn parse(text: &[u8]) -> Self {
        match text {
            [] => Self::Other,
            [letter] => {
                let index = usize::from((letter | 0x20).wrapping_sub(b'a'));
                if letter.is_ascii_alphabetic() {
                    COMPACT_TABLE.get(index).copied().unwrap_or(Self::Other)
                } else {
                    Self::Other
                }
            }
            _ => {
                let mut slot = hash(text);
                while let Some((name, long)) = usize::from(TABLE[slot]).checked_sub(1).and_then(|i| LONG.get(i)) {
                    if long.as_bytes() == text || long.as_bytes().eq_ignore_ascii_case(text) {
                        return *name;
                    }
                    slot = (slot + 1) % SLOTS;
                }
                Self::Other
            }
        }
    }

    /// The long form as we write it; empty for `Other`.
    pub fn as_str(self) -> &'static str {
        LONG.get(self as usize).map_or("", |(_, text)| text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_any_case() {
        for (name, text) in LONG {
            assert_eq!(Name::parse(text.as_bytes()), *name);
            assert_eq!(Name::parse(text.to_ascii_uppercase().as_bytes()), *name);
            assert_eq!(name.as_str(), *text);
        }
    }

    #[test]
    fn compact_forms_mean_the_long_ones() {
        for (text, name) in [
            ("v", Name::Via),
            ("F", Name::From),
            ("t", Name::To),
            ("i", Name::CallId),
            ("m", Name::Contact),
            ("l", Name::ContentLength),
            ("c", Name::ContentType),
            ("e", Name::ContentEncoding),
            ("k", Name::Supported),
            ("s", Name::Subject),
            ("o", Name::Event),
            ("u", Name::AllowEvents),
            ("r", Name::ReferTo),
            ("b", Name::ReferredBy),
            ("x", Name::SessionExpires),
            ("a", Name::AcceptContact),
            ("j", Name::RejectContact),
            ("d", Name::RequestDisposition),
            ("y", Name::Identity),
            ("z", Name::Other),
            ("@", Name::Other),
        ] {
            assert_eq!(Name::parse(text.as_bytes()), name, "{text}");
        }
    }

    #[test]
    fn others_are_other() {
        for text in ["", "X-Vias", "Vi", "Content-Lengthy", "é", "\u{0}\u{0}\u{0}"] {
            assert_eq!(Name::parse(text.as_bytes()), Name::Other);
        }
    }
}
