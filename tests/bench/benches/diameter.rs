//! Diameter: what an HSS and an S-CSCF do with the two answers that weigh most. Alone: no other crate knows Cx.

use bytes::Bytes;
use ims_bench::medians;
use ims_diameter::Message;
use ims_diameter::cx::{Maa, Saa};
use std::hint::black_box;

const MAA: &[u8] = include_bytes!("../../../fuzz/corpus/diameter_message/maa");
const SAA: &[u8] = include_bytes!("../../../fuzz/corpus/diameter_message/saa");

fn main() {
    let (maa, saa) = (Bytes::from_static(MAA), Bytes::from_static(SAA));
    let parse = |bytes: &Bytes| Message::parse(bytes.clone()).expect("a seed of the corpus");
    // An answer serves as the request here: only its identifiers and Session-Id count.
    let (to_maa, to_saa) = (parse(&maa), parse(&saa));
    let typed_maa = Maa::from_message(&to_maa).expect("an MAA");
    let typed_saa = Saa::from_message(&to_saa).expect("an SAA");
    let times = medians(
        301,
        &mut [
            &mut || drop(black_box(parse(&maa))),
            &mut || drop(black_box(Maa::from_message(&parse(&maa)))),
            &mut || drop(black_box(typed_maa.to_message(&to_maa).to_bytes())),
            &mut || drop(black_box(parse(&saa))),
            &mut || drop(black_box(Saa::from_message(&parse(&saa)))),
            &mut || drop(black_box(typed_saa.to_message(&to_saa).to_bytes())),
        ],
    );
    for ((name, length), times) in [("MAA", MAA.len()), ("SAA", SAA.len())].iter().zip(times.chunks(3)) {
        let [parse, decode, encode] = times else { return };
        println!("{name}, {length} bytes: parse {parse:6.0} ns   decode {decode:6.0} ns   encode {encode:6.0} ns");
    }
}
