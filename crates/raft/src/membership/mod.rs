//! Who is in the cluster, and the one way this changes.
//!
//! A simple change moves at most one voter, so that old and new majorities overlap. Anything more
//! goes through a joint configuration, in which the old majority (`outgoing`) and the new one
//! (`voters`) must both agree, and is left by a change with nothing in it. Whoever computes the
//! next configuration, a member's Raft or the machine that stores it, calls [`ConfState::changed`];
//! so all compute the same.

mod change;

pub use change::{Change, ChangeKind, ConfChange, ConfChangeV2, DecodeError, Transition};

use crate::types::{ConfState, NodeId};
use std::fmt;

/// Why a configuration, or a change of it, is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MembershipError {
    /// A change other than leaving, while the configuration is joint.
    AlreadyJoint,
    /// Leaving a joint configuration that is not there.
    NotJoint,
    /// Nobody would be left to vote.
    NoVoters,
    /// More than one voter would change without a joint configuration.
    TooMuchAtOnce,
    /// The lists contradict each other about this member.
    Inconsistent(NodeId),
}

impl fmt::Display for MembershipError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MembershipError::AlreadyJoint => write!(f, "the joint configuration must be left first"),
            MembershipError::NotJoint => write!(f, "there is no joint configuration to leave"),
            MembershipError::NoVoters => write!(f, "no voter would be left"),
            MembershipError::TooMuchAtOnce => {
                write!(f, "more than one voter would change without a joint configuration")
            }
            MembershipError::Inconsistent(id) => {
                write!(f, "the configuration contradicts itself about member {:x}", id.0)
            }
        }
    }
}

impl std::error::Error for MembershipError {}

impl ConfState {
    /// A configuration of these voters and nothing else.
    pub fn of(voters: impl IntoIterator<Item = NodeId>) -> ConfState {
        ConfState { voters: sorted(voters.into_iter().collect()), ..ConfState::default() }
    }

    /// Whether two majorities are needed.
    pub fn is_joint(&self) -> bool {
        !self.voters_outgoing.is_empty()
    }

    /// Whether `id` votes, in either majority.
    pub fn is_voter(&self, id: NodeId) -> bool {
        self.voters.contains(&id) || self.voters_outgoing.contains(&id)
    }

    /// Whether `id` only listens.
    pub fn is_learner(&self, id: NodeId) -> bool {
        self.learners.contains(&id)
    }

    /// Whether `id` receives the log.
    pub fn contains(&self, id: NodeId) -> bool {
        self.is_voter(id) || self.is_learner(id)
    }

    /// Everyone who receives the log, in ascending order.
    pub fn members(&self) -> Vec<NodeId> {
        sorted([&self.voters[..], &self.voters_outgoing, &self.learners].concat())
    }

    /// Both sides of the quorum.
    pub fn sides(&self) -> [&[NodeId]; 2] {
        [&self.voters, &self.voters_outgoing]
    }

    /// The configuration after `change`.
    ///
    /// # Errors
    /// If the change does not fit this configuration; then nothing changes, on every member alike.
    pub fn changed(&self, change: &ConfChangeV2) -> Result<ConfState, MembershipError> {
        let next = match change.enters_joint() {
            _ if change.leaves_joint() => self.left()?,
            _ if self.is_joint() => return Err(MembershipError::AlreadyJoint),
            Some(auto_leave) => self.joined(auto_leave, &change.changes)?,
            None => self.simply_changed(&change.changes)?,
        };
        next.check()?;
        Ok(next)
    }

    fn simply_changed(&self, changes: &[Change]) -> Result<ConfState, MembershipError> {
        let mut next = self.clone();
        next.edit(changes)?;
        let came = next.voters.iter().filter(|id| !self.voters.contains(id)).count();
        let went = self.voters.iter().filter(|id| !next.voters.contains(id)).count();
        if came + went > 1 { Err(MembershipError::TooMuchAtOnce) } else { Ok(next) }
    }

    fn joined(&self, auto_leave: bool, changes: &[Change]) -> Result<ConfState, MembershipError> {
        if self.voters.is_empty() {
            return Err(MembershipError::NoVoters);
        }
        let mut next = self.clone();
        next.voters_outgoing = self.voters.clone();
        next.edit(changes)?;
        next.auto_leave = auto_leave;
        Ok(next)
    }

    fn left(&self) -> Result<ConfState, MembershipError> {
        if !self.is_joint() {
            return Err(MembershipError::NotJoint);
        }
        let learners = sorted([&self.learners[..], &self.learners_next].concat());
        Ok(ConfState { voters: self.voters.clone(), learners, ..ConfState::default() })
    }

    fn edit(&mut self, changes: &[Change]) -> Result<(), MembershipError> {
        for change in changes {
            // A change that the machine refused when it was applied arrives with nobody's id.
            if change.node == NodeId(0) {
                continue;
            }
            match change.kind {
                ChangeKind::AddNode => {
                    self.forget(change.node);
                    self.voters.push(change.node);
                }
                ChangeKind::AddLearnerNode => {
                    self.forget(change.node);
                    // A voter of the old majority keeps voting there until the change is complete.
                    if self.voters_outgoing.contains(&change.node) {
                        self.learners_next.push(change.node);
                    } else {
                        self.learners.push(change.node);
                    }
                }
                ChangeKind::RemoveNode => self.forget(change.node),
                ChangeKind::UpdateNode => {}
            }
        }
        if self.voters.is_empty() {
            return Err(MembershipError::NoVoters);
        }
        for list in [&mut self.voters, &mut self.learners, &mut self.learners_next] {
            list.sort_unstable();
        }
        Ok(())
    }

    /// Takes `id` out of everything but the old majority.
    fn forget(&mut self, id: NodeId) {
        for list in [&mut self.voters, &mut self.learners, &mut self.learners_next] {
            list.retain(|other| *other != id);
        }
    }

    /// Sorts every list and checks that they agree with each other.
    ///
    /// # Errors
    /// If they do not.
    pub fn normalized(mut self) -> Result<ConfState, MembershipError> {
        for list in [&mut self.voters, &mut self.learners, &mut self.voters_outgoing, &mut self.learners_next]
        {
            list.sort_unstable();
        }
        self.check()?;
        Ok(self)
    }

    fn check(&self) -> Result<(), MembershipError> {
        for list in [&self.voters, &self.learners, &self.voters_outgoing, &self.learners_next] {
            if let Some(pair) = list.windows(2).find(|pair| pair[0] >= pair[1]) {
                return Err(MembershipError::Inconsistent(pair[1]));
            }
            if list.first() == Some(&NodeId(0)) {
                return Err(MembershipError::Inconsistent(NodeId(0)));
            }
        }
        if let Some(id) = self.learners.iter().find(|id| self.is_voter(**id)) {
            return Err(MembershipError::Inconsistent(*id));
        }
        let misplaced = |id: &&NodeId| !self.voters_outgoing.contains(id) || self.voters.contains(id);
        if let Some(id) = self.learners_next.iter().find(misplaced) {
            return Err(MembershipError::Inconsistent(*id));
        }
        if self.auto_leave && !self.is_joint() {
            return Err(MembershipError::NotJoint);
        }
        if self.voters.is_empty() && !self.voters_outgoing.is_empty() {
            return Err(MembershipError::NoVoters);
        }
        Ok(())
    }
}

fn sorted(mut ids: Vec<NodeId>) -> Vec<NodeId> {
    ids.sort_unstable();
    ids.dedup();
    ids
}
