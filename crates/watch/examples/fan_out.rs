//! What one event costs for each of its watchers, and how long a step of catching up keeps the thread.
//!
//! `cargo run --release -p watch --example fan_out`
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api::key_range::KeyRange;
use api::mvccpb::KeyValue;
use backend::{Backend, Seal, Storage};
use bytes::{Bytes, BytesMut};
use mvcc::{Revision, Store};
use prost::Message;
use rustix::time::{ClockId, clock_gettime};
use watch::{Batch, Chunk, Event, History, HistoryError, Hub, StreamId, WatchRequest};

/// CPU time of this thread: on a busy machine the wall clock measures the neighbours.
struct Instant(Duration);

impl Instant {
    fn now() -> Instant {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Instant(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
    }

    fn elapsed(&self) -> Duration {
        Instant::now().0 - self.0
    }
}

/// A past of puts, one per revision, that costs nothing to look at.
struct Past(Vec<Event>);

impl History for Past {
    fn events(
        &self,
        from: i64,
        to: i64,
        max_bytes: usize,
        filter: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<Chunk, HistoryError> {
        let (mut events, mut bytes) = (Vec::new(), 0);
        for event in &self.0[from as usize - 2..to as usize - 1] {
            if bytes > max_bytes {
                return Ok(Chunk { events, next: event.revision.main });
            }
            if filter(&event.key) {
                bytes += event.record.len();
                events.push(event.clone());
            }
        }
        Ok(Chunk { events, next: to + 1 })
    }

    fn value_at(&self, _: &Bytes, _: i64) -> Result<Option<Bytes>, HistoryError> {
        Ok(None)
    }

    fn compact_revision(&self) -> i64 {
        0
    }
}

fn put(key: &str, revision: i64) -> Event {
    let key = Bytes::from(key.to_string());
    let kv = KeyValue {
        key: key.clone(),
        value: vec![b'x'; 256].into(),
        create_revision: 2,
        mod_revision: revision,
        version: revision - 1,
        lease: 0,
    };
    Event {
        tombstone: false,
        revision: Revision::new(revision, 0),
        key,
        version: kv.version,
        create_revision: 2,
        lease: 0,
        record: kv.encode_to_vec().into(),
    }
}

/// Pulls every stream that was woken dry, as a connection's task would, into one send buffer.
fn drain(hub: &mut Hub, past: &Past, woken: &mut Vec<StreamId>, out: &mut BytesMut) -> (u64, u64) {
    let (mut frames, mut bytes) = (0, 0);
    hub.take_woken(woken);
    for stream in woken.drain(..) {
        while hub.has_more(stream) {
            if let Some(frame) = hub.next(stream, past).unwrap() {
                frames += 1;
                bytes += frame.encoded_len() as u64;
                frame.write_to(out);
            }
        }
        out.clear();
    }
    (frames, bytes)
}

fn fan_out(watchers: usize, streams: usize, per_batch: i64) {
    let past = Past(Vec::new());
    let mut hub = Hub::new(1);
    let mut out = BytesMut::with_capacity(1 << 22);
    let mut woken = Vec::new();
    let ids: Vec<StreamId> = (0..streams).map(|_| hub.open_stream()).collect();
    for watcher in 0..watchers {
        let request = WatchRequest::new(KeyRange::Key(Bytes::from_static(b"key")));
        hub.create(ids[watcher % streams], request, 1);
    }
    drain(&mut hub, &past, &mut woken, &mut out);

    let batches = (4_000_000 / watchers as i64 / per_batch).max(20);
    let mut revision = 1;
    let (mut publishing, mut pulling) = (Duration::ZERO, Duration::ZERO);
    let mut frames = 0;
    for _ in 0..batches {
        let events = (revision + 1..=revision + per_batch).map(|at| put("key", at)).collect();
        revision += per_batch;
        let batch = Arc::new(Batch::new(events).unwrap());
        let start = Instant::now();
        hub.publish(&batch);
        publishing += start.elapsed();
        let start = Instant::now();
        frames += drain(&mut hub, &past, &mut woken, &mut out).0;
        pulling += start.elapsed();
    }
    assert_eq!(frames, batches as u64 * watchers as u64);
    let each = |time: Duration| time.as_nanos() as f64 / (batches * per_batch * watchers as i64) as f64;
    println!(
        "{watchers:>6} watchers on one key, {streams:>6} streams, {per_batch:>3} revisions a batch: {:>6.1} ns per event and watcher (publish {:.1}, pull and write 300 B {:.1})",
        each(publishing + pulling),
        each(publishing),
        each(pulling),
    );
}

fn many_keys(watchers: usize) {
    let past = Past(Vec::new());
    let mut hub = Hub::new(1);
    let mut out = BytesMut::with_capacity(1 << 22);
    let mut woken = Vec::new();
    let stream = hub.open_stream();
    for watcher in 0..watchers {
        let key = Bytes::from(format!("key/{watcher:06}"));
        let range = if watcher % 2 == 0 { KeyRange::Key(key) } else { KeyRange::prefix(&key) };
        hub.create(stream, WatchRequest::new(range), 1);
    }
    drain(&mut hub, &past, &mut woken, &mut out);
    let (mut revision, rounds) = (1, 200_000);
    let mut publishing = Duration::ZERO;
    for round in 0..rounds {
        revision += 1;
        let key = format!("key/{:06}", round * 7919 % watchers);
        let batch = Arc::new(Batch::new(vec![put(&key, revision)]).unwrap());
        let start = Instant::now();
        hub.publish(&batch);
        publishing += start.elapsed();
        drain(&mut hub, &past, &mut woken, &mut out);
    }
    let each = publishing.as_nanos() as f64 / rounds as f64;
    println!(
        "{watchers:>6} watchers, half keys and half prefixes, one hit an event: publish {each:.0} ns per event"
    );
}

/// A store on disk, flushed, with as many revisions.
fn stored(folder: &Path, revisions: i64) -> Store {
    let storage = Storage::File(folder.join("past.redb"));
    let backend = Backend::open(storage, backend::Options::default()).unwrap();
    let (store, mut writer, _) = Store::open(backend.clone()).unwrap();
    for at in 2..=revisions + 1 {
        let mut txn = writer.begin();
        txn.put(Bytes::from(format!("key/{}", at % 1000)), Bytes::from(vec![b'x'; 256]), 0);
        txn.commit().unwrap();
        backend.seal(Seal { index: at as u64, term: 1, ..Seal::default() });
        if at % 10_000 == 0 {
            backend.flush_all().unwrap();
        }
    }
    backend.flush_all().unwrap();
    store
}

fn catch_up(kind: &str, past: &dyn History, watchers: usize, revisions: i64, prev_kv: bool) {
    let mut hub = Hub::new(revisions + 1);
    let mut out = BytesMut::with_capacity(1 << 22);
    let stream = hub.open_stream();
    for watcher in 0..watchers {
        let key = Bytes::from(format!("key/{}", watcher % 1000));
        let request = WatchRequest { start_revision: 2, prev_kv, ..WatchRequest::new(KeyRange::Key(key)) };
        hub.create(stream, request, revisions + 1);
    }
    let (mut steps, mut frames, mut longest) = (0, 0u64, Duration::ZERO);
    let begin = Instant::now();
    while hub.has_more(stream) {
        let start = Instant::now();
        let frame = hub.next(stream, past).unwrap();
        longest = longest.max(start.elapsed());
        steps += 1;
        if let Some(frame) = frame {
            frames += 1;
            frame.write_to(&mut out);
            out.clear();
        }
    }
    println!(
        "{watchers:>6} watchers {revisions} revisions behind on one stream, {kind}: {:.0} ms in {steps} pulls ({frames} frames), the longest {:.2} ms",
        begin.elapsed().as_secs_f64() * 1e3,
        longest.as_secs_f64() * 1e3,
    );
}

fn main() {
    for watchers in [1_000, 10_000] {
        for streams in [10, 100, watchers] {
            fan_out(watchers, streams, 1);
        }
        fan_out(watchers, 10, 20);
    }
    many_keys(1_000);
    many_keys(100_000);
    let revisions = 500_000;
    let past = Past((2..=revisions + 1).map(|at| put(&format!("key/{}", at % 1000), at)).collect());
    let folder = tempfile::tempdir().unwrap();
    let store = stored(folder.path(), revisions);
    for watchers in [1, 1_000, 10_000] {
        catch_up("from a list", &past, watchers, revisions, false);
        catch_up("from the store", &store, watchers, revisions, false);
        catch_up("from the store with prev_kv", &store, watchers, revisions, true);
    }
}
