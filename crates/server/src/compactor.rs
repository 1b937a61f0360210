//! The thread that takes compacted versions away, a bounded step at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mvcc::ProgressState;

use crate::member::Member;

/// How often it looks for a compaction that nobody told it of (one that a restart left unfinished).
const LOOK: Duration = Duration::from_secs(1);

/// Runs until the member stops.
pub(crate) fn run(member: &Arc<Member>, stop: &AtomicBool) -> Result<(), mvcc::ReadError> {
    let config = member.config();
    let mut started = Instant::now();
    while !stop.load(Ordering::Acquire) {
        let step = member.store().compact_step(config.compaction_batch)?;
        member.metrics().compacted_keys.inc_by(step.rows as u64);
        match step.state {
            ProgressState::More => member.compaction().wait(config.compaction_sleep),
            ProgressState::Done => {
                if member.compaction().finish(member.store().compact_revision()) {
                    member.metrics().compaction_total.observe(started.elapsed().as_secs_f64() * 1e3);
                }
                member.compaction().wait_for_request(LOOK);
                started = Instant::now();
            }
        }
    }
    Ok(())
}
