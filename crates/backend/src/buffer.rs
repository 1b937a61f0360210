//! What is applied and not yet durable: rows in generations, batches in a queue.
//!
//! Rows go into the young generation, a skip list that readers search while it grows. At a seal
//! that makes it large enough (or when a flush finds no batch half written) it is frozen and a new
//! one begins. A flush writes whole batches from the oldest generations and, once they are
//! durable, drops a generation as one piece: no row is ever taken out of a list that a reader
//! searches, so a reader's picture (see `view`) never changes under it.

use crate::tables::{Consistent, Row, RowKey, Seal, Table, TableOp};
use bytes::Bytes;
use crossbeam_skiplist::SkipMap;
use std::collections::{BTreeMap, VecDeque};
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a buffered row costs in memory beside its record: list node, handle, allocator slack.
const ROW_OVERHEAD: usize = 128;

/// Bytes that count as much as one more row, so that large values do not make a large transaction.
const BYTES_PER_ROW: u64 = 1024;

/// What rows, or table changes, of so many bytes are worth against a limit given in rows.
fn weight(rows: usize, disk: u64) -> usize {
    rows.max((disk / BYTES_PER_ROW) as usize)
}

/// Numbers the batches of one process in order; the first is 1.
pub(crate) type Batch = u64;

/// A row and the batch it belongs to: a flush in the middle of a batch must leave it alone.
pub(crate) struct Held {
    pub(crate) batch: Batch,
    pub(crate) row: Row,
}

/// One skip list of rows.
pub(crate) struct Generation {
    pub(crate) rows: SkipMap<RowKey, Held>,
    // The main revisions present, so that a read of an old row passes by without a search. One
    // thread writes them, before the row goes in; readers may see them wider than the rows.
    lowest: AtomicU64,
    highest: AtomicU64,
    // The last batch with rows here; 0 while it is still growing.
    frozen_at: AtomicU64,
}

fn main_of(key: &RowKey) -> u64 {
    let mut main = [0; 8];
    main.copy_from_slice(&key[..8]);
    u64::from_be_bytes(main)
}

impl Generation {
    pub(crate) fn new() -> Generation {
        Generation {
            rows: SkipMap::new(),
            lowest: AtomicU64::new(u64::MAX),
            highest: AtomicU64::new(0),
            frozen_at: AtomicU64::new(0),
        }
    }

    fn insert(&self, key: RowKey, held: Held) {
        let main = main_of(&key);
        self.lowest.fetch_min(main, Ordering::Release);
        self.highest.fetch_max(main, Ordering::Release);
        self.rows.insert(key, held);
    }

    pub(crate) fn may_hold(&self, key: &RowKey) -> bool {
        let main = main_of(key);
        self.lowest.load(Ordering::Acquire) <= main && main <= self.highest.load(Ordering::Acquire)
    }

    pub(crate) fn overlaps(&self, range: &impl RangeBounds<RowKey>) -> bool {
        let (lowest, highest) = (self.lowest.load(Ordering::Acquire), self.highest.load(Ordering::Acquire));
        let starts = match range.start_bound() {
            Bound::Included(key) | Bound::Excluded(key) => main_of(key),
            Bound::Unbounded => 0,
        };
        let ends = match range.end_bound() {
            Bound::Included(key) | Bound::Excluded(key) => main_of(key),
            Bound::Unbounded => u64::MAX,
        };
        lowest <= ends && starts <= highest
    }

    /// Whether every row here belongs to `through` or an earlier batch, and none will follow.
    pub(crate) fn is_covered(&self, through: Batch) -> bool {
        let frozen_at = self.frozen_at.load(Ordering::Acquire);
        frozen_at != 0 && frozen_at <= through
    }
}

/// One thing to make durable, in the order it was handed over.
pub(crate) enum Item {
    /// A sealed batch; its rows are in the generations.
    Sealed { batch: Batch, rows: usize, memory: usize, disk: u64, seal: Seal },
    /// Table changes outside the log.
    Ops(Vec<TableOp>),
    /// Rows to remove.
    Removals(Vec<RowKey>),
}

