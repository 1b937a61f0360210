//! Databases on their way from member to member: a POST whose body is a framed
//! [`raft::Body::Snapshot`] and then the file.

mod receive;
mod send;

pub(crate) use receive::{check_parties, receive, remove_partial};
pub(crate) use send::send;

use std::path::{Path, PathBuf};

/// A file that is removed unless it is kept.
struct Temporary(Option<PathBuf>);

impl Temporary {
    fn new(path: PathBuf) -> Temporary {
        Temporary(Some(path))
    }

    fn path(&self) -> &Path {
        self.0.as_deref().unwrap_or(Path::new(""))
    }

    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = &self.0
            && let Err(error) = std::fs::remove_file(path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "cannot remove a temporary file");
        }
    }
}
