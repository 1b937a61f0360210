//! The log beside a twin that keeps everything: all entries ever, and the disk as it will be once all
//! writes under way are done, and as it is now.

use super::*;
use crate::rng::Rng;
use crate::types::EntryKind;

#[derive(Default)]
struct Twin {
    log: Vec<Entry>,
    disk: Vec<Entry>,
    writes: VecDeque<Persist>,
    applied: Vec<Entry>,
    commit: usize,
}

fn entry(term: u64, index: usize, kind: EntryKind) -> Entry {
    Entry { term: Term(term), index: Index(index as u64), kind, data: vec![7; index % 5].into() }
}

fn state(term: u64, log: &Log) -> HardState {
    HardState { term: Term(term), vote: None, commit: log.commit() }
}

#[test]
fn random_appends_writes_commits_and_trims_agree_with_a_twin_that_keeps_everything() {
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let keep = CatchUp { entries: rng.below(6), bytes: 200 + rng.below(2000) as usize };
        let begin = (Index(0), Term(0));
        let mut log = Log::new(begin, Vec::new(), HardState::default(), Index(0), Index(0), keep);
        let mut twin = Twin::default();
        let mut term = 1;
        for _ in 0..200 {
            match rng.below(8) {
                // A leader's entries: from somewhere after the commit index on, in this term or the
                // next.
                0 | 1 => {
                    term += rng.below(2);
                    let from = twin.commit + rng.below((twin.log.len() - twin.commit) as u64 + 1) as usize;
                    let prev = twin.log[..from].last().map_or((Index(0), Term(0)), |e| (e.index, e.term));
                    let count = rng.below(4) as usize;
                    let new: Vec<_> = (1..=count).map(|n| entry(term, from + n, EntryKind::Normal)).collect();
                    assert_eq!(log.append(prev, new.clone()), Some(Index((from + count) as u64)));
                    let differs = new.iter().position(|e| twin.log.get(e.index.0 as usize - 1) != Some(e));
                    if let Some(at) = differs {
                        twin.log.truncate(from + at);
                        twin.log.extend_from_slice(&new[at..]);
                    }
                }
                // One that does not fit.
                2 => {
                    let prev = Index(twin.log.len() as u64 + 1 + rng.below(3));
                    assert_eq!(log.append((prev, Term(term)), Vec::new()), None);
                }
                3 => twin.writes.extend(log.write(state(term, &log), false)),
                // The disk has done some.
                4 | 5 => {
                    let count = rng.below(twin.writes.len() as u64 + 1) as usize;
                    for persist in twin.writes.drain(..count) {
                        if let Some(first) = persist.entries.first() {
                            twin.disk.truncate(first.index.0 as usize - 1);
                        }
                        twin.disk.extend(persist.entries);
                        if rng.below(2) == 0 {
                            log.written(persist.id);
                        }
                    }
                }
                6 => {
                    let room = twin.log.len() - twin.commit;
                    twin.commit += rng.below(room as u64 + 1) as usize;
                    log.commit_to(Index(twin.commit as u64));
                }
                _ => {
                    let batch = log.take_committed(1 + rng.below(300) as usize, 1000);
                    assert!(batch.iter().all(|e| twin.disk.contains(e)), "applied, but not durable");
                    twin.applied.extend(batch);
                    let done = rng.below(twin.applied.len() as u64 + 1);
                    log.applied_to(Index(done));
                }
            }
            log.check();
            compare(&log, &twin);
        }
    }
}

fn compare(log: &Log, twin: &Twin) {
    assert_eq!(log.last().0 as usize, twin.log.len());
    let from = log.begin().0 as usize;
    assert_eq!(log.slice(log.begin().next(), usize::MAX), twin.log[from..]);
    assert_eq!(log.bytes(), twin.log[from..].iter().map(Entry::size).sum::<usize>());
    assert_eq!(twin.applied, twin.log[..twin.applied.len()], "in order, once, nothing else");
    // What counts as durable is on the disk, and no write under way is about to change it.
    let stable = log.stable().0 as usize;
    assert!(twin.disk.len() >= stable && twin.disk[..stable] == twin.log[..stable]);
    let overwrites = |p: &Persist| p.entries.first().is_some_and(|first| first.index.0 as usize <= stable);
    assert!(!twin.writes.iter().any(overwrites), "durable today, overwritten tomorrow");
}

#[test]
fn the_kept_part_is_bounded_by_count_and_by_bytes() {
    for (keep, kept) in [
        (CatchUp { entries: 3, bytes: usize::MAX }, 3),
        (CatchUp { entries: 100, bytes: 5 * entry(1, 5, EntryKind::Normal).size() }, 5),
        (CatchUp { entries: 0, bytes: usize::MAX }, 0),
    ] {
        let entries = (1..=20).map(|n| entry(1, n * 5, EntryKind::Normal));
        let entries: Vec<_> = entries.zip(1..).map(|(e, n)| Entry { index: Index(n), ..e }).collect();
        let done = HardState { term: Term(1), vote: None, commit: Index(20) };
        let log = Log::new((Index(0), Term(0)), entries, done, Index(20), Index(20), keep);
        assert_eq!(log.last().0 - log.begin().0, kept);
    }
}

#[test]
fn the_machine_is_given_no_more_than_it_can_hold() {
    let entries: Vec<_> = (1..=100).map(|n| entry(1, n, EntryKind::Normal)).collect();
    let done = HardState { term: Term(1), vote: None, commit: Index(100) };
    let keep = CatchUp { entries: 0, bytes: 0 };
    let mut log = Log::new((Index(0), Term(0)), entries, done, Index(100), Index(0), keep);
    let size = entry(1, 4, EntryKind::Normal).size();
    let mut handed = 0;
    while log.has_committed(10 * size) {
        handed += log.take_committed(2 * size, 10 * size).len();
    }
    assert!((9..=12).contains(&handed), "{handed}");
    log.applied_to(Index(2));
    assert!(log.has_committed(10 * size));
}

#[test]
#[should_panic(expected = "the disk of this member was lost or rolled back")]
fn a_commit_index_beyond_the_log_is_a_lost_disk() {
    let keep = CatchUp { entries: 0, bytes: 0 };
    let mut log = Log::new((Index(0), Term(0)), vec![], HardState::default(), Index(0), Index(0), keep);
    log.commit_to(Index(1));
}

#[test]
#[should_panic(expected = "contradicts entry 1, but 1 is committed")]
fn no_leader_overwrites_what_is_committed() {
    let keep = CatchUp { entries: 9, bytes: 999 };
    let entries = vec![entry(1, 1, EntryKind::Normal)];
    let done = HardState { term: Term(1), vote: None, commit: Index(1) };
    let mut log = Log::new((Index(0), Term(0)), entries, done, Index(1), Index(0), keep);
    log.append((Index(0), Term(0)), vec![entry(2, 1, EntryKind::Normal)]);
}
