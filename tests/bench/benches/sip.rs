//! SIP: parse, and parse + seven typed headers + serialise, beside rsip and rsipstack.

use bytes::Bytes;
use ims_bench::theirs::{of_rsip, of_rsipstack};
use ims_bench::{INVITE, REGISTER, medians, ours};
use std::hint::black_box;

const ROUNDS: usize = 301;

fn main() {
    for (name, text) in [("REGISTER", REGISTER), ("INVITE", INVITE)] {
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        println!("{name}, {} bytes", bytes.len());
        let parsed = medians(
            ROUNDS,
            &mut [
                &mut || drop(black_box(ours::parse(&bytes))),
                &mut || drop(black_box(of_rsip::parse(&bytes))),
                &mut || drop(black_box(of_rsipstack::parse(&bytes))),
            ],
        );
        report("parse", &parsed);
        let through = medians(
            ROUNDS,
            &mut [
                &mut || drop(black_box(ours::through(&bytes))),
                &mut || drop(black_box(of_rsip::through(&bytes))),
                &mut || drop(black_box(of_rsipstack::through(&bytes))),
            ],
        );
        report("parse + 7 headers + write", &through);
    }
}

fn report(what: &str, times: &[f64]) {
    let [ours, rsip, rsipstack] = times else { return };
    let ratio = rsip.min(*rsipstack) / ours;
    println!(
        "  {what:26} ours {ours:7.0} ns   rsip {rsip:7.0} ns   rsipstack {rsipstack:7.0} ns   {ratio:5.1} x the fastest"
    );
}
