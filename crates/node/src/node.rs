//! The driver: one raft, and what it promised until the disk has caught up.

use crate::effect::{Effect, Input};
use raft::{
    ConfState, Config, Error, HardState, Message, NodeId, PersistId, Raft, ReadOutcome, Ready, Restored,
    SoftState, Status,
};
use std::collections::VecDeque;

/// One member, driven by [`Node::handle`].
#[derive(Debug)]
pub struct Node {
    id: NodeId,
    raft: Raft,
    /// Writes under way, oldest first.
    writes: VecDeque<Write>,
    /// Ticks since the start.
    now: u64,
    election_ticks: u64,
}

#[derive(Debug)]
struct Write {
    id: PersistId,
    /// The tick it was issued at.
    since: u64,
    must_sync: bool,
    /// Messages that leave when it is durable.
    promises: Vec<Message>,
}

impl Node {
    /// A member as it was when it stopped.
    ///
    /// # Errors
    /// If `config` or what was restored contradicts itself; then nothing may be served from it.
    pub fn new(config: Config, restored: Restored) -> Result<Node, Error> {
        let (id, election_ticks) = (config.id, config.election_ticks);
        let raft = Raft::new(config, restored)?;
        Ok(Node { id, raft, writes: VecDeque::new(), now: 0, election_ticks })
    }

    /// Takes in what happened; appends what is to be done to `effects`.
    pub fn handle(&mut self, input: Input, effects: &mut Vec<Effect>) {
        match input {
            Input::Tick => self.tick(),
            Input::Stalled => self.raft.stalled(),
            Input::Receive(message) => self.raft.step(message),
            Input::Propose(proposals) => self.raft.propose(proposals),
            Input::ReadIndex(id) => self.raft.read_index(id),
            Input::Persisted(id) => self.persisted(id, effects),
            Input::Applied(index) => self.raft.applied(index),
            Input::ApplyConfChange(change) => {
                // One that does not fit changes nothing, on every member alike.
                if let Ok(conf_state) = self.raft.apply_conf_change(&change) {
                    effects.push(Effect::Configured(conf_state));
                }
            }
            Input::Campaign => self.raft.campaign(),
            Input::TransferLeader(to) => self.raft.transfer_leader(to),
            Input::LeaderGone(id) => self.raft.leader_gone(id),
            Input::LogRead { to, after, after_term, entries } => {
                self.raft.provide_log(to, after, after_term, entries);
            }
            Input::Unreachable(id) => self.raft.report_unreachable(id),
            Input::Snapshot { to, snapshot } => self.raft.provide_snapshot(to, snapshot),
            Input::SnapshotSent { to, arrived } => self.raft.report_snapshot(to, arrived),
        }
        while let Some(ready) = self.raft.ready() {
            self.unfold(ready, effects);
        }
    }

    fn tick(&mut self) {
        self.now += 1;
        self.raft.tick();
        // A leader that cannot write holds everybody up, unless everybody is as slow.
        let stuck = |write: &Write| write.must_sync && self.now - write.since >= self.election_ticks;
        if self.writes.iter().find(|write| write.must_sync).is_some_and(stuck) {
            self.raft.hand_over();
        }
    }

    /// Promises that rested on what is durable now may leave, before anything that follows from it.
    fn persisted(&mut self, id: PersistId, effects: &mut Vec<Effect>) {
        let mut messages = Vec::new();
        while self.writes.front().is_some_and(|write| write.id <= id) {
            let Some(write) = self.writes.pop_front() else { break };
            messages.extend(write.promises);
        }
        send(messages, effects);
        self.raft.persisted(id);
    }

    fn unfold(&mut self, mut ready: Ready, effects: &mut Vec<Effect>) {
        if let Some(persist) = ready.persist {
            let (id, must_sync) = (persist.id, persist.must_sync);
            effects.push(Effect::Persist(persist));
            self.writes.push_back(Write { id, since: self.now, must_sync, promises: Vec::new() });
        }
        send(ready.messages, effects);
        // R8, W1, planted: ack-before-durable.
        if planted::is("ack-before-durable") {
            send(std::mem::take(&mut ready.promises), effects);
        }
        // A write that needs no sync bears no promise, and may stay unacknowledged for long.
        match self.writes.iter_mut().rfind(|write| write.must_sync) {
            Some(write) => write.promises.extend(ready.promises),
            None => send(ready.promises, effects),
        }
        if let Some(snapshot) = ready.install {
            let conf_state = snapshot.meta.conf_state.clone();
            effects.push(Effect::Install(snapshot));
            effects.push(Effect::Configured(conf_state));
        }
        if !ready.committed.is_empty() {
            let mut committed = ready.committed;
            // Planted: apply-out-of-order.
            if planted::is("apply-out-of-order") && committed.len() > 2 {
                committed.rotate_left(1);
            }
            effects.push(Effect::Apply(committed));
        }
        effects.extend(ready.reads.into_iter().map(|outcome| match outcome {
            ReadOutcome::Ready { id, index } => Effect::ReadReady { id, index },
            ReadOutcome::Dropped { id } => Effect::ReadDropped { id },
        }));
        effects.extend(ready.dropped.into_iter().map(|(id, reason)| Effect::Dropped { id, reason }));
        effects.extend(ready.log_reads.into_iter().map(Effect::ReadLog));
        effects.extend(ready.snapshots_wanted.into_iter().map(|to| Effect::MakeSnapshot { to }));
        if let Some(SoftState { leader, role, term }) = ready.soft_state {
            effects.push(Effect::SoftState { leader, role, term });
        }
    }

    /// Which member this is.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// A picture of this member. Not free: it lists the peers.
    pub fn status(&self) -> Status {
        self.raft.status()
    }

    /// Who leads, if known.
    pub fn leader(&self) -> Option<NodeId> {
        self.raft.leader()
    }

    /// Whether a proposal made now would enter a log, here or, as far as this member knows, at the
    /// leader.
    pub fn takes_proposals(&self) -> bool {
        self.raft.takes_proposals()
    }

    /// Whether a change of the configuration would enter the log with them: not where this leader has one
    /// that is yet to be applied.
    pub fn takes_conf_changes(&self) -> bool {
        self.raft.takes_conf_changes()
    }

    /// Term, vote and commit index, durable or not.
    pub fn hard_state(&self) -> HardState {
        self.raft.hard_state()
    }

    /// The configuration in force here.
    pub fn conf_state(&self) -> &ConfState {
        self.raft.conf_state()
    }
}

fn send(messages: Vec<Message>, effects: &mut Vec<Effect>) {
    if !messages.is_empty() {
        effects.push(Effect::Send(messages));
    }
}
