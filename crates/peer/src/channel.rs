//! A bounded queue of messages, filled by any thread and emptied by whatever is attached to it on the
//! thread "peers".

use std::collections::VecDeque;
use std::task::{Context, Waker};

use parking_lot::Mutex;
use raft::Message;

use crate::codec::weight;

/// What a queue may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

/// Of a stream; etcd's count. The bytes, mostly shared with raft's own log, are twice what raft has on
/// its way to one member.
pub(crate) const STREAM: Bound = Bound { messages: 4096, bytes: 128 << 20 };

/// Of the pipeline; etcd's count.
pub(crate) const PIPELINE: Bound = Bound { messages: 64, bytes: 64 << 20 };

/// What became of a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Push {
    Taken,
    /// It is lost.
    Full,
    /// Nobody would take it out; it is handed back.
    Detached(Message),
}

/// What there is for whoever is attached.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Take {
    /// Messages were taken out.
    Some,
    /// Nothing; the waker is called when there is something.
    Nothing,
    /// Someone else is attached now, or nobody is to be.
    Over,
}

pub(crate) struct Channel {
    bound: Bound,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Message>,
    bytes: usize,
    /// Counts the attachments; the last is the one that counts.
    generation: u64,
    attached: bool,
    closed: bool,
    waker: Option<Waker>,
}

impl Channel {
    pub(crate) fn new(bound: Bound) -> Channel {
        Channel { bound, state: Mutex::default() }
    }

    /// Puts a message in, if somebody is attached.
    pub(crate) fn push(&self, message: Message) -> Push {
        let mut state = self.state.lock();
        if !state.attached {
            return Push::Detached(message);
        }
        let weight = weight(&message);
        // One message is always taken, or the largest could never be sent.
        let is_full = state.queue.len() >= self.bound.messages || state.bytes + weight > self.bound.bytes;
        if is_full && !state.queue.is_empty() {
            return Push::Full;
        }
        state.bytes += weight;
        state.queue.push_back(message);
        Push::Taken
    }

    /// Becomes the one who takes messages out, in place of any other. `None` once closed.
    pub(crate) fn attach(&self) -> Option<u64> {
        let mut state = self.state.lock();
        if state.closed {
            return None;
        }
        state.attached = true;
        state.generation += 1;
        // Who was attached shall see that it is over.
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
        Some(state.generation)
    }

    /// Ends an attachment. True if it was the one that counts: then what was in the queue is lost.
    pub(crate) fn detach(&self, generation: u64) -> bool {
        let mut state = self.state.lock();
        if !state.attached || state.generation != generation {
            return false;
        }
        state.attached = false;
        state.waker = None;
        state.queue.clear();
        state.bytes = 0;
        true
    }

    /// Nobody may attach any more.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.attached = false;
        state.queue.clear();
        state.bytes = 0;
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    pub(crate) fn is_attached(&self) -> bool {
        self.state.lock().attached
    }

    /// Takes messages out until they weigh `bytes` or there are no more.
    pub(crate) fn take(
        &self,
        generation: u64,
        bytes: usize,
        into: &mut VecDeque<Message>,
        context: &mut Context<'_>,
    ) -> Take {
        let mut state = self.state.lock();
        if !state.attached || state.generation != generation {
            return Take::Over;
        }
        if state.queue.is_empty() {
            match &mut state.waker {
                Some(waker) => waker.clone_from(context.waker()),
                none => *none = Some(context.waker().clone()),
            }
            return Take::Nothing;
        }
        if state.bytes <= bytes && into.is_empty() {
            std::mem::swap(&mut state.queue, into);
            state.bytes = 0;
            return Take::Some;
        }
        let mut taken = 0;
        while taken < bytes
            && let Some(message) = state.queue.pop_front()
        {
            taken += weight(&message);
            into.push_back(message);
        }
        state.bytes -= taken;
        Take::Some
    }

    /// Wakes who is attached, if there is something to take.
    pub(crate) fn wake(&self) {
        let mut state = self.state.lock();
        if !state.queue.is_empty()
            && let Some(waker) = state.waker.take()
        {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use raft::{Body, Entry, EntryKind, Index, NodeId, Term};

    use super::*;

    const SMALL: Bound = Bound { messages: 3, bytes: 10_000 };

    fn message(bytes: usize) -> Message {
        let data = Arc::from(vec![0; bytes]);
        let entry = Entry { term: Term(1), index: Index(1), kind: EntryKind::Normal, data };
        let body = Body::Propose { entries: vec![entry] };
        Message { to: NodeId(1), from: NodeId(2), term: Term(0), body }
    }

    fn take(channel: &Channel, generation: u64, bytes: usize) -> (Take, usize) {
        let mut out = VecDeque::new();
        let context = &mut Context::from_waker(Waker::noop());
        (channel.take(generation, bytes, &mut out, context), out.len())
    }

    #[test]
    fn a_queue_holds_no_more_than_its_bounds() {
        let channel = Channel::new(SMALL);
        assert!(matches!(channel.push(message(1)), Push::Detached(_)));
        let generation = channel.attach().unwrap();
        for _ in 0..3 {
            assert_eq!(channel.push(message(1)), Push::Taken);
        }
        assert_eq!(channel.push(message(1)), Push::Full, "too many");
        assert_eq!(take(&channel, generation, usize::MAX), (Take::Some, 3));
        assert_eq!(channel.push(message(9_000)), Push::Taken);
        assert_eq!(channel.push(message(1_000)), Push::Full, "too large");
        assert_eq!(take(&channel, generation, 1), (Take::Some, 1), "one at least");
        assert_eq!(take(&channel, generation, 1), (Take::Nothing, 0));
        assert_eq!(channel.push(message(9_000)), Push::Taken, "what was taken counts no more");
    }

    #[test]
    fn the_last_to_attach_is_the_one() {
        let channel = Channel::new(SMALL);
        let first = channel.attach().unwrap();
        assert_eq!(channel.push(message(1)), Push::Taken);
        let second = channel.attach().unwrap();
        assert_eq!(take(&channel, first, usize::MAX), (Take::Over, 0));
        assert!(!channel.detach(first), "it is over anyway");
        assert_eq!(take(&channel, second, usize::MAX), (Take::Some, 1), "nothing is lost");
        assert!(channel.detach(second));
        assert!(!channel.is_attached());
        channel.close();
        assert_eq!(channel.attach(), None);
    }
}
