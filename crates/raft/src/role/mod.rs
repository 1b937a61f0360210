//! The three roles. What belongs to a role exists only while a member has it.

mod candidate;
mod follower;
mod leader;
mod replicate;

pub(crate) use candidate::{Candidate, Round};
pub(crate) use follower::Follower;
pub(crate) use leader::Leader;

use crate::ready::RoleKind;

#[derive(Debug)]
pub(crate) enum Role {
    Follower(Follower),
    Candidate(Candidate),
    Leader(Leader),
}

impl Role {
    pub(crate) fn kind(&self) -> RoleKind {
        match self {
            Role::Follower(_) => RoleKind::Follower,
            Role::Candidate(Candidate { round: Round::Pre, .. }) => RoleKind::PreCandidate,
            Role::Candidate(_) => RoleKind::Candidate,
            Role::Leader(_) => RoleKind::Leader,
        }
    }
}
