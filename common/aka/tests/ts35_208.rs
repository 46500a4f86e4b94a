//! The official test sets of Milenage.

use ims_aka::{Algorithm, Sqn, opc, vector};
use ims_core::Secret;
use std::collections::BTreeMap;

fn array<const N: usize>(hex: &str) -> [u8; N] {
    *Secret::<N>::from_hex(hex).unwrap().expose()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn test_sets_of_ts_35_208() {
    let text = include_str!("ts35_208.txt");
    let sets: Vec<&str> = text.split("\n\n").filter(|s| s.contains(" = ")).collect();
    assert_eq!(sets.len(), 6);
    for set in sets {
        let v: BTreeMap<&str, &str> = set.lines().filter_map(|l| l.split_once(" = ")).collect();
        let (k, op) = (Secret::new(array(v["K"])), Secret::new(array(v["OP"])));
        let (rand, sqn, amf) = (array::<16>(v["RAND"]), Sqn::from_bytes(array(v["SQN"])), array::<2>(v["AMF"]));
        assert_eq!(opc(&k, &op).to_wire_hex(), v["OPC"]);
        let algorithm = Algorithm::milenage_from_op(k, &op);
        assert_eq!(hex(&algorithm.f1(&rand, sqn, amf)), v["F1"]);
        assert_eq!(hex(&algorithm.f1_star(&rand, sqn, amf)), v["F1STAR"]);
        let out = algorithm.f2345(&rand);
        assert_eq!(hex(&out.res), v["F2"]);
        assert_eq!(out.ck.to_wire_hex(), v["F3"]);
        assert_eq!(out.ik.to_wire_hex(), v["F4"]);
        assert_eq!(hex(&out.ak), v["F5"]);
        assert_eq!(hex(&algorithm.f5_star(&rand)), v["F5STAR"]);
        let av = vector(&algorithm, rand, sqn, amf);
        assert_eq!(hex(&av.autn[6..]), format!("{}{}", v["AMF"], v["F1"]));
    }
}
