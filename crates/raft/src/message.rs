//! What members say to each other.
//!
//! Every [`Body`] is one `raftpb.MessageType` and back; fields keep raftpb's meaning. The types that
//! etcd's Raft uses to talk to itself (`MsgHup`, `MsgBeat`, `MsgCheckQuorum`, `MsgUnreachable`,
//! `MsgSnapStatus`, `MsgForgetLeader`, `MsgStorage*`) never cross the wire; they are method calls
//! here.

use crate::types::{Entry, Index, NodeId, Snapshot, Term};
use std::sync::Arc;

/// Bytes that the receiver echoes and never interprets.
pub type Context = Arc<[u8]>;

/// One message between two members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who shall receive it.
    pub to: NodeId,
    /// Who sent it. For [`Body::TransferLeader`]: who shall become leader.
    pub from: NodeId,
    /// The sender's term, or the term asked for by a (pre-)vote and its grant. Zero for
    /// [`Body::Propose`] and [`Body::ReadIndex`], which are valid in any term.
    pub term: Term,
    /// What is said.
    pub body: Body,
}

/// The part of a message that differs by type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// `MsgProp`: please append these; their `term` and `index` mean nothing.
    Propose {
        /// What to append.
        entries: Vec<Entry>,
    },
    /// `MsgApp`: the entries after `prev_index`, which has `prev_term` in the leader's log.
    Append {
        /// raftpb `index`.
        prev_index: Index,
        /// raftpb `logTerm`.
        prev_term: Term,
        /// What follows; empty when only `commit` is news.
        entries: Vec<Entry>,
        /// The leader's commit index.
        commit: Index,
    },
    /// `MsgAppResp`: the log equals the leader's up to `index`, or it does not.
    AppendResponse {
        /// Matched up to here; of a rejection: the `prev_index` that did not match.
        index: Index,
        /// raftpb `reject`, with `rejectHint` and `logTerm`.
        reject: Option<Rejection>,
    },
    /// `MsgVote`: elect me in `term`.
    Vote(Candidacy),
    /// `MsgVoteResp`.
    VoteResponse(Answer),
    /// `MsgPreVote`: would you elect me in `term`?
    PreVote(Candidacy),
    /// `MsgPreVoteResp`.
    PreVoteResponse(Answer),
    /// `MsgSnap`: your log ends before mine begins; start from this.
    Snapshot(Snapshot),
    /// `MsgHeartbeat`: I lead.
    Heartbeat {
        /// What the receiver may commit: never beyond what it is known to have.
        commit: Index,
        /// A read round to be echoed, or empty.
        context: Context,
    },
    /// `MsgHeartbeatResp`: yes, in this term you do.
    HeartbeatResponse {
        /// Echo of the heartbeat's context.
        context: Context,
    },
    /// `MsgTransferLeader`: the leader is asked to hand over to the message's `from`.
    TransferLeader,
    /// `MsgTimeoutNow`: campaign at once, the leader wants it.
    TimeoutNow,
    /// `MsgReadIndex`: a follower asks for a read index.
    ReadIndex {
        /// raftpb `entries[0].data`.
        context: Context,
    },
    /// `MsgReadIndexResp`.
    ReadIndexResponse {
        /// Reads wait until this is applied.
        index: Index,
        /// raftpb `entries[0].data`, echoed.
        context: Context,
    },
}

/// Why an append was refused, so that the leader can skip whole terms at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The follower's guess of the last place where both logs may agree.
    pub hint: Index,
    /// Its own term there; zero if it has none.
    pub hint_term: Term,
}

/// What a candidate shows for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidacy {
    /// raftpb `index`.
    pub last_index: Index,
    /// raftpb `logTerm`.
    pub last_term: Term,
    /// raftpb `context` = `CampaignTransfer`: the leader itself asked for this, so that its lease
    /// does not stand in the way.
    pub transfer: bool,
}

/// What a voter says.
///
/// A refusal tells what is committed; etcd neither says nor minds this. Without it two members of a
/// changing cluster could wait for each other forever: one may campaign, as far as it knows, but its
/// log is too short; the other has the log, but also the knowledge that it is not to lead any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Whether the vote is, or would be, refused.
    pub reject: bool,
    /// raftpb `index`: the refuser's commit index; zero if unknown.
    pub commit: Index,
    /// raftpb `logTerm`: the term of the entry there.
    pub commit_term: Term,
}

impl Body {
    /// The name of the raftpb message type.
    pub fn name(&self) -> &'static str {
        match self {
            Body::Propose { .. } => "MsgProp",
            Body::Append { .. } => "MsgApp",
            Body::AppendResponse { .. } => "MsgAppResp",
            Body::Vote(_) => "MsgVote",
            Body::VoteResponse(_) => "MsgVoteResp",
            Body::PreVote(_) => "MsgPreVote",
            Body::PreVoteResponse(_) => "MsgPreVoteResp",
            Body::Snapshot(_) => "MsgSnap",
            Body::Heartbeat { .. } => "MsgHeartbeat",
            Body::HeartbeatResponse { .. } => "MsgHeartbeatResp",
            Body::TransferLeader => "MsgTransferLeader",
            Body::TimeoutNow => "MsgTimeoutNow",
            Body::ReadIndex { .. } => "MsgReadIndex",
            Body::ReadIndexResponse { .. } => "MsgReadIndexResp",
        }
    }

    /// Whether only a leader of the message's term sends this.
    pub(crate) fn is_from_leader(&self) -> bool {
        matches!(self, Body::Append { .. } | Body::Heartbeat { .. } | Body::Snapshot(_))
    }
}
