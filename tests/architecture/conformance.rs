//! `docs/conformance.md`: its table is made from the tests, so that no line stands there without one. A scenario stands under
//! the clause of its file; any other test whose doc comment begins with a clause (`/// RFC 3261 16.7: ...`) under that. What
//! is shown is the test's name, read as a sentence. `IMSBOX_UPDATE_GOLDENS=1` writes the table anew.

use crate::refusals::{sources, text};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

const BEGIN: &str = "<!-- made from the tests: begin -->\n";
const END: &str = "<!-- made from the tests: end -->\n";

/// Where tests are looked for, beside the scenarios.
const CRATES: [&str; 12] = [
    "common/core",
    "common/aka",
    "common/sip",
    "common/diameter",
    "xml-ifc",
    "pcscf",
    "icscf",
    "scscf",
    "hss",
    "ue",
    "imsbox",
    "tests/process",
];

/// A clause, so that 5.4.10 comes after 5.4.9.
type Clause = Vec<(u32, String)>;

struct Row {
    shown: String,
    test: String,
}

type Table = BTreeMap<String, BTreeMap<Clause, (String, Vec<Row>)>>;

fn order(clause: &str) -> Clause {
    let part = |p: &str| {
        let digits: String = p.chars().take_while(char::is_ascii_digit).collect();
        (digits.parse().unwrap_or(u32::MAX), p[digits.len()..].to_owned())
    };
    clause.split('.').map(part).collect()
}

/// `ts24229/5_4_1_2_cases.rs` is TS 24.229 5.4.1.2.
fn clause_of(folder: &str, file: &str) -> Option<(String, String)> {
    let document = match folder.strip_prefix("ts") {
        Some(number) => format!("TS {}.{}", number.get(..2)?, number.get(2..)?),
        None => format!("RFC {}", folder.strip_prefix("rfc")?),
    };
    let is_clause = |part: &&str| *part == "annex" || part.len() <= 2 || part.starts_with(|c: char| c.is_ascii_digit());
    let parts: Vec<&str> = file.split('_').take_while(is_clause).collect();
    let clause = match parts.split_first() {
        Some((&"annex", [letter])) => format!("Annex {}", letter.to_uppercase()),
        Some((first, _)) if first.starts_with(|c: char| c.is_ascii_digit()) => parts.join("."),
        _ => String::new(),
    };
    Some((document, clause))
}

/// `TS 24.229 5.4.3.2: whatever` or `RFC 3261 16.7 item 6: whatever`: document, clause.
fn cited(comment: &str) -> Option<(String, String)> {
    let mut words = comment.split_whitespace();
    let kind = words.next().filter(|w| matches!(*w, "TS" | "RFC"))?;
    let number = words.next()?;
    let clause = words.next().unwrap_or_default();
    let number = number.trim_end_matches([':', ',', '.']);
    let clause = clause.trim_end_matches([':', ',', ';', '.', ')']);
    // A number, or an annex: H, B.2.3.
    let first = clause.split('.').next().unwrap_or_default();
    let is_annex = first.len() == 1 && first.starts_with(|c: char| c.is_ascii_uppercase());
    let clause = if is_annex || clause.starts_with(|c: char| c.is_ascii_digit()) { clause } else { "" };
    Some((format!("{kind} {number}"), clause.to_owned()))
}

/// The tests of a file: doc comment and name.
fn tests(source: &str) -> Vec<(String, String)> {
    let (mut found, mut comment, mut is_test) = (Vec::new(), String::new(), false);
    for line in source.lines().map(str::trim) {
        if let Some(said) = line.strip_prefix("///") {
            comment.push_str(said);
        } else if line == "#[test]" {
            is_test = true;
        } else if let Some(rest) = line.strip_prefix("fn ").or_else(|| line.strip_prefix("async fn ")) {
            if std::mem::take(&mut is_test) {
                let name = rest.split(['(', '<']).next().unwrap_or_default();
                found.push((comment.trim().to_owned(), name.to_owned()));
            }
            comment.clear();
        } else if !line.starts_with("#[") {
            comment.clear();
        }
    }
    found
}

fn collect() -> Table {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut table = Table::new();
    let mut add = |document: String, clause: String, file: &Path, name: &str| {
        let place = file.strip_prefix(&root).unwrap_or(file).display().to_string();
        let row = Row { shown: name.replace('_', " "), test: format!("`{place}`") };
        let clauses = table.entry(document).or_default();
        clauses.entry(order(&clause)).or_insert_with(|| (clause, Vec::new())).1.push(row);
    };
    let mut scenarios = sources(&root.join("tests/scenarios"));
    scenarios.sort();
    for file in scenarios {
        let folder = file.parent().and_then(|f| f.file_name()).and_then(|f| f.to_str()).unwrap_or_default();
        let stem = file.file_stem().and_then(|f| f.to_str()).unwrap_or_default();
        let home = clause_of(folder, stem);
        for (comment, name) in tests(&text(&file)) {
            if let Some((document, clause)) = cited(&comment).or_else(|| home.clone()) {
                add(document, clause, &file, &name);
            }
        }
    }
    for package in CRATES {
        let mut files = sources(&root.join(package));
        files.sort();
        for file in files {
            for (comment, name) in tests(&text(&file)) {
                if let Some((document, clause)) = cited(&comment) {
                    add(document, clause, &file, &name);
                }
            }
        }
    }
    table
}

fn written(table: &Table) -> String {
    let mut out = String::new();
    for (document, clauses) in table {
        let _ = write!(out, "\n### {document}\n\n| clause | what is shown | test |\n|---|---|---|\n");
        for (clause, rows) in clauses.values() {
            for row in rows {
                let _ = writeln!(out, "| {clause} | {} | {} |", row.shown, row.test);
            }
        }
    }
    out.push('\n');
    out
}

#[test]
fn the_table_of_conformance_is_that_of_the_tests() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/conformance.md");
    let page = text(&file);
    let (head, rest) = page.split_once(BEGIN).expect("the mark where the table begins");
    let (was, tail) = rest.split_once(END).expect("the mark where the table ends");
    let table = written(&collect());
    if std::env::var_os("IMSBOX_UPDATE_GOLDENS").is_some() {
        std::fs::write(&file, format!("{head}{BEGIN}{table}{END}{tail}")).expect("docs can be written");
    } else {
        assert!(was == table, "docs/conformance.md is not that of the tests: IMSBOX_UPDATE_GOLDENS=1 writes it anew");
    }
}

#[test]
fn clauses_are_read_and_ordered() {
    let of = |folder, file| clause_of(folder, file).map(|(document, clause)| format!("{document} {clause}"));
    assert_eq!(of("ts24229", "5_4_1_2_cases").as_deref(), Some("TS 24.229 5.4.1.2"));
    assert_eq!(of("ts24229", "5_4_1_2_1a").as_deref(), Some("TS 24.229 5.4.1.2.1a"));
    assert_eq!(of("ts33203", "annex_n").as_deref(), Some("TS 33.203 Annex N"));
    assert_eq!(of("rfc3329", "sec_agree").as_deref(), Some("RFC 3329 "));
    assert_eq!(of("restart", "pcscf"), None);
    assert_eq!(cited("RFC 3261 16.7 item 6: the best"), Some(("RFC 3261".into(), "16.7".into())));
    assert_eq!(cited("Field notes 3: the 200"), None);
    assert!(order("5.4.9") < order("5.4.10"));
}
