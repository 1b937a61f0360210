//! The measured window: threads that set themselves up, start together, and are timed from outside.
//!
//! Each driver thread has a single-threaded runtime and its own connections, so that the driver
//! costs little beside the server. The thread that asked for the measurement runs no load: it opens
//! the window once every thread is ready, sleeps through it, and reads the server's CPU time at
//! both ends.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};

use crate::procfs::Probe;

/// How long a thread may take past the window's end to get its last answers.
const LAST_ANSWERS: Duration = Duration::from_secs(30);

/// How long work without a time limit may take.
const LONGEST_WORK: Duration = Duration::from_secs(1800);

/// When a measurement ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Run {
    /// After this long, warm-up not counted.
    For(Duration),
    /// When every thread's work is done.
    ToTheEnd,
}

/// What all kinds of load need to know.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The server's, or those of all members; connections take them in turn.
    pub(crate) addresses: Vec<SocketAddr>,
    /// Driver threads.
    pub(crate) threads: usize,
    /// Load before the window opens.
    pub(crate) warmup: Duration,
    /// How long the window stays open.
    pub(crate) run: Run,
}

/// The time in which what happens counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// Answers before this are warm-up.
    pub(crate) start: Instant,
    /// No call begins after this; `None` means to the end of the work.
    pub(crate) end: Option<Instant>,
}

impl Window {
    /// Whether something that happened at `now` counts.
    pub(crate) fn holds(&self, now: Instant) -> bool {
        now >= self.start && self.end.is_none_or(|end| now < end)
    }

    /// Whether the window has closed.
    pub(crate) fn over(&self, now: Instant) -> bool {
        self.end.is_some_and(|end| now >= end)
    }
}

/// What a measurement cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Length of the window in seconds.
    pub(crate) seconds: f64,
    /// CPU seconds that the server took in it, where known.
    pub(crate) cpu: Option<f64>,
}

/// One driver thread's view of the measurement.
pub(crate) struct Shard<'a> {
    /// Which thread this is, from 0.
    pub(crate) index: usize,
    addresses: &'a [SocketAddr],
    of: usize,
    gate: &'a Gate,
}

impl Shard<'_> {
    /// This thread's part of `total` things: contiguous, disjoint, all covered, sizes within one.
    pub(crate) fn share(&self, total: usize) -> Range<usize> {
        share(self.index, self.of, total)
    }

    /// Where this thread's connection of some number goes: over all threads to all members alike.
    pub(crate) fn address(&self, connection: usize) -> SocketAddr {
        self.addresses[(self.index + connection * self.of) % self.addresses.len()]
    }

    /// Says that setup is done and waits, blocking, for the others.
    ///
    /// # Errors
    /// When another thread's setup failed.
    pub(crate) fn ready(&self) -> Result<Window> {
        self.gate.pass()
    }
}

fn share(index: usize, of: usize, total: usize) -> Range<usize> {
    total * index / of..total * (index + 1) / of
}

/// Runs `body` once per thread and times the window that opens when all have called
/// [`Shard::ready`].
///
/// # Errors
/// The first error of any thread, or a thread that does not come to its end.
pub(crate) fn measure<T: Send>(
    plan: &Plan,
    probe: &Probe,
    body: impl AsyncFn(Shard<'_>) -> Result<T> + Sync,
) -> Result<(Usage, Vec<T>)> {
    let gate = Gate::new(plan.threads);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..plan.threads)
            .map(|index| {
                let shard = Shard { index, addresses: &plan.addresses, of: plan.threads, gate: &gate };
                let (body, gate) = (&body, &gate);
                scope.spawn(move || {
                    let result = run_shard(gate, body(shard));
                    if result.is_err() {
                        gate.abort();
                    }
                    result
                })
            })
            .collect();
        let Some(window) = gate.open(plan) else {
            join(threads)?;
            bail!("setup failed");
        };
        sleep_until(window.start);
        let (began, cpu) = (Instant::now(), probe.cpu_seconds());
        let used =
            |seconds| Usage { seconds, cpu: probe.cpu_seconds().zip(cpu).map(|(now, then)| now - then) };
        if let Some(end) = window.end {
            sleep_until(end);
            // The window's own length: this thread may wake late, but no answer counts after the end.
            let usage = used((end - window.start).as_secs_f64());
            return Ok((usage, join(threads)?));
        }
        let results = join(threads)?;
        Ok((used(began.elapsed().as_secs_f64()), results))
    })
}

