//! Transactions that write: staged apart, installed at once.

use api::key_range::KeyRange;
use bytes::Bytes;

use crate::event::Event;
use crate::history::Version;
use crate::overlay::Overlay;
use crate::read::{RangeQuery, RangeResult, ReadError, missing};
use crate::record::Record;
use crate::revision::Revision;
use crate::select::Source;
use crate::store::Writer;

/// What is known of a key besides its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// The revision that created the key.
    pub create_revision: i64,
    /// The revision of the last put.
    pub mod_revision: Revision,
    /// How many puts the key has seen since it was created.
    pub version: i64,
    /// The lease that the key is attached to; 0 for none.
    pub lease: i64,
}

/// What a transaction did.
#[derive(Clone, Debug)]
pub struct Committed {
    /// The revision that it made current.
    pub revision: i64,
    /// Its changes in order; the position of a change is its sub revision.
    pub events: Vec<Event>,
}

/// A transaction under way. Others see nothing of it until [`commit`](Self::commit); dropping it instead
/// leaves no trace.
pub struct WriteTxn<'a> {
    writer: &'a mut Writer,
    overlay: Overlay,
}

impl Writer {
    /// Begins a transaction.
    pub fn begin(&mut self) -> WriteTxn<'_> {
        WriteTxn { writer: self, overlay: Overlay::default() }
    }

    /// The revision of the latest transaction that wrote something.
    pub fn current_revision(&self) -> i64 {
        self.current
    }
}

/// A transaction with more changes than this builds its index aside, so that readers wait for the exchange
/// of a pointer and not for all its insertions.
const BUILD_ASIDE: usize = 256;

impl WriteTxn<'_> {
    /// The revision that the transaction began at.
    pub fn base_revision(&self) -> i64 {
        self.writer.current
    }

    /// The revision that a read in the transaction happens at: the base, or one more as soon as something
    /// is written.
    pub fn revision(&self) -> i64 {
        self.writer.current + i64::from(!self.overlay.is_empty())
    }

    /// Reads a range; the transaction's own earlier changes are seen.
    ///
    /// # Errors
    /// As for [`Store::range`](crate::Store::range), with [`revision`](Self::revision) as the current one.
    pub fn range(&self, query: &RangeQuery) -> Result<RangeResult, ReadError> {
        self.writer.shared.range(query, Some(&self.overlay))
    }

    /// What is known of a key that exists.
    pub fn lookup(&self, key: &[u8]) -> Option<KeyInfo> {
        match self.overlay.latest(key) {
            Some(event) if event.tombstone => None,
            Some(event) => Some(event.version().info()),
            None => {
                let state = self.writer.shared.state.read();
                let history = state.index.get(key)?;
                history.is_live().then(|| history.latest().info())
            }
        }
    }

    /// The record of a key that exists.
    ///
    /// # Errors
    /// When the backend cannot be read.
    pub fn value(&self, key: &[u8]) -> Result<Option<Record>, ReadError> {
        if let Some(event) = self.overlay.latest(key) {
            return Ok((!event.tombstone).then(|| Record(event.record.clone())));
        }
        match self.lookup(key) {
            Some(KeyInfo { mod_revision: at, .. }) => {
                match self.writer.shared.backend.get(&at.to_row_key())? {
                    Some(bytes) => Ok(Some(Record(bytes))),
                    None => Err(missing(at)),
                }
            }
            None => Ok(None),
        }
    }

    /// Sets a key, and returns what was known of it before. The key and the value are copied: what comes in
    /// is often a slice of a connection's buffer, which must not live as long as the key.
    pub fn put(&mut self, key: Bytes, value: Bytes, lease: i64) -> Option<KeyInfo> {
        assert!(!key.is_empty(), "the empty key is refused before it gets here");
        let before = self.lookup(&key);
        let at = self.next_change();
        let (create, version) = match &before {
            Some(info) => (info.create_revision, info.version + 1),
            None => (at.main, 1),
        };
        self.overlay.push(Event::put(&key, &value, &Version::put(at, create, version, lease)));
        before
    }

    /// Deletes the keys of a range that exist, and returns what was known of each, in the order of keys.
    /// Deleting nothing is not a change.
    pub fn delete_range(&mut self, range: &KeyRange) -> Vec<(Bytes, KeyInfo)> {
        if let KeyRange::Key(key) = range {
            let Some(info) = self.lookup(key) else { return Vec::new() };
            return vec![(self.delete(key), info)];
        }
        let mut found: Vec<(Box<[u8]>, KeyInfo)> = Vec::new();
        let index = self.writer.shared.state.read().index.clone();
        let source = Source::latest(&index, self.revision(), Some(&self.overlay));
        source.visit(range, |key, version| {
            found.push((key.into(), version.info()));
            std::ops::ControlFlow::Continue(())
        });
        drop(index);
        found.into_iter().map(|(key, info)| (self.delete(&key), info)).collect()
    }

    /// Publishes the changes under the next revision; nothing was written if there are none.
    pub fn commit(self) -> Option<Committed> {
        if self.overlay.is_empty() {
            return None;
        }
        let shared = &self.writer.shared;
        // Rows first: whoever finds a version in the index must find its row.
        for event in self.overlay.changes() {
            shared.backend.insert_row(event.revision.to_row_key(), event.row());
        }
        let revision = self.writer.current + 1;
        let changes = self.overlay.into_changes();
        if changes.len() <= BUILD_ASIDE {
            let mut state = shared.state.write();
            changes.iter().for_each(|event| state.index.push(&event.key, event.version()));
            state.current = revision;
        } else {
            // Compaction, the only other one that changes the index, waits; readers do not.
            let state = shared.state.upgradable_read();
            let mut index = state.index.clone();
            changes.iter().for_each(|event| index.push(&event.key, event.version()));
            let mut state = parking_lot::RwLockUpgradableReadGuard::upgrade(state);
            let before = std::mem::replace(&mut state.index, index);
            state.current = revision;
            drop(state);
            drop(before);
        }
        self.writer.current = revision;
        Some(Committed { revision, events: changes })
    }

    fn next_change(&self) -> Revision {
        Revision { main: self.writer.current + 1, sub: self.overlay.len() as i64 }
    }

    fn delete(&mut self, key: &[u8]) -> Bytes {
        let event = Event::tombstone(key, self.next_change());
        let key = event.key.clone();
        self.overlay.push(event);
        key
    }
}
