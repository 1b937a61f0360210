//! Letters in, effects out: a node and what surrounds each of its turns.

use std::time::Duration;

use raft::{ConfState, Index, Message, NodeId, Status};

use crate::effect::{Effect, Input};
use crate::letters::{Letters, size};
use crate::node::Node;

/// A node that is given letters, all that wait at a time.
#[derive(Debug)]
pub struct Pump {
    node: Node,
    applied: Index,
    start: Start,
    held: Held,
}

/// Whether this member votes alone, and so need not wait for an election timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// Known once the last configuration entry that the log held at the start is applied.
    KnownAt(Index),
    Over,
}

/// Proposals of other members that came while nobody would take them: the leader hands over, or has
/// just been lost. Raft would drop them, and their clients would wait in vain; a message that is late
/// does no harm.
#[derive(Debug, Default)]
struct Held {
    messages: Vec<Message>,
    bytes: usize,
    since: Option<Duration>,
}

/// How much of them is held, in bytes, and for how long at the most: clients have given up by then.
const MAX_HELD_BYTES: usize = 16 << 20;
const MAX_HELD: Duration = Duration::from_secs(5);

impl Held {
    fn keep(&mut self, message: Message, now: Duration) {
        let size = size(&message);
        if self.bytes + size <= MAX_HELD_BYTES {
            self.bytes += size;
            self.since.get_or_insert(now);
            self.messages.push(message);
        }
    }

    /// Gives raft what was held, as if it came from here: whoever sent it may be the leader by now.
    fn release(&mut self, node: &mut Node, now: Duration, effects: &mut Vec<Effect>) {
        if self.since.is_some_and(|since| now.saturating_sub(since) > MAX_HELD) {
            *self = Self::default();
        } else if !self.messages.is_empty() && node.takes_proposals() {
            for message in std::mem::take(self).messages {
                let message = Message { from: message.to, ..message };
                node.handle(Input::Receive(message), effects);
            }
        }
    }
}

impl Pump {
    /// Around `node`, whose machine has applied up to `applied`, and in whose log the last committed
    /// configuration entry is `configured`.
    pub fn new(node: Node, applied: Index, configured: Index) -> Pump {
        Pump { node, applied, start: Start::KnownAt(configured), held: Held::default() }
    }

    /// Hands over everything that waits, and appends what is to be done about it to `effects`, which
    /// must be empty: news of who leads comes first, the rest in the order it came about. Whoever leads no
    /// more must not find itself confirmed by what follows in the same turn (L2). `now` is a clock that
    /// never goes back.
    pub fn turn(&mut self, letters: &mut Letters, now: Duration, effects: &mut Vec<Effect>) {
        let Pump { node, applied, start, held } = self;
        if let Some(index) = letters.hand_over(node, |message| held.keep(message, now), effects) {
            *applied = index;
        }
        held.release(node, now, effects);
        if matches!(start, Start::KnownAt(index) if *index <= *applied) {
            *start = Start::Over;
            if self.votes_alone() {
                self.node.handle(Input::Campaign, effects);
            }
        }
        let is_news = |effect: &Effect| matches!(effect, Effect::SoftState { .. });
        if effects.iter().skip(1).any(is_news) {
            effects.sort_by_key(|effect| !is_news(effect));
        }
    }

    /// How far the node has been told that the log is applied.
    pub fn applied(&self) -> Index {
        self.applied
    }

    /// Whether nobody but this member has a vote.
    pub fn votes_alone(&self) -> bool {
        votes_alone(self.node.conf_state(), self.node.id())
    }

    /// A picture of the member. Not free: it lists the peers.
    pub fn status(&self) -> Status {
        self.node.status()
    }

    /// The node itself, to be looked at.
    pub fn node(&self) -> &Node {
        &self.node
    }
}

/// Whether nobody but `id` has a vote.
pub fn votes_alone(conf_state: &ConfState, id: NodeId) -> bool {
    conf_state.voters == [id] && conf_state.voters_outgoing.is_empty()
}
