//! Databases on their way from member to member: a POST whose body is a framed
//! [`raft::Body::Snapshot`] and then the file.

mod receive;
mod send;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use receive::head;
pub(crate) use receive::{check_parties, receive, remove_partial};
pub(crate) use send::send;

use std::path::{Path, PathBuf};

/// A file that is removed in the end, unless it has got another name by then.
struct Temporary(PathBuf);

impl Temporary {
    fn new(path: PathBuf) -> Temporary {
        Temporary(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.0.display(), %error, "cannot remove a temporary file");
        }
    }
}
