//! A tree from keys that are sorted already, bottom up.

use super::Index;
use super::keys::{Keys, separator};
use super::node::{BYTES, Child, FAN_OUT, Inner, LEAF, Leaf};
use crate::history::History;

/// How full the nodes are made: some room, so that the first writes do not split every leaf.
const FULL_LEAF: usize = LEAF * 7 / 8;
const FULL_INNER: usize = FAN_OUT * 7 / 8;

/// Builds an index from keys in ascending order.
pub(crate) struct Builder {
    leaf: Leaf,
    /// Finished leaves, each with the separator to its left; the first one's is empty.
    leaves: Vec<(Vec<u8>, Child)>,
    border: Vec<u8>,
}

impl Builder {
    pub(crate) fn new() -> Builder {
        Builder { leaf: empty_leaf(), leaves: Vec::new(), border: Vec::new() }
    }

    /// Adds a key, which must be greater than all before it.
    pub(crate) fn push(&mut self, key: &[u8], history: History) {
        if let Some(last) = self.leaf.keys.len().checked_sub(1) {
            let last = self.leaf.keys.get(last);
            assert!(last < key, "keys come in order");
            let bytes = self.leaf.keys.byte_len() + key.len();
            if self.leaf.keys.len() == FULL_LEAF || bytes > BYTES / 2 {
                let border = separator(last, key).to_vec();
                self.close();
                self.border = border;
            }
        }
        self.leaf.keys.push(key);
        self.leaf.histories.push(history);
    }

    pub(crate) fn finish(mut self) -> Index {
        if self.leaves.is_empty() || self.leaf.keys.len() > 0 {
            self.close();
        }
        let mut level = self.leaves;
        while level.len() > 1 {
            let mut above = Vec::with_capacity(level.len() / FULL_INNER + 1);
            let mut nodes = level.into_iter().peekable();
            while let Some((border, first)) = nodes.next() {
                let mut separators = Keys::new();
                let mut children = Vec::with_capacity(FULL_INNER);
                children.push(first);
                while children.len() < FULL_INNER && (separators.byte_len() < BYTES / 2 || children.len() < 2)
                {
                    let Some((border, child)) = nodes.next() else { break };
                    separators.push(&border);
                    children.push(child);
                }
                separators.shrink();
                children.shrink_to_fit();
                above.push((border, Child::inner(Inner { separators, children })));
            }
            level = above;
        }
        let (_, root) = level.pop().expect("a level has at least one node");
        Index { root }
    }

    fn close(&mut self) {
        let mut leaf = std::mem::replace(&mut self.leaf, empty_leaf());
        leaf.keys.shrink();
        leaf.histories.shrink_to_fit();
        self.leaves.push((std::mem::take(&mut self.border), Child::leaf(leaf)));
    }
}

fn empty_leaf() -> Leaf {
    Leaf { keys: Keys::new(), histories: Vec::with_capacity(FULL_LEAF) }
}
