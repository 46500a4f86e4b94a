//! Fuzz targets: each takes any bytes and panics when a promise is broken.
//!
//! `cargo test -p ims-fuzz` replays the corpora; `cargo run -p ims-fuzz -- run TARGET --seconds 60` looks for more. A new
//! target is one line in [`TARGETS`] and a folder `fuzz/corpus/NAME` with at least one seed.

mod diameter;
pub mod mutate;
mod profile;
mod sip;

use std::path::{Path, PathBuf};

pub type Target = fn(&[u8]);

pub const TARGETS: &[(&str, Target)] = &[
    ("diameter_message", diameter::message),
    ("ifc_trigger", profile::trigger),
    ("ifc_xml", profile::xml),
    ("sip_message", sip::message),
    ("sip_stream", sip::stream),
];

pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().find(|(known, _)| *known == name).map(|(_, target)| *target)
}

/// The seeds of a target and all inputs that once broke it, by file name.
pub fn corpus(name: &str) -> std::io::Result<Vec<(PathBuf, Vec<u8>)>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_file() && !path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.')) {
            paths.push(path);
        }
    }
    paths.sort();
    paths.into_iter().map(|path| std::fs::read(&path).map(|bytes| (path, bytes))).collect()
}
