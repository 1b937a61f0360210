//! Pulling: what to send next on a stream.

use std::collections::VecDeque;

use crate::arena::Key;
use crate::frame::{Body, BodyWriter, Frame, Prefix, element_len};
use crate::history::{History, HistoryError};
use crate::hub::{Hub, NO_WATCHER, StreamId};
use crate::stream::Item;

/// A queue that had to grow beyond so many entries gives its memory back when it is empty.
const ROOM_KEPT: usize = 16;

impl Hub {
    /// The next response to send on the stream, if there is one.
    ///
    /// Watchers that are behind catch up in here, one bounded step of reading per call at most. A step that
    /// finds nothing for them leaves nothing to send: `None` while [`Hub::has_more`] says there is more
    /// means "ask again, after letting others have the thread".
    ///
    /// # Errors
    /// When history cannot be read. Nothing is lost by it; but a member whose storage fails should stop.
    pub fn next(&mut self, stream: StreamId, history: &dyn History) -> Result<Option<Frame>, HistoryError> {
        let key = stream.0;
        let Some(open) = self.streams.get_mut(key) else { return Ok(None) };
        if !open.behind.is_empty() && open.fragments.is_empty() {
            let due = open.since_step >= self.options.frames_per_step
                && open.ledger.bytes < self.options.stream_bytes;
            if open.line.is_empty() || due {
                open.since_step = 0;
                self.step(key, history)?;
            }
        }
        let frame = match self.streams[key].fragments.pop_front() {
            Some(fragment) => Some(fragment),
            None => self.pop(key, history)?,
        };
        let open = &mut self.streams[key];
        open.since_step += usize::from(frame.is_some());
        open.announced = open.has_more();
        Ok(frame)
    }

    /// Whether [`Hub::next`] has anything left to do on the stream.
    pub fn has_more(&self, stream: StreamId) -> bool {
        self.streams.get(stream.0).is_some_and(|open| open.has_more())
    }

    /// Takes items off the line until one of them makes a frame.
    fn pop(&mut self, stream: Key, history: &dyn History) -> Result<Option<Frame>, HistoryError> {
        loop {
            let open = &mut self.streams[stream];
            let Some(item) = open.line.pop_front() else { return Ok(None) };
            open.controls -= usize::from(item.is_control());
            let frame = match item {
                Item::Events(watcher) => self.send_events(stream, watcher, history)?,
                Item::Created { id, revision } => Some(self.control(id, revision, Prefix::created)),
                Item::Canceled { id, revision } => Some(self.control(id, revision, Prefix::canceled)),
                Item::Refused { revision, reason } => {
                    let prefix = Prefix::new(self.identity, revision, NO_WATCHER).created().canceled();
                    Some(Frame::new(prefix, NO_WATCHER, 0, Body::cancel_reason(&reason)))
                }
                Item::Compacted { watcher, compact_revision } => self.end(watcher, compact_revision),
                Item::Progress { revision, times } => {
                    if times > 1 {
                        open.controls += 1;
                        open.line.push_front(Item::Progress { revision, times: times - 1 });
                    }
                    Some(self.control(NO_WATCHER, revision, |prefix| prefix))
                }
                Item::Notify { watcher, revision } => {
                    let id = self.watchers.get(watcher).map(|watcher| watcher.id);
                    id.map(|id| self.control(id, revision, |prefix| prefix))
                }
            };
            if frame.is_some() {
                return Ok(frame);
            }
        }
    }

    fn control(&self, id: i64, revision: i64, flags: impl FnOnce(Prefix) -> Prefix) -> Frame {
        Frame::new(flags(Prefix::new(self.identity, revision, id)), id, 0, Body::Empty)
    }

    /// The last response of a watcher that compaction overtook. Its header has no revision, as in etcd.
    fn end(&mut self, watcher: Key, compact_revision: i64) -> Option<Frame> {
        let state = self.watchers.get(watcher)?;
        let (stream, id) = (state.stream, state.id);
        self.detach(watcher);
        self.streams[stream].watchers.insert(id, None);
        Some(self.control(id, 0, |prefix| prefix.canceled().compacted(compact_revision)))
    }

