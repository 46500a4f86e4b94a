//! What a request's transaction is found by (RFC 3261 17.2.3), as fingerprints: the texts themselves are as long as a peer
//! likes to make them, and nothing but comparing them is ever done.

use super::via;
use crate::headers::{CSeq, From, Via};
use crate::{Message, Method, Name};
use std::hash::{BuildHasher, RandomState};

/// A keyed hash so wide that no two texts share one, by accident or by design.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Print(u64, u64);

#[cfg(test)]
impl Print {
    pub(super) fn for_test(number: u64) -> Self {
        Self(number, !number)
    }
}

/// The keys of the fingerprints.
#[derive(Default)]
pub(super) struct Prints(RandomState, RandomState);

/// The server transaction that a request belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Identity {
    /// The branch, or its RFC 2543 substitute.
    pub(super) branch: Print,
    sent_by: u64,
    method: u64,
    /// The branch has the magic cookie: it is unique by itself.
    pub(super) modern: bool,
}

impl Identity {
    /// All of it in one.
    pub(super) fn print(&self) -> Print {
        let Print(a, b) = self.branch;
        Print(a ^ self.sent_by, b ^ self.method)
    }
}

impl Prints {
    fn of(&self, parts: &[&str]) -> Print {
        Print(self.0.hash_one(parts), self.1.hash_one(parts))
    }

    fn method(&self, method: Method<'_>) -> u64 {
        self.1.hash_one(method.as_str())
    }

    /// Sent-by is compared in lower case, with its port.
    fn sent_by(&self, via: &Via<'_>) -> u64 {
        let port = via.port.unwrap_or(via::SIP_PORT);
        match via.host.bytes().any(|b| b.is_ascii_uppercase()) {
            true => self.0.hash_one((via.host.to_ascii_lowercase().as_str(), port)),
            false => self.0.hash_one((via.host, port)),
        }
    }

    pub(super) fn identity(&self, request: &Message) -> Option<Identity> {
        let via: Via<'_> = request.first().ok().flatten()?;
        let branch = via.params.value("branch");
        let modern = branch.is_some_and(|b| b.len() > via::COOKIE.len() && b.starts_with(via::COOKIE));
        let print = match branch {
            Some(branch) if modern => self.of(&[branch]),
            // RFC 2543: Request-URI, From tag, Call-ID, CSeq number and the topmost Via.
            branch => {
                let from: From<'_> = request.first().ok().flatten()?;
                let cseq: CSeq<'_> = request.first().ok().flatten()?;
                let (tag, number) = (from.tag().unwrap_or_default(), cseq.number.to_string());
                let call_id = request.text(Name::CallId)?;
                self.of(&[request.uri(), tag, call_id, branch.unwrap_or_default(), &number])
            }
        };
        let (sent_by, method) = (self.sent_by(&via), self.method(request.method()));
        Some(Identity { branch: print, sent_by, method, modern })
    }

    /// The same, had the request another method.
    pub(super) fn with_method(&self, identity: &Identity, method: Method<'_>) -> Identity {
        Identity { method: self.method(method), ..*identity }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use bytes::Bytes;

    pub(in super::super) fn request(method: &str, via: &str) -> Message {
        let text = format!(
            "{method} sip:b SIP/2.0\r\nVia: SIP/2.0/UDP {via}\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: c\r\n\
             CSeq: 7 {method}\r\nContent-Length: 0\r\n\r\n"
        );
        Message::parse(Bytes::from(text)).unwrap()
    }

    #[test]
    fn branch_sent_by_and_method_tell_transactions_apart() {
        let prints = Prints::default();
        let of = |method: &str, via: &str| prints.identity(&request(method, via)).unwrap();
        let one = of("INVITE", "Host;branch=z9hG4bK7");
        assert_eq!(one, of("INVITE", "host:5060;rport;branch=z9hG4bK7"));
        assert!(one.modern);
        for (method, via) in [
            ("INVITE", "host;branch=z9hG4bK8"),
            ("INVITE", "host:5061;branch=z9hG4bK7"),
            ("INVITE", "other;branch=z9hG4bK7"),
            ("CANCEL", "host;branch=z9hG4bK7"),
        ] {
            assert_ne!(one.print(), of(method, via).print(), "{method} {via}");
        }
        assert_eq!(prints.with_method(&of("CANCEL", "host;branch=z9hG4bK7"), Method::Invite), one);
    }

    #[test]
    fn without_the_cookie_the_headers_tell() {
        let prints = Prints::default();
        let of = |via: &str| prints.identity(&request("OPTIONS", via)).unwrap();
        assert!(!of("host").modern && !of("host;branch=z9hG4bK").modern);
        assert_eq!(of("host;branch=1"), of("host;branch=1"));
        assert_ne!(of("host;branch=1").branch, of("host;branch=2").branch);
    }
}
