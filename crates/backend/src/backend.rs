//! The handle: who may do what, and in which order the locks are taken.
//!
//! | lock | guards | held by |
//! |---|---|---|
//! | `copying` | defragmentation, install | one at a time, for as long as it takes |
//! | `writer` | redb's write side, the count of live bytes | a flush, the ends of a defragmentation, the end of an install |
//! | `queue` | the young generation's writer side, sealed batches | the apply thread per row, a flush for an instant |
//! | `overlay` | table changes not yet flushed | the apply thread per seal, readers of tables |
//! | `picture` | what readers see | readers to clone an `Arc`, writers to replace it |
//!
//! They are taken downwards only. No disk is waited for under `queue` or `picture`, so the apply
//! thread never waits for one.

use crate::buffer::{Generation, Item, Overlay, Queue};
use crate::error::{Error, failed};
use crate::flush::{self, Live};
use crate::health::Health;
use crate::open::{self, Opened};
use crate::tables::{Consistent, Row, RowKey, Seal, Table, TableOp, row_bytes};
use crate::view::{Durable, Picture, View};
use crate::{Flushed, Options, Storage};
use bytes::Bytes;
use parking_lot::{Condvar, Mutex, RwLock};
use redb::{Database, ReadableTable};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// A handle on the store; clones share it. Dropping the last one does not flush.
#[derive(Clone)]
pub struct Backend {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) path: Option<PathBuf>,
    pub(crate) health: Arc<Health>,
    pub(crate) copying: Mutex<()>,
    pub(crate) writer: Mutex<Writer>,
    pub(crate) queue: Mutex<Queue>,
    pub(crate) overlay: Mutex<Overlay>,
    pub(crate) picture: RwLock<Arc<Picture>>,
    pub(crate) consistent: Mutex<Consistent>,
    // Bytes of memory that wait for a flush, and of disk they will take; bytes live in redb.
    pub(crate) buffered: AtomicUsize,
    pub(crate) promised: AtomicU64,
    pub(crate) live: AtomicU64,
    pub(crate) density: AtomicU64,
    pub(crate) bell: Bell,
}

/// The write side of redb.
pub(crate) struct Writer {
    pub(crate) database: Arc<Database>,
    pub(crate) length: Arc<AtomicU64>,
    pub(crate) live: Live,
    /// What flushes touched since a copy began, when one is being made.
    pub(crate) touched: Option<Touched>,
    // Generations and databases that a reader still held when they were replaced. They are let
    // go here, later, so that no reader pays for freeing ten thousand rows or closing a file.
    retired: Vec<Arc<Generation>>,
    pub(crate) closed: Vec<Arc<Database>>,
}

/// Keys whose place in a copy has to be looked at again.
#[derive(Default)]
pub(crate) struct Touched {
    pub(crate) rows: Vec<RowKey>,
    pub(crate) entries: Vec<(Table, Bytes)>,
}

/// Wakes the flusher and the writer that waits for room.
#[derive(Default)]
pub(crate) struct Bell {
    asked: Mutex<bool>,
    work: Condvar,
    room: Condvar,
}

impl Backend {
    /// Opens the store, or creates it.
    ///
    /// # Errors
    /// [`Error::NotOurs`] and [`Error::InUse`] leave everything as it was; [`Error::Corrupt`] when
    /// the store is ours and damaged; [`Error::Storage`] when the disk fails.
    pub fn open(storage: Storage, options: Options) -> Result<Backend, Error> {
        let (opened, path) = match storage {
            Storage::File(path) => (open::open_file(&path, options.cache_bytes)?, Some(path)),
            Storage::Custom(disk) => (open::open_custom(disk, options.cache_bytes)?, None),
        };
        let Opened { database, length, .. } = opened;
        let (consistent, live) = open::read_position(&database)?;
        let database = Arc::new(database);
        let young = Arc::new(Generation::new());
        let picture =
            Picture { generations: vec![young.clone()], durable: Arc::new(Durable::of(&database, &length)?) };
        let queue = Queue::new(young, consistent.index);
        let writer =
            Writer { database, length, live, touched: None, retired: Vec::new(), closed: Vec::new() };
        let shared = Shared {
            options,
            path,
            health: Arc::default(),
            copying: Mutex::default(),
            writer: Mutex::new(writer),
            queue: Mutex::new(queue),
            overlay: Mutex::default(),
            picture: RwLock::new(Arc::new(picture)),
            consistent: Mutex::new(consistent),
            buffered: AtomicUsize::new(0),
            promised: AtomicU64::new(0),
            live: AtomicU64::new(live.0),
            density: crate::copy::unknown_density(),
            bell: Bell::default(),
        };
        Ok(Backend { shared: Arc::new(shared) })
    }

