//! Giving space back: a copy of the live data takes the old file's place.
//!
//! redb shrinks its file only from the end, and compacts in place only while nobody reads. So the
//! store is copied beside itself from one read transaction while flushes go on; what they touch
//! meanwhile is noted by key and looked at again, in rounds that get shorter; and only the last
//! round, the rename and the switch happen with flushes held. Readers keep the old file until they
//! are done, and the apply thread writes to memory as always. Until the rename, a failure costs
//! the copy and nothing else. All but the last round is done at ease (see `ease.rs`).

use crate::Backend;
use crate::backend::{Touched, Writer};
use crate::ease::read_ahead;
use crate::error::{Error, failed, io_failed};
use crate::flush::{Commit, Live};
use crate::open::{self, COPYING, Opened};
use crate::tables::{Row, RowKey, Table, TableOp, unwrap_row};
use crate::view::Durable;
use bytes::Bytes;
use redb::ReadableTable;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Rows or entries per transaction while copying, and bytes after which one ends all the same.
const CHUNK: usize = 16_384;
const CHUNK_BYTES: usize = 16 << 20;
/// With so few keys left to look at again, flushes can wait for the rest.
const FEW: usize = 2_048;
/// Rounds after which flushes wait for the rest, however much it is.
const ROUNDS: usize = 16;

/// Freed space below this many bytes is not worth a copy: new data will fill it.
const WORTHWHILE: u64 = 64 << 20;

impl Backend {
    /// Rewrites the store into as little space as it needs. Reads, writes and flushes go on, the
    /// last but for a moment at the end. A store on a custom disk stays as it is.
    ///
    /// # Errors
    /// [`Error::Busy`] when one is under way; [`Error::Storage`] when the copy could not be made,
    /// for want of space for example, and the old file stays in use. Once the copy has taken the
    /// old file's name there is no way back, and a failure closes the store.
    pub fn defragment(&self) -> Result<(), Error> {
        let Some(path) = self.shared.path.clone() else { return Ok(()) };
        let _one = self.shared.copying.try_lock().ok_or(Error::Busy)?;
        self.shared.health.check()?;
        let temporary = open::sibling(&path, COPYING);
        let done = self.copy_and_switch(&path, &temporary);
        self.shared.writer.lock().touched = None;
        if done.is_err() && self.shared.health.check().is_ok() {
            // The next attempt, or the next start, clears it away if this cannot.
            let _ = open::remove_stale(&temporary);
        }
        done
    }

    /// Defragments if the file is several times what the live data needs, and says whether it did.
    /// To be called now and then by a background thread, best after a compaction.
    ///
    /// # Errors
    /// As [`defragment`](Backend::defragment), but one under way is no error.
    pub fn reclaim(&self) -> Result<bool, Error> {
        // A growing file doubles, so twice the need is nothing unusual. Large values leave pages
        // half empty whatever is done: the last copy showed how much that comes to.
        let needed = self.size_in_use().max(1) as f64 * self.shared.density();
        let size = self.size();
        if self.shared.path.is_none() || (size as f64) < 3.0 * needed + WORTHWHILE as f64 {
            return Ok(false);
        }
        match self.defragment() {
            Err(Error::Busy) => Ok(false),
            done => done.map(|()| true),
        }
    }

    /// Prepares for reading the whole store: has the system read its file in order and at ease, so that
    /// the pages of it need not be fetched from the disk one by one, in an order of their own, while the
    /// log wants the disk too. Takes about twice as long as the disk takes for that.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn read_ahead(&self) -> Result<(), Error> {
        let Some(path) = &self.shared.path else { return Ok(()) };
        let read = File::open(path).and_then(read_ahead);
        read.map_err(|error| io_failed("cannot read", path, &error))
    }

    fn copy_and_switch(&self, path: &Path, temporary: &Path) -> Result<(), Error> {
        open::remove_stale(temporary)?;
        let source = self.start_noting()?;
        self.read_ahead()?;
        let mut copy = Copy::create(temporary, self.shared.options.cache_bytes)?;
        copy.opened.at_ease.store(true, Ordering::Relaxed);
        copy.everything(&source)?;
        drop(source);
        copy.compact()?;
        for _ in 0..ROUNDS {
            let (touched, source) = self.take_touched()?;
            let few = touched.len() <= FEW;
            copy.look_again(&touched, &source)?;
            if few {
                break;
            }
        }
        copy.opened.at_ease.store(false, Ordering::Relaxed);
        let mut writer = self.shared.writer.lock();
        self.shared.health.check()?;
        let touched = writer.touched.take().unwrap_or_default();
        let source = Durable::of(&writer.database, &writer.length)?;
        copy.look_again(&touched, &source)?;
        drop(source);
        copy.record_allocator()?;
        self.switch(&mut writer, copy, path, temporary)
    }

    fn start_noting(&self) -> Result<Durable, Error> {
        let mut writer = self.shared.writer.lock();
        writer.touched = Some(Touched::default());
        Durable::of(&writer.database, &writer.length)
    }

    fn take_touched(&self) -> Result<(Touched, Durable), Error> {
        let mut writer = self.shared.writer.lock();
        let touched = writer.touched.replace(Touched::default()).unwrap_or_default();
        Ok((touched, Durable::of(&writer.database, &writer.length)?))
    }

    /// Puts the finished copy, durable already, in the old file's place.
    fn switch(&self, writer: &mut Writer, copy: Copy, path: &Path, temporary: &Path) -> Result<(), Error> {
        let Copy { opened: Opened { database, length, .. }, live, density } = copy;
        assert_eq!(live, writer.live, "live bytes of the copy, and as counted by the store");
        let database = Arc::new(database);
        let durable = Durable::of(&database, &length)?;
        std::fs::rename(temporary, path).map_err(|error| io_failed("cannot rename", temporary, &error))?;
        // From here on a crash may show either file under the name, so the directory has to be
        // durable before anything is written to the new one alone.
        self.shared.health.guard(|| open::sync_parent(path))?;
        self.shared.density.store(density.to_bits(), Ordering::Relaxed);
        writer.length = length;
        let old = std::mem::replace(&mut writer.database, database);
        writer.closed.push(old);
        self.publish(writer, durable, 0);
        Ok(())
    }
}

