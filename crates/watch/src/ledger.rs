//! What a stream's undelivered events cost.
//!
//! The same delivery may wait for a thousand watchers of one stream and takes its memory once, so it is
//! weighed once. The entries sit in the order of their first parcel; deliveries are handed out and sent in
//! about the same order, which keeps the queue of entries short.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::delivery::Delivery;

/// What must hold, always: `bytes` is the weight of all entries that have parcels out, `parcels` how many
/// are out.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    entries: VecDeque<Entry>,
    /// How many entries have left the front of `entries`.
    settled: u64,
    /// The weight of everything held.
    pub(crate) bytes: usize,
    /// How many parcels are out.
    pub(crate) parcels: usize,
}

#[derive(Debug)]
struct Entry {
    /// The delivery's address: an identity for as long as a parcel keeps it alive.
    address: usize,
    weight: usize,
    parcels: u32,
}

/// An entry of a watcher's queue: a delivery, and where the stream's ledger accounts for it.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) delivery: Arc<Delivery>,
    entry: u64,
}

impl Ledger {
    /// Whether `delivery` is what was accounted for last, so that more of it adds no weight.
    pub(crate) fn took_last(&self, delivery: &Arc<Delivery>) -> bool {
        let address = Arc::as_ptr(delivery) as usize;
        self.entries.back().is_some_and(|last| last.address == address && last.parcels > 0)
    }

    /// Accounts for one more watcher that waits for `delivery`.
    pub(crate) fn hold(&mut self, delivery: &Arc<Delivery>) -> Parcel {
        self.parcels += 1;
        if !self.took_last(delivery) {
            let (address, weight) = (Arc::as_ptr(delivery) as usize, delivery.weight);
            self.bytes += weight;
            self.entries.push_back(Entry { address, weight, parcels: 0 });
        }
        if let Some(last) = self.entries.back_mut() {
            last.parcels += 1;
        }
        let entry = self.settled + self.entries.len() as u64 - 1;
        Parcel { delivery: delivery.clone(), entry }
    }

    /// Takes a parcel off the books; answers the weight that nobody anywhere holds any more.
    pub(crate) fn release(&mut self, parcel: Parcel) -> usize {
        self.parcels -= 1;
        let entry = &mut self.entries[(parcel.entry - self.settled) as usize];
        entry.parcels -= 1;
        if entry.parcels == 0 {
            self.bytes -= entry.weight;
        }
        while self.entries.front().is_some_and(|entry| entry.parcels == 0) {
            self.entries.pop_front();
            self.settled += 1;
        }
        if Arc::strong_count(&parcel.delivery) == 1 { parcel.delivery.weight } else { 0 }
    }
}
