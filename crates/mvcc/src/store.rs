//! The store as its users hold it: many readers, one writer.

use std::sync::Arc;

use backend::{Backend, Incoming, Table};
use parking_lot::{Mutex, RwLock};

use crate::compaction::Sweep;
use crate::hash::HashKv;
use crate::index::Index;
use crate::open::{self, Opened};
use crate::read::ReadError;
use crate::revision::Revision;

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
    /// What the latest compactions began from, ascending by revision.
    pub(crate) compacted_hashes: Mutex<Vec<HashKv>>,
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
    /// The last row that is of no key.
    pub(crate) bump: Option<Revision>,
}

impl Store {
    /// Rebuilds the index from the stored rows. A new store is at revision 1, as if something had been
    /// written and deleted.
    ///
    /// # Errors
    /// When the backend cannot be read or holds a row that is not a record.
    pub fn open(backend: Backend) -> Result<(Store, Writer, Opened), ReadError> {
        let meta = |name: &[u8]| backend.table_get(Table::Meta, name);
        let (state, sweep, opened) = open::rebuild(&backend.view()?, meta)?;
        let current = state.current;
        let shared = Arc::new(Shared {
            backend,
            state: RwLock::new(state),
            sweep: Mutex::new(sweep),
            compacted_hashes: Mutex::default(),
        });
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

impl Writer {
    /// Puts another state in the place of this one: on disk and for all readers at once. Who reads already
    /// goes on in the old state; who begins later sees the new one, revision, index and rows together. A
    /// compaction under way is given up with the state that it was of.
    ///
    /// # Errors
    /// When the new state cannot be read, is of an older revision than this one, or cannot be put in place.
    pub fn install(&mut self, incoming: Incoming<'_>) -> Result<Opened, ReadError> {
        let meta = |name: &[u8]| incoming.table_get(Table::Meta, name);
        let (state, sweep, opened) = open::rebuild(&incoming.view(), meta)?;
        if state.current < self.current {
            let what = format!("it ends at revision {}, this member is at {}", state.current, self.current);
            return Err(ReadError::Storage(backend::Error::Body(what)));
        }
        // No step of the compaction between here and the end: what it queues would hit the new state.
        let mut old_sweep = self.shared.sweep.lock();
        let placed = incoming.take_place().map_err(ReadError::Storage)?;
        self.current = state.current;
        let old = {
            let mut shown = self.shared.state.write();
            placed.publish();
            std::mem::replace(&mut *shown, state)
        };
        *old_sweep = sweep;
        // They were of the state that is gone, which may have been damaged.
        self.shared.compacted_hashes.lock().clear();
        // Taking a large index apart takes a while, which nobody should wait for.
        drop(old_sweep);
        drop(old);
        Ok(opened)
    }
}
