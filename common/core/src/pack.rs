//! Bytes for what a node keeps across restarts: a version first, numbers in network byte order, texts with their length.
//!
//! Whoever reads them back has to expect anything: another version, half of it, bytes of somebody else.

use crate::Time;
use bytes::Bytes;
use std::net::{IpAddr, SocketAddr};

/// Appends.
#[derive(Debug)]
pub struct Writer(Vec<u8>);

impl Writer {
    pub fn new(version: u8) -> Self {
        Self(vec![version])
    }

    pub fn u8(&mut self, n: u8) {
        self.0.push(n);
    }

    pub fn u16(&mut self, n: u16) {
        self.0.extend(n.to_be_bytes());
    }

    pub fn u32(&mut self, n: u32) {
        self.0.extend(n.to_be_bytes());
    }

    pub fn u64(&mut self, n: u64) {
        self.0.extend(n.to_be_bytes());
    }

    /// How many things follow. More than 65,535 are cut off, here as in [`Writer::text`].
    pub fn count(&mut self, n: usize) {
        self.u16(u16::try_from(n).unwrap_or(u16::MAX));
    }

    pub fn text(&mut self, text: &str) {
        let mut end = text.len().min(usize::from(u16::MAX));
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.count(end);
        self.0.extend(&text.as_bytes()[..end]);
    }

    /// A text that may be absent.
    pub fn maybe(&mut self, text: Option<&str>) {
        self.u8(u8::from(text.is_some()));
        text.into_iter().for_each(|text| self.text(text));
    }

    pub fn texts(&mut self, texts: &[Box<str>]) {
        let most = texts.len().min(usize::from(u16::MAX));
        self.count(most);
        texts.iter().take(most).for_each(|text| self.text(text));
    }

    pub fn time(&mut self, time: Time) {
        self.u64(time.micros());
    }

    pub fn ip(&mut self, ip: IpAddr) {
        match ip {
            IpAddr::V4(v4) => {
                self.u8(4);
                self.0.extend(v4.octets());
            }
            IpAddr::V6(v6) => {
                self.u8(6);
                self.0.extend(v6.octets());
            }
        }
    }

    pub fn addr(&mut self, addr: SocketAddr) {
        self.ip(addr.ip());
        self.u16(addr.port());
    }

    pub fn finish(self) -> Bytes {
        self.0.into()
    }
}

/// What was read is not what was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("damaged, or written by another version")]
pub struct Damaged;

/// Takes off the front.
#[derive(Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Bytes of this version, and of no other.
    pub fn new(bytes: &'a [u8], version: u8) -> Result<Self, Damaged> {
        match bytes.split_first() {
            Some((first, rest)) if *first == version => Ok(Self(rest)),
            _ => Err(Damaged),
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        let (head, rest) = self.0.split_first_chunk().ok_or(Damaged)?;
        self.0 = rest;
        Ok(*head)
    }

    pub fn u8(&mut self) -> Result<u8, Damaged> {
        Ok(self.take::<1>()?[0])
    }

    pub fn u16(&mut self) -> Result<u16, Damaged> {
        self.take().map(u16::from_be_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, Damaged> {
        self.take().map(u32::from_be_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, Damaged> {
        self.take().map(u64::from_be_bytes)
    }

    pub fn text(&mut self) -> Result<&'a str, Damaged> {
        let length = usize::from(self.u16()?);
        let (head, rest) = self.0.split_at_checked(length).ok_or(Damaged)?;
        self.0 = rest;
        std::str::from_utf8(head).map_err(|_| Damaged)
    }

    pub fn maybe(&mut self) -> Result<Option<&'a str>, Damaged> {
        match self.u8()? {
            0 => Ok(None),
            1 => self.text().map(Some),
            _ => Err(Damaged),
        }
    }

    pub fn texts(&mut self) -> Result<Vec<Box<str>>, Damaged> {
        self.list(|r| r.text().map(Box::from))
    }

    /// As many things as the count says; memory is only taken for those that are there.
    pub fn list<T>(&mut self, mut one: impl FnMut(&mut Self) -> Result<T, Damaged>) -> Result<Vec<T>, Damaged> {
        (0..self.u16()?).map(|_| one(self)).collect()
    }

    pub fn time(&mut self) -> Result<Time, Damaged> {
        self.u64().map(Time::from_micros)
    }

    pub fn ip(&mut self) -> Result<IpAddr, Damaged> {
        match self.u8()? {
            4 => self.take::<4>().map(IpAddr::from),
            6 => self.take::<16>().map(IpAddr::from),
            _ => Err(Damaged),
        }
    }

    pub fn addr(&mut self) -> Result<SocketAddr, Damaged> {
        Ok(SocketAddr::new(self.ip()?, self.u16()?))
    }

    /// Nothing may be left over.
    pub fn end(self) -> Result<(), Damaged> {
        if self.0.is_empty() { Ok(()) } else { Err(Damaged) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written() -> Bytes {
        let mut w = Writer::new(3);
        w.u32(7);
        w.maybe(None);
        w.maybe(Some("ümlaut"));
        w.texts(&["a".into(), Box::default()]);
        w.addr("[2001:db8::1]:6100".parse().unwrap());
        w.addr("192.0.2.1:5060".parse().unwrap());
        w.time(Time::from_secs(5));
        w.finish()
    }

    fn read(bytes: &[u8]) -> Result<(), Damaged> {
        let mut r = Reader::new(bytes, 3)?;
        assert_eq!(r.u32()?, 7);
        assert_eq!((r.maybe()?, r.maybe()?), (None, Some("ümlaut")));
        assert_eq!(r.texts()?, [Box::from("a"), Box::default()]);
        assert_eq!(r.addr()?.to_string(), "[2001:db8::1]:6100");
        assert_eq!(r.addr()?.to_string(), "192.0.2.1:5060");
        assert_eq!(r.time()?, Time::from_secs(5));
        r.end()
    }

    #[test]
    fn what_is_written_is_read_again_and_nothing_less_or_more() {
        let bytes = written();
        assert_eq!(read(&bytes), Ok(()));
        for end in 0..bytes.len() {
            assert_eq!(read(&bytes[..end]), Err(Damaged), "{end}");
        }
        assert_eq!(read(&[&bytes[..], b"x"].concat()), Err(Damaged));
        assert!(Reader::new(&bytes, 4).is_err());
    }

    #[test]
    fn a_count_is_believed_only_as_far_as_bytes_go() {
        let bytes = [1, 0xff, 0xff, 0, 1, b'x'];
        assert_eq!(Reader::new(&bytes, 1).unwrap().texts(), Err(Damaged));
    }
}
