//! Header field names: the ones we know by a number, all others by their text.
//! TBD by the owner: full table incl. compact forms; case-insensitive lookup.

/// A header field name we know. `Name::Other` fields are found with the `*_named` calls of `Message`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Name {
    Via, From, To, CallId, CSeq, Contact, MaxForwards, Route, RecordRoute, Path, ServiceRoute, Expires, MinExpires,
    Authorization, WwwAuthenticate, ProxyAuthenticate, ProxyAuthorization, AuthenticationInfo,
    SecurityClient, SecurityServer, SecurityVerify, Require, ProxyRequire, Supported, Unsupported, Allow, AllowEvents,
    Accept, AcceptContact, RejectContact, RequestDisposition, ContentType, ContentLength, ContentEncoding, ContentDisposition, ContentLanguage,
    PAssociatedUri, PAssertedIdentity, PPreferredIdentity, PCalledPartyId, PVisitedNetworkId, PAccessNetworkInfo,
    PChargingVector, PChargingFunctionAddresses, PServedUser, PProfileKey, PEarlyMedia, PAssertedService, PPreferredService, PUserDatabase,
    Privacy, HistoryInfo, Diversion, Event, SubscriptionState, SessionExpires, MinSe, RSeq, RAck, RetryAfter, Reason, Warning, ErrorInfo,
    UserAgent, Server, Date, Timestamp, MimeVersion, Replaces, ReferTo, ReferredBy, InReplyTo, Organization, Subject, Priority, Geolocation, Identity, SessionId, FeatureCaps, ReplyTo, CallInfo, AlertInfo, AuthenticationInfoUnused,
    Other,
}

impl Name {
    pub fn parse(_text: &[u8]) -> Self {
        todo!()
    }
    /// The long form as we write it.
    pub fn as_str(self) -> &'static str {
        todo!()
    }
}
