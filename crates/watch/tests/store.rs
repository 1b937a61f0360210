//! The store as history: a hub over `mvcc::Store` and one over the naive twin, given the same calls, send
//! the same bytes.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use api::key_range::KeyRange;
use backend::{Backend, Seal, Storage};
use bytes::Bytes;
use common::{Change, Dice, Memory};
use mvcc::{ProgressState, Store, Writer};
use watch::{Batch, Filters, Frame, History, Hub, Options, StreamId, WatchRequest};

struct Pair {
    twin: Memory,
    store: Store,
    writer: Writer,
    backend: Backend,
    index: u64,
    hubs: [Hub; 2],
}

impl Pair {
    fn new(folder: &std::path::Path, seed: u64) -> Pair {
        let storage = Storage::File(folder.join(format!("{seed}.redb")));
        let backend = Backend::open(storage, backend::Options::default()).unwrap();
        let (store, writer, _) = Store::open(backend.clone()).unwrap();
        // Bounds by bytes are left wide: they are bounds, and the two may draw them differently.
        let options = Options { stream_entries: 3, step_rows: 5, response_events: 20, ..Options::default() };
        let hubs = [(); 2].map(|()| Hub::with_options(store.current_revision(), options.clone()));
        Pair { twin: Memory::default(), store, writer, backend, index: 0, hubs }
    }

    fn commit(&mut self, changes: &[Change]) {
        let expected = self.twin.commit(changes);
        let mut txn = self.writer.begin();
        for change in changes {
            match change {
                Change::Put(key, value) => {
                    txn.put(key.clone().into(), value.clone().into(), 0);
                }
                Change::Delete(key) => {
                    txn.delete_range(&KeyRange::Key(key.clone().into()));
                }
            }
        }
        let committed = txn.commit().unwrap();
        assert_eq!(committed.revision, self.twin.revision);
        let records = |events: &[watch::Event]| -> Vec<Bytes> {
            events.iter().map(|event| event.record.clone()).collect()
        };
        assert_eq!(records(&committed.events), records(&expected));
        self.seal(Vec::new());
    }

    fn seal(&mut self, ops: Vec<backend::TableOp>) {
        self.index += 1;
        self.backend.seal(Seal { index: self.index, term: 1, ops, ..Seal::default() });
    }

    fn compact(&mut self, revision: i64) {
        if let Ok(op) = self.writer.schedule_compaction(revision) {
            self.seal(vec![op]);
            self.twin.compact(revision);
            while self.store.compact_step(3).unwrap().state == ProgressState::More {}
        }
    }

    fn both(&mut self, call: impl Fn(&mut Hub)) {
        self.hubs.iter_mut().for_each(call);
    }

    fn pull(&mut self, stream: StreamId) -> Option<Frame> {
        let [a, b] = &mut self.hubs;
        let of_twin = a.next(stream, &self.twin).unwrap();
        let of_store = b.next(stream, &self.store).unwrap();
        let shown = |frame: &Option<Frame>| frame.as_ref().map(Frame::to_message);
        assert_eq!(shown(&of_twin), shown(&of_store));
        assert_eq!(a.has_more(stream), b.has_more(stream));
        of_store
    }
}

fn request(dice: &mut Dice, current: i64) -> WatchRequest {
    let keys = ["a", "b", "c"];
    let key = |dice: &mut Dice| Bytes::from(keys[dice.roll(3) as usize]);
    let range = match dice.roll(3) {
        0 => KeyRange::From(key(dice)),
        1 => KeyRange::prefix(&key(dice)),
        _ => KeyRange::Key(key(dice)),
    };
    WatchRequest {
        start_revision: if dice.one_in(4) { 0 } else { 1 + dice.roll(current as u64 + 2) as i64 },
        filters: Filters { no_put: dice.one_in(6), no_delete: dice.one_in(6) },
        prev_kv: dice.one_in(2),
        ..WatchRequest::new(range)
    }
}

#[test]
fn the_store_tells_what_the_twin_tells() {
    let folder = tempfile::tempdir().unwrap();
    let mut events = 0;
    for seed in 0..25 {
        let mut dice = Dice(seed);
        let mut pair = Pair::new(folder.path(), seed);
        let streams: Vec<StreamId> = (0..2).map(|_| pair.hubs.each_mut().map(Hub::open_stream)[0]).collect();
        for step in 0..800 {
            let stream = streams[dice.roll(2) as usize];
            let current = pair.twin.revision;
            match dice.roll(20) {
                0..8 => {
                    let key = ["a", "b", "c"][dice.roll(3) as usize].to_string();
                    let change =
                        if dice.one_in(4) { Change::Delete(key) } else { Change::Put(key, step.to_string()) };
                    pair.commit(&[change, Change::Put("z".into(), String::new())]);
                }
                8..12 if current > pair.hubs[0].revision() => {
                    let batch: Arc<Batch> = Arc::new(pair.twin.batch(pair.hubs[0].revision() + 1, current));
                    pair.both(|hub| hub.publish(&batch));
                }
                12..14 => {
                    let request = request(&mut dice, current);
                    pair.both(|hub| hub.create(stream, request.clone(), current));
                }
                14 => pair.both(|hub| hub.request_progress(stream, current)),
                15 if dice.one_in(9) => pair.compact(current - dice.roll(90) as i64),
                16 if dice.one_in(2) => {
                    pair.backend.flush().unwrap();
                }
                17 => pair.both(|hub| hub.tick(Duration::from_secs(step * 100))),
                _ => events += pair.pull(stream).map_or(0, |frame| frame.events()),
            }
        }
        for stream in streams {
            while pair.hubs[0].has_more(stream) {
                events += pair.pull(stream).map_or(0, |frame| frame.events());
            }
        }
    }
    assert!(events > 20_000, "only {events} events were sent");
}

#[test]
fn what_was_before_the_first_revision_is_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut pair = Pair::new(folder.path(), 0);
    pair.commit(&[Change::Put("a".into(), "1".into())]);
    let key = Bytes::from_static(b"a");
    assert_eq!(pair.store.value_at(&key, 0), Ok(None), "0 is not the current revision here");
    assert_eq!(pair.store.value_at(&key, 1), Ok(None));
    assert_eq!(pair.store.value_at(&key, 2).unwrap(), pair.twin.truth(&key, 2));
}
