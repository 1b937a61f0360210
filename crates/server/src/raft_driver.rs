//! Whoever has something for raft drives it: letters in, effects out.
//!
//! Raft has no thread. Its node sits behind a lock; a thread that posts letters then tries to take
//! the lock, and if it gets it, hands over everything that waits, its own letters and others'. If
//! it does not get it, the holder looks into the inbox once more after letting go, so no letter is
//! left lying. This saves two thread switches per batch: a shard's read round is usually answered
//! on the spot, and the WAL thread commits what it has just synced.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use api::etcdserverpb::RequestHeader;
use api::raft_request::{self, Command};
use apply::Rejection;
use auth::Caller;
use node::{Body, DropReason, Effect, Index, Letters, Message, Node, NodeId, Pump, RoleKind, Status};
use parking_lot::Mutex;

use crate::apply_thread::ApplyJob;
use crate::error::Error;
use crate::member::Member;
use crate::proposal::{Answer, RequestId};
use crate::wal_thread::WalJob;

/// The node and what is on its way in and out.
pub(crate) struct Driver {
    core: Mutex<Core>,
    /// Set where a thread panicked in the node: it must not be used again.
    broken: AtomicBool,
}

struct Core {
    pump: Pump,
    letters: Letters,
    effects: Vec<Effect>,
    outgoing: Vec<Message>,
}

/// Marks the driver as broken when a panic passes by.
struct Breaks<'a>(&'a AtomicBool);

impl Drop for Breaks<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Release);
        }
    }
}

impl Driver {
    /// A driver of `node`, whose machine has applied up to `applied`, and in whose log the last
    /// committed configuration entry is `configured`.
    pub(crate) fn new(node: Node, applied: Index, configured: Index) -> Self {
        let core = Core {
            pump: Pump::new(node, applied, configured),
            letters: Letters::default(),
            effects: Vec::new(),
            outgoing: Vec::new(),
        };
        Self { core: Mutex::new(core), broken: AtomicBool::new(false) }
    }

    /// Gives raft all letters that wait, unless another thread is about to.
    pub(crate) fn drive(&self, member: &Arc<Member>) {
        while !member.inbox().is_empty() {
            let Some(mut core) = self.core.try_lock() else { return };
            if self.broken.load(Ordering::Acquire) {
                return;
            }
            let _breaks = Breaks(&self.broken);
            core.turn(member);
        }
    }

    /// A picture of raft. Waits for a turn that is under way, and so must not be called in one.
    pub(crate) fn status(&self, member: &Arc<Member>) -> Status {
        let status = self.core.lock().pump.status();
        // What was posted meanwhile was left to whoever held the lock.
        self.drive(member);
        status
    }
}

impl Core {
    fn turn(&mut self, member: &Arc<Member>) {
        let Self { pump, letters, effects, outgoing } = self;
        member.inbox().take(letters);
        pump.turn(letters, member.now(), effects);
        for effect in effects.drain(..) {
            carry_out(member, effect, outgoing);
        }
        if !outgoing.is_empty() {
            send(member, outgoing);
        }
    }
}

/// Every effect of raft, in the one order that they come in. Nothing here waits: what takes time is
/// handed to the thread whose work it is.
fn carry_out(member: &Arc<Member>, effect: Effect, outgoing: &mut Vec<Message>) {
    match effect {
        Effect::Persist(persist) => member.wal_queue().push(WalJob::Persist(persist)),
        Effect::Send(messages) => outgoing.extend(messages),
        Effect::Install(snapshot) => {
            member.raft().set_committed(snapshot.meta.index.0);
            member.apply_queue().push(ApplyJob::Install(snapshot));
        }
        Effect::Apply(entries) => {
            if let Some(last) = entries.last() {
                member.raft().set_committed(last.index.0);
            }
            member.apply_queue().push(ApplyJob::Entries(entries));
        }
        Effect::ReadReady { id, index } => member.confirm_read(id, index),
        Effect::ReadDropped { id } => member.post_read(id, Err(Error::NoLeader)),
        Effect::Dropped { id, reason } => dropped(member, RequestId(id), reason),
        Effect::ReadLog(read) => member.log_reads().push(read),
        Effect::MakeSnapshot { to } => member.snapshots().make(member, to),
        // The machine knows who is a member: it has told raft.
        Effect::Configured(conf_state) => {
            member.raft().set_alone(node::votes_alone(&conf_state, NodeId(member.id())));
        }
        Effect::SoftState { leader, role, term } => {
            member.leadership_changed(term, leader, role == RoleKind::Leader);
        }
    }
}

/// All messages of a turn leave together; a snapshot takes its body along.
fn send(member: &Arc<Member>, outgoing: &mut Vec<Message>) {
    let is_snapshot = |message: &mut Message| matches!(message.body, Body::Snapshot(_));
    for message in outgoing.extract_if(.., is_snapshot) {
        member.snapshots().send(member, message);
    }
    member.heartbeats(outgoing);
    member.peers().send(std::mem::take(outgoing));
}

fn dropped(member: &Member, id: RequestId, reason: DropReason) {
    let answer = match reason {
        // In nobody's log, and will be when there is a leader again, or the change before it is over.
        DropReason::NoLeader
        | DropReason::Transferring
        | DropReason::NotMember
        | DropReason::ConfChangePending => Answer::Postponed,
        DropReason::Backlog => Answer::Failed(Error::TooManyRequests),
        // Of the changes that can be asked for, only the removal of the last voter.
        DropReason::ConfChangeInvalid => Answer::Applied(Err(Rejection::NoVoters), None),
        // A proposal that only one reign's leader may make has nobody who waits for it.
        DropReason::OtherTerm => return,
    };
    if matches!(answer, Answer::Failed(_)) {
        member.metrics().proposals_failed.inc();
    }
    member.post_answer(id, answer);
}

/// Encodes a request that the member itself makes, perhaps only as the leader of a certain term, in
/// somebody's name or nobody's; nobody waits for its answer.
pub(crate) fn own_proposal(
    command: &impl Command,
    only_in: Option<raft::Term>,
    name: Caller,
) -> node::Proposal {
    let header = RequestHeader { id: 0, username: name.user, auth_revision: name.revision };
    let data = raft_request::encode_as(&header, command).into();
    node::Proposal { id: u64::MAX, kind: raft::EntryKind::Normal, data, only_in }
}
