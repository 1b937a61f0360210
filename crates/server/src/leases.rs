//! Leases against the clock: expiry and checkpoints are proposed by the leader, and take effect
//! only through the log (design §6).

use std::sync::Arc;

use api::etcdserverpb::{LeaseCheckpoint, LeaseCheckpointRequest, LeaseRevokeRequest};
use node::Proposal;

use crate::member::Member;
use crate::raft_driver::own_proposal;

/// Leases revoked per tick at the most: expiry of very many in one moment must leave room in every
/// batch for clients' proposals.
const REVOKES_PER_TICK: usize = 2_000;

/// Checkpoints in one entry at the most (etcd's number).
const CHECKPOINTS_PER_ENTRY: usize = 1_000;

/// What a leader proposes at this tick: ends of leases whose time is up, and notes of the time that
/// others have left.
pub(crate) fn tick(member: &Arc<Member>) {
    let now = member.now();
    let mut lessor = member.lessor().lock();
    let mut proposals: Vec<Proposal> = lessor
        .expired(now, REVOKES_PER_TICK)
        .into_iter()
        .map(|id| own_proposal(&LeaseRevokeRequest { id: id.0 }))
        .collect();
    member.metrics().leases_expired.inc_by(proposals.len() as u64);
    let due = lessor.checkpoints_due(now, CHECKPOINTS_PER_ENTRY);
    drop(lessor);
    if !due.is_empty() {
        let checkpoints = due
            .into_iter()
            .map(|(id, remaining)| LeaseCheckpoint { id: id.0, remaining_ttl: remaining })
            .collect();
        proposals.push(own_proposal(&LeaseCheckpointRequest { checkpoints }));
    }
    // Refused only where the member stops or far too much waits; leases are offered again then.
    let _ = member.inbox().ask(&mut proposals, None);
}

/// A new leader's clock starts for every lease; one that leads no more stops expiring.
pub(crate) fn change_of_leadership(member: &Arc<Member>, leading: bool) {
    let mut lessor = member.lessor().lock();
    if leading {
        lessor.promote(member.config().election_timeout, member.now());
    } else {
        lessor.demote();
    }
}
