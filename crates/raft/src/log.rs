//! The live end of the log, in memory.
//!
//! ```text
//!   begin        applied      handed     commit
//!     |             |            |          |
//!     |  catch-up   | machine's  | waiting  |   not agreed yet   |
//!     +-------------+------------+----------+--------------------+ last
//!                          stable ^              ^ issued
//! ```
//!
//! What must hold, and is asserted at every [`Log::check`]:
//! `applied <= handed <= min(commit, stable)`, `commit <= last`, `stable <= issued <= last`, and,
//! unless a snapshot waits to be installed, `begin <= applied`.
//!
//! Writes to disk are numbered and acknowledged in order. A write vouches for the places it wrote
//! as long as nobody cut them off again: cutting lowers what every write under way can vouch for.
//! So an acknowledgement that arrives after its entries were overwritten, even overwritten by the
//! very same entries, moves nothing.

use crate::ready::Persist;
use crate::types::{Entry, HardState, Index, PersistId, Snapshot, SnapshotMeta, Term};
use std::collections::VecDeque;

/// How much of the applied log is kept for followers that are a little behind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CatchUp {
    pub(crate) entries: u64,
    pub(crate) bytes: usize,
}

/// A snapshot on its way from a message to the machine.
#[derive(Debug, Default, PartialEq, Eq)]
enum Install {
    #[default]
    Idle,
    /// Its record is being written.
    Writing(Snapshot),
    /// The record is durable.
    Written(Snapshot),
    /// The machine has it in hand.
    Handed(Index),
}

/// A write under way.
#[derive(Debug)]
struct Write {
    id: PersistId,
    /// The last place it vouches for.
    upto: Index,
    hard_state: HardState,
    snapshot: Option<Index>,
}

#[derive(Debug)]
pub(crate) struct Log {
    /// The last place that is no longer here.
    begin: (Index, Term),
    entries: VecDeque<Entry>,
    /// Sum of [`Entry::size`].
    bytes: usize,
    catch_up: CatchUp,
    commit: Index,
    handed: Index,
    applied: Index,
    /// Durable up to here.
    stable: Index,
    /// Handed to storage up to here.
    issued: Index,
    writes: VecDeque<Write>,
    next_write: PersistId,
    /// The hard state that is durable.
    durable: HardState,
    /// Configuration changes after `applied`.
    conf_changes: VecDeque<Index>,
    install: Install,
    /// Bytes given to the machine and not yet applied, in batches by their last entry.
    handed_bytes: VecDeque<(Index, usize)>,
    handed_total: usize,
}

impl Log {
    /// A log as found on disk: everything in it is durable.
    pub(crate) fn new(
        begin: (Index, Term),
        entries: Vec<Entry>,
        durable: HardState,
        commit: Index,
        applied: Index,
        catch_up: CatchUp,
    ) -> Log {
        let last = entries.last().map_or(begin.0, |e| e.index);
        let conf_changes = entries.iter().filter(|e| e.is_conf_change() && e.index > applied);
        let mut log = Log {
            begin,
            bytes: entries.iter().map(Entry::size).sum(),
            catch_up,
            commit,
            handed: applied,
            applied,
            stable: last,
            issued: last,
            writes: VecDeque::new(),
            next_write: PersistId(1),
            durable,
            conf_changes: conf_changes.map(|e| e.index).collect(),
            install: Install::Idle,
            handed_bytes: VecDeque::new(),
            handed_total: 0,
            entries: entries.into(),
        };
        log.commit_all_but_last_conf_change();
        log.trim();
        log
    }

    pub(crate) fn begin(&self) -> Index {
        self.begin.0
    }

    pub(crate) fn last(&self) -> Index {
        Index(self.begin.0.0 + self.entries.len() as u64)
    }

    pub(crate) fn last_term(&self) -> Term {
        self.entries.back().map_or(self.begin.1, |e| e.term)
    }

    pub(crate) fn commit(&self) -> Index {
        self.commit
    }

    pub(crate) fn applied(&self) -> Index {
        self.applied
    }

