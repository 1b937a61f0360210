//! The thread that tells raft the time, and leases too.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::leases;
use crate::member::Member;

/// Ticks until `stop` is set and the thread is unparked.
pub(crate) fn run(member: &Arc<Member>, stop: &AtomicBool) {
    let tick = member.config().heartbeat;
    let mut last = Instant::now();
    while !stop.load(Ordering::Acquire) {
        let waited = last.elapsed();
        if waited < tick {
            std::thread::park_timeout(tick - waited);
            continue;
        }
        last = Instant::now();
        // However many ticks were missed, they count as one (R21).
        member.inbox().tick(waited > member.config().election_timeout);
        if member.raft().is_leader() {
            leases::tick(member);
        }
        member.drive();
    }
}
