//! Forgetting: at once for readers, in bounded steps for memory and disk.

use std::collections::VecDeque;
use std::fmt;

use backend::{RowKey, Table, TableOp};
use bytes::Bytes;
use parking_lot::{RwLockUpgradableReadGuard, RwLockWriteGuard};

use crate::history::Dead;
use crate::read::ReadError;
use crate::revision::Revision;
use crate::store::{Shared, Store, Writer};

pub(crate) const SCHEDULED: &[u8] = b"scheduledCompactRev";
pub(crate) const FINISHED: &[u8] = b"finishedCompactRev";

/// Why there is nothing to compact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompactError {
    /// The revision is at or below the one compacted to before.
    Compacted {
        /// The revision compacted to before.
        compact_revision: i64,
    },
    /// The revision does not exist yet.
    Future {
        /// The newest revision that can be compacted to.
        current_revision: i64,
    },
}

impl fmt::Display for CompactError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CompactError::Compacted { compact_revision } => {
                write!(f, "required revision has been compacted (up to {compact_revision})")
            }
            CompactError::Future { current_revision } => {
                write!(f, "required revision is a future revision (current is {current_revision})")
            }
        }
    }
}

impl std::error::Error for CompactError {}

/// What one step of the physical compaction did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Whether anything is left to do.
    pub state: ProgressState,
    /// How many rows the step removed.
    pub rows: usize,
}

/// Whether a compaction is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgressState {
    /// Nothing is left of what was scheduled.
    Done,
    /// Call again. With no rows removed and no progress possible, the batch that scheduled the compaction
    /// was not sealed yet.
    More,
}

/// Where the physical compaction stands.
pub(crate) struct Sweep {
    /// The last revision that is compacted in every respect; -1 for none.
    finished: i64,
    running: Option<Running>,
    /// Whether a compaction above `finished` began in an earlier life of the store, so that rows may be gone
    /// that a hash would have to cover.
    interrupted: bool,
}

struct Running {
    target: i64,
    /// The first key of the index that was not looked at yet; `None` past the last.
    cursor: Option<Vec<u8>>,
    /// Rows that the index has forgotten and the backend has not.
    dead: VecDeque<RowKey>,
}

/// Leaves of the index looked at in one step when few of them have anything to forget: some ten thousand
/// keys.
const RUNS_PER_STEP: usize = 1024;

impl Sweep {
    pub(crate) fn new(finished: i64) -> Sweep {
        Sweep { finished, running: None, interrupted: false }
    }

    /// Of a store that is opened, in which a compaction up to `scheduled` was ordered.
    pub(crate) fn resumed(finished: i64, scheduled: i64) -> Sweep {
        Sweep { interrupted: scheduled > finished, ..Sweep::new(finished) }
    }

    /// What is finished, if nothing above it is taken away as yet and `target` is next.
    pub(crate) fn untouched(&self, target: i64) -> Option<i64> {
        (self.running.is_none() && !self.interrupted && target > self.finished).then_some(self.finished)
    }
}

impl Writer {
    /// Makes every revision below `revision` unreadable, at once. The rows go later, in
    /// [`Store::compact_step`], once the returned change has been sealed with the batch that this belongs to:
    /// a member that lost the order to compact must not have lost rows.
    ///
    /// # Errors
    /// When `revision` is not above the last compacted one, or is above the current one.
    pub fn schedule_compaction(&mut self, revision: i64) -> Result<TableOp, CompactError> {
        let mut state = self.shared.state.write();
        if revision <= state.compact {
            return Err(CompactError::Compacted { compact_revision: state.compact });
        }
        if revision > state.current {
            return Err(CompactError::Future { current_revision: state.current });
        }
        state.compact = revision;
        Ok(marker(SCHEDULED, revision))
    }
}

