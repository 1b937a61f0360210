//! Whole clusters from some hundred seeds, and the same history from the same seed.
//!
//! `SIM_SEED` chooses the first seed, `SIM_CLUSTERS` how many follow.
#![allow(clippy::unwrap_used)]

use sim::cluster::many::{self, Bounds};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[test]
fn clusters_keep_their_promises_on_bad_days() {
    let seeds = number("SIM_CLUSTERS", 200);
    let from = number("SIM_SEED", 1);
    let summary = many::run(Bounds { from, seeds, jobs: cores(), time: None, failures: 3 });
    println!("{summary}");
    assert!(summary.failures.is_empty(), "{summary}");
    assert_eq!(summary.seeds, seeds);
    assert!(summary.fewest_kinds >= 6, "a run was too tame: {summary}");
}

/// R5: whichever of the six links of three members are cut, in all 64 ways, and for however long.
#[test]
fn all_64_link_masks_heal_to_one_leader_within_ten_election_timeouts() {
    const LINKS: [(usize, usize); 6] = [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)];
    const LASTS: [u64; 3] = [700_000, 3_000_000, 12_000_000];
    let heal = |mask: u64| {
        let cut: Vec<_> = (0..6).filter(|bit| mask >> bit & 1 == 1).map(|bit| LINKS[bit]).collect();
        let times = LASTS.map(|lasts| sim::cluster::links::heal(mask * 3 + lasts, 3, &cut, lasts));
        times.into_iter().map(|time| time.unwrap_or_else(|error| panic!("mask {mask:06b}: {error}"))).max()
    };
    let longest = std::thread::scope(|scope| {
        let work = |worker| (worker..64).step_by(cores()).filter_map(|mask| heal(mask as u64)).max();
        let workers: Vec<_> = (0..cores()).map(|worker| scope.spawn(move || work(worker))).collect();
        workers.into_iter().filter_map(|worker| worker.join().unwrap()).max()
    });
    println!("the longest took {} ms", longest.unwrap_or_default() / 1000);
}

#[test]
fn the_same_seed_is_the_same_history() {
    let from = number("SIM_SEED", 1);
    let run = |seed: u64| sim::cluster::run(seed).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    let different: Vec<u64> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..cores() as u64)
            .map(|worker| {
                let seeds = (from..from + 100).skip(worker as usize).step_by(cores());
                scope.spawn(move || -> Vec<u64> { seeds.filter(|&seed| run(seed) != run(seed)).collect() })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    assert!(different.is_empty(), "seeds {different:?} gave two histories");
    assert_ne!(run(from).trace, run(from + 1).trace);
}
