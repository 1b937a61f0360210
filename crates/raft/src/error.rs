//! What a member refuses to start with.

use crate::config::Config;
use crate::membership::MembershipError;
use crate::types::{Entry, Index, NodeId, Term};
use std::fmt;

/// Why a member cannot start with what was found on its disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The configuration contradicts itself.
    Membership(MembershipError),
    /// A bound or a timer makes no sense.
    Config(&'static str),
    /// The entry at `index` is not the one that must follow.
    Gap {
        /// Where an entry was expected.
        index: Index,
        /// What was found there.
        found: Index,
    },
    /// Terms go down within the log.
    TermsFall {
        /// Where.
        index: Index,
    },
    /// The log ends before what is known to be committed or applied: it was lost or rolled back.
    LogTooShort {
        /// Where it ends.
        last: Index,
        /// What it should contain.
        needed: Index,
    },
    /// The machine is behind the beginning of the log.
    Missing {
        /// Where the log begins.
        begin: Index,
        /// What the machine has.
        applied: Index,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Membership(error) => write!(f, "unusable configuration: {error}"),
            Error::Config(what) => write!(f, "unusable settings: {what}"),
            Error::Gap { index, found } => {
                write!(f, "the log has entry {found} where {index} is expected")
            }
            Error::TermsFall { index } => write!(f, "terms go down at entry {index} of the log"),
            Error::LogTooShort { last, needed } => write!(
                f,
                "the log ends at entry {last}, but entry {needed} is known to be committed: the data of \
                 this member was lost or rolled back; remove the member and add it again"
            ),
            Error::Missing { begin, applied } => write!(
                f,
                "the log begins after entry {begin}, but only {applied} is applied: what lies between \
                 is missing"
            ),
        }
    }
}

impl std::error::Error for Error {}

impl From<MembershipError> for Error {
    fn from(error: MembershipError) -> Error {
        Error::Membership(error)
    }
}

pub(crate) fn check_config(config: &Config) -> Result<(), Error> {
    let wrong = |what| Err(Error::Config(what));
    match config {
        Config { id: NodeId(0), .. } => wrong("member id 0 is nobody"),
        Config { heartbeat_ticks: 0, .. } => wrong("a heartbeat needs at least one tick"),
        c if c.election_ticks <= c.heartbeat_ticks => {
            wrong("an election timeout must be longer than a heartbeat interval")
        }
        c if c.limits.window_messages == 0 || c.limits.window_bytes == 0 => {
            wrong("an empty window lets nothing through")
        }
        c if c.limits.applying_bytes == 0 => wrong("nothing could be applied"),
        _ => Ok(()),
    }
}

/// Where the log ends, if it is one.
pub(crate) fn check_log(entries: &[Entry], begin: Index, begin_term: Term) -> Result<(Index, Term), Error> {
    let (mut last, mut last_term) = (begin, begin_term);
    for entry in entries {
        if entry.index != last.next() {
            return Err(Error::Gap { index: last.next(), found: entry.index });
        }
        if entry.term < last_term {
            return Err(Error::TermsFall { index: entry.index });
        }
        (last, last_term) = (entry.index, entry.term);
    }
    Ok((last, last_term))
}
