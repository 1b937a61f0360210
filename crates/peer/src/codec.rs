//! `raft::Message` to `raftpb.Message` and back.
//!
//! What we send is written by hand, straight from raft's types, so that an entry's payload is copied
//! once, to its place in the connection's buffer. Fields that are zero are left out, but for those that
//! every message has; etcd's readers do not care, its writers differ between versions. Entries are
//! written as in the log.
//!
//! What we receive is read by prost and then looked at closely: the other side may be of another make
//! or version, and raft behind us trusts its input. What raft's types cannot say, or what no member
//! could mean, is refused with a word for the log.

use std::fmt;
use std::sync::Arc;

use api::raftpb::{self, MessageType};
use bytes::{Buf, BufMut, BytesMut};
use prost::Message as _;
use raft::{
    Answer, Body, Candidacy, ConfState, Entry, EntryKind, Index, Message, NodeId, Rejection, Snapshot,
    SnapshotMeta, Term,
};

/// The context of a vote request that the leader itself has ordered.
const CAMPAIGN_TRANSFER: &[u8] = b"CampaignTransfer";

/// Indexes and terms from here on are nonsense: counting could overflow behind us.
const SENSELESS: u64 = 1 << 63;

/// Why a message that came is not given to raft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// These are not the bytes of a `raftpb.Message`.
    Malformed,
    /// It is one, but of a type that we do not know or that has no business here.
    Type(i32),
    /// Its fields contradict each other or mean nothing.
    Senseless(&'static str),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Malformed => write!(f, "not a raft message"),
            Refused::Type(number) => match MessageType::try_from(*number) {
                Ok(known) => write!(f, "unexpected message type {}", known.as_str_name()),
                Err(_) => write!(f, "unknown message type {number}"),
            },
            Refused::Senseless(what) => write!(f, "senseless message: {what}"),
        }
    }
}

// ---------------------------------------------------------------- writing

/// Bytes this message is charged with in the bounds of queues.
pub(crate) fn weight(message: &Message) -> usize {
    const FLAT: usize = size_of::<Message>();
    match &message.body {
        Body::Append { entries, .. } | Body::Propose { entries } => {
            FLAT + entries.iter().map(Entry::size).sum::<usize>()
        }
        Body::Snapshot(snapshot) => FLAT + snapshot.data.len(),
        Body::Heartbeat { context, .. }
        | Body::HeartbeatResponse { context }
        | Body::ReadIndex { context }
        | Body::ReadIndexResponse { context, .. } => FLAT + context.len(),
        _ => FLAT,
    }
}

fn message_type(body: &Body) -> MessageType {
    match body {
        Body::Propose { .. } => MessageType::MsgProp,
        Body::Append { .. } => MessageType::MsgApp,
        Body::AppendResponse { .. } => MessageType::MsgAppResp,
        Body::Vote(_) => MessageType::MsgVote,
        Body::VoteResponse(_) => MessageType::MsgVoteResp,
        Body::PreVote(_) => MessageType::MsgPreVote,
        Body::PreVoteResponse(_) => MessageType::MsgPreVoteResp,
        Body::Snapshot(_) => MessageType::MsgSnap,
        Body::Heartbeat { .. } => MessageType::MsgHeartbeat,
        Body::HeartbeatResponse { .. } => MessageType::MsgHeartbeatResp,
        Body::TransferLeader => MessageType::MsgTransferLeader,
        Body::TimeoutNow => MessageType::MsgTimeoutNow,
        Body::ReadIndex { .. } => MessageType::MsgReadIndex,
        Body::ReadIndexResponse { .. } => MessageType::MsgReadIndexResp,
    }
}

