//! Which ranges hold a key: a treap over the ranges' starts that knows the greatest end of every subtree.
//!
//! The question asked for every event is "which of these ranges contain this key". A subtree whose greatest
//! end is not above the key is skipped whole, and so is every right subtree whose starts are above it, which
//! leaves a walk of O(log n + hits) for ranges that are not pathologically nested. Ranges come and go by the
//! thousand a second while events flow, so the tree changes in place rather than being rebuilt. Priorities
//! come from a counter through a fixed mixing function: the shape of the tree is a function of the calls.

use std::cmp::Ordering;

use bytes::Bytes;

use crate::mix::mix;

const NIL: u32 = u32::MAX;

/// A map from ranges `[start, end)`, with `None` for an end beyond all keys, to `V`.
#[derive(Debug)]
pub(crate) struct Intervals<V> {
    nodes: Vec<Node<V>>,
    free: Vec<u32>,
    root: u32,
    inserted: u64,
}

#[derive(Debug)]
struct Node<V> {
    start: Bytes,
    end: Option<Bytes>,
    /// The greatest end in the subtree under this node, itself included.
    reach: Option<Bytes>,
    value: V,
    priority: u64,
    left: u32,
    right: u32,
}

impl<V> Default for Intervals<V> {
    fn default() -> Self {
        Intervals { nodes: Vec::new(), free: Vec::new(), root: NIL, inserted: 0 }
    }
}

/// Ends in order, with `None` above all others.
fn compare_ends(a: Option<&Bytes>, b: Option<&Bytes>) -> Ordering {
    match (a, b) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(a), Some(b)) => a.cmp(b),
    }
}

fn is_above(end: Option<&Bytes>, key: &[u8]) -> bool {
    end.is_none_or(|end| end.as_ref() > key)
}

impl<V: Default> Intervals<V> {
    /// The value of exactly this range.
    pub(crate) fn get_mut(&mut self, start: &Bytes, end: Option<&Bytes>) -> Option<&mut V> {
        let found = self.find(start, end)?;
        Some(&mut self.nodes[found as usize].value)
    }

    /// The value of exactly this range, made if it is not there.
    pub(crate) fn entry(&mut self, start: &Bytes, end: Option<&Bytes>) -> &mut V {
        let found = match self.find(start, end) {
            Some(found) => found,
            None => {
                let node = self.make(start.clone(), end.cloned());
                self.root = self.insert(self.root, node);
                node
            }
        };
        &mut self.nodes[found as usize].value
    }

    /// Forgets exactly this range.
    pub(crate) fn remove(&mut self, start: &Bytes, end: Option<&Bytes>) {
        self.root = self.cut(self.root, start, end);
    }

    /// Calls `hit` with the value of every range that holds `key`, in order of the ranges, until it answers
    /// false; says whether it never did.
    pub(crate) fn stab(&self, key: &[u8], mut hit: impl FnMut(&V) -> bool) -> bool {
        self.walk(self.root, key, &mut hit)
    }

    fn walk(&self, at: u32, key: &[u8], hit: &mut impl FnMut(&V) -> bool) -> bool {
        let Some(node) = self.nodes.get(at as usize) else { return true };
        if !is_above(node.reach.as_ref(), key) {
            return true;
        }
        if !self.walk(node.left, key, hit) {
            return false;
        }
        if node.start.as_ref() > key {
            return true;
        }
        if is_above(node.end.as_ref(), key) && !hit(&node.value) {
            return false;
        }
        self.walk(node.right, key, hit)
    }

    fn find(&self, start: &Bytes, end: Option<&Bytes>) -> Option<u32> {
        let mut at = self.root;
        while let Some(node) = self.nodes.get(at as usize) {
            match node.order(start, end) {
                Ordering::Equal => return Some(at),
                Ordering::Less => at = node.right,
                Ordering::Greater => at = node.left,
            }
        }
        None
    }

    fn make(&mut self, start: Bytes, end: Option<Bytes>) -> u32 {
        self.inserted += 1;
        let priority = mix(self.inserted);
        let reach = end.clone();
        let node = Node { start, end, reach, value: V::default(), priority, left: NIL, right: NIL };
        match self.free.pop() {
            Some(slot) => {
                self.nodes[slot as usize] = node;
                slot
            }
            None => {
                self.nodes.push(node);
                u32::try_from(self.nodes.len() - 1).expect("fewer than 2^32 ranges")
            }
        }
    }

