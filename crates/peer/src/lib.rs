//! etcd's peer protocol, as etcd 3.5 to 3.7 speak it over HTTP/1.1.
//!
//! # The problem
//!
//! Members send each other messages, most of them small and many of them appends, now and then a whole
//! database; and some members are slow, dead, of another version, of another cluster, or were removed.
//! None of that may delay what is said to the others. Raft does not mind that a message is lost, as long
//! as it is told; it does mind memory that grows, and every system call that a message costs.
//!
//! # The idea
//!
//! All peers are served by one thread, so that a batch costs one wake-up, however many peers it is for.
//! A member *listens* by dialling: it asks a peer for a stream, and the answer's body never ends. So two
//! members have four streams, two in each direction:
//!
//! ```text
//!              GET /raft/stream/message/1          everything but appends and databases
//!   member 1  ----------------------------->  member 2
//!             <============================   200, and message after message
//!              GET /raft/stream/msgapp/1           appends, in few bytes
//!             <============================
//! ```
//!
//! | what | travels by |
//! |---|---|
//! | append | `msgappv2` stream, if the peer has asked for one |
//! | anything else, and appends without that stream | `message` stream |
//! | anything, without streams | `POST /raft`, one message each, four at a time |
//! | a database | `POST /raft/snapshot`, with the message in front |
//!
//! Every queue is bounded by count and bytes; what does not fit is lost, and the member is told
//! ([`Events::unreachable`]). What arrives in one read is one call of [`Events::receive`], and what waits
//! for a peer is one write.
//!
//! A stream that has nothing to say says so every few seconds; one that says nothing for three times as
//! long is given up. What is given up, or cannot be opened, is dialled again for ever. A dial that is
//! *refused*, by a host whose streams have all ended, shows that the process there is dead, and saves the
//! others an election timeout ([`Events::gone`]); a peer that is silent is not gone.
//!
//! # A batch on its way
//!
//! ```text
//!   any thread: send() -> queues of links, one ring of the bell
//!   thread "peers": dispatch -> wakes streams -> each encodes all it has into one piece -> writev
//! ```
//!
//! Called on the thread itself, as by [`Events::receive`], the bell costs no system call.
//!
//! # What is left out
//!
//! The two streams of before etcd 2.1. Limits on who may connect but those of TLS: without it, whoever
//! knows the cluster's id is believed.
//!
//! # The map
//!
//! | module | what it is |
//! |---|---|
//! | `codec` | `raft::Message` to `raftpb.Message` and back |
//! | `framing` | messages on a stream, both ways to write them |
//! | `budget` | a bound on what arrives |
//! | `channel` | a bounded queue between threads |
//! | `company` | commit indexes that wait for the next entries |
//! | `link` | one peer: its queues, addresses and figures |
//! | `hub` | all peers, and the way in from other threads |
//! | `reader`, `writer` | a stream from and to a peer |
//! | `pipeline` | one message a request |
//! | `snapshot` | databases, both ways |
//! | `probe` | round-trip times and clocks |
//! | `serve` | the peer port |
//! | `connect`, [`client`] | connections, and small questions to a peer |
//! | `identity`, `verdict` | headers and answers |

mod budget;
mod channel;
pub mod client;
mod clock;
mod codec;
mod company;
mod connect;
mod events;
mod framing;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod hub;
mod identity;
mod link;
mod pipeline;
mod probe;
mod reader;
mod serve;
mod settings;
mod snapshot;
mod verdict;
mod writer;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use parking_lot::Mutex;
use raft::Message;
use tokio::runtime;
use tokio::sync::{mpsc, oneshot};

use crate::hub::Hub;

pub use events::{Events, Measured, Receipt};
pub use settings::Settings;

/// A request to the peer port that is not raft's, and where its answer goes.
pub type Other = (Request<Bytes>, oneshot::Sender<Response<Bytes>>);

/// All other members, as this one reaches them. A handle: clones are the same. When the last is
/// dropped, everything stops.
#[derive(Clone)]
pub struct Peers(Arc<Thread>);