/// Appends a `raftpb.Message`.
pub(crate) fn put_message(out: &mut BytesMut, message: &Message) {
    put_number(out, 1, message_type(&message.body) as u64);
    put_number(out, 2, message.to.0);
    put_number(out, 3, message.from.0);
    put_number(out, 4, message.term.0);
    match &message.body {
        Body::Propose { entries } => put_entries(out, entries),
        Body::Append { prev_index, prev_term, entries, commit } => {
            put_some(out, 5, prev_term.0);
            put_some(out, 6, prev_index.0);
            put_entries(out, entries);
            put_some(out, 8, commit.0);
        }
        Body::AppendResponse { index, reject } => {
            put_some(out, 5, reject.map_or(0, |rejection| rejection.hint_term.0));
            put_some(out, 6, index.0);
            if let Some(rejection) = reject {
                put_number(out, 10, 1);
                put_some(out, 11, rejection.hint.0);
            }
        }
        Body::Vote(candidacy) | Body::PreVote(candidacy) => {
            put_some(out, 5, candidacy.last_term.0);
            put_some(out, 6, candidacy.last_index.0);
            put_bytes(out, 12, if candidacy.transfer { CAMPAIGN_TRANSFER } else { &[] });
        }
        Body::VoteResponse(answer) | Body::PreVoteResponse(answer) => {
            put_some(out, 5, answer.commit_term.0);
            put_some(out, 6, answer.commit.0);
            put_some(out, 10, u64::from(answer.reject));
        }
        Body::Snapshot(snapshot) => {
            // Once per snapshot: the long way round is short enough.
            let snapshot = raftpb_snapshot(snapshot).encode_to_vec();
            put_bytes(out, 9, &snapshot);
        }
        Body::Heartbeat { commit, context } => {
            put_some(out, 8, commit.0);
            put_bytes(out, 12, context);
        }
        Body::HeartbeatResponse { context } => put_bytes(out, 12, context),
        Body::TransferLeader | Body::TimeoutNow => {}
        Body::ReadIndex { context } => put_context_entry(out, context),
        Body::ReadIndexResponse { index, context } => {
            put_some(out, 6, index.0);
            put_context_entry(out, context);
        }
    }
}

fn put_entries(out: &mut BytesMut, entries: &[Entry]) {
    for entry in entries {
        out.put_u8(7 << 3 | 2);
        put_varint(out, entry_len(entry) as u64);
        put_entry(out, entry);
    }
}

/// A context travels as the data of a lone entry.
fn put_context_entry(out: &mut BytesMut, context: &[u8]) {
    out.put_u8(7 << 3 | 2);
    put_varint(out, (1 + varint_len(context.len() as u64) + context.len()) as u64);
    out.put_u8(4 << 3 | 2);
    put_varint(out, context.len() as u64);
    out.put_slice(context);
}

/// Bytes of [`put_entry`].
pub(crate) fn entry_len(entry: &Entry) -> usize {
    let numbers = 5 + varint_len(entry.term.0) + varint_len(entry.index.0) - 1;
    let data = entry.data.len();
    numbers + if data == 0 { 0 } else { 1 + varint_len(data as u64) + data }
}

/// Appends a `raftpb.Entry`, as etcd 3.5 writes it into its log.
pub(crate) fn put_entry(out: &mut BytesMut, entry: &Entry) {
    put_number(out, 1, u64::from(entry.kind.number()));
    put_number(out, 2, entry.term.0);
    put_number(out, 3, entry.index.0);
    put_bytes(out, 4, &entry.data);
}

fn put_number(out: &mut BytesMut, field: u8, value: u64) {
    out.put_u8(field << 3);
    put_varint(out, value);
}

fn put_some(out: &mut BytesMut, field: u8, value: u64) {
    if value != 0 {
        put_number(out, field, value);
    }
}

fn put_bytes(out: &mut BytesMut, field: u8, bytes: &[u8]) {
    if !bytes.is_empty() {
        out.put_u8(field << 3 | 2);
        put_varint(out, bytes.len() as u64);
        out.put_slice(bytes);
    }
}

fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

fn raftpb_snapshot(snapshot: &Snapshot) -> raftpb::Snapshot {
    let ids = |ids: &[NodeId]| ids.iter().map(|id| id.0).collect();
    let Snapshot { meta: SnapshotMeta { conf_state, index, term }, data } = snapshot;
    raftpb::Snapshot {
        data: Some(data.to_vec().into()),
        metadata: Some(raftpb::SnapshotMetadata {
            conf_state: Some(raftpb::ConfState {
                voters: ids(&conf_state.voters),
                learners: ids(&conf_state.learners),
                voters_outgoing: ids(&conf_state.voters_outgoing),
                learners_next: ids(&conf_state.learners_next),
                auto_leave: Some(conf_state.auto_leave),
            }),
            index: Some(index.0),
            term: Some(term.0),
        }),
    }
}

