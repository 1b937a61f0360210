//! From the buffer to redb: the one way anything becomes durable.
//!
//! A flush is one redb transaction: the rows and table changes of whole batches, removals, the
//! consistent index, term and configuration of the last of those batches, and the count of live
//! bytes. There is no other commit in this crate but the one that creates a store and the copy
//! that a defragmentation makes, so nothing can move the index without its effects or the effects
//! without their index.

use crate::buffer::{Generation, Work};
use crate::error::{Error, failed};
use crate::tables::{
    LIVE_BYTES, OWN, ROWS, Row, RowKey, Table, TableOp, entry_bytes, position, record_len, row_bytes,
    wrap_row,
};
use bytes::Bytes;
use redb::{Database, Durability, ReadableTable, WriteTransaction};
use std::ops::Bound;
use std::sync::Arc;

/// Counts live bytes as they change. What a commit wrote is exactly what it counted, so the number
/// in the store never drifts from its contents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Live(pub(crate) u64);

impl Live {
    pub(crate) fn change(&mut self, old: Option<u64>, new: Option<u64>) {
        let gone = old.unwrap_or(0);
        assert!(self.0 >= gone, "{gone} bytes removed from a store that counts {}", self.0);
        self.0 = self.0 - gone + new.unwrap_or(0);
    }
}

/// A write transaction that is durable when `finish` returns, and keeps the count of live bytes.
pub(crate) struct Commit {
    transaction: WriteTransaction,
    pub(crate) live: Live,
    pub(crate) rows: usize,
    pub(crate) bytes: usize,
}

impl Commit {
    pub(crate) fn begin(database: &Database, live: Live) -> Result<Commit, Error> {
        let mut transaction = database.begin_write().map_err(failed)?;
        transaction.set_durability(Durability::Immediate).map_err(failed)?;
        // Records the allocator's state with every commit, so that a start after a crash is a
        // matter of milliseconds and not of a walk over the whole file.
        transaction.set_quick_repair(true);
        Ok(Commit { transaction, live, rows: 0, bytes: 0 })
    }

    /// Writes rows. Those that ascend past everything stored, as new revisions do, are appended;
    /// the rest are inserted where they belong.
    pub(crate) fn put_rows(&mut self, rows: impl Iterator<Item = (RowKey, Row)>) -> Result<(), Error> {
        let mut table = self.transaction.open_table(ROWS).map_err(failed)?;
        let mut last = table.last().map_err(failed)?.map(|(key, _)| *key.value());
        let mut stragglers = Vec::new();
        let mut value = Vec::new();
        let mut end = table.upper_bound_mut(Bound::<&RowKey>::Unbounded).map_err(failed)?;
        for (key, row) in rows {
            self.rows += 1;
            self.bytes += size_of::<RowKey>() + row.record.len();
            if last.is_some_and(|last| key <= last) {
                stragglers.push((key, row));
                continue;
            }
            wrap_row(&key, &row, &mut value);
            end.insert_before(&key, value.as_slice()).map_err(failed)?;
            self.live.change(None, Some(row_bytes(row.record.len())));
            last = Some(key);
        }
        end.close().map_err(failed)?;
        for (key, row) in stragglers {
            wrap_row(&key, &row, &mut value);
            let old = table.insert(&key, value.as_slice()).map_err(failed)?;
            let old = old.map(|old| row_bytes(record_len(old.value())));
            self.live.change(old, Some(row_bytes(row.record.len())));
        }
        Ok(())
    }

    pub(crate) fn remove_rows(&mut self, keys: &[RowKey]) -> Result<(), Error> {
        let mut table = self.transaction.open_table(ROWS).map_err(failed)?;
        for key in keys {
            if let Some(old) = table.remove(key).map_err(failed)? {
                self.live.change(Some(row_bytes(record_len(old.value()))), None);
            }
        }
        Ok(())
    }

    pub(crate) fn change_tables(&mut self, ops: &[TableOp]) -> Result<(), Error> {
        for run in ops.chunk_by(|one, next| one.table == next.table) {
            let mut table = self.transaction.open_table(run[0].table.definition()).map_err(failed)?;
            for op in run {
                let key = op.key.as_ref();
                let old = match &op.value {
                    Some(value) => table.insert(key, value.as_ref()).map_err(failed)?,
                    None => table.remove(key).map_err(failed)?,
                };
                let old = old.map(|old| entry_bytes(key.len(), old.value().len()));
                let new = op.value.as_ref().map(|value| entry_bytes(key.len(), value.len()));
                self.live.change(old, new);
                self.bytes += key.len() + op.value.as_ref().map_or(0, Bytes::len);
            }
        }
        Ok(())
    }

    /// Creates whatever table is not there yet, so that readers can open each.
    pub(crate) fn create_tables(&mut self) -> Result<(), Error> {
        self.transaction.open_table(ROWS).map_err(failed)?;
        for table in Table::ALL {
            self.transaction.open_table(table.definition()).map_err(failed)?;
        }
        let mut own = self.transaction.open_table(OWN).map_err(failed)?;
        let (key, value) = crate::tables::FORMAT;
        own.insert(key, value).map_err(failed)?;
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<Live, Error> {
        {
            let mut own = self.transaction.open_table(OWN).map_err(failed)?;
            own.insert(LIVE_BYTES, self.live.0.to_be_bytes().as_slice()).map_err(failed)?;
        }
        self.transaction.commit().map_err(failed)?;
        Ok(self.live)
    }
}

/// Writes what a flush took; `generations` are oldest first. Says what it wrote.
pub(crate) fn write(
    database: &Database,
    generations: &[Arc<Generation>],
    work: &Work,
    live: Live,
) -> Result<Commit, Error> {
    let mut commit = Commit::begin(database, live)?;
    let rows = generations.iter().flat_map(|generation| generation.rows.iter()).filter_map(|entry| {
        let held = entry.value();
        let due = work.after < held.batch && held.batch <= work.through;
        due.then(|| (*entry.key(), held.row.clone()))
    });
    commit.put_rows(rows)?;
    assert!(commit.rows <= work.rows, "{} rows flushed of {} sealed", commit.rows, work.rows);
    commit.change_tables(&work.ops)?;
    if let Some(consistent) = &work.consistent {
        let position: Vec<TableOp> = position(consistent).collect();
        commit.change_tables(&position)?;
    }
    commit.remove_rows(&work.removals)?;
    Ok(commit)
}
