//! Why a tool could not do what it was asked to.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why not. Unless it says so, nothing has been changed.
#[derive(Debug)]
pub enum Error {
    /// The system refused a call: what it was, on which path, and the system's error.
    Io(&'static str, PathBuf, io::Error),
    /// The file is no bbolt database, or a damaged one.
    Database(bolt::Error),
    /// The file has no SHA-256 at its end.
    NoDigest,
    /// The SHA-256 at the end is not that of the bytes before it: what is there, and what should be.
    Digest([u8; bolt::digest::LENGTH], [u8; bolt::digest::LENGTH]),
    /// A row of the database that etcd cannot have written; what is wrong.
    Row(String),
    /// The place for the new data directory is taken.
    DataDir(PathBuf),
    /// The place for the new log is taken.
    WalDir(PathBuf),
    /// Another process is at it.
    InUse(PathBuf),
    /// The members cannot be those of one cluster; etcd's words.
    Members(String),
    /// The store could not be written or read.
    Backend(backend::Error),
    /// The history could not be read.
    Read(mvcc::ReadError),
    /// The state cannot be served.
    State(apply::Failure),
    /// The log could not be written.
    Wal(wal::WalError),
    /// The directory is etcd's, and Cairn does not change it.
    Foreign(PathBuf),
}

impl Error {
    /// For `map_err`.
    pub(crate) fn io<'a>(call: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Error + 'a {
        move |error| Error::Io(call, path.to_owned(), error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Io(call, path, error) => write!(f, "{call} {}: {}", path.display(), system_words(error)),
            Error::Database(error) => write!(f, "{error}"),
            Error::NoDigest => f.write_str("snapshot missing hash but --skip-hash-check=false"),
            Error::Digest(stored, found) => {
                write!(f, "expected sha256 {}, got {}", bytes(stored), bytes(found))
            }
            Error::Row(what) => f.write_str(what),
            Error::DataDir(path) => {
                write!(f, "data-dir {:?} not empty or could not be read", path.display().to_string())
            }
            Error::WalDir(path) => write!(f, "wal-dir {:?} exists", path.display().to_string()),
            Error::InUse(path) => write!(f, "{} is in use by another process", path.display()),
            Error::Members(words) => f.write_str(words),
            Error::Backend(error) => write!(f, "{error}"),
            Error::Read(error) => write!(f, "{error}"),
            Error::State(failure) => write!(f, "{failure}"),
            Error::Wal(error) => write!(f, "{error}"),
            Error::Foreign(path) => write!(
                f,
                "{} belongs to etcd, and Cairn does not change it; use etcdutl, or restore from it with \
                 --skip-hash-check",
                path.display()
            ),
        }
    }
}

impl std::error::Error for Error {}

/// As Go shows a list of bytes.
fn bytes(bytes: &[u8]) -> String {
    let numbers: Vec<String> = bytes.iter().map(u8::to_string).collect();
    format!("[{}]", numbers.join(" "))
}

/// The system's words for an error, as Go puts them: in lower case and without the number.
fn system_words(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}
