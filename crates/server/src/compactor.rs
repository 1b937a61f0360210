//! The thread that takes compacted versions away, a bounded step at a time, and then gives the space
//! back to the file system where there is much of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use apply::Failure;
use mvcc::ProgressState;

use crate::background::give_way;
use crate::member::Member;

/// How often it looks for a compaction that nobody told it of (one that a restart left unfinished).
const LOOK: Duration = Duration::from_secs(1);

/// Hashing what is compacted rests for so many times as long as it took the last time: a client that compacts
/// a large store every second gets fewer hashes, not less of the disk.
const HASH_REST: u32 = 20;

/// Runs until the member stops.
pub(crate) fn run(member: &Arc<Member>, stop: &AtomicBool) -> Result<(), Failure> {
    give_way();
    let config = member.config();
    let mut started = Instant::now();
    let mut hashing = Hashing { on: config.compact_hash_check, next: started };
    while !stop.load(Ordering::Acquire) {
        hashing.look(member)?;
        // Read before the step: a compaction that is asked for while the step runs is not covered by it.
        let (revision, step) = {
            let _alone = member.compaction().exclude();
            let began = Instant::now();
            let revision = member.store().compact_revision();
            let step = member.store().compact_step(config.compaction_batch)?;
            if step.rows > 0 {
                let took = began.elapsed().as_secs_f64() * 1e3;
                member.metrics().compaction_step.observe(took);
                member.metrics().index_step.observe(took);
            }
            (revision, step)
        };
        member.metrics().compacted_keys.inc_by(step.rows as u64);
        match step.state {
            ProgressState::More => member.compaction().wait(config.compaction_sleep),
            ProgressState::Done => {
                if member.compaction().finish(revision) {
                    member.metrics().compaction_total.observe(started.elapsed().as_secs_f64() * 1e3);
                    if let Ok(now) = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
                        member
                            .metrics()
                            .compaction_last
                            .set(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
                    }
                    give_space_back(member)?;
                }
                member.compaction().wait_for_request(LOOK);
                started = Instant::now();
            }
        }
    }
    Ok(())
}

/// What a compaction begins from is hashed, for the leader to compare.
struct Hashing {
    on: bool,
    next: Instant,
}

impl Hashing {
    fn look(&mut self, member: &Member) -> Result<(), Failure> {
        let began = Instant::now();
        // A lone member has nobody to compare with.
        if !self.on || began < self.next || member.cluster().members.len() < 2 {
            return Ok(());
        }
        if let Some(hash) = member.store().hash_before_compaction()? {
            let took = began.elapsed();
            self.next = Instant::now() + took * HASH_REST;
            tracing::info!(
                hash = hash.hash,
                revision = hash.revision,
                "compact-revision" = hash.compact_revision,
                ?took,
                "storing new hash"
            );
        }
        Ok(())
    }
}

/// Rewrites the store's file if most of it is free; reads and writes go on meanwhile, and nobody has
/// to call Defragment.
fn give_space_back(member: &Member) -> Result<(), Failure> {
    // What was removed counts as live until it is flushed, and nobody looks again before the next compaction.
    member.backend().flush_all()?;
    let before = member.backend().size();
    match member.backend().reclaim() {
        Ok(true) => {
            let after = member.backend().size();
            tracing::info!(before, after, "gave free space back to the file system");
            Ok(())
        }
        // A client's Defragment does the same work at the moment.
        Ok(false) | Err(backend::Error::Busy) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
