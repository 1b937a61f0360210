//! Every crash that the seeds of this run lead to, and a member that must come back from each.
//!
//! `SIM_SEED` chooses the first seed, `SIM_LIVES` how many lives follow from it.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use sim::checker::Effort;
use sim::{Check, Plan};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Runs lives on as many threads as there are cores, and says what was tried.
fn run(what: &str, plan: &Plan, lives: u64, commands: u64, effort: Effort) -> u64 {
    let first = number("SIM_SEED", 1);
    let (next, started) = (AtomicU64::new(0), Instant::now());
    let work = || {
        let mut check = Check::new(plan.clone());
        loop {
            let life = next.fetch_add(1, Ordering::Relaxed);
            if life >= lives {
                return check;
            }
            let seed = first + life;
            if let Err(error) = check.life(seed, commands, effort) {
                panic!(
                    "seed {seed}: {error}\nto see it again: SIM_SEED={seed} SIM_LIVES=1 cargo test -p sim --test crash_images"
                );
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let checks: Vec<Check> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    let sum = |count: fn(&Check) -> u64| checks.iter().map(count).sum::<u64>();
    let (images, second, shorter) = (sum(|c| c.images), sum(|c| c.second), sum(|c| c.shorter));
    println!(
        "{what}: seeds {first}..{}, {images} crash images, {second} of them of a second crash, {shorter} lost \
         something unacknowledged, {:.1} s",
        first + lives,
        started.elapsed().as_secs_f64()
    );
    assert!(shorter > 0 && second > 0, "the run was too tame to mean anything");
    images
}

/// W1: what was acknowledged is there, whichever of the unsynced sectors are; W7: and so are the files that
/// were named, whichever of the names that were not synced are.
#[test]
fn a_member_comes_back_from_every_crash() {
    let lives = number("SIM_LIVES", 14);
    // Every call of every life, some subsets at each; now and then a crash of the recovery.
    let effort = Effort { images: 8, calls: 1, again: 40, singles: false };
    let mut images = run("small segments", &Plan::default(), lives, 40, effort);
    // Segments that are never cut, so that the whole log lies in one file and overwrites nothing.
    let plan = Plan { segment_bytes: 64 << 10, catch_up: 1000, ..Plan::default() };
    images += run("one segment", &plan, lives.div_ceil(3), 40, effort);
    // Every single sector, size and name, kept alone and lost alone.
    let effort = Effort { images: 2, calls: 1, again: 400, singles: true };
    images +=
        run("single sectors", &Plan { flush_rows: 4, ..Plan::default() }, lives.div_ceil(5), 12, effort);
    println!("{images} crash images in all");
    assert!(lives < 14 || images >= 20_000, "only {images} images");
}
