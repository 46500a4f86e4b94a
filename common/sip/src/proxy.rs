//! What a proxy does to a message by RFC 3261 16: hop count, routes and the next hop. Which responses go on
//! is in [`crate::relay`].

use crate::endpoint::ClientFailure;
use crate::headers::{MaxForwards, Route};
use crate::{Message, Name};
use ims_core::uri::Uri;

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProxyError {
    /// 483.
    #[error("the request has passed too many hops: look for a routing loop")]
    TooManyHops,
}

impl ProxyError {
    pub fn status(self) -> u16 {
        match self {
            Self::TooManyHops => 483,
        }
    }
}

impl ClientFailure {
    /// What a proxy answers when no target answered and it has no better reason (RFC 3261 16.8, 16.9).
    pub fn status(self) -> u16 {
        match self {
            Self::Timeout => 408,
            Self::Transport(_) | Self::NoTarget(_) | Self::Overloaded => 503,
        }
    }
}

/// Decrements Max-Forwards (adds 70 when absent or unreadable); 483 when it was 0 (16.3, 16.6 item 3).
pub fn decrement_max_forwards(message: &mut Message) -> Result<(), ProxyError> {
    let left = match message.first::<MaxForwards>() {
        Ok(Some(MaxForwards(0))) => return Err(ProxyError::TooManyHops),
        // A peer that says 255 shall not keep a loop alive for longer than the default would.
        Ok(Some(MaxForwards(n))) => (n - 1).min(70),
        Ok(None) | Err(_) => 70,
    };
    message.set(Name::MaxForwards, left);
    Ok(())
}

/// Removes the topmost Route if `is_ours` says so of its URI; gives back its URI (a text copy). Also undoes what a
/// strict router before us did: it moved our Record-Route into the Request-URI (16.4).
pub fn take_own_route(message: &mut Message, is_ours: impl Fn(&Uri<'_>) -> bool) -> Option<String> {
    if let Some(uri) = undo_strict_router(message, &is_ours) {
        return Some(uri);
    }
    let uri = top_route(message).filter(|uri| Uri::parse(uri).is_ok_and(|uri| is_ours(&uri)))?;
    message.pop_first(Name::Route);
    Some(uri)
}

fn undo_strict_router(message: &mut Message, is_ours: impl Fn(&Uri<'_>) -> bool) -> Option<String> {
    if !message.has(Name::Route) {
        return None;
    }
    let uri = message.uri().to_owned();
    // We never hand out an lr parameter but in Record-Route, Path and Service-Route.
    Uri::parse(&uri).ok().filter(|uri| uri.has_param("lr") && is_ours(uri))?;
    let mut routes = routes(message)?;
    let (_, target) = routes.pop()?;
    message.set_uri(&target);
    write_routes(message, &routes);
    Some(uri)
}

/// The URI to send to: topmost Route, or else the Request-URI (16.6 item 7).
pub fn next_hop(message: &Message) -> String {
    top_route(message).unwrap_or_else(|| message.uri().to_owned())
}

/// Like [`next_hop`], and makes the request fit for a strict router when the topmost Route is one (16.6 item 6): the
/// Request-URI goes to the end of the routes, the first route becomes the Request-URI.
pub fn prepare_next_hop(message: &mut Message) -> String {
    let next = next_hop(message);
    let strict = message.has(Name::Route) && Uri::parse(&next).is_ok_and(|uri| !uri.has_param("lr"));
    if let Some(mut routes) = strict.then(|| routes(message)).flatten() {
        routes.remove(0);
        let uri = message.uri().to_owned();
        routes.push((format!("<{uri}>"), uri));
        message.set_uri(&next);
        write_routes(message, &routes);
    }
    next
}

fn top_route(message: &Message) -> Option<String> {
    message.first::<Route<'_>>().ok().flatten().map(|route| route.uri.to_owned())
}

/// All routes: as they are printed, and their URIs. None when one cannot be read.
fn routes(message: &Message) -> Option<Vec<(String, String)>> {
    let routes = message.all::<Route<'_>>().ok()?;
    Some(routes.into_iter().map(|route| (route.to_string(), route.uri.to_owned())).collect())
}

fn write_routes(message: &mut Message, routes: &[(String, String)]) {
    message.remove(Name::Route);
    for (route, _) in routes {
        message.push_back(Name::Route, route);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn request(uri: &str, headers: &str) -> Message {
        let text = format!(
            "BYE {uri} SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bKx\r\n{headers}From: <sip:a@x>;tag=1\r\n\
             To: <sip:b@x>;tag=2\r\nCall-ID: c\r\nCSeq: 1 BYE\r\nContent-Length: 0\r\n\r\n"
        );
        Message::parse(Bytes::from(text)).unwrap()
    }

    fn raw(message: &Message, name: Name) -> Vec<String> {
        message.raw(name).map(|v| String::from_utf8_lossy(v).trim().to_owned()).collect()
    }

    fn ours(uri: &Uri<'_>) -> bool {
        uri.host() == "p.example"
    }

    #[test]
    fn max_forwards_goes_down_and_ends_at_zero() {
        for (before, after) in [("Max-Forwards: 10\r\n", "9"), ("", "70"), ("Max-Forwards: 255\r\n", "70")] {
            let mut m = request("sip:b@x", before);
            decrement_max_forwards(&mut m).unwrap();
            assert_eq!(raw(&m, Name::MaxForwards), [after]);
        }
        let mut m = request("sip:b@x", "Max-Forwards: 0\r\n");
        assert_eq!(decrement_max_forwards(&mut m), Err(ProxyError::TooManyHops));
    }

    #[test]
    fn only_our_own_topmost_route_is_taken() {
        let mut m = request("sip:b@x", "Route: <sip:tok@p.example;lr>, <sip:s.example;lr>\r\n");
        assert_eq!(take_own_route(&mut m, ours).as_deref(), Some("sip:tok@p.example;lr"));
        assert_eq!(take_own_route(&mut m, ours), None);
        assert_eq!(next_hop(&m), "sip:s.example;lr");
    }

    #[test]
    fn what_a_strict_router_did_is_undone() {
        let mut m = request("sip:tok@p.example;lr", "Route: <sip:s.example;lr>\r\nRoute: <sip:bob@192.0.2.4>\r\n");
        assert_eq!(take_own_route(&mut m, ours).as_deref(), Some("sip:tok@p.example;lr"));
        assert_eq!(m.uri(), "sip:bob@192.0.2.4");
        assert_eq!(raw(&m, Name::Route), ["<sip:s.example;lr>"]);
    }

    #[test]
    fn a_strict_router_ahead_gets_the_request_as_it_wants_it() {
        let mut m = request("sip:bob@192.0.2.4", "Route: <sip:old.example>, <sip:s.example;lr>\r\n");
        assert_eq!(prepare_next_hop(&mut m), "sip:old.example");
        assert_eq!(m.uri(), "sip:old.example");
        assert_eq!(raw(&m, Name::Route), ["<sip:s.example;lr>", "<sip:bob@192.0.2.4>"]);
        let mut m = request("sip:bob@192.0.2.4", "Route: <sip:s.example;lr>\r\n");
        assert_eq!(prepare_next_hop(&mut m), "sip:s.example;lr");
        assert_eq!(m.uri(), "sip:bob@192.0.2.4");
    }

    #[test]
    fn without_routes_the_request_uri_is_the_next_hop() {
        assert_eq!(next_hop(&request("sip:bob@192.0.2.4", "")), "sip:bob@192.0.2.4");
    }
}
