//! A state leaves one store as etcd's file and takes another's place.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::Cursor;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use backend::{
    Backend, Consistent, Error, Export, Options, Row, Seal, Storage, Table, TableOp, Target, row_key,
};
use bytes::Bytes;
use common::{Chance, Contents, MemoryDisk, Twin, all_rows};

fn open(path: &Path) -> Backend {
    let options = Options { flush_rows: 12, ..Options::default() };
    Backend::open(Storage::File(path.to_owned()), options).unwrap()
}

fn body(export: &Export) -> Vec<u8> {
    export.write_to(Cursor::new(Vec::new())).unwrap().into_inner()
}

/// Puts the state of one store in the place of another's, in the ordinary way.
fn install(from: &Backend, to: &Backend) {
    let export = from.export().unwrap();
    let at = export.consistent().clone();
    to.receive(Cursor::new(body(&export)), at, Target::Beside).unwrap().take_place().unwrap().publish();
}

/// A store with some history, some of which is not flushed, not sealed or not removed yet.
fn aged(store: &Backend, chance: &mut Chance, steps: usize) -> Twin {
    let mut twin = Twin::default();
    for _ in 0..steps {
        match chance.below(8) {
            0..3 => twin.insert(store, chance),
            3 | 4 => twin.seal(store, chance),
            5 => twin.remove(store, chance),
            6 => twin.note(store, chance),
            _ => twin.durable_at(store.flush().unwrap().index),
        }
    }
    twin
}

#[test]
fn what_leaves_is_what_arrives() {
    for seed in 0..12 {
        let chance = &mut Chance(seed);
        let dir = tempfile::tempdir().unwrap();
        let (here, there) = (open(&dir.path().join("here")), open(&dir.path().join("there")));
        let mut twin = aged(&here, chance, 200);
        twin.seal(&here, chance);
        // The other one is in the middle of something.
        let old = aged(&there, chance, 60);
        let before = there.view().unwrap();
        let rows_before = all_rows(&before);
        install(&here, &there);
        assert_eq!(Contents::of(&there), twin.sealed(), "seed {seed}");
        assert_eq!(there.consistent(), here.consistent());
        assert_eq!(there.size_in_use(), here.size_in_use());
        assert_eq!(there.hash_tables(), here.hash_tables());
        // Whoever began to read before goes on in the old state.
        assert_eq!(all_rows(&before), rows_before);
        assert!(
            old.open.iter().all(|(key, _)| there.get(key).unwrap().is_none() || twin.ever.contains_key(key))
        );
        drop(before);
        // The log goes on behind it, and what is flushed is of the new state alone.
        for _ in 0..3 {
            twin.insert(&there, chance);
            twin.seal(&there, chance);
        }
        there.flush_all().unwrap();
        assert_eq!(Contents::of(&there), twin.sealed());
        let in_use = there.size_in_use();
        drop(there);
        let again = open(&dir.path().join("there"));
        assert_eq!(Contents::of(&again), twin.sealed());
        assert_eq!(again.size_in_use(), in_use);
    }
}

/// W10, where it is sent: the body and its position come from one view, whatever is written meanwhile.
#[test]
fn an_export_is_of_one_moment() {
    let dir = tempfile::tempdir().unwrap();
    let store = Backend::open(Storage::File(dir.path().join("db")), Options::default()).unwrap();
    let stop = AtomicBool::new(false);
    // Batch n inserts row n, says so in a table, and removes row n - 20 when that is even.
    let write = || {
        let mut index = 0;
        while !stop.load(Ordering::Relaxed) {
            index += 1;
            let record = Bytes::from(format!("row {index}"));
            store.insert_row(row_key(index, 0), Row { tombstone: index % 3 == 0, record: record.clone() });
            let ops = vec![TableOp::put(Table::Cluster, "newest", record)];
            let conf_state = (index % 5 == 0).then(|| Bytes::from(format!("conf {index}")));
            store.seal(Seal { index: index as u64, term: 7, conf_state, ops });
            // As fast as the disk: an export flushes all that was sealed before it.
            while store.buffered_bytes() > 1 << 14 && !stop.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
        }
        index
    };
    let flush = || {
        while !stop.load(Ordering::Relaxed) {
            store.flush().unwrap();
        }
    };
    std::thread::scope(|scope| {
        let writer = scope.spawn(write);
        scope.spawn(flush);
        let mut last = 0;
        for _ in 0..20 {
            let export = store.export().unwrap();
            let Consistent { index, term, conf_state } = export.consistent().clone();
            assert!(index >= last);
            last = index;
            if index == 0 {
                continue;
            }
            let conf = index / 5 * 5;
            let expected = (conf > 0).then(|| Bytes::from(format!("conf {conf}")));
            assert_eq!((term, conf_state), (7, expected), "at {index}");
            let mut reader = bolt::Reader::open(Cursor::new(body(&export))).unwrap();
            let mut rows = 0;
            reader
                .for_each::<bolt::Error>(b"key", |key, record| {
                    rows += 1;
                    let mut name = row_key(rows, 0).to_vec();
                    name.extend((rows % 3 == 0).then_some(b't'));
                    assert_eq!((key, record), (&name[..], format!("row {rows}").as_bytes()));
                    Ok(())
                })
                .unwrap();
            assert_eq!(rows as u64, index);
            let mut newest = Vec::new();
            reader
                .for_each::<bolt::Error>(b"cluster", |_, value| {
                    newest = value.to_vec();
                    Ok(())
                })
                .unwrap();
            assert_eq!(newest, format!("row {index}").as_bytes());
        }
        stop.store(true, Ordering::Relaxed);
        assert!(writer.join().unwrap() as u64 >= last);
    });
}

