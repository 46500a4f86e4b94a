//! Benchmarks beside other crates: `cargo bench -p ims-bench`. A member of its own, so that nobody who tests or builds
//! imsbox pays for the other crates.

pub mod ours;
pub mod theirs;

use std::time::{Duration, Instant};

/// A REGISTER as a phone sends it after the challenge, 1.25 kB.
pub const REGISTER: &str = include_str!("../messages/register.sip");
/// An INVITE with SDP as it leaves the P-CSCF, 1.8 kB.
pub const INVITE: &str = include_str!("../messages/invite.sip");

/// Nanoseconds a call, for each of the given functions: the median of many short rounds, taken in turn, so that a busy
/// machine is busy for all of them and seldom in the middle of a round.
#[allow(clippy::disallowed_methods)]
pub fn medians(rounds: usize, functions: &mut [&mut dyn FnMut()]) -> Vec<f64> {
    let mut times = vec![Vec::with_capacity(rounds); functions.len()];
    for _ in 0..rounds {
        for (function, times) in functions.iter_mut().zip(&mut times) {
            let (begin, mut calls) = (Instant::now(), 0u32);
            while begin.elapsed() < Duration::from_millis(1) {
                for _ in 0..20 {
                    function();
                }
                calls += 20;
            }
            times.push(begin.elapsed().as_nanos() as f64 / f64::from(calls));
        }
    }
    times.iter_mut().map(|times| median(times)).collect()
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}
