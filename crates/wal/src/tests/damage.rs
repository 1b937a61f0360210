//! Every bit of a small log is flipped in turn. Whatever the log then says, it never lies.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use raft::{ConfState, Entry, EntryKind, Index, NodeId, SnapshotMeta, Term};

use super::{create, entry, marker, open, state};
use crate::memory::MemoryDisk;
use crate::{Recovered, WalError};

const SEGMENT: u64 = 400;

/// Several segments, an overwritten tail, configuration changes with and without data, records with
/// zeros in them, and ids and terms as small as they get, so that one kind of record can pass for another.
fn small_log() -> (BTreeMap<PathBuf, Vec<u8>>, u64) {
    let disk: Arc<MemoryDisk> = Arc::default();
    let mut wal = create(&disk, SEGMENT);
    let change = |term, index, kind, data: &[u8]| Entry {
        term: Term(term),
        index: Index(index),
        kind,
        data: data.into(),
    };
    wal.append(Some(&state(1, 1, 0)), &[change(1, 1, EntryKind::ConfChange, b"add"), entry(1, 2, b"")])
        .unwrap();
    wal.sync().unwrap();
    wal.append(Some(&state(1, 1, 2)), &[entry(1, 3, b"three"), entry(1, 4, &[0; 40])]).unwrap();
    wal.append(None, &[entry(1, 5, b"five, to be overwritten")]).unwrap();
    wal.sync().unwrap();
    wal.append(Some(&state(2, 2, 4)), &[entry(2, 5, b""), change(2, 6, EntryKind::ConfChangeV2, b"")])
        .unwrap();
    wal.sync().unwrap();
    for index in 7..12 {
        wal.append(Some(&state(2, 2, index - 1)), &[entry(2, index, &[index as u8; 60])]).unwrap();
        wal.sync().unwrap();
    }
    wal.append_snapshot(&marker(2, 9)).unwrap();
    wal.sync().unwrap();
    wal.append(Some(&state(2, 2, 11)), &[entry(2, 12, b"twelve")]).unwrap();
    wal.sync().unwrap();
    assert!(wal.segment_count() >= 3);
    (disk.image(), 11)
}

/// Anything that is the same, or less by a tail that nobody can have been told about.
fn is_honest(found: &Recovered, truth: &Recovered, durable: u64) -> bool {
    let prefix = found.entries.len() <= truth.entries.len()
        && found.entries[..] == truth.entries[..found.entries.len()]
        && found.begins_after == truth.begins_after
        && found.metadata == truth.metadata;
    let last = found.begins_after.0 + found.entries.len() as u64;
    prefix && (found.repaired.is_none() && found == truth || found.repaired.is_some() && last >= durable)
}

/// W5: the same data, a torn tail cut, or a refusal; never a shorter log that somebody was told about.
#[test]
fn a_flipped_bit_is_harmless_or_refused_and_never_believed() {
    let (image, durable) = small_log();
    let mut outcomes = [0; 3];
    for from in [0, 9] {
        let truth = open(&MemoryDisk::from_image(&image), SEGMENT, from).unwrap().1;
        for (path, data) in &image {
            for (byte, &value) in data.iter().enumerate() {
                for mask in [1, 2, 4, 8, 16, 32, 64, 128, 0xff, value.max(1)] {
                    let mut harmed = image.clone();
                    harmed.get_mut(path).unwrap()[byte] ^= mask;
                    let disk = MemoryDisk::from_image(&harmed);
                    let context = format!("{} byte {byte} mask {mask:02x} from {from}", path.display());
                    match open(&disk, SEGMENT, from) {
                        Ok((_, found)) => {
                            assert!(
                                is_honest(&found, &truth, durable),
                                "{context}: {found:?}\ninstead of {truth:?}"
                            );
                            outcomes[usize::from(found.repaired.is_some())] += 1;
                        }
                        Err(WalError::Damaged { file, offset, .. }) => {
                            // What no checksum covers, the kind of a record and the chain that the first segment
                            // starts from, is contradicted by one of the next records.
                            let (at, len) = (offset as usize, image[&file].len());
                            let blame = &file > path || &file == path && at <= byte + 96;
                            assert!(at <= len && blame, "{context}: blamed {offset} of {}", file.display());
                            assert_eq!(disk.image(), harmed, "{context}: a refusal changes nothing");
                            outcomes[2] += 1;
                        }
                        Err(e) => panic!("{context}: {e}"),
                    }
                }
            }
        }
    }
    let [same, cut, refused] = outcomes;
    println!("{same} harmless, {cut} cut above what is durable, {refused} refused");
    assert!(refused > 1000 && same > 0);
}

