//! Raft: several members agree on one log.
mod config;
mod log;
pub mod membership;
mod message;
mod progress;
pub mod quorum;
mod raft;
mod read;
mod ready;
mod rng;
mod role;
mod status;
mod types;

pub use config::{Config, Limits};
pub use membership::{Change, ChangeKind, ConfChange, ConfChangeV2, MembershipError, Transition};
pub use message::{Answer, Body, Candidacy, Context, Message, Rejection};
pub use raft::{Error, Raft};
pub use ready::{DropReason, Persist, Proposal, ReadOutcome, Ready, RoleKind, SoftState};
pub use status::{FlowKind, PeerStatus, Status};
pub use types::{
    ConfState, Entry, EntryKind, HardState, Index, NodeId, PersistId, ReadId, Restored, Snapshot,
    SnapshotMeta, Term,
};
