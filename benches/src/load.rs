//! The two kinds of load. Closed: every caller waits for its answer before it asks again, so the
//! server sets the pace. Open: calls leave on a fixed schedule whatever the server does, and latency
//! counts from the scheduled moment, so a stall is charged to every call that it delayed.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use hdrhistogram::Histogram;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::Status;

use crate::client::Connection;
use crate::engine::{Plan, Shard, Usage, Window, measure};
use crate::procfs::Probe;
use crate::random::Random;

/// What one caller is given.
pub(crate) struct Seat {
    /// Which caller this is, from 0 over all threads.
    pub(crate) index: usize,
    /// The connection that it shares with its neighbours.
    pub(crate) connection: Connection,
    /// Chance, seeded by the index: every run asks for the same keys.
    pub(crate) random: Random,
}

/// What a caller's turn did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// One operation; there are more.
    Did,
    /// Nothing: the caller's work is finished.
    Finished,
}

/// Callers and the connections that they share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crowd {
    /// Concurrent callers.
    pub(crate) callers: usize,
    /// Connections under them.
    pub(crate) connections: usize,
}

/// The outcome of a load.
pub(crate) struct Load {
    /// Operations that were answered in the window.
    pub(crate) operations: u64,
    /// Their latencies, in nanoseconds.
    pub(crate) latencies: Histogram<u64>,
    /// Time and CPU.
    pub(crate) usage: Usage,
}

/// Counts answers and their latencies inside a window.
pub(crate) struct Recorder {
    window: Window,
    operations: u64,
    latencies: Histogram<u64>,
}

impl Recorder {
    /// An empty recorder, to be shared by the tasks of one thread.
    pub(crate) fn new(window: Window) -> Rc<RefCell<Recorder>> {
        Rc::new(RefCell::new(Recorder { window, operations: 0, latencies: histogram() }))
    }

    /// Notes an operation that was due at `due` and answered at `done`.
    pub(crate) fn note(&mut self, due: Instant, done: Instant) {
        if self.window.holds(done) {
            self.operations += 1;
            self.latencies.saturating_record(nanos(done.saturating_duration_since(due)));
        }
    }

    /// What was counted, leaving the recorder empty: tasks that outlive the window may still hold it.
    pub(crate) fn take(&mut self) -> (u64, Histogram<u64>) {
        (self.operations, std::mem::replace(&mut self.latencies, histogram()))
    }
}

/// Latencies from 1 ns to two minutes, to three digits.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 120_000_000_000, 3).expect("the bounds are constant and valid")
}

/// A duration for a [`histogram`].
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Adds up what the threads counted.
pub(crate) fn total(usage: Usage, parts: Vec<(u64, Histogram<u64>)>) -> Load {
    let mut load = Load { operations: 0, latencies: histogram(), usage };
    for (operations, latencies) in parts {
        load.operations += operations;
        load.latencies += latencies;
    }
    load
}

/// Closed loop: `crowd.callers` callers, each made by `seat_caller` before the window opens.
///
/// # Errors
/// The first failed call; a load in which calls fail is not a measurement.
pub(crate) fn closed_loop<C>(
    plan: &Plan,
    probe: &Probe,
    crowd: Crowd,
    seat_caller: impl AsyncFn(Seat) -> Result<C> + Sync,
) -> Result<Load>
where
    C: AsyncFnMut() -> Result<Turn, Status> + 'static,
{
    let plan = Plan { threads: plan.threads.min(crowd.callers), ..plan.clone() };
    let (usage, parts) = measure(&plan, probe, async |shard: Shard<'_>| {
        let connections = connect(&shard, crowd.connections).await?;
        let mut callers = Vec::new();
        for index in shard.share(crowd.callers) {
            let connection = connections[index % connections.len()].clone();
            let random = Random::new(index as u64);
            callers.push(seat_caller(Seat { index, connection, random }).await?);
        }
        let window = shard.ready()?;
        let recorder = Recorder::new(window);
        let mut tasks = JoinSet::new();
        for caller in callers {
            tasks.spawn_local(ask_and_ask(caller, window, recorder.clone()));
        }
        while let Some(task) = tasks.join_next().await {
            task??;
        }
        Ok(recorder.borrow_mut().take())
    })?;
    Ok(total(usage, parts))
}

async fn ask_and_ask<C>(mut caller: C, window: Window, recorder: Rc<RefCell<Recorder>>) -> Result<(), Status>
where
    C: AsyncFnMut() -> Result<Turn, Status>,
{
    loop {
        let begun = Instant::now();
        if window.over(begun) || caller().await? == Turn::Finished {
            return Ok(());
        }
        recorder.borrow_mut().note(begun, Instant::now());
    }
}

