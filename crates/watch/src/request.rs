//! What a client asks for when it creates a watcher.

use api::etcdserverpb::{WatchCreateRequest, watch_create_request::FilterType};
use api::key_range::KeyRange;
use bytes::Bytes;

/// Which kinds of events a watcher does not want.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    /// Leave out puts.
    pub no_put: bool,
    /// Leave out deletions, those by an expired lease included.
    pub no_delete: bool,
}

impl Filters {
    /// How many different sets of filters there are.
    pub(crate) const KINDS: usize = 4;

    /// A number for this set, below [`Filters::KINDS`].
    pub(crate) fn kind(self) -> usize {
        usize::from(self.no_put) + 2 * usize::from(self.no_delete)
    }

    /// Whether an event of this kind reaches the watcher.
    pub(crate) fn pass(self, tombstone: bool) -> bool {
        !(if tombstone { self.no_delete } else { self.no_put })
    }
}

/// A watcher as requested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchRequest {
    /// The keys to watch.
    pub range: KeyRange,
    /// The first revision wanted. 0 means "from now"; negative is refused as compacted.
    pub start_revision: i64,
    /// Kinds of events to leave out.
    pub filters: Filters,
    /// Whether events carry the pair as it was before them.
    pub prev_kv: bool,
    /// Whether the watcher is told the revision from time to time while nothing happens to its keys.
    pub progress_notify: bool,
    /// Whether a response above the size limit may be split.
    pub fragment: bool,
    /// The id that the client chose; 0 leaves it to the hub.
    pub watch_id: i64,
}

impl WatchRequest {
    /// A watcher of `range` from now on, with nothing else asked for.
    pub fn new(range: KeyRange) -> WatchRequest {
        WatchRequest {
            range,
            start_revision: 0,
            filters: Filters::default(),
            prev_kv: false,
            progress_notify: false,
            fragment: false,
            watch_id: 0,
        }
    }

    /// The request in a client's message.
    ///
    /// An empty key stands for the smallest one, unknown filters are passed over, and the key and range end
    /// are copied: as slices of the connection's read buffer they would keep all of it alive for as long as
    /// the watcher lives.
    pub fn from_message(message: &WatchCreateRequest) -> WatchRequest {
        let key = if message.key.is_empty() { &[0] } else { message.key.as_ref() };
        let end = Bytes::copy_from_slice(&message.range_end);
        let has = |filter: FilterType| message.filters.contains(&(filter as i32));
        WatchRequest {
            range: KeyRange::from_request(&Bytes::copy_from_slice(key), &end),
            start_revision: message.start_revision,
            filters: Filters { no_put: has(FilterType::Noput), no_delete: has(FilterType::Nodelete) },
            prev_kv: message.prev_kv,
            progress_notify: message.progress_notify,
            fragment: message.fragment,
            watch_id: message.watch_id,
        }
    }
}
