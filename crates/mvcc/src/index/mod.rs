//! The ordered map from keys to their histories.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use api::key_range::KeyRange;

use crate::history::{History, Left, Version};

/// Every key with at least one version left.
#[derive(Clone, Default)]
pub(crate) struct Index {
    map: Arc<BTreeMap<Box<[u8]>, History>>,
}

impl Index {
    pub(crate) fn get(&self, key: &[u8]) -> Option<&History> {
        self.map.get(key)
    }

    pub(crate) fn live(&self) -> u64 {
        self.map.values().filter(|h| h.is_live()).count() as u64
    }

    pub(crate) fn count_live(&self, range: &KeyRange) -> u64 {
        self.map
            .range::<[u8], _>((Bound::Included(range.start()), range.end()))
            .filter(|(_, h)| h.is_live())
            .count() as u64
    }

    pub(crate) fn push(&mut self, key: &[u8], version: Version) {
        let map = Arc::make_mut(&mut self.map);
        match map.get_mut(key) {
            Some(history) => history.push(version),
            None => _ = map.insert(key.into(), History::new(version)),
        }
    }

    pub(crate) fn walk(&self, range: &KeyRange, mut visit: impl FnMut(&[u8], &History) -> ControlFlow<()>) {
        for (key, history) in self.map.range::<[u8], _>((Bound::Included(range.start()), range.end())) {
            if visit(key, history).is_break() {
                return;
            }
        }
    }

    /// Visits a run of keys from `from` on, and returns where the next run begins.
    pub(crate) fn sweep(
        &mut self,
        from: &[u8],
        wanted: impl Fn(&History) -> bool,
        mut visit: impl FnMut(&mut History) -> Left,
    ) -> Option<Vec<u8>> {
        let map = Arc::make_mut(&mut self.map);
        let keys: Vec<Box<[u8]>> = map
            .range::<[u8], _>((Bound::Included(from), Bound::Unbounded))
            .take(65)
            .map(|(k, _)| k.clone())
            .collect();
        for key in keys.iter().take(64) {
            let history = map.get_mut(key).expect("listed above");
            if wanted(history) && visit(history) == Left::Nothing {
                map.remove(key);
            }
        }
        keys.get(64).map(|k| k.to_vec())
    }

    pub(crate) fn build(sorted: impl Iterator<Item = (Vec<u8>, History)>) -> Index {
        Index { map: Arc::new(sorted.map(|(k, h)| (k.into_boxed_slice(), h)).collect()) }
    }
}
