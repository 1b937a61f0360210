//! Which versions answer a query: everything that can be decided without a look at values.

use std::ops::ControlFlow;

use api::etcdserverpb::range_request::{SortOrder, SortTarget};
use api::key_range::KeyRange;
use bytes::BytesMut;

use crate::event::Event;
use crate::fetch::Chunks;
use crate::history::Version;
use crate::index::Index;
use crate::overlay::Overlay;
use crate::read::{RangeQuery, Records};
use crate::record::{Header, Record};
use crate::revision::Revision;

/// The keys as of one revision: the index, and over it a transaction's own changes if it reads itself.
pub(crate) struct Source<'a> {
    index: &'a Index,
    overlay: Option<&'a Overlay>,
    at: i64,
}

/// Counting visits nodes; where the budget is in keys, one node is worth this many.
const KEYS_PER_NODE: usize = 8;

/// What answers a query, up to the fetching of records.
pub(crate) struct Selection {
    /// The keys in the range, before filters and limit.
    pub(crate) count: i64,
    /// Whether the limit left something out, as far as is known yet.
    pub(crate) more: bool,
    pub(crate) pick: Pick,
}

pub(crate) enum Pick {
    /// The records are complete without the backend.
    Records(Records),
    /// The records at these revisions, in this order.
    Revisions(Vec<Revision>),
    /// The records at these revisions, still to be sorted by value and cut.
    ByValue(Vec<Revision>),
}

