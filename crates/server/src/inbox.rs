//! What waits for raft.
//!
//! Everything that waits is taken at once, so that all proposals of a moment become one append to
//! the log and all reads of a moment share one ReadIndex round (design §3).

use node::{PersistId, Proposal, ReadId};
use parking_lot::Mutex;
use raft::{ConfChangeV2, Entry, Index, LogRead, Message, NodeId, Snapshot, Term};

use crate::error::Error;

/// The bytes of proposals that may wait to enter the log before new ones are refused.
const MAX_WAITING_BYTES: usize = 128 << 20;

/// The bytes of messages that may wait before further ones are dropped: raft asks again, and by then
/// this member may be faster. More than all that a leader has under way to one follower.
const MAX_MESSAGE_BYTES: usize = 64 << 20;

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

/// What the machine has done, in its order.
#[derive(Debug, PartialEq)]
pub(crate) enum Done {
    /// Everything up to here is applied.
    Applied(Index),
    /// The state is a snapshot's, which ends here.
    Installed(Index),
    /// A configuration entry has been applied.
    Configured(ConfChangeV2),
}

/// What makes it easier to bring another member up to date, or to speak with it.
#[derive(Debug)]
pub(crate) enum OfPeer {
    /// Entries that were read from the log on disk.
    LogRead { read: LogRead, after_term: Term, entries: Vec<Entry> },
    /// A snapshot has been made.
    Snapshot { to: NodeId, snapshot: Snapshot },
    /// A snapshot has been sent, or could not be.
    SnapshotSent { to: NodeId, arrived: bool },
    /// Messages to it seem to be lost.
    Unreachable(NodeId),
    /// Its process has ended.
    Gone(NodeId),
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
    /// What has been applied.
    pub(crate) done: Vec<Done>,
    /// Whether something among it is worth a turn; over with [`Letters::settle`].
    news: bool,
    /// Messages of other members, in order of arrival.
    pub(crate) messages: Vec<Message>,
    /// About how many bytes they hold.
    pub(crate) message_bytes: usize,
    /// What happened on the roads to other members.
    pub(crate) peers: Vec<OfPeer>,
    /// To whom leadership is to be handed over.
    pub(crate) transfer: Option<NodeId>,
    /// Ticks of the clock that have passed; more than one only where a start is to be quickened.
    pub(crate) ticks: u64,
    /// The clock stood still for an election timeout or longer.
    pub(crate) stalled: bool,
}

impl Letters {
    fn is_empty(&self) -> bool {
        self.proposals.is_empty()
            && self.reads.is_empty()
            && self.persisted.is_none()
            && !self.news
            && self.messages.is_empty()
            && self.peers.is_empty()
            && self.transfer.is_none()
            && self.ticks == 0
    }