/// Opens this thread's share of `total` connections, at least one.
///
/// # Errors
/// When one cannot be opened.
pub(crate) async fn connect(shard: &Shard<'_>, total: usize) -> Result<Vec<Connection>> {
    let mut connections = Vec::new();
    for number in 0..shard.share(total).len().max(1) {
        connections.push(Connection::open(shard.address(number)).await?);
    }
    Ok(connections)
}

/// A call of an open loop: when it was due, and how long after that it was answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timed {
    /// The scheduled moment.
    pub(crate) due: Instant,
    /// From then to the answer.
    pub(crate) latency: Duration,
}

/// Open loop: `per_second` calls evenly spaced, from now until the window closes or `stop` is set.
///
/// The schedule is kept by a thread of its own, since the runtime's timer only knows milliseconds.
///
/// # Errors
/// The first failed call.
pub(crate) async fn offer<C>(
    window: Window,
    per_second: f64,
    stop: Arc<AtomicBool>,
    calls: Vec<C>,
) -> Result<Vec<Timed>>
where
    C: AsyncFn() -> Result<(), Status> + 'static,
{
    let (send, mut schedule) = mpsc::unbounded_channel();
    let step = Duration::from_secs_f64(1.0 / per_second);
    let stop_pacing = stop.clone();
    let pacing = std::thread::spawn(move || keep_schedule(window, step, &stop_pacing, &send));
    let timed = Rc::new(RefCell::new(Vec::new()));
    let result = answer_schedule(&mut schedule, calls, &timed).await;
    stop.store(true, Ordering::Relaxed);
    drop(schedule);
    pacing.join().map_err(|_| anyhow!("the pacing thread panicked"))?;
    result?;
    Ok(timed.take())
}

async fn answer_schedule<C>(
    schedule: &mut mpsc::UnboundedReceiver<Instant>,
    calls: Vec<C>,
    timed: &Rc<RefCell<Vec<Timed>>>,
) -> Result<()>
where
    C: AsyncFn() -> Result<(), Status> + 'static,
{
    let calls: Vec<Rc<C>> = calls.into_iter().map(Rc::new).collect();
    let mut tasks = JoinSet::new();
    let mut turns = calls.iter().cycle();
    while let (Some(due), Some(call)) = (schedule.recv().await, turns.next()) {
        let (call, timed) = (call.clone(), timed.clone());
        tasks.spawn_local(async move {
            (*call)().await?;
            timed.borrow_mut().push(Timed { due, latency: due.elapsed() });
            Ok::<(), Status>(())
        });
        while let Some(task) = tasks.try_join_next() {
            task??;
        }
    }
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    Ok(())
}

fn keep_schedule(window: Window, step: Duration, stop: &AtomicBool, send: &mpsc::UnboundedSender<Instant>) {
    let mut due = Instant::now();
    while !window.over(due) && !stop.load(Ordering::Relaxed) {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if send.send(due).is_err() {
            return;
        }
        due += step;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::cell::Cell;
    use tokio::sync::Notify;

    const CALLS: u32 = 20;

    /// No call is answered before the twentieth has arrived: a server that stalls.
    #[test]
    fn a_stall_is_charged_to_every_call_that_was_due_in_it() {
        let (seen, release) = (Rc::new(Cell::new(0)), Rc::new(Notify::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let call = {
            let stop = stop.clone();
            async move || {
                seen.set(seen.get() + 1);
                if seen.get() < CALLS {
                    release.notified().await;
                } else {
                    stop.store(true, Ordering::Relaxed);
                    release.notify_waiters();
                }
                Ok(())
            }
        };
        let window = Window { start: Instant::now(), end: None };
        let mut timed = crate::client::converse(offer(window, 1000.0, stop, vec![call])).unwrap();
        timed.sort_by_key(|call| call.due);
        let step = Duration::from_millis(1);
        for (number, call) in (0..CALLS).zip(&timed) {
            assert_eq!(call.due, timed[0].due + step * number, "the schedule does not wait for answers");
            assert!(call.latency >= step * (CALLS - 1 - number), "call {number}: {:?}", call.latency);
        }
    }

    #[test]
    fn only_answers_inside_the_window_are_counted() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let recorder = Recorder::new(Window { start: at(10), end: Some(at(20)) });
        for (due, done) in [(0, 5), (8, 12), (18, 19), (19, 20)] {
            recorder.borrow_mut().note(at(due), at(done));
        }
        let (operations, latencies) = recorder.borrow_mut().take();
        assert_eq!(operations, 2);
        assert_eq!(latencies.max() / 1_000_000, 4);
    }
}
