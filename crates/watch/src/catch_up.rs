//! Catching up: one bounded step of reading history for the watchers of one stream.

use crate::arena::Key;
use crate::cohort::Cohort;
use crate::fan_out::Courier;
use crate::history::{Chunk, History, HistoryError};
use crate::hub::Hub;
use crate::stream::Item;

/// Revisions that a step may cover at most, however empty they turn out to be.
const LONGEST_SPAN: i64 = 1 << 16;

impl Hub {
    /// Reads one stretch of history for one cohort of the stream and everyone whom the stretch takes in.
    ///
    /// # Errors
    /// When history cannot be read; nothing has changed then, and the step can be tried again.
    pub(crate) fn step(&mut self, stream: Key, history: &dyn History) -> Result<(), HistoryError> {
        self.expire(stream, history.compact_revision());
        if let Some(cohort) = self.streams[stream].behind.pick() {
            self.advance(stream, cohort, history)?;
        }
        self.settle_progress(stream);
        Ok(())
    }

    fn advance(&mut self, stream: Key, key: Key, history: &dyn History) -> Result<(), HistoryError> {
        let from = self.streams[stream].behind.cohorts[key].position;
        let to = self.revision.min(from.saturating_add(self.span - 1));
        self.take_in(stream, key, from, to);

        let mut rows = 0;
        let members = &self.streams[stream].behind.cohorts[key].members;
        let mut filter = |name: &[u8]| {
            rows += 1;
            members.matches(name)
        };
        let chunk = match history.events(from, to, self.options.step_bytes, &mut filter) {
            Ok(chunk) if chunk.next > from => chunk,
            Ok(_) => return Err(HistoryError::Failed(format!("no answer for revision {from}"))),
            // Compacted since the step began: those who needed it end, and the others go on next time.
            Err(HistoryError::Compacted(revision)) if revision > from => {
                self.expire(stream, revision);
                return Ok(());
            }
            Err(failure) => return Err(failure),
        };
        self.adapt(rows, chunk.next - from, to + 1 - from);
        self.hand_out(stream, key, &chunk);

        if chunk.next > self.revision {
            let Some(done) = self.streams[stream].behind.remove(key) else { return Ok(()) };
            for watcher in done.members.everyone() {
                let state = &mut self.watchers[watcher];
                state.min_revision = state.min_revision.max(chunk.next);
                self.seat_in_sync(watcher);
            }
        } else {
            self.reposition(stream, key, chunk.next);
        }
        Ok(())
    }

    /// Takes the cohorts that stand inside the stretch along: they are at their members' own minimum then.
    fn take_in(&mut self, stream: Key, key: Key, from: i64, to: i64) {
        while let Some(other) = self.streams[stream].behind.between(from, to) {
            if let Some(other) = self.streams[stream].behind.remove(other) {
                self.unite(stream, key, &other);
            }
        }
    }

    /// Puts the events of a stretch into the queues of the cohort's members.
    fn hand_out(&mut self, stream: Key, key: Key, chunk: &Chunk) {
        let behind = &mut self.streams[stream].behind;
        let mut members = std::mem::take(&mut behind.cohorts[key].members);
        let Hub { watchers, streams, options, counts, woken, revision, .. } = self;
        let mut courier = Courier { watchers, streams, options, counts, woken };
        courier.deliver(&mut members, &chunk.events, Some(*revision), &mut |_, _| {
            unreachable!("a step's own events always find room: one step is all that they amount to")
        });
        self.streams[stream].behind.cohorts[key].members = members;
    }

    /// Learns how many revisions make the rows that one step should look at.
    fn adapt(&mut self, rows: usize, read: i64, asked: i64) {
        let rows = i64::try_from(rows).unwrap_or(i64::MAX);
        let target = i64::try_from(self.options.step_rows).unwrap_or(i64::MAX);
        if rows > target {
            self.span = (read.saturating_mul(target) / rows).max(1);
        } else if rows < target / 2 && read == asked && asked >= self.span {
            self.span = (self.span * 2).min(LONGEST_SPAN);
        }
    }

    /// Ends the watchers of the stream that stand below the compact revision: they have missed events that
    /// nobody can tell them of any more. What they had been handed before is still sent.
    fn expire(&mut self, stream: Key, compact_revision: i64) {
        while let Some(key) = self.streams[stream].behind.below(compact_revision) {
            let cohort = &self.streams[stream].behind.cohorts[key];
            let position = cohort.position;
            let members: Vec<Key> = cohort.members.everyone().collect();
            for watcher in members {
                let next = self.watchers[watcher].min_revision.max(position);
                self.watchers[watcher].min_revision = next;
                // Planted: V5, a watcher that compaction overtook goes on behind the hole without a word.
                if next < compact_revision && !planted::is("watch-jumps") {
                    self.unseat(watcher);
                    self.push(stream, Item::Compacted { watcher, compact_revision });
                }
            }
            if self.streams[stream].behind.cohorts.get(key).is_some() {
                self.reposition(stream, key, compact_revision);
            }
        }
    }

    /// Moves a cohort, into another if one stands there.
    fn reposition(&mut self, stream: Key, key: Key, position: i64) {
        let behind = &mut self.streams[stream].behind;
        let Some(other) = behind.advance(key, position) else { return };
        if let Some(mut moved) = behind.remove(key) {
            moved.position = position;
            self.unite(stream, other, &moved);
        }
    }

    /// Seats the members of a cohort that is no more in another, each at where it had got to.
    fn unite(&mut self, stream: Key, into: Key, from: &Cohort) {
        for watcher in from.members.everyone() {
            let minimum = &mut self.watchers[watcher].min_revision;
            *minimum = (*minimum).max(from.position);
            self.seat_in_cohort(stream, into, watcher);
        }
    }
}
