//! Another member's state in the place of this one's.
//!
//! Three steps, each of which leaves either the old state or the new one, whole:
//!
//! 1. [`Backend::receive`] writes the snapshot's body to a new file beside the old one, under another
//!    name, and makes it durable. Everything goes on meanwhile; a failure costs the new file.
//! 2. [`Incoming::take_place`] gives it the old file's name and syncs the directory. Flushes wait
//!    from here on. A start after a crash finds one file or the other.
//! 3. [`Placed::publish`] shows it to readers, in memory and without any failure. What was buffered
//!    for the old state is dropped: the snapshot is of a later one.
//!
//! Readers under way keep the old file, which has no name any more, until they are done. The caller
//! excludes the apply thread (it is the one that installs) and the compaction; defragmentations and
//! other installs are excluded here.

use crate::Backend;
use crate::backend::Writer;
use crate::buffer::Generation;
use crate::error::{Error, failed, io_failed};
use crate::export::{ROW_BUCKET, TOMBSTONE_MARK};
use crate::flush::{Commit, Live};
use crate::open::{self, INSTALLING, Opened};
use crate::tables::{
    CONF_STATE, CONSISTENT_INDEX, Consistent, ROWS, Row, RowKey, STORAGE_VERSION, TERM, Table, TableOp,
    position,
};
use crate::view::{Durable, Picture, View};
use bytes::Bytes;
use parking_lot::MutexGuard;
use redb::{Database, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _, StorageBackend};
use std::io::{self, Read, Seek};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Rows and entries per transaction while a body is written, and bytes after which one ends all the
/// same.
const CHUNK: usize = 16_384;
const CHUNK_BYTES: usize = 16 << 20;

/// Where a new state is written, and how it takes the old one's place.
pub enum Target<'a> {
    /// Beside the store's own file; a rename and a sync of the directory.
    Beside,
    /// For a store that is no file.
    Custom {
        /// An empty medium for the new state.
        medium: Box<dyn StorageBackend>,
        /// Makes it, durably, what the next start finds; the old one must be found if this was not
        /// called. Called at most once, when the medium is complete and synced.
        take_place: Box<dyn FnOnce() -> io::Result<()> + 'a>,
    },
}

#[cfg(any(test, feature = "fuzzing"))]
impl Target<'_> {
    /// Memory, which nobody will find after a restart.
    pub fn memory() -> Target<'static> {
        let medium = Box::new(redb::backends::InMemoryBackend::new());
        Target::Custom { medium, take_place: Box::new(|| Ok(())) }
    }
}

impl std::fmt::Debug for Target<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Target::Beside => "Beside",
            Target::Custom { .. } => "Custom",
        })
    }
}

enum Switch<'a> {
    Rename { from: PathBuf, to: PathBuf },
    Call(Box<dyn FnOnce() -> io::Result<()> + 'a>),
}

/// A new state, complete and durable, that is not the store's yet. Dropping it takes it away.
pub struct Incoming<'a> {
    backend: &'a Backend,
    // Keeps defragmentations and other installs out.
    _copying: MutexGuard<'a, ()>,
    new: New,
    switch: Switch<'a>,
    temporary: Temporary,
}

/// A new state that is the store's on disk and not yet in memory: publish it. If that does not come
/// to pass, the store is closed.
pub struct Placed<'a> {
    backend: &'a Backend,
    _copying: MutexGuard<'a, ()>,
    writer: MutexGuard<'a, Writer>,
    new: Option<New>,
}

/// An open state and what the store keeps in memory of it.
struct New {
    database: Arc<Database>,
    length: Arc<AtomicU64>,
    durable: Arc<Durable>,
    live: Live,
    at: Consistent,
    /// The last row.
    newest: Option<RowKey>,
}

/// A file that is removed unless it has got its name. What cannot be removed now is by the next
/// install or the next start.
struct Temporary(Option<PathBuf>);

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = open::remove_stale(path);
        }
    }
}

