//! AVPs (RFC 6733 4): views into a received buffer, and a writer.
//!
//! A view never trusts a length: it borrows what is there or fails. Unknown AVPs keep their code, vendor, flags and data.

use crate::dict::{self, Def, Kind};
use crate::error::{DiameterError, FailedAvp};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub const FLAG_VENDOR: u8 = 0x80;
pub const FLAG_MANDATORY: u8 = 0x40;
/// Groups in groups, as far as we follow them.
pub const MAX_DEPTH: usize = 16;
const MAX_U24: usize = 0xff_ffff;

/// One AVP in a buffer. `Debug` shows its name and length: data may be a key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Avp<'a> {
    pub code: u32,
    pub flags: u8,
    /// 0 without the V bit.
    pub vendor: u32,
    pub data: &'a [u8],
}

impl<'a> Avp<'a> {
    pub fn is(&self, def: &Def) -> bool {
        self.code == def.code && self.vendor == def.vendor
    }

    pub fn is_mandatory(&self) -> bool {
        self.flags & FLAG_MANDATORY != 0
    }

    pub fn def(&self) -> Option<&'static Def> {
        dict::find(self.code, self.vendor)
    }

    pub fn u32(&self) -> Result<u32, DiameterError> {
        let bytes = <[u8; 4]>::try_from(self.data).map_err(|_| self.bad_length())?;
        Ok(u32::from_be_bytes(bytes))
    }

    pub fn u64(&self) -> Result<u64, DiameterError> {
        let bytes = <[u8; 8]>::try_from(self.data).map_err(|_| self.bad_length())?;
        Ok(u64::from_be_bytes(bytes))
    }

    /// Exactly N octets.
    pub fn array<const N: usize>(&self) -> Result<[u8; N], DiameterError> {
        <[u8; N]>::try_from(self.data).map_err(|_| self.bad_length())
    }

    pub fn utf8(&self) -> Result<&'a str, DiameterError> {
        std::str::from_utf8(self.data).map_err(|_| self.bad_value())
    }

    /// The Address format (RFC 6733 4.3.1), of the families 1 and 2.
    pub fn address(&self) -> Result<IpAddr, DiameterError> {
        match self.data {
            [0, 1, rest @ ..] => Ok(Ipv4Addr::from(<[u8; 4]>::try_from(rest).map_err(|_| self.bad_length())?).into()),
            [0, 2, rest @ ..] => Ok(Ipv6Addr::from(<[u8; 16]>::try_from(rest).map_err(|_| self.bad_length())?).into()),
            [_, _, ..] => Err(self.bad_value()),
            _ => Err(self.bad_length()),
        }
    }

    /// The members of a Grouped AVP.
    pub fn group(&self) -> Result<Avps<'a>, DiameterError> {
        let members = Avps(self.data);
        let mut rest = self.data;
        while !rest.is_empty() {
            rest = take(rest)?.1;
        }
        Ok(members)
    }

    /// 5004 for this AVP.
    pub fn bad_value(&self) -> DiameterError {
        DiameterError::AvpValue(self.to_failed())
    }

    /// 5014 for this AVP: only an example of it goes back (RFC 6733 7.5).
    pub fn bad_length(&self) -> DiameterError {
        DiameterError::AvpLength(FailedAvp { flags: self.flags, ..FailedAvp::example(self.code, self.vendor) })
    }

    pub fn to_failed(&self) -> FailedAvp {
        FailedAvp { code: self.code, vendor: self.vendor, flags: self.flags, data: self.data.to_vec() }
    }
}

impl fmt::Debug for Avp<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.def() {
            Some(def) => write!(f, "{}", def.name)?,
            None => write!(f, "{}/{}", self.vendor, self.code)?,
        }
        match (self.def().map(|d| d.kind), self.group()) {
            (Some(Kind::Grouped), Ok(members)) if self.code != dict::FAILED_AVP.code => members.fmt(f),
            _ => write!(f, ":{}", self.data.len()),
        }
    }
}

