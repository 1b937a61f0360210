//! What the records mean: the log as it stands after all of them, applied in the order of writing.
//!
//! A record may overwrite what an earlier one wrote, also below the place the caller asks for, and
//! takes everything behind it with it. So nothing is skipped: an entry that is too old to be returned
//! still truncates, else entries that a new leader had erased would come back.
//!
//! The checksum does not cover what kind of record it is, so the rules here also hold what no flipped
//! kind may get past: an entry never lowers the term of the log or rewrites what is committed, a hard
//! state never lowers term or commit, a configuration change without data never overwrites, and every
//! segment opens with its checksum and its metadata.

use std::collections::VecDeque;

use raft::{Entry, HardState, Index, SnapshotMeta, Term};

use crate::record::{self, Kind};

/// The log so far.
#[derive(Debug)]
pub(crate) struct Replay {
    /// Entries up to here are not wanted.
    from: Index,
    pub(crate) metadata: Option<Vec<u8>>,
    pub(crate) state: HardState,
    /// The last marker that the log reached.
    pub(crate) snapshot: SnapshotMeta,
    /// A snapshot ahead of the log, whose body is being installed: it counts once the commit index or an
    /// entry behind it says that the install went through.
    pending: Option<SnapshotMeta>,
    /// The last snapshot that took the place of the log.
    pub(crate) installed: Option<SnapshotMeta>,
    /// The last index of the log.
    pub(crate) last: Index,
    /// The index before the first of `entries`: `from`, or a snapshot from elsewhere that is ahead of it.
    pub(crate) base: Index,
    pub(crate) entries: Vec<Entry>,
    /// Whether the entries are wanted at all.
    keep: bool,
    /// Whether the last entry took the place of others.
    pub(crate) overwrote: bool,
    /// Runs of equal terms, as (first index, term), over what has been read.
    terms: VecDeque<(Index, Term)>,
}

impl Replay {
    /// Begins at a segment that was cut when `last` was the last index.
    pub(crate) fn new(from: Index, last: Index) -> Replay {
        Replay {
            from,
            metadata: None,
            state: HardState::default(),
            snapshot: SnapshotMeta::default(),
            pending: None,
            installed: None,
            last,
            base: from,
            entries: Vec::new(),
            keep: true,
            overwrote: false,
            terms: VecDeque::new(),
        }
    }

    /// Like [`Replay::new`], for who only wants to know what each record means.
    pub(crate) fn walking(last: Index) -> Replay {
        Replay { keep: false, ..Replay::new(Index(0), last) }
    }

    /// Applies one record; the text says why it cannot follow those before it.
    pub(crate) fn apply(&mut self, kind: Kind, data: &[u8]) -> Result<(), String> {
        match kind {
            Kind::Crc => Ok(()),
            Kind::Metadata => self.metadata(data),
            Kind::Entry => self.entry(record::decode_entry(data)?),
            Kind::State => self.state(record::decode_state(data)?),
            Kind::Snapshot => self.snapshot(record::decode_snapshot(data)?),
        }
    }

    fn metadata(&mut self, data: &[u8]) -> Result<(), String> {
        match &self.metadata {
            Some(known) if known != data => {
                Err("its metadata differs from that of the segment before".into())
            }
            _ => {
                self.metadata = Some(data.to_vec());
                Ok(())
            }
        }
    }

