//! Security agreement: what a UE offers, what we choose, and whether both still speak of the same thing
//! (RFC 3329, TS 33.203 7.2 and Annex H, TS 24.229 5.2.2.2).
//!
//! Handsets re-sort parameters, leave out defaults and mix upper and lower case: everything is compared as parsed
//! values.

use crate::config::Security;
use ims_core::sa::{AuthAlg, EncAlg, SaSet, Suite};
use ims_sip::headers::{SecMechanism, SecurityClient, SecurityVerify};
use ims_sip::message::HeaderError;
use ims_sip::{Message, Name};
use std::fmt;

/// A handset lists six to twelve; more than this is nobody's list.
const MOST_MECHANISMS: usize = 48;
/// SPIs 0 to 255 are reserved (RFC 4303 2.1).
const LEAST_SPI: u32 = 256;

/// One mechanism with its defaults filled in and its words in lower case.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Mechanism {
    name: String,
    alg: String,
    ealg: String,
    prot: String,
    mode: String,
    spi_c: Option<u32>,
    spi_s: Option<u32>,
    port_c: Option<u16>,
    port_s: Option<u16>,
}

/// A mechanism of the UE that we could use: its suite, and the SPIs and ports that the UE chose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Offer {
    pub(crate) suite: Suite,
    pub(crate) spi_uc: u32,
    pub(crate) spi_us: u32,
    pub(crate) port_uc: u16,
    pub(crate) port_us: u16,
}

/// What a REGISTER says about security agreement.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Proposal {
    /// The whole Security-Client, sorted, for the comparison after the challenge.
    pub(crate) client: Vec<Mechanism>,
    /// What we could use, best first by our preference.
    pub(crate) usable: Vec<Offer>,
    /// A suite of our preference is among them, whether its SPIs and ports can be used or not.
    pub(crate) suits: bool,
    /// `sec-agree` stands in Require or Proxy-Require.
    pub(crate) required: bool,
}

impl Proposal {
    pub(crate) fn read(message: &Message, security: &Security) -> Result<Self, HeaderError> {
        let too_many = HeaderError { name: "Security-Client", reason: "too many mechanisms" };
        let listed: Vec<SecurityClient> = message.all()?;
        if listed.len() > MOST_MECHANISMS {
            return Err(too_many);
        }
        let mut client: Vec<Mechanism> = listed.iter().map(|c| Mechanism::of(&c.0)).collect();
        let usable = by_preference(&client, security);
        let suits = client.iter().filter_map(Mechanism::suite).any(|s| security.preference.iter().any(|p| p.0 == s));
        client.sort();
        let required =
            message.has_token(Name::Require, "sec-agree") || message.has_token(Name::ProxyRequire, "sec-agree");
        Ok(Self { client, usable, suits, required })
    }

    /// The suites offered, for the operator.
    pub(crate) fn offered(&self) -> String {
        let mut words: Vec<String> = self.client.iter().map(Mechanism::to_string).collect();
        words.dedup();
        words.truncate(8);
        words.join(", ")
    }
}

fn by_preference(client: &[Mechanism], security: &Security) -> Vec<Offer> {
    let offers: Vec<Offer> = client.iter().filter_map(Mechanism::offer).collect();
    security.preference.iter().filter_map(|p| offers.iter().find(|o| o.suite == p.0)).copied().collect()
}

impl Mechanism {
    pub(crate) fn of(m: &SecMechanism) -> Self {
        let word = |value: &Option<String>, absent: &str| {
            value.as_deref().map_or_else(|| absent.to_owned(), str::to_ascii_lowercase)
        };
        Self {
            name: m.mechanism.to_ascii_lowercase(),
            alg: word(&m.alg, ""),
            ealg: word(&m.ealg, "null"),
            prot: word(&m.prot, "esp"),
            mode: word(&m.mode, "trans"),
            spi_c: m.spi_c,
            spi_s: m.spi_s,
            port_c: m.port_c,
            port_s: m.port_s,
        }
    }

