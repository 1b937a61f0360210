//! What the other threads hand to the raft thread.
//!
//! Everything that waits is taken at once, so that all proposals of a moment become one append to
//! the log and all reads of a moment share one ReadIndex round (design §3).

use std::time::Instant;

use node::{PersistId, Proposal, ReadId};
use parking_lot::{Condvar, Mutex};
use raft::Index;

use crate::error::Error;

/// The bytes of proposals that may wait to enter the log before new ones are refused.
const MAX_WAITING_BYTES: usize = 128 << 20;

/// The queue in front of the raft thread.
#[derive(Default)]
pub(crate) struct Inbox {
    inner: Mutex<Inner>,
    arrived: Condvar,
}

#[derive(Default)]
struct Inner {
    letters: Letters,
    stopped: bool,
}

/// Everything that has arrived since the raft thread looked last.
#[derive(Default)]
pub(crate) struct Letters {
    /// To be appended to the log, in order of arrival.
    pub(crate) proposals: Vec<Proposal>,
    /// The bytes of their data.
    pub(crate) bytes: usize,
    /// Read rounds asked for by shards.
    pub(crate) reads: Vec<ReadId>,
    /// Everything up to here is durable.
    pub(crate) persisted: Option<PersistId>,
    /// Everything up to here is applied.
    pub(crate) applied: Option<Index>,
    /// Configuration entries that have been applied.
    pub(crate) configurations: Vec<raft::ConfChangeV2>,
    /// The thread is to end.
    pub(crate) stop: bool,
}

impl Letters {
    fn is_empty(&self) -> bool {
        self.proposals.is_empty()
            && self.reads.is_empty()
            && self.persisted.is_none()
            && self.configurations.is_empty()
            && !self.stop
    }
}

impl Inbox {
    fn post<T>(&self, put: impl FnOnce(&mut Letters) -> T) -> T {
        let (was_empty, result) = {
            let mut inner = self.inner.lock();
            let was_empty = inner.letters.is_empty();
            (was_empty, put(&mut inner.letters))
        };
        if was_empty {
            self.arrived.notify_one();
        }
        result
    }

    /// Adds proposals and read rounds; refuses the proposals when too many bytes wait already.
    pub(crate) fn ask(&self, proposals: &mut Vec<Proposal>, reads: Option<ReadId>) -> Result<(), Error> {
        if self.inner.lock().stopped {
            return Err(Error::Stopped);
        }
        self.post(|letters| {
            letters.reads.extend(reads);
            if letters.bytes > MAX_WAITING_BYTES {
                return Err(Error::TooManyRequests);
            }
            letters.bytes += proposals.iter().map(|proposal| proposal.data.len()).sum::<usize>();
            letters.proposals.append(proposals);
            Ok(())
        })
    }

    /// Tells how far the log is durable.
    pub(crate) fn persisted(&self, id: PersistId) {
        self.post(|letters| letters.persisted = Some(id));
    }

    /// Tells how far the log is applied, and which configuration changes were among it. Only the
    /// latter are worth a wake-up: the index lets raft forget entries, which can wait for the next
    /// letter or tick.
    pub(crate) fn applied(&self, index: Index, configurations: Vec<raft::ConfChangeV2>) {
        if configurations.is_empty() {
            self.inner.lock().letters.applied = Some(index);
        } else {
            self.post(|letters| {
                letters.applied = Some(index);
                letters.configurations.extend(configurations);
            });
        }
    }

    /// Ends the raft thread.
    pub(crate) fn stop(&self) {
        self.inner.lock().stopped = true;
        self.post(|letters| letters.stop = true);
    }

    /// Waits for letters until `deadline`, then takes what there is.
    pub(crate) fn take(&self, letters: &mut Letters, deadline: Instant) {
        let mut inner = self.inner.lock();
        while inner.letters.is_empty() {
            if self.arrived.wait_until(&mut inner, deadline).timed_out() {
                return;
            }
        }
        std::mem::swap(&mut inner.letters, letters);
    }
}
