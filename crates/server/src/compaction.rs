//! How those who wait for a physical compaction and the thread that does it find each other.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

/// The meeting point of compaction requests and the compactor.
pub(crate) struct Compaction {
    wanted: Mutex<bool>,
    changed: Condvar,
    finished: watch::Sender<i64>,
    /// Held during a step, and while a state is replaced.
    quiet: Mutex<()>,
}

impl Compaction {
    pub(crate) fn new() -> Self {
        Self {
            wanted: Mutex::new(false),
            changed: Condvar::new(),
            finished: watch::Sender::new(-1),
            quiet: Mutex::new(()),
        }
    }

    /// A compaction has been applied: the compactor looks at once.
    pub(crate) fn request(&self) {
        *self.wanted.lock() = true;
        self.changed.notify_all();
    }

    /// Keeps steps and the replacing of the state apart.
    pub(crate) fn exclude(&self) -> parking_lot::MutexGuard<'_, ()> {
        self.quiet.lock()
    }

    /// Sleeps between two steps.
    pub(crate) fn wait(&self, pause: Duration) {
        std::thread::sleep(pause);
    }

    /// Sleeps until a request, at most for `limit`.
    pub(crate) fn wait_for_request(&self, limit: Duration) {
        let mut wanted = self.wanted.lock();
        if !*wanted {
            self.changed.wait_for(&mut wanted, limit);
        }
        *wanted = false;
    }

    /// Everything below `revision` is gone; `true` where that is news.
    pub(crate) fn finish(&self, revision: i64) -> bool {
        self.finished.send_if_modified(|finished| {
            let news = *finished < revision;
            *finished = (*finished).max(revision);
            news
        })
    }

    /// Waits until everything below `revision` is gone.
    pub(crate) async fn finished(&self, revision: i64) {
        // The sender lives as long as `self`, so waiting can only end by the condition.
        let _ = self.finished.subscribe().wait_for(|finished| *finished >= revision).await;
    }
}
