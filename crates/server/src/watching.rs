//! A watch stream of the calling runtime thread.

use std::sync::Arc;
use std::task::{Context, Poll};

use watch::{Frame, Hub, StreamId};

use crate::member::Member;
use crate::shard::Shard;

/// One client's watch stream. It lives on the runtime thread that opened it; the watchers go when
/// it is dropped.
pub struct WatchStream {
    member: Arc<Member>,
    id: StreamId,
}

impl WatchStream {
    /// Opens a stream without watchers.
    pub fn open(member: Arc<Member>) -> Self {
        Self { id: Shard::with(|shard| shard.hub(Hub::open_stream)), member }
    }

    /// Does something with the watchers of this thread, in the name of this stream; `revision` is
    /// the store's current one.
    pub fn with<T>(&self, f: impl FnOnce(&mut Hub, StreamId, i64) -> T) -> T {
        Shard::with(|shard| shard.hub(|hub| f(hub, self.id, self.member.store().current_revision())))
    }

    /// Whether so many answers wait that no further request should be read.
    pub fn is_backed_up(&self) -> bool {
        Shard::with(|shard| shard.hub(|hub| hub.is_backed_up(self.id)))
    }

    /// The next frame to send; `None` once the member stops.
    pub fn poll_next(&self, context: &mut Context<'_>) -> Poll<Option<Frame>> {
        Shard::with(|shard| shard.poll_stream(self.id, context))
    }
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        Shard::with(|shard| shard.close_stream(self.id));
    }
}
