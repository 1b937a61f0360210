//! Rows that only several members have: a client of a follower, and a follower that does nothing.

use anyhow::{Context as _, Result};
use rustix::process::Signal;

use super::kv;
use super::{Settings, Subject};
use crate::metric::{Metric, Sample};

pub(super) fn put_one(subject: &mut Subject<'_>, settings: &Settings) -> Result<Sample> {
    subject.addresses.rotate_left(1);
    kv::put_one(subject, settings)
}

pub(super) fn get_one(subject: &mut Subject<'_>, settings: &Settings) -> Result<Sample> {
    subject.addresses.rotate_left(1);
    kv::get_one(subject, settings)
}

pub(super) fn put_many(subject: &mut Subject<'_>, settings: &Settings) -> Result<Sample> {
    with_and_without(subject, |subject| kv::put_many(subject, settings))
}

pub(super) fn put_rate(subject: &mut Subject<'_>, settings: &Settings) -> Result<Sample> {
    with_and_without(subject, |subject| kv::put_at(subject, settings, RATE))
}

/// Puts per second that a cluster on a small machine answers without a queue.
const RATE: f64 = 1000.0;

/// Runs a load, and once more while one follower is paused. Its clients are not that follower's, so
/// that both times the same members serve them.
fn with_and_without(
    subject: &mut Subject<'_>,
    mut load: impl FnMut(&mut Subject<'_>) -> Result<Sample>,
) -> Result<Sample> {
    let last = subject.addresses.pop().context("there are several members")?;
    let before = load(subject)?;
    let server = subject.own_server()?;
    let follower =
        (0..server.size()).find(|member| server.address(*member) == last).context("its address is known")?;
    server.signal(follower, Signal::STOP)?;
    let during = load(subject);
    // It is killed soon, and that needs no waking; but a paused process keeps a shell's job waiting.
    subject.own_server()?.signal(follower, Signal::CONT)?;
    let mut sample = during?;
    let over = |metric: Metric| Some(sample.get(metric)? / before.get(metric)?);
    let (speed, slowdown) = (over(Metric::Throughput), over(Metric::P99));
    sample.set(Metric::SpeedRatio, speed);
    sample.set(Metric::P99Before, before.get(Metric::P99));
    let p99 = sample.get(Metric::P99);
    sample.set(Metric::P99During, p99);
    sample.set(Metric::Slowdown, slowdown);
    Ok(sample)
}
