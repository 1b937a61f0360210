//! Drives one raft: what is on disk before what is sent or applied.
//!
//! A raft says what it wants; somebody must carry it out in an order that keeps its promises. That
//! order is the whole content of this crate, so that the same driver runs under a real server and in
//! a simulation: [`Node::handle`] takes one [`Input`] and appends [`Effect`]s, and there is nothing
//! else. No thread, no clock, no I/O.
//!
//! # The road of a write, one voter
//!
//! | input | effects |
//! |---|---|
//! | `Propose([a, b])` | `Persist { id: 3, entries: [4: a, 5: b] }` |
//! | `Propose([c])` | `Persist { id: 4, entries: [6: c] }`: nothing waits for the disk |
//! | `Persisted(3)` | `Apply([4: a, 5: b])`: one voter commits what is durable, and nothing else |
//! | `Applied(5)` | nothing; but the log in memory may let go of them |
//! | `Persisted(4)` | `Apply([6: c])` |
//!
//! With more voters `Propose` also gives a `Send`, beside the `Persist` and not after it, and `Apply`
//! comes when a majority has said that it is durable there.
//!
//! # What a node adds to a raft
//!
//! - Promises: votes and acknowledgements are held back until the writes they rest on are durable,
//!   and leave in front of whatever follows from that.
//! - A leader whose disk does not answer for an election timeout hands over to a member whose disk
//!   is ahead of it. If all disks are slow nobody is, and it stays.
//!
//! # What its driver must do
//!
//! Give messages before ticks; after a pause give [`Input::Stalled`] and then one tick, not all that
//! were missed. [`Letters`] and [`Pump`] see to that: whatever has happened is posted as letters, in
//! any order, and a turn of the pump hands over all of them. Reads that arrive one by one share rounds
//! by [`Rounds`].
//!
//! Treat a failed write as the end: a [`Persist`] that is not durable must never be followed by one
//! that is. And give every start another [`Config::seed`].

mod effect;
mod letters;
mod node;
mod pump;
mod rounds;

pub use effect::{Effect, Input};
pub use letters::Letters;
pub use node::Node;
pub use pump::{Pump, votes_alone};
pub use raft::{
    Answer, Body, Candidacy, Change, ChangeKind, ConfChange, ConfChangeV2, ConfState, Config, DropReason,
    Entry, EntryKind, Error, FlowKind, HardState, Index, Limits, LogRead, MembershipError, Message, NodeId,
    PeerStatus, Persist, PersistId, Proposal, ReadId, Rejection, Restored, RoleKind, Snapshot, SnapshotMeta,
    Status, Term, Transition,
};
pub use rounds::Rounds;
