//! The folder of a journal: whose it is, and its segments by number.

use crate::StartError;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const SEGMENT: &str = "log";
/// A segment that is being written aside, to take the place of others.
const ASIDE: &str = "new";

/// A folder that is ours as long as this lives, or our process.
pub(super) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    pub(super) fn open(path: &Path) -> Result<Self, StartError> {
        let data = |path: &Path| {
            let path = path.to_owned();
            move |reason| StartError::Data { path, reason }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(data(path))?;
        let lock_path = path.join("lock");
        let mut options = OpenOptions::new();
        let lock = options.write(true).create(true).truncate(false).mode(0o600).open(&lock_path);
        let lock = lock.map_err(data(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StartError::InUse { path: path.into() }),
            Err(TryLockError::Error(reason)) => return Err(StartError::Data { path: lock_path, reason }),
        }
        let folder = Self { path: path.into(), _lock: lock };
        folder.remove_aside().map_err(data(path))?;
        Ok(folder)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn segment(&self, number: u64) -> PathBuf {
        self.path.join(format!("{number:010}.{SEGMENT}"))
    }

    pub(super) fn aside(&self, number: u64) -> PathBuf {
        self.path.join(format!("{number:010}.{SEGMENT}.{ASIDE}"))
    }

    /// The numbers of all segments, oldest first.
    pub(super) fn segments(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let name = PathBuf::from(entry?.file_name());
            let number = name.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
            if let Some(number) = number.filter(|_| name.extension().is_some_and(|e| e == SEGMENT)) {
                numbers.push(number);
            }
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// A file that is not to be read again, for somebody to look at.
    pub(super) fn move_away(&self, number: u64) -> io::Result<PathBuf> {
        let to = self.path.join(format!("{number:010}.damaged"));
        fs::rename(self.segment(number), &to)?;
        Ok(to)
    }

    /// What was renamed and removed stays so after a power failure.
    pub(super) fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn remove_aside(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == ASIDE) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

pub(super) fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)
}
