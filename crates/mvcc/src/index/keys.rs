//! The keys of one node, packed into one buffer.

/// A sorted list of byte strings that lie end to end.
///
/// Against a list of separately allocated keys this saves a pointer, a length and an allocator's overhead
/// per key, keeps a binary search within a few neighbouring pages of memory, and turns the copy of a node
/// that a snapshot shares into a copy of bytes.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    bytes: Vec<u8>,
    /// Where each key begins, and at last where the last one ends.
    offsets: Vec<u32>,
}

impl Keys {
    pub(super) fn new() -> Keys {
        Keys { bytes: Vec::new(), offsets: vec![0] }
    }

    pub(super) fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// The length of all keys together.
    pub(super) fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn get(&self, at: usize) -> &[u8] {
        &self.bytes[self.offsets[at] as usize..self.offsets[at + 1] as usize]
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|at| self.get(at))
    }

    /// Where the key is, or else where it would be.
    pub(super) fn search(&self, key: &[u8]) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = (low + high) / 2;
            match self.get(middle).cmp(key) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Ok(middle),
            }
        }
        Err(low)
    }

    /// How many keys are less than this one.
    pub(super) fn before(&self, key: &[u8]) -> usize {
        self.search(key).unwrap_or_else(|at| at)
    }

    /// How many keys are less than or equal to this one.
    pub(super) fn until(&self, key: &[u8]) -> usize {
        self.search(key).map_or_else(|at| at, |at| at + 1)
    }

    pub(super) fn insert(&mut self, at: usize, key: &[u8]) {
        let begin = self.offsets[at] as usize;
        let old_len = self.bytes.len();
        make_room(&mut self.bytes, key.len());
        make_room(&mut self.offsets, 1);
        self.bytes.resize(old_len + key.len(), 0);
        self.bytes.copy_within(begin..old_len, begin + key.len());
        self.bytes[begin..begin + key.len()].copy_from_slice(key);
        let len = narrow(key.len());
        narrow(self.bytes.len());
        self.offsets.insert(at, begin as u32);
        self.offsets[at + 1..].iter_mut().for_each(|offset| *offset += len);
    }

    pub(super) fn push(&mut self, key: &[u8]) {
        self.bytes.extend_from_slice(key);
        self.offsets.push(narrow(self.bytes.len()));
    }

    pub(super) fn remove(&mut self, at: usize) {
        let (begin, end) = (self.offsets[at], self.offsets[at + 1]);
        self.bytes.drain(begin as usize..end as usize);
        self.offsets.remove(at);
        self.offsets[at..].iter_mut().for_each(|offset| *offset -= end - begin);
    }

    /// Keeps the first `at` keys and returns the others.
    pub(super) fn split_off(&mut self, at: usize) -> Keys {
        let begin = self.offsets[at];
        let bytes = self.bytes.split_off(begin as usize);
        let offsets = self.offsets[at..].iter().map(|offset| offset - begin).collect();
        self.offsets.truncate(at + 1);
        Keys { bytes, offsets }
    }

    /// Where to split so that both sides have about the same number of bytes, and at least one key each.
    pub(super) fn middle(&self) -> usize {
        let half = narrow(self.byte_len() / 2);
        self.offsets.partition_point(|&offset| offset < half).clamp(1, self.len() - 1)
    }

    /// Adds keys that are all greater than those already there.
    pub(super) fn append(&mut self, other: &Keys) {
        let base = narrow(self.bytes.len());
        narrow(self.bytes.len() + other.bytes.len());
        self.bytes.extend_from_slice(&other.bytes);
        self.offsets.extend(other.offsets[1..].iter().map(|offset| base + offset));
    }

    pub(super) fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
        self.offsets.shrink_to_fit();
    }
}

/// Room for `more` elements, growing by a quarter: there are as many of these vectors as nodes, and doubling
/// would leave a third of all their memory unused.
pub(super) fn make_room<T>(vec: &mut Vec<T>, more: usize) {
    if vec.capacity() - vec.len() < more {
        vec.reserve_exact(more.max(vec.len() / 4));
    }
}

/// A node is split long before its keys are this long together, and no request is.
fn narrow(len: usize) -> u32 {
    u32::try_from(len).expect("the keys of a node are shorter than 4 GiB")
}

/// The shortest string that is greater than `left` and not greater than `right`: what a node needs to know
/// of the border between two children.
pub(super) fn separator<'a>(left: &[u8], right: &'a [u8]) -> &'a [u8] {
    assert!(left < right, "keys to the left of a border are less than those to the right");
    let common = left.iter().zip(right).take_while(|(a, b)| a == b).count();
    &right[..common + 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_behaves_as_a_vector_of_strings() {
        let mut keys = Keys::new();
        let mut twin: Vec<Vec<u8>> = Vec::new();
        let mut seed = 1u64;
        for step in 0..5_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let key = format!("{:x}", seed >> 52).into_bytes();
            assert_eq!(keys.search(&key), twin.binary_search(&key), "step {step}");
            match keys.search(&key) {
                Err(at) => {
                    keys.insert(at, &key);
                    twin.insert(at, key);
                }
                Ok(at) if step % 3 != 0 => {
                    keys.remove(at);
                    twin.remove(at);
                }
                Ok(at) => {
                    let right = keys.split_off(at);
                    assert!(keys.iter().eq(twin[..at].iter()) && right.iter().eq(twin[at..].iter()));
                    keys.append(&right);
                }
            }
            assert!(keys.iter().eq(twin.iter()), "step {step}");
            assert_eq!((keys.len(), keys.byte_len()), (twin.len(), twin.concat().len()));
        }
    }

    #[test]
    fn a_separator_is_short_and_separates() {
        for (left, right, expected) in [
            ("a", "b", "b"),
            ("abc", "abd", "abd"),
            ("ab", "abcd", "abc"),
            ("/registry/pods/x9", "/registry/services/y", "/registry/s"),
        ] {
            let found = separator(left.as_bytes(), right.as_bytes());
            assert_eq!(found, expected.as_bytes());
            assert!(left.as_bytes() < found && found <= right.as_bytes());
        }
    }
}
