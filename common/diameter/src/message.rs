//! A Diameter message: header and AVPs over one shared buffer (RFC 6733 3, 4).

pub use crate::error::{DiameterError, FailedAvp, result};

use crate::avp::{Avps, Writer};
use crate::dict;
use bytes::Bytes;
use std::fmt;

pub const HEADER_LENGTH: usize = 20;
pub const FLAG_REQUEST: u8 = 0x80;
pub const FLAG_PROXIABLE: u8 = 0x40;
pub const FLAG_ERROR: u8 = 0x20;
/// Potentially re-transmitted: the T bit.
pub const FLAG_RETRANSMITTED: u8 = 0x10;

/// Cheap to clone: the AVPs are shared. `Debug` shows names and lengths of AVPs only.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    flags: u8,
    command: u32,
    application: u32,
    pub hop_by_hop: u32,
    pub end_to_end: u32,
    body: Bytes,
}

impl Message {
    /// One whole message, as the stream framing cut it out.
    pub fn parse(bytes: Bytes) -> Result<Self, DiameterError> {
        let message = Self::parse_header(&bytes)?;
        Avps::parse(&message.body)?;
        Ok(message)
    }

    /// What can be used of a message that does not parse, to answer it: the header and the AVPs before the fault.
    pub fn salvage(bytes: &Bytes) -> Option<Self> {
        let mut message = Self::parse_header(bytes).ok()?;
        message.body.truncate(Avps::well_formed_prefix(&message.body));
        Some(message)
    }

    fn parse_header(bytes: &Bytes) -> Result<Self, DiameterError> {
        let head = bytes.first_chunk::<HEADER_LENGTH>().ok_or(DiameterError::MessageLength)?;
        let word = |at: usize| {
            let octet = |i: usize| head.get(at + i).copied().unwrap_or(0);
            u32::from_be_bytes([octet(0), octet(1), octet(2), octet(3)])
        };
        let [version, .., flags] = [head[0], head[4]];
        if version != 1 {
            return Err(DiameterError::Version(version));
        }
        let length = usize::try_from(word(0) & 0xff_ffff).unwrap_or(usize::MAX);
        if length != bytes.len() || length % 4 != 0 {
            return Err(DiameterError::MessageLength);
        }
        Ok(Self {
            flags,
            command: word(4) & 0xff_ffff,
            application: word(8),
            hop_by_hop: word(12),
            end_to_end: word(16),
            body: bytes.slice(HEADER_LENGTH..),
        })
    }

    pub fn to_bytes(&self) -> Bytes {
        let length = HEADER_LENGTH + self.body.len();
        let mut out = Vec::with_capacity(length);
        let length = u32::try_from(length).unwrap_or(u32::MAX) & 0xff_ffff;
        out.extend_from_slice(&(1 << 24 | length).to_be_bytes());
        out.extend_from_slice(&(u32::from(self.flags) << 24 | self.command).to_be_bytes());
        for word in [self.application, self.hop_by_hop, self.end_to_end] {
            out.extend_from_slice(&word.to_be_bytes());
        }
        out.extend_from_slice(&self.body);
        out.into()
    }

    /// Starts a request of an application; proxiable, except for the base protocol.
    pub fn request(command: u32, application: u32) -> Builder {
        let proxiable = if application == dict::APPLICATION_BASE { 0 } else { FLAG_PROXIABLE };
        Builder::new(FLAG_REQUEST | proxiable, command, application)
    }

    /// Starts the answer to `self`: its identifiers, Session-Id and Proxy-Info (RFC 6733 6.2).
    pub fn answer(&self) -> Builder {
        let mut builder = Builder::new(self.flags & FLAG_PROXIABLE, self.command, self.application);
        builder.head.hop_by_hop = self.hop_by_hop;
        builder.head.end_to_end = self.end_to_end;
        if let Some(session) = self.avps().first(&dict::SESSION_ID) {
            builder.avps.copy(&session);
        }
        self.avps().all(&dict::PROXY_INFO).for_each(|info| builder.proxy_info.copy(&info));
        builder
    }

