//! Whoever has something for raft drives it: letters in, effects out.
//!
//! Raft has no thread. Its node sits behind a lock; a thread that posts letters then tries to take
//! the lock, and if it gets it, hands over everything that waits, its own letters and others'. If
//! it does not get it, the holder looks into the inbox once more after letting go, so no letter is
//! left lying. This saves two thread switches per batch: a shard's read round is usually answered
//! on the spot, and the WAL thread commits what it has just synced.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use api::raft_request::{self, Command};
use node::{DropReason, Effect, Input, Node};
use parking_lot::Mutex;

use crate::error::Error;
use crate::inbox::Letters;
use crate::leases;
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
    campaigned: bool,
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
    pub(crate) fn new(node: Node) -> Self {
        let core = Core { node, letters: Letters::default(), effects: Vec::new(), campaigned: false };
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
}

impl Core {
    fn turn(&mut self, member: &Arc<Member>) {
        let Self { node, letters, effects, campaigned } = self;
        member.inbox().take(letters);
        hand_over(letters, node, effects);
        if !*campaigned && node.conf_state().voters == [node::NodeId(member.id())] {
            // Whoever votes alone need not wait for an election timeout.
            *campaigned = true;
            node.handle(Input::Campaign, effects);
        }
        for effect in effects.drain(..) {
            carry_out(member, effect);
        }
    }
}

/// Acknowledgements first, so that what was waiting before a pause is seen before time is judged to
/// have run out; but what tells of a pause comes before everything (R21).
fn hand_over(letters: &mut Letters, node: &mut Node, effects: &mut Vec<Effect>) {
    if std::mem::take(&mut letters.stalled) {
        node.handle(Input::Stalled, effects);
    }
    for change in letters.configurations.drain(..) {
        node.handle(Input::ApplyConfChange(change), effects);
    }
    if let Some(index) = letters.applied.take() {
        node.handle(Input::Applied(index), effects);
    }
    if let Some(id) = letters.persisted.take() {
        node.handle(Input::Persisted(id), effects);
    }
    if std::mem::take(&mut letters.tick) {
        node.handle(Input::Tick, effects);
    }
    letters.bytes = 0;
    if !letters.proposals.is_empty() {
        node.handle(Input::Propose(std::mem::take(&mut letters.proposals)), effects);
    }
    for id in letters.reads.drain(..) {
        node.handle(Input::ReadIndex(id), effects);
    }
}

fn carry_out(member: &Arc<Member>, effect: Effect) {
    match effect {
        Effect::Persist(persist) => member.wal_queue().push(WalJob::Persist(persist)),
        Effect::Apply(entries) => {
            if let Some(last) = entries.last() {
                member.raft().set_committed(last.index.0);
            }
            member.apply_queue().push(entries);
        }
        Effect::ReadReady { id, index } => member.confirm_read(id, index),
        Effect::ReadDropped { id } => member.post_read(id, Err(Error::NoLeader)),
        Effect::Dropped { id, reason } => {
            let error = match reason {
                DropReason::NoLeader => Error::NoLeader,
                _ => Error::TooManyRequests,
            };
            member.metrics().proposals_failed.inc();
            member.post_answer(RequestId(id), Answer::Failed(error));
        }
        Effect::SoftState { leader, role, term } => {
            let leader = leader.map_or(0, |leader| leader.0);
            let leading = role == node::RoleKind::Leader;
            let led = member.raft().is_leader();
            member.raft().set_leader(term.0, leader, leading);
            if led && !leading {
                leases::leads_no_more(member);
            }
            tracing::info!(
                "local-member-id" = format!("{:x}", member.id()),
                "leader-member-id" = format!("{leader:x}"),
                term = term.0,
                leading,
                "raft leadership changed"
            );
        }
        // One member has nobody to send to or to hear from; its configuration is the machine's.
        Effect::Send(_)
        | Effect::Install(_)
        | Effect::ReadLog(_)
        | Effect::MakeSnapshot { .. }
        | Effect::Configured(_) => {}
    }
}

/// Encodes a request that the member itself makes, perhaps only as the leader of a certain term;
/// nobody waits for its answer.
pub(crate) fn own_proposal(command: &impl Command, only_in: Option<raft::Term>) -> node::Proposal {
    let data = raft_request::encode(0, command).into();
    node::Proposal { id: u64::MAX, kind: raft::EntryKind::Normal, data, only_in }
}
