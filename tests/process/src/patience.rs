//! Waiting for what another process does and tells nobody of. The one place where a test sleeps: between two looks.

use std::time::{Duration, Instant};

const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// Tries until it succeeds; what it said last when `most` is over.
pub fn eventually<T>(most: Duration, mut attempt: impl FnMut() -> Result<T, String>) -> Result<T, String> {
    let began = Instant::now();
    loop {
        match attempt() {
            Err(_) if began.elapsed() < most => std::thread::sleep(BETWEEN_LOOKS),
            done => return done,
        }
    }
}

/// Whether it holds before `most` is over.
pub fn until(most: Duration, mut holds: impl FnMut() -> bool) -> bool {
    eventually(most, || if holds() { Ok(()) } else { Err(String::new()) }).is_ok()
}
