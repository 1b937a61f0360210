//! Rebuilding the index from the stored rows.
//!
//! Rows are stored by revision and the index is ordered by key, so opening a store is a sort. Inserting row
//! by row into the tree would be a random walk through memory for each; instead the rows are read in pieces,
//! by as many threads as there are cores, each piece is sorted by the thread that read it, the sorted pieces
//! are merged, and the tree is built from its leaves up.
//!
//! Only keys and numbers are taken out of the rows. Keys are compared by eight bytes at first, the ones after
//! the prefix that all keys of the store have in common, and byte by byte only where these are equal.

use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicUsize, Ordering};

use backend::{RowKey, View};
use bytes::Bytes;

use crate::compaction::{self, Sweep};
use crate::history::{History, Version};
use crate::index::{Builder, Index};
use crate::read::ReadError;
use crate::record::{Header, Malformed, is_bump};
use crate::replay::{malformed, version_of};
use crate::revision::Revision;
use crate::store::State;

/// What was found when a store was opened.
#[derive(Clone, Debug, Default)]
pub struct Opened {
    /// The keys that are attached to a lease, in key order: the lessor's attachments.
    pub leases: Vec<(Bytes, i64)>,
    /// How many keys exist.
    pub keys: usize,
    /// How many rows were read.
    pub rows: usize,
}

/// Fewer rows than this are read by the calling thread alone. So a small store, which is what a simulation
/// has, is opened by the same calls in the same order every time.
const WORTH_THREADS: u64 = 20_000;

/// Pieces for each thread: they divide revisions evenly and not rows, so one may hold far more than another.
const PIECES_PER_THREAD: usize = 8;

/// What a store is rebuilt from: the rows, and a look into the table of markers.
pub(crate) fn rebuild(
    view: &View,
    meta: impl Fn(&[u8]) -> Result<Option<Bytes>, backend::Error>,
) -> Result<(State, Sweep, Opened), ReadError> {
    let scheduled = compaction::read_marker(&meta, compaction::SCHEDULED)?.unwrap_or(-1);
    let finished = compaction::read_marker(&meta, compaction::FINISHED)?.unwrap_or(-1);
    let compact = scheduled.max(finished);
    let threads = match std::thread::available_parallelism() {
        Ok(cores) if view.approximate_rows()? >= WORTH_THREADS => cores.get(),
        _ => 1,
    };
    let pieces = view.split(if threads == 1 { 1 } else { threads * PIECES_PER_THREAD })?;
    let pieces = in_parallel(threads, pieces, |range| Piece::read(view, range));
    let pieces = pieces.into_iter().collect::<Result<Vec<Piece>, ReadError>>()?;

    // Revisions never go back: what was compacted away existed, and a new store begins at 1.
    let newest = pieces.iter().filter_map(|piece| piece.rows.last()).map(|row| row.version.main).max();
    let bump = pieces.iter().filter_map(|piece| piece.bump).max();
    let bumped = bump.map_or(1, |bump| bump.main);
    let current = newest.unwrap_or(1).max(bumped).max(compact).max(1);
    let rows = pieces.iter().map(|piece| piece.rows.len()).sum();

    let prefix = common_prefix(&pieces);
    let numbered = pieces.iter().enumerate().collect();
    let mut order = in_parallel(threads, numbered, |(at, piece)| piece.order(at, prefix)).concat();
    // The pieces are sorted, and the sort of the standard library merges runs that it finds.
    order.sort_by(|a, b| a.compare(b, &pieces));
    let (index, leases) = build(&order, &pieces);
    let opened = Opened { leases, keys: index.live() as usize, rows };
    Ok((State { index, current, compact, bump }, Sweep::resumed(finished, scheduled), opened))
}

/// The rows of a range of revisions, in the order in which they were written.
#[derive(Default)]
struct Piece {
    rows: Vec<Row>,
    keys: Vec<u8>,
    /// The last row that is of no key.
    bump: Option<Revision>,
}

struct Row {
    version: Version,
    /// Where the key lies in the keys of the piece.
    key: Range<u32>,
}

impl Piece {
    fn read(view: &View, range: Range<RowKey>) -> Result<Piece, ReadError> {
        let mut piece = Piece::default();
        let mut damaged = None;
        view.for_each_row(range.start, range.end, |key, tombstone, record| {
            let at = Revision::from_row_key(key);
            if piece.add(at, tombstone, record).is_ok() {
                return ControlFlow::Continue(());
            }
            damaged = Some(at);
            ControlFlow::Break(())
        })?;
        match damaged {
            Some(at) => Err(ReadError::Storage(malformed(at))),
            None => Ok(piece),
        }
    }

