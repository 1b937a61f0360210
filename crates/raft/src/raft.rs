//! One member: its state, and the rules that hold whatever its role.

use crate::config::Config;
use crate::error::{Error, check_config, check_log};
use crate::log::{CatchUp, Log};
use crate::membership::{ConfChangeV2, MembershipError};
use crate::message::{Answer, Body, Candidacy, Message};
use crate::quorum::{Verdict, verdict_jointly};
use crate::ready::{DropReason, Proposal, ReadOutcome, Ready, SoftState};
use crate::rng::Rng;
use crate::role::{Follower, Role, Round};
use crate::types::{ConfState, Entry, HardState, Index, NodeId, PersistId, ReadId, Restored, Snapshot, Term};

/// One member of the cluster. See the crate's description for how to drive it.
#[derive(Debug)]
pub struct Raft {
    pub(crate) config: Config,
    pub(crate) rng: Rng,
    pub(crate) term: Term,
    pub(crate) vote: Option<NodeId>,
    pub(crate) log: Log,
    pub(crate) membership: ConfState,
    pub(crate) role: Role,
    /// Ticks since a leader was heard, a vote given, or a campaign begun.
    pub(crate) silence: u64,
    /// How much silence leads to a campaign; drawn anew for each.
    pub(crate) patience: u64,
    /// Ticks between two pre-votes while the leader is said to be gone, and not everybody may know; else
    /// zero.
    pub(crate) hurry: u64,
    /// A campaign that was asked for while a configuration change was still to be applied.
    pub(crate) deferred: Option<Deferred>,
    /// Tells this life's forwarded questions from those of an earlier life.
    pub(crate) life: u64,
    /// The last number given to a forwarded question, and the last read round, in this life.
    pub(crate) questions: u64,
    pub(crate) rounds: u64,
    /// What the next `ready` will contain, as far as it is known.
    pub(crate) out: Ready,
    soft_state: SoftState,
    /// Whether `ready` has anything to look at.
    pub(crate) dirty: bool,
    /// Whether even a mere commit index goes to disk with the next `ready`.
    write_commit: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Deferred {
    pub(crate) round: Round,
    /// Ticks until it is no longer wanted.
    pub(crate) ticks: u64,
}

impl Raft {
    /// A member as it was when it stopped: a follower that knows no leader.
    ///
    /// # Errors
    /// If `config` or what was restored contradicts itself.
    pub fn new(config: Config, restored: Restored) -> Result<Raft, Error> {
        check_config(&config)?;
        let Restored { hard_state: durable, snapshot, entries, applied } = restored;
        let mut hard_state = durable;
        let (last, last_term) = check_log(&entries, snapshot.index, snapshot.term)?;
        if applied < snapshot.index {
            return Err(Error::Missing { begin: snapshot.index, applied });
        }
        // What is applied was committed, whether or not that was written down in time.
        hard_state.commit = hard_state.commit.max(applied);
        if hard_state.commit > last {
            return Err(Error::LogTooShort { last, needed: hard_state.commit });
        }
        // Entries come before the hard state within a write, so a torn write may leave entries of a
        // term that is not written down. No promise was made in that term; it is written before the
        // first one is.
        if hard_state.term < last_term {
            hard_state = HardState { term: last_term, vote: None, ..hard_state };
        }
        let membership = snapshot.conf_state.normalized()?;
        let mut rng = Rng::new(config.seed ^ config.id.0.rotate_left(32));
        let life = rng.next();
        let keep = CatchUp { entries: config.limits.catch_up_entries, bytes: config.limits.catch_up_bytes };
        let term = hard_state.term;
        let begin = (snapshot.index, snapshot.term);
        let log = Log::new(begin, entries, durable, hard_state.commit, applied, keep);
        let mut raft = Raft {
            rng,
            term,
            // R8, planted: forget-vote.
            vote: hard_state.vote.filter(|_| !planted::is("forget-vote")),
            log,
            membership,
            role: Role::Follower(Follower::default()),
            silence: 0,
            patience: 0,
            hurry: 0,
            deferred: None,
            life,
            questions: 0,
            rounds: 0,
            out: Ready::default(),
            soft_state: SoftState { leader: None, role: crate::RoleKind::Follower, term },
            dirty: true,
            write_commit: false,
            config,
        };
        raft.draw_patience();
        Ok(raft)
    }

