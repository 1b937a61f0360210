//! `HashKV` is the number that real etcd gives for the same history.
//!
//! Each file of `tests/etcd/` is a history, and behind every arrow stands what etcd 3.5.1 answered: the ids
//! of the leases it granted, and its hashes. With `ETCD_BIN` set to a directory with `etcd` and `etcdctl`,
//! and `UPDATE_GOLDEN=1`, the histories are driven through that etcd again and the answers rewritten.
//!
//! ```text
//! put KEY VALUE [lease=NAME]      delete KEY [END]      txn OP; OP; ...
//! grant NAME -> ID                revoke NAME           compact REVISION
//! hash [REVISION] -> HASH COMPACT_REVISION
//! ```
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use common::{Disk, seal};
use mvcc::{KeyRange, ProgressState, ReadError, Store, WriteTxn, Writer};

#[test]
fn hashes_are_those_of_etcd() {
    let mut files: Vec<PathBuf> = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/etcd"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() >= 3);
    for file in files {
        let script = std::fs::read_to_string(&file).unwrap();
        if let (Some(bin), Ok(_)) = (std::env::var_os("ETCD_BIN"), std::env::var("UPDATE_GOLDEN")) {
            std::fs::write(&file, real::record(Path::new(&bin), &script)).unwrap();
            continue;
        }
        let mut ours = Ours::new();
        let replayed: String = script.lines().map(|line| ours.run(line) + "\n").collect();
        assert_eq!(replayed, script, "{}", file.display());
        assert!(script.matches("hash").count() > 3, "{} proves something", file.display());
    }
}

struct Ours {
    backend: backend::Backend,
    store: Store,
    writer: Writer,
    leases: BTreeMap<String, i64>,
    index: u64,
}

impl Ours {
    fn new() -> Ours {
        let backend = Disk::default().open();
        let (store, writer, _) = Store::open(backend.clone()).unwrap();
        Ours { backend, store, writer, leases: BTreeMap::new(), index: 0 }
    }

    /// Runs one line and returns it as etcd would have left it.
    fn run(&mut self, line: &str) -> String {
        let (command, told) = line.split_once(" -> ").unwrap_or((line, ""));
        let words: Vec<&str> = command.split_whitespace().collect();
        match words[..] {
            [] | ["#", ..] => {}
            ["grant", name] => _ = self.leases.insert(name.into(), told.parse().unwrap()),
            ["revoke", name] => self.revoke(name),
            ["compact", revision] => self.compact(revision.parse().unwrap()),
            ["hash", ref revision @ ..] => {
                let revision = revision.first().map_or(0, |revision| revision.parse().unwrap());
                let answer = match self.store.hash_kv(revision) {
                    Ok(told) => format!("{} {}", told.hash, told.compact_revision),
                    Err(ReadError::Compacted { .. }) => "compacted".into(),
                    Err(error) => format!("{error}"),
                };
                return format!("{command} -> {answer}");
            }
            _ => {
                let mut txn = self.writer.begin();
                let ops = command.strip_prefix("txn ").unwrap_or(command);
                ops.split(';').for_each(|op| change(&mut txn, &self.leases, op));
                txn.commit();
                self.seal(Vec::new());
            }
        }
        line.to_string()
    }

    fn seal(&mut self, ops: Vec<backend::TableOp>) {
        self.index += 1;
        seal(&self.backend, self.index, ops);
        // Some history in redb, some in the buffer: the hash sees no border.
        if self.index.is_multiple_of(5) {
            self.backend.flush_all().unwrap();
        }
    }

    fn revoke(&mut self, name: &str) {
        let lease = self.leases[name];
        let all = self.store.range(&mvcc::RangeQuery::new(KeyRange::all())).unwrap();
        let attached = all.records.iter().map(mvcc::Record::decode).filter(|kv| kv.lease == lease);
        let mut txn = self.writer.begin();
        attached.for_each(|kv| _ = txn.delete_range(&KeyRange::Key(kv.key)));
        txn.commit();
        self.seal(Vec::new());
    }

    /// The hash is the same however far the removal of rows has come.
    fn compact(&mut self, revision: i64) {
        let op = self.writer.schedule_compaction(revision).unwrap();
        self.seal(vec![op]);
        let before = self.store.hash_kv(0).unwrap();
        while self.store.compact_step(1).unwrap().state == ProgressState::More {
            assert_eq!(self.store.hash_kv(0).unwrap(), before, "in the middle of compaction {revision}");
        }
        self.backend.flush_all().unwrap();
        assert_eq!(self.store.hash_kv(0).unwrap(), before, "after compaction {revision}");
        let reopened = Store::open(self.backend.clone()).unwrap().0;
        assert_eq!(reopened.hash_kv(0).unwrap(), before, "after a restart");
    }
}

