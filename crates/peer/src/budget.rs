//! A bound on the memory that bodies of requests take while they arrive, all of them together.
//!
//! Whoever reaches the port can announce a message and never end it, on as many connections as they like. What is
//! refused because of them is lost, which raft allows; a member short of memory would be lost as a whole.

use std::sync::atomic::{AtomicUsize, Ordering};

/// What all bodies may take, in bytes: two of the longest. A buffer that grows is larger than what is in it for a
/// while, so that memory may be twice this.
pub(crate) const MOST: usize = 128 << 20;

/// What is said to whom it is refused.
pub(crate) const TOO_MUCH: &str = "too many bytes are on their way to this member";

/// What is taken of it.
#[derive(Default)]
pub(crate) struct Budget(AtomicUsize);

/// What one body takes; given back when it is dropped.
pub(crate) struct Share<'a> {
    budget: &'a Budget,
    bytes: usize,
}

impl Budget {
    /// A share of nothing as yet.
    pub(crate) fn share(&self) -> Share<'_> {
        Share { budget: self, bytes: 0 }
    }
}

impl Share<'_> {
    /// Takes more; false if there is not so much, and then nothing has changed.
    #[must_use]
    pub(crate) fn take(&mut self, bytes: usize) -> bool {
        let more = |taken: usize| taken.checked_add(bytes).filter(|taken| *taken <= MOST);
        let taken = self.budget.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok();
        if taken {
            self.bytes += bytes;
        }
        taken
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.budget.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_given_back_and_never_more_than_all() {
        let budget = Budget::default();
        let (mut one, mut other) = (budget.share(), budget.share());
        assert!(one.take(MOST - 10) && other.take(10));
        assert!(!other.take(1) && !one.take(usize::MAX));
        drop(one);
        assert!(other.take(MOST - 10) && !other.take(1));
        drop(other);
        assert!(budget.share().take(MOST));
    }
}
