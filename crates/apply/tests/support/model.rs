//! The naive twin of keys and transactions: a full copy of the map for every revision.

use std::collections::{BTreeMap, BTreeSet};

use api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use api::etcdserverpb::range_request::{SortOrder, SortTarget};
use api::etcdserverpb::request_op::Request;
use api::etcdserverpb::response_op::Response;
use api::etcdserverpb::{
    Compare, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest, RangeResponse,
    ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
};
use api::mvccpb::KeyValue;
use apply::Rejection;
use bytes::Bytes;

pub type Map = BTreeMap<Bytes, KeyValue>;

/// One change: whether it is a deletion, and the record.
pub type Change = (bool, KeyValue);

pub struct Model {
    /// The map at revision `index + 1`.
    history: Vec<Map>,
    pub compacted: i64,
    pub leases: BTreeSet<i64>,
}

/// A transaction under way.
struct Run<'a> {
    model: &'a Model,
    map: Map,
    changes: Vec<Change>,
}

impl Model {
    pub fn new() -> Self {
        Model { history: vec![Map::new()], compacted: -1, leases: BTreeSet::new() }
    }

    pub fn revision(&self) -> i64 {
        self.history.len() as i64
    }

    pub fn map(&self) -> &Map {
        self.history.last().unwrap()
    }

    pub fn txn(&mut self, request: &TxnRequest) -> Result<(TxnResponse, Vec<Change>), Rejection> {
        let mut run = Run { model: self, map: self.map().clone(), changes: Vec::new() };
        // A refusal anywhere, and the copy is thrown away.
        run.check(request, &mut Map::clone(self.map()))?;
        let response = run.txn(request);
        let (map, changes) = (run.map, run.changes);
        if !changes.is_empty() {
            self.history.push(map);
        }
        Ok((TxnResponse { header: None, ..response }, changes))
    }

    pub fn revoke(&mut self, lease: i64) -> Option<Vec<Change>> {
        self.leases.remove(&lease).then(|| {
            let keys: Vec<Bytes> = self.keys_of(lease);
            let mut run = Run { model: self, map: self.map().clone(), changes: Vec::new() };
            keys.iter().for_each(|key| run.delete(key));
            let (map, changes) = (run.map, run.changes);
            if !changes.is_empty() {
                self.history.push(map);
            }
            changes
        })
    }

    pub fn keys_of(&self, lease: i64) -> Vec<Bytes> {
        self.map().values().filter(|kv| kv.lease == lease).map(|kv| kv.key.clone()).collect()
    }

    pub fn compact(&mut self, revision: i64) -> Result<(), Rejection> {
        if revision <= self.compacted {
            return Err(Rejection::Compacted);
        }
        if revision > self.revision() {
            return Err(Rejection::FutureRevision);
        }
        self.compacted = revision;
        Ok(())
    }

    fn decide(&self, request: &TxnRequest) -> bool {
        request.compare.iter().all(|compare| {
            let kvs: Vec<&KeyValue> = within(self.map(), &compare.key, &compare.range_end).collect();
            let value = compare.target() == CompareTarget::Value;
            match kvs.len() {
                0 => !value && holds(compare, &KeyValue::default()),
                _ => kvs.iter().all(|kv| holds(compare, kv)),
            }
        })
    }
}

