//! Cutting messages out of a TCP stream (RFC 6733 3: version and length are the first four octets).

use crate::dict;
use crate::message::{FLAG_REQUEST, HEADER_LENGTH};

/// The longest message that is taken in. A length field can claim 16 MiB; nobody gets that much buffer for a claim.
pub const MAX_MESSAGE: usize = 1 << 20;

/// The stream cannot be followed any further: the connection must be closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    #[error("the stream is not Diameter version 1, but starts with {0:#04x}")]
    Version(u8),
    #[error("a Diameter message claims {0} bytes, less than a header or no multiple of four")]
    BadLength(usize),
    #[error("a Diameter message claims {0} bytes, more than {MAX_MESSAGE}")]
    TooLong(usize),
}

/// How many bytes at the start of `buffer` are one whole message: `None` while more must be read. The buffer need not
/// ever hold more than [`MAX_MESSAGE`] bytes.
pub fn frame_length(buffer: &[u8]) -> Result<Option<usize>, FrameError> {
    if let Some(&version) = buffer.first().filter(|v| **v != 1) {
        return Err(FrameError::Version(version));
    }
    let Some(&[_, a, b, c]) = buffer.first_chunk::<4>() else {
        return Ok(None);
    };
    let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
    if length < HEADER_LENGTH || length % 4 != 0 {
        return Err(FrameError::BadLength(length));
    }
    if length > MAX_MESSAGE {
        return Err(FrameError::TooLong(length));
    }
    Ok((buffer.len() >= length).then_some(length))
}

/// At a glance, without parsing: whether a message goes on with something that has begun. An answer, what keeps the link (base
/// protocol), and the requests of a registration after its first.
pub fn continues(message: &[u8]) -> bool {
    let Some(head) = message.first_chunk::<HEADER_LENGTH>() else { return false };
    let command = u32::from_be_bytes([0, head[5], head[6], head[7]]);
    let application = u32::from_be_bytes([head[8], head[9], head[10], head[11]]);
    head[4] & FLAG_REQUEST == 0
        || application == dict::APPLICATION_BASE
        || (application == dict::APPLICATION_CX
            && matches!(command, dict::command::MULTIMEDIA_AUTH | dict::command::SERVER_ASSIGNMENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_cut_at_their_length() {
        let mut buffer = vec![1, 0, 0, 20];
        assert_eq!(frame_length(&buffer[..0]), Ok(None));
        assert_eq!(frame_length(&buffer[..3]), Ok(None));
        assert_eq!(frame_length(&buffer), Ok(None));
        buffer.resize(25, 0);
        assert_eq!(frame_length(&buffer), Ok(Some(20)));
    }

    #[test]
    fn nonsense_is_an_error_as_soon_as_it_is_seen() {
        assert_eq!(frame_length(b"G"), Err(FrameError::Version(b'G')));
        assert_eq!(frame_length(&[1, 0, 0, 16]), Err(FrameError::BadLength(16)));
        assert_eq!(frame_length(&[1, 0, 0, 22]), Err(FrameError::BadLength(22)));
        assert_eq!(frame_length(&[1, 255, 255, 252]), Err(FrameError::TooLong(16_777_212)));
    }
}
