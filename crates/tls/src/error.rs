//! What goes wrong before anybody has connected.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why there is no TLS.
#[derive(Debug)]
pub enum Error {
    /// The settings contradict each other; in etcd's words where it has some.
    Settings(String),
    /// A file cannot be read or written.
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file does not hold what it should.
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

impl Error {
    pub(crate) fn file(path: &Path, error: io::Error) -> Error {
        Error::File { path: path.to_owned(), error }
    }

    pub(crate) fn content(path: &Path, what: impl fmt::Display) -> Error {
        Error::Content { path: path.to_owned(), what: what.to_string() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Settings(words) => f.write_str(words),
            Error::File { path, error } => write!(f, "open {}: {error}", path.display()),
            Error::Content { path, what } => write!(f, "{}: {what}", path.display()),
        }
    }
}

impl std::error::Error for Error {}
