//! What is to happen, in the order of time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::plan::Time;

/// Events of one kind of thing, first come first served where times are equal.
pub(crate) struct Queue<T> {
    heap: BinaryHeap<Reverse<(Time, u64, usize)>>,
    slots: Vec<Option<T>>,
    free: Vec<usize>,
    count: u64,
    pub(crate) now: Time,
}

impl<T> Queue<T> {
    pub(crate) fn new() -> Queue<T> {
        Queue { heap: BinaryHeap::new(), slots: Vec::new(), free: Vec::new(), count: 0, now: 0 }
    }

    /// Has something happen after a while.
    pub(crate) fn after(&mut self, delay: Time, what: T) {
        self.at(self.now + delay, what);
    }

    /// Has something happen at a time, which must not have passed.
    pub(crate) fn at(&mut self, time: Time, what: T) {
        self.count += 1;
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot] = Some(what);
                slot
            }
            None => {
                self.slots.push(Some(what));
                self.slots.len() - 1
            }
        };
        self.heap.push(Reverse((time.max(self.now), self.count, slot)));
    }

    /// The next event; time moves there.
    pub(crate) fn next(&mut self) -> Option<T> {
        let Reverse((time, _, slot)) = self.heap.pop()?;
        self.now = time;
        self.free.push(slot);
        self.slots[slot].take()
    }

    /// When the next event is.
    pub(crate) fn next_time(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse((time, ..))| *time)
    }

    /// How many there have been and will be.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }
}