    pub(crate) fn stable(&self) -> Index {
        self.stable
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The hard state that a restart would find.
    pub(crate) fn durable(&self) -> HardState {
        self.durable
    }

    /// Where `index` stands in `entries`.
    fn offset(&self, index: Index) -> usize {
        debug_assert!(index > self.begin.0);
        (index.0 - self.begin.0.0 - 1) as usize
    }

    /// The term at `index`, if this log still, or already, knows it.
    pub(crate) fn term(&self, index: Index) -> Option<Term> {
        if index == self.begin.0 {
            Some(self.begin.1)
        } else if index > self.begin.0 {
            self.entries.get(self.offset(index)).map(|e| e.term)
        } else {
            None
        }
    }

    pub(crate) fn matches(&self, index: Index, term: Term) -> bool {
        self.term(index) == Some(term)
    }

    /// Whether a log that ends so holds everything this one may have helped to commit (§5.4.1).
    pub(crate) fn is_up_to_date(&self, last: Index, term: Term) -> bool {
        (term, last) >= (self.last_term(), self.last())
    }

    /// Entries from `from` on, as many as fit into `max_bytes`, but at least one if there is one.
    pub(crate) fn slice(&self, from: Index, max_bytes: usize) -> Vec<Entry> {
        if from > self.last() {
            return Vec::new();
        }
        self.bounded(from, self.last(), max_bytes)
    }

    fn bounded(&self, from: Index, to: Index, max_bytes: usize) -> Vec<Entry> {
        let (start, end) = (self.offset(from), self.offset(to) + 1);
        let mut bytes = 0;
        let fitting = self.entries.range(start..end).take_while(|e| {
            let first = bytes == 0;
            bytes += e.size();
            first || bytes <= max_bytes
        });
        let end = start + fitting.count();
        self.entries.range(start..end).cloned().collect()
    }

    /// Payload bytes after `from`, up to and including `to`.
    pub(crate) fn payload(&self, from: Index, to: Index) -> usize {
        if to <= from {
            return 0;
        }
        let range = self.offset(from.next())..self.offset(to) + 1;
        self.entries.range(range).map(|e| e.data.len()).sum()
    }

    /// Appends at the end; what a leader does with its own entries.
    pub(crate) fn push(&mut self, entry: Entry) {
        assert_eq!(entry.index, self.last().next(), "appended entry leaves a gap");
        assert!(
            entry.term >= self.last_term(),
            "term {} of entry {} is below term {} before it",
            entry.term,
            entry.index,
            self.last_term()
        );
        self.bytes += entry.size();
        if entry.is_conf_change() {
            self.conf_changes.push_back(entry.index);
        }
        self.entries.push_back(entry);
    }

    /// What a follower does with a leader's entries: nothing unless `prev` matches, else whatever
    /// makes the log equal to the leader's up to the last of them, and returns that place.
    ///
    /// Entries that are already here are not touched, even if more follow them: the message may
    /// be an old one, overtaken by others (§5.3).
    pub(crate) fn append(&mut self, prev: (Index, Term), entries: Vec<Entry>) -> Option<Index> {
        if !self.matches(prev.0, prev.1) {
            return None;
        }
        let matched = Index(prev.0.0 + entries.len() as u64);
        // §5.3, planted: truncate-on-old-append.
        let known = match planted::is("truncate-on-old-append") {
            true => entries.iter().take_while(|e| e.index <= self.commit).count(),
            false => entries.iter().take_while(|e| self.matches(e.index, e.term)).count(),
        };
        if known < entries.len() {
            let from = entries[known].index;
            if from <= self.last() {
                self.truncate(from);
            }
            self.entries.reserve(entries.len() - known);
            for entry in entries.into_iter().skip(known) {
                self.push(entry);
            }
            self.commit_all_but_last_conf_change();
        }
        Some(matched)
    }

    /// Cuts off `from` and everything after it.
    fn truncate(&mut self, from: Index) {
        assert!(
            from > self.commit,
            "a leader contradicts entry {from}, but {} is committed here",
            self.commit
        );
        let keep = self.offset(from);
        self.bytes -= self.entries.range(keep..).map(Entry::size).sum::<usize>();
        self.entries.truncate(keep);
        while self.conf_changes.back().is_some_and(|index| *index >= from) {
            self.conf_changes.pop_back();
        }
        self.limit_writes(from.prev());
    }

    /// Nothing on disk or on its way there counts beyond `upto` any more.
    fn limit_writes(&mut self, upto: Index) {
        self.stable = self.stable.min(upto);
        self.issued = self.issued.min(upto);
        // R7, planted: stale-append-ack.
        if planted::is("stale-append-ack") {
            return;
        }
        for write in &mut self.writes {
            write.upto = write.upto.min(upto);
        }
    }

    /// A leader appends a configuration change only after it has applied the one before. Whoever
    /// holds two of them therefore knows that all but the last are committed, even if no message
    /// said so; and it must act on that, or it might campaign under a configuration whose quorums
    /// need not overlap with those in force elsewhere.
    fn commit_all_but_last_conf_change(&mut self) {
        if let Some(before) = self.conf_changes.len().checked_sub(2) {
            self.commit_to(self.conf_changes[before]);
        }
    }

    /// Commits up to `index`; going back is no change. True if it moved.
    pub(crate) fn commit_to(&mut self, index: Index) -> bool {
        if index <= self.commit {
            return false;
        }
        assert!(
            index <= self.last(),
            "entry {index} is committed but this log ends at {}: the disk of this member was lost or \
             rolled back; remove the member and add it again under a new id",
            self.last()
        );
        self.commit = index;
        true
    }

    /// The last place not after `index` whose term is not above `term`, with its term if known.
    /// Everything between is a mismatch for a log that has `term` at `index`.
    pub(crate) fn last_not_above(&self, index: Index, term: Term) -> (Index, Option<Term>) {
        let mut index = index;
        while let Some(own) = self.term(index) {
            if own <= term {
                return (index, Some(own));
            }
            if index == Index(0) {
                break;
            }
            index = index.prev();
        }
        (index, None)
    }

    /// Replaces everything by a snapshot: its record goes to disk, then the machine gets it.
    pub(crate) fn restore(&mut self, snapshot: Snapshot) {
        let SnapshotMeta { index, term, .. } = snapshot.meta;
        assert!(index > self.commit, "snapshot at {index} is not news, {} is committed here", self.commit);
        self.limit_writes(self.commit.min(self.stable));
        self.begin = (index, term);
        self.entries.clear();
        self.bytes = 0;
        self.conf_changes.clear();
        self.issued = index;
        self.commit = index;
        self.install = Install::Writing(snapshot);
    }

    /// Whether a snapshot has not reached the machine yet.
    pub(crate) fn is_installing(&self) -> bool {
        self.install != Install::Idle
    }

    /// Whether a configuration change is committed but not applied.
    pub(crate) fn has_unapplied_conf_change(&self) -> bool {
        // R14, planted: campaign-unapplied.
        if planted::is("campaign-unapplied") {
            return false;
        }
        self.conf_changes.front().is_some_and(|index| *index <= self.commit)
    }

    /// What must go to disk now, given the hard state as it should be there.
    pub(crate) fn write(&mut self, hard_state: HardState, must: bool) -> Option<Persist> {
        let issued = self.writes.back().map_or(self.durable, |write| write.hard_state);
        let promise = (issued.term, issued.vote) != (hard_state.term, hard_state.vote);
        let entries = match self.issued < self.last() {
            true => self.bounded(self.issued.next(), self.last(), usize::MAX),
            false => Vec::new(),
        };
        let snapshot = match &self.install {
            Install::Writing(s) if !self.writes.iter().any(|w| w.snapshot == Some(s.meta.index)) => {
                Some(s.clone())
            }
            _ => None,
        };
        let must_sync = promise || !entries.is_empty() || snapshot.is_some();
        // A commit index alone is a hint to the next start; it waits for company, or for a tick.
        let wanted = must_sync || must && hard_state != issued;
        if !wanted {
            return None;
        }
        let id = self.next_write;
        self.next_write = PersistId(id.0 + 1);
        self.issued = self.last();
        let index = snapshot.as_ref().map(|s| s.meta.index);
        self.writes.push_back(Write { id, upto: self.issued, hard_state, snapshot: index });
        let hard_state = (hard_state != issued).then_some(hard_state);
        Some(Persist { id, hard_state, entries, snapshot, must_sync })
    }

    /// Every write up to and including `id` is durable. True if that was news.
    pub(crate) fn written(&mut self, id: PersistId) -> bool {
        assert!(id < self.next_write, "write {} was never issued, {} is next", id.0, self.next_write.0);
        let mut news = false;
        while self.writes.front().is_some_and(|write| write.id <= id) {
            let Some(write) = self.writes.pop_front() else { break };
            news = true;
            self.durable = write.hard_state;
            self.stable = self.stable.max(write.upto);
            if let Install::Writing(snapshot) = &self.install
                && write.snapshot == Some(snapshot.meta.index)
            {
                let Install::Writing(snapshot) = std::mem::take(&mut self.install) else { break };
                self.install = Install::Written(snapshot);
            }
        }
        news
    }

    /// A snapshot the machine must install now.
    pub(crate) fn take_install(&mut self) -> Option<Snapshot> {
        if !matches!(self.install, Install::Written(_)) {
            return None;
        }
        let Install::Written(snapshot) = std::mem::take(&mut self.install) else { return None };
        self.handed = snapshot.meta.index;
        self.install = Install::Handed(snapshot.meta.index);
        Some(snapshot)
    }

    /// The next batch for the machine: committed, durable here, and not more than it can hold.
    pub(crate) fn take_committed(&mut self, max_batch: usize, max_held: usize) -> Vec<Entry> {
        // R9, planted: apply-before-durable.
        let durable = if planted::is("apply-before-durable") { self.last() } else { self.stable };
        let upto = self.commit.min(durable);
        if upto <= self.handed || self.handed < self.begin.0 || self.handed_total >= max_held {
            return Vec::new();
        }
        let batch = self.bounded(self.handed.next(), upto, max_batch);
        let bytes = batch.iter().map(Entry::size).sum();
        self.handed = Index(self.handed.0 + batch.len() as u64);
        self.handed_bytes.push_back((self.handed, bytes));
        self.handed_total += bytes;
        batch
    }

    /// Whether [`Log::take_committed`] would return something.
    pub(crate) fn has_committed(&self, max_held: usize) -> bool {
        self.handed < self.commit.min(self.stable)
            && self.handed >= self.begin.0
            && self.handed_total < max_held
    }

    /// The machine has applied up to `index`.
    pub(crate) fn applied_to(&mut self, index: Index) {
        assert!(
            index <= self.handed,
            "entry {index} is said to be applied, but only {} was handed out",
            self.handed
        );
        if index <= self.applied {
            return;
        }
        self.applied = index;
        if matches!(self.install, Install::Handed(at) if at <= index) {
            self.install = Install::Idle;
        }
        while self.conf_changes.front().is_some_and(|change| *change <= index) {
            self.conf_changes.pop_front();
        }
        while let Some((last, bytes)) = self.handed_bytes.front().copied()
            && last <= index
        {
            self.handed_bytes.pop_front();
            self.handed_total -= bytes;
        }
        self.trim();
    }

    /// Lets go of what is applied and durable, except for the part kept for followers.
    fn trim(&mut self) {
        let limit = self.applied.min(self.stable);
        while let Some(front) = self.entries.front()
            && front.index <= limit
            && (limit.0 - front.index.0 >= self.catch_up.entries || self.bytes > self.catch_up.bytes)
        {
            self.begin = (front.index, front.term);
            self.bytes -= front.size();
            self.entries.pop_front();
        }
    }

    /// The invariants of the picture above.
    pub(crate) fn check(&self) {
        let Log { begin, commit, handed, applied, stable, issued, .. } = self;
        let last = self.last();
        assert!(*commit <= last, "commit {commit} is beyond the log's end {last}");
        assert!(applied <= handed, "applied {applied} is beyond handed {handed}");
        assert!(handed <= commit, "handed {handed} is beyond commit {commit}");
        assert!(*issued <= last && stable <= issued, "stable {stable}, issued {issued}, last {last}");
        if !self.is_installing() {
            assert!(handed <= stable, "handed {handed} is beyond what is durable, {stable}");
            assert!(begin.0 <= *applied, "the log begins after {}, applied is {applied}", begin.0);
        }
    }
}

#[cfg(test)]
mod tests;
