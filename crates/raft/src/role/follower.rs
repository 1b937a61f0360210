//! Following: taking what a leader sends, and passing on what only a leader can do.

use super::Role;
use crate::message::{Body, Context, Message, Rejection};
use crate::raft::Raft;
use crate::ready::{DropReason, Proposal, ReadOutcome};
use crate::role::Round;
use crate::types::{Entry, Index, NodeId, ReadId, Snapshot, Term};

#[derive(Debug, Default)]
pub(crate) struct Follower {
    pub(crate) leader: Option<NodeId>,
    /// Questions sent to that leader.
    pub(crate) forwarded: Vec<ForwardedRead>,
}

#[derive(Debug)]
pub(crate) struct ForwardedRead {
    id: ReadId,
    question: u64,
    ticks: u64,
}

impl Raft {
    /// Follows `leader`, or nobody yet, in `term`. Nothing that was asked of an earlier leader can
    /// be answered any more.
    pub(crate) fn become_follower(&mut self, term: Term, leader: Option<NodeId>) {
        assert!(term >= self.term, "term {term} is below the present one, {}", self.term);
        self.drop_reads();
        if term > self.term {
            self.term = term;
            self.vote = None;
        }
        self.deferred = None;
        self.silence = 0;
        self.draw_patience();
        self.role = Role::Follower(Follower { leader, forwarded: Vec::new() });
    }

    /// The leader has been silent for too long, and this member cannot replace it.
    pub(crate) fn forget_leader(&mut self) {
        self.dirty = true;
        self.drop_reads();
        self.role = Role::Follower(Follower::default());
    }

    pub(crate) fn step_follower(&mut self, from: NodeId, body: Body) {
        if body.is_from_leader() {
            self.hear(from);
        }
        match body {
            Body::Append { prev_index, prev_term, entries, commit } => {
                self.step_append(from, (prev_index, prev_term), entries, commit);
            }
            Body::Heartbeat { commit, context } => {
                self.log.commit_to(commit);
                self.send(from, Body::HeartbeatResponse { context });
            }
            Body::Snapshot(snapshot) => self.step_snapshot(from, snapshot),
            // The leader knows that this log is complete, and wants no pre-vote (thesis §3.10).
            Body::TimeoutNow => {
                self.hup(Round::Real { transfer: true }, self.config.election_ticks);
            }
            Body::ReadIndexResponse { index, context } => self.answer_forwarded(&context, index),
            _ => {}
        }
    }

    fn hear(&mut self, leader: NodeId) {
        self.silence = 0;
        if self.hurry > 0 {
            // Somebody leads after all.
            self.hurry = 0;
            self.draw_patience();
        }
        let Role::Follower(follower) = &mut self.role else { return };
        assert!(
            follower.leader.is_none_or(|known| known == leader),
            "two leaders in term {}: {:x?} and {:x}",
            self.term,
            follower.leader.map(|id| id.0),
            leader.0
        );
        follower.leader = Some(leader);
    }

    fn step_append(&mut self, from: NodeId, prev: (Index, Term), entries: Vec<Entry>, commit: Index) {
        if !well_formed(prev, &entries, self.term) {
            return;
        }
        // What is committed is known to match; the message is old.
        if prev.0 < self.log.commit() {
            let index = self.log.commit();
            return self.promise(from, Body::AppendResponse { index, reject: None });
        }
        if let Some(matched) = self.log.append(prev, entries) {
            // Beyond what this message has shown to match nothing is known.
            self.log.commit_to(commit.min(matched));
            self.promise(from, Body::AppendResponse { index: matched, reject: None });
            return;
        }
        let (hint, term) = self.log.last_not_above(prev.0.min(self.log.last()), prev.1);
        let reject = Some(Rejection { hint, hint_term: term.unwrap_or_default() });
        self.promise(from, Body::AppendResponse { index: prev.0, reject });
    }

    fn step_snapshot(&mut self, from: NodeId, snapshot: Snapshot) {
        let (index, term) = (snapshot.meta.index, snapshot.meta.term);
        if self.takes(snapshot) {
            return self.promise(from, Body::AppendResponse { index, reject: None });
        }
        if index > self.log.commit() && self.log.matches(index, term) {
            self.log.commit_to(index);
        }
        let index = self.log.commit();
        self.promise(from, Body::AppendResponse { index, reject: None });
    }

    /// Takes a snapshot if it is news: not if its end is committed or even present here, and not if
    /// it is of a cluster without this member.
    fn takes(&mut self, snapshot: Snapshot) -> bool {
        let meta = &snapshot.meta;
        if meta.index <= self.log.commit()
            || meta.term > self.term
            || self.log.matches(meta.index, meta.term)
            || !meta.conf_state.contains(self.config.id)
        {
            return false;
        }
        let Ok(membership) = meta.conf_state.clone().normalized() else { return false };
        // W11, planted: snapshot-without-conf.
        if !planted::is("snapshot-without-conf") {
            self.membership = membership;
        }
        self.log.restore(snapshot);
        true
    }

