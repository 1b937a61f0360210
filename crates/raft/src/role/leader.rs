//! Leading: appending, counting, answering reads, changing the configuration, handing over.

use super::Role;
use crate::membership::{ConfChangeV2, MembershipError};
use crate::message::{Body, Context};
use crate::progress::Progress;
use crate::quorum::{Verdict, reached_jointly, verdict_jointly};
use crate::raft::Raft;
use crate::read::{Asker, ReadQueue};
use crate::ready::{DropReason, ReadOutcome};
use crate::types::{ConfState, Entry, EntryKind, Index, NodeId};
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Debug)]
pub(crate) struct Leader {
    /// Everyone else who receives the log. What this member itself has is known to its log: it
    /// counts what is durable, not what is appended.
    pub(crate) progress: BTreeMap<NodeId, Progress>,
    pub(crate) reads: ReadQueue,
    pub(crate) since_heartbeat: u64,
    since_check: u64,
    pub(crate) transfer: Option<Transfer>,
    /// Until this is applied no configuration change may be appended. Nobody knows whether one is
    /// among the entries a leader found, so at first it is the leader's own first entry: that being
    /// applied also means that something of this term is committed.
    pub(crate) pending_conf: Index,
    /// Payload bytes after the commit index.
    uncommitted: usize,
    /// Set when this member is no voter any more.
    retiring: Option<Retiring>,
}

/// The end of a reign that the leader itself has committed. It stays until a quorum of its
/// successors knows that it is committed: before that they might need a vote of someone who is not
/// to vote any more.
#[derive(Debug)]
struct Retiring {
    /// The change is at this index or before.
    index: Index,
    ticks: u64,
    /// The heartbeats that told them.
    round: Option<u64>,
}

#[derive(Debug)]
pub(crate) struct Transfer {
    pub(crate) to: NodeId,
    ticks: u64,
    /// Whether it was told to campaign, since the last heartbeat.
    pub(crate) told: bool,
}

impl Leader {
    pub(crate) fn ask(&mut self, asker: Asker) -> Result<(), Asker> {
        self.reads.ask(asker)
    }
}

impl Raft {
    pub(crate) fn become_leader(&mut self) {
        let first = self.log.last().next();
        let others = self.membership.members().into_iter().filter(|id| *id != self.config.id);
        let leader = Leader {
            progress: others.map(|id| (id, Progress::new(first, false))).collect(),
            reads: ReadQueue::new(self.rounds, self.config.limits.reads),
            since_heartbeat: 0,
            since_check: 0,
            transfer: None,
            pending_conf: first,
            uncommitted: self.log.payload(self.log.commit(), self.log.last()),
            retiring: None,
        };
        self.role = Role::Leader(leader);
        self.dirty = true;
        // Entries of earlier terms commit only together with one of this term (§5.4.2), so there
        // must be one.
        self.append_empty();
    }

    pub(crate) fn tick_leader(&mut self) {
        let Role::Leader(leader) = &mut self.role else { return };
        leader.since_heartbeat += 1;
        leader.since_check += 1;
        if let Some(retiring) = &mut leader.retiring {
            retiring.ticks += 1;
            self.dirty = true;
        }
        if let Some(transfer) = &mut leader.transfer {
            transfer.ticks += 1;
            // It did not happen in time: lead on.
            // R18, planted: transfer-without-end.
            if transfer.ticks >= self.config.election_ticks && !planted::is("transfer-without-end") {
                leader.transfer = None;
                self.dirty = true;
                self.leave_joint();
            }
        }
        let Role::Leader(leader) = &mut self.role else { return };
        if leader.since_check >= self.config.election_ticks {
            leader.since_check = 0;
            // R19, planted: lead-without-quorum.
            let unheard = self.config.check_quorum && !self.quorum_is_active();
            if unheard && !planted::is("lead-without-quorum") {
                self.dirty = true;
                return self.become_follower(self.term, None);
            }
        }
        self.tick_snapshots();
        let Role::Leader(leader) = &mut self.role else { return };
        if leader.since_heartbeat >= self.config.heartbeat_ticks {
            self.dirty |= !leader.progress.is_empty() || leader.reads.len() > 0;
            leader.since_heartbeat = 0;
            if let Some(transfer) = &mut leader.transfer {
                transfer.told = false;
            }
            // A round whose echoes were lost must not hold up those who came after it.
            if self.log.matches(self.log.commit(), self.term) {
                leader.reads.start_round(self.log.commit());
            }
            self.broadcast_heartbeat();
        }
    }

    /// Whether a quorum was heard of since the last time this was asked.
    fn quorum_is_active(&mut self) -> bool {
        let Role::Leader(leader) = &mut self.role else { return false };
        let me = self.config.id;
        let progress = &leader.progress;
        let heard = |id| Some(id == me || progress.get(&id).is_some_and(|p| p.active));
        let verdict = verdict_jointly(self.membership.sides(), heard);
        for progress in leader.progress.values_mut() {
            progress.active = false;
        }
        verdict == Verdict::Won
    }

