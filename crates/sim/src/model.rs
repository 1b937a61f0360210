//! What commands do, said as simply as possible: a list of all versions of every key, and nothing is ever
//! taken off it.

use std::collections::{BTreeMap, BTreeSet};

use api::etcdserverpb::compare::{CompareResult, TargetUnion};
use api::etcdserverpb::request_op::Request;
use api::etcdserverpb::{Compare, DeleteRangeRequest, InternalRaftRequest, PutRequest, TxnRequest};
use api::mvccpb::KeyValue;
use bytes::Bytes;
use prost::Message;

/// One version of a key; no record is a tombstone.
#[derive(Clone, Debug, PartialEq)]
struct Version {
    main: i64,
    sub: i64,
    record: Option<KeyValue>,
}

/// The state after some entries of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// The current revision.
    pub revision: i64,
    /// What was last compacted to; -1 if nothing was.
    pub compacted: i64,
    keys: BTreeMap<Bytes, Vec<Version>>,
    leases: BTreeMap<i64, BTreeSet<Bytes>>,
}

impl Default for Model {
    fn default() -> Model {
        Model { revision: 1, compacted: -1, keys: BTreeMap::new(), leases: BTreeMap::new() }
    }
}

impl Model {
    /// The keys as they were at a revision, in order.
    pub fn at(&self, revision: i64) -> Vec<KeyValue> {
        let latest = |versions: &Vec<Version>| {
            versions.iter().rev().find(|version| version.main <= revision).and_then(|v| v.record.clone())
        };
        self.keys.values().filter_map(latest).collect()
    }

    /// Granted leases and the keys attached to each, all in order.
    pub fn leases(&self) -> Vec<(i64, Vec<Bytes>)> {
        self.leases.iter().map(|(&id, keys)| (id, keys.iter().cloned().collect())).collect()
    }

    /// etcd's `HashKV` at the current revision.
    pub fn hash(&self) -> u32 {
        let visible = |at: i64| -> BTreeSet<(i64, i64)> {
            let latest = self.keys.values().filter_map(|v| v.iter().rev().find(|v| v.main <= at));
            latest.filter(|v| v.record.is_some()).map(|v| (v.main, v.sub)).collect()
        };
        let mut kept = visible(self.revision);
        if kept.is_empty() {
            kept = visible(self.compacted);
        }
        let mut rows = BTreeMap::new();
        for (key, versions) in &self.keys {
            for version in versions {
                let place = (version.main, version.sub);
                if version.main > self.compacted || kept.contains(&place) {
                    rows.insert(place, (key, version));
                }
            }
        }
        let mut hash = crc32c::crc32c(b"key");
        for ((main, sub), (key, version)) in rows {
            let mut bytes = [&main.to_be_bytes()[..], b"_", &sub.to_be_bytes()[..]].concat();
            match &version.record {
                Some(record) => record.encode(&mut bytes).expect("a vector grows"),
                None => {
                    bytes.push(b't');
                    let tombstone = KeyValue { key: key.clone(), ..KeyValue::default() };
                    tombstone.encode(&mut bytes).expect("a vector grows");
                }
            }
            hash = crc32c::crc32c_append(hash, &bytes);
        }
        hash
    }

    /// Applies one entry of the log.
    pub fn apply(&mut self, data: &[u8]) {
        let Ok(request) = InternalRaftRequest::decode(data) else { return };
        let (before, mut sub) = (self.revision, 0);
        if let Some(put) = &request.put {
            if self.may_put(put) {
                self.put(put, &mut sub);
            }
        } else if let Some(delete) = &request.delete_range {
            self.delete(delete, &mut sub);
        } else if let Some(txn) = &request.txn {
            self.txn(txn, &mut sub);
        } else if let Some(grant) = &request.lease_grant {
            self.leases.entry(grant.id).or_default();
        } else if let Some(revoke) = &request.lease_revoke {
            for key in self.leases.get(&revoke.id).cloned().unwrap_or_default() {
                self.end(&key, &mut sub);
            }
            self.leases.remove(&revoke.id);
        } else if let Some(compaction) = &request.compaction
            && (self.compacted + 1..=before).contains(&compaction.revision)
        {
            self.compacted = compaction.revision;
        }
        if sub > 0 {
            self.revision += 1;
        }
    }