    /// Time passes.
    pub fn tick(&mut self) {
        if self.log.durable().commit < self.log.commit() {
            self.write_commit = true;
            self.dirty = true;
        }
        if let Some(deferred) = &mut self.deferred {
            deferred.ticks = deferred.ticks.saturating_sub(1);
            if deferred.ticks == 0 {
                self.deferred = None;
            }
        }
        match self.role {
            Role::Leader(_) => self.tick_leader(),
            _ => self.tick_election(),
        }
    }

    /// A message has arrived. Those that make no sense here are ignored, whatever they contain.
    pub fn step(&mut self, message: Message) {
        if message.to != self.config.id || message.from == NodeId(0) {
            return;
        }
        if let Body::Propose { entries } = message.body {
            return self.step_proposals(message.from, entries);
        }
        if let Body::ReadIndex { context } = message.body {
            return self.step_read_index(message.from, context);
        }
        let to_lead = message.body == Body::TransferLeader;
        if message.term == Term(0) || message.from == self.config.id && !to_lead {
            return;
        }
        self.dirty = true;
        if let Body::VoteResponse(answer) | Body::PreVoteResponse(answer) = &message.body
            && !matches!(self.role, Role::Leader(_))
            && self.log.matches(answer.commit, answer.commit_term)
        {
            // True whatever the term, and perhaps just what this member was missing. A leader learns
            // what is committed by counting alone.
            self.log.commit_to(answer.commit);
        }
        if message.term > self.term && !self.enter_term(&message) {
            return;
        }
        if message.term < self.term {
            return self.answer_from_the_past(&message);
        }
        match (message.body, &self.role) {
            (Body::Vote(show), _) => self.step_vote(message.from, message.term, show, false),
            (Body::PreVote(show), _) => self.step_vote(message.from, message.term, show, true),
            (Body::TransferLeader, _) => self.transfer_leader(message.from),
            (Body::PreVoteResponse(answer), Role::Candidate(_)) => {
                self.step_vote_response(message.from, message.term, answer.reject, true);
            }
            (body, Role::Candidate(_)) => self.step_candidate(message.from, message.term, body),
            (body, Role::Follower(_)) => self.step_follower(message.from, body),
            (body, Role::Leader(_)) => self.step_leader(message.from, body),
        }
    }

    /// A message from a later term. False if it is to be ignored.
    fn enter_term(&mut self, message: &Message) -> bool {
        match &message.body {
            // Whoever hears a leader does not help to replace it, unless the leader wants that.
            Body::Vote(Candidacy { transfer: false, .. }) | Body::PreVote(_) if self.in_lease() => false,
            // Asking whether one could win is not winning; a yes to that question names the term
            // asked about.
            Body::PreVote(_) | Body::PreVoteResponse(Answer { reject: false, .. }) => true,
            body => {
                let leader = body.is_from_leader().then_some(message.from);
                self.become_follower(message.term, leader);
                true
            }
        }
    }

    /// Whether a leader was heard within the minimum election timeout.
    fn in_lease(&self) -> bool {
        let heard = match &self.role {
            Role::Leader(_) => true,
            Role::Follower(follower) => {
                follower.leader.is_some() && self.silence < self.config.election_ticks
            }
            Role::Candidate(_) => false,
        };
        self.config.check_quorum && heard
    }

