//! The log's tests. They sit inside the crate so that they can name records as the code does.
#![allow(clippy::unwrap_used)]

mod damage;
mod golden;
mod locking;
mod model;
mod script;
mod torn;

use std::path::Path;
use std::sync::Arc;

use raft::{Entry, EntryKind, HardState, Index, NodeId, SnapshotMeta, Term};

use crate::memory::MemoryDisk;
use crate::{Options, Recovered, Wal, WalError};

const DIR: &str = "/wal";

fn entry(term: u64, index: u64, data: &[u8]) -> Entry {
    Entry { term: Term(term), index: Index(index), kind: EntryKind::Normal, data: data.into() }
}

fn state(term: u64, vote: u64, commit: u64) -> HardState {
    HardState { term: Term(term), vote: (vote != 0).then_some(NodeId(vote)), commit: Index(commit) }
}

fn marker(term: u64, index: u64) -> SnapshotMeta {
    let conf_state = raft::ConfState { voters: vec![NodeId(1)], ..Default::default() };
    SnapshotMeta { conf_state, index: Index(index), term: Term(term) }
}

fn create(disk: &Arc<MemoryDisk>, segment_bytes: u64) -> Wal {
    Wal::create_with(disk.clone(), Path::new(DIR), b"metadata", Options { segment_bytes }).unwrap()
}

fn open(disk: &Arc<MemoryDisk>, segment_bytes: u64, from: u64) -> Result<(Wal, Recovered), WalError> {
    Wal::open_with(disk.clone(), Path::new(DIR), Index(from), Options { segment_bytes })
}

/// A small seeded generator, enough to vary a test.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// A later version's entries are kept as they are: it is not the log that has to understand them (A10).
#[test]
fn an_entry_of_an_unknown_kind_comes_back_as_it_was() {
    let disk = Arc::new(MemoryDisk::default());
    let odd = Entry { kind: EntryKind::Unknown(0x7f), ..entry(1, 1, b"odd") };
    let mut wal = create(&disk, 1 << 16);
    wal.append(Some(&state(1, 0, 1)), std::slice::from_ref(&odd)).unwrap();
    wal.sync().unwrap();
    drop(wal);
    let (_, recovered) = open(&disk, 1 << 16, 0).unwrap();
    assert_eq!(recovered.entries, [odd]);
}

/// W13: a segment for which no space could be reserved is as good as any other, also at the next start,
/// which needs no room for itself.
#[test]
fn a_disk_with_no_room_to_reserve_is_used_to_the_end() {
    let disk = Arc::new(MemoryDisk::default());
    let mut wal = create(&disk, 1 << 10);
    disk.make_scarce();
    let mut last = 0;
    let mut write = |wal: &mut Wal| {
        last += 1;
        wal.append(Some(&state(1, 0, last)), &[entry(1, last, &[7; 100])]).unwrap();
        wal.sync().unwrap();
        wal.prepare().unwrap();
        last
    };
    while wal.segment_count() < 4 {
        write(&mut wal);
    }
    drop(wal);
    let (mut wal, recovered) = open(&disk, 1 << 10, 0).unwrap();
    let last = write(&mut wal);
    assert_eq!(recovered.entries.len() as u64, last - 1);
    drop(wal);
    assert_eq!(open(&disk, 1 << 10, 0).unwrap().1.entries.len() as u64, last);
}
