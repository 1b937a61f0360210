//! Thousands of random lives of a hub, watched by a client that knows all of history.
//!
//! The client holds every response against etcd's guarantees: per watcher the revisions only grow
//! (ordered, unique), a response ends where a revision ends (atomic), nothing between two responses was left
//! out (complete), nothing after a progress response is at or below its revision (bookmarkable), and a
//! watcher that could not be served is told so (reliable). In the end everything must have arrived.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use api::etcdserverpb::WatchResponse;
use api::key_range::KeyRange;
use api::mvccpb;
use bytes::Bytes;
use common::{Change, Dice, Memory};
use prost::Message;
use watch::{Event, Filters, Hub, Options, StreamId, WatchRequest};

/// What the client knows of one of its watchers.
#[derive(Debug)]
struct Client {
    request: WatchRequest,
    /// It has everything below this.
    next: i64,
    /// Parts of a response that was split.
    parts: Vec<mvccpb::Event>,
}

/// What the client knows of one of its streams.
struct Peer {
    id: StreamId,
    watchers: BTreeMap<i64, Client>,
    /// Watchers that compaction ended and the client has not canceled yet.
    ended: Vec<i64>,
    /// Answers that must come, in this order.
    expected: VecDeque<Expected>,
    /// For each unanswered progress request, the revision that the answer must reach.
    progress: VecDeque<i64>,
    /// There was a time without watchers, and requests that waited then need not be answered.
    excused: bool,
    /// A canceled watcher of which one response had been sent in part.
    torn: Option<i64>,
}

enum Expected {
    Created(WatchRequest, i64),
    Refused(&'static str),
    Canceled(i64),
}

struct Life {
    dice: Dice,
    store: Memory,
    hub: Hub,
    peers: Vec<Peer>,
    now: Duration,
    options: Options,
    log: Vec<Bytes>,
    tally: BTreeMap<&'static str, u64>,
}

impl Life {
    fn new(seed: u64) -> Life {
        let mut dice = Dice(seed);
        let options = Options {
            stream_bytes: 300 + dice.roll(6_000) as usize,
            stream_entries: 1 + dice.roll(40) as usize,
            hub_bytes: 600 + dice.roll(20_000) as usize,
            spared_bytes: 1 + dice.roll(400) as usize,
            response_bytes: 60 + dice.roll(1_000) as usize,
            response_events: 1 + dice.roll(12) as usize,
            fragment_bytes: 60 + dice.roll(300) as usize,
            step_rows: 1 + dice.roll(12) as usize,
            step_bytes: 40 + dice.roll(600) as usize,
            frames_per_step: 1 + dice.roll(10) as usize,
            seed,
            ..Options::default()
        };
        let mut life = Life {
            dice,
            store: Memory::default(),
            hub: Hub::with_options(1, options.clone()),
            peers: Vec::new(),
            now: Duration::ZERO,
            options,
            log: Vec::new(),
            tally: BTreeMap::new(),
        };
        (0..1 + life.dice.roll(3)).for_each(|_| life.open());
        life
    }

    fn open(&mut self) {
        let id = self.hub.open_stream();
        let (watchers, ended) = (BTreeMap::new(), Vec::new());
        let (expected, progress) = (VecDeque::new(), VecDeque::new());
        self.peers.push(Peer { id, watchers, ended, expected, progress, excused: false, torn: None });
    }

    fn act(&mut self) {
        let peer = self.dice.roll(self.peers.len() as u64) as usize;
        match self.dice.roll(100) {
            0..35 => self.commit(),
            35..50 => self.publish(),
            50..52 => self.hub.skip_to(self.store.revision - self.dice.roll(2) as i64),
            52..66 => self.create(peer),
            66..69 => self.cancel(peer),
            69..74 => self.ask_progress(peer),
            74..92 => (0..self.dice.roll(6)).for_each(|_| self.pull(peer)),
            92..95 => self.compact(),
            95..98 => {
                self.now += Duration::from_secs(self.dice.roll(900));
                self.hub.tick(self.now);
            }
            98 => {
                self.hub.close_stream(self.peers.remove(peer).id);
                self.open();
            }
            _ => (0..self.dice.roll(60)).for_each(|_| self.commit()),
        }
    }

    fn key(&mut self) -> String {
        ["a", "b", "ba", "c", "d"][self.dice.roll(5) as usize].into()
    }

