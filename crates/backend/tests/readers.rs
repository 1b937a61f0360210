//! Readers on their own threads while rows are inserted, flushed, removed and the file is
//! rewritten: each finds every row that was there when it began, once, whatever happens meanwhile.
#![allow(clippy::unwrap_used)]

use backend::{Backend, Error, Options, Row, RowKey, Seal, Storage, Table, TableOp, row_key};
use bytes::Bytes;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread;

const ROWS: i64 = 30_000;

/// Rows below it may have been removed; rows up to `published` are there.
struct Clock {
    kept: AtomicI64,
    published: AtomicI64,
    over: AtomicBool,
}

fn record(main: i64) -> Bytes {
    Bytes::from(main.to_be_bytes().repeat(4))
}

fn write(store: &Backend, clock: &Clock) {
    for main in 1..=ROWS {
        store.insert_row(row_key(main, 0), Row { tombstone: false, record: record(main) });
        clock.published.store(main, Ordering::Release);
        if main % 7 == 0 {
            let count = TableOp::put(Table::Lease, "count".as_bytes(), main.to_string());
            store.seal(Seal { index: main as u64, term: 1, ops: vec![count], ..Seal::default() });
            store.wait_for_room().unwrap();
        }
    }
    store.seal(Seal { index: ROWS as u64, term: 1, ..Seal::default() });
    clock.over.store(true, Ordering::Release);
    store.ask_for_flush();
}

fn remove(store: &Backend, clock: &Clock) {
    let mut from = 1;
    while !clock.over.load(Ordering::Acquire) {
        let to = clock.published.load(Ordering::Acquire) - 2_000;
        if to > from + 500 {
            clock.kept.store(to, Ordering::SeqCst);
            store.delete_rows(
                (from..to).filter(|main| main % 100 != 0).map(|main| row_key(main, 0)).collect(),
            );
            from = to;
        }
        thread::yield_now();
    }
}

fn flush(store: &Backend, clock: &Clock) {
    while !clock.over.load(Ordering::Acquire) {
        store.wait_for_work(std::time::Duration::from_millis(1));
        store.flush().unwrap();
    }
    store.flush_all().unwrap();
}

fn read(store: &Backend, clock: &Clock, mut seed: i64) {
    let mut counted = 0;
    while !clock.over.load(Ordering::Acquire) {
        let published = clock.published.load(Ordering::Acquire);
        let view = store.view().unwrap();
        // What is removed after the view was taken stays in it, so this is read after.
        let kept = clock.kept.load(Ordering::SeqCst);
        let mut expected = kept + 1;
        view.for_each_row(row_key(kept + 1, 0), row_key(published + 1, 0), |key, _, found| {
            assert_eq!(*key, row_key(expected, 0), "a row is missing or comes twice");
            assert_eq!(found, record(expected));
            expected += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(expected, (published + 1).max(kept + 1));
        for _ in 0..200 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let main = 1 + (seed >> 33).rem_euclid(published.max(1));
            let found = store.get(&row_key(main, 0)).unwrap();
            match found {
                Some(found) => assert_eq!(found, record(main)),
                // Before the row is looked up it was published; only removal explains its absence.
                None => {
                    assert!(main % 100 != 0 && main < clock.kept.load(Ordering::SeqCst) || published == 0)
                }
            }
        }
        let count = store.table_get(Table::Lease, b"count").unwrap();
        let count: i64 = count.map_or(0, |count| std::str::from_utf8(&count).unwrap().parse().unwrap());
        assert!(count >= counted && count >= published - 7, "{count} after {counted}, {published} rows");
        counted = count;
    }
}

#[test]
fn nothing_is_missed_and_nothing_comes_twice() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let options =
        Options { flush_rows: 600, flush_bytes: 40_000, buffer_bytes: 400_000, ..Options::default() };
    let store = Backend::open(Storage::File(path.clone()), options).unwrap();
    let clock = Clock { kept: AtomicI64::new(0), published: AtomicI64::new(0), over: AtomicBool::new(false) };
    thread::scope(|scope| {
        scope.spawn(|| write(&store, &clock));
        scope.spawn(|| remove(&store, &clock));
        scope.spawn(|| flush(&store, &clock));
        scope.spawn(|| read(&store, &clock, 1));
        scope.spawn(|| read(&store, &clock, 2));
        scope.spawn(|| {
            while !clock.over.load(Ordering::Acquire) {
                store.defragment().unwrap();
            }
        });
    });
    store.flush_all().unwrap();
    assert_eq!(store.buffered_bytes(), 0);
    let keys = |store: &Backend| {
        let mut keys: Vec<RowKey> = Vec::new();
        let view = store.view().unwrap();
        view.for_each_row(row_key(0, 0), row_key(i64::MAX, 0), |key, _, _| {
            keys.push(*key);
            ControlFlow::Continue(())
        })
        .unwrap();
        keys
    };
    let kept = clock.kept.load(Ordering::SeqCst);
    let expected: Vec<RowKey> =
        (1..=ROWS).filter(|main| main % 100 == 0 || *main >= kept).map(|main| row_key(main, 0)).collect();
    assert!(keys(&store) == expected);
    let in_use = store.size_in_use();
    drop(store);
    let store = Backend::open(Storage::File(path), options).unwrap();
    assert!(keys(&store) == expected);
    assert_eq!(store.size_in_use(), in_use);
    assert_eq!(store.consistent().index, ROWS as u64);
}

#[test]
fn a_full_buffer_holds_the_writer_until_a_flush() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { buffer_bytes: 2_000, flush_bytes: 1_000, ..Options::default() };
    let store = Backend::open(Storage::File(directory.path().join("db")), options).unwrap();
    // An open batch alone cannot be flushed: waiting for it would never end.
    store.insert_row(row_key(1, 0), Row { tombstone: false, record: Bytes::from(vec![0; 5_000]) });
    store.wait_for_room().unwrap();
    store.seal(Seal { index: 1, term: 1, ..Seal::default() });
    thread::scope(|scope| {
        scope.spawn(|| {
            store.wait_for_room().unwrap();
            assert!(store.buffered_bytes() <= 2_000);
        });
        assert!(store.wait_for_work(std::time::Duration::from_secs(60)));
        assert_eq!(store.flush().unwrap().rows, 1);
    });
    // Nothing is left, so there is no work, and none to wait long for.
    assert!(!store.wait_for_work(std::time::Duration::ZERO));
}

#[test]
fn one_defragmentation_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let store = Backend::open(Storage::File(directory.path().join("db")), Options::default()).unwrap();
    let outcomes: Vec<Result<(), Error>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..6).map(|_| scope.spawn(|| store.defragment())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(outcomes.iter().any(Result::is_ok));
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(()) | Err(Error::Busy))));
}
