//! One watcher: what it wants, how far it is, and what waits for it.

use std::collections::VecDeque;

use crate::arena::Key;
use crate::ledger::Parcel;
use crate::registry::Seat;
use crate::request::WatchRequest;

/// What must hold, always:
/// * `queue` is not empty exactly when the stream's line holds an `Events` item of this watcher.
/// * Everything in `queue` is older than anything that the watcher is still to be handed.
/// * The watcher is seated where `place` says, and nowhere else.
#[derive(Debug)]
pub(crate) struct Watcher {
    pub(crate) stream: Key,
    /// The id that the client knows it by.
    pub(crate) id: i64,
    pub(crate) request: WatchRequest,
    /// It is handed nothing below this revision. Only grows.
    pub(crate) min_revision: i64,
    /// It is not told of progress below this revision. Fixed.
    pub(crate) floor: i64,
    pub(crate) place: Place,
    pub(crate) queue: VecDeque<Parcel>,
    /// Nothing was sent to it since the last progress interval ended.
    pub(crate) idle: bool,
}

/// Where a watcher gets its events from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// From the batches as they are published.
    InSync(Seat),
    /// From history, together with the others of a cohort.
    Behind { cohort: Key, seat: Seat },
    /// From nowhere any more: what it needed next is compacted. It ends once its queue is sent.
    Doomed,
}
