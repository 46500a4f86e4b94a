//! AKA: an authentication vector as the HSS makes one for each registration, beside the `milenage` crate.

use ims_aka::{Algorithm, Sqn, vector};
use ims_bench::medians;
use ims_core::Secret;
use std::hint::black_box;

const K: [u8; 16] = *b"\x46\x5b\x5c\xe8\xb1\x99\xb4\x9f\xaa\x5f\x0a\x2e\xe2\x38\xa6\xbc";
const OPC: [u8; 16] = *b"\xcd\x63\xcb\x71\x95\x4a\x9f\x4e\x48\xa5\x99\x4e\x37\xa0\x2b\xaf";
const RAND: [u8; 16] = *b"\x23\x55\x3c\xbe\x96\x37\xa8\x9d\x21\x8a\xe6\x4d\xae\x47\xbf\x35";
const AMF: [u8; 2] = [0x80, 0];

fn main() {
    let ours = Algorithm::milenage(Secret::new(K), Secret::new(OPC));
    let tuak = Algorithm::tuak(&K, Secret::new([0x55; 32]), 1).expect("a key of 16 bytes");
    let sqn = Sqn(0x20);
    let times = medians(
        301,
        &mut [
            &mut || drop(black_box(vector(&ours, black_box(RAND), sqn, AMF))),
            &mut || {
                let mut theirs = milenage::Milenage::new_with_opc(K, OPC);
                black_box(theirs.f2345(black_box(&RAND)));
                black_box(theirs.f1(&RAND, &sqn.to_bytes(), &AMF));
            },
            &mut || drop(black_box(vector(&tuak, black_box(RAND), sqn, AMF))),
        ],
    );
    let [ours, theirs, tuak] = times[..] else { return };
    println!("Milenage vector: {ours:6.0} ns   milenage crate {theirs:6.0} ns   ratio {:.1}", theirs / ours);
    println!("TUAK vector:     {tuak:6.0} ns");
}