    // The apply thread's side.

    /// Adds a row to the open batch; readers see it at once. A key is inserted once in the life
    /// of a store.
    pub fn insert_row(&self, key: RowKey, row: Row) {
        let (memory, disk) = self.shared.queue.lock().insert(key, row);
        self.shared.buffered.fetch_add(memory, Ordering::Relaxed);
        self.shared.promised.fetch_add(disk, Ordering::Relaxed);
    }

    /// Ends the open batch: the rows inserted since the last seal and these table changes become
    /// durable together with this index, in one piece, in a later flush. Readers of tables see
    /// the changes at once.
    ///
    /// # Panics
    /// When `index` is below the previous seal's.
    pub fn seal(&self, seal: Seal) {
        {
            let mut queue = self.shared.queue.lock();
            let memory = queue.seal(seal, &mut self.shared.overlay.lock());
            self.shared.buffered.fetch_add(memory, Ordering::Relaxed);
            // Small generations keep a flush to whole ones, and its memory free as soon as it ends.
            if queue.young_weight() >= self.shared.options.flush_rows / 2 {
                self.rotate(&mut queue);
            }
        }
        self.ring_if_due();
    }

    /// Changes tables outside the log: what this member alone notes down, such as how far its
    /// compaction came. Durable with or after everything queued before it, never earlier; when
    /// rows of an open batch are among that, readers see the change once the batch is sealed.
    pub fn write_ops(&self, ops: Vec<TableOp>) {
        self.push(Item::Ops(ops));
    }

    /// Removes rows that are there, in a later flush: with or after everything queued before,
    /// never earlier. Until then, and in every [`View`] taken before, they can still be read; a
    /// row that was flushed while a later batch was half written may show until that is flushed.
    pub fn delete_rows(&self, keys: Vec<RowKey>) {
        self.push(Item::Removals(keys));
    }

    fn push(&self, item: Item) {
        let memory = self.shared.queue.lock().push(item, &mut self.shared.overlay.lock());
        self.shared.buffered.fetch_add(memory, Ordering::Relaxed);
        self.ring_if_due();
    }

    /// Waits while more is buffered than [`Options::buffer_bytes`] and a flush could lower it.
    /// The apply thread calls it between batches, so that a slow disk slows writers down instead
    /// of filling memory.
    ///
    /// # Errors
    /// When the store has failed and will never flush again.
    pub fn wait_for_room(&self) -> Result<(), Error> {
        let mut asked = self.shared.bell.asked.lock();
        loop {
            self.shared.health.check()?;
            if self.buffered_bytes() <= self.shared.options.buffer_bytes {
                return Ok(());
            }
            if self.shared.queue.lock().is_drained() {
                return Ok(());
            }
            *asked = true;
            self.shared.bell.work.notify_all();
            self.shared.bell.room.wait(&mut asked);
        }
    }

    // The flusher's side.

    /// Waits until [`Options::flush_bytes`] are buffered, a flush was asked for, or the time is
    /// over; says whether there is anything to flush.
    pub fn wait_for_work(&self, timeout: Duration) -> bool {
        let mut asked = self.shared.bell.asked.lock();
        if !*asked && !self.is_due() {
            self.shared.bell.work.wait_for(&mut asked, timeout);
        }
        *asked = false;
        !self.shared.queue.lock().is_empty()
    }

    /// Makes `wait_for_work` return.
    pub fn ask_for_flush(&self) {
        *self.shared.bell.asked.lock() = true;
        self.shared.bell.work.notify_all();
    }

    /// Bytes of memory that wait for a flush.
    pub fn buffered_bytes(&self) -> usize {
        self.shared.buffered.load(Ordering::Relaxed)
    }

    /// Makes what was sealed durable, oldest first, in one transaction with its consistent index,
    /// and drops it from the buffer. Takes whole batches until they come to
    /// [`Options::flush_rows`]; [`Flushed::more`] says that some are left.
    ///
    /// # Errors
    /// Any failure is final: whether the batch is durable is unknown, so neither this nor any
    /// other call is tried again.
    pub fn flush(&self) -> Result<Flushed, Error> {
        let mut writer = self.shared.writer.lock();
        self.flush_under(&mut writer)
    }

    /// Flushes until nothing is left of what was sealed when it was called.
    ///
    /// # Errors
    /// As [`flush`](Backend::flush).
    pub fn flush_all(&self) -> Result<Flushed, Error> {
        let (target, _) = self.shared.queue.lock().progress();
        let mut total = Flushed::default();
        loop {
            let mut writer = self.shared.writer.lock();
            let flushed = self.flush_under(&mut writer)?;
            total.rows += flushed.rows;
            total.bytes += flushed.bytes;
            // Looked at with the write side held: what was taken is durable.
            let (_, taken) = self.shared.queue.lock().progress();
            if taken >= target {
                return Ok(Flushed { rows: total.rows, bytes: total.bytes, ..flushed });
            }
        }
    }