    /// What stands in our Security-Server for this set.
    fn server(set: &SaSet) -> Self {
        Self {
            name: "ipsec-3gpp".into(),
            alg: set.suite.alg.token().into(),
            ealg: set.suite.ealg.token().into(),
            prot: "esp".into(),
            mode: "trans".into(),
            spi_c: Some(set.spi_pc),
            spi_s: Some(set.spi_ps),
            port_c: Some(set.port_pc),
            port_s: Some(set.port_ps),
        }
    }

    /// None when it is no IPsec that we speak.
    fn suite(&self) -> Option<Suite> {
        if self.name != "ipsec-3gpp" || self.prot != "esp" || self.mode != "trans" {
            return None;
        }
        let suite = Suite { alg: AuthAlg::from_token(&self.alg)?, ealg: EncAlg::from_token(&self.ealg)? };
        suite.is_valid().then_some(suite)
    }

    /// None when it cannot be used.
    fn offer(&self) -> Option<Offer> {
        let suite = self.suite()?;
        let spi = |spi: Option<u32>| spi.filter(|s| *s >= LEAST_SPI);
        let port = |port: Option<u16>| port.filter(|p| *p > 0);
        let offer = Offer {
            suite,
            spi_uc: spi(self.spi_c)?,
            spi_us: spi(self.spi_s)?,
            port_uc: port(self.port_c)?,
            port_us: port(self.port_s)?,
        };
        (offer.spi_uc != offer.spi_us && offer.port_uc != offer.port_us).then_some(offer)
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // From the network into a log line: nothing that is no token.
        let token = |text: &str| -> String {
            text.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(24).collect()
        };
        match self.name == "ipsec-3gpp" {
            true => write!(f, "{}/{}", token(&self.alg), token(&self.ealg)),
            false => f.write_str(&token(&self.name)),
        }
    }
}

/// Security-Server for a challenge: the one mechanism we chose, with our SPIs and ports.
pub(crate) fn security_server(set: &SaSet, q: f32) -> String {
    format!(
        "ipsec-3gpp;q={};prot=esp;mod=trans;spi-c={};spi-s={};port-c={};port-s={};alg={};ealg={}",
        q_value(q),
        set.spi_pc,
        set.spi_ps,
        set.port_pc,
        set.port_ps,
        set.suite.alg.token(),
        set.suite.ealg.token()
    )
}

/// Security-Server for a 421 or 494: what we would accept, best first (RFC 3329 2.3.1).
pub(crate) fn acceptable(security: &Security) -> String {
    let mechanism = |(place, suite): (usize, &crate::config::SuiteName)| {
        let q = 1.0 - 0.05 * f32::from(u8::try_from(place.min(18)).unwrap_or(18));
        let (alg, ealg) = (suite.0.alg.token(), suite.0.ealg.token());
        format!("ipsec-3gpp;q={};prot=esp;mod=trans;alg={alg};ealg={ealg}", q_value(q))
    };
    security.preference.iter().enumerate().map(mechanism).collect::<Vec<_>>().join(", ")
}

