//! Runs the scripts of `tests/golden/`: one claim per file, commands above the line, what they told below it.
//! `UPDATE_GOLDEN=1` writes down what they tell now, to be read in review.
//!
//! ```text
//! put a=1 lease=7    delete a    delete a..c    get a..c rev=3 limit=2 sort=mod:desc keys-only    count a..c
//! begin; put ...; get ...; commit (or drop)    history 2..5    hash    compact 4    begin-from    sweep    flush    reopen
//! ```
//! `a..c` is a range, `a..` every key from `a` on, `..` all. A compaction is logical until `sweep`.
#![allow(clippy::unwrap_used)]

mod common;

use std::fmt::Write;
use std::path::Path;

use backend::Backend;
use bytes::Bytes;
use common::{Disk, seal};
use mvcc::{
    CompactError, KeyRange, ProgressState, RangeQuery, RangeResult, ReadError, Record, SortOrder, SortTarget,
    Store, WriteTxn, Writer,
};

#[test]
fn golden() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut ran = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let script = std::fs::read_to_string(&path).unwrap();
        let (commands, expected) = script.split_once("---\n").expect("a line of three dashes");
        let told = Machine::new().script(commands);
        if std::env::var("UPDATE_GOLDEN").is_ok() {
            std::fs::write(&path, format!("{commands}---\n{told}")).unwrap();
        } else {
            assert_eq!(told, expected, "{}", path.display());
        }
        ran += 1;
    }
    assert!(ran > 0);
}

struct Machine {
    disk: Disk,
    backend: Backend,
    store: Store,
    writer: Writer,
    index: u64,
    told: String,
}

impl Machine {
    fn new() -> Machine {
        let disk = Disk::default();
        let backend = disk.open();
        let (store, writer, _) = Store::open(backend.clone()).unwrap();
        Machine { disk, backend, store, writer, index: 0, told: String::new() }
    }

    fn script(mut self, commands: &str) -> String {
        let lines = commands.lines().filter(|line| !line.starts_with('#'));
        let mut commands = lines.flat_map(|line| line.split(';')).map(str::trim).filter(|c| !c.is_empty());
        while let Some(command) = commands.next() {
            let words: Vec<&str> = command.split_whitespace().collect();
            match words[0] {
                "begin" => {
                    let inner: Vec<&str> =
                        commands.by_ref().take_while(|c| !["commit", "drop"].contains(c)).collect();
                    self.transaction(&inner);
                }
                "put" | "delete" => self.transaction(&[command]),
                "get" | "count" => {
                    let told = self.store.range(&query(&words));
                    answer(&mut self.told, told);
                }
                _ => self.other(&words),
            }
        }
        self.told
    }

    fn transaction(&mut self, commands: &[&str]) {
        let mut txn = self.writer.begin();
        commands.iter().for_each(|command| change(&mut txn, command, &mut self.told));
        txn.commit();
        self.seal(Vec::new());
    }

    fn other(&mut self, words: &[&str]) {
        match *words {
            ["history", revisions] => {
                let (from, to) = revisions.split_once("..").unwrap();
                let told = self.store.history(
                    from.parse().unwrap(),
                    to.parse().unwrap_or(i64::MAX),
                    usize::MAX,
                    &mut |_| true,
                );
                match told {
                    Ok(history) => {
                        for event in history.events {
                            let kind = if event.tombstone { "delete" } else { "put" };
                            let key = String::from_utf8_lossy(&event.key);
                            writeln!(self.told, "{} {kind} {key}", event.revision).unwrap();
                        }
                    }
                    Err(error) => refuse(&mut self.told, error),
                }
            }
            ["begin-from"] => match self.store.hash_before_compaction().unwrap() {
                Some(told) => writeln!(
                    self.told,
                    "begins from {:08x} rev={} compact={}",
                    told.hash, told.revision, told.compact_revision
                )
                .unwrap(),
                None => writeln!(self.told, "nothing to begin from").unwrap(),
            },
            ["hash"] => {
                let told = self.store.hash_kv(0).unwrap();
                writeln!(
                    self.told,
                    "hash {:08x} rev={} compact={}",
                    told.hash, told.revision, told.compact_revision
                )
                .unwrap();
            }
            ["compact", revision] => match self.writer.schedule_compaction(revision.parse().unwrap()) {
                Ok(op) => self.seal(vec![op]),
                Err(CompactError::Compacted { .. }) => self.told += "error: compacted already\n",
                Err(CompactError::Future { .. }) => self.told += "error: a future revision\n",
            },
            ["sweep"] => {
                let mut rows = 0;
                loop {
                    let progress = self.store.compact_step(10).unwrap();
                    rows += progress.rows;
                    if progress.state == ProgressState::Done {
                        break;
                    }
                }
                writeln!(self.told, "{rows} rows removed").unwrap();
            }
            ["flush"] => _ = self.backend.flush_all().unwrap(),
            ["reopen"] => {
                self.backend.flush_all().unwrap();
                self.disk = self.disk.image();
                self.backend = self.disk.open();
                let opened;
                (self.store, self.writer, opened) = Store::open(self.backend.clone()).unwrap();
                let (current, compact) = (self.store.current_revision(), self.store.compact_revision());
                writeln!(
                    self.told,
                    "rev={current} compact={compact} keys={} rows={} leases={}",
                    opened.keys,
                    opened.rows,
                    opened.leases.len()
                )
                .unwrap();
            }
            _ => panic!("what is {words:?}?"),
        }
    }

