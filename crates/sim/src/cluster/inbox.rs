//! What waits for raft, and how it is handed over: a mirror of `server/inbox.rs` and of the order in
//! `server/raft_driver.rs`.

use node::{Effect, Input, Node, PersistId, Proposal, ReadId};
use raft::{ConfChangeV2, Entry, Index, LogRead, Message, NodeId, Snapshot, Term};

/// What the machine has done, in its order.
#[derive(Debug)]
pub(crate) enum Done {
    Applied(Index),
    Installed(Index),
    Configured(ConfChangeV2),
}

/// News of other members.
#[derive(Debug)]
pub(crate) enum OfPeer {
    LogRead { read: LogRead, after_term: Term, entries: Vec<Entry> },
    Snapshot { to: NodeId, snapshot: Snapshot },
    SnapshotSent { to: NodeId, arrived: bool },
    Unreachable(NodeId),
    Gone(NodeId),
}

/// Everything that has arrived since raft was given the last of it.
#[derive(Debug, Default)]
pub(crate) struct Letters {
    pub(crate) stalled: bool,
    pub(crate) done: Vec<Done>,
    pub(crate) persisted: Option<PersistId>,
    pub(crate) messages: Vec<Message>,
    pub(crate) peers: Vec<OfPeer>,
    pub(crate) ticks: u64,
    pub(crate) transfer: Option<NodeId>,
    pub(crate) proposals: Vec<Proposal>,
    pub(crate) reads: Vec<ReadId>,
}

impl Letters {
    /// Whether nothing waits that is worth a turn: how far the machine is can wait.
    pub(crate) fn is_empty(&self) -> bool {
        self.done.iter().all(|done| matches!(done, Done::Applied(_)))
            && self.persisted.is_none()
            && self.messages.is_empty()
            && self.peers.is_empty()
            && self.ticks == 0
            && self.transfer.is_none()
            && self.proposals.is_empty()
            && self.reads.is_empty()
    }

    /// Acknowledgements first, then what others say, so that what was waiting before a pause is seen
    /// before time is judged to have run out; but what tells of a pause comes before everything (R21).
    /// How far the machine has applied, if that is news.
    pub(crate) fn hand_over(&mut self, node: &mut Node, effects: &mut Vec<Effect>) -> Option<Index> {
        let mut applied = None;
        if std::mem::take(&mut self.stalled) {
            node.handle(Input::Stalled, effects);
        }
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
        for message in self.messages.drain(..) {
            node.handle(Input::Receive(message), effects);
        }
        for news in self.peers.drain(..) {
            node.handle(of_peer(news), effects);
        }
        for _ in 0..std::mem::take(&mut self.ticks) {
            node.handle(Input::Tick, effects);
        }
        if let Some(to) = self.transfer.take() {
            node.handle(Input::TransferLeader(to), effects);
        }
        if !self.proposals.is_empty() {
            node.handle(Input::Propose(std::mem::take(&mut self.proposals)), effects);
        }
        for id in self.reads.drain(..) {
            node.handle(Input::ReadIndex(id), effects);
        }
        applied
    }
}

fn of_peer(news: OfPeer) -> Input {
    match news {
        OfPeer::LogRead { read, after_term, entries } => {
            Input::LogRead { to: read.to, after: read.after, after_term, entries }
        }
        OfPeer::Snapshot { to, snapshot } => Input::Snapshot { to, snapshot },
        OfPeer::SnapshotSent { to, arrived } => Input::SnapshotSent { to, arrived },
        OfPeer::Unreachable(id) => Input::Unreachable(id),
        OfPeer::Gone(id) => Input::LeaderGone(id),
    }
}
