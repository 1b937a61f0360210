//! Runs the scripts in `tests/golden`: commands above `---`, what they answer below.
//! `UPDATE_GOLDEN=1 cargo test -p backend --test golden` rewrites the answers.
#![allow(clippy::unwrap_used)]

use backend::{Backend, Options, Row, RowKey, Seal, Storage, Table, TableOp, View, row_key};
use bytes::Bytes;
use std::fmt::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;

struct Stage {
    _directory: tempfile::TempDir,
    path: PathBuf,
    options: Options,
    store: Option<Backend>,
    view: Option<View>,
}

/// `7` or `7.1`: a revision.
fn key(word: &str) -> RowKey {
    let (main, sub) = word.split_once('.').unwrap_or((word, "0"));
    row_key(main.parse().unwrap(), sub.parse().unwrap())
}

fn show_key(key: &RowKey) -> String {
    let number = |bytes: &[u8]| i64::from_be_bytes(bytes.try_into().unwrap());
    match number(&key[9..]) {
        0 => format!("{}", number(&key[..8])),
        sub => format!("{}.{sub}", number(&key[..8])),
    }
}

/// `lease/a=1` sets, `lease/a` deletes.
fn op(word: &str) -> TableOp {
    let (table, entry) = word.split_once('/').unwrap();
    let table = Table::ALL.into_iter().find(|known| known.name() == table).unwrap();
    match entry.split_once('=') {
        Some((key, value)) => TableOp::put(table, key.to_owned(), value.to_owned()),
        None => TableOp::delete(table, entry.to_owned()),
    }
}

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn rows(view: &View, from: &str, to: &str) -> String {
    let mut out = String::new();
    view.for_each_row(key(from), key(to), |key, tombstone, record| {
        let mark = if tombstone { "†" } else { "" };
        write!(out, " {}{mark}={}", show_key(key), text(record)).unwrap();
        ControlFlow::Continue(())
    })
    .unwrap();
    if out.is_empty() { " none".into() } else { out }
}

impl Stage {
    fn new() -> Stage {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("db");
        Stage { path, _directory: directory, options: Options::default(), store: None, view: None }
    }

    fn store(&mut self) -> &Backend {
        let open = || Backend::open(Storage::File(self.path.clone()), self.options).unwrap();
        self.store.get_or_insert_with(open)
    }

    fn run(&mut self, command: &str) -> Option<String> {
        let words: Vec<&str> = command.split_whitespace().collect();
        let store = self.store().clone();
        let (verb, rest) = words.split_first().unwrap();
        match (*verb, rest) {
            ("insert", [at, record]) => {
                store.insert_row(key(at), Row { tombstone: false, record: Bytes::from(record.to_string()) });
            }
            ("bury", [at, record]) => {
                store.insert_row(key(at), Row { tombstone: true, record: Bytes::from(record.to_string()) });
            }
            ("seal", [index, ops @ ..]) => {
                let (ops, conf): (Vec<&str>, Vec<&str>) =
                    ops.iter().copied().partition(|word| word.contains('/'));
                store.seal(Seal {
                    index: index.parse().unwrap(),
                    term: 1,
                    conf_state: conf.first().map(|word| Bytes::from(word.to_string())),
                    ops: ops.iter().map(|word| op(word)).collect(),
                });
            }
            ("note", ops) => store.write_ops(ops.iter().map(|word| op(word)).collect()),
            ("remove", keys) => store.delete_rows(keys.iter().map(|word| key(word)).collect()),
            ("limit", [rows]) => {
                self.options.flush_rows = rows.parse().unwrap();
                self.store = None;
            }
            ("view", []) => self.view = Some(store.view().unwrap()),
            ("reopen", []) => {
                self.view = None;
                drop(store);
                self.store = None;
            }
            ("defragment", []) => store.defragment().unwrap(),
            ("flush", []) => {
                let flushed = store.flush().unwrap();
                let more = if flushed.more { ", more to do" } else { "" };
                return Some(format!("flush: {} rows, index {}{more}", flushed.rows, flushed.index));
            }
            ("get", [at]) => {
                let found = store.get(&key(at)).unwrap();
                return Some(format!("get {at}: {}", found.map_or("none".into(), |record| text(&record))));
            }
            ("rows", []) => {
                return Some(format!("rows:{}", rows(&store.view().unwrap(), "0", &format!("{}", i64::MAX))));
            }
            ("rows", [from, to]) => {
                return Some(format!("rows {from}..{to}:{}", rows(&store.view().unwrap(), from, to)));
            }
            ("old-rows", []) => {
                return Some(format!(
                    "old rows:{}",
                    rows(self.view.as_ref().unwrap(), "0", &format!("{}", i64::MAX))
                ));
            }
            ("table", [name]) => {
                let table = op(&format!("{name}/")).table;
                let mut out = format!("{name}:");
                store
                    .scan_table(table, |key, value| {
                        assert_eq!(store.table_get(table, key).unwrap().as_deref(), Some(value));
                        write!(out, " {}={}", text(key), text(value)).unwrap();
                    })
                    .unwrap();
                return Some(out);
            }
            ("consistent", []) => {
                let at = store.consistent();
                let conf = at.conf_state.map_or("none".into(), |conf| text(&conf));
                return Some(format!("consistent: index {} term {} conf {conf}", at.index, at.term));
            }
            ("in-use", []) => return Some(format!("in use: {}", store.size_in_use())),
            ("hash", []) => return Some(format!("hash: {:08x}", store.hash_tables().unwrap())),
            _ => panic!("unknown command: {command}"),
        }
        None
    }
}

#[test]
fn scripts_answer_as_written() {
    let mut ran = 0;
    for entry in std::fs::read_dir("tests/golden").unwrap() {
        let path = entry.unwrap().path();
        let script = std::fs::read_to_string(&path).unwrap();
        let (head, expected) = script.split_once("---\n").unwrap_or((&script, ""));
        let mut stage = Stage::new();
        let lines = head.lines().filter(|line| !line.starts_with('#'));
        let commands = lines.flat_map(|line| line.split(';')).map(str::trim).filter(|line| !line.is_empty());
        let answers: String =
            commands.filter_map(|command| stage.run(command)).map(|answer| answer + "\n").collect();
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, format!("{head}---\n{answers}")).unwrap();
        } else {
            assert_eq!(answers, expected, "{}", path.display());
        }
        ran += 1;
    }
    assert!(ran > 5, "only {ran} scripts were found");
}