    fn seal(&mut self, ops: Vec<backend::TableOp>) {
        self.index += 1;
        seal(&self.backend, self.index, ops);
    }
}

fn change(txn: &mut WriteTxn<'_>, command: &str, told: &mut String) {
    let words: Vec<&str> = command.split_whitespace().collect();
    match words[..] {
        ["put", pair, ref rest @ ..] => {
            let (key, value) = pair.split_once('=').unwrap();
            let lease =
                rest.first().map_or(0, |lease| lease.strip_prefix("lease=").unwrap().parse().unwrap());
            txn.put(bytes(key), bytes(value), lease);
        }
        ["delete", keys] => {
            if txn.delete_range(&range(keys)).is_empty() {
                *told += "nothing to delete\n";
            }
        }
        ["get" | "count", ..] => answer(told, txn.range(&query(&words))),
        _ => panic!("what is {command:?} in a transaction?"),
    }
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn range(text: &str) -> KeyRange {
    match text.split_once("..") {
        None => KeyRange::Key(bytes(text)),
        Some(("", "")) => KeyRange::all(),
        Some((start, "")) => KeyRange::From(bytes(start)),
        Some((start, end)) => KeyRange::range(bytes(start), bytes(end)),
    }
}

fn query(words: &[&str]) -> RangeQuery {
    let mut query = RangeQuery::new(range(words[1]));
    query.count_only = words[0] == "count";
    for option in &words[2..] {
        let (name, value) = option.split_once('=').unwrap_or((option, "0"));
        match name {
            "rev" => query.revision = value.parse().unwrap(),
            "limit" => query.limit = value.parse().unwrap(),
            "keys-only" => query.keys_only = true,
            "min-mod" => query.min_mod_revision = value.parse().unwrap(),
            "max-mod" => query.max_mod_revision = value.parse().unwrap(),
            "min-create" => query.min_create_revision = value.parse().unwrap(),
            "max-create" => query.max_create_revision = value.parse().unwrap(),
            "sort" => {
                let (target, order) = value.split_once(':').unwrap();
                let target = match target {
                    "key" => SortTarget::Key,
                    "version" => SortTarget::Version,
                    "create" => SortTarget::Create,
                    "mod" => SortTarget::Mod,
                    "value" => SortTarget::Value,
                    _ => panic!("sort by {target}?"),
                };
                let order = match order {
                    "none" => SortOrder::None,
                    "asc" => SortOrder::Ascend,
                    "desc" => SortOrder::Descend,
                    _ => panic!("sort {order}?"),
                };
                query.sort = Some((target, order));
            }
            _ => panic!("what is {option}?"),
        }
    }
    query
}

fn answer(told: &mut String, result: Result<RangeResult, ReadError>) {
    let result = match result {
        Ok(result) => result,
        Err(error) => return refuse(told, error),
    };
    for kv in result.records.iter().map(Record::decode) {
        let (key, value) = (String::from_utf8_lossy(&kv.key), String::from_utf8_lossy(&kv.value));
        write!(
            told,
            "{key}={value} create={} mod={} version={}",
            kv.create_revision, kv.mod_revision, kv.version
        )
        .unwrap();
        if kv.lease != 0 {
            write!(told, " lease={}", kv.lease).unwrap();
        }
        told.push('\n');
    }
    let more = if result.more { " and more" } else { "" };
    writeln!(told, "{} of {}{more} at {}", result.records.len(), result.count, result.revision).unwrap();
}

fn refuse(told: &mut String, error: ReadError) {
    *told += match error {
        ReadError::Compacted { .. } => "error: required revision has been compacted\n",
        ReadError::Future { .. } => "error: required revision is a future revision\n",
        ReadError::Storage(error) => panic!("{error}"),
    };
}
