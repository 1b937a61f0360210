//! Many seeds on several threads, summed up.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use super::life::{Life, Report};
use super::weather::Tally;

/// What many histories come to.
#[derive(Clone, Debug, Default)]
pub struct Sum {
    /// Histories that went well.
    pub seeds: u64,
    /// Simulated microseconds.
    pub micros: u64,
    /// Things that happened.
    pub events: u64,
    /// Entries that were committed.
    pub committed: u64,
    /// Reads that were answered.
    pub reads: u64,
    /// Leaders that were elected.
    pub elections: u64,
    /// Misfortunes.
    pub tally: Tally,
    /// The smallest number of kinds of faults that came in one history.
    pub fewest_kinds: Option<usize>,
    /// All traces, mixed without regard to their order.
    pub trace: u64,
    /// The seeds that broke a promise.
    pub broken: Vec<u64>,
    /// Processor time, of all threads.
    pub took: Duration,
}

impl Sum {
    fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.micros += report.micros;
        self.events += report.events;
        self.committed += report.committed;
        self.reads += report.reads;
        self.elections += report.elections;
        self.tally.add(&report.tally);
        let kinds = report.tally.kinds();
        self.fewest_kinds = Some(self.fewest_kinds.map_or(kinds, |fewest| fewest.min(kinds)));
        self.trace = self.trace.wrapping_add(report.trace);
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.micros as f64 / 3.6e9;
        writeln!(f, "{} histories, {hours:.1} simulated hours, {} events", self.seeds, self.events)?;
        let Sum { committed, reads, elections, .. } = self;
        writeln!(f, "{committed} entries committed, {reads} reads answered, {elections} elections")?;
        writeln!(f, "kinds of faults in one history: at least {}", self.fewest_kinds.unwrap_or(0))?;
        write!(f, "{}", self.tally)?;
        writeln!(f, "trace {:016x}", self.trace)?;
        let took = self.took.as_secs_f64();
        if took > 0.0 {
            let factor = self.micros as f64 / 1e6 / took;
            writeln!(f, "{took:.1} s of one core's time: {factor:.0} times real time")?;
        }
        for seed in &self.broken {
            writeln!(f, "broken: cargo run --release -p sim -- core {seed}")?;
        }
        Ok(())
    }
}

/// Lives through `count` seeds from `from` on, with so many threads. Ends at the first that breaks a
/// promise, unless told to `go_on`.
pub fn many(from: u64, count: u64, jobs: usize, template: &Life, go_on: bool) -> Sum {
    many_until(from, count, jobs, template, go_on, None)
}

fn many_until(
    from: u64,
    count: u64,
    jobs: usize,
    template: &Life,
    go_on: bool,
    limit: Option<Duration>,
) -> Sum {
    let start = Instant::now();
    let late = || limit.is_some_and(|limit| start.elapsed() >= limit);
    let next = AtomicU64::new(from);
    let stop = AtomicBool::new(false);
    let total = Mutex::new(Sum::default());
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                let mut sum = Sum::default();
                let began = busy();
                while !stop.load(Ordering::Relaxed) && !late() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + count {
                        break;
                    }
                    let life = Life { seed, ..template.clone() };
                    match catch_unwind(AssertUnwindSafe(|| life.live())) {
                        Ok(report) => sum.add(&report),
                        Err(_) => {
                            eprintln!("replay: cargo run --release -p sim -- core {seed}");
                            sum.broken.push(seed);
                            stop.store(!go_on, Ordering::Relaxed);
                        }
                    }
                }
                sum.took = busy() - began;
                let mut total = total.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                total.merge(sum);
            });
        }
    });
    total.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Processor time of this thread: other processes do not count. Real time where it is not told.
fn busy() -> Duration {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanos = told.and_then(|text| text.split_whitespace().next()?.parse().ok());
    nanos.map_or_else(|| BEGAN.get_or_init(Instant::now).elapsed(), Duration::from_nanos)
}

impl Sum {
    /// Adds what another thread has lived through.
    pub fn merge(&mut self, other: Sum) {
        self.seeds += other.seeds;
        self.micros += other.micros;
        self.events += other.events;
        self.committed += other.committed;
        self.reads += other.reads;
        self.elections += other.elections;
        self.tally.add(&other.tally);
        self.fewest_kinds = match (self.fewest_kinds, other.fewest_kinds) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        self.trace = self.trace.wrapping_add(other.trace);
        self.broken.extend(other.broken);
        self.took += other.took;
    }
}

const USAGE: &str = "usage: sim core SEED | sim core --seeds N [--from S] [--jobs N] [--members N] \
                     [--seconds N] [--for SECONDS] [--go-on] | sim core planted [--for SECONDS]";

/// `sim core ...`: one seed, told of in the end; or many, summed up.
pub fn main(args: &[String]) -> ExitCode {
    let (mut seeds, mut from, mut jobs, mut go_on) = (None, 0, 1, false);
    let (mut template, mut limit, mut hunts) = (Life::of(0), None, false);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--go-on" => {
                go_on = true;
                continue;
            }
            "planted" => {
                hunts = true;
                continue;
            }
            _ => {}
        }
        let value = if arg.starts_with("--") { args.next() } else { Some(arg) };
        let Some(value) = value.and_then(|value| value.parse::<u64>().ok()) else {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        };
        match arg.as_str() {
            "--seeds" => seeds = Some(value),
            "--from" => from = value,
            "--for" => limit = Some(Duration::from_secs(value)),
            "--jobs" => jobs = value as usize,
            "--members" => template.members = Some(value as usize),
            "--seconds" => template.seconds = Some(value),
            seed if !seed.starts_with("--") => (from, seeds) = (value, Some(1)),
            _ => {
                eprintln!("{USAGE}");
                return ExitCode::from(2);
            }
        }
    }
    if hunts {
        return hunt(limit.unwrap_or(Duration::from_secs(60)), jobs);
    }
    let Some(count) = seeds else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    println!("seeds {from} to {}", from + count.max(1) - 1);
    let sum = many_until(from, count, jobs, &template, go_on, limit);
    print!("{sum}");
    if sum.broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Plants every bug in a process of its own, until it is found; tells within how many seeds.
fn hunt(limit: Duration, jobs: usize) -> ExitCode {
    let Ok(program) = std::env::current_exe() else { return ExitCode::FAILURE };
    if !cfg!(feature = "planted") {
        println!(
            "the bugs are not in this build: cargo run --release -p sim --features planted -- core planted"
        );
        return ExitCode::FAILURE;
    }
    let mut missed = 0;
    for (name, what) in super::PLANTED {
        let limit = limit.as_secs().to_string();
        let output = Command::new(&program)
            .args(["core", "--seeds", "1000000", "--jobs", &jobs.to_string(), "--for", &limit])
            .env("PLANTED", name)
            .output();
        let Ok(output) = output else { return ExitCode::FAILURE };
        let seed = String::from_utf8_lossy(&output.stdout)
            .lines()
            .find_map(|line| line.strip_prefix("broken: ")?.split_whitespace().last()?.parse::<u64>().ok());
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        let why = why.lines().skip_while(|line| !line.contains("panicked at")).nth(1).unwrap_or_default();
        missed += u64::from(seed.is_none());
        match seed {
            Some(seed) => println!("{name:28} found within {} seeds: {why}", seed + 1),
            None => println!("{name:28} NOT FOUND in {limit} s"),
        }
        println!("{:28} {what}", "");
    }
    println!("{missed} of {} not found", super::PLANTED.len());
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