/// The first AVP and what follows it. Padding may be missing at the very end.
fn take(bytes: &[u8]) -> Result<(Avp<'_>, &[u8]), DiameterError> {
    let Some((head, _)) = bytes.split_first_chunk::<8>() else {
        // A torn header: what is there of the code, with zeros behind it (RFC 6733 7.5).
        let mut code = [0; 4];
        code.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        let flags = bytes.get(4).copied().unwrap_or(0) & !FLAG_VENDOR;
        let failed = FailedAvp { code: u32::from_be_bytes(code), vendor: 0, flags, data: Vec::new() };
        return Err(DiameterError::AvpLength(failed));
    };
    let [c0, c1, c2, c3, flags, l0, l1, l2] = *head;
    let code = u32::from_be_bytes([c0, c1, c2, c3]);
    let length = usize::try_from(u32::from_be_bytes([0, l0, l1, l2])).unwrap_or(usize::MAX);
    let vendor_bytes = bytes.get(8..12).and_then(|b| <[u8; 4]>::try_from(b).ok());
    let (vendor, header) = match (flags & FLAG_VENDOR != 0, vendor_bytes) {
        (false, _) => (0, 8),
        (true, Some(v)) => (u32::from_be_bytes(v), 12),
        (true, None) => (0, 12),
    };
    let Some(data) = bytes.get(header..length) else {
        let failed = FailedAvp { flags, ..FailedAvp::example(code, vendor) };
        return Err(DiameterError::AvpLength(failed));
    };
    let rest = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    Ok((Avp { code, flags, vendor, data }, rest))
}

/// A sequence of AVPs: the body of a message or of a group.
#[derive(Clone, Copy)]
pub struct Avps<'a>(&'a [u8]);

impl<'a> Avps<'a> {
    /// Checks the framing of every AVP, and inside the groups that the dictionary knows. What is in a Failed-AVP may be
    /// broken: that is why it is there.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, DiameterError> {
        check(bytes, 1)?;
        Ok(Self(bytes))
    }

    /// As many AVPs as are well-formed from the start.
    pub(crate) fn well_formed_prefix(bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while !rest.is_empty() {
            match take(rest) {
                Ok((avp, next)) if check_one(&avp, 1).is_ok() => rest = next,
                _ => break,
            }
        }
        bytes.len() - rest.len()
    }

    pub(crate) fn unchecked(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn iter(&self) -> AvpIter<'a> {
        AvpIter(self.0)
    }

    /// The first of this kind.
    pub fn first(&self, def: &Def) -> Option<Avp<'a>> {
        self.iter().find(|avp| avp.is(def))
    }

    pub fn all<'d>(&self, def: &'d Def) -> impl Iterator<Item = Avp<'a>> + use<'a, 'd> {
        self.iter().filter(move |avp| avp.is(def))
    }

    /// The only one of this kind, if any; 5009 when there are more.
    pub fn optional(&self, def: &Def) -> Result<Option<Avp<'a>>, DiameterError> {
        let mut found = self.all(def);
        let first = found.next();
        match found.next() {
            Some(second) => Err(DiameterError::TooMany(second.to_failed())),
            None => Ok(first),
        }
    }

    /// The one of this kind; 5005 when there is none.
    pub fn required(&self, def: &Def) -> Result<Avp<'a>, DiameterError> {
        self.optional(def)?.ok_or_else(|| DiameterError::missing(def))
    }

    /// The only one of each of these kinds, in one pass; 5009 when there are more of one.
    pub fn pick<const N: usize>(&self, defs: [&'static Def; N]) -> Result<Picked<'a, N>, DiameterError> {
        let mut found = [None; N];
        for avp in self.iter() {
            if let Some(place) = defs.iter().position(|def| avp.is(def))
                && found[place].replace(avp).is_some()
            {
                return Err(DiameterError::TooMany(avp.to_failed()));
            }
        }
        Ok(Picked { defs, found })
    }

    /// The first AVP with the M bit that the dictionary does not know, also inside known groups (RFC 6733 4.1).
    pub fn unsupported(&self) -> Option<FailedAvp> {
        self.unsupported_within(1)
    }

    fn unsupported_within(&self, depth: usize) -> Option<FailedAvp> {
        self.iter().find_map(|avp| match avp.def() {
            None if avp.is_mandatory() => Some(avp.to_failed()),
            Some(def) if def.kind == Kind::Grouped && def.code != dict::FAILED_AVP.code && depth < MAX_DEPTH => {
                Avps(avp.data).unsupported_within(depth + 1)
            }
            _ => None,
        })
    }
}

impl fmt::Debug for Avps<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// What [`Avps::pick`] found, by the place of its kind in the list.
pub struct Picked<'a, const N: usize> {
    defs: [&'static Def; N],
    found: [Option<Avp<'a>>; N],
}

impl<'a, const N: usize> Picked<'a, N> {
    pub fn optional(&self, place: usize) -> Option<Avp<'a>> {
        self.found[place]
    }

    /// 5005 when it is not there.
    pub fn required(&self, place: usize) -> Result<Avp<'a>, DiameterError> {
        self.found[place].ok_or_else(|| DiameterError::missing(self.defs[place]))
    }
}

fn check(bytes: &[u8], depth: usize) -> Result<(), DiameterError> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let (avp, next) = take(rest)?;
        check_one(&avp, depth)?;
        rest = next;
    }
    Ok(())
}

