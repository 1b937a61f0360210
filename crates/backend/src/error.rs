//! What can go wrong, and what it means for the member.

use std::fmt;

/// A failure of the store. None is a matter for a client: the member cannot go on with this handle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// What lies at the path was not written by this program. Nothing was changed.
    NotOurs(String),
    /// Another process has the store open.
    InUse(String),
    /// The store is ours and cannot be read.
    Corrupt(String),
    /// The disk refused a call.
    Storage(String),
    /// An earlier call failed, with this error: what is on disk is no longer known, so nothing
    /// more is read from or written to it through this handle.
    Poisoned(String),
    /// A defragmentation is already under way.
    Busy,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NotOurs(what) => write!(f, "not a cairn store: {what}"),
            Error::InUse(what) => write!(f, "the store is in use by another process: {what}"),
            Error::Corrupt(what) => write!(f, "the store is corrupt: {what}"),
            Error::Storage(what) => write!(f, "the store cannot be read or written: {what}"),
            Error::Poisoned(what) => write!(f, "the store failed earlier and is closed: {what}"),
            Error::Busy => write!(f, "the store is being defragmented already"),
        }
    }
}

impl std::error::Error for Error {}
