//! What is done to files while no member serves from them: a backup restored and looked at, a data
//! directory defragmented, a history hashed.
//!
//! **Problem.** An operator who restores a cluster does it once in years, in a hurry, and from the only
//! file that is left. A tool that leaves half a data directory behind, or begins with a file that cannot
//! be served in the end, costs the time that there is not.
//!
//! **Idea.** Everything is checked before anything has a name. A restore builds the whole member beside
//! the place where it is to be, opens it as a start would, and takes the place by a rename: see
//! [`restore`]. What it builds from is a bbolt database, ours or etcd's own:
//!
//! | from | ends in a SHA-256 | |
//! |---|---|---|
//! | `etcdctl snapshot save` | yes | checked |
//! | a stopped member's `member/snap/db` | no | taken only if told to (`--skip-hash-check`); every page and row is looked at all the same |
//!
//! The errors are etcd's where a script may know them. How arguments are read and results are shown is the
//! binary's part.
#![forbid(unsafe_code)]

mod defragment;
mod error;
mod hash;
mod progress;
mod restore;
mod staging;
mod status;

pub use defragment::defragment;
pub use error::Error;
pub use hash::hash_kv;
pub use mvcc::HashKv;
pub use progress::{Phase, Tell};
pub use restore::{Restore, Restored, restore};
pub use status::{Status, status};
