//! What waits for a node.
//!
//! Everything that waits is taken at once, so that all proposals of a moment become one append to
//! the log, and all reads of a moment share one ReadIndex round.

use raft::{Body, ConfChangeV2, Entry, Index, Message, NodeId, PersistId, Proposal, ReadId};

use crate::effect::{Effect, Input};
use crate::node::Node;

/// The bytes of proposals that may wait to enter the log before new ones are refused.
const MAX_WAITING_BYTES: usize = 128 << 20;

/// The bytes of messages that may wait before further ones are dropped: raft asks again, and by then
/// this member may be faster. More than all that a leader has under way to one follower.
const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// What the machine has done, in its order.
#[derive(Debug, PartialEq)]
enum Done {
    /// Everything up to here is applied.
    Applied(Index),
    /// The state is a snapshot's, which ends here.
    Installed(Index),
    /// A configuration entry has been applied.
    Configured(ConfChangeV2),
}

/// Everything that has arrived since the node was given the last of it.
#[derive(Debug, Default)]
pub struct Letters {
    /// To be appended to the log, in order of arrival.
    proposals: Vec<Proposal>,
    /// The bytes of their data.
    bytes: usize,
    reads: Vec<ReadId>,
    /// Everything up to here is durable.
    persisted: Option<PersistId>,
    done: Vec<Done>,
    /// Whether something among it is worth a turn.
    news: bool,
    /// Of other members, in order of arrival.
    messages: Vec<Message>,
    /// About how many bytes they hold.
    message_bytes: usize,
    /// What happened on the roads to other members.
    peers: Vec<Input>,
    transfer: Option<NodeId>,
    /// More than one only where a start is to be quickened.
    ticks: u64,
    /// The clock stood still for an election timeout or longer.
    stalled: bool,
}

impl Letters {
    /// Whether nothing waits that is worth a turn: how far the log is applied is not, since it only lets
    /// raft forget entries.
    pub fn is_empty(&self) -> bool {
        self.proposals.is_empty()
            && self.reads.is_empty()
            && self.persisted.is_none()
            && !self.news
            && self.messages.is_empty()
            && self.peers.is_empty()
            && self.transfer.is_none()
            && self.ticks == 0
    }

    /// Adds proposals, and empties the list; or leaves them there and says `false`, if too many bytes
    /// wait already.
    #[must_use]
    pub fn propose(&mut self, proposals: &mut Vec<Proposal>) -> bool {
        if self.bytes > MAX_WAITING_BYTES {
            return false;
        }
        self.bytes += proposals.iter().map(|proposal| proposal.data.len()).sum::<usize>();
        self.proposals.append(proposals);
        true
    }

    /// Asks for a round of reads.
    pub fn read(&mut self, id: ReadId) {
        self.reads.push(id);
    }

    /// Tells how far the log is durable.
    pub fn persisted(&mut self, id: PersistId) {
        self.persisted = Some(id);
    }

    /// Tells how far the log is applied, and which configuration changes were among it; empties their
    /// list.
    pub fn applied(&mut self, index: Index, configurations: &mut Vec<ConfChangeV2>) {
        self.news |= !configurations.is_empty();
        self.done.extend(configurations.drain(..).map(Done::Configured));
        match self.done.last_mut() {
            Some(Done::Applied(last)) => *last = index,
            _ => self.done.push(Done::Applied(index)),
        }
    }

    /// Tells that a snapshot has taken the place of what was applied.
    pub fn installed(&mut self, index: Index) {
        self.news = true;
        self.done.push(Done::Installed(index));
    }

    /// Takes in messages of other members, as many as there is room for, and empties the list; how many
    /// had to be dropped.
    pub fn receive(&mut self, messages: impl IntoIterator<Item = Message>) -> usize {
        let mut dropped = 0;
        for message in messages {
            if self.message_bytes > MAX_MESSAGE_BYTES {
                dropped += 1;
                continue;
            }
            self.message_bytes += size(&message);
            self.messages.push(message);
        }
        dropped
    }

    /// Tells what happened on the road to another member: [`Input::LogRead`], [`Input::Snapshot`],
    /// [`Input::SnapshotSent`], [`Input::Unreachable`] or [`Input::LeaderGone`]. There are a few of these
    /// for each member.
    pub fn of_peer(&mut self, news: Input) {
        // Said again and again while it lasts; once is enough.
        let said = |known: &Input| match (known, &news) {
            (Input::Unreachable(known), Input::Unreachable(id)) => known == id,
            (Input::LeaderGone(known), Input::LeaderGone(id)) => known == id,
            _ => false,
        };
        if !self.peers.iter().any(said) {
            self.peers.push(news);
        }
    }

    /// Asks for leadership to be handed over.
    pub fn transfer(&mut self, to: NodeId) {
        self.transfer = Some(to);
    }

    /// Tells that a tick of the clock has passed, and whether the clock had stood still. Who is late
    /// gets one tick for all that were missed.
    pub fn tick(&mut self, stalled: bool) {
        self.ticks = self.ticks.max(1);
        self.stalled |= stalled;
    }

    /// Lets time pass that has not: whoever is sure to hear of a leader soon, if there is one, need
    /// not be as patient as others.
    pub fn hasten(&mut self, ticks: u64) {
        self.ticks = ticks;
    }

