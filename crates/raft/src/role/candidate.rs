//! Becoming a leader: two rounds of questions.
//!
//! The first round, the pre-vote, changes nothing anywhere: would you elect me in the next term?
//! Only who would win asks in earnest, and raises everybody's term by that. Both rounds look alike
//! otherwise.

use super::Role;
use crate::message::{Body, Candidacy, Message};
use crate::quorum::{Verdict, verdict_jointly};
use crate::raft::{Deferred, Raft};
use crate::types::{NodeId, Term};
use std::collections::BTreeMap;

#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) round: Round,
    pub(crate) votes: BTreeMap<NodeId, bool>,
}

/// How long one voter has to replace a leader that is known to be gone before the next one tries.
const TURN_TICKS: u64 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Round {
    Pre,
    Real {
        /// The leader asked for it, so that its lease does not count.
        transfer: bool,
    },
}

impl Round {
    pub(crate) fn real() -> Round {
        Round::Real { transfer: false }
    }
}

impl Raft {
    /// Followers and candidates wait for a leader, but not forever.
    pub(crate) fn tick_election(&mut self) {
        self.silence += 1;
        self.age_forwarded_reads();
        if self.silence < self.patience {
            return;
        }
        if self.may_campaign() && !self.log.has_unapplied_conf_change() {
            let round = if self.config.pre_vote { Round::Pre } else { Round::real() };
            self.start_campaign(round);
        } else if self.leader().is_some() {
            // Somebody else has to do it; what is clear is that nobody leads.
            self.forget_leader();
        }
    }

    /// Waits for this member's turn to replace `gone`: two ticks are enough for a campaign of whoever
    /// comes before it to be heard of.
    pub(crate) fn take_turns(&mut self, gone: NodeId) {
        let me = self.config.id;
        let before = |id: &NodeId| *id < me && *id != gone && self.membership.is_voter(*id);
        let members = self.membership.members();
        let rank = members.iter().filter(|id| before(id)).count() as u64;
        (self.silence, self.patience) = (0, TURN_TICKS * rank);
        // Also for who knows no members yet: it sets the patience right once a leader is heard again.
        self.hurry = TURN_TICKS * members.len().max(1) as u64;
        if rank == 0 && self.may_campaign() {
            let round = if self.config.pre_vote { Round::Pre } else { Round::real() };
            self.hup(round, self.config.election_ticks);
        }
    }

    /// Whether this member votes, as far as it knows, and has the state to lead from.
    fn may_campaign(&self) -> bool {
        self.membership.is_voter(self.config.id) && !self.log.is_installing()
    }

    /// Campaigns, if that is possible; later, if all it takes is to apply a configuration change.
    /// A quorum counted under a configuration older than a committed one might not be a quorum.
    pub(crate) fn hup(&mut self, round: Round, ticks: u64) {
        if matches!(self.role, Role::Leader(_)) {
            return;
        }
        if self.log.has_unapplied_conf_change() {
            self.deferred = Some(Deferred { round, ticks });
        } else if self.may_campaign() {
            self.start_campaign(round);
        }
    }

    fn start_campaign(&mut self, round: Round) {
        self.dirty = true;
        self.drop_reads();
        self.deferred = None;
        self.silence = 0;
        self.draw_patience();
        if round == Round::Pre && self.hurry > 0 {
            // Who still believes in the old leader does not answer, and may cease to believe soon.
            self.patience = self.hurry;
        } else {
            self.hurry = 0;
        }
        self.role = Role::Candidate(Candidate { round, votes: BTreeMap::new() });
        if round != Round::Pre {
            self.term = self.term.next();
            self.vote = Some(self.config.id);
        }
        self.ask_for_votes(round);
        if round == Round::Pre {
            self.count_vote(self.config.id, true);
        }
        // In earnest the own vote counts once it cannot be forgotten: see `count_own_vote`.
    }

    fn ask_for_votes(&mut self, round: Round) {
        let mut show = Candidacy {
            last_index: self.log.last(),
            last_term: self.log.last_term(),
            transfer: round == Round::Real { transfer: true },
        };
        let me = self.config.id;
        for to in self.membership.members() {
            if to == me || !self.membership.is_voter(to) {
                continue;
            }
            if round == Round::Pre {
                show.transfer = false;
                let term = self.term.next();
                self.out.messages.push(Message { to, from: me, term, body: Body::PreVote(show) });
            } else {
                // Held back until term, vote and log are durable. If it left before, this member
                // could crash, come back with a shorter log, campaign in the same term again, and
                // be elected by the votes that its longer log had earned.
                self.promise(to, Body::Vote(show));
            }
        }
    }

    /// The own vote of a real round, once it is durable.
    pub(crate) fn count_own_vote(&mut self) {
        let durable = self.log.durable();
        if durable.term == self.term && durable.vote == Some(self.config.id) {
            self.count_vote(self.config.id, true);
        }
    }

    pub(crate) fn step_candidate(&mut self, from: NodeId, term: Term, body: Body) {
        match body {
            Body::VoteResponse(answer) => {
                self.step_vote_response(from, term, answer.reject, false);
            }
            // Somebody else won this term.
            body if body.is_from_leader() => {
                self.become_follower(self.term, Some(from));
                self.step_follower(from, body);
            }
            _ => {}
        }
    }

    pub(crate) fn step_vote_response(&mut self, from: NodeId, term: Term, reject: bool, pre: bool) {
        let Role::Candidate(candidate) = &self.role else { return };
        // An answer to the other round, or to a question of an earlier term, says nothing now.
        let round_fits = pre == (candidate.round == Round::Pre);
        let term_fits = term == if pre && !reject { self.term.next() } else { self.term };
        if round_fits && term_fits {
            self.count_vote(from, !reject);
        }
    }

    fn count_vote(&mut self, from: NodeId, grant: bool) {
        let Role::Candidate(Candidate { round, votes }) = &mut self.role else { return };
        votes.entry(from).or_insert(grant);
        let round = *round;
        match verdict_jointly(self.membership.sides(), |id| votes.get(&id).copied()) {
            Verdict::Won if round == Round::Pre => self.start_campaign(Round::real()),
            Verdict::Won => self.become_leader(),
            Verdict::Lost => self.become_follower(self.term, None),
            Verdict::Pending => {}
        }
    }
}
