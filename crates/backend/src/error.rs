//! What can go wrong, and what it means for the member.

use std::fmt;
use std::io;

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
    /// A defragmentation or an install is already under way. The handle stays good.
    Busy,
    /// What an export was to be written to failed. The handle stays good.
    Sink(String),
    /// A snapshot's body is not what it should be, or cannot be read. Nothing was installed, and the
    /// handle stays good.
    Body(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NotOurs(what) => write!(f, "not a cairn store: {what}"),
            Error::InUse(what) => write!(f, "the store is in use by another process: {what}"),
            Error::Corrupt(what) => write!(f, "the store is corrupt: {what}"),
            Error::Storage(what) => write!(f, "the store cannot be read or written: {what}"),
            Error::Poisoned(what) => write!(f, "the store is closed after an earlier failure: {what}"),
            Error::Busy => write!(f, "the store is being defragmented already"),
            Error::Sink(what) => write!(f, "the snapshot cannot be written: {what}"),
            Error::Body(what) => write!(f, "the snapshot cannot be installed: {what}"),
        }
    }
}

impl std::error::Error for Error {}

/// Turns any of redb's errors into ours. A file that ends too early or makes no sense is damage;
/// everything else that the operating system says is a disk that failed.
pub(crate) fn failed(error: impl Into<redb::Error>) -> Error {
    let error = error.into();
    match &error {
        redb::Error::DatabaseAlreadyOpen => Error::InUse(error.to_string()),
        redb::Error::Corrupted(_) | redb::Error::UpgradeRequired(_) => Error::Corrupt(error.to_string()),
        redb::Error::Io(io)
            if matches!(io.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
        {
            Error::Corrupt(error.to_string())
        }
        _ => Error::Storage(error.to_string()),
    }
}

/// An error of the file system around the store.
pub(crate) fn io_failed(what: &str, path: &std::path::Path, error: &io::Error) -> Error {
    Error::Storage(format!("{what} {}: {error}", path.display()))
}
