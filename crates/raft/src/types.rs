//! The nouns everyone shares: numbers that must not be swapped, entries, and what is on disk.

use std::fmt;
use std::sync::Arc;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

number! {
    /// A member of the cluster. Zero is nobody: on the wire it stands for "none".
    NodeId
}
number! {
    /// A reign: at most one leader is elected in each.
    Term
}
number! {
    /// A place in the log. The first entry is 1; zero is the place before it.
    Index
}
number! {
    /// Names one write handed to storage; later writes have larger ids.
    PersistId
}
number! {
    /// Names one question "up to where must I have applied to read now?", chosen by the caller.
    ReadId
}

impl Term {
    /// The term after this one.
    pub fn next(self) -> Term {
        Term(self.0 + 1)
    }
}

impl Index {
    /// The place after this one.
    pub fn next(self) -> Index {
        Index(self.0 + 1)
    }

    /// The place before this one; the place before the beginning is the beginning.
    pub fn prev(self) -> Index {
        Index(self.0.saturating_sub(1))
    }
}

/// What an entry's bytes mean, as in raftpb.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A command for the replicated machine; empty bytes are a no-op.
    #[default]
    Normal,
    /// An encoded `raftpb.ConfChange`.
    ConfChange,
    /// An encoded `raftpb.ConfChangeV2`; empty bytes leave a joint configuration.
    ConfChangeV2,
    /// A kind with this number that only later versions know, below 128. It goes through the log like
    /// any other entry; it is who applies it that cannot go on (A10).
    Unknown(u8),
}

impl EntryKind {
    /// Its number in raftpb.
    pub fn number(self) -> u8 {
        match self {
            EntryKind::Normal => 0,
            EntryKind::ConfChange => 1,
            EntryKind::ConfChangeV2 => 2,
            EntryKind::Unknown(number) => number,
        }
    }

    /// The kind of this number; none if it takes more than one byte on the wire.
    pub fn of(number: u64) -> Option<EntryKind> {
        match number {
            0 => Some(EntryKind::Normal),
            1 => Some(EntryKind::ConfChange),
            2 => Some(EntryKind::ConfChangeV2),
            number => u8::try_from(number).ok().filter(|number| *number < 0x80).map(EntryKind::Unknown),
        }
    }
}

/// One place of the log and what stands there. Cloning shares the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The term of the leader that created it.
    pub term: Term,
    /// Where it stands.
    pub index: Index,
    /// What `data` means.
    pub kind: EntryKind,
    /// The payload, opaque to Raft unless it changes the configuration.
    pub data: Arc<[u8]>,
}

impl Entry {
    /// Bytes this entry is charged with in every bound: its payload, itself and the allocation's
    /// two counters.
    pub fn size(&self) -> usize {
        self.data.len() + size_of::<Entry>() + 2 * size_of::<usize>()
    }

    /// Whether it changes the configuration.
    pub fn is_conf_change(&self) -> bool {
        matches!(self.kind, EntryKind::ConfChange | EntryKind::ConfChangeV2)
    }
}

/// What a member must remember besides its log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The newest term seen.
    pub term: Term,
    /// Whom it voted for in that term.
    pub vote: Option<NodeId>,
    /// The last entry known to be committed. A hint: forgetting some of it costs time, not safety.
    pub commit: Index,
}

/// The configuration as it travels and as it is stored, `raftpb.ConfState`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfState {
    /// Who votes. While the configuration is joint: the new majority.
    pub voters: Vec<NodeId>,
    /// Who receives the log without counting.
    pub learners: Vec<NodeId>,
    /// The old majority while the configuration is joint, else empty.
    pub voters_outgoing: Vec<NodeId>,
    /// Voters of the old majority that become learners when the joint configuration is left.
    pub learners_next: Vec<NodeId>,
    /// Whether the leader leaves the joint configuration by itself.
    pub auto_leave: bool,
}

/// Where a snapshot stands in the log, and the configuration there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// The configuration after the entry at `index`.
    pub conf_state: ConfState,
    /// The last entry the snapshot contains.
    pub index: Index,
    /// That entry's term.
    pub term: Term,
}

/// A snapshot as it travels; the body may be elsewhere, `data` is opaque to Raft.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Where it stands.
    pub meta: SnapshotMeta,
    /// Whatever the machine wants to send along.
    pub data: Arc<[u8]>,
}

/// What a member was found to have when it started.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// The last hard state on disk.
    pub hard_state: HardState,
    /// Where the log begins: `index` and `term` of the entry before the first of `entries`.
    /// Its `conf_state` is the configuration at `applied`.
    pub snapshot: SnapshotMeta,
    /// The log after `snapshot.index`, without gaps.
    pub entries: Vec<Entry>,
    /// The last entry whose effects the machine has. Never below `snapshot.index`.
    pub applied: Index,
}