    /// A message from an earlier term. Most are only late. But a leader that still speaks there must
    /// learn that time has moved on: with leases, a member of a higher term could otherwise neither
    /// follow that leader nor replace it. The same holds for whoever asks to be elected.
    fn answer_from_the_past(&mut self, message: &Message) {
        let leases = self.config.check_quorum || self.config.pre_vote;
        match &message.body {
            // R5, planted: silent-to-the-past.
            Body::Append { .. } | Body::Heartbeat { .. } if leases && !planted::is("silent-to-the-past") => {
                self.promise(message.from, Body::AppendResponse { index: Index(0), reject: None });
            }
            Body::PreVote(_) => self.send(message.from, Body::PreVoteResponse(self.answer(false))),
            _ => {}
        }
    }

    fn answer(&self, grant: bool) -> Answer {
        if grant {
            return Answer::default();
        }
        let commit = self.log.commit();
        let commit_term = self.log.term(commit).unwrap_or_default();
        Answer { reject: true, commit, commit_term }
    }

    /// Votes are given by whoever is asked, learners too: they may have been promoted without
    /// knowing it yet (§5.2, §5.4.1).
    fn step_vote(&mut self, from: NodeId, term: Term, show: Candidacy, pre: bool) {
        let free = self.vote == Some(from)
            || self.vote.is_none() && self.leader().is_none()
            || pre && term > self.term;
        // R13, planted: learner-refuses-vote.
        let mute = planted::is("learner-refuses-vote") && !self.membership.is_voter(self.config.id);
        // §5.4.1, planted: vote-for-shorter-log.
        let complete =
            planted::is("vote-for-shorter-log") || self.log.is_up_to_date(show.last_index, show.last_term);
        let grant = free && complete && !mute;
        // A grant names the term it was asked for: the asker of a pre-vote is not there yet. A
        // refusal names our own, so that the asker catches up.
        let term = if grant { term } else { self.term };
        if pre {
            let body = Body::PreVoteResponse(self.answer(grant));
            self.out.messages.push(Message { to: from, from: self.config.id, term, body });
            return;
        }
        if grant {
            self.vote = Some(from);
            self.silence = 0;
        }
        self.promise(from, Body::VoteResponse(self.answer(grant)));
    }

    /// Appends commands to the log, or sends them to whoever can. What becomes of neither is named
    /// in [`Ready::dropped`].
    pub fn propose(&mut self, proposals: Vec<Proposal>) {
        self.dirty = true;
        match &self.role {
            Role::Leader(_) => {
                for Proposal { id, kind, data, only_in } in proposals {
                    let result = match only_in.is_none_or(|term| term == self.term) {
                        true => self.append(kind, data),
                        false => Err(DropReason::OtherTerm),
                    };
                    if let Err(reason) = result {
                        self.out.dropped.push((id, reason));
                    }
                }
            }
            Role::Follower(Follower { leader: Some(leader), .. }) => {
                let leader = *leader;
                let (free, bound) = proposals.into_iter().partition(|p| p.only_in.is_none());
                self.forward_proposals(leader, free);
                self.drop_proposals(bound, DropReason::OtherTerm);
            }
            _ => self.drop_proposals(proposals, DropReason::NoLeader),
        }
    }

    fn drop_proposals(&mut self, proposals: Vec<Proposal>, reason: DropReason) {
        self.out.dropped.extend(proposals.into_iter().map(|proposal| (proposal.id, reason)));
    }

    /// Whether a proposal made now would enter a log, here or, as far as this member knows, at the
    /// leader.
    pub fn takes_proposals(&self) -> bool {
        match &self.role {
            Role::Leader(leader) => leader.transfer.is_none() && self.membership.is_voter(self.config.id),
            Role::Follower(follower) => follower.leader.is_some(),
            Role::Candidate(_) => false,
        }
    }

    /// Whether a change of the configuration would enter the log with them: not where this leader has one
    /// that is yet to be applied.
    pub fn takes_conf_changes(&self) -> bool {
        match &self.role {
            Role::Leader(leader) => leader.pending_conf <= self.log.applied(),
            _ => true,
        }
    }

