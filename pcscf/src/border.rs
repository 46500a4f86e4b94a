//! What may not pass between a UE and the network, in either direction (TS 24.229 5.2.6, RFC 7315 4, RFC 3325, RFC 3329).
//! Everything that is not named here passes byte for byte.

use crate::config::Config;
use crate::{charging, sec_agree};
use ims_sip::headers::{PAccessNetworkInfo, Privacy, pieces};
use ims_sip::{Message, Name};

/// What only the network writes, and takes from no UE.
const OF_THE_NETWORK: [Name; 9] = [
    Name::Path,
    Name::ServiceRoute,
    Name::PVisitedNetworkId,
    Name::PAssociatedUri,
    Name::PServedUser,
    Name::PProfileKey,
    Name::PUserDatabase,
    Name::PCalledPartyId,
    Name::PAssertedService,
];

/// What is of this P-CSCF and its UE, or of the core alone.
const NOT_FOR_A_UE: [Name; 8] = [
    Name::SecurityServer,
    Name::SecurityClient,
    Name::SecurityVerify,
    Name::PProfileKey,
    Name::PUserDatabase,
    Name::PServedUser,
    Name::PVisitedNetworkId,
    Name::PAccessNetworkInfo,
];

/// A request or a response of a UE, on its way to the core.
pub(crate) fn from_ue(message: &mut Message, config: &Config) {
    for name in OF_THE_NETWORK {
        message.remove(name);
    }
    charging::strip(message);
    sec_agree::strip(message);
    access_network(message, config);
    early_media(message, config.trust_early_media);
}

/// A request or a response of the core, on its way to a UE.
pub(crate) fn toward_ue(message: &mut Message) {
    charging::strip(message);
    for name in NOT_FOR_A_UE {
        message.remove(name);
    }
    withhold_identity(message);
}

/// Who calls, or who answers, and does not want that to be told (RFC 3325 7, RFC 3323 4.2).
fn withhold_identity(message: &mut Message) {
    let wants = message.each::<Privacy<'_>>().any(|p| p.is_ok_and(|p| p.has("id")));
    if wants {
        message.remove(Name::PAssertedIdentity);
    }
}

/// P-Access-Network-Info of a UE: passed on when it is trusted, but never what claims to be provided by the network
/// (TS 24.229 7.2A.4); that is what we know ourselves, from the configuration.
pub(crate) fn access_network(message: &mut Message, config: &Config) {
    if message.has(Name::PAccessNetworkInfo) {
        let from_network = |value: &&str| {
            ims_sip::headers::TypedHeader::parse_value(value)
                .is_ok_and(|info: PAccessNetworkInfo<'_>| info.is_network_provided())
        };
        let text = message.raw(Name::PAccessNetworkInfo).filter_map(|v| std::str::from_utf8(v).ok());
        let kept: Vec<String> = text.flat_map(pieces).filter(|v| !from_network(v)).map(str::to_owned).collect();
        message.remove(Name::PAccessNetworkInfo);
        for value in kept.iter().filter(|_| config.trust_access_network_info) {
            message.push_back(Name::PAccessNetworkInfo, value);
        }
    }
    if !message.has(Name::PAccessNetworkInfo) && !config.access_network.is_empty() {
        message.push_back(Name::PAccessNetworkInfo, format_args!("{};network-provided", config.access_network));
    }
}

/// That a UE knows P-Early-Media may be said; whether its media may pass before the answer, it does not decide by itself
/// (RFC 5009 6, 8).
fn early_media(message: &mut Message, is_trusted: bool) {
    if is_trusted || !message.has(Name::PEarlyMedia) {
        return;
    }
    let knows = message.is_request() && message.has_token(Name::PEarlyMedia, "supported");
    message.remove(Name::PEarlyMedia);
    if knows {
        message.push_back(Name::PEarlyMedia, "supported");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn with(headers: &str) -> Message {
        let text = format!(
            "INVITE sip:b@x SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bKx\r\n{headers}From: <sip:a@x>;tag=1\r\n\
             To: <sip:b@x>\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n"
        );
        Message::parse(Bytes::from(text)).unwrap()
    }

    fn access(headers: &str, trust: bool, known: &str) -> Vec<String> {
        let config = Config { trust_access_network_info: trust, access_network: known.into(), ..Config::default() };
        let mut m = with(headers);
        access_network(&mut m, &config);
        m.raw(Name::PAccessNetworkInfo).map(|v| String::from_utf8_lossy(v).into_owned()).collect()
    }

    #[test]
    fn only_the_network_says_what_the_network_provides() {
        let said = "P-Access-Network-Info: 3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=1\r\n";
        let forged = "P-Access-Network-Info: 3GPP-NR;network-provided, 3GPP-NR;np\r\n";
        assert_eq!(access(said, true, ""), ["3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=1"]);
        assert_eq!(access(said, true, "3GPP-NR"), ["3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=1"]);
        assert_eq!(access(said, false, "3GPP-NR"), ["3GPP-NR;network-provided"]);
        assert!(access(forged, true, "").is_empty());
        assert_eq!(access("", true, "IEEE-802.11"), ["IEEE-802.11;network-provided"]);
    }

    #[test]
    fn a_ue_that_knows_early_media_may_say_so_and_no_more() {
        for (said, trusted, left) in [
            ("P-Early-Media: supported\r\n", false, Some("supported")),
            ("P-Early-Media: sendrecv, supported\r\n", false, Some("supported")),
            ("P-Early-Media: sendrecv\r\n", false, None),
            ("P-Early-Media: sendrecv\r\n", true, Some("sendrecv")),
        ] {
            let mut m = with(said);
            early_media(&mut m, trusted);
            assert_eq!(m.text(Name::PEarlyMedia), left, "{said}");
        }
        let mut ringing = Message::response(&with(""), 183, Some("t"));
        ringing.push_named("P-Early-Media", "supported");
        early_media(&mut ringing, false);
        assert!(!ringing.has(Name::PEarlyMedia));
    }

    #[test]
    fn an_identity_is_withheld_when_its_owner_wants_that() {
        for (privacy, told) in
            [("Privacy: id\r\n", false), ("Privacy: header; ID\r\n", false), ("Privacy: none\r\n", true), ("", true)]
        {
            let mut m = with(&format!("P-Asserted-Identity: <sip:a@x>\r\n{privacy}"));
            toward_ue(&mut m);
            assert_eq!(m.has(Name::PAssertedIdentity), told, "{privacy}");
        }
    }
}
