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

#[cfg(test)]
mod tests {
    use super::*;

    fn proposal(id: u64, bytes: usize) -> Proposal {
        Proposal { id, kind: raft::EntryKind::Normal, data: vec![0; bytes].into(), only_in: None }
    }

    #[test]
    fn everything_that_waits_is_taken_at_once() {
        let (inbox, mut letters) = (Inbox::default(), Letters::default());
        assert!(inbox.is_empty());
        inbox.applied(Index(4), Vec::new());
        assert!(inbox.is_empty(), "how far it is applied is not worth a turn");
        assert_eq!(inbox.ask(&mut vec![proposal(1, 10)], Some(ReadId(7))), Ok(()));
        assert_eq!(inbox.ask(&mut vec![proposal(2, 10)], None), Ok(()));
        inbox.persisted(PersistId(3));
        inbox.tick(true);
        inbox.tick(false);
        inbox.take(&mut letters);
        assert!(inbox.is_empty());
        assert_eq!(letters.proposals.iter().map(|one| one.id).collect::<Vec<_>>(), [1, 2]);
        assert_eq!((letters.bytes, letters.reads), (20, vec![ReadId(7)]));
        assert_eq!((letters.persisted, letters.applied), (Some(PersistId(3)), Some(Index(4))));
        assert!(letters.tick && letters.stalled, "a later tick does not hide that time stood still");
    }

    #[test]
    fn too_many_bytes_are_refused_but_reads_are_not() {
        let (inbox, mut letters) = (Inbox::default(), Letters::default());
        assert_eq!(inbox.ask(&mut vec![proposal(1, MAX_WAITING_BYTES + 1)], None), Ok(()));
        let mut refused = vec![proposal(2, 1)];
        assert_eq!(inbox.ask(&mut refused, Some(ReadId(1))), Err(Error::TooManyRequests));
        assert_eq!(refused.len(), 1, "whoever asked can tell who waits for it");
        inbox.take(&mut letters);
        assert_eq!((letters.proposals.len(), letters.reads.len()), (1, 1));
        assert_eq!(inbox.ask(&mut refused, None), Ok(()), "there is room again");
    }

    #[test]
    fn nothing_new_is_taken_after_the_stop() {
        let inbox = Inbox::default();
        inbox.stop();
        assert_eq!(inbox.ask(&mut vec![proposal(1, 1)], Some(ReadId(1))), Err(Error::Stopped));
        assert!(inbox.is_empty());
        inbox.persisted(PersistId(1));
        assert!(!inbox.is_empty(), "what is under way still ends");
    }
}
