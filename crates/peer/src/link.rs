//! One peer: where it is, what waits for it, and what is known about it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use raft::{Body, Message};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::PeerStatus;
use crate::channel::{Channel, PIPELINE, Push, STREAM};
use crate::company::{Company, Now};
use crate::connect::Address;
use crate::framing::Kind;

pub(crate) struct Link {
    pub(crate) id: u64,
    /// Whether it is known to be of the cluster. Others are only sent to, one message a request.
    pub(crate) is_member: bool,
    pub(crate) message: Channel,
    pub(crate) append: Channel,
    pub(crate) pipeline: Channel,
    pub(crate) counters: Counters,
    /// Rung when the peer has shown itself: it is worth dialling.
    pub(crate) poke: Notify,
    places: Mutex<Places>,
    life: Mutex<Life>,
    company: Mutex<Company>,
    /// Something has been put into a channel, and nobody woken.
    dirty: AtomicBool,
    /// Something has been lost, and nobody told.
    lost: AtomicBool,
    tasks: Mutex<Vec<AbortHandle>>,
}

/// Where a peer may be found, and which of it is tried.
struct Places {
    addresses: Vec<Address>,
    at: usize,
}

#[derive(Default)]
struct Life {
    /// Streams that we read from.
    reading: usize,
    /// Since when there is one.
    since: Option<Instant>,
    disconnects: u64,
    /// Whether there has been any stream, either way.
    was_seen: bool,
    /// Addresses that have refused us since there was no stream any more.
    refusing: BTreeSet<Address>,
    round_trip: Option<Duration>,
    clock_difference: Option<Duration>,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) sent_bytes: AtomicU64,
    pub(crate) received_bytes: AtomicU64,
    pub(crate) sent_failures: AtomicU64,
    pub(crate) received_failures: AtomicU64,
    pub(crate) snapshots_sending: AtomicU64,
    pub(crate) snapshots_sent: AtomicU64,
    pub(crate) snapshot_send_failures: AtomicU64,
    pub(crate) snapshots_receiving: AtomicU64,
    pub(crate) snapshots_received: AtomicU64,
    pub(crate) snapshot_receive_failures: AtomicU64,
}

/// What became of a message that is to be sent, and of one that had waited for it.
#[derive(Clone, Copy, Default)]
pub(crate) struct Posted {
    /// Something is in a queue: [`Link::wake`] is to be called.
    pub(crate) queued: bool,
    /// Something is lost.
    pub(crate) lost: bool,
    /// Something waits: [`Link::release`] is to be called.
    pub(crate) waits: bool,
}

/// Adds to a counter.
pub(crate) fn count(counter: &AtomicU64, by: usize) {
    counter.fetch_add(by as u64, Ordering::Relaxed);
}

/// One of several things under way, for as long as it lives.
pub(crate) struct UnderWay<'a>(&'a AtomicU64);