    fn commit(&mut self) {
        let mut changes: Vec<Change> = Vec::new();
        for _ in 0..1 + self.dice.roll(3) {
            let key = self.key();
            let known =
                |change: &Change| matches!(change, Change::Put(k, _) | Change::Delete(k) if *k == key);
            if changes.iter().any(known) {
                continue;
            }
            changes.push(if self.dice.one_in(4) {
                Change::Delete(key)
            } else {
                Change::Put(key, "v".repeat(self.dice.roll(60) as usize))
            });
        }
        changes.push(Change::Put("always".into(), String::new()));
        self.store.commit(&changes);
    }

    /// Some or all of what the store has and the hub does not; sometimes with what it knows already.
    fn publish(&mut self) {
        let news = self.store.revision - self.hub.revision();
        if news == 0 {
            return;
        }
        let last =
            self.store.revision - if self.dice.one_in(3) { self.dice.roll(news as u64) as i64 } else { 0 };
        let again = if self.dice.one_in(5) { self.dice.roll(4) as i64 } else { 0 };
        let first = (self.hub.revision() + 1 - again).max(2);
        self.hub.publish(&Arc::new(self.store.batch(first, last)));
    }

    fn create(&mut self, peer: usize) {
        let (start, end) = (Bytes::from(self.key()), Bytes::from(self.key()));
        let range = match self.dice.roll(6) {
            0 => KeyRange::From(start),
            1..3 => KeyRange::range(start, end),
            _ => KeyRange::Key(start),
        };
        let current = self.store.revision;
        let start_revision = match self.dice.roll(10) {
            0..4 => 0,
            4..8 => 1 + self.dice.roll(current as u64) as i64,
            8 => current + 1 + self.dice.roll(12) as i64,
            _ => -1,
        };
        let mut flag = |sides| self.dice.one_in(sides);
        let filters = Filters { no_put: flag(8), no_delete: flag(8) };
        let (prev_kv, progress_notify, fragment) = (flag(3), flag(2), flag(2));
        let watch_id = if flag(3) { self.dice.roll(8) as i64 - 2 } else { 0 };
        // A watcher under the id -1 makes notifications look like answers for the whole stream.
        let progress_notify = progress_notify && watch_id != -1;
        let request =
            WatchRequest { range, start_revision, filters, prev_kv, progress_notify, fragment, watch_id };
        // While an answer is out the client cannot know which ids are taken.
        if watch_id != 0 && !self.peers[peer].expected.is_empty() {
            return;
        }
        let taken = |peer: &Peer| peer.watchers.contains_key(&watch_id) || peer.ended.contains(&watch_id);
        let peer = &mut self.peers[peer];
        self.hub.create(peer.id, request.clone(), current);
        peer.expected.push_back(if start_revision < 0 {
            Expected::Refused("etcdserver: mvcc: required revision has been compacted")
        } else if request.range.is_empty() {
            Expected::Refused("mvcc: watcher range is empty")
        } else if watch_id != 0 && taken(peer) {
            Expected::Refused("mvcc: duplicate watch ID provided on the WatchStream")
        } else {
            Expected::Created(request, watch_id)
        });
    }

    fn cancel(&mut self, peer: usize) {
        let peer = &mut self.peers[peer];
        if !peer.expected.is_empty() {
            return;
        }
        let ids: Vec<i64> = peer.watchers.keys().chain(&peer.ended).copied().collect();
        let Some(&id) = ids.get(self.dice.roll(ids.len() as u64 + 1) as usize) else { return };
        self.hub.cancel(peer.id, id, self.store.revision);
        if peer.watchers.remove(&id).is_some_and(|client| !client.parts.is_empty()) {
            peer.torn = Some(id);
        }
        peer.ended.retain(|&ended| ended != id);
        peer.excused |= peer.watchers.is_empty();
        peer.expected.push_back(Expected::Canceled(id));
    }

    fn ask_progress(&mut self, peer: usize) {
        let peer = &mut self.peers[peer];
        self.hub.request_progress(peer.id, self.store.revision);
        let created = |expected: &Expected| matches!(expected, Expected::Created(..));
        if peer.watchers.is_empty() && !peer.expected.iter().any(created) {
            return;
        }
        peer.progress.push_back(self.store.revision);
    }

    fn compact(&mut self) {
        let room = (self.store.revision - self.store.compact) as u64;
        self.store.compact(self.store.compact + self.dice.roll(room + 1) as i64);
    }

