//! The contract kept by plain maps in memory.

use crate::{Consistent, Error, Flushed, Options, Row, RowKey, Seal, Storage, Table, TableOp};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

#[derive(Default)]
struct State {
    rows: BTreeMap<RowKey, Row>,
    tables: BTreeMap<(Table, Bytes), Bytes>,
    sealed: Consistent,
    durable: Consistent,
}

/// A handle on the store; clones share it.
#[derive(Clone)]
pub struct Backend {
    state: Arc<Mutex<State>>,
}

/// One reader's unchanging picture of the store.
pub struct View {
    state: Arc<Mutex<State>>,
}

impl Backend {
    /// Opens or creates the store.
    pub fn open(_storage: Storage, _options: Options) -> Result<Backend, Error> {
        Ok(Backend { state: Arc::default() })
    }
    /// Adds a row; readers see it at once.
    pub fn insert_row(&self, key: RowKey, row: Row) {
        self.state.lock().rows.insert(key, row);
    }
    /// Ends an apply batch.
    pub fn seal(&self, seal: Seal) {
        self.write_ops(seal.ops);
        let mut state = self.state.lock();
        state.sealed.index = seal.index;
        state.sealed.term = seal.term;
        if seal.conf_state.is_some() {
            state.sealed.conf_state = seal.conf_state;
        }
    }
    /// Changes tables outside the log: what this member alone notes down, such as how far its
    /// compaction came. Durable after everything queued before it, never before.
    pub fn write_ops(&self, ops: Vec<TableOp>) {
        let mut state = self.state.lock();
        for op in ops {
            match op.value {
                Some(value) => state.tables.insert((op.table, op.key), value),
                None => state.tables.remove(&(op.table, op.key)),
            };
        }
    }
    /// Removes rows, with a later flush.
    pub fn delete_rows(&self, keys: Vec<RowKey>) {
        let mut state = self.state.lock();
        for key in keys {
            state.rows.remove(&key);
        }
    }
    /// Makes sealed batches durable, oldest first, in one transaction.
    pub fn flush(&self) -> Result<Flushed, Error> {
        let mut state = self.state.lock();
        state.durable = state.sealed.clone();
        Ok(Flushed { index: state.durable.index, term: state.durable.term, ..Flushed::default() })
    }
    /// Flushes until nothing sealed is left.
    pub fn flush_all(&self) -> Result<Flushed, Error> {
        self.flush()
    }
    /// Bytes that wait for a flush.
    pub fn buffered_bytes(&self) -> usize {
        0
    }
    /// Waits until a flush is worth it or the time is over.
    pub fn wait_for_work(&self, _timeout: Duration) -> bool {
        false
    }
    /// Waits until the buffer is within its bound.
    pub fn wait_for_room(&self) -> Result<(), Error> {
        Ok(())
    }
    /// The record at a revision.
    pub fn get(&self, key: &RowKey) -> Result<Option<Bytes>, Error> {
        Ok(self.state.lock().rows.get(key).map(|row| row.record.clone()))
    }
    /// A picture for many reads.
    pub fn view(&self) -> Result<View, Error> {
        Ok(View { state: self.state.clone() })
    }
    /// Every entry of a table, in key order, sealed ones included.
    pub fn scan_table(&self, table: Table, mut visit: impl FnMut(&[u8], &[u8])) -> Result<(), Error> {
        for ((_, key), value) in self.state.lock().tables.iter().filter(|((t, _), _)| *t == table) {
            visit(key, value);
        }
        Ok(())
    }
    /// One entry of a table, sealed ones included.
    pub fn table_get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Error> {
        Ok(self.state.lock().tables.get(&(table, Bytes::copy_from_slice(key))).cloned())
    }
    /// How far the durable state reaches.
    pub fn consistent(&self) -> Consistent {
        self.state.lock().durable.clone()
    }
    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        self.size_in_use()
    }
    /// Bytes of live data.
    pub fn size_in_use(&self) -> u64 {
        self.state.lock().rows.values().map(|row| row.record.len() as u64 + 18).sum()
    }
    /// Rewrites the store into as little space as it needs.
    pub fn defragment(&self) -> Result<(), Error> {
        Ok(())
    }
    /// Defragments if enough space would come back; says whether it did.
    pub fn reclaim(&self) -> Result<bool, Error> {
        Ok(false)
    }
    /// CRC-32C over everything durable, after a flush.
    pub fn hash_tables(&self) -> Result<u32, Error> {
        Ok(0)
    }
}

impl View {
    /// The record at a revision.
    pub fn get(&self, key: &RowKey) -> Result<Option<Bytes>, Error> {
        self.read(key, |_, record| Bytes::copy_from_slice(record))
    }
    /// Reads the record at a revision in place: `(tombstone, record)`.
    pub fn read<T>(&self, key: &RowKey, read: impl FnOnce(bool, &[u8]) -> T) -> Result<Option<T>, Error> {
        Ok(self.state.lock().rows.get(key).map(|row| read(row.tombstone, &row.record)))
    }
    /// Visits the rows in `from..to` in order: `(key, tombstone, record)`.
    pub fn for_each_row(
        &self,
        from: RowKey,
        to: RowKey,
        mut visit: impl FnMut(&RowKey, bool, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        for (key, row) in self.state.lock().rows.range(from..to) {
            if visit(key, row.tombstone, &row.record).is_break() {
                break;
            }
        }
        Ok(())
    }
    /// Keys that cut the rows into at most `parts` ranges, for scans side by side.
    pub fn split_points(&self, _parts: usize) -> Result<Vec<RowKey>, Error> {
        Ok(Vec::new())
    }
}
