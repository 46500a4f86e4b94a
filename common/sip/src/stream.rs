//! Cutting messages out of a byte stream (RFC 3261 18.3). SKELETON. Used by the shell for TCP.
use bytes::{Bytes, BytesMut};
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError { #[error("no Content-Length in a message on a stream")] NoContentLength, #[error("message larger than the limit")] TooLarge, #[error("not SIP")] NotSip }
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame { Message(Bytes), /** CRLFCRLF keep-alive, RFC 5626 4.4.1: answer with CRLF */ Ping }
pub struct Framer { _limit: usize }
impl Framer {
    pub fn new(limit: usize) -> Self { Self { _limit: limit } }
    /// Takes what is whole out of `buffer`; None: more bytes are needed.
    pub fn next(&mut self, _buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> { todo!() }
}
