//! Finding, checking and creating the store.
//!
//! A new store is built under another name and renamed when it is complete and durable, so a file
//! under the store's own name is always whole: a crash while it was created leaves nothing that
//! has to be told from damage. What is there already is looked at before it is opened for
//! writing, because opening changes it, and what is not ours must stay as it is.

use crate::error::{Error, failed, io_failed};
use crate::flush::{Commit, Live};
use crate::medium::Medium;
use crate::tables::{CONF_STATE, CONSISTENT_INDEX, Consistent, FORMAT, LIVE_BYTES, OWN, TERM, Table};
use bytes::Bytes;
use redb::backends::FileBackend;
use redb::{Builder, Database, ReadOnlyDatabase, ReadTransaction, ReadableDatabase, StorageBackend};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

const MAGIC: [u8; 9] = *b"redb\x1a\x0a\xa9\x0d\x0a";

/// An open redb database and the length of what it lies in.
pub(crate) struct Opened {
    pub(crate) database: Database,
    pub(crate) length: Arc<AtomicU64>,
    /// Whether it is written at ease.
    pub(crate) at_ease: Arc<AtomicBool>,
}

/// The name beside `path` under which a new store is prepared.
pub(crate) fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().map_or_else(OsString::new, OsString::from);
    name.push(suffix);
    path.with_file_name(name)
}

pub(crate) const CREATING: &str = ".creating";
pub(crate) const COPYING: &str = ".defragmenting";
pub(crate) const INSTALLING: &str = ".installing";

/// Only the owner may read what clients stored.
const FILE_MODE: u32 = 0o600;

pub(crate) fn open_file(path: &Path, cache: usize) -> Result<Opened, Error> {
    let opened = match File::open(path) {
        Ok(file) => {
            is_ours(file, path)?;
            let opened = existing(path, cache)?;
            check_marker(&opened.database, &path.display().to_string())?;
            opened
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => create_file(path, cache)?,
        Err(error) => return Err(io_failed("cannot open", path, &error)),
    };
    // Only now, with the store locked, does a half-made copy belong to no living process.
    for suffix in [CREATING, COPYING, INSTALLING] {
        remove_stale(&sibling(path, suffix))?;
    }
    Ok(opened)
}

pub(crate) fn open_custom(disk: Box<dyn StorageBackend>, cache: usize) -> Result<Opened, Error> {
    let broken = |error: std::io::Error| Error::Storage(error.to_string());
    let medium = Medium::new(disk).map_err(broken)?;
    let size = medium.len().map_err(broken)?;
    let mut magic = [0; MAGIC.len()];
    if size >= MAGIC.len() as u64 {
        medium.read(0, &mut magic).map_err(broken)?;
    }
    // There is no rename here to hide a creation that was cut short. redb writes its first bytes
    // last, so as long as they are zero nothing was ever stored.
    if magic == [0; MAGIC.len()] && size > 0 {
        medium.set_len(0).map_err(broken)?;
    } else if size > 0 && magic != MAGIC {
        return Err(Error::NotOurs("it does not begin as a redb file does".into()));
    }
    let opened = open_medium(medium, cache)?;
    let reads = opened.database.begin_read().map_err(failed)?;
    if reads.list_tables().map_err(failed)?.next().is_none() {
        initialize(&opened.database)?;
    }
    drop(reads);
    check_marker(&opened.database, "this disk")?;
    Ok(opened)
}

/// Creates a store at `path`, which must not exist, complete and durable but for its name.
pub(crate) fn create_at(path: &Path, cache: usize) -> Result<Opened, Error> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(FILE_MODE).open(path);
    let file = file.map_err(|error| io_failed("cannot create", path, &error))?;
    let opened = open_medium(file_medium(file)?, cache)?;
    initialize(&opened.database)?;
    Ok(opened)
}

/// Makes the new name of a renamed file durable.
pub(crate) fn sync_parent(path: &Path) -> Result<(), Error> {
    let parent = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Ok(()),
    };
    let synced = File::open(parent).and_then(|directory| directory.sync_all());
    synced.map_err(|error| io_failed("cannot sync", parent, &error))
}

pub(crate) fn remove_stale(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(io_failed("cannot remove", path, &error))
        }
        _ => Ok(()),
    }
}

fn create_file(path: &Path, cache: usize) -> Result<Opened, Error> {
    let temporary = sibling(path, CREATING);
    remove_stale(&temporary)?;
    let opened = create_at(&temporary, cache)?;
    fs::rename(&temporary, path).map_err(|error| io_failed("cannot rename", &temporary, &error))?;
    sync_parent(path)?;
    Ok(opened)
}

