//! The URIs under which this S-CSCF is known, and those that it writes into messages: their user part says what a request that
//! comes back by them is about.

use crate::Config;
use ims_core::uri::{Uri, parse_ip};
use std::net::SocketAddr;

/// User parts of URIs of ours.
const SERVICE_ROUTE: &str = "orig";
const RECORD_ORIGINATING: &str = "mo";
const RECORD_TERMINATING: &str = "mt";
const ODI: &str = "odi-";

#[derive(Debug)]
pub(crate) struct Me {
    host: String,
    port: Option<u16>,
    listen: SocketAddr,
}

/// What a Route of ours says about the request that has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Marker {
    /// A UE sends it, by the Service-Route of its registration (TS 24.229 5.4.3.1).
    ServiceRoute,
    /// An application server, or another, sends it on behalf of a user: parameter `orig` (5.4.3.1, 5.7.3).
    Orig,
    /// An application server gives back what it was given: the original dialog identifier (5.4.3.4).
    Odi(Box<str>),
    /// The I-CSCF sends it, or it is within a dialog.
    Plain,
}

/// Which of the two ends a user is served at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    Originating,
    Terminating,
}

impl Me {
    pub(crate) fn of(config: &Config) -> Self {
        let name = config.name();
        let uri = Uri::parse(&name).ok();
        let host = uri.map_or(config.domain.as_str(), |uri| uri.host());
        Self { host: host.to_owned(), port: uri.and_then(|uri| uri.port()), listen: config.listen }
    }

    pub(crate) fn is_me(&self, uri: &Uri<'_>) -> bool {
        let by_name = uri.host().eq_ignore_ascii_case(&self.host) && (uri.port().is_none() || uri.port() == self.port);
        let by_address = || uri.port() == Some(self.listen.port()) && parse_ip(uri.host()) == Some(self.listen.ip());
        uri.is_sip() && (by_name || by_address())
    }

    /// The Service-Route of every registration.
    pub(crate) fn service_route(&self) -> String {
        self.route(SERVICE_ROUTE, "")
    }

    pub(crate) fn record_route(&self, side: Side) -> String {
        match side {
            Side::Originating => self.route(RECORD_ORIGINATING, ""),
            Side::Terminating => self.route(RECORD_TERMINATING, ""),
        }
    }

    pub(crate) fn odi_route(&self, token: &str) -> String {
        self.route(ODI, token)
    }

    /// Contact of a dialog of our own: where its requests come to.
    pub(crate) fn contact(&self, user: &str) -> String {
        format!("<{}>", self.uri(user, ""))
    }

    /// The S-CSCF itself stands in it: nobody else knows whom it names.
    pub(crate) fn temporary_gruu(&self, user: &str) -> String {
        let host = &self.host;
        match self.port {
            Some(port) => format!("sip:{user}@{host}:{port};gr"),
            None => format!("sip:{user}@{host};gr"),
        }
    }

    /// Where we listen: for a request of ours to ourselves.
    pub(crate) fn address(&self) -> String {
        format!("sip:{}", self.listen)
    }

    fn route(&self, user: &str, more: &str) -> String {
        format!("<{};lr>", self.uri(user, more))
    }

    fn uri(&self, user: &str, more: &str) -> String {
        let host = &self.host;
        match self.port {
            Some(port) => format!("sip:{user}{more}@{host}:{port}"),
            None => format!("sip:{user}{more}@{host}"),
        }
    }
}

impl Marker {
    /// Of a Route that was ours.
    pub(crate) fn of(uri: &str) -> Self {
        let Ok(uri) = Uri::parse(uri) else { return Self::Plain };
        match uri.user() {
            Some(SERVICE_ROUTE) => Self::ServiceRoute,
            Some(user) if user.starts_with(ODI) => Self::Odi(user[ODI.len()..].into()),
            _ if uri.has_param("orig") => Self::Orig,
            _ => Self::Plain,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_part_says_what_a_request_is_about() {
        let mut config = Config::default();
        let me = Me::of(&config);
        assert_eq!(me.service_route(), "<sip:orig@scscf.ims.mnc001.mcc001.3gppnetwork.org:6060;lr>");
        assert_eq!(me.record_route(Side::Terminating), "<sip:mt@scscf.ims.mnc001.mcc001.3gppnetwork.org:6060;lr>");
        config.name = Some("sip:[2001:db8::1]".into());
        let me = Me::of(&config);
        assert_eq!(me.service_route(), "<sip:orig@[2001:db8::1];lr>");
        let odi = me.odi_route("abc");
        let odi = odi.trim_matches(['<', '>']);
        assert!(me.is_me(&Uri::parse(odi).unwrap()));
        assert_eq!(Marker::of(odi), Marker::Odi("abc".into()));
        assert_eq!(Marker::of("sip:orig@[2001:db8::1];lr"), Marker::ServiceRoute);
        assert_eq!(Marker::of("sip:[2001:db8::1];lr;orig"), Marker::Orig);
        assert_eq!(Marker::of("sip:mo@[2001:db8::1];lr"), Marker::Plain);
        assert!(!me.is_me(&Uri::parse("sip:[2001:db8::2]").unwrap()) && !me.is_me(&Uri::parse("tel:+1").unwrap()));
    }

    #[test]
    fn we_are_known_by_name_and_by_address() {
        let me = Me::of(&Config::default());
        let is_me = |uri: &str| me.is_me(&Uri::parse(uri).unwrap());
        assert!(is_me("sip:127.0.0.1:6060") && is_me("sip:SCSCF.ims.mnc001.mcc001.3gppnetwork.org"));
        assert!(!is_me("sip:127.0.0.1") && !is_me("sip:scscf.ims.mnc001.mcc001.3gppnetwork.org:5060"));
    }
}