    fn may_put(&self, put: &PutRequest) -> bool {
        put.lease == 0 || self.leases.contains_key(&put.lease)
    }

    fn latest(&self, key: &[u8]) -> Option<&KeyValue> {
        self.keys.get(key)?.last()?.record.as_ref()
    }

    fn put(&mut self, put: &PutRequest, sub: &mut i64) {
        let main = self.revision + 1;
        let before = self.latest(&put.key);
        let record = KeyValue {
            key: put.key.clone(),
            create_revision: before.map_or(main, |kv| kv.create_revision),
            mod_revision: main,
            version: before.map_or(1, |kv| kv.version + 1),
            value: put.value.clone(),
            lease: put.lease,
        };
        self.attach(&put.key, put.lease);
        self.push(&put.key, sub, Some(record));
    }

    fn delete(&mut self, delete: &DeleteRangeRequest, sub: &mut i64) {
        let inside = |key: &Bytes| match delete.range_end.is_empty() {
            true => *key == delete.key,
            false => (&delete.key..&delete.range_end).contains(&key),
        };
        let keys: Vec<Bytes> = self.keys.keys().filter(|key| inside(key)).cloned().collect();
        for key in keys {
            self.end(&key, sub);
        }
    }

    /// Deletes a key, if it exists.
    fn end(&mut self, key: &Bytes, sub: &mut i64) {
        if self.latest(key).is_some() {
            self.attach(key, 0);
            self.push(key, sub, None);
        }
    }

    fn txn(&mut self, txn: &TxnRequest, sub: &mut i64) {
        let holds = txn.compare.iter().all(|compare| self.holds(compare));
        let ops = if holds { &txn.success } else { &txn.failure };
        let allowed = |request: &Option<Request>| match request {
            Some(Request::RequestPut(put)) => self.may_put(put),
            _ => true,
        };
        if !ops.iter().all(|op| allowed(&op.request)) {
            return;
        }
        for op in ops {
            match &op.request {
                Some(Request::RequestPut(put)) => self.put(put, sub),
                Some(Request::RequestDeleteRange(delete)) => self.delete(delete, sub),
                _ => {}
            }
        }
    }

    /// Whether a condition on a number of a key holds; those of a key that is not there are 0.
    fn holds(&self, compare: &Compare) -> bool {
        let kv = self.latest(&compare.key);
        let (left, right) = match compare.target_union {
            Some(TargetUnion::Version(right)) => (kv.map(|kv| kv.version), right),
            Some(TargetUnion::CreateRevision(right)) => (kv.map(|kv| kv.create_revision), right),
            Some(TargetUnion::ModRevision(right)) => (kv.map(|kv| kv.mod_revision), right),
            _ => return false,
        };
        let left = left.unwrap_or(0);
        match CompareResult::try_from(compare.result) {
            Ok(CompareResult::Equal) => left == right,
            Ok(CompareResult::NotEqual) => left != right,
            Ok(CompareResult::Less) => left < right,
            Ok(CompareResult::Greater) => left > right,
            Err(_) => false,
        }
    }

    fn push(&mut self, key: &Bytes, sub: &mut i64, record: Option<KeyValue>) {
        let version = Version { main: self.revision + 1, sub: *sub, record };
        self.keys.entry(key.clone()).or_default().push(version);
        *sub += 1;
    }

    fn attach(&mut self, key: &Bytes, lease: i64) {
        for keys in self.leases.values_mut() {
            keys.remove(key);
        }
        if let Some(keys) = self.leases.get_mut(&lease) {
            keys.insert(key.clone());
        }
    }
}
