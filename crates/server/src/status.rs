//! What the member's threads publish about themselves, for readers on any thread.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Raft's position, as last published by the raft and apply threads. Each number is exact by
/// itself; two of them read one after the other may be from different moments.
#[derive(Default)]
pub struct RaftStatus {
    term: AtomicU64,
    leader: AtomicU64,
    committed: AtomicU64,
    applied: AtomicU64,
    leading: AtomicBool,
    alone: AtomicBool,
    leader_changes: AtomicU64,
    pending: AtomicU64,
}

impl RaftStatus {
    /// The current term.
    pub fn term(&self) -> u64 {
        self.term.load(Ordering::Acquire)
    }

    /// The leader's id, 0 where none is known.
    pub fn leader(&self) -> u64 {
        self.leader.load(Ordering::Acquire)
    }

    /// Whether this member leads.
    pub fn is_leader(&self) -> bool {
        self.leading.load(Ordering::Acquire)
    }

    /// The index up to which the log is committed.
    pub fn committed(&self) -> u64 {
        self.committed.load(Ordering::Acquire)
    }

    /// The index up to which the log is applied.
    pub fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    /// How many leaders this run has seen come.
    pub fn leader_changes(&self) -> u64 {
        self.leader_changes.load(Ordering::Relaxed)
    }

    /// Proposals handed to raft and not answered yet.
    pub fn pending(&self) -> u64 {
        self.pending.load(Ordering::Relaxed)
    }

    /// Whether there is another leader than before.
    pub(crate) fn set_leader(&self, term: u64, leader: u64, leading: bool) -> bool {
        self.term.store(term, Ordering::Release);
        let before = self.leader.swap(leader, Ordering::AcqRel);
        self.leading.store(leading, Ordering::Release);
        let changed = leader != 0 && before != leader;
        if changed {
            self.leader_changes.fetch_add(1, Ordering::Relaxed);
        }
        changed
    }

    /// Whether this member alone has a vote.
    pub(crate) fn is_alone(&self) -> bool {
        self.alone.load(Ordering::Acquire)
    }

    pub(crate) fn set_alone(&self, alone: bool) {
        self.alone.store(alone, Ordering::Release);
    }

    pub(crate) fn set_committed(&self, index: u64) {
        self.committed.store(index, Ordering::Release);
    }

    pub(crate) fn set_applied(&self, index: u64) {
        self.applied.store(index, Ordering::Release);
    }

    /// Counts a proposal as pending until the guard is dropped, also where its client goes away.
    pub(crate) fn pending_proposal(&self) -> impl Drop + '_ {
        self.pending.fetch_add(1, Ordering::Relaxed);
        Pending(&self.pending)
    }
}

struct Pending<'a>(&'a AtomicU64);

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
