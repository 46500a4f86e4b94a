//! DNS questions that nodes ask (RFC 3263, RFC 6116) and the records that come back.

use std::net::IpAddr;

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum DnsQuery {
    /// A and AAAA together; the hosts file counts.
    Address(String),
    Srv(String),
    Naptr(String),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DnsRecord {
    Address(IpAddr),
    Srv { priority: u16, weight: u16, port: u16, target: String },
    Naptr { order: u16, preference: u16, flags: String, service: String, regexp: String, replacement: String },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DnsError {
    #[error("no such name")]
    NoSuchName,
    #[error("the name has no such record")]
    NoRecord,
    #[error("no DNS server answered")]
    Unavailable,
}
