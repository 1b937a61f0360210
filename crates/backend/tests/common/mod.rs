//! What the tests share: seeded chance, a disk in memory that can fail and lose power, and a
//! model of the store as plain maps.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use backend::{Backend, Row, RowKey, Seal, StorageBackend, Table, TableOp, View, row_key};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

/// splitmix64.
pub struct Chance(pub u64);

impl Chance {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }
}

const SECTOR: usize = 512;

/// A disk that remembers what was synced and what was only written.
#[derive(Debug, Default)]
pub struct Platter {
    synced: Vec<u8>,
    written: Vec<u8>,
    /// Since the last sync: the sectors that changed.
    dirty: std::collections::BTreeSet<usize>,
    pub calls: u64,
    pub fail_at: Option<u64>,
    /// Whether every call after the failing one fails too: the power is gone.
    pub power_cut: bool,
}

#[derive(Clone, Debug, Default)]
pub struct MemoryDisk(pub Arc<Mutex<Platter>>);

impl MemoryDisk {
    pub fn boxed(&self) -> Box<dyn StorageBackend> {
        Box::new(self.clone())
    }

    pub fn calls(&self) -> u64 {
        self.0.lock().unwrap().calls
    }

    /// A disk whose `call`-th call from now fails, with all after it if the power is cut.
    pub fn fail(&self, call: u64, power_cut: bool) {
        let mut platter = self.0.lock().unwrap();
        platter.fail_at = Some(platter.calls + call);
        platter.power_cut = power_cut;
    }

    /// A sound disk with what this one would show after a restart of the process alone.
    pub fn after_restart(&self) -> MemoryDisk {
        let platter = self.0.lock().unwrap();
        let written = platter.written.clone();
        let fresh = Platter { synced: written.clone(), written, ..Platter::default() };
        MemoryDisk(Arc::new(Mutex::new(fresh)))
    }

    /// A sound disk with what this one might show after a power loss: everything synced, and of
    /// the sectors written since, any.
    pub fn after_power_loss(&self, chance: &mut Chance) -> MemoryDisk {
        let platter = self.0.lock().unwrap();
        let mut image = platter.synced.clone();
        // The length travels with the metadata: either is possible until a sync.
        if platter.written.len() != image.len() && chance.one_in(2) {
            image.resize(platter.written.len(), 0);
        }
        let kept = chance.below(4);
        for sector in &platter.dirty {
            let (from, to) = (sector * SECTOR, ((sector + 1) * SECTOR).min(platter.written.len()));
            let keep = match kept {
                0 => false,
                1 => true,
                _ => chance.one_in(2),
            };
            if keep && from < to && to <= image.len() {
                image[from..to].copy_from_slice(&platter.written[from..to]);
            }
        }
        let fresh = Platter { synced: image.clone(), written: image, ..Platter::default() };
        MemoryDisk(Arc::new(Mutex::new(fresh)))
    }

    fn call(&self) -> io::Result<std::sync::MutexGuard<'_, Platter>> {
        let mut platter = self.0.lock().unwrap();
        platter.calls += 1;
        match platter.fail_at {
            Some(at) if platter.calls == at || (platter.power_cut && platter.calls > at) => {
                Err(io::Error::other("the disk said no"))
            }
            _ => Ok(platter),
        }
    }
}

impl StorageBackend for MemoryDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.call()?.written.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let platter = self.call()?;
        let from = offset as usize;
        let bytes = platter.written.get(from..from + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut platter = self.call()?;
        let len = len as usize;
        if len < platter.written.len() {
            // What is cut off is gone when the file grows again.
            let old = platter.written.len();
            platter.dirty.extend(len / SECTOR..old.div_ceil(SECTOR));
        }
        platter.written.resize(len, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut platter = self.call()?;
        let Platter { synced, written, dirty, .. } = &mut *platter;
        synced.resize(written.len(), 0);
        for sector in std::mem::take(dirty) {
            let (from, to) = (sector * SECTOR, ((sector + 1) * SECTOR).min(written.len()));
            if from < to {
                synced[from..to].copy_from_slice(&written[from..to]);
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut platter = self.call()?;
        let from = offset as usize;
        let to = from + data.len();
        platter.written[from..to].copy_from_slice(data);
        platter.dirty.extend(from / SECTOR..to.div_ceil(SECTOR));
        Ok(())
    }
}

/// The contents of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    pub index: u64,
    pub rows: BTreeMap<RowKey, (bool, Vec<u8>)>,
    pub entries: BTreeMap<(Table, Vec<u8>), Vec<u8>>,
}

pub fn rows_of(
    view: &View,
    from: RowKey,
    to: RowKey,
) -> Result<BTreeMap<RowKey, (bool, Vec<u8>)>, backend::Error> {
    let mut rows = BTreeMap::new();
    let mut last = None;
    view.for_each_row(from, to, |key, tombstone, record| {
        assert!(last < Some(*key), "rows out of order: {last:?} before {key:?}");
        last = Some(*key);
        rows.insert(*key, (tombstone, record.to_vec()));
        ControlFlow::Continue(())
    })?;
    Ok(rows)
}

pub fn all_rows(view: &View) -> BTreeMap<RowKey, (bool, Vec<u8>)> {
    rows_of(view, row_key(0, 0), row_key(i64::MAX, 0)).unwrap()
}

pub fn entries_of(store: &Backend) -> BTreeMap<(Table, Vec<u8>), Vec<u8>> {
    let mut entries = BTreeMap::new();
    for table in Table::ALL {
        store
            .scan_table(table, |key, value| {
                let position: [&[u8]; 3] = [b"consistent_index", b"term", b"confState"];
                if table != Table::Meta || !position.contains(&key) {
                    entries.insert((table, key.to_vec()), value.to_vec());
                }
            })
            .unwrap();
    }
    entries
}

impl Contents {
    pub fn of(store: &Backend) -> Contents {
        let rows = all_rows(&store.view().unwrap());
        Contents { index: store.consistent().index, rows, entries: entries_of(store) }
    }

    fn change(&mut self, op: &TableOp) {
        let key = (op.table, op.key.to_vec());
        match &op.value {
            Some(value) => self.entries.insert(key, value.to_vec()),
            None => self.entries.remove(&key),
        };
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Sealed { index, rows, ops } => {
                self.index = *index;
                self.rows.extend(rows.clone());
                ops.iter().for_each(|op| self.change(op));
            }
            Step::Note(ops) => ops.iter().for_each(|op| self.change(op)),
            Step::Remove(key) => {
                self.rows.remove(key);
            }
        }
    }
}

