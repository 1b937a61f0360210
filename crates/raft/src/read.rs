//! Reads that need to know how far they must be applied.
//!
//! A leader may answer with its commit index once it knows that, at some moment after the question
//! arrived, nobody else could have committed anything: a quorum echoed a heartbeat sent after it
//! (thesis §6.4). All questions that wait at a moment share one such round. Rounds are numbered and
//! never reused, so an echo confirms the rounds up to its own and none after it, however late it
//! arrives. At most one round is new at a time: questions that arrive while it is under way share
//! the next one, which starts when it ends, or with the next heartbeat if echoes got lost.
//!
//! Until the first entry of its term is committed a leader does not know the commit index; until
//! then questions are held.

use crate::message::Context;
use crate::types::{Index, NodeId, ReadId};
use std::collections::VecDeque;

/// Who asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    Own(ReadId),
    Other(NodeId, Context),
}

#[derive(Debug)]
struct Round {
    number: u64,
    index: Index,
    askers: Vec<Asker>,
}

#[derive(Debug)]
pub(crate) struct ReadQueue {
    /// Held until a round can start.
    waiting: Vec<Asker>,
    rounds: VecDeque<Round>,
    /// The number of the newest round.
    newest: u64,
    held: usize,
    limit: usize,
}

impl ReadQueue {
    /// `newest`: the number of the last round any earlier queue of this member has used.
    pub(crate) fn new(newest: u64, limit: usize) -> ReadQueue {
        ReadQueue { waiting: Vec::new(), rounds: VecDeque::new(), newest, held: 0, limit }
    }

    /// Takes a question, or gives it back if too many wait.
    pub(crate) fn ask(&mut self, asker: Asker) -> Result<(), Asker> {
        if self.held >= self.limit {
            return Err(asker);
        }
        self.held += 1;
        self.waiting.push(asker);
        Ok(())
    }

    /// Whether the questions that wait should start a round now.
    pub(crate) fn wants_round(&self) -> bool {
        !self.waiting.is_empty() && self.rounds.is_empty()
    }

    /// Starts a round for all that wait, if any do; `commit` is the index they will be told.
    pub(crate) fn start_round(&mut self, commit: Index) {
        if !self.waiting.is_empty() {
            self.start_bare_round(commit);
        }
    }

    /// Starts a round that nobody asked for, with all that wait; returns its number.
    pub(crate) fn start_bare_round(&mut self, commit: Index) -> u64 {
        self.newest += 1;
        let askers = std::mem::take(&mut self.waiting);
        self.rounds.push_back(Round { number: self.newest, index: commit, askers });
        self.newest
    }

    /// The number of the newest round ever started.
    pub(crate) fn newest(&self) -> u64 {
        self.newest
    }

    /// What heartbeats carry: the newest round, if one is under way.
    pub(crate) fn context(&self) -> Option<u64> {
        (!self.rounds.is_empty()).then_some(self.newest)
    }

    /// Rounds up to `number` are confirmed by a quorum.
    pub(crate) fn confirm(&mut self, number: u64, mut answer: impl FnMut(Asker, Index)) {
        while self.rounds.front().is_some_and(|round| round.number <= number) {
            let Some(round) = self.rounds.pop_front() else { break };
            self.held -= round.askers.len();
            for asker in round.askers {
                answer(asker, round.index);
            }
        }
    }

    /// Everyone still without an answer.
    pub(crate) fn into_askers(self) -> impl Iterator<Item = Asker> {
        self.rounds.into_iter().flat_map(|round| round.askers).chain(self.waiting)
    }

    pub(crate) fn len(&self) -> usize {
        self.held
    }
}
