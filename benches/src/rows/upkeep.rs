//! What an operator's work on a database of a gibibyte does to puts that arrive at a fixed rate.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use api::etcdserverpb::{CompactionRequest, DefragmentRequest, HashKvRequest, SnapshotRequest};

use super::kv::putters;
use super::pause::{disturbed, p99_of};
use super::{Settings, Subject};
use crate::client::{Connection, converse};
use crate::engine::{Plan, Run, Shard, Window, measure};
use crate::load::offer;
use crate::metric::{Metric, Sample};

/// Puts a second. A fifth of what other rows offer: what is looked for is work that others have to wait
/// for, and not how far two cores go that the driver and the work need as well.
const RATE: f64 = 1_000.0;
/// Versions of [`LENGTH`] bytes: a gibibyte.
const VERSIONS: u64 = 1 << 20;
const LENGTH: usize = 1024;
/// Puts are watched at least this long before the work, and beside it.
const AT_LEAST: Duration = Duration::from_secs(5);

/// How long the disk is left alone after it was filled. What the host of a virtual disk has taken in goes to
/// its own half a minute later, and nothing else is written meanwhile: stalls of two seconds were seen.
const SETTLE: Duration = Duration::from_secs(60);

/// What is done to the database.
#[derive(Clone, Copy)]
enum Work {
    Snapshot,
    Defragment,
    Compact(i64),
    HashKv,
}

impl Work {
    async fn once(self, address: SocketAddr) -> Result<()> {
        let connection = Connection::open(address).await?;
        match self {
            Work::Snapshot => {
                let mut pieces = connection.maintenance().snapshot(SnapshotRequest {}).await?.into_inner();
                let mut last = None;
                while let Some(piece) = pieces.message().await? {
                    last = Some(piece.remaining_bytes);
                }
                anyhow::ensure!(last == Some(0), "a snapshot that was cut off");
            }
            Work::Defragment => drop(connection.maintenance().defragment(DefragmentRequest {}).await?),
            // Physical: the answer comes when the versions are gone.
            Work::Compact(revision) => {
                drop(connection.kv().compact(CompactionRequest { revision, physical: true }).await?);
            }
            Work::HashKv => drop(connection.maintenance().hash_kv(HashKvRequest { revision: 0 }).await?),
        }
        Ok(())
    }

    /// Whether it finds as much to do the next time.
    fn repeats(self) -> bool {
        !matches!(self, Work::Compact(_))
    }
}

pub(super) fn snapshot(subject: &mut Subject<'_>, settings: &Settings) -> Result<Sample> {
    beside(subject, settings, Work::Snapshot)
}

pub(super) fn defragment(subject: &mut Subject<'_>, settings: &Settings) -> Result<Sample> {
    beside(subject, settings, Work::Defragment)
}

pub(super) fn hash_kv(subject: &mut Subject<'_>, settings: &Settings) -> Result<Sample> {
    beside(subject, settings, Work::HashKv)
}

/// Half of the database goes.
pub(super) fn compaction(subject: &mut Subject<'_>, settings: &Settings) -> Result<Sample> {
    beside(subject, settings, Work::Compact(0))
}

fn beside(subject: &Subject<'_>, settings: &Settings, work: Work) -> Result<Sample> {
    let versions = settings.sized(VERSIONS);
    let work = match work {
        Work::Compact(_) => {
            subject.fill("put/", 0..versions / 2, LENGTH)?;
            Work::Compact(subject.fill("put/", 0..versions / 2, LENGTH)?)
        }
        work => subject.fill("put/", 0..versions, LENGTH).map(|_| work)?,
    };
    std::thread::sleep(if versions == VERSIONS { SETTLE } else { settings.warmup });
    subject.probe.reset_peak();
    let plan = Plan { run: Run::ToTheEnd, ..subject.plan(settings) };
    let (rate, stop, address) =
        (RATE / plan.threads as f64, Arc::new(AtomicBool::new(false)), subject.address());
    let (open, opened) = channel();
    let (ran, (usage, parts)) = std::thread::scope(|scope| {
        // A thread of its own: taking in a gibibyte must not delay the puts of a driver thread.
        let ends = Arc::clone(&stop);
        let worker = scope.spawn(move || {
            let ran = run(&opened, work, address);
            ends.store(true, Ordering::Relaxed);
            ran
        });
        let measured = measure(&plan, &subject.probe, async |shard: Shard<'_>| {
            let calls = putters(&shard).await?;
            let window = shard.ready()?;
            if shard.index == 0 {
                open.send(window)?;
            }
            offer(window, rate, stop.clone(), calls).await
        });
        drop(open);
        let ran = worker.join().map_err(|_| anyhow::anyhow!("the working thread panicked"))?;
        anyhow::Ok((ran?, measured?))
    })?;
    let puts = parts.iter().flatten();
    let before = p99_of(puts.clone(), ran.from, ran.begun);
    let during = p99_of(puts, ran.begun, ran.watched);
    let mut sample = disturbed(subject, &usage, before, during);
    sample.set(Metric::WorkTime, ran.once.as_secs_f64());
    Ok(sample)
}

struct Ran {
    /// Since when puts are watched.
    from: Instant,
    begun: Instant,
    /// What the work took the first time.
    once: Duration,
    /// Until when puts count as beside it.
    watched: Instant,
}

/// Waits out the quiet time, and works for as long as puts are to be watched.
fn run(opened: &Receiver<Window>, work: Work, address: SocketAddr) -> Result<Ran> {
    let from = opened.recv().context("there were no puts to watch")?.start;
    std::thread::sleep((from + AT_LEAST).saturating_duration_since(Instant::now()));
    let begun = Instant::now();
    converse(work.once(address))?;
    let once = begun.elapsed();
    while work.repeats() && begun.elapsed() < AT_LEAST {
        converse(work.once(address))?;
    }
    std::thread::sleep((begun + AT_LEAST).saturating_duration_since(Instant::now()));
    Ok(Ran { from, begun, once, watched: Instant::now() })
}