    fn flush_under(&self, writer: &mut Writer) -> Result<Flushed, Error> {
        let shared = &*self.shared;
        shared.health.check()?;
        let (work, mut generations) = {
            let mut queue = shared.queue.lock();
            if !queue.is_empty() {
                self.rotate(&mut queue);
            }
            let work = queue.take(shared.options.flush_rows);
            (work, shared.picture.read().generations.clone())
        };
        writer.release();
        if work.is_empty() {
            return Ok(Flushed::at(&shared.consistent.lock()));
        }
        // From here on the work is in no queue: if this ends in any way but durably, even in a
        // panic, no later flush may pass it by.
        let unfinished = Unfinished(self);
        generations.reverse();
        // Planted: A1, the index becomes durable before the effects that it stands for.
        if planted::is("index-apart-from-rows")
            && let Some(consistent) = &work.consistent
        {
            let mut early = flush::Commit::begin(&writer.database, writer.live)?;
            early.change_tables(&crate::tables::position(consistent).collect::<Vec<_>>())?;
            writer.live = early.finish()?;
        }
        let commit =
            shared.health.guard(|| flush::write(&writer.database, &generations, &work, writer.live))?;
        let (rows, bytes) = (commit.rows, commit.bytes);
        writer.live = shared.health.guard(|| commit.finish())?;
        if let Some(touched) = &mut writer.touched {
            touched.add(&generations, &work);
        }
        let durable = shared.health.guard(|| Durable::of(&writer.database, &writer.length))?;
        self.publish(writer, durable, work.through);
        shared.overlay.lock().forget(&work.ops, work.stamp);
        let flushed = {
            let mut consistent = shared.consistent.lock();
            if let Some(reached) = work.consistent {
                consistent.index = reached.index;
                consistent.term = reached.term;
                consistent.conf_state = reached.conf_state.or(consistent.conf_state.take());
            }
            Flushed { rows, bytes, more: work.more, ..Flushed::at(&consistent) }
        };
        shared.live.store(writer.live.0, Ordering::Relaxed);
        shared.promised.fetch_sub(work.disk, Ordering::Relaxed);
        shared.buffered.fetch_sub(work.memory, Ordering::Relaxed);
        shared.queue.lock().landed();
        std::mem::forget(unfinished);
        shared.bell.ring_for_room();
        Ok(flushed)
    }

    /// Shows readers a new durable part, without the generations it covers.
    pub(crate) fn publish(&self, writer: &mut Writer, durable: Durable, through: u64) {
        let mut picture = self.shared.picture.write();
        let (covered, generations) =
            picture.generations.iter().cloned().partition(|generation| generation.is_covered(through));
        let old =
            std::mem::replace(&mut *picture, Arc::new(Picture { generations, durable: Arc::new(durable) }));
        drop(picture);
        writer.retired.extend::<Vec<_>>(covered);
        drop(old);
        writer.release();
    }

    fn rotate(&self, queue: &mut Queue) {
        if let Some(_frozen) = queue.rotate() {
            let mut picture = self.shared.picture.write();
            let mut generations = vec![queue.young.clone()];
            generations.extend(picture.generations.iter().cloned());
            *picture = Arc::new(Picture { generations, durable: picture.durable.clone() });
        }
    }

    fn is_due(&self) -> bool {
        self.buffered_bytes() >= self.shared.options.flush_bytes
    }

    fn ring_if_due(&self) {
        if self.is_due() {
            self.ask_for_flush();
        }
    }

    // The readers' side.

    fn picture(&self) -> Arc<Picture> {
        self.shared.picture.read().clone()
    }