/// What a flush took from the queue.
#[derive(Default)]
pub(crate) struct Work {
    /// The rows of batches after `after` up to and including `through`.
    pub(crate) after: Batch,
    pub(crate) through: Batch,
    pub(crate) rows: usize,
    pub(crate) ops: Vec<TableOp>,
    pub(crate) removals: Vec<RowKey>,
    /// How far the log is reflected, when a sealed batch is among it.
    pub(crate) consistent: Option<Consistent>,
    /// The last table change taken, by its number in the overlay.
    pub(crate) stamp: u64,
    /// What leaves the buffer: bytes of memory, and of disk space promised.
    pub(crate) memory: usize,
    pub(crate) disk: u64,
    pub(crate) more: bool,
}

impl Work {
    pub(crate) fn is_empty(&self) -> bool {
        self.consistent.is_none() && self.ops.is_empty() && self.removals.is_empty()
    }
}

/// The writers' side of the buffer; always under one lock, and never while a disk is waited for.
pub(crate) struct Queue {
    pub(crate) young: Arc<Generation>,
    young_rows: usize,
    young_disk: u64,
    // The batch that is being written, its rows, and what was asked for meanwhile: removals may
    // name rows of this very batch, so they are queued behind it.
    open: Batch,
    open_rows: usize,
    open_memory: usize,
    open_disk: u64,
    behind: Vec<Item>,
    items: VecDeque<Item>,
    // What flushes took so far: batches and, by count, table changes.
    flushed: Batch,
    taken_ops: u64,
    in_flight: bool,
    // Items put into the queue and taken out of it, ever.
    handed: u64,
    taken: u64,
    last_index: u64,
}

impl Queue {
    pub(crate) fn new(young: Arc<Generation>, durable_index: u64) -> Queue {
        Queue {
            young,
            young_rows: 0,
            young_disk: 0,
            open: 1,
            open_rows: 0,
            open_memory: 0,
            open_disk: 0,
            behind: Vec::new(),
            items: VecDeque::new(),
            flushed: 0,
            taken_ops: 0,
            in_flight: false,
            handed: 0,
            taken: 0,
            last_index: durable_index,
        }
    }

    /// Adds a row to the open batch; says what it adds to (memory, disk), in bytes.
    pub(crate) fn insert(&mut self, key: RowKey, row: Row) -> (usize, u64) {
        let memory = row.record.len() + ROW_OVERHEAD;
        let disk = crate::tables::row_bytes(row.record.len());
        self.young.insert(key, Held { batch: self.open, row });
        self.young_rows += 1;
        self.young_disk += disk;
        self.open_rows += 1;
        self.open_memory += memory;
        self.open_disk += disk;
        (memory, disk)
    }

    /// Ends the open batch; says what it adds to memory beside its rows.
    pub(crate) fn seal(&mut self, seal: Seal, overlay: &mut Overlay) -> usize {
        assert!(
            seal.index >= self.last_index,
            "batch sealed at index {} after one at {}: applied entries never go back",
            seal.index,
            self.last_index
        );
        self.last_index = seal.index;
        let ops = ops_memory(&seal.ops);
        overlay.add(&seal.ops);
        self.handed += 1;
        self.items.push_back(Item::Sealed {
            batch: self.open,
            rows: std::mem::take(&mut self.open_rows),
            memory: std::mem::take(&mut self.open_memory) + ops,
            disk: std::mem::take(&mut self.open_disk),
            seal,
        });
        self.open += 1;
        for item in std::mem::take(&mut self.behind) {
            self.enqueue(item, overlay);
        }
        ops
    }

    /// Queues something that belongs to no batch; says what it adds to memory.
    pub(crate) fn push(&mut self, item: Item, overlay: &mut Overlay) -> usize {
        let memory = match &item {
            Item::Ops(ops) => ops_memory(ops),
            Item::Removals(keys) => keys.len() * size_of::<RowKey>(),
            Item::Sealed { .. } => unreachable!("batches are sealed, not pushed"),
        };
        if self.open_rows > 0 {
            self.behind.push(item);
        } else {
            self.enqueue(item, overlay);
        }
        memory
    }

