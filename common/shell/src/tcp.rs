//! What SIP and Diameter connections have in common: listening, limits, connecting from a given port.

use crate::Settings;
use crate::world::{TcpMeters, lock};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tracing::warn;

const BACKLOG: i32 = 1024;
/// Unacknowledged data older than this ends a connection.
const USER_TIMEOUT: Duration = Duration::from_secs(30);
const KEEPALIVE: Duration = Duration::from_secs(120);

/// Listens on `addr` (port 0: any).
pub(crate) fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    // Only now: connections that we open may share the port (TS 33.203 7.1: from the protected client port), but a
    // second process that wants to listen here must still fail.
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

/// Opens a connection from `local`; port 0 means any.
pub(crate) async fn connect(local: Option<SocketAddr>, remote: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(remote), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if let Some(local) = local.filter(|l| !l.ip().is_unspecified() || l.port() != 0) {
        socket.set_reuse_address(true)?;
        if local.port() != 0 {
            socket.set_reuse_port(true)?;
        }
        socket.bind(&local.into())?;
    }
    let connecting = TcpSocket::from_std_stream(socket.into()).connect(remote);
    let stream = tokio::time::timeout(limit, connecting).await.map_err(|_| io::ErrorKind::TimedOut)??;
    tune(&stream);
    Ok(stream)
}

/// No Nagle, and dead peers are noticed. Best effort: a connection without is still a connection.
pub(crate) fn tune(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_user_timeout(Some(USER_TIMEOUT));
    let _ = socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE));
}

/// Counts the connections of a listener.
#[derive(Clone)]
pub(crate) struct Limit {
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
    total: Arc<Mutex<usize>>,
    most: usize,
    most_per_source: usize,
}

impl Limit {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            open: Arc::default(),
            total: Arc::default(),
            most: settings.tcp_connections,
            most_per_source: settings.tcp_connections_per_source,
        }
    }

    /// A place for a connection from `source`, given back when dropped.
    pub(crate) fn admit(&self, source: IpAddr) -> Option<Place> {
        let (mut total, mut open) = (lock(&self.total), lock(&self.open));
        if *total >= self.most || open.get(&source).is_some_and(|n| *n >= self.most_per_source) {
            return None;
        }
        *total += 1;
        *open.entry(source).or_default() += 1;
        Some(Place { limit: self.clone(), source })
    }
}

pub(crate) struct Place {
    limit: Limit,
    source: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let (mut total, mut open) = (lock(&self.limit.total), lock(&self.limit.open));
        *total = total.saturating_sub(1);
        if let Some(count) = open.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.source);
            }
        }
    }
}

/// The next connection that the limits allow. None: the listener is gone.
pub(crate) async fn accept(
    listener: &TcpListener,
    limit: &Limit,
    meters: &TcpMeters,
) -> Option<(TcpStream, SocketAddr, Place)> {
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => match limit.admit(remote.ip()) {
                Some(place) => {
                    tune(&stream);
                    return Some((stream, remote, place));
                }
                None => {
                    let before = meters.refused.fetch_add(1, Ordering::Relaxed);
                    // Whoever opens thousands does not write thousands of lines.
                    if (before + 1).is_power_of_two() {
                        warn!(%remote, refused = before + 1, "connection refused: too many are open");
                    }
                }
            },
            // Out of descriptors or memory: others will close, and the peer of a connection that broke before we took it
            // will come again.
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_by_source_and_given_back() {
        let settings = Settings { tcp_connections: 3, tcp_connections_per_source: 2, ..Settings::default() };
        let limit = Limit::new(&settings);
        let (a, b): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let first = limit.admit(a).unwrap();
        let _second = limit.admit(a).unwrap();
        assert!(limit.admit(a).is_none(), "two from one source");
        let _third = limit.admit(b).unwrap();
        assert!(limit.admit(b).is_none(), "three in all");
        drop(first);
        assert!(limit.admit(a).is_some());
    }

    #[tokio::test]
    async fn a_second_listener_fails_but_a_connection_may_leave_from_the_port() {
        let (ours, theirs) =
            (listen("127.0.0.1:0".parse().unwrap()).unwrap(), listen("127.0.0.1:0".parse().unwrap()).unwrap());
        let (local, remote) = (ours.local_addr().unwrap(), theirs.local_addr().unwrap());
        assert_eq!(listen(local).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let stream = connect(Some(local), remote, Duration::from_secs(5)).await.unwrap();
        assert_eq!(stream.local_addr().unwrap(), local);
    }
}
