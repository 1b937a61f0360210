//! Many seeds, on several threads, summed up; and planted bugs, each in a process of its own.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::plan::SECOND;
use super::{Fault, Report, Tally};

/// What many runs came to.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Runs.
    pub seeds: u64,
    /// Simulated seconds.
    pub simulated: f64,
    /// Seconds that it took, summed over threads.
    pub took: f64,
    /// Misfortunes.
    pub tally: Tally,
    /// The fewest kinds of misfortune that came in one run.
    pub fewest_kinds: usize,
    /// Entries applied.
    pub entries: u64,
    /// Responses to watchers.
    pub responses: u64,
    /// Hashes compared.
    pub compared: u64,
    /// The seeds that failed, and how.
    pub failures: Vec<(u64, String)>,
}

impl Summary {
    fn add(&mut self, report: &Report, took: Duration) {
        self.simulated += report.simulated as f64 / SECOND as f64;
        self.took += took.as_secs_f64();
        self.tally.add(&report.tally);
        let kinds = report.tally.kinds();
        self.fewest_kinds = if self.seeds == 0 { kinds } else { self.fewest_kinds.min(kinds) };
        self.seeds += 1;
        self.entries += report.entries;
        self.responses += report.responses;
        self.compared += report.compared;
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.simulated / 3600.0;
        writeln!(f, "{} seeds, {hours:.1} simulated hours", self.seeds)?;
        writeln!(f, "{:.0} times real time per core", self.simulated / self.took.max(1e-9))?;
        writeln!(
            f,
            "{} entries, {} watch responses, {} hashes compared",
            self.entries, self.responses, self.compared
        )?;
        writeln!(f, "at least {} kinds of fault in each run:", self.fewest_kinds)?;
        for fault in Fault::ALL {
            writeln!(f, "  {:>9} {fault:?}", self.tally.of(fault))?;
        }
        for (seed, what) in &self.failures {
            writeln!(f, "seed {seed} failed: {what}")?;
            writeln!(f, "to see it again: cargo run --release -p sim -- {seed}")?;
        }
        Ok(())
    }
}

/// Bounds of a run of many seeds.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The first seed.
    pub from: u64,
    /// How many, at the most.
    pub seeds: u64,
    /// Threads.
    pub jobs: usize,
    /// The time after which no further one is begun.
    pub time: Option<Duration>,
    /// Failures after which no further one is begun.
    pub failures: usize,
}

/// Runs seeds until one of the bounds is reached.
pub fn run(bounds: Bounds) -> Summary {
    let (next, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let (started, summary) = (Instant::now(), Mutex::new(Summary::default()));
    let work = || {
        while !over.load(Ordering::Relaxed) && bounds.time.is_none_or(|time| started.elapsed() < time) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= bounds.seeds {
                return;
            }
            let seed = bounds.from + number;
            let began = Instant::now();
            let result = super::run(seed);
            let took = began.elapsed();
            let mut summary = summary.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            match result {
                Ok(report) => summary.add(&report, took),
                Err(what) => {
                    summary.failures.push((seed, what));
                    over.fetch_or(summary.failures.len() >= bounds.failures, Ordering::Relaxed);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..bounds.jobs.max(1) {
            scope.spawn(work);
        }
    });
    summary.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Bugs that are planted in the rooms below, and the trap that each stands for.
pub const PLANTED: &[(&str, &str)] = &[];

/// Runs every planted bug in processes of its own until it is found; tells within how many seeds.
/// Whether all were.
pub fn planted(seeds: u64, jobs: u64) -> bool {
    let _ = (seeds, jobs);
    false
}
