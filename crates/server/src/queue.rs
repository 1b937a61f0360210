//! The hand-over between two of the member's threads: one side adds, the other takes all there is.

use parking_lot::{Condvar, Mutex};

/// An unbounded queue that is emptied in one go. What bounds it is what feeds it: the raft core
/// admits a bounded number of bytes that are not committed yet, and a bounded gap between commit
/// and apply.
pub(crate) struct Queue<T> {
    inner: Mutex<Inner<T>>,
    arrived: Condvar,
}

struct Inner<T> {
    items: Vec<T>,
    closed: bool,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { inner: Mutex::new(Inner { items: Vec::new(), closed: false }), arrived: Condvar::new() }
    }
}

impl<T> Queue<T> {
    /// Adds one item and wakes the other side if it waits.
    pub(crate) fn push(&self, item: T) {
        let was_empty = {
            let mut inner = self.inner.lock();
            let was_empty = inner.items.is_empty();
            inner.items.push(item);
            was_empty
        };
        if was_empty {
            self.arrived.notify_one();
        }
    }

    /// What is still in the queue is taken, then the other side ends.
    pub(crate) fn close(&self) {
        self.inner.lock().closed = true;
        self.arrived.notify_all();
    }

    /// Moves everything into `items`, waiting while there is nothing; `false` once closed and empty.
    pub(crate) fn take(&self, items: &mut Vec<T>) -> bool {
        let mut inner = self.inner.lock();
        while inner.items.is_empty() {
            if inner.closed {
                return false;
            }
            self.arrived.wait(&mut inner);
        }
        std::mem::swap(&mut inner.items, items);
        true
    }
}
