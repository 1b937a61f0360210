//! Makes entries durable: the write-ahead log, in etcd's format.
//!
//! # Problem
//! An acknowledged write must survive the loss of power one instant later, and a thousand clients must
//! not pay a thousand times for it. A disk promises little: until a sync returns, any of the 512-byte
//! sectors written since the last one may be on it or not, in any combination, and names in a
//! directory are separate from what is in the files.
//!
//! # Idea
//! The log is a directory of numbered segments, each a row of checksummed records; the checksum chains
//! through all of them. [`Wal::append`] only encodes into a buffer. [`Wal::sync`] writes the buffer with one
//! write and waits for one `fdatasync`: whoever's entries are in it shares the cost. That is group commit,
//! and it needs no timer: while one sync runs, the next batch gathers by itself.
//!
//! | record | when | data |
//! |---|---|---|
//! | crc | first of every segment | none: it states the checksum so far |
//! | metadata | second of every segment | the caller's bytes: node and cluster id |
//! | state | third, and whenever it changes | `raftpb.HardState`: term, vote, commit |
//! | snapshot | after a flush of the database | `walpb.Snapshot`: index, term, configuration |
//! | entry | each entry | `raftpb.Entry` |
//! | crc, as a mark | first of every batch | where it stands, and a checksum that binds it there |
//!
//! A segment is called `<number>-<index>.wal`, both in hexadecimal, where the index is the first that
//! can stand in it. It is made under another name, given its head, synced, renamed, and the directory is
//! synced, before anything refers to it.
//!
//! # The end of the log
//! After a crash the end can be torn, and a torn end must be cut, or the member would never start again.
//! Damage anywhere else must not be cut, because what comes after it may have been acknowledged, and a
//! member that forgets what it acknowledged breaks its cluster. Zeros tell the one from the other: space
//! is reserved as zeros, and a sector that was lost reads as what it was. And the mark before each
//! batch tells which batch is the last. It says "all before me is synced", so a mark behind a bad record
//! proves that the record had been durable. etcd's readers take a mark for what it is to them, a
//! checksum record, and pass over it.
//!
//! ```text
//!  head ─┬─ mark  e1 e2 e3 state ─┬─ mark  e4 e5 ~~~~ e7 ─┬─ 0000…
//!        └ synced                 └ synced      └ lost sector: torn, cut before it
//!
//!  head ─┬─ mark  e1 ~~ e3 state ─┬─ mark  e4 e5 e6 e7 ───┬─ 0000…
//!        └ synced    └ damage: a mark follows, so refused └
//! ```
//!
//! What is cut is also held against what the database and the commit index know to have been durable.
//!
//! # Reading while it is written
//! Raft keeps the live end of the log in memory. A member that is behind that part gets what a
//! [`LogReader`] reads back: the last version of every entry, and nothing that is not durable.
//!
//! # Failure
//! After any failed write, sync or rename nobody knows what is on the disk, so the [`Wal`] refuses
//! everything from then on, and the member stops. A restart reads what is really there.
//!
//! # Left out
//! No thread: [`Wal::prepare`] is called by the owner when it has nothing better to do.

mod disk;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
#[cfg(any(test, feature = "fuzzing"))]
mod memory;
mod reader;
mod record;
mod recovery;
mod replay;
mod segment;
mod torn;
mod writer;

#[cfg(test)]
mod tests;

pub use disk::{Disk, DiskFile, Guard, RealDisk};
pub use error::WalError;
pub use reader::LogReader;
pub use recovery::{Recovered, Repair};
pub use writer::{Options, Wal};
