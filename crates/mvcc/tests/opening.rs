//! What a store is opened on is not always what it wrote itself: rows of an older etcd, or damage.
#![allow(clippy::unwrap_used)]

mod common;

use api::mvccpb::KeyValue;
use backend::{Backend, Row, Table, TableOp, row_key};
use bytes::Bytes;
use common::{Disk, seal};
use mvcc::{KeyRange, ProgressState, RangeQuery, ReadError, Store};
use prost::Message;

fn record(key: &str, mod_revision: i64, version: i64) -> Bytes {
    let kv = KeyValue {
        key: Bytes::copy_from_slice(key.as_bytes()),
        create_revision: mod_revision,
        mod_revision,
        version,
        value: Bytes::from_static(b"value"),
        lease: 0,
    };
    kv.encode_to_vec().into()
}

fn tombstone(key: &str) -> Bytes {
    KeyValue { key: Bytes::copy_from_slice(key.as_bytes()), ..KeyValue::default() }.encode_to_vec().into()
}

fn with_rows(rows: Vec<(i64, bool, Bytes)>, ops: Vec<TableOp>) -> Backend {
    let backend = Disk::default().open();
    for (main, tombstone, record) in rows {
        backend.insert_row(row_key(main, 0), Row { tombstone, record });
    }
    seal(&backend, 1, ops);
    backend.flush_all().unwrap();
    backend
}

fn marker(name: &'static str, revision: i64) -> TableOp {
    TableOp::put(Table::Meta, name, row_key(revision, 0).to_vec())
}

#[test]
fn a_new_store_is_at_revision_one() {
    let (store, writer, opened) = Store::open(Disk::default().open()).unwrap();
    assert_eq!((store.current_revision(), writer.current_revision(), store.compact_revision()), (1, 1, -1));
    assert_eq!((opened.keys, opened.rows, opened.leases.len()), (0, 0, 0));
}

/// etcd up to 3.5.15 removes a tombstone at the very revision that it compacts to, and then the newest rows
/// may be gone: only the marker says how far the store had come.
#[test]
fn the_present_is_not_before_the_compacted_revision() {
    for name in ["scheduledCompactRev", "finishedCompactRev"] {
        let backend = with_rows(vec![(3, false, record("a", 3, 1))], vec![marker(name, 9)]);
        let (store, mut writer, _) = Store::open(backend.clone()).unwrap();
        assert_eq!((store.current_revision(), store.compact_revision()), (9, 9), "{name}");
        assert_eq!(store.compact_step(10).unwrap().state, ProgressState::Done);
        let finished = backend.table_get(Table::Meta, b"finishedCompactRev").unwrap();
        assert_eq!(finished.as_deref(), Some(&row_key(9, 0)[..]), "{name}");
        let mut txn = writer.begin();
        txn.put(Bytes::from_static(b"b"), Bytes::new(), 0);
        assert_eq!(txn.commit().unwrap().revision, 10);
    }
}

/// Once compaction has passed the puts of a deleted key, its tombstone stands alone.
#[test]
fn a_lone_tombstone_is_history_and_not_a_key() {
    let rows = vec![(5, true, tombstone("a")), (6, false, record("b", 6, 1))];
    let ops = vec![marker("scheduledCompactRev", 5), marker("finishedCompactRev", 5)];
    let (store, mut writer, opened) = Store::open(with_rows(rows, ops)).unwrap();
    assert_eq!((opened.keys, opened.rows), (1, 2));
    let told = store.history(5, 9, usize::MAX, &mut |_| true).unwrap();
    let told: Vec<_> = told.events.iter().map(|e| (e.revision.main, e.tombstone, &e.key[..])).collect();
    assert_eq!(told, [(5, true, &b"a"[..]), (6, false, b"b")]);
    let mut txn = writer.begin();
    assert!(txn.put(Bytes::from_static(b"a"), Bytes::new(), 0).is_none());
    assert_eq!(txn.lookup(b"a").unwrap().version, 1);
    txn.commit();
    assert_eq!(store.range(&RangeQuery::new(KeyRange::all())).unwrap().count, 2);
}

