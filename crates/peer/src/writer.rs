//! A stream from here to a peer: the body of an answer that goes on for as long as the connection does.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};
use raft::Message;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use crate::channel::Take;
use crate::framing::{Encoder, Kind};
use crate::hub::Hub;
use crate::link::{Link, count};

/// Messages are put together until they weigh this much, bytes.
const PIECE: usize = 1 << 20;

/// Takes what waits for a peer, all of it at once, and makes it one piece to write.
pub(crate) struct StreamBody {
    hub: Arc<Hub>,
    link: Arc<Link>,
    kind: Kind,
    generation: u64,
    encoder: Encoder,
    taken: VecDeque<Message>,
    buffer: BytesMut,
    beat: Interval,
}

impl StreamBody {
    /// Takes the place of any other stream of this kind to this peer; `None` if it is being removed.
    pub(crate) fn attach(hub: Arc<Hub>, link: Arc<Link>, kind: Kind) -> Option<StreamBody> {
        let generation = link.channel(kind).attach()?;
        link.opened(false);
        let id = format!("{:x}", link.id);
        tracing::info!(
            "stream-writer-type" = kind.name(),
            "remote-peer-id" = id,
            "established TCP streaming connection with remote peer"
        );
        let period = hub.settings.read_timeout / 3;
        let mut beat = interval_at(Instant::now() + period, period);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (taken, buffer) = Default::default();
        Some(StreamBody { hub, link, kind, generation, encoder: Encoder::new(kind), taken, buffer, beat })
    }
}

impl Body for StreamBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        let channel = this.link.channel(this.kind);
        if channel.take(this.generation, PIECE, &mut this.taken, context) == Take::Over {
            return Poll::Ready(None);
        }
        for message in this.taken.drain(..) {
            this.encoder.put(&mut this.buffer, &message);
        }
        // Whoever hears messages needs no heartbeats.
        if this.buffer.is_empty() {
            if this.beat.poll_tick(context).is_pending() {
                return Poll::Pending;
            }
            this.encoder.put_heartbeat(&mut this.buffer);
        }
        count(&this.link.counters.sent_bytes, this.buffer.len());
        Poll::Ready(Some(Ok(Frame::data(this.buffer.split().freeze()))))
    }
}

impl Drop for StreamBody {
    fn drop(&mut self) {
        if self.link.channel(self.kind).detach(self.generation) {
            let id = format!("{:x}", self.link.id);
            tracing::warn!(
                "stream-writer-type" = self.kind.name(),
                "remote-peer-id" = id,
                "lost TCP streaming connection with remote peer"
            );
            // What was on its way may not have arrived.
            self.hub.lost(&self.link);
        }
    }
}