    /// Sends proposals to the leader, in messages of bounded size. Whether they arrive is unknown.
    pub(crate) fn forward_proposals(&mut self, leader: NodeId, proposals: Vec<Proposal>) {
        let mut entries = Vec::new();
        let mut bytes = 0;
        for Proposal { kind, data, .. } in proposals {
            let entry = Entry { term: Term(0), index: Index(0), kind, data };
            if bytes + entry.size() > self.config.limits.append_bytes && !entries.is_empty() {
                self.forward(leader, Body::Propose { entries: std::mem::take(&mut entries) });
                bytes = 0;
            }
            bytes += entry.size();
            entries.push(entry);
        }
        if !entries.is_empty() {
            self.forward(leader, Body::Propose { entries });
        }
    }

    /// Messages that are valid in any term carry none.
    fn forward(&mut self, leader: NodeId, body: Body) {
        let message = Message { to: leader, from: self.config.id, term: Term(0), body };
        self.out.messages.push(message);
    }

    /// Proposals of another member. They go on to the leader if this member knows a better one;
    /// else they are lost, as any message may be.
    pub(crate) fn step_proposals(&mut self, from: NodeId, entries: Vec<Entry>) {
        self.dirty = true;
        match &self.role {
            Role::Leader(_) => {
                for Entry { kind, data, .. } in entries {
                    let refused = self.append(kind, data);
                    // The proposer waits for something to be applied; a no-op in its place would
                    // not help it, but it keeps the log's answer to a refused change the same as
                    // etcd's.
                    if let Err(DropReason::ConfChangePending | DropReason::ConfChangeInvalid) = refused {
                        self.append_empty();
                    }
                }
            }
            Role::Follower(Follower { leader: Some(leader), .. }) if *leader != from => {
                let leader = *leader;
                self.forward(leader, Body::Propose { entries });
            }
            _ => {}
        }
    }

    /// Passes a question on to the leader. The leader echoes the context, which names this life of
    /// this member, so that an answer to an earlier life's question is never taken for one to ours.
    pub(crate) fn forward_read(&mut self, id: ReadId) -> bool {
        let Role::Follower(Follower { leader: Some(leader), forwarded }) = &mut self.role else {
            return false;
        };
        if forwarded.len() >= self.config.limits.reads {
            return false;
        }
        self.questions += 1;
        let leader = *leader;
        forwarded.push(ForwardedRead { id, question: self.questions, ticks: 0 });
        let context = [self.life.to_be_bytes(), self.questions.to_be_bytes()].concat();
        self.forward(leader, Body::ReadIndex { context: context.into() });
        true
    }

    fn answer_forwarded(&mut self, context: &Context, index: Index) {
        let Role::Follower(Follower { forwarded, .. }) = &mut self.role else { return };
        let Some((life, question)) = context.split_first_chunk::<8>() else { return };
        if *life != self.life.to_be_bytes() {
            return;
        }
        let asked = forwarded.iter().position(|read| read.question.to_be_bytes() == *question);
        if let Some(asked) = asked {
            let id = forwarded.swap_remove(asked).id;
            self.out.reads.push(ReadOutcome::Ready { id, index });
        }
    }

    /// Messages get lost: after an election timeout a question is given up.
    pub(crate) fn age_forwarded_reads(&mut self) {
        let limit = self.config.election_ticks;
        let Role::Follower(Follower { forwarded, .. }) = &mut self.role else { return };
        if forwarded.is_empty() {
            return;
        }
        self.dirty = true;
        let reads = &mut self.out.reads;
        forwarded.retain_mut(|read| {
            read.ticks += 1;
            if read.ticks >= limit {
                reads.push(ReadOutcome::Dropped { id: read.id });
            }
            read.ticks < limit
        });
    }

    /// Gives up every question that is still open, whoever should have answered it.
    pub(crate) fn drop_reads(&mut self) {
        let reads = &mut self.out.reads;
        match std::mem::replace(&mut self.role, Role::Follower(Follower::default())) {
            Role::Leader(leader) => {
                self.rounds = leader.reads.newest();
                let own = leader.reads.into_askers().filter_map(|asker| match asker {
                    crate::read::Asker::Own(id) => Some(ReadOutcome::Dropped { id }),
                    crate::read::Asker::Other(..) => None,
                });
                reads.extend(own);
            }
            Role::Follower(Follower { forwarded, .. }) => {
                reads.extend(forwarded.into_iter().map(|read| ReadOutcome::Dropped { id: read.id }));
            }
            Role::Candidate(_) => {}
        }
    }
}

/// Whether the entries follow each other, and terms do not fall nor exceed the leader's.
fn well_formed(prev: (Index, Term), entries: &[Entry], term: Term) -> bool {
    let mut before = prev;
    let ordered = entries.iter().all(|entry| {
        let follows = entry.index == before.0.next() && entry.term >= before.1;
        before = (entry.index, entry.term);
        follows
    });
    ordered && before.1 <= term
}