fn change(txn: &mut WriteTxn<'_>, leases: &BTreeMap<String, i64>, op: &str) {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    match op.split_whitespace().collect::<Vec<_>>()[..] {
        ["put", key, value] => _ = txn.put(bytes(key), bytes(value), 0),
        ["put", key, value, lease] => {
            let lease = leases[lease.strip_prefix("lease=").unwrap()];
            _ = txn.put(bytes(key), bytes(value), lease);
        }
        ["delete", key] => _ = txn.delete_range(&KeyRange::Key(bytes(key))),
        ["delete", key, end] => _ = txn.delete_range(&KeyRange::range(bytes(key), bytes(end))),
        _ => panic!("what is {op:?}?"),
    }
}

/// The same lines through real etcd.
mod real {
    use std::collections::BTreeMap;
    use std::io::Write;
    use std::net::TcpListener;
    use std::path::Path;
    use std::process::{Child, Command, Stdio};

    struct Etcd<'a> {
        child: Child,
        bin: &'a Path,
        endpoint: String,
        leases: BTreeMap<String, i64>,
        _dir: tempfile::TempDir,
    }

    impl Drop for Etcd<'_> {
        fn drop(&mut self) {
            _ = self.child.kill();
            _ = self.child.wait();
        }
    }

    pub(super) fn record(bin: &Path, script: &str) -> String {
        let mut etcd = Etcd::start(bin);
        script.lines().map(|line| etcd.run(line) + "\n").collect()
    }

    impl Etcd<'_> {
        fn start(bin: &Path) -> Etcd<'_> {
            let dir = tempfile::tempdir().unwrap();
            let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let (client, peer) = (format!("http://{}", free()), format!("http://{}", free()));
            let child = Command::new(bin.join("etcd"))
                .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
                .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
                .args(["--initial-cluster", &format!("default={peer}"), "--log-level", "error"])
                .arg("--data-dir")
                .arg(dir.path())
                .spawn()
                .unwrap();
            let etcd = Etcd { child, bin, endpoint: client, leases: BTreeMap::new(), _dir: dir };
            while !etcd.ctl(&["endpoint", "health"], "").1 {}
            etcd
        }

        fn ctl(&self, args: &[&str], input: &str) -> (String, bool) {
            let mut child = Command::new(self.bin.join("etcdctl"))
                .env("ETCDCTL_API", "3")
                .args(["--endpoints", &self.endpoint])
                .args(args)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
            let output = child.wait_with_output().unwrap();
            (String::from_utf8(output.stdout).unwrap(), output.status.success())
        }

        fn run(&mut self, line: &str) -> String {
            let command = line.split(" -> ").next().unwrap();
            let words: Vec<&str> = command.split_whitespace().collect();
            match words[..] {
                [] | ["#", ..] => return line.into(),
                ["grant", name] => {
                    let told = self.ctl(&["lease", "grant", "3600"], "").0;
                    let id = i64::from_str_radix(told.split_whitespace().nth(1).unwrap(), 16).unwrap();
                    self.leases.insert(name.into(), id);
                    return format!("{command} -> {id}");
                }
                ["revoke", name] => {
                    let id = format!("{:x}", self.leases[name]);
                    assert!(self.ctl(&["lease", "revoke", &id], "").1);
                }
                ["compact", revision] => {
                    assert!(self.ctl(&["compact", "--physical", revision], "").1, "{line}");
                }
                ["hash", ref revision @ ..] => {
                    let rev = format!("--rev={}", revision.first().unwrap_or(&"0"));
                    let (told, done) = self.ctl(&["endpoint", "hashkv", &rev, "-w", "json"], "");
                    let number = |name: &str| {
                        let from = told.find(&format!("\"{name}\":")).unwrap() + name.len() + 3;
                        told[from..].split([',', '}']).next().unwrap().to_string()
                    };
                    if !done || !told.contains("\"hash\"") {
                        return format!("{command} -> compacted");
                    }
                    return format!("{command} -> {} {}", number("hash"), number("compact_revision"));
                }
                _ => {
                    let ops = command.strip_prefix("txn ").unwrap_or(command);
                    let ops: Vec<String> = ops.split(';').map(|op| self.op(op)).collect();
                    let (_, done) = self.ctl(&["txn"], &format!("\n{}\n\n\n", ops.join("\n")));
                    assert!(done, "{line}");
                }
            }
            line.into()
        }

        fn op(&self, op: &str) -> String {
            match op.split_whitespace().collect::<Vec<_>>()[..] {
                ["put", key, value, lease] => {
                    let lease = self.leases[lease.strip_prefix("lease=").unwrap()];
                    format!("put --lease={lease:x} {key} {value}")
                }
                ["delete", ref words @ ..] => format!("del {}", words.join(" ")),
                _ => op.trim().to_string(),
            }
        }
    }
}
