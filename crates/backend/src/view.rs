//! What readers see: generations of buffered rows over one redb read transaction.
//!
//! The writers never change what a reader has taken: a flush publishes a new [`Picture`], with the
//! rows in redb and their generations gone, in one step. So a row cannot slip from the buffer to
//! redb between two looks of one reader; there is nothing to retry and nothing to deduplicate but
//! a row that was flushed while its generation still grew, which is the same in both places.

use crate::buffer::{Generation, Held};
use crate::error::{Error, failed};
use crate::health::Health;
use crate::tables::{ROWS, Row, RowKey, Table, unwrap_row};
use bytes::Bytes;
use crossbeam_skiplist::map;
use redb::{
    Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata,
};
use std::ops::{Bound, ControlFlow, Range, RangeInclusive};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// The durable part: one redb read transaction, with the table of rows open.
///
/// It pins the pages of its commit. The published one lives until the next flush has published
/// its own, which delays the reuse of freed pages by one flush and no more.
pub(crate) struct Durable {
    // In this order: redb closes when the database goes, and reads must be over by then.
    pub(crate) rows: ReadOnlyTable<&'static RowKey, &'static [u8]>,
    transaction: ReadTransaction,
    pub(crate) length: Arc<AtomicU64>,
    database: Arc<Database>,
}

impl Durable {
    pub(crate) fn of(database: &Arc<Database>, length: &Arc<AtomicU64>) -> Result<Durable, Error> {
        let transaction = database.begin_read().map_err(failed)?;
        let rows = transaction.open_table(ROWS).map_err(failed)?;
        Ok(Durable { rows, transaction, length: length.clone(), database: database.clone() })
    }

    /// How many there are of the same database: each holds it, and so does the writer.
    pub(crate) fn open(&self) -> usize {
        Arc::strong_count(&self.database) - 1
    }

    pub(crate) fn transaction(&self) -> &ReadTransaction {
        &self.transaction
    }

    pub(crate) fn table(&self, table: Table) -> Result<ReadOnlyTable<&'static [u8], &'static [u8]>, Error> {
        self.transaction.open_table(table.definition()).map_err(failed)
    }
}

/// Everything a reader needs, published as one piece.
#[derive(Clone)]
pub(crate) struct Picture {
    /// Newest first: the young generation, still growing, then the frozen ones.
    pub(crate) generations: Vec<Arc<Generation>>,
    pub(crate) durable: Arc<Durable>,
}

impl Picture {
    /// Reads one row in place: `(tombstone, record)`.
    pub(crate) fn read<T>(
        &self,
        key: &RowKey,
        read: impl FnOnce(bool, &[u8]) -> T,
    ) -> Result<Option<T>, Error> {
        if let Some(entry) = self.buffered(key) {
            let row = &entry.value().row;
            return Ok(Some(read(row.tombstone, &row.record)));
        }
        let Some(stored) = self.durable.rows.get(key).map_err(failed)? else {
            return Ok(None);
        };
        let (tombstone, record) = unwrap_row(key, stored.value())?;
        Ok(Some(read(tombstone, record)))
    }

    /// The record of one row: a handle on the buffered one, or a copy of the stored one.
    pub(crate) fn get(&self, key: &RowKey) -> Result<Option<Bytes>, Error> {
        if let Some(entry) = self.buffered(key) {
            return Ok(Some(entry.value().row.record.clone()));
        }
        let Some(stored) = self.durable.rows.get(key).map_err(failed)? else {
            return Ok(None);
        };
        Ok(Some(Bytes::copy_from_slice(unwrap_row(key, stored.value())?.1)))
    }