    /// As [`Message::answer`], with the E bit if this Result-Code is a protocol error, 3xxx (RFC 6733 7.1.3, 7.2).
    pub(crate) fn answer_with_result(&self, code: Option<u32>) -> Builder {
        let mut builder = self.answer();
        if code.is_some_and(|c| (3000..4000).contains(&c)) {
            builder.head.flags |= FLAG_ERROR;
        }
        builder
    }

    /// The only place where error answers are made.
    pub fn error_answer(&self, error: &DiameterError) -> Message {
        let code = error.result_code();
        self.answer_with_result(Some(code))
            .with(|w| {
                w.u32(&dict::RESULT_CODE, code);
                w.utf8(&dict::ERROR_MESSAGE, &error.to_string());
                if let Some(failed) = error.failed_avp() {
                    w.failed(failed);
                }
            })
            .build()
    }

    /// The same message with more AVPs, put behind the Session-Id, which stays first.
    pub(crate) fn with_routing(&self, more: impl FnOnce(&mut Writer)) -> Message {
        let mut avps = Writer::with_capacity(self.body.len() + 256);
        let mut rest = &self.body[..];
        if let Some(session) = self.avps().iter().next().filter(|a| a.is(&dict::SESSION_ID)) {
            avps.copy(&session);
            let taken = (8 + session.data.len()).next_multiple_of(4);
            rest = self.body.get(taken..).unwrap_or(&[]);
        }
        more(&mut avps);
        avps.raw(rest);
        // An answer is kept for a while: in no more room than it needs.
        Message { body: avps.into_vec().into_boxed_slice().into(), ..self.clone() }
    }

    /// The same message under other identifiers.
    #[must_use]
    pub(crate) fn with_ids(&self, hop_by_hop: u32, end_to_end: u32) -> Message {
        Message { hop_by_hop, end_to_end, ..self.clone() }
    }

    pub(crate) fn set_retransmitted(&mut self) {
        self.flags |= FLAG_RETRANSMITTED;
    }

    /// In bytes on the wire.
    pub fn length(&self) -> usize {
        HEADER_LENGTH + self.body.len()
    }

    pub fn command(&self) -> u32 {
        self.command
    }

    pub fn application(&self) -> u32 {
        self.application
    }

    pub fn is_request(&self) -> bool {
        self.flags & FLAG_REQUEST != 0
    }

    /// The E bit.
    pub fn is_error(&self) -> bool {
        self.flags & FLAG_ERROR != 0
    }

    /// The T bit.
    pub fn is_retransmitted(&self) -> bool {
        self.flags & FLAG_RETRANSMITTED != 0
    }

    pub fn is_proxiable(&self) -> bool {
        self.flags & FLAG_PROXIABLE != 0
    }

    pub fn avps(&self) -> Avps<'_> {
        Avps::unchecked(&self.body)
    }

    /// `UAR`, `CEA`, ... or the number.
    pub fn name(&self) -> String {
        match dict::command_name(self.command, self.is_request()) {
            Some(name) => name.into(),
            None => format!("{} {}", if self.is_request() { "request" } else { "answer" }, self.command),
        }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:#x}/{:#x}", self.name(), self.hop_by_hop, self.end_to_end)?;
        if self.is_error() {
            f.write_str(" E")?;
        }
        if self.is_retransmitted() {
            f.write_str(" T")?;
        }
        write!(f, " {:?}", self.avps())
    }
}

/// A message being written.
pub struct Builder {
    head: Message,
    avps: Writer,
    proxy_info: Writer,
}

impl Builder {
    fn new(flags: u8, command: u32, application: u32) -> Self {
        let head = Message { flags, command, application, hop_by_hop: 0, end_to_end: 0, body: Bytes::new() };
        Self { head, avps: Writer::with_capacity(512), proxy_info: Writer::default() }
    }

