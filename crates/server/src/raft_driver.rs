//! Whoever has something for raft drives it: letters in, effects out.
//!
//! Raft has no thread. Its node sits behind a lock; a thread that posts letters then tries to take
//! the lock, and if it gets it, hands over everything that waits, its own letters and others'. If
//! it does not get it, the holder looks into the inbox once more after letting go, so no letter is
//! left lying. This saves two thread switches per batch: a shard's read round is usually answered
//! on the spot, and the WAL thread commits what it has just synced.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use api::raft_request::{self, Command};
use apply::Rejection;
use node::{Body, ConfState, DropReason, Effect, Index, Input, Message, Node, NodeId, Status};
use parking_lot::Mutex;

use crate::apply_thread::ApplyJob;
use crate::error::Error;
use crate::inbox::{Done, Letters, OfPeer, message_size};
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
    node: Node,
    letters: Letters,
    effects: Vec<Effect>,
    outgoing: Vec<Message>,
    applied: Index,
    start: Start,
    held: Held,
}

/// Proposals of other members that came while nobody would take them: the leader hands over, or has
/// just been lost. Raft would drop them, and their clients would wait in vain; a message that is late
/// does no harm.
#[derive(Default)]
struct Held {
    messages: Vec<Message>,
    bytes: usize,
    since: Option<Instant>,
}

/// How much of them is held, in bytes, and for how long at the most: clients have given up by then.
const MAX_HELD_BYTES: usize = 16 << 20;
const MAX_HELD: Duration = Duration::from_secs(5);

impl Held {
    fn keep(&mut self, message: Message) {
        let size = message_size(&message);
        if self.bytes + size <= MAX_HELD_BYTES {
            self.bytes += size;
            self.since.get_or_insert_with(Instant::now);
            self.messages.push(message);
        }
    }

    /// Gives raft what was held, as if it came from here: whoever sent it may be the leader by now.
    fn release(&mut self, node: &mut Node, effects: &mut Vec<Effect>) {
        if self.since.is_some_and(|since| since.elapsed() > MAX_HELD) {
            *self = Self::default();
        } else if !self.messages.is_empty() && node.takes_proposals() {
            for message in std::mem::take(self).messages {
                let message = Message { from: message.to, ..message };
                node.handle(Input::Receive(message), effects);
            }
        }
    }
}

/// Whether this member votes alone, and so need not wait for an election timeout.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    /// Known once the last configuration entry that the log held at the start is applied.
    KnownAt(Index),
    Over,
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
            node,
            letters: Letters::default(),
            effects: Vec::new(),
            outgoing: Vec::new(),
            applied,
            start: Start::KnownAt(configured),
            held: Held::default(),
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
        let status = self.core.lock().node.status();
        // What was posted meanwhile was left to whoever held the lock.
        self.drive(member);
        status
    }
}

impl Core {
    fn turn(&mut self, member: &Arc<Member>) {
        let Self { node, letters, effects, outgoing, applied, start, held } = self;
        member.inbox().take(letters);
        if let Some(index) = hand_over(letters, node, held, effects) {
            *applied = index;
        }
        held.release(node, effects);
        if matches!(start, Start::KnownAt(index) if *index <= *applied) {
            *start = Start::Over;
            if votes_alone(node.conf_state(), member.id()) {
                node.handle(Input::Campaign, effects);
            }
        }
        // Whoever leads no more must not find itself confirmed by what follows in the same turn (L2).
        for effect in effects.iter() {
            if let Effect::SoftState { leader, role, term } = effect {
                member.leadership_changed(*term, *leader, *role == node::RoleKind::Leader);
            }
        }
        for effect in effects.drain(..) {
            carry_out(member, effect, outgoing);
        }
        if !outgoing.is_empty() {
            send(member, outgoing);
        }
    }
}

/// Acknowledgements first, then what others say, so that what was waiting before a pause is seen
/// before time is judged to have run out; but what tells of a pause comes before everything (R21).
/// How far the machine has applied, if that is news.
fn hand_over(
    letters: &mut Letters,
    node: &mut Node,
    held: &mut Held,
    effects: &mut Vec<Effect>,
) -> Option<Index> {
    let mut applied = None;
    if std::mem::take(&mut letters.stalled) {
        node.handle(Input::Stalled, effects);
    }
    for done in letters.done.drain(..) {
        node.handle(
            match done {
                Done::Configured(change) => Input::ApplyConfChange(change),
                Done::Applied(index) | Done::Installed(index) => {
                    applied = Some(index);
                    Input::Applied(index)
                }
            },
            effects,
        );
    }
    if let Some(id) = letters.persisted.take() {
        node.handle(Input::Persisted(id), effects);
    }
    letters.message_bytes = 0;
    for message in letters.messages.drain(..) {
        if matches!(message.body, Body::Propose { .. }) && !node.takes_proposals() {
            held.keep(message);
        } else {
            node.handle(Input::Receive(message), effects);
        }
    }
    for news in letters.peers.drain(..) {
        node.handle(of_peer(news), effects);
    }
    for _ in 0..std::mem::take(&mut letters.ticks) {
        node.handle(Input::Tick, effects);
    }
    if let Some(to) = letters.transfer.take() {
        node.handle(Input::TransferLeader(to), effects);
    }
    letters.bytes = 0;
    if !letters.proposals.is_empty() {
        node.handle(Input::Propose(std::mem::take(&mut letters.proposals)), effects);
    }
    for id in letters.reads.drain(..) {
        node.handle(Input::ReadIndex(id), effects);
    }
    letters.settle();
    applied
}

fn of_peer(news: OfPeer) -> Input {
    match news {
        OfPeer::LogRead { read, after_term, entries } => {
            Input::LogRead { to: read.to, after: read.after, after_term, entries }
        }
        OfPeer::Snapshot { to, snapshot } => Input::Snapshot { to, snapshot },
        OfPeer::SnapshotSent { to, arrived } => Input::SnapshotSent { to, arrived },
        OfPeer::Unreachable(id) => Input::Unreachable(id),
        OfPeer::Gone(id) => Input::LeaderGone(id),
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
        Effect::Configured(conf_state) => member.raft().set_alone(votes_alone(&conf_state, member.id())),
        // Done before all others.
        Effect::SoftState { .. } => {}
    }
}

/// Whether nobody else has a vote.
pub(crate) fn votes_alone(conf_state: &ConfState, id: u64) -> bool {
    conf_state.voters == [NodeId(id)] && conf_state.voters_outgoing.is_empty()
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
        DropReason::ConfChangeInvalid => Answer::Applied(Err(Rejection::NoVoters)),
        // A proposal that only one reign's leader may make has nobody who waits for it.
        DropReason::OtherTerm => return,
    };
    if matches!(answer, Answer::Failed(_)) {
        member.metrics().proposals_failed.inc();
    }
    member.post_answer(id, answer);
}

/// Encodes a request that the member itself makes, perhaps only as the leader of a certain term;
/// nobody waits for its answer.
pub(crate) fn own_proposal(command: &impl Command, only_in: Option<raft::Term>) -> node::Proposal {
    let data = raft_request::encode(0, command).into();
    node::Proposal { id: u64::MAX, kind: raft::EntryKind::Normal, data, only_in }
}
