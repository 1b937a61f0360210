//! What goes into a node and what comes out of it.

use raft::{
    ConfChangeV2, ConfState, DropReason, Entry, Index, LogRead, Message, NodeId, Persist, PersistId,
    Proposal, ReadId, RoleKind, Snapshot, Term,
};

/// Something happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// One tick of time has passed. After a pause give one, not all that were missed.
    Tick,
    /// This member has not run for an election timeout or more. Give this before anything else that
    /// waits: a leader steps down unless it is alone, a follower starts to wait anew.
    Stalled,
    /// A message of another member.
    Receive(Message),
    /// Commands for the log.
    Propose(Vec<Proposal>),
    /// All reads that wait at this moment want to know how far they must be applied. Answered once,
    /// by [`Effect::ReadReady`] or [`Effect::ReadDropped`]. Ids are the caller's choice.
    ReadIndex(ReadId),
    /// Every [`Effect::Persist`] up to and including this one is durable. Those that need no sync
    /// are acknowledged together with a later one, or when they are written.
    Persisted(PersistId),
    /// Everything handed out by [`Effect::Apply`] and [`Effect::Install`] up to here is applied. An
    /// install is reported by itself, before anything after it is applied.
    Applied(Index),
    /// A configuration entry takes effect. Given while the machine applies that entry, before the
    /// [`Input::Applied`] that covers it. A change that the machine refuses is not given.
    ApplyConfChange(ConfChangeV2),
    /// Campaign at once. A lone voter is told so when it starts, and need not wait for silence.
    Campaign,
    /// Hand leadership over to this member.
    TransferLeader(NodeId),
    /// The process of this member has ended: its connections closed, and new ones are refused. A
    /// hint: nobody's safety rests on it, but a leader that is gone is replaced without waiting for
    /// its silence to grow long.
    LeaderGone(NodeId),
    /// What [`Effect::ReadLog`] asked for.
    LogRead {
        /// For whom.
        to: NodeId,
        /// As it was asked.
        after: Index,
        /// The term of the entry there.
        after_term: Term,
        /// What follows it; nothing if the log on disk has let go of it.
        entries: Vec<Entry>,
    },
    /// Messages to this member seem to be lost.
    Unreachable(NodeId),
    /// The snapshot that [`Effect::MakeSnapshot`] asked for; its body may travel by another road.
    Snapshot {
        /// For whom.
        to: NodeId,
        /// Made of this member's machine, at an index that it has reported as applied.
        snapshot: Snapshot,
    },
    /// What became of a snapshot for this member, also if it could not even be made.
    SnapshotSent {
        /// For whom it was.
        to: NodeId,
        /// Whether it arrived whole.
        arrived: bool,
    },
}

/// Something is to be done. Effects of one [`crate::Node::handle`] are carried out in their order,
/// each kind in a place of its own: writes on the disk's thread, batches on the machine's.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Write, in the order of ids; answer with [`Input::Persisted`] once durable. Several may be
    /// under way.
    Persist(Persist),
    /// Send each to its `to`, in order as far as possible. Loss is allowed.
    Send(Vec<Message>),
    /// Replace the machine's state by this snapshot, before what is applied next. Its record in
    /// the log is durable already.
    Install(Snapshot),
    /// Committed and durable here: apply, in order. Every entry comes exactly once in the life of
    /// a node, and none that was in `Restored::applied`.
    Apply(Vec<Entry>),
    /// This configuration is in force now, after [`Input::ApplyConfChange`] or a snapshot.
    Configured(ConfState),
    /// Reads under `id` are linearizable once `index` is applied.
    ReadReady {
        /// The question.
        id: ReadId,
        /// What must be applied.
        index: Index,
    },
    /// There is no answer under the present leadership, or none known: ask again.
    ReadDropped {
        /// The question.
        id: ReadId,
    },
    /// This proposal never entered a log, and never will.
    Dropped {
        /// Its [`Proposal::id`].
        id: u64,
        /// Why.
        reason: DropReason,
    },
    /// That member needs entries that memory no longer has: read them from the disk and answer with
    /// [`Input::LogRead`]. All of them are durable, applied, and final.
    ReadLog(LogRead),
    /// That member is too far behind for the log: answer with [`Input::Snapshot`], or with
    /// [`Input::SnapshotSent`] if none can be made.
    MakeSnapshot {
        /// Who needs it.
        to: NodeId,
    },
    /// Somebody else leads, or nobody, or the role or term changed.
    SoftState {
        /// The leader of `term`, if known.
        leader: Option<NodeId>,
        /// What this member is.
        role: RoleKind,
        /// The newest term.
        term: Term,
    },
}
