//! Progress: telling a client how far it is when there is nothing to tell.
//!
//! A response without events and with revision `r` promises that every event up to `r` has been sent. So it
//! is put in the line at a moment when everyone that it speaks for is in sync, and stays behind what they
//! had been handed. A request that cannot be answered at once is owed, not dropped (etcd drops it): the
//! answer follows when the last watcher of the stream has caught up, with or without events.

use std::time::Duration;

use crate::arena::Key;
use crate::hub::{Hub, StreamId};
use crate::stream::Item;
use crate::watcher::Place;

impl Hub {
    /// Answers, once all watchers of the stream are in sync, with one response for all of them, under the
    /// id -1. A stream without watchers has no progress and gets no answer.
    ///
    /// `current_revision` is the store's at this moment: the answer waits until the hub has got that far.
    pub fn request_progress(&mut self, stream: StreamId, current_revision: i64) {
        let Some(open) = self.streams.get_mut(stream.0) else { return };
        open.owed.ask(current_revision.max(self.revision));
        self.settle_progress(stream.0);
    }

    /// Moves the clock. Watchers that asked for it, are in sync and were sent nothing since the last time
    /// are told the revision at the end of each of their stream's intervals.
    ///
    /// `now` is the time since an origin that stays the same.
    pub fn tick(&mut self, now: Duration) {
        self.now = self.now.max(now);
        while let Some(&(deadline, stream)) = self.deadlines.first()
            && deadline <= self.now
        {
            self.deadlines.remove(&(deadline, stream));
            self.notify(stream);
            self.watch_clock(stream);
        }
    }

    /// Puts a stream on the list of deadlines, for the first end of an interval that is still to come.
    pub(crate) fn watch_clock(&mut self, key: Key) {
        let interval = self.interval(key).max(Duration::from_nanos(1));
        let stream = &mut self.streams[key];
        if stream.deadline <= self.now {
            let missed = (self.now - stream.deadline).as_nanos() / interval.as_nanos() + 1;
            stream.deadline += interval * u32::try_from(missed).unwrap_or(u32::MAX);
        }
        self.deadlines.insert((stream.deadline, key));
    }

    fn notify(&mut self, key: Key) {
        let stream = &mut self.streams[key];
        // A client that reads nothing is not written to for ever.
        let stuck = stream.line.len() > 2 * stream.watchers.len();
        let mut told = false;
        for &watcher in stream.watchers.values().flatten() {
            let state = &mut self.watchers[watcher];
            if !state.request.progress_notify {
                continue;
            }
            let in_sync = matches!(state.place, Place::InSync(_)) && state.floor <= self.revision;
            if state.idle && in_sync && state.queue.is_empty() && !stuck {
                stream.line.push_back(Item::Notify { watcher, revision: self.revision });
                told = true;
            }
            state.idle = true;
        }
        if told {
            self.announce(key);
        }
    }

    /// Answers the owed progress requests of a stream that can be answered now.
    pub(crate) fn settle_progress(&mut self, key: Key) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        if stream.watchers.values().all(Option::is_none) {
            stream.owed.forget();
        }
        // Planted: V1, a progress response claims what watchers that are behind have not been sent.
        let in_sync = stream.behind.is_empty() || planted::is("progress-overtakes");
        let times = if in_sync { stream.owed.take(self.revision) } else { 0 };
        if stream.owed.is_empty() {
            self.owing.remove(&key);
        } else {
            self.owing.insert(key);
        }
        if times > 0 {
            self.push(key, Item::Progress { revision: self.revision, times });
        }
    }

    /// As [`Hub::settle_progress`], for every stream that owes.
    pub(crate) fn settle_all_progress(&mut self) {
        let owing: Vec<Key> = self.owing.iter().copied().collect();
        owing.into_iter().for_each(|stream| self.settle_progress(stream));
    }
}