    /// The record at a revision, tombstones included.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn get(&self, key: &RowKey) -> Result<Option<Bytes>, Error> {
        let picture = self.picture();
        self.shared.health.guard(|| picture.get(key))
    }

    /// How many states of the file are being read or held for readers; the newest is one of them.
    pub fn open_reads(&self) -> usize {
        self.picture().durable.open()
    }

    /// A picture for many reads.
    ///
    /// # Errors
    /// When the store has failed.
    pub fn view(&self) -> Result<View, Error> {
        self.shared.health.check()?;
        Ok(View::new(self.picture(), self.shared.health.clone()))
    }

    /// Visits every entry of a table in key order, with all that is sealed: `(key, value)`.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn scan_table(&self, table: Table, mut visit: impl FnMut(&[u8], &[u8])) -> Result<(), Error> {
        // Both under the overlay's lock: it holds everything that the durable part may lack.
        let (changes, picture) = {
            let overlay = self.shared.overlay.lock();
            (overlay.of(table), self.picture())
        };
        self.shared.health.guard(|| {
            let mut changes = changes.iter().peekable();
            for entry in picture.durable.table(table)?.iter().map_err(failed)? {
                let (key, value) = entry.map_err(failed)?;
                let mut changed = false;
                while let Some((at, new)) = changes.next_if(|(at, _)| at <= key.value()) {
                    changed = at == key.value();
                    if let Some(new) = new {
                        visit(at, new);
                    }
                }
                if !changed {
                    visit(key.value(), value.value());
                }
            }
            for (at, new) in changes {
                if let Some(new) = new {
                    visit(at, new);
                }
            }
            Ok(())
        })
    }

    /// One entry of a table, with all that is sealed.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn table_get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Error> {
        let (changed, picture) = {
            let overlay = self.shared.overlay.lock();
            (overlay.get(table, key), self.picture())
        };
        if let Some(value) = changed {
            self.shared.health.check()?;
            return Ok(value);
        }
        self.shared.health.guard(|| {
            let stored = picture.durable.table(table)?.get(key).map_err(failed)?;
            Ok(stored.map(|value| Bytes::copy_from_slice(value.value())))
        })
    }

    /// How far the durable state reaches: at open what was found, later what the last flush wrote.
    pub fn consistent(&self) -> Consistent {
        self.shared.consistent.lock().clone()
    }

    /// Bytes that the file takes on the disk, or that are in use where the buffer already holds more.
    ///
    /// redb doubles its file as it grows and leaves the new half unwritten, so its length says little
    /// about the disk; where there is a file, its allocated blocks are asked for.
    pub fn size(&self) -> u64 {
        let allocated = self.shared.path.as_deref().and_then(|path| std::fs::metadata(path).ok());
        let size = match allocated {
            Some(metadata) => metadata.blocks() * 512,
            None => self.shared.picture.read().durable.length.load(Ordering::Relaxed),
        };
        size.max(self.size_in_use())
    }

    /// Bytes of live data, buffered rows included: keys, values and their place in a page. This
    /// is what a quota should count; space that compaction freed is not in it.
    pub fn size_in_use(&self) -> u64 {
        self.shared.live.load(Ordering::Relaxed) + self.shared.promised.load(Ordering::Relaxed)
    }

    /// What a row with a record of this many bytes adds to [`size_in_use`](Backend::size_in_use).
    pub fn row_cost(record: usize) -> u64 {
        row_bytes(record)
    }
}

impl Flushed {
    fn at(consistent: &Consistent) -> Flushed {
        let Consistent { index, term, conf_state } = consistent.clone();
        Flushed { index, term, conf_state, ..Flushed::default() }
    }
}

impl Bell {
    /// Wakes the writer that waits for room, or is about to.
    pub(crate) fn ring_for_room(&self) {
        drop(self.asked.lock());
        self.room.notify_all();
    }
}

impl Writer {
    /// Goes on with another database; the old one closes when its last reader is done.
    pub(crate) fn take_over(
        &mut self,
        database: Arc<Database>,
        length: Arc<AtomicU64>,
        live: Live,
        retired: impl Iterator<Item = Arc<Generation>>,
    ) {
        self.closed.push(std::mem::replace(&mut self.database, database));
        (self.length, self.live) = (length, live);
        self.retired.extend(retired);
        self.release();
    }

    fn release(&mut self) {
        self.retired.retain(|generation| Arc::strong_count(generation) > 1);
        self.closed.retain(|database| Arc::strong_count(database) > 1);
    }
}

impl Touched {
    fn add(&mut self, generations: &[Arc<Generation>], work: &crate::buffer::Work) {
        for entry in generations.iter().flat_map(|generation| generation.rows.iter()) {
            let batch = entry.value().batch;
            if work.after < batch && batch <= work.through {
                self.rows.push(*entry.key());
            }
        }
        self.rows.extend_from_slice(&work.removals);
        self.entries.extend(work.ops.iter().map(|op| (op.table, op.key.clone())));
        if work.consistent.is_some() {
            use crate::tables::{CONF_STATE, CONSISTENT_INDEX, TERM};
            for key in [CONSISTENT_INDEX, TERM, CONF_STATE] {
                self.entries.push((Table::Meta, Bytes::from_static(key)));
            }
        }
    }
}

/// Closes the store when a flush ends early.
struct Unfinished<'a>(&'a Backend);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.0.shared.health.fail(Error::Storage("a flush ended before it was durable".into()));
        let bell = &self.0.shared.bell;
        drop(bell.asked.lock());
        bell.work.notify_all();
        bell.room.notify_all();
    }
}
