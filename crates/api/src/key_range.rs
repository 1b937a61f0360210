//! The keys that a request means by its `key` and `range_end` fields.
//!
//! On the wire a range is two byte strings, and the second is overloaded:
//!
//! | `range_end`            | meaning                      | here                  |
//! | ---------------------- | ---------------------------- | --------------------- |
//! | empty                  | the one key `key`            | [`KeyRange::Key`]     |
//! | the single byte 0      | every key from `key` onwards | [`KeyRange::From`]    |
//! | greater than `key`     | `key` up to, not including   | [`KeyRange::Range`]   |
//! | anything else          | nothing at all               | [`KeyRange::Empty`]   |
//!
//! The third and fourth rows keep apart here what the wire does not, so that no later code can walk an
//! inverted range. "All keys" has no row: it is `From` the smallest key there is, the single byte 0, because
//! the empty key does not exist. Whether an empty `key` is an error is the caller's business (it is for
//! reads and writes; a watch takes it for the smallest key).

use std::ops::{Bound, RangeBounds};

use bytes::Bytes;

/// The smallest key that can exist, and as a `range_end` the mark for "no end".
const ZERO: &[u8] = &[0];

/// A set of keys as a request names it: one, an interval, a tail of the key space, or none.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeyRange {
    /// Exactly this key.
    Key(Bytes),
    /// The keys from `start` up to but not including `end`; `start < end` always.
    Range {
        /// The first key that may be in the range.
        start: Bytes,
        /// The first key that is not.
        end: Bytes,
    },
    /// Every key that is this one or greater.
    From(Bytes),
    /// No key.
    Empty,
}

impl KeyRange {
    /// The range that the two fields of a request mean.
    pub fn from_request(key: &Bytes, range_end: &Bytes) -> KeyRange {
        match range_end.as_ref() {
            [] => KeyRange::Key(key.clone()),
            ZERO => KeyRange::From(key.clone()),
            _ => KeyRange::range(key.clone(), range_end.clone()),
        }
    }

    /// The keys from `start` up to but not including `end`, taken literally: `end` has no special values.
    pub fn range(start: Bytes, end: Bytes) -> KeyRange {
        if start < end { KeyRange::Range { start, end } } else { KeyRange::Empty }
    }

    /// Every key there can be.
    pub fn all() -> KeyRange {
        KeyRange::From(Bytes::from_static(ZERO))
    }

    /// Every key that begins with `prefix`; all keys when it is empty.
    pub fn prefix(prefix: &Bytes) -> KeyRange {
        if prefix.is_empty() {
            return KeyRange::all();
        }
        KeyRange::from_request(prefix, &prefix_end(prefix))
    }

    /// Whether `key` is in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            KeyRange::Key(only) => only == key,
            KeyRange::Range { start, end } => start.as_ref() <= key && key < end.as_ref(),
            KeyRange::From(start) => start.as_ref() <= key,
            KeyRange::Empty => false,
        }
    }

    /// Whether no key can be in the range.
    pub fn is_empty(&self) -> bool {
        matches!(self, KeyRange::Empty)
    }

    /// The smallest key that may be in the range; the empty string when there is none.
    pub fn start(&self) -> &[u8] {
        match self {
            KeyRange::Key(start) | KeyRange::Range { start, .. } | KeyRange::From(start) => start,
            KeyRange::Empty => &[],
        }
    }

    /// Where the range ends, in the form that ordered maps of the standard library take.
    pub fn end(&self) -> Bound<&[u8]> {
        match self {
            KeyRange::Key(only) => Bound::Included(only),
            KeyRange::Range { end, .. } => Bound::Excluded(end),
            KeyRange::From(_) => Bound::Unbounded,
            KeyRange::Empty => Bound::Excluded(&[]),
        }
    }
}

/// `map.range::<[u8], _>(&range)` walks exactly the keys of the range, and never panics: an empty range is
/// the half-open interval from the empty key to itself.
impl RangeBounds<[u8]> for KeyRange {
    fn start_bound(&self) -> Bound<&[u8]> {
        Bound::Included(self.start())
    }

