//! Runs the scripts in `tests/golden`: what is written above `---`, the bytes of the file below.
//! `UPDATE_GOLDEN=1 cargo test -p bolt --test golden` rewrites the bytes.
//!
//! The decoder here is a second one, which knows offsets and nothing else: read it beside the tables
//! in `src/lib.rs`.
#![allow(clippy::unwrap_used)]

use bolt::{Error, PAGE, Reader, Writer};
use std::fmt::Write;
use std::io::Cursor;
use std::path::PathBuf;

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// `bytes` as the scripts write them: long runs of a byte as `x*700`.
fn show(bytes: &[u8]) -> String {
    let runs: Vec<&[u8]> = bytes.chunk_by(|a, b| a == b).collect();
    if runs.iter().all(|run| run.len() < 20) {
        return bytes.escape_ascii().to_string();
    }
    let run = |run: &&[u8]| match run.len() {
        1 => run.escape_ascii().to_string(),
        length => format!("{}*{length}", run[..1].escape_ascii()),
    };
    runs.iter().map(run).collect::<Vec<_>>().join(":")
}

/// Every byte of the file that is not zero, in words.
fn explain(file: &[u8]) -> String {
    let mut out = String::new();
    let mut at = 0;
    while at < file.len() {
        let pages = number(&file[at + 12..at + 16]) as usize + 1;
        explain_page(&mut out, &file[at..at + pages * PAGE], at);
        at += pages * PAGE;
    }
    out
}

fn explain_page(out: &mut String, page: &[u8], at: usize) {
    let [id, flags, count, overflow] = [0..8, 8..10, 10..12, 12..16].map(|range| number(&page[range]));
    let kind = match flags {
        1 => "branch",
        2 => "leaf",
        4 => "meta",
        16 => "free list",
        _ => panic!("page kind {flags}"),
    };
    writeln!(out, "{at:06x} page {id}, {kind}, {count} elements, {overflow} more pages").unwrap();
    let mut rest = page.to_vec();
    rest[..16].fill(0);
    match flags {
        4 => {
            let [magic, version, size] = [16, 20, 24].map(|field| number(&page[field..field + 4]));
            let [root, free, pages, transaction, checksum] =
                [32, 48, 56, 64, 72].map(|field| number(&page[field..field + 8]));
            writeln!(out, "       magic {magic:08x}, version {version}, pages of {size} bytes").unwrap();
            writeln!(out, "       root bucket at page {root}, free list at page {free}, {pages} pages")
                .unwrap();
            writeln!(out, "       transaction {transaction}, checksum {checksum:016x}").unwrap();
            rest[16..80].fill(0);
        }
        1 => {
            for element in (16..).step_by(16).take(count as usize) {
                let [position, length] = [0, 4].map(|field| number(&page[element + field..][..4]) as usize);
                let child = number(&page[element + 8..][..8]);
                let key = &page[element + position..][..length];
                writeln!(out, "{:06x} from {} on: page {child}", at + element, show(key)).unwrap();
                rest[element..element + 16].fill(0);
                rest[element + position..][..length].fill(0);
            }
        }
        2 => explain_leaf(out, page, &mut rest, count, at, ""),
        _ => {}
    }
    let strays = rest.iter().filter(|byte| **byte != 0).count();
    assert_eq!(strays, 0, "bytes of page {id} that nothing refers to");
}

fn explain_leaf(out: &mut String, page: &[u8], rest: &mut [u8], count: u64, at: usize, indent: &str) {
    for element in (16..).step_by(16).take(count as usize) {
        let [flags, position, key, value] =
            [0, 4, 8, 12].map(|field| number(&page[element + field..][..4]) as usize);
        let at = at + element;
        let begin = element + position;
        let (key, value) = page[begin..begin + key + value].split_at(key);
        rest[element..element + 16].fill(0);
        rest[begin..begin + key.len() + value.len()].fill(0);
        match (flags, number(&value[..value.len().min(8)])) {
            (0, _) => writeln!(out, "{at:06x} {indent}{} = \"{}\"", show(key), show(value)).unwrap(),
            (1, 0) => {
                let count = number(&value[26..28]);
                writeln!(out, "{at:06x} {indent}bucket {}, inline, {count} elements", show(key)).unwrap();
                let mut ignored = value[16..].to_vec();
                let at = at - element + begin + key.len() + 16;
                explain_leaf(out, &value[16..], &mut ignored, count, at, "  ");
            }
            (1, root) => {
                writeln!(out, "{at:06x} {indent}bucket {} at page {root}", show(key)).unwrap();
            }
            _ => panic!("element flags {flags}"),
        }
    }
}

/// `abc` or `a*300` (a letter, so many times) or `a*300:b*2`.
fn bytes(word: &str) -> Vec<u8> {
    let part = |part: &str| match part.split_once('*') {
        Some((letter, times)) => letter.repeat(times.parse().unwrap()).into_bytes(),
        None => part.as_bytes().to_vec(),
    };
    word.split(':').flat_map(part).collect()
}

fn run(commands: &str) -> String {
    let mut out = String::new();
    let mut writer = Writer::create(Cursor::new(Vec::new())).unwrap();
    for line in commands.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let mut word = || words.next().unwrap_or("");
        let done: Result<(), Error> = match word() {
            "bucket" => writer.bucket(&bytes(word())),
            "put" => {
                let (bucket, pair) = (word(), word());
                let (key, value) = pair.split_once('=').unwrap();
                writer.put(bucket.as_bytes(), &bytes(key), &bytes(value))
            }
            command => panic!("{command}"),
        };
        if let Err(error) = done {
            writeln!(out, "{line}: {error}").unwrap();
        }
    }
    let file = writer.finish().unwrap().into_inner();
    Reader::open(Cursor::new(&file)).unwrap();
    out + &explain(&file)
}

#[test]
fn scripts() {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut paths: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty());
    for path in paths {
        let script = std::fs::read_to_string(&path).unwrap();
        let (commands, expected) = script.split_once("---\n").unwrap_or((&script, ""));
        let answer = run(commands);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, format!("{commands}---\n{answer}")).unwrap();
        } else {
            assert_eq!(answer, expected, "{}", path.display());
        }
    }
}
