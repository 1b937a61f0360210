//! What waits for raft: [`Letters`], posted by any thread and taken all at once.

use node::{Index, Input, Letters, Message, NodeId, PersistId, Proposal, ReadId};
use parking_lot::Mutex;
use raft::ConfChangeV2;

use crate::error::Error;

/// The letters in front of the driver.
#[derive(Default)]
pub(crate) struct Inbox {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    letters: Letters,
    stopped: bool,
    applied: Index,
}

impl Inbox {
    /// Adds proposals and a read round; refuses the proposals when too many bytes wait already.
    pub(crate) fn ask(&self, proposals: &mut Vec<Proposal>, read: Option<ReadId>) -> Result<(), Error> {
        let mut inner = self.inner.lock();
        if inner.stopped {
            return Err(Error::Stopped);
        }
        if let Some(id) = read {
            inner.letters.read(id);
        }
        inner.letters.propose(proposals).then_some(()).ok_or(Error::TooManyRequests)
    }

    /// Tells how far the log is durable.
    pub(crate) fn persisted(&self, id: PersistId) {
        self.inner.lock().letters.persisted(id);
    }

    /// Tells how far the log is applied, and which configuration changes were among it.
    pub(crate) fn applied(&self, index: Index, configurations: &mut Vec<ConfChangeV2>) {
        let inner = &mut *self.inner.lock();
        inner.applied = index;
        inner.letters.applied(index, configurations);
    }

    /// Tells that a snapshot has taken the place of what was applied.
    pub(crate) fn installed(&self, index: Index) {
        let inner = &mut *self.inner.lock();
        inner.applied = index;
        inner.letters.installed(index);
    }

    /// How far raft has been told, or will be before whatever is posted from now on, that the log is
    /// applied.
    pub(crate) fn applied_index(&self) -> Index {
        self.inner.lock().applied
    }

    /// Takes in messages of other members, as many as there is room for; how many had to be dropped.
    pub(crate) fn receive(&self, messages: &mut Vec<Message>) -> usize {
        let mut inner = self.inner.lock();
        if inner.stopped {
            messages.clear();
            return 0;
        }
        inner.letters.receive(messages.drain(..))
    }

    /// Tells what happened on the road to another member.
    pub(crate) fn of_peer(&self, news: Input) {
        let mut inner = self.inner.lock();
        if !inner.stopped {
            inner.letters.of_peer(news);
        }
    }

    /// Asks for leadership to be handed over.
    pub(crate) fn transfer(&self, to: NodeId) {
        self.inner.lock().letters.transfer(to);
    }

    /// Tells that a tick of the clock has passed, and whether the clock had stood still.
    pub(crate) fn tick(&self, stalled: bool) {
        self.inner.lock().letters.tick(stalled);
    }

    /// Lets time pass that has not.
    pub(crate) fn hasten(&self, ticks: u64) {
        self.inner.lock().letters.hasten(ticks);
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
    fn too_many_bytes_are_refused_until_what_waits_is_taken() {
        let (inbox, mut letters) = (Inbox::default(), Letters::default());
        assert_eq!(inbox.ask(&mut vec![proposal(1, (128 << 20) + 1)], None), Ok(()));
        let mut refused = vec![proposal(2, 1)];
        assert_eq!(inbox.ask(&mut refused, None), Err(Error::TooManyRequests));
        assert_eq!(refused.len(), 1, "whoever asked can tell who waits for it");
        inbox.take(&mut letters);
        assert!(inbox.is_empty() && !letters.is_empty());
        assert_eq!(inbox.ask(&mut refused, Some(ReadId(1))), Ok(()), "there is room again");
        assert!(refused.is_empty() && !inbox.is_empty());
    }

    #[test]
    fn nothing_new_is_taken_after_the_stop() {
        let inbox = Inbox::default();
        inbox.stop();
        assert_eq!(inbox.ask(&mut vec![proposal(1, 1)], Some(ReadId(1))), Err(Error::Stopped));
        inbox.of_peer(Input::LeaderGone(NodeId(2)));
        assert!(inbox.is_empty());
        inbox.persisted(PersistId(1));
        assert!(!inbox.is_empty(), "what is under way still ends");
    }
}
