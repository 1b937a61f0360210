//! The store as history: a hub over `mvcc::Store` and one over the naive twin, given the same calls, send
//! the same bytes.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use api::etcdserverpb::WatchResponse;
use api::key_range::KeyRange;
use backend::{Backend, Seal, Storage, Target};
use bytes::Bytes;
use common::{Change, Dice, Memory};
use mvcc::{ProgressState, Store, Writer};
use watch::{Batch, Filters, Frame, History, Hub, Options, StreamId, WatchRequest};

/// A store and its twin.
struct State {
    twin: Memory,
    store: Store,
    writer: Writer,
    backend: Backend,
    index: u64,
}

impl State {
    fn new(path: std::path::PathBuf) -> State {
        let backend = Backend::open(Storage::File(path), backend::Options::default()).unwrap();
        let (store, writer, _) = Store::open(backend.clone()).unwrap();
        State { twin: Memory::default(), store, writer, backend, index: 0 }
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

    /// Takes the place of `other`, which has applied less.
    fn take_the_place_of(&mut self, other: &mut State) {
        let export = self.backend.export().unwrap();
        let body = export.write_to(Cursor::new(Vec::new())).unwrap();
        let incoming = other.backend.receive(body, export.consistent().clone(), Target::Beside).unwrap();
        other.writer.install(incoming).unwrap();
        (other.twin, other.index) = (self.twin.clone(), self.index);
    }
}

/// A member, another one that is ahead of it at times, and two hubs at the first: one reads from the
/// twin, one from the store.
struct Pair {
    here: State,
    ahead: State,
    hubs: [Hub; 2],
    installs: usize,
}

impl Pair {
    fn new(folder: &std::path::Path, seed: u64) -> Pair {
        let state = |name: &str| State::new(folder.join(format!("{seed}.{name}")));
        let (here, ahead) = (state("here"), state("ahead"));
        // Bounds by bytes are left wide: they are bounds, and the two may draw them differently.
        let options = Options { stream_entries: 3, step_rows: 5, response_events: 20, ..Options::default() };
        let hubs = [(); 2].map(|()| Hub::with_options(here.store.current_revision(), options.clone()));
        Pair { here, ahead, hubs, installs: 0 }
    }

    fn commit(&mut self, changes: &[Change]) {
        self.here.commit(changes);
        self.ahead.commit(changes);
    }

    fn compact(&mut self, revision: i64) {
        self.here.compact(revision);
        self.ahead.compact(revision);
    }

    /// The other one goes on alone for a while; then its state is installed here.
    fn install(&mut self, dice: &mut Dice, step: u64) {
        for at in 0..1 + dice.roll(12) {
            self.ahead.commit(&[change(dice, step * 100 + at), Change::Put("z".into(), String::new())]);
        }
        if dice.one_in(10) {
            let revision = self.ahead.twin.revision - dice.roll(60) as i64;
            self.ahead.compact(revision);
        }
        self.ahead.take_the_place_of(&mut self.here);
        self.installs += 1;
        // The hub is told a moment later: it may be asked for things in between.
        let revision = self.here.twin.revision;
        if dice.one_in(2) {
            self.both(|hub| hub.skip_to(revision));
        }
    }

    fn both(&mut self, call: impl Fn(&mut Hub)) {
        self.hubs.iter_mut().for_each(call);
    }

