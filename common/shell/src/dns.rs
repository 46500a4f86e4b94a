//! DNS questions of nodes, answered by the system's resolver configuration and hosts file.

use crate::world::Tasks;
use hickory_resolver::config::ResolveHosts;
use hickory_resolver::net::{DnsError as ResponseError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData};
use hickory_resolver::{Resolver, TokioResolver};
use ims_core::dns::{DnsError, DnsQuery, DnsRecord};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::Semaphore;
use tracing::warn;

/// Questions under way at a time.
const AT_ONCE: usize = 1024;
const PATIENCE: Duration = Duration::from_secs(10);
/// More records than any node would try.
const MOST: usize = 64;

#[derive(Clone)]
pub(crate) struct Dns {
    /// Made at the first question: many installations have none.
    resolver: Arc<OnceLock<Option<TokioResolver>>>,
    room: Arc<Semaphore>,
}

impl Dns {
    pub(crate) fn new() -> Self {
        Self { resolver: Arc::default(), room: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    pub(crate) fn ask(
        &self,
        tasks: &Tasks,
        query: DnsQuery,
        answer: impl FnOnce(Result<Vec<DnsRecord>, DnsError>) + Send + 'static,
    ) {
        let Ok(permit) = self.room.clone().try_acquire_owned() else {
            return answer(Err(DnsError::Unavailable));
        };
        let dns = self.clone();
        tasks.spawn(async move {
            let found = tokio::time::timeout(PATIENCE, dns.resolve(query)).await.unwrap_or(Err(DnsError::Unavailable));
            drop(permit);
            answer(found);
        });
    }

    async fn resolve(&self, query: DnsQuery) -> Result<Vec<DnsRecord>, DnsError> {
        if let DnsQuery::Address(host) = &query
            && let Ok(addr) = host.trim_matches(['[', ']']).parse::<IpAddr>()
        {
            return Ok(vec![DnsRecord::Address(addr)]);
        }
        let resolver = self.resolver.get_or_init(system_resolver).as_ref().ok_or(DnsError::Unavailable)?;
        let records: Vec<DnsRecord> = match query {
            DnsQuery::Address(host) => {
                let found = resolver.lookup_ip(absolute(&host)?).await.map_err(|e| dns_error(&e))?;
                found.iter().take(MOST).map(DnsRecord::Address).collect()
            }
            DnsQuery::Srv(name) => {
                let found = resolver.srv_lookup(absolute(&name)?).await.map_err(|e| dns_error(&e))?;
                found.answers().iter().filter_map(|r| record(&r.data)).take(MOST).collect()
            }
            DnsQuery::Naptr(name) => {
                use hickory_resolver::proto::rr::RecordType::NAPTR;
                let found = resolver.lookup(absolute(&name)?, NAPTR).await.map_err(|e| dns_error(&e))?;
                found.answers().iter().filter_map(|r| record(&r.data)).take(MOST).collect()
            }
        };
        if records.is_empty() { Err(DnsError::NoRecord) } else { Ok(records) }
    }
}

fn system_resolver() -> Option<TokioResolver> {
    let made = Resolver::builder_tokio().and_then(|mut builder| {
        let options = builder.options_mut();
        options.use_hosts_file = ResolveHosts::Always;
        options.timeout = Duration::from_secs(2);
        options.attempts = 2;
        builder.build()
    });
    made.inspect_err(|error| warn!(%error, "no DNS: /etc/resolv.conf cannot be used; names of the configuration only"))
        .ok()
}

/// Names of SIP are absolute: no search list.
fn absolute(name: &str) -> Result<Name, DnsError> {
    let mut name = Name::from_utf8(name).map_err(|_| DnsError::NoSuchName)?;
    name.set_fqdn(true);
    Ok(name)
}

fn text(name: &Name) -> String {
    name.to_utf8().trim_end_matches('.').to_owned()
}

fn record(data: &RData) -> Option<DnsRecord> {
    let string = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match data {
        RData::SRV(srv) => Some(DnsRecord::Srv {
            priority: srv.priority,
            weight: srv.weight,
            port: srv.port,
            target: text(&srv.target),
        }),
        RData::NAPTR(naptr) => Some(DnsRecord::Naptr {
            order: naptr.order,
            preference: naptr.preference,
            flags: string(&naptr.flags),
            service: string(&naptr.services),
            regexp: string(&naptr.regexp),
            replacement: text(&naptr.replacement),
        }),
        _ => None,
    }
}

fn dns_error(error: &NetError) -> DnsError {
    match error {
        NetError::Dns(ResponseError::NoRecordsFound(none)) if none.response_code == ResponseCode::NXDomain => {
            DnsError::NoSuchName
        }
        NetError::Dns(ResponseError::NoRecordsFound(_)) => DnsError::NoRecord,
        _ => DnsError::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_are_not_asked_for_and_the_hosts_file_counts() {
        let dns = Dns::new();
        let ask = |host: &str| dns.resolve(DnsQuery::Address(host.into()));
        assert_eq!(ask("192.0.2.1").await, Ok(vec![DnsRecord::Address("192.0.2.1".parse().unwrap())]));
        assert_eq!(ask("[2001:db8::1]").await, Ok(vec![DnsRecord::Address("2001:db8::1".parse().unwrap())]));
        if std::fs::read_to_string("/etc/hosts").is_ok_and(|hosts| hosts.contains("localhost")) {
            assert!(
                ask("localhost").await.unwrap().iter().all(|r| matches!(r, DnsRecord::Address(a) if a.is_loopback()))
            );
        }
        assert_eq!(ask("a..b").await, Err(DnsError::NoSuchName));
    }
}
