//! The store as its users hold it: many readers, one writer.

use std::sync::Arc;

use backend::Backend;
use parking_lot::{Mutex, RwLock};

use crate::compaction::Sweep;
use crate::index::Index;
use crate::open::{self, Opened};
use crate::read::ReadError;

/// A handle for reading, from any thread; clones share one store.
#[derive(Clone)]
pub struct Store {
    pub(crate) shared: Arc<Shared>,
}

/// The right to write, of which a store has one: log entries are applied one after the other.
pub struct Writer {
    pub(crate) shared: Arc<Shared>,
    /// The current revision. Nothing but this writer moves it, so it needs no lock to know it.
    pub(crate) current: i64,
}

pub(crate) struct Shared {
    pub(crate) backend: Backend,
    pub(crate) state: RwLock<State>,
    pub(crate) sweep: Mutex<Sweep>,
}

/// What must change together. A reader takes its revision and its picture of the index in one lock hold, so
/// it never sees half a transaction.
///
/// Invariants: every version in `index` has `main <= current`; `compact <= current`; every version that a
/// read at `compact` or later can see is in `index`, and its row in the backend.
pub(crate) struct State {
    pub(crate) index: Index,
    pub(crate) current: i64,
    pub(crate) compact: i64,
}

impl Store {
    /// Rebuilds the index from the stored rows. A new store is at revision 1, as if something had been
    /// written and deleted.
    ///
    /// # Errors
    /// When the backend cannot be read or holds a row that is not a record.
    pub fn open(backend: Backend) -> Result<(Store, Writer, Opened), ReadError> {
        let (state, sweep, opened) = open::rebuild(&backend)?;
        let current = state.current;
        let shared = Arc::new(Shared { backend, state: RwLock::new(state), sweep: Mutex::new(sweep) });
        Ok((Store { shared: Arc::clone(&shared) }, Writer { shared, current }, opened))
    }

    /// The revision of the latest transaction that wrote something.
    pub fn current_revision(&self) -> i64 {
        self.shared.state.read().current
    }

    /// The revision below which nothing can be read; -1 if the store was never compacted, the number that
    /// etcd answers then.
    pub fn compact_revision(&self) -> i64 {
        self.shared.state.read().compact
    }

    /// How many keys exist now.
    pub fn live_keys(&self) -> u64 {
        self.shared.state.read().index.live()
    }
}
