//! Raft: several members agree on one log.
//!
//! # The problem
//!
//! Every member of a cluster applies the same commands in the same order. Members crash and forget
//! what was not durable; messages are lost, doubled, delayed and overtaken. Still no member may ever
//! apply something else at some place of the log than another, what was acknowledged may never be
//! lost, and as long as a majority can talk to each other things go on.
//!
//! # The idea
//!
//! At most one leader per term, elected by a majority, each of whose members votes once and only for
//! a candidate whose log is no shorter than its own. The leader alone appends; others make their log
//! equal to its. An entry is committed when it is durable on a majority *and* one of the leader's own
//! term stands there or after it; then every later leader has it.
//!
//! This crate is that and nothing else: a value that is poked. [`Raft::step`] takes a message,
//! [`Raft::tick`] lets time pass, [`Raft::propose`] and [`Raft::read_index`] take what clients want,
//! and [`Raft::ready`] says what is to be done. It does no I/O, knows no clock, spawns nothing, and
//! draws its chance from a seed it is given: the same calls give the same answers.
//!
//! # Writes that overlap
//!
//! A disk is slow, so nothing waits for it that need not. Each [`Persist`] is numbered, several may
//! be under way, and [`Raft::persisted`] says how far they have got. What rests on a write waits for
//! it, and for nothing else:
//!
//! | what | waits until |
//! |---|---|
//! | a leader's append, a heartbeat, its echo | nothing: it may leave before the leader's own write |
//! | an acknowledgement, a vote | the write of what it promises, and all before, are durable |
//! | a request for a vote | the candidate's own term, vote and log are durable |
//! | the leader counting itself | its own write is durable: alone, it commits only what is |
//! | applying an entry | it is committed, and durable here |
//!
//! An acknowledged write vouches for its places in the log unless they were cut off meanwhile; the
//! picture in `log.rs` shows all positions that a log keeps track of.
//!
//! # A worked example
//!
//! Three members; 1 leads term 2. `x` is durable, `o` is on its way to the disk:
//!
//! ```text
//!            index   5  6  7  8        matched   may commit
//!   member 1  (2)    x  x  o  o  self: 6         6: a majority, {1, 2}, has it durably, and its
//!   member 2         x  x  x  o        7            term is 2. Not 7: only member 2 has that for
//!   member 3         x  o              5            certain, although two members hold it.
//! ```
//!
//! # Where it differs from etcd's
//!
//! Messages are raftpb's, one to one, and members of both kinds can sit in one cluster. But here
//! - requests for votes wait for the disk, too (see `role/candidate.rs` for what could happen);
//! - who holds two configuration changes knows that the first is committed (see `log.rs`);
//! - a refused candidate is told what is committed, and a leader that has removed itself stays until
//!   a quorum of its successors knows, so that nobody needs the vote of someone who is gone;
//! - all reads that wait share one round, and there is one round at a time (see `read.rs`);
//! - a forwarded question is answered or given up within an election timeout, and is never taken for
//!   one of an earlier life;
//! - who is behind the part of the log in memory gets entries from the leader's disk as long as it has
//!   them, and a snapshot only then;
//! - a proposal may be bound to a term: appended by this member as the leader of that term, or not at
//!   all, so that a deposed leader cannot act through the next one;
//! - where a connection tells that the leader's process has ended, nobody waits for its silence to grow
//!   long ([`Raft::leader_gone`]);
//! - what is sent is worked out once per [`Raft::ready`]: a hundred proposals are one append.
//!
//! # What is left out
//!
//! Leases for reads: clocks lie. Reading the disk: whoever drives this is asked for what a follower
//! needs and memory no longer has ([`Ready::log_reads`]). Decoding commands: entries are bytes, except for
//! changes of the configuration, which [`membership`] reads.
//!
//! # The map
//!
//! `raft` is the member and what holds in every role; `role/` is what each role does; `log`,
//! `progress`, `read`, [`quorum`] and [`membership`] are its parts, each usable without the others;
//! `message`, `ready`, `types`, `status`, `error`, `config` are its words. Start with `tests/golden/`.

mod config;
mod error;
mod founding;
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
pub use error::Error;
pub use founding::{configured, found, survive_alone};
pub use membership::{Change, ChangeKind, ConfChange, ConfChangeV2, MembershipError, Transition};
pub use message::{Answer, Body, Candidacy, Context, Message, Rejection};
pub use raft::Raft;
pub use ready::{DropReason, LogRead, Persist, Proposal, ReadOutcome, Ready, RoleKind, SoftState};
pub use status::{FlowKind, PeerStatus, Status};
pub use types::{
    ConfState, Entry, EntryKind, HardState, Index, NodeId, PersistId, ReadId, Restored, Snapshot,
    SnapshotMeta, Term,
};
