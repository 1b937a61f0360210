//! A queue of things to look at, in order of time, whose entries may be out of date.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::lease::LeaseId;

/// "At this time, look at that lease." Ordered by time first; the rest only makes the order total,
/// so that runs repeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slot {
    pub(crate) at: Duration,
    pub(crate) id: LeaseId,
    pub(crate) generation: u64,
}

/// Stale slots that are tolerated before a sweep is thought of, so that a handful of leases does
/// not sweep at every revocation.
const SLACK: usize = 1024;

/// A min-heap of [`Slot`]s. The owner decides whether a slot that came up still means something.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    heap: BinaryHeap<Reverse<Slot>>,
}

impl Schedule {
    pub(crate) fn from_slots(slots: Vec<Slot>) -> Self {
        Schedule { heap: slots.into_iter().map(Reverse).collect() }
    }

    pub(crate) fn push(&mut self, slot: Slot) {
        self.heap.push(Reverse(slot));
    }

    /// The earliest time in the queue.
    pub(crate) fn first(&self) -> Option<Duration> {
        self.heap.peek().map(|Reverse(slot)| slot.at)
    }

    /// Takes the earliest slot if its time has come.
    pub(crate) fn pop_due(&mut self, now: Duration) -> Option<Slot> {
        if self.first()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(slot)| slot)
    }

    /// Drops the slots that `alive` denies, once there are more of them than live ones. Each sweep
    /// is paid for by the revocations since the last one.
    pub(crate) fn sweep(&mut self, living: usize, mut alive: impl FnMut(&Slot) -> bool) {
        if self.heap.len() > 2 * living + SLACK {
            self.heap.retain(|Reverse(slot)| alive(slot));
            self.heap.shrink_to(2 * living + SLACK);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }
}
