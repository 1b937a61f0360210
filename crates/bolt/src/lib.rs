//! etcd's snapshot file, read and written: a bbolt database.
//!
//! **Problem.** What etcd members send each other when a log is no longer enough, what `etcdctl
//! snapshot save` stores and what `etcdutl` restores is a copy of etcd's backend file. That file is a
//! B+tree in pages, written by the Go library bbolt. Cairn keeps its state in another engine, so it
//! meets this format only at its borders: one pass over the whole file, in key order.
//!
//! **Idea.** One pass in order needs neither a map of free pages nor a cache. [`Writer`] takes sorted
//! pairs and lays the tree down from left to right and from the leaves up; [`Reader`] walks it the
//! same way. Both hold one page for each level of the tree and nothing else, whatever the file's size.
//!
//! # The format
//!
//! All numbers are little endian. A file is a row of pages of one size, 4096 bytes in everything
//! written here. A page that does not fit its size continues in the pages right behind it: its
//! *overflow*. Every page begins with 16 bytes:
//!
//! | bytes | what | |
//! |---|---|---|
//! | 0..8 | id | the page's place in the file, counted in pages |
//! | 8..10 | flags | 1 branch, 2 leaf, 4 meta, 16 free list |
//! | 10..12 | count | of the elements that follow |
//! | 12..16 | overflow | how many more pages belong to this one |
//!
//! Elements of 16 bytes follow, then the bytes of their keys and values in the same order. `position`
//! counts from the first byte of the element itself:
//!
//! | branch element | leaf element |
//! |---|---|
//! | position u32, key length u32, child page u64 | flags u32 (1: the value is a bucket), position u32, key length u32, value length u32 |
//!
//! Pages 0 and 1 are meta pages, behind the header: magic `0xED0CDAED`, version 2, page size, flags
//! (each u32); the root bucket (page, sequence), the free list's page, the number of pages in use, the
//! transaction's id (each u64) and an FNV-64a hash of all that. The one with the higher id counts, if
//! it is whole. The root bucket holds the other buckets: their value is (root page, sequence), or for
//! a small bucket (0, sequence) and its only leaf, *inline*.
//!
//! Pages of data have no checksum. What `etcdctl snapshot save` stores therefore ends in a SHA-256 of
//! the whole database: see [`digest`].
//!
//! Left out: nested buckets (etcd has none), changing a file in place, page sizes other than 4096 when
//! writing, reuse of free pages (a file written in one go has none).
#![forbid(unsafe_code)]

pub mod digest;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod page;
mod reader;
mod source;
mod tree;
mod walk;
mod writer;

pub use error::Error;
pub use reader::{Pair, Pairs, Reader};
pub use writer::{Layout, MAX_KEY, MAX_VALUE, PAGE, Writer};