impl Backend {
    /// Writes `body`, an etcd backend file, to `target` as the state at `at`, whose configuration
    /// replaces the body's own. Waits for a defragmentation under way.
    ///
    /// # Errors
    /// [`Error::Body`] when the body is damaged, holds what this version does not know, or is of
    /// another index or term; [`Error::Storage`] when the target fails. Nothing has changed then.
    pub fn receive<'a>(
        &'a self,
        body: impl Read + Seek,
        at: Consistent,
        target: Target<'a>,
    ) -> Result<Incoming<'a>, Error> {
        self.receive_as(body, Some(&at), at.clone(), target)
    }

    /// The same with a body of any position, as a state of no position: what it holds is to be the
    /// beginning of another log.
    ///
    /// # Errors
    /// As those of [`Backend::receive`].
    pub fn receive_anew(&self, body: impl Read + Seek) -> Result<Incoming<'_>, Error> {
        self.receive_as(body, None, Consistent::default(), Target::Beside)
    }

    fn receive_as<'a>(
        &'a self,
        body: impl Read + Seek,
        expected: Option<&Consistent>,
        at: Consistent,
        target: Target<'a>,
    ) -> Result<Incoming<'a>, Error> {
        let copying = self.shared.copying.lock();
        self.shared.health.check()?;
        let cache = self.shared.options.cache_bytes;
        let (opened, switch, temporary) = match target {
            Target::Beside => {
                let to = self.shared.path.clone();
                let to = to.ok_or_else(|| Error::Storage("the store is no file".into()))?;
                let from = open::sibling(&to, INSTALLING);
                open::remove_stale(&from)?;
                let opened = open::create_at(&from, cache)?;
                (opened, Switch::Rename { from: from.clone(), to }, Temporary(Some(from)))
            }
            Target::Custom { medium, take_place } => {
                (open::open_custom(medium, cache)?, Switch::Call(take_place), Temporary(None))
            }
        };
        let Opened { database, length, .. } = opened;
        // Planted: A4, the new state keeps the old one's index.
        let old = planted::is("old-index-after-install").then(|| self.consistent());
        let (live, newest) = fill(&database, body, expected, old.as_ref().unwrap_or(&at))?;
        let database = Arc::new(database);
        let durable = Arc::new(Durable::of(&database, &length)?);
        let new = New { database, length, durable, live, at, newest };
        Ok(Incoming { backend: self, _copying: copying, new, switch, temporary })
    }
}

impl<'a> Incoming<'a> {
    /// The rows of the new state.
    pub fn view(&self) -> View {
        View::new(Arc::new(self.picture()), Arc::default())
    }

    /// One entry of a table of the new state.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn table_get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Error> {
        let stored = self.new.durable.table(table)?;
        let stored = stored.get(key).map_err(failed)?;
        Ok(stored.map(|value| Bytes::copy_from_slice(value.value())))
    }

    /// Visits every entry of a table of the new state in key order: `(key, value)`.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn scan_table(&self, table: Table, mut visit: impl FnMut(&[u8], &[u8])) -> Result<(), Error> {
        for entry in self.new.durable.table(table)?.iter().map_err(failed)? {
            let (key, value) = entry.map_err(failed)?;
            visit(key.value(), value.value());
        }
        Ok(())
    }

    /// The position of the new state in the log.
    pub fn consistent(&self) -> &Consistent {
        &self.new.at
    }

    /// The key of the last row of the new state.
    pub fn newest_row(&self) -> Option<&RowKey> {
        self.new.newest.as_ref()
    }

    /// Changes tables of the new state, durably, before it is the store's.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn amend(&mut self, ops: &[TableOp]) -> Result<(), Error> {
        let mut commit = Commit::begin(&self.new.database, self.new.live)?;
        commit.change_tables(ops)?;
        self.new.live = commit.finish()?;
        self.new.durable = Arc::new(Durable::of(&self.new.database, &self.new.length)?);
        Ok(())
    }

    /// Makes the new state the one that the next start finds. Flushes wait until it is published.
    ///
    /// # Errors
    /// When the disk fails; the store is closed then, because nobody knows which state has the name.
    pub fn take_place(self) -> Result<Placed<'a>, Error> {
        let Incoming { backend, _copying, new, switch, mut temporary } = self;
        let health = &backend.shared.health;
        let writer = backend.shared.writer.lock();
        health.guard(|| match switch {
            Switch::Rename { from, to } => {
                std::fs::rename(&from, &to).map_err(|error| io_failed("cannot rename", &from, &error))?;
                open::sync_parent(&to)
            }
            Switch::Call(take_place) => take_place()
                .map_err(|error| Error::Storage(format!("cannot take the old one's place: {error}"))),
        })?;
        temporary.0 = None;
        Ok(Placed { backend, _copying, writer, new: Some(new) })
    }

    fn picture(&self) -> Picture {
        Picture { generations: Vec::new(), durable: self.new.durable.clone() }
    }
}