fn existing(path: &Path, cache: usize) -> Result<Opened, Error> {
    let file = OpenOptions::new().read(true).write(true).open(path);
    let file = file.map_err(|error| io_failed("cannot open", path, &error))?;
    open_medium(file_medium(file)?, cache).map_err(|error| match error {
        Error::Corrupt(what) => Error::Corrupt(format!("{}: {what}", path.display())),
        Error::InUse(_) => Error::InUse(path.display().to_string()),
        other => other,
    })
}

fn file_medium(file: File) -> Result<Medium, Error> {
    let file = FileBackend::new(file).map_err(failed)?;
    Medium::new(Box::new(file)).map_err(|error| Error::Storage(error.to_string()))
}

fn open_medium(medium: Medium, cache: usize) -> Result<Opened, Error> {
    let (length, at_ease) = (medium.length(), medium.at_ease());
    // redb trusts what it reads in places, and panics over a damaged file there. Nothing is shared
    // with it yet, so a panic here is one more way to say that the file is damaged.
    let open = || Builder::new().set_cache_size(cache).create_with_backend(medium);
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(open)) {
        Ok(opened) => Ok(Opened { database: opened.map_err(failed)?, length, at_ease }),
        Err(_) => Err(Error::Corrupt("redb cannot make sense of it".into())),
    }
}

fn initialize(database: &Database) -> Result<(), Error> {
    let mut commit = Commit::begin(database, Live::default())?;
    commit.create_tables()?;
    commit.finish()?;
    Ok(())
}

/// Tells a store of ours from anything else without changing it, as far as that can be told.
fn is_ours(mut file: File, path: &Path) -> Result<(), Error> {
    let mut start = Vec::new();
    file.by_ref().take(64).read_to_end(&mut start).map_err(|error| io_failed("cannot read", path, &error))?;
    drop(file);
    if !start.starts_with(&MAGIC) {
        let bolt = start.get(16..20) == Some(&0xED0C_DAED_u32.to_le_bytes());
        let what = if bolt { "a bbolt file, as etcd writes it" } else { "not a redb file" };
        return Err(Error::NotOurs(format!("{} is {what}", path.display())));
    }
    // After a crash redb cannot be opened for reading alone; then the marker is looked at later.
    if let Ok(database) = ReadOnlyDatabase::open(path) {
        check_marker(&database, &path.display().to_string())?;
    }
    Ok(())
}

fn check_marker(database: &impl ReadableDatabase, place: &str) -> Result<(), Error> {
    match own(&database.begin_read().map_err(failed)?, FORMAT.0)? {
        Some(format) if format == FORMAT.1 => Ok(()),
        Some(format) => Err(Error::NotOurs(format!(
            "{place} has format {:?}; this version reads format {:?}",
            String::from_utf8_lossy(&format),
            String::from_utf8_lossy(FORMAT.1)
        ))),
        None => Err(Error::NotOurs(format!("{place} is a redb file of another program"))),
    }
}

fn own(reads: &ReadTransaction, key: &str) -> Result<Option<Vec<u8>>, Error> {
    match reads.open_table(OWN) {
        Ok(table) => Ok(table.get(key).map_err(failed)?.map(|value| value.value().to_vec())),
        Err(redb::TableError::Storage(error)) => Err(failed(error)),
        Err(_) => Ok(None),
    }
}

/// What the store says about itself when it is opened.
pub(crate) fn read_position(database: &Database) -> Result<(Consistent, Live), Error> {
    let reads = database.begin_read().map_err(failed)?;
    let live = own(&reads, LIVE_BYTES)?;
    let live = Live(number(LIVE_BYTES, live.as_deref())?);
    Ok((position(&reads)?, live))
}

/// A number as etcd stores it; absent, it is 0.
pub(crate) fn number(name: &str, bytes: Option<&[u8]>) -> Result<u64, Error> {
    match bytes {
        None => Ok(0),
        Some(bytes) => bytes
            .try_into()
            .map(u64::from_be_bytes)
            .map_err(|_| Error::Corrupt(format!("{name} has {} bytes, not 8", bytes.len()))),
    }
}

/// How far the state of a transaction reaches in the log.
pub(crate) fn position(reads: &ReadTransaction) -> Result<Consistent, Error> {
    let meta = reads.open_table(Table::Meta.definition()).map_err(failed)?;
    let index = meta.get(CONSISTENT_INDEX).map_err(failed)?;
    let term = meta.get(TERM).map_err(failed)?;
    let conf_state = meta.get(CONF_STATE).map_err(failed)?;
    Ok(Consistent {
        index: number("consistent_index", index.as_ref().map(|value| value.value()))?,
        term: number("term", term.as_ref().map(|value| value.value()))?,
        conf_state: conf_state.map(|value| Bytes::copy_from_slice(value.value())),
    })
}
