//! Names and answers of what a member is asked to agree on.

use apply::{Rejection, Reply};

use crate::error::Error;

/// Names one proposal of this run of the process: 56 bits that start at random and count up, and
/// the shard that waits for the answer in the low 8 bits. The random start keeps an entry that an
/// earlier run left in the log from being taken for a new request's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RequestId(pub(crate) u64);

impl RequestId {
    /// The shard that asked.
    pub(crate) fn shard(self) -> usize {
        (self.0 & 0xff) as usize
    }
}

/// What a proposal came to.
#[derive(Debug)]
pub(crate) enum Answer {
    /// It was applied; every member came to the same outcome.
    Applied(Result<Reply, Rejection>),
    /// It never entered the log, or this member cannot say.
    Failed(Error),
}
