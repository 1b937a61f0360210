//! What waits for raft.
//!
//! Everything that waits is taken at once, so that all proposals of a moment become one append to
//! the log and all reads of a moment share one ReadIndex round (design §3).

use node::{PersistId, Proposal, ReadId};
use parking_lot::Mutex;
use raft::Index;

use crate::error::Error;

/// The bytes of proposals that may wait to enter the log before new ones are refused.
const MAX_WAITING_BYTES: usize = 128 << 20;

/// The letters in front of the driver.
#[derive(Default)]
pub(crate) struct Inbox {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    letters: Letters,
    stopped: bool,
}

/// Everything that has arrived since the driver looked last.
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
    /// A tick of the clock has passed.
    pub(crate) tick: bool,
    /// The clock stood still for an election timeout or longer.
    pub(crate) stalled: bool,
}

impl Letters {
    fn is_empty(&self) -> bool {
        self.proposals.is_empty()
            && self.reads.is_empty()
            && self.persisted.is_none()
            && self.configurations.is_empty()
            && !self.tick
    }
}

impl Inbox {
    /// Adds proposals and a read round; refuses the proposals when too many bytes wait already.
    pub(crate) fn ask(&self, proposals: &mut Vec<Proposal>, read: Option<ReadId>) -> Result<(), Error> {
        let mut inner = self.inner.lock();
        if inner.stopped {
            return Err(Error::Stopped);
        }
        let letters = &mut inner.letters;
        letters.reads.extend(read);
        if letters.bytes > MAX_WAITING_BYTES {
            return Err(Error::TooManyRequests);
        }
        letters.bytes += proposals.iter().map(|proposal| proposal.data.len()).sum::<usize>();
        letters.proposals.append(proposals);
        Ok(())
    }

    /// Tells how far the log is durable.
    pub(crate) fn persisted(&self, id: PersistId) {
        self.inner.lock().letters.persisted = Some(id);
    }

    /// Tells how far the log is applied, and which configuration changes were among it. Only the
    /// latter are worth a turn of the driver: the index lets raft forget entries, which can wait.
    pub(crate) fn applied(&self, index: Index, configurations: Vec<raft::ConfChangeV2>) {
        let letters = &mut self.inner.lock().letters;
        letters.applied = Some(index);
        letters.configurations.extend(configurations);
    }

    /// Tells that a tick of the clock has passed, and whether the clock had stood still.
    pub(crate) fn tick(&self, stalled: bool) {
        let letters = &mut self.inner.lock().letters;
        letters.tick = true;
        letters.stalled |= stalled;
    }

    /// From now on nothing new is taken.
    pub(crate) fn stop(&self) {
        self.inner.lock().stopped = true;
    }

    /// Whether nothing waits that is worth a turn.
    pub(crate) fn is_empty(&self) -> bool {
        self.inner.lock().letters.is_empty()
    }

    /// Takes what there is.
    pub(crate) fn take(&self, letters: &mut Letters) {
        std::mem::swap(&mut self.inner.lock().letters, letters);
    }
}
