//! What a journal says in the end: read at start, and written anew into one segment when too much of the old is superseded.

use super::folder::{Folder, create};
use super::segment::{self, End, Start};
use crate::StartError;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use tracing::{info, warn};

/// A value in a segment.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) file: Arc<File>,
    pub(super) at: u64,
    pub(super) length: usize,
}

impl Place {
    pub(super) fn read(&self) -> io::Result<Vec<u8>> {
        let mut value = vec![0; self.length];
        self.file.read_exact_at(&mut value, self.at)?;
        Ok(value)
    }
}

/// The last word on each key.
#[derive(Default)]
pub(super) struct Index {
    pub(super) places: HashMap<String, Place>,
}

impl Index {
    fn read(&mut self, file: File) -> io::Result<End> {
        let file = Arc::new(file);
        segment::read(&file, |key, place| {
            match place {
                Some((at, length)) => self.places.insert(key, Place { file: file.clone(), at, length }),
                None => self.places.remove(&key),
            };
        })
    }

    /// In the order of the files, which reads them from front to back.
    pub(super) fn in_order(self) -> Vec<(String, Place)> {
        let mut list: Vec<_> = self.places.into_iter().collect();
        list.sort_by_key(|(_, place)| (Arc::as_ptr(&place.file) as usize, place.at));
        list
    }
}

/// Reads a folder at start. What is damaged is moved away, and what could be read of it is written anew.
pub(super) fn load(folder: &Folder) -> Result<Index, StartError> {
    let data = |reason| StartError::Data { path: folder.path().into(), reason };
    let mut index = Index::default();
    let mut damaged = Vec::new();
    let numbers = folder.segments().map_err(data)?;
    for number in numbers.iter().copied() {
        let path = folder.segment(number);
        match segment::start(&path).map_err(data)? {
            Start::Later => return Err(StartError::Later { path }),
            Start::Empty => fs::remove_file(path).map_err(data)?,
            Start::Damaged => damaged.push((number, 0)),
            Start::Segment { whole } => {
                if whole {
                    index = Index::default();
                }
                match index.read(File::open(&path).map_err(data)?).map_err(data)? {
                    End::Whole => {}
                    End::Torn => {
                        info!(file = %path.display(), "the last record is cut off, as after a crash: left out")
                    }
                    End::Damaged(at) => damaged.push((number, at)),
                }
            }
        }
    }
    if !damaged.is_empty() {
        for (number, at) in damaged {
            let to = folder.move_away(number).map_err(data)?;
            warn!(file = %to.display(), at, "what was kept here is damaged from this place on: moved aside, registrations may be lost");
        }
        let last = numbers.last().copied().unwrap_or_default();
        index = write_anew(folder, index, last + 1).map_err(data)?;
        remove_before(folder, last + 1).map_err(data)?;
    }
    Ok(index)
}

/// Merges the segments up to this number into one, and gives its size.
pub(super) fn merge(folder: &Folder, last: u64) -> io::Result<u64> {
    let mut index = Index::default();
    for number in folder.segments()?.into_iter().filter(|n| *n <= last) {
        let path = folder.segment(number);
        match segment::start(&path)? {
            Start::Segment { whole } => {
                if whole {
                    index = Index::default();
                }
                if let End::Damaged(at) = index.read(File::open(&path)?)? {
                    warn!(file = %path.display(), at, "what was kept here is damaged from this place on: left as it is");
                    return Err(io::Error::other("a segment is damaged"));
                }
            }
            Start::Empty => {}
            Start::Later | Start::Damaged => return Err(io::Error::other("a segment is damaged")),
        }
    }
    write_anew(folder, index, last)?;
    remove_before(folder, last)?;
    Ok(fs::metadata(folder.segment(last))?.len())
}

/// Writes the segment with this number, which supersedes those before it; it is whole under its name or not there at all.
fn write_anew(folder: &Folder, index: Index, number: u64) -> io::Result<Index> {
    const CHUNK: usize = 1 << 20;
    let aside = folder.aside(number);
    let mut file = create(&aside)?;
    let mut out = segment::header(true).to_vec();
    for (key, place) in index.in_order() {
        segment::write(&mut out, &key, Some(&place.read()?));
        if out.len() >= CHUNK {
            file.write_all(&out)?;
            out.clear();
        }
    }
    file.write_all(&out)?;
    file.sync_data()?;
    let path = folder.segment(number);
    fs::rename(aside, &path)?;
    folder.sync()?;
    let mut index = Index::default();
    index.read(File::open(path)?)?;
    Ok(index)
}

fn remove_before(folder: &Folder, number: u64) -> io::Result<()> {
    for old in folder.segments()?.into_iter().filter(|n| *n < number) {
        fs::remove_file(folder.segment(old))?;
    }
    Ok(())
}
