//! What a leader knows about one other member, and how much it may send there.
//!
//! ```text
//!            matching ack                    falls behind the log's begin
//!   Probe ------------------> Replicate ------------------+
//!     ^  one message at a time    |  window of messages   v
//!     +---- rejection, lost ------+                    Snapshot
//!     +---- arrived, failed, timed out, or an ack reaches our log --+
//! ```
//!
//! `matched < next` always, and `matched` never goes back within a term.

use crate::types::{Index, NodeId};
use std::collections::VecDeque;

/// How to send.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// One message, then wait: an answer or a heartbeat's echo allows the next.
    Probe { waiting: bool },
    /// Optimistically, as much as the window holds.
    Replicate {
        window: Window,
        /// Entries sent seem not to arrive: an empty append will tell.
        nudge: bool,
    },
    /// Nothing; a snapshot is being made or is on its way.
    Snapshot {
        /// Where it stands; `None` while it is being made.
        sent: Option<Index>,
        /// Ticks since the last step was taken.
        ticks: u64,
    },
}

/// Messages sent and not yet acknowledged.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Window {
    sent: VecDeque<(Index, usize)>,
    bytes: usize,
}

impl Window {
    fn add(&mut self, last: Index, bytes: usize) {
        self.sent.push_back((last, bytes));
        self.bytes += bytes;
    }

    fn free_to(&mut self, index: Index) {
        while let Some((last, bytes)) = self.sent.front().copied()
            && last <= index
        {
            self.sent.pop_front();
            self.bytes -= bytes;
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.sent.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Bounds of a [`Window`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct WindowLimit {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) matched: Index,
    pub(crate) next: Index,
    pub(crate) flow: Flow,
    /// The commit index last sent.
    pub(crate) commit_sent: Index,
    /// Heard of since the last check of the quorum.
    pub(crate) active: bool,
    /// The newest read round echoed.
    pub(crate) round: u64,
    /// The entries after this one are being read from the disk.
    pub(crate) reading: Option<Index>,
}

impl Progress {
    /// Of someone nothing is known about; `next` is a guess.
    pub(crate) fn new(next: Index, active: bool) -> Progress {
        Progress {
            matched: Index(0),
            next: next.max(Index(1)),
            flow: Flow::Probe { waiting: false },
            commit_sent: Index(0),
            active,
            round: 0,
            reading: None,
        }
    }

    /// Acknowledged up to `index`. True if that says something new.
    pub(crate) fn acknowledge(&mut self, index: Index, log_begin: Index) -> bool {
        let news = index > self.matched;
        if news {
            self.matched = index;
            self.next = self.next.max(index.next());
        }
        match &mut self.flow {
            // Also without news: a probe of a member that has everything is answered like this.
            Flow::Probe { .. } if index >= self.matched => {
                self.replicate();
                true
            }
            // Wherever the snapshot stood, the log can take over from here.
            Flow::Snapshot { .. } if news && self.matched >= log_begin => {
                self.replicate();
                true
            }
            // It arrived, but the log has moved on meanwhile: another one is needed.
            Flow::Snapshot { sent: Some(sent), .. } if news && self.matched >= *sent => {
                self.probe();
                true
            }
            Flow::Replicate { window, .. } => {
                window.free_to(index);
                news
            }
            _ => news,
        }
    }

    /// The append after `prev` did not match, `hint` may. False if that is old news.
    pub(crate) fn reject(&mut self, prev: Index, hint: Index) -> bool {
        match self.flow {
            Flow::Replicate { .. } if prev > self.matched => {
                self.probe();
                true
            }
            Flow::Probe { .. } if self.next.prev() == prev => {
                self.next = prev.min(hint.next()).max(self.matched.next());
                self.commit_sent = self.commit_sent.min(self.next.prev());
                self.flow = Flow::Probe { waiting: false };
                true
            }
            _ => false,
        }
    }

    pub(crate) fn replicate(&mut self) {
        self.next = self.matched.next();
        self.flow = Flow::Replicate { window: Window::default(), nudge: false };
    }

    /// Starts over from what is known to match.
    pub(crate) fn probe(&mut self) {
        self.next = self.matched.next();
        self.commit_sent = self.commit_sent.min(self.matched);
        self.flow = Flow::Probe { waiting: false };
    }

    /// A snapshot at `index` is said to have arrived: the next append, after the heartbeat that
    /// follows, will show.
    pub(crate) fn snapshot_arrived(&mut self, index: Index) {
        self.next = self.matched.max(index).next();
        self.flow = Flow::Probe { waiting: true };
    }

    /// The snapshot is lost: wait for a heartbeat's echo before trying again.
    pub(crate) fn snapshot_lost(&mut self) {
        self.probe();
        self.flow = Flow::Probe { waiting: true };
    }

    /// An append after `next - 1` with this much was sent.
    pub(crate) fn sent(&mut self, entries: usize, bytes: usize, commit: Index) {
        self.commit_sent = commit;
        match &mut self.flow {
            Flow::Probe { waiting } => *waiting = true,
            Flow::Replicate { window, nudge } => {
                *nudge = false;
                if entries > 0 {
                    self.next = Index(self.next.0 + entries as u64);
                    window.add(self.next.prev(), bytes);
                }
            }
            Flow::Snapshot { .. } => unreachable!("appends are not sent beside a snapshot"),
        }
    }

    /// Whether entries may be sent now.
    pub(crate) fn has_room(&self, limit: WindowLimit) -> bool {
        match &self.flow {
            Flow::Probe { waiting } => !waiting,
            Flow::Replicate { window, .. } => window.len() < limit.messages && window.bytes() < limit.bytes,
            Flow::Snapshot { .. } => false,
        }
    }

    /// Whether the member must be told something even if there is no entry for it.
    pub(crate) fn wants_empty(&self, commit: Index) -> bool {
        match &self.flow {
            Flow::Probe { waiting } => !waiting,
            // A commit index beyond what was sent would mean nothing there.
            Flow::Replicate { nudge, .. } => {
                *nudge || commit > self.commit_sent && self.commit_sent < self.next.prev()
            }
            Flow::Snapshot { .. } => false,
        }
    }

    /// A heartbeat was echoed: the way is open again.
    pub(crate) fn heartbeat_echoed(&mut self, last: Index) {
        self.active = true;
        match &mut self.flow {
            Flow::Probe { waiting } => *waiting = false,
            Flow::Replicate { nudge, .. } => *nudge = self.matched < last,
            Flow::Snapshot { .. } => {}
        }
    }

    pub(crate) fn check(&self, id: NodeId, last: Index) {
        let Progress { matched, next, .. } = self;
        assert!(matched < next, "member {:x}: next {next} is not above matched {matched}", id.0);
        assert!(*matched <= last, "member {:x} matched {matched} beyond the leader's {last}", id.0);
    }
}