/// A small state, its body, and a store whose own state must not change.
struct Arrival {
    dir: tempfile::TempDir,
    store: Backend,
    contents: Contents,
    at: Consistent,
    body: Vec<u8>,
}

impl Arrival {
    fn new() -> Arrival {
        let dir = tempfile::tempdir().unwrap();
        let chance = &mut Chance(5);
        let from = open(&dir.path().join("from"));
        let mut twin = aged(&from, chance, 120);
        twin.seal(&from, chance);
        let export = from.export().unwrap();
        let store = open(&dir.path().join("store"));
        let mut own = aged(&store, chance, 40);
        own.seal(&store, chance);
        store.flush_all().unwrap();
        let contents = Contents::of(&store);
        Arrival { store, contents, at: export.consistent().clone(), body: body(&export), dir }
    }

    fn refused(&self, body: Vec<u8>, at: &Consistent) -> Error {
        assert!(backend::inspect(Cursor::new(&body), at, |_, _, _| ()).is_err());
        let error = self.store.receive(Cursor::new(body), at.clone(), Target::Beside).err().unwrap();
        assert!(matches!(error, Error::Body(_)), "{error}");
        assert_eq!(Contents::of(&self.store), self.contents);
        let names = self.dir.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name());
        let names: Vec<_> = names.filter(|name| name.to_string_lossy().contains("installing")).collect();
        assert!(names.is_empty(), "{names:?}");
        error
    }
}

/// W12: cut at every 4 KiB, and a little after.
#[test]
fn a_body_that_is_cut_off_is_refused() {
    let arrival = Arrival::new();
    for length in (0..arrival.body.len()).step_by(4096) {
        arrival.refused(arrival.body[..length].to_vec(), &arrival.at);
        arrival.refused(arrival.body[..length + 100].to_vec(), &arrival.at);
    }
    // And the whole one is not.
    backend::inspect(Cursor::new(&arrival.body), &arrival.at, |_, _, _| ()).unwrap();
    drop(arrival.store.receive(Cursor::new(&arrival.body), arrival.at.clone(), Target::Beside).unwrap());
    arrival.refused(Vec::new(), &arrival.at);
}

/// W10, where it arrives: a body older or newer than its metadata says.
#[test]
fn a_body_of_another_moment_is_refused() {
    let arrival = Arrival::new();
    let at = &arrival.at;
    for other in [
        Consistent { index: at.index - 1, ..at.clone() },
        Consistent { index: at.index + 1, ..at.clone() },
        Consistent { term: at.term + 1, ..at.clone() },
    ] {
        let error = arrival.refused(arrival.body.clone(), &other).to_string();
        assert!(error.contains(&format!("index {}", at.index)), "{error}");
    }
    // Its configuration is what its metadata say, whatever it says itself.
    let conf_state = Some(Bytes::from("another"));
    let other = Consistent { conf_state: conf_state.clone(), ..at.clone() };
    let incoming = arrival.store.receive(Cursor::new(&arrival.body), other, Target::Beside).unwrap();
    incoming.take_place().unwrap().publish();
    assert_eq!(arrival.store.consistent().conf_state, conf_state);
}

#[test]
fn a_body_with_unknown_contents_is_refused() {
    let arrival = Arrival::new();
    type Pair<'a> = (&'a [u8], &'a [u8], &'a [u8]);
    let index = arrival.at.index.to_be_bytes();
    let term = arrival.at.term.to_be_bytes();
    let position: [Pair<'_>; 2] = [(b"meta", b"consistent_index", &index), (b"meta", b"term", &term)];
    let build = |pairs: &[Pair<'_>]| {
        let mut pairs: Vec<Pair<'_>> = pairs.iter().chain(&position).copied().collect();
        pairs.sort_unstable();
        let mut writer = bolt::Writer::create(Cursor::new(Vec::new())).unwrap();
        pairs.iter().for_each(|(bucket, key, value)| writer.put(bucket, key, value).unwrap());
        writer.finish().unwrap().into_inner()
    };
    arrival.refused(build(&[(b"later", b"a", b"b")]), &arrival.at);
    let (short, long) = (&row_key(2, 0)[..16], [&row_key(2, 0)[..], b"tt"].concat());
    let odd = [&row_key(2, 0)[..], b"x"].concat();
    for key in [short, &long, &odd] {
        arrival.refused(build(&[(b"key", key, b"record")]), &arrival.at);
    }
    let nothing = bolt::Writer::create(Cursor::new(Vec::new())).unwrap().finish().unwrap().into_inner();
    arrival.refused(nothing, &arrival.at);
    // What a member keeps for itself does not travel.
    let layout = build(&[(b"meta", b"storageVersion", b"3.6.0"), (b"meta", b"scheduledCompactRev", b"x")]);
    let incoming = arrival.store.receive(Cursor::new(layout), arrival.at.clone(), Target::Beside).unwrap();
    assert_eq!(incoming.table_get(Table::Meta, b"storageVersion").unwrap(), None);
    assert_eq!(incoming.table_get(Table::Meta, b"scheduledCompactRev").unwrap().unwrap(), "x");
    assert_eq!(incoming.view().approximate_rows().unwrap(), 0);
}

