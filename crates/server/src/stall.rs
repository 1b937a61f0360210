//! Whether the disk of the log answers.
//!
//! A call to the disk cannot be given up, only watched from outside: the WAL thread says when it goes to the
//! disk and when it is back. What follows from a disk that is silent is raft's (a leader hands over, see
//! `node`); here it is told to operators and to whoever asks whether the member is ready.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Since when the WAL thread waits for the disk. Times are since the member started.
#[derive(Default)]
pub(crate) struct Stall {
    /// In nanoseconds, and one more; 0 while it does not.
    since: AtomicU64,
    /// Whether the log of the process has it.
    told: AtomicBool,
}

impl Stall {
    /// The WAL thread goes to the disk.
    pub(crate) fn begin(&self, now: Duration) {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX - 1);
        self.since.store(now + 1, Ordering::Relaxed);
    }

    /// It is back.
    pub(crate) fn end(&self, now: Duration) {
        let waited = self.waits(now);
        self.since.store(0, Ordering::Relaxed);
        if self.told.swap(false, Ordering::Relaxed) {
            tracing::warn!(took = ?waited, "the disk of the write-ahead log answers again");
        }
    }

    /// For how long it has been there.
    pub(crate) fn waits(&self, now: Duration) -> Duration {
        match self.since.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => now.saturating_sub(Duration::from_nanos(since - 1)),
        }
    }

    /// Says once that it has been for longer than `limit`.
    pub(crate) fn tell(&self, now: Duration, limit: Duration) {
        let waited = self.waits(now);
        if waited > limit && !self.told.swap(true, Ordering::Relaxed) {
            tracing::error!(waited = ?waited, "the disk of the write-ahead log does not answer");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_as_long_as_nobody_is_back() {
        let (stall, second) = (Stall::default(), Duration::from_secs(1));
        assert_eq!(stall.waits(5 * second), Duration::ZERO);
        stall.begin(Duration::ZERO);
        assert_eq!(stall.waits(5 * second), 5 * second, "also at the very start");
        stall.end(6 * second);
        assert_eq!(stall.waits(7 * second), Duration::ZERO);
        stall.begin(7 * second);
        assert_eq!(stall.waits(7 * second), Duration::ZERO);
        stall.tell(8 * second, 2 * second);
        assert!(!stall.told.load(Ordering::Relaxed));
        stall.tell(10 * second, 2 * second);
        assert!(stall.told.load(Ordering::Relaxed));
    }
}