    fn entry(&mut self, entry: Entry) -> Result<(), String> {
        let Entry { index, term, .. } = entry;
        // What follows the snapshot in the log of a leader that has it says that it was installed,
        // unless the log has come to contain what it contains by itself.
        let terms = &self.terms;
        let last = self.last;
        if let Some(meta) = self.pending.take_if(|meta| {
            let there = meta.index <= last && term_in(terms, meta.index) == Some(meta.term);
            index == meta.index.next() && term >= meta.term && !there
        }) {
            self.install(meta);
        }
        if index > self.last.next() {
            return Err(format!("entry {index} follows entry {}: those between are missing", self.last));
        }
        if index <= self.state.commit {
            return Err(format!("it rewrites entry {index}, but {} was committed", self.state.commit));
        }
        if let Some(meta) = self.installed.as_ref().filter(|meta| index <= meta.index) {
            return Err(format!(
                "it rewrites entry {index}, but the snapshot of entry {} was taken in",
                meta.index
            ));
        }
        if index <= self.last && entry.is_conf_change() && entry.data.is_empty() {
            return Err(format!("it rewrites entry {index} with a configuration change without data"));
        }
        if self.term_at(index.prev()).is_some_and(|before| before > term) {
            return Err(format!("entry {index} of term {term} follows an entry of a later term"));
        }
        self.overwrote = index <= self.last;
        // W3, planted: ghost-tail.
        if planted::is("ghost-tail") && index <= self.from {
            return Ok(());
        }
        self.truncate(index);
        if self.terms.back().is_none_or(|&(_, run)| run != term) {
            self.terms.push_back((index, term));
        }
        self.last = index;
        if index > self.from && self.keep {
            self.entries.push(entry);
        }
        Ok(())
    }

    fn state(&mut self, state: HardState) -> Result<(), String> {
        if state.term < self.state.term || state.commit < self.state.commit {
            let (old, new) = (self.state, state);
            return Err(format!(
                "its hard state (term {}, commit {}) is older than the one before (term {}, commit {})",
                new.term, new.commit, old.term, old.commit
            ));
        }
        self.state = state;
        if let Some(meta) = self.pending.take_if(|meta| meta.index <= state.commit) {
            // If the install was given up, the log has grown past the marker by itself.
            if meta.index > self.last || self.term_at(meta.index).is_some_and(|term| term != meta.term) {
                self.install(meta);
            }
        }
        Ok(())
    }

    fn snapshot(&mut self, meta: SnapshotMeta) -> Result<(), String> {
        let fits = meta.index <= self.last && self.term_at(meta.index).is_none_or(|term| term == meta.term);
        if fits {
            self.pending = None;
            self.snapshot = meta;
        } else if meta.index <= self.state.commit {
            return Err(format!(
                "its snapshot marker (entry {}, term {}) contradicts the log",
                meta.index, meta.term
            ));
        } else {
            self.pending = Some(meta);
        }
        Ok(())
    }

    /// A snapshot from elsewhere takes the place of the log.
    fn install(&mut self, meta: SnapshotMeta) {
        self.entries.clear();
        self.terms.clear();
        self.terms.push_back((meta.index, meta.term));
        self.last = meta.index;
        self.base = self.from.max(meta.index);
        self.snapshot = meta.clone();
        self.installed = Some(meta);
    }

    /// Forgets the entry at `index` and all behind it.
    fn truncate(&mut self, index: Index) {
        if index > self.last {
            return;
        }
        self.entries.truncate(index.0.saturating_sub(self.base.0 + 1) as usize);
        while self.terms.back().is_some_and(|&(first, _)| first >= index) {
            self.terms.pop_back();
        }
    }

    /// The term of an entry that has been read and still stands.
    fn term_at(&self, index: Index) -> Option<Term> {
        if index > self.last { None } else { term_in(&self.terms, index) }
    }

    /// What must hold once everything has been read.
    pub(crate) fn check_end(&self) -> Result<(), String> {
        if self.last < self.from {
            return Err(format!(
                "the log ends at entry {}, but the database holds entry {}",
                self.last, self.from
            ));
        }
        if self.last < self.state.commit {
            let commit = self.state.commit;
            return Err(format!("the log ends at entry {}, but entry {commit} was committed", self.last));
        }
        Ok(())
    }

    /// The hard state to go on with. A torn batch may have kept the entries of a new term and lost the
    /// hard state behind them; nothing of that batch was acknowledged, so no vote of that term was either.
    pub(crate) fn final_state(&self) -> HardState {
        let last_term = self.terms.back().map_or(Term(0), |&(_, term)| term);
        if last_term > self.state.term {
            return HardState { term: last_term, vote: None, commit: self.state.commit };
        }
        self.state
    }
}

fn term_in(terms: &VecDeque<(Index, Term)>, index: Index) -> Option<Term> {
    terms.iter().rev().find(|&&(first, _)| first <= index).map(|&(_, term)| term)
}