    fn pull(&mut self, peer: usize) {
        self.store.most_rows.set(0);
        let frame = self.hub.next(self.peers[peer].id, &self.store).unwrap();
        // A revision has four rows at most, and the first steps are taken before that is known.
        let bound = 4 * self.options.step_rows.max(1);
        assert!(self.store.most_rows.get() <= bound, "{} rows in a step", self.store.most_rows.get());
        let Some(frame) = frame else { return };
        let bytes = frame.to_bytes();
        assert_eq!(bytes.len(), frame.encoded_len());
        let response = WatchResponse::decode(bytes.clone()).unwrap();
        assert_eq!(response.encode_to_vec(), bytes, "prost would have encoded {response:?} otherwise");
        assert_eq!((frame.watch_id(), frame.events()), (response.watch_id, response.events.len()));
        self.log.push(bytes);
        let peer = &mut self.peers[peer];
        let kind = peer.receive(&response, &self.store, &self.options);
        *self.tally.entry(kind).or_default() += 1;
    }

    /// Publishes everything, pulls everything, and looks for what is missing.
    fn end(&mut self) {
        self.publish();
        let (current, revision) = (self.store.revision, self.hub.revision());
        if current > revision {
            self.hub.publish(&Arc::new(self.store.batch(revision + 1, current)));
        }
        for peer in 0..self.peers.len() {
            let mut pulls = 0;
            while self.hub.has_more(self.peers[peer].id) {
                self.pull(peer);
                pulls += 1;
                assert!(pulls < 100_000, "the stream never ends");
            }
            let peer = &self.peers[peer];
            assert!(peer.expected.is_empty(), "{} answers are missing", peer.expected.len());
            for (id, client) in &peer.watchers {
                assert!(client.parts.is_empty(), "the last fragment for {id} is missing");
                let missing = wanted(&self.store, &client.request, client.next, current);
                assert!(missing.is_empty(), "{id} has not been sent {missing:?}: {client:?}");
            }
            let future = peer.watchers.values().any(|client| client.request.start_revision > current);
            if !peer.watchers.is_empty() && !future && !peer.excused {
                assert!(peer.progress.is_empty(), "progress requests were lost: {:?}", peer.progress);
            }
        }
        let counts = self.hub.counts();
        assert_eq!((counts.pending_events, counts.pending_bytes, counts.slow_watchers), (0, 0, 0));
        assert_eq!(counts.watchers, self.peers.iter().map(|peer| peer.watchers.len()).sum());
        assert_eq!(counts.streams, self.peers.len());
    }
}

impl Peer {
    fn receive(&mut self, response: &WatchResponse, store: &Memory, options: &Options) -> &'static str {
        let id = response.watch_id;
        let revision = response.header.as_ref().unwrap().revision;
        if response.created {
            return self.created(response, revision);
        }
        if response.canceled && response.compact_revision != 0 {
            let client = self.watchers.remove(&id).unwrap();
            self.ended.push(id);
            self.excused |= self.watchers.is_empty();
            let compact = response.compact_revision;
            assert!(compact <= store.compact && revision == 0 && response.cancel_reason.is_empty());
            assert!(client.next < compact, "{id} needs {} and was ended at {compact}", client.next);
            return "compacted";
        }
        if response.canceled {
            let Some(Expected::Canceled(expected)) = self.expected.pop_front() else {
                panic!("{response:?}")
            };
            assert_eq!(id, expected);
            return "canceled";
        }
        if response.events.is_empty() {
            return self.progressed(id, revision, store);
        }
        if self.torn == Some(id) {
            self.torn = response.fragment.then_some(id);
            return "torn";
        }
        let client = self.watchers.get_mut(&id).unwrap_or_else(|| panic!("not ours: {response:?}"));
        client.events(response, revision, store, options)
    }

    fn created(&mut self, response: &WatchResponse, revision: i64) -> &'static str {
        match self.expected.pop_front() {
            Some(Expected::Refused(reason)) => {
                assert!(response.canceled && response.watch_id == -1, "{response:?}");
                assert_eq!(response.cancel_reason, reason);
                "refused"
            }
            Some(Expected::Created(request, id)) => {
                assert!(!response.canceled, "{response:?}");
                assert!(id == 0 || id == response.watch_id, "{response:?}");
                let next = if request.start_revision == 0 { revision + 1 } else { request.start_revision };
                let known = self.watchers.insert(response.watch_id, Client { request, next, parts: vec![] });
                assert!(known.is_none() && !self.ended.contains(&response.watch_id), "{response:?}");
                "created"
            }
            _ => panic!("nobody asked for {response:?}"),
        }
    }

    fn progressed(&mut self, id: i64, revision: i64, store: &Memory) -> &'static str {
        let of_one = self.watchers.get(&id).is_some_and(|client| client.request.progress_notify);
        if id == -1 {
            let floor = self.progress.pop_front().expect("someone asked");
            assert!(floor <= revision, "asked at {floor}, answered {revision}");
            self.watchers.values_mut().for_each(|client| client.bookmark(revision, store));
            return "progress";
        }
        assert!(of_one, "{id} did not ask for notifications");
        self.watchers.get_mut(&id).unwrap().bookmark(revision, store);
        "notified"
    }
}

