//! What something big in the background does to puts that arrive at a fixed rate.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use api::etcdserverpb::CompactionRequest;

use super::bulk::{LIST_KEYS, LIST_VALUE, list_once};
use super::kv::{RATE, put_rate, putters};
use super::{Settings, Subject, VALUE};
use crate::client::{Connection, converse};
use crate::engine::{Plan, Run, Shard, Usage, Window, measure};
use crate::load::{Timed, histogram, nanos, offer};
use crate::metric::{Metric, Sample, percentile};

/// Keys, each overwritten [`OVERWRITES`] times: together 500,000 versions to remove.
const KEYS: u64 = 50_000;
const OVERWRITES: usize = 10;
/// Puts are watched at least this long before, and from the start of, the compaction: 10,000 of them,
/// so that a p99 is more than a few calls.
const AT_LEAST: Duration = Duration::from_secs(2);
/// Between two lists.
const LIST_EVERY: Duration = Duration::from_millis(500);

pub(super) fn compaction(subject: &mut Subject<'_>, settings: &Settings) -> Result<Sample> {
    let mut revision = 0;
    for _ in 0..=OVERWRITES {
        revision = subject.fill("put/", 0..settings.sized(KEYS), VALUE)?;
    }
    subject.probe.reset_peak();
    let plan = Plan { run: Run::ToTheEnd, ..subject.plan(settings) };
    let rate = RATE / plan.threads as f64;
    let quiet = settings.window.max(AT_LEAST);
    let stop = Arc::new(AtomicBool::new(false));
    let (usage, parts) = measure(&plan, &subject.probe, async |shard: Shard<'_>| {
        let calls = putters(&shard).await?;
        let window = shard.ready()?;
        let offered = offer(window, rate, stop.clone(), calls);
        if shard.index > 0 {
            return Ok((offered.await?, None));
        }
        let compacted = compact(shard.address(0), window, quiet, revision, stop.clone());
        let (offered, compacted) = tokio::join!(offered, compacted);
        Ok((offered?, Some((window, compacted?))))
    })?;

    let puts = parts.iter().flat_map(|part| &part.0);
    let (window, ran) = parts.iter().find_map(|part| part.1).context("nobody compacted")?;
    let before = p99_of(puts.clone(), window.start, ran.begun);
    let during = p99_of(puts, ran.begun, ran.watched);
    let mut sample = disturbed(subject, &usage, before, during);
    sample.set(Metric::CompactionTime, ran.took.as_secs_f64());
    Ok(sample)
}

#[derive(Clone, Copy)]
struct Compaction {
    begun: Instant,
    took: Duration,
    /// Until when puts count as beside it.
    watched: Instant,
}

/// Waits out the quiet time, compacts, watches a little longer, and stops the puts.
async fn compact(
    address: std::net::SocketAddr,
    window: Window,
    quiet: Duration,
    revision: i64,
    stop: Arc<AtomicBool>,
) -> Result<Compaction> {
    let compaction = async {
        let mut kv = Connection::open(address).await?.kv();
        tokio::time::sleep_until((window.start + quiet).into()).await;
        let begun = Instant::now();
        // Physical: the answer comes when the versions are gone, so that the time is the work's.
        kv.compact(CompactionRequest { revision, physical: true }).await?;
        let took = begun.elapsed();
        let watched = begun + took.max(AT_LEAST);
        tokio::time::sleep_until(watched.into()).await;
        Ok(Compaction { begun, took, watched })
    };
    let result = compaction.await;
    stop.store(true, Ordering::Relaxed);
    result
}

/// The p99 of puts before something is done beside them, and while it is.
pub(super) fn disturbed(
    subject: &Subject<'_>,
    usage: &Usage,
    before: Option<f64>,
    during: Option<f64>,
) -> Sample {
    let mut sample = Sample::default();
    sample.set(Metric::Cpu, usage.cpu);
    sample.set(Metric::PeakRss, subject.probe.peak_rss().map(|bytes| bytes as f64));
    sample.set(Metric::Disk, subject.probe.disk_bytes().map(|bytes| bytes as f64));
    sample.set(Metric::P99Before, before);
    sample.set(Metric::P99During, during);
    sample.set(Metric::Slowdown, during.zip(before).map(|(during, before)| during / before));
    sample
}

pub(super) fn p99_of<'a>(puts: impl Iterator<Item = &'a Timed>, from: Instant, to: Instant) -> Option<f64> {
    let mut latencies = histogram();
    for put in puts.filter(|put| put.due >= from && put.due < to) {
        latencies.saturating_record(nanos(put.latency));
    }
    percentile(&latencies, 0.99)
}

pub(super) fn lists(subject: &mut Subject<'_>, settings: &Settings) -> Result<Sample> {
    subject.fill("list/", 0..settings.sized(LIST_KEYS), LIST_VALUE)?;
    let (stop, address) = (AtomicBool::new(false), subject.address());
    // A thread of its own: taking in 50 MB must not delay the puts of a driver thread.
    std::thread::scope(|scope| {
        let lists = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                converse(list_once(address))?;
                std::thread::sleep(LIST_EVERY);
            }
            anyhow::Ok(())
        });
        let sample = put_rate(subject, settings);
        stop.store(true, Ordering::Relaxed);
        lists.join().map_err(|_| anyhow::anyhow!("the listing thread panicked"))??;
        sample
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_put_belongs_to_the_phase_that_it_was_due_in() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let put = |due, latency| Timed { due: at(due), latency: Duration::from_millis(latency) };
        let puts = [put(0, 1), put(9, 30), put(10, 5), put(20, 700)];
        let rounded = |p99: Option<f64>| p99.map(|seconds| (seconds * 1e3).round());
        assert_eq!(rounded(p99_of(puts.iter(), at(0), at(10))), Some(30.0));
        assert_eq!(rounded(p99_of(puts.iter(), at(10), at(20))), Some(5.0));
        assert_eq!(p99_of(puts.iter(), at(30), at(40)), None);
    }
}
