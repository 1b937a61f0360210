//! The changes of an unfinished transaction, which it alone can see.

use std::collections::BTreeMap;
use std::ops::Bound;

use api::key_range::KeyRange;
use bytes::Bytes;

use crate::event::Event;

/// Changes in the order in which they were made; the position of a change is its sub revision.
///
/// Nearly all transactions make a handful of changes, and searching a handful is fastest done by looking at
/// each. From [`FEW`] on a map says which change of a key is the last.
#[derive(Default)]
pub(crate) struct Overlay {
    changes: Vec<Event>,
    last: BTreeMap<Bytes, usize>,
}

const FEW: usize = 8;

impl Overlay {
    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.changes.len()
    }

    pub(crate) fn push(&mut self, event: Event) {
        debug_assert_eq!(event.revision.sub, self.changes.len() as i64);
        self.changes.push(event);
        let from = match self.changes.len() {
            ..=FEW => return,
            len if self.last.is_empty() => len - FEW - 1,
            len => len - 1,
        };
        for (i, event) in self.changes.iter().enumerate().skip(from) {
            self.last.insert(event.key.clone(), i);
        }
    }

    /// The last change of a key.
    pub(crate) fn latest(&self, key: &[u8]) -> Option<&Event> {
        if self.last.is_empty() {
            self.changes.iter().rev().find(|event| event.key == key)
        } else {
            self.last.get(key).map(|&i| &self.changes[i])
        }
    }

    /// The last change of each key of a range, in the order of keys.
    pub(crate) fn latest_in(&self, range: &KeyRange) -> Vec<&Event> {
        if !self.last.is_empty() {
            let bounds = (Bound::Included(range.start()), range.end());
            return self.last.range::<[u8], _>(bounds).map(|(_, &i)| &self.changes[i]).collect();
        }
        let mut found: Vec<&Event> = self.changes.iter().filter(|e| range.contains(&e.key)).collect();
        found.sort_by(|a, b| a.key.cmp(&b.key).then(b.revision.cmp(&a.revision)));
        found.dedup_by(|later, first| later.key == first.key);
        found
    }

    pub(crate) fn into_changes(self) -> Vec<Event> {
        self.changes
    }

    pub(crate) fn changes(&self) -> &[Event] {
        &self.changes
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::revision::Revision;

    #[test]
    fn few_and_many_changes_answer_alike() {
        let mut overlay = Overlay::default();
        let mut twin: BTreeMap<Vec<u8>, i64> = BTreeMap::new();
        for sub in 0..60 {
            let key = vec![b'a' + (sub * 7 % 13) as u8];
            overlay.push(Event::tombstone(&key, Revision::new(2, sub)));
            twin.insert(key, sub);
            for key in (b'a'..=b'n').map(|letter| vec![letter]) {
                assert_eq!(overlay.latest(&key).map(|e| e.revision.sub), twin.get(&key).copied());
            }
            let range = KeyRange::range(Bytes::from_static(b"c"), Bytes::from_static(b"k"));
            let found: Vec<_> =
                overlay.latest_in(&range).iter().map(|e| (e.key.to_vec(), e.revision.sub)).collect();
            let expected: Vec<_> =
                twin.range(vec![b'c']..vec![b'k']).map(|(k, &sub)| (k.clone(), sub)).collect();
            assert_eq!(found, expected);
        }
    }
}
