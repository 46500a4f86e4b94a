//! Whether a running process of ours is well, asked from outside as a container engine does: by a program, not by curl.

use crate::Listen;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(4);

/// Asks the process that listens as configured, or else at `usual` (`GET /healthz`). The error is for its operator.
pub fn ask(configured: Listen, usual: SocketAddr) -> Result<(), String> {
    match configured.or(Some(usual)) {
        Some(addr) => ask_at(reachable(addr)),
        None => Err("shell.http is \"off\": without it nobody can ask whether this process is well".into()),
    }
}

/// What listens on every address is asked on loopback.
fn reachable(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, addr.port())
}

fn ask_at(addr: SocketAddr) -> Result<(), String> {
    let answer = exchange(addr).map_err(|error| format!("{addr} does not answer: {error}"))?;
    let status = answer.split(' ').nth(1).unwrap_or_default();
    match status {
        "200" => Ok(()),
        _ => Err(format!("{addr} answers {}", answer.lines().last().unwrap_or("nothing"))),
    }
}

fn exchange(addr: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET /healthz HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(16_384).read_to_string(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn what_does_not_answer_or_is_off_is_not_well() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let other = "192.0.2.1:1".parse().unwrap();
        assert!(ask(Listen::At(closed), other).unwrap_err().contains(&closed.to_string()));
        assert!(ask(Listen::Default, closed).unwrap_err().contains(&closed.to_string()));
        assert!(ask(Listen::Off, closed).unwrap_err().contains("off"));
        assert_eq!(reachable("0.0.0.0:1".parse().unwrap()).to_string(), "127.0.0.1:1");
        assert_eq!(reachable("[::]:1".parse().unwrap()).to_string(), "[::1]:1");
    }
}
