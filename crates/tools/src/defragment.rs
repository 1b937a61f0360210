//! The store of a member that does not run, in as little space as it needs.
//!
//! A member that runs does this by itself.

use std::io;
use std::path::Path;

use backend::{Backend, Storage};
use wal::{Disk as _, RealDisk};

use crate::error::Error;

/// Rewrites it; bytes of the file before and after.
///
/// # Errors
/// The directory holds no member of ours, one that runs, or a damaged one. The store is as it was then.
pub fn defragment(data_dir: &Path) -> Result<(u64, u64), Error> {
    let member = data_dir.join("member");
    let path = member.join("cairn.redb");
    if let Err(error) = path.metadata() {
        let etcds = member.join("snap").join("db");
        return Err(if etcds.exists() { Error::Foreign(etcds) } else { Error::Io("stat", path, error) });
    }
    let _alone = RealDisk.lock(&member).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => Error::InUse(data_dir.to_owned()),
        _ => Error::Io("lock", member.clone(), error),
    })?;
    let backend = Backend::open(Storage::File(path), backend::Options::default()).map_err(Error::Backend)?;
    let before = backend.size();
    backend.defragment().map_err(Error::Backend)?;
    Ok((before, backend.size()))
}
