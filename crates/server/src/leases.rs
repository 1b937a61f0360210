//! Leases against the clock: expiry and checkpoints are proposed by the leader, and take effect
//! only through the log (design §6).

use std::sync::Arc;

use api::etcdserverpb::{LeaseCheckpoint, LeaseCheckpointRequest, LeaseRevokeRequest};
use auth::Caller;
use node::Proposal;
use raft::Term;

use crate::member::{MAX_GAP, Member};
use crate::raft_driver::own_proposal;

/// Leases revoked per tick at the most: expiry of very many in one moment must leave room in every
/// batch for clients' proposals.
const REVOKES_PER_TICK: usize = 2_000;

/// Checkpoints in one entry at the most (etcd's number).
const CHECKPOINTS_PER_ENTRY: usize = 1_000;

/// How many leases may be revoked while so many entries are committed and not applied: clients are
/// refused at [`MAX_GAP`], and revocations alone must not bring that about.
fn revokes(gap: u64) -> usize {
    let room = usize::try_from((MAX_GAP / 2).saturating_sub(gap)).unwrap_or(usize::MAX);
    room.min(REVOKES_PER_TICK)
}

const _: () = assert!(REVOKES_PER_TICK as u64 <= MAX_GAP / 2);

/// What a leader proposes at this tick: ends of leases whose time is up, and notes of the time that
/// others have left.
pub(crate) fn tick(member: &Arc<Member>) {
    let now = member.now();
    let raft = member.raft();
    let limit = revokes(raft.committed().saturating_sub(raft.applied()));
    // The end of a lease ends its keys, whoever may write them.
    let name = member.own_name();
    let mut lessor = member.lessor().lock();
    // Of this reign or of none: if another member leads by the time raft sees these, it knows of
    // renewals that this one does not, and nothing may end a lease on the word of this one (L1).
    let term = member.reign();
    let mut proposals: Vec<Proposal> = lessor
        .expired(now, limit)
        .into_iter()
        .map(|id| own_proposal(&LeaseRevokeRequest { id: id.0 }, Some(term), name.clone()))
        .collect();
    member.metrics().leases_expired.inc_by(proposals.len() as u64);
    let due = lessor.checkpoints_due(now, CHECKPOINTS_PER_ENTRY);
    drop(lessor);
    if !due.is_empty() {
        let checkpoints = due
            .into_iter()
            .map(|(id, remaining)| LeaseCheckpoint { id: id.0, remaining_ttl: remaining })
            .collect();
        proposals.push(own_proposal(&LeaseCheckpointRequest { checkpoints }, Some(term), Caller::default()));
    }
    // Refused only where the member stops or far too much waits; leases are offered again then.
    let _ = member.inbox().ask(&mut proposals, None);
}

/// Starts the clock of every lease once the first entry of this leader's own term is applied: only
/// then is everything applied that earlier terms have said of leases. Sooner, a lease whose renewal
/// cleared a checkpoint would be given what the checkpoint had left of it.
pub(crate) fn term_begun(member: &Member, term: Term) {
    let mut lessor = member.lessor().lock();
    // Looked at under the lock: whoever leads no more says so before it takes the lock to demote.
    if member.raft().is_leader() && member.raft().term() == term.0 && !lessor.is_primary() {
        lessor.promote(member.config().election_timeout, member.now());
        member.set_reign(term);
    }
}

/// Stops the clocks: another member's count from now on.
pub(crate) fn leads_no_more(member: &Member) {
    member.lessor().lock().demote();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revocations_leave_room_for_clients() {
        assert_eq!(revokes(0), REVOKES_PER_TICK);
        assert_eq!(revokes(MAX_GAP / 2 - 7), 7);
        assert_eq!((revokes(MAX_GAP / 2), revokes(u64::MAX)), (0, 0));
    }
}
