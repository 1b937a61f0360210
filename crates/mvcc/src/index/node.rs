//! The nodes of the tree and what happens within one of them.

use std::sync::Arc;

use super::keys::{Keys, make_room, separator};
use crate::history::{History, Left, Version};

/// Keys in a leaf and children of an inner node, at most. With a million random keys, 32 costs a put a fifth
/// more than 64 and 128 saves next to nothing, while the copy that a snapshot asks for grows with the node.
pub(super) const LEAF: usize = 64;
pub(super) const FAN_OUT: usize = 64;

/// A node with more bytes of keys than this splits even when it has few keys, for an insertion moves half of
/// them. What is left of a split may be larger if single keys are.
pub(super) const BYTES: usize = 16 << 10;

#[derive(Clone)]
pub(super) enum Node {
    Leaf(Leaf),
    Inner(Inner),
}

/// Invariant: `keys` and `histories` are equally long, and only an empty tree has an empty leaf.
#[derive(Clone)]
pub(super) struct Leaf {
    pub(super) keys: Keys,
    pub(super) histories: Vec<History>,
}

/// Invariant: there is one separator between each two children; everything below a child is less than the
/// separator to its right and not less than the one to its left.
#[derive(Clone)]
pub(super) struct Inner {
    pub(super) separators: Keys,
    pub(super) children: Vec<Child>,
}

/// A subtree, and two numbers beside the pointer that save counting a range the visit of subtrees that lie in
/// it whole.
#[derive(Clone)]
pub(super) struct Child {
    pub(super) node: Arc<Node>,
    /// How many keys exist now.
    pub(super) live: u64,
    /// A main revision after which nothing in it changed: since then as many keys exist as now.
    pub(super) newest: i64,
}

/// A node's right half, after it was split, and the border between the halves.
pub(super) struct Split {
    pub(super) separator: Box<[u8]>,
    pub(super) right: Child,
}

impl Child {
    pub(super) fn empty() -> Child {
        Child::leaf(Leaf { keys: Keys::new(), histories: Vec::new() })
    }

    pub(super) fn leaf(leaf: Leaf) -> Child {
        let live = leaf.histories.iter().filter(|history| history.is_live()).count() as u64;
        let newest = leaf.histories.iter().map(|history| history.latest().main).max().unwrap_or(0);
        Child { node: Arc::new(Node::Leaf(leaf)), live, newest }
    }

    pub(super) fn inner(inner: Inner) -> Child {
        let live = inner.children.iter().map(|child| child.live).sum();
        let newest = inner.children.iter().map(|child| child.newest).max().unwrap_or(0);
        Child { node: Arc::new(Node::Inner(inner)), live, newest }
    }

    /// Adds a version to a key below. In place as far as no snapshot shares the nodes.
    pub(super) fn push(&mut self, key: &[u8], version: Version) -> Option<Split> {
        let now = u64::from(!version.is_tombstone());
        self.newest = self.newest.max(version.main);
        let (before, right) = match Arc::make_mut(&mut self.node) {
            Node::Leaf(leaf) => leaf.push(key, version),
            Node::Inner(inner) => inner.push(key, version),
        };
        self.live = self.live + now - u64::from(before);
        let (separator, right) = right?;
        self.live -= right.live;
        Some(Split { separator, right })
    }
}

/// Whether the key existed before, and the split that an insertion led to.
type Pushed = (bool, Option<(Box<[u8]>, Child)>);

impl Leaf {
    fn push(&mut self, key: &[u8], version: Version) -> Pushed {
        let at = match self.keys.search(key) {
            Ok(at) => {
                let before = self.histories[at].is_live();
                self.histories[at].push(version);
                return (before, None);
            }
            Err(at) => at,
        };
        self.keys.insert(at, key);
        make_room(&mut self.histories, 1);
        self.histories.insert(at, History::new(version));
        let len = self.keys.len();
        if len <= LEAF && (self.keys.byte_len() <= BYTES || len < 2) {
            return (false, None);
        }
        // Keys that come in order leave full nodes behind instead of half empty ones.
        let middle = if at + 1 == len { at } else { self.keys.middle() };
        let keys = self.keys.split_off(middle);
        let histories = self.histories.split_off(middle);
        let border = separator(self.keys.get(middle - 1), keys.get(0)).into();
        (false, Some((border, Child::leaf(Leaf { keys, histories }))))
    }