#[test]
fn damage_is_refused_and_named() {
    let bad: Vec<(&str, bool, Bytes)> = vec![
        ("no protobuf", false, Bytes::from_static(b"\xff\xff")),
        (
            "no key",
            false,
            KeyValue { mod_revision: 7, version: 1, ..KeyValue::default() }.encode_to_vec().into(),
        ),
        ("another revision's", false, record("a", 6, 1)),
        ("a put that is no version", false, record("a", 7, 0)),
        ("a tombstone of nothing", true, Bytes::new()),
    ];
    for (what, tombstone, record) in bad {
        let backend = with_rows(vec![(7, tombstone, record)], Vec::new());
        let Err(ReadError::Storage(error)) = Store::open(backend) else { panic!("{what} was taken") };
        assert!(error.to_string().contains("7.0"), "{what}: {error}");
    }
    let broken = TableOp::put(Table::Meta, "scheduledCompactRev", Bytes::from_static(b"yesterday"));
    let Err(ReadError::Storage(error)) = Store::open(with_rows(Vec::new(), vec![broken])) else {
        panic!("a marker that is no revision was taken")
    };
    assert!(error.to_string().contains("scheduledCompactRev"), "{error}");
}

/// Enough rows for several threads, keys that differ late, early and not at all in their first bytes, and
/// several versions of many.
#[test]
fn a_large_store_is_rebuilt_as_it_was() {
    let backend = Disk::default().open();
    let (store, mut writer, _) = Store::open(backend.clone()).unwrap();
    let name = |i: u64| match i % 3 {
        0 => format!("/registry/pods/default/{:05}", i * 7919 % 20_011),
        1 => format!("/registry/{:03}", i * 31 % 700),
        _ => format!("/reg{}", i * 17 % 5_000),
    };
    let mut rng = common::Rng::new(3);
    for i in 0..30_000u64 {
        let key = KeyRange::Key(name(i).into());
        let mut txn = writer.begin();
        if rng.chance(5) {
            txn.delete_range(&key);
        }
        txn.put(name(rng.below(30_000)).into(), Bytes::from(i.to_string()), i as i64 % 3);
        txn.commit();
        if i % 1_000 == 0 {
            seal(&backend, i + 1, Vec::new());
        }
    }
    seal(&backend, 30_001, Vec::new());
    backend.flush_all().unwrap();
    let (reopened, _, opened) = Store::open(backend).unwrap();
    assert!(opened.rows >= 30_000, "enough for threads");
    assert_eq!(opened.keys as u64, store.live_keys());
    assert_eq!(reopened.hash_kv(0), store.hash_kv(0));
    let current = store.current_revision();
    let mut leased = Vec::new();
    for revision in [0, 1, current / 3, current - 1] {
        let mut query = RangeQuery::new(KeyRange::all());
        query.revision = revision;
        let (then, now) = (store.range(&query).unwrap(), reopened.range(&query).unwrap());
        assert_eq!((&then.records, then.count), (&now.records, now.count), "at {revision}");
        if revision == 0 {
            let kvs = now.records.iter().map(mvcc::Record::decode);
            leased = kvs.filter(|kv| kv.lease != 0).map(|kv| (kv.key, kv.lease)).collect();
        }
    }
    assert_eq!(opened.leases, leased);
}

/// What a restore with raised revisions leaves, ours or etcd's: a row of no key, up to which all is compacted.
#[test]
fn a_row_of_no_key_is_a_revision_and_part_of_the_hash_and_nothing_else() {
    let live = || (3, false, record("a", 3, 1));
    let raised = |rows: Vec<(i64, bool, Bytes)>, to: i64| {
        let (store, ..) = Store::open(with_rows(rows, vec![mvcc::compacted_to(to)])).unwrap();
        store
    };
    let store = raised(vec![live(), (1_000, false, Bytes::new())], 1_000);
    assert_eq!((store.current_revision(), store.compact_revision()), (1_000, 1_000));
    let found = store.range(&RangeQuery::new(KeyRange::all())).unwrap();
    assert_eq!((found.count, found.records.len()), (1, 1));
    let hash = store.hash_kv(0).unwrap();
    while store.compact_step(10).unwrap().state == ProgressState::More {}
    assert_eq!(store.hash_kv(0).unwrap(), hash, "no compaction removes it");
    assert!(store.history(1_000, 1_000, 1 << 20, &mut |_| true).unwrap().events.is_empty());
    // crc32c over "key" and the two rows.
    let rows = [&b"key"[..], &row_key(3, 0), &live().2, &row_key(1_000, 0)];
    assert_eq!(hash.hash, rows.iter().fold(0, |hash, bytes| crc32c::crc32c_append(hash, bytes)));
    // Raised twice, etcd keeps the later one.
    let twice = vec![live(), (1_000, false, Bytes::new()), (2_000, false, Bytes::new())];
    let once = vec![live(), (2_000, false, Bytes::new())];
    assert_eq!(raised(twice, 2_000).hash_kv(0).unwrap(), raised(once, 2_000).hash_kv(0).unwrap());
}