fn check_one(avp: &Avp<'_>, depth: usize) -> Result<(), DiameterError> {
    let Some(def) = avp.def().filter(|d| d.kind == Kind::Grouped && d.code != dict::FAILED_AVP.code) else {
        return Ok(());
    };
    if depth >= MAX_DEPTH {
        return Err(DiameterError::TooDeep(FailedAvp::missing(def)));
    }
    check(avp.data, depth + 1)
}

/// Ends at the first AVP that is not well-formed.
#[derive(Clone, Debug)]
pub struct AvpIter<'a>(&'a [u8]);

impl<'a> Iterator for AvpIter<'a> {
    type Item = Avp<'a>;

    fn next(&mut self) -> Option<Avp<'a>> {
        if self.0.is_empty() {
            return None;
        }
        match take(self.0) {
            Ok((avp, rest)) => {
                self.0 = rest;
                Some(avp)
            }
            Err(_) => {
                self.0 = &[];
                None
            }
        }
    }
}

/// Appends AVPs to a buffer, flags and vendor by the dictionary.
#[derive(Default)]
pub struct Writer {
    out: Vec<u8>,
}

impl Writer {
    pub fn with_capacity(capacity: usize) -> Self {
        Self { out: Vec::with_capacity(capacity) }
    }

    pub fn octets(&mut self, def: &Def, data: &[u8]) {
        self.put(def.code, def.vendor, if def.mandatory { FLAG_MANDATORY } else { 0 }, data);
    }

    pub fn utf8(&mut self, def: &Def, text: &str) {
        self.octets(def, text.as_bytes());
    }

    pub fn u32(&mut self, def: &Def, value: u32) {
        self.octets(def, &value.to_be_bytes());
    }

    pub fn u64(&mut self, def: &Def, value: u64) {
        self.octets(def, &value.to_be_bytes());
    }

    pub fn address(&mut self, def: &Def, ip: IpAddr) {
        match ip {
            IpAddr::V4(ip) => {
                let [a, b, c, d] = ip.octets();
                self.octets(def, &[0, 1, a, b, c, d]);
            }
            IpAddr::V6(ip) => {
                let mut data = vec![0, 2];
                data.extend_from_slice(&ip.octets());
                self.octets(def, &data);
            }
        }
    }

    pub fn group(&mut self, def: &Def, members: impl FnOnce(&mut Self)) {
        let start = self.out.len();
        self.octets(def, &[]);
        members(self);
        self.set_length(start, def);
    }

    /// Of the AVP that begins there and goes on to the end, padding and all: the members of a group end on a boundary.
    fn set_length(&mut self, start: usize, def: &Def) {
        let length = self.out.len() - start;
        match (u32::try_from(length), self.out.get_mut(start + 5..start + 8)) {
            (Ok(number), Some(field)) if length <= MAX_U24 => field.copy_from_slice(&number.to_be_bytes()[1..]),
            _ => {
                tracing::error!(code = def.code, vendor = def.vendor, length, "AVP too long for Diameter, left out");
                self.out.truncate(start);
            }
        }
    }

    /// The AVP as it is.
    pub fn copy(&mut self, avp: &Avp<'_>) {
        self.put(avp.code, avp.vendor, avp.flags, avp.data);
    }

    /// A Failed-AVP around this one.
    pub fn failed(&mut self, failed: &FailedAvp) {
        self.group(&dict::FAILED_AVP, |w| w.put(failed.code, failed.vendor, failed.flags, &failed.data));
    }

    fn put(&mut self, code: u32, vendor: u32, flags: u8, data: &[u8]) {
        let header = if vendor == 0 { 8 } else { 12 };
        let length = header + data.len();
        // What does not fit a length field of 24 bits cannot be sent: nothing that we build comes near.
        let Some(length) = u32::try_from(length).ok().filter(|_| length <= MAX_U24) else {
            tracing::error!(code, vendor, length, "AVP too long for Diameter, left out");
            return;
        };
        let flags = if vendor == 0 { flags & !FLAG_VENDOR } else { flags | FLAG_VENDOR };
        self.out.extend_from_slice(&code.to_be_bytes());
        self.out.extend_from_slice(&(u32::from(flags) << 24 | length).to_be_bytes());
        if vendor != 0 {
            self.out.extend_from_slice(&vendor.to_be_bytes());
        }
        self.out.extend_from_slice(data);
        self.out.resize(self.out.len().next_multiple_of(4), 0);
    }

    pub(crate) fn raw(&mut self, well_formed: &[u8]) {
        self.out.extend_from_slice(well_formed);
    }