    fn add(&mut self, at: Revision, tombstone: bool, record: &[u8]) -> Result<(), Malformed> {
        if is_bump(tombstone, record) {
            self.bump = Some(at);
            return Ok(());
        }
        let header = Header::parse(record)?;
        let version = match tombstone {
            true if header.key.is_empty() => return Err(Malformed),
            true => Version::tombstone(at),
            false => version_of(at, &header)?,
        };
        let begin = self.keys.len();
        self.keys.extend_from_slice(header.key);
        let offset = |at: usize| u32::try_from(at).expect("the keys of a piece are shorter than 4 GiB");
        self.rows.push(Row { version, key: offset(begin)..offset(self.keys.len()) });
        Ok(())
    }

    fn key(&self, row: usize) -> &[u8] {
        let key = &self.rows[row].key;
        &self.keys[key.start as usize..key.end as usize]
    }

    /// The rows of this piece, which is number `piece`, sorted by key and among equal keys by revision.
    fn order(&self, piece: usize, prefix: usize) -> Vec<Place> {
        let place =
            |row| Place { head: head(&self.key(row)[prefix..]), piece: piece as u32, row: row as u32 };
        let mut order: Vec<Place> = (0..self.rows.len()).map(place).collect();
        order.sort_unstable_by(|a, b| {
            let keys = || self.key(a.row as usize).cmp(self.key(b.row as usize));
            a.head.cmp(&b.head).then_with(keys).then(a.row.cmp(&b.row))
        });
        order
    }
}

/// Where a row is, and the beginning of its key, by which most comparisons are decided.
#[derive(Clone, Copy)]
struct Place {
    head: u64,
    piece: u32,
    row: u32,
}

impl Place {
    fn key<'a>(&self, pieces: &'a [Piece]) -> &'a [u8] {
        pieces[self.piece as usize].key(self.row as usize)
    }

    /// By key, then by revision: pieces, and rows in a piece, are in the order of revisions.
    fn compare(&self, other: &Place, pieces: &[Piece]) -> std::cmp::Ordering {
        let keys = || self.key(pieces).cmp(other.key(pieces));
        let time = || (self.piece, self.row).cmp(&(other.piece, other.row));
        self.head.cmp(&other.head).then_with(keys).then_with(time)
    }
}

/// The first eight bytes as a number that sorts as they do.
fn head(key: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let len = key.len().min(8);
    bytes[..len].copy_from_slice(&key[..len]);
    u64::from_be_bytes(bytes)
}

/// The length of the prefix that all keys have in common.
fn common_prefix(pieces: &[Piece]) -> usize {
    let mut keys = pieces.iter().flat_map(|piece| (0..piece.rows.len()).map(|row| piece.key(row)));
    let Some(first) = keys.next() else { return 0 };
    let shared = |key: &[u8], len: usize| {
        if key.starts_with(&first[..len]) {
            return len;
        }
        first[..len].iter().zip(key).take_while(|(a, b)| a == b).count()
    };
    keys.fold(first.len(), |len, key| shared(key, len))
}

/// Builds the tree, and notes which keys are attached to a lease.
fn build(order: &[Place], pieces: &[Piece]) -> (Index, Vec<(Bytes, i64)>) {
    let mut builder = Builder::new();
    let mut leases = Vec::new();
    let version = |place: &Place| pieces[place.piece as usize].rows[place.row as usize].version;
    let same_key = |a: &Place, b: &Place| a.head == b.head && a.key(pieces) == b.key(pieces);
    for versions in order.chunk_by(same_key) {
        let key = versions[0].key(pieces);
        let mut history = History::new(version(&versions[0]));
        versions[1..].iter().for_each(|place| history.push(version(place)));
        if history.is_live() && history.latest().lease != 0 {
            leases.push((Bytes::copy_from_slice(key), history.latest().lease));
        }
        builder.push(key, history);
    }
    (builder.finish(), leases)
}

/// Does the same with every item, on several threads, and returns the results in the order of the items.
fn in_parallel<T: Send + Sync + Clone, R: Send>(
    threads: usize,
    items: Vec<T>,
    work: impl Fn(T) -> R + Sync,
) -> Vec<R> {
    if threads == 1 {
        return items.into_iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { return done };
            done.push((at, work(item.clone())));
        }
    };
    let mut done: Vec<(usize, R)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (1..threads).map(|_| scope.spawn(worker)).collect();
        let mut done = worker();
        for other in workers {
            match other.join() {
                Ok(results) => done.extend(results),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        done
    });
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}
