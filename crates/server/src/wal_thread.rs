//! The thread that makes the log durable.
//!
//! It takes every write that waits, appends them all and syncs once: group commit (design §3).
//! There is no delay on purpose; while one sync runs, the next batch gathers by itself. A write or
//! sync that fails ends the member: after it nothing is acknowledged any more (W6).

use std::sync::Arc;
use std::time::{Duration, Instant};

use node::{Persist, PersistId};
use raft::{Index, SnapshotMeta};
use wal::Wal;

use crate::member::Member;

/// What the WAL thread is asked to do.
pub(crate) enum WalJob {
    /// Make this part of the log durable and tell raft.
    Persist(Persist),
    /// The backend durably holds everything up to `meta.index`: note it, and drop the segments that
    /// only hold entries up to `release_to`.
    Covered { meta: SnapshotMeta, release_to: Index },
}

/// Runs until the queue is closed; returns why it could not go on, if it could not.
pub(crate) fn run(member: &Arc<Member>, mut wal: Wal) -> Result<(), wal::WalError> {
    let mut jobs = Vec::new();
    // The last snapshot of another member that took the log's place.
    let mut installed = Index(0);
    while member.wal_queue().take(&mut jobs) {
        let mut last: Option<PersistId> = None;
        let mut release = None;
        let mut noting: Option<Duration> = None;
        let mut must_sync = false;
        let started = Instant::now();
        member.stall().begin(member.now());
        for job in jobs.drain(..) {
            match job {
                WalJob::Persist(persist) => {
                    must_sync |= persist.must_sync;
                    if let Some(snapshot) = &persist.snapshot {
                        installed = installed.max(snapshot.meta.index);
                    }
                    wal.append_persist(&persist)?;
                    last = Some(persist.id);
                }
                // A flush of the state that a snapshot is about to replace has nothing to say any more.
                WalJob::Covered { meta, .. } if meta.index < installed => {}
                WalJob::Covered { meta, release_to } => {
                    let began = Instant::now();
                    wal.append_snapshot(&meta)?;
                    *noting.get_or_insert(Duration::ZERO) += began.elapsed();
                    must_sync = true;
                    release = Some(release_to);
                }
            }
        }
        if must_sync {
            let (syncing, bytes) = (Instant::now(), wal.buffered_bytes());
            wal.sync()?;
            let metrics = member.metrics();
            metrics.wal_bytes.add(bytes as i64);
            metrics.wal_write.observe((syncing - started).as_secs_f64());
            let took = syncing.elapsed();
            metrics.wal_fsync.observe(took.as_secs_f64());
            if let Some(encoding) = noting {
                metrics.covered(encoding, took);
            }
        }
        if let Some(id) = last {
            member.inbox().persisted(id);
            member.drive();
        }
        if let Some(index) = release {
            wal.release_to(index)?;
        }
        // Everybody is answered: the moment to make the next segment, which a batch would otherwise
        // wait for.
        wal.prepare()?;
        member.stall().end(member.now());
    }
    // What needed no sync of its own (a commit index) is on disk before a clean stop ends.
    wal.sync()
}