    /// Appends one entry, if the rules allow it.
    pub(crate) fn append(&mut self, kind: EntryKind, data: Arc<[u8]>) -> Result<(), DropReason> {
        let Role::Leader(leader) = &mut self.role else { return Err(DropReason::NoLeader) };
        if !self.membership.is_voter(self.config.id) {
            return Err(DropReason::NotMember);
        }
        if leader.transfer.is_some() {
            return Err(DropReason::Transferring);
        }
        let index = self.log.last().next();
        if kind == EntryKind::Normal {
            // Whatever its size, one proposal always fits; and an empty one takes no room.
            let full = leader.uncommitted + data.len() > self.config.limits.uncommitted_bytes;
            if full && leader.uncommitted > 0 && !data.is_empty() {
                return Err(DropReason::Backlog);
            }
        } else {
            // R15, planted: two-config-changes.
            if self.log.applied() < leader.pending_conf && !planted::is("two-config-changes") {
                return Err(DropReason::ConfChangePending);
            }
            let change = ConfChangeV2::decode(kind, &data).map_err(|_| DropReason::ConfChangeInvalid)?;
            // Nothing is pending, so the configuration in force is the one this change will meet.
            self.membership.changed(&change).map_err(|error| match error {
                MembershipError::AlreadyJoint => DropReason::ConfChangePending,
                _ => DropReason::ConfChangeInvalid,
            })?;
            leader.pending_conf = index;
        }
        leader.uncommitted += data.len();
        self.log.push(Entry { term: self.term, index, kind, data });
        Ok(())
    }

    /// A no-op: always admitted.
    pub(crate) fn append_empty(&mut self) {
        let (term, index) = (self.term, self.log.last().next());
        self.log.push(Entry { term, index, kind: EntryKind::Normal, data: Arc::new([]) });
    }

    /// Leaves a joint configuration that is to be left by itself, once it is certain to be entered.
    pub(crate) fn leave_joint(&mut self) {
        // R16, planted: joint-forever.
        let leaves = self.membership.auto_leave && !planted::is("joint-forever");
        if leaves && matches!(self.role, Role::Leader(_)) {
            // If a transfer stands in the way, there is another try with the next entry applied
            // here, or by the next leader when its first entry is.
            let _ = self.append(EntryKind::ConfChangeV2, Arc::new([]));
        }
    }

    /// Commits what a quorum has made durable, if the last of it is of this term. Entries of earlier
    /// terms are never committed by counting: a later leader might still overwrite them (§5.4.2).
    pub(crate) fn advance_commit(&mut self) {
        let Role::Leader(leader) = &mut self.role else { return };
        // R7, R9, planted: count-unsynced-self.
        let own = if planted::is("count-unsynced-self") { self.log.last() } else { self.log.stable() };
        let me = self.config.id;
        let progress = &leader.progress;
        let matched = |id| match id == me {
            true => own.0,
            false => progress.get(&id).map_or(0, |p| p.matched.0),
        };
        let index = Index(reached_jointly(self.membership.sides(), matched));
        let before = self.log.commit();
        // R1, planted: commit-old-term.
        let own_term = self.log.matches(index, self.term) || planted::is("commit-old-term");
        if index > before && own_term {
            let freed = self.log.payload(before, index);
            assert!(
                freed <= leader.uncommitted,
                "{freed} bytes are committed, but only {} were waiting",
                leader.uncommitted
            );
            leader.uncommitted -= freed;
            self.log.commit_to(index);
        }
    }

    /// What a leader does whenever something happened: starts and ends rounds of reads, and sends
    /// everyone what is new.
    pub(crate) fn lead(&mut self) {
        if matches!(self.role, Role::Leader(_)) {
            self.advance_reads();
            self.replicate();
            self.retire();
        }
    }

    fn advance_reads(&mut self) {
        let Role::Leader(leader) = &mut self.role else { return };
        // R2, planted: read-before-first-commit.
        let knows = self.log.matches(self.log.commit(), self.term) || planted::is("read-before-first-commit");
        if leader.reads.len() == 0 || !knows {
            return;
        }
        self.confirm_reads();
        let Role::Leader(leader) = &mut self.role else { return };
        if leader.reads.wants_round() {
            leader.reads.start_round(self.log.commit());
            self.broadcast_heartbeat();
            // Enough if nobody else is needed.
            self.confirm_reads();
        }
    }

    fn confirm_reads(&mut self) {
        let Role::Leader(leader) = &mut self.role else { return };
        let (me, newest, progress) = (self.config.id, leader.reads.newest(), &leader.progress);
        let echoed = |id| match id == me {
            true => newest,
            // R6, planted: read-without-round.
            false if planted::is("read-without-round") => newest,
            false => progress.get(&id).map_or(0, |p| p.round),
        };
        let confirmed = reached_jointly(self.membership.sides(), echoed).min(newest);
        let (reads, messages) = (&mut self.out.reads, &mut self.out.messages);
        let term = self.term;
        leader.reads.confirm(confirmed, |asker, index| match asker {
            Asker::Own(id) => reads.push(ReadOutcome::Ready { id, index }),
            Asker::Other(to, context) => {
                let body = Body::ReadIndexResponse { index, context };
                messages.push(crate::Message { to, from: me, term, body });
            }
        });
    }

