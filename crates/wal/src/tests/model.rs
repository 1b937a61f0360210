//! Random lives of a log against the simplest thing that could be right: a vector of entries.

use std::sync::Arc;

use raft::{Entry, HardState, Index, Persist, PersistId, Snapshot, Term};

use super::{Random, create, entry, marker, open, state};
use crate::LogReader;
use crate::memory::MemoryDisk;

const SEGMENT: u64 = 1024;

/// What the log should hold. Places up to `base` are known by their terms only: a snapshot of another
/// member has taken them.
#[derive(Clone, Default)]
struct Model {
    entries: Vec<Entry>,
    base: u64,
    state: HardState,
    /// The last flush of the database.
    marker: u64,
    released: u64,
}

impl Model {
    fn last(&self) -> u64 {
        self.entries.len() as u64
    }

    fn after(&self, index: u64) -> &[Entry] {
        &self.entries[index as usize..]
    }

    fn term(&self, index: u64) -> Term {
        index.checked_sub(1).map_or(Term(0), |at| self.entries[at as usize].term)
    }
}

/// W3: whatever was overwritten or replaced by a snapshot stays so, through any number of restarts; and
/// a reader beside the writer sees the same log.
#[test]
fn random_histories_equal_the_model() {
    let (mut installs, mut interrupted, mut reads) = (0, 0, 0);
    for seed in 0..600 {
        life(seed, &mut installs, &mut interrupted, &mut reads);
    }
    assert!(installs > 500 && interrupted > 100 && reads > 2000, "{installs} {interrupted} {reads}");
}

fn life(seed: u64, installs: &mut u64, interrupted: &mut u64, reads: &mut u64) {
    let mut random = Random(seed);
    let disk: Arc<MemoryDisk> = Arc::default();
    let mut wal = create(&disk, SEGMENT);
    let mut reader = wal.reader();
    let mut model = Model { state: state(1, 1, 0), ..Model::default() };
    let mut durable = model.clone();
    for step in 0..80 {
        let (last, commit) = (model.last(), model.state.commit.0);
        match random.below(13) {
            0..5 => {
                // A new leader may rewrite what is not committed, in a new term.
                let mut at = last + 1;
                if random.below(3) == 0 {
                    model.state.term.0 += 1 + random.below(3);
                    at = commit + 1 + random.below(last - commit + 1);
                }
                let count = if at <= last { 1 + random.below(5) } else { random.below(6) };
                let new: Vec<_> = (at..at + count)
                    .map(|i| entry(model.state.term.0, i, &vec![seed as u8; random.below(300) as usize]))
                    .collect();
                model.entries.truncate(at as usize - 1);
                model.entries.extend(new.iter().cloned());
                let end = model.last();
                model.state.commit = Index(commit + random.below(end - commit + 1));
                wal.append(Some(&model.state), &new).unwrap();
            }
            5 => {
                let floor = model.marker.max(model.base);
                if commit > floor {
                    let index = floor + 1 + random.below(commit - floor);
                    wal.append_snapshot(&marker(model.term(index).0, index)).unwrap();
                    model.marker = index;
                }
            }
            6 => {
                // Only what a durable marker covers may go.
                wal.sync().unwrap();
                durable = model.clone();
                wal.release_to(Index(model.marker)).unwrap();
                (model.released, durable.released) = (model.marker, model.marker);
            }
            7 => wal.prepare().unwrap(),
            8 | 9 => {
                check_reader(&reader, &durable, &mut random, reads, seed);
            }
            10 => {
                // A snapshot of another member, perhaps over entries that were never committed, with or
                // without what follows it.
                *installs += 1;
                let index = commit + 1 + random.below(last - commit + 4);
                model.state.term.0 += 1;
                let term = model.state.term.0;
                model.entries.truncate(commit as usize);
                model.entries.extend((commit + 1..=index).map(|i| entry(term, i, b"")));
                let count = random.below(4);
                let new: Vec<_> = (index + 1..=index + count).map(|i| entry(term, i, b"after")).collect();
                model.entries.extend(new.iter().cloned());
                model.base = index;
                model.state.commit = Index(index + random.below(count + 1));
                let snapshot = Snapshot { meta: marker(term, index), data: Arc::default() };
                let (id, hard_state) = (PersistId(1), Some(model.state));
                let persist =
                    Persist { id, hard_state, entries: new, snapshot: Some(snapshot), must_sync: true };
                wal.append_persist(&persist).unwrap();
                if random.below(2) == 0 {
                    // The database has it.
                    wal.sync().unwrap();
                    durable = model.clone();
                    wal.append_snapshot(&marker(term, index)).unwrap();
                    model.marker = index;
                }
            }
            _ => {
                wal.sync().unwrap();
                drop(wal);
                let from = model.marker + random.below(commit - model.marker + 1);
                let (reopened, recovered) =
                    open(&disk, SEGMENT, from).unwrap_or_else(|e| panic!("seed {seed} step {step}: {e}"));
                let context = format!("seed {seed} step {step} from {from}");
                let begin = from.max(model.base);
                assert_eq!(recovered.entries, model.after(begin), "{context}");
                assert_eq!(recovered.begins_after, Index(begin), "{context}");
                let install = recovered.install.map(|meta| (meta.index.0, meta.term));
                let due = from < model.base;
                assert_eq!(install, due.then(|| (model.base, model.term(model.base))), "{context}");
                *interrupted += u64::from(due);
                assert_eq!(recovered.repaired, None, "{context}");
                let written = model.entries.last().map_or(0, |e| e.term.0);
                assert!(recovered.hard_state.term.0 >= written, "{context}");
                if recovered.hard_state.term == model.state.term {
                    assert!(recovered.hard_state.commit <= model.state.commit, "{context}");
                }
                // What was never written (a term without entries) is unknown to the log.
                model.state = HardState { vote: recovered.hard_state.vote, ..model.state };
                wal = reopened;
                reader = wal.reader();
                durable = model.clone();
            }
        }
        if random.below(4) > 0 {
            wal.sync().unwrap();
            durable = model.clone();
        }
    }
}

/// A reader sees what is durable, the last version of each, as far as the log still reaches back.
fn check_reader(reader: &LogReader, model: &Model, random: &mut Random, reads: &mut u64, seed: u64) {
    let after = random.below(model.last() + 1);
    let upto = after + random.below(model.last() - after + 3);
    let bytes = [1, 400, usize::MAX][random.below(3) as usize];
    let found = reader.read(Index(after), Index(upto), bytes).unwrap();
    let context = format!("seed {seed} after {after} upto {upto}, base {}", model.base);
    let Some((term, entries)) = found else {
        assert!(after < model.base.max(model.released), "{context}: nothing");
        return;
    };
    *reads += 1;
    assert!(after >= model.base, "{context}");
    assert_eq!(term, model.term(after), "{context}");
    let all = &model.entries[after as usize..model.last().min(upto) as usize];
    assert!(entries.len() <= all.len() && entries == all[..entries.len()], "{context}");
    assert_eq!(entries.is_empty(), all.is_empty(), "{context}");
    let size: usize = entries.iter().map(Entry::size).sum();
    assert!(size <= bytes || entries.len() == 1, "{context}");
    assert!(entries.len() == all.len() || size + all[entries.len()].size() > bytes, "{context}");
}