    /// Gives the node everything, in the order that it must be seen in, but for proposals of other members:
    /// `propose` does that. How far the machine has applied, if that is news.
    ///
    /// Acknowledgements first, then what others say, so that what was waiting before a pause is seen
    /// before time is judged to have run out; but what tells of a pause comes before everything (R21).
    pub(crate) fn hand_over(
        &mut self,
        node: &mut Node,
        mut propose: impl FnMut(Message, &mut Node, &mut Vec<Effect>),
        effects: &mut Vec<Effect>,
    ) -> Option<Index> {
        let mut applied = None;
        if std::mem::take(&mut self.stalled) {
            node.handle(Input::Stalled, effects);
        }
        self.news = false;
        for done in self.done.drain(..) {
            let input = match done {
                Done::Configured(change) => Input::ApplyConfChange(change),
                Done::Applied(index) | Done::Installed(index) => {
                    applied = Some(index);
                    Input::Applied(index)
                }
            };
            node.handle(input, effects);
        }
        if let Some(id) = self.persisted.take() {
            node.handle(Input::Persisted(id), effects);
        }
        self.message_bytes = 0;
        for message in self.messages.drain(..) {
            if matches!(message.body, Body::Propose { .. }) {
                propose(message, node, effects);
            } else {
                node.handle(Input::Receive(message), effects);
            }
        }
        for news in self.peers.drain(..) {
            node.handle(news, effects);
        }
        for _ in 0..std::mem::take(&mut self.ticks) {
            node.handle(Input::Tick, effects);
        }
        if let Some(to) = self.transfer.take() {
            node.handle(Input::TransferLeader(to), effects);
        }
        self.bytes = 0;
        if !self.proposals.is_empty() {
            node.handle(Input::Propose(std::mem::take(&mut self.proposals)), effects);
        }
        for id in self.reads.drain(..) {
            node.handle(Input::ReadIndex(id), effects);
        }
        applied
    }
}

/// About how many bytes a message takes in memory.
pub(crate) fn size(message: &Message) -> usize {
    let payload = match &message.body {
        Body::Append { entries, .. } | Body::Propose { entries } => entries.iter().map(Entry::size).sum(),
        Body::Snapshot(snapshot) => snapshot.data.len(),
        _ => 0,
    };
    payload + size_of::<Message>()
}

#[cfg(test)]
mod tests {
    use raft::Term;

    use super::*;

    fn proposal(id: u64, bytes: usize) -> Proposal {
        Proposal { id, kind: raft::EntryKind::Normal, data: vec![0; bytes].into(), only_in: None }
    }

    #[test]
    fn how_far_the_log_is_applied_is_not_worth_a_turn_and_all_else_is() {
        let mut letters = Letters::default();
        assert!(letters.is_empty());
        letters.applied(Index(3), &mut Vec::new());
        letters.applied(Index(4), &mut Vec::new());
        assert!(letters.is_empty());
        assert_eq!(letters.done, [Done::Applied(Index(4))]);
        let posts: [fn(&mut Letters); 9] = [
            |letters| letters.applied(Index(1), &mut vec![ConfChangeV2::default()]),
            |letters| letters.installed(Index(1)),
            |letters| letters.persisted(PersistId(1)),
            |letters| assert!(letters.propose(&mut vec![proposal(1, 1)])),
            |letters| letters.read(ReadId(1)),
            |letters| letters.of_peer(Input::LeaderGone(NodeId(2))),
            |letters| letters.transfer(NodeId(2)),
            |letters| letters.tick(false),
            |letters| letters.hasten(3),
        ];
        for post in posts {
            let mut letters = Letters::default();
            post(&mut letters);
            assert!(!letters.is_empty(), "{letters:?}");
        }
    }

    #[test]
    fn ticks_that_were_missed_count_as_one() {
        let mut letters = Letters::default();
        letters.tick(true);
        letters.tick(false);
        assert_eq!(letters.ticks, 1);
        assert!(letters.stalled, "a later tick does not hide that time stood still");
    }

    #[test]
    fn too_many_bytes_are_refused_and_left_to_whoever_asked() {
        let mut letters = Letters::default();
        assert!(letters.propose(&mut vec![proposal(1, MAX_WAITING_BYTES + 1)]));
        let mut refused = vec![proposal(2, 1)];
        assert!(!letters.propose(&mut refused));
        assert_eq!((refused.len(), letters.proposals.len()), (1, 1));
    }

    #[test]
    fn what_comes_before_and_after_an_install_stays_there() {
        let mut letters = Letters::default();
        let change = || ConfChangeV2::default();
        letters.applied(Index(4), &mut vec![change()]);
        letters.installed(Index(9));
        letters.applied(Index(10), &mut Vec::new());
        letters.applied(Index(11), &mut vec![change()]);
        letters.applied(Index(12), &mut Vec::new());
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
            let kind = raft::EntryKind::Normal;
            let entry = Entry { term: Term(1), index: Index(1), kind, data: vec![0; bytes].into() };
            let (prev_index, prev_term, commit) = (Index(0), Term(0), Index(0));
            let body = Body::Append { prev_index, prev_term, entries: vec![entry], commit };
            Message { to: NodeId(1), from: NodeId(2), term: Term(1), body }
        };
        let mut letters = Letters::default();
        assert_eq!(letters.receive([append(MAX_MESSAGE_BYTES), append(1), append(1)]), 2);
        letters.of_peer(Input::Unreachable(NodeId(2)));
        letters.of_peer(Input::Unreachable(NodeId(2)));
        letters.of_peer(Input::Unreachable(NodeId(3)));
        letters.persisted(PersistId(1));
        assert_eq!((letters.messages.len(), letters.peers.len()), (1, 2));
        assert_eq!(letters.persisted, Some(PersistId(1)));
    }
}