    /// Everything has been handed over.
    pub(crate) fn settle(&mut self) {
        self.news = false;
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
    pub(crate) fn applied(&self, index: Index, configurations: &mut Vec<ConfChangeV2>) {
        let inner = &mut *self.inner.lock();
        inner.applied = index;
        let letters = &mut inner.letters;
        letters.news |= !configurations.is_empty();
        letters.done.extend(configurations.drain(..).map(Done::Configured));
        match letters.done.last_mut() {
            Some(Done::Applied(last)) => *last = index,
            _ => letters.done.push(Done::Applied(index)),
        }
    }

    /// Tells that a snapshot has taken the place of what was applied.
    pub(crate) fn installed(&self, index: Index) {
        let inner = &mut *self.inner.lock();
        inner.applied = index;
        inner.letters.news = true;
        inner.letters.done.push(Done::Installed(index));
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
        let letters = &mut inner.letters;
        let mut dropped = 0;
        for message in messages.drain(..) {
            if letters.message_bytes > MAX_MESSAGE_BYTES {
                dropped += 1;
                continue;
            }
            letters.message_bytes += message_size(&message);
            letters.messages.push(message);
        }
        dropped
    }

    /// Tells what happened on the road to another member. There are a few of these for each member.
    pub(crate) fn of_peer(&self, news: OfPeer) {
        let mut inner = self.inner.lock();
        if inner.stopped {
            return;
        }
        let peers = &mut inner.letters.peers;
        // Said again and again while it lasts; once is enough.
        let said = |known: &OfPeer| match (known, &news) {
            (OfPeer::Unreachable(known), OfPeer::Unreachable(id)) => known == id,
            (OfPeer::Gone(known), OfPeer::Gone(id)) => known == id,
            _ => false,
        };
        if !peers.iter().any(said) {
            peers.push(news);
        }
    }

    /// Asks for leadership to be handed over.
    pub(crate) fn transfer(&self, to: NodeId) {
        self.inner.lock().letters.transfer = Some(to);
    }

    /// Tells that a tick of the clock has passed, and whether the clock had stood still. A driver
    /// that is late gets one tick for all that it missed.
    pub(crate) fn tick(&self, stalled: bool) {
        let letters = &mut self.inner.lock().letters;
        letters.ticks = letters.ticks.max(1);
        letters.stalled |= stalled;
    }

    /// Lets time pass that has not: whoever is sure to hear of a leader soon, if there is one, need
    /// not be as patient as others.
    pub(crate) fn hasten(&self, ticks: u64) {
        self.inner.lock().letters.ticks = ticks;
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

/// About how many bytes a message takes in memory.
pub(crate) fn message_size(message: &Message) -> usize {
    let payload = match &message.body {
        raft::Body::Append { entries, .. } | raft::Body::Propose { entries } => {
            entries.iter().map(Entry::size).sum()
        }
        raft::Body::Snapshot(snapshot) => snapshot.data.len(),
        _ => 0,
    };
    payload + size_of::<Message>()
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
        inbox.applied(Index(3), &mut Vec::new());
        inbox.applied(Index(4), &mut Vec::new());
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
        assert_eq!((letters.persisted, letters.done), (Some(PersistId(3)), vec![Done::Applied(Index(4))]));
        assert_eq!(letters.ticks, 1, "ticks that were missed count as one");
        assert!(letters.stalled, "a later tick does not hide that time stood still");
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

    #[test]
    fn what_comes_before_and_after_an_install_stays_there() {
        let (inbox, mut letters) = (Inbox::default(), Letters::default());
        let change = || ConfChangeV2::default();
        inbox.applied(Index(4), &mut vec![change()]);
        inbox.installed(Index(9));
        inbox.applied(Index(10), &mut Vec::new());
        inbox.applied(Index(11), &mut vec![change()]);
        inbox.applied(Index(12), &mut Vec::new());
        inbox.take(&mut letters);
        let done = [
            Done::Configured(change()),
            Done::Applied(Index(4)),
            Done::Installed(Index(9)),
            Done::Applied(Index(10)),
            Done::Configured(change()),
            Done::Applied(Index(12)),
        ];
        assert_eq!(letters.done, done);
    }

    #[test]
    fn messages_beyond_the_bound_are_dropped_and_nothing_else_is() {
        let append = |bytes: usize| {
            let entry = Entry {
                term: Term(1),
                index: Index(1),
                kind: raft::EntryKind::Normal,
                data: vec![0; bytes].into(),
            };
            let body = raft::Body::Append {
                prev_index: Index(0),
                prev_term: Term(0),
                entries: vec![entry],
                commit: Index(0),
            };
            Message { to: NodeId(1), from: NodeId(2), term: Term(1), body }
        };
        let (inbox, mut letters) = (Inbox::default(), Letters::default());
        assert_eq!(inbox.receive(&mut vec![append(MAX_MESSAGE_BYTES), append(1), append(1)]), 2);
        inbox.of_peer(OfPeer::Unreachable(NodeId(2)));
        inbox.of_peer(OfPeer::Unreachable(NodeId(2)));
        inbox.of_peer(OfPeer::Unreachable(NodeId(3)));
        inbox.persisted(PersistId(1));
        inbox.take(&mut letters);
        assert_eq!((letters.messages.len(), letters.peers.len()), (1, 2));
        assert_eq!(letters.persisted, Some(PersistId(1)));
        assert_eq!(inbox.receive(&mut vec![append(1)]), 0, "there is room again");
    }
}
