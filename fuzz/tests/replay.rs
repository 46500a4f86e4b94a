//! Every seed and every input that once broke a target, and a short seeded run of each.

use ims_core::Rng;

#[test]
fn the_corpora_hold() {
    for (name, target) in ims_fuzz::TARGETS {
        let corpus = ims_fuzz::corpus(name).unwrap_or_else(|e| panic!("fuzz/corpus/{name}: {e}"));
        assert!(!corpus.is_empty(), "fuzz/corpus/{name} has no seed");
        for (path, bytes) in corpus {
            println!("{}", path.display());
            target(&bytes);
        }
    }
}

#[test]
fn a_thousand_changes_to_each_corpus_hold() {
    for (name, target) in ims_fuzz::TARGETS {
        let seeds: Vec<Vec<u8>> = ims_fuzz::corpus(name).unwrap().into_iter().map(|(_, bytes)| bytes).collect();
        let mut rng = Rng::from_u64(2026);
        for _ in 0..1000 {
            target(&ims_fuzz::mutate::mutate(&seeds, &mut rng));
        }
    }
}
