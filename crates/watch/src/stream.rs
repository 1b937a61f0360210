//! One stream: its watchers by id, the line of what to send next, and the ledger of what that holds.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::arena::Key;
use crate::cohort::Behind;
use crate::frame::Frame;
use crate::ledger::Ledger;

/// What must hold, always: a progress item in `line` claims a revision at which every watcher that it speaks
/// for was in sync, and stands behind every event that they had been handed by then. Nothing moves ahead of
/// it: a watcher with more in its queue than fits one response goes back to the front of the line.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    /// `None` for a watcher that compaction ended: its id stays taken until the client cancels it.
    pub(crate) watchers: BTreeMap<i64, Option<Key>>,
    /// Where the search for an id that the client left to us begins.
    pub(crate) next_id: i64,
    pub(crate) line: VecDeque<Item>,
    /// The rest of a response that was split, to be sent before anything else.
    pub(crate) fragments: VecDeque<Frame>,
    pub(crate) ledger: Ledger,
    pub(crate) behind: Behind,
    pub(crate) owed: Owed,
    /// Control responses in `line`.
    pub(crate) controls: usize,
    /// Whether its owner has been told that there is something to pull.
    pub(crate) announced: bool,
    /// Frames sent from the line since the last step of catching up.
    pub(crate) since_step: usize,
    /// When the current progress interval ends.
    pub(crate) deadline: Duration,
    /// Watchers that asked for progress notifications.
    pub(crate) notified: usize,
}

/// Something to send.
#[derive(Debug)]
pub(crate) enum Item {
    /// Whatever waits in this watcher's queue.
    Events(Key),
    Created {
        id: i64,
        revision: i64,
    },
    Refused {
        revision: i64,
        reason: Box<str>,
    },
    Canceled {
        id: i64,
        revision: i64,
    },
    /// The end of a doomed watcher.
    Compacted {
        watcher: Key,
        compact_revision: i64,
    },
    /// The stream as a whole has got this far; the answer to so many requests.
    Progress {
        revision: i64,
        times: u64,
    },
    /// One watcher has got this far.
    Notify {
        watcher: Key,
        revision: i64,
    },
}

impl Item {
    /// Whether the item answers a request that the client sent to the watch service.
    pub(crate) fn is_control(&self) -> bool {
        use Item::{Canceled, Created, Progress, Refused};
        matches!(self, Created { .. } | Refused { .. } | Canceled { .. } | Progress { .. })
    }
}

/// Progress requests that wait for the stream to be in sync, and what they wait for beside that.
#[derive(Debug, Default)]
pub(crate) struct Owed {
    /// For each, the revision that the answer must have reached, and how many requests it stands for.
    requests: VecDeque<(i64, u64)>,
    /// Floors that were above the hub's revision when their watcher was created, and how many have them.
    floors: BTreeMap<i64, usize>,
}

impl Owed {
    /// So many different floors of requests are told apart; more share the last one's.
    const DISTINCT: usize = 64;

    pub(crate) fn ask(&mut self, floor: i64) {
        let full = self.requests.len() >= Self::DISTINCT;
        match self.requests.back_mut() {
            Some((last, times)) if full || *last >= floor => {
                *last = floor.max(*last);
                *times += 1;
            }
            _ => self.requests.push_back((floor, 1)),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    pub(crate) fn forget(&mut self) {
        self.requests.clear();
    }

    /// How many requests can be answered at `revision`; they are off the list.
    pub(crate) fn take(&mut self, revision: i64) -> u64 {
        while self.floors.first_key_value().is_some_and(|(&floor, _)| floor <= revision) {
            self.floors.pop_first();
        }
        let mut ready = 0;
        while self.floors.is_empty() && self.requests.front().is_some_and(|&(floor, _)| floor <= revision) {
            ready += self.requests.pop_front().map_or(0, |(_, times)| times);
        }
        ready
    }

    pub(crate) fn add_floor(&mut self, floor: i64) {
        *self.floors.entry(floor).or_default() += 1;
    }

    /// Takes back what [`Owed::add_floor`] added, if that floor has not been passed and dropped meanwhile.
    pub(crate) fn remove_floor(&mut self, floor: i64) {
        if let Some(count) = self.floors.get_mut(&floor) {
            *count -= 1;
            if *count == 0 {
                self.floors.remove(&floor);
            }
        }
    }
}

impl Stream {
    /// Whether a pull would find anything to do.
    pub(crate) fn has_more(&self) -> bool {
        !self.line.is_empty() || !self.fragments.is_empty() || !self.behind.is_empty()
    }
}
