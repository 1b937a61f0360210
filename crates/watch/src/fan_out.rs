//! From a batch to the queues of everyone who wants it.

use std::sync::Arc;

use crate::Event;
use crate::arena::{Arena, Key};
use crate::batch::Batch;
use crate::delivery::Delivery;
use crate::hub::{Counts, Hub, StreamId};
use crate::options::Options;
use crate::registry::Registry;
use crate::stream::{Item, Stream};
use crate::watcher::{Place, Watcher};

impl Hub {
    /// Hands a batch to every watcher that wants some of it and is in sync.
    ///
    /// Batches are to come in order. Revisions that were published before are passed over, so that a batch
    /// may be repeated; revisions that were left out are read from history, as after [`Hub::skip_to`].
    pub fn publish(&mut self, batch: &Arc<Batch>) {
        if batch.last <= self.revision {
            return;
        }
        self.skip_to(batch.first - 1);
        let news = batch.events.partition_point(|event| event.revision.main <= self.revision);
        let mut fallen = Vec::new();
        let Hub { synced, watchers, streams, options, counts, woken, .. } = self;
        let mut courier = Courier { watchers, streams, options, counts, woken };
        courier.deliver(synced, &batch.events[news..], None, &mut |key, at| fallen.push((key, at)));
        for (watcher, position) in fallen {
            self.unseat(watcher);
            self.watchers[watcher].min_revision = position;
            self.seat_behind(watcher, position);
        }
        self.revision = batch.last;
        self.settle_all_progress();
    }

    /// Moves on to `revision` without the events up to it: some were lost on the way here, or a snapshot
    /// replaced the store. Every watcher in sync that could want one of them reads history from where it is.
    /// Does nothing when `revision` has been published already.
    pub fn skip_to(&mut self, revision: i64) {
        if revision <= self.revision {
            return;
        }
        let next = self.revision + 1;
        let missed = |key: &Key| self.watchers[*key].min_revision <= revision;
        let behind: Vec<Key> = self.synced.everyone().filter(missed).collect();
        self.revision = revision;
        for watcher in behind {
            self.unseat(watcher);
            self.seat_behind(watcher, next);
        }
        self.settle_all_progress();
    }
}

/// The parts of the hub that handing events out touches.
pub(crate) struct Courier<'a> {
    pub(crate) watchers: &'a mut Arena<Watcher>,
    pub(crate) streams: &'a mut Arena<Stream>,
    pub(crate) options: &'a Options,
    pub(crate) counts: &'a mut Counts,
    pub(crate) woken: &'a mut Vec<StreamId>,
}

impl Courier<'_> {
    /// Hands `events` to the watchers of `registry` that want them. `header` is what the responses' headers
    /// will say, if not the last event's revision. A watcher whose stream has no room for a delivery is
    /// handed that and everything after it no more; `fallen` is told once for each, with the revision from
    /// which on it has not been handed anything.
    pub(crate) fn deliver(
        &mut self,
        registry: &mut Registry,
        events: &[Event],
        header: Option<i64>,
        fallen: &mut dyn FnMut(Key, i64),
    ) {
        for (group, hits) in registry.sort(events) {
            let chosen = hits.iter().map(|&at| &events[at as usize]);
            let (bytes, count) = (self.options.response_bytes, self.options.response_events);
            for delivery in Delivery::cut(chosen, header, bytes, count) {
                for &key in registry.members(group) {
                    self.offer(key, &delivery, fallen);
                }
                // Weighed when someone took it; this function's own hold on it ends here.
                if Arc::strong_count(&delivery) > 1 {
                    self.counts.pending_bytes += delivery.weight;
                }
            }
        }
    }

    fn offer(&mut self, key: Key, delivery: &Arc<Delivery>, fallen: &mut dyn FnMut(Key, i64)) {
        let watcher = &mut self.watchers[key];
        if watcher.min_revision > delivery.first {
            if watcher.min_revision <= delivery.last {
                let part = delivery.trimmed(watcher.min_revision);
                self.counts.pending_bytes += part.weight;
                if !self.hand(key, &part) {
                    self.counts.pending_bytes -= part.weight;
                    self.drop_out(key, part.first, fallen);
                }
            }
        } else if !self.hand(key, delivery) {
            self.drop_out(key, delivery.first, fallen);
        }
    }

    /// Raising the watcher's minimum keeps the rest of the batch from it until it is seated anew.
    fn drop_out(&mut self, key: Key, position: i64, fallen: &mut dyn FnMut(Key, i64)) {
        fallen(key, position);
        self.watchers[key].min_revision = i64::MAX;
    }

    /// Puts a delivery into a watcher's queue, if there is room for it.
    fn hand(&mut self, key: Key, delivery: &Arc<Delivery>) -> bool {
        let watcher = &mut self.watchers[key];
        let stream = &mut self.streams[watcher.stream];
        let in_sync = matches!(watcher.place, Place::InSync(_));
        if in_sync && !has_room(stream, delivery, self.counts, self.options) {
            return false;
        }
        if watcher.queue.is_empty() {
            stream.line.push_back(Item::Events(key));
        }
        watcher.queue.push_back(stream.ledger.hold(delivery));
        self.counts.pending_events += delivery.events.len();
        if !stream.announced {
            stream.announced = true;
            self.woken.push(StreamId(watcher.stream));
        }
        true
    }
}

/// Whether a stream takes one more parcel. One that holds nothing always does, whatever the parcel's size,
/// and more of what it took last costs it next to nothing.
fn has_room(stream: &Stream, delivery: &Arc<Delivery>, counts: &Counts, options: &Options) -> bool {
    let ledger = &stream.ledger;
    let crowded = counts.pending_bytes >= options.hub_bytes && ledger.bytes >= options.spared_bytes;
    let full = ledger.bytes >= options.stream_bytes || crowded;
    ledger.parcels == 0 || ledger.parcels < options.stream_entries && (!full || ledger.took_last(delivery))
}