impl Client {
    fn events(
        &mut self,
        response: &WatchResponse,
        revision: i64,
        store: &Memory,
        options: &Options,
    ) -> &'static str {
        if response.fragment || !self.parts.is_empty() {
            assert!(self.request.fragment, "nobody asked for fragments");
            let size = response.encoded_len();
            assert!(response.events.len() == 1 || size < options.fragment_bytes, "{size} bytes");
        } else if self.request.fragment && response.events.len() > 1 {
            assert!(response.encoded_len() < options.fragment_bytes, "this was to be split");
        }
        self.parts.extend_from_slice(&response.events);
        if response.fragment {
            return "fragment";
        }
        let events = std::mem::take(&mut self.parts);
        let last = events.last().unwrap().kv.as_ref().unwrap().mod_revision;
        assert!(last <= revision && revision <= store.revision, "{last} under a header of {revision}");
        let wanted = wanted(store, &self.request, self.next, last);
        assert_eq!(events.len(), wanted.len(), "from {} to {last}: {events:?}\n{wanted:?}", self.next);
        for (event, wanted) in events.iter().zip(wanted) {
            let kv = event.kv.as_ref().unwrap();
            assert_eq!(kv.encode_to_vec(), wanted.record);
            assert_eq!(event.r#type == mvccpb::event::EventType::Delete as i32, wanted.tombstone);
            let before = wanted.revision.main - 1;
            let truth = store.truth(&wanted.key, before);
            match &event.prev_kv {
                Some(prev) => assert_eq!(Some(prev.encode_to_vec()), truth.map(|record| record.to_vec())),
                None => assert!(!self.request.prev_kv || truth.is_none() || before < store.compact),
            }
            assert!(self.request.prev_kv || event.prev_kv.is_none());
        }
        self.next = last + 1;
        "events"
    }

    /// The client may resume from here, so nothing at or below `revision` may be missing, or come later.
    fn bookmark(&mut self, revision: i64, store: &Memory) {
        assert!(self.parts.is_empty(), "progress between fragments");
        assert!(self.request.start_revision <= revision, "progress {revision} before the start: {self:?}");
        let missing = wanted(store, &self.request, self.next, revision);
        assert!(missing.is_empty(), "progress {revision} overtook {missing:?}");
        self.next = self.next.max(revision + 1);
    }
}

/// All history, filtered.
fn wanted<'a>(store: &'a Memory, request: &WatchRequest, from: i64, to: i64) -> Vec<&'a Event> {
    let in_time = |event: &&Event| (from..=to).contains(&event.revision.main);
    let in_range = |event: &&Event| request.range.contains(&event.key);
    let kind = |event: &&Event| {
        let filters = request.filters;
        !(if event.tombstone { filters.no_delete } else { filters.no_put })
    };
    store.events.iter().filter(in_time).filter(in_range).filter(kind).collect()
}

fn live(seed: u64) -> Life {
    let mut life = Life::new(seed);
    (0..150).for_each(|_| life.act());
    life.end();
    life
}

#[test]
fn the_hub_tells_what_history_tells() {
    let (first, count) = match std::env::var("WATCH_SEED") {
        Ok(seed) => (seed.parse().unwrap(), 1),
        Err(_) => (0, 4_000),
    };
    let mut tally = BTreeMap::new();
    for seed in first..first + count {
        let told = std::panic::catch_unwind(|| live(seed).tally);
        let told = told.unwrap_or_else(|_| panic!("replay with WATCH_SEED={seed}"));
        told.into_iter().for_each(|(kind, times)| *tally.entry(kind).or_insert(0) += times);
    }
    println!("{tally:?}");
    let kinds = ["events", "fragment", "progress", "notified", "compacted", "canceled", "refused", "created"];
    for kind in kinds {
        assert!(count == 1 || tally.get(kind).is_some_and(|&times| times > 200), "too few {kind}: {tally:?}");
    }
}

#[test]
fn the_same_calls_give_the_same_bytes() {
    for seed in 0..200 {
        assert_eq!(live(seed).log, live(seed).log, "seed {seed}");
    }
}
