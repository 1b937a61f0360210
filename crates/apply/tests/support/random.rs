//! Requests by chance, over so few keys, leases and revisions that they meet.

use api::etcdserverpb::compare::TargetUnion;
use api::etcdserverpb::request_op::Request;
use api::etcdserverpb::{Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};
use bytes::Bytes;

use super::Rng;

impl Rng {
    pub fn key(&mut self) -> Bytes {
        Bytes::copy_from_slice(&[b'a' + self.below(6) as u8])
    }

    fn value(&mut self) -> Bytes {
        Bytes::copy_from_slice(&b"xyzzy"[..self.below(6) as usize])
    }

    pub fn lease(&mut self) -> i64 {
        if self.one_in(2) { 0 } else { 1 + self.below(4) as i64 }
    }

    fn end(&mut self) -> Bytes {
        match self.below(4) {
            0 => Bytes::from_static(b"\0"),
            1 => self.key(),
            _ => Bytes::new(),
        }
    }

    pub fn put(&mut self) -> PutRequest {
        let (ignore_value, ignore_lease) = (self.one_in(8), self.one_in(8));
        PutRequest {
            key: self.key(),
            value: if ignore_value { Bytes::new() } else { self.value() },
            lease: if ignore_lease { 0 } else { self.lease() },
            prev_kv: self.one_in(2),
            ignore_value,
            ignore_lease,
        }
    }

    pub fn delete(&mut self) -> DeleteRangeRequest {
        DeleteRangeRequest { key: self.key(), range_end: self.end(), prev_kv: self.one_in(2) }
    }

    /// Revisions around the present one, and now and then one that cannot be.
    pub fn range(&mut self, current: i64) -> RangeRequest {
        let mut filter = || if self.one_in(6) { self.near(current) } else { 0 };
        let filters = [filter(), filter(), filter(), filter()];
        RangeRequest {
            key: self.key(),
            range_end: self.end(),
            limit: self.below(4) as i64,
            revision: if self.one_in(3) { self.near(current) } else { 0 },
            sort_order: self.below(3) as i32,
            sort_target: self.below(5) as i32,
            serializable: self.one_in(2),
            keys_only: self.one_in(6),
            count_only: self.one_in(6),
            min_mod_revision: filters[0],
            max_mod_revision: filters[1],
            min_create_revision: filters[2],
            max_create_revision: filters[3],
        }
    }

    fn near(&mut self, current: i64) -> i64 {
        if self.one_in(30) {
            current + 1 - 3 * self.below(2) as i64
        } else {
            (current - self.below(9) as i64).max(1)
        }
    }

    pub fn txn(&mut self, current: i64, depth: usize) -> TxnRequest {
        let compares = self.below(3);
        TxnRequest {
            compare: (0..compares).map(|_| self.compare(current)).collect(),
            success: self.ops(current, depth),
            failure: self.ops(current, depth),
        }
    }

    fn ops(&mut self, current: i64, depth: usize) -> Vec<RequestOp> {
        let count = self.below(5);
        let mut op = || match self.below(if depth > 0 { 8 } else { 7 }) {
            0 | 1 => Request::RequestRange(self.range(current)),
            2..=4 => Request::RequestPut(self.put()),
            5 | 6 => Request::RequestDeleteRange(self.delete()),
            _ => Request::RequestTxn(self.txn(current, depth - 1)),
        };
        (0..count).map(|_| RequestOp { request: Some(op()) }).collect()
    }

    fn compare(&mut self, current: i64) -> Compare {
        let (target, union) = match self.below(5) {
            0 => (0, TargetUnion::Version(self.below(4) as i64)),
            1 => (1, TargetUnion::CreateRevision(self.near(current))),
            2 => (2, TargetUnion::ModRevision(self.near(current))),
            3 => (3, TargetUnion::Value(self.value())),
            _ => (4, TargetUnion::Lease(self.lease())),
        };
        Compare {
            result: self.below(4) as i32,
            target,
            key: self.key(),
            range_end: self.end(),
            target_union: Some(union),
        }
    }
}
