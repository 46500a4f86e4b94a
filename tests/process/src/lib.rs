//! What the process tests share: our programs and foreign ones, started and ended by process id, a few lines of HTTP, and
//! an independent handset. Nothing here uses the code under test: a mistake made on both sides must not cancel out.

pub mod capture;
pub mod engine;
pub mod handset;
pub mod http;
pub mod lab;
mod leftovers;
pub mod metrics;
pub mod patience;
pub mod process;

pub use lab::Lab;
use std::path::PathBuf;

/// Whether `program` is installed. If not, says so loudly; under `CI=true` that is a failure.
pub fn installed(program: &str, package: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()));
    if !found {
        let message = format!("{program} is not installed: apt-get install {package} (scripts/test does it as root)");
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{message}");
        eprintln!("SKIPPED, NOT TESTED: {message}");
    }
    found
}

/// The folder with our programs: beside the folder of this test program.
pub fn programs() -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    test.parent().and_then(|deps| deps.parent()).expect("target/PROFILE/deps/TEST").to_path_buf()
}

/// One of our programs; builds it if `cargo test` was called without `cargo build --bins` before.
pub fn program(name: &str) -> PathBuf {
    let path = programs().join(name);
    if !path.is_file() {
        let mut cargo = std::process::Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
        cargo.args(["build", "--bin", name]);
        if programs().ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().expect("cargo can be started").success(), "cargo build --bin {name} failed");
    }
    path
}

/// The JSON object among what a program printed.
pub fn json_in(printed: &str) -> serde_json::Value {
    let start = printed.find("{\n").unwrap_or_else(|| panic!("no JSON in:\n{printed}"));
    let end = printed.rfind("\n}").map_or(printed.len(), |at| at + 2);
    serde_json::from_str(&printed[start..end]).unwrap_or_else(|e| panic!("{e}:\n{printed}"))
}

/// A fresh folder under the system's temporary folder, removed when dropped; if the process is killed, by the next run.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        leftovers::remove_folders(name);
        let path = std::env::temp_dir().join(format!("imsbox-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("the temporary folder is writable");
        Self(path)
    }

    pub fn path(&self) -> &std::path::Path {
        &self.0
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).expect("the temporary folder is writable");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
