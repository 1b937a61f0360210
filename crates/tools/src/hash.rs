//! The hash of a history, as members tell it by `HashKV`.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use backend::{Backend, Storage};
use mvcc::{HashKv, Store};

use crate::error::Error;
use crate::progress::{Phase, Tell, Told};

/// Hashes the history in `path` up to `revision`, 0 for the newest one: a bbolt database, or the
/// `cairn.redb` of a member that does not run.
///
/// A database is copied first, to the directory for temporary files: hashing needs the index that only a
/// store has.
///
/// # Errors
/// The file cannot be read; the revision is compacted, or yet to come.
pub fn hash_kv(path: &Path, revision: i64, mut tell: Tell<'_>) -> Result<HashKv, Error> {
    path.metadata().map_err(Error::io("stat", path))?;
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    let mut start = [0; 4];
    let is_ours = file.read_exact(&mut start).is_ok() && start == *b"redb";
    let options = backend::Options::default();
    if is_ours {
        drop(file);
        let backend = Backend::open(Storage::File(path.to_owned()), options).map_err(Error::Backend)?;
        return hash(backend, revision);
    }
    let copy = Copy::new()?;
    let backend = Backend::open(Storage::File(copy.0.join("copy")), options).map_err(Error::Backend)?;
    let told = Told::new(file, Phase::Reading, &mut tell).map_err(Error::io("read", path))?;
    let incoming = backend.receive_anew(told).map_err(Error::Backend)?;
    incoming.take_place().map_err(Error::Backend)?.publish();
    hash(backend, revision)
}

fn hash(backend: Backend, revision: i64) -> Result<HashKv, Error> {
    let (store, _, _) = Store::open(backend).map_err(Error::Read)?;
    store.hash_kv(revision).map_err(Error::Read)
}

/// A directory that goes with this.
struct Copy(PathBuf);

impl Copy {
    fn new() -> Result<Copy, Error> {
        let dir = std::env::temp_dir().join(format!("cairn-hashkv-{}", std::process::id()));
        std::fs::create_dir(&dir).map_err(Error::io("mkdir", &dir))?;
        Ok(Copy(dir))
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