    fn buffered(&self, key: &RowKey) -> Option<map::Entry<'_, RowKey, Held>> {
        let mut candidates = self.generations.iter().filter(|generation| generation.may_hold(key));
        candidates.find_map(|generation| generation.rows.get(key))
    }

    /// Visits the rows of a range in order, each once.
    pub(crate) fn scan(
        &self,
        range: (Bound<RowKey>, Bound<RowKey>),
        mut visit: impl FnMut(&RowKey, bool, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        if is_empty(&range) {
            return Ok(());
        }
        let mut buffered = Buffered::new(&self.generations, range);
        let stored = self.durable.rows.range::<&RowKey>((range.0.as_ref(), range.1.as_ref()));
        for entry in stored.map_err(failed)? {
            let (key, value) = entry.map_err(failed)?;
            let key = key.value();
            let mut written_over = false;
            while let Some((at, row)) = buffered.next_up_to(key) {
                written_over = at == *key;
                if visit(&at, row.tombstone, &row.record).is_break() {
                    return Ok(());
                }
            }
            if !written_over {
                let (tombstone, record) = unwrap_row(key, value.value())?;
                if visit(key, tombstone, record).is_break() {
                    return Ok(());
                }
            }
        }
        while let Some((at, row)) = buffered.next() {
            if visit(&at, row.tombstone, &row.record).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn ends(&self) -> Result<Option<RangeInclusive<RowKey>>, Error> {
        let first = self.durable.rows.first().map_err(failed)?.map(|(key, _)| *key.value());
        let last = self.durable.rows.last().map_err(failed)?.map(|(key, _)| *key.value());
        let mut keys: Vec<RowKey> = first.into_iter().chain(last).collect();
        for generation in &self.generations {
            keys.extend(generation.rows.front().map(|entry| *entry.key()));
            keys.extend(generation.rows.back().map(|entry| *entry.key()));
        }
        Ok(keys.iter().min().zip(keys.iter().max()).map(|(first, last)| *first..=*last))
    }
}

fn is_empty(range: &(Bound<RowKey>, Bound<RowKey>)) -> bool {
    match range {
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (Bound::Included(from) | Bound::Excluded(from), Bound::Excluded(to) | Bound::Included(to)) => {
            from >= to
        }
        _ => false,
    }
}

type Rows<'a> = map::Range<'a, RowKey, (Bound<RowKey>, Bound<RowKey>), RowKey, Held>;

/// The generations' rows in one order; of rows with the same key, the newest generation's.
struct Buffered<'a> {
    sources: Vec<(Option<map::Entry<'a, RowKey, Held>>, Rows<'a>)>,
}

impl<'a> Buffered<'a> {
    fn new(generations: &'a [Arc<Generation>], range: (Bound<RowKey>, Bound<RowKey>)) -> Buffered<'a> {
        let mut sources = Vec::new();
        for generation in generations.iter().filter(|generation| generation.overlaps(&range)) {
            let mut rows = generation.rows.range(range);
            let head = rows.next();
            sources.push((head, rows));
        }
        Buffered { sources }
    }

    fn lowest(&self) -> Option<RowKey> {
        self.sources.iter().filter_map(|(head, _)| head.as_ref().map(|entry| *entry.key())).min()
    }

    fn next_up_to(&mut self, limit: &RowKey) -> Option<(RowKey, Row)> {
        // Every row in redb passes here: most of the time there is nothing buffered to merge.
        if self.sources.is_empty() {
            return None;
        }
        self.lowest().filter(|key| key <= limit).and_then(|key| self.take(key))
    }

    fn next(&mut self) -> Option<(RowKey, Row)> {
        self.lowest().and_then(|key| self.take(key))
    }

    fn take(&mut self, key: RowKey) -> Option<(RowKey, Row)> {
        let mut taken = None;
        for (head, rows) in &mut self.sources {
            if let Some(entry) = head
                && *entry.key() == key
            {
                taken.get_or_insert_with(|| entry.value().row.clone());
                *head = rows.next();
            }
        }
        self.sources.retain(|(head, _)| head.is_some());
        taken.map(|row| (key, row))
    }
}

/// One reader's picture of the rows: whatever was inserted when it was taken stays visible in it,
/// flushed, compacted or not. Rows inserted later may show.
///
/// Take it after the revision that is to be read is known, and drop it soon: it pins the buffered
/// rows and the freed pages of its time, so the file grows while an old one lives.
#[derive(Clone)]
pub struct View {
    picture: Arc<Picture>,
    health: Arc<Health>,
}

impl View {
    pub(crate) fn new(picture: Arc<Picture>, health: Arc<Health>) -> View {
        View { picture, health }
    }

    /// The record at a revision, owned by an allocation of its own.
    ///
    /// # Errors
    /// When the disk fails; the whole store is closed then.
    pub fn get(&self, key: &RowKey) -> Result<Option<Bytes>, Error> {
        self.health.guard(|| self.picture.get(key))
    }

    /// Reads the record at a revision in place, without a copy: `(tombstone, record)`.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn read<T>(&self, key: &RowKey, read: impl FnOnce(bool, &[u8]) -> T) -> Result<Option<T>, Error> {
        self.health.guard(|| self.picture.read(key, read))
    }

    /// Visits the rows in `from..to` in order, each once, in place: `(key, tombstone, record)`.
    ///
    /// # Errors
    /// When the disk fails; rows visited before that were right.
    pub fn for_each_row(
        &self,
        from: RowKey,
        to: RowKey,
        visit: impl FnMut(&RowKey, bool, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let range = (Bound::Included(from), Bound::Excluded(to));
        self.health.guard(|| self.picture.scan(range, visit))
    }

    /// How many rows there are; a row that is in the buffer and in redb counts twice.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn approximate_rows(&self) -> Result<u64, Error> {
        let buffered: usize = self.picture.generations.iter().map(|g| g.rows.len()).sum();
        let durable = self.health.guard(|| self.picture.durable.rows.len().map_err(failed))?;
        Ok(durable + buffered as u64)
    }

    /// Cuts all rows into at most `parts` ranges, in order, for scans on several threads.
    ///
    /// The cuts divide the revisions evenly, not the rows (compaction leaves old revisions sparse):
    /// ask for several ranges per thread and let each thread take the next when it is done.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn split(&self, parts: usize) -> Result<Vec<Range<RowKey>>, Error> {
        let Some(ends) = self.health.guard(|| self.picture.ends())? else { return Ok(Vec::new()) };
        let (first, last) = (u128_of(ends.start()), u128_of(ends.end()) + 1);
        let parts = (parts.max(1) as u128).min(last - first);
        let cut = |part: u128| key_of(first + (last - first) / parts * part);
        let mut ranges: Vec<_> = (0..parts).map(|part| cut(part)..cut(part + 1)).collect();
        if let Some(range) = ranges.last_mut() {
            range.end = key_of(last);
        }
        Ok(ranges)
    }
}

// A key as a number that sorts as the key does: the 16 bytes beside the separator.

fn u128_of(key: &RowKey) -> u128 {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&key[..8]);
    bytes[8..].copy_from_slice(&key[9..]);
    u128::from_be_bytes(bytes)
}

fn key_of(number: u128) -> RowKey {
    let bytes = number.to_be_bytes();
    let mut key = [b'_'; 17];
    key[..8].copy_from_slice(&bytes[..8]);
    key[9..].copy_from_slice(&bytes[8..]);
    key
}
