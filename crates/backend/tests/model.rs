//! The store against plain maps, over thousands of random steps: inserts, seals, removals,
//! flushes in parts and whole, restarts, defragmentations, and readers who keep old views.
#![allow(clippy::unwrap_used)]

mod common;

use backend::{Backend, Options, RowKey, Storage, View, row_key};
use common::{Chance, MemoryDisk, Twin, all_rows, entries_of, rows_of};
use std::collections::BTreeMap;
use std::path::Path;

struct Old {
    view: View,
    before: RowKey,
    rows: BTreeMap<RowKey, (bool, Vec<u8>)>,
}

enum Place<'a> {
    Memory(MemoryDisk),
    File(&'a Path),
}

impl Place<'_> {
    fn open(&self, options: Options) -> Backend {
        let storage = match self {
            Place::Memory(disk) => Storage::Custom(disk.boxed()),
            Place::File(path) => Storage::File(path.join("db")),
        };
        Backend::open(storage, options).unwrap()
    }
}

/// Reads see every row that was not removed, removed ones perhaps, and nothing else.
fn check_reads(store: &Backend, twin: &Twin, chance: &mut Chance) {
    let sealed = twin.sealed();
    let ever = &twin.ever;
    let view = store.view().unwrap();
    let from = row_key(chance.below(twin.next_main as usize + 1) as i64, 0);
    let to = row_key(chance.below(twin.next_main as usize + 1) as i64, chance.below(2) as i64);
    let seen = rows_of(&view, from, to).unwrap();
    for (key, row) in &seen {
        assert_eq!(ever.get(key), Some(row), "a row that never was");
        assert!(from <= *key && *key < to);
    }
    for (key, row) in sealed.rows.iter().filter(|(key, _)| from <= **key && **key < to) {
        assert_eq!(seen.get(key), Some(row), "a row is missing from a scan");
    }
    let open: BTreeMap<_, _> = twin.open.iter().cloned().collect();
    for main in 0..twin.next_main {
        let key = row_key(main, 0);
        let found = store.get(&key).unwrap();
        assert_eq!(found, view.get(&key).unwrap());
        match (&found, sealed.rows.get(&key).or(open.get(&key))) {
            (Some(found), Some((_, record))) => assert_eq!(found, record),
            (None, Some(_)) if open.contains_key(&key) => panic!("an open row is hidden"),
            (None, Some(_)) => panic!("a row is missing"),
            (Some(found), None) => {
                assert_eq!(Some(found.as_ref()), ever.get(&key).map(|(_, r)| r.as_slice()))
            }
            (None, None) => {}
        }
    }
    assert_eq!(entries_of(store), sealed.entries);
    let split: BTreeMap<_, _> = view
        .split(1 + chance.below(5))
        .unwrap()
        .into_iter()
        .flat_map(|range| rows_of(&view, range.start, range.end).unwrap())
        .collect();
    assert_eq!(split, all_rows(&view), "the parts are not the whole");
}

fn run(seed: u64, steps: usize, place: Place) {
    let chance = &mut Chance(seed);
    let mut twin = Twin::default();
    let mut options = Options { flush_rows: 1 + chance.below(24), ..Options::default() };
    let mut store = place.open(options);
    let mut old: Vec<Old> = Vec::new();
    for _ in 0..steps {
        match chance.below(40) {
            0..14 => twin.insert(&store, chance),
            14..20 => twin.seal(&store, chance),
            20..23 => twin.remove(&store, chance),
            23..25 => twin.note(&store, chance),
            25..30 => {
                let index = store.flush().unwrap().index;
                assert_eq!(index, store.consistent().index);
                twin.durable_at(index);
            }
            30..32 => {
                store.flush_all().unwrap();
                if twin.open.is_empty() {
                    twin.all_durable();
                    let view = store.view().unwrap();
                    assert_eq!(all_rows(&view), twin.durable.rows);
                    assert_eq!(store.buffered_bytes(), 0);
                }
            }
            32..34 => {
                let view = store.view().unwrap();
                old.push(Old { before: row_key(twin.next_main, 0), rows: all_rows(&view), view });
            }
            34..36 if !old.is_empty() => {
                let old = old.swap_remove(chance.below(old.len()));
                assert_eq!(rows_of(&old.view, row_key(0, 0), old.before).unwrap(), old.rows);
            }
            36 => {
                old.clear();
                drop(store);
                options.flush_rows = 1 + chance.below(24);
                store = place.open(options);
                let before = store.size_in_use();
                twin.reopened(&store);
                assert_eq!(before, live_bytes(&store), "the count of live bytes drifted");
            }
            37 => store.defragment().unwrap(),
            _ => check_reads(&store, &twin, chance),
        }
    }
}

/// Counted the slow way.
fn live_bytes(store: &Backend) -> u64 {
    let rows = all_rows(&store.view().unwrap());
    let rows: u64 = rows.values().map(|(_, record)| Backend::row_cost(record.len())).sum();
    let mut entries = 0;
    for table in backend::Table::ALL {
        store.scan_table(table, |key, value| entries += (key.len() + value.len() + 8) as u64).unwrap();
    }
    rows + entries
}

#[test]
fn the_store_equals_plain_maps() {
    for seed in 0..120 {
        println!("seed {seed}");
        run(seed, 300, Place::Memory(MemoryDisk::default()));
    }
}

#[test]
fn a_file_equals_plain_maps() {
    for seed in 1_000..1_006 {
        println!("seed {seed}");
        let directory = tempfile::tempdir().unwrap();
        run(seed, 250, Place::File(directory.path()));
    }
}