impl Placed<'_> {
    /// Shows the new state to every handle on the store. What was buffered for the old one is gone.
    pub fn publish(mut self) {
        let Some(New { database, length, durable, live, at, .. }) = self.new.take() else { return };
        let shared = &*self.backend.shared;
        let young = Arc::new(Generation::new());
        let old = {
            let mut queue = shared.queue.lock();
            let mut overlay = shared.overlay.lock();
            queue.start_anew(young.clone(), at.index, &mut overlay);
            shared.buffered.store(0, Ordering::Relaxed);
            shared.promised.store(0, Ordering::Relaxed);
            shared.live.store(live.0, Ordering::Relaxed);
            *shared.consistent.lock() = at;
            let picture = Arc::new(Picture { generations: vec![young], durable });
            std::mem::replace(&mut *shared.picture.write(), picture)
        };
        self.writer.take_over(database, length, live, old.generations.iter().cloned());
        shared.forget_density();
        drop(old);
        shared.bell.ring_for_room();
    }
}

impl Drop for Placed<'_> {
    fn drop(&mut self) {
        if self.new.is_some() {
            self.backend.shared.health.fail(Error::Storage("an install ended half-way".into()));
        }
    }
}

/// Reads a whole body without installing it: its pages, its rows' keys, its position. `visit` is
/// shown every entry of every table: `(table, key, value)`.
///
/// # Errors
/// [`Error::Body`], for every reason for which [`Backend::receive`] would refuse it.
pub fn inspect(
    body: impl Read + Seek,
    at: &Consistent,
    mut visit: impl FnMut(Table, &[u8], &[u8]),
) -> Result<(), Error> {
    walk(body, Some(at), |pair| {
        if let Pair::Entry(table, key, value) = pair {
            visit(table, key, value);
        }
        Ok(())
    })
}

/// Writes everything that `body`, which must be of `at` if that is given, holds; and in the last transaction
/// the position `to`: a state that is not whole has none. The last row's key comes with it.
fn fill(
    database: &Database,
    body: impl Read + Seek,
    at: Option<&Consistent>,
    to: &Consistent,
) -> Result<(Live, Option<RowKey>), Error> {
    let (found, live) = open::read_position(database)?;
    let rows = database.begin_read().map_err(failed)?.open_table(ROWS).map_err(failed)?.len();
    if found != Consistent::default() || rows.map_err(failed)? > 0 {
        return Err(Error::Storage("the medium for the new state is not empty".into()));
    }
    let mut filling = Filling { database, live, rows: Vec::new(), ops: Vec::new(), bytes: 0 };
    let mut newest = None;
    walk(body, at, |pair| {
        if let Pair::Row { key, .. } = pair {
            newest = Some(key);
        }
        filling.add(&pair)
    })?;
    filling.ops.extend(position(to));
    filling.commit()?;
    Ok((filling.live, newest))
}

/// One pair of a body.
enum Pair<'a> {
    Row { key: RowKey, tombstone: bool, record: &'a [u8] },
    Entry(Table, &'a [u8], &'a [u8]),
}