impl<'a> UnderWay<'a> {
    pub(crate) fn new(gauge: &'a AtomicU64) -> UnderWay<'a> {
        gauge.fetch_add(1, Ordering::Relaxed);
        UnderWay(gauge)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Link {
    pub(crate) fn new(id: u64, is_member: bool, addresses: Vec<Address>) -> Link {
        Link {
            id,
            is_member,
            message: Channel::new(STREAM),
            append: Channel::new(STREAM),
            pipeline: Channel::new(PIPELINE),
            counters: Counters::default(),
            poke: Notify::new(),
            places: Mutex::new(Places { addresses, at: 0 }),
            life: Mutex::default(),
            company: Mutex::default(),
            dirty: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            tasks: Mutex::default(),
        }
    }

    pub(crate) fn channel(&self, kind: Kind) -> &Channel {
        match kind {
            Kind::Message => &self.message,
            Kind::Append => &self.append,
        }
    }

    // ------------------------------------------------------------ sending

    /// Takes a message that is to be sent; it may have to wait for a moment.
    pub(crate) fn post(&self, message: Message) -> Posted {
        // In order, so until it is in its queue.
        let mut company = self.company.lock();
        let Now(first, second) = match self.append.is_attached() {
            true => company.admit(message, Instant::now()),
            false => Now(None, Some(message)),
        };
        let mut posted = Posted { waits: company.waits(), ..Posted::default() };
        for message in [first, second].into_iter().flatten() {
            match self.queue(message) {
                true => posted.queued = true,
                false => posted.lost = true,
            }
        }
        posted
    }

    /// Queues what has waited for long enough; whether something waits still.
    pub(crate) fn release(&self, now: Instant) -> bool {
        let mut company = self.company.lock();
        if let Some(message) = company.release(now) {
            self.queue(message);
        }
        company.waits()
    }

    /// The peer has proposed something, and somebody waits there.
    pub(crate) fn proposes(&self) {
        self.company.lock().proposes();
    }

    /// Queues a message by the best way there is: appends on their own stream, everything on the
    /// other, one message a request without streams. False if it is lost.
    fn queue(&self, message: Message) -> bool {
        let ways = [&self.append, &self.message, &self.pipeline];
        let ways = if is_append(&message) { &ways[..] } else { &ways[1..] };
        let mut message = message;
        for channel in ways {
            match channel.push(message) {
                Push::Taken => {
                    self.dirty.store(true, Ordering::Release);
                    return true;
                }
                Push::Full => break,
                Push::Detached(back) => message = back,
            }
        }
        self.lose();
        false
    }

    /// Something sent, or to be sent, has been lost.
    pub(crate) fn lose(&self) {
        count(&self.counters.sent_failures, 1);
        self.lost.store(true, Ordering::Release);
    }

    /// Wakes who has to send.
    pub(crate) fn wake(&self) {
        if self.dirty.swap(false, Ordering::AcqRel) {
            self.append.wake();
            self.message.wake();
            self.pipeline.wake();
        }
    }

    /// Whether something has been lost since the last call.
    pub(crate) fn has_lost(&self) -> bool {
        self.lost.swap(false, Ordering::AcqRel)
    }

    /// Ties a task's life to this link's.
    pub(crate) fn own(&self, task: AbortHandle) {
        self.tasks.lock().push(task);
    }

    /// Ends everything.
    pub(crate) fn close(&self) {
        self.append.close();
        self.message.close();
        self.pipeline.close();
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
    }

    // ------------------------------------------------------------ places

    /// The address to try now.
    pub(crate) fn address(&self) -> Option<Address> {
        let places = self.places.lock();
        places.addresses.get(places.at).cloned()
    }

    /// This one did not work: the next is tried, unless somebody has moved on already.
    pub(crate) fn failed_at(&self, address: &Address) {
        let mut places = self.places.lock();
        if places.addresses.get(places.at) == Some(address) {
            places.at = (places.at + 1) % places.addresses.len();
        }
    }

    /// It is to be found elsewhere.
    pub(crate) fn move_to(&self, addresses: Vec<Address>) {
        *self.places.lock() = Places { addresses, at: 0 };
        self.life.lock().refusing.clear();
        self.poke.notify_waiters();
    }

    // ------------------------------------------------------------ life

    /// A stream has come about; `reading`: from there to here.
    pub(crate) fn opened(&self, reading: bool) {
        let mut life = self.life.lock();
        life.was_seen = true;
        life.refusing.clear();
        if reading {
            life.reading += 1;
            if life.since.is_none() {
                life.since = Some(Instant::now());
                tracing::info!("peer-id" = format!("{:x}", self.id), "peer became active");
            }
        } else {
            drop(life);
            self.poke.notify_waiters();
        }
    }

    /// A stream that we read from has ended.
    pub(crate) fn closed(&self, why: &str) {
        let mut life = self.life.lock();
        life.reading = life.reading.saturating_sub(1);
        if life.reading == 0 && life.since.take().is_some() {
            life.disconnects += 1;
            tracing::warn!(
                "peer-id" = format!("{:x}", self.id),
                error = why,
                "peer became inactive (message send to peer failed)"
            );
        }
    }

    /// A dial was refused at once. True if that means that the peer's process has ended: it was there,
    /// no stream is left, and nobody listens at any of its addresses.
    pub(crate) fn refused_at(&self, address: &Address) -> bool {
        if self.append.is_attached() || self.message.is_attached() {
            return false;
        }
        let addresses = self.places.lock().addresses.clone();
        let mut life = self.life.lock();
        if life.reading > 0 || !life.was_seen {
            return false;
        }
        life.refusing.insert(address.clone());
        addresses.iter().all(|address| life.refusing.contains(address))
    }

    /// A dial failed in a way that says nothing about the process.
    pub(crate) fn unanswered(&self) {
        self.life.lock().refusing.clear();
    }

    pub(crate) fn active_since(&self) -> Option<Instant> {
        self.life.lock().since
    }

    pub(crate) fn measured(&self, round_trip: Duration, clock_difference: Duration) {
        let mut life = self.life.lock();
        life.round_trip = Some(round_trip);
        life.clock_difference = Some(clock_difference);
    }

    pub(crate) fn round_trip(&self) -> Option<Duration> {
        self.life.lock().round_trip
    }

    pub(crate) fn status(&self) -> PeerStatus {
        let listening = [&self.append, &self.message].into_iter().filter(|channel| channel.is_attached());
        let listening = listening.count();
        let life = self.life.lock();
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PeerStatus {
            id: self.id,
            is_member: self.is_member,
            active_since: life.since,
            listening,
            disconnects: life.disconnects,
            sent_bytes: get(&self.counters.sent_bytes),
            received_bytes: get(&self.counters.received_bytes),
            sent_failures: get(&self.counters.sent_failures),
            received_failures: get(&self.counters.received_failures),
            snapshots_sending: get(&self.counters.snapshots_sending),
            snapshots_sent: get(&self.counters.snapshots_sent),
            snapshot_send_failures: get(&self.counters.snapshot_send_failures),
            snapshots_receiving: get(&self.counters.snapshots_receiving),
            snapshots_received: get(&self.counters.snapshots_received),
            snapshot_receive_failures: get(&self.counters.snapshot_receive_failures),
            round_trip: life.round_trip,
            clock_difference: life.clock_difference,
        }
    }
}

fn is_append(message: &Message) -> bool {
    matches!(message.body, Body::Append { .. })
}