struct Thread {
    hub: Arc<Hub>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What is known about one peer. Counters count from the start of the process.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PeerStatus {
    /// Which.
    pub id: u64,
    /// Whether it is known to be of the cluster.
    pub is_member: bool,
    /// Since when it can be reached without a break; `None` if it cannot.
    pub active_since: Option<Instant>,
    /// Streams on which it listens to us, two at most.
    pub listening: usize,
    /// How often it has become unreachable.
    pub disconnects: u64,
    /// Bytes of messages and databases sent to it.
    pub sent_bytes: u64,
    /// Bytes of messages and databases it has sent.
    pub received_bytes: u64,
    /// Messages that could not be sent.
    pub sent_failures: u64,
    /// Messages that came and could not be used.
    pub received_failures: u64,
    /// Databases being sent to it.
    pub snapshots_sending: u64,
    /// Databases it has taken.
    pub snapshots_sent: u64,
    /// Databases that did not arrive there.
    pub snapshot_send_failures: u64,
    /// Databases it is sending.
    pub snapshots_receiving: u64,
    /// Databases it has sent.
    pub snapshots_received: u64,
    /// Databases of which only a part arrived here.
    pub snapshot_receive_failures: u64,
    /// The smoothed round-trip time, once it is known.
    pub round_trip: Option<Duration>,
    /// How far its clock is from ours, in either direction, once it is known.
    pub clock_difference: Option<Duration>,
}

impl Peers {
    /// Starts the thread "peers", on which all that follows happens. What earlier transfers have left
    /// in the snapshot directory is removed.
    pub fn start(settings: Settings, events: Arc<dyn Events>) -> io::Result<Peers> {
        snapshot::remove_partial(&settings.snapshot_dir)?;
        let runtime =
            runtime::Builder::new_current_thread().enable_all().thread_name("peers-files").build()?;
        let hub = Arc::new(Hub::new(settings, events, runtime.handle().clone()));
        let on = Arc::clone(&hub);
        let run = move || {
            runtime.block_on(on.run());
            // Ends connections; a file that is being written is not waited for.
            runtime.shutdown_background();
        };
        let thread = thread::Builder::new().name("peers".to_owned()).spawn(run)?;
        Ok(Peers(Arc::new(Thread { hub, thread: Mutex::new(Some(thread)) })))
    }

    /// Answers those who connect: `/raft` and below here, everything else by way of `other`.
    pub fn serve(&self, listener: impl Into<tls::Listener>, other: mpsc::Sender<Other>) {
        let hub = &self.0.hub;
        hub.spawn(serve::accept(Arc::clone(hub), listener.into(), other));
    }

    /// Begins to speak with a member, as one of the cluster. Nothing if it is known as one already.
    pub fn add(&self, id: u64, urls: &[String]) {
        self.0.hub.add(id, urls, true);
    }

    /// Allows to send to a member that is not yet known to be one of the cluster.
    pub fn add_remote(&self, id: u64, urls: &[String]) {
        self.0.hub.add(id, urls, false);
    }

    /// Says where a member is to be found from now on.
    pub fn update(&self, id: u64, urls: &[String]) {
        self.0.hub.update(id, urls);
    }

    /// Ends all talk with a member.
    pub fn remove(&self, id: u64) {
        self.0.hub.remove(id);
    }

    /// Ends all talk with all of them.
    pub fn remove_all(&self) {
        self.0.hub.remove_all();
    }

    /// Ends everything, and waits for the thread to end unless called on it.
    pub fn stop(&self) {
        self.0.hub.stop();
        let thread = self.0.thread.lock().take();
        if let Some(thread) = thread
            && thread.thread().id() != thread::current().id()
        {
            // A panic there has been told by itself.
            let _ = thread.join();
        }
    }

    /// Sends without waiting. What cannot be sent is lost and told by [`Events::unreachable`]; a
    /// message to someone unknown is lost silently.
    pub fn send(&self, messages: Vec<Message>) {
        self.0.hub.send(messages);
    }

    /// Sends a [`raft::Body::Snapshot`] with the database that lies at `file`, which is removed when
    /// it is over, however it ends. [`Events::snapshot_sent`] tells.
    pub fn send_snapshot(&self, message: Message, file: PathBuf) {
        let hub = &self.0.hub;
        hub.spawn(snapshot::send(Arc::clone(hub), message, file));
    }

    /// Since when a member can be reached without a break.
    pub fn active_since(&self, id: u64) -> Option<Instant> {
        self.0.hub.link(id)?.active_since()
    }

    /// What is known about each peer, by id.
    pub fn status(&self) -> Vec<PeerStatus> {
        self.0.hub.links().iter().map(|link| link.status()).collect()
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.hub.stop();
    }
}
