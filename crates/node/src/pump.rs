//! Letters in, effects out: a node and what surrounds each of its turns.

use std::time::Duration;

use raft::{Body, ConfState, Entry, Index, Message, NodeId, Status};

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
/// just been lost, or a change of the configuration has to wait for the one before it. Raft would drop
/// them, and their clients would wait in vain; a message that is late does no harm.
#[derive(Debug, Default)]
struct Held {
    messages: Vec<(Message, Duration)>,
    bytes: usize,
}

/// How much of them is held, in bytes, and for how long at the most: clients have given up by then.
const MAX_HELD_BYTES: usize = 16 << 20;
const MAX_HELD: Duration = Duration::from_secs(5);

impl Held {
    /// Gives raft a proposal, or keeps it.
    fn propose(&mut self, message: Message, node: &mut Node, now: Duration, effects: &mut Vec<Effect>) {
        for message in parts(message) {
            if takes(node, &message) {
                node.handle(Input::Receive(message), effects);
                continue;
            }
            let size = size(&message);
            if self.bytes + size <= MAX_HELD_BYTES {
                self.bytes += size;
                self.messages.push((message, now));
            }
        }
    }

    /// Gives raft what was held and would be taken now, as if it came from here: whoever sent it may be
    /// the leader by now.
    fn release(&mut self, node: &mut Node, now: Duration, effects: &mut Vec<Effect>) {
        for (message, since) in std::mem::take(&mut self.messages) {
            let is_late = now.saturating_sub(since) > MAX_HELD;
            if !is_late && !takes(node, &message) {
                self.messages.push((message, since));
                continue;
            }
            self.bytes -= size(&message);
            if !is_late {
                let message = Message { from: message.to, ..message };
                node.handle(Input::Receive(message), effects);
            }
        }
    }
}

/// Whether what is proposed would enter a log now.
fn takes(node: &Node, message: &Message) -> bool {
    node.takes_proposals() && (node.takes_conf_changes() || !changes_configuration(message))
}

fn changes_configuration(message: &Message) -> bool {
    matches!(&message.body, Body::Propose { entries } if entries.iter().any(Entry::is_conf_change))
}

/// The same proposals in messages of their own, if a change of the configuration is among them: it may have
/// to wait where the others need not.
fn parts(message: Message) -> Vec<Message> {
    if !changes_configuration(&message) {
        return vec![message];
    }
    let Message { from, to, term, body: Body::Propose { entries } } = message else { return vec![message] };
    let alone = |entry| Message { from, to, term, body: Body::Propose { entries: vec![entry] } };
    entries.into_iter().map(alone).collect()
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
        let propose = |message, node: &mut Node, effects: &mut Vec<Effect>| {
            held.propose(message, node, now, effects);
        };
        if let Some(index) = letters.hand_over(node, propose, effects) {
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