// ---------------------------------------------------------------- reading

/// Whether this is what a `message` stream says when it has nothing to say. No member sends raft
/// messages without sender and receiver.
pub(crate) fn is_link_heartbeat(message: &raftpb::Message) -> bool {
    message.r#type() == MessageType::MsgHeartbeat && message.from() == 0 && message.to() == 0
}

/// Reads a `raftpb.Message`; payloads of entries are copied out of `bytes`.
pub(crate) fn decode(bytes: impl Buf) -> Result<raftpb::Message, Refused> {
    raftpb::Message::decode(bytes).map_err(|_| Refused::Malformed)
}

/// Reads one `raftpb.Entry`.
pub(crate) fn decode_entry(bytes: impl Buf) -> Result<Entry, Refused> {
    let entry = raftpb::Entry::decode(bytes).map_err(|_| Refused::Malformed)?;
    to_entry(entry)
}

/// An index or a term that can be counted on from.
pub(crate) fn bounded(number: u64) -> Result<u64, Refused> {
    if number < SENSELESS { Ok(number) } else { Err(Refused::Senseless("a number without bound")) }
}

/// What raft would make of a message.
pub(crate) fn to_raft(message: raftpb::Message) -> Result<Message, Refused> {
    let number = message.r#type.unwrap_or_default();
    let kind = MessageType::try_from(number).map_err(|_| Refused::Type(number))?;
    let limited =
        [message.term(), message.log_term(), message.index(), message.commit(), message.reject_hint()];
    if limited.iter().any(|&value| value >= SENSELESS) {
        return Err(Refused::Senseless("a number without bound"));
    }
    if message.to() == 0 || message.from() == 0 {
        return Err(Refused::Senseless("nobody sent it, or nobody shall have it"));
    }
    let outside_terms = matches!(kind, MessageType::MsgProp | MessageType::MsgReadIndex);
    if !outside_terms && message.term() == 0 {
        return Err(Refused::Senseless("no term"));
    }
    let (to, from) = (NodeId(message.to()), NodeId(message.from()));
    let term = if outside_terms { Term(0) } else { Term(message.term()) };
    Ok(Message { to, from, term, body: to_body(kind, message)? })
}

fn to_body(kind: MessageType, mut message: raftpb::Message) -> Result<Body, Refused> {
    let index = Index(message.index());
    let log_term = Term(message.log_term());
    let commit = Index(message.commit());
    let candidacy = |message: &raftpb::Message| Candidacy {
        last_index: index,
        last_term: log_term,
        transfer: message.context() == CAMPAIGN_TRANSFER,
    };
    let answer =
        |message: &raftpb::Message| Answer { reject: message.reject(), commit: index, commit_term: log_term };
    Ok(match kind {
        MessageType::MsgProp => Body::Propose { entries: to_proposals(message.entries)? },
        MessageType::MsgApp => {
            let term = Term(message.term());
            let entries = message.entries.into_iter().map(to_entry).collect::<Result<Vec<_>, _>>()?;
            check_append(term, index, log_term, &entries)?;
            Body::Append { prev_index: index, prev_term: log_term, entries, commit }
        }
        MessageType::MsgAppResp => Body::AppendResponse {
            index,
            reject: message
                .reject()
                .then(|| Rejection { hint: Index(message.reject_hint()), hint_term: log_term }),
        },
        MessageType::MsgVote => Body::Vote(candidacy(&message)),
        MessageType::MsgVoteResp => Body::VoteResponse(answer(&message)),
        MessageType::MsgPreVote => Body::PreVote(candidacy(&message)),
        MessageType::MsgPreVoteResp => Body::PreVoteResponse(answer(&message)),
        MessageType::MsgSnap => {
            let snapshot = message.snapshot.take().ok_or(Refused::Senseless("a snapshot without one"))?;
            Body::Snapshot(to_snapshot(snapshot)?)
        }
        MessageType::MsgHeartbeat => Body::Heartbeat { commit, context: message.context().into() },
        MessageType::MsgHeartbeatResp => Body::HeartbeatResponse { context: message.context().into() },
        MessageType::MsgTransferLeader => Body::TransferLeader,
        MessageType::MsgTimeoutNow => Body::TimeoutNow,
        MessageType::MsgReadIndex => Body::ReadIndex { context: to_context(&message.entries)? },
        MessageType::MsgReadIndexResp => {
            Body::ReadIndexResponse { index, context: to_context(&message.entries)? }
        }
        MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum
        | MessageType::MsgStorageAppend
        | MessageType::MsgStorageAppendResp
        | MessageType::MsgStorageApply
        | MessageType::MsgStorageApplyResp
        | MessageType::MsgForgetLeader => return Err(Refused::Type(kind as i32)),
    })
}

