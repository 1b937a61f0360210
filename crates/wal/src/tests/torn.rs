//! Every subset of the sectors of the last batch, on a small log: the crash simulator does this to a whole
//! member, here every subset is tried and not a sample.

use std::sync::Arc;

use super::{create, entry, marker, open, state};
use crate::memory::MemoryDisk;
use raft::{Persist, PersistId, Snapshot};

/// W4: sectors of one append persisted in any combination.
#[test]
fn any_subset_of_the_last_batch_recovers_to_a_prefix_of_it() {
    for payload in [1, 30, 200, 480, 700, 1500] {
        for lead in [0, 100, 300, 400, 420, 440] {
            every_subset(payload, lead, 8192);
        }
    }
    // A segment that could not be reserved grows by writing, so it may also be too short.
    every_subset(600, 100, 1);
}

fn every_subset(payload: usize, lead: usize, segment: u64) {
    let disk: Arc<MemoryDisk> = Arc::default();
    let mut wal = create(&disk, segment.max(8192));
    wal.append(Some(&state(1, 1, 0)), &[entry(1, 1, &vec![1; lead])]).unwrap();
    wal.sync().unwrap();
    let before = disk.image();
    let count = (2500 / (payload + 30)).clamp(2, 12) as u64;
    let batch: Vec<_> = (2..2 + count).map(|i| entry(2, i, &vec![i as u8; payload])).collect();
    wal.append(Some(&state(2, 1, 1)), &batch).unwrap();
    wal.sync().unwrap();
    let after = disk.image();
    drop(wal);

    let (path, new) = after.iter().next().unwrap();
    let old = &before[path];
    let dirty: Vec<usize> =
        (0..new.len() / 512).filter(|s| new[s * 512..][..512] != old[s * 512..][..512]).collect();
    assert!(dirty.len() < 16, "{} sectors are too many to try all subsets", dirty.len());
    for subset in 0..1u32 << dirty.len() {
        let mut image = before.clone();
        let data = image.get_mut(path).unwrap();
        for (bit, sector) in dirty.iter().enumerate() {
            if subset >> bit & 1 == 1 {
                data[sector * 512..][..512].copy_from_slice(&new[sector * 512..][..512]);
            }
        }
        if segment == 1 {
            // The file was as long as the old contents, and grew as far as the last sector that made it.
            let end = data.iter().rposition(|&b| b != 0).unwrap() + 1;
            data.truncate(end.next_multiple_of(512));
        }
        let torn = MemoryDisk::from_image(&image);
        let context = format!("payload {payload} lead {lead} subset {subset:b} of {dirty:?}");
        let (mut wal, found) = open(&torn, 8192, 1).unwrap_or_else(|e| panic!("{context}: {e}"));
        assert!(batch.starts_with(&found.entries), "{context}: {:?}", found.entries);
        if subset + 1 == 1 << dirty.len() {
            assert_eq!(found.entries, batch, "{context}: all of it is there");
        }
        // And the log goes on from there, over whatever the tear left behind.
        let next = found.entries.len() as u64 + 2;
        let more = entry(found.hard_state.term.0 + 1, next, b"more");
        wal.append(Some(&state(more.term.0, 1, next)), std::slice::from_ref(&more)).unwrap();
        wal.sync().unwrap();
        drop(wal);
        let (_, again) = open(&torn, 8192, 1).unwrap_or_else(|e| panic!("{context}, again: {e}"));
        assert_eq!(again.entries.last(), Some(&more), "{context}");
        assert_eq!(again.entries.len(), found.entries.len() + 1, "{context}");
    }
}

/// W3, W8: whatever part of it a crash leaves, an install is there whole or not at all; and entries that
/// follow the snapshot never come to stand on what was there before.
#[test]
fn any_subset_of_an_install_leaves_the_old_log_or_the_new_one() {
    let (mut old, mut new) = (0, 0);
    for snapshot in [3, 5, 6, 9] {
        for lead in [0, 180, 200, 220, 240, 260, 280, 300, 400] {
            for payload in [1, 300, 600] {
                let (a, b) = every_subset_of_an_install(snapshot, lead, payload);
                (old, new) = (old + a, new + b);
            }
        }
    }
    assert!(old > 100 && new > 100, "{old} old, {new} new");
}

fn every_subset_of_an_install(snapshot: u64, lead: usize, payload: usize) -> (u32, u32) {
    let disk: Arc<MemoryDisk> = Arc::default();
    let mut wal = create(&disk, 8192);
    // Only the first of these is committed; the leader of term 3 has others in their places.
    let old: Vec<_> = (1..6).map(|i| entry(1, i, if i == 1 { &[] } else { b"never committed" })).collect();
    wal.append(Some(&state(1, 1, 1)), &old).unwrap();
    wal.append(None, &[entry(2, 6, &vec![2; lead])]).unwrap();
    wal.sync().unwrap();
    let before = disk.image();
    let entries: Vec<_> =
        (snapshot + 1..snapshot + 4).map(|i| entry(3, i, &vec![i as u8; payload])).collect();
    let body = Snapshot { meta: marker(3, snapshot), data: Arc::default() };
    let hard_state = Some(state(3, 0, snapshot + 2));
    let persist = Persist {
        id: PersistId(1),
        hard_state,
        entries: entries.clone(),
        snapshot: Some(body),
        must_sync: true,
    };
    wal.append_persist(&persist).unwrap();
    wal.sync().unwrap();
    let after = disk.image();
    drop(wal);

    let (path, new) = after.iter().next().unwrap();
    let dirty: Vec<usize> =
        (0..new.len() / 512).filter(|s| new[s * 512..][..512] != before[path][s * 512..][..512]).collect();
    let (mut kept, mut installed) = (0, 0);
    for subset in 0..1u32 << dirty.len() {
        let mut image = before.clone();
        let data = image.get_mut(path).unwrap();
        for (bit, sector) in dirty.iter().enumerate() {
            if subset >> bit & 1 == 1 {
                data[sector * 512..][..512].copy_from_slice(&new[sector * 512..][..512]);
            }
        }
        let torn = MemoryDisk::from_image(&image);
        let context = format!("at {snapshot} lead {lead} payload {payload} subset {subset:b}");
        let (mut wal, found) = open(&torn, 8192, 1).unwrap_or_else(|e| panic!("{context}: {e}"));
        let last = match &found.install {
            None => {
                kept += 1;
                assert_eq!(found.entries[..4], old[1..], "{context}");
                assert_eq!(found.entries.len(), 5, "{context}");
                6
            }
            Some(meta) => {
                installed += 1;
                assert_eq!((meta.index.0, meta.term.0), (snapshot, 3), "{context}");
                assert!(entries.starts_with(&found.entries), "{context}: {:?}", found.entries);
                snapshot + found.entries.len() as u64
            }
        };
        // And the log goes on from there.
        let term = found.hard_state.term.0 + 4;
        let more = entry(term, last + 1, b"more");
        wal.append(Some(&state(term, 1, last + 1)), std::slice::from_ref(&more)).unwrap();
        wal.sync().unwrap();
        drop(wal);
        let (_, again) = open(&torn, 8192, 1).unwrap_or_else(|e| panic!("{context}, again: {e}"));
        assert_eq!(again.entries.last(), Some(&more), "{context}");
        assert_eq!(again.install.is_some(), found.install.is_some(), "{context}");
        assert_eq!(again.entries.len(), found.entries.len() + 1, "{context}");
    }
    (kept, installed)
}
