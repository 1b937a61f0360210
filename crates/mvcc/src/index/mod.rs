//! The ordered map from keys to their histories: a counted, copy-on-write B-tree.
//!
//! Four things are asked of it, and no map of the standard library has more than one of them:
//!
//! - *A snapshot costs nothing.* [`Index`] is a pointer to the root, and a clone shares all nodes. A change
//!   copies the nodes on its way down that a snapshot still shares, and works in place on the others; with no
//!   snapshot alive, on all of them.
//! - *Counting a range costs a descent.* Every child pointer carries the number of keys below it that exist
//!   now, and when something below it last changed; so a count at the present looks into the nodes at its two
//!   ends, and one in the past into those that changed since.
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

use std::ops::{Bound, ControlFlow, Range};
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

    /// How many keys of a range existed at a revision; `None` if more than `budget` nodes would have to be
    /// visited. Nodes that changed since then are, as far as they are in the range; for the present it is only
    /// those at its two ends.
    pub(crate) fn count(&self, range: &KeyRange, at: i64, mut budget: usize) -> Option<u64> {
        match range {
            KeyRange::Empty => Some(0),
            KeyRange::Key(key) => Some(u64::from(self.get(key).is_some_and(|h| h.visible(at).is_some()))),
            _ => count(&self.root, Some(range.start()), range.end(), at, &mut budget),
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
            for at in span(&leaf.keys, start, end, Keys::before) {
                visit(leaf.keys.get(at), &leaf.histories[at])?;
            }
        }
        Node::Inner(inner) => {
            let span = span(&inner.separators, start, end, Keys::until);
            for (at, child) in inner.children.iter().enumerate().take(span.end + 1).skip(span.start) {
                let start = start.filter(|_| at == span.start);
                let end = if at == span.end { end } else { Bound::Unbounded };
                walk(&child.node, start, end, visit)?;
            }
        }
    }
    ControlFlow::Continue(())
}

fn count(child: &Child, start: Option<&[u8]>, end: Bound<&[u8]>, at: i64, budget: &mut usize) -> Option<u64> {
    if start.is_none() && end == Bound::Unbounded && child.newest <= at {
        return Some(child.live);
    }
    *budget = budget.checked_sub(1)?;
    match &*child.node {
        Node::Leaf(leaf) => {
            let histories = &leaf.histories[span(&leaf.keys, start, end, Keys::before)];
            Some(histories.iter().filter(|history| history.visible(at).is_some()).count() as u64)
        }
        Node::Inner(inner) => {
            let span = span(&inner.separators, start, end, Keys::until);
            let mut sum = 0;
            for (i, child) in inner.children.iter().enumerate().take(span.end + 1).skip(span.start) {
                let start = start.filter(|_| i == span.start);
                let end = if i == span.end { end } else { Bound::Unbounded };
                sum += count(child, start, end, at, budget)?;
            }
            Some(sum)
        }
    }
}

/// The part of a node that a range covers. In a leaf these are the keys from the first that is not before
/// `start`; in an inner node the separators between the first child and the last, where a separator equal to
/// `start` is to the left of the first child.
fn span(
    keys: &Keys,
    start: Option<&[u8]>,
    end: Bound<&[u8]>,
    first: impl Fn(&Keys, &[u8]) -> usize,
) -> Range<usize> {
    let from = start.map_or(0, |start| first(keys, start));
    let to = match end {
        Bound::Unbounded => keys.len(),
        Bound::Excluded(end) => keys.before(end),
        Bound::Included(end) => keys.until(end),
    };
    from..to.max(from)
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
