//! Hostile input at every depth: packets that are changed on their way, whoever sent them. What comes of it is anything but a
//! panic, a loop, or something that stays behind.

use bytes::Bytes;
use ims_core::Rng;
use ims_tests::{Lab, LabConfig, Sent, Verdict};

/// Of so many packets one is changed.
const ONE_IN: u64 = 6;

/// Changes packets from now on.
pub(crate) fn garble(lab: &mut Lab, seed: u64) {
    let mut rng = Rng::from_u64(seed ^ 0x6a7b1e);
    lab.world.filter(move |sent: &Sent<'_>| match rng.below(ONE_IN) {
        0 => Verdict::Replace(changed(sent.bytes, &mut rng)),
        _ => Verdict::Pass,
    });
}

/// Who sends garbage is banned; here everybody does.
pub(crate) fn patient(mut config: LabConfig) -> LabConfig {
    config.pcscf.sources.ban_after = 0;
    config
}

fn changed(bytes: &Bytes, rng: &mut Rng) -> Bytes {
    let mut out = bytes.to_vec();
    for _ in 0..=rng.below(3) {
        let at = index(rng, out.len());
        match rng.below(7) {
            0 => out.truncate(at),
            1 => out[at] ^= 1 << rng.below(8),
            2 => out.insert(at, [b' ', b'"', b';', b',', b'<', 0, 0xff][index(rng, 7)]),
            3 => drop(out.remove(at)),
            4 => {
                let end = at + index(rng, (out.len() - at).min(40));
                let piece = out[at..end].to_vec();
                out.splice(at..at, piece);
            }
            5 => lines(&mut out, rng, |list, one, _| {
                list.remove(one);
            }),
            _ => lines(&mut out, rng, |list, one, other| list.swap(one, other)),
        }
        if out.is_empty() {
            out.push(b'x');
        }
    }
    out.into()
}

/// Does something to two lines of it.
fn lines(out: &mut Vec<u8>, rng: &mut Rng, change: impl Fn(&mut Vec<&[u8]>, usize, usize)) {
    let copy = out.clone();
    let mut list: Vec<&[u8]> = copy.split_inclusive(|b| *b == b'\n').collect();
    let (one, other) = (index(rng, list.len()), index(rng, list.len()));
    change(&mut list, one, other);
    *out = list.concat();
}

fn index(rng: &mut Rng, len: usize) -> usize {
    usize::try_from(rng.below(len.max(1) as u64)).unwrap_or(0)
}