    pub fn into_vec(self) -> Vec<u8> {
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(f: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut w = Writer::default();
        f(&mut w);
        w.into_vec()
    }

    #[test]
    fn padding_is_no_part_of_the_data() {
        let bytes = written(|w| w.utf8(&dict::ORIGIN_HOST, "abcde"));
        assert_eq!(bytes, [0, 0, 1, 8, 0x40, 0, 0, 13, b'a', b'b', b'c', b'd', b'e', 0, 0, 0]);
        let avps = Avps::parse(&bytes).unwrap();
        assert_eq!(avps.required(&dict::ORIGIN_HOST).unwrap().utf8(), Ok("abcde"));
    }

    #[test]
    fn a_length_beyond_the_buffer_or_below_the_header_is_5014() {
        for bad in [[0, 0, 1, 8, 0x40, 0, 0, 16], [0, 0, 1, 8, 0x40, 0, 0, 7], [0, 0, 1, 8, 0xc0, 0, 0, 8]] {
            assert_eq!(Avps::parse(&bad).unwrap_err().result_code(), 5014);
        }
        assert_eq!(Avps::parse(&[0, 0, 1]).unwrap_err().result_code(), 5014);
        assert_eq!(Avps::parse(&[0, 0, 1, 8, 0x40, 0xff, 0xff, 0xff]).unwrap_err().result_code(), 5014);
    }

    #[test]
    fn several_kinds_are_picked_in_one_pass_and_none_of_them_may_come_twice() {
        let bytes = written(|w| {
            w.utf8(&dict::ORIGIN_HOST, "a");
            w.u32(&dict::VENDOR_ID, 1);
            w.u32(&dict::VENDOR_ID, 2);
            w.utf8(&dict::SESSION_ID, "s");
        });
        let avps = Avps::parse(&bytes).unwrap();
        let picked = avps.pick([&dict::SESSION_ID, &dict::ORIGIN_REALM, &dict::ORIGIN_HOST]).unwrap();
        assert_eq!((picked.required(0).unwrap().data, picked.optional(2).unwrap().data), (&b"s"[..], &b"a"[..]));
        assert!(picked.optional(1).is_none());
        assert_eq!(picked.required(1).unwrap_err().result_code(), 5005);
        assert_eq!(avps.pick([&dict::SESSION_ID, &dict::VENDOR_ID]).err().unwrap().result_code(), 5009);
    }

    #[test]
    fn a_group_that_is_too_long_is_left_out() {
        let bytes = written(|w| {
            w.group(&dict::SERVER_CAPABILITIES, |w| {
                (0..3).for_each(|_| w.octets(&dict::SERVER_NAME, &[0; MAX_U24 / 2]))
            });
            w.u32(&dict::VENDOR_ID, 1);
        });
        assert_eq!(bytes, written(|w| w.u32(&dict::VENDOR_ID, 1)));
    }

    #[test]
    fn nesting_has_an_end() {
        let mut bytes = written(|w| w.u32(&dict::VENDOR_ID, 1));
        for _ in 0..MAX_DEPTH - 1 {
            bytes = written(|w| w.octets(&dict::PROXY_INFO, &bytes));
        }
        assert!(Avps::parse(&bytes).is_ok());
        let deeper = written(|w| w.octets(&dict::PROXY_INFO, &bytes));
        assert!(matches!(Avps::parse(&deeper), Err(DiameterError::TooDeep(_))));
    }

    #[test]
    fn unknown_avps_are_kept_and_the_mandatory_bit_is_seen_inside_groups() {
        let stranger = Def { code: 9999, vendor: 42, name: "?", kind: Kind::OctetString, mandatory: false };
        let bytes = written(|w| w.octets(&stranger, b"x"));
        let avps = Avps::parse(&bytes).unwrap();
        let avp = avps.first(&stranger).unwrap();
        assert_eq!((avp.vendor, avp.data), (42, &b"x"[..]));
        assert_eq!(avps.unsupported(), None);
        let strict = Def { mandatory: true, ..stranger };
        let bytes = written(|w| w.group(&dict::SERVER_CAPABILITIES, |w| w.octets(&strict, b"x")));
        assert_eq!(Avps::parse(&bytes).unwrap().unsupported().unwrap().code, 9999);
    }

    #[test]
    fn addresses_of_both_families() {
        for ip in ["192.0.2.1", "2001:db8::1"] {
            let ip: IpAddr = ip.parse().unwrap();
            let bytes = written(|w| w.address(&dict::HOST_IP_ADDRESS, ip));
            assert_eq!(Avps::parse(&bytes).unwrap().required(&dict::HOST_IP_ADDRESS).unwrap().address(), Ok(ip));
        }
        let bytes = written(|w| w.octets(&dict::HOST_IP_ADDRESS, &[0, 1, 2]));
        assert_eq!(Avps(&bytes).first(&dict::HOST_IP_ADDRESS).unwrap().address().unwrap_err().result_code(), 5014);
    }
}