    fn pull(&mut self, stream: StreamId) -> Option<Frame> {
        let [a, b] = &mut self.hubs;
        let of_twin = a.next(stream, &self.here.twin).unwrap();
        let of_store = b.next(stream, &self.here.store).unwrap();
        let shown = |frame: &Option<Frame>| frame.as_ref().map(Frame::to_message);
        assert_eq!(shown(&of_twin), shown(&of_store));
        assert_eq!(a.has_more(stream), b.has_more(stream));
        of_store
    }
}

fn change(dice: &mut Dice, step: u64) -> Change {
    let key = ["a", "b", "c"][dice.roll(3) as usize].to_string();
    if dice.one_in(4) { Change::Delete(key) } else { Change::Put(key, step.to_string()) }
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

/// What the client of a watcher holds every response against, whatever happened to the store.
struct Client {
    start: i64,
    range: KeyRange,
    filters: Filters,
    /// It has everything below this.
    next: i64,
    /// It has been told that it is watched for; before that, nothing on the stream is about it.
    created: bool,
}

impl Client {
    fn take(&mut self, response: &WatchResponse, truth: &Memory) {
        if response.canceled {
            assert!(self.next < response.compact_revision, "canceled without need: {response:?}");
            return;
        }
        let revision = response.header.as_ref().unwrap().revision;
        if response.created || !self.created {
            self.created |= response.created;
            return;
        }
        let Some(last) = response.events.last() else {
            assert!(revision >= self.start - 1, "progress below the start");
            return self.reach(revision, truth, 0);
        };
        let told = response.events.iter().map(|event| event.kv.as_ref().unwrap().mod_revision);
        assert!(told.clone().all(|at| at >= self.next), "back to {told:?} from {}", self.next);
        let last = last.kv.as_ref().unwrap().mod_revision;
        self.reach(last, truth, response.events.len());
    }

    /// Everything up to `revision` was sent, which were so many events.
    fn reach(&mut self, revision: i64, truth: &Memory, events: usize) {
        let missed = truth.events.iter().filter(|event| {
            (self.next..=revision).contains(&event.revision.main)
                && self.range.contains(&event.key)
                && !(if event.tombstone { self.filters.no_delete } else { self.filters.no_put })
        });
        assert_eq!(missed.count(), events, "from {} to {revision}", self.next);
        self.next = self.next.max(revision + 1);
    }
}

#[test]
fn the_store_tells_what_the_twin_tells() {
    let folder = tempfile::tempdir().unwrap();
    let (mut events, mut installs, mut ended) = (0, 0, 0);
    for seed in 0..12 {
        let mut dice = Dice(seed);
        let mut pair = Pair::new(folder.path(), seed);
        let streams: Vec<StreamId> = (0..2).map(|_| pair.hubs.each_mut().map(Hub::open_stream)[0]).collect();
        let mut clients: BTreeMap<(StreamId, i64), Client> = BTreeMap::new();
        let mut next_id = 1;
        for step in 0..800 {
            let stream = streams[dice.roll(2) as usize];
            let current = pair.here.twin.revision;
            match dice.roll(20) {
                0..8 => {
                    let change = change(&mut dice, step);
                    pair.commit(&[change, Change::Put("z".into(), String::new())]);
                }
                8..12 if current > pair.hubs[0].revision() => {
                    let batch: Arc<Batch> =
                        Arc::new(pair.here.twin.batch(pair.hubs[0].revision() + 1, current));
                    pair.both(|hub| hub.publish(&batch));
                }
                12..14 => {
                    let request = WatchRequest { watch_id: next_id, ..request(&mut dice, current) };
                    next_id += 1;
                    let start =
                        if request.start_revision == 0 { current + 1 } else { request.start_revision };
                    let (range, filters) = (request.range.clone(), request.filters);
                    clients.insert(
                        (stream, request.watch_id),
                        Client { start, range, filters, next: start, created: false },
                    );
                    pair.both(|hub| hub.create(stream, request.clone(), current));
                }
                14 => pair.both(|hub| hub.request_progress(stream, current)),
                15 if dice.one_in(9) => pair.compact(current - dice.roll(90) as i64),
                15 if dice.one_in(2) => pair.install(&mut dice, step),
                16 if dice.one_in(2) => {
                    pair.here.backend.flush().unwrap();
                }
                17 => pair.both(|hub| hub.tick(Duration::from_secs(step * 100))),
                _ => events += take(&mut pair, stream, &mut clients, &mut ended),
            }
        }
        let current = pair.here.twin.revision;
        pair.both(|hub| hub.skip_to(current));
        for stream in streams {
            while pair.hubs[0].has_more(stream) {
                events += take(&mut pair, stream, &mut clients, &mut ended);
            }
        }
        for client in clients.values_mut() {
            client.reach(current, &pair.here.twin, 0);
        }
        installs += pair.installs;
    }
    assert!(events > 4_000, "only {events} events were sent");
    assert!(installs > 150, "only {installs} snapshots were installed");
    assert!(ended > 30, "only {ended} watchers were ended by compaction");
}

/// Pulls one response, and has the clients look at it; says how many events it had.
fn take(
    pair: &mut Pair,
    stream: StreamId,
    clients: &mut BTreeMap<(StreamId, i64), Client>,
    ended: &mut usize,
) -> usize {
    let Some(frame) = pair.pull(stream) else { return 0 };
    let response = frame.to_message();
    let truth = &pair.here.twin;
    if response.watch_id < 0 {
        for (_, client) in clients.iter_mut().filter(|((of, _), _)| *of == stream) {
            client.take(&response, truth);
        }
    } else {
        let key = (stream, response.watch_id);
        clients.get_mut(&key).unwrap().take(&response, truth);
        if response.canceled {
            clients.remove(&key);
            *ended += 1;
        }
    }
    frame.events()
}

#[test]
fn what_was_before_the_first_revision_is_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut pair = State::new(folder.path().join("db"));
    pair.commit(&[Change::Put("a".into(), "1".into())]);
    let key = Bytes::from_static(b"a");
    assert_eq!(pair.store.value_at(&key, 0), Ok(None), "0 is not the current revision here");
    assert_eq!(pair.store.value_at(&key, 1), Ok(None));
    assert_eq!(pair.store.value_at(&key, 2).unwrap(), pair.twin.truth(&key, 2));
}
