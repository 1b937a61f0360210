//! The durable store behind the key-value history: the only room that knows redb.

mod backend;
mod buffer;
mod copy;
mod error;
mod flush;
mod hash;
mod health;
mod medium;
mod open;
mod tables;
mod view;

pub use backend::Backend;
pub use error::Error;
pub use redb::StorageBackend;
pub use tables::{Consistent, Row, RowKey, Seal, Table, TableOp, row_key};
pub use view::View;

use std::path::PathBuf;

/// Where the store lives.
#[derive(Debug)]
pub enum Storage {
    /// A file, created if absent.
    File(PathBuf),
    /// Something that behaves like a file: the simulator's disk.
    Custom(Box<dyn StorageBackend>),
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flushed {
    /// The consistent index that is durable now.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// Rows written.
    pub rows: usize,
    /// Bytes of rows and table values written.
    pub bytes: usize,
    /// Whether more was sealed than one transaction should carry: flush again.
    pub more: bool,
}