    #[must_use]
    pub fn with(mut self, write: impl FnOnce(&mut Writer)) -> Self {
        write(&mut self.avps);
        self
    }

    pub fn build(mut self) -> Message {
        self.avps.raw(&self.proxy_info.into_vec());
        Message { body: self.avps.into_vec().into(), ..self.head }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ims_core::Rng;

    fn sample() -> Message {
        Message::request(300, dict::APPLICATION_CX)
            .with(|w| {
                w.utf8(&dict::SESSION_ID, "a;1;2");
                w.group(&dict::PROXY_INFO, |w| {
                    w.utf8(&dict::PROXY_HOST, "relay.example");
                    w.octets(&dict::PROXY_STATE, &[1, 2, 3]);
                });
            })
            .build()
    }

    #[test]
    fn what_is_written_is_read() {
        let mut m = sample();
        m.hop_by_hop = 7;
        m.end_to_end = 0xdead_beef;
        assert_eq!(Message::parse(m.to_bytes()), Ok(m.clone()));
        assert!(m.is_request() && m.is_proxiable() && !m.is_error());
    }

    #[test]
    fn an_answer_returns_identifiers_session_and_proxy_info() {
        let mut request = sample();
        request.hop_by_hop = 9;
        let answer = request.error_answer(&DiameterError::Realm);
        assert!(!answer.is_request() && answer.is_error());
        assert_eq!(answer.hop_by_hop, 9);
        assert_eq!(answer.avps().iter().next().unwrap().utf8(), Ok("a;1;2"));
        assert_eq!(answer.avps().iter().last().unwrap(), request.avps().first(&dict::PROXY_INFO).unwrap());
        // Only protocol errors have the E bit.
        let answer = request.error_answer(&DiameterError::missing(&dict::USER_NAME));
        assert!(!answer.is_error());
        let failed = answer.avps().first(&dict::FAILED_AVP).unwrap().group().unwrap();
        assert!(failed.first(&dict::USER_NAME).is_some());
    }

    #[test]
    fn length_and_version_must_fit() {
        let good = sample().to_bytes();
        let mut long = good.to_vec();
        long.extend([0; 4]);
        assert_eq!(Message::parse(long.into()), Err(DiameterError::MessageLength));
        let mut other = good.to_vec();
        other[0] = 2;
        assert_eq!(Message::parse(other.into()), Err(DiameterError::Version(2)));
        assert_eq!(Message::parse(good.slice(..19)), Err(DiameterError::MessageLength));
        assert_eq!(Message::parse(Bytes::new()), Err(DiameterError::MessageLength));
    }

    #[test]
    fn mutated_bytes_never_panic_and_what_parses_survives_a_round_trip() {
        let seed = sample().to_bytes();
        let mut rng = Rng::from_u64(1);
        for _ in 0..20_000 {
            let mut bytes = seed.to_vec();
            for _ in 0..=rng.below(4) {
                let at = usize::try_from(rng.below(bytes.len() as u64)).unwrap();
                bytes[at] = rng.bytes::<1>()[0];
            }
            let bytes = Bytes::from(bytes);
            let _ = Message::salvage(&bytes).map(|m| format!("{m:?}"));
            if let Ok(m) = Message::parse(bytes.clone()) {
                assert_eq!(m.to_bytes(), bytes);
                let _ = (m.avps().unsupported(), format!("{m:?}"));
            }
        }
    }

    #[test]
    fn debug_never_shows_data() {
        let m = Message::request(303, dict::APPLICATION_CX)
            .with(|w| {
                w.group(&dict::SIP_AUTH_DATA_ITEM, |w| w.octets(&dict::CONFIDENTIALITY_KEY, b"SECRETSECRETSECR"));
            })
            .build();
        let text = format!("{m:?}");
        assert!(text.contains("Confidentiality-Key:16") && !text.contains("SECRET"), "{text}");
    }
}