struct Copy {
    opened: Opened,
    live: Live,
    /// Bytes of file per live byte when packed.
    density: f64,
}

impl Copy {
    fn create(path: &Path, cache: usize) -> Result<Copy, Error> {
        Ok(Copy { opened: open::create_at(path, cache)?, live: Live::default(), density: 1.0 })
    }

    fn commit(&mut self, fill: impl FnOnce(&mut Commit) -> Result<(), Error>) -> Result<(), Error> {
        let mut commit = Commit::begin(&self.opened.database, self.live)?;
        fill(&mut commit)?;
        self.live = commit.finish()?;
        Ok(())
    }

    fn everything(&mut self, source: &Durable) -> Result<(), Error> {
        let mut rows = source.rows.iter().map_err(failed)?.peekable();
        while rows.peek().is_some() {
            let mut chunk = Vec::new();
            let mut bytes = 0;
            while chunk.len() < CHUNK && bytes < CHUNK_BYTES {
                let Some(entry) = rows.next() else { break };
                let (key, value) = entry.map_err(failed)?;
                bytes += value.value().len();
                chunk.push((*key.value(), row_of(key.value(), value.value())?));
            }
            self.commit(|commit| commit.put_rows(chunk.into_iter()))?;
        }
        for table in Table::ALL {
            let entries = source.table(table)?;
            let mut entries = entries.iter().map_err(failed)?.peekable();
            while entries.peek().is_some() {
                let mut ops = Vec::new();
                for entry in entries.by_ref().take(CHUNK) {
                    let (key, value) = entry.map_err(failed)?;
                    ops.push(TableOp::put(table, key.value().to_vec(), value.value().to_vec()));
                }
                self.commit(|commit| commit.change_tables(&ops))?;
            }
        }
        Ok(())
    }

    /// Packs the copy: what was appended leaves half of a doubled file empty.
    fn compact(&mut self) -> Result<(), Error> {
        self.opened.database.compact().map_err(failed)?;
        // Of a small store the ratio says how large an empty one is, and nothing about its values.
        if self.live.0 >= WORTHWHILE {
            self.density = self.opened.length.load(Ordering::Relaxed) as f64 / self.live.0 as f64;
        }
        Ok(())
    }

    /// Compaction leaves no allocator state behind, which would make the next start, if it comes
    /// before a flush and after a crash, walk the whole file. Any commit records it again.
    fn record_allocator(&mut self) -> Result<(), Error> {
        self.commit(|_| Ok(()))
    }

    /// Brings these keys to what they are in `source` now.
    fn look_again(&mut self, touched: &Touched, source: &Durable) -> Result<(), Error> {
        let mut keys = touched.rows.clone();
        keys.sort_unstable();
        keys.dedup();
        let mut keys = keys.into_iter().peekable();
        while keys.peek().is_some() {
            let (mut present, mut gone, mut bytes) = (Vec::new(), Vec::new(), 0);
            while present.len() + gone.len() < CHUNK && bytes < CHUNK_BYTES {
                let Some(key) = keys.next() else { break };
                match source.rows.get(&key).map_err(failed)? {
                    Some(value) => {
                        bytes += value.value().len();
                        present.push((key, row_of(&key, value.value())?));
                    }
                    None => gone.push(key),
                }
            }
            self.commit(|commit| {
                commit.put_rows(present.into_iter())?;
                commit.remove_rows(&gone)
            })?;
        }
        let mut entries = touched.entries.clone();
        entries.sort_unstable();
        entries.dedup();
        for entries in entries.chunks(CHUNK) {
            let mut ops = Vec::new();
            for (table, key) in entries {
                let value = source.table(*table)?.get(key.as_ref()).map_err(failed)?;
                let value = value.map(|value| Bytes::copy_from_slice(value.value()));
                ops.push(TableOp { table: *table, key: key.clone(), value });
            }
            self.commit(|commit| commit.change_tables(&ops))?;
        }
        Ok(())
    }
}

fn row_of(key: &RowKey, value: &[u8]) -> Result<Row, Error> {
    let (tombstone, record) = unwrap_row(key, value)?;
    Ok(Row { tombstone, record: Bytes::copy_from_slice(record) })
}

impl Touched {
    fn len(&self) -> usize {
        self.rows.len() + self.entries.len()
    }
}

/// Bytes of file per live byte after the last copy; 1 until one was made.
pub(crate) fn unknown_density() -> AtomicU64 {
    AtomicU64::new(1f64.to_bits())
}

impl crate::backend::Shared {
    /// Another state has the name: what the last copy showed is no more true.
    pub(crate) fn forget_density(&self) {
        self.density.store(1f64.to_bits(), Ordering::Relaxed);
    }

    fn density(&self) -> f64 {
        f64::from_bits(self.density.load(Ordering::Relaxed)).max(1.0)
    }
}