    fn insert(&mut self, at: u32, new: u32) -> u32 {
        if at == NIL {
            return new;
        }
        if self.nodes[new as usize].priority > self.nodes[at as usize].priority {
            let (start, end) = (self.nodes[new as usize].start.clone(), self.nodes[new as usize].end.clone());
            let (left, right) = self.split(at, &start, end.as_ref());
            self.nodes[new as usize].left = left;
            self.nodes[new as usize].right = right;
            self.settle(new);
            return new;
        }
        let node = &self.nodes[new as usize];
        let below = self.nodes[at as usize].order(&node.start, node.end.as_ref()) == Ordering::Less;
        let side = if below { self.nodes[at as usize].right } else { self.nodes[at as usize].left };
        let side = self.insert(side, new);
        let parent = &mut self.nodes[at as usize];
        *(if below { &mut parent.right } else { &mut parent.left }) = side;
        self.settle(at);
        at
    }

    /// The subtree's nodes below the range and those above it.
    fn split(&mut self, at: u32, start: &Bytes, end: Option<&Bytes>) -> (u32, u32) {
        if at == NIL {
            return (NIL, NIL);
        }
        if self.nodes[at as usize].order(start, end) == Ordering::Less {
            let (left, right) = self.split(self.nodes[at as usize].right, start, end);
            self.nodes[at as usize].right = left;
            self.settle(at);
            (at, right)
        } else {
            let (left, right) = self.split(self.nodes[at as usize].left, start, end);
            self.nodes[at as usize].left = right;
            self.settle(at);
            (left, at)
        }
    }

    fn cut(&mut self, at: u32, start: &Bytes, end: Option<&Bytes>) -> u32 {
        let Some(node) = self.nodes.get(at as usize) else { return NIL };
        match node.order(start, end) {
            Ordering::Equal => {
                let (left, right) = (node.left, node.right);
                self.free.push(at);
                return self.join(left, right);
            }
            Ordering::Less => {
                let right = self.cut(node.right, start, end);
                self.nodes[at as usize].right = right;
            }
            Ordering::Greater => {
                let left = self.cut(node.left, start, end);
                self.nodes[at as usize].left = left;
            }
        }
        self.settle(at);
        at
    }

    fn join(&mut self, left: u32, right: u32) -> u32 {
        if left == NIL || right == NIL {
            return if left == NIL { right } else { left };
        }
        if self.nodes[left as usize].priority > self.nodes[right as usize].priority {
            let joined = self.join(self.nodes[left as usize].right, right);
            self.nodes[left as usize].right = joined;
            self.settle(left);
            left
        } else {
            let joined = self.join(left, self.nodes[right as usize].left);
            self.nodes[right as usize].left = joined;
            self.settle(right);
            right
        }
    }

    /// Recomputes how far the subtree reaches, after its children changed.
    fn settle(&mut self, at: u32) {
        let node = &self.nodes[at as usize];
        let mut reach = node.end.as_ref();
        for child in [node.left, node.right] {
            if let Some(child) = self.nodes.get(child as usize)
                && compare_ends(child.reach.as_ref(), reach) == Ordering::Greater
            {
                reach = child.reach.as_ref();
            }
        }
        let reach = reach.cloned();
        self.nodes[at as usize].reach = reach;
    }
}

impl<V> Node<V> {
    fn order(&self, start: &Bytes, end: Option<&Bytes>) -> Ordering {
        self.start.cmp(start).then_with(|| compare_ends(self.end.as_ref(), end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Random ranges over one-letter keys, held in a plain list beside the tree.
    #[test]
    fn a_stab_finds_what_a_plain_list_finds() {
        let mut tree: Intervals<u64> = Intervals::default();
        let mut list: Vec<(Bytes, Option<Bytes>, u64)> = Vec::new();
        for round in 0..20_000u64 {
            let dice = mix(round);
            let letter = |n: u64| Bytes::from(vec![b'a' + (n % 16) as u8]);
            let start = letter(dice >> 8);
            let end = (!(dice >> 40).is_multiple_of(8)).then(|| letter(dice >> 16));
            if end.as_ref().is_some_and(|end| *end <= start) {
                continue;
            }
            let known = list.iter().position(|(s, e, _)| (s, e) == (&start, &end));
            if dice.is_multiple_of(2) {
                *tree.entry(&start, end.as_ref()) = round;
                match known {
                    Some(at) => list[at].2 = round,
                    None => list.push((start, end, round)),
                }
            } else {
                tree.remove(&start, end.as_ref());
                if let Some(at) = known {
                    list.swap_remove(at);
                }
            }
            let key = letter(dice >> 24);
            let mut found = Vec::new();
            assert!(tree.stab(&key, |value| {
                found.push(*value);
                true
            }));
            let mut wanted: Vec<_> = list
                .iter()
                .filter(|(s, e, _)| *s <= key && is_above(e.as_ref(), &key))
                .map(|(_, _, value)| *value)
                .collect();
            found.sort_unstable();
            wanted.sort_unstable();
            assert_eq!(found, wanted, "round {round}");
        }
        assert!(list.len() > 20, "the test must hold ranges to mean anything: {}", list.len());
    }
}
