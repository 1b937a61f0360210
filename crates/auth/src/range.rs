//! Which keys are permitted: a union of intervals.
//!
//! A permission, like a request, names one key (no range end), everything from a key on (the range
//! end is the byte zero), or the keys from one on up to another. No key is the empty string, so a
//! permission whose key is empty covers nothing, and neither does one whose end is not after its
//! beginning. etcd takes none of these any more, but older versions did, and they are still stored.

use bytes::Bytes;

/// Where an interval ends. In this order: whatever is open ends last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// Before this key.
    Before(Bytes),
    /// Nowhere.
    Open,
}

/// A set of keys: intervals in order that neither overlap nor touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(Vec<(Bytes, End)>);

/// The range end that stands for everything from a key on.
const OPEN: &[u8] = b"\0";

fn interval(key: &Bytes, range_end: &Bytes) -> Option<(Bytes, End)> {
    if key.is_empty() {
        return None;
    }
    let end = match range_end.as_ref() {
        [] => End::Before([key.as_ref(), b"\0"].concat().into()),
        OPEN => End::Open,
        end if key.as_ref() < end => End::Before(range_end.clone()),
        _ => return None,
    };
    Some((key.clone(), end))
}

/// Whether a permission for these keys may be granted: it must be for some.
pub(crate) fn is_grantable(key: &[u8], range_end: &[u8]) -> bool {
    !key.is_empty() && (range_end.is_empty() || range_end == OPEN || key < range_end)
}

impl Ranges {
    /// The union of permissions, each a key and a range end.
    pub fn union<'a>(permissions: impl IntoIterator<Item = (&'a Bytes, &'a Bytes)>) -> Ranges {
        let mut intervals: Vec<(Bytes, End)> =
            permissions.into_iter().filter_map(|(key, end)| interval(key, end)).collect();
        intervals.sort();
        let mut merged: Vec<(Bytes, End)> = Vec::with_capacity(intervals.len());
        for (start, end) in intervals {
            match merged.last_mut() {
                Some((_, last)) if reaches(last, &start) => *last = end.max(last.clone()),
                _ => merged.push((start, end)),
            }
        }
        Ranges(merged)
    }

    /// Whether all keys of a request's range are in the set. A range of a request that holds no keys
    /// (its end is not after its key) is asked for by its key, as in etcd.
    pub fn covers(&self, key: &[u8], range_end: &[u8]) -> bool {
        let after = self.0.partition_point(|(start, _)| start.as_ref() <= key);
        let Some((_, end)) = after.checked_sub(1).and_then(|at| self.0.get(at)) else { return false };
        let End::Before(end) = end else { return true };
        key < end.as_ref() && range_end != OPEN && (range_end.is_empty() || range_end <= end.as_ref())
    }

    /// Whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Whether an interval with this end overlaps or touches one that starts here.
