//! The naive twin: all of history in a list, and nothing clever.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

use std::cell::Cell;

use api::mvccpb::KeyValue;
use bytes::Bytes;
use mvcc::Revision;
use prost::Message;
use watch::{Batch, Chunk, Event, History, HistoryError};

/// One change of a transaction.
#[derive(Clone, Debug)]
pub enum Change {
    Put(String, String),
    Delete(String),
}

/// A store that keeps every event in a list.
#[derive(Clone, Debug)]
pub struct Memory {
    pub events: Vec<Event>,
    pub revision: i64,
    pub compact: i64,
    /// What history reads answer from here on, if they are to fail.
    pub broken: Cell<bool>,
    /// Rows that history reads have looked at, and the most that one of them did.
    pub rows: Cell<usize>,
    pub most_rows: Cell<usize>,
}

impl Default for Memory {
    fn default() -> Self {
        Memory {
            events: Vec::new(),
            revision: 1,
            compact: 0,
            broken: Cell::new(false),
            rows: Cell::new(0),
            most_rows: Cell::new(0),
        }
    }
}

impl Memory {
    /// Applies one transaction, which must change something, and returns what it made happen.
    pub fn commit(&mut self, changes: &[Change]) -> Vec<Event> {
        let main = self.revision + 1;
        let start = self.events.len();
        for change in changes {
            let sub = (self.events.len() - start) as i64;
            let key = match change {
                Change::Put(key, _) | Change::Delete(key) => Bytes::from(key.clone()),
            };
            let before = self.events.iter().rev().find(|event| event.key == key && !event.tombstone);
            let gone = self.events.iter().rev().find(|event| event.key == key).is_none_or(|e| e.tombstone);
            let (create, version) = match before {
                Some(before) if !gone => (before.create_revision, before.version + 1),
                _ => (main, 1),
            };
            let (tombstone, kv) = match change {
                Change::Put(_, value) => {
                    let value = Bytes::from(value.clone());
                    let (key, mod_revision) = (key.clone(), main);
                    (false, KeyValue { key, value, create_revision: create, mod_revision, version, lease: 0 })
                }
                Change::Delete(_) if gone => continue,
                Change::Delete(_) => {
                    (true, KeyValue { key: key.clone(), mod_revision: main, ..Default::default() })
                }
            };
            self.events.push(Event {
                tombstone,
                revision: Revision::new(main, sub),
                key,
                version: kv.version,
                create_revision: kv.create_revision,
                lease: 0,
                record: kv.encode_to_vec().into(),
            });
        }
        assert!(self.events.len() > start, "a transaction without effect has no revision: {changes:?}");
        self.revision = main;
        self.events[start..].to_vec()
    }

    /// The record of a key at a revision, compacted or not.
    pub fn truth(&self, key: &Bytes, revision: i64) -> Option<Bytes> {
        let end = self.events.partition_point(|event| event.revision.main <= revision);
        let last = self.events[..end].iter().rev().find(|event| event.key == *key);
        last.filter(|event| !event.tombstone).map(|event| event.record.clone())
    }

    /// Forgets what compaction at `revision` forgets: the list stays, the reads below are refused.
    pub fn compact(&mut self, revision: i64) {
        assert!(revision <= self.revision, "cannot compact the future");
        self.compact = self.compact.max(revision);
    }

    /// The events of some revisions as a batch.
    pub fn batch(&self, first: i64, last: i64) -> Batch {
        let within = |event: &&Event| (first..=last).contains(&event.revision.main);
        Batch { events: self.events.iter().filter(within).cloned().collect(), first, last }
    }
}

impl History for Memory {
    fn events(
        &self,
        from: i64,
        to: i64,
        max_bytes: usize,
        filter: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<Chunk, HistoryError> {
        if self.broken.get() {
            return Err(HistoryError::Failed("the disk is on fire".into()));
        }
        if from < self.compact {
            return Err(HistoryError::Compacted(self.compact));
        }
        assert!(to <= self.revision, "asked for revision {to} of {}", self.revision);
        let first = self.events.partition_point(|event| event.revision.main < from);
        let (mut events, mut bytes, mut rows, mut next) = (Vec::new(), 0, 0, to + 1);
        for (at, event) in self.events.iter().enumerate().skip(first) {
            let main = event.revision.main;
            if main > to {
                break;
            }
            if bytes > max_bytes && main != self.events[at - 1].revision.main {
                next = main;
                break;
            }
            rows += 1;
            if filter(&event.key) {
                bytes += event.record.len();
                events.push(event.clone());
            }
        }
        self.rows.set(self.rows.get() + rows);
        self.most_rows.set(self.most_rows.get().max(rows));
        Ok(Chunk { events, next })
    }

    fn value_at(&self, key: &Bytes, revision: i64) -> Result<Option<Bytes>, HistoryError> {
        if self.broken.get() {
            return Err(HistoryError::Failed("the disk is on fire".into()));
        }
        if revision < self.compact {
            return Ok(None);
        }
        Ok(self.truth(key, revision))
    }

    fn compact_revision(&self) -> i64 {
        self.compact
    }
}

/// Repeatable dice: splitmix64.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % sides
    }

    pub fn one_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }
}
