//! watch
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