    fn end_bound(&self) -> Bound<&[u8]> {
        self.end()
    }
}

/// The `range_end` that together with `prefix` as the key means "every key that begins with `prefix`".
///
/// It is the prefix with its last byte that is not 255 raised by one and everything after that cut off.
/// When no such byte exists (an empty prefix, or 255 all through) nothing sorts after the keys that begin
/// with it, and the answer is the mark for "no end", the single byte 0.
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    match prefix.iter().rposition(|&byte| byte != 0xff) {
        Some(last) => {
            let mut end = prefix[..=last].to_vec();
            end[last] += 1;
            Bytes::from(end)
        }
        None => Bytes::from_static(ZERO),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use super::*;

    fn range(key: &'static [u8], end: &'static [u8]) -> KeyRange {
        KeyRange::from_request(&Bytes::from_static(key), &Bytes::from_static(end))
    }

    /// What etcd's index does with the two fields, written as plainly as it can be: one key without an end,
    /// else everything not below `key` and, unless the end is the single byte 0, below the end.
    fn twin(key: &[u8], end: &[u8], probe: &[u8]) -> bool {
        if end.is_empty() {
            return probe == key;
        }
        probe >= key && (end == ZERO || probe < end)
    }

    /// Every string of up to two letters over an alphabet that holds both extremes of a byte.
    fn strings() -> Vec<Vec<u8>> {
        let letters = [0u8, 1, b'a', b'b', 0xfe, 0xff];
        let mut all = vec![vec![]];
        all.extend(letters.map(|x| vec![x]));
        all.extend(letters.iter().flat_map(|&x| letters.map(|y| vec![x, y])));
        all
    }

    #[test]
    fn every_small_range_holds_what_the_two_fields_say() {
        let strings = strings();
        let map: BTreeMap<Vec<u8>, ()> = strings.iter().skip(1).map(|key| (key.clone(), ())).collect();
        for key in &strings {
            for end in &strings {
                let range =
                    KeyRange::from_request(&Bytes::copy_from_slice(key), &Bytes::copy_from_slice(end));
                let mut expected = Vec::new();
                for probe in strings.iter().filter(|probe| !probe.is_empty()) {
                    let inside = twin(key, end, probe);
                    assert_eq!(range.contains(probe), inside, "{range:?} and {probe:?}");
                    if inside {
                        expected.push(probe.clone());
                    }
                }
                expected.sort();
                let bounds = (range.start_bound(), range.end_bound());
                let walked: Vec<_> = map.range::<[u8], _>(bounds).map(|(key, ())| key.clone()).collect();
                assert_eq!(walked, expected, "{range:?}");
                if range.is_empty() {
                    assert!(expected.is_empty(), "{range:?} holds {expected:?}");
                }
            }
        }
    }

    #[test]
    fn the_four_shapes() {
        assert_eq!(range(b"a", b""), KeyRange::Key(Bytes::from_static(b"a")));
        assert_eq!(range(b"a", b"\0"), KeyRange::From(Bytes::from_static(b"a")));
        assert_eq!(
            range(b"a", b"c"),
            KeyRange::Range { start: Bytes::from_static(b"a"), end: Bytes::from_static(b"c") }
        );
        assert_eq!(range(b"a", b"a"), KeyRange::Empty);
        assert_eq!(range(b"b", b"a"), KeyRange::Empty);
        assert_eq!(range(b"\0", b"\0"), KeyRange::all());
    }

    #[test]
    fn a_prefix_range_holds_exactly_the_keys_with_the_prefix() {
        for prefix in strings() {
            let range = KeyRange::prefix(&Bytes::copy_from_slice(&prefix));
            for key in strings().iter().filter(|key| !key.is_empty()) {
                assert_eq!(range.contains(key), key.starts_with(&prefix), "{prefix:?} {key:?} {range:?}");
            }
        }
        assert_eq!(prefix_end(b"ab\xff\xff").as_ref(), b"ac");
        assert_eq!(prefix_end(b"\xff\xff").as_ref(), b"\0");
        assert_eq!(prefix_end(b"").as_ref(), b"\0");
    }
}