    /// A question of another member. Only a leader answers; the asker gives up by itself.
    pub(crate) fn step_read_index(&mut self, from: NodeId, context: Context) {
        let Role::Leader(leader) = &mut self.role else { return };
        if from != self.config.id {
            self.dirty = true;
            let _ = leader.ask(Asker::Other(from, context));
        }
    }

    /// Puts another configuration in force.
    pub(crate) fn switch_to(&mut self, next: ConfState) {
        self.membership = next;
        let me = self.config.id;
        let first = self.log.last().next();
        match &mut self.role {
            Role::Follower(_) => {}
            Role::Candidate(_) => {
                if !self.membership.is_voter(me) {
                    self.become_follower(self.term, None);
                }
            }
            Role::Leader(leader) => {
                leader.progress.retain(|id, _| self.membership.contains(*id));
                for id in self.membership.members().into_iter().filter(|id| *id != me) {
                    // Active, so that it has an election timeout to show itself.
                    leader.progress.entry(id).or_insert_with(|| Progress::new(first, true));
                }
                let voters = &self.membership.voters;
                leader.transfer.take_if(|transfer| !voters.contains(&transfer.to));
                // A smaller quorum may already have what the larger one was missing.
                self.advance_commit();
                let Role::Leader(leader) = &mut self.role else { return };
                leader.retiring = match self.membership.is_voter(me) {
                    true => None,
                    // R17, planted: removed-leader-stays.
                    false if planted::is("removed-leader-stays") => None,
                    false => Some(Retiring { index: self.log.applied().next(), ticks: 0, round: None }),
                };
            }
        }
    }

    /// Leaves the throne to the best successor there is, once a quorum knows that it is vacant.
    fn retire(&mut self) {
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(Retiring { index, ticks, round }) = &mut leader.retiring else { return };
        let progress = &leader.progress;
        let sides = self.membership.sides();
        match *round {
            // Heartbeats carry no commit index beyond what the receiver is known to have.
            None => {
                let matched = |id| progress.get(&id).map_or(0, |p| p.matched.0);
                let known = self.log.matches(self.log.commit(), self.term);
                if known && reached_jointly(sides, matched) >= index.0 {
                    *round = Some(leader.reads.start_bare_round(self.log.commit()));
                    self.broadcast_heartbeat();
                }
            }
            Some(told) => {
                let echoed = |id| progress.get(&id).map_or(0, |p| p.round);
                if reached_jointly(sides, echoed) >= told {
                    *ticks = self.config.election_ticks;
                }
            }
        }
        let Role::Leader(leader) = &mut self.role else { return };
        if leader.retiring.as_ref().is_some_and(|r| r.ticks >= self.config.election_ticks) {
            if let Some(successor) = self.best_successor(Index(0)) {
                self.send(successor, Body::TimeoutNow);
            }
            self.become_follower(self.term, None);
        }
    }

    /// The best voter that has the log up to `needed`: one heard of lately, and with most of it.
    fn best_successor(&self, needed: Index) -> Option<NodeId> {
        let Role::Leader(leader) = &self.role else { return None };
        let able = leader
            .progress
            .iter()
            .filter(|(id, progress)| self.membership.voters.contains(id) && progress.matched >= needed);
        let merit =
            |id: &NodeId, progress: &Progress| (progress.active, progress.matched, std::cmp::Reverse(*id));
        able.max_by_key(|(id, progress)| merit(id, progress)).map(|(id, _)| *id)
    }

    /// Hands over to a voter whose disk is ahead of this member's own; true if there is one. Called
    /// when the own disk stalls: if all disks do, nobody is ahead, and nothing is gained.
    pub fn hand_over(&mut self) -> bool {
        let ahead = self.log.stable().next();
        let idle = matches!(&self.role, Role::Leader(leader) if leader.transfer.is_none());
        match self.best_successor(ahead).filter(|_| idle) {
            Some(successor) => {
                self.transfer_leader(successor);
                true
            }
            None => false,
        }
    }

    /// Begins to hand over. Only a voter can take over; the wish is ignored otherwise.
    pub(crate) fn start_transfer(&mut self, to: NodeId) {
        let Role::Leader(leader) = &mut self.role else { return };
        let known = self.membership.voters.contains(&to) && leader.progress.contains_key(&to);
        let same = leader.transfer.as_ref().is_some_and(|transfer| transfer.to == to);
        if known && !same {
            leader.transfer = Some(Transfer { to, ticks: 0, told: false });
            self.advance_transfer();
        }
    }

    /// Tells the successor to campaign, as soon as it has everything.
    pub(crate) fn advance_transfer(&mut self) {
        let Role::Leader(leader) = &mut self.role else { return };
        let last = self.log.last();
        if let Some(transfer) = &mut leader.transfer
            && !transfer.told
            && leader.progress.get(&transfer.to).is_some_and(|progress| progress.matched == last)
        {
            transfer.told = true;
            let to = transfer.to;
            self.send(to, Body::TimeoutNow);
        }
    }
}
