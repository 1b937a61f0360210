//! Readers beside writes, flushes and compaction: whatever revision an answer names, it is that revision as
//! it was, whole.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, RwLock};

use backend::Options;
use bytes::Bytes;
use common::{Disk, Rng, seal};
use mvcc::{HashKv, KeyRange, RangeQuery, ReadError, Record, Store};

const TRANSACTIONS: i64 = 4_000;
const KEYS: u64 = 300;

type State = BTreeMap<Bytes, (i64, Bytes)>;

/// The store as it was at each revision, written down before the revision becomes current.
#[derive(Default)]
struct Truth {
    states: RwLock<BTreeMap<i64, State>>,
    events: RwLock<BTreeMap<i64, Vec<(bool, Bytes)>>>,
    hashes: Mutex<BTreeMap<(i64, i64), u32>>,
    done: AtomicBool,
    reads: AtomicUsize,
}

#[test]
fn readers_see_whole_revisions_while_everything_moves() {
    let backend = Disk::default().open_with(Options { flush_rows: 50, ..Options::default() });
    let (store, mut writer, _) = Store::open(backend.clone()).unwrap();
    let truth = Truth::default();
    truth.states.write().unwrap().insert(1, State::new());
    std::thread::scope(|scope| {
        let truth = &truth;
        scope.spawn(|| {
            while !truth.done.load(Ordering::Relaxed) {
                store.compact_step(500).unwrap();
                backend.flush_all().unwrap();
            }
        });
        for seed in 0..2 {
            let store = &store;
            scope.spawn(move || read_until_done(store, truth, seed));
        }
        // Ends the others whatever happens to this thread, so that a failure does not hang.
        let _done = Done(&truth.done);
        let mut rng = Rng::new(1);
        let mut state = State::new();
        for index in 1..=TRANSACTIONS {
            let mut txn = writer.begin();
            let revision = txn.base_revision() + 1;
            let mut events = Vec::new();
            let start = rng.below(KEYS);
            for i in 0..1 + rng.below(5) * rng.below(5) {
                let key = Bytes::from(format!("{:03}", (start + i * 17) % KEYS));
                if rng.chance(3) && state.remove(&key).is_some() {
                    txn.delete_range(&KeyRange::Key(key.clone()));
                    events.push((true, key));
                } else {
                    let value = Bytes::from(format!("{revision} {i}"));
                    txn.put(key.clone(), value.clone(), 0);
                    state.insert(key.clone(), (revision, value));
                    events.push((false, key));
                }
            }
            truth.states.write().unwrap().insert(revision, state.clone());
            truth.events.write().unwrap().insert(revision, events);
            assert_eq!(txn.commit().unwrap().revision, revision);
            let mut ops = Vec::new();
            if rng.chance(10) {
                let compact = store.compact_revision().max(0);
                let at = compact + 1 + rng.below((revision - compact) as u64) as i64;
                ops.extend(writer.schedule_compaction(at).ok());
            }
            seal(&backend, index as u64, ops);
        }
    });
    let reads = truth.reads.load(Ordering::Relaxed);
    assert!(reads > 100, "only {reads} reads were made");
}

struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn read_until_done(store: &Store, truth: &Truth, seed: u64) {
    let mut rng = Rng::new(seed + 10);
    let mut last = 0;
    while !truth.done.load(Ordering::Relaxed) {
        let compact = store.compact_revision();
        let current = store.current_revision();
        assert!(current >= last, "the present went back from {last} to {current}");
        last = current;
        // The oldest revision of all most often: it is the one that the next compaction takes away.
        let oldest = compact.max(1);
        let some =
            if rng.chance(3) { oldest + rng.below((current - oldest + 1) as u64) as i64 } else { oldest };
        match rng.below(8) {
            0 => replay(store, truth, some),
            1 => hash(store, truth, some),
            2..=4 => range(store, truth, &mut rng, some),
            _ => range(store, truth, &mut rng, 0),
        }
        truth.reads.fetch_add(1, Ordering::Relaxed);
    }
}

fn passed_by(error: ReadError, revision: i64) {
    match error {
        ReadError::Compacted { compact_revision } if revision > 0 => assert!(revision < compact_revision),
        error => panic!("read at {revision}: {error}"),
    }
}

fn range(store: &Store, truth: &Truth, rng: &mut Rng, revision: i64) {
    let key = |rng: &mut Rng| Bytes::from(format!("{:03}", rng.below(KEYS)));
    let range = match rng.below(3) {
        0 => KeyRange::Key(key(rng)),
        1 => KeyRange::range(key(rng), key(rng)),
        _ => KeyRange::all(),
    };
    let mut query = RangeQuery::new(range);
    query.revision = revision;
    query.keys_only = rng.chance(4);
    let told = match store.range(&query) {
        Ok(told) => told,
        Err(error) => return passed_by(error, revision),
    };
    let at = if revision > 0 { revision } else { told.revision };
    let states = truth.states.read().unwrap();
    let expected: Vec<_> = states[&at].iter().filter(|(key, _)| query.range.contains(key)).collect();
    assert_eq!(told.count, expected.len() as i64, "{query:?}");
    let kvs: Vec<_> = told.records.iter().map(Record::decode).collect();
    assert_eq!(kvs.len(), expected.len());
    for (kv, (key, (revision, value))) in kvs.iter().zip(expected) {
        assert_eq!((&kv.key, kv.mod_revision), (key, *revision), "{query:?} at {at}");
        assert!(query.keys_only || kv.value == value, "{query:?} at {at}");
    }
}

fn replay(store: &Store, truth: &Truth, from: i64) {
    let piece = match store.history(from, i64::MAX - 1, 2_000, &mut |_| true) {
        Ok(piece) => piece,
        Err(error) => return passed_by(error, from),
    };
    let told: Vec<(i64, bool, Bytes)> =
        piece.events.iter().map(|e| (e.revision.main, e.tombstone, e.key.clone())).collect();
    let events = truth.events.read().unwrap();
    let expected: Vec<(i64, bool, Bytes)> = events
        .range(from..piece.next)
        .flat_map(|(at, events)| events.iter().map(|(tombstone, key)| (*at, *tombstone, key.clone())))
        .collect();
    assert_eq!(told, expected, "history from {from} to {}", piece.next);
}

fn hash(store: &Store, truth: &Truth, revision: i64) {
    let HashKv { hash, compact_revision, revision } = match store.hash_kv(revision) {
        Ok(told) => told,
        Err(error) => return passed_by(error, revision),
    };
    let before = *truth.hashes.lock().unwrap().entry((revision, compact_revision)).or_insert(hash);
    assert_eq!(before, hash, "the hash at {revision} over {compact_revision}");
}
