//! Every key at every revision: the multi-version store.
//!
//! A client may ask what a key was an hour ago, a watcher must be told every change since it was last heard
//! of, and neither may hold up the writes that go on meanwhile. So nothing is overwritten. Each change is a
//! row of its own under the *revision* at which it was made, and an index in memory says which revisions each
//! key has. Forgetting is a third kind of change: *compaction* names the oldest revision that can still be
//! read, and everything that only older reads could see goes.
//!
//! | transaction | revision | row                                  | index                          |
//! |-------------|----------|--------------------------------------|--------------------------------|
//! | put a=1     | 2        | `2.0` a=1, created 2, version 1      | a: 2                           |
//! | put a=2, b=1 | 3       | `3.0` a=2, created 2, version 2; `3.1` b=1 | a: 2 3, b: 3             |
//! | delete a    | 4        | `4.0` tombstone of a                 | a: 2 3 †4, b: 3                |
//! | put a=3     | 5        | `5.0` a=3, created 5, version 1      | a: 2 3 †4 5, b: 3              |
//! | compact 4   |          | `2.0` and `3.0` go                   | a: †4 5, b: 3                  |
//! | compact 5   |          | `4.0` goes                           | a: 5, b: 3                     |
//!
//! A transaction takes one revision however many changes it makes (they are told apart by the second number),
//! and none if it changes nothing. The tombstone survives a compaction to its very revision because a watch
//! may start there.
//!
//! The rows, and what `HashKV` makes of them, are etcd's to the byte; they lie in `backend`, which alone knows
//! what the disk is like. What is here:
//!
//! - `revision`, `record`, `event`: when, what, and both as a watcher is told of it.
//! - `history` is the life of one key, `index` the ordered map of all: a copy-on-write B-tree that counts. Its
//!   picture is free, a range is walked in a picture and not under a lock, and the count of a range at the
//!   present takes no walk at all.
//! - `write`: a transaction keeps its changes to itself (`overlay`) and installs them in one lock hold,
//!   together with the revision. `read`, `select` and `fetch` answer ranges: which versions, decided without a
//!   look at values; then their records, copied once into a few large buffers.
//! - `replay` reads history in the order of time, for watchers that are behind.
//! - `compaction` forgets: for readers at once, for the disk in bounded steps.
//! - `hash` is one number for all of it; `open` rebuilds the index from the rows, also of a state that another
//!   member sent and that takes this one's place ([`Writer::install`]).
//!
//! What must hold, always:
//!
//! - *One picture.* A reader takes its revision, its picture of the index and its picture of the rows in one
//!   lock hold. Rows are inserted before the index names them and removed after compaction was published, so
//!   every version that a picture of the index shows has its row in the picture of the rows.
//! - *One writer.* [`Writer`] is not cloned. Beside it only compaction changes the index, and what that takes
//!   no permitted read can see.
//! - *Removal in the order of time.* The rows of a key are removed oldest first. A crash in between leaves too
//!   much, never a deleted key without its tombstone; opening takes the compaction up again.
//!
//! Not here: who may do what and which requests are well formed (`apply`), leases beyond the number that a key
//! carries (`lease`), telling watchers (`watch`), and any notion of the time of day.

mod compaction;
mod event;
mod fetch;
mod hash;
mod history;
mod index;
mod open;
mod overlay;
mod read;
mod record;
mod replay;
mod revision;
mod select;
mod store;
mod write;

pub use api::etcdserverpb::range_request::{SortOrder, SortTarget};
pub use api::key_range::KeyRange;
pub use compaction::{CompactError, Progress, ProgressState, compact_revision, compacted_to};
pub use event::Event;
pub use hash::HashKv;
pub use open::Opened;
pub use read::{RangeQuery, RangeResult, ReadError, Records};
pub use record::Record;
pub use replay::History;
pub use revision::Revision;
pub use store::{Store, Writer};
pub use write::{Committed, KeyInfo, WriteTxn};
