//! Many keys at once: a million loaded and found again after a kill, one big list, and none at all.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use api::etcdserverpb::{PutRequest, RangeRequest};

use super::kv::MANY;
use super::{Settings, Subject, VALUE};
use crate::client::{Connection, call_raw, converse};
use crate::engine::{Plan, Run};
use crate::keys::{key, prefix_end, value};
use crate::load::{Seat, Turn, closed_loop};
use crate::metric::{Metric, Sample, median};
use crate::process::First;
use crate::wire::keys_in_range;

const LOAD_KEYS: u64 = 1_000_000;
/// Keys of the big list, of [`LIST_VALUE`] bytes each.
pub(super) const LIST_KEYS: u64 = 50_000;
/// Bytes of a value in the big list.
pub(super) const LIST_VALUE: usize = 1024;
/// Starts on an empty directory per round; their median counts.
const STARTS: usize = 3;

pub(super) fn load(subject: &mut Subject<'_>, settings: &Settings) -> Result<Sample> {
    let keys = settings.sized(LOAD_KEYS);
    subject.probe.reset_peak();
    let plan = Plan { warmup: Duration::ZERO, run: Run::ToTheEnd, ..subject.plan(settings) };
    let load = closed_loop(&plan, &subject.probe, MANY, async |seat: Seat| {
        let (mut kv, value) = (seat.connection.kv(), value(VALUE));
        let mut numbers = (seat.index as u64..keys).step_by(MANY.callers);
        Ok(async move || {
            let Some(number) = numbers.next() else { return Ok(Turn::Finished) };
            let key = key("load/", number);
            kv.put(PutRequest { key, value: value.clone(), ..Default::default() }).await?;
            Ok(Turn::Did)
        })
    })?;
    let mut sample = subject.sample(&load)?;
    let loading = sample.get(Metric::PeakRss);
    sample.set(Metric::LoadRss, loading);
    if let Some(server) = subject.server.as_deref_mut() {
        server.kill();
        sample.set(Metric::Restart, server.start_again(First::Read)?.as_secs_f64());
        subject.probe = server.probe();
    }
    let found = count(subject, "load/")?;
    ensure!(found == keys as i64, "{found} of {keys} acknowledged keys are there");
    // A server that has to hold these keys holds them after a restart too: the higher peak counts.
    let restarted = subject.probe.peak_rss().map(|bytes| bytes as f64);
    sample.set(Metric::RestartRss, restarted);
    sample.set(Metric::PeakRss, loading.into_iter().chain(restarted).reduce(f64::max));
    Ok(sample)
}

fn count(subject: &Subject<'_>, prefix: &str) -> Result<i64> {
    let (key, range_end) = (bytes::Bytes::copy_from_slice(prefix.as_bytes()), prefix_end(prefix));
    converse(async {
        let mut kv = Connection::open(subject.address()).await?.kv();
        let request = RangeRequest { key, range_end, count_only: true, ..Default::default() };
        Ok(kv.range(request).await?.into_inner().count)
    })
}

pub(super) fn list(subject: &mut Subject<'_>, settings: &Settings) -> Result<Sample> {
    let keys = settings.sized(LIST_KEYS);
    subject.fill("list/", 0..keys, LIST_VALUE)?;
    let mut sample = grown_by_list(subject, settings, keys as usize)?;
    if let Some(server) = subject.server.as_deref_mut() {
        // Filling leaves free memory behind that a list may use unseen, and so does a restart, but not
        // the same: the greater growth of the two counts.
        server.start_again(First::Read)?;
        subject.probe = server.probe();
        let again = grown_by_list(subject, settings, keys as usize)?;
        if again.get(Metric::ListGrowth) > sample.get(Metric::ListGrowth) {
            sample = again;
        }
    }
    Ok(sample)
}

fn grown_by_list(subject: &Subject<'_>, settings: &Settings, keys: usize) -> Result<Sample> {
    std::thread::sleep(settings.warmup);
    let probe = &subject.probe;
    let before = probe.rss();
    probe.reset_peak();
    let (begun, cpu) = (Instant::now(), probe.cpu_seconds());
    let found = converse(list_once(subject.address()))?;
    let took = begun.elapsed().as_secs_f64();
    ensure!(found == keys, "{found} of {keys} keys listed");

    let (after, peak) = (probe.cpu_seconds(), probe.peak_rss());
    let mut sample = Sample::default();
    sample.set(Metric::Throughput, 1.0 / took);
    sample.set(Metric::P50, took);
    sample.set(Metric::Cpu, after.zip(cpu).map(|(after, before)| after - before));
    sample.set(Metric::PeakRss, peak.map(|bytes| bytes as f64));
    sample.set(Metric::Disk, probe.disk_bytes().map(|bytes| bytes as f64));
    sample.set(Metric::ListGrowth, peak.zip(before).map(|(peak, before)| peak.saturating_sub(before) as f64));
    Ok(sample)
}

/// Reads all keys of the list in one answer and counts them.
pub(super) async fn list_once(address: std::net::SocketAddr) -> Result<usize> {
    let mut client = Connection::open(address).await?.raw();
    let (key, range_end) = (bytes::Bytes::from_static(b"list/"), prefix_end("list/"));
    let request = RangeRequest { key, range_end, ..Default::default() };
    Ok(keys_in_range(&call_raw(&mut client, "/etcdserverpb.KV/Range", request).await?))
}

pub(super) fn first_put(subject: &mut Subject<'_>, _: &Settings) -> Result<Sample> {
    let server = subject.own_server()?;
    let mut starts = Vec::new();
    for _ in 0..STARTS {
        server.wipe()?;
        let mut sample = Sample::default();
        sample.set(Metric::FirstPut, server.start_again(First::Put)?.as_secs_f64());
        let probe = server.probe();
        sample.set(Metric::Cpu, probe.cpu_seconds());
        sample.set(Metric::PeakRss, probe.peak_rss().map(|bytes| bytes as f64));
        sample.set(Metric::Disk, probe.disk_bytes().map(|bytes| bytes as f64));
        starts.push(sample);
    }
    Ok(median(&starts))
}
