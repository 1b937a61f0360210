//! What a Raft wants done, and in which order.
//!
//! The order is in the types: `persist` goes to disk; `messages` may leave at once; `promises` are
//! votes and acknowledgements, whose truth rests on the disk, and leave only once `persist` *and
//! every write before it* are durable; `committed` is already durable here and on a quorum.

use crate::message::Message;
use crate::types::{Entry, EntryKind, HardState, Index, NodeId, PersistId, ReadId, Snapshot, Term};
use std::sync::Arc;

/// All that has piled up since the last call of [`crate::Raft::ready`].
#[derive(Debug, Default)]
pub struct Ready {
    /// To disk, in this order of ids. Several may be under way.
    pub persist: Option<Persist>,
    /// May leave at once.
    pub messages: Vec<Message>,
    /// May leave once `persist` and all writes before it are durable.
    pub promises: Vec<Message>,
    /// A snapshot, durable in the log, that replaces the machine's state before `committed`.
    pub install: Option<Snapshot>,
    /// To be applied, in order; each entry is handed out exactly once.
    pub committed: Vec<Entry>,
    /// Answers to [`crate::Raft::read_index`].
    pub reads: Vec<ReadOutcome>,
    /// Proposals that never entered this member's log nor left for the leader's.
    pub dropped: Vec<(u64, DropReason)>,
    /// Members that need entries that memory no longer has: answer each with
    /// [`crate::Raft::provide_log`].
    pub log_reads: Vec<LogRead>,
    /// Members that need a snapshot: answer each with [`crate::Raft::provide_snapshot`].
    pub snapshots_wanted: Vec<NodeId>,
    /// Who leads, if that changed.
    pub soft_state: Option<SoftState>,
}

/// One write to the log on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Persist {
    /// Its number, larger than that of every write before.
    pub id: PersistId,
    /// If it changed.
    pub hard_state: Option<HardState>,
    /// New entries. The first may overwrite an earlier one of the same index; then everything
    /// after that place is gone too.
    pub entries: Vec<Entry>,
    /// Replaces the whole log up to its index, before `entries` are written.
    pub snapshot: Option<Snapshot>,
    /// Whether something waits for this write: if not, it may ride along with a later one.
    pub must_sync: bool,
}

/// A part of the log on disk, wanted for a member that is behind the part in memory.
///
/// All that lies in it is committed and durable here, and so will never change: an answer is true
/// however late it comes. Beyond `upto` that is not so; the answer must not reach there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogRead {
    /// For whom. There is one such question at a time for each member.
    pub to: NodeId,
    /// The entries wanted come after this one, whose term is wanted too.
    pub after: Index,
    /// The last entry wanted.
    pub upto: Index,
    /// As many entries as fit into this, as counted by [`Entry::size`], but at least one.
    pub bytes: usize,
}

/// A command on its way into the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The caller's name for it, used only to say that it was dropped.
    pub id: u64,
    /// What `data` means.
    pub kind: EntryKind,
    /// The payload.
    pub data: Arc<[u8]>,
    /// If set: appended by this very member while it leads in this term, or not at all. It is never
    /// passed on to another leader, who may know better.
    pub only_in: Option<Term>,
}

/// Why a proposal certainly had no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// Nobody leads, as far as this member knows.
    NoLeader,
    /// The leader is handing over.
    Transferring,
    /// Too many bytes wait to be committed.
    Backlog,
    /// The leader is no longer a member.
    NotMember,
    /// Another configuration change has not been applied yet.
    ConfChangePending,
    /// The change makes no sense on top of the present configuration.
    ConfChangeInvalid,
    /// This member does not lead in the term that the proposal is bound to.
    OtherTerm,
}

/// The answer to one read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// Reads are linearizable once this index is applied.
    Ready {
        /// Which question.
        id: ReadId,
        /// What must be applied.
        index: Index,
    },
    /// Leadership was lost or never known: ask again.
    Dropped {
        /// Which question.
        id: ReadId,
    },
}

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RoleKind {
    /// Follows, or waits for somebody to follow.
    Follower,
    /// Asks whether it could win.
    PreCandidate,
    /// Asks to be elected.
    Candidate,
    /// Leads.
    Leader,
}

/// Who leads, as far as this member knows; never on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SoftState {
    /// The leader of `term`, if known.
    pub leader: Option<NodeId>,
    /// What this member is.
    pub role: RoleKind,
    /// The newest term seen.
    pub term: Term,
}
