//! Why the log could not do what it was asked.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// A failure of the log. None of them is worth a retry: the member stops and says why.
#[derive(Debug)]
pub enum WalError {
    /// The disk refused a call. From here on the log is poisoned: what the disk holds is unknown.
    Io {
        /// What was being done, as a verb: "write", "sync", "rename" …
        doing: &'static str,
        /// The file or directory that it was done to.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// An earlier call failed; nothing is written after that. The text is the earlier failure.
    Poisoned(String),
    /// Another process has this log open.
    Locked(PathBuf),
    /// There is no log in this directory.
    Missing(PathBuf),
    /// `create` found a log in this directory.
    Exists(PathBuf),
    /// The log is damaged at a place that no power loss explains; it was left as it is.
    Damaged {
        /// The segment that holds the damage.
        file: PathBuf,
        /// Where the first record that cannot be trusted begins, in bytes from the start of the file.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
    /// The segments that hold the entries the caller needs are not there.
    Gap {
        /// The directory that was searched.
        dir: PathBuf,
        /// What is missing.
        reason: String,
    },
}

impl fmt::Display for WalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WalError::Io { doing, path, source } => {
                write!(f, "wal: cannot {doing} {}: {source}", path.display())
            }
            WalError::Poisoned(earlier) => {
                write!(f, "wal: refused, because an earlier call failed: {earlier}")
            }
            WalError::Locked(dir) => write!(f, "wal: {} is in use by another process", dir.display()),
            WalError::Missing(dir) => write!(f, "wal: {} holds no log", dir.display()),
            WalError::Exists(dir) => write!(f, "wal: {} holds a log already", dir.display()),
            WalError::Damaged { file, offset, reason } => write!(
                f,
                "wal: {} is damaged at byte {offset}: {reason}. Nothing was changed. Entries from there on may \
                 have been acknowledged, so they are not cut off: copy the data directory, check the disk, then \
                 either put this file back from a copy, or remove this member from its cluster and add it anew \
                 with an empty data directory, or, if it is the only member, restore a snapshot",
                file.display()
            ),
            WalError::Gap { dir, reason } => write!(
                f,
                "wal: {} does not hold the entries that follow the database: {reason}. Nothing was changed. Put the \
                 missing segments back, or remove this member from its cluster and add it anew with an empty data \
                 directory, or, if it is the only member, restore a snapshot",
                dir.display()
            ),
        }
    }
}

impl std::error::Error for WalError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            WalError::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
