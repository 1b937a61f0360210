//! The thread that tells raft the time, and leases too.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::leases;
use crate::member::Member;
use crate::roads;

/// How long after its start a member looks whether it need not wait for a whole election timeout
/// (etcd's figure).
const YOUTH: Duration = Duration::from_secs(5);

/// Ticks until `stop` is set and the thread is unparked.
pub(crate) fn run(member: &Arc<Member>, stop: &AtomicBool) {
    let tick = member.config().heartbeat;
    let mut last = Instant::now();
    let mut young = member.config().initial_election_tick_advance;
    while !stop.load(Ordering::Acquire) {
        let waited = last.elapsed();
        if waited < tick {
            std::thread::park_timeout(tick - waited);
            continue;
        }
        last = Instant::now();
        // However many ticks were missed, they count as one (R21).
        member.inbox().tick(waited > member.config().election_timeout);
        if young {
            young = !hasten(member);
        }
        if member.raft().is_leader() {
            leases::tick(member);
        }
        member.stall().tell(member.now(), member.config().election_timeout);
        roads::part(member);
        member.drive();
    }
}

/// A member that starts hears of a leader within a heartbeat or two of being connected, if there is
/// one; if there is none, all that it waits for is the end of its patience, and it need not. Whether
/// that has been seen to.
fn hasten(member: &Arc<Member>) -> bool {
    if member.raft().leader() != 0 || member.raft().is_alone() || member.started().elapsed() > YOUTH {
        return true;
    }
    let cluster = member.cluster();
    let others = cluster.members.keys().filter(|id| **id != member.id());
    let reached = others.filter(|id| member.active_since(**id).is_some()).count();
    // As in etcd, two of them at the least.
    if reached < 2 {
        return false;
    }
    let ticks = member.config().election_ticks().saturating_sub(2);
    tracing::info!(
        "local-member-id" = format!("{:x}", member.id()),
        "forward-ticks" = ticks,
        "active-remote-members" = reached,
        "initialized peer connections; fast-forwarding election ticks"
    );
    member.inbox().hasten(ticks);
    true
}
