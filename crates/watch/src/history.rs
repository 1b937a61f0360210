//! The past, as far as a watcher can still ask for it.

use std::fmt;

use bytes::Bytes;

use crate::Event;

/// Read access to past events. [`mvcc::Store`] is the one that ships; tests bring a plain list.
pub trait History {
    /// The events of the revisions `from..=to` whose key passes `filter`, oldest first.
    ///
    /// Whole revisions only. Once the events found exceed `max_bytes` the answer may end early, after at
    /// least one revision; [`Chunk::next`] says how far it got.
    ///
    /// # Errors
    /// [`HistoryError::Compacted`] when `from` is below the compact revision (at it is fine), and
    /// [`HistoryError::Failed`] when the storage cannot be read.
    fn events(
        &self,
        from: i64,
        to: i64,
        max_bytes: usize,
        filter: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<Chunk, HistoryError>;

    /// The encoded `mvccpb.KeyValue` that `key` had at `revision`; `None` when it did not exist then, or
    /// when that is compacted away.
    ///
    /// # Errors
    /// [`HistoryError::Failed`] when the storage cannot be read.
    fn value_at(&self, key: &Bytes, revision: i64) -> Result<Option<Bytes>, HistoryError>;

    /// Events below this revision are gone.
    fn compact_revision(&self) -> i64;
}

/// A stretch of history.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// The events found, in order.
    pub events: Vec<Event>,
    /// The first revision that the search did not cover.
    pub next: i64,
}

/// Why a stretch of history could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HistoryError {
    /// The stretch begins below the compact revision, which is given.
    Compacted(i64),
    /// The storage failed; what it said. Nothing that this member knows can be trusted to be complete.
    Failed(String),
}

impl fmt::Display for HistoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HistoryError::Compacted(revision) => write!(f, "history below revision {revision} is compacted"),
            HistoryError::Failed(cause) => write!(f, "history cannot be read: {cause}"),
        }
    }
}

impl std::error::Error for HistoryError {}
