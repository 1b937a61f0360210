//! Watch fan-out: one put, many deliveries.
//!
//! A value begins with the moment of its put, so that every delivery tells its own latency. At full
//! speed the number of puts whose events are not all delivered is bounded: the driver takes events
//! in on the same cores, and a backlog of its own making would measure how servers treat slow
//! consumers.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use api::etcdserverpb::watch_request::RequestUnion;
use api::etcdserverpb::{PutRequest, WatchCreateRequest, WatchRequest, WatchResponse};
use bytes::{Bytes, BytesMut};
use http::uri::PathAndQuery;
use prost::Message;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Status, Streaming};

use super::{CONNECTIONS, Settings, Subject, VALUE};
use crate::client::{Connection, Raw};
use crate::engine::{Shard, Window, measure};
use crate::keys::{key, prefix_end, value};
use crate::load::{Recorder, nanos, offer, total};
use crate::metric::Sample;
use crate::random::Random;

const PREFIX: &str = "watch/";

/// Who watches what, and who writes.
#[derive(Clone, Copy)]
struct Shape {
    /// Watchers in all; every put is delivered to each.
    watchers: usize,
    /// Streams that they share, each on a connection of its own.
    streams: usize,
    /// Keys that are put; with one, each watcher watches that key, else the whole prefix.
    keys: u64,
    /// How puts come.
    pace: Pace,
}

#[derive(Clone, Copy)]
enum Pace {
    /// As fast as deliveries allow, with at most this many puts under way.
    UnderWay(usize),
    /// This many per second.
    PerSecond(f64),
}

pub(super) fn one_key(subject: &mut Subject<'_>, settings: &Settings) -> Result<Sample> {
    let shape = Shape { watchers: 1000, streams: CONNECTIONS, keys: 1, pace: Pace::UnderWay(4) };
    fan_out(subject, settings, shape)
}

pub(super) fn many_keys(subject: &mut Subject<'_>, settings: &Settings) -> Result<Sample> {
    let shape = Shape { watchers: 100, streams: CONNECTIONS, keys: 10_000, pace: Pace::UnderWay(32) };
    fan_out(subject, settings, shape)
}

pub(super) fn rate(subject: &mut Subject<'_>, settings: &Settings) -> Result<Sample> {
    let shape = Shape { watchers: 1000, streams: CONNECTIONS, keys: 1, pace: Pace::PerSecond(50.0) };
    fan_out(subject, settings, shape)
}

fn fan_out(subject: &mut Subject<'_>, settings: &Settings, shape: Shape) -> Result<Sample> {
    LazyLock::force(&EPOCH);
    subject.probe.reset_peak();
    let plan = subject.plan(settings);
    let flow = Arc::new(Flow { fan: shape.watchers as u64, ..Flow::default() });
    let (usage, parts) = measure(&plan, &subject.probe, async |shard: Shard<'_>| {
        let mut streams = Vec::new();
        for number in 0..shard.share(shape.streams).len() {
            streams.push(watch(&Connection::open(shard.address(number)).await?, shape).await?);
        }
        let connection = Connection::open(shard.address(0)).await?;
        let window = shard.ready()?;
        let recorder = Recorder::new(window);
        let mut readers = JoinSet::new();
        for stream in streams {
            readers.spawn_local(read(stream, flow.clone(), recorder.clone()));
        }
        tokio::select! {
            written = write(&shard, connection, window, shape, flow.clone()) => written?,
            Some(ended) = readers.join_next() => ended??,
        }
        Ok(recorder.borrow_mut().take())
    })?;
    subject.sample(&total(usage, parts))
}

/// Opens one stream, creates its share of the watchers and waits until all are confirmed.
async fn watch(connection: &Connection, shape: Shape) -> Result<Watching> {
    let (key, range_end) = match shape.keys {
        1 => (key(PREFIX, 0), Bytes::new()),
        _ => (Bytes::from_static(PREFIX.as_bytes()), prefix_end(PREFIX)),
    };
    let watchers = shape.watchers / shape.streams;
    let (send, requests) = mpsc::unbounded_channel();
    for _ in 0..watchers {
        let create =
            WatchCreateRequest { key: key.clone(), range_end: range_end.clone(), ..Default::default() };
        let _ = send.send(WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) });
    }
    let mut client = connection.raw();
    client.ready().await?;
    let requests = tonic::Request::new(UnboundedReceiverStream::new(requests));
    let path = PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
    let mut answers = client.streaming(requests, path, Raw::<WatchRequest>(PhantomData)).await?.into_inner();
    for _ in 0..watchers {
        let answer = answers.message().await?.context("the watch stream has ended")?;
        let answer = WatchResponse::decode(answer)?;
        if !answer.created || answer.canceled {
            bail!("a watch was not created: {}", answer.cancel_reason);
        }
    }
    Ok(Watching { answers, _open: send })
}