/// Shows every pair of a body in order but those that are about its position, which is checked against
/// the expected one.
fn walk(
    body: impl Read + Seek,
    at: Option<&Consistent>,
    mut each: impl FnMut(Pair<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut reader = bolt::Reader::open(body).map_err(body_failed)?;
    let buckets: Vec<Vec<u8>> = reader.buckets().map(<[u8]>::to_vec).collect();
    let mut found = Position::default();
    for bucket in buckets {
        let table = Table::ALL.into_iter().find(|table| table.name().as_bytes() == bucket);
        if table.is_none() && bucket != ROW_BUCKET.as_bytes() {
            return Err(refused(format!("unknown bucket {}", bucket.escape_ascii())));
        }
        let mut pairs = reader.pairs(&bucket).map_err(body_failed)?;
        while let Some((key, value)) = pairs.next().map_err(body_failed)? {
            match table {
                None => {
                    let (key, tombstone) = row_of(key)?;
                    each(Pair::Row { key, tombstone, record: value })?;
                }
                Some(Table::Meta) if found.take(key, value)? => {}
                Some(table) => each(Pair::Entry(table, key, value))?,
            }
        }
    }
    at.map_or(Ok(()), |at| found.check(at))
}

fn row_of(name: &[u8]) -> Result<(RowKey, bool), Error> {
    match name.split_first_chunk() {
        Some((key, [])) => Ok((*key, false)),
        Some((key, [TOMBSTONE_MARK])) => Ok((*key, true)),
        _ => Err(refused(format!("{} is no revision", name.escape_ascii()))),
    }
}

/// What a body says of its own position.
#[derive(Default)]
struct Position {
    index: Option<u64>,
    term: Option<u64>,
}

impl Position {
    /// Takes an entry of `meta` that is about the position, or the layout, of the store it came from.
    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<bool, Error> {
        let number = |name| match open::number(name, Some(value)) {
            Err(error) => Err(refused(error.to_string())),
            number => number,
        };
        match key {
            CONSISTENT_INDEX => self.index = Some(number("consistent_index")?),
            TERM => self.term = Some(number("term")?),
            CONF_STATE | STORAGE_VERSION => {}
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// A body is of one index, and its metadata are of the same: anything else would lose entries or
    /// apply them twice. etcd before 3.5 stored no term.
    fn check(&self, at: &Consistent) -> Result<(), Error> {
        let (index, term) = (self.index.unwrap_or(0), self.term.unwrap_or(at.term));
        if (index, term) == (at.index, at.term) {
            return Ok(());
        }
        let found = format!("it holds the state at index {index}, term {term}");
        Err(refused(format!("{found}; expected was index {}, term {}", at.index, at.term)))
    }
}

/// A body on its way into a database, in transactions of bounded size.
struct Filling<'a> {
    database: &'a Database,
    live: Live,
    rows: Vec<(RowKey, Row)>,
    ops: Vec<TableOp>,
    bytes: usize,
}

impl Filling<'_> {
    fn add(&mut self, pair: &Pair<'_>) -> Result<(), Error> {
        self.bytes += match *pair {
            Pair::Row { key, tombstone, record } => {
                self.rows.push((key, Row { tombstone, record: Bytes::copy_from_slice(record) }));
                record.len()
            }
            Pair::Entry(table, key, value) => {
                self.ops.push(TableOp::put(table, key.to_vec(), value.to_vec()));
                key.len() + value.len()
            }
        };
        if self.rows.len() + self.ops.len() >= CHUNK || self.bytes >= CHUNK_BYTES {
            self.commit()?;
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<(), Error> {
        let mut commit = Commit::begin(self.database, self.live)?;
        commit.put_rows(self.rows.drain(..))?;
        commit.change_tables(&self.ops)?;
        self.ops.clear();
        self.bytes = 0;
        self.live = commit.finish()?;
        Ok(())
    }
}

fn refused(what: String) -> Error {
    Error::Body(what)
}

fn body_failed(error: bolt::Error) -> Error {
    Error::Body(error.to_string())
}
