//! Random changes to seeds: bit flips, cuts, repeats, splices of two seeds, and words that parsers stumble over.

use ims_core::Rng;

const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\r\n\r\n",
    b"\r\n ",
    b"\n",
    b"\r",
    b"\0",
    b"\t",
    b" ",
    b"\"",
    b"\\",
    b"<",
    b">",
    b";",
    b",",
    b":",
    b"=",
    b"?",
    b"@",
    b"[",
    b"]",
    b"%00",
    b"\xff",
    b"\xc3\x28",
    b"SIP/2.0",
    b"sip:",
    b"tel:+1",
    b"l: 0\r\n",
    b"Content-Length: 99999999999\r\n",
    b"Via: SIP/2.0/UDP a;branch=z9hG4bK\r\n",
    b"CSeq: 4294967296 INVITE\r\n",
    b"-1",
    b"0",
    b"4294967295",
    b"18446744073709551616",
];

/// Longer inputs only cost time.
const MOST: usize = 8192;

/// A new input made from the seeds.
pub fn mutate(seeds: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    let Some(mut bytes) = pick(seeds, rng).cloned() else { return Vec::new() };
    for _ in 0..=rng.below(6) {
        change(&mut bytes, seeds, rng);
    }
    bytes.truncate(MOST);
    bytes
}

fn change(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], rng: &mut Rng) {
    let at = place(bytes.len(), rng);
    match rng.below(8) {
        0 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << rng.below(8);
            }
        }
        1 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = rng.u32().to_le_bytes()[0];
            }
        }
        2 => {
            let end = (at + place(64, rng)).min(bytes.len());
            bytes.drain(at..end);
        }
        3 => bytes.truncate(at),
        4 => {
            let end = (at + place(64, rng)).min(bytes.len());
            let piece = bytes.get(at..end).unwrap_or_default().repeat(1 + place(8, rng));
            insert(bytes, at, &piece);
        }
        5 => {
            if let Some(other) = pick(seeds, rng) {
                let from = place(other.len(), rng);
                let end = (from + place(256, rng)).min(other.len());
                insert(bytes, at, other.get(from..end).unwrap_or_default());
            }
        }
        _ => {
            if let Some(word) = pick(WORDS, rng) {
                insert(bytes, at, word);
            }
        }
    }
}

fn insert(bytes: &mut Vec<u8>, at: usize, piece: &[u8]) {
    bytes.splice(at..at, piece.iter().copied());
}

fn place(len: usize, rng: &mut Rng) -> usize {
    usize::try_from(rng.below(len as u64 + 1)).unwrap_or(0)
}

fn pick<'a, T>(from: &'a [T], rng: &mut Rng) -> Option<&'a T> {
    if from.is_empty() { None } else { from.get(place(from.len() - 1, rng)) }
}
