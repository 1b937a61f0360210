//! Ranges: the question, the answer, and the errors in between.

use std::fmt;

use api::etcdserverpb::range_request::{SortOrder, SortTarget};
use api::key_range::KeyRange;
use backend::View;

use crate::fetch::Fetch;
use crate::index::Index;
use crate::overlay::Overlay;
use crate::record::Record;
use crate::revision::Revision;
use crate::select::{Selection, Source};
use crate::store::{Shared, Store};

/// The records of an answer.
pub type Records = Vec<Record>;

/// What to read. The fields are those of etcd's `RangeRequest`, with the same meaning; 0 in a filter means
/// that there is none.
#[derive(Clone, Debug)]
pub struct RangeQuery {
    /// Which keys.
    pub range: KeyRange,
    /// At which revision; the current one if 0 or less.
    pub revision: i64,
    /// How many records at most; no bound if 0 or less. Applied after the filters and the sorting, except
    /// that, as in etcd, a target other than the key with [`SortOrder::None`] and no filters sorts only the
    /// first `limit + 1` records in key order.
    pub limit: i64,
    /// The order of the answer. `None` is key order; [`SortOrder::None`] with a target other than the key is
    /// ascending. Records that compare equal stay in key order.
    pub sort: Option<(SortTarget, SortOrder)>,
    /// Leaves out keys last changed before this revision.
    pub min_mod_revision: i64,
    /// Leaves out keys last changed after this revision.
    pub max_mod_revision: i64,
    /// Leaves out keys created before this revision.
    pub min_create_revision: i64,
    /// Leaves out keys created after this revision.
    pub max_create_revision: i64,
    /// Answer without values; nothing but the index is read then, unless the order is by value.
    pub keys_only: bool,
    /// Answer with the count alone.
    pub count_only: bool,
}

impl RangeQuery {
    /// Everything in the range as it is now.
    pub fn new(range: KeyRange) -> RangeQuery {
        RangeQuery {
            range,
            revision: 0,
            limit: 0,
            sort: None,
            min_mod_revision: 0,
            max_mod_revision: 0,
            min_create_revision: 0,
            max_create_revision: 0,
            keys_only: false,
            count_only: false,
        }
    }

    /// Whether the answer is in key order, as the index walks it.
    pub(crate) fn is_key_order(&self) -> bool {
        self.target() == SortTarget::Key && self.order() != SortOrder::Descend
    }

    pub(crate) fn target(&self) -> SortTarget {
        self.sort.map_or(SortTarget::Key, |(target, _)| target)
    }

    pub(crate) fn order(&self) -> SortOrder {
        self.sort.map_or(SortOrder::None, |(_, order)| order)
    }

    pub(crate) fn has_filters(&self) -> bool {
        self.min_mod_revision != 0
            || self.max_mod_revision != 0
            || self.min_create_revision != 0
            || self.max_create_revision != 0
    }

    /// How many keys have to be looked at, when the rest cannot change the answer: one more than the limit,
    /// to know whether there is more.
    pub fn enough(&self) -> usize {
        let first_ones_do = self.order() == SortOrder::None
            || (self.target() == SortTarget::Key && self.order() == SortOrder::Ascend);
        match usize::try_from(self.limit) {
            Ok(limit) if limit > 0 && first_ones_do && !self.has_filters() => limit.saturating_add(1),
            _ => usize::MAX,
        }
    }
}

/// The answer to a [`RangeQuery`].
#[derive(Clone, Debug)]
pub struct RangeResult {
    /// The revision that was current when the read began, whatever revision was read.
    pub revision: i64,
    /// The keys that were asked for, in order.
    pub records: Records,
    /// How many keys the range holds at that revision, before the filters and the limit.
    pub count: i64,
    /// Whether the limit left records out.
    pub more: bool,
}

/// Why a read has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// The revision asked for is below the compacted one.
    Compacted {
        /// The oldest revision that can be read.
        compact_revision: i64,
    },
    /// The revision asked for does not exist yet.
    Future {
        /// The newest revision that can be read.
        current_revision: i64,
    },
    /// The backend failed; the member cannot go on.
    Storage(backend::Error),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Compacted { compact_revision } => {
                write!(f, "required revision has been compacted (up to {compact_revision})")
            }
            ReadError::Future { current_revision } => {
                write!(f, "required revision is a future revision (current is {current_revision})")
            }
            ReadError::Storage(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ReadError {}

impl From<backend::Error> for ReadError {
    fn from(error: backend::Error) -> ReadError {
        ReadError::Storage(error)
    }
}

impl Store {
    /// Reads a range at one revision. No lock is held while a long range is walked or its records are
    /// fetched; writes go on meanwhile.
    ///
    /// # Errors
    /// [`ReadError::Future`] and [`ReadError::Compacted`] when the query names a revision outside what can
    /// be read; [`ReadError::Storage`] when the backend fails.
    pub fn range(&self, query: &RangeQuery) -> Result<RangeResult, ReadError> {
        self.shared.range(query, None)
    }
}

/// A range that looks at no more keys than this is walked under the lock: a snapshot of the index would make
/// the next write copy the nodes on its way, which costs more than waiting for so short a walk.
const SHORT: usize = 64;

/// What a reader takes in one lock hold: its revision, and pictures of the index and of the rows that belong
/// to it. A compaction that comes later changes neither picture.
struct Start {
    current: i64,
    at: i64,
    found: Found,
    view: View,
}

enum Found {
    Selection(Selection),
    /// Too much to walk under the lock.
    Snapshot(Index),
}

impl Shared {
    /// Answers a query; inside a transaction, with its changes.
    pub(crate) fn range(
        &self,
        query: &RangeQuery,
        overlay: Option<&Overlay>,
    ) -> Result<RangeResult, ReadError> {
        let overlay = overlay.filter(|overlay| !overlay.is_empty());
        let Start { current, at, found, view } = self.start(query, overlay)?;
        let Selection { count, more, pick } = match found {
            Found::Selection(selection) => selection,
            Found::Snapshot(index) => {
                let source = Source::new(&index, current, at, overlay);
                source.select(query, usize::MAX).expect("a selection without a budget has an answer")
            }
        };
        let (records, cut) = Fetch::new(view, overlay).pick(query, pick)?;
        Ok(RangeResult { revision: current, records, count, more: more || cut })
    }

    fn start(&self, query: &RangeQuery, overlay: Option<&Overlay>) -> Result<Start, ReadError> {
        let state = self.state.read();
        let current = state.current + i64::from(overlay.is_some());
        if query.revision > current {
            return Err(ReadError::Future { current_revision: current });
        }
        let at = if query.revision <= 0 { current } else { query.revision };
        if at < state.compact {
            return Err(ReadError::Compacted { compact_revision: state.compact });
        }
        let source = Source::new(&state.index, current, at, overlay);
        let found = match source.select(query, SHORT) {
            Some(selection) => Found::Selection(selection),
            None => Found::Snapshot(state.index.clone()),
        };
        Ok(Start { current, at, found, view: self.backend.view()? })
    }
}

/// A row that the index promised is not there.
pub(crate) fn missing(at: Revision) -> ReadError {
    ReadError::Storage(backend::Error::Corrupt(format!("the row of revision {at} is missing")))
}
