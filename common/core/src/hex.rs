//! Bytes as hexadecimal digits.

/// Lower case, two digits a byte.
pub fn encode(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// None: an odd number of digits, or something that is no digit.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let digit = |d: &u8| char::from(*d).to_digit(16);
    digits.chunks_exact(2).map(|p| u8::try_from(digit(p.first()?)? << 4 | digit(p.last()?)?).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        assert_eq!(encode(&[0, 0xff, 0xa5, 0x10]), "00ffa510");
        assert_eq!(decode("00FFa510"), Some(vec![0, 0xff, 0xa5, 0x10]));
        assert_eq!((decode("0"), decode("zz"), decode("é")), (None, None, None));
    }
}