fn reaches(end: &End, start: &[u8]) -> bool {
    match end {
        End::Before(end) => start <= end.as_ref(),
        End::Open => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every string of at most three letters, of which one is the byte zero.
    fn strings() -> Vec<Bytes> {
        let mut strings = vec![Vec::new()];
        let mut from = 0;
        for _ in 0..3 {
            let to = strings.len();
            for at in from..to {
                for letter in [0, b'a', b'b', 0xff] {
                    let mut longer: Vec<u8> = strings[at].clone();
                    longer.push(letter);
                    strings.push(longer);
                }
            }
            from = to;
        }
        strings.into_iter().map(Bytes::from).collect()
    }

    /// The twin: which keys of a finite world does a range hold?
    fn holds(key: &[u8], range_end: &[u8], one: &[u8]) -> bool {
        match range_end {
            [] => one == key,
            [0] => one >= key,
            end => one >= key && one < end,
        }
    }

    /// All strings of at most `length` letters out of the alphabet above stand for all keys: the
    /// borders of the ranges have at most three, and right behind a border comes one longer by zero.
    #[test]
    fn a_range_is_covered_exactly_if_each_of_its_keys_is_permitted() {
        let borders = strings();
        let mut world: Vec<Bytes> = borders.iter().filter(|key| !key.is_empty()).cloned().collect();
        world.extend(borders.iter().map(|border| Bytes::from([border.as_ref(), b"\0"].concat())));
        world.extend(borders.iter().map(|border| Bytes::from([border.as_ref(), b"zzzz"].concat())));
        let mut state = 7u64;
        let mut chance = |n: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % n
        };
        let (mut yes, mut no) = (0, 0);
        for case in 0..4_000 {
            let mut pick = || borders[chance(borders.len())].clone();
            let permissions: Vec<(Bytes, Bytes)> = (0..case % 5).map(|_| (pick(), pick())).collect();
            let ranges = Ranges::union(permissions.iter().map(|(key, end)| (key, end)));
            let permitted =
                |one: &Bytes| permissions.iter().any(|(key, end)| !key.is_empty() && holds(key, end, one));
            for _ in 0..20 {
                let (mut key, mut end) = (pick(), pick());
                // Half of the time a range that has to do with a permission.
                if let Some((start, stop)) = permissions.first().filter(|_| end.len() < 3) {
                    (key, end) = (start.clone(), if key.len() < 3 { stop.clone() } else { end });
                }
                if key.is_empty() {
                    continue;
                }
                let is_of_none = !end.is_empty() && end.as_ref() != OPEN && end <= key;
                let expected = if is_of_none {
                    permitted(&key)
                } else {
                    world.iter().filter(|one| holds(&key, &end, one)).all(permitted)
                };
                assert_eq!(
                    ranges.covers(&key, &end),
                    expected,
                    "case {case}: [{key:?}, {end:?}) of {permissions:?}: {ranges:?}"
                );
                if expected { yes += 1 } else { no += 1 }
            }
        }
        assert!(yes > 2_000 && no > 2_000, "{yes} covered, {no} not");
    }

    fn of(permissions: &[(&'static str, &'static str)]) -> Ranges {
        let permissions: Vec<(Bytes, Bytes)> =
            permissions.iter().map(|(key, end)| (Bytes::from(*key), Bytes::from(*end))).collect();
        Ranges::union(permissions.iter().map(|(key, end)| (key, end)))
    }

    #[test]
    fn neighbours_grow_together() {
        let ranges = of(&[("c", "e"), ("a", "c")]);
        assert!(ranges.covers(b"b", b"d") && !ranges.covers(b"b", b"f") && !ranges.covers(b"e", b""));
        // The key `a` alone and everything behind it up to `b`.
        assert!(of(&[("a", ""), ("a\0", "b")]).covers(b"a", b"b"));
        assert!(!of(&[("a", ""), ("a\0\0", "b")]).covers(b"a", b"b"));
    }

    /// Of an advisory: who may read one key must not watch everything behind it.
    #[test]
    fn one_key_is_not_all_that_follow() {
        assert!(of(&[("a", "")]).covers(b"a", b""));
        assert!(!of(&[("a", "")]).covers(b"a", b"\0"));
        assert!(!of(&[("a", "z")]).covers(b"a", b"\0"));
        assert!(of(&[("a", "\0")]).covers(b"b", b"\0") && of(&[("a", "\0")]).covers(b"b", b"c"));
    }

    #[test]
    fn a_permission_for_no_key_permits_nothing() {
        for (key, end) in [("", ""), ("", "\0"), ("", "b"), ("b", "a"), ("b", "b")] {
            assert!(!is_grantable(key.as_bytes(), end.as_bytes()), "{key:?} {end:?}");
            assert!(of(&[(key, end)]).is_empty(), "{key:?} {end:?}");
        }
        assert!(is_grantable(b"a", b"") && is_grantable(b"a", b"\0") && is_grantable(b"a", b"b"));
        assert!(!of(&[("a", "\0")]).covers(b"", b"\0"), "no key is empty");
    }
}
