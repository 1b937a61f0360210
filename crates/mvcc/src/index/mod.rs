//! The ordered map from keys to their histories: a counted, copy-on-write B-tree.
//!
//! Four things are asked of it, and no map of the standard library has more than one of them:
//!
//! - *A snapshot costs nothing.* [`Index`] is a pointer to the root, and a clone shares all nodes. A change
//!   copies the nodes on its way down that a snapshot still shares, and works in place on the others; with no
//!   snapshot alive, on all of them.
//! - *Counting a range costs a descent.* Every child pointer carries the number of keys below it that exist
//!   now, so a count is the difference of two prefix sums.
//! - *A key costs its bytes and little more.* The keys of a node lie end to end in one buffer, and a history
//!   of one version is a plain value.
//! - *Compaction goes in short runs.* [`Index::look`] and [`Index::sweep`] work on one leaf, and a key says where
//!   to go on.
//!
//! ```text
//!                      [ g | p ]                    separators: the shortest string that parts two children
//!                     /    |    \
//!         12 live   /      | 9    \ 14              counts beside the pointers
//!      [ a ... f ]   [ g ... o ]   [ pa ... z ]     leaves: keys, histories
//! ```

mod build;
mod keys;
mod node;
#[cfg(test)]
mod tests;

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use api::key_range::KeyRange;

pub(crate) use self::build::Builder;
use self::keys::Keys;
use self::node::{Child, Inner, Node};
use crate::history::{History, Left, Version};

/// Every key of which at least one version is left.
#[derive(Clone)]
pub(crate) struct Index {
    root: Child,
}

impl Index {
    #[cfg(test)]
    pub(crate) fn new() -> Index {
        Index { root: Child::empty() }
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&History> {
        let mut node = &*self.root.node;
        loop {
            match node {
                Node::Leaf(leaf) => return leaf.keys.search(key).ok().map(|at| &leaf.histories[at]),
                Node::Inner(inner) => node = &inner.children[inner.separators.until(key)].node,
            }
        }
    }

    /// How many keys exist now.
    pub(crate) fn live(&self) -> u64 {
        self.root.live
    }

    /// How many keys of a range exist now.
    pub(crate) fn count_live(&self, range: &KeyRange) -> u64 {
        match range {
            KeyRange::Key(key) => u64::from(self.get(key).is_some_and(History::is_live)),
            KeyRange::Range { start, end } => self.live_before(end) - self.live_before(start),
            KeyRange::From(start) => self.live() - self.live_before(start),
            KeyRange::Empty => 0,
        }
    }

    fn live_before(&self, key: &[u8]) -> u64 {
        let mut node = &*self.root.node;
        let mut live = 0;
        loop {
            match node {
                Node::Leaf(leaf) => {
                    let before = &leaf.histories[..leaf.keys.before(key)];
                    return live + before.iter().filter(|history| history.is_live()).count() as u64;
                }
                Node::Inner(inner) => {
                    let at = inner.separators.until(key);
                    live += inner.children[..at].iter().map(|child| child.live).sum::<u64>();
                    node = &inner.children[at].node;
                }
            }
        }
    }

    /// Adds a version to a key, which may be new.
    pub(crate) fn push(&mut self, key: &[u8], version: Version) {
        let Some(split) = self.root.push(key, version) else { return };
        let mut separators = Keys::new();
        separators.push(&split.separator);
        let left = std::mem::replace(&mut self.root, Child::empty());
        self.root = Child::inner(Inner { separators, children: vec![left, split.right] });
    }

    /// Visits the keys of a range in order, deleted ones included.
    pub(crate) fn walk(&self, range: &KeyRange, mut visit: impl FnMut(&[u8], &History) -> ControlFlow<()>) {
        _ = match range {
            KeyRange::Empty => ControlFlow::Continue(()),
            KeyRange::Key(key) => match self.get(key) {
                Some(history) => visit(key, history),
                None => ControlFlow::Continue(()),
            },
            _ => walk(&self.root.node, Some(range.start()), range.end(), &mut visit),
        };
    }

    /// Looks at a run of keys, those of the leaf that `from` belongs to: whether any history is wanted, and
    /// the first key that may be in the next run, `None` after the last.
    pub(crate) fn look(&self, from: &[u8], wanted: impl Fn(&History) -> bool) -> (bool, Option<Vec<u8>>) {
        let mut next = None;
        let mut node = &*self.root.node;
        loop {
            match node {
                Node::Leaf(leaf) => {
                    return (leaf.histories.iter().any(wanted), next.map(<[u8]>::to_vec));
                }
                Node::Inner(inner) => {
                    let at = inner.separators.until(from);
                    if at < inner.separators.len() {
                        next = Some(inner.separators.get(at));
                    }
                    node = &inner.children[at].node;
                }
            }
        }
    }

    /// Visits the same run of keys, and removes the histories of which nothing is left.
    ///
    /// A history that exists now must go on existing: the counts of live keys are not looked at.
    pub(crate) fn sweep(&mut self, from: &[u8], mut visit: impl FnMut(&mut History) -> Left) {
        sweep(&mut self.root.node, from, &mut visit);
        self.lower();
    }

    /// Takes away levels that have become superfluous at the top.
    fn lower(&mut self) {
        while let Node::Inner(inner) = &*self.root.node {
            match &inner.children[..] {
                [] => self.root = Child::empty(),
                [only] => self.root = only.clone(),
                _ => return,
            }
        }
    }
}

fn walk(
    node: &Node,
    start: Option<&[u8]>,
    end: Bound<&[u8]>,
    visit: &mut impl FnMut(&[u8], &History) -> ControlFlow<()>,
) -> ControlFlow<()> {
    match node {
        Node::Leaf(leaf) => {
            let from = start.map_or(0, |start| leaf.keys.before(start));
            let to = match end {
                Bound::Unbounded => leaf.keys.len(),
                Bound::Excluded(end) => leaf.keys.before(end),
                Bound::Included(end) => leaf.keys.until(end),
            };
            for at in from..to {
                visit(leaf.keys.get(at), &leaf.histories[at])?;
            }
        }
        Node::Inner(inner) => {
            let from = start.map_or(0, |start| inner.separators.until(start));
            let to = match end {
                Bound::Unbounded => inner.separators.len(),
                Bound::Excluded(end) => inner.separators.before(end),
                Bound::Included(end) => inner.separators.until(end),
            };
            for (at, child) in inner.children.iter().enumerate().take(to + 1).skip(from) {
                let start = start.filter(|_| at == from);
                let end = if at == to { end } else { Bound::Unbounded };
                walk(&child.node, start, end, visit)?;
            }
        }
    }
    ControlFlow::Continue(())
}

fn sweep(node: &mut Arc<Node>, from: &[u8], visit: &mut impl FnMut(&mut History) -> Left) {
    match Arc::make_mut(node) {
        Node::Leaf(leaf) => leaf.retain(visit),
        Node::Inner(inner) => {
            let at = inner.separators.until(from);
            sweep(&mut inner.children[at].node, from, visit);
            inner.tidy(at);
        }
    }
}