/// `0.1`, `1`: at most three decimals (RFC 3261 25.1 qvalue).
fn q_value(q: f32) -> String {
    let text = format!("{q:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text.is_empty() { "0".into() } else { text.into() }
}

/// Whether Security-Verify repeats what Security-Server said for this set. None: there is no such header.
pub(crate) fn verifies(message: &Message, set: &SaSet) -> Option<bool> {
    if !message.has(Name::SecurityVerify) {
        return None;
    }
    let Ok(listed) = message.all::<SecurityVerify>() else {
        return Some(false);
    };
    let sent = Mechanism::server(set);
    let right = |v: &SecurityVerify| Mechanism::of(&v.0) == sent;
    Some(!listed.is_empty() && listed.len() <= MOST_MECHANISMS && listed.iter().all(right))
}

/// Takes security agreement out of a request for the core (RFC 3329 2.3.1): the header fields, and the option tag
/// with the fields that it leaves empty.
pub(crate) fn strip(message: &mut Message) {
    for name in [Name::SecurityClient, Name::SecurityServer, Name::SecurityVerify] {
        message.remove(name);
    }
    for name in [Name::Require, Name::ProxyRequire, Name::Supported] {
        message.remove_token(name, "sec-agree");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SuiteName;
    use bytes::Bytes;

    fn register(lines: &str) -> Message {
        let text = format!(
            "REGISTER sip:ims.example SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.7:5060;branch=z9hG4bKa\r\nFrom: <sip:a@ims.example>;tag=1\r\n\
             To: <sip:a@ims.example>\r\nCall-ID: c\r\nCSeq: 1 REGISTER\r\nMax-Forwards: 70\r\n{lines}Content-Length: 0\r\n\r\n"
        );
        Message::parse(Bytes::from(text)).unwrap()
    }

    fn security(preference: &[&str]) -> Security {
        Security {
            preference: preference.iter().map(|p| SuiteName::parse(p).unwrap()).collect(),
            ..Security::default()
        }
    }

    fn suite(text: &str) -> Suite {
        SuiteName::parse(text).unwrap().0
    }

    const SAMSUNG: &str = "Security-Client: ipsec-3gpp;prot=esp;mod=trans;spi-c=1000;spi-s=1001;port-c=5100;port-s=5101;alg=hmac-md5-96;ealg=des-ede3-cbc,\
        ipsec-3gpp;prot=esp;mod=trans;spi-c=1000;spi-s=1001;port-c=5100;port-s=5101;alg=hmac-md5-96;ealg=aes-cbc,\
        ipsec-3gpp;prot=esp;mod=trans;spi-c=1000;spi-s=1001;port-c=5100;port-s=5101;alg=hmac-sha-1-96;ealg=aes-cbc\r\n\
        Security-Client: ipsec-3gpp;prot=esp;mod=trans;spi-c=1000;spi-s=1001;port-c=5100;port-s=5101;alg=hmac-sha-1-96\r\n";

    #[test]
    fn the_best_mutual_suite_is_taken_by_our_preference_over_commas_and_lines() {
        let p =
            Proposal::read(&register(SAMSUNG), &security(&["hmac-sha-1-96/null", "hmac-sha-1-96/aes-cbc"])).unwrap();
        assert_eq!(p.client.len(), 4);
        assert_eq!(
            p.usable.iter().map(|o| o.suite).collect::<Vec<_>>(),
            [suite("hmac-sha-1-96/null"), suite("hmac-sha-1-96/aes-cbc")]
        );
        assert_eq!((p.usable[0].port_uc, p.usable[0].port_us, p.usable[0].spi_uc), (5100, 5101, 1000));
        assert!(!p.required);
    }

    #[test]
    fn motorola_leaves_out_defaults_and_puts_blanks() {
        let m = register(
            "Require: sec-agree\r\nSecurity-Client: ipsec-3gpp; alg=hmac-sha-1-96; ealg=aes-cbc; spi-c=4294967000; \
             spi-s=4294967001; port-c=32000; port-s=32001\r\n",
        );
        let p = Proposal::read(&m, &Security::default()).unwrap();
        assert_eq!(p.usable[0].spi_uc, 4_294_967_000);
        assert!(p.required);
    }

    #[test]
    fn what_cannot_be_used_is_no_offer() {
        for (line, why) in [
            ("tls", "another mechanism"),
            ("ipsec-3gpp;alg=hmac-sha-1-96;spi-c=300;spi-s=301;port-c=1", "no port-s"),
            ("ipsec-3gpp;alg=hmac-sha-1-96;spi-c=200;spi-s=301;port-c=1;port-s=2", "reserved SPI"),
            ("ipsec-3gpp;alg=hmac-sha-1-96;spi-c=300;spi-s=300;port-c=1;port-s=2", "one SPI twice"),
            ("ipsec-3gpp;alg=hmac-sha-1-96;prot=ah;spi-c=300;spi-s=301;port-c=1;port-s=2", "AH"),
            ("ipsec-3gpp;alg=hmac-sha-1-96;mod=UDP-enc-tun;spi-c=300;spi-s=301;port-c=1;port-s=2", "tunnel"),
            ("ipsec-3gpp;alg=hmac-sha-1-96;ealg=aes-gcm;spi-c=300;spi-s=301;port-c=1;port-s=2", "no suite"),
        ] {
            let p = Proposal::read(&register(&format!("Security-Client: {line}\r\n")), &Security::default()).unwrap();
            assert!(p.usable.is_empty() && !p.client.is_empty(), "{why}");
        }
    }

    fn set() -> SaSet {
        SaSet {
            ue: "192.0.2.7".parse().unwrap(),
            pcscf: "192.0.2.1".parse().unwrap(),
            spi_uc: 1000,
            spi_us: 1001,
            spi_pc: 2000,
            spi_ps: 2001,
            port_uc: 5100,
            port_us: 5101,
            port_pc: 6101,
            port_ps: 6100,
            suite: suite("hmac-sha-1-96/null"),
        }
    }

    #[test]
    fn security_verify_is_compared_as_values() {
        assert_eq!(
            security_server(&set(), 0.1),
            "ipsec-3gpp;q=0.1;prot=esp;mod=trans;spi-c=2000;spi-s=2001;port-c=6101;port-s=6100;alg=hmac-sha-1-96;ealg=null"
        );
        let says = |v: &str| verifies(&register(&format!("Security-Verify: {v}\r\n")), &set());
        // The iPhone sorts parameters by name and puts q in the middle; defaults may go missing.
        let sorted = "ipsec-3gpp;alg=HMAC-SHA-1-96;ealg=null;mod=trans;port-c=6101;port-s=6100;prot=esp;q=0.1;spi-c=2000;spi-s=2001";
        assert_eq!(says(sorted), Some(true));
        assert_eq!(says("ipsec-3gpp; alg=hmac-sha-1-96; spi-s=2001; spi-c=2000; port-s=6100; port-c=6101"), Some(true));
        assert_eq!(says(&sorted.replace("spi-c=2000", "spi-c=2002")), Some(false));
        assert_eq!(says(&sorted.replace("ealg=null", "ealg=aes-cbc")), Some(false));
        assert_eq!(says(&format!("{sorted}, tls")), Some(false));
        assert_eq!(verifies(&register(""), &set()), None);
    }

    #[test]
    fn stripping_leaves_no_empty_header() {
        let mut m = register(
            "Require: sec-agree\r\nProxy-Require: gruu, sec-agree\r\nSupported: path, sec-agree\r\nSecurity-Client: tls\r\n\
             Security-Verify: tls\r\n",
        );
        strip(&mut m);
        let text = String::from_utf8(m.to_bytes().to_vec()).unwrap();
        assert!(!text.contains("sec-agree") && !text.contains("Security-") && !text.contains("\r\nRequire"), "{text}");
        assert_eq!(m.tokens(Name::ProxyRequire), ["gruu"]);
        assert_eq!(m.tokens(Name::Supported), ["path"]);
    }

    #[test]
    fn a_421_lists_what_would_do() {
        let text = acceptable(&security(&["hmac-sha-1-96/aes-cbc", "null/aes-gcm"]));
        assert_eq!(
            text,
            "ipsec-3gpp;q=1;prot=esp;mod=trans;alg=hmac-sha-1-96;ealg=aes-cbc, \
             ipsec-3gpp;q=0.95;prot=esp;mod=trans;alg=null;ealg=aes-gcm"
        );
        assert_eq!((q_value(0.0), q_value(0.5), q_value(1.0)), ("0".into(), "0.5".into(), "1".into()));
    }
}
