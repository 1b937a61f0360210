//! The thread that drives the node: letters in, effects out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use node::{DropReason, Effect, Input, Node};
use prost::Message as _;

use crate::error::Error;
use crate::inbox::Letters;
use crate::leases;
use crate::member::Member;
use crate::proposal::{Answer, RequestId};
use crate::wal_thread::WalJob;

/// Runs until the inbox is told to stop.
pub(crate) fn run(member: &Arc<Member>, mut node: Node, tick: Duration) {
    let mut letters = Letters::default();
    let mut effects = Vec::new();
    let mut next_tick = Instant::now() + tick;
    let mut leases = leases::Timer::default();
    let mut campaigned = false;
    loop {
        member.inbox().take(&mut letters, next_tick);
        if letters.stop {
            return;
        }
        let now = Instant::now();
        hand_over(&mut letters, &mut node, &mut effects);
        if !campaigned && node.conf_state().voters == [node::NodeId(member.id())] {
            // Whoever votes alone need not wait for an election timeout.
            campaigned = true;
            node.handle(Input::Campaign, &mut effects);
        }
        if now >= next_tick {
            // Ticks missed while this thread did not run count as one (R21).
            node.handle(Input::Tick, &mut effects);
            next_tick = now + tick;
            if member.raft().is_leader() {
                let proposals = leases.tick(member);
                if !proposals.is_empty() {
                    node.handle(Input::Propose(proposals), &mut effects);
                }
            }
        }
        for effect in effects.drain(..) {
            carry_out(member, effect);
        }
    }
}

/// Messages and acknowledgements first, so that what was waiting before a pause is seen before time
/// is judged to have run out.
fn hand_over(letters: &mut Letters, node: &mut Node, effects: &mut Vec<Effect>) {
    for change in letters.configurations.drain(..) {
        node.handle(Input::ApplyConfChange(change), effects);
    }
    if let Some(index) = letters.applied.take() {
        node.handle(Input::Applied(index), effects);
    }
    if let Some(id) = letters.persisted.take() {
        node.handle(Input::Persisted(id), effects);
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
            if leading != led {
                leases::change_of_leadership(member, leading);
            }
            tracing::info!(
                local_member_id = format!("{:x}", member.id()),
                leader_member_id = format!("{leader:x}"),
                term = term.0,
                leading,
                "raft leadership changed"
            );
        }
        // One member has nobody to send to or to hear from; its configuration is the machine's.
        Effect::Send(_) | Effect::Install(_) | Effect::MakeSnapshot { .. } | Effect::Configured(_) => {}
    }
}

/// Encodes a request that the member itself makes; nobody waits for its answer.
pub(crate) fn own_proposal(request: &api::etcdserverpb::InternalRaftRequest) -> node::Proposal {
    node::Proposal { id: u64::MAX, kind: raft::EntryKind::Normal, data: request.encode_to_vec().into() }
}
