//! What must stay bounded, with a count of the bytes that really stay alive.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use api::key_range::KeyRange;
use bytes::Bytes;
use common::{Change, Memory};
use mvcc::Revision;
use watch::{Batch, Chunk, Event, History, HistoryError, Hub, Options, StreamId, WatchRequest};

/// Bytes that count themselves for as long as anyone holds a piece of them.
struct Tracked {
    bytes: Vec<u8>,
    alive: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for Tracked {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.alive.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

/// A store of which every revision is one put of the same size, made up when asked for.
struct Endless {
    size: usize,
    keys: i64,
    alive: Arc<AtomicUsize>,
}

impl Endless {
    fn new(size: usize, keys: i64) -> Endless {
        Endless { size, keys, alive: Arc::default() }
    }

    fn event(&self, revision: i64) -> Event {
        self.alive.fetch_add(self.size, Ordering::Relaxed);
        let bytes = vec![0; self.size];
        let record = Bytes::from_owner(Tracked { bytes, alive: self.alive.clone() });
        let key = Bytes::from(format!("key{}", revision % self.keys));
        let revision = Revision::new(revision, 0);
        Event { tombstone: false, revision, key, version: 2, create_revision: 1, lease: 0, record }
    }

    fn batch(&self, revision: i64) -> Arc<Batch> {
        Arc::new(Batch::new(vec![self.event(revision)]).unwrap())
    }

    fn alive(&self) -> usize {
        self.alive.load(Ordering::Relaxed)
    }
}

impl History for Endless {
    fn events(
        &self,
        from: i64,
        to: i64,
        max_bytes: usize,
        filter: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<Chunk, HistoryError> {
        let (mut events, mut bytes) = (Vec::new(), 0);
        for revision in from..=to {
            if bytes > max_bytes {
                return Ok(Chunk { events, next: revision });
            }
            let event = self.event(revision);
            if filter(&event.key) {
                bytes += event.record.len();
                events.push(event);
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

fn drain(hub: &mut Hub, stream: StreamId, history: &dyn History) -> usize {
    let mut events = 0;
    while hub.has_more(stream) {
        events += hub.next(stream, history).unwrap().map_or(0, |frame| frame.events());
    }
    events
}

fn all() -> WatchRequest {
    WatchRequest::new(KeyRange::all())
}

#[test]
fn a_gibibyte_past_streams_that_never_read() {
    let store = Endless::new(256 << 10, 1);
    let mut hub = Hub::new(1);
    let (stuck, reads) = (hub.open_stream(), hub.open_stream());
    for watcher in 0..100 {
        let request = WatchRequest { prev_kv: watcher % 2 == 0, ..all() };
        hub.create(stuck, request, 1);
    }
    hub.create(reads, all(), 1);
    drain(&mut hub, reads, &store);
    for revision in 2..2 + 4096 {
        hub.publish(&store.batch(revision));
        // The other is not delayed: every event is there as soon as it is published.
        assert_eq!(drain(&mut hub, reads, &store), 1, "revision {revision}");
        let bound = Options::default().stream_bytes + (1 << 20);
        assert!(store.alive() <= bound, "{} bytes alive at revision {revision}", store.alive());
        assert!(hub.counts().pending_bytes <= bound);
    }
    assert_eq!(hub.counts().slow_watchers, 100);
    // And nothing is lost: the one that never read gets all of it when it does.
    assert_eq!(drain(&mut hub, stuck, &store), 100 * 4096);
    assert_eq!((hub.counts().slow_watchers, hub.counts().pending_bytes, store.alive()), (0, 0, 0));
    // The room is free again: what comes now is queued.
    hub.publish(&store.batch(4098));
    hub.publish(&store.batch(4099));
    assert_eq!((hub.counts().slow_watchers, hub.counts().pending_events), (0, 202));
}

#[test]
fn many_stuck_streams_share_one_bound() {
    let options = Options { hub_bytes: 4 << 20, ..Options::default() };
    let store = Endless::new(16 << 10, 500);
    let mut hub = Hub::with_options(1, options.clone());
    for stream in 0..500 {
        let id = hub.open_stream();
        let key = Bytes::from(format!("key{stream}"));
        hub.create(id, WatchRequest::new(KeyRange::Key(key)), 1);
    }
    for revision in 2..30_000 {
        hub.publish(&store.batch(revision));
    }
    let bound = options.hub_bytes + 500 * options.spared_bytes;
    assert!(store.alive() <= bound, "{} bytes alive", store.alive());
    assert_eq!(hub.counts().slow_watchers, 500);
}

#[test]
fn watchers_behind_read_history_together() {
    let mut store = Memory::default();
    for n in 0..2_000 {
        store.commit(&[Change::Put(format!("key{}", n % 10), "v".into())]);
    }
    let mut hub = Hub::new(store.revision);
    let stream = hub.open_stream();
    for n in 0..3_000 {
        let key = Bytes::from(format!("key{}", n % 20));
        // Each a little further on than the one before: the lowest takes the others along.
        let start_revision = 2 + n % 500;
        hub.create(stream, WatchRequest { start_revision, ..WatchRequest::new(KeyRange::Key(key)) }, 2_001);
    }
    let mut wanted = 0;
    for event in &store.events {
        let key: i64 = std::str::from_utf8(&event.key[3..]).unwrap().parse().unwrap();
        wanted += (0..3_000).filter(|n| n % 20 == key && 2 + n % 500 <= event.revision.main).count();
    }
    assert_eq!(drain(&mut hub, stream, &store), wanted);
    let twice = 2 * store.events.len();
    assert!(store.rows.get() <= twice, "{} rows read for {} events", store.rows.get(), store.events.len());
}

#[test]
fn steps_shrink_where_revisions_are_large() {
    let mut store = Memory::default();
    for n in 0..200 {
        let changes: Vec<Change> = (0..100).map(|k| Change::Put(format!("key{k}"), n.to_string())).collect();
        store.commit(&changes);
    }
    let options = Options { step_rows: 100, ..Options::default() };
    let mut hub = Hub::with_options(store.revision, options);
    let stream = hub.open_stream();
    let nothing = WatchRequest::new(KeyRange::Key(Bytes::from_static(b"nothing")));
    hub.create(stream, WatchRequest { start_revision: 2, ..nothing }, store.revision);
    while store.rows.get() == 0 {
        hub.next(stream, &store).unwrap();
    }
    store.most_rows.set(0);
    drain(&mut hub, stream, &store);
    assert_eq!(store.rows.get(), 200 * 100);
    assert!(store.most_rows.get() <= 200, "{} rows in a step of 100", store.most_rows.get());
}

#[test]
fn one_far_behind_does_not_hold_up_one_that_is_near() {
    let mut store = Memory::default();
    for _ in 0..50_000 {
        store.commit(&[Change::Put("far".into(), "v".into())]);
    }
    store.commit(&[Change::Put("near".into(), "v".into())]);
    let mut hub = Hub::new(store.revision);
    let stream = hub.open_stream();
    let watch = |key: &'static str, start_revision| {
        let range = KeyRange::Key(Bytes::from_static(key.as_bytes()));
        WatchRequest { start_revision, ..WatchRequest::new(range) }
    };
    hub.create(stream, watch("far", 2), store.revision);
    hub.create(stream, watch("near", store.revision - 10), store.revision);
    let mut pulls = 0;
    while hub.next(stream, &store).unwrap().is_none_or(|frame| frame.watch_id() != 1 || frame.events() == 0) {
        pulls += 1;
        assert!(pulls < 10, "the near one still waits");
    }
    assert!(store.most_rows.get() <= Options::default().step_rows);
}

#[test]
fn news_do_not_keep_one_that_is_behind_from_catching_up() {
    let mut store = Memory::default();
    for _ in 0..5_000 {
        store.commit(&[Change::Put("old".into(), "v".into())]);
    }
    let mut hub = Hub::new(store.revision);
    let stream = hub.open_stream();
    for _ in 0..100 {
        hub.create(stream, WatchRequest::new(KeyRange::Key(Bytes::from_static(b"new"))), store.revision);
    }
    let old =
        WatchRequest { start_revision: 2, ..WatchRequest::new(KeyRange::Key(Bytes::from_static(b"old"))) };
    hub.create(stream, old, store.revision);
    let mut old_events = 0;
    // The line is never empty: every hundred frames there are a hundred more.
    for _ in 0..10 {
        store.commit(&[Change::Put("new".into(), "v".into())]);
        hub.publish(&Arc::new(store.batch(store.revision, store.revision)));
        for _ in 0..100 {
            let frame = hub.next(stream, &store).unwrap().expect("the line is never empty");
            old_events += if frame.watch_id() == 100 { frame.events() } else { 0 };
        }
    }
    assert_eq!(old_events, 5_000);
}

#[test]
fn a_client_that_asks_and_never_reads_is_noticed() {
    let store = Memory::default();
    let mut hub = Hub::new(1);
    let stream = hub.open_stream();
    let mut asked = 0;
    while !hub.is_backed_up(stream) {
        match asked % 3 {
            0 => hub.create(stream, all(), 1),
            1 => hub.request_progress(stream, 1),
            _ => hub.cancel(stream, asked / 3, 1),
        }
        asked += 1;
        assert!(asked <= 16);
    }
    drain(&mut hub, stream, &store);
    assert!(!hub.is_backed_up(stream));
}

#[test]
fn watchers_come_and_go_by_the_thousand_under_writes() {
    let mut store = Memory::default();
    let mut hub = Hub::new(1);
    let stream = hub.open_stream();
    for round in 0..3_000 {
        store.commit(&[Change::Put("a".into(), "v".into())]);
        // The store is ahead of the hub by the revision just made, which "from now" does not include.
        hub.create(stream, WatchRequest::new(KeyRange::Key(Bytes::from_static(b"a"))), store.revision);
        hub.publish(&Arc::new(store.batch(store.revision, store.revision)));
        store.commit(&[Change::Put("a".into(), "v".into())]);
        hub.publish(&Arc::new(store.batch(store.revision, store.revision)));
        let created = hub.next(stream, &store).unwrap().unwrap().to_message();
        assert_eq!((created.created, created.watch_id), (true, round));
        let events = hub.next(stream, &store).unwrap().unwrap().to_message();
        let revisions: Vec<i64> =
            events.events.iter().map(|event| event.kv.as_ref().unwrap().mod_revision).collect();
        assert_eq!(revisions, [created.header.unwrap().revision + 1], "round {round}");
        hub.cancel(stream, round, store.revision);
        assert!(hub.next(stream, &store).unwrap().unwrap().to_message().canceled);
    }
    assert_eq!(hub.counts().watchers, 0);
}