    /// Visits the histories, and removes those of which nothing is left.
    pub(super) fn retain(&mut self, visit: &mut impl FnMut(&mut History) -> Left) {
        let mut gone = Vec::new();
        for (at, history) in self.histories.iter_mut().enumerate() {
            if visit(history) == Left::Nothing {
                gone.push(at);
            }
        }
        if gone.is_empty() {
            return;
        }
        let mut keys = Keys::new();
        let mut histories = Vec::with_capacity(self.histories.len() - gone.len());
        let mut gone = gone.into_iter().peekable();
        for (at, history) in self.histories.drain(..).enumerate() {
            if gone.next_if_eq(&at).is_none() {
                keys.push(self.keys.get(at));
                histories.push(history);
            }
        }
        keys.shrink();
        *self = Leaf { keys, histories };
    }
}

impl Inner {
    fn push(&mut self, key: &[u8], version: Version) -> Pushed {
        let at = self.separators.until(key);
        let child = &mut self.children[at];
        let (live, now) = (child.live, u64::from(!version.is_tombstone()));
        let split = child.push(key, version);
        let live_after = child.live + split.as_ref().map_or(0, |split| split.right.live);
        let before = live + now > live_after;
        let Some(split) = split else { return (before, None) };
        self.separators.insert(at, &split.separator);
        make_room(&mut self.children, 1);
        self.children.insert(at + 1, split.right);
        let len = self.children.len();
        if len <= FAN_OUT && (self.separators.byte_len() <= BYTES || len < 4) {
            return (before, None);
        }
        let middle = if at + 2 == len { len - 2 } else { self.separators.middle().max(2) };
        (before, Some(self.split(middle)))
    }

    /// Keeps the first `middle` children; the separator after them moves up.
    fn split(&mut self, middle: usize) -> (Box<[u8]>, Child) {
        let separators = self.separators.split_off(middle);
        let border: Box<[u8]> = self.separators.get(middle - 1).into();
        self.separators.remove(middle - 1);
        let children = self.children.split_off(middle);
        (border, Child::inner(Inner { separators, children }))
    }

    /// After something was removed below child `at`: an empty child goes, and a small one is merged with a
    /// neighbour if the two fit one node with room to spare. A small child beside full ones stays as it is;
    /// there can be no two such in a row, so the tree is never more than sparse.
    pub(super) fn tidy(&mut self, at: usize) {
        if self.children[at].node.is_empty() {
            self.children.remove(at);
            if self.separators.len() > 0 {
                self.separators.remove(at.saturating_sub(1));
            }
            return;
        }
        let fits = |left: usize| {
            left + 1 < self.children.len()
                && self.children[left]
                    .node
                    .fits_with(&self.children[left + 1].node, self.separators.get(left))
        };
        let left = match at {
            _ if fits(at) => at,
            1.. if fits(at - 1) => at - 1,
            _ => return,
        };
        let right = self.children.remove(left + 1);
        let child = &mut self.children[left];
        child.live += right.live;
        child.newest = child.newest.max(right.newest);
        Arc::make_mut(&mut child.node).merge(&right.node, self.separators.get(left));
        self.separators.remove(left);
    }
}

impl Node {
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Node::Leaf(leaf) => leaf.histories.is_empty(),
            Node::Inner(inner) => inner.children.is_empty(),
        }
    }

    fn fits_with(&self, right: &Node, border: &[u8]) -> bool {
        match (self, right) {
            (Node::Leaf(a), Node::Leaf(b)) => {
                a.histories.len() + b.histories.len() <= LEAF * 3 / 4
                    && a.keys.byte_len() + b.keys.byte_len() <= BYTES * 3 / 4
            }
            (Node::Inner(a), Node::Inner(b)) => {
                a.children.len() + b.children.len() <= FAN_OUT * 3 / 4
                    && a.separators.byte_len() + border.len() + b.separators.byte_len() <= BYTES * 3 / 4
            }
            _ => unreachable!("all leaves are equally deep"),
        }
    }

    fn merge(&mut self, right: &Node, border: &[u8]) {
        match (self, right) {
            (Node::Leaf(a), Node::Leaf(b)) => {
                a.keys.append(&b.keys);
                a.histories.extend_from_slice(&b.histories);
            }
            (Node::Inner(a), Node::Inner(b)) => {
                a.separators.push(border);
                a.separators.append(&b.separators);
                a.children.extend_from_slice(&b.children);
            }
            _ => unreachable!("all leaves are equally deep"),
        }
    }
}
