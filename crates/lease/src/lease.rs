//! The nouns: a lease as the log knows it, and as the primary watches it.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

/// The name of a lease, chosen by the client or by the server before the grant enters the log.
///
/// Negative ids are legal. Zero means "no lease" everywhere and is never granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

impl LeaseId {
    /// The absence of a lease, as a key without one carries it.
    pub const NONE: LeaseId = LeaseId(0);
}

impl fmt::Display for LeaseId {
    /// The way etcd's tools print a lease: sixteen hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What has to survive a restart of one lease: the fields of etcd's stored lease record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The lease.
    pub id: LeaseId,
    /// The granted time to live in seconds.
    pub ttl: i64,
    /// Seconds left at the last checkpoint; zero if there was none since the last renewal.
    pub remaining_ttl: i64,
}

/// The answer to "how long does this lease still have?".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeToLive {
    /// Whole seconds left, rounded down; zero while an expired lease waits for its revocation.
    pub remaining: i64,
    /// The granted time to live in seconds.
    pub granted: i64,
}

/// Why a request about a lease is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// There is no lease with that id, or the id is zero.
    NotFound,
    /// The id is taken.
    Exists,
    /// The wanted time to live is above [`crate::MAX_TTL`].
    TtlTooLarge,
    /// This member does not measure time now; ask the leader.
    NotPrimary,
    /// The time is up and the revocation is on its way through the log. The asker must wait until
    /// the lease is gone, or until this member is not the primary any more, and only then be told.
    Expired,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Error::NotFound => "lease not found",
            Error::Exists => "lease already exists",
            Error::TtlTooLarge => "too large lease TTL",
            Error::NotPrimary => "not a primary lessor",
            Error::Expired => "lease has expired and waits for its revocation",
        })
    }
}

impl std::error::Error for Error {}

/// One lease.
#[derive(Debug)]
pub(crate) struct Lease {
    /// Granted seconds, never below the minimum.
    pub(crate) ttl: i64,
    /// Seconds left at the last checkpoint, or zero.
    pub(crate) checkpoint: i64,
    /// When it runs out. Means something only while this member is the primary.
    pub(crate) deadline: Duration,
    /// Tells this lease from an earlier one of the same id whose slots are still queued.
    pub(crate) generation: u64,
    /// Checkpoints that were handed out by this primary and have not been applied yet.
    pub(crate) checkpoints_sent: u32,
    /// Wishes to have a checkpoint forgotten that have not been applied yet.
    pub(crate) clearings_sent: u32,
    /// Whether the checkpoint queue holds a slot for it.
    pub(crate) checkpoint_queued: bool,
    /// The attached keys, in order: they are deleted in it, and listed a page at a time.
    pub(crate) keys: BTreeSet<Box<[u8]>>,
}

impl Lease {
    /// Seconds to give it when a primary starts measuring: what is left by the last checkpoint,
    /// else all of it.
    pub(crate) fn seconds(&self) -> i64 {
        // Planted: L5, a leader change gives every lease its full time again.
        if self.checkpoint > 0 && !planted::is("drop-checkpoint") { self.checkpoint } else { self.ttl }
    }

    /// [`Lease::seconds`] as a span of time; nothing for a lease that was stored with a bad value.
    pub(crate) fn span(&self) -> Duration {
        Duration::from_secs(u64::try_from(self.seconds()).unwrap_or(0))
    }
}
