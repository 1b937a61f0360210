//! Every key at every revision: the multi-version store.

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
pub use compaction::{CompactError, Progress, ProgressState};
pub use event::Event;
pub use hash::HashKv;
pub use open::Opened;
pub use read::{RangeQuery, RangeResult, ReadError, Records};
pub use record::Record;
pub use replay::History;
pub use revision::Revision;
pub use store::{Store, Writer};
pub use write::{Committed, KeyInfo, WriteTxn};
