//! Backups that are restored, and such that are not; what is left behind in each case.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Cursor, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::etcdserverpb::{AlarmMember, AlarmType};
use api::leasepb::Lease;
use api::mvccpb::KeyValue;
use apply::{Machine, Shared};
use backend::{Backend, Storage, Table, row_key};
use bolt::{Writer, digest};
use mvcc::{KeyRange, RangeQuery, ReadError};
use prost::Message as _;
use raft::{Index, NodeId, SnapshotMeta, Term};
use tools::{Error, Phase, Restore, hash_kv, restore, status};
use wal::{RealDisk, Wal};

/// A member of another cluster: two keys that are there, one that is not, a lease, an alarm, users.
fn body() -> Vec<u8> {
    let record = |key: &str, create: i64, at: i64, version: i64, lease: i64| {
        let (key, value) = (key.to_owned().into(), format!("v{at}").into());
        KeyValue { key, value, create_revision: create, mod_revision: at, version, lease }.encode_to_vec()
    };
    let alarm = AlarmMember { member_id: 9, alarm: AlarmType::Nospace.into() };
    let lease = Lease { id: 7, ttl: 600, remaining_ttl: 0 };
    let mut writer = Writer::create(Cursor::new(Vec::new())).unwrap();
    let mut put = |bucket: &str, key: &[u8], value: &[u8]| {
        writer.put(bucket.as_bytes(), key, value).unwrap();
    };
    put("alarm", &alarm.encode_to_vec(), b"");
    put("auth", b"authEnabled", &[0]);
    put("auth", b"authRevision", &3u64.to_be_bytes());
    put("authRoles", b"root", b"\x0a\x04root");
    put("authUsers", b"root", b"\x0a\x04root");
    put("cluster", b"clusterVersion", b"3.7.0");
    put("key", &row_key(2, 0), &record("a", 2, 2, 1, 7));
    put("key", &row_key(3, 0), &record("b", 3, 3, 1, 0));
    put("key", &row_key(4, 0), &record("c", 4, 4, 1, 0));
    put("key", &row_key(4, 1), &record("b", 3, 4, 2, 0));
    let tombstone = KeyValue { key: "c".into(), ..KeyValue::default() }.encode_to_vec();
    put("key", &[&row_key(5, 0)[..], b"t"].concat(), &tombstone);
    put("lease", &7i64.to_be_bytes(), &lease.encode_to_vec());
    put("members", b"1f", br#"{"id":31,"peerURLs":["http://old:1"],"name":"old"}"#);
    put("members_removed", b"2f", b"removed");
    put("meta", b"confState", br#"{"voters":[31],"auto_leave":false}"#);
    put("meta", b"consistent_index", &1_000u64.to_be_bytes());
    put("meta", b"storageVersion", b"3.7.0");
    put("meta", b"term", &44u64.to_be_bytes());
    writer.finish().unwrap().into_inner()
}

struct Backup {
    dir: tempfile::TempDir,
}

impl Backup {
    /// A file as `etcdctl snapshot save` stores it.
    fn new() -> Backup {
        let backup = Backup { dir: tempfile::tempdir().unwrap() };
        let mut file = File::options().read(true).write(true).create(true).truncate(true).open(backup.file());
        let file = file.as_mut().unwrap();
        file.write_all(&body()).unwrap();
        digest::append(file).unwrap();
        backup
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("backup.db")
    }

    fn change(&self, change: impl FnOnce(&mut File)) {
        change(&mut File::options().read(true).write(true).open(self.file()).unwrap());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn to(&self, dir: &str) -> Restore {
        let url = |port| vec![format!("http://127.0.0.1:{port}")];
        Restore {
            snapshot: self.file(),
            name: "a".to_owned(),
            members: BTreeMap::from([("a".to_owned(), url(1)), ("b".to_owned(), url(2))]),
            token: "t".to_owned(),
            data_dir: self.path(dir),
            wal_dir: None,
            skip_hash_check: false,
            bump: None,
        }
    }

    /// Everything beside the backup.
    fn left(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "backup.db")
            .collect();
        names.sort();
        names
    }
}

fn run(what: &Restore) -> Result<tools::Restored, Error> {
    restore(what, &mut |_, _, _| {})
}

fn open(data_dir: &Path) -> (Backend, Shared) {
    let path = data_dir.join("member").join("cairn.redb");
    let backend = Backend::open(Storage::File(path), backend::Options::default()).unwrap();
    let (_, shared) = Machine::open(backend.clone(), apply::Options::default()).unwrap();
    (backend, shared)
}

fn keys(shared: &Shared, revision: i64) -> Result<Vec<(String, i64)>, ReadError> {
    let query = RangeQuery { revision, ..RangeQuery::new(KeyRange::all()) };
    let found = shared.store.range(&query)?;
    let name = |kv: KeyValue| (String::from_utf8(kv.key.to_vec()).unwrap(), kv.mod_revision);
    Ok(found.records.iter().map(|record| name(record.decode())).collect())
}

fn named(name: &str, revision: i64) -> (String, i64) {
    (name.to_owned(), revision)
}

#[test]
fn keys_leases_and_alarms_stay_and_members_and_log_are_new() {
    let backup = Backup::new();
    let mut phases = Vec::new();
    let restored = restore(&backup.to("a"), &mut |phase, done, total| {
        assert!(done <= total);
        phases.push(phase);
    })
    .unwrap();
    phases.dedup();
    assert_eq!(phases, [Phase::Checking, Phase::Reading, Phase::Opening]);
    let urls = |port| vec![format!("http://127.0.0.1:{port}")];
    let ids = [1, 2].map(|port| server::member_id(&urls(port), "t"));
    assert_eq!((restored.member_id, restored.cluster_id), (ids[0], server::cluster_id(&ids)));
    assert_eq!((restored.revision, backup.left()), (5, vec!["a".to_owned()]));

    let (backend, shared) = open(&backup.path("a"));
    assert_eq!(keys(&shared, 0).unwrap(), [named("a", 2), named("b", 4)]);
    assert_eq!(keys(&shared, 3).unwrap(), [named("a", 2), named("b", 3)]);
    assert_eq!(shared.lessor.lock().keys(lease::LeaseId(7)).map(|keys| keys.len()), Some(1));
    assert!(shared.alarms.get().no_space());
    let cluster = shared.cluster.get();
    assert_eq!(cluster.members.len(), 2);
    assert_eq!(cluster.members[&ids[0]].name, "a");
    assert!(cluster.removed.is_empty());
    assert_eq!(cluster.version.as_deref(), Some("3.7.0"));
    assert_eq!(backend.table_get(Table::AuthUsers, b"root").unwrap().as_deref(), Some(&b"\x0a\x04root"[..]));
    assert_eq!((backend.consistent().index, backend.consistent().term), (2, 1));

    // The log goes on behind the founders' entries, and nobody is sent any of them.
    let wal_dir = backup.path("a").join("member").join("wal");
    let (mut log, recovered) = Wal::open(Arc::new(RealDisk), &wal_dir, Index(2)).unwrap();
    assert_eq!((recovered.hard_state.commit, recovered.hard_state.term), (Index(2), Term(1)));
    assert_eq!((recovered.install, recovered.entries.len()), (None, 0));
    let SnapshotMeta { index, term, conf_state } = recovered.snapshot;
    let mut voters = ids.map(NodeId);
    voters.sort();
    assert_eq!((index, term, conf_state.voters), (Index(2), Term(1), voters.to_vec()));
    let next = raft::Entry { term: Term(2), index: Index(3), kind: raft::EntryKind::Normal, data: [].into() };
    log.append(None, &[next]).and_then(|()| log.sync()).unwrap();
}

#[test]
fn raised_revisions_leave_nothing_before_them_to_be_read() {
    let backup = Backup::new();
    let restored = run(&Restore { bump: Some(1_000), ..backup.to("a") }).unwrap();
    assert_eq!(restored.revision, 1_005);
    let (backend, shared) = open(&backup.path("a"));
    assert_eq!(keys(&shared, 0).unwrap(), [named("a", 2), named("b", 4)]);
    assert_eq!(shared.store.compact_revision(), 1_005);
    assert!(matches!(keys(&shared, 1_004), Err(ReadError::Compacted { compact_revision: 1_005 })));
    let before = shared.store.hash_kv(0).unwrap();
    while shared.store.compact_step(1_000).unwrap().state == mvcc::ProgressState::More {}
    backend.flush_all().unwrap();
    assert_eq!(shared.store.hash_kv(0).unwrap(), before);
    // The row that marks the rise is no event, and a watch may begin there.
    let history = shared.store.history(1_005, 1_005, 1 << 20, &mut |_| true).unwrap();
    assert!(history.events.is_empty());
    drop((backend, shared));

    // It is there again in a backup of this member, and restored once more.
    let (backend, _) = open(&backup.path("a"));
    let again = backup.path("again.db");
    let file = File::options().read(true).write(true).create_new(true).open(&again).unwrap();
    apply::snapshot::take(&backend).unwrap().write_to(file).unwrap();
    drop(backend);
    assert_eq!(status(&again, &mut |_, _, _| {}).unwrap().revision, 1_005);
    let what = Restore { snapshot: again, skip_hash_check: true, bump: Some(5), ..backup.to("b") };
    assert_eq!(run(&what).unwrap().revision, 1_010);
    let (_, shared) = open(&backup.path("b"));
    assert_eq!(keys(&shared, 0).unwrap(), [named("a", 2), named("b", 4)]);
}

#[test]
fn a_file_from_a_data_directory_has_no_sha_256_and_is_taken_if_told_to() {
    let backup = Backup::new();
    backup.change(|file| file.set_len(body().len() as u64).unwrap());
    let error = run(&backup.to("a")).unwrap_err();
    assert_eq!(error.to_string(), "snapshot missing hash but --skip-hash-check=false");
    assert!(backup.left().is_empty());
    run(&Restore { skip_hash_check: true, ..backup.to("a") }).unwrap();
}

#[test]
fn nothing_damaged_is_restored_and_nothing_is_left_of_the_try() {
    let good = body().len() as u64;
    let backup = Backup::new();
    // One bit of a value: only the SHA-256 knows.
    let flip = |file: &mut File, at: u64| {
        let mut byte = [0];
        file.seek(SeekFrom::Start(at)).unwrap();
        file.read_exact(&mut byte).unwrap();
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(&[byte[0] ^ 1]).unwrap();
    };
    backup.change(|file| flip(file, good - 1));
    let error = run(&backup.to("a")).unwrap_err().to_string();
    assert!(error.starts_with("expected sha256 [") && error.contains("], got ["), "{error}");
    // Pages, whether or not the SHA-256 is looked at.
    let backup = Backup::new();
    backup.change(|file| {
        for page in 2..good / 4096 {
            flip(file, page * 4096 + 8);
        }
    });
    let skipping = |dir: &str| Restore { skip_hash_check: true, ..backup.to(dir) };
    assert!(matches!(run(&skipping("a")), Err(Error::State(_))));
    // Cut off in the middle.
    backup.change(|file| file.set_len(good / 2).unwrap());
    assert!(run(&skipping("a")).is_err());
    assert!(matches!(run(&backup.to("a")), Err(Error::NoDigest)));
    assert!(backup.left().is_empty(), "{:?}", backup.left());
}

#[test]
fn what_cannot_be_served_is_not_restored() {
    let backup = Backup::new();
    let mut writer = Writer::create(Cursor::new(Vec::new())).unwrap();
    writer.put(b"cluster", b"clusterVersion", b"3.8.0").unwrap();
    fs::write(backup.file(), writer.finish().unwrap().into_inner()).unwrap();
    let what = Restore { skip_hash_check: true, ..backup.to("a") };
    let error = run(&what).unwrap_err().to_string();
    assert!(error.starts_with("invalid downgrade; server version is lower"), "{error}");
    let mut writer = Writer::create(Cursor::new(Vec::new())).unwrap();
    writer.put(b"key", &row_key(2, 0), b"no record").unwrap();
    fs::write(backup.file(), writer.finish().unwrap().into_inner()).unwrap();
    assert!(matches!(run(&what), Err(Error::State(_))));
    assert!(backup.left().is_empty());
}

#[test]
fn a_place_that_is_taken_is_left_alone() {
    let backup = Backup::new();
    fs::create_dir(backup.path("a")).unwrap();
    fs::write(backup.path("a").join("x"), "x").unwrap();
    let error = run(&backup.to("a")).unwrap_err();
    let path = backup.path("a").display().to_string();
    assert_eq!(error.to_string(), format!("data-dir {path:?} not empty or could not be read"));
    let wal_dir = Some(backup.path("a"));
    let error = run(&Restore { wal_dir, ..backup.to("b") }).unwrap_err();
    assert_eq!(error.to_string(), format!("wal-dir {path:?} exists"));
    assert_eq!((backup.left(), fs::read_dir(backup.path("a")).unwrap().count()), (vec!["a".to_owned()], 1));
}

#[test]
fn an_empty_directory_is_filled_and_a_log_may_lie_elsewhere() {
    let backup = Backup::new();
    // Where an earlier try was cut short, too.
    fs::create_dir_all(backup.path("a").join(".restoring").join("member").join("wal")).unwrap();
    let wal_dir = backup.path("logs").join("wal");
    run(&Restore { wal_dir: Some(wal_dir.clone()), ..backup.to("a") }).unwrap();
    let names = |dir: &Path| -> Vec<_> {
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    };
    assert_eq!(names(&backup.path("a")), ["member"]);
    assert_eq!(names(&backup.path("a").join("member")), ["cairn.redb"]);
    assert_eq!(names(&backup.path("logs")), ["wal"]);
    assert!(Wal::exists(&RealDisk, &wal_dir).unwrap());
    open(&backup.path("a"));
}

#[test]
fn two_restores_of_one_place_do_not_meet() {
    let backup = Backup::new();
    fs::create_dir(backup.path("a.restoring")).unwrap();
    let other = wal::Disk::lock(&RealDisk, &backup.path("a.restoring")).unwrap();
    assert!(matches!(run(&backup.to("a")), Err(Error::InUse(_))));
    drop(other);
    run(&backup.to("a")).unwrap();
}

#[test]
fn a_backup_tells_what_is_in_it() {
    let backup = Backup::new();
    let found = status(&backup.file(), &mut |_, _, _| {}).unwrap();
    assert_eq!((found.revision, found.total_key, found.version.as_str()), (5, 2, "3.7.0"));
    assert_eq!(found.total_size, body().len() as u64);
    // A history has the same hash in a backup and in the member that is made of it.
    let of = |path: &Path, revision| hash_kv(path, revision, &mut |_, _, _| {});
    run(&backup.to("a")).unwrap();
    let store = backup.path("a").join("member").join("cairn.redb");
    for revision in [0, 3] {
        assert_eq!(of(&backup.file(), revision).unwrap(), of(&store, revision).unwrap());
    }
    assert_eq!(of(&store, 0).unwrap().revision, 5);
    assert!(matches!(of(&store, 6), Err(Error::Read(ReadError::Future { current_revision: 5 }))));
    assert!(matches!(of(&backup.path("none"), 0), Err(Error::Io("stat", ..))));
    let (before, after) = tools::defragment(&backup.path("a")).unwrap();
    assert!(after <= before);
    assert_eq!(of(&store, 0).unwrap(), of(&backup.file(), 0).unwrap());
}
