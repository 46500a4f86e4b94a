//! Every refusal is provoked by some test. What can be seen from here is the text of the tests: the counter's name stands in
//! one (`"no-offer"`), or the variant does in the unit tests of the role (`Refusal::NoOffer`). That the assertion is a good
//! one is for the reader of the test; that none was forgotten is for this one.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What no test can bring about from outside, and why.
const UNREACHABLE: &[(&str, &str, &str)] = &[(
    "pcscf",
    "core-overloaded",
    "as long as the P-CSCF asks the core only on behalf of a UE, the same limit refuses the UE's transaction before",
)];

pub(crate) fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path());
    entries
        .flat_map(|path| match path.is_dir() {
            true => sources(&path),
            false if path.extension().is_some_and(|e| e == "rs") => vec![path],
            false => Vec::new(),
        })
        .collect()
}

pub(crate) fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Counter name -> variants, from `fn name` of `error.rs`.
fn names(error_rs: &str) -> BTreeMap<String, Vec<String>> {
    let begin = error_rs.find("pub fn name(&self)").expect("error.rs has fn name");
    let body = &error_rs[begin..];
    let body = &body[..body.find("\n    }\n").expect("the end of fn name")];
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in body.lines() {
        let Some((pattern, result)) = line.split_once("=>") else { continue };
        let Some(name) = result.split('"').nth(1) else { continue };
        let variant = pattern.trim().trim_start_matches("Self::");
        let end = variant.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(variant.len());
        all.entry(name.into()).or_default().push(variant[..end].into());
    }
    all
}

#[test]
fn every_refusal_is_provoked_by_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |folder: &str| sources(&root.join(folder)).iter().map(|p| text(p)).collect::<Vec<_>>().join("\n");
    let shared = read("tests/scenarios");
    let mut missing = Vec::new();
    for role in ["pcscf", "icscf", "scscf", "hss"] {
        let names = names(&text(&root.join(role).join("src/error.rs")));
        assert!(names.len() > 10, "{role}: fn name of error.rs is not read any more");
        let whole = format!("{shared}\n{}", read(&format!("{role}/tests")));
        let units: String = sources(&root.join(role).join("src"))
            .iter()
            .filter(|path| !path.ends_with("error.rs"))
            .filter_map(|path| text(path).split_once("#[cfg(test)]").map(|(_, tests)| tests.to_owned()))
            .collect();
        for (name, variants) in names {
            // Only where one variant has one name does the variant say which.
            let of_unit = |v: &String| {
                let word = format!("Refusal::{v}");
                units
                    .match_indices(&word)
                    .any(|(at, _)| !units[at + word.len()..].starts_with(|c: char| c.is_ascii_alphanumeric()))
            };
            let known = whole.contains(&format!("\"{name}\"")) || variants.iter().any(of_unit);
            let excused = UNREACHABLE.iter().any(|(r, n, _)| (*r, *n) == (role, name.as_str()));
            if !known && !excused {
                missing.push(format!("{role}: {name}"));
            }
            assert!(!(known && excused), "{role}: {name} is provoked after all");
        }
    }
    assert!(missing.is_empty(), "no test provokes: {missing:#?}");
}
