//! Many bad days of `raft` and `node`. A failing seed prints the command that replays it; `SEEDS=n` tries
//! more of them.

use sim::core::{Life, many};

fn seeds(default: u64) -> u64 {
    std::env::var("SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// All of R1 to R21 at random; R6 in particular: clocks are off by up to a tenth, members stand still, and
/// no read misses what was committed before it was asked.
#[test]
fn clusters_keep_every_promise() {
    let sum = many(0, seeds(200), 2, &Life::of(0), false);
    println!("{sum}");
    assert_eq!(sum.broken, [] as [u64; 0], "{sum}");
    assert!(sum.reads > sum.seeds, "only {} reads were answered", sum.reads);
    assert!(sum.fewest_kinds >= Some(6), "a history with too few kinds of faults: {:?}", sum.fewest_kinds);
}

#[test]
fn the_same_seed_is_the_same_history() {
    let mut traces = std::collections::BTreeSet::new();
    for seed in 1_000..1_100 {
        let (first, second) = (Life::of(seed).live(), Life::of(seed).live());
        assert_eq!((first.trace, first.events), (second.trace, second.events), "seed {seed}");
        traces.insert(first.trace);
    }
    assert_eq!(traces.len(), 100, "different seeds, different histories");
}
