//! The durable store behind the key-value history: the only room that knows redb.
//!
//! # The problem
//!
//! A committed command must be readable at once and durable soon, and an fsync per command is far
//! too slow. The log already is durable, so the store may lag behind it, on one condition: what it
//! holds must be exactly the effects of the log up to some entry, and it must know which. An index
//! that runs ahead of its effects loses them at the next restart; one that lags applies them
//! twice; and either way this member differs from the others without anyone noticing.
//!
//! # The idea
//!
//! Rows go into a *generation*, a skip list that readers search at once. At the end of an apply
//! batch the writer *seals* it: the rows since the last seal, the table changes it brings and the
//! index it reached are one piece from then on. A *flush*, on a thread of its own, takes whole
//! sealed batches, oldest first, and commits them in one redb transaction, index included. Then it
//! *publishes* a new picture for readers, with the rows in redb and their generations gone.
//!
//! | | open batch | sealed | flushed |
//! |---|---|---|---|
//! | readers of rows see it | yes | yes | yes |
//! | readers of tables see it | no | yes | yes |
//! | there after a crash | no | no | yes |
//! | `consistent()` covers it | no | no | yes |
//!
//! A reader takes the picture as one `Arc`: generations newest first, and one redb read
//! transaction below them. Nothing is taken out of a generation while anyone can see it, so a row
//! cannot slip from one place to the other between two looks, and there is nothing to retry.
//!
//! # What must hold
//!
//! - One function writes: [`Backend::flush`]. Removals and notes of this member alone queue up
//!   behind the batches that precede them and take the same road. (A new store, the copy that a
//!   defragmentation makes and a state of another member's are written before they have a name.)
//! - A removal never overtakes the batch that wrote the row, nor a note the removals it reports.
//! - After the first failed call to the disk, every call fails. Only a restart, which reads what
//!   is really there, may go on. Rewriting the file is the exception, until it takes the old
//!   one's name: a copy that fails is thrown away.
//! - The count of live bytes is kept by the very calls that write, and stored with them.
//! - Memory is bounded: redb's cache by [`Options::cache_bytes`], the buffer by
//!   [`Options::buffer_bytes`], at which [`Backend::wait_for_room`] holds the writer.
//!
//! # On disk
//!
//! One redb table per etcd bucket under etcd's name, rows in `key` under 17 bytes of revision with
//! a tag and a checksum before the record, and a table `cairn` that says the file is ours, in which format,
//! and how many bytes live in it. Commits record the allocator's state (redb's quick repair): a
//! start after a crash takes milliseconds whatever the size.
//!
//! redb doubles a file that grows and shrinks it only from the end, so freed space comes back by
//! copying the live data beside the old file while everything goes on: [`Backend::reclaim`], for a
//! background thread to call after compactions, or [`Backend::defragment`] on request.
//!
//! # States that travel
//!
//! [`Backend::export`] holds on to one redb read transaction and writes it out as etcd's backend file,
//! in one pass and without a lock: rows, tables and position of one moment. [`Backend::receive`] makes
//! a new store of such a file beside this one; then it takes this one's name, and every handle shows
//! it. What readers held before they go on holding.
//!
//! # Left out
//!
//! What a row means, which rows a compaction removes, when to flush: all that is the callers'.
//! Rows are checked on every read; redb's own pages only when it repairs, so a damaged branch page
//! may hide rows until the members' hashes are compared.

mod backend;
mod buffer;
mod copy;
mod ease;
mod error;
mod export;
mod flush;
mod hash;
mod health;
mod install;
mod medium;
mod open;
mod tables;
mod view;

pub use backend::Backend;
pub use ease::AtEase;
pub use error::Error;
pub use export::Export;
pub use install::{Incoming, Placed, Target, inspect};
pub use redb::StorageBackend;
pub use tables::{Consistent, Row, RowKey, Seal, Table, TableOp, row_key};
pub use view::View;

use bytes::Bytes;
use std::path::PathBuf;

/// Where the store lives.
#[derive(Debug)]
pub enum Storage {
    /// A file, created if absent.
    File(PathBuf),
    /// Something that behaves like a file: the simulator's disk.
    Custom(Box<dyn StorageBackend>),
}

#[cfg(any(test, feature = "fuzzing"))]
impl Storage {
    /// Memory, empty and not shared with anybody.
    pub fn memory() -> Storage {
        Storage::Custom(Box::new(redb::backends::InMemoryBackend::new()))
    }
}

/// Bounds on what the store keeps in memory.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// redb's page cache, in bytes.
    pub cache_bytes: usize,
    /// Buffered bytes at which a flush is worth its fsync: `wait_for_work` returns then.
    pub flush_bytes: usize,
    /// Buffered bytes past which `wait_for_room` makes the writer wait.
    pub buffer_bytes: usize,
    /// Rows, table changes and removals that one flush may carry, a KiB of a large row counting
    /// as a row; a batch that is larger goes alone.
    pub flush_rows: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options { cache_bytes: 64 << 20, flush_bytes: 4 << 20, buffer_bytes: 128 << 20, flush_rows: 16_384 }
    }
}

/// What one flush made durable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flushed {
    /// The consistent index that is durable now.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// The raft configuration as of that index, in etcd's JSON form; none before the first.
    pub conf_state: Option<Bytes>,
    /// Rows written.
    pub rows: usize,
    /// Bytes of rows and table values written.
    pub bytes: usize,
    /// Whether more was sealed than one transaction should carry: flush again.
    pub more: bool,
}
