//! What a member looks like from outside.

use crate::progress::{Flow, Progress};
use crate::raft::Raft;
use crate::ready::RoleKind;
use crate::role::Role;
use crate::types::{ConfState, HardState, Index, NodeId, Term};

/// A picture of one member at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Which member.
    pub id: NodeId,
    /// What it is.
    pub role: RoleKind,
    /// Who leads, if known.
    pub leader: Option<NodeId>,
    /// Term, vote and commit index, durable or not.
    pub hard_state: HardState,
    /// The last place not in memory.
    pub begin: Index,
    /// The last entry.
    pub last: Index,
    /// That entry's term.
    pub last_term: Term,
    /// The last entry that is durable here.
    pub stable: Index,
    /// The last entry the machine has applied.
    pub applied: Index,
    /// Bytes of the log in memory.
    pub log_bytes: usize,
    /// The configuration in force here.
    pub conf_state: ConfState,
    /// Questions for a read index that wait.
    pub reads_waiting: usize,
    /// To whom this leader is handing over.
    pub transferee: Option<NodeId>,
    /// What a leader knows of the others, in ascending order of their ids; else empty.
    pub peers: Vec<PeerStatus>,
}

/// What a leader knows of another member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Which member.
    pub id: NodeId,
    /// Its log is known to equal the leader's up to here.
    pub matched: Index,
    /// What is sent next.
    pub next: Index,
    /// How.
    pub flow: FlowKind,
    /// Messages on their way.
    pub window: usize,
    /// Bytes on their way.
    pub window_bytes: usize,
    /// Whether it was heard of within the last election timeout or so.
    pub active: bool,
    /// Whether it listens without voting.
    pub learner: bool,
}

/// How a leader sends to another member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FlowKind {
    /// One message at a time, until one matches.
    Probe,
    /// Optimistically.
    Replicate,
    /// Not at all: a snapshot is on its way.
    Snapshot,
}

impl Raft {
    /// A picture of this member. Not free: it lists the peers.
    pub fn status(&self) -> Status {
        let (peers, transferee, reads) = match &self.role {
            Role::Leader(leader) => {
                let peer = |(id, progress): (&NodeId, &Progress)| self.peer_status(*id, progress);
                let transferee = leader.transfer.as_ref().map(|transfer| transfer.to);
                (leader.progress.iter().map(peer).collect(), transferee, leader.reads.len())
            }
            Role::Follower(follower) => (Vec::new(), None, follower.forwarded.len()),
            Role::Candidate(_) => (Vec::new(), None, 0),
        };
        Status {
            id: self.config.id,
            role: self.role.kind(),
            leader: self.leader(),
            hard_state: self.hard_state(),
            begin: self.log.begin(),
            last: self.log.last(),
            last_term: self.log.last_term(),
            stable: self.log.stable(),
            applied: self.log.applied(),
            log_bytes: self.log.bytes(),
            conf_state: self.membership.clone(),
            reads_waiting: reads,
            transferee,
            peers,
        }
    }

    fn peer_status(&self, id: NodeId, progress: &Progress) -> PeerStatus {
        let (flow, window, window_bytes) = match &progress.flow {
            Flow::Probe { .. } => (FlowKind::Probe, 0, 0),
            Flow::Replicate { window, .. } => (FlowKind::Replicate, window.len(), window.bytes()),
            Flow::Snapshot { .. } => (FlowKind::Snapshot, 0, 0),
        };
        PeerStatus {
            id,
            matched: progress.matched,
            next: progress.next,
            flow,
            window,
            window_bytes,
            active: progress.active,
            learner: self.membership.is_learner(id),
        }
    }
}
