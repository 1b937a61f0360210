//! The thread that moves what is applied from the write buffer to redb, and what follows from it:
//! the note in the WAL that lets old segments go. Being the one that has time, it also removes snapshots
//! that nobody has sent for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use backend::Flushed;
use raft::{Index, SnapshotMeta, Term};

use crate::member::Member;
use crate::wal_thread::WalJob;

/// The age at which applied changes are flushed even if they are few. It bounds what a restart has
/// to replay; the WAL holds all of it, so nothing depends on it being short. A flush shares the disk
/// with the WAL's syncs, and is to be seen in less than one put of a hundred.
const MAX_AGE: Duration = Duration::from_secs(5);

/// The bytes at which they are flushed before that age.
pub(crate) const FLUSH_BYTES: usize = 8 << 20;

/// How often the buffer is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Runs until the member stops; the last flush leaves the buffer empty.
pub(crate) fn run(member: &Arc<Member>, stop: &AtomicBool) -> Result<(), backend::Error> {
    let backend = member.backend().clone();
    let mut flushed_at = Instant::now();
    let mut noted = 0;
    loop {
        let stopping = stop.load(Ordering::Acquire);
        backend.wait_for_work(LOOK);
        member.snapshots().tidy(Index(member.raft().applied()));
        let full = backend.buffered_bytes() >= FLUSH_BYTES;
        if full || stopping || flushed_at.elapsed() >= MAX_AGE {
            let started = Instant::now();
            let flushed = backend.flush()?;
            flushed_at = Instant::now();
            if flushed.bytes > 0 {
                let took = started.elapsed().as_secs_f64();
                member.metrics().backend_commit.observe(took);
                // Nothing of it is a phase of its own, as bbolt's are.
                member.metrics().commit_write.observe(took);
            }
            if flushed.index >= noted + member.config().snapshot_count {
                noted = flushed.index;
                note_coverage(member, &flushed);
            }
            if stopping && !flushed.more {
                return Ok(());
            }
        }
    }
}

/// Everything up to the flushed index is durable in redb: the WAL may forget it, but for the entries
/// that are kept for followers to catch up with. The note carries the configuration of that very
/// index; the newest may be of a later one (W11).
fn note_coverage(member: &Member, flushed: &Flushed) {
    let conf_state = flushed.conf_state.as_deref().and_then(apply::snapshot::conf_state_of);
    let (index, term) = (Index(flushed.index), Term(flushed.term));
    let meta = SnapshotMeta { conf_state: conf_state.unwrap_or_default(), index, term };
    let release_to = Index(flushed.index.saturating_sub(member.config().catchup_entries));
    member.wal_queue().push(WalJob::Covered { meta, release_to });
}
