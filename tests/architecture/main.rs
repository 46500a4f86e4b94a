//! Who may depend on whom (docs/architecture.md, section 2), held against `cargo metadata`.

mod conformance;
mod refusals;

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Crate -> the crates of this workspace that its library may use. `shell` stands in no line of logic: it is an option of
/// the programs.
const TABLE: &[(&str, &[&str])] = &[
    ("ims-core", &[]),
    ("ims-aka", &["ims-core"]),
    ("ims-sip", &["ims-core"]),
    ("ims-diameter", &["ims-core"]),
    ("xml-ifc", &["ims-core", "ims-sip"]),
    ("pcscf", &["ims-core", "ims-sip", "ims-diameter"]),
    ("icscf", &["ims-core", "ims-sip", "ims-diameter"]),
    ("scscf", &["ims-core", "ims-sip", "ims-diameter", "xml-ifc", "ims-aka"]),
    ("hss", &["ims-core", "ims-sip", "ims-diameter", "xml-ifc", "ims-aka"]),
    ("ue", &["ims-core", "ims-sip", "ims-aka"]),
    ("ims-shell", &["ims-core", "ims-sip", "ims-diameter"]),
];

/// What does I/O, reads clocks, or draws randomness from the system.
const IMPURE: &[&str] = &["tokio", "socket2", "getrandom", "mio", "sqlx", "axum", "hyper", "rand"];

fn metadata(args: &[&str]) -> Value {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["metadata", "--format-version", "1", "--offline", "--locked", "--manifest-path", manifest])
        .args(args);
    let output = command.output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON")
}

/// Package -> its dependencies that are neither for tests nor optional.
fn dependencies(package: &Value) -> BTreeSet<String> {
    let list = package["dependencies"].as_array().into_iter().flatten();
    let wanted = list.filter(|d| d["kind"].is_null() && d["optional"] != true);
    wanted.filter_map(|d| d["name"].as_str().map(str::to_owned)).collect()
}

#[test]
fn crates_depend_only_downwards() {
    let metadata = metadata(&["--no-deps"]);
    let packages = metadata["packages"].as_array().expect("packages");
    let members: BTreeSet<&str> = packages.iter().filter_map(|p| p["name"].as_str()).collect();
    for (name, allowed) in TABLE {
        let package = packages.iter().find(|p| p["name"] == *name).unwrap_or_else(|| panic!("{name} is gone"));
        for dependency in dependencies(package).iter().filter(|d| members.contains(d.as_str())) {
            assert!(allowed.contains(&dependency.as_str()), "{name} must not depend on {dependency}");
        }
    }
}

#[test]
fn only_programs_and_the_box_use_the_shell() {
    let metadata = metadata(&["--no-deps"]);
    for package in metadata["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().unwrap_or_default();
        let uses = dependencies(package).contains("ims-shell");
        assert!(!uses || ["imsbox", "ims-process-tests", "ims-bench"].contains(&name), "{name} depends on ims-shell");
    }
}

/// The trees of the logic crates, without the programs' option, hold nothing that does I/O.
#[test]
fn no_pure_crate_pulls_in_io() {
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let metadata = metadata(&["--no-default-features", "--filter-platform", &platform]);
    let packages: BTreeMap<&str, &str> = metadata["packages"]
        .as_array()
        .expect("packages")
        .iter()
        .filter_map(|p| Some((p["id"].as_str()?, p["name"].as_str()?)))
        .collect();
    let nodes: BTreeMap<&str, &Value> = metadata["resolve"]["nodes"]
        .as_array()
        .expect("nodes")
        .iter()
        .filter_map(|n| Some((n["id"].as_str()?, n)))
        .collect();
    for (name, _) in TABLE.iter().filter(|(name, _)| *name != "ims-shell") {
        let root = packages.iter().find(|(_, n)| *n == name).map(|(id, _)| *id).expect("a member");
        let mut open = vec![vec![root]];
        let mut seen = BTreeSet::new();
        while let Some(path) = open.pop() {
            let id = path[path.len() - 1];
            if !seen.insert(id) {
                continue;
            }
            let chain = || path.iter().filter_map(|id| packages.get(id)).copied().collect::<Vec<_>>().join(" -> ");
            let impure = packages.get(id).is_some_and(|n| IMPURE.contains(n));
            // The manifest of this very test unites features, but a feature cannot turn an edge of a tree around.
            assert!(!impure, "{name} is not pure: {}", chain());
            for dep in nodes.get(id).and_then(|n| n["deps"].as_array()).into_iter().flatten() {
                let normal = dep["dep_kinds"].as_array().is_none_or(|k| k.iter().any(|k| k["kind"].is_null()));
                if let Some(next) = dep["pkg"].as_str().filter(|_| normal) {
                    open.push(path.iter().copied().chain([next]).collect());
                }
            }
        }
    }
}

/// Role programs stay thin (docs/architecture.md, section 2).
#[test]
fn programs_are_at_most_twenty_lines() {
    for role in ["pcscf", "icscf", "scscf", "hss", "ue"] {
        let file = format!("{}/../{role}/src/main.rs", env!("CARGO_MANIFEST_DIR"));
        let lines = std::fs::read_to_string(&file).map_or(0, |text| text.lines().count());
        assert!(lines <= 20, "{file} has {lines} lines");
    }
}