/// One thing that becomes durable as a whole.
#[derive(Clone, Debug)]
pub enum Step {
    Sealed { index: u64, rows: Vec<(RowKey, (bool, Vec<u8>))>, ops: Vec<TableOp> },
    Note(Vec<TableOp>),
    Remove(RowKey),
}

/// A store and the plain truth about it: what is certainly durable, and what came after, in order.
#[derive(Clone)]
pub struct Twin {
    pub durable: Contents,
    pub steps: VecDeque<Step>,
    pub open: Vec<(RowKey, (bool, Vec<u8>))>,
    /// Every row that was there since the store was opened.
    pub ever: BTreeMap<RowKey, (bool, Vec<u8>)>,
    behind: Vec<Step>,
    pub next_main: i64,
    pub next_index: u64,
}

impl Default for Twin {
    fn default() -> Twin {
        Twin {
            durable: Contents::default(),
            steps: VecDeque::new(),
            open: Vec::new(),
            ever: BTreeMap::new(),
            behind: Vec::new(),
            next_main: 1,
            next_index: 1,
        }
    }
}

impl Twin {
    /// Everything handed over so far and sealed.
    pub fn sealed(&self) -> Contents {
        let mut contents = self.durable.clone();
        self.steps.iter().for_each(|step| contents.take(step));
        contents
    }

    pub fn insert(&mut self, store: &Backend, chance: &mut Chance) {
        let key = row_key(self.next_main, 0);
        self.next_main += 1 + chance.below(3) as i64;
        let size = if chance.one_in(40) { 9_000 } else { chance.below(120) };
        let record = vec![chance.next() as u8; size];
        let tombstone = chance.one_in(5);
        store.insert_row(key, Row { tombstone, record: record.clone().into() });
        self.ever.insert(key, (tombstone, record.clone()));
        self.open.push((key, (tombstone, record)));
    }

    fn ops(chance: &mut Chance) -> Vec<TableOp> {
        let op = |chance: &mut Chance| {
            let table = Table::ALL[chance.below(Table::ALL.len())];
            let key = vec![b'a' + chance.below(6) as u8];
            if chance.one_in(3) {
                TableOp::delete(table, key)
            } else {
                TableOp::put(table, key, vec![chance.next() as u8; chance.below(40)])
            }
        };
        (0..chance.below(4)).map(|_| op(chance)).collect()
    }

    pub fn seal(&mut self, store: &Backend, chance: &mut Chance) {
        let ops = Twin::ops(chance);
        let index = self.next_index;
        self.next_index += 1;
        store.seal(Seal {
            index,
            term: 1,
            conf_state: Some(Bytes::from(format!("c{index}"))),
            ops: ops.clone(),
        });
        self.steps.push_back(Step::Sealed { index, rows: std::mem::take(&mut self.open), ops });
        self.steps.extend(self.behind.drain(..));
    }

    pub fn note(&mut self, store: &Backend, chance: &mut Chance) {
        let ops = Twin::ops(chance);
        store.write_ops(ops.clone());
        self.queue(Step::Note(ops));
    }

    pub fn remove(&mut self, store: &Backend, chance: &mut Chance) {
        let known: Vec<RowKey> =
            self.sealed().rows.keys().copied().chain(self.open.iter().map(|(key, _)| *key)).collect();
        let mut keys: Vec<RowKey> = known.into_iter().filter(|_| chance.one_in(3)).collect();
        keys.truncate(12);
        store.delete_rows(keys.clone());
        keys.into_iter().for_each(|key| self.queue(Step::Remove(key)));
    }

    fn queue(&mut self, step: Step) {
        if self.open.is_empty() {
            self.steps.push_back(step);
        } else {
            self.behind.push(step);
        }
    }

    /// The store was flushed until nothing was left.
    pub fn all_durable(&mut self) {
        self.durable = self.sealed();
        self.steps.clear();
    }

    /// A flush said that this index is durable.
    pub fn durable_at(&mut self, index: u64) {
        while self.durable.index < index {
            let step = self.steps.pop_front().unwrap();
            self.durable.take(&step);
        }
    }

    /// The store was closed or lost power, and opened again: it must hold what was durable and
    /// some of the steps after it, none left out in between, none in part.
    pub fn reopened(&mut self, store: &Backend) {
        let found = Contents::of(store);
        let conf = store.consistent().conf_state;
        let expected = (found.index > 0).then(|| Bytes::from(format!("c{}", found.index)));
        assert_eq!(conf, expected, "the configuration is of another index");
        while self.durable != found {
            let Some(step) = self.steps.pop_front() else {
                panic!("the store holds what it never held: {found:?}\nlast: {:?}", self.durable);
            };
            self.durable.take(&step);
        }
        self.steps.clear();
        self.open.clear();
        self.behind.clear();
        self.ever = self.durable.rows.clone();
    }
}