impl Run<'_> {
    /// Walks the transaction as if it were run, on a map of its own.
    fn check(&self, request: &TxnRequest, map: &mut Map) -> Result<(), Rejection> {
        let ops = if self.model.decide(request) { &request.success } else { &request.failure };
        for op in ops {
            match op.request.as_ref().unwrap() {
                Request::RequestRange(range) => match range.revision {
                    0 => {}
                    revision if revision > self.model.revision() => return Err(Rejection::FutureRevision),
                    revision if revision < self.model.compacted => return Err(Rejection::Compacted),
                    _ => {}
                },
                Request::RequestPut(put) => {
                    if put.lease != 0 && !self.model.leases.contains(&put.lease) {
                        return Err(Rejection::LeaseNotFound);
                    }
                    if (put.ignore_value || put.ignore_lease) && !map.contains_key(&put.key) {
                        return Err(Rejection::KeyNotFound);
                    }
                    map.insert(put.key.clone(), KeyValue::default());
                }
                Request::RequestDeleteRange(delete) => {
                    let inside = |key: &Bytes| contains(&delete.key, &delete.range_end, key);
                    map.retain(|key, _| !inside(key));
                }
                Request::RequestTxn(nested) => self.check(nested, map)?,
            }
        }
        Ok(())
    }

    fn revision(&self) -> i64 {
        self.model.revision() + i64::from(!self.changes.is_empty())
    }

    fn header(&self) -> Option<ResponseHeader> {
        Some(ResponseHeader { revision: self.revision(), ..Default::default() })
    }

    fn txn(&mut self, request: &TxnRequest) -> TxnResponse {
        let succeeded = self.model.decide(request);
        let ops = if succeeded { &request.success } else { &request.failure };
        let run = |op: &Request| match op {
            Request::RequestRange(range) => Response::ResponseRange(self.range(range)),
            Request::RequestPut(put) => Response::ResponsePut(self.put(put)),
            Request::RequestDeleteRange(delete) => Response::ResponseDeleteRange(self.delete_range(delete)),
            Request::RequestTxn(nested) => Response::ResponseTxn(self.txn(nested)),
        };
        let responses: Vec<_> = ops.iter().map(|op| op.request.as_ref().unwrap()).map(run).collect();
        let responses =
            responses.into_iter().map(|response| ResponseOp { response: Some(response) }).collect();
        TxnResponse { header: Some(ResponseHeader::default()), succeeded, responses }
    }

    fn range(&self, request: &RangeRequest) -> RangeResponse {
        let map = match request.revision {
            ..=0 => &self.map,
            revision => &self.model.history[revision as usize - 1],
        };
        let mut kvs: Vec<KeyValue> = within(map, &request.key, &request.range_end).cloned().collect();
        let count = kvs.len() as i64;
        let header = self.header();
        if request.count_only {
            return RangeResponse { header, kvs: Vec::new(), more: false, count };
        }
        let limit = if request.limit > 0 { request.limit as usize } else { usize::MAX };
        let filters = [
            request.min_mod_revision,
            request.max_mod_revision,
            request.min_create_revision,
            request.max_create_revision,
        ];
        // etcd sorts only as much as it fetched, and without an order it fetches one beyond the limit.
        if request.sort_order() == SortOrder::None && filters == [0; 4] {
            kvs.truncate(limit.saturating_add(1));
        }
        let within = |n: i64, min: i64, max: i64| (min == 0 || n >= min) && (max == 0 || n <= max);
        kvs.retain(|kv| within(kv.mod_revision, filters[0], filters[1]));
        kvs.retain(|kv| within(kv.create_revision, filters[2], filters[3]));
        // Records that compare equal stay in the order of keys, whichever the direction.
        let descend = request.sort_order() == SortOrder::Descend;
        kvs.sort_by(|a, b| {
            let order = match request.sort_target() {
                SortTarget::Key => a.key.cmp(&b.key),
                SortTarget::Version => a.version.cmp(&b.version),
                SortTarget::Create => a.create_revision.cmp(&b.create_revision),
                SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
                SortTarget::Value => a.value.cmp(&b.value),
            };
            if descend { order.reverse() } else { order }
        });
        let more = kvs.len() > limit;
        kvs.truncate(limit);
        if request.keys_only {
            kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
        }
        RangeResponse { header, kvs, more, count }
    }

    fn put(&mut self, request: &PutRequest) -> PutResponse {
        let old = self.map.get(&request.key).cloned();
        let main = self.model.revision() + 1;
        let kept = old.clone().unwrap_or_default();
        let kv = KeyValue {
            key: request.key.clone(),
            create_revision: if old.is_some() { kept.create_revision } else { main },
            mod_revision: main,
            version: kept.version + 1,
            value: if request.ignore_value { kept.value } else { request.value.clone() },
            lease: if request.ignore_lease { kept.lease } else { request.lease },
        };
        self.map.insert(request.key.clone(), kv.clone());
        self.changes.push((false, kv));
        PutResponse { header: self.header(), prev_kv: old.filter(|_| request.prev_kv) }
    }

    fn delete_range(&mut self, request: &DeleteRangeRequest) -> DeleteRangeResponse {
        let gone: Vec<KeyValue> = within(&self.map, &request.key, &request.range_end).cloned().collect();
        gone.iter().for_each(|kv| self.delete(&kv.key));
        let deleted = gone.len() as i64;
        let prev_kvs = if request.prev_kv { gone } else { Vec::new() };
        DeleteRangeResponse { header: self.header(), deleted, prev_kvs }
    }

    fn delete(&mut self, key: &Bytes) {
        self.map.remove(key);
        let mod_revision = self.model.revision() + 1;
        self.changes.push((true, KeyValue { key: key.clone(), mod_revision, ..Default::default() }));
    }
}

fn holds(compare: &Compare, kv: &KeyValue) -> bool {
    let order = match compare.target_union.as_ref().unwrap() {
        TargetUnion::Version(n) => kv.version.cmp(n),
        TargetUnion::CreateRevision(n) => kv.create_revision.cmp(n),
        TargetUnion::ModRevision(n) => kv.mod_revision.cmp(n),
        TargetUnion::Lease(n) => kv.lease.cmp(n),
        TargetUnion::Value(value) => kv.value.cmp(value),
    };
    match compare.result() {
        CompareResult::Equal => order.is_eq(),
        CompareResult::NotEqual => order.is_ne(),
        CompareResult::Greater => order.is_gt(),
        CompareResult::Less => order.is_lt(),
    }
}

fn within<'a>(map: &'a Map, key: &'a Bytes, end: &'a Bytes) -> impl Iterator<Item = &'a KeyValue> {
    map.values().filter(move |kv| contains(key, end, &kv.key))
}

fn contains(key: &Bytes, end: &Bytes, probe: &Bytes) -> bool {
    match end.as_ref() {
        [] => probe == key,
        [0] => probe >= key,
        _ => probe >= key && probe < end,
    }
}
