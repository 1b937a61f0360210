//! The history that ships: the store's own.

use bytes::Bytes;

use mvcc::{KeyRange, RangeQuery, ReadError, Store};

use crate::history::{Chunk, History, HistoryError};

impl History for Store {
    fn events(
        &self,
        from: i64,
        to: i64,
        max_bytes: usize,
        filter: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<Chunk, HistoryError> {
        let piece = self.history(from, to, max_bytes, filter).map_err(HistoryError::from)?;
        Ok(Chunk { events: piece.events, next: piece.next })
    }

    fn value_at(&self, key: &Bytes, revision: i64) -> Result<Option<Bytes>, HistoryError> {
        // To the store, "revision 0" is the current one.
        if revision < 1 {
            return Ok(None);
        }
        let query = RangeQuery { revision, ..RangeQuery::new(KeyRange::Key(key.clone())) };
        match self.range(&query) {
            Ok(result) => Ok(result.records.into_iter().next().map(|record| record.0)),
            Err(ReadError::Compacted { .. }) => Ok(None),
            Err(failure) => Err(failure.into()),
        }
    }

    fn compact_revision(&self) -> i64 {
        Store::compact_revision(self)
    }
}

impl From<ReadError> for HistoryError {
    fn from(error: ReadError) -> HistoryError {
        match error {
            ReadError::Compacted { compact_revision } => HistoryError::Compacted(compact_revision),
            failure @ (ReadError::Future { .. } | ReadError::Storage(_)) => {
                HistoryError::Failed(failure.to_string())
            }
        }
    }
}
