//! What happened: the events of some consecutive revisions.

use crate::Event;

/// All events of the revisions `first..=last`, as one apply batch made them. Shared by every hub.
#[derive(Clone, Debug)]
pub struct Batch {
    /// In ascending order of revision, whole revisions only.
    pub events: Vec<Event>,
    /// The first revision that the batch accounts for.
    pub first: i64,
    /// The last revision that the batch accounts for.
    pub last: i64,
}

impl Batch {
    /// A batch of exactly the revisions that `events` carry.
    ///
    /// Returns `None` when there are no events.
    ///
    /// # Panics
    /// When the events are not in ascending order of revision: delivered out of order they could never be
    /// put right again.
    pub fn new(events: Vec<Event>) -> Option<Batch> {
        let (first, last) = (events.first()?.revision.main, events.last()?.revision.main);
        for pair in events.windows(2) {
            let (a, b) = (pair[0].revision, pair[1].revision);
            assert!(a < b, "events out of order: {a:?} before {b:?}");
        }
        Some(Batch { events, first, last })
    }
}
