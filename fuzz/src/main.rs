//! `fuzz run TARGET --seconds N [--seed N]`: seeded random changes to the corpus for a bounded time. What breaks a target is
//! written to `fuzz/artifacts`; add it to the corpus once the bug is fixed. `fuzz list` names the targets.

use anyhow::{Context, bail};
use ims_core::Rng;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::catch_unwind;
use std::path::Path;
use std::time::{Duration, Instant};

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["list"] => ims_fuzz::TARGETS.iter().for_each(|(name, _)| println!("{name}")),
        ["run", name, rest @ ..] => {
            run(name, option(rest, "--seconds")?.unwrap_or(10), option(rest, "--seed")?.unwrap_or(1))?
        }
        _ => bail!("usage: fuzz list | fuzz run TARGET [--seconds N] [--seed N]"),
    }
    Ok(())
}

fn option(args: &[&str], name: &str) -> anyhow::Result<Option<u64>> {
    let Some(at) = args.iter().position(|a| *a == name) else { return Ok(None) };
    let value = args.get(at + 1).with_context(|| format!("{name} wants a number"))?;
    value.parse().map(Some).with_context(|| format!("{name} wants a number"))
}

/// The clock bounds the run and decides nothing else: the same seed tries the same inputs.
#[allow(clippy::disallowed_methods)]
fn run(name: &str, seconds: u64, seed: u64) -> anyhow::Result<()> {
    let target = ims_fuzz::target(name).with_context(|| format!("no target {name}: see `fuzz list`"))?;
    let seeds: Vec<Vec<u8>> = ims_fuzz::corpus(name)?.into_iter().map(|(_, bytes)| bytes).collect();
    let mut rng = Rng::from_u64(seed);
    let (begin, mut inputs, mut broken) = (Instant::now(), 0u64, 0u64);
    while begin.elapsed() < Duration::from_secs(seconds) && broken < 10 {
        for _ in 0..64 {
            let input = ims_fuzz::mutate::mutate(&seeds, &mut rng);
            inputs += 1;
            if catch_unwind(|| target(&input)).is_err() {
                broken += 1;
                let path = keep(name, &input)?;
                eprintln!("broken: {path}");
            }
        }
    }
    println!("{name}: {inputs} inputs in {seconds} s from {} seeds (seed {seed}), {broken} broken", seeds.len());
    if broken > 0 {
        bail!("{broken} inputs broke {name}: see fuzz/artifacts")
    }
    Ok(())
}

fn keep(name: &str, input: &[u8]) -> anyhow::Result<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("artifacts");
    std::fs::create_dir_all(&folder)?;
    let mut hash = DefaultHasher::new();
    input.hash(&mut hash);
    let path = folder.join(format!("{name}-{:016x}", hash.finish()));
    std::fs::write(&path, input)?;
    Ok(path.display().to_string())
}
