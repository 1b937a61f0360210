//! The hub: streams come and go, watchers are created and canceled.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::arena::{Arena, Key};
use crate::frame::Identity;
use crate::mix::mix;
use crate::options::Options;
use crate::registry::{Registry, Seat};
use crate::request::WatchRequest;
use crate::stream::{Item, Stream};
use crate::watcher::{Place, Watcher};

/// The id in responses that are for no single watcher.
pub(crate) const NO_WATCHER: i64 = -1;

/// Names a stream of a hub until it is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub(crate) Key);

/// Numbers for metrics, as of now; [`Counts::sent_events`] since the hub was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Open streams.
    pub streams: usize,
    /// Watchers that have not been canceled.
    pub watchers: usize,
    /// Watchers that read history.
    pub slow_watchers: usize,
    /// Events that wait to be sent, for each watcher that they wait for.
    pub pending_events: usize,
    /// Bytes that those hold, each event once.
    pub pending_bytes: usize,
    /// Events sent, to each watcher.
    pub sent_events: u64,
}

/// All watchers of one runtime thread. See the crate's own page for what it promises.
///
/// What must hold, always:
/// * A watcher in sync has been handed, or did not want, every event up to and including `revision`.
/// * `synced` seats exactly the watchers in sync.
#[derive(Debug)]
pub struct Hub {
    pub(crate) options: Options,
    pub(crate) identity: Identity,
    /// The last revision that was published here.
    pub(crate) revision: i64,
    pub(crate) now: Duration,
    pub(crate) streams: Arena<Stream>,
    pub(crate) watchers: Arena<Watcher>,
    pub(crate) synced: Registry,
    /// How many revisions the next step of catching up reads.
    pub(crate) span: i64,
    /// Streams with progress requests that are not answered yet.
    pub(crate) owing: BTreeSet<Key>,
    /// Streams with watchers that want progress notifications, by when.
    pub(crate) deadlines: BTreeSet<(Duration, Key)>,
    pub(crate) woken: Vec<StreamId>,
    pub(crate) counts: Counts,
}

impl Hub {
    /// A hub that has been told everything up to `revision`, with the default bounds.
    pub fn new(revision: i64) -> Hub {
        Hub::with_options(revision, Options::default())
    }

