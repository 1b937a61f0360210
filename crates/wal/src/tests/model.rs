//! Random lives of a log against the simplest thing that could be right: a vector of entries.

use std::sync::Arc;

use raft::{Entry, HardState, Index};

use super::memory::MemoryDisk;
use super::{Random, create, entry, marker, open, state};

const SEGMENT: u64 = 1024;

/// What the log should hold, as far as it was synced.
#[derive(Default)]
struct Model {
    entries: Vec<Entry>,
    state: HardState,
    marker: u64,
}

#[test]
fn random_histories_equal_the_model() {
    for seed in 0..400 {
        life(seed);
    }
}

fn life(seed: u64) {
    let mut random = Random(seed);
    let disk: Arc<MemoryDisk> = Arc::default();
    let mut wal = create(&disk, SEGMENT);
    let mut model = Model { state: state(1, 1, 0), ..Model::default() };
    for step in 0..60 {
        let (last, commit) = (model.entries.len() as u64, model.state.commit.0);
        match random.below(10) {
            0..5 => {
                // A new leader may rewrite what is not committed, in a new term.
                let mut at = last + 1;
                if random.below(3) == 0 {
                    model.state.term.0 += 1 + random.below(3);
                    at = commit + 1 + random.below(last - commit + 1);
                }
                model.entries.truncate(at as usize - 1);
                let new: Vec<_> = (at..at + random.below(6))
                    .map(|i| entry(model.state.term.0, i, &vec![seed as u8; random.below(300) as usize]))
                    .collect();
                model.entries.extend(new.iter().cloned());
                let end = model.entries.len() as u64;
                if new.is_empty() && end < last {
                    // Nothing overwrote the tail, so the log still has it; keep the model honest.
                    let e = entry(model.state.term.0, at, b"instead");
                    model.entries.push(e.clone());
                    wal.append(None, &[e]).unwrap();
                }
                let end = model.entries.len() as u64;
                model.state.commit = Index(commit + random.below(end - commit + 1));
                wal.append(Some(&model.state), &new).unwrap();
            }
            5 => {
                let index = model.marker + random.below(commit - model.marker + 1);
                if index > 0 {
                    let term = model.entries[index as usize - 1].term.0;
                    wal.append_snapshot(&marker(term, index)).unwrap();
                    model.marker = index;
                }
            }
            6 => wal.release_to(Index(model.marker)).unwrap(),
            7 => wal.prepare().unwrap(),
            _ => {
                wal.sync().unwrap();
                drop(wal);
                let from = model.marker + random.below(commit - model.marker + 1);
                let (reopened, recovered) =
                    open(&disk, SEGMENT, from).unwrap_or_else(|e| panic!("seed {seed} step {step}: {e}"));
                let context = format!("seed {seed} step {step} from {from}");
                assert_eq!(recovered.entries, model.entries[from as usize..], "{context}");
                assert_eq!(recovered.begins_after, Index(from), "{context}");
                assert_eq!(recovered.repaired, None, "{context}");
                let written = model.entries.last().map_or(0, |e| e.term.0);
                assert!(recovered.hard_state.term.0 >= written, "{context}");
                if recovered.hard_state.term == model.state.term {
                    assert!(recovered.hard_state.commit <= model.state.commit, "{context}");
                }
                // What was never written (a term without entries) is unknown to the log.
                model.state = HardState { vote: recovered.hard_state.vote, ..model.state };
                wal = reopened;
            }
        }
        wal.sync().unwrap();
    }
}