/// A stream with its watchers.
struct Watching {
    answers: Streaming<Bytes>,
    /// A half-closed stream would end its watchers.
    _open: mpsc::UnboundedSender<WatchRequest>,
}

/// Takes events in until the stream ends, which is an error: streams outlive the window.
async fn read(mut stream: Watching, flow: Arc<Flow>, recorder: Rc<RefCell<Recorder>>) -> Result<(), Status> {
    while let Some(answer) = stream.answers.message().await? {
        let (now, mut events) = (Instant::now(), 0);
        let mut recorder = recorder.borrow_mut();
        for value in crate::wire::event_values(&answer) {
            if let Some(put_at) = moment_in(value) {
                recorder.note(put_at, now);
            }
            events += 1;
        }
        drop(recorder);
        flow.deliver(events);
    }
    Err(Status::unavailable("the watch stream has ended"))
}

async fn write(
    shard: &Shard<'_>,
    connection: Connection,
    window: Window,
    shape: Shape,
    flow: Arc<Flow>,
) -> Result<()> {
    let template = value(VALUE);
    let random = Rc::new(RefCell::new(Random::new(shard.index as u64)));
    let put = move || {
        let (mut kv, key) = (connection.kv(), key(PREFIX, random.borrow_mut().below(shape.keys)));
        let value = stamped(&template);
        async move { kv.put(PutRequest { key, value, ..Default::default() }).await.map(drop) }
    };
    match shape.pace {
        Pace::PerSecond(_) if shard.index > 0 => {
            tokio::time::sleep_until(window.end.unwrap_or(window.start).into()).await;
        }
        Pace::PerSecond(per_second) => {
            let call = async move || put().await;
            offer(window, per_second, Arc::new(AtomicBool::new(false)), vec![call]).await?;
        }
        Pace::UnderWay(most) => {
            let mut writers = JoinSet::<Result<(), Status>>::new();
            for _ in shard.share(most) {
                let (put, flow) = (put.clone(), flow.clone());
                writers.spawn_local(async move {
                    loop {
                        flow.admit(most as u64).await;
                        put().await?;
                    }
                });
            }
            // A writer only ever ends by an error; the window's end leaves it wherever it waits.
            let end = window.end.context("a fan-out has a time")?;
            match tokio::time::timeout_at(end.into(), writers.join_next()).await {
                Ok(Some(failed)) => failed??,
                Ok(None) => tokio::time::sleep_until(end.into()).await,
                Err(_) => {}
            }
        }
    }
    Ok(())
}

/// Counts puts and deliveries over all threads and holds writers back.
#[derive(Default)]
struct Flow {
    /// Deliveries that one put makes.
    fan: u64,
    sent: AtomicU64,
    delivered: AtomicU64,
    progress: Notify,
}

impl Flow {
    /// Waits until fewer than `most` puts are undelivered and counts one more.
    async fn admit(&self, most: u64) {
        loop {
            let progress = self.progress.notified();
            tokio::pin!(progress);
            progress.as_mut().enable();
            if self.take_turn(most) {
                return;
            }
            progress.await;
        }
    }

    fn take_turn(&self, most: u64) -> bool {
        let all_delivered = self.delivered.load(Ordering::Acquire) / self.fan;
        self.sent
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |sent| {
                (sent < all_delivered + most).then_some(sent + 1)
            })
            .is_ok()
    }

    fn deliver(&self, events: u64) {
        let before = self.delivered.fetch_add(events, Ordering::AcqRel);
        if before / self.fan != (before + events) / self.fan {
            self.progress.notify_waiters();
        }
    }
}

/// Moments in values count from here; one process sends and receives.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

fn stamped(template: &Bytes) -> Bytes {
    let mut value = BytesMut::from(&template[..]);
    value[..8].copy_from_slice(&nanos(EPOCH.elapsed()).to_be_bytes());
    value.freeze()
}

fn moment_in(value: &[u8]) -> Option<Instant> {
    let stamp = value.first_chunk::<8>()?;
    EPOCH.checked_add(Duration::from_nanos(u64::from_be_bytes(*stamp)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_stamp_comes_back_as_its_moment() {
        LazyLock::force(&EPOCH);
        let before = Instant::now();
        let value = stamped(&value(VALUE));
        let moment = moment_in(&value).unwrap();
        assert!(moment >= before && moment <= Instant::now());
        assert_eq!(value.len(), VALUE);
        assert_eq!(moment_in(b"short"), None);
    }

    #[test]
    fn puts_under_way_are_bounded_by_their_deliveries() {
        let flow = Flow { fan: 10, ..Flow::default() };
        assert!(flow.take_turn(2) && flow.take_turn(2) && !flow.take_turn(2));
        flow.deliver(9);
        assert!(!flow.take_turn(2), "nine of ten watchers are not all");
        flow.deliver(1);
        assert!(flow.take_turn(2) && !flow.take_turn(2));
    }
}
