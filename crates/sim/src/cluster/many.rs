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
    /// Seconds of processor time that it took, summed over threads.
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

/// What the calling thread has had of a processor, where the system tells.
fn cpu_time() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
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
            let (began, cpu) = (Instant::now(), cpu_time());
            let result = super::run(seed);
            // Of a machine that does other things, too, only this thread's share counts.
            let took = cpu_time().zip(cpu).map_or(began.elapsed(), |(now, before)| now - before);
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

/// Bugs that are planted in the rooms below or in the mirror of the server's threads, each with the trap that
/// it stands for. What only raft and node can show is hunted by [`crate::core`].
///
/// `renew-in-any-reign` (L3) is not among them: no client can tell. It counts from when it asked, and every
/// reign that follows the one it asked in begins later, with all of the lease's time by the log; so whoever's
/// leadership was proved, the lease outlives the promise. The tests of `lease` hold the rule itself.
pub const PLANTED: &[(&str, &str)] = &[
    ("skip-fsync", "W1: the log is not synced"),
    ("skip-directory-sync", "W7: a new segment's name is not synced"),
    ("ghost-tail", "W3: replay skips a truncation at or below the snapshot"),
    ("release-unflushed", "A8: the log is released before the store has its effects"),
    ("forget-vote", "R8: a restart forgets the vote"),
    ("ack-before-durable", "R8: an acknowledgement leaves before the write it rests on"),
    ("count-unsynced-self", "R9: a leader counts its own unsynced entry"),
    ("apply-before-durable", "R9: entries are applied before they are durable here"),
    ("apply-out-of-order", "two entries change places on their way to the machine"),
    ("commit-old-term", "R1: an entry of an old term is committed by counting"),
    ("vote-for-shorter-log", "5.4.1: a vote for a log that lacks committed entries"),
    ("commit-beyond-match", "R10: heartbeats carry a commit index beyond the match"),
    ("truncate-on-old-append", "5.3: an old append cuts the log"),
    ("read-without-round", "R6: a read index without a round of heartbeats"),
    ("read-before-first-commit", "R2: a read index before the term's first commit"),
    ("late-echo-confirms", "R3: a late echo confirms a later round"),
    ("newest-conf-in-snapshot", "W11: a snapshot carries a later configuration"),
    ("snapshot-without-conf", "W11: a snapshot's configuration is not put in force"),
    ("index-apart-from-rows", "A1: the applied index is durable before the effects"),
    ("old-index-after-install", "A4: an installed state keeps the old index"),
    ("replay-differs", "A5: the outcome of an entry depends on the member's role"),
    ("lease-not-restored", "A7: leases are not loaded from the store"),
    ("proposed-twice", "A9: an unanswered proposal is made again"),
    ("tombstone-at-compact-revision-dropped", "M2: a watch misses the delete at the compacted revision"),
    ("progress-overtakes", "V1: a progress notice overtakes events"),
    ("install-unannounced", "V3: watchers are not told of an installed state"),
    ("watch-jumps", "V5: a watcher that compaction passed goes on behind the hole"),
    ("events-split", "V6: one revision in several responses"),
    ("renew-without-round", "L2: a deposed leader renews leases"),
    ("drop-checkpoint", "L5: a leader change gives leases their full time again"),
    ("checkpoint-after-renewal", "L5: a checkpoint on its way cuts a renewed lease short"),
    ("revoke-in-any-term", "L1: a deposed leader's revocation is passed on"),
];

/// Looks for something wrong in up to `seeds` histories; says in how many there was nothing, and what
/// was wrong then.
pub fn hunt(bounds: Bounds) -> Option<(u64, String)> {
    let summary = run(Bounds { failures: 1, ..bounds });
    let first = summary.failures.into_iter().min()?;
    Some((first.0 - bounds.from + 1, first.1))
}

/// Runs every planted bug, or one of them, in processes of their own until each is found, for so many
/// seconds at the most; tells within how many seeds. Whether all were.
pub fn planted(only: Option<&str>, seconds: u64) -> bool {
    if !cfg!(feature = "planted") {
        println!("the bugs are not in this build: cargo run --release -p sim --features planted -- planted");
        return false;
    }
    let Ok(program) = std::env::current_exe() else { return false };
    let mut missed = 0;
    for (name, what) in PLANTED.iter().filter(|(name, _)| only.is_none_or(|only| only == *name)) {
        let output = std::process::Command::new(&program)
            .args(["hunt", "--seconds", &seconds.to_string()])
            .env("PLANTED", name)
            .stderr(std::process::Stdio::null())
            .output();
        let text =
            output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        let found = text.lines().find(|line| line.starts_with("found")).map(str::to_owned);
        missed += u64::from(found.is_none());
        let found = found.unwrap_or_else(|| format!("NOT FOUND in {seconds} s"));
        println!("{name}: {what}");
        println!("    {}", found.chars().take(160).collect::<String>());
    }
    println!("{missed} not found");
    missed == 0
}
