//! What a member is told by its peers.

use std::path::PathBuf;
use std::time::Duration;

use raft::Message;
use tokio::sync::oneshot;

/// How the sender of a database is told what has become of it here. Dropped without a word, it says that
/// the database was not taken.
#[derive(Debug)]
pub struct Receipt(oneshot::Sender<Result<(), String>>);

impl Receipt {
    pub(crate) fn new() -> (Self, oneshot::Receiver<Result<(), String>>) {
        let (sender, receiver) = oneshot::channel();
        (Self(sender), receiver)
    }

    /// Raft has it.
    pub fn taken(self) {
        // The sender may have given up.
        let _ = self.0.send(Ok(()));
    }

    /// It is of no use; why.
    pub fn refused(self, why: impl Into<String>) {
        let _ = self.0.send(Err(why.into()));
    }
}

/// The member, as its peers see it. Everything is called on the thread "peers" and must not block:
/// while it runs, nothing is read from and nothing is written to any peer.
pub trait Events: Send + Sync + 'static {
    /// All messages that had arrived on a connection, in order; the callee takes them out, what it
    /// leaves is dropped. Never a [`raft::Body::Snapshot`].
    fn receive(&self, messages: &mut Vec<Message>);

    /// A [`raft::Body::Snapshot`] whose database lies whole and synced at `file`, that is
    /// `snapshot_dir/{index:016x}.snap.db`. The file is the callee's from now on. The sender waits for
    /// the receipt, and goes on from there: it must not be given before raft has the message, or what is
    /// sent next finds a log that has never heard of it, and another database is sent.
    fn receive_snapshot(&self, message: Message, file: PathBuf, receipt: Receipt);

    /// Whether this member was part of the cluster and is so no more.
    fn is_removed(&self, id: u64) -> bool;

    /// Something sent to this member has been lost.
    fn unreachable(&self, id: u64);

    /// The process of this member has ended: its streams are closed, and whoever dials it is refused
    /// at once. Said again every now and then, while that lasts. A member that does not answer is not
    /// gone.
    fn gone(&self, id: u64);

    /// Whether the database given to [`crate::Peers::send_snapshot`] has arrived.
    fn snapshot_sent(&self, to: u64, arrived: bool);

    /// A peer says that this member has been removed from the cluster.
    fn removed_here(&self);

    /// The thread cannot go on as it should: a panic, most likely in one of these very calls. The member
    /// should stop.
    fn failed(&self, cause: &str) {
        tracing::error!(cause, "the peers thread failed");
    }

    /// Something was measured.
    fn measured(&self, id: u64, what: Measured) {
        let _ = (id, what);
    }
}

/// What is measured as it happens; all else is in [`crate::PeerStatus`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measured {
    /// The smoothed time of a question and its answer, every now and then.
    RoundTrip(Duration),
    /// A database was sent in this time.
    SnapshotSent(Duration),
    /// A database was received and saved.
    SnapshotReceived {
        /// From the first byte until it was durable under its name.
        took: Duration,
        /// How much of that was syncs.
        syncing: Duration,
    },
}
