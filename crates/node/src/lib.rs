//! Drives one raft.
mod effect;
mod node;

pub use effect::{Effect, Input};
pub use node::Node;
pub use raft::{
    Answer, Body, Candidacy, Change, ChangeKind, ConfChange, ConfChangeV2, ConfState, Config, DropReason,
    Entry, EntryKind, Error, FlowKind, HardState, Index, Limits, MembershipError, Message, NodeId,
    PeerStatus, Persist, PersistId, Proposal, ReadId, Rejection, Restored, RoleKind, Snapshot, SnapshotMeta,
    Status, Term, Transition,
};
