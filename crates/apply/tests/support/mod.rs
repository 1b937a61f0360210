//! A machine on a stage: entries made from requests, and restarts.
#![allow(dead_code, unreachable_pub)]

pub mod dsl;
pub mod model;
pub mod random;
pub mod show;

use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use api::etcdserverpb::{InternalRaftRequest, RequestHeader};
use apply::{Applied, Failure, Machine, Options, Shared};
use backend::{Backend, Storage, Table, Target};
use prost::Message;
use raft::{Entry, EntryKind, Index, SnapshotMeta, Term};

pub struct Stage {
    pub machine: Machine,
    pub shared: Shared,
    pub backend: Backend,
    pub options: Options,
    pub now: Duration,
    dir: tempfile::TempDir,
}

impl Stage {
    pub fn new(options: Options) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let backend = open(&dir);
        let (machine, shared) = Machine::open(backend.clone(), options).unwrap();
        Stage { machine, shared, backend, options, now: Duration::ZERO, dir }
    }

    /// Seals, flushes, and starts again from the file.
    pub fn restart(self) -> Self {
        let Stage { mut machine, shared, backend, options, now, dir } = self;
        machine.seal();
        backend.flush_all().unwrap();
        drop((machine, shared, backend));
        let backend = open(&dir);
        let (machine, shared) = Machine::open(backend.clone(), options).unwrap();
        Stage { machine, shared, backend, options, now, dir }
    }

    /// Starts again from the file as it is, losing what was not flushed; says where.
    pub fn crash(self) -> (Self, Index) {
        let Stage { machine, shared, backend, options, now, dir } = self;
        drop((machine, shared, backend));
        let backend = open(&dir);
        let (machine, shared) = Machine::open(backend.clone(), options).unwrap();
        let index = machine.applied().0;
        (Stage { machine, shared, backend, options, now, dir }, index)
    }

    /// Starts again from the file and a snapshot that the log has a record of.
    pub fn installed_at_start(self, body: &[u8], meta: &SnapshotMeta) -> Self {
        let Stage { machine, shared, backend, options, now, dir } = self;
        drop((machine, shared, backend));
        let backend = open(&dir);
        assert!(apply::snapshot::finish(&backend, Cursor::new(body), meta, Target::Beside).unwrap());
        assert!(!apply::snapshot::finish(&backend, Cursor::new(body), meta, Target::Beside).unwrap());
        let (machine, shared) = Machine::open(backend.clone(), options).unwrap();
        assert_eq!(machine.applied(), (meta.index, meta.term));
        Stage { machine, shared, backend, options, now, dir }
    }

    /// This state, installed in the place of another member's.
    pub fn moved_to(&mut self, mut other: Stage) -> Self {
        self.machine.seal();
        let (body, meta) = snapshot(&self.backend);
        apply::snapshot::check(Cursor::new(&body), &meta).unwrap();
        other.machine.install(Cursor::new(body), &meta, Target::Beside).unwrap();
        other.now = self.now;
        other
    }

    pub fn entry(&self, kind: EntryKind, data: &[u8]) -> Entry {
        let (index, term) = self.machine.applied();
        Entry { term: term.max(Term(1)), index: index.next(), kind, data: data.into() }
    }

    pub fn apply(&mut self, kind: EntryKind, data: &[u8]) -> Applied {
        let entry = self.entry(kind, data);
        self.machine.apply(&entry, self.now).unwrap()
    }

    /// As [`Stage::apply`], but the entry may be one to stop at.
    pub fn attempt(&mut self, kind: EntryKind, data: &[u8]) -> Result<Applied, Failure> {
        let entry = self.entry(kind, data);
        self.machine.apply(&entry, self.now)
    }

    pub fn request(&mut self, request: InternalRaftRequest) -> Applied {
        self.apply(EntryKind::Normal, &encode(request))
    }

    /// One small step of the physical compaction.
    pub fn store_step(&self) {
        self.shared.store.compact_step(3).unwrap();
    }

    /// Every row of every table but the one that says how far the machine is.
    pub fn tables(&self) -> Vec<(Table, Vec<u8>, Vec<u8>)> {
        let mut rows = Vec::new();
        for table in Table::ALL {
            self.backend
                .scan_table(table, |key, value| {
                    if key != b"consistent_index" && key != b"term" {
                        rows.push((table, key.to_vec(), value.to_vec()));
                    }
                })
                .unwrap();
        }
        rows
    }
}

/// A snapshot's body and what it is of.
pub fn snapshot(backend: &Backend) -> (Vec<u8>, SnapshotMeta) {
    let taken = apply::snapshot::take(backend).unwrap();
    let body = taken.write_to(Cursor::new(Vec::new())).unwrap().into_inner();
    (body, taken.meta().clone())
}

pub fn encode(request: InternalRaftRequest) -> Arc<[u8]> {
    let header = RequestHeader { id: 7, ..RequestHeader::default() };
    InternalRaftRequest { header: Some(header), ..request }.encode_to_vec().into()
}

fn open(dir: &tempfile::TempDir) -> Backend {
    Backend::open(Storage::File(dir.path().join("db")), backend::Options::default()).unwrap()
}

/// A small generator (xorshift64*), so that a seed names a run.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}