    fn enqueue(&mut self, item: Item, overlay: &mut Overlay) {
        if let Item::Ops(ops) = &item {
            overlay.add(ops);
        }
        self.handed += 1;
        self.items.push_back(item);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The last configuration that was sealed and not taken, if one was.
    pub(crate) fn newest_conf_state(&self) -> Option<Bytes> {
        self.items.iter().rev().find_map(|item| match item {
            Item::Sealed { seal, .. } => seal.conf_state.clone(),
            Item::Ops(_) | Item::Removals(_) => None,
        })
    }

    /// Whether no flush, begun or to come, has anything to take out of the buffer.
    pub(crate) fn is_drained(&self) -> bool {
        self.items.is_empty() && !self.in_flight
    }

    /// How many items were put into the queue, and how many taken out of it whole.
    pub(crate) fn progress(&self) -> (u64, u64) {
        (self.handed, self.taken)
    }

    /// What was taken last is durable.
    pub(crate) fn landed(&mut self) {
        self.in_flight = false;
    }

    /// Drops everything and begins again behind `durable_index`, the position of another state. Batches
    /// and changes keep counting up, for whoever waits for a number.
    pub(crate) fn start_anew(&mut self, young: Arc<Generation>, durable_index: u64, overlay: &mut Overlay) {
        overlay.clear();
        *self = Queue {
            open: self.open + 1,
            flushed: self.open,
            taken_ops: overlay.stamp,
            handed: self.handed,
            taken: self.handed,
            ..Queue::new(young, durable_index)
        };
    }

    /// How much the young generation holds, in rows of common size.
    pub(crate) fn young_weight(&self) -> usize {
        weight(self.young_rows, self.young_disk)
    }

    /// Freezes the young generation, unless it is empty or in the middle of a batch.
    pub(crate) fn rotate(&mut self) -> Option<Arc<Generation>> {
        if self.open_rows > 0 || self.young_rows == 0 {
            return None;
        }
        (self.young_rows, self.young_disk) = (0, 0);
        let frozen = std::mem::replace(&mut self.young, Arc::new(Generation::new()));
        frozen.frozen_at.store(self.open - 1, Ordering::Release);
        Some(frozen)
    }

    /// Takes whole items, oldest first, until they come to `limit` rows, changes and removals; at
    /// least one, and of a long list of removals only a part.
    pub(crate) fn take(&mut self, limit: usize) -> Work {
        let mut work = Work { after: self.flushed, through: self.flushed, ..Work::default() };
        let mut budget = limit.max(1);
        while let Some(item) = self.items.front_mut() {
            let cost = match item {
                Item::Sealed { rows, disk, seal, .. } => weight(*rows, *disk) + seal.ops.len(),
                Item::Ops(ops) => ops.len(),
                Item::Removals(_) => 0,
            };
            if !work.is_empty() && (budget == 0 || cost > budget) {
                break;
            }
            budget = budget.saturating_sub(cost);
            if let Item::Removals(keys) = item
                && keys.len() > budget
            {
                let rest = keys.split_off(budget.max(1));
                let part = std::mem::replace(keys, rest);
                work.memory += part.len() * size_of::<RowKey>();
                work.removals.extend(part);
                break;
            }
            let item = self.items.pop_front().expect("the front was just looked at");
            self.taken += 1;
            match item {
                Item::Sealed { batch, rows, memory, disk, seal } => {
                    work.through = batch;
                    work.rows += rows;
                    work.memory += memory;
                    work.disk += disk;
                    work.ops.extend(seal.ops);
                    let consistent = work.consistent.get_or_insert_default();
                    (consistent.index, consistent.term) = (seal.index, seal.term);
                    if seal.conf_state.is_some() {
                        consistent.conf_state = seal.conf_state;
                    }
                }
                Item::Ops(ops) => {
                    work.memory += ops_memory(&ops);
                    work.ops.extend(ops);
                }
                Item::Removals(keys) => {
                    budget -= keys.len();
                    work.memory += keys.len() * size_of::<RowKey>();
                    work.removals.extend(keys);
                }
            }
        }
        self.flushed = work.through;
        self.taken_ops += work.ops.len() as u64;
        work.stamp = self.taken_ops;
        self.in_flight = !work.is_empty();
        work.more = !self.items.is_empty();
        work
    }
}

fn ops_memory(ops: &[TableOp]) -> usize {
    ops.iter().map(|op| 2 * ROW_OVERHEAD + op.key.len() + op.value.as_ref().map_or(0, Bytes::len)).sum()
}

/// The newest value of every table entry that a sealed batch changed and no flush has written.
#[derive(Default)]
pub(crate) struct Overlay {
    tables: [BTreeMap<Bytes, (u64, Option<Bytes>)>; Table::ALL.len()],
    // Changes so far; numbers them in the order of the queue.
    stamp: u64,
}

impl Overlay {
    fn add(&mut self, ops: &[TableOp]) {
        for op in ops {
            self.stamp += 1;
            self.tables[op.table as usize].insert(op.key.clone(), (self.stamp, op.value.clone()));
        }
    }