    /// A hub that has been told everything up to `revision`.
    pub fn with_options(revision: i64, options: Options) -> Hub {
        Hub {
            span: i64::try_from(options.step_rows).unwrap_or(i64::MAX).max(1),
            options,
            identity: Identity::default(),
            revision,
            now: Duration::ZERO,
            streams: Arena::default(),
            watchers: Arena::default(),
            synced: Registry::default(),
            owing: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            woken: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// Sets who answers and in which term, for the headers of all responses pulled from now on.
    pub fn set_identity(&mut self, identity: Identity) {
        self.identity = identity;
    }

    /// The last revision that was published here.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Numbers for metrics.
    pub fn counts(&self) -> Counts {
        let (streams, watchers) = (self.streams.len(), self.watchers.len());
        let slow_watchers = watchers - self.synced.len();
        Counts { streams, watchers, slow_watchers, ..self.counts }
    }

    /// A new stream, without watchers.
    pub fn open_stream(&mut self) -> StreamId {
        let key = self.streams.insert(Stream::default());
        self.streams[key].deadline = self.now + self.interval(key);
        StreamId(key)
    }

    /// Ends a stream and all its watchers. Nothing of it stays; closing again does nothing.
    ///
    /// This is also what becomes of a stream whose client asked for a leader while there is none: that ends
    /// the call, and the call is the stream.
    pub fn close_stream(&mut self, stream: StreamId) {
        let Some(open) = self.streams.get(stream.0) else { return };
        let watchers: Vec<Key> = open.watchers.values().copied().flatten().collect();
        watchers.into_iter().for_each(|watcher| self.detach(watcher));
        self.owing.remove(&stream.0);
        self.streams.remove(stream.0);
    }

    /// Creates a watcher, or refuses to: either way one response with `created` goes into the line.
    ///
    /// `current_revision` is the store's at this moment. It may be ahead of what has been published here;
    /// "from now" means after it.
    pub fn create(&mut self, stream: StreamId, request: WatchRequest, current_revision: i64) {
        let Some(open) = self.streams.get_mut(stream.0) else { return };
        let current = current_revision.max(self.revision);
        let id = match choose_id(open, &request) {
            Ok(id) => id,
            Err(reason) => return self.refuse(stream, reason, current),
        };
        let start = if request.start_revision == 0 { current + 1 } else { request.start_revision };
        let floor = if request.start_revision == 0 { current } else { start.max(current) };
        if floor > self.revision {
            open.owed.add_floor(floor);
        }
        if request.progress_notify {
            open.notified += 1;
            if open.notified == 1 {
                self.watch_clock(stream.0);
            }
        }
        let watcher = self.watchers.insert(Watcher {
            stream: stream.0,
            id,
            request,
            min_revision: start,
            floor,
            place: Place::Doomed,
            queue: VecDeque::new(),
            idle: true,
        });
        self.streams[stream.0].watchers.insert(id, Some(watcher));
        if start > self.revision {
            self.seat_in_sync(watcher);
        } else {
            self.seat_behind(watcher, start);
        }
        self.push(stream.0, Item::Created { id, revision: current });
    }

    /// Answers a request to create a watcher with a refusal: for reasons that the hub does not know of, such
    /// as a missing permission.
    pub fn refuse(&mut self, stream: StreamId, reason: &str, current_revision: i64) {
        let revision = current_revision.max(self.revision);
        self.push(stream.0, Item::Refused { revision, reason: reason.into() });
    }

    /// Cancels a watcher. What it has not been sent is dropped; one response with `canceled` goes into the
    /// line. An unknown id gets no answer at all, as in etcd.
    pub fn cancel(&mut self, stream: StreamId, watch_id: i64, current_revision: i64) {
        let Some(open) = self.streams.get_mut(stream.0) else { return };
        let Some(watcher) = open.watchers.remove(&watch_id) else { return };
        if let Some(watcher) = watcher {
            self.detach(watcher);
        }
        let revision = current_revision.max(self.revision);
        self.push(stream.0, Item::Canceled { id: watch_id, revision });
        self.settle_progress(stream.0);
    }

    /// Whether so many control responses wait on the stream that its owner should read no further requests
    /// from the client until some are sent: this is what bounds a client that asks and never listens.
    pub fn is_backed_up(&self, stream: StreamId) -> bool {
        self.streams.get(stream.0).is_some_and(|open| open.controls >= self.options.control_backlog)
    }

    /// Moves the streams that have something to pull, and had nothing before, into `out`.
    ///
    /// Every call that can give a stream something to send is to be followed by this one. A stream is named
    /// once, and again only after [`Hub::next`] has emptied it.
    pub fn take_woken(&mut self, out: &mut Vec<StreamId>) {
        out.append(&mut self.woken);
    }

    /// Puts an item at the end of a stream's line.
    pub(crate) fn push(&mut self, stream: Key, item: Item) {
        let Some(open) = self.streams.get_mut(stream) else { return };
        open.controls += usize::from(item.is_control());
        open.line.push_back(item);
        self.announce(stream);
    }

    /// Tells the owner of a stream, once, that there is something to pull.
    pub(crate) fn announce(&mut self, stream: Key) {
        let open = &mut self.streams[stream];
        if !open.announced {
            open.announced = true;
            self.woken.push(StreamId(stream));
        }
    }

    /// Seats a watcher that has no seat among those in sync.
    pub(crate) fn seat_in_sync(&mut self, key: Key) {
        let watcher = &mut self.watchers[key];
        let seat = self.synced.add(&watcher.request.range, watcher.request.filters, key);
        watcher.place = Place::InSync(seat);
    }

    /// Seats a watcher that has no seat with those that read history from `position` on.
    pub(crate) fn seat_behind(&mut self, key: Key, position: i64) {
        let watcher = &mut self.watchers[key];
        watcher.min_revision = watcher.min_revision.max(position);
        let (stream, position) = (watcher.stream, watcher.min_revision);
        let cohort = self.streams[stream].behind.at(position);
        self.seat_in_cohort(stream, cohort, key);
        self.announce(stream);
    }

    /// Seats a watcher that has no seat in a cohort.
    pub(crate) fn seat_in_cohort(&mut self, stream: Key, cohort: Key, key: Key) {
        let watcher = &mut self.watchers[key];
        let members = &mut self.streams[stream].behind.cohorts[cohort].members;
        let seat = members.add(&watcher.request.range, watcher.request.filters, key);
        watcher.place = Place::Behind { cohort, seat };
    }

    /// Takes a watcher out of its seat.
    pub(crate) fn unseat(&mut self, key: Key) {
        let watcher = &mut self.watchers[key];
        let stream = watcher.stream;
        match std::mem::replace(&mut watcher.place, Place::Doomed) {
            Place::InSync(seat) => {
                if let Some(moved) = self.synced.remove(seat) {
                    self.watchers[moved].place = Place::InSync(seat);
                }
            }
            Place::Behind { cohort, seat } => self.leave_cohort(stream, cohort, seat),
            Place::Doomed => {}
        }
    }

    fn leave_cohort(&mut self, stream: Key, cohort: Key, seat: Seat) {
        let behind = &mut self.streams[stream].behind;
        let members = &mut behind.cohorts[cohort].members;
        if let Some(moved) = members.remove(seat) {
            self.watchers[moved].place = Place::Behind { cohort, seat };
        } else if members.is_empty() {
            behind.remove(cohort);
        }
    }

    /// Forgets a watcher and everything that waits for it. Its id is the caller's business.
    pub(crate) fn detach(&mut self, key: Key) {
        self.unseat(key);
        let Some(watcher) = self.watchers.remove(key) else { return };
        let stream = &mut self.streams[watcher.stream];
        for parcel in watcher.queue {
            self.counts.pending_events -= parcel.delivery.events.len();
            self.counts.pending_bytes -= stream.ledger.release(parcel);
        }
        stream.owed.remove_floor(watcher.floor);
        if watcher.request.progress_notify {
            stream.notified -= 1;
            if stream.notified == 0 {
                self.deadlines.remove(&(stream.deadline, watcher.stream));
            }
        }
    }

    /// The progress interval of a stream: the common one and the stream's own part of a tenth of it.
    pub(crate) fn interval(&self, stream: Key) -> Duration {
        let interval = self.options.progress_interval;
        let tenth = u64::try_from(interval.as_nanos() / 10).unwrap_or(u64::MAX).max(1);
        interval + Duration::from_nanos(mix(self.options.seed ^ mix(stream.number())) % tenth)
    }
}

/// The id of a new watcher, or why there is to be none. The order of the checks is etcd's.
fn choose_id(stream: &mut Stream, request: &WatchRequest) -> Result<i64, &'static str> {
    if request.start_revision < 0 {
        return Err("etcdserver: mvcc: required revision has been compacted");
    }
    if request.range.is_empty() {
        return Err("mvcc: watcher range is empty");
    }
    if request.watch_id != 0 {
        let taken = stream.watchers.contains_key(&request.watch_id);
        let duplicate = "mvcc: duplicate watch ID provided on the WatchStream";
        return if taken { Err(duplicate) } else { Ok(request.watch_id) };
    }
    while stream.watchers.contains_key(&stream.next_id) {
        stream.next_id += 1;
    }
    stream.next_id += 1;
    Ok(stream.next_id - 1)
}
