//! One log, one owner.

use std::path::Path;
use std::sync::Arc;

use raft::Index;

use super::{create, entry, open, state};
use crate::memory::MemoryDisk;
use crate::{Disk, RealDisk, Wal, WalError};

#[test]
fn a_log_is_opened_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wal");
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let wal = Wal::create(disk.clone(), &path, b"m").unwrap();
    assert!(matches!(Wal::open(disk.clone(), &path, Index(0)), Err(WalError::Locked(_))));
    assert!(matches!(Wal::create(disk.clone(), &path, b"m"), Err(WalError::Locked(_))));
    drop(wal);
    let (wal, _) = Wal::open(disk.clone(), &path, Index(0)).unwrap();
    drop(wal);
    assert!(matches!(Wal::create(disk, &path, b"m"), Err(WalError::Exists(_))));
}

#[test]
fn what_is_not_there_is_said_so() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("nowhere");
    assert!(!Wal::exists(&RealDisk, &missing).unwrap());
    assert!(matches!(Wal::open(Arc::new(RealDisk), &missing, Index(0)), Err(WalError::Missing(_))));
}

/// W14: names that mean nothing here are passed over, own leftovers are removed and never used again.
#[test]
fn own_stale_files_go_and_foreign_ones_stay() {
    let disk: Arc<MemoryDisk> = Arc::default();
    drop(create(&disk, 4096));
    for name in ["next.tmp", "0.tmp", "lost+found", "notes.tmp", "0000000000000001.wal"] {
        disk.create(&Path::new(super::DIR).join(name)).unwrap();
    }
    drop(open(&disk, 4096, 0).unwrap());
    let mut names = disk.list(Path::new(super::DIR)).unwrap();
    names.sort();
    let first = "0000000000000000-0000000000000000.wal";
    assert_eq!(names, [first, "0000000000000001.wal", "lost+found", "notes.tmp"]);
}

#[test]
fn on_a_real_disk_what_was_synced_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wal");
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let options = crate::Options { segment_bytes: 64 << 10 };
    let mut wal = Wal::create_with(disk.clone(), &path, b"m", options.clone()).unwrap();
    let mut all = Vec::new();
    for batch in 0..40u64 {
        let entries: Vec<_> = (1..=10).map(|i| entry(1, batch * 10 + i, &[batch as u8; 700])).collect();
        wal.append(Some(&state(1, 1, batch * 10)), &entries).unwrap();
        wal.sync().unwrap();
        wal.prepare().unwrap();
        all.extend(entries);
    }
    assert!(wal.segment_count() > 3);
    drop(wal);
    let (mut wal, recovered) = Wal::open_with(disk.clone(), &path, Index(0), options.clone()).unwrap();
    assert_eq!(recovered.entries, all);
    wal.release_to(Index(200)).unwrap();
    drop(wal);
    let (_wal, recovered) = Wal::open_with(disk, &path, Index(200), options).unwrap();
    assert_eq!(recovered.entries, all[200..]);
}