fn run_shard<T>(gate: &Gate, body: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        tokio::pin!(body);
        loop {
            tokio::select! {
                result = &mut body => return result,
                () = tokio::time::sleep(Duration::from_secs(1)) => gate.check_patience()?,
            }
        }
    })
}

fn join<T>(threads: Vec<std::thread::ScopedJoinHandle<'_, Result<T>>>) -> Result<Vec<T>> {
    let results: Vec<_> =
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow!("panic")))).collect();
    // A thread that was only told of another's failure has less to say than that other one.
    let failures = results.iter().filter_map(|result| result.as_ref().err());
    if let Some(cause) = failures.max_by_key(|error| !error.is::<Aborted>()) {
        bail!("{cause:#}");
    }
    results.into_iter().collect()
}

fn sleep_until(moment: Instant) {
    std::thread::sleep(moment.saturating_duration_since(Instant::now()));
}

/// Another thread failed, so there is no window.
#[derive(Debug)]
struct Aborted;

impl std::fmt::Display for Aborted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("another driver thread failed")
    }
}

impl std::error::Error for Aborted {}

/// Where the threads wait for each other.
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    waiting_for: usize,
    aborted: bool,
    window: Option<Window>,
}

impl Gate {
    fn new(threads: usize) -> Gate {
        let state = State { waiting_for: threads, aborted: false, window: None };
        Gate { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A driver thread arrives and waits for the window.
    fn pass(&self) -> Result<Window> {
        let mut state = self.lock();
        state.waiting_for -= 1;
        self.changed.notify_all();
        loop {
            match state.window {
                _ if state.aborted => return Err(Aborted.into()),
                Some(window) => return Ok(window),
                None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// The asking thread waits for all and opens the window; `None` when one of them gave up.
    fn open(&self, plan: &Plan) -> Option<Window> {
        let mut state = self.lock();
        while state.waiting_for > 0 && !state.aborted {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.aborted {
            return None;
        }
        let start = Instant::now() + plan.warmup;
        let end = match plan.run {
            Run::For(length) => Some(start + length),
            Run::ToTheEnd => None,
        };
        state.window = Some(Window { start, end });
        self.changed.notify_all();
        state.window
    }

    fn abort(&self) {
        self.lock().aborted = true;
        self.changed.notify_all();
    }

    /// An error once the load should long have ended: a server that has lost an answer, or an event,
    /// would otherwise keep the driver waiting for ever.
    fn check_patience(&self) -> Result<()> {
        let Some(window) = self.lock().window else { return Ok(()) };
        match window.end {
            Some(end) if end.elapsed() > LAST_ANSWERS => {
                bail!("no answer within {} s of the end of the load", LAST_ANSWERS.as_secs())
            }
            None if window.start.elapsed() > LONGEST_WORK => {
                bail!("the work is not done after {} s", LONGEST_WORK.as_secs())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn plan(threads: usize) -> Plan {
        let addresses = vec!["127.0.0.1:1".parse().unwrap()];
        Plan { addresses, threads, warmup: Duration::ZERO, run: Run::ToTheEnd }
    }

    #[test]
    fn shares_cover_everything_once() {
        for of in 1..5 {
            for total in [0, 1, 3, 50, 1000] {
                let all: Vec<usize> = (0..of).flat_map(|index| share(index, of, total)).collect();
                assert_eq!(all, (0..total).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn a_window_is_half_open() {
        let start = Instant::now();
        let end = start + Duration::from_secs(1);
        let window = Window { start, end: Some(end) };
        assert!(window.holds(start) && !window.holds(end) && window.over(end));
        let open = Window { start, end: None };
        assert!(open.holds(end) && !open.over(end));
    }

    #[test]
    fn every_thread_gets_the_same_window_and_gives_its_result() {
        let body = async |shard: Shard<'_>| {
            let window = shard.ready()?;
            Ok((shard.index, window.start))
        };
        let (usage, results) = measure(&plan(3), &Probe::default(), body).unwrap();
        assert_eq!(usage.cpu, None);
        assert_eq!(results.iter().map(|result| result.0).collect::<Vec<_>>(), [0, 1, 2]);
        assert!(results.iter().all(|result| result.1 == results[0].1));
    }

    #[test]
    fn a_failed_setup_ends_the_others_and_is_the_error_shown() {
        let body = async |shard: Shard<'_>| {
            if shard.index == 1 {
                bail!("no such port");
            }
            shard.ready()?;
            Ok(())
        };
        let error = measure(&plan(2), &Probe::default(), body).unwrap_err();
        assert_eq!(error.to_string(), "no such port");
    }
}
