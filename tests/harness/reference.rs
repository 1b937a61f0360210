//! What `tests/reference.md` says is so: it has all rows of etcd's tables, and what it names is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const DOCUMENT: &str = include_str!("../reference.md");

/// The first column of a table of the document, by the title above it.
fn rows(title: &str) -> BTreeSet<&'static str> {
    let (_, table) = DOCUMENT.split_once(&format!("\n## {title}\n")).unwrap_or_default();
    let table = table.split("\n## ").next().unwrap_or_default();
    table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect()
}

/// A table of etcd's, each row by the columns that name it.
fn theirs(table: &'static str, name: impl Fn(&[&str]) -> String) -> BTreeSet<String> {
    table.lines().skip(1).map(|line| name(&line.split('\t').collect::<Vec<_>>())).collect()
}

#[test]
fn every_row_of_the_reference_tables_is_there() {
    let calls = include_str!("../../crates/api/tests/data/rpcs.tsv");
    let paths = include_str!("../../crates/gateway/tests/data/http.tsv");
    let metrics = include_str!("../../crates/gateway/tests/data/metrics.tsv");
    let flags = include_str!("../../crates/cairn/tests/data/flags.tsv");
    let errors = include_str!("../../crates/api/tests/data/errors.tsv");
    for (title, theirs) in [
        ("Calls", theirs(calls, |row| format!("{}.{}/{}", row[0], row[1], row[2]))),
        ("Paths", theirs(paths, |row| row[..3].join(" "))),
        ("Metrics", theirs(metrics, |row| row[0].to_owned())),
        ("Flags", theirs(flags, |row| row[1].to_owned())),
        ("Errors", theirs(errors, |row| row[1].to_owned())),
    ] {
        let ours: BTreeSet<String> = rows(title).into_iter().map(str::to_owned).collect();
        assert_eq!(ours, theirs, "{title}");
    }
}

/// `file::name`: the file has it.
#[test]
fn what_shows_a_row_is_there() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut named = 0;
    for (file, name) in DOCUMENT.split('`').filter_map(|code| code.split_once("::")) {
        let text = fs::read_to_string(top.join(file)).unwrap_or_default();
        assert!(!text.is_empty() && text.contains(name), "{file} has no {name:?}");
        named += 1;
    }
    assert!(named > 300, "only {named} are named");
}