    /// One response with as much of a watcher's queue as fits: whole deliveries, in order.
    fn send_events(
        &mut self,
        stream: Key,
        key: Key,
        history: &dyn History,
    ) -> Result<Option<Frame>, HistoryError> {
        let Some(watcher) = self.watchers.get_mut(key) else { return Ok(None) };
        let open = &mut self.streams[stream];
        let request = &watcher.request;
        let (mut body, mut bytes, mut events, mut header, mut taken) = (Body::Empty, 0, 0, 0, 0);
        for parcel in &watcher.queue {
            let delivery = &parcel.delivery;
            let more = match delivery.body(request.prev_kv, history) {
                Ok(more) => more,
                Err(_) if taken > 0 => break,
                Err(failure) => {
                    open.line.push_front(Item::Events(key));
                    return Err(failure);
                }
            };
            let full = bytes + more.len() > self.options.response_bytes
                || events + delivery.events.len() > self.options.response_events;
            if full && taken > 0 {
                break;
            }
            body.append(more);
            bytes += more.len();
            events += delivery.events.len();
            header = delivery.header;
            taken += 1;
        }
        let prefix = Prefix::new(self.identity, header, watcher.id);
        let mut frame = Frame::new(prefix, watcher.id, events, body);
        if request.fragment && events > 1 && frame.encoded_len() >= self.options.fragment_bytes {
            let mut split = Split::new(prefix, watcher.id, self.options.fragment_bytes);
            for parcel in watcher.queue.range(..taken) {
                for (event, previous) in parcel.delivery.elements(request.prev_kv, history)? {
                    split.add(event, previous);
                }
            }
            open.fragments = split.finish();
            frame = open.fragments.pop_front().unwrap_or(frame);
        }
        for parcel in watcher.queue.drain(..taken) {
            self.counts.pending_bytes -= open.ledger.release(parcel);
        }
        if !watcher.queue.is_empty() {
            open.line.push_front(Item::Events(key));
        } else if watcher.queue.capacity() > ROOM_KEPT {
            watcher.queue = VecDeque::new();
        }
        watcher.idle = false;
        self.counts.pending_events -= events;
        self.counts.sent_events += events as u64;
        Ok(Some(frame))
    }
}

/// Splits a response as etcd does: as many events into each part as stay below the limit, one at least;
/// every part but the last says that there is more.
struct Split {
    prefix: Prefix,
    watch_id: i64,
    limit: usize,
    size: usize,
    events: usize,
    writer: BodyWriter,
    parts: VecDeque<Frame>,
}

impl Split {
    fn new(prefix: Prefix, watch_id: i64, limit: usize) -> Split {
        let size = prefix.fragment().as_ref().len();
        Split {
            prefix,
            watch_id,
            limit,
            size,
            events: 0,
            writer: BodyWriter::default(),
            parts: VecDeque::new(),
        }
    }

    fn add(&mut self, event: &crate::Event, previous: Option<&bytes::Bytes>) {
        let len = element_len(event.tombstone, &event.record, previous);
        if self.events > 0 && self.size + len >= self.limit {
            let prefix = self.prefix.fragment();
            self.close(prefix);
        }
        self.writer.event(event.tombstone, &event.record, previous);
        self.size += len;
        self.events += 1;
    }

    fn close(&mut self, prefix: Prefix) {
        let body = std::mem::take(&mut self.writer).finish();
        self.parts.push_back(Frame::new(prefix, self.watch_id, self.events, body));
        self.events = 0;
        self.size = self.prefix.fragment().as_ref().len();
    }

    fn finish(mut self) -> VecDeque<Frame> {
        let prefix = self.prefix;
        self.close(prefix);
        self.parts
    }
}
