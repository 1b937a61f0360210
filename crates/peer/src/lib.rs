//! etcd's peer protocol: message and append streams, pipeline, snapshot transfer, probing.

pub mod client;
mod events;
mod settings;

use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use raft::Message;
use tokio::sync::{mpsc, oneshot};

pub use events::{Events, Measured};
pub use settings::Settings;

/// A request to the peer port that is not raft's, and where its answer goes.
pub type Other = (Request<Bytes>, oneshot::Sender<Response<Bytes>>);

/// All other members, as this one reaches them. A handle: clones are the same.
#[derive(Clone)]
pub struct Peers(Arc<Settings>);

/// What is known about one peer. Counters count from the start of the process.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PeerStatus {
    /// Which.
    pub id: u64,
    /// Since when it can be reached without a break; `None` if it cannot.
    pub active_since: Option<Instant>,
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
    /// Starts the thread "peers", on which all that follows happens.
    pub fn start(settings: Settings, events: Arc<dyn Events>) -> io::Result<Peers> {
        let _ = events;
        Ok(Peers(Arc::new(settings)))
    }

    /// Answers on a bound socket: `/raft` and below here, everything else by way of `other`.
    pub fn serve(&self, listener: TcpListener, other: mpsc::Sender<Other>) {
        let _ = (listener, other);
    }

    /// Begins to speak with a member, as one of the cluster. Nothing if it is known already.
    pub fn add(&self, id: u64, urls: &[String]) {
        let _ = (id, urls);
    }

    /// Allows to send to a member that is not yet known to be one of the cluster.
    pub fn add_remote(&self, id: u64, urls: &[String]) {
        let _ = (id, urls);
    }

    /// Says where a member is to be found from now on.
    pub fn update(&self, id: u64, urls: &[String]) {
        let _ = (id, urls);
    }

    /// Ends all talk with a member.
    pub fn remove(&self, id: u64) {
        let _ = id;
    }

    /// Ends all talk with all of them.
    pub fn remove_all(&self) {}

    /// Ends everything, and waits for the thread to end unless called on it.
    pub fn stop(&self) {}

    /// Sends without waiting. What cannot be sent is lost and told by [`Events::unreachable`]; a
    /// message to someone unknown is lost silently.
    pub fn send(&self, messages: Vec<Message>) {
        let _ = messages;
    }

    /// Sends a [`raft::Body::Snapshot`] with the database that lies at `file`, which is removed when
    /// it is over, however it ends. [`Events::snapshot_sent`] tells.
    pub fn send_snapshot(&self, message: Message, file: PathBuf) {
        let _ = (message, file);
    }

    /// Since when a member can be reached without a break.
    pub fn active_since(&self, id: u64) -> Option<Instant> {
        let _ = id;
        None
    }

    /// What is known about each peer, by id.
    pub fn status(&self) -> Vec<PeerStatus> {
        Vec::new()
    }
}
