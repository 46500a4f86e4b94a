//! Our entries in Route and Record-Route, and whether a UE follows the route that it was given.
//!
//! Every entry of ours names a registration by its token, so that a request finds its UE without any state of a dialog.
//! The core sees it at our host and port of its side, the UE at the protected server port: to no other may a UE send
//! (TS 24.229 5.2.6.3.4, 5.2.6.4.3).

use crate::config::Config;
use ims_core::uri::Uri;
use ims_sip::headers::{NameAddr, RecordRoute, Route, pieces};
use ims_sip::{Message, Method, Name};
use std::net::SocketAddr;

const SIP_PORT: u16 = 5060;

impl Config {
    /// Whether a URI names this P-CSCF, on any of its sides.
    pub(crate) fn is_own(&self, uri: &Uri<'_>) -> bool {
        let at = |ip| SocketAddr::new(ip, uri.port().unwrap_or(SIP_PORT));
        let ours = |at: SocketAddr| at == self.mw.listen || self.is_clear(at) || self.is_protected(at);
        uri.is_sip() && (uri.host().eq_ignore_ascii_case(&self.host) || uri.host_ip().is_some_and(|ip| ours(at(ip))))
    }

    /// Our Record-Route entry as the core has it.
    pub(crate) fn route_for_core(&self, token: &str) -> String {
        format!("<sip:{token}@{}:{};lr>", self.host, self.mw.listen.port())
    }
}

/// Our Record-Route entry as a UE has it: `sent_by` is what Via says towards it.
pub(crate) fn route_for_ue(token: &str, sent_by: &str) -> String {
    format!("<sip:{token}@{sent_by};lr>")
}

/// Whether we stay in the path of what this request begins, or of what it goes on with: dialogs, and whatever a method that we do not know
/// may be about. MESSAGE, OPTIONS and PUBLISH begin none; PRACK, BYE, INFO and ACK change no route.
pub(crate) fn records(method: Method<'_>) -> bool {
    matches!(
        method,
        Method::Invite | Method::Update | Method::Subscribe | Method::Notify | Method::Refer | Method::Other(_)
    )
}

/// Whether the routes of a message are these. A UE may write parameters in another order (the iPhone does).
pub(crate) fn follows(message: &Message, route: &[Box<str>]) -> bool {
    let Ok(said) = message.all::<Route<'_>>() else { return false };
    let same = |said: &Route<'_>, meant: &str| NameAddr::parse(meant).is_ok_and(|meant| same_uri(said.uri, meant.uri));
    said.len() == route.len() && said.iter().zip(route).all(|(said, meant)| same(said, meant))
}

pub(crate) fn set_route(message: &mut Message, route: &[Box<str>]) {
    message.remove(Name::Route);
    for entry in route {
        message.push_back(Name::Route, entry);
    }
}

/// All values of Record-Route, as they are written.
pub(crate) fn recorded(message: &Message) -> Vec<Box<str>> {
    let lines = message.raw(Name::RecordRoute).filter_map(|line| std::str::from_utf8(line).ok());
    lines.flat_map(pieces).map(Into::into).collect()
}

/// Whether a value of Record-Route is ours, with this token.
pub(crate) fn is_recorded_by(entry: &str, token: &str, config: &Config) -> bool {
    let uri = NameAddr::parse(entry).ok().and_then(|addr| Uri::parse(addr.uri).ok());
    uri.is_some_and(|uri| uri.user() == Some(token) && config.is_own(&uri))
}

pub(crate) fn set_recorded(message: &mut Message, entries: &[Box<str>]) {
    let as_is = message.all::<RecordRoute<'_>>().is_ok_and(|all| all.len() == entries.len())
        && recorded(message).iter().eq(entries);
    if as_is {
        return;
    }
    message.remove(Name::RecordRoute);
    // Behind the Vias, where a reader looks for it.
    for entry in entries {
        message.push_back(Name::RecordRoute, entry);
    }
}

/// The same host and port, whatever stands around them.
pub(crate) fn same_place(a: &Uri<'_>, b: &Uri<'_>) -> bool {
    let same_host = a.host().eq_ignore_ascii_case(b.host()) || a.host_ip().is_some_and(|ip| b.host_ip() == Some(ip));
    a.is_sip() && b.is_sip() && same_host && a.port() == b.port()
}

/// The same place and the same parameters, in whatever order.
pub(crate) fn same_uri(a: &str, b: &str) -> bool {
    let (Ok(a), Ok(b)) = (Uri::parse(a), Uri::parse(b)) else { return a == b };
    let same_value =
        |x: Option<&str>, y: Option<&str>| x.unwrap_or_default().eq_ignore_ascii_case(y.unwrap_or_default());
    let has_all = |of: &Uri<'_>, all: &Uri<'_>| {
        all.params().all(|(name, value)| of.param(name).is_some_and(|own| same_value(own, value)))
    };
    a.scheme() == b.scheme() && a.user() == b.user() && same_place(&a, &b) && has_all(&a, &b) && has_all(&b, &a)
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

    #[test]
    fn a_route_is_followed_whatever_the_order_of_its_parameters() {
        let stored: Vec<Box<str>> = vec!["<sip:orig@s.example:6060;lr;x=1>".into(), "<sip:t.example;lr>".into()];
        for (said, follows_it) in [
            ("Route: <sip:orig@S.example:6060;x=1;lr>, <sip:t.example;lr>\r\n", true),
            ("Route: <sip:orig@s.example:6060;lr;x=1>\r\nRoute: sip:t.example;lr\r\n", false),
            ("Route: <sip:orig@s.example:6060;lr;x=2>, <sip:t.example;lr>\r\n", false),
            ("Route: <sip:t.example;lr>, <sip:orig@s.example:6060;lr;x=1>\r\n", false),
            ("Route: <sip:orig@s.example:6060;lr;x=1>\r\n", false),
            ("", false),
        ] {
            assert_eq!(follows(&with(said), &stored), follows_it, "{said}");
        }
        let mut m = with("Route: <sip:evil.example;lr>\r\n");
        set_route(&mut m, &stored);
        assert!(follows(&m, &stored));
    }

    #[test]
    fn ourselves_are_known_by_name_and_by_each_of_our_ports() {
        let config = Config::default();
        for (uri, own) in [
            ("sip:pcscf.ims.mnc001.mcc001.3gppnetwork.org;lr", true),
            ("sip:tok@127.0.0.1:5070;lr", true),
            ("sip:127.0.0.1", true),
            ("sip:127.0.0.1:6100;lr", true),
            ("sip:127.0.0.1:6060;lr", false),
            ("sip:192.0.2.9:5070;lr", false),
            ("tel:127", false),
        ] {
            assert_eq!(config.is_own(&Uri::parse(uri).unwrap()), own, "{uri}");
        }
        let entry = config.route_for_core("tok");
        assert!(is_recorded_by(&entry, "tok", &config) && !is_recorded_by(&entry, "other", &config));
        assert!(is_recorded_by(&route_for_ue("tok", "127.0.0.1:6100"), "tok", &config));
    }
}