#[test]
fn one_at_a_time() {
    let arrival = Arrival::new();
    let store = &arrival.store;
    let incoming = store.receive(Cursor::new(&arrival.body), arrival.at.clone(), Target::Beside).unwrap();
    assert_eq!(store.defragment(), Err(Error::Busy));
    // What is sealed and flushed meanwhile is durable, and gone when the new state is there.
    let index = arrival.contents.index;
    store.insert_row(row_key(1 << 40, 0), Row { tombstone: false, record: Bytes::new() });
    store.seal(Seal { index: index + 1, ..Seal::default() });
    assert_eq!(store.flush_all().unwrap().index, index + 1);
    let placed = incoming.take_place().unwrap();
    assert!(store.get(&row_key(1 << 40, 0)).unwrap().is_some(), "nobody sees the new state yet");
    std::thread::scope(|scope| {
        // It waits, and then has nothing to do.
        let flushing = scope.spawn(|| store.flush_all());
        placed.publish();
        assert_eq!(flushing.join().unwrap().unwrap().index, arrival.at.index);
    });
    assert!(store.get(&row_key(1 << 40, 0)).unwrap().is_none());
    store.defragment().unwrap();
    store
        .view()
        .unwrap()
        .for_each_row(row_key(0, 0), row_key(9, 0), |_, _, _| ControlFlow::Continue(()))
        .unwrap();
}

#[test]
fn a_state_with_the_name_that_nobody_sees_closes_the_store() {
    let arrival = Arrival::new();
    let store = &arrival.store;
    let incoming = store.receive(Cursor::new(&arrival.body), arrival.at.clone(), Target::Beside).unwrap();
    drop(incoming.take_place().unwrap());
    assert!(matches!(store.flush(), Err(Error::Poisoned(_))));
    assert!(matches!(store.view(), Err(Error::Poisoned(_))));
}

#[test]
fn a_sink_that_fails_costs_the_export_alone() {
    struct Full(Cursor<Vec<u8>>);
    impl std::io::Write for Full {
        fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
            if self.0.get_ref().len() > 8192 {
                Err(std::io::ErrorKind::StorageFull.into())
            } else {
                self.0.write(buf)
            }
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    impl std::io::Seek for Full {
        fn seek(&mut self, to: std::io::SeekFrom) -> std::io::Result<u64> {
            self.0.seek(to)
        }
    }
    let arrival = Arrival::new();
    let export = arrival.store.export().unwrap();
    assert!(matches!(export.write_to(Full(Cursor::default())), Err(Error::Sink(_))));
    assert_eq!(Contents::of(&arrival.store), arrival.contents);
    arrival.store.flush_all().unwrap();
}

#[test]
fn a_store_that_is_no_file_is_given_a_medium() {
    let arrival = Arrival::new();
    let (old, new) = (MemoryDisk::default(), MemoryDisk::default());
    let store = Backend::open(Storage::Custom(old.boxed()), Options::default()).unwrap();
    let receive = |target| store.receive(Cursor::new(&arrival.body), arrival.at.clone(), target);
    assert!(matches!(receive(Target::Beside).err(), Some(Error::Storage(_))));
    let mut placed = false;
    let target = Target::Custom {
        medium: new.boxed(),
        take_place: Box::new(|| {
            placed = true;
            Ok(())
        }),
    };
    receive(target).unwrap().take_place().unwrap().publish();
    assert!(placed);
    let contents = Contents::of(&store);
    assert_eq!(contents.index, arrival.at.index);
    drop(store);
    let again = Backend::open(Storage::Custom(new.after_restart().boxed()), Options::default()).unwrap();
    assert_eq!(Contents::of(&again), contents);
    // A medium that holds something is not written over.
    let target = Target::Custom { medium: new.after_restart().boxed(), take_place: Box::new(|| Ok(())) };
    let error = again.receive(Cursor::new(&arrival.body), arrival.at.clone(), target).err();
    assert!(matches!(error, Some(Error::Storage(_))), "{error:?}");
}