    fn clear(&mut self) {
        self.tables = Default::default();
    }

    /// What waits for this key, if anything does: a value, or its removal.
    pub(crate) fn get(&self, table: Table, key: &[u8]) -> Option<Option<Bytes>> {
        self.tables[table as usize].get(key).map(|(_, value)| value.clone())
    }

    /// Everything that waits for this table, in key order.
    pub(crate) fn of(&self, table: Table) -> Vec<(Bytes, Option<Bytes>)> {
        let entries = self.tables[table as usize].iter();
        entries.map(|(key, (_, value))| (key.clone(), value.clone())).collect()
    }

    /// Forgets what a flush wrote: `ops`, the last of which has number `through`.
    pub(crate) fn forget(&mut self, ops: &[TableOp], through: u64) {
        for op in ops {
            let entries = &mut self.tables[op.table as usize];
            if entries.get(&op.key).is_some_and(|(stamp, _)| *stamp <= through) {
                entries.remove(&op.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(queue: &mut Queue, index: u64, rows: i64, size: usize) {
        for sub in 0..rows {
            let row = Row { tombstone: false, record: Bytes::from(vec![0; size]) };
            queue.insert(crate::row_key(index as i64, sub), row);
        }
        queue.seal(Seal { index, ..Seal::default() }, &mut Overlay::default());
    }

    #[test]
    fn large_values_make_small_transactions() {
        let mut queue = Queue::new(Arc::new(Generation::new()), 0);
        for index in 1..=10 {
            batch(&mut queue, index, 1, 100 << 10);
        }
        assert!(queue.young_weight() >= 1000);
        let work = queue.take(250);
        assert_eq!((work.rows, work.through, work.more), (2, 2, true));
        // One batch goes through however large it is.
        batch(&mut queue, 11, 1, 10 << 20);
        assert_eq!(queue.take(700).rows, 7);
        assert_eq!(queue.take(700).rows, 1, "the next would exceed the limit");
        assert_eq!(queue.take(700).rows, 1);
        assert!(queue.take(800).is_empty());
    }

    #[test]
    fn a_generation_is_frozen_between_batches_only() {
        let mut queue = Queue::new(Arc::new(Generation::new()), 0);
        assert!(queue.rotate().is_none(), "it is empty");
        batch(&mut queue, 1, 2, 10);
        let row = Row { tombstone: false, record: Bytes::new() };
        queue.insert(crate::row_key(2, 0), row);
        assert!(queue.rotate().is_none(), "a batch is half written");
        queue.seal(Seal { index: 2, ..Seal::default() }, &mut Overlay::default());
        let frozen = queue.rotate().expect("there are rows and no open batch");
        assert!(!frozen.is_covered(1) && frozen.is_covered(2));
        assert!(!queue.young.is_covered(u64::MAX), "it is still growing");
    }

    #[test]
    #[should_panic(expected = "sealed at index 4 after one at 5")]
    fn an_index_that_goes_back_is_a_bug() {
        let mut queue = Queue::new(Arc::new(Generation::new()), 5);
        batch(&mut queue, 4, 0, 0);
    }
}
