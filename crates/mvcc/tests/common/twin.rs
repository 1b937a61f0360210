//! The naive twin: a map of all versions, and every rule written as plainly as it can be.

use std::collections::{BTreeMap, BTreeSet};

use api::mvccpb::KeyValue;
use mvcc::{HashKv, KeyRange, RangeQuery, SortOrder, SortTarget};
use prost::Message;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Version {
    pub(crate) at: (i64, i64),
    pub(crate) create: i64,
    pub(crate) version: i64,
    pub(crate) lease: i64,
    /// `None` for a tombstone.
    pub(crate) value: Option<Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Refusal {
    Compacted(i64),
    Future(i64),
}

pub(crate) struct Answer {
    pub(crate) kvs: Vec<KeyValue>,
    pub(crate) count: i64,
    pub(crate) more: bool,
}

/// What every key was at every time. A clone is a transaction: change it, then keep it or drop it.
#[derive(Clone, Debug)]
pub(crate) struct Twin {
    pub(crate) keys: BTreeMap<Vec<u8>, Vec<Version>>,
    pub(crate) current: i64,
    pub(crate) compact: i64,
    /// The next sub revision of the open transaction; its changes are at `current + 1`.
    pub(crate) sub: i64,
}

impl Twin {
    pub(crate) fn new() -> Twin {
        Twin { keys: BTreeMap::new(), current: 1, compact: -1, sub: 0 }
    }

    /// The revision that a transaction's reads are at.
    pub(crate) fn revision(&self) -> i64 {
        if self.sub > 0 { self.current + 1 } else { self.current }
    }

    pub(crate) fn commit(&mut self) -> bool {
        let written = self.sub > 0;
        self.current = self.revision();
        self.sub = 0;
        written
    }

    pub(crate) fn visible(&self, key: &[u8], at: i64) -> Option<&Version> {
        let last = self.keys.get(key)?.iter().rfind(|version| version.at.0 <= at)?;
        last.value.as_ref().map(|_| last)
    }

    pub(crate) fn put(&mut self, key: &[u8], value: &[u8], lease: i64) {
        let before = self.visible(key, i64::MAX).cloned();
        let at = (self.current + 1, self.sub);
        let (create, version) = before.map_or((at.0, 1), |v| (v.create, v.version + 1));
        let version = Version { at, create, version, lease, value: Some(value.to_vec()) };
        self.keys.entry(key.to_vec()).or_default().push(version);
        self.sub += 1;
    }

    pub(crate) fn delete_range(&mut self, range: &KeyRange) -> Vec<Vec<u8>> {
        let all: Vec<Vec<u8>> = self.keys.keys().cloned().collect();
        let there = |key: &Vec<u8>| range.contains(key) && self.visible(key, i64::MAX).is_some();
        let gone: Vec<Vec<u8>> = all.into_iter().filter(there).collect();
        for key in &gone {
            let at = (self.current + 1, self.sub);
            let tombstone = Version { at, create: 0, version: 0, lease: 0, value: None };
            self.keys.get_mut(key).unwrap().push(tombstone);
            self.sub += 1;
        }
        gone
    }

    pub(crate) fn range(&self, query: &RangeQuery) -> Result<Answer, Refusal> {
        let current = self.revision();
        if query.revision > current {
            return Err(Refusal::Future(current));
        }
        let at = if query.revision <= 0 { current } else { query.revision };
        if at < self.compact {
            return Err(Refusal::Compacted(self.compact));
        }
        let mut kvs: Vec<KeyValue> = Vec::new();
        for key in self.keys.keys().filter(|key| query.range.contains(key)) {
            kvs.extend(self.visible(key, at).map(|version| key_value(key, version)));
        }
        let count = kvs.len() as i64;
        if query.count_only {
            return Ok(Answer { kvs: Vec::new(), count, more: false });
        }
        let (target, order) = query.sort.unwrap_or((SortTarget::Key, SortOrder::None));
        let filters = [
            query.min_mod_revision,
            query.max_mod_revision,
            query.min_create_revision,
            query.max_create_revision,
        ];
        let natural = order == SortOrder::None || (order == SortOrder::Ascend && target == SortTarget::Key);
        if natural && query.limit > 0 && filters == [0; 4] {
            kvs.truncate(query.limit as usize + 1);
        }
        kvs.retain(|kv| {
            (query.min_mod_revision == 0 || kv.mod_revision >= query.min_mod_revision)
                && (query.max_mod_revision == 0 || kv.mod_revision <= query.max_mod_revision)
                && (query.min_create_revision == 0 || kv.create_revision >= query.min_create_revision)
                && (query.max_create_revision == 0 || kv.create_revision <= query.max_create_revision)
        });
        let descend = order == SortOrder::Descend;
        if descend {
            kvs.reverse();
        }
        match target {
            SortTarget::Key => kvs.sort_by(|a, b| a.key.cmp(&b.key)),
            SortTarget::Version => kvs.sort_by_key(|kv| kv.version),
            SortTarget::Create => kvs.sort_by_key(|kv| kv.create_revision),
            SortTarget::Mod => kvs.sort_by_key(|kv| kv.mod_revision),
            SortTarget::Value => kvs.sort_by(|a, b| a.value.cmp(&b.value)),
        }
        if descend {
            kvs.reverse();
        }
        let more = query.limit > 0 && kvs.len() as i64 > query.limit;
        if more {
            kvs.truncate(query.limit as usize);
        }
        if query.keys_only {
            kvs.iter_mut().for_each(|kv| kv.value.clear());
        }
        Ok(Answer { kvs, count, more })
    }

    /// The events of a range of revisions: when, what kind, and the message a watcher is sent.
    pub(crate) fn events(&self, from: i64, to: i64) -> Vec<((i64, i64), bool, KeyValue)> {
        let mut events: Vec<_> = self
            .keys
            .iter()
            .flat_map(|(key, versions)| versions.iter().map(move |version| (key, version)))
            .filter(|(_, version)| (from..=to).contains(&version.at.0))
            .map(|(key, version)| match version.value {
                Some(_) => (version.at, false, key_value(key, version)),
                None => {
                    let kv = KeyValue {
                        key: key.clone().into(),
                        mod_revision: version.at.0,
                        ..KeyValue::default()
                    };
                    (version.at, true, kv)
                }
            })
            .collect();
        events.sort_by_key(|(at, _, _)| *at);
        events
    }

    /// etcd's `HashKV`, computed as etcd 3.7.1 does over rows that are physically compacted.
    pub(crate) fn hash(&self, revision: i64) -> Result<HashKv, Refusal> {
        if revision > self.current {
            return Err(Refusal::Future(self.current));
        }
        if revision > 0 && revision < self.compact {
            return Err(Refusal::Compacted(self.compact));
        }
        let revision = if revision == 0 { self.current } else { revision };
        let mut keep: BTreeSet<(i64, i64)> = BTreeSet::new();
        let mut rows: BTreeMap<(i64, i64), (bool, Vec<u8>)> = BTreeMap::new();
        for (key, versions) in &self.keys {
            keep.extend(self.visible(key, revision).map(|version| version.at));
            let stays = versions.iter().rfind(|version| version.at.0 <= self.compact);
            for version in versions {
                let dead = version.at.0 <= self.compact
                    && (Some(version.at) != stays.map(|stays| stays.at)
                        || (version.value.is_none() && version.at.0 < self.compact));
                if dead {
                    continue;
                }
                let row = match version.value {
                    Some(_) => (false, key_value(key, version).encode_to_vec()),
                    None => {
                        let kv = KeyValue { key: key.clone().into(), ..KeyValue::default() };
                        (true, kv.encode_to_vec())
                    }
                };
                rows.insert(version.at, row);
            }
        }
        let mut hash = crc32c::crc32c(b"key");
        for ((main, sub), (tombstone, record)) in rows {
            let unkept = main <= self.compact && !keep.is_empty() && !keep.contains(&(main, sub));
            if main > revision || unkept || (main == self.compact && tombstone) {
                continue;
            }
            let mut row = [&main.to_be_bytes()[..], b"_", &sub.to_be_bytes()[..]].concat();
            if tombstone {
                row.push(b't');
            }
            hash = crc32c::crc32c_append(crc32c::crc32c_append(hash, &row), &record);
        }
        Ok(HashKv { hash, compact_revision: self.compact, revision })
    }

    pub(crate) fn leases(&self) -> Vec<(Vec<u8>, i64)> {
        let live = |key: &Vec<u8>| self.visible(key, i64::MAX).map(|version| version.lease);
        let leased = |key: &Vec<u8>| live(key).filter(|&lease| lease != 0).map(|lease| (key.clone(), lease));
        self.keys.keys().filter_map(leased).collect()
    }
}

fn key_value(key: &[u8], version: &Version) -> KeyValue {
    KeyValue {
        key: key.to_vec().into(),
        create_revision: version.create,
        mod_revision: version.at.0,
        version: version.version,
        value: version.value.clone().unwrap_or_default().into(),
        lease: version.lease,
    }
}
