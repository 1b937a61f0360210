//! Every crash that the seeds of this run lead to, and a member that must come back from each.
#![allow(clippy::unwrap_used)]

use sim::checker::Effort;
use sim::{Check, Plan};

#[test]
fn quick() {
    let start = std::time::Instant::now();
    let mut check = Check::new(Plan::default());
    for seed in 0..2 {
        check
            .life(seed, 40, Effort { images: 8, calls: 1, again: 40 })
            .unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        println!("seed {seed}: {check:?} {:?}", start.elapsed());
    }
}
