//! History told again, for watchers that are behind.

use std::ops::ControlFlow;

use crate::event::Event;
use crate::fetch::Chunks;
use crate::history::Version;
use crate::read::ReadError;
use crate::record::{Header, Malformed, is_bump};
use crate::revision::Revision;
use crate::store::Store;

/// A piece of history.
#[derive(Clone, Debug)]
pub struct History {
    /// The events that passed the filter, in the order in which they happened; whole revisions only.
    pub events: Vec<Event>,
    /// The first revision that this piece does not cover.
    pub next: i64,
}

/// A call looks at this many rows at most (rounded up to a whole revision), so that a filter that refuses
/// nearly everything does not make one call read all of history.
const ROWS_PER_CALL: usize = 4_096;

impl Store {
    /// The events from revision `from` up to and including `to`, or as many of them, at least one revision,
    /// as fit `max_bytes` of records. `to` beyond the current revision means the current revision. Ask again
    /// with [`History::next`] for the rest.
    ///
    /// # Errors
    /// [`ReadError::Compacted`] when events from `from` on are gone;
    /// [`ReadError::Storage`] when the backend fails.
    pub fn history(
        &self,
        from: i64,
        to: i64,
        max_bytes: usize,
        filter: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<History, ReadError> {
        // Together, so that a compaction that comes later leaves no holes in what this call reads.
        let (current, compact_revision, view) = {
            let state = self.shared.state.read();
            (state.current, state.compact, self.shared.backend.view()?)
        };
        if from < compact_revision {
            return Err(ReadError::Compacted { compact_revision });
        }
        let from = from.max(0);
        let to = to.min(current);
        if from > to {
            return Ok(History { events: Vec::new(), next: from });
        }
        let mut piece = Piece { next: to + 1, max_bytes, ..Piece::default() };
        let bounds = (Revision::new(from, 0).to_row_key(), Revision::new(to + 1, 0).to_row_key());
        view.for_each_row(bounds.0, bounds.1, |key, tombstone, record| {
            piece.row(Revision::from_row_key(key), tombstone, record, filter)
        })?;
        if piece.malformed {
            return Err(ReadError::Storage(malformed(piece.last)));
        }
        Ok(History { events: piece.events, next: piece.next })
    }
}

pub(crate) fn malformed(at: Revision) -> backend::Error {
    backend::Error::Corrupt(format!("the row of revision {at} is not an encoded KeyValue"))
}

#[derive(Default)]
struct Piece {
    events: Vec<Event>,
    chunks: Chunks,
    bytes: usize,
    rows: usize,
    max_bytes: usize,
    /// The last row.
    last: Revision,
    next: i64,
    malformed: bool,
}

impl Piece {
    fn row(
        &mut self,
        at: Revision,
        tombstone: bool,
        record: &[u8],
        filter: &mut dyn FnMut(&[u8]) -> bool,
    ) -> ControlFlow<()> {
        let full = self.bytes >= self.max_bytes || self.rows >= ROWS_PER_CALL;
        if full && at.main != self.last.main && self.rows > 0 {
            self.next = at.main;
            return ControlFlow::Break(());
        }
        self.rows += 1;
        self.last = at;
        match self.event(at, tombstone, record, filter) {
            Ok(Some(event)) => {
                self.bytes += event.record.len();
                self.events.push(event);
                ControlFlow::Continue(())
            }
            Ok(None) => ControlFlow::Continue(()),
            Err(Malformed) => {
                self.malformed = true;
                ControlFlow::Break(())
            }
        }
    }

    fn event(
        &mut self,
        at: Revision,
        tombstone: bool,
        record: &[u8],
        filter: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<Option<Event>, Malformed> {
        if is_bump(tombstone, record) {
            return Ok(None);
        }
        let header = Header::parse(record)?;
        if !filter(header.key) {
            return Ok(None);
        }
        let (version, bytes) = if tombstone {
            let told = Header { key: header.key, mod_revision: at.main, ..Header::default() };
            (Version::tombstone(at), self.chunks.encode(&told))
        } else {
            (version_of(at, &header)?, self.chunks.copy(record))
        };
        Ok(Some(Event::of(&version, header.key.len(), bytes)))
    }
}

/// The version that a stored put says it is.
pub(crate) fn version_of(at: Revision, header: &Header<'_>) -> Result<Version, Malformed> {
    if header.version <= 0 || header.key.is_empty() || header.mod_revision != at.main {
        return Err(Malformed);
    }
    Ok(Version::put(at, header.create_revision, header.version, header.lease))
}