impl<'a> Source<'a> {
    /// The keys at revision `at`; `current` is the revision that the index and the overlay together are at.
    pub(crate) fn new(index: &'a Index, current: i64, at: i64, overlay: Option<&'a Overlay>) -> Source<'a> {
        // A transaction's changes are all at `current`: an earlier revision is read without them.
        let overlay = overlay.filter(|overlay| at == current && !overlay.is_empty());
        Source { index, overlay, at }
    }

    pub(crate) fn latest(index: &'a Index, current: i64, overlay: Option<&'a Overlay>) -> Source<'a> {
        Source::new(index, current, current, overlay)
    }

    /// Visits the keys that exist, in order, with the version that is seen of each.
    pub(crate) fn visit(&self, range: &KeyRange, mut visit: impl FnMut(&[u8], &Version) -> ControlFlow<()>) {
        _ = self.visit_bounded(range, usize::MAX, &mut visit);
    }

    /// As [`visit`](Self::visit), but gives up after looking at `budget` keys, existing or not, and then
    /// answers false.
    fn visit_bounded(
        &self,
        range: &KeyRange,
        budget: usize,
        visit: &mut impl FnMut(&[u8], &Version) -> ControlFlow<()>,
    ) -> bool {
        let mut own = self.overlay.map(|overlay| overlay.latest_in(range)).unwrap_or_default().into_iter();
        let mut next_own = own.next();
        let mut own_before = |key: Option<&[u8]>,
                              visit: &mut dyn FnMut(&[u8], &Version) -> ControlFlow<()>|
         -> ControlFlow<(), bool> {
            while let Some(event) = next_own.filter(|event| key.is_none_or(|key| event.key.as_ref() <= key)) {
                next_own = own.next();
                if !event.tombstone {
                    visit(&event.key, &event.version())?;
                }
                if key.is_some_and(|key| event.key == key) {
                    return ControlFlow::Continue(true);
                }
            }
            ControlFlow::Continue(false)
        };
        let mut looked_at = 0;
        let mut broken = false;
        self.index.walk(range, |key, history| {
            looked_at += 1;
            if looked_at > budget {
                return ControlFlow::Break(());
            }
            let mut step = || {
                let hidden = own_before(Some(key), visit)?;
                match history.visible(self.at) {
                    Some(version) if !hidden => visit(key, version),
                    _ => ControlFlow::Continue(()),
                }
            };
            let flow = step();
            broken |= flow.is_break();
            flow
        });
        if looked_at > budget {
            return false;
        }
        if !broken {
            _ = own_before(None, visit);
        }
        true
    }

    /// How many keys exist in the range; `None` if more than `budget` would have to be looked at.
    fn count(&self, range: &KeyRange, budget: usize) -> Option<i64> {
        let base = self.index.count(range, self.at, budget / KEYS_PER_NODE)? as i64;
        let own = self.overlay.map(|overlay| overlay.latest_in(range)).unwrap_or_default();
        let change = |event: &&Event| {
            let was = self.index.get(&event.key).is_some_and(|history| history.is_live());
            i64::from(!event.tombstone) - i64::from(was)
        };
        Some(base + own.iter().map(change).sum::<i64>())
    }

    /// Decides what answers the query; `None` if more than `budget` keys would have to be looked at.
    pub(crate) fn select(&self, query: &RangeQuery, budget: usize) -> Option<Selection> {
        if let KeyRange::Key(key) = &query.range {
            return Some(self.select_one(query, key));
        }
        let count = self.count(&query.range, budget)?;
        if query.count_only || count == 0 {
            return Some(Selection { count, more: false, pick: Pick::Records(Vec::new()) });
        }
        let enough = query.enough();
        if (count as u64).min(enough as u64) > budget as u64 {
            return None;
        }
        let limit = usize::try_from(query.limit).ok().filter(|&limit| limit > 0).unwrap_or(usize::MAX);
        let by_value = query.target() == SortTarget::Value;
        let (pick, more) = if query.is_key_order() {
            self.in_key_order(query, limit, enough, budget)?
        } else {
            let mut found = self.gather(query, enough, budget)?;
            found.sort(query);
            let more = !by_value && found.items.len() > limit;
            if by_value {
                (Pick::ByValue(found.revisions(usize::MAX)), more)
            } else if query.keys_only {
                (Pick::Records(found.records(limit)), more)
            } else {
                (Pick::Revisions(found.revisions(limit)), more)
            }
        };
        Some(Selection { count, more, pick })
    }

    /// The commonest case: one key, one descent, nothing to sort or to cut.
    fn select_one(&self, query: &RangeQuery, key: &[u8]) -> Selection {
        let found = match self.overlay.and_then(|overlay| overlay.latest(key)) {
            Some(event) => Some(event.version()).filter(|version| !version.is_tombstone()),
            None => self.index.get(key).and_then(|history| history.visible(self.at)).copied(),
        };
        let pick = match found {
            Some(version) if !query.count_only && passes(query, &version) => match query.target() {
                SortTarget::Value if query.keys_only => Pick::ByValue(vec![version.revision()]),
                _ if query.keys_only => {
                    Pick::Records(vec![key_record(&mut Chunks::default(), key, &version)])
                }
                _ => Pick::Revisions(vec![version.revision()]),
            },
            _ => Pick::Records(Vec::new()),
        };
        Selection { count: i64::from(found.is_some()), more: false, pick }
    }

    /// The common case: records leave in the order in which the index has them.
    fn in_key_order(
        &self,
        query: &RangeQuery,
        limit: usize,
        enough: usize,
        budget: usize,
    ) -> Option<(Pick, bool)> {
        let mut picker = KeyOrder { keys_only: query.keys_only, limit, ..KeyOrder::default() };
        let mut visited = 0;
        let done = self.visit_bounded(&query.range, budget, &mut |key, version| {
            visited += 1;
            if passes(query, version) && picker.take(key, version).is_break() {
                return ControlFlow::Break(());
            }
            if visited < enough { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        done.then(|| picker.finish())
    }

    fn gather(&self, query: &RangeQuery, enough: usize, budget: usize) -> Option<Gathered> {
        let mut found = Gathered::default();
        let mut visited = 0;
        let done = self.visit_bounded(&query.range, budget, &mut |key, version| {
            visited += 1;
            if passes(query, version) {
                found.add(version, if query.keys_only { key } else { &[] });
            }
            if visited < enough { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        done.then_some(found)
    }
}

fn passes(query: &RangeQuery, version: &Version) -> bool {
    let within = |at: i64, min: i64, max: i64| (min == 0 || at >= min) && (max == 0 || at <= max);
    within(version.main, query.min_mod_revision, query.max_mod_revision)
        && within(version.create, query.min_create_revision, query.max_create_revision)
}

/// Takes versions in key order until the limit is passed.
#[derive(Default)]
struct KeyOrder {
    keys_only: bool,
    limit: usize,
    revisions: Vec<Revision>,
    records: Records,
    chunks: Chunks,
    more: bool,
}

impl KeyOrder {
    fn take(&mut self, key: &[u8], version: &Version) -> ControlFlow<()> {
        if self.revisions.len() + self.records.len() == self.limit {
            self.more = true;
            return ControlFlow::Break(());
        }
        if self.keys_only {
            self.records.push(key_record(&mut self.chunks, key, version));
        } else {
            self.revisions.push(version.revision());
        }
        ControlFlow::Continue(())
    }

    fn finish(self) -> (Pick, bool) {
        let pick = if self.keys_only { Pick::Records(self.records) } else { Pick::Revisions(self.revisions) };
        (pick, self.more)
    }
}

/// Versions to be sorted, with their keys where the answer is made of keys.
#[derive(Default)]
struct Gathered {
    items: Vec<Item>,
    keys: BytesMut,
}

struct Item {
    version: Version,
    /// Where the key ends in `keys`, and how long it is.
    key_end: usize,
    key_len: usize,
}

impl Gathered {
    fn add(&mut self, version: &Version, key: &[u8]) {
        self.keys.extend_from_slice(key);
        self.items.push(Item { version: *version, key_end: self.keys.len(), key_len: key.len() });
    }

    /// Sorts as the query asks; the items come in key order, and equal ones stay in it.
    fn sort(&mut self, query: &RangeQuery) {
        let by = |of: fn(&Version) -> i64| move |item: &Item| of(&item.version);
        let descend = query.order() == SortOrder::Descend;
        let sort = |items: &mut Vec<Item>, number: &dyn Fn(&Item) -> i64| {
            items.sort_by(|a, b| {
                let order = number(a).cmp(&number(b));
                if descend { order.reverse() } else { order }
            });
        };
        match query.target() {
            SortTarget::Key if descend => self.items.reverse(),
            SortTarget::Key | SortTarget::Value => {}
            SortTarget::Version => sort(&mut self.items, &by(|version| version.version)),
            SortTarget::Create => sort(&mut self.items, &by(|version| version.create)),
            SortTarget::Mod => sort(&mut self.items, &by(|version| version.main)),
        }
    }

    fn revisions(&self, limit: usize) -> Vec<Revision> {
        self.items.iter().take(limit).map(|item| item.version.revision()).collect()
    }

    fn records(&self, limit: usize) -> Records {
        let mut chunks = Chunks::default();
        let key = |item: &Item| &self.keys[item.key_end - item.key_len..item.key_end];
        self.items.iter().take(limit).map(|item| key_record(&mut chunks, key(item), &item.version)).collect()
    }
}

/// A record without its value, made of what the index knows.
fn key_record(chunks: &mut Chunks, key: &[u8], version: &Version) -> Record {
    Record(chunks.encode(&Header {
        key,
        create_revision: version.create,
        mod_revision: version.main,
        version: version.version,
        lease: version.lease,
    }))
}