/// Entries must follow each other without gaps, and their terms must not go back nor pass the leader's.
fn check_append(term: Term, prev_index: Index, prev_term: Term, entries: &[Entry]) -> Result<(), Refused> {
    let (mut last_index, mut last_term) = (prev_index, prev_term);
    for entry in entries {
        last_index = last_index.next();
        if entry.index != last_index {
            return Err(Refused::Senseless("entries that do not follow each other"));
        }
        if entry.term < last_term || entry.term.0 == 0 {
            return Err(Refused::Senseless("entries whose terms go back"));
        }
        last_term = entry.term;
    }
    if last_term > term {
        return Err(Refused::Senseless("entries of a term to come"));
    }
    Ok(())
}

fn to_entry(entry: raftpb::Entry) -> Result<Entry, Refused> {
    let number = u64::try_from(entry.r#type.unwrap_or_default()).ok();
    let kind = number.and_then(EntryKind::of).ok_or(Refused::Senseless("an entry of no kind"))?;
    if entry.term() >= SENSELESS || entry.index() >= SENSELESS {
        return Err(Refused::Senseless("a number without bound"));
    }
    Ok(Entry { term: Term(entry.term()), index: Index(entry.index()), kind, data: entry.data().into() })
}

fn to_proposals(entries: Vec<raftpb::Entry>) -> Result<Vec<Entry>, Refused> {
    if entries.is_empty() {
        return Err(Refused::Senseless("a proposal of nothing"));
    }
    entries.into_iter().map(to_entry).collect()
}

fn to_context(entries: &[raftpb::Entry]) -> Result<Arc<[u8]>, Refused> {
    match entries {
        [entry] => Ok(entry.data().into()),
        _ => Err(Refused::Senseless("a read without its one context")),
    }
}

fn to_snapshot(snapshot: raftpb::Snapshot) -> Result<Snapshot, Refused> {
    let data = snapshot.data().into();
    let meta = snapshot.metadata.ok_or(Refused::Senseless("a snapshot of nothing"))?;
    let (index, term) = (Index(meta.index()), Term(meta.term()));
    if index.0 == 0 || term.0 == 0 || index.0 >= SENSELESS || term.0 >= SENSELESS {
        return Err(Refused::Senseless("a snapshot of nothing"));
    }
    let conf = meta.conf_state.ok_or(Refused::Senseless("a snapshot without members"))?;
    let auto_leave = conf.auto_leave();
    let ids = |ids: Vec<u64>| ids.into_iter().map(NodeId).collect::<Vec<_>>();
    let conf_state = ConfState {
        voters: ids(conf.voters),
        learners: ids(conf.learners),
        voters_outgoing: ids(conf.voters_outgoing),
        learners_next: ids(conf.learners_next),
        auto_leave,
    };
    if conf_state.voters.is_empty() {
        return Err(Refused::Senseless("a snapshot without members"));
    }
    Ok(Snapshot { meta: SnapshotMeta { conf_state, index, term }, data })
}

#[cfg(test)]
mod tests;
