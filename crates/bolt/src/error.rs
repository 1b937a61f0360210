//! What can be wrong with a file, or with what is to be written to one.

use std::fmt;
use std::io;

/// Why a database file could not be read or written.
#[derive(Debug)]
pub enum Error {
    /// The file or the sink failed.
    Io(io::Error),
    /// Neither of the first two pages is a whole meta page of a bbolt database.
    NotADatabase(&'static str),
    /// A page breaks a rule of the format.
    Damaged {
        /// The page, counted from the start of the file.
        page: u64,
        /// The rule.
        what: &'static str,
    },
    /// The file has no bucket of this name.
    NoBucket(Vec<u8>),
    /// A bucket within a bucket: legal in bbolt, absent from etcd, not read here.
    NestedBucket {
        /// The outer bucket.
        bucket: Vec<u8>,
        /// The inner one's name.
        key: Vec<u8>,
    },
    /// The writer was given a bucket or key that does not lie behind the one before it.
    OutOfOrder {
        /// What came before.
        before: Vec<u8>,
        /// What was given.
        given: Vec<u8>,
    },
    /// The writer was given an empty bucket name or key.
    Empty,
    /// A key or value is longer than the format allows: its length and the limit, in bytes.
    TooLong(usize, usize),
    /// There is no SHA-256 behind the database.
    Digest(&'static str),
    /// The SHA-256 behind the database is not that of its bytes.
    Mismatch {
        /// What is there.
        stored: [u8; 32],
        /// What its bytes have.
        found: [u8; 32],
    },
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Error {
        Error::Io(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Io(error) => write!(f, "database file: {error}"),
            Error::NotADatabase(why) => write!(f, "not a bbolt database: {why}"),
            Error::Damaged { page, what } => write!(f, "damaged database: page {page}: {what}"),
            Error::NoBucket(name) => write!(f, "no bucket \"{}\"", name.escape_ascii()),
            Error::NestedBucket { bucket, key } => {
                let (bucket, key) = (bucket.escape_ascii(), key.escape_ascii());
                write!(f, "bucket \"{bucket}\" holds a bucket \"{key}\": nested buckets are not supported")
            }
            Error::OutOfOrder { before, given } => {
                let (before, given) = (before.escape_ascii(), given.escape_ascii());
                write!(f, "not in ascending order: \"{given}\" after \"{before}\"")
            }
            Error::Empty => write!(f, "an empty bucket name or key"),
            Error::TooLong(length, limit) => write!(f, "{length} bytes where at most {limit} are allowed"),
            Error::Mismatch { .. } => write!(f, "snapshot file: its SHA-256 does not match its bytes"),
            Error::Digest(why) => write!(f, "snapshot file: {why}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io(error) => Some(error),
            _ => None,
        }
    }
}
