//! Telling watchers what happened: in order, once, and all of it.
//!
//! # The problem
//! A watcher names keys and a revision and wants every change of those keys from there on, for ever. There
//! may be a hundred thousand of them. Some want what happened long ago, some read slowly, some do not read
//! at all, and history is compacted away under their feet. What they may rely on is what etcd promises:
//!
//! | promise      | here                                                                                  |
//! | ------------ | ------------------------------------------------------------------------------------- |
//! | ordered      | a watcher's revisions only grow                                                       |
//! | unique       | no event twice                                                                        |
//! | atomic       | all of a revision in one response, or in marked fragments for those who ask           |
//! | reliable     | nothing left out; or, where compaction makes that impossible, `compact_revision`      |
//! | resumable    | from any revision that is not compacted                                               |
//! | bookmarkable | a response without events at revision `r` means that everything up to `r` was sent    |
//!
//! # The idea
//! A [`Hub`] holds the watchers of one thread. It does no I/O, reads no clock and starts nothing: batches of
//! events are put in with [`Hub::publish`], requests with [`Hub::create`] and its like, and what is to be
//! sent on a stream is pulled out with [`Hub::next`]. As everything happens on one thread, one call after
//! the other, a watcher is registered between two batches and never across one.
//!
//! A watcher is in one of two places.
//!
//! * **In sync**: it has been handed everything published. A batch is sorted by group, a group being all
//!   watchers with the same range and filters (single keys by hash, ranges by an interval tree). The group's
//!   events become one delivery, which all members' queues share; encoding it is left to whoever is first to
//!   send it. What remains per watcher is an entry in a queue, and later a prefix of some thirty bytes.
//! * **Behind**: it reads history, in the steps that [`Hub::next`] takes when its stream has nothing else to
//!   send. Watchers of one stream at the same position read together. A step is bounded by the rows that it
//!   looks at, so that half a million revisions are a thousand short stops of the thread, not one long one.
//!
//! ```text
//!                    start ≤ published                       caught up
//!       create ─┬──────────────────────────▶ behind ────────────────────────▶ in sync
//!               │                              │ ▲                               ▲ │
//!               │    start > published         │ │  no room in the stream,       │ │
//!               └──────────────────────────────┼─┼───────────────────────────────┘ │
//!                                              │ └── or batches lost on the way ───┘
//!                                              ▼
//!                  next revision compacted: what is queued, then the end
//! ```
//!
//! So memory is bounded without anyone being dropped. The queues of a stream hold so many bytes; whoever
//! does not fit is behind from exactly there on, costs nothing per event, and reads on when the stream is
//! read from. A batch that got lost on the way to the thread is the same thing for all at once
//! ([`Hub::skip_to`]).
//!
//! # Progress
//! Responses leave a stream in one line, first in, first out, and a watcher with more queued than fits one
//! response goes back to the front. A progress response is put in line at a moment when all that it speaks
//! for are in sync, and therefore behind everything they were handed. If someone is behind, the request is
//! owed and answered by the step that catches them up, events or not.
//!
//! # An example
//! One stream, three watchers, key `a` put at revisions 5 to 9, compacted at 7, published up to 9:
//!
//! | created with      | first response                        | then                                       |
//! | ----------------- | ------------------------------------- | ------------------------------------------ |
//! | start revision 0  | created, header revision 9            | nothing until `a` changes                  |
//! | start revision 8  | created, header revision 9            | events 8 and 9, under header revision 9    |
//! | start revision 6  | created, header revision 9            | canceled, compact revision 7, no revision  |
//!
//! # What is left out
//! Permissions ([`Hub::refuse`] takes the verdict), the loss of the leader (that ends the whole call, see
//! [`Hub::close_stream`]), and when to yield the thread: after a pull, says this crate, it is no worse a
//! moment than any other.

mod arena;
mod batch;
mod catch_up;
mod cohort;
mod delivery;
mod fan_out;
mod frame;
mod history;
mod hub;
mod intervals;
mod ledger;
mod mix;
mod options;
mod progress;
mod registry;
mod request;
mod send;
mod store;
mod stream;
mod watcher;

pub use batch::Batch;
pub use frame::{Frame, Identity};
pub use history::{Chunk, History, HistoryError};
pub use hub::{Counts, Hub, StreamId};
pub use mvcc::Event;
pub use options::Options;
pub use request::{Filters, WatchRequest};

// A hub is made on one thread and lives on another, and frames go where the network is.
const _: () = {
    const fn crosses_threads<T: Send>() {}
    crosses_threads::<Hub>();
    crosses_threads::<Frame>();
    crosses_threads::<std::sync::Arc<Batch>>();
};