#[test]
fn a_missing_or_shortened_segment_is_never_a_shorter_log() {
    let (image, durable) = small_log();
    let truth = open(&MemoryDisk::from_image(&image), SEGMENT, 4).unwrap().1;
    for (path, data) in &image {
        for keep in (0..data.len()).step_by(4).map(Some).chain([None]) {
            let mut harmed = image.clone();
            match keep {
                Some(keep) => harmed.get_mut(path).unwrap().truncate(keep),
                None => drop(harmed.remove(path)),
            }
            match open(&MemoryDisk::from_image(&harmed), SEGMENT, durable) {
                Ok((_, found)) => {
                    let last = found.begins_after.0 + found.entries.len() as u64;
                    let skip = (found.begins_after.0 - truth.begins_after.0) as usize;
                    assert!(last >= durable, "{} kept {keep:?}: the log ends at {last}", path.display());
                    assert!(truth.entries[skip..].starts_with(&found.entries));
                }
                Err(WalError::Damaged { .. } | WalError::Gap { .. } | WalError::Missing(_)) => {}
                Err(e) => panic!("{e}"),
            }
        }
    }
}

#[test]
fn a_snapshot_from_elsewhere_takes_the_place_of_the_log_once_it_counts() {
    let disk: Arc<MemoryDisk> = Arc::default();
    let mut wal = create(&disk, SEGMENT);
    wal.append(Some(&state(3, 0, 2)), &[entry(1, 1, b"a"), entry(1, 2, b"b"), entry(1, 3, b"c")]).unwrap();
    let conf_state = ConfState { voters: vec![NodeId(1), NodeId(2)], ..ConfState::default() };
    let meta = SnapshotMeta { conf_state, index: Index(50), term: Term(3) };
    wal.append_snapshot(&meta).unwrap();
    wal.sync().unwrap();
    // Up to here the install may have been given up.
    let unfinished = open(&MemoryDisk::from_image(&disk.image()), SEGMENT, 0).unwrap().1;
    assert_eq!((unfinished.begins_after, unfinished.entries.len()), (Index(0), 3));
    wal.append(Some(&state(3, 0, 50)), &[entry(3, 51, b"d")]).unwrap();
    wal.sync().unwrap();
    drop(wal);
    let (_, found) = open(&disk, SEGMENT, 2).unwrap();
    assert_eq!(found.snapshot, meta);
    assert_eq!(found.begins_after, Index(50));
    assert_eq!(found.entries, [entry(3, 51, b"d")]);
}

/// Nobody writes such a log. Read as one, it would have entries before its begin.
#[test]
fn what_an_installed_snapshot_covers_is_not_written_again() {
    let disk: Arc<MemoryDisk> = Arc::default();
    let mut wal = create(&disk, SEGMENT);
    wal.append(Some(&state(1, 0, 0)), &[entry(1, 1, b"a")]).unwrap();
    wal.append_snapshot(&marker(1, 16)).unwrap();
    wal.append(None, &[entry(1, 17, b"behind it")]).unwrap();
    wal.append(None, &[entry(1, 8, b"before it")]).unwrap();
    wal.sync().unwrap();
    drop(wal);
    assert!(matches!(open(&disk, SEGMENT, 0), Err(WalError::Damaged { .. })));
}