    /// Asks up to where the machine must have applied so that a read now is linearizable.
    pub fn read_index(&mut self, id: ReadId) {
        self.dirty = true;
        let taken = match &mut self.role {
            Role::Leader(leader) => leader.ask(crate::read::Asker::Own(id)).is_ok(),
            Role::Follower(Follower { leader: Some(_), .. }) => self.forward_read(id),
            _ => false,
        };
        if !taken {
            self.out.reads.push(ReadOutcome::Dropped { id });
        }
    }

    /// Campaigns without waiting for silence; at once, or as soon as no committed configuration
    /// change is left to be applied.
    pub fn campaign(&mut self) {
        let round = if self.config.pre_vote { Round::Pre } else { Round::real() };
        self.hup(round, u64::MAX);
    }

    /// Hands leadership over to `to`, here or, if this is a follower, at the leader.
    pub fn transfer_leader(&mut self, to: NodeId) {
        self.dirty = true;
        match &self.role {
            Role::Leader(_) => self.start_transfer(to),
            Role::Follower(Follower { leader: Some(leader), .. }) => {
                // raftpb says who is to lead in the place of the sender.
                let (leader, term) = (*leader, self.term);
                let message = Message { to: leader, from: to, term, body: Body::TransferLeader };
                self.out.messages.push(message);
            }
            _ => {}
        }
    }

    /// All writes up to and including `id` are durable.
    pub fn persisted(&mut self, id: PersistId) {
        if !self.log.written(id) {
            return;
        }
        self.dirty = true;
        match self.role {
            Role::Leader(_) => self.advance_commit(),
            Role::Candidate(_) => self.count_own_vote(),
            Role::Follower(_) => {}
        }
    }

    /// The machine has applied up to `index`; of every configuration change up to there it has been
    /// told by [`Raft::apply_conf_change`] before. A snapshot is reported before anything after it
    /// is applied.
    pub fn applied(&mut self, index: Index) {
        self.log.applied_to(index);
        self.dirty = true;
        self.leave_joint();
        if let Some(deferred) = self.deferred
            && !self.log.has_unapplied_conf_change()
        {
            self.deferred = None;
            self.hup(deferred.round, deferred.ticks);
        }
    }

    /// The machine applies a configuration change; from now on it is in force here. Returns the
    /// configuration that is.
    ///
    /// # Errors
    /// If it does not fit; then, on every member alike, nothing changes.
    pub fn apply_conf_change(&mut self, change: &ConfChangeV2) -> Result<ConfState, MembershipError> {
        // The machine is still at entries that a snapshot has overtaken: the configuration in force
        // is the snapshot's, and contains this change.
        if self.log.is_installing() {
            return Ok(self.membership.clone());
        }
        let next = self.membership.changed(change)?;
        self.dirty = true;
        self.switch_to(next.clone());
        Ok(next)
    }

    /// Messages to `id` seem to be lost.
    pub fn report_unreachable(&mut self, id: NodeId) {
        self.dirty = true;
        self.peer_unreachable(id);
    }

    /// The process of member `id` is known to have ended. If it led, this member need not wait for
    /// its silence: each voter that is left campaigns when it is its turn, two ticks after the one
    /// before it, so that they do not split the vote. Only a hint: if it is wrong, the leader's next
    /// message is heard as ever, and nobody who still hears it gives away a vote.
    pub fn leader_gone(&mut self, id: NodeId) {
        let Role::Follower(Follower { leader: Some(leader), .. }) = &self.role else { return };
        if *leader != id {
            return;
        }
        self.forget_leader();
        self.take_turns(id);
    }

    /// The entries asked for by [`Ready::log_reads`] for `to`: those after `after`, whose term is
    /// `after_term`. Without entries: the log on disk has them no more.
    pub fn provide_log(&mut self, to: NodeId, after: Index, after_term: Term, entries: Vec<Entry>) {
        self.dirty = true;
        self.send_log(to, (after, after_term), entries);
    }

    /// The snapshot for `to`, asked for by [`Ready::snapshots_wanted`]. It must be one of this
    /// member's machine.
    pub fn provide_snapshot(&mut self, to: NodeId, snapshot: Snapshot) {
        self.dirty = true;
        self.send_snapshot(to, snapshot);
    }

