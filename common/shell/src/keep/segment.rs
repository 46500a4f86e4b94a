//! One file of a journal: a header, then records, each with its checksum.
//!
//! ```text
//! header  "imsbkept" | version u32 | flags u32
//! record  CRC-32 of the rest u32 | key length u32 | value length u32, or 2^32-1: forgotten | key | value
//! ```
//! Numbers are little-endian. With the flag WHOLE, nothing before this file counts.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;

const MAGIC: &[u8; 8] = b"imsbkept";
const VERSION: u32 = 1;
const WHOLE: u32 = 1;
pub(super) const HEADER: usize = 16;
const RECORD: usize = 12;
const FORGOTTEN: u32 = u32::MAX;
/// Longer ones are no record of ours.
const LONGEST_KEY: usize = 1 << 16;
const LONGEST_VALUE: usize = 1 << 24;
const BUFFER: usize = 1 << 18;

/// How reading a segment ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    Whole,
    /// The last record is cut off: the process or the machine ended while it was written.
    Torn,
    /// Something that is no record, at this place.
    Damaged(u64),
}

/// What the first bytes of a file say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Start {
    Segment {
        whole: bool,
    },
    /// Not even a header: it was being made.
    Empty,
    Later,
    Damaged,
}

pub(super) fn header(whole: bool) -> [u8; HEADER] {
    let mut out = [0; HEADER];
    out[..8].copy_from_slice(MAGIC);
    out[8..12].copy_from_slice(&VERSION.to_le_bytes());
    out[12..].copy_from_slice(&u32::from(whole).to_le_bytes());
    out
}

pub(super) fn start(path: &Path) -> io::Result<Start> {
    let mut head = [0; HEADER];
    match File::open(path)?.read_exact(&mut head) {
        Ok(()) => {}
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(Start::Empty),
        Err(e) => return Err(e),
    }
    let version = number(&head[8..12]);
    Ok(match (&head[..8] == MAGIC, version) {
        (true, VERSION) => Start::Segment { whole: number(&head[12..]) & WHOLE != 0 },
        (true, later) if later > VERSION => Start::Later,
        _ => Start::Damaged,
    })
}

/// Appends a record; false (and nothing done) when key or value is longer than any that we read back.
pub(super) fn write(out: &mut Vec<u8>, key: &str, value: Option<&[u8]>) -> bool {
    let length = value.map_or(0, <[u8]>::len);
    if key.len() > LONGEST_KEY || length > LONGEST_VALUE {
        return false;
    }
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&(key.len() as u32).to_le_bytes());
    out.extend_from_slice(&value.map_or(FORGOTTEN, |v| v.len() as u32).to_le_bytes());
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(value.unwrap_or_default());
    let checksum = crc32fast::hash(&out[at + 4..]);
    out[at..at + 4].copy_from_slice(&checksum.to_le_bytes());
    true
}

/// Bytes of a record in a file.
pub(super) fn size(key: &str, value: usize) -> u64 {
    (RECORD + key.len() + value) as u64
}

/// Reads all records of a segment in order: key, and place and length of the value, or None when the key was forgotten.
pub(super) fn read(file: &File, mut each: impl FnMut(String, Option<(u64, usize)>)) -> io::Result<End> {
    let mut reader = BufReader::with_capacity(BUFFER, file);
    let mut at = HEADER as u64;
    reader.seek(SeekFrom::Start(at))?;
    let mut head = [0; RECORD];
    let mut body = Vec::new();
    loop {
        match fill(&mut reader, &mut head)? {
            0 => return Ok(End::Whole),
            n if n < RECORD => return Ok(End::Torn),
            _ => {}
        }
        let (checksum, key, value) = (number(&head[..4]), number(&head[4..8]) as usize, number(&head[8..]));
        let length = if value == FORGOTTEN { 0 } else { value as usize };
        if key > LONGEST_KEY || length > LONGEST_VALUE {
            return Ok(End::Damaged(at));
        }
        body.resize(key + length, 0);
        if fill(&mut reader, &mut body)? < body.len() {
            return Ok(End::Torn);
        }
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&head[4..]);
        hasher.update(&body);
        let text = std::str::from_utf8(&body[..key]);
        let (true, Ok(text)) = (hasher.finalize() == checksum, text) else { return Ok(End::Damaged(at)) };
        let place = at + (RECORD + key) as u64;
        each(text.to_owned(), (value != FORGOTTEN).then_some((place, length)));
        at = place + length as u64;
    }
}

/// Reads until `out` is full or the file ends.
fn fill(reader: &mut impl Read, out: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < out.len() {
        match reader.read(&mut out[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

fn number(bytes: &[u8]) -> u32 {
    bytes.try_into().map_or(0, u32::from_le_bytes)
}