impl Store {
    /// Does a bounded piece of the physical compaction: removes up to `max_rows` rows. Meant for a thread in
    /// the background; index locks are held for microseconds at a time.
    ///
    /// # Errors
    /// When the backend fails.
    pub fn compact_step(&self, max_rows: usize) -> Result<Progress, ReadError> {
        let shared = &*self.shared;
        let mut sweep = shared.sweep.lock();
        let target = shared.state.read().compact;
        if sweep.running.is_none() {
            if target <= sweep.finished {
                return Ok(Progress { state: ProgressState::Done, rows: 0 });
            }
            let sealed = read_marker(|name| shared.backend.table_get(Table::Meta, name), SCHEDULED)?;
            if sealed.is_none_or(|sealed| sealed < target) {
                return Ok(Progress { state: ProgressState::More, rows: 0 });
            }
            sweep.running = Some(Running { target, cursor: Some(Vec::new()), dead: VecDeque::new() });
        }
        let running = sweep.running.as_mut().expect("set above");
        running.look_for_dead(shared, max_rows);
        // Oldest first and in order, so that a tombstone never goes before the versions that it ends: what
        // a crash leaves of them must not come back to life.
        let rows: Vec<RowKey> = running.dead.drain(..max_rows.min(running.dead.len())).collect();
        let count = rows.len();
        if count > 0 {
            shared.backend.delete_rows(rows);
        }
        let mut state = ProgressState::More;
        if running.cursor.is_none() && running.dead.is_empty() {
            let finished = running.target;
            shared.backend.write_ops(vec![marker(FINISHED, finished)]);
            *sweep = Sweep::new(finished);
            if finished == target {
                state = ProgressState::Done;
            }
        }
        Ok(Progress { state, rows: count })
    }
}

impl Running {
    /// Compacts the index until enough dead rows are known or enough keys were looked at.
    fn look_for_dead(&mut self, shared: &Shared, max_rows: usize) {
        let target = self.target;
        let mut found: Vec<Dead> = Vec::new();
        for _ in 0..RUNS_PER_STEP {
            if self.dead.len() >= max_rows {
                return;
            }
            let Some(from) = self.cursor.take() else { return };
            let state = shared.state.upgradable_read();
            let (wanted, next) = state.index.look(&from, |history| history.is_compactable(target));
            self.cursor = next;
            // Handed over fairly: a loop that takes the lock again at once would else keep the apply thread
            // waiting for as long as the loop runs.
            if !wanted {
                RwLockUpgradableReadGuard::unlock_fair(state);
                continue;
            }
            let mut state = RwLockUpgradableReadGuard::upgrade(state);
            state.index.sweep(&from, |history| {
                let (left, dead) = history.compact(target);
                found.push(dead);
                left
            });
            RwLockWriteGuard::unlock_fair(state);
            for dead in found.drain(..) {
                self.dead.extend(dead.revisions().map(Revision::to_row_key));
            }
        }
    }
}

fn marker(name: &'static [u8], revision: i64) -> TableOp {
    let value = Revision::new(revision, 0).to_row_key();
    TableOp::put(Table::Meta, Bytes::from_static(name), Bytes::copy_from_slice(&value))
}

/// The change of the tables that has everything up to `revision` compacted from the next opening of the
/// store on. The revision need not exist: history then goes on behind it.
pub fn compacted_to(revision: i64) -> TableOp {
    marker(SCHEDULED, revision)
}

/// What is compacted, at once or in a while, by the markers in the table `meta`, of which `get` reads one
/// entry; -1 if nothing is.
///
/// # Errors
/// When the store fails, or a marker is none.
pub fn compact_revision(
    get: impl Fn(&[u8]) -> Result<Option<Bytes>, backend::Error>,
) -> Result<i64, ReadError> {
    let scheduled = read_marker(&get, SCHEDULED)?;
    Ok(scheduled.max(read_marker(&get, FINISHED)?).unwrap_or(-1))
}

/// The revision of a marker in the table `meta`, of which `get` reads one entry.
pub(crate) fn read_marker(
    get: impl Fn(&[u8]) -> Result<Option<Bytes>, backend::Error>,
    name: &[u8],
) -> Result<Option<i64>, ReadError> {
    let Some(value) = get(name)? else { return Ok(None) };
    match RowKey::try_from(&value[..]) {
        Ok(key) if Revision::from_row_key(&key).main >= 0 => Ok(Some(Revision::from_row_key(&key).main)),
        _ => Err(ReadError::Storage(backend::Error::Corrupt(format!(
            "the marker {} is not a revision",
            String::from_utf8_lossy(name)
        )))),
    }
}