    /// What became of the snapshot for `id`: it arrived, or it could not be made or sent.
    pub fn report_snapshot(&mut self, id: NodeId, arrived: bool) {
        self.dirty = true;
        self.peer_snapshot(id, arrived);
    }

    /// This member has not run for an election timeout or more. Whatever it believes about who
    /// leads is out of date, and the ticks that it missed mean nothing.
    pub fn stalled(&mut self) {
        self.dirty = true;
        self.silence = 0;
        let own_vote = |id| Some(id == self.config.id);
        let alone = verdict_jointly(self.membership.sides(), own_vote) == Verdict::Won;
        if matches!(self.role, Role::Leader(_)) && !alone {
            self.become_follower(self.term, None);
        }
    }

    /// All that is to be done now; call again until there is nothing. Cheap if there is nothing.
    pub fn ready(&mut self) -> Option<Ready> {
        if !self.dirty {
            return None;
        }
        self.dirty = false;
        self.lead();
        let must_write_commit = std::mem::take(&mut self.write_commit);
        self.out.persist = self.log.write(self.hard_state(), must_write_commit);
        self.out.install = self.log.take_install();
        let limits = &self.config.limits;
        self.out.committed = self.log.take_committed(limits.apply_bytes, limits.applying_bytes);
        self.dirty = self.log.has_committed(limits.applying_bytes);
        let soft_state = SoftState { leader: self.leader(), role: self.role.kind(), term: self.term };
        if soft_state != self.soft_state {
            self.soft_state = soft_state;
            self.out.soft_state = Some(soft_state);
        }
        self.check();
        let ready = std::mem::take(&mut self.out);
        (!ready.is_empty()).then_some(ready)
    }

    /// Who leads this term, if known.
    pub fn leader(&self) -> Option<NodeId> {
        match &self.role {
            Role::Leader(_) => Some(self.config.id),
            Role::Follower(follower) => follower.leader,
            Role::Candidate(_) => None,
        }
    }

    /// Term, vote and commit index, durable or not.
    pub fn hard_state(&self) -> HardState {
        HardState { term: self.term, vote: self.vote, commit: self.log.commit() }
    }

    /// The configuration in force here.
    pub fn conf_state(&self) -> &ConfState {
        &self.membership
    }

    pub(crate) fn message(&self, to: NodeId, body: Body) -> Message {
        debug_assert_ne!(to, self.config.id, "{}", body.name());
        Message { to, from: self.config.id, term: self.term, body }
    }

    /// May leave at once.
    pub(crate) fn send(&mut self, to: NodeId, body: Body) {
        let message = self.message(to, body);
        self.out.messages.push(message);
    }

    /// Leaves once everything it rests on is durable.
    pub(crate) fn promise(&mut self, to: NodeId, body: Body) {
        let message = self.message(to, body);
        self.out.promises.push(message);
    }

    pub(crate) fn draw_patience(&mut self) {
        self.patience = self.config.election_ticks + self.rng.below(self.config.election_ticks);
    }

    /// What must hold, whatever the role.
    fn check(&self) {
        self.log.check();
        assert!(
            self.term >= self.log.last_term(),
            "term {} is below the log's {}",
            self.term,
            self.log.last_term()
        );
        if let Role::Leader(leader) = &self.role {
            assert_eq!(self.vote, Some(self.config.id), "a leader has voted for itself");
            for (id, progress) in &leader.progress {
                progress.check(*id, self.log.last());
            }
        }
    }
}

impl Ready {
    fn is_empty(&self) -> bool {
        self.persist.is_none()
            && self.messages.is_empty()
            && self.promises.is_empty()
            && self.install.is_none()
            && self.committed.is_empty()
            && self.reads.is_empty()
            && self.dropped.is_empty()
            && self.log_reads.is_empty()
            && self.snapshots_wanted.is_empty()
            && self.soft_state.is_none()
    }
}
